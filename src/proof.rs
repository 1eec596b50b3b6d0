//! Proves that what is cached is current, by asking the API server.
//!
//! A cache that follows a watch is as old as the last thing it heard, and between two bookmarks that may be a minute.
//! A read that must see everything that was written before it asks for a proof: of one object, its version; of a
//! whole shard, the API server's revision and that nothing lies between that and what is here.
//!
//! The same way leads to whole objects where only metadata is cached (`through`).
//!
//! Many ask at once, after a deployment all of them: a proof that began after a reader came is good for that
//! reader, so one is under way at a time and all who wait share the next. How often one may begin is limited; over
//! the limit, a proof fails rather than make the API server feel each read again, which it is there to spare.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::{
    cache::{Doorbell, Identity, Kind, Phase, Shard, State},
    object::{Key, Object},
};

mod flights;
mod live;
#[cfg(test)]
mod tests;
mod through;

pub use live::Live;
pub use through::{Fetch, ReadThrough, ThroughError, Whole};

use flights::{Bucket, Flight, Flights, share};

/// How long a proof may take altogether.
const PATIENCE: Duration = Duration::from_secs(8);
/// So many proofs may begin at once, out of idleness.
const BURST: f64 = 200.0;
/// So many may begin a second, in the long run.
const RATE: f64 = 50.0;
/// Of objects in a shard, at most so many are compared one by one; a watch proves more.
const FEW: usize = 100;
/// The same of a kind of which a watch proves nothing.
const MANY: usize = 5000;

/// Why nothing is proven.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Too many begin.
    #[error("too many reads at once ask for the most recent version")]
    TooMany,
    /// The API server did not answer, or answered with an error.
    #[error("the API server cannot be asked: {0}")]
    Upstream(String),
    /// What the API server has did not come here in time.
    #[error("what the API server has has not come here in time")]
    Late,
    /// There is nothing to prove yet.
    #[error("the kind is not synced")]
    NotSynced,
}

/// Of an object or of a list, as the API server has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The list's revision.
    pub revision: u64,
    /// Keys and versions.
    pub versions: Vec<(Key, String)>,
    /// Whether these are all.
    pub complete: bool,
}

/// What a short watch saw until a bookmark ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The bookmark's revision.
    pub bookmark: u64,
    /// The last change's, if there was one.
    pub last_change: Option<u64>,
}

/// Where a shard's objects are.
#[derive(Clone, Copy, Debug)]
pub struct Collection<'a> {
    /// The shard's kind.
    pub kind: &'a Kind,
    /// What discovery found of it.
    pub identity: &'a Identity,
    /// Empty for all.
    pub namespace: &'a str,
}

/// Asks the API server. A trait so that proofs can be tested without one.
pub trait Ask: Send + Sync + 'static {
    /// The version of one object; `None` if there is none.
    fn get<'a>(
        &'a self,
        identity: &'a Identity,
        key: &'a Key,
    ) -> BoxFuture<'a, Result<Option<String>, String>>;
    /// At most `limit` objects of the shard's scope, and the revision, which is the most recent one.
    fn list<'a>(
        &'a self,
        of: Collection<'a>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Listed, String>>;
    /// Watches the shard's scope from `from` until a bookmark at or past `until`.
    fn watch<'a>(
        &'a self,
        of: Collection<'a>,
        from: u64,
        until: u64,
    ) -> BoxFuture<'a, Result<Watched, String>>;
}

/// See the module's documentation.
pub struct Prover {
    ask: Arc<dyn Ask>,
    flights: Flights<Subject, Proof>,
    /// Of the API server's revision where a shard's objects are.
    revisions: Mutex<HashMap<usize, Arc<Flight<Proof>>>>,
    bucket: Bucket,
}

/// What a proof is about: a shard, by its address, or one object in it.
type Subject = (usize, Option<Key>);
/// Up to which revision it holds.
type Proof = Result<u64, ProofError>;

impl std::fmt::Debug for Prover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prover").finish_non_exhaustive()
    }
}

impl Prover {
    /// That asks this one.
    pub fn new(ask: Arc<dyn Ask>) -> Self {
        Self {
            ask,
            flights: Flights::default(),
            revisions: Mutex::default(),
            bucket: Bucket::new(BURST, RATE),
        }
    }

    /// A state that has all that was written before this call, to the object where `key` is given, else to
    /// anything in the shard; and the revision up to which nothing else was.
    pub async fn most_recent(
        &self,
        kind: &Kind,
        identity: &Identity,
        shard: &Arc<Shard<Object>>,
        key: Option<&Key>,
    ) -> Result<(Arc<State<Object>>, u64), ProofError> {
        let flight = self.flights.about((address(shard), key.cloned()));
        let proving = self.prove(kind, identity, shard, key);
        let revision = proven(&flight, Instant::now(), proving).await?;
        // Whatever is here by now has all that was here when it was proven.
        let state = servable(shard).ok_or(ProofError::NotSynced)?;
        let revision = revision.max(state.revision);
        Ok((state, revision))
    }

    /// How far the API server was at some time after `since`, as it says where objects of the shard are. Who comes
    /// back together may wait for a while before they ask: then the first one's answer is good for all.
    pub async fn revision(
        &self,
        kind: &Kind,
        identity: &Identity,
        shard: &Arc<Shard<Object>>,
        since: Instant,
    ) -> Result<u64, ProofError> {
        let of = Collection {
            kind,
            identity,
            namespace: shard.namespace(),
        };
        let asking = async {
            self.begin()?;
            let listed = self.ask.list(of, 1).await;
            Ok(listed.map_err(ProofError::Upstream)?.revision)
        };
        let flight = {
            let mut revisions = self
                .revisions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            revisions.entry(address(shard)).or_default().clone()
        };
        proven(&flight, since, asking).await
    }

    /// Takes a token, if there is one.
    fn begin(&self) -> Result<(), ProofError> {
        let may = self.bucket.take();
        may.then_some(()).ok_or(ProofError::TooMany)
    }

    async fn prove(
        &self,
        kind: &Kind,
        identity: &Identity,
        shard: &Arc<Shard<Object>>,
        key: Option<&Key>,
    ) -> Result<u64, ProofError> {
        self.begin()?;
        match key {
            Some(key) => self.prove_one(kind, identity, shard, key).await,
            None => self.prove_all(kind, identity, shard).await,
        }
    }

    /// By the object's own version.
    async fn prove_one(
        &self,
        kind: &Kind,
        identity: &Identity,
        shard: &Arc<Shard<Object>>,
        key: &Key,
    ) -> Result<u64, ProofError> {
        let before = servable(shard).and_then(|state| state.get(key).cloned());
        let version = self.ask.get(identity, key).await;
        let version = version.map_err(ProofError::Upstream)?;
        if version.is_some() && before.is_none() {
            // It is on its way, or was deleted just now, or the config leaves it out.
            return self.prove_all(kind, identity, shard).await;
        }
        let state = until(shard, |state| match (&version, state.get(key)) {
            (Some(version), Some(held)) => is_at_least(&held.resource_version, version),
            // Deleted since it was asked for.
            (Some(_) | None, None) => true,
            // Created since, unless it is the one that was here before.
            (None, Some(held)) => before.as_ref().is_none_or(|before| before.uid != held.uid),
        });
        Ok(state.await?.revision)
    }

    async fn prove_all(
        &self,
        kind: &Kind,
        identity: &Identity,
        shard: &Arc<Shard<Object>>,
    ) -> Result<u64, ProofError> {
        let state = servable(shard).ok_or(ProofError::NotSynced)?;
        let limit = if state.objects.len() <= FEW {
            FEW + 1
        } else if shard.is_unproven() {
            // It has no bookmarks that a watch could end with.
            MANY
        } else {
            1
        };
        drop(state);
        let of = Collection {
            kind,
            identity,
            namespace: shard.namespace(),
        };
        let listed = self.ask.list(of, limit).await;
        let listed = listed.map_err(ProofError::Upstream)?;
        let has_come = |state: &State<Object>| state.revision >= listed.revision;
        if listed.complete {
            let listed = &listed;
            let state = until(shard, |state| has_come(state) || has_all(state, listed)).await?;
            return Ok(state.revision.max(listed.revision));
        }
        if let Some(state) = servable(shard).filter(|state| has_come(state)) {
            return Ok(state.revision);
        }
        // A kind that changes now brings its revision along; of a quiet one a watch tells that it is quiet.
        let from = servable(shard).ok_or(ProofError::NotSynced)?.revision;
        let watched = async {
            let watch = self.ask.watch(of, from, listed.revision);
            let watched = watch.await.map_err(ProofError::Upstream)?;
            let change = watched.last_change.unwrap_or(from);
            let state = until(shard, |state| state.revision >= change).await?;
            Ok(state.revision.max(watched.bookmark))
        };
        tokio::select! {
            come = until(shard, has_come) => Ok(come?.revision),
            proven = watched => proven,
        }
    }
}

/// A shard has one as long as it lives, which is as long as the process.
fn address(shard: &Arc<Shard<Object>>) -> usize {
    Arc::as_ptr(shard) as usize
}

/// What the last proof came to if that began after `since`; else what this one does.
async fn proven(
    flight: &Flight<Proof>,
    since: Instant,
    proving: impl Future<Output = Proof>,
) -> Proof {
    let patient = async {
        let proof = tokio::time::timeout(PATIENCE, proving).await;
        proof.unwrap_or(Err(ProofError::Late))
    };
    let (outcome, shared) = share(flight, since, patient).await;
    let result = match (&outcome, shared) {
        (_, true) => "shared",
        (Ok(_), false) => "proven",
        (Err(_), false) => "failed",
    };
    metrics::counter!("informerd_proofs_total", "result" => result).increment(1);
    outcome
}

/// Whether a state is all that was listed, or newer.
fn has_all(state: &State<Object>, listed: &Listed) -> bool {
    let here = |(key, version): &(Key, String)| {
        let held = state.get(key);
        held.is_some_and(|held| is_at_least(&held.resource_version, version))
    };
    let known: HashMap<&Key, &str> = listed
        .versions
        .iter()
        .map(|(key, version)| (key, version.as_str()))
        .collect();
    let there = |(key, object): (&Key, &Arc<Object>)| {
        known.contains_key(key)
            || object
                .resource_version
                .parse()
                .is_ok_and(|version: u64| version > listed.revision)
    };
    listed.versions.iter().all(here)
        && state
            .objects
            .iter()
            .all(|(key, slot)| there((key, &slot.item)))
}

fn is_at_least(held: &str, wanted: &str) -> bool {
    match (held.parse::<u64>(), wanted.parse::<u64>()) {
        (Ok(held), Ok(wanted)) => held >= wanted,
        _ => held == wanted,
    }
}

fn servable(shard: &Shard<Object>) -> Option<Arc<State<Object>>> {
    if shard.status().phase == Phase::Removed {
        return None;
    }
    shard.state()
}

/// The first state for which this holds. The caller bounds the wait.
async fn until(
    shard: &Arc<Shard<Object>>,
    holds: impl Fn(&State<Object>) -> bool,
) -> Result<Arc<State<Object>>, ProofError> {
    let bell = Arc::new(Doorbell::default());
    let _subscription = shard.subscribe(Vec::new(), &bell);
    loop {
        let state = servable(shard).ok_or(ProofError::NotSynced)?;
        if holds(&state) {
            return Ok(state);
        }
        bell.rung().await;
    }
}

/// Says what this module's metrics mean.
pub fn describe_metrics() {
    metrics::describe_counter!(
        "informerd_proofs_total",
        "Reads that asked for the most recent version: proven for them, by a proof shared with others, or failed."
    );
    metrics::describe_counter!(
        "informerd_read_through_total",
        "Whole objects that were asked for of kinds of which only metadata is cached: read, shared with others, or failed."
    );
}
