//! Kubernetes's protocol: a request line, headers, an empty line, a body; asked of a sandbox.

use std::{future::Future, sync::Arc, time::Duration};

use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::split;
use crate::{
    kubeapi::{KubeApi, Peer, full},
    sandbox::{self, Options, Settings, Store, http::Door, traffic::Traffic},
    shutdown::Shutdown,
};

/// Frames of an answer that are looked at: a watch has no end.
const FRAMES: usize = 8;
/// By a clock that only moves while nobody has anything to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answered in some way that is no fault of the server.
pub(super) fn request(data: &[u8]) {
    let Some(request) = parse(data) else {
        return;
    };
    paused(async {
        let shutdown = Shutdown::new();
        let door = Door::new(store(), Traffic::default());
        let api = KubeApi::new(Arc::new(door), shutdown.clone());
        let response = tokio::time::timeout(PATIENCE, api.handle(request, Peer::default()));
        let response = response.await.expect("it answers");
        let status = response.status();
        let mut body = response.into_body();
        let mut seen = Vec::new();
        for _ in 0..FRAMES {
            let frame = tokio::time::timeout(PATIENCE, body.frame());
            let Ok(Some(Ok(frame))) = frame.await else {
                break;
            };
            seen.extend(frame.into_data().unwrap_or_default());
        }
        let words = String::from_utf8_lossy(&seen);
        // The API server has no better number for these.
        let theirs = [
            "resourceVersion should not be set",
            "resourceVersion: Invalid value: ",
        ];
        let is_theirs = theirs.iter().any(|it| words.contains(it));
        assert!(status.as_u16() != 500 || is_theirs, "{words}");
        drop(body);
        shutdown.cut();
    });
}

fn parse(data: &[u8]) -> Option<Request<crate::kubeapi::Body>> {
    let (line, mut rest) = split(data);
    let line = str::from_utf8(line).ok()?;
    let (method, uri) = line.split_once(' ')?;
    let mut request = Request::builder()
        .method(method.parse::<Method>().ok()?)
        .uri(uri);
    loop {
        let (line, after) = split(rest);
        rest = after;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        request = request.header(&line[..colon], line[colon + 1..].trim_ascii());
    }
    request.body(full(rest.to_vec())).ok()
}

/// With a few objects of several kinds.
pub(super) fn store() -> Store {
    let store = Store::new(Settings {
        seed: 7,
        kubelet: false,
    });
    let create = |resource: &str, namespace: &str, object: Value| {
        let made: Result<Value, sandbox::Refusal> =
            store.create(resource, namespace, object, &Options::default());
        made.expect("a good object");
    };
    for n in 0..3 {
        let labels = json!({"app": if n == 0 { "db" } else { "web" }, "n": n.to_string()});
        let pod = json!({
            "metadata": {"name": format!("web-{n}"), "labels": labels},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i:1"}]},
        });
        create("pods", "default", pod);
    }
    create(
        "configmaps",
        "kube-system",
        json!({"metadata": {"name": "a"}, "data": {"k": "v"}}),
    );
    create("nodes", "", json!({"metadata": {"name": "n1"}}));
    store.advance();
    store
}

/// On a clock of its own.
pub(super) fn paused(what: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(what);
}
