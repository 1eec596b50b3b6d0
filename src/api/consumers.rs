//! Who is reading: every open watch and list of this replica.
//!
//! Also watches over what they hold. A consumer that makes no progress keeps an old state alive; after a while
//! it is taken away, so that no consumer, however slow, costs more than its cursor.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use crate::{
    auth::{PATIENCE, Subject, clip},
    cache::{Hold, Item, Kind, Shard},
    proto,
};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Consumers {
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<Consumer>>>,
}

/// One open call.
#[derive(Debug)]
pub struct Consumer {
    id: u64,
    caller: Caller,
    method: &'static str,
    /// Absent where it reads verdicts, which may be on many kinds.
    kind: Option<Arc<Kind>>,
    asked: Asked,
    is_clipped: bool,
    since: SystemTime,
    events: AtomicU64,
    bytes: AtomicU64,
    resets: AtomicU32,
    begun: Instant,
    holds: Mutex<Vec<Box<dyn Holding>>>,
}

/// Most names in a list that are told of what a caller wrote; of a text it is as much as goes into a line of the log.
const MOST_NAMES: usize = 64;

/// A cursor in a shard, of whatever items.
trait Holding: fmt::Debug + Send {
    fn is_in(&self, shard: *const ()) -> bool;
    fn expire(&self, now: Instant) -> bool;
    /// How far it is behind, since when it has made no progress, and where it stands.
    fn describe(&self) -> (u64, Instant, &'static str);
}

#[derive(Debug)]
struct Held<T> {
    shard: Arc<Shard<T>>,
    hold: Hold<T>,
}

impl<T: Item> Holding for Held<T> {
    fn is_in(&self, shard: *const ()) -> bool {
        Arc::as_ptr(&self.shard).cast() == shard
    }

    fn expire(&self, now: Instant) -> bool {
        self.hold.expire(now, PATIENCE)
    }

    fn describe(&self) -> (u64, Instant, &'static str) {
        let state = self.shard.state();
        let behind = state.map_or(0, |state| self.hold.lag(&state));
        (behind, self.hold.progress(), self.hold.describe())
    }
}

/// Who calls.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Address and port; absent for calls within the process.
    pub peer: Option<SocketAddr>,
    /// As the client says.
    pub user_agent: String,
    /// Who it is; absent where nobody is asked.
    pub subject: Option<Subject>,
    /// Why its call is ended, where that is not its own will.
    pub ended: Arc<OnceLock<&'static str>>,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which objects.
    pub scope: proto::Scope,
    /// How much of each.
    pub view: i32,
    /// How much of that.
    pub fields: Vec<String>,
}

impl Asked {
    /// What of it is told, and whether that is less than all: it is kept for as long as the call is open, and all calls
    /// are told of together.
    fn clipped(mut self) -> (Self, bool) {
        let mut is_clipped = false;
        let scope = &mut self.scope;
        for names in [&mut scope.namespaces, &mut self.fields] {
            is_clipped |= names.len() > MOST_NAMES;
            names.truncate(MOST_NAMES);
            names.shrink_to_fit();
        }
        let texts = [
            &mut scope.resource,
            &mut scope.name,
            &mut scope.label_selector,
            &mut scope.field_selector,
        ];
        let lists = scope.namespaces.iter_mut().chain(&mut self.fields);
        for text in texts.into_iter().chain(lists) {
            let told = clip(text).len();
            is_clipped |= told < text.len();
            text.truncate(told);
            text.shrink_to_fit();
        }
        (self, is_clipped)
    }
}

/// Registers a consumer until it is dropped.
#[derive(Debug)]
pub struct Registration {
    consumers: Weak<Consumers>,
    /// The consumer.
    pub consumer: Arc<Consumer>,
}

impl Consumers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Consumer>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a call.
    pub fn enter(
        self: &Arc<Self>,
        method: &'static str,
        caller: Caller,
        kind: Option<Arc<Kind>>,
        asked: Asked,
    ) -> Registration {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (asked, is_clipped) = asked.clipped();
        let consumer = Arc::new(Consumer {
            id,
            caller,
            method,
            kind,
            asked,
            is_clipped,
            since: SystemTime::now(),
            events: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            resets: AtomicU32::new(0),
            begun: super::now(),
            holds: Mutex::default(),
        });
        consumer.audit("opened");
        self.lock().insert(id, consumer.clone());
        metrics::gauge!("informerd_consumers", "method" => method).increment(1);
        Registration {
            consumers: Arc::downgrade(self),
            consumer,
        }
    }

    /// The open calls, oldest first.
    pub fn list(&self) -> Vec<Arc<Consumer>> {
        self.lock().values().cloned().collect()
    }

    /// How many calls of a kind are open.
    pub fn count(&self, kind: &Arc<Kind>) -> usize {
        self.lock()
            .values()
            .filter(|consumer| {
                let own = consumer.kind.as_ref();
                own.is_some_and(|own| Arc::ptr_eq(own, kind))
            })
            .count()
    }

    /// Takes away what consumers hold that made no progress for [`PATIENCE`].
    pub fn expire(&self, now: Instant) {
        for consumer in self.list() {
            for held in consumer.holds().iter() {
                if held.expire(now) {
                    metrics::counter!("informerd_consumer_expiries_total").increment(1);
                    tracing::debug!(
                        consumer = consumer.id,
                        resource = consumer.asked.scope.resource,
                        "a stalled consumer lost its state"
                    );
                }
            }
        }
    }

    /// Expires from time to time, for ever. Beats once a round.
    pub async fn watch_over(&self, beat: impl Fn()) {
        let mut tick = tokio::time::interval(PATIENCE / 12);
        loop {
            tick.tick().await;
            beat();
            self.expire(tokio::time::Instant::now().into_std());
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.consumer.audit("closed");
        metrics::gauge!("informerd_consumers", "method" => self.consumer.method).decrement(1);
        if let Some(consumers) = self.consumers.upgrade() {
            consumers.lock().remove(&self.consumer.id);
        }
    }
}

impl Consumer {
    fn holds(&self) -> MutexGuard<'_, Vec<Box<dyn Holding>>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches over a cursor of this consumer, instead of an earlier one in the same shard.
    pub fn hold<T: Item>(&self, shard: &Arc<Shard<T>>, hold: Hold<T>) {
        let mut holds = self.holds();
        holds.retain(|held| !held.is_in(Arc::as_ptr(shard).cast()));
        let shard = shard.clone();
        holds.push(Box::new(Held { shard, hold }));
    }

    /// Says why it ends, if that is not its own will.
    pub fn ends(&self, reason: &'static str) {
        // The first reason is the reason.
        let _ = self.caller.ended.set(reason);
    }

    /// Who reads what, from where; and once it is over, how long, how much and why it ended. Where nobody is asked
    /// who they are there is nobody to account for it to.
    fn audit(&self, event: &'static str) {
        let Some(subject) = &self.caller.subject else {
            return;
        };
        let scope = &self.asked.scope;
        let over = event == "closed";
        tracing::info!(
            target: "informerd::audit",
            event,
            call = self.id,
            method = self.method,
            user = subject.identity().user,
            impersonator = subject.impersonator().map(|real| real.user.as_str()),
            by = subject.method().as_str(),
            peer = self.caller.peer.map(tracing::field::display),
            resource = clip(&scope.resource),
            namespaces = clip(&scope.namespaces.join(",")),
            name = clip(&scope.name),
            label_selector = clip(&scope.label_selector),
            field_selector = clip(&scope.field_selector),
            seconds = over.then(|| super::now().saturating_duration_since(self.begun).as_secs_f64()),
            events = over.then(|| self.events.load(Ordering::Relaxed)),
            bytes = over.then(|| self.bytes.load(Ordering::Relaxed)),
            why = over.then(|| *self.caller.ended.get().unwrap_or(&"the client went, or has it all")),
        );
    }

    /// What of its scope a caller may not see any more, or may again.
    pub fn rights(&self, event: &'static str, parts: &BTreeSet<String>) {
        let Some(subject) = self.caller.subject.as_ref().filter(|_| !parts.is_empty()) else {
            return;
        };
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        tracing::info!(
            target: "informerd::audit",
            event,
            call = self.id,
            user = subject.identity().user,
            resource = clip(&self.asked.scope.resource),
            namespaces = clip(&parts.join(",")),
        );
    }

    /// Counts what was sent.
    pub fn sent(&self, events: usize, bytes: usize) {
        self.events.fetch_add(events as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts a whole state that is sent; the first one is no reset.
    pub fn reset(&self, reason: &'static str) {
        metrics::counter!("informerd_consumer_resets_total", "reason" => reason).increment(1);
        if reason == "INITIAL" {
            return;
        }
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    /// The kind that it reads, if it reads one.
    pub fn kind(&self) -> Option<&Arc<Kind>> {
        self.kind.as_ref()
    }

    /// As introspection shows it.
    pub fn describe(&self, now: Instant) -> proto::Consumer {
        let holds = self.holds();
        let mut lag = 0;
        let mut stalled = Duration::ZERO;
        let mut position = "head";
        for held in holds.iter() {
            let (behind, progress, at) = held.describe();
            lag += behind;
            if behind > 0 {
                stalled = stalled.max(now.saturating_duration_since(progress));
            }
            if at != "head" {
                position = at;
            }
        }
        proto::Consumer {
            id: self.id,
            peer: self
                .caller
                .peer
                .map_or_else(String::new, |peer| peer.to_string()),
            user_agent: self.caller.user_agent.clone(),
            method: self.method.to_owned(),
            scope: Some(self.asked.scope.clone()),
            view: self.asked.view,
            fields: self.asked.fields.clone(),
            clipped: self.is_clipped,
            since: Some(self.since.into()),
            events_sent: self.events.load(Ordering::Relaxed),
            bytes_sent: self.bytes.load(Ordering::Relaxed),
            position: position.to_owned(),
            lag_changes: lag,
            stalled: super::duration(stalled),
            resets: self.resets.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: usize = 256;

    #[test]
    fn of_what_is_very_long_the_beginning_is_told() {
        let asked = |namespaces: usize, selector: &str| Asked {
            scope: proto::Scope {
                namespaces: (0..namespaces).map(|n| n.to_string()).collect(),
                label_selector: selector.to_owned(),
                ..proto::Scope::default()
            },
            view: 0,
            fields: Vec::new(),
        };
        let (told, is_clipped) = asked(MOST_NAMES, &"ä".repeat(LONGEST)).clipped();
        assert!(!is_clipped);
        assert_eq!(told.scope.label_selector.chars().count(), LONGEST);
        let (told, is_clipped) = asked(MOST_NAMES + 1, "").clipped();
        assert!(is_clipped);
        assert_eq!(told.scope.namespaces.len(), MOST_NAMES);
        let (told, is_clipped) = asked(1, &"ä".repeat(LONGEST + 1)).clipped();
        assert!(is_clipped);
        assert_eq!(told.scope.label_selector, "ä".repeat(LONGEST));
    }
}
