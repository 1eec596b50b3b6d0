//! The first list of thousands of pods, in pages and as a stream, and then fifty consumers of one watch.

use std::{process::Stdio, time::Duration};

use futures::{StreamExt, future::try_join_all};
use informerd::{
    client::{self, Client, Mirror},
    proto::{View, WatchObjectsRequest},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::{
    cluster::{self, Cluster, Daemon, fill_namespaces, fill_pods},
    support::{connect, discard, kind, namespace, scope, succeeded},
};

const PODS: usize = 5000;
const CLIENTS: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_pods_are_listed_in_pages_and_fifty_clients_share_one_watch() {
    sync("paged").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_pods_are_listed_as_a_stream_and_fifty_clients_share_one_watch() {
    sync("watchlist").await;
}

async fn sync(list: &str) {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    fill_pods(cluster, PODS).await.unwrap();
    // A name of its own, to be found by in the audit log.
    let agent = format!("informerd-{list}");
    let config =
        format!("upstream: {{userAgent: {agent}}}\nkinds: [{{resource: pods, list: {list}}}]");
    let daemon = Daemon::start(&config, cluster.kubeconfig()).await;

    assert_eq!(
        table(&succeeded(&daemon.cli(&["get", "pods", "-A"]).await)),
        table(&cluster.kubectl_ok(&["get", "pods", "-A"]).await)
    );
    let names = |text: String| text.lines().map(String::from).collect::<Vec<_>>();
    let args = ["get", "pods", "-n", "fill-0", "-l", "tenth=0", "-o", "name"];
    let ours = names(succeeded(&daemon.cli(&args).await));
    let kubectls = cluster.kubectl_ok(&args).await.replace("pod/", "pods/");
    assert_eq!(ours.len(), PODS / 10);
    if names(kubectls) != ours {
        assert_eq!(names(cluster.kubectl_ok(&args).await), ours);
    }

    let own = format!("sync-{list}");
    namespace(cluster, &own).await;
    follow_kubectl(&daemon, cluster, &own).await;
    share_one_watch(&daemon, cluster, &own).await;
    discard(cluster, &[&own]).await;

    let status = kind(&connect(&daemon), "pods").await.unwrap();
    assert_eq!((status.watches_open, status.undecodable), (1, 0));
    assert_eq!(status.relists, [("initial".into(), 1)].into());
    let Some(log) = cluster.audit_log() else {
        return;
    };
    assert_eq!(
        log.open_watches(&agent, "pods"),
        1,
        "exactly one, for all of them"
    );
    let uris = |verb| {
        log.requests(&agent, verb, "pods")
            .map(|it| &*it.uri)
            .collect::<Vec<_>>()
    };
    let pages = uris("list")
        .iter()
        .filter(|uri| uri.contains("limit=500"))
        .count();
    let streams = uris("watch")
        .iter()
        .filter(|uri| uri.contains("sendInitialEvents=true"))
        .count();
    if list == "paged" {
        assert!(pages >= PODS / 500, "{:?}", uris("list"));
        assert_eq!(streams, 0);
    } else {
        assert_eq!((pages, streams), (0, 1), "{:?}", uris("watch"));
    }
}

/// The rows of the pods that nobody touches: namespace, name, READY, STATUS and RESTARTS.
fn table(text: &str) -> Vec<Vec<&str>> {
    let filled = fill_namespaces();
    let rows = text
        .lines()
        .map(|line| line.split_whitespace().take(5).collect::<Vec<_>>());
    let rows: Vec<_> = rows
        .filter(|row| row[0] == "NAMESPACE" || filled.iter().any(|it| it == row[0]))
        .collect();
    assert_eq!(rows.len(), PODS + 1);
    assert_eq!(
        rows[0],
        ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS"]
    );
    rows
}

/// `informerd watch`, line by line.
struct Watching {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(daemon: &Daemon, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_informerd"));
        command
            .arg("watch")
            .args(args)
            .arg("--server")
            .arg(daemon.server().to_string());
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            _child: child,
            lines,
        }
    }

    /// The next line that has all of this.
    async fn line(&mut self, parts: &[&str]) {
        let found = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if parts.iter().all(|part| line.contains(part)) {
                    return;
                }
            }
            panic!("it ended");
        };
        timeout(Duration::from_secs(30), found)
            .await
            .unwrap_or_else(|_| panic!("no line with {parts:?}"));
    }
}

async fn follow_kubectl(daemon: &Daemon, cluster: &Cluster, own: &str) {
    let mut watching = Watching::start(daemon, &["pods", "-A", "--output-watch-events"]);
    // Its last row, in the order of keys: the initial state is complete.
    watching
        .line(&["ADDED", "fill-4", "pod-04999", "1/1", "Running"])
        .await;
    let on = ["-n", own];
    cluster
        .kubectl_ok(
            &[
                &["run", "followed", "--image=registry.invalid/main:1"],
                &on[..],
            ]
            .concat(),
        )
        .await;
    watching
        .line(&["ADDED", own, "followed", "0/1", "Pending"])
        .await;
    watching
        .line(&["MODIFIED", own, "followed", "1/1", "Running"])
        .await;
    cluster
        .kubectl_ok(&[&["label", "pod", "followed", "colour=red"], &on[..]].concat())
        .await;
    watching.line(&["MODIFIED", own, "followed"]).await;
    cluster
        .kubectl_ok(&[&["delete", "pod", "followed"], &on[..]].concat())
        .await;
    watching.line(&["DELETED", own, "followed"]).await;
}

/// All of them, each on a connection of its own, hold everything and see one change.
async fn share_one_watch(daemon: &Daemon, cluster: &Cluster, own: &str) {
    let server = daemon.server().to_string();
    let follow = |n: usize| {
        let client = Client::connect(&server).unwrap();
        let mut request = WatchObjectsRequest {
            scope: Some(scope("pods", &[])),
            view: View::Keys.into(),
            ..WatchObjectsRequest::default()
        };
        // Every tenth wants all of some.
        if n.is_multiple_of(10) {
            request.view = View::Full.into();
            request.scope.get_or_insert_default().label_selector = "tenth!=1,tenth!=2".into();
        }
        async move {
            let mut watch = client.watch(request);
            let mut mirror = Mirror::new();
            let mut complete = 0;
            while let Some(event) = watch.next().await {
                mirror.apply(&event?);
                if mirror.is_complete() && complete == 0 {
                    complete = mirror.objects().len();
                }
                if mirror.get(own, "shared").is_some() {
                    break;
                }
            }
            Ok::<_, client::Error>(complete)
        }
    };
    let all = try_join_all((0..CLIENTS).map(follow));
    let change = async {
        let client = connect(daemon);
        crate::support::eventually("all of them watch", || async {
            kind(&client, "pods")
                .await
                .is_some_and(|kind| kind.consumers >= CLIENTS as u32)
        })
        .await;
        let pod = [
            "run",
            "shared",
            "--image=registry.invalid/main:1",
            "-n",
            own,
        ];
        cluster.kubectl_ok(&pod).await;
    };
    let (complete, ()) = tokio::join!(timeout(Duration::from_secs(90), all), change);
    for (n, held) in complete.expect("in time").unwrap().into_iter().enumerate() {
        let expected = if n.is_multiple_of(10) {
            PODS / 10 * 8
        } else {
            PODS
        };
        assert!(held >= expected, "client {n} began with {held} objects");
    }
}
