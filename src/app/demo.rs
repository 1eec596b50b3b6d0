//! `informerd demo`: the whole product with nothing but this binary. A sandbox with a world in it, the daemon with its
//! controllers over it, and consumers that keep copies; and the question, again and again, whether all of them agree.
//!
//! The daemon is the very same as in `informerd serve`, over a socket, by a kubeconfig; nothing in it knows that the
//! API server is a sandbox.

use std::{
    io::{self, IsTerminal},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{AppError, Running, sandbox::kubeconfig_of};
use crate::{
    admin,
    args::{DemoArgs, ServeArgs},
    config,
    readiness::State,
    sandbox::{Settings, Store, World, run, traffic::Traffic},
    shutdown::Shutdown,
    telemetry,
    upstream::KubeSource,
};

mod checks;
mod consumers;
mod screen;

use checks::Checks;
use consumers::Consumers;
use screen::{Figures, Screen};

/// What the daemon is told to watch and to judge.
const CONFIG: &str = "controllers: [node, service, workload, aerospike]
kinds:
  - pods
  - nodes
  - services
  - configmaps
  - namespaces
  - endpointslices.discovery.k8s.io
  - deployments.apps
  - replicasets.apps
  - statefulsets.apps
  - aerospikeclusters.acko.io
  - aerospikeclusters.asdb.aerospike.com
";
/// The usual ports, so that the commands need no address; others where those are taken.
const PORTS: [u16; 3] = [7443, 7480, 7481];
const GRACE: Duration = Duration::from_secs(3);
/// Until the daemon has listed everything.
const START: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(500);

/// Why the demo says that something is wrong.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// What must always hold did not.
    #[error("{}", .0.join("; "))]
    Broken(Vec<String>),
    /// It did not come up.
    #[error("the daemon was not ready within {} s: {missing}", START.as_secs())]
    NotReady {
        /// The kinds that were not listed.
        missing: String,
    },
}

/// Runs until a signal, or for as long as it is told to.
///
/// # Errors
///
/// It could not start, or something that must always hold did not.
pub async fn demo(args: DemoArgs) -> Result<(), AppError> {
    telemetry::init(telemetry::Format::Text, &args.log_filter)?;
    let metrics = admin::metrics::install()?;
    super::describe_metrics();
    let mut screen = Screen::new(io::stdout(), io::stdout().is_terminal());

    let store = Store::new(Settings {
        seed: args.world.seed,
        kubelet: true,
    });
    let traffic = Traffic::default();
    let listener = run::listen((Ipv4Addr::LOCALHOST, 0).into()).await?;
    let api_server = listener.local_addr()?;
    let kubeconfig = Kubeconfig::write(api_server)?;
    let served = Shutdown::new();
    let serving = run::serve(store.clone(), traffic.clone(), listener, served.clone());
    let sandbox = tokio::spawn(serving);
    let living = Shutdown::new();
    let world = World::new(store.clone(), args.world.into());
    let world = tokio::spawn(world.run(living.clone()));

    // A signal asks the demo to end, not the daemon: it has its last word first.
    let asked = Shutdown::new();
    let signals = tokio::spawn(asked.on_signals(GRACE)?);
    let shutdown = Shutdown::new();
    let (started, running) = oneshot::channel();
    let config = config::load_text(CONFIG, &ports().await)?;
    config.check_reads(&super::reads())?;
    let source = KubeSource {
        kubeconfig: Some(kubeconfig.0.clone()),
        context: None,
    };
    // Who waits for it is gone only if the demo is.
    let started = |running| drop(started.send(running));
    let daemon = super::run(config, source, metrics, shutdown.clone(), started);
    let mut daemon = tokio::spawn(daemon);
    let Ok(running) = running.await else {
        return Err(ended_early(daemon.await));
    };
    screen.say(&introduction(&running, api_server, &kubeconfig.0, &args));

    let mut demo = Demo {
        checks: Checks::new(store, traffic, running.catalog.clone()),
        consumers: Consumers::new(running.grpc, args.consumers)?,
        begun: Instant::now(),
        running,
        screen,
    };
    tokio::select! {
        looked = demo.watch(args.r#for) => looked?,
        () = asked.draining() => {}
        ended = &mut daemon => return Err(ended_early(ended)),
    }
    living.drain();
    // It ends with its shutdown; a panic in it has been printed.
    let _ = world.await;
    tokio::select! {
        concluded = demo.conclude() => concluded?,
        () = asked.over() => {}
        ended = &mut daemon => return Err(ended_early(ended)),
    }
    drop(demo);
    shutdown.drain();
    let ended = timeout(GRACE, &mut daemon).await;
    shutdown.cut();
    let ended = match ended {
        Ok(ended) => ended,
        Err(_) => daemon.await,
    };
    served.cut();
    asked.cut();
    let _ = tokio::join!(sandbox, signals);
    match ended {
        Ok(ended) => ended,
        Err(_) => Err(AppError::Ended { part: "the daemon" }),
    }
}

fn ended_early(ended: Result<Result<(), AppError>, tokio::task::JoinError>) -> AppError {
    match ended {
        Ok(Err(error)) => error,
        Ok(Ok(())) | Err(_) => AppError::Ended { part: "the daemon" },
    }
}

/// Where the daemon is to listen.
async fn ports() -> ServeArgs {
    let mut addresses = Vec::new();
    for port in PORTS {
        let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let free = TcpListener::bind(usual).await.is_ok();
        let port = if free { port } else { 0 };
        addresses.push(Some(format!("127.0.0.1:{port}")));
    }
    let mut addresses = addresses.into_iter().flatten();
    ServeArgs {
        listen: addresses.next(),
        admin: addresses.next(),
        kube_listen: addresses.next(),
        ..ServeArgs::default()
    }
}

/// A file that goes with the demo.
struct Kubeconfig(PathBuf);

impl Kubeconfig {
    fn write(address: SocketAddr) -> Result<Self, AppError> {
        let path = kubeconfig_of("demo");
        run::write_kubeconfig(&path, address)?;
        Ok(Self(path))
    }
}

impl Drop for Kubeconfig {
    fn drop(&mut self) {
        // Somebody may have removed it before.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What runs where, and what to try next.
fn introduction(
    running: &Running,
    api_server: SocketAddr,
    kubeconfig: &Path,
    args: &DemoArgs,
) -> String {
    let this = std::env::args_os().next().map(PathBuf::from);
    let this = this.map_or_else(|| "informerd".to_owned(), |it| it.display().to_string());
    let server = match running.grpc.port() {
        7443 => String::new(),
        _ => format!(" --server {}", running.grpc),
    };
    let mut text = format!(
        "A demo of informerd, with a Kubernetes of its own. {}\n\n\
         API server    http://{api_server}, a sandbox with {} nodes and about {} pods (seed {}); to write to it:\n              \
         kubectl --kubeconfig {} ...\n\
         informerd     gRPC {}, metrics and health http://{}\n\
         controllers   node, service, workload, aerospike\n\
         consumers     {} over gRPC, each with a copy of a kind\n\n\
         Try in another terminal:\n  \
         {this} kinds{server}\n  \
         {this} watch pods -n shop{server}\n  \
         {this} ready deployment/web deployment/cart -n shop{server}\n",
        run::WHAT_IT_IS,
        args.world.nodes,
        args.world.pods,
        args.world.seed,
        kubeconfig.display(),
        running.grpc,
        running.admin,
        args.consumers,
    );
    if let Some(kube) = running.kube {
        text.push_str(&format!(
            "  kubectl --server http://{kube} get pods -n shop    (from informerd's cache)\n"
        ));
    }
    text
}

/// The demo while it runs.
struct Demo {
    checks: Checks,
    consumers: Consumers,
    begun: Instant,
    running: Running,
    screen: Screen<io::Stdout>,
}

impl Demo {
    /// Looks on until the time is over, or something is broken.
    async fn watch(&mut self, time: Option<Duration>) -> Result<(), DemoError> {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = time.map(|time| self.begun + time);
        loop {
            ticks.tick().await;
            let now = Instant::now();
            if end.is_some_and(|end| now >= end) {
                return Ok(());
            }
            if !self.running.first_sync.is_done() {
                let missing = self.missing();
                if now >= self.begun + START {
                    return Err(DemoError::NotReady { missing });
                }
                self.screen.progress(now - self.begun, &missing);
                continue;
            }
            self.consumers.start();
            self.checks.probe();
            self.checks.look(&self.consumers)?;
            let figures = self.figures();
            self.screen.show(&figures);
        }
    }

    fn missing(&self) -> String {
        let kinds = self.running.catalog.iter();
        let missing: Vec<&str> = kinds
            .filter(|kind| kind.shards().iter().any(|shard| shard.state().is_none()))
            .map(|kind| kind.name.as_str())
            .collect();
        missing.join(", ")
    }

    fn figures(&self) -> Figures {
        Figures {
            time: self.begun.elapsed(),
            objects: self.checks.objects(),
            upstream: self.checks.upstream(),
            saved: self.checks.saved(&self.consumers),
            consumers: self.consumers.open(),
            events: self.consumers.events(),
            bytes: self.consumers.bytes(),
            latency: self.checks.latency(),
            verdicts: self.verdicts(),
        }
    }

    /// How many are ready, and how many there are.
    fn verdicts(&self) -> (usize, usize) {
        let states = self
            .running
            .board
            .kinds()
            .filter_map(|kind| kind.shard().state());
        states.fold((0, 0), |(ready, all), state| {
            let verdicts = state.objects.values();
            let own = verdicts
                .filter(|slot| slot.item.standing.answer.state == State::Ready)
                .count();
            (ready + own, all + state.objects.len())
        })
    }

    /// The world stands still: now all must come to the same.
    async fn conclude(&mut self) -> Result<(), DemoError> {
        let figures = self.figures();
        let agreed = self.checks.agree(&self.consumers).await;
        self.screen.conclude(&figures, &agreed);
        agreed.map(|_| ())
    }
}
