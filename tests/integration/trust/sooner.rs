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

/// Two namespaces, of which one is to go, and who may read both.
struct Reader {
    stays: String,
    goes: String,
}

impl Reader {
    async fn new(cluster: &Cluster, name: &str) -> Self {
        let own = Self {
            stays: format!("{name}-stays"),
            goes: format!("{name}-goes"),
        };
        cluster.apply(ROLE).await;
        for name in [&own.stays, &own.goes] {
            namespace(cluster, name).await;
            own.bind(cluster, name).await;
        }
        let account = ["create", "serviceaccount", "reader", "-n", &own.stays];
        cluster.kubectl_ok(&account).await;
        cluster.apply(&config_map(&own.goes, "one")).await;
        own
    }

    async fn bind(&self, cluster: &Cluster, namespace: &str) {
        let account = format!("--serviceaccount={}:reader", self.stays);
        let role = "--clusterrole=sooner-reader";
        let bind = ["create", "rolebinding", "reader", role, &account];
        cluster
            .kubectl_ok(&[&bind[..], &["-n", namespace]].concat())
            .await;
    }

    async fn unbind(&self, cluster: &Cluster) {
        let unbind = ["delete", "rolebinding", "reader", "-n", &self.goes];
        cluster.kubectl_ok(&unbind).await;
    }

    /// A stream of both that outlives the loss of one.
    async fn watch(&self, cluster: &Cluster, daemon: &Daemon) -> Streaming<WatchObjectsResponse> {
        let token = token(cluster, &self.stays, "reader", &[]).await;
        let reader = Caller::new(daemon, &token).await;
        let request = WatchObjectsRequest {
            scope: Some(scope("configmaps", &[&self.goes, &self.stays])),
            on_revoke: OnRevoke::Retract.into(),
            ..Default::default()
        };
        let mut request = Request::new(request);
        request
            .metadata_mut()
            .insert("authorization", reader.token.clone());
        let answer = reader.cache().watch_objects(request).await;
        answer.unwrap().into_inner()
    }

    /// Until an event of the namespace that goes says this; how long that is.
    async fn until(
        &self,
        stream: &mut Streaming<WatchObjectsResponse>,
        what: (EventType, DeleteCause),
    ) -> Duration {
        let begun = Instant::now();
        let found = async {
            loop {
                let message = stream.message().await.unwrap().expect("the stream goes on");
                let mut events = message.events.iter();
                if events.any(|event| {
                    event.namespace == self.goes && (event.r#type(), event.cause()) == what
                }) {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(60), found)
            .await
            .unwrap_or_else(|_| panic!("no {what:?} within a minute"));
        begun.elapsed()
    }
}

const THERE: (EventType, DeleteCause) = (EventType::Upsert, DeleteCause::Unspecified);
const TAKEN_BACK: (EventType, DeleteCause) = (EventType::Delete, DeleteCause::Revoked);

#[tokio::test]
async fn a_role_binding_that_goes_or_comes_is_felt_within_seconds() {
    let Some(cluster) = cluster::shared().await.filter(|cluster| cluster.is_own()) else {
        return;
    };
    let reader = Reader::new(cluster, "sooner").await;
    let daemon = Daemon::start(CONFIG, cluster.kubeconfig()).await;
    let mut stream = reader.watch(cluster, &daemon).await;
    reader.until(&mut stream, THERE).await;
    let mut all = Vec::new();
    for _ in 0..ROUNDS {
        reader.unbind(cluster).await;
        let gone = reader.until(&mut stream, TAKEN_BACK).await;
        reader.bind(cluster, &reader.goes).await;
        let back = reader.until(&mut stream, THERE).await;
        println!("retracted {gone:?} after the binding went, given back {back:?} after it came");
        all.extend([gone, back]);
    }
    assert!(all.iter().all(|after| *after < SOON), "{all:?}");
    discard(cluster, &[&reader.stays, &reader.goes]).await;
}

#[tokio::test]
async fn where_roles_and_bindings_may_not_be_watched_rights_go_by_the_clock() {
    let Some(cluster) = cluster::shared().await.filter(|cluster| cluster.is_own()) else {
        return;
    };
    let reader = Reader::new(cluster, "later").await;
    for role in ["sooner-reader", "system:auth-delegator"] {
        let name = format!("later-{}", role.trim_start_matches("system:"));
        let role = format!("--clusterrole={role}");
        let bind = ["create", "clusterrolebinding", &name, &role, "--user=bob"];
        cluster.kubectl_ok(&bind).await;
    }
    let kubeconfig = cluster.kubeconfig_for("bob", Credential::User("bob"), cluster.address());
    let config = "auth: {tokens: {audience: informerd}}\nkinds: [configmaps]";
    let daemon = Daemon::start(config, &kubeconfig.unwrap()).await;
    let mut stream = reader.watch(cluster, &daemon).await;
    reader.until(&mut stream, THERE).await;
    reader.unbind(cluster).await;
    let gone = reader.until(&mut stream, TAKEN_BACK).await;
    assert!(gone < Duration::from_secs(30), "{gone:?}");
    // Long enough to be refused again, several times.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let log = daemon.log();
    for kind in [
        "roles",
        "rolebindings",
        "clusterroles",
        "clusterrolebindings",
    ] {
        let source = format!("source{{kind=\"{kind}.rbac.authorization.k8s.io\"");
        let of_kind = log.lines().filter(|line| line.contains(&source));
        let refused = of_kind.filter(|line| line.contains("phase=\"forbidden\""));
        assert_eq!(refused.count(), 1, "{log}");
    }
    discard(cluster, &[&reader.stays, &reader.goes]).await;
}
