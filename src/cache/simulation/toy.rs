//! The least that a cache can hold, and what may be wanted of it.

use super::super::*;
use super::Set;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Toy {
    pub(super) key: Key,
    pub(super) uid: String,
    pub(super) version: String,
    pub(super) label: u8,
    pub(super) stale: bool,
}

impl Item for Toy {
    fn key(&self) -> &Key {
        &self.key
    }

    fn uid(&self) -> &str {
        &self.uid
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn size(&self) -> usize {
        100
    }

    fn is_stale(&self) -> bool {
        self.stale
    }

    fn to_stale(&self) -> Self {
        Self {
            stale: true,
            ..self.clone()
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Wants {
    pub(super) namespaces: Vec<&'static str>,
    pub(super) label: Option<u8>,
    /// Of each toy only its label is seen, and what cannot be seen is not told.
    pub(super) label_only: bool,
    pub(super) every: bool,
}

impl Select<Toy> for Wants {
    fn ranges(&self) -> Vec<KeyRange> {
        if self.namespaces.is_empty() {
            return vec![KeyRange::All];
        }
        self.namespaces
            .iter()
            .map(|&namespace| KeyRange::Namespace(namespace.to_owned()))
            .collect()
    }

    fn in_scope(&self, key: &Key) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(&key.namespace())
    }

    fn matches(&self, item: &Toy) -> bool {
        self.label.is_none_or(|label| item.label == label)
    }

    fn is_filter(&self) -> bool {
        self.label.is_some()
    }

    fn is_everything(&self) -> bool {
        self.namespaces.is_empty() && self.label.is_none() && !self.label_only
    }

    fn differs(&self, held: &Toy, now: &Toy) -> bool {
        self.shown(held) != self.shown(now)
    }

    fn is_every(&self) -> bool {
        self.every
    }
}

impl Wants {
    pub(super) fn of(&self, set: &Set) -> Set {
        let wanted = set
            .iter()
            .filter(|(key, item)| self.in_scope(key) && self.matches(item));
        wanted
            .map(|(key, item)| (key.clone(), item.clone()))
            .collect()
    }

    /// As the consumer sees it.
    pub(super) fn shown(&self, item: &Toy) -> Toy {
        let mut shown = item.clone();
        if self.label_only {
            shown.version.clear();
        }
        shown
    }

    pub(super) fn all_shown(&self, set: &Set) -> Vec<Toy> {
        set.values().map(|item| self.shown(item)).collect()
    }

    /// What a change is to a consumer who is told of each: what goes, and what comes.
    pub(super) fn told(&self, change: &super::upstream::Logged) -> (Option<Key>, Option<Toy>) {
        let wanted = |item: &&Toy| self.in_scope(&item.key) && self.matches(item);
        let before = change.before.as_ref().filter(wanted);
        let after = change.after.as_ref().filter(wanted);
        match (before, after) {
            (Some(before), None) => (Some(before.key.clone()), None),
            (Some(before), Some(after)) if !self.differs(before, after) => (None, None),
            (_, after) => (None, after.cloned()),
        }
    }
}
