//! tables.json holds objects and the table that kube-apiserver 1.36 made of each for kubectl; times of creation
//! are set to one, and what no column reads is left out.

use super::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Recorded {
    columns: Vec<String>,
    wide: Vec<String>,
    rows: Vec<RecordedRow>,
}

#[derive(Deserialize)]
struct RecordedRow {
    cells: Vec<String>,
    object: Value,
}

#[test]
fn every_table_is_the_one_that_the_api_server_makes() {
    let tables: Vec<Recorded> =
        serde_json::from_str(include_str!("tables.json")).expect("the recording is JSON");
    let now = "2026-11-23T04:08:00Z".parse().expect("is a time");
    let mut kinds = 0;
    for table in tables {
        kinds += 1;
        for RecordedRow { cells, object } in table.rows {
            let text = |pointer| object.text(pointer).expect("is set");
            let columns = Columns::of(text("/apiVersion"), text("/kind"));
            let headers: Vec<_> = columns.headers(true).collect();
            assert_eq!(headers, table.columns, "{}", text("/kind"));
            let narrow: Vec<_> = headers
                .into_iter()
                .filter(|it| !table.wide.contains(it))
                .collect();
            assert_eq!(
                columns.headers(false).collect::<Vec<_>>(),
                narrow,
                "{}",
                text("/kind")
            );
            let name = text("/metadata/name");
            let row = Row {
                name,
                json: &object,
                now,
            };
            assert_eq!(columns.cells(&row, true), cells, "{} {name}", text("/kind"));
            assert_eq!(columns.cells(&row, false).len(), narrow.len());
        }
    }
    assert_eq!(kinds, 20);
}

#[test]
fn an_object_that_lacks_everything_still_has_a_row() {
    let kinds = [
        ("v1", "Pod"),
        ("v1", "Node"),
        ("v1", "Namespace"),
        ("v1", "ConfigMap"),
        ("v1", "Secret"),
        ("v1", "Event"),
        ("v1", "Service"),
        ("v1", "PersistentVolume"),
        ("v1", "PersistentVolumeClaim"),
        ("apps/v1", "Deployment"),
        ("apps/v1", "ReplicaSet"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("batch/v1", "Job"),
        ("batch/v1", "CronJob"),
        ("networking.k8s.io/v1", "Ingress"),
        ("discovery.k8s.io/v1", "EndpointSlice"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ("example.com/v1", "Foo"),
    ];
    // Also where something else stands than one expects.
    for json in [
        serde_json::json!({}),
        serde_json::json!([1]),
        serde_json::json!({"spec": 1, "status": "s"}),
    ] {
        for (api_version, kind) in kinds {
            let row = Row {
                name: "x",
                json: &json,
                now: Timestamp::UNIX_EPOCH,
            };
            let columns = Columns::of(api_version, kind);
            assert_eq!(
                columns.cells(&row, true).len(),
                columns.headers(true).count(),
                "{kind}"
            );
        }
    }
}
