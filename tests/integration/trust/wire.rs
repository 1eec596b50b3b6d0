//! What reaches the socket of a consumer that has lost a right, byte by byte: decoded messages would not show what a
//! buffer still gave away.
//!
//! Objects of the namespace that is lost have a mark in their data, and a proxy keeps all that comes from the daemon.

use std::time::Duration;

use bytes::{Buf, Bytes};
use informerd::proto::{DeleteCause, OnRevoke, WatchObjectsResponse};
use memchr::memmem;
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
    time::sleep,
};

use crate::{cluster::Proxy, support::within};

use super::*;

/// In the data of each object of the namespace that is lost.
const MARK: &[u8] = b"not-for-you-any-more";
/// In that of each which is written when nothing of it may be seen any more.
const LATE: &[u8] = b"written-when-all-was-over";
/// By when nothing comes any more.
const PROMISE: Duration = Duration::from_secs(30);
/// Of flow control, so that little is on its way to a consumer that does not read.
const WINDOW: u32 = 65_535;
/// Objects of 800 KiB, more than fit between the two ends.
const WRITTEN: usize = 24;

fn has(bytes: &[u8], text: &[u8]) -> bool {
    memmem::find(bytes, text).is_some()
}

/// The payload of the one stream of a connection, out of the frames of HTTP/2.
fn payload(mut bytes: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    while bytes.len() >= 9 {
        let length =
            usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        let (kind, flags) = (bytes[3], bytes[4]);
        bytes.advance(9);
        let frame = &bytes[..length.min(bytes.len())];
        if kind == 0 {
            assert_eq!(flags & 8, 0, "nothing is padded");
            payload.extend_from_slice(frame);
        }
        bytes.advance(frame.len());
    }
    payload
}

/// Where in a payload the first message begins that takes back, or ends the stream; and whether there is one at all.
fn over(payload: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(prefix) = payload.get(at..at + 5) {
        assert_eq!(prefix[0], 0, "nothing is compressed");
        let length = u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize;
        let message = payload.get(at + 5..at + 5 + length)?;
        let message = WatchObjectsResponse::decode(message).unwrap();
        let mut events = message.events.iter();
        let takes = events.any(|event| event.cause() == DeleteCause::Revoked);
        if takes || message.mark.is_some_and(|mark| mark.reason == "REVOKED") {
            return Some(at);
        }
        at += 5 + length;
    }
    None
}

/// Two namespaces of their own that one account may read, and a daemon.
struct Stage {
    cluster: &'static Cluster,
    name: &'static str,
    daemon: Daemon,
    token: String,
    client: kube::Client,
}

impl Stage {
    async fn set(name: &'static str) -> Option<Self> {
        let cluster = cluster::shared().await.filter(|cluster| cluster.is_own())?;
        let stage = Self {
            cluster,
            name,
            daemon: Daemon::start(CONFIG, cluster.kubeconfig()).await,
            token: String::new(),
            client: cluster.client().await,
        };
        for namespace in [stage.kept(), stage.lost()] {
            self::namespace(cluster, &namespace).await;
        }
        let kept = stage.kept();
        let account = ["create", "serviceaccount", "reader", "-n", &kept];
        cluster.kubectl_ok(&account).await;
        for namespace in [stage.kept(), stage.lost()] {
            let account = format!("--serviceaccount={kept}:reader");
            let role = [READS, "--resource=configmaps", "-n", &namespace];
            let role = [&["create", "role", "reader"], &role[..]].concat();
            cluster.kubectl_ok(&role).await;
            let bind = ["create", "rolebinding", "reader", "--role=reader", &account];
            cluster
                .kubectl_ok(&[&bind[..], &["-n", &namespace]].concat())
                .await;
        }
        let token = token(cluster, &kept, "reader", &[]).await;
        Some(Self { token, ..stage })
    }

    fn kept(&self) -> String {
        format!("{}-stays", self.name)
    }

    fn lost(&self) -> String {
        format!("{}-lost", self.name)
    }

    /// Takes the right to one of them away.
    async fn revoke(&self) -> Instant {
        let lost = self.lost();
        let unbind = ["delete", "rolebinding", "reader", "-n", &lost];
        self.cluster.kubectl_ok(&unbind).await;
        Instant::now()
    }

    /// An object of so many bytes in each of both; that of the one with a mark all over.
    async fn write(&self, name: &str, size: usize, mark: &[u8]) {
        let marked = [MARK, b" ", mark, b" "].concat();
        let marked = String::from_utf8(marked).unwrap();
        for (namespace, text) in [(self.lost(), marked), (self.kept(), "kept ".to_owned())] {
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": namespace},
                "data": {"text": text.repeat(size / text.len() + 1)},
            });
            let path = format!("/api/v1/namespaces/{namespace}/configmaps");
            let request = HttpRequest::post(path).header("content-type", "application/json");
            let request = request.body(object.to_string().into_bytes()).unwrap();
            self.client.request::<Value>(request).await.unwrap();
        }
    }

    /// Writes on until a condition holds, and tells how often.
    async fn write_until(&self, mut done: impl FnMut() -> bool) -> usize {
        let deadline = Instant::now() + PROMISE + Duration::from_secs(5);
        let mut written = 0;
        while !done() {
            assert!(Instant::now() < deadline, "it does not end");
            self.write(&format!("meanwhile-{written}"), 2 << 10, b"")
                .await;
            written += 1;
            sleep(Duration::from_millis(100)).await;
        }
        written
    }

    /// What is written now is for nobody who has lost it.
    async fn write_late(&self) {
        for at in 0..5 {
            self.write(&format!("late-{at}"), 20 << 10, LATE).await;
        }
    }

    /// A connection through a proxy that keeps what comes.
    async fn proxy(&self, port: u16) -> Proxy {
        let proxy = Proxy::start(([127, 0, 0, 1], port).into()).await.unwrap();
        proxy.record();
        proxy
    }

    async fn watch(&self, proxy: &Proxy, on_revoke: OnRevoke) -> Streaming<WatchObjectsResponse> {
        let endpoint = Channel::from_shared(format!("http://{}", proxy.address())).unwrap();
        let endpoint = endpoint.initial_stream_window_size(WINDOW);
        let endpoint = endpoint.initial_connection_window_size(WINDOW);
        let channel = endpoint.connect().await.unwrap();
        let both = [self.lost(), self.kept()];
        let namespaces = match on_revoke {
            OnRevoke::Retract => both.to_vec(),
            _ => both[..1].to_vec(),
        };
        let mut request = Request::new(WatchObjectsRequest {
            scope: Some(Scope {
                namespaces,
                ..scope("configmaps", &[])
            }),
            on_revoke: on_revoke.into(),
            ..Default::default()
        });
        let bearer = format!("Bearer {}", self.token).parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let mut client = CacheServiceClient::new(channel).max_decoding_message_size(64 << 20);
        client.watch_objects(request).await.unwrap().into_inner()
    }

    async fn discard(self) {
        discard(self.cluster, &[&self.kept(), &self.lost()]).await;
    }
}

/// Reads to the end, at a pace.
fn read(
    mut stream: Streaming<WatchObjectsResponse>,
    pause: Duration,
) -> JoinHandle<Result<(), Status>> {
    tokio::spawn(async move {
        while stream.message().await?.is_some() {
            sleep(pause).await;
        }
        Ok(())
    })
}

/// Holds what came over the wire against the promise, as far as the stream got to take back or end by itself: nothing
/// of the namespace behind that, and before it something, or else this would not look at the right bytes.
fn check(raw: &[u8]) -> Option<usize> {
    let payload = payload(raw);
    let over = over(&payload);
    let (before, after) = payload.split_at(over.unwrap_or(payload.len()));
    assert!(has(before, MARK), "it came for as long as it might");
    assert!(!has(after, MARK), "it came behind the retraction");
    // In whatever frame, also of another stream.
    assert!(!has(raw, LATE) && !has(&payload, LATE), "it came late");
    over
}

#[tokio::test]
async fn no_byte_comes_behind_a_retraction() {
    let Some(stage) = Stage::set("wire-retracted").await else {
        return;
    };
    let proxy = stage.proxy(stage.daemon.ports().grpc).await;
    stage.write("before", 20 << 10, b"").await;
    let stream = stage.watch(&proxy, OnRevoke::Retract).await;
    let reading = read(stream, Duration::ZERO);
    eventually("it comes", async || has(&payload(&proxy.recorded()), MARK)).await;
    let revoked = stage.revoke().await;
    let is_over = || over(&payload(&proxy.recorded())).is_some();
    let written = stage.write_until(is_over).await;
    println!(
        "taken back after {:?} and {written} writes",
        revoked.elapsed()
    );
    assert!(revoked.elapsed() < PROMISE);
    stage.write_late().await;
    // The other namespace goes on behind all of it.
    eventually("the last one of the other is there", async || {
        let payload = payload(&proxy.recorded());
        has(&payload[over(&payload).unwrap()..], b"late-4")
    })
    .await;
    assert!(check(&proxy.recorded()).is_some());
    assert!(!reading.is_finished());
    reading.abort();
    stage.discard().await;
}

#[tokio::test]
async fn no_byte_comes_behind_the_end_of_a_stream_that_may_not_go_on() {
    let Some(stage) = Stage::set("wire-ended").await else {
        return;
    };
    let proxy = stage.proxy(stage.daemon.ports().grpc).await;
    stage.write("before", 20 << 10, b"").await;
    let stream = stage.watch(&proxy, OnRevoke::End).await;
    let reading = read(stream, Duration::ZERO);
    eventually("it comes", async || has(&payload(&proxy.recorded()), MARK)).await;
    let revoked = stage.revoke().await;
    let written = stage.write_until(|| reading.is_finished()).await;
    println!("ended after {:?} and {written} writes", revoked.elapsed());
    assert!(revoked.elapsed() < PROMISE);
    let status = reading.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    stage.write_late().await;
    seen_by_others(&stage).await;
    assert!(check(&proxy.recorded()).is_some());
    stage.discard().await;
}

/// Until the daemon has given the last object to somebody who may have it.
async fn seen_by_others(stage: &Stage) {
    let kept = stage.kept();
    let caller = Caller::new(&stage.daemon, &stage.token).await;
    let cell = Cell {
        method: "GetObject",
        scope: Scope {
            name: "late-4".into(),
            ..scope("configmaps", &[&kept])
        },
        view: View::Full,
    };
    eventually("others have it", async || {
        cell.call(&caller).await == Code::Ok
    })
    .await;
}

#[tokio::test]
async fn no_byte_comes_to_a_consumer_that_did_not_read_when_it_lost_the_right() {
    let Some(stage) = Stage::set("wire-unread").await else {
        return;
    };
    let port = stage.daemon.ports().grpc;
    let proxies = [stage.proxy(port).await, stage.proxy(port).await];
    // Much more than the windows let through.
    for at in 0..40 {
        stage.write(&format!("before-{at}"), 20 << 10, b"").await;
    }
    let streams = [
        stage.watch(&proxies[0], OnRevoke::Retract).await,
        stage.watch(&proxies[1], OnRevoke::End).await,
    ];
    for proxy in &proxies {
        eventually("the windows are full", async || {
            payload(&proxy.recorded()).len() == WINDOW as usize
        })
        .await;
    }
    let revoked = stage.revoke().await;
    within(PROMISE, "both connections are cut", async || {
        proxies.iter().all(|proxy| proxy.open() == 0)
    })
    .await;
    println!("cut after {:?}", revoked.elapsed());
    let until = proxies.each_ref().map(Proxy::recorded);
    stage.write_late().await;
    for stream in streams {
        // Whatever is in its own buffers, and then the end.
        assert!(read(stream, Duration::ZERO).await.unwrap().is_err());
    }
    seen_by_others(&stage).await;
    for (proxy, until) in proxies.iter().zip(until) {
        let raw = proxy.recorded();
        assert!(has(&raw, MARK) && !has(&raw, LATE));
        assert_eq!(raw.len(), until.len(), "nothing comes when it reads again");
        assert_eq!(payload(&raw).len(), WINDOW as usize, "nor did it before");
    }
    stage.discard().await;
}

#[tokio::test]
async fn no_byte_comes_behind_a_retraction_to_a_consumer_that_reads_slowly() {
    let Some(stage) = Stage::set("wire-slow").await else {
        return;
    };
    let proxy = stage.proxy(stage.daemon.ports().grpc).await;
    for at in 0..40 {
        stage.write(&format!("before-{at}"), 20 << 10, b"").await;
    }
    let stream = stage.watch(&proxy, OnRevoke::Retract).await;
    let reading = read(stream, Duration::from_millis(700));
    eventually("it comes", async || has(&payload(&proxy.recorded()), MARK)).await;
    let revoked = stage.revoke().await;
    let is_over = || proxy.open() == 0 || over(&payload(&proxy.recorded())).is_some();
    let written = stage.write_until(is_over).await;
    println!("over after {:?} and {written} writes", revoked.elapsed());
    assert!(revoked.elapsed() < PROMISE);
    stage.write_late().await;
    seen_by_others(&stage).await;
    let over = check(&proxy.recorded());
    println!("it was cut: {}", over.is_none());
    assert!(over.is_some() || proxy.open() == 0);
    reading.abort();
    stage.discard().await;
}

/// Asks for a watch of the namespace that is lost, in Kubernetes's protocol.
async fn kube_watch(stage: &Stage, stream: &mut TcpStream) {
    let request = format!(
        "GET /api/v1/namespaces/{}/configmaps?watch=1 HTTP/1.1\r\nhost: 127.0.0.1\r\n\
         accept: application/json\r\nauthorization: Bearer {}\r\n\r\n",
        stage.lost(),
        stage.token
    );
    stream.write_all(request.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn no_byte_comes_behind_the_error_that_ends_a_watch_on_the_kubernetes_port() {
    let Some(stage) = Stage::set("wire-kube").await else {
        return;
    };
    let proxy = stage.proxy(stage.daemon.ports().kube).await;
    stage.write("before", 20 << 10, b"").await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    kube_watch(&stage, &mut stream).await;
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        Bytes::from(all)
    });
    eventually("it comes", async || has(&proxy.recorded(), MARK)).await;
    let revoked = stage.revoke().await;
    let error = br#""type":"ERROR""#;
    let is_over = || has(&proxy.recorded(), error) || proxy.open() == 0;
    let written = stage.write_until(is_over).await;
    println!("ended after {:?} and {written} writes", revoked.elapsed());
    assert!(revoked.elapsed() < PROMISE);
    stage.write_late().await;
    seen_by_others(&stage).await;
    let raw = proxy.recorded();
    let at = memmem::find(&raw, error).expect("it says why");
    assert!(has(&raw[..at], MARK) && !has(&raw[at..], MARK));
    assert!(has(&raw[at..], b"Forbidden") && !has(&raw, LATE));
    reading.abort();
    stage.discard().await;
}

#[tokio::test]
async fn no_byte_comes_to_a_watch_on_the_kubernetes_port_that_was_not_read() {
    let Some(stage) = Stage::set("wire-kube-unread").await else {
        return;
    };
    // Without a proxy, which would read: the kernel holds what was sent, and that is little.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(WINDOW).unwrap();
    let port = stage.daemon.ports().kube;
    let mut stream = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
    for at in 0..WRITTEN {
        stage.write(&format!("before-{at}"), 800 << 10, b"").await;
    }
    kube_watch(&stage, &mut stream).await;
    stream.readable().await.unwrap();
    let revoked = stage.revoke().await;
    within(PROMISE, "the daemon has ended it", async || {
        let open = r#"informerd_kube_watches{resource="configmaps"}"#;
        stage.daemon.metric(open).await == Some(0.0)
    })
    .await;
    println!("ended after {:?}", revoked.elapsed());
    stage.write_late().await;
    seen_by_others(&stage).await;
    let mut all = Vec::new();
    // By a reset or in order.
    let ended = timeout(PROMISE, stream.read_to_end(&mut all)).await;
    assert!(ended.is_ok(), "the connection is closed");
    assert!(has(&all, MARK) && !has(&all, LATE));
    let sent = memmem::find_iter(&all, br#""type":"ADDED""#).count();
    println!("{sent} of {WRITTEN} objects had been sent");
    assert!(sent < WRITTEN, "what had not been sent was dropped");
    stage.discard().await;
}
