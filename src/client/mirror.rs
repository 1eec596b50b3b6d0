//! A local copy of what a watch covers.
//!
//! Resets are built beside the copy and swapped in when they are complete, so a reader never sees half of one, and
//! one that is cut leaves no trace. What a [`Watch`](super::Watch) tells stands, so nothing is ever taken back.

use std::collections::{BTreeMap, btree_map::Entry};

use bytes::Bytes;

use super::{List, WatchEvent};
use crate::{
    digest,
    object::Key,
    proto::{Freshness, Object},
};

/// What a [`Watch`](super::Watch) has told so far, folded.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    objects: Objects,
    resets: Vec<Reset>,
    token: Bytes,
    freshness: Option<Freshness>,
    complete: bool,
}

/// What an event changed in the copy.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object was not held before.
    Added(Object),
    /// The object was held in another version.
    Modified(Object),
    /// The object is no longer held; this is what was.
    Deleted(Object),
}

/// Objects by namespace and name.
pub type Objects = BTreeMap<(String, String), Object>;

/// A state under way that will replace what is held of its namespaces.
#[derive(Clone, Debug)]
struct Reset {
    namespaces: Vec<String>,
    objects: Objects,
}

impl Mirror {
    /// An empty copy.
    pub fn new() -> Self {
        Self::default()
    }

    /// Folds one event in, and tells what that changed. All events of a watch must come, in order.
    pub fn apply(&mut self, event: &WatchEvent) -> Vec<Change> {
        match event {
            WatchEvent::ResetBegin {
                namespaces,
                freshness,
                ..
            } => {
                self.resets.retain(|reset| reset.namespaces != *namespaces);
                let namespaces = namespaces.clone();
                self.resets.push(Reset {
                    namespaces,
                    objects: Objects::new(),
                });
                self.freshness = Some(freshness.clone());
                Vec::new()
            }
            WatchEvent::Upsert { object, .. } => match self.reset_of(&object.namespace) {
                Some(reset) => {
                    upsert(&mut reset.objects, object.clone());
                    Vec::new()
                }
                None => upsert(&mut self.objects, object.clone()),
            },
            WatchEvent::Delete {
                namespace,
                name,
                uid,
                ..
            } => {
                let key = (namespace.clone(), name.clone());
                match self.reset_of(namespace) {
                    Some(reset) => {
                        delete(&mut reset.objects, key, uid);
                        Vec::new()
                    }
                    None => delete(&mut self.objects, key, uid).into_iter().collect(),
                }
            }
            WatchEvent::ResetEnd {
                namespaces,
                token,
                freshness,
            } => {
                self.note(token, freshness);
                self.swap(namespaces)
            }
            WatchEvent::Mark {
                token, freshness, ..
            } => {
                self.note(token, freshness);
                Vec::new()
            }
            WatchEvent::Reconnecting { .. } => {
                self.resets.clear();
                Vec::new()
            }
        }
    }

    /// What is held.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// One object; `namespace` is empty for a cluster-scoped one.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Object> {
        self.objects.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Whether the initial state has been complete once.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Where a watch resumes that continues this copy; empty before the first one was told.
    pub fn token(&self) -> &Bytes {
        &self.token
    }

    /// What the last mark said about the kind.
    pub fn freshness(&self) -> Option<&Freshness> {
        self.freshness.as_ref()
    }

    /// The digest of what is held, as docs/digest.md has it.
    pub fn digest(&self) -> u64 {
        self.objects
            .values()
            .map(digest_of)
            .fold(0, u64::wrapping_add)
    }

    /// Like [`Mirror::digest`], of one namespace only: what a shard's digest is compared with.
    pub fn digest_of_namespace(&self, namespace: &str) -> u64 {
        let of = self
            .objects
            .values()
            .filter(|object| object.namespace == namespace);
        of.map(digest_of).fold(0, u64::wrapping_add)
    }

    fn note(&mut self, token: &Option<Bytes>, freshness: &Freshness) {
        if let Some(token) = token {
            self.token = token.clone();
        }
        self.freshness = Some(freshness.clone());
    }

    /// The reset under way that an object of this namespace belongs to.
    fn reset_of(&mut self, namespace: &str) -> Option<&mut Reset> {
        self.resets
            .iter_mut()
            .rev()
            .find(|reset| covers(&reset.namespaces, namespace))
    }

    /// Puts a complete reset in the place of what was held of its namespaces.
    fn swap(&mut self, namespaces: &[String]) -> Vec<Change> {
        let at = self
            .resets
            .iter()
            .position(|reset| reset.namespaces == namespaces);
        let Some(at) = at else { return Vec::new() };
        let new = self.resets.remove(at).objects;
        self.complete |= self.resets.is_empty();
        let gone = self.objects.extract_if(.., |key, _| {
            covers(namespaces, &key.0) && !new.contains_key(key)
        });
        let mut changes: Vec<_> = gone.map(|(_, object)| Change::Deleted(object)).collect();
        for object in new.into_values() {
            changes.extend(upsert(&mut self.objects, object));
        }
        changes
    }
}

impl From<List> for Mirror {
    /// A copy that begins with a list, to be continued by a watch from its token.
    fn from(list: List) -> Self {
        let key = |object: &Object| (object.namespace.clone(), object.name.clone());
        Self {
            objects: list
                .objects
                .into_iter()
                .map(|object| (key(&object), object))
                .collect(),
            resets: Vec::new(),
            token: list.token,
            freshness: Some(list.freshness),
            complete: true,
        }
    }
}

fn covers(namespaces: &[String], namespace: &str) -> bool {
    namespaces.is_empty() || namespaces.iter().any(|it| it == namespace)
}

fn digest_of(object: &Object) -> u64 {
    let key = Key::new(&object.namespace, &object.name);
    digest::entry(key.as_str(), &object.uid, &object.resource_version)
}

fn upsert(objects: &mut Objects, object: Object) -> Vec<Change> {
    match objects.entry((object.namespace.clone(), object.name.clone())) {
        Entry::Vacant(place) => {
            place.insert(object.clone());
            vec![Change::Added(object)]
        }
        Entry::Occupied(place) if *place.get() == object => Vec::new(),
        Entry::Occupied(mut place) => {
            let old = place.insert(object.clone());
            if old.uid == object.uid {
                vec![Change::Modified(object)]
            } else {
                vec![Change::Deleted(old), Change::Added(object)]
            }
        }
    }
}

/// Only the object with this uid: a repeated delete must not take its successor of the same name.
fn delete(objects: &mut Objects, key: (String, String), uid: &str) -> Option<Change> {
    match objects.entry(key) {
        Entry::Occupied(held) if held.get().uid == uid => Some(Change::Deleted(held.remove())),
        _ => None,
    }
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
