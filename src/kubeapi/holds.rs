//! Takes away what slow readers keep alive.
//!
//! A list under way walks one frozen state. A reader that takes nothing for a minute loses it, and its answer is
//! cut: how slow one is costs nobody else.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{cache::Hold, object::Object};

/// How long a state is kept for a reader that takes nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What is being walked.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    holds: BTreeMap<u64, Hold<Object>>,
}

/// Until it is dropped, the hold is watched over.
#[derive(Debug)]
pub(super) struct Held {
    holds: Arc<Holds>,
    id: u64,
}

impl Holds {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn watch_over(self: &Arc<Self>, hold: Hold<Object>) -> Held {
        let mut open = self.lock();
        let id = open.next;
        open.next += 1;
        open.holds.insert(id, hold);
        Held {
            holds: self.clone(),
            id,
        }
    }

    /// Expires what made no progress for [`PATIENCE`].
    pub(super) fn expire(&self, now: Instant) {
        for hold in self.lock().holds.values() {
            if hold.expire(now, PATIENCE) {
                metrics::counter!("informerd_kube_expiries_total").increment(1);
            }
        }
    }

    /// Expires from time to time, for ever.
    pub(super) async fn run(&self) {
        let mut tick = tokio::time::interval(PATIENCE / 12);
        loop {
            tick.tick().await;
            self.expire(super::now());
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.holds.lock().holds.remove(&self.id);
    }
}
