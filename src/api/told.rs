//! What a watch is told about what it selects: which changes, and whether each of them.

use std::sync::Arc;

use super::{ask::Ask, query::Query};
use crate::{
    cache::{Item, KeyRange, Position, Select, Selection, Shard},
    object::{Key, Object, Projection},
};

/// Which changes of an object are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// All of them.
    All,
    /// Those that can be seen.
    Visible,
    /// Those of its generation.
    Generation,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Told {
    selection: Arc<Selection>,
    projection: Projection,
    changes: Changes,
    every: bool,
    /// Several changes of one object always become one.
    folded: bool,
    /// Hash of the query and the changes: what the watch's tokens are good for.
    pub hash: u64,
}

impl Told {
    /// Of what is asked for.
    pub fn new(query: &Query, ask: &Ask) -> Self {
        let changes = ask.changes;
        let hash = query.hash.to_string();
        Self {
            selection: query.selection.clone(),
            projection: query.projection.clone(),
            changes,
            every: ask.every,
            folded: ask.min_interval.is_some(),
            hash: crate::digest::entry("watch", &hash, &format!("{changes:?}")),
        }
    }

    /// The digest of what a consumer holds that is complete here; where that is known.
    pub fn digest(&self, shard: &Shard<Object>, position: &Position) -> Option<u64> {
        // Of what is not told, no version is known.
        let all = self.changes == Changes::All;
        all.then(|| self.selection.digest(shard, position, None))
            .flatten()
    }
}

impl Select<Object> for Told {
    fn ranges(&self) -> Vec<KeyRange> {
        self.selection.ranges()
    }

    fn in_scope(&self, key: &Key) -> bool {
        self.selection.in_scope(key)
    }

    fn matches(&self, object: &Object) -> bool {
        self.selection.matches(object)
    }

    fn is_filter(&self) -> bool {
        self.selection.is_filter()
    }

    fn is_everything(&self) -> bool {
        self.selection.is_everything() && self.changes == Changes::All && !self.folded
    }

    fn differs(&self, held: &Object, now: &Object) -> bool {
        let changed = match self.changes {
            Changes::All => held.version() != now.version(),
            Changes::Visible => !self.projection.shows_the_same(held, now),
            Changes::Generation => match (held.generation, now.generation) {
                (Some(held), Some(now)) => held != now,
                // Of a kind without one, any change may be of what is wanted.
                _ => true,
            },
        };
        changed || held.is_stale() != now.is_stale()
    }

    fn is_every(&self) -> bool {
        self.every
    }
}
