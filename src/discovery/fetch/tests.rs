//! Discovery in both its forms, and when some of it fails.

use serde_json::json;

use super::{super::fake::*, *};

#[tokio::test]
async fn an_unchanged_server_is_asked_in_two_cheap_requests() {
    let server = FakeServer::serving(&[
        ("", "v1", "Pod", "pods"),
        ("apps", "v1", "Deployment", "deployments"),
    ]);
    let mut discovery = Discovery::new(server.upstream());
    assert!(discovery.poll().await.unwrap());
    assert_eq!(server.asked(), ["/api", "/apis"]);
    assert!(!discovery.poll().await.unwrap());
    assert_eq!(server.asked(), ["/api (304)", "/apis (304)"]);
    let catalog = discovery.catalog().unwrap();
    assert_eq!(
        catalog
            .resolve("deploy")
            .err()
            .map(|error| error.to_string())
            .as_deref(),
        Some("the API server serves no `deploy`; did you mean `deployments.apps`?")
    );
    assert_eq!(
        catalog.resolve("deployment").unwrap().api_version(),
        "apps/v1"
    );
}

#[tokio::test]
async fn a_change_in_one_document_keeps_the_other() {
    let server = FakeServer::serving(&[("", "v1", "Pod", "pods")]);
    let mut discovery = Discovery::new(server.upstream());
    discovery.poll().await.unwrap();
    server.serve(&[
        ("", "v1", "Pod", "pods"),
        ("acme.io", "v1", "Widget", "widgets"),
    ]);
    server.asked();
    assert!(discovery.poll().await.unwrap());
    assert_eq!(server.asked(), ["/api (304)", "/apis"]);
    let catalog = discovery.catalog().unwrap();
    assert!(catalog.resolve("pods").is_ok() && catalog.resolve("widgets.acme.io").is_ok());
}

#[tokio::test]
async fn what_one_document_said_counts_though_the_next_one_cannot_be_had() {
    let server = FakeServer::serving(&[("", "v1", "Pod", "pods")]);
    server.set("/apis", 503, json!({}));
    let mut discovery = Discovery::new(server.upstream());
    discovery.poll().await.unwrap_err();
    server.serve(&[("", "v1", "Pod", "pods")]);
    server.asked();
    assert!(discovery.poll().await.unwrap());
    assert_eq!(server.asked(), ["/api (304)", "/apis"]);
    assert!(discovery.catalog().unwrap().resolve("pods").is_ok());
    // The same when it is known already.
    server.serve(&[("", "v1", "Pod", "pods"), ("", "v1", "Node", "nodes")]);
    server.set("/apis", 503, json!({}));
    discovery.poll().await.unwrap_err();
    server.serve(&[("", "v1", "Pod", "pods"), ("", "v1", "Node", "nodes")]);
    assert!(discovery.poll().await.unwrap());
    assert!(discovery.catalog().unwrap().resolve("nodes").is_ok());
}

#[tokio::test]
async fn an_api_that_cannot_be_reached_keeps_its_kinds() {
    let document = |freshness: &str, resources: Vec<serde_json::Value>| {
        json!({"kind": "APIGroupDiscoveryList", "items": [{"metadata": {"name": "metrics.k8s.io"},
            "versions": [{"version": "v1beta1", "freshness": freshness, "resources": resources}]}]})
    };
    let server = FakeServer::serving(&[("", "v1", "Pod", "pods")]);
    server.set(
        "/apis",
        200,
        document("Current", vec![resource("PodMetrics", "pods")]),
    );
    let mut discovery = Discovery::new(server.upstream());
    discovery.poll().await.unwrap();
    server.set("/apis", 200, document("Stale", vec![]));
    discovery.poll().await.unwrap();
    assert!(
        discovery
            .catalog()
            .unwrap()
            .resolve("pods.metrics.k8s.io")
            .is_ok()
    );
    server.set("/apis", 200, document("Current", vec![]));
    assert!(discovery.poll().await.unwrap());
    assert!(
        discovery
            .catalog()
            .unwrap()
            .resolve("pods.metrics.k8s.io")
            .is_err()
    );
}

#[tokio::test]
async fn an_old_server_is_asked_group_by_group_and_a_broken_group_harms_no_other() {
    let server = FakeServer::default();
    server.set(
        "/api",
        200,
        json!({"kind": "APIVersions", "versions": ["v1"]}),
    );
    let group = |name: &str, versions: &[&str], preferred: &str| {
        let of = |version: &str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
        json!({"name": name, "preferredVersion": of(preferred),
            "versions": versions.iter().map(|version| of(version)).collect::<Vec<_>>()})
    };
    server.set("/apis", 200, json!({"kind": "APIGroupList", "groups": [
        group("autoscaling", &["v1", "v2"], "v2"), group("metrics.k8s.io", &["v1beta1"], "v1beta1")]}));
    let list = |name: &str, kind: &str| {
        json!({"kind": "APIResourceList", "groupVersion": "x", "resources": [
        {"name": name, "singularName": "", "kind": kind, "namespaced": true, "shortNames": ["s"], "verbs": ["get", "list", "watch"]},
        {"name": format!("{name}/status"), "singularName": "", "kind": kind, "namespaced": true, "verbs": ["get"]}]})
    };
    server.set("/api/v1", 200, list("pods", "Pod"));
    for version in ["v1", "v2"] {
        server.set(
            &format!("/apis/autoscaling/{version}"),
            200,
            list("horizontalpodautoscalers", "HorizontalPodAutoscaler"),
        );
    }
    server.set("/apis/metrics.k8s.io/v1beta1", 503, json!({}));
    let mut discovery = Discovery::new(server.upstream());
    assert!(discovery.poll().await.unwrap());
    let catalog = discovery.catalog().unwrap();
    assert_eq!(
        catalog.resolve("pods").unwrap().url_path(None),
        "/api/v1/pods"
    );
    assert_eq!(
        catalog.resolve("horizontalpodautoscaler").unwrap().version,
        "v2"
    );
    assert!(
        !discovery.poll().await.unwrap(),
        "the same answers are no change"
    );
}

#[tokio::test]
async fn an_answer_that_is_no_discovery_is_an_error_and_changes_nothing() {
    let server = FakeServer::serving(&[("", "v1", "Pod", "pods")]);
    let mut discovery = Discovery::new(server.upstream());
    discovery.poll().await.unwrap();
    server.set("/apis", 200, json!("hello"));
    let error = discovery.poll().await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot read the API server's discovery document: "),
        "{error}"
    );
    server.set("/apis", 500, json!({}));
    assert!(discovery.poll().await.is_err());
    assert!(discovery.catalog().unwrap().resolve("pods").is_ok());
}

#[tokio::test]
async fn what_a_crd_says_is_of_the_version() {
    let server = FakeServer::serving(&[("acme.io", "v1", "Widget", "widgets")]);
    let mut discovery = Discovery::new(server.upstream());
    discovery.poll().await.unwrap();
    let widgets = discovery.catalog().unwrap().resolve("widgets").unwrap();
    let crd = async |of: &Discovery| Ok::<_, UpstreamError>(of.with_crd(&widgets).await?.0);
    assert_eq!(crd(&discovery).await.unwrap().crd, None, "not a CRD");
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.acme.io";
    server.set(path, 200, json!({"metadata": {"uid": "u", "generation": 3}, "spec": {"versions": [
        {"name": "v2", "selectableFields": [{"jsonPath": ".spec.size"}]},
        {"name": "v1", "selectableFields": [{"jsonPath": ".spec.color"}],
            "additionalPrinterColumns": [{"name": "Color", "type": "string", "jsonPath": ".spec.color"}]}]}}));
    let read = crd(&discovery).await.unwrap();
    assert_eq!(read.uid, "u");
    let said = read.crd.unwrap();
    assert_eq!(said.selectable, [".spec.color"]);
    assert_eq!(said.columns[0].name, "Color");
    assert_eq!(said.columns[0].json_path, ".spec.color");
    server.set(path, 403, json!({}));
    assert_eq!(crd(&discovery).await.unwrap().crd, None, "may not be read");
    server.set(path, 500, json!({}));
    assert!(crd(&discovery).await.is_err());
}
