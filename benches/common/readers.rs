//! Consumers that read, in a process of their own: by themselves in one run, and in the next beside one that is not as
//! they are. Compared are their latencies.

use std::{
    env,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use hdrhistogram::Histogram;
use informerd::{cache::Writer, object::Object};
use tokio::{
    runtime::Runtime,
    time::{Instant, sleep_until},
};

use crate::common::{
    objects::pod,
    process::{Role, order},
    report::median,
    sink,
};

/// Objects of 1 KB that there are.
const OBJECTS: usize = 5_000;
/// Changes a publish.
const BATCH: usize = 5;

/// What the readers read.
#[derive(Clone, Copy)]
pub struct Load {
    pub readers: usize,
    pub changes_a_second: usize,
    /// Whether each has a token, and so an identity, of its own.
    pub tokens: bool,
}

/// What one run came to.
pub struct Run {
    /// Milliseconds from the feed to the readers.
    pub p50: f64,
    pub p99: f64,
    /// Seconds of the server's processor time.
    pub cpu: f64,
    /// MiB that the server grew by.
    pub growth: f64,
    /// What else is of interest, of the other one.
    pub other: f64,
}

/// Runs of both sorts, by turns.
pub struct Pairs {
    alone: Vec<Run>,
    beside: Vec<Run>,
}

impl Load {
    /// Makes as many pairs of runs as the environment says, of as many changes, and prints their medians. `beside` names
    /// the other one, `other` what of it is of interest.
    pub fn compare(&self, beside: &str, other: &str, run: fn(usize, bool) -> Run) -> Pairs {
        let pairs = setting("INFORMERD_BENCH_PAIRS", 7);
        let seconds = setting("INFORMERD_BENCH_SECONDS", 20);
        let (readers, rate) = (self.readers, self.changes_a_second);
        println!(
            "{readers} readers of {OBJECTS} objects of 1 KB, {rate} changes a second for {seconds} s, {pairs} pairs of runs"
        );
        println!(
            "{:<28} {:>10} {:>10} {:>14} {:>14} {other:>14}",
            "", "p50 ms", "p99 ms", "server CPU s", "growth MiB"
        );
        let mut all = Pairs {
            alone: Vec::new(),
            beside: Vec::new(),
        };
        for _ in 0..pairs {
            all.alone.push(run(seconds * rate, false));
            all.beside.push(run(seconds * rate, true));
        }
        for (name, runs) in [("readers alone", &all.alone), (beside, &all.beside)] {
            let of = |number: fn(&Run) -> f64| median(runs.iter().map(number).collect());
            println!(
                "{name:<28} {:>10.3} {:>10.3} {:>14.2} {:>14.1} {:>14.2}",
                of(|run| run.p50),
                of(|run| run.p99),
                of(|run| run.cpu),
                of(|run| run.growth),
                of(|run| run.other),
            );
        }
        let ratios: Vec<_> = all
            .p99_ratios()
            .map(|ratio| format!("{ratio:.2}"))
            .collect();
        println!("p99 to the readers' alone, by pairs: {}", ratios.join(" "));
        all
    }

    /// What the server has at first, at revision 1.
    pub fn objects() -> Vec<Arc<Object>> {
        (0..OBJECTS).map(|n| Arc::new(pod(n, 1, 0))).collect()
    }

    /// Changes objects, at its pace. Returns the writer, which is the shard's only one.
    pub async fn feed(self, mut writer: Writer<Object>, changes: usize) -> Writer<Object> {
        let start = Instant::now();
        for fed in 0..changes {
            let revision = fed as u64 + 2;
            writer.upsert(
                Arc::new(pod(fed % OBJECTS, revision, unix_nanos())),
                revision,
            );
            if (fed + 1) % BATCH == 0 {
                writer.publish(std::time::Instant::now());
                let due = (fed + 1) as f64 / self.changes_a_second as f64;
                sleep_until(start + Duration::from_secs_f64(due)).await;
            }
        }
        writer
    }

    /// The readers' role: all of them have their state, then the changes up to the last; says how late those were.
    pub fn read(&self, port: u16, changes: usize) {
        let last = last(changes);
        let runtime = Runtime::new().expect("a runtime");
        let all = Arc::new(Mutex::new(
            Histogram::<u64>::new(3).expect("three digits are few"),
        ));
        runtime.block_on(async {
            let mut readers = Vec::new();
            for reader in 0..self.readers {
                let token = self.tokens.then(|| format!("reader-{reader}"));
                let mut stream = sink::watch(sink::connect(port).await, token.as_deref()).await;
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
}

impl Pairs {
    /// The readers' p99 beside the other one to that alone, in the middle pair.
    pub fn p99_ratio(&self) -> f64 {
        median(self.p99_ratios().collect())
    }

    fn p99_ratios(&self) -> impl Iterator<Item = f64> {
        let pairs = self.beside.iter().zip(&self.alone);
        pairs.map(|(a, b)| a.p99 / b.p99)
    }

    /// The largest of a number of the runs beside the other one.
    pub fn worst(&self, number: fn(&Run) -> f64) -> f64 {
        self.beside.iter().map(number).fold(0.0, f64::max)
    }
}

/// A run that goes on: a server, and readers that have its state.
pub struct Stage {
    server: Role,
    readers: Role,
    /// Where the server listens.
    pub port: String,
    /// Its memory and its processor time, where counting began.
    before: (f64, f64),
}

impl Stage {
    /// With roles `server` and `readers`; nothing is fed yet.
    pub fn start(changes: usize) -> Self {
        let changes = changes.to_string();
        let mut server = Role::start(&["server", &changes]);
        let port = server.hear();
        let mut readers = Role::start(&["readers", &port, &changes]);
        assert_eq!(readers.hear(), "ready");
        Self {
            before: (0.0, 0.0),
            server,
            readers,
            port,
        }
    }

    /// Counts from now on.
    pub fn count_from_here(&mut self) {
        self.before = (self.server.rss(), self.server.cpu());
    }

    /// Has the server feed, and returns what it says when it has.
    pub fn feed(&mut self) -> String {
        self.server.tell("feed");
        self.server.hear()
    }

    /// Once the readers have read all. The server stays until the stage is dropped.
    pub fn result(&mut self) -> Run {
        let latencies = self.readers.hear();
        let (rss, cpu) = self.before;
        let (p50, p99) = latencies.split_once(' ').expect("two numbers");
        Run {
            growth: self.server.rss() - rss,
            cpu: self.server.cpu() - cpu,
            p50: p50.parse().expect("a number"),
            p99: p99.parse().expect("a number"),
            other: 0.0,
        }
    }
}

/// The last revision of so many changes.
pub fn last(changes: usize) -> u64 {
    changes as u64 + 1
}

fn setting(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |value| {
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

fn unix_nanos() -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
    u64::try_from(now.as_nanos()).expect("before 2554")
}
