//! What a consumer that does not read costs those that do: nothing, within what can be measured.
//!
//! Twenty consumers read in a process of their own, and, in every other run, one more does not, on a connection of
//! its own. Compared are the twenty's latencies. The one that did not read is then let go on, and must end up with
//! what is there.

use std::{collections::HashMap, process::ExitCode};

use informerd::{
    api::Access,
    cache::Limits,
    digest,
    proto::{
        EventType, MarkType, Scope, View, WatchObjectsRequest,
        cache_service_client::CacheServiceClient,
    },
};
use tokio::{
    runtime::{self, Runtime},
    time::Instant,
};

mod common {
    pub mod objects;
    pub mod process;
    pub mod readers;
    pub mod report;
    pub mod server;
    pub mod sink;
}
use common::{
    process::{Role, order},
    readers::{Load, Run, Stage, last},
    report::Report,
    server, sink,
};

const LOAD: Load = Load {
    readers: 20,
    changes_a_second: 5_000,
    tokens: false,
};

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
            LOAD.read(port, changes.parse().expect("a number"));
        }
        ["sleeper", port, changes] => {
            let port = port.parse().expect("a port");
            sleep_and_read(port, changes.parse().expect("a number"));
        }
        _ => panic!("no such role: {arguments:?}"),
    }
    ExitCode::SUCCESS
}

fn compare() -> ExitCode {
    let pairs = LOAD.compare("beside one that sleeps", "converged s", run);
    let journal = Limits::default().journal_bytes as f64 / f64::from(1 << 20);
    let mut report = Report::default();
    report.at_most("p99 to the readers' alone", pairs.p99_ratio(), LIMIT_P99);
    report.at_most(
        "growth in MiB, the journal's bound included",
        pairs.worst(|run| run.growth),
        LIMIT_GROWTH + journal,
    );
    report.at_most(
        "seconds to converge, at worst",
        pairs.worst(|run| run.other),
        LIMIT_CONVERGENCE,
    );
    report.end()
}

fn run(changes: usize, with_sleeper: bool) -> Run {
    let mut stage = Stage::start(changes);
    let changes = changes.to_string();
    let mut sleeper = with_sleeper.then(|| Role::start(&["sleeper", &stage.port, &changes]));
    if let Some(sleeper) = &mut sleeper {
        assert_eq!(sleeper.hear(), "asleep");
    }
    stage.count_from_here();
    assert_eq!(stage.feed(), "fed");
    let run = stage.result();
    let converged = sleeper.map_or(0.0, |mut sleeper| {
        sleeper.tell("read");
        sleeper.hear().parse().expect("seconds")
    });
    Run {
        other: converged,
        ..run
    }
}

/// The server: feeds once it is told to, and stays until it is ended.
fn serve(changes: usize) {
    let runtime = Runtime::new().expect("a runtime");
    let (writer, api) = server::shard(Load::objects(), Access::Open);
    let (listener, port) = runtime.block_on(server::listen());
    let consumers = api.consumers().clone();
    runtime.spawn(async move { consumers.watch_over(|| ()).await });
    runtime.spawn(server::serve(api, listener));
    println!("{port}");
    if order().is_none() {
        return;
    }
    let feed = runtime.spawn(LOAD.feed(writer, changes));
    // Kept: it is the shard's only one.
    let _writer = runtime.block_on(feed).expect("the feed ends well");
    println!("fed");
    order();
}

/// The one that does not read: it has its state, then leaves its socket alone until it is told to go on. Ends when
/// what it holds is what the server says is there at the last revision.
fn sleep_and_read(port: u16, changes: usize) {
    let last = last(changes);
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
