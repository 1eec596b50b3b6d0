//! One question for all who ask it at the same time, and not too many questions.
//!
//! An answer whose question was put after a reader came is good for that reader. So one is under way at a time, and
//! all who wait share the next. Nothing is kept for those who come later.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::time::Instant;

/// What is asked now, by what it is about.
#[derive(Debug)]
pub(super) struct Flights<K, T>(Mutex<HashMap<K, Weak<Flight<T>>>>);

/// When the last question was put, and the answer.
pub(super) type Flight<T> = tokio::sync::Mutex<Option<(Instant, T)>>;

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, T> Flights<K, T> {
    /// The one about this; forgotten when nobody waits for it.
    pub(super) fn about(&self, subject: K) -> Arc<Flight<T>> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&subject).and_then(Weak::upgrade) {
            return flight;
        }
        // Nobody waits for those that are gone.
        flights.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::default();
        flights.insert(subject, Arc::downgrade(&flight));
        flight
    }
}

/// The last answer if its question was put after `since`, and that it is shared; else what asking comes to.
pub(super) async fn share<T: Clone>(
    flight: &Flight<T>,
    since: Instant,
    asking: impl Future<Output = T>,
) -> (T, bool) {
    let mut last = flight.lock().await;
    if let Some((_, answer)) = last.as_ref().filter(|(begun, _)| *begun >= since) {
        return (answer.clone(), true);
    }
    let begun = Instant::now();
    let answer = asking.await;
    *last = Some((begun, answer.clone()));
    (answer, false)
}

/// Lets so many begin a second, and some more out of idleness.
#[derive(Debug)]
pub(super) struct Bucket {
    burst: f64,
    rate: f64,
    held: Mutex<(f64, Instant)>,
}

impl Bucket {
    pub(super) fn new(burst: f64, rate: f64) -> Self {
        Self {
            burst,
            rate,
            held: Mutex::new((burst, Instant::now())),
        }
    }

    /// Whether one more may begin.
    pub(super) fn take(&self) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let earned = now.duration_since(held.1).as_secs_f64() * self.rate;
        *held = ((held.0 + earned).min(self.burst), now);
        let may = held.0 >= 1.0;
        if may {
            held.0 -= 1.0;
        }
        may
    }
}
