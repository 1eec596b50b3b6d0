//! States that are walked for callers: lists, and what streams begin with.
//!
//! One keeps a state alive, however old, until it is through, and then has cost the whole of it. So there is a limit
//! to how many each identity has under way, and all have, and a rate of the bytes that are made of them. How many bytes a
//! list will have nobody knows before; what has been made is charged afterwards, and whoever has had more than its rate
//! gets no new list until time has made up for it. One that stands still loses its state, and counts no more.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::AuthError;

/// Of one identity, or of all.
#[derive(Debug)]
pub(super) struct Snapshots {
    most: usize,
    bytes_per_second: u64,
    taken: Mutex<Taken>,
}

#[derive(Debug)]
struct Taken {
    next: u64,
    /// When something was made of each the last time.
    walked: HashMap<u64, Instant>,
    /// When those were looked for that stand still.
    swept: Instant,
    /// When all that was made has been made up for, at the rate that is allowed.
    even: Instant,
}

/// A state that is walked for a caller, until it is dropped.
#[derive(Debug)]
pub struct Snapshot([(Arc<Snapshots>, u64); 2]);

/// How long a state is kept for somebody who takes nothing of it.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often those are looked for that stand still, where there is room for no more.
const SWEEP: Duration = Duration::from_secs(1);

/// As much as that many seconds bring may be made at once.
const AT_ONCE: Duration = Duration::from_secs(2);

impl Snapshots {
    pub(super) fn new(most: usize, bytes_per_second: u64) -> Self {
        Self {
            most,
            bytes_per_second: bytes_per_second.max(1),
            taken: Mutex::new(Taken {
                next: 0,
                walked: HashMap::new(),
                swept: Instant::now(),
                even: Instant::now(),
            }),
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are held.
    pub(super) fn held(&self) -> usize {
        self.taken().walked.len()
    }

    /// Whether anything would be forgotten with it.
    pub(super) fn is_needed(&self, now: Instant) -> bool {
        let taken = self.taken();
        !taken.walked.is_empty() || taken.even > now
    }

    /// Whether one more may be walked, for `who`.
    pub(super) fn check(&self, who: &str) -> Result<(), AuthError> {
        let (mut taken, now) = (self.taken(), Instant::now());
        if taken.walked.len() >= self.most && now - taken.swept >= SWEEP {
            taken.swept = now;
            taken.walked.retain(|_, made| now - *made < PATIENCE);
        }
        if taken.walked.len() >= self.most {
            let what = format!("{} lists of {who} are under way", taken.walked.len());
            return Err(AuthError::TooMany(what));
        }
        let ahead = taken.even.saturating_duration_since(now);
        match ahead.checked_sub(AT_ONCE) {
            Some(wait) if !wait.is_zero() => Err(AuthError::Busy(wait)),
            _ => Ok(()),
        }
    }

    fn enter(&self) -> u64 {
        let mut taken = self.taken();
        taken.next += 1;
        let id = taken.next;
        taken.walked.insert(id, Instant::now());
        id
    }

    fn charge(&self, id: u64, bytes: usize) {
        let time = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let (mut taken, now) = (self.taken(), Instant::now());
        taken.even = taken.even.max(now) + time;
        if let Some(made) = taken.walked.get_mut(&id) {
            *made = now;
        }
    }
}

impl Snapshot {
    /// Counts for each of these from now on.
    pub(super) fn of(both: &[Arc<Snapshots>; 2]) -> Self {
        Self(both.each_ref().map(|one| (one.clone(), one.enter())))
    }

    /// So much was made of it.
    pub fn made(&self, bytes: usize) {
        for (one, id) in &self.0 {
            one.charge(*id, bytes);
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        for (one, id) in &self.0 {
            one.taken().walked.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn walk(own: &Arc<Snapshots>, all: &Arc<Snapshots>) -> Result<Snapshot, AuthError> {
        own.check("alice")?;
        all.check("all")?;
        Ok(Snapshot::of(&[own.clone(), all.clone()]))
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stands_still_counts_no_more_when_its_state_is_gone() {
        let [alice, all] = [2, 9].map(|most| Arc::new(Snapshots::new(most, 1 << 20)));
        let (asleep, awake) = (walk(&alice, &all).unwrap(), walk(&alice, &all).unwrap());
        for _ in 0..2 {
            advance(PATIENCE / 3).await;
            assert!(walk(&alice, &all).is_err(), "it may still go on");
            awake.made(1);
        }
        advance(PATIENCE / 3).await;
        let third = walk(&alice, &all).unwrap();
        assert!(walk(&alice, &all).is_err());
        // Nor does it when it wakes, or ends.
        asleep.made(1);
        drop(asleep);
        assert_eq!(alice.held(), 2);
        drop((awake, third));
        assert_eq!((alice.held(), all.held()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_walks_so_many_states_at_once_and_all_so_many() {
        let own = || Arc::new(Snapshots::new(2, 1 << 20));
        let (alice, bob, all) = (own(), own(), Arc::new(Snapshots::new(3, 1 << 20)));
        let mut open = vec![walk(&alice, &all).unwrap(), walk(&alice, &all).unwrap()];
        let refused = walk(&alice, &all).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "2 lists of alice are under way; try again later, or ask for less at once"
        );
        open.push(walk(&bob, &all).unwrap());
        assert!(
            matches!(walk(&bob, &all), Err(AuthError::TooMany(_))),
            "all of them"
        );
        open.remove(0);
        assert!(walk(&bob, &all).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_had_more_than_its_rate_waits_until_time_has_made_up_for_it() {
        let (own, all) = (
            Arc::new(Snapshots::new(9, 100)),
            Arc::new(Snapshots::new(9, 1000)),
        );
        let list = walk(&own, &all).unwrap();
        // What begins is made to its end, however long it is.
        for _ in 0..10 {
            list.made(100);
        }
        drop(list);
        assert_eq!(
            walk(&own, &all).unwrap_err(),
            AuthError::Busy(Duration::from_secs(8))
        );
        assert!(own.is_needed(Instant::now()));
        advance(Duration::from_secs(8)).await;
        assert!(walk(&own, &all).is_ok());
        advance(Duration::from_secs(2)).await;
        assert!(!own.is_needed(Instant::now()));
    }
}
