//! The door for what already speaks to Kubernetes: kubectl, client-go, kube-rs, dashboards and scripts read from the
//! daemon's cache by another kubeconfig, without a line of code.
//!
//! The protocol is [`kubeapi`](crate::kubeapi)'s; here is what the daemon has to say to it. Never silently staler
//! than the API server would be: a read that names no version is proven, and one that cannot be answered as the API
//! server would answer it is refused, with a message that names the config, or, where the operator says so, handed on
//! to the API server with the caller's own credentials. The daemon's are never lent.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use tokio::sync::watch;

use crate::{
    api::Consumers,
    cache::{Catalog, Identity, Kind},
    config::{FacadeConfig, KindConfig, Namespaces},
    discovery::{Availability, CrdVersion, ResolvedKind},
    kubeapi::{Body, Opened, Other, Proven, Read, Reader, Resource, Status, Target, Wanted, text},
    proof::{ProofError, Prover},
    upstream::{Upstream, Verb},
};

mod passthrough;
mod readers;
#[cfg(test)]
mod tests;

/// What the facade does of each resource.
const VERBS: [&str; 3] = ["get", "list", "watch"];
/// How long the API server's version is believed.
const VERSION_AGE: Duration = Duration::from_secs(60);
const VERSION_BYTES: usize = 64 << 10;

/// A configured kind.
pub struct Served {
    /// Its cache.
    pub kind: Arc<Kind>,
    /// What discovery knows of it.
    pub available: watch::Receiver<Availability>,
    /// What of it the config leaves out upstream, in words: `only those with labels app=web`.
    pub leaves_out: Vec<String>,
    /// Namespaces that the config leaves out.
    pub excluded: Vec<String>,
}

/// See the module's documentation.
pub struct Facade {
    kinds: Vec<Served>,
    resources: ArcSwap<Shown>,
    prover: Arc<Prover>,
    upstream: Upstream,
    consumers: Arc<Consumers>,
    config: FacadeConfig,
    version: Mutex<Option<(tokio::time::Instant, Bytes)>>,
}

/// What was made of the kinds as they were last.
struct Shown {
    seen: Vec<Option<Arc<Identity>>>,
    available: Vec<Option<Arc<ResolvedKind>>>,
    resources: Arc<[Arc<Resource>]>,
}

impl Facade {
    /// Over these kinds, in the config's order.
    pub fn new(
        kinds: Vec<Served>,
        prover: Arc<Prover>,
        upstream: Upstream,
        consumers: Arc<Consumers>,
        config: FacadeConfig,
    ) -> Self {
        let nothing = Shown {
            seen: Vec::new(),
            available: Vec::new(),
            resources: Arc::new([]),
        };
        Self {
            kinds,
            resources: ArcSwap::from_pointee(nothing),
            prover,
            upstream,
            consumers,
            config,
            version: Mutex::default(),
        }
    }

    /// Names for a message.
    fn configured(&self) -> String {
        let names: Vec<&str> = self
            .kinds
            .iter()
            .map(|served| served.kind.name.as_str())
            .collect();
        names.join(", ")
    }

    /// The answer to what is not passed through.
    fn refuse(&self, what: &Other) -> Status {
        let Other::Resource {
            target,
            resource,
            why,
        } = what
        else {
            return Status::no_such_path();
        };
        if let Some(why) = why {
            return why.clone();
        }
        let Target {
            group,
            plural,
            verb,
            name,
            subresource,
            ..
        } = target;
        let is_read = VERBS.contains(verb);
        match (resource, subresource) {
            (Some(_), Some(subresource)) if is_read => not_here(format!(
                "the server could not find the requested resource: informerd serves {plural}, and nothing below \
                 them such as {subresource}; ask the API server, or set `facade.passthrough: reads` in the config \
                 of informerd"
            )),
            (Some(_), _) => Status::forbidden(
                group,
                plural,
                name.as_deref().unwrap_or_default(),
                &format!(
                    "informerd serves reads only, and cannot {verb}; send writes to the API server"
                ),
            ),
            (None, _) => not_here(format!(
                "the server could not find the requested resource: informerd serves {}; add {} under `kinds` in \
                 its config{}",
                self.configured(),
                crate::kubeapi::qualified(group, plural),
                if self.config.passthrough {
                    ""
                } else {
                    ", or set `facade.passthrough: reads` there"
                }
            )),
        }
    }

    async fn ask_version(&self) -> Result<Bytes, Status> {
        let known = || {
            let version = self.version.lock().unwrap_or_else(PoisonError::into_inner);
            version.clone()
        };
        if let Some((at, version)) = known()
            && at.elapsed() < VERSION_AGE
        {
            return Ok(version);
        }
        let request = Request::get("/version").body(Vec::new());
        let request = request.map_err(|error| unavailable(&error.to_string()))?;
        match self.upstream.fetch(Verb::Get, request, VERSION_BYTES).await {
            Ok((_, body)) => {
                let mut version = self.version.lock().unwrap_or_else(PoisonError::into_inner);
                *version = Some((tokio::time::Instant::now(), body.clone()));
                Ok(body)
            }
            // What it was is what it is, most likely.
            Err(error) => known()
                .map(|(_, version)| version)
                .ok_or_else(|| unavailable(&error.to_string())),
        }
    }
}

fn not_here(message: String) -> Status {
    Status::new(http::StatusCode::NOT_FOUND, "NotFound", message)
        .with_details(crate::kubeapi::Details::default())
}

fn unavailable(why: &str) -> Status {
    Status::unavailable(why, Duration::from_secs(1))
}

impl Read for Facade {
    fn resources(&self) -> Arc<[Arc<Resource>]> {
        let seen: Vec<_> = self
            .kinds
            .iter()
            .map(|served| served.kind.identity())
            .collect();
        let available: Vec<_> = self
            .kinds
            .iter()
            .map(|served| served.available.borrow().kind().cloned())
            .collect();
        let shown = self.resources.load();
        let same = |a: &Option<Arc<Identity>>, b: &Option<Arc<Identity>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        let is_current = shown.seen.len() == seen.len()
            && shown.seen.iter().zip(&seen).all(|(a, b)| same(a, b))
            && shown.available == available;
        if is_current {
            return shown.resources.clone();
        }
        let resources: Arc<[Arc<Resource>]> = self
            .kinds
            .iter()
            .zip(seen.iter().zip(&available))
            .filter_map(|(served, (identity, resolved))| {
                let identity = identity.clone()?;
                Some(Arc::new(resource(served, identity, resolved.as_deref()?)))
            })
            .collect();
        self.resources.store(Arc::new(Shown {
            seen,
            available,
            resources: resources.clone(),
        }));
        resources
    }

    fn version(&self) -> BoxFuture<'_, Result<Bytes, Status>> {
        Box::pin(self.ask_version())
    }

    fn most_recent<'a>(&'a self, of: Wanted<'a>) -> BoxFuture<'a, Result<Proven, Status>> {
        Box::pin(async move {
            let (kind, identity) = (&of.resource.kind, &of.resource.identity);
            let proven = self.prover.most_recent(kind, identity, of.shard, of.key);
            let proven = proven
                .await
                .map_err(|error| not_proven(of.resource, &error));
            let (state, revision) = proven?;
            Ok(Proven { state, revision })
        })
    }

    fn other(&self, request: Request<Body>, what: Other) -> BoxFuture<'static, Response<Body>> {
        let is_read = match &what {
            Other::Resource { target, .. } => VERBS.contains(&target.verb),
            Other::Path => [http::Method::GET, http::Method::HEAD].contains(request.method()),
        };
        if is_read && self.config.passthrough {
            return Box::pin(passthrough::forward(self.upstream.clone(), request));
        }
        let refused = match &what {
            Other::Path => text(StatusCode::NOT_FOUND, "404 page not found\n"),
            Other::Resource { .. } => self.refuse(&what).response(),
        };
        Box::pin(async move { refused })
    }

    fn open(&self, opened: Opened) -> Option<Box<dyn Reader>> {
        Some(readers::enter(&self.consumers, opened))
    }

    fn unset_is_any(&self) -> bool {
        self.config.unset_is_any
    }

    fn serves_discovery(&self) -> bool {
        !self.config.passthrough
    }
}

/// Fails rather than answer with something older.
fn not_proven(resource: &Resource, error: &ProofError) -> Status {
    let message = format!(
        "what informerd has of {} cannot be proven to be the most recent: {error}; ask with resourceVersion=0 for \
         what is at hand, or set `facade.unset: any` in its config",
        resource.identity.resource()
    );
    match error {
        ProofError::TooMany => Status::too_many_requests(message, Duration::from_secs(1)),
        _ => unavailable(&message),
    }
}

fn resource(served: &Served, identity: Arc<Identity>, resolved: &ResolvedKind) -> Resource {
    let kind = &served.kind;
    let name = identity.resource();
    let mut warnings = Vec::new();
    if kind.metadata_only {
        warnings.push(format!(
            "informerd caches only metadata of {name} (metadataOnly in its config)"
        ));
    } else if kind.pruned {
        warnings.push(format!(
            "informerd leaves out fields of {name} (prune in its config): write changes back as patches"
        ));
    }
    for left_out in &served.leaves_out {
        warnings.push(format!("informerd does not have all {name}: {left_out}"));
    }
    let columns = resolved
        .crd
        .as_ref()
        .map(|CrdVersion { columns, .. }| columns.clone());
    Resource {
        identity,
        kind: Arc::clone(kind),
        verbs: VERBS.to_vec(),
        categories: resolved.categories.clone(),
        columns: columns.filter(|columns| !columns.is_empty()),
        custom: resolved.crd.is_some(),
        subresources: Vec::new(),
        excluded: served.excluded.clone(),
        schema: None,
        warnings,
    }
}

/// Says what of a kind its config leaves out.
fn leaves_out(kind: &KindConfig) -> Vec<String> {
    let mut words = Vec::new();
    if !kind.label_selector.is_everything() {
        words.push(format!("only those with labels {}", kind.label_selector));
    }
    if !kind.field_selector.is_everything() {
        words.push(format!("only those with fields {}", kind.field_selector));
    }
    let excluded = excluded(kind);
    if !excluded.is_empty() {
        words.push(format!("none of the namespaces {}", excluded.join(", ")));
    }
    words
}

fn excluded(kind: &KindConfig) -> &[String] {
    match &kind.namespaces {
        Namespaces::Exclude(names) => names,
        Namespaces::All | Namespaces::Include(_) => &[],
    }
}

/// The kinds of the catalog, which are in the config's order, tied to what discovery has of them.
pub fn served(
    configs: &[KindConfig],
    catalog: &Catalog,
    available: impl Fn(&str) -> watch::Receiver<Availability>,
) -> Vec<Served> {
    let kinds = catalog.iter().zip(configs);
    kinds
        .map(|(kind, config)| Served {
            kind: Arc::clone(kind),
            available: available(&config.resource),
            leaves_out: leaves_out(config),
            excluded: excluded(config).to_vec(),
        })
        .collect()
}
