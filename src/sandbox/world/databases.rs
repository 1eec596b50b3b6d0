//! AerospikeClusters: what their operators do, and the model nodes behind their pods.
//!
//! A pod's address is one of 127.0.0.0/8, and its node's port is open there when the model says so. Where the system
//! has no such addresses (not on Linux), the pods never serve, and the log says why.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    super::{
        Part,
        fields::{at, entry, list, number, set, text},
    },
    What, World, pod, rollout, stateful,
};
use crate::{
    aerospike::model::{Model, Rules, Served, serve},
    object::Key,
};

/// How often the nodes are looked at; nobody tells when one has loaded its data.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// The condition that ACKO's pods wait for.
const GATE: &str = "acko.io/aerospike-ready";
/// What stands before the number of the database and that of the node.
const NETWORK: [u8; 2] = [127, 77];

/// The databases, by their cluster's object.
#[derive(Debug, Default)]
pub(super) struct Databases {
    all: BTreeMap<(What, Key), Database>,
    count: u8,
}

#[derive(Debug)]
struct Database {
    model: Model,
    number: u8,
    port: u16,
    /// `None` where the port could not be had.
    ports: Vec<Option<Served>>,
}

/// The address of a node of the database with this number.
pub(super) fn address(database: u8, node: usize) -> Ipv4Addr {
    let node = u8::try_from(node + 1).unwrap_or(u8::MAX);
    Ipv4Addr::new(NETWORK[0], NETWORK[1], database, node)
}

/// The labels of a cluster's pods, and the one with its rack.
fn labels(what: What, cluster: &str) -> Value {
    match what {
        What::Acko => json!({
            "app.kubernetes.io/name": "aerospike-cluster",
            "app.kubernetes.io/instance": cluster,
            "acko.io/rack": "0",
        }),
        _ => json!({
            "app": "aerospike-cluster",
            "aerospike.com/cr": cluster,
            "aerospike.com/rack-id": "0",
        }),
    }
}

/// The cluster and the number of the node that a pod is of.
fn node_of(key: &Key, pod: &Value) -> Option<(What, Key, usize)> {
    let label = |name: &str| text(pod, &["metadata", "labels", name]);
    let (what, cluster) = match label("app.kubernetes.io/name") {
        "aerospike-cluster" => (What::Acko, label("app.kubernetes.io/instance")),
        _ if label("app") == "aerospike-cluster" => (What::Ako, label("aerospike.com/cr")),
        _ => return None,
    };
    let node = stateful::ordinal(&format!("{cluster}-0"), key.name())?;
    Some((
        what,
        Key::new(key.namespace(), cluster),
        usize::try_from(node).ok()?,
    ))
}

impl Databases {
    fn of(&self, key: &Key, pod: &Value) -> Option<(&Database, usize)> {
        let (what, cluster, node) = node_of(key, pod)?;
        Some((self.all.get(&(what, cluster))?, node))
    }

    /// Whether what runs in a pod answers. What is no database always does.
    pub(super) fn serves(&self, key: &Key, pod: &Value) -> bool {
        self.of(key, pod)
            .is_none_or(|(database, node)| database.model.is_serving(node))
    }

    /// A pod's containers start: the address of its node.
    pub(super) fn started(&mut self, key: &Key, pod: &Value) -> Option<IpAddr> {
        let (database, node) = self.of(key, pod)?;
        if node < database.model.size() {
            database.model.replace(node);
        } else {
            database.model.scale(node + 1);
        }
        Some(address(database.number, node).into())
    }

    /// A pod's containers end.
    pub(super) fn ended(&self, key: &Key, pod: &Value) {
        if let Some((database, node)) = self.of(key, pod) {
            database.model.stop(node);
        }
    }

    /// Opens the ports of new nodes.
    pub(super) async fn open(&mut self) {
        for database in self.all.values_mut() {
            for node in database.ports.len()..database.model.size() {
                let address = SocketAddr::from((address(database.number, node), database.port));
                let port = serve(&database.model, node, address).await;
                if let Err(error) = &port {
                    tracing::warn!(%address, %error, "the port of a model Aerospike node cannot be opened");
                }
                database.ports.push(port.ok());
            }
        }
    }
}

impl World {
    /// The operator's part: the pods that a cluster asks for, by a StatefulSet.
    pub(super) fn operate(&mut self, what: What, key: &Key) {
        let place = (what, key.clone());
        let Some(cluster) = self.view.get(what, key) else {
            self.databases.all.remove(&place);
            return;
        };
        if !self.databases.all.contains_key(&place) {
            self.databases.count = self.databases.count.wrapping_add(1);
            let port = ["aerospikeConfig", "network", "service", "port"];
            let port = at(cluster, &["spec"]).and_then(|spec| number(spec, &port));
            let database = Database {
                model: Model::new(0, Rules::default(), self.rng.u64(..)),
                number: self.databases.count,
                port: port.and_then(|it| u16::try_from(it).ok()).unwrap_or(3000),
                ports: Vec::new(),
            };
            self.databases.all.insert(place, database);
        }
        let wanted = stateful_set(what, key, cluster);
        let name = Key::new(key.namespace(), text(&wanted, &["metadata", "name"]));
        let size = number(cluster, &["spec", "size"]).unwrap_or(1);
        if self.view.get(What::StatefulSet, &name).is_none() {
            self.create(What::StatefulSet, key.namespace(), wanted);
        } else {
            let resource = What::StatefulSet.resource();
            let _ = self.store.modify(resource, &name, Part::Whole, |held| {
                set(held, &["spec", "replicas"], size);
                set(
                    held,
                    &["spec", "template"],
                    wanted["spec"]["template"].clone(),
                );
            });
        }
        let status = self.view.get(What::StatefulSet, &name);
        let status = |field: &str| {
            status
                .and_then(|it| number(it, &["status", field]))
                .unwrap_or(0)
        };
        let done = [status("readyReplicas"), status("updatedReplicas")] == [size, size];
        let phase = if done { "Completed" } else { "InProgress" };
        let status = json!({"phase": phase, "size": size, "readyPods": status("readyReplicas")});
        let _ = self
            .store
            .modify(what.resource(), key, Part::Status, |cluster| {
                set(cluster, &["status"], status);
            });
    }

    /// What has come of itself: nodes that have loaded their data or have joined, and those that are gone.
    pub(super) fn look_at_databases(&mut self) {
        let pods: Vec<(Key, What, Key, usize)> = self
            .view
            .all(What::Pod)
            .filter_map(|(key, pod)| {
                let (what, cluster, node) = node_of(key, pod)?;
                Some((key.clone(), what, cluster, node))
            })
            .collect();
        let now = self.store.now_text();
        for ((what, cluster), database) in &self.databases.all {
            let object = self.view.get(*what, cluster);
            let size = object
                .and_then(|it| number(it, &["spec", "size"]))
                .unwrap_or(0);
            let size = usize::try_from(size).unwrap_or(0);
            let own = || {
                pods.iter()
                    .filter(|(_, of, key, _)| of == what && key == cluster)
            };
            let highest = own().map(|(.., node)| node + 1).max().unwrap_or(0);
            if highest.max(size) < database.model.size() {
                database.model.scale(highest.max(size));
            }
            let stable = format!("cluster-stable:size={size};ignore-migrations=false");
            for (key, .., node) in own() {
                let Some(found) = self.view.get(What::Pod, key) else {
                    continue;
                };
                let gated = list(found, &["spec", "readinessGates"])
                    .iter()
                    .any(|it| text(it, &["conditionType"]) == GATE);
                let joined = database.model.is_serving(*node)
                    && !database.model.answer(*node, &stable).starts_with("ERROR");
                if gated && pod::condition(found, GATE) != joined {
                    let _ = self
                        .store
                        .modify(What::Pod.resource(), key, Part::Status, |it| {
                            pod::set_condition(entry(it, &["status"]), GATE, joined, "", "", &now);
                        });
                }
            }
        }
        for (key, ..) in pods {
            self.todo(What::Pod, &key);
        }
    }
}

fn stateful_set(what: What, key: &Key, cluster: &Value) -> Value {
    let labels = labels(what, key.name());
    let group = match what {
        What::Acko => "acko.io/v1alpha1",
        _ => "asdb.aerospike.com/v1",
    };
    let annotations = at(cluster, &["spec", "podSpec", "metadata", "annotations"]);
    let gated = at(cluster, &["spec", "podSpec", "readinessGateEnabled"]) == Some(&true.into());
    let gates = if gated {
        json!([{"conditionType": GATE}])
    } else {
        json!([])
    };
    json!({
        "metadata": {
            "name": format!("{}-0", key.name()),
            "labels": labels,
            "ownerReferences": [rollout::owner(group, "AerospikeCluster", cluster)],
        },
        "spec": {
            "replicas": number(cluster, &["spec", "size"]).unwrap_or(1),
            // They are ready only together.
            "podManagementPolicy": "Parallel",
            "serviceName": key.name(),
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {
                    "readinessGates": gates,
                    "containers": [{
                        "name": "aerospike-server",
                        "image": text(cluster, &["spec", "image"]),
                        "ports": [{"name": "service", "containerPort": 3000}],
                    }],
                },
            },
        },
    })
}
