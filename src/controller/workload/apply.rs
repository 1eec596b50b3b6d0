//! Publishes what [`decide`](super::decide) finds, kind by kind: the reconciler.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::Deserialize;

use super::{super::opinion::finding, decide};
use crate::{
    cache::Kind,
    config::Reads,
    controller::{
        Action, ReconcileError, Reconciler, Triggers,
        members::{Members, find, owner, owner_uid},
    },
    feed::{Feed, Handle},
    object::{Key, Object},
    readiness::{Basis, Finding, Judged, Part, Parts, Target},
};

/// Judges the objects of one kind.
#[derive(Debug)]
pub struct Workload {
    kind: Arc<Kind>,
    judged: Arc<Judged>,
    members: PodsAndSets,
    resource: OnceLock<Arc<str>>,
    /// Held from reading the cache to showing what is thought of it, so that what is shown never goes back in time.
    turn: Mutex<()>,
}

/// Pods, and the ReplicaSets between them and their Deployments, where they are watched.
#[derive(Clone, Debug, Default)]
pub struct PodsAndSets {
    pods: Option<(Arc<Members>, Feed)>,
    sets: Option<(Arc<Members>, Feed, Arc<Kind>)>,
}

impl PodsAndSets {
    /// Of these kinds and their feeds.
    pub fn new(pods: Option<(Arc<Kind>, Feed)>, sets: Option<(Arc<Kind>, Feed)>) -> Self {
        let members = |kind: &Arc<Kind>| Arc::new(Members::new(kind.clone(), owner_uid));
        Self {
            pods: pods.map(|(kind, feed)| (members(&kind), feed)),
            sets: sets.map(|(kind, feed)| (members(&kind), feed, kind)),
        }
    }
}

impl Workload {
    /// Of one kind. `members` is shared with those of the other kinds.
    pub fn new(kind: Arc<Kind>, judged: Arc<Judged>, members: PodsAndSets) -> Self {
        Self {
            kind,
            judged,
            members,
            resource: OnceLock::new(),
            turn: Mutex::default(),
        }
    }

    /// What it is woken by: its own kind, and the parts of that. `role` is the kind's full name, where it is one
    /// that has parts.
    pub fn triggers(&self, role: &str, feed: Feed) -> Triggers {
        let triggers = Triggers::of(format!("{}/{}", Self::NAME, self.kind.name), feed);
        let own = self.kind.clone();
        let PodsAndSets { pods, sets } = self.members.clone();
        match (role, pods, sets) {
            ("deployments.apps", pods, Some((sets, sets_feed, sets_kind))) => {
                let owns = own.clone();
                let triggers = triggers.and(sets_feed, move |handle| {
                    sets.observe(handle);
                    owner(handle, &owns).into_iter().collect()
                });
                let Some((pods, pods_feed)) = pods else {
                    return triggers;
                };
                triggers.and(pods_feed, move |handle| {
                    pods.observe(handle);
                    let set = owner(handle, &sets_kind).and_then(|set| find(&sets_kind, &set));
                    set.and_then(|set| owner(&Handle::live(set), &own))
                        .into_iter()
                        .collect()
                })
            }
            (
                "replicasets.apps"
                | "statefulsets.apps"
                | "daemonsets.apps"
                | "jobs.batch"
                | "replicationcontrollers",
                Some((pods, pods_feed)),
                _,
            ) => triggers.and(pods_feed, move |handle| {
                pods.observe(handle);
                owner(handle, &own).into_iter().collect()
            }),
            _ => triggers,
        }
    }

    /// Shows what is to be thought of an object as the cache has it now.
    fn look(&self, key: &Key) -> Result<(), ReconcileError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        match find(&self.kind, key).map(|object| self.judge(&object)) {
            Some(Some(finding)) => self.judged.publish(key, finding),
            Some(None) => {
                return Err(ReconcileError::transient("the kind is not discovered yet"));
            }
            None => self.judged.gone(key),
        };
        Ok(())
    }

    /// What is to be thought of an object now. `None` before the kind has been found by discovery, when there is
    /// no object of it either.
    fn judge(&self, object: &Object) -> Option<Finding> {
        let resource = self.resource()?;
        let parts = self.parts(&resource, object);
        let decision = decide(&resource, object, &parts);
        let basis = Basis::Object(tokio::time::Instant::now().into_std());
        let conditions = decision.conditions.into_iter();
        Some(Finding {
            observed_generation: decision.observed_generation,
            conditions: conditions
                .map(|(name, opinion)| (name.into(), opinion.answer(basis)))
                .collect(),
            parts,
            ..finding(resource, object, decision.opinion.answer(basis))
        })
    }

    fn resource(&self) -> Option<Arc<str>> {
        if let Some(resource) = self.resource.get() {
            return Some(resource.clone());
        }
        let resource: Arc<str> = self.kind.identity()?.resource().into();
        Some(self.resource.get_or_init(|| resource).clone())
    }

    fn parts(&self, resource: &str, object: &Object) -> Parts {
        let Some((pods, _)) = &self.members.pods else {
            return Parts::default();
        };
        match resource {
            "deployments.apps" => {
                let Some((sets, ..)) = &self.members.sets else {
                    return Parts::default();
                };
                let sets = sets.objects(&object.uid);
                let parts = sets.iter().flat_map(|set| pods.parts(&set.uid, pod));
                parts.collect()
            }
            "replicasets.apps"
            | "statefulsets.apps"
            | "daemonsets.apps"
            | "jobs.batch"
            | "replicationcontrollers" => pods.parts(&object.uid, pod).into_iter().collect(),
            _ => Parts::default(),
        }
    }
}

/// What is to be thought of a pod, as a part of something.
fn pod(object: &Object) -> Part {
    #[derive(Deserialize)]
    struct Pod {
        spec: Option<Spec>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        node_name: Option<String>,
    }
    let opinion = decide("pods", object, &Parts::default()).opinion;
    let message = if opinion.message.is_empty() {
        let read: Option<Pod> = serde_json::from_slice(&object.json).ok();
        let node = read.and_then(|pod| pod.spec?.node_name);
        node.map_or_else(String::new, |node| format!("on {node}"))
    } else {
        opinion.message
    };
    Part {
        target: Target {
            resource: "pods".into(),
            key: object.key.clone(),
        },
        uid: object.uid.clone(),
        state: opinion.state,
        reason: opinion.reason.as_ref().into(),
        message: message.into(),
    }
}

const fn reads(
    resource: &'static str,
    aliases: &'static [&'static str],
    paths: &'static [&'static str],
) -> Reads {
    Reads {
        controller: Workload::NAME,
        resource,
        aliases,
        paths,
        optional: true,
    }
}

const STATUS: &[&str] = &[".status"];

impl Reconciler for Workload {
    const NAME: &'static str = "workload";
    const READS: &'static [Reads] = &[
        reads(
            "pods",
            &["pod", "po"],
            &[
                ".spec.nodeName",
                ".spec.readinessGates",
                ".status.phase",
                ".status.reason",
                ".status.message",
                ".status.conditions",
                ".status.containerStatuses",
                ".status.initContainerStatuses",
            ],
        ),
        reads(
            "deployments.apps",
            &["deployments", "deployment", "deploy"],
            &[
                ".spec.replicas",
                ".spec.paused",
                ".spec.minReadySeconds",
                ".spec.progressDeadlineSeconds",
                ".status",
            ],
        ),
        reads(
            "replicasets.apps",
            &["replicasets", "replicaset", "rs"],
            &[".spec.replicas", ".spec.minReadySeconds", ".status"],
        ),
        reads(
            "statefulsets.apps",
            &["statefulsets", "statefulset", "sts"],
            &[
                ".spec.replicas",
                ".spec.minReadySeconds",
                ".spec.updateStrategy",
                ".status",
            ],
        ),
        reads(
            "daemonsets.apps",
            &["daemonsets", "daemonset", "ds"],
            &[".spec.updateStrategy", ".status"],
        ),
        reads(
            "replicationcontrollers",
            &["replicationcontroller", "rc"],
            &[".spec.replicas", ".spec.minReadySeconds", ".status"],
        ),
        reads(
            "jobs.batch",
            &["jobs", "job"],
            &[".spec.parallelism", ".spec.completions", ".status"],
        ),
        reads(
            "persistentvolumeclaims",
            &["persistentvolumeclaim", "pvc"],
            &[".status.phase", ".status.conditions"],
        ),
        reads(
            "poddisruptionbudgets.policy",
            &["poddisruptionbudgets", "poddisruptionbudget", "pdb"],
            STATUS,
        ),
        reads(
            "horizontalpodautoscalers.autoscaling",
            &["horizontalpodautoscalers", "horizontalpodautoscaler", "hpa"],
            &[".status.conditions"],
        ),
        reads("namespaces", &["namespace", "ns"], STATUS),
        reads(
            "customresourcedefinitions.apiextensions.k8s.io",
            &[
                "customresourcedefinitions",
                "customresourcedefinition",
                "crd",
                "crds",
            ],
            &[".status.conditions"],
        ),
        reads(
            "apiservices.apiregistration.k8s.io",
            &["apiservices", "apiservice"],
            STATUS,
        ),
    ];

    async fn reconcile(&self, handle: Arc<Handle>) -> Result<Action, ReconcileError> {
        self.look(handle.key())?;
        Ok(Action::await_change())
    }

    fn glance(&self, handle: &Handle) {
        // The reconcile tells of what went wrong.
        let _ = self.look(handle.key());
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
