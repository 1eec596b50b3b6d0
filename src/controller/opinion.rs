//! What the deciding functions of controllers share: facts that every kind has, and the opinion that they come to.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    object::Object,
    readiness::{Answer, Basis, Finding, Parts, State},
};

/// What is to be thought of an object, without the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// Whether it can be counted on.
    pub state: State,
    /// Why, in one word.
    pub reason: Cow<'static, str>,
    /// The same for a person; may be empty.
    pub message: String,
}

/// How good the facts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// As the API server has them.
    Current,
    /// A newer version exists that could not be decoded.
    Stale,
    /// The fields were not as they should be.
    Undecodable(String),
}

/// What can be said of any object.
#[derive(Clone, Debug)]
pub struct Facts {
    /// How good the rest is.
    pub evidence: Evidence,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// `status.observedGeneration`.
    pub observed_generation: Option<i64>,
    /// It has a `metadata.deletionTimestamp`.
    pub deleting: bool,
    /// Whether there is a status that says anything.
    pub has_status: bool,
    /// `status.conditions`.
    pub conditions: Vec<Condition>,
}

/// One of an object's conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Ready`, `Available`, ...
    #[serde(rename = "type")]
    pub name: String,
    /// `True`, `False` or `Unknown`.
    #[serde(default)]
    pub status: String,
    /// One word.
    #[serde(default)]
    pub reason: Option<String>,
    /// The same for a person.
    #[serde(default)]
    pub message: Option<String>,
    /// The generation that it is about, where it says so.
    #[serde(default)]
    pub observed_generation: Option<i64>,
}

impl Opinion {
    /// It can be counted on.
    pub fn ready(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(State::Ready, reason, message)
    }

    /// It cannot, or not yet.
    pub fn not_ready(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(State::NotReady, reason, message)
    }

    /// Nobody knows.
    pub fn unknown(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(State::Unknown, reason, message)
    }

    fn new(state: State, reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            state,
            reason: reason.into(),
            message: message.into(),
        }
    }

    /// What a condition says, in its own words where it has any.
    pub fn of(state: State, condition: &Condition) -> Self {
        let reason = condition.reason.as_deref().unwrap_or_default();
        let reason = match (reason, state) {
            ("", State::Ready) => condition.name.clone(),
            ("", _) => format!("Not{}", condition.name),
            (reason, _) => reason.to_owned(),
        };
        Self::new(state, reason, condition.message.clone().unwrap_or_default())
    }

    /// With the evidence.
    pub fn answer(self, basis: Basis) -> Answer {
        Answer::new(self.state, &*self.reason, self.message, basis)
    }
}

impl Condition {
    /// Whether its status is `True`.
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }

    /// Whether its status is `False`.
    pub fn is_false(&self) -> bool {
        self.status == "False"
    }

    /// Ready where it holds, NotReady where it does not, else Unknown.
    pub fn state(&self) -> State {
        match self.status.as_str() {
            "True" => State::Ready,
            "False" => State::NotReady,
            _ => State::Unknown,
        }
    }
}

#[derive(Default, Deserialize)]
struct Common<'a> {
    #[serde(default, borrow)]
    status: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    observed_generation: Option<i64>,
    #[serde(default)]
    conditions: Option<Vec<Condition>>,
}

impl Facts {
    /// Reads what there is of them.
    pub fn read(object: &Object) -> Self {
        let read = || {
            let common: Common<'_> = serde_json::from_slice(&object.json)?;
            let Some(text) = common.status.map(RawValue::get) else {
                return Ok((Status::default(), false));
            };
            let status: Option<Status> = serde_json::from_str(text)?;
            Ok((status.unwrap_or_default(), text != "{}" && text != "null"))
        };
        let read: Result<(Status, bool), serde_json::Error> = read();
        let ((status, has_status), evidence) = match read {
            Err(error) => {
                let why = format!("cannot read its status: {error}");
                (Default::default(), Evidence::Undecodable(why))
            }
            Ok(read) if object.stale => (read, Evidence::Stale),
            Ok(read) => (read, Evidence::Current),
        };
        Self {
            evidence,
            generation: object.generation,
            observed_generation: status.observed_generation,
            deleting: object.deletion_timestamp.is_some(),
            has_status,
            conditions: status.conditions.unwrap_or_default(),
        }
    }

    /// The condition of this name.
    pub fn condition(&self, name: &str) -> Option<&Condition> {
        self.conditions
            .iter()
            .find(|condition| condition.name == name)
    }

    /// Whether a condition is known to be about an earlier generation.
    pub fn is_outdated(&self, condition: &Condition) -> bool {
        let of = condition.observed_generation.or(self.observed_generation);
        matches!((self.generation, of), (Some(generation), Some(of)) if of != generation)
    }

    /// What can be said without knowing the kind, if that settles it: facts that are no good, an object on its
    /// way out, a generation that was not acted on, and the conditions that mean the same in every kind.
    pub fn settle(&self) -> Option<Opinion> {
        match &self.evidence {
            Evidence::Current => {}
            Evidence::Stale => {
                let message = "a newer version could not be decoded";
                return Some(Opinion::unknown("Stale", message));
            }
            Evidence::Undecodable(why) => {
                return Some(Opinion::unknown("Undecodable", why.clone()));
            }
        }
        if self.deleting {
            return Some(Opinion::not_ready("Terminating", "it is being deleted"));
        }
        if let (Some(generation), Some(observed)) = (self.generation, self.observed_generation)
            && generation != observed
        {
            let message = format!(
                "generation {generation} has not been acted on; the last one that was is {observed}"
            );
            return Some(Opinion::not_ready("OldGeneration", message));
        }
        ["Stalled", "Reconciling"]
            .iter()
            .filter_map(|name| self.condition(name))
            .find(|condition| condition.is_true())
            .map(|condition| {
                let opinion = Opinion::of(State::NotReady, condition);
                match condition.reason.as_deref() {
                    None | Some("") => Opinion {
                        reason: condition.name.clone().into(),
                        ..opinion
                    },
                    Some(_) => opinion,
                }
            })
    }

    /// Of a kind whose controller always says which generation it has acted on: what to think where it has not, or
    /// where there is none to compare with.
    pub fn observed(&self) -> Result<(), Opinion> {
        match (self.generation, self.observed_generation) {
            (Some(_), Some(_)) => Ok(()),
            _ => Err(Opinion::not_ready(
                "NotObserved",
                "its controller has not acted on it yet",
            )),
        }
    }
}

/// A finding about an object, without conditions and parts.
pub fn finding(resource: Arc<str>, object: &Object, answer: Answer) -> Finding {
    Finding {
        resource,
        uid: object.uid.clone(),
        resource_version: object.resource_version.clone(),
        generation: object.generation,
        observed_generation: None,
        labels: object.labels.clone(),
        answer,
        conditions: Vec::new(),
        parts: Parts::default(),
    }
}

/// The fields of one kind. An error is an opinion too.
pub fn fields<T: DeserializeOwned>(object: &Object) -> Result<T, Opinion> {
    serde_json::from_slice(&object.json)
        .map_err(|error| Opinion::unknown("Undecodable", error.to_string()))
}

/// `Available: 1/3`.
pub fn some_of(what: &str, there: i64, wanted: i64) -> String {
    format!("{what}: {there}/{wanted}")
}
