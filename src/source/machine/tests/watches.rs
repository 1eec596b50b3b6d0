//! Watches: how they end, what they prove, and what is asked when they fail.

use super::*;

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
fn an_expired_watch_leads_to_one_list_without_a_revision_at_once() {
    let mut sim = Sim::with_bookmarks(10);
    sim.after(60.0).causes();
    let step = sim.fail(Fault::Expired);
    assert_eq!(list_from(&step), (&ListFrom::MostRecent, Some(500)));
    assert_eq!((step.data, sim.phase()), (Data::Keep, Phase::Relisting));
    let step = sim.page(50, None);
    assert_eq!(step.data, sim.published(50, History::Same));
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
    assert_eq!(step.data, sim.published(150, History::New));
    assert_eq!(sim.causes(), ["initial", "history"]);
    let _ = sim.after(60.0).step(Input::Opened);
    let _ = sim.fail(Fault::Expired);
    assert_eq!(sim.page(160, None).data, sim.published(160, History::Same));
}

#[test]
fn a_most_recent_list_below_ours_is_another_history_too() {
    let mut sim = Sim::with_bookmarks(100);
    let _ = sim.after(60.0).fail(Fault::Expired);
    assert_eq!(sim.page(40, None).data, sim.published(40, History::New));
    let step = sim.step(Input::Opened);
    assert_eq!(step.io, Io::Keep);
    assert_eq!(sim.step(Input::Change(Some(at(41)))).data, Data::Apply);
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
            io: Io::Send(Request::Probe)
        }
    );
    assert_eq!(watched_from(&sim.step(Input::Probed(at(99)))), &at(10));
    let _ = sim.step(Input::Opened);
    assert_eq!(sim.phase(), Phase::Live);
    assert!((90.0..=180.0).contains(&sim.wait()));
}

/// Whoever answers a probe may be ahead of whoever answers the watch, for as long as that likes.
#[test]
fn a_watch_goes_on_from_what_it_told_and_never_from_a_probe() {
    let probed = || {
        let mut sim = Sim::watching(10);
        let _ = sim.tick();
        let _ = sim.step(Input::Probed(at(99)));
        let _ = sim.step(Input::Opened);
        sim
    };
    // Cut, and what was under way is lost.
    let mut sim = probed();
    let _ = sim.after(60.0).fail(Fault::Cut);
    let _ = sim.tick();
    assert_eq!(watched_from(&sim.step(Input::Probed(at(120)))), &at(10));
    // In its time and in good order, without a word.
    let mut sim = probed();
    let asked = sim.asked().as_secs_f64();
    let _ = sim.after(asked).step(Input::Ended { whole: true });
    assert_eq!(watched_from(&sim.step(Input::Probed(at(120)))), &at(10));
    // With a change.
    let mut sim = probed();
    assert_eq!(sim.step(Input::Change(Some(at(98)))).data, Data::Apply);
    let _ = sim.after(90.0).step(Input::Ended { whole: true });
    assert_eq!(watched_from(&sim.step(Input::Probed(at(120)))), &at(98));
    // With a bookmark, after which it has nothing to ask.
    let mut sim = probed();
    let _ = sim.after(60.0).step(Input::Bookmark(at(12)));
    let asked = sim.asked().as_secs_f64();
    let step = sim.after(asked).step(Input::Ended { whole: true });
    assert_eq!(watched_from(&step), &at(12));
}

/// A server whose revision goes on by ten a second, whatever happens to the kind, and that remembers the last five
/// minutes only.
#[test]
fn a_quiet_kind_without_bookmarks_is_listed_anew_once_the_server_has_forgotten_where_it_was() {
    let mut sim = Sim::watching(10);
    let begun = sim.now;
    let revision = |sim: &Sim| 10 + 10 * sim.now.duration_since(begun).as_secs();
    let mut step = sim.tick();
    for _ in 0..100 {
        assert_eq!(sent(&step), &Request::Probe);
        let probed = revision(&sim);
        step = sim.step(Input::Probed(at(probed)));
        let Revision::Number(from) = *watched_from(&step) else {
            panic!("no number")
        };
        if from < revision(&sim).saturating_sub(10 * 300) {
            step = sim.fail(Fault::Expired);
            assert_eq!(list_from(&step).0, &ListFrom::MostRecent);
            let listed = revision(&sim);
            assert_eq!(watched_from(&sim.page(listed, None)), &at(listed));
        }
        let _ = sim.step(Input::Opened);
        step = if sim.machine.is_unproven() {
            let asked = sim.asked().as_secs_f64();
            sim.after(asked).step(Input::Ended { whole: true })
        } else {
            sim.tick()
        };
    }
    let causes = sim.causes();
    let (first, expired) = causes.split_first().expect("it was listed");
    assert_eq!(*first, "initial");
    assert!(
        expired.iter().all(|cause| *cause == "expired"),
        "{causes:?}"
    );
    // In some 200 minutes at most once in five, though each watch ends sooner.
    assert!((20..=40).contains(&expired.len()), "{}", expired.len());
}

#[test]
fn a_server_that_asks_for_a_moment_is_given_it_without_a_word() {
    let mut sim = Sim::with_bookmarks(10);
    // As while an edited CRD is taken in: the watch ends, and what is asked next is refused for a second.
    let _ = sim.after(200.0).step(Input::Ended { whole: true });
    assert_eq!(sim.step(busy(1)).io, Io::Close);
    assert_eq!(sim.phase(), Phase::Live);
    assert!((1.0..1.2).contains(&sim.wait()), "{}", sim.wait());
    assert_eq!(sent(&sim.tick()), &Request::Probe);
    let _ = sim.step(Input::Probed(at(12)));
    for _ in 0..3 {
        let _ = sim.step(busy(1));
        assert_eq!(sim.phase(), Phase::Live);
        let _ = sim.tick();
    }
    // Again and again is trouble.
    let _ = sim.step(busy(1));
    assert_eq!(sim.phase(), Phase::BackingOff);
    // And so is a longer time.
    let mut sim = Sim::with_bookmarks(10);
    let _ = sim.step(busy(10));
    assert_eq!(sim.phase(), Phase::BackingOff);
    // A moment is forgotten once the watch is open.
    let mut sim = Sim::with_bookmarks(10);
    for _ in 0..20 {
        let _ = sim.after(60.0).step(Input::Ended { whole: true });
        let _ = sim.step(busy(1));
        assert_eq!(sim.phase(), Phase::Live);
        let _ = sim.tick();
        let _ = sim.step(Input::Probed(at(12)));
        let _ = sim.step(Input::Opened);
    }
}

#[test]
fn a_watch_that_outstays_its_time_is_cut() {
    let mut sim = Sim::with_bookmarks(10);
    let asked = sim.asked();
    let mut heard = Duration::ZERO;
    while heard < asked {
        let _ = sim.after(60.0).step(Input::Bookmark(at(10)));
        heard += Duration::from_secs(60);
    }
    assert_eq!(sent(&sim.tick()), &Request::Probe);
    assert!(asked < heard && sim.causes() == ["initial"]);
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
        other.published(101, History::Same)
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
