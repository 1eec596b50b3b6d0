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

mod hostile;
mod retraction;
mod rotation;

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

/// Somebody with a token, at a daemon.
#[derive(Clone)]
struct Caller {
    channel: Channel,
    /// Of the Kubernetes port.
    kube: String,
    token: MetadataValue<Ascii>,
    headers: Vec<(&'static str, String)>,
}

impl Caller {
    async fn new(daemon: &Daemon, token: &str) -> Self {
        let endpoint = Channel::from_shared(format!("http://{}", daemon.server())).unwrap();
        Self {
            channel: endpoint.connect().await.unwrap(),
            kube: daemon.kube_url(""),
            token: format!("Bearer {token}").parse().unwrap(),
            headers: Vec::new(),
        }
    }

    fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", self.token.clone());
        for (name, value) in &self.headers {
            request.metadata_mut().append(*name, value.parse().unwrap());
        }
        request.set_timeout(Duration::from_secs(20));
        request
    }

    fn cache(&self) -> CacheServiceClient<Channel> {
        CacheServiceClient::new(self.channel.clone())
    }

    fn readiness(&self) -> ReadinessServiceClient<Channel> {
        ReadinessServiceClient::new(self.channel.clone())
    }

    /// The same in Kubernetes's protocol; of a watch, what it says within a second.
    async fn kube(&self, scope: &Scope, watch: bool) -> Code {
        let (api, plural) = match scope.resource.as_str() {
            "deploy" => ("apis/apps/v1", "deployments"),
            "po" => ("api/v1", "pods"),
            resource => ("api/v1", resource),
        };
        let mut path = format!("/{api}");
        if let Some(namespace) = scope.namespaces.first() {
            path += &format!("/namespaces/{namespace}");
        }
        path += &format!("/{plural}");
        if !scope.name.is_empty() {
            path += &format!("/{}", scope.name);
        }
        path += match watch {
            true => "?watch=1&timeoutSeconds=1",
            false => "?resourceVersion=0",
        };
        let bearer = self.token.to_str().unwrap();
        let token = bearer.trim_start_matches("Bearer ");
        let answer = cluster::get_as(&format!("{}{path}", self.kube), Some(token)).await;
        match answer.unwrap() {
            (200, _) => Code::Ok,
            (401, _) => Code::Unauthenticated,
            (403, _) => Code::PermissionDenied,
            (404, _) => Code::NotFound,
            (other, body) => panic!("{path}: {other} {body}"),
        }
    }

    async fn watch(
        &self,
        scope: Scope,
        token: bytes::Bytes,
    ) -> Result<Streaming<informerd::proto::WatchObjectsResponse>, Status> {
        let request = WatchObjectsRequest {
            scope: Some(scope),
            token,
            ..Default::default()
        };
        let mut request = Request::new(request);
        request
            .metadata_mut()
            .insert("authorization", self.token.clone());
        Ok(self.cache().watch_objects(request).await?.into_inner())
    }
}

/// `kubectl create token`, for the daemon's audience.
async fn token(cluster: &Cluster, namespace: &str, name: &str, more: &[&str]) -> String {
    let args = [
        "create",
        "token",
        name,
        "-n",
        namespace,
        "--audience",
        "informerd",
    ];
    let token = cluster.kubectl_ok(&[&args[..], more].concat()).await;
    token.trim().to_owned()
}

/// What a caller asks for: how it is told to informerd, and to the API server.
struct Cell {
    method: &'static str,
    scope: Scope,
    view: View,
}

impl Cell {
    /// What a SubjectAccessReview asks of it.
    fn attributes(&self, namespace: &str) -> Value {
        let verb = match self.method {
            "GetObject" | "GetReadiness" | "kube get" => "get",
            "ListObjects" | "ListReadiness" | "kube list" => "list",
            _ => "watch",
        };
        let (resource, group) = match self.scope.resource.as_str() {
            "deploy" => ("deployments", "apps"),
            "po" => ("pods", ""),
            resource => (resource, ""),
        };
        json!({
            "verb": verb, "group": group, "resource": resource,
            "namespace": namespace, "name": self.scope.name,
        })
    }

    /// How the daemon answers; the first message of a stream included, since a list may fail there.
    async fn call(&self, caller: &Caller) -> Code {
        let scope = Some(self.scope.clone());
        let view = self.view.into();
        let target = Some(Target {
            resource: self.scope.resource.clone(),
            namespace: self.scope.namespaces.first().cloned().unwrap_or_default(),
            name: self.scope.name.clone(),
        });
        let judged = Some(ReadinessScope {
            resources: vec![self.scope.resource.clone()],
            namespaces: self.scope.namespaces.clone(),
            ..Default::default()
        });
        async fn first<T>(
            answer: Result<tonic::Response<Streaming<T>>, Status>,
        ) -> Result<(), Status> {
            answer?.into_inner().message().await.map(|_| ())
        }
        let answer = match self.method {
            "GetObject" => {
                let request = GetObjectRequest {
                    scope,
                    view,
                    ..Default::default()
                };
                caller
                    .cache()
                    .get_object(caller.ask(request))
                    .await
                    .map(|_| ())
            }
            "ListObjects" => {
                let request = ListObjectsRequest {
                    scope,
                    view,
                    ..Default::default()
                };
                first(caller.cache().list_objects(caller.ask(request)).await).await
            }
            "WatchObjects" => {
                let request = WatchObjectsRequest {
                    scope,
                    view,
                    ..Default::default()
                };
                first(caller.cache().watch_objects(caller.ask(request)).await).await
            }
            "GetReadiness" => {
                let request = caller.ask(GetReadinessRequest { target });
                caller.readiness().get_readiness(request).await.map(|_| ())
            }
            "ListReadiness" => {
                let request = caller.ask(ListReadinessRequest { scope: judged });
                first(caller.readiness().list_readiness(request).await).await
            }
            "WatchReadiness" => {
                let request = WatchReadinessRequest {
                    scope: judged,
                    ..Default::default()
                };
                first(
                    caller
                        .readiness()
                        .watch_readiness(caller.ask(request))
                        .await,
                )
                .await
            }
            "WaitReadiness" => {
                let target = informerd::proto::WaitTarget {
                    target,
                    ..Default::default()
                };
                let request = WaitReadinessRequest {
                    targets: vec![target],
                    timeout: Some(prost_types::Duration {
                        seconds: 0,
                        nanos: 1_000_000,
                    }),
                    ..Default::default()
                };
                let request = caller.ask(request);
                first(caller.readiness().wait_readiness(request).await).await
            }
            "kube get" | "kube list" => return caller.kube(&self.scope, false).await,
            "kube watch" => return caller.kube(&self.scope, true).await,
            other => panic!("{other}"),
        };
        answer.err().map_or(Code::Ok, |status| status.code())
    }
}

/// What the API server says of it.
async fn may(client: &kube::Client, user: &str, groups: &[String], what: Value) -> bool {
    let mut spec = json!({ "user": user, "groups": groups });
    let key = if what.get("path").is_some() {
        "nonResourceAttributes"
    } else {
        "resourceAttributes"
    };
    spec[key] = what;
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec,
    });
    let request = HttpRequest::post("/apis/authorization.k8s.io/v1/subjectaccessreviews")
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&review).unwrap())
        .unwrap();
    let answer: Value = client.request(request).await.unwrap();
    answer["status"]["allowed"] == true
}

const ROLES: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: trust-pods}
rules: [{apiGroups: [""], resources: [pods], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: trust-all}
rules: [{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}, {nonResourceURLs: ["*"], verbs: ["*"]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: trust-aggregated}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {trust-part: "true"}}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: trust-part, labels: {trust-part: "true"}}
rules: [{apiGroups: [apps], resources: [deployments], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: trust-introspection}
rules: [{nonResourceURLs: ["/informerd/introspection/*"], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: get-only, namespace: trust-a}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: list-only, namespace: trust-a}
rules: [{apiGroups: [""], resources: [pods, configmaps], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: one-name, namespace: trust-a}
rules: [{apiGroups: [""], resources: [pods], resourceNames: [web], verbs: [get, list, watch]}]
"#;

/// Accounts of namespace trust-a, and what binds them: (account, kind of the role, role, where).
const BINDINGS: [(&str, &str, &str, &str); 9] = [
    ("everywhere", "ClusterRole", "trust-pods", ""),
    ("master", "ClusterRole", "trust-all", ""),
    ("in-a", "ClusterRole", "trust-pods", "trust-a"),
    ("in-both", "ClusterRole", "trust-pods", "trust-a"),
    ("in-both", "ClusterRole", "trust-pods", "trust-b"),
    ("aggregated", "ClusterRole", "trust-aggregated", "trust-b"),
    ("get-only", "Role", "get-only", "trust-a"),
    ("list-only", "Role", "list-only", "trust-a"),
    ("one-name", "Role", "one-name", "trust-a"),
];

#[tokio::test]
async fn every_call_is_allowed_exactly_where_the_api_server_allows_it() {
    let Some(cluster) = cluster::shared().await.filter(|cluster| cluster.is_own()) else {
        return;
    };
    for name in ["trust-a", "trust-b"] {
        namespace(cluster, name).await;
    }
    cluster.apply(ROLES).await;
    let mut accounts: Vec<&str> = BINDINGS.iter().map(|(account, ..)| *account).collect();
    accounts.dedup();
    accounts.extend(["nobody", "curious"]);
    let mut manifests = String::new();
    for account in &accounts {
        manifests += &format!(
            "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {account}, namespace: trust-a}}\n"
        );
    }
    for (account, kind, role, namespace) in
        BINDINGS
            .iter()
            .chain(&[("curious", "ClusterRole", "trust-introspection", "")])
    {
        let (binding, place) = match *namespace {
            "" => ("ClusterRoleBinding", String::new()),
            namespace => ("RoleBinding", format!(", namespace: {namespace}")),
        };
        manifests += &format!(
            "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {binding}\n\
             metadata: {{name: trust-{account}-{role}{place}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: {kind}, name: {role}}}\n\
             subjects: [{{kind: ServiceAccount, name: {account}, namespace: trust-a}}]\n"
        );
    }
    cluster.apply(&manifests).await;
    let client = cluster.client().await;
    let daemon = Daemon::start(CONFIG, cluster.kubeconfig()).await;

    let mut cells = Vec::new();
    let views = [View::Full, View::Metadata, View::Keys];
    let mut add = |method, resource: &str, namespaces: &[&str], name: &str| {
        let view = views[cells.len() % views.len()];
        let view = if resource == "secrets" {
            View::Metadata
        } else {
            view
        };
        let scope = Scope {
            name: name.into(),
            ..scope(resource, namespaces)
        };
        cells.push(Cell {
            method,
            scope,
            view,
        });
    };
    for resource in ["po", "configmaps", "deploy", "secrets"] {
        for namespaces in [&[][..], &["trust-a"], &["trust-b"]] {
            add("ListObjects", resource, namespaces, "");
            add("WatchObjects", resource, namespaces, "");
        }
    }
    for method in ["GetObject", "ListObjects", "WatchObjects"] {
        add(method, "pods", &["trust-a"], "web");
        add(method, "pods", &["trust-a"], "other");
        add(method, "pods", &["trust-b"], "web");
    }
    for method in ["ListReadiness", "WatchReadiness"] {
        for namespaces in [&[][..], &["trust-a"]] {
            add(method, "po", namespaces, "");
            add(method, "deploy", namespaces, "");
        }
    }
    add("GetReadiness", "pods", &["trust-a"], "web");
    add("GetReadiness", "pods", &["trust-a"], "other");
    add("GetReadiness", "deploy", &["trust-b"], "web");
    add("WaitReadiness", "pods", &["trust-a"], "web");
    add("WaitReadiness", "pods", &["trust-a"], "other");
    add("WaitReadiness", "deploy", &["trust-b"], "web");

    for resource in ["po", "configmaps", "deploy"] {
        for namespaces in [&[][..], &["trust-a"], &["trust-b"]] {
            add("kube list", resource, namespaces, "");
        }
    }
    add("kube get", "pods", &["trust-a"], "web");
    add("kube get", "pods", &["trust-a"], "other");
    add("kube get", "deploy", &["trust-b"], "web");
    add("kube watch", "po", &[], "");
    add("kube watch", "po", &["trust-a"], "");

    let (mut compared, mut allowed, mut wrong) = (0, 0, Vec::new());
    for account in &accounts {
        let user = format!("system:serviceaccount:trust-a:{account}");
        let groups = [
            "system:serviceaccounts",
            "system:serviceaccounts:trust-a",
            "system:authenticated",
        ]
        .map(str::to_owned);
        // The aggregated role gets its rules from a controller.
        if *account == "aggregated" {
            let part = json!({"verb": "list", "group": "apps", "resource": "deployments", "namespace": "trust-b"});
            eventually("the aggregated role has its rules", async || {
                may(&client, &user, &groups, part.clone()).await
            })
            .await;
        }
        let caller = Caller::new(&daemon, &token(cluster, "trust-a", account, &[]).await).await;
        for cell in &cells {
            let place = cell.scope.namespaces.first().cloned().unwrap_or_default();
            let expected = may(&client, &user, &groups, cell.attributes(&place)).await;
            let code = cell.call(&caller).await;
            compared += 1;
            allowed += usize::from(expected);
            let fits = match code {
                Code::PermissionDenied => !expected,
                Code::Ok | Code::NotFound => expected,
                _ => false,
            };
            if !fits {
                let scope = &cell.scope;
                wrong.push(format!(
                    "{account} {} {scope:?}: {code:?}, allowed: {expected}",
                    cell.method
                ));
            }
        }
        let mut introspection = IntrospectionServiceClient::new(caller.channel.clone());
        let kinds = introspection
            .list_kinds(caller.ask(ListKindsRequest {}))
            .await;
        let consumers = ListConsumersRequest::default();
        let consumers = introspection.list_consumers(caller.ask(consumers)).await;
        for (path, code) in [
            ("kinds", kinds.err().map(|status| status.code())),
            ("consumers", consumers.err().map(|status| status.code())),
        ] {
            let what = json!({"verb": "get", "path": format!("/informerd/introspection/{path}")});
            let expected = may(&client, &user, &groups, what).await;
            compared += 1;
            allowed += usize::from(expected);
            if code != (!expected).then_some(Code::PermissionDenied) {
                wrong.push(format!(
                    "{account} introspection {path}: {code:?}, allowed: {expected}"
                ));
            }
        }
    }
    println!("{compared} cells, {allowed} of them allowed");
    assert!(
        wrong.is_empty(),
        "{} of {compared}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        compared >= 80 && allowed > compared / 10,
        "{allowed} of {compared}"
    );

    // What is not configured is there for nobody, and only those who might see it are told so.
    let kind = |resource: &str| Cell {
        method: "ListObjects",
        scope: scope(resource, &["trust-a"]),
        view: View::Full,
    };
    let master = Caller::new(&daemon, &token(cluster, "trust-a", "master", &[]).await).await;
    let nobody = Caller::new(&daemon, &token(cluster, "trust-a", "nobody", &[]).await).await;
    for resource in ["services", "cats.example.com"] {
        assert_eq!(kind(resource).call(&master).await, Code::NotFound);
        assert_eq!(kind(resource).call(&nobody).await, Code::PermissionDenied);
    }
    let request = ListObjectsRequest {
        scope: Some(scope("services", &[])),
        ..Default::default()
    };
    let status = master
        .cache()
        .list_objects(master.ask(request))
        .await
        .unwrap_err();
    assert!(!status.message().contains("pods"), "{}", status.message());

    // Secrets without their data.
    cluster
        .apply("{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: trust-a}, stringData: {k: hidden}}")
        .await;
    let get = GetObjectRequest {
        scope: Some(Scope {
            name: "s".into(),
            ..scope("secrets", &["trust-a"])
        }),
        view: View::Metadata.into(),
        ..Default::default()
    };
    eventually("the secret's metadata is served", async || {
        let answer = master.cache().get_object(master.ask(get.clone())).await;
        let Ok(answer) = answer else { return false };
        let object = answer.into_inner().object.unwrap().object;
        let text = String::from_utf8_lossy(&object).into_owned();
        // Base64 of it, and last-applied, would both say so.
        assert!(
            !text.contains("aGlkZGVu") && !text.contains("hidden"),
            "{text}"
        );
        true
    })
    .await;
    let full = GetObjectRequest {
        view: View::Full.into(),
        ..get
    };
    let refused = master
        .cache()
        .get_object(master.ask(full))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);

    audit_has_no_tokens(&daemon, &master);
    discard(cluster, &["trust-a", "trust-b"]).await;
}

/// What the daemon logged tells who and what, and no credentials.
fn audit_has_no_tokens(daemon: &Daemon, caller: &Caller) {
    let log = daemon.log();
    assert!(
        log.contains("system:serviceaccount:trust-a:nobody"),
        "denied calls are in the log"
    );
    let bearer = caller.token.to_str().unwrap();
    let token = bearer.trim_start_matches("Bearer ");
    assert!(!log.contains(token));
    // Not even the part that is not secret.
    assert!(!log.contains(token.split('.').nth(1).unwrap()));
}

/// Reads a stream to its end: the events of each message with their time, and how it ended.
async fn to_its_end(
    mut stream: Streaming<informerd::proto::WatchObjectsResponse>,
    within: Duration,
) -> (
    Instant,
    Option<informerd::proto::Mark>,
    bytes::Bytes,
    Status,
) {
    let mut last_events = Instant::now();
    let (mut end, mut last_token) = (None, bytes::Bytes::new());
    let reading = async {
        loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    if !message.events.is_empty() {
                        last_events = Instant::now();
                    }
                    if let Some(mark) = message.mark {
                        if !mark.token.is_empty() {
                            last_token = mark.token.clone();
                        }
                        if mark.r#type() == MarkType::End {
                            end = Some(mark);
                        }
                    }
                }
                Ok(None) => return Status::ok("ended"),
                Err(status) => return status,
            }
        }
    };
    let status = timeout(within, reading)
        .await
        .expect("the stream ends in time");
    (last_events, end, last_token, status)
}

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

fn config_map(namespace: &str, name: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, namespace: {namespace}}}}}"
    )
}

#[tokio::test]
async fn a_stream_ends_within_half_a_minute_of_its_role_binding_and_goes_on_when_that_is_back() {
    let Some(cluster) = cluster::shared().await.filter(|cluster| cluster.is_own()) else {
        return;
    };
    namespace(cluster, "revoked").await;
    reader(cluster, "revoked").await;
    bind(cluster, "revoked").await;
    let daemon = Daemon::start(CONFIG, cluster.kubeconfig()).await;
    let reader = Caller::new(&daemon, &token(cluster, "revoked", "reader", &[]).await).await;
    let scope = scope("configmaps", &["revoked"]);
    let stream = reader
        .watch(scope.clone(), bytes::Bytes::new())
        .await
        .unwrap();
    let reading = tokio::spawn(to_its_end(stream, Duration::from_secs(60)));

    cluster
        .kubectl_ok(&["delete", "rolebinding", "reader", "-n", "revoked"])
        .await;
    let revoked = Instant::now();
    let mut written = 0;
    while !reading.is_finished() {
        cluster
            .apply(&config_map("revoked", &format!("c-{written}")))
            .await;
        written += 1;
    }
    let (last_events, end, last_token, status) = reading.await.unwrap();
    println!(
        "ended {:?} after the binding went, {written} changes were made",
        revoked.elapsed()
    );
    assert!(revoked.elapsed() < Duration::from_secs(31));
    assert!(last_events.saturating_duration_since(revoked) < Duration::from_secs(30));
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert!(
        status
            .message()
            .contains(r#"cannot watch resource "configmaps""#),
        "{}",
        status.message()
    );
    assert_eq!(end.unwrap().reason, "REVOKED");

    // The token of the stream gives no rights.
    let refused = reader
        .watch(scope.clone(), last_token.clone())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    cluster.apply(&config_map("revoked", "while-away")).await;
    bind(cluster, "revoked").await;
    eventually("the stream goes on where it was", async || {
        let Ok(mut stream) = reader.watch(scope.clone(), last_token.clone()).await else {
            return false;
        };
        while let Ok(Ok(Some(message))) = timeout(Duration::from_secs(5), stream.message()).await {
            let reset = message.mark.as_ref().map(|mark| mark.r#type());
            assert_ne!(reset, Some(MarkType::Reset), "it resumes");
            if message
                .events
                .iter()
                .any(|event| event.name == "while-away")
            {
                return true;
            }
        }
        panic!("what was written meanwhile is missing");
    })
    .await;
    discard(cluster, &["revoked"]).await;
}

#[tokio::test]
async fn a_stream_ends_within_half_a_minute_of_the_pod_that_its_token_was_bound_to() {
    let Some(cluster) = cluster::shared().await.filter(|cluster| cluster.is_own()) else {
        return;
    };
    namespace(cluster, "bound").await;
    reader(cluster, "bound").await;
    bind(cluster, "bound").await;
    cluster
        .apply(
            "{apiVersion: v1, kind: Pod, metadata: {name: owner, namespace: bound}, \
             spec: {serviceAccountName: reader, nodeName: node-0, containers: [{name: c, image: x}]}}",
        )
        .await;
    let daemon = Daemon::start(CONFIG, cluster.kubeconfig()).await;
    let more = ["--bound-object-kind", "Pod", "--bound-object-name", "owner"];
    let reader = Caller::new(&daemon, &token(cluster, "bound", "reader", &more).await).await;
    let stream = reader
        .watch(scope("configmaps", &["bound"]), bytes::Bytes::new())
        .await
        .unwrap();
    let reading = tokio::spawn(to_its_end(stream, Duration::from_secs(60)));
    cluster
        .kubectl_ok(&[
            "delete",
            "pod",
            "owner",
            "-n",
            "bound",
            "--force",
            "--grace-period=0",
        ])
        .await;
    let deleted = Instant::now();
    let (_, end, _, status) = reading.await.unwrap();
    println!("ended {:?} after the pod went", deleted.elapsed());
    assert!(deleted.elapsed() < Duration::from_secs(31));
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    assert_eq!(end.unwrap().reason, "REVOKED");
    discard(cluster, &["bound"]).await;
}

#[tokio::test]
async fn callers_without_credentials_with_others_or_for_others_are_not_let_in() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let daemon = Daemon::start(
        "auth: {tokens: {audience: informerd}}\nkinds: [configmaps]",
        cluster.kubeconfig(),
    )
    .await;
    cluster
        .kubectl_ok(&["create", "serviceaccount", "reader"])
        .await;
    let cell = Cell {
        method: "ListObjects",
        scope: scope("configmaps", &[]),
        view: View::Full,
    };
    // The API server knows these tokens well, but they are not made for informerd.
    for token in [cluster::token("admin").as_str(), "made-up"] {
        let caller = Caller::new(&daemon, token).await;
        assert_eq!(cell.call(&caller).await, Code::Unauthenticated, "{token}");
    }
    let other = cluster
        .kubectl_ok(&["create", "token", "reader", "--audience", "vault"])
        .await;
    assert_eq!(
        cell.call(&Caller::new(&daemon, other.trim()).await).await,
        Code::Unauthenticated
    );
    let anonymous = Client::connect(&daemon.server().to_string()).unwrap();
    let refused = anonymous.kinds().await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::Unauthenticated), "{refused}");

    // CVE-2026-61682: headers that say who somebody is were believed.
    let mut reader = Caller::new(&daemon, &token(&cluster, "default", "reader", &[]).await).await;
    assert_eq!(cell.call(&reader).await, Code::PermissionDenied);
    for name in [
        "x-remote-user",
        "x-remote-group",
        "x-forwarded-user",
        "x-forwarded-client-cert",
    ] {
        reader.headers = vec![(name, "system:masters".to_owned())];
        assert_eq!(cell.call(&reader).await, Code::PermissionDenied, "{name}");
    }
    reader.headers = vec![
        ("impersonate-user", "admin".to_owned()),
        ("impersonate-group", "system:masters".to_owned()),
    ];
    assert_eq!(cell.call(&reader).await, Code::PermissionDenied);
    reader.headers = vec![("impersonate-group", "system:masters".to_owned())];
    assert_eq!(cell.call(&reader).await, Code::InvalidArgument);
    let role = [
        "create",
        "clusterrole",
        "impersonator",
        "--verb=impersonate",
        "--resource=users,groups",
    ];
    cluster.kubectl_ok(&role).await;
    let bind = [
        "create",
        "clusterrolebinding",
        "impersonator",
        "--clusterrole=impersonator",
        "--serviceaccount=default:reader",
    ];
    cluster.kubectl_ok(&bind).await;
    reader.headers = vec![
        ("impersonate-user", "admin".to_owned()),
        ("impersonate-group", "system:masters".to_owned()),
    ];
    // That it could not is remembered for ten seconds.
    eventually("it may act for the masters", async || {
        cell.call(&reader).await == Code::Ok
    })
    .await;
    reader.headers = vec![("impersonate-user", "mallory".to_owned())];
    assert_eq!(cell.call(&reader).await, Code::PermissionDenied);
}

#[tokio::test]
async fn certificates_let_in_whom_they_name_over_tls() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let scratch = Scratch::new("certs").unwrap();
    let folder = scratch.path().join("dev");
    let path = |name: &str| folder.join(name).display().to_string();
    succeeded(
        &informerd(&[
            "certs",
            "dev",
            "--user",
            "alice",
            &folder.display().to_string(),
        ])
        .await,
    );
    let again = informerd(&["certs", "dev", &folder.display().to_string()]).await;
    assert!(!again.status.success(), "what is there is not overwritten");
    let config = format!(
        "auth: {{clientCertificates: {{ca: {}}}}}\ntls: {{certificate: {}, key: {}}}\nkinds: [configmaps]",
        path("ca.crt"),
        path("server.crt"),
        path("server.key")
    );
    let daemon = Daemon::start(&config, cluster.kubeconfig()).await;
    let server = format!("https://localhost:{}", daemon.ports().grpc);
    let credentials = |with_own: bool| Credentials {
        ca: Some(folder.join("ca.crt")),
        certificate: with_own.then(|| folder.join("client.crt")),
        key: with_own.then(|| folder.join("client.key")),
        token_file: None,
    };
    let client = |with_own| Client::connect_with(&server, &credentials(with_own)).unwrap();
    let list = async |client: Client| {
        let request = ListObjectsRequest {
            scope: Some(scope("configmaps", &[])),
            ..Default::default()
        };
        client.list(request).await
    };
    let nobody = list(client(false)).await.unwrap_err();
    assert_eq!(nobody.code(), Some(Code::Unauthenticated), "{nobody}");
    let alice = list(client(true)).await.unwrap_err();
    assert!(
        alice
            .to_string()
            .contains(r#"User "alice" cannot list resource "configmaps""#),
        "{alice}"
    );
    reader_everywhere(&cluster).await;
    cluster
        .kubectl_ok(&[
            "create",
            "clusterrolebinding",
            "alice",
            "--clusterrole=reader",
            "--user=alice",
        ])
        .await;
    eventually("alice may", async || list(client(true)).await.is_ok()).await;
    let (ca, cert, key) = (path("ca.crt"), path("client.crt"), path("client.key"));
    let args = [
        "get",
        "configmaps",
        "-A",
        "--server",
        &server,
        "--ca",
        &ca,
        "--cert",
        &cert,
        "--key",
        &key,
    ];
    let printed = succeeded(&informerd(&args).await);
    assert!(
        printed.contains("kube-root-ca.crt") || printed.contains("NAME"),
        "{printed}"
    );

    plain_text_and_old_versions_are_refused(&daemon, &folder);
}

/// By somebody else's TLS, where there is one.
fn plain_text_and_old_versions_are_refused(daemon: &Daemon, folder: &Path) {
    let address = daemon.server().to_string();
    let connect = |version: &str| {
        let output = std::process::Command::new("openssl")
            .args(["s_client", "-connect", &address, "-alpn", "h2", version])
            .args(["-CAfile", &folder.join("ca.crt").display().to_string()])
            .args(["-cipher", "DEFAULT:@SECLEVEL=0"])
            .stdin(std::process::Stdio::null())
            .output();
        output
            .ok()
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(new) = connect("-tls1_3") else {
        println!("without openssl the versions are not looked at");
        return;
    };
    assert!(new.contains("ALPN protocol: h2"), "{new}");
    assert!(
        connect("-tls1_2")
            .unwrap()
            .contains("Verify return code: 0")
    );
    for old in ["-tls1_1", "-tls1"] {
        assert!(
            !connect(old).unwrap().contains("ALPN protocol: h2"),
            "{old}"
        );
    }
}

#[tokio::test]
async fn nobody_new_is_let_in_while_the_api_server_is_away() {
    let Some(mut cluster) = cluster::private().await else {
        return;
    };
    cluster
        .kubectl_ok(&["create", "serviceaccount", "reader"])
        .await;
    cluster
        .kubectl_ok(&["create", "serviceaccount", "late"])
        .await;
    for name in ["reader", "late"] {
        let account = format!("--serviceaccount=default:{name}");
        cluster
            .kubectl_ok(&[
                "create",
                "clusterrolebinding",
                name,
                "--clusterrole=cluster-admin",
                &account,
            ])
            .await;
    }
    let kubeconfig = cluster
        .kubeconfig_for("daemon", Credential::Admin, cluster.address())
        .unwrap();
    let daemon = Daemon::start("auth: {tokens: {}}\nkinds: [configmaps]", &kubeconfig).await;
    let reader = Caller::new(&daemon, &token(&cluster, "default", "reader", &[]).await).await;
    let late = Caller::new(&daemon, &token(&cluster, "default", "late", &[]).await).await;
    let cell = Cell {
        method: "ListObjects",
        scope: scope("configmaps", &[]),
        view: View::Keys,
    };
    let mut stream = reader
        .watch(cell.scope.clone(), bytes::Bytes::new())
        .await
        .unwrap();
    assert_eq!(cell.call(&reader).await, Code::Ok);
    let asked = Instant::now();
    cluster.stop_apiserver();
    assert_eq!(cell.call(&late).await, Code::Unavailable);
    if asked.elapsed() < Duration::from_secs(8) {
        assert_eq!(
            cell.call(&reader).await,
            Code::Ok,
            "for ten seconds that is known"
        );
    }
    eventually("what is known of the reader ends", async || {
        cell.call(&reader).await == Code::Unavailable
    })
    .await;
    assert!(asked.elapsed() < Duration::from_secs(20));
    // The open stream goes on, with a bookmark every ten seconds.
    let mut bookmarks = 0;
    while bookmarks < 4 {
        let message = timeout(Duration::from_secs(15), stream.message()).await;
        let message = message
            .expect("in time")
            .expect("no error")
            .expect("no end");
        let mark = message.mark.map(|mark| mark.r#type());
        bookmarks += usize::from(mark == Some(MarkType::Bookmark));
    }
    cluster.start_apiserver().await.unwrap();
    eventually("both are let in again", async || {
        cell.call(&late).await == Code::Ok && cell.call(&reader).await == Code::Ok
    })
    .await;
}

#[tokio::test]
async fn an_address_that_others_reach_is_refused_without_a_way_in() {
    let scratch = Scratch::new("refused").unwrap();
    let file = scratch.path().join("config.yaml");
    fs::write(&file, "listen: 0.0.0.0:7443\nkinds: [pods]\n").unwrap();
    let output = informerd(&["serve", "--config", &file.display().to_string()]).await;
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for hint in [
        "auth: {tokens:",
        "clientCertificates",
        "tls: {certificate:",
        "certs dev",
    ] {
        assert!(said.contains(hint), "{said}");
    }
}
