//! Whatever happens, in whatever order.

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
        1 => Just(Input::Found),
        1 => Just(Input::Upgraded),
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
