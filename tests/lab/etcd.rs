//! What is stored upstream, and the API servers before it: each has its own copy, served by `kubeapi`, and may lag.
//!
//! The store itself is a map with revisions and a log of every change, and knows nothing of the cache: it is what
//! everything else is held against. A restore puts it back to an earlier revision and begins a new history.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use informerd::{
    cache::{Cause, History as Continuity, Identity, Kind, Limits, Phase, Unreadable, Writer},
    kubeapi::{self, Body, KubeApi, Other, Proven, Read, Resource, Status, Wanted},
    object::{Decoder, Key, Object, PruneRules, Pruner, Selectable},
    shutdown::Shutdown,
};
use serde_json::json;
use tokio::time::Instant;

use crate::cluster::Seen;

/// In an object's text: this generation is one that the network makes unreadable on its way.
pub const UNREADABLE: &str = r#""generation":7777777"#;

/// A change, under its revision.
#[derive(Clone, Debug)]
struct Change {
    revision: u64,
    key: Key,
    uid: String,
    labels: BTreeMap<String, String>,
    generation: u64,
    /// `None` where it went.
    json: Option<Bytes>,
    created: bool,
}

/// One object as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Of this incarnation.
    pub uid: String,
    /// Of its last change.
    pub revision: u64,
    /// As in the text.
    pub labels: BTreeMap<String, String>,
    /// Of the labels: another one whenever they change, as if they were the spec.
    generation: u64,
    /// All of it.
    pub json: Bytes,
    /// It cannot be decoded by whoever reads it over the network.
    pub unreadable: bool,
}

/// What is stored of one kind. Clones are the same.
#[derive(Clone)]
pub struct Etcd(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    revision: u64,
    /// Before any restore.
    highest: u64,
    uids: u64,
    objects: BTreeMap<Key, Stored>,
    log: Vec<Change>,
    /// Logs of what was before a restore.
    void: Vec<Vec<Change>>,
    /// Which objects could not be read, from which revision up to which.
    unreadable: Vec<(String, u64, u64)>,
}

/// What an object is to have.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Its labels.
    pub labels: Vec<(&'static str, String)>,
    /// Its taints, for a node.
    pub taints: Vec<&'static str>,
    /// Something that changes and that nobody selects by.
    pub beat: u64,
    /// It cannot be decoded.
    pub unreadable: bool,
}

impl Etcd {
    /// Empty, at a revision that is not the first.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            revision: 100,
            ..Inner::default()
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nobody panics while holding it")
    }

    /// Of the last write to anything.
    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// What is there.
    pub fn objects(&self) -> BTreeMap<Key, Stored> {
        self.lock().objects.clone()
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Stored> {
        self.lock().objects.get(key).cloned()
    }

    /// Somebody writes objects of other kinds.
    pub fn pass(&self, writes: u64) {
        self.lock().revision += writes;
    }

    /// The same, until the revision is higher than it ever was, before a restore too.
    pub fn pass_all(&self) {
        let mut inner = self.lock();
        inner.revision = inner.revision.max(inner.highest) + 1;
    }

    /// Creates an object, or changes the one that is there. Its revision.
    pub fn put(&self, key: &Key, content: &Content) -> u64 {
        let mut inner = self.lock();
        inner.revision += 1;
        let revision = inner.revision;
        let before = inner.objects.get(key).cloned();
        let uid = match &before {
            Some(before) => before.uid.clone(),
            None => {
                inner.uids += 1;
                format!("uid-{}", inner.uids)
            }
        };
        let labels: BTreeMap<String, String> = content
            .labels
            .iter()
            .map(|(label, value)| ((*label).to_owned(), value.clone()))
            .collect();
        let generation = match &before {
            Some(before) => before.generation + u64::from(before.labels != labels),
            None => 1,
        };
        let mut metadata = json!({
            "name": key.name(), "uid": uid, "resourceVersion": revision.to_string(),
            "generation": if content.unreadable { 7_777_777 } else { generation }, "labels": labels,
        });
        if !key.namespace().is_empty() {
            metadata["namespace"] = key.namespace().into();
        }
        let taints: Vec<_> = content
            .taints
            .iter()
            .map(|key| json!({"key": key, "effect": "NoSchedule"}))
            .collect();
        let json = json!({
            "metadata": metadata,
            "spec": {"nodeName": "node-1", "taints": taints},
            "status": {"phase": "Running", "beat": content.beat},
        });
        let json = Bytes::from(json.to_string());
        let unreadable = content.unreadable;
        match (unreadable, before.as_ref().is_some_and(|it| it.unreadable)) {
            (true, false) => {
                let from = (key.as_str().to_owned(), revision, u64::MAX);
                inner.unreadable.push(from);
            }
            (false, true) => inner.readable_again(key),
            _ => {}
        }
        let stored = Stored {
            uid: uid.clone(),
            revision,
            labels: labels.clone(),
            generation,
            json: json.clone(),
            unreadable,
        };
        inner.objects.insert(key.clone(), stored);
        inner.log.push(Change {
            revision,
            key: key.clone(),
            uid,
            labels,
            generation,
            json: Some(json),
            created: before.is_none(),
        });
        revision
    }

    /// Deletes an object, if it is there.
    pub fn delete(&self, key: &Key) {
        let mut inner = self.lock();
        let Some(stored) = inner.objects.remove(key) else {
            return;
        };
        inner.revision += 1;
        let revision = inner.revision;
        if stored.unreadable {
            inner.readable_again(key);
        }
        inner.log.push(Change {
            revision,
            key: key.clone(),
            uid: stored.uid,
            labels: stored.labels,
            generation: stored.generation,
            json: None,
            created: false,
        });
    }

    /// Puts everything back to what it was at `revision`.
    pub fn restore(&self, revision: u64) {
        let mut inner = self.lock();
        let log = std::mem::take(&mut inner.log);
        let kept: Vec<_> = log
            .iter()
            .filter(|change| change.revision <= revision)
            .cloned()
            .collect();
        inner.void.push(log);
        let lost = inner.revision;
        inner.highest = inner.highest.max(lost);
        for (_, _, to) in &mut inner.unreadable {
            if *to == u64::MAX {
                *to = lost + 1;
            }
        }
        inner.objects.clear();
        inner.revision = revision;
        for change in &kept {
            match &change.json {
                Some(json) => {
                    let stored = Stored {
                        uid: change.uid.clone(),
                        revision: change.revision,
                        labels: change.labels.clone(),
                        generation: change.generation,
                        json: json.clone(),
                        unreadable: is_unreadable(json),
                    };
                    inner.objects.insert(change.key.clone(), stored);
                }
                None => drop(inner.objects.remove(&change.key)),
            }
        }
        inner.log = kept;
        let unreadable = inner.objects.iter().filter(|(_, stored)| stored.unreadable);
        let unreadable: Vec<_> = unreadable
            .map(|(key, stored)| (key.as_str().to_owned(), stored.revision, u64::MAX))
            .collect();
        inner.unreadable.extend(unreadable);
    }

    /// What a direct watch would have seen: of each history, the present one last.
    pub fn seen(&self) -> Vec<Vec<Seen>> {
        let inner = self.lock();
        let of = |log: &Vec<Change>| log.iter().map(Change::seen).collect();
        inner.void.iter().chain([&inner.log]).map(of).collect()
    }

    /// Objects that could not be read, by key, from which revision on, and up to the one that made them readable.
    pub fn unreadable(&self) -> Vec<(String, u64, u64)> {
        self.lock().unreadable.clone()
    }

    fn after(&self, at: usize) -> (Vec<Change>, u64) {
        let inner = self.lock();
        (inner.log[at..].to_vec(), inner.revision)
    }
}

impl Inner {
    fn readable_again(&mut self, key: &Key) {
        let revision = self.revision;
        let mut all = self.unreadable.iter_mut().rev();
        if let Some(last) = all.find(|(of, ..)| of == key.as_str()) {
            last.2 = revision;
        }
    }
}

impl Change {
    fn seen(&self) -> Seen {
        let event = match (&self.json, self.created) {
            (None, _) => "DELETED",
            (Some(_), true) => "ADDED",
            (Some(_), false) => "MODIFIED",
        };
        Seen {
            event,
            key: self.key.as_str().to_owned(),
            uid: self.uid.clone(),
            resource_version: self.revision.to_string(),
            labels: self.labels.clone(),
        }
    }
}

fn is_unreadable(json: &[u8]) -> bool {
    memchr::memmem::find(json, UNREADABLE.as_bytes()).is_some()
}

/// An API server: a copy of what is stored that may be behind. Clones are the same.
#[derive(Clone)]
pub struct ApiServer {
    copy: Arc<ServedCopy>,
    api: KubeApi,
}

/// The copy, and what is asked of it.
struct ServedCopy {
    etcd: Etcd,
    resource: Arc<Resource>,
    own: Mutex<Own>,
}

struct Own {
    writer: Writer<Object>,
    decoder: Decoder,
    /// How much of the log it has taken in.
    taken: usize,
    lags: bool,
}

/// A kind that an API server serves.
#[derive(Clone, Copy, Debug)]
pub enum Serves {
    /// In namespaces.
    Pods,
    /// Without.
    Nodes,
}

impl ApiServer {
    /// Over this store.
    pub fn new(etcd: &Etcd, serves: Serves) -> Self {
        let (kind, plural, namespaced) = match serves {
            Serves::Pods => ("Pod", "pods", true),
            Serves::Nodes => ("Node", "nodes", false),
        };
        let identity = Identity {
            group: String::new(),
            version: "v1".into(),
            kind: kind.into(),
            plural: plural.into(),
            singular: kind.to_lowercase(),
            short_names: Vec::new(),
            namespaced,
            selectable: Selectable::builtin("", plural),
        };
        let pruner = Pruner::new(&PruneRules::nothing()).expect("nothing hits nothing");
        let decoder = Decoder::new("v1", kind, namespaced, &pruner, &identity.selectable);
        let writer = Writer::new("", Limits::default(), Instant::now().into_std());
        let kind = Kind::new(plural, false, false, 0, vec![writer.shard().clone()]);
        kind.set_identity(identity.clone());
        let resource = Resource {
            identity: Arc::new(identity),
            kind: Arc::new(kind),
            verbs: vec!["get", "list", "watch"],
            categories: Vec::new(),
            columns: None,
            custom: false,
            subresources: Vec::new(),
            excluded: Vec::new(),
            schema: None,
            warnings: Vec::new(),
        };
        let copy = Arc::new(ServedCopy {
            etcd: etcd.clone(),
            resource: Arc::new(resource),
            own: Mutex::new(Own {
                writer,
                decoder,
                taken: 0,
                lags: false,
            }),
        });
        let api = KubeApi::new(Arc::new(ReadOf(copy.clone())), Shutdown::new());
        let server = Self { copy, api };
        server.begin_anew(Continuity::Same);
        server
    }

    /// Answers a request.
    pub async fn answer(&self, request: Request<Body>) -> Response<Body> {
        self.api.handle(request, kubeapi::Peer::default()).await
    }

    /// While it lags it takes in nothing by itself.
    pub fn lag(&self, lags: bool) {
        self.copy.own().lags = lags;
        self.follow();
    }

    /// Takes in what is new, unless it lags.
    pub fn follow(&self) {
        if !self.copy.own().lags {
            self.copy.catch_up();
        }
    }

    /// Reads everything from the store: after a restore, its watches find their history gone.
    pub fn begin_anew(&self, history: Continuity) {
        let (log, revision) = self.copy.etcd.after(0);
        let mut own = self.copy.own();
        own.taken = log.len();
        let objects = self.copy.etcd.objects();
        let all = objects.values().map(|it| own.decode(&it.json)).collect();
        let now = Instant::now().into_std();
        let everything = Unreadable::default();
        own.writer.replace(all, &everything, revision, history, now);
        own.writer.set_status(Phase::Live, "", "");
    }
}

impl Own {
    fn decode(&self, json: &[u8]) -> Arc<Object> {
        let object = self.decoder.decode(json, 0);
        Arc::new(object.expect("the store holds objects"))
    }
}

impl ServedCopy {
    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().expect("nobody panics while holding it")
    }

    fn catch_up(&self) {
        let mut own = self.own();
        let (changes, revision) = self.etcd.after(own.taken);
        own.taken += changes.len();
        let now = Instant::now().into_std();
        for change in changes {
            match &change.json {
                Some(json) => {
                    let object = own.decode(json);
                    own.writer.upsert(object, change.revision);
                }
                None => {
                    let (uid, revision) = (Some(&*change.uid), change.revision);
                    own.writer
                        .delete(&change.key, uid, revision, Cause::Deleted);
                }
            }
            own.writer.publish(now);
        }
        if own.writer.revision() < revision {
            own.writer.advance(revision);
            own.writer.publish(now);
        }
        own.writer.prove(now);
    }
}

/// What the protocol is served over.
struct ReadOf(Arc<ServedCopy>);

impl Read for ReadOf {
    fn resources(&self) -> Arc<[Arc<Resource>]> {
        [self.0.resource.clone()].into()
    }

    fn version(&self) -> BoxFuture<'_, Result<Bytes, Status>> {
        Box::pin(async { Ok(Bytes::from_static(br#"{"gitVersion": "v1.36.0"}"#)) })
    }

    fn most_recent<'a>(&'a self, of: Wanted<'a>) -> BoxFuture<'a, Result<Proven, Status>> {
        // Whoever lags asks the store.
        self.0.catch_up();
        let state = of.shard.state().ok_or_else(Status::no_such_path);
        Box::pin(async move { state.map(Proven::of) })
    }

    fn other(&self, _: Request<Body>, _: Other) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async { kubeapi::text(StatusCode::NOT_FOUND, "404 page not found\n") })
    }
}
