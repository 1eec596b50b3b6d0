//! The facade in front of a real cluster: what already speaks to Kubernetes, unmodified, by another kubeconfig.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use futures::StreamExt;
use informerd::proto::{GetObjectRequest, ListObjectsRequest};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, Command},
    time::{Instant, timeout},
};

use crate::{
    cluster::{self, Cluster, Daemon, Proxy, client, has_go, informers},
    storm::Storm,
    support::{connect, discard, eventually, namespace, scope, succeeded, text},
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

/// The API server, the facade of a daemon that watches it, and churn.
async fn storm() -> Option<(Cluster, Daemon, Storm)> {
    let cluster = cluster::private().await?;
    let config = "upstream: {userAgent: informerd-storm}\nkinds: [pods]";
    let daemon = Daemon::start(config, cluster.kubeconfig()).await;
    let facade = SocketAddr::from(([127, 0, 0, 1], daemon.ports().kube));
    let storm = Storm::begin(cluster.client().await, &daemon.kubeconfig().await, facade).await;
    Some((cluster, daemon, storm))
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
async fn kube_rs_holds_the_same_state_through_cuts_of_the_facade() {
    let Some((cluster, _daemon, storm)) = storm().await else {
        return;
    };
    storm.kube_rs().await;
    only_the_daemon_watched(&cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_go_and_controller_runtime_hold_the_same_state_through_cuts_of_the_facade() {
    if !has_go() {
        return;
    }
    // Made before anything storms.
    informers().await.unwrap();
    let Some((cluster, _daemon, storm)) = storm().await else {
        return;
    };
    storm.client_go().await;
    only_the_daemon_watched(&cluster);
}
