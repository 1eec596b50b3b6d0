//! What kube's Controller does not do by itself, on a feed that does it.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::sync::Semaphore;

use super::*;
use crate::{
    feed::tests::{Fed, settle},
    heartbeat::Heartbeats,
};

type Script = dyn Fn(&Handle) -> Result<Action, ReconcileError> + Send + Sync;

/// Writes down what it is called for, and does as it is told.
struct Recorder {
    calls: Mutex<Vec<String>>,
    /// A reconcile ends when it has got a permit.
    permits: Semaphore,
    script: Box<Script>,
}

impl Recorder {
    fn new(
        script: impl Fn(&Handle) -> Result<Action, ReconcileError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let permits = Semaphore::new(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            calls: Mutex::default(),
            permits,
            script: Box::new(script),
        })
    }

    /// One that holds each reconcile until it is let go.
    fn held() -> Arc<Self> {
        let permits = Semaphore::new(0);
        Arc::new(Self {
            calls: Mutex::default(),
            permits,
            script: Box::new(|_| Ok(Action::await_change())),
        })
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

impl Reconciler for Arc<Recorder> {
    const NAME: &'static str = "recorder";
    const READS: &'static [Reads] = &[];

    async fn reconcile(&self, handle: Arc<Handle>) -> Result<Action, ReconcileError> {
        let what = if handle.is_tombstone() {
            "gone"
        } else {
            "there"
        };
        self.calls
            .lock()
            .unwrap()
            .push(format!("{} {} {what}", handle.key(), handle.uid()));
        self.permits
            .acquire()
            .await
            .map_err(ReconcileError::transient)?
            .forget();
        (self.script)(&handle)
    }
}

fn succeed(_: &Handle) -> Result<Action, ReconcileError> {
    Ok(Action::await_change())
}

const SETTINGS: Settings = Settings {
    debounce: Duration::ZERO,
    concurrency: 2,
    timeout: Duration::from_secs(3600),
    backoff: Duration::from_secs(1),
    backoff_max: Duration::from_secs(60),
};

fn start(fed: &Fed, recorder: &Arc<Recorder>, settings: Settings) -> tokio::task::JoinHandle<()> {
    let (feed, shutdown, recorder) = (fed.feed.clone(), fed.shutdown.clone(), recorder.clone());
    let heartbeat = Heartbeats::default().register("controller");
    tokio::spawn(async move {
        run(
            recorder,
            Triggers::of("recorder", feed),
            settings,
            heartbeat,
            shutdown,
        )
        .await
    })
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_reconciled_and_then_the_store_forgets_it() {
    let mut fed = Fed::new();
    let recorder = Recorder::new(succeed);
    start(&fed, &recorder, SETTINGS);
    fed.upsert("a", "1");
    settle().await;
    assert_eq!(recorder.calls(), ["a 1 there"]);
    fed.delete("a");
    settle().await;
    assert_eq!(recorder.calls(), ["a 1 gone"]);
    assert!(fed.stored().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_object_deleted_during_debounce_is_reconciled_as_deleted() {
    let mut fed = Fed::new();
    let recorder = Recorder::new(succeed);
    start(
        &fed,
        &recorder,
        Settings {
            debounce: Duration::from_secs(5),
            ..SETTINGS
        },
    );
    fed.upsert("a", "1");
    pass(3).await;
    fed.delete("a");
    pass(3).await;
    assert!(recorder.calls().is_empty(), "the debounce began anew");
    assert!(!fed.stored().is_empty());
    pass(3).await;
    assert_eq!(recorder.calls(), ["a 1 gone"]);
    assert!(fed.stored().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_object_deleted_while_it_is_reconciled_is_reconciled_again() {
    let mut fed = Fed::new();
    let recorder = Recorder::held();
    start(&fed, &recorder, SETTINGS);
    fed.upsert("a", "1");
    settle().await;
    assert_eq!(recorder.calls(), ["a 1 there"]);
    fed.delete("a");
    settle().await;
    assert!(recorder.calls().is_empty(), "never two at once");
    recorder.permits.add_permits(1);
    settle().await;
    assert_eq!(recorder.calls(), ["a 1 gone"]);
    assert!(!fed.stored().is_empty(), "not dealt with yet");
    recorder.permits.add_permits(1);
    settle().await;
    assert!(fed.stored().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_object_created_again_while_its_deletion_is_reconciled_is_reconciled_as_it_is() {
    let mut fed = Fed::new();
    let recorder = Recorder::held();
    start(&fed, &recorder, SETTINGS);
    recorder.permits.add_permits(1);
    fed.upsert("a", "old");
    settle().await;
    fed.delete("a");
    settle().await;
    assert_eq!(recorder.calls(), ["a old there", "a old gone"]);
    fed.upsert("a", "new");
    settle().await;
    recorder.permits.add_permits(1);
    settle().await;
    assert_eq!(recorder.calls(), ["a new there"]);
    recorder.permits.add_permits(1);
    settle().await;
    assert_eq!(
        fed.stored().len(),
        1,
        "the old deletion's acknowledgement does not touch it"
    );
}

#[tokio::test(start_paused = true)]
async fn an_object_deleted_and_created_again_during_debounce_is_reconciled_once_as_it_is() {
    let mut fed = Fed::new();
    let recorder = Recorder::new(succeed);
    start(
        &fed,
        &recorder,
        Settings {
            debounce: Duration::from_secs(5),
            ..SETTINGS
        },
    );
    fed.upsert("a", "old");
    pass(1).await;
    fed.delete("a");
    pass(1).await;
    fed.upsert("a", "new");
    pass(10).await;
    assert_eq!(recorder.calls(), ["a new there"]);
    assert_eq!(fed.stored().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_deletion_is_kept_and_tried_again_until_it_succeeds() {
    let mut fed = Fed::new();
    let failures = AtomicUsize::new(0);
    let recorder = Recorder::new(move |handle| {
        if handle.is_tombstone() && failures.fetch_add(1, Ordering::Relaxed) < 2 {
            return Err(ReconcileError::transient("not now"));
        }
        Ok(Action::await_change())
    });
    start(&fed, &recorder, SETTINGS);
    fed.upsert("a", "1");
    settle().await;
    fed.delete("a");
    pass(2).await;
    assert_eq!(recorder.calls(), ["a 1 there", "a 1 gone", "a 1 gone"]);
    assert!(!fed.stored().is_empty());
    pass(2).await;
    assert_eq!(recorder.calls(), ["a 1 gone"]);
    assert!(fed.stored().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_can_never_be_dealt_with_is_not_kept_for_ever() {
    let mut fed = Fed::new();
    let recorder = Recorder::new(|handle| match handle.object() {
        Some(_) => Ok(Action::await_change()),
        None => Err(ReconcileError::permanent("what?")),
    });
    start(&fed, &recorder, SETTINGS);
    fed.upsert("a", "1");
    settle().await;
    fed.delete("a");
    pass(3600).await;
    assert_eq!(recorder.calls(), ["a 1 there", "a 1 gone"]);
    assert!(fed.stored().is_empty());
}

#[tokio::test(start_paused = true)]
async fn transient_errors_are_tried_again_and_permanent_ones_wait_for_a_change() {
    let mut fed = Fed::new();
    let recorder = Recorder::new(|handle| match handle.key().name() {
        "transient" => Err(ReconcileError::transient("later")),
        _ => Err(ReconcileError::permanent("never")),
    });
    start(&fed, &recorder, SETTINGS);
    fed.upsert("transient", "1");
    fed.upsert("permanent", "2");
    pass(2).await;
    let mut calls = recorder.calls();
    calls.sort();
    assert_eq!(
        calls,
        [
            "permanent 2 there",
            "transient 1 there",
            "transient 1 there"
        ]
    );
    fed.upsert("permanent", "2");
    settle().await;
    assert_eq!(recorder.calls(), ["permanent 2 there"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_panics_or_hangs_is_tried_again_and_harms_no_other() {
    let mut fed = Fed::new();
    let recorder = Recorder::new(|handle| match handle.key().name() {
        "bad" => panic!("on purpose"),
        _ => Ok(Action::await_change()),
    });
    start(&fed, &recorder, SETTINGS);
    fed.upsert("bad", "1");
    fed.upsert("good", "2");
    pass(2).await;
    let calls: BTreeSet<_> = recorder.calls().into_iter().collect();
    assert_eq!(
        calls.into_iter().collect::<Vec<_>>(),
        ["bad 1 there", "good 2 there"]
    );

    let held = Recorder::held();
    start(
        &fed,
        &held,
        Settings {
            timeout: Duration::from_secs(10),
            ..SETTINGS
        },
    );
    settle().await;
    assert_eq!(held.calls().len(), 2);
    pass(12).await;
    assert_eq!(held.calls().len(), 2, "both were given up and tried again");
}

#[tokio::test(start_paused = true)]
async fn no_more_are_reconciled_at_once_than_may_be() {
    let mut fed = Fed::new();
    let recorder = Recorder::held();
    start(&fed, &recorder, SETTINGS);
    for name in ["a", "b", "c"] {
        fed.upsert(name, "1");
    }
    settle().await;
    assert_eq!(recorder.calls().len(), 2);
    recorder.permits.add_permits(1);
    settle().await;
    assert_eq!(recorder.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_drains_finishes_what_it_is_at_and_begins_nothing() {
    let mut fed = Fed::new();
    let recorder = Recorder::held();
    let running = start(&fed, &recorder, SETTINGS);
    fed.upsert("a", "1");
    settle().await;
    fed.shutdown.drain();
    fed.upsert("b", "1");
    settle().await;
    assert!(!running.is_finished());
    recorder.permits.add_permits(1);
    settle().await;
    assert!(running.is_finished());
    assert_eq!(recorder.calls(), ["a 1 there"]);
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_cannot_finish_is_cut_when_the_grace_period_is_over() {
    let mut fed = Fed::new();
    let running = start(&fed, &Recorder::held(), SETTINGS);
    fed.upsert("a", "1");
    settle().await;
    fed.shutdown.drain();
    settle().await;
    assert!(!running.is_finished());
    fed.shutdown.cut();
    settle().await;
    assert!(running.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_waits_has_a_heartbeat() {
    let fed = Fed::new();
    let heartbeats = Heartbeats::default();
    let (feed, heartbeat) = (fed.feed.clone(), heartbeats.register("controller"));
    tokio::spawn(async move {
        run(
            Recorder::new(succeed),
            Triggers::of("recorder", feed),
            SETTINGS,
            heartbeat,
            Shutdown::new(),
        )
        .await;
    });
    pass(3600).await;
    assert!(
        heartbeats.pulses().iter().all(|pulse| !pulse.is_stuck())
            && !heartbeats.pulses().is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn reconciles_are_counted_as_controller_runtime_counts_them() {
    let metrics = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&metrics);
    let mut fed = Fed::new();
    let recorder = Recorder::new(|handle| match handle.key().name() {
        "again" => Ok(Action::requeue(Duration::from_secs(600))),
        "bad" => Err(ReconcileError::permanent("never")),
        _ => Ok(Action::await_change()),
    });
    start(&fed, &recorder, SETTINGS);
    for name in ["a", "b", "again", "bad"] {
        fed.upsert(name, "1");
    }
    settle().await;
    let shown = metrics.handle().render();
    for line in [
        r#"controller_runtime_reconcile_total{controller="recorder",result="success"} 2"#,
        r#"controller_runtime_reconcile_total{controller="recorder",result="requeue_after"} 1"#,
        r#"controller_runtime_reconcile_total{controller="recorder",result="error"} 1"#,
        r#"controller_runtime_terminal_reconcile_errors_total{controller="recorder"} 1"#,
        r#"controller_runtime_active_workers{controller="recorder"} 0"#,
        r#"workqueue_adds_total{name="recorder"} 4"#,
        r#"workqueue_depth{name="recorder"} 0"#,
    ] {
        assert!(
            shown.lines().any(|shown| shown == line),
            "no {line} in\n{shown}"
        );
    }
}
