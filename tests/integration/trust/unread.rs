//! A consumer that reads nothing when its right goes: what was made for it by then never reaches it.

use bytes::{Buf, Bytes, BytesMut};
use http::Request as HttpRequest;
use informerd::proto::{OnRevoke, WatchObjectsResponse};
use prost::Message;

use super::*;

const ROLE: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: unread-reader}
rules: [{apiGroups: [\"\"], resources: [configmaps], verbs: [get, list, watch]}]
";
/// Little enough that an event and the mark behind it are sent in one piece.
const LARGE: usize = 12 << 10;

/// The messages of a stream whose window is made larger only when that is asked for.
struct Unread {
    body: h2::RecvStream,
    read: BytesMut,
    releases: bool,
}

impl Unread {
    /// The next message that has come as a whole; `None` once the stream is over.
    async fn message(&mut self) -> Option<WatchObjectsResponse> {
        loop {
            let length = self.read.get(1..5);
            let length = length.map(|mut length| length.get_u32() as usize);
            if let Some(length) = length.filter(|length| self.read.len() >= length + 5) {
                self.read.advance(5);
                let message = self.read.split_to(length);
                return Some(WatchObjectsResponse::decode(message).unwrap());
            }
            let piece = self.body.data().await?.ok()?;
            self.read.extend_from_slice(&piece);
            if self.releases {
                let capacity = self.body.flow_control();
                capacity.release_capacity(piece.len()).unwrap();
            }
        }
    }

    /// Whether an object of this name comes.
    async fn has(&mut self, name: &str) -> bool {
        let found = async {
            while let Some(message) = self.message().await {
                if message.events.iter().any(|event| event.name == name) {
                    return true;
                }
            }
            false
        };
        timeout(Duration::from_secs(5), found).await == Ok(true)
    }
}

/// The body of the answer to a call of the CacheService, once it has begun.
async fn call(
    send: h2::client::SendRequest<Bytes>,
    method: &str,
    token: &str,
    message: &[u8],
) -> h2::RecvStream {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let uri = format!("http://127.0.0.1/informerd.v1.CacheService/{method}");
    let call = HttpRequest::post(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .body(())
        .unwrap();
    let mut send = send.ready().await.unwrap();
    let (answer, mut body) = send.send_request(call, false).unwrap();
    let asked = [&[0][..], &length, message].concat();
    body.send_data(Bytes::from(asked), true).unwrap();
    answer.await.unwrap().into_body()
}

fn bind(namespace: &str) -> [&str; 7] {
    let account = "--serviceaccount=unread-stays:reader";
    let role = "--clusterrole=unread-reader";
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

#[tokio::test]
async fn what_is_queued_when_a_right_goes_does_not_reach_a_consumer_that_reads_later() {
    let Some(cluster) = cluster::shared().await.filter(|cluster| cluster.is_own()) else {
        return;
    };
    for name in ["unread-stays", "unread-goes"] {
        namespace(cluster, name).await;
    }
    let account = ["create", "serviceaccount", "reader", "-n", "unread-stays"];
    cluster.kubectl_ok(&account).await;
    cluster.apply(ROLE).await;
    cluster.kubectl_ok(&bind("unread-stays")).await;
    cluster.kubectl_ok(&bind("unread-goes")).await;
    cluster.apply(&config_map("unread-goes", "first")).await;
    let daemon = Daemon::start(CONFIG, cluster.kubeconfig()).await;

    let tcp = tokio::net::TcpStream::connect(daemon.server())
        .await
        .unwrap();
    let (send, connection) = h2::client::handshake(tcp).await.unwrap();
    let connection = tokio::spawn(connection);
    let token = token(cluster, "unread-stays", "reader", &[]).await;
    let watch = WatchObjectsRequest {
        scope: Some(scope("configmaps", &["unread-goes", "unread-stays"])),
        on_revoke: OnRevoke::Retract.into(),
        bookmark_interval: Some(prost_types::Duration {
            seconds: 60,
            nanos: 0,
        }),
        ..Default::default()
    };
    let body = call(send, "WatchObjects", &token, &watch.encode_to_vec()).await;
    let mut stream = Unread {
        body,
        read: BytesMut::new(),
        releases: true,
    };
    assert!(stream.has("first").await);

    // Until one of them comes in part, for want of a window: the rest of it is queued.
    stream.releases = false;
    let mut written = 0;
    loop {
        let name = format!("large-{written}");
        let large = config_map("unread-goes", &name).replacen(
            '{',
            &format!("{{data: {{text: {}}}, ", "x".repeat(LARGE)),
            1,
        );
        cluster.apply(&large).await;
        written += 1;
        if !stream.has(&name).await {
            break;
        }
        assert!(written < 20, "it has a window without end");
    }
    let in_part = stream.read.len();
    assert!(in_part > 0, "some of it has come");

    let unbind = ["delete", "rolebinding", "reader", "-n", "unread-goes"];
    cluster.kubectl_ok(&unbind).await;
    let gone = Instant::now();
    let cut = timeout(Duration::from_secs(30), connection).await;
    println!(
        "cut {:?} after the binding went, with {in_part} bytes of a message read",
        gone.elapsed()
    );
    assert!(cut.is_ok(), "it is cut");
    stream.releases = true;
    assert_eq!(stream.message().await, None);
    assert_eq!(stream.read.len(), in_part, "nothing more has come");
    discard(cluster, &["unread-stays", "unread-goes"]).await;
}

#[tokio::test]
async fn an_answer_that_was_not_read_when_its_right_went_does_not_reach_who_reads_later() {
    let Some(cluster) = cluster::shared().await.filter(|cluster| cluster.is_own()) else {
        return;
    };
    namespace_with_reader(cluster, "unread-answer").await;
    cluster.apply(&config_map("unread-answer", "first")).await;
    let daemon = Daemon::start(CONFIG, cluster.kubeconfig()).await;

    let tcp = tokio::net::TcpStream::connect(daemon.server())
        .await
        .unwrap();
    let (send, connection) = h2::client::Builder::new()
        .initial_window_size(0)
        .handshake(tcp)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let token = token(cluster, "unread-answer", "reader", &[]).await;
    let get = GetObjectRequest {
        scope: Some(Scope {
            name: "first".to_owned(),
            ..scope("configmaps", &["unread-answer"])
        }),
        ..Default::default()
    };
    let mut answer = call(send, "GetObject", &token, &get.encode_to_vec()).await;

    let unbind = ["delete", "rolebinding", "reader", "-n", "unread-answer"];
    cluster.kubectl_ok(&unbind).await;
    let gone = Instant::now();
    let cut = timeout(Duration::from_secs(30), connection).await;
    println!("cut {:?} after the binding went", gone.elapsed());
    assert!(cut.is_ok(), "it is cut");
    let read = answer.data().await;
    assert!(!matches!(read, Some(Ok(_))), "{read:?}");
    discard(cluster, &["unread-answer"]).await;
}
