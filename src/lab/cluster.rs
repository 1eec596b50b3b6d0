//! The oracle: what is in the cluster at which revision, and nothing else. A map with revisions.

use std::{collections::BTreeMap, rc::Rc};

use fastrand::Rng;

/// What is there at one revision, by `namespace/name`.
pub(super) type Set = BTreeMap<String, Rc<Pod>>;

const NAMESPACES: [&str; 3] = ["a", "a-b", "b"];
const NAMES: usize = 5;

/// One version of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) namespace: &'static str,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) version: u64,
    /// Its label `app`.
    pub(super) app: u8,
    /// Its `.spec.nodeName`.
    pub(super) node: u8,
    /// Whether the daemon can decode it.
    pub(super) readable: bool,
}

/// What a watch tells of a revision.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) revision: u64,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub(super) r#type: &'static str,
    /// As it is; of what was deleted, as it was last.
    pub(super) pod: Rc<Pod>,
    pub(super) before: Option<Rc<Pod>>,
}

/// See the module's documentation.
pub(super) struct Cluster {
    rng: Rng,
    pub(super) revision: u64,
    uids: u64,
    pub(super) set: Rc<Set>,
    /// The changes of the history at hand, oldest first.
    pub(super) log: Vec<Change>,
    /// A watch from before this is refused.
    pub(super) compacted: u64,
    /// After a restore: some replica knows a revision of the void history. Before it finds that out the cluster must
    /// not come there, since what has been overtaken is not found out.
    pub(super) ceiling: Option<u64>,
    /// Of each history, what was there from which revision on. A restore begins another one.
    histories: Vec<Vec<(u64, Rc<Set>)>>,
}

impl Pod {
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// As the API server sends it, at this version.
    pub(super) fn json(&self, version: u64) -> String {
        let labels = if self.readable {
            format!(r#"{{"app":"{}"}}"#, self.app)
        } else {
            r#""no map""#.to_owned()
        };
        format!(
            r#"{{"metadata":{{"namespace":"{}","name":"{}","uid":"{}","resourceVersion":"{version}","labels":{labels}}},"spec":{{"nodeName":"node-{}","secret":"x"}}}}"#,
            self.namespace, self.name, self.uid, self.node,
        )
    }
}

impl Cluster {
    pub(super) fn new(rng: Rng) -> Self {
        let set = Rc::new(Set::new());
        let revision = 10;
        let mut cluster = Self {
            rng,
            revision,
            uids: 0,
            set: set.clone(),
            log: Vec::new(),
            compacted: revision,
            ceiling: None,
            histories: vec![vec![(0, set)]],
        };
        for _ in 0..8 {
            cluster.change();
        }
        cluster
    }

    /// Which history it is in.
    pub(super) fn history(&self) -> usize {
        self.histories.len() - 1
    }

    /// What was there at a revision of a history.
    pub(super) fn at(&self, history: usize, revision: u64) -> &Rc<Set> {
        let line = &self.histories[history];
        let after = line.partition_point(|(from, _)| *from <= revision);
        &line[after - 1].1
    }

    fn is_free(&self) -> bool {
        self.ceiling
            .is_none_or(|ceiling| self.revision + 1 < ceiling)
    }

    /// Something happens to one object.
    pub(super) fn change(&mut self) {
        if !self.is_free() {
            return;
        }
        let (rng, revision) = (&mut self.rng, self.revision + 1);
        let namespace = NAMESPACES[rng.usize(..NAMESPACES.len())];
        let name = format!("p{}", rng.usize(..NAMES));
        let before = self.set.get(&format!("{namespace}/{name}")).cloned();
        let mut set = Set::clone(&self.set);
        let change = match before {
            Some(pod) if rng.u8(..4) == 0 => {
                set.remove(&pod.key());
                Change {
                    revision,
                    r#type: "DELETED",
                    before: Some(pod.clone()),
                    pod,
                }
            }
            before => {
                let uid = match &before {
                    Some(pod) => pod.uid.clone(),
                    None => {
                        self.uids += 1;
                        format!("u{}", self.uids)
                    }
                };
                // Some changes cannot be seen by everybody, and some by nobody.
                let (app, node) = match &before {
                    Some(pod) => match rng.u8(..4) {
                        0 => (pod.app, pod.node),
                        1 => (pod.app, rng.u8(..3)),
                        _ => (rng.u8(..2), pod.node),
                    },
                    None => (rng.u8(..2), rng.u8(..3)),
                };
                let pod = Rc::new(Pod {
                    namespace,
                    name,
                    uid,
                    version: revision,
                    app,
                    node,
                    readable: rng.u8(..25) != 0,
                });
                set.insert(pod.key(), pod.clone());
                let r#type = if before.is_some() {
                    "MODIFIED"
                } else {
                    "ADDED"
                };
                Change {
                    revision,
                    r#type,
                    pod,
                    before,
                }
            }
        };
        self.revision = revision;
        self.log.push(change);
        self.set = Rc::new(set);
        let history = self.history();
        self.histories[history].push((revision, self.set.clone()));
    }

    /// Something happens elsewhere in the cluster: only the revision moves.
    pub(super) fn tick(&mut self) {
        self.revision += u64::from(self.is_free());
    }

    /// The changes after a revision.
    pub(super) fn after(&self, revision: u64) -> &[Change] {
        let at = self
            .log
            .partition_point(|change| change.revision <= revision);
        &self.log[at..]
    }

    /// The newest changes up to a revision.
    pub(super) fn upto(&self, revision: u64, most: usize) -> &[Change] {
        let at = self
            .log
            .partition_point(|change| change.revision <= revision);
        &self.log[at.saturating_sub(most)..at]
    }

    /// It forgets what it need not remember.
    pub(super) fn compact(&mut self, back: u64) {
        self.compacted = self.compacted.max(self.revision.saturating_sub(back));
    }

    /// etcd is restored as it was some revisions ago, and goes on from there with other things.
    pub(super) fn restore(&mut self, back: u64) {
        let revision = self.revision.saturating_sub(back).max(10);
        self.set = self.at(self.history(), revision).clone();
        let mut line = self.histories[self.history()].clone();
        line.retain(|(from, _)| *from <= revision);
        self.histories.push(line);
        self.log.retain(|change| change.revision <= revision);
        self.revision = revision;
        self.compacted = self.compacted.min(revision);
    }
}
