use super::*;
use crate::{
    client::{
        Error,
        fake::{delete, live, object, upsert},
    },
    proto::Event,
};
use proptest::prelude::*;
use std::time::Duration;

fn begin(namespaces: &[&str]) -> WatchEvent {
    WatchEvent::ResetBegin {
        reason: "PAST_JOURNAL".into(),
        message: String::new(),
        namespaces: namespaces.iter().map(|it| it.to_string()).collect(),
        freshness: live(),
    }
}

fn end(namespaces: &[&str], token: &'static str) -> WatchEvent {
    WatchEvent::ResetEnd {
        namespaces: namespaces.iter().map(|it| it.to_string()).collect(),
        token: Some(Bytes::from_static(token.as_bytes())),
        freshness: live(),
    }
}

fn told(event: Event) -> WatchEvent {
    WatchEvent::try_from(event).expect("a known type")
}

fn put(namespace: &str, name: &str, uid: &str, version: &str) -> WatchEvent {
    told(upsert(object(namespace, name, uid, version)))
}

fn cut() -> WatchEvent {
    WatchEvent::Reconnecting {
        error: Error::Incomplete("cut"),
        delay: Duration::ZERO,
    }
}

fn fold(mirror: &mut Mirror, events: &[WatchEvent]) -> Vec<Change> {
    events
        .iter()
        .flat_map(|event| mirror.apply(event))
        .collect()
}

fn names(mirror: &Mirror) -> Vec<&str> {
    mirror
        .objects()
        .keys()
        .map(|(_, name)| name.as_str())
        .collect()
}

#[test]
fn a_reset_shows_only_when_it_is_complete_and_sweeps_what_it_did_not_have() {
    let mut mirror = Mirror::new();
    fold(
        &mut mirror,
        &[begin(&[]), put("n", "a", "1", "1"), put("n", "b", "2", "2")],
    );
    assert!(mirror.objects().is_empty() && !mirror.is_complete());
    let changes = mirror.apply(&end(&[], "t1"));
    assert_eq!(changes.len(), 2);
    assert!(mirror.is_complete());
    assert_eq!(
        (names(&mirror), mirror.token().as_ref()),
        (vec!["a", "b"], &b"t1"[..])
    );

    fold(
        &mut mirror,
        &[begin(&[]), put("n", "b", "2", "9"), put("n", "c", "3", "3")],
    );
    assert_eq!(
        (names(&mirror), mirror.token().as_ref()),
        (vec!["a", "b"], &b"t1"[..])
    );
    let changes = mirror.apply(&end(&[], "t2"));
    assert_eq!(
        changes,
        [
            Change::Deleted(object("n", "a", "1", "1")),
            Change::Modified(object("n", "b", "2", "9")),
            Change::Added(object("n", "c", "3", "3")),
        ]
    );
    assert_eq!(
        (names(&mirror), mirror.token().as_ref()),
        (vec!["b", "c"], &b"t2"[..])
    );
}

#[test]
fn a_reset_that_is_cut_leaves_no_trace() {
    let mut mirror = Mirror::new();
    fold(
        &mut mirror,
        &[begin(&[]), put("n", "a", "1", "1"), end(&[], "t1")],
    );
    let before = mirror.digest();
    fold(&mut mirror, &[begin(&[]), put("n", "z", "9", "9"), cut()]);
    assert_eq!((mirror.digest(), names(&mirror)), (before, vec!["a"]));
    // What follows is live again, not part of the reset that was cut.
    fold(&mut mirror, &[put("n", "b", "2", "2")]);
    assert_eq!(names(&mirror), ["a", "b"]);
}

#[test]
fn a_reset_of_one_shard_leaves_the_others_alone_and_live() {
    let mut mirror = Mirror::new();
    fold(
        &mut mirror,
        &[
            begin(&[]),
            put("x", "a", "1", "1"),
            put("y", "b", "2", "2"),
            end(&[], "t"),
        ],
    );
    fold(
        &mut mirror,
        &[
            begin(&["x"]),
            put("y", "c", "3", "3"),
            put("x", "d", "4", "4"),
        ],
    );
    assert_eq!(names(&mirror), ["a", "b", "c"]);
    fold(
        &mut mirror,
        &[begin(&["y"]), put("y", "e", "5", "5"), end(&["x"], "t")],
    );
    assert_eq!(names(&mirror), ["d", "b", "c"]);
    fold(&mut mirror, &[end(&["y"], "t")]);
    assert_eq!(names(&mirror), ["d", "e"]);
}

#[test]
fn a_delete_of_another_uid_is_ignored() {
    let mut mirror = Mirror::new();
    fold(
        &mut mirror,
        &[begin(&[]), put("n", "a", "new", "5"), end(&[], "t")],
    );
    assert_eq!(fold(&mut mirror, &[told(delete("n", "a", "old", 3))]), []);
    assert_eq!(names(&mirror), ["a"]);
    let gone = fold(&mut mirror, &[told(delete("n", "a", "new", 6))]);
    assert_eq!(gone, [Change::Deleted(object("n", "a", "new", "5"))]);
}

#[test]
fn a_delete_within_a_reset_counts_in_the_reset() {
    let mut mirror = Mirror::new();
    let events = [
        begin(&[]),
        put("n", "a", "1", "1"),
        told(delete("n", "a", "1", 2)),
        end(&[], "t"),
    ];
    assert_eq!(fold(&mut mirror, &events), []);
    assert!(mirror.objects().is_empty());
}

#[test]
fn a_swap_of_the_uid_is_a_deletion_and_an_addition() {
    let mut mirror = Mirror::new();
    fold(
        &mut mirror,
        &[begin(&[]), put("n", "a", "old", "1"), end(&[], "t")],
    );
    let changes = fold(&mut mirror, &[put("n", "a", "new", "2")]);
    assert_eq!(
        changes,
        [
            Change::Deleted(object("n", "a", "old", "1")),
            Change::Added(object("n", "a", "new", "2"))
        ]
    );
}

#[test]
fn the_digest_is_the_documented_one() {
    let mut mirror = Mirror::new();
    assert_eq!(mirror.digest(), 0);
    let uid = "5f0c7a52-6d0e-4f6c-9a53-0e6b2f4f5a11";
    let node = "c0ffee00-0000-4000-8000-000000000001";
    fold(
        &mut mirror,
        &[
            begin(&[]),
            put("default", "web-0", uid, "1001"),
            put("", "node-1", node, "42"),
            end(&[], "t"),
        ],
    );
    let (web, node) = (0x0cea_a417_c962_db06_u64, 0x1fde_0935_5924_6cde);
    assert_eq!(mirror.digest(), web.wrapping_add(node));
    assert_eq!(mirror.digest_of_namespace("default"), web);
}

/// What happens to a few objects, as a server would tell it: versions rise, a delete names the uid that lives.
fn history() -> impl Strategy<Value = Vec<WatchEvent>> {
    prop::collection::vec((0..3usize, any::<bool>()), 0..40).prop_map(|steps| {
        let mut alive: [Option<u32>; 3] = [None; 3];
        let mut events = Vec::new();
        for (at, (object, remove)) in steps.into_iter().enumerate() {
            let (name, at) = (format!("o{object}"), at as u32);
            match alive[object] {
                Some(uid) if remove => {
                    events.push(told(delete("n", &name, &uid.to_string(), at.into())));
                    alive[object] = None;
                }
                held => {
                    let uid = held.unwrap_or(at);
                    events.push(put("n", &name, &uid.to_string(), &at.to_string()));
                    alive[object] = Some(uid);
                }
            }
        }
        events
    })
}

proptest! {
    /// A cut repeats what came after the last token.
    #[test]
    fn repeating_the_tail_of_a_history_changes_nothing(events in history(), from in 0.0..1.0f64) {
        let mut once = Mirror::new();
        fold(&mut once, &events);
        let mut twice = once.clone();
        let from = (events.len() as f64 * from) as usize;
        twice.apply(&cut());
        fold(&mut twice, &events[from..]);
        prop_assert_eq!(once.objects(), twice.objects());
        prop_assert_eq!(once.digest(), twice.digest());
    }

    /// Whoever applies the changes that `apply` tells holds the same objects.
    #[test]
    fn the_changes_told_are_the_changes_made(events in history(), reset in history()) {
        let mut mirror = Mirror::new();
        let mut held = Objects::new();
        let all = events.into_iter().chain([begin(&[])]).chain(reset).chain([end(&[], "t")]);
        for event in all {
            for change in mirror.apply(&event) {
                let key = |it: &Object| (it.namespace.clone(), it.name.clone());
                match change {
                    Change::Added(it) => prop_assert_eq!(held.insert(key(&it), it), None),
                    Change::Modified(it) => prop_assert!(held.insert(key(&it), it).is_some()),
                    Change::Deleted(it) => prop_assert_eq!(held.remove(&key(&it)), Some(it)),
                }
            }
            prop_assert_eq!(&held, mirror.objects());
        }
    }
}
