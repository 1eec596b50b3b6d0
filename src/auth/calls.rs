//! How many calls each caller has open, and all together, by whichever port they came.
//!
//! What is over the limit is refused while it is new: what is open goes on.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    AuthError,
    identity::Subject,
    in_flight::{InFlight, Room},
    peer::Peer,
};

/// What callers may have, each and together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls that are open at once, of all callers.
    pub calls: usize,
    /// The same of one identity.
    pub calls_of_one: usize,
    /// New calls a second of one identity; twice as many at once.
    pub calls_per_second: u32,
    /// The same of all.
    pub calls_per_second_of_all: u32,
    /// Bytes that were made for callers and are not written yet, of all. Beyond it no new call is let in.
    pub bytes: usize,
    /// The same of one identity. Beyond it its streams wait, too.
    pub bytes_of_one: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: 10_000,
            calls_of_one: 2_000,
            calls_per_second: 500,
            calls_per_second_of_all: 5_000,
            bytes: 1 << 30,
            bytes_of_one: 128 << 20,
        }
    }
}

/// Identities that have nothing open are forgotten once so many are known.
const SWEEP: usize = 1024;

/// Calls that are open, and how many came lately.
#[derive(Debug)]
pub(super) struct Calls {
    limits: Limits,
    open: AtomicUsize,
    in_flight: Arc<InFlight>,
    of_each: Mutex<Each>,
}

#[derive(Debug)]
struct Each {
    own: HashMap<String, Own>,
    /// See [`Own::next`].
    next: Instant,
}

/// Of one identity.
#[derive(Debug)]
struct Own {
    open: usize,
    /// When the next call may come, if calls came at the rate that is allowed.
    next: Instant,
    in_flight: Arc<InFlight>,
}

/// A call's place among those that are open, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    calls: Arc<Calls>,
    user: String,
    in_flight: Arc<InFlight>,
}

impl Calls {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: AtomicUsize::new(0),
            in_flight: Arc::new(InFlight::new(limits.bytes)),
            of_each: Mutex::new(Each {
                own: HashMap::new(),
                next: Instant::now(),
            }),
        }
    }

    fn show_bytes(&self) {
        metrics::gauge!("informerd_bytes_in_flight").set(self.in_flight.bytes() as f64);
    }

    fn of_each(&self) -> MutexGuard<'_, Each> {
        self.of_each.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(self: &Arc<Self>, subject: &Subject) -> Result<Slot, AuthError> {
        let slot = self.take(&subject.identity().user);
        if slot.is_err() {
            metrics::counter!("informerd_calls_shed_total").increment(1);
        }
        slot
    }

    fn take(self: &Arc<Self>, user: &str) -> Result<Slot, AuthError> {
        let Limits {
            calls,
            calls_of_one,
            ..
        } = self.limits;
        let now = Instant::now();
        let mut each = self.of_each();
        let each = &mut *each;
        if each.own.len() >= SWEEP && each.own.len() == each.own.capacity() {
            each.own.retain(|_, own| own.is_needed(now));
        }
        let own = each.own.entry(user.to_owned()).or_insert_with(|| Own {
            open: 0,
            next: now,
            in_flight: Arc::new(InFlight::new(self.limits.bytes_of_one)),
        });
        let next = turn(own.next, self.limits.calls_per_second, now)?;
        let next_of_all = turn(each.next, self.limits.calls_per_second_of_all, now)?;
        if own.open >= calls_of_one {
            let what = format!("{} calls of {user:?} are open", own.open);
            return Err(AuthError::TooMany(what));
        }
        let open = self.open.load(Ordering::Relaxed);
        if open >= calls {
            return Err(AuthError::TooMany(format!("{open} calls are open")));
        }
        for (who, in_flight) in [(user, &own.in_flight), ("all", &self.in_flight)] {
            if in_flight.is_full() {
                let bytes = in_flight.bytes();
                let what = format!("{bytes} bytes of {who:?} are not read yet");
                return Err(AuthError::TooMany(what));
            }
        }
        own.next = next;
        each.next = next_of_all;
        own.open += 1;
        self.open.fetch_add(1, Ordering::Relaxed);
        self.show_bytes();
        Ok(Slot {
            calls: Arc::clone(self),
            user: user.to_owned(),
            in_flight: own.in_flight.clone(),
        })
    }
}

/// When the one after this call may come, at so many a second. Two seconds' worth may come at once.
fn turn(next: Instant, per_second: u32, now: Instant) -> Result<Instant, AuthError> {
    let interval = Duration::from_secs(1) / per_second.max(1);
    let wait = next.saturating_duration_since(now);
    let at_once = interval * per_second.saturating_mul(2);
    if wait > at_once {
        return Err(AuthError::Busy(wait - at_once));
    }
    Ok(next.max(now) + interval)
}

impl Own {
    /// Whether anything would be forgotten with it.
    fn is_needed(&self, now: Instant) -> bool {
        self.open > 0 || self.next > now || self.in_flight.bytes() > 0
    }
}

impl Slot {
    /// What may be on its way to the caller, over this connection.
    pub fn room(&self, peer: &Peer) -> Room {
        // That of all holds up nobody who is here.
        Room::new([&peer.in_flight, &self.in_flight], &self.calls.in_flight)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.calls.open.fetch_sub(1, Ordering::Relaxed);
        self.calls.show_bytes();
        let mut each = self.calls.of_each();
        if let Some(own) = each.own.get_mut(&self.user) {
            own.open -= 1;
            if !own.is_needed(Instant::now()) {
                each.own.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(limits: Limits) -> Arc<Calls> {
        Arc::new(Calls::new(limits))
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_cannot_take_what_is_there_for_all() {
        let calls = calls(Limits {
            calls: 5,
            calls_of_one: 3,
            ..Limits::default()
        });
        let mut open: Vec<_> = (0..3).map(|_| calls.take("alice").unwrap()).collect();
        assert!(matches!(calls.take("alice"), Err(AuthError::TooMany(_))));
        open.extend((0..2).map(|_| calls.take("bob").unwrap()));
        assert!(
            matches!(calls.take("bob"), Err(AuthError::TooMany(_))),
            "all of them"
        );
        open.remove(0);
        assert!(calls.take("bob").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn all_callers_together_come_no_faster_than_allowed() {
        let calls = calls(Limits {
            calls_per_second_of_all: 10,
            ..Limits::default()
        });
        let came = (0..100).filter(|n| calls.take(&format!("user-{n}")).is_ok());
        assert_eq!(came.count(), 21, "those of two seconds at once");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_read_what_it_asked_for_may_ask_for_no_more() {
        let calls = calls(Limits {
            bytes: 150,
            bytes_of_one: 100,
            ..Limits::default()
        });
        let slot = calls.take("alice").unwrap();
        let unread = slot.room(&Peer::default()).count(vec![0; 100].into());
        let refused = calls.take("alice").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "100 bytes of \"alice\" are not read yet; try again later, or ask for less at once"
        );
        // It is remembered also when the call is over.
        drop(slot);
        assert!(calls.take("alice").is_err());
        let other = calls.take("bob").unwrap();
        let more = other.room(&Peer::default()).count(vec![0; 50].into());
        assert!(calls.take("carol").is_err(), "all together");
        drop(unread);
        assert!(calls.take("carol").is_ok() && calls.take("alice").is_ok());
        drop(more);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_come_no_faster_than_allowed() {
        let calls = calls(Limits {
            calls_per_second: 10,
            ..Limits::default()
        });
        let came = (0..100).filter(|_| calls.take("alice").is_ok()).count();
        assert_eq!(came, 21, "those of two seconds at once");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(calls.take("alice").is_ok());
    }
}
