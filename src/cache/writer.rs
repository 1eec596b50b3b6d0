//! The one hand that changes a shard.
//!
//! Owned by the shard's source task, so that there is nothing to lock. Changes gather in the writer until
//! [`Writer::publish`] makes them visible, all at once; a relist is compared with what is there and becomes
//! the difference.
//!
//! Invariant: an entry of the journal either brings an item in, changes it within one uid, or removes it; an
//! exchange of uids is two entries of one publication.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use super::{
    Cause, Change, Entry, Gap, Item, Limits, Phase, Segment, Shard, Slot, State, version_number,
};
use crate::{
    digest,
    object::Key,
    planted::{self, Bug},
};

/// See the module's documentation.
#[derive(Debug)]
pub struct Writer<T> {
    shard: Arc<Shard<T>>,
    limits: Limits,
    state: State<T>,
    pending: Vec<Entry<T>>,
    /// Tombstones in `state.changes`, oldest first, with the time of their publication.
    tombstones: VecDeque<(u64, Option<Instant>)>,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It will be published.
    Changed,
    /// It says nothing new.
    Unchanged,
    /// It is older than what is there: a duplicate, or the word of a server that lags behind.
    Stale,
}

/// Whether a list goes on from what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// The upstream's revisions go on.
    Same,
    /// The upstream was restored to an earlier time: every position given out so far is void.
    New,
}

/// Items of a list that could not be decoded.
#[derive(Clone, Debug, Default)]
pub struct Unreadable {
    /// Those whose key was readable: the items here stay, marked stale.
    pub keys: HashSet<Key>,
    /// Whether there were others: then nothing is known to have vanished.
    pub unnamed: bool,
}

impl<T: Item> Writer<T> {
    /// A shard with nothing in it, not yet complete. `namespace` is empty where it watches the whole kind.
    pub fn new(namespace: &str, limits: Limits, now: Instant) -> Self {
        Self {
            shard: Arc::new(Shard::new(namespace, now)),
            limits,
            state: State::empty(),
            pending: Vec::new(),
            tombstones: VecDeque::new(),
        }
    }

    /// The readers' side.
    pub fn shard(&self) -> &Arc<Shard<T>> {
        &self.shard
    }

    /// The revision to resume from: that of the last change or bookmark, published or not.
    pub fn revision(&self) -> u64 {
        self.state.revision
    }

    /// Says how well the shard is known.
    pub fn set_status(&self, phase: Phase, reason: &str, message: &str) {
        self.shard.set_status(phase, reason, message);
    }

    /// The upstream has just proved the state current.
    pub fn prove(&self, now: Instant) {
        self.shard.prove(now);
    }

    /// Whether the kind proves nothing between events.
    pub fn set_unproven(&self, unproven: bool) {
        self.shard.set_unproven(unproven);
    }

    /// An item was created or modified upstream at `revision` (0 where versions have no order).
    pub fn upsert(&mut self, item: Arc<T>, revision: u64) -> Applied {
        if revision != 0 && revision <= self.state.revision {
            return Applied::Stale;
        }
        self.put(item, revision)
    }

    /// An item was removed upstream at `revision` (0 where versions have no order). `uid` is checked where it
    /// is given and not empty, unless what is held is stale: it may be there in place of one that could not be decoded.
    pub fn delete(&mut self, key: &Key, uid: Option<&str>, revision: u64, cause: Cause) -> Applied {
        if revision != 0 && revision <= self.state.revision {
            return Applied::Stale;
        }
        let held = self.state.objects.get(key).map(|slot| slot.item.clone());
        let applied = match held {
            None => Applied::Unchanged,
            Some(held) => match uid {
                Some(uid) if !uid.is_empty() && !held.is_stale() && !is_same(&*held, uid) => {
                    Applied::Stale
                }
                _ => {
                    self.remove(&held, revision, cause);
                    Applied::Changed
                }
            },
        };
        self.move_to(revision);
        applied
    }

    /// The item has a newer version, of `revision`, that could not be decoded: it stays, marked stale.
    pub fn mark_stale(&mut self, key: &Key, revision: u64) -> Applied {
        if revision != 0 && revision <= self.state.revision {
            return Applied::Stale;
        }
        let held = self.state.objects.get(key).map(|slot| slot.item.clone());
        let applied = match held {
            Some(held) if !held.is_stale() => {
                self.set(Arc::new(held.to_stale()), revision);
                Applied::Changed
            }
            _ => Applied::Unchanged,
        };
        self.move_to(revision);
        applied
    }

    /// The upstream is at `revision` and nothing else has changed (a bookmark). Never goes back.
    pub fn advance(&mut self, revision: u64) {
        self.move_to(revision);
    }

    /// Makes the changes so far visible, all at once.
    pub fn publish(&mut self, now: Instant) {
        if planted::is(Bug::SlowConsumerAwaited) && self.shard.is_awaited() {
            return;
        }
        let entries = std::mem::take(&mut self.pending);
        let segment = (!entries.is_empty()).then(|| {
            let first = self.state.sequence + 1 - entries.len() as u64;
            Segment::new(
                first,
                now,
                entries,
                self.state.journal.encoded_bytes(),
                &self.limits,
            )
        });
        let segment = segment.map(|segment| self.state.journal.push(segment));
        self.trim(now);
        self.shard.publish(&self.state, segment.as_deref());
    }

    /// A complete list at `revision` takes the place of what is there, and is published, as the difference to
    /// it: upserts in the order of their versions, a deletion with cause `Replaced` directly before the item that took its
    /// key, what has vanished at the end. What is `unreadable` stays as it was, marked stale, unless a new history
    /// begins, in which nothing of the other one counts. The shard is complete from then on; whether it is current, too,
    /// is for [`Writer::prove`] to say.
    pub fn replace(
        &mut self,
        list: Vec<Arc<T>>,
        unreadable: &Unreadable,
        revision: u64,
        history: History,
        now: Instant,
    ) {
        // A difference stands by itself.
        if !self.pending.is_empty() {
            self.publish(now);
        }
        let from = self.state.revision;
        if history == History::New {
            self.state.history += 1;
            self.state.revision = 0;
        }
        let at = if revision == 0 {
            0
        } else {
            revision.max(self.state.revision)
        };
        let mut listed = HashSet::with_capacity(list.len());
        let mut upserts = Vec::new();
        for item in list {
            listed.insert(item.key().clone());
            let held = self.state.objects.get(item.key()).map(|slot| &slot.item);
            // In another history the same version may say something else.
            let is_news = |held: &Arc<T>| match history {
                History::Same => differs(&**held, &*item),
                History::New => !Arc::ptr_eq(held, &item),
            };
            if held.is_none_or(is_news) {
                upserts.push(item);
            }
        }
        upserts.sort_by(|a, b| {
            let order = |item: &T| version_number(item);
            order(a).cmp(&order(b)).then_with(|| a.key().cmp(b.key()))
        });
        for item in upserts {
            self.bring_in(item, at);
        }
        let unlisted: Vec<Arc<T>> = self
            .state
            .objects
            .iter()
            .filter(|(key, _)| !listed.contains(*key))
            .map(|(_, slot)| slot.item.clone())
            .collect();
        for held in unlisted {
            let is_there = unreadable.unnamed || unreadable.keys.contains(held.key());
            // What is known of it is of another history, in which its version may be a later one.
            let counts = history == History::Same;
            if is_there && counts && !planted::is(Bug::UndecodableSwept) {
                if !held.is_stale() {
                    self.set(Arc::new(held.to_stale()), at);
                }
            } else if !planted::is(Bug::RelistDeletesDropped) {
                self.remove(&held, at, Cause::Vanished);
            }
        }
        self.move_to(at);
        let bytes: usize = self.pending.iter().map(Entry::bytes).sum();
        let first = self.shard.state().is_none();
        if first || history == History::New || bytes > self.limits.journal_room() {
            // Not journaled: the change index has it all, for those whose position still counts.
            let entries = std::mem::take(&mut self.pending);
            self.state
                .journal
                .clear(self.state.sequence, self.state.revision, self.state.digest);
            if history == History::New {
                self.forget_tombstones(usize::MAX);
            }
            drop(entries);
            self.trim(now);
            self.shard.publish(&self.state, None);
            self.shard.wake_all();
        } else {
            self.state.journal.relisted(Gap { from, to: at });
            self.publish(now);
        }
        self.shard.set_synced(true);
    }

    /// The kind is served no more: everything that is left is deleted, and the shard is incomplete until the
    /// next [`Writer::replace`]. Readers are shown the deletions first.
    pub fn retire(&mut self, now: Instant) {
        let left: Vec<_> = self
            .state
            .objects
            .values()
            .map(|slot| slot.item.clone())
            .collect();
        for item in left {
            self.remove(&item, self.state.revision, Cause::Vanished);
        }
        self.publish(now);
    }

    /// Nothing is served any more until the next [`Writer::replace`].
    pub fn unsync(&mut self) {
        self.shard.set_synced(false);
    }

    /// Compares the running digests with ones made anew from the state, which takes about 0.1 us an item.
    /// A difference is counted and mended.
    pub fn verify(&mut self) -> bool {
        let (digest, namespaces) = self.state.compute_digests();
        let agrees = digest == self.state.digest && namespaces == self.state.namespaces;
        if !agrees {
            let mismatches = &self.shard.counters.digest_mismatches;
            mismatches.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            (self.state.digest, self.state.namespaces) = (digest, namespaces);
        }
        agrees
    }

    fn trim(&mut self, now: Instant) {
        self.state.journal.trim(&self.limits, now);
        // Changes carry no clock: those of this publication are dated by it.
        for (_, at) in self
            .tombstones
            .iter_mut()
            .rev()
            .take_while(|(_, at)| at.is_none())
        {
            *at = Some(now);
        }
        let too_old = |at: Instant| now.saturating_duration_since(at) > self.limits.tombstone_age;
        let over = self.tombstones.len().saturating_sub(self.limits.tombstones);
        let old = self
            .tombstones
            .iter()
            .take_while(|(_, at)| at.is_some_and(too_old))
            .count();
        self.forget_tombstones(over.max(old));
    }

    fn forget_tombstones(&mut self, count: usize) {
        for _ in 0..count {
            let Some((sequence, _)) = self.tombstones.pop_front() else {
                break;
            };
            self.state.changes.remove(&sequence);
            if !planted::is(Bug::TombstoneTrimmedSilently) {
                self.state.tombstone_floor = sequence;
            }
        }
    }

    fn move_to(&mut self, revision: u64) {
        self.state.revision = self.state.revision.max(revision);
    }

    /// As upstream now has it, whatever was there.
    fn put(&mut self, item: Arc<T>, revision: u64) -> Applied {
        let held = self.state.objects.get(item.key());
        let applied = if held.is_some_and(|held| !differs(&*held.item, &*item)) {
            Applied::Unchanged
        } else {
            self.bring_in(item, revision);
            Applied::Changed
        };
        self.move_to(revision);
        applied
    }

    /// `item` takes the place of what is there under its key, be that another one.
    fn bring_in(&mut self, item: Arc<T>, revision: u64) {
        if planted::is(Bug::ObjectForgotten) && digest::fnv1a([item.key().as_str()]) % 4 == 0 {
            return;
        }
        let held = self.state.objects.get(item.key());
        let other = held.filter(|held| !is_same(&*held.item, item.uid()));
        if let Some(other) = other.map(|held| held.item.clone()) {
            self.remove(&other, revision, Cause::Replaced);
        }
        self.set(item, revision);
    }

    /// Brings `item` in, or changes it within its uid.
    fn set(&mut self, item: Arc<T>, revision: u64) {
        let state = &mut self.state;
        state.sequence += 1;
        let number = digest_of(&*item);
        state.digest = state.digest.wrapping_add(number);
        state.namespaces.add(item.key().namespace(), number);
        state.bytes += item.size();
        let held = state.objects.get(item.key()).cloned();
        if let Some(held) = &held {
            let number = digest_of(&*held.item);
            state.digest = state.digest.wrapping_sub(number);
            state.namespaces.remove(item.key().namespace(), number);
            state.bytes -= held.item.size();
            state.changes.remove(&held.sequence);
        }
        let slot = Slot {
            sequence: state.sequence,
            born: held.as_ref().map_or(state.sequence, |held| held.born),
            revision,
            item: item.clone(),
        };
        state.objects.insert(item.key().clone(), slot);
        state
            .changes
            .insert(state.sequence, Change::Live(item.key().clone()));
        self.pending.push(Entry {
            revision,
            digest: state.digest,
            cause: Cause::Changed,
            before: held.map(|held| held.item),
            after: Some(item),
        });
    }

    fn remove(&mut self, held: &Arc<T>, revision: u64, cause: Cause) {
        let state = &mut self.state;
        let Some(slot) = state.objects.remove(held.key()) else {
            return;
        };
        state.sequence += 1;
        let number = digest_of(&*slot.item);
        state.digest = state.digest.wrapping_sub(number);
        state.namespaces.remove(held.key().namespace(), number);
        state.bytes -= slot.item.size();
        state.changes.remove(&slot.sequence);
        let tombstone = Change::Tombstone {
            key: held.key().clone(),
            uid: held.uid().into(),
            cause,
            revision,
            born: slot.born,
        };
        state.changes.insert(state.sequence, tombstone);
        self.tombstones.push_back((state.sequence, None));
        self.pending.push(Entry {
            revision,
            digest: state.digest,
            cause,
            before: Some(slot.item),
            after: None,
        });
    }
}

/// Whether `held` is what has this uid, not something else of the same name.
fn is_same<T: Item>(held: &T, uid: &str) -> bool {
    held.uid() == uid || planted::is(Bug::UidIgnored)
}

/// Whether `new` says anything that `held` does not.
fn differs<T: Item>(held: &T, new: &T) -> bool {
    held.uid() != new.uid() || held.version() != new.version() || held.is_stale() != new.is_stale()
}

pub(super) fn digest_of(item: &impl Item) -> u64 {
    digest::entry(item.key().as_str(), item.uid(), item.version())
}
