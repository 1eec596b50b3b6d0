//! Which objects of a shard a request is about.

use crate::{
    cache::{KeyRange, Select, WakeScope},
    object::{Key, Object, selector::Selector},
};

/// A namespace, or everything, cut by selectors.
#[derive(Debug)]
pub(super) struct Scope {
    /// Empty for all, and for what lives in none.
    namespace: String,
    /// The only one that there can be.
    one: Option<Key>,
    selector: Selector,
}

impl Scope {
    /// `namespace` is the path's. A selector that names the only object that there can be narrows it further.
    pub(super) fn new(namespace: &str, namespaced: bool, selector: Selector) -> Self {
        let namespace = match namespace {
            "" if namespaced => selector.namespace().unwrap_or_default(),
            namespace => namespace,
        };
        let one = selector
            .name()
            .filter(|_| namespaced != namespace.is_empty())
            // A key has no other slash; a name with one is nobody's.
            .filter(|name| !name.contains('/'))
            .map(|name| Key::new(namespace, name));
        Self {
            namespace: namespace.to_owned(),
            one,
            selector,
        }
    }

    /// What is to be woken for.
    pub(super) fn wake_scope(&self) -> WakeScope {
        match (&self.one, self.namespace.as_str()) {
            (Some(one), _) => WakeScope::One(one.clone()),
            (None, "") => WakeScope::All,
            (None, namespace) => WakeScope::Namespace(namespace.to_owned()),
        }
    }

    /// Whether there are selectors, be they on the name only.
    pub(super) fn is_selected(&self) -> bool {
        !self.selector.is_everything()
    }

    /// Whether it is about one object at most.
    pub(super) fn is_one(&self) -> bool {
        self.one.is_some()
    }

    /// Whether an object is in it and selected.
    pub(super) fn has(&self, object: &Object) -> bool {
        self.in_scope(&object.key) && self.matches(object)
    }
}

impl Select<Object> for Scope {
    fn ranges(&self) -> Vec<KeyRange> {
        vec![match (&self.one, self.namespace.as_str()) {
            (Some(one), _) => KeyRange::One(one.clone()),
            (None, "") => KeyRange::All,
            (None, namespace) => KeyRange::Namespace(namespace.to_owned()),
        }]
    }

    fn in_scope(&self, key: &Key) -> bool {
        let named = match &self.one {
            Some(one) => one == key,
            None => self.namespace.is_empty() || self.namespace == key.namespace(),
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
        self.one.is_none() && self.namespace.is_empty() && self.selector.is_everything()
    }
}
