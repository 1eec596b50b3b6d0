//! Permissions that have changed: what is remembered of them is void, and whoever rests on them asks again, sooner
//! than it would by the clock.
//!
//! Not all at once, and not for each change: those that come together make one round, a round is spread over a time
//! in which half of what may be asked of the API server goes to it, and the next begins after that. So however often
//! permissions are changed, new callers are asked about as well.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout_at},
};

/// How often rights are looked for again, at most; a little sooner, so that not all ask at once.
const AGAIN: Duration = Duration::from_secs(16);
/// The API server decides by what it was told of a change itself, which may be a moment later than we were.
const SETTLE: Duration = Duration::from_millis(300);
/// The shortest time over which a round is spread, and from one round to the next.
const SPREAD: Duration = Duration::from_secs(1);
const ROUND: Duration = Duration::from_secs(5);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Changes {
    round: watch::Sender<Round>,
    /// Questions a second that a round may ask.
    rate: u32,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    number: u64,
    spread: Duration,
}

/// When somebody who rests on permissions is to ask again.
#[derive(Debug)]
pub struct Due(watch::Receiver<Round>);

impl Changes {
    /// Where so many questions a second may be asked in all.
    pub(super) fn new(reviews_per_second: u32) -> Self {
        let first = Round {
            number: 0,
            spread: SPREAD,
        };
        Self {
            round: watch::Sender::new(first),
            rate: reviews_per_second.div_ceil(2).max(1),
        }
    }

    /// Changes with each round: what was answered in another one is void.
    pub(super) fn round(&self) -> u64 {
        self.round.borrow().number
    }

    /// Begins a round for so many who ask. Returns when the next may begin.
    pub(super) async fn begin(&self, asking: usize) {
        sleep(SETTLE).await;
        let asking = u32::try_from(asking).unwrap_or(u32::MAX);
        let spread = Duration::from_secs(1) * asking / self.rate;
        // Whoever is later than that asks by the clock anyway.
        let spread = spread.clamp(SPREAD, AGAIN);
        self.round.send_modify(|round| {
            round.number += 1;
            round.spread = spread;
        });
        metrics::counter!("informerd_auth_permission_changes_total").increment(1);
        sleep(spread.max(ROUND)).await;
    }

    pub(super) fn due(&self) -> Due {
        Due(self.round.subscribe())
    }
}

impl Due {
    /// By the clock, or soon after permissions have changed.
    pub async fn again(&mut self) {
        let at = Instant::now() + jittered(AGAIN);
        if let Ok(Ok(())) = timeout_at(at, self.0.changed()).await {
            let soon = self.0.borrow().spread.mul_f64(fastrand::f64());
            sleep_until(at.min(Instant::now() + soon)).await;
            // What is asked now is asked in the round that it is by now.
            self.0.mark_unchanged();
        } else {
            sleep_until(at).await;
        }
    }
}

/// Between three quarters and all of it.
pub(super) fn jittered(all: Duration) -> Duration {
    all.mul_f64(0.75 + fastrand::f64() / 4.0)
}
