//! Whole flushes, made once for all streams that are due the same.
//!
//! Streams that ask for the same and that one publication wakes are sent the same entries, and marks with the same
//! token: all of it is made by the first of them, in one piece, and the others send that. Only the age in a mark
//! is each stream's own; so a flush is not used for longer than an age needs to be exact.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::cache::{Position, Status};

/// Largest flush that is kept: some frames of HTTP/2. What is larger costs little to make, for what it is.
pub const MAX_BYTES: usize = 64 << 10;
/// How many are kept; streams that were woken together are at most a few publications apart.
const KEPT: usize = 8;
/// For how long one is used.
const FRESH: Duration = Duration::from_millis(1);

/// The latest flushes.
#[derive(Debug, Default)]
pub struct Flushes(Mutex<VecDeque<Kept>>);

#[derive(Debug)]
struct Kept {
    due: Due,
    status: Arc<Status>,
    flush: Flush,
}

/// What a stream is due, of a shard with the status that it is looked up with; no two shards share theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Hash of what it asks for.
    pub query: u64,
    /// Whether it asks for digests.
    pub digests: bool,
    /// Sequence of the last entry that it has been sent.
    pub from: u64,
    /// Where it stands afterwards.
    pub position: Position,
}

/// What is sent for it.
#[derive(Clone, Debug)]
pub struct Flush {
    /// Messages, the mark last.
    pub bytes: Bytes,
    /// How many events they have.
    pub events: usize,
    /// When it was made.
    pub made: Instant,
}

impl Flushes {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The flush that was made for `due`, unless it is too old.
    pub fn get(&self, due: Due, status: &Arc<Status>, now: Instant) -> Option<Flush> {
        let flushes = self.lock();
        let kept = flushes.iter().find(|kept| kept.is_for(due, status))?;
        let fresh = now.saturating_duration_since(kept.flush.made) <= FRESH;
        fresh.then(|| kept.flush.clone())
    }

    /// Keeps a flush for those who are due the same.
    pub fn put(&self, due: Due, status: Arc<Status>, flush: Flush) {
        let mut flushes = self.lock();
        flushes.retain(|kept| !kept.is_for(due, &status));
        flushes.truncate(KEPT - 1);
        flushes.push_front(Kept { due, status, flush });
    }
}

impl Kept {
    fn is_for(&self, due: Due, status: &Arc<Status>) -> bool {
        self.due == due && Arc::ptr_eq(&self.status, status)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::cache::Phase;

    fn due(sequence: u64) -> Due {
        Due {
            query: 1,
            digests: false,
            from: sequence - 1,
            position: Position {
                history: 0,
                revision: sequence,
                sequence,
                digest: 0,
            },
        }
    }

    fn status() -> Arc<Status> {
        Arc::new(Status {
            phase: Phase::Live,
            reason: String::new(),
            message: String::new(),
            since: SystemTime::UNIX_EPOCH,
        })
    }

    fn flush(made: Instant) -> Flush {
        Flush {
            bytes: Bytes::from_static(b"all"),
            events: 1,
            made,
        }
    }

    #[test]
    fn a_flush_is_for_those_who_are_due_the_same() {
        let (flushes, status, now) = (Flushes::default(), status(), Instant::now());
        flushes.put(due(7), status.clone(), flush(now));
        assert!(flushes.get(due(7), &status, now).is_some());
        assert!(flushes.get(due(7), &self::status(), now).is_none());
        let others = [
            due(8),
            Due { from: 5, ..due(7) },
            Due { query: 2, ..due(7) },
            Due {
                digests: true,
                ..due(7)
            },
        ];
        for other in others {
            assert!(flushes.get(other, &status, now).is_none(), "{other:?}");
        }
    }

    #[test]
    fn an_old_flush_is_not_used_and_a_new_one_takes_its_place() {
        let (flushes, status, now) = (Flushes::default(), status(), Instant::now());
        flushes.put(due(7), status.clone(), flush(now));
        let later = now + FRESH + Duration::from_nanos(1);
        assert!(flushes.get(due(7), &status, later).is_none());
        flushes.put(due(7), status.clone(), flush(later));
        assert!(flushes.get(due(7), &status, later).is_some());
    }

    #[test]
    fn only_a_few_are_kept() {
        let (flushes, status, now) = (Flushes::default(), status(), Instant::now());
        for sequence in 1..100 {
            flushes.put(due(sequence), status.clone(), flush(now));
        }
        let kept = (1..100).filter(|&sequence| flushes.get(due(sequence), &status, now).is_some());
        assert_eq!(kept.count(), KEPT);
    }
}
