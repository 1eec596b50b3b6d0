//! What a hostile consumer costs those that mean well: little, whatever it does with the rights of one identity.
//!
//! Fifty consumers read in a process of their own, and, in every other run, another process does at once what
//! consumers should not: it opens 10,000 streams and reads none of them, sends selectors of 4 MiB, begins calls and resets
//! them, pings without reading the answers, and sends headers a byte at a time (`common/hostile.rs`).
//! Compared are the fifty's latencies.

use std::{
    env,
    process::ExitCode,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use hdrhistogram::Histogram;
use informerd::{
    api::Access,
    auth::{
        Attributes, Authentication, Decision, Guard, Identity, ReviewError, Reviews, Settings,
        Token, TokenOwner,
    },
    cache::{Limits, Writer},
    object::Object,
};
use tokio::{
    runtime::{self, Runtime},
    time::{Instant, sleep_until},
};

mod common {
    pub mod hostile;
    pub mod objects;
    pub mod process;
    pub mod report;
    pub mod server;
    pub mod sink;
}
use common::{
    hostile::Hostile,
    objects::pod,
    process::{Role, order},
    report::{Report, median},
    server, sink,
};

const READERS: usize = 50;
const OBJECTS: usize = 5_000;
const CHANGES_A_SECOND: usize = 1_000;
/// Changes a publish.
const BATCH: usize = 5;
const AUDIENCE: &str = "informerd";

/// Most p99 of the readers, as a multiple of the same without the hostile one.
const LIMIT_P99: f64 = 1.5;
/// What SECURITY.md says that one identity can make a server grow by, besides what it does not read, in MiB: 2,000
/// open calls of 32 KiB, 300 connections of 150 KiB.
const LIMIT_GROWTH: f64 = 106.4;

fn main() -> ExitCode {
    let Some(arguments) = Role::arguments() else {
        return compare();
    };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["server", changes] => serve(changes.parse().expect("a number")),
        ["readers", port, changes] => {
            let port = port.parse().expect("a port");
            read(port, changes.parse().expect("a number"));
        }
        ["hostile", port] => attack(port.parse().expect("a port")),
        _ => panic!("no such role: {arguments:?}"),
    }
    ExitCode::SUCCESS
}

/// What one run came to.
struct Run {
    /// Milliseconds from the feed to the readers.
    p50: f64,
    p99: f64,
    /// Seconds of the server's processor time.
    cpu: f64,
    /// MiB that the server grew by.
    growth: f64,
    /// Streams that were open at the end.
    open: f64,
}

fn compare() -> ExitCode {
    let setting = |name: &str, default: usize| {
        env::var(name).map_or(default, |value| {
            value
                .parse()
                .unwrap_or_else(|_| panic!("{name} is a number"))
        })
    };
    let pairs = setting("INFORMERD_BENCH_PAIRS", 7);
    let seconds = setting("INFORMERD_BENCH_SECONDS", 20);
    let changes = seconds * CHANGES_A_SECOND;
    println!(
        "{READERS} readers of {OBJECTS} objects of 1 KB, {CHANGES_A_SECOND} changes a second for {seconds} s, \
         {pairs} pairs of runs"
    );
    println!(
        "{:<28} {:>10} {:>10} {:>14} {:>14} {:>14}",
        "", "p50 ms", "p99 ms", "server CPU s", "growth MiB", "open streams"
    );
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        alone.push(run(changes, false));
        beside.push(run(changes, true));
    }
    let of = |runs: &[Run], number: fn(&Run) -> f64| median(runs.iter().map(number).collect());
    for (name, runs) in [
        ("readers alone", &alone),
        ("beside the hostile one", &beside),
    ] {
        println!(
            "{name:<28} {:>10.3} {:>10.3} {:>14.2} {:>14.1} {:>14.0}",
            of(runs, |run| run.p50),
            of(runs, |run| run.p99),
            of(runs, |run| run.cpu),
            of(runs, |run| run.growth),
            of(runs, |run| run.open),
        );
    }
    let ratios = beside.iter().zip(&alone).map(|(a, b)| a.p99 / b.p99);
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let limits = Settings::default().limits;
    let bound = mib(Limits::default().journal_bytes) + mib(limits.bytes_of_one);
    let worst = |number: fn(&Run) -> f64| beside.iter().map(number).fold(0.0, f64::max);
    let mut report = Report::default();
    report.at_most(
        "p99 to the readers' alone",
        median(ratios.collect()),
        LIMIT_P99,
    );
    report.at_most(
        "growth in MiB, at worst",
        worst(|run| run.growth),
        LIMIT_GROWTH + bound,
    );
    report.at_most(
        "streams that were let in, at worst",
        worst(|run| run.open),
        (limits.calls_of_one + READERS) as f64,
    );
    report.end()
}

fn run(changes: usize, with_hostile: bool) -> Run {
    let changes = changes.to_string();
    let mut server = Role::start(&["server", &changes]);
    let port = server.hear();
    let mut readers = Role::start(&["readers", &port, &changes]);
    assert_eq!(readers.hear(), "ready");
    let (before, cpu) = (server.rss(), server.cpu());
    let hostile = with_hostile.then(|| {
        let mut hostile = Role::start(&["hostile", &port]);
        assert_eq!(hostile.hear(), "hostile");
        hostile
    });
    server.tell("feed");
    let open = server.hear();
    let latencies = readers.hear();
    let (growth, cpu) = (server.rss() - before, server.cpu() - cpu);
    drop(hostile);
    let (p50, p99) = latencies.split_once(' ').expect("two numbers");
    Run {
        p50: p50.parse().expect("a number"),
        p99: p99.parse().expect("a number"),
        cpu,
        growth,
        open: open.parse().expect("a number"),
    }
}

/// Every token is its own user's, who may do everything: what is left are the limits.
struct Everybody;

impl Reviews for Everybody {
    fn token<'a>(
        &'a self,
        token: &'a Token,
        audience: &'a str,
    ) -> BoxFuture<'a, Result<Option<TokenOwner>, ReviewError>> {
        let identity = Identity {
            user: token.expose().to_owned(),
            ..Identity::default()
        };
        let audiences = vec![audience.to_owned()];
        let owner = TokenOwner {
            identity,
            audiences,
        };
        Box::pin(async move { Ok(Some(owner)) })
    }

    fn access<'a>(
        &'a self,
        _: &'a Identity,
        _: &'a Attributes,
    ) -> BoxFuture<'a, Result<Decision, ReviewError>> {
        Box::pin(async { Ok(Decision::Allowed) })
    }
}

/// The server: feeds once it is told to, and stays until it is ended.
fn serve(changes: usize) {
    let runtime = Runtime::new().expect("a runtime");
    let objects = (0..OBJECTS).map(|n| Arc::new(pod(n, 1, 0))).collect();
    let how = Authentication {
        token_audience: Some(AUDIENCE.to_owned()),
        ..Authentication::default()
    };
    let guard = Guard::new(how, Arc::new(Everybody), Settings::default());
    let access = Access::Guarded {
        guard: guard.expect("the system has randomness"),
        names: Arc::new(|_| None),
    };
    let (writer, api) = server::shard(objects, access);
    let (listener, port) = runtime.block_on(server::listen());
    let consumers = api.consumers().clone();
    let watched = consumers.clone();
    runtime.spawn(async move { watched.watch_over(|| ()).await });
    runtime.spawn(server::serve(api, listener));
    println!("{port}");
    if order().is_none() {
        return;
    }
    // On a thread of its own, as sources are.
    let feeding = thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(feed(writer, changes))
    });
    // Kept: it is the shard's only one.
    let _writer = feeding.join().expect("the feed ends well");
    println!("{}", consumers.list().len());
    order();
}

async fn feed(mut writer: Writer<Object>, changes: usize) -> Writer<Object> {
    let start = Instant::now();
    for fed in 0..changes {
        let revision = fed as u64 + 2;
        writer.upsert(
            Arc::new(pod(fed % OBJECTS, revision, unix_nanos())),
            revision,
        );
        if (fed + 1) % BATCH == 0 {
            writer.publish(std::time::Instant::now());
            let due = (fed + 1) as f64 / CHANGES_A_SECOND as f64;
            sleep_until(start + Duration::from_secs_f64(due)).await;
        }
    }
    writer
}

fn unix_nanos() -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
    u64::try_from(now.as_nanos()).expect("before 2554")
}

/// The readers: all of them have their state, then the changes up to the last; says how late those were.
fn read(port: u16, changes: usize) {
    let last = changes as u64 + 1;
    let runtime = Runtime::new().expect("a runtime");
    let all = Arc::new(Mutex::new(
        Histogram::<u64>::new(3).expect("three digits are few"),
    ));
    runtime.block_on(async {
        let mut readers = Vec::new();
        for _ in 0..READERS {
            let mut stream = sink::watch(sink::connect(port).await, Some("good")).await;
            let all = all.clone();
            readers.push(tokio::spawn(async move {
                let mut latencies = Histogram::<u64>::new(3).expect("three digits are few");
                // Whoever is late is sent less than all, but always the last.
                let mut seen = 0;
                while seen < last {
                    let message = sink::next(&mut stream).await;
                    let now = unix_nanos();
                    for event in &message.events {
                        seen = event.revision;
                        latencies += now.saturating_sub(event.received_unix_nanos);
                    }
                }
                let mut all = all.lock().expect("nobody panics with it");
                all.add(latencies).expect("they grow");
            }));
        }
        println!("ready");
        for reader in readers {
            reader.await.expect("it reads to the end");
        }
    });
    let all = all.lock().expect("nobody panics with it");
    let millis = |quantile| all.value_at_quantile(quantile) as f64 / 1_000_000.0;
    println!("{} {}", millis(0.50), millis(0.99));
    order();
}

/// The hostile one, until it is ended.
fn attack(port: u16) {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let _hostile = Hostile::begin(port, "hostile", "pods").await;
        println!("hostile");
        // Its tasks have this thread.
        std::future::pending::<()>().await;
    });
}
