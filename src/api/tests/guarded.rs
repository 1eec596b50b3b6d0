//! The services where callers are asked who they are, against an API server that says what a test told it.

use tonic::Request;

use super::*;
use crate::auth::{Authentication, Guard, Presented, Subject, fake::FakeReviews};

const TOKEN: &str = "s3cr3t-t0ken";
const WATCH_DEFAULT: &str = r#"watch resource "pods" in API group "" in the namespace "default""#;
const WATCH_ALL: &str = r#"watch resource "pods" in API group "" at the cluster scope"#;

/// Two pods, and alice, who has proved who she is.
struct Guarded {
    fixture: Fixture,
    reviews: FakeReviews,
    alice: Subject,
}

async fn guarded() -> Guarded {
    let mut fixture = Fixture::with_pods(2);
    let reviews = FakeReviews::default();
    let how = Authentication {
        token_audience: Some("informerd".to_owned()),
        ..Authentication::default()
    };
    let settings = crate::auth::Settings::default();
    let guard = Guard::new(how, Arc::new(reviews.clone()), settings).unwrap();
    reviews.give(TOKEN, "alice", &["informerd"]);
    let alice = signed_in(&guard).await;
    fixture.api = Api::with_board(
        fixture.api.catalog().clone(),
        Board::new([""; 0], Limits::default()),
        None,
        None,
        Settings::default(),
        Access::Guarded {
            guard,
            names: Arc::new(|name| {
                let is_pods = matches!(name, "po" | "pods");
                is_pods.then(|| (String::new(), "pods".to_owned()))
            }),
        },
        fixture.shutdown.clone(),
    );
    Guarded {
        fixture,
        reviews,
        alice,
    }
}

/// Whoever has the token.
async fn signed_in(guard: &Guard) -> Subject {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [(http::header::AUTHORIZATION, bearer.parse().unwrap())];
    let headers = http::HeaderMap::from_iter(headers);
    let nowhere = Arc::new(Presented::default());
    guard.authenticate(&headers, &nowhere).await.unwrap()
}

impl Guarded {
    /// Alice comes again, once what was known of her is forgotten.
    async fn sign_in(&mut self) {
        tokio::time::sleep(Duration::from_secs(11)).await;
        let Access::Guarded { guard, .. } = &self.fixture.api.0.access else {
            unreachable!("it is guarded");
        };
        self.alice = signed_in(guard).await;
    }

    fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.extensions_mut().insert(self.alice.clone());
        request
    }

    async fn watch(&self, request: WatchObjectsRequest) -> Result<Folded, Status> {
        let stream = self
            .fixture
            .client()
            .watch_objects(self.ask(request))
            .await?;
        Ok(Folded {
            stream: stream.into_inner(),
            held: BTreeMap::new(),
            incoming: None,
            token: Vec::new(),
            revision: 0,
        })
    }
}

fn in_default() -> WatchObjectsRequest {
    WatchObjectsRequest {
        scope: Some(Scope {
            namespaces: vec!["default".to_owned()],
            ..pods()
        }),
        ..Default::default()
    }
}

fn refused<T>(answer: Result<T, Status>) -> Status {
    answer.err().expect("it is refused")
}

#[tokio::test(start_paused = true)]
async fn a_caller_sees_the_namespace_that_it_may_and_is_told_what_it_lacks_for_all() {
    let world = guarded().await;
    world.reviews.allow("alice", WATCH_DEFAULT);
    let mut watch = world.watch(in_default()).await.unwrap();
    watch.initial().await;
    assert_eq!(watch.names().len(), 2);
    let status = refused(world.watch(all_pods()).await);
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(reason(&status), "PERMISSION_DENIED");
    assert_eq!(
        status.message(),
        format!("User \"alice\" cannot {WATCH_ALL}")
    );
    // The token of one stream opens no other.
    let wider = WatchObjectsRequest {
        token: watch.token.clone().into(),
        ..all_pods()
    };
    assert_eq!(
        refused(world.watch(wider).await).code(),
        Code::PermissionDenied
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_last_token_when_the_right_to_it_is_gone() {
    let mut world = guarded().await;
    world.reviews.allow("alice", WATCH_DEFAULT);
    let mut watch = world.watch(in_default()).await.unwrap();
    watch.initial().await;
    world.reviews.deny("alice", WATCH_DEFAULT);
    let begun = tokio::time::Instant::now();
    let end = loop {
        let (_, mark) = watch.next().await;
        if mark.r#type() == MarkType::End {
            break mark;
        }
    };
    assert!(begun.elapsed() <= Duration::from_secs(30));
    assert_eq!(end.reason, "REVOKED");
    assert_eq!(watch.token, end.token);
    let status = watch.try_next().await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::PermissionDenied, "REVOKED")
    );

    // With the right back the token goes on where the stream ended.
    world.fixture.upsert("web-000", 101, "web");
    world.reviews.allow("alice", WATCH_DEFAULT);
    tokio::time::advance(Duration::from_secs(10)).await;
    let again = WatchObjectsRequest {
        token: end.token,
        ..in_default()
    };
    let mut again = world.watch(again).await.unwrap();
    let (events, _) = again.next().await;
    assert_eq!(events.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_learns_what_is_configured_who_may_not_see_it() {
    let world = guarded().await;
    let watch = |resource: &str| WatchObjectsRequest {
        scope: Some(Scope {
            resource: resource.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    for resource in ["pods", "po", "secrets", "cats.example.com"] {
        let status = refused(world.watch(watch(resource)).await);
        assert_eq!(status.code(), Code::PermissionDenied, "{resource}");
    }
    let secrets = r#"watch resource "secrets" in API group "" at the cluster scope"#;
    world.reviews.allow("alice", secrets);
    tokio::time::advance(Duration::from_secs(10)).await;
    let status = refused(world.watch(watch("secrets")).await);
    assert_eq!(reason(&status), "KIND_NOT_CONFIGURED");
    assert!(!status.message().contains("pods"), "{}", status.message());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_means_another_kind_to_the_cache_is_not_served() {
    let world = guarded().await;
    // To the cache "pod" is the kind pods; the API server of this test knows no such name.
    let as_it_reads = r#"watch resource "pod" in API group "" at the cluster scope"#;
    world.reviews.allow("alice", as_it_reads);
    let request = WatchObjectsRequest {
        scope: Some(Scope {
            resource: "pod".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let status = refused(world.watch(request).await);
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "KIND_AMBIGUOUS")
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_came_in_by_another_way_than_the_door_is_nobody() {
    let world = guarded().await;
    let mut client = world.fixture.client();
    let get = proto::GetObjectRequest {
        scope: Some(Scope {
            namespaces: vec!["default".to_owned()],
            name: "web-000".to_owned(),
            ..pods()
        }),
        ..Default::default()
    };
    let status = refused(client.get_object(get.clone()).await);
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(
        refused(client.watch_objects(all_pods()).await).code(),
        Code::Unauthenticated
    );
    let may_get =
        r#"get resource "pods" in API group "", name "web-000", in the namespace "default""#;
    world.reviews.allow("alice", may_get);
    assert!(client.get_object(world.ask(get)).await.is_ok());
}

const WATCH_BANK: &str = r#"watch resource "pods" in API group "" in the namespace "bank""#;

impl Guarded {
    /// With pods in the bank, too.
    fn with_a_bank(mut self, count: usize) -> Self {
        let fixture = &mut self.fixture;
        let mut pods: Vec<_> = (0..2)
            .map(|n| fixture.pod("default", &format!("web-{n:03}"), 1, "web"))
            .collect();
        pods.extend((0..count).map(|n| fixture.pod("bank", &format!("safe-{n:03}"), 1, "web")));
        fixture.list(0, pods, 100);
        self.reviews.allow("alice", WATCH_DEFAULT);
        self.reviews.allow("alice", WATCH_BANK);
        self
    }

    fn change(&mut self, namespace: &str, name: &str, revision: u64) {
        let pod = self.fixture.pod(namespace, name, revision, "web");
        self.fixture.writers[0].upsert(pod, revision);
        self.fixture.writers[0].publish(now());
    }
}

fn retracting(namespaces: &[&str]) -> WatchObjectsRequest {
    WatchObjectsRequest {
        scope: Some(Scope {
            namespaces: namespaces.iter().map(|&name| name.to_owned()).collect(),
            ..pods()
        }),
        on_revoke: proto::OnRevoke::Retract.into(),
        ..Default::default()
    }
}

/// Everything up to a mark behind events, bookmarks aside.
async fn told(watch: &mut Folded) -> (Vec<Event>, Mark) {
    loop {
        let (events, mark) = watch.next().await;
        if !events.is_empty() {
            return (events, mark);
        }
        assert_eq!(mark.r#type(), MarkType::Bookmark, "{mark:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_retracts_loses_the_namespace_that_is_lost_and_gets_it_back_with_the_right() {
    let mut world = guarded().await.with_a_bank(2);
    let mut watch = world.watch(retracting(&["default", "bank"])).await.unwrap();
    watch.initial().await;
    assert_eq!(watch.held.len(), 4);

    world.reviews.deny("alice", WATCH_BANK);
    let begun = tokio::time::Instant::now();
    let (events, mark) = told(&mut watch).await;
    assert!(begun.elapsed() <= Duration::from_secs(30));
    for event in &events {
        let what = (event.r#type(), event.cause(), event.namespace.as_str());
        assert_eq!(what, (EventType::Delete, DeleteCause::Revoked, "bank"));
        assert!(event.object.is_empty());
    }
    assert_eq!((events.len(), mark.r#type()), (2, MarkType::Progress));
    assert_eq!(watch.names(), ["web-000", "web-001"]);

    world.change("bank", "safe-000", 101);
    world.change("bank", "safe-new", 102);
    world.change("default", "web-000", 103);
    let (events, _) = told(&mut watch).await;
    let [event] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(event.name, "web-000");

    world.reviews.allow("alice", WATCH_BANK);
    let (events, _) = told(&mut watch).await;
    assert!(
        events
            .iter()
            .all(|event| event.namespace == "bank" && event.revision == 103)
    );
    assert_eq!(watch.held.len(), 5);
    world.change("bank", "safe-001", 104);
    let (events, _) = told(&mut watch).await;
    assert_eq!((events.len(), events[0].name.as_str()), (1, "safe-001"));
}

#[tokio::test(start_paused = true)]
async fn a_namespace_is_lost_and_given_back_within_two_seconds_where_permissions_are_seen_to_change()
 {
    let mut world = guarded().await.with_a_bank(2);
    let mut watch = world.watch(retracting(&["default", "bank"])).await.unwrap();
    watch.initial().await;
    let guard = world.fixture.api.0.access.guard().unwrap().clone();
    for is_allowed in [false, true] {
        match is_allowed {
            true => world.reviews.allow("alice", WATCH_BANK),
            false => world.reviews.deny("alice", WATCH_BANK),
        }
        let begun = tokio::time::Instant::now();
        let (_, (events, _)) = tokio::join!(guard.permissions_changed(), async {
            let told = told(&mut watch).await;
            assert!(begun.elapsed() <= Duration::from_secs(2));
            told
        });
        assert_eq!(events.len(), 2);
        assert_eq!(watch.held.len(), if is_allowed { 4 } else { 2 });
    }
    world.change("default", "web-000", 101);
    let (events, _) = told(&mut watch).await;
    assert_eq!(events.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_with_a_group_is_not_given_back_by_who_the_caller_was() {
    let mut world = guarded().await.with_a_bank(2);
    world.reviews.deny("alice", WATCH_BANK);
    world.reviews.allow("tellers", WATCH_BANK);
    world.reviews.group(TOKEN, &["tellers"]);
    world.sign_in().await;
    let mut watch = world.watch(retracting(&["default", "bank"])).await.unwrap();
    watch.initial().await;
    assert_eq!(watch.held.len(), 4);

    world.reviews.group(TOKEN, &[]);
    let (events, _) = told(&mut watch).await;
    let revoked = |event: &Event| event.cause() == DeleteCause::Revoked;
    assert!(
        events.len() == 2 && events.iter().all(revoked),
        "{events:?}"
    );
    let more = tokio::time::timeout(Duration::from_secs(120), told(&mut watch)).await;
    assert!(more.is_err(), "{more:?}");

    world.reviews.group(TOKEN, &["tellers"]);
    let (events, _) = told(&mut watch).await;
    assert_eq!((events.len(), watch.held.len()), (2, 4));
    world.change("bank", "safe-000", 101);
    assert_eq!(told(&mut watch).await.0.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_knows_what_was_withheld_and_gives_no_right_to_it() {
    let mut world = guarded().await.with_a_bank(2);
    let both = || retracting(&["default", "bank"]);
    let mut watch = world.watch(both()).await.unwrap();
    watch.initial().await;
    world.reviews.deny("alice", WATCH_BANK);
    told(&mut watch).await;
    let resumed = |on_revoke: proto::OnRevoke| WatchObjectsRequest {
        token: watch.token.clone().into(),
        on_revoke: on_revoke.into(),
        ..both()
    };
    world.change("bank", "safe-000", 101);
    world.change("default", "web-000", 102);

    // Without the right: as it was.
    let mut without = world
        .watch(resumed(proto::OnRevoke::Retract))
        .await
        .unwrap();
    without.held.clone_from(&watch.held);
    let (events, _) = told(&mut without).await;
    assert_eq!((events.len(), events[0].name.as_str()), (1, "web-000"));
    let status = refused(world.watch(resumed(proto::OnRevoke::End)).await);
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(
        status.message(),
        format!("User \"alice\" cannot {WATCH_BANK}")
    );
    // Some of it must be allowed.
    world.reviews.deny("alice", WATCH_DEFAULT);
    tokio::time::advance(Duration::from_secs(10)).await;
    let status = refused(world.watch(resumed(proto::OnRevoke::Retract)).await);
    assert_eq!(status.code(), Code::PermissionDenied);

    // With it: what is there, and nothing that it has twice.
    world.reviews.allow("alice", WATCH_DEFAULT);
    world.reviews.allow("alice", WATCH_BANK);
    tokio::time::advance(Duration::from_secs(10)).await;
    for on_revoke in [proto::OnRevoke::Retract, proto::OnRevoke::End] {
        let mut with = world.watch(resumed(on_revoke)).await.unwrap();
        with.held.clone_from(&watch.held);
        let (events, _) = told(&mut with).await;
        assert_eq!((events.len(), events[0].name.as_str()), (1, "web-000"));
        let (events, _) = told(&mut with).await;
        assert!(events.iter().all(|event| event.namespace == "bank"));
        assert_eq!(with.held.len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_everything_is_emptied_and_filled_again() {
    let mut world = guarded().await.with_a_bank(2);
    world.reviews.allow("alice", WATCH_ALL);
    let mut watch = world.watch(retracting(&[])).await.unwrap();
    watch.initial().await;
    world.reviews.deny("alice", WATCH_ALL);
    let (events, _) = told(&mut watch).await;
    assert_eq!((events.len(), watch.held.len()), (4, 0));
    world.change("default", "web-000", 101);
    for _ in 0..5 {
        let (events, mark) = watch.next().await;
        assert_eq!((events.len(), mark.r#type()), (0, MarkType::Bookmark));
    }
    world.reviews.allow("alice", WATCH_ALL);
    told(&mut watch).await;
    assert_eq!(watch.held.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_yet_of_a_namespace_that_is_lost_is_not_sent_any_more() {
    let world = guarded().await.with_a_bank(200);
    let request = WatchObjectsRequest {
        max_batch_bytes: 1 << 10,
        ..retracting(&["default", "bank"])
    };
    let mut watch = world.watch(request).await.unwrap();
    let (_, mark) = watch.next().await;
    assert_eq!(
        (mark.r#type(), mark.reason.as_str()),
        (MarkType::Reset, "INITIAL")
    );
    let first = watch.stream.message().await.unwrap().unwrap();
    assert_eq!(first.events[0].namespace, "bank");
    world.reviews.deny("alice", WATCH_BANK);
    // It reads nothing for a while.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let (events, mark) = watch.next().await;
    assert_eq!(
        (mark.r#type(), mark.reason.as_str()),
        (MarkType::Reset, "REVOKED")
    );
    assert!(events.is_empty(), "{events:?}");
    loop {
        let (events, mark) = watch.next().await;
        assert!(events.iter().all(|event| event.namespace == "default"));
        if mark.r#type() == MarkType::ResetEnd {
            break;
        }
    }
    assert_eq!(watch.names(), ["web-000", "web-001"]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_retracts_names_few_namespaces() {
    let world = guarded().await;
    let many: Vec<String> = (0..65).map(|n| format!("ns-{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let status = refused(world.watch(retracting(&many)).await);
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("on_revoke: "), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_retracts_still_ends_with_its_callers_token() {
    let world = guarded().await.with_a_bank(1);
    let mut watch = world.watch(retracting(&["default", "bank"])).await.unwrap();
    watch.initial().await;
    world.reviews.take(TOKEN);
    let end = loop {
        let (_, mark) = watch.next().await;
        if mark.r#type() == MarkType::End {
            break mark;
        }
    };
    assert_eq!(end.reason, "REVOKED");
    let status = watch.try_next().await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

/// The log's lines, as JSON.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Keeps all that this thread logs.
    fn keep(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || log.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn audit(&self) -> Vec<serde_json::Value> {
        let lines = self.text();
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let is_audit = |line: &serde_json::Value| line["target"] == "informerd::audit";
        lines.filter(is_audit).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn who_saw_what_is_written_down_and_never_what_it_was_or_by_which_token() {
    let log = Log::default();
    let _kept = log.keep();
    let mut world = guarded().await;
    let denied = refused(world.watch(in_default()).await);
    assert_eq!(denied.code(), Code::PermissionDenied);
    world.reviews.allow("alice", WATCH_DEFAULT);
    tokio::time::advance(Duration::from_secs(10)).await;
    let mut watch = world.watch(in_default()).await.unwrap();
    watch.initial().await;
    world.change("default", "web-000", 101);
    told(&mut watch).await;
    world.reviews.deny("alice", WATCH_DEFAULT);
    while watch.try_next().await.is_ok() {}
    drop(watch);

    let lines = log.audit();
    let events: Vec<_> = lines.iter().map(|line| line["event"].clone()).collect();
    assert_eq!(events, ["denied", "opened", "closed"], "{lines:?}");
    assert_eq!(
        (&lines[0]["reason"], &lines[0]["user"]),
        (&"forbidden".into(), &"alice".into())
    );
    assert!(lines[0]["why"].as_str().unwrap().contains(WATCH_DEFAULT));
    for (field, value) in [
        ("method", "WatchObjects"),
        ("user", "alice"),
        ("by", "token"),
        ("resource", "pods"),
        ("namespaces", "default"),
    ] {
        assert_eq!(lines[1][field], value, "{field}");
        assert_eq!(lines[2][field], value, "{field}");
    }
    assert_eq!(
        (&lines[2]["events"], &lines[2]["why"]),
        (&3.into(), &"REVOKED".into())
    );
    assert!(lines[2]["seconds"].as_f64().unwrap() > 1.0);
    // "node-web" stands in each of the objects; the token is the one that alice came with.
    for secret in ["s3cr3t", "Bearer", "node-web", "containers"] {
        assert!(!log.text().contains(secret), "{secret}");
    }
}
