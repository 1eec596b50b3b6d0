//! Tells each kind's source when the API server serves it, and when it no longer does.
//!
//! One place asks for all kinds: every half minute with ETags, and at once when a watch on CRDs moves. To come is
//! simple; to go is not: a restarted API server serves its CRDs a moment after everything else, and a consumer
//! who is told that a kind is gone forgets its objects. So a kind must be missing for a while, and an API server
//! that cannot be asked makes nothing go.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Request, header::ACCEPT};
use http_body_util::BodyExt;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    Availability, Catalog, Discovery, ResolvedKind,
    crds::{Crds, Look},
};
use crate::upstream::{Upstream, UpstreamError, Verb};

/// Times of the [`Registry`].
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// How often the API server is asked what it serves.
    pub poll_interval: Duration,
    /// How long a kind must be missing before it counts as gone.
    pub absence_patience: Duration,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(30),
            absence_patience: Duration::from_secs(10),
        }
    }
}

/// Follows what the API server serves. Cloning is cheap. [`Registry::run`] must run.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    upstream: Upstream,
    settings: RegistrySettings,
    /// In the order of subscription, which is that of the config.
    entries: Mutex<Vec<Entry>>,
    catalog: watch::Sender<Option<Arc<Catalog>>>,
    /// The API server's; empty before it has said.
    version: watch::Sender<Arc<str>>,
    crds: Crds,
    /// Somebody subscribed, or CRDs changed.
    wake: Notify,
}

struct Entry {
    resource: String,
    served: watch::Sender<Availability>,
    absent_since: Option<Instant>,
    /// At the CRD of the kind that is served.
    look: Option<Look>,
}

/// What is to be done about one entry.
enum Step {
    Keep,
    /// It is served, or its CRD may say something else of it.
    Look(Arc<ResolvedKind>),
    Vanish,
}

/// CRDs change in bursts (a Helm chart), and discovery follows a moment later: wait, ask, and ask again for a while.
const DEBOUNCE: Duration = Duration::from_millis(250);
const URGENT_INTERVAL: Duration = Duration::from_secs(1);
const URGENT_FOR: Duration = Duration::from_secs(5);
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A permission may be granted later, or come with other credentials; until then the poll does.
const FORBIDDEN_RETRY: Duration = Duration::from_secs(600);

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

impl Registry {
    /// Follows the API server behind `upstream`, once it runs.
    pub fn new(upstream: Upstream, settings: RegistrySettings) -> Self {
        Self {
            shared: Arc::new(Shared {
                upstream,
                settings,
                entries: Mutex::default(),
                catalog: watch::Sender::new(None),
                version: watch::Sender::new("".into()),
                crds: Crds::default(),
                wake: Notify::new(),
            }),
        }
    }

    /// Follows one kind, by any of its names. It keeps group, plural and, while that is served, version, whatever
    /// else gets the same name later.
    pub fn subscribe(&self, resource: &str) -> watch::Receiver<Availability> {
        let mut entries = self.entries();
        if let Some(entry) = entries.iter().find(|entry| entry.resource == resource) {
            return entry.served.subscribe();
        }
        let why = "the API server has not said yet what it serves";
        let served = watch::Sender::new(Availability::Unknown(why.into()));
        let receiver = served.subscribe();
        entries.push(Entry {
            resource: resource.to_owned(),
            served,
            absent_since: None,
            look: None,
        });
        self.shared.wake.notify_one();
        receiver
    }

    /// What the API server serves, if it has said so already.
    pub fn known(&self) -> Option<Arc<Catalog>> {
        self.shared.catalog.borrow().clone()
    }

    /// What the API server serves; waits until it has said so for the first time.
    pub async fn catalog(&self) -> Arc<Catalog> {
        let mut catalog = self.shared.catalog.subscribe();
        loop {
            if let Some(catalog) = &*catalog.borrow_and_update() {
                return Arc::clone(catalog);
            }
            // The sender lives in `self`, so this cannot fail.
            let _ = catalog.changed().await;
        }
    }

    /// The API server's version, `v1.36.3`; empty before it has said.
    pub fn server_version(&self) -> watch::Receiver<Arc<str>> {
        self.shared.version.subscribe()
    }

    /// Runs until dropped.
    pub async fn run(self) {
        tokio::join!(self.follow(), self.watch_crds());
    }

    async fn follow(&self) {
        let mut discovery = Discovery::new(self.shared.upstream.clone());
        let mut backoff = BACKOFF_FIRST;
        let mut urgent_until = Instant::now();
        let mut complained = false;
        loop {
            let next = match self.round(&mut discovery).await {
                Ok(()) => {
                    backoff = BACKOFF_FIRST;
                    complained = false;
                    self.interval(urgent_until)
                }
                Err(error) => {
                    metrics::counter!("informerd_discovery_polls_total", "result" => "failed")
                        .increment(1);
                    self.doubt(&error);
                    if !complained {
                        tracing::warn!(%error, "cannot ask the API server what it serves; what is known still counts");
                    }
                    complained = true;
                    let wait = error.retry_after().unwrap_or_default().max(backoff);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    jittered(wait)
                }
            };
            if timeout(next, self.shared.wake.notified()).await.is_ok() {
                sleep(DEBOUNCE).await;
                urgent_until = Instant::now() + URGENT_FOR;
            }
        }
    }

    /// Kinds that have not been found yet wait for the API server to answer.
    fn doubt(&self, error: &UpstreamError) {
        let why = Availability::Unknown(
            format!("cannot ask the API server what it serves: {error}").into(),
        );
        for entry in self.entries().iter() {
            entry.served.send_if_modified(|served| {
                let doubtful = matches!(served, Availability::Unknown(_)) && *served != why;
                if doubtful {
                    *served = why.clone();
                }
                doubtful
            });
        }
    }

    fn interval(&self, urgent_until: Instant) -> Duration {
        let settings = &self.shared.settings;
        if Instant::now() < urgent_until {
            URGENT_INTERVAL
        } else if self
            .entries()
            .iter()
            .any(|entry| entry.absent_since.is_some())
        {
            settings.absence_patience / 2
        } else {
            jittered(settings.poll_interval)
        }
    }

    async fn round(&self, discovery: &mut Discovery) -> Result<(), UpstreamError> {
        let changed = discovery.poll().await?;
        let result = if changed { "changed" } else { "unchanged" };
        metrics::counter!("informerd_discovery_polls_total", "result" => result).increment(1);
        let Some(catalog) = discovery.catalog().cloned() else {
            return Ok(());
        };
        // Before the kinds, which may be listed in another way by another version.
        if let Some(version) = discovery.server_version().await {
            self.shared.version.send_if_modified(|known| {
                let before = std::mem::replace(known, version);
                before != *known
            });
        }
        let mut result = Ok(());
        for (at, step) in self.steps(&catalog).into_iter().enumerate() {
            match step {
                Step::Keep => {}
                Step::Vanish => self.announce_gone(at),
                Step::Look(kind) => match discovery.with_crd(&kind).await {
                    Ok((kind, look)) => self.announce(at, kind, look),
                    // Next time, then; the others need not wait for it.
                    Err(error) => result = Err(error),
                },
            }
        }
        // Last, so that whoever waits for it finds the kinds resolved.
        if changed {
            self.shared.catalog.send_replace(Some(catalog));
        }
        result
    }

    fn announce(&self, at: usize, mut kind: ResolvedKind, look: Look) {
        let mut entries = self.entries();
        // Entries are only ever added.
        let entry = &mut entries[at];
        entry.look = Some(look);
        if let Some(known) = entry.served.borrow().kind() {
            if kind.crd.is_none() {
                // A CRD that is going, or may not be read any more, has still said what it said.
                kind.crd.clone_from(&known.crd);
                kind.uid.clone_from(&known.uid);
            }
            if **known == kind {
                return;
            }
        }
        tracing::info!(
            resource = entry.resource,
            api_version = kind.api_version(),
            kind = kind.kind,
            "the API server serves this kind"
        );
        entry
            .served
            .send_replace(Availability::Served(Arc::new(kind)));
    }

    fn announce_gone(&self, at: usize) {
        let entries = self.entries();
        let entry = &entries[at];
        tracing::warn!(
            resource = entry.resource,
            "the API server no longer serves this kind"
        );
        let why = format!("the API server no longer serves `{}`", entry.resource);
        entry.served.send_replace(Availability::Absent(why.into()));
    }

    /// Compares what is known of each entry with what is served now.
    fn steps(&self, catalog: &Catalog) -> Vec<Step> {
        let mut entries = self.entries();
        let mut taken: Vec<(Arc<ResolvedKind>, String)> = entries
            .iter()
            .filter_map(|entry| {
                Some((
                    entry.served.borrow().kind()?.clone(),
                    entry.resource.clone(),
                ))
            })
            .collect();
        let steps = entries.iter_mut().map(|entry| {
            let current = entry.served.borrow().kind().cloned();
            if let Some(current) = current {
                return self.follow_up(entry, &current, catalog);
            }
            let resource = &entry.resource;
            let why = match catalog.resolve(resource) {
                Err(error) => error.to_string(),
                Ok(kind) => match taken.iter().find(|(other, _)| other.is_same_kind(&kind)) {
                    Some((_, other)) => {
                        format!("`{resource}` is the same kind as `{other}`: remove one of them from the config")
                    }
                    None => {
                        taken.push((Arc::clone(&kind), resource.clone()));
                        return Step::Look(kind);
                    }
                },
            };
            let absent = Availability::Absent(why.as_str().into());
            if *entry.served.borrow() != absent {
                tracing::warn!(resource, why, "waiting for this kind");
                entry.served.send_replace(absent);
            }
            Step::Keep
        });
        steps.collect()
    }

    fn follow_up(&self, entry: &mut Entry, current: &ResolvedKind, catalog: &Catalog) -> Step {
        let Some(kind) = catalog.again(current).filter(|kind| kind.is_watchable()) else {
            let since = *entry.absent_since.get_or_insert_with(Instant::now);
            if since.elapsed() < self.shared.settings.absence_patience {
                return Step::Keep;
            }
            entry.absent_since = None;
            return Step::Vanish;
        };
        if entry.absent_since.take().is_some() {
            // Its source may be waiting for nothing else.
            entry.served.send_modify(|_| {});
        }
        let same = ResolvedKind {
            crd: current.crd.clone(),
            uid: current.uid.clone(),
            ..(*kind).clone()
        } == *current;
        let crds = &self.shared.crds;
        match &entry.look {
            Some(look) if same && !crds.has_moved(&kind, look) => Step::Keep,
            _ => Step::Look(kind),
        }
    }

    /// A bell: what is served is for discovery to say.
    async fn watch_crds(&self) {
        let mut credentials = self.shared.upstream.changed();
        let mut backoff = BACKOFF_FIRST;
        loop {
            let begun = Instant::now();
            let ended = self.watch_crds_once().await;
            self.shared.crds.closed();
            match ended {
                Err(error)
                    if error
                        .status()
                        .is_some_and(|status| status.is_forbidden() || status.is_not_found()) =>
                {
                    tracing::info!(%error, "cannot watch CRDs; new ones are found by asking every so often");
                    let _ = timeout(FORBIDDEN_RETRY, credentials.changed()).await;
                }
                Err(error) => tracing::debug!(%error, "the watch on CRDs ended"),
                Ok(()) => {}
            }
            if begun.elapsed() > BACKOFF_MAX {
                backoff = BACKOFF_FIRST;
            }
            sleep(jittered(backoff)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn watch_crds_once(&self) -> Result<(), UpstreamError> {
        let seconds = fastrand::u32(300..600);
        let request = Request::get(format!("{CRDS}?watch=true&timeoutSeconds={seconds}"))
            .header(ACCEPT, METADATA_ONLY)
            .body(Vec::new())
            .map_err(|error| UpstreamError::Transport(Box::new(error)))?;
        let mut body = self
            .shared
            .upstream
            .send(Verb::Watch, request)
            .await?
            .into_body();
        self.shared.crds.opened();
        while let Some(frame) = body.frame().await {
            if let Ok(bytes) = frame?.into_data() {
                self.shared.crds.take(&bytes);
            }
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.shared
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between 0.8 and 1.2 times as long, so that replicas do not ask together.
fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.8 + 0.4 * fastrand::f64())
}

#[cfg(test)]
mod tests;
