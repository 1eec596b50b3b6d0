//! Puts the daemon together and takes it down again. The only module that sees all others, and the only one that
//! spawns what lives as long as the process.

use std::{io, net::SocketAddr, process::ExitCode, sync::Arc};

use futures::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, runtime::Runtime, task::JoinSet};
use tracing::{error, info, warn};

use crate::{
    admin::{self, Admin, FirstSync, Transitions, health},
    api::{self, Api},
    args::ServeArgs,
    auth,
    cache::Catalog,
    config::{self, Config, ConfigError, LogFormat, Reads},
    connections, controller,
    discovery::{self, Registry, RegistrySettings},
    feed,
    heartbeat::Heartbeats,
    kubeapi,
    object::prune::{PruneError, Pruner},
    proof::{self, ReadThrough},
    readiness::{self, Board},
    shutdown::{Shutdown, Stage},
    source,
    telemetry::{self, TelemetryError},
    tls::{self, Acceptor, TlsError},
    upstream::{self, ConnectError, KubeSource, Upstream, UpstreamSettings},
};

mod control;
#[cfg(feature = "sandbox")]
mod demo;
mod facade;
mod files;
mod follow;
mod live;
mod permissions;
#[cfg(feature = "sandbox")]
mod sandbox;
mod trust;

#[cfg(feature = "sandbox")]
pub use demo::{DemoError, demo};
#[cfg(feature = "sandbox")]
pub use sandbox::sandbox;

pub use facade::prover;
pub use follow::{Followed, follow};

use live::LiveReads;

/// Why the daemon did not start, or ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Logging could not be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// Metrics could not be set up.
    #[error("metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// No kubeconfig, or one that cannot be used.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// An address could not be taken.
    #[error("cannot listen on {address} for {port}: {source}; set `{setting}` to another address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What for.
        port: &'static str,
        /// The config's key, which is the flag's name too.
        setting: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Certificates cannot be used.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// No keys can be made up for what is remembered of callers.
    #[error("the system has no randomness")]
    NoRandomness,
    /// gRPC could not be offered.
    #[error(transparent)]
    Serve(#[from] api::ServeError),
    /// A prune rule hits identity.
    #[error("kind {kind}: {source}")]
    Prune {
        /// As configured.
        kind: String,
        /// What is wrong.
        source: PruneError,
    },
    /// The sandbox did not start.
    #[cfg(feature = "sandbox")]
    #[error(transparent)]
    Sandbox(#[from] crate::sandbox::run::SandboxError),
    /// Something was wrong in the demo.
    #[cfg(feature = "sandbox")]
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// The demo's consumers could not begin.
    #[cfg(feature = "sandbox")]
    #[error(transparent)]
    Client(#[from] crate::client::Error),
    /// Signals or a listener failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A part that must run for ever has ended.
    #[error("{part} ended unexpectedly; see the log")]
    Ended {
        /// Which.
        part: &'static str,
    },
}

impl AppError {
    /// 2 for a wrong configuration, 1 for the rest.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_)
            | Self::Telemetry(TelemetryError::Filter { .. })
            | Self::Prune { .. } => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

/// What all controllers read; a config that leaves that out is refused.
pub fn reads() -> Vec<Reads> {
    control::reads()
}

/// `informerd serve`: runs until a signal, or until a part fails.
pub async fn serve(args: ServeArgs) -> Result<(), AppError> {
    let config = config::load(&args)?;
    config.check_reads(&reads())?;
    let format = match config.log.format {
        LogFormat::Text => telemetry::Format::Text,
        LogFormat::Json => telemetry::Format::Json,
    };
    telemetry::init(format, &config.log.filter)?;
    let metrics = admin::metrics::install()?;
    describe_metrics();
    files::allow_all();
    let shutdown = Shutdown::new();
    let signals = tokio::spawn(shutdown.on_signals(config.shutdown_grace)?);
    let outcome = run(config, args.kube.into(), metrics, shutdown.clone(), |_| {}).await;
    shutdown.cut();
    // It ends with the shutdown; a panic in it has been logged.
    let _ = signals.await;
    outcome
}

/// A daemon that runs, as who has started it within its own process sees it.
#[derive(Clone, Debug)]
pub struct Running {
    /// The kinds.
    pub catalog: Catalog,
    /// Whether all of them have been listed.
    pub first_sync: Arc<FirstSync>,
    /// The verdicts.
    pub board: Board,
    /// Of the gRPC port.
    pub grpc: SocketAddr,
    /// Of the port for metrics and health.
    pub admin: SocketAddr,
    /// Of the port that speaks Kubernetes's protocol, if there is one.
    pub kube: Option<SocketAddr>,
}

/// The daemon itself, without what a process has once: logging, metrics and signals are the caller's. `started` is
/// told when the ports are open. Ends some time after the shutdown has begun to drain, or when a part fails.
///
/// # Errors
///
/// It did not start, or a part of it failed.
pub async fn run(
    config: Config,
    source: KubeSource,
    metrics: PrometheusHandle,
    shutdown: Shutdown,
    started: impl FnOnce(Running),
) -> Result<(), AppError> {
    let grpc = listen(config.listen, "gRPC", "listen")?;
    let admin = listen(config.admin, "metrics and health", "admin")?;
    let kube = facade::listen(&config)?;
    let settings = UpstreamSettings::from(&config.upstream);
    let (upstream, reloader) = Upstream::connect(source, settings).await?;
    info!(version = env!("CARGO_PKG_VERSION"), grpc = %config.listen, admin = %config.admin, "informerd starts");

    let mut daemon = Daemon {
        tasks: JoinSet::new(),
        upstream: Some(upstream_runtime()?),
        heartbeats: Heartbeats::default(),
        shutdown: shutdown.clone(),
    };
    let registry = Registry::new(
        upstream.clone(),
        RegistrySettings {
            poll_interval: config.upstream.discovery_interval,
            ..RegistrySettings::default()
        },
    );
    daemon.run("credentials", reloader.run());
    daemon.run("discovery", registry.clone().run());
    let tls = trust::tls(&config)?.map(|(tls, reloader)| {
        let beat = daemon.heartbeats.register("certificates");
        daemon.run("certificates", reloader.run(move || beat.beat()));
        tls
    });
    let Followed {
        catalog,
        first_sync,
        sources,
    } = follow(&config, &upstream, &registry, &daemon.heartbeats, &shutdown)?;
    for source in sources {
        daemon.source(source);
    }
    let board = control::start(&mut daemon, &config, &catalog, &upstream);

    let transitions = Transitions::new();
    let (health, reporting) = health::service(&transitions).await;
    let beat = daemon.heartbeats.register("health");
    daemon.until_drained(reporting.run(first_sync.clone(), beat, shutdown.clone()));
    let beat = daemon.heartbeats.register("transitions");
    daemon.until_drained(transitions.watch(catalog.clone(), beat, shutdown.clone()));
    let beat = daemon.heartbeats.register("metrics");
    daemon.until_drained(admin::metrics::upkeep(
        metrics.clone(),
        beat,
        shutdown.clone(),
    ));

    started(Running {
        catalog: catalog.clone(),
        first_sync: first_sync.clone(),
        board: board.clone(),
        grpc: grpc.local_addr()?,
        admin: admin.local_addr()?,
        kube: kube.as_ref().map(TcpListener::local_addr).transpose()?,
    });

    let settings = api::Settings {
        bookmark_interval: config.bookmark_interval,
    };
    let live: Arc<dyn api::readiness::Live> = Arc::new(LiveReads::new(upstream.clone()));
    let prover = prover(&upstream);
    let access = trust::access(&config, &upstream, &registry, tls.as_ref())?;
    let door = access.door();
    if let Some(guard) = access.guard().cloned() {
        let world = follow::World {
            config: &config,
            upstream: &upstream,
            registry: &registry,
            heartbeats: &daemon.heartbeats,
            shutdown: &shutdown,
        };
        let permissions = permissions::follow(&world, &catalog, guard)?;
        for source in permissions.sources {
            daemon.source(source);
        }
        daemon.run("permissions", permissions.telling);
    }
    let through = read_through(&config, &upstream)?;
    let api = Api::with_board(
        catalog.clone(),
        board,
        Some(live),
        Some(prover.clone()),
        settings,
        access,
        shutdown.clone(),
    )
    .reading_through(Arc::new(through));
    // Handshakes of the one port leave room for those of the other.
    let acceptor = || Some(Acceptor::new(tls.clone()?, tls::Limits::default()));
    let (consumers, beat) = (
        api.consumers().clone(),
        daemon.heartbeats.register("consumers"),
    );
    daemon.run("consumers", async move {
        consumers.watch_over(|| beat.beat()).await
    });
    let kube = kube.map(|listener| {
        let parts = facade::Parts {
            config: &config,
            catalog: &catalog,
            registry: &registry,
            upstream: &upstream,
            prover,
            consumers: api.consumers().clone(),
            door,
            tls: acceptor(),
        };
        tokio::spawn(parts.serve(listener, shutdown.clone()))
    });
    let admin_port = Admin {
        metrics,
        catalog,
        first_sync,
        heartbeats: daemon.heartbeats.clone(),
        shutdown: shutdown.clone(),
    };
    let admin_port = tokio::spawn(admin_port.serve(admin));
    let grpc = tokio::spawn(api.serve(grpc, acceptor(), health));
    let checked = check_kinds(config, registry);
    let mut outcome = daemon.supervise(grpc, checked).await;
    if let Some(kube) = kube {
        outcome = outcome.and(facade::drained(kube, &shutdown).await);
    }
    shutdown.cut();
    // It ends with the shutdown; a panic in it has been logged.
    let _ = admin_port.await;
    info!("informerd ends");
    outcome
}

/// Reads whole objects of the kinds of which only metadata is cached, where the config lets readers have them.
fn read_through(config: &Config, upstream: &Upstream) -> Result<ReadThrough, AppError> {
    let kinds = config.kinds.iter().filter(|kind| kind.read_through);
    let kinds = kinds.map(|kind| {
        let pruner = Pruner::new(&kind.prune).map_err(|source| AppError::Prune {
            kind: kind.resource.clone(),
            source,
        })?;
        Ok((kind.resource.as_str(), &kind.prune, pruner))
    });
    let kinds: Vec<_> = kinds.collect::<Result<_, AppError>>()?;
    let live = crate::proof::Live::new(upstream.clone());
    Ok(ReadThrough::new(Arc::new(live), kinds))
}

fn describe_metrics() {
    upstream::describe_metrics();
    discovery::describe_metrics();
    source::describe_metrics();
    feed::describe_metrics();
    controller::describe_metrics();
    controller::node::describe_metrics();
    controller::aerospike::describe_metrics();
    readiness::describe_metrics();
    auth::describe_metrics();
    crate::connections::describe_metrics();
    tls::describe_metrics();
    api::describe_metrics();
    kubeapi::describe_metrics();
    proof::describe_metrics();
}

fn listen(
    address: SocketAddr,
    port: &'static str,
    setting: &'static str,
) -> Result<TcpListener, AppError> {
    connections::listen(address).map_err(|source| AppError::Listen {
        address,
        port,
        setting,
        source,
    })
}

/// Once the API server has said what it serves: refuses two names of one kind, and kinds that cannot be watched.
async fn check_kinds(config: Config, registry: Registry) -> Result<(), ConfigError> {
    let catalog = registry.catalog().await;
    config.check_kinds(|name| catalog.identify(name))
}

/// A thread of their own for the sources: on the threads that serve, each event of a watch would queue behind what
/// the one before has set going for every consumer, and the upstream would be read no faster than they are served.
fn upstream_runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("upstream")
        .enable_all()
        .build()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            // Waiting for it here would block a thread that others need.
            upstream.shutdown_background();
        }
    }
}

/// The parts that live as long as the process.
struct Daemon {
    /// Where the sources run; taken when the process ends.
    upstream: Option<Runtime>,
    /// Each ends with what it is called if it ends at all; parts that end by themselves when draining give none.
    tasks: JoinSet<Option<&'static str>>,
    heartbeats: Heartbeats,
    shutdown: Shutdown,
}

impl Daemon {
    /// A part that must never end.
    fn run(&mut self, part: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            Some(part)
        });
    }

    /// A part that ends when draining begins.
    fn until_drained(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            None
        });
    }

    /// A source, which goes on while streams drain, so that those end with the latest token.
    fn source(&mut self, source: BoxFuture<'static, ()>) {
        if let Some(upstream) = &self.upstream {
            let running = upstream.spawn(source);
            self.until_drained(async move {
                if let Err(ended) = running.await
                    && let Ok(panic) = ended.try_into_panic()
                {
                    std::panic::resume_unwind(panic);
                }
            });
        }
    }

    /// Until the process is to end: drained, or because something failed.
    async fn supervise(
        &mut self,
        grpc: tokio::task::JoinHandle<Result<(), api::ServeError>>,
        checked: impl Future<Output = Result<(), ConfigError>>,
    ) -> Result<(), AppError> {
        let mut grpc = std::pin::pin!(grpc);
        let mut checked = std::pin::pin!(checked);
        let mut is_checked = false;
        loop {
            tokio::select! {
                served = &mut grpc => {
                    // Every stream has been told, and is closed; or serving failed.
                    return match served {
                        Ok(Ok(())) if self.shutdown.stage() != Stage::Running => Ok(()),
                        Ok(Ok(())) | Err(_) => Err(AppError::Ended { part: "gRPC" }),
                        Ok(Err(error)) => Err(error.into()),
                    };
                }
                () = self.shutdown.over() => {
                    warn!("some streams did not end in time and are cut");
                    return Ok(());
                }
                result = &mut checked, if !is_checked => {
                    is_checked = true;
                    result?;
                }
                Some(ended) = self.tasks.join_next() => {
                    let part = match ended {
                        Ok(None) if self.shutdown.stage() != Stage::Running => continue,
                        Ok(part) => part.unwrap_or("a part of the daemon"),
                        Err(panic) => {
                            error!(%panic, "a part of the daemon failed");
                            "a part of the daemon"
                        }
                    };
                    return Err(AppError::Ended { part });
                }
            }
        }
    }
}
