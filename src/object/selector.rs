//! Which objects are wanted: Kubernetes's label selectors, and field selectors over the paths of a kind that can
//! be selected by.
//!
//! Field selectors come in two steps, so that a wrong one is refused where it is read and matching needs no names:
//! [`FieldSelector`] is the text understood, [`BoundFieldSelector`] is the same tied to one kind's [`Selectable`].

mod field;
mod label;
mod selectable;

pub use field::{BoundFieldSelector, FieldSelector, FieldSelectorError};
pub use label::{LabelSelector, LabelSelectorError};
pub use selectable::{MAX_SELECTABLE, Selectable, SelectableError};

use super::{Key, Object};

/// Longest text of a selector that is read, in bytes. Every consumer may bring one, and it is kept with its stream.
pub const MAX_BYTES: usize = 16 << 10;
/// Most terms of one, each value of a set counted: a term takes many times its text in memory.
pub const MAX_TERMS: usize = 512;

/// Labels and fields together. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    /// What the labels must be.
    pub labels: LabelSelector,
    /// What the fields must be.
    pub fields: BoundFieldSelector,
}

impl Selector {
    /// Whether the object is wanted.
    pub fn matches(&self, object: &Object) -> bool {
        self.fields.matches(object) && self.labels.matches(&object.labels)
    }

    /// Whether the terms on name and namespace are met, which is all that can be told of a key alone.
    pub fn matches_key(&self, key: &Key) -> bool {
        self.fields.matches_key(key)
    }

    /// Whether it selects every object.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether it reads a value that can change, so that an object may come into it and leave it. Name and
    /// namespace cannot.
    pub fn is_filter(&self) -> bool {
        !self.labels.is_everything() || self.fields.is_filter()
    }

    /// The only name that can match, where `metadata.name` must equal one.
    pub fn name(&self) -> Option<&str> {
        self.fields.name()
    }

    /// The only namespace that can match, where `metadata.namespace` must equal one.
    pub fn namespace(&self) -> Option<&str> {
        self.fields.namespace()
    }
}
