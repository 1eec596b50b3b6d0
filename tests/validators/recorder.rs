//! Records a stream while it runs: the generated client, one connection a call, and cuts at any message.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use informerd::proto::{
    Scope, View, WatchObjectsRequest, WatchObjectsResponse,
    cache_service_client::CacheServiceClient,
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use super::recording::{Entry, Recording, What};

/// Where calls are cut, they have about half as many messages; more if that brought no token.
const MESSAGES_A_CALL: usize = 40;
/// What may be on its way to it.
const WINDOW: u32 = 64 << 10;
/// Of entries: a stream that is told more is told the same for ever.
const MOST: usize = 500_000;
/// Between calls.
const PAUSE: Duration = Duration::from_millis(50);

/// All of a kind, with small batches, so that there are many places to cut at, and a bookmark every second.
pub fn watch_request(resource: &str) -> WatchObjectsRequest {
    WatchObjectsRequest {
        scope: Some(Scope {
            resource: resource.into(),
            ..Scope::default()
        }),
        view: View::Full.into(),
        bookmark_interval: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        max_batch_bytes: 1024,
        digests: true,
        ..WatchObjectsRequest::default()
    }
}

/// How a consumer gets to its server.
pub trait Dial: Send + Sync + 'static {
    /// A new connection, on which so many bytes may be on their way.
    fn dial(&self, window: u32) -> BoxFuture<'static, Result<Channel, Status>>;
}

impl Dial for SocketAddr {
    fn dial(&self, window: u32) -> BoxFuture<'static, Result<Channel, Status>> {
        let endpoint = Endpoint::from_shared(format!("http://{self}"));
        Box::pin(async move {
            let endpoint = endpoint.map_err(|error| Status::invalid_argument(error.to_string()))?;
            let endpoint = endpoint
                .initial_stream_window_size(window)
                .initial_connection_window_size(window);
            let channel = endpoint.connect().await;
            channel.map_err(|error| Status::unavailable(error.to_string()))
        })
    }
}

/// A consumer that only records. It resumes by itself until the server refuses for good, and ends when dropped.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    recording: Mutex<Recording>,
    changed: Notify,
    /// Whether it takes nothing from its connection.
    asleep: watch::Sender<bool>,
}

impl Recorder {
    /// Begins to watch. With a seed it cuts its own calls, every 20 messages or so, wherever that is.
    pub fn start(server: impl Dial, request: WatchObjectsRequest, cuts: Option<u64>) -> Self {
        let recording = Recording {
            request,
            entries: Vec::new(),
        };
        let shared = Arc::new(Shared {
            recording: Mutex::new(recording),
            changed: Notify::new(),
            asleep: watch::Sender::new(false),
        });
        let rng = cuts.map(fastrand::Rng::with_seed);
        let task = tokio::spawn(run(server, rng, Arc::clone(&shared)));
        Self { shared, task }
    }

    /// While asleep it reads nothing, and its connection has little room.
    pub fn sleep(&self, asleep: bool) {
        self.shared.asleep.send_replace(asleep);
    }

    /// What was recorded so far.
    pub fn recording(&self) -> Recording {
        self.shared.lock().clone()
    }

    /// How many entries that is.
    pub fn len(&self) -> usize {
        self.shared.lock().entries.len()
    }

    /// Waits until the recording fits. Panics where that takes longer than `within`.
    pub async fn wait(
        &self,
        what: &str,
        within: Duration,
        condition: impl Fn(&Recording) -> bool,
    ) -> Recording {
        let fits = async {
            loop {
                let changed = self.shared.changed.notified();
                {
                    let recording = self.shared.lock();
                    if condition(&recording) {
                        return recording.clone();
                    }
                }
                changed.await;
            }
        };
        match timeout(within, fits).await {
            Ok(recording) => recording,
            Err(_) => {
                let recording = self.recording();
                let tail: Vec<_> = recording.entries.iter().rev().take(8).collect();
                panic!(
                    "after {within:?} a stream still does not show: {what}; its end, newest first: {tail:#?}"
                )
            }
        }
    }

    /// Waits until a token at or past `revision`.
    pub async fn reach(&self, revision: u64) -> Recording {
        let within = Duration::from_secs(90);
        self.wait(&format!("revision {revision}"), within, |recording| {
            recording.reached() >= revision
        })
        .await
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Recording> {
        self.recording
            .lock()
            .expect("nobody panics while holding the recording")
    }

    fn push(&self, what: impl IntoIterator<Item = What>) {
        let at = Instant::now();
        let mut recording = self.lock();
        recording
            .entries
            .extend(what.into_iter().map(|what| Entry { at, what }));
        let all = recording.entries.len();
        drop(recording);
        assert!(all < MOST, "a stream without an end");
        self.changed.notify_waiters();
    }
}

async fn run(server: impl Dial, mut rng: Option<fastrand::Rng>, shared: Arc<Shared>) {
    let mut request = shared.lock().request.clone();
    let mut most = MESSAGES_A_CALL;
    loop {
        let before = request.token.clone();
        shared.push([What::Opened(before.clone())]);
        let length = rng.as_mut().map(|rng| rng.usize(1..=most));
        let called = call(&server, &mut request, length, &shared).await;
        // What belongs together is sent from its start again: it must fit into some call.
        most = if request.token == before {
            most.saturating_mul(2)
        } else {
            MESSAGES_A_CALL
        };
        let (why, again) = match called {
            Ok(()) => ("cut".to_owned(), true),
            Err(status) => {
                let reason = status.get_details_error_info();
                let reason = reason.map_or_else(String::new, |info| info.reason);
                let again = !matches!(
                    status.code(),
                    Code::InvalidArgument | Code::NotFound | Code::OutOfRange | Code::Unimplemented
                );
                let why = format!("{:?} {reason}: {}", status.code(), status.message());
                (why, again)
            }
        };
        shared.push([What::Closed(why)]);
        if !again {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Until it is cut, which is fine, or ends. `length` is of messages.
async fn call(
    server: &impl Dial,
    request: &mut WatchObjectsRequest,
    length: Option<usize>,
    shared: &Shared,
) -> Result<(), Status> {
    let channel = server.dial(WINDOW).await?;
    let mut client = CacheServiceClient::new(channel).max_decoding_message_size(64 << 20);
    let mut messages = client.watch_objects(request.clone()).await?.into_inner();
    let mut received = 0;
    while length != Some(received) {
        received += 1;
        let mut asleep = shared.asleep.subscribe();
        // It fails where nobody can wake us, which is no reason to sleep.
        let _ = asleep.wait_for(|asleep| !asleep).await;
        let message = messages.message().await?;
        let message =
            message.ok_or_else(|| Status::unknown("the stream ended without a status"))?;
        let WatchObjectsResponse { events, mark } = message;
        // Before it can be cut, as a consumer would that keeps it with its data.
        if let Some(token) = mark
            .as_ref()
            .map(|mark| &mark.token)
            .filter(|it| !it.is_empty())
        {
            request.token = Bytes::clone(token);
        }
        shared.push(
            events
                .into_iter()
                .map(What::Event)
                .chain(mark.map(What::Mark)),
        );
    }
    Ok(())
}
