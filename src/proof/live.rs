//! The API server itself, asked for versions, and for content only where a reader is let through to it.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, header::ACCEPT};
use http_body_util::BodyExt;
use serde::Deserialize;

use super::{Ask, Collection, Fetch, Listed, ThroughError, Watched};
use crate::{
    cache::{Identity, Kind},
    object::Key,
    upstream::{ApiStatus, Upstream, Verb},
};

const ONE: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const WHOLE: &str = "application/json";
const LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/// Managed fields may be as long as the object.
const MAX_BYTES: usize = 32 << 20;
/// The least that makes the API server send a bookmark soon: two seconds before the end.
const TIMEOUT_SECONDS: u32 = 3;

/// See the module's documentation.
pub struct Live {
    upstream: Upstream,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: String,
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct List {
    metadata: Metadata,
    #[serde(default)]
    items: Option<Vec<Item>>,
}

#[derive(Deserialize)]
struct Event {
    r#type: String,
    object: EventObject,
}

#[derive(Deserialize)]
struct EventObject {
    metadata: Option<Metadata>,
    message: Option<String>,
}

impl Live {
    /// Behind these clients.
    pub fn new(upstream: Upstream) -> Self {
        Self { upstream }
    }

    async fn get_version(&self, identity: &Identity, key: &Key) -> Result<Option<String>, String> {
        let request = request(&path(identity, key), ONE)?;
        match self.upstream.fetch(Verb::Get, request, MAX_BYTES).await {
            Ok((_, body)) => {
                let item: Item =
                    serde_json::from_slice(&body).map_err(|error| error.to_string())?;
                Ok(Some(item.metadata.resource_version))
            }
            Err(error) if error.status().is_some_and(ApiStatus::is_not_found) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn list_versions(&self, of: Collection<'_>, limit: usize) -> Result<Listed, String> {
        let path = format!(
            "{}?limit={limit}{}",
            of.identity.collection(of.namespace),
            selected(of.kind)
        );
        let request = request(&path, LIST)?;
        let answer = self.upstream.fetch(Verb::List, request, MAX_BYTES).await;
        let (_, body) = answer.map_err(|error| error.to_string())?;
        let list: List = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let revision = list.metadata.resource_version.parse();
        let revision = revision.map_err(|_| "its versions have no order".to_owned())?;
        let items = list.items.unwrap_or_default().into_iter();
        Ok(Listed {
            revision,
            versions: items
                .map(|item| {
                    let Metadata {
                        namespace,
                        name,
                        resource_version,
                        ..
                    } = item.metadata;
                    (Key::new(&namespace, &name), resource_version)
                })
                .collect(),
            complete: list.metadata.next.is_empty(),
        })
    }

    async fn watch_briefly(
        &self,
        of: Collection<'_>,
        from: u64,
        until: u64,
    ) -> Result<Watched, String> {
        let path = format!(
            "{}?watch=true&allowWatchBookmarks=true&resourceVersion={from}&timeoutSeconds={TIMEOUT_SECONDS}{}",
            of.identity.collection(of.namespace),
            selected(of.kind)
        );
        let request = request(&path, ONE)?;
        let answer = self.upstream.send(Verb::Watch, request).await;
        let mut body = answer.map_err(|error| error.to_string())?.into_body();
        let mut lines = Vec::new();
        let mut last_change = None;
        let patience = Duration::from_secs(u64::from(TIMEOUT_SECONDS) * 2);
        let reading = async {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| error.to_string())?;
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                lines.extend_from_slice(&data);
                while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = lines.drain(..=end).collect();
                    let event: Event =
                        serde_json::from_slice(&line).map_err(|error| error.to_string())?;
                    let version = event.object.metadata.map(|it| it.resource_version);
                    let version = version.and_then(|version| version.parse().ok());
                    match (event.r#type.as_str(), version) {
                        ("BOOKMARK", Some(bookmark)) if bookmark >= until => {
                            return Ok(Watched {
                                bookmark,
                                last_change,
                            });
                        }
                        ("BOOKMARK", _) => {}
                        ("ERROR", _) => return Err(event.object.message.unwrap_or_default()),
                        (_, Some(version)) => last_change = last_change.max(Some(version)),
                        _ => {}
                    }
                }
            }
            Err("a watch ended without the bookmark that would have proven it current".to_owned())
        };
        tokio::time::timeout(patience, reading)
            .await
            .unwrap_or_else(|_| Err("a watch was silent for too long".to_owned()))
    }
}

impl Fetch for Live {
    fn fetch<'a>(
        &'a self,
        identity: &'a Identity,
        key: &'a Key,
    ) -> BoxFuture<'a, Result<Option<Bytes>, ThroughError>> {
        Box::pin(async move {
            let path = path(identity, key);
            let request = request(&path, WHOLE).map_err(ThroughError::Upstream)?;
            match self.upstream.fetch(Verb::Get, request, MAX_BYTES).await {
                Ok((_, body)) => Ok(Some(body)),
                Err(error) => match error.status() {
                    Some(status) if status.is_not_found() => Ok(None),
                    Some(status) if status.is_forbidden() => {
                        Err(ThroughError::Forbidden(error.to_string()))
                    }
                    _ => Err(ThroughError::Upstream(error.to_string())),
                },
            }
        })
    }
}

impl Ask for Live {
    fn get<'a>(
        &'a self,
        identity: &'a Identity,
        key: &'a Key,
    ) -> BoxFuture<'a, Result<Option<String>, String>> {
        Box::pin(self.get_version(identity, key))
    }

    fn list<'a>(
        &'a self,
        of: Collection<'a>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Listed, String>> {
        Box::pin(self.list_versions(of, limit))
    }

    fn watch<'a>(
        &'a self,
        of: Collection<'a>,
        from: u64,
        until: u64,
    ) -> BoxFuture<'a, Result<Watched, String>> {
        Box::pin(self.watch_briefly(of, from, until))
    }
}

/// What the config selects of the kind, behind other parameters.
fn selected(kind: &Kind) -> String {
    format!(
        "&labelSelector={}&fieldSelector={}",
        encoded(&kind.label_selector),
        encoded(&kind.field_selector)
    )
}

fn path(identity: &Identity, key: &Key) -> String {
    let collection = identity.collection(key.namespace());
    format!("{collection}/{}", encoded(key.name()))
}

fn request(path: &str, accept: &'static str) -> Result<Request<Vec<u8>>, String> {
    Request::get(path)
        .header(ACCEPT, accept)
        .body(Vec::new())
        .map_err(|error| error.to_string())
}

/// For a place in a URL.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
