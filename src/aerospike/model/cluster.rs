//! The model's state, and how it goes on by itself.
//!
//! What is to happen later stands in a queue by its time, and happens when somebody looks: the state at an instant
//! depends on what was done and on the seed alone, not on who looked when.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    super::evidence::{Incarnation, Member},
    Build, Manner, Rules, View,
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) rules: Rules,
    pub(super) now: Instant,
    nodes: Vec<Node>,
    size: usize,
    /// Nodes that hear only each other.
    apart: BTreeSet<usize>,
    queue: BTreeMap<(Instant, u64), Event>,
    queued: u64,
    /// Counts changes of who hears whom: an agreement on an older state of things comes to nothing.
    epoch: u64,
    agreements: u64,
    truth: Vec<(Instant, bool)>,
    rng: Rng,
    /// What `startedAt` is reckoned from.
    base: (Instant, SystemTime),
}

/// One node and its pod.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: u64,
    /// Whether it has a pod.
    exists: bool,
    uid: u64,
    restarts: u32,
    container_started: Instant,
    /// Counts processes: what was queued for an earlier one comes to nothing.
    pub(super) life: u64,
    /// When the process started; none while it is down.
    pub(super) started: Option<Instant>,
    pub(super) view: View,
    /// The last agreement that it took over.
    agreement: u64,
    /// Partitions still to move in each namespace, and since when so many.
    moving: (u64, Instant),
    pub(super) used: u64,
    pub(super) clock: i64,
    pub(super) quiesce: bool,
    /// As last reviewed.
    pub(super) stop_writes: bool,
    /// As last reviewed, in milliseconds.
    pub(super) skew: u64,
    pub(super) manner: Manner,
    pub(super) build: Build,
}

#[derive(Clone, Debug)]
enum Event {
    /// The node's storage is loaded.
    Loaded { node: usize, life: u64 },
    /// Heartbeats were missed, or new ones heard.
    Noticed { epoch: u64 },
    /// Those who hear each other agree on a new key.
    Agreed { epoch: u64 },
    /// The node takes it over, unless a later one has come first.
    Adopted {
        node: usize,
        life: u64,
        epoch: u64,
        key: u64,
        agreement: u64,
        members: BTreeSet<usize>,
    },
    /// The node has the partition map for it.
    Balanced {
        node: usize,
        life: u64,
        key: u64,
        moving: u64,
    },
    /// The last partition has moved.
    Settled,
    /// The node compares room and clocks with their limits.
    Reviewed { node: usize, life: u64 },
}

impl Cluster {
    pub(super) fn new(size: usize, rules: Rules, seed: u64, now: Instant) -> Self {
        let mut cluster = Self {
            rules,
            now,
            nodes: Vec::new(),
            size,
            apart: BTreeSet::new(),
            queue: BTreeMap::new(),
            queued: 0,
            epoch: 0,
            agreements: 0,
            truth: vec![(now, false)],
            rng: Rng::with_seed(seed),
            base: (now, SystemTime::now()),
        };
        cluster.scale(size, now);
        cluster
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn node(&self, node: usize) -> Option<&Node> {
        self.nodes.get(node)
    }

    /// The node of this number; it is made, without a pod, if there is none.
    pub(super) fn node_mut(&mut self, node: usize) -> &mut Node {
        while self.nodes.len() <= node {
            let index = self.nodes.len() as u64;
            self.nodes.push(Node {
                id: 0xbb9_0000_0000_0000 | (index + 1) << 16 | self.rng.u64(0..0xffff),
                exists: false,
                uid: 0,
                restarts: 0,
                container_started: self.now,
                life: 0,
                started: None,
                view: View::default(),
                agreement: 0,
                moving: (0, self.now),
                used: 10,
                clock: 0,
                quiesce: false,
                stop_writes: false,
                skew: 0,
                manner: Manner::Prompt,
                build: self.rules.build,
            });
        }
        &mut self.nodes[node]
    }

    pub(super) fn truth(&self) -> &[(Instant, bool)] {
        &self.truth
    }

    pub(super) fn next_change(&self) -> Option<Instant> {
        self.queue.keys().next().map(|(at, _)| *at)
    }

    pub(super) fn is_serving(&self, node: usize) -> bool {
        self.node(node).is_some_and(|node| node.serves(self))
    }

    pub(super) fn member(&self, node: usize, address: SocketAddr) -> Option<Member> {
        let it = self.node(node).filter(|node| node.exists)?;
        let started = it.container_started.saturating_duration_since(self.base.0);
        Some(Member {
            uid: format!("pod-{node}-{}", it.uid),
            name: format!("cache-{node}"),
            address: Some(address),
            incarnation: Incarnation {
                restarts: it.restarts,
                started: it.started.and_then(|_| self.base.1.checked_add(started)),
            },
        })
    }

    /// Partitions that a node still has to move, in each namespace.
    pub(super) fn moving(&self, node: &Node) -> u64 {
        let (moving, since) = node.moving;
        let passed = self.now.saturating_duration_since(since).as_millis();
        let moved = passed * u128::from(self.rules.migration_rate) / 1000;
        moving.saturating_sub(u64::try_from(moved).unwrap_or(u64::MAX))
    }

    pub(super) fn stop(&mut self, node: usize, now: Instant) {
        let it = self.node_mut(node);
        if it.started.take().is_some() {
            it.life += 1;
            it.view = View::default();
            it.moving = (0, now);
            self.hearing_changed(now);
        }
    }

    pub(super) fn start(&mut self, node: usize, container: bool, now: Instant) {
        let load = self.rules.load;
        let it = self.node_mut(node);
        if !it.exists || it.started.is_some() {
            return;
        }
        if container {
            it.restarts += 1;
            it.container_started = now;
        }
        it.life += 1;
        it.started = Some(now);
        it.view = View {
            generation: -1,
            ..View::default()
        };
        (it.stop_writes, it.skew) = (false, 0);
        let life = it.life;
        self.later(now + load, Event::Loaded { node, life });
    }

    pub(super) fn replace(&mut self, node: usize, now: Instant) {
        self.stop(node, now);
        let it = self.node_mut(node);
        if it.exists {
            it.exists = false;
            self.create(node, now);
        }
    }

    pub(super) fn scale(&mut self, size: usize, now: Instant) {
        self.size = size;
        for node in size..self.nodes.len() {
            self.stop(node, now);
            self.node_mut(node).exists = false;
        }
        for node in 0..size {
            self.create(node, now);
        }
    }

    pub(super) fn split(&mut self, apart: &[usize], now: Instant) {
        let apart = BTreeSet::from_iter(apart.iter().copied());
        if self.apart != apart {
            self.apart = apart;
            self.hearing_changed(now);
        }
    }

    /// Has the nodes agree on a new key though nobody came or went.
    pub(super) fn recluster(&mut self, now: Instant) {
        let epoch = self.epoch;
        self.later(now + self.rules.agree, Event::Agreed { epoch });
    }

    /// Lets happen all that is due by `now`.
    pub(super) fn advance(&mut self, now: Instant) {
        while let Some(entry) = self.queue.first_entry() {
            let at = entry.key().0;
            if at > now {
                break;
            }
            let event = entry.remove();
            self.now = at;
            self.happen(event, at);
            self.observe(at);
        }
        self.now = self.now.max(now);
    }

    /// Notes whether the cluster is safe, as of `now`.
    pub(super) fn observe(&mut self, now: Instant) {
        let safe = self.is_safe();
        if self.truth.last().is_none_or(|(_, was)| *was != safe) {
            self.truth.push((now, safe));
        }
    }

    fn create(&mut self, node: usize, now: Instant) {
        let it = self.node_mut(node);
        if it.exists {
            return;
        }
        (it.exists, it.uid, it.restarts) = (true, it.uid + 1, 0);
        it.container_started = now;
        it.manner = Manner::Prompt;
        (it.used, it.clock, it.quiesce) = (10, 0, false);
        self.start(node, false, now);
    }

    fn is_safe(&self) -> bool {
        let all: BTreeSet<_> = (0..self.size).collect();
        let key = self.node(0).map_or(0, |node| node.view.key);
        let pods = self.nodes.iter().filter(|node| node.exists).count();
        let safe = |node: &Node| {
            let view = &node.view;
            node.serves(self)
                && key != 0
                && view.key == key
                && view.members == all
                && view.integrity
                && view.balanced
                && view.generation != -1
                && !view.quiesced
                && self.moving(node) == 0
                && !node.stop_writes
                && node.skew <= self.rules.skew_limit
        };
        self.size > 0 && pods == self.size && self.nodes.iter().take(self.size).all(safe)
    }

    fn later(&mut self, at: Instant, event: Event) {
        self.queued += 1;
        self.queue.insert((at, self.queued), event);
    }

    fn hearing_changed(&mut self, now: Instant) {
        self.epoch += 1;
        let epoch = self.epoch;
        self.later(now + self.rules.notice, Event::Noticed { epoch });
    }

    /// Whom a node hears, itself included.
    fn heard(&self, node: usize) -> BTreeSet<usize> {
        let side = self.apart.contains(&node);
        let hears =
            |(other, it): &(usize, &Node)| self.apart.contains(other) == side && it.serves(self);
        let heard = self.nodes.iter().enumerate().filter(hears);
        heard.map(|(other, _)| other).collect()
    }

    /// The node, if the process that was meant still runs.
    fn alive(&mut self, node: usize, life: u64) -> Option<&mut Node> {
        let node = self.nodes.get_mut(node)?;
        (node.life == life && node.started.is_some()).then_some(node)
    }

    fn happen(&mut self, event: Event, now: Instant) {
        match event {
            Event::Loaded { node, life } => {
                if self.alive(node, life).is_some() {
                    self.hearing_changed(now);
                    let phase = self.rng.f64();
                    let first = now + self.rules.review.mul_f64(phase);
                    self.later(first, Event::Reviewed { node, life });
                }
            }
            Event::Noticed { epoch } if epoch == self.epoch => {
                for node in 0..self.nodes.len() {
                    let heard = self.heard(node);
                    let view = &mut self.nodes[node].view;
                    view.integrity &= view.members == heard;
                }
                self.later(now + self.rules.agree, Event::Agreed { epoch });
            }
            Event::Agreed { epoch } if epoch == self.epoch => self.agree(now),
            Event::Noticed { .. } | Event::Agreed { .. } => {}
            Event::Adopted {
                node,
                life,
                epoch,
                key,
                agreement,
                members,
            } => {
                let it = &mut self.nodes[node];
                if epoch == self.epoch && it.agreement < agreement {
                    it.agreement = agreement;
                    self.adopt(node, life, key, members, now);
                }
            }
            Event::Balanced {
                node,
                life,
                key,
                moving,
            } => self.balance(node, life, key, moving, now),
            Event::Settled => {}
            Event::Reviewed { node, life } => self.review(node, life, now),
        }
    }

    fn agree(&mut self, now: Instant) {
        self.agreements += 1;
        let epoch = self.epoch;
        let serving: BTreeSet<_> = (0..self.nodes.len())
            .filter(|n| self.is_serving(*n))
            .collect();
        let (there, here) = serving.iter().partition(|node| self.apart.contains(node));
        let parts: [BTreeSet<usize>; 2] = [here, there];
        for members in parts {
            let key = self.rng.u64(1..);
            for node in members.clone() {
                let at = now + self.rules.spread.mul_f64(self.rng.f64());
                let (life, members) = (self.nodes[node].life, members.clone());
                let agreement = self.agreements;
                let adopted = Event::Adopted {
                    node,
                    life,
                    epoch,
                    key,
                    agreement,
                    members,
                };
                self.later(at, adopted);
            }
        }
    }

    fn adopt(&mut self, node: usize, life: u64, key: u64, members: BTreeSet<usize>, now: Instant) {
        let (balance, partitions) = (self.rules.balance, self.rules.partitions);
        let Some(it) = self.alive(node, life) else {
            return;
        };
        // Each node's share of what those move who came or went.
        let came_or_went = it.view.members.symmetric_difference(&members).count() as u64;
        let size = members.len() as u64;
        let moving = if size > 1 {
            partitions * came_or_went.min(size) / (size * size)
        } else {
            0
        };
        it.view = View {
            key,
            members,
            integrity: true,
            generation: it.view.generation.max(0),
            balanced: false,
            quiesced: it.quiesce,
        };
        self.later(
            now + balance,
            Event::Balanced {
                node,
                life,
                key,
                moving,
            },
        );
    }

    fn balance(&mut self, node: usize, life: u64, key: u64, moving: u64, now: Instant) {
        let rate = self.rules.migration_rate.max(1);
        let left = self.nodes.get(node).map_or(0, |it| self.moving(it));
        let Some(it) = self.alive(node, life).filter(|it| it.view.key == key) else {
            return;
        };
        // What an earlier change set in motion is still to move.
        let moving = moving.max(left);
        it.view.balanced = true;
        it.view.generation += 1;
        it.moving = (moving, now);
        let takes = Duration::from_millis(moving.saturating_mul(1000).div_ceil(rate));
        self.later(now + takes, Event::Settled);
    }

    fn review(&mut self, node: usize, life: u64, now: Instant) {
        let (limit, review) = (self.rules.stop_writes_at, self.rules.review);
        let clocks = |members: &BTreeSet<usize>| {
            let clocks = members.iter().filter_map(|member| self.node(*member));
            let clocks: Vec<_> = clocks.map(|node| node.clock).collect();
            let ends = clocks.iter().max().zip(clocks.iter().min());
            ends.map_or(0, |(max, min)| max.abs_diff(*min))
        };
        let skew = self.node(node).map_or(0, |node| clocks(&node.view.members));
        if let Some(it) = self.alive(node, life) {
            it.stop_writes = it.used >= limit;
            it.skew = skew;
            self.later(now + review, Event::Reviewed { node, life });
        }
    }
}

impl Node {
    /// Whether its port is open.
    pub(super) fn serves(&self, cluster: &Cluster) -> bool {
        let loaded = |started: Instant| started + cluster.rules.load <= cluster.now;
        self.started.is_some_and(loaded)
    }
}
