//! What is true, by the API server's own word: a direct watch beside the daemon's, and exact lists of the past.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::TryStreamExt;
use kube::{
    Api, Client, ResourceExt,
    api::{
        ApiResource, DynamicObject, ListParams, PartialObjectMeta, VersionMatch, WatchEvent,
        WatchParams,
    },
};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::Error;

/// One event of a direct watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// "ADDED", "MODIFIED" or "DELETED".
    pub event: &'static str,
    /// `namespace/name`, or `name`.
    pub key: String,
    /// Of the object.
    pub uid: String,
    /// Of the event.
    pub resource_version: String,
    /// Of the object, with the event.
    pub labels: BTreeMap<String, String>,
}

/// An object of an exact list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Its uid.
    pub uid: String,
    /// Its version, at or before the list's.
    pub resource_version: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// All of it but apiVersion and kind, which the items of a list do not have.
    pub object: serde_json::Value,
}

/// The objects of a kind exactly as they were at a revision, by key: what a stream's fold at that revision is to
/// equal. History reaches back to the last compaction (5 minutes, unless a test compacts).
pub async fn list_exact(
    client: &Client,
    kind: &ApiResource,
    namespace: Option<&str>,
    revision: &str,
) -> Result<BTreeMap<String, Listed>, Error> {
    let api = api(client, kind, namespace);
    let mut params = ListParams::default()
        .matching(VersionMatch::Exact)
        .at(revision)
        .limit(500);
    let mut listed = BTreeMap::new();
    loop {
        let page = api.list(&params).await?;
        if page.metadata.resource_version.as_deref() != Some(revision) {
            return Err(format!("asked for revision {revision}, got {:?}", page.metadata).into());
        }
        for object in page.items {
            let entry = Listed {
                uid: object.uid().unwrap_or_default(),
                resource_version: object.resource_version().unwrap_or_default(),
                labels: object.labels().clone(),
                object: serde_json::to_value(&object)?,
            };
            listed.insert(key(&object), entry);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = ListParams::default().limit(500).continue_token(&token),
            None => return Ok(listed),
        }
    }
}

/// Records what the API server tells of a kind, event by event. Goes on by itself after a cut.
#[derive(Debug)]
pub struct DirectWatch {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    record: Mutex<Record>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Record {
    seen: Vec<Seen>,
    /// Why the record has ended.
    ended: Option<String>,
}

impl DirectWatch {
    /// Begins at `revision`, or now. When this returns, every later write will be recorded.
    pub async fn start(
        client: &Client,
        kind: &ApiResource,
        namespace: Option<&str>,
        revision: Option<&str>,
    ) -> Result<Self, Error> {
        let api = api(client, kind, namespace);
        let revision = match revision {
            Some(revision) => revision.to_owned(),
            None => {
                let page = api.list_metadata(&ListParams::default().limit(1)).await?;
                page.metadata.resource_version.unwrap_or_default()
            }
        };
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(record(api, revision, Arc::clone(&shared)));
        Ok(Self { shared, task })
    }

    /// What was recorded so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().seen.clone()
    }

    /// Why no more is recorded, for example because the revision is gone (410); `None` while all is well.
    pub fn ended(&self) -> Option<String> {
        self.shared.lock().ended.clone()
    }

    /// Waits until an event with this version, or its record's end. False where neither comes `within`.
    pub async fn wait_for(&self, resource_version: &str, within: Duration) -> bool {
        let there = async {
            loop {
                let changed = self.shared.changed.notified();
                {
                    let record = self.shared.lock();
                    let seen = |s: &Seen| s.resource_version == resource_version;
                    if record.seen.iter().rev().any(seen) || record.ended.is_some() {
                        return;
                    }
                }
                changed.await;
            }
        };
        timeout(within, there).await.is_ok()
    }
}

impl Drop for DirectWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record
            .lock()
            .expect("nobody panics while holding the record")
    }
}

async fn record(api: Api<DynamicObject>, mut revision: String, shared: Arc<Shared>) {
    loop {
        let watch = api.watch_metadata(&WatchParams::default(), &revision).await;
        let ended = match watch {
            Ok(events) => follow(events, &mut revision, &shared).await,
            Err(kube::Error::Api(status)) if status.code == 410 => Some(status.message),
            Err(_) => None,
        };
        if let Some(why) = ended {
            shared.lock().ended = Some(why);
            shared.changed.notify_waiters();
            return;
        }
        // The API server is away, or the watch was cut: it can be continued.
        sleep(Duration::from_millis(100)).await;
    }
}

/// Until the stream ends. Returns why, where it cannot be continued.
async fn follow(
    events: impl futures::Stream<Item = kube::Result<WatchEvent<PartialObjectMeta<DynamicObject>>>>,
    revision: &mut String,
    shared: &Shared,
) -> Option<String> {
    let mut events = std::pin::pin!(events);
    while let Ok(Some(event)) = events.try_next().await {
        let (event, object) = match event {
            WatchEvent::Added(object) => ("ADDED", object),
            WatchEvent::Modified(object) => ("MODIFIED", object),
            WatchEvent::Deleted(object) => ("DELETED", object),
            WatchEvent::Bookmark(bookmark) => {
                *revision = bookmark.metadata.resource_version;
                continue;
            }
            WatchEvent::Error(status) => {
                return Some(format!("{} {}", status.code, status.message));
            }
        };
        *revision = object.resource_version().unwrap_or_default();
        shared.lock().seen.push(Seen {
            event,
            key: key(&object),
            uid: object.uid().unwrap_or_default(),
            resource_version: revision.clone(),
            labels: object.labels().clone(),
        });
        shared.changed.notify_waiters();
    }
    None
}

fn api(client: &Client, kind: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, kind),
        None => Api::all_with(client.clone(), kind),
    }
}

fn key(object: &impl ResourceExt) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}
