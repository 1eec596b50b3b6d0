//! A seeded simulation of one shard with its consumers, against a model: a map with revisions. It looks into the
//! cache from nearby, at each step of a cursor; `crate::lab` looks at the whole from the outside.
//!
//! Limits are tiny, so that journals turn, tombstones are forgotten and consumers fall behind all the time.
//!
//! `INFORMERD_HISTORIES=10000` runs as many, `INFORMERD_SEED=7` that one alone.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use super::*;
use crate::aerospike::simulation::histories;

mod consumer;
mod toy;
mod upstream;

use consumer::{Consumer, check_journal, items};
use toy::{Toy, Wants};
use upstream::{Logged, Records, Told, Upstream};

/// What is there.
type Set = BTreeMap<Key, Toy>;

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
        // What was never readable here cannot be held either, nor what was in another history only.
        let state = self.writer.shard().state();
        let state = state.filter(|_| history == History::Same);
        let held = |key: &Key| state.as_ref().and_then(|state| state.get(key).cloned());
        self.upstream.set = std::mem::take(&mut self.upstream.set)
            .into_iter()
            .filter_map(|(key, item)| match item.stale {
                true => held(&key).map(|held| (key, held.to_stale())),
                false => Some((key, item)),
            })
            .collect();
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

#[test]
fn consumers_of_every_pace_and_scope_hold_what_upstream_has() {
    let mut reasons: HashMap<ResetReason, u64> = HashMap::new();
    let resets = histories(400, |seed| async move {
        let mut world = World::new(seed);
        world.run(1500);
        let resets = world.consumers.into_iter();
        resets
            .flat_map(|consumer| consumer.resets)
            .collect::<Vec<_>>()
    });
    let alone = resets.len() == 1;
    for (reason, count) in resets.into_iter().flatten() {
        *reasons.entry(reason).or_default() += count;
    }
    for reason in [
        ResetReason::Initial,
        ResetReason::PastJournal,
        ResetReason::HistoryGap,
        ResetReason::HistoryVoid,
        ResetReason::Stalled,
    ] {
        assert!(
            alone || reasons.contains_key(&reason),
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
