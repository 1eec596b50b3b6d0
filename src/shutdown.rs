//! How the process ends: in two phases, so that consumers are told before they are cut.
//!
//! SIGTERM or SIGINT begins to drain: /readyz fails, streams end with a last token, controllers finish what they
//! are at. When the grace period is over, or at a second signal, whatever is left is cut.

use std::{
    fmt,
    future::Future,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::{
    CancellationToken, WaitForCancellationFuture, WaitForCancellationFutureOwned,
};
use tracing::{info, warn};

/// How long draining may take, by default. Below Kubernetes's 30 s, after which it kills.
pub const GRACE: Duration = Duration::from_secs(25);

/// See the module's documentation. Clones are the same shutdown.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    over: CancellationToken,
}

/// How far the shutdown is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nobody has asked for it.
    Running,
    /// No new work; what is under way may finish.
    Draining,
    /// Nothing is waited for any more.
    Over,
}

impl Shutdown {
    /// Not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        if self.over.is_cancelled() {
            Stage::Over
        } else if self.draining.is_cancelled() {
            Stage::Draining
        } else {
            Stage::Running
        }
    }

    /// Begins to drain, as a signal would.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Ends the grace period.
    pub fn cut(&self) {
        self.draining.cancel();
        self.over.cancel();
    }

    /// Until draining begins.
    pub fn draining(&self) -> WaitForCancellationFuture<'_> {
        self.draining.cancelled()
    }

    /// The same, for whoever outlives this handle.
    pub fn draining_owned(&self) -> WaitForCancellationFutureOwned {
        self.draining.clone().cancelled_owned()
    }

    /// Calls `tell` when draining begins; at once if it has.
    pub fn notice(&self, tell: impl Fn() + Send + Sync + 'static) -> Notice {
        let flag = Arc::new(Flag {
            is_up: AtomicBool::new(false),
            tell: Box::new(tell),
        });
        let mut draining = Box::pin(self.draining_owned());
        let waker = Waker::from(flag.clone());
        if draining
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready()
        {
            flag.wake_by_ref();
        }
        Notice {
            flag,
            _draining: draining,
        }
    }

    /// The same, for whoever asks often: without a lock that all others take, too.
    pub fn draining_apart(&self) -> WaitForCancellationFutureOwned {
        self.draining.child_token().cancelled_owned()
    }

    /// Until the grace period is over.
    pub fn over(&self) -> WaitForCancellationFuture<'_> {
        self.over.cancelled()
    }

    /// The same, for whoever outlives this handle.
    pub fn over_owned(&self) -> WaitForCancellationFutureOwned {
        self.over.clone().cancelled_owned()
    }

    /// Listens for SIGTERM and SIGINT from now on; the future carries the shutdown through its phases and ends
    /// when it is over.
    ///
    /// # Errors
    ///
    /// The system lets no handler be installed.
    pub fn on_signals(
        &self,
        grace: Duration,
    ) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let terminate = named("SIGTERM", signal(SignalKind::terminate())?);
        let interrupt = named("SIGINT", signal(SignalKind::interrupt())?);
        let shutdown = self.clone();
        Ok(async move {
            shutdown
                .follow(stream::select(terminate, interrupt), grace)
                .await
        })
    }

    async fn follow(&self, signals: impl Stream<Item = &'static str>, grace: Duration) {
        let mut signals = pin!(signals);
        tokio::select! {
            Some(signal) = signals.next() => info!(signal, grace_seconds = grace.as_secs(), "draining"),
            () = self.draining() => {}
        }
        self.drain();
        tokio::select! {
            Some(signal) = signals.next() => warn!(signal, "a second signal: ending at once"),
            () = tokio::time::sleep(grace) => warn!(grace_seconds = grace.as_secs(), "the grace period is over"),
            () = self.over() => {}
        }
        self.cut();
    }
}

/// Knows whether draining has begun, for those who look often and are many: to look at the shutdown itself, or to
/// wait for it anew, takes a lock that all of them share.
pub struct Notice {
    flag: Arc<Flag>,
    /// Raises the flag while it is held.
    _draining: Pin<Box<WaitForCancellationFutureOwned>>,
}

struct Flag {
    is_up: AtomicBool,
    tell: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_given = self.is_given();
        f.debug_struct("Notice")
            .field("is_given", &is_given)
            .finish()
    }
}

impl Notice {
    /// Whether draining has begun.
    pub fn is_given(&self) -> bool {
        self.flag.is_up.load(Ordering::Acquire)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_up.store(true, Ordering::Release);
        (self.tell)();
    }
}

fn named(name: &'static str, signal: Signal) -> impl Stream<Item = &'static str> + Send {
    stream::unfold(signal, move |mut signal| async move {
        signal.recv().await?;
        Some((name, signal))
    })
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_signal_drains_and_the_grace_period_ends_it() {
        let shutdown = Shutdown::new();
        let (signals, received) = mpsc::unbounded();
        let following = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.follow(received, GRACE).await }
        });
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(shutdown.stage(), Stage::Running);
        signals.unbounded_send("SIGTERM").unwrap();
        shutdown.draining().await;
        let begun = Instant::now();
        assert_eq!(shutdown.stage(), Stage::Draining);
        shutdown.over().await;
        assert_eq!(begun.elapsed(), GRACE);
        following.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_ends_it_at_once() {
        let shutdown = Shutdown::new();
        let begun = Instant::now();
        shutdown
            .follow(
                stream::iter(["SIGTERM", "SIGINT"]).chain(stream::pending()),
                GRACE,
            )
            .await;
        assert_eq!(
            (shutdown.stage(), begun.elapsed()),
            (Stage::Over, Duration::ZERO)
        );
    }

    #[test]
    fn a_notice_is_given_when_draining_begins_and_to_who_comes_later() {
        let shutdown = Shutdown::new();
        let told = Arc::new(AtomicBool::new(false));
        let was_told = || told.swap(false, Ordering::SeqCst);
        let notice = || {
            let told = told.clone();
            shutdown.notice(move || told.store(true, Ordering::SeqCst))
        };
        let early = notice();
        assert!(!early.is_given() && !was_told());
        shutdown.drain();
        assert!(early.is_given() && was_told());

        let late = notice();
        assert!(late.is_given() && was_told());
    }

    #[tokio::test(start_paused = true)]
    async fn draining_that_was_begun_from_within_has_the_same_grace() {
        let shutdown = Shutdown::new();
        shutdown.drain();
        let begun = Instant::now();
        shutdown.follow(stream::pending(), GRACE).await;
        assert_eq!(begun.elapsed(), GRACE);
    }
}
