//! Asks the API server for one object's version, where the cache cannot prove at once that it is current.

use futures::future::BoxFuture;
use http::{Request, header::ACCEPT};
use kube::core::ObjectMeta;
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::{
    api::readiness::{Live, Seen},
    cache::Identity,
    object::Key,
    upstream::{ApiStatus, Upstream, UpstreamError, Verb},
};

/// Only what is asked for: identity and labels, never content.
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
/// Annotations may have 256 KiB, managed fields as much.
const MAX_BYTES: usize = 2 << 20;
/// So many questions are open at once, however many ask.
const AT_ONCE: usize = 16;

/// See the module's documentation.
pub(super) struct LiveReads {
    upstream: Upstream,
    permits: Semaphore,
}

#[derive(Deserialize)]
struct Metadata {
    metadata: ObjectMeta,
}

impl LiveReads {
    pub(super) fn new(upstream: Upstream) -> Self {
        let permits = Semaphore::new(AT_ONCE);
        Self { upstream, permits }
    }

    async fn ask(&self, identity: &Identity, key: &Key) -> Result<Option<Seen>, String> {
        let _permit = self
            .permits
            .acquire()
            .await
            .map_err(|error| error.to_string())?;
        let request = Request::get(path(identity, key))
            .header(ACCEPT, METADATA_ONLY)
            .body(Vec::new())
            .map_err(|error| error.to_string())?;
        let answer = self.upstream.fetch(Verb::Get, request, MAX_BYTES).await;
        let body = match answer {
            Ok((_, body)) => body,
            Err(error) if says_not_found(&error) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let object: Metadata = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        Ok(Some(Seen {
            uid: object.metadata.uid.unwrap_or_default(),
            resource_version: object.metadata.resource_version.unwrap_or_default(),
        }))
    }
}

impl Live for LiveReads {
    fn see<'a>(
        &'a self,
        identity: &'a Identity,
        key: &'a Key,
    ) -> BoxFuture<'a, Result<Option<Seen>, String>> {
        Box::pin(self.ask(identity, key))
    }
}

fn says_not_found(error: &UpstreamError) -> bool {
    error.status().is_some_and(ApiStatus::is_not_found)
}

fn path(identity: &Identity, key: &Key) -> String {
    format!("{}/{}", identity.collection(key.namespace()), key.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Selectable;

    #[test]
    fn an_object_is_asked_for_where_the_api_server_has_it() {
        let identity = |group: &str, plural: &str| Identity {
            group: group.into(),
            version: "v1".into(),
            kind: String::new(),
            plural: plural.into(),
            singular: String::new(),
            short_names: Vec::new(),
            namespaced: true,
            selectable: Selectable::builtin("", ""),
        };
        assert_eq!(
            path(&identity("", "nodes"), &Key::new("", "n1")),
            "/api/v1/nodes/n1"
        );
        assert_eq!(
            path(
                &identity("apps", "deployments"),
                &Key::new("default", "web")
            ),
            "/apis/apps/v1/namespaces/default/deployments/web"
        );
    }
}
