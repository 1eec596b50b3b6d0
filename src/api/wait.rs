//! Waiting for what is not there yet: a first list, or a version. Never for ever.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{merge::servable, query::Query, status::Error};
use crate::{
    cache::{Doorbell, Identity, Item, Kind, Shard, State},
    object::Object,
};

/// Cap on waiting for a first list.
pub const SYNC: Duration = Duration::from_secs(10);
/// Cap on waiting for a version.
pub const VERSION: Duration = Duration::from_secs(3);

/// Of what a client sends as `grpc-timeout`: how long it will wait. As the protocol has it: at most eight digits
/// and a unit.
pub fn deadline(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// A little less than what the client waits, so that it gets our answer and not its own timeout.
pub fn capped(cap: Duration, deadline: Option<Duration>) -> Instant {
    let wait = deadline.map_or(cap, |deadline| cap.min(deadline.mul_f64(0.9)));
    Instant::now() + wait
}

/// The kind's identity, once discovery has found it.
pub async fn identity(kind: &Arc<Kind>, until: Instant) -> Result<Arc<Identity>, Error> {
    self::until(kind.shards(), until, || kind.identity())
        .await
        .ok_or_else(|| not_synced(kind))
}

/// The states of all shards that a query touches, once all are complete.
pub async fn states(
    query: &Query,
    until: Instant,
) -> Result<Vec<(Arc<Shard<Object>>, Arc<State<Object>>)>, Error> {
    let shards = query.shards();
    let states = || {
        let states = shards
            .iter()
            .map(|shard| Some((shard.clone(), servable(shard)?)));
        states.collect::<Option<Vec<_>>>()
    };
    self::until(&shards, until, states)
        .await
        .ok_or_else(|| not_synced(&query.kind))
}

/// Returns once the query's one shard is at or past `version`; at once where none was asked for.
pub async fn version(
    query: &Query,
    version: &str,
    deadline: Option<Duration>,
) -> Result<(), Error> {
    const FIELD: &str = "min_resource_version";
    if version.is_empty() {
        return Ok(());
    }
    let wanted: u64 = version.parse().map_err(|_| {
        let problem = format!("{version:?} is not a resourceVersion; pass metadata.resourceVersion as a write returned it");
        Error::invalid(FIELD, problem)
    })?;
    if query.kind.is_unordered() {
        let problem = format!("resource versions of {} have no order", query.kind.name);
        return Err(Error::invalid(FIELD, problem));
    }
    let shards = query.shards();
    let [shard] = shards.as_slice() else {
        let problem = format!(
            "{} is watched namespace by namespace, and each has its own versions: name one namespace",
            query.kind.name
        );
        return Err(Error::invalid(FIELD, problem));
    };
    let revision = || shard.state().map_or(0, |state| state.revision);
    let reached = || (revision() >= wanted).then_some(());
    let until = capped(VERSION, deadline);
    self::until(&shards, until, reached)
        .await
        .ok_or_else(|| Error::VersionNotReached {
            resource: query.kind.name.clone(),
            wanted,
            reached: revision(),
        })
}

/// What `ready` gives, as soon as it gives something; `None` at `until`.
pub async fn until<T: Item, R>(
    shards: &[Arc<Shard<T>>],
    until: Instant,
    ready: impl Fn() -> Option<R>,
) -> Option<R> {
    if let Some(ready) = ready() {
        return Some(ready);
    }
    let bell = Arc::new(Doorbell::default());
    let subscribe = |shard: &Arc<Shard<T>>| shard.subscribe(Vec::new(), &bell);
    let _subscriptions: Vec<_> = shards.iter().map(subscribe).collect();
    loop {
        if let Some(ready) = ready() {
            return Some(ready);
        }
        timeout_at(until, bell.rung()).await.ok()?;
    }
}

fn not_synced(kind: &Kind) -> Error {
    let shards = kind.shards().iter();
    let worst = shards
        .map(|shard| shard.status())
        .max_by_key(|status| status.phase.badness());
    let phase = kind.phase();
    Error::not_synced(
        &kind.name,
        phase,
        worst.as_ref().map_or("", |status| &status.message),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_header_is_read_as_the_protocol_has_it() {
        let read = |text: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            deadline(&headers)
        };
        assert_eq!(read("100m"), Some(Duration::from_millis(100)));
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        assert_eq!(
            read("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        for wrong in ["", "S", "1", "1x", "-1S", "123456789S", "1.5S"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
