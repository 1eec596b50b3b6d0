//! Strangers: a client in another language, made from the protos alone, and grpcurl, which knows nothing at all.

use std::{collections::BTreeMap, path::PathBuf, process::Output};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    cluster::{
        self, Churn, ChurnOptions, Daemon, DirectWatch, go_watcher, grpcurl, has_go, list_exact,
    },
    support::{Held, discard, namespace, pods, seed, succeeded, text},
};

/// A line of the Go client.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Line {
    what: String,
    r#type: String,
    key: String,
    uid: String,
    resource_version: String,
    revision: u64,
    reason: String,
    objects: BTreeMap<String, Held>,
}

async fn run(program: PathBuf, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .kill_on_drop(true)
        .output()
        .await
        .expect("it starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_in_go_lists_watches_is_cut_and_resumes() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    if !has_go() {
        return;
    }
    let client = cluster.client().await;
    let direct = DirectWatch::start(&client, &pods(), None, None)
        .await
        .unwrap();
    let options = ChurnOptions {
        seed: seed(),
        rate: 60,
        ..ChurnOptions::default()
    };
    let churn = Churn::start(client.clone(), options).await.unwrap();
    let daemon = Daemon::start("kinds: [pods]", cluster.kubeconfig()).await;
    let server = daemon.server().to_string();
    let watcher = go_watcher().await.unwrap();
    let all = ["--server", &server, "--events", "300", "--cut-after", "30"];
    let some = [
        "--server",
        &server,
        "--events",
        "100",
        "--cut-after",
        "10",
        "--metadata",
        "--namespace",
        "churn",
    ];
    let some = [&some[..], &["--selector", "app=web"]].concat();
    let (all, some) = tokio::join!(run(watcher.clone(), &all), run(watcher, &some));
    let (writes, failures) = churn.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    direct
        .wait_for(
            &writes.last().unwrap().resource_version,
            std::time::Duration::from_secs(10),
        )
        .await;
    let seen = direct.seen();

    for (output, selected) in [(all, false), (some, true)] {
        let out = succeeded(&output);
        let lines: Vec<Line> = out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let cuts = lines.iter().filter(|line| line.what == "cut").count();
        assert!(cuts >= 3, "{cuts} cuts");
        assert!(
            lines
                .iter()
                .all(|line| line.what != "error" && line.reason.is_empty()),
            "no error, no reset"
        );
        for line in lines.iter().filter(|line| line.r#type == "UPSERT") {
            let is = |seen: &&cluster::Seen| {
                (&seen.key, &seen.uid, &seen.resource_version)
                    == (&line.key, &line.uid, &line.resource_version)
            };
            assert!(seen.iter().any(|it| is(&it)), "nobody else saw {line:?}");
        }
        let end = lines.last().unwrap();
        assert_eq!(end.what, "end");
        let listed = list_exact(&client, &pods(), None, &end.revision.to_string())
            .await
            .unwrap();
        let wanted = |labels: &BTreeMap<String, String>| {
            !selected || labels.get("app").is_some_and(|app| app == "web")
        };
        let listed = listed
            .into_iter()
            .filter(|(_, listed)| wanted(&listed.labels));
        let listed: BTreeMap<_, Held> = listed.map(|(key, it)| (key, it.into())).collect();
        assert_eq!(end.objects, listed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcurl_finds_its_way_by_reflection() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    if !has_go() {
        return;
    }
    namespace(cluster, "grpcurl").await;
    cluster
        .kubectl_ok(&[
            "create",
            "configmap",
            "hello",
            "-n",
            "grpcurl",
            "--from-literal=a=b",
        ])
        .await;
    let daemon = Daemon::start("kinds: [configmaps]", cluster.kubeconfig()).await;
    let server = daemon.server().to_string();
    let program = grpcurl().await.unwrap();
    let call = async |flags: &[&str], method: &str| {
        let args = [&["-plaintext"], flags, &[&*server, method]].concat();
        run(program.clone(), &args).await
    };
    let json = |output: &Output| {
        serde_json::from_str::<Value>(&succeeded(output)).expect("it prints JSON")
    };

    let services = succeeded(&call(&[], "list").await);
    let expected = [
        "grpc.health.v1.Health",
        "informerd.v1.CacheService",
        "informerd.v1.IntrospectionService",
    ];
    for service in expected {
        assert!(services.lines().any(|line| line == service), "{services}");
    }
    let health = call(&[], "grpc.health.v1.Health/Check").await;
    assert_eq!(json(&health), json!({ "status": "SERVING" }));
    let kinds = json(&call(&[], "informerd.v1.IntrospectionService/ListKinds").await);
    assert_eq!(kinds["kinds"][0]["kind"], "ConfigMap");
    assert_eq!(kinds["kinds"][0]["freshness"]["state"], "KIND_STATE_LIVE");

    let scope = json!({ "resource": "cm", "namespaces": ["grpcurl"], "name": "hello" });
    let request = json!({ "scope": scope }).to_string();
    let got = json(&call(&["-d", &request], "informerd.v1.CacheService/GetObject").await);
    let object = |value: &Value| -> Value {
        let bytes = BASE64_STANDARD
            .decode(value.as_str().expect("bytes"))
            .expect("are base64");
        serde_json::from_slice(&bytes).expect("objects are JSON")
    };
    assert_eq!(object(&got["object"]["object"])["data"]["a"], "b");

    // A watch has no end: it is stopped, and what came by then is looked at.
    let output = call(
        &["-d", &request, "-max-time", "3"],
        "informerd.v1.CacheService/WatchObjects",
    )
    .await;
    let (out, err) = text(&output);
    assert!(err.contains("DeadlineExceeded"), "{err}");
    let messages: Vec<Value> = serde_json::Deserializer::from_str(&out)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    let marks: Vec<_> = messages
        .iter()
        .filter_map(|it| it["mark"]["type"].as_str())
        .collect();
    assert_eq!(marks[..2], ["MARK_TYPE_RESET", "MARK_TYPE_RESET_END"]);
    let events: Vec<_> = messages
        .iter()
        .filter_map(|it| it["events"].as_array())
        .flatten()
        .collect();
    assert_eq!(events.len(), 1);
    assert_eq!(object(&events[0]["object"])["metadata"]["name"], "hello");

    let wrong = json!({ "scope": { "resource": "pods" } }).to_string();
    let (_, err) = text(&call(&["-d", &wrong], "informerd.v1.CacheService/ListObjects").await);
    assert!(
        err.contains("NotFound") && err.contains("KIND_NOT_CONFIGURED"),
        "{err}"
    );
    discard(cluster, &["grpcurl"]).await;
}
