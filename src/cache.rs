//! The store of one kind: immutable states, a change index and a journal, published by one writer.
//!
//! Nobody locks it. A shard's [`Writer`] is owned by its source task; it changes its own copy and publishes
//! one immutable [`State`] per upstream batch. Readers load the latest state and walk it; every consumer is a
//! [`Cursor`], not a queue, so a slow one costs its cursor and nothing else. States share their structure, so
//! a kept one costs only what has changed since.
//!
//! A broadcast channel per consumer, or a lock around a map, was refused: the first lets one slow reader
//! either block the writer or lose events, the second makes a 100,000-object list stop the world.
//!
//! Everything here is generic over the [`Item`], because the readiness board is the same machine over
//! verdicts, and free of I/O and of clocks (times come in as arguments), so that it can be simulated.

use std::fmt;

use crate::object::{Key, Object};

pub mod cursor;
pub mod doorbell;
pub mod fold;
pub mod journal;
pub mod kind;
pub mod namespaces;
mod past;
pub mod select;
pub mod selection;
pub mod shard;
#[cfg(test)]
mod simulation;
pub mod state;
pub mod wake;
pub mod writer;

pub use cursor::{Cursor, Hold, Part, ResetReason, Step};
pub use doorbell::Doorbell;
pub use fold::{Batch, EntryRef, Event, What};
pub use journal::{Encoded, Entry, Gap, Journal, Limits, ProjectionId, Segment};
pub use kind::{Catalog, Identity, Kind, Use};
pub use select::{KeyRange, Select};
pub use selection::Selection;
pub use shard::{Counters, Phase, Shard, Status};
pub use state::{Change, Position, Resolution, Slot, State};
pub use wake::{Subscription, WakeScope};
pub use writer::{Applied, History, Unreadable, Writer};

/// What a shard holds. Cheap to share, never changed once it is in.
pub trait Item: fmt::Debug + Send + Sync + 'static {
    /// What names it within its kind.
    fn key(&self) -> &Key;
    /// Tells it from another item that had the same key before or has it after.
    fn uid(&self) -> &str;
    /// Changes whenever the item does; opaque here, but compared numerically where it is a number.
    fn version(&self) -> &str;
    /// Bytes that it holds in memory, what the allocator adds included.
    fn size(&self) -> usize;
    /// Whether a newer version exists upstream that could not be decoded.
    fn is_stale(&self) -> bool;
    /// The same item, marked stale.
    #[must_use]
    fn to_stale(&self) -> Self;
}

impl Item for Object {
    fn key(&self) -> &Key {
        &self.key
    }

    fn uid(&self) -> &str {
        &self.uid
    }

    fn version(&self) -> &str {
        &self.resource_version
    }

    fn size(&self) -> usize {
        self.memory()
    }

    fn is_stale(&self) -> bool {
        self.stale
    }

    fn to_stale(&self) -> Self {
        Self {
            stale: true,
            ..self.clone()
        }
    }
}

/// Why an item was changed or removed, as the writer knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Created or modified.
    Changed,
    /// Deleted upstream.
    Deleted,
    /// It no longer matches the selector of a cursor. Never in a journal.
    LeftSelector,
    /// Found missing by a relist.
    Vanished,
    /// Another item took its key.
    Replaced,
    /// Gone from a kind that is watched by a selector: deleted, or changed so that it no longer matches.
    DeletedOrLeft,
    /// It is no longer in the scope of a cursor, since its reader may not have it any more. Never in a journal.
    Revoked,
}

/// Of several items under one key, the numeric order of their versions; `None` where they have none.
pub(crate) fn version_number(item: &impl Item) -> Option<u64> {
    item.version().parse().ok()
}
