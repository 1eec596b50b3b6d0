//! What lies between a pump and its subscriber: of each object the latest, in the order of their first change.
//!
//! It never fills up, so whoever puts in never waits; and it never holds more than one handle an object, however
//! slow the other end is. A bounded channel would hold up the feed, an unbounded one would hold a history.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures::Stream;
use tokio::sync::Notify;

use super::Handle;
use crate::object::Key;

/// A queue's two ends.
pub(super) fn queue() -> (Sender, Receiver) {
    let shared = Arc::new(Shared::default());
    (Sender(shared.clone()), Receiver(shared))
}

/// The end to put in. The receiver ends when it is dropped.
#[derive(Debug)]
pub(super) struct Sender(Arc<Shared>);

/// The end to take from.
#[derive(Debug)]
pub(super) struct Receiver(Arc<Shared>);

/// Looks at a queue from outside.
#[derive(Debug)]
pub(super) struct Meter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Given a permit when the receiver is dropped.
    abandoned: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The keys of `latest`, each once.
    order: VecDeque<Key>,
    latest: HashMap<Key, Arc<Handle>>,
    closed: bool,
    waker: Option<Waker>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    /// Puts handles in; a later one takes the place of an earlier one of the same object.
    pub(super) fn put(&self, handles: impl IntoIterator<Item = Arc<Handle>>) {
        let mut state = self.0.lock();
        for handle in handles {
            let key = handle.key().clone();
            if state.latest.insert(key.clone(), handle).is_none() {
                state.order.push_back(key);
            }
        }
        let waker = if state.order.is_empty() {
            None
        } else {
            state.waker.take()
        };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Until the receiver is dropped.
    pub(super) async fn abandoned(&self) {
        self.0.abandoned.notified().await;
    }

    /// Tells the depth, for as long as anybody asks.
    pub(super) fn meter(&self) -> Meter {
        Meter(self.0.clone())
    }
}

impl Meter {
    /// How many objects wait.
    pub(super) fn depth(&self) -> usize {
        self.0.lock().latest.len()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.abandoned.notify_one();
    }
}

impl Stream for Receiver {
    type Item = Arc<Handle>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.lock();
        let next = state
            .order
            .pop_front()
            .and_then(|key| state.latest.remove(&key));
        match next {
            Some(handle) => Poll::Ready(Some(handle)),
            None if state.closed => Poll::Ready(None),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;
    use crate::object::{Object, tests::object};

    fn handle(name: &str, version: &str) -> Arc<Handle> {
        let object = Object {
            resource_version: version.into(),
            ..object("", name)
        };
        Arc::new(Handle::live(Arc::new(object)))
    }

    fn taken(receiver: &mut Receiver) -> Option<(String, String)> {
        let handle = receiver.next().now_or_never()??;
        let object = handle.object()?;
        Some((object.key.to_string(), object.resource_version.to_string()))
    }

    #[test]
    fn only_the_latest_of_each_object_waits() {
        let (sender, mut receiver) = queue();
        sender.put([handle("a", "1"), handle("b", "2"), handle("a", "3")]);
        assert_eq!(sender.meter().depth(), 2);
        assert_eq!(taken(&mut receiver), Some(("a".into(), "3".into())));
        sender.put([handle("a", "4")]);
        assert_eq!(taken(&mut receiver), Some(("b".into(), "2".into())));
        assert_eq!(taken(&mut receiver), Some(("a".into(), "4".into())));
        assert_eq!(taken(&mut receiver), None);
    }

    #[tokio::test]
    async fn a_receiver_that_waits_is_woken_and_ends_with_the_sender() {
        let (sender, mut receiver) = queue();
        let reading = tokio::spawn(async move {
            (
                receiver.next().await.is_some(),
                receiver.next().await.is_none(),
            )
        });
        tokio::task::yield_now().await;
        sender.put([handle("a", "1")]);
        tokio::task::yield_now().await;
        drop(sender);
        assert!(matches!(reading.await, Ok((true, true))));
    }

    #[tokio::test]
    async fn a_sender_learns_that_nobody_takes_any_more() {
        let (sender, receiver) = queue();
        assert!(sender.abandoned().now_or_never().is_none());
        drop(receiver);
        sender.abandoned().await;
    }
}
