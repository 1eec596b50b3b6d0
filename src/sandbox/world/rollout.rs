//! Deployments: which ReplicaSet is to have how many replicas, and what the status says. Pure; the numbers follow
//! the deployment controller's.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::super::fields::{at, list, number, text};
use crate::object::Key;

pub(super) const HASH: &str = "pod-template-hash";
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";

/// What is to be done for a Deployment.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// A new ReplicaSet.
    pub(super) create: Option<Value>,
    /// New numbers of replicas.
    pub(super) scale: Vec<(Key, i64)>,
    /// The revision that the current ReplicaSet is to have.
    pub(super) renumber: Option<(Key, i64)>,
    /// Old ReplicaSets that nobody needs to go back to.
    pub(super) remove: Vec<Key>,
    /// The Deployment's revision.
    pub(super) revision: i64,
    /// The Deployment's status.
    pub(super) status: Value,
}

/// A ReplicaSet of the Deployment.
#[derive(Clone, Debug)]
struct Set<'a> {
    key: &'a Key,
    revision: i64,
    wanted: i64,
    there: i64,
    ready: i64,
    available: i64,
    born: &'a str,
    current: bool,
}

/// What the template is called: the same for the same content.
pub(super) fn hash(template: &Value) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    // FNV-1a, which needs no state and is the same on every machine.
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(16_777_619);
    let hash = template.to_string().bytes().fold(2_166_136_261, step);
    let letter = |byte: u8| char::from(LETTERS[usize::from(byte) % LETTERS.len()]);
    hash.to_string().bytes().map(letter).collect()
}

/// See the module's documentation. `sets` are those that the Deployment controls.
pub(super) fn plan(deployment: &Value, sets: &[(&Key, &Value)], now: Timestamp) -> Plan {
    let hash = hash(at(deployment, &["spec", "template"]).unwrap_or(&Value::Null));
    let mut all: Vec<Set<'_>> = sets
        .iter()
        .map(|(key, set)| read(key, set, &hash))
        .collect();
    all.sort_by_key(|set| (set.revision, set.born));
    let desired = number(deployment, &["spec", "replicas"]).unwrap_or(1);
    let newest = all.iter().map(|set| set.revision).max().unwrap_or(0);
    let current = all.iter().position(|set| set.current);
    let paused = at(deployment, &["spec", "paused"]) == Some(&true.into());
    let mut plan = Plan::default();
    match current {
        None if !paused => {
            plan.revision = newest + 1;
            let replicas = first_replicas(deployment, desired, &all);
            plan.create = Some(replica_set(deployment, &hash, replicas, plan.revision));
        }
        None => plan.revision = newest,
        Some(at) => {
            plan.revision = all[at].revision;
            if all[at].revision < newest {
                plan.revision = newest + 1;
                plan.renumber = Some((all[at].key.clone(), plan.revision));
            }
            plan.scale = if paused {
                Vec::new()
            } else {
                scale(deployment, desired, &all[at], &all)
            };
            plan.remove = outlived(deployment, &all);
        }
    }
    let new = current.map(|at| &all[at]);
    let name = match (&plan.create, new) {
        (Some(set), _) => text(set, &["metadata", "name"]).to_owned(),
        (None, Some(set)) => set.key.name().to_owned(),
        (None, None) => String::new(),
    };
    plan.status = status(
        deployment,
        desired,
        new,
        &all,
        &name,
        plan.create.is_some(),
        now,
    );
    plan
}

fn read<'a>(key: &'a Key, set: &'a Value, hash: &str) -> Set<'a> {
    let count = |path: &[&str]| number(set, path).unwrap_or(0);
    let revision = text(set, &["metadata", "annotations", REVISION]);
    Set {
        key,
        revision: revision.parse().unwrap_or(0),
        wanted: count(&["spec", "replicas"]),
        there: count(&["status", "replicas"]),
        ready: count(&["status", "readyReplicas"]),
        available: count(&["status", "availableReplicas"]),
        born: text(set, &["metadata", "creationTimestamp"]),
        current: text(set, &["metadata", "labels", HASH]) == hash,
    }
}

fn recreates(deployment: &Value) -> bool {
    text(deployment, &["spec", "strategy", "type"]) == "Recreate"
}

/// How many more, and how many fewer than wanted there may be meanwhile.
fn slack(deployment: &Value, desired: i64) -> (i64, i64) {
    let amount = |field: &str, up: bool| {
        let path = ["spec", "strategy", "rollingUpdate", field];
        match at(deployment, &path) {
            Some(Value::String(percent)) => {
                let percent: i64 = percent.trim_end_matches('%').parse().unwrap_or(25);
                (desired * percent + if up { 99 } else { 0 }) / 100
            }
            Some(value) => value.as_i64().unwrap_or(0),
            None => 0,
        }
    };
    let (surge, unavailable) = (amount("maxSurge", true), amount("maxUnavailable", false));
    // Both 0 would never move.
    let unavailable = if surge == 0 {
        unavailable.max(1)
    } else {
        unavailable
    };
    (surge, unavailable.min(desired))
}

fn first_replicas(deployment: &Value, desired: i64, old: &[Set<'_>]) -> i64 {
    let there: i64 = old.iter().map(|set| set.wanted).sum();
    if recreates(deployment) {
        let gone = old.iter().all(|set| set.wanted == 0 && set.there == 0);
        return if gone { desired } else { 0 };
    }
    let (surge, _) = slack(deployment, desired);
    (desired + surge - there).clamp(0, desired)
}

fn scale(deployment: &Value, desired: i64, new: &Set<'_>, all: &[Set<'_>]) -> Vec<(Key, i64)> {
    let old = || all.iter().filter(|set| !set.current);
    if recreates(deployment) {
        let down: Vec<_> = old()
            .filter(|set| set.wanted > 0)
            .map(|set| (set.key.clone(), 0))
            .collect();
        let gone = old().all(|set| set.there == 0);
        return match (down.is_empty(), gone && new.wanted != desired) {
            (true, true) => vec![(new.key.clone(), desired)],
            _ => down,
        };
    }
    let (surge, unavailable) = slack(deployment, desired);
    let total: i64 = all.iter().map(|set| set.wanted).sum();
    if new.wanted > desired {
        return vec![(new.key.clone(), desired)];
    }
    let more = (desired + surge - total).min(desired - new.wanted);
    if more > 0 {
        return vec![(new.key.clone(), new.wanted + more)];
    }
    let least = desired - unavailable;
    let mut room = total - least - (new.wanted - new.available).max(0);
    let mut left: Vec<(&Key, i64, i64)> = old()
        .map(|set| (set.key, set.wanted, set.available))
        .collect();
    // Those that are of no use go first.
    for (_, wanted, available) in &mut left {
        let down = room.max(0).min(*wanted - *available).max(0);
        *wanted -= down;
        room -= down;
    }
    let available: i64 = all.iter().map(|set| set.available).sum();
    let mut spare = (available - least).max(0);
    for (_, wanted, _) in &mut left {
        let down = spare.min(*wanted).min(room.max(0));
        *wanted -= down;
        spare -= down;
        room -= down;
    }
    let changed = old()
        .zip(&left)
        .filter(|(set, (_, wanted, _))| set.wanted != *wanted);
    changed
        .map(|(set, (_, wanted, _))| (set.key.clone(), *wanted))
        .collect()
}

/// Old sets with nothing in them, beyond what is kept to go back to.
fn outlived(deployment: &Value, all: &[Set<'_>]) -> Vec<Key> {
    let limit = number(deployment, &["spec", "revisionHistoryLimit"]).unwrap_or(10);
    let old: Vec<&Set<'_>> = all.iter().filter(|set| !set.current).collect();
    let over = old
        .len()
        .saturating_sub(usize::try_from(limit).unwrap_or(0));
    let empty = |set: &&&Set<'_>| set.wanted == 0 && set.there == 0;
    let oldest = old.iter().take(over).filter(empty);
    oldest.map(|set| set.key.clone()).collect()
}

fn replica_set(deployment: &Value, hash: &str, replicas: i64, revision: i64) -> Value {
    let name = text(deployment, &["metadata", "name"]);
    let mut template = at(deployment, &["spec", "template"])
        .cloned()
        .unwrap_or_default();
    let mut selector = at(deployment, &["spec", "selector"])
        .cloned()
        .unwrap_or_default();
    for (value, path) in [
        (&mut template, &["metadata", "labels", HASH][..]),
        (&mut selector, &["matchLabels", HASH]),
    ] {
        super::super::fields::set(value, path, hash);
    }
    let labels = template["metadata"]["labels"].clone();
    json!({
        "metadata": {
            "name": format!("{name}-{hash}"),
            "namespace": text(deployment, &["metadata", "namespace"]),
            "labels": labels,
            "annotations": {REVISION: revision.to_string()},
            "ownerReferences": [owner("apps/v1", "Deployment", deployment)],
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    })
}

/// A reference to the object that controls another.
pub(super) fn owner(api_version: &str, kind: &str, object: &Value) -> Value {
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "name": text(object, &["metadata", "name"]),
        "uid": text(object, &["metadata", "uid"]),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

fn status(
    deployment: &Value,
    desired: i64,
    new: Option<&Set<'_>>,
    all: &[Set<'_>],
    name: &str,
    created: bool,
    now: Timestamp,
) -> Value {
    let sum = |of: fn(&Set<'_>) -> i64| -> i64 { all.iter().map(of).sum() };
    let (there, ready, available) = (
        sum(|it| it.there),
        sum(|it| it.ready),
        sum(|it| it.available),
    );
    let updated = new.map_or(0, |set| set.there);
    let mut status = Map::new();
    let generation = number(deployment, &["metadata", "generation"]).unwrap_or(0);
    status.insert("observedGeneration".to_owned(), generation.into());
    // Nothing is not said, as in the API's own types.
    for (field, count) in [
        ("replicas", there),
        ("updatedReplicas", updated),
        ("readyReplicas", ready),
        ("availableReplicas", available),
        (
            "unavailableReplicas",
            (sum(|it| it.wanted).max(there) - available).max(0),
        ),
    ] {
        if count > 0 {
            status.insert(field.to_owned(), count.into());
        }
    }
    let (_, unavailable) = slack(deployment, desired);
    let enough = available >= desired - unavailable;
    let complete = !created && updated == desired && there == desired && available == desired;
    let held = |kind: &str| {
        let mut conditions = list(deployment, &["status", "conditions"]).iter();
        conditions.find(|it| text(it, &["type"]) == kind).cloned()
    };
    let (reason, message) = match enough {
        true => (
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        ),
        false => (
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        ),
    };
    let available_condition = condition(
        held("Available"),
        "Available",
        enough,
        reason,
        message,
        now,
        false,
    );
    let before = held("Progressing");
    let moved = ["updatedReplicas", "readyReplicas", "availableReplicas"]
        .iter()
        .any(|field| {
            number(deployment, &["status", field]).unwrap_or(0)
                != status.get(*field).and_then(Value::as_i64).unwrap_or(0)
        });
    let new_generation = number(deployment, &["status", "observedGeneration"]) != Some(generation);
    let progressing = if complete {
        let message = format!("ReplicaSet {name:?} has successfully progressed.");
        condition(
            before,
            "Progressing",
            true,
            "NewReplicaSetAvailable",
            &message,
            now,
            false,
        )
    } else if created {
        let message = format!("Created new replica set {name:?}");
        condition(
            before,
            "Progressing",
            true,
            "NewReplicaSetCreated",
            &message,
            now,
            true,
        )
    } else if is_late(deployment, before.as_ref(), now) && !moved && !new_generation {
        let message = format!("ReplicaSet {name:?} has timed out progressing.");
        condition(
            before,
            "Progressing",
            false,
            "ProgressDeadlineExceeded",
            &message,
            now,
            false,
        )
    } else {
        let message = format!("ReplicaSet {name:?} is progressing.");
        condition(
            before,
            "Progressing",
            true,
            "ReplicaSetUpdated",
            &message,
            now,
            moved || new_generation,
        )
    };
    status.insert(
        "conditions".to_owned(),
        json!([available_condition, progressing]),
    );
    status.into()
}

/// When a Deployment that does not move will be late, if it is not complete.
pub(super) fn deadline(deployment: &Value) -> Option<Timestamp> {
    let progressing = list(deployment, &["status", "conditions"])
        .iter()
        .find(|it| text(it, &["type"]) == "Progressing")?;
    if text(progressing, &["reason"]) == "NewReplicaSetAvailable" {
        return None;
    }
    due(deployment, progressing)
}

fn due(deployment: &Value, progressing: &Value) -> Option<Timestamp> {
    let updated: Timestamp = text(progressing, &["lastUpdateTime"]).parse().ok()?;
    let seconds = number(deployment, &["spec", "progressDeadlineSeconds"]).unwrap_or(600);
    Timestamp::from_second(updated.as_second().saturating_add(seconds)).ok()
}

fn is_late(deployment: &Value, progressing: Option<&Value>, now: Timestamp) -> bool {
    progressing
        .and_then(|it| due(deployment, it))
        .is_some_and(|due| now >= due)
}

fn condition(
    held: Option<Value>,
    kind: &str,
    is: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
    touch: bool,
) -> Value {
    let word = if is { "True" } else { "False" };
    let now = Timestamp::from_second(now.as_second())
        .unwrap_or(now)
        .to_string();
    let mut transition = now.clone();
    if let Some(held) = held.filter(|held| text(held, &["status"]) == word) {
        if !touch && text(&held, &["reason"]) == reason && text(&held, &["message"]) == message {
            return held;
        }
        transition = text(&held, &["lastTransitionTime"]).to_owned();
    }
    json!({
        "type": kind,
        "status": word,
        "reason": reason,
        "message": message,
        "lastUpdateTime": now,
        "lastTransitionTime": transition,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(replicas: i64, strategy: Value) -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u", "generation": 2},
            "spec": {"replicas": replicas, "strategy": strategy, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}}},
        })
    }

    fn rolling(surge: &str, unavailable: &str) -> Value {
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
    }

    fn set(hash: &str, revision: i64, wanted: i64, available: i64) -> (Key, Value) {
        let set = json!({
            "metadata": {"labels": {HASH: hash}, "annotations": {REVISION: revision.to_string()}},
            "spec": {"replicas": wanted},
            "status": {"replicas": wanted, "readyReplicas": available, "availableReplicas": available},
        });
        (Key::new("default", &format!("web-{hash}")), set)
    }

    fn planned(deployment: &Value, sets: &[(Key, Value)]) -> Plan {
        let sets: Vec<_> = sets.iter().map(|(key, set)| (key, set)).collect();
        plan(deployment, &sets, Timestamp::UNIX_EPOCH)
    }

    fn scaled(deployment: &Value, sets: &[(Key, Value)]) -> Vec<(String, i64)> {
        let scale = planned(deployment, sets).scale.into_iter();
        scale
            .map(|(key, count)| (key.name().to_owned(), count))
            .collect()
    }

    #[test]
    fn a_new_deployment_gets_a_set_of_its_own() {
        let deployment = deployment(3, rolling("25%", "25%"));
        let plan = planned(&deployment, &[]);
        let set = plan.create.unwrap();
        assert_eq!(number(&set, &["spec", "replicas"]), Some(3));
        let hash = hash(&deployment["spec"]["template"]);
        assert_eq!(text(&set, &["metadata", "name"]), format!("web-{hash}"));
        assert_eq!(text(&set, &["spec", "selector", "matchLabels", HASH]), hash);
        assert_eq!(plan.revision, 1);
        assert_eq!(
            text(&plan.status["conditions"][1], &["reason"]),
            "NewReplicaSetCreated"
        );
    }

    #[test]
    fn a_rollout_keeps_within_its_bounds() {
        let deployment = deployment(4, rolling("25%", "25%"));
        let own = hash(&deployment["spec"]["template"]);
        let set_of = |wanted, available| set(&own, 2, wanted, available);
        // One more may be there, one fewer may be available.
        assert_eq!(
            first_replicas(
                &deployment,
                4,
                &[read(&set("old", 1, 4, 4).0, &set("old", 1, 4, 4).1, &own)]
            ),
            1
        );
        assert_eq!(
            scaled(&deployment, &[set("old", 1, 4, 4), set_of(1, 0)]),
            [("web-old".to_owned(), 3)]
        );
        assert_eq!(
            scaled(&deployment, &[set("old", 1, 3, 3), set_of(1, 0)]),
            [(format!("web-{own}"), 2)]
        );
        assert_eq!(
            scaled(&deployment, &[set("old", 1, 3, 3), set_of(2, 0)]),
            []
        );
        assert_eq!(
            scaled(&deployment, &[set("old", 1, 3, 3), set_of(2, 2)]),
            [("web-old".to_owned(), 1)]
        );
        assert_eq!(
            scaled(&deployment, &[set("old", 1, 0, 0), set_of(4, 4)]),
            []
        );
    }

    #[test]
    fn what_is_of_no_use_goes_first() {
        let deployment = deployment(4, rolling("0", "1"));
        let own = hash(&deployment["spec"]["template"]);
        let sets = [set("bad", 1, 2, 0), set("old", 2, 2, 2), set(&own, 3, 0, 0)];
        assert_eq!(scaled(&deployment, &sets), [("web-bad".to_owned(), 1)]);
    }

    #[test]
    fn recreating_waits_until_all_are_gone() {
        let deployment = deployment(2, json!({"type": "Recreate"}));
        let own = hash(&deployment["spec"]["template"]);
        let new = format!("web-{own}");
        assert_eq!(
            scaled(&deployment, &[set("old", 1, 2, 2), set(&own, 2, 0, 0)]),
            [("web-old".to_owned(), 0)]
        );
        let mut ending = set("old", 1, 0, 0);
        ending.1["status"]["replicas"] = 1.into();
        assert_eq!(scaled(&deployment, &[ending, set(&own, 2, 0, 0)]), []);
        assert_eq!(
            scaled(&deployment, &[set("old", 1, 0, 0), set(&own, 2, 0, 0)]),
            [(new, 2)]
        );
    }

    #[test]
    fn the_status_says_when_it_is_done() {
        let deployment = deployment(2, rolling("25%", "25%"));
        let own = hash(&deployment["spec"]["template"]);
        let done = planned(&deployment, &[set(&own, 1, 2, 2)]).status;
        assert_eq!(
            done.as_object()
                .unwrap()
                .iter()
                .filter(|(key, _)| *key != "conditions")
                .map(|(k, v)| (k.as_str(), v.as_i64().unwrap()))
                .collect::<Vec<_>>(),
            [
                ("availableReplicas", 2),
                ("observedGeneration", 2),
                ("readyReplicas", 2),
                ("replicas", 2),
                ("updatedReplicas", 2)
            ]
        );
        assert_eq!(
            text(&done["conditions"][1], &["reason"]),
            "NewReplicaSetAvailable"
        );
        let half = planned(&deployment, &[set("old", 1, 2, 2), set(&own, 2, 1, 0)]).status;
        assert_eq!(number(&half, &["unavailableReplicas"]), Some(1));
        assert_eq!(
            text(&half["conditions"][1], &["reason"]),
            "ReplicaSetUpdated"
        );
    }

    #[test]
    fn what_does_not_move_is_late() {
        let mut deployment = deployment(2, rolling("25%", "25%"));
        let own = hash(&deployment["spec"]["template"]);
        let sets = [set(&own, 1, 2, 0)];
        let sets: Vec<_> = sets.iter().map(|(key, set)| (key, set)).collect();
        deployment["spec"]["progressDeadlineSeconds"] = 10.into();
        deployment["status"] = plan(&deployment, &sets, Timestamp::UNIX_EPOCH).status;
        let due = deadline(&deployment).unwrap();
        assert_eq!(due.as_second(), 10);
        let late = plan(&deployment, &sets, due).status;
        assert_eq!(
            text(&late["conditions"][1], &["reason"]),
            "ProgressDeadlineExceeded"
        );
    }

    #[test]
    fn going_back_takes_the_old_set_and_a_new_number() {
        let deployment = deployment(1, rolling("25%", "25%"));
        let own = hash(&deployment["spec"]["template"]);
        let plan = planned(&deployment, &[set(&own, 1, 0, 0), set("bad", 2, 1, 1)]);
        assert_eq!((plan.create, plan.revision), (None, 3));
        assert_eq!(plan.renumber.map(|it| it.1), Some(3));
    }
}
