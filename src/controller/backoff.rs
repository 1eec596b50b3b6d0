//! How long to wait before an object that failed is tried again.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::object::Key;

/// Pauses by key: doubling with each failure in a row, with jitter, so that what failed together is not tried
/// together.
#[derive(Debug)]
pub(super) struct Backoff {
    base: Duration,
    max: Duration,
    /// Failures in a row, of those keys that have any.
    failures: Mutex<HashMap<Key, u32>>,
}

impl Backoff {
    pub(super) fn new(base: Duration, max: Duration) -> Self {
        Self {
            base,
            max,
            failures: Mutex::default(),
        }
    }

    /// The key has failed once more: how long to wait. Between the pause and 1.2 times that.
    pub(super) fn fail(&self, key: &Key) -> Duration {
        let mut failures = self.failures();
        let count = failures.entry(key.clone()).or_default();
        let factor = 1u32.checked_shl(*count).unwrap_or(u32::MAX);
        *count = count.saturating_add(1);
        self.base
            .saturating_mul(factor)
            .min(self.max)
            .mul_f64(1.0 + fastrand::f64() * 0.2)
    }

    /// The key has succeeded, or is gone: it begins anew.
    pub(super) fn forget(&self, key: &Key) {
        self.failures().remove(key);
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<Key, u32>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let key = Key::new("", "a");
        let pause = |least: u64| {
            let pause = backoff.fail(&key);
            let least = Duration::from_secs(least);
            assert!(
                pause >= least && pause <= least.mul_f64(1.2),
                "{pause:?} for {least:?}"
            );
        };
        for least in [1, 2, 4, 5, 5] {
            pause(least);
        }
        for _ in 0..100 {
            pause(5);
        }
        backoff.forget(&key);
        pause(1);
    }

    #[test]
    fn keys_fail_each_for_itself() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        backoff.fail(&Key::new("", "a"));
        assert!(backoff.fail(&Key::new("", "b")) < Duration::from_secs(2));
    }
}
