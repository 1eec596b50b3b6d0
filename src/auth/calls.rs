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

use super::{AuthError, identity::Subject};

/// What callers may have, each and together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls that are open at once, of all callers.
    pub calls: usize,
    /// The same of one identity.
    pub calls_of_one: usize,
    /// New calls a second of one identity; twice as many at once.
    pub calls_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: 10_000,
            calls_of_one: 2_000,
            calls_per_second: 500,
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
    of_each: Mutex<HashMap<String, Own>>,
}

/// Of one identity.
#[derive(Debug)]
struct Own {
    open: usize,
    /// When the next call may come, if calls came at the rate that is allowed.
    next: Instant,
}

/// A call's place among those that are open, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    calls: Arc<Calls>,
    user: String,
}

impl Calls {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: AtomicUsize::new(0),
            of_each: Mutex::default(),
        }
    }

    fn of_each(&self) -> MutexGuard<'_, HashMap<String, Own>> {
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
        let now = Instant::now();
        let interval = Duration::from_secs(1) / self.limits.calls_per_second.max(1);
        let mut of_each = self.of_each();
        if of_each.len() >= SWEEP && of_each.len() == of_each.capacity() {
            of_each.retain(|_, own| own.open > 0 || own.next > now);
        }
        let own = of_each
            .entry(user.to_owned())
            .or_insert(Own { open: 0, next: now });
        let wait = own.next.saturating_duration_since(now);
        if wait > interval * self.limits.calls_per_second.saturating_mul(2) {
            return Err(AuthError::Busy(wait));
        }
        if own.open >= self.limits.calls_of_one {
            let what = format!("{} calls of {user:?} are open", own.open);
            return Err(AuthError::TooMany(what));
        }
        let open = self.open.load(Ordering::Relaxed);
        if open >= self.limits.calls {
            return Err(AuthError::TooMany(format!("{open} calls are open")));
        }
        own.next = own.next.max(now) + interval;
        own.open += 1;
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Slot {
            calls: Arc::clone(self),
            user: user.to_owned(),
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.calls.open.fetch_sub(1, Ordering::Relaxed);
        let mut of_each = self.calls.of_each();
        if let Some(own) = of_each.get_mut(&self.user) {
            own.open -= 1;
            if own.open == 0 && own.next <= Instant::now() {
                of_each.remove(&self.user);
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
