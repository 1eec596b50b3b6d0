//! The manifests in deploy/ as a real API server sees them: nobody can try them on a cloud here, so all else is
//! checked.

use std::collections::BTreeSet;

use informerd::{
    args::ServeArgs,
    config::{self, Config},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod},
    rbac::v1::ClusterRole,
};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use crate::{
    cluster::{self, Daemon, Scratch},
    support::{discard, namespace, succeeded},
};

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/informerd.yaml");

#[tokio::test]
async fn the_manifest_is_accepted_and_says_the_same_throughout() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    // Once for real, since a dry run knows of no namespace that the same file creates; then dry, as people try it.
    for args in [["apply", "--dry-run=none"], ["apply", "--dry-run=server"]] {
        let output = cluster
            .kubectl(&[args[0], args[1], "--validate=strict", "-f", MANIFEST])
            .await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        // Warnings too: of Pod Security, of fields that are deprecated.
        assert!(
            output.status.success() && stderr.is_empty(),
            "{args:?}: {stderr}"
        );
    }

    let client = cluster.client().await;
    let deployment: Deployment = Api::namespaced(client.clone(), "informerd")
        .get("informerd")
        .await
        .unwrap();
    let template = deployment.spec.unwrap().template;
    let pod_spec = template.spec.clone().unwrap();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "try", "labels": template.metadata.unwrap().labels },
        "spec": template.spec,
    }))
    .unwrap();
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), "informerd");
    pods.create(&dry_run, &pod)
        .await
        .expect("restricted Pod Security admits the pod");

    let map: ConfigMap = Api::namespaced(client.clone(), "informerd")
        .get("informerd")
        .await
        .unwrap();
    let scratch = Scratch::new("manifest").unwrap();
    let file = scratch.path().join("config.yaml");
    std::fs::write(&file, &map.data.unwrap()["config.yaml"]).unwrap();
    let config = config::load(&ServeArgs {
        config: Some(file),
        ..ServeArgs::default()
    })
    .unwrap();
    let container = &pod_spec.containers[0];
    let ports: BTreeSet<_> = container
        .ports
        .iter()
        .flatten()
        .map(|port| port.container_port as u16)
        .collect();
    assert_eq!(
        ports,
        BTreeSet::from([config.listen.port(), config.admin.port()])
    );
    assert!(
        !config.admin.ip().is_loopback(),
        "the kubelet's probes come from outside the pod"
    );
    let grace = pod_spec.termination_grace_period_seconds.unwrap() as u64;
    assert!(config.shutdown_grace.as_secs() < grace);

    let role: ClusterRole = Api::all(client).get("informerd").await.unwrap();
    assert_eq!(
        granted(&role),
        configured(config),
        "the ClusterRole grants just the kinds of the configuration"
    );
}

/// The kinds that a role lets one read and watch.
fn granted(role: &ClusterRole) -> BTreeSet<String> {
    role.rules
        .iter()
        .flatten()
        .filter(|rule| rule.verbs == ["get", "list", "watch"])
        .flat_map(|rule| {
            let group = &rule.api_groups.as_ref().unwrap()[0];
            rule.resources
                .iter()
                .flatten()
                .map(move |resource| match &**group {
                    "" => resource.clone(),
                    group => format!("{resource}.{group}"),
                })
        })
        .collect()
}

fn configured(config: Config) -> BTreeSet<String> {
    config.kinds.into_iter().map(|kind| kind.resource).collect()
}

const INIT_CONTAINER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/deploy/examples/init-container.yaml"
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_of_an_init_container_is_accepted_and_waits_for_what_it_names() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    let space = "init-container";
    namespace(cluster, space).await;
    cluster
        .kubectl_ok(&[
            "label",
            "namespace",
            space,
            "pod-security.kubernetes.io/warn=restricted",
        ])
        .await;
    let output = cluster
        .kubectl(&[
            "apply",
            "--dry-run=server",
            "--validate=strict",
            "-n",
            space,
            "-f",
            INIT_CONTAINER,
            "-o",
            "json",
        ])
        .await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let one = |kind: &str| {
        let mut items = all["items"].as_array().unwrap().iter();
        let found = items.find(|item| item["kind"] == kind);
        found.unwrap_or_else(|| panic!("no {kind}")).clone()
    };

    let map: ConfigMap = serde_json::from_value(one("ConfigMap")).unwrap();
    let text = &map.data.unwrap()["config.yaml"];
    let scratch = Scratch::new("init-container").unwrap();
    let file = scratch.path().join("config.yaml");
    std::fs::write(&file, text).unwrap();
    let config = config::load(&ServeArgs {
        config: Some(file),
        ..ServeArgs::default()
    })
    .unwrap();
    let role: ClusterRole = serde_json::from_value(one("ClusterRole")).unwrap();
    assert_eq!(granted(&role), configured(config));

    // What its containers do, but for the addresses.
    let deployment: Deployment = serde_json::from_value(one("Deployment")).unwrap();
    let pod = deployment.spec.unwrap().template.spec.unwrap();
    let [serve, wait] = &pod.init_containers.unwrap()[..] else {
        panic!("a daemon and a wait");
    };
    assert_eq!(serve.args.as_ref().unwrap()[0], "serve");
    let args = wait.args.as_ref().unwrap().iter();
    let args: Vec<&str> = args
        .map(|arg| if arg == "$(NAMESPACE)" { space } else { arg })
        .collect();
    let daemon = Daemon::start(text, cluster.kubeconfig()).await;
    let timely = [&args[..args.len() - 1], &["1s"]].concat();
    let output = daemon.cli(&timely).await;
    assert_eq!(output.status.code(), Some(3), "nothing is there yet");
    let set = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": { "name": "db" },
        "spec": {
            "serviceName": "db",
            "selector": { "matchLabels": { "app": "db" } },
            "template": {
                "metadata": { "labels": { "app": "db" } },
                "spec": { "containers": [{ "name": "db", "image": "registry.invalid/db:1" }] },
            },
        },
    });
    let file = scratch.path().join("db.json");
    std::fs::write(&file, set.to_string()).unwrap();
    let file = file.to_string_lossy();
    cluster
        .kubectl_ok(&["apply", "-n", space, "-f", &*file])
        .await;
    let image = "--image=registry.invalid/queue:1";
    cluster
        .kubectl_ok(&["create", "deployment", "queue", image, "-n", space])
        .await;
    let output = daemon.cli(&args).await;
    assert_eq!(
        succeeded(&output),
        "statefulsets.apps/db ready\ndeployments.apps/queue ready\n"
    );
    discard(cluster, &[space]).await;
}
