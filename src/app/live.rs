//! Asks the API server for one object's version, or for its own, where the cache cannot prove at once that it is
//! current.

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, header::ACCEPT};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
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
const LIST_METADATA_ONLY: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
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

#[derive(Deserialize)]
struct ListMetadata {
    metadata: ListMeta,
}

impl LiveReads {
    pub(super) fn new(upstream: Upstream) -> Self {
        let permits = Semaphore::new(AT_ONCE);
        Self { upstream, permits }
    }

    async fn fetch(&self, verb: Verb, path: &str, accept: &str) -> Result<Bytes, Failed> {
        let _permit = self.permits.acquire().await?;
        let request = Request::get(path).header(ACCEPT, accept).body(Vec::new())?;
        let (_, body) = self.upstream.fetch(verb, request, MAX_BYTES).await?;
        Ok(body)
    }

    async fn ask(&self, identity: &Identity, key: &Key) -> Result<Option<Seen>, String> {
        let path = format!("{}/{}", identity.collection(key.namespace()), key.name());
        let body = match self.fetch(Verb::Get, &path, METADATA_ONLY).await {
            Ok(body) => body,
            Err(Failed::Upstream(error)) if says_not_found(&error) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let object: Metadata = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        Ok(Some(Seen {
            uid: object.metadata.uid.unwrap_or_default(),
            resource_version: object.metadata.resource_version.unwrap_or_default(),
        }))
    }
}

impl LiveReads {
    /// One object is as good as all: the list's version is that of the whole store.
    async fn ask_revision(&self, identity: &Identity, namespace: &str) -> Result<u64, String> {
        let path = format!("{}?limit=1", identity.collection(namespace));
        let body = self.fetch(Verb::List, &path, LIST_METADATA_ONLY).await;
        let body = body.map_err(|error| error.to_string())?;
        let list: ListMetadata =
            serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let version = list.metadata.resource_version.unwrap_or_default();
        version
            .parse()
            .map_err(|_| format!("{version:?} is no revision"))
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error(transparent)]
    Request(#[from] http::Error),
    #[error(transparent)]
    Ends(#[from] tokio::sync::AcquireError),
}

impl Live for LiveReads {
    fn see<'a>(
        &'a self,
        identity: &'a Identity,
        key: &'a Key,
    ) -> BoxFuture<'a, Result<Option<Seen>, String>> {
        Box::pin(self.ask(identity, key))
    }

    fn revision<'a>(
        &'a self,
        identity: &'a Identity,
        namespace: &'a str,
    ) -> BoxFuture<'a, Result<u64, String>> {
        Box::pin(self.ask_revision(identity, namespace))
    }
}

fn says_not_found(error: &UpstreamError) -> bool {
    error.status().is_some_and(ApiStatus::is_not_found)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::Response;
    use http_body_util::Full;
    use kube::{Client, client::Body};

    use super::*;
    use crate::{object::Selectable, upstream::UpstreamSettings};

    fn identity(group: &str, plural: &str) -> Identity {
        Identity {
            group: group.into(),
            version: "v1".into(),
            kind: String::new(),
            plural: plural.into(),
            singular: String::new(),
            short_names: Vec::new(),
            namespaced: true,
            selectable: Selectable::builtin("", ""),
        }
    }

    /// An API server that always says this, and what it was asked.
    fn answering(code: u16, body: &'static str) -> (LiveReads, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = asked.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            log.lock().unwrap().push(request.uri().to_string());
            let response = Response::builder().status(code);
            let response = response.body(Full::<Bytes>::from(body)).unwrap();
            async { Ok::<_, std::convert::Infallible>(response) }
        });
        let client = Client::new(service, "default");
        let upstream = Upstream::fixed(client.clone(), client, UpstreamSettings::default());
        (LiveReads::new(upstream), asked)
    }

    #[tokio::test]
    async fn an_object_is_asked_for_where_the_api_server_has_it() {
        let (live, asked) = answering(200, r#"{"metadata": {"uid": "u", "resourceVersion": "7"}}"#);
        let seen = live.see(&identity("", "nodes"), &Key::new("", "n1")).await;
        let seen = seen.unwrap().unwrap();
        assert_eq!(
            (seen.uid.as_str(), seen.resource_version.as_str()),
            ("u", "7")
        );
        let web = Key::new("default", "web");
        live.see(&identity("apps", "deployments"), &web)
            .await
            .unwrap();
        assert_eq!(
            *asked.lock().unwrap(),
            [
                "/api/v1/nodes/n1",
                "/apis/apps/v1/namespaces/default/deployments/web"
            ]
        );
        let gone = r#"{"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}"#;
        let (live, _) = answering(404, gone);
        assert_eq!(
            live.see(&identity("", "nodes"), &Key::new("", "n1")).await,
            Ok(None)
        );
    }

    #[tokio::test]
    async fn the_api_server_is_asked_how_far_it_is_where_its_objects_are() {
        let list = r#"{"kind": "PartialObjectMetadataList", "metadata": {"resourceVersion": "77"}, "items": []}"#;
        let (live, asked) = answering(200, list);
        assert_eq!(live.revision(&identity("", "pods"), "").await, Ok(77));
        assert_eq!(
            live.revision(&identity("apps", "deployments"), "web").await,
            Ok(77)
        );
        assert_eq!(
            *asked.lock().unwrap(),
            [
                "/api/v1/pods?limit=1",
                "/apis/apps/v1/namespaces/web/deployments?limit=1"
            ]
        );
        let (live, _) = answering(403, "{}");
        assert!(live.revision(&identity("", "pods"), "").await.is_err());
        let (live, _) = answering(200, r#"{"metadata": {"resourceVersion": "x"}}"#);
        let why = live.revision(&identity("", "pods"), "").await.unwrap_err();
        assert_eq!(why, "\"x\" is no revision");
    }
}
