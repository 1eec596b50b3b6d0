//! The reconciler: reads what the cache has of one cluster, and gives its task the plan.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use metrics::gauge;
use tokio::sync::{Semaphore, watch};

use super::{
    access::{AccessFiles, Accessible},
    attend::{Attendant, Means, Stale},
    facts::{ClusterId, Operator, PodFacts},
    plan::{Seen, plan},
    poll::Poller,
};
use crate::{
    cache::{Kind, Phase},
    config::{AerospikeConfig, Patience, Reads},
    controller::{
        Action, ReconcileError, Reconciler, Triggers,
        members::{Members, find},
        outdated,
    },
    feed::{Feed, Handle},
    heartbeat::Heartbeat,
    object::{Key, Object},
    readiness::Judged,
    shutdown::Shutdown,
    upstream::Upstream,
};

/// The kinds that it reads, and where verdicts on them go.
#[derive(Clone, Debug)]
pub struct Kinds {
    /// Of either operator, or both; none.
    pub clusters: Vec<(Arc<Kind>, Arc<Judged>)>,
    /// `statefulsets.apps`.
    pub sets: (Arc<Kind>, Arc<Judged>),
    /// `pods`.
    pub pods: (Arc<Kind>, Arc<Judged>),
}

/// What the controllers of all kinds share: the clusters that are looked after.
#[derive(Debug)]
pub struct Shared {
    kinds: Kinds,
    means: Arc<Means>,
    sets: Members,
    pods: Members,
    stale: watch::Sender<Stale>,
    files: AccessFiles,
    access: watch::Sender<Accessible>,
    attended: Mutex<HashMap<ClusterId, Attendant>>,
}

impl Kinds {
    /// That of an operator's clusters, once discovery has found it.
    pub(super) fn cluster(&self, of: Operator) -> Option<&(Arc<Kind>, Arc<Judged>)> {
        let mut clusters = self.clusters.iter();
        clusters.find(|(kind, _)| operator(kind) == Some(of))
    }
}

/// Which objects a controller is run by.
#[derive(Clone, Debug)]
pub enum Role {
    /// The clusters of this kind.
    Clusters(Arc<Kind>),
    /// StatefulSets.
    Sets,
}

/// The controller, of one kind.
#[derive(Debug)]
pub struct Aerospike {
    shared: Arc<Shared>,
    role: Role,
}

/// Keeps an eye on what the shared state rests on: how old the kinds are, and what the files say. Until draining
/// begins.
pub async fn watch_over(
    shared: Arc<Shared>,
    patience: Patience,
    heartbeat: Heartbeat,
    shutdown: Shutdown,
) {
    let keep = shared.files.keep(&shared.access, heartbeat, shutdown);
    let aging = async {
        let mut tick = tokio::time::interval(outdated::EVERY);
        loop {
            tick.tick().await;
            shared.age(patience);
        }
    };
    tokio::select! {
        () = keep => {}
        () = aging => {}
    }
}

impl Shared {
    /// Of no clusters yet. Needs [`watch_over`] beside it.
    pub fn new(kinds: Kinds, config: AerospikeConfig, upstream: Upstream) -> Arc<Self> {
        let unread = AccessFiles::new(&config).unread();
        Self::with_access(kinds, config, upstream, unread)
    }

    pub(super) fn with_access(
        kinds: Kinds,
        config: AerospikeConfig,
        upstream: Upstream,
        access: Accessible,
    ) -> Arc<Self> {
        let files = AccessFiles::new(&config);
        let (access, accessible) = watch::channel(access);
        let group = |object: &Object| ClusterId::of_object(object).map(|id| id.group());
        let (stale, told) = watch::channel(Stale::default());
        let means = Means {
            permits: Semaphore::new(config.concurrency.into()),
            config,
            access: accessible,
            stale: told,
            poller: Poller(upstream),
            kinds: kinds.clone(),
        };
        let shared = Arc::new(Self {
            sets: Members::new(kinds.sets.0.clone(), group),
            pods: Members::new(kinds.pods.0.clone(), group),
            kinds,
            means: Arc::new(means),
            stale,
            files,
            access,
            attended: Mutex::default(),
        });
        shared.take_wishes();
        shared
    }

    /// Has nodes asked when somebody waits for newer evidence.
    fn take_wishes(self: &Arc<Self>) {
        let clusters = self.kinds.clusters.iter().map(|(kind, judged)| {
            let kind = kind.clone();
            let id = move |key: &Key| Some(id(operator(&kind)?, key.clone()));
            (judged, Box::new(id) as Box<dyn Fn(&Key) -> _ + Send + Sync>)
        });
        let by_labels = [&self.kinds.sets, &self.kinds.pods].map(|(kind, judged)| {
            let kind = kind.clone();
            let id = move |key: &Key| ClusterId::of_object(&*find(&kind, key)?);
            (judged, Box::new(id) as Box<dyn Fn(&Key) -> _ + Send + Sync>)
        });
        for (judged, id) in clusters.chain(by_labels) {
            let shared = Arc::downgrade(self);
            judged.on_wish(move |key| {
                let (Some(shared), Some(id)) = (shared.upgrade(), id(key)) else {
                    return;
                };
                if let Some(attendant) = shared.attended().get(&id) {
                    attendant.wanted.notify_one();
                }
            });
        }
    }

    /// Looks how old the kinds are.
    pub(super) fn age(&self, patience: Patience) {
        let now = tokio::time::Instant::now().into_std();
        let why = |kind: &Kind| outdated::outdated(kind, patience, now);
        let clusters = self.kinds.clusters.iter();
        let stale = Stale {
            pods: why(&self.kinds.pods.0),
            sets: why(&self.kinds.sets.0),
            clusters: clusters
                .filter_map(|(kind, _)| Some((operator(kind)?, why(kind)?)))
                .collect(),
        };
        self.stale.send_if_modified(|known| {
            let is_new = *known != stale;
            *known = stale;
            is_new
        });
    }

    /// Brings the task of a cluster up to what the cache has of it now.
    pub(super) fn refresh(&self, id: &ClusterId) -> Result<(), ReconcileError> {
        let mut attended = self.attended();
        // Under the lock, so that what was read later is also given later.
        let seen = self.see(id)?;
        if seen.cluster.is_none()
            && let Some((_, judged)) = self.kinds.cluster(id.operator)
        {
            judged.gone(&id.key);
        }
        let before = attended
            .get(id)
            .map(|attendant| attendant.plans.borrow().clone());
        let before = before.as_ref().map_or(&[][..], |before| &before.pods);
        match plan(id, &seen, self.means.reach(), before) {
            Some(plan) => match attended.get(id) {
                Some(attendant) => attendant.give(plan),
                None => {
                    let attendant = Attendant::start(self.means.clone(), plan);
                    attended.insert(id.clone(), attendant);
                }
            },
            None => {
                if let Some(attendant) = attended.remove(id) {
                    attendant.dossier.withdraw();
                }
            }
        }
        gauge!("informerd_aerospike_clusters").set(attended.len() as f64);
        Ok(())
    }

    /// A pod has changed: if its node is not what it was, that is shown before the reconcile has its turn, for that a
    /// cluster may not be safe any more has to be told at once.
    fn glance(&self, id: &ClusterId, pod: &Handle) {
        let now = pod.object().map(|object| PodFacts::read(object));
        let now = now.and_then(Result::ok).flatten();
        let has_moved = self.attended().get(id).is_some_and(|attendant| {
            let plan = attendant.plans.borrow();
            let before = plan.pods.iter().find(|before| before.key == *pod.key());
            match (before, &now) {
                (Some(before), Some(now)) => now.has_moved_from(before),
                (before, now) => before.is_some() || now.is_some(),
            }
        });
        if has_moved {
            // The reconcile tells of what went wrong.
            let _ = self.refresh(id);
        }
    }

    fn see(&self, id: &ClusterId) -> Result<Seen, ReconcileError> {
        let is_listed = |kind: &Kind| kind.shards().iter().all(|shard| shard.state().is_some());
        for (kind, index) in [
            (&self.kinds.pods.0, &self.pods),
            (&self.kinds.sets.0, &self.sets),
        ] {
            if !is_listed(kind) {
                let message = format!("{} are not listed yet", kind.name);
                return Err(ReconcileError::transient(message));
            }
            index.fill();
        }
        let (cluster, blind) = match self.kinds.cluster(id.operator) {
            None => (None, true),
            Some((kind, _)) => match (find(kind, &id.key), kind.phase()) {
                (Some(cluster), _) => (Some(cluster), false),
                (None, Phase::Waiting | Phase::Removed) => (None, true),
                (None, Phase::Forbidden) if !is_listed(kind) => (None, true),
                (None, _) if !is_listed(kind) => {
                    let message = format!("{} are not listed yet", kind.name);
                    return Err(ReconcileError::transient(message));
                }
                (None, _) => (None, false),
            },
        };
        let group = id.group();
        Ok(Seen {
            cluster,
            blind,
            sets: self.sets.objects(&group),
            pods: self.pods.objects(&group),
        })
    }

    fn attended(&self) -> MutexGuard<'_, HashMap<ClusterId, Attendant>> {
        self.attended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A StatefulSet of the cluster, to reconcile it by, where there is no object of its own.
    fn first_set(&self, id: &ClusterId) -> Option<Key> {
        if let Some((kind, _)) = self.kinds.cluster(id.operator)
            && find(kind, &id.key).is_some()
        {
            return None;
        }
        let sets = self.sets.objects(&id.group());
        sets.first().map(|set| set.key.clone())
    }
}

/// Whose clusters are of this kind, once discovery has found it.
fn operator(kind: &Kind) -> Option<Operator> {
    Operator::of_group(&kind.identity()?.group)
}

fn id(operator: Operator, key: Key) -> ClusterId {
    ClusterId { operator, key }
}

/// The cluster of what the handle is, or was, of.
fn of_handle(handle: &Handle) -> Option<ClusterId> {
    use kube::Resource;
    let labels = handle.meta().labels.as_ref()?;
    let label = |name: &str| labels.get(name).map(String::as_str);
    ClusterId::of(handle.key().namespace(), label)
}

impl Aerospike {
    /// Of one kind. All kinds' controllers have the same `shared`.
    pub fn new(shared: Arc<Shared>, role: Role) -> Self {
        Self { shared, role }
    }

    /// Brings the cluster that the handle is of up to date.
    fn look(&self, handle: &Handle) -> Result<(), ReconcileError> {
        let id = match &self.role {
            Role::Clusters(kind) => {
                let Some(of) = operator(kind) else {
                    let message = "the kind is of no operator that is known here";
                    return Err(ReconcileError::permanent(message));
                };
                Some(id(of, handle.key().clone()))
            }
            Role::Sets => {
                self.shared.sets.observe(handle);
                of_handle(handle)
            }
        };
        id.map_or(Ok(()), |id| self.shared.refresh(&id))
    }

    /// What it is woken by: its own kind, pods, and where that is StatefulSets, clusters too. `feeds` are those of
    /// the kinds that [`Kinds`] has.
    pub fn triggers(&self, sets: Feed, pods: Feed, clusters: &[(Arc<Kind>, Feed)]) -> Triggers {
        let shared = self.shared.clone();
        match &self.role {
            Role::Clusters(kind) => {
                let own = clusters.iter().find(|(of, _)| Arc::ptr_eq(of, kind));
                let feed = own.map_or_else(|| sets.clone(), |(_, feed)| feed.clone());
                let name = format!("{}/{}", Self::NAME, kind.name);
                let kind = kind.clone();
                Triggers::of(name, feed).and(pods, move |handle| {
                    shared.pods.observe(handle);
                    let id = of_handle(handle);
                    let own = id.filter(|id| operator(&kind) == Some(id.operator));
                    let own = own.inspect(|id| shared.glance(id, handle));
                    own.map(|id| id.key).into_iter().collect()
                })
            }
            Role::Sets => {
                let name = format!("{}/{}", Self::NAME, self.shared.kinds.sets.0.name);
                let mut triggers = Triggers::of(name, sets).and(pods, {
                    let shared = shared.clone();
                    move |handle| {
                        shared.pods.observe(handle);
                        let Some(id) = of_handle(handle) else {
                            return Vec::new();
                        };
                        let set = shared.first_set(&id);
                        let set = set.inspect(|_| shared.glance(&id, handle));
                        set.into_iter().collect()
                    }
                });
                for (kind, feed) in clusters {
                    let (shared, kind) = (shared.clone(), kind.clone());
                    triggers = triggers.and(feed.clone(), move |handle| {
                        let of = operator(&kind).map(|of| id(of, handle.key().clone()));
                        of.and_then(|id| shared.first_set(&id))
                            .into_iter()
                            .collect()
                    });
                }
                triggers
            }
        }
    }
}

/// What is read of the clusters of an operator.
const fn clusters(resource: &'static str, aliases: &'static [&'static str]) -> Reads {
    Reads {
        controller: Aerospike::NAME,
        resource,
        aliases,
        paths: &[
            ".spec.size",
            ".spec.aerospikeConfig.network.service",
            ".status",
        ],
        optional: true,
    }
}

impl Reconciler for Aerospike {
    const NAME: &'static str = "aerospike";
    const READS: &'static [Reads] = &[
        clusters(
            "aerospikeclusters.acko.io",
            &[
                "aerospikeclusters",
                "aerospikecluster",
                "asc",
                "aerospikecluster.acko.io",
                "aerospikeclusters.v1alpha1.acko.io",
                "asc.acko.io",
            ],
        ),
        clusters(
            "aerospikeclusters.asdb.aerospike.com",
            &[
                "aerospikecluster.asdb.aerospike.com",
                "aerospikeclusters.v1.asdb.aerospike.com",
            ],
        ),
        Reads {
            controller: Self::NAME,
            resource: "pods",
            aliases: &["pod", "po"],
            paths: &[
                ".status.podIP",
                ".status.conditions",
                ".status.containerStatuses",
            ],
            optional: false,
        },
        Reads {
            controller: Self::NAME,
            resource: "statefulsets.apps",
            aliases: &["statefulsets", "statefulset", "sts"],
            paths: &[".spec.replicas"],
            optional: false,
        },
    ];

    async fn reconcile(&self, handle: Arc<Handle>) -> Result<Action, ReconcileError> {
        self.look(&handle)?;
        Ok(Action::await_change())
    }

    fn glance(&self, handle: &Handle) {
        // The reconcile tells of what went wrong.
        let _ = self.look(handle);
    }
}
