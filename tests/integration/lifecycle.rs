//! How the daemon begins and ends: with streams open, with an address that is taken, with no API server to be found.

use std::{net::TcpListener, time::Duration};

use informerd::proto::{KindState, ListObjectsRequest, MarkType, Scope, WatchObjectsRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tonic::Code;

use crate::{
    cluster::{
        self, Churn, ChurnOptions, Credential, Daemon, DirectWatch, Ports, Proxy, free_port, get,
    },
    support::{connect, eventually, is, pods, scope, seed, text},
    validators::{Recorder, Recording, Reference, check_all, watch_request},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_told_to_end_drains_and_streams_resume_at_the_next_one() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let client = cluster.client().await;
    let direct = DirectWatch::start(&client, &pods(), None, None)
        .await
        .unwrap();
    let options = ChurnOptions {
        seed: seed(),
        rate: 40,
        ..ChurnOptions::default()
    };
    let churn = Churn::start(client, options).await.unwrap();
    let config = "shutdownGrace: 10s\nkinds: [pods]";
    let mut daemon = Daemon::start(config, cluster.kubeconfig()).await;
    let selected = WatchObjectsRequest {
        scope: Some(Scope {
            label_selector: "app=web".into(),
            ..scope("pods", &[])
        }),
        ..watch_request("pods")
    };
    let requests = [watch_request("pods"), watch_request("pods"), selected];
    let recorders = requests.map(|request| Recorder::start(daemon.server(), request, None));
    let now = direct.seen().len();
    eventually("40 changes are seen", || async {
        direct.seen().len() >= now + 40
    })
    .await;
    for recorder in &recorders {
        recorder
            .wait("the initial state", Duration::from_secs(10), |recording| {
                recording.reached() > 0
            })
            .await;
    }

    assert_eq!(
        daemon.terminate(Duration::from_secs(10)).await,
        Some(0),
        "within the grace period"
    );
    for recorder in &recorders {
        let ended = recorder.wait("the end", Duration::from_secs(5), |recording| {
            recording.closes().count() > 0
        });
        let recording = ended.await;
        let end: Vec<_> = recording.marks(MarkType::End).collect();
        assert_eq!((end.len(), &*end[0].reason), (1, "DRAINING"));
        assert!(!end[0].token.is_empty() && end[0].retry_after.is_some());
        let why = recording.closes().next().unwrap();
        assert!(why.starts_with("Unavailable DRAINING"), "{why}");
    }

    // More happens while nobody serves.
    let now = direct.seen().len();
    eventually("20 changes are missed", || async {
        direct.seen().len() >= now + 20
    })
    .await;
    let mut daemon = Daemon::spawn_on(daemon.ports(), config, cluster.kubeconfig()).unwrap();
    daemon.wait_ready(Duration::from_secs(30)).await;
    let now = direct.seen().len();
    eventually("40 more changes are seen", || async {
        direct.seen().len() >= now + 40
    })
    .await;
    let (writes, failures) = churn.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    let last = &writes.last().unwrap().resource_version;
    assert!(direct.wait_for(last, Duration::from_secs(10)).await);
    for (at, recorder) in recorders.iter().enumerate() {
        let recording = recorder.reach(last.parse().unwrap()).await;
        let reference = match at {
            2 => Reference::new(&direct.seen(), |seen| {
                seen.labels.get("app").is_some_and(|app| app == "web")
            }),
            _ => Reference::new(&direct.seen(), |_| true),
        };
        // What came before its first list is unknown to the new process.
        check_all(&recording, &reference, &["PAST_JOURNAL"]).unwrap();
        assert_eq!(recording.resets(), ["INITIAL", "PAST_JOURNAL"]);
    }
    assert_eq!(daemon.terminate(Duration::from_secs(10)).await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_honours_a_token_of_its_own_time() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let client = cluster.client().await;
    let direct = DirectWatch::start(&client, &pods(), None, None)
        .await
        .unwrap();
    let one = Daemon::start("kinds: [pods]", cluster.kubeconfig()).await;
    let two = Daemon::start("kinds: [pods]", cluster.kubeconfig()).await;
    let options = ChurnOptions {
        seed: seed(),
        rate: 60,
        ..ChurnOptions::default()
    };
    let churn = Churn::start(client, options).await.unwrap();
    // A consumer that a proxy leads to either of them, without its knowing.
    let proxy = Proxy::start(one.server()).await.unwrap();
    let recorder = Recorder::start(proxy.address(), watch_request("pods"), None);
    for target in [two.server(), one.server(), two.server()] {
        let now = recorder.recording().events().count();
        recorder
            .wait("40 more events", Duration::from_secs(30), |recording| {
                recording.events().count() > now + 40
            })
            .await;
        proxy.retarget(target);
        proxy.cut_all();
    }
    let thrice = |recording: &Recording| recording.closes().count() == 3;
    recorder
        .wait("the third cut", Duration::from_secs(10), thrice)
        .await;
    let (writes, _) = churn.stop().await;
    let last = &writes.last().unwrap().resource_version;
    assert!(direct.wait_for(last, Duration::from_secs(10)).await);
    let recording = recorder.reach(last.parse().unwrap()).await;
    check_all(&recording, &Reference::new(&direct.seen(), |_| true), &[]).unwrap();
    assert_eq!(recording.closes().count(), 3);
    assert_eq!(recording.resets(), ["INITIAL"]);
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_with_the_setting_to_change() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    let taken = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let address = taken.local_addr().unwrap();
    for setting in ["listen", "admin", "kube-listen"] {
        let mut ports = Ports {
            grpc: free_port(),
            admin: free_port(),
            kube: free_port(),
        };
        match setting {
            "listen" => ports.grpc = address.port(),
            "kube-listen" => ports.kube = address.port(),
            _ => ports.admin = address.port(),
        }
        let mut daemon = Daemon::spawn_on(ports, "kinds: [pods]", cluster.kubeconfig()).unwrap();
        assert_eq!(
            daemon.process().wait(Duration::from_secs(20)).await,
            Some(1)
        );
        let log = daemon.log();
        assert!(
            log.contains(&format!("cannot listen on {address}")),
            "{log}"
        );
        assert!(log.contains(&format!("`{setting}`")), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_api_server_it_lives_says_what_is_missing_and_starts_when_there_is_one() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let proxy = Proxy::start(cluster.address()).await.unwrap();
    let kubeconfig = cluster
        .kubeconfig_for("proxied", Credential::Admin, proxy.address())
        .unwrap();
    proxy.refuse(true).await.unwrap();
    let mut daemon = Daemon::spawn("kinds: [pods, configmaps]", &kubeconfig);
    let live = async || {
        get(&daemon.admin_url("/livez"))
            .await
            .is_ok_and(|(code, _)| code == 200)
    };
    eventually("it lives", live).await;
    let (code, body) = get(&daemon.admin_url("/readyz")).await.unwrap();
    assert_eq!(code, 503);
    assert!(
        body.contains("kind/pods") && body.contains("kind/configmaps"),
        "{body}"
    );
    let client = connect(&daemon);
    assert!(is(&client, "pods", KindState::Waiting).await);
    let list = ListObjectsRequest {
        scope: Some(scope("pods", &[])),
        ..ListObjectsRequest::default()
    };
    // It waits for a moment: a daemon that starts is soon complete.
    let refused = client
        .list(list)
        .await
        .expect_err("there is nothing to serve");
    assert_eq!(
        (refused.code(), refused.reason()),
        (Some(Code::Unavailable), "KIND_NOT_SYNCED")
    );
    assert!(
        refused.retry_delay().is_some() && refused.to_string().contains("pods is not synced"),
        "{refused}"
    );
    let (_, err) = text(&daemon.cli(&["get", "nodes"]).await);
    assert!(err.contains("does not watch"), "{err}");
    assert_eq!(daemon.process().exit_code(), None);

    proxy.refuse(false).await.unwrap();
    daemon.wait_ready(Duration::from_secs(60)).await;
    assert!(is(&client, "pods", KindState::Live).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_have_the_names_that_dashboards_are_made_of() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    let daemon = Daemon::start(
        "kinds: [nodes, configmaps]\ncontrollers: [node]",
        cluster.kubeconfig(),
    )
    .await;
    let recorder = Recorder::start(daemon.server(), watch_request("nodes"), None);
    recorder
        .wait("the nodes", Duration::from_secs(30), |recording| {
            recording.reached() > 0
        })
        .await;
    for name in [
        "informerd_build_info",
        "informerd_kind_synced",
        "informerd_kind_phase",
        "informerd_kind_objects",
        "informerd_kind_object_bytes",
        "informerd_kind_journal_bytes",
        "informerd_kind_journal_entries",
        "informerd_kind_journal_span_seconds",
        "informerd_kind_age_seconds",
        "informerd_kind_revision",
        "informerd_kind_users",
        "informerd_kind_watches_open",
        "informerd_kind_watches_opened_total",
        "informerd_kind_relists_total",
        "informerd_kind_digest_mismatches_total",
        "informerd_consumers",
        "informerd_discovery_polls_total",
        "informerd_source_events_total",
        "reflector_lists_total",
        "reflector_watches_total",
        "rest_client_requests_total",
        "controller_runtime_reconcile_total",
        "workqueue_depth",
        "process_resident_memory_bytes",
    ] {
        assert!(
            daemon.metric(name).await.is_some(),
            "{name} is missing from: {}",
            daemon.metrics().await
        );
    }
    let nodes = daemon
        .metric(r#"informerd_kind_objects{kind="nodes"}"#)
        .await;
    assert!(nodes >= Some(1.0));
    assert_eq!(
        daemon
            .metric(r#"informerd_kind_watches_open{kind="nodes"}"#)
            .await,
        Some(1.0)
    );
    assert_eq!(
        daemon
            .metric(r#"informerd_consumers{method="WatchObjects"}"#)
            .await,
        Some(1.0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_never_speaks_is_closed_and_holds_up_no_end() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    // With a grace period of 25 s.
    let mut daemon = Daemon::start("kinds: [namespaces]", cluster.kubeconfig()).await;
    let connect = async || TcpStream::connect(daemon.server()).await.unwrap();
    let mut first = connect().await;
    // The server speaks first, and then has no more patience.
    let mut said = Vec::new();
    let closed = timeout(Duration::from_secs(20), first.read_to_end(&mut said)).await;
    assert!(closed.is_ok(), "it is still open");

    let _silent = connect().await;
    let mut slow = connect().await;
    slow.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let recorder = Recorder::start(daemon.server(), watch_request("namespaces"), None);
    recorder
        .wait("a state", Duration::from_secs(10), |recording| {
            recording.reached() > 0
        })
        .await;
    assert_eq!(daemon.terminate(Duration::from_secs(6)).await, Some(0));
    let ended = recorder.recording();
    assert_eq!(
        ended.marks(MarkType::End).count(),
        1,
        "the others were told"
    );
}
