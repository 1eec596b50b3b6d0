//! How soon a stream learns that a role binding is gone, or back: by what the API server tells of it, and not by the
//! clock, by which it would be twelve seconds in each of these turns.

use informerd::proto::{DeleteCause, EventType, OnRevoke, WatchObjectsResponse};

use super::*;

const ROLE: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: sooner-reader}
rules: [{apiGroups: [\"\"], resources: [configmaps], verbs: [get, list, watch]}]
";
/// By the clock rights are looked for again 12 s after they were last, and here that was a moment ago.
const SOON: Duration = Duration::from_secs(10);
const ROUNDS: usize = 4;

fn bind(namespace: &str) -> [&str; 7] {
    let account = "--serviceaccount=sooner-stays:reader";
    let role = "--clusterrole=sooner-reader";
    [
        "create",
        "rolebinding",
        "reader",
        role,
        account,
        "-n",
        namespace,
    ]
}

/// Until an event of the namespace that goes says this.
async fn until(stream: &mut Streaming<WatchObjectsResponse>, what: (EventType, DeleteCause)) {
    let found = async {
        loop {
            let message = stream.message().await.unwrap().expect("the stream goes on");
            let mut events = message.events.iter();
            if events.any(|event| {
                event.namespace == "sooner-goes" && (event.r#type(), event.cause()) == what
            }) {
                return;
            }
        }
    };
    timeout(Duration::from_secs(60), found)
        .await
        .unwrap_or_else(|_| panic!("no {what:?} within a minute"));
}

#[tokio::test]
async fn a_role_binding_that_goes_or_comes_is_felt_within_seconds() {
    let Some(cluster) = cluster::shared().await.filter(|cluster| cluster.is_own()) else {
        return;
    };
    for name in ["sooner-stays", "sooner-goes"] {
        namespace(cluster, name).await;
    }
    let account = ["create", "serviceaccount", "reader", "-n", "sooner-stays"];
    cluster.kubectl_ok(&account).await;
    cluster.apply(ROLE).await;
    cluster.kubectl_ok(&bind("sooner-stays")).await;
    cluster.kubectl_ok(&bind("sooner-goes")).await;
    cluster.apply(&config_map("sooner-goes", "one")).await;
    let daemon = Daemon::start(CONFIG, cluster.kubeconfig()).await;
    let token = token(cluster, "sooner-stays", "reader", &[]).await;
    let reader = Caller::new(&daemon, &token).await;
    let request = WatchObjectsRequest {
        scope: Some(scope("configmaps", &["sooner-goes", "sooner-stays"])),
        on_revoke: OnRevoke::Retract.into(),
        ..Default::default()
    };
    let mut request = Request::new(request);
    request
        .metadata_mut()
        .insert("authorization", reader.token.clone());
    let mut stream = reader
        .cache()
        .watch_objects(request)
        .await
        .unwrap()
        .into_inner();
    let there = (EventType::Upsert, DeleteCause::Unspecified);
    until(&mut stream, there).await;
    let mut all = Vec::new();
    for _ in 0..ROUNDS {
        let unbind = ["delete", "rolebinding", "reader", "-n", "sooner-goes"];
        cluster.kubectl_ok(&unbind).await;
        let gone = Instant::now();
        until(&mut stream, (EventType::Delete, DeleteCause::Revoked)).await;
        let retracted = gone.elapsed();
        cluster.kubectl_ok(&bind("sooner-goes")).await;
        let back = Instant::now();
        until(&mut stream, there).await;
        println!(
            "retracted {retracted:?} after the binding went, given back {:?} after it came",
            back.elapsed()
        );
        all.extend([retracted, back.elapsed()]);
    }
    assert!(all.iter().all(|after| *after < SOON), "{all:?}");
    discard(cluster, &["sooner-stays", "sooner-goes"]).await;
}
