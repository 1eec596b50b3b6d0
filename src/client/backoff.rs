//! How long to wait before the next try: doubling, jittered, and never less than the server asks for.
//!
//! Jitter keeps the consumers of a restarted server from coming back all at once.

use std::time::Duration;

/// Grows from 0.1 s to 30 s.
#[derive(Clone, Debug)]
pub struct Backoff {
    step: Duration,
}

impl Backoff {
    /// The first step.
    pub const FIRST: Duration = Duration::from_millis(100);
    /// The longest step.
    pub const LONGEST: Duration = Duration::from_secs(30);
    /// More than this is not waited, whatever the server asks for.
    pub const PATIENCE: Duration = Duration::from_secs(600);

    /// The next delay: between half the step and the step, and at least `asked`, plus up to a tenth of that.
    pub fn next(&mut self, asked: Option<Duration>) -> Duration {
        let own = self.step.mul_f64(0.5 + 0.5 * fastrand::f64());
        self.step = (self.step * 2).min(Self::LONGEST);
        let asked = asked
            .unwrap_or_default()
            .min(Self::PATIENCE)
            .mul_f64(1.0 + 0.1 * fastrand::f64());
        own.max(asked)
    }

    /// Begins anew, after things went well.
    pub fn reset(&mut self) {
        self.step = Self::FIRST;
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { step: Self::FIRST }
    }
}

#[cfg(test)]
mod tests {
    use super::Backoff;
    use std::time::Duration;

    #[test]
    fn delays_double_up_to_the_longest_and_begin_anew_after_a_reset() {
        let mut backoff = Backoff::default();
        let mut step = Backoff::FIRST;
        for _ in 0..12 {
            let delay = backoff.next(None);
            assert!(step / 2 <= delay && delay <= step, "{delay:?} of {step:?}");
            step = (step * 2).min(Backoff::LONGEST);
        }
        assert_eq!(step, Backoff::LONGEST);
        backoff.reset();
        assert!(backoff.next(None) <= Backoff::FIRST);
    }

    #[test]
    fn the_server_is_heard_within_reason() {
        let mut backoff = Backoff::default();
        let asked = Duration::from_secs(7);
        let delay = backoff.next(Some(asked));
        assert!(asked <= delay && delay <= asked.mul_f64(1.1), "{delay:?}");
        let delay = backoff.next(Some(Duration::MAX));
        assert!(delay <= Backoff::PATIENCE.mul_f64(1.1), "{delay:?}");
    }
}
