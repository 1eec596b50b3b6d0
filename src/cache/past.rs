//! A state as it was: undone from what the journal remembers.
//!
//! For readers who come back to a revision, such as the second page of a list: keeping a state for each of them
//! would pin as many, while the journal, which has what was replaced, is there anyway.

use std::sync::Arc;

use imbl::OrdMap;

use super::{Item, Journal, Slot, State, namespaces::Namespaces};

impl<T: Item> State<T> {
    /// The sequence up to which all happened at or before `revision`; `None` where that is not remembered, or lies
    /// strictly inside a relist. Past the state's own revision it is the state's own.
    pub fn sequence_at(&self, revision: u64) -> Option<u64> {
        if revision < self.journal.floor_revision {
            return None;
        }
        if self
            .journal
            .gap_after(revision)
            .is_some_and(|gap| gap.from < revision)
        {
            return None;
        }
        let mut sequence = self.journal.floor;
        for segment in self.journal.segments() {
            if segment.entries[0].revision > revision {
                return Some(sequence);
            }
            let upto = segment
                .entries
                .partition_point(|entry| entry.revision <= revision);
            sequence = segment.first + upto as u64 - 1;
        }
        Some(sequence)
    }

    /// What was there at `revision`; `None` as for [`State::sequence_at`]. It has no journal, no change index
    /// and no digests, so that whoever keeps it keeps nothing but items.
    pub fn at_revision(&self, revision: u64) -> Option<Self> {
        let sequence = self.sequence_at(revision)?;
        let mut objects = self.objects.clone();
        let undone: Vec<_> = self.journal.after(sequence).collect();
        let mut bytes = self.bytes;
        for segment in undone.into_iter().rev() {
            let skip = (sequence + 1).saturating_sub(segment.first) as usize;
            for entry in segment.entries.iter().skip(skip).rev() {
                let size = |item: &Option<Arc<T>>| item.as_ref().map_or(0, |item| item.size());
                bytes = (bytes + size(&entry.before)).saturating_sub(size(&entry.after));
                match (&entry.before, &entry.after) {
                    (Some(before), _) => {
                        let slot = Slot {
                            sequence,
                            born: 0,
                            revision,
                            item: before.clone(),
                        };
                        objects.insert(before.key().clone(), slot);
                    }
                    (None, Some(after)) => {
                        objects.remove(after.key());
                    }
                    (None, None) => {}
                }
            }
        }
        Some(Self {
            history: self.history,
            revision: revision.min(self.revision),
            sequence,
            digest: 0,
            namespaces: Namespaces::default(),
            objects,
            changes: OrdMap::new(),
            tombstone_floor: sequence,
            journal: Journal::new(),
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use crate::{
        cache::{Cause, History, Limits, Writer, writer::Unreadable},
        object::{Key, Object, tests::object},
    };

    fn at(name: &str, version: u64) -> Arc<Object> {
        let mut object = object("n", name);
        object.resource_version = version.to_string().into();
        Arc::new(object)
    }

    fn shown(state: &crate::cache::State<Object>) -> Vec<String> {
        let items = state.objects.values();
        items
            .map(|slot| format!("{}@{}", slot.item.key.name(), slot.item.resource_version))
            .collect()
    }

    #[test]
    fn every_remembered_revision_can_be_seen_again() {
        let now = Instant::now();
        let mut writer = Writer::new("", Limits::default(), now);
        let nothing = Unreadable::default();
        writer.replace(
            vec![at("a", 3), at("b", 5)],
            &nothing,
            10,
            History::Same,
            now,
        );
        writer.upsert(at("c", 11), 11);
        writer.publish(now);
        writer.upsert(at("a", 12), 12);
        writer.delete(&Key::new("n", "b"), None, 13, Cause::Deleted);
        writer.publish(now);
        writer.advance(20);
        writer.publish(now);
        let state = writer.shard().state().unwrap();
        for (revision, expected) in [
            (10, vec!["a@3", "b@5"]),
            (11, vec!["a@3", "b@5", "c@11"]),
            (12, vec!["a@12", "b@5", "c@11"]),
            (13, vec!["a@12", "c@11"]),
            (20, vec!["a@12", "c@11"]),
        ] {
            let past = state.at_revision(revision).unwrap();
            assert_eq!(shown(&past), expected, "{revision}");
            assert_eq!(past.revision, revision);
        }
        assert!(state.at_revision(9).is_none(), "before the first list");
        assert_eq!(state.sequence_at(13), Some(state.sequence));
    }

    #[test]
    fn inside_a_relist_nothing_is_known() {
        let now = Instant::now();
        let mut writer = Writer::new("", Limits::default(), now);
        let nothing = Unreadable::default();
        writer.replace(vec![at("a", 3)], &nothing, 10, History::Same, now);
        writer.replace(
            vec![at("a", 15), at("b", 18)],
            &nothing,
            20,
            History::Same,
            now,
        );
        let state = writer.shard().state().unwrap();
        assert_eq!(shown(&state.at_revision(10).unwrap()), ["a@3"]);
        assert!(state.at_revision(15).is_none());
        assert_eq!(shown(&state.at_revision(20).unwrap()), ["a@15", "b@18"]);
    }

    #[test]
    fn of_many_relists_of_a_quiet_kind_the_oldest_are_remembered_as_one() {
        let now = Instant::now();
        let mut writer = Writer::new("", Limits::default(), now);
        let nothing = Unreadable::default();
        for revision in (10..10_010).step_by(10) {
            writer.replace(vec![at("a", 3)], &nothing, revision, History::Same, now);
            writer.advance(revision + 5);
            writer.publish(now);
        }
        let state = writer.shard().state().unwrap();
        let gap = |revision| state.journal.gap_after(revision).unwrap();
        assert_eq!((gap(9_997).from, gap(9_997).to), (9_995, 10_000));
        assert_eq!(gap(20).from, 15, "nothing is taken for seen");
        assert!(gap(20).to > 9_000, "but they are one");
        assert!(state.at_revision(9_997).is_none());
        assert!(state.at_revision(10_003).is_some());
    }
}
