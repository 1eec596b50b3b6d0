//! The Rust client as a consumer: it finds another daemon by itself whenever it must, and what it tells is folded into a
//! copy as its users do.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use futures::StreamExt;
use informerd::{
    client::{Client, Mirror},
    proto::WatchObjectsRequest,
};
use tokio::task::JoinHandle;
use tonic::transport::Endpoint;

use crate::{validators::positions, world::Replicas};

/// A copy that the client keeps; it ends when dropped.
pub struct Mirrored {
    told: Arc<Mutex<Told>>,
    task: JoinHandle<()>,
}

/// What it has come to.
#[derive(Default)]
pub struct Told {
    /// What is held.
    pub copy: Mirror,
    /// How often what was told was not what a daemon's digest says.
    pub mismatches: u64,
    /// The error that it ended with.
    pub over: Option<String>,
}

impl Mirrored {
    /// Watches through whichever daemon it gets hold of.
    pub fn start(replicas: Replicas, request: WatchObjectsRequest) -> Self {
        let client = Client::through("a replica", move || {
            let replicas = replicas.clone();
            let connector = tower::service_fn(move |_| {
                let connection: io::Result<_> = replicas.any().connect();
                std::future::ready(connection)
            });
            Endpoint::from_static("http://replica").connect_with_connector_lazy(connector)
        });
        let told = Arc::<Mutex<Told>>::default();
        let own = told.clone();
        let task = tokio::spawn(async move {
            let mut watch = client.watch(request);
            while let Some(event) = watch.next().await {
                let mut told = own.lock().expect("nobody panics while holding it");
                match event {
                    Ok(event) => drop(told.copy.apply(&event)),
                    Err(error) => told.over = Some(error.to_string()),
                }
                told.mismatches = watch.mismatches();
            }
        });
        Self { told, task }
    }

    /// What it has come to by now.
    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("nobody panics while holding it")
    }

    /// Whether its copy is complete, and of this revision or a later one in so many shards.
    pub fn has_reached(&self, revision: u64, shards: usize) -> bool {
        let told = self.told();
        let at = positions(told.copy.freshness());
        told.copy.is_complete() && at.len() == shards && at.values().all(|at| *at >= revision)
    }
}

impl Drop for Mirrored {
    fn drop(&mut self) {
        self.task.abort();
    }
}
