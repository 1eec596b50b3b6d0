//! The gRPC services: reads and watches of the cache, and what the daemon tells of itself.
//!
//! `watch` is the heart: a stream that pulls from cursors and sends bytes that were encoded once for all. The
//! rest is ordinary request and answer. Only this module and the client know tonic.

use std::{
    convert::Infallible,
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::{
    body::Body,
    server::NamedService,
    transport::{Server, server::Connected},
};

use crate::{
    auth::{Peer, clip},
    cache::{Catalog, Limits},
    patience::Patient,
    proof::{Prover, ReadThrough},
    readiness::Board,
    shutdown::{Shutdown, Stage},
    tls::Acceptor,
};

pub mod access;
mod ask;
pub mod cache;
pub mod consumers;
mod encode;
mod flush;
mod freshness;
mod gather;
mod grants;
pub mod introspection;
mod listen;
mod merge;
mod messages;
pub mod query;
pub mod readiness;
mod sign_in;
pub mod status;
#[cfg(test)]
mod tests;
pub mod token;
mod told;
mod wait;
mod watch;

pub use access::Access;
pub use consumers::{Caller, Consumers};
pub use status::Error;

/// Streams that one connection may have open at once.
const MAX_STREAMS: u32 = 4096;
/// Largest request that is read.
const MAX_REQUEST: usize = 256 << 10;
/// Largest header list that is read.
const MAX_HEADERS: u32 = 16 << 10;
/// Largest frame that is read; requests are small.
const MAX_FRAME: u32 = 16 << 10;
/// Streams that a peer may have reset before anybody looked at them; and those that were reset for its errors.
/// Whoever does more of that is cut off.
const MAX_RESETS: usize = 64;
const MAX_ERROR_RESETS: usize = 256;
/// Until a call has sent its request and is answered; a stream may go on after that. Longer than any call waits, so
/// that only one whose request does not come to its end is given up.
const ANSWER: Duration = Duration::from_secs(60);
/// Most of requests that is read ahead of who takes them, of one stream and of a whole connection.
const AHEAD: u32 = 64 << 10;
const AHEAD_OF_ALL: u32 = 256 << 10;
/// How often an idle connection is probed.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What the services need. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api(Arc<Inner>);

struct Inner {
    catalog: Catalog,
    board: Board,
    live: Option<Arc<dyn readiness::Live>>,
    prover: Option<Arc<Prover>>,
    through: Option<Arc<ReadThrough>>,
    settings: Settings,
    consumers: Arc<Consumers>,
    projections: Arc<encode::Projections>,
    flushes: flush::Flushes,
    /// Tells this process's tokens from others'.
    incarnation: u64,
    shutdown: Shutdown,
    access: Access,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// How the services behave.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How often an idle stream gets a bookmark, where it does not say.
    pub bookmark_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bookmark_interval: Duration::from_secs(10),
        }
    }
}

impl Api {
    /// Serves these kinds until the shutdown begins to drain; then streams end with a last token.
    pub fn new(catalog: Catalog, settings: Settings, shutdown: Shutdown) -> Self {
        let none: [&str; 0] = [];
        let board = Board::new(none, Limits::default());
        Self::with_board(catalog, board, None, None, settings, Access::Open, shutdown)
    }

    /// The same with verdicts. `live` and `prover` ask the API server itself; `access` says who may call.
    pub fn with_board(
        catalog: Catalog,
        board: Board,
        live: Option<Arc<dyn readiness::Live>>,
        prover: Option<Arc<Prover>>,
        settings: Settings,
        access: Access,
        shutdown: Shutdown,
    ) -> Self {
        Self(Arc::new(Inner {
            catalog,
            board,
            live,
            prover,
            through: None,
            settings,
            consumers: Arc::default(),
            projections: Arc::default(),
            flushes: flush::Flushes::default(),
            incarnation: fastrand::u64(1..),
            shutdown,
            access,
        }))
    }

    /// The same, for whose callers whole objects are read where only metadata is cached. Before it is shared.
    #[must_use]
    pub fn reading_through(mut self, through: Arc<ReadThrough>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.through = Some(through);
        }
        self
    }

    /// Who is reading.
    pub fn consumers(&self) -> &Arc<Consumers> {
        &self.0.consumers
    }

    /// The kinds that are served.
    pub fn catalog(&self) -> &Catalog {
        &self.0.catalog
    }

    fn is_draining(&self) -> bool {
        self.0.shutdown.stage() != Stage::Running
    }

    /// Accepts connections until the shutdown begins to drain, then waits for the open ones to end; the caller
    /// bounds that.
    pub async fn serve(
        self,
        listener: tokio::net::TcpListener,
        tls: Option<Acceptor>,
        health: impl Health,
    ) -> Result<(), ServeError> {
        let incoming = listen::incoming(listener, tls);
        self.serve_all(incoming, health).await
    }

    /// The same of connections that are accepted elsewhere.
    async fn serve_all<Io>(
        self,
        incoming: impl Stream<Item = io::Result<Io>>,
        health: impl Health,
    ) -> Result<(), ServeError>
    where
        Io: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let shutdown = self.0.shutdown.clone();
        let incoming =
            incoming.map(move |stream| stream.map(|stream| Patient::new(stream).until(&shutdown)));
        let door = sign_in::SignIn(self.0.access.clone());
        let draining = self.0.shutdown.draining_owned();
        Server::builder()
            .trace_fn(|request| tracing::info_span!("rpc", method = clip(request.uri().path())))
            .layer(door)
            .timeout(ANSWER)
            .max_concurrent_streams(MAX_STREAMS)
            .max_frame_size(MAX_FRAME)
            .initial_stream_window_size(AHEAD)
            .initial_connection_window_size(AHEAD_OF_ALL)
            .http2_max_pending_accept_reset_streams(Some(MAX_RESETS))
            .http2_max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
            .http2_max_header_list_size(MAX_HEADERS)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .add_service(health)
            .add_service(
                reflection()
                    .build_v1()?
                    .max_decoding_message_size(MAX_REQUEST),
            )
            .add_service(
                reflection()
                    .build_v1alpha()?
                    .max_decoding_message_size(MAX_REQUEST),
            )
            .add_service(cache::CacheService::new(self.clone()))
            .add_service(readiness::service(self.clone()))
            .add_service(introspection::service(self))
            .serve_with_incoming_shutdown(incoming, draining)
            .await?;
        Ok(())
    }
}

/// What there is to call, for those who have no files of ours.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(crate::proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // The details of an error.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

/// The service of health, which is not ours.
pub trait Health:
    NamedService
    + Clone
    + Send
    + Sync
    + 'static
    + tower::Service<
        http::Request<Body>,
        Response = http::Response<Body>,
        Error = Infallible,
        Future: Send + 'static,
    >
{
}

impl<S> Health for S where
    S: NamedService
        + Clone
        + Send
        + Sync
        + 'static
        + tower::Service<
            http::Request<Body>,
            Response = http::Response<Body>,
            Error = Infallible,
            Future: Send + 'static,
        >
{
}

/// Why the services cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The compiled descriptors are damaged.
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The listener failed.
    #[error("gRPC: {}", chain(.0))]
    Transport(#[from] tonic::transport::Error),
}

/// tonic's own words are "transport error"; the cause says what happened.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Says what this module's metrics mean.
pub fn describe_metrics() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!("grpc_server_started_total", "Calls begun, by method.");
    describe_counter!(
        "grpc_server_handled_total",
        "Calls answered, by method and status; of a stream, its opening."
    );
    describe_histogram!(
        "grpc_server_opening_seconds",
        Unit::Seconds,
        "Time from a call to the headers of its answer, by method."
    );
    describe_gauge!("informerd_consumers", "Open streams, by method.");
    describe_counter!(
        "informerd_consumer_resets_total",
        "Whole states that watches were sent, by reason; INITIAL is their beginning."
    );
    describe_counter!(
        "informerd_consumer_expiries_total",
        "States that were taken away from consumers that made no progress."
    );
}

/// The clock of freshness and patience; tokio's, so that tests can pause it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Who calls, from what the transport and the metadata say.
fn caller(extensions: &http::Extensions, user_agent: Option<&str>) -> Caller {
    let asking = access::Asking::of(extensions);
    Caller {
        peer: asking.peer().and_then(Peer::address),
        user_agent: user_agent.unwrap_or_default().chars().take(256).collect(),
        subject: asking.subject().cloned(),
        ended: Arc::default(),
    }
}

/// As the proto has it; `None` where it is beyond what that can say.
fn duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}
