//! The common frame of the controllers inside the process: kube's Controller on a feed.
//!
//! A controller says what it reads and how it reconciles one object; this adds the rest: debounce, bounded
//! concurrency, a time limit, backoff by key that begins anew after a success, errors told apart, deletions
//! acknowledged, graceful shutdown, metrics under controller-runtime's names.
//!
//! Watches of its own were refused: kube's `Controller::new` opens one for each controller, and never reconciles
//! what was deleted.

use std::{
    any::Any, error::Error, fmt, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration,
};

use futures::{FutureExt, StreamExt};
use kube::runtime::controller::{self as kube_controller, Config, Controller};
use metrics::{counter, gauge, histogram};
use tokio::time::{Instant, timeout};
use tracing::{debug, error, warn};

use crate::{
    config::Reads,
    feed::{Acknowledger, Feed, Handle},
    heartbeat::Heartbeat,
    object::Key,
    shutdown::Shutdown,
};

pub mod aerospike;
mod backoff;
pub mod members;
pub mod node;
pub mod opinion;
pub mod outdated;
pub mod service;
pub mod workload;
mod workqueue;

pub use kube::runtime::controller::Action;

use backoff::Backoff;
use workqueue::Workqueue;

/// One controller: brings about what one object asks for.
pub trait Reconciler: Send + Sync + 'static {
    /// As in the config.
    const NAME: &'static str;
    /// Everything that it reads, its own kind first.
    const READS: &'static [Reads];

    /// Deals with one object as it is now, or with its deletion where the handle is a tombstone. Called again
    /// for the same state after an error or a restart, so it must not matter how often; never called twice at
    /// once for one key. An object that was deleted and created again may be seen with its new uid only.
    fn reconcile(
        &self,
        handle: Arc<Handle>,
    ) -> impl Future<Output = Result<Action, ReconcileError>> + Send;

    /// Told of each change of an object as it comes; [`Reconciler::reconcile`] follows in any case. kube's queue is a
    /// timer's, and gives out by the millisecond: what somebody waits for, and takes no waiting, is better done here.
    fn glance(&self, _handle: &Handle) {}
}

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// It may go better later: tried again, after longer and longer pauses.
    #[error("{0}")]
    Transient(#[source] Box<dyn Error + Send + Sync>),
    /// It will go no better before the object changes: not tried again until then.
    #[error("{0}")]
    Permanent(#[source] Box<dyn Error + Send + Sync>),
    /// It took too long. Tried again.
    #[error("not done within {0:?}")]
    TimedOut(Duration),
    /// A bug. Tried again.
    #[error("panicked: {0}")]
    Panicked(String),
}

impl ReconcileError {
    /// See [`ReconcileError::Transient`].
    pub fn transient(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Transient(error.into())
    }

    /// See [`ReconcileError::Permanent`].
    pub fn permanent(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Permanent(error.into())
    }

    fn is_permanent(&self) -> bool {
        matches!(self, Self::Permanent(_))
    }
}

/// How a controller works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// An object is reconciled once it has not changed for so long. One that changes more often than that is
    /// never reconciled: keep it far below the rate of changes.
    pub debounce: Duration,
    /// How many objects are reconciled at once.
    pub concurrency: u16,
    /// How long one reconcile may take.
    pub timeout: Duration,
    /// The first pause after a failure; each further one is twice as long.
    pub backoff: Duration,
    /// The longest pause after failures.
    pub backoff_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(50),
            concurrency: 4,
            timeout: Duration::from_secs(60),
            backoff: Duration::from_millis(500),
            backoff_max: Duration::from_secs(300),
        }
    }
}

/// Says what this module's metrics mean.
pub fn describe_metrics() {
    metrics::describe_counter!(
        "controller_runtime_reconcile_total",
        "Reconciles, by controller and result."
    );
    metrics::describe_counter!(
        "controller_runtime_reconcile_errors_total",
        "Reconciles that failed."
    );
    metrics::describe_counter!(
        "controller_runtime_terminal_reconcile_errors_total",
        "Reconciles that failed for good: not tried again before the object changes."
    );
    metrics::describe_counter!(
        "controller_runtime_reconcile_panics_total",
        "Reconciles that panicked."
    );
    metrics::describe_histogram!(
        "controller_runtime_reconcile_time_seconds",
        "Time that a reconcile took."
    );
    metrics::describe_gauge!(
        "controller_runtime_max_concurrent_reconciles",
        "How many may run at once."
    );
    metrics::describe_gauge!(
        "controller_runtime_active_workers",
        "Reconciles that are running."
    );
    workqueue::describe_metrics();
}

/// What makes a controller reconcile: the changes of its own kind, and those of others.
#[derive(Debug)]
pub struct Triggers {
    name: Arc<str>,
    feed: Feed,
    watches: Vec<Watch>,
}

/// A kind whose changes concern objects of another.
struct Watch {
    feed: Feed,
    map: Box<Map>,
}

/// Which objects a change concerns.
type Map = dyn Fn(&Handle) -> Vec<Key> + Send + Sync;

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({:?})", self.feed.kind())
    }
}

impl Triggers {
    /// By its own kind. `name` is what the controller is called in metrics and logs, where one of them runs on
    /// several kinds.
    pub fn of(name: impl Into<Arc<str>>, feed: Feed) -> Self {
        Self {
            name: name.into(),
            feed,
            watches: Vec::new(),
        }
    }

    /// Also by another kind: `map` says which objects of the controller's own kind a change there concerns,
    /// deletions included. Those that do not exist are left out.
    #[must_use]
    pub fn and(
        mut self,
        feed: Feed,
        map: impl Fn(&Handle) -> Vec<Key> + Send + Sync + 'static,
    ) -> Self {
        let map = Box::new(map);
        self.watches.push(Watch { feed, map });
        self
    }
}

/// What one run of a controller shares among its reconciles.
struct Context<R> {
    name: Arc<str>,
    reconciler: R,
    acknowledger: Acknowledger,
    backoff: Backoff,
    workqueue: Workqueue,
    timeout: Duration,
}

/// Runs a controller until draining begins, and then until the reconciles that are running have ended or the
/// grace period has.
pub async fn run<R: Reconciler>(
    reconciler: R,
    triggers: Triggers,
    settings: Settings,
    heartbeat: Heartbeat,
    shutdown: Shutdown,
) {
    let Triggers {
        name,
        feed,
        watches,
    } = triggers;
    let (subscriber, acknowledger) = feed.subscribe_primary(&name);
    let context = Arc::new(Context {
        reconciler,
        acknowledger,
        backoff: Backoff::new(settings.backoff, settings.backoff_max),
        workqueue: Workqueue::new(&name),
        timeout: settings.timeout,
        name: name.clone(),
    });
    gauge!("controller_runtime_max_concurrent_reconciles", "controller" => name.clone())
        .set(f64::from(settings.concurrency));
    let primary = {
        let context = context.clone();
        subscriber.inspect(move |handle| {
            context.workqueue.add(handle.key());
            // The reconcile panics in its turn, and tells of it.
            let glance = AssertUnwindSafe(|| context.reconciler.glance(handle));
            let _ = std::panic::catch_unwind(glance);
        })
    };
    let config = Config::default()
        .debounce(settings.debounce)
        .concurrency(settings.concurrency);
    let mut controller =
        Controller::for_shared_stream_with(primary, feed.store(), feed.kind().clone())
            .with_config(config);
    for Watch { feed: other, map } in watches {
        let (context, feed) = (context.clone(), feed.clone());
        let concerns = move |handle: Arc<Handle>| {
            let there = |key: &Key| feed.store().get(&feed.kind().object_ref(key)).is_some();
            let keys = map(&handle).into_iter().filter(there);
            let to_ref = |key: Key| {
                context.workqueue.add(&key);
                feed.kind().object_ref(&key)
            };
            keys.map(to_ref).collect::<Vec<_>>()
        };
        let subscriber = other.subscribe(&name);
        controller =
            controller.watches_shared_stream_with(subscriber, concerns, other.kind().clone());
    }
    let results = controller
        .graceful_shutdown_on(shutdown.draining_owned())
        .run(
            |handle, context: Arc<Context<R>>| async move { context.reconcile(handle).await },
            |handle, error, context| context.on_error(&handle, error),
            context.clone(),
        );
    let mut results = std::pin::pin!(results);
    let mut beat = Heartbeat::timer();
    loop {
        tokio::select! {
            result = results.next() => match result {
                Some(result) => context.settle(result),
                None => return,
            },
            _ = beat.tick() => {}
            () = shutdown.over() => return,
        }
        heartbeat.beat();
    }
}

impl<R: Reconciler> Context<R> {
    async fn reconcile(&self, handle: Arc<Handle>) -> Result<Action, ReconcileError> {
        self.workqueue.start(handle.key());
        let began = Instant::now();
        gauge!("controller_runtime_active_workers", "controller" => self.name.clone()).increment(1);
        // The async block, so that a panic before the first await is caught too.
        let reconcile = async { self.reconciler.reconcile(handle.clone()).await };
        let outcome = match timeout(self.timeout, AssertUnwindSafe(reconcile).catch_unwind()).await
        {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => Err(ReconcileError::Panicked(words(&*panic).to_owned())),
            Err(_) => Err(ReconcileError::TimedOut(self.timeout)),
        };
        gauge!("controller_runtime_active_workers", "controller" => self.name.clone()).decrement(1);
        self.workqueue.done(began.elapsed());
        self.count(&outcome, began.elapsed());
        // What cannot be dealt with, ever, must not be kept for ever either.
        let dealt_with = outcome
            .as_ref()
            .err()
            .is_none_or(ReconcileError::is_permanent);
        if dealt_with {
            self.backoff.forget(handle.key());
            if handle.is_tombstone() {
                self.acknowledger.acknowledge(&handle);
                return outcome.map(|_| Action::await_change());
            }
        }
        outcome
    }

    fn count(&self, outcome: &Result<Action, ReconcileError>, took: Duration) {
        let result = match outcome {
            Ok(action) if *action == Action::await_change() => "success",
            Ok(_) => "requeue_after",
            Err(_) => "error",
        };
        counter!("controller_runtime_reconcile_total", "controller" => self.name.clone(), "result" => result)
            .increment(1);
        histogram!("controller_runtime_reconcile_time_seconds", "controller" => self.name.clone())
            .record(took.as_secs_f64());
        let Err(failure) = outcome else { return };
        counter!("controller_runtime_reconcile_errors_total", "controller" => self.name.clone())
            .increment(1);
        match failure {
            ReconcileError::Permanent(_) => {
                counter!("controller_runtime_terminal_reconcile_errors_total", "controller" => self.name.clone())
                    .increment(1);
            }
            ReconcileError::Panicked(_) => {
                counter!("controller_runtime_reconcile_panics_total", "controller" => self.name.clone())
                    .increment(1);
            }
            ReconcileError::Transient(_) | ReconcileError::TimedOut(_) => {}
        }
    }

    fn on_error(&self, handle: &Handle, failure: &ReconcileError) -> Action {
        let (controller, object) = (&*self.name, handle.key());
        if failure.is_permanent() {
            error!(controller, %object, error = %failure, "reconcile failed; not tried again before the object changes");
            return Action::await_change();
        }
        let pause = self.backoff.fail(object);
        self.workqueue.retry();
        warn!(controller, %object, error = %failure, retry_in = ?pause, "reconcile failed");
        Action::requeue(pause)
    }

    fn settle<T, Q: Error>(&self, result: Result<T, kube_controller::Error<ReconcileError, Q>>) {
        match result {
            // Both have been told where they happened.
            Ok(_) | Err(kube_controller::Error::ReconcilerFailed(..)) => {}
            // A trigger that was still waiting when the deletion was acknowledged: nothing is left to do.
            Err(kube_controller::Error::ObjectNotFound(object)) => {
                let key = Key::new(
                    object.namespace.as_deref().unwrap_or_default(),
                    &object.name,
                );
                debug!(controller = &*self.name, object = %key, "deleted and dealt with");
                self.workqueue.start(&key);
                self.backoff.forget(&key);
            }
            Err(kube_controller::Error::QueueError(failure)) => {
                error!(controller = &*self.name, error = %failure, "the queue failed");
            }
            Err(kube_controller::Error::RunnerError(failure)) => {
                error!(controller = &*self.name, error = %failure, "the feed ended before it was ready");
            }
        }
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod kstatus_tests;
#[cfg(test)]
mod tests;
