//! What the board shows of what it is told, and when that ends.

use std::time::{Duration, Instant};

use super::*;
use crate::{
    cache::{Cause, Cursor, Event, KeyRange, Limits, Phase, ResetReason, Select, Step, What},
    heartbeat::Heartbeats,
    object::{Key, Labels},
    shutdown::Shutdown,
};

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn key(name: &str) -> Key {
    Key::new("default", name)
}

fn on_object(state: State, reason: &str) -> Answer {
    Answer::new(state, reason, "", Basis::Object(now()))
}

fn probed(state: State, reason: &str, expires: Duration) -> Answer {
    let window = Window {
        from: now(),
        to: now(),
    };
    let expires = now() + expires;
    Answer::new(state, reason, "", Basis::Probes { window, expires })
}

fn finding(uid: &str, version: &str, answer: Answer) -> Finding {
    Finding {
        resource: "pods".into(),
        uid: uid.into(),
        resource_version: version.into(),
        generation: None,
        observed_generation: None,
        labels: Labels::default(),
        answer,
        conditions: Vec::new(),
        parts: Parts::default(),
    }
}

/// A board of pods that is complete.
fn board() -> (Board, std::sync::Arc<Judged>) {
    let board = Board::new(["pods"], Limits::default());
    let pods = board.kind("pods").unwrap().clone();
    pods.expect([]);
    (board, pods)
}

fn shown(judged: &Judged, name: &str) -> (State, String) {
    let verdict = judged.get(&key(name)).unwrap();
    let answer = &verdict.standing.answer;
    (answer.state, answer.reason.to_string())
}

#[tokio::test(start_paused = true)]
async fn nothing_is_shown_before_all_that_was_there_is_judged() {
    let board = Board::new(["pods"], Limits::default());
    let pods = board.kind("pods").unwrap();
    pods.publish(
        &key("a"),
        finding("1", "1", on_object(State::Ready, "Ready")),
    );
    assert!(
        pods.shard().state().is_none(),
        "nobody has said what there is"
    );
    pods.expect(["a", "b", "c"].map(key));
    pods.publish(
        &key("b"),
        finding("2", "2", on_object(State::Ready, "Ready")),
    );
    assert!(pods.shard().state().is_none());
    pods.gone(&key("c"));
    let state = pods.shard().state().unwrap();
    assert_eq!(
        state.objects.keys().collect::<Vec<_>>(),
        [&key("a"), &key("b")]
    );
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_not_served_has_no_verdicts_until_all_there_is_of_it_is_judged() {
    let board = Board::new(["caches"], Limits::default());
    let caches = board.kind("caches").unwrap();
    let status = crate::cache::Status {
        phase: Phase::Waiting,
        reason: "NotServed".into(),
        message: "no CRD".into(),
        since: std::time::SystemTime::now(),
    };
    caches.expect_nothing_yet(&status);
    let shown = || caches.shard().state().map(|state| state.objects.len());
    assert_eq!(shown(), Some(0), "nobody has to wait for it");
    assert_eq!(caches.shard().status().reason, "NotServed");
    // Its CRD is installed.
    let ready = || on_object(State::Ready, "Ready");
    caches.publish(&key("a"), finding("1", "1", ready()));
    caches.expect(["a", "b"].map(key));
    assert_eq!(shown(), Some(0), "b is not judged yet");
    caches.publish(&key("b"), finding("2", "2", ready()));
    assert_eq!(shown(), Some(2));
    assert_eq!(caches.shard().status().phase, Phase::Live);
    caches.expect_nothing_yet(&status);
    assert_eq!(shown(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn since_is_kept_while_the_state_stays_and_the_object_too() {
    let (_, pods) = board();
    let since = || pods.get(&key("a")).unwrap().standing.since;
    let say = |uid: &str, version: &str, state, reason: &str| {
        pods.publish(&key("a"), finding(uid, version, on_object(state, reason)))
    };
    let start = now();
    assert!(say("1", "1", State::NotReady, "Pending"));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(say("1", "2", State::NotReady, "ContainerCreating"));
    assert_eq!(since(), start);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(say("1", "3", State::Ready, "Ready"));
    assert_eq!(since(), start + Duration::from_secs(2));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(say("2", "4", State::Ready, "Ready"));
    assert_eq!(since(), start + Duration::from_secs(3), "another object");
}

#[tokio::test(start_paused = true)]
async fn a_finding_that_says_nothing_new_is_not_published() {
    let (_, pods) = board();
    let say = |version: &str, reason: &str| {
        pods.publish(
            &key("a"),
            finding("1", version, on_object(State::Ready, reason)),
        )
    };
    assert!(say("1", "Ready"));
    tokio::time::advance(Duration::from_secs(1)).await;
    let before = pods.shard().state().unwrap().revision;
    assert!(!say("1", "Ready"));
    assert_eq!(pods.shard().state().unwrap().revision, before);
    assert!(say("2", "Ready"), "a wait for version 2 has to see it");
    assert!(say("2", "Better"));
    assert_eq!(pods.shard().state().unwrap().revision, before + 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_expires_to_unknown_by_itself_and_comes_back_when_renewed() {
    let (board, pods) = board();
    let shutdown = Shutdown::new();
    let beat = Heartbeats::default().register("board");
    let running = tokio::spawn(board.run(beat, shutdown.clone()));
    let say = |seconds| {
        let answer = probed(State::Ready, "Stable", Duration::from_secs(seconds));
        pods.publish(&key("a"), finding("1", "1", answer))
    };
    say(5);
    tokio::time::sleep(Duration::from_millis(4_999)).await;
    assert_eq!(shown(&pods, "a"), (State::Ready, "Stable".to_owned()));
    say(5);
    tokio::time::sleep(Duration::from_millis(4_999)).await;
    assert_eq!(shown(&pods, "a").0, State::Ready, "it was renewed");
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(shown(&pods, "a"), (State::Unknown, "Expired".to_owned()));
    say(1);
    assert_eq!(shown(&pods, "a").0, State::Ready);
    // One that expires sooner than what is waited for.
    pods.publish(
        &key("b"),
        finding(
            "2",
            "1",
            probed(State::Ready, "Stable", Duration::from_millis(100)),
        ),
    );
    tokio::time::sleep(Duration::from_millis(101)).await;
    assert_eq!(shown(&pods, "b").0, State::Unknown);
    assert_eq!(shown(&pods, "a").0, State::Ready);
    shutdown.cut();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn while_a_kind_is_out_of_date_what_rests_on_its_objects_is_unknown() {
    let (_, pods) = board();
    pods.publish(
        &key("a"),
        finding("1", "1", on_object(State::Ready, "Ready")),
    );
    let probe = probed(State::Ready, "Stable", Duration::from_secs(60));
    pods.publish(&key("b"), finding("2", "1", probe));
    pods.set_outdated(Some(("Stale", "pods were last heard of 3 min ago")));
    let verdict = pods.get(&key("a")).unwrap();
    assert_eq!(shown(&pods, "a"), (State::Unknown, "Stale".to_owned()));
    assert_eq!(
        &*verdict.standing.answer.message,
        "pods were last heard of 3 min ago; the last was ready (Ready)"
    );
    assert_eq!(shown(&pods, "b").0, State::Ready, "its evidence is its own");
    pods.publish(
        &key("c"),
        finding("3", "1", on_object(State::Ready, "Ready")),
    );
    assert_eq!(shown(&pods, "c").0, State::Unknown);
    pods.set_outdated(None);
    for name in ["a", "b", "c"] {
        assert_eq!(shown(&pods, name).0, State::Ready);
    }
}

#[tokio::test(start_paused = true)]
async fn contributions_are_shown_on_the_object_that_they_mean_and_no_other() {
    let (board, pods) = board();
    let joined = || {
        vec![(
            "Joined".into(),
            probed(State::Ready, "Joined", Duration::from_secs(5)),
        )]
    };
    let condition = || {
        let verdict = pods.get(&key("a"))?;
        verdict.condition("Joined").map(|one| one.answer.state)
    };
    assert!(!pods.contribute(
        &key("a"),
        "aerospike",
        Contribution::new("1", "1", joined())
    ));
    assert!(pods.get(&key("a")).is_none(), "nobody judges the pod yet");
    pods.publish(
        &key("a"),
        finding("1", "1", on_object(State::Ready, "Ready")),
    );
    assert_eq!(condition(), Some(State::Ready));
    let shutdown = Shutdown::new();
    tokio::spawn(board.run(Heartbeats::default().register("board"), shutdown));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(condition(), Some(State::Unknown));
    assert_eq!(
        shown(&pods, "a").0,
        State::Ready,
        "it answers another question"
    );
    pods.contribute(
        &key("a"),
        "aerospike",
        Contribution::new("1", "1", joined()),
    );
    assert_eq!(condition(), Some(State::Ready));
    pods.publish(
        &key("a"),
        finding("2", "2", on_object(State::Ready, "Ready")),
    );
    assert_eq!(condition(), None, "an impostor of the same name");
    pods.gone(&key("a"));
    pods.contribute(
        &key("a"),
        "aerospike",
        Contribution::new("1", "1", Vec::new()),
    );
    assert!(pods.hand_is_empty());
}

/// All of it.
struct Everything;

impl Select<Verdict> for Everything {
    fn ranges(&self) -> Vec<KeyRange> {
        vec![KeyRange::All]
    }

    fn in_scope(&self, _: &Key) -> bool {
        true
    }

    fn matches(&self, _: &Verdict) -> bool {
        true
    }

    fn is_filter(&self) -> bool {
        false
    }

    fn is_everything(&self) -> bool {
        false
    }
}

fn taken(cursor: &mut Cursor<Verdict>, judged: &Judged) -> Vec<String> {
    let mut all = Vec::new();
    let state = judged.shard().state().unwrap();
    loop {
        match cursor.step(&state, &Everything, usize::MAX, now()) {
            Step::Idle => return all,
            Step::Items { items, .. } => {
                all.extend(items.iter().map(|item| item.key.name().to_owned()));
            }
            Step::Events { batch, .. } => all.extend(batch.events.iter().map(said)),
            _ => {}
        }
    }
}

fn said(event: &Event<Verdict>) -> String {
    match &event.what {
        What::Upsert { item, .. } => {
            let answer = &item.standing.answer;
            format!("{} {}", item.key.name(), answer.state.as_str())
        }
        What::Delete { key, cause, .. } => {
            assert!(matches!(cause, Cause::Deleted | Cause::Replaced));
            format!("{} {cause:?}", key.name())
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_is_told_of_verdicts_as_of_objects() {
    let (_, pods) = board();
    let say = |name: &str, uid: &str, state| {
        pods.publish(&key(name), finding(uid, "1", on_object(state, "Because")))
    };
    say("a", "1", State::Ready);
    let mut cursor = Cursor::start(ResetReason::Initial, now());
    assert_eq!(taken(&mut cursor, &pods), ["a"]);
    say("b", "2", State::Ready);
    say("b", "2", State::NotReady);
    say("a", "3", State::Ready);
    assert_eq!(
        taken(&mut cursor, &pods),
        ["b not_ready", "a Replaced", "a ready"]
    );
    pods.gone(&key("b"));
    assert_eq!(taken(&mut cursor, &pods), ["b Deleted"]);
}

#[tokio::test(start_paused = true)]
async fn a_transition_is_dated_by_what_changed_last_of_states_labels_or_uid() {
    let (_, pods) = board();
    let transition = || {
        let verdict = pods.get(&key("a")).unwrap();
        verdict.transition == verdict.revision
    };
    pods.publish(
        &key("a"),
        finding("1", "1", on_object(State::Ready, "Ready")),
    );
    assert!(transition());
    pods.publish(
        &key("a"),
        finding("1", "2", on_object(State::Ready, "Ready")),
    );
    assert!(!transition(), "only the version is new");
    let labelled = Finding {
        labels: [("app", "web")].into_iter().collect(),
        ..finding("1", "2", on_object(State::Ready, "Ready"))
    };
    pods.publish(&key("a"), labelled.clone());
    assert!(transition(), "it may have come into a selector");
    let conditions = vec![("Joined".into(), on_object(State::Ready, "Joined"))];
    pods.publish(
        &key("a"),
        Finding {
            conditions,
            ..labelled
        },
    );
    assert!(transition());
}

#[test]
fn parts_name_those_that_are_not_ready_first_and_count_the_rest() {
    let part = |at: usize| Part {
        target: Target {
            resource: "pods".into(),
            key: key(&format!("p{at:04}")),
        },
        uid: Box::default(),
        state: if at == 150 {
            State::NotReady
        } else {
            State::Ready
        },
        reason: "".into(),
        message: "".into(),
    };
    let parts: Parts = (0..200).map(part).collect();
    assert_eq!(
        (parts.total, parts.ready, parts.named.len()),
        (200, 199, MAX_PARTS)
    );
    assert_eq!(parts.named[0].target.key, key("p0150"));
    assert_eq!(parts.named[1].target.key, key("p0000"));
}
