//! Takes away what slow readers keep alive.
//!
//! A list under way walks one frozen state, or has the objects of a page. A reader that takes nothing for a minute loses
//! them, and its answer is cut: how slow one is costs nobody else.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{auth::PATIENCE, cache::Hold, object::Object};

/// What is kept for a reader, until it has taken nothing for too long.
pub(super) trait Kept: fmt::Debug + Send {
    /// Gives it up if it is that long; whether it has.
    fn expire(&self, now: Instant) -> bool;
}

impl Kept for Hold<Object> {
    fn expire(&self, now: Instant) -> bool {
        Hold::expire(self, now, PATIENCE)
    }
}

/// The objects of a page that are still to be sent. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Rest(Arc<Mutex<Left>>);

#[derive(Debug)]
struct Left {
    /// Absent once they are given up.
    objects: Option<VecDeque<Arc<Object>>>,
    progress: Instant,
}

impl Rest {
    pub(super) fn new(objects: Vec<Arc<Object>>, now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Left {
            objects: Some(objects.into()),
            progress: now,
        })))
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next of them, about so many bytes, and whether these are the last. `None` where they were given up.
    pub(super) fn take(&self, bytes: usize, now: Instant) -> Option<(Vec<Arc<Object>>, bool)> {
        let mut left = self.left();
        left.progress = now;
        let objects = left.objects.as_mut()?;
        let (mut taken, mut size) = (Vec::new(), 0);
        while size < bytes
            && let Some(object) = objects.pop_front()
        {
            size += object.json.len();
            taken.push(object);
        }
        Some((taken, objects.is_empty()))
    }
}

impl Kept for Rest {
    fn expire(&self, now: Instant) -> bool {
        let mut left = self.left();
        let stalled = now.saturating_duration_since(left.progress) >= PATIENCE;
        stalled && left.objects.take().is_some()
    }
}

/// What is being walked.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    holds: BTreeMap<u64, Box<dyn Kept>>,
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

    pub(super) fn watch_over(self: &Arc<Self>, kept: impl Kept + 'static) -> Held {
        let mut open = self.lock();
        let id = open.next;
        open.next += 1;
        open.holds.insert(id, Box::new(kept));
        Held {
            holds: self.clone(),
            id,
        }
    }

    /// Expires what made no progress for [`PATIENCE`].
    pub(super) fn expire(&self, now: Instant) {
        for hold in self.lock().holds.values() {
            if hold.expire(now) {
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
