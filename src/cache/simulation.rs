//! A seeded simulation of one shard with its consumers, against a model: a map with revisions.
//!
//! Limits are tiny, so that journals turn, tombstones are forgotten and consumers fall behind all the time.
//! Each consumer folds what it is sent and is held to the guarantees: the validators are the six `check_*`s.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use super::*;

const KEYS: usize = 8;
const NAMESPACES: [&str; 3] = ["a", "a-b", "b"];

#[derive(Clone, Debug, PartialEq, Eq)]
struct Toy {
    key: Key,
    uid: String,
    version: String,
    label: u8,
    stale: bool,
}

impl Item for Toy {
    fn key(&self) -> &Key {
        &self.key
    }

    fn uid(&self) -> &str {
        &self.uid
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn size(&self) -> usize {
        100
    }

    fn is_stale(&self) -> bool {
        self.stale
    }

    fn to_stale(&self) -> Self {
        Self {
            stale: true,
            ..self.clone()
        }
    }
}

type Set = BTreeMap<Key, Toy>;

#[derive(Clone, Debug)]
struct Wants {
    namespaces: Vec<&'static str>,
    label: Option<u8>,
    /// Of each toy only its label is seen, and what cannot be seen is not told.
    label_only: bool,
    every: bool,
}

impl Select<Toy> for Wants {
    fn ranges(&self) -> Vec<KeyRange> {
        if self.namespaces.is_empty() {
            return vec![KeyRange::All];
        }
        self.namespaces
            .iter()
            .map(|&namespace| KeyRange::Namespace(namespace.to_owned()))
            .collect()
    }

    fn in_scope(&self, key: &Key) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(&key.namespace())
    }

    fn matches(&self, item: &Toy) -> bool {
        self.label.is_none_or(|label| item.label == label)
    }

    fn is_filter(&self) -> bool {
        self.label.is_some()
    }

    fn is_everything(&self) -> bool {
        self.namespaces.is_empty() && self.label.is_none() && !self.label_only
    }

    fn differs(&self, held: &Toy, now: &Toy) -> bool {
        self.shown(held) != self.shown(now)
    }

    fn is_every(&self) -> bool {
        self.every
    }
}

impl Wants {
    fn of(&self, set: &Set) -> Set {
        let wanted = set
            .iter()
            .filter(|(key, item)| self.in_scope(key) && self.matches(item));
        wanted
            .map(|(key, item)| (key.clone(), item.clone()))
            .collect()
    }

    /// As the consumer sees it.
    fn shown(&self, item: &Toy) -> Toy {
        let mut shown = item.clone();
        if self.label_only {
            shown.version.clear();
        }
        shown
    }

    fn all_shown(&self, set: &Set) -> Vec<Toy> {
        set.values().map(|item| self.shown(item)).collect()
    }

    /// What a change is to a consumer who is told of each: what goes, and what comes.
    fn told(&self, change: &Logged) -> (Option<Key>, Option<Toy>) {
        let wanted = |item: &&Toy| self.in_scope(&item.key) && self.matches(item);
        let before = change.before.as_ref().filter(wanted);
        let after = change.after.as_ref().filter(wanted);
        match (before, after) {
            (Some(before), None) => (Some(before.key.clone()), None),
            (Some(before), Some(after)) if !self.differs(before, after) => (None, None),
            (_, after) => (None, after.cloned()),
        }
    }
}

/// A change that the shard was told of.
#[derive(Debug)]
struct Logged {
    history: u64,
    revision: u64,
    before: Option<Toy>,
    after: Option<Toy>,
}

/// What happened, by all accounts.
#[derive(Default)]
struct Records {
    /// Every published state, by its position.
    published: HashMap<(u64, u64), Set>,
    log: Vec<Logged>,
    /// History of each relist, and the revisions before and after it.
    relists: Vec<(u64, u64, u64)>,
}

/// The cluster: what is there, and what happened that the watch has not told yet.
struct Upstream {
    rng: fastrand::Rng,
    revision: u64,
    uids: u64,
    set: Set,
    untold: Vec<(u64, Told)>,
}

enum Told {
    Upsert(Toy),
    Delete(Toy),
    Undecodable(Key),
}

impl Upstream {
    fn change(&mut self) {
        let at = self.rng.usize(..KEYS * NAMESPACES.len());
        let key = Key::new(
            NAMESPACES[at % NAMESPACES.len()],
            &format!("k{}", at / NAMESPACES.len()),
        );
        self.revision += 1;
        let told = match self.set.get(&key).cloned() {
            Some(old) if self.rng.u8(..4) == 0 => {
                self.set.remove(&key);
                Told::Delete(old)
            }
            Some(old) if self.rng.u8(..20) == 0 => {
                // What is held stays, but it is known to be out of date.
                self.set.insert(key.clone(), old.to_stale());
                Told::Undecodable(key)
            }
            old => {
                self.uids += 1;
                let uid = old.map_or_else(|| format!("u{}", self.uids), |old| old.uid);
                let new = Toy {
                    key: key.clone(),
                    uid,
                    version: self.revision.to_string(),
                    label: self.rng.u8(..2),
                    stale: false,
                };
                self.set.insert(key, new.clone());
                Told::Upsert(new)
            }
        };
        self.untold.push((self.revision, told));
    }
}

struct Consumer {
    name: usize,
    wants: Wants,
    cursor: Cursor<Toy>,
    held: Set,
    /// During a reset: what has come of it.
    incoming: Option<Set>,
    /// Where the last step left it.
    reached: Option<Position>,
    /// Where to resume, and what was held there: what came after it counts only with the next position.
    position: Option<(Position, Set)>,
    revision: u64,
    resets: HashMap<ResetReason, u64>,
}

struct World {
    seed: u64,
    rng: fastrand::Rng,
    now: Instant,
    upstream: Upstream,
    writer: Writer<Toy>,
    records: Records,
    consumers: Vec<Consumer>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let now = Instant::now();
        let limits = Limits {
            journal_bytes: rng.usize(300..4000),
            journal_age: Duration::from_secs(rng.u64(1..60)),
            tombstones: rng.usize(0..12),
            tombstone_age: Duration::from_secs(rng.u64(1..120)),
        };
        let mut world = Self {
            seed,
            upstream: Upstream {
                rng: rng.fork(),
                revision: 10,
                uids: 0,
                set: Set::new(),
                untold: Vec::new(),
            },
            rng,
            now,
            writer: Writer::new("", limits, now),
            records: Records::default(),
            consumers: Vec::new(),
        };
        assert!(
            world.writer.shard().state().is_none(),
            "nothing is served before the first list"
        );
        for _ in 0..20 {
            world.upstream.change();
        }
        world.relist(History::Same);
        for name in 0..6 {
            let consumer = world.consumer(name);
            world.consumers.push(consumer);
        }
        world
    }

    fn consumer(&mut self, name: usize) -> Consumer {
        let namespaces = match self.rng.u8(..3) {
            0 => Vec::new(),
            1 => vec!["a"],
            _ => vec!["a-b", "a"],
        };
        Consumer {
            name,
            wants: Wants {
                namespaces,
                label: self.rng.bool().then_some(1),
                label_only: self.rng.u8(..3) == 0,
                every: self.rng.u8(..3) == 0,
            },
            cursor: Cursor::start(ResetReason::Initial, self.now),
            held: Set::new(),
            incoming: None,
            reached: None,
            position: None,
            revision: 0,
            resets: HashMap::new(),
        }
    }

    /// The watch is cut and its events are lost; the list tells all.
    fn relist(&mut self, history: History) {
        self.upstream.untold.clear();
        let mut unreadable = Unreadable::default();
        let mut list = Vec::new();
        for item in self.upstream.set.values() {
            if item.stale {
                unreadable.keys.insert(item.key.clone());
            } else {
                list.push(Arc::new(item.clone()));
            }
        }
        // What was never readable here cannot be held either.
        let state = self.writer.shard().state();
        self.upstream.set.retain(|key, item| {
            !item.stale || state.as_ref().is_some_and(|state| state.get(key).is_some())
        });
        for (key, item) in &mut self.upstream.set {
            if let (true, Some(held)) =
                (item.stale, state.as_ref().and_then(|state| state.get(key)))
            {
                *item = held.to_stale();
            }
        }
        self.rng.shuffle(&mut list);
        let from = self.writer.revision();
        self.writer
            .replace(list, &unreadable, self.upstream.revision, history, self.now);
        let state = self.writer.shard().state().expect("it has been listed");
        if from < state.revision {
            let relist = (state.history, from, state.revision);
            self.records.relists.push(relist);
        }
        self.record();
    }

    fn tell_some(&mut self) {
        let count = self.rng.usize(..=self.upstream.untold.len());
        let state = self.writer.shard().state().expect("it has been listed");
        let history = state.history;
        let mut set: Set = items(&state);
        for (revision, told) in self.upstream.untold.drain(..count) {
            let applied = match &told {
                Told::Upsert(item) => self.writer.upsert(Arc::new(item.clone()), revision),
                Told::Delete(item) => {
                    self.writer
                        .delete(&item.key, Some(&item.uid), revision, Cause::Deleted)
                }
                Told::Undecodable(key) => self.writer.mark_stale(key, revision),
            };
            assert_ne!(applied, Applied::Stale);
            let (before, after) = match &told {
                Told::Upsert(item) => (
                    set.insert(item.key.clone(), item.clone()),
                    Some(item.clone()),
                ),
                Told::Delete(item) => (set.remove(&item.key), None),
                Told::Undecodable(key) => {
                    let before = set.get(key).cloned();
                    let after = before.as_ref().map(Toy::to_stale);
                    set.extend(after.iter().map(|item| (key.clone(), item.clone())));
                    (before, after)
                }
            };
            self.records.log.push(Logged {
                history,
                revision,
                before,
                after,
            });
            // A server that lags behind says it again.
            if let (Told::Upsert(item), 0) = (&told, self.rng.u8(..10)) {
                assert_eq!(
                    self.writer.upsert(Arc::new(item.clone()), revision),
                    Applied::Stale
                );
            }
        }
        if self.upstream.untold.is_empty() && self.rng.bool() {
            self.upstream.revision += 1;
            self.writer.advance(self.upstream.revision);
        }
        self.writer.publish(self.now);
        self.record();
    }

    fn record(&mut self) {
        let state = self.writer.shard().state().expect("it has been listed");
        assert!(
            self.writer.verify(),
            "seed {}: the digest is that of the state",
            self.seed
        );
        let set = items(&state);
        if self.upstream.untold.is_empty() {
            assert_eq!(
                set, self.upstream.set,
                "seed {}: the shard has what upstream has",
                self.seed
            );
        }
        let published = &mut self.records.published;
        check_journal(self.seed, &state, published, &set);
        published.insert((state.history, state.sequence), set);
    }

    fn step_consumer(&mut self, at: usize) {
        let state = self.writer.shard().state().expect("it has been listed");
        let budget = self.rng.usize(1..1000);
        let consumer = &mut self.consumers[at];
        let step = consumer
            .cursor
            .step(&state, &consumer.wants, budget, self.now);
        consumer.take(step, self.seed, &self.records);
    }

    fn cut_consumer(&mut self, at: usize) {
        let now = self.now;
        let consumer = &mut self.consumers[at];
        consumer.incoming = None;
        consumer.cursor = match &consumer.position {
            Some((position, set)) => {
                consumer.held = set.clone();
                consumer.reached = Some(*position);
                Cursor::resume(*position, now)
            }
            None => Cursor::start(ResetReason::Initial, now),
        };
        consumer.revision = 0;
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.now += Duration::from_millis(self.rng.u64(..2000));
            match self.rng.u8(..100) {
                0..40 => self.upstream.change(),
                40..60 => self.tell_some(),
                60..63 => self.relist(History::Same),
                63 => {
                    // An etcd restored to an earlier revision, with other contents.
                    let revision = self.rng.u64(1..=self.upstream.revision);
                    self.upstream.revision = revision;
                    let then = |item: &Toy| version_number(item) <= Some(revision);
                    self.upstream.set.retain(|_, item| then(item));
                    self.upstream.change();
                    self.relist(History::New);
                }
                64..67 => {
                    let at = self.rng.usize(..self.consumers.len());
                    self.cut_consumer(at);
                }
                67..69 => {
                    let at = self.rng.usize(..self.consumers.len());
                    self.consumers[at]
                        .cursor
                        .hold()
                        .expire(self.now, Duration::from_secs(5));
                }
                // Consumer 0 hardly ever reads.
                _ => {
                    let at = self.rng.usize(..self.consumers.len());
                    if at != 0 || self.rng.u8(..20) == 0 {
                        self.step_consumer(at);
                    }
                }
            }
        }
        // All is told and read: everybody has the same.
        while !self.upstream.untold.is_empty() {
            self.tell_some();
        }
        for at in 0..self.consumers.len() {
            for _ in 0..10_000 {
                self.step_consumer(at);
                let consumer = &self.consumers[at];
                let state = self.writer.shard().state().expect("it has been listed");
                if consumer.incoming.is_none()
                    && consumer
                        .position
                        .as_ref()
                        .is_some_and(|(position, _)| position.sequence == state.sequence)
                {
                    break;
                }
            }
            let consumer = &self.consumers[at];
            assert_eq!(
                consumer.wants.all_shown(&consumer.held),
                consumer
                    .wants
                    .all_shown(&consumer.wants.of(&self.upstream.set)),
                "seed {}, consumer {}: it converges",
                self.seed,
                consumer.name
            );
        }
    }
}

impl Consumer {
    fn take(&mut self, step: Step<Toy>, seed: u64, records: &Records) {
        let at = format!("seed {seed}, consumer {}", self.name);
        match step {
            Step::Idle => {}
            Step::Reset(reason) => {
                *self.resets.entry(reason).or_default() += 1;
                self.incoming = Some(Set::new());
                self.revision = 0;
            }
            Step::Items { revision, items } => {
                self.check_ordered(revision, &at);
                assert!(!items.is_empty(), "{at}");
                let incoming = self.incoming.as_mut().expect("items come in a reset");
                for item in items {
                    let double = incoming.insert(item.key.clone(), (*item).clone());
                    assert_eq!(double, None, "{at}: Unique");
                }
            }
            Step::ResetEnd(position) => {
                self.held = self.incoming.take().expect("a reset has a beginning");
                self.check_at(position, records, &at);
            }
            Step::Shared { state, from } => {
                assert!(self.wants.is_everything(), "{at}");
                let position = state.position();
                for segment in state.journal.after(from) {
                    for (index, entry) in segment.entries.iter().enumerate() {
                        if segment.first + index as u64 <= from {
                            continue;
                        }
                        self.check_ordered(entry.revision, &at);
                        match (&entry.before, &entry.after) {
                            (_, Some(item)) => self.check_upsert(item, true, &at),
                            (Some(item), None) => {
                                self.check_delete(&item.key, &item.uid, entry.cause, &at)
                            }
                            (None, None) => panic!("{at}: an empty entry"),
                        }
                    }
                }
                self.check_at(position, records, &at);
            }
            Step::Events { batch, position } => {
                if self.wants.every {
                    self.check_every(&batch, position, records, &at);
                }
                for event in batch.events {
                    self.check_ordered(event.revision, &at);
                    match event.what {
                        What::Upsert { item, entry } => {
                            if let Some(entry) = entry {
                                let entry = &batch.segments[entry.segment].entries[entry.index];
                                assert_eq!(
                                    entry.after.as_deref(),
                                    Some(&*item),
                                    "{at}: the entry is the event"
                                );
                                assert_eq!(entry.revision, event.revision, "{at}");
                            }
                            self.check_upsert(&item, entry.is_some(), &at);
                        }
                        What::Delete { key, uid, cause } => {
                            self.check_delete(&key, &uid, cause, &at)
                        }
                    }
                }
                if let Some(position) = position {
                    self.check_at(position, records, &at);
                }
            }
        }
    }

    /// Ordered: revisions never go back within an epoch.
    fn check_ordered(&mut self, revision: u64, at: &str) {
        assert!(
            revision >= self.revision,
            "{at}: Ordered: {revision} after {}",
            self.revision
        );
        self.revision = revision;
    }

    /// Unique, for upserts: what is held is not told again, nor anything older.
    fn check_upsert(&mut self, item: &Toy, journaled: bool, at: &str) {
        assert!(
            self.wants.in_scope(&item.key) && self.wants.matches(item),
            "{at}: in scope"
        );
        let old = self.held.insert(item.key.clone(), item.clone());
        if let Some(old) = old {
            assert_ne!(old, *item, "{at}: Unique");
            if journaled && old.uid == item.uid {
                assert!(
                    self.wants.differs(&old, item),
                    "{at}: only what can be seen"
                );
            }
            assert_eq!(
                old.uid, item.uid,
                "{at}: another uid is brought in by a DELETE / REPLACED"
            );
            assert!(
                version_number(&old) <= version_number(item),
                "{at}: time travel"
            );
        }
    }

    /// Unique, for deletes: only of what is held.
    fn check_delete(&mut self, key: &Key, uid: &str, cause: Cause, at: &str) {
        let old = self.held.remove(key);
        let old =
            old.unwrap_or_else(|| panic!("{at}: a DELETE ({cause:?}) of {key}, which is not held"));
        assert_eq!(old.uid, uid, "{at}");
    }

    /// Reliable, Atomic, Bookmarkable: at a position, exactly the set that was there is held.
    fn check_at(&mut self, position: Position, records: &Records, at: &str) {
        let set = records
            .published
            .get(&(position.history, position.sequence));
        let set =
            set.unwrap_or_else(|| panic!("{at}: {position:?} is not that of a published state"));
        assert_eq!(
            self.wants.all_shown(&self.held),
            self.wants.all_shown(&self.wants.of(set)),
            "{at}: Reliable at {position:?}"
        );
        self.reached = Some(position);
        self.position = Some((position, self.held.clone()));
    }

    /// Each change that can be seen since the last position, one by one, and no relist among them.
    fn check_every(
        &self,
        batch: &Batch<Toy>,
        position: Option<Position>,
        records: &Records,
        at: &str,
    ) {
        let from = self.reached.expect("there was a state before");
        let to = position.expect("every event is complete by itself");
        let between = |history: u64, revision: u64| {
            history == to.history && revision > from.revision && revision <= to.revision
        };
        let missed = records
            .relists
            .iter()
            .find(|(history, _, listed)| between(*history, *listed));
        assert_eq!(missed, None, "{at}: a relist hides changes");
        let expected: Vec<_> = records
            .log
            .iter()
            .filter(|change| between(change.history, change.revision))
            .map(|change| (change.revision, self.wants.told(change)))
            .filter(|(_, (went, came))| went.is_some() || came.is_some())
            .collect();
        let told: Vec<_> = batch
            .events
            .iter()
            .map(|event| match &event.what {
                What::Upsert { item, .. } => (event.revision, (None, Some((**item).clone()))),
                What::Delete { key, .. } => (event.revision, (Some(key.clone()), None)),
            })
            .collect();
        assert_eq!(told, expected, "{at}: every change from {from:?} to {to:?}");
    }
}

fn items(state: &State<Toy>) -> Set {
    let slots = state.objects.iter();
    slots
        .map(|(key, slot)| (key.clone(), (*slot.item).clone()))
        .collect()
}

/// Resumable: replaying the journal from any retained point gives the state.
fn check_journal(seed: u64, state: &State<Toy>, published: &HashMap<(u64, u64), Set>, now: &Set) {
    let journal = &state.journal;
    assert_eq!(
        journal
            .segments()
            .map(|segment| segment.entries.len())
            .sum::<usize>(),
        journal.len()
    );
    let Some(floor) = published.get(&(state.history, journal.floor)) else {
        // The floor is the state itself, which is recorded after this.
        assert!(journal.is_empty(), "seed {seed}");
        return;
    };
    let mut set = floor.clone();
    let mut sequence = journal.floor;
    let mut digest = journal.floor_digest;
    for segment in journal.segments() {
        assert_eq!(segment.first, sequence + 1, "seed {seed}: no gap");
        for entry in &segment.entries {
            sequence += 1;
            digest = entry.digest;
            let item = entry.item().expect("an entry is about an item");
            assert_eq!(
                set.get(&item.key),
                entry.before.as_deref(),
                "seed {seed}: before, at {sequence}"
            );
            match &entry.after {
                Some(after) => set.insert(item.key.clone(), (**after).clone()),
                None => set.remove(&item.key),
            };
        }
    }
    assert_eq!(
        (sequence, digest),
        (state.sequence, state.digest),
        "seed {seed}"
    );
    assert_eq!(&set, now, "seed {seed}");
}

#[test]
fn consumers_of_every_pace_and_scope_hold_what_upstream_has() {
    let mut reasons: HashMap<ResetReason, u64> = HashMap::new();
    for seed in 0..400 {
        let mut world = World::new(seed);
        world.run(1500);
        for consumer in world.consumers {
            for (reason, count) in consumer.resets {
                *reasons.entry(reason).or_default() += count;
            }
        }
    }
    for reason in [
        ResetReason::Initial,
        ResetReason::PastJournal,
        ResetReason::HistoryGap,
        ResetReason::HistoryVoid,
        ResetReason::Stalled,
    ] {
        assert!(
            reasons.contains_key(&reason),
            "the simulation reaches {reason:?}"
        );
    }
}

/// Two replicas see the same upstream; a position of one is asked of the other.
#[test]
fn a_position_of_another_replica_is_honoured_only_where_the_same_set_was_here() {
    let mut honoured = 0;
    for seed in 0..200 {
        let mut one = World::new(seed);
        let mut rng = fastrand::Rng::with_seed(!seed);
        let mut other: Writer<Toy> = Writer::new("", Limits::default(), one.now);
        let list = one.upstream.set.values().cloned().map(Arc::new).collect();
        other.replace(
            list,
            &Unreadable::default(),
            one.upstream.revision,
            History::Same,
            one.now,
        );
        let mut theirs: HashMap<u64, Set> = HashMap::new();
        for _ in 0..60 {
            one.upstream.change();
            let (revision, told) = one.upstream.untold.last().expect("it has just changed");
            match told {
                Told::Upsert(item) => other.upsert(Arc::new(item.clone()), *revision),
                Told::Delete(item) => {
                    other.delete(&item.key, Some(&item.uid), *revision, Cause::Deleted)
                }
                Told::Undecodable(key) => other.mark_stale(key, *revision),
            };
            if rng.u8(..3) == 0 {
                other.publish(one.now);
            }
            if rng.u8(..5) == 0 {
                one.tell_some();
            }
            if rng.u8(..20) == 0 {
                one.relist(History::Same);
            }
            other.publish(one.now);
            let state = other.shard().state().expect("it has been listed");
            theirs.insert(state.sequence, items(&state));
            let mine = one.writer.shard().state().expect("it has been listed");
            let position = mine.position();
            match state.resolve(&position) {
                Resolution::At(sequence) => {
                    honoured += 1;
                    let identity = |set: &Set| -> Vec<_> {
                        set.values()
                            .map(|item| (item.key.clone(), item.uid.clone(), item.version.clone()))
                            .collect()
                    };
                    let mine = &one.records.published[&(position.history, position.sequence)];
                    if let Some(theirs) = theirs.get(&sequence) {
                        assert_eq!(identity(theirs), identity(mine), "seed {seed}");
                    }
                }
                Resolution::Ahead => assert!(position.revision > state.revision, "seed {seed}"),
                Resolution::Past | Resolution::Differs => {}
            }
        }
    }
    assert!(honoured > 1000, "most positions are honoured: {honoured}");
}

#[test]
fn what_the_journal_has_forgotten_lives_on_with_no_cursor() {
    let now = Instant::now();
    let limits = Limits {
        journal_bytes: 2048,
        ..Limits::default()
    };
    let everything = Wants {
        namespaces: Vec::new(),
        label: None,
        label_only: false,
        every: false,
    };
    let toy = |name: &str, revision: u64| {
        Arc::new(Toy {
            key: Key::new("a", name),
            uid: "uid".to_owned(),
            version: revision.to_string(),
            label: 0,
            stale: false,
        })
    };
    let mut writer = Writer::new("", limits, now);
    let list = vec![toy("x", 1), toy("y", 1)];
    writer.replace(list, &Unreadable::default(), 1, History::Same, now);
    let current = |writer: &Writer<Toy>| writer.shard().state().expect("it is complete");
    let step = |cursor: &mut Cursor<Toy>, writer: &Writer<Toy>, budget| {
        cursor.step(&current(writer), &everything, budget, now)
    };

    // One is at the head, one in a state, one on its way through the change index.
    let mut at_head = Cursor::start(ResetReason::Initial, now);
    while !matches!(step(&mut at_head, &writer, 1), Step::ResetEnd(_)) {}
    let beginning = Position {
        sequence: 0,
        ..current(&writer).position()
    };
    let mut catching_up = Cursor::resume(beginning, now);
    writer.upsert(toy("x", 2), 2);
    writer.publish(now);
    assert!(matches!(
        step(&mut at_head, &writer, 1),
        Step::Shared { .. }
    ));
    let mut walking = Cursor::start(ResetReason::Initial, now);
    assert!(matches!(step(&mut walking, &writer, 1), Step::Reset(_)));
    assert!(matches!(
        step(&mut catching_up, &writer, 1),
        Step::Events { position: None, .. }
    ));
    let segment = {
        let state = current(&writer);
        Arc::downgrade(state.journal.segments().next().expect("one change"))
    };

    for revision in 3..100 {
        writer.upsert(toy("x", revision), revision);
        writer.publish(now);
    }
    assert!(segment.upgrade().is_none(), "the journal has turned");
    for cursor in [&mut at_head, &mut catching_up, &mut walking] {
        let mut steps = 0;
        while !matches!(step(cursor, &writer, 1), Step::Idle) {
            steps += 1;
        }
        assert!(steps > 0, "each goes on from where it was");
    }
}
