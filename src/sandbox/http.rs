//! The store as a Kubernetes API: reading is `kubeapi`'s, and this is the rest: discovery's facts, and the writes.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_TYPE, WARNING},
};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{
    DeleteOptions, FieldValidation, Options, Part, Patch, Refusal, Served, Store,
    conform::conform,
    definition::Definition,
    fields::{set, text},
    protobuf, reviews,
    traffic::Traffic,
};
use crate::{
    kubeapi::{
        self, Body, Opened, Other, PrinterColumn, Proven, Query, Read, Reader, Resource, Status,
        Subresource, Target, Wanted,
    },
    object::{FieldSelector, Key, LabelSelector, Object, Selector},
};

/// As the API server's.
const MAX_BODY: usize = 3 << 20;
const BODIES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// What can be done with a kind, in the order in which the API server says so.
const BUILTIN: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
/// With one of a CRD.
const CUSTOM: [&str; 8] = [
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "create",
    "update",
    "watch",
];

/// What the sandbox says of itself at `/version`. The part after the plus is for people.
const VERSION: &str = "v1.36.3+sandbox";

/// A store behind Kubernetes's protocol.
#[derive(Debug)]
pub struct Door {
    store: Store,
    traffic: Traffic,
    /// Made anew when the store serves something else.
    resources: Mutex<Resources>,
}

#[derive(Debug, Default)]
struct Resources {
    of: Arc<Vec<Arc<Served>>>,
    all: Arc<[Arc<Resource>]>,
}

impl Door {
    /// Of this store; who reads from it is noted in `traffic`.
    pub fn new(store: Store, traffic: Traffic) -> Self {
        Self {
            store,
            traffic,
            resources: Mutex::default(),
        }
    }
}

impl Read for Door {
    fn resources(&self) -> Arc<[Arc<Resource>]> {
        let served = self.store.served();
        let mut known = self
            .resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&known.of, &served) {
            known.all = served.iter().map(|it| Arc::new(resource(it))).collect();
            known.of = served;
        }
        known.all.clone()
    }

    fn open(&self, opened: Opened) -> Option<Box<dyn Reader>> {
        Some(self.traffic.open(&opened))
    }

    fn version(&self) -> BoxFuture<'_, Result<Bytes, Status>> {
        let version = json!({
            "major": "1",
            "minor": "36",
            "gitVersion": VERSION,
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": "",
            "platform": "",
            "emulationMajor": "1",
            "emulationMinor": "36",
            "minCompatibilityMajor": "1",
            "minCompatibilityMinor": "35",
        });
        Box::pin(async move { Ok(version.to_string().into()) })
    }

    fn most_recent<'a>(&'a self, of: Wanted<'a>) -> BoxFuture<'a, Result<Proven, Status>> {
        // Writes are published before they are answered: only the other kinds' revisions are to be caught up with.
        self.store.advance_one(&of.resource.identity.resource());
        let state = of.shard.state().ok_or_else(Status::no_such_path);
        Box::pin(async move { state.map(Proven::of) })
    }

    fn other(&self, request: Request<Body>, what: Other) -> BoxFuture<'static, Response<Body>> {
        let store = self.store.clone();
        Box::pin(async move {
            let answer = match what {
                Other::Path => return no_page(),
                Other::Resource { why: Some(why), .. } => return why.response(),
                Other::Resource {
                    target,
                    resource: Some(resource),
                    ..
                } => answer(&store, request, &target, &resource).await,
                Other::Resource { target, .. } => not_served(&store, request, &target).await,
            };
            answer.unwrap_or_else(|refusal| {
                let code = StatusCode::from_u16(refusal.code);
                respond(
                    code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                    &refusal.to_status(),
                )
            })
        })
    }
}

/// What is answered where there is no such resource.
async fn not_served(
    store: &Store,
    request: Request<Body>,
    target: &Target,
) -> Result<Response<Body>, Refusal> {
    if let Some(status) = reviews::status(target) {
        let (parts, body) = request.into_parts();
        let mut review = parse(media_type(&parts.headers), &collect(body).await?)?;
        set(&mut review, &["status"], status);
        return Ok(respond(StatusCode::CREATED, &review));
    }
    let served = store.served();
    let mut own = served.iter().map(|it| &it.definition);
    if !["get", "list", "watch"].contains(&target.verb) {
        let names: Vec<String> = own.map(|it| it.resource()).collect();
        let mut refusal = Refusal::no_such_path();
        refusal.message = format!(
            "{}: there are no {} in this sandbox; there are {}, and what CustomResourceDefinitions define",
            refusal.message,
            kubeapi::qualified(&target.group, &target.plural),
            names.join(", "),
        );
        return Err(refusal);
    }
    // Of a group that is all the API server's own, a resource is missed by name; of others it is a page.
    if own.any(|it| !it.custom && it.identity.group == target.group) {
        Err(Refusal::no_such_path())
    } else {
        Ok(no_page())
    }
}

fn no_page() -> Response<Body> {
    kubeapi::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn resource(served: &Served) -> Resource {
    let definition = &served.definition;
    let mut subresources = Vec::new();
    let mut below = |name: &str, kind: Option<(&str, &str, &str)>, verbs: &[&'static str]| {
        let kind = kind
            .map(|(group, version, kind)| (group.to_owned(), version.to_owned(), kind.to_owned()));
        subresources.push(Subresource {
            name: name.to_owned(),
            kind,
            verbs: verbs.to_vec(),
        });
    };
    if definition.status {
        below("status", None, &["get", "patch", "update"]);
    }
    if definition.scale.is_some() {
        let scale = ("autoscaling", "v1", "Scale");
        below("scale", Some(scale), &["get", "patch", "update"]);
    }
    if definition.is("", "pods") {
        below("binding", Some(("", "v1", "Binding")), &["create"]);
        below("eviction", Some(("policy", "v1", "Eviction")), &["create"]);
    }
    let columns = served.columns.clone().map(|columns| {
        // Those that cannot be read are left out, as nobody has checked them.
        let columns = columns.as_array().cloned().unwrap_or_default().into_iter();
        columns
            .filter_map(|column| serde_json::from_value::<PrinterColumn>(column).ok())
            .collect()
    });
    Resource {
        identity: Arc::new(definition.identity.clone()),
        kind: served.kind.clone(),
        verbs: if definition.custom { CUSTOM } else { BUILTIN }.to_vec(),
        categories: definition.categories.clone(),
        columns,
        custom: definition.custom,
        subresources,
        excluded: Vec::new(),
        schema: served.schema(),
        warnings: Vec::new(),
    }
}

async fn answer(
    store: &Store,
    request: Request<Body>,
    target: &Target,
    resource: &Resource,
) -> Result<Response<Body>, Refusal> {
    let (parts, body) = request.into_parts();
    let name = resource.identity.resource();
    let served = store.find(&name).ok_or_else(Refusal::method_not_allowed)?;
    let call = Call {
        store,
        definition: served.definition.clone(),
        query: Query::parse(parts.uri.query()),
        media_type: media_type(&parts.headers),
        namespace: &target.namespace,
        name: target.name.as_deref().unwrap_or_default(),
    };
    if resource.identity.namespaced == target.namespace.is_empty() {
        // Only deletions and lists may leave the namespace out, and no others go without one.
        return Err(Refusal::method_not_allowed());
    }
    let body = collect(body).await?;
    call.run(target, &body)
}

/// The whole body, if it is no longer than the API server takes.
async fn collect(mut body: Body) -> Result<Vec<u8>, Refusal> {
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let cut = |_| Refusal::bad_request("the body of the request ended too early");
        let Ok(data) = frame.map_err(cut)?.into_data() else {
            continue;
        };
        if all.len() + data.len() > MAX_BODY {
            return Err(Refusal {
                code: 413,
                reason: "RequestEntityTooLarge",
                message: format!("Request entity too large: limit is {MAX_BODY}"),
                details: json!({}),
            });
        }
        all.extend_from_slice(&data);
    }
    Ok(all)
}

/// One write.
struct Call<'a> {
    store: &'a Store,
    definition: Arc<Definition>,
    query: Query<'a>,
    media_type: &'a str,
    namespace: &'a str,
    name: &'a str,
}

impl Call<'_> {
    fn run(&self, target: &Target, body: &[u8]) -> Result<Response<Body>, Refusal> {
        let name = self.definition.resource();
        let key = Key::new(self.namespace, self.name);
        if self.name.contains('/') {
            return Err(Refusal::not_found(&self.definition, self.name));
        }
        let part = match target.subresource.as_deref() {
            None => Part::Whole,
            Some("status") if self.definition.status => Part::Status,
            Some("scale") if self.definition.scale.is_some() => Part::Scale,
            Some(below) => return self.below_a_pod(target.verb, below, &key, body),
        };
        let options = self.options()?;
        match (target.verb, part) {
            ("get", Part::Scale) => Ok(respond(StatusCode::OK, &self.store.scale(&name, &key)?)),
            ("get", _) => {
                let object = self.store.get(&name, &key);
                let object =
                    object.ok_or_else(|| Refusal::not_found(&self.definition, self.name))?;
                Ok(kubeapi::json(
                    StatusCode::OK,
                    kubeapi::full(object.json.clone()),
                ))
            }
            ("create", Part::Whole) if self.name.is_empty() => {
                let (object, unknown) = self.object(body)?;
                let made = self.store.create(&name, self.namespace, object, &options)?;
                Ok(warned(respond(StatusCode::CREATED, &made), &unknown))
            }
            ("update", part) => {
                let (object, unknown) = match part {
                    Part::Scale => (parse(self.media_type, body)?, Vec::new()),
                    Part::Whole | Part::Status => self.object(body)?,
                };
                let written = self.store.update(&name, &key, part, object, &options)?;
                Ok(warned(
                    respond(code(written.created), &written.object),
                    &unknown,
                ))
            }
            ("patch", part) => {
                let patch = Patch::parse(self.media_type, body, &self.definition)?;
                let written = self.store.patch(&name, &key, part, &patch, &options)?;
                let answer = respond(code(written.created), &written.object);
                Ok(warned(answer, &written.unknown))
            }
            ("delete", Part::Whole) => {
                let deleted = self.store.delete(&name, &key, &self.deletion(body)?)?;
                Ok(respond(StatusCode::OK, &deleted.answer))
            }
            ("deletecollection", Part::Whole) => self.delete_collection(&name, body),
            _ => Err(Refusal::method_not_allowed()),
        }
    }

    fn delete_collection(&self, name: &str, body: &[u8]) -> Result<Response<Body>, Refusal> {
        let selector = self.selector()?;
        let options = self.deletion(body)?;
        let selects = |object: &Object| selector.matches(object);
        let items = self
            .store
            .delete_collection(name, self.namespace, selects, &options)?;
        let identity = &self.definition.identity;
        let list = json!({
            "kind": format!("{}List", identity.kind),
            "apiVersion": identity.api_version(),
            "metadata": {"resourceVersion": self.store.revision().to_string()},
            "items": items,
        });
        Ok(respond(StatusCode::OK, &list))
    }

    /// What a scheduler and a drain ask for.
    fn below_a_pod(
        &self,
        verb: &str,
        below: &str,
        key: &Key,
        body: &[u8],
    ) -> Result<Response<Body>, Refusal> {
        let done = || {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
            respond(StatusCode::CREATED, &status)
        };
        match (self.definition.is("", "pods"), verb, below) {
            (true, "create", "binding") => {
                let binding = parse(self.media_type, body)?;
                let node = text(&binding, &["target", "name"]);
                self.store.bind(key, node)?;
                Ok(done())
            }
            (true, "create", "eviction") => {
                let eviction = parse(self.media_type, body)?;
                let options = eviction.get("deleteOptions").cloned().unwrap_or(json!({}));
                let options: DeleteOptions = read(options)?;
                self.store.delete("pods", key, &options)?;
                Ok(done())
            }
            (
                true,
                _,
                "log" | "exec" | "attach" | "portforward" | "proxy" | "ephemeralcontainers",
            ) => Err(Refusal::bad_request(format!(
                "no container runs in a sandbox: pods have no {below}"
            ))),
            _ => Err(Refusal::no_such_path()),
        }
    }

    fn options(&self) -> Result<Options, Refusal> {
        let dry_run = self.query.get("dryRun").unwrap_or_default();
        if !["", "All"].contains(&dry_run) {
            return Err(Refusal::unprocessable(format!(
                "dryRun: Unsupported value: {dry_run:?}: supported values: \"All\""
            )));
        }
        Ok(Options {
            dry_run: dry_run == "All",
            field_validation: self.validation()?,
            field_manager: self
                .query
                .get("fieldManager")
                .unwrap_or_default()
                .to_owned(),
        })
    }

    fn deletion(&self, body: &[u8]) -> Result<DeleteOptions, Refusal> {
        let mut options: DeleteOptions = if body.is_empty() {
            DeleteOptions::default()
        } else {
            read(parse(self.media_type, body)?)?
        };
        // What stands in the URL counts where there is no body.
        if let Some(seconds) = self.query.get("gracePeriodSeconds") {
            let wrong = |_| Refusal::bad_request("gracePeriodSeconds must be a whole number");
            options.grace_period_seconds = Some(seconds.parse().map_err(wrong)?);
        }
        if let Some(policy) = self.query.get("propagationPolicy") {
            options.propagation_policy = Some(policy.to_owned());
        }
        if self.options()?.dry_run {
            options.dry_run = vec!["All".to_owned()];
        }
        Ok(options)
    }

    fn selector(&self) -> Result<Selector, Refusal> {
        let text = |name: &str| self.query.get(name).unwrap_or_default();
        let labels: LabelSelector = text("labelSelector").parse().map_err(|error: _| {
            Refusal::bad_request(format!("unable to parse requirement: {error}"))
        })?;
        let fields = FieldSelector::parse(text("fieldSelector"))
            .and_then(|fields| fields.resolve(&self.definition.identity.selectable))
            .map_err(|error| Refusal::bad_request(error.to_string()))?;
        Ok(Selector { labels, fields })
    }

    /// The object in a body, with what it has that its kind does not.
    fn object(&self, body: &[u8]) -> Result<(Value, Vec<String>), Refusal> {
        let mut object = parse(self.media_type, body)?;
        let unknown = conform(&self.definition, &mut object, self.validation()?)?;
        Ok((object, unknown))
    }

    fn validation(&self) -> Result<FieldValidation, Refusal> {
        match self.query.get("fieldValidation").unwrap_or_default() {
            "" | "Warn" => Ok(FieldValidation::Warn),
            "Ignore" => Ok(FieldValidation::Ignore),
            "Strict" => Ok(FieldValidation::Strict),
            other => Err(Refusal::unprocessable(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}

fn media_type(headers: &HeaderMap) -> &str {
    let given = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    given.unwrap_or_default()
}

fn parse(media_type: &str, body: &[u8]) -> Result<Value, Refusal> {
    match media_type.split(';').next().unwrap_or_default().trim() {
        "" | "application/json" => serde_json::from_slice(body).map_err(unrecognized),
        "application/yaml" => {
            serde_saphyr::from_str(&String::from_utf8_lossy(body)).map_err(unrecognized)
        }
        protobuf::MEDIA_TYPE => protobuf::decode(body).map_err(unrecognized),
        _ => Err(Refusal::media_type(BODIES)),
    }
}

fn unrecognized(error: impl std::fmt::Display) -> Refusal {
    Refusal::bad_request(format!("the object provided is unrecognized: {error}"))
}

fn read(options: Value) -> Result<DeleteOptions, Refusal> {
    serde_json::from_value(options)
        .map_err(|error| Refusal::bad_request(format!("DeleteOptions: {error}")))
}

/// Tells the writer what was left out, as the API server does.
fn warned(mut answer: Response<Body>, unknown: &[String]) -> Response<Body> {
    for what in unknown {
        let quoted = what.replace('\\', "\\\\").replace('"', "\\\"");
        // A name that cannot stand in a header is not told.
        if let Ok(warning) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            answer.headers_mut().append(WARNING, warning);
        }
    }
    answer
}

fn code(created: bool) -> StatusCode {
    if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    }
}

fn respond(code: StatusCode, value: &Value) -> Response<Body> {
    kubeapi::json(code, kubeapi::full(value.to_string() + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kubeapi::{KubeApi, Peer},
        sandbox::Settings,
        shutdown::Shutdown,
    };

    const MAPS: &str = "/api/v1/namespaces/default/configmaps";

    struct Api(KubeApi);

    impl Api {
        fn new() -> Self {
            let door = Door::new(Store::new(Settings::default()), Traffic::default());
            Self(KubeApi::new(Arc::new(door), Shutdown::new()))
        }

        async fn call(&self, verb: &str, path: &str, media_type: &str, body: &str) -> (u16, Value) {
            let request = Request::builder()
                .method(verb)
                .uri(path)
                .header(CONTENT_TYPE, media_type)
                .body(kubeapi::full(body.to_owned()))
                .unwrap();
            let response = self.0.handle(request, Peer::default()).await;
            let code = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (code, serde_json::from_slice(&body).unwrap())
        }

        async fn post(&self, path: &str, object: Value) -> (u16, Value) {
            let body = object.to_string();
            self.call("POST", path, "application/json", &body).await
        }
    }

    fn map(name: &str, label: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {"l": label}}})
    }

    #[tokio::test]
    async fn what_is_written_is_read_by_the_same_protocol() {
        let api = Api::new();
        let (code, made) = api.post(MAPS, map("a", "x")).await;
        assert_eq!(code, 201);
        let (code, read) = api.call("GET", &format!("{MAPS}/a"), "", "").await;
        assert_eq!((code, &read), (200, &made));
        let (code, list) = api.call("GET", MAPS, "", "").await;
        assert_eq!((code, list["items"].as_array().unwrap().len()), (200, 1));
        assert_eq!(
            list["metadata"]["resourceVersion"],
            made["metadata"]["resourceVersion"]
        );
        let put = api
            .call(
                "PUT",
                &format!("{MAPS}/a"),
                "application/yaml",
                "metadata: {name: a}",
            )
            .await;
        assert_eq!(put.0, 200, "YAML is a body too");
    }

    #[tokio::test]
    async fn errors_have_their_codes() {
        let api = Api::new();
        api.post(MAPS, map("a", "x")).await;
        assert_eq!(api.post(MAPS, map("a", "x")).await.0, 409);
        assert_eq!(api.post("/api/v1/configmaps", map("b", "x")).await.0, 405);
        assert_eq!(
            api.post("/api/v1/namespaces/default/jobs", map("b", "x"))
                .await
                .0,
            404
        );
        let a = format!("{MAPS}/a");
        let patch = api.call("PATCH", &a, "text/plain", "{}").await;
        assert_eq!(
            (patch.0, &patch.1["reason"]),
            (415, &json!("UnsupportedMediaType"))
        );
        let body = api
            .call("PUT", &a, "application/vnd.kubernetes.protobuf", "k8s")
            .await;
        assert_eq!(body.0, 400, "it does not begin as it should");
        assert_eq!(api.call("PUT", &a, "application/json", "{").await.0, 400);
        assert_eq!(
            api.call(
                "PATCH",
                &format!("{a}/status"),
                "application/merge-patch+json",
                "{}"
            )
            .await
            .0,
            404
        );
        assert_eq!(
            api.call("DELETE", &format!("{a}?gracePeriodSeconds=x"), "", "")
                .await
                .0,
            400
        );
        let large = format!("{{\"data\":\"{}\"}}", "x".repeat(MAX_BODY));
        assert_eq!(api.call("PUT", &a, "application/json", &large).await.0, 413);
    }

    #[tokio::test]
    async fn a_collection_is_deleted_by_selectors() {
        let api = Api::new();
        for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
            api.post(MAPS, map(name, label)).await;
        }
        let path = format!("{MAPS}?labelSelector=l%3Dx&fieldSelector=metadata.name%21%3Dc");
        let (code, gone) = api.call("DELETE", &path, "", "").await;
        assert_eq!((code, gone["items"].as_array().unwrap().len()), (200, 1));
        assert_eq!(gone["kind"], "ConfigMapList");
        let (_, left) = api.call("GET", MAPS, "", "").await;
        assert_eq!(left["items"].as_array().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn discovery_shows_what_can_be_done() {
        let api = Api::new();
        let (_, apps) = api.call("GET", "/apis/apps/v1", "", "").await;
        let names: Vec<&str> = apps["resources"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|it| it["name"].as_str())
            .collect();
        assert!(names.contains(&"deployments/scale") && names.contains(&"deployments/status"));
        let (_, v1) = api.call("GET", "/api/v1", "", "").await;
        let pods = v1["resources"]
            .as_array()
            .unwrap()
            .iter()
            .find(|it| it["name"] == "pods");
        let verbs = pods.unwrap()["verbs"].as_array().unwrap();
        assert!(verbs.contains(&json!("deletecollection")) && verbs.contains(&json!("watch")));
    }

    #[tokio::test]
    async fn a_pod_is_bound_and_evicted() {
        let api = Api::new();
        let pods = "/api/v1/namespaces/default/pods";
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        api.post(pods, pod).await;
        let binding = json!({"target": {"name": "n"}});
        assert_eq!(
            api.post(&format!("{pods}/p/binding"), binding.clone())
                .await
                .0,
            201
        );
        assert_eq!(api.post(&format!("{pods}/p/binding"), binding).await.0, 409);
        let (_, bound) = api.call("GET", &format!("{pods}/p"), "", "").await;
        assert_eq!(bound["spec"]["nodeName"], "n");
        assert_eq!(
            api.post(&format!("{pods}/p/eviction"), json!({})).await.0,
            201
        );
        assert_eq!(api.call("GET", &format!("{pods}/p"), "", "").await.0, 404);
    }
}
