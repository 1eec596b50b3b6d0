//! A consumer that does whatever consumers should not, beside the daemon's own work: what it watches of the API server
//! is not disturbed, nor is whoever means well, and its memory stays within what SECURITY.md says.

use super::*;

#[path = "../../../benches/common/hostile.rs"]
mod attack;

/// What SECURITY.md says that one identity can make a replica grow by: unread bytes, open calls, connections.
const BOUND: u64 = (128 << 20) + 2_000 * (32 << 10) + 300 * (150 << 10);

#[tokio::test]
async fn whoever_means_harm_loses_its_own_calls_and_nothing_else() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    reader_everywhere(&cluster).await;
    for name in ["good", "hostile"] {
        let account = format!("--serviceaccount=default:{name}");
        cluster
            .kubectl_ok(&["create", "serviceaccount", name])
            .await;
        let bind = [
            "create",
            "clusterrolebinding",
            name,
            "--clusterrole=reader",
            &account,
        ];
        cluster.kubectl_ok(&bind).await;
    }
    // Something to be sent: 16 MiB.
    let client = cluster.client().await;
    for at in 0..32 {
        let large = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("large-{at}"), "namespace": "default"},
            "data": {"text": "x".repeat(512 << 10)},
        });
        let request = HttpRequest::post("/api/v1/namespaces/default/configmaps")
            .header("content-type", "application/json")
            .body(large.to_string().into_bytes())
            .unwrap();
        client.request::<Value>(request).await.unwrap();
    }
    let mut daemon = Daemon::start(
        "auth: {tokens: {audience: informerd}}\nkinds: [configmaps]",
        cluster.kubeconfig(),
    )
    .await;
    let good = Caller::new(&daemon, &token(&cluster, "default", "good", &[]).await).await;
    let mut stream = good
        .watch(scope("configmaps", &["default"]), bytes::Bytes::new())
        .await
        .unwrap();
    let lists = r#"reflector_lists_total{name="configmaps"}"#;
    let watches = r#"reflector_watches_total{name="configmaps"}"#;
    let upstream =
        async |daemon: &Daemon| (daemon.metric(lists).await, daemon.metric(watches).await);
    let before = (upstream(&daemon).await, daemon.process().rss().unwrap());

    let hostile = token(&cluster, "default", "hostile", &[]).await;
    let attack = attack::Hostile::begin(daemon.ports().grpc, &hostile, "configmaps").await;
    for at in 0..20 {
        let name = format!("good-{at}");
        cluster.apply(&config_map("default", &name)).await;
        loop {
            let message = timeout(Duration::from_secs(60), stream.message()).await;
            let message = message.expect("in time").unwrap().expect("it goes on");
            if message.events.iter().any(|event| event.name == name) {
                break;
            }
        }
        let (ready, _) = cluster::get(&daemon.admin_url("/readyz")).await.unwrap();
        assert_eq!(ready, 200, "it stays ready");
    }
    let hostile = Caller::new(&daemon, &hostile).await;
    let cell = Cell {
        method: "ListObjects",
        scope: scope("configmaps", &["default"]),
        view: View::Keys,
    };
    let after = (upstream(&daemon).await, daemon.process().rss().unwrap());
    println!(
        "lists and watches {:?} before and {:?} after; {} MiB grew to {} MiB",
        before.0,
        after.0,
        before.1 >> 20,
        after.1 >> 20
    );
    assert_eq!(cell.call(&hostile).await, Code::ResourceExhausted);
    assert_eq!(cell.call(&good).await, Code::Ok);
    assert_eq!(before.0, after.0, "its own watch was not disturbed");
    let grew = after.1.saturating_sub(before.1);
    assert!(grew < BOUND, "{} MiB", grew >> 20);
    drop(attack);
    eventually("what it took is free again", async || {
        cell.call(&hostile).await == Code::Ok
    })
    .await;
}
