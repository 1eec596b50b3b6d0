//! The words that the state machine and its driver exchange: what may happen, what is to be done about it, and
//! which states there are.

use std::{
    borrow::Cow,
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    failure::Failure,
    request::{Request, Revision},
};
use crate::{
    cache::{History, Phase},
    config::{Consistency, KindConfig, ListStrategy, Start, UpstreamConfig},
};

/// What a machine is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How a list is read.
    pub strategy: ListStrategy,
    /// Whether the very first list may be as old as the API server's watch cache.
    pub any: bool,
    /// Objects in a page.
    pub page_size: u32,
    /// Watch whether or not anybody uses the kind.
    pub eager: bool,
    /// Times.
    pub timing: Timing,
}

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Silence of a watch after which it counts as half-open, for a kind that sends bookmarks.
    pub bookmark_patience: Duration,
    /// Until response headers. The clients give up earlier by themselves; this is for when they do not.
    pub header_patience: Duration,
    /// The longest silence inside a list.
    pub body_patience: Duration,
    /// For how long a watch is asked for; chosen by chance, so that watches do not end together.
    pub watch_timeout: RangeInclusive<Duration>,
    /// The same for a kind without bookmarks, whose revision comes on only from watch to watch: well below the five
    /// minutes after which the API server forgets.
    pub unproven_timeout: RangeInclusive<Duration>,
    /// How long a kind that is watched on first use goes on without a user.
    pub idle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            bookmark_patience: Duration::from_secs(130),
            header_patience: Duration::from_secs(90),
            body_patience: Duration::from_secs(30),
            watch_timeout: Duration::from_secs(300)..=Duration::from_secs(600),
            unproven_timeout: Duration::from_secs(90)..=Duration::from_secs(150),
            idle: Duration::from_secs(600),
        }
    }
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Discovery found the kind.
    Served,
    /// Discovery found it in another version: what is cached does not look like that any more.
    Changed,
    /// Discovery is sure that the kind is gone.
    Gone,
    /// Discovery has not found the kind.
    Absent {
        /// Whether the API server said so, or has not been heard yet.
        known: bool,
        /// For a person.
        why: Arc<str>,
    },
    /// There is a user.
    Used,
    /// The last user left.
    Unused,
    /// Discovery missed the kind for a moment, and finds it again as it was.
    Found,
    /// The API server is of another version than before.
    Upgraded,
    /// The clients were rebuilt.
    Renewed,
    /// Response headers came, saying yes.
    Opened,
    /// Something came, nothing that means anything by itself.
    Bytes,
    /// A page of a list is complete.
    Page {
        /// Of the list.
        revision: Revision,
        /// For the next page; `None` where this was the last.
        next: Option<String>,
    },
    /// A watch told a change; the revision where it could be read.
    Change(Option<Revision>),
    /// A bookmark.
    Bookmark(Revision),
    /// The bookmark after which what a stream began with is complete.
    EndMark(Revision),
    /// What came cannot be if revisions go forward in one history.
    Suspect,
    /// The answer to a probe.
    Probed(Revision),
    /// The watch's body ended; `whole` if not in the middle of a line.
    Ended {
        /// Between events.
        whole: bool,
    },
    /// The request, or the open watch, failed.
    Failed(Failure),
    /// The time of [`Machine::deadline`] has come.
    Tick,
}

/// What to do, first with the data, then with the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Step {
    /// With the shard's data.
    pub data: Data,
    /// With the connection.
    pub io: Io,
}

/// What becomes of the shard's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Nothing.
    Keep,
    /// The change or bookmark goes to the writer.
    Apply,
    /// The change goes to the pending list.
    Fold,
    /// The pending list was cut: it is forgotten.
    Discard,
    /// The pending list is complete.
    Publish {
        /// Of the list.
        revision: Revision,
        /// Whether it goes on from what is there.
        history: History,
        /// When it was current; `None` where the API server was free to answer with something old.
        proven: Option<Instant>,
    },
    /// The kind proves nothing between events.
    Unproven,
    /// The kind is gone: show that to its readers.
    Retire,
    /// Serve nothing until the next complete list.
    Unsync,
    /// As unsynced, and what is there is of no use either.
    Forget,
}

/// What becomes of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Io {
    /// Go on with what is open, if anything is.
    Keep,
    /// Close it.
    Close,
    /// Close it and send this.
    Send(Request),
}

/// What a machine is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// For the kind to be served, or used.
    Waiting,
    /// Reading a list in pages.
    Listing(Listing),
    /// Reading a list as the beginning of a watch.
    Streaming(Open),
    /// Following the shard.
    Watching(Open),
    /// Asking for the API server's revision.
    Probing(Open),
    /// Something failed; until when.
    BackingOff(Instant),
}

/// A list in pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The connection of the current page.
    pub open: Open,
    /// The revision of the first page, once that is complete.
    pub revision: Option<Revision>,
}

/// A request and its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// When the headers came.
    pub opened: Option<Instant>,
    /// When something came last, or the request was sent.
    pub heard: Instant,
    /// How long a watch was to last.
    pub asked: Duration,
    /// Changes that it told.
    pub changes: u64,
}

/// Why a list is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListCause {
    /// There is none yet.
    Initial,
    /// Nobody used the kind for a while.
    Resumed,
    /// The kind was gone.
    Reappeared,
    /// It is served in another version.
    Version,
    /// The revision to watch from is gone from the API server's history.
    Expired,
    /// The watch is silent though the API server goes on.
    Silent,
    /// The API server's revision went back.
    History,
    /// The API server keeps failing the watch at one place.
    Error,
    /// Events came that cannot be.
    Disordered,
}

impl ListCause {
    /// For metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Resumed => "resumed",
            Self::Reappeared => "reappeared",
            Self::Version => "version",
            Self::Expired => "expired",
            Self::Silent => "silent",
            Self::History => "history",
            Self::Error => "error",
            Self::Disordered => "disordered",
        }
    }

    /// One word and a sentence.
    pub(super) fn report(self) -> (&'static str, &'static str) {
        match self {
            Self::Initial => ("InitialList", "the first list is under way"),
            Self::Resumed => ("Resumed", "listed again after nobody used it for a while"),
            Self::Reappeared => (
                "Reappeared",
                "listed again after the API server did not serve it for a while",
            ),
            Self::Version => (
                "VersionChanged",
                "listed again in the version that the API server now serves",
            ),
            Self::Expired => (
                "Expired",
                "the API server has forgotten the revision to go on from: listed again",
            ),
            Self::Silent => (
                "Silent",
                "the watch is silent though the API server goes on: listed again",
            ),
            Self::History => (
                "HistoryVoid",
                "the API server's revision went back, was etcd restored? Listed again",
            ),
            Self::Error => (
                "WatchError",
                "the watch keeps failing at the same place: listed again",
            ),
            Self::Disordered => ("Disordered", "events came out of order: listed again"),
        }
    }
}

/// How well the shard is known, for its readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// See [`Phase`].
    pub phase: Phase,
    /// One word.
    pub reason: Cow<'static, str>,
    /// A sentence.
    pub message: Cow<'static, str>,
}

impl Settings {
    /// As configured.
    pub fn new(kind: &KindConfig, upstream: &UpstreamConfig) -> Self {
        Self {
            strategy: kind.list,
            any: kind.consistency == Consistency::Any,
            page_size: kind.page_size,
            eager: kind.start == Start::Eager,
            timing: Timing {
                bookmark_patience: upstream.bookmark_patience,
                // The client's own timeout comes first, and says more.
                header_patience: upstream.request_timeout.max(upstream.list_timeout)
                    + Duration::from_secs(30),
                ..Timing::default()
            },
        }
    }
}

impl Step {
    pub(super) fn keep() -> Self {
        Self {
            data: Data::Keep,
            io: Io::Keep,
        }
    }

    pub(super) fn data(data: Data) -> Self {
        Self { data, io: Io::Keep }
    }
}

impl Open {
    pub(super) fn sent(now: Instant, asked: Duration) -> Self {
        Self {
            opened: None,
            heard: now,
            asked,
            changes: 0,
        }
    }
}

impl State {
    /// Its name, for logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Listing(_) => "listing",
            Self::Streaming(_) => "streaming",
            Self::Watching(_) => "watching",
            Self::Probing(_) => "probing",
            Self::BackingOff(_) => "backing_off",
        }
    }

    pub(super) fn open(&mut self) -> Option<&mut Open> {
        match self {
            Self::Listing(listing) => Some(&mut listing.open),
            Self::Streaming(open) | Self::Watching(open) | Self::Probing(open) => Some(open),
            Self::Waiting | Self::BackingOff(_) => None,
        }
    }
}

impl Report {
    pub(super) fn starting() -> Self {
        Self {
            phase: Phase::Waiting,
            reason: "Discovering".into(),
            message: "the API server has not said yet what it serves".into(),
        }
    }

    pub(super) fn not_served(why: &str) -> Self {
        Self {
            phase: Phase::Waiting,
            reason: "NotServed".into(),
            message: why.to_owned().into(),
        }
    }

    pub(super) fn not_used() -> Self {
        Self {
            phase: Phase::Waiting,
            reason: "NotUsed".into(),
            message: "nobody has asked for this kind of late".into(),
        }
    }
}
