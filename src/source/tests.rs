//! A source against an API server that is the test itself.

use std::sync::atomic::Ordering;

use http_body::Frame;
use http_body_util::{Full, StreamBody};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower_test::mock::{self, Handle, SendResponse};

use super::*;
use crate::discovery::{ResolvedKind, tests::kind};
use crate::{
    cache::{Limits, Shard},
    config::{Consistency, ListStrategy, Place, Start},
    heartbeat::Heartbeats,
    object::LabelSelector,
    upstream::UpstreamSettings,
};

type AnyBody = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

fn whole(body: impl Into<Bytes>) -> AnyBody {
    AnyBody::new(Full::new(body.into()).map_err(|never| match never {}))
}

/// One source, and the API server that it talks to: the test itself.
struct World {
    server: Handle<http::Request<Body>, Response<AnyBody>>,
    kind: Arc<Kind>,
    shard: Arc<Shard<Object>>,
    resolved: watch::Sender<Availability>,
    version: watch::Sender<Arc<str>>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// A request that waits for its answer.
struct Asked {
    query: String,
    path: String,
    accept: String,
    answer: SendResponse<Response<AnyBody>>,
}

/// The body of an open watch.
struct Stream(mpsc::UnboundedSender<Result<Frame<Bytes>, std::io::Error>>);

fn config(set: impl FnOnce(&mut KindConfig)) -> KindConfig {
    let mut kind = KindConfig::new("pods", Place::Default);
    set(&mut kind);
    kind
}

fn paged_and(set: impl FnOnce(&mut KindConfig)) -> KindConfig {
    let mut kind = paged();
    set(&mut kind);
    kind
}

fn paged() -> KindConfig {
    config(|kind| kind.list = ListStrategy::Paged)
}

fn streamed() -> KindConfig {
    KindConfig::new("pods", Place::Default)
}

fn resolved() -> ResolvedKind {
    ResolvedKind {
        short_names: vec!["po".into()],
        ..kind("", "v1", "Pod", "pods")
    }
}

fn pod(name: &str, version: u64) -> Value {
    json!({"metadata": {"namespace": "ns", "name": name, "uid": format!("uid-{name}"), "resourceVersion": version.to_string()}})
}

fn list(items: &[Value], version: u64, next: &str) -> String {
    let metadata = json!({"resourceVersion": version.to_string(), "continue": next});
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items}).to_string()
}

fn event(r#type: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": r#type, "object": object}))
}

fn bookmark(version: u64) -> String {
    event(
        "BOOKMARK",
        &json!({"metadata": {"resourceVersion": version.to_string()}}),
    )
}

fn end_mark(version: u64) -> String {
    let annotations = json!({"k8s.io/initial-events-end": "true"});
    event(
        "BOOKMARK",
        &json!({"metadata": {"resourceVersion": version.to_string(), "annotations": annotations}}),
    )
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message, "code": code})
}

/// Until nothing but time can go on.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

async fn sleep(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

impl World {
    fn new(config: KindConfig) -> Self {
        let (service, server) = mock::pair();
        let client = Client::new(service, "default");
        let upstream = Upstream::fixed(client.clone(), client, UpstreamSettings::default());
        let writer = Writer::new("", Limits::default(), now());
        let shard = writer.shard().clone();
        let kind = Arc::new(Kind::new(
            "pods",
            true,
            config.metadata_only,
            0,
            vec![shard.clone()],
        ));
        let (resolved, served) = watch::channel(Availability::Served(Arc::new(resolved())));
        let mut settings = SourceSettings::new(&config, &UpstreamConfig::default(), 7).unwrap();
        // Watches end when the test says so.
        settings.machine.timing.watch_timeout =
            Duration::from_secs(3600)..=Duration::from_secs(3600);
        settings.machine.timing.unproven_timeout =
            Duration::from_secs(3600)..=Duration::from_secs(3600);
        let heartbeat = Heartbeats::default().register("source/pods");
        let (version, versions) = watch::channel("v1.36.3".into());
        let source = Source::new(
            kind.clone(),
            writer,
            settings,
            upstream,
            served,
            versions,
            heartbeat,
        );
        let (end, ended) = oneshot::channel::<()>();
        let task = tokio::spawn(source.run(async { drop(ended.await) }));
        Self {
            server,
            kind,
            shard,
            resolved,
            version,
            running: Some((end, task)),
        }
    }

    /// The next request; there must be one within some minutes.
    async fn asked(&mut self) -> Asked {
        let next = tokio::time::timeout(Duration::from_secs(900), self.server.next_request());
        let (request, answer) = next.await.expect("a request").expect("a source");
        let header = |name: &str| {
            request
                .headers()
                .get(name)
                .map_or("", |value| value.to_str().unwrap())
                .to_owned()
        };
        Asked {
            query: request.uri().query().unwrap_or_default().to_owned(),
            path: request.uri().path().to_owned(),
            accept: header("accept"),
            answer,
        }
    }

    async fn asked_for(&mut self, query: &str) -> Asked {
        let asked = self.asked().await;
        assert!(
            asked.query.contains(query),
            "{} does not have {query}",
            asked.query
        );
        asked
    }

    /// No request within this time.
    async fn quiet(&mut self, seconds: u64) {
        let next =
            tokio::time::timeout(Duration::from_secs(seconds), self.server.next_request()).await;
        if let Ok(Some((request, _))) = next {
            panic!("asked for {}", request.uri());
        }
    }

    /// Listed at `version`, and the watch is open.
    async fn live(config: KindConfig, items: &[Value], version: u64) -> (Self, Stream) {
        let mut world = Self::new(config);
        world
            .asked_for("limit=500")
            .await
            .ok(list(items, version, ""));
        let stream = world.watch(version).await;
        (world, stream)
    }

    /// As `live`, of a kind that sends bookmarks.
    async fn with_bookmarks(items: &[Value], version: u64) -> (Self, Stream) {
        let (world, stream) = Self::live(paged(), items, version).await;
        stream.send(bookmark(version)).await;
        (world, stream)
    }

    /// A watch is asked for, from `version`, and opened.
    async fn watch(&mut self, version: u64) -> Stream {
        let asked = self.asked_for("watch=1").await;
        assert!(
            asked
                .query
                .ends_with(&format!("&resourceVersion={version}")),
            "{}",
            asked.query
        );
        let stream = asked.stream();
        settle().await;
        stream
    }

    async fn probed(&mut self, version: u64) {
        let asked = self.asked().await;
        assert_eq!(asked.query, "limit=1");
        assert!(asked.accept.contains("PartialObjectMetadataList"));
        asked.ok(list(&[], version, ""));
    }

    /// Keys and versions; `*` for what is marked stale.
    fn held(&self) -> Vec<String> {
        let state = self.shard.state().expect("a complete list");
        assert_eq!(
            (state.digest, state.namespaces.clone()),
            state.compute_digests()
        );
        let show = |object: &Object| {
            format!(
                "{}@{}{}",
                object.key.name(),
                object.resource_version,
                if object.stale { "*" } else { "" }
            )
        };
        state
            .objects
            .values()
            .map(|slot| show(&slot.item))
            .collect()
    }

    /// What the journal has, as `revision cause name@version`.
    fn told(&self) -> Vec<String> {
        let state = self.shard.state().expect("a complete list");
        let entries = state
            .journal
            .segments()
            .flat_map(|segment| segment.entries.iter());
        entries
            .map(|entry| {
                let item = entry.item().unwrap();
                format!(
                    "{} {:?} {}@{}",
                    entry.revision,
                    entry.cause,
                    item.key.name(),
                    item.resource_version
                )
            })
            .collect()
    }

    fn phase(&self) -> Phase {
        self.shard.status().phase
    }

    fn relists(&self) -> Vec<(&'static str, u64)> {
        self.shard.counters.relists().into_iter().collect()
    }

    fn watches(&self) -> (u64, u64) {
        let counters = &self.shard.counters;
        (
            counters.watches_opened.load(Ordering::Relaxed),
            counters.watches_open.load(Ordering::Relaxed),
        )
    }

    fn revision(&self) -> u64 {
        self.shard.state().expect("a complete list").revision
    }
}

impl Asked {
    fn respond(self, code: u16, headers: &[(&str, &str)], body: String) {
        let mut response = Response::builder().status(code);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        self.answer
            .send_response(response.body(whole(body)).unwrap());
    }

    fn ok(self, body: String) {
        self.respond(200, &[], body);
    }

    fn refuse(self, code: u16, reason: &str, message: &str) {
        self.respond(code, &[], status(code, reason, message).to_string());
    }

    /// Headers, and a body that comes bit by bit.
    fn stream(self) -> Stream {
        let (sender, frames) = mpsc::unbounded_channel();
        let body = AnyBody::new(StreamBody::new(UnboundedReceiverStream::new(frames)));
        self.answer.send_response(Response::new(body));
        Stream(sender)
    }
}

impl Stream {
    fn put(&self, text: impl Into<Bytes>) {
        // Nobody may be listening any more, which is for the test to find out.
        let _ = self.0.send(Ok(Frame::data(text.into())));
    }

    async fn send(&self, text: impl Into<Bytes>) {
        self.put(text);
        settle().await;
    }

    fn cut(self) {
        let _ = self.0.send(Err(std::io::Error::other("connection reset")));
    }

    fn is_open(&self) -> bool {
        !self.0.is_closed()
    }
}

mod around;
pub(crate) mod by_hand;
mod lists;
mod watches;
