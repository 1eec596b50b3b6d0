//! Which objects of a kind somebody reads, whatever protocol they ask in.

use super::{KeyRange, Position, Select, Shard, State, WakeScope};
use crate::object::{Key, Object, selector::Selector};

/// Namespaces, or everything, or one object; cut by selectors.
#[derive(Debug)]
pub struct Selection {
    /// In key order; empty means all.
    namespaces: Vec<String>,
    one: Option<Key>,
    selector: Selector,
}

impl Selection {
    /// What is in these namespaces, in all if there are none; where `one` is given, only that. Namespaces are in the
    /// order of keys, and none is there twice.
    pub fn new(namespaces: Vec<String>, one: Option<Key>, selector: Selector) -> Self {
        Self {
            namespaces,
            one,
            selector,
        }
    }

    /// In key order; empty means all.
    pub fn namespaces(&self) -> &[String] {
        &self.namespaces
    }

    /// The only object that there can be, if it is so narrow.
    pub fn one(&self) -> Option<&Key> {
        self.one.as_ref()
    }

    /// What cuts it.
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    /// Whether it is all of the kind.
    pub fn is_everything(&self) -> bool {
        Select::<Object>::is_everything(self)
    }

    /// The digest of what of a shard is selected, in the state of the shard that `position` is of. Only of whole kinds
    /// and whole namespaces, and of the latter only where the shard is still in that state or it is given.
    pub fn digest(
        &self,
        shard: &Shard<Object>,
        position: &Position,
        state: Option<&State<Object>>,
    ) -> Option<u64> {
        if self.one.is_some() || !self.selector.is_everything() {
            return None;
        }
        if self.namespaces.is_empty() || !shard.namespace().is_empty() {
            return Some(position.digest);
        }
        let sum = |state: &State<Object>| {
            let digests = self
                .namespaces
                .iter()
                .map(|one| state.namespaces.digest(one));
            let same = (state.history, state.sequence) == (position.history, position.sequence);
            same.then(|| digests.fold(0, u64::wrapping_add))
        };
        match state {
            Some(state) => sum(state),
            None => {
                let now = shard.peek()?;
                sum(&now)
            }
        }
    }

    /// Whether an object is in the scope, and selected.
    pub fn has(&self, object: &Object) -> bool {
        self.in_scope(&object.key) && self.matches(object)
    }

    /// Which publications concern it.
    pub fn wake_scopes(&self) -> Vec<WakeScope> {
        let scope = |range| match range {
            KeyRange::All => WakeScope::All,
            KeyRange::Namespace(namespace) => WakeScope::Namespace(namespace),
            KeyRange::One(key) => WakeScope::One(key),
        };
        self.ranges().into_iter().map(scope).collect()
    }

    /// Whether a shard has any of it.
    pub fn touches(&self, shard: &Shard<Object>) -> bool {
        let namespace = shard.namespace();
        namespace.is_empty()
            || match &self.one {
                Some(one) => one.namespace() == namespace,
                None => self.has_namespace(namespace),
            }
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|one| one == namespace)
    }
}

impl Select<Object> for Selection {
    fn ranges(&self) -> Vec<KeyRange> {
        if let Some(one) = &self.one {
            return vec![KeyRange::One(one.clone())];
        }
        if self.namespaces.is_empty() {
            return vec![KeyRange::All];
        }
        let namespaces = self.namespaces.iter().cloned();
        namespaces.map(KeyRange::Namespace).collect()
    }

    fn in_scope(&self, key: &Key) -> bool {
        let named = match &self.one {
            Some(one) => one == key,
            None => self.has_namespace(key.namespace()),
        };
        named && self.selector.matches_key(key)
    }

    fn matches(&self, object: &Object) -> bool {
        self.selector.matches(object)
    }

    fn is_filter(&self) -> bool {
        self.selector.is_filter()
    }

    fn is_everything(&self) -> bool {
        self.one.is_none() && self.namespaces.is_empty() && self.selector.is_everything()
    }
}
