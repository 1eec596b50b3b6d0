//! What the sources count. Names as client-go's reflector has them, where it has one. What readers can see in a
//! shard (its phase, its lists, what could not be decoded) is read from there at each scrape instead.

use std::time::{Duration, Instant};

use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram};

use super::{decode::EventType, failure::Fault};

/// The handles of one source, looked up once.
pub(super) struct Meters {
    kind: String,
    pub(super) stale: Counter,
    watches: Counter,
    short_watches: Counter,
    watch_seconds: Histogram,
    list_seconds: Histogram,
    list_items: Histogram,
    events: [Counter; 4],
}

impl Meters {
    pub(super) fn new(kind: &str) -> Self {
        let own = kind.to_owned();
        let event = |name: &'static str| counter!("informerd_source_events_total", "kind" => own.clone(), "type" => name);
        Self {
            stale: counter!("informerd_source_stale_events_total", "kind" => own.clone()),
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
            "informerd_source_events_total",
            "Events of watches, bookmarks included, by kind and type.",
        ),
        (
            "informerd_source_stale_events_total",
            "Events that were older than what is cached, by kind.",
        ),
        (
            "informerd_source_failures_total",
            "Requests and watches that failed, by kind and cause.",
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
}
