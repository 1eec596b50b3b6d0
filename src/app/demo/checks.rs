//! What must hold in the demo, looked at from outside of the daemon: the sandbox knows who watches what, and what is
//! true.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{DemoError, consumers::Consumers};
use crate::{
    cache::Catalog,
    object::Key,
    sandbox::{
        Options, Part, Store,
        fields::set,
        traffic::{Read, Traffic},
    },
};

/// A write must have reached the consumers by then.
const LIMIT: Duration = Duration::from_secs(5);
/// All copies must have come to the same by then, once the world stands still.
const SETTLE: Duration = Duration::from_secs(10);
/// How the daemon calls itself.
const DAEMON: &str = "informerd/";

/// What would have been without informerd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Saved {
    /// Watches that were not opened upstream.
    pub(super) watches: usize,
    /// Bytes that the API server did not send.
    pub(super) bytes: usize,
}

/// All kinds' digests were compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreement {
    pub(super) kinds: usize,
    pub(super) copies: usize,
    pub(super) objects: usize,
}

/// See the module's documentation.
pub(super) struct Checks {
    store: Store,
    traffic: Traffic,
    catalog: Catalog,
    written: BTreeMap<u64, Instant>,
    took: Vec<Duration>,
    probes: u64,
}

impl Checks {
    pub(super) fn new(store: Store, traffic: Traffic, catalog: Catalog) -> Self {
        Self {
            store,
            traffic,
            catalog,
            written: BTreeMap::new(),
            took: Vec::new(),
            probes: 0,
        }
    }

    /// Writes something, to see when it arrives.
    pub(super) fn probe(&mut self) {
        let key = Key::new("default", "informerd-demo");
        self.probes += 1;
        let count = self.probes.to_string();
        let now = Instant::now();
        let written = if self.store.get("configmaps", &key).is_some() {
            self.store.modify("configmaps", &key, Part::Whole, |it| {
                set(it, &["data", "probe"], count)
            })
        } else {
            let object = json!({"metadata": {"name": key.name()}, "data": {"probe": count}});
            self.store
                .create("configmaps", "default", object, &Options::default())
        };
        let version = written
            .ok()
            .and_then(|it| it["metadata"]["resourceVersion"].as_str()?.parse().ok());
        if let Some(version) = version {
            self.written.insert(version, now);
        }
    }

    /// What must hold at any moment.
    pub(super) fn look(&mut self, consumers: &Consumers) -> Result<(), DemoError> {
        let mut broken = Vec::new();
        for (version, at) in consumers.seen() {
            if let Some(written) = self.written.remove(&version) {
                self.took.push(at.saturating_duration_since(written));
            }
            // A later version of the same object takes the place of an earlier one.
            self.written = self.written.split_off(&version);
        }
        if let Some((version, _)) = self.written.iter().find(|(_, at)| at.elapsed() > LIMIT) {
            broken.push(format!(
                "the write of version {version} has not reached its consumer within {} s",
                LIMIT.as_secs()
            ));
        }
        for (resource, read) in self.reads() {
            if read.watches > 1 {
                broken.push(format!(
                    "{resource} is watched {} times upstream",
                    read.watches
                ));
            }
        }
        for kind in self.catalog.iter() {
            for shard in kind.shards() {
                let mismatches = shard.counters.digest_mismatches.load(Ordering::Relaxed);
                if mismatches > 0 {
                    broken.push(format!(
                        "the digest of {} was wrong {mismatches} times",
                        kind.name
                    ));
                }
            }
        }
        for consumer in consumers.all() {
            if let Some(why) = consumer.failed() {
                broken.push(format!("a consumer of {} failed: {why}", consumer.kind));
            }
        }
        if broken.is_empty() {
            return Ok(());
        }
        Err(DemoError::Broken(broken))
    }

    fn reads(&self) -> BTreeMap<String, Read> {
        self.traffic.of(DAEMON)
    }

    /// Objects in the cache.
    pub(super) fn objects(&self) -> usize {
        let shards = self.catalog.iter().flat_map(|kind| kind.shards());
        shards
            .filter_map(|shard| shard.state())
            .map(|state| state.objects.len())
            .sum()
    }

    /// All that the daemon reads.
    pub(super) fn upstream(&self) -> Read {
        let mut all = Read::default();
        for read in self.reads().into_values() {
            all.watches += read.watches;
            all.most += read.most;
            all.events += read.events;
            all.bytes += read.bytes;
        }
        all
    }

    /// Each consumer would have opened its own watch and would have been sent what the daemon was sent of its kind.
    /// Of those of one kind, the daemon's own stands for one.
    pub(super) fn saved(&self, consumers: &Consumers) -> Saved {
        let mut saved = Saved::default();
        for (resource, read) in self.reads() {
            let same = consumers
                .all()
                .iter()
                .filter(|it| it.kind == resource && it.is_complete());
            let others = same.count().saturating_sub(1);
            saved.watches += others;
            saved.bytes += others * read.bytes;
        }
        saved
    }

    /// From a write to its arrival at a consumer: the median, and the longest.
    pub(super) fn latency(&self) -> Option<(Duration, Duration)> {
        let mut all = self.took.clone();
        all.sort_unstable();
        Some((*all.get(all.len() / 2)?, *all.last()?))
    }

    /// Whether store, cache and copies hold the same, now that nobody writes any more.
    pub(super) async fn agree(&mut self, consumers: &Consumers) -> Result<Agreement, DemoError> {
        let end = Instant::now() + SETTLE;
        loop {
            let checked = self.look(consumers).and_then(|()| self.compare(consumers));
            match checked {
                Err(_) if Instant::now() < end => sleep(Duration::from_millis(100)).await,
                checked => return checked,
            }
        }
    }

    fn compare(&self, consumers: &Consumers) -> Result<Agreement, DemoError> {
        let mut broken = Vec::new();
        let mut agreement = Agreement {
            kinds: 0,
            copies: 0,
            objects: 0,
        };
        let truth = |resource: &str| {
            let served = self.store.find(resource)?;
            let state = served.kind.shards().first()?.state()?;
            Some((state.compute_digests().0, state.objects.len()))
        };
        for kind in self.catalog.iter() {
            let held = kind.shards().first().and_then(|shard| shard.state());
            let held = held.map(|state| (state.compute_digests().0, state.objects.len()));
            let truth = truth(&kind.name);
            if held == truth {
                agreement.kinds += 1;
                agreement.objects += truth.map_or(0, |(_, count)| count);
            } else {
                broken.push(format!(
                    "the cache has other {} than the API server ({:?} objects against {:?})",
                    kind.name,
                    held.map(|it| it.1),
                    truth.map(|it| it.1)
                ));
            }
        }
        for consumer in consumers.all() {
            let truth = truth(consumer.kind).map(|it| it.0);
            if consumer.is_complete() && Some(consumer.digest()) == truth {
                agreement.copies += 1;
            } else {
                broken.push(format!(
                    "a consumer's copy of {} is not the same",
                    consumer.kind
                ));
            }
        }
        if broken.is_empty() {
            return Ok(agreement);
        }
        Err(DemoError::Broken(broken))
    }
}
