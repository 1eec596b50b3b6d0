//! Waiting for what is not there yet: a first list, or a version. Never for ever.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{read::Resource, status::Status};
use crate::{
    cache::{Doorbell, Phase, Shard, State},
    object::Object,
};

/// The state of a shard, once it is complete.
pub(super) async fn complete(
    resource: &Resource,
    shard: &Arc<Shard<Object>>,
    patience: Duration,
) -> Result<Arc<State<Object>>, Status> {
    ready(shard, patience, || servable(shard))
        .await
        .ok_or_else(|| not_complete(resource, shard))
}

/// The state of a shard, once it is at this revision or past it.
pub(super) async fn revision(
    shard: &Arc<Shard<Object>>,
    revision: u64,
    patience: Duration,
) -> Result<Arc<State<Object>>, Status> {
    let reached = || servable(shard).filter(|state| state.revision >= revision);
    ready(shard, patience, reached).await.ok_or_else(|| {
        let current = shard.state().map_or(0, |state| state.revision);
        Status::too_large_version(revision, current)
    })
}

/// The state of a shard that is complete and whose kind is still there.
pub(super) fn servable(shard: &Shard<Object>) -> Option<Arc<State<Object>>> {
    if shard.status().phase == Phase::Removed {
        return None;
    }
    shard.state()
}

fn not_complete(resource: &Resource, shard: &Shard<Object>) -> Status {
    let status = shard.status();
    let message = format!(
        "{} cannot be read yet: {} ({})",
        resource.identity.resource(),
        status.phase.as_str(),
        status.message
    );
    Status::too_many_requests(message, Duration::from_secs(1))
}

/// What `found` gives, as soon as it gives something; `None` when the patience is over.
async fn ready<R>(
    shard: &Arc<Shard<Object>>,
    patience: Duration,
    found: impl Fn() -> Option<R>,
) -> Option<R> {
    if let Some(found) = found() {
        return Some(found);
    }
    let bell = Arc::new(Doorbell::default());
    let _subscription = shard.subscribe(Vec::new(), &bell);
    let search = async {
        loop {
            if let Some(found) = found() {
                return found;
            }
            bell.rung().await;
        }
    };
    timeout(patience, search).await.ok()
}
