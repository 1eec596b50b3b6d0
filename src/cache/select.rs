//! What a consumer wants of a shard.

use super::Item;
use crate::object::Key;

/// What a consumer wants of a shard: where to look, and which of what is there.
pub trait Select<T: Item>: Send + Sync {
    /// The parts of the keys to look at, in key order.
    fn ranges(&self) -> Vec<KeyRange>;

    /// Whether the key is in the scope. Must agree with `ranges`.
    fn in_scope(&self, key: &Key) -> bool;

    /// Whether an item in the scope is selected.
    fn matches(&self, item: &T) -> bool;

    /// Whether `matches` depends on what may change about an item.
    fn is_filter(&self) -> bool;

    /// Whether every item there is is selected, and every change of it told.
    fn is_everything(&self) -> bool;

    /// Whether a consumer that holds `held` has something to learn from `now`, which has the same uid.
    fn differs(&self, held: &T, now: &T) -> bool {
        held.version() != now.version() || held.is_stale() != now.is_stale()
    }

    /// Whether each change is told, or else none: nothing is folded, and a change that was not seen ends it.
    fn is_every(&self) -> bool {
        false
    }
}

/// A contiguous part of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    /// Every key.
    All,
    /// Every key of a namespace.
    Namespace(String),
    /// One key.
    One(Key),
}

impl KeyRange {
    pub(super) fn contains(&self, key: &Key) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(namespace) => key.namespace() == namespace,
            Self::One(one) => key == one,
        }
    }

    /// The least key that may be inside.
    pub(super) fn start(&self) -> Option<Key> {
        match self {
            Self::All => None,
            Self::Namespace(namespace) => Some(Key::new(namespace, "")),
            Self::One(one) => Some(one.clone()),
        }
    }
}
