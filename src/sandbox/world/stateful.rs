//! StatefulSets: which pod is made or taken away next, and what the status says. Pure.

use serde_json::{Value, json};

use super::{
    super::fields::{at, number, set, text},
    pod::is_ready,
    rollout::{hash, owner},
};
use crate::object::Key;

pub(super) const REVISION: &str = "controller-revision-hash";

/// What is to be done for a StatefulSet.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Pods to make.
    pub(super) create: Vec<Value>,
    /// Pods to take away.
    pub(super) delete: Vec<Key>,
    /// The set's status.
    pub(super) status: Value,
}

/// See the module's documentation. `pods` are those that the set controls.
pub(super) fn plan(stateful: &Value, pods: &[(&Key, &Value)]) -> Plan {
    let name = text(stateful, &["metadata", "name"]);
    let wanted = number(stateful, &["spec", "replicas"]).unwrap_or(1).max(0);
    let update = format!(
        "{name}-{}",
        hash(at(stateful, &["spec", "template"]).unwrap_or(&Value::Null))
    );
    let current = match text(stateful, &["status", "currentRevision"]) {
        "" => update.clone(),
        held => held.to_owned(),
    };
    let find = |ordinal: i64| {
        let name = format!("{name}-{ordinal}");
        pods.iter().find(|(key, _)| key.name() == name).copied()
    };
    let is_new = |pod: &Value| text(pod, &["metadata", "labels", REVISION]) == update;
    let ends = |pod: &Value| at(pod, &["metadata", "deletionTimestamp"]).is_some();
    let mut plan = Plan::default();
    let in_order = text(stateful, &["spec", "podManagementPolicy"]) != "Parallel";
    let partition = number(
        stateful,
        &["spec", "updateStrategy", "rollingUpdate", "partition"],
    )
    .unwrap_or(0);
    let mut all_well = true;
    for ordinal in 0..wanted {
        match find(ordinal) {
            None => {
                // A pod below the partition comes back as it was; what it was is known only while it is new.
                let revision = if ordinal < partition {
                    &current
                } else {
                    &update
                };
                plan.create.push(pod_of(stateful, ordinal, revision));
                all_well = false;
            }
            Some((_, pod)) => all_well &= is_ready(pod),
        }
        if !all_well && in_order {
            break;
        }
    }
    let mut condemned: Vec<_> = pods
        .iter()
        .filter(|(key, _)| ordinal(name, key.name()).is_none_or(|it| it >= wanted))
        .collect();
    condemned.sort_by_key(|(key, _)| std::cmp::Reverse(ordinal(name, key.name())));
    if in_order && !all_well {
        condemned.clear();
    }
    let most = if in_order { 1 } else { condemned.len() };
    let leaving = condemned.iter().take(most).filter(|(_, pod)| !ends(pod));
    plan.delete.extend(leaving.map(|(key, _)| (*key).clone()));
    let rolls = text(stateful, &["spec", "updateStrategy", "type"]) != "OnDelete";
    if rolls && plan.create.is_empty() && condemned.is_empty() {
        for ordinal in (partition.max(0)..wanted).rev() {
            let Some((key, pod)) = find(ordinal) else {
                break;
            };
            if !is_new(pod) && !ends(pod) {
                plan.delete.push(key.clone());
            }
            if !is_new(pod) || !is_ready(pod) {
                break;
            }
        }
    }
    let count = |of: &dyn Fn(&Value) -> bool| pods.iter().filter(|(_, pod)| of(pod)).count();
    let there = count(&|_| true);
    let ready = count(&|pod| is_ready(pod));
    let updated = count(&is_new);
    let done =
        i64::try_from(updated).is_ok_and(|it| it == wanted) && ready == updated && there == updated;
    let now_current = if done { &update } else { &current };
    let on_current = count(&|pod| text(pod, &["metadata", "labels", REVISION]) == now_current);
    plan.status = json!({
        "observedGeneration": number(stateful, &["metadata", "generation"]).unwrap_or(0),
        "replicas": there,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "updatedReplicas": updated,
        "currentReplicas": on_current,
        "currentRevision": now_current,
        "updateRevision": update,
        "collisionCount": 0,
    });
    plan
}

/// The number at the end of a pod's name.
pub(super) fn ordinal(stateful: &str, pod: &str) -> Option<i64> {
    pod.strip_prefix(stateful)?.strip_prefix('-')?.parse().ok()
}

fn pod_of(stateful: &Value, ordinal: i64, revision: &str) -> Value {
    let name = text(stateful, &["metadata", "name"]);
    let pod_name = format!("{name}-{ordinal}");
    let mut pod = at(stateful, &["spec", "template"])
        .cloned()
        .unwrap_or_default();
    set(&mut pod, &["metadata", "name"], pod_name.clone());
    for (label, value) in [
        (REVISION, revision),
        ("statefulset.kubernetes.io/pod-name", &pod_name),
        ("apps.kubernetes.io/pod-index", &ordinal.to_string()),
    ] {
        set(&mut pod, &["metadata", "labels", label], value);
    }
    set(
        &mut pod,
        &["metadata", "ownerReferences"],
        json!([owner("apps/v1", "StatefulSet", stateful)]),
    );
    set(&mut pod, &["spec", "hostname"], pod_name);
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stateful(replicas: i64) -> Value {
        json!({"metadata": {"name": "db", "uid": "u"}, "spec": {"replicas": replicas, "template": {"metadata": {"labels": {"a": "b"}}}}})
    }

    fn pod(ordinal: i64, revision: &str, ready: bool) -> (Key, Value) {
        let status = if ready { "True" } else { "False" };
        let pod = json!({"metadata": {"labels": {REVISION: revision}}, "status": {"conditions": [{"type": "Ready", "status": status}]}});
        (Key::new("default", &format!("db-{ordinal}")), pod)
    }

    fn planned(stateful: &Value, pods: &[(Key, Value)]) -> (Vec<String>, Vec<String>, Value) {
        let pods: Vec<_> = pods.iter().map(|(key, pod)| (key, pod)).collect();
        let plan = plan(stateful, &pods);
        let made = plan
            .create
            .iter()
            .map(|it| text(it, &["metadata", "name"]).to_owned());
        let gone = plan.delete.iter().map(|it| it.name().to_owned());
        (made.collect(), gone.collect(), plan.status)
    }

    fn update(stateful: &Value) -> String {
        format!("db-{}", hash(&stateful["spec"]["template"]))
    }

    #[test]
    fn pods_are_made_one_after_the_other() {
        let set = stateful(3);
        let new = update(&set);
        assert_eq!(planned(&set, &[]).0, ["db-0"]);
        assert!(planned(&set, &[pod(0, &new, false)]).0.is_empty());
        assert_eq!(planned(&set, &[pod(0, &new, true)]).0, ["db-1"]);
        let mut parallel = set;
        parallel["spec"]["podManagementPolicy"] = "Parallel".into();
        assert_eq!(planned(&parallel, &[]).0, ["db-0", "db-1", "db-2"]);
    }

    #[test]
    fn the_last_goes_first() {
        let set = stateful(1);
        let new = update(&set);
        let all = [pod(0, &new, true), pod(1, &new, true), pod(2, &new, true)];
        assert_eq!(planned(&set, &all).1, ["db-2"]);
        let unwell = [pod(0, &new, false), pod(1, &new, true)];
        assert!(
            planned(&set, &unwell).1.is_empty(),
            "not while one that stays is not ready"
        );
    }

    #[test]
    fn a_rollout_goes_from_the_last_to_the_partition() {
        let mut set = stateful(3);
        let new = update(&set);
        set["status"] = json!({"currentRevision": "db-old"});
        let (_, gone, status) = planned(
            &set,
            &[
                pod(0, "db-old", true),
                pod(1, "db-old", true),
                pod(2, "db-old", true),
            ],
        );
        assert_eq!(gone, ["db-2"]);
        assert_eq!(
            (
                text(&status, &["currentRevision"]),
                text(&status, &["updateRevision"])
            ),
            ("db-old", new.as_str())
        );
        let waits = [
            pod(0, "db-old", true),
            pod(1, "db-old", true),
            pod(2, &new, false),
        ];
        assert!(planned(&set, &waits).1.is_empty());
        let next = [
            pod(0, "db-old", true),
            pod(1, "db-old", true),
            pod(2, &new, true),
        ];
        assert_eq!(planned(&set, &next).1, ["db-1"]);
        set["spec"]["updateStrategy"] = json!({"rollingUpdate": {"partition": 2}});
        assert!(planned(&set, &next).1.is_empty());
    }

    #[test]
    fn a_finished_rollout_becomes_current() {
        let mut set = stateful(1);
        let new = update(&set);
        set["status"] = json!({"currentRevision": "db-old"});
        let (.., status) = planned(&set, &[pod(0, &new, true)]);
        assert_eq!(
            (
                text(&status, &["currentRevision"]),
                number(&status, &["currentReplicas"])
            ),
            (new.as_str(), Some(1))
        );
    }
}
