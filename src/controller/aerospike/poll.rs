//! Reads pods from the API server instead of the shared watch, where the mode says so: one LIST per cluster and
//! interval. Counted, because it is what informerd is there to save.

use http::Request;
use kube::core::{Request as ApiRequest, params::ListParams};
use metrics::counter;

use super::facts::{ClusterFacts, ClusterId, PodFacts, SetFacts, read_sets};
use crate::{
    cache::{Identity, Kind},
    object::{Decoder, Object, PruneRules, Pruner},
    upstream::{Upstream, UpstreamError, Verb},
};

/// A cluster has at most a few dozen pods.
const MAX_BYTES: usize = 16 << 20;

/// Asks the API server.
#[derive(Clone)]
pub(super) struct Poller(pub(super) Upstream);

/// Why that brought nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum PollError {
    #[error("the API server does not serve it")]
    NotServed,
    #[error("the cluster's object is gone, or is another one")]
    Gone,
    #[error("{0}")]
    Upstream(#[from] UpstreamError),
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
    #[error("the request cannot be made: {0}")]
    Request(String),
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Poller")
    }
}

impl Poller {
    /// The cluster's pods.
    pub(super) async fn pods(
        &self,
        kind: &Kind,
        id: &ClusterId,
    ) -> Result<Vec<PodFacts>, PollError> {
        let read = async {
            let body = self.list(kind, id).await?;
            PodFacts::read_list(&body).map_err(unreadable)
        };
        counted("pods", read.await)
    }

    /// The cluster's StatefulSets.
    pub(super) async fn sets(
        &self,
        kind: &Kind,
        id: &ClusterId,
    ) -> Result<Vec<SetFacts>, PollError> {
        let read = async {
            let body = self.list(kind, id).await?;
            read_sets(&body).map_err(unreadable)
        };
        counted("statefulsets", read.await)
    }

    /// The cluster's own object; `None` where there is none.
    pub(super) async fn cluster(
        &self,
        kind: &Kind,
        id: &ClusterId,
    ) -> Result<Option<(Object, ClusterFacts)>, PollError> {
        let read = async {
            let identity = kind.identity().ok_or(PollError::NotServed)?;
            let request = ApiRequest::new(path(&identity, id))
                .get(id.key.name(), &Default::default())
                .map_err(|error| PollError::Request(error.to_string()))?;
            let body = match self.0.fetch(Verb::Get, request, MAX_BYTES).await {
                Ok((_, body)) => body,
                Err(error) if error.status().is_some_and(|it| it.is_not_found()) => {
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            };
            let facts = ClusterFacts::read(&body).map_err(unreadable)?;
            let pruner = Pruner::new(&PruneRules::default());
            let pruner = pruner.map_err(|error| PollError::Unreadable(error.to_string()))?;
            let decoder = Decoder::new(
                &identity.api_version(),
                &identity.kind,
                identity.namespaced,
                &pruner,
                &identity.selectable,
            );
            let object = decoder
                .decode(&body, 0)
                .map_err(|error| PollError::Unreadable(error.to_string()))?;
            Ok(Some((object, facts)))
        };
        counted("clusters", read.await)
    }

    async fn list(&self, kind: &Kind, id: &ClusterId) -> Result<bytes::Bytes, PollError> {
        let identity = kind.identity().ok_or(PollError::NotServed)?;
        // Without a resourceVersion: as fresh as etcd.
        let params = ListParams::default().labels(&id.selector());
        let request: Request<Vec<u8>> = ApiRequest::new(path(&identity, id))
            .list(&params)
            .map_err(|error| PollError::Request(error.to_string()))?;
        let (_, body) = self.0.fetch(Verb::List, request, MAX_BYTES).await?;
        Ok(body)
    }
}

fn path(identity: &Identity, id: &ClusterId) -> String {
    identity.collection(id.key.namespace())
}

fn counted<T>(resource: &'static str, read: Result<T, PollError>) -> Result<T, PollError> {
    let result = if read.is_ok() { "ok" } else { "error" };
    counter!("informerd_aerospike_polls_total", "resource" => resource, "result" => result)
        .increment(1);
    read
}

fn unreadable(error: serde_json::Error) -> PollError {
    PollError::Unreadable(error.to_string())
}
