//! What happened of late, in order, with the items before and after: the memory by which a cursor goes on
//! where it was.
//!
//! Bounded by bytes and by age, in segments of one publication each. An entry keeps the item before and the
//! one after, so that whether a consumer's selector matched at any point can be told without keeping per
//! consumer what it holds.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use imbl::Vector;

use super::{Cause, Item};
use crate::object::allocated;

/// What an `Arc` keeps in front of its content.
const COUNTERS: usize = 2 * size_of::<usize>();

/// So many of the newest segments are looked at before a search.
const NEAR: usize = 8;

/// So many relists are known each by itself; of more, the oldest count as one.
const MAX_GAPS: usize = 64;

/// How much a shard remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of the journal: items held only by it, and encodings, in memory that the process has because of them.
    pub journal_bytes: usize,
    /// Of the journal: the age of its oldest segment.
    pub journal_age: Duration,
    /// How many deletions the change index remembers.
    pub tombstones: usize,
    /// For how long it does.
    pub tombstone_age: Duration,
}

impl Limits {
    /// Bytes that may be kept in `journal_bytes` of memory: entries come and go in all sizes, and an allocator leaves
    /// about a quarter of theirs unused between them. The bench `slow_consumer` has the figures.
    pub(super) fn journal_room(&self) -> usize {
        self.journal_bytes / 5 * 4
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            journal_bytes: 64 << 20,
            journal_age: Duration::from_secs(5 * 60),
            tombstones: 100_000,
            tombstone_age: Duration::from_secs(60 * 60),
        }
    }
}

/// One change of one item.
#[derive(Debug)]
pub struct Entry<T> {
    /// Upstream revision of the change; all of a relist's carry the list's.
    pub revision: u64,
    /// Digest of the shard's set right after this entry.
    pub digest: u64,
    /// Why.
    pub cause: Cause,
    /// The item as it was; `None` where there was none.
    pub before: Option<Arc<T>>,
    /// The item as it is; `None` where it is gone.
    pub after: Option<Arc<T>>,
}

impl<T: Item> Entry<T> {
    /// Bytes that are held because of this entry: what was replaced is in no state any more.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.before.as_ref().map_or(0, |item| item.size())
    }

    /// The item that the entry is about: the one after, else the one before.
    pub fn item(&self) -> Option<&Arc<T>> {
        self.after.as_ref().or(self.before.as_ref())
    }
}

/// The entries of one publication.
#[derive(Debug)]
pub struct Segment<T> {
    /// Sequence of the first entry; the others follow without a gap.
    pub first: u64,
    /// When it was published.
    pub at: Instant,
    /// Never empty.
    pub entries: Box<[Entry<T>]>,
    /// Filled by whoever encodes first.
    encodings: Encodings,
    bytes: usize,
}

impl<T: Item> Segment<T> {
    pub(super) fn new(
        first: u64,
        at: Instant,
        entries: Vec<Entry<T>>,
        encoded_bytes: Arc<AtomicUsize>,
        limits: &Limits,
    ) -> Self {
        let bytes = allocated(COUNTERS + size_of::<Self>())
            + entries.iter().map(Entry::bytes).sum::<usize>();
        Self {
            first,
            at,
            entries: entries.into(),
            encodings: Encodings {
                made: Mutex::default(),
                total: encoded_bytes,
                limit: limits.journal_room() / 2,
            },
            bytes,
        }
    }

    /// Bytes that are held because of it.
    pub fn size(&self) -> usize {
        self.bytes
    }

    /// Sequence of the last entry.
    pub fn last(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }

    /// The entries in one consumer-independent encoding, made by the first who asks and shared from then on.
    /// An asker waits for another's encoding of the same segment to be ready rather than repeat it. Not kept
    /// where the shard's encodings have half of the journal's room already: readers must not be able to push
    /// out of it what others resume from, nor to fill the memory between two publications.
    pub fn encoded(
        &self,
        projection: ProjectionId,
        encode: impl FnOnce(&Self) -> Encoded,
    ) -> Encoded {
        let mut made = self
            .encodings
            .made
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((_, encoded)) = made.iter().find(|(id, _)| *id == projection) {
            return encoded.clone();
        }
        let encoded = encode(self);
        let Encodings { total, limit, .. } = &self.encodings;
        // Two at once may go over it by one segment each.
        if total.load(Ordering::Relaxed) + encoded.size() <= *limit {
            total.fetch_add(encoded.size(), Ordering::Relaxed);
            made.reserve_exact(1);
            made.push((projection, encoded.clone()));
        }
        encoded
    }
}

/// Names one way to encode items (a view and a mask); numbered by whoever encodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProjectionId(pub u32);

/// The entries of a segment, encoded one after the other.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// All entries' bytes, after `head` bytes that belong to none.
    pub bytes: Bytes,
    /// Length of what precedes the first entry.
    pub head: usize,
    /// Where each entry ends in `bytes`.
    pub ends: Arc<[u32]>,
}

impl Encoded {
    /// The bytes of entries `from..to`, by their place in the segment.
    pub fn slice(&self, from: usize, to: usize) -> Bytes {
        let start = self.start(from);
        self.bytes.slice(start..self.start(to).max(start))
    }

    /// Where the entry `at` begins.
    fn start(&self, at: usize) -> usize {
        match at.checked_sub(1) {
            None => self.head,
            Some(previous) => self.ends[previous] as usize,
        }
    }

    /// What it takes in memory, its place among a segment's encodings included.
    fn size(&self) -> usize {
        /// What [`Bytes`] keeps beside those that are shared.
        const HANDLE: usize = 3 * size_of::<usize>();
        allocated(self.bytes.len())
            + allocated(HANDLE)
            + allocated(COUNTERS + size_of_val(&*self.ends))
            + allocated(size_of::<(ProjectionId, Self)>())
    }
}

#[derive(Debug)]
struct Encodings {
    made: Mutex<Vec<(ProjectionId, Encoded)>>,
    /// Of all segments of the shard; counted in the journal's bytes.
    total: Arc<AtomicUsize>,
    /// The most that `total` may be.
    limit: usize,
}

impl Drop for Encodings {
    fn drop(&mut self) {
        let made = self.made.get_mut().unwrap_or_else(PoisonError::into_inner);
        let bytes = made.iter().map(|(_, encoded)| encoded.size()).sum();
        self.total.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A relist: what happened after `from` and up to `to` was not seen, but for what was left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Revision before it.
    pub from: u64,
    /// Revision of the list.
    pub to: u64,
}

/// The retained segments, oldest first.
#[derive(Debug)]
pub struct Journal<T> {
    segments: Vector<Arc<Segment<T>>>,
    /// Oldest first; those whose end is after the floor.
    gaps: Vector<Gap>,
    /// Everything after this sequence is retained.
    pub floor: u64,
    /// The shard's revision and digest at the floor.
    pub floor_revision: u64,
    /// See `floor_revision`.
    pub floor_digest: u64,
    /// Of the segments, without their encodings.
    bytes: usize,
    encoded_bytes: Arc<AtomicUsize>,
}

// By hand: a derived Clone would ask for `T: Clone`.
impl<T> Clone for Journal<T> {
    fn clone(&self) -> Self {
        Self {
            segments: self.segments.clone(),
            gaps: self.gaps.clone(),
            encoded_bytes: self.encoded_bytes.clone(),
            ..*self
        }
    }
}

impl<T: Item> Journal<T> {
    pub(super) fn new() -> Self {
        Self {
            segments: Vector::new(),
            gaps: Vector::new(),
            floor: 0,
            floor_revision: 0,
            floor_digest: 0,
            bytes: 0,
            encoded_bytes: Arc::default(),
        }
    }

    pub(super) fn encoded_bytes(&self) -> Arc<AtomicUsize> {
        self.encoded_bytes.clone()
    }

    pub(super) fn push(&mut self, segment: Segment<T>) -> Arc<Segment<T>> {
        let segment = Arc::new(segment);
        self.bytes += segment.bytes;
        self.segments.push_back(segment.clone());
        segment
    }

    /// A relist went from one revision to the other, whether it found a difference or not.
    pub(super) fn relisted(&mut self, gap: Gap) {
        if gap.from >= gap.to {
            return;
        }
        self.gaps.push_back(gap);
        // On a quiet kind no entry is ever forgotten, and no relist with it.
        if self.gaps.len() > MAX_GAPS
            && let Some(oldest) = self.gaps.pop_front()
            && let Some(next) = self.gaps.front_mut()
        {
            next.from = oldest.from;
        }
    }

    /// The first relist that whoever has seen all up to `revision` has not seen the end of.
    pub fn gap_after(&self, revision: u64) -> Option<Gap> {
        self.gaps.iter().find(|gap| gap.to > revision).copied()
    }

    /// Forgets what is over the limits; the newest segment is kept while it alone is within them.
    pub(super) fn trim(&mut self, limits: &Limits, now: Instant) {
        while let Some(oldest) = self.segments.front() {
            let too_old = now.saturating_duration_since(oldest.at) > limits.journal_age;
            if !too_old && self.bytes() <= limits.journal_room() {
                break;
            }
            let Some(oldest) = self.segments.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes;
            self.floor = oldest.last();
            if let Some(last) = oldest.entries.last() {
                self.floor_revision = last.revision;
                self.floor_digest = last.digest;
            }
        }
        let floor = self.floor_revision;
        while self.gaps.front().is_some_and(|gap| gap.to <= floor) {
            self.gaps.pop_front();
        }
    }

    /// Forgets everything: the next entry will be the first.
    pub(super) fn clear(&mut self, sequence: u64, revision: u64, digest: u64) {
        self.segments = Vector::new();
        self.gaps = Vector::new();
        self.bytes = 0;
        self.floor = sequence;
        self.floor_revision = revision;
        self.floor_digest = digest;
    }

    /// Bytes held by the journal alone: replaced items and encodings.
    pub fn bytes(&self) -> usize {
        self.bytes + self.encoded_bytes.load(Ordering::Relaxed)
    }

    /// How many entries are retained.
    pub fn len(&self) -> usize {
        self.segments
            .back()
            .map_or(0, |last| (last.last() - self.floor) as usize)
    }

    /// Whether nothing is retained.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// When the oldest retained segment was published.
    pub fn oldest(&self) -> Option<Instant> {
        self.segments.front().map(|segment| segment.at)
    }

    /// The retained segments, oldest first.
    pub fn segments(&self) -> impl Iterator<Item = &Arc<Segment<T>>> {
        self.segments.iter()
    }

    /// The segments with entries after `sequence`, the first of them perhaps only in part. The caller has
    /// checked that `sequence` is at or past the floor.
    pub fn after(&self, sequence: u64) -> impl Iterator<Item = &Arc<Segment<T>>> {
        let next = sequence + 1;
        let count = self.segments.len();
        // Mostly it is the newest, or one close to it.
        let near = (count.saturating_sub(NEAR)..count)
            .rev()
            .find(|&at| self.segments[at].first <= next);
        let at = near.unwrap_or_else(|| {
            let found = self
                .segments
                .binary_search_by(|segment| segment.first.cmp(&next));
            // The entry may be inside the segment before the insertion point.
            found.unwrap_or_else(|insertion| insertion.saturating_sub(1))
        });
        self.segments
            .focus()
            .narrow(at.min(count)..)
            .into_iter()
            .filter(move |segment| segment.last() > sequence)
    }
}
