//! What the server pays to deliver one event, beside a broadcast channel whose every stream encodes for itself.
//!
//! Both servers are fed alike, by a writer that changes and publishes, both send the same events with the same
//! marks, and the clients are the same. Pairs of runs are interleaved, and the limits are on ratios. They hold for
//! servers that are busy: fed as fast as their clients take it. How it is at a gentle pace, where waking up costs
//! more than what is done then, and where each stream has a connection to itself, is shown beside. README.md has
//! the reasons.

use std::{
    env,
    pin::Pin,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use informerd::{
    api::Access,
    cache::Writer,
    object::Object,
    proto::{
        self, Event, EventType, Freshness, GetObjectRequest, GetObjectResponse, KindState,
        ListObjectsRequest, ListObjectsResponse, Mark, MarkType, ShardPosition,
        WatchObjectsRequest, WatchObjectsResponse,
        cache_service_server::{CacheService, CacheServiceServer},
    },
};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::{broadcast, watch as channel},
    time::{Instant, sleep, sleep_until},
};
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status, transport::Server};

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

/// What is compared.
const CASES: [Case; 6] = [
    Case::new(1, 1, 200_000),
    Case::new(100, 25, 10_000).limit(0.45),
    Case::new(1_000, 25, 1_000).limit(0.65),
    Case::new(100, 1, 5_000),
    Case::new(100, 25, 3_000).pace(600),
    Case::new(1_000, 25, 300).pace(60),
];
/// Events that are fed before the clients have taken them, where the pace is theirs. Less than what is sent to a
/// late stream unfolded.
const AHEAD: u64 = 100;
/// Changes a publish; one after the other, over and over.
const BATCHES: [usize; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
const OBJECTS: usize = 5_000;

fn main() -> ExitCode {
    let Some(arguments) = Role::arguments() else {
        return compare();
    };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<usize>().expect("a number");
    match arguments[..] {
        ["server", mode, streams, events, pace] => {
            serve(mode, number(streams), number(events), number(pace));
        }
        ["client", port, streams, together, events] => {
            let port = port.parse().expect("a port");
            drain(port, number(streams), number(together), number(events));
        }
        _ => panic!("no such role: {arguments:?}"),
    }
    ExitCode::SUCCESS
}

/// So many streams, and so many events for each of them.
struct Case {
    streams: usize,
    /// Streams that share a connection.
    together: usize,
    events: usize,
    /// Events a second; as fast as the clients take them where absent.
    pace: Option<usize>,
    /// Most that the ratio may be.
    limit: Option<f64>,
}

impl Case {
    const fn new(streams: usize, together: usize, events: usize) -> Self {
        Self {
            streams,
            together,
            events,
            pace: None,
            limit: None,
        }
    }

    const fn limit(self, limit: f64) -> Self {
        Self {
            limit: Some(limit),
            ..self
        }
    }

    const fn pace(self, pace: usize) -> Self {
        Self {
            pace: Some(pace),
            ..self
        }
    }

    fn deliveries(&self) -> u64 {
        (self.streams * self.events) as u64
    }
}

/// What one run came to.
struct Run {
    /// Processor seconds of the server for a million deliveries.
    cpu: f64,
    /// Of the server, in MiB.
    rss: f64,
    delivered: u64,
}

fn compare() -> ExitCode {
    let pairs = env::var("INFORMERD_BENCH_PAIRS").map_or(7, |pairs| {
        pairs.parse().expect("INFORMERD_BENCH_PAIRS is a number")
    });
    let mut report = Report::default();
    println!(
        "server CPU in seconds for a million deliveries of 1 KB, its memory in MiB, median of {pairs} pairs"
    );
    println!(
        "{:>8} {:>12} {:>10} {:>16} {:>8} {:>16} {:>8} {:>8} {:>8} {:>12}",
        "streams",
        "a connection",
        "events/s",
        "informerd: CPU",
        "memory",
        "broadcast: CPU",
        "memory",
        "ratio",
        "limit",
        "deliveries"
    );
    let mut lost = 0;
    let mut checks = Vec::new();
    for case in CASES {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..pairs {
            ours.push(run("informerd", &case));
            theirs.push(run("broadcast", &case));
        }
        let all = ours.iter().chain(&theirs);
        lost += all
            .map(|run| case.deliveries() - run.delivered)
            .sum::<u64>();
        let of = |runs: &[Run], number: fn(&Run) -> f64| median(runs.iter().map(number).collect());
        let ratios = ours.iter().zip(&theirs).map(|(a, b)| a.cpu / b.cpu);
        let ratio = median(ratios.collect());
        println!(
            "{:>8} {:>12} {:>10} {:>16.3} {:>8.0} {:>16.3} {:>8.0} {ratio:>8.2} {:>8} {:>12}",
            case.streams,
            case.together,
            case.pace
                .map_or_else(|| "all".to_owned(), |pace| pace.to_string()),
            of(&ours, |run| run.cpu),
            of(&ours, |run| run.rss),
            of(&theirs, |run| run.cpu),
            of(&theirs, |run| run.rss),
            case.limit
                .map_or_else(String::new, |limit| format!("{limit:.2}")),
            case.deliveries(),
        );
        if let Some(limit) = case.limit {
            let name = format!("CPU a delivery to broadcast's, {} streams", case.streams);
            checks.push((name, ratio, limit));
        }
    }
    for (name, ratio, limit) in checks {
        report.at_most(&name, ratio, limit);
    }
    report.at_most("events folded away or lost", lost as f64, 0.0);
    report.end()
}

fn run(mode: &str, case: &Case) -> Run {
    let (streams, events) = (case.streams.to_string(), case.events.to_string());
    let pace = case.pace.unwrap_or(0).to_string();
    let mut server = Role::start(&["server", mode, &streams, &events, &pace]);
    let port = server.hear();
    let together = case.together.to_string();
    let mut client = Role::start(&["client", &port, &streams, &together, &events]);
    assert_eq!(client.hear(), "ready");
    let before = server.cpu();
    server.tell("feed");
    // The client's counts, passed on until it has all, or gets no more.
    let mut delivered = 0;
    loop {
        let line = client.hear();
        if line == "end" {
            break;
        }
        delivered = line.parse().expect("a number");
        server.tell(&line);
    }
    Run {
        cpu: (server.cpu() - before) / delivered as f64 * 1_000_000.0,
        rss: server.rss(),
        delivered,
    }
}

/// The server: feeds once it is told to, and stays until it is ended. `pace` is 0 for that of the clients.
fn serve(mode: &str, streams: usize, events: usize, pace: usize) {
    let runtime = Runtime::new().expect("a runtime");
    let objects: Vec<Object> = (0..OBJECTS).map(|n| pod(n, 1, 0)).collect();
    let (writer, api) = server::shard(Vec::new(), Access::Open);
    let (listener, port) = runtime.block_on(server::listen());
    // Nobody may lose anything, however late: room for all.
    #[expect(clippy::disallowed_methods, reason = "this is what it is refused for")]
    let (broadcast, _) = broadcast::channel(events);
    let broadcast = (mode == "broadcast").then_some(broadcast);
    match &broadcast {
        None => runtime.spawn(server::serve(api, listener)),
        Some(broadcast) => runtime.spawn(serve_broadcast(broadcast.clone(), listener)),
    };
    println!("{port}");
    if order().is_none() {
        return;
    }
    let (delivered, room) = channel::channel(0);
    runtime.spawn(feed(
        writer, objects, broadcast, streams, events, pace, room,
    ));
    while let Some(count) = order() {
        // The feed may be through.
        let _ = delivered.send(count.parse().expect("a number"));
    }
}

/// Changes the shard, and broadcasts the changes where there is a channel.
async fn feed(
    mut writer: Writer<Object>,
    objects: Vec<Object>,
    broadcast: Option<broadcast::Sender<WatchObjectsResponse>>,
    streams: usize,
    events: usize,
    pace: usize,
    mut delivered: channel::Receiver<u64>,
) {
    let start = Instant::now();
    let mut fed = 0;
    for batch in BATCHES.into_iter().cycle() {
        let until = events.min(fed + batch);
        let mut message = WatchObjectsResponse::default();
        for n in fed..until {
            let revision = n as u64 + 2;
            let object = Arc::new(Object {
                resource_version: revision.to_string().into(),
                received_unix_nanos: revision,
                ..objects[n % OBJECTS].clone()
            });
            if broadcast.is_some() {
                message.events.push(event(&object, revision));
            }
            writer.upsert(object, revision);
        }
        writer.publish(std::time::Instant::now());
        if let Some(broadcast) = &broadcast {
            message.mark = Some(mark(MarkType::Progress, until as u64 + 1));
            // Whoever left does not matter here.
            let _ = broadcast.send(message);
        }
        fed = until;
        if fed == events {
            return;
        }
        if pace > 0 {
            sleep_until(start + Duration::from_secs_f64(fed as f64 / pace as f64)).await;
            continue;
        }
        let has_room = |delivered: &u64| fed as u64 <= delivered / streams as u64 + AHEAD;
        if delivered.wait_for(has_room).await.is_err() {
            return;
        }
    }
}

/// The client: drains all streams until everything that was fed has come, or nothing comes any more.
fn drain(port: u16, streams: usize, together: usize, events: usize) {
    let expected = (streams * events) as u64;
    let delivered = Arc::new(AtomicU64::new(0));
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut channel = sink::connect(port).await;
        for opened in 0..streams {
            if opened % together == 0 {
                channel = sink::connect(port).await;
            }
            let mut stream = sink::watch(channel.clone(), None).await;
            let delivered = delivered.clone();
            tokio::spawn(async move {
                loop {
                    let message = sink::next(&mut stream).await;
                    delivered.fetch_add(message.events.len() as u64, Ordering::Relaxed);
                }
            });
        }
        println!("ready");
        let (mut last, mut progress) = (0, Instant::now());
        loop {
            let now = delivered.load(Ordering::Relaxed);
            if now != last {
                (last, progress) = (now, Instant::now());
                println!("{now}");
            }
            if now >= expected || progress.elapsed() > Duration::from_secs(10) {
                println!("end");
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
    });
    order();
}

/// The usual way: a channel with a receiver for each stream, whose messages are encoded as they are sent.
struct Broadcast(broadcast::Sender<WatchObjectsResponse>);

async fn serve_broadcast(
    broadcast: broadcast::Sender<WatchObjectsResponse>,
    listener: TcpListener,
) {
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .add_service(CacheServiceServer::new(Broadcast(broadcast)))
        .serve_with_incoming(incoming)
        .await
        .expect("the service is served");
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl CacheService for Broadcast {
    type ListObjectsStream = Answers<ListObjectsResponse>;
    type WatchObjectsStream = Answers<WatchObjectsResponse>;

    async fn get_object(
        &self,
        _: Request<GetObjectRequest>,
    ) -> Result<Response<GetObjectResponse>, Status> {
        Err(Status::unimplemented("only watches"))
    }

    async fn list_objects(
        &self,
        _: Request<ListObjectsRequest>,
    ) -> Result<Response<Self::ListObjectsStream>, Status> {
        Err(Status::unimplemented("only watches"))
    }

    async fn watch_objects(
        &self,
        _: Request<WatchObjectsRequest>,
    ) -> Result<Response<Self::WatchObjectsStream>, Status> {
        let initial = WatchObjectsResponse {
            mark: Some(mark(MarkType::ResetEnd, 1)),
            ..WatchObjectsResponse::default()
        };
        let changes = BroadcastStream::new(self.0.subscribe())
            .map(|message| message.map_err(|_| Status::data_loss("lagged")));
        let all = stream::iter([Ok(initial)]).chain(changes);
        Ok(Response::new(Box::pin(all)))
    }
}

fn event(object: &Object, revision: u64) -> Event {
    Event {
        r#type: EventType::Upsert.into(),
        revision,
        namespace: object.key.namespace().to_owned(),
        name: object.key.name().to_owned(),
        uid: object.uid.to_string(),
        resource_version: object.resource_version.to_string(),
        object: object.json.clone(),
        received_unix_nanos: object.received_unix_nanos,
        ..Event::default()
    }
}

/// As long as a true one.
fn mark(r#type: MarkType, revision: u64) -> Mark {
    Mark {
        r#type: r#type.into(),
        token: Bytes::from_static(&[7; 60]),
        freshness: Some(Freshness {
            positions: vec![ShardPosition {
                revision,
                ..ShardPosition::default()
            }],
            age: Some(prost_types::Duration::default()),
            state: KindState::Live.into(),
            pruned: true,
            ..proto::Freshness::default()
        }),
        ..Mark::default()
    }
}
