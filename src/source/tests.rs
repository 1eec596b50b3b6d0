use std::sync::atomic::Ordering;

use http_body::Frame;
use http_body_util::{Full, StreamBody};
use kube::Client;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower_test::mock::{self, Handle, SendResponse};

use super::*;
use crate::discovery::ResolvedKind;
use crate::{
    cache::{Limits, Shard},
    config::{ListStrategy, Place, Start},
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
        group: String::new(),
        version: "v1".into(),
        kind: "Pod".into(),
        plural: "pods".into(),
        singular: "pod".into(),
        short_names: vec!["po".into()],
        namespaced: true,
        verbs: Vec::new(),
        categories: Vec::new(),
        crd: None,
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
        let heartbeat = Heartbeats::default().register("source/pods");
        let source = Source::new(kind.clone(), writer, settings, upstream, served, heartbeat);
        let (end, ended) = oneshot::channel::<()>();
        let task = tokio::spawn(source.run(async { drop(ended.await) }));
        Self {
            server,
            kind,
            shard,
            resolved,
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
        assert_eq!(state.digest, state.compute_digest());
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

#[tokio::test(start_paused = true)]
async fn a_paged_list_is_published_when_its_last_page_is_here_and_then_watched() {
    let mut world = World::new(paged());
    let asked = world.asked().await;
    assert_eq!(
        (asked.path.as_str(), asked.query.as_str()),
        ("/api/v1/pods", "limit=500")
    );
    asked.ok(list(&[pod("a", 3)], 10, "next"));
    settle().await;
    assert!(
        world.shard.state().is_none(),
        "a partial list is never published"
    );
    assert_eq!(world.phase(), Phase::Syncing);
    world
        .asked_for("limit=500&continue=next")
        .await
        .ok(list(&[pod("b", 4)], 10, ""));
    let stream = world.watch(10).await;
    assert_eq!(
        (world.held(), world.revision()),
        (vec!["a@3".to_owned(), "b@4".to_owned()], 10)
    );
    stream
        .send(event("ADDED", &pod("c", 11)) + &event("MODIFIED", &pod("a", 12)))
        .await;
    stream.send(event("DELETED", &pod("b", 13))).await;
    assert_eq!(world.held(), ["a@12", "c@11"]);
    assert_eq!(
        world.told(),
        ["11 Changed c@11", "12 Changed a@12", "13 Deleted b@4"]
    );
    assert_eq!((world.phase(), world.watches()), (Phase::Live, (1, 1)));
    assert_eq!(world.kind.identity().unwrap().resource(), "pods");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_published_at_its_end_mark_with_live_events_folded_in() {
    let mut world = World::new(streamed());
    let asked = world.asked_for("sendInitialEvents=true").await;
    assert!(
        asked.query.contains("resourceVersionMatch=NotOlderThan&")
            || asked.query.ends_with("NotOlderThan")
    );
    let stream = asked.stream();
    stream.put(event("ADDED", &pod("a", 3)));
    stream.put(event("ADDED", &pod("b", 2)));
    stream.put(event("ADDED", &pod("c", 1)));
    stream.put(event("DELETED", &pod("a", 11)));
    stream.put(event("MODIFIED", &pod("b", 12)));
    settle().await;
    assert!(world.shard.state().is_none());
    stream
        .send(end_mark(12) + &event("ADDED", &pod("d", 13)))
        .await;
    assert_eq!(world.held(), ["b@12", "c@1", "d@13"]);
    assert_eq!((world.phase(), world.watches()), (Phase::Live, (1, 1)));
    world.quiet(60).await;
}

#[tokio::test(start_paused = true)]
async fn case_6_a_partial_list_is_never_ready_and_never_sweeps() {
    let (mut world, stream) = World::live(paged(), &[pod("a", 1), pod("b", 2)], 10).await;
    sleep(60).await;
    stream.put(event("ERROR", &status(410, "Expired", "too old")));
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 1)], 20, "next"));
    // The second page is cut in the middle.
    let page = world.asked_for("continue=next").await.stream();
    page.put(list(&[pod("c", 15)], 20, "")[..100].to_owned());
    page.cut();
    settle().await;
    assert_eq!(
        (world.held(), world.phase()),
        (vec!["a@1".to_owned(), "b@2".to_owned()], Phase::BackingOff)
    );
    // And then one that ends early without saying so.
    let page = world.asked_for("limit=500").await.stream();
    page.put(list(&[pod("a", 1)], 21, "")[..150].to_owned());
    drop(page);
    settle().await;
    assert_eq!(world.held(), ["a@1", "b@2"]);
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 1), pod("c", 15)], 22, ""));
    let _stream = world.watch(22).await;
    assert_eq!(world.held(), ["a@1", "c@15"]);
    assert_eq!(world.told(), ["22 Changed c@15", "22 Vanished b@2"]);
    assert_eq!(world.relists(), [("expired", 1), ("initial", 1)]);
}

#[tokio::test(start_paused = true)]
async fn case_6_a_stream_cut_before_its_end_mark_is_never_ready() {
    let mut world = World::new(streamed());
    for _ in 0..2 {
        let stream = world.asked_for("sendInitialEvents=true").await.stream();
        stream.send(event("ADDED", &pod("a", 3))).await;
        stream.cut();
        settle().await;
        assert!(world.shard.state().is_none());
    }
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("b", 4)], 10, ""));
    let _stream = world.watch(10).await;
    assert_eq!(world.held(), ["b@4"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_to_stream_is_listed_in_pages_at_once() {
    for code in [400, 422] {
        let mut world = World::new(streamed());
        world.asked_for("sendInitialEvents=true").await.refuse(
            code,
            "Invalid",
            "sendInitialEvents is forbidden",
        );
        let begun = now();
        world
            .asked_for("limit=500")
            .await
            .ok(list(&[pod("a", 3)], 10, ""));
        assert!(now() - begun < Duration::from_millis(100));
        let _stream = world.watch(10).await;
        assert_eq!(world.held(), ["a@3"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_a_stream_for_a_plain_watch_is_listed_in_pages() {
    let mut world = World::new(streamed());
    let stream = world.asked_for("sendInitialEvents=true").await.stream();
    stream.send(event("ADDED", &pod("a", 3))).await;
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 3)], 10, ""));
    assert!(!stream.is_open());
    let _stream = world.watch(10).await;
    assert_eq!(world.held(), ["a@3"]);
}

#[tokio::test(start_paused = true)]
async fn case_2_a_410_as_http_status_relists_once_without_a_gap_or_a_duplicate() {
    let (mut world, stream) = World::with_bookmarks(&[pod("a", 1), pod("b", 2)], 10).await;
    stream.send(event("MODIFIED", &pod("a", 11))).await;
    sleep(60).await;
    stream.cut();
    world.probed(30).await;
    let asked = world.asked_for("watch=1").await;
    asked.refuse(410, "Expired", "too old resource version");
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 11), pod("c", 25)], 30, ""));
    let stream = world.watch(30).await;
    stream.send(event("ADDED", &pod("d", 31))).await;
    assert_eq!(world.held(), ["a@11", "c@25", "d@31"]);
    assert_eq!(
        world.told(),
        [
            "11 Changed a@11",
            "30 Changed c@25",
            "30 Vanished b@2",
            "31 Changed d@31"
        ]
    );
    assert_eq!(
        (world.relists(), world.watches()),
        (vec![("expired", 1), ("initial", 1)], (2, 1))
    );
}

#[tokio::test(start_paused = true)]
async fn case_2_a_410_in_the_stream_relists_once_without_a_gap_or_a_duplicate() {
    let (mut world, stream) = World::with_bookmarks(&[pod("a", 1), pod("b", 2)], 10).await;
    sleep(60).await;
    stream.put(
        event("MODIFIED", &pod("a", 11)) + &event("ERROR", &status(410, "Expired", "too old")),
    );
    let asked = world.asked().await;
    assert_eq!(asked.query, "limit=500", "after a 410 without a revision");
    assert_eq!(
        (world.phase(), world.held()),
        (Phase::Relisting, vec!["a@11".to_owned(), "b@2".to_owned()])
    );
    asked.ok(list(&[pod("a", 11), pod("c", 25)], 30, ""));
    let _stream = world.watch(30).await;
    assert_eq!(
        world.told(),
        ["11 Changed a@11", "30 Changed c@25", "30 Vanished b@2"]
    );
    assert_eq!(
        (world.relists(), world.phase()),
        (vec![("expired", 1), ("initial", 1)], Phase::Live)
    );
}

#[tokio::test(start_paused = true)]
async fn a_mute_server_is_given_up_and_asked_again() {
    let mut world = World::new(paged());
    let mute = world.asked_for("limit=500").await;
    sleep(61).await;
    assert_eq!(world.phase(), Phase::BackingOff);
    assert!(world.shard.status().message.contains("no response headers"));
    drop(mute);
    world.asked_for("limit=500").await.ok(list(&[], 10, ""));
    let mute = world.asked_for("watch=1").await;
    sleep(16).await;
    assert_eq!(world.phase(), Phase::BackingOff);
    drop(mute);
    world.probed(10).await;
    let _stream = world.watch(10).await;
    assert_eq!(world.phase(), Phase::Live);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_stops_in_the_middle_is_given_up_and_read_again() {
    let mut world = World::new(paged());
    let page = world.asked_for("limit=500").await.stream();
    page.send(list(&[pod("a", 3)], 10, "")[..120].to_owned())
        .await;
    sleep(29).await;
    assert!(page.is_open());
    sleep(2).await;
    assert!(!page.is_open() && world.phase() == Phase::BackingOff);
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 3)], 10, ""));
    let _stream = world.watch(10).await;
    assert_eq!(world.held(), ["a@3"]);
}

#[tokio::test(start_paused = true)]
async fn case_10_a_half_open_watch_is_noticed_by_missing_bookmarks() {
    let (mut world, silent) = World::with_bookmarks(&[pod("a", 1)], 10).await;
    sleep(129).await;
    assert!(silent.is_open() && world.phase() == Phase::Live);
    assert!(world.shard.age(now()).unwrap() >= Duration::from_secs(129));
    world.probed(12).await;
    assert!(!silent.is_open(), "one watch at most");
    assert_eq!(
        (world.phase(), world.shard.status().reason.as_str()),
        (Phase::BackingOff, "Silent")
    );
    let stream = world.watch(10).await;
    stream.send(event("ADDED", &pod("b", 12))).await;
    assert_eq!(
        (world.phase(), world.held()),
        (Phase::Live, vec!["a@1".to_owned(), "b@12".to_owned()])
    );
    assert_eq!(
        (world.relists(), world.watches()),
        (vec![("initial", 1)], (2, 1))
    );
    assert!(world.shard.age(now()).unwrap() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn case_10_a_watch_that_stays_silent_is_listed_anew() {
    let (mut world, _silent) = World::with_bookmarks(&[pod("a", 1)], 10).await;
    world.probed(12).await;
    let _silent_too = world.watch(10).await;
    world.probed(12).await;
    let asked = world.asked().await;
    assert_eq!(
        asked.query,
        "resourceVersion=10&resourceVersionMatch=NotOlderThan&limit=500"
    );
    asked.ok(list(&[pod("a", 1), pod("b", 12)], 12, ""));
    let _stream = world.watch(12).await;
    assert_eq!(world.relists(), [("initial", 1), ("silent", 1)]);
}

#[tokio::test(start_paused = true)]
async fn case_11_a_revision_that_went_back_voids_the_history() {
    let (mut world, stream) = World::with_bookmarks(&[pod("a", 90), pod("b", 95)], 100).await;
    stream.cut();
    world.probed(40).await;
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 35)], 40, ""));
    let stream = world.watch(40).await;
    let state = world.shard.state().unwrap();
    assert_eq!((state.history, state.revision), (1, 40));
    stream.send(event("ADDED", &pod("c", 41))).await;
    assert_eq!(world.held(), ["a@35", "c@41"]);
    assert_eq!(world.relists(), [("history", 1), ("initial", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_names_a_time_is_not_asked_before() {
    let mut world = World::new(paged());
    let asked = world.asked_for("limit=500").await;
    asked.respond(
        429,
        &[("retry-after", "40")],
        status(429, "TooManyRequests", "later").to_string(),
    );
    world.quiet(40).await;
    assert_eq!(world.shard.status().reason, "TooManyRequests");
    world.asked_for("limit=500").await.ok(list(&[], 10, ""));
    let stream = world.watch(10).await;
    let error = json!({"kind": "Status", "reason": "TooManyRequests", "code": 429, "details": {"retryAfterSeconds": 30}});
    stream.put(event("ERROR", &error));
    world.quiet(30).await;
    world.probed(10).await;
    let _stream = world.watch(10).await;
}

#[tokio::test(start_paused = true)]
async fn case_13_an_undecodable_item_of_a_list_keeps_the_old_object_marked_stale() {
    let (mut world, stream) =
        World::live(paged(), &[pod("a", 1), pod("b", 2), pod("c", 3)], 10).await;
    sleep(60).await;
    stream.put(event("ERROR", &status(410, "Expired", "too old")));
    let mut bad = pod("b", 15);
    bad["metadata"]["labels"] = json!("no map");
    let mut body = list(&[pod("a", 1), bad, pod("d", 16)], 20, "").into_bytes();
    // Not even UTF-8.
    let at = body
        .windows(6)
        .position(|window| window == b"no map")
        .unwrap();
    body[at] = 0xff;
    let asked = world.asked_for("limit=500").await;
    asked.answer.send_response(Response::new(whole(body)));
    let _stream = world.watch(20).await;
    assert_eq!(world.held(), ["a@1", "b@2*", "d@16"]);
    assert_eq!(world.shard.counters.undecodable.load(Ordering::Relaxed), 1);
    assert_eq!(
        world.told(),
        ["20 Changed d@16", "20 Changed b@2", "20 Vanished c@3"]
    );
}

#[tokio::test(start_paused = true)]
async fn case_13_with_an_item_that_has_no_name_nothing_is_known_to_have_vanished() {
    let (mut world, stream) = World::live(paged(), &[pod("a", 1), pod("b", 2)], 10).await;
    sleep(60).await;
    stream.put(event("ERROR", &status(410, "Expired", "too old")));
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[json!({"metadata": 7}), pod("a", 1)], 20, ""));
    let _stream = world.watch(20).await;
    assert_eq!(world.held(), ["a@1", "b@2*"]);
}

#[tokio::test(start_paused = true)]
async fn case_13_an_undecodable_update_keeps_the_old_object_marked_stale_and_the_rest_goes_on() {
    let (world, stream) = World::live(paged(), &[pod("a", 1), pod("b", 2)], 10).await;
    let mut bad = pod("a", 11);
    bad["metadata"]["labels"] = json!("no map");
    stream
        .send(event("MODIFIED", &bad) + &event("MODIFIED", &pod("b", 12)))
        .await;
    assert_eq!(world.held(), ["a@1*", "b@12"]);
    assert_eq!(world.revision(), 12);
    // A readable one heals it, and one that cannot be read can still be deleted.
    stream.send(event("MODIFIED", &pod("a", 13))).await;
    assert_eq!(world.held(), ["a@13", "b@12"]);
    bad["metadata"]["resourceVersion"] = json!("14");
    stream.send(event("DELETED", &bad)).await;
    assert_eq!(world.held(), ["b@12"]);
    assert_eq!(world.shard.counters.undecodable.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_version_cannot_be_read_is_found_by_a_list() {
    let (mut world, stream) = World::live(paged(), &[pod("a", 1)], 10).await;
    let mut bad = pod("a", 11);
    bad["metadata"]["resourceVersion"] = json!(null);
    stream.put(event("MODIFIED", &bad));
    world.probed(11).await;
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 11)], 11, ""));
    let _stream = world.watch(11).await;
    assert_eq!(
        (world.held(), world.relists()),
        (
            vec!["a@11".to_owned()],
            vec![("disordered", 1), ("initial", 1)]
        )
    );
    assert!(!world.kind.is_unordered());
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_no_event_fails_the_watch_and_a_second_one_lists_anew() {
    let (mut world, stream) = World::live(paged(), &[pod("a", 1)], 10).await;
    stream.put("<html>502</html>\n");
    world.probed(10).await;
    let stream = world.watch(10).await;
    assert_eq!(world.relists(), [("initial", 1)]);
    stream.put("<html>502</html>\n");
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 1)], 10, ""));
    let _stream = world.watch(10).await;
    assert_eq!(world.relists(), [("error", 1), ("initial", 1)]);
}

#[tokio::test(start_paused = true)]
async fn case_8_duplicates_and_events_from_the_past_change_nothing() {
    let (mut world, stream) = World::with_bookmarks(&[pod("a", 8), pod("b", 2)], 10).await;
    stream.send(event("MODIFIED", &pod("b", 11))).await;
    stream
        .send(event("MODIFIED", &pod("b", 11)) + &event("MODIFIED", &pod("a", 7)))
        .await;
    stream.send(event("DELETED", &pod("a", 9))).await;
    assert_eq!(
        (world.held(), world.told()),
        (
            vec!["a@8".to_owned(), "b@11".to_owned()],
            vec!["11 Changed b@11".to_owned()]
        )
    );
    // The delete was newer than what is held, which cannot be: looked into.
    world.probed(11).await;
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("b", 11)], 12, ""));
    let _stream = world.watch(12).await;
    assert_eq!(world.held(), ["b@11"]);
}

#[tokio::test(start_paused = true)]
async fn versions_that_go_back_twice_though_the_history_does_not_have_no_order() {
    let (mut world, mut stream) = World::live(paged(), &[pod("a", 1)], 10).await;
    for version in [2, 3] {
        assert!(!world.kind.is_unordered());
        stream.put(event("MODIFIED", &pod("a", version)));
        world.probed(10).await;
        world
            .asked_for("limit=500")
            .await
            .ok(list(&[pod("a", version)], 10, ""));
        stream = world.asked_for("watch=1").await.stream();
        sleep(120).await;
    }
    assert!(world.kind.is_unordered());
    stream.send(event("MODIFIED", &pod("a", 4))).await;
    assert_eq!(world.held(), ["a@4"]);
}

#[tokio::test(start_paused = true)]
async fn case_5_and_9_a_relist_is_told_as_a_difference_with_a_new_uid_as_replaced() {
    let (mut world, stream) =
        World::live(paged(), &[pod("a", 1), pod("b", 2), pod("c", 3)], 10).await;
    sleep(60).await;
    stream.put(event("ERROR", &status(410, "Expired", "too old")));
    let mut other = pod("b", 15);
    other["metadata"]["uid"] = json!("another");
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 1), other], 20, ""));
    let _stream = world.watch(20).await;
    assert_eq!(
        world.told(),
        ["20 Replaced b@2", "20 Changed b@15", "20 Vanished c@3"]
    );
}

#[tokio::test(start_paused = true)]
async fn case_1_what_was_only_applied_and_not_published_is_deleted_by_a_relist_too() {
    let (mut world, stream) = World::live(paged(), &[pod("a", 1)], 10).await;
    sleep(60).await;
    // In one frame: added, and at once the end of what the server remembers.
    stream.put(event("ADDED", &pod("b", 11)) + &event("ERROR", &status(410, "Expired", "too old")));
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 1)], 20, ""));
    let _stream = world.watch(20).await;
    assert_eq!(world.told(), ["11 Changed b@11", "20 Vanished b@11"]);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_not_served_waits_until_it_is() {
    let mut world = World::new(paged());
    world
        .resolved
        .send_replace(Availability::Absent("gone".into()));
    world.quiet(300).await;
    assert_eq!(world.phase(), Phase::Waiting);
    world
        .resolved
        .send_replace(Availability::Served(Arc::new(resolved())));
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 1)], 10, ""));
    let _stream = world.watch(10).await;
    assert_eq!(world.held(), ["a@1"]);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_removed_shows_its_deletions_and_serves_nothing_until_it_is_complete_again()
{
    let (mut world, stream) = World::with_bookmarks(&[pod("a", 1), pod("b", 2)], 10).await;
    stream.put(event("DELETED", &pod("a", 11)));
    drop(stream);
    world.probed(11).await;
    world.asked_for("watch=1").await.refuse(
        404,
        "NotFound",
        "the server could not find the requested resource",
    );
    settle().await;
    assert_eq!(
        (world.phase(), world.held()),
        (Phase::BackingOff, vec!["b@2".to_owned()]),
        "one 404 sweeps nothing"
    );
    world
        .resolved
        .send_replace(Availability::Absent("gone".into()));
    settle().await;
    assert_eq!((world.phase(), world.held().len()), (Phase::Removed, 0));
    assert_eq!(world.told(), ["11 Deleted a@1", "11 Vanished b@2"]);
    world.quiet(600).await;
    world
        .resolved
        .send_replace(Availability::Served(Arc::new(resolved())));
    let asked = world.asked_for("limit=500").await;
    assert!(world.shard.state().is_none());
    assert_eq!(world.phase(), Phase::Syncing);
    asked.ok(list(&[pod("c", 20)], 20, ""));
    let _stream = world.watch(20).await;
    assert_eq!(
        (world.held(), world.phase()),
        (vec!["c@20".to_owned()], Phase::Live)
    );
}

#[tokio::test(start_paused = true)]
async fn a_kind_in_another_version_is_read_anew_as_another_history() {
    let (mut world, stream) = World::live(paged(), &[pod("a", 1)], 10).await;
    let before = world
        .shard
        .state()
        .unwrap()
        .get(&Key::new("ns", "a"))
        .unwrap()
        .json
        .clone();
    world
        .resolved
        .send_replace(Availability::Served(Arc::new(ResolvedKind {
            short_names: Vec::new(),
            ..resolved()
        })));
    world.quiet(60).await;
    world
        .resolved
        .send_replace(Availability::Served(Arc::new(ResolvedKind {
            version: "v2".into(),
            ..resolved()
        })));
    let asked = world.asked_for("limit=500").await;
    assert_eq!(asked.path, "/api/v2/pods");
    assert!(!stream.is_open() && world.shard.state().is_none());
    asked.ok(list(&[pod("a", 1)], 11, ""));
    let _stream = world.watch(11).await;
    let state = world.shard.state().unwrap();
    assert_eq!(state.history, 1);
    assert_ne!(state.get(&Key::new("ns", "a")).unwrap().json, before);
}

#[tokio::test(start_paused = true)]
async fn a_missing_permission_is_named_and_the_last_state_stays() {
    let (mut world, stream) = World::with_bookmarks(&[pod("a", 1)], 10).await;
    stream.cut();
    let message = r#"pods is forbidden: User "u" cannot list resource "pods" in API group "" at the cluster scope"#;
    for _ in 0..8 {
        world.asked().await.refuse(403, "Forbidden", message);
        settle().await;
        let status = world.shard.status();
        assert_eq!(
            (status.phase, status.reason.as_str()),
            (Phase::Forbidden, "Forbidden")
        );
        assert!(status.message.contains(message), "{}", status.message);
        assert_eq!(world.held(), ["a@1"]);
    }
    let begun = now();
    world.probed(10).await;
    assert!(now() - begun <= Duration::from_secs(60));
    let _stream = world.watch(10).await;
    assert_eq!(world.phase(), Phase::Live);
}

#[tokio::test(start_paused = true)]
async fn a_kind_without_bookmarks_is_unproven_and_not_half_open() {
    let (mut world, stream) = World::live(paged(), &[pod("a", 1)], 10).await;
    assert!(!world.shard.is_unproven());
    world.quiet(290).await;
    assert!(world.shard.is_unproven() && stream.is_open());
    stream.send(bookmark(11)).await;
    assert!(!world.shard.is_unproven());
}

#[tokio::test(start_paused = true)]
async fn bookmarks_move_the_revision_and_prove_the_shard() {
    let (mut world, stream) = World::with_bookmarks(&[pod("a", 1)], 10).await;
    sleep(60).await;
    stream.send(bookmark(50)).await;
    assert_eq!(world.revision(), 50);
    assert!(world.shard.age(now()).unwrap() < Duration::from_secs(1));
    // It ends in its time: followed at once by the next, from the bookmark, with no other request.
    for revision in 51..=86 {
        sleep(98).await;
        stream.send(bookmark(revision)).await;
    }
    sleep(10).await;
    let begun = now();
    drop(stream);
    let _stream = world.watch(86).await;
    assert!(now() - begun < Duration::from_millis(10));
    assert_eq!((world.phase(), world.watches()), (Phase::Live, (2, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_before_its_time_is_followed_by_a_check_of_the_history() {
    let (mut world, stream) = World::with_bookmarks(&[pod("a", 1)], 10).await;
    sleep(60).await;
    drop(stream);
    world.probed(10).await;
    let _stream = world.watch(10).await;
    assert_eq!(
        (world.phase(), world.relists()),
        (Phase::Live, vec![("initial", 1)])
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_at_once_again_and_again_is_not_hammered() {
    let (mut world, stream) = World::with_bookmarks(&[], 10).await;
    drop(stream);
    let begun = now();
    let mut watches = 0;
    while now() - begun < Duration::from_secs(60) {
        let asked = world.asked().await;
        if asked.query == "limit=1" {
            asked.ok(list(&[], 10, ""));
        } else {
            watches += 1;
            drop(asked.stream());
        }
    }
    assert!(watches < 10, "{watches}");
}

#[tokio::test(start_paused = true)]
async fn a_kind_on_first_use_is_watched_while_it_is_used() {
    let mut world = World::new(paged_and(|kind| kind.start = Start::OnFirstUse));
    world.quiet(100).await;
    assert_eq!(
        (world.phase(), world.shard.status().reason.as_str()),
        (Phase::Waiting, "NotUsed")
    );
    let user = world.kind.enter();
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 1)], 10, ""));
    let stream = world.watch(10).await;
    stream.send(bookmark(10)).await;
    drop(user);
    for _ in 0..5 {
        sleep(100).await;
        stream.send(bookmark(11)).await;
    }
    sleep(99).await;
    assert!(world.shard.state().is_some() && world.phase() == Phase::Live);
    sleep(2).await;
    assert!(world.shard.state().is_none() && world.phase() == Phase::Waiting && !stream.is_open());
    let _user = world.kind.enter();
    let asked = world.asked().await;
    assert_eq!(
        asked.query,
        "resourceVersion=11&resourceVersionMatch=NotOlderThan&limit=500"
    );
    asked.ok(list(&[pod("b", 12)], 12, ""));
    let _stream = world.watch(12).await;
    assert_eq!(world.held(), ["b@12"]);
}

#[tokio::test(start_paused = true)]
async fn selectors_go_upstream_and_what_leaves_them_may_still_exist() {
    let config = paged_and(|kind| {
        kind.label_selector = "app=web".parse::<LabelSelector>().unwrap();
        kind.namespaces = crate::config::Namespaces::Exclude(vec!["kube-system".into()]);
    });
    let mut world = World::new(config);
    let asked = world.asked().await;
    assert_eq!(
        asked.query,
        "limit=500&labelSelector=app%3Dweb&fieldSelector=metadata.namespace%21%3Dkube-system"
    );
    asked.ok(list(&[pod("a", 1)], 10, ""));
    let stream = world.asked_for("labelSelector=app%3Dweb").await.stream();
    stream.send(event("DELETED", &pod("a", 11))).await;
    assert_eq!(world.told(), ["11 DeletedOrLeft a@1"]);
}

#[tokio::test(start_paused = true)]
async fn metadata_only_is_demanded() {
    let mut world = World::new(paged_and(|kind| kind.metadata_only = true));
    let asked = world.asked().await;
    assert_eq!(
        asked.accept,
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    );
    asked.ok(list(&[pod("a", 1)], 10, ""));
    // Tried again without a limit, in vain.
    world.asked().await.ok(list(&[pod("a", 1)], 10, ""));
    settle().await;
    assert!(world.shard.status().message.contains("metadataOnly: false"));
    let partial = list(&[pod("a", 1)], 10, "").replace("PodList", "PartialObjectMetadataList");
    world.asked().await.ok(partial);
    let asked = world.asked_for("watch=1").await;
    assert_eq!(
        asked.accept,
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    );
    let stream = asked.stream();
    let mut object = pod("b", 11);
    object["kind"] = json!("PartialObjectMetadata");
    object["apiVersion"] = json!("meta.k8s.io/v1");
    stream.send(event("ADDED", &object)).await;
    assert_eq!(world.held(), ["a@1", "b@11"]);
}

#[tokio::test(start_paused = true)]
async fn versions_without_an_order_are_told_and_resumed_as_they_are() {
    let mut world = World::new(paged());
    let odd = |name: &str, version: &str| json!({"metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": version}});
    let body = json!({"kind": "PodList", "metadata": {"resourceVersion": "r-z"}, "items": [odd("a", "r-y")]});
    world.asked_for("limit=500").await.ok(body.to_string());
    let stream = world.asked_for("resourceVersion=r-z").await.stream();
    stream
        .send(event("MODIFIED", &odd("a", "r-b")) + &event("ADDED", &odd("b", "r-a")))
        .await;
    assert!(world.kind.is_unordered());
    assert_eq!(
        (world.held(), world.revision()),
        (vec!["a@r-b".to_owned(), "b@r-a".to_owned()], 0)
    );
    stream.cut();
    world.asked_for("resourceVersion=r-a").await;
}

#[tokio::test(start_paused = true)]
async fn items_newer_than_their_list_have_no_order() {
    let mut world = World::new(paged());
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 99)], 10, ""));
    let _stream = world.watch(10).await;
    assert!(world.kind.is_unordered());
    assert_eq!(
        (world.held(), world.revision()),
        (vec!["a@99".to_owned()], 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_published_in_batches_and_each_line_may_come_in_pieces() {
    let (world, stream) = World::live(paged(), &[], 10).await;
    let burst: String = (0..2500)
        .map(|i| event("ADDED", &pod(&format!("p{i}"), 11 + i)))
        .collect();
    for piece in burst.as_bytes().chunks(1000) {
        stream.put(Bytes::copy_from_slice(piece));
    }
    settle().await;
    assert_eq!(world.held().len(), 2500);
    let state = world.shard.state().unwrap();
    let sizes: Vec<usize> = state
        .journal
        .segments()
        .map(|segment| segment.entries.len())
        .collect();
    assert!(sizes.len() >= 3 && sizes.len() <= 10, "{sizes:?}");
    assert!(
        state
            .objects
            .values()
            .all(|slot| slot.item.received_unix_nanos > 0)
    );
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_told_and_leaves_the_state_readable() {
    let (mut world, stream) = World::live(paged(), &[pod("a", 1)], 10).await;
    let (end, task) = world.running.take().unwrap();
    end.send(()).unwrap();
    task.await.unwrap();
    assert!(!stream.is_open());
    assert_eq!(
        (world.held(), world.watches()),
        (vec!["a@1".to_owned()], (1, 0))
    );
}
