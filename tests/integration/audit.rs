//! `informerd audit` on a real API server: nothing differs, however much changes meanwhile; and what does is named.

use std::process::Output;

use informerd::proto::KindState;
use serde_json::Value;

use crate::{
    cluster::{self, Churn, ChurnOptions, Cluster, Credential, Daemon, Proxy},
    support::{connect, eventually, is, seed, text},
};

/// How often each scope is looked at while pods change.
const LOOKS: usize = 8;

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
    let mut objects = 0;
    let mut revisions = std::collections::BTreeSet::new();
    for _ in 0..LOOKS {
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
        LOOKS * scopes.len(),
        revisions.len()
    );
    assert!(writes > 100 && revisions.len() > LOOKS && objects > 100);

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
