//! Somebody with a token, what is asked of a daemon with it, and what the API server says of that.

use super::*;

/// Somebody with a token, at a daemon.
#[derive(Clone)]
pub struct Caller {
    pub channel: Channel,
    /// Of the Kubernetes port.
    pub kube: String,
    pub token: MetadataValue<Ascii>,
    pub headers: Vec<(&'static str, String)>,
}

impl Caller {
    pub async fn new(daemon: &Daemon, token: &str) -> Self {
        let endpoint = Channel::from_shared(format!("http://{}", daemon.server())).unwrap();
        Self {
            channel: endpoint.connect().await.unwrap(),
            kube: daemon.kube_url(""),
            token: format!("Bearer {token}").parse().unwrap(),
            headers: Vec::new(),
        }
    }

    pub fn ask<T>(&self, message: T) -> Request<T> {
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

    pub fn cache(&self) -> CacheServiceClient<Channel> {
        CacheServiceClient::new(self.channel.clone())
    }

    pub fn readiness(&self) -> ReadinessServiceClient<Channel> {
        ReadinessServiceClient::new(self.channel.clone())
    }

    /// The same in Kubernetes's protocol. Of a watch it is how it begins.
    pub async fn kube(&self, scope: &Scope, watch: bool) -> Code {
        let path = kube_path(scope, watch);
        let mut headers = vec![("authorization", self.token.to_str().unwrap())];
        let own = self.headers.iter();
        headers.extend(own.map(|(name, value)| (*name, value.as_str())));
        match cluster::status(&format!("{}{path}", self.kube), &headers).await {
            Ok(200) => Code::Ok,
            Ok(401) => Code::Unauthenticated,
            Ok(403) => Code::PermissionDenied,
            Ok(404) => Code::NotFound,
            other => panic!("{path}: {other:?}"),
        }
    }

    pub async fn watch(
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

/// What of a scope is read, and by what query, at the API server and at the Kubernetes port alike.
pub fn kube_path(scope: &Scope, watch: bool) -> String {
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
    for (name, selector) in [
        ("labelSelector", &scope.label_selector),
        ("fieldSelector", &scope.field_selector),
    ] {
        if !selector.is_empty() {
            let bytes = selector.bytes();
            let escaped: String = bytes.map(|byte| format!("%{byte:02X}")).collect();
            path += &format!("&{name}={escaped}");
        }
    }
    path
}

/// `kubectl create token`, for the daemon's audience.
pub async fn token(cluster: &Cluster, namespace: &str, name: &str, more: &[&str]) -> String {
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
pub struct Cell {
    pub method: &'static str,
    pub scope: Scope,
    pub view: View,
}

impl Cell {
    /// What a SubjectAccessReview asks of it; selectors as they were written.
    pub fn attributes(&self, namespace: &str) -> Value {
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
        let mut asked = json!({
            "verb": verb, "group": group, "resource": resource,
            "namespace": namespace, "name": self.scope.name,
        });
        for (key, selector) in [
            ("labelSelector", &self.scope.label_selector),
            ("fieldSelector", &self.scope.field_selector),
        ] {
            if !selector.is_empty() {
                asked[key] = json!({ "rawSelector": selector });
            }
        }
        asked
    }

    /// How the daemon answers; the first message of a stream included, since a list may fail there.
    pub async fn call(&self, caller: &Caller) -> Code {
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
            label_selector: self.scope.label_selector.clone(),
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
pub async fn may(client: &kube::Client, user: &str, groups: &[String], what: Value) -> bool {
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
