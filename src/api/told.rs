//! What a watch is told about what it selects: which changes, and whether each of them.

use std::{collections::BTreeSet, sync::Arc};

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
    /// Parts of the scope that the consumer may not have at present, see [`Part`].
    withheld: BTreeSet<String>,
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
            withheld: BTreeSet::new(),
            hash: crate::digest::entry("watch", &hash, &format!("{changes:?}")),
        }
    }

    /// The digest of what a consumer holds that is complete here; where that is known.
    pub fn digest(&self, shard: &Shard<Object>, position: &Position) -> Option<u64> {
        // Of what is not told, no version is known.
        let all = self.changes == Changes::All && self.withheld.is_empty();
        all.then(|| self.selection.digest(shard, position, None))
            .flatten()
    }

    /// Withholds these parts from now on, and no others.
    pub fn withhold(&mut self, parts: &BTreeSet<String>) {
        self.withheld.clone_from(parts);
    }

    /// What is withheld.
    pub fn withheld(&self) -> &BTreeSet<String> {
        &self.withheld
    }

    /// Some parts of the scope.
    pub fn parts(&self, parts: BTreeSet<String>) -> Part {
        let selection = self.selection.clone();
        Part { selection, parts }
    }

    fn is_withheld(&self, namespace: &str) -> bool {
        // Mostly nothing is.
        !self.withheld.is_empty() && has(&self.withheld, namespace)
    }
}

/// Parts of a scope that a right of its own goes with: namespaces that it names; one without a name is all of it.
#[derive(Debug)]
pub struct Part {
    selection: Arc<Selection>,
    parts: BTreeSet<String>,
}

impl Part {
    /// Whether a shard has any of it.
    pub fn touches(&self, shard: &Shard<Object>) -> bool {
        shard.namespace().is_empty() || has(&self.parts, shard.namespace())
    }
}

fn has(parts: &BTreeSet<String>, namespace: &str) -> bool {
    parts.contains("") || parts.contains(namespace)
}

/// Of a range within a scope that names namespaces; that of all has no name.
fn namespace_of(range: &KeyRange) -> &str {
    match range {
        KeyRange::All => "",
        KeyRange::Namespace(namespace) => namespace,
        KeyRange::One(key) => key.namespace(),
    }
}

impl Select<Object> for Part {
    fn ranges(&self) -> Vec<KeyRange> {
        let mut ranges = self.selection.ranges();
        ranges.retain(|range| has(&self.parts, namespace_of(range)));
        ranges
    }

    fn in_scope(&self, key: &Key) -> bool {
        self.selection.in_scope(key) && has(&self.parts, key.namespace())
    }

    fn matches(&self, object: &Object) -> bool {
        self.selection.matches(object)
    }

    fn is_filter(&self) -> bool {
        self.selection.is_filter()
    }

    fn is_everything(&self) -> bool {
        false
    }
}

impl Select<Object> for Told {
    fn ranges(&self) -> Vec<KeyRange> {
        let mut ranges = self.selection.ranges();
        ranges.retain(|range| !self.is_withheld(namespace_of(range)));
        ranges
    }

    fn in_scope(&self, key: &Key) -> bool {
        self.selection.in_scope(key) && !self.is_withheld(key.namespace())
    }

    fn matches(&self, object: &Object) -> bool {
        self.selection.matches(object)
    }

    fn is_filter(&self) -> bool {
        self.selection.is_filter()
    }

    fn is_everything(&self) -> bool {
        let all = self.selection.is_everything() && self.withheld.is_empty();
        all && self.changes == Changes::All && !self.folded
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
