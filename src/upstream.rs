//! The API server: two kube `Client`s on a transport of our own, rebuilt when the credentials change.
//!
//! Two, because a watch may be silent for hours and everything else must not be; of our own, because kube's
//! transport has no TCP keepalive and its retries hide failures from the one who must see them; rebuilt, because
//! kube reads a client certificate once. Whoever sends a request takes the clients of that moment: what is open
//! goes on with the old ones until its holder, told by [`Upstream::changed`], opens it again.
//!
//! Waiting and trying again are the callers' business.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, StatusCode, response::Parts};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tracing::{Instrument, Span, field};

use crate::config::UpstreamConfig;

mod error;
mod exec;
mod kubeconfig;
mod pod;
mod reload;
mod transport;

pub use error::{ApiStatus, BoxError, UpstreamError};
pub use exec::ExecError;
pub use kubeconfig::{KubeSource, KubeconfigError};
pub use pod::NotInPod;
pub use reload::Reloader;

/// The API server. Cloning is cheap; all clones see the same clients.
#[derive(Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
}

struct Shared {
    current: ArcSwap<Clients>,
    changed: watch::Sender<u64>,
    invalid: Notify,
    settings: UpstreamSettings,
}

/// The clients of one set of credentials.
pub struct Clients {
    /// For watches: no read timeout, no retries.
    pub watch: Client,
    /// For everything else: read timeout, no retries.
    pub api: Client,
    /// For those who bring credentials of their own: it has none, no retries, no read timeout.
    pub caller: Client,
    /// Counts the rebuilds, from 0.
    pub generation: u64,
    /// Of all that the credentials were made from; the same number means the same credentials.
    pub fingerprint: u64,
}

/// What to send, for timeouts, metrics and the log. Names as RBAC has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A stream, on the watch client.
    Watch,
    /// One page, or all, of a kind.
    List,
    /// One object, or anything else that is read at once.
    Get,
    /// Create, such as a review.
    Create,
    /// Update.
    Update,
    /// Patch.
    Patch,
    /// Delete.
    Delete,
}

impl Verb {
    /// `watch`, `list`, ...
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::List => "list",
            Self::Get => "get",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

/// Times and names of the connection to the API server.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Until response headers, of everything but lists.
    pub request_timeout: Duration,
    /// Until the headers of a list; also the longest silence inside any response but a watch's.
    pub list_timeout: Duration,
    /// TCP, TLS and the proxy's handshake together.
    pub connect_timeout: Duration,
    /// How often the files that hold the credentials are looked at.
    pub reload_interval: Duration,
    /// Sent as `User-Agent`.
    pub user_agent: HeaderValue,
}

impl From<&UpstreamConfig> for UpstreamSettings {
    fn from(config: &UpstreamConfig) -> Self {
        Self {
            request_timeout: config.request_timeout,
            list_timeout: config.list_timeout,
            connect_timeout: config.connect_timeout,
            reload_interval: config.reload_interval,
            user_agent: config.user_agent.clone(),
        }
    }
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self::from(&UpstreamConfig::default())
    }
}

/// As much of an error response as is read, and for how long.
const ERROR_BYTES: usize = 64 * 1024;
const ERROR_PATIENCE: Duration = Duration::from_secs(5);

impl Upstream {
    /// Finds the API server and the credentials, and builds the clients; nothing is sent yet. Run the
    /// [`Reloader`] beside, or credentials never change.
    pub async fn connect(
        source: KubeSource,
        settings: UpstreamSettings,
    ) -> Result<(Self, Reloader), ConnectError> {
        let (clients, held) = reload::build(&source, &settings, 0).await?;
        let upstream = Self::with_clients(clients, settings);
        Ok((upstream.clone(), Reloader::new(upstream, source, held)))
    }

    /// An API server behind clients that somebody else made, for tests above all. They are never rebuilt, and
    /// callers' own requests go by `api`.
    pub fn fixed(watch: Client, api: Client, settings: UpstreamSettings) -> Self {
        Self::with_clients(
            Clients {
                watch,
                caller: api.clone(),
                api,
                generation: 0,
                fingerprint: 0,
            },
            settings,
        )
    }

    fn with_clients(clients: Clients, settings: UpstreamSettings) -> Self {
        Self {
            shared: Arc::new(Shared {
                changed: watch::Sender::new(clients.generation),
                current: ArcSwap::from_pointee(clients),
                invalid: Notify::new(),
                settings,
            }),
        }
    }

    /// The clients to use now. Take them anew for each request.
    pub fn current(&self) -> Arc<Clients> {
        self.shared.current.load_full()
    }

    /// Changes with each new set of credentials. An open watch may then be opened again at its revision.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Asks for the credentials to be read again now, because the API server refused them. [`Upstream::send`]
    /// does so by itself on a 401. However often it is called, they are read once in ten seconds at most.
    pub fn invalidate(&self) {
        self.shared.invalid.notify_one();
    }

    /// Sends a request and returns the response as soon as its headers are here. Anything but 2xx and 304 is an
    /// error. Do not set `User-Agent` and `Accept-Encoding`; that is done.
    pub async fn send(
        &self,
        verb: Verb,
        request: Request<Vec<u8>>,
    ) -> Result<Response<Body>, UpstreamError> {
        let span = tracing::debug_span!(
            "upstream",
            verb = verb.as_str(),
            method = %request.method(),
            path = request.uri().path(),
            status = field::Empty,
        );
        self.send_timed(verb, request).instrument(span).await
    }

    /// [`Upstream::send`], and the whole body up to `limit` bytes.
    pub async fn fetch(
        &self,
        verb: Verb,
        request: Request<Vec<u8>>,
        limit: usize,
    ) -> Result<(Parts, Bytes), UpstreamError> {
        let (parts, body) = self.send(verb, request).await?.into_parts();
        let body = read_body(body, limit, self.shared.settings.list_timeout).await?;
        Ok((parts, body))
    }

    /// Sends a request with the credentials that are in its headers and none of ours, and returns the response,
    /// whatever its status, as soon as its headers are here.
    pub async fn as_caller(
        &self,
        request: Request<Vec<u8>>,
    ) -> Result<Response<Body>, UpstreamError> {
        let client = self.current();
        let patience = self.shared.settings.list_timeout;
        let answer = timeout(patience, client.caller.send(request.map(Body::from))).await;
        Ok(answer.map_err(|_| UpstreamError::HeaderTimeout(patience))??)
    }

    async fn send_timed(
        &self,
        verb: Verb,
        request: Request<Vec<u8>>,
    ) -> Result<Response<Body>, UpstreamError> {
        let clients = self.current();
        let settings = &self.shared.settings;
        let (client, patience) = match verb {
            Verb::Watch => (&clients.watch, settings.request_timeout),
            Verb::List => (&clients.api, settings.list_timeout),
            _ => (&clients.api, settings.request_timeout),
        };
        let method = method_label(request.method());
        let begun = Instant::now();
        let answer = timeout(patience, client.send(request.map(Body::from))).await;
        let code = match &answer {
            Ok(Ok(response)) => response.status().as_str().to_owned(),
            // As client-go writes it.
            _ => "<error>".to_owned(),
        };
        Span::current().record("status", &code);
        metrics::histogram!("rest_client_request_duration_seconds", "verb" => verb.as_str())
            .record(begun.elapsed());
        metrics::counter!("rest_client_requests_total", "code" => code, "method" => method, "verb" => verb.as_str())
            .increment(1);

        let response = answer.map_err(|_| UpstreamError::HeaderTimeout(patience))??;
        if response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let error = read_error(response).await;
        if matches!(error, UpstreamError::Unauthorized(_)) {
            self.invalidate();
        }
        Err(error)
    }
}

/// Reads a body to its end. At most `limit` bytes and `patience` altogether.
pub async fn read_body(
    body: Body,
    limit: usize,
    patience: Duration,
) -> Result<Bytes, UpstreamError> {
    let all = async {
        let mut body = body;
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(UpstreamError::from)?.into_data() else {
                continue;
            };
            if read.len() + data.len() > limit {
                return Err(UpstreamError::TooLarge(limit));
            }
            read.extend_from_slice(&data);
        }
        Ok(read.freeze())
    };
    timeout(patience, all)
        .await
        .map_err(|_| UpstreamError::BodyTimeout(patience))?
}

async fn read_error(response: Response<Body>) -> UpstreamError {
    let (parts, body) = response.into_parts();
    // The status line alone is an answer already; what of its body can be had is welcome.
    let body = read_body(body, ERROR_BYTES, ERROR_PATIENCE)
        .await
        .unwrap_or_default();
    ApiStatus::from_response(parts.status, &parts.headers, &body).into()
}

fn method_label(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

/// Describes the metrics of this module. Once, after the recorder is installed.
pub fn describe_metrics() {
    metrics::describe_counter!(
        "rest_client_requests_total",
        "Requests to the API server, by HTTP status code, method and verb."
    );
    metrics::describe_histogram!(
        "rest_client_request_duration_seconds",
        metrics::Unit::Seconds,
        "Time until the API server's response headers, by verb."
    );
    metrics::describe_counter!(
        "informerd_upstream_reloads_total",
        "Times that changed credentials were read, by result."
    );
}

/// The clients could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig, or what it names.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// Certificates, keys, headers: what the kubeconfig holds does not fit together.
    #[error("the kubeconfig's credentials cannot be used: {}", error::chain(.0))]
    Client(#[source] Box<kube::Error>),
}

#[cfg(test)]
mod tests;
