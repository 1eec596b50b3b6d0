//! What is there at the beginning: nodes, a few teams with Deployments and Services, StatefulSets, two databases.

use std::net::TcpListener;

use serde_json::{Value, json};

use super::{super::Options, Timer, What, World, databases};
use crate::object::Key;

/// Namespaces, and what runs in each.
const TEAMS: &[(&str, &[&str])] = &[
    ("shop", &["web", "cart", "search", "checkout"]),
    ("mail", &["smtp", "inbox", "spam"]),
    ("data", &["ingest", "reports"]),
];
const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

impl World {
    /// The Deployments that are there at the beginning.
    pub(super) fn deployments() -> Vec<Key> {
        let teams = TEAMS.iter();
        let all =
            teams.flat_map(|(team, names)| names.iter().map(move |name| Key::new(team, name)));
        all.collect()
    }

    /// The config maps that people change.
    pub(super) fn settings() -> Vec<Key> {
        TEAMS
            .iter()
            .map(|(team, _)| Key::new(team, "settings"))
            .collect()
    }

    /// The StatefulSet that people restart.
    pub(super) fn queue() -> Key {
        Key::new("data", "queue")
    }

    /// The databases, as their operators know them.
    pub(super) fn clusters() -> [(What, Key); 2] {
        [
            (What::Acko, Key::new("data", "sessions")),
            (What::Ako, Key::new("data", "profiles")),
        ]
    }

    pub(super) fn set_the_scene(&mut self) {
        for number in 0..self.settings.nodes {
            self.put_node(&format!("node-{number}"));
        }
        for (team, _) in TEAMS {
            self.make("namespaces", "", json!({"metadata": {"name": team}}));
            let data = json!({"banner": "welcome", "limit": "10"});
            self.make(
                "configmaps",
                team,
                json!({"metadata": {"name": "settings"}, "data": data}),
            );
        }
        let deployments = Self::deployments();
        let each = (self.settings.pods / deployments.len()).max(1);
        for key in deployments {
            self.make(
                "deployments.apps",
                key.namespace(),
                deployment(key.name(), each),
            );
            self.make("services", key.namespace(), service(key.name()));
        }
        let queue = Self::queue();
        self.make(
            "statefulsets.apps",
            queue.namespace(),
            stateful_set(queue.name()),
        );
        self.make("services", queue.namespace(), service(queue.name()));
        for (what, crd) in [(What::Acko, ACKO), (What::Ako, AKO)] {
            let crd = definition(crd.0, crd.1);
            self.make(CRDS, "", crd);
            let Some((number, (_, key))) =
                (1_u8..).zip(Self::clusters()).find(|(_, it)| it.0 == what)
            else {
                continue;
            };
            self.make(
                what.resource(),
                key.namespace(),
                cluster(key.name(), free_port(number)),
            );
        }
    }

    /// A node that beats from now on.
    fn put_node(&mut self, name: &str) {
        self.make("nodes", "", node(name, &self.store.now_text()));
        let lease = json!({"metadata": {"name": name}, "spec": {"holderIdentity": name, "leaseDurationSeconds": 40}});
        self.make("leases.coordination.k8s.io", "kube-node-lease", lease);
        // They do not all beat at the same moment.
        let first = self.moment(0, 10_000);
        self.after(first, Timer::Heartbeat(name.to_owned()));
    }

    /// What is there already, because somebody has made it before, stays.
    fn make(&self, resource: &str, namespace: &str, object: Value) {
        if let Err(refusal) = self
            .store
            .create(resource, namespace, object, &Options::default())
        {
            tracing::warn!(resource, %refusal, "the world could not be furnished");
        }
    }
}

fn node(name: &str, now: &str) -> Value {
    let resources = json!({"cpu": "16", "memory": "64Gi", "pods": "250"});
    let condition = |kind: &str, is: &str, reason: &str| json!({"type": kind, "status": is, "reason": reason, "lastTransitionTime": now, "lastHeartbeatTime": now});
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "spec": {"podCIDR": "10.244.0.0/16"},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID"),
                condition("Ready", "True", "KubeletReady"),
            ],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": name}],
            "nodeInfo": {"kubeletVersion": "v1.36.3", "operatingSystem": "linux", "architecture": "amd64",
                "osImage": "Sandbox", "kernelVersion": "0", "containerRuntimeVersion": "sandbox://0"},
        },
    })
}

/// With about as much in it as such objects have.
fn template(name: &str) -> Value {
    let probe =
        |path: &str| json!({"httpGet": {"path": path, "port": "http"}, "periodSeconds": 10});
    let env: Vec<Value> = ["LOG_LEVEL", "REGION", "TIMEOUT", "FEATURES"]
        .iter()
        .map(|key| json!({"name": key, "value": format!("{name}-{}", key.to_lowercase())}))
        .collect();
    json!({
        "metadata": {"labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": name,
                "image": format!("registry.example/{name}:1"),
                "env": env,
                "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": probe("/readyz"),
                "livenessProbe": probe("/livez"),
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
            }],
        },
    })
}

fn deployment(name: &str, replicas: usize) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name)},
    })
}

fn stateful_set(name: &str) -> Value {
    let mut set = deployment(name, 3);
    set["spec"]["serviceName"] = name.into();
    set
}

fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    })
}

/// Group and version of the kind.
const ACKO: (&str, &str) = ("acko.io", "v1alpha1");
const AKO: (&str, &str) = ("asdb.aerospike.com", "v1");

fn definition(group: &str, version: &str) -> Value {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let column =
        |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
    json!({
        "metadata": {"name": format!("aerospikeclusters.{group}")},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "aerospikeclusters", "kind": "AerospikeCluster", "shortNames": ["asc"]},
            "versions": [{
                "name": version,
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": any},
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    column("Size", "integer", ".spec.size"),
                    column("Phase", "string", ".status.phase"),
                    column("Age", "date", ".metadata.creationTimestamp"),
                ],
            }],
        },
    })
}

fn cluster(name: &str, port: u16) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "size": 3,
            "image": "aerospike/aerospike-server:8.0.0.4",
            "podSpec": {"readinessGateEnabled": true},
            "aerospikeConfig": {"network": {"service": {"port": port}}},
        },
    })
}

/// A port that is free at the first node's address; the usual one where that cannot be told.
fn free_port(database: u8) -> u16 {
    let address = (databases::address(database, 0), 0);
    let free = TcpListener::bind(address).and_then(|it| it.local_addr());
    free.map_or(3000, |address| address.port())
}
