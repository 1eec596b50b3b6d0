//! Does in the store what the pure parts have decided. What cannot be done, because somebody else was first, is left:
//! the change that was in the way brings it up again.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    super::{
        DeleteOptions, Options, Part,
        fields::{at, entry, list, number, set, text},
        lifecycle::Preconditions,
    },
    Job, Timer, View, What, World, endpoints, pod, rollout, stateful,
};
use crate::object::Key;

/// From the last heartbeat to the day that a node is given up; much less than on a cluster, where nobody looks on.
const LOST_AFTER: Duration = Duration::from_secs(4);
const EVICT_AFTER: Duration = Duration::from_secs(4);
const HEARTBEAT: Duration = Duration::from_secs(10);
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

impl World {
    /// Writes an object's status, where it differs.
    fn write_status(&self, what: What, key: &Key, status: Value) {
        self.change(what, key, Part::Status, |object| {
            set(object, &["status"], status);
        });
    }

    pub(super) fn create(&self, what: What, namespace: &str, object: Value) {
        let made = self
            .store
            .create(what.resource(), namespace, object, &Options::default());
        if let Err(refusal) = made {
            tracing::debug!(%refusal, "the world could not create");
        }
    }

    pub(super) fn delete(&self, what: What, key: &Key, uid: &str, grace: Option<i64>) {
        let options = DeleteOptions {
            grace_period_seconds: grace,
            preconditions: (!uid.is_empty()).then(|| Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteOptions::default()
        };
        let _ = self.store.delete(what.resource(), key, &options);
    }

    // Pods.

    pub(super) fn attend_pod(&mut self, key: &Key) {
        let Some(step) = self.next_step(key) else {
            return;
        };
        let Some(found) = self.view.get(What::Pod, key) else {
            return;
        };
        let uid = text(found, &["metadata", "uid"]).to_owned();
        let delay = match step {
            pod::Step::Schedule | pod::Step::Gates => return self.take(key, &uid, step),
            pod::Step::Start => (200, 1200),
            pod::Step::Ready => (100, 800),
            pod::Step::End => (100, 900),
        };
        if self.waiting.insert((uid.clone(), step)) {
            let delay = self.moment(delay.0, delay.1);
            self.after(delay, Timer::Pod(key.clone(), uid, step));
        }
    }

    /// A step whose time has come, if it is still the one to take.
    pub(super) fn go_on(&mut self, key: &Key, uid: &str, step: pod::Step) {
        self.waiting.remove(&(uid.to_owned(), step));
        let same = self
            .view
            .get(What::Pod, key)
            .is_some_and(|pod| text(pod, &["metadata", "uid"]) == uid);
        if same && self.next_step(key) == Some(step) {
            self.take(key, uid, step);
        }
    }

    fn next_step(&self, key: &Key) -> Option<pod::Step> {
        let found = self.view.get(What::Pod, key)?;
        let node = text(found, &["spec", "nodeName"]);
        // A node that nobody has told of does not fail.
        let up = self
            .view
            .get(What::Node, &Key::new("", node))
            .is_none_or(is_up);
        pod::next(found, up, self.databases.serves(key, found))
    }

    fn take(&mut self, key: &Key, uid: &str, step: pod::Step) {
        let now = self.store.now_text();
        let serves = self
            .view
            .get(What::Pod, key)
            .is_some_and(|found| self.databases.serves(key, found));
        let change: Box<dyn FnOnce(&mut Value)> = match step {
            pod::Step::Schedule => return self.schedule(key),
            pod::Step::End => {
                if let Some(found) = self.view.get(What::Pod, key) {
                    self.databases.ended(key, found);
                }
                return self.delete(What::Pod, key, uid, Some(0));
            }
            pod::Step::Start => {
                let found = self.view.get(What::Pod, key).cloned().unwrap_or_default();
                let ip = match self.databases.started(key, &found) {
                    Some(ip) => ip.to_string(),
                    None => {
                        self.addresses += 1;
                        let n = self.addresses;
                        format!("10.244.{}.{}", n / 250 % 250, n % 250 + 1)
                    }
                };
                Box::new(move |pod| pod::start(pod, &ip, "10.0.0.1", &now))
            }
            pod::Step::Ready => Box::new(move |pod| pod::set_ready(pod, serves, &now)),
            pod::Step::Gates => Box::new(move |pod| pod::open_gates(pod, &now)),
        };
        self.change(What::Pod, key, Part::Status, change);
    }

    fn schedule(&mut self, key: &Key) {
        let mut counts = std::collections::HashMap::new();
        for (_, pod) in self.view.all(What::Pod) {
            *counts.entry(text(pod, &["spec", "nodeName"])).or_insert(0) += 1;
        }
        let nodes = self.view.all(What::Node).map(|(key, node)| {
            let cordoned = at(node, &["spec", "unschedulable"]) == Some(&true.into());
            (key.name(), is_up(node) && !cordoned)
        });
        let count = |node: &str| counts.get(node).copied().unwrap_or(0);
        if let Some(node) = pod::choose_node(nodes, count)
            && self.store.bind(key, node).is_ok()
        {
            // The next one is to count this one.
            self.view.sync_one(&self.store, What::Pod, key);
        }
        // Without a node it waits for one: a node that changes brings it up again.
    }

    // Workloads.

    pub(super) fn roll(&mut self, key: &Key) {
        let Some(deployment) = self.view.get(What::Deployment, key) else {
            return;
        };
        if at(deployment, &["metadata", "deletionTimestamp"]).is_some() {
            return;
        }
        let sets = self.view.owned(What::ReplicaSet, deployment);
        let plan = rollout::plan(deployment, &sets, self.store.now());
        if let Some(set) = plan.create {
            self.create(What::ReplicaSet, key.namespace(), set);
        }
        let revision = |object: &mut Value, revision: i64| {
            set(
                object,
                &["metadata", "annotations", rollout::REVISION],
                revision.to_string(),
            );
        };
        for (key, replicas) in &plan.scale {
            self.change(What::ReplicaSet, key, Part::Whole, |it| {
                set(it, &["spec", "replicas"], *replicas);
            });
        }
        if let Some((key, number)) = &plan.renumber {
            self.change(What::ReplicaSet, key, Part::Whole, |it| {
                revision(it, *number)
            });
        }
        for key in &plan.remove {
            self.delete(What::ReplicaSet, key, "", None);
        }
        self.change(What::Deployment, key, Part::Whole, |it| {
            revision(it, plan.revision)
        });
        self.write_status(What::Deployment, key, plan.status);
        let due = self.store.get(What::Deployment.resource(), key);
        let due = due.and_then(|it| serde_json::from_slice::<Value>(&it.json).ok());
        if let Some(due) = due.and_then(|it| rollout::deadline(&it)) {
            let left = due.as_second() - self.store.now().as_second();
            let left = Duration::from_secs(u64::try_from(left).unwrap_or(0) + 1);
            let job = Job {
                what: What::Deployment,
                key: key.clone(),
            };
            self.after(left, Timer::Job(job));
        }
    }

    /// As many pods as the ReplicaSet asks for.
    pub(super) fn fill(&mut self, key: &Key) {
        let Some(replica_set) = self.view.get(What::ReplicaSet, key) else {
            return;
        };
        if at(replica_set, &["metadata", "deletionTimestamp"]).is_some() {
            return;
        }
        let mut active: Vec<(&Key, &Value)> = self
            .view
            .owned(What::Pod, replica_set)
            .into_iter()
            .filter(|(_, pod)| {
                at(pod, &["metadata", "deletionTimestamp"]).is_none()
                    && !matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed")
            })
            .collect();
        let wanted = number(replica_set, &["spec", "replicas"])
            .unwrap_or(1)
            .max(0);
        let wanted = usize::try_from(wanted).unwrap_or(0);
        let ready = active.iter().filter(|(_, pod)| pod::is_ready(pod)).count();
        let count = active.len();
        let status = json!({
            "replicas": count,
            "fullyLabeledReplicas": count,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "observedGeneration": number(replica_set, &["metadata", "generation"]).unwrap_or(0),
        });
        let mut template = at(replica_set, &["spec", "template"])
            .cloned()
            .unwrap_or_default();
        let name = format!("{}-", key.name());
        set(&mut template, &["metadata", "generateName"], name);
        let owner = rollout::owner("apps/v1", "ReplicaSet", replica_set);
        set(
            &mut template,
            &["metadata", "ownerReferences"],
            json!([owner]),
        );
        // Those that are of no use go first, then the youngest.
        active.sort_by_key(|(_, pod)| {
            let born = text(pod, &["metadata", "creationTimestamp"]);
            (pod::is_ready(pod), std::cmp::Reverse(born))
        });
        let surplus: Vec<Key> = active
            .iter()
            .take(count.saturating_sub(wanted))
            .map(|(key, _)| (*key).clone())
            .collect();
        for _ in count..wanted {
            self.create(What::Pod, key.namespace(), template.clone());
        }
        for key in surplus {
            self.delete(What::Pod, &key, "", None);
        }
        self.write_status(What::ReplicaSet, key, status);
    }

    pub(super) fn order(&mut self, key: &Key) {
        let Some(found) = self.view.get(What::StatefulSet, key) else {
            return;
        };
        if at(found, &["metadata", "deletionTimestamp"]).is_some() {
            return;
        }
        let plan = stateful::plan(found, &self.view.owned(What::Pod, found));
        for pod in plan.create {
            self.create(What::Pod, key.namespace(), pod);
        }
        for pod in plan.delete {
            self.delete(What::Pod, &pod, "", None);
        }
        self.write_status(What::StatefulSet, key, plan.status);
    }

    pub(super) fn list_endpoints(&mut self, key: &Key) {
        let Some(service) = self.view.get(What::Service, key) else {
            return;
        };
        let in_namespace = |(pod, _): &(&Key, &Value)| pod.namespace() == key.namespace();
        let pods: Vec<_> = self.view.all(What::Pod).filter(in_namespace).collect();
        let Some(wanted) = endpoints::slices(service, &pods) else {
            return;
        };
        let held: Vec<Key> = self
            .view
            .owned(What::Slice, service)
            .into_iter()
            .map(|(key, _)| key.clone())
            .collect();
        let name = |slice: &Value| text(slice, &["metadata", "name"]).to_owned();
        let names: Vec<String> = wanted.iter().map(name).collect();
        for slice in held
            .iter()
            .filter(|key| !names.iter().any(|it| it == key.name()))
        {
            self.delete(What::Slice, slice, "", None);
        }
        for (slice, name) in wanted.into_iter().zip(names) {
            let place = Key::new(key.namespace(), &name);
            if held.contains(&place) {
                self.change(What::Slice, &place, Part::Whole, |it| {
                    for field in ["endpoints", "ports"] {
                        set(it, &[field], slice[field].clone());
                    }
                });
            } else {
                self.create(What::Slice, key.namespace(), slice);
            }
        }
    }

    // Nodes.

    pub(super) fn heartbeat(&mut self, node: &str) {
        if self.down.contains(node) || self.view.get(What::Node, &Key::new("", node)).is_none() {
            return;
        }
        let key = Key::new("kube-node-lease", node);
        let now = format!("{:.6}", self.store.now());
        let _ = self
            .store
            .modify("leases.coordination.k8s.io", &key, Part::Whole, |lease| {
                set(lease, &["spec", "renewTime"], now);
            });
        self.after(HEARTBEAT, Timer::Heartbeat(node.to_owned()));
    }

    /// A node stops to answer, and comes back after a while.
    pub(super) fn fail(&mut self, node: &str, back: Duration) {
        self.down.insert(node.to_owned());
        self.after(LOST_AFTER, Timer::NodeLost(node.to_owned()));
        self.after(LOST_AFTER + EVICT_AFTER, Timer::Evict(node.to_owned()));
        self.after(back, Timer::NodeBack(node.to_owned()));
    }

    pub(super) fn lose(&mut self, node: &str) {
        if !self.down.contains(node) {
            return;
        }
        self.mark(node, false);
        let now = self.store.now_text();
        for pod in self.pods_on(node) {
            self.change(What::Pod, &pod, Part::Status, |pod| {
                if pod::condition(pod, "Ready") {
                    let status = entry(pod, &["status"]);
                    pod::set_condition(status, "Ready", false, "NodeNotReady", "", &now);
                }
            });
        }
    }

    pub(super) fn evict(&mut self, node: &str) {
        if self.down.contains(node) {
            for pod in self.pods_on(node) {
                self.delete(What::Pod, &pod, "", None);
            }
        }
    }

    pub(super) fn bring_back(&mut self, node: &str) {
        if !self.down.remove(node) {
            return;
        }
        self.mark(node, true);
        self.heartbeat(node);
    }

    /// Says of a node whether it is heard of, by its taints and its Ready condition.
    fn mark(&self, node: &str, heard: bool) {
        let now = self.store.now_text();
        let key = Key::new("", node);
        self.change(What::Node, &key, Part::Whole, |node| {
            let taints = list(node, &["spec", "taints"]).iter();
            let others = taints.filter(|it| text(it, &["key"]) != UNREACHABLE);
            let mut taints: Vec<Value> = others.cloned().collect();
            if !heard {
                taints.extend(
                    ["NoSchedule", "NoExecute"].map(
                        |effect| json!({"key": UNREACHABLE, "effect": effect, "timeAdded": now}),
                    ),
                );
            }
            set(node, &["spec", "taints"], taints);
        });
        let (reason, message) = if heard {
            ("KubeletReady", "kubelet is posting ready status")
        } else {
            ("NodeStatusUnknown", "Kubelet stopped posting node status.")
        };
        self.change(What::Node, &key, Part::Status, |node| {
            let status = entry(node, &["status"]);
            pod::set_condition(status, "Ready", heard, reason, message, &now);
            // Nobody knows: neither true nor false.
            let conditions = entry(status, &["conditions"]).as_array_mut();
            for condition in conditions.into_iter().flatten() {
                if !heard && text(condition, &["type"]) == "Ready" {
                    set(condition, &["status"], "Unknown");
                }
            }
        });
    }

    /// Changes an object; one that is gone meanwhile needs no change.
    fn change(&self, what: What, key: &Key, part: Part, change: impl FnOnce(&mut Value)) {
        let _ = self.store.modify(what.resource(), key, part, change);
    }

    pub(super) fn pods_on(&self, node: &str) -> Vec<Key> {
        let pods = self.view.all(What::Pod);
        pods.filter(|(_, pod)| text(pod, &["spec", "nodeName"]) == node)
            .map(|(key, _)| key.clone())
            .collect()
    }
}

/// Whether a node is known to be well.
pub(super) fn is_up(node: &Value) -> bool {
    pod::condition(node, "Ready")
}

impl View {
    /// Takes one object up before all others.
    fn sync_one(&mut self, store: &super::Store, what: What, key: &Key) {
        let object = store.get(what.resource(), key);
        let object = object.and_then(|it| serde_json::from_slice(&it.json).ok());
        self.put(what, key, object);
    }
}
