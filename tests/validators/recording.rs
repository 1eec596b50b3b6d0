//! What one consumer received, in order, across all its calls, and what that comes to.

use std::{collections::BTreeMap, time::Instant};

use bytes::Bytes;
use informerd::{
    digest,
    proto::{DeleteCause, Event, EventType, Freshness, Mark, MarkType, WatchObjectsRequest},
};

/// One consumer's stream. Calls after the first resume from the last token.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// As the first call sent it.
    pub request: WatchObjectsRequest,
    /// In the order of receipt.
    pub entries: Vec<Entry>,
}

/// Something that the consumer did or received.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When.
    pub at: Instant,
    /// What.
    pub what: What,
}

/// See [`Entry`].
#[derive(Clone, Debug)]
pub enum What {
    /// A call began, with this token.
    Opened(Bytes),
    /// An event.
    Event(Event),
    /// A mark.
    Mark(Mark),
    /// The call ended: the consumer cut it, or why the server did.
    Closed(String),
}

/// Revision by the shard's namespace, which is empty for a kind that is watched as a whole.
pub type Positions = BTreeMap<String, u64>;

/// What is held of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Of the object.
    pub uid: String,
    /// Of the object.
    pub resource_version: String,
    /// As sent.
    pub object: Bytes,
}

/// What is held, by `namespace/name` or `name`.
pub type Objects = BTreeMap<String, Held>;

/// What lies between two tokens, or between a token and the end of its call: it counts together, or not at all.
#[derive(Clone, Debug)]
pub struct Span<'a> {
    /// Which call, from 1.
    pub call: usize,
    /// How often the consumer has begun a new state by now, this one included.
    pub epoch: usize,
    /// Present where this is a whole state, from RESET to RESET_END.
    pub reset: Option<&'a Mark>,
    /// Of a kind in shards: those whose states came between.
    pub also: Vec<&'a Mark>,
    /// Where the last token stood, of whichever call.
    pub from: Positions,
    /// In order.
    pub events: Vec<&'a Event>,
    /// Tokens where none may be: within a reset, or on the mark that opens it.
    pub tokens_inside: usize,
    /// The mark whose token settles it; absent where that never came.
    pub end: Option<&'a Mark>,
    /// When that came.
    pub at: Instant,
}

impl<'a> Span<'a> {
    /// Where its token stands.
    pub fn to(&self) -> Option<Positions> {
        self.end.map(|mark| positions(mark.freshness.as_ref()))
    }
}

impl Recording {
    /// Taken apart at its tokens. Idle marks between (bookmarks) are spans without events.
    pub fn spans(&self) -> Vec<Span<'_>> {
        let mut spans = Vec::new();
        let mut open: Option<Span<'_>> = None;
        let (mut calls, mut epoch, mut from) = (0, 0, Positions::new());
        for entry in &self.entries {
            calls += usize::from(matches!(entry.what, What::Opened(_)));
            let begin = |from: &Positions, epoch| Span {
                call: calls,
                epoch,
                reset: None,
                also: Vec::new(),
                from: from.clone(),
                events: Vec::new(),
                tokens_inside: 0,
                end: None,
                at: entry.at,
            };
            match &entry.what {
                What::Opened(_) => {
                    open = Some(begin(&from, epoch));
                }
                What::Closed(_) => spans.extend(open.take().filter(|span| !span.is_bare())),
                What::Event(event) => {
                    if let Some(span) = &mut open {
                        span.events.push(event);
                    }
                }
                What::Mark(mark) => {
                    let Some(span) = &mut open else { continue };
                    let has_token = !mark.token.is_empty();
                    match mark.r#type() {
                        MarkType::Reset => {
                            epoch += 1;
                            span.begin(mark, epoch);
                            span.tokens_inside += usize::from(has_token);
                        }
                        other => {
                            let closes = other == MarkType::ResetEnd || span.reset.is_none();
                            if has_token && closes {
                                span.end = Some(mark);
                                span.at = entry.at;
                                from = positions(mark.freshness.as_ref());
                                spans.extend(open.take());
                                open = Some(begin(&from, epoch));
                            } else if has_token {
                                span.tokens_inside += 1;
                            }
                        }
                    }
                }
            }
        }
        spans.extend(open.filter(|span| !span.is_bare()));
        spans
    }

    /// Calls `with` for each token, with where it stands and what the consumer then held.
    pub fn states(&self, mut with: impl FnMut(&Span<'_>, &Positions, &Objects)) {
        let mut held = Objects::new();
        for span in self.spans() {
            if let Some(to) = span.to() {
                settle(&mut held, &span);
                with(&span, &to, &held);
            }
        }
    }

    /// What is held at the last token, and where that stands.
    pub fn last_state(&self) -> Option<(Positions, Objects)> {
        let mut last = None;
        let mut held = Objects::new();
        for span in self.spans() {
            if let Some(to) = span.to() {
                settle(&mut held, &span);
                last = Some(to);
            }
        }
        last.map(|to| (to, held))
    }

    /// The last token, where there was one.
    pub fn last_token(&self) -> Option<&Bytes> {
        let mut marks = self.token_marks();
        marks.next().map(|mark| &mark.token)
    }

    /// Marks that have a token, the last first.
    pub fn token_marks(&self) -> impl Iterator<Item = &Mark> {
        let entries = self.entries.iter().rev();
        entries.filter_map(|entry| match &entry.what {
            What::Mark(mark) if !mark.token.is_empty() => Some(mark),
            _ => None,
        })
    }

    /// Where the last token stands in the shard that is the furthest behind; 0 before there is one.
    pub fn reached(&self) -> u64 {
        let last = self.token_marks().next();
        let last = last.map(|mark| positions(mark.freshness.as_ref()));
        last.and_then(|to| to.into_values().min()).unwrap_or(0)
    }

    /// All marks of a type.
    pub fn marks(&self, of: MarkType) -> impl Iterator<Item = &Mark> {
        self.entries
            .iter()
            .filter_map(move |entry| match &entry.what {
                What::Mark(mark) if mark.r#type() == of => Some(mark),
                _ => None,
            })
    }

    /// All events, those of resets and those that never counted included.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.entries.iter().filter_map(|entry| match &entry.what {
            What::Event(event) => Some(event),
            _ => None,
        })
    }

    /// Why its calls ended.
    pub fn closes(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter_map(|entry| match &entry.what {
            What::Closed(why) => Some(&**why),
            _ => None,
        })
    }

    /// Whether, from this entry on, a call has ended and then a token has come.
    pub fn has_gone_on_since(&self, from: usize) -> bool {
        let mut closed = false;
        self.entries[from..].iter().any(|entry| {
            closed |= matches!(entry.what, What::Closed(_));
            closed && matches!(&entry.what, What::Mark(mark) if !mark.token.is_empty())
        })
    }

    /// Why the server began a new state, one word a time.
    pub fn resets(&self) -> Vec<&str> {
        self.marks(MarkType::Reset)
            .map(|mark| &*mark.reason)
            .collect()
    }
}

impl<'a> Span<'a> {
    fn is_bare(&self) -> bool {
        self.events.is_empty() && self.reset.is_none()
    }

    /// All states that are in it.
    pub fn resets(&self) -> impl Iterator<Item = &'a Mark> {
        self.reset.into_iter().chain(self.also.iter().copied())
    }

    /// Whether an event is of one of these, and not of a shard that just goes on.
    pub fn is_state(&self, event: &Event) -> bool {
        self.resets().any(|reset| covers(reset, &event.namespace))
    }

    /// A state begins. It goes beside those of other shards, and what those were told goes on to count with the next
    /// token; what its own were told since the last one is void.
    fn begin(&mut self, reset: &'a Mark, epoch: usize) {
        self.epoch = epoch;
        self.events.retain(|event| !covers(reset, &event.namespace));
        let others = self
            .resets()
            .filter(|other| !reset.namespaces.is_empty() && other.namespaces != reset.namespaces);
        self.also = others.chain([reset]).collect();
        self.reset = Some(self.also.remove(0));
    }
}

/// Folds a span in that counts.
fn settle(held: &mut Objects, span: &Span<'_>) {
    let covered = |key: &str| {
        let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
        span.resets().any(|reset| covers(reset, namespace))
    };
    held.retain(|key, _| !covered(key));
    for event in &span.events {
        match event.r#type() {
            EventType::Upsert => {
                let now = Held {
                    uid: event.uid.clone(),
                    resource_version: event.resource_version.clone(),
                    object: event.object.clone(),
                };
                held.insert(key(event), now);
            }
            // A repeated delete must not take its successor of the same name.
            _ if held.get(&key(event)).is_some_and(|it| it.uid == event.uid) => {
                held.remove(&key(event));
            }
            _ => {}
        }
    }
}

fn covers(reset: &Mark, namespace: &str) -> bool {
    reset.namespaces.is_empty() || reset.namespaces.iter().any(|it| it == namespace)
}

/// `namespace/name`, or `name`.
pub fn key(event: &Event) -> String {
    match event.namespace.as_str() {
        "" => event.name.clone(),
        namespace => format!("{namespace}/{}", event.name),
    }
}

/// Where a reply stands.
pub fn positions(freshness: Option<&Freshness>) -> Positions {
    let shards = freshness.into_iter().flat_map(|it| &it.positions);
    shards
        .map(|it| (it.namespace.clone(), it.revision))
        .collect()
}

/// Where the shard of a namespace stands, if it is among these.
pub fn position_of(positions: &Positions, namespace: &str) -> Option<u64> {
    positions
        .get("")
        .or_else(|| positions.get(namespace))
        .copied()
}

/// The name of the shard that an event is of.
pub fn shard_of<'a>(positions: &Positions, event: &'a Event) -> &'a str {
    if positions.contains_key("") {
        ""
    } else {
        &event.namespace
    }
}

/// The digest of what is held, as docs/digest.md has it.
pub fn digest_of(objects: &Objects) -> u64 {
    let of = |(key, held): (&String, &Held)| digest::entry(key, &held.uid, &held.resource_version);
    objects.iter().map(of).fold(0, u64::wrapping_add)
}

/// Whether an event may be one of a kind that goes: those carry the revision that was reached, not a new one.
pub fn is_retirement(event: &Event) -> bool {
    event.r#type() == EventType::Delete && event.cause() == DeleteCause::Vanished
}
