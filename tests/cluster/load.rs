//! Objects and changes: thousands of pods at rest, and a seeded stream of writes that is known write by write.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::{Cluster, Error, Extent, NODES};

/// [`fill_pods`] spreads its pods over this many namespaces.
const FILL_NAMESPACES: usize = 5;

/// Writes under way at a time: more do not make an API server on two cores faster.
const CONCURRENCY: usize = 12;

/// The namespaces that [`fill_pods`] fills: `fill-0` and so on.
pub fn fill_namespaces() -> Vec<String> {
    (0..FILL_NAMESPACES).map(|n| format!("fill-{n}")).collect()
}

/// Sees to it that `fill-0/pod-00000`, `fill-1/pod-00001`, ... up to `count` exist, on KWOK's nodes, and all run
/// (where there is KWOK to run them). Whoever calls it again, from any test, finds what is there already. Labels:
/// `app: fill`, `tenth: "0"` to `"9"`, `parity: even|odd`. 5,000 take some 20 s on two cores.
pub async fn fill_pods(cluster: &Cluster, count: usize) -> Result<(), Error> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    let _turn = ONE_AT_A_TIME.lock().await;
    let client = cluster.client().await;
    let namespaces = fill_namespaces();
    for namespace in &namespaces {
        create_namespace(&client, namespace).await?;
    }
    let pods: Api<Pod> = Api::all(client.clone());
    let ours = ListParams::default().labels("app=fill");
    let there = pods.list_metadata(&ours).await?.items;
    let there: std::collections::BTreeSet<_> = there.iter().map(ResourceExt::name_any).collect();
    stream::iter((0..count).map(|n| (n, format!("pod-{n:05}"))))
        .filter(|(_, name)| futures::future::ready(!there.contains(name)))
        .map(|(n, name)| {
            let pods: Api<Pod> = Api::namespaced(client.clone(), &namespaces[n % FILL_NAMESPACES]);
            async move {
                let parity = if n % 2 == 0 { "even" } else { "odd" };
                let labels =
                    json!({ "app": "fill", "tenth": (n % 10).to_string(), "parity": parity });
                // On its node from the start: no turn for the scheduler, and one write less.
                let mut pod = pod(&name, &labels);
                pod["spec"]["nodeName"] = json!(format!("node-{}", n % NODES));
                pods.create(&Default::default(), &serde_json::from_value(pod)?)
                    .await?;
                Ok::<_, Error>(())
            }
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect::<()>()
        .await?;
    if cluster.extent() == Extent::Api {
        return Ok(());
    }
    let waiting = ours.clone().fields("status.phase!=Running").limit(1);
    let deadline = Instant::now() + Duration::from_secs(180);
    while !pods.list_metadata(&waiting).await?.items.is_empty() {
        if Instant::now() > deadline {
            return Err("the pods of fill_pods do not all run after 180 s".into());
        }
        sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// Creates a namespace that may exist already.
pub(super) async fn create_namespace(client: &Client, name: &str) -> Result<(), Error> {
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
    match Api::<Namespace>::all(client.clone())
        .create(&Default::default(), &namespace)
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

fn pod(name: &str, labels: &Value) -> Value {
    json!({
        "metadata": { "name": name, "labels": labels },
        "spec": {
            "containers": [{ "name": "main", "image": "registry.invalid/main:1" }],
            "tolerations": [{ "operator": "Exists" }],
        },
    })
}

/// What a [`Churn`] does.
#[derive(Clone, Debug)]
pub struct ChurnOptions {
    /// The same seed makes the same writes, as far as none fails.
    pub seed: u64,
    /// Created if need be; nobody else is to write pods to it.
    pub namespace: String,
    /// How many names there are; about three quarters of them exist at a time.
    pub names: usize,
    /// Writes a second; two cores manage about 150.
    pub rate: u32,
}

impl Default for ChurnOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            namespace: "churn".into(),
            names: 40,
            rate: 40,
        }
    }
}

/// A kind of write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A pod is created.
    Create,
    /// A pod is deleted, at once. The API server makes two versions of that: first the pod is MODIFIED (it gets
    /// its deletionTimestamp), then DELETED, which is the one recorded.
    Delete,
    /// Labels `app` (web, api, db) and `tier` (a, b) change.
    Label,
    /// An annotation changes.
    Annotate,
    /// The status changes: phase and Ready.
    Status,
}

/// A write that the API server took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// What it was.
    pub operation: Operation,
    /// `namespace/name`.
    pub key: String,
    /// Of the pod that was written.
    pub uid: String,
    /// The version that the write made; of a deletion, the deletion's own.
    pub resource_version: String,
    /// After the write.
    pub labels: BTreeMap<String, String>,
}

/// Writes pods until it is stopped: creations, deletions, recreations of the same name, changes of labels,
/// annotations and status. The pods are for no scheduler, so that nobody else writes them.
#[derive(Debug)]
pub struct Churn {
    stop: watch::Sender<bool>,
    task: JoinHandle<(Vec<Write>, Vec<String>)>,
}

impl Churn {
    /// Begins to write.
    pub async fn start(client: Client, options: ChurnOptions) -> Result<Self, Error> {
        create_namespace(&client, &options.namespace).await?;
        let (stop, stopped) = watch::channel(false);
        let churner = Churner {
            pods: Api::namespaced(client, &options.namespace),
            rng: fastrand::Rng::with_seed(options.seed),
            exists: BTreeMap::new(),
            serial: 0,
            writes: Vec::new(),
            failures: Vec::new(),
            options,
        };
        Ok(Self {
            stop,
            task: tokio::spawn(churner.run(stopped)),
        })
    }

    /// Ends after the write under way. Returns the writes in order, and the errors of those that failed (none,
    /// unless the API server was disturbed; a failed write may have been done all the same).
    pub async fn stop(self) -> (Vec<Write>, Vec<String>) {
        self.stop.send_replace(true);
        self.task.await.expect("the churner does not panic")
    }
}

struct Churner {
    pods: Api<Pod>,
    rng: fastrand::Rng,
    options: ChurnOptions,
    /// By name; a name that is absent has to be looked up.
    exists: BTreeMap<String, bool>,
    serial: u64,
    writes: Vec<Write>,
    failures: Vec<String>,
}

impl Churner {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) -> (Vec<Write>, Vec<String>) {
        let mut ticks = interval(Duration::from_secs(1) / self.options.rate.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return (self.writes, self.failures),
                _ = ticks.tick() => {}
            }
            let name = format!("pod-{}", self.rng.usize(..self.options.names));
            if let Err(e) = self.touch(&name).await {
                self.failures.push(format!("{name}: {e}"));
                self.exists.remove(&name);
            }
        }
    }

    async fn touch(&mut self, name: &str) -> Result<(), kube::Error> {
        let exists = match self.exists.get(name) {
            Some(exists) => *exists,
            None => self.pods.get_metadata_opt(name).await?.is_some(),
        };
        if !exists {
            return self.create(name).await;
        }
        self.serial += 1;
        match self.rng.u32(..100) {
            0..15 => self.delete(name).await,
            15..30 => {
                self.delete(name).await?;
                self.create(name).await
            }
            30..60 => {
                let labels = self.labels();
                self.patch(
                    name,
                    Operation::Label,
                    json!({ "metadata": { "labels": labels } }),
                )
                .await
            }
            60..80 => {
                let annotations = json!({ "tests/serial": self.serial.to_string() });
                let patch = json!({ "metadata": { "annotations": annotations } });
                self.patch(name, Operation::Annotate, patch).await
            }
            _ => {
                let ready = if self.rng.bool() { "True" } else { "False" };
                let condition = json!({
                    "type": "Ready", "status": ready, "message": self.serial.to_string(),
                });
                let patch = json!({ "status": { "phase": "Running", "conditions": [condition] } });
                self.patch(name, Operation::Status, patch).await
            }
        }
    }

    fn labels(&mut self) -> Value {
        let app = self.rng.choice(["web", "api", "db"]);
        let tier = self.rng.choice(["a", "b"]);
        json!({ "app": app, "tier": tier })
    }

    async fn create(&mut self, name: &str) -> Result<(), kube::Error> {
        let labels = self.labels();
        let mut pod = pod(name, &labels);
        pod["spec"]["schedulerName"] = json!("nobody");
        let pod = serde_json::from_value(pod).map_err(kube::Error::SerdeError)?;
        let created = self.pods.create(&Default::default(), &pod).await?;
        self.exists.insert(name.into(), true);
        self.record(Operation::Create, &created);
        Ok(())
    }

    async fn delete(&mut self, name: &str) -> Result<(), kube::Error> {
        let deleted = self.pods.delete(name, &DeleteParams::default()).await?;
        self.exists.insert(name.into(), false);
        if let Some(pod) = deleted.left() {
            self.record(Operation::Delete, &pod);
        }
        Ok(())
    }

    async fn patch(
        &mut self,
        name: &str,
        operation: Operation,
        patch: Value,
    ) -> Result<(), kube::Error> {
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let patched = if operation == Operation::Status {
            self.pods.patch_status(name, &params, &patch).await?
        } else {
            self.pods.patch(name, &params, &patch).await?
        };
        self.record(operation, &patched);
        Ok(())
    }

    fn record(&mut self, operation: Operation, pod: &Pod) {
        let write = Write {
            operation,
            key: format!("{}/{}", self.options.namespace, pod.name_any()),
            uid: pod.uid().unwrap_or_default(),
            resource_version: pod.resource_version().unwrap_or_default(),
            labels: pod.labels().clone(),
        };
        // A patch that changes nothing makes no version: the API server answers with the last one.
        let made_nothing = operation != Operation::Create
            && self
                .writes
                .iter()
                .rev()
                .find(|w| w.key == write.key)
                .is_some_and(|last| {
                    last.uid == write.uid && last.resource_version == write.resource_version
                });
        if !made_nothing {
            self.writes.push(write);
        }
    }
}
