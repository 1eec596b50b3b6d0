//! Verdicts as the proto has them.

use std::time::Instant;

use super::Case;
use crate::{
    cache::Phase,
    object::Key,
    proto,
    readiness::{Board, Part, Standing, State, Target, Verdict},
};

/// A verdict.
pub(super) fn verdict(verdict: &Verdict, board: &Board) -> proto::Verdict {
    let finding = &verdict.finding;
    let Standing { answer, since, .. } = &verdict.standing;
    let conditions = verdict.conditions.iter().map(|condition| {
        let Standing { answer, since, .. } = &condition.standing;
        proto::ReadinessCondition {
            name: condition.name.to_string(),
            state: state(answer.state).into(),
            reason: answer.reason.to_string(),
            message: answer.message.to_string(),
            details: answer.details.clone(),
            evidence: Some(evidence(&condition.standing, board)),
            since: Some(board.wall(*since).into()),
            expires: expires(&condition.standing, board),
        }
    });
    proto::Verdict {
        target: Some(target(&verdict.target())),
        state: state(answer.state).into(),
        reason: answer.reason.to_string(),
        message: answer.message.to_string(),
        details: answer.details.clone(),
        generation: finding.generation.unwrap_or_default(),
        observed_generation: finding.observed_generation.unwrap_or_default(),
        uid: finding.uid.to_string(),
        resource_version: finding.resource_version.to_string(),
        evidence: Some(evidence(&verdict.standing, board)),
        since: Some(board.wall(*since).into()),
        expires: expires(&verdict.standing, board),
        conditions: conditions.collect(),
        parts: finding.parts.named.iter().map(part).collect(),
        parts_total: finding.parts.total,
        parts_ready: finding.parts.ready,
    }
}

/// Of a target that nobody has judged although all of its kind are: it does not exist, as far as the kind is known.
pub(super) fn absent(case: &Case, key: &Key) -> proto::Verdict {
    let status = case.judged.shard().status();
    let (state, reason, message) = match status.phase {
        Phase::Live => (
            proto::ReadinessState::Gone,
            "NotFound".to_owned(),
            "it does not exist".to_owned(),
        ),
        _ => (
            proto::ReadinessState::Unknown,
            status.reason.clone(),
            status.message.clone(),
        ),
    };
    proto::Verdict {
        target: Some(proto::Target {
            resource: case.resource(),
            namespace: key.namespace().to_owned(),
            name: key.name().to_owned(),
        }),
        state: state.into(),
        reason,
        message,
        ..Default::default()
    }
}

fn evidence(standing: &Standing, board: &Board) -> proto::EvidenceWindow {
    let window = standing.answer.basis.window();
    let wall = |at: Instant| Some(board.wall(at).into());
    proto::EvidenceWindow {
        from: wall(window.from),
        to: wall(window.to),
    }
}

fn expires(standing: &Standing, board: &Board) -> Option<prost_types::Timestamp> {
    let expires = standing.answer.basis.expires()?;
    Some(board.wall(expires).into())
}

fn part(part: &Part) -> proto::ReadinessPart {
    proto::ReadinessPart {
        target: Some(target(&part.target)),
        uid: part.uid.to_string(),
        state: state(part.state).into(),
        reason: part.reason.to_string(),
        message: part.message.to_string(),
    }
}

pub(super) fn target(target: &Target) -> proto::Target {
    proto::Target {
        resource: target.resource.to_string(),
        namespace: target.key.namespace().to_owned(),
        name: target.key.name().to_owned(),
    }
}

pub(super) fn state(state: State) -> proto::ReadinessState {
    match state {
        State::Ready => proto::ReadinessState::Ready,
        State::NotReady => proto::ReadinessState::NotReady,
        State::Unknown => proto::ReadinessState::Unknown,
        State::Gone => proto::ReadinessState::Gone,
    }
}
