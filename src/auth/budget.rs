//! How many questions the API server is asked: no more than so many a second, of each asker and of all.
//!
//! A caller can make up as many different questions as it likes. Its own share ends before everybody's does.
//! Whoever must wait has a place in a line; where the line is longer than it would wait, it is told at once.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// A rate, and how much may come at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) per_second: u32,
    pub(super) burst: u32,
}

impl Rate {
    fn interval(self) -> Duration {
        Duration::from_secs(1) / self.per_second.max(1)
    }

    /// When the next may go, after one that went at `next` at the earliest (the generic cell rate algorithm).
    fn turn(self, next: Option<Instant>, now: Instant) -> Instant {
        let ahead = self.interval() * self.burst.saturating_sub(1);
        let earliest = now.checked_sub(ahead).unwrap_or(now);
        next.map_or(earliest, |next| next.max(earliest))
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Budget<K> {
    all: Rate,
    each: Rate,
    turns: Mutex<Turns<K>>,
}

#[derive(Debug)]
struct Turns<K> {
    all: Option<Instant>,
    each: HashMap<K, Instant>,
}

/// So many askers are told apart; those that have their whole share again are forgotten first.
const ASKERS: usize = 16 << 10;

impl<K: Eq + Hash> Budget<K> {
    /// For all, and for each asker.
    pub(super) fn new(all: Rate, each: Rate) -> Self {
        let turns = Mutex::new(Turns {
            all: None,
            each: HashMap::new(),
        });
        Self { all, each, turns }
    }

    /// Waits for its turn; an error says how long that would have taken. Whoever has no `asker` counts as one of
    /// all only.
    pub(super) async fn wait(&self, asker: Option<K>, patience: Duration) -> Result<(), Duration> {
        let turn = self.reserve(asker, patience)?;
        sleep_until(turn).await;
        Ok(())
    }

    fn reserve(&self, asker: Option<K>, patience: Duration) -> Result<Instant, Duration> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mut turn = self.all.turn(turns.all, now);
        let mut own = None;
        if let Some(asker) = asker {
            let next = self.each.turn(turns.each.get(&asker).copied(), now);
            turn = turn.max(next);
            own = Some((asker, next));
        }
        let wait = turn.saturating_duration_since(now);
        if wait > patience {
            return Err(wait);
        }
        // Whoever waits for its own share does not hold up the others.
        turns.all = Some(self.all.turn(turns.all, now) + self.all.interval());
        if let Some((asker, next)) = own {
            if turns.each.len() >= ASKERS {
                turns.each.retain(|_, next| *next > now);
            }
            if turns.each.len() < ASKERS || turns.each.contains_key(&asker) {
                turns.each.insert(asker, next + self.each.interval());
            }
        }
        Ok(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate { per_second, burst }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_rate_goes_however_many_ask() {
        let budget = Budget::new(rate(50, 50), rate(1000, 1000));
        let begun = Instant::now();
        let mut went = 0;
        while begun.elapsed() < Duration::from_secs(10) {
            match budget.wait(Some(went), SECOND).await {
                Ok(()) => went += 1,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
        assert!((500..=560).contains(&went), "{went} in 10 s");
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_asks_without_end_leaves_the_others_their_share() {
        let budget = Budget::new(rate(50, 50), rate(10, 20));
        let mut refused = 0;
        for _ in 0..1000 {
            refused += usize::from(budget.reserve(Some("greedy"), SECOND).is_err());
        }
        assert_eq!(
            refused,
            1000 - 20 - 10,
            "its burst, and what a second brings"
        );
        let begun = Instant::now();
        assert_eq!(budget.wait(Some("modest"), SECOND).await, Ok(()));
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_would_wait_too_long_is_told_at_once_how_long() {
        let budget = Budget::new(rate(1, 1), rate(10, 10));
        assert_eq!(budget.wait(Some(1), SECOND).await, Ok(()));
        assert_eq!(budget.reserve(Some(2), SECOND / 2), Err(SECOND));
        let begun = Instant::now();
        assert_eq!(budget.wait(Some(2), SECOND).await, Ok(()));
        assert_eq!(begun.elapsed(), SECOND);
    }
}
