//! Pods, and why one is not ready: which container, and what is the matter with it.

use serde::Deserialize;

use super::super::opinion::{Condition, Facts, Opinion, fields};
use crate::{object::Object, readiness::State};

#[derive(Default, Deserialize)]
struct Pod {
    #[serde(default)]
    spec: Option<Spec>,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    readiness_gates: Option<Vec<Gate>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Gate {
    condition_type: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    reason: Option<String>,
    message: Option<String>,
    init_container_statuses: Option<Vec<Container>>,
    container_statuses: Option<Vec<Container>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: String,
    #[serde(default)]
    ready: bool,
    #[serde(default)]
    restart_count: i64,
    state: Option<ContainerState>,
    last_state: Option<ContainerState>,
}

#[derive(Deserialize)]
struct ContainerState {
    waiting: Option<Stopped>,
    terminated: Option<Stopped>,
    running: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stopped {
    reason: Option<String>,
    message: Option<String>,
    exit_code: Option<i64>,
}

/// Waits that every container goes through.
const USUAL: [&str; 2] = ["ContainerCreating", "PodInitializing"];

pub(super) fn decide(facts: &Facts, object: &Object) -> Result<Opinion, Opinion> {
    let pod: Pod = fields(object)?;
    let status = pod.status.unwrap_or_default();
    let told = |reason: &str, fallback: &str| {
        let own = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let reason = own(&status.reason).unwrap_or_else(|| reason.to_owned());
        Opinion::not_ready(
            reason,
            own(&status.message).unwrap_or_else(|| fallback.to_owned()),
        )
    };
    match status.phase.as_deref() {
        Some("Succeeded") => {
            return Ok(Opinion::ready("Succeeded", "it has run to its end"));
        }
        Some("Failed") => {
            let failed = told("Failed", "it has run to its end, and failed");
            return Err(match trouble(&status) {
                Some(trouble) if status.message.is_none() => Opinion {
                    message: trouble.message,
                    ..failed
                },
                _ => failed,
            });
        }
        Some("Pending" | "Running") => {}
        Some("Unknown") => {
            let message = "its node has not been heard of";
            return Err(Opinion::unknown("PhaseUnknown", message));
        }
        None | Some("") => return Err(told("NotObserved", "it has no phase yet")),
        Some(other) => {
            let message = format!("its phase {other:?} is not known here");
            return Err(Opinion::unknown("UnknownPhase", message));
        }
    }
    let running = status.phase.as_deref() == Some("Running");
    let ready = facts.condition("Ready");
    if running
        && let Some(ready) = ready.filter(|ready| ready.is_true() && !facts.is_outdated(ready))
    {
        return Ok(Opinion {
            reason: "Ready".into(),
            ..Opinion::of(State::Ready, ready)
        });
    }
    if let Some(scheduled) = facts.condition("PodScheduled").filter(|one| one.is_false()) {
        return Err(Opinion::of(State::NotReady, scheduled));
    }
    if let Some(trouble) = trouble(&status) {
        return Err(trouble);
    }
    let gates = pod
        .spec
        .unwrap_or_default()
        .readiness_gates
        .unwrap_or_default();
    if let Some(gate) = facts
        .condition("ContainersReady")
        .filter(|containers| containers.is_true())
        .and_then(|_| closed_gate(facts, &gates))
    {
        return Err(gate);
    }
    Err(match ready {
        _ if !running => told("Pending", "it is not running yet"),
        Some(ready) => Opinion::of(State::NotReady, ready),
        None => told("NotReady", "it is running but not ready"),
    })
}

/// What the pod's containers suffer from: the worst of it, and where.
fn trouble(status: &Status) -> Option<Opinion> {
    let init = status.init_container_statuses.iter().flatten();
    let main = status.container_statuses.iter().flatten();
    let troubles = init
        .map(|container| ("init container", container, true))
        .chain(main.map(|container| ("container", container, false)))
        .filter_map(|(what, container, init)| suffers(what, container, init));
    // The first of the worst: an init container holds up those behind it.
    troubles
        .reduce(|worst, next| if next.0 > worst.0 { next } else { worst })
        .map(|(_, opinion)| opinion)
}

/// How bad it is, and what.
fn suffers(what: &str, container: &Container, init: bool) -> Option<(u8, Opinion)> {
    let name = &container.name;
    let state = container.state.as_ref();
    let before = container
        .last_state
        .as_ref()
        .and_then(|last| last.terminated.as_ref());
    let restarts = match container.restart_count {
        0 => String::new(),
        restarts => format!(", {restarts} restarts"),
    };
    if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
        let reason = waiting
            .reason
            .clone()
            .unwrap_or_else(|| "Waiting".to_owned());
        let usual = USUAL.contains(&reason.as_str());
        let why = match (&waiting.message, before) {
            (_, Some(before)) => format!(": {}{restarts}", exit(before)),
            (Some(message), None) if !message.is_empty() => format!(": {message}"),
            _ => String::new(),
        };
        let message = format!("{what} {name}: {reason}{why}");
        return Some((
            if usual { 1 } else { 3 },
            Opinion::not_ready(reason, message),
        ));
    }
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        if ended.exit_code == Some(0) {
            return (!init && !container.ready).then(|| {
                let message = format!("{what} {name} has ended{restarts}");
                (1, Opinion::not_ready("ContainerEnded", message))
            });
        }
        let reason = ended.reason.clone().unwrap_or_else(|| "Error".to_owned());
        let message = format!("{what} {name}: {}{restarts}", exit(ended));
        return Some((3, Opinion::not_ready(reason, message)));
    }
    let runs = state.is_some_and(|state| state.running.is_some());
    (runs && !container.ready && !init).then(|| {
        let message = match before {
            Some(before) => format!(
                "{what} {name} runs but is not ready; before: {}{restarts}",
                exit(before)
            ),
            None => format!("{what} {name} runs but is not ready"),
        };
        (2, Opinion::not_ready("ContainersNotReady", message))
    })
}

fn exit(ended: &Stopped) -> String {
    let reason = ended.reason.as_deref().unwrap_or("Error");
    match ended.exit_code {
        Some(code) => format!("{reason} (exit code {code})"),
        None => reason.to_owned(),
    }
}

/// The first readiness gate that holds the pod back.
fn closed_gate(facts: &Facts, gates: &[Gate]) -> Option<Opinion> {
    gates.iter().find_map(|gate| {
        let name = &gate.condition_type;
        match facts.condition(name) {
            Some(condition) if condition.is_true() => None,
            found => {
                let why = found
                    .and_then(|condition| condition.message.as_deref())
                    .filter(|message| !message.is_empty())
                    .map_or_else(String::new, |message| format!(": {message}"));
                let message =
                    format!("the containers are ready, readiness gate {name} is not{why}");
                Some(Opinion::not_ready("ReadinessGatesNotReady", message))
            }
        }
    })
}

/// Of a pod's conditions those that somebody waits for: the readiness gates, and what is before them.
pub(super) fn is_shown(condition: &Condition) -> bool {
    const OTHERS: [&str; 6] = [
        "Ready",
        "Initialized",
        "PodScheduled",
        "PodReadyToStartContainers",
        "PodHasNetwork",
        "DisruptionTarget",
    ];
    !OTHERS.contains(&condition.name.as_str())
}
