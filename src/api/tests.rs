//! The services as a client sees them, over a shard that the test writes. In one process and without sockets,
//! so that time can be paused.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use super::{cache::CacheService, *};
use crate::{
    cache::{Cause, History, Identity, Kind, Limits, Phase, Unreadable, Writer},
    object::{Decoder, Key, Object, PruneRules, Pruner, Selectable},
    proto::{
        self, DeleteCause, Event, EventType, Mark, MarkType, Scope, View, WatchObjectsRequest,
        WatchObjectsResponse, cache_service_client::CacheServiceClient,
    },
};

mod guarded_tests;

type Client = CacheServiceClient<CacheService>;

/// A kind in one shard, or in several, and the services over it.
struct Fixture {
    writers: Vec<Writer<Object>>,
    kind: Arc<Kind>,
    decoder: Decoder,
    api: Api,
    shutdown: Shutdown,
}

impl Fixture {
    fn new() -> Self {
        Self::sharded(&[""], Limits::default())
    }

    fn sharded(namespaces: &[&str], limits: Limits) -> Self {
        Self::build(namespaces, limits, false)
    }

    fn build(namespaces: &[&str], limits: Limits, metadata_only: bool) -> Self {
        let writers: Vec<_> = namespaces
            .iter()
            .map(|namespace| Writer::new(namespace, limits, now()))
            .collect();
        let shards = writers
            .iter()
            .map(|writer| writer.shard().clone())
            .collect();
        let kind = Arc::new(Kind::new("pods", true, metadata_only, 7, shards));
        let selectable = Selectable::builtin("", "pods");
        let pruner = Pruner::new(&PruneRules::default()).unwrap();
        let decoder = Decoder::new("v1", "Pod", true, &pruner, &selectable);
        let shutdown = Shutdown::new();
        let fixture = Self {
            api: Api::new(
                Catalog::new(vec![kind.clone()]),
                Settings::default(),
                shutdown.clone(),
            ),
            writers,
            kind,
            decoder,
            shutdown,
        };
        fixture.kind.set_identity(Identity {
            group: String::new(),
            version: "v1".into(),
            kind: "Pod".into(),
            plural: "pods".into(),
            singular: "pod".into(),
            short_names: vec!["po".into()],
            namespaced: true,
            selectable,
        });
        fixture
    }

    /// With this many pods, listed at revision 100.
    fn with_pods(count: usize) -> Self {
        let mut fixture = Self::new();
        let pods = (0..count)
            .map(|n| fixture.pod("default", &format!("web-{n:03}"), 1, "web"))
            .collect();
        fixture.list(0, pods, 100);
        fixture
    }

    fn pod(&self, namespace: &str, name: &str, version: u64, app: &str) -> Arc<Object> {
        let json = serde_json::json!({
            "metadata": {
                "name": name, "namespace": namespace, "uid": format!("uid-{name}"),
                "resourceVersion": version.to_string(), "labels": {"app": app},
            },
            "spec": {"nodeName": format!("node-{app}"), "containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running"},
        });
        Arc::new(
            self.decoder
                .decode(json.to_string().as_bytes(), 42)
                .unwrap(),
        )
    }

    fn list(&mut self, shard: usize, pods: Vec<Arc<Object>>, revision: u64) {
        self.writers[shard].replace(pods, &Unreadable::default(), revision, History::Same, now());
        self.writers[shard].set_status(Phase::Live, "", "");
    }

    fn upsert(&mut self, name: &str, revision: u64, app: &str) {
        let pod = self.pod("default", name, revision, app);
        self.writers[0].upsert(pod, revision);
        self.writers[0].publish(now());
    }

    fn delete(&mut self, name: &str, revision: u64) {
        self.writers[0].delete(&Key::new("default", name), None, revision, Cause::Deleted);
        self.writers[0].publish(now());
    }

    fn client(&self) -> Client {
        CacheServiceClient::new(CacheService::new(self.api.clone()))
            .max_decoding_message_size(64 << 20)
    }

    async fn watch(&self, request: WatchObjectsRequest) -> Folded {
        self.try_watch(request).await.unwrap()
    }

    async fn try_watch(&self, request: WatchObjectsRequest) -> Result<Folded, Status> {
        let stream = self.client().watch_objects(request).await?.into_inner();
        Ok(Folded {
            stream,
            held: BTreeMap::new(),
            incoming: None,
            token: Vec::new(),
            revision: 0,
        })
    }
}

/// A stream and what a consumer has of it.
struct Folded {
    stream: Streaming<WatchObjectsResponse>,
    held: BTreeMap<String, Event>,
    incoming: Option<BTreeMap<String, Event>>,
    token: Vec<u8>,
    revision: u64,
}

impl Folded {
    /// All events up to the next mark, and the mark.
    async fn next(&mut self) -> (Vec<Event>, Mark) {
        self.try_next().await.expect("the stream goes on")
    }

    async fn try_next(&mut self) -> Result<(Vec<Event>, Mark), Status> {
        let mut events = Vec::new();
        loop {
            let message = self.stream.message().await?;
            let message = message.ok_or_else(|| Status::ok("the end"))?;
            for event in message.events {
                self.fold(&event);
                events.push(event);
            }
            let Some(mark) = message.mark else { continue };
            match mark.r#type() {
                MarkType::Reset => {
                    self.incoming = Some(BTreeMap::new());
                    self.revision = 0;
                    assert!(mark.token.is_empty());
                }
                MarkType::ResetEnd => self.held = self.incoming.take().expect("it began"),
                _ => {}
            }
            if !mark.token.is_empty() {
                assert!(self.incoming.is_none(), "no token inside a reset");
                self.token = mark.token.to_vec();
            }
            return Ok((events, mark));
        }
    }

    fn fold(&mut self, event: &Event) {
        assert!(event.revision >= self.revision, "Ordered");
        self.revision = event.revision;
        let key = format!("{}/{}", event.namespace, event.name);
        let held = self.incoming.as_mut().unwrap_or(&mut self.held);
        match event.r#type() {
            EventType::Upsert => drop(held.insert(key, event.clone())),
            EventType::Delete => {
                let old = held.remove(&key).expect("a DELETE is of what is held");
                assert_eq!(old.uid, event.uid);
            }
            EventType::Unspecified => panic!("an event without a type"),
        }
    }

    /// The initial state.
    async fn initial(&mut self) {
        let (_, mark) = self.next().await;
        assert_eq!(mark.r#type(), MarkType::Reset);
        loop {
            if self.next().await.1.r#type() == MarkType::ResetEnd {
                return;
            }
        }
    }

    fn names(&self) -> Vec<&str> {
        self.held
            .values()
            .map(|event| event.name.as_str())
            .collect()
    }
}

fn pods() -> Scope {
    Scope {
        resource: "pods".into(),
        ..Default::default()
    }
}

fn all_pods() -> WatchObjectsRequest {
    WatchObjectsRequest {
        scope: Some(pods()),
        ..Default::default()
    }
}

fn labelled(app: &str) -> WatchObjectsRequest {
    WatchObjectsRequest {
        scope: Some(Scope {
            label_selector: format!("app={app}"),
            ..pods()
        }),
        ..Default::default()
    }
}

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details
        .error_info()
        .map_or_else(String::new, |info| info.reason.clone())
}

#[tokio::test(start_paused = true)]
async fn a_watch_begins_with_the_state_and_goes_on_with_changes() {
    let mut fixture = Fixture::with_pods(2);
    let mut watch = fixture.watch(all_pods()).await;
    let (_, begin) = watch.next().await;
    assert_eq!(
        (begin.r#type(), begin.reason.as_str()),
        (MarkType::Reset, "INITIAL")
    );
    let (initial, end) = watch.next().await;
    assert_eq!(end.r#type(), MarkType::ResetEnd);
    assert!(
        initial
            .iter()
            .all(|event| event.revision == 100 && event.received_unix_nanos == 0)
    );
    let freshness = end.freshness.unwrap();
    assert!(freshness.pruned);
    assert_eq!(freshness.state(), proto::KindState::Live);
    assert_eq!(freshness.positions[0].revision, 100);

    fixture.upsert("web-000", 101, "web");
    let (events, mark) = watch.next().await;
    assert_eq!(mark.r#type(), MarkType::Progress);
    let [event] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!((event.r#type(), event.revision), (EventType::Upsert, 101));
    assert_eq!(
        (event.namespace.as_str(), event.name.as_str()),
        ("default", "web-000")
    );
    assert_eq!(
        (event.uid.as_str(), event.resource_version.as_str()),
        ("uid-web-000", "101")
    );
    assert_eq!(event.received_unix_nanos, 42);
    let json: serde_json::Value = serde_json::from_slice(&event.object).unwrap();
    assert_eq!(
        (&json["apiVersion"], &json["kind"]),
        (&"v1".into(), &"Pod".into())
    );

    fixture.delete("web-001", 102);
    let (events, _) = watch.next().await;
    let [event] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(
        (event.r#type(), event.cause()),
        (EventType::Delete, DeleteCause::Deleted)
    );
    assert!(event.object.is_empty(), "a deletion carries no content");
    assert_eq!(watch.names(), ["web-000"]);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_leaves_the_selector_is_deleted_and_comes_back_by_an_upsert() {
    let mut fixture = Fixture::with_pods(2);
    let mut watch = fixture.watch(labelled("web")).await;
    watch.initial().await;
    fixture.upsert("web-000", 101, "db");
    let (events, _) = watch.next().await;
    assert_eq!(
        (events[0].r#type(), events[0].cause()),
        (EventType::Delete, DeleteCause::LeftSelector)
    );
    assert_eq!(watch.names(), ["web-001"]);
    fixture.upsert("web-000", 102, "web");
    watch.next().await;
    assert_eq!(watch.names(), ["web-000", "web-001"]);
}

#[tokio::test(start_paused = true)]
async fn a_resumed_stream_goes_on_as_if_never_cut() {
    let mut fixture = Fixture::with_pods(3);
    for request in [all_pods(), labelled("web")] {
        let mut watch = fixture.watch(request.clone()).await;
        watch.initial().await;
        let revision = fixture.writers[0].revision();
        fixture.upsert("web-000", revision + 1, "web");
        watch.next().await;
        let (held, token) = (watch.held.clone(), watch.token.clone());
        drop(watch);

        fixture.upsert("web-001", revision + 2, "web");
        fixture.delete("web-002", revision + 3);
        fixture.upsert("web-003", revision + 4, "web");
        let mut again = fixture
            .watch(WatchObjectsRequest {
                token: token.into(),
                ..request
            })
            .await;
        again.held = held;
        let mut told = Vec::new();
        while told.len() < 3 {
            let (events, mark) = again.next().await;
            assert_eq!(mark.r#type(), MarkType::Progress, "no reset");
            told.extend(events.into_iter().map(|event| event.revision));
        }
        assert_eq!(told, [revision + 2, revision + 3, revision + 4]);
        assert_eq!(again.names(), ["web-000", "web-001", "web-003"]);
        fixture.upsert("web-002", revision + 5, "web");
        fixture.delete("web-003", revision + 6);
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_past_the_journal_catches_up_or_is_reset() {
    let limits = Limits {
        journal_bytes: 0,
        ..Limits::default()
    };
    let mut fixture = Fixture::sharded(&[""], limits);
    let listed = vec![
        fixture.pod("default", "a", 1, "web"),
        fixture.pod("default", "b", 1, "web"),
    ];
    fixture.list(0, listed, 100);
    for (request, reset) in [(all_pods(), false), (labelled("web"), true)] {
        let mut watch = fixture.watch(request.clone()).await;
        watch.initial().await;
        let (held, token) = (watch.held.clone(), watch.token.clone());
        drop(watch);
        let revision = fixture.writers[0].revision();
        fixture.delete("a", revision + 1);
        fixture.upsert("c", revision + 2, "web");

        let fail = WatchObjectsRequest {
            token: token.clone().into(),
            on_gap: proto::OnGap::Fail.into(),
            ..request.clone()
        };
        let mut failing = fixture.watch(fail).await;
        failing.held = held.clone();
        if reset {
            let (_, end) = failing.next().await;
            assert_eq!(
                (end.r#type(), end.reason.as_str()),
                (MarkType::End, "PAST_JOURNAL")
            );
            let status = failing.try_next().await.unwrap_err();
            assert_eq!(
                (status.code(), reason(&status).as_str()),
                (Code::OutOfRange, "PAST_JOURNAL")
            );
        } else {
            failing.next().await;
            assert_eq!(failing.names(), ["b", "c"]);
        }

        let mut again = fixture
            .watch(WatchObjectsRequest {
                token: token.into(),
                ..request
            })
            .await;
        again.held = held;
        let (_, mark) = again.next().await;
        if reset {
            assert_eq!(
                (mark.r#type(), mark.reason.as_str()),
                (MarkType::Reset, "PAST_JOURNAL")
            );
            again.next().await;
        }
        assert_eq!(again.names(), ["b", "c"]);
        fixture.upsert("a", revision + 3, "web");
        fixture.delete("c", revision + 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_refused_for_another_watch_and_so_are_any_other_bytes() {
    let fixture = Fixture::with_pods(1);
    let mut watch = fixture.watch(all_pods()).await;
    watch.initial().await;
    let misuse = WatchObjectsRequest {
        token: watch.token.clone().into(),
        view: View::Metadata.into(),
        ..all_pods()
    };
    let status = fixture.try_watch(misuse).await.err().unwrap();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "TOKEN_SCOPE")
    );
    let nonsense = WatchObjectsRequest {
        token: b"nonsense"[..].into(),
        ..all_pods()
    };
    let status = fixture.try_watch(nonsense).await.err().unwrap();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().starts_with("token: not a token"),
        "{}",
        status.message()
    );
}

#[tokio::test(start_paused = true)]
async fn idle_streams_get_bookmarks_that_move_their_token() {
    let mut fixture = Fixture::with_pods(1);
    let mut watch = fixture.watch(labelled("nobody")).await;
    watch.initial().await;
    fixture.upsert("web-000", 101, "web");
    fixture.writers[0].advance(120);
    fixture.writers[0].publish(now());
    let before = tokio::time::Instant::now();
    let (events, mark) = watch.next().await;
    assert!(events.is_empty());
    assert_eq!(mark.r#type(), MarkType::Bookmark);
    assert_eq!(mark.freshness.unwrap().positions[0].revision, 120);
    assert!(before.elapsed() >= Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn nothing_to_hear_for_minutes_is_not_falling_behind() {
    let limits = Limits {
        journal_bytes: 4 << 10,
        tombstones: 0,
        ..Limits::default()
    };
    let mut fixture = Fixture::sharded(&[""], limits);
    let pods = vec![fixture.pod("quiet", "a", 1, "web")];
    fixture.list(0, pods, 100);
    let request = WatchObjectsRequest {
        bookmark_interval: Some(prost_types::Duration {
            seconds: 300,
            nanos: 0,
        }),
        scope: Some(Scope {
            namespaces: vec!["quiet".into()],
            label_selector: "app=web".into(),
            ..self::pods()
        }),
        ..Default::default()
    };
    let mut watch = fixture.watch(request).await;
    watch.initial().await;
    let consumers = fixture.api.consumers().clone();
    let elsewhere = async {
        let mut revision = 100;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            consumers.expire(now());
            revision += 1;
            fixture.upsert("busy", revision, "web");
        }
    };
    let (events, mark) = tokio::select! {
        next = watch.next() => next,
        () = elsewhere => unreachable!(),
    };
    assert!(events.is_empty());
    assert_eq!(mark.r#type(), MarkType::Bookmark, "{mark:?}");
}

#[tokio::test(start_paused = true)]
async fn those_who_come_back_again_and_again_cost_the_journal_nothing() {
    let mut fixture = Fixture::with_pods(1);
    let mut watch = fixture.watch(all_pods()).await;
    watch.initial().await;
    let token = watch.token.clone();
    drop(watch);
    fixture.upsert("web-000", 101, "web");
    let journal = || fixture.kind.shards()[0].state().unwrap().journal.bytes();
    let mut bytes = Vec::new();
    for _ in 0..3 {
        let request = WatchObjectsRequest {
            token: token.clone().into(),
            ..all_pods()
        };
        let (events, _) = fixture.watch(request).await.next().await;
        assert_eq!(events.len(), 1);
        bytes.push(journal());
    }
    assert!(bytes.iter().all(|one| *one == bytes[0]), "{bytes:?}");
}

#[tokio::test(start_paused = true)]
async fn no_number_of_masks_pushes_out_of_the_journal_what_others_resume_from() {
    let limits = Limits {
        journal_bytes: 64 << 10,
        ..Limits::default()
    };
    let mut fixture = Fixture::sharded(&[""], limits);
    let pods = vec![fixture.pod("default", "web-000", 1, "web")];
    fixture.list(0, pods, 100);
    let mask = |n: usize| WatchObjectsRequest {
        fields: vec![".spec".into(), format!(".status.f{n}")],
        ..all_pods()
    };
    let mut watches = Vec::new();
    for n in 0..60 {
        let mut watch = fixture.watch(mask(n)).await;
        watch.initial().await;
        watches.push(watch);
    }
    for revision in 101..121 {
        fixture.upsert("web-000", revision, "web");
        for watch in &mut watches {
            let (events, _) = watch.next().await;
            assert_eq!(events.len(), 1);
        }
        let journal = &fixture.kind.shards()[0].state().unwrap().journal;
        assert_eq!(journal.len() as u64, revision - 100);
        assert!(journal.bytes() <= limits.journal_bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_never_begins_before_the_version_asked_for() {
    let mut fixture = Fixture::new();
    let identity = Identity::clone(&*fixture.kind.identity().unwrap());
    // Not found by discovery yet.
    fixture.kind = Arc::new(Kind::new(
        "pods",
        true,
        false,
        7,
        fixture.kind.shards().to_vec(),
    ));
    fixture.api = Api::new(
        Catalog::new(vec![fixture.kind.clone()]),
        Settings::default(),
        fixture.shutdown.clone(),
    );
    let request = |version: &str| WatchObjectsRequest {
        min_resource_version: version.into(),
        ..all_pods()
    };
    let status = fixture.try_watch(request("101")).await.err().unwrap();
    assert_eq!(reason(&status), "KIND_NOT_SYNCED");
    let mut client = fixture.client();
    let (answer, ()) = tokio::join!(client.watch_objects(request("101")), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        fixture.kind.set_identity(identity);
        let pods = vec![fixture.pod("default", "a", 5, "web")];
        fixture.list(0, pods, 100);
    });
    assert_eq!(reason(&answer.unwrap_err()), "VERSION_NOT_REACHED");
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_an_incomplete_kind_says_so_and_starts_when_it_is_complete() {
    let mut fixture = Fixture::new();
    fixture.writers[0].set_status(Phase::Syncing, "Listing", "page 1");
    let mut watch = fixture.watch(all_pods()).await;
    let (events, mark) = watch.next().await;
    assert!(events.is_empty() && mark.token.is_empty());
    assert_eq!(mark.r#type(), MarkType::State);
    let freshness = mark.freshness.unwrap();
    assert_eq!(
        (freshness.state(), freshness.reason.as_str()),
        (proto::KindState::Syncing, "Listing")
    );
    let pods = vec![fixture.pod("default", "a", 5, "web")];
    fixture.list(0, pods, 100);
    while watch.names().is_empty() {
        watch.next().await;
    }
    assert_eq!(watch.names(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn unary_calls_wait_for_the_first_list_and_no_longer_than_they_may() {
    let mut fixture = Fixture::new();
    let request = proto::GetObjectRequest {
        scope: Some(Scope {
            name: "a".into(),
            namespaces: vec!["default".into()],
            ..pods()
        }),
        ..Default::default()
    };
    let before = tokio::time::Instant::now();
    let status = fixture
        .client()
        .get_object(request.clone())
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "KIND_NOT_SYNCED")
    );
    assert_eq!(before.elapsed().as_secs(), 10);
    assert!(status.get_error_details().retry_info().is_some());

    let mut hurried = tonic::Request::new(request.clone());
    hurried.set_timeout(Duration::from_secs(2));
    let before = tokio::time::Instant::now();
    fixture.client().get_object(hurried).await.unwrap_err();
    assert!(
        before.elapsed() < Duration::from_secs(2),
        "the answer is ours, not the deadline's"
    );

    let mut client = fixture.client();
    let waiting = client.get_object(request);
    let pods = vec![fixture.pod("default", "a", 5, "web")];
    fixture.list(0, pods, 100);
    let object = waiting.await.unwrap().into_inner().object.unwrap();
    assert_eq!(object.name, "a");
}

#[tokio::test(start_paused = true)]
async fn a_read_after_a_write_waits_for_the_version_that_the_write_returned() {
    let mut fixture = Fixture::with_pods(1);
    let get = |version: &str| proto::GetObjectRequest {
        scope: Some(Scope {
            name: "web-000".into(),
            namespaces: vec!["default".into()],
            ..pods()
        }),
        min_resource_version: version.into(),
        ..Default::default()
    };
    let before = tokio::time::Instant::now();
    let status = fixture.client().get_object(get("101")).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "VERSION_NOT_REACHED")
    );
    assert_eq!(before.elapsed().as_secs(), 3);
    let mut client = fixture.client();
    let (answer, ()) = tokio::join!(client.get_object(get("101")), async {
        tokio::task::yield_now().await;
        fixture.upsert("web-000", 101, "web");
    });
    assert_eq!(
        answer
            .unwrap()
            .into_inner()
            .object
            .unwrap()
            .resource_version,
        "101"
    );
    let status = client.get_object(get("abc")).await.unwrap_err();
    assert!(
        status
            .message()
            .starts_with("min_resource_version: \"abc\""),
        "{}",
        status.message()
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_is_one_snapshot_and_its_token_goes_on_from_it() {
    let mut fixture = Fixture::with_pods(500);
    let request = proto::ListObjectsRequest {
        scope: Some(pods()),
        ..Default::default()
    };
    let mut list = fixture
        .client()
        .list_objects(request)
        .await
        .unwrap()
        .into_inner();
    let mut names = Vec::new();
    let mut end = None;
    let mut revision = 101;
    while let Some(message) = list.message().await.unwrap() {
        assert!(end.is_none(), "the end is the last message");
        names.extend(message.objects.into_iter().map(|object| object.name));
        end = message.end;
        // The world goes on meanwhile.
        fixture.delete(&format!("web-{:03}", 600 - revision), revision);
        revision += 1;
    }
    let end = end.unwrap();
    assert_eq!((names.len(), end.count), (500, 500));
    assert!(names.is_sorted());
    let follow = WatchObjectsRequest {
        token: end.token,
        ..all_pods()
    };
    let mut watch = fixture.watch(follow).await;
    let mut events = Vec::new();
    while events.len() as u64 + 101 < revision {
        let message = watch.stream.message().await.unwrap().unwrap();
        events.extend(message.events);
    }
    assert!(
        events
            .iter()
            .all(|event| event.cause() == DeleteCause::Deleted)
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_that_nobody_takes_is_aborted() {
    let fixture = Fixture::with_pods(3000);
    let request = proto::ListObjectsRequest {
        scope: Some(pods()),
        ..Default::default()
    };
    let mut list = fixture
        .client()
        .list_objects(request)
        .await
        .unwrap()
        .into_inner();
    list.message().await.unwrap().unwrap();
    tokio::time::advance(Duration::from_secs(61)).await;
    fixture.api.consumers().expire(now());
    let status = loop {
        match list.message().await {
            Ok(Some(message)) => assert!(message.end.is_none()),
            Ok(None) => panic!("it must not look complete"),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Aborted, "SNAPSHOT_EXPIRED")
    );
}

#[tokio::test(start_paused = true)]
async fn views_and_fields_cut_what_is_sent() {
    let fixture = Fixture::with_pods(1);
    let scope = Scope {
        name: "web-000".into(),
        namespaces: vec!["default".into()],
        ..pods()
    };
    let mut client = fixture.client();
    let mut get = async |view: View, fields: &[&str]| {
        let request = proto::GetObjectRequest {
            scope: Some(scope.clone()),
            view: view.into(),
            fields: fields.iter().map(|field| (*field).into()).collect(),
            ..Default::default()
        };
        let object = client
            .get_object(request)
            .await?
            .into_inner()
            .object
            .unwrap();
        Ok::<_, Status>(String::from_utf8(object.object.to_vec()).unwrap())
    };
    assert_eq!(get(View::Keys, &[]).await.unwrap(), "");
    let metadata = get(View::Metadata, &[]).await.unwrap();
    assert!(
        metadata.contains("labels") && !metadata.contains("spec"),
        "{metadata}"
    );
    let masked = get(View::Full, &[".spec.containers[*].image"])
        .await
        .unwrap();
    assert!(
        masked.contains(r#""containers":[{"image":"i"}]"#) && !masked.contains("nodeName"),
        "{masked}"
    );
    let status = get(View::Full, &[".spec..x"]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().starts_with("fields: "),
        "{}",
        status.message()
    );
    let status = get(View::Keys, &[".spec"]).await.unwrap_err();
    assert!(
        status.message().starts_with("fields: VIEW_KEYS"),
        "{}",
        status.message()
    );
}

#[tokio::test(start_paused = true)]
async fn bad_scopes_are_refused_naming_the_field() {
    let fixture = Fixture::with_pods(1);
    let scope = |change: fn(&mut Scope)| {
        let mut scope = pods();
        change(&mut scope);
        scope
    };
    for (scope, code, message) in [
        (
            scope(|s| s.resource.clear()),
            Code::InvalidArgument,
            "scope.resource: name the kind",
        ),
        (
            scope(|s| s.resource = "cats".into()),
            Code::NotFound,
            "this daemon does not watch \"cats\"; it watches pods",
        ),
        (
            scope(|s| s.name = "a".into()),
            Code::InvalidArgument,
            "scope.name: pods live in namespaces",
        ),
        (
            scope(|s| s.namespaces = vec![String::new()]),
            Code::InvalidArgument,
            "scope.namespaces: one of them is empty",
        ),
        (
            scope(|s| s.label_selector = "a b".into()),
            Code::InvalidArgument,
            "scope.label_selector: ",
        ),
        (
            scope(|s| s.field_selector = "spec.foo=1".into()),
            Code::InvalidArgument,
            "scope.field_selector: ",
        ),
    ] {
        let request = WatchObjectsRequest {
            scope: Some(scope),
            ..Default::default()
        };
        let status = fixture.try_watch(request).await.err().unwrap();
        assert_eq!(status.code(), code, "{}", status.message());
        assert!(
            status.message().starts_with(message),
            "{}",
            status.message()
        );
        assert!(!reason(&status).is_empty());
    }
    let status = fixture
        .try_watch(WatchObjectsRequest::default())
        .await
        .err()
        .unwrap();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_too_large_is_no_gap() {
    let fixture = Fixture::with_pods(1);
    let scope = Some(Scope {
        label_selector: "a".repeat(300_000),
        ..pods()
    });
    let list = proto::ListObjectsRequest {
        scope: scope.clone(),
        ..Default::default()
    };
    let watch = WatchObjectsRequest {
        scope,
        ..Default::default()
    };
    let list = fixture.client().list_objects(list).await.err().unwrap();
    let watch = fixture.try_watch(watch).await.err().unwrap();
    for status in [list, watch] {
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().starts_with("request: it has more than"));
        assert_eq!(reason(&status), "INVALID_FIELD");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_comes_back_in_another_version_is_selected_by_that() {
    let mut fixture = Fixture::with_pods(1);
    let select = |selector: &str| WatchObjectsRequest {
        scope: Some(Scope {
            field_selector: selector.into(),
            ..pods()
        }),
        ..Default::default()
    };
    let mut watch = fixture.watch(select("spec.nodeName=node-web")).await;
    watch.initial().await;
    let mut lost = fixture.watch(select("spec.schedulerName!=x")).await;
    lost.initial().await;

    let identity = Identity::clone(&*fixture.kind.identity().unwrap());
    let paths = [".status.phase", ".spec.nodeName"].map(|path| path.parse().unwrap());
    let selectable = Selectable::default().with(paths).unwrap();
    let pruner = Pruner::new(&PruneRules::default()).unwrap();
    fixture.decoder = Decoder::new("v2", "Pod", true, &pruner, &selectable);
    fixture.kind.set_identity(Identity {
        selectable,
        version: "v2".into(),
        ..identity
    });
    fixture.writers[0].unsync();
    fixture.writers[0].retire(now());
    let listed = ["web", "db"].map(|app| fixture.pod("default", app, 120, app));
    fixture.writers[0].replace(
        listed.into(),
        &Unreadable::default(),
        120,
        History::New,
        now(),
    );
    watch.initial().await;
    assert_eq!(watch.names(), ["web"]);
    let (_, end) = lost.next().await;
    assert_eq!(end.r#type(), MarkType::End);
    let status = lost.try_next().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn only_metadata_is_never_passed_off_as_the_whole() {
    let mut fixture = Fixture::build(&[""], Limits::default(), true);
    fixture.list(0, Vec::new(), 100);
    let status = fixture.try_watch(all_pods()).await.err().unwrap();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "METADATA_ONLY")
    );
    assert!(
        status.message().contains("metadataOnly: true"),
        "{}",
        status.message()
    );
    let metadata = WatchObjectsRequest {
        view: View::Metadata.into(),
        ..all_pods()
    };
    fixture.watch(metadata).await.initial().await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_in_shards_is_one_stream_with_one_initial_state() {
    let mut fixture = Fixture::sharded(&["a", "b"], Limits::default());
    let pods = vec![fixture.pod("a", "x", 5, "web")];
    fixture.list(0, pods, 100);
    let mut watch = fixture.watch(all_pods()).await;
    let (_, mark) = watch.next().await;
    assert_eq!(
        mark.r#type(),
        MarkType::State,
        "nothing before all shards are complete"
    );
    let pods = vec![fixture.pod("b", "y", 7, "web")];
    fixture.list(1, pods, 200);
    while watch.held.is_empty() {
        let (_, mark) = watch.next().await;
        if mark.r#type() == MarkType::ResetEnd {
            assert!(mark.namespaces.is_empty(), "it covers all");
        }
    }
    assert_eq!(watch.names(), ["x", "y"]);

    let pod = fixture.pod("b", "y", 201, "db");
    fixture.writers[1].upsert(pod, 201);
    fixture.writers[1].publish(now());
    let (_, mark) = watch.next().await;
    let positions = mark.freshness.unwrap().positions;
    let revisions: Vec<_> = positions
        .iter()
        .map(|at| (at.namespace.as_str(), at.revision))
        .collect();
    assert_eq!(revisions, [("a", 100), ("b", 201)]);

    // One shard's upstream is restored: its part is sent anew, and only that.
    fixture.writers[0].replace(Vec::new(), &Unreadable::default(), 50, History::New, now());
    let (_, mark) = watch.next().await;
    assert_eq!(
        (mark.r#type(), mark.reason.as_str()),
        (MarkType::Reset, "HISTORY_VOID")
    );
    assert_eq!(mark.namespaces, ["a"]);

    let unwatched = WatchObjectsRequest {
        scope: Some(Scope {
            namespaces: vec!["c".into()],
            ..self::pods()
        }),
        ..Default::default()
    };
    let status = fixture.try_watch(unwatched).await.err().unwrap();
    assert!(
        status.message().contains("namespaces.include"),
        "{}",
        status.message()
    );
}

#[tokio::test(start_paused = true)]
async fn a_state_that_begins_anew_is_announced_before_any_of_it_and_no_token_points_into_it() {
    let mut fixture = Fixture::sharded(&["a", "b"], Limits::default());
    let many = |fixture: &Fixture, namespace: &str, version: u64| {
        let name = |n| format!("{namespace}-{n:02}");
        (0..20)
            .map(|n| fixture.pod(namespace, &name(n), version, "web"))
            .collect::<Vec<_>>()
    };
    for (shard, namespace) in ["a", "b"].into_iter().enumerate() {
        let pods = many(&fixture, namespace, 1);
        fixture.list(shard, pods, 100);
    }
    let request = WatchObjectsRequest {
        max_batch_bytes: 1024,
        ..all_pods()
    };
    let mut watch = fixture.watch(request).await;
    loop {
        let message = watch.stream.message().await.unwrap().unwrap();
        if message.events.iter().any(|event| event.namespace == "b") {
            break;
        }
    }
    // A new history, which one of the two shards sees later.
    for writer in &mut fixture.writers {
        writer.unsync();
        writer.retire(now());
    }
    let again = |fixture: &mut Fixture, shard: usize, pods| {
        fixture.writers[shard].replace(pods, &Unreadable::default(), 50, History::New, now());
    };
    let pods = many(&fixture, "b", 2);
    again(&mut fixture, 1, pods);
    let mut late = false;
    let mut restarted = false;
    loop {
        let message = watch.stream.message().await.unwrap().unwrap();
        // What was on its way may still come.
        let new = message.events.iter().any(|event| event.revision == 50);
        assert!(restarted || !new, "{message:?}");
        let Some(mark) = message.mark else { continue };
        match mark.r#type() {
            MarkType::Reset => restarted = true,
            MarkType::ResetEnd => break,
            _ => {
                assert!(mark.token.is_empty(), "{mark:?}");
                if !std::mem::replace(&mut late, true) {
                    let pods = many(&fixture, "a", 2);
                    again(&mut fixture, 0, pods);
                }
            }
        }
    }
    assert!(late && restarted);
}

#[tokio::test(start_paused = true)]
async fn a_removed_kind_ends_its_streams_after_its_deletions() {
    let mut fixture = Fixture::with_pods(1);
    let mut watch = fixture.watch(all_pods()).await;
    watch.initial().await;
    fixture.writers[0].retire(now());
    fixture.writers[0].set_status(Phase::Removed, "NotServed", "its CRD was removed");
    let mut end = Mark::default();
    while end.r#type() != MarkType::End {
        end = watch.next().await.1;
    }
    assert_eq!(end.reason, "KIND_REMOVED");
    assert!(watch.names().is_empty());
    let status = watch.try_next().await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "KIND_REMOVED")
    );
    // Whoever comes now waits for it to be back.
    let mut later = fixture.watch(all_pods()).await;
    let (_, mark) = later.next().await;
    assert_eq!(mark.freshness.unwrap().state(), proto::KindState::Removed);
}

#[tokio::test(start_paused = true)]
async fn a_draining_server_ends_streams_with_a_token_and_when_to_come_back() {
    let fixture = Fixture::with_pods(1);
    let mut watch = fixture.watch(all_pods()).await;
    watch.initial().await;
    fixture.shutdown.drain();
    let (_, end) = watch.next().await;
    assert_eq!(
        (end.r#type(), end.reason.as_str()),
        (MarkType::End, "DRAINING")
    );
    assert!(!end.token.is_empty() && end.retry_after.is_some());
    let status = watch.try_next().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn large_states_and_batches_come_in_messages_of_the_size_asked_for() {
    let mut fixture = Fixture::with_pods(300);
    let request = WatchObjectsRequest {
        max_batch_bytes: 4096,
        ..all_pods()
    };
    let mut watch = fixture.watch(request).await;
    let size = |message: &WatchObjectsResponse| prost::Message::encoded_len(message);
    let mut events = 0;
    while events < 300 {
        let message = watch.stream.message().await.unwrap().unwrap();
        assert!(size(&message) < 4096 + 1024, "{}", size(&message));
        events += message.events.len();
    }
    while watch
        .stream
        .message()
        .await
        .unwrap()
        .unwrap()
        .mark
        .is_none()
    {}
    for n in 0..300 {
        let revision = 101 + n;
        let pod = fixture.pod("default", &format!("web-{n:03}"), revision, "web");
        fixture.writers[0].upsert(pod, revision);
    }
    fixture.writers[0].publish(now());
    let mut events = 0;
    while events < 300 {
        let message = watch.stream.message().await.unwrap().unwrap();
        assert!(size(&message) < 4096 + 1024, "{}", size(&message));
        events += message.events.len();
        assert!(message.mark.is_none(), "a token comes once all is sent");
    }
}

#[tokio::test(start_paused = true)]
async fn introspection_tells_of_kinds_and_consumers() {
    use proto::introspection_service_server::IntrospectionService;
    let fixture = Fixture::with_pods(2);
    let mut watch = fixture.watch(labelled("web")).await;
    watch.initial().await;
    let introspection = introspection::Introspection::new(fixture.api.clone());
    let kinds = introspection
        .list_kinds(tonic::Request::new(Default::default()))
        .await
        .unwrap()
        .into_inner()
        .kinds;
    let [kind] = kinds.as_slice() else {
        panic!("{kinds:?}")
    };
    assert_eq!(
        (
            kind.resource.as_str(),
            kind.api_version.as_str(),
            kind.kind.as_str()
        ),
        ("pods", "v1", "Pod")
    );
    assert_eq!((kind.objects, kind.consumers), (2, 1));
    assert!(kind.object_bytes > 0 && kind.aliases.contains(&"po".to_owned()));

    let request = tonic::Request::new(proto::ListConsumersRequest {
        resource: "po".into(),
    });
    let consumers = introspection
        .list_consumers(request)
        .await
        .unwrap()
        .into_inner()
        .consumers;
    let [consumer] = consumers.as_slice() else {
        panic!("{consumers:?}")
    };
    assert_eq!(
        (consumer.method.as_str(), consumer.events_sent),
        ("WatchObjects", 2)
    );
    assert_eq!(consumer.scope.as_ref().unwrap().label_selector, "app=web");
    drop(watch);
    let consumers = introspection
        .list_consumers(tonic::Request::new(Default::default()))
        .await
        .unwrap()
        .into_inner();
    assert!(
        consumers.consumers.is_empty(),
        "a closed stream is forgotten"
    );
}
