//! The `aerospike` controller: whether the nodes of a database cluster are joined, and whether one of them may be
//! disrupted.
//!
//! ```text
//!  clusters (ACKO, AKO), StatefulSets, pods: the shared feeds
//!        |  apply: one reconcile reads what there is of one cluster
//!        v
//!  plan    N, and whom to ask; pure                                   facts, plan
//!        |---------------------> attend  a task per cluster: asks all nodes at once, again and again, and at
//!        |                                 once when the plan changes (pods from the plan, or from one LIST
//!        v                                 where the mode says so: poll)
//!  dossier  what is known of one cluster  <----|  what nodes have said
//!        |
//!        v
//!  decide  the judgement as answers, with details; pure               decide, details
//!        v
//!  the board: the cluster's verdict, and conditions of its pods' (publish)
//! ```
//!
//! Asking within the reconcile was refused: a node that does not answer would hold up other clusters, and kube's
//! Controller runs a reconcile to its end although its cluster has changed meanwhile. The task is told of the change,
//! and drops what it had asked.
//!
//! Nothing here ever writes to the cluster. The operators' own condition (`acko.io/aerospike-ready`), and the Ready
//! that waits for it, are not read either: ContainersReady, the pod's IP and the nodes' own word are what counts.

mod access;
mod apply;
mod attend;
mod decide;
mod details;
mod dossier;
mod facts;
mod plan;
#[cfg(test)]
mod plan_tests;
mod poll;
mod publish;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use apply::{Aerospike, Kinds, Role, Shared, watch_over};

/// Says what this module's metrics mean.
pub fn describe_metrics() {
    metrics::describe_gauge!(
        "informerd_aerospike_clusters",
        "Database clusters whose nodes are asked."
    );
    metrics::describe_counter!(
        "informerd_aerospike_questions_total",
        "Questions that were put to nodes: what probing costs them. Every replica asks for itself."
    );
    metrics::describe_counter!(
        "informerd_aerospike_failures_total",
        "Questions that a node did not answer, by cause: Refused, TimedOut, Garbage, ..."
    );
    metrics::describe_counter!(
        "informerd_aerospike_surveys_total",
        "Times that the nodes of a cluster were asked, by outcome: done, cancelled."
    );
    metrics::describe_histogram!(
        "informerd_aerospike_survey_seconds",
        metrics::Unit::Seconds,
        "From asking the nodes of a cluster to the last answer."
    );
    metrics::describe_counter!(
        "informerd_aerospike_polls_total",
        "Requests to the API server instead of the shared watch, by resource and result: ok, error."
    );
}
