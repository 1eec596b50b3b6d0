//! Whether the lab finds the bugs that it is there to find: each of them is planted in turn, and histories are run as
//! they always are, from the first seed on, until one fails.
//!
//!     cargo test --lib planted_bugs -- --nocapture

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use super::{HISTORIES, history};
use crate::{
    aerospike::simulation::alone,
    feed,
    planted::{Bug, plant},
};

/// What found a bug.
struct Catch {
    by: String,
    seed: u64,
    seconds: f64,
}

/// The first of the normal run's histories that fails with `bug`.
fn hunt(bug: Bug) -> Option<Catch> {
    let begun = Instant::now();
    for seed in 0..HISTORIES {
        let attack = || {
            plant(bug, || {
                alone(|| async move { history(seed).await });
                if seed < feed::tests::HISTORIES {
                    alone(|| feed::tests::history(seed));
                }
            });
        };
        let Err(panic) = catch_unwind(AssertUnwindSafe(attack)) else {
            continue;
        };
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        let text = text.unwrap_or_default();
        // Of what was not equal, what it was about.
        let about = text
            .strip_prefix("assertion `left == right` failed: ")
            .unwrap_or(&text);
        return Some(Catch {
            by: about
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(90)
                .collect(),
            seed,
            seconds: begun.elapsed().as_secs_f64(),
        });
    }
    None
}

#[test]
fn each_planted_bug_is_found_within_the_normal_run() {
    let begun = Instant::now();
    let mut escaped = Vec::new();
    let mut table = String::new();
    for bug in Bug::ALL {
        match hunt(bug) {
            None => escaped.push(bug),
            Some(Catch { by, seed, seconds }) => {
                table += &format!("{:<28} seed {seed:>4} {seconds:>6.2} s  {by}\n", bug.name());
            }
        }
    }
    println!("\n{table}all in {:.1?}", begun.elapsed());
    assert!(escaped.is_empty(), "nothing finds {escaped:?}");
}
