//! One configured resource kind: its names, its shards, and who is using it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::{Phase, Shard};
use crate::object::{Object, names, selector::Selectable};

/// A configured kind, as its readers see it.
#[derive(Debug)]
pub struct Kind {
    /// As the config names it.
    pub name: String,
    /// Objects lack fields that the config prunes.
    pub pruned: bool,
    /// Only metadata is watched.
    pub metadata_only: bool,
    /// Changes whenever the same upstream objects would give other objects here, or others of them: a hash of
    /// prune rules, selectors, namespaces.
    pub config_hash: u64,
    /// By which labels the config selects upstream, as Kubernetes writes it; empty for all.
    pub label_selector: String,
    /// The same of fields, and of namespaces that it excludes.
    pub field_selector: String,
    identity: ArcSwapOption<Identity>,
    shards: Vec<Arc<Shard<Object>>>,
    unordered: AtomicBool,
    users: Arc<Users>,
}

/// What the API server calls the kind, found by discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Empty for the core group.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// `Pod`.
    pub kind: String,
    /// `pods`.
    pub plural: String,
    /// `pod`.
    pub singular: String,
    /// `po`.
    pub short_names: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// The paths whose values objects carry for field selectors, in the order of [`Object::fields`].
    pub selectable: Selectable,
}

impl Identity {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        names::api_version(&self.group, &self.version)
    }

    /// `pods`, `deployments.apps`.
    pub fn resource(&self) -> String {
        names::resource(&self.plural, &self.group)
    }

    /// The path of the objects in a namespace; with an empty one, of all of them.
    pub fn collection(&self, namespace: &str) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace {
            "" => format!("{root}/{}", self.plural),
            namespace => format!("{root}/namespaces/{namespace}/{}", self.plural),
        }
    }

    /// Whether a person who writes `name` may mean this kind: plural, singular, short name or kind, any of
    /// them followed by `.group` or `.version.group`; case does not count.
    pub fn is_called(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let (short, rest) = match name.split_once('.') {
            None => (name.as_str(), None),
            Some((short, rest)) => (short, Some(rest)),
        };
        let named = short == self.plural
            || short == self.singular
            || short == self.kind.to_ascii_lowercase()
            || self.short_names.iter().any(|alias| alias == short);
        let group = self.group.as_str();
        named
            && rest.is_none_or(|rest| {
                rest == group
                    || rest
                        .split_once('.')
                        .is_some_and(|(version, rest)| version == self.version && rest == group)
                    || (group.is_empty() && rest == self.version)
            })
    }
}

/// How many use a kind, for kinds that are watched on first use only.
#[derive(Debug)]
struct Users {
    count: AtomicUsize,
    /// Sent whenever the first comes or the last goes.
    changed: watch::Sender<()>,
}

/// Keeps a kind in use until dropped.
#[derive(Debug)]
pub struct Use(Arc<Users>);

impl Drop for Use {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.changed.send_replace(());
        }
    }
}

impl Kind {
    /// `shards` are in the order of their namespaces; a kind that is watched as a whole has one.
    pub fn new(
        name: &str,
        pruned: bool,
        metadata_only: bool,
        config_hash: u64,
        shards: Vec<Arc<Shard<Object>>>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            pruned,
            metadata_only,
            config_hash,
            label_selector: String::new(),
            field_selector: String::new(),
            identity: ArcSwapOption::empty(),
            shards,
            unordered: AtomicBool::new(false),
            users: Arc::new(Users {
                count: AtomicUsize::new(0),
                changed: watch::Sender::new(()),
            }),
        }
    }

    /// The same kind, of which the API server is asked for these only; see the fields.
    #[must_use]
    pub fn selecting(self, label_selector: String, field_selector: String) -> Self {
        Self {
            label_selector,
            field_selector,
            ..self
        }
    }

    /// Known once discovery has found the kind; stays when it is removed.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.load_full()
    }

    /// Whether [`Kind::identity`] would be this very one.
    pub fn has_identity(&self, identity: &Arc<Identity>) -> bool {
        let known = self.identity.load();
        known
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, identity))
    }

    /// Says what discovery found.
    pub fn set_identity(&self, identity: Identity) {
        self.identity.store(Some(Arc::new(identity)));
    }

    /// One for each upstream watch.
    pub fn shards(&self) -> &[Arc<Shard<Object>>] {
        &self.shards
    }

    /// Whether the kind's resource versions turned out to have no order.
    pub fn is_unordered(&self) -> bool {
        self.unordered.load(Ordering::Relaxed)
    }

    /// See [`Kind::is_unordered`].
    pub fn set_unordered(&self) {
        self.unordered.store(true, Ordering::Relaxed);
    }

    /// The worst of the shards' phases.
    pub fn phase(&self) -> Phase {
        let phases = self.shards.iter().map(|shard| shard.status().phase);
        phases
            .max_by_key(|phase| phase.badness())
            .unwrap_or(Phase::Waiting)
    }

    /// The age of the worst shard; `None` while one of them was never proven.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let ages = self.shards.iter().map(|shard| shard.age(now));
        ages.reduce(|a, b| Some(a?.max(b?))).flatten()
    }

    /// Keeps the kind in use, and so watched, until the guard is dropped.
    pub fn enter(&self) -> Use {
        if self.users.count.fetch_add(1, Ordering::AcqRel) == 0 {
            self.users.changed.send_replace(());
        }
        Use(self.users.clone())
    }

    /// How many are using the kind.
    pub fn users(&self) -> usize {
        self.users.count.load(Ordering::Acquire)
    }

    /// Told whenever the first user comes or the last one goes.
    pub fn users_changed(&self) -> watch::Receiver<()> {
        self.users.changed.subscribe()
    }
}

/// The configured kinds, in the config's order.
#[derive(Clone, Debug, Default)]
pub struct Catalog(Arc<[Arc<Kind>]>);

impl Catalog {
    /// Of these.
    pub fn new(kinds: Vec<Arc<Kind>>) -> Self {
        Self(kinds.into())
    }

    /// In the config's order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.0.iter()
    }

    /// The kind that `name` means: as the config has it, or any of the names that discovery found. Where
    /// several kinds answer to it, the core group's comes first, as with kubectl.
    pub fn find(&self, name: &str) -> Option<&Arc<Kind>> {
        self.0
            .iter()
            .find(|kind| kind.name.eq_ignore_ascii_case(name))
            .or_else(|| {
                let called = |kind: &&Arc<Kind>| {
                    kind.identity()
                        .is_some_and(|identity| identity.is_called(name))
                };
                let group =
                    |kind: &&Arc<Kind>| kind.identity().map(|identity| identity.group.clone());
                self.0.iter().filter(called).min_by_key(group)
            })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::object::selector::Selectable;

    /// What discovery finds of pods.
    pub(crate) fn pods() -> Identity {
        Identity {
            selectable: Selectable::builtin("", "pods"),
            ..identity("", "v1", "Pod", "pods", &["po"])
        }
    }

    fn identity(group: &str, version: &str, kind: &str, plural: &str, short: &[&str]) -> Identity {
        Identity {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            plural: plural.into(),
            singular: kind.to_lowercase(),
            short_names: short.iter().map(|&name| name.into()).collect(),
            namespaced: true,
            selectable: Selectable::builtin("", ""),
        }
    }

    #[test]
    fn a_kind_is_found_by_every_name_that_people_use() {
        let deployments = identity("apps", "v1", "Deployment", "deployments", &["deploy"]);
        for name in [
            "deployments",
            "deployment",
            "Deployment",
            "deploy",
            "deployments.apps",
            "deploy.apps",
            "deployments.v1.apps",
        ] {
            assert!(deployments.is_called(name), "{name}");
        }
        for name in [
            "deployments.v1",
            "deployments.v2.apps",
            "deployments.extensions",
            "pods",
            "",
        ] {
            assert!(!deployments.is_called(name), "{name}");
        }
        assert!(pods().is_called("pods.v1"));
    }

    #[test]
    fn the_core_group_comes_first_where_two_kinds_share_a_name() {
        let kinds = ["events.events.k8s.io", "events"]
            .map(|name| Arc::new(Kind::new(name, false, false, 0, Vec::new())));
        kinds[0].set_identity(identity("events.k8s.io", "v1", "Event", "events", &["ev"]));
        kinds[1].set_identity(identity("", "v1", "Event", "events", &["ev"]));
        let catalog = Catalog::new(kinds.into());
        assert_eq!(
            catalog.find("ev").map(|kind| kind.name.as_str()),
            Some("events")
        );
        assert_eq!(
            catalog
                .find("ev.events.k8s.io")
                .map(|kind| kind.name.as_str()),
            Some("events.events.k8s.io")
        );
        assert!(catalog.find("pods").is_none());
    }

    #[test]
    fn a_kind_is_in_use_while_a_guard_lives() {
        let kind = Kind::new("pods", false, false, 0, Vec::new());
        let mut changed = kind.users_changed();
        let (first, second) = (kind.enter(), kind.enter());
        assert!(changed.has_changed().is_ok_and(|changed| changed));
        changed.mark_unchanged();
        drop(first);
        assert!(
            changed.has_changed().is_ok_and(|changed| !changed),
            "one is left"
        );
        drop(second);
        assert!(changed.has_changed().is_ok_and(|changed| changed));
        assert_eq!(kind.users(), 0);
    }
}
