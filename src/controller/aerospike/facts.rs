//! What is read of the objects: clusters of both operators, their StatefulSets, their pods. Pure.

use std::{net::IpAddr, time::SystemTime};

use k8s_openapi::jiff::Timestamp;
use kube::core::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    aerospike::evidence::Incarnation,
    object::{Key, Object},
};

/// The container that runs the server, with either operator.
const CONTAINER: &str = "aerospike-server";

/// Who looks after a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Operator {
    /// aerospike-ce-kubernetes-operator.
    Acko,
    /// aerospike-kubernetes-operator.
    Ako,
}

impl Operator {
    const ALL: [Self; 2] = [Self::Acko, Self::Ako];

    /// The operator whose clusters are of this API group.
    pub(super) fn of_group(group: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.group() == group)
    }

    pub(super) fn group(self) -> &'static str {
        match self {
            Self::Acko => "acko.io",
            Self::Ako => "asdb.aerospike.com",
        }
    }

    /// The label that all pods of all clusters have, and its value.
    fn mark(self) -> (&'static str, &'static str) {
        match self {
            Self::Acko => ("app.kubernetes.io/name", "aerospike-cluster"),
            Self::Ako => ("app", "aerospike-cluster"),
        }
    }

    /// The label that holds the cluster's name.
    fn name_label(self) -> &'static str {
        match self {
            Self::Acko => "app.kubernetes.io/instance",
            Self::Ako => "aerospike.com/cr",
        }
    }

    fn rack_label(self) -> &'static str {
        match self {
            Self::Acko => "acko.io/rack",
            Self::Ako => "aerospike.com/rack-id",
        }
    }
}

/// One cluster, whoever knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ClusterId {
    pub(super) operator: Operator,
    /// Namespace and name of the cluster, also where there is no such object.
    pub(super) key: Key,
}

impl ClusterId {
    /// The cluster that something in this namespace with these labels belongs to.
    pub(super) fn of<'a>(namespace: &str, label: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        Operator::ALL.into_iter().find_map(|operator| {
            let (mark, value) = operator.mark();
            if label(mark) != Some(value) {
                return None;
            }
            let name = label(operator.name_label()).filter(|name| !name.is_empty())?;
            let key = Key::new(namespace, name);
            Some(Self { operator, key })
        })
    }

    pub(super) fn of_object(object: &Object) -> Option<Self> {
        Self::of(object.key.namespace(), |name| object.labels.get(name))
    }

    /// Selects the cluster's StatefulSets and pods.
    pub(super) fn selector(&self) -> String {
        let (mark, value) = self.operator.mark();
        let (label, name) = (self.operator.name_label(), self.key.name());
        format!("{mark}={value},{label}={name}")
    }

    /// As an index has it.
    pub(super) fn group(&self) -> String {
        format!("{}/{}", self.operator.group(), self.key)
    }
}

/// What a cluster's own object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ClusterFacts {
    pub(super) size: Option<u32>,
    pub(super) port: Option<u16>,
    pub(super) tls_port: Option<u16>,
}

#[derive(Deserialize)]
struct Cluster {
    spec: Option<ClusterSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClusterSpec {
    size: Option<u32>,
    /// The server's configuration: any JSON that it understands.
    aerospike_config: Option<Value>,
}

impl ClusterFacts {
    pub(super) fn read(json: &[u8]) -> Result<Self, serde_json::Error> {
        let cluster: Cluster = serde_json::from_slice(json)?;
        let Some(spec) = cluster.spec else {
            return Ok(Self::default());
        };
        let config = spec.aerospike_config.unwrap_or_default();
        let port = |name: &str| {
            let port = config.pointer(&format!("/network/service/{name}"))?;
            u16::try_from(port.as_u64()?).ok().filter(|port| *port > 0)
        };
        Ok(Self {
            size: spec.size,
            port: port("port"),
            tls_port: port("tls-port"),
        })
    }
}

/// What a StatefulSet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetFacts {
    pub(super) key: Key,
    pub(super) uid: Box<str>,
    pub(super) version: Box<str>,
    pub(super) replicas: u32,
}

impl SetFacts {
    pub(super) fn read(set: &Object) -> Result<Self, serde_json::Error> {
        Ok(Self {
            key: set.key.clone(),
            uid: set.uid.clone(),
            version: set.resource_version.clone(),
            replicas: replicas(&set.json)?,
        })
    }
}

/// `spec.replicas` of a StatefulSet: 1 where it does not say, as the API server has it.
fn replicas(json: &[u8]) -> Result<u32, serde_json::Error> {
    #[derive(Deserialize)]
    struct Set {
        spec: Option<Spec>,
    }
    #[derive(Deserialize)]
    struct Spec {
        replicas: Option<u32>,
    }
    let set: Set = serde_json::from_slice(json)?;
    Ok(set.spec.and_then(|spec| spec.replicas).unwrap_or(1))
}

/// The operator whose cluster's object owns this one, if that is so.
pub(super) fn owner(object: &Object) -> Option<Operator> {
    let owners = object.owner_references.iter();
    let mut owners = owners.filter(|owner| owner.controller && &*owner.kind == "AerospikeCluster");
    owners.find_map(|owner| Operator::of_group(owner.api_version.split_once('/')?.0))
}

/// What a pod says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodFacts {
    pub(super) key: Key,
    pub(super) uid: Box<str>,
    pub(super) version: Box<str>,
    pub(super) ip: Option<IpAddr>,
    pub(super) incarnation: Incarnation,
    /// All containers are; the readiness gates, if any, do not matter.
    pub(super) containers_ready: bool,
    /// It is being deleted.
    pub(super) terminating: bool,
    pub(super) rack: Option<Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus {
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    conditions: Option<Vec<PodCondition>>,
    container_statuses: Option<Vec<Container>>,
}

#[derive(Deserialize)]
struct PodCondition {
    #[serde(rename = "type")]
    name: String,
    status: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: String,
    #[serde(default)]
    restart_count: u32,
    state: Option<ContainerState>,
}

#[derive(Deserialize)]
struct ContainerState {
    running: Option<Running>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Running {
    started_at: Option<Timestamp>,
}

impl PodFacts {
    /// Of a pod in the cache. `None` for one that no StatefulSet manages: it is none of the cluster's, whatever its
    /// labels say.
    pub(super) fn read(pod: &Object) -> Result<Option<Self>, serde_json::Error> {
        #[derive(Deserialize)]
        struct Pod {
            status: Option<PodStatus>,
        }
        let owners = pod.owner_references.iter();
        let mut managers = owners.filter(|owner| owner.controller);
        if !managers.any(|owner| &*owner.kind == "StatefulSet") {
            return Ok(None);
        }
        let read: Pod = serde_json::from_slice(&pod.json)?;
        let rack = ClusterId::of_object(pod)
            .and_then(|id| pod.labels.get(id.operator.rack_label()))
            .map(Into::into);
        let base = Self {
            key: pod.key.clone(),
            uid: pod.uid.clone(),
            version: pod.resource_version.clone(),
            terminating: pod.deletion_timestamp.is_some(),
            rack,
            ..Self::nothing()
        };
        Ok(Some(base.with(read.status.unwrap_or_default())))
    }

    /// Whether this is what [`PodFacts::read`] gives of this very version.
    pub(super) fn is_of(&self, pod: &Object) -> bool {
        (&self.version, &self.uid, &self.key) == (&pod.resource_version, &pod.uid, &pod.key)
    }

    /// The pods of a LIST.
    pub(super) fn read_list(json: &[u8]) -> Result<Vec<Self>, serde_json::Error> {
        #[derive(Deserialize)]
        struct List {
            items: Vec<Pod>,
        }
        #[derive(Deserialize)]
        struct Pod {
            metadata: ObjectMeta,
            status: Option<PodStatus>,
        }
        let list: List = serde_json::from_slice(json)?;
        let managed = |pod: &Pod| {
            let owners = pod.metadata.owner_references.iter().flatten();
            let mut managers = owners.filter(|owner| owner.controller == Some(true));
            managers.any(|owner| owner.kind == "StatefulSet")
        };
        let pods = list.items.into_iter().filter(managed).map(|pod| {
            let meta = pod.metadata;
            let text = |text: Option<String>| text.unwrap_or_default();
            let namespace = text(meta.namespace);
            let labels = meta.labels.unwrap_or_default();
            let label = |name: &str| labels.get(name).map(String::as_str);
            let id = ClusterId::of(&namespace, label);
            let base = Self {
                key: Key::new(&namespace, &text(meta.name)),
                uid: text(meta.uid).into(),
                version: text(meta.resource_version).into(),
                terminating: meta.deletion_timestamp.is_some(),
                rack: id
                    .and_then(|id| label(id.operator.rack_label()))
                    .map(Into::into),
                ..Self::nothing()
            };
            base.with(pod.status.unwrap_or_default())
        });
        let mut pods: Vec<_> = pods.collect();
        pods.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(pods)
    }

    /// Whether it is not the node that it was: one that has to be asked anew, or is none any more.
    pub(super) fn has_moved_from(&self, before: &Self) -> bool {
        let node = |pod: &Self| (pod.ip, pod.incarnation, pod.containers_ready);
        self.uid != before.uid
            || self.terminating != before.terminating
            || node(self) != node(before)
    }

    fn nothing() -> Self {
        Self {
            key: Key::new("", ""),
            uid: "".into(),
            version: "".into(),
            ip: None,
            incarnation: Incarnation::default(),
            containers_ready: false,
            terminating: false,
            rack: None,
        }
    }

    fn with(self, status: PodStatus) -> Self {
        let containers = status.container_statuses.into_iter().flatten();
        let server = containers
            .into_iter()
            .find(|container| container.name == CONTAINER);
        let incarnation = server.map_or_else(Incarnation::default, |server| Incarnation {
            restarts: server.restart_count,
            started: server
                .state
                .and_then(|state| state.running?.started_at)
                .map(SystemTime::from),
        });
        let mut conditions = status.conditions.into_iter().flatten();
        Self {
            ip: status.pod_ip.and_then(|ip| ip.parse().ok()),
            containers_ready: conditions
                .any(|one| one.name == "ContainersReady" && one.status == "True"),
            incarnation,
            ..self
        }
    }
}

/// The StatefulSets of a LIST.
pub(super) fn read_sets(json: &[u8]) -> Result<Vec<SetFacts>, serde_json::Error> {
    use serde_json::value::RawValue;
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(borrow)]
        items: Vec<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Set {
        metadata: ObjectMeta,
    }
    let list: List<'_> = serde_json::from_slice(json)?;
    let set = |raw: &&RawValue| {
        let meta = serde_json::from_str::<Set>(raw.get())?.metadata;
        let text = |text: Option<String>| text.unwrap_or_default();
        Ok(SetFacts {
            key: Key::new(&text(meta.namespace), &text(meta.name)),
            uid: text(meta.uid).into(),
            version: text(meta.resource_version).into(),
            replicas: replicas(raw.get().as_bytes())?,
        })
    };
    list.items.iter().map(set).collect()
}
