//! The harness tested by itself: what the other tests rely on, before they blame the daemon.

use std::{process::Command, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api,
    api::{ApiResource, ListParams, WatchEvent, WatchParams},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    cluster::{
        self, Authority, Churn, ChurnOptions, Credential, DirectWatch, Operation, Process, Proxy,
        Scratch, TEST_USER_AGENT, client, fill_pods, list_exact,
    },
    support::{eventually, pods},
};

#[tokio::test]
async fn a_process_gets_signals_and_is_killed_when_dropped() {
    let scratch = Scratch::new("process").unwrap();
    let log = scratch.path().join("log");
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "trap 'echo bye; exit 7' TERM; echo hello; while :; do sleep 0.01; done",
    ]);
    let mut process = Process::start("looper", &command, &log).unwrap();
    eventually("it says hello", || async {
        process.log_tail().contains("hello")
    })
    .await;
    process.signal("TERM");
    assert_eq!(process.wait(Duration::from_secs(10)).await, Some(7));
    assert!(process.log_tail().contains("bye"));

    command = Command::new("sleep");
    command.arg("1000");
    let process = Process::start("sleeper", &command, &log).unwrap();
    let pid = process.pid();
    assert!(runs(pid));
    drop(process);
    assert!(!runs(pid));

    let path = scratch.path().to_owned();
    drop(scratch);
    assert!(!path.exists() || std::env::var_os("INFORMERD_KEEP_FILES").is_some());
}

fn runs(pid: u32) -> bool {
    Command::new("sh")
        .args(["-c", &format!("kill -0 {pid} 2>/dev/null")])
        .status()
        .unwrap()
        .success()
}

#[tokio::test]
async fn a_deployment_gets_ready_and_an_open_watch_is_audited() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    let client = cluster.client().await;
    cluster
        .kubectl_ok(&[
            "create",
            "deployment",
            "web",
            "--image=registry.invalid/web:1",
            "--replicas=5",
        ])
        .await;
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    eventually("5 replicas are ready", || async {
        let web = deployments.get("web").await.unwrap();
        web.status.and_then(|status| status.ready_replicas) == Some(5)
    })
    .await;

    let Some(before) = cluster.audit_log() else {
        return;
    };
    let open = before.open_watches(TEST_USER_AGENT, "replicasets");
    let kind = ApiResource::erase::<k8s_openapi::api::apps::v1::ReplicaSet>(&());
    let watch = DirectWatch::start(&client, &kind, None, None)
        .await
        .unwrap();
    let count = || async {
        cluster
            .audit_log()
            .unwrap()
            .open_watches(TEST_USER_AGENT, "replicasets")
    };
    eventually("the watch is open", || async { count().await == open + 1 }).await;
    let after = cluster.audit_log().unwrap();
    assert_eq!(
        after.lists(TEST_USER_AGENT, "replicasets"),
        before.lists(TEST_USER_AGENT, "replicasets") + 1
    );
    drop(watch);
    eventually("the watch is closed", || async { count().await == open }).await;
    cluster
        .kubectl_ok(&["delete", "deployment", "web", "--wait=false"])
        .await;
}

#[tokio::test]
async fn filled_pods_run_and_are_found_again() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    fill_pods(cluster, 60).await.unwrap();
    fill_pods(cluster, 50).await.unwrap();
    let pods: Api<Pod> = Api::all(cluster.client().await);
    let params = ListParams::default()
        .labels("app=fill")
        .fields("status.phase=Running");
    assert!(pods.list(&params).await.unwrap().items.len() >= 60);
}

#[tokio::test]
async fn a_churn_is_seen_write_by_write_and_ends_as_the_exact_list_says() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let client = cluster.client().await;
    let watch = DirectWatch::start(&client, &pods(), None, None)
        .await
        .unwrap();
    let options = ChurnOptions {
        names: 8,
        rate: 100,
        ..ChurnOptions::default()
    };
    let churn = Churn::start(client.clone(), options).await.unwrap();
    eventually("80 writes are seen", || async { watch.seen().len() >= 80 }).await;
    let (writes, failures) = churn.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    let last = writes.last().unwrap();
    assert!(
        watch
            .wait_for(&last.resource_version, Duration::from_secs(10))
            .await
    );

    let written: Vec<_> = writes
        .iter()
        .map(|w| (&w.key, &w.uid, &w.resource_version))
        .collect();
    let seen = watch.seen();
    // The version that only sets a deletionTimestamp is nobody's write.
    let seen = seen.iter().zip(seen.iter().skip(1).map(Some).chain([None]));
    let seen: Vec<_> = seen
        .filter(|(s, next)| !next.is_some_and(|n| n.event == "DELETED" && n.uid == s.uid))
        .map(|(s, _)| (&s.key, &s.uid, &s.resource_version))
        .collect();
    assert_eq!(written, seen);

    let mut expected = std::collections::BTreeMap::new();
    for write in &writes {
        match write.operation {
            Operation::Delete => expected.remove(&write.key),
            _ => expected.insert(write.key.clone(), (write.uid.clone(), write.labels.clone())),
        };
    }
    let listed = list_exact(&client, &pods(), Some("churn"), &last.resource_version)
        .await
        .unwrap();
    let listed: std::collections::BTreeMap<_, _> = listed
        .into_iter()
        .map(|(key, l)| (key, (l.uid, l.labels)))
        .collect();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn a_proxy_cuts_refuses_mutes_and_delays() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let proxy = Proxy::start(cluster.address()).await.unwrap();
    let path = cluster
        .kubeconfig_for("proxied", Credential::Admin, proxy.address())
        .unwrap();
    let proxied = client(&path).await.unwrap();
    let version = || timeout(Duration::from_secs(2), proxied.apiserver_version());
    version().await.unwrap().unwrap();
    assert_eq!((proxy.accepted(), proxy.open()), (1, 1));

    let api: Api<Pod> = Api::all(proxied.clone());
    let mut watch = Box::pin(api.watch(&WatchParams::default(), "0").await.unwrap());
    proxy.cut_all();
    let end = async { while let Some(Ok(_)) = watch.next().await {} };
    timeout(Duration::from_secs(5), end)
        .await
        .expect("a cut ends the watch");
    eventually("cut connections are counted", || async {
        proxy.open() == 0
    })
    .await;

    proxy.refuse(true).await.unwrap();
    assert!(
        version().await.unwrap().is_err(),
        "a refused connection is an error at once"
    );
    proxy.refuse(false).await.unwrap();
    version().await.unwrap().unwrap();

    proxy.mute(true);
    assert!(
        version().await.is_err(),
        "a muted connection is silent, not an error"
    );
    assert!(proxy.open() > 0);
    proxy.mute(false);
    eventually("it answers again", || async {
        matches!(version().await, Ok(Ok(_)))
    })
    .await;

    proxy.delay(Duration::from_millis(200));
    let started = Instant::now();
    version().await.unwrap().unwrap();
    assert!(
        started.elapsed() >= Duration::from_millis(400),
        "200 ms each way"
    );
}

#[tokio::test]
async fn after_compaction_and_restart_an_old_revision_is_gone() {
    let Some(mut cluster) = cluster::private().await else {
        return;
    };
    let client = cluster.client().await;
    let options = ChurnOptions {
        names: 4,
        rate: 100,
        ..ChurnOptions::default()
    };
    let churn = Churn::start(client.clone(), options).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    let (writes, _) = churn.stop().await;
    let old = &writes.first().unwrap().resource_version;
    let compacted = cluster.compact().await.unwrap();
    assert!(compacted >= writes.last().unwrap().resource_version.parse().unwrap());
    cluster.restart_apiserver().await.unwrap();

    let api: Api<Pod> = Api::all(cluster.client().await);
    let mut events = Box::pin(api.watch(&WatchParams::default(), old).await.unwrap());
    match timeout(Duration::from_secs(10), events.next())
        .await
        .unwrap()
    {
        Some(Ok(WatchEvent::Error(status))) => {
            assert_eq!((status.code, &*status.reason), (410, "Expired"))
        }
        other => panic!("no 410 but {other:?}"),
    }
}

#[tokio::test]
async fn a_client_certificate_is_a_user_until_it_expires() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let whoami = |name: &'static str, lifetime: Duration| {
        let cluster = &cluster;
        async move {
            let certificate = Authority::get()
                .client(name, Some("testers"), lifetime)
                .unwrap();
            let credential = Credential::Certificate(&certificate);
            let path = cluster
                .kubeconfig_for(name, credential, cluster.address())
                .unwrap();
            cluster
                .kubectl(&[
                    "--kubeconfig",
                    &path.display().to_string(),
                    "auth",
                    "whoami",
                ])
                .await
        }
    };
    let good = whoami("carol", Duration::from_secs(60)).await;
    let text = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(
        good.status.success() && text.contains("carol") && text.contains("testers"),
        "{good:?}"
    );

    let path = cluster
        .kubeconfig_for("alice", Credential::User("alice"), cluster.address())
        .unwrap();
    let alice = client(&path).await.unwrap();
    match Api::<Pod>::all(alice).list(&ListParams::default()).await {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 403),
        other => panic!("alice has no rights, and got {other:?}"),
    }
    assert!(
        !whoami("dave", Duration::ZERO).await.status.success(),
        "an expired certificate is refused"
    );
}

#[tokio::test]
async fn the_strangers_clients_build_and_say_what_is_wrong() {
    if cluster::shared().await.is_none() || !cluster::has_go() {
        return;
    }
    let nobody = format!("127.0.0.1:{}", cluster::free_port());
    let watcher = cluster::go_watcher().await.unwrap();
    let run = |program: std::path::PathBuf, args: Vec<String>| async move {
        let output = tokio::process::Command::new(program)
            .args(args)
            .output()
            .await
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let args = ["--server", &nobody, "--timeout", "300ms"]
        .map(String::from)
        .to_vec();
    assert!(run(watcher, args).await.contains("not at the end in time"));
    let grpcurl = cluster::grpcurl().await.unwrap();
    let args = ["-plaintext", "-connect-timeout", "1", &nobody, "list"]
        .map(String::from)
        .to_vec();
    assert!(run(grpcurl, args).await.contains("Failed to dial"));
}
