//! What is to be thought of things: one verdict for each target, with the evidence that it rests on.
//!
//! Controllers find out ([`Finding`]), the [`Board`] shows ([`Verdict`]). A verdict is never Ready from silence:
//! one whose evidence has an end becomes Unknown at that end, and all of a kind do while the kind is not known
//! well enough. Where evidence comes back, so does what was found.
//!
//! The board is the cache's machine over verdicts, one shard for each kind, so that streams of verdicts resume,
//! fall behind and catch up as those of objects do. A table of its own with a channel to each watcher was refused
//! for the reasons that the cache has.

mod board;
#[cfg(test)]
mod tests;
mod verdict;

pub use board::{Board, Contribution, Judged, describe_metrics};
pub use verdict::{
    Answer, Basis, Condition, Finding, MAX_PARTS, Part, Parts, Standing, State, Target, Verdict,
    Window,
};
