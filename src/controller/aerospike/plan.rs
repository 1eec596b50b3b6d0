//! What is to be asked of whom: N and the pods, out of what the cache has of one cluster. Pure.

use std::{net::SocketAddr, sync::Arc};

use super::facts::{ClusterFacts, ClusterId, PodFacts, SetFacts};
use crate::{
    aerospike::Member,
    object::{Key, Object},
};

/// What the cache has of one cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// The cluster's own object.
    pub(super) cluster: Option<Arc<Object>>,
    /// Where there is none: whether that is because nobody can know here, since its kind is not installed, not
    /// configured, or refused.
    pub(super) blind: bool,
    pub(super) sets: Vec<Arc<Object>>,
    pub(super) pods: Vec<Arc<Object>>,
}

/// Where nodes are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// Unless the spec says otherwise.
    pub(super) port: u16,
    /// Whether TLS is configured.
    pub(super) tls: bool,
}

/// What is judged, and where the verdicts go.
#[derive(Clone, Debug)]
pub(super) enum Subject {
    /// The cluster's own object: N is its spec's.
    Cluster(Arc<Object>),
    /// Its StatefulSets, where there is no such object: N is what they ask for together.
    Sets(Vec<SetFacts>),
}

/// Why there is nothing to ask for: one word, and the same for a person.
pub(super) type Trouble = (&'static str, String);

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) id: ClusterId,
    pub(super) subject: Subject,
    /// N.
    pub(super) size: Result<u32, Trouble>,
    pub(super) port: u16,
    pub(super) tls: bool,
    /// By key; those that are being deleted too.
    pub(super) pods: Vec<PodFacts>,
}

impl PartialEq for Subject {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cluster(a), Self::Cluster(b)) => {
                a.uid == b.uid && a.resource_version == b.resource_version && a.stale == b.stale
            }
            (Self::Sets(a), Self::Sets(b)) => a == b,
            _ => false,
        }
    }
}

impl Subject {
    /// Whether verdicts on one are verdicts on the other.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cluster(a), Self::Cluster(b)) => a.uid == b.uid,
            (Self::Sets(_), Self::Sets(_)) => true,
            _ => false,
        }
    }

    /// Where N is from, as details say it.
    pub(super) fn size_from(&self) -> &'static str {
        match self {
            Self::Cluster(_) => "spec",
            Self::Sets(_) => "statefulsets",
        }
    }
}

/// What to do about a cluster; `None` where there is nothing to judge. Of pods that are still as they were `before`
/// nothing is read again.
pub(super) fn plan(id: &ClusterId, seen: &Seen, reach: Reach, before: &[PodFacts]) -> Option<Plan> {
    let mut trouble = None;
    let mut pods = Vec::new();
    for pod in &seen.pods {
        let known = before.iter().find(|known| known.is_of(pod));
        match known.map_or_else(|| PodFacts::read(pod), |known| Ok(Some(known.clone()))) {
            Ok(Some(facts)) if !pod.stale => pods.push(facts),
            Ok(None) => {}
            Ok(_) => trouble = Some(unreadable(&pod.key, "a newer version could not be decoded")),
            Err(error) => trouble = Some(unreadable(&pod.key, &error.to_string())),
        }
    }
    let (subject, facts) = match &seen.cluster {
        Some(cluster) => {
            let facts = match ClusterFacts::read(&cluster.json) {
                Ok(facts) if !cluster.stale => facts,
                Ok(_) => {
                    trouble = Some((
                        "Stale",
                        "a newer version of the cluster could not be decoded".to_owned(),
                    ));
                    ClusterFacts::default()
                }
                Err(error) => {
                    trouble = Some(("Undecodable", format!("the cluster's spec: {error}")));
                    ClusterFacts::default()
                }
            };
            (Subject::Cluster(cluster.clone()), facts)
        }
        None => sets(seen, &mut trouble)?,
    };
    Some(Plan::new(id.clone(), subject, facts, reach, pods, trouble))
}

/// The StatefulSets as what is judged. One whose owner is known to be gone is on its way out too.
fn sets(seen: &Seen, trouble: &mut Option<Trouble>) -> Option<(Subject, ClusterFacts)> {
    let mut sets = Vec::new();
    for set in &seen.sets {
        if super::facts::owner(set).is_some() && !seen.blind {
            continue;
        }
        match SetFacts::read(set) {
            Ok(facts) if !set.stale => sets.push(facts),
            Ok(_) => {
                *trouble = Some(unreadable(&set.key, "a newer version could not be decoded"));
            }
            Err(error) => *trouble = Some(unreadable(&set.key, &error.to_string())),
        }
    }
    if sets.is_empty() {
        return None;
    }
    Some((Subject::Sets(sets.clone()), of_sets(&sets)))
}

fn of_sets(sets: &[SetFacts]) -> ClusterFacts {
    ClusterFacts {
        size: Some(
            sets.iter()
                .fold(0, |sum, set| sum.saturating_add(set.replicas)),
        ),
        ..ClusterFacts::default()
    }
}

fn unreadable(key: &Key, why: &str) -> Trouble {
    ("Undecodable", format!("{}: {why}", key.name()))
}

impl Plan {
    fn new(
        id: ClusterId,
        subject: Subject,
        facts: ClusterFacts,
        reach: Reach,
        pods: Vec<PodFacts>,
        trouble: Option<Trouble>,
    ) -> Self {
        let no_size = || ("NoSize", "its spec has no size".to_owned());
        let size = trouble.map_or_else(|| facts.size.ok_or_else(no_size), Err);
        let tls = reach.tls && facts.tls_port.is_some();
        let port = facts.tls_port.filter(|_| tls).or(facts.port);
        Self {
            id,
            subject,
            size,
            port: port.unwrap_or(reach.port),
            tls,
            pods,
        }
    }

    /// The same with pods that somebody else has seen.
    pub(super) fn with_pods(&self, pods: Vec<PodFacts>) -> Self {
        Self {
            pods,
            ..self.clone()
        }
    }

    /// The same with a newer version of what is judged.
    pub(super) fn with_subject(&self, subject: Subject, facts: ClusterFacts, reach: Reach) -> Self {
        let pods = self.pods.clone();
        Self::new(self.id.clone(), subject, facts, reach, pods, None)
    }

    /// The same with newer StatefulSets.
    pub(super) fn with_sets(&self, sets: Vec<SetFacts>, reach: Reach) -> Self {
        let facts = of_sets(&sets);
        self.with_subject(Subject::Sets(sets), facts, reach)
    }

    /// Whom to ask: pods that are being deleted are members no more.
    pub(super) fn members(&self) -> Vec<Member> {
        let pods = self.pods.iter().filter(|pod| !pod.terminating);
        pods.map(|pod| Member {
            uid: pod.uid.to_string(),
            name: pod.key.name().to_owned(),
            address: pod.ip.map(|ip| SocketAddr::new(ip, self.port)),
            incarnation: pod.incarnation,
        })
        .collect()
    }

    /// Whether answers to one are answers to the other.
    pub(super) fn asks_the_same(&self, other: &Self) -> bool {
        self.size == other.size && self.tls == other.tls && self.members() == other.members()
    }

    /// The same, leaving pods aside.
    pub(super) fn asks_for_the_same(&self, other: &Self) -> bool {
        (&self.size, self.tls, self.port) == (&other.size, other.tls, other.port)
    }

    /// Pods about which something has changed that makes it worth while to ask them again at once.
    pub(super) fn stirred<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a str> {
        let moved = |pod: &&PodFacts| {
            let was = before.pods.iter().find(|was| was.uid == pod.uid);
            was.is_some_and(|was| pod.has_moved_from(was))
        };
        self.pods.iter().filter(moved).map(|pod| &*pod.uid)
    }
}
