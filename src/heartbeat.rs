//! Tells a process that works from one that only looks alive.
//!
//! Every long-running loop has a named heartbeat and beats it once a turn; /livez fails when one has not turned
//! for [`PATIENCE`]. A loop that may rightly wait for long beats on a timer meanwhile, so that what is watched
//! is whether it still can turn, never whether there is work.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

/// A loop that has not turned for so long is stuck.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a loop that only waits shall beat.
pub const EVERY: Duration = Duration::from_secs(10);

/// The heartbeats of all loops of the process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Heartbeats(Arc<Inner>);

/// The heartbeat of one loop. A loop that ends takes it along; one that panics leaves it behind, and so is found.
#[derive(Debug)]
pub struct Heartbeat {
    all: Heartbeats,
    id: u64,
    last: Arc<AtomicU64>,
}

/// How a loop is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// The loop's name.
    pub name: String,
    /// Time since its last turn.
    pub since: Duration,
}

impl Pulse {
    /// Whether the loop has not turned for too long.
    pub fn is_stuck(&self) -> bool {
        self.since > PATIENCE
    }
}

#[derive(Debug)]
struct Inner {
    base: Instant,
    loops: Mutex<Loops>,
}

#[derive(Debug, Default)]
struct Loops {
    next: u64,
    /// Name, and milliseconds from the base to the last beat.
    running: BTreeMap<u64, (String, Arc<AtomicU64>)>,
}

impl Default for Heartbeats {
    fn default() -> Self {
        Self(Arc::new(Inner {
            base: Instant::now(),
            loops: Mutex::default(),
        }))
    }
}

impl Heartbeats {
    /// A heartbeat for the loop of this name, as in `source/pods` or `controller/node`; it has just beaten.
    pub fn register(&self, name: impl Into<String>) -> Heartbeat {
        let last = Arc::new(AtomicU64::new(self.now()));
        let mut loops = self.loops();
        let id = loops.next;
        loops.next += 1;
        loops.running.insert(id, (name.into(), last.clone()));
        drop(loops);
        Heartbeat {
            all: self.clone(),
            id,
            last,
        }
    }

    /// All loops, in the order of their names.
    pub fn pulses(&self) -> Vec<Pulse> {
        let now = self.now();
        let pulse = |(name, last): &(String, Arc<AtomicU64>)| Pulse {
            name: name.clone(),
            since: Duration::from_millis(now.saturating_sub(last.load(Ordering::Relaxed))),
        };
        let mut pulses: Vec<_> = self.loops().running.values().map(pulse).collect();
        pulses.sort_by(|a, b| a.name.cmp(&b.name));
        pulses
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.base.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn loops(&self) -> MutexGuard<'_, Loops> {
        self.0.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heartbeat {
    /// The loop has turned.
    pub fn beat(&self) {
        self.last.store(self.all.now(), Ordering::Relaxed);
    }

    /// Ticks as often as a waiting loop shall beat; for the loop's `select!`.
    pub fn timer() -> Interval {
        let mut timer = interval(EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        timer
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.all.loops().running.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stuck(heartbeats: &Heartbeats) -> Vec<String> {
        let pulses = heartbeats.pulses().into_iter();
        pulses
            .filter(Pulse::is_stuck)
            .map(|pulse| pulse.name)
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_turn_for_a_minute_is_stuck_until_it_turns_again() {
        let heartbeats = Heartbeats::default();
        let (turning, still) = (heartbeats.register("turning"), heartbeats.register("still"));
        tokio::time::advance(Duration::from_secs(60)).await;
        turning.beat();
        assert!(stuck(&heartbeats).is_empty(), "not yet");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(stuck(&heartbeats), ["still"]);
        still.beat();
        assert!(stuck(&heartbeats).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_ends_is_not_missed_and_one_that_panics_is() {
        let heartbeats = Heartbeats::default();
        drop(heartbeats.register("ended"));
        let fallen = heartbeats.register("fallen");
        let task = tokio::spawn(async move {
            let _fallen = fallen;
            panic!("on purpose");
        });
        assert!(task.await.is_err());
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(stuck(&heartbeats), ["fallen"]);
    }
}
