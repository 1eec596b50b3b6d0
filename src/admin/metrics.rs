//! Where metrics are recorded, and those of the kinds, which are read off the catalog when somebody looks.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use ::metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::{
    cache::{Catalog, Kind, Phase},
    heartbeat::Heartbeat,
    shutdown::Shutdown,
};

/// Upper bounds of the buckets of whatever is measured in seconds: from a hop within the process to a list that
/// takes its time.
const SECONDS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
    15.0, 60.0,
];

const PHASES: [Phase; 7] = [
    Phase::Waiting,
    Phase::Syncing,
    Phase::Live,
    Phase::Relisting,
    Phase::Forbidden,
    Phase::BackingOff,
    Phase::Removed,
];

/// Records all metrics of the process from now on. To be called before anything makes a metric.
///
/// # Errors
///
/// It was called before.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = builder()?.install_recorder()?;
    describe();
    Ok(handle)
}

pub(super) fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
}

/// Keeps histograms, which gather between scrapes, from growing where nobody scrapes. Ends when draining begins.
pub async fn upkeep(handle: PrometheusHandle, heartbeat: Heartbeat, shutdown: Shutdown) {
    let mut timer = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            _ = timer.tick() => handle.run_upkeep(),
            () = shutdown.draining() => return,
        }
        heartbeat.beat();
    }
}

/// Says what this module's metrics mean.
pub(super) fn describe() {
    describe_gauge!("informerd_build_info", "1, with the version as a label.");
    describe_gauge!(
        "informerd_kind_synced",
        "1 once every shard of the kind has been listed."
    );
    describe_gauge!(
        "informerd_kind_phase",
        "1 for the phase that the kind is in, that of its worst shard; 0 for others."
    );
    describe_gauge!("informerd_kind_objects", "Objects in the cache.");
    describe_gauge!(
        "informerd_kind_object_bytes",
        "Bytes of the objects in the cache, about."
    );
    describe_gauge!(
        "informerd_kind_journal_bytes",
        "Bytes that only the journal keeps: old objects and encodings."
    );
    describe_gauge!(
        "informerd_kind_journal_entries",
        "Changes that the journal remembers."
    );
    describe_gauge!(
        "informerd_kind_journal_span_seconds",
        "How far back the journal of the shard with the longest reaches."
    );
    describe_gauge!(
        "informerd_kind_age_seconds",
        "Time since the API server last proved the worst shard current."
    );
    describe_gauge!(
        "informerd_kind_revision",
        "Upstream revision of the cache: of several shards, the highest."
    );
    describe_gauge!(
        "informerd_kind_users",
        "Consumers that use the kind at the moment."
    );
    describe_gauge!("informerd_kind_watches_open", "Watches open upstream.");
    describe_counter!(
        "informerd_kind_watches_opened_total",
        "Watches opened upstream."
    );
    describe_counter!(
        "informerd_kind_relists_total",
        "Lists begun, by what made them necessary."
    );
    describe_counter!(
        "informerd_kind_undecodable_total",
        "Objects that could not be decoded."
    );
    describe_counter!(
        "informerd_kind_digest_mismatches_total",
        "Times that the running digest and the state disagreed."
    );
}

/// Sets the metrics of the kinds to what the catalog has.
pub(super) fn observe(catalog: &Catalog, now: Instant) {
    gauge!("informerd_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
    for kind in catalog.iter() {
        observe_kind(kind, now);
    }
}

fn observe_kind(kind: &Kind, now: Instant) {
    let label = || kind.name.clone();
    let phase = kind.phase();
    for each in PHASES {
        let is = if each == phase { 1 } else { 0 };
        gauge!("informerd_kind_phase", "kind" => label(), "phase" => each.as_str()).set(is);
    }
    let states: Vec<_> = kind
        .shards()
        .iter()
        .filter_map(|shard| shard.state())
        .collect();
    let synced = states.len() == kind.shards().len();
    gauge!("informerd_kind_synced", "kind" => label()).set(if synced { 1 } else { 0 });

    let sum = |value: fn(&crate::cache::State<_>) -> usize| {
        states.iter().map(|state| value(state)).sum::<usize>()
    };
    let oldest = states
        .iter()
        .filter_map(|state| state.journal.oldest())
        .min();
    let span = oldest.map_or(0.0, |oldest| {
        now.saturating_duration_since(oldest).as_secs_f64()
    });
    let revision = states
        .iter()
        .map(|state| state.revision)
        .max()
        .unwrap_or_default();
    gauge!("informerd_kind_objects", "kind" => label())
        .set(sum(|state| state.objects.len()) as f64);
    gauge!("informerd_kind_object_bytes", "kind" => label()).set(sum(|state| state.bytes) as f64);
    gauge!("informerd_kind_journal_bytes", "kind" => label())
        .set(sum(|state| state.journal.bytes()) as f64);
    gauge!("informerd_kind_journal_entries", "kind" => label())
        .set(sum(|state| state.journal.len()) as f64);
    gauge!("informerd_kind_journal_span_seconds", "kind" => label()).set(span);
    gauge!("informerd_kind_revision", "kind" => label()).set(revision as f64);
    gauge!("informerd_kind_users", "kind" => label()).set(kind.users() as f64);
    if let Some(age) = kind.age(now) {
        gauge!("informerd_kind_age_seconds", "kind" => label()).set(age.as_secs_f64());
    }

    let counters = || kind.shards().iter().map(|shard| &shard.counters);
    let open: u64 = counters()
        .map(|all| all.watches_open.load(Ordering::Relaxed))
        .sum();
    let opened = counters()
        .map(|all| all.watches_opened.load(Ordering::Relaxed))
        .sum();
    let undecodable = counters()
        .map(|all| all.undecodable.load(Ordering::Relaxed))
        .sum();
    let mismatches = counters()
        .map(|all| all.digest_mismatches.load(Ordering::Relaxed))
        .sum();
    gauge!("informerd_kind_watches_open", "kind" => label()).set(open as f64);
    counter!("informerd_kind_watches_opened_total", "kind" => label()).absolute(opened);
    counter!("informerd_kind_undecodable_total", "kind" => label()).absolute(undecodable);
    counter!("informerd_kind_digest_mismatches_total", "kind" => label()).absolute(mismatches);
    let mut relists: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (cause, count) in counters().flat_map(|all| all.relists()) {
        *relists.entry(cause).or_default() += count;
    }
    for (cause, count) in relists {
        counter!("informerd_kind_relists_total", "kind" => label(), "cause" => cause)
            .absolute(count);
    }
}
