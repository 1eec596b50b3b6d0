//! Random histories of the model against the verdicts that a prober comes to, on a paused clock.
//!
//! Two things must hold in every one of them. No verdict SafeToDisrupt is Ready unless its window holds an instant at
//! which the model was safe. And a cluster that stays safe and can be asked is said to be so within two probe
//! intervals.
//!
//! `INFORMERD_HISTORIES=10000` runs as many, `INFORMERD_SEED=7` that one alone.

use std::{
    collections::BTreeSet,
    env,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use tokio::{
    runtime::Builder,
    time::{Instant, advance, sleep_until},
};

use super::{
    breaker::BreakerSettings,
    evidence::{Member, Survey},
    model::{Build, Manner, Model, Rules, Wire},
    probe::{ProbeSettings, Prober},
    verdict::{Expected, Judgement, State, judge},
};

/// In a debug build a history takes some milliseconds.
const HISTORIES: u64 = 700;
/// Besides those.
const FRESH: usize = 5;
const LENGTH: Duration = Duration::from_secs(90);
/// From here on nothing happens to the cluster any more, so that every history has a happy part.
const CALM: Duration = Duration::from_secs(50);
/// Longer than two rounds can take: what is the case in both was so in between.
const REVIEW: Duration = Duration::from_secs(4);

/// What a history leaves behind.
#[derive(Default)]
struct Tally {
    ready: u32,
    surveys: u32,
    promises: u32,
    reasons: BTreeSet<&'static str>,
}

/// A model, and who watches it.
struct Scene {
    model: Model,
    prober: Prober,
    interval: Duration,
    /// Whether a node could not be asked in time, in turns.
    hidden: Vec<(Instant, bool)>,
    bad_manners: BTreeSet<usize>,
    /// Whether this is the history of a [`relay`].
    relay: bool,
}

impl Scene {
    fn new(rng: &mut Rng) -> Self {
        let relay = rng.u32(0..3) == 0;
        let size = rng.usize(if relay { 2 } else { 1 }..=4);
        let interval = Duration::from_millis(rng.u64(2000..=5000));
        let rules = any_rules(rng);
        let model = Model::new(size, rules, rng.u64(..));
        let settings = ProbeSettings {
            timeout: Duration::from_millis(700),
            breaker: BreakerSettings {
                failures: rng.u32(1..4),
                pause: interval,
            },
        };
        let prober = Prober::new(Arc::new(Wire::new(&model)), settings, None);
        Self {
            model,
            prober,
            interval,
            hidden: vec![(Instant::now(), false)],
            bad_manners: BTreeSet::new(),
            relay,
        }
    }

    fn members(&self) -> Vec<Member> {
        let all = (0..8).filter_map(|node| self.model.member(node, Wire::address(node)));
        all.collect()
    }

    /// Judged by what is known of pods now, not when nodes were asked.
    fn judge(&self, survey: &Survey) -> Judgement {
        let members = self.members();
        let expected = Expected {
            size: u32::try_from(self.model.size()).expect("it is small"),
            members: &members,
            interval: self.interval,
        };
        judge(&expected, survey)
    }

    async fn survey(&mut self) -> Judgement {
        let members = self.members();
        let size = u32::try_from(self.model.size()).expect("it is small");
        let survey = self.prober.survey(size, &members).await;
        self.judge(&survey)
    }
}

/// How fast a cluster of a history is.
pub(crate) fn any_rules(rng: &mut Rng) -> Rules {
    Rules {
        build: [Build::V6, Build::V8, Build::V81][rng.usize(0..3)],
        load: Duration::from_millis(rng.u64(2500..4000)),
        notice: Duration::from_millis(rng.u64(300..2000)),
        spread: Duration::from_millis(rng.u64(1..600)),
        migration_rate: rng.u64(100..4000),
        review: REVIEW,
        ..Rules::default()
    }
}

/// Something happens to the cluster.
pub(crate) fn happen(model: &Model, bad_manners: &mut BTreeSet<usize>, rng: &mut Rng) {
    let size = model.size();
    let node = rng.usize(0..size.max(1));
    match rng.u32(0..16) {
        0 => model.stop(node),
        1 => model.start(node),
        2 | 3 => model.warm_restart(node),
        4 => model.replace(node),
        5 => model.split(&[node]),
        6 => model.heal(),
        7 => model.fill(node, rng.u64(80..100)),
        8 => model.fill(node, 10),
        9 => model.set_clock(node, rng.i64(-60_000..60_000)),
        10 => model.set_clock(node, 0),
        11 => model.quiesce(node, rng.bool()),
        12 => model.scale(rng.usize(1..=4)),
        13 => model.set_build(node, [Build::V6, Build::V8, Build::V81][rng.usize(0..3)]),
        _ => {
            let manner = match rng.u32(0..6) {
                0 => Manner::Mute,
                1 => Manner::Garbage,
                2 => Manner::Slow(Duration::from_secs(1)),
                3 => Manner::Prompt,
                _ => Manner::Slow(Duration::from_millis(rng.u64(1..600))),
            };
            model.set_manner(node, manner);
            let quick = matches!(manner, Manner::Prompt)
                || matches!(manner, Manner::Slow(delay) if delay < Duration::from_millis(700));
            if quick {
                bad_manners.remove(&node);
            } else {
                bad_manners.insert(node);
            }
        }
    }
}

/// Two nodes take turns at being full, and answer at different times: one that looks at each only once may find the
/// first before it falls ill and the second after it got well, though there is no instant at which both are well.
async fn relay(model: &Model, begun: Instant, rng: &mut Rng) {
    model.set_manner(0, Manner::Slow(Duration::from_millis(rng.u64(1..50))));
    model.set_manner(1, Manner::Slow(Duration::from_millis(rng.u64(300..600))));
    let mut at = begun + Duration::from_millis(rng.u64(8000..12_000));
    for turn in 0.. {
        if at >= begun + CALM {
            break;
        }
        sleep_until(at).await;
        model.fill(turn % 2, 99);
        model.fill((turn + 1) % 2, 10);
        at += REVIEW;
    }
}

/// All troubles are over.
pub(crate) fn calm(model: &Model) {
    model.heal();
    for node in 0..model.size() {
        model.start(node);
        model.fill(node, 10);
        model.set_clock(node, 0);
        model.quiesce(node, false);
        model.set_manner(node, Manner::Prompt);
    }
}

/// Spans in which the value was true, the last open-ended at `end`.
pub(crate) fn spans(turns: &[(Instant, bool)], end: Instant) -> Vec<(Instant, Instant)> {
    let ends = turns.iter().skip(1).map(|turn| turn.0).chain([end]);
    let spans = turns.iter().zip(ends).filter(|(turn, _)| turn.1);
    spans.map(|(turn, end)| (turn.0, end)).collect()
}

/// Whether it was so at some instant between the two.
pub(crate) fn holds_a_safe_instant(truth: &[(Instant, bool)], a: Instant, b: Instant) -> bool {
    let far = b + Duration::from_secs(1);
    let mut safe = spans(truth, far).into_iter();
    safe.any(|(from, until)| from <= b && until > a)
}

async fn history(seed: u64) -> Tally {
    let mut rng = Rng::with_seed(seed);
    let mut scene = Scene::new(&mut rng);
    let (begun, interval) = (Instant::now(), scene.interval);
    let end = begun + LENGTH;
    let mut tally = Tally::default();
    let mut promised = Vec::new();
    let mut said = Vec::new();

    let model = scene.model.clone();
    let mut trouble = rng.fork();
    let mut bad_manners = std::mem::take(&mut scene.bad_manners);
    let mut hidden = std::mem::take(&mut scene.hidden);
    let relayed = scene.relay;
    let events = async {
        if relayed {
            relay(&model, begun, &mut trouble).await;
        }
        let mut at = begun + Duration::from_millis(trouble.u64(0..8000));
        while !relayed && at < begun + CALM {
            sleep_until(at).await;
            happen(&model, &mut bad_manners, &mut trouble);
            hidden.push((Instant::now(), !bad_manners.is_empty()));
            at += Duration::from_millis(if trouble.bool() {
                trouble.u64(0..1500)
            } else {
                trouble.u64(0..12_000)
            });
        }
        sleep_until(begun + CALM).await;
        calm(&model);
        hidden.push((Instant::now(), false));
    };
    let watching = async {
        let mut tick = begun + Duration::from_millis(rng.u64(0..2000));
        while tick < end {
            sleep_until(tick).await;
            let judged = scene.survey().await;
            tally.surveys += 1;
            let verdict = judged.safe_to_disrupt;
            said.push((begun.elapsed(), verdict.message.clone()));
            tally.reasons.insert(verdict.reason.as_str());
            if verdict.state == State::Ready {
                let window = verdict
                    .window
                    .expect("a verdict that is ready has evidence");
                promised.push((Instant::now(), window));
                let expires = verdict.expires.expect("and expires");
                assert!(expires <= window.end.instant + 2 * interval);
                assert_eq!(verdict.at(expires).state, State::Unknown);
                assert_eq!(
                    judged.joined.state,
                    State::Ready,
                    "safe is more than joined"
                );
            }
            for node in &judged.nodes {
                let never_better =
                    node.safe_to_disrupt.state != State::Ready || verdict.state == State::Ready;
                assert!(never_better, "a node is never safer than its cluster");
            }
            tick = (tick + interval).max(Instant::now());
        }
    };
    tokio::join!(events, watching);

    let truth = model.truth();
    for (_, window) in &promised {
        assert!(
            holds_a_safe_instant(&truth, window.start.instant, window.end.instant),
            "safe at no instant of {window:?}; said: {said:#?}"
        );
        tally.ready += 1;
    }
    // Safe and not hidden, for two intervals at least: it must have been said by then.
    let seen: Vec<_> = hidden.iter().map(|(at, hidden)| (*at, !hidden)).collect();
    for (safe_from, safe_until) in spans(&truth, end) {
        for (seen_from, seen_until) in spans(&seen, end) {
            let from = safe_from.max(seen_from);
            let due = from + 2 * interval;
            if due < safe_until.min(seen_until) {
                let mut in_time = promised.iter().map(|(at, _)| *at);
                let told = in_time.any(|at| from <= at && at <= due);
                assert!(
                    told,
                    "safe from {:?} on, and not said by {:?}; said: {said:#?}",
                    from - begun,
                    due - begun
                );
                tally.promises += 1;
            }
        }
    }
    tally
}

/// Runs the first so many histories and a few that nobody has seen, each on a paused clock of its own, or what the
/// environment asks for. A failure names its seed.
pub(crate) fn histories<T: Send, F: Future<Output = T>>(
    usual: u64,
    history: impl Fn(u64) -> F + Sync,
) -> Vec<T> {
    let number = |name: &str| env::var(name).ok().map(|n| n.parse().expect("a number"));
    let fresh: Vec<u64> = std::iter::repeat_with(|| fastrand::u64(..))
        .take(FRESH)
        .collect();
    let seeds: Vec<u64> = match number("INFORMERD_SEED") {
        Some(seed) => vec![seed],
        None => {
            println!("fresh seeds: {fresh:?}");
            let first = 0..number("INFORMERD_HISTORIES").unwrap_or(usual);
            first.chain(fresh).collect()
        }
    };
    let begun = std::time::Instant::now();
    let done = &AtomicU64::new(0);
    let run = &|&seed: &u64| {
        let run = AssertUnwindSafe(|| alone(|| history(seed)));
        let tally = std::panic::catch_unwind(run)
            .unwrap_or_else(|_| panic!("INFORMERD_SEED={seed} fails, see above"));
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(50_000) {
            println!("{done} histories in {:.1?}", begun.elapsed());
        }
        tally
    };
    // As many as there are only where somebody asks for a soak: other tests run beside this one.
    let threads = match number("INFORMERD_HISTORIES") {
        Some(_) => std::thread::available_parallelism().map_or(1, usize::from),
        None => 1,
    };
    let all: Vec<T> = std::thread::scope(|scope| {
        let share = seeds.len().div_ceil(threads).max(1);
        let mut shares = seeds.chunks(share);
        let first = shares.next().unwrap_or_default();
        let others: Vec<_> = shares
            .map(|share| scope.spawn(move || share.iter().map(run).collect::<Vec<T>>()))
            .collect();
        let mut all: Vec<T> = first.iter().map(run).collect();
        for other in others {
            match other.join() {
                Ok(more) => all.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    println!("{} histories in {:.1?}", all.len(), begun.elapsed());
    all
}

/// Runs one history on a paused clock.
pub(crate) fn alone<T, F: Future<Output = T>>(history: impl FnOnce() -> F) -> T {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        advance(Duration::from_secs(1)).await;
        history().await
    })
}

#[test]
fn in_random_histories_no_verdict_is_false_and_none_is_late() {
    let tallies = histories(HISTORIES, history);
    let mut total = Tally::default();
    let count = tallies.len();
    for tally in tallies {
        total.ready += tally.ready;
        total.surveys += tally.surveys;
        total.promises += tally.promises;
        total.reasons.extend(tally.reasons);
    }
    let Tally {
        ready,
        surveys,
        promises,
        reasons,
    } = &total;
    println!("{surveys} surveys, {ready} ready, {promises} times due in time; {reasons:?}");
    assert!(
        *promises as usize > count / 2,
        "the histories must have safe spans"
    );
}
