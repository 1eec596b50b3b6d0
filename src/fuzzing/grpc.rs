//! The gRPC services: a byte that says which method, one that says how the message is framed, and the message.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use tonic::body::Body;
use tower::ServiceExt;

use super::kubernetes::{paused, store};
use crate::{
    api::{Access, Api, Settings, cache::CacheService, introspection, readiness},
    cache::{Catalog, Limits},
    readiness::Board,
    shutdown::Shutdown,
};

const METHODS: [&str; 9] = [
    "CacheService/GetObject",
    "CacheService/ListObjects",
    "CacheService/WatchObjects",
    "ReadinessService/GetReadiness",
    "ReadinessService/ListReadiness",
    "ReadinessService/WatchReadiness",
    "ReadinessService/WaitReadiness",
    "IntrospectionService/ListKinds",
    "IntrospectionService/ListConsumers",
];

/// Frames of an answer that are looked at: a watch has no end.
const FRAMES: usize = 8;
/// By a clock that only moves while nobody has anything to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answered in some way that is no fault of the server.
pub(super) fn call(data: &[u8]) {
    let [method, framing, message @ ..] = data else {
        return;
    };
    let method = METHODS[usize::from(*method) % METHODS.len()];
    let body = framed(*framing, message);
    paused(async {
        let shutdown = Shutdown::new();
        let store = store();
        let kinds = store.served().iter().map(|one| one.kind.clone()).collect();
        let catalog = Catalog::new(kinds);
        let board = Board::new(["pods", "nodes"], Limits::default());
        for judged in board.kinds() {
            judged.expect([]);
        }
        let api = api(catalog, board, shutdown.clone());
        let (headers, trailers) = answer(api, method, body).await;
        for status in [&headers, &trailers] {
            hold(method, status);
        }
        shutdown.cut();
    });
}

fn api(catalog: Catalog, board: Board, shutdown: Shutdown) -> Api {
    Api::with_board(
        catalog,
        board,
        None,
        None,
        Settings::default(),
        Access::Open,
        shutdown,
    )
}

/// Its headers, and its trailers if it ends soon.
async fn answer(api: Api, method: &str, body: Bytes) -> (HeaderMap, HeaderMap) {
    let request = Request::post(format!("/informerd.v1.{method}"))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .body(Body::new(Full::new(body)))
        .expect("a good request");
    let response = async {
        match method.split('/').next() {
            Some("CacheService") => CacheService::new(api).oneshot(request).await,
            Some("ReadinessService") => readiness::service(api).oneshot(request).await,
            _ => introspection::service(api).oneshot(request).await,
        }
    };
    let response = tokio::time::timeout(PATIENCE, response);
    let response = response.await.expect("it answers");
    let (head, mut body) = response.unwrap_or_else(|never| match never {}).into_parts();
    let mut trailers = HeaderMap::new();
    for _ in 0..FRAMES {
        let frame = tokio::time::timeout(PATIENCE, body.frame());
        match frame.await {
            Ok(Some(Ok(frame))) => {
                if let Ok(last) = frame.into_trailers() {
                    trailers = last;
                }
            }
            _ => break,
        }
    }
    (head.headers, trailers)
}

/// Behind the five bytes that gRPC has in front of each message, unless the first bit says otherwise.
fn framed(framing: u8, message: &[u8]) -> Bytes {
    if framing & 1 == 1 {
        return Bytes::copy_from_slice(message);
    }
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(message.len() as u32);
    body.put_slice(message);
    body.freeze()
}

/// tonic answers INTERNAL to what is no message of the method; we do to nothing.
fn hold(method: &str, status: &HeaderMap) {
    let text = |name: &str| {
        let value = status.get(name).map(HeaderValue::as_bytes);
        String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
    };
    let (code, message) = (text("grpc-status"), text("grpc-message"));
    let is_tonics = [
        "decode",
        "compress",
        "Missing%20request%20message",
        "Unexpected%20EOF",
    ]
    .iter()
    .any(|word| message.contains(word));
    // UNKNOWN, INTERNAL, DATA_LOSS.
    let is_ours = ["2", "13", "15"].contains(&code.as_str());
    assert!(!is_ours || is_tonics, "{method}: {code} {message}");
}
