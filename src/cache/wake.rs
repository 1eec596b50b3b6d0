//! Wakes those whom a change concerns, and nobody else.
//!
//! An index by scope, since with a thousand consumers of one pod each, waking all for every change would cost
//! more than sending it. Where many wait for the same, one wave of waking has time to be served before the next
//! begins: what is published meanwhile goes with that, in fewer and larger frames. Who has not looked since the wave
//! before is not waited for, or a thousand who read nothing would hold up all who do. Within a wave everybody's first
//! stream comes before anybody's second, so that whoever has a thousand delays those who have one by little.

use std::{
    collections::{BTreeMap, HashMap, hash_map},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures::FutureExt;
use tokio::{
    runtime,
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::object::Key;

/// What one subscriber is given to be served in: several times what that takes, so that there is room beside it.
const SERVING: Duration = Duration::from_micros(20);
/// Waves that are served sooner than this follow one another as they come: a timer is no finer.
const SHORTEST: Duration = Duration::from_millis(1);
/// However many there are, a change waits for no longer than this.
const LONGEST: Duration = Duration::from_millis(20);

/// Which changes a subscriber wants to be woken for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WakeScope {
    /// Any change.
    All,
    /// A change in a namespace.
    Namespace(String),
    /// A change of one item.
    One(Key),
}

#[derive(Debug, Default)]
struct Index {
    next: u64,
    scopes: HashMap<WakeScope, Waiting>,
    /// Woken by every publication, bookmarks included.
    revisions: HashMap<u64, Arc<Notify>>,
}

/// Those who wait for one scope.
#[derive(Debug, Default)]
struct Waiting {
    /// By turn, and within one in the order in which they came.
    subscribers: BTreeMap<(u32, u64), Arc<Notify>>,
    /// Until when the last wave is being served; `None` where nobody need wait for that.
    busy_until: Option<Instant>,
    /// Whether a wave is due then.
    due: bool,
}

/// The subscribers of a shard.
#[derive(Debug, Default)]
pub(super) struct Wakers(Mutex<Index>);

/// Ends when dropped.
#[derive(Debug)]
pub struct Subscription {
    wakers: Weak<Wakers>,
    id: u64,
    turn: u32,
    scopes: Vec<WakeScope>,
}

impl Wakers {
    fn index(&self) -> MutexGuard<'_, Index> {
        // A panic while waking leaves the index whole: nothing is half done in it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `notify` gets a permit for each publication that touches one of the scopes, or, where `scopes` is
    /// empty, for every publication at all, bookmarks included. Those of a lower `turn` are woken first.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        scopes: Vec<WakeScope>,
        notify: &Arc<Notify>,
        turn: u32,
    ) -> Subscription {
        let mut index = self.index();
        let id = index.next;
        index.next += 1;
        if scopes.is_empty() {
            index.revisions.insert(id, notify.clone());
        }
        for scope in &scopes {
            index
                .scopes
                .entry(scope.clone())
                .or_default()
                .subscribers
                .insert((turn, id), notify.clone());
        }
        Subscription {
            wakers: Arc::downgrade(self),
            id,
            turn,
            scopes,
        }
    }

    /// Wakes whoever subscribed to one of these keys, their namespaces or everything: now, or once the wave
    /// before has been served.
    pub(super) fn wake<'a>(self: &Arc<Self>, keys: impl Iterator<Item = &'a Key>) {
        let mut index = self.index();
        for notify in index.revisions.values() {
            notify.notify_one();
        }
        let mut any = false;
        let narrow = index.scopes.len() > usize::from(index.scopes.contains_key(&WakeScope::All));
        let mut last_namespace: Option<&str> = None;
        for key in keys {
            any = true;
            if !narrow {
                break;
            }
            self.wake_scope(&mut index, WakeScope::One(key.clone()));
            if last_namespace != Some(key.namespace()) {
                self.wake_scope(&mut index, WakeScope::Namespace(key.namespace().to_owned()));
                last_namespace = Some(key.namespace());
            }
        }
        if any {
            self.wake_scope(&mut index, WakeScope::All);
        }
    }

    fn wake_scope(self: &Arc<Self>, index: &mut Index, scope: WakeScope) {
        let hash_map::Entry::Occupied(mut waiting) = index.scopes.entry(scope) else {
            return;
        };
        if waiting.get().due {
            return;
        }
        let Some(until) = waiting.get().busy_until else {
            return waiting.get_mut().wave();
        };
        match runtime::Handle::try_current() {
            Ok(runtime) if Instant::now() < until => {
                waiting.get_mut().due = true;
                let scope = waiting.key().clone();
                let wakers = Arc::downgrade(self);
                runtime.spawn(async move {
                    sleep_until(until).await;
                    if let Some(wakers) = wakers.upgrade()
                        && let Some(waiting) = wakers.index().scopes.get_mut(&scope)
                    {
                        waiting.wave();
                    }
                });
            }
            _ => waiting.get_mut().wave(),
        }
    }

    /// Wakes everybody, for what concerns them all (the kind's state, a new history).
    pub(super) fn wake_all(&self) {
        let index = self.index();
        for notify in index
            .scopes
            .values()
            .flat_map(|waiting| waiting.subscribers.values())
            .chain(index.revisions.values())
        {
            notify.notify_one();
        }
    }

    /// Whether some subscriber was woken and has not looked since.
    pub(super) fn is_awaited(&self) -> bool {
        let index = self.index();
        let waiting = index.scopes.values();
        let mut all = waiting
            .flat_map(|waiting| waiting.subscribers.values())
            .chain(index.revisions.values());
        all.any(|notify| {
            let woken = is_woken(notify);
            if woken {
                notify.notify_one();
            }
            woken
        })
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let index = self.index();
        index.scopes.is_empty() && index.revisions.is_empty()
    }
}

/// Whether a subscriber was woken and has not looked since, which it then may do without having been woken.
fn is_woken(notify: &Notify) -> bool {
    notify.notified().now_or_never().is_some()
}

impl Waiting {
    fn wave(&mut self) {
        let mut looking = 0;
        for notify in self.subscribers.values() {
            looking += u32::from(!is_woken(notify));
            notify.notify_one();
        }
        self.due = false;
        let served = SERVING.saturating_mul(looking).min(LONGEST);
        self.busy_until = (served >= SHORTEST).then(|| Instant::now() + served);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Some(wakers) = self.wakers.upgrade() else {
            return;
        };
        let mut index = wakers.index();
        index.revisions.remove(&self.id);
        for scope in &self.scopes {
            if let Some(waiting) = index.scopes.get_mut(scope) {
                waiting.subscribers.remove(&(self.turn, self.id));
                if waiting.subscribers.is_empty() {
                    index.scopes.remove(scope);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{sync::Notify, time::advance};

    use super::{LONGEST, Subscription, WakeScope, Wakers, is_woken as woken};
    use crate::object::Key;

    /// A thousand who wait for any change.
    fn many(wakers: &Arc<Wakers>) -> (Vec<Arc<Notify>>, Vec<Subscription>) {
        let all = (0..1_000).map(|_| {
            let notify = Arc::new(Notify::new());
            let subscription = wakers.subscribe(vec![WakeScope::All], &notify, 0);
            (notify, subscription)
        });
        all.unzip()
    }

    #[test]
    fn a_change_wakes_those_whose_scope_it_is_in_and_nobody_else() {
        let wakers = Arc::new(Wakers::default());
        let [all, namespace, one, other, revision] =
            std::array::from_fn(|_| Arc::new(Notify::new()));
        let key = Key::new("a", "x");
        let _all = wakers.subscribe(vec![WakeScope::All], &all, 0);
        let _namespace = wakers.subscribe(vec![WakeScope::Namespace("a".into())], &namespace, 0);
        let _one = wakers.subscribe(vec![WakeScope::One(key.clone())], &one, 0);
        let _other = wakers.subscribe(vec![WakeScope::Namespace("b".into())], &other, 0);
        let _revision = wakers.subscribe(Vec::new(), &revision, 0);

        wakers.wake([key].iter());
        assert!(woken(&all) && woken(&namespace) && woken(&one) && woken(&revision));
        assert!(!woken(&other));

        wakers.wake([].iter());
        assert!(woken(&revision), "a bookmark moves the revision");
        assert!(!woken(&all) && !woken(&namespace) && !woken(&one) && !woken(&other));

        wakers.wake_all();
        assert!(woken(&all) && woken(&namespace) && woken(&one) && woken(&other));
    }

    #[test]
    fn a_dropped_subscription_leaves_nothing_behind() {
        let wakers = Arc::new(Wakers::default());
        let notify = Arc::new(Notify::new());
        let scopes = vec![
            WakeScope::Namespace("a".into()),
            WakeScope::Namespace("b".into()),
        ];
        drop(wakers.subscribe(scopes, &notify, 0));
        drop(wakers.subscribe(Vec::new(), &notify, 0));
        assert!(wakers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_wait_for_the_same_are_woken_again_once_they_have_been_served() {
        let wakers = Arc::new(Wakers::default());
        let key = Key::new("a", "x");
        let [all, one] = std::array::from_fn(|_| Arc::new(Notify::new()));
        let _all = wakers.subscribe(vec![WakeScope::All], &all, 0);
        let _many = many(&wakers);
        let _one = wakers.subscribe(vec![WakeScope::One(key.clone())], &one, 0);
        wakers.wake([key.clone()].iter());
        assert!(woken(&all) && woken(&one), "at once after a while");

        wakers.wake([key.clone()].iter());
        wakers.wake([key.clone()].iter());
        assert!(woken(&one), "few are never made to wait");
        assert!(!woken(&all));
        advance(LONGEST / 2).await;
        assert!(!woken(&all));
        tokio::time::timeout(LONGEST, all.notified())
            .await
            .expect("nobody is forgotten");
        assert!(!woken(&all), "one wave for both");

        advance(LONGEST).await;
        wakers.wake([key].iter());
        assert!(woken(&all));
    }

    #[tokio::test]
    async fn everybodys_first_stream_is_woken_before_anybodys_second() {
        let wakers = Arc::new(Wakers::default());
        let woken = Arc::new(std::sync::Mutex::new(Vec::new()));
        for turn in [2, 0, 1, 0] {
            let (notify, woken) = (Arc::new(Notify::new()), woken.clone());
            let subscription = wakers.subscribe(vec![WakeScope::All], &notify, turn);
            tokio::spawn(async move {
                notify.notified().await;
                woken.lock().unwrap().push(turn);
                drop(subscription);
            });
        }
        tokio::task::yield_now().await;
        wakers.wake([Key::new("a", "x")].iter());
        while woken.lock().unwrap().len() < 4 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*woken.lock().unwrap(), [0, 0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_who_do_not_look_hold_up_nobody() {
        let wakers = Arc::new(Wakers::default());
        let key = Key::new("a", "x");
        let all = Arc::new(Notify::new());
        let _all = wakers.subscribe(vec![WakeScope::All], &all, 0);
        let (asleep, _subscriptions) = many(&wakers);
        wakers.wake([key.clone()].iter());
        assert!(woken(&all));
        // Whether any of them looks is known when they are to be woken again.
        advance(LONGEST).await;
        for _ in 0..3 {
            wakers.wake([key.clone()].iter());
            assert!(woken(&all), "at once");
        }
        assert!(
            asleep.iter().all(|notify| woken(notify)),
            "and nobody is forgotten"
        );
    }

    #[test]
    fn without_timers_all_are_woken_at_once() {
        let wakers = Arc::new(Wakers::default());
        let key = Key::new("a", "x");
        let (all, _subscriptions) = many(&wakers);
        for _ in 0..3 {
            wakers.wake([key.clone()].iter());
            assert!(all.iter().all(|notify| woken(notify)));
        }
    }
}
