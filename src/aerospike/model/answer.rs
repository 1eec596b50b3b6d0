//! What a model node says, in the words of the version that it runs.

use super::{
    Build,
    cluster::{Cluster, Node},
};

/// The answer to one command, without the command. Empty if the node has no process.
pub(super) fn answer(cluster: &Cluster, node: usize, command: &str) -> String {
    let Some(node) = cluster.node(node) else {
        return String::new();
    };
    let (name, arguments) = command.split_once([':', '/']).unwrap_or((command, ""));
    match name {
        "build" => node.build.version().to_owned(),
        "node" => format!("{:X}", node.id),
        "statistics" => statistics(cluster, node),
        "partition-generation" => node.view.generation.to_string(),
        "namespaces" => cluster.rules.namespaces.join(";"),
        "cluster-stable" => stable(cluster, node, arguments),
        "namespace" => namespace(cluster, node, arguments),
        _ => node.build.error(4, "unrecognized command"),
    }
}

impl Build {
    fn version(self) -> &'static str {
        match self {
            Self::V6 => "6.4.0.1",
            Self::V8 => "8.0.0.4",
            Self::V81 => "8.1.2.0",
        }
    }

    fn error(self, code: u32, text: &str) -> String {
        match self {
            Self::V6 => format!("ERROR::{}", text.replace(' ', "-")),
            Self::V8 | Self::V81 => format!("ERROR:{code}:{text}"),
        }
    }
}

fn statistics(cluster: &Cluster, node: &Node) -> String {
    let view = &node.view;
    let uptime = node
        .started
        .map_or(0, |started| (cluster.now - started).as_secs());
    let size = match node.build {
        Build::V6 | Build::V8 => format!("cluster_size={};", view.members.len()),
        Build::V81 => String::new(),
    };
    let generation = view.generation.max(0);
    let principal = view.members.last().and_then(|member| cluster.node(*member));
    let principal = principal.map_or(0, |node| node.id);
    let moving = cluster.moving(node) * cluster.rules.namespaces.len() as u64;
    format!(
        "failed_best_practices=false;{size}cluster_key={:X};cluster_generation={generation};\
         cluster_principal={principal:X};cluster_integrity={};cluster_is_member={};\
         cluster_clock_skew_stop_writes_sec={};cluster_clock_skew_ms={};uptime={uptime};\
         migrate_allowed={};migrate_partitions_remaining={moving}",
        view.key,
        view.integrity,
        view.key != 0,
        cluster.rules.skew_limit / 1000,
        node.skew,
        view.balanced,
    )
}

fn stable(cluster: &Cluster, node: &Node, arguments: &str) -> String {
    let view = &node.view;
    if !view.balanced {
        return node.build.error(7, "unstable cluster");
    }
    let argument = |name: &str| {
        let mut pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    match argument("size").map(str::parse::<usize>) {
        Some(Err(_)) => return node.build.error(4, "bad size"),
        Some(Ok(size)) if view.members.len() != size => {
            return node.build.error(7, "cluster not specified size");
        }
        _ => {}
    }
    match argument("ignore-migrations") {
        Some("true") => {}
        None | Some("false") if cluster.moving(node) > 0 => {
            return node.build.error(7, "unstable cluster");
        }
        None | Some("false") => {}
        Some(_) => return node.build.error(4, "bad ignore migrations"),
    }
    format!("{:X}", view.key)
}

fn namespace(cluster: &Cluster, node: &Node, name: &str) -> String {
    if !cluster.rules.namespaces.iter().any(|has| has == name) {
        return "type=unknown".to_owned();
    }
    let moving = cluster.moving(node);
    let (tx, rx) = (moving / 2, moving - moving / 2);
    format!(
        "ns_cluster_size={};effective_replication_factor=2;objects=1000;dead_partitions=0;\
         unavailable_partitions=0;clock_skew_stop_writes={};stop_writes={};hwm_breached=false;\
         data_used_pct={};effective_is_quiesced={};migrate_tx_partitions_remaining={tx};\
         migrate_rx_partitions_remaining={rx}",
        node.view.members.len(),
        node.skew > cluster.rules.skew_limit,
        node.stop_writes,
        node.used,
        node.view.quiesced,
    )
}
