//! WATCH: what was there, if that is wanted, and then each change as it comes.
//!
//! A watch is a place in the journal and pulls from it when its connection has room; it holds nothing in between. One
//! that the journal has left behind is told so with the error that every client answers with a new list, as the API
//! server tells it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{
    body::BodyError,
    event::{self, Lines, Type},
    holds::Held,
    read::{Reader, Resource},
    status::Status,
    wait,
};
use crate::{
    auth::Snapshot,
    cache::{
        Cursor, Doorbell, Encoded, Entry, Select, Selection, Shard, State, Step, Subscription, Use,
    },
    object::Object,
};

/// About so many bytes are made at once.
const BUDGET: usize = 256 << 10;
/// How often an idle watch that wants bookmarks gets one, as on the API server.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// A last one comes so long before the end that was asked for.
const BEFORE_END: Duration = Duration::from_secs(2);

/// A watch under way.
pub(super) struct Watch {
    pub(super) resource: Arc<Resource>,
    pub(super) shard: Arc<Shard<Object>>,
    pub(super) scope: Selection,
    pub(super) lines: Lines,
    pub(super) place: Place,
    /// Whether it wants bookmarks.
    pub(super) bookmarks: bool,
    pub(super) deadline: Instant,
    pub(super) next_bookmark: Instant,
    pub(super) bell: Arc<Doorbell>,
    pub(super) _subscription: Subscription,
    pub(super) reader: Option<Box<dyn Reader>>,
    pub(super) draining: std::pin::Pin<Box<WaitForCancellationFutureOwned>>,
    pub(super) _used: Use,
    pub(super) _open: Gauge,
}

/// Where a watch stands.
pub(super) enum Place {
    /// In the state that it begins with. `revision` is what that was proven for.
    Initial {
        cursor: Cursor<Object>,
        history: u64,
        sequence: u64,
        revision: u64,
        snapshot: Option<Snapshot>,
        /// Whether its end is marked by a bookmark.
        marked: bool,
        _held: Held,
    },
    /// In the journal: all up to `sequence` was sent, and what is not past `after` is not wanted.
    Journal {
        history: u64,
        sequence: u64,
        after: u64,
    },
    /// Something is said, and then it ends.
    Last(Status),
    /// There is nothing more to say.
    Over,
}

/// Counts a watch while it is open.
pub(super) struct Gauge(metrics::Gauge);

impl Gauge {
    pub(super) fn new(resource: String) -> Self {
        let gauge = metrics::gauge!("informerd_kube_watches", "resource" => resource);
        gauge.increment(1);
        Self(gauge)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

impl Place {
    /// In the journal, right after `revision`, which may lie ahead.
    pub(super) fn after(state: &State<Object>, revision: u64) -> Self {
        match state.sequence_at(revision) {
            Some(sequence) => Self::Journal {
                history: state.history,
                sequence,
                after: revision,
            },
            None => Self::Last(too_old(revision, state)),
        }
    }

    /// History, sequence, and the revision up to which nothing is wanted.
    fn in_journal(&self) -> Option<(u64, u64, u64)> {
        match *self {
            Self::Journal {
                history,
                sequence,
                after,
            } => Some((history, sequence, after)),
            _ => None,
        }
    }
}

fn too_old(revision: u64, state: &State<Object>) -> Status {
    Status::expired(format!(
        "too old resource version: {revision} ({})",
        state.journal.floor_revision
    ))
}

/// When the next bookmark is due.
pub(super) fn next_bookmark(now: Instant, deadline: Instant) -> Instant {
    let regular = now + BOOKMARKS;
    match deadline.checked_sub(BEFORE_END) {
        Some(last) if last > now && last < regular => last,
        _ => regular,
    }
}

impl Watch {
    /// The body: pieces of one line or more.
    pub(super) fn pieces(self) -> impl futures::Stream<Item = Result<Bytes, BodyError>> + Send {
        futures::stream::unfold(self, |mut watch| async move {
            let piece = watch.next().await?;
            Some((Ok(piece), watch))
        })
        .fuse()
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let made = match &mut self.place {
                Place::Over => return None,
                Place::Last(status) => {
                    let line = error(status);
                    self.place = Place::Over;
                    Some(line)
                }
                Place::Initial { .. } => self.initial(),
                Place::Journal { .. } => self.changes(),
            };
            let made = match made {
                Some(made) => made,
                None => self.wait().await,
            };
            if !made.is_empty() {
                return Some(made);
            }
        }
    }

    /// More of the first state.
    fn initial(&mut self) -> Option<Bytes> {
        let Place::Initial {
            cursor,
            history,
            sequence,
            revision,
            snapshot,
            marked,
            ..
        } = &mut self.place
        else {
            return Some(Bytes::new());
        };
        match cursor.walk(&self.scope, BUDGET, super::now()) {
            Some(Step::Items { items, .. }) => {
                let mut out = Vec::with_capacity(BUDGET);
                for item in &items {
                    self.lines.append(Type::Added, item, None, &mut out);
                }
                sent(&self.reader, items.len(), out.len());
                if let Some(snapshot) = snapshot {
                    snapshot.made(out.len());
                }
                Some(out.into())
            }
            Some(Step::ResetEnd(_)) => {
                let (history, sequence, after, marked) = (*history, *sequence, *revision, *marked);
                self.place = Place::Journal {
                    history,
                    sequence,
                    after,
                };
                Some(if marked {
                    self.bookmark(after, true)
                } else {
                    Bytes::new()
                })
            }
            // Taken away from a reader that took nothing for too long.
            _ => {
                self.place = Place::Over;
                Some(Bytes::new())
            }
        }
    }

    /// What the journal has, some of it; `None` where that is nothing.
    fn changes(&mut self) -> Option<Bytes> {
        let Some((history, sequence, after)) = self.place.in_journal() else {
            return Some(Bytes::new());
        };
        let Some(state) = wait::servable(&self.shard) else {
            // The kind is gone, or listed anew from the beginning: the reader comes again, and is told then.
            self.place = Place::Over;
            return Some(Bytes::new());
        };
        if state.history != history || sequence < state.journal.floor {
            self.place = Place::Last(too_old(after, &state));
            return Some(Bytes::new());
        }
        // Where few of a segment's lines are wanted, they are made for this watch alone.
        let shared =
            self.lines.are_shared() && !self.scope.is_filter() && self.scope.one().is_none();
        let mut pieces = Pieces::default();
        let mut at = sequence;
        for segment in state.journal.after(sequence) {
            let skip = (at + 1).saturating_sub(segment.first) as usize;
            let lines = shared.then(|| event::lines(segment, self.lines.form));
            for (index, entry) in segment.entries.iter().enumerate().skip(skip) {
                if entry.revision <= after && entry.revision != 0 || event::is_silent(entry) {
                    continue;
                }
                let Some(item) = entry.item() else { continue };
                if !self.scope.in_scope(&item.key) {
                    continue;
                }
                let wanted = |side: &Option<Arc<Object>>| {
                    side.as_ref()
                        .is_some_and(|object| self.scope.matches(object))
                };
                let Some(what) = Type::of(wanted(&entry.before), wanted(&entry.after)) else {
                    continue;
                };
                match &lines {
                    Some(lines) => pieces.shared(lines, index),
                    None => pieces.own(entry, what, &mut self.lines),
                }
            }
            at = segment.last();
            if pieces.len() >= BUDGET {
                break;
            }
        }
        let (events, bytes) = pieces.finish();
        let all = at >= state.sequence;
        self.place = Place::Journal {
            history,
            sequence: at,
            after,
        };
        if bytes.is_empty() {
            return (!all).then(Bytes::new);
        }
        sent(&self.reader, events, bytes.len());
        Some(bytes)
    }

    /// Until there may be something to say, or it is time to end; what is said of that, if anything.
    async fn wait(&mut self) -> Bytes {
        let due = if self.bookmarks {
            self.next_bookmark.min(self.deadline)
        } else {
            self.deadline
        };
        tokio::select! {
            biased;
            () = &mut self.draining => {
                let last = if self.bookmarks { self.bookmark_here() } else { None };
                self.place = Place::Over;
                last.unwrap_or_default()
            }
            () = self.bell.rung() => Bytes::new(),
            () = sleep_until(due) => {
                if due >= self.deadline {
                    self.place = Place::Over;
                    return Bytes::new();
                }
                // Where a change has just come, that goes first, and the bookmark stays due.
                match self.bookmark_here() {
                    Some(bookmark) => {
                        self.next_bookmark = next_bookmark(Instant::now(), self.deadline);
                        bookmark
                    }
                    None => Bytes::new(),
                }
            }
        }
    }

    /// A bookmark at where the shard is, empty while that is behind what was asked for; `None` where the watch has
    /// not sent all up to there.
    fn bookmark_here(&mut self) -> Option<Bytes> {
        let (history, sequence, after) = self.place.in_journal()?;
        let state = wait::servable(&self.shard)?;
        if (state.history, state.sequence) != (history, sequence) {
            return None;
        }
        Some(if state.revision >= after && state.revision > 0 {
            self.bookmark(state.revision, false)
        } else {
            Bytes::new()
        })
    }

    /// A bookmark at this revision.
    fn bookmark(&mut self, revision: u64, initial_end: bool) -> Bytes {
        let identity = &self.resource.identity;
        self.lines
            .bookmark(
                &identity.api_version(),
                &identity.kind,
                revision,
                initial_end,
            )
            .into()
    }
}

fn sent(reader: &Option<Box<dyn Reader>>, events: usize, bytes: usize) {
    if let Some(reader) = reader {
        reader.sent(events, bytes);
    }
}

/// The line that ends a watch with an error.
pub(super) fn error(status: &Status) -> Bytes {
    let mut out = Vec::with_capacity(256);
    event::open("ERROR", &mut out);
    let json = status.to_json();
    out.extend_from_slice(json.trim_ascii_end());
    event::close(&mut out);
    out.into()
}

/// Lines, put together from what is shared and what is not. One run of shared lines alone is not copied.
#[derive(Default)]
struct Pieces {
    own: Vec<u8>,
    run: Option<(Encoded, usize, usize)>,
    events: usize,
}

impl Pieces {
    fn shared(&mut self, lines: &Encoded, index: usize) {
        self.events += 1;
        match &mut self.run {
            Some((run, _, to)) if run.bytes.as_ptr() == lines.bytes.as_ptr() && *to == index => {
                *to = index + 1;
            }
            _ => {
                self.flush();
                self.run = Some((lines.clone(), index, index + 1));
            }
        }
    }

    fn own(&mut self, entry: &Entry<Object>, what: Type, lines: &mut Lines) {
        self.events += 1;
        self.flush();
        if let Some((object, version)) = event::told(entry, what) {
            lines.append(what, object, version, &mut self.own);
        }
    }

    fn flush(&mut self) {
        if let Some((lines, from, to)) = self.run.take() {
            self.own.extend_from_slice(&lines.slice(from, to));
        }
    }

    fn len(&self) -> usize {
        let run = self.run.as_ref();
        self.own.len() + run.map_or(0, |(lines, from, to)| lines.slice(*from, *to).len())
    }

    fn finish(mut self) -> (usize, Bytes) {
        if self.own.is_empty()
            && let Some((lines, from, to)) = self.run.take()
        {
            return (self.events, lines.slice(from, to));
        }
        self.flush();
        (self.events, self.own.into())
    }
}
