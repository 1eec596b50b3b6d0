//! The door as a whole, against an API server that says what a test told it, in paused time.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures::future::join_all;
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use tokio::time::{advance, sleep, timeout};

use super::{fake::FakeReviews, *};

const WATCH_SHOP: &str = r#"watch resource "pods" in API group "" in the namespace "shop""#;

struct World {
    reviews: FakeReviews,
    guard: Guard,
    peer: Arc<Presented>,
}

fn world(how: Authentication) -> World {
    let reviews = FakeReviews::default();
    let guard = Guard::new(how, Arc::new(reviews.clone()), Settings::default()).unwrap();
    let peer: SocketAddr = "10.1.2.3:4567".parse().unwrap();
    let peer = Arc::new(Presented {
        peer: Some(peer),
        ..Presented::default()
    });
    World {
        reviews,
        guard,
        peer,
    }
}

fn tokens() -> World {
    world(Authentication {
        token_audience: Some("informerd".to_owned()),
        ..Authentication::default()
    })
}

fn headers(token: &str) -> HeaderMap {
    let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
    HeaderMap::from_iter([(AUTHORIZATION, value)])
}

fn pods(verb: Verb, namespace: &str) -> Attributes {
    let pods = Attributes::on(verb, "", "pods");
    let namespace = namespace.to_owned();
    ResourceAttributes { namespace, ..pods }.into()
}

fn watch_shop() -> Attributes {
    pods(Verb::Watch, "shop")
}

impl World {
    async fn sign_in(&self, token: &str) -> Result<Subject, AuthError> {
        self.guard.authenticate(&headers(token), &self.peer).await
    }

    /// Alice, who may watch pods in the shop, and the rights of her stream.
    async fn alice_watches(&self) -> Lease {
        self.reviews.give("t", "alice", &["informerd"]);
        self.reviews.allow("alice", WATCH_SHOP);
        let alice = self.sign_in("t").await.unwrap();
        self.guard.authorize(&alice, &watch_shop()).await.unwrap();
        self.guard.hold(&alice, vec![watch_shop()], None)
    }
}

fn is_unauthenticated<T: std::fmt::Debug>(answer: Result<T, AuthError>) -> bool {
    matches!(answer, Err(AuthError::Unauthenticated(_)))
}

/// How long until a lease ends, and why.
async fn ends(lease: &mut Lease) -> (Duration, Over) {
    let begun = tokio::time::Instant::now();
    let over = lease.when_over().await;
    (begun.elapsed(), over)
}

#[tokio::test(start_paused = true)]
async fn a_token_is_asked_for_once_in_ten_seconds_however_many_calls_bring_it() {
    let world = tokens();
    world.reviews.give("t", "alice", &["informerd"]);
    let all = join_all((0..50).map(|_| world.sign_in("t"))).await;
    for subject in all {
        let subject = subject.unwrap();
        assert_eq!(subject.identity().user, "alice");
        assert_eq!(subject.identity().groups, ["system:authenticated"]);
    }
    assert_eq!(world.reviews.asked(), ["token"]);
    advance(Duration::from_secs(10)).await;
    world.sign_in("t").await.unwrap();
    assert_eq!(world.reviews.asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_nobodys_is_refused_and_that_is_remembered_for_ten_seconds_too() {
    let world = tokens();
    assert!(is_unauthenticated(world.sign_in("made up").await));
    assert!(is_unauthenticated(world.sign_in("made-up").await));
    assert!(is_unauthenticated(world.sign_in("made-up").await));
    assert_eq!(
        world.reviews.asked(),
        ["token"],
        "the first is no token at all"
    );
    world.reviews.give("made-up", "bob", &["informerd"]);
    advance(Duration::from_secs(10)).await;
    assert_eq!(
        world.sign_in("made-up").await.unwrap().identity().user,
        "bob"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_for_another_audience_or_for_none_is_refused() {
    let world = tokens();
    world.reviews.give("other", "alice", &["vault"]);
    world.reviews.give("none", "alice", &[]);
    assert!(is_unauthenticated(world.sign_in("other").await));
    assert!(is_unauthenticated(world.sign_in("none").await));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_says_that_it_has_ended_is_refused_without_asking() {
    let world = tokens();
    let ended = BASE64_URL_SAFE_NO_PAD.encode(r#"{"exp": 1700000000, "aud": ["informerd"]}"#);
    assert!(is_unauthenticated(
        world.sign_in(&format!("h.{ended}.s")).await
    ));
    assert!(world.reviews.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn nobody_is_let_in_while_the_api_server_cannot_be_asked_but_what_it_said_holds_for_its_time()
{
    let world = tokens();
    world.reviews.give("t", "alice", &["informerd"]);
    world.reviews.allow("alice", WATCH_SHOP);
    let alice = world.sign_in("t").await.unwrap();
    world.guard.authorize(&alice, &watch_shop()).await.unwrap();
    world.reviews.set_down(true);

    assert!(matches!(
        world.sign_in("new").await,
        Err(AuthError::Unavailable(_))
    ));
    let other = world
        .guard
        .authorize(&alice, &pods(Verb::List, "shop"))
        .await;
    assert!(matches!(other, Err(AuthError::Unavailable(_))));
    advance(Duration::from_millis(9_999)).await;
    assert!(world.sign_in("t").await.is_ok());
    assert!(world.guard.authorize(&alice, &watch_shop()).await.is_ok());
    advance(Duration::from_millis(1)).await;
    assert!(matches!(
        world.sign_in("t").await,
        Err(AuthError::Unavailable(_))
    ));
    let known = world.guard.authorize(&alice, &watch_shop()).await;
    assert!(matches!(known, Err(AuthError::Unavailable(_))));

    world.reviews.set_down(false);
    assert!(
        world.sign_in("t").await.is_ok(),
        "that it was down is not remembered"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_who_and_the_permission_that_is_missing() {
    let world = tokens();
    world.reviews.give("t", "alice", &["informerd"]);
    let alice = world.sign_in("t").await.unwrap();
    let refused = world.guard.authorize(&alice, &watch_shop()).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        r#"User "alice" cannot watch resource "pods" in API group "" in the namespace "shop""#
    );
}

#[tokio::test(start_paused = true)]
async fn the_api_server_is_asked_fifty_times_a_second_at_most() {
    let world = tokens();
    world.reviews.give("t", "alice", &["informerd"]);
    let alice = world.sign_in("t").await.unwrap();
    let questions: Vec<_> = (0..2000)
        .map(|number| pods(Verb::Get, &format!("ns-{number}")))
        .collect();
    let asking = questions
        .iter()
        .map(|question| world.guard.authorize(&alice, question));
    let answers = join_all(asking).await;
    let busy = answers
        .iter()
        .filter(|answer| matches!(answer, Err(AuthError::Busy(_))))
        .count();
    let asked = world.reviews.asked().len() - 1;
    // One identity's share is half of all: 25 at once and 25 a second.
    assert!((25..=51).contains(&asked), "{asked}");
    assert_eq!(asked + busy, 2000);
}

#[tokio::test(start_paused = true)]
async fn whoever_calls_from_elsewhere_without_credentials_is_told_what_to_send() {
    let world = world(Authentication {
        token_audience: Some("informerd".to_owned()),
        certificates: Some(CertificateTrust(Arc::new(|_| Ok(())))),
        insecure_loopback: true,
    });
    let refused = world
        .guard
        .authenticate(&HeaderMap::new(), &world.peer)
        .await
        .unwrap_err();
    let AuthError::Unauthenticated(words) = refused else {
        panic!("{refused}")
    };
    assert!(words.contains("\"informerd\"") && words.contains("client certificate"));
}

#[tokio::test(start_paused = true)]
async fn from_this_machine_no_credentials_are_needed_but_wrong_ones_are_refused() {
    let world = world(Authentication {
        token_audience: Some("informerd".to_owned()),
        insecure_loopback: true,
        ..Authentication::default()
    });
    let here = Arc::new(Presented {
        peer: Some("127.0.0.1:50000".parse().unwrap()),
        ..Presented::default()
    });
    let trusted = world
        .guard
        .authenticate(&HeaderMap::new(), &here)
        .await
        .unwrap();
    assert!(trusted.is_trusted());
    world
        .guard
        .authorize(&trusted, &watch_shop())
        .await
        .unwrap();
    let wrong = world.guard.authenticate(&headers("made-up"), &here).await;
    assert!(is_unauthenticated(wrong));
}

/// CVE-2026-61682: headers that say who somebody is were believed.
#[tokio::test(start_paused = true)]
async fn cve_2026_61682_headers_that_name_an_identity_are_held_against_the_right_to_impersonate() {
    let world = tokens();
    world.reviews.give("t", "alice", &["informerd"]);
    let mut asked = headers("t");
    asked.insert("impersonate-user", HeaderValue::from_static("root"));
    asked.insert("x-remote-user", HeaderValue::from_static("root"));
    asked.insert("x-forwarded-user", HeaderValue::from_static("root"));
    let refused = world.guard.authenticate(&asked, &world.peer).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        r#"User "alice" cannot impersonate resource "users" in API group "", name "root", at the cluster scope"#
    );
    advance(Duration::from_secs(10)).await;
    world.reviews.allow(
        "alice",
        r#"impersonate resource "users" in API group "", name "root", at the cluster scope"#,
    );
    let root = world.guard.authenticate(&asked, &world.peer).await.unwrap();
    assert_eq!(root.identity().user, "root");
    assert_eq!(
        root.impersonator().map(|real| real.user.as_str()),
        Some("alice")
    );
    world.reviews.allow("alice", WATCH_SHOP);
    assert!(
        world.guard.authorize(&root, &watch_shop()).await.is_err(),
        "her own rights are not root's"
    );

    asked.remove("impersonate-user");
    let alice = world.guard.authenticate(&asked, &world.peer).await.unwrap();
    assert_eq!(alice.identity().user, "alice");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_within_half_a_minute_of_its_permission() {
    let world = tokens();
    let mut lease = world.alice_watches().await;
    sleep(Duration::from_secs(100)).await;
    assert_eq!(lease.over(), None);
    // Just after somebody was told that she may: the worst that can be.
    let alice = world.sign_in("t").await.unwrap();
    world.guard.authorize(&alice, &watch_shop()).await.unwrap();
    world.reviews.deny("alice", WATCH_SHOP);
    let (after, over) = ends(&mut lease).await;
    assert!(after <= Duration::from_secs(30), "{after:?}");
    assert!(matches!(over, Over::Revoked(AuthError::Forbidden { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_within_two_seconds_of_its_permission_where_that_is_seen_to_change() {
    let world = tokens();
    let mut lease = world.alice_watches().await;
    sleep(Duration::from_secs(100)).await;
    // Just after somebody was told that she may.
    let alice = world.sign_in("t").await.unwrap();
    world.guard.authorize(&alice, &watch_shop()).await.unwrap();
    world.reviews.deny("alice", WATCH_SHOP);
    let guard = world.guard.clone();
    tokio::spawn(async move { guard.permissions_changed().await });
    let (after, over) = ends(&mut lease).await;
    assert!(after <= Duration::from_secs(2), "{after:?}");
    assert!(matches!(over, Over::Revoked(AuthError::Forbidden { .. })));
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_before_permissions_changed_is_not_used_any_more() {
    let world = tokens();
    world.alice_watches().await;
    let alice = world.sign_in("t").await.unwrap();
    world.reviews.deny("alice", WATCH_SHOP);
    let shop = watch_shop();
    let may = || world.guard.authorize(&alice, &shop);
    assert!(may().await.is_ok(), "it is remembered");
    let mut changing = std::pin::pin!(world.guard.permissions_changed());
    let settled = timeout(Duration::from_secs(1), &mut changing).await;
    assert!(settled.is_err(), "the next may not begin so soon");
    assert!(matches!(may().await, Err(AuthError::Forbidden { .. })));
}

#[tokio::test(start_paused = true)]
async fn permissions_that_change_without_end_leave_room_for_new_callers() {
    let world = tokens();
    world.alice_watches().await;
    let alice = world.sign_in("t").await.unwrap();
    let shops = (0..200).map(|number| pods(Verb::Watch, &format!("shop-{number}")));
    for shop in shops.clone() {
        world.reviews.allow("alice", &shop.to_string());
    }
    let held: Vec<_> = shops
        .map(|shop| world.guard.hold(&alice, vec![shop], None))
        .collect();
    let guard = world.guard.clone();
    tokio::spawn(async move {
        loop {
            guard.permissions_changed().await;
        }
    });
    let mut rounds = 0;
    for second in 0..100 {
        world.reviews.forget();
        let question = pods(Verb::Get, &format!("new-{second}"));
        let answer = world.guard.authorize(&alice, &question).await;
        assert!(
            matches!(answer, Err(AuthError::Forbidden { .. })),
            "{answer:?}"
        );
        sleep(Duration::from_secs(1)).await;
        let asked = world.reviews.asked();
        let asked = asked.iter().filter(|question| *question != "token").count();
        assert!(asked <= 50, "{asked} in one second");
        rounds += asked;
    }
    assert!(held.iter().all(|lease| lease.over().is_none()));
    // Each of 200 every 8 s, which is how long one round takes.
    assert!((2_000..=3_000).contains(&rounds), "{rounds} in 100 s");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_within_half_a_minute_of_its_token() {
    let world = tokens();
    let mut lease = world.alice_watches().await;
    sleep(Duration::from_secs(40)).await;
    world.reviews.take("t");
    let (after, over) = ends(&mut lease).await;
    assert!(after <= Duration::from_secs(30), "{after:?}");
    assert!(matches!(over, Over::Revoked(AuthError::Unauthenticated(_))));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_token_says_that_it_does() {
    let world = tokens();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let claims = format!(r#"{{"exp": {}}}"#, now.unwrap().as_secs() + 100);
    let token = format!("h.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims));
    world.reviews.give(&token, "alice", &["informerd"]);
    world.reviews.allow("alice", WATCH_SHOP);
    let alice = world.sign_in(&token).await.unwrap();
    let mut lease = world.guard.hold(&alice, vec![watch_shop()], None);
    let (after, over) = ends(&mut lease).await;
    assert_eq!(over, Over::Expired);
    assert!(
        after > Duration::from_secs(95) && after <= Duration::from_secs(101),
        "{after:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn streams_go_on_for_ten_minutes_while_the_api_server_cannot_be_asked() {
    let world = tokens();
    let mut lease = world.alice_watches().await;
    world.reviews.set_down(true);
    let (after, over) = ends(&mut lease).await;
    assert!(matches!(over, Over::Unproven(AuthError::Unavailable(_))));
    assert!(
        after > Duration::from_secs(595) && after <= Duration::from_secs(601),
        "{after:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_outlives_an_api_server_that_comes_back_in_time() {
    let world = tokens();
    let mut lease = world.alice_watches().await;
    for _ in 0..3 {
        world.reviews.set_down(true);
        sleep(Duration::from_secs(590)).await;
        world.reviews.set_down(false);
        sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(lease.over(), None);
    world.reviews.set_down(true);
    sleep(Duration::from_secs(60)).await;
    world.reviews.deny("alice", WATCH_SHOP);
    world.reviews.set_down(false);
    let (after, _) = ends(&mut lease).await;
    assert!(after <= Duration::from_secs(30), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_for_somebody_else_ends_with_the_right_to_impersonate() {
    let world = tokens();
    const TO_BE_JANE: &str =
        r#"impersonate resource "users" in API group "", name "jane", at the cluster scope"#;
    world.reviews.give("t", "alice", &["informerd"]);
    world.reviews.allow("alice", TO_BE_JANE);
    world.reviews.allow("jane", WATCH_SHOP);
    let mut asked = headers("t");
    asked.insert("impersonate-user", HeaderValue::from_static("jane"));
    let jane = world.guard.authenticate(&asked, &world.peer).await.unwrap();
    let mut lease = world.guard.hold(&jane, vec![watch_shop()], None);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(lease.over(), None);
    world.reviews.deny("alice", TO_BE_JANE);
    let (after, _) = ends(&mut lease).await;
    assert!(after <= Duration::from_secs(30), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_streams_of_one_caller_ask_as_often_as_one() {
    let world = tokens();
    let first = world.alice_watches().await;
    let alice = world.sign_in("t").await.unwrap();
    let mut others: Vec<_> = (0..100)
        .map(|_| world.guard.hold(&alice, vec![watch_shop()], None))
        .collect();
    world.reviews.forget();
    sleep(Duration::from_secs(160)).await;
    let asked = world.reviews.asked().len();
    assert!((16..=30).contains(&asked), "{asked} in 160 s");
    drop(first);
    world.reviews.deny("alice", WATCH_SHOP);
    for lease in &mut others {
        lease.when_over().await;
    }
    let again = world.guard.hold(&alice, vec![watch_shop()], None);
    assert_eq!(again.over(), None, "rights that are over are not shared");
}

impl World {
    /// A stream of alice's over a connection of its own, and the room for what it sends.
    async fn over(&self, peer: &Peer) -> (Lease, Room) {
        let alice = self.sign_in("t").await.unwrap();
        let room = self.guard.enter(&alice).unwrap().room(peer);
        let lease = self.guard.hold(&alice, vec![watch_shop()], Some(&room));
        (lease, room)
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_end_by_itself_loses_its_connection() {
    let world = tokens();
    world.alice_watches().await;
    let (one, other) = (Peer::default(), Peer::default());
    let (_stuck, _) = world.over(&one).await;
    let (prompt, _) = world.over(&other).await;

    world.reviews.deny("alice", WATCH_SHOP);
    prompt.when_over().await;
    drop(prompt);
    assert!(!one.cut.is_cancelled());
    timeout(Duration::from_secs(3), one.cut.cancelled())
        .await
        .unwrap();
    assert!(!other.cut.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_by_a_right_and_is_not_read_soon_after_it_goes_with_its_connection() {
    let world = tokens();
    world.alice_watches().await;
    let (reads, reads_not) = (Peer::default(), Peer::default());
    let (first, to_read) = world.over(&reads).await;
    let (second, not_to_read) = world.over(&reads_not).await;
    let [soon, never] = [&to_read, &not_to_read].map(|room| room.count(vec![0; 100].into()));

    world.reviews.deny("alice", WATCH_SHOP);
    first.when_over().await;
    // Both streams have ended, or go on without what they lost: what they say of that is no matter.
    drop((first, second));
    sleep(Duration::from_secs(1)).await;
    drop(soon);
    let later = to_read.count(vec![0; 100].into());
    timeout(Duration::from_secs(2), reads_not.cut.cancelled())
        .await
        .unwrap();
    assert!(!reads.cut.is_cancelled());
    drop((never, later));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_taken_goes_with_its_connection_when_its_right_does_and_no_sooner() {
    let world = tokens();
    world.alice_watches().await;
    let alice = world.sign_in("t").await.unwrap();
    let all = Arc::from([watch_shop()]);
    let peers = [0; 4].map(|_| Peer::default());
    let mut rooms = peers.each_ref().map(|peer| {
        let room = world.guard.enter(&alice).unwrap().room(peer);
        room.rests_on(&world.guard, &alice, &all);
        Some(room)
    });
    let rooms_of = |at: usize| rooms[at].clone().unwrap();
    // One is there as a whole, one in part; one has been taken, and of one, a stream's, the end is there.
    let [whole, part, taken, end] = [0, 1, 2, 3].map(rooms_of);
    for room in [&whole, &part, &taken] {
        room.answered();
    }
    let [piece, of_taken, of_end] = [&part, &taken, &end].map(|room| room.count(vec![0; 9].into()));
    drop(of_taken);
    let lease = world.guard.hold(&alice, Arc::clone(&all), Some(&end));
    end.answered();
    drop(lease);
    end.ended();
    drop((taken, rooms[2].take()));
    sleep(Duration::from_secs(300)).await;
    assert!(peers.iter().all(|peer| !peer.cut.is_cancelled()));
    world.reviews.deny("alice", WATCH_SHOP);
    sleep(Duration::from_secs(28)).await;
    let cut = peers.each_ref().map(|peer| peer.cut.is_cancelled());
    assert_eq!(cut, [true, true, false, true]);
    drop((whole, piece, of_end));
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_printed_has_a_token_in_it() {
    let world = tokens();
    world.reviews.give("s3cr3t", "alice", &["informerd"]);
    world.reviews.allow("alice", WATCH_SHOP);
    let alice = world.sign_in("s3cr3t").await.unwrap();
    let lease = world.guard.hold(&alice, vec![watch_shop()], None);
    let bad = world.sign_in("s3cr3t-and-wrong").await.unwrap_err();
    let printed = format!("{:?} {alice:?} {lease:?} {bad:?} {bad}", world.guard);
    assert!(!printed.contains("s3cr3t"), "{printed}");
}
