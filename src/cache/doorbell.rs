//! Wakes one task, and knows whether that is waiting.
//!
//! Not tokio's `Notify`, which does not tell whoever rings whether anybody was waiting, and keeps a list of waiters under
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

/// See the module's documentation. One task at a time waits by it.
#[derive(Default)]
pub struct Doorbell {
    state: AtomicU8,
    waiter: AtomicWaker,
}

impl Doorbell {
    /// Wakes who waits, or has its next wait end at once. Whether somebody was waiting.
    pub fn ring(&self) -> bool {
        // A swap also where it was rung before: what was published until now is seen by whoever answers it from now on.
        let waited = self.state.swap(RUNG, Ordering::AcqRel) == WAITING;
        if waited {
            self.waiter.wake();
        }
        waited
    }

    /// Until it was rung; whoever waited looks then. Nothing is lost by giving up the wait.
    pub async fn rung(&self) {
        poll_fn(|cx| self.poll_rung(cx)).await;
    }

    fn poll_rung(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.becomes(RUNG, BUSY) {
            return Poll::Ready(());
        }
        self.waiter.register(cx.waker());
        // Whoever rings from here on finds the waker, and before is found here.
        if !self.becomes(BUSY, WAITING) && self.becomes(RUNG, BUSY) {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn becomes(&self, from: u8, to: u8) -> bool {
        let became = self
            .state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        became.is_ok()
    }

    /// Whether it was rung and nobody has looked since.
    pub(super) fn is_rung(&self) -> bool {
        self.state.load(Ordering::Acquire) == RUNG
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

    use super::Doorbell;

    #[test]
    fn it_tells_whoever_rings_whether_somebody_was_waiting() {
        let bell = Doorbell::default();
        assert!(!bell.ring(), "nobody has come to wait");
        assert!(!bell.ring() && bell.is_rung());
        assert!(bell.rung().now_or_never().is_some());
        assert!(!bell.is_rung());
        assert!(!bell.ring(), "whoever looks does not wait");
        assert!(bell.rung().now_or_never().is_some());
        assert!(bell.rung().now_or_never().is_none());
        assert!(bell.ring());
        assert!(!bell.ring(), "it was told before");
        assert!(bell.rung().now_or_never().is_some());
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
