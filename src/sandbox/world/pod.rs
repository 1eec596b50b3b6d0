//! What becomes of a pod: the scheduler's and the kubelet's part, with nothing that runs. Pure.

use serde_json::{Value, json};

use super::super::fields::{at, entry, list, set, text};

/// What a pod waits for next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Step {
    /// A node.
    Schedule,
    /// Its containers.
    Start,
    /// Its containers' readiness.
    Ready,
    /// Its readiness gates have changed, or its containers have.
    Gates,
    /// Its end.
    End,
}

/// What a pod waits for; nothing, if nobody has to do anything. `node_is_up`: of the node that it is on.
pub(super) fn next(pod: &Value, node_is_up: bool, serves: bool) -> Option<Step> {
    let node = text(pod, &["spec", "nodeName"]);
    if at(pod, &["metadata", "deletionTimestamp"]).is_some() {
        // A node that is down ends nothing.
        return (!node.is_empty() && node_is_up).then_some(Step::End);
    }
    if node.is_empty() {
        return Some(Step::Schedule);
    }
    let phase = text(pod, &["status", "phase"]);
    if !node_is_up || matches!(phase, "Succeeded" | "Failed") {
        return None;
    }
    if phase != "Running" {
        return Some(Step::Start);
    }
    if condition(pod, "ContainersReady") != serves {
        return Some(Step::Ready);
    }
    (condition(pod, "Ready") != is_to_be_ready(pod)).then_some(Step::Gates)
}

/// Whether a condition of the pod is true.
pub(super) fn condition(object: &Value, kind: &str) -> bool {
    let conditions = list(object, &["status", "conditions"]).iter();
    let mut found = conditions.filter(|it| text(it, &["type"]) == kind);
    found
        .next()
        .is_some_and(|it| text(it, &["status"]) == "True")
}

/// Ready, and not on its way out.
pub(super) fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready") && at(pod, &["metadata", "deletionTimestamp"]).is_none()
}

fn is_to_be_ready(pod: &Value) -> bool {
    let mut gates = list(pod, &["spec", "readinessGates"]).iter();
    condition(pod, "ContainersReady")
        && gates.all(|it| condition(pod, text(it, &["conditionType"])))
}

/// Puts a condition where one of its type is, or at the end. The time changes with the status.
pub(super) fn set_condition(
    status: &mut Value,
    kind: &str,
    is: bool,
    reason: &str,
    message: &str,
    now: &str,
) {
    let word = if is { "True" } else { "False" };
    let conditions = entry(status, &["conditions"]);
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    let mut new = json!({"type": kind, "status": word, "lastTransitionTime": now});
    for (field, value) in [("reason", reason), ("message", message)] {
        if !value.is_empty() {
            new[field] = value.into();
        }
    }
    match conditions.iter_mut().find(|it| text(it, &["type"]) == kind) {
        Some(held) => {
            if text(held, &["status"]) == word {
                new["lastTransitionTime"] = held["lastTransitionTime"].clone();
            }
            *held = new;
        }
        None => conditions.push(new),
    }
}

/// Its containers run from now on, at this address.
pub(super) fn start(pod: &mut Value, ip: &str, host: &str, now: &str) {
    let statuses: Vec<Value> = list(pod, &["spec", "containers"])
        .iter()
        .map(|container| {
            let (name, image) = (text(container, &["name"]), text(container, &["image"]));
            json!({
                "name": name,
                "image": image,
                "imageID": format!("sandbox/{image}"),
                "containerID": format!("sandbox://{name}"),
                "ready": false,
                "started": true,
                "restartCount": 0,
                "lastState": {},
                "state": {"running": {"startedAt": now}},
            })
        })
        .collect();
    let status = entry(pod, &["status"]);
    set(status, &["phase"], "Running");
    set(status, &["hostIP"], host);
    set(status, &["hostIPs"], json!([{"ip": host}]));
    set(status, &["podIP"], ip);
    set(status, &["podIPs"], json!([{"ip": ip}]));
    set(status, &["startTime"], now);
    set(status, &["containerStatuses"], statuses);
    set_condition(status, "PodReadyToStartContainers", true, "", "", now);
    set_condition(status, "Initialized", true, "", "", now);
    for kind in ["Ready", "ContainersReady"] {
        set_condition(
            status,
            kind,
            false,
            "ContainersNotReady",
            "containers with unready status",
            now,
        );
    }
}

/// Its containers are ready, or are so no more; and it is ready, as far as its gates let it be.
pub(super) fn set_ready(pod: &mut Value, ready: bool, now: &str) {
    if let Some(statuses) = entry(pod, &["status", "containerStatuses"]).as_array_mut() {
        for status in statuses {
            set(status, &["ready"], ready);
        }
    }
    let (reason, message) = match ready {
        true => ("", ""),
        false => ("ContainersNotReady", "containers with unready status"),
    };
    set_condition(
        entry(pod, &["status"]),
        "ContainersReady",
        ready,
        reason,
        message,
        now,
    );
    open_gates(pod, now);
}

/// Ready follows the containers and the gates.
pub(super) fn open_gates(pod: &mut Value, now: &str) {
    let ready = is_to_be_ready(pod);
    let (reason, message) = match (ready, condition(pod, "ContainersReady")) {
        (true, _) => ("", ""),
        (false, true) => (
            "ReadinessGatesNotReady",
            "corresponding condition of pod readiness gate is not true",
        ),
        (false, false) => ("ContainersNotReady", "containers with unready status"),
    };
    set_condition(
        entry(pod, &["status"]),
        "Ready",
        ready,
        reason,
        message,
        now,
    );
}

/// Of the nodes that take pods, the one with the fewest.
pub(super) fn choose_node<'a>(
    nodes: impl Iterator<Item = (&'a str, bool)>,
    count: impl Fn(&str) -> usize,
) -> Option<&'a str> {
    let open = nodes.filter(|(_, takes)| *takes).map(|(name, _)| name);
    open.min_by_key(|name| (count(name), *name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare() -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}, "status": {"phase": "Pending"}})
    }

    #[test]
    fn a_pod_goes_from_step_to_step() {
        let mut pod = bare();
        assert_eq!(next(&pod, false, true), Some(Step::Schedule));
        set(&mut pod, &["spec", "nodeName"], "n");
        assert_eq!(next(&pod, true, true), Some(Step::Start));
        assert_eq!(next(&pod, false, true), None, "its node is down");
        start(&mut pod, "10.0.0.1", "1.1.1.1", "t");
        assert_eq!(next(&pod, true, false), None, "it does not serve yet");
        assert_eq!(next(&pod, true, true), Some(Step::Ready));
        set_ready(&mut pod, true, "t");
        assert_eq!((next(&pod, true, true), is_ready(&pod)), (None, true));
        assert_eq!(
            next(&pod, true, false),
            Some(Step::Ready),
            "it serves no more"
        );
        set(&mut pod, &["metadata", "deletionTimestamp"], "t");
        assert_eq!(next(&pod, true, true), Some(Step::End));
        assert_eq!(
            next(&pod, false, true),
            None,
            "a node that is down ends nothing"
        );
    }

    #[test]
    fn a_gate_holds_a_pod_back() {
        let mut pod = bare();
        set(&mut pod, &["spec", "nodeName"], "n");
        set(
            &mut pod,
            &["spec", "readinessGates"],
            json!([{"conditionType": "x/y"}]),
        );
        start(&mut pod, "10.0.0.1", "1.1.1.1", "t");
        set_ready(&mut pod, true, "t");
        assert!(condition(&pod, "ContainersReady") && !is_ready(&pod));
        set_condition(entry(&mut pod, &["status"]), "x/y", true, "", "", "t");
        assert_eq!(next(&pod, true, true), Some(Step::Gates));
        open_gates(&mut pod, "t");
        assert!(is_ready(&pod));
    }

    #[test]
    fn the_emptiest_node_that_takes_pods_is_chosen() {
        let nodes = [("a", true), ("b", true), ("c", false)];
        let count = |name: &str| if name == "a" { 2 } else { 1 };
        assert_eq!(choose_node(nodes.into_iter(), count), Some("b"));
        assert_eq!(choose_node([("c", false)].into_iter(), count), None);
    }
}
