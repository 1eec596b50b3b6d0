//! Follows what the API server decides by, where callers sign in: a role or binding that changes is a reason to ask
//! again who may do what, at once and not by the clock only.
//!
//! By the machine that follows the configured kinds, and apart from them: nothing of it is served to anybody, and one
//! that is configured as well is watched once. Only that something has changed matters, so metadata is all that is
//! read. Where the daemon's own account may not read that, its source says so in the log, and rights are looked for by
//! the clock.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{AppError, follow::World};
use crate::{
    auth::Guard,
    cache::{Catalog, Doorbell, Kind, WakeScope},
    config::{KindConfig, Place},
};

/// What RBAC decides by.
const KINDS: [&str; 4] = [
    "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
];

/// What is to run: the kinds' sources, and what tells the guard of changes.
pub(super) struct Permissions {
    pub(super) sources: Vec<BoxFuture<'static, ()>>,
    pub(super) telling: BoxFuture<'static, ()>,
}

pub(super) fn follow(
    world: &World<'_>,
    configured: &Catalog,
    guard: Guard,
) -> Result<Permissions, AppError> {
    let (mut kinds, mut sources) = (Vec::new(), Vec::new());
    for name in KINDS {
        if let Some(kind) = configured.iter().find(|kind| is_all_of(kind, name)) {
            kinds.push(kind.clone());
            continue;
        }
        let (kind, its_sources) = world.follow(&config(name))?;
        kinds.push(kind);
        sources.extend(its_sources);
    }
    Ok(Permissions {
        sources,
        telling: Box::pin(tell(kinds, guard)),
    })
}

/// Whether a configured kind is this one, by its whole name or its plural alone, and leaves nothing of it out.
fn is_all_of(kind: &Kind, name: &str) -> bool {
    let plural = name.split('.').next();
    let mut shards = kind.shards().iter();
    (kind.name == name || Some(&*kind.name) == plural)
        && shards.all(|shard| shard.namespace().is_empty())
        && kind.label_selector.is_empty()
        && kind.field_selector.is_empty()
}

fn config(name: &str) -> KindConfig {
    let mut kind = KindConfig::new(name, Place::Default);
    kind.metadata_only = true;
    // Nobody reads what was.
    kind.journal.bytes = 64 << 10;
    kind
}

/// For ever. What changes while the guard is told is told once afterwards.
async fn tell(kinds: Vec<Arc<Kind>>, guard: Guard) {
    let changed = Arc::new(Doorbell::default());
    // One that is configured may be watched only while somebody uses it.
    let _uses: Vec<_> = kinds.iter().map(|kind| kind.enter()).collect();
    let shards: Vec<_> = kinds.iter().flat_map(|kind| kind.shards()).collect();
    let _subscriptions: Vec<_> = shards
        .iter()
        .map(|shard| shard.subscribe(vec![WakeScope::All], &changed))
        .collect();
    let digests = || shards.iter().map(|shard| Some(shard.state()?.digest));
    let mut known: Vec<Option<u64>> = digests().collect();
    loop {
        changed.rung().await;
        let now: Vec<_> = digests().collect();
        if is_news(&known, &now) {
            guard.permissions_changed().await;
        }
        known = now;
    }
}

/// Whether any of them is not what it was. What is known for the first time has not changed: that is how it was.
fn is_news(before: &[Option<u64>], now: &[Option<u64>]) -> bool {
    let mut both = before.iter().zip(now);
    both.any(|(before, now)| before.is_some() && before != now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_list_is_no_change_and_whatever_differs_later_is_one() {
        assert!(!is_news(&[None, None], &[Some(1), None]));
        assert!(!is_news(&[Some(1), None], &[Some(1), Some(2)]));
        assert!(is_news(&[Some(1), Some(2)], &[Some(1), Some(3)]));
        assert!(!is_news(&[Some(1)], &[Some(1)]));
        assert!(is_news(&[Some(1)], &[None]));
    }

    #[test]
    fn a_configured_kind_stands_in_for_the_same_one_if_it_leaves_nothing_out() {
        let kind = |name: &str, namespace: &str| {
            let now = std::time::Instant::now();
            let writer = crate::cache::Writer::new(namespace, Default::default(), now);
            Kind::new(name, false, true, 0, vec![writer.shard().clone()])
        };
        let roles = KINDS[0];
        assert!(is_all_of(&kind(roles, ""), roles));
        assert!(is_all_of(&kind("roles", ""), roles));
        assert!(!is_all_of(&kind("clusterroles", ""), roles));
        assert!(!is_all_of(&kind(roles, "default"), roles));
        let some = kind(roles, "").selecting("app=web".to_owned(), String::new());
        assert!(!is_all_of(&some, roles));
    }
}
