//! The sandbox, from outside: a daemon over it, as over an API server, which needs no Go; the demo as a process; and
//! kubectl, as people use it.

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::{
    cluster::{self, Churn, ChurnOptions, Daemon, DirectWatch, Proxy, Sandbox},
    support::{connect, informerd, kind, pods, seed, succeeded, text, within},
    validators::{Recorder, Reference, check_all, watch_request},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_follows_a_sandbox_as_it_follows_an_api_server() {
    let sandbox = Sandbox::start(&["--still"]).await.unwrap();
    let proxy = Proxy::start(sandbox.address()).await.unwrap();
    let client = cluster::client(&sandbox.kubeconfig()).await.unwrap();
    let direct = DirectWatch::start(&client, &pods(), None, None)
        .await
        .unwrap();
    let options = ChurnOptions {
        seed: seed(),
        rate: 100,
        ..ChurnOptions::default()
    };
    let churn = Churn::start(client, options).await.unwrap();
    let kubeconfig = sandbox.kubeconfig_for(proxy.address()).unwrap();
    let daemon = Daemon::start("kinds: [pods, cats.example.com]", &kubeconfig).await;
    let recorder = Recorder::start(daemon.server(), watch_request("pods"), None);
    for _ in 0..2 {
        let before = direct.seen().len();
        within(Duration::from_secs(30), "100 changes", || async {
            direct.seen().len() >= before + 100
        })
        .await;
        proxy.cut_all();
    }
    let before = direct.seen().len();
    within(
        Duration::from_secs(30),
        "100 changes after the cuts",
        || async { direct.seen().len() >= before + 100 },
    )
    .await;
    let (writes, failures) = churn.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    let last = &writes.last().unwrap().resource_version;
    assert!(direct.wait_for(last, Duration::from_secs(10)).await);
    let recording = recorder.reach(last.parse().unwrap()).await;
    let reference = Reference::new(&direct.seen(), |_| true);
    check_all(&recording, &reference, &[]).unwrap();
    let status = kind(&connect(&daemon), "pods").await.unwrap();
    assert_eq!(
        status.relists,
        [("initial".into(), 1)].into(),
        "a cut needs no list"
    );
    assert_eq!((status.digest_mismatches, status.undecodable), (0, 0));
    assert!(status.watches_opened > 1, "the proxy cuts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_judges_the_world_of_a_sandbox() {
    let sandbox = Sandbox::start(&["--rate", "0", "--pods", "18"])
        .await
        .unwrap();
    let config = "controllers: [node, service, workload]
kinds: [pods, nodes, services, endpointslices.discovery.k8s.io, deployments.apps, replicasets.apps]";
    let daemon = Daemon::start(config, &sandbox.kubeconfig()).await;
    let server = daemon.server().to_string();
    let targets = ["deployment/web", "service/web"];
    let mut args = vec![
        "wait",
        "--server",
        &server,
        "-n",
        "shop",
        "--timeout",
        "60s",
    ];
    args.extend(targets);
    let output = informerd(&args).await;
    assert!(output.status.success(), "{:?}", text(&output));
}

#[tokio::test]
async fn a_sandbox_says_what_it_is_and_listens_on_loopback_only() {
    let sandbox = Sandbox::start(&["--still"]).await.unwrap();
    let log = sandbox.log();
    let first = log.lines().next().unwrap_or_default();
    assert!(
        first.starts_with("This is a sandbox, for trying out and testing: no credentials"),
        "{first}"
    );
    let output = informerd(&["sandbox", "--listen", "0.0.0.0:0"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).1.contains("must be a loopback address"),
        "{:?}",
        text(&output)
    );
}

#[tokio::test]
async fn a_demo_ends_by_itself_and_all_have_agreed() {
    let demo = informerd(&["demo", "--for", "8s", "--rate", "5", "--consumers", "8"]);
    let output = timeout(Duration::from_secs(120), demo)
        .await
        .expect("it ends by itself");
    let (out, err) = text(&output);
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    for said in [
        "Try in another terminal:",
        " watches, never two of one kind; ",
        "consumers  8 over gRPC",
        "and 8 consumers' copies: all the same as the API server's",
    ] {
        assert!(out.contains(said), "{said:?} is missing:\n{out}");
    }
    assert!(
        !out.contains('\x1b'),
        "plain lines where there is no terminal"
    );
}

/// kubectl against a sandbox, with a home of its own.
struct Kubectl {
    sandbox: Sandbox,
    binary: std::path::PathBuf,
}

impl Kubectl {
    async fn new(args: &[&str]) -> Option<Self> {
        let binary = cluster::kubectl().await?;
        let sandbox = Sandbox::start(args).await.unwrap();
        Some(Self { sandbox, binary })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("kubectl").args(args);
        command
            .env("HOME", self.sandbox.scratch())
            .env("KUBECONFIG", self.sandbox.kubeconfig())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&str], input: &str) -> Output {
        let mut command = self.command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // Fails where kubectl did not want it all; it says why itself.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = timeout(Duration::from_secs(90), child.wait_with_output()).await;
        output
            .unwrap_or_else(|_| panic!("kubectl {args:?} does not end"))
            .unwrap()
    }

    async fn ok(&self, args: &[&str]) -> String {
        succeeded(&self.run(args, "").await)
    }

    async fn apply(&self, manifest: &str, more: &[&str]) -> String {
        let args = [&["apply", "-f", "-"][..], more].concat();
        succeeded(&self.run(&args, manifest).await)
    }

    async fn fails(&self, args: &[&str], input: &str) -> String {
        let output = self.run(args, input).await;
        assert!(!output.status.success(), "{args:?}: {:?}", text(&output));
        text(&output).1
    }
}

fn map(name: &str) -> String {
    format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}, data: {{k: v}}}}")
}

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: web, image: 'web:1', ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_applies_scales_edits_rolls_and_deletes_in_a_sandbox() {
    let Some(kubectl) = Kubectl::new(&["--rate", "0", "--pods", "9"]).await else {
        return;
    };
    // Apply, and again.
    let applied = kubectl.apply(WEB, &[]).await;
    assert_eq!(
        applied,
        "deployment.apps/web created\nservice/web created\n"
    );
    let again = kubectl.apply(WEB, &[]).await;
    assert_eq!(
        again,
        "deployment.apps/web unchanged\nservice/web unchanged\n"
    );
    let rolled = kubectl
        .ok(&["rollout", "status", "deployment/web", "--timeout=60s"])
        .await;
    assert!(rolled.contains("successfully rolled out"), "{rolled}");
    let table = kubectl.ok(&["get", "deployment", "web"]).await;
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["web", "2/2", "2", "2"], "{table}");

    // Scale.
    let scaled = kubectl
        .ok(&["scale", "deployment", "web", "--replicas=4"])
        .await;
    assert_eq!(scaled, "deployment.apps/web scaled\n");
    kubectl
        .ok(&["rollout", "status", "deployment/web", "--timeout=60s"])
        .await;
    kubectl
        .ok(&[
            "wait",
            "pod",
            "-l",
            "app=web",
            "--for=condition=Ready",
            "--timeout=60s",
        ])
        .await;
    let pods = kubectl
        .ok(&["get", "pods", "-l", "app=web", "-o", "name"])
        .await;
    assert_eq!(pods.lines().count(), 4, "{pods}");
    let slices = [
        "get",
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=web",
        "-o",
    ];
    let ready = [
        &slices[..],
        &["jsonpath={.items[*].endpoints[*].conditions.ready}"][..],
    ]
    .concat();
    assert_eq!(kubectl.ok(&ready).await, "true true true true");

    // A rollout, by three ways of changing the template.
    kubectl
        .ok(&["set", "image", "deployment/web", "web=web:2"])
        .await;
    kubectl
        .ok(&["rollout", "status", "deployment/web", "--timeout=60s"])
        .await;
    let changed = kubectl
        .apply(
            &WEB.replace("web:1", "web:3")
                .replace("replicas: 2", "replicas: 1"),
            &[],
        )
        .await;
    assert!(
        changed.starts_with("deployment.apps/web configured\n"),
        "{changed}"
    );
    kubectl.ok(&["rollout", "restart", "deployment/web"]).await;
    kubectl
        .ok(&["rollout", "status", "deployment/web", "--timeout=60s"])
        .await;
    let image = [
        "get",
        "deployment",
        "web",
        "-o",
        "jsonpath={.spec.template.spec.containers[0].image} {.spec.replicas}",
    ];
    assert_eq!(kubectl.ok(&image).await, "web:3 1");
    let history = kubectl.ok(&["rollout", "history", "deployment/web"]).await;
    assert!(history.lines().count() >= 5, "{history}");
    kubectl
        .ok(&["rollout", "undo", "deployment/web", "--to-revision=1"])
        .await;
    kubectl
        .ok(&["rollout", "status", "deployment/web", "--timeout=60s"])
        .await;
    assert_eq!(kubectl.ok(&image).await, "web:1 1");

    // Edit, label, annotate, patch.
    let mut edit = kubectl.command(&["edit", "deployment", "web"]);
    edit.env("KUBE_EDITOR", "sed -i s/web:1/web:4/");
    let edited = succeeded(&edit.output().await.unwrap());
    assert_eq!(edited, "deployment.apps/web edited\n");
    assert_eq!(kubectl.ok(&image).await, "web:4 1");
    kubectl.ok(&["label", "service", "web", "tier=front"]).await;
    kubectl
        .ok(&["annotate", "service", "web", "note=hello"])
        .await;
    kubectl
        .ok(&[
            "patch",
            "service",
            "web",
            "-p",
            r#"{"spec":{"ports":[{"port":80,"name":"http"}]}}"#,
        ])
        .await;
    let service = kubectl.ok(&["get", "service", "web", "-o", "json"]).await;
    let service: Value = serde_json::from_str(&service).unwrap();
    assert_eq!(service["metadata"]["labels"]["tier"], "front");
    assert_eq!(service["spec"]["ports"][0]["name"], "http");

    // Delete, which waits until it is gone, and its pods with it.
    let deleted = kubectl
        .ok(&["delete", "deployment", "web", "--timeout=60s"])
        .await;
    assert!(
        deleted.starts_with("deployment.apps \"web\" deleted"),
        "{deleted}"
    );
    kubectl
        .ok(&[
            "wait",
            "pod",
            "-l",
            "app=web",
            "--for=delete",
            "--timeout=60s",
        ])
        .await;
    let left = kubectl
        .ok(&["get", "pods,replicasets", "-l", "app=web", "-o", "name"])
        .await;
    assert_eq!(left, "");
    let gone = kubectl.fails(&["get", "deployment", "web"], "").await;
    assert_eq!(
        gone,
        "Error from server (NotFound): deployments.apps \"web\" not found\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_is_refused_in_a_sandbox_as_by_an_api_server() {
    let Some(kubectl) = Kubectl::new(&["--still"]).await else {
        return;
    };
    kubectl.apply(&map("a"), &[]).await;
    let again = kubectl.fails(&["create", "-f", "-"], &map("a")).await;
    assert!(
        again.contains("(AlreadyExists)") && again.contains("configmaps \"a\" already exists"),
        "{again}"
    );
    let protobuf = kubectl.fails(&["create", "namespace", "b"], "").await;
    assert!(
        protobuf.contains("--dry-run=client -o yaml | kubectl apply -f -"),
        "it says what to do instead: {protobuf}"
    );
    let wrong = WEB.replace("{app: web}}\n  template", "{app: other}}\n  template");
    let wrong = kubectl.fails(&["apply", "-f", "-"], &wrong).await;
    assert!(
        wrong.contains("`selector` does not match template `labels`"),
        "{wrong}"
    );
    let nowhere = kubectl
        .fails(&["apply", "-n", "nowhere", "-f", "-"], &map("b"))
        .await;
    assert!(
        nowhere.contains("namespaces \"nowhere\" not found"),
        "{nowhere}"
    );
    let unknown = kubectl.fails(&["get", "jobs"], "").await;
    assert!(
        unknown.contains("the server doesn't have a resource type \"jobs\""),
        "{unknown}"
    );

    // What somebody else has changed meanwhile is not overwritten.
    let seen = kubectl.ok(&["get", "configmap", "a", "-o", "yaml"]).await;
    kubectl
        .ok(&[
            "patch",
            "configmap",
            "a",
            "--type=merge",
            "-p",
            r#"{"data":{"k":"w"}}"#,
        ])
        .await;
    let stale = kubectl.fails(&["replace", "-f", "-"], &seen).await;
    assert!(
        stale.contains(
            "the object has been modified; please apply your changes to the latest version"
        ),
        "{stale}"
    );

    // A dry run stores nothing; server-side apply does what it says.
    let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {x: '1', y: '2'}}";
    kubectl.apply(map, &["--dry-run=server"]).await;
    kubectl.fails(&["get", "configmap", "c"], "").await;
    let applied = kubectl.apply(map, &["--server-side"]).await;
    assert_eq!(applied, "configmap/c serverside-applied\n");
    kubectl
        .apply(&map.replace(", y: '2'", ""), &["--server-side"])
        .await;
    let data = kubectl
        .ok(&["get", "configmap", "c", "-o", "jsonpath={.data}"])
        .await;
    assert_eq!(data, r#"{"x":"1"}"#);
    let deleted = kubectl.ok(&["delete", "configmaps", "--all"]).await;
    assert_eq!(deleted.lines().count(), 2, "{deleted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_defines_kinds_and_ends_namespaces_in_a_sandbox() {
    let Some(kubectl) = Kubectl::new(&["--still"]).await else {
        return;
    };
    kubectl
        .apply(
            "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: cats.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: cats, singular: cat, kind: Cat, shortNames: [ct]}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
    subresources: {status: {}, scale: {specReplicasPath: .spec.lives, statusReplicasPath: .status.lives}}
    additionalPrinterColumns: [{name: Lives, type: integer, jsonPath: .spec.lives}]
",
            &[],
        )
        .await;
    kubectl
        .ok(&[
            "wait",
            "crd/cats.example.com",
            "--for=condition=Established",
            "--timeout=10s",
        ])
        .await;
    let zoo = "{apiVersion: v1, kind: Namespace, metadata: {name: zoo}}";
    assert_eq!(kubectl.apply(zoo, &[]).await, "namespace/zoo created\n");
    let cat = "{apiVersion: example.com/v1, kind: Cat, metadata: {name: tom, namespace: zoo}, spec: {lives: 9}}";
    assert_eq!(
        kubectl.apply(cat, &[]).await,
        "cat.example.com/tom created\n"
    );
    let changed = kubectl.apply(&cat.replace('9', "8"), &[]).await;
    assert_eq!(changed, "cat.example.com/tom configured\n");
    let table = kubectl.ok(&["get", "ct", "-n", "zoo"]).await;
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        (&rows[0][..2], &rows[1][..2]),
        (&["NAME", "LIVES"][..], &["tom", "8"][..])
    );
    kubectl
        .ok(&["scale", "cat", "tom", "-n", "zoo", "--replicas=7"])
        .await;
    let lives = kubectl
        .ok(&[
            "get",
            "cat",
            "tom",
            "-n",
            "zoo",
            "-o",
            "jsonpath={.spec.lives} {.metadata.generation}",
        ])
        .await;
    assert_eq!(lives, "7 3");
    kubectl
        .ok(&["delete", "namespace", "zoo", "--timeout=30s"])
        .await;
    assert_eq!(kubectl.ok(&["get", "cats", "-A", "-o", "name"]).await, "");
    kubectl
        .ok(&["delete", "crd", "cats.example.com", "--timeout=30s"])
        .await;
    let unknown = kubectl.fails(&["get", "cats.example.com"], "").await;
    assert!(
        unknown.contains("the server doesn't have a resource type"),
        "{unknown}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_watches_what_happens_in_a_sandbox() {
    let Some(kubectl) = Kubectl::new(&["--still"]).await else {
        return;
    };
    kubectl.apply(&map("first"), &[]).await;
    let mut command = kubectl.command(&["get", "configmaps", "--watch", "-o", "name"]);
    let mut watch = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = timeout(Duration::from_secs(30), lines.next_line()).await;
        line.expect("it is told within 30 s").unwrap().unwrap()
    };
    assert_eq!(next().await, "configmap/first");
    // Its watch goes on where its list has ended: nothing is missed, whenever it opens.
    kubectl.apply(&map("second"), &[]).await;
    assert_eq!(next().await, "configmap/second");
    kubectl.ok(&["label", "configmap", "first", "a=b"]).await;
    assert_eq!(next().await, "configmap/first");
}
