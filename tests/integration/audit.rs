//! `informerd audit` on a real API server: nothing differs, however much changes meanwhile; and what does is named.

use std::{collections::BTreeSet, process::Output, time::Duration};

use informerd::proto::KindState;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    cluster::{self, Churn, ChurnOptions, Cluster, Credential, Daemon, Proxy},
    support::{connect, eventually, is, seed, text},
};

/// How often each scope is looked at while pods change, at least.
const LOOKS: usize = 8;
/// And at how many revisions, at least.
const REVISIONS: usize = 30;

/// Of one or several namespaces, one of which is not watched by itself; of labels; without content.
const NARROWED: &str = "
kinds:
- resource: pods
  namespaces: {include: [churn, other]}
  labelSelector: app in (web,api)
  metadataOnly: true
- resource: configmaps
  namespaces: {exclude: [other]}
";

async fn audit(daemon: &Daemon, cluster: &Cluster, args: &[&str]) -> Output {
    let kubeconfig = cluster.kubeconfig().to_string_lossy().into_owned();
    let args = [&["audit", "--kubeconfig", &kubeconfig][..], args].concat();
    daemon.cli(&args).await
}

/// What an audit in JSON says, and its exit code.
async fn audited(daemon: &Daemon, cluster: &Cluster, args: &[&str]) -> (Option<i32>, Value) {
    let output = audit(daemon, cluster, &[args, &["-o", "json"]].concat()).await;
    let (out, err) = text(&output);
    let json = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    (output.status.code(), json)
}

async fn churn(cluster: &Cluster, namespaces: &[&str]) -> Vec<Churn> {
    let mut rng = fastrand::Rng::with_seed(seed());
    let client = cluster.client().await;
    let mut churns = Vec::new();
    for namespace in namespaces {
        let options = ChurnOptions {
            seed: rng.u64(..),
            namespace: (*namespace).into(),
            names: 30,
            rate: 40,
        };
        churns.push(Churn::start(client.clone(), options).await.unwrap());
    }
    churns
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_differs_however_much_changes_meanwhile() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let churns = churn(&cluster, &["churn", "other"]).await;
    let whole = Daemon::start("kinds: [pods, namespaces]", cluster.kubeconfig()).await;
    let narrowed = Daemon::start(NARROWED, cluster.kubeconfig()).await;
    let scopes: [(&Daemon, &[&str], usize); 6] = [
        (&whole, &["pods", "-A"], 1),
        (&whole, &["po", "-n", "churn"], 1),
        (&whole, &["namespaces"], 1),
        (&narrowed, &["pods", "-A"], 2),
        (&narrowed, &["pods", "-n", "other"], 1),
        (&narrowed, &["configmaps", "-A"], 1),
    ];
    let (mut objects, mut looks) = (0, 0);
    let mut revisions = BTreeSet::new();
    let deadline = Instant::now() + Duration::from_secs(120);
    while looks < LOOKS || revisions.len() < REVISIONS {
        assert!(
            Instant::now() < deadline,
            "too little changes: {revisions:?}"
        );
        looks += 1;
        for (daemon, args, shards) in scopes {
            let (code, audit) = audited(daemon, &cluster, args).await;
            assert_eq!(
                (code, &audit["same"]),
                (Some(0), &true.into()),
                "{args:?}: {audit}"
            );
            let parts = audit["parts"].as_array().unwrap();
            assert_eq!(parts.len(), shards, "{args:?}: {audit}");
            for part in parts {
                objects += part["objects"].as_u64().unwrap();
                revisions.insert(part["revision"].as_str().unwrap().to_owned());
            }
        }
    }
    let mut writes = 0;
    for churn in churns {
        let (written, failures) = churn.stop().await;
        assert!(failures.is_empty(), "{failures:?}");
        writes += written.len();
    }
    println!(
        "{} audits at {} revisions, {objects} objects compared, {writes} writes meanwhile",
        looks * scopes.len(),
        revisions.len()
    );
    assert!(objects > 0);

    let output = audit(&whole, &cluster, &["pods", "-A"]).await;
    let (out, err) = text(&output);
    assert!(
        out.starts_with("pods: the same in informerd and at the API server: "),
        "{out}{err}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_old_is_not_wrong_and_what_cannot_be_asked_is_neither() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let churns = churn(&cluster, &["churn"]).await;
    let proxy = Proxy::start(cluster.address()).await.unwrap();
    let kubeconfig = cluster
        .kubeconfig_for("proxied", Credential::Admin, proxy.address())
        .unwrap();
    let daemon = Daemon::start("kinds: [pods]", &kubeconfig).await;
    // Cut from the API server, the daemon has what was there before.
    proxy.refuse(true).await.unwrap();
    proxy.cut_all();
    let client = connect(&daemon);
    eventually("it knows that it is cut", || {
        is(&client, "pods", KindState::BackingOff)
    })
    .await;
    for churn in churns {
        churn.stop().await;
    }
    let (code, audit) = audited(&daemon, &cluster, &["pods", "-A"]).await;
    assert_eq!((code, &audit["same"]), (Some(0), &true.into()), "{audit}");

    // By the caller's own kubeconfig the API server cannot be reached now.
    let proxied = kubeconfig.to_string_lossy().into_owned();
    for (args, said) in [
        (
            &["audit", "pods", "--kubeconfig", &proxied][..],
            "cannot read pods from the API server: ",
        ),
        (
            &["audit", "nodes", "--kubeconfig", &proxied],
            "informerd does not watch \"nodes\"",
        ),
        (
            &["audit", "pods", "--kubeconfig", "nowhere"],
            "kubeconfig nowhere: ",
        ),
    ] {
        let output = daemon.cli(args).await;
        let (out, err) = text(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {out}{err}");
        assert!(err.contains(said), "{args:?}: {err}");
        assert_eq!(out, "", "{args:?}");
    }
}

/// `cargo test --features planted --test integration audit::`.
#[cfg(feature = "planted")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_fell_out_of_the_cache_are_named() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let settings = (0..40).map(|at| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings-{at}, namespace: default}}\n---\n")
    });
    cluster.apply(&settings.collect::<String>()).await;
    let churns = churn(&cluster, &["churn"]).await;
    let config = "kinds: [configmaps, pods]";
    let kubeconfig = cluster.kubeconfig();
    let daemon = Daemon::start_with_bug(config, kubeconfig, "object-forgotten").await;
    let (code, json) = audited(&daemon, &cluster, &["configmaps"]).await;
    assert_eq!((code, &json["same"]), (Some(1), &false.into()), "{json}");
    let differences = json["differences"].as_array().unwrap();
    let held = json["parts"][0]["objects"].as_u64().unwrap();
    assert!(!differences.is_empty() && held > 0, "{json}");
    let mut missing = BTreeSet::new();
    for difference in differences {
        assert_eq!(difference["what"], "missing", "{difference}");
        assert!(difference["informerd"].is_null() && difference["apiServer"].is_object());
        missing.insert(difference["name"].as_str().unwrap().to_owned());
    }
    let cached = crate::support::list(
        &connect(&daemon),
        crate::support::scope("configmaps", &["default"]),
    )
    .await;
    let cached: BTreeSet<String> = cached.into_iter().collect();
    for at in 0..40 {
        let name = format!("settings-{at}");
        assert_ne!(missing.contains(&name), cached.contains(&name), "{name}");
    }
    // Those of them that are there are named while others come and go, too.
    let (code, json) = audited(&daemon, &cluster, &["pods", "-A"]).await;
    assert_eq!(code, Some(1), "{json}");
    for churn in churns {
        churn.stop().await;
    }
    let output = audit(&daemon, &cluster, &["configmaps"]).await;
    let (out, _) = text(&output);
    println!("{out}");
    assert_eq!(output.status.code(), Some(1));
    let rows = out.lines().filter(|line| line.starts_with("missing "));
    assert_eq!(rows.count(), missing.len(), "{out}");
}
