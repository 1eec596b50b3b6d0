//! The demo's consumers: each a client of its own, over a socket, that keeps a copy of one kind.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures::StreamExt;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    client::{Client, Mirror, WatchEvent},
    proto::{Scope, View, WatchObjectsRequest},
};

/// What they read, in turn: most look at pods, as in a real cluster.
const KINDS: [&str; 6] = [
    "pods",
    "deployments.apps",
    "pods",
    "endpointslices.discovery.k8s.io",
    "configmaps",
    "pods",
];

/// All of them.
pub(super) struct Consumers {
    all: Vec<Arc<Consumer>>,
    server: String,
    tasks: JoinSet<()>,
}

/// One of them, as far as others see it.
#[derive(Debug)]
pub(super) struct Consumer {
    /// What it reads.
    pub(super) kind: &'static str,
    events: AtomicU64,
    bytes: AtomicU64,
    /// Of its copy, once that is complete.
    digest: AtomicU64,
    complete: AtomicBool,
    /// The newest version that it has seen, and when that was.
    seen: Mutex<Vec<(u64, Instant)>>,
    failed: Mutex<Option<String>>,
}

impl Consumers {
    pub(super) fn new(server: SocketAddr, count: usize) -> Result<Self, crate::client::Error> {
        // That the address is one is found out now, not in a task.
        Client::connect(&server.to_string())?;
        // At least one for the probe, which writes config maps.
        let kinds = std::iter::once("configmaps").chain(KINDS.into_iter().cycle());
        let consumer = |kind| {
            Arc::new(Consumer {
                kind,
                events: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
                digest: AtomicU64::new(0),
                complete: AtomicBool::new(false),
                seen: Mutex::default(),
                failed: Mutex::default(),
            })
        };
        Ok(Self {
            all: kinds.take(count.max(1)).map(consumer).collect(),
            server: server.to_string(),
            tasks: JoinSet::new(),
        })
    }

    /// Lets them begin, if they have not.
    pub(super) fn start(&mut self) {
        if !self.tasks.is_empty() {
            return;
        }
        for consumer in &self.all {
            let (consumer, server) = (consumer.clone(), self.server.clone());
            self.tasks.spawn(async move { consumer.run(&server).await });
        }
    }

    pub(super) fn all(&self) -> &[Arc<Consumer>] {
        &self.all
    }

    /// How many have a complete copy.
    pub(super) fn open(&self) -> usize {
        self.all.iter().filter(|it| it.is_complete()).count()
    }

    pub(super) fn events(&self) -> u64 {
        self.sum(|it| &it.events)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.sum(|it| &it.bytes)
    }

    fn sum(&self, of: impl Fn(&Consumer) -> &AtomicU64) -> u64 {
        self.all
            .iter()
            .map(|it| of(it).load(Ordering::Relaxed))
            .sum()
    }

    /// What the one that reads config maps has seen since this was last asked.
    pub(super) fn seen(&self) -> Vec<(u64, Instant)> {
        let first = self.all.first();
        let seen = first
            .map(|it| std::mem::take(&mut *it.seen.lock().unwrap_or_else(PoisonError::into_inner)));
        seen.unwrap_or_default()
    }
}

impl Consumer {
    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Of the copy, as docs/digest.md has it.
    pub(super) fn digest(&self) -> u64 {
        self.digest.load(Ordering::Acquire)
    }

    /// Why it has given up, if it has.
    pub(super) fn failed(&self) -> Option<String> {
        self.failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn run(&self, server: &str) {
        let client = match Client::connect(server) {
            Ok(client) => client,
            Err(error) => return self.fail(&error),
        };
        let scope = Scope {
            resource: self.kind.to_owned(),
            ..Scope::default()
        };
        let mut watch = client.watch(WatchObjectsRequest {
            scope: Some(scope),
            view: View::Full.into(),
            ..WatchObjectsRequest::default()
        });
        let mut mirror = Mirror::new();
        while let Some(event) = watch.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => return self.fail(&error),
            };
            mirror.apply(&event);
            self.note(&event);
            if matches!(event, WatchEvent::Mark { .. } | WatchEvent::ResetEnd { .. }) {
                self.digest.store(mirror.digest(), Ordering::Release);
                self.complete.store(mirror.is_complete(), Ordering::Release);
            }
        }
    }

    fn note(&self, event: &WatchEvent) {
        match event {
            WatchEvent::Upsert { object, .. } => {
                self.events.fetch_add(1, Ordering::Relaxed);
                self.bytes
                    .fetch_add(object.object.len() as u64, Ordering::Relaxed);
                if self.kind == "configmaps"
                    && let Ok(version) = object.resource_version.parse()
                {
                    let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.push((version, Instant::now()));
                    // Nobody asks those that are not the first.
                    let over = seen.len().saturating_sub(1000);
                    seen.drain(..over);
                }
            }
            WatchEvent::Delete { .. } => {
                self.events.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    fn fail(&self, error: &crate::client::Error) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
    }
}
