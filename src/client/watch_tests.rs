use super::*;
use crate::{
    client::{
        Mirror,
        fake::{delete, events, live, mark, object, shard_mark, upsert},
    },
    proto::KindState,
};
use MarkType::{Bookmark, End, Progress, Reset, ResetEnd, State as StateMark};
use futures::{FutureExt, stream};
use std::sync::{Arc, Mutex};
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

/// What each call gives: `Err` if it cannot be opened; otherwise messages after which it hangs, unless one is
/// an error or `Closed` says that it ends.
struct Call {
    opens: Result<(), Status>,
    messages: Vec<(Duration, Result<WatchObjectsResponse, Status>)>,
    closes: bool,
}

fn call(messages: impl IntoIterator<Item = WatchObjectsResponse>) -> Call {
    let messages = messages
        .into_iter()
        .map(|it| (Duration::ZERO, Ok(it)))
        .collect();
    Call {
        opens: Ok(()),
        messages,
        closes: false,
    }
}

fn refused(status: Status) -> Call {
    Call {
        opens: Err(status),
        messages: Vec::new(),
        closes: false,
    }
}

impl Call {
    fn fails(mut self, status: Status) -> Self {
        self.messages.push((Duration::ZERO, Err(status)));
        self
    }

    fn closes(mut self) -> Self {
        self.closes = true;
        self
    }

    /// Before each of its messages.
    fn pausing(mut self, pause: Duration) -> Self {
        self.messages
            .iter_mut()
            .for_each(|(before, _)| *before = pause);
        self
    }
}

/// When each call was made, with which token, and whether by a new connection.
type Asked = Arc<Mutex<Vec<(Instant, String, bool)>>>;

/// A watch over scripted calls. The script's last call is repeated.
fn watch(calls: impl IntoIterator<Item = Call>) -> (Watch, Asked) {
    watch_of(WatchObjectsRequest::default(), calls)
}

fn watch_of(request: WatchObjectsRequest, calls: impl IntoIterator<Item = Call>) -> (Watch, Asked) {
    let asked = Asked::default();
    let noted = asked.clone();
    let mut calls: VecDeque<Call> = calls.into_iter().collect();
    let open = move |request: WatchObjectsRequest, stuck: bool| {
        let token = String::from_utf8_lossy(&request.token).into_owned();
        noted.lock().unwrap().push((Instant::now(), token, stuck));
        let Some(call) = calls.pop_front() else {
            return futures::future::pending().boxed();
        };
        let told = |status: Status| Error::from_status("informerd:7443", &status);
        async move {
            call.opens.map_err(told)?;
            let messages = stream::iter(call.messages).then(move |(pause, message)| async move {
                tokio::time::sleep(pause).await;
                message.map_err(told)
            });
            Ok(if call.closes {
                messages.boxed()
            } else {
                messages.chain(stream::pending()).boxed()
            })
        }
        .boxed()
    };
    (Watch::new(request, Box::new(open)), asked)
}

/// Gives events until the one with which the watch waits for its next try.
async fn until_cut(watch: &mut Watch, mirror: &mut Mirror) -> (Error, Duration) {
    while let Some(event) = watch.next().await {
        let event = event.expect("not for good");
        mirror.apply(&event);
        if let WatchEvent::Reconnecting { error, delay } = event {
            return (error, delay);
        }
    }
    panic!("the watch is over");
}

/// Gives events until a mark has moved the token to this.
async fn until_token(watch: &mut Watch, mirror: &mut Mirror, token: &str) {
    let until = Instant::now() + Duration::from_secs(3600);
    while mirror.token() != token {
        let event = watch.next().await.expect("goes on").expect("not for good");
        mirror.apply(&event);
        assert!(Instant::now() < until, "no mark moves the token to {token}");
    }
    assert_eq!(watch.token(), token);
}

fn tokens(asked: &Asked) -> Vec<String> {
    asked
        .lock()
        .unwrap()
        .iter()
        .map(|(_, token, _)| token.clone())
        .collect()
}

fn initial(token: &str) -> Vec<WatchObjectsResponse> {
    vec![
        mark(Reset, ""),
        events([
            upsert(object("n", "a", "1", "1")),
            upsert(object("n", "b", "2", "2")),
        ]),
        mark(ResetEnd, token),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_resumed_from_the_last_mark() {
    let mut first = initial("t2");
    first.extend([
        events([upsert(object("n", "a", "1", "3"))]),
        mark(Progress, "t3"),
        events([upsert(object("n", "b", "2", "4"))]),
    ]);
    let second = [
        events([upsert(object("n", "b", "2", "4")), delete("n", "a", "1", 5)]),
        mark(Progress, "t5"),
    ];
    let (mut watch, asked) = watch([call(first).fails(Status::unavailable("gone")), call(second)]);
    let mut mirror = Mirror::new();
    let (error, delay) = until_cut(&mut watch, &mut mirror).await;
    assert_eq!(error.to_string(), "gone");
    assert!(delay <= Backoff::FIRST);
    until_token(&mut watch, &mut mirror, "t5").await;
    assert_eq!(tokens(&asked), ["", "t3"]);
    assert_eq!(mirror.objects().len(), 1);
    assert_eq!(mirror.get("n", "b").expect("is held").resource_version, "4");
}

#[tokio::test(start_paused = true)]
async fn a_cut_within_a_reset_keeps_the_old_state_and_the_old_token() {
    let first = call(initial("t2")).closes();
    // A mark within the reset does not count, even if it has a token.
    let second = call([
        mark(Reset, ""),
        events([upsert(object("n", "z", "9", "9"))]),
        mark(StateMark, "t8"),
    ])
    .closes();
    let third = call([
        mark(Reset, ""),
        events([upsert(object("n", "c", "3", "9"))]),
        mark(ResetEnd, "t9"),
    ]);
    let (mut watch, asked) = watch([first, second, third]);
    let mut mirror = Mirror::new();
    until_cut(&mut watch, &mut mirror).await;
    let before = mirror.digest();
    until_cut(&mut watch, &mut mirror).await;
    assert_eq!(
        (mirror.digest(), mirror.token().as_ref()),
        (before, &b"t2"[..])
    );
    until_token(&mut watch, &mut mirror, "t9").await;
    assert_eq!(tokens(&asked), ["", "t2", "t2"]);
    assert_eq!(mirror.objects().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reset_that_was_cut_holds_up_no_later_token() {
    let first = call([
        mark(Reset, ""),
        events([upsert(object("n", "z", "9", "9"))]),
    ])
    .closes();
    let (mut watch, asked) = watch([first, call([mark(Progress, "t3")])]);
    until_token(&mut watch, &mut Mirror::new(), "t3").await;
    assert_eq!(tokens(&asked), ["", ""]);
}

#[tokio::test(start_paused = true)]
async fn a_token_counts_only_when_no_shard_is_within_its_reset() {
    let messages = [
        shard_mark(Reset, "", "x"),
        shard_mark(Reset, "", "y"),
        shard_mark(ResetEnd, "half", "x"),
        shard_mark(ResetEnd, "whole", "y"),
    ];
    let (mut watch, asked) = watch([call(messages).closes()]);
    let mut seen = Vec::new();
    while let Some(Ok(event)) = watch.next().await {
        match event {
            WatchEvent::ResetEnd { token, .. } => seen.push(token),
            WatchEvent::Reconnecting { .. } => break,
            _ => {}
        }
    }
    assert_eq!(seen, [None, Some(Bytes::from_static(b"whole"))]);
    watch.next().now_or_never();
    tokio::time::sleep(Duration::from_secs(1)).await;
    watch.next().now_or_never();
    assert_eq!(tokens(&asked), ["", "whole"]);
}

#[tokio::test(start_paused = true)]
async fn an_end_mark_moves_the_token_and_says_when_to_come_back() {
    let mut end = mark(End, "t7");
    let it = end.mark.as_mut().expect("a mark");
    it.reason = "DRAINING".into();
    it.message = "the daemon is shutting down".into();
    it.retry_after = Some(prost_types::Duration {
        seconds: 5,
        nanos: 0,
    });
    let mut first = initial("t2");
    first.push(end);
    let (mut watch, asked) = watch([call(first).fails(Status::unavailable("draining")), call([])]);
    let mut mirror = Mirror::new();
    let (error, delay) = until_cut(&mut watch, &mut mirror).await;
    assert_eq!(
        error.to_string(),
        "informerd ended the stream: DRAINING: the daemon is shutting down"
    );
    assert!(
        Duration::from_secs(5) <= delay && delay < Duration::from_secs(6),
        "{delay:?}"
    );
    let cut_at = Instant::now();
    tokio::time::timeout(Duration::from_secs(20), watch.next())
        .await
        .expect_err("hangs");
    let (at, token, _) = &asked.lock().unwrap()[1];
    // Timers tick in milliseconds.
    assert!((delay..delay + Duration::from_millis(2)).contains(&(*at - cut_at)));
    assert_eq!(token, "t7");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_close_after_its_end_mark_is_left() {
    let (mut watch, _) = watch([call([mark(End, "t1")])]);
    let (error, _) = until_cut(&mut watch, &mut Mirror::new()).await;
    assert!(matches!(error, Error::Ended { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn losing_the_right_to_watch_is_for_good_and_gives_the_last_token() {
    let (mut watch, _) =
        watch([call([mark(End, "t1")]).fails(Status::permission_denied("no longer"))]);
    let marked = watch.next().await.expect("goes on").expect("a mark");
    assert!(
        matches!(
            marked,
            WatchEvent::Mark {
                mark: End,
                token: Some(_),
                ..
            }
        ),
        "{marked:?}"
    );
    let error = watch.next().await.expect("goes on").expect_err("for good");
    assert_eq!(error.code(), Some(Code::PermissionDenied));
    assert!(watch.next().await.is_none());
    assert_eq!(watch.token(), "t1");
}

fn unauthenticated(reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "informerd", []);
    Status::with_error_details(Code::Unauthenticated, "not any more", details)
}

#[tokio::test(start_paused = true)]
async fn credentials_that_have_ended_may_be_replaced_a_little_later() {
    let calls = [
        call(initial("t2")).fails(unauthenticated("CREDENTIALS_EXPIRED")),
        refused(unauthenticated("UNAUTHENTICATED")),
        call([mark(Bookmark, "t3")]),
    ];
    let (mut watch, asked) = watch(calls);
    let mut mirror = Mirror::new();
    for _ in 0..2 {
        let (error, _) = until_cut(&mut watch, &mut mirror).await;
        assert_eq!(error.code(), Some(Code::Unauthenticated));
    }
    until_token(&mut watch, &mut mirror, "t3").await;
    // A connection has the certificate that it began with.
    let asked = asked.lock().unwrap();
    let how: Vec<_> = asked
        .iter()
        .map(|(_, token, new)| (&**token, *new))
        .collect();
    assert_eq!(how, [("", false), ("t2", true), ("t2", true)]);
}

#[tokio::test(start_paused = true)]
async fn who_is_never_let_in_again_is_told_so_after_a_minute() {
    let mut calls = vec![call(initial("t2")).fails(unauthenticated("CREDENTIALS_EXPIRED"))];
    calls.extend((0..100).map(|_| refused(unauthenticated("UNAUTHENTICATED"))));
    let (mut watch, _) = watch(calls);
    let begun = Instant::now();
    let error = loop {
        if let Err(error) = watch.next().await.expect("goes on") {
            break error;
        }
    };
    assert_eq!(error.code(), Some(Code::Unauthenticated));
    let took = begun.elapsed();
    assert!((RENEWAL..2 * RENEWAL).contains(&took), "{took:?}");
    let (mut watch, _) = self::watch([refused(unauthenticated("UNAUTHENTICATED"))]);
    let first = watch.next().await.expect("an item");
    first.expect_err("whoever was never let in is told at once");
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_the_caller_wants_to_know_of_ends_the_watch() {
    let status = Status::with_error_details(
        Code::OutOfRange,
        "the token is older than the journal",
        ErrorDetails::with_error_info("PAST_JOURNAL", "informerd", []),
    );
    let (mut watch, asked) = watch([refused(status)]);
    let error = watch.next().await.expect("an item").expect_err("for good");
    assert_eq!(error.reason(), "PAST_JOURNAL");
    assert!(watch.next().await.is_none());
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_cannot_be_had_ends_a_watch_of_each_after_all_before_it() {
    for reason in ["HISTORY_GAP", "PAST_JOURNAL"] {
        let mut end = mark(End, "t3");
        end.mark.as_mut().expect("a mark").reason = reason.into();
        let mut messages = initial("t2");
        messages.extend([
            events([upsert(object("n", "a", "1", "3"))]),
            mark(Progress, "t3"),
            end,
        ]);
        let details = ErrorDetails::with_error_info(reason, "informerd", []);
        let status = Status::with_error_details(Code::OutOfRange, "begin again", details);
        let (mut watch, asked) = watch([call(messages).fails(status), call([])]);
        let mut mirror = Mirror::new();
        let error = loop {
            match watch.next().await.expect("an error comes before its end") {
                Ok(event) => drop(mirror.apply(&event)),
                Err(error) => break error,
            }
        };
        assert_eq!(
            (error.code(), error.reason()),
            (Some(Code::OutOfRange), reason)
        );
        assert_eq!(mirror.get("n", "a").expect("is held").resource_version, "3");
        assert!(watch.next().await.is_none());
        assert_eq!(tokens(&asked), [""], "it is not tried again");
    }
}

/// With the digest of these objects.
fn with_digest(mut message: WatchObjectsResponse, of: &[Object]) -> WatchObjectsResponse {
    let entry = |it: &Object| {
        let key = crate::object::Key::new(&it.namespace, &it.name);
        crate::digest::entry(key.as_str(), &it.uid, &it.resource_version)
    };
    let mark = message.mark.as_mut().expect("a mark");
    let position = crate::proto::ShardPosition {
        digest: of.iter().map(entry).fold(0, u64::wrapping_add),
        has_digest: true,
        ..crate::proto::ShardPosition::default()
    };
    mark.freshness.get_or_insert_default().positions = vec![position];
    message
}

fn first_two() -> [Object; 2] {
    [object("n", "a", "1", "1"), object("n", "b", "2", "2")]
}

/// The initial state, whose end has its digest.
fn proven(token: &str) -> Vec<WatchObjectsResponse> {
    let mut messages = initial(token);
    let end = messages.pop().expect("it ends");
    messages.push(with_digest(end, &first_two()));
    messages
}

fn pods_watch(
    calls: impl IntoIterator<Item = Call>,
    set: fn(&mut WatchObjectsRequest),
) -> (Watch, Asked) {
    let mut request = WatchObjectsRequest {
        scope: crate::client::fake::scope("pods"),
        ..WatchObjectsRequest::default()
    };
    set(&mut request);
    watch_of(request, calls)
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_was_not_told_of_a_change_begins_anew_by_itself() {
    let [a, b] = first_two();
    let now = [a, object("n", "b", "2", "3"), object("n", "c", "3", "4")];
    // The change of b is lost on the way.
    let mut first = proven("t2");
    first.extend([
        events([upsert(now[2].clone())]),
        with_digest(mark(Progress, "t4"), &now),
    ]);
    let second = [
        mark(Reset, ""),
        events(now.clone().map(upsert)),
        with_digest(mark(ResetEnd, "t5"), &now),
    ];
    let (mut watch, asked) = pods_watch([call(first), call(second)], |_| {});
    let mut mirror = Mirror::new();
    let (error, _) = until_cut(&mut watch, &mut mirror).await;
    assert!(
        matches!(error, Error::Differs { for_good: false }),
        "{error}"
    );
    assert_eq!(mirror.get("n", "b"), Some(&b), "it is not known yet");
    until_token(&mut watch, &mut mirror, "t5").await;
    assert_eq!(tokens(&asked), ["", ""], "without the token");
    let held: Vec<_> = mirror.objects().values().cloned().collect();
    assert_eq!(held, now);
    assert_eq!(watch.mismatches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_watch_notices_a_deletion_that_it_was_not_told_of_by_the_next_bookmark() {
    let [a, _] = first_two();
    let mut first = proven("t2");
    first.push(with_digest(mark(Bookmark, "t3"), std::slice::from_ref(&a)));
    let (mut watch, _) = pods_watch([call(first)], |_| {});
    let (error, _) = until_cut(&mut watch, &mut Mirror::new()).await;
    assert!(matches!(error, Error::Differs { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn digests_that_agree_or_are_not_there_change_nothing() {
    let [a, b] = first_two();
    let mut first = proven("t2");
    first.extend([
        // One of another uid is not the one that is held.
        events([delete("n", "b", "9", 3)]),
        with_digest(mark(Progress, "t3"), &[a.clone(), b]),
        mark(Progress, "t4"),
        events([delete("n", "b", "2", 5)]),
        with_digest(mark(Progress, "t5"), &[a]),
    ]);
    let (mut watch, _) = pods_watch([call(first)], |_| {});
    assert!(watch.request.digests, "it asks by itself");
    until_token(&mut watch, &mut Mirror::new(), "t5").await;
    assert_eq!(watch.mismatches(), 0);
}

#[tokio::test(start_paused = true)]
async fn to_begin_anew_is_tried_once_and_again_only_after_they_agreed() {
    let wrong = || {
        let mut messages = initial("t2");
        let end = messages.pop().expect("it ends");
        messages.push(with_digest(end, &[]));
        messages
    };
    let mut second = wrong();
    second.extend([
        with_digest(mark(Bookmark, "t3"), &[]),
        with_digest(mark(Bookmark, "t4"), &first_two()),
        with_digest(mark(Bookmark, "t5"), &[]),
    ]);
    let (mut watch, asked) = pods_watch([call(wrong()), call(second), call(proven("t6"))], |_| {});
    let mut mirror = Mirror::new();
    until_cut(&mut watch, &mut mirror).await;
    until_token(&mut watch, &mut mirror, "t4").await;
    assert_eq!((tokens(&asked).len(), watch.mismatches()), (2, 3));
    until_cut(&mut watch, &mut mirror).await;
    until_token(&mut watch, &mut mirror, "t6").await;
    assert_eq!((tokens(&asked).len(), watch.mismatches()), (3, 4));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_was_to_leave_nothing_out_ends_where_something_is_missing() {
    let sets: [fn(&mut WatchObjectsRequest); 2] = [
        |request| request.delivery = Delivery::Every.into(),
        |request| request.on_gap = OnGap::Fail.into(),
    ];
    for set in sets {
        let mut first = proven("t2");
        first.push(with_digest(mark(Bookmark, "t3"), &[]));
        let (mut watch, asked) = pods_watch([call(first), call([])], set);
        let error = loop {
            if let Err(error) = watch.next().await.expect("an error comes before its end") {
                break error;
            }
        };
        assert!(
            matches!(error, Error::Differs { for_good: true }),
            "{error}"
        );
        assert!(watch.next().await.is_none());
        assert_eq!(tokens(&asked).len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn where_not_all_that_is_held_was_told_here_nothing_is_compared() {
    let messages = [with_digest(mark(Bookmark, "t3"), &first_two())];
    let (mut watch, _) = pods_watch([call(messages)], |request| request.token = "t2".into());
    until_token(&mut watch, &mut Mirror::new(), "t3").await;
    let narrow: [fn(&mut WatchObjectsRequest); 2] = [
        |request| request.changes = crate::proto::Changes::Visible.into(),
        |request| {
            let scope = request.scope.get_or_insert_default();
            scope.label_selector = "app=web".into();
        },
    ];
    for set in narrow {
        let (watch, _) = pods_watch([call([])], set);
        assert!(watch.ledger.is_none() && !watch.request.digests);
    }
}

#[tokio::test(start_paused = true)]
async fn each_shard_is_held_against_its_own_digest() {
    let position = |namespace: &str, of: &[Object]| {
        let message = with_digest(mark(Bookmark, "t9"), of);
        let freshness = message.mark.and_then(|mark| mark.freshness);
        let position = freshness.expect("it was set").positions[0].clone();
        crate::proto::ShardPosition {
            namespace: namespace.into(),
            ..position
        }
    };
    let (a, b) = (object("x", "a", "1", "1"), object("y", "b", "2", "2"));
    let later = object("y", "b", "2", "3");
    for (said, agrees) in [(&later, true), (&b, false)] {
        let mut bookmark = mark(Bookmark, "t9");
        let freshness = bookmark
            .mark
            .as_mut()
            .expect("a mark")
            .freshness
            .get_or_insert_default();
        freshness.positions = vec![
            position("x", std::slice::from_ref(&a)),
            position("y", std::slice::from_ref(said)),
        ];
        let messages = [
            mark(Reset, ""),
            events([upsert(a.clone()), upsert(b.clone())]),
            mark(ResetEnd, "t2"),
            // One shard begins anew.
            shard_mark(Reset, "", "y"),
            events([upsert(later.clone())]),
            shard_mark(ResetEnd, "t3", "y"),
            bookmark,
        ];
        let (mut watch, _) = pods_watch([call(messages)], |_| {});
        let mut mirror = Mirror::new();
        if agrees {
            until_token(&mut watch, &mut mirror, "t9").await;
        } else {
            until_cut(&mut watch, &mut mirror).await;
        }
        assert_eq!(watch.mismatches(), u64::from(!agrees));
    }
}

#[tokio::test(start_paused = true)]
async fn delays_grow_while_opening_fails_and_the_server_is_heard() {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(Duration::from_secs(9)));
    let busy = Status::with_error_details(Code::ResourceExhausted, "too many streams", details);
    let down = || refused(Status::unavailable("down"));
    let (mut watch, _) = watch([down(), down(), down(), refused(busy)]);
    let mut step = Backoff::FIRST;
    for _ in 0..3 {
        let (_, delay) = until_cut(&mut watch, &mut Mirror::new()).await;
        assert!(step / 2 <= delay && delay <= step, "{delay:?} of {step:?}");
        step *= 2;
    }
    let (error, delay) = until_cut(&mut watch, &mut Mirror::new()).await;
    assert_eq!(error.to_string(), "too many streams");
    assert!(
        Duration::from_secs(9) <= delay && delay < Duration::from_secs(10),
        "{delay:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_lived_well_forgives_earlier_failures_and_a_short_one_does_not() {
    let down = || refused(Status::unavailable("down"));
    let short = call([mark(Bookmark, "t1")]).closes();
    let long = call([mark(Bookmark, "t2")])
        .pausing(Duration::from_secs(11))
        .closes();
    let (mut watch, _) = watch([down(), down(), down(), short, long]);
    let mut delays = Vec::new();
    for _ in 0..5 {
        delays.push(until_cut(&mut watch, &mut Mirror::new()).await.1);
    }
    assert!(delays[3] >= Backoff::FIRST * 4, "{delays:?}");
    assert!(delays[4] <= Backoff::FIRST, "{delays:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_left_for_a_new_connection_after_three_bookmarks_time() {
    let (mut watch, asked) = watch([call(initial("t2")), call([])]);
    let begun = Instant::now();
    let (error, delay) = until_cut(&mut watch, &mut Mirror::new()).await;
    assert!(matches!(error, Error::Silent(_)), "{error}");
    assert_eq!(begun.elapsed(), 3 * BOOKMARK_INTERVAL);
    tokio::time::timeout(delay * 2, watch.next())
        .await
        .expect_err("silent again");
    let asked = asked.lock().unwrap();
    assert_eq!(
        (asked[0].2, asked[1].2, asked[1].1.as_str()),
        (false, true, "t2")
    );
}

#[tokio::test(start_paused = true)]
async fn bookmarks_keep_a_stream_alive() {
    let bookmarks = (0..20).map(|at| mark(Bookmark, &format!("t{at}")));
    let (mut watch, asked) = watch([call(bookmarks).pausing(Duration::from_secs(29))]);
    until_token(&mut watch, &mut Mirror::new(), "t19").await;
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_understood_ends_the_watch() {
    for message in [
        events([Event {
            r#type: 77,
            ..Event::default()
        }]),
        mark(ResetEnd, "t1"),
    ] {
        let (mut watch, _) = watch([call([message])]);
        let error = watch.next().await.expect("an item").expect_err("for good");
        assert!(matches!(error, Error::Contract(_)), "{error}");
        assert!(watch.next().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_state_mark_tells_how_well_the_kind_is_known() {
    let mut message = mark(StateMark, "");
    let freshness = Freshness {
        state: KindState::Forbidden.into(),
        ..live()
    };
    message.mark.as_mut().expect("a mark").freshness = Some(freshness);
    let (mut watch, _) = watch([call([message])]);
    let event = watch.next().await.expect("an item").expect("an event");
    let WatchEvent::Mark {
        mark: StateMark,
        token: None,
        freshness,
    } = event
    else {
        panic!("{event:?}")
    };
    assert_eq!(freshness.state(), KindState::Forbidden);
}

#[tokio::test(start_paused = true)]
async fn what_came_after_the_last_token_is_never_told_if_the_stream_is_cut() {
    let cut = call([
        mark(Reset, ""),
        events([upsert(object("default", "web-0", "u-web-0", "1"))]),
        mark(ResetEnd, "t1"),
        // Created, sent and cut: by the time of the resumption it is deleted, and folded away.
        events([upsert(object("default", "ghost", "u-ghost", "2"))]),
    ])
    .fails(Status::unavailable("cut"));
    let resumed = call([
        events([upsert(object("default", "web-0", "u-web-0", "4"))]),
        mark(Progress, "t2"),
    ]);
    let (mut watch, asked) = watch([cut, resumed]);
    let mut mirror = Mirror::new();
    until_cut(&mut watch, &mut mirror).await;
    until_token(&mut watch, &mut mirror, "t2").await;
    assert_eq!(asked.lock().unwrap()[1].1, "t1");
    let names: Vec<_> = mirror
        .objects()
        .keys()
        .map(|(_, name)| name.as_str())
        .collect();
    assert_eq!(names, ["web-0"]);
}

#[tokio::test(start_paused = true)]
async fn what_one_shard_was_told_outlives_the_reset_of_another_one() {
    let stream = call([
        mark(Reset, ""),
        events([
            upsert(object("a", "web", "u-a", "1")),
            upsert(object("b", "web", "u-b", "1")),
        ]),
        mark(ResetEnd, "t1"),
        events([
            upsert(object("a", "web", "u-a", "5")),
            upsert(object("b", "gone", "u-c", "5")),
        ]),
        shard_mark(Reset, "", "b"),
        events([upsert(object("b", "web", "u-b", "7"))]),
        shard_mark(ResetEnd, "t2", "b"),
    ]);
    let (mut watch, _) = watch([stream]);
    let mut mirror = Mirror::new();
    until_token(&mut watch, &mut mirror, "t2").await;
    let held: Vec<_> = mirror
        .objects()
        .values()
        .map(|it| (&*it.namespace, &*it.name, &*it.resource_version))
        .collect();
    assert_eq!(held, [("a", "web", "5"), ("b", "web", "7")]);
}
