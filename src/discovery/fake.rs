//! An API server for the tests of this module: documents at paths, with ETags, and a log of what was asked.

use std::{
    collections::HashMap,
    convert::Infallible,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, header::IF_NONE_MATCH};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::upstream::{Upstream, UpstreamSettings};

type AnyBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

#[derive(Clone, Default)]
pub(super) struct FakeServer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    documents: HashMap<String, (u16, String)>,
    asked: Vec<String>,
    down: bool,
    crd_watch: Option<UnboundedSender<Result<Frame<Bytes>, Infallible>>>,
}

impl FakeServer {
    /// A server with aggregated discovery, and only these kinds, as (group, version, kind, plural).
    pub(super) fn serving(kinds: &[(&str, &str, &str, &str)]) -> Self {
        let server = Self::default();
        server.serve(kinds);
        server
    }

    pub(super) fn serve(&self, kinds: &[(&str, &str, &str, &str)]) {
        let of = |core: bool| {
            let groups: Vec<Value> = kinds
                .iter()
                .filter(|(group, ..)| group.is_empty() == core)
                .map(|(group, version, kind, plural)| {
                    json!({"metadata": {"name": group}, "versions": [{"version": version, "freshness": "Current",
                        "resources": [resource(kind, plural)]}]})
                })
                .collect();
            json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": groups})
        };
        self.set("/api", 200, of(true));
        self.set("/apis", 200, of(false));
    }

    pub(super) fn set(&self, path: &str, code: u16, body: Value) {
        let mut state = self.0.lock().unwrap();
        state
            .documents
            .insert(path.to_owned(), (code, body.to_string()));
    }

    pub(super) fn set_down(&self, down: bool) {
        self.0.lock().unwrap().down = down;
    }

    /// What was asked since the last call, as `path` or `path (304)`.
    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }

    /// Something for the open watch on CRDs. Waits until there is one.
    pub(super) async fn crd_event(&self) {
        self.crd_told("{}\n".to_owned()).await;
    }

    /// That the CRD of widgets is there, as this edition, with these fields to select by.
    pub(super) async fn crd(&self, uid: &str, generation: i64, fields: &[&str]) {
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.acme.io";
        let fields: Vec<_> = fields
            .iter()
            .map(|path| json!({"jsonPath": path}))
            .collect();
        let metadata = json!({"name": "widgets.acme.io", "uid": uid, "generation": generation});
        let spec = json!({"versions": [{"name": "v1", "selectableFields": fields}]});
        self.set(path, 200, json!({"metadata": metadata, "spec": spec}));
        let event = json!({"type": "MODIFIED", "object": {"metadata": metadata}});
        self.crd_told(format!("{event}\n")).await;
    }

    async fn crd_told(&self, line: String) {
        loop {
            let open = self.0.lock().unwrap().crd_watch.clone();
            if let Some(open) = open {
                open.send(Ok(Frame::data(line.into()))).unwrap();
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn upstream(&self) -> Upstream {
        let server = self.clone();
        let service = tower::service_fn(move |request| {
            let server = server.clone();
            async move { server.answer(&request).ok_or("connection refused") }
        });
        let client = Client::new(service, "default");
        Upstream::fixed(client.clone(), client, UpstreamSettings::default())
    }

    fn answer(&self, request: &Request<Body>) -> Option<Response<AnyBody>> {
        let mut state = self.0.lock().unwrap();
        if state.down {
            return None;
        }
        let path = request.uri().path().to_owned();
        if request
            .uri()
            .query()
            .is_some_and(|query| query.contains("watch=true"))
        {
            let (sender, frames) = unbounded_channel();
            state.crd_watch = Some(sender);
            return Some(Response::new(AnyBody::new(StreamBody::new(
                UnboundedReceiverStream::new(frames),
            ))));
        }
        let (code, body) = state
            .documents
            .get(&path)
            .cloned()
            .unwrap_or((404, "404 page not found\n".to_owned()));
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let etag = format!("\"{:x}\"", hasher.finish());
        let same = request
            .headers()
            .get(IF_NONE_MATCH)
            .is_some_and(|seen| seen == etag.as_str());
        state
            .asked
            .push(if same { format!("{path} (304)") } else { path });
        let response = Response::builder()
            .status(if same { 304 } else { code })
            .header("etag", etag);
        let body = if same { Bytes::new() } else { body.into() };
        Some(response.body(AnyBody::new(Full::new(body))).unwrap())
    }
}

pub(super) fn resource(kind: &str, plural: &str) -> Value {
    json!({"resource": plural, "responseKind": {"group": "", "version": "", "kind": kind}, "scope": "Namespaced",
        "singularResource": kind.to_lowercase(), "verbs": ["get", "list", "watch"]})
}
