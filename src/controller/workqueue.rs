//! client-go's workqueue metrics, for the queue inside kube's Controller, which has none.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tokio::time::Instant;

use crate::object::Key;

/// Watches what is put into a controller's queue and what is taken out.
pub(super) struct Workqueue {
    /// Objects that wait for their reconcile, and since when.
    waiting: Mutex<HashMap<Key, Instant>>,
    adds: Counter,
    depth: Gauge,
    waited: Histogram,
    worked: Histogram,
    retries: Counter,
}

pub(super) fn describe_metrics() {
    metrics::describe_counter!(
        "workqueue_adds_total",
        "Changes that asked for a reconcile."
    );
    metrics::describe_gauge!("workqueue_depth", "Objects that wait for their reconcile.");
    metrics::describe_histogram!(
        "workqueue_queue_duration_seconds",
        "How long an object waited, debounce included."
    );
    metrics::describe_histogram!(
        "workqueue_work_duration_seconds",
        "How long the reconcile took."
    );
    metrics::describe_counter!(
        "workqueue_retries_total",
        "Reconciles that were scheduled again after a failure."
    );
}

impl Workqueue {
    pub(super) fn new(name: &Arc<str>) -> Self {
        Self {
            waiting: Mutex::default(),
            adds: counter!("workqueue_adds_total", "name" => name.clone()),
            depth: gauge!("workqueue_depth", "name" => name.clone()),
            waited: histogram!("workqueue_queue_duration_seconds", "name" => name.clone()),
            worked: histogram!("workqueue_work_duration_seconds", "name" => name.clone()),
            retries: counter!("workqueue_retries_total", "name" => name.clone()),
        }
    }

    /// Something asked for a reconcile.
    pub(super) fn add(&self, key: &Key) {
        self.adds.increment(1);
        let mut waiting = self.waiting();
        waiting.entry(key.clone()).or_insert_with(Instant::now);
        self.depth.set(waiting.len() as f64);
    }

    /// It begins, or is not needed any more.
    pub(super) fn start(&self, key: &Key) {
        let mut waiting = self.waiting();
        if let Some(since) = waiting.remove(key) {
            self.waited.record(since.elapsed().as_secs_f64());
        }
        self.depth.set(waiting.len() as f64);
    }

    /// It is done.
    pub(super) fn done(&self, took: Duration) {
        self.worked.record(took.as_secs_f64());
    }

    /// It failed and will be tried again.
    pub(super) fn retry(&self) {
        self.retries.increment(1);
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Key, Instant>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
