//! Feeds the controllers inside the process: one kind's cache as kube's shared `Store` and stream.
//!
//! kube's Controller reads a `reflector::Store` and is triggered by a stream. Both come from
//! `Writer::new_shared` here, so that any number of controllers share one kind; but its channel makes whoever
//! writes wait for the slowest reader, so the writer is not the source of the kind. It is a [`Runner`]: one more
//! cursor over the cache, which steps kube's `reflect_shared` by hand and may fall behind without anybody
//! upstream noticing. An object is in the cache first, then in kube's store, then with the controllers.
//!
//! What kube's shared stream lacks is made good here:
//!
//! - Nobody can freeze it. A pump for each subscriber empties its end of kube's channel at once into a queue
//!   that holds the latest of each object, so that a slow controller delays nobody.
//! - Deletions are told. kube broadcasts none, and never reconciles what is gone. So a deletion is first applied
//!   as a tombstone, a [`Handle`] without its object: subscribers get it like any change, and kube's Controller,
//!   which reads the store when a reconcile starts, finds it there after debounce and retries.
//! - The key leaves kube's store only when each primary subscriber has acknowledged the tombstone and each pump
//!   is past it. The second also means that a pump never takes a reference to what is not in the store, upon
//!   which kube's stream would sleep for ever: it returns `Pending` without leaving a waker.
//! - An object that comes back meanwhile just takes the tombstone's place. So a controller may find another uid
//!   under a key without having seen the deletion; what it keeps by key it has to compare by uid.
//! - Late subscribers are given what is there. Relists and resets are told as differences: kube's store is
//!   filled once, after the first complete list, and never again from scratch.
//!
//! There are two maps of the same handles then, the cache's and kube's: the price of kube's Controller. It is
//! paid by kinds that have one, since others have no feed, and shown as `informerd_feed_store_objects`.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use futures::{FutureExt, Stream, StreamExt};
use kube::runtime::{
    WatchStreamExt,
    reflector::{ReflectHandle, Store, store::Writer},
    watcher::{self, Event},
};
use metrics::{Gauge, gauge};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    cache::{
        Cursor, Doorbell, KeyRange, Kind, Phase, ResetReason, Select, Shard, State, Step,
        Subscription, WakeScope, What,
    },
    heartbeat::Heartbeat,
    object::{Key, Object},
    planted::{self, Bug},
    shutdown::{Shutdown, Stage},
};

mod handle;
mod queue;
#[cfg(test)]
pub(crate) mod tests;

pub use handle::{Handle, KindRef};

/// References that kube's channel holds before its writer waits. Pumps empty it at once; it only has to be so
/// long that they need not be woken for each.
const CHANNEL: usize = 1024;

/// Bytes of objects taken from the cache in one turn.
const TURN_BYTES: usize = 1 << 20;

/// The feed of one kind, as its subscribers see it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed {
    kind: KindRef,
    store: Store<Handle>,
    ids: Arc<AtomicU64>,
    messages: mpsc::UnboundedSender<Message>,
}

/// All changes of the kind since the subscription, and before them all that was there: for each object the
/// latest. Ends with the feed.
#[derive(Debug)]
pub struct Subscriber(queue::Receiver);

/// By which a primary subscriber says that it has dealt with a deletion.
#[derive(Debug)]
pub struct Acknowledger {
    id: u64,
    messages: mpsc::UnboundedSender<Message>,
}

/// The task behind a [`Feed`].
pub struct Runner {
    feed: Feed,
    kind: Arc<Kind>,
    messages: mpsc::UnboundedReceiver<Message>,
    store: Reflected,
    shards: Vec<Followed>,
    /// Whether kube's store has been filled.
    started: bool,
    subscribers: HashMap<u64, Subscribed>,
    /// What kube's store has a tombstone of.
    dead: HashMap<Key, Dead>,
    /// Of those, the ones that every primary has acknowledged, as (place in the channel, key).
    settled: VecDeque<(u64, Key)>,
    /// Given a permit by the shards when there is something to take, by pumps when they have moved on.
    bell: Arc<Doorbell>,
    objects_gauge: Gauge,
    tombstones_gauge: Gauge,
}

#[derive(Debug)]
enum Message {
    Join {
        id: u64,
        name: String,
        primary: bool,
        queue: queue::Sender,
    },
    Acknowledge {
        id: u64,
        key: Key,
        uid: String,
    },
    Leave {
        id: u64,
    },
}

/// kube's shared store, its writer stepped by hand.
struct Reflected {
    events: mpsc::UnboundedSender<watcher::Result<Event<Handle>>>,
    stream: Pin<Box<dyn Stream<Item = watcher::Result<Event<Handle>>> + Send>>,
    /// Emptied with each step, and so always where the next subscriber's clone shall begin.
    root: ReflectHandle<Handle>,
    /// How many references kube's channel was given.
    dispatched: u64,
}

/// A shard that the feed reads.
struct Followed {
    shard: Arc<Shard<Object>>,
    cursor: Cursor<Object>,
    /// In a reset: the keys that it has had so far.
    listed: HashSet<Key>,
    /// Whether the kind's removal has been told.
    removed: bool,
    _wakes: Subscription,
}

struct Subscribed {
    primary: bool,
    /// How many of the channel's references the pump is past.
    taken: Arc<AtomicU64>,
    depth: queue::Meter,
    depth_gauge: Gauge,
    _pump: AbortOnDropHandle<()>,
}

struct Dead {
    uid: String,
    /// How many references the channel had been given with the tombstone's.
    at: u64,
    /// The primaries that have not acknowledged it.
    awaiting: HashSet<u64>,
}

/// Says what this module's metrics mean.
pub fn describe_metrics() {
    metrics::describe_gauge!(
        "informerd_feed_store_objects",
        "Objects in the store that in-process controllers read, beside the cache's own; tombstones included."
    );
    metrics::describe_gauge!(
        "informerd_feed_tombstones",
        "Deleted objects that some in-process controller has not dealt with yet."
    );
    metrics::describe_gauge!(
        "informerd_feed_queue_depth",
        "Changed objects that wait for a subscriber of the feed."
    );
}

impl Feed {
    /// A feed of `kind`, which runs when the runner does. The metrics recorder is to be installed before.
    pub fn new(kind: Arc<Kind>) -> (Self, Runner) {
        let (messages, received) = mpsc::unbounded_channel();
        let kind_ref = KindRef::new(kind.clone());
        let (store, reader) = Reflected::new(kind_ref.clone());
        let feed = Self {
            kind: kind_ref,
            store: reader,
            ids: Arc::default(),
            messages,
        };
        let runner = Runner::new(feed.clone(), kind, received, store);
        (feed, runner)
    }

    /// The `DynamicType` of this feed's handles.
    pub fn kind(&self) -> &KindRef {
        &self.kind
    }

    /// What controllers read. Ready after the kind's first complete list; has tombstones.
    pub fn store(&self) -> Store<Handle> {
        self.store.clone()
    }

    /// Subscribes one that wants to hear of changes, deletions included, but keeps nothing in the store: for a
    /// controller's `watches`. `name` is for metrics.
    pub fn subscribe(&self, name: &str) -> Subscriber {
        self.join(name, false).0
    }

    /// Subscribes one that has to acknowledge each tombstone: for a controller's own kind.
    pub fn subscribe_primary(&self, name: &str) -> (Subscriber, Acknowledger) {
        let (subscriber, id) = self.join(name, true);
        (
            subscriber,
            Acknowledger {
                id,
                messages: self.messages.clone(),
            },
        )
    }

    fn join(&self, name: &str, primary: bool) -> (Subscriber, u64) {
        let (sender, receiver) = queue::queue();
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let join = Message::Join {
            id,
            name: name.to_owned(),
            primary,
            queue: sender,
        };
        // Without a runner the sender is dropped here, and the subscriber ends.
        let _ = self.messages.send(join);
        (Subscriber(receiver), id)
    }
}

impl Stream for Subscriber {
    type Item = Arc<Handle>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl Acknowledger {
    /// The deletion that `tombstone` tells of has been dealt with.
    pub fn acknowledge(&self, tombstone: &Handle) {
        let (key, uid) = (tombstone.key().clone(), tombstone.uid().to_owned());
        // Without a runner there is nothing to keep any more.
        let _ = self.messages.send(Message::Acknowledge {
            id: self.id,
            key,
            uid,
        });
    }
}

impl Reflected {
    fn new(kind: KindRef) -> (Self, Store<Handle>) {
        let (events, received) = mpsc::unbounded_channel();
        let writer = Writer::new_shared(CHANNEL, kind);
        let reader = writer.as_reader();
        let root = writer.subscribe().expect("a shared writer has subscribers");
        let stream = UnboundedReceiverStream::new(received)
            .reflect_shared(writer)
            .boxed();
        (
            Self {
                events,
                stream,
                root,
                dispatched: 0,
            },
            reader,
        )
    }

    /// Applies one event to kube's store and tells the subscribers.
    async fn apply(&mut self, event: Event<Handle>) {
        let dispatches = matches!(event, Event::Apply(_));
        let dispatches_all = matches!(event, Event::InitDone);
        // Never fails: the stream has the other end.
        let _ = self.events.send(Ok(event));
        loop {
            // The channel has room again only once this end of it is emptied too.
            tokio::select! {
                biased;
                _ = self.stream.next() => break,
                Some(_) = self.root.next() => {}
            }
        }
        while let Some(Some(_)) = self.root.next().now_or_never() {}
        if dispatches {
            self.dispatched += 1;
        } else if dispatches_all {
            self.dispatched += self.root.reader().len() as u64;
        }
    }
}

/// Everything, and each entry of the journal as it is.
struct Everything;

impl Select<Object> for Everything {
    fn ranges(&self) -> Vec<KeyRange> {
        vec![KeyRange::All]
    }

    fn in_scope(&self, _: &Key) -> bool {
        true
    }

    fn matches(&self, _: &Object) -> bool {
        true
    }

    fn is_filter(&self) -> bool {
        false
    }

    fn is_everything(&self) -> bool {
        true
    }
}

impl Runner {
    fn new(
        feed: Feed,
        kind: Arc<Kind>,
        messages: mpsc::UnboundedReceiver<Message>,
        store: Reflected,
    ) -> Self {
        let bell = Arc::new(Doorbell::default());
        let follow = |shard: &Arc<Shard<Object>>| Followed {
            shard: shard.clone(),
            cursor: Cursor::start(ResetReason::Initial, Instant::now()),
            listed: HashSet::new(),
            removed: false,
            _wakes: shard.subscribe(vec![WakeScope::All], &bell),
        };
        let shards = kind.shards().iter().map(follow).collect();
        let objects_gauge = gauge!("informerd_feed_store_objects", "kind" => kind.name.clone());
        let tombstones_gauge = gauge!("informerd_feed_tombstones", "kind" => kind.name.clone());
        Self {
            feed,
            kind,
            messages,
            store,
            shards,
            started: false,
            subscribers: HashMap::new(),
            dead: HashMap::new(),
            settled: VecDeque::new(),
            bell,
            objects_gauge,
            tombstones_gauge,
        }
    }

    /// Feeds until draining begins. The kind is in use, and so watched, meanwhile.
    pub async fn run(mut self, heartbeat: Heartbeat, shutdown: Shutdown) {
        let _use = self.kind.enter();
        let mut beat = Heartbeat::timer();
        while shutdown.stage() == Stage::Running {
            let idle = self.turn().await;
            while let Ok(message) = self.messages.try_recv() {
                self.take(message);
            }
            self.bury().await;
            self.measure();
            heartbeat.beat();
            if !idle {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = shutdown.draining() => {}
                () = self.bell.rung() => {}
                // The feed itself holds a sender: there is always another message to come.
                Some(message) = self.messages.recv() => self.take(message),
                _ = beat.tick() => {}
            }
        }
    }

    /// Takes a bounded piece of what the cache has for each shard. Whether there was nothing.
    async fn turn(&mut self) -> bool {
        if !self.started {
            let states: Option<Vec<_>> = self
                .shards
                .iter()
                .map(|followed| followed.shard.state())
                .collect();
            let Some(states) = states else {
                return true;
            };
            self.fill(&states).await;
            self.started = true;
        }
        let mut idle = true;
        for at in 0..self.shards.len() {
            let followed = &mut self.shards[at];
            let Some(state) = followed.shard.state() else {
                if followed.shard.status().phase == Phase::Removed && !followed.removed {
                    // Whatever comes after this is another beginning.
                    followed.removed = true;
                    followed.cursor = Cursor::start(ResetReason::Initial, Instant::now());
                    followed.listed.clear();
                    self.delete_unlisted(at).await;
                }
                continue;
            };
            followed.removed = false;
            let step = followed
                .cursor
                .step(&state, &Everything, TURN_BYTES, Instant::now());
            idle &= matches!(step, Step::Idle);
            self.tell(at, step).await;
        }
        idle
    }

    /// Fills kube's store, for the only time.
    async fn fill(&mut self, states: &[Arc<State<Object>>]) {
        self.store.apply(Event::Init).await;
        for (followed, state) in self.shards.iter_mut().zip(states) {
            loop {
                match followed
                    .cursor
                    .step(state, &Everything, TURN_BYTES, Instant::now())
                {
                    Step::Items { items, .. } => {
                        for item in items {
                            self.store.apply(Event::InitApply(Handle::live(item))).await;
                        }
                    }
                    Step::Reset(_) => {}
                    Step::ResetEnd(_) | Step::Idle | Step::Shared { .. } | Step::Events { .. } => {
                        break;
                    }
                }
            }
        }
        self.store.apply(Event::InitDone).await;
    }

    async fn tell(&mut self, at: usize, step: Step<Object>) {
        match step {
            Step::Idle => {}
            Step::Reset(reason) => {
                tracing::info!(
                    kind = self.kind.name,
                    ?reason,
                    "comparing the feed with a whole state"
                );
                self.shards[at].listed.clear();
            }
            Step::Items { items, .. } => {
                for item in items {
                    self.shards[at].listed.insert(item.key.clone());
                    self.upsert(item).await;
                }
            }
            Step::ResetEnd(_) => {
                self.delete_unlisted(at).await;
                self.shards[at].listed = HashSet::new();
            }
            Step::Shared { state, from } => {
                let segments: Vec<_> = state.journal.after(from).cloned().collect();
                for segment in segments {
                    let skip = (from + 1).saturating_sub(segment.first) as usize;
                    for entry in segment.entries.iter().skip(skip) {
                        match (&entry.before, &entry.after) {
                            (_, Some(after)) => self.upsert(after.clone()).await,
                            (Some(before), None) => self.delete(&before.key).await,
                            (None, None) => {}
                        }
                    }
                }
            }
            Step::Events { batch, .. } => {
                for event in batch.events {
                    match event.what {
                        What::Upsert { item, .. } => self.upsert(item).await,
                        What::Delete { key, .. } => self.delete(&key).await,
                    }
                }
            }
        }
    }

    async fn upsert(&mut self, object: Arc<Object>) {
        let held = self.held(&object.key);
        if held
            .as_ref()
            .and_then(|held| held.object())
            .is_some_and(|held| held.says_the_same(&object))
        {
            return;
        }
        self.dead.remove(&object.key);
        self.store.apply(Event::Apply(Handle::live(object))).await;
    }

    async fn delete(&mut self, key: &Key) {
        let Some(held) = self.held(key).filter(|held| !held.is_tombstone()) else {
            return;
        };
        self.store.apply(Event::Apply(held.to_tombstone())).await;
        let primaries = self
            .subscribers
            .iter()
            .filter(|(_, subscribed)| subscribed.primary);
        let dead = Dead {
            uid: held.uid().to_owned(),
            at: self.store.dispatched,
            awaiting: primaries.map(|(id, _)| *id).collect(),
        };
        if dead.awaiting.is_empty() || planted::is(Bug::KeyLeavesFeedEarly) {
            self.settled.push_back((dead.at, key.clone()));
        }
        self.dead.insert(key.clone(), dead);
    }

    /// Deletes what the shard was said to have and what is not in its `listed`.
    async fn delete_unlisted(&mut self, at: usize) {
        let followed = &self.shards[at];
        let namespace = followed.shard.namespace();
        let unlisted = |handle: &Handle| {
            (namespace.is_empty() || handle.key().namespace() == namespace)
                && !handle.is_tombstone()
                && !followed.listed.contains(handle.key())
        };
        let gone = self.feed.store.state_filter(unlisted);
        for handle in gone {
            self.delete(handle.key()).await;
        }
    }

    fn held(&self, key: &Key) -> Option<Arc<Handle>> {
        self.feed.store.get(&self.feed.kind.object_ref(key))
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Join {
                id,
                name,
                primary,
                queue,
            } => self.join(id, name, primary, queue),
            Message::Acknowledge { id, key, uid } => {
                if let Some(dead) = self.dead.get_mut(&key).filter(|dead| dead.uid == uid)
                    && dead.awaiting.remove(&id)
                    && dead.awaiting.is_empty()
                {
                    self.settled.push_back((dead.at, key));
                }
            }
            Message::Leave { id } => {
                let Some(left) = self.subscribers.remove(&id) else {
                    return;
                };
                left.depth_gauge.set(0);
                for (key, dead) in &mut self.dead {
                    if dead.awaiting.remove(&id) && dead.awaiting.is_empty() {
                        self.settled.push_back((dead.at, key.clone()));
                    }
                }
            }
        }
    }

    fn join(&mut self, id: u64, name: String, primary: bool, queue: queue::Sender) {
        // Deletions that are under way are no business of a newcomer.
        let there = self
            .feed
            .store
            .state_filter(|handle| !handle.is_tombstone());
        queue.put(there);
        let taken = Arc::new(AtomicU64::new(self.store.dispatched));
        let depth = queue.meter();
        let leave = Leave {
            id,
            messages: self.feed.messages.clone(),
        };
        let pump = pump(
            self.store.root.clone(),
            queue,
            taken.clone(),
            self.bell.clone(),
            leave,
        );
        let pump = AbortOnDropHandle::new(tokio::spawn(pump));
        let kind = self.kind.name.clone();
        let depth_gauge =
            gauge!("informerd_feed_queue_depth", "kind" => kind, "subscriber" => name);
        self.subscribers.insert(
            id,
            Subscribed {
                primary,
                taken,
                depth,
                depth_gauge,
                _pump: pump,
            },
        );
    }

    /// Takes out of kube's store what nobody waits for any more.
    async fn bury(&mut self) {
        while let Some((at, key)) = self.settled.front() {
            let taken = self
                .subscribers
                .values()
                .map(|subscribed| subscribed.taken.load(Ordering::Acquire));
            if taken.min().is_some_and(|taken| taken < *at) {
                return;
            }
            // Else it has come back since, and may even have been deleted again.
            if self.dead.get(key).is_some_and(|dead| dead.at == *at) {
                self.dead.remove(key);
                if let Some(tombstone) = self.held(key) {
                    self.store.apply(Event::Delete((*tombstone).clone())).await;
                }
            }
            self.settled.pop_front();
        }
    }

    fn measure(&self) {
        self.objects_gauge.set(self.feed.store.len() as f64);
        self.tombstones_gauge.set(self.dead.len() as f64);
        for subscribed in self.subscribers.values() {
            subscribed.depth_gauge.set(subscribed.depth.depth() as f64);
        }
    }
}

/// Says that a pump has ended, however it did.
struct Leave {
    id: u64,
    messages: mpsc::UnboundedSender<Message>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Leave { id: self.id });
    }
}

/// Empties one end of kube's channel into a queue, until either is gone.
async fn pump(
    handle: ReflectHandle<Handle>,
    queue: queue::Sender,
    taken: Arc<AtomicU64>,
    moved_on: Arc<Doorbell>,
    _leave: Leave,
) {
    let mut handles = handle.ready_chunks(CHANNEL);
    loop {
        let some = tokio::select! {
            biased;
            () = queue.abandoned() => return,
            Some(some) = handles.next() => some,
            else => return,
        };
        let count = some.len() as u64;
        queue.put(some);
        taken.fetch_add(count, Ordering::Release);
        moved_on.ring();
    }
}
