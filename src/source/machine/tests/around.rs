//! What happens around the connection: permissions, credentials, kinds that come and go, users.

use super::*;

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
    assert_eq!(sim.page(11, None).data, sim.published(11, History::New));
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
fn a_kind_that_is_found_again_is_asked_for_at_once() {
    let mut sim = Sim::with_bookmarks(10);
    for _ in 0..5 {
        let _ = sim.fail(Fault::NotFound);
        let _ = sim.tick();
    }
    let _ = sim.fail(Fault::NotFound);
    assert!(sim.wait() > 20.0);
    let _ = sim.step(Input::Found);
    assert!(sim.wait() <= 1.0, "{}", sim.wait());
    // Not where it was something else.
    let mut sim = Sim::with_bookmarks(10);
    let _ = sim.step(busy(20));
    let _ = sim.step(Input::Found);
    assert!(sim.wait() >= 20.0);
}

#[test]
fn a_kind_that_comes_back_has_failed_nothing_yet() {
    let mut sim = Sim::with_bookmarks(10);
    for _ in 0..5 {
        let _ = sim.fail(Fault::NotFound);
        let _ = sim.tick();
    }
    let _ = sim.step(Input::Gone);
    let _ = sim.step(Input::Served);
    let _ = sim.fail(Fault::NotFound);
    assert!(sim.wait() <= 1.6, "{}", sim.wait());
}
