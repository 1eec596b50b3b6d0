//! A list on its way: nobody sees it before it is complete.

use std::{collections::HashMap, sync::Arc, time::Instant};

use crate::{
    cache::{State, Unreadable},
    object::{DecodeError, Key, Object},
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Pending {
    /// When it was asked for: it proves nothing about later.
    pub(super) begun: Instant,
    /// The highest version among its items.
    pub(super) highest: u64,
    /// What is cached now, to share what has not changed rather than hold it twice.
    held: Option<Arc<State<Object>>>,
    items: HashMap<Key, Arc<Object>>,
    unreadable: Unreadable,
}

impl Pending {
    pub(super) fn new(begun: Instant, held: Option<Arc<State<Object>>>) -> Self {
        Self {
            begun,
            highest: 0,
            held,
            items: HashMap::new(),
            unreadable: Unreadable::default(),
        }
    }

    /// It is there.
    pub(super) fn insert(&mut self, object: Object) {
        let number = object.resource_version.parse().unwrap_or_default();
        self.highest = self.highest.max(number);
        self.unreadable.keys.remove(&object.key);
        let held = self.held.as_ref().and_then(|state| state.get(&object.key));
        let same = held.filter(|held| held.says_the_same(&object));
        let item = same.cloned().unwrap_or_else(|| Arc::new(object));
        self.items.insert(item.key.clone(), item);
    }

    /// It is there, but cannot be read.
    pub(super) fn insert_unreadable(&mut self, error: &DecodeError) {
        let Some(key) = &error.key else {
            self.unreadable.unnamed = true;
            return;
        };
        match self.items.get_mut(key) {
            // What was read of it before is better than nothing, as long as it says that it is old.
            Some(item) => {
                *item = Arc::new(Object {
                    stale: true,
                    ..Object::clone(item)
                })
            }
            None => {
                self.unreadable.keys.insert(key.clone());
            }
        }
    }

    /// It is gone again.
    pub(super) fn remove(&mut self, key: &Key) {
        self.items.remove(key);
        self.unreadable.keys.remove(key);
    }

    pub(super) fn into_parts(self) -> (Vec<Arc<Object>>, Unreadable) {
        (self.items.into_values().collect(), self.unreadable)
    }
}
