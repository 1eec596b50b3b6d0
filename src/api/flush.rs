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
pub struct Flushes(Mutex<VecDeque<(Due, Flush)>>);

/// What a stream is due.
#[derive(Clone, Debug)]
pub struct Due {
    /// Hash of what it asks for.
    pub query: u64,
    /// Whether it asks for digests.
    pub digests: bool,
    /// Sequence of the first entry.
    pub first: u64,
    /// Where it stands afterwards.
    pub position: Position,
    /// Of the shard. No two shards share theirs, so this names the shard, too.
    pub status: Arc<Status>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.position == other.position
            && self.first == other.first
            && self.query == other.query
            && self.digests == other.digests
            && Arc::ptr_eq(&self.status, &other.status)
    }
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
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Due, Flush)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The flush that was made for `due`, unless it is too old.
    pub fn get(&self, due: &Due, now: Instant) -> Option<Flush> {
        let flushes = self.lock();
        let (_, flush) = flushes.iter().find(|(other, _)| other == due)?;
        (now.saturating_duration_since(flush.made) <= FRESH).then(|| flush.clone())
    }

    /// Keeps a flush for those who are due the same.
    pub fn put(&self, due: Due, flush: Flush) {
        let mut flushes = self.lock();
        flushes.retain(|(other, _)| *other != due);
        flushes.truncate(KEPT - 1);
        flushes.push_front((due, flush));
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::cache::Phase;

    fn due(sequence: u64, status: &Arc<Status>) -> Due {
        Due {
            query: 1,
            digests: false,
            first: sequence,
            position: Position {
                history: 0,
                revision: sequence,
                sequence,
                digest: 0,
            },
            status: status.clone(),
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
        flushes.put(due(7, &status), flush(now));
        assert!(flushes.get(&due(7, &status), now).is_some());
        let others = [
            due(8, &status),
            due(7, &self::status()),
            Due {
                first: 6,
                ..due(7, &status)
            },
            Due {
                query: 2,
                ..due(7, &status)
            },
            Due {
                digests: true,
                ..due(7, &status)
            },
        ];
        for other in others {
            assert!(flushes.get(&other, now).is_none(), "{other:?}");
        }
    }

    #[test]
    fn an_old_flush_is_not_used_and_a_new_one_takes_its_place() {
        let (flushes, status, now) = (Flushes::default(), status(), Instant::now());
        flushes.put(due(7, &status), flush(now));
        let later = now + FRESH + Duration::from_nanos(1);
        assert!(flushes.get(&due(7, &status), later).is_none());
        flushes.put(due(7, &status), flush(later));
        assert!(flushes.get(&due(7, &status), later).is_some());
    }

    #[test]
    fn only_a_few_are_kept() {
        let (flushes, status, now) = (Flushes::default(), status(), Instant::now());
        for sequence in 0..100 {
            flushes.put(due(sequence, &status), flush(now));
        }
        let kept = (0..100).filter(|&sequence| flushes.get(&due(sequence, &status), now).is_some());
        assert_eq!(kept.count(), KEPT);
    }
}
