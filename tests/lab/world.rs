//! A store, two API servers, two daemons and their consumers, on one paused clock: what a history happens to.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use futures::future::BoxFuture;
use informerd::{
    cache::History,
    config::Config,
    object::Key,
    proto::{
        Changes, Delivery, MarkType, Scope, View, WatchObjectsRequest,
        cache_service_client::CacheServiceClient,
    },
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tonic::{Code, Status, transport::Channel};

use crate::{
    cluster::Seen,
    etcd::{ApiServer, Content, Etcd, Serves},
    mirror::Mirrored,
    network::{Network, Order, Tally, Weather},
    replica::{Door, Replica},
    validators::{
        Dial, Interest, Positions, Recorder, Recording, Reference, What, check_without_reference,
        complete, digest_of, key, positions, reliable_in, visible, watch_request,
    },
};

/// Longer than anything takes that comes right by itself: a watch that is silent twice, and the backoff before.
pub const SOON: Duration = Duration::from_secs(1800);
/// How often API servers look at the store by themselves.
const FOLLOW: Duration = Duration::from_secs(5);

/// The two daemons, as consumers find them: by chance, or always the same.
#[derive(Clone)]
pub struct Replicas {
    doors: Arc<Mutex<Vec<Door>>>,
    rng: Arc<Mutex<Rng>>,
    only: Option<usize>,
}

impl Replicas {
    /// One of them.
    pub fn any(&self) -> Door {
        let doors = self.doors.lock().expect("nobody panics while holding it");
        let any = || {
            let mut rng = self.rng.lock().expect("nobody panics while holding it");
            rng.usize(..doors.len())
        };
        doors[self.only.unwrap_or_else(any)].clone()
    }
}

impl Dial for Replicas {
    fn dial(&self, window: u32) -> BoxFuture<'static, Result<Channel, Status>> {
        self.any().dial(window)
    }
}

/// A consumer, and what it is to see.
pub struct Consumer {
    /// For a person.
    pub name: &'static str,
    /// Reads.
    pub recorder: Recorder,
    interest: Interest,
    /// Reasons for which it may begin anew.
    resets: Vec<&'static str>,
    /// Is told of other labels only, whatever else changes.
    labels_only: bool,
    /// It reads so many.
    shards: usize,
}

/// See the module's documentation.
pub struct World {
    /// The truth.
    pub etcd: Etcd,
    /// Of which any may answer.
    pub servers: Vec<ApiServer>,
    /// One for each daemon.
    pub networks: Vec<Network>,
    /// The daemons.
    pub replicas: Vec<Replica>,
    /// Who reads.
    pub consumers: Vec<Consumer>,
    /// And who does so by the client.
    mirrors: Vec<Mirrored>,
    doors: Arc<Mutex<Vec<Door>>>,
    rng: Rng,
    /// History resets that consumers were through.
    resets: Tally,
    events: u64,
    restored: bool,
    following: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.following.abort();
    }
}

/// Who is looked at by a label selector.
pub const SELECTOR: &str = "app=web";

fn everything(_: &Seen) -> bool {
    true
}

fn is_web(seen: &Seen) -> bool {
    seen.labels.get("app").is_some_and(|app| app == "web")
}

fn is_in_a(seen: &Seen) -> bool {
    seen.key.starts_with("a/")
}

impl World {
    /// Nothing is stored yet, and no daemon runs.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let etcd = Etcd::new();
        let servers: Vec<_> = (0..2)
            .map(|_| ApiServer::new(&etcd, Serves::Pods))
            .collect();
        let networks = (0..2)
            .map(|_| Network::new(&etcd, &servers, rng.u64(..)))
            .collect();
        let followers = servers.clone();
        let following = tokio::spawn(async move {
            loop {
                sleep(FOLLOW).await;
                followers.iter().for_each(ApiServer::follow);
            }
        });
        Self {
            etcd,
            servers,
            networks,
            replicas: Vec::new(),
            consumers: Vec::new(),
            mirrors: Vec::new(),
            doors: Arc::default(),
            rng,
            resets: Tally::new(),
            events: 0,
            restored: false,
            following,
        }
    }

    /// Starts the daemons with these configurations.
    pub fn start(&mut self, configs: &[Config]) {
        for (config, network) in configs.iter().zip(&self.networks) {
            self.replicas
                .push(Replica::start(config, &network.client()));
        }
        self.open_doors();
    }

    fn open_doors(&self) {
        let doors = self.replicas.iter().map(|it| it.door.clone()).collect();
        *self.doors.lock().expect("nobody panics while holding it") = doors;
    }

    /// Ends a daemon, as a crash would, and starts another one in its place.
    pub fn restart(&mut self, at: usize, config: &Config) {
        self.networks[at].count("daemon restarted");
        self.replicas[at] = Replica::start(config, &self.networks[at].client());
        self.open_doors();
    }

    /// Cuts a daemon's connections to its consumers.
    pub fn cut_consumers(&mut self, at: usize) {
        self.networks[at].count("consumers cut");
        self.replicas[at].cut();
        self.open_doors();
    }

    /// How to get to the daemons: to `only`, or to any.
    pub fn replicas(&mut self, only: Option<usize>) -> Replicas {
        Replicas {
            doors: self.doors.clone(),
            rng: Arc::new(Mutex::new(self.rng.fork())),
            only,
        }
    }

    /// Changes an object in one of the ways that there are.
    pub fn write(&mut self, unreadable: bool) {
        let rng = &mut self.rng;
        let namespace = ["a", "a-b", "b"][rng.usize(..3)];
        let key = Key::new(namespace, &format!("p{}", rng.usize(..5)));
        let content = Content {
            labels: vec![
                ("app", ["web", "db"][rng.usize(..2)].to_owned()),
                ("tier", rng.u8(..3).to_string()),
            ],
            taints: Vec::new(),
            beat: rng.u64(..),
            unreadable: unreadable && rng.u8(..12) == 0,
        };
        match (self.etcd.get(&key), self.rng.u8(..10)) {
            (Some(_), 0..2) => self.etcd.delete(&key),
            (Some(_), 2) => {
                // The same name, and another one.
                self.etcd.delete(&key);
                self.etcd.put(&key, &content);
            }
            (Some(stored), 3..6) => {
                // What selectors and masks do not see.
                let labels = ["app", "tier"].map(|label| {
                    let value = stored.labels.get(label).cloned();
                    (label, value.unwrap_or_default())
                });
                let beat = Content {
                    labels: labels.into(),
                    ..content
                };
                self.etcd.put(&key, &beat);
            }
            _ => {
                self.etcd.put(&key, &content);
            }
        }
        if self.rng.u8(..4) == 0 {
            self.etcd.pass(self.rng.u64(1..4));
        }
        self.servers.iter().for_each(ApiServer::follow);
    }

    /// Puts the store back, and makes the API servers notice. Whether watches are cut before, and the daemons find out
    /// by themselves, is a matter of chance.
    pub fn restore(&mut self, revision: u64) {
        self.networks[0].count("restored to an earlier revision");
        let cut = self.rng.bool();
        self.restore_as(revision, cut);
    }

    /// The same, where that is known.
    pub fn restore_as(&mut self, revision: u64, cut: bool) {
        self.restored = true;
        if cut {
            for network in &self.networks {
                network.order(Order::Cut);
            }
        }
        self.etcd.restore(revision);
        for server in &self.servers {
            server.begin_anew(History::New);
        }
    }

    /// Whether a daemon has what is stored, as far as that can be read.
    pub fn agrees(&self, at: usize) -> bool {
        let objects = self.etcd.objects();
        self.replicas[at].kind.shards().iter().all(|shard| {
            let Some(state) = shard.state() else {
                return false;
            };
            let namespace = shard.namespace();
            let covered = |key: &Key| namespace.is_empty() || key.namespace() == namespace;
            let mine = objects
                .iter()
                .filter(|(key, stored)| covered(key) && !stored.unreadable)
                .all(|(key, stored)| {
                    state.get(key).is_some_and(|held| {
                        *held.uid == *stored.uid
                            && *held.resource_version == *stored.revision.to_string()
                            && !held.stale
                    })
                });
            let no_more = state
                .objects
                .iter()
                .all(|(key, _)| objects.contains_key(key));
            mine && no_more && state.revision <= self.etcd.revision()
        })
    }

    /// Waits until the daemons have what is stored.
    pub async fn agree(&self) {
        let deadline = Instant::now() + SOON;
        while !(0..self.replicas.len()).all(|at| self.agrees(at)) {
            let why = || {
                let shards = self.replicas.iter().flat_map(|it| it.kind.shards());
                let states = shards.map(|shard| {
                    let state = shard.state();
                    let objects = state.iter().flat_map(|state| state.objects.iter());
                    let held = objects.map(|(key, slot)| {
                        let object = &slot.item;
                        (
                            key.as_str().to_owned(),
                            object.resource_version.clone(),
                            object.stale,
                        )
                    });
                    let held: Vec<_> = held.collect();
                    (shard.status(), state.as_ref().map(|it| it.revision), held)
                });
                let stored = self.etcd.objects().into_iter();
                let stored = stored.map(|(key, it)| (key.as_str().to_owned(), it.revision));
                format!(
                    "{:?}; stored: {:?}",
                    states.collect::<Vec<_>>(),
                    stored.collect::<Vec<_>>()
                )
            };
            assert!(
                Instant::now() < deadline,
                "after {SOON:?} of good weather a daemon has not what is stored at {}: {}",
                self.etcd.revision(),
                why()
            );
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Nothing goes wrong any more.
    pub fn calm(&self) {
        for network in &self.networks {
            network.weather(Weather(0));
        }
        for server in &self.servers {
            server.lag(false);
        }
    }

    /// Writes what can be read over all that cannot.
    pub fn mend(&self) {
        for (key, stored) in self.etcd.objects() {
            if stored.unreadable {
                self.etcd.put(&key, &Content::default());
            }
        }
        self.servers.iter().for_each(ApiServer::follow);
    }

    /// A new consumer; `cuts` is how it cuts itself.
    pub fn consume(
        &mut self,
        name: &'static str,
        request: WatchObjectsRequest,
        only: Option<usize>,
        cuts: Option<u64>,
        resets: &[&'static str],
    ) {
        let scope = request.scope.clone().unwrap_or_default();
        let interest: Interest = match (&*scope.label_selector, scope.namespaces.is_empty()) {
            (SELECTOR, _) => is_web,
            (_, false) => is_in_a,
            _ => everything,
        };
        let labels_only = matches!(request.changes(), Changes::Visible | Changes::Generation);
        let consumer = Consumer {
            name,
            recorder: Recorder::start(self.replicas(only), request, cuts),
            interest,
            resets: resets.to_vec(),
            labels_only,
            shards: match scope.namespaces.len() {
                0 => self.replicas[0].kind.shards().len(),
                some => some,
            },
        };
        self.consumers.push(consumer);
    }

    /// A new consumer that is the Rust client.
    pub fn mirror(&mut self) {
        let replicas = self.replicas(None);
        self.mirrors.push(Mirrored::start(replicas, all()));
    }

    /// Waits until a client has got as far as the store is, and holds its copy against that.
    async fn conclude_mirror(&self, mirror: Mirrored) {
        let (revision, shards) = (self.etcd.revision(), self.replicas[0].kind.shards().len());
        let deadline = Instant::now() + SOON;
        while !mirror.has_reached(revision, shards) {
            let (over, freshness) = {
                let told = mirror.told();
                (told.over.clone(), told.copy.freshness().cloned())
            };
            assert_eq!(over, None, "the client gives up");
            assert!(
                Instant::now() < deadline,
                "the client has not reached {revision} after {SOON:?}: {freshness:?}"
            );
            sleep(Duration::from_secs(1)).await;
        }
        let told = mirror.told();
        assert_eq!(
            told.mismatches, 0,
            "the client was told what a daemon holds"
        );
        let stored = self.etcd.objects();
        let stored: BTreeMap<_, _> = stored
            .iter()
            .map(|(key, it)| (key.to_string(), (&*it.uid, it.revision.to_string())))
            .collect();
        let held = told.copy.objects().iter();
        let held: BTreeMap<_, _> = held
            .map(|((namespace, name), object)| {
                let (uid, version) = (&*object.uid, object.resource_version.clone());
                (format!("{namespace}/{name}"), (uid, version))
            })
            .collect();
        assert_eq!(held, stored, "the client holds what is stored");
    }

    /// Waits until a consumer has got as far as the store is; or has ended for good, as one may who wants everything.
    pub async fn conclude(&mut self, consumer: Consumer) {
        let revision = self.etcd.revision();
        let every = is_every(&consumer.recorder.recording());
        let reached = |recording: &Recording| {
            let all = last_positions(recording).is_some_and(|it| {
                it.len() == consumer.shards && it.into_values().all(|at| at >= revision)
            });
            all || (every && is_over(recording))
        };
        consumer.recorder.sleep(false);
        let what = format!("{}: revision {revision}", consumer.name);
        let recording = consumer.recorder.wait(&what, SOON, reached).await;
        for reason in recording.resets() {
            *self.resets.entry(format!("reset: {reason}")).or_default() += 1;
        }
        self.events += recording.events().count() as u64;
        if let Err(why) = self.check(&consumer, &recording) {
            panic!("{}", shown(&consumer, &recording, &why));
        }
    }

    /// A consumer goes, wherever it is: what it was told until then was right.
    pub fn cancel(&mut self, consumer: Consumer) {
        let recording = consumer.recorder.recording();
        self.events += recording.events().count() as u64;
        if let Err(why) = self.check_told(&consumer, &recording) {
            panic!("{}", shown(&consumer, &recording, &why));
        }
    }

    fn check_told(&self, consumer: &Consumer, recording: &Recording) -> Result<(), String> {
        check_without_reference(recording, &consumer.resets)?;
        let seen = self.etcd.seen();
        let unreadable = self.etcd.unreadable();
        let references: Vec<_> = seen
            .iter()
            .rev()
            .map(|seen| {
                let reference = Reference::new(seen, consumer.interest);
                reference.with_unreadable(unreadable.clone())
            })
            .collect();
        if consumer.labels_only {
            visible(recording, &references)?;
        } else {
            reliable_in(recording, &references)?;
        }
        if is_every(recording) && unreadable.is_empty() && !self.restored {
            complete(recording, &references[0])?;
        }
        let mut wrong = None;
        recording.states(|span, to, held| {
            let marks = span.end.iter().flat_map(|mark| &mark.freshness);
            for shard in marks
                .flat_map(|it| &it.positions)
                .filter(|it| it.has_digest)
            {
                let own = held
                    .iter()
                    .filter(|(key, _)| {
                        shard.namespace.is_empty()
                            || key
                                .split_once('/')
                                .is_some_and(|(of, _)| of == shard.namespace)
                    })
                    .map(|(key, held)| (key.clone(), held.clone()))
                    .collect();
                if digest_of(&own) != shard.digest {
                    wrong = Some(format!("the digest at {to:?} is not that of what is held"));
                }
            }
        });
        wrong.map_or(Ok(()), Err)
    }

    fn check(&self, consumer: &Consumer, recording: &Recording) -> Result<(), String> {
        self.check_told(consumer, recording)?;
        if is_every(recording) && is_over(recording) {
            return Ok(());
        }
        // And in the end it has what is stored.
        let (_, held) = recording.last_state().ok_or("it never had a state")?;
        let truth: BTreeMap<_, _> = self
            .etcd
            .objects()
            .into_iter()
            .map(|(key, stored)| {
                let seen = Seen {
                    event: "ADDED",
                    key: key.as_str().to_owned(),
                    uid: stored.uid,
                    resource_version: stored.revision.to_string(),
                    labels: stored.labels,
                };
                (seen.key.clone(), seen)
            })
            .filter(|(_, seen)| (consumer.interest)(seen))
            .collect();
        let told = held.iter().map(|(key, held)| (key, &held.uid));
        let true_ = truth.iter().map(|(key, seen)| (key, &seen.uid));
        if !told.eq(true_) {
            return Err(format!(
                "in the end it holds {held:?}, and there is {truth:?}"
            ));
        }
        Ok(())
    }

    /// A token of one selector is refused for another one.
    pub async fn misuse_token(&mut self, recording: &Recording) {
        let Some(token) = recording.last_token().cloned() else {
            return;
        };
        let Ok(channel) = self.replicas(None).dial(64 << 10).await else {
            return;
        };
        let mut request = recording.request.clone();
        request.token = token;
        let scope = request.scope.get_or_insert_default();
        scope.label_selector = "app=nothing".into();
        let answer = CacheServiceClient::new(channel)
            .watch_objects(request)
            .await;
        let refused = match answer {
            Err(status) => status,
            Ok(messages) => {
                let mut messages = messages.into_inner();
                loop {
                    match messages.message().await {
                        Ok(Some(message)) => {
                            let told = message.mark.as_ref().map(|it| it.r#type());
                            assert!(message.events.is_empty(), "{message:?}");
                            assert_ne!(told, Some(MarkType::Progress), "{message:?}");
                        }
                        Ok(None) => panic!("it ends well with a token of another selector"),
                        Err(status) => break status,
                    }
                }
            }
        };
        // The connection may have been cut, or may end with a daemon that drains.
        let expected = [
            Code::InvalidArgument,
            Code::Unavailable,
            Code::Unknown,
            Code::Internal,
        ];
        assert!(expected.contains(&refused.code()), "{refused:?}");
        if refused.code() == Code::InvalidArgument {
            self.networks[0].count("token of another selector refused");
        }
    }

    /// Checks all consumers that there are, and says what happened, by name.
    pub async fn finish(mut self) -> Tally {
        self.calm();
        self.mend();
        self.agree().await;
        // Past all that was ever told: whoever gets there has heard of any restore.
        self.etcd.pass_all();
        for consumer in std::mem::take(&mut self.consumers) {
            self.conclude(consumer).await;
        }
        for mirror in std::mem::take(&mut self.mirrors) {
            self.conclude_mirror(mirror).await;
        }
        let mut tally = std::mem::take(&mut self.resets);
        for network in &self.networks {
            for (what, count) in network.tally() {
                *tally.entry(what).or_default() += count;
            }
        }
        for replica in &self.replicas {
            for shard in replica.kind.shards() {
                let counters = &shard.counters;
                let mismatches = counters
                    .digest_mismatches
                    .load(std::sync::atomic::Ordering::Relaxed);
                assert_eq!(mismatches, 0, "the running digest agrees with the state");
                for (cause, count) in counters.relists() {
                    *tally.entry(format!("list: {cause}")).or_default() += count;
                }
            }
        }
        *tally.entry("events told to consumers".into()).or_default() += self.events;
        tally
    }
}

/// All of the pods, with bookmarks that are seldom enough to live through hours.
pub fn all() -> WatchObjectsRequest {
    WatchObjectsRequest {
        bookmark_interval: Some(prost_types::Duration {
            seconds: 30,
            nanos: 0,
        }),
        ..watch_request("pods")
    }
}

/// Of these namespaces.
pub fn within(namespaces: &[&str]) -> WatchObjectsRequest {
    WatchObjectsRequest {
        scope: Some(Scope {
            resource: "pods".into(),
            namespaces: namespaces.iter().map(|it| (*it).to_owned()).collect(),
            ..Scope::default()
        }),
        ..all()
    }
}

/// Of a label selector.
pub fn selected() -> WatchObjectsRequest {
    let mut request = all();
    request.scope.get_or_insert_default().label_selector = SELECTOR.into();
    request
}

/// Each change.
pub fn every() -> WatchObjectsRequest {
    WatchObjectsRequest {
        delivery: Delivery::Every.into(),
        ..all()
    }
}

/// Of labels only what can be seen.
pub fn labels() -> WatchObjectsRequest {
    WatchObjectsRequest {
        view: View::Full.into(),
        fields: vec![".metadata.labels".into()],
        changes: Changes::Visible.into(),
        ..all()
    }
}

/// Of whatever has another generation, which here is another label.
pub fn generations() -> WatchObjectsRequest {
    WatchObjectsRequest {
        changes: Changes::Generation.into(),
        ..all()
    }
}

/// Of each object only so often.
pub fn resting() -> WatchObjectsRequest {
    WatchObjectsRequest {
        min_interval: Some(prost_types::Duration {
            seconds: 4,
            nanos: 0,
        }),
        ..all()
    }
}

/// Where the last token stands.
fn last_positions(recording: &Recording) -> Option<Positions> {
    let mut marks = recording.token_marks();
    marks.next().map(|mark| positions(mark.freshness.as_ref()))
}

/// What is wrong, and all that led there.
fn shown(consumer: &Consumer, recording: &Recording, why: &str) -> String {
    let lines = recording.entries.iter().map(|entry| match &entry.what {
        What::Opened(token) => format!("opened with a token of {} bytes", token.len()),
        What::Closed(why) => format!("closed: {why}"),
        What::Event(event) => format!(
            "  {} {} {} {} at {}",
            event.r#type().as_str_name(),
            key(event),
            event.uid,
            event.resource_version,
            event.revision
        ),
        What::Mark(mark) => format!(
            "{} {} {:?} at {:?}{}",
            mark.r#type().as_str_name(),
            mark.reason,
            mark.namespaces,
            positions(mark.freshness.as_ref()),
            if mark.token.is_empty() { "" } else { ", token" }
        ),
    });
    let all: Vec<_> = lines.collect();
    format!(
        "{} {:?}\n{}\n{}: {why}",
        consumer.name,
        recording.request.scope,
        all.join("\n"),
        consumer.name
    )
}

fn is_every(recording: &Recording) -> bool {
    recording.request.delivery() == Delivery::Every
}

/// It was told that it cannot go on.
fn is_over(recording: &Recording) -> bool {
    recording.closes().any(|why| why.starts_with("OutOfRange"))
}
