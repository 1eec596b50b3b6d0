//! Random histories of the model against what the whole controller shows, on a paused clock: pods and the cluster's
//! object follow the model a little late, as watches do.
//!
//! Beside what `crate::aerospike::simulation` holds of one survey, this holds it of what stands on the board at any
//! time: plans that change while nodes are asked, verdicts that are shown anew for other pods, expiry.
//!
//! `INFORMERD_HISTORIES=10000` and `INFORMERD_SEED=7` are those of `crate::aerospike::simulation`.

use std::{collections::BTreeSet, time::Duration};

use fastrand::Rng;
use tokio::time::{Instant, sleep};

use super::tests::Scene;
use crate::{
    aerospike::{
        model::Model,
        simulation::{any_rules, calm, happen, histories, holds_a_safe_instant, spans},
    },
    config::{AerospikeConfig, ProbeMode},
    readiness::{Basis, State},
};

/// In a debug build a history takes some 50 ms.
const HISTORIES: u64 = 60;
const LENGTH: Duration = Duration::from_secs(75);
/// From here on nothing happens any more.
const CALM: Duration = Duration::from_secs(45);
const LOOK: Duration = Duration::from_millis(25);
/// How late the watch may tell.
const LAG: u64 = 200;

#[derive(Default)]
struct Tally {
    ready: u32,
    promises: u32,
}

async fn history(seed: u64) -> Tally {
    let mut rng = Rng::with_seed(seed);
    let size = rng.usize(1..=4);
    let interval = Duration::from_millis(rng.u64(2000..=5000));
    let rules = any_rules(&mut rng);
    let config = AerospikeConfig {
        mode: [ProbeMode::Watch, ProbeMode::WatchAndPoll][rng.usize(0..2)],
        probe_interval: interval,
        settling_interval: Duration::from_millis(rng.u64(200..=1500)),
        timeout: Duration::from_millis(700),
        breaker_failures: rng.u32(1..4),
        breaker_pause: interval,
        ..AerospikeConfig::default()
    };
    let model = Model::new(size, rules, rng.u64(..));
    let mut scene = Scene::of(model.clone(), config, true);
    scene.resize(size);
    scene.sync();

    let begun = Instant::now();
    let mut bad_manners = BTreeSet::new();
    // Nodes that cannot be asked in time, or pods that were not told of yet.
    let mut hidden = vec![(begun, true)];
    let mut next = begun + Duration::from_millis(rng.u64(0..8000));
    let mut told = begun;
    let mut seen: Vec<(Instant, Instant)> = Vec::new();
    let mut is_calm = false;
    while begun.elapsed() < LENGTH {
        let now = Instant::now();
        if now >= next && begun.elapsed() < CALM {
            let before = model.size();
            happen(&model, &mut bad_manners, &mut rng);
            if model.size() != before {
                scene.resize(model.size());
            }
            told = now + Duration::from_millis(rng.u64(0..LAG));
            next = now + Duration::from_millis(rng.u64(0..9000));
        }
        if begun.elapsed() >= CALM && !is_calm {
            is_calm = true;
            calm(&model);
            bad_manners.clear();
        }
        if now >= told {
            scene.sync();
        }
        hidden.push((now, !bad_manners.is_empty() || now < told));
        let cluster = scene.says("SafeToDisrupt");
        let is_safe = cluster
            .as_ref()
            .is_some_and(|answer| answer.state == State::Ready);
        if let Some(answer) = cluster.filter(|_| is_safe) {
            let Basis::Probes { window, expires } = answer.basis else {
                panic!("a verdict that is ready rests on probes")
            };
            // Timers are exact to a millisecond.
            let late = expires + Duration::from_millis(2);
            assert!(Instant::now().into_std() < late, "it has expired");
            assert!(expires <= window.to + 2 * interval);
            let window = (window.from.into(), window.to.into());
            if seen.last() != Some(&window) {
                seen.push(window);
            }
        }
        for node in 0..4 {
            let safe = scene.answer("pods", &format!("cache-{node}"), "SafeToDisrupt");
            let never_better = is_safe || safe.is_none_or(|safe| safe.state != State::Ready);
            assert!(never_better, "a node is never safer than its cluster");
        }
        sleep(LOOK).await;
    }
    let truth = model.truth();
    let mut tally = Tally::default();
    for (from, to) in &seen {
        assert!(
            holds_a_safe_instant(&truth, *from, *to),
            "safe at no instant from {:?} to {:?}",
            *from - begun,
            *to - begun
        );
        tally.ready += 1;
    }
    let visible: Vec<_> = hidden.iter().map(|(at, hidden)| (*at, !hidden)).collect();
    let end = Instant::now();
    for (safe_from, safe_until) in spans(&truth, end) {
        for (seen_from, seen_until) in merged(spans(&visible, end)) {
            let from = safe_from.max(seen_from);
            let due = from + 2 * interval + LOOK;
            if due < safe_until.min(seen_until) {
                let told = seen.iter().any(|(_, to)| from <= *to && *to <= due);
                assert!(
                    told,
                    "safe from {:?} on, and not said by {:?}: {:?}",
                    from - begun,
                    due - begun,
                    scene.says("SafeToDisrupt")
                );
                tally.promises += 1;
            }
        }
    }
    tally
}

/// Spans that touch are one.
fn merged(spans: Vec<(Instant, Instant)>) -> Vec<(Instant, Instant)> {
    let mut merged: Vec<(Instant, Instant)> = Vec::new();
    for span in spans {
        match merged.last_mut() {
            Some(last) if last.1 == span.0 => last.1 = span.1,
            _ => merged.push(span),
        }
    }
    merged
}

#[test]
fn in_random_histories_what_is_shown_was_so_and_what_is_so_is_shown_in_time() {
    let tallies = histories(HISTORIES, history);
    let ready: u32 = tallies.iter().map(|tally| tally.ready).sum();
    let promises: u32 = tallies.iter().map(|tally| tally.promises).sum();
    println!("{ready} windows shown as safe, {promises} times due in time");
    assert!(
        promises as usize > tallies.len() / 2,
        "the histories must have safe spans"
    );
}
