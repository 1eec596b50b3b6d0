//! One immutable state of a shard: what is there, what changed when, and what happened of late.

use std::{ops::Bound, sync::Arc};

use imbl::OrdMap;

use super::{Cause, Entry, Item, Journal, namespaces::Namespaces, select::Select};
use crate::object::Key;

/// A complete state of a shard at one revision. Cloning shares everything.
#[derive(Debug)]
pub struct State<T> {
    /// Counts upstream histories: it moves on when the upstream's revision went back (a restored etcd), and
    /// positions of an older history mean nothing.
    pub history: u64,
    /// Upstream revision up to which this is complete; 0 where the kind's versions have no order.
    pub revision: u64,
    /// Number of the last change, local to this process; never goes back.
    pub sequence: u64,
    /// Digest of the set of (key, uid, version); see [`crate::digest`].
    pub digest: u64,
    /// The same of each namespace.
    pub namespaces: Namespaces,
    /// What is there, in the API server's order.
    pub objects: Items<T>,
    /// What changed after a sequence, without a walk of everything: one entry per item, one per tombstone.
    pub changes: OrdMap<u64, Change>,
    /// Deletions after this sequence are all in `changes`.
    pub tombstone_floor: u64,
    /// What happened of late.
    pub journal: Journal<T>,
    /// Sum of the items' sizes.
    pub bytes: usize,
}

/// The items of a state.
pub type Items<T> = OrdMap<Key, Slot<T>>;

/// One item of a state.
#[derive(Debug)]
pub struct Slot<T> {
    /// The change that made it what it is.
    pub sequence: u64,
    /// The change that brought this uid in.
    pub born: u64,
    /// Upstream revision of `sequence`.
    pub revision: u64,
    /// The item.
    pub item: Arc<T>,
}

/// An entry of the change index.
#[derive(Clone, Debug)]
pub enum Change {
    /// The item with this key was changed last at this sequence.
    Live(Key),
    /// An item was removed.
    Tombstone {
        /// Its key.
        key: Key,
        /// Its uid.
        uid: Arc<str>,
        /// Why.
        cause: Cause,
        /// Upstream revision of the removal.
        revision: u64,
        /// The change that had brought it in: a cursor from before that never knew it.
        born: u64,
    },
}

/// Where a reader stands in a shard. Means something only at the end of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// See [`State::history`].
    pub history: u64,
    /// See [`State::revision`].
    pub revision: u64,
    /// See [`State::sequence`].
    pub sequence: u64,
    /// See [`State::digest`].
    pub digest: u64,
}

/// What a position from elsewhere means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The same set was here at this sequence: go on from it.
    At(u64),
    /// The position is ahead of this state.
    Ahead,
    /// It is older than what is remembered, or inside a relist.
    Past,
    /// At that revision, another set was here.
    Differs,
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self {
            item: self.item.clone(),
            ..*self
        }
    }
}

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        Self {
            objects: self.objects.clone(),
            changes: self.changes.clone(),
            journal: self.journal.clone(),
            namespaces: self.namespaces.clone(),
            ..*self
        }
    }
}

impl<T: Item> State<T> {
    pub(super) fn empty() -> Self {
        Self {
            history: 0,
            revision: 0,
            sequence: 0,
            digest: 0,
            namespaces: Namespaces::default(),
            objects: OrdMap::new(),
            changes: OrdMap::new(),
            tombstone_floor: 0,
            journal: Journal::new(),
            bytes: 0,
        }
    }

    /// Where a reader stands that has seen all of this state.
    pub fn position(&self) -> Position {
        Position {
            history: self.history,
            revision: self.revision,
            sequence: self.sequence,
            digest: self.digest,
        }
    }

    /// The item with this key.
    pub fn get(&self, key: &Key) -> Option<&Arc<T>> {
        self.objects.get(key).map(|slot| &slot.item)
    }

    /// The digest made anew from the items, and those of the namespaces.
    pub fn compute_digests(&self) -> (u64, Namespaces) {
        let (mut digest, mut namespaces) = (0u64, Namespaces::default());
        for (key, slot) in &self.objects {
            let number = super::writer::digest_of(&*slot.item);
            digest = digest.wrapping_add(number);
            namespaces.add(key.namespace(), number);
        }
        (digest, namespaces)
    }

    /// What a position of another process means here: it is found by its revision and must then agree with
    /// what was here by its digest.
    pub fn resolve(&self, foreign: &Position) -> Resolution {
        if foreign.revision > self.revision {
            return Resolution::Ahead;
        }
        if foreign.revision < self.journal.floor_revision {
            return Resolution::Past;
        }
        let gap = self.journal.gap_after(foreign.revision);
        let gap = gap.filter(|gap| gap.from < foreign.revision);
        let mut at = (self.journal.floor, self.journal.floor_digest);
        for segment in self.journal.segments() {
            let next = segment.entries[0].revision;
            if next > foreign.revision {
                // A relist that found no difference hides nothing from who knows the same set.
                if gap.is_some_and(|gap| gap.to == next) {
                    return Resolution::Past;
                }
                break;
            }
            let upto = segment
                .entries
                .partition_point(|entry: &Entry<T>| entry.revision <= foreign.revision);
            at = (
                segment.first + upto as u64 - 1,
                segment.entries[upto - 1].digest,
            );
        }
        if at.1 == foreign.digest {
            Resolution::At(at.0)
        } else {
            Resolution::Differs
        }
    }

    /// The slots of a scope after `after`, in key order; `None` starts at the beginning.
    pub fn scan<'a, S: Select<T> + ?Sized>(
        &'a self,
        select: &S,
        after: Option<&Key>,
    ) -> impl Iterator<Item = (&'a Key, &'a Slot<T>)> + use<'a, T, S> {
        scan(&self.objects, select, after)
    }

    /// The same without a journal, for whoever walks it and may take their time.
    pub(super) fn frozen(&self) -> Self {
        Self {
            objects: self.objects.clone(),
            changes: self.changes.clone(),
            journal: Journal::new(),
            namespaces: self.namespaces.clone(),
            ..*self
        }
    }
}

/// See [`State::scan`].
pub(super) fn scan<'a, T: Item, S: Select<T> + ?Sized>(
    items: &'a Items<T>,
    select: &S,
    after: Option<&Key>,
) -> impl Iterator<Item = (&'a Key, &'a Slot<T>)> + use<'a, T, S> {
    let after = after.cloned();
    select.ranges().into_iter().flat_map(move |range| {
        let start = match (range.start(), after.clone()) {
            (Some(start), Some(after)) if start > after => Bound::Included(start),
            (_, Some(after)) => Bound::Excluded(after),
            (Some(start), None) => Bound::Included(start),
            (None, None) => Bound::Unbounded,
        };
        items
            .range((start, Bound::Unbounded))
            .take_while(move |(key, _)| range.contains(key))
    })
}
