//! What it costs the one writer to change a shard and to publish the change, beside the least that any cache
//! pays: an insert into a map behind a lock.
//!
//! A plain main, like the other benches, because the limits are on ratios of one run and on counted memory.

use std::{
    alloc::System,
    collections::BTreeMap,
    process::ExitCode,
    sync::{Arc, RwLock},
    time::Instant,
};

use informerd::{
    cache::{History, Limits, Unreadable, Writer},
    object::{Key, Object},
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

mod common {
    pub mod objects;
    pub mod report;
}
use common::{
    objects::pod,
    report::{Report, median},
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const COUNTS: [usize; 2] = [5_000, 100_000];
const BATCHES: [usize; 3] = [1, 10, 100];
const ROUNDS: usize = 41;
/// Changes of a round.
const CHANGES: usize = 1_000;

/// Most microseconds for a change that is published by itself, at the larger count.
const LIMIT_MICROS: f64 = 25.0;
/// Most time for a change, as a multiple of a map's insert, published by itself and in batches of 100, at the
/// larger count.
const LIMIT_TO_MAP: [f64; 3] = [20.0, 16.0, 14.0];
/// Most bytes that the cache holds for an object besides its JSON.
const LIMIT_BYTES: f64 = 700.0;
/// Most that a shard with a full journal holds, as a multiple of what it counts: its bound is only as good. The maps
/// are not counted.
const LIMIT_COUNT: f64 = 1.05;

type Map = RwLock<BTreeMap<Key, Arc<Object>>>;

fn main() -> ExitCode {
    let mut report = Report::default();
    println!("median of {ROUNDS} rounds of {CHANGES} changes, objects made beforehand");
    println!(
        "{:>8} {:>20} {:>12} {:>12} {:>8}",
        "objects", "changes a publish", "us/change", "us/publish", "to map"
    );
    let mut checks = Vec::new();
    for count in COUNTS {
        let objects: Vec<_> = (0..count).map(|n| Arc::new(pod(n, 1, 0))).collect();
        let map: Map = RwLock::new(
            objects
                .iter()
                .map(|object| (object.key.clone(), object.clone()))
                .collect(),
        );
        let mut writer = shard(objects);
        let mut feed = Feed {
            count,
            revision: 1,
            step: 7_919,
        };
        // The journal is as full as it will be.
        for _ in 0..60 {
            publish(&mut writer, feed.next(CHANGES), 100);
        }
        for (batch, limit) in BATCHES.into_iter().zip(LIMIT_TO_MAP) {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let changes = feed.next(CHANGES);
                let same = changes.clone();
                ours.push(publish(&mut writer, changes, batch));
                theirs.push(insert(&map, same));
            }
            let (ours, theirs) = (median(ours), median(theirs));
            let ratio = ours / theirs;
            println!(
                "{count:>8} {batch:>20} {ours:>12.2} {:>12.2} {ratio:>8.1}",
                ours * batch as f64
            );
            if count == COUNTS[1] {
                if batch == 1 {
                    checks.push((
                        "us/change published by itself".to_owned(),
                        ours,
                        LIMIT_MICROS,
                    ));
                }
                let name = format!("to an insert into a map, {batch} a publish");
                checks.push((name, ratio, limit));
            }
        }
    }
    for count in COUNTS {
        let name = format!("bytes an object besides its JSON, {count} objects");
        checks.push((name, bytes_beside_json(count), LIMIT_BYTES));
    }
    let name = "bytes held to bytes counted, journal full".to_owned();
    checks.push((name, held_to_counted(), LIMIT_COUNT));
    for (name, value, limit) in checks {
        report.at_most(&name, value, limit);
    }
    report.end()
}

/// A shard that was just listed.
fn shard(objects: Vec<Arc<Object>>) -> Writer<Object> {
    let now = Instant::now();
    let mut writer = Writer::new("", Limits::default(), now);
    writer.replace(objects, &Unreadable::default(), 1, History::Same, now);
    writer
}

/// Changes of one object after the other, far apart in the order of keys.
struct Feed {
    count: usize,
    revision: u64,
    step: usize,
}

impl Feed {
    fn next(&mut self, changes: usize) -> Vec<(Arc<Object>, u64)> {
        let mut change = || {
            self.revision += 1;
            let n = self.revision as usize * self.step % self.count;
            (Arc::new(pod(n, self.revision, 0)), self.revision)
        };
        (0..changes).map(|_| change()).collect()
    }
}

/// Microseconds for each change.
fn publish(writer: &mut Writer<Object>, changes: Vec<(Arc<Object>, u64)>, batch: usize) -> f64 {
    let count = changes.len() as f64;
    let start = Instant::now();
    for (at, (object, revision)) in changes.into_iter().enumerate() {
        writer.upsert(object, revision);
        if (at + 1) % batch == 0 {
            writer.publish(Instant::now());
        }
    }
    start.elapsed().as_nanos() as f64 / 1_000.0 / count
}

/// Microseconds for each change.
fn insert(map: &Map, changes: Vec<(Arc<Object>, u64)>) -> f64 {
    let count = changes.len() as f64;
    let start = Instant::now();
    for (object, _) in changes {
        let mut map = map.write().expect("nobody panics with it");
        map.insert(object.key.clone(), object);
    }
    start.elapsed().as_nanos() as f64 / 1_000.0 / count
}

/// Of a shard that was just listed: handles, maps, everything but the JSON itself.
fn bytes_beside_json(count: usize) -> f64 {
    let region = Region::new(ALLOCATOR);
    let objects: Vec<_> = (0..count).map(|n| Arc::new(pod(n, 1, 0))).collect();
    let json: usize = objects.iter().map(|object| object.json.len()).sum();
    let writer = shard(objects);
    let change = region.change();
    let held = change.bytes_allocated - change.bytes_deallocated;
    drop(writer);
    (held - json) as f64 / count as f64
}

/// Of a shard whose journal has turned, without encodings.
fn held_to_counted() -> f64 {
    let region = Region::new(ALLOCATOR);
    let objects = (0..COUNTS[0]).map(|n| Arc::new(pod(n, 1, 0))).collect();
    let mut writer = shard(objects);
    let mut feed = Feed {
        count: COUNTS[0],
        revision: 1,
        step: 7_919,
    };
    for _ in 0..60 {
        publish(&mut writer, feed.next(CHANGES), 5);
    }
    let change = region.change();
    let held = change.bytes_allocated - change.bytes_deallocated;
    let state = writer.shard().state().expect("it is complete");
    held as f64 / (state.bytes + state.journal.bytes()) as f64
}
