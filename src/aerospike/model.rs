//! A model Aerospike: for tests, for the sandbox and for trying things out where no server can be had.
//!
//! It holds what real nodes hold: who is up and whom each can hear, every node's view of the cluster (its paxos
//! view), partitions on the move, room and clocks. What happens to it is told by a few verbs ([`Model::stop`],
//! [`Model::split`], [`Model::fill`], ...); the rest follows in its own time: heartbeats are missed, a new key is
//! agreed on, node after node takes it over, partitions move, limits are reviewed. Every answer is derived from that
//! state at the instant at which it is given, in the words of the server version that the node runs; none is canned.
//! [`Model::truth`] says when the cluster was in fact safe, which is what verdicts are tested against.
//!
//! "Safe" is what the nodes hold, taken at one instant: a network that was cut just now and that nobody has noticed
//! is not in it, for nobody can know.
//!
//! It runs on tokio's clock, so a test may pause it, and is drawn from one seed.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{evidence::Member, login::Credentials};
use cluster::Cluster;

mod answer;
mod cluster;
mod serve;

pub use serve::{Served, Wire, serve};

/// A cluster of model nodes. Clones are the same cluster.
#[derive(Clone, Debug)]
pub struct Model {
    cluster: Arc<Mutex<Cluster>>,
    /// Told whenever a verb has changed something, so that listeners open and close.
    changed: Arc<watch::Sender<u64>>,
}

/// Which server a node runs, as far as it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// 6.4: errors without a code (`ERROR::unstable-cluster`).
    V6,
    /// 8.0: errors with a code (`ERROR:7:unstable cluster`).
    V8,
    /// 8.1: the same, and `cluster_size` is not told.
    V81,
}

/// How a node behaves towards who asks it, whatever its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It answers at once.
    Prompt,
    /// It takes so long, looking at its state halfway.
    Slow(Duration),
    /// It takes connections, and never answers.
    Mute,
    /// It answers noise.
    Garbage,
}

/// How fast things happen, and how large they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// From the start of a process to its port's opening: storage is loaded.
    pub load: Duration,
    /// Missed heartbeats: from a change of who hears whom to its being noticed.
    pub notice: Duration,
    /// From that to the agreement on a new key.
    pub agree: Duration,
    /// Nodes take a new key over one after another, within this.
    pub spread: Duration,
    /// From the new key to the new partition map.
    pub balance: Duration,
    /// Partitions that one node moves in a second.
    pub migration_rate: u64,
    /// Partitions of a namespace: 4096 on real servers.
    pub partitions: u64,
    /// How often nodes compare room and clocks with their limits.
    pub review: Duration,
    /// Difference of clocks in the cluster at which writes stop, in milliseconds.
    pub skew_limit: u64,
    /// Share of used room at which writes stop, in percent.
    pub stop_writes_at: u64,
    /// Every node's namespaces.
    pub namespaces: Vec<String>,
    /// Who may ask; everybody, if none.
    pub credentials: Option<Credentials>,
    /// What nodes run.
    pub build: Build,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            load: Duration::from_secs(3),
            notice: Duration::from_millis(1500),
            agree: Duration::from_millis(300),
            spread: Duration::from_millis(200),
            balance: Duration::from_millis(100),
            migration_rate: 2000,
            partitions: 4096,
            review: Duration::from_secs(10),
            skew_limit: 40_000,
            stop_writes_at: 90,
            namespaces: vec!["test".to_owned()],
            credentials: None,
            build: Build::V8,
        }
    }
}

impl Model {
    /// A cluster of `size` nodes that are starting now. Must be called where tokio's clock runs.
    pub fn new(size: usize, rules: Rules, seed: u64) -> Self {
        let cluster = Cluster::new(size, rules, seed, Instant::now());
        Self {
            cluster: Arc::new(Mutex::new(cluster)),
            changed: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Stops a node's process; its pod stays.
    pub fn stop(&self, node: usize) {
        self.change(|cluster, now| cluster.stop(node, now));
    }

    /// Starts a node's process if it is down: its container has been restarted.
    pub fn start(&self, node: usize) {
        self.change(|cluster, now| cluster.start(node, true, now));
    }

    /// Restarts the process within its container: neither the pod's uid nor its restart count shows it.
    pub fn warm_restart(&self, node: usize) {
        self.change(|cluster, now| {
            cluster.stop(node, now);
            cluster.start(node, false, now);
        });
    }

    /// Replaces a pod by one of the same name and address, with a new uid and a new process.
    pub fn replace(&self, node: usize) {
        self.change(|cluster, now| cluster.replace(node, now));
    }

    /// Changes the size that the spec asks for: pods come and go at the end.
    pub fn scale(&self, size: usize) {
        self.change(|cluster, now| cluster.scale(size, now));
    }

    /// Cuts the network: the nodes named hear each other, and so do the others.
    pub fn split(&self, apart: &[usize]) {
        self.change(|cluster, now| cluster.split(apart, now));
    }

    /// Mends the network.
    pub fn heal(&self) {
        self.split(&[]);
    }

    /// Fills a node's namespaces to this percentage of their room.
    pub fn fill(&self, node: usize, percent: u64) {
        self.change(|cluster, _| cluster.node_mut(node).used = percent);
    }

    /// Puts a node's clock ahead by so many milliseconds (behind, if negative).
    pub fn set_clock(&self, node: usize, ahead: i64) {
        self.change(|cluster, _| cluster.node_mut(node).clock = ahead);
    }

    /// Quiesces a node, or takes it back; effective once the cluster agrees on a new key, which this asks for.
    pub fn quiesce(&self, node: usize, quiesce: bool) {
        self.change(|cluster, now| {
            cluster.node_mut(node).quiesce = quiesce;
            cluster.recluster(now);
        });
    }

    /// Changes how a node behaves towards who asks.
    pub fn set_manner(&self, node: usize, manner: Manner) {
        self.change(|cluster, _| cluster.node_mut(node).manner = manner);
    }

    /// Changes which server a node runs.
    pub fn set_build(&self, node: usize, build: Build) {
        self.change(|cluster, _| cluster.node_mut(node).build = build);
    }

    /// How many nodes the spec asks for.
    pub fn size(&self) -> usize {
        self.look(|cluster| cluster.size())
    }

    /// Whether a node's port is open now.
    pub fn is_serving(&self, node: usize) -> bool {
        self.look(|cluster| cluster.is_serving(node))
    }

    /// The pod of a node, as the API server would show it, with its service port at `address`; none if it has no pod.
    pub fn member(&self, node: usize, address: SocketAddr) -> Option<Member> {
        self.look(|cluster| cluster.member(node, address))
    }

    /// What a node answers to an info command now.
    pub fn answer(&self, node: usize, command: &str) -> String {
        self.look(|cluster| answer::answer(cluster, node, command))
    }

    /// Since when, in turns, the cluster has been safe to disrupt, or has not: each entry holds until the next.
    pub fn truth(&self) -> Vec<(Instant, bool)> {
        self.look(|cluster| cluster.truth().to_vec())
    }

    /// When something will change by itself next, if anything will.
    pub fn next_change(&self) -> Option<Instant> {
        self.look(|cluster| cluster.next_change())
    }

    fn look<T>(&self, look: impl FnOnce(&Cluster) -> T) -> T {
        let mut cluster = self.lock();
        cluster.advance(Instant::now());
        look(&cluster)
    }

    fn change(&self, change: impl FnOnce(&mut Cluster, Instant)) {
        let now = Instant::now();
        let mut cluster = self.lock();
        cluster.advance(now);
        change(&mut cluster, now);
        cluster.observe(now);
        drop(cluster);
        self.changed.send_modify(|changes| *changes += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One node's view of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct View {
    /// Zero in no cluster.
    key: u64,
    members: BTreeSet<usize>,
    integrity: bool,
    /// Of the partition map; -1 before the first.
    generation: i64,
    /// Whether the partition map is that of the key.
    balanced: bool,
    quiesced: bool,
}
