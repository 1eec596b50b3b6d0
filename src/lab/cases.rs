//! What did happen in the histories: each case that breaks shared caches has to, or the histories prove nothing
//! about it.

use std::fmt;

/// The cases of docs/contract.md, by their numbers there.
const NAMES: [&str; 14] = [
    "a relist deletes",
    "a 410, in the stream and as an answer",
    "a consumer that hardly ever reads",
    "an object leaves a selector",
    "the same name with a new uid",
    "a list that is cut",
    "a token while more is to be sent",
    "duplicates, and events from the past",
    "a relist of what is known",
    "a watch that falls silent",
    "a revision that goes back",
    "a token of what a relist hid from this replica",
    "an object that cannot be decoded",
    "a token from before a change of the configuration",
];

/// How often each was seen.
#[derive(Clone, Copy, Default)]
pub(super) struct Cases([u64; NAMES.len()]);

impl Cases {
    /// Case `number` has occurred.
    pub(super) fn saw(&mut self, number: usize) {
        self.0[number - 1] += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (all, more) in self.0.iter_mut().zip(other.0) {
            *all += more;
        }
    }

    /// Those that never occurred.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let each = NAMES.iter().zip(self.0);
        each.filter(|(_, count)| *count == 0)
            .map(|(name, _)| *name)
            .collect()
    }
}

impl fmt::Display for Cases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, count)) in NAMES.iter().zip(self.0).enumerate() {
            writeln!(f, "case {:>2} {count:>9} times: {name}", at + 1)?;
        }
        Ok(())
    }
}
