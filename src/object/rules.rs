//! Prune rules, masks and the values to read on the way, compiled into one tree.
//!
//! The tree has a node only where something is said, so a parse walks with it and takes everything below or
//! beside a node in one step. One tree rather than one for each purpose is what makes decoding one pass.

use super::path::{Path, Segment};

/// What becomes of a value for which its node has no more to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Kept, with all that is not named below it.
    Keep,
    /// On the way to something kept: an object or array stays, as the shape around it, and all that is not named
    /// below it goes; anything else goes whole.
    Shape,
    /// Dropped. Nodes below only read values.
    Drop,
}

/// One place in an object; the root is an object's own.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) fate: Fate,
    /// Slots that take the text of the value here.
    pub(super) captures: Vec<usize>,
    /// By name. Those that lead to captures come first.
    fields: Vec<(Box<str>, Node)>,
    pub(super) items: Option<Box<Node>>,
    /// Whether this node or one below it has captures.
    reads: bool,
}

impl Node {
    pub(super) fn new(fate: Fate) -> Self {
        Self {
            fate,
            captures: Vec::new(),
            fields: Vec::new(),
            items: None,
            reads: false,
        }
    }

    /// Whether a value here or below is read: then the key that leads here must be unique.
    pub(super) fn reads(&self) -> bool {
        self.reads
    }

    /// Nothing is said of what is below.
    pub(super) fn is_leaf(&self) -> bool {
        self.fields.is_empty() && self.items.is_none()
    }

    /// The node of a member, and its place among those of this node.
    pub(super) fn field(&self, name: &str) -> Option<(usize, &Node)> {
        let at = self.fields.iter().position(|(field, _)| **field == *name)?;
        Some((at, &self.fields[at].1))
    }

    /// What becomes of a member or item that has no node.
    pub(super) fn rest(&self) -> Fate {
        match self.fate {
            Fate::Keep => Fate::Keep,
            Fate::Shape | Fate::Drop => Fate::Drop,
        }
    }

    /// Whether a value that begins with this byte stays.
    pub(super) fn emits(&self, first: u8) -> bool {
        match self.fate {
            Fate::Keep => true,
            Fate::Shape => matches!(first, b'{' | b'['),
            Fate::Drop => false,
        }
    }

    /// Keeps the value at `path`, whole; the tree has no drop rules yet.
    pub(super) fn keep(&mut self, path: &Path) {
        let mut node = self;
        for segment in path.segments() {
            if node.fate == Fate::Keep {
                return;
            }
            node.fate = Fate::Shape;
            node = node.child(segment);
        }
        *node = Node::new(Fate::Keep);
    }

    /// Drops the value at `path`, whole; the tree has no captures yet.
    pub(super) fn drop_at(&mut self, path: &Path) {
        let mut node = self;
        for segment in path.segments() {
            if node.fate == Fate::Drop {
                return;
            }
            node = node.child(segment);
        }
        *node = Node::new(Fate::Drop);
    }

    /// Takes the text of the value at `path` into `slot`, whatever its fate.
    pub(super) fn capture(&mut self, path: &Path, slot: usize) {
        let mut node = self;
        node.reads = true;
        for segment in path.segments() {
            node = node.child(segment);
            node.reads = true;
        }
        node.captures.push(slot);
    }

    /// Puts the members that lead to captures first, which is where repeated keys are looked for.
    pub(super) fn finish(mut self) -> Self {
        self.fields.sort_by_key(|(_, node)| !node.reads);
        self.fields = self
            .fields
            .into_iter()
            .map(|(name, node)| (name, node.finish()))
            .collect();
        self.items = self.items.map(|node| Box::new(node.finish()));
        self
    }

    /// Whether the value at `path` is gone: it or an ancestor is dropped, or it is only partly kept.
    pub(super) fn drops(&self, path: &Path) -> bool {
        let mut node = self;
        for segment in path.segments() {
            let below = match segment {
                Segment::Field(name) => node.field(name).map(|(_, node)| node),
                Segment::AllItems => node.items.as_deref(),
            };
            match below {
                Some(below) => node = below,
                None => return node.rest() == Fate::Drop,
            }
        }
        node.fate != Fate::Keep
    }

    /// The node one step down; made with the fate that the value has without it.
    fn child(&mut self, segment: &Segment) -> &mut Node {
        let fate = self.rest();
        match segment {
            Segment::AllItems => self.items.get_or_insert_with(|| Box::new(Node::new(fate))),
            Segment::Field(name) => {
                let at = self
                    .fields
                    .iter()
                    .position(|(field, _)| field == name)
                    .unwrap_or_else(|| {
                        self.fields.push((name.clone(), Node::new(fate)));
                        self.fields.len() - 1
                    });
                &mut self.fields[at].1
            }
        }
    }
}
