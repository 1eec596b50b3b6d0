//! Verdicts as scripts read them: the shape of `informerd ready -o json` and `-o yaml`, which docs/readiness.md
//! describes.
//!
//! A shape of its own instead of protobuf's JSON, in which bytes are base64 and enums shout.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{Error, judged, time};
use crate::proto::{self, EvidenceWindow, ReadinessCondition, ReadinessPart};

/// What `ready` prints where not just one target was asked for.
#[derive(Serialize)]
pub(super) struct Verdicts<'a> {
    pub items: Vec<Verdict<'a>>,
}

/// A verdict. What there is none of is left out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Verdict<'a> {
    target: Target<'a>,
    state: &'static str,
    reason: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Value>,
    #[serde(skip_serializing_if = "is_zero")]
    generation: i64,
    #[serde(skip_serializing_if = "is_zero")]
    observed_generation: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    resource_version: &'a str,
    #[serde(flatten)]
    times: Times,
    conditions: Vec<Condition<'a>>,
    parts: Vec<Part<'a>>,
    parts_total: u32,
    parts_ready: u32,
}

#[derive(Serialize)]
struct Target<'a> {
    resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
struct Condition<'a> {
    name: &'a str,
    state: &'static str,
    reason: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Value>,
    #[serde(flatten)]
    times: Times,
}

#[derive(Serialize)]
struct Part<'a> {
    target: Target<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    state: &'static str,
    reason: &'a str,
    message: &'a str,
}

#[derive(Serialize)]
struct Times {
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<Evidence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

#[derive(Serialize)]
struct Evidence {
    from: String,
    to: String,
}

impl<'a> Verdict<'a> {
    /// # Errors
    /// [`Error::Object`] where the details are no JSON.
    pub(super) fn of(verdict: &'a proto::Verdict) -> Result<Self, Error> {
        let target = Target::of(&verdict.target);
        let conditions = verdict.conditions.iter().map(|condition| {
            let ReadinessCondition {
                evidence,
                since,
                expires,
                ..
            } = condition;
            Ok(Condition {
                name: &condition.name,
                state: judged::state(condition.state()),
                reason: &condition.reason,
                message: &condition.message,
                details: details(&condition.details, &target)?,
                times: Times::of(evidence, since, expires),
            })
        });
        Ok(Self {
            state: judged::state(verdict.state()),
            reason: &verdict.reason,
            message: &verdict.message,
            details: details(&verdict.details, &target)?,
            generation: verdict.generation,
            observed_generation: verdict.observed_generation,
            uid: &verdict.uid,
            resource_version: &verdict.resource_version,
            times: Times::of(&verdict.evidence, &verdict.since, &verdict.expires),
            conditions: conditions.collect::<Result<_, Error>>()?,
            parts: verdict.parts.iter().map(Part::of).collect(),
            parts_total: verdict.parts_total,
            parts_ready: verdict.parts_ready,
            target,
        })
    }
}

impl<'a> Part<'a> {
    fn of(part: &'a ReadinessPart) -> Self {
        Self {
            target: Target::of(&part.target),
            uid: &part.uid,
            state: judged::state(part.state()),
            reason: &part.reason,
            message: &part.message,
        }
    }
}

impl<'a> Target<'a> {
    fn of(target: &'a Option<proto::Target>) -> Self {
        let text = |field: fn(&proto::Target) -> &str| target.as_ref().map_or("", field);
        Self {
            resource: text(|target| &target.resource),
            namespace: text(|target| &target.namespace),
            name: text(|target| &target.name),
        }
    }
}

impl Times {
    fn of(
        evidence: &Option<EvidenceWindow>,
        since: &Option<prost_types::Timestamp>,
        expires: &Option<prost_types::Timestamp>,
    ) -> Self {
        let text = |at| time::timestamp(at).map(|at: Timestamp| at.to_string());
        let evidence = evidence.as_ref().and_then(|window| {
            Some(Evidence {
                from: text(&window.from)?,
                to: text(&window.to)?,
            })
        });
        Self {
            evidence,
            since: text(since),
            expires: text(expires),
        }
    }
}

fn details(json: &[u8], target: &Target<'_>) -> Result<Option<Value>, Error> {
    if json.is_empty() {
        return Ok(None);
    }
    let details = serde_json::from_slice(json);
    details.map(Some).map_err(|why| Error::Object {
        name: format!("{}/{}", target.resource, target.name),
        why: format!("its details: {why}"),
    })
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}
