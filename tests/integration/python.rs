//! The Python package against the daemon: what people's programs see through cuts and a restart, and whether a wait
//! can be relied on.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
};

use crate::{
    cluster::{self, Churn, ChurnOptions, Daemon, Proxy, list_exact},
    support::{Said, discard, eventually, namespace, pods, seed, succeeded, within},
};

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/python");

/// follow.py under way.
struct Follow {
    child: Child,
    said: Said<Value>,
}

impl Follow {
    fn start(python: &Path, server: &str, args: &[&str]) -> Self {
        let mut child = Command::new(python)
            .arg(Path::new(PROGRAMS).join("follow.py"))
            .args(["--server", server])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Python starts");
        let said = Said::by(&mut child);
        Self { child, said }
    }

    /// What it has said so far.
    fn lines(&self) -> Vec<Value> {
        self.said.lines()
    }

    fn count(&self, what: &str) -> usize {
        self.lines()
            .iter()
            .filter(|line| line["what"] == what)
            .count()
    }

    async fn changes(&self, more: usize) {
        let begun = self.lines().len();
        let what = format!("{more} more changes");
        eventually(&what, || async { self.lines().len() >= begun + more }).await;
    }

    /// Says until where to go, if anywhere, and returns all lines once it has ended well.
    async fn end(mut self, revision: Option<&str>) -> Vec<Value> {
        let mut stdin = self.child.stdin.take().expect("it is piped");
        if let Some(revision) = revision {
            let line = format!("{revision}\n");
            stdin.write_all(line.as_bytes()).await.expect("it reads");
        }
        drop(stdin);
        let patience = Duration::from_secs(30);
        let status = tokio::time::timeout(patience, self.child.wait()).await;
        let status = status.expect("it ends in time").expect("it has a status");
        assert!(status.success(), "{status}: {:?}", self.lines());
        self.said.all().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_follows_objects_through_cuts_and_a_restart() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let Some(python) = cluster::python().await else {
        return;
    };
    let client = cluster.client().await;
    let options = ChurnOptions {
        seed: seed(),
        rate: 60,
        ..ChurnOptions::default()
    };
    let churn = Churn::start(client.clone(), options).await.unwrap();
    let config = "kinds: [pods]";
    let mut daemon = Daemon::start(config, cluster.kubeconfig()).await;
    let proxy = Proxy::start(daemon.server()).await.unwrap();
    let server = proxy.address().to_string();
    let selected = ["pods", "--namespace", "churn", "--selector", "app=web"];
    let all = Follow::start(&python, &server, &["pods", "--list"]);
    let some = Follow::start(&python, &server, &[&["--asyncio"][..], &selected].concat());
    for _ in 0..4 {
        tokio::join!(all.changes(30), some.changes(5));
        proxy.cut_all();
    }
    tokio::join!(all.changes(30), some.changes(5));
    let reset = json!({"what": "reset", "reason": "INITIAL"});
    for (follow, expected) in [(&all, vec![]), (&some, vec![reset])] {
        let lines = follow.lines();
        let resets = lines.into_iter().filter(|line| line["what"] == "reset");
        let resets: Vec<_> = resets.collect();
        assert_eq!(resets, expected, "lists and cuts are resumed from");
        let cuts = follow.count("cut");
        assert!(cuts >= 4, "{cuts} cuts were seen");
    }

    assert_eq!(daemon.terminate(Duration::from_secs(30)).await, Some(0));
    for follow in [&all, &some] {
        eventually("it is told that the server drains", || async {
            let ended = json!({"what": "cut", "error": "Ended", "reason": "DRAINING"});
            follow.lines().contains(&ended)
        })
        .await;
    }
    let mut daemon = Daemon::spawn_on(daemon.ports(), config, cluster.kubeconfig()).unwrap();
    daemon.wait_ready(Duration::from_secs(30)).await;
    tokio::join!(all.changes(30), some.changes(5));

    let (writes, failures) = churn.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    let last = writes.last().unwrap().resource_version.clone();
    let (all, some) = tokio::join!(all.end(Some(&last)), some.end(Some(&last)));
    for (lines, selected) in [(all, false), (some, true)] {
        let end = lines.last().unwrap();
        assert_eq!(end["what"], "end");
        let revision = end["revision"].to_string();
        let listed = list_exact(&client, &pods(), None, &revision).await.unwrap();
        let wanted = |labels: &BTreeMap<String, String>| {
            !selected || labels.get("app").is_some_and(|app| app == "web")
        };
        let held = listed
            .into_iter()
            .filter(|(_, listed)| wanted(&listed.labels))
            .map(|(key, it)| {
                let held = json!({"uid": it.uid, "resourceVersion": it.resource_version});
                (key, held)
            })
            .collect::<serde_json::Map<_, _>>();
        assert!(!held.is_empty());
        assert_eq!(end["objects"], Value::Object(held));
    }
}

/// The answers of both clients to one call, which must be the same.
async fn call(python: &PathBuf, daemon: &Daemon, args: &[&str]) -> Value {
    let output = Command::new(python)
        .arg(Path::new(PROGRAMS).join("calls.py"))
        .args(["--server", &daemon.server().to_string()])
        .args(args)
        .kill_on_drop(true)
        .output()
        .await
        .expect("Python starts");
    let both: [Value; 2] = serde_json::from_str(&succeeded(&output)).expect("it prints JSON");
    let [blocking, with_asyncio] = both;
    assert_eq!(blocking, with_asyncio, "{args:?}");
    blocking
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_waits_for_a_rollout_and_is_told_of_verdicts() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    let Some(python) = cluster::python().await else {
        return;
    };
    let space = "python";
    namespace(cluster, space).await;
    let config = "controllers: [workload]\nkinds: [pods, deployments.apps, replicasets.apps]";
    let daemon = Daemon::start(config, cluster.kubeconfig()).await;
    let proxy = Proxy::start(daemon.server()).await.unwrap();
    let server = proxy.address().to_string();
    let verdicts = ["--verdicts", "deploy", "--namespace", space];
    let follows = [
        Follow::start(&python, &server, &verdicts),
        Follow::start(&python, &server, &[&["--asyncio"][..], &verdicts].concat()),
    ];
    let kubectl = |args: &[&'static str]| {
        let args = [args, &["-n", space]].concat();
        async move { cluster.kubectl_ok(&args).await }
    };
    let call = |args: &[&'static str]| {
        let args = [args, &["--namespace", space]].concat();
        let (python, daemon) = (&python, &daemon);
        async move { call(python, daemon, &args).await }
    };
    let told = |state: &'static str| {
        let follows = &follows;
        async move {
            let what = format!("both have been told {state}");
            within(Duration::from_secs(30), &what, || async {
                follows.iter().all(|follow| {
                    let lines = follow.lines();
                    let last = lines
                        .iter()
                        .rfind(|line| line["key"] == "deployments.apps/web");
                    last.is_some_and(|line| line["state"] == state || line["what"] == state)
                })
            })
            .await;
        }
    };

    let gone = call(&["readiness", "deploy", "web"]).await;
    assert_eq!(gone["state"], "GONE");
    let image = "--image=registry.invalid/web:1";
    kubectl(&["create", "deployment", "web", image, "--replicas=3"]).await;
    let waited = call(&["wait", "deployment", "web"]).await;
    assert_eq!(
        waited,
        json!({"outcome": "SATISFIED", "states": ["READY"], "missing": []})
    );
    let condition = [
        "wait",
        "deployment",
        "web",
        "--wait-for",
        "condition=Available",
    ];
    assert_eq!(call(&condition).await["outcome"], "SATISFIED");
    let later = [
        "wait",
        "deployment",
        "web",
        "--min-generation",
        "99",
        "--timeout",
        "1",
    ];
    assert_eq!(call(&later).await["missing"], json!(["OldGeneration"]));
    told("READY").await;
    let verdict = call(&["readiness", "deploy", "web"]).await;
    assert_eq!(
        verdict,
        json!({"state": "READY", "parts": 3, "holds": true})
    );
    let list = call(&["readiness-list", "deployments.apps"]).await;
    assert_eq!(list, json!({"deployments.apps/web": "READY"}));
    let object = call(&["get", "deployment", "web"]).await;
    assert_eq!(
        (&object["name"], &object["state"]),
        (&json!("web"), &json!("LIVE"))
    );
    let list = call(&["list", "pods"]).await;
    assert_eq!(list.as_array().map(Vec::len), Some(3));
    let missing = call(&["get", "pods", "nobody"]).await;
    assert_eq!(
        missing,
        json!({"error": "NotFound", "reason": "OBJECT_NOT_FOUND"})
    );
    let unknown = call(&["readiness", "services", "web"]).await;
    assert_eq!(unknown["reason"], "KIND_NOT_CONFIGURED");

    // A stream of verdicts goes on after a cut.
    proxy.cut_all();
    let patch = r#"{"spec":{"template":{"spec":{"nodeSelector":{"no":"where"}}}}}"#;
    kubectl(&["patch", "deployment", "web", "-p", patch]).await;
    told("NOT_READY").await;
    for follow in &follows {
        assert!(follow.count("cut") >= 1 && follow.count("reset") == 1);
    }
    let in_vain = call(&["wait", "deployment", "web", "--timeout", "1"]).await;
    assert_eq!(
        (&in_vain["outcome"], &in_vain["states"]),
        (&json!("TIMED_OUT"), &json!(["NOT_READY"]))
    );
    assert_eq!(in_vain["missing"].as_array().map(Vec::len), Some(1));
    let pinned = [
        "wait",
        "deployment",
        "web",
        "--uid",
        "another",
        "--wait-for",
        "ready",
    ];
    assert_eq!(call(&pinned).await["outcome"], "IMPOSSIBLE");

    kubectl(&["delete", "deployment", "web", "--wait=false"]).await;
    let waited = call(&["wait", "deployment", "web", "--wait-for", "gone"]).await;
    assert_eq!(waited["outcome"], "SATISFIED");
    told("deleted").await;
    for follow in follows {
        follow.end(None).await;
    }
    discard(cluster, &[space]).await;
}
