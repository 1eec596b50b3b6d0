//! One cached object: a thin handle of identity and pruned JSON.
//!
//! Not a typed struct and not a `DynamicObject`: a typed Pod of 9 KB takes 37-39 KB and five times as long to
//! build. Whoever wants fields decodes those from [`Object::json`]; everybody else passes the bytes on.

use bytes::Bytes;

pub mod key;

pub use key::Key;

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

/// Labels, sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Labels {
    /// Where a key stands twice, the last one counts, as in JSON.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut all: Vec<(Box<str>, Box<str>)> = pairs
            .into_iter()
            .map(|(k, v)| (k.into(), v.into()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.reverse();
        all.dedup_by(|later, kept| later.0 == kept.0);
        all.reverse();
        Self(all.into())
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
