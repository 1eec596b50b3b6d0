//! A daemon in this process: sources, cache and gRPC as `informerd serve` has them, on the runtime of whoever starts
//! it, so that time can be paused; its connections are in memory.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use informerd::{
    api::{self, Api, cache::CacheService},
    app,
    args::ServeArgs,
    cache::{Kind, Limits},
    config::{self, Config},
    discovery::{Registry, RegistrySettings},
    heartbeat::Heartbeats,
    readiness::Board,
    shutdown::Shutdown,
    upstream::{Upstream, UpstreamSettings},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinSet,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{
    Status,
    transport::{Channel, Endpoint, Server},
};

use crate::validators::Dial;

/// What fits into a connection on its way.
const ROOM: usize = 16 << 10;

/// A daemon that ends when dropped, without a word to anybody.
pub struct Replica {
    /// The kind that it follows.
    pub kind: Arc<Kind>,
    /// For consumers.
    pub door: Door,
    shutdown: Shutdown,
    _tasks: JoinSet<()>,
}

/// Leads to a daemon.
#[derive(Clone)]
pub struct Door {
    connections: UnboundedSender<io::Result<DuplexStream>>,
    /// Cuts all connections, once.
    cut: CancellationToken,
}

/// A configuration of one kind, with its settings as YAML.
pub fn config(kind: &str) -> Config {
    config::load_text(&format!("kinds: [{kind}]"), &ServeArgs::default())
        .unwrap_or_else(|error| panic!("{kind}: {error}"))
}

impl Replica {
    /// Starts it on the API server behind `client`.
    pub fn start(config: &Config, client: &kube::Client) -> Self {
        let settings = UpstreamSettings::from(&config.upstream);
        let upstream = Upstream::fixed(client.clone(), client.clone(), settings);
        let registry = Registry::new(
            upstream.clone(),
            RegistrySettings {
                poll_interval: config.upstream.discovery_interval,
                ..RegistrySettings::default()
            },
        );
        let shutdown = Shutdown::new();
        let followed = app::follow(
            config,
            &upstream,
            &registry,
            &Heartbeats::default(),
            &shutdown,
        );
        let followed = followed.expect("its rules hit no identity");
        let mut tasks = JoinSet::new();
        tasks.spawn(registry.run());
        for source in followed.sources {
            tasks.spawn(source);
        }
        let kind = followed
            .catalog
            .iter()
            .next()
            .expect("there is one")
            .clone();
        let none: [&str; 0] = [];
        let api = Api::with_board(
            followed.catalog,
            Board::new(none, Limits::default()),
            None,
            Some(app::prover(&upstream)),
            api::Settings {
                bookmark_interval: config.bookmark_interval,
            },
            api::Access::Open,
            shutdown.clone(),
        );
        let consumers = api.consumers().clone();
        tasks.spawn(async move { consumers.watch_over(|| {}).await });
        let (connections, accepted) = unbounded_channel();
        let server = Server::builder()
            .add_service(CacheService::new(api))
            .serve_with_incoming_shutdown(
                UnboundedReceiverStream::new(accepted),
                shutdown.draining_owned(),
            );
        tasks.spawn(async move { server.await.expect("it serves") });
        Self {
            kind,
            door: Door {
                connections,
                cut: CancellationToken::new(),
            },
            shutdown,
            _tasks: tasks,
        }
    }

    /// Ends its streams with a last token, and its connections, and takes no more; what is cached is followed still.
    pub fn drain(&self) {
        self.shutdown.drain();
    }

    /// Cuts its connections to consumers. New ones are taken.
    pub fn cut(&mut self) {
        std::mem::take(&mut self.door.cut).cancel();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.door.cut.cancel();
        self.shutdown.cut();
    }
}

impl Door {
    /// A connection.
    pub fn connect(&self) -> io::Result<TokioIo<Wire>> {
        let (ours, theirs) = tokio::io::duplex(ROOM);
        let sent = self.connections.send(Ok(theirs));
        sent.map_err(|_| io::Error::other("nobody listens"))?;
        let cut = Box::pin(self.cut.clone().cancelled_owned());
        Ok(TokioIo::new(Wire { inner: ours, cut }))
    }
}

impl Dial for Door {
    fn dial(&self, window: u32) -> BoxFuture<'static, Result<Channel, Status>> {
        let wire = self.connect();
        Box::pin(async move {
            let wire = wire.map_err(|error| Status::unavailable(error.to_string()))?;
            let mut wire = Some(wire);
            let connector = tower::service_fn(move |_| {
                let wire = wire.take().ok_or_else(|| io::Error::other("it was cut"));
                std::future::ready(wire)
            });
            let endpoint = Endpoint::from_static("http://replica")
                .initial_stream_window_size(window)
                .initial_connection_window_size(window);
            let channel = endpoint.connect_with_connector(connector).await;
            channel.map_err(|error| Status::unavailable(error.to_string()))
        })
    }
}

/// A connection that can be cut.
pub struct Wire {
    inner: DuplexStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Wire {
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionReset.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_cut(cx)?;
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
