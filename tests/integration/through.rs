//! Whole objects of a kind of which only metadata is cached, on a real API server.

use informerd::proto::{GetObjectRequest, Scope};
use tonic::Code;

use crate::{
    cluster::{self, Daemon},
    support::{connect, discard, eventually, list, namespace, object, scope, succeeded, text},
};

const CONFIG: &str = "
kinds:
- resource: configmaps
  namespaces: {include: [through]}
  metadataOnly: true
  readThrough: true
- resource: serviceaccounts
  metadataOnly: true
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_object_is_read_for_who_asks_for_it_and_never_more_than_asked_for() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    namespace(cluster, "through").await;
    cluster
        .apply(
            r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: through, labels: {app: web}}
data: {color: red}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot, namespace: through}
automountServiceAccountToken: false
"#,
        )
        .await;
    let daemon = Daemon::start(CONFIG, cluster.kubeconfig()).await;
    let client = connect(&daemon);
    let there = async || {
        let names = list(&client, scope("configmaps", &["through"])).await;
        names.contains(&"settings".to_owned())
    };
    eventually("it is cached", there).await;
    let gets = || {
        let log = cluster.audit_log()?;
        let asked = log.requests("informerd/", "get", "configmaps");
        Some(asked.filter(|it| it.uri.contains("/settings")).count())
    };

    let before = gets();
    let printed = daemon
        .cli(&["get", "cm", "settings", "-n", "through", "-o", "yaml"])
        .await;
    let (out, err) = text(&printed);
    assert!(printed.status.success(), "{err}");
    assert!(out.contains("data:\n  color: red\n"), "{out}");
    assert!(!out.contains("managedFields"), "{out}");
    assert!(
        err.starts_with(
            "note: configmaps: read from the API server, since only metadata is cached\n"
        ),
        "{err}"
    );
    if let (Some(before), Some(now)) = (before, gets()) {
        assert_eq!(now - before, 1, "one request for one read");
    }

    // What is written is there for the next read, though the cache may not have it yet.
    cluster
        .kubectl_ok(&[
            "patch",
            "configmap",
            "settings",
            "-n",
            "through",
            "-p",
            r#"{"data":{"color":"blue"}}"#,
        ])
        .await;
    let get = |resource: &str, name: &str, namespace: &str| {
        let request = GetObjectRequest {
            scope: Some(Scope {
                name: name.into(),
                ..scope(resource, &[namespace])
            }),
            read_through: true,
            ..GetObjectRequest::default()
        };
        let client = client.clone();
        async move { client.get(request).await }
    };
    let (settings, freshness) = get("configmaps", "settings", "through").await.unwrap();
    assert_eq!(object(&settings.object)["data"]["color"], "blue");
    assert!(freshness.positions.is_empty() && freshness.age.is_some());

    // A table shows what is cached, and asks nobody.
    let before = gets();
    let table = daemon
        .cli(&["get", "cm", "settings", "-n", "through"])
        .await;
    assert!(succeeded(&table).starts_with("NAME"));
    assert_eq!(gets(), before);

    let missing = get("configmaps", "nothing", "through").await.unwrap_err();
    assert_eq!(
        (missing.code(), missing.reason()),
        (Some(Code::NotFound), "OBJECT_NOT_FOUND")
    );
    let refused = get("serviceaccounts", "robot", "through")
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), refused.reason()),
        (Some(Code::FailedPrecondition), "METADATA_ONLY")
    );
    let printed = daemon
        .cli(&["get", "sa", "robot", "-n", "through", "-o", "yaml"])
        .await;
    let (out, err) = text(&printed);
    assert!(
        out.contains("name: robot") && !out.contains("automount"),
        "{out}"
    );
    assert!(
        err.contains("only metadata is cached, as the daemon's config says"),
        "{err}"
    );
    discard(cluster, &["through"]).await;
}
