//! What a hundred client-go informers of pods cost the API server: directly, and through the facade.
//!
//! The same program, the same objects, the same rate of writes, one after the other on one machine: the API server's
//! processor time, memory and open watches while all are in sync and the writes go on. Needs Go; without it, it says so.
//!
//!     cargo bench --bench informers -- --informers 100 --pods 1000 --rate 40 --seconds 30

#[path = "../tests/cluster/mod.rs"]
mod cluster;

use std::{
    env,
    path::Path,
    process::{ExitCode, Stdio},
    time::Duration,
};

use cluster::{Churn, ChurnOptions, Cluster, Daemon, Error};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
    time::{Instant, sleep, timeout},
};

/// The facade must save at least this much of the processor time that the informers cost directly.
const SHARE: f64 = 0.5;

struct Options {
    informers: usize,
    pods: usize,
    rate: u32,
    seconds: u64,
}

/// What it was like for the API server.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// Processors in use, on average.
    cpu: f64,
    /// MiB.
    memory: f64,
    watches: usize,
    /// Writes that the API server took.
    writes: usize,
    /// Of the daemon, where there is one.
    daemon_cpu: f64,
    daemon_memory: f64,
    /// Events that the informers had.
    events: u64,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    match runtime.block_on(run(&options())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Options {
    let mut options = Options {
        informers: 100,
        pods: 1000,
        rate: 40,
        seconds: 20,
    };
    let arguments: Vec<String> = env::args().skip(1).collect();
    for pair in arguments.windows(2) {
        let Ok(number) = pair[1].parse::<u32>() else {
            continue;
        };
        match pair[0].as_str() {
            "--informers" => options.informers = number as usize,
            "--pods" => options.pods = number as usize,
            "--rate" => options.rate = number,
            "--seconds" => options.seconds = number.into(),
            _ => {}
        }
    }
    options
}

/// Whether the limits hold.
async fn run(options: &Options) -> Result<bool, Error> {
    let Some(cluster) = cluster::private().await else {
        return Ok(true);
    };
    cluster::fill_pods(&cluster, options.pods).await?;
    let idle = measure(&cluster, None, options, None).await?;
    let direct = measure(&cluster, Some(cluster.kubeconfig()), options, None).await?;
    let mut daemon = Daemon::start(
        "upstream: {userAgent: informerd-bench}\nkinds: [pods]",
        cluster.kubeconfig(),
    )
    .await;
    let kubeconfig = daemon.kubeconfig().await;
    let facade = measure(&cluster, Some(&kubeconfig), options, Some(&mut daemon)).await?;
    println!(
        "{} client-go informers of {} pods, {} writes a second for {} s",
        options.informers, options.pods, options.rate, options.seconds
    );
    println!(
        "{:<34} {:>10} {:>10} {:>10}",
        "", "none", "direct", "facade"
    );
    let line = |name: &str, of: fn(&Cost) -> f64| {
        let [a, b, c] = [&idle, &direct, &facade].map(of);
        println!("{name:<34} {a:>10.2} {b:>10.2} {c:>10.2}");
    };
    line("API server, processors", |cost| cost.cpu);
    line("API server, MiB", |cost| cost.memory);
    line("API server, open watches of pods", |cost| {
        cost.watches as f64
    });
    line("informerd, processors", |cost| cost.daemon_cpu);
    line("informerd, MiB", |cost| cost.daemon_memory);
    line("writes", |cost| cost.writes as f64);
    line("events delivered, thousands", |cost| {
        cost.events as f64 / 1e3
    });
    // What is left is the daemon's one watch.
    let cost = |of: &Cost| of.cpu - idle.cpu;
    let share = cost(&facade).max(0.0) / cost(&direct).max(0.01);
    println!(
        "CPU that informers cost the API server, facade against direct: {share:.3}, limit {SHARE}"
    );
    println!(
        "open watches through the facade: {}, limit 1",
        facade.watches
    );
    Ok(share <= SHARE && facade.watches <= 1)
}

/// With the informers of this kubeconfig in sync, and writes going on.
async fn measure(
    cluster: &Cluster,
    kubeconfig: Option<&Path>,
    options: &Options,
    daemon: Option<&mut Daemon>,
) -> Result<Cost, Error> {
    let mut informers = match kubeconfig {
        Some(kubeconfig) => Some(Informers::start(kubeconfig, options.informers).await?),
        None => None,
    };
    let churn = ChurnOptions {
        seed: 7,
        rate: options.rate,
        ..ChurnOptions::default()
    };
    let churn = Churn::start(cluster.client().await, churn).await?;
    sleep(Duration::from_secs(3)).await;
    let before_events = match &mut informers {
        Some(informers) => informers.events().await?,
        None => 0,
    };
    let apiserver = cluster.apiserver().ok_or("no API server of our own")?;
    let daemon = daemon.map(|daemon| &*daemon.process());
    let cpu = |process: &cluster::Process| process.cpu().unwrap_or_default();
    let (begun, before) = (Instant::now(), cpu(apiserver));
    let daemon_before = daemon.map_or(0.0, cpu);
    sleep(Duration::from_secs(options.seconds)).await;
    let seconds = begun.elapsed().as_secs_f64();
    let mut cost = Cost {
        cpu: (cpu(apiserver) - before) / seconds,
        daemon_cpu: daemon.map_or(0.0, |daemon| (cpu(daemon) - daemon_before) / seconds),
        memory: mebibytes(apiserver),
        daemon_memory: daemon.map_or(0.0, mebibytes),
        ..Cost::default()
    };
    if let Some(informers) = &mut informers {
        cost.events = informers.events().await? - before_events;
    }
    if let Some(log) = cluster.audit_log() {
        let open = |agent| log.open_watches(agent, "pods");
        cost.watches = open("stranger") + open("informerd-bench");
    }
    let (writes, failures) = churn.stop().await;
    if let Some(failure) = failures.first() {
        return Err(format!("a write failed: {failure}").into());
    }
    cost.writes = writes.len();
    Ok(cost)
}

fn mebibytes(process: &cluster::Process) -> f64 {
    process.rss().unwrap_or_default() as f64 / f64::from(1 << 20)
}

/// The program of tests/clients/informers.
struct Informers {
    _child: tokio::process::Child,
    input: tokio::process::ChildStdin,
    output: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Informers {
    async fn start(kubeconfig: &Path, count: usize) -> Result<Self, Error> {
        let mut command = Command::new(cluster::informers().await?);
        command.arg("--kubeconfig").arg(kubeconfig);
        command.arg("--count").arg(count.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn()?;
        let input = child.stdin.take().ok_or("no input")?;
        let output = child.stdout.take().ok_or("no output")?;
        let mut informers = Self {
            _child: child,
            input,
            output: BufReader::new(output).lines(),
        };
        informers.line().await?;
        Ok(informers)
    }

    async fn line(&mut self) -> Result<serde_json::Value, Error> {
        let line = timeout(Duration::from_secs(240), self.output.next_line()).await??;
        Ok(serde_json::from_str(&line.ok_or("it ended")?)?)
    }

    /// Of all informers together.
    async fn events(&mut self) -> Result<u64, Error> {
        self.input.write_all(b"\n").await?;
        let line = self.line().await?;
        let states = line["states"].as_array().ok_or("no states")?;
        Ok(states
            .iter()
            .filter_map(|state| state["events"].as_u64())
            .sum())
    }
}
