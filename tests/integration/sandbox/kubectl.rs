//! kubectl against a sandbox, as people use it.

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
    cluster::{self, Sandbox},
    support::{succeeded, text},
};

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
async fn what_people_try_first_works_in_a_sandbox() {
    let Some(kubectl) = Kubectl::new(&["--rate", "0", "--pods", "9"]).await else {
        return;
    };
    // Most of these send protobuf.
    for (command, said) in [
        ("create namespace mine", "namespace/mine created"),
        (
            "config set-context --current --namespace=mine",
            "Context \"sandbox\" modified.",
        ),
        (
            "create deployment web --image=web:1 --replicas=2 --port=80",
            "deployment.apps/web created",
        ),
        (
            "create configmap c --from-literal=a=b",
            "configmap/c created",
        ),
        (
            "create secret generic s --from-literal=a=b",
            "secret/s created",
        ),
        (
            "create service clusterip other --tcp=80:8080",
            "service/other created",
        ),
        ("run one --image=busybox --labels=a=b", "pod/one created"),
        ("expose deployment web --port=80", "service/web exposed"),
        (
            "rollout status deployment/web --timeout=60s",
            "successfully rolled out",
        ),
        (
            "wait pod/one --for=condition=Ready --timeout=60s",
            "pod/one condition met",
        ),
        (
            "get service web -o jsonpath={.spec.ports[0].targetPort}{.spec.selector.app}",
            "80web",
        ),
        ("get secret s -o jsonpath={.data.a}", "Yg=="),
        (
            "describe deployment web",
            "2 desired | 2 updated | 2 total | 2 available",
        ),
        ("describe pod one", "Image:          busybox"),
        ("cordon node-0", "node/node-0 cordoned"),
        (
            "drain node-0 --force --ignore-daemonsets --delete-emptydir-data --timeout=60s",
            "node/node-0 drained",
        ),
        ("uncordon node-0", "node/node-0 uncordoned"),
        ("delete pod one --now --ignore-not-found", ""),
        (
            "delete namespace mine --timeout=60s",
            "namespace \"mine\" deleted",
        ),
    ] {
        let args: Vec<&str> = command.split(' ').collect();
        let out = kubectl.ok(&args).await;
        assert!(out.contains(said), "{command}: {out}");
    }
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
    // What the kind does not have, and what is of another type (`y` is true in YAML).
    let odd = WEB.replace("replicas: 2", "replica: 2");
    let odd = kubectl.fails(&["apply", "-f", "-"], &odd).await;
    assert!(
        odd.contains("strict decoding error: unknown field \"spec.replica\""),
        "{odd}"
    );
    let odd = WEB.replace("replicas: 2", "replica: 2");
    let told = kubectl
        .run(
            &["apply", "--validate=warn", "--dry-run=server", "-f", "-"],
            &odd,
        )
        .await;
    assert!(
        text(&told)
            .1
            .contains("Warning: unknown field \"spec.replica\""),
        "{told:?}"
    );
    let boolean = map("b").replace("{k: v}", "{k: y}");
    let boolean = kubectl.fails(&["apply", "-f", "-"], &boolean).await;
    assert!(
        boolean.contains("data.k is true, and must be a string"),
        "{boolean}"
    );
    let job = kubectl
        .fails(&["create", "job", "j", "--image=x"], "")
        .await;
    assert!(
        job.contains("there are no jobs.batch in this sandbox; there are"),
        "{job}"
    );
    let pod = ["run", "p", "--image=x"];
    kubectl.ok(&pod).await;
    let logs = kubectl.fails(&["logs", "p"], "").await;
    assert!(logs.contains("no container runs in a sandbox"), "{logs}");
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
