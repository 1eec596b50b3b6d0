//! The protocol over a fake [`Read`]: one writer of pods, no network, paused time.

use std::time::Duration;

use futures::FutureExt;
use http_body_util::BodyExt;
use serde_json::Value;

use super::*;
use crate::{
    auth::{self, Calls, PATIENCE},
    cache::{Cause, History, Kind, Limits, Phase, Unreadable, Writer, kind::tests::pods},
    object::{Decoder, Pruner, prune::PruneRules},
};

/// A server of pods. What is not its own is answered with 418, so that one sees where it went.
struct Pods {
    resource: Arc<Resource>,
    proven: Option<u64>,
}

impl Read for Pods {
    fn resources(&self) -> Arc<[Arc<Resource>]> {
        Arc::new([self.resource.clone()])
    }

    fn version(&self) -> futures::future::BoxFuture<'_, Result<bytes::Bytes, Status>> {
        async { Ok(bytes::Bytes::from_static(br#"{"major":"1"}"#)) }.boxed()
    }

    fn most_recent<'a>(
        &'a self,
        of: Wanted<'a>,
    ) -> futures::future::BoxFuture<'a, Result<Proven, Status>> {
        async move {
            let state = of.shard.state().expect("it was complete a moment ago");
            let revision = self.proven.unwrap_or_default().max(state.revision);
            Ok(Proven { state, revision })
        }
        .boxed()
    }

    fn other(
        &self,
        _: Request<Body>,
        what: Other,
    ) -> futures::future::BoxFuture<'static, Response<Body>> {
        let why = match what {
            Other::Resource { why: Some(why), .. } => why.message().to_owned(),
            Other::Resource { target, .. } => format!("{} {}", target.verb, target.plural),
            Other::Path => "path".to_owned(),
        };
        async move { text(StatusCode::IM_A_TEAPOT, why) }.boxed()
    }
}

/// The server and the hand that writes.
pub(super) struct World {
    pub(super) api: KubeApi,
    writer: Writer<Object>,
    decoder: Decoder,
    shutdown: Shutdown,
}

fn limits() -> Limits {
    Limits {
        journal_bytes: 1 << 20,
        ..Limits::default()
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(limits(), None, "")
    }

    fn with(limits: Limits, proven: Option<u64>, namespace: &str) -> Self {
        let writer = Writer::new(namespace, limits, now());
        let kind = Kind::new("pods", true, false, 0, vec![writer.shard().clone()]);
        let identity = pods();
        let pruner = Pruner::new(&PruneRules::nothing()).unwrap();
        let decoder = Decoder::new("v1", "Pod", true, &pruner, &identity.selectable);
        let resource = Arc::new(Resource {
            identity: Arc::new(identity),
            kind: Arc::new(kind),
            verbs: vec!["get", "list", "watch"],
            categories: vec!["all".into()],
            columns: None,
            custom: false,
            subresources: Vec::new(),
            excluded: vec!["hidden".into()],
            schema: None,
            warnings: vec!["pruned".into()],
        });
        let shutdown = Shutdown::new();
        let pods = Pods { resource, proven };
        Self {
            api: KubeApi::new(Arc::new(pods), shutdown.clone()),
            writer,
            decoder,
            shutdown,
        }
    }

    fn pod(&self, name: &str, app: &str, version: u64) -> Arc<Object> {
        let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
        let json = format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"{namespace}","uid":"{name}","resourceVersion":"{version}","labels":{{"app":"{app}"}}}},"spec":{{"nodeName":"n1"}},"status":{{"phase":"Running"}}}}"#
        );
        Arc::new(self.decoder.decode(json.as_bytes(), 0).unwrap())
    }

    pub(super) fn list(&mut self, pods: &[(&str, &str, u64)], revision: u64) {
        let pods = pods
            .iter()
            .map(|(name, app, version)| self.pod(name, app, *version));
        let pods = pods.collect();
        let nothing = Unreadable::default();
        self.writer
            .replace(pods, &nothing, revision, History::Same, now());
        self.writer.set_status(Phase::Live, "", "");
    }

    fn put(&mut self, name: &str, app: &str, version: u64) {
        let pod = self.pod(name, app, version);
        self.writer.upsert(pod, version);
        self.writer.publish(now());
    }

    fn delete(&mut self, name: &str, version: u64) {
        let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
        let key = Key::new(namespace, name);
        self.writer.delete(&key, None, version, Cause::Deleted);
        self.writer.publish(now());
    }

    fn bookmark(&mut self, version: u64) {
        self.writer.advance(version);
        self.writer.publish(now());
    }

    async fn send(&self, method: &str, uri: &str, accept: &str) -> Response<Body> {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("accept", accept)
            .body(full(""))
            .unwrap();
        self.api.handle(request, Peer::default()).await
    }

    async fn get(&self, uri: &str) -> (u16, Value) {
        self.get_as(uri, "application/json").await
    }

    async fn get_as(&self, uri: &str, accept: &str) -> (u16, Value) {
        let response = self.send("GET", uri, accept).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn watch(&self, query: &str) -> Lines {
        self.watch_as(query, "application/json").await
    }

    async fn watch_as(&self, query: &str, accept: &str) -> Lines {
        let uri = format!("/api/v1/pods?watch=true&{query}");
        let response = self.send("GET", &uri, accept).await;
        assert_eq!(response.status(), 200);
        Lines {
            body: response.into_body(),
            text: Vec::new(),
        }
    }
}

/// The lines of a watch.
struct Lines {
    body: Body,
    text: Vec<u8>,
}

impl Lines {
    /// The next one; `None` where the watch ends. Panics where nothing comes for two hours.
    async fn next(&mut self) -> Option<Value> {
        let within = Duration::from_secs(7200);
        tokio::time::timeout(within, self.take())
            .await
            .expect("the watch is silent")
    }

    async fn take(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a line is JSON"));
            }
            let frame = self.body.frame().await?.expect("the body is whole");
            self.text
                .extend_from_slice(&frame.into_data().expect("data"));
        }
    }

    /// `ADDED a@5` and so on, for the next few.
    async fn brief(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..count {
            lines.push(brief(&self.next().await.expect("the watch goes on")));
        }
        lines
    }

    async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(1), self.take())
            .await
            .is_err()
    }
}

fn brief(line: &Value) -> String {
    let of = |pointer: &str| {
        line.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    format!(
        "{} {}@{}",
        of("/type"),
        of("/object/metadata/name"),
        of("/object/metadata/resourceVersion")
    )
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("a list has items");
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().expect("has a name"))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn one_object_is_read_with_its_type() {
    let mut world = World::new();
    world.list(&[("a", "web", 5)], 10);
    let (status, pod) = world.get("/api/v1/namespaces/default/pods/a").await;
    assert_eq!(status, 200);
    assert_eq!(
        (&pod["kind"], &pod["apiVersion"]),
        (&"Pod".into(), &"v1".into())
    );
    let (status, error) = world.get("/api/v1/namespaces/default/pods/b").await;
    assert_eq!(
        (status, &error["message"]),
        (404, &"pods \"b\" not found".into())
    );
    let (status, _) = world.get("/api/v1/pods/a").await;
    assert_eq!(status, 404, "a pod is in a namespace");
}

#[tokio::test(start_paused = true)]
async fn a_list_has_its_revision_and_items_without_type() {
    let mut world = World::with(limits(), Some(15), "");
    world.list(&[("a", "web", 5), ("other/b", "db", 6)], 10);
    let (status, list) = world.get("/api/v1/pods?resourceVersion=0").await;
    assert_eq!(status, 200);
    assert_eq!(list["kind"], "PodList");
    assert_eq!(list["metadata"]["resourceVersion"], "10");
    assert_eq!(names(&list), ["a", "b"]);
    assert!(list["items"][0].get("kind").is_none());
    let (_, list) = world
        .get("/api/v1/namespaces/other/pods?labelSelector=app%3Ddb")
        .await;
    assert_eq!(list["metadata"]["resourceVersion"], "15", "what was proven");
    assert_eq!(names(&list), ["b"]);
    let (_, list) = world.get("/api/v1/namespaces/nowhere/pods").await;
    assert_eq!(list["items"], serde_json::json!([]));
}

#[tokio::test(start_paused = true)]
async fn pages_go_on_in_the_state_of_the_first_however_much_changes() {
    let mut world = World::new();
    world.list(&[("a", "x", 1), ("b", "x", 2), ("c", "x", 3)], 10);
    let (_, first) = world.get("/api/v1/pods?limit=2").await;
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    world.delete("c", 11);
    world.put("d", "x", 12);
    let (_, second) = world
        .get(&format!("/api/v1/pods?limit=2&continue={token}"))
        .await;
    assert_eq!(names(&second), ["c"]);
    assert_eq!(second["metadata"]["resourceVersion"], "10");
    assert!(second["metadata"].get("continue").is_none());
    let (_, whole) = world.get("/api/v1/pods?limit=2&resourceVersion=0").await;
    assert_eq!(names(&whole), ["a", "b", "d"], "as on the API server");
}

#[tokio::test(start_paused = true)]
async fn an_expired_page_offers_to_go_on_in_what_there_is_now() {
    let tiny = Limits {
        journal_bytes: 0,
        ..limits()
    };
    let mut world = World::with(tiny, None, "");
    world.list(&[("a", "x", 1), ("b", "x", 2), ("c", "x", 3)], 10);
    let (_, first) = world.get("/api/v1/pods?limit=1").await;
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    world.put("d", "x", 12);
    tokio::time::advance(Duration::from_secs(301)).await;
    let (status, expired) = world.get(&format!("/api/v1/pods?continue={token}")).await;
    assert_eq!((status, &expired["reason"]), (410, &"Expired".into()));
    let token = expired["metadata"]["continue"].as_str().unwrap();
    let (status, rest) = world.get(&format!("/api/v1/pods?continue={token}")).await;
    assert_eq!(status, 200);
    assert_eq!(names(&rest), ["b", "c", "d"]);
    assert_eq!(rest["metadata"]["resourceVersion"], "12");
}

#[tokio::test(start_paused = true)]
async fn an_exact_version_is_what_was_there() {
    let mut world = World::new();
    world.list(&[("a", "x", 1)], 10);
    world.put("b", "x", 11);
    world.delete("a", 12);
    for (revision, expected) in [(10, vec!["a"]), (11, vec!["a", "b"]), (12, vec!["b"])] {
        let uri = format!("/api/v1/pods?resourceVersion={revision}&resourceVersionMatch=Exact");
        let (_, list) = world.get(&uri).await;
        assert_eq!(names(&list), expected);
        assert_eq!(list["metadata"]["resourceVersion"], revision.to_string());
    }
    let (status, _) = world
        .get("/api/v1/pods?resourceVersion=9&resourceVersionMatch=Exact")
        .await;
    assert_eq!(status, 410);
    let before = tokio::time::Instant::now();
    let (status, error) = world
        .get("/api/v1/pods?resourceVersion=13&resourceVersionMatch=Exact")
        .await;
    assert_eq!(status, 504);
    assert_eq!(
        error["message"],
        "Timeout: Too large resource version: 13, current: 12"
    );
    assert_eq!(before.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_on_its_way_is_waited_for() {
    let mut world = World::new();
    world.list(&[("a", "x", 1)], 10);
    let api = world.api.clone();
    let reading = tokio::spawn(async move {
        let request = Request::get("/api/v1/pods?resourceVersion=11")
            .body(full(""))
            .unwrap();
        let response = api.handle(request, Peer::default()).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice::<Value>(&body).unwrap()
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.put("b", "x", 11);
    assert_eq!(names(&reading.await.unwrap()), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn before_the_first_list_the_reader_is_asked_to_come_again() {
    let world = World::new();
    let response = world.send("GET", "/api/v1/pods", "*/*").await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "1");
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_each_change_and_the_version_of_a_deletion() {
    let mut world = World::new();
    world.list(&[("a", "x", 1)], 10);
    let mut watch = world.watch("resourceVersion=10").await;
    assert!(watch.is_silent().await);
    world.put("b", "x", 11);
    world.put("b", "x", 12);
    world.delete("a", 13);
    assert_eq!(
        watch.brief(3).await,
        ["ADDED b@11", "MODIFIED b@12", "DELETED a@13"]
    );
    assert!(watch.is_silent().await);
    let mut later = world.watch("resourceVersion=11").await;
    assert_eq!(later.brief(2).await, ["MODIFIED b@12", "DELETED a@13"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_without_a_version_begins_with_what_is_there() {
    let mut world = World::new();
    world.list(&[("a", "x", 1), ("b", "x", 2)], 10);
    for query in ["", "resourceVersion=0"] {
        let mut watch = world.watch(query).await;
        assert_eq!(watch.brief(2).await, ["ADDED a@1", "ADDED b@2"], "{query}");
        assert!(watch.is_silent().await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_list_marks_the_end_of_what_was_there() {
    let mut world = World::new();
    world.list(&[("a", "x", 1)], 10);
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = world.watch(query).await;
    assert_eq!(watch.brief(1).await, ["ADDED a@1"]);
    let mark = watch.next().await.unwrap();
    assert_eq!(brief(&mark), "BOOKMARK @10");
    assert_eq!(
        mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert_eq!(mark["object"]["kind"], "Pod");
    world.put("b", "x", 11);
    assert_eq!(watch.brief(1).await, ["ADDED b@11"]);

    let mut silent = world
        .watch("sendInitialEvents=false&resourceVersionMatch=NotOlderThan")
        .await;
    assert!(silent.is_silent().await, "from now on only");
    let mut future = world.watch(&format!("{query}&resourceVersion=99")).await;
    let error = future.next().await.unwrap();
    assert_eq!(
        (&error["type"], &error["object"]["code"]),
        (&"ERROR".into(), &504.into())
    );
    assert_eq!(future.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_who_comes_into_its_selector_and_who_leaves_it() {
    let mut world = World::new();
    world.list(&[("a", "web", 1), ("b", "db", 2)], 10);
    let mut watch = world
        .watch("resourceVersion=10&labelSelector=app%3Dweb")
        .await;
    world.put("b", "web", 11);
    world.put("a", "db", 12);
    world.put("a", "cache", 13);
    world.delete("b", 14);
    let lines = [
        watch.next().await.unwrap(),
        watch.next().await.unwrap(),
        watch.next().await.unwrap(),
    ];
    assert_eq!(
        lines.each_ref().map(brief),
        ["ADDED b@11", "DELETED a@12", "DELETED b@14"]
    );
    assert_eq!(
        lines[1]["object"]["metadata"]["labels"]["app"], "web",
        "as it was when it was selected"
    );
    assert!(watch.is_silent().await);
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_too_long_ago_is_told_so_in_its_first_line() {
    let mut world = World::new();
    world.list(&[("a", "x", 1)], 10);
    let mut watch = world.watch("resourceVersion=9").await;
    let error = watch.next().await.unwrap();
    assert_eq!(error["type"], "ERROR");
    assert_eq!(error["object"]["reason"], "Expired");
    assert_eq!(error["object"]["code"], 410);
    assert_eq!(
        error["object"]["message"],
        "too old resource version: 9 (10)"
    );
    assert_eq!(watch.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_the_journal_leaves_behind_is_told_to_list_again() {
    let tiny = Limits {
        journal_bytes: 0,
        ..limits()
    };
    let mut world = World::with(tiny, None, "");
    world.list(&[("a", "x", 1)], 10);
    let mut watch = world.watch("resourceVersion=10").await;
    assert!(watch.is_silent().await);
    world.put("a", "x", 11);
    world.put("a", "x", 12);
    let error = watch.next().await.unwrap();
    assert_eq!(
        (&error["type"], &error["object"]["code"]),
        (&"ERROR".into(), &410.into())
    );
    assert_eq!(watch.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_the_future_waits_for_it_in_silence() {
    let mut world = World::new();
    world.list(&[("a", "x", 1)], 10);
    let mut watch = world
        .watch("resourceVersion=12&allowWatchBookmarks=true&timeoutSeconds=180")
        .await;
    world.put("b", "x", 11);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(watch.is_silent().await, "neither change nor bookmark");
    world.put("c", "x", 12);
    world.put("d", "x", 13);
    assert_eq!(watch.brief(1).await, ["ADDED d@13"]);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_every_minute_and_just_before_the_end() {
    let mut world = World::new();
    world.list(&[("a", "x", 1)], 10);
    let begun = tokio::time::Instant::now();
    let mut watch = world
        .watch("resourceVersion=10&allowWatchBookmarks=true&timeoutSeconds=75")
        .await;
    world.bookmark(20);
    assert_eq!(watch.brief(1).await, ["BOOKMARK @20"]);
    assert_eq!(begun.elapsed().as_secs(), 60);
    assert_eq!(watch.brief(1).await, ["BOOKMARK @20"]);
    assert_eq!(begun.elapsed().as_secs(), 73);
    assert_eq!(watch.next().await, None);
    assert_eq!(begun.elapsed().as_secs(), 75);
    let mut without = world.watch("resourceVersion=20&timeoutSeconds=75").await;
    assert_eq!(without.next().await, None, "nobody asked for one");
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_cleanly_when_the_process_drains() {
    let mut world = World::new();
    world.list(&[("a", "x", 1)], 10);
    let mut watch = world
        .watch("resourceVersion=10&allowWatchBookmarks=true")
        .await;
    assert!(watch.is_silent().await);
    world.bookmark(30);
    world.shutdown.drain();
    assert_eq!(watch.brief(1).await, ["BOOKMARK @30"], "where to go on");
    assert_eq!(watch.next().await, None);
    let (status, _) = world.get("/readyz").await;
    assert_eq!(status, 500);
    let (status, _) = world.get("/livez").await;
    assert_eq!(status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_relist_reaches_a_watch_as_what_it_changed() {
    let mut world = World::new();
    world.list(&[("a", "x", 1), ("b", "x", 2)], 10);
    let mut watch = world.watch("resourceVersion=10").await;
    world.list(&[("a", "x", 1), ("c", "x", 15)], 20);
    assert_eq!(watch.brief(2).await, ["ADDED c@15", "DELETED b@20"]);
    let mut inside = world.watch("resourceVersion=15").await;
    let error = inside.next().await.unwrap();
    assert_eq!(error["object"]["code"], 410, "nobody knows what was there");
    let mut after = world.watch("resourceVersion=20").await;
    assert!(after.is_silent().await);
}

#[tokio::test(start_paused = true)]
async fn metadata_only_is_a_form_of_everything() {
    let mut world = World::new();
    world.list(&[("a", "x", 1)], 10);
    let accept = |kind: &str| format!("application/json;as={kind};g=meta.k8s.io;v=v1");
    let (_, one) = world
        .get_as(
            "/api/v1/namespaces/default/pods/a",
            &accept("PartialObjectMetadata"),
        )
        .await;
    assert_eq!(one["kind"], "PartialObjectMetadata");
    assert!(one.get("spec").is_none());
    let (_, list) = world
        .get_as("/api/v1/pods", &accept("PartialObjectMetadataList"))
        .await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["kind"], "PartialObjectMetadata");
    assert!(list["items"][0].get("spec").is_none());
    let mut watch = world
        .watch_as("resourceVersion=10", &accept("PartialObjectMetadata"))
        .await;
    world.delete("a", 11);
    let line = watch.next().await.unwrap();
    assert_eq!(brief(&line), "DELETED a@11");
    assert!(line["object"].get("spec").is_none());
    let (status, _) = world
        .get_as("/api/v1/pods", &accept("PartialObjectMetadata"))
        .await;
    assert_eq!(status, 406, "a list is no object");
}

#[tokio::test(start_paused = true)]
async fn a_table_has_the_columns_of_the_kind() {
    let mut world = World::new();
    world.list(&[("a", "x", 1), ("b", "x", 2)], 10);
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let (_, table) = world.get_as("/api/v1/pods", accept).await;
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["metadata"]["resourceVersion"], "10");
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["columnDefinitions"][2]["name"], "Status");
    assert_eq!(table["rows"][1]["cells"][0], "b");
    assert_eq!(table["rows"][1]["cells"][2], "Running");
    assert_eq!(table["rows"][1]["object"]["kind"], "PartialObjectMetadata");
    let (_, table) = world
        .get_as("/api/v1/pods?includeObject=Object&limit=1", accept)
        .await;
    assert_eq!(table["rows"][0]["object"]["spec"]["nodeName"], "n1");
    assert_eq!(table["rows"].as_array().unwrap().len(), 1);
    let (status, _) = world.get_as("/api/v1/pods?includeObject=x", accept).await;
    assert_eq!(status, 400);

    let mut watch = world.watch_as("resourceVersion=10", accept).await;
    world.put("c", "x", 11);
    world.delete("c", 12);
    let (added, deleted) = (watch.next().await.unwrap(), watch.next().await.unwrap());
    assert_eq!(added["object"]["columnDefinitions"][0]["name"], "Name");
    assert_eq!(added["object"]["rows"][0]["cells"][0], "c");
    assert_eq!(deleted["object"]["columnDefinitions"], Value::Null);
    assert_eq!(deleted["object"]["metadata"]["resourceVersion"], "12");
}

#[tokio::test(start_paused = true)]
async fn discovery_tells_of_what_is_served_in_both_forms() {
    let world = World::new();
    let (_, core) = world.get("/api").await;
    assert_eq!(core["versions"], serde_json::json!(["v1"]));
    let (_, list) = world.get("/api/v1").await;
    assert_eq!(list["resources"][0]["name"], "pods");
    assert_eq!(
        list["resources"][0]["verbs"],
        serde_json::json!(["get", "list", "watch"])
    );
    let accept =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let response = world.send("GET", "/api", accept).await;
    let etag = response.headers()["etag"].to_str().unwrap().to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let document: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(document["kind"], "APIGroupDiscoveryList");
    let pods = &document["items"][0]["versions"][0]["resources"][0];
    assert_eq!(
        (&pods["resource"], &pods["scope"]),
        (&"pods".into(), &"Namespaced".into())
    );
    assert_eq!(pods["categories"], serde_json::json!(["all"]));
    let request = Request::get("/api")
        .header("accept", accept)
        .header("if-none-match", etag)
        .body(full(""))
        .unwrap();
    let response = world.api.handle(request, Peer::default()).await;
    assert_eq!(response.status(), 304);
    let (_, openapi) = world.get("/openapi/v3").await;
    assert!(openapi["paths"]["api/v1"]["serverRelativeURL"].is_string());
    let (_, document) = world.get("/openapi/v3/api/v1").await;
    assert!(document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["get"].is_object());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_served_goes_to_whoever_answers_the_rest() {
    let mut world = World::with(limits(), None, "default");
    world.list(&[("a", "x", 1)], 10);
    for (method, uri, says) in [
        ("POST", "/api/v1/namespaces/default/pods", "create pods"),
        ("GET", "/api/v1/nodes", "list nodes"),
        ("GET", "/api/v1/namespaces/default/pods/a/log", "get pods"),
        ("GET", "/metrics", "path"),
        (
            "GET",
            "/api/v1/pods",
            "pods is forbidden: cannot list resource \"pods\" at the cluster scope: the config of informerd has \
             it watched in default only",
        ),
        (
            "GET",
            "/api/v1/namespaces/hidden/pods/a",
            "pods \"a\" is forbidden: cannot get resource \"pods\" in the namespace \"hidden\": the config of \
             informerd has it watched in default only",
        ),
    ] {
        let response = world.send(method, uri, "*/*").await;
        assert_eq!(response.status(), 418, "{method} {uri}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(String::from_utf8_lossy(&body), says);
    }
    let (status, _) = world.get("/api/v1/namespaces/default/pods/a").await;
    assert_eq!(status, 200);
}

#[tokio::test(start_paused = true)]
async fn what_the_objects_lack_is_said_in_a_header() {
    let mut world = World::new();
    world.list(&[("a", "x", 1)], 10);
    let response = world.send("GET", "/api/v1/pods", "*/*").await;
    assert_eq!(response.headers()["warning"], "299 - \"pruned\"");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_loses_its_list_and_harms_nobody() {
    let mut world = World::new();
    let pods: Vec<String> = (0..2000).map(|at| format!("pod-{at:04}")).collect();
    let pods: Vec<(&str, &str, u64)> = pods.iter().map(|name| (&**name, "x", 1)).collect();
    world.list(&pods, 10);
    let response = world.send("GET", "/api/v1/pods", "*/*").await;
    let mut body = response.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    tokio::time::advance(PATIENCE + Duration::from_secs(1)).await;
    world.api.0.holds.expire(now());
    assert!(body.frame().await.unwrap().is_err(), "it is cut, not ended");
}

#[tokio::test(start_paused = true)]
async fn a_page_is_made_as_it_is_read_and_taken_from_a_reader_that_takes_nothing() {
    let mut world = World::new();
    let pods: Vec<String> = (0..4000).map(|at| format!("pod-{at:04}")).collect();
    let pods: Vec<(&str, &str, u64)> = pods.iter().map(|name| (&**name, "x", 1)).collect();
    world.list(&pods, 10);
    let page = "/api/v1/pods?limit=3000";
    let mut body = world.send("GET", page, "*/*").await.into_body();
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let piece = frame.unwrap().into_data().unwrap();
        assert!(piece.len() < 300 << 10, "{} bytes at once", piece.len());
        whole.extend_from_slice(&piece);
    }
    let list: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 3000);
    assert_eq!(list["metadata"]["remainingItemCount"], 1000);

    let mut body = world.send("GET", page, "*/*").await.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    tokio::time::advance(PATIENCE + Duration::from_secs(1)).await;
    world.api.0.holds.expire(now());
    assert!(body.frame().await.unwrap().is_err(), "it is cut, not ended");
}

impl World {
    /// The same where callers may have so much.
    fn limited(mut self, limits: auth::Limits) -> Self {
        let door = Door::Limited(Calls::of_nobody_in_particular(limits));
        self.api = KubeApi::behind(door, self.api.0.read.clone(), self.shutdown.clone());
        self
    }
}

fn too_many(response: &Response<Body>) -> bool {
    let retry = response.headers().contains_key("retry-after");
    response.status() == 429 && retry
}

#[tokio::test(start_paused = true)]
async fn whoever_has_too_many_requests_open_is_asked_to_come_again() {
    let mut world = World::new().limited(auth::Limits {
        calls: 2,
        ..auth::Limits::default()
    });
    world.list(&[("a", "x", 1)], 10);
    let one = world.watch("resourceVersion=10").await;
    let other = world.watch("resourceVersion=10").await;
    assert!(too_many(&world.send("GET", "/api/v1/pods", "*/*").await));
    assert_eq!(world.send("GET", "/livez", "*/*").await.status(), 200);
    drop((one, other));
    assert_eq!(world.get("/api/v1/pods").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn whoever_has_too_many_lists_under_way_is_asked_to_come_again() {
    let mut world = World::new().limited(auth::Limits {
        snapshots: 1,
        ..auth::Limits::default()
    });
    world.list(&[("a", "x", 1), ("b", "x", 2)], 10);
    let initial = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=10";
    let watch_list = format!("/api/v1/pods?watch=1&{initial}&allowWatchBookmarks=true");
    let under_way = world
        .send("GET", "/api/v1/pods?resourceVersion=0", "*/*")
        .await;
    for refused in ["/api/v1/pods?limit=1", "/api/v1/pods", &watch_list] {
        assert!(too_many(&world.send("GET", refused, "*/*").await));
    }
    // One object is no list, and a watch of what comes has nothing to walk.
    let one = "/api/v1/namespaces/default/pods/a?resourceVersion=0";
    assert_eq!(world.get(one).await.0, 200);
    drop(world.watch("resourceVersion=10").await);
    drop(under_way);

    let mut watch = world
        .watch(&format!("{initial}&allowWatchBookmarks=true"))
        .await;
    let page = "/api/v1/pods?limit=1&resourceVersion=10&resourceVersionMatch=Exact";
    assert!(too_many(&world.send("GET", page, "*/*").await));
    while watch.next().await.unwrap()["type"] != "BOOKMARK" {}
    assert_eq!(world.get(page).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn whoever_has_listed_more_than_its_rate_is_asked_to_come_again_later() {
    let mut world = World::new().limited(auth::Limits {
        listed_per_second: 10,
        ..auth::Limits::default()
    });
    world.list(&[("a", "x", 1)], 10);
    let any = "/api/v1/pods?resourceVersion=0";
    let (_, list) = world.get(any).await;
    let bytes = serde_json::to_vec(&list).unwrap().len();
    let refused = world.send("GET", any, "*/*").await;
    assert!(too_many(&refused));
    let retry = refused.headers()["retry-after"].to_str().unwrap();
    let retry: u64 = retry.parse().unwrap();
    assert!(
        retry >= (bytes / 10 - 2) as u64,
        "{retry} s for {bytes} bytes"
    );
    tokio::time::advance(Duration::from_secs(retry)).await;
    assert_eq!(world.get(any).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn watches_of_everything_share_the_bytes_of_their_lines() {
    let mut world = World::new();
    world.list(&[("a", "x", 1)], 10);
    let mut one = world.watch("resourceVersion=10").await;
    let mut other = world.watch("resourceVersion=10").await;
    world.put("b", "x", 11);
    let piece = async |lines: &mut Lines| {
        let frame = lines.body.frame().await.unwrap().unwrap();
        frame.into_data().unwrap()
    };
    let (one, other) = (piece(&mut one).await, piece(&mut other).await);
    assert_eq!(one.as_ptr(), other.as_ptr());
}
