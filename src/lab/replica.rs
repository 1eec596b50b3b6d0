//! One replica of the daemon: its source, its cache and its service; and what must be true of what it publishes.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    cases::Cases,
    cluster::{Cluster, Pod},
    server::Server,
};
use crate::{
    api::{self, Api},
    cache::{Catalog, Cause, Kind, Limits, Phase, State, Writer},
    config::{Consistency, KindConfig, ListStrategy, Place},
    object::Object,
    proto::cache_service_client::CacheServiceClient,
    shutdown::Shutdown,
    source::tests::by_hand::ByHand,
};

pub(super) type Client = CacheServiceClient<api::cache::CacheService>;

/// What is known of each object that is held: uid, version, and whether it is marked stale.
type Identities = BTreeMap<String, (String, String, bool)>;

/// See the module's documentation.
pub(super) struct Replica {
    name: usize,
    /// Tells it from whoever had the name before.
    pub(super) instance: u64,
    source: ByHand,
    server: Server,
    kind: Arc<Kind>,
    api: Api,
    /// How the kind is configured: with 1, `.spec.secret` is pruned.
    pub(super) config: u64,
    /// Every published state, by its history and sequence: how it was when it was published first.
    published: HashMap<(u64, u64), Arc<State<Object>>>,
    last: Option<Arc<State<Object>>>,
    /// At a restore: how far it had got in the history that is void, until it notices.
    pub(super) void_from: Option<u64>,
    /// The last list left things in that nobody knows of whether they are there.
    unnamed: bool,
}

impl Replica {
    pub(super) fn new(name: usize, config: u64, rng: &mut Rng) -> Self {
        let limits = Limits {
            journal_bytes: rng.usize(2_000..40_000),
            journal_age: Duration::from_secs(rng.u64(20..300)),
            tombstones: rng.usize(0..12),
            tombstone_age: Duration::from_secs(rng.u64(30..600)),
        };
        let writer = Writer::new("", limits, now());
        let shards = vec![writer.shard().clone()];
        let kind = Arc::new(Kind::new("pods", true, false, config, shards));
        let mut settings = KindConfig::new("pods", Place::Default);
        settings.page_size = rng.u32(1..8);
        settings.list = [ListStrategy::Auto, ListStrategy::Paged][rng.usize(..2)];
        if rng.u8(..4) == 0 {
            settings.consistency = Consistency::Any;
        }
        if config == 1 {
            let secret = ".spec.secret".parse().expect("a path");
            settings.prune.drop.push(secret);
        }
        let source = ByHand::new(kind.clone(), writer, &settings, rng.u64(..));
        let catalog = Catalog::new(vec![kind.clone()]);
        Self {
            name,
            instance: rng.u64(..),
            source,
            server: Server::new(rng.fork()),
            api: Api::new(catalog, api::Settings::default(), Shutdown::new()),
            kind,
            config,
            published: HashMap::new(),
            last: None,
            void_from: None,
            unnamed: false,
        }
    }

    pub(super) fn client(&self) -> Client {
        CacheServiceClient::new(api::cache::CacheService::new(self.api.clone()))
    }

    /// What was there at a position that it gave.
    pub(super) fn at(&self, history: u64, sequence: u64) -> Option<&Arc<State<Object>>> {
        self.published.get(&(history, sequence))
    }

    /// What it serves now.
    pub(super) fn state(&self) -> Option<Arc<State<Object>>> {
        self.source.shard().state()
    }

    /// It takes away what stalled consumers hold.
    pub(super) fn expire(&self) {
        self.api.consumers().expire(now());
    }

    /// Its API server does one thing. Whether there was anything to do.
    pub(super) fn turn(&mut self, cluster: &mut Cluster, faults: bool, cases: &mut Cases) -> bool {
        let any = self.server.turn(&mut self.source, cluster, faults, cases);
        self.unnamed |= self.server.unnamed;
        self.check(cluster, cases);
        any
    }

    /// Its clock goes on.
    pub(super) fn tick(&mut self, cluster: &Cluster, cases: &mut Cases) {
        let silent = self.is_silent();
        self.source.tick();
        if !silent && self.is_silent() {
            cases.saw(10);
        }
        self.server.look(&self.source);
        self.check(cluster, cases);
    }

    fn is_silent(&self) -> bool {
        self.source.shard().status().reason == "Silent"
    }

    /// etcd is restored: connections break, and what it knows may be void.
    pub(super) fn restored(&mut self, cluster: &Cluster) {
        let revision = self.source.revision();
        if revision > cluster.revision && self.void_from.is_none() {
            self.void_from = Some(revision);
        }
        self.server.restart(&mut self.source);
    }

    /// Why it is not current, if it is not.
    pub(super) fn lacks(&self, cluster: &Cluster) -> Option<String> {
        let status = self.source.shard().status();
        let Some(state) = self.state() else {
            return Some(format!("nothing is complete, {status:?}"));
        };
        let last = cluster.log.last().map_or(0, |change| change.revision);
        let current = status.phase == Phase::Live
            && self.void_from.is_none()
            && (last..=cluster.revision).contains(&state.revision);
        (!current).then(|| format!("at {} of {}, {status:?}", state.revision, cluster.revision))
    }

    /// What it publishes is what is in the cluster at that revision, whole, and the journal leads there.
    fn check(&mut self, cluster: &Cluster, cases: &mut Cases) {
        let at = format!("replica {}", self.name);
        assert!(
            !self.kind.is_unordered(),
            "{at}: its versions have an order"
        );
        let Some(state) = self.state() else {
            return;
        };
        let before = self.last.clone();
        let same = |before: &Arc<State<Object>>| {
            (before.history, before.revision, before.sequence)
                == (state.history, state.revision, state.sequence)
        };
        if before.as_ref().is_some_and(same) {
            return;
        }
        let before = before.filter(|before| before.history == state.history);
        if before.is_none() {
            self.void_from = None;
        }
        assert!(
            self.source.verify(),
            "{at}: the digest is that of the state"
        );
        self.check_state(&state, before.as_deref(), cluster, &at);
        self.check_journal(&state, &at);
        if let Some(before) = before
            && state.journal.gap_after(before.revision).is_some()
        {
            cases.saw(9);
        }
        if state.objects.values().any(|slot| slot.item.stale) {
            cases.saw(13);
        }
        self.published
            .entry((state.history, state.sequence))
            .or_insert_with(|| state.clone());
        self.last = Some(state);
    }

    fn check_state(
        &self,
        state: &State<Object>,
        before: Option<&State<Object>>,
        cluster: &Cluster,
        at: &str,
    ) {
        let set = cluster.at(cluster.history(), state.revision);
        let at = format!("{at} at revision {}", state.revision);
        for (key, pod) in set.iter() {
            let [namespace, name] = [pod.namespace, &*pod.name];
            let held = state.get(&crate::object::Key::new(namespace, name));
            if pod.readable {
                let Some(held) = held else {
                    panic!("Reliable: {at} lacks {key}, of {}", pod.version);
                };
                let known = before.and_then(|before| before.get(&held.key));
                if known.is_none_or(|known| !Arc::ptr_eq(known, held)) {
                    let (ours, theirs) = (shown(held), self.expected(pod));
                    assert_eq!(ours, theirs, "Reliable: {at} has another {key}");
                }
                assert!(
                    *held.uid == *pod.uid && *held.resource_version == *pod.version.to_string(),
                    "Reliable: {at} has {key} of {}, not of {}",
                    held.resource_version,
                    pod.version
                );
                continue;
            }
            let known =
                before.and_then(|before| before.get(&crate::object::Key::new(namespace, name)));
            let known = known.is_some_and(|known| *known.uid == *pod.uid);
            assert!(
                held.is_some() || !known,
                "Reliable: {at}: {key}, which cannot be decoded, is swept"
            );
            assert!(
                held.is_none_or(|held| held.stale),
                "Reliable: {at}: {key} is out of date and does not say so"
            );
        }
        for slot in state.objects.values() {
            let key = slot.item.key.as_str();
            let excused = self.unnamed && slot.item.stale;
            assert!(
                set.contains_key(key) || excused,
                "Reliable: {at} has {key} of {}, which is gone; is it stale: {}",
                slot.item.resource_version,
                slot.item.stale
            );
        }
    }

    /// What a readable pod is here: uid, version, label, node, and whether the secret is left.
    fn expected(&self, pod: &Rc<Pod>) -> (String, String, bool, String) {
        let secret = if self.config == 1 {
            ""
        } else {
            r#","secret":"x""#
        };
        let content = format!(
            r#""labels":{{"app":"{}"}}}},"spec":{{"nodeName":"node-{}"{secret}}}}}"#,
            pod.app, pod.node
        );
        (pod.uid.clone(), pod.version.to_string(), false, content)
    }

    /// Replaying the journal from any retained point gives the state.
    fn check_journal(&self, state: &State<Object>, at: &str) {
        let journal = &state.journal;
        let Some(floor) = self.published.get(&(state.history, journal.floor)) else {
            return;
        };
        let mut set = identities(floor);
        let mut sequence = journal.floor;
        for segment in journal.segments() {
            assert_eq!(segment.first, sequence + 1, "{at}: the journal has no hole");
            for entry in &segment.entries {
                sequence += 1;
                let item = entry.item().expect("an entry is about an item");
                let before = entry.before.as_deref().map(identity);
                let known = set.get(item.key.as_str()).cloned();
                assert_eq!(known, before, "{at}: before, at {sequence}");
                match &entry.after {
                    Some(after) => set.insert(after.key.to_string(), identity(after)),
                    None => set.remove(item.key.as_str()),
                };
                assert!(
                    entry.after.is_none() || entry.cause == Cause::Changed,
                    "{at}: {entry:?}"
                );
            }
        }
        assert_eq!(sequence, state.sequence, "{at}");
        assert_eq!(
            set,
            identities(state),
            "{at}: the journal leads to the state"
        );
    }
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, revision) = (self.name, self.source.revision());
        write!(f, "replica {name} at {revision} ")?;
        match self.source.asked() {
            Some(request) => write!(f, "asks for {request:?}"),
            None => write!(f, "{:?}", self.source.shard().phase()),
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn identity(object: &Object) -> (String, String, bool) {
    (
        object.uid.to_string(),
        object.resource_version.to_string(),
        object.stale,
    )
}

fn identities(state: &State<Object>) -> Identities {
    let objects = state.objects.values();
    objects
        .map(|slot| (slot.item.key.to_string(), identity(&slot.item)))
        .collect()
}

/// As [`Replica::expected`] has it.
fn shown(object: &Object) -> (String, String, bool, String) {
    let (uid, version, stale) = identity(object);
    let json = String::from_utf8_lossy(&object.json);
    let content = json.find(r#""labels""#).map(|from| json[from..].to_owned());
    (uid, version, stale, content.unwrap_or_default())
}
