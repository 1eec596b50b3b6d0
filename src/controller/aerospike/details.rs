//! What is known of nodes, as JSON: what an operator fills its status from without asking anybody.

use std::time::SystemTime;

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::{facts::PodFacts, plan::Plan};
use crate::aerospike::{Judgement, verdict::NodeDetails};

/// Of a cluster.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterDetails<'a> {
    /// N, and where it is from.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u32>,
    size_from: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_key: Option<&'a str>,
    nodes: Vec<Node<'a>>,
}

/// Of a node.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Node<'a> {
    pod: &'a str,
    uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rack: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    containers_ready: bool,
    terminating: bool,
    restarts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    migrating_partitions: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uptime_seconds: Option<u64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    namespaces: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    round_trip_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<String>,
}

/// Of the cluster and all its nodes.
pub(super) fn of_cluster(plan: &Plan, judged: Option<&Judgement>) -> Bytes {
    let details = ClusterDetails {
        size: plan.size.as_ref().ok().copied(),
        size_from: plan.subject.size_from(),
        cluster_key: judged.and_then(|judged| judged.joined.key.cluster_key.as_deref()),
        nodes: plan
            .pods
            .iter()
            .map(|pod| node(plan, pod, told(judged, pod)))
            .collect(),
    };
    json(&details)
}

/// Of one node.
pub(super) fn of_node(plan: &Plan, pod: &PodFacts, judged: Option<&Judgement>) -> Bytes {
    json(&node(plan, pod, told(judged, pod)))
}

fn told<'a>(judged: Option<&'a Judgement>, pod: &PodFacts) -> Option<&'a NodeDetails> {
    let nodes = judged?.nodes.iter().map(|node| &node.details);
    nodes.into_iter().find(|details| *details.uid == *pod.uid)
}

fn node<'a>(plan: &Plan, pod: &'a PodFacts, told: Option<&'a NodeDetails>) -> Node<'a> {
    Node {
        pod: pod.key.name(),
        uid: &pod.uid,
        rack: pod.rack.as_deref(),
        address: pod
            .ip
            .map(|ip| std::net::SocketAddr::new(ip, plan.port).to_string()),
        containers_ready: pod.containers_ready,
        terminating: pod.terminating,
        restarts: pod.incarnation.restarts,
        started: pod.incarnation.started.and_then(time),
        node_id: told.and_then(|told| told.node_id.as_deref()),
        cluster_key: told.and_then(|told| told.cluster_key.as_deref()),
        cluster_size: told.and_then(|told| told.cluster_size),
        build: told.and_then(|told| told.build.as_deref()),
        migrating_partitions: told.and_then(|told| told.migrating_partitions),
        uptime_seconds: told.and_then(|told| told.uptime).map(|up| up.as_secs()),
        namespaces: told.map_or(&[], |told| &told.namespaces),
        error: told.and_then(|told| told.error.as_deref()),
        round_trip_ms: told
            .and_then(|told| told.round_trip)
            .map(|trip| (trip.as_secs_f64() * 1e6).round() / 1e3),
        asked: told.and_then(|told| told.asked).and_then(time),
    }
}

fn time(at: SystemTime) -> Option<String> {
    Some(Timestamp::try_from(at).ok()?.to_string())
}

fn json(details: &impl Serialize) -> Bytes {
    // Numbers and strings always have a form in JSON.
    serde_json::to_vec(details).unwrap_or_default().into()
}
