use super::*;
use crate::upstream::ApiStatus;

/// A machine and its time.
struct Sim {
    machine: Machine,
    now: Instant,
}

fn settings(strategy: ListStrategy) -> Settings {
    Settings {
        strategy,
        any: false,
        page_size: 500,
        eager: true,
        timing: Default::default(),
    }
}

fn at(number: u64) -> Revision {
    Revision::Number(number)
}

fn failure(fault: Fault) -> Failure {
    Failure::new(fault, "a message")
}

fn sent(step: &Step) -> &Request {
    match &step.io {
        Io::Send(request) => request,
        other => panic!("no request: {other:?}"),
    }
}

fn list_from(step: &Step) -> (&ListFrom, Option<u32>) {
    match sent(step) {
        Request::List { from, limit } => (from, *limit),
        other => panic!("no list: {other:?}"),
    }
}

impl Sim {
    fn new(settings: Settings) -> Self {
        let now = Instant::now();
        Self {
            machine: Machine::new(settings, 7, now),
            now,
        }
    }

    fn step(&mut self, input: Input) -> Step {
        self.machine.step(input, self.now)
    }

    fn after(&mut self, seconds: f64) -> &mut Self {
        self.now += Duration::from_secs_f64(seconds);
        self
    }

    fn fail(&mut self, fault: Fault) -> Step {
        self.step(Input::Failed(failure(fault)))
    }

    /// Lets time pass until the machine wants a tick.
    fn tick(&mut self) -> Step {
        let deadline = self.machine.deadline().expect("a timer");
        self.now = self.now.max(deadline);
        self.step(Input::Tick)
    }

    fn wait(&self) -> f64 {
        let deadline = self.machine.deadline().expect("a timer");
        deadline.saturating_duration_since(self.now).as_secs_f64()
    }

    fn page(&mut self, revision: u64, next: Option<&str>) -> Step {
        let _ = self.step(Input::Opened);
        let next = next.map(str::to_owned);
        self.step(Input::Page {
            revision: at(revision),
            next,
        })
    }

    fn phase(&self) -> Phase {
        self.machine.report().phase
    }

    /// Pages, listed at this revision, watching.
    fn watching(revision: u64) -> Self {
        let mut sim = Self::new(settings(ListStrategy::Paged));
        let _ = sim.step(Input::Served);
        let _ = sim.page(revision, None);
        let _ = sim.step(Input::Opened);
        assert_eq!(sim.phase(), Phase::Live);
        sim
    }

    /// As `watching`, of a kind that has sent a bookmark.
    fn with_bookmarks(revision: u64) -> Self {
        let mut sim = Self::watching(revision);
        assert_eq!(sim.step(Input::Bookmark(at(revision))).data, Data::Apply);
        sim
    }

    fn causes(&mut self) -> Vec<&'static str> {
        self.machine
            .take_begun()
            .into_iter()
            .map(ListCause::as_str)
            .collect()
    }
}

#[test]
fn a_kind_waits_until_it_is_served_and_then_lists_page_by_page() {
    let mut sim = Sim::new(settings(ListStrategy::Paged));
    assert_eq!(
        (sim.phase(), sim.machine.deadline()),
        (Phase::Waiting, None)
    );
    let step = sim.step(Input::Served);
    assert_eq!(list_from(&step), (&ListFrom::MostRecent, Some(500)));
    assert_eq!(sim.phase(), Phase::Syncing);
    let step = sim.page(10, Some("next"));
    assert_eq!(
        sent(&step),
        &Request::Continue {
            token: "next".into(),
            limit: Some(500)
        }
    );
    assert_eq!(step.data, Data::Keep, "nothing is published yet");
    let step = sim.page(10, None);
    assert_eq!(
        step.data,
        Data::Publish {
            revision: at(10),
            history: History::Same
        }
    );
    assert!(matches!(sent(&step), Request::Watch { revision, .. } if *revision == at(10)));
    assert_eq!(sim.causes(), ["initial"]);
}

#[test]
fn the_first_list_may_be_any_and_is_then_not_paged_but_a_relist_is_never_any() {
    let mut sim = Sim::new(Settings {
        any: true,
        ..settings(ListStrategy::Auto)
    });
    let step = sim.step(Input::Served);
    assert_eq!(list_from(&step), (&ListFrom::Any, None));
    let _ = sim.page(10, None);
    let _ = sim.after(60.0).step(Input::Opened);
    let step = sim.fail(Fault::Expired);
    assert!(matches!(
        sent(&step),
        Request::Stream {
            from: ListFrom::MostRecent,
            ..
        }
    ));
}

#[test]
fn watches_end_between_five_and_ten_minutes() {
    let mut seen = Vec::new();
    let mut sim = Sim::with_bookmarks(10);
    for _ in 0..50 {
        let asked = match sim.machine.state() {
            State::Watching(open) => open.asked,
            other => panic!("{other:?}"),
        };
        seen.push(asked.as_secs());
        let _ = sim.after(asked.as_secs_f64()).step(Input::Bookmark(at(10)));
        let step = sim.step(Input::Ended { whole: true });
        assert!(matches!(sent(&step), Request::Watch { revision, .. } if *revision == at(10)));
        let _ = sim.step(Input::Opened);
    }
    assert!(seen.iter().all(|asked| (300..=600).contains(asked)));
    assert!(seen.iter().max() > seen.iter().min());
}

#[test]
fn a_stream_is_published_at_its_end_mark_with_what_changed_meanwhile() {
    let mut sim = Sim::new(settings(ListStrategy::Auto));
    let step = sim.step(Input::Served);
    assert!(matches!(
        sent(&step),
        Request::Stream {
            from: ListFrom::MostRecent,
            ..
        }
    ));
    let _ = sim.step(Input::Opened);
    assert_eq!(
        sim.step(Input::Change(Some(at(3)))),
        Step {
            data: Data::Fold,
            io: Io::Keep
        }
    );
    assert_eq!(sim.step(Input::Change(None)).data, Data::Fold);
    assert_eq!(
        sim.step(Input::Bookmark(at(4))).data,
        Data::Keep,
        "no end mark"
    );
    let step = sim.step(Input::EndMark(at(9)));
    assert_eq!(
        step,
        Step {
            data: Data::Publish {
                revision: at(9),
                history: History::Same
            },
            io: Io::Keep
        }
    );
    assert_eq!(sim.step(Input::Change(Some(at(11)))).data, Data::Apply);
    assert!(sim.after(300.0).machine.deadline().is_some());
}

#[test]
fn a_server_that_refuses_to_stream_is_asked_for_pages_at_once_and_for_an_hour() {
    let mut sim = Sim::new(settings(ListStrategy::Auto));
    let _ = sim.step(Input::Served);
    let step = sim.fail(Fault::Refused);
    assert_eq!(
        (step.data.clone(), list_from(&step).1),
        (Data::Discard, Some(500))
    );
    let _ = sim.page(10, None);
    let _ = sim.step(Input::Opened);
    let step = sim.after(3500.0).fail(Fault::Expired);
    assert!(matches!(sent(&step), Request::List { .. }));
    let _ = sim.page(20, None);
    let _ = sim.step(Input::Opened);
    let step = sim.after(200.0).fail(Fault::Expired);
    assert!(
        matches!(sent(&step), Request::Stream { .. }),
        "it may have been upgraded"
    );
    assert_eq!(sim.causes(), ["initial", "expired", "expired"]);
}

#[test]
fn a_server_that_never_sends_the_end_mark_is_asked_for_pages() {
    let mut sim = Sim::new(settings(ListStrategy::Auto));
    let _ = sim.step(Input::Served);
    let _ = sim.step(Input::Opened);
    let _ = sim.after(5.0).step(Input::Change(Some(at(3))));
    assert!((29.0..31.0).contains(&sim.wait()));
    let step = sim.tick();
    assert_eq!(
        (step.data.clone(), list_from(&step).1),
        (Data::Discard, Some(500))
    );
}

#[test]
fn streams_that_are_cut_are_never_published_and_give_way_to_pages() {
    let mut sim = Sim::new(settings(ListStrategy::Auto));
    let _ = sim.step(Input::Served);
    let _ = sim.step(Input::Opened);
    let _ = sim.step(Input::Change(Some(at(3))));
    let step = sim.step(Input::Ended { whole: true });
    assert_eq!(
        step,
        Step {
            data: Data::Discard,
            io: Io::Close
        }
    );
    assert!(matches!(sent(&sim.tick()), Request::Stream { .. }));
    let _ = sim.step(Input::Opened);
    let _ = sim.fail(Fault::Cut);
    assert!(matches!(sent(&sim.tick()), Request::List { .. }));
    assert_eq!(
        sim.phase(),
        Phase::BackingOff,
        "what is wrong stays on show until something is right"
    );
    let _ = sim.step(Input::Opened);
    assert_eq!(sim.phase(), Phase::Syncing);
}

#[test]
fn where_a_stream_is_demanded_a_refusal_says_what_to_write() {
    let mut sim = Sim::new(settings(ListStrategy::WatchList));
    let _ = sim.step(Input::Served);
    assert_eq!(
        sim.fail(Fault::Refused),
        Step {
            data: Data::Discard,
            io: Io::Close
        }
    );
    assert!(sim.machine.report().message.contains("list: auto"));
    assert!(matches!(sent(&sim.tick()), Request::Stream { .. }));
}

#[test]
fn a_list_that_is_cut_in_the_middle_is_forgotten_and_read_again_from_its_start() {
    let mut sim = Sim::new(settings(ListStrategy::Paged));
    let _ = sim.step(Input::Served);
    let _ = sim.page(10, Some("next"));
    let _ = sim.step(Input::Opened);
    assert_eq!(
        sim.fail(Fault::Cut),
        Step {
            data: Data::Discard,
            io: Io::Close
        }
    );
    assert_eq!(list_from(&sim.tick()), (&ListFrom::MostRecent, Some(500)));
    let step = sim.page(12, None);
    assert_eq!(
        step.data,
        Data::Publish {
            revision: at(12),
            history: History::Same
        }
    );
    assert_eq!(
        sim.causes(),
        ["initial"],
        "one need, however often it is tried"
    );
}

#[test]
fn a_list_that_stops_in_the_middle_is_given_up() {
    let mut sim = Sim::new(settings(ListStrategy::Paged));
    let _ = sim.step(Input::Served);
    assert_eq!(sim.wait(), 90.0);
    let _ = sim.step(Input::Opened);
    let _ = sim.after(20.0).step(Input::Bytes);
    assert_eq!(sim.wait(), 30.0);
    assert_eq!(
        sim.tick(),
        Step {
            data: Data::Discard,
            io: Io::Close
        }
    );
    assert_eq!(sim.machine.report().reason, "Timeout");
}

#[test]
fn an_expired_continue_token_starts_over_then_reads_all_at_once_then_waits() {
    let mut sim = Sim::new(settings(ListStrategy::Paged));
    let _ = sim.step(Input::Served);
    let _ = sim.page(10, Some("next"));
    let step = sim.fail(Fault::Expired);
    assert_eq!(
        (step.data.clone(), list_from(&step)),
        (Data::Discard, (&ListFrom::MostRecent, Some(500)))
    );
    let _ = sim.page(20, Some("next"));
    assert_eq!(
        list_from(&sim.fail(Fault::Expired)),
        (&ListFrom::MostRecent, None)
    );
    assert_eq!(sim.fail(Fault::Expired).io, Io::Close);
}

#[test]
fn a_bad_continue_token_reads_all_at_once() {
    let mut sim = Sim::new(settings(ListStrategy::Paged));
    let _ = sim.step(Input::Served);
    let _ = sim.page(10, Some("next"));
    assert_eq!(
        list_from(&sim.fail(Fault::Refused)),
        (&ListFrom::MostRecent, None)
    );
    assert_eq!(sim.fail(Fault::Refused).io, Io::Close);
}

#[test]
fn an_expired_watch_leads_to_one_list_without_a_revision_at_once() {
    let mut sim = Sim::with_bookmarks(10);
    sim.after(60.0).causes();
    let step = sim.fail(Fault::Expired);
    assert_eq!(list_from(&step), (&ListFrom::MostRecent, Some(500)));
    assert_eq!((step.data, sim.phase()), (Data::Keep, Phase::Relisting));
    let step = sim.page(50, None);
    assert_eq!(
        step.data,
        Data::Publish {
            revision: at(50),
            history: History::Same
        }
    );
    assert_eq!(sim.causes(), ["expired"]);
    // And again right after it: then not at once.
    let _ = sim.after(1.0).fail(Fault::Expired);
    assert!(matches!(sim.machine.state(), State::BackingOff(_)));
    assert!(matches!(
        sent(&sim.tick()),
        Request::List {
            from: ListFrom::MostRecent,
            ..
        }
    ));
}

#[test]
fn after_an_error_the_history_is_checked_and_the_watch_goes_on_where_it_was() {
    let mut sim = Sim::with_bookmarks(10);
    let _ = sim.step(Input::Change(Some(at(12))));
    assert_eq!(
        sim.fail(Fault::Cut),
        Step {
            data: Data::Keep,
            io: Io::Close
        }
    );
    assert_eq!(sim.phase(), Phase::BackingOff);
    assert!((0.8..=1.6).contains(&sim.wait()));
    assert_eq!(sent(&sim.tick()), &Request::Probe);
    let step = sim.step(Input::Probed(at(12)));
    assert!(matches!(sent(&step), Request::Watch { revision, .. } if *revision == at(12)));
    assert_eq!(sim.phase(), Phase::BackingOff);
    let _ = sim.step(Input::Opened);
    assert_eq!((sim.phase(), sim.causes()), (Phase::Live, vec!["initial"]));
}

#[test]
fn a_revision_that_went_back_is_another_history() {
    let mut sim = Sim::with_bookmarks(100);
    let _ = sim.fail(Fault::Cut);
    let _ = sim.tick();
    let step = sim.step(Input::Probed(at(40)));
    assert_eq!(list_from(&step), (&ListFrom::MostRecent, Some(500)));
    // A list that fails, or overtakes us meanwhile, does not make it the old history again.
    let _ = sim.fail(Fault::Cut);
    let _ = sim.tick();
    let step = sim.page(150, None);
    assert_eq!(
        step.data,
        Data::Publish {
            revision: at(150),
            history: History::New
        }
    );
    assert_eq!(sim.causes(), ["initial", "history"]);
    let _ = sim.after(60.0).step(Input::Opened);
    let _ = sim.fail(Fault::Expired);
    assert_eq!(
        sim.page(160, None).data,
        Data::Publish {
            revision: at(160),
            history: History::Same
        }
    );
}

#[test]
fn a_most_recent_list_below_ours_is_another_history_too() {
    let mut sim = Sim::with_bookmarks(100);
    let _ = sim.after(60.0).fail(Fault::Expired);
    assert_eq!(
        sim.page(40, None).data,
        Data::Publish {
            revision: at(40),
            history: History::New
        }
    );
    let step = sim.step(Input::Opened);
    assert_eq!(step.io, Io::Keep);
    assert_eq!(sim.step(Input::Change(Some(at(41)))).data, Data::Apply);
}

#[test]
fn a_server_that_lists_older_than_asked_for_is_asked_for_the_most_recent() {
    let mut sim = Sim::with_bookmarks(100);
    for _ in 0..2 {
        let _ = sim.tick();
        let _ = sim.step(Input::Probed(at(100)));
        let _ = sim.step(Input::Opened);
    }
    let step = sim.page(40, None);
    assert_eq!(
        (step.data.clone(), list_from(&step).0),
        (Data::Discard, &ListFrom::MostRecent)
    );
}

#[test]
fn a_silent_watch_is_opened_again_and_the_second_silence_lists_anew() {
    let mut sim = Sim::with_bookmarks(10);
    sim.causes();
    assert_eq!(sim.wait(), 130.0);
    assert_eq!(sent(&sim.tick()), &Request::Probe);
    assert_eq!(
        (sim.phase(), sim.machine.report().reason.as_ref()),
        (Phase::BackingOff, "Silent")
    );
    let step = sim.step(Input::Probed(at(30)));
    assert!(
        matches!(sent(&step), Request::Watch { revision, .. } if *revision == at(10)),
        "a probe is no event"
    );
    let _ = sim.step(Input::Opened);
    assert_eq!(sent(&sim.tick()), &Request::Probe);
    let step = sim.step(Input::Probed(at(30)));
    assert_eq!(list_from(&step).0, &ListFrom::NotOlderThan(at(10)));
    assert_eq!(sim.causes(), ["silent"]);
}

#[test]
fn anything_heard_is_no_silence() {
    let mut sim = Sim::with_bookmarks(10);
    let _ = sim.tick();
    let _ = sim.step(Input::Probed(at(10)));
    let _ = sim.step(Input::Opened);
    let _ = sim.after(100.0).step(Input::Bookmark(at(11)));
    assert_eq!(sim.wait(), 130.0);
    let _ = sim.tick();
    let step = sim.step(Input::Probed(at(11)));
    assert!(
        matches!(sent(&step), Request::Watch { .. }),
        "the first silence again"
    );
}

#[test]
fn a_kind_without_bookmarks_is_not_half_open_but_unproven_and_its_history_is_checked() {
    let mut sim = Sim::watching(10);
    assert_eq!(sim.wait(), 130.0);
    assert_eq!(
        sim.tick(),
        Step {
            data: Data::Unproven,
            io: Io::Keep
        }
    );
    assert!(sim.wait() > 100.0);
    let State::Watching(open) = sim.machine.state().clone() else {
        panic!()
    };
    let _ = sim
        .after(open.asked.as_secs_f64() - 130.0)
        .step(Input::Ended { whole: true });
    assert!(matches!(sim.machine.state(), State::Probing(_)));
    let step = sim.step(Input::Probed(at(99)));
    assert!(matches!(sent(&step), Request::Watch { revision, .. } if *revision == at(10)));
}

#[test]
fn a_watch_that_outstays_its_time_is_cut() {
    let mut sim = Sim::watching(10);
    let _ = sim.tick();
    assert_eq!(sent(&sim.tick()), &Request::Probe);
}

#[test]
fn a_watch_that_ends_before_its_time_is_followed_by_a_check() {
    let mut sim = Sim::with_bookmarks(10);
    let step = sim.after(20.0).step(Input::Ended { whole: true });
    assert_eq!(sent(&step), &Request::Probe);
    assert_eq!(sim.phase(), Phase::Live);
}

#[test]
fn a_watch_that_ends_at_once_has_failed() {
    let mut sim = Sim::with_bookmarks(10);
    let _ = sim.after(20.0).step(Input::Ended { whole: true });
    let _ = sim.step(Input::Probed(at(10)));
    let _ = sim.step(Input::Opened);
    let _ = sim.after(0.5).step(Input::Ended { whole: true });
    assert!(matches!(sim.machine.state(), State::BackingOff(_)));
}

#[test]
fn a_server_that_says_when_to_come_back_is_not_asked_sooner() {
    let mut sim = Sim::with_bookmarks(10);
    let status = ApiStatus {
        code: 429,
        reason: "TooManyRequests".into(),
        message: "later".into(),
        retry_after: Some(Duration::from_secs(45)),
        causes: Vec::new(),
    };
    let _ = sim.step(Input::Failed((&status).into()));
    assert!((45.0..50.0).contains(&sim.wait()));
    let _ = sim.step(Input::Renewed);
    let _ = sim.step(Input::Changed);
    let _ = sim.step(Input::Used);
    assert!((45.0..50.0).contains(&sim.wait()));
}

#[test]
fn a_revision_of_the_future_twice_leads_to_a_check() {
    let mut sim = Sim::with_bookmarks(100);
    for _ in 0..2 {
        let _ = sim.tick();
        let _ = sim.step(Input::Probed(at(100)));
        let _ = sim.step(Input::Opened);
    }
    assert!(matches!(sim.machine.state(), State::Listing(_)));
    let _ = sim.fail(Fault::TooNew);
    assert!(matches!(
        sent(&sim.tick()),
        Request::List {
            from: ListFrom::NotOlderThan(_),
            ..
        }
    ));
    let _ = sim.fail(Fault::TooNew);
    assert_eq!(sent(&sim.tick()), &Request::Probe);
    let mut other = Sim {
        machine: sim.machine,
        now: sim.now,
    };
    assert_eq!(
        list_from(&other.step(Input::Probed(at(100)))).0,
        &ListFrom::MostRecent
    );
    assert_eq!(
        other.page(101, None).data,
        Data::Publish {
            revision: at(101),
            history: History::Same
        }
    );
}

#[test]
fn an_error_event_at_the_same_place_twice_lists_anew() {
    let mut sim = Sim::with_bookmarks(10);
    sim.causes();
    let status = ApiStatus {
        code: 500,
        message: "cannot decode".into(),
        ..ApiStatus::default()
    };
    for _ in 0..2 {
        let _ = sim.step(Input::Failed(Failure::in_stream(&status)));
        let _ = sim.tick();
        if matches!(sim.machine.state(), State::Probing(_)) {
            let _ = sim.step(Input::Probed(at(10)));
            let _ = sim.step(Input::Opened);
        }
    }
    assert!(matches!(sim.machine.state(), State::Listing(_)));
    assert_eq!(sim.causes(), ["error"]);
}

#[test]
fn a_missing_permission_is_named_and_tried_again_and_the_state_stays() {
    let mut sim = Sim::with_bookmarks(10);
    let message = r#"403 Forbidden: User "u" cannot list resource "pods""#;
    for _ in 0..10 {
        let _ = sim.step(Input::Failed(Failure::new(Fault::Forbidden, message)));
        assert_eq!(
            (sim.phase(), sim.machine.report().message.as_ref()),
            (Phase::Forbidden, message)
        );
        assert!(sim.wait() <= 60.0);
        let _ = sim.tick();
        assert_eq!(sim.phase(), Phase::Forbidden);
    }
}

#[test]
fn new_credentials_shorten_the_wait_of_who_lacked_them() {
    let mut sim = Sim::with_bookmarks(10);
    for _ in 0..6 {
        let _ = sim.fail(Fault::Unauthorized);
        if sim.wait() < 20.0 {
            let _ = sim.tick();
        }
    }
    assert!(sim.wait() > 20.0);
    let _ = sim.step(Input::Renewed);
    assert!(sim.wait() <= 1.0);
}

#[test]
fn with_new_credentials_the_watch_is_opened_again_where_it_was() {
    let mut sim = Sim::with_bookmarks(10);
    // Opened long ago, and heard of just now: that is no silence.
    let _ = sim.after(120.0).step(Input::Bookmark(at(10)));
    sim.after(15.0);
    assert_eq!(
        sim.step(Input::Renewed),
        Step {
            data: Data::Keep,
            io: Io::Keep
        }
    );
    assert!(sim.wait() <= 5.0);
    assert_eq!(sent(&sim.tick()), &Request::Probe);
    let step = sim.step(Input::Probed(at(10)));
    assert!(matches!(sent(&step), Request::Watch { revision, .. } if *revision == at(10)));
    assert_eq!(sim.phase(), Phase::Live);
}

#[test]
fn a_kind_that_goes_is_retired_and_complete_again_before_it_is_served() {
    let mut sim = Sim::with_bookmarks(10);
    let _ = sim.fail(Fault::NotFound);
    assert_eq!(sim.phase(), Phase::BackingOff, "one 404 is no proof");
    assert_eq!(
        sim.step(Input::Gone),
        Step {
            data: Data::Retire,
            io: Io::Close
        }
    );
    assert_eq!(
        (sim.phase(), sim.machine.deadline()),
        (Phase::Removed, None)
    );
    let step = sim.after(1000.0).step(Input::Served);
    assert_eq!(
        (step.data.clone(), list_from(&step).0),
        (Data::Unsync, &ListFrom::MostRecent)
    );
    assert_eq!(sim.phase(), Phase::Syncing);
    assert_eq!(sim.causes(), ["initial", "reappeared"]);
}

#[test]
fn a_kind_that_goes_before_its_first_list_just_waits() {
    let mut sim = Sim::new(settings(ListStrategy::Paged));
    let _ = sim.step(Input::Served);
    assert_eq!(
        sim.step(Input::Gone),
        Step {
            data: Data::Discard,
            io: Io::Close
        }
    );
    assert_eq!(sim.phase(), Phase::Waiting);
}

#[test]
fn another_version_of_the_kind_starts_everything_over() {
    let mut sim = Sim::with_bookmarks(10);
    let step = sim.step(Input::Changed);
    assert_eq!(
        (step.data.clone(), list_from(&step).0),
        (Data::Forget, &ListFrom::MostRecent)
    );
    assert_eq!(sim.phase(), Phase::Syncing);
    assert_eq!(
        sim.page(11, None).data,
        Data::Publish {
            revision: at(11),
            history: History::New
        }
    );
}

#[test]
fn a_kind_on_first_use_waits_for_a_user_and_stops_ten_minutes_after_the_last() {
    let mut sim = Sim::new(Settings {
        eager: false,
        ..settings(ListStrategy::Paged)
    });
    assert_eq!(
        sim.step(Input::Served),
        Step {
            data: Data::Keep,
            io: Io::Keep
        }
    );
    assert_eq!(sim.machine.report().reason, "NotUsed");
    assert!(matches!(sent(&sim.step(Input::Used)), Request::List { .. }));
    let _ = sim.page(10, None);
    let _ = sim.step(Input::Opened);
    let _ = sim.step(Input::Unused);
    let _ = sim.after(300.0).step(Input::Used);
    let _ = sim.step(Input::Bookmark(at(10)));
    let _ = sim.step(Input::Unused);
    let begun = sim.now;
    let stopped = loop {
        let step = sim.tick();
        if step.data == Data::Unsync {
            break step;
        }
        match sim.machine.state() {
            State::Probing(_) => drop(sim.step(Input::Probed(at(10)))),
            State::Listing(_) => drop(sim.page(10, None)),
            _ => {}
        }
        let _ = sim.step(Input::Opened);
    };
    assert_eq!(stopped.io, Io::Close);
    assert_eq!((sim.now - begun).as_secs(), 600);
    assert_eq!(sim.phase(), Phase::Waiting);
    let step = sim.after(60.0).step(Input::Used);
    assert_eq!(list_from(&step).0, &ListFrom::NotOlderThan(at(10)));
    assert_eq!(sim.phase(), Phase::Syncing);
}

#[test]
fn stale_events_move_nothing_back() {
    let mut sim = Sim::with_bookmarks(100);
    let _ = sim.step(Input::Change(Some(at(90))));
    let _ = sim.fail(Fault::Cut);
    let _ = sim.tick();
    let step = sim.step(Input::Probed(at(100)));
    assert!(matches!(sent(&step), Request::Watch { revision, .. } if *revision == at(100)));
}

#[test]
fn what_cannot_be_is_looked_into_once_a_minute() {
    let mut sim = Sim::with_bookmarks(100);
    sim.causes();
    assert_eq!(sent(&sim.step(Input::Suspect)), &Request::Probe);
    let step = sim.step(Input::Probed(at(100)));
    assert_eq!(list_from(&step).0, &ListFrom::MostRecent);
    let _ = sim.page(101, None);
    let _ = sim.step(Input::Opened);
    assert_eq!(sim.step(Input::Suspect).io, Io::Keep);
    assert_eq!(
        sim.after(61.0).step(Input::Bookmark(at(7))).io,
        Io::Send(Request::Probe)
    );
    assert_eq!(sim.causes(), ["disordered"]);
}

#[test]
fn versions_without_an_order_are_resumed_as_they_are_and_never_compared() {
    let opaque = |text: &str| Revision::Opaque(text.into());
    let mut sim = Sim::new(settings(ListStrategy::Paged));
    let _ = sim.step(Input::Served);
    let _ = sim.step(Input::Opened);
    let step = sim.step(Input::Page {
        revision: opaque("z"),
        next: None,
    });
    assert!(matches!(sent(&step), Request::Watch { revision, .. } if *revision == opaque("z")));
    let _ = sim.step(Input::Opened);
    let _ = sim.step(Input::Change(Some(opaque("a"))));
    let _ = sim.fail(Fault::Cut);
    let step = sim.tick();
    assert!(matches!(sent(&step), Request::Watch { revision, .. } if *revision == opaque("a")));
}

#[test]
fn failures_wait_ever_longer_though_lists_begin_in_between() {
    let mut sim = Sim::new(settings(ListStrategy::Paged));
    let _ = sim.step(Input::Served);
    let mut waits = Vec::new();
    for _ in 0..8 {
        let _ = sim.page(10, Some("next"));
        let _ = sim.fail(Fault::Status);
        waits.push(sim.wait());
        let _ = sim.tick();
    }
    assert!(waits[7] >= 30.0, "{waits:?}");
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn revision() -> impl Strategy<Value = Revision> {
        prop_oneof![8 => (1..40_u64).prop_map(at), 1 => Just(Revision::Opaque("x".into()))]
    }

    fn input() -> impl Strategy<Value = Input> {
        let fault = prop_oneof![
            Just(Fault::Expired),
            Just(Fault::TooNew),
            Just(Fault::Refused),
            Just(Fault::Forbidden),
            Just(Fault::Unauthorized),
            Just(Fault::NotFound),
            Just(Fault::Status),
            Just(Fault::Timeout),
            Just(Fault::Cut),
            Just(Fault::Garbled),
        ];
        prop_oneof![
            2 => Just(Input::Served),
            1 => Just(Input::Changed),
            1 => Just(Input::Gone),
            2 => Just(Input::Used),
            1 => Just(Input::Unused),
            1 => Just(Input::Renewed),
            8 => Just(Input::Opened),
            2 => Just(Input::Bytes),
            6 => (revision(), any::<bool>())
                .prop_map(|(revision, more)| Input::Page { revision, next: more.then(|| "next".into()) }),
            6 => proptest::option::of(revision()).prop_map(Input::Change),
            4 => revision().prop_map(Input::Bookmark),
            4 => revision().prop_map(Input::EndMark),
            1 => Just(Input::Suspect),
            6 => revision().prop_map(Input::Probed),
            3 => any::<bool>().prop_map(|whole| Input::Ended { whole }),
            4 => (fault, any::<bool>()).prop_map(|(fault, in_stream)| {
                Input::Failed(Failure { in_stream, ..failure(fault) })
            }),
            8 => Just(Input::Tick),
        ]
    }

    proptest! {
            #[test]
            fn whatever_happens_it_goes_on_and_publishes_only_whole_lists(
                inputs in proptest::collection::vec((input(), 0..200_000_u64), 1..300),
                strategy in prop_oneof![Just(ListStrategy::Auto), Just(ListStrategy::WatchList), Just(ListStrategy::Paged)],
                eager: bool, any: bool, seed: u64,
            ) {
                let settings = Settings { any, eager, ..settings(strategy) };
                let now = Instant::now();
                let mut sim = Sim { machine: Machine::new(settings, seed, now), now };
                // Whether a complete list stands, and what the connection is good for.
                let (mut synced, mut open) = (false, None::<Request>);
                for (input, millis) in inputs {
                    // Time stands where a timer would have fired before.
                    let step = if matches!(input, Input::Tick) && sim.machine.deadline().is_some() {
                        sim.tick()
                    } else {
                        let until = sim.machine.deadline().unwrap_or(sim.now + Duration::from_secs(200));
                        sim.now = (sim.now + Duration::from_millis(millis)).min(until.max(sim.now));
                        sim.step(input.clone())
                    };
                    match &step.data {
                        Data::Publish { .. } => {
                            let complete = matches!(
                            (&open, &input),
                            (
                                Some(Request::List { .. } | Request::Continue { .. }),
                                Input::Page { next: None, .. }
                            ) | (Some(Request::Stream { .. }), Input::EndMark(_))
                        );
                            prop_assert!(complete, "published by {input:?} on {open:?}");
                            synced = true;
                        }
                        Data::Unsync | Data::Forget | Data::Retire => synced = false,
                        Data::Apply => prop_assert!(synced, "applied to an incomplete shard"),
                        Data::Fold => {
     let streaming = matches!(open, Some(Request::Stream { .. }));
     prop_assert!(streaming);
    }
                        Data::Keep | Data::Discard | Data::Unproven => {}
                    }
                    match &step.io {
                        Io::Keep => {}
                        Io::Close => open = None,
                        Io::Send(request) => {
                            if let Request::Watch { .. } = request {
                                prop_assert!(synced, "a watch without a list, by {input:?}");
                            }
                            if let Request::Continue { .. } = request {
                                let paging = matches!(open, Some(Request::List { .. } | Request::Continue { .. }));
                                let page = matches!(input, Input::Page { .. });
    prop_assert!(paging && page);
                            }
                            if let Request::List { from: ListFrom::Any, limit } = request {
                                prop_assert!(limit.is_none());
                            }
                            open = Some(request.clone());
                        }
                    }
                    let waiting = *sim.machine.state() == State::Waiting;
                    prop_assert_eq!(waiting, sim.machine.deadline().is_none(), "no timer in {:?}", sim.machine.state());
                    prop_assert!(!waiting || open.is_none());
                    let idle = matches!(sim.machine.state(), State::BackingOff(_) | State::Waiting);
                    prop_assert_eq!(idle, open.is_none());
                    prop_assert_eq!(sim.phase() == Phase::Live && !synced, false);
                }
                // Left alone with a server that works, it ends up live.
                let _ = sim.step(Input::Used);
                let _ = sim.step(Input::Served);
                for _ in 0..12 {
                    match sim.machine.state().clone() {
                        State::BackingOff(_) => drop(sim.tick()),
                        State::Listing(_) => drop(sim.page(1000, None)),
                        State::Streaming(_) => {
                            let _ = sim.step(Input::Opened);
                            let _ = sim.step(Input::EndMark(at(1000)));
                        }
                        State::Probing(_) => drop(sim.step(Input::Probed(at(1000)))),
                        State::Watching(_) => drop(sim.step(Input::Opened)),
                        State::Waiting => prop_assert!(false, "waits though it is served and used"),
                    }
                }
                prop_assert_eq!(sim.phase(), Phase::Live);
            }

            #[test]
            fn a_timer_that_fires_always_changes_something(
                inputs in proptest::collection::vec(input(), 1..60), eager: bool, seed: u64,
            ) {
                let now = Instant::now();
                let settings = Settings { eager, ..settings(ListStrategy::Auto) };
                let mut sim = Sim { machine: Machine::new(settings, seed, now), now };
                for input in inputs {
                    let _ = sim.step(input);
                    if sim.machine.deadline().is_some() {
                        let step = sim.tick();
                        let later = sim.machine.deadline().is_none_or(|deadline| deadline > sim.now);
                        prop_assert!(step.io != Io::Keep || step.data != Data::Keep, "{:?}", sim.machine.state());
                        prop_assert!(later, "it would spin: {:?}", sim.machine.state());
                    }
                }
            }
        }
}
