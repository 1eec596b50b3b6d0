//! Who may see what, with real service accounts, roles and bindings: the API server's own answers are the measure.

use std::{fs, path::Path, time::Duration};

use http::Request as HttpRequest;
use informerd::{
    client::{Client, Credentials},
    proto::{
        GetObjectRequest, GetReadinessRequest, ListConsumersRequest, ListKindsRequest,
        ListObjectsRequest, ListReadinessRequest, MarkType, ReadinessScope, Scope, Target, View,
        WaitReadinessRequest, WatchObjectsRequest, WatchReadinessRequest,
        cache_service_client::CacheServiceClient,
        introspection_service_client::IntrospectionServiceClient,
        readiness_service_client::ReadinessServiceClient,
    },
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tonic::{
    Code, Request, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

use crate::{
    cluster::{self, Cluster, Credential, Daemon, Scratch},
    support::{discard, eventually, informerd, namespace, scope, succeeded},
};

mod caller;
mod certificates;
mod credentials;
mod crowd;
mod hostile;
mod matrix;
mod retraction;
mod rotation;
mod selectors;
mod sooner;
mod streams;
mod tls;
mod unreachable;
mod unread;
mod wire;

use caller::{Caller, Cell, kube_path, may, token};

/// What of a kind.
const READS: &str = "--verb=get,list,watch";
const CONFIG: &str = "
auth:
  tokens: {audience: informerd}
controllers: [workload]
kinds:
- pods
- configmaps
- nodes
- deployments.apps
- secrets
";

/// Makes the service account `reader` there, and a role of that name that may read config maps; [`bind`] joins them.
async fn reader(cluster: &Cluster, namespace: &str) {
    let account = ["create", "serviceaccount", "reader", "-n", namespace];
    cluster.kubectl_ok(&account).await;
    let role = [
        "create",
        "role",
        "reader",
        "-n",
        namespace,
        READS,
        "--resource=configmaps",
    ];
    cluster.kubectl_ok(&role).await;
}

async fn bind(cluster: &Cluster, namespace: &str) {
    let account = format!("--serviceaccount={namespace}:reader");
    let bind = [
        "create",
        "rolebinding",
        "reader",
        "-n",
        namespace,
        "--role=reader",
        &account,
    ];
    cluster.kubectl_ok(&bind).await;
}

/// Makes the cluster role `reader`, which may read config maps everywhere.
async fn reader_everywhere(cluster: &Cluster) {
    let role = [
        "create",
        "clusterrole",
        "reader",
        READS,
        "--resource=configmaps",
    ];
    cluster.kubectl_ok(&role).await;
}

/// Makes a namespace with a service account `reader`, which may read what is in it.
async fn namespace_with_reader(cluster: &Cluster, name: &str) {
    namespace(cluster, name).await;
    let account = ["create", "serviceaccount", "reader", "-n", name];
    cluster.kubectl_ok(&account).await;
    let account = format!("--serviceaccount={name}:reader");
    let bind = [
        "create",
        "rolebinding",
        "reader",
        "--clusterrole=view",
        &account,
        "-n",
        name,
    ];
    cluster.kubectl_ok(&bind).await;
}

fn config_map(namespace: &str, name: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, namespace: {namespace}}}}}"
    )
}
