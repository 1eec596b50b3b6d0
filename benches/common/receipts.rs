//! When a version was received, by a direct watch and by what is compared with it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use futures::{AsyncBufReadExt, StreamExt};
use serde::Deserialize;

use crate::cluster::{Cluster, Error};

/// Receipts by resourceVersion. Cloning shares them.
#[derive(Clone, Default)]
pub struct Receipts(Arc<Mutex<HashMap<String, Instant>>>);

/// A line of a watch, of which only the version is read.
#[derive(Deserialize)]
struct Line {
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}

impl Receipts {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().expect("nobody panics with it")
    }

    /// The first time counts: what is compared may tell of a version again.
    pub fn note(&self, version: String, at: Instant) {
        self.lock().entry(version).or_insert(at);
    }

    /// All there are, and begins anew.
    pub fn take(&self) -> HashMap<String, Instant> {
        std::mem::take(&mut *self.lock())
    }

    /// Until this version was received.
    pub async fn wait_for(&self, version: &str) -> Result<(), Error> {
        for _ in 0..1000 {
            if self.lock().contains_key(version) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(format!("version {version} was not received within 10 s").into())
    }

    /// Notes what a watch of its own receives, of `path` on the API server.
    pub async fn watch_directly(&self, cluster: &Cluster, path: &str) -> Result<(), Error> {
        let client = cluster.client().await;
        let path = format!("{path}?watch=1&timeoutSeconds=600");
        let request = http::Request::get(path).body(Vec::new())?;
        let mut lines = client.request_stream(request).await?.lines();
        let receipts = self.clone();
        tokio::spawn(async move {
            while let Some(Ok(line)) = lines.next().await {
                let at = Instant::now();
                if let Ok(line) = serde_json::from_str::<Line>(&line) {
                    receipts.note(line.object.metadata.resource_version, at);
                }
            }
        });
        Ok(())
    }
}

/// Milliseconds from the one to the other; below zero where that came first.
pub fn ms(from: Instant, to: Instant) -> f64 {
    let gap = to.saturating_duration_since(from).as_secs_f64();
    (gap - from.saturating_duration_since(to).as_secs_f64()) * 1e3
}
