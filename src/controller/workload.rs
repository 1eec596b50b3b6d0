//! The `workload` controller: whether objects do what they are there for, and if not, why.
//!
//! [`decide`] is pure: an object, and what there is of its parts, in; an opinion out. It knows the built-in kinds
//! that report progress, and takes any other by its conditions. It is never content with silence: a status that
//! is missing, or is about an earlier generation, is not ready.

use crate::{
    object::Object,
    readiness::{Parts, State},
};

mod apply;
mod custom;
mod plain;
mod pod;
mod replicas;
#[cfg(test)]
mod tests;

pub use apply::{PodsAndSets, Workload};

pub use super::opinion::{Condition, Evidence, Facts, Opinion};

/// How many parts a message tells of.
const TOLD: usize = 3;

/// What is to be thought of an object.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Whether it can be counted on.
    pub opinion: Opinion,
    /// The generation that its controller has acted on, where it says so.
    pub observed_generation: Option<i64>,
    /// Its own conditions, and others that can be waited for, by name.
    pub conditions: Vec<(String, Opinion)>,
}

/// What is to be thought of an object of this kind (`pods`, `deployments.apps`), given its parts.
pub fn decide(resource: &str, object: &Object, parts: &Parts) -> Decision {
    let facts = Facts::read(object);
    let mut safe = None;
    let opinion = match facts.settle() {
        Some(opinion) => opinion,
        None => {
            let decided = match resource {
                "pods" => pod::decide(&facts, object),
                "deployments.apps" => replicas::deployment(&facts, object),
                "replicasets.apps" | "replicationcontrollers" => {
                    replicas::replica_set(&facts, object)
                }
                "statefulsets.apps" => replicas::stateful_set(&facts, object),
                "daemonsets.apps" => replicas::daemon_set(&facts, object),
                "jobs.batch" => plain::job(&facts, object),
                "persistentvolumeclaims" => plain::volume_claim(&facts, object),
                "poddisruptionbudgets.policy" => {
                    let (decided, may_go) = plain::budget(&facts, object);
                    safe = Some(may_go);
                    decided
                }
                "horizontalpodautoscalers.autoscaling" => plain::autoscaler(&facts),
                "persistentvolumes" => plain::volume(object),
                "namespaces" => plain::namespace(&facts, object),
                "customresourcedefinitions.apiextensions.k8s.io" => plain::definition(&facts),
                "apiservices.apiregistration.k8s.io" => plain::api_service(&facts),
                resource if is_plain_data(resource) => {
                    Ok(Opinion::ready("Exists", "there is nothing to wait for"))
                }
                _ => custom::decide(&facts),
            };
            // Which of the two it is matters inside only: where to go on, and where to stop.
            decided.unwrap_or_else(|opinion| opinion)
        }
    };
    let mut conditions = conditions(resource, &facts);
    if resource == "poddisruptionbudgets.policy" {
        let safe = safe.unwrap_or_else(|| opinion.clone());
        conditions.push(("SafeToDisrupt".to_owned(), safe));
    }
    Decision {
        opinion: with_parts(opinion, parts),
        observed_generation: facts.observed_generation,
        conditions,
    }
}

/// Built-in kinds that are as good as they get once they are there.
fn is_plain_data(resource: &str) -> bool {
    const PLAIN: [&str; 14] = [
        "clusterrolebindings.rbac.authorization.k8s.io",
        "clusterroles.rbac.authorization.k8s.io",
        "configmaps",
        "cronjobs.batch",
        "ingressclasses.networking.k8s.io",
        "limitranges",
        "networkpolicies.networking.k8s.io",
        "priorityclasses.scheduling.k8s.io",
        "resourcequotas",
        "rolebindings.rbac.authorization.k8s.io",
        "roles.rbac.authorization.k8s.io",
        "secrets",
        "serviceaccounts",
        "storageclasses.storage.k8s.io",
    ];
    PLAIN.contains(&resource)
}

/// Whether the controller leaves a kind alone, by a name that a config may have for it: kinds that others judge, and
/// those that come and go without being of use to anybody by themselves.
pub fn leaves_out(name: &str) -> bool {
    const LEFT_OUT: [&str; 20] = [
        "controllerrevisions",
        "controllerrevisions.apps",
        "endpoints",
        "endpointslice",
        "endpointslices",
        "endpointslices.discovery.k8s.io",
        "ep",
        "ev",
        "event",
        "events",
        "events.events.k8s.io",
        "lease",
        "leases",
        "leases.coordination.k8s.io",
        "no",
        "node",
        "nodes",
        "service",
        "services",
        "svc",
    ];
    LEFT_OUT.contains(&name.to_ascii_lowercase().as_str())
}

/// The object's own conditions. One that is about an earlier generation says nothing of this one.
fn conditions(resource: &str, facts: &Facts) -> Vec<(String, Opinion)> {
    let shown = |condition: &&Condition| {
        !condition.name.is_empty() && (resource != "pods" || pod::is_shown(condition))
    };
    let is_stale = facts.evidence != Evidence::Current;
    let opinion = |condition: &Condition| {
        let told = Opinion::of(condition.state(), condition);
        let told = if is_stale {
            Opinion::unknown("Stale", "a newer version could not be decoded")
        } else if facts.is_outdated(condition) {
            Opinion::unknown("OldGeneration", "it is about an earlier generation")
        } else {
            told
        };
        (condition.name.clone(), told)
    };
    facts.conditions.iter().filter(shown).map(opinion).collect()
}

/// Says which parts are to blame.
fn with_parts(opinion: Opinion, parts: &Parts) -> Opinion {
    if opinion.state == State::Ready {
        return opinion;
    }
    let not_ready = || parts.named.iter().filter(|part| part.state != State::Ready);
    let mut message = opinion.message;
    for part in not_ready().take(TOLD) {
        let (name, why) = (part.target.key.name(), &part.message);
        let why = if why.is_empty() { &part.reason } else { why };
        if !message.is_empty() {
            message.push_str("; ");
        }
        message.push_str(&format!("{name}: {why}"));
    }
    let more = (parts.total - parts.ready) as usize;
    if more > TOLD {
        message.push_str(&format!("; and {} more", more - TOLD));
    }
    Opinion { message, ..opinion }
}
