//! The shapes of verdicts: what a controller finds, and what the board makes of it.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use crate::{
    cache::Item,
    object::{Key, Labels},
};

/// So many parts are named; the others are only counted.
pub const MAX_PARTS: usize = 100;

/// Whether a target can be counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It does what it is there for, as of its latest generation.
    Ready,
    /// It does not, or not yet.
    NotReady,
    /// Nothing recent supports an answer.
    Unknown,
    /// It does not exist.
    Gone,
}

impl State {
    /// As in metrics, logs and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::NotReady => "not_ready",
            Self::Unknown => "unknown",
            Self::Gone => "gone",
        }
    }
}

/// What a verdict is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The kind's full name, `deployments.apps`.
    pub resource: Arc<str>,
    /// Namespace and name.
    pub key: Key,
}

/// When answers were taken: the first was asked for at `from`, the last was there at `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its beginning.
    pub from: Instant,
    /// Its end.
    pub to: Instant,
}

/// What an answer rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The object in the cache, as of its version, judged at this time. Stands until the object changes, or its
    /// kind falls out of date.
    Object(Instant),
    /// What was asked for in this window. Nothing is known any more from `expires` on.
    Probes {
        /// When it was asked.
        window: Window,
        /// Until when the answer counts.
        expires: Instant,
    },
}

impl Basis {
    /// When the evidence was gathered.
    pub fn window(&self) -> Window {
        match *self {
            Self::Object(at) => Window { from: at, to: at },
            Self::Probes { window, .. } => window,
        }
    }

    /// Until when it counts, where that is known.
    pub fn expires(&self) -> Option<Instant> {
        match *self {
            Self::Object(_) => None,
            Self::Probes { expires, .. } => Some(expires),
        }
    }

    /// Whether the evidence says the same as `other`: that an object was judged once more says nothing new.
    fn says_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Object(_), Self::Object(_)) => true,
            _ => self == other,
        }
    }
}

/// The answer to one question about a target. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Answer {
    /// See [`State`].
    pub state: State,
    /// Why, in one word.
    pub reason: Arc<str>,
    /// The same for a person; may be empty.
    pub message: Arc<str>,
    /// What else is known: a JSON object, or empty.
    pub details: Bytes,
    /// What it rests on.
    pub basis: Basis,
}

impl Answer {
    /// Without details.
    pub fn new(
        state: State,
        reason: impl Into<Arc<str>>,
        message: impl Into<Arc<str>>,
        basis: Basis,
    ) -> Self {
        Self {
            state,
            reason: reason.into(),
            message: message.into(),
            details: Bytes::new(),
            basis,
        }
    }

    /// The same with details: a JSON object.
    #[must_use]
    pub fn with_details(self, details: Bytes) -> Self {
        Self { details, ..self }
    }

    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        self.state == other.state
            && self.reason == other.reason
            && self.message == other.message
            && self.details == other.details
            && self.basis.says_the_same(&other.basis)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.reason.len() + self.message.len() + self.details.len()
    }
}

/// Something that a target is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub target: Target,
    /// Its uid; may be empty.
    pub uid: Box<str>,
    /// Whether it can be counted on.
    pub state: State,
    /// Why, in one word.
    pub reason: Arc<str>,
    /// The same for a person; may be empty.
    pub message: Arc<str>,
}

/// What a target is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Those that are not ready first; at most [`MAX_PARTS`].
    pub named: Box<[Part]>,
    /// How many there are.
    pub total: u32,
    /// How many of them are ready.
    pub ready: u32,
}

impl FromIterator<Part> for Parts {
    fn from_iter<I: IntoIterator<Item = Part>>(parts: I) -> Self {
        let mut parts: Vec<Part> = parts.into_iter().collect();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let is_ready = |part: &Part| part.state == State::Ready;
        let (total, ready) = (
            count(parts.len()),
            count(parts.iter().filter(|part| is_ready(part)).count()),
        );
        parts.sort_by(|a, b| (is_ready(a), &a.target).cmp(&(is_ready(b), &b.target)));
        parts.truncate(MAX_PARTS);
        Self {
            named: parts.into(),
            total,
            ready,
        }
    }
}

/// What a controller has found out about a target.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The kind's full name.
    pub resource: Arc<str>,
    /// Of the object that was judged.
    pub uid: Box<str>,
    /// See `uid`.
    pub resource_version: Box<str>,
    /// Its `metadata.generation`.
    pub generation: Option<i64>,
    /// The generation that its own controller has acted on.
    pub observed_generation: Option<i64>,
    /// Its labels, for selectors.
    pub labels: Labels,
    /// Whether it can be counted on.
    pub answer: Answer,
    /// Further questions, by name.
    pub conditions: Vec<(Arc<str>, Answer)>,
    /// What it is made of.
    pub parts: Parts,
}

impl Finding {
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        self.resource == other.resource
            && self.uid == other.uid
            && self.resource_version == other.resource_version
            && self.generation == other.generation
            && self.observed_generation == other.observed_generation
            && self.labels == other.labels
            && self.parts == other.parts
    }
}

/// An answer, and since when it is that.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The answer.
    pub answer: Answer,
    /// When its state became what it is, as far as this process has seen.
    pub since: Instant,
    /// Of the object that it is about, where that is not the one in [`Verdict::finding`].
    pub version: Option<Box<str>>,
}

/// The answer to a further question about a target.
#[derive(Clone, Debug)]
pub struct Condition {
    /// `Available`, `SafeToDisrupt`, ...
    pub name: Arc<str>,
    /// Its answer.
    pub standing: Standing,
}

/// What is to be thought of a target, as the board shows it.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub(super) key: Key,
    /// The revision in decimal: what changes whenever the verdict does.
    pub(super) version: Box<str>,
    /// Of the board's shard, when this was published.
    pub revision: u64,
    /// The revision at which this began to look as it does to somebody who only wants to hear of transitions:
    /// same uid, same labels, same states.
    pub transition: u64,
    /// Who was judged, and what it is made of. Its answers are what was found: those that count are below.
    pub finding: Arc<Finding>,
    /// Whether the target can be counted on.
    pub standing: Standing,
    /// Further questions, in the order of their names.
    pub conditions: Box<[Condition]>,
}

impl Verdict {
    /// See [`Target`].
    pub fn target(&self) -> Target {
        Target {
            resource: self.finding.resource.clone(),
            key: self.key.clone(),
        }
    }

    /// The answer of the condition of this name.
    pub fn condition(&self, name: &str) -> Option<&Standing> {
        let found = self.conditions.iter().find(|one| *one.name == *name)?;
        Some(&found.standing)
    }

    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        self.finding.says_the_same(&other.finding)
            && self.standing.answer.says_the_same(&other.standing.answer)
            && self.conditions.len() == other.conditions.len()
            && self.conditions.iter().zip(&other.conditions).all(|(a, b)| {
                a.name == b.name
                    && a.standing.version == b.standing.version
                    && a.standing.answer.says_the_same(&b.standing.answer)
            })
    }

    /// Whether the way from `other` to this is a transition; see `transition`.
    pub(super) fn is_transition_from(&self, other: &Self) -> bool {
        let states = |verdict: &Self| {
            let conditions = verdict.conditions.iter();
            let states = conditions.map(|one| (one.name.clone(), one.standing.answer.state));
            (verdict.standing.answer.state, states.collect::<Vec<_>>())
        };
        self.finding.uid != other.finding.uid
            || self.finding.labels != other.finding.labels
            || states(self) != states(other)
    }
}

impl Item for Verdict {
    fn key(&self) -> &Key {
        &self.key
    }

    fn uid(&self) -> &str {
        &self.finding.uid
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn size(&self) -> usize {
        let parts = self.finding.parts.named.iter();
        let parts: usize = parts
            .map(|part| size_of::<Part>() + part.target.key.as_str().len() + part.message.len())
            .sum();
        let conditions = self.conditions.iter();
        let conditions: usize = conditions.map(|one| one.standing.answer.size() + 32).sum();
        // The constant is the finding's: identity and labels.
        size_of::<Self>() + self.standing.answer.size() + conditions + parts + 512
    }

    fn is_stale(&self) -> bool {
        false
    }

    /// Verdicts are never stale: they become Unknown instead.
    fn to_stale(&self) -> Self {
        self.clone()
    }
}
