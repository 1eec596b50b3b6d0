//! What is stored: one lock around all resources, one revision over all writes, as etcd has it.
//!
//! Each resource's objects are in a [`Kind`] of the cache, whose one writer is here, so that readers and watchers
//! never meet the lock: they load states and walk them, as they do in the daemon. This file is the room below the
//! verbs ([`super::verbs`]): it looks up, commits, and knows who owns whom.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use fastrand::Rng;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{sync::Notify, time::Instant};

use super::{
    definition::{self, Definition},
    fields::{default, list, set, text},
    refusal::Refusal,
    types::TYPES,
};
use crate::{
    cache::{Cause, History, Kind, Limits, Phase, Unreadable, Writer},
    kubeapi::Schema,
    object::{Decoder, Key, Object, PruneRules, Pruner},
};

/// A writable Kubernetes in memory. Clones are the same.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Mutex<Inner>>,
    /// What is served at the moment, for readers.
    served: Arc<ArcSwap<Vec<Arc<Served>>>>,
    /// The last write.
    revision: Arc<AtomicU64>,
    /// Told of each write.
    changed: Arc<Notify>,
    clock: Clock,
}

/// A resource as it is served.
#[derive(Debug)]
pub struct Served {
    /// What it is.
    pub definition: Arc<Definition>,
    /// Its objects.
    pub kind: Arc<Kind>,
    /// Of a CRD: its `additionalPrinterColumns`, as the CRD has them.
    pub columns: Option<Value>,
    /// Of a CRD: its `openAPIV3Schema`.
    pub schema: Option<Value>,
}

impl Served {
    /// What the kind is made of, as far as anybody knows.
    pub(super) fn schema(&self) -> Option<Schema> {
        let identity = &self.definition.identity;
        let Some(own) = &self.schema else {
            return TYPES.schema(&identity.api_version(), &identity.kind);
        };
        let name = format!("{}.{}.{}", identity.group, identity.version, identity.kind);
        let mut own = own.clone();
        for field in ["apiVersion", "kind"] {
            default(&mut own, &["properties", field], json!({"type": "string"}));
        }
        default(
            &mut own,
            &["properties", "metadata"],
            json!({"type": "object"}),
        );
        Some(Schema {
            components: [(name.clone(), own)].into_iter().collect(),
            name,
        })
    }
}

/// What a CRD says of how its kind is shown.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) columns: Option<Value>,
    pub(super) schema: Option<Value>,
}

/// How a store is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// What uids, generated names and the like are drawn from.
    pub seed: u64,
    /// Somebody plays kubelet: a pod on a node is marked when it is deleted, and goes when the kubelet says so.
    pub kubelet: bool,
}

/// Names an object among all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// `deployments.apps`.
    pub resource: Arc<str>,
    /// Namespace and name.
    pub key: Key,
}

/// See the module's documentation. What only the verbs touch.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) resources: BTreeMap<Arc<str>, Resource>,
    /// Who names an owner's uid.
    dependents: HashMap<Box<str>, BTreeSet<Id>>,
    /// What a field manager last applied, by the object's uid and the manager's name.
    pub(super) applied: HashMap<(Box<str>, String), Value>,
    pub(super) rng: Rng,
    pub(super) kubelet: bool,
    pub(super) addresses: u64,
    clock: Clock,
    served: Arc<ArcSwap<Vec<Arc<Served>>>>,
    revision: Arc<AtomicU64>,
    changed: Arc<Notify>,
}

/// One resource and the hand that changes it.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) definition: Arc<Definition>,
    served: Arc<Served>,
    writer: Writer<Object>,
    decoder: Decoder,
}

/// The time of day, on tokio's clock, so that a test may pause it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    base: (Instant, Timestamp),
}

impl Clock {
    fn new() -> Self {
        Self {
            base: (Instant::now(), Timestamp::now()),
        }
    }

    fn now(&self) -> Timestamp {
        // The far future, which nobody sees, is the present.
        let now = self.base.1.checked_add(self.base.0.elapsed());
        now.unwrap_or(self.base.1)
    }

    /// So many seconds from now: RFC 3339, to the second.
    fn text(&self, later: i64) -> String {
        let second = self.now().as_second().saturating_add(later);
        Timestamp::from_second(second)
            .unwrap_or(self.base.1)
            .to_string()
    }
}

impl Store {
    /// With the built-in kinds, and the namespaces that every cluster has.
    pub fn new(settings: Settings) -> Self {
        let served = Arc::new(ArcSwap::from_pointee(Vec::new()));
        let revision = Arc::new(AtomicU64::new(1));
        let changed = Arc::new(Notify::new());
        let clock = Clock::new();
        let mut inner = Inner {
            resources: BTreeMap::new(),
            dependents: HashMap::new(),
            applied: HashMap::new(),
            rng: Rng::with_seed(settings.seed),
            kubelet: settings.kubelet,
            addresses: 0,
            clock,
            served: served.clone(),
            revision: revision.clone(),
            changed: changed.clone(),
        };
        for definition in definition::builtin() {
            inner.serve(definition, Shown::default());
        }
        let store = Self {
            inner: Arc::new(Mutex::new(inner)),
            served,
            revision,
            changed,
            clock,
        };
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let namespace = serde_json::json!({"metadata": {"name": name}});
            // It cannot fail: the names are good and new.
            let made = store.create(
                "namespaces",
                "",
                namespace,
                &super::verbs::Options::default(),
            );
            debug_assert!(made.is_ok(), "{made:?}");
        }
        store
    }

    /// What is served now: built-in kinds first, each group's in order.
    pub fn served(&self) -> Arc<Vec<Arc<Served>>> {
        self.served.load_full()
    }

    /// The resource of this name (`deployments.apps`), if it is served.
    pub fn find(&self, resource: &str) -> Option<Arc<Served>> {
        let served = self.served();
        let mut all = served.iter();
        all.find(|it| it.definition.resource() == resource).cloned()
    }

    /// An object as it is stored.
    pub fn get(&self, resource: &str, key: &Key) -> Option<Arc<Object>> {
        let served = self.find(resource)?;
        let state = served.kind.shards().first()?.state()?;
        state.get(key).cloned()
    }

    /// Given a permit for each write; for one who waits.
    pub fn changed(&self) -> &Notify {
        &self.changed
    }

    /// The time of day in here.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The same as objects have it: RFC 3339, to the second.
    pub fn now_text(&self) -> String {
        self.clock.text(0)
    }

    /// The revision of the last write.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Tells readers of every kind that it is complete up to the last write, whichever kind that was of.
    pub fn advance(&self) {
        let mut inner = self.lock();
        let revision = self.revision();
        for resource in inner.resources.values_mut() {
            resource.advance(revision);
        }
    }

    /// The same for one kind.
    pub fn advance_one(&self, resource: &str) {
        let mut inner = self.lock();
        let revision = self.revision();
        if let Some(resource) = inner.resources.get_mut(resource) {
            resource.advance(revision);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Serves a resource from now on, with nothing in it.
    pub(super) fn serve(&mut self, definition: Arc<Definition>, shown: Shown) {
        let identity = &definition.identity;
        // Rules that leave everything as it is hit no identity.
        let Ok(pruner) = Pruner::new(&PruneRules::nothing()) else {
            return;
        };
        let now = std::time::Instant::now();
        let mut writer = Writer::new("", Limits::default(), now);
        let revision = self.revision();
        writer.replace(
            Vec::new(),
            &Unreadable::default(),
            revision,
            History::Same,
            now,
        );
        writer.set_status(Phase::Live, "", "");
        let name: Arc<str> = definition.resource().into();
        let kind = Kind::new(&name, false, false, 0, vec![writer.shard().clone()]);
        kind.set_identity(identity.clone());
        let decoder = Decoder::new(
            &identity.api_version(),
            &identity.kind,
            identity.namespaced,
            &pruner,
            &identity.selectable,
        );
        let served = Arc::new(Served {
            definition: definition.clone(),
            kind: Arc::new(kind),
            columns: shown.columns,
            schema: shown.schema,
        });
        let resource = Resource {
            definition,
            served,
            writer,
            decoder,
        };
        self.resources.insert(name, resource);
        self.publish_served();
    }

    /// What is served under this name changes in how it is treated or shown; its objects stay.
    pub(super) fn redefine(&mut self, definition: Arc<Definition>, shown: Shown) {
        if let Some(resource) = self.resources.get_mut(&*definition.resource()) {
            resource.definition = definition.clone();
            resource.served = Arc::new(Served {
                definition,
                kind: resource.served.kind.clone(),
                columns: shown.columns,
                schema: shown.schema,
            });
            self.publish_served();
        }
    }

    /// Serves a resource no more. It must be empty.
    pub(super) fn retire(&mut self, name: &str) {
        if let Some(mut resource) = self.resources.remove(name) {
            resource.writer.retire(std::time::Instant::now());
            let why = "the definition of the kind was deleted";
            resource
                .writer
                .set_status(Phase::Removed, "KindRemoved", why);
            resource.writer.unsync();
            self.publish_served();
        }
    }

    fn publish_served(&self) {
        let mut all: Vec<_> = self
            .resources
            .values()
            .map(|it| it.served.clone())
            .collect();
        all.sort_by_key(|it| {
            let identity = &it.definition.identity;
            (
                it.definition.custom,
                identity.group.clone(),
                identity.plural.clone(),
            )
        });
        self.served.store(Arc::new(all));
    }

    pub(super) fn resource(&self, name: &str) -> Result<&Resource, Refusal> {
        self.resources.get(name).ok_or_else(Refusal::no_such_path)
    }

    /// An object, decoded.
    pub(super) fn read(&self, id: &Id) -> Option<Value> {
        let resource = self.resources.get(&id.resource)?;
        let object = resource.held(&id.key)?;
        serde_json::from_slice(&object.json).ok()
    }

    pub(super) fn holds(&self, id: &Id) -> bool {
        let resource = self.resources.get(&id.resource);
        resource.is_some_and(|resource| resource.held(&id.key).is_some())
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    pub(super) fn now(&self, later: i64) -> String {
        self.clock.text(later)
    }

    /// Stores an object under the next revision, and returns it as it is stored.
    pub(super) fn commit(&mut self, id: &Id, mut object: Value) -> Result<Value, Refusal> {
        let revision = self.revision() + 1;
        set(
            &mut object,
            &["metadata", "resourceVersion"],
            revision.to_string(),
        );
        let resource = self
            .resources
            .get_mut(&id.resource)
            .ok_or_else(|| Refusal::internal("the resource is gone"))?;
        let json = serde_json::to_vec(&object).map_err(|e| Refusal::internal(e.to_string()))?;
        let decoded = resource
            .decoder
            .decode(&json, 0)
            .map_err(|error| Refusal::bad_request(error.to_string()))?;
        let before = resource.held(&id.key);
        let after = Arc::new(decoded);
        let owners = |object: &Object| -> Vec<Box<str>> {
            let owners = object.owner_references.iter();
            owners.map(|owner| owner.uid.clone()).collect()
        };
        let (had, has) = (
            before.as_deref().map(owners).unwrap_or_default(),
            owners(&after),
        );
        resource.writer.upsert(after, revision);
        self.revision.store(revision, Ordering::Release);
        resource.writer.publish(std::time::Instant::now());
        self.changed.notify_one();
        for owner in had.iter().filter(|owner| !has.contains(owner)) {
            self.disown(owner, id);
        }
        for owner in has {
            self.dependents.entry(owner).or_default().insert(id.clone());
        }
        Ok(object)
    }

    /// Takes an object out under the next revision.
    pub(super) fn expunge(&mut self, id: &Id) -> Option<Arc<Object>> {
        let revision = self.revision() + 1;
        let resource = self.resources.get_mut(&id.resource)?;
        let object = resource.held(&id.key)?;
        resource
            .writer
            .delete(&id.key, None, revision, Cause::Deleted);
        self.revision.store(revision, Ordering::Release);
        resource.writer.publish(std::time::Instant::now());
        self.changed.notify_one();
        for owner in &object.owner_references {
            self.disown(&owner.uid, id);
        }
        self.applied.retain(|(uid, _), _| *uid != object.uid);
        Some(object)
    }

    fn disown(&mut self, owner: &str, id: &Id) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(id);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    /// Who names this uid as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Id> {
        let found = self.dependents.get(uid).into_iter().flatten();
        found.cloned().collect()
    }

    /// The object that an owner reference means, if it is there. A kind that is not served has none.
    pub(super) fn owner(&self, namespace: &str, reference: &Value) -> Option<Id> {
        let (resource, id) = self.named(namespace, reference)?;
        let held = resource.held(&id.key)?;
        (*held.uid == *text(reference, &["uid"])).then_some(id)
    }

    /// Where an owner reference points, whether or not anything is there; none if the kind is not served.
    pub(super) fn named(&self, namespace: &str, reference: &Value) -> Option<(&Resource, Id)> {
        let (api_version, kind) = (text(reference, &["apiVersion"]), text(reference, &["kind"]));
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let (name, resource) = self.resources.iter().find(|(_, resource)| {
            let identity = &resource.definition.identity;
            identity.kind == kind && identity.group == group
        })?;
        let namespaced = resource.definition.identity.namespaced;
        let namespace = if namespaced { namespace } else { "" };
        let key = Key::new(namespace, text(reference, &["name"]));
        let id = Id {
            resource: name.clone(),
            key,
        };
        Some((resource, id))
    }

    /// Every object of a namespace, in all resources.
    pub(super) fn content(&self, namespace: &str) -> Vec<Id> {
        let mut content = Vec::new();
        for (name, resource) in &self.resources {
            if !resource.definition.identity.namespaced {
                continue;
            }
            let keys = resource.keys(namespace);
            content.extend(keys.into_iter().map(|key| Id {
                resource: name.clone(),
                key,
            }));
        }
        content
    }

    /// A random version 4 uid.
    pub(super) fn uid(&mut self) -> String {
        let bits = self.rng.u128(..);
        let bits = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
        let hex = format!("{bits:032x}");
        let parts = [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ];
        parts.join("-")
    }

    /// The end of a generated name.
    pub(super) fn suffix(&mut self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let letter = |rng: &mut Rng| char::from(LETTERS[rng.usize(..LETTERS.len())]);
        (0..5).map(|_| letter(&mut self.rng)).collect()
    }
}

impl Resource {
    fn advance(&mut self, revision: u64) {
        let now = std::time::Instant::now();
        if self.writer.revision() < revision {
            self.writer.advance(revision);
            self.writer.publish(now);
        }
        self.writer.prove(now);
    }

    pub(super) fn held(&self, key: &Key) -> Option<Arc<Object>> {
        self.writer.shard().state()?.get(key).cloned()
    }

    /// The keys of a namespace; all of them where it is empty.
    pub(super) fn keys(&self, namespace: &str) -> Vec<Key> {
        let Some(state) = self.writer.shard().state() else {
            return Vec::new();
        };
        let start = Key::new(namespace, "");
        let all = state.objects.range(start..).map(|(key, _)| key);
        let inside = |key: &&Key| namespace.is_empty() || key.namespace() == namespace;
        all.take_while(inside).cloned().collect()
    }
}

/// Whether an object waits for somebody to finish with it.
pub(super) fn has_finalizers(object: &Value) -> bool {
    !list(object, &["metadata", "finalizers"]).is_empty()
}
