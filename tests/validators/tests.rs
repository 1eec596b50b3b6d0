//! Each validator told a stream that breaks its guarantee, and one that does not.

use std::time::Instant;

use bytes::Bytes;
use informerd::proto::{
    DeleteCause, Event, EventType, Freshness, Mark, MarkType, Scope, ShardPosition,
    WatchObjectsRequest,
};

use super::{
    Entry, Recording, Reference, What, atomic, bookmarkable, check_all, complete, ordered,
    reliable, reliable_in, resumable, unique,
};
use crate::cluster::Seen;

fn upsert(name: &str, uid: &str, version: u64) -> What {
    What::Event(Event {
        r#type: EventType::Upsert.into(),
        revision: version,
        namespace: "n".into(),
        name: name.into(),
        uid: uid.into(),
        resource_version: version.to_string(),
        ..Event::default()
    })
}

/// One of a state or a relist.
fn listed(name: &str, uid: &str, version: u64, revision: u64) -> What {
    match upsert(name, uid, version) {
        What::Event(event) => What::Event(Event { revision, ..event }),
        other => other,
    }
}

fn delete(name: &str, uid: &str, revision: u64, cause: DeleteCause) -> What {
    What::Event(Event {
        r#type: EventType::Delete.into(),
        revision,
        namespace: "n".into(),
        name: name.into(),
        uid: uid.into(),
        cause: cause.into(),
        ..Event::default()
    })
}

fn freshness(revision: u64) -> Option<Freshness> {
    let position = ShardPosition {
        revision,
        ..ShardPosition::default()
    };
    Some(Freshness {
        positions: vec![position],
        ..Freshness::default()
    })
}

/// A mark whose token is its revision.
fn mark(of: MarkType, revision: u64) -> What {
    What::Mark(Mark {
        r#type: of.into(),
        token: revision.to_string().into(),
        freshness: freshness(revision),
        ..Mark::default()
    })
}

fn progress(revision: u64) -> What {
    mark(MarkType::Progress, revision)
}

fn reset(reason: &str) -> What {
    What::Mark(Mark {
        r#type: MarkType::Reset.into(),
        reason: reason.into(),
        ..Mark::default()
    })
}

fn opened(token: &str) -> What {
    What::Opened(Bytes::copy_from_slice(token.as_bytes()))
}

fn closed() -> What {
    What::Closed("cut".into())
}

fn recording(what: impl IntoIterator<Item = What>) -> Recording {
    let entry = |what| Entry {
        at: Instant::now(),
        what,
    };
    Recording {
        request: WatchObjectsRequest::default(),
        entries: what.into_iter().map(entry).collect(),
    }
}

/// A stream that began with object `a` at revision 10, and then went so.
fn then(what: impl IntoIterator<Item = What>) -> Recording {
    let begin = [
        opened(""),
        reset("INITIAL"),
        listed("a", "u1", 5, 10),
        mark(MarkType::ResetEnd, 10),
    ];
    recording(begin.into_iter().chain(what))
}

fn seen(event: &'static str, name: &str, uid: &str, version: u64) -> Seen {
    Seen {
        event,
        key: format!("n/{name}"),
        uid: uid.into(),
        resource_version: version.to_string(),
        labels: Default::default(),
    }
}

fn reference() -> Reference {
    let seen = [
        seen("ADDED", "a", "u1", 5),
        seen("ADDED", "b", "u2", 11),
        seen("MODIFIED", "a", "u1", 12),
        seen("DELETED", "b", "u2", 13),
        seen("ADDED", "b", "u3", 14),
    ];
    Reference::new(&seen, |_| true)
}

/// All of the reference, cut in the middle of something and resumed.
fn good() -> Recording {
    then([
        upsert("b", "u2", 11),
        progress(11),
        upsert("a", "u1", 12),
        closed(),
        opened("11"),
        upsert("a", "u1", 12),
        progress(12),
        mark(MarkType::Bookmark, 12),
        delete("b", "u2", 13, DeleteCause::Deleted),
        upsert("b", "u3", 14),
        progress(14),
        mark(MarkType::End, 20),
        closed(),
    ])
}

#[track_caller]
fn broken(guarantee: &str, outcome: Result<(), String>) {
    let why = outcome.expect_err("the recording is broken");
    assert!(why.starts_with(guarantee), "{why}");
}

#[test]
fn a_stream_that_keeps_all_guarantees_passes() {
    check_all(&good(), &reference(), &[]).unwrap();
    // All of it but the state, and the event of the call that was cut.
    assert_eq!(complete(&good(), &reference()), Ok(4));
    let (positions, objects) = good().last_state().unwrap();
    assert_eq!(positions[""], 20);
    assert_eq!(objects["n/a"].resource_version, "12");
    assert_eq!(objects["n/b"].uid, "u3");
    assert_eq!(good().reached(), 20);
}

#[test]
fn a_fold_and_a_relist_and_a_reset_that_was_expected_pass() {
    let folded = then([
        upsert("a", "u1", 12),
        upsert("b", "u3", 14),
        progress(14),
        closed(),
    ]);
    check_all(&folded, &reference(), &[]).unwrap();
    complete(&folded, &reference()).unwrap_err();
    let relisted = then([
        upsert("b", "u2", 11),
        progress(11),
        listed("a", "u1", 12, 14),
        delete("b", "u2", 14, DeleteCause::Replaced),
        upsert("b", "u3", 14),
        progress(14),
    ]);
    check_all(&relisted, &reference(), &[]).unwrap();
    let again = then([
        closed(),
        opened("10"),
        reset("PAST_JOURNAL"),
        listed("a", "u1", 12, 14),
        closed(),
        opened("10"),
        reset("PAST_JOURNAL"),
        listed("a", "u1", 12, 14),
        listed("b", "u3", 14, 14),
        mark(MarkType::ResetEnd, 14),
    ]);
    check_all(&again, &reference(), &["PAST_JOURNAL"]).unwrap();
    broken("Resumable", check_all(&again, &reference(), &[]));
}

#[test]
fn ordered_finds_events_that_go_back() {
    broken(
        "Ordered",
        ordered(&then([
            upsert("a", "u1", 12),
            upsert("b", "u2", 11),
            progress(12),
        ])),
    );
    // In the order of revisions, but back in time for the object; also across a cut.
    broken(
        "Ordered",
        ordered(&then([
            upsert("a", "u1", 12),
            progress(12),
            closed(),
            opened("12"),
            listed("a", "u1", 11, 13),
            progress(13),
        ])),
    );
    broken(
        "Ordered",
        ordered(&recording([
            opened(""),
            reset("INITIAL"),
            listed("a", "u1", 5, 10),
            listed("b", "u2", 6, 11),
            mark(MarkType::ResetEnd, 11),
        ])),
    );
    broken(
        "Ordered",
        ordered(&then([listed("a", "u1", 99, 12), progress(12)])),
    );
}

#[test]
fn unique_finds_what_comes_twice_within_a_call_and_across_calls() {
    broken(
        "Unique",
        unique(&then([
            upsert("a", "u1", 12),
            upsert("a", "u1", 12),
            progress(12),
        ])),
    );
    broken(
        "Unique",
        unique(&then([
            upsert("a", "u1", 12),
            progress(12),
            closed(),
            opened("12"),
            upsert("a", "u1", 12),
        ])),
    );
    broken(
        "Unique",
        unique(&recording([
            opened(""),
            reset("INITIAL"),
            listed("a", "u1", 5, 10),
            listed("a", "u2", 6, 10),
            mark(MarkType::ResetEnd, 10),
        ])),
    );
}

#[test]
fn reliable_finds_what_was_skipped_and_what_was_invented() {
    // Without b.
    broken(
        "Reliable",
        reliable(&then([upsert("a", "u1", 12), progress(12)]), &reference()),
    );
    // A delete that never comes.
    broken(
        "Reliable",
        reliable(
            &then([upsert("b", "u2", 11), upsert("a", "u1", 12), progress(13)]),
            &reference(),
        ),
    );
    broken(
        "Reliable",
        reliable(&then([upsert("c", "u9", 11)]), &reference()),
    );
    broken(
        "Reliable",
        reliable(
            &then([delete("a", "u9", 11, DeleteCause::Deleted)]),
            &reference(),
        ),
    );
    // Out of order, though the end is right.
    let there_and_back = [
        seen("ADDED", "a", "u1", 5),
        seen("MODIFIED", "a", "u1", 11),
        seen("MODIFIED", "a", "u1", 12),
    ];
    let there_and_back = Reference::new(&there_and_back, |_| true);
    let shuffled = then([
        upsert("a", "u1", 12),
        upsert("a", "u1", 11),
        upsert("a", "u1", 12),
    ]);
    broken("Reliable", reliable(&shuffled, &there_and_back));
    // An object that does not belong to the scope of the stream.
    let selected = Reference {
        interest: |seen| seen.key == "n/a",
        ..reference()
    };
    broken(
        "Reliable",
        reliable(&then([upsert("b", "u2", 11), progress(11)]), &selected),
    );
}

#[test]
fn what_could_not_be_read_is_not_compared_and_of_a_restore_there_are_two_truths() {
    let old = || then([upsert("a", "u1", 12), progress(12), progress(13)]);
    reliable(&old(), &reference()).unwrap_err();
    let unreadable = vec![("n/b".to_owned(), 11, 14)];
    reliable(&old(), &reference().with_unreadable(unreadable)).unwrap();

    let restored = [seen("ADDED", "a", "u1", 5), seen("ADDED", "c", "u9", 11)];
    let restored = Reference::new(&restored, |_| true);
    let stream = then([
        upsert("b", "u2", 11),
        progress(11),
        reset("HISTORY_VOID"),
        listed("a", "u1", 5, 11),
        listed("c", "u9", 11, 11),
        mark(MarkType::ResetEnd, 11),
    ]);
    broken("Reliable", reliable(&stream, &restored));
    reliable_in(&stream, &[restored.clone(), reference()]).unwrap();
    // Half of one and half of the other is neither.
    let mixed = then([upsert("b", "u2", 11), upsert("c", "u9", 11), progress(11)]);
    broken("Reliable", reliable_in(&mixed, &[restored, reference()]));
}

#[test]
fn complete_finds_a_change_that_was_folded_away() {
    let stream = then([
        upsert("b", "u2", 11),
        upsert("a", "u1", 12),
        upsert("b", "u3", 14),
        progress(14),
    ]);
    reliable(&stream, &reference()).unwrap();
    complete(&stream, &reference()).unwrap_err();
}

#[test]
fn atomic_finds_tokens_within_what_belongs_together() {
    broken(
        "Atomic",
        atomic(&recording([
            opened(""),
            reset("INITIAL"),
            listed("a", "u1", 5, 10),
            progress(10),
            mark(MarkType::ResetEnd, 10),
        ])),
    );
    // A relist's difference, all of one revision.
    broken(
        "Atomic",
        atomic(&then([
            listed("a", "u1", 12, 14),
            progress(14),
            listed("b", "u2", 13, 14),
            progress(14),
        ])),
    );
    broken(
        "Atomic",
        atomic(&then([
            delete("a", "u1", 14, DeleteCause::Replaced),
            progress(14),
        ])),
    );
    // With a selector, what takes its place may be out of scope.
    let scope = Scope {
        label_selector: "app=web".into(),
        ..Scope::default()
    };
    let mut filtered = then([delete("a", "u1", 14, DeleteCause::Replaced), progress(14)]);
    filtered.request.scope = Some(scope);
    atomic(&filtered).unwrap();
    // A kind that goes leaves at the revision that was reached.
    let gone = [
        upsert("a", "u1", 12),
        progress(12),
        delete("a", "u1", 12, DeleteCause::Vanished),
        progress(12),
    ];
    atomic(&then(gone.clone())).unwrap();
    bookmarkable(&then(gone)).unwrap();
}

#[test]
fn resumable_finds_streams_that_begin_anew_or_go_back() {
    broken(
        "Resumable",
        resumable(
            &then([
                closed(),
                opened("10"),
                reset("HISTORY_DIFFERS"),
                mark(MarkType::ResetEnd, 10),
            ]),
            &["PAST_JOURNAL"],
        ),
    );
    broken(
        "Resumable",
        resumable(
            &then([closed(), opened("10"), mark(MarkType::Bookmark, 9)]),
            &[],
        ),
    );
    broken(
        "Resumable",
        resumable(&then([progress(12), closed(), opened("10")]), &[]),
    );
}

#[test]
fn bookmarkable_finds_a_token_that_overtook_an_event() {
    broken(
        "Bookmarkable",
        bookmarkable(&then([
            mark(MarkType::Bookmark, 12),
            upsert("b", "u2", 11),
            progress(12),
        ])),
    );
    broken(
        "Bookmarkable",
        bookmarkable(&then([
            mark(MarkType::Bookmark, 12),
            closed(),
            opened("12"),
            upsert("b", "u2", 11),
        ])),
    );
    broken(
        "Bookmarkable",
        bookmarkable(&then([upsert("b", "u2", 11), progress(10)])),
    );
}
