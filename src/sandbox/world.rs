//! A small world in the sandbox: what on a real cluster schedulers, kubelets, controllers, operators and people do.
//!
//! ```text
//!  view       what there is, kept up with by the store's change index
//!  rollout, stateful, endpoints, pod      what is to be done; pure
//!  hands      does it, in the store
//!  databases  model Aerospike nodes behind the pods of AerospikeClusters
//!  people     deploy, scale, break; scene: what is there at the beginning
//! ```
//!
//! A step takes up what has changed and goes on until nothing is left to do; what takes time on a cluster waits in a
//! queue meanwhile. What is left to chance is drawn from one seed, and time is tokio's, so a test may pause it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use fastrand::Rng;
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Store,
    fields::{at, map, text},
};
use crate::{object::Key, shutdown::Shutdown};

mod databases;
mod endpoints;
mod hands;
mod people;
mod pod;
mod rollout;
mod scene;
mod stateful;
#[cfg(test)]
mod tests;
mod view;

use databases::Databases;
use view::{Changed, View, What, controller};

/// Changes that come one after another are taken up together.
const LINGER: Duration = Duration::from_millis(10);
/// Rounds in one step. Each answers what the one before has changed; there is no end only if two undo each other.
const ROUNDS: usize = 200;

/// How large and how busy a world is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WorldSettings {
    /// What is left to chance is drawn from this.
    pub seed: u64,
    /// What people do in a second, on average; 0 leaves the world to itself.
    pub rate: f64,
    /// How many nodes there are at the beginning.
    pub nodes: usize,
    /// How many pods the Deployments have together at the beginning, about.
    pub pods: usize,
}

impl Default for WorldSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            rate: 2.0,
            nodes: 6,
            pods: 120,
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct World {
    store: Store,
    settings: WorldSettings,
    rng: Rng,
    view: View,
    todo: BTreeSet<Job>,
    timers: BTreeMap<(Instant, u64), Timer>,
    timed: u64,
    /// Steps of pods that wait in the queue, by the pod's uid.
    waiting: HashSet<(String, pod::Step)>,
    /// Nodes that have failed, and are to come back.
    down: BTreeSet<String>,
    addresses: u32,
    databases: Databases,
}

/// An object whose state is to be compared with what it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Job {
    what: What,
    key: Key,
}

/// What is to happen later.
#[derive(Clone, Debug)]
enum Timer {
    Job(Job),
    Pod(Key, String, pod::Step),
    /// A node's lease is renewed.
    Heartbeat(String),
    /// A node has been silent for too long.
    NodeLost(String),
    /// The pods of a node that is lost are given up.
    Evict(String),
    NodeBack(String),
    /// The databases' nodes are looked at.
    Databases,
    /// Somebody does something.
    People,
}

impl World {
    /// With what is there at the beginning. Must be called where tokio's clock runs.
    pub fn new(store: Store, settings: WorldSettings) -> Self {
        let mut world = Self {
            store,
            settings,
            rng: Rng::with_seed(settings.seed),
            view: View::default(),
            todo: BTreeSet::new(),
            timers: BTreeMap::new(),
            timed: 0,
            waiting: HashSet::new(),
            down: BTreeSet::new(),
            addresses: 0,
            databases: Databases::default(),
        };
        world.set_the_scene();
        world.after(databases::LOOK, Timer::Databases);
        world.after_people();
        world
    }

    /// Goes on until the shutdown begins to drain.
    pub async fn run(mut self, shutdown: Shutdown) {
        loop {
            let next = self.step();
            self.databases.open().await;
            let changed = self.store.changed();
            tokio::select! {
                () = shutdown.draining() => return,
                () = sleep_until(next) => {}
                () = changed.notified() => sleep(LINGER).await,
            }
        }
    }

    /// Does what is due; returns when something is due next.
    fn step(&mut self) -> Instant {
        let now = Instant::now();
        for _ in 0..ROUNDS {
            for changed in self.view.sync(&self.store) {
                self.notice(&changed);
            }
            while let Some(entry) = self.timers.first_entry().filter(|it| it.key().0 <= now) {
                let timer = entry.remove();
                self.fire(timer);
            }
            if self.todo.is_empty() {
                break;
            }
            for job in std::mem::take(&mut self.todo) {
                self.work(&job);
            }
        }
        let soon = now + Duration::from_secs(1);
        self.timers.first_key_value().map_or(soon, |(at, _)| at.0)
    }

    fn after(&mut self, delay: Duration, timer: Timer) {
        self.timed += 1;
        self.timers
            .insert((Instant::now() + delay, self.timed), timer);
    }

    /// Between these two, in milliseconds.
    fn moment(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.rng.u64(least..=most))
    }

    fn todo(&mut self, what: What, key: &Key) {
        let key = key.clone();
        self.todo.insert(Job { what, key });
    }

    /// Who has to look at what has changed.
    fn notice(&mut self, changed: &Changed) {
        let Changed { what, key, before } = changed;
        let after = self.view.get(*what, key).cloned();
        self.todo(*what, key);
        for object in [before, &after].into_iter().flatten() {
            if let Some((what, owner)) = owner(key, object) {
                self.todo(what, &owner);
            }
            if *what == What::Pod {
                for service in self.services_of(key, object) {
                    self.todo(What::Service, &service);
                }
            }
            if *what == What::Slice {
                let service = text(
                    object,
                    &["metadata", "labels", "kubernetes.io/service-name"],
                );
                let service = Key::new(key.namespace(), service);
                self.todo(What::Service, &service);
            }
        }
        if *what == What::Node {
            let node = key.name();
            let pods: Vec<Key> = self
                .view
                .all(What::Pod)
                .filter(|(_, pod)| ["", node].contains(&text(pod, &["spec", "nodeName"])))
                .map(|(key, _)| key.clone())
                .collect();
            for pod in pods {
                self.todo(What::Pod, &pod);
            }
        }
    }

    fn services_of(&self, pod: &Key, object: &Value) -> Vec<Key> {
        let labels = at(object, &["metadata", "labels"]);
        let selects = |service: &Value| {
            let selector = map(service, &["spec", "selector"]).filter(|it| !it.is_empty());
            selector.is_some_and(|selector| {
                selector
                    .iter()
                    .all(|(key, value)| labels.and_then(|it| it.get(key)) == Some(value))
            })
        };
        self.view
            .all(What::Service)
            .filter(|(key, service)| key.namespace() == pod.namespace() && selects(service))
            .map(|(key, _)| key.clone())
            .collect()
    }

    fn work(&mut self, job: &Job) {
        match job.what {
            What::Pod => self.attend_pod(&job.key),
            What::Deployment => self.roll(&job.key),
            What::ReplicaSet => self.fill(&job.key),
            What::StatefulSet => self.order(&job.key),
            What::Service => self.list_endpoints(&job.key),
            What::Acko | What::Ako => self.operate(job.what, &job.key),
            What::Node | What::Slice => {}
        }
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Job(job) => {
                self.todo.insert(job);
            }
            Timer::Pod(key, uid, step) => self.go_on(&key, &uid, step),
            Timer::Heartbeat(node) => self.heartbeat(&node),
            Timer::NodeLost(node) => self.lose(&node),
            Timer::Evict(node) => self.evict(&node),
            Timer::NodeBack(node) => self.bring_back(&node),
            Timer::Databases => {
                self.look_at_databases();
                self.after(databases::LOOK, Timer::Databases);
            }
            Timer::People => {
                self.do_something();
                self.after_people();
            }
        }
    }
}

/// The object that controls this one, where its kind is looked after here.
fn owner(key: &Key, object: &Value) -> Option<(What, Key)> {
    let owner = controller(object)?;
    let what = match (text(owner, &["apiVersion"]), text(owner, &["kind"])) {
        ("apps/v1", "Deployment") => What::Deployment,
        ("apps/v1", "ReplicaSet") => What::ReplicaSet,
        ("apps/v1", "StatefulSet") => What::StatefulSet,
        (group, "AerospikeCluster") if group.starts_with("acko.io/") => What::Acko,
        (_, "AerospikeCluster") => What::Ako,
        _ => return None,
    };
    Some((what, Key::new(key.namespace(), text(owner, &["name"]))))
}
