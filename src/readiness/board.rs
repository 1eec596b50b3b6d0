//! Where controllers write what they find, and everybody reads.
//!
//! One hand writes a kind's shard: its [`Writer`], behind a lock that is held for a few microseconds and never
//! across an await. A task with a channel was refused: it would put a wakeup between a finding and its watchers,
//! and a queue that could grow. Readers take no lock, they have the shard.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Instant, SystemTime},
};

use metrics::{counter, gauge};
use tokio::sync::Notify;

use super::{Answer, Basis, Condition, Finding, Standing, State, Verdict};
use crate::{
    cache::{Cause, History, Limits, Phase, Shard, Status, Unreadable, Writer},
    heartbeat::Heartbeat,
    object::Key,
    shutdown::Shutdown,
};

/// All verdicts of this replica. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Board(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// By the name in the config.
    kinds: BTreeMap<Box<str>, Arc<Judged>>,
    /// Given a permit when something expires sooner than was known.
    sooner: Arc<Notify>,
    /// The same moment by two clocks.
    base: (Instant, SystemTime),
}

/// The verdicts on one kind.
#[derive(Debug)]
pub struct Judged {
    name: Box<str>,
    shard: Arc<Shard<Verdict>>,
    hand: Mutex<Hand>,
    sooner: Arc<Notify>,
    wishes: OnceLock<Wish>,
}

/// Told of targets for which somebody wants newer evidence.
struct Wish(Box<dyn Fn(&Key) + Send + Sync>);

impl fmt::Debug for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wish")
    }
}

/// What only the writer sees.
#[derive(Debug)]
struct Hand {
    writer: Writer<Verdict>,
    revision: u64,
    records: HashMap<Key, Record>,
    expiries: BTreeSet<(Instant, Key)>,
    /// What is to be judged before anything is shown; `None` before that is known.
    expected: Option<HashSet<Key>>,
    complete: bool,
    /// Why nothing that rests on an object counts at the moment, as reason and message.
    outdated: Option<(Arc<str>, Arc<str>)>,
}

/// What another controller adds to a verdict.
#[derive(Clone, Debug)]
pub struct Contribution {
    /// Of the object that it means.
    uid: Box<str>,
    /// Of that object, when it was judged.
    version: Box<str>,
    /// By name; none where nothing is to be said any more.
    conditions: Vec<(Arc<str>, Answer)>,
}

impl Contribution {
    /// To the verdict on the object that has this uid, as it was at this version.
    pub fn new(uid: &str, version: &str, conditions: Vec<(Arc<str>, Answer)>) -> Self {
        Self {
            uid: uid.into(),
            version: version.into(),
            conditions,
        }
    }
}

/// What was found of one target.
#[derive(Debug, Default)]
struct Record {
    finding: Option<Arc<Finding>>,
    /// By others than the one who judges the kind.
    contributed: BTreeMap<&'static str, Contribution>,
    shown: Option<Arc<Verdict>>,
    /// Its entry in `expiries`.
    due: Option<Instant>,
}

/// Says what this module's metrics mean.
pub fn describe_metrics() {
    metrics::describe_gauge!(
        "informerd_verdicts",
        "Targets that are judged, by kind and state: ready, not_ready, unknown."
    );
    metrics::describe_counter!(
        "informerd_verdict_transitions_total",
        "Verdicts that came to another state, by kind and state."
    );
    metrics::describe_counter!(
        "informerd_verdicts_published_total",
        "Verdicts that were shown because anything about them was new, by kind."
    );
}

impl Board {
    /// With a shard for each of these kinds, named as the config has them.
    pub fn new<N: Into<Box<str>>>(kinds: impl IntoIterator<Item = N>, limits: Limits) -> Self {
        let (now, sooner) = (now(), Arc::new(Notify::new()));
        let judged = |name: Box<str>| {
            let judged = Judged::new(name.clone(), limits, sooner.clone(), now);
            (name, Arc::new(judged))
        };
        Self(Arc::new(Inner {
            kinds: kinds.into_iter().map(Into::into).map(judged).collect(),
            sooner: sooner.clone(),
            base: (now, SystemTime::now()),
        }))
    }

    /// The verdicts on the kind that the config has under this name; `None` where nobody judges it.
    pub fn kind(&self, name: &str) -> Option<&Arc<Judged>> {
        self.0.kinds.get(name)
    }

    /// All kinds that are judged, by name.
    pub fn kinds(&self) -> impl Iterator<Item = &Arc<Judged>> {
        self.0.kinds.values()
    }

    /// An instant by the wall clock, as that was when the board was made.
    pub fn wall(&self, at: Instant) -> SystemTime {
        let (base, wall) = self.0.base;
        match at.checked_duration_since(base) {
            Some(after) => wall + after,
            None => wall - base.saturating_duration_since(at),
        }
    }

    /// Turns what expires into Unknown when it does, until draining begins.
    pub async fn run(self, heartbeat: Heartbeat, shutdown: Shutdown) {
        let mut beat = Heartbeat::timer();
        loop {
            let next = self.kinds().filter_map(|judged| judged.expire(now())).min();
            heartbeat.beat();
            let due = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.draining() => return,
                () = self.0.sooner.notified() => {}
                () = due => {}
                _ = beat.tick() => {}
            }
        }
    }
}

impl Judged {
    fn new(name: Box<str>, limits: Limits, sooner: Arc<Notify>, now: Instant) -> Self {
        // A shard is told from others by this name, in tokens too; objects are sharded by namespace, verdicts by kind.
        let writer = Writer::new(&name, limits, now);
        writer.set_status(Phase::Syncing, "Judging", "not everything is judged yet");
        Self {
            name,
            shard: writer.shard().clone(),
            hand: Mutex::new(Hand {
                writer,
                revision: 0,
                records: HashMap::new(),
                expiries: BTreeSet::new(),
                expected: None,
                complete: false,
                outdated: None,
            }),
            sooner,
            wishes: OnceLock::new(),
        }
    }

    /// The kind, as the config names it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The readers' side: nothing before all that was there at first is judged.
    pub fn shard(&self) -> &Arc<Shard<Verdict>> {
        &self.shard
    }

    /// The verdict on this target, if it exists. Nothing before all that was there at first is judged.
    pub fn get(&self, key: &Key) -> Option<Arc<Verdict>> {
        self.shard.state()?.get(key).cloned()
    }

    /// Shows what the controller that judges the kind has found. Whether that is anything new.
    pub fn publish(&self, key: &Key, finding: Finding) -> bool {
        let mut hand = self.hand();
        let record = hand.records.entry(key.clone()).or_default();
        record.finding = Some(Arc::new(finding));
        let shown = self.show(&mut hand, key);
        self.judged(&mut hand, key);
        shown
    }

    /// Adds answers to further questions to the verdict on this object, in place of those that `by` gave before.
    /// They are shown as long as the target is judged and is the one with this uid, and are about `version` of it,
    /// whatever the one who judges the kind has seen; none takes them back. Whether that is anything new.
    pub fn contribute(&self, key: &Key, by: &'static str, added: Contribution) -> bool {
        self.contribute_all(by, [(key, added)])
    }

    /// The same to several, shown at once.
    pub fn contribute_all<'a>(
        &self,
        by: &'static str,
        all: impl IntoIterator<Item = (&'a Key, Contribution)>,
    ) -> bool {
        let mut hand = self.hand();
        let mut is_new = false;
        for (key, added) in all {
            let record = hand.records.entry(key.clone()).or_default();
            if added.conditions.is_empty() {
                record.contributed.remove(by);
            } else {
                record.contributed.insert(by, added);
            }
            is_new |= self.put(&mut hand, key);
            hand.tidy(key);
        }
        if is_new {
            hand.publish();
        }
        is_new
    }

    /// The target does not exist any more. Whether that is news.
    pub fn gone(&self, key: &Key) -> bool {
        let mut hand = self.hand();
        let mut told = false;
        if let Some(record) = hand.records.get_mut(key) {
            let finding = record.finding.take();
            let shown = record.shown.take();
            if let Some(finding) = finding {
                record
                    .contributed
                    .retain(|_, added| added.uid != finding.uid);
            }
            hand.set_due(key, None);
            if let Some(shown) = shown {
                self.count(Some(&shown), None);
                hand.revision += 1;
                let revision = hand.revision;
                hand.writer.delete(key, None, revision, Cause::Deleted);
                hand.publish();
                told = true;
            }
            hand.tidy(key);
        }
        self.judged(&mut hand, key);
        told
    }

    /// Has `wish` called for each target of which somebody waits for newer evidence than there is; often, and from
    /// anywhere. The first one counts.
    pub fn on_wish(&self, wish: impl Fn(&Key) + Send + Sync + 'static) {
        let _ = self.wishes.set(Wish(Box::new(wish)));
    }

    /// Somebody waits for newer evidence on this target. What rests on probes may be probed sooner.
    pub fn wish(&self, key: &Key) {
        if let Some(Wish(wish)) = self.wishes.get() {
            wish(key);
        }
    }

    /// What there was when the kind was first known as a whole: nothing is shown before each of these is judged
    /// or gone. Counts once.
    pub fn expect(&self, keys: impl IntoIterator<Item = Key>) {
        let mut hand = self.hand();
        if hand.expected.is_some() {
            return;
        }
        let is_judged = |key: &Key| {
            let record = hand.records.get(key);
            record.is_some_and(|record| record.finding.is_some())
        };
        let expected = keys.into_iter().filter(|key| !is_judged(key)).collect();
        hand.expected = Some(expected);
        self.complete(&mut hand);
    }

    /// The API server does not serve the kind: that there is nothing to judge is shown, with the kind's status, until
    /// [`Judged::expect`] says what there is after all.
    pub fn expect_nothing_yet(&self, status: &Status) {
        let mut hand = self.hand();
        if hand.expected.is_some() || self.shard.state().is_some() {
            return;
        }
        let (none, revision) = (Unreadable::default(), hand.revision);
        hand.writer
            .replace(Vec::new(), &none, revision, History::Same, now());
        hand.writer
            .set_status(status.phase, &status.reason, &status.message);
    }

    /// Says that what rests on objects does not count, and why (one word, and the same for a person), or with
    /// `None` that it does again. Answers that rest on probes have an end of their own, and stay.
    pub fn set_outdated(&self, why: Option<(&str, &str)>) {
        let why = why.map(|(reason, message)| (Arc::from(reason), Arc::from(message)));
        let mut hand = self.hand();
        if hand.outdated == why {
            return;
        }
        hand.outdated = why;
        let keys: Vec<Key> = hand.records.keys().cloned().collect();
        for key in &keys {
            self.put(&mut hand, key);
        }
        hand.publish();
        self.tell_status(&hand);
    }

    /// Turns into Unknown what has expired by now; when the next does.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut hand = self.hand();
        let due = hand.expiries.iter().take_while(|(at, _)| *at <= now);
        let due: Vec<Key> = due.map(|(_, key)| key.clone()).collect();
        let mut any = false;
        for key in &due {
            // Gives it a later entry, or none.
            any |= self.put(&mut hand, key);
        }
        if any {
            hand.publish();
        }
        hand.expiries.first().map(|(at, _)| *at)
    }

    #[cfg(test)]
    pub(super) fn hand_is_empty(&self) -> bool {
        let hand = self.hand();
        hand.records.is_empty() && hand.expiries.is_empty()
    }

    fn hand(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, hand: &mut Hand, key: &Key) -> bool {
        let shown = self.put(hand, key);
        if shown {
            hand.publish();
        }
        shown
    }

    /// Brings what is shown of a target up to date, for the next publication. Whether anything is new.
    fn put(&self, hand: &mut Hand, key: &Key) -> bool {
        let now = now();
        let outdated = hand.outdated.clone();
        let Some(record) = hand.records.get(key) else {
            return false;
        };
        let Some(verdict) = record.judge(key, hand.revision + 1, outdated.as_ref(), now) else {
            return false;
        };
        let due = verdict.due(now);
        let before = record.shown.clone();
        let soonest = hand.expiries.first().map(|(at, _)| *at);
        hand.set_due(key, due);
        if due.is_some_and(|due| soonest.is_none_or(|soonest| due < soonest)) {
            self.sooner.notify_one();
        }
        if before
            .as_ref()
            .is_some_and(|before| before.says_the_same(&verdict))
        {
            return false;
        }
        hand.revision += 1;
        let verdict = Arc::new(verdict);
        self.count(before.as_deref(), Some(&verdict));
        if let Some(record) = hand.records.get_mut(key) {
            record.shown = Some(verdict.clone());
        }
        let revision = hand.revision;
        hand.writer.upsert(verdict, revision);
        true
    }

    fn judged(&self, hand: &mut Hand, key: &Key) {
        if hand.complete {
            return;
        }
        if let Some(expected) = &mut hand.expected {
            expected.remove(key);
        }
        self.complete(hand);
    }

    /// Shows all there is, if that is everything.
    fn complete(&self, hand: &mut Hand) {
        if hand.complete || hand.expected.as_ref().is_none_or(|left| !left.is_empty()) {
            return;
        }
        hand.complete = true;
        let all = hand
            .records
            .values()
            .filter_map(|record| record.shown.clone());
        let all = all.collect();
        let revision = hand.revision;
        hand.writer
            .replace(all, &Unreadable::default(), revision, History::Same, now());
        self.tell_status(hand);
    }

    fn tell_status(&self, hand: &Hand) {
        match &hand.outdated {
            _ if !hand.complete => {}
            None => hand.writer.set_status(Phase::Live, "", ""),
            Some((reason, message)) => hand.writer.set_status(Phase::BackingOff, reason, message),
        }
    }

    fn count(&self, before: Option<&Verdict>, after: Option<&Verdict>) {
        let state =
            |verdict: Option<&Verdict>| verdict.map(|verdict| verdict.standing.answer.state);
        let kind = || self.name.to_string();
        if after.is_some() {
            counter!("informerd_verdicts_published_total", "kind" => kind()).increment(1);
        }
        let (before, after) = (state(before), state(after));
        if before == after {
            return;
        }
        if let Some(before) = before {
            gauge!("informerd_verdicts", "kind" => kind(), "state" => before.as_str()).decrement(1);
        }
        if let Some(after) = after {
            gauge!("informerd_verdicts", "kind" => kind(), "state" => after.as_str()).increment(1);
        }
        let after = after.unwrap_or(State::Gone).as_str();
        counter!("informerd_verdict_transitions_total", "kind" => kind(), "state" => after)
            .increment(1);
    }
}

impl Hand {
    /// Nothing before all is judged that there was at first.
    fn publish(&mut self) {
        if !self.complete {
            return;
        }
        let now = now();
        self.writer.publish(now);
        self.writer.prove(now);
    }

    fn set_due(&mut self, key: &Key, due: Option<Instant>) {
        let Some(record) = self.records.get_mut(key) else {
            return;
        };
        if record.due == due {
            return;
        }
        if let Some(was) = std::mem::replace(&mut record.due, due) {
            self.expiries.remove(&(was, key.clone()));
        }
        if let Some(due) = due {
            self.expiries.insert((due, key.clone()));
        }
    }

    /// Forgets a target of which nothing is known.
    fn tidy(&mut self, key: &Key) {
        let empty = |record: &Record| record.finding.is_none() && record.contributed.is_empty();
        if self.records.get(key).is_some_and(empty) {
            self.records.remove(key);
        }
    }
}

impl Record {
    /// What is to be shown, if the target is judged at all.
    fn judge(
        &self,
        key: &Key,
        revision: u64,
        outdated: Option<&(Arc<str>, Arc<str>)>,
        now: Instant,
    ) -> Option<Verdict> {
        let finding = self.finding.as_ref()?;
        let before = self.shown.as_deref();
        let same = before.filter(|before| before.finding.uid == finding.uid);
        let standing = |answer: &Answer, version: Option<&str>, before: Option<&Standing>| {
            let answer = answer.as_of(now, outdated);
            let kept = before.filter(|before| before.answer.state == answer.state);
            let since = kept.map_or(now, |before| before.since);
            Standing {
                answer,
                since,
                version: version.map(Into::into),
            }
        };
        let contributed = self.contributed.values();
        let contributed = contributed
            .filter(|added| added.uid == finding.uid)
            .flat_map(|added| {
                let of = move |one| (one, Some(&*added.version));
                added.conditions.iter().map(of)
            });
        let own = finding.conditions.iter().map(|one| (one, None));
        let conditions: BTreeMap<&Arc<str>, (&Answer, Option<&str>)> = own
            .chain(contributed)
            .map(|((name, answer), version)| (name, (answer, version)))
            .collect();
        let conditions = conditions
            .into_iter()
            .map(|(name, (answer, version))| Condition {
                name: name.clone(),
                standing: standing(answer, version, same.and_then(|same| same.condition(name))),
            });
        let mut verdict = Verdict {
            key: key.clone(),
            version: revision.to_string().into(),
            revision,
            transition: revision,
            finding: finding.clone(),
            standing: standing(&finding.answer, None, same.map(|same| &same.standing)),
            conditions: conditions.collect(),
        };
        if let Some(before) = before.filter(|before| !verdict.is_transition_from(before)) {
            verdict.transition = before.transition;
        }
        Some(verdict)
    }
}

impl Verdict {
    /// When something of it expires next.
    fn due(&self, now: Instant) -> Option<Instant> {
        let conditions = self.conditions.iter().map(|one| &one.standing);
        let all = std::iter::once(&self.standing).chain(conditions);
        all.filter_map(|standing| standing.answer.basis.expires())
            .filter(|expires| *expires > now)
            .min()
    }
}

impl Answer {
    /// What is left of it at this time.
    fn as_of(&self, now: Instant, outdated: Option<&(Arc<str>, Arc<str>)>) -> Self {
        match (&self.basis, outdated) {
            (Basis::Probes { expires, .. }, _) if *expires <= now => {
                let message = format!("no newer answer; the last was {}", self.words());
                self.unknown("Expired".into(), message.into())
            }
            (Basis::Object(_), Some((reason, message))) => {
                let message = format!("{message}; the last was {}", self.words());
                self.unknown(reason.clone(), message.into())
            }
            _ => self.clone(),
        }
    }

    fn unknown(&self, reason: Arc<str>, message: Arc<str>) -> Self {
        if self.state == State::Unknown {
            return self.clone();
        }
        Self {
            state: State::Unknown,
            reason,
            message,
            ..self.clone()
        }
    }

    fn words(&self) -> String {
        format!("{} ({})", self.state.as_str(), self.reason)
    }
}

/// tokio's clock, so that tests can pause it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
