//! Wakes those whom a change concerns, and nobody else.
//!
//! An index by scope, since with a thousand consumers of one pod each, waking all for every change would cost
//! more than sending it. Where many wait for the same, one wave of waking has time to be served before the next
//! begins: what is published meanwhile goes with that, in fewer and larger frames. Who sleeps through a wave is given
//! none, and is looked at more rarely then, or a thousand who read nothing would hold up all who do. Everybody's first
//! stream comes before anybody's second, and whatever somebody has beyond [`PROMPT`] has waves of its own, after those
//! of all others: whoever has a thousand streams holds up those who have one by little.

use std::{
    collections::{BTreeMap, HashMap, hash_map},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    runtime,
    time::{Instant, sleep_until},
};

use super::doorbell::{Doorbell, Found};
use crate::object::Key;

/// What one who looks is given to be served in: several times what that takes, so that there is room beside it.
const SERVING: Duration = Duration::from_micros(20);
/// Waves that are served sooner than this follow one another as they come: a timer is no finer.
const SHORTEST: Duration = Duration::from_millis(1);
/// However many there are, a change waits for no longer than this.
const LONGEST: Duration = Duration::from_millis(20);
/// So many streams of one caller are served with everybody's.
const PROMPT: u32 = 16;
/// What the others wait for: less is no head start.
const HEAD_START: Duration = Duration::from_micros(500);

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
    revisions: HashMap<u64, Arc<Doorbell>>,
}

/// Those who wait for one scope.
#[derive(Debug, Default)]
struct Waiting {
    /// Whose turn is within [`PROMPT`], the others, and those of both who sleep.
    groups: [Group; 3],
}

/// Where those are who sleep.
const ASLEEP: usize = 2;

/// Those of them who are woken together.
#[derive(Debug, Default)]
struct Group {
    /// By turn, and within one in the order in which they came.
    subscribers: BTreeMap<(u32, u64), Arc<Doorbell>>,
    /// Until when there is a wave before them that is being served; `None` where nobody need wait for that.
    busy_until: Option<Instant>,
    /// Whether a wave is due then.
    due: bool,
    /// When those are looked for next who sleep.
    roll_call: Option<Instant>,
}

/// Which group a subscriber is of who does not sleep.
fn home(turn: u32) -> usize {
    usize::from(turn >= PROMPT)
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

    /// `bell` is rung by each publication that touches one of the scopes, or, where `scopes` is
    /// empty, by every publication at all, bookmarks included. Those of a lower `turn` are woken first.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        scopes: Vec<WakeScope>,
        bell: &Arc<Doorbell>,
        turn: u32,
    ) -> Subscription {
        let mut index = self.index();
        let id = index.next;
        index.next += 1;
        if scopes.is_empty() {
            index.revisions.insert(id, bell.clone());
        }
        for scope in &scopes {
            index.scopes.entry(scope.clone()).or_default().groups[home(turn)]
                .subscribers
                .insert((turn, id), bell.clone());
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
        for bell in index.revisions.values() {
            bell.ring();
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
        for at in 0..waiting.get().groups.len() {
            let group = &mut waiting.get_mut().groups[at];
            if group.due || group.subscribers.is_empty() {
                continue;
            }
            let until = group.busy_until.filter(|until| Instant::now() < *until);
            let later = until.and_then(|until| Some((until, runtime::Handle::try_current().ok()?)));
            let Some((until, runtime)) = later else {
                waiting.get_mut().wave(at);
                continue;
            };
            group.due = true;
            let scope = waiting.key().clone();
            runtime.spawn(Self::wave_later(Arc::downgrade(self), until, scope, at));
        }
    }

    async fn wave_later(wakers: Weak<Self>, until: Instant, scope: WakeScope, group: usize) {
        sleep_until(until).await;
        if let Some(wakers) = wakers.upgrade()
            && let Some(waiting) = wakers.index().scopes.get_mut(&scope)
        {
            waiting.wave(group);
        }
    }

    /// Wakes everybody, for what concerns them all (the kind's state, a new history).
    pub(super) fn wake_all(&self) {
        let index = self.index();
        for bell in index.bells() {
            bell.ring();
        }
    }

    /// Whether some subscriber was woken and has not looked since.
    pub(super) fn is_awaited(&self) -> bool {
        self.index().bells().any(|bell| bell.is_rung())
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let index = self.index();
        index.scopes.is_empty() && index.revisions.is_empty()
    }
}

impl Index {
    fn bells(&self) -> impl Iterator<Item = &Arc<Doorbell>> {
        let groups = self.scopes.values().flat_map(|waiting| &waiting.groups);
        groups
            .flat_map(|group| group.subscribers.values())
            .chain(self.revisions.values())
    }
}

impl Waiting {
    /// Wakes a group, and gives it its time.
    fn wave(&mut self, at: usize) {
        let (before, after) = self.groups.split_at_mut(at + 1);
        let (served, somebody_sleeps) = before[at].wave();
        if served >= HEAD_START {
            let head_start = Some(Instant::now() + served);
            for later in after {
                later.busy_until = later.busy_until.max(head_start);
            }
        }
        if somebody_sleeps || at == ASLEEP {
            self.call_roll(at);
        }
    }

    /// Who did not look from one of these to the next sleeps; who has looked does not any more.
    fn call_roll(&mut self, at: usize) {
        let now = Instant::now();
        let group = &mut self.groups[at];
        if group.roll_call.is_some_and(|next| now < next) {
            return;
        }
        let next = Some(now + LONGEST);
        group.roll_call = next;
        let belongs_elsewhere =
            |_: &(u32, u64), bell: &mut Arc<Doorbell>| bell.is_still_rung() != (at == ASLEEP);
        let moving = group.subscribers.extract_if(.., belongs_elsewhere);
        for (id, bell) in moving.collect::<Vec<_>>() {
            let to = if at == ASLEEP { home(id.0) } else { ASLEEP };
            self.groups[to].subscribers.insert(id, bell);
        }
        let asleep = &mut self.groups[ASLEEP];
        asleep.busy_until = asleep.busy_until.max(next);
    }

    fn is_empty(&self) -> bool {
        self.groups.iter().all(|group| group.subscribers.is_empty())
    }
}

impl Group {
    /// Wakes all: how long it takes to serve those who look, and whether somebody sleeps.
    fn wave(&mut self) -> (Duration, bool) {
        let (mut looking, mut asleep) = (0, false);
        for bell in self.subscribers.values() {
            match bell.ring() {
                // Who is busy will look, too.
                Found::Waiting | Found::Busy => looking += 1,
                Found::Asleep => asleep = true,
            }
        }
        self.due = false;
        let served = SERVING.saturating_mul(looking).min(LONGEST);
        self.busy_until = (served >= SHORTEST).then(|| Instant::now() + served);
        (served, asleep)
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
                for group in &mut waiting.groups {
                    group.subscribers.remove(&(self.turn, self.id));
                }
                if waiting.is_empty() {
                    index.scopes.remove(scope);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;
    use tokio::time::advance;

    use super::{Doorbell, LONGEST, PROMPT, Subscription, WakeScope, Wakers};
    use crate::object::Key;

    /// Looks; whether it was woken for that.
    fn woken(bell: &Doorbell) -> bool {
        bell.rung().now_or_never().is_some()
    }

    /// A thousand who wait for any change.
    fn many(wakers: &Arc<Wakers>) -> (Vec<Arc<Doorbell>>, Vec<Subscription>) {
        let all = (0..1_000).map(|_| {
            let bell = Arc::new(Doorbell::default());
            assert!(!woken(&bell), "it waits");
            let subscription = wakers.subscribe(vec![WakeScope::All], &bell, 0);
            (bell, subscription)
        });
        all.unzip()
    }

    #[test]
    fn a_change_wakes_those_whose_scope_it_is_in_and_nobody_else() {
        let wakers = Arc::new(Wakers::default());
        let [all, namespace, one, other, revision] =
            std::array::from_fn(|_| Arc::new(Doorbell::default()));
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
        let bell = Arc::new(Doorbell::default());
        let scopes = vec![
            WakeScope::Namespace("a".into()),
            WakeScope::Namespace("b".into()),
        ];
        drop(wakers.subscribe(scopes, &bell, 0));
        drop(wakers.subscribe(Vec::new(), &bell, 0));
        assert!(wakers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_wait_for_the_same_are_woken_again_once_they_have_been_served() {
        let wakers = Arc::new(Wakers::default());
        let key = Key::new("a", "x");
        let [all, one] = std::array::from_fn(|_| Arc::new(Doorbell::default()));
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
        tokio::time::timeout(LONGEST, all.rung())
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
            let (bell, woken) = (Arc::new(Doorbell::default()), woken.clone());
            let subscription = wakers.subscribe(vec![WakeScope::All], &bell, turn);
            tokio::spawn(async move {
                bell.rung().await;
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
    async fn what_one_caller_has_beyond_its_prompt_streams_holds_up_nobody_else() {
        let wakers = Arc::new(Wakers::default());
        let key = Key::new("a", "x");
        let waiting = |turns: std::ops::Range<u32>| -> Vec<_> {
            let subscribed = turns.map(|turn| {
                let bell = Arc::new(Doorbell::default());
                assert!(!woken(&bell), "it waits");
                let subscription = wakers.subscribe(vec![WakeScope::All], &bell, turn);
                (bell, subscription)
            });
            subscribed.collect()
        };
        let others: Vec<_> = (0..30).flat_map(|_| waiting(0..1)).collect();
        let greedy = waiting(0..1_000);
        let (prompt, rest) = greedy.split_at(PROMPT as usize);
        let how_many = |of: &[(Arc<Doorbell>, Subscription)]| {
            of.iter().filter(|(bell, _)| woken(bell)).count()
        };
        for round in 0..3 {
            // Waits again, all of it.
            for (bell, _) in others.iter().chain(&greedy) {
                assert!(!woken(bell), "in round {round}");
            }
            wakers.wake([key.clone()].iter());
            assert_eq!(how_many(&others), others.len(), "at once, each time");
            assert_eq!(how_many(prompt), prompt.len());
            assert_eq!(how_many(rest), 0, "after them");
            advance(LONGEST * 2).await;
            tokio::task::yield_now().await;
            assert_eq!(how_many(rest), rest.len(), "nobody is forgotten");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_who_do_not_look_hold_up_nobody_after_their_first_wave() {
        let wakers = Arc::new(Wakers::default());
        let key = Key::new("a", "x");
        let all = Arc::new(Doorbell::default());
        let _all = wakers.subscribe(vec![WakeScope::All], &all, 0);
        let (asleep, _subscriptions) = many(&wakers);
        wakers.wake([key.clone()].iter());
        assert!(woken(&all));
        advance(LONGEST).await;
        for _ in 0..10 {
            wakers.wake([key.clone()].iter());
            assert!(woken(&all), "at once");
            advance(LONGEST / 4).await;
            tokio::task::yield_now().await;
        }
        for bell in &asleep {
            assert!(woken(bell), "nobody is forgotten");
            assert!(!woken(bell), "and waits again");
        }
        // What comes now reaches them, too, and when they have been woken once they are like others again.
        wakers.wake([key.clone()].iter());
        advance(LONGEST * 2).await;
        tokio::task::yield_now().await;
        assert!(asleep.iter().all(|bell| woken(bell) && !woken(bell)));
        advance(LONGEST).await;
        wakers.wake([key].iter());
        assert!(asleep.iter().all(|bell| woken(bell)), "at once");
    }

    #[test]
    fn without_timers_all_are_woken_at_once() {
        let wakers = Arc::new(Wakers::default());
        let key = Key::new("a", "x");
        let (all, _subscriptions) = many(&wakers);
        for _ in 0..3 {
            wakers.wake([key.clone()].iter());
            assert!(all.iter().all(|bell| woken(bell)));
        }
    }
}
