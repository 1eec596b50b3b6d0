//! Wakes one task, and knows whether that is waiting, or has slept through it.
//!
//! Not tokio's `Notify`, which does not tell whoever rings what became of that, and keeps a list of waiters under
//! a lock where there is never more than one: with a thousand consumers on a shard that is the better part of a wave.

use std::{
    fmt,
    future::poll_fn,
    sync::atomic::{AtomicU8, Ordering},
    task::{Context, Poll},
};

use futures::task::AtomicWaker;

/// Who waits by it has looked, and is at something else.
const BUSY: u8 = 0;
/// It waits.
const WAITING: u8 = 1;
/// It was rung, and nobody has looked since.
const RUNG: u8 = 2;
/// Nor had when that was asked before.
const ASLEEP: u8 = 3;

/// See the module's documentation. One task at a time waits by it.
#[derive(Default)]
pub struct Doorbell {
    state: AtomicU8,
    waiter: AtomicWaker,
}

/// What whoever rang found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Somebody waited, and is woken.
    Waiting,
    /// Nobody waits; the next wait ends at once.
    Busy,
    /// Nobody has looked since it was rung before.
    Asleep,
}

impl Doorbell {
    /// Wakes who waits, or has its next wait end at once.
    pub fn ring(&self) -> Found {
        let rung = |state| match state {
            BUSY | WAITING => RUNG,
            rung => rung,
        };
        // Written also where it was rung before: what was published until now is seen by whoever looks from now on.
        match self.update(rung) {
            WAITING => {
                self.waiter.wake();
                Found::Waiting
            }
            BUSY => Found::Busy,
            _ => Found::Asleep,
        }
    }

    /// Until it was rung; whoever waited looks then. Nothing is lost by giving up the wait.
    pub async fn rung(&self) {
        poll_fn(|cx| self.poll_rung(cx)).await;
    }

    fn poll_rung(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_rung() {
            self.waiter.register(cx.waker());
        }
        // Who rings from here on finds the waker; who rang before is found here.
        let waits_or_looks = |state| match state {
            BUSY | WAITING => WAITING,
            _ => BUSY,
        };
        match self.update(waits_or_looks) {
            BUSY | WAITING => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    /// The state before.
    fn update(&self, to: impl FnMut(u8) -> u8) -> u8 {
        self.state.update(Ordering::AcqRel, Ordering::Acquire, to)
    }

    /// Whether it was rung and nobody has looked since.
    pub(super) fn is_rung(&self) -> bool {
        self.state.load(Ordering::Acquire) >= RUNG
    }

    /// Whether it is as it was when this was asked last: rung, and nobody has looked.
    pub(super) fn is_still_rung(&self) -> bool {
        let asked = |state| match state {
            RUNG => ASLEEP,
            other => other,
        };
        self.update(asked) == ASLEEP
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rung = self.is_rung();
        f.debug_struct("Doorbell").field("rung", &rung).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use futures::FutureExt;

    use super::{Doorbell, Found};

    #[test]
    fn it_tells_whoever_rings_what_became_of_that() {
        let bell = Doorbell::default();
        assert_eq!(bell.ring(), Found::Busy, "nobody has come to wait");
        assert_eq!(bell.ring(), Found::Asleep);
        assert!(bell.is_rung() && bell.rung().now_or_never().is_some());
        assert!(!bell.is_rung());
        assert_eq!(bell.ring(), Found::Busy, "whoever looks does not wait");
        assert!(bell.rung().now_or_never().is_some());
        assert!(bell.rung().now_or_never().is_none());
        assert_eq!(bell.ring(), Found::Waiting);
        assert!(bell.rung().now_or_never().is_some());
    }

    #[test]
    fn it_knows_whether_somebody_looked_since_that_was_asked() {
        let bell = Doorbell::default();
        assert!(!bell.is_still_rung());
        bell.ring();
        assert!(!bell.is_still_rung() && bell.is_still_rung());
        assert_eq!(bell.ring(), Found::Asleep);
        assert!(bell.is_still_rung() && bell.is_rung());
        assert!(bell.rung().now_or_never().is_some());
        assert!(!bell.is_still_rung() && !bell.is_rung());
        bell.ring();
        assert!(!bell.is_still_rung());
        assert!(bell.rung().now_or_never().is_some());
        bell.ring();
        assert!(!bell.is_still_rung(), "it was looked at in between");
    }

    #[test]
    fn whoever_slept_is_woken_like_others() {
        let bell = Doorbell::default();
        bell.ring();
        assert!(!bell.is_still_rung() && bell.is_still_rung());
        assert!(bell.rung().now_or_never().is_some());
        assert!(bell.rung().now_or_never().is_none());
        assert_eq!(bell.ring(), Found::Waiting);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_published_before_a_ring_is_seen_after_it() {
        const LAST: u64 = 200_000;
        let (bell, published) = (
            Arc::new(Doorbell::default()),
            Arc::new(AtomicU64::default()),
        );
        let (ringing, publishing) = (bell.clone(), published.clone());
        let writer = tokio::task::spawn_blocking(move || {
            for revision in 1..=LAST {
                publishing.store(revision, Ordering::Relaxed);
                ringing.ring();
            }
        });
        // Hangs where the last ring is lost, or came before what it was for.
        let reader = tokio::spawn(async move {
            while published.load(Ordering::Relaxed) < LAST {
                bell.rung().await;
            }
        });
        writer.await.unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(60), reader)
            .await
            .expect("the last one is seen")
            .unwrap();
    }
}
