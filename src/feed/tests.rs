//! What kube's shared stream does to a bare reader, and that it does not do it to ours.

use std::{
    collections::BTreeMap,
    sync::atomic::AtomicUsize,
    task::{Wake, Waker},
    time::Duration,
};

use kube::ResourceExt;

use super::*;
use crate::{
    cache::{Cause, History, Limits, Unreadable, Writer as CacheWriter},
    heartbeat::Heartbeats,
    object::tests::object,
};

/// A kind with one shard for each namespace given, its writers, and a feed that runs.
pub(crate) struct Fed {
    pub(crate) writers: Vec<CacheWriter<Object>>,
    pub(crate) feed: Feed,
    pub(crate) shutdown: Shutdown,
    revision: u64,
}

impl Fed {
    /// Of a kind that is watched as a whole, listed already.
    pub(crate) fn new() -> Self {
        let mut fed = Self::sharded(&[""]);
        fed.list(0, &[], History::Same);
        fed
    }

    fn sharded(namespaces: &[&str]) -> Self {
        Self::with_limits(namespaces, Limits::default())
    }

    fn with_limits(namespaces: &[&str], limits: Limits) -> Self {
        let new = |namespace: &&str| CacheWriter::new(namespace, limits, Instant::now());
        let writers: Vec<_> = namespaces.iter().map(new).collect();
        let shards = writers
            .iter()
            .map(|writer| writer.shard().clone())
            .collect();
        let kind = Arc::new(Kind::new("things", false, false, 0, shards));
        let (feed, runner) = Feed::new(kind);
        let shutdown = Shutdown::new();
        tokio::spawn(runner.run(Heartbeats::default().register("feed"), shutdown.clone()));
        Self {
            writers,
            feed,
            shutdown,
            revision: 0,
        }
    }

    /// An object of the next revision.
    pub(crate) fn object(&mut self, namespace: &str, name: &str, uid: &str) -> Arc<Object> {
        self.revision += 1;
        let resource_version = self.revision.to_string().into();
        Arc::new(Object {
            uid: uid.into(),
            resource_version,
            ..object(namespace, name)
        })
    }

    pub(crate) fn list(&mut self, shard: usize, objects: &[Arc<Object>], history: History) {
        self.revision += 1;
        let now = Instant::now();
        self.writers[shard].replace(
            objects.to_vec(),
            &Unreadable::default(),
            self.revision,
            history,
            now,
        );
    }

    pub(crate) fn upsert(&mut self, name: &str, uid: &str) {
        let object = self.object("", name, uid);
        self.put(object);
    }

    pub(crate) fn put(&mut self, object: Arc<Object>) {
        self.writers[0].upsert(object, self.revision);
        self.writers[0].publish(Instant::now());
    }

    pub(crate) fn delete(&mut self, name: &str) {
        self.revision += 1;
        self.writers[0].delete(&Key::new("", name), None, self.revision, Cause::Deleted);
        self.writers[0].publish(Instant::now());
    }

    /// What is in kube's store: a tombstone is without its version.
    pub(crate) fn stored(&self) -> BTreeMap<String, Option<String>> {
        self.feed
            .store
            .state()
            .iter()
            .map(|handle| shown(handle))
            .collect()
    }

    fn cached_object(&self, name: &str) -> Arc<Object> {
        let state = self.writers[0].shard().state().expect("it is listed");
        state.get(&Key::new("", name)).expect("it is there").clone()
    }

    fn cached(&self) -> BTreeMap<String, Option<String>> {
        let states = self
            .writers
            .iter()
            .filter_map(|writer| writer.shard().state());
        let objects = states.flat_map(|state| state.objects.values().cloned().collect::<Vec<_>>());
        objects
            .map(|slot| {
                (
                    slot.item.key.to_string(),
                    Some(slot.item.resource_version.to_string()),
                )
            })
            .collect()
    }
}

/// Until nothing moves any more: the paused clock goes on only when all tasks wait.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

fn shown(handle: &Handle) -> (String, Option<String>) {
    let version = handle
        .object()
        .map(|object| object.resource_version.to_string());
    (handle.key().to_string(), version)
}

/// What waits for the subscriber.
async fn taken(subscriber: &mut Subscriber) -> Vec<(String, Option<String>)> {
    settle().await;
    let mut all = Vec::new();
    while let Some(Some(handle)) = subscriber.next().now_or_never() {
        all.push(shown(&handle));
    }
    all
}

fn some(name: &str, version: u64) -> (String, Option<String>) {
    (name.into(), Some(version.to_string()))
}

fn none(name: &str) -> (String, Option<String>) {
    (name.into(), None)
}

#[derive(Default)]
struct CountingWaker(AtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// When this fails, kube has mended its stream, and pumps need not be kept from what is not in the store.
#[tokio::test]
async fn a_bare_reflect_handle_loses_its_wakeup_when_an_object_was_deleted_before_it_looked() {
    let (mut reflected, _) = Reflected::new(KindRef::default());
    let mut bare = reflected.root.clone();
    let counter = Arc::new(CountingWaker::default());
    let waker = Waker::from(counter.clone());
    let mut context = Context::from_waker(&waker);

    let gone = Handle::live(Arc::new(object("", "gone")));
    reflected.apply(Event::Apply(gone.clone())).await;
    reflected.apply(Event::Delete(gone)).await;
    assert!(bare.poll_next_unpin(&mut context).is_pending());
    reflected
        .apply(Event::Apply(Handle::live(Arc::new(object("", "next")))))
        .await;
    assert_eq!(counter.0.load(Ordering::SeqCst), 0, "nobody was woken");
    let next = bare.poll_next_unpin(&mut context);
    assert!(
        matches!(next, Poll::Ready(Some(next)) if next.name_any() == "next"),
        "though there was something"
    );
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_is_woken_for_what_comes_after_a_deletion_it_had_not_looked_at() {
    let mut fed = Fed::new();
    let mut subscriber = fed.feed.subscribe("test");
    settle().await;
    let waiting = tokio::spawn(async move {
        while let Some(handle) = subscriber.next().await {
            if handle.name_any() == "next" {
                return;
            }
        }
    });
    settle().await;
    fed.upsert("gone", "a");
    fed.delete("gone");
    settle().await;
    assert!(fed.stored().is_empty());
    fed.upsert("next", "b");
    settle().await;
    assert!(waiting.is_finished());
}

#[tokio::test(start_paused = true)]
async fn deletions_are_told_as_tombstones() {
    let mut fed = Fed::new();
    fed.upsert("a", "1");
    let mut subscriber = fed.feed.subscribe("test");
    assert_eq!(taken(&mut subscriber).await, [some("a", 2)]);
    fed.delete("a");
    assert_eq!(taken(&mut subscriber).await, [none("a")]);
    assert!(fed.stored().is_empty(), "nobody waits for it any more");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_never_reads_delays_nobody_and_is_given_the_latest_when_it_does() {
    let mut fed = Fed::new();
    let mut asleep = fed.feed.subscribe("asleep");
    let mut awake = fed.feed.subscribe("awake");
    let mut folded = BTreeMap::new();
    for round in 0..40 {
        for at in 0..CHANNEL / 8 {
            let name = format!("x{at}");
            if (at + round) % 10 == 0 {
                fed.delete(&name);
            } else {
                fed.upsert(&name, &format!("{at}"));
            }
        }
        folded.extend(taken(&mut awake).await);
        folded.retain(|_, version| version.is_some());
        assert_eq!(folded, fed.cached(), "round {round}");
        assert_eq!(fed.stored(), fed.cached(), "round {round}");
    }
    let mut late: BTreeMap<_, _> = taken(&mut asleep).await.into_iter().collect();
    assert_eq!(late.len(), CHANNEL / 8, "one for each object");
    late.retain(|_, version| version.is_some());
    assert_eq!(late, fed.cached());
}

#[tokio::test(start_paused = true)]
async fn a_late_subscriber_is_given_what_is_there_and_what_follows() {
    let mut fed = Fed::new();
    fed.upsert("a", "1");
    fed.upsert("b", "2");
    let (_primary, _acknowledger) = fed.feed.subscribe_primary("holds the tombstone");
    settle().await;
    fed.delete("b");
    settle().await;
    assert_eq!(
        fed.stored(),
        [some("a", 2), none("b")].into_iter().collect()
    );

    let mut late = fed.feed.subscribe("late");
    assert_eq!(taken(&mut late).await, [some("a", 2)]);
    fed.upsert("c", "3");
    assert_eq!(taken(&mut late).await, [some("c", 5)]);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_object_stays_in_the_store_until_every_primary_has_acknowledged_it() {
    let mut fed = Fed::new();
    let (mut first, first_acknowledges) = fed.feed.subscribe_primary("first");
    let (second, _second_acknowledges) = fed.feed.subscribe_primary("second");
    fed.upsert("a", "1");
    settle().await;
    fed.delete("a");
    settle().await;
    let tombstone = fed
        .feed
        .store
        .state()
        .pop()
        .filter(|handle| handle.is_tombstone());
    first_acknowledges.acknowledge(&tombstone.expect("a tombstone"));
    assert_eq!(taken(&mut first).await, [none("a")]);
    assert_eq!(
        fed.stored(),
        [none("a")].into_iter().collect(),
        "the second has not"
    );
    drop(second);
    settle().await;
    assert!(fed.stored().is_empty(), "one that leaves is not waited for");
}

#[tokio::test(start_paused = true)]
async fn what_is_created_again_takes_the_place_of_its_tombstone() {
    let mut fed = Fed::new();
    let (mut primary, acknowledger) = fed.feed.subscribe_primary("primary");
    fed.upsert("a", "old");
    settle().await;
    fed.delete("a");
    settle().await;
    let old = fed.feed.store.state().pop().expect("a tombstone");
    fed.upsert("a", "new");
    settle().await;
    acknowledger.acknowledge(&old);
    assert_eq!(taken(&mut primary).await, [some("a", 4)]);
    assert_eq!(fed.stored(), [some("a", 4)].into_iter().collect());

    fed.delete("a");
    settle().await;
    acknowledger.acknowledge(&old);
    settle().await;
    assert_eq!(
        fed.stored(),
        [none("a")].into_iter().collect(),
        "the old one's acknowledgement is not the new one's"
    );
}

#[tokio::test(start_paused = true)]
async fn a_relist_is_told_as_the_difference() {
    let mut fed = Fed::new();
    let (kept, gone) = (fed.object("", "kept", "1"), fed.object("", "gone", "2"));
    fed.list(0, &[kept.clone(), gone], History::Same);
    let mut subscriber = fed.feed.subscribe("test");
    taken(&mut subscriber).await;
    let new = fed.object("", "new", "3");
    fed.list(0, &[kept.clone(), new.clone()], History::Same);
    assert_eq!(taken(&mut subscriber).await, [some("new", 5), none("gone")]);

    // A history that is void resets the cursor, but not the subscribers.
    let back = fed.object("", "back", "4");
    fed.list(0, &[kept, back], History::New);
    let mut told = taken(&mut subscriber).await;
    told.sort();
    assert_eq!(told, [some("back", 7), none("new")]);
    assert_eq!(fed.stored(), fed.cached());

    // In yet another one the same version says something else.
    let there = fed.cached_object("back");
    let other = Object {
        json: r#"{"other":"content"}"#.into(),
        ..Object::clone(&there)
    };
    fed.list(0, &[Arc::new(other)], History::New);
    let told = taken(&mut subscriber).await;
    assert_eq!(told, [some("back", 7), none("kept")]);
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_falls_behind_the_journal_still_tells_all() {
    let limits = Limits {
        journal_bytes: 0,
        tombstones: 1,
        ..Limits::default()
    };
    let mut fed = Fed::with_limits(&[""], limits);
    fed.list(0, &[], History::Same);
    for name in ["a", "b", "c"] {
        fed.upsert(name, name);
    }
    let mut subscriber = fed.feed.subscribe("test");
    taken(&mut subscriber).await;
    fed.delete("a");
    fed.delete("b");
    fed.upsert("d", "d");
    let mut told = taken(&mut subscriber).await;
    told.sort();
    assert_eq!(told, [none("a"), none("b"), some("d", 7)]);
    assert_eq!(fed.stored(), fed.cached());
}

#[tokio::test(start_paused = true)]
async fn the_store_is_ready_only_when_every_shard_has_been_listed() {
    let mut fed = Fed::sharded(&["a", "b"]);
    let (in_a, in_b) = (fed.object("a", "x", "1"), fed.object("b", "x", "2"));
    fed.list(0, &[in_a], History::Same);
    settle().await;
    let store = fed.feed.store();
    assert!(store.wait_until_ready().now_or_never().is_none());
    fed.list(1, &[in_b], History::Same);
    settle().await;
    assert!(store.wait_until_ready().now_or_never().is_some());
    assert_eq!(
        fed.stored(),
        [some("a/x", 1), some("b/x", 2)].into_iter().collect()
    );

    // A reset of one shard leaves the others' objects alone.
    fed.list(0, &[], History::New);
    settle().await;
    assert_eq!(fed.stored(), [some("b/x", 2)].into_iter().collect());
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_removed_takes_its_objects_along_and_may_come_back_with_the_same() {
    let limits = Limits {
        tombstones: 0,
        ..Limits::default()
    };
    let mut fed = Fed::with_limits(&[""], limits);
    let same = fed.object("", "a", "1");
    fed.list(0, std::slice::from_ref(&same), History::Same);
    let mut subscriber = fed.feed.subscribe("test");
    taken(&mut subscriber).await;
    // All at once: the feed sees neither the deletions nor the state before them again.
    fed.writers[0].retire(Instant::now());
    fed.writers[0].set_status(Phase::Removed, "NotServed", "gone");
    fed.writers[0].unsync();
    assert_eq!(taken(&mut subscriber).await, [none("a")]);
    fed.list(0, &[same], History::Same);
    assert_eq!(taken(&mut subscriber).await, [some("a", 1)]);
    assert_eq!(fed.stored(), fed.cached());
}

#[tokio::test(start_paused = true)]
async fn subscribers_end_with_the_feed() {
    let fed = Fed::new();
    let mut subscriber = fed.feed.subscribe("test");
    settle().await;
    fed.shutdown.drain();
    assert!(subscriber.next().await.is_none());
    assert!(fed.feed.subscribe("too late").next().await.is_none());
}

/// Seeds of the random histories.
pub(crate) const HISTORIES: u64 = 20;

#[tokio::test(start_paused = true)]
async fn after_any_churn_store_and_subscribers_agree_with_the_cache() {
    for seed in 0..HISTORIES {
        history(seed).await;
    }
}

/// A kind that is churned, one who is only told, and a primary who reconciles as kube's Controller does.
pub(crate) async fn history(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let limits = Limits {
        journal_bytes: 4096,
        tombstones: 3,
        ..Limits::default()
    };
    let mut fed = Fed::with_limits(&[""], limits);
    fed.list(0, &[], History::Same);
    let mut subscriber = fed.feed.subscribe("test");
    let (mut primary, acknowledger) = fed.feed.subscribe_primary("primary");
    let (mut folded, mut reconciled) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..300 {
        let name = format!("x{}", random.u8(0..8));
        match random.u8(0..20) {
            0..=10 => fed.upsert(&name, &random.u8(0..3).to_string()),
            11..=15 => fed.delete(&name),
            16 => {
                let object = fed.object("", &name, "listed");
                let history = if random.bool() {
                    History::New
                } else {
                    History::Same
                };
                fed.list(0, &[object], history);
            }
            17 => settle().await,
            18 => folded.extend(taken(&mut subscriber).await),
            _ => {
                settle().await;
                while let Some(Some(handle)) = primary.next().now_or_never() {
                    // As kube's Controller does: what is in the store now, not what was sent.
                    if let Some(handle) =
                        fed.feed.store.get(&fed.feed.kind.object_ref(handle.key()))
                    {
                        reconciled.extend([shown(&handle)]);
                        if handle.is_tombstone() {
                            acknowledger.acknowledge(&handle);
                        }
                    }
                }
            }
        }
    }
    folded.extend(taken(&mut subscriber).await);
    while let Some(Some(handle)) = primary.next().now_or_never() {
        reconciled.extend([shown(&handle)]);
        acknowledger.acknowledge(&handle);
    }
    folded.retain(|_, version| version.is_some());
    reconciled.retain(|_, version| version.is_some());
    settle().await;
    assert_eq!(fed.stored(), fed.cached(), "seed {seed}");
    assert_eq!(folded, fed.cached(), "seed {seed}");
    assert_eq!(reconciled, fed.cached(), "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn a_first_list_longer_than_the_channel_is_told_to_those_who_were_there_before() {
    let mut fed = Fed::sharded(&[""]);
    let mut subscriber = fed.feed.subscribe("early");
    let _never_reads = fed.feed.subscribe("never reads");
    settle().await;
    let objects: Vec<_> = (0..CHANNEL * 3)
        .map(|at| fed.object("", &format!("x{at}"), "1"))
        .collect();
    fed.list(0, &objects, History::Same);
    let told: BTreeMap<_, _> = taken(&mut subscriber).await.into_iter().collect();
    assert_eq!(told.len(), CHANNEL * 3);
    assert_eq!(told, fed.cached());
    // Counted to the reference: else this tombstone would be buried too early or never.
    fed.delete("x0");
    assert_eq!(taken(&mut subscriber).await, [none("x0")]);
    assert_eq!(fed.stored(), fed.cached());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn on_several_threads_nobody_sleeps_for_ever_and_every_deletion_is_buried() {
    let mut fed = Fed::new();
    let mut subscriber = fed.feed.subscribe("reads");
    let _never_reads = fed.feed.subscribe("never reads");
    let (mut primary, acknowledger) = fed.feed.subscribe_primary("primary");
    tokio::spawn(async move {
        while let Some(handle) = primary.next().await {
            if handle.is_tombstone() {
                acknowledger.acknowledge(&handle);
            }
        }
    });
    let reading = tokio::spawn(async move {
        let mut folded = BTreeMap::new();
        while let Some(handle) = subscriber.next().await {
            if handle.name_any() == "last" {
                break;
            }
            folded.extend([shown(&handle)]);
            folded.retain(|_, version| version.is_some());
        }
        folded
    });
    for at in 0..20_000 {
        let name = format!("x{}", at % 50);
        if at % 3 == 0 {
            fed.delete(&name);
        } else {
            fed.upsert(&name, &at.to_string());
        }
        if at % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let before_last = fed.cached();
    fed.upsert("last", "1");
    let deadline = Duration::from_secs(30);
    let folded = tokio::time::timeout(deadline, reading).await;
    assert_eq!(folded.expect("it is told").expect("it ends"), before_last);
    let buried = async {
        while fed.stored() != fed.cached() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(deadline, buried)
        .await
        .expect("every deletion is buried");
}
