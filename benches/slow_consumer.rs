//! What a consumer that does not read costs those that do: nothing, within what can be measured.
//!
//! Twenty consumers read in a process of their own, and, in every other run, one more does not, on a connection of
//! its own. Compared are the twenty's latencies. The one that did not read is then let go on, and must end up with
//! what is there.

use std::{
    collections::HashMap,
    env,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use hdrhistogram::Histogram;
use informerd::{
    api::Access,
    cache::{Limits, Writer},
    digest,
    object::Object,
    proto::{
        EventType, MarkType, Scope, View, WatchObjectsRequest,
        cache_service_client::CacheServiceClient,
    },
};
use tokio::{
    runtime::{self, Runtime},
    time::{Instant, sleep_until},
};

mod common {
    pub mod objects;
    pub mod process;
    pub mod report;
    pub mod server;
    pub mod sink;
}
use common::{
    objects::pod,
    process::{Role, order},
    report::{Report, median},
    server, sink,
};

const READERS: usize = 20;
const OBJECTS: usize = 5_000;
const CHANGES_A_SECOND: usize = 5_000;
/// Changes a publish.
const BATCH: usize = 5;

/// Most p99 of the readers, as a multiple of the same without the one that does not read.
const LIMIT_P99: f64 = 1.3;
/// Most MiB that the server grows by in a run, besides the journal.
const LIMIT_GROWTH: f64 = 16.0;
/// Most seconds until the one that did not read has caught up, once it reads.
const LIMIT_CONVERGENCE: f64 = 10.0;

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
        ["sleeper", port, changes] => {
            let port = port.parse().expect("a port");
            sleep_and_read(port, changes.parse().expect("a number"));
        }
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
    /// Seconds until the sleeper had everything, where there was one.
    converged: f64,
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
        "", "p50 ms", "p99 ms", "server CPU s", "growth MiB", "converged s"
    );
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        alone.push(run(changes, false));
        beside.push(run(changes, true));
    }
    let of = |runs: &[Run], number: fn(&Run) -> f64| median(runs.iter().map(number).collect());
    for (name, runs) in [
        ("readers alone", &alone),
        ("beside one that sleeps", &beside),
    ] {
        println!(
            "{name:<28} {:>10.3} {:>10.3} {:>14.2} {:>14.1} {:>14.2}",
            of(runs, |run| run.p50),
            of(runs, |run| run.p99),
            of(runs, |run| run.cpu),
            of(runs, |run| run.growth),
            of(runs, |run| run.converged),
        );
    }
    let ratios = beside.iter().zip(&alone).map(|(a, b)| a.p99 / b.p99);
    let journal = Limits::default().journal_bytes as f64 / f64::from(1 << 20);
    let worst = |number: fn(&Run) -> f64| beside.iter().map(number).fold(0.0, f64::max);
    let mut report = Report::default();
    report.at_most(
        "p99 to the readers' alone",
        median(ratios.collect()),
        LIMIT_P99,
    );
    report.at_most(
        "growth in MiB, the journal's bound included",
        worst(|run| run.growth),
        LIMIT_GROWTH + journal,
    );
    report.at_most(
        "seconds to converge, at worst",
        worst(|run| run.converged),
        LIMIT_CONVERGENCE,
    );
    report.end()
}

fn run(changes: usize, with_sleeper: bool) -> Run {
    let changes = changes.to_string();
    let mut server = Role::start(&["server", &changes]);
    let port = server.hear();
    let mut readers = Role::start(&["readers", &port, &changes]);
    assert_eq!(readers.hear(), "ready");
    let mut sleeper = with_sleeper.then(|| Role::start(&["sleeper", &port, &changes]));
    if let Some(sleeper) = &mut sleeper {
        assert_eq!(sleeper.hear(), "asleep");
    }
    let (before, cpu) = (server.rss(), server.cpu());
    server.tell("feed");
    assert_eq!(server.hear(), "fed");
    let latencies = readers.hear();
    let (growth, cpu) = (server.rss() - before, server.cpu() - cpu);
    let converged = sleeper.map_or(0.0, |mut sleeper| {
        sleeper.tell("read");
        sleeper.hear().parse().expect("seconds")
    });
    let (p50, p99) = latencies.split_once(' ').expect("two numbers");
    Run {
        p50: p50.parse().expect("a number"),
        p99: p99.parse().expect("a number"),
        cpu,
        growth,
        converged,
    }
}

/// The server: feeds once it is told to, and stays until it is ended.
fn serve(changes: usize) {
    let runtime = Runtime::new().expect("a runtime");
    let objects = (0..OBJECTS).map(|n| Arc::new(pod(n, 1, 0))).collect();
    let (writer, api) = server::shard(objects, Access::Open);
    let (listener, port) = runtime.block_on(server::listen());
    let consumers = api.consumers().clone();
    runtime.spawn(async move { consumers.watch_over(|| ()).await });
    runtime.spawn(server::serve(api, listener));
    println!("{port}");
    if order().is_none() {
        return;
    }
    let feed = runtime.spawn(feed(writer, changes));
    // Kept: it is the shard's only one.
    let _writer = runtime.block_on(feed).expect("the feed ends well");
    println!("fed");
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
            let mut stream = sink::watch(sink::connect(port).await, None).await;
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

/// The one that does not read: it has its state, then leaves its socket alone until it is told to go on. Ends when
/// what it holds is what the server says is there at the last revision.
fn sleep_and_read(port: u16, changes: usize) {
    let last = changes as u64 + 1;
    // One thread: while that waits for orders, nobody reads the socket.
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let request = WatchObjectsRequest {
            scope: Some(Scope {
                resource: "pods".into(),
                ..Scope::default()
            }),
            view: View::Full.into(),
            digests: true,
            ..WatchObjectsRequest::default()
        };
        let mut client =
            CacheServiceClient::new(sink::connect(port).await).max_decoding_message_size(64 << 20);
        let stream = client.watch_objects(request).await;
        let mut stream = stream.expect("the watch opens").into_inner();
        let mut held: HashMap<String, u64> = HashMap::new();
        let mut began = None;
        loop {
            let message = stream.message().await.expect("the stream goes on");
            let message = message.expect("the stream goes on");
            for event in message.events {
                let key = format!("{}/{}", event.namespace, event.name);
                match event.r#type() {
                    EventType::Delete => drop(held.remove(&key)),
                    _ => {
                        let entry = digest::entry(&key, &event.uid, &event.resource_version);
                        held.insert(key, entry);
                    }
                }
            }
            let Some(mark) = message.mark else { continue };
            match mark.r#type() {
                MarkType::Reset => held.clear(),
                MarkType::ResetEnd if began.is_none() => {
                    println!("asleep");
                    order();
                    began = Some(Instant::now());
                }
                _ => {}
            }
            let freshness = mark.freshness.unwrap_or_default();
            let is_last = freshness
                .positions
                .iter()
                .any(|position| position.revision == last && position.has_digest);
            if let (Some(began), true) = (began, is_last) {
                let digest = held
                    .values()
                    .fold(0_u64, |sum, entry| sum.wrapping_add(*entry));
                assert_eq!(
                    digest, freshness.positions[0].digest,
                    "what the sleeper holds is what is there"
                );
                println!("{}", began.elapsed().as_secs_f64());
                break;
            }
        }
    });
    order();
}
