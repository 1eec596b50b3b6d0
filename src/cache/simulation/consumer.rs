//! A consumer that folds what it is sent, and the guarantees that it is held to: the validators are the `check_*`s.

use std::collections::HashMap;

use super::{
    super::*,
    Set,
    toy::{Toy, Wants},
    upstream::Records,
};
use crate::object::Key;

pub(super) struct Consumer {
    pub(super) name: usize,
    pub(super) wants: Wants,
    pub(super) cursor: Cursor<Toy>,
    pub(super) held: Set,
    /// During a reset: what has come of it.
    pub(super) incoming: Option<Set>,
    /// Where the last step left it.
    pub(super) reached: Option<Position>,
    /// Where to resume, and what was held there: what came after it counts only with the next position.
    pub(super) position: Option<(Position, Set)>,
    pub(super) revision: u64,
    pub(super) resets: HashMap<ResetReason, u64>,
}

impl Consumer {
    pub(super) fn take(&mut self, step: Step<Toy>, seed: u64, records: &Records) {
        let at = format!("seed {seed}, consumer {}", self.name);
        match step {
            Step::Idle => {}
            Step::Reset(reason) => {
                *self.resets.entry(reason).or_default() += 1;
                self.incoming = Some(Set::new());
                self.revision = 0;
            }
            Step::Items { revision, items } => {
                self.check_ordered(revision, &at);
                assert!(!items.is_empty(), "{at}");
                let incoming = self.incoming.as_mut().expect("items come in a reset");
                for item in items {
                    let double = incoming.insert(item.key.clone(), (*item).clone());
                    assert_eq!(double, None, "{at}: Unique");
                }
            }
            Step::ResetEnd(position) => {
                self.held = self.incoming.take().expect("a reset has a beginning");
                self.check_at(position, records, &at);
            }
            Step::Shared { state, from } => {
                assert!(self.wants.is_everything(), "{at}");
                let position = state.position();
                for segment in state.journal.after(from) {
                    for (index, entry) in segment.entries.iter().enumerate() {
                        if segment.first + index as u64 <= from {
                            continue;
                        }
                        self.check_ordered(entry.revision, &at);
                        match (&entry.before, &entry.after) {
                            (_, Some(item)) => self.check_upsert(item, true, &at),
                            (Some(item), None) => {
                                self.check_delete(&item.key, &item.uid, entry.cause, &at)
                            }
                            (None, None) => panic!("{at}: an empty entry"),
                        }
                    }
                }
                self.check_at(position, records, &at);
            }
            Step::Events { batch, position } => {
                if self.wants.every {
                    self.check_every(&batch, position, records, &at);
                }
                self.check_replaced(&batch, &at);
                for event in batch.events {
                    self.check_ordered(event.revision, &at);
                    match event.what {
                        What::Upsert { item, entry } => {
                            if let Some(entry) = entry {
                                let entry = &batch.segments[entry.segment].entries[entry.index];
                                assert_eq!(
                                    entry.after.as_deref(),
                                    Some(&*item),
                                    "{at}: the entry is the event"
                                );
                                assert_eq!(entry.revision, event.revision, "{at}");
                            }
                            self.check_upsert(&item, entry.is_some(), &at);
                        }
                        What::Delete { key, uid, cause } => {
                            self.check_delete(&key, &uid, cause, &at)
                        }
                    }
                }
                if let Some(position) = position {
                    self.check_at(position, records, &at);
                }
            }
        }
    }

    /// Ordered: revisions never go back within an epoch.
    pub(super) fn check_ordered(&mut self, revision: u64, at: &str) {
        assert!(
            revision >= self.revision,
            "{at}: Ordered: {revision} after {}",
            self.revision
        );
        self.revision = revision;
    }

    /// Unique, for upserts: what is held is not told again, nor anything older.
    pub(super) fn check_upsert(&mut self, item: &Toy, journaled: bool, at: &str) {
        assert!(
            self.wants.in_scope(&item.key) && self.wants.matches(item),
            "{at}: in scope"
        );
        let old = self.held.insert(item.key.clone(), item.clone());
        if let Some(old) = old {
            assert_ne!(old, *item, "{at}: Unique");
            if journaled && old.uid == item.uid {
                assert!(
                    self.wants.differs(&old, item),
                    "{at}: only what can be seen"
                );
            }
            assert_eq!(
                old.uid, item.uid,
                "{at}: another uid is brought in by a DELETE / REPLACED"
            );
            assert!(
                version_number(&old) <= version_number(item),
                "{at}: time travel"
            );
        }
    }

    /// Unique, for deletes: only of what is held.
    pub(super) fn check_delete(&mut self, key: &Key, uid: &str, cause: Cause, at: &str) {
        let old = self.held.remove(key);
        let old =
            old.unwrap_or_else(|| panic!("{at}: a DELETE ({cause:?}) of {key}, which is not held"));
        assert_eq!(old.uid, uid, "{at}");
    }

    /// Atomic: what replaces an item comes directly after that, where a selector does not leave it out.
    fn check_replaced(&self, batch: &Batch<Toy>, at: &str) {
        for (index, event) in batch.events.iter().enumerate() {
            let What::Delete { key, cause, .. } = &event.what else {
                continue;
            };
            let next = batch.events.get(index + 1).map(|next| &next.what);
            let follows = matches!(next, Some(What::Upsert { item, .. }) if item.key == *key);
            assert!(
                *cause != Cause::Replaced || follows || self.wants.is_filter(),
                "{at}: nothing takes the place of {key}"
            );
        }
    }

    /// Reliable, Atomic, Bookmarkable: at a position, exactly the set that was there is held.
    pub(super) fn check_at(&mut self, position: Position, records: &Records, at: &str) {
        let set = records
            .published
            .get(&(position.history, position.sequence));
        let set =
            set.unwrap_or_else(|| panic!("{at}: {position:?} is not that of a published state"));
        assert_eq!(
            self.wants.all_shown(&self.held),
            self.wants.all_shown(&self.wants.of(set)),
            "{at}: Reliable at {position:?}"
        );
        self.reached = Some(position);
        self.position = Some((position, self.held.clone()));
    }

    /// Each change that can be seen since the last position, one by one, and no relist among them.
    pub(super) fn check_every(
        &self,
        batch: &Batch<Toy>,
        position: Option<Position>,
        records: &Records,
        at: &str,
    ) {
        let from = self.reached.expect("there was a state before");
        let to = position.expect("every event is complete by itself");
        let between = |history: u64, revision: u64| {
            history == to.history && revision > from.revision && revision <= to.revision
        };
        let missed = records
            .relists
            .iter()
            .find(|(history, _, listed)| between(*history, *listed));
        assert_eq!(missed, None, "{at}: a relist hides changes");
        let expected: Vec<_> = records
            .log
            .iter()
            .filter(|change| between(change.history, change.revision))
            .map(|change| (change.revision, self.wants.told(change)))
            .filter(|(_, (went, came))| went.is_some() || came.is_some())
            .collect();
        let told: Vec<_> = batch
            .events
            .iter()
            .map(|event| match &event.what {
                What::Upsert { item, .. } => (event.revision, (None, Some((**item).clone()))),
                What::Delete { key, .. } => (event.revision, (Some(key.clone()), None)),
            })
            .collect();
        assert_eq!(told, expected, "{at}: every change from {from:?} to {to:?}");
    }
}

pub(super) fn items(state: &State<Toy>) -> Set {
    let slots = state.objects.iter();
    slots
        .map(|(key, slot)| (key.clone(), (*slot.item).clone()))
        .collect()
}

/// Resumable: replaying the journal from any retained point gives the state.
pub(super) fn check_journal(
    seed: u64,
    state: &State<Toy>,
    published: &HashMap<(u64, u64), Set>,
    now: &Set,
) {
    let journal = &state.journal;
    assert_eq!(
        journal
            .segments()
            .map(|segment| segment.entries.len())
            .sum::<usize>(),
        journal.len()
    );
    let Some(floor) = published.get(&(state.history, journal.floor)) else {
        // The floor is the state itself, which is recorded after this.
        assert!(journal.is_empty(), "seed {seed}");
        return;
    };
    let mut set = floor.clone();
    let mut sequence = journal.floor;
    let mut digest = journal.floor_digest;
    for segment in journal.segments() {
        assert_eq!(segment.first, sequence + 1, "seed {seed}: no gap");
        for entry in &segment.entries {
            sequence += 1;
            digest = entry.digest;
            let item = entry.item().expect("an entry is about an item");
            assert_eq!(
                set.get(&item.key),
                entry.before.as_deref(),
                "seed {seed}: before, at {sequence}"
            );
            match &entry.after {
                Some(after) => set.insert(item.key.clone(), (**after).clone()),
                None => set.remove(&item.key),
            };
        }
    }
    assert_eq!(
        (sequence, digest),
        (state.sequence, state.digest),
        "seed {seed}"
    );
    assert_eq!(&set, now, "seed {seed}");
}
