//! Where one consumer stands in one shard, and what it is to be sent next.
//!
//! A cursor pulls: it is asked for its next step when the consumer has taken the last one. While a consumer
//! dawdles its cursor keeps the items of the state it saw last, so that the way from there to now can still be told
//! once the journal has turned; [`Hold::expire`] takes that away from those who make no progress.
//!
//! Invariant: no cursor keeps a journal. What that has forgotten would live on with each who has not moved since.

use std::{
    collections::HashMap,
    fmt, mem,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    Batch, Cause, Change, Event, Item, Position, Select, State, What,
    fold::{compare, each, fold},
    state::{Items, scan},
};
use crate::{
    object::Key,
    planted::{self, Bug},
};

/// Up to so many entries a consumer of the whole kind is sent as they were encoded for all, rather than folded
/// for it.
const SHARED_ENTRIES: u64 = 512;

/// See the module's documentation.
#[derive(Debug)]
pub struct Cursor<T>(Arc<Mutex<Inner<T>>>);

/// A hold on what a cursor keeps alive.
#[derive(Debug)]
pub struct Hold<T>(Arc<Mutex<Inner<T>>>);

#[derive(Debug)]
struct Inner<T> {
    place: Place<T>,
    progress: Instant,
}

#[derive(Debug)]
enum Place<T> {
    /// A reset comes next.
    Lost(ResetReason),
    /// In a frozen state, `after` this key.
    Snapshot {
        state: Arc<State<T>>,
        after: Option<Key>,
    },
    /// In the change index of a frozen state, after sequence `at`, for a reader that has seen all up to `from`.
    Changes {
        state: Arc<State<T>>,
        from: u64,
        at: u64,
        /// Uids that the reader knew under keys that others have taken: told together with those.
        replaced: HashMap<Key, Arc<str>>,
    },
    /// Between the items of an earlier state and a frozen one, `after` this key.
    Difference {
        base: Items<T>,
        from: u64,
        state: Arc<State<T>>,
        after: Option<Key>,
    },
    /// In what was there at the head, `after` this key, for a reader that may have less of it than it had, or more.
    Rescoping {
        items: Items<T>,
        at: Position,
        part: Part<T>,
        after: Option<Key>,
    },
    /// All up to this sequence has been sent, and there is nothing else up to this revision. `seen` is what was
    /// there at that sequence.
    Head {
        history: u64,
        revision: u64,
        sequence: u64,
        seen: Option<Items<T>>,
    },
}

/// What a reader may not have any more, or may have again.
#[derive(Clone)]
pub struct Part<T> {
    /// Which items.
    pub scope: Arc<dyn Select<T>>,
    /// Whether it is taken back, or given.
    pub taken: bool,
}

impl<T> fmt::Debug for Part<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken = &self.taken;
        f.debug_struct("Part")
            .field("taken", taken)
            .finish_non_exhaustive()
    }
}

/// Why a consumer must start over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetReason {
    /// It is its beginning.
    Initial,
    /// It is further back than what is remembered.
    PastJournal,
    /// Its position is of a replica that saw something else.
    HistoryDiffers,
    /// A change that it wants to see was not seen: the kind was listed anew.
    HistoryGap,
    /// The upstream's revisions went back.
    HistoryVoid,
    /// It made no progress for too long in the middle of a state.
    Stalled,
    /// It may not have all of its scope any more, and what was taken back from it cannot be told by itself.
    Revoked,
}

/// What to send next.
#[derive(Debug)]
pub enum Step<T> {
    /// Nothing, until the shard publishes.
    Idle,
    /// A whole state follows.
    Reset(ResetReason),
    /// Some of that state's items, in key order; never empty.
    Items {
        /// The state's revision.
        revision: u64,
        /// The items.
        items: Vec<Arc<T>>,
    },
    /// The state is complete; resume here.
    ResetEnd(Position),
    /// All entries of this state's journal after sequence `from`, as they are; resume at the state's position.
    Shared {
        /// Has them all.
        state: Arc<State<T>>,
        /// Skip up to here.
        from: u64,
    },
    /// Events, perhaps none.
    Events {
        /// What to send.
        batch: Batch<T>,
        /// Resume here once all are sent; absent inside an atom.
        position: Option<Position>,
    },
}

impl<T> Inner<T> {
    fn lock(shared: &Mutex<Self>) -> MutexGuard<'_, Self> {
        shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Hold<T> {
    /// Lets go of what is held if the cursor has not stepped for `patience`. Whether it did.
    pub fn expire(&self, now: Instant, patience: Duration) -> bool {
        let mut inner = Inner::lock(&self.0);
        if now.saturating_duration_since(inner.progress) <= patience {
            return false;
        }
        match &mut inner.place {
            Place::Lost(_) | Place::Head { seen: None, .. } => return false,
            Place::Head { seen, .. } => *seen = None,
            walking => *walking = Place::Lost(ResetReason::Stalled),
        }
        true
    }

    /// When the cursor stepped last.
    pub fn progress(&self) -> Instant {
        Inner::lock(&self.0).progress
    }

    /// "snapshot", "catch_up" or "head".
    pub fn describe(&self) -> &'static str {
        match Inner::lock(&self.0).place {
            Place::Lost(_) | Place::Snapshot { .. } => "snapshot",
            Place::Changes { .. } | Place::Difference { .. } | Place::Rescoping { .. } => {
                "catch_up"
            }
            Place::Head { .. } => "head",
        }
    }
}

impl<T: Item> Hold<T> {
    /// How many changes of the shard have not been sent, those out of scope included.
    pub fn lag(&self, current: &State<T>) -> u64 {
        let sequence = match &Inner::lock(&self.0).place {
            Place::Lost(_) | Place::Snapshot { .. } => 0,
            Place::Changes { from, .. } | Place::Difference { from, .. } => *from,
            Place::Rescoping { at, .. } => at.sequence,
            Place::Head { sequence, .. } => *sequence,
        };
        current.sequence.saturating_sub(sequence)
    }
}

impl<T: Item> Cursor<T> {
    /// Begins with a whole state.
    pub fn start(reason: ResetReason, now: Instant) -> Self {
        Self::at(Place::Lost(reason), now)
    }

    /// Goes on after this position, whose history and sequence are of this process.
    pub fn resume(position: Position, now: Instant) -> Self {
        let place = Place::Head {
            history: position.history,
            revision: position.revision,
            sequence: position.sequence,
            seen: None,
        };
        Self::at(place, now)
    }

    /// Counts as a step: the consumer is alive, if busy elsewhere.
    pub fn touch(&self, now: Instant) {
        Inner::lock(&self.0).progress = now;
    }

    /// Walks one state and no further; see [`Cursor::walk`].
    pub fn over(state: Arc<State<T>>, now: Instant) -> Self {
        let state = Arc::new(state.frozen());
        Self::at(Place::Snapshot { state, after: None }, now)
    }

    /// Whether [`Cursor::rescope`] can do it: all up to `position` has been sent, and what was there is at hand.
    pub fn can_rescope(&self, position: Position) -> bool {
        let place = &mut Inner::lock(&self.0).place;
        place.seen_at(position).is_some_and(|seen| seen.is_some())
    }

    /// Tells a reader that has been sent all up to `position` what is taken back from it, or given to it, as one
    /// atom over what was there then; from now on it is to be stepped with what it then selects. Whether that can be
    /// done; else it must start over.
    pub fn rescope(&mut self, part: Part<T>, position: Position) -> bool {
        let place = &mut Inner::lock(&self.0).place;
        let Some(items) = place.seen_at(position).and_then(Option::take) else {
            return false;
        };
        *place = Place::Rescoping {
            items,
            at: position,
            part,
            after: None,
        };
        true
    }

    fn at(place: Place<T>, now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            place,
            progress: now,
        })))
    }

    /// What the cursor keeps alive, for whoever watches over that.
    pub fn hold(&self) -> Hold<T> {
        Hold(self.0.clone())
    }

    /// The next of the state being walked: [`Step::Items`], then [`Step::ResetEnd`]. `None` where it was taken away.
    pub fn walk<S: Select<T> + ?Sized>(
        &mut self,
        select: &S,
        budget: usize,
        now: Instant,
    ) -> Option<Step<T>> {
        let mut inner = Inner::lock(&self.0);
        inner.progress = now;
        inner.place.walk(select, budget)
    }

    /// What to send next, given the shard's latest state; at most about `budget` bytes of items at once, but
    /// never nothing while something is left. An atom is walked in one frozen state, however often `current`
    /// moves on meanwhile.
    pub fn step<S: Select<T> + ?Sized>(
        &mut self,
        current: &Arc<State<T>>,
        select: &S,
        budget: usize,
        now: Instant,
    ) -> Step<T> {
        let mut inner = Inner::lock(&self.0);
        inner.progress = now;
        let place = &mut inner.place;
        if place
            .history()
            .is_some_and(|history| history != current.history)
        {
            *place = Place::Lost(ResetReason::HistoryVoid);
        }
        let step = if select.is_every() {
            place.next_of_all(current, select, budget)
        } else {
            place.leave_head(current, select)
        };
        if let Some(step) = step {
            return step;
        }
        if let Some(step) = place.walk(select, budget) {
            return step;
        }
        match mem::replace(place, Place::Lost(ResetReason::Stalled)) {
            Place::Lost(reason) => {
                *place = Place::Snapshot {
                    state: Arc::new(current.frozen()),
                    after: None,
                };
                Step::Reset(reason)
            }
            Place::Changes {
                state,
                from,
                at,
                mut replaced,
            } => {
                let (events, at) = some_changes(&state, select, from, at, &mut replaced, budget);
                let position = reached(&state, at.is_none());
                *place = match at {
                    None => Place::head(&state),
                    Some(at) => Place::Changes {
                        state,
                        from,
                        at,
                        replaced,
                    },
                };
                Step::events(events, position)
            }
            Place::Difference {
                base,
                from,
                state,
                after,
            } => {
                let (events, after) = some_difference(&base, &state, select, after, budget);
                let position = reached(&state, after.is_none());
                *place = match after {
                    None => Place::head(&state),
                    after => Place::Difference {
                        base,
                        from,
                        state,
                        after,
                    },
                };
                Step::events(events, position)
            }
            Place::Rescoping {
                items,
                at,
                part,
                after,
            } => {
                let (events, after) = some_of_part(&items, &part, at.revision, after, budget);
                let position = after.is_none().then_some(at);
                *place = match after {
                    None => Place::Head {
                        history: at.history,
                        revision: at.revision,
                        sequence: at.sequence,
                        seen: Some(items),
                    },
                    after => Place::Rescoping {
                        items,
                        at,
                        part,
                        after,
                    },
                };
                Step::events(events, position)
            }
            done @ (Place::Snapshot { .. } | Place::Head { .. }) => {
                *place = done;
                Step::Idle
            }
        }
    }
}

impl<T> Step<T> {
    fn events(events: Vec<Event<T>>, position: Option<Position>) -> Self {
        let batch = Batch {
            segments: Vec::new(),
            events,
        };
        Self::Events { batch, position }
    }
}

impl<T: Item> Place<T> {
    fn head(state: &State<T>) -> Self {
        Self::Head {
            history: state.history,
            revision: state.revision,
            sequence: state.sequence,
            seen: Some(state.objects.clone()),
        }
    }

    /// At the head, at this position: what was there.
    fn seen_at(&mut self, position: Position) -> Option<&mut Option<Items<T>>> {
        match self {
            Self::Head {
                history,
                sequence,
                seen,
                ..
            } if (*history, *sequence) == (position.history, position.sequence) => Some(seen),
            _ => None,
        }
    }

    fn history(&self) -> Option<u64> {
        match self {
            Self::Lost(_) => None,
            Self::Snapshot { state, .. }
            | Self::Changes { state, .. }
            | Self::Difference { state, .. } => Some(state.history),
            Self::Rescoping { at, .. } => Some(at.history),
            Self::Head { history, .. } => Some(*history),
        }
    }

    /// In a snapshot: goes on in it.
    fn walk<S: Select<T> + ?Sized>(&mut self, select: &S, budget: usize) -> Option<Step<T>> {
        let Self::Snapshot { state, after } = self else {
            return None;
        };
        let items = some_items(state, select, after.as_ref(), budget);
        if let Some(last) = items.last() {
            *after = Some(last.key().clone());
            let revision = state.revision;
            return Some(Step::Items { revision, items });
        }
        let position = state.position();
        *self = Self::head(&state.clone());
        Some(Step::ResetEnd(position))
    }

    /// At the head: stays there with what the journal has, or goes to where the way to `current` can be walked.
    fn leave_head<S: Select<T> + ?Sized>(
        &mut self,
        current: &Arc<State<T>>,
        select: &S,
    ) -> Option<Step<T>> {
        let Self::Head { sequence, seen, .. } = self else {
            return None;
        };
        let from = *sequence;
        if from == current.sequence {
            seen.get_or_insert_with(|| current.objects.clone());
            return Some(Step::Idle);
        }
        if from >= current.journal.floor {
            *self = Self::head(current);
            let few = current.sequence - from <= SHARED_ENTRIES;
            return Some(if few && select.is_everything() {
                Step::Shared {
                    state: current.clone(),
                    from,
                }
            } else {
                let segments = current.journal.after(from).cloned().collect();
                Step::Events {
                    batch: fold(segments, from, select),
                    position: Some(current.position()),
                }
            });
        }
        let state = Arc::new(current.frozen());
        *self = if !select.is_filter() && from >= current.tombstone_floor {
            Self::Changes {
                state,
                from,
                at: from,
                replaced: HashMap::new(),
            }
        } else if let Some(base) = seen.take() {
            Self::Difference {
                base,
                from,
                state,
                after: None,
            }
        } else {
            Self::Lost(ResetReason::PastJournal)
        };
        None
    }

    /// At the head: stays there with each entry that the journal has, or is lost where one is missing.
    fn next_of_all<S: Select<T> + ?Sized>(
        &mut self,
        current: &State<T>,
        select: &S,
        budget: usize,
    ) -> Option<Step<T>> {
        let Self::Head {
            history,
            revision,
            sequence,
            seen,
        } = self
        else {
            return None;
        };
        // Nothing is ever told from it.
        *seen = None;
        let from = *sequence;
        if from < current.journal.floor {
            *self = Self::Lost(ResetReason::PastJournal);
            return None;
        }
        let gap = current.journal.gap_after(*revision);
        let mut bytes = 0;
        let mut segments = Vec::new();
        for segment in current.journal.after(from) {
            let within = gap.is_none_or(|gap| segment.entries[0].revision <= gap.from);
            if !within || bytes >= budget {
                break;
            }
            bytes += segment.size();
            segments.push(segment.clone());
        }
        let last = segments.last().and_then(|segment| {
            let entry = segment.entries.last()?;
            Some(Position {
                history: *history,
                revision: entry.revision,
                sequence: segment.last(),
                digest: entry.digest,
            })
        });
        let Some(mut position) = last else {
            if gap.is_some() {
                *self = Self::Lost(ResetReason::HistoryGap);
                return None;
            }
            *revision = current.revision;
            return Some(Step::Idle);
        };
        if gap.is_none() && position.sequence == current.sequence {
            position = current.position();
        }
        (*revision, *sequence) = (position.revision, position.sequence);
        Some(Step::Events {
            batch: each(segments, from, select),
            position: Some(position),
        })
    }
}

/// Where the way to `state` leads, once all of it is told.
fn reached<T: Item>(state: &State<T>, all: bool) -> Option<Position> {
    (all || planted::is(Bug::TokenInsideAtom)).then(|| state.position())
}

/// The selected items after `after`.
fn some_items<T: Item, S: Select<T> + ?Sized>(
    state: &State<T>,
    select: &S,
    after: Option<&Key>,
    budget: usize,
) -> Vec<Arc<T>> {
    let mut items = Vec::new();
    let mut bytes = 0;
    for (_, slot) in state.scan(select, after) {
        if !select.matches(&slot.item) {
            continue;
        }
        bytes += slot.item.size();
        items.push(slot.item.clone());
        if bytes >= budget {
            break;
        }
    }
    items
}

/// The changes after sequence `at` for a reader of `from`, and the sequence to go on after, if there is more.
fn some_changes<T: Item, S: Select<T> + ?Sized>(
    state: &State<T>,
    select: &S,
    from: u64,
    at: u64,
    replaced: &mut HashMap<Key, Arc<str>>,
    budget: usize,
) -> (Vec<Event<T>>, Option<u64>) {
    let mut events = Vec::new();
    let mut bytes = 0;
    for (sequence, change) in state.changes.range((Bound::Excluded(at), Bound::Unbounded)) {
        match change {
            Change::Live(key) if select.in_scope(key) => {
                let Some(slot) = state.objects.get(key) else {
                    continue;
                };
                if let Some(uid) = replaced.remove(key) {
                    events.push(Event {
                        revision: slot.revision,
                        what: What::Delete {
                            key: key.clone(),
                            uid,
                            cause: Cause::Replaced,
                        },
                    });
                }
                bytes += slot.item.size();
                events.push(Event {
                    revision: slot.revision,
                    what: What::Upsert {
                        item: slot.item.clone(),
                        entry: None,
                    },
                });
            }
            Change::Tombstone {
                key,
                uid,
                cause,
                revision,
                born,
            } if select.in_scope(key) => {
                let knew = knew(*born, from);
                let taken = match state.objects.get(key) {
                    // It is back: the reader only needs its latest, which comes later.
                    Some(slot) if slot.item.uid() == &**uid => continue,
                    Some(_) => true,
                    None => *cause == Cause::Replaced,
                };
                if taken {
                    // What becomes of its key comes later.
                    if knew {
                        replaced.insert(key.clone(), uid.clone());
                    }
                    continue;
                }
                let held = if knew {
                    Some(uid.clone())
                } else {
                    replaced.remove(key)
                };
                if let Some(uid) = held {
                    bytes += size_of::<Event<T>>() + key.as_str().len();
                    events.push(Event {
                        revision: *revision,
                        what: What::Delete {
                            key: key.clone(),
                            uid,
                            cause: *cause,
                        },
                    });
                }
            }
            Change::Live(_) | Change::Tombstone { .. } => {}
        }
        if bytes >= budget {
            return (events, Some(*sequence));
        }
    }
    (events, None)
}

/// Whether a reader that has seen all up to `from` has seen what was brought in at `born`.
fn knew(born: u64, from: u64) -> bool {
    born <= from || planted::is(Bug::TombstoneOfUnknown)
}

/// What differs between two states after key `after`, and the key to go on after, if there is more. All events
/// carry the later state's revision, since those of the changes between are not known any more.
fn some_difference<T: Item, S: Select<T> + ?Sized>(
    base: &Items<T>,
    state: &State<T>,
    select: &S,
    after: Option<Key>,
    budget: usize,
) -> (Vec<Event<T>>, Option<Key>) {
    let mut old = scan(base, select, after.as_ref()).peekable();
    let mut new = state.scan(select, after.as_ref()).peekable();
    let mut events = Vec::new();
    let mut bytes = 0;
    loop {
        let key = match (old.peek(), new.peek()) {
            (None, None) => return (events, None),
            (Some((key, _)), None) | (None, Some((key, _))) => (*key).clone(),
            (Some((a, _)), Some((b, _))) => (*a).min(*b).clone(),
        };
        let held = old.next_if(|(at, _)| **at == key).map(|(_, slot)| slot);
        let now = new.next_if(|(at, _)| **at == key).map(|(_, slot)| slot);
        if held.map(|slot| slot.sequence) == now.map(|slot| slot.sequence) {
            continue;
        }
        let before = events.len();
        compare(
            select,
            held.map(|slot| &slot.item),
            now.map(|slot| &slot.item),
            state.revision,
            &mut events,
        );
        if events.len() > before {
            bytes += size_of::<Event<T>>() + now.map_or(0, |slot| slot.item.size());
        }
        if bytes >= budget {
            return (events, Some(key));
        }
    }
}

/// What is taken back or given after key `after`, and the key to go on after, if there is more.
fn some_of_part<T: Item>(
    items: &Items<T>,
    part: &Part<T>,
    revision: u64,
    after: Option<Key>,
    budget: usize,
) -> (Vec<Event<T>>, Option<Key>) {
    let mut events = Vec::new();
    let mut bytes = 0;
    for (key, slot) in scan(items, &*part.scope, after.as_ref()) {
        let item = &slot.item;
        if !part.scope.matches(item) {
            continue;
        }
        bytes += size_of::<Event<T>>() + key.as_str().len();
        let what = if part.taken {
            What::Delete {
                key: key.clone(),
                uid: item.uid().into(),
                cause: super::Cause::Revoked,
            }
        } else {
            bytes += item.size();
            What::Upsert {
                item: item.clone(),
                entry: None,
            }
        };
        events.push(Event { revision, what });
        if bytes >= budget {
            return (events, Some(key.clone()));
        }
    }
    (events, None)
}
