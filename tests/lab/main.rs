//! Whole daemons and their consumers against a scripted upstream, in memory and on a paused clock.
//!
//! | what | where |
//! |---|---|
//! | what is stored, with every change by its revision; the API servers before it | `etcd.rs` |
//! | what goes wrong between those and a daemon | `network.rs` |
//! | the daemon, as `informerd serve` puts it together | `replica.rs` |
//! | all of it, and the consumers, and what is asked of them in the end | `world.rs` |
//! | the Rust client as one of the consumers | `mirror.rs` |
//! | what happens, by a seed | `history.rs` |
//! | that it is the same each time | `chance.rs` |
//! | the cases that break shared caches, one by one | `cases.rs` |
//! | what `changes: VISIBLE` saves | `visible.rs` |
//!
//! `INFORMERD_HISTORIES=10000` runs as many histories, `INFORMERD_FRESH_HISTORIES=20` so many new ones beside, and
//! `INFORMERD_SEED=7` that one alone.

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../validators/mod.rs"]
mod validators;

mod cases;
mod chance;
mod etcd;
mod history;
mod mirror;
mod network;
mod replica;
mod visible;
mod world;

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use network::Tally;

/// The same each time.
const FIXED: u64 = 150;

/// What the histories must have been through, or they prove little.
const SEEN: [&str; 30] = [
    "refused",
    "mute before the answer",
    "late",
    "429 with Retry-After",
    "429 without Retry-After",
    "5xx",
    "410 as HTTP status",
    "410 in the stream",
    "lost continue token",
    "cut inside",
    "truncated",
    "mute inside",
    "WatchList refused",
    "WatchList without an end mark",
    "duplicates",
    "early bookmarks",
    "in pieces",
    "watches cut",
    "watches ended",
    "watches half-open",
    "watches ended by a 410",
    "watches ended by an ERROR",
    "restored to an earlier revision",
    "an API server lags",
    "clock jumped",
    "consumer stalls",
    "consumers cut",
    "consumer cancelled",
    "daemon restarted",
    "configuration changed",
];

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn seeds() -> Vec<u64> {
    if let Some(seed) = number("INFORMERD_SEED") {
        return vec![seed];
    }
    let fixed = 0..number("INFORMERD_HISTORIES").unwrap_or(FIXED);
    let fresh = 0..number("INFORMERD_FRESH_HISTORIES").unwrap_or_default();
    let fresh = fresh.map(|_| fastrand::u64(1 << 32..1 << 48));
    fixed.chain(fresh).collect()
}

#[test]
fn a_history_is_the_same_each_time() {
    for seed in 0..5 {
        let [first, second] = [(); 2].map(|()| history::run(seed).expect("it keeps its promises"));
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn whole_daemons_keep_their_promises_in_random_histories() {
    let seeds = seeds();
    let begun = Instant::now();
    let (next, tally, failed) = (
        AtomicUsize::new(0),
        Mutex::new(Tally::new()),
        Mutex::new(Vec::new()),
    );
    let work = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            match history::run(*seed) {
                Ok(mine) => {
                    let mut tally = tally.lock().expect("nobody panics while holding it");
                    for (what, count) in mine {
                        *tally.entry(what).or_default() += count;
                    }
                }
                Err(_) => {
                    let command = format!(
                        "INFORMERD_SEED={seed} cargo test --test lab random_histories -- --nocapture"
                    );
                    eprintln!("a history failed: {command}");
                    let mut failed = failed.lock().expect("nobody panics while holding it");
                    failed.push(command);
                }
            }
        }
    };
    let threads = thread::available_parallelism().map_or(2, |it| it.get());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let tally = tally.into_inner().expect("nobody panicked");
    for (what, count) in &tally {
        println!("{count:>9}  {what}");
    }
    println!(
        "{} histories in {:.0} s",
        seeds.len(),
        begun.elapsed().as_secs_f64()
    );
    let failed = failed.into_inner().expect("nobody panicked");
    assert!(failed.is_empty(), "run again: {failed:#?}");
    if seeds.len() > 1 {
        let missing: Vec<_> = SEEN.iter().filter(|it| !tally.contains_key(**it)).collect();
        assert!(missing.is_empty(), "the histories never had: {missing:?}");
    }
}
