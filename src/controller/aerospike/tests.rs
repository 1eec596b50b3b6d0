//! The whole controller but for the cluster: from changes in the cache, and what model nodes answer, to the board.
//! The clock is paused, so that what takes time takes exactly that.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower_test::mock;

use super::{
    access::Access,
    apply::{Aerospike, Kinds, Role, Shared, watch_over},
    facts::{ClusterId, Operator},
};
use crate::{
    aerospike::{
        connect::{Connect, Stream},
        evidence::{Failure, Member},
        model::{Manner, Model, Rules, Wire},
    },
    cache::{Limits, Phase},
    config::{AerospikeConfig, Patience, ProbeMode},
    controller::{
        self, Settings,
        fake::{Fed, at_once, between_ticks},
        workload::{PodsAndSets, Workload},
    },
    heartbeat::Heartbeats,
    object::{Key, Object, OwnerReference, tests::object},
    readiness::{Answer, Basis, Board, State},
    shutdown::Shutdown,
    upstream::{Upstream, UpstreamSettings},
};

const PROBE: Duration = Duration::from_secs(5);
const SETTLING: Duration = Duration::from_millis(500);

fn config() -> AerospikeConfig {
    AerospikeConfig {
        mode: ProbeMode::Watch,
        probe_interval: PROBE,
        settling_interval: SETTLING,
        ..AerospikeConfig::default()
    }
}

/// The model's wire, counting what is open.
#[derive(Debug)]
struct Counted {
    wire: Wire,
    open: Arc<AtomicUsize>,
}

struct Open<S> {
    stream: S,
    open: Arc<AtomicUsize>,
}

impl<S> Drop for Open<S> {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<S: tokio::io::AsyncRead + Unpin> tokio::io::AsyncRead for Open<S> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: tokio::io::AsyncWrite + Unpin> tokio::io::AsyncWrite for Open<S> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connect for Counted {
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, Result<Box<dyn Stream>, Failure>> {
        let (connecting, open) = (self.wire.connect(address), self.open.clone());
        async move {
            let stream = connecting.await?;
            open.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(Open { stream, open }) as Box<dyn Stream>)
        }
        .boxed()
    }
}

/// A cluster `default/cache`, its nodes, and everything that judges them.
pub(super) struct Scene {
    pub(super) model: Model,
    clusters: Fed,
    sets: Fed,
    pods: Fed,
    board: Board,
    shared: Arc<Shared>,
    /// Connections to nodes.
    open: Arc<AtomicUsize>,
    /// Paths that the API server was asked for; answered from `listed`.
    polled: Arc<std::sync::Mutex<Vec<String>>>,
    /// As last written.
    known: BTreeMap<usize, (Member, bool)>,
    shutdown: Shutdown,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.shutdown.cut();
    }
}

const SETTINGS: Settings = Settings {
    debounce: Duration::ZERO,
    concurrency: 4,
    timeout: Duration::from_secs(60),
    backoff: Duration::from_millis(100),
    backoff_max: Duration::from_secs(1),
};

impl Scene {
    /// With a CRD and a cluster of so many nodes, which are up and settled.
    async fn settled(size: usize, config: AerospikeConfig) -> Self {
        let mut scene = Self::new(size, config, true);
        scene.resize(size);
        scene.sync();
        scene
            .until("it is safe", |scene| {
                scene.state("SafeToDisrupt") == State::Ready
            })
            .await;
        scene
    }

    fn new(size: usize, config: AerospikeConfig, installed: bool) -> Self {
        Self::of(Model::new(size, Rules::default(), 7), config, installed)
    }

    pub(super) fn of(model: Model, config: AerospikeConfig, installed: bool) -> Self {
        let shutdown = Shutdown::new();
        let mut clusters = Fed::unlisted(
            "acko.io",
            "AerospikeCluster",
            "aerospikeclusters",
            &shutdown,
        );
        if installed {
            clusters.list();
        }
        let sets = Fed::new("apps", "StatefulSet", "statefulsets", &shutdown);
        let pods = Fed::new("", "Pod", "pods", &shutdown);
        let board = Board::new(
            ["aerospikeclusters", "statefulsets", "pods"],
            Limits::default(),
        );
        let beats = Heartbeats::default();
        tokio::spawn(board.clone().run(beats.register("board"), shutdown.clone()));
        let with_board = |fed: &Fed| {
            let judged = board.kind(&fed.kind.name).unwrap().clone();
            judged.expect([]);
            (fed.kind.clone(), judged)
        };
        let kinds = Kinds {
            clusters: vec![with_board(&clusters)],
            sets: with_board(&sets),
            pods: with_board(&pods),
        };
        let open = Arc::new(AtomicUsize::new(0));
        let counted = Counted {
            wire: Wire::new(&model),
            open: open.clone(),
        };
        let access = Access {
            plain: Arc::new(counted),
            tls: None,
            credentials: None,
        };
        let polled = Arc::new(std::sync::Mutex::new(Vec::new()));
        let upstream = api_server(&model, polled.clone());
        let shared = Shared::with_access(kinds.clone(), config, upstream, Ok(Arc::new(access)));
        let patience = Patience::default();
        let beat = beats.register("aerospike");
        tokio::spawn(watch_over(shared.clone(), patience, beat, shutdown.clone()));
        let feeds = [(clusters.kind.clone(), clusters.feed.clone())];
        let kind = kinds.clusters[0].0.clone();
        for role in [Role::Clusters(kind), Role::Sets] {
            let controller = Aerospike::new(shared.clone(), role);
            let triggers = controller.triggers(sets.feed.clone(), pods.feed.clone(), &feeds);
            let beat = beats.register("controller");
            tokio::spawn(controller::run(
                controller,
                triggers,
                SETTINGS,
                beat,
                shutdown.clone(),
            ));
        }
        for (fed, role, (kind, judged)) in [
            (&sets, "statefulsets.apps", kinds.sets),
            (&pods, "pods", kinds.pods),
        ] {
            let workload = Workload::new(kind, judged, PodsAndSets::default());
            let triggers = workload.triggers(role, fed.feed.clone());
            let beat = beats.register("workload");
            tokio::spawn(controller::run(
                workload,
                triggers,
                SETTINGS,
                beat,
                shutdown.clone(),
            ));
        }
        Self {
            model,
            clusters,
            sets,
            pods,
            board,
            shared,
            open,
            polled,
            known: BTreeMap::new(),
            shutdown,
        }
    }

    /// Writes the cluster's object.
    pub(super) fn resize(&mut self, size: usize) {
        let json = json!({"spec": {"size": size}, "status": {"observedGeneration": 1}});
        self.clusters.put("cache", "c", None, &json.to_string());
    }

    fn put_set(&mut self, replicas: usize) {
        let owner = OwnerReference {
            api_version: "acko.io/v1alpha1".into(),
            kind: "AerospikeCluster".into(),
            name: "cache".into(),
            uid: "c".into(),
            controller: true,
        };
        self.sets.upsert(Object {
            uid: "s".into(),
            labels: labels().into_iter().collect(),
            owner_references: [owner].into(),
            json: json!({"spec": {"replicas": replicas}}).to_string().into(),
            ..object("default", "cache")
        });
    }

    /// Writes pods as the model has them, those that differ from what was written.
    pub(super) fn sync(&mut self) {
        for node in 0..8 {
            let Some(member) = self.model.member(node, Wire::address(node)) else {
                if self.known.remove(&node).is_some() {
                    self.pods.delete(&name(node));
                }
                continue;
            };
            let serving = self.model.is_serving(node);
            let new = (member, serving);
            if self.known.get(&node) == Some(&new) {
                continue;
            }
            let replaced = self
                .known
                .get(&node)
                .is_some_and(|(known, _)| known.uid != new.0.uid);
            if replaced {
                self.pods.delete(&name(node));
            }
            self.pods.upsert(pod(node, &new.0, serving));
            self.known.insert(node, new);
        }
    }

    pub(super) fn answer(&self, kind: &str, name: &str, condition: &str) -> Option<Answer> {
        let verdict = self.board.kind(kind)?.get(&Key::new("default", name))?;
        let standing = match condition {
            "" => &verdict.standing,
            name => verdict.condition(name)?,
        };
        Some(standing.answer.clone())
    }

    /// Of the cluster.
    pub(super) fn says(&self, condition: &str) -> Option<Answer> {
        self.answer("aerospikeclusters", "cache", condition)
    }

    fn state(&self, condition: &str) -> State {
        self.says(condition).map_or(State::Gone, |it| it.state)
    }

    fn reason(&self, condition: &str) -> String {
        self.says(condition)
            .map_or_else(String::new, |it| it.reason.to_string())
    }

    fn node(&self, node: usize, condition: &str) -> State {
        self.answer("pods", &name(node), condition)
            .map_or(State::Gone, |it| it.state)
    }

    /// Writes pods as the model goes on, until something is so.
    async fn until(&mut self, what: &str, is: impl Fn(&Self) -> bool) -> Duration {
        let begun = Instant::now();
        while !is(self) {
            assert!(
                begun.elapsed() < Duration::from_secs(120),
                "not in time: {what}; {:?} {:?}",
                self.says("Joined"),
                self.says("SafeToDisrupt")
            );
            sleep(Duration::from_millis(5)).await;
            self.sync();
        }
        begun.elapsed()
    }

    fn polls(&self) -> Vec<String> {
        std::mem::take(&mut *self.polled.lock().unwrap())
    }

    fn prove(&mut self) {
        let now = Instant::now().into_std();
        for fed in [&self.clusters, &self.sets, &self.pods] {
            fed.writer.set_status(Phase::Live, "", "");
            fed.writer.prove(now);
        }
    }

    fn cut(&self) {
        for fed in [&self.clusters, &self.sets, &self.pods] {
            fed.writer.set_status(Phase::BackingOff, "Refused", "no");
        }
    }
}

fn name(node: usize) -> String {
    format!("cache-{node}")
}

fn labels() -> [(&'static str, &'static str); 2] {
    [
        ("app.kubernetes.io/name", "aerospike-cluster"),
        ("app.kubernetes.io/instance", "cache"),
    ]
}

fn status(member: &Member, serving: bool) -> Value {
    let started = member.incarnation.started.map(|at| {
        let at = Timestamp::try_from(at).unwrap();
        json!({"running": {"startedAt": at.to_string()}})
    });
    let ready = if serving { "True" } else { "False" };
    json!({
        "phase": "Running",
        "podIP": member.address.unwrap().ip().to_string(),
        "conditions": [
            {"type": "ContainersReady", "status": ready},
            // The gate is on, and nobody opens it.
            {"type": "Ready", "status": "False"},
        ],
        "containerStatuses": [{
            "name": "aerospike-server",
            "restartCount": member.incarnation.restarts,
            "ready": serving,
            "state": started.unwrap_or_else(|| json!({})),
        }],
    })
}

fn pod(node: usize, member: &Member, serving: bool) -> Object {
    let owner = OwnerReference {
        api_version: "apps/v1".into(),
        kind: "StatefulSet".into(),
        name: "cache".into(),
        uid: "s".into(),
        controller: true,
    };
    Object {
        uid: member.uid.as_str().into(),
        labels: labels().into_iter().collect(),
        owner_references: [owner].into(),
        json: json!({"status": status(member, serving)})
            .to_string()
            .into(),
        ..object("default", &name(node))
    }
}

/// Answers LISTs of pods, and GETs of the cluster, from the model.
fn api_server(model: &Model, polled: Arc<std::sync::Mutex<Vec<String>>>) -> Upstream {
    let (service, mut server) = mock::pair::<Request<Body>, Response<Body>>();
    let client = Client::new(service, "default");
    let model = model.clone();
    tokio::spawn(async move {
        while let Some((request, answer)) = server.next_request().await {
            let path = request.uri().to_string();
            polled.lock().unwrap().push(path.clone());
            let meta = |name: &str, uid: &str| {
                json!({"name": name, "namespace": "default", "uid": uid, "resourceVersion": "9",
                    "labels": BTreeMap::from(labels()),
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "cache",
                        "uid": "s", "controller": true}]})
            };
            let body = if path.contains("/pods?") {
                let pods = (0..8).filter_map(|node| {
                    let member = model.member(node, Wire::address(node))?;
                    let status = status(&member, model.is_serving(node));
                    Some(json!({"metadata": meta(&name(node), &member.uid), "status": status}))
                });
                json!({"items": pods.collect::<Vec<_>>()})
            } else {
                json!({"metadata": meta("cache", "c"), "spec": {"size": model.size()},
                    "status": {"observedGeneration": 1}})
            };
            answer.send_response(Response::new(Body::from(body.to_string().into_bytes())));
        }
    });
    Upstream::fixed(client.clone(), client, UpstreamSettings::default())
}

fn details(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.details).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_ready_once_its_nodes_say_so_and_details_say_what_they_said() {
    let mut scene = Scene::new(3, config(), true);
    scene.resize(3);
    scene.sync();
    scene
        .until("they are asked", |scene| {
            scene.state("Joined") == State::NotReady
        })
        .await;
    assert_eq!(scene.reason("SafeToDisrupt"), "NodeStarting");
    assert_eq!(scene.state(""), State::NotReady);
    scene
        .until("it is safe", |scene| {
            scene.state("SafeToDisrupt") == State::Ready
        })
        .await;
    assert_eq!(scene.state(""), State::Ready, "though no gate is open");
    for node in 0..3 {
        assert_eq!(scene.node(node, "Joined"), State::Ready);
        assert_eq!(scene.node(node, "SafeToDisrupt"), State::Ready);
        assert_eq!(
            scene.node(node, ""),
            State::NotReady,
            "the pod as such is not"
        );
    }
    let joined = scene.says("Joined").unwrap();
    let details = details(&joined);
    assert_eq!(details["size"], 3);
    assert_eq!(details["sizeFrom"], "spec");
    assert!(details["clusterKey"].is_string());
    let nodes = details["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 3);
    for field in [
        "pod",
        "uid",
        "nodeId",
        "clusterKey",
        "build",
        "asked",
        "started",
        "address",
    ] {
        assert!(nodes[0][field].is_string(), "{field}: {}", nodes[0]);
    }
    for field in [
        "migratingPartitions",
        "roundTripMs",
        "clusterSize",
        "uptimeSeconds",
        "restarts",
    ] {
        assert!(nodes[0][field].is_number(), "{field}: {}", nodes[0]);
    }
    assert_eq!(nodes[0]["containersReady"], true);
    let node = scene.answer("pods", "cache-1", "Joined").unwrap();
    assert_eq!(self::details(&node), nodes[1]);
    let Basis::Probes { window, expires } = joined.basis else {
        panic!("it rests on probes")
    };
    assert!(window.from <= window.to && expires == window.to + 2 * PROBE);
    let verdict = scene.board.kind("aerospikeclusters").unwrap();
    let verdict = verdict.get(&Key::new("default", "cache")).unwrap();
    assert_eq!(
        (verdict.finding.parts.total, verdict.finding.parts.ready),
        (3, 3)
    );
    assert!(scene.polls().is_empty(), "nobody asked the API server");
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_seen_at_once_and_safe_again_within_the_settling_interval() {
    let mut scene = Scene::settled(3, config()).await;
    scene.model.replace(1);
    let seen = scene
        .until("the impostor is noticed", |scene| {
            scene.state("SafeToDisrupt") != State::Ready
        })
        .await;
    assert!(seen < Duration::from_millis(50), "{seen:?}");
    assert_ne!(scene.node(0, "SafeToDisrupt"), State::Ready);
    assert_ne!(scene.node(1, "Joined"), State::Ready);
    scene
        .until("it is safe again", |scene| {
            scene.state("SafeToDisrupt") == State::Ready
        })
        .await;
    let truth = scene.model.truth();
    let (since, safe) = *truth.last().unwrap();
    assert!(safe);
    let late = since.elapsed();
    assert!(late <= SETTLING + Duration::from_millis(50), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn that_it_is_safe_no_more_is_shown_before_its_task_has_its_turn() {
    let mut scene = Scene::settled(3, config()).await;
    scene.model.replace(1);
    scene.sync();
    assert_eq!(scene.state("SafeToDisrupt"), State::Ready);
    let cluster = ClusterId {
        operator: Operator::Acko,
        key: Key::new("default", "cache"),
    };
    // Without an await nobody else runs.
    scene.shared.refresh(&cluster).unwrap();
    assert_ne!(scene.state("SafeToDisrupt"), State::Ready);
    assert_ne!(scene.node(0, "SafeToDisrupt"), State::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_warm_restart_that_no_pod_shows_is_found_by_asking() {
    let mut scene = Scene::settled(3, config()).await;
    let uid = scene.known[&1].0.clone();
    scene.model.warm_restart(1);
    let seen = scene
        .until("it is found", |scene| {
            scene.state("SafeToDisrupt") != State::Ready
        })
        .await;
    assert!(seen <= PROBE + Duration::from_millis(50), "{seen:?}");
    assert_eq!(scene.known[&1].0, uid, "its pod is the same");
    scene
        .until("it is safe again", |scene| {
            scene.state("SafeToDisrupt") == State::Ready
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn mute_nodes_and_noise_make_it_unknown_and_never_ready() {
    for manner in [Manner::Mute, Manner::Garbage] {
        let mut scene = Scene::settled(3, config()).await;
        scene.model.set_manner(2, manner);
        scene
            .until("it is unknown", |scene| {
                scene.state("Joined") == State::Unknown
            })
            .await;
        let begun = Instant::now();
        while begun.elapsed() < 4 * PROBE {
            assert_eq!(scene.state("SafeToDisrupt"), State::Unknown, "{manner:?}");
            sleep(Duration::from_millis(50)).await;
        }
        let nodes = details(&scene.says("Joined").unwrap())["nodes"].clone();
        assert!(nodes[2]["error"].is_string(), "{}", nodes[2]);
        assert!(
            nodes[0]["error"].is_null(),
            "the others said what they know"
        );
        scene.model.set_manner(2, Manner::Prompt);
        let back = scene
            .until("it is back", |scene| {
                scene.state("SafeToDisrupt") == State::Ready
            })
            .await;
        assert!(back < 2 * PROBE, "{back:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_left_alone_is_asked_as_soon_as_its_pause_is_over() {
    let pause = Duration::from_millis(4100);
    let config = AerospikeConfig {
        breaker_failures: 1,
        breaker_pause: pause,
        settling_interval: Duration::from_millis(1500),
        ..config()
    };
    let timeout = config.timeout;
    let mut scene = Scene::settled(2, config).await;
    scene.model.set_manner(1, Manner::Mute);
    scene
        .until("it was asked in vain", |scene| {
            scene.state("Joined") == State::Unknown
        })
        .await;
    scene.model.set_manner(1, Manner::Prompt);
    let back = scene
        .until("it is back", |scene| {
            scene.state("SafeToDisrupt") == State::Ready
        })
        .await;
    let late = back.saturating_sub(pause - timeout);
    assert!(late < Duration::from_millis(20), "{back:?}");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_cluster_drops_what_was_asked_and_its_end_closes_everything() {
    let mut scene = Scene::settled(3, config()).await;
    for node in 0..3 {
        scene
            .model
            .set_manner(node, Manner::Slow(Duration::from_millis(800)));
    }
    let asking = |scene: &Scene| scene.open.load(Ordering::SeqCst) == 3;
    scene.until("they are asked", asking).await;
    sleep(Duration::from_millis(100)).await;
    scene.resize(4);
    sleep(Duration::from_millis(20)).await;
    assert_eq!(
        scene.reason("Joined"),
        "MissingNodes",
        "at once, by what is known"
    );
    let joined = scene.says("Joined").unwrap();
    assert!(
        joined.message.contains("asks for 4 nodes"),
        "{}",
        joined.message
    );
    scene.until("they are asked anew", asking).await;
    scene.clusters.delete("cache");
    sleep(Duration::from_millis(20)).await;
    assert_eq!(
        scene.open.load(Ordering::SeqCst),
        0,
        "nobody is asked any more"
    );
    assert_eq!(scene.state(""), State::Gone);
    assert_eq!(
        scene.node(0, "Joined"),
        State::Gone,
        "its pods have no such condition"
    );
    sleep(4 * PROBE).await;
    assert_eq!(scene.open.load(Ordering::SeqCst), 0);
    scene.resize(3);
    scene
        .until("it is judged anew", |scene| {
            scene.state("SafeToDisrupt") != State::Gone
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_being_deleted_is_missed_before_it_is_gone() {
    let mut scene = Scene::settled(2, config()).await;
    let (member, serving) = scene.known[&1].clone();
    let going = Object {
        deletion_timestamp: Some("2026-01-01T00:00:00Z".into()),
        ..pod(1, &member, serving)
    };
    between_ticks().await;
    scene.pods.upsert(going);
    at_once().await;
    let safe = scene.says("SafeToDisrupt").unwrap();
    assert_eq!(
        (&*safe.reason, safe.state),
        ("MissingNodes", State::NotReady)
    );
    assert!(
        safe.message.ends_with("; being deleted: cache-1"),
        "{}",
        safe.message
    );
    let going = scene.answer("pods", "cache-1", "SafeToDisrupt").unwrap();
    assert_eq!(&*going.reason, "Terminating");
    sleep(Duration::from_millis(5)).await;
    let verdict = scene.board.kind("pods").unwrap();
    let verdict = verdict.get(&Key::new("default", "cache-1")).unwrap();
    let version = verdict.condition("Joined").unwrap().version.clone();
    assert_eq!(version.as_deref(), Some(&*verdict.finding.resource_version));
}

#[tokio::test(start_paused = true)]
async fn without_the_crd_the_stateful_set_says_how_many_and_carries_the_verdict_until_it_comes() {
    let mut scene = Scene::new(3, config(), false);
    scene.put_set(3);
    scene.sync();
    let on_set = |scene: &Scene, condition: &str| {
        scene
            .answer("statefulsets", "cache", condition)
            .map_or(State::Gone, |it| it.state)
    };
    scene
        .until("it is safe", |scene| {
            on_set(scene, "SafeToDisrupt") == State::Ready
        })
        .await;
    let joined = scene.answer("statefulsets", "cache", "Joined").unwrap();
    assert_eq!(details(&joined)["sizeFrom"], "statefulsets");
    assert_eq!(scene.node(0, "SafeToDisrupt"), State::Ready);

    // The CRD comes, and the cluster's object with it.
    scene.clusters.list();
    sleep(Duration::from_millis(300)).await;
    scene.resize(3);
    scene
        .until("the cluster has it", |scene| {
            scene.state("SafeToDisrupt") == State::Ready
        })
        .await;
    assert_eq!(on_set(&scene, "Joined"), State::Gone, "it is said once");
    assert_eq!(scene.node(0, "SafeToDisrupt"), State::Ready);

    // And goes.
    scene.clusters.writer.retire(Instant::now().into_std());
    scene
        .clusters
        .writer
        .set_status(Phase::Removed, "Removed", "gone");
    scene
        .until("the set has it again", |scene| {
            on_set(scene, "SafeToDisrupt") == State::Ready
        })
        .await;
    assert_eq!(scene.state(""), State::Gone);
}

#[tokio::test(start_paused = true)]
async fn by_watch_nothing_is_known_while_it_is_cut_and_all_at_once_after() {
    let mut scene = Scene::settled(3, config()).await;
    scene.prove();
    scene.cut();
    sleep(Duration::from_secs(14)).await;
    assert_eq!(
        scene.state("SafeToDisrupt"),
        State::Ready,
        "it may just be reconnecting"
    );
    sleep(Duration::from_secs(2)).await;
    for condition in ["", "Joined", "SafeToDisrupt"] {
        let answer = scene.says(condition).unwrap();
        assert_eq!((&*answer.reason, answer.state), ("Stale", State::Unknown));
    }
    assert_eq!(scene.node(0, "SafeToDisrupt"), State::Unknown);
    scene.model.stop(0);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(scene.state("SafeToDisrupt"), State::Unknown);
    assert_eq!(scene.open.load(Ordering::SeqCst), 0);
    scene.prove();
    sleep(Duration::from_millis(250)).await;
    assert_eq!(scene.reason("SafeToDisrupt"), "NodeStarting");
    scene.model.start(0);
    scene
        .until("it is safe", |scene| {
            scene.state("SafeToDisrupt") == State::Ready
        })
        .await;
    assert!(scene.polls().is_empty(), "by watch nobody ever polls");
}

#[tokio::test(start_paused = true)]
async fn by_watch_and_poll_it_is_kept_true_by_one_list_an_interval_while_the_watch_is_cut() {
    let config = AerospikeConfig {
        mode: ProbeMode::WatchAndPoll,
        ..config()
    };
    let mut scene = Scene::settled(3, config).await;
    assert!(scene.polls().is_empty(), "not while the watch tells");
    scene.prove();
    scene.cut();
    sleep(Duration::from_secs(16)).await;
    scene.polls();
    sleep(6 * PROBE).await;
    let polls = scene.polls();
    let lists: Vec<_> = polls
        .iter()
        .filter(|path| path.contains("/pods?"))
        .collect();
    assert!((5..=7).contains(&lists.len()), "{polls:#?}");
    assert_eq!(
        lists[0],
        "/api/v1/namespaces/default/pods?&labelSelector=app.kubernetes.io%2Fname%3Daerospike-cluster%2C\
         app.kubernetes.io%2Finstance%3Dcache"
    );
    let gets = polls.len() - lists.len();
    assert!(
        (5..=7).contains(&gets),
        "how many there are to be is read too: {polls:#?}"
    );
    assert_eq!(scene.state("SafeToDisrupt"), State::Ready);
    // What the watch does not tell is found.
    scene.model.scale(4);
    sleep(PROBE + Duration::from_millis(100)).await;
    assert_ne!(scene.state("SafeToDisrupt"), State::Ready);
    sleep(Duration::from_secs(20)).await;
    let safe = scene.says("SafeToDisrupt").unwrap();
    assert_eq!(safe.state, State::Ready, "{}", safe.message);
    assert!(safe.message.contains("cluster of 4"), "{}", safe.message);
    scene.prove();
    scene.resize(4);
    scene.sync();
    sleep(Duration::from_millis(300)).await;
    scene.polls();
    sleep(4 * PROBE).await;
    assert!(scene.polls().is_empty(), "the watch tells again");
    assert_eq!(scene.state("SafeToDisrupt"), State::Ready);
}

#[tokio::test(start_paused = true)]
async fn by_poll_pods_are_read_from_the_api_server_alone() {
    let config = AerospikeConfig {
        mode: ProbeMode::Poll,
        ..config()
    };
    let scene = Scene::settled(3, config).await;
    scene.polls();
    sleep(6 * PROBE).await;
    let polls = scene.polls();
    assert!((5..=7).contains(&polls.len()), "{polls:#?}");
    assert!(
        polls.iter().all(|path| path.contains("/pods?")),
        "{polls:#?}"
    );
    // While it settles nodes are asked more often, the API server is not.
    scene.model.fill(0, 99);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(scene.reason("SafeToDisrupt"), "StopWrites");
    scene.polls();
    sleep(6 * PROBE).await;
    let polls = scene.polls();
    assert!((5..=7).contains(&polls.len()), "{polls:#?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_has_nodes_asked_sooner_but_no_more_often_than_while_they_settle() {
    let scene = Scene::settled(3, config()).await;
    let judged = scene.board.kind("aerospikeclusters").unwrap().clone();
    let key = Key::new("default", "cache");
    let asked = || match scene.says("SafeToDisrupt").unwrap().basis {
        Basis::Probes { window, .. } => window.from,
        Basis::Object(_) => panic!("it rests on probes"),
    };
    sleep(SETTLING).await;
    let before = asked();
    judged.wish(&key);
    sleep(Duration::from_millis(10)).await;
    let after = asked();
    assert!(after > before, "at once");
    for _ in 0..20 {
        judged.wish(&key);
        scene
            .board
            .kind("pods")
            .unwrap()
            .wish(&Key::new("default", "cache-2"));
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(asked(), after);
    sleep(SETTLING).await;
    assert!(asked() > after, "then once more");
}

#[tokio::test(start_paused = true)]
async fn eight_nodes_are_asked_as_fast_as_the_slowest_of_them() {
    for delay in [50, 500] {
        let mut scene = Scene::settled(8, config()).await;
        let delay = Duration::from_millis(delay);
        for node in 0..8 {
            scene.model.set_manner(node, Manner::Slow(delay));
        }
        let begun = |scene: &Scene| scene.open.load(Ordering::SeqCst) == 8;
        scene.until("they are asked", begun).await;
        let begun = Instant::now();
        scene
            .until("they have answered", |scene| {
                scene.open.load(Ordering::SeqCst) == 0
            })
            .await;
        // Twice, one after the other: what is ready was asked twice.
        let took = begun.elapsed();
        assert!(took <= 2 * (delay + Duration::from_millis(5)), "{took:?}");
        let nodes = details(&scene.says("Joined").unwrap())["nodes"].clone();
        for node in nodes.as_array().unwrap() {
            let trip = node["roundTripMs"].as_f64().unwrap() / 1000.0;
            assert!(
                trip <= (delay + Duration::from_millis(5)).as_secs_f64(),
                "{node}"
            );
        }
        assert_eq!(scene.state("SafeToDisrupt"), State::Ready);
    }
}

#[test]
fn what_it_reads_are_paths() {
    use crate::controller::Reconciler;
    for path in Aerospike::READS.iter().flat_map(|reads| reads.paths) {
        path.parse::<crate::object::Path>()
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}
