//! The one place where a span of changes becomes what a consumer is sent.
//!
//! Pure: entries in, events out, given what the consumer selects. Per item only the first `before` and the
//! last `after` count; whether the consumer held the item, and whether it shall hold it, are told by those
//! two, so that no membership is kept per consumer.

use std::{collections::HashMap, sync::Arc};

use super::{Cause, Entry, Item, Segment, select::Select};
use crate::{
    object::Key,
    planted::{self, Bug},
};

/// What happened, as a consumer is told.
#[derive(Debug)]
pub struct Event<T> {
    /// Position in the stream.
    pub revision: u64,
    /// See [`What`].
    pub what: What<T>,
}

/// The two kinds of event.
#[derive(Debug)]
pub enum What<T> {
    /// The item is selected and this is it.
    Upsert {
        /// The item.
        item: Arc<T>,
        /// The entry that this event is, word for word: whoever has encoded that can send the same bytes.
        entry: Option<EntryRef>,
    },
    /// The item is selected no more.
    Delete {
        /// Its key.
        key: Key,
        /// Its uid.
        uid: Arc<str>,
        /// Why.
        cause: Cause,
    },
}

/// An entry of [`Batch::segments`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryRef {
    /// Which segment.
    pub segment: usize,
    /// Which of its entries.
    pub index: usize,
}

/// Events in the order of their revisions, and the segments that they point into.
#[derive(Debug)]
pub struct Batch<T> {
    /// See [`EntryRef`].
    pub segments: Vec<Arc<Segment<T>>>,
    /// What to send.
    pub events: Vec<Event<T>>,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self {
            segments: Vec::new(),
            events: Vec::new(),
        }
    }
}

/// Of one key, what a span of entries comes to.
struct Span<'a, T> {
    before: Option<&'a Arc<T>>,
    /// Why the item of `before` went, if it did.
    gone: Option<Cause>,
    last: EntryRef,
}

/// Folds the entries of `segments` after sequence `from`.
pub fn fold<T: Item, S: Select<T> + ?Sized>(
    segments: Vec<Arc<Segment<T>>>,
    from: u64,
    select: &S,
) -> Batch<T> {
    let mut spans: HashMap<&Key, Span<'_, T>> = HashMap::new();
    for (at, entry) in entries(&segments, from, select) {
        let Some(item) = entry.item() else { continue };
        let span = spans.entry(item.key()).or_insert(Span {
            before: entry.before.as_ref(),
            gone: None,
            last: at,
        });
        span.last = at;
        if entry.after.is_none() {
            span.gone.get_or_insert(entry.cause);
        }
    }
    let mut spans: Vec<_> = spans.into_values().collect();
    spans.sort_unstable_by_key(|span| span.last);
    let mut events = Vec::with_capacity(spans.len());
    for span in spans {
        tell(span, &segments, select, &mut events);
    }
    Batch { segments, events }
}

/// Each entry of `segments` after sequence `from` by itself, however many there are of one item.
pub fn each<T: Item, S: Select<T> + ?Sized>(
    segments: Vec<Arc<Segment<T>>>,
    from: u64,
    select: &S,
) -> Batch<T> {
    let mut events = Vec::new();
    for (at, entry) in entries(&segments, from, select) {
        let span = Span {
            before: entry.before.as_ref(),
            gone: entry.after.is_none().then_some(entry.cause),
            last: at,
        };
        tell(span, &segments, select, &mut events);
    }
    Batch { segments, events }
}

/// The entries in the scope after sequence `from`.
fn entries<'a, T: Item, S: Select<T> + ?Sized>(
    segments: &'a [Arc<Segment<T>>],
    from: u64,
    select: &S,
) -> impl Iterator<Item = (EntryRef, &'a Entry<T>)> {
    let all = segments.iter().enumerate().flat_map(move |(at, segment)| {
        let skip = (from + 1).saturating_sub(segment.first) as usize;
        let entries = segment.entries.iter().enumerate().skip(skip);
        entries.map(move |(index, entry)| (EntryRef { segment: at, index }, entry))
    });
    all.filter(|(_, entry)| {
        let item = entry.item();
        item.is_some_and(|item| select.in_scope(item.key()))
    })
}

/// What a span comes to for a consumer.
fn tell<T: Item, S: Select<T> + ?Sized>(
    span: Span<'_, T>,
    segments: &[Arc<Segment<T>>],
    select: &S,
    events: &mut Vec<Event<T>>,
) {
    let last = &segments[span.last.segment].entries[span.last.index];
    let held = span.before.filter(|item| match &last.after {
        Some(after) if planted::is(Bug::MembershipFromAfter) => select.matches(after),
        _ => select.matches(item),
    });
    let wanted = last.after.as_ref().filter(|item| select.matches(item));
    let went = match (held, &last.after) {
        (None, _) => None,
        (Some(held), Some(after)) if held.uid() == after.uid() => {
            Some(held).zip(left_selector(wanted))
        }
        (Some(held), Some(_)) if wanted.is_some() => Some((held, Cause::Replaced)),
        (Some(held), Some(_)) => Some((held, span.gone.unwrap_or(last.cause))),
        // What took its place is gone as well: nothing follows.
        (Some(held), None) => {
            let gone = span.gone.filter(|cause| *cause != Cause::Replaced);
            Some((held, gone.unwrap_or(last.cause)))
        }
    };
    if let Some((held, cause)) = went {
        events.push(Event {
            revision: last.revision,
            what: What::Delete {
                key: held.key().clone(),
                uid: held.uid().into(),
                cause,
            },
        });
    }
    let seen = match &last.before {
        Some(before) if planted::is(Bug::VisibleAgainstLastChange) => held.and(Some(before)),
        _ => held,
    };
    if let Some(item) = wanted.filter(|item| is_news(select, seen, item)) {
        events.push(Event {
            revision: last.revision,
            what: What::Upsert {
                item: item.clone(),
                entry: Some(span.last),
            },
        });
    }
}

/// Why a consumer shall no longer hold an object that is still there, if it shall not.
fn left_selector<T>(wanted: Option<&Arc<T>>) -> Option<Cause> {
    let left = wanted.is_none() && !planted::is(Bug::SelectorExitUntold);
    left.then_some(Cause::LeftSelector)
}

/// Whether a consumer that holds `held` of its selection is to be told of `item`.
fn is_news<T: Item, S: Select<T> + ?Sized>(
    select: &S,
    held: Option<&Arc<T>>,
    item: &Arc<T>,
) -> bool {
    held.is_none_or(|held| held.uid() != item.uid() || select.differs(held, item))
}

/// What to tell a consumer that holds `held` of its selection when there is now `now`, where nothing is known
/// of what lies between but `cause`, why the held one is gone.
pub(super) fn compare<T: Item, S: Select<T> + ?Sized>(
    select: &S,
    held: Option<&Arc<T>>,
    now: Option<&Arc<T>>,
    revision: u64,
    events: &mut Vec<Event<T>>,
) {
    let held = held.filter(|item| select.matches(item));
    let wanted = now.filter(|item| select.matches(item));
    if let Some(held) = held {
        let cause = match (now, wanted) {
            (Some(now), _) if now.uid() == held.uid() => left_selector(wanted),
            (_, Some(_)) => Some(Cause::Replaced),
            _ => Some(Cause::Deleted),
        };
        if let Some(cause) = cause {
            let what = What::Delete {
                key: held.key().clone(),
                uid: held.uid().into(),
                cause,
            };
            events.push(Event { revision, what });
        }
    }
    if let Some(item) = wanted.filter(|item| is_news(select, held, item)) {
        let what = What::Upsert {
            item: item.clone(),
            entry: None,
        };
        events.push(Event { revision, what });
    }
}
