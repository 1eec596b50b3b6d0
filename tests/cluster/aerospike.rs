//! A database cluster on a real API server, without its operator, its StatefulSet's controller or a kubelet: those
//! three are played here. Its nodes are those of the model, which listen on loopback; what is written of pods follows
//! them. Pods are selected by no Service: the API server would refuse an EndpointSlice of loopback addresses.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use informerd::aerospike::{
    Member,
    model::{self, Model, Rules, Served},
};
use k8s_openapi::{
    api::{apps::v1::StatefulSet, core::v1::Pod},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Cluster, Error};

/// Where nodes listen.
const PORT: u16 = 3000;
/// How often the kubelet that is played looks at its containers.
const LOOK: Duration = Duration::from_millis(20);

/// Whose cluster it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// aerospike-ce-kubernetes-operator.
    Acko,
    /// aerospike-kubernetes-operator.
    Ako,
}

impl Operator {
    /// As a config names the kind.
    pub fn resource(self) -> String {
        format!("aerospikeclusters.{}", self.kind().group)
    }

    fn kind(self) -> ApiResource {
        let (group, version) = match self {
            Self::Acko => ("acko.io", "v1alpha1"),
            Self::Ako => ("asdb.aerospike.com", "v1"),
        };
        ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, "AerospikeCluster"))
    }

    fn labels(self, cluster: &str) -> Value {
        match self {
            Self::Acko => json!({"app.kubernetes.io/name": "aerospike-cluster",
                "app.kubernetes.io/instance": cluster, "acko.io/rack": "1"}),
            Self::Ako => json!({"app": "aerospike-cluster", "aerospike.com/cr": cluster,
                "aerospike.com/rack-id": "1"}),
        }
    }

    /// As much of the operator's CustomResourceDefinition as matters here.
    pub async fn install(self, cluster: &Cluster) {
        let (group, version, short, spec) = match self {
            Self::Acko => (
                "acko.io",
                "v1alpha1",
                "[asc]",
                "size: {type: integer, minimum: 0, maximum: 8}\n\
                 \x20             image: {type: string}\n\
                 \x20             podSpec: {type: object, properties: {readinessGateEnabled: {type: boolean}}}",
            ),
            Self::Ako => (
                "asdb.aerospike.com",
                "v1",
                "[]",
                "size: {type: integer, minimum: 0}\n\
                 \x20             image: {type: string}",
            ),
        };
        let crd = format!(
            "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: aerospikeclusters.{group}}}
spec:
  group: {group}
  scope: Namespaced
  names: {{plural: aerospikeclusters, singular: aerospikecluster, kind: AerospikeCluster, shortNames: {short}}}
  versions:
  - name: {version}
    served: true
    storage: true
    subresources: {{status: {{}}}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              {spec}
              aerospikeConfig: {{type: object, x-kubernetes-preserve-unknown-fields: true}}
          status: {{type: object, x-kubernetes-preserve-unknown-fields: true}}
"
        );
        cluster.apply(&crd).await;
        let name = format!("crd/{}", self.resource());
        cluster
            .kubectl_ok(&["wait", "--for=condition=Established", &name])
            .await;
    }
}

/// A cluster `NAMESPACE/cache` of nodes `cache-0` and so on.
pub struct Stage {
    /// Its nodes.
    pub model: Model,
    operator: Operator,
    namespace: String,
    client: Client,
    network: (u8, u8),
    size: usize,
    /// Whether pods have the operator's readiness gate.
    gates: bool,
    set_uid: String,
    /// Of the template that pods are created from.
    revision: String,
    served: Vec<Served>,
    /// Whoever writes pods, one at a time.
    writing: Arc<tokio::sync::Mutex<()>>,
    kubelet: Option<JoinHandle<()>>,
    base: (tokio::time::Instant, SystemTime),
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(kubelet) = &self.kubelet {
            kubelet.abort();
        }
    }
}

/// Model nodes that do in a moment what takes real ones seconds.
pub fn quick() -> Rules {
    Rules {
        load: Duration::from_millis(300),
        notice: Duration::from_millis(150),
        agree: Duration::from_millis(30),
        spread: Duration::from_millis(50),
        balance: Duration::from_millis(20),
        migration_rate: 5000,
        review: Duration::from_secs(1),
        ..Rules::default()
    }
}

impl Stage {
    /// Creates the namespace, the cluster's object (if `object`), its StatefulSet and its pods, and follows the model
    /// from then on.
    pub async fn new(
        cluster: &Cluster,
        operator: Operator,
        namespace: &str,
        size: usize,
        rules: Rules,
        object: bool,
    ) -> Result<Self, Error> {
        let client = cluster.client().await;
        super::load::create_namespace(&client, namespace).await?;
        let base = (tokio::time::Instant::now(), SystemTime::now());
        let model = Model::new(size, rules, fastrand::u64(..));
        let mut stage = Self {
            model,
            operator,
            namespace: namespace.to_owned(),
            client,
            // Several runs may be on one machine: 127.x.y.1 and so on are this cluster's own.
            network: (fastrand::u8(1..=250), fastrand::u8(1..=250)),
            size,
            gates: operator == Operator::Acko,
            set_uid: String::new(),
            revision: "first".into(),
            served: Vec::new(),
            writing: Arc::default(),
            kubelet: None,
            base,
        };
        if object {
            stage.create_object().await?;
        }
        stage.create_set().await?;
        for node in 0..size {
            let address = (stage.ip(node), PORT).into();
            stage
                .served
                .push(model::serve(&stage.model, node, address).await?);
            stage.create_pod(node).await?;
        }
        stage.kubelet = Some(tokio::spawn(stage.kubelet()));
        Ok(stage)
    }

    /// `NAMESPACE`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The cluster's pods.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The cluster's own object.
    pub fn objects(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &self.operator.kind())
    }

    /// A node's pod.
    pub fn pod_name(node: usize) -> String {
        format!("cache-{node}")
    }

    /// Where nodes are, as they are asked without informerd.
    pub fn members(&self) -> Vec<Member> {
        let member = |node| self.model.member(node, (self.ip(node), PORT).into());
        (0..self.size).filter_map(member).collect()
    }

    fn ip(&self, node: usize) -> Ipv4Addr {
        let (a, b) = self.network;
        Ipv4Addr::new(127, a, b, u8::try_from(node + 1).expect("few nodes"))
    }

    /// Creates the cluster's own object.
    pub async fn create_object(&self) -> Result<(), Error> {
        let kind = self.operator.kind();
        let object = json!({
            "apiVersion": kind.api_version, "kind": kind.kind,
            "metadata": {"name": "cache", "namespace": self.namespace},
            "spec": {
                "size": self.size,
                "aerospikeConfig": {"network": {"service": {"port": PORT}}},
            },
        });
        self.objects()
            .create(&Default::default(), &serde_json::from_value(object)?)
            .await?;
        Ok(())
    }

    /// Writes another size into the cluster's object.
    pub async fn resize(&self, size: usize) -> Result<(), Error> {
        let patch = json!({"spec": {"size": size}});
        self.objects()
            .patch("cache", &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    async fn create_set(&mut self) -> Result<(), Error> {
        let sets: Api<StatefulSet> = Api::namespaced(self.client.clone(), &self.namespace);
        let labels = self.operator.labels("cache");
        let owner = self.objects().get_opt("cache").await.ok().flatten();
        let owners = owner.map(|owner| {
            let kind = self.operator.kind();
            json!([{"apiVersion": kind.api_version, "kind": kind.kind, "name": "cache",
                "uid": owner.uid(), "controller": true}])
        });
        let set = json!({
            "metadata": {"name": "cache", "labels": labels, "ownerReferences": owners},
            "spec": {
                "replicas": self.size,
                "serviceName": "none",
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "aerospike-server", "image": "registry.invalid/aerospike"}]},
                },
            },
        });
        let set = sets
            .create(&Default::default(), &serde_json::from_value(set)?)
            .await?;
        self.set_uid = set.uid().unwrap_or_default();
        Ok(())
    }

    async fn create_pod(&self, node: usize) -> Result<Pod, Error> {
        let gates = self
            .gates
            .then(|| json!([{"conditionType": "acko.io/aerospike-ready"}]));
        let mut labels = self.operator.labels("cache");
        labels["controller-revision-hash"] = self.revision.as_str().into();
        let pod = json!({
            "metadata": {
                "name": Self::pod_name(node),
                "labels": labels,
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "cache",
                    "uid": self.set_uid, "controller": true}],
            },
            "spec": {
                "containers": [{"name": "aerospike-server", "image": "registry.invalid/aerospike"}],
                "readinessGates": gates,
                "terminationGracePeriodSeconds": 0,
            },
        });
        let created = self
            .pods()
            .create(&Default::default(), &serde_json::from_value(pod)?)
            .await?;
        match self.model.member(node, (self.ip(node), PORT).into()) {
            Some(member) => {
                write_status(&self.pods(), node, &member, self.model.is_serving(node)).await
            }
            None => Ok(created),
        }
    }

    /// Deletes a pod, as a rolling restart does, and creates it anew as the StatefulSet's controller does. Returns the
    /// new one.
    pub async fn restart(&self, node: usize) -> Result<Pod, Error> {
        let _turn = self.writing.lock().await;
        let at_once = DeleteParams::default().grace_period(0);
        self.pods().delete(&Self::pod_name(node), &at_once).await?;
        self.recreate(node).await
    }

    /// Creates a pod anew that somebody has deleted, as the StatefulSet's controller does, and returns it.
    pub async fn recreate(&self, node: usize) -> Result<Pod, Error> {
        self.model.replace(node);
        self.create_pod(node).await
    }

    /// Says of a pod that it is ready, as the operator does that has a readiness gate, unless that was said or somebody
    /// has just deleted it.
    pub async fn open_gate(&self, node: usize) -> Result<(), Error> {
        let _turn = self.writing.lock().await;
        let name = Self::pod_name(node);
        let Some(pod) = self.pods().get_opt(&name).await? else {
            return Ok(());
        };
        let conditions = pod.status.and_then(|status| status.conditions);
        let mut conditions = conditions.iter().flatten();
        if conditions.any(|one| one.type_ == "Ready" && one.status == "True") {
            return Ok(());
        }
        let status = json!({"status": {"conditions": [
            {"type": "acko.io/aerospike-ready", "status": "True"},
            {"type": "Ready", "status": "True"},
        ]}});
        let (pods, patch) = (self.pods(), Patch::Strategic(status));
        match pods
            .patch_status(&name, &PatchParams::default(), &patch)
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            done => Ok(done.map(|_| ())?),
        }
    }

    /// Gives the StatefulSet another template, as far as its status shows that.
    pub async fn roll_out(&mut self, revision: &str) -> Result<(), Error> {
        let sets: Api<StatefulSet> = Api::namespaced(self.client.clone(), &self.namespace);
        let generation = sets.get("cache").await?.metadata.generation;
        let status = json!({"status": {
            "replicas": self.size, "observedGeneration": generation, "updateRevision": revision,
        }});
        let patch = Patch::Merge(status);
        sets.patch_status("cache", &PatchParams::default(), &patch)
            .await?;
        self.revision = revision.to_owned();
        Ok(())
    }

    /// The kubelet: writes of each pod what the model has of its node, whenever that changes.
    fn kubelet(&self) -> impl Future<Output = ()> + Send + use<> {
        let (pods, model, writing) = (self.pods(), self.model.clone(), self.writing.clone());
        let ips: Vec<_> = (0..self.size).map(|node| self.ip(node)).collect();
        async move {
            let mut known = Vec::new();
            known.resize_with(ips.len(), || None);
            loop {
                tokio::time::sleep(LOOK).await;
                let _turn = writing.lock().await;
                for (node, ip) in ips.iter().enumerate() {
                    let Some(member) = model.member(node, (*ip, PORT).into()) else {
                        continue;
                    };
                    let state = (member, model.is_serving(node));
                    if known[node].as_ref() == Some(&state) {
                        continue;
                    }
                    // A pod that is just being replaced is written the next time.
                    if write_status(&pods, node, &state.0, state.1).await.is_ok() {
                        known[node] = Some(state);
                    }
                }
            }
        }
    }

    /// Whether the cluster was safe at some instant of the window, by the wall clock, give or take the clocks'
    /// difference.
    pub fn was_safe_within(&self, from: SystemTime, to: SystemTime) -> bool {
        let slack = Duration::from_millis(2);
        let wall = |at: tokio::time::Instant| self.base.1 + at.duration_since(self.base.0);
        let truth = self.model.truth();
        let ends = truth.iter().skip(1).map(|turn| Some(wall(turn.0)));
        let mut spans = truth.iter().zip(ends.chain([None]));
        spans.any(|((since, safe), until)| {
            *safe && wall(*since) <= to + slack && until.is_none_or(|until| until + slack >= from)
        })
    }

    /// Whether it is safe now.
    pub fn is_safe(&self) -> bool {
        self.model.truth().last().is_some_and(|turn| turn.1)
    }
}

async fn write_status(
    pods: &Api<Pod>,
    node: usize,
    member: &Member,
    serving: bool,
) -> Result<Pod, Error> {
    let ip = member.address.map(|address| address.ip().to_string());
    let started = member
        .incarnation
        .started
        .and_then(|at| Timestamp::try_from(at).ok())
        // The API server keeps whole seconds.
        .map(|at| {
            Timestamp::from_second(at.as_second())
                .unwrap_or(at)
                .to_string()
        });
    let state = match &started {
        Some(started) => json!({"running": {"startedAt": started}}),
        None => json!({"waiting": {"reason": "CrashLoopBackOff"}}),
    };
    let ready = if serving { "True" } else { "False" };
    let status = json!({"status": {
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "conditions": [{"type": "ContainersReady", "status": ready}],
        "containerStatuses": [{
            "name": "aerospike-server",
            "image": "registry.invalid/aerospike",
            "imageID": "",
            "restartCount": member.incarnation.restarts,
            "ready": serving,
            "started": serving,
            "state": state,
        }],
    }});
    let name = Stage::pod_name(node);
    let patch = Patch::Strategic(status);
    Ok(pods
        .patch_status(&name, &PatchParams::default(), &patch)
        .await?)
}
