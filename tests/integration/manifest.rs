//! deploy/informerd.yaml as a real API server sees it: nobody can try it on a cloud here, so all else is checked.

use std::collections::BTreeSet;

use informerd::{args::ServeArgs, config};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod},
    rbac::v1::ClusterRole,
};
use kube::{Api, api::PostParams};
use serde_json::json;

use crate::cluster::{self, Scratch};

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
    let granted: BTreeSet<_> = role
        .rules
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
        .collect();
    let configured: BTreeSet<_> = config.kinds.into_iter().map(|kind| kind.resource).collect();
    assert_eq!(
        granted, configured,
        "the ClusterRole grants just the kinds of the configuration"
    );
}
