//! The facade in front of a real cluster: what already speaks to Kubernetes, unmodified, by another kubeconfig.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use futures::StreamExt;
use informerd::proto::{GetObjectRequest, ListObjectsRequest};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client, ResourceExt,
    runtime::{WatchStreamExt, controller::Action, reflector, watcher},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, sleep, timeout},
};

use crate::{
    cluster::{self, Churn, ChurnOptions, Cluster, Daemon, Proxy, client, has_go, informers},
    support::{connect, discard, eventually, namespace, scope, seed, succeeded, text, within},
};

/// Runs kubectl by the facade's kubeconfig; it must succeed.
async fn kubectl(cluster: &Cluster, kubeconfig: &Path, args: &[&str]) -> String {
    succeeded(&cluster.kubectl_with(kubeconfig, args).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_reads_through_the_facade() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    namespace(cluster, "facade-kubectl").await;
    let here = ["-n", "facade-kubectl"];
    let create = [
        &["create", "deployment", "web", "--image=x", "--replicas=3"],
        &here[..],
    ];
    cluster.kubectl_ok(&create.concat()).await;
    let ready = ["rollout", "status", "deployment/web", "--timeout=60s"];
    cluster.kubectl_ok(&[&ready, &here[..]].concat()).await;
    let config = "
upstream: {userAgent: informerd-kubectl}
kinds: [pods, deployments.apps, replicasets.apps, nodes, namespaces, events, leases, services]";
    let daemon = Daemon::start(config, cluster.kubeconfig()).await;
    let kubeconfig = daemon.kubeconfig().await;
    let direct = async |args: &[&str]| cluster.kubectl_ok(&[args, &here[..]].concat()).await;
    let facade =
        async |args: &[&str]| kubectl(cluster, &kubeconfig, &[args, &here[..]].concat()).await;

    for args in [
        &["get", "pods", "-o", "name"][..],
        &["get", "pods", "-l", "app=web", "-o", "name"],
        &["get", "pods", "-l", "app!=web", "-o", "name"],
        &[
            "get",
            "pods",
            "--field-selector",
            "status.phase=Running",
            "-o",
            "name",
        ],
        &["get", "pods", "--chunk-size=1", "-o", "name"],
        &["get", "deploy,rs", "-o", "name"],
        &[
            "get",
            "deployment",
            "web",
            "-o",
            "jsonpath={.spec.replicas}",
        ],
        &["get", "nodes", "-o", "name"],
        &[
            "api-resources",
            "--api-group=apps",
            "-o",
            "name",
            "--verbs=create",
        ],
    ] {
        if args[0] == "api-resources" {
            assert_eq!(facade(args).await, "", "nothing can be created here");
        } else {
            assert_eq!(facade(args).await, direct(args).await, "{args:?}");
        }
    }
    // Tables, but for ages that move on.
    let columns = |table: String| -> Vec<String> {
        let lines = table.lines().map(|line| {
            let cells: Vec<&str> = line.split_whitespace().collect();
            cells.join(" ")
        });
        lines.collect()
    };
    for args in [
        &["get", "pods", "-o", "wide"][..],
        &["get", "pods"],
        &["get", "deployments"],
        &["get", "replicasets", "-o", "wide"],
        &["get", "namespace", "facade-kubectl"],
    ] {
        eventually(&format!("{args:?} is the same table"), || async {
            columns(facade(args).await) == columns(direct(args).await)
        })
        .await;
    }
    let yaml = facade(&["get", "deployment", "web", "-o", "yaml"]).await;
    assert!(
        yaml.contains("kind: Deployment") && !yaml.contains("managedFields"),
        "{yaml}"
    );
    let all = facade(&["get", "all", "-o", "name"]).await;
    assert!(
        all.contains("deployment.apps/web") && all.contains("pod/web-"),
        "{all}"
    );
    let described = facade(&["describe", "deployment", "web"]).await;
    assert!(
        described.contains("3 desired | 3 updated | 3 total | 3 available"),
        "{described}"
    );
    let pod = facade(&["get", "pods", "-o", "jsonpath={.items[0].metadata.name}"]).await;
    let described = facade(&["describe", "pod", &pod]).await;
    assert!(
        described.contains("Controlled By:  ReplicaSet/web-"),
        "{described}"
    );
    let described = facade(&["describe", "node", "node-0"]).await;
    assert!(described.contains("Non-terminated Pods"), "{described}");
    facade(&[
        "wait",
        "--for=condition=Available",
        "deployment/web",
        "--timeout=30s",
    ])
    .await;
    facade(&["rollout", "status", "deployment/web", "--timeout=30s"]).await;
    let version = facade(&["version", "-o", "json"]).await;
    assert!(version.contains("serverVersion"), "{version}");

    // What is not there, and what may not be done.
    let output = cluster
        .kubectl_with(
            &kubeconfig,
            &["get", "pods", "nobody", "-n", "facade-kubectl"],
        )
        .await;
    assert!(
        text(&output).1.contains("pods \"nobody\" not found"),
        "{output:?}"
    );
    let output = cluster
        .kubectl_with(
            &kubeconfig,
            &["delete", "pod", &pod, "-n", "facade-kubectl"],
        )
        .await;
    let (_, err) = text(&output);
    assert!(
        !output.status.success() && err.contains("informerd serves reads only"),
        "{err}"
    );
    let output = cluster.kubectl_with(&kubeconfig, &["get", "secrets"]).await;
    assert!(!output.status.success(), "secrets are not configured");

    // Watches: one with what was there, one without.
    let mut watch = cluster.kubectl_command(&kubeconfig);
    watch.args(["get", "pods", "-n", "facade-kubectl", "-w", "--no-headers"]);
    let mut only = cluster.kubectl_command(&kubeconfig);
    only.args([
        "get",
        "pods",
        "-n",
        "facade-kubectl",
        "--watch-only",
        "--no-headers",
    ]);
    let start = |mut command: Command| {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        child.expect("kubectl starts")
    };
    let (mut watch, mut only) = (start(watch), start(only));
    let lines = |child: &mut Child| BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut watch_lines, mut only_lines) = (lines(&mut watch), lines(&mut only));
    for _ in 0..3 {
        assert!(next(&mut watch_lines).await.contains("Running"));
    }
    // Both are open before anything changes.
    eventually("both watch", || async {
        daemon
            .metric("informerd_kube_watches{resource=\"pods\"}")
            .await
            == Some(2.0)
    })
    .await;
    let scale = [&["scale", "deployment", "web", "--replicas=4"], &here[..]];
    cluster.kubectl_ok(&scale.concat()).await;
    assert!(next(&mut watch_lines).await.contains("Pending"));
    assert!(next(&mut only_lines).await.contains("Pending"));
    discard(cluster, &["facade-kubectl"]).await;
}

async fn next<R: tokio::io::AsyncBufRead + Unpin>(lines: &mut Lines<R>) -> String {
    let line = timeout(Duration::from_secs(30), lines.next_line()).await;
    line.expect("a line in 30 s")
        .unwrap()
        .expect("one more line")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_sees_what_was_written_before_it() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let direct = cluster.client().await;
    // The daemon hears everything half a second late.
    let proxy = Proxy::start(cluster.address()).await.unwrap();
    let kubeconfig = cluster
        .kubeconfig_for("late", cluster::Credential::Admin, proxy.address())
        .unwrap();
    let daemon = Daemon::start("kinds: [configmaps]", &kubeconfig).await;
    let facade = client(&daemon.kubeconfig().await).await.unwrap();
    let grpc = connect(&daemon);
    proxy.delay(Duration::from_millis(300));
    let maps: Api<ConfigMap> = Api::namespaced(direct, "default");
    let seen: Api<ConfigMap> = Api::namespaced(facade, "default");
    for round in 0..10 {
        let name = format!("fresh-{round}");
        let map = json!({"metadata": {"name": name}, "data": {"round": "0"}});
        let map: ConfigMap = serde_json::from_value(map).unwrap();
        let written = maps.create(&Default::default(), &map).await.unwrap();
        match round % 4 {
            0 => {
                let read = seen.get(&name).await.expect("it was written");
                assert_eq!(read.resource_version(), written.resource_version());
            }
            1 => {
                let list = seen.list(&Default::default()).await.unwrap();
                assert!(list.items.iter().any(|map| map.name_any() == name));
            }
            2 => {
                let request = GetObjectRequest {
                    scope: Some(informerd::proto::Scope {
                        name: name.clone(),
                        ..scope("configmaps", &["default"])
                    }),
                    consistent: true,
                    ..GetObjectRequest::default()
                };
                let got = grpc.get(request).await.expect("it was written");
                assert_eq!(Some(got.0.resource_version), written.resource_version());
            }
            _ => {
                let request = ListObjectsRequest {
                    scope: Some(scope("configmaps", &["default"])),
                    consistent: true,
                    ..ListObjectsRequest::default()
                };
                let list = grpc.list(request).await.unwrap();
                assert!(list.objects.iter().any(|object| object.name == name));
            }
        }
    }
    maps.delete("fresh-0", &Default::default()).await.unwrap();
    assert!(
        seen.get_opt("fresh-0").await.unwrap().is_none(),
        "it was deleted"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_cached_is_read_as_the_caller_where_the_operator_says_so() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    let config = "facade: {passthrough: reads}\nkinds: [configmaps]";
    let daemon = Daemon::start(config, cluster.kubeconfig()).await;
    let ask = async |path: &str, user: Option<&str>| {
        cluster::get_as(&daemon.kube_url(path), user.map(cluster::token).as_deref())
            .await
            .unwrap()
    };
    let (status, body) = ask("/api/v1/namespaces/default/services", Some("admin")).await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"ServiceList\""), "{body}");
    let (status, _) = ask("/api/v1/namespaces/default/secrets", None).await;
    assert!(
        [401, 403].contains(&status),
        "nobody is lent the daemon's rights: {status}"
    );
    let (status, body) = ask("/api/v1/namespaces/default/configmaps", None).await;
    assert_eq!(status, 200, "what is cached needs nobody's: {body}");
    let (status, _) = ask("/apis", Some("admin")).await;
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_end_cleanly_when_the_daemon_is_told_to_end() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    let mut daemon = Daemon::start("kinds: [nodes]", cluster.kubeconfig()).await;
    let facade = client(&daemon.kubeconfig().await).await.unwrap();
    let request = http::Request::get("/api/v1/nodes?watch=true&resourceVersion=0")
        .body(Vec::new())
        .unwrap();
    let mut lines = facade
        .request_events::<Value>(request)
        .await
        .unwrap()
        .boxed();
    assert!(lines.next().await.unwrap().is_ok());
    let began = Instant::now();
    assert_eq!(daemon.terminate(Duration::from_secs(10)).await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "nothing was cut");
    let rest: Vec<_> = lines.collect().await;
    assert!(
        rest.iter().all(Result::is_ok),
        "it ended as a body ends: {rest:?}"
    );
}

/// How long each client is kept under churn.
fn churn_for() -> Duration {
    let given = std::env::var("INFORMERD_TEST_FACADE_SECONDS").ok();
    let seconds = given.and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

/// What a client holds of an object: uid and version.
type State = BTreeMap<String, (String, String)>;

async fn listed(client: &Client) -> State {
    let pods: Api<Pod> = Api::all(client.clone());
    let list = pods.list(&Default::default()).await.unwrap();
    list.items.iter().map(held).collect()
}

fn held(pod: &Pod) -> (String, (String, String)) {
    let key = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    let version = pod.resource_version().unwrap_or_default();
    (key, (pod.uid().unwrap_or_default(), version))
}

/// Churn, a daemon, and a proxy in front of its facade that cuts every connection every few seconds.
struct Storm {
    cluster: Cluster,
    daemon: Daemon,
    direct: Client,
    churn: Churn,
    kubeconfig: PathBuf,
    proxy: Proxy,
}

impl Storm {
    async fn begin() -> Option<Self> {
        let cluster = cluster::private().await?;
        let direct = cluster.client().await;
        let options = ChurnOptions {
            seed: seed(),
            rate: 40,
            ..ChurnOptions::default()
        };
        let churn = Churn::start(direct.clone(), options).await.unwrap();
        let config = "upstream: {userAgent: informerd-storm}\nkinds: [pods]";
        let daemon = Daemon::start(config, cluster.kubeconfig()).await;
        let proxy = Proxy::start(([127, 0, 0, 1], daemon.ports().kube).into())
            .await
            .unwrap();
        let own = std::fs::read_to_string(daemon.kubeconfig().await).unwrap();
        let address = format!("127.0.0.1:{}", daemon.ports().kube);
        let through = own.replace(&address, &proxy.address().to_string());
        let kubeconfig = daemon.config().with_file_name("cut.kubeconfig");
        std::fs::write(&kubeconfig, through).unwrap();
        Some(Self {
            cluster,
            daemon,
            direct,
            churn,
            kubeconfig,
            proxy,
        })
    }

    /// Lets it storm, with cuts; then returns what there is, once nothing is written any more.
    async fn rage(self) -> (State, Cluster, Daemon, Proxy) {
        let until = Instant::now() + churn_for();
        while Instant::now() < until {
            sleep(Duration::from_secs(2)).await;
            self.proxy.cut_all();
        }
        let (writes, failures) = self.churn.stop().await;
        assert!(failures.is_empty(), "{failures:?}");
        assert!(writes.len() > 100, "{} writes", writes.len());
        let there = listed(&self.direct).await;
        (there, self.cluster, self.daemon, self.proxy)
    }
}

/// The API server was watched by the daemon alone, and by no client of the facade. It also watches itself.
fn only_the_daemon_watched(cluster: &Cluster) {
    let Some(log) = cluster.audit_log() else {
        return;
    };
    let watchers: Vec<&str> = log
        .requests
        .iter()
        .filter(|request| request.verb == "watch" && request.resource == "pods")
        .map(|request| request.user_agent.as_str())
        .filter(|agent| !agent.starts_with("kube-apiserver/"))
        .collect();
    assert!(!watchers.is_empty());
    assert!(
        watchers
            .iter()
            .all(|agent| agent.starts_with("informerd-storm")),
        "{watchers:?}"
    );
    assert_eq!(log.open_watches("informerd-storm", "pods"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rs_holds_the_same_state_through_cuts() {
    let Some(storm) = Storm::begin().await else {
        return;
    };
    let follow = async |config: watcher::Config| {
        let facade = client(&storm.kubeconfig).await.unwrap();
        let (reader, writer) = reflector::store();
        #[expect(clippy::disallowed_methods, reason = "it is the stranger here")]
        let events = watcher::watcher(Api::<Pod>::all(facade), config);
        let task = tokio::spawn(async move {
            let events = reflector::reflector(writer, events.default_backoff());
            let mut events = std::pin::pin!(events);
            // Errors are what cuts are to it; it goes on by itself.
            while events.next().await.is_some() {}
        });
        (reader, task)
    };
    let paged = follow(watcher::Config::default().page_size(20)).await;
    let streaming = follow(watcher::Config::default().streaming_lists()).await;
    let facade = client(&storm.kubeconfig).await.unwrap();
    let (counts, mut counted) = tokio::sync::mpsc::unbounded_channel::<String>();
    #[expect(clippy::disallowed_methods, reason = "it is the stranger here")]
    let controller =
        kube::runtime::Controller::new(Api::<Pod>::all(facade), watcher::Config::default());
    let store = controller.store();
    let controller = tokio::spawn(
        controller
            .run(
                move |pod: std::sync::Arc<Pod>, _| {
                    let _ = counts.send(pod.name_any());
                    async { Ok::<_, std::io::Error>(Action::await_change()) }
                },
                |_, _, _| Action::requeue(Duration::from_secs(1)),
                std::sync::Arc::new(()),
            )
            .for_each(async |_| {}),
    );

    let (there, cluster, _daemon, _proxy) = storm.rage().await;
    let stores = [
        ("paged", &paged.0),
        ("streaming", &streaming.0),
        ("Controller", &store),
    ];
    for (what, store) in stores {
        within(
            Duration::from_secs(30),
            &format!("{what} holds what there is"),
            || async {
                let state: State = store.state().iter().map(|pod| held(pod)).collect();
                state == there
            },
        )
        .await;
    }
    assert!(counted.try_recv().is_ok(), "the controller reconciled");
    only_the_daemon_watched(&cluster);
    for task in [paged.1, streaming.1, controller] {
        task.abort();
    }
}

/// A line of tests/clients/informers.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Line {
    synced: usize,
    states: Vec<Informer>,
}

#[derive(Debug, Deserialize)]
struct Informer {
    objects: BTreeMap<String, Held>,
    events: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Held {
    uid: String,
    resource_version: String,
}

/// The program of tests/clients/informers.
struct Stranger {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Stranger {
    async fn start(kubeconfig: &Path, mode: &str, count: usize) -> Self {
        let program = informers().await.unwrap();
        let mut command = Command::new(program);
        let count = count.to_string();
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--mode", mode, "--count", &count]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().expect("it starts");
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stranger = Self {
            _child: child,
            input,
            output,
        };
        let line = stranger.line().await;
        assert!(line.synced > 0, "{line:?}");
        stranger
    }

    async fn line(&mut self) -> Line {
        let line = timeout(Duration::from_secs(90), self.output.next_line()).await;
        let line = line.expect("a line in 90 s").unwrap();
        serde_json::from_str(&line.expect("it goes on")).expect("lines are JSON")
    }

    async fn states(&mut self) -> Vec<(State, u64)> {
        self.input.write_all(b"\n").await.unwrap();
        let states = self.line().await.states.into_iter();
        states
            .map(|informer| {
                let objects = informer.objects.into_iter();
                let state = objects.map(|(key, held)| (key, (held.uid, held.resource_version)));
                (state.collect(), informer.events)
            })
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_go_and_controller_runtime_hold_the_same_state_through_cuts() {
    if !has_go() {
        return;
    }
    // Made before anything storms.
    informers().await.unwrap();
    let Some(storm) = Storm::begin().await else {
        return;
    };
    let mut shared = Stranger::start(&storm.kubeconfig, "shared-informer", 2).await;
    let mut managed = Stranger::start(&storm.kubeconfig, "manager", 1).await;
    let (there, cluster, _daemon, _proxy) = storm.rage().await;
    for stranger in [&mut shared, &mut managed] {
        let deadline = Instant::now() + Duration::from_secs(45);
        loop {
            let states = stranger.states().await;
            assert!(states.iter().all(|(_, events)| *events > 0));
            if states.iter().all(|(state, _)| *state == there) {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{states:?}\n\nbut there is\n\n{there:?}"
            );
            sleep(Duration::from_millis(200)).await;
        }
    }
    only_the_daemon_watched(&cluster);
}
