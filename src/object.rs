//! One cached object: a thin handle of identity and pruned JSON.
//!
//! Not a typed struct and not a `DynamicObject`: a typed Pod of 9 KB takes 37-39 KB and five times as long to
//! build. Whoever wants fields decodes those from [`Object::json`]; everybody else passes the bytes on.

use std::cmp::Ordering;

use bytes::Bytes;

pub mod decode;
pub mod key;
pub mod names;
pub mod path;
pub mod projection;
pub mod prune;
mod rules;
mod scan;
pub mod selector;

pub use decode::{DecodeError, Decoder};
pub use key::Key;
pub use path::Path;
pub use projection::{Projection, View};
pub use prune::{PruneRules, Pruner};
pub use selector::{BoundFieldSelector, FieldSelector, LabelSelector, Selectable, Selector};

/// An object as cached: identity, what selectors read, and the pruned JSON.
#[derive(Clone, Debug)]
pub struct Object {
    /// Namespace and name.
    pub key: Key,
    /// `metadata.uid`; empty only for kinds that have none.
    pub uid: Box<str>,
    /// `metadata.resourceVersion`, as upstream wrote it.
    pub resource_version: Box<str>,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// `metadata.deletionTimestamp`, RFC 3339.
    pub deletion_timestamp: Option<Box<str>>,
    /// `metadata.labels`, by key.
    pub labels: Labels,
    /// `metadata.ownerReferences`.
    pub owner_references: Box<[OwnerReference]>,
    /// The values at the kind's selectable paths, in the order of those paths; taken before pruning. `None`
    /// where the object has no such scalar.
    pub fields: Box<[Option<Box<str>>]>,
    /// The object after pruning: compact JSON, always with apiVersion and kind.
    pub json: Bytes,
    /// A newer version exists upstream but could not be decoded.
    pub stale: bool,
    /// When it was received from upstream, Unix time in nanoseconds; 0 if by a list.
    pub received_unix_nanos: u64,
}

impl Object {
    /// Whether `other` is the same version and says the same. After a restore of etcd, a version that was there
    /// before may come again with other content.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.uid == other.uid
            && self.resource_version == other.resource_version
            && self.stale == other.stale
            && self.json == other.json
            && self.labels == other.labels
            && self.fields == other.fields
            && self.owner_references == other.owner_references
            && self.deletion_timestamp == other.deletion_timestamp
    }

    /// Bytes of memory that it holds where it is shared, itself included, as allocators hand them out.
    pub fn memory(&self) -> usize {
        /// Two counters, in front of what is shared.
        const SHARED: usize = 2 * size_of::<usize>();
        /// What [`Bytes`] keeps beside those that are shared.
        const HANDLE: usize = 3 * size_of::<usize>();
        let owners = self.owner_references.iter();
        let fields = self.fields.iter().flatten();
        allocated(SHARED + size_of::<Self>())
            + allocated(SHARED + self.key.as_str().len())
            + allocated(self.uid.len())
            + allocated(self.resource_version.len())
            + self
                .deletion_timestamp
                .as_ref()
                .map_or(0, |text| allocated(text.len()))
            + self.labels.memory()
            + allocated(size_of_val(&*self.owner_references))
            + owners.map(OwnerReference::memory).sum::<usize>()
            + allocated(size_of_val(&*self.fields))
            + fields.map(|text| allocated(text.len())).sum::<usize>()
            + allocated(self.json.len())
            + allocated(HANDLE)
    }
}

/// What an allocator takes for a piece of this length: a header, multiples of 16, and never less than two of them.
pub(crate) fn allocated(length: usize) -> usize {
    match length {
        0 => 0,
        length => (length + size_of::<usize>()).next_multiple_of(16).max(32),
    }
}

/// Labels, sorted by key.
///
/// Their text stands in one piece: two pieces for each label would take twice the memory, of every object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Key, value, key, value, ...
    text: Box<str>,
    /// Where each of them ends in the text.
    ends: Box<[u32]>,
}

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        let (mut low, mut high) = (0, self.ends.len() / 2);
        while low < high {
            let middle = (low + high) / 2;
            match self.part(middle * 2).cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Some(self.part(middle * 2 + 1)),
            }
        }
        None
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        (0..self.ends.len())
            .step_by(2)
            .map(|at| (self.part(at), self.part(at + 1)))
    }

    fn memory(&self) -> usize {
        allocated(self.text.len()) + allocated(size_of_val(&*self.ends))
    }

    fn part(&self, at: usize) -> &str {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.text[start as usize..self.ends[at] as usize]
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Labels {
    /// Where a key stands twice, the last one counts, as in JSON.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut all: Vec<(K, V)> = pairs.into_iter().collect();
        all.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
        all.reverse();
        all.dedup_by(|later, kept| later.0.as_ref() == kept.0.as_ref());
        all.reverse();
        let parts = || {
            all.iter()
                .flat_map(|(key, value)| [key.as_ref(), value.as_ref()])
        };
        let mut text = String::with_capacity(parts().map(str::len).sum());
        let mut ends = Vec::with_capacity(all.len() * 2);
        for part in parts() {
            text.push_str(part);
            ends.push(text.len() as u32);
        }
        Self {
            text: text.into(),
            ends: ends.into(),
        }
    }
}

/// The parts of an owner reference that controllers read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerReference {
    /// `apps/v1`.
    pub api_version: Box<str>,
    /// `ReplicaSet`.
    pub kind: Box<str>,
    /// Name of the owner, in the same namespace or cluster-scoped.
    pub name: Box<str>,
    /// Uid of the owner.
    pub uid: Box<str>,
    /// Whether it is the managing controller.
    pub controller: bool,
}

impl OwnerReference {
    fn memory(&self) -> usize {
        [&self.api_version, &self.kind, &self.name, &self.uid]
            .into_iter()
            .map(|text| allocated(text.len()))
            .sum()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An object with a name and nothing else.
    pub(crate) fn object(namespace: &str, name: &str) -> Object {
        Object {
            key: Key::new(namespace, name),
            uid: "uid".into(),
            resource_version: "1".into(),
            generation: None,
            deletion_timestamp: None,
            labels: Labels::default(),
            owner_references: Box::default(),
            fields: Box::default(),
            json: Bytes::new(),
            stale: false,
            received_unix_nanos: 0,
        }
    }

    #[test]
    fn labels_are_found_by_key_and_listed_in_order() {
        let labels: Labels = [("b", "2"), ("a", ""), ("c", "3"), ("b", "4"), ("", "0")]
            .into_iter()
            .collect();
        assert_eq!(
            labels.iter().collect::<Vec<_>>(),
            [("", "0"), ("a", ""), ("b", "4"), ("c", "3")]
        );
        for (key, value) in labels.iter() {
            assert_eq!(labels.get(key), Some(value));
        }
        assert_eq!(labels.get("d"), None);
        assert_eq!(labels.get("aa"), None);
        assert_eq!(Labels::default().iter().next(), None);
    }
}
