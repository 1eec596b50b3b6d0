//! The `node` controller: which nodes can be counted on.
//!
//! What it finds is told on the board, in metrics, by state, and in the log, by name and when it changes.
//! [`decide`] is pure; a node of which nothing certain is known is Unknown, and never Ready for want of bad news.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use metrics::gauge;
use serde::Deserialize;
use tracing::{debug, info, warn};

use super::{
    Action, ReconcileError, Reconciler,
    opinion::{Opinion, finding},
};
use crate::{
    config::Reads,
    feed::Handle,
    object::{Key, Object},
    readiness::{Basis, Finding, Judged, State},
};

pub use super::opinion::{Condition, Evidence};

const TAINT_UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// The controller.
#[derive(Debug)]
pub struct NodeController {
    judged: Arc<Judged>,
    /// By key, what was found last, and of which uid.
    known: Mutex<HashMap<Key, (String, Verdict)>>,
}

/// What [`decide`] goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// How good the rest is.
    pub evidence: Evidence,
    /// `status.conditions`.
    pub conditions: Vec<Condition>,
    /// Keys of `spec.taints`.
    pub taints: Vec<String>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// It has a `metadata.deletionTimestamp`.
    pub deleting: bool,
}

/// Whether a node is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ready {
    /// Its kubelet says so.
    Ready,
    /// Its kubelet says that it is not.
    NotReady,
    /// Nobody knows.
    Unknown,
}

/// What is to be thought of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// See [`Ready`].
    pub ready: Ready,
    /// Why, in one word.
    pub reason: String,
    /// The same for a person; may be empty.
    pub message: String,
    /// No new pods are scheduled to it.
    pub cordoned: bool,
    /// The control plane does not hear from it.
    pub unreachable: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// It is short of memory.
    pub memory_pressure: bool,
    /// It is short of disk.
    pub disk_pressure: bool,
    /// It is short of process ids.
    pub pid_pressure: bool,
    /// Its network is not set up.
    pub network_unavailable: bool,
}

impl Ready {
    const ALL: [Self; 3] = [Self::Ready, Self::NotReady, Self::Unknown];

    /// As in metrics and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::NotReady => "not_ready",
            Self::Unknown => "unknown",
        }
    }
}

impl Verdict {
    fn conditions(&self) -> [(&'static str, bool); 7] {
        [
            ("cordoned", self.cordoned),
            ("unreachable", self.unreachable),
            ("deleting", self.deleting),
            ("memory_pressure", self.memory_pressure),
            ("disk_pressure", self.disk_pressure),
            ("pid_pressure", self.pid_pressure),
            ("network_unavailable", self.network_unavailable),
        ]
    }

    /// What holds of the conditions, for the log.
    fn troubles(&self) -> String {
        let holding = self.conditions().into_iter().filter(|(_, holds)| *holds);
        holding.map(|(name, _)| name).collect::<Vec<_>>().join(",")
    }

    /// Whether it differs in more than words.
    fn differs(&self, other: &Self) -> bool {
        self.ready != other.ready || self.conditions() != other.conditions()
    }
}

/// What is to be thought of a node.
pub fn decide(facts: &NodeFacts) -> Verdict {
    let condition = |name: &str| {
        facts
            .conditions
            .iter()
            .find(|condition| condition.name == name)
    };
    let holds = |name: &str| condition(name).is_some_and(|condition| condition.status == "True");
    let ready_condition = condition("Ready");
    let status = ready_condition.map(|condition| condition.status.as_str());
    let told = |ready, fallback: &str| {
        let word = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
        let reason = ready_condition.and_then(|condition| word(condition.reason.as_ref()));
        let message = ready_condition.and_then(|condition| word(condition.message.as_ref()));
        (
            ready,
            reason.unwrap_or_else(|| fallback.to_owned()),
            message.unwrap_or_default(),
        )
    };
    let (ready, reason, message) = match (&facts.evidence, status) {
        (Evidence::Undecodable(why), _) => (Ready::Unknown, "Undecodable".to_owned(), why.clone()),
        (Evidence::Stale, _) => {
            let message = "a newer version could not be decoded".to_owned();
            (Ready::Unknown, "Stale".to_owned(), message)
        }
        (Evidence::Current, None) => {
            let message = "the node has no Ready condition".to_owned();
            (Ready::Unknown, "NoReadyCondition".to_owned(), message)
        }
        (Evidence::Current, Some("True")) => told(Ready::Ready, "Ready"),
        (Evidence::Current, Some("False")) => told(Ready::NotReady, "NotReady"),
        (Evidence::Current, Some(_)) => told(Ready::Unknown, "Unknown"),
    };
    let tainted = facts.taints.iter().any(|taint| taint == TAINT_UNREACHABLE);
    Verdict {
        ready,
        reason,
        message,
        cordoned: facts.unschedulable,
        // The taint follows the condition, and stays a little after the node is back.
        unreachable: status == Some("Unknown") || (tainted && status != Some("True")),
        deleting: facts.deleting,
        memory_pressure: holds("MemoryPressure"),
        disk_pressure: holds("DiskPressure"),
        pid_pressure: holds("PIDPressure"),
        network_unavailable: holds("NetworkUnavailable"),
    }
}

#[derive(Default, Deserialize)]
struct Node {
    #[serde(default)]
    spec: Option<Spec>,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(default)]
    unschedulable: Option<bool>,
    #[serde(default)]
    taints: Option<Vec<Taint>>,
}

#[derive(Deserialize)]
struct Taint {
    key: String,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Option<Vec<Condition>>,
}

impl NodeFacts {
    /// Reads what there is of them in a node.
    pub fn read(object: &Object) -> Self {
        let (node, evidence) = match serde_json::from_slice::<Node>(&object.json) {
            Err(error) => (Node::default(), Evidence::Undecodable(error.to_string())),
            Ok(node) if object.stale => (node, Evidence::Stale),
            Ok(node) => (node, Evidence::Current),
        };
        let spec = node.spec.unwrap_or_default();
        Self {
            evidence,
            conditions: node
                .status
                .unwrap_or_default()
                .conditions
                .unwrap_or_default(),
            taints: spec
                .taints
                .unwrap_or_default()
                .into_iter()
                .map(|taint| taint.key)
                .collect(),
            unschedulable: spec.unschedulable.unwrap_or_default(),
            deleting: object.deletion_timestamp.is_some(),
        }
    }
}

/// As the board is told: the node's own conditions, and whether new pods may be scheduled to it.
fn found(object: &Object, facts: &NodeFacts, verdict: &Verdict) -> Finding {
    let basis = Basis::Object(tokio::time::Instant::now().into_std());
    let state = match verdict.ready {
        Ready::Ready => State::Ready,
        Ready::NotReady => State::NotReady,
        Ready::Unknown => State::Unknown,
    };
    // To its own state the deletion of a node is nothing; to those who count on it, it is.
    let opinion = match verdict.ready {
        Ready::Ready if verdict.deleting => {
            Opinion::not_ready("Terminating", "it is being deleted")
        }
        _ => Opinion {
            state,
            reason: verdict.reason.clone().into(),
            message: verdict.message.clone(),
        },
    };
    let schedulable = match verdict.cordoned {
        _ if facts.evidence != Evidence::Current => Opinion::unknown("Stale", ""),
        true => Opinion::not_ready("Cordoned", "no new pods are scheduled to it"),
        false => Opinion::ready("Schedulable", ""),
    };
    let own = facts.conditions.iter().map(|condition| {
        let opinion = match facts.evidence {
            Evidence::Current => Opinion::of(condition.state(), condition),
            Evidence::Stale | Evidence::Undecodable(_) => Opinion::unknown("Stale", ""),
        };
        (condition.name.as_str(), opinion)
    });
    let conditions = own.chain([("Schedulable", schedulable)]);
    let answer = opinion.answer(basis);
    Finding {
        conditions: conditions
            .map(|(name, opinion)| (name.into(), opinion.answer(basis)))
            .collect(),
        ..finding("nodes".into(), object, answer)
    }
}

/// Says what this module's metrics mean.
pub fn describe_metrics() {
    metrics::describe_gauge!(
        "informerd_node_ready",
        "Nodes, by whether they are ready: ready, not_ready, unknown."
    );
    metrics::describe_gauge!(
        "informerd_node_condition",
        "Nodes of which a condition holds: cordoned, unreachable, deleting, memory_pressure, ..."
    );
}

impl NodeController {
    /// Of no nodes yet. The metrics recorder is to be installed before.
    pub fn new(judged: Arc<Judged>) -> Self {
        for ready in Ready::ALL {
            gauge!("informerd_node_ready", "state" => ready.as_str()).set(0);
        }
        for (condition, _) in decide(&NodeFacts::nothing()).conditions() {
            gauge!("informerd_node_condition", "condition" => condition).set(0);
        }
        Self {
            judged,
            known: Mutex::default(),
        }
    }

    /// Says what has changed, and counts it. `verdict` is `None` once the node is gone.
    fn apply(&self, key: &Key, uid: &str, verdict: Option<Verdict>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match &verdict {
            Some(verdict) => known.insert(key.clone(), (uid.to_owned(), verdict.clone())),
            None => known.remove(key),
        };
        if let Some((_, before)) = &before {
            count(before, -1.0);
        }
        if let Some(verdict) = &verdict {
            count(verdict, 1.0);
        }
        drop(known);
        let Some(verdict) = verdict else {
            info!(node = %key, "node deleted");
            return;
        };
        let (ready, reason, message) = (verdict.ready.as_str(), &verdict.reason, &verdict.message);
        let conditions = verdict.troubles();
        match before {
            Some((before_uid, _)) if before_uid != uid => {
                info!(node = %key, ready, reason, message, conditions, "node replaced by another of its name");
            }
            Some((_, before)) if !before.differs(&verdict) => {}
            Some((_, before)) if verdict.ready != Ready::Ready && before.ready != verdict.ready => {
                let was = before.ready.as_str();
                warn!(node = %key, ready, was, reason, message, conditions, "node changed");
            }
            Some((_, before)) => {
                let was = before.ready.as_str();
                info!(node = %key, ready, was, reason, message, conditions, "node changed");
            }
            None if verdict.ready == Ready::Ready => {
                debug!(node = %key, ready, reason, message, conditions, "node found");
            }
            None => info!(node = %key, ready, reason, message, conditions, "node found"),
        }
    }
}

impl NodeFacts {
    fn nothing() -> Self {
        Self {
            evidence: Evidence::Current,
            conditions: Vec::new(),
            taints: Vec::new(),
            unschedulable: false,
            deleting: false,
        }
    }
}

fn count(verdict: &Verdict, by: f64) {
    gauge!("informerd_node_ready", "state" => verdict.ready.as_str()).increment(by);
    for (condition, _) in verdict.conditions().into_iter().filter(|(_, holds)| *holds) {
        gauge!("informerd_node_condition", "condition" => condition).increment(by);
    }
}

impl Reconciler for NodeController {
    const NAME: &'static str = "node";
    const READS: &'static [Reads] = &[Reads {
        controller: Self::NAME,
        resource: "nodes",
        aliases: &["node", "no"],
        optional: false,
        paths: &[".spec.unschedulable", ".spec.taints", ".status.conditions"],
    }];

    async fn reconcile(&self, handle: Arc<Handle>) -> Result<Action, ReconcileError> {
        let verdict = match handle.object() {
            Some(object) => {
                let facts = NodeFacts::read(object);
                let verdict = decide(&facts);
                self.judged
                    .publish(handle.key(), found(object, &facts, &verdict));
                Some(verdict)
            }
            None => {
                self.judged.gone(handle.key());
                None
            }
        };
        self.apply(handle.key(), handle.uid(), verdict);
        Ok(Action::await_change())
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::{cache::Limits, object::tests::object, readiness::Board};

    fn node(json: &str) -> Object {
        Object {
            json: json.to_owned().into(),
            ..object("", "n1")
        }
    }

    fn ready(status: &str) -> String {
        format!(
            r#"{{"status":{{"conditions":[{{"type":"Ready","status":"{status}","reason":"Kubelet{status}","message":"m"}}]}}}}"#
        )
    }

    fn verdict(json: &str) -> Verdict {
        decide(&NodeFacts::read(&node(json)))
    }

    #[test]
    fn the_ready_condition_decides_and_says_why() {
        for (status, expected) in [
            ("True", Ready::Ready),
            ("False", Ready::NotReady),
            ("Unknown", Ready::Unknown),
        ] {
            let verdict = verdict(&ready(status));
            assert_eq!(verdict.ready, expected);
            assert_eq!(
                (verdict.reason, verdict.message),
                (format!("Kubelet{status}"), "m".to_owned())
            );
        }
    }

    #[test]
    fn a_node_is_never_ready_for_want_of_bad_news() {
        for silent in [
            "{}",
            r#"{"status":null}"#,
            r#"{"status":{"conditions":[]}}"#,
            &ready("Perhaps"),
            &ready(""),
        ] {
            assert_eq!(verdict(silent).ready, Ready::Unknown, "{silent}");
        }
        let stale = Object {
            stale: true,
            ..node(&ready("True"))
        };
        let stale = decide(&NodeFacts::read(&stale));
        assert_eq!(
            (stale.ready, stale.reason.as_str()),
            (Ready::Unknown, "Stale")
        );
        for undecodable in [
            "",
            "3",
            r#"{"status":{"conditions":"Ready"}}"#,
            r#"{"spec":{"taints":1},"status":{}}"#,
        ] {
            let verdict = verdict(undecodable);
            assert_eq!(
                (verdict.ready, verdict.reason.as_str()),
                (Ready::Unknown, "Undecodable"),
                "{undecodable}"
            );
        }
    }

    #[test]
    fn pressures_cordon_network_and_deletion_are_told_apart() {
        let json = r#"{"spec":{"unschedulable":true,"taints":null},"status":{"conditions":[
            {"type":"Ready","status":"True"},{"type":"MemoryPressure","status":"True"},
            {"type":"DiskPressure","status":"False"},{"type":"PIDPressure","status":"Unknown"},
            {"type":"NetworkUnavailable","status":"True"}]}}"#;
        let object = Object {
            deletion_timestamp: Some("2026-01-02T03:04:05Z".into()),
            ..node(json)
        };
        let verdict = decide(&NodeFacts::read(&object));
        assert_eq!(
            (verdict.ready, verdict.reason.as_str()),
            (Ready::Ready, "Ready")
        );
        assert_eq!(
            verdict.troubles(),
            "cordoned,deleting,memory_pressure,network_unavailable"
        );
        assert_eq!(self::verdict(&ready("True")).troubles(), "");
    }

    #[test]
    fn a_node_is_unreachable_while_nobody_hears_from_it() {
        let tainted = |status: &str| {
            let taint = r#"{"spec":{"taints":[{"key":"node.kubernetes.io/unreachable","effect":"NoExecute"}]},"#;
            verdict(&ready(status).replacen('{', taint, 1))
        };
        assert!(verdict(&ready("Unknown")).unreachable);
        assert!(tainted("False").unreachable);
        assert!(!tainted("True").unreachable, "the taint is about to go");
        assert!(!verdict(&ready("False")).unreachable);
    }

    #[tokio::test]
    async fn nodes_are_counted_by_state_and_not_once_they_are_gone() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let _guard = metrics::set_default_local_recorder(&recorder);
        let shows = |line: &str| {
            let metrics = recorder.handle().render();
            assert!(
                metrics.lines().any(|shown| shown == line),
                "no {line} in\n{metrics}"
            );
        };
        let board = Board::new(["nodes"], Limits::default());
        let judged = board.kind("nodes").unwrap().clone();
        judged.expect([]);
        let controller = NodeController::new(judged.clone());
        let shown = || {
            let verdict = judged.get(&Key::new("", "n1"))?;
            let schedulable = verdict.condition("Schedulable")?.answer.state;
            Some((verdict.standing.answer.state, schedulable))
        };
        shows(r#"informerd_node_ready{state="ready"} 0"#);
        shows(r#"informerd_node_condition{condition="disk_pressure"} 0"#);

        let live = |json: &str| Arc::new(Handle::live(Arc::new(node(json))));
        controller.reconcile(live(&ready("True"))).await.unwrap();
        shows(r#"informerd_node_ready{state="ready"} 1"#);
        assert_eq!(shown(), Some((State::Ready, State::Ready)));
        let cordoned = ready("True").replacen('{', r#"{"spec":{"unschedulable":true},"#, 1);
        controller.reconcile(live(&cordoned)).await.unwrap();
        assert_eq!(shown(), Some((State::Ready, State::NotReady)));
        controller.reconcile(live(&ready("Unknown"))).await.unwrap();
        shows(r#"informerd_node_ready{state="ready"} 0"#);
        shows(r#"informerd_node_ready{state="unknown"} 1"#);
        shows(r#"informerd_node_condition{condition="unreachable"} 1"#);
        let tombstone = Arc::new(live("{}").to_tombstone());
        for _ in 0..2 {
            controller.reconcile(tombstone.clone()).await.unwrap();
            shows(r#"informerd_node_ready{state="unknown"} 0"#);
            shows(r#"informerd_node_condition{condition="unreachable"} 0"#);
            assert_eq!(shown(), None);
        }
    }

    #[test]
    fn what_it_reads_are_paths() {
        for path in NodeController::READS.iter().flat_map(|reads| reads.paths) {
            path.parse::<crate::object::Path>()
                .unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    }
}
