//! What the facade says, without a network.

use std::convert::Infallible;

use http::StatusCode;
use http_body_util::BodyExt;
use kube::Client;
use serde_json::{Value, json};

use super::*;
use crate::{
    auth::{Authentication, Door, Guard, Settings, fake::FakeReviews},
    cache::{History, Limits, Unreadable, Writer, kind::tests::pods},
    discovery::tests::kind,
    kubeapi::{KubeApi, Peer, full},
    object::{Key, Object, tests::object},
    proof::{Ask, Collection, Listed, Watched},
    shutdown::Shutdown,
    upstream::UpstreamSettings,
};

/// An API server whose objects cannot be asked for.
struct Deaf;

impl Ask for Deaf {
    fn get<'a>(
        &'a self,
        _: &'a Identity,
        _: &'a Key,
    ) -> BoxFuture<'a, Result<Option<String>, String>> {
        Box::pin(async { Err("connection refused".to_owned()) })
    }

    fn list<'a>(&'a self, _: Collection<'a>, _: usize) -> BoxFuture<'a, Result<Listed, String>> {
        Box::pin(async { Err("connection refused".to_owned()) })
    }

    fn watch<'a>(
        &'a self,
        _: Collection<'a>,
        _: u64,
        _: u64,
    ) -> BoxFuture<'a, Result<Watched, String>> {
        Box::pin(async { Err("connection refused".to_owned()) })
    }
}

/// Answers with what it was sent: path and credentials.
fn echo() -> Upstream {
    let service = tower::service_fn(|request: Request<kube::client::Body>| async move {
        let seen = json!({
            "path": request.uri().to_string(),
            "authorization": request.headers().get("authorization").map(|it| it.to_str().unwrap()),
        });
        let body = kube::client::Body::from(seen.to_string().into_bytes());
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
        Ok::<_, Infallible>(response)
    });
    let client = Client::new(service, "default");
    Upstream::fixed(client.clone(), client, UpstreamSettings::default())
}

struct World {
    api: KubeApi,
    available: watch::Sender<Availability>,
    kind: Arc<Kind>,
    consumers: Arc<Consumers>,
    _writer: Writer<Object>,
}

fn world(config: FacadeConfig, metadata_only: bool) -> World {
    behind(config, metadata_only, Door::Open)
}

fn behind(config: FacadeConfig, metadata_only: bool, door: Door) -> World {
    let now = std::time::Instant::now();
    let mut writer = Writer::new("", Limits::default(), now);
    let json = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"default","name":"a"}}"#;
    let pod = Arc::new(Object {
        json: Bytes::from_static(json),
        ..object("default", "a")
    });
    writer.replace(vec![pod], &Unreadable::default(), 10, History::Same, now);
    let shards = vec![writer.shard().clone()];
    let kind = Arc::new(Kind::new("pods", true, metadata_only, 0, shards));
    let (available, receiver) = watch::channel(Availability::Unknown("starting".into()));
    let served = Served {
        kind: kind.clone(),
        available: receiver,
        leaves_out: vec!["only those with labels app=web".to_owned()],
        excluded: Vec::new(),
    };
    let consumers = Arc::<Consumers>::default();
    let facade = Facade::new(
        vec![served],
        Arc::new(Prover::new(Arc::new(Deaf))),
        echo(),
        consumers.clone(),
        config,
    );
    let api = KubeApi::behind(door, Arc::new(facade), Shutdown::new());
    World {
        api,
        available,
        kind,
        consumers,
        _writer: writer,
    }
}

impl World {
    /// Discovery finds pods.
    fn appear(&self) {
        let resolved = ResolvedKind {
            short_names: vec!["po".into()],
            categories: vec!["all".into()],
            ..kind("", "v1", "Pod", "pods")
        };
        self.kind.set_identity(pods());
        self.available
            .send_replace(Availability::Served(Arc::new(resolved)));
    }

    async fn send(&self, method: &str, uri: &str) -> Response<Body> {
        self.send_over(&Peer::default(), method, uri).await
    }

    async fn send_over(&self, peer: &Peer, method: &str, uri: &str) -> Response<Body> {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("authorization", "Bearer the-callers")
            .body(full(""))
            .unwrap();
        self.api.handle(request, peer.clone()).await
    }

    async fn ask(&self, method: &str, uri: &str) -> (u16, Value) {
        let response = self.send(method, uri).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}

fn says(answer: &Value) -> &str {
    answer["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_kind_is_served_once_discovery_has_found_it() {
    let world = world(FacadeConfig::default(), false);
    let (status, _) = world.ask("GET", "/api/v1/pods?resourceVersion=0").await;
    assert_eq!(status, 404);
    world.appear();
    let (status, _) = world.ask("GET", "/api/v1/pods?resourceVersion=0").await;
    assert_eq!(status, 200);
    world
        .available
        .send_replace(Availability::Absent("gone".into()));
    let (status, _) = world.ask("GET", "/api/v1/pods?resourceVersion=0").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn what_is_not_here_is_refused_with_the_way_to_have_it() {
    let world = world(FacadeConfig::default(), false);
    world.appear();
    let (status, answer) = world.ask("GET", "/apis/apps/v1/deployments").await;
    assert_eq!(status, 404);
    assert!(
        says(&answer).contains("add deployments.apps under `kinds` in its config"),
        "{answer}"
    );
    let (status, answer) = world.ask("POST", "/api/v1/namespaces/a/pods").await;
    assert_eq!(status, 403);
    assert_eq!(
        says(&answer),
        "pods is forbidden: informerd serves reads only, and cannot create; send writes to the API server"
    );
    let (status, answer) = world.ask("GET", "/api/v1/namespaces/a/pods/b/log").await;
    assert_eq!(status, 404);
    assert!(
        says(&answer).contains("nothing below them such as log"),
        "{answer}"
    );
    let (status, _) = world.ask("GET", "/metrics").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_read_that_must_be_most_recent_fails_where_nothing_proves_it() {
    let strict = world(FacadeConfig::default(), false);
    strict.appear();
    for uri in ["/api/v1/pods", "/api/v1/namespaces/default/pods/a"] {
        let (status, answer) = strict.ask("GET", uri).await;
        assert_eq!(status, 503, "{uri}");
        assert!(says(&answer).contains("connection refused"), "{answer}");
        assert!(says(&answer).contains("facade.unset: any"), "{answer}");
    }
    let lax = FacadeConfig {
        unset_is_any: true,
        ..FacadeConfig::default()
    };
    let lax = world(lax, false);
    lax.appear();
    let (status, _) = lax.ask("GET", "/api/v1/pods").await;
    assert_eq!(status, 200, "as its operator chose");
}

#[tokio::test]
async fn what_is_passed_through_goes_with_the_callers_own_credentials() {
    let config = FacadeConfig {
        passthrough: true,
        ..FacadeConfig::default()
    };
    let world = world(config, true);
    world.appear();
    for uri in [
        "/apis/apps/v1/deployments?limit=5",
        "/api/v1/namespaces/a/pods/b/log",
        "/apis",
        "/openapi/v2",
        "/api/v1/namespaces/a/pods/whole-objects-are-not-cached",
    ] {
        let (status, seen) = world.ask("GET", uri).await;
        assert_eq!(status, 418, "{uri}");
        assert_eq!(seen["path"], uri);
        assert_eq!(seen["authorization"], "Bearer the-callers");
    }
    let (status, _) = world.ask("DELETE", "/api/v1/namespaces/a/pods/b").await;
    assert_eq!(status, 403, "only reads are");
}

#[tokio::test]
async fn answers_say_what_they_lack() {
    let world = world(FacadeConfig::default(), false);
    world.appear();
    let response = world.send("GET", "/api/v1/pods?resourceVersion=0").await;
    let warnings: Vec<_> = response
        .headers()
        .get_all("warning")
        .iter()
        .map(|it| it.to_str().unwrap())
        .collect();
    assert_eq!(
        warnings,
        [
            "299 - \"informerd leaves out fields of pods (prune in its config): write changes back as patches\"",
            "299 - \"informerd does not have all pods: only those with labels app=web\"",
        ]
    );
}

#[tokio::test]
async fn who_watches_is_listed_until_the_watch_ends() {
    let world = world(FacadeConfig::default(), false);
    world.appear();
    let uri = "/api/v1/namespaces/default/pods?watch=true&resourceVersion=10";
    let response = world.send("GET", uri).await;
    assert_eq!(response.status(), 200);
    let consumers = world.consumers.list();
    let consumer = consumers[0].describe(std::time::Instant::now());
    assert_eq!(consumer.method, "kube watch");
    let scope = consumer.scope.unwrap();
    assert_eq!(scope.resource, "pods");
    assert_eq!(scope.namespaces, ["default"]);
    drop(response);
    assert!(world.consumers.list().is_empty());
}

const LIST: &str = r#"list resource "pods" in API group "" in the namespace "default""#;
const WATCH: &str = r#"watch resource "pods" in API group "" in the namespace "default""#;

/// Pods, and an API server that says who may see them; `the-callers` is alice's token.
fn with_a_door() -> (World, FakeReviews) {
    let lax = FacadeConfig {
        unset_is_any: true,
        ..FacadeConfig::default()
    };
    guarded(lax)
}

fn guarded(config: FacadeConfig) -> (World, FakeReviews) {
    let reviews = FakeReviews::default();
    reviews.give("the-callers", "alice", &["informerd"]);
    let how = Authentication {
        token_audience: Some("informerd".to_owned()),
        ..Authentication::default()
    };
    let guard = Guard::new(how, Arc::new(reviews.clone()), Settings::default()).unwrap();
    let world = behind(config, false, Door::Guarded(guard));
    world.appear();
    (world, reviews)
}

#[tokio::test(start_paused = true)]
async fn whoever_may_not_is_told_in_the_api_servers_words_which_permission_is_missing() {
    let (world, reviews) = with_a_door();
    let (status, body) = world.ask("GET", "/api/v1/namespaces/default/pods").await;
    assert_eq!(status, 403);
    assert_eq!(
        body["message"],
        format!("pods is forbidden: User \"alice\" cannot {LIST}")
    );
    // The same of what is not configured.
    let (status, _) = world
        .ask("GET", "/api/v1/namespaces/default/services")
        .await;
    assert_eq!(status, 403);
    let (status, body) = world.ask("GET", "/api").await;
    assert_eq!(status, 403);
    let of_path = "forbidden: User \"alice\" cannot get path \"/api\"";
    assert_eq!(body["message"], of_path);
    reviews.allow("alice", LIST);
    tokio::time::advance(Duration::from_secs(10)).await;
    let (status, body) = world.ask("GET", "/api/v1/namespaces/default/pods").await;
    assert_eq!((status, body["items"].as_array().unwrap().len()), (200, 1));
}

#[tokio::test(start_paused = true)]
async fn nobody_reads_without_credentials_but_whether_the_server_lives() {
    let (world, reviews) = with_a_door();
    reviews.take("the-callers");
    for uri in ["/api", "/version", "/api/v1/pods", "/openapi/v3", "/x"] {
        let (status, body) = world.ask("GET", uri).await;
        assert_eq!(
            (status, &body["reason"]),
            (401, &json!("Unauthorized")),
            "{uri}"
        );
    }
    assert_eq!(world.send("GET", "/livez").await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_watch_says_why_it_ends_when_the_right_to_it_is_gone() {
    let (world, reviews) = with_a_door();
    reviews.allow("alice", WATCH);
    let uri = "/api/v1/namespaces/default/pods?watch=1&resourceVersion=10";
    let mut body = world.send("GET", uri).await.into_body();
    reviews.deny("alice", WATCH);
    let begun = tokio::time::Instant::now();
    let last = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(begun.elapsed() <= Duration::from_secs(30));
    let line: Value = serde_json::from_slice(&last).unwrap();
    assert_eq!(
        (&line["type"], &line["object"]["code"]),
        (&json!("ERROR"), &json!(403))
    );
    assert!(body.frame().await.is_none());
}

const GET: &str = r#"get resource "pods" in API group "", name "a", in the namespace "default""#;

#[tokio::test(start_paused = true)]
async fn one_object_that_is_not_taken_goes_with_its_connection_and_the_right_to_it() {
    let (world, reviews) = with_a_door();
    reviews.allow("alice", GET);
    let (unread, read) = (Peer::default(), Peer::default());
    let uri = "/api/v1/namespaces/default/pods/a?resourceVersion=0";
    let answer = world.send_over(&unread, "GET", uri).await;
    assert_eq!(answer.status(), 200);
    let taken = world.send_over(&read, "GET", uri).await;
    let taken = taken.into_body().collect().await.unwrap().to_bytes();
    let json: Value = serde_json::from_slice(&taken).unwrap();
    assert_eq!(json["metadata"]["name"], "a");
    drop(taken);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!unread.cut.is_cancelled());
    reviews.deny("alice", GET);
    tokio::time::sleep(Duration::from_secs(28)).await;
    assert!(unread.cut.is_cancelled() && !read.cut.is_cancelled());
    drop(answer);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_followed_goes_on_for_as_long_as_its_reader_may() {
    let log = r#"get resource "pods/log" in API group "", name "a", in the namespace "default""#;
    let (world, reviews) = guarded(FacadeConfig {
        passthrough: true,
        ..FacadeConfig::default()
    });
    reviews.allow("alice", log);
    let peer = Peer::default();
    let uri = "/api/v1/namespaces/default/pods/a/log?follow=true";
    let mut body = world.send_over(&peer, "GET", uri).await.into_body();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!peer.cut.is_cancelled());
    reviews.deny("alice", log);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(body.frame().await.unwrap().is_err(), "it is cut short");
}
