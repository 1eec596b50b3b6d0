//! Kinds that say it in one field, or in a condition of their own: Job, PersistentVolumeClaim,
//! PersistentVolume, PodDisruptionBudget, HorizontalPodAutoscaler, Namespace, CustomResourceDefinition, APIService.

use serde::Deserialize;

use super::super::opinion::{Facts, Opinion, fields, some_of};
use crate::{object::Object, readiness::State};

#[derive(Default, Deserialize)]
struct Job {
    #[serde(default)]
    spec: Option<JobSpec>,
    #[serde(default)]
    status: Option<JobStatus>,
}

#[derive(Default, Deserialize)]
struct JobSpec {
    parallelism: Option<i64>,
    completions: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JobStatus {
    start_time: Option<String>,
    active: Option<i64>,
    ready: Option<i64>,
    succeeded: Option<i64>,
    failed: Option<i64>,
}

/// One that runs is Ready: whether it has done its work is its condition Complete.
pub(super) fn job(facts: &Facts, object: &Object) -> Result<Opinion, Opinion> {
    let job: Job = fields(object)?;
    let spec = job.spec.unwrap_or_default();
    let status = job.status.unwrap_or_default();
    let wanted = spec.completions.unwrap_or(spec.parallelism.unwrap_or(1));
    let (active, succeeded, failed) = (
        status.active.unwrap_or_default(),
        status.succeeded.unwrap_or_default(),
        status.failed.unwrap_or_default(),
    );
    let holds = |name: &str| facts.condition(name).filter(|one| one.is_true());
    if let Some(failed) = holds("Failed").or_else(|| holds("FailureTarget")) {
        let why = Opinion::of(State::NotReady, failed);
        let reason = if why.reason == "NotFailed" || why.reason == "NotFailureTarget" {
            "Failed".into()
        } else {
            why.reason
        };
        return Err(Opinion { reason, ..why });
    }
    if holds("Complete")
        .or_else(|| holds("SuccessCriteriaMet"))
        .is_some()
    {
        let message = some_of("Succeeded", succeeded, wanted);
        return Ok(Opinion::ready("Complete", message));
    }
    if holds("Suspended").is_some() {
        return Err(Opinion::not_ready("Suspended", "it is suspended"));
    }
    if status.start_time.is_none() {
        return Err(Opinion::not_ready(
            "NotStarted",
            "it has not been started yet",
        ));
    }
    let message = format!("Succeeded: {succeeded}/{wanted}, active: {active}, failed: {failed}");
    if failed > 0 && succeeded < wanted && status.ready.unwrap_or(active) == 0 {
        return Err(Opinion::not_ready("Retrying", message));
    }
    Ok(Opinion::ready("Running", message))
}

#[derive(Default, Deserialize)]
struct Phased {
    #[serde(default)]
    status: Option<Phase>,
}

#[derive(Default, Deserialize)]
struct Phase {
    phase: Option<String>,
}

fn phase(object: &Object) -> Result<String, Opinion> {
    let phased: Phased = fields(object)?;
    Ok(phased
        .status
        .and_then(|status| status.phase)
        .unwrap_or_default())
}

pub(super) fn volume_claim(facts: &Facts, object: &Object) -> Result<Opinion, Opinion> {
    match phase(object)?.as_str() {
        "Bound" => Ok(Opinion::ready("Bound", "")),
        "Lost" => Err(Opinion::not_ready(
            "Lost",
            "the volume that it was bound to is gone",
        )),
        "" => Err(Opinion::not_ready("NotObserved", "it has no phase yet")),
        "Pending" => {
            // A claim has no word on why; its conditions are about resizing.
            let about = facts.conditions.iter().find(|one| one.is_true());
            let message = about
                .and_then(|condition| condition.message.clone())
                .unwrap_or_else(|| "no volume is bound to it; see its events".to_owned());
            Err(Opinion::not_ready("Pending", message))
        }
        other => Err(Opinion::unknown(
            "UnknownPhase",
            format!("its phase {other:?} is not known here"),
        )),
    }
}

pub(super) fn volume(object: &Object) -> Result<Opinion, Opinion> {
    match phase(object)?.as_str() {
        good @ ("Available" | "Bound") => Ok(Opinion::ready(good.to_owned(), "")),
        "" => Err(Opinion::not_ready("NotObserved", "it has no phase yet")),
        other => Err(Opinion::not_ready(other.to_owned(), "")),
    }
}

pub(super) fn namespace(facts: &Facts, object: &Object) -> Result<Opinion, Opinion> {
    match phase(object)?.as_str() {
        "Active" => Ok(Opinion::ready("Active", "")),
        "Terminating" => {
            let left = facts.conditions.iter().filter(|one| one.is_true());
            let left: Vec<_> = left.filter_map(|one| one.message.as_deref()).collect();
            Err(Opinion::not_ready("Terminating", left.join("; ")))
        }
        "" => Err(Opinion::not_ready("NotObserved", "it has no phase yet")),
        other => Err(Opinion::unknown(
            "UnknownPhase",
            format!("its phase {other:?} is not known here"),
        )),
    }
}

#[derive(Default, Deserialize)]
struct Budget {
    #[serde(default)]
    status: Option<BudgetStatus>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BudgetStatus {
    disruptions_allowed: Option<i64>,
    current_healthy: Option<i64>,
    desired_healthy: Option<i64>,
    expected_pods: Option<i64>,
}

/// A budget's verdict, and whether a pod of it may go.
pub(super) fn budget(facts: &Facts, object: &Object) -> (Result<Opinion, Opinion>, Opinion) {
    let read = facts.observed().and_then(|()| fields::<Budget>(object));
    let status = match read {
        Ok(budget) => budget.status.unwrap_or_default(),
        Err(opinion) => return (Err(opinion.clone()), opinion),
    };
    let healthy = status.current_healthy.unwrap_or_default();
    let wanted = status.desired_healthy.unwrap_or_default();
    let message = some_of("Healthy", healthy, wanted);
    if let Some(failed) = facts
        .condition("DisruptionAllowed")
        .filter(|one| one.reason.as_deref() == Some("SyncFailed"))
    {
        let failed = Opinion::of(State::NotReady, failed);
        return (Err(failed.clone()), failed);
    }
    let allowed = status.disruptions_allowed.unwrap_or_default();
    let safe = match allowed {
        1.. => Opinion::ready("SufficientPods", format!("{allowed} pods may be disrupted")),
        _ => Opinion::not_ready("InsufficientPods", message.clone()),
    };
    let verdict = if healthy < wanted {
        Err(Opinion::not_ready("InsufficientPods", message))
    } else {
        let pods = status.expected_pods.unwrap_or_default();
        Ok(Opinion::ready(
            "Computed",
            format!("{message} of {pods} pods"),
        ))
    };
    (verdict, safe)
}

pub(super) fn autoscaler(facts: &Facts) -> Result<Opinion, Opinion> {
    for name in ["AbleToScale", "ScalingActive"] {
        match facts.condition(name) {
            Some(condition) if condition.is_true() => {}
            Some(condition) => return Err(Opinion::of(condition.state(), condition)),
            None => {
                let message = format!("it has no condition {name} yet");
                return Err(Opinion::not_ready("NotObserved", message));
            }
        }
    }
    let limited = facts
        .condition("ScalingLimited")
        .filter(|one| one.is_true());
    let message = limited
        .and_then(|one| one.message.clone())
        .unwrap_or_default();
    Ok(Opinion::ready("ScalingActive", message))
}

pub(super) fn definition(facts: &Facts) -> Result<Opinion, Opinion> {
    let refused = |name: &str| facts.condition(name).filter(|one| one.is_false());
    if let Some(refused) = refused("NamesAccepted") {
        return Err(Opinion::of(State::NotReady, refused));
    }
    by_condition(facts, "Established")
}

pub(super) fn api_service(facts: &Facts) -> Result<Opinion, Opinion> {
    by_condition(facts, "Available")
}

fn by_condition(facts: &Facts, name: &str) -> Result<Opinion, Opinion> {
    match facts.condition(name) {
        Some(condition) if condition.is_true() => Ok(Opinion::of(State::Ready, condition)),
        Some(condition) => Err(Opinion::of(condition.state(), condition)),
        None => {
            let message = format!("it has no condition {name} yet");
            Err(Opinion::not_ready("NotObserved", message))
        }
    }
}
