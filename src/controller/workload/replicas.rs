//! Kinds that keep a number of pods: Deployment, ReplicaSet, StatefulSet, DaemonSet.

use serde::Deserialize;

use super::super::opinion::{Facts, Opinion, fields, some_of};
use crate::{object::Object, readiness::State};

#[derive(Default, Deserialize)]
struct Replicated {
    #[serde(default)]
    spec: Option<Spec>,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    replicas: Option<i64>,
    paused: Option<bool>,
    min_ready_seconds: Option<i64>,
    progress_deadline_seconds: Option<i64>,
    update_strategy: Option<Strategy>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Strategy {
    r#type: Option<String>,
    rolling_update: Option<RollingUpdate>,
}

#[derive(Default, Deserialize)]
struct RollingUpdate {
    partition: Option<i64>,
}

/// Counts that are absent are zero.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    replicas: Option<i64>,
    ready_replicas: Option<i64>,
    updated_replicas: Option<i64>,
    available_replicas: Option<i64>,
    current_replicas: Option<i64>,
    fully_labeled_replicas: Option<i64>,
    current_revision: Option<String>,
    update_revision: Option<String>,
    desired_number_scheduled: Option<i64>,
    current_number_scheduled: Option<i64>,
    updated_number_scheduled: Option<i64>,
    number_available: Option<i64>,
    number_ready: Option<i64>,
}

/// What is missing in a count, if anything is.
fn fewer(reason: &'static str, what: &str, there: Option<i64>, wanted: i64) -> Option<Opinion> {
    let there = there.unwrap_or_default();
    (there < wanted).then(|| Opinion::not_ready(reason, some_of(what, there, wanted)))
}

/// Pods that are to go.
fn more(there: Option<i64>, wanted: i64) -> Option<Opinion> {
    let extra = there.unwrap_or_default() - wanted;
    (extra > 0).then(|| Opinion::not_ready("ExtraPods", format!("Pending termination: {extra}")))
}

fn read(facts: &Facts, object: &Object) -> Result<(Spec, Status), Opinion> {
    facts.observed()?;
    let read: Replicated = fields(object)?;
    Ok((
        read.spec.unwrap_or_default(),
        read.status.unwrap_or_default(),
    ))
}

/// Replicas that are not available for long enough are none.
fn available(spec: &Spec, status: &Status) -> Option<i64> {
    // An old server does not count them.
    let ready = match spec.min_ready_seconds {
        None | Some(0) => status.ready_replicas,
        Some(_) => None,
    };
    status.available_replicas.or(ready)
}

pub(super) fn deployment(facts: &Facts, object: &Object) -> Result<Opinion, Opinion> {
    let (spec, status) = read(facts, object)?;
    let progressing = facts.condition("Progressing");
    if let Some(condition) = progressing
        .filter(|condition| condition.reason.as_deref() == Some("ProgressDeadlineExceeded"))
    {
        return Err(Opinion::of(State::NotReady, condition));
    }
    let wanted = spec.replicas.unwrap_or(1);
    let failure = facts
        .condition("ReplicaFailure")
        .filter(|condition| condition.is_true());
    let updated = status.updated_replicas.unwrap_or_default();
    let missing = fewer("LessReplicas", "Replicas", status.replicas, wanted)
        .or_else(|| fewer("LessUpdated", "Updated", status.updated_replicas, wanted))
        .or_else(|| more(status.replicas, wanted))
        .or_else(|| {
            fewer(
                "LessAvailable",
                "Available",
                available(&spec, &status),
                updated,
            )
        })
        .or_else(|| fewer("LessReady", "Ready", status.ready_replicas, wanted));
    if let Some(missing) = missing {
        // Why there are too few, where the controller knows: a quota, an admission webhook.
        return Err(match failure {
            Some(failure) => {
                let why = Opinion::of(State::NotReady, failure);
                Opinion {
                    message: format!("{}; {}", missing.message, why.message),
                    ..why
                }
            }
            None => match spec.paused {
                Some(true) => Opinion {
                    message: format!("{}; the rollout is paused", missing.message),
                    ..missing
                },
                _ => missing,
            },
        });
    }
    // Without a deadline the controller reports no progress.
    let has_deadline = spec
        .progress_deadline_seconds
        .is_some_and(|seconds| seconds != i64::from(i32::MAX));
    let rolled_out = progressing.is_some_and(|condition| {
        condition.is_true() && condition.reason.as_deref() == Some("NewReplicaSetAvailable")
    });
    if has_deadline && !rolled_out {
        let message = "the rollout of the latest ReplicaSet is not finished";
        return Err(Opinion::not_ready("ReplicaSetNotAvailable", message));
    }
    match facts.condition("Available") {
        Some(condition) if condition.is_true() => Ok(Opinion::ready(
            "Available",
            some_of("Ready", wanted, wanted),
        )),
        Some(condition) => Err(Opinion::of(State::NotReady, condition)),
        None => Err(Opinion::not_ready(
            "DeploymentNotAvailable",
            "it has no Available condition",
        )),
    }
}

pub(super) fn replica_set(facts: &Facts, object: &Object) -> Result<Opinion, Opinion> {
    let (spec, status) = read(facts, object)?;
    if let Some(condition) = facts
        .condition("ReplicaFailure")
        .filter(|condition| condition.is_true())
    {
        return Err(Opinion::of(State::NotReady, condition));
    }
    let wanted = spec.replicas.unwrap_or(1);
    let labelled = status.fully_labeled_replicas;
    let missing = fewer("LessLabelled", "Labelled", labelled, wanted)
        .or_else(|| {
            fewer(
                "LessAvailable",
                "Available",
                available(&spec, &status),
                wanted,
            )
        })
        .or_else(|| fewer("LessReady", "Ready", status.ready_replicas, wanted))
        .or_else(|| more(status.replicas, wanted));
    missing.map_or_else(
        || {
            Ok(Opinion::ready(
                "Available",
                some_of("Ready", wanted, wanted),
            ))
        },
        Err,
    )
}

pub(super) fn stateful_set(facts: &Facts, object: &Object) -> Result<Opinion, Opinion> {
    let (spec, status) = read(facts, object)?;
    let wanted = spec.replicas.unwrap_or(1);
    let missing = fewer("LessReplicas", "Replicas", status.replicas, wanted)
        .or_else(|| fewer("LessReady", "Ready", status.ready_replicas, wanted))
        .or_else(|| {
            fewer(
                "LessAvailable",
                "Available",
                available(&spec, &status),
                wanted,
            )
        })
        .or_else(|| more(status.replicas, wanted));
    if let Some(missing) = missing {
        return Err(missing);
    }
    let strategy = spec.update_strategy.unwrap_or_default();
    let ready = |message: String| Ok(Opinion::ready("Available", message));
    if strategy.r#type.as_deref() == Some("OnDelete") {
        // Whoever owns it decides when a pod is updated: what there is, is ready.
        return ready(some_of("Ready", wanted, wanted));
    }
    let partition = strategy
        .rolling_update
        .and_then(|rolling| rolling.partition)
        .unwrap_or_default();
    if partition > 0 {
        let wanted = (wanted - partition).max(0);
        return match fewer("LessUpdated", "Updated", status.updated_replicas, wanted) {
            Some(missing) => Err(missing),
            None => ready(format!(
                "{}, up to partition {partition}",
                some_of("Updated", wanted, wanted)
            )),
        };
    }
    if status.current_revision != status.update_revision {
        let updated = status.updated_replicas.unwrap_or_default();
        let message = some_of("Updated", updated, wanted);
        return Err(Opinion::not_ready("RevisionMismatch", message));
    }
    match fewer("LessCurrent", "Current", status.current_replicas, wanted) {
        Some(missing) => Err(missing),
        None => ready(some_of("Ready", wanted, wanted)),
    }
}

pub(super) fn daemon_set(facts: &Facts, object: &Object) -> Result<Opinion, Opinion> {
    let (spec, status) = read(facts, object)?;
    let Some(wanted) = status.desired_number_scheduled else {
        let message = "it does not say how many nodes it is for";
        return Err(Opinion::not_ready("NoDesiredNumber", message));
    };
    let updated = || {
        let missing = fewer(
            "LessUpdated",
            "Updated",
            status.updated_number_scheduled,
            wanted,
        )?;
        let strategy = spec.update_strategy.as_ref();
        if strategy.and_then(|strategy| strategy.r#type.as_deref()) != Some("OnDelete") {
            return Some(missing);
        }
        let message = format!(
            "{}; the strategy is OnDelete: a pod is updated when somebody deletes it",
            missing.message
        );
        Some(Opinion { message, ..missing })
    };
    let missing = fewer(
        "LessCurrent",
        "Current",
        status.current_number_scheduled,
        wanted,
    )
    .or_else(updated)
    .or_else(|| {
        fewer(
            "LessAvailable",
            "Available",
            status.number_available,
            wanted,
        )
    })
    .or_else(|| fewer("LessReady", "Ready", status.number_ready, wanted));
    missing.map_or_else(
        || {
            Ok(Opinion::ready(
                "Available",
                some_of("Ready", wanted, wanted),
            ))
        },
        Err,
    )
}
