//! How long to wait before trying again: as client-go's reflector does, so that an API server in trouble sees
//! one more well-behaved client.

use std::time::{Duration, Instant};

use fastrand::Rng;

const FIRST: Duration = Duration::from_millis(800);
const MOST: Duration = Duration::from_secs(30);
const HEALTHY: Duration = Duration::from_secs(120);
/// As long as anybody's `Retry-After` is believed: a proxy's nonsense must not blind us for a day.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Doubles with each failure. Progress alone does not reset it, only two minutes of health do: otherwise a
/// server that answers every second request would be asked once a second for ever.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    healthy_since: Option<Instant>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            next: FIRST,
            healthy_since: None,
        }
    }
}

impl Backoff {
    /// All is well from `now` on, unless it was already.
    pub(super) fn healthy(&mut self, now: Instant) {
        self.healthy_since.get_or_insert(now);
    }

    /// Something failed: the time to wait, which is never shorter than what the server asked for.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        retry_after: Option<Duration>,
        rng: &mut Rng,
    ) -> Duration {
        let healthy = self.healthy_since.take();
        if healthy.is_some_and(|since| now.saturating_duration_since(since) >= HEALTHY) {
            self.next = FIRST;
        }
        let wait = self.next.mul_f64(1.0 + rng.f64());
        self.next = (self.next * 2).min(MOST);
        // Everybody is told the same `Retry-After`: not all should come back in the same moment.
        let asked = retry_after.map(|asked| {
            asked
                .min(LONGEST_RETRY_AFTER)
                .mul_f64(1.0 + 0.1 * rng.f64())
        });
        wait.max(asked.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_with_up_to_as_much_again_by_chance() {
        let (mut backoff, mut rng, now) = (Backoff::default(), Rng::with_seed(1), Instant::now());
        for expected in [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0] {
            let wait = backoff.failed(now, None, &mut rng).as_secs_f64();
            assert!(
                (expected..=2.0 * expected).contains(&wait),
                "{wait} for {expected}"
            );
        }
    }

    #[test]
    fn only_two_minutes_of_health_reset_it() {
        let (mut backoff, mut rng, now) = (Backoff::default(), Rng::with_seed(1), Instant::now());
        for _ in 0..7 {
            backoff.failed(now, None, &mut rng);
        }
        backoff.healthy(now);
        backoff.healthy(now + Duration::from_secs(100));
        assert!(backoff.failed(now + Duration::from_secs(119), None, &mut rng) >= MOST);
        backoff.healthy(now + Duration::from_secs(200));
        assert!(backoff.failed(now + Duration::from_secs(320), None, &mut rng) <= 2 * FIRST);
    }

    #[test]
    fn a_server_is_never_asked_sooner_than_it_said() {
        let (mut backoff, mut rng, now) = (Backoff::default(), Rng::with_seed(1), Instant::now());
        let asked = Duration::from_secs(50);
        for _ in 0..20 {
            let wait = backoff.failed(now, Some(asked), &mut rng);
            assert!(wait >= asked && wait <= asked + MOST, "{wait:?}");
        }
        let nonsense = Some(Duration::from_secs(u64::MAX));
        assert!(backoff.failed(now, nonsense, &mut rng) <= 2 * LONGEST_RETRY_AFTER);
    }
}
