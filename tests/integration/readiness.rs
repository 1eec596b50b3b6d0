//! Verdicts on a real cluster: a rollout, a Service and nodes, waited for without asking the API server for them.

use std::{process::Output, time::Duration};

use futures::StreamExt;
use informerd::{
    client::Client,
    proto::{
        GetReadinessRequest, ReadinessState, Target, Verdict, WaitFor, WaitOutcome,
        WaitReadinessRequest, WaitReadinessResponse, WaitTarget,
    },
};

use crate::{
    cluster::{self, Cluster, Daemon, Scratch},
    support::{connect, discard, eventually, namespace, text},
};

const CONFIG: &str = "
controllers: [node, service, workload]
kinds: [nodes, pods, deployments.apps, replicasets.apps, services, endpointslices.discovery.k8s.io]
";

fn target(resource: &str, namespace: &str, name: &str) -> Target {
    Target {
        resource: resource.into(),
        namespace: namespace.into(),
        name: name.into(),
    }
}

async fn verdict(client: &Client, target: Target) -> Verdict {
    let request = GetReadinessRequest {
        target: Some(target),
    };
    client.verdict(request).await.expect("a verdict").0
}

/// Waits for half a minute, and returns the last answer.
async fn wait(
    client: &Client,
    targets: Vec<WaitTarget>,
    wait_for: WaitFor,
) -> WaitReadinessResponse {
    let request = WaitReadinessRequest {
        targets,
        wait_for: wait_for.into(),
        timeout: Some(prost_types::Duration {
            seconds: 30,
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

fn waited(target: Target) -> WaitTarget {
    WaitTarget {
        target: Some(target),
        ..WaitTarget::default()
    }
}

async fn generation(cluster: &Cluster, args: &[&str]) -> i64 {
    let output = ["-o", "jsonpath={.metadata.generation}"];
    let text = cluster.kubectl_ok(&[args, &output].concat()).await;
    text.trim().parse().expect("a generation")
}

/// Soon it has so many parts, all ready: pods come by a watch of their own, which may tell of those that came or went a
/// little later than the other one tells that it is done.
async fn has_parts(client: &Client, target: Target, all: u32) {
    eventually("all of its pods are its parts, and no others", || async {
        let verdict = verdict(client, target.clone()).await;
        (verdict.parts_total, verdict.parts_ready) == (all, all)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_is_waited_for_step_by_step() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    let space = "verdicts";
    namespace(cluster, space).await;
    let daemon = Daemon::start(CONFIG, cluster.kubeconfig()).await;
    let client = connect(&daemon);
    let deployment = || target("deploy", space, "web");
    let service = || target("svc", space, "web");
    let absent = verdict(&client, deployment()).await;
    assert_eq!(absent.state(), ReadinessState::Gone);

    let kubectl = |args: &[&'static str]| {
        let args = [args, &["-n", space]].concat();
        async move { cluster.kubectl_ok(&args).await }
    };
    kubectl(&[
        "create",
        "deployment",
        "web",
        "--image=registry.invalid/web:1",
        "--replicas=3",
    ])
    .await;
    kubectl(&["expose", "deployment", "web", "--port=80"]).await;
    let answer = wait(&client, vec![waited(deployment())], WaitFor::Ready).await;
    assert_eq!(
        answer.outcome(),
        WaitOutcome::Satisfied,
        "{:?}",
        answer.missing
    );
    let verdict_of_web = &answer.verdicts[0];
    assert_eq!(
        verdict_of_web.target.as_ref().unwrap().resource,
        "deployments.apps"
    );
    has_parts(&client, deployment(), 3).await;

    // The kubelets of this cluster give out no addresses, and without one a pod is no endpoint.
    assert_eq!(
        verdict(&client, service()).await.state(),
        ReadinessState::NotReady
    );
    let pods = kubectl(&["get", "pods", "-o", "name"]).await;
    for (at, pod) in pods.lines().enumerate() {
        let patch =
            format!(r#"{{"status":{{"podIP":"10.9.0.{at}","podIPs":[{{"ip":"10.9.0.{at}"}}]}}}}"#);
        let args = [
            "patch",
            pod,
            "-n",
            space,
            "--subresource=status",
            "-p",
            &patch,
        ];
        cluster.kubectl_ok(&args).await;
    }
    eventually("three endpoints are ready", || async {
        let verdict = verdict(&client, service()).await;
        verdict.state() == ReadinessState::Ready && verdict.parts_ready == 3
    })
    .await;
    let answer = wait(
        &client,
        vec![waited(deployment()), waited(service())],
        WaitFor::Ready,
    )
    .await;
    assert_eq!(answer.outcome(), WaitOutcome::Satisfied);
    let details = String::from_utf8_lossy(&answer.verdicts[1].details).into_owned();
    assert!(details.contains(r#""ready":3"#), "{details}");

    // Right after a write, what was before it does not count.
    for image in ["web=registry.invalid/web:2", "web=registry.invalid/web:3"] {
        let args = ["set", "image", "deployment/web", image, "-n", space];
        let generation = generation(cluster, &args).await;
        let asked = WaitTarget {
            min_generation: generation,
            ..waited(deployment())
        };
        let answer = wait(&client, vec![asked], WaitFor::Ready).await;
        assert_eq!(
            answer.outcome(),
            WaitOutcome::Satisfied,
            "{:?}",
            answer.missing
        );
        let verdict = &answer.verdicts[0];
        assert!(verdict.generation >= generation);
        assert_eq!(verdict.generation, verdict.observed_generation);
        has_parts(&client, deployment(), 3).await;
    }
    // Without a version the daemon asks which one is there now.
    kubectl(&["scale", "deployment/web", "--replicas=5"]).await;
    let scaled = generation(cluster, &["get", "deployment/web", "-n", space]).await;
    let answer = wait(&client, vec![waited(deployment())], WaitFor::Ready).await;
    assert_eq!(
        answer.outcome(),
        WaitOutcome::Satisfied,
        "{:?}",
        answer.missing
    );
    assert_eq!(
        answer.verdicts[0].observed_generation, scaled,
        "not what was there before the write"
    );
    has_parts(&client, deployment(), 5).await;
    // What a write has printed is all that a script has to pass on.
    let scratch = Scratch::new("written").unwrap();
    let file = scratch.path().join("web.json").display().to_string();
    let fewer = r#"{"spec":{"replicas":2}}"#;
    let written = kubectl(&["patch", "deployment", "web", "-p", fewer, "-o", "json"]).await;
    std::fs::write(&file, written).unwrap();
    let output = daemon.cli(&["wait", "-f", &file, "--timeout", "60s"]).await;
    let (met, said) = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(met, "deployments.apps/web ready\n");
    has_parts(&client, deployment(), 2).await;

    let patch = r#"{"spec":{"template":{"spec":{"nodeSelector":{"no":"where"}}}}}"#;
    kubectl(&["patch", "deployment", "web", "-p", patch]).await;
    eventually("it says why it does not go on", || async {
        let verdict = verdict(&client, deployment()).await;
        verdict.state() == ReadinessState::NotReady
            && verdict
                .parts
                .first()
                .is_some_and(|part| part.reason == "Unschedulable")
    })
    .await;
    let output = daemon
        .cli(&["wait", "deployment/web", "-n", space, "--timeout", "1s"])
        .await;
    let (_, said) = text(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains("timed out waiting for deployments.apps/web"),
        "{said}"
    );
    let output = daemon
        .cli(&["ready", "deployment/web", "pods", "-n", space])
        .await;
    let (table, _) = text(&output);
    assert!(
        table.contains("NotReady") && table.contains("Unschedulable"),
        "{table}"
    );

    kubectl(&["delete", "deployment", "web", "--wait=false"]).await;
    let answer = wait(&client, vec![waited(deployment())], WaitFor::Gone).await;
    assert_eq!(
        answer.outcome(),
        WaitOutcome::Satisfied,
        "{:?}",
        answer.missing
    );
    let output: Output = daemon
        .cli(&[
            "wait",
            "svc/web",
            "-n",
            space,
            "--for",
            "gone",
            "--timeout=1s",
        ])
        .await;
    assert_eq!(output.status.code(), Some(3));

    eventually("all pods are gone", || async {
        verdict(&client, service()).await.reason == "NoEndpoints"
    })
    .await;
    if let Some(audit) = cluster.audit_log() {
        let agent = concat!("informerd/", env!("CARGO_PKG_VERSION"));
        assert!(audit.open_watches(agent, "pods") >= 1);
    }
    let watches = client.kinds().await.unwrap();
    for kind in watches {
        assert_eq!(kind.watches_open, 1, "{} is watched once", kind.resource);
    }
    discard(cluster, &[space]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_watch_makes_verdicts_unknown_and_they_are_back_at_once_after_it() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let proxy = cluster::Proxy::start(cluster.address()).await.unwrap();
    let kubeconfig = cluster
        .kubeconfig_for("verdicts", cluster::Credential::Admin, proxy.address())
        .unwrap();
    let daemon = Daemon::start("controllers: [workload]\nkinds: [namespaces]", &kubeconfig).await;
    let client = connect(&daemon);
    let state = || async { verdict(&client, target("ns", "", "default")).await.state() };
    eventually("the namespace is ready", || async {
        state().await == ReadinessState::Ready
    })
    .await;
    proxy.refuse(true).await.unwrap();
    proxy.cut_all();
    let cut = tokio::time::Instant::now();
    eventually("nobody can tell", || async {
        state().await == ReadinessState::Unknown
    })
    .await;
    assert!(
        cut.elapsed() > Duration::from_secs(10),
        "a short cut is none"
    );
    proxy.refuse(false).await.unwrap();
    eventually("it is ready again", || async {
        state().await == ReadinessState::Ready
    })
    .await;
}
