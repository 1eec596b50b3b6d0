//! Lists: in pages and as streams, whole and cut.

use super::*;

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
    assert_eq!(step.data, sim.published(10, History::Same));
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
    assert!(
        matches!(sim.page(10, None).data, Data::Publish { proven: None, .. }),
        "it may be as old as it likes"
    );
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
            data: sim.published(9, History::Same),
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
    assert_eq!(step.data, sim.published(12, History::Same));
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
fn a_list_in_pages_proves_what_was_so_when_it_began() {
    let mut sim = Sim::new(settings(ListStrategy::Paged));
    let _ = sim.step(Input::Served);
    let begun = sim.now;
    let _ = sim.after(3.0).page(10, Some("next"));
    let step = sim.after(3.0).page(10, None);
    assert!(matches!(step.data, Data::Publish { proven: Some(at), .. } if at == begun));
}

#[test]
fn an_upgraded_server_is_asked_to_stream_again_at_once() {
    let mut sim = Sim::new(settings(ListStrategy::Auto));
    let _ = sim.step(Input::Served);
    let _ = sim.fail(Fault::Refused);
    let _ = sim.page(10, None);
    let _ = sim.step(Input::Opened);
    assert_eq!(sim.step(Input::Upgraded).io, Io::Keep);
    let step = sim.after(60.0).fail(Fault::Expired);
    assert!(matches!(sent(&step), Request::Stream { .. }));
}
