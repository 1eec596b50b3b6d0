//! Bugs that are planted on purpose, one at a time, to see that the tests would find them.
//!
//! A test that has never been red proves little. Each [`Bug`] stands in the code at the one place where the right
//! behaviour lives, and does nothing there unless it is planted. Unit tests have the switches; a daemon has them only
//! when it is built with the feature `planted`, which no default and no release image has: without it [`is`] is
//! `false` at compile time.
//!
//! `INFORMERD_PLANTED=name` plants one in the whole process; in tests `planted::plant` does so in the thread at hand.

/// What can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A relist deletes nothing: what it did not find stays.
    RelistDeletesDropped,
    /// A token is of what the shard has, not of what was sent.
    BookmarkEarly,
    /// A catch-up gives its token with its first piece.
    TokenInsideAtom,
    /// Who holds an object is not told that it has left the selector.
    SelectorExitUntold,
    /// Whether a consumer holds an object is told by the object as it is, not as it was.
    MembershipFromAfter,
    /// A list in pages counts as complete with its first page.
    PartialListPublished,
    /// Nothing is published while a consumer has not looked at what was published before.
    SlowConsumerAwaited,
    /// A stream that is resumed begins with the last change before its token.
    DuplicateAfterResume,
    /// An object that took the name of another is taken for it.
    UidIgnored,
    /// A deleted object leaves the controllers' store though not all have dealt with that.
    KeyLeavesFeedEarly,
    /// A deletion is forgotten, and nobody remembers that it was.
    TombstoneTrimmedSilently,
    /// A catch-up tells of the deletion of what the consumer never knew.
    TombstoneOfUnknown,
    /// Revisions that go back are taken for those of the same history.
    HistoryIgnored,
    /// A token is honoured though the kind was configured otherwise where it was given.
    ForeignConfigAccepted,
    /// VISIBLE compares with the version before the last change, not with what was sent last.
    VisibleAgainstLastChange,
    /// A watch may be silent for as long as it likes.
    HalfOpenUnnoticed,
    /// An object of a list that cannot be decoded counts as missing from it.
    UndecodableSwept,
    /// Some objects never come into the cache, and nobody is told.
    ObjectForgotten,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::RelistDeletesDropped,
        Self::BookmarkEarly,
        Self::TokenInsideAtom,
        Self::SelectorExitUntold,
        Self::MembershipFromAfter,
        Self::PartialListPublished,
        Self::SlowConsumerAwaited,
        Self::DuplicateAfterResume,
        Self::UidIgnored,
        Self::KeyLeavesFeedEarly,
        Self::TombstoneTrimmedSilently,
        Self::TombstoneOfUnknown,
        Self::HistoryIgnored,
        Self::ForeignConfigAccepted,
        Self::VisibleAgainstLastChange,
        Self::HalfOpenUnnoticed,
        Self::UndecodableSwept,
        Self::ObjectForgotten,
    ];

    /// As `INFORMERD_PLANTED` has it: `relist-deletes-dropped`.
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }

    /// By its [`Bug::name`].
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bug| bug.name() == name)
    }
}

#[cfg(not(any(test, feature = "planted")))]
mod switch {
    use super::Bug;

    /// Whether this one is planted: never.
    #[inline(always)]
    pub const fn is(_: Bug) -> bool {
        false
    }
}

#[cfg(any(test, feature = "planted"))]
mod switch {
    use std::{cell::Cell, sync::OnceLock};

    use super::Bug;

    thread_local! {
        static HERE: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether this one is planted, here or in the whole process.
    pub fn is(bug: Bug) -> bool {
        HERE.get().or_else(of_process) == Some(bug)
    }

    /// Plants one in this thread, and runs `test` with it.
    pub fn plant<T>(bug: Bug, test: impl FnOnce() -> T) -> T {
        /// Also where the test panics.
        struct Planted(Option<Bug>);
        impl Drop for Planted {
            fn drop(&mut self) {
                HERE.set(self.0);
            }
        }
        let _planted = Planted(HERE.replace(Some(bug)));
        test()
    }

    fn of_process() -> Option<Bug> {
        static PROCESS: OnceLock<Option<Bug>> = OnceLock::new();
        *PROCESS.get_or_init(|| {
            let name = std::env::var("INFORMERD_PLANTED").ok()?;
            let bug = Bug::named(&name);
            assert!(
                bug.is_some(),
                "INFORMERD_PLANTED={name}: there are {:?}",
                Bug::ALL.map(Bug::name)
            );
            tracing::warn!(name, "a bug is planted in this process");
            bug
        })
    }
}

pub use switch::*;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_planted_here_and_gone_after_the_test_even_if_that_panics() {
        let bug = Bug::UidIgnored;
        assert_eq!(
            (bug.name().as_str(), Bug::named("uid-ignored")),
            ("uid-ignored", Some(bug))
        );
        let before = is(bug);
        plant(bug, || assert!(is(bug) && !is(Bug::BookmarkEarly)));
        let panicked = std::panic::catch_unwind(|| plant(bug, || panic!("on purpose")));
        assert!(panicked.is_err() && is(bug) == before);
    }
}
