//! What is written down of callers, for those who have to account for it: who was not let in and why, and a sample of
//! those who were. Streams and lists are written down each, where they are counted (`api::consumers`).
//!
//! Never a credential, and never an object: of what was asked for only its path, and the permission that was missing.
//! Whoever makes up calls cannot fill the disk: beyond so many lines a second they are counted, and the next line
//! says how many there were.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{AuthError, identity::Subject, peer::Peer};

/// What is called: a method of gRPC, or a verb and a path.
#[derive(Clone, Debug, Default)]
pub struct Called(Arc<str>);

/// Of so many calls that were let in one is written down.
const SAMPLE: u64 = 100;
/// Lines a second of calls that were not.
const LINES: u64 = 200;
/// Characters of what a caller wrote that go into a line.
const LONGEST: usize = 256;

impl Called {
    /// A method or path, as it came.
    pub fn new(text: &str) -> Self {
        Self(clip(text).into())
    }
}

/// As much of what a caller wrote as goes into a line of the log.
pub fn clip(text: &str) -> &str {
    let end = text.char_indices().nth(LONGEST);
    end.map_or(text, |(end, _)| &text[..end])
}

/// Counts and logs a call that was not let in.
pub fn denied(called: &Called, subject: Option<&Subject>, peer: Option<&Peer>, error: &AuthError) {
    static LINES: Lines = Lines::new();
    let reason = match error {
        AuthError::Unauthenticated(_) => "unauthenticated",
        AuthError::Forbidden { .. } => "forbidden",
        AuthError::Invalid(_) => "invalid",
        AuthError::Unavailable(_) => "unavailable",
        AuthError::Busy(_) | AuthError::TooMany(_) => "busy",
    };
    metrics::counter!("informerd_auth_denied_total", "reason" => reason).increment(1);
    let Some(left_out) = LINES.next(Instant::now()) else {
        return;
    };
    tracing::warn!(
        target: "informerd::audit",
        event = "denied",
        reason,
        method = &*called.0,
        user = subject.map(|subject| subject.identity().user.as_str()),
        impersonator = subject.and_then(|subject| subject.impersonator()).map(|real| real.user.as_str()),
        by = subject.map(|subject| subject.method().as_str()),
        peer = peer.and_then(Peer::address).map(tracing::field::display),
        why = %error,
        left_out = (left_out > 0).then_some(left_out),
    );
}

/// Logs one of so many calls that were let in.
pub fn allowed(called: &Called, subject: &Subject, peer: &Peer) {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    if !CALLS.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE) {
        return;
    }
    tracing::info!(
        target: "informerd::audit",
        event = "allowed",
        one_of = SAMPLE,
        method = &*called.0,
        user = subject.identity().user,
        impersonator = subject.impersonator().map(|real| real.user.as_str()),
        by = subject.method().as_str(),
        peer = peer.address().map(tracing::field::display),
    );
}

/// No more than [`LINES`] a second.
struct Lines(Mutex<Second>);

struct Second {
    begun: Option<Instant>,
    lines: u64,
    left_out: u64,
}

impl Lines {
    const fn new() -> Self {
        Self(Mutex::new(Second {
            begun: None,
            lines: 0,
            left_out: 0,
        }))
    }

    /// Whether a line may be written, and how many were left out before it.
    fn next(&self, now: Instant) -> Option<u64> {
        let mut second = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |begun| now.saturating_duration_since(begun) >= Duration::from_secs(1);
        if second.begun.is_none_or(is_over) {
            second.begun = Some(now);
            second.lines = 0;
        }
        if second.lines >= LINES {
            second.left_out += 1;
            return None;
        }
        second.lines += 1;
        Some(std::mem::take(&mut second.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn beyond_so_many_lines_a_second_they_are_counted() {
        let lines = Lines::new();
        let written = (0..1000).filter(|_| lines.next(Instant::now()) == Some(0));
        assert_eq!(written.count(), 200);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(lines.next(Instant::now()), Some(800));
        assert_eq!(lines.next(Instant::now()), Some(0));
    }

    #[test]
    fn of_a_long_path_only_the_beginning_is_kept() {
        assert_eq!(Called::new(&"é".repeat(1000)).0.chars().count(), LONGEST);
    }
}
