//! The guarantees of the API, each as a function that looks at what a consumer received and says where it is broken.
//!
//! | guarantee | what it says of a recorded stream |
//! |---|---|
//! | [`ordered`] | events come in the order of their revisions, per shard; per object, never back in time |
//! | [`unique`] | between two resets no event that counted comes again, also not on a resumed stream |
//! | [`reliable`] | at each token the consumer holds just what a direct watch says was there; nothing is invented |
//! | [`atomic`] | no token points inside of a reset, a relist's difference or a replacement |
//! | [`resumable`] | a resumed stream goes on from its token, and begins anew only for a reason that was expected |
//! | [`bookmarkable`] | no token is ahead of an event that is still to come |
//!
//! Events count with the next mark that has a token; a consumer that is cut before goes back to what it held at its
//! last one ([`Recording::spans`]). Recordings are made by [`Recorder`] from the raw gRPC stream, since a client that
//! smoothes would hide what is to be found.

// One set for several binaries, none of which uses all of it.
#![allow(
    dead_code,
    unused_imports,
    reason = "each binary uses the part that it needs"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use informerd::proto::{DeleteCause, Event, EventType};

use crate::cluster::Seen;

mod recorder;
mod recording;
mod tests;

pub use recorder::{Dial, Recorder, watch_request};
pub use recording::{Entry, Held, Objects, Positions, Recording, What, digest_of, key, positions};
use recording::{Span, is_retirement, position_of, shard_of};

/// Which events a consumer is interested in, by what a direct watch tells of them.
pub type Interest = fn(&Seen) -> bool;

/// What is true: what a direct watch saw, from a moment on when nothing of it existed.
#[derive(Clone, Debug)]
pub struct Reference {
    seen: Vec<(u64, Seen)>,
    interest: Interest,
    unreadable: Vec<(String, u64, u64)>,
}

impl Reference {
    /// Of what a direct watch recorded, as far as it is in the scope of a stream.
    pub fn new(seen: &[Seen], interest: Interest) -> Self {
        let numbered = |seen: &Seen| Some((seen.resource_version.parse().ok()?, seen.clone()));
        Self {
            seen: seen.iter().filter_map(numbered).collect(),
            interest,
            unreadable: Vec::new(),
        }
    }

    /// The same where some objects, by key, could not be decoded from a revision on up to another one: what is held of
    /// them meanwhile is not compared.
    pub fn with_unreadable(self, unreadable: Vec<(String, u64, u64)>) -> Self {
        Self { unreadable, ..self }
    }

    fn is_unreadable(&self, key: &str, at: u64) -> bool {
        let mut all = self.unreadable.iter();
        all.any(|(of, from, to)| of == key && (*from..*to).contains(&at))
    }

    /// What was there at these positions, by key.
    fn at(&self, positions: &Positions) -> BTreeMap<&str, &Seen> {
        let mut there = BTreeMap::new();
        for (revision, seen) in &self.seen {
            let at = position_of(positions, namespace_of(&seen.key));
            if at.is_none_or(|at| *revision > at) {
                continue;
            }
            if seen.event != "DELETED" && (self.interest)(seen) {
                there.insert(&*seen.key, seen);
            } else {
                there.remove(&*seen.key);
            }
        }
        there
    }
}

/// All six, joined. `resets` are the reasons for which a stream may begin anew beside INITIAL.
pub fn check_all(
    recording: &Recording,
    reference: &Reference,
    resets: &[&str],
) -> Result<(), String> {
    check_without_reference(recording, resets)?;
    reliable(recording, reference)
}

/// The five that need nothing but the recording.
pub fn check_without_reference(recording: &Recording, resets: &[&str]) -> Result<(), String> {
    ordered(recording)?;
    unique(recording)?;
    atomic(recording)?;
    resumable(recording, resets)?;
    bookmarkable(recording)
}

/// Events of a stream come in revision order, per shard; per object, never back in time.
pub fn ordered(recording: &Recording) -> Result<(), String> {
    // Per call and epoch: where each shard is.
    let mut at: BTreeMap<(usize, usize, String), u64> = BTreeMap::new();
    // What counted: the version of each incarnation.
    let mut settled: BTreeMap<(String, String), u64> = BTreeMap::new();
    for span in recording.spans() {
        let to = span.to().unwrap_or_else(|| span.from.clone());
        let mut versions = settled.clone();
        if span.reset.is_some() {
            // A state may be that of another history.
            versions.clear();
        }
        for event in &span.events {
            let shard = shard_of(&to, event).to_owned();
            let last = at.entry((span.call, span.epoch, shard)).or_default();
            ensure(event.revision >= *last, || {
                format!("Ordered: {} after revision {last}", show(event))
            })?;
            if span.is_state(event) {
                ensure(*last == 0 || event.revision == *last, || {
                    format!("Ordered: {} in a state of revision {last}", show(event))
                })?;
            }
            *last = event.revision;
            let Ok(version) = event.resource_version.parse::<u64>() else {
                continue;
            };
            ensure(version <= event.revision, || {
                format!("Ordered: {} is of the future", show(event))
            })?;
            let known = versions.entry((key(event), event.uid.clone())).or_default();
            ensure(version >= *known, || {
                format!("Ordered: {} goes back from version {known}", show(event))
            })?;
            *known = version;
        }
        if span.end.is_some() {
            settled = versions;
        }
    }
    Ok(())
}

/// Between two resets no event is delivered twice, nor after its token on the resumed stream.
pub fn unique(recording: &Recording) -> Result<(), String> {
    let mut settled = HashSet::new();
    let mut epoch = 0;
    for span in recording.spans() {
        if span.epoch != epoch {
            epoch = span.epoch;
            settled.clear();
        }
        let mut sent = HashSet::new();
        for event in &span.events {
            let identity = (
                event.r#type,
                key(event),
                event.uid.clone(),
                event.resource_version.clone(),
                event.revision,
            );
            ensure(
                !settled.contains(&identity) && sent.insert(identity),
                || format!("Unique: {} came before", show(event)),
            )?;
        }
        if span.reset.is_some() {
            let states: Vec<_> = span.events.iter().filter(|it| span.is_state(it)).collect();
            let keys: BTreeSet<_> = states.iter().map(|event| key(event)).collect();
            ensure(keys.len() == states.len(), || {
                "Unique: a state has an object twice".into()
            })?;
        }
        if span.end.is_some() {
            settled.extend(sent);
        }
    }
    Ok(())
}

/// No change within the scope is skipped: at each token the consumer holds what was there. And nothing is told that
/// was not so: each upsert is a version that was, in the order in which they were.
pub fn reliable(recording: &Recording, reference: &Reference) -> Result<(), String> {
    reliable_in(recording, std::slice::from_ref(reference))
}

/// The same where the upstream was restored to an earlier time: of each history there is a reference, the last one
/// first. What comes with a token, and what is held at it, is of one of them.
pub fn reliable_in(recording: &Recording, references: &[Reference]) -> Result<(), String> {
    let known: Vec<_> = references.iter().map(Known::new).collect();
    let mut outcome = Ok(());
    recording.states(|span, to, held| {
        // Each shard finds out about a restore by itself.
        if outcome.is_ok() {
            let known = known.iter().map(|known| (known, known.reference.at(to)));
            let known: Vec<_> = known.collect();
            outcome = to.keys().try_for_each(|shard| {
                one_of(known.iter().map(|(known, truth)| {
                    known.told(span, shard)?;
                    known.held(span, shard, to, held, truth)
                }))
            });
        }
    });
    outcome?;
    // What never counted was so all the same.
    for span in recording.spans().iter().filter(|span| span.end.is_none()) {
        let shards: BTreeSet<_> = span.events.iter().map(|event| &*event.namespace).collect();
        for shard in shards {
            one_of(known.iter().map(|known| known.told(span, shard)))?;
        }
    }
    Ok(())
}

/// In the place of [`reliable_in`] for a stream with `changes: VISIBLE` that is shown labels: at each token the consumer
/// holds the labels that were there, of whichever version.
pub fn visible(recording: &Recording, references: &[Reference]) -> Result<(), String> {
    let mut outcome = Ok(());
    recording.states(|span, to, held| {
        let is_shown = |reference: &Reference, shard: &str| {
            let truth = reference.at(to);
            let there = |key: &str| {
                !is_in(shard, namespace_of(key))
                    || reference.is_unreadable(key, to[shard])
                    || match (held.get(key), truth.get(key)) {
                        (Some(held), Some(true_)) => {
                            held.uid == true_.uid && labels_of(&held.object) == true_.labels
                        }
                        (None, None) => true,
                        _ => false,
                    }
            };
            let keys: BTreeSet<_> = held
                .keys()
                .map(String::as_str)
                .chain(truth.keys().copied())
                .collect();
            let wrong: Vec<_> = keys.into_iter().filter(|key| !there(key)).collect();
            ensure(wrong.is_empty(), || {
                format!(
                    "Reliable: at {to:?} (call {}, epoch {}) other labels are shown of {wrong:?}",
                    span.call, span.epoch
                )
            })
        };
        if outcome.is_ok() {
            outcome = to
                .keys()
                .try_for_each(|shard| one_of(references.iter().map(|it| is_shown(it, shard))));
        }
    });
    outcome
}

fn labels_of(object: &[u8]) -> BTreeMap<String, String> {
    let object: serde_json::Value = serde_json::from_slice(object).unwrap_or_default();
    serde_json::from_value(object["metadata"]["labels"].clone()).unwrap_or_default()
}

/// All failures, unless one of them is none.
fn one_of(each: impl Iterator<Item = Result<(), String>>) -> Result<(), String> {
    let mut failures = Vec::new();
    for outcome in each {
        match outcome {
            Ok(()) => return Ok(()),
            Err(why) => failures.push(why),
        }
    }
    Err(failures.join("\n or, of a history before a restore: "))
}

/// A reference, and where each version is in it.
struct Known<'a> {
    reference: &'a Reference,
    places: HashMap<(&'a str, &'a str, &'a str), usize>,
    existed: HashSet<(&'a str, &'a str)>,
}

impl<'a> Known<'a> {
    fn new(reference: &'a Reference) -> Self {
        let seen = || reference.seen.iter().map(|(_, seen)| seen).enumerate();
        let upserts = seen().filter(|(_, seen)| seen.event != "DELETED");
        let place =
            |(at, seen): (usize, &'a Seen)| ((&*seen.key, &*seen.uid, &*seen.resource_version), at);
        Self {
            reference,
            places: upserts.map(place).collect(),
            existed: seen().map(|(_, seen)| (&*seen.key, &*seen.uid)).collect(),
        }
    }

    fn told(&self, span: &Span<'_>, shard: &str) -> Result<(), String> {
        let mut last: BTreeMap<String, usize> = BTreeMap::new();
        for event in span.events.iter().filter(|it| is_in(shard, &it.namespace)) {
            let key = key(event);
            if event.r#type() == EventType::Delete {
                ensure(self.existed.contains(&(&*key, &*event.uid)), || {
                    format!("Reliable: {} never existed", show(event))
                })?;
                continue;
            }
            let place = self
                .places
                .get(&(&*key, &*event.uid, &*event.resource_version));
            let place =
                *place.ok_or_else(|| format!("Reliable: nobody else saw {}", show(event)))?;
            let before = last.insert(key, place);
            ensure(before.is_none_or(|before| before <= place), || {
                format!("Reliable: {} is out of order", show(event))
            })?;
        }
        Ok(())
    }

    fn held(
        &self,
        span: &Span<'_>,
        shard: &str,
        to: &Positions,
        held: &Objects,
        truth: &BTreeMap<&str, &Seen>,
    ) -> Result<(), String> {
        let truth: BTreeMap<_, _> = truth
            .iter()
            .map(|(key, seen)| (*key, (&*seen.uid, &*seen.resource_version)))
            .collect();
        let held: BTreeMap<_, _> = held
            .iter()
            .map(|(key, held)| (&**key, (&*held.uid, &*held.resource_version)))
            .collect();
        let wrong = |key: &&&str| {
            is_in(shard, namespace_of(key))
                && held.get(**key) != truth.get(**key)
                && !self.reference.is_unreadable(key, to[shard])
        };
        let keys: BTreeSet<_> = held.keys().chain(truth.keys()).collect();
        let wrong: Vec<_> = keys
            .iter()
            .filter(|key| wrong(key))
            .map(|key| {
                format!(
                    "{key}: held {:?}, true {:?}",
                    held.get(**key),
                    truth.get(**key)
                )
            })
            .collect();
        ensure(wrong.is_empty(), || {
            format!(
                "Reliable: at {to:?} (call {}, epoch {}): {}",
                span.call,
                span.epoch,
                wrong.join("; ")
            )
        })
    }
}

/// A stream that is further behind than this many changes may be told only what they come to.
const FOLDS_BEYOND: usize = 500;

/// More than Reliable, for a stream that is not narrowed down, while its kind is not listed anew: each change of the
/// direct watch is one event, in the same order. Returns how many there were.
pub fn complete(recording: &Recording, reference: &Reference) -> Result<usize, String> {
    let mut compared = 0;
    for span in recording.spans() {
        let Some(to) = span.to().filter(|_| span.reset.is_none()) else {
            continue;
        };
        let told: Vec<_> = span
            .events
            .iter()
            .map(|event| {
                let upsert = event.r#type() == EventType::Upsert;
                (upsert, key(event), event.uid.clone(), event.revision)
            })
            .collect();
        let inside = |namespace: &str, revision: u64| {
            let from = position_of(&span.from, namespace);
            let to = position_of(&to, namespace);
            from.is_some_and(|from| revision > from) && to.is_some_and(|to| revision <= to)
        };
        let seen = reference.seen.iter().filter(|(revision, seen)| {
            inside(namespace_of(&seen.key), *revision) && (reference.interest)(seen)
        });
        let seen: Vec<_> = seen
            .map(|(revision, seen)| {
                let upsert = seen.event != "DELETED";
                (upsert, seen.key.clone(), seen.uid.clone(), *revision)
            })
            .collect();
        if seen.len() > FOLDS_BEYOND {
            continue;
        }
        if told != seen {
            let at = told.iter().zip(&seen).take_while(|(a, b)| a == b).count();
            return Err(format!(
                "after {:?} up to {to:?} came {} events, and a direct watch saw {}; number {at}: {:?}, not {:?}",
                span.from,
                told.len(),
                seen.len(),
                told.get(at),
                seen.get(at)
            ));
        }
        compared += told.len();
    }
    Ok(compared)
}

/// A token never points inside a reset, a relist's difference, or a replacement.
pub fn atomic(recording: &Recording) -> Result<(), String> {
    let filtered =
        recording.request.scope.as_ref().is_some_and(|scope| {
            !scope.label_selector.is_empty() || !scope.field_selector.is_empty()
        });
    // The last event that counted, of each shard.
    let mut last: BTreeMap<(usize, String), Event> = BTreeMap::new();
    for span in recording.spans() {
        ensure(span.tokens_inside == 0, || {
            format!("Atomic: a token within the reset at {:?}", span.from)
        })?;
        let to = span.to().unwrap_or_else(|| span.from.clone());
        let mut first_of_shard = BTreeSet::new();
        for event in &span.events {
            let shard = shard_of(&to, event).to_owned();
            if !first_of_shard.insert(shard.clone()) || span.reset.is_some() {
                continue;
            }
            let before = last.get(&(span.epoch, shard));
            let torn = before.is_some_and(|before| {
                before.revision == event.revision && is_retirement(before) == is_retirement(event)
            });
            ensure(!torn, || {
                format!(
                    "Atomic: a token stands before {}, inside of its revision",
                    show(event)
                )
            })?;
        }
        if span.end.is_none() {
            continue;
        }
        for (at, event) in span.events.iter().enumerate() {
            last.insert(
                (span.epoch, shard_of(&to, event).to_owned()),
                (*event).clone(),
            );
            let replaced =
                event.r#type() == EventType::Delete && event.cause() == DeleteCause::Replaced;
            let follows = span.events.get(at + 1).is_some_and(|next| {
                next.r#type() == EventType::Upsert
                    && key(next) == key(event)
                    && next.uid != event.uid
                    && next.revision == event.revision
            });
            ensure(!replaced || follows || filtered, || {
                format!("Atomic: nothing takes the place of {}", show(event))
            })?;
        }
    }
    Ok(())
}

/// A stream that is resumed goes on from the last token as if it had never been cut. (That its state is right, and
/// nothing comes twice, is for [`reliable`] and [`unique`], which look across calls.)
pub fn resumable(recording: &Recording, resets: &[&str]) -> Result<(), String> {
    let mut token = recording.request.token.clone();
    for entry in &recording.entries {
        match &entry.what {
            What::Opened(with) => ensure(*with == token, || {
                "Resumable: a call did not begin with the last token".into()
            })?,
            What::Mark(mark) if !mark.token.is_empty() => token = mark.token.clone(),
            _ => {}
        }
    }
    let mut begun = !recording.request.token.is_empty();
    for span in recording.spans() {
        for reset in span.resets() {
            // Shards that the last token did not have begin with that.
            let first = !reset.namespaces.is_empty()
                && reset
                    .namespaces
                    .iter()
                    .all(|namespace| !span.from.contains_key(namespace));
            let initial = reset.reason == "INITIAL" && (first || !begun);
            let expected = initial || (begun && resets.contains(&&*reset.reason));
            // A state that was cut before its end is begun again as what it was.
            ensure(expected, || {
                format!(
                    "Resumable: call {} began anew: {} {}",
                    span.call, reset.reason, reset.message
                )
            })?;
        }
        if span.reset.is_none()
            && let Some(to) = span.to()
        {
            // A shard of which this replica has no state yet is not in its token.
            let back = span
                .from
                .iter()
                .find(|(shard, at)| to.get(*shard).is_some_and(|to| to < at));
            ensure(back.is_none(), || {
                format!(
                    "Resumable: call {} went back from {:?} to {to:?}",
                    span.call, span.from
                )
            })?;
        }
        begun |= span.end.is_some();
    }
    Ok(())
}

/// A token is never ahead of an event that is still to come on the stream, or on one that resumes from it.
pub fn bookmarkable(recording: &Recording) -> Result<(), String> {
    for span in recording.spans().iter().filter(|span| span.reset.is_none()) {
        for event in &span.events {
            let Some(from) = position_of(&span.from, &event.namespace) else {
                continue;
            };
            let later = event.revision > from || (is_retirement(event) && event.revision == from);
            ensure(later, || {
                format!(
                    "Bookmarkable: {} came after a token of revision {from}",
                    show(event)
                )
            })?;
        }
        if let Some(to) = span.to() {
            for event in &span.events {
                let reached = position_of(&to, &event.namespace);
                ensure(
                    reached.is_some_and(|reached| event.revision <= reached),
                    || {
                        format!(
                            "Bookmarkable: {} counts with a token of {to:?}",
                            show(event)
                        )
                    },
                )?;
            }
        }
    }
    Ok(())
}

/// Whether a shard has a namespace; that without a name has all.
fn is_in(shard: &str, namespace: &str) -> bool {
    shard.is_empty() || shard == namespace
}

fn namespace_of(key: &str) -> &str {
    key.split_once('/').map_or("", |(namespace, _)| namespace)
}

fn show(event: &Event) -> String {
    let what = match event.r#type() {
        EventType::Delete => format!("DELETE/{}", event.cause().as_str_name()),
        _ => format!("UPSERT of version {}", event.resource_version),
    };
    format!(
        "{what} of {} (uid {}) at revision {}",
        key(event),
        event.uid,
        event.revision
    )
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}
