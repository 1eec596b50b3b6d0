//! Makes the kinds of a configuration, and the sources that fill them, one for each shard. Whoever calls runs these
//! where it likes: the daemon on a thread of their own, a test on a clock that it holds.

use std::{sync::Arc, time::Instant};

use futures::{FutureExt, future::BoxFuture};

use super::AppError;
use crate::{
    admin::FirstSync,
    cache::{Catalog, Kind, Limits, Writer},
    config::{Config, KindConfig, Namespaces, Start},
    discovery::Registry,
    heartbeat::Heartbeats,
    object::Object,
    shutdown::Shutdown,
    source::{Source, SourceSettings},
    upstream::Upstream,
};

/// The kinds of a configuration, and what is to run so that they are followed.
pub struct Followed {
    /// The kinds, in the order of the configuration.
    pub catalog: Catalog,
    /// What readiness waits for.
    pub first_sync: Arc<FirstSync>,
    /// Each runs until the shutdown is over.
    pub sources: Vec<BoxFuture<'static, ()>>,
}

/// Makes them. Nothing is asked of the API server before the sources and the registry run.
///
/// # Errors
///
/// [`AppError::Prune`].
pub fn follow(
    config: &Config,
    upstream: &Upstream,
    registry: &Registry,
    heartbeats: &Heartbeats,
    shutdown: &Shutdown,
) -> Result<Followed, AppError> {
    let world = World {
        config,
        upstream,
        registry,
        heartbeats,
        shutdown,
    };
    let (mut kinds, mut eager, mut sources) = (Vec::new(), Vec::new(), Vec::new());
    for kind_config in &config.kinds {
        let (kind, its_sources) = world.follow(kind_config)?;
        if kind_config.start == Start::Eager {
            eager.push(kind.clone());
        }
        sources.extend(its_sources);
        kinds.push(kind);
    }
    Ok(Followed {
        catalog: Catalog::new(kinds),
        first_sync: Arc::new(FirstSync::new(eager)),
        sources,
    })
}

/// What a kind is followed with.
pub(super) struct World<'a> {
    pub(super) config: &'a Config,
    pub(super) upstream: &'a Upstream,
    pub(super) registry: &'a Registry,
    pub(super) heartbeats: &'a Heartbeats,
    pub(super) shutdown: &'a Shutdown,
}

impl World<'_> {
    /// A kind, and its sources.
    pub(super) fn follow(
        &self,
        kind_config: &KindConfig,
    ) -> Result<(Arc<Kind>, Vec<BoxFuture<'static, ()>>), AppError> {
        let writers = writers(kind_config);
        let shards = writers
            .iter()
            .map(|writer| writer.shard().clone())
            .collect();
        let kind = Kind::new(
            &kind_config.resource,
            kind_config.is_pruned(),
            kind_config.metadata_only,
            kind_config.content_hash(),
            shards,
        );
        let kind = Arc::new(kind.selecting(
            kind_config.label_selector.to_string(),
            kind_config.upstream_field_selector(),
        ));
        let mut sources = Vec::new();
        for writer in writers {
            let settings =
                SourceSettings::new(kind_config, &self.config.upstream, fastrand::u64(..));
            let settings = settings.map_err(|source| AppError::Prune {
                kind: kind.name.clone(),
                source,
            })?;
            let name = match writer.shard().namespace() {
                "" => format!("source/{}", kind.name),
                namespace => format!("source/{}/{namespace}", kind.name),
            };
            let source = Source::new(
                kind.clone(),
                writer,
                settings,
                self.upstream.clone(),
                self.registry.subscribe(&kind_config.resource),
                self.registry.server_version(),
                self.heartbeats.register(name),
            );
            sources.push(source.run(self.shutdown.over_owned()).boxed());
        }
        Ok((kind, sources))
    }
}

/// One for the whole kind, or one for each namespace that the config includes, in the order of keys.
fn writers(kind: &KindConfig) -> Vec<Writer<Object>> {
    let mut namespaces = match &kind.namespaces {
        Namespaces::Include(namespaces) => namespaces.clone(),
        Namespaces::All | Namespaces::Exclude(_) => vec![String::new()],
    };
    namespaces.sort_by_cached_key(|namespace| crate::object::Key::new(namespace, ""));
    // The config's limits are the kind's: its shards share them.
    let share = |all: u64| usize::try_from(all).unwrap_or(usize::MAX) / namespaces.len().max(1);
    let limits = Limits {
        journal_bytes: share(kind.journal.bytes),
        journal_age: kind.journal.age,
        tombstones: share(kind.tombstones.count),
        tombstone_age: kind.tombstones.age,
    };
    let now = Instant::now();
    namespaces
        .iter()
        .map(|namespace| Writer::new(namespace, limits, now))
        .collect()
}
