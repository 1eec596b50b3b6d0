//! What the world sees of the store: the objects that its controllers look at, kept up with by the change index.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::{
    Store,
    fields::{list, text},
};
use crate::{
    cache::{Change, State},
    object::{Key, Object},
};

/// The kinds that are looked at, in the order in which their changes are taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum What {
    Node,
    Deployment,
    ReplicaSet,
    StatefulSet,
    Pod,
    Service,
    Slice,
    Acko,
    Ako,
}

impl What {
    pub(super) const ALL: [Self; 9] = [
        Self::Node,
        Self::Deployment,
        Self::ReplicaSet,
        Self::StatefulSet,
        Self::Pod,
        Self::Service,
        Self::Slice,
        Self::Acko,
        Self::Ako,
    ];

    /// As the store calls it.
    pub(super) fn resource(self) -> &'static str {
        match self {
            Self::Node => "nodes",
            Self::Deployment => "deployments.apps",
            Self::ReplicaSet => "replicasets.apps",
            Self::StatefulSet => "statefulsets.apps",
            Self::Pod => "pods",
            Self::Service => "services",
            Self::Slice => "endpointslices.discovery.k8s.io",
            Self::Acko => "aerospikeclusters.acko.io",
            Self::Ako => "aerospikeclusters.asdb.aerospike.com",
        }
    }
}

/// An object that has changed since the last look.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) what: What,
    pub(super) key: Key,
    /// As it was, if it was there.
    pub(super) before: Option<Value>,
}

/// The objects of one kind.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    objects: BTreeMap<Key, Value>,
    /// By the uid of their controller.
    owned: BTreeMap<String, BTreeSet<Key>>,
    sequence: u64,
    /// Which incarnation of the kind this is of: a definition may come again.
    kind: usize,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct View {
    mirrors: BTreeMap<What, Mirror>,
}

impl View {
    /// Takes up what has changed in the store.
    pub(super) fn sync(&mut self, store: &Store) -> Vec<Changed> {
        let mut changed = Vec::new();
        for what in What::ALL {
            let mirror = self.mirrors.entry(what).or_default();
            let served = store.find(what.resource());
            let kind = served
                .as_ref()
                .map_or(0, |it| std::sync::Arc::as_ptr(&it.kind).addr());
            let state = served.and_then(|it| it.kind.shards().first()?.state());
            let keys = match state {
                Some(state) => mirror.follow(&state, kind),
                None => mirror.drain(kind),
            };
            changed.extend(
                keys.into_iter()
                    .map(|(key, before)| Changed { what, key, before }),
            );
        }
        changed
    }

    pub(super) fn put(&mut self, what: What, key: &Key, object: Option<Value>) {
        self.mirrors.entry(what).or_default().put(key, object);
    }

    pub(super) fn all(&self, what: What) -> impl Iterator<Item = (&Key, &Value)> {
        self.mirrors
            .get(&what)
            .into_iter()
            .flat_map(|it| &it.objects)
    }

    pub(super) fn get(&self, what: What, key: &Key) -> Option<&Value> {
        self.mirrors.get(&what)?.objects.get(key)
    }

    /// The objects that this one controls.
    pub(super) fn owned<'a>(&'a self, what: What, owner: &Value) -> Vec<(&'a Key, &'a Value)> {
        let uid = text(owner, &["metadata", "uid"]);
        let Some(mirror) = self.mirrors.get(&what) else {
            return Vec::new();
        };
        let keys = mirror.owned.get(uid).into_iter().flatten();
        keys.filter_map(|key| mirror.objects.get_key_value(key))
            .collect()
    }
}

impl Mirror {
    fn follow(&mut self, state: &State<Object>, kind: usize) -> Vec<(Key, Option<Value>)> {
        let mut changed = Vec::new();
        if kind != self.kind || state.tombstone_floor > self.sequence {
            // What was deleted meanwhile is not remembered any more.
            let gone: Vec<Key> = self.objects.keys().cloned().collect();
            for key in gone.into_iter().filter(|key| state.get(key).is_none()) {
                let before = self.put(&key, None);
                changed.push((key, before));
            }
            self.sequence = if kind == self.kind { self.sequence } else { 0 };
            self.kind = kind;
        }
        for (_, change) in state.changes.range(self.sequence + 1..) {
            let (key, object) = match change {
                Change::Live(key) => (key.clone(), state.get(key)),
                Change::Tombstone { key, .. } => (key.clone(), state.get(key)),
            };
            let after = object.and_then(|it| serde_json::from_slice(&it.json).ok());
            let before = self.put(&key, after);
            changed.push((key, before));
        }
        self.sequence = state.sequence;
        changed
    }

    fn drain(&mut self, kind: usize) -> Vec<(Key, Option<Value>)> {
        self.kind = kind;
        self.sequence = 0;
        self.owned.clear();
        let all = std::mem::take(&mut self.objects).into_iter();
        all.map(|(key, object)| (key, Some(object))).collect()
    }

    fn put(&mut self, key: &Key, object: Option<Value>) -> Option<Value> {
        if let Some(owner) = object.as_ref().and_then(controller) {
            let owner = text(owner, &["uid"]).to_owned();
            self.owned.entry(owner).or_default().insert(key.clone());
        }
        let before = match object.clone() {
            Some(object) => self.objects.insert(key.clone(), object),
            None => self.objects.remove(key),
        };
        let uid = |object: &Option<Value>| {
            object
                .as_ref()
                .and_then(controller)
                .map(|it| text(it, &["uid"]).to_owned())
        };
        if let Some(owner) = uid(&before).filter(|owner| Some(owner) != uid(&object).as_ref())
            && let Some(keys) = self.owned.get_mut(&owner)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.owned.remove(&owner);
            }
        }
        before
    }
}

/// The reference to the object that controls this one.
pub(super) fn controller(object: &Value) -> Option<&Value> {
    let mut owners = list(object, &["metadata", "ownerReferences"]).iter();
    owners.find(|it| it.get("controller") == Some(&true.into()))
}
