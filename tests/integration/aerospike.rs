//! Database clusters of both operators on a real API server, with nodes on loopback: judged by informerd as its users
//! run it.

use std::{
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use futures::StreamExt;
use informerd::{
    aerospike::model::Manner,
    client::Client,
    proto::{
        GetReadinessRequest, ReadinessCondition, ReadinessState, Target, WaitFor, WaitOutcome,
        WaitReadinessRequest, WaitReadinessResponse, WaitTarget,
    },
};
use kube::ResourceExt;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{
        self, Cluster, Credential, Daemon, Process, Proxy, Scratch,
        aerospike::{Operator, Stage, quick},
    },
    support::{connect, eventually, within},
};

/// Quick, for the nodes are.
const SETTINGS: &str = "aerospike: {mode: watch, probeInterval: 1s, settlingInterval: 100ms, timeout: 400ms, \
                        breaker: {failures: 3, pause: 200ms}}\npatience: {followed: 150s, cutOff: 1500ms}";

fn config(agent: &str, kinds: &str) -> String {
    format!(
        "upstream: {{userAgent: {agent}, discoveryInterval: 1s}}\ncontrollers: [aerospike]\n{SETTINGS}\n\
         kinds: [pods, statefulsets.apps{kinds}]"
    )
}

fn target(resource: &str, namespace: &str, name: &str) -> Target {
    Target {
        resource: resource.into(),
        namespace: namespace.into(),
        name: name.into(),
    }
}

async fn condition(client: &Client, target: &Target, name: &str) -> Option<ReadinessCondition> {
    let request = GetReadinessRequest {
        target: Some(target.clone()),
    };
    let (verdict, _) = client.verdict(request).await.ok()?;
    verdict.conditions.into_iter().find(|one| one.name == name)
}

async fn safe(client: &Client, target: &Target) -> (ReadinessState, String) {
    match condition(client, target, "SafeToDisrupt").await {
        Some(condition) => (condition.state(), condition.reason),
        None => (ReadinessState::Gone, String::new()),
    }
}

async fn until_safe(client: &Client, target: &Target) {
    within(Duration::from_secs(60), "it is safe to disrupt", || async {
        safe(client, target).await.0 == ReadinessState::Ready
    })
    .await;
}

async fn watched_again(client: &Client) {
    within(Duration::from_secs(60), "the watches are back", || async {
        let kinds = client.kinds().await.unwrap_or_default();
        kinds.iter().all(|kind| kind.watches_open == 1)
    })
    .await;
}

/// The target as it was judged, or later: what a wait for it then rests on.
async fn judged(client: &Client, target: &Target) -> WaitTarget {
    let request = GetReadinessRequest {
        target: Some(target.clone()),
    };
    let (verdict, _) = client.verdict(request).await.expect("it is judged");
    WaitTarget {
        target: Some(target.clone()),
        uid: verdict.uid,
        min_generation: verdict.generation,
        min_resource_version: verdict.resource_version,
    }
}

/// Waits for a minute at most; the last answer.
async fn wait(client: &Client, targets: Vec<WaitTarget>) -> WaitReadinessResponse {
    let request = WaitReadinessRequest {
        targets,
        wait_for: WaitFor::SafeToDisrupt.into(),
        timeout: Some(prost_types::Duration {
            seconds: 60,
            nanos: 0,
        }),
        ..WaitReadinessRequest::default()
    };
    let mut answers = client.wait(request).await.expect("the wait begins");
    let mut last = WaitReadinessResponse::default();
    while let Some(answer) = answers.next().await {
        last = answer.expect("it goes on");
    }
    last
}

fn wall(at: &prost_types::Timestamp) -> SystemTime {
    SystemTime::try_from(*at).expect("a time")
}

async fn start(
    operator: Operator,
    namespace: &str,
    size: usize,
) -> Option<(Cluster, Stage, Daemon, Client)> {
    let cluster = cluster::private().await?;
    operator.install(&cluster).await;
    let stage = Stage::new(&cluster, operator, namespace, size, quick(), true).await;
    let stage = stage.expect("the cluster is written");
    let kinds = format!(", {}", operator.resource());
    let daemon = Daemon::start(&config("informerd-as", &kinds), cluster.kubeconfig()).await;
    let client = connect(&daemon);
    Some((cluster, stage, daemon, client))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_eight_is_driven_by_the_verdict_and_takes_no_wrong_step() {
    let Some((cluster, stage, daemon, client)) = start(Operator::Acko, "rolling", 8).await else {
        return;
    };
    let own = target("asc", "rolling", "cache");
    until_safe(&client, &own).await;
    let reads = |cluster: &Cluster| {
        let log = cluster.audit_log().expect("it is our own cluster");
        let of = |verb, resource| log.requests("informerd-as", verb, resource).count();
        let of = |resource| ["list", "watch", "get"].map(|verb| of(verb, resource));
        ["pods", "aerospikeclusters"].map(of)
    };
    // What is acted on: the cluster and its pods as informerd has judged them, later as writes have returned them.
    let mut known = vec![judged(&client, &own).await];
    for node in 0..8 {
        let pod = target("pods", "rolling", &Stage::pod_name(node));
        known.push(judged(&client, &pod).await);
    }
    let before = reads(&cluster);
    for node in 0..=8 {
        // Right after a restart nothing from before counts: this is for all eight of now.
        let answer = wait(&client, known.clone()).await;
        assert_eq!(
            answer.outcome(),
            WaitOutcome::Satisfied,
            "before {node}: {:?}",
            answer.missing
        );
        for (verdict, known) in answer.verdicts.iter().zip(&known) {
            assert_eq!(verdict.uid, known.uid);
            let mut conditions = verdict.conditions.iter();
            let safe = conditions.find(|one| one.name == "SafeToDisrupt").unwrap();
            let window = safe.evidence.as_ref().expect("evidence");
            let (from, to) = (window.from.as_ref().unwrap(), window.to.as_ref().unwrap());
            assert!(
                stage.was_safe_within(wall(from), wall(to)),
                "a wrong step: at no instant of {window:?} was it safe to restart {node}"
            );
        }
        if node < 8 {
            let pod = stage.restart(node).await.expect("the pod is replaced");
            known[node + 1].uid = pod.uid().unwrap();
            known[node + 1].min_resource_version = pod.resource_version().unwrap();
        }
    }
    // A wait that says which version it means asks the API server nothing.
    assert_eq!(before, reads(&cluster), "no LIST, no WATCH, no GET more");
    let log = cluster.audit_log().unwrap();
    for resource in ["pods", "statefulsets", "aerospikeclusters"] {
        assert_eq!(log.open_watches("informerd-as", resource), 1, "{resource}");
    }
    let metrics = daemon.metrics().await;
    assert!(
        !metrics.contains("informerd_aerospike_polls_total{"),
        "by watch nobody polls"
    );
    assert!(daemon.metric("informerd_aerospike_questions_total").await > Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impostors_restarts_silence_noise_and_full_nodes_are_told_apart() {
    let Some((_cluster, stage, _daemon, client)) = start(Operator::Ako, "trouble", 3).await else {
        return;
    };
    let own = target("aerospikeclusters.asdb.aerospike.com", "trouble", "cache");
    let pod = target("pods", "trouble", "cache-1");
    until_safe(&client, &own).await;
    let becomes = async |what: &str, is: &dyn Fn(ReadinessState, &str) -> bool| {
        within(Duration::from_secs(20), what, || async {
            let (state, reason) = safe(&client, &own).await;
            is(state, &reason)
        })
        .await;
    };
    let joined = condition(&client, &own, "Joined").await.unwrap();
    let details: Value = serde_json::from_slice(&joined.details).unwrap();
    assert_eq!(
        (&details["size"], &details["sizeFrom"]),
        (&3.into(), &"spec".into())
    );
    let node = condition(&client, &pod, "Joined").await.unwrap();
    let node: Value = serde_json::from_slice(&node.details).unwrap();
    assert_eq!(node, details["nodes"][1]);
    assert_eq!(node["rack"], "1");

    // A pod of the same name and another uid: the node's answers before do not count for it.
    let before = node["uid"].as_str().unwrap().to_owned();
    let uid = stage.restart(1).await.unwrap().uid().unwrap();
    assert_ne!(uid, before);
    let answer = wait(
        &client,
        vec![WaitTarget {
            target: Some(pod.clone()),
            uid,
            ..WaitTarget::default()
        }],
    )
    .await;
    assert_eq!(
        answer.outcome(),
        WaitOutcome::Satisfied,
        "{:?}",
        answer.missing
    );
    let gone = WaitTarget {
        target: Some(pod.clone()),
        uid: before,
        ..WaitTarget::default()
    };
    let answer = wait(&client, vec![gone]).await;
    assert_eq!(answer.outcome(), WaitOutcome::Impossible);

    // A restart of the process alone: no pod shows it.
    stage.model.warm_restart(2);
    becomes("the warm restart is found", &|state, _| {
        state == ReadinessState::NotReady
    })
    .await;
    until_safe(&client, &own).await;

    for (manner, reason) in [(Manner::Mute, "NoAnswer"), (Manner::Garbage, "Garbage")] {
        stage.model.set_manner(1, manner);
        becomes("it is unknown", &|state, why| {
            state == ReadinessState::Unknown && why == reason
        })
        .await;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            assert_ne!(
                safe(&client, &own).await.0,
                ReadinessState::Ready,
                "{manner:?}"
            );
            sleep(Duration::from_millis(50)).await;
        }
        stage.model.set_manner(1, Manner::Prompt);
        until_safe(&client, &own).await;
    }
    stage.model.fill(0, 95);
    becomes("it is full", &|_, reason| reason == "StopWrites").await;
    let joined = condition(&client, &own, "Joined").await.unwrap();
    assert_eq!(
        joined.state(),
        ReadinessState::Ready,
        "it is joined all the same"
    );
    stage.model.fill(0, 10);
    until_safe(&client, &own).await;
    stage.model.set_clock(2, 50_000);
    becomes("clocks differ", &|_, reason| reason == "ClockSkew").await;
    stage.model.set_clock(2, 0);
    until_safe(&client, &own).await;
    stage.model.split(&[0]);
    becomes("it is split", &|state, reason| {
        state == ReadinessState::NotReady && reason == "SplitCluster"
    })
    .await;
    stage.model.heal();
    until_safe(&client, &own).await;
    // The spec asks for more than there are.
    stage.resize(4).await.unwrap();
    becomes("one is missing", &|_, reason| reason == "MissingNodes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_crd_the_stateful_set_is_judged_and_hands_over_when_it_comes() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let stage = Stage::new(&cluster, Operator::Acko, "late", 3, quick(), false).await;
    let stage = stage.expect("the cluster is written");
    let kinds = format!(", {}", Operator::Acko.resource());
    let daemon = Daemon::start(&config("informerd-late", &kinds), cluster.kubeconfig()).await;
    let client = connect(&daemon);
    let (set, own) = (
        target("sts", "late", "cache"),
        target(&Operator::Acko.resource(), "late", "cache"),
    );
    until_safe(&client, &set).await;
    let joined = condition(&client, &set, "Joined").await.unwrap();
    let details: Value = serde_json::from_slice(&joined.details).unwrap();
    assert_eq!(details["sizeFrom"], "statefulsets");
    Operator::Acko.install(&cluster).await;
    stage.create_object().await.unwrap();
    until_safe(&client, &own).await;
    eventually("the set has it no more", || async {
        safe(&client, &set).await.0 == ReadinessState::Gone
    })
    .await;
    let crd = format!("crd/{}", Operator::Acko.resource());
    cluster.kubectl_ok(&["delete", &crd]).await;
    until_safe(&client, &set).await;
    until_safe(&client, &target("pods", "late", "cache-0")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_watch_is_cut_verdicts_are_unknown_or_kept_true_by_polls_and_back_at_once_after()
{
    let Some(cluster) = cluster::private().await else {
        return;
    };
    Operator::Acko.install(&cluster).await;
    let stage = Stage::new(&cluster, Operator::Acko, "cut", 3, quick(), true).await;
    let stage = stage.expect("the cluster is written");
    // It may list and get; that it may watch is taken from it later.
    let rules = |verbs: &str| {
        format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: reader}}\nrules:\n\
             - {{apiGroups: ['', apps, acko.io], resources: [pods, statefulsets, aerospikeclusters], verbs: [{verbs}]}}\n"
        )
    };
    cluster.apply(&rules("get, list, watch")).await;
    cluster
        .kubectl_ok(&[
            "create",
            "clusterrolebinding",
            "reader",
            "--clusterrole=reader",
            "--user=informerd",
        ])
        .await;
    let proxy = Proxy::start(cluster.address()).await.unwrap();
    let kubeconfig = cluster
        .kubeconfig_for("cut", Credential::User("informerd"), proxy.address())
        .unwrap();
    let kinds = format!(", {}", Operator::Acko.resource());
    let by_watch = Daemon::start(&config("informerd-watch", &kinds), &kubeconfig).await;
    let both = config("informerd-both", &kinds).replace("mode: watch", "mode: watch-and-poll");
    let by_both = Daemon::start(&both, &kubeconfig).await;
    let (watching, polling) = (connect(&by_watch), connect(&by_both));
    let own = target("asc", "cut", "cache");
    until_safe(&watching, &own).await;
    until_safe(&polling, &own).await;
    let lists = |agent: &str| {
        let log = cluster.audit_log().expect("it is our own cluster");
        let ours = log.requests(agent, "list", "pods");
        ours.filter(|request| request.uri.contains("labelSelector"))
            .count()
    };
    assert_eq!(lists("informerd-both"), 0, "not while the watch tells");

    cluster.apply(&rules("get, list")).await;
    // The API server learns of it by a watch too.
    sleep(Duration::from_secs(1)).await;
    proxy.cut_all();
    eventually("nobody can tell by watch", || async {
        safe(&watching, &own).await == (ReadinessState::Unknown, "Stale".to_owned())
    })
    .await;
    eventually("the other one polls", || async {
        lists("informerd-both") > 0
    })
    .await;
    until_safe(&polling, &own).await;

    // A pod changes, and only the one that polls hears of it.
    let uid = stage.restart(0).await.unwrap().uid().unwrap();
    let begun = Instant::now();
    let pod = target("pods", "cut", "cache-0");
    let mut was_unsafe = false;
    while begun.elapsed() < Duration::from_secs(8) {
        let (by_watch, _) = safe(&watching, &own).await;
        assert_eq!(by_watch, ReadinessState::Unknown);
        let (by_poll, _) = safe(&polling, &own).await;
        if by_poll == ReadinessState::Ready {
            let condition = condition(&polling, &own, "SafeToDisrupt").await.unwrap();
            let window = condition.evidence.unwrap();
            let (from, to) = (window.from.unwrap(), window.to.unwrap());
            if condition.state == i32::from(ReadinessState::Ready) {
                assert!(
                    stage.was_safe_within(wall(&from), wall(&to)),
                    "falsely ready"
                );
            }
        } else {
            was_unsafe = true;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert!(was_unsafe, "the poll found the restart");
    until_safe(&polling, &own).await;
    assert_ne!(safe(&watching, &pod).await.0, ReadinessState::Ready);
    assert_eq!(lists("informerd-watch"), 0, "by watch nobody ever polls");
    let polled = by_both
        .metric("informerd_aerospike_polls_total{resource=\"pods\"")
        .await;
    assert!(polled > Some(0.0), "{polled:?}");

    cluster.apply(&rules("get, list, watch")).await;
    sleep(Duration::from_secs(1)).await;
    watched_again(&watching).await;
    let back = Instant::now();
    until_safe(&watching, &own).await;
    assert!(
        back.elapsed() < Duration::from_secs(2),
        "{:?}",
        back.elapsed()
    );
    let answer = wait(
        &watching,
        vec![WaitTarget {
            target: Some(pod),
            uid,
            ..WaitTarget::default()
        }],
    )
    .await;
    assert_eq!(
        answer.outcome(),
        WaitOutcome::Satisfied,
        "{:?}",
        answer.missing
    );
    // Each daemon backs off by itself: the other one may come back later.
    watched_again(&polling).await;
    until_safe(&polling, &own).await;
    let stopped = lists("informerd-both");
    sleep(Duration::from_secs(4)).await;
    assert!(
        lists("informerd-both") <= stopped + 1,
        "nobody polls any more"
    );
}

/// Runs the example operator in one of its modes until it has restarted all four pods, and ends it.
async fn rolled_out(stage: &mut Stage, mode: &str, daemon: &Daemon, kubeconfig: &Path) {
    stage.roll_out(mode).await.expect("a new template");
    let mut command = Command::new(cluster::go_example().await.expect("it builds"));
    command
        .args(["--mode", mode, "--interval", "1s", "--informerd"])
        .arg(daemon.server().to_string())
        .arg("--kubeconfig")
        .arg(kubeconfig);
    let scratch = Scratch::new("example").unwrap();
    let log = scratch.path().join("operator.log");
    let mut operator = Process::start("operator", &command, &log).expect("it starts");

    let pods = stage.pods();
    let mut restarted = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while restarted.len() < 4 || !stage.is_safe() {
        assert!(
            Instant::now() < deadline,
            "{mode}: {restarted:?}: {}",
            operator.log_tail()
        );
        for node in 0..4 {
            let name = Stage::pod_name(node);
            if pods.get_opt(&name).await.unwrap().is_none() {
                // What the pod ran is still there in the model, until it is replaced.
                assert!(
                    stage.is_safe(),
                    "{mode}: a wrong step: {node} after {restarted:?}"
                );
                stage.recreate(node).await.expect("the pod is replaced");
                restarted.push(node);
            } else if stage.is_safe() {
                // The gate, which is what the poll goes by.
                stage.open_gate(node).await.expect("it is written");
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(restarted, [0, 1, 2, 3], "{mode}: each once, in order");
    let listed = pods.list(&Default::default()).await.unwrap();
    let mut revisions = listed
        .iter()
        .map(|pod| &pod.labels()["controller-revision-hash"]);
    assert!(revisions.all(|revision| revision == mode));
    operator.signal("TERM");
    let ended = operator.wait(Duration::from_secs(20)).await;
    assert_eq!(ended, Some(0), "{}", operator.log_tail());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_operator_moves_from_its_poll_to_the_stream_and_takes_no_wrong_step() {
    if !cluster::has_go() {
        return;
    }
    let Some((cluster, mut stage, daemon, client)) = start(Operator::Acko, "moved", 4).await else {
        return;
    };
    until_safe(&client, &target("asc", "moved", "cache")).await;
    let reads = || {
        let log = cluster.audit_log().expect("it is our own cluster");
        let of = |verb| log.requests("operator/", verb, "pods").count();
        (of("list"), of("get"))
    };
    let gets = |agent: &str| {
        let log = cluster.audit_log().expect("it is our own cluster");
        let of = |resource| log.requests(agent, "get", resource).count();
        of("pods") + of("aerospikeclusters")
    };
    rolled_out(&mut stage, "poll", &daemon, cluster.kubeconfig()).await;
    let polled = reads();
    assert!(polled.0 >= 4 && polled.1 >= 16, "{polled:?}");
    assert!(client.consumers("").await.unwrap().is_empty());
    let asked = gets("informerd-as");
    rolled_out(&mut stage, "watch-and-poll", &daemon, cluster.kubeconfig()).await;
    rolled_out(&mut stage, "watch", &daemon, cluster.kubeconfig()).await;
    assert_eq!(reads(), polled, "informerd was asked");
    assert_eq!(gets("informerd-as"), asked, "which asked nobody for that");
}
