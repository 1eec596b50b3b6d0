//! What readers see of a shard: its latest state, how well it is known, and how to be woken.

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;

use super::{
    Item, Segment, State, WakeScope,
    doorbell::Doorbell,
    wake::{Subscription, Wakers},
};

/// The readers' side of a shard; its writer is the one [`super::Writer`].
#[derive(Debug)]
pub struct Shard<T> {
    namespace: String,
    state: ArcSwap<State<T>>,
    /// Whether `state` is complete. Nothing is served before.
    synced: AtomicBool,
    status: ArcSwap<Status>,
    /// Nanoseconds from `base` to the last proof by the upstream.
    proven: AtomicU64,
    unproven: AtomicBool,
    /// How often the kind was removed.
    removals: AtomicU64,
    base: Instant,
    wakers: Arc<Wakers>,
    /// What its source has seen.
    pub counters: Counters,
}

/// How well a shard is known at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// See [`Phase`].
    pub phase: Phase,
    /// One word; empty while all is well.
    pub reason: String,
    /// The same for a person.
    pub message: String,
    /// When the phase was entered.
    pub since: SystemTime,
}

impl Status {
    /// Whether the API server itself has said that it does not serve the kind: there is nothing to wait for then.
    pub fn is_not_served(&self) -> bool {
        self.phase == Phase::Removed || (self.phase == Phase::Waiting && self.reason == "NotServed")
    }
}

/// The stages of a shard's life, as its consumers are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The API server does not serve the kind yet, or nobody has asked for it yet.
    Waiting,
    /// The first complete list is under way.
    Syncing,
    /// Complete and followed.
    Live,
    /// Listed anew; the last state stands.
    Relisting,
    /// Refused by the API server; the last state stands.
    Forbidden,
    /// Disconnected; the last state stands.
    BackingOff,
    /// The API server serves the kind no more.
    Removed,
}

impl Phase {
    /// Of several shards' phases, the one that counts for the kind is the worst.
    pub fn badness(self) -> u8 {
        match self {
            Self::Live => 0,
            Self::Relisting => 1,
            Self::BackingOff => 2,
            Self::Forbidden => 3,
            Self::Syncing => 4,
            Self::Waiting => 5,
            Self::Removed => 6,
        }
    }

    /// In lower case, as in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Syncing => "syncing",
            Self::Live => "live",
            Self::Relisting => "relisting",
            Self::Forbidden => "forbidden",
            Self::BackingOff => "backing_off",
            Self::Removed => "removed",
        }
    }
}

/// Since the start of the process.
#[derive(Debug, Default)]
pub struct Counters {
    /// Watches opened upstream.
    pub watches_opened: AtomicU64,
    /// Watches open upstream at the moment: 0 or 1.
    pub watches_open: AtomicU64,
    /// Items that could not be decoded.
    pub undecodable: AtomicU64,
    /// Times that the running digest and the state disagreed.
    pub digest_mismatches: AtomicU64,
    relists: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counters {
    /// Counts a list that began for this cause.
    pub fn count_relist(&self, cause: &'static str) {
        *self
            .relists
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(cause)
            .or_default() += 1;
    }

    /// Lists begun, by cause.
    pub fn relists(&self) -> BTreeMap<&'static str, u64> {
        self.relists
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl<T: Item> Shard<T> {
    pub(super) fn new(namespace: &str, now: Instant) -> Self {
        Self {
            namespace: namespace.to_owned(),
            state: ArcSwap::from_pointee(State::empty()),
            synced: AtomicBool::new(false),
            status: ArcSwap::from_pointee(Status {
                phase: Phase::Waiting,
                reason: "Starting".to_owned(),
                message: "not listed yet".to_owned(),
                since: SystemTime::now(),
            }),
            proven: AtomicU64::new(0),
            unproven: AtomicBool::new(false),
            removals: AtomicU64::new(0),
            base: now,
            wakers: Arc::default(),
            counters: Counters::default(),
        }
    }

    /// The namespace that the shard watches; empty for the whole kind. Of verdicts, the kind that they are on.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The latest state; `None` before the first complete list, and while the kind is not served.
    pub fn state(&self) -> Option<Arc<State<T>>> {
        self.synced
            .load(Ordering::Acquire)
            .then(|| self.state.load_full())
    }

    /// The same for whoever only looks: counts nothing that other readers count, too.
    pub fn peek(&self) -> Option<impl Deref<Target = Arc<State<T>>> + use<T>> {
        self.synced
            .load(Ordering::Acquire)
            .then(|| self.state.load())
    }

    /// The last state that was published, though it may be served no more: what a reader that knew the kind before
    /// its removal has still to be told.
    pub fn last_state(&self) -> Arc<State<T>> {
        self.state.load_full()
    }

    /// How often the kind was removed. Whoever knew it before has to be told, even if it is back already.
    pub fn removals(&self) -> u64 {
        self.removals.load(Ordering::Acquire)
    }

    /// How well the shard is known.
    pub fn status(&self) -> Arc<Status> {
        self.status.load_full()
    }

    /// Whether [`Shard::status`] would be this very one.
    pub fn has_status(&self, status: &Arc<Status>) -> bool {
        Arc::ptr_eq(&self.status.load(), status)
    }

    /// The phase of [`Shard::status`].
    pub fn phase(&self) -> Phase {
        self.status.load().phase
    }

    /// Time since the upstream last proved the state current; `None` before the first proof.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        match self.proven.load(Ordering::Relaxed) {
            0 => None,
            proven => Some(now.saturating_duration_since(self.base + Duration::from_nanos(proven))),
        }
    }

    /// Whether the kind gives no proof between events, so that `age` says little.
    pub fn is_unproven(&self) -> bool {
        self.unproven.load(Ordering::Relaxed)
    }

    /// Rings `bell` for each publication in one of the scopes and for what concerns everybody; with
    /// no scope, for every publication, bookmarks included. Ends with the subscription.
    pub fn subscribe(&self, scopes: Vec<WakeScope>, bell: &Arc<Doorbell>) -> Subscription {
        self.subscribe_in_turn(0, scopes, bell)
    }

    /// The same for one of many who wait: those of a lower turn are woken first.
    pub fn subscribe_in_turn(
        &self,
        turn: u32,
        scopes: Vec<WakeScope>,
        bell: &Arc<Doorbell>,
    ) -> Subscription {
        self.wakers.subscribe(scopes, bell, turn)
    }

    /// For [`crate::planted`]: whether somebody has not looked at what was published before.
    pub(super) fn is_awaited(&self) -> bool {
        self.wakers.is_awaited()
    }

    pub(super) fn set_unproven(&self, unproven: bool) {
        self.unproven.store(unproven, Ordering::Relaxed);
    }

    pub(super) fn prove(&self, now: Instant) {
        let since = now.saturating_duration_since(self.base).as_nanos();
        // Never 0, which means never proven.
        self.proven.store(
            u64::try_from(since).unwrap_or(u64::MAX).max(1),
            Ordering::Relaxed,
        );
    }

    pub(super) fn publish(&self, state: &State<T>, entries: Option<&Segment<T>>) {
        self.state.store(Arc::new(state.clone()));
        let entries = entries.map_or(&[][..], |segment| &segment.entries);
        self.wakers.wake(
            entries
                .iter()
                .filter_map(|entry| entry.item())
                .map(|item| item.key()),
        );
    }

    pub(super) fn set_synced(&self, synced: bool) {
        if self.synced.swap(synced, Ordering::AcqRel) != synced {
            self.wakers.wake_all();
        }
    }

    pub(super) fn wake_all(&self) {
        self.wakers.wake_all();
    }

    /// Replaces the status; keeps `since` where the phase stays, and wakes everybody where anything differs.
    pub(super) fn set_status(&self, phase: Phase, reason: &str, message: &str) {
        let old = self.status.load();
        if old.phase == phase && old.reason == reason && old.message == message {
            return;
        }
        self.status.store(Arc::new(Status {
            phase,
            reason: reason.to_owned(),
            message: message.to_owned(),
            since: if old.phase == phase {
                old.since
            } else {
                SystemTime::now()
            },
        }));
        if phase == Phase::Removed && old.phase != phase {
            self.removals.fetch_add(1, Ordering::AcqRel);
        }
        self.wakers.wake_all();
    }
}
