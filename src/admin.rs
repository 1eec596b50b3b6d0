//! The port for those who run the process: metrics and health, in plain HTTP.
//!
//! - `/metrics`: Prometheus's text format.
//! - `/livez`: fails when a loop has not turned for a minute. It knows nothing of the API server: a restart mends
//!   a stuck loop and no outage upstream.
//! - `/readyz`: fails before the first complete list of all eager kinds, and again once the process drains.
//!   Between the two it never does: what was listed once is served, however old, and says its age.
//!
//! grpc.health.v1 says the same as `/readyz`; see [`health`].

use std::{
    convert::Infallible,
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{Request, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tower::ServiceExt;

use crate::{
    cache::Catalog,
    connections::{Connections, Place, Socket},
    heartbeat::Heartbeats,
    patience::{Patient, Requests},
    shutdown::{Shutdown, Stage},
};

mod first_sync;
pub mod health;
pub mod metrics;
mod process;
mod transitions;

pub use first_sync::FirstSync;
pub use transitions::{KindTransition, Transitions};

/// What the port shows.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where metrics were recorded; see [`metrics::install`].
    pub metrics: PrometheusHandle,
    /// All kinds, for their metrics.
    pub catalog: Catalog,
    /// What `/readyz` waits for.
    pub first_sync: Arc<FirstSync>,
    /// What `/livez` watches.
    pub heartbeats: Heartbeats,
    /// When `/readyz` fails again.
    pub shutdown: Shutdown,
}

/// Connections at once, and of one address: few ask here, and nobody is to keep them out.
pub const CONNECTIONS: usize = 1024;
const CONNECTIONS_OF_ONE: usize = 64;
/// How long one is kept on which nothing is asked.
const IDLE: Duration = Duration::from_secs(120);
/// Largest header list that is read.
const MAX_HEADERS: usize = 16 << 10;

/// One connection, until it ends.
async fn connection(stream: TcpStream, router: Router, place: Arc<Place>) {
    let stream = Socket::new(stream, &place);
    let requests = Requests::default();
    let io = Patient::new(stream).with_headers_of(&requests);
    let service = service_fn(move |request: Request<Incoming>| {
        let answering = requests.begin();
        let answer = router.clone().oneshot(request);
        async move {
            let answer: Result<Response, Infallible> = answer.await;
            drop(answering);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(MAX_HEADERS)
        .serve_connection(TokioIo::new(io), service);
    match place.cut().run_until_cancelled(connection).await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%error, "a connection ended"),
        None => tracing::debug!("a connection was cut"),
    }
}

/// One line of a check.
struct Checked {
    name: String,
    /// What is wrong, if anything is.
    trouble: Option<String>,
}

const INDEX: &str = "\
informerd, for those who run it:
  /metrics          in Prometheus's text format
  /livez            whether every loop turns; ?verbose lists them
  /readyz           whether every eager kind has been listed; ?verbose lists them
";

impl Admin {
    /// Answers until the shutdown's grace period is over, so that draining can be seen.
    pub async fn serve(self, listener: TcpListener) {
        let mut over = std::pin::pin!(self.shutdown.over_owned());
        let connections = Connections::new(CONNECTIONS, CONNECTIONS_OF_ONE);
        let router = self.router();
        let mut open = JoinSet::new();
        loop {
            let (stream, _, place) = tokio::select! {
                () = &mut over => return,
                accepted = connections.accept(&listener) => accepted,
            };
            while open.try_join_next().is_some() {}
            open.spawn(connection(stream, router.clone(), place));
        }
    }

    fn router(self) -> Router {
        Router::new()
            .route("/", get(async || INDEX))
            .route(
                "/metrics",
                get(async |State(admin): State<Self>| admin.scrape()),
            )
            .route(
                "/livez",
                get(async |State(admin): State<Self>, query| admin.livez(query)),
            )
            .route(
                "/readyz",
                get(async |State(admin): State<Self>, query| admin.readyz(query)),
            )
            .fallback(async || (StatusCode::NOT_FOUND, INDEX))
            .with_state(self)
    }

    fn scrape(&self) -> Response {
        metrics::observe(&self.catalog, Instant::now());
        let mut text = self.metrics.render();
        text.push_str(&process::render());
        (
            [(
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            )],
            text,
        )
            .into_response()
    }

    fn livez(&self, query: RawQuery) -> Response {
        let checked = self.heartbeats.pulses().into_iter().map(|pulse| Checked {
            trouble: pulse
                .is_stuck()
                .then(|| format!("has not turned for {} s", pulse.since.as_secs())),
            name: pulse.name,
        });
        answer("livez", checked.collect(), &query)
    }

    fn readyz(&self, query: RawQuery) -> Response {
        let mut checked = vec![Checked {
            name: "running".to_owned(),
            trouble: (self.shutdown.stage() != Stage::Running).then(|| "draining".to_owned()),
        }];
        checked.extend(
            self.first_sync
                .check()
                .into_iter()
                .map(|(name, trouble)| Checked { name, trouble }),
        );
        answer("readyz", checked, &query)
    }
}

/// As kube-apiserver answers: `ok`, or line by line if anything is wrong or `verbose` is asked for.
fn answer(check: &str, checked: Vec<Checked>, RawQuery(query): &RawQuery) -> Response {
    let verbose = query.as_deref().unwrap_or_default();
    let verbose = verbose
        .split('&')
        .any(|part| part.split('=').next() == Some("verbose"));
    let failed = checked.iter().any(|line| line.trouble.is_some());
    if !failed && !verbose {
        return "ok\n".into_response();
    }
    let mut text = String::new();
    for Checked { name, trouble } in checked {
        // Writing to a String does not fail.
        let _ = match trouble {
            Some(trouble) => writeln!(text, "[-]{name} failed: {trouble}"),
            None if verbose => writeln!(text, "[+]{name} ok"),
            None => Ok(()),
        };
    }
    let (status, outcome) = match failed {
        true => (StatusCode::SERVICE_UNAVAILABLE, "failed"),
        false => (StatusCode::OK, "passed"),
    };
    let _ = writeln!(text, "{check} check {outcome}");
    (status, text).into_response()
}

#[cfg(test)]
mod tests;
