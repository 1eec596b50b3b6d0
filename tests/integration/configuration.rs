//! What the configuration says of a kind, as consumers see it; and configurations that are refused.

use std::time::Duration;

use informerd::proto::{
    DeleteCause, GetObjectRequest, ListObjectsRequest, Scope, View, WatchObjectsRequest,
};
use serde_json::Value;
use tonic::Code;

use crate::{
    cluster::{self, Daemon, Scratch},
    support::{connect, discard, informerd, list, namespace, object, scope, succeeded, text},
    validators::{Recorder, check_without_reference, watch_request},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pruned_is_absent_and_what_is_kept_can_be_selected_by() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    namespace(cluster, "pruned").await;
    cluster
        .apply(
            r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: red, namespace: pruned, annotations: {note: keep}}
data: {color: red, big: dropped, other: "1"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: blue, namespace: pruned}
data: {color: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: secret, namespace: pruned, labels: {app: web}, annotations: {note: gone}}
type: example.com/some
stringData: {password: hunter2}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot, namespace: pruned, annotations: {note: kept}}
secrets: [{name: secret}]
"#,
        )
        .await;
    let config = "
sensitive: {withData: [secrets]}
kinds:
- resource: configmaps
  prune: {drop: [.data.big]}
  selectable: [.data.color]
- resource: secrets
  withData: true
  prune: {keep: [.type]}
- resource: serviceaccounts
  metadataOnly: true
";
    let daemon = Daemon::start(config, cluster.kubeconfig()).await;
    let client = connect(&daemon);
    let get = async |resource: &str, name: &str, view: View| {
        let request = GetObjectRequest {
            scope: Some(Scope {
                name: name.into(),
                ..scope(resource, &["pruned"])
            }),
            view: view.into(),
            ..GetObjectRequest::default()
        };
        client.get(request).await
    };
    let (red, freshness) = get("configmaps", "red", View::Full).await.unwrap();
    assert!(freshness.pruned);
    let red = object(&red.object);
    assert_eq!(
        red["data"],
        serde_json::json!({ "color": "red", "other": "1" })
    );
    assert_eq!(
        red["metadata"]["annotations"],
        serde_json::json!({ "note": "keep" })
    );
    assert_eq!(red["metadata"].get("managedFields"), None);
    assert_eq!(
        (&red["apiVersion"], &red["kind"]),
        (&"v1".into(), &"ConfigMap".into())
    );

    let (secret, _) = get("secrets", "secret", View::Full).await.unwrap();
    assert!(!String::from_utf8_lossy(&secret.object).contains("note"));
    let secret = object(&secret.object);
    let keys = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&secret), ["apiVersion", "kind", "metadata", "type"]);
    assert_eq!(secret["metadata"]["labels"]["app"], "web");

    let (robot, _) = get("serviceaccounts", "robot", View::Metadata)
        .await
        .unwrap();
    let robot = object(&robot.object);
    assert_eq!(keys(&robot), ["apiVersion", "kind", "metadata"]);
    assert_eq!(
        (&robot["kind"], &robot["metadata"]["annotations"]["note"]),
        (&"ServiceAccount".into(), &"kept".into())
    );
    let refused = get("serviceaccounts", "robot", View::Full)
        .await
        .expect_err("there is no more");
    assert_eq!(
        (refused.code(), refused.reason()),
        (Some(Code::FailedPrecondition), "METADATA_ONLY")
    );
    assert!(
        refused.to_string().contains("metadataOnly: true"),
        "{refused}"
    );

    let by = |field_selector: &str| Scope {
        field_selector: field_selector.into(),
        ..scope("configmaps", &["pruned"])
    };
    assert_eq!(list(&client, by("data.color=red")).await, ["red"]);
    assert_eq!(
        list(&client, by("data.color in (red,blue)")).await,
        ["blue", "red"]
    );
    let request = ListObjectsRequest {
        scope: Some(by("data.other=1")),
        ..ListObjectsRequest::default()
    };
    let refused = client
        .list(request)
        .await
        .expect_err("it is not selectable");
    assert_eq!(refused.code(), Some(Code::InvalidArgument));
    assert!(refused.to_string().contains("selectable"), "{refused}");
    // What is selected by comes and goes with its value.
    let request = WatchObjectsRequest {
        scope: Some(by("data.color=red")),
        ..watch_request("configmaps")
    };
    let recorder = Recorder::start(daemon.server(), request, None);
    let soon = Duration::from_secs(30);
    recorder
        .wait("the red one", soon, |recording| {
            recording
                .last_state()
                .is_some_and(|(_, held)| held.len() == 1)
        })
        .await;
    let patch = r#"{"data":{"color":"blue"}}"#;
    cluster
        .kubectl_ok(&["patch", "configmap", "red", "-n", "pruned", "-p", patch])
        .await;
    let left = recorder
        .wait("that it left", soon, |recording| {
            recording
                .last_state()
                .is_some_and(|(_, held)| held.is_empty())
        })
        .await;
    assert_eq!(
        left.events().last().unwrap().cause(),
        DeleteCause::LeftSelector
    );
    check_without_reference(&left, &[]).unwrap();

    let out = daemon
        .cli(&["get", "configmap", "blue", "-n", "pruned", "-o", "json"])
        .await;
    assert_eq!(object(succeeded(&out).as_bytes())["data"]["color"], "blue");
    discard(cluster, &["pruned"]).await;
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_each_line_that_is_wrong() {
    let scratch = Scratch::new("config").unwrap();
    let file = scratch.path().join("config.yaml");
    let path = file.display().to_string();
    std::fs::write(
        &file,
        "kinds:\n- resource: pods\n  pageSize: 0\n  pruned: {}\n- nodes\n- pods\n",
    )
    .unwrap();
    let output = informerd(&["config", "check", &path]).await;
    assert_eq!(output.status.code(), Some(2));
    let (_, err) = text(&output);
    for line in [3, 4, 6] {
        assert!(
            err.contains(&format!("{path}:{line}:")),
            "line {line}: {err}"
        );
    }
    assert!(
        err.contains("prune"),
        "it says what to write instead: {err}"
    );
    std::fs::write(&file, "kinds: [pods]\n").unwrap();
    succeeded(&informerd(&["config", "check", &path]).await);
}

#[tokio::test]
async fn two_names_of_one_kind_are_refused_with_both_lines() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    let mut daemon = Daemon::spawn("kinds:\n- po\n- nodes\n- pods\n", cluster.kubeconfig());
    assert_eq!(
        daemon.process().wait(Duration::from_secs(30)).await,
        Some(2)
    );
    let log = daemon.log();
    let file = daemon.config().display().to_string();
    assert!(
        log.contains(&format!("{file}:2:")) && log.contains(&format!("{file}:4:")),
        "{log}"
    );
    assert!(log.contains("are the same kind"), "{log}");
}
