//! Which objects belong to what: pods to their ReplicaSet, EndpointSlices to their Service.
//!
//! An index beside the cache, fed by the feed, so that one change of one pod does not make its owner walk all pods
//! of the namespace. It only says where to look: what an object is, and whether it still belongs there, is read
//! from the cache.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    cache::Kind,
    feed::Handle,
    object::{Key, Object},
    readiness::Part,
};

/// See the module's documentation.
#[derive(Debug)]
pub struct Members {
    kind: Arc<Kind>,
    group: fn(&Object) -> Option<String>,
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    /// Whether what was there at first has been taken.
    filled: bool,
    groups: HashMap<String, BTreeSet<Key>>,
    members: HashMap<Key, Member>,
}

#[derive(Debug)]
struct Member {
    group: String,
    /// What was thought of it, when it had this uid and version.
    part: Option<(Box<str>, Box<str>, Part)>,
}

impl Members {
    /// Of a kind, grouped by what `group` says of an object.
    pub fn new(kind: Arc<Kind>, group: fn(&Object) -> Option<String>) -> Self {
        Self {
            kind,
            group,
            index: Mutex::default(),
        }
    }

    /// Learns of a change, before anybody looks for it here.
    pub fn observe(&self, handle: &Handle) {
        let group = handle.object().and_then(|object| (self.group)(object));
        self.index().put(handle.key(), group);
    }

    /// Takes all that the cache has, once: whoever asks before the feed has told of everything gets it all the same.
    pub fn fill(&self) {
        let mut index = self.index();
        if std::mem::replace(&mut index.filled, true) {
            return;
        }
        for state in self.kind.shards().iter().filter_map(|shard| shard.state()) {
            for (key, slot) in &state.objects {
                index.put(key, (self.group)(&slot.item));
            }
        }
    }

    /// The objects of a group, as the cache has them now, in the order of their keys.
    pub fn objects(&self, group: &str) -> Vec<Arc<Object>> {
        let keys: Vec<Key> = {
            let index = self.index();
            index
                .groups
                .get(group)
                .into_iter()
                .flatten()
                .cloned()
                .collect()
        };
        let objects = keys.iter().filter_map(|key| find(&self.kind, key));
        objects
            .filter(|object| (self.group)(object).as_deref() == Some(group))
            .collect()
    }

    /// What is to be thought of each object of a group. `judge` is asked only for what has changed since.
    pub fn parts(&self, group: &str, judge: impl Fn(&Object) -> Part) -> Vec<Part> {
        let part = |object: Arc<Object>| {
            let is_it = |(uid, version, _): &&(Box<str>, Box<str>, Part)| {
                **uid == *object.uid && **version == *object.resource_version && !object.stale
            };
            let known = {
                let index = self.index();
                let member = index.members.get(&object.key);
                let known = member.and_then(|member| member.part.as_ref()).filter(is_it);
                known.map(|(_, _, part)| part.clone())
            };
            known.unwrap_or_else(|| {
                let part = judge(&object);
                if let Some(member) = self.index().members.get_mut(&object.key) {
                    let version = object.resource_version.clone();
                    member.part = Some((object.uid.clone(), version, part.clone()));
                }
                part
            })
        };
        self.objects(group).into_iter().map(part).collect()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn put(&mut self, key: &Key, group: Option<String>) {
        let known = self.members.get(key);
        if known.map(|member| &member.group) == group.as_ref() {
            return;
        }
        if let Some(left) = self.members.remove(key)
            && let Some(keys) = self.groups.get_mut(&left.group)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.groups.remove(&left.group);
            }
        }
        if let Some(group) = group {
            let keys = self.groups.entry(group.clone()).or_default();
            keys.insert(key.clone());
            let member = Member { group, part: None };
            self.members.insert(key.clone(), member);
        }
    }
}

/// The uid of the object's managing owner.
pub fn owner_uid(object: &Object) -> Option<String> {
    let owner = object
        .owner_references
        .iter()
        .find(|owner| owner.controller)?;
    Some(owner.uid.to_string())
}

/// An object as the cache has it now.
pub fn find(kind: &Kind, key: &Key) -> Option<Arc<Object>> {
    let mut states = kind.shards().iter().filter_map(|shard| shard.state());
    states.find_map(|state| state.get(key).cloned())
}

/// The managing owner of what the handle is of, if it is of this kind.
pub fn owner(handle: &Handle, kind: &Kind) -> Option<Key> {
    use kube::Resource;
    let identity = kind.identity()?;
    let owners = handle.meta().owner_references.as_deref()?;
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    let group = owner
        .api_version
        .split_once('/')
        .map_or("", |(group, _)| group);
    (owner.kind == identity.kind && group == identity.group)
        .then(|| Key::new(handle.key().namespace(), &owner.name))
}
