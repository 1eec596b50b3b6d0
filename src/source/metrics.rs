//! What the sources count. Names as client-go's reflector has them, where it has one.

use std::time::{Duration, Instant};

use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
};

use super::{decode::EventType, failure::Fault, words::ListCause};
use crate::cache::Phase;

/// The handles of one source, looked up once.
pub(super) struct Meters {
    kind: String,
    namespace: String,
    pub(super) undecodable: Counter,
    pub(super) stale: Counter,
    pub(super) mismatches: Counter,
    watches: Counter,
    short_watches: Counter,
    watch_seconds: Histogram,
    list_seconds: Histogram,
    list_items: Histogram,
    events: [Counter; 4],
    state: Option<&'static str>,
}

impl Meters {
    pub(super) fn new(kind: &str, namespace: &str) -> Self {
        let own = kind.to_owned();
        let event = |name: &'static str| counter!("informerd_source_events_total", "kind" => own.clone(), "type" => name);
        Self {
            undecodable: counter!("informerd_source_undecodable_total", "kind" => own.clone()),
            stale: counter!("informerd_source_stale_events_total", "kind" => own.clone()),
            mismatches: counter!("informerd_digest_mismatches_total", "kind" => own.clone()),
            watches: counter!("reflector_watches_total", "name" => own.clone()),
            short_watches: counter!("reflector_short_watches_total", "name" => own.clone()),
            watch_seconds: metrics::histogram!("reflector_watch_duration_seconds", "name" => own.clone()),
            list_seconds: metrics::histogram!("reflector_list_duration_seconds", "name" => own.clone()),
            list_items: metrics::histogram!("reflector_items_per_list", "name" => own.clone()),
            events: [
                event("added"),
                event("modified"),
                event("deleted"),
                event("bookmark"),
            ],
            state: None,
            namespace: namespace.to_owned(),
            kind: own,
        }
    }

    pub(super) fn event(&self, r#type: EventType) {
        let at = match r#type {
            EventType::Added => 0,
            EventType::Modified => 1,
            EventType::Deleted => 2,
        };
        self.events[at].increment(1);
    }

    pub(super) fn bookmark(&self) {
        self.events[3].increment(1);
    }

    pub(super) fn list_needed(&self, cause: ListCause) {
        counter!("informerd_source_lists_total", "kind" => self.kind.clone(), "cause" => cause.as_str()).increment(1);
    }

    pub(super) fn listed(&self, took: Duration, items: usize) {
        counter!("reflector_lists_total", "name" => self.kind.clone()).increment(1);
        self.list_seconds.record(took);
        #[allow(clippy::cast_precision_loss, reason = "a histogram of sizes")]
        self.list_items.record(items as f64);
    }

    pub(super) fn failed(&self, fault: Fault) {
        counter!("informerd_source_failures_total", "kind" => self.kind.clone(), "cause" => fault.as_str()).increment(1);
    }

    pub(super) fn watch_opened(&self) {
        self.watches.increment(1);
    }

    pub(super) fn watch_closed(&self, opened: Instant, now: Instant) {
        let lasted = now.saturating_duration_since(opened);
        self.watch_seconds.record(lasted);
        if lasted < Duration::from_secs(1) {
            self.short_watches.increment(1);
        }
    }

    /// Exactly one of the phases is 1.
    pub(super) fn phase(&mut self, phase: Phase) {
        let set = |state: &'static str, value: f64| {
            gauge!(
                "informerd_source_state", "kind" => self.kind.clone(), "namespace" => self.namespace.clone(), "state" => state
            )
            .set(value);
        };
        if let Some(old) = self.state.filter(|old| *old != phase.as_str()) {
            set(old, 0.0);
        }
        set(phase.as_str(), 1.0);
        self.state = Some(phase.as_str());
    }
}

/// Describes the metrics of this module. Once, after the recorder is installed.
pub fn describe_metrics() {
    for (name, text) in [
        ("reflector_lists_total", "Complete lists, by kind."),
        ("reflector_watches_total", "Watches opened, by kind."),
        (
            "reflector_short_watches_total",
            "Watches that ended within a second, by kind.",
        ),
        (
            "informerd_source_lists_total",
            "Lists that became necessary, by kind and cause.",
        ),
        (
            "informerd_source_events_total",
            "Events of watches, bookmarks included, by kind and type.",
        ),
        (
            "informerd_source_undecodable_total",
            "Objects that could not be decoded, by kind.",
        ),
        (
            "informerd_source_stale_events_total",
            "Events that were older than what is cached, by kind.",
        ),
        (
            "informerd_source_failures_total",
            "Requests and watches that failed, by kind and cause.",
        ),
        (
            "informerd_digest_mismatches_total",
            "Times that the running digest and the state disagreed, by kind.",
        ),
    ] {
        describe_counter!(name, text);
    }
    for (name, text) in [
        (
            "reflector_watch_duration_seconds",
            "How long watches were open, by kind.",
        ),
        (
            "reflector_list_duration_seconds",
            "How long lists took to be complete, by kind.",
        ),
    ] {
        describe_histogram!(name, Unit::Seconds, text);
    }
    describe_histogram!(
        "reflector_items_per_list",
        Unit::Count,
        "Objects of complete lists, by kind."
    );
    describe_gauge!(
        "informerd_source_state",
        "1 for the state that a kind (or a namespace of it) is in, else 0."
    );
}
