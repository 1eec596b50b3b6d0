//! Verdicts as a client sees them, over a board and a cache that the test writes. In one process and without
//! sockets, so that time can be paused.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tonic::{Code, Streaming};
use tonic_types::StatusExt;

use super::*;
use crate::{
    api::Settings,
    cache::{Catalog, Cause, History, Limits, Phase, Unreadable, Writer, kind::tests::pods},
    object::{Labels, Object, tests::object},
    proto::{
        DeleteCause, EventType, MarkType, ReadinessChanges, ReadinessScope, ReadinessState,
        WaitFor, WaitOutcome, readiness_service_client::ReadinessServiceClient,
    },
    readiness::{Answer, Basis, Board, Contribution, Finding, Parts, State, Window},
    shutdown::Shutdown,
};

type Client = ReadinessServiceClient<ReadinessServiceServer<Readiness>>;

/// What the API server would say of any object: nothing known, or these.
#[derive(Default)]
struct Server {
    seen: Mutex<Option<Result<Option<Seen>, String>>>,
    asked: AtomicUsize,
}

impl Live for Server {
    fn see<'a>(
        &'a self,
        _: &'a Identity,
        _: &'a Key,
    ) -> BoxFuture<'a, Result<Option<Seen>, String>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let seen = self.seen.lock().unwrap().clone();
        Box::pin(async move { seen.unwrap_or_else(|| Err("cannot be reached".to_owned())) })
    }
}

/// Pods and their verdicts.
struct Fixture {
    writer: Writer<Object>,
    judged: Arc<Judged>,
    server: Arc<Server>,
    api: Api,
    shutdown: Shutdown,
    revision: u64,
}

impl Fixture {
    fn new() -> Self {
        let mut writer = Writer::new("", Limits::default(), now());
        let kind = Kind::new("pods", false, false, 0, vec![writer.shard().clone()]);
        kind.set_identity(pods());
        let nodes = Kind::new("nodes", false, false, 0, Vec::new());
        let unreadable = Unreadable::default();
        writer.replace(Vec::new(), &unreadable, 10, History::Same, now());
        writer.set_status(Phase::Live, "", "");
        let board = Board::new(["pods"], Limits::default());
        let judged = board.kind("pods").unwrap().clone();
        judged.expect([]);
        let (server, shutdown) = (Arc::new(Server::default()), Shutdown::new());
        let catalog = Catalog::new(vec![Arc::new(kind), Arc::new(nodes)]);
        let live: Arc<dyn Live> = server.clone();
        let settings = Settings::default();
        Self {
            api: Api::with_board(
                catalog,
                board,
                Some(live),
                None,
                settings,
                crate::api::Access::Open,
                shutdown.clone(),
            ),
            writer,
            judged,
            server,
            shutdown,
            revision: 10,
        }
    }

    fn client(&self) -> Client {
        ReadinessServiceClient::new(service(self.api.clone()))
    }

    /// The pod has changed, and is judged.
    fn put(&mut self, name: &str, uid: &str, state: State) -> u64 {
        self.change(name, uid);
        self.judge(name, uid, state, Labels::default());
        self.revision
    }

    fn change(&mut self, name: &str, uid: &str) {
        self.revision += 1;
        let pod = Object {
            uid: uid.into(),
            resource_version: self.revision.to_string().into(),
            ..object("default", name)
        };
        self.writer.upsert(Arc::new(pod), self.revision);
        self.writer.publish(now());
    }

    fn judge(&self, name: &str, uid: &str, state: State, labels: Labels) {
        let basis = Basis::Object(now());
        let finding = Finding {
            resource: "pods".into(),
            uid: uid.into(),
            resource_version: self.revision.to_string().into(),
            generation: Some(i64::try_from(self.revision).unwrap()),
            observed_generation: None,
            labels,
            answer: Answer::new(state, "Because", "of this", basis),
            conditions: Vec::new(),
            parts: Parts::default(),
        };
        self.judged.publish(&Key::new("default", name), finding);
    }

    fn delete(&mut self, name: &str) {
        self.revision += 1;
        let key = Key::new("default", name);
        self.writer
            .delete(&key, None, self.revision, Cause::Deleted);
        self.writer.publish(now());
        self.judged.gone(&key);
    }

    /// An event or a bookmark.
    fn prove(&self) {
        self.writer.prove(now());
    }

    fn says(&self, seen: Option<(&str, u64)>) {
        let seen = seen.map(|(uid, version)| Seen {
            uid: uid.to_owned(),
            resource_version: version.to_string(),
        });
        *self.server.seen.lock().unwrap() = Some(Ok(seen));
    }

    async fn watch(&self, request: proto::WatchReadinessRequest) -> Told {
        let answer = self.client().watch_readiness(request).await.unwrap();
        Told {
            stream: answer.into_inner(),
            token: bytes::Bytes::new(),
        }
    }

    async fn wait(&self, target: proto::WaitTarget, wait_for: WaitFor) -> Wait {
        let request = proto::WaitReadinessRequest {
            targets: vec![target],
            wait_for: wait_for.into(),
            timeout: Some(prost_types::Duration {
                seconds: 30,
                nanos: 0,
            }),
            ..Default::default()
        };
        Wait(
            self.client()
                .wait_readiness(request)
                .await
                .unwrap()
                .into_inner(),
        )
    }
}

fn target(name: &str) -> proto::Target {
    proto::Target {
        resource: "po".into(),
        namespace: "default".into(),
        name: name.into(),
    }
}

fn waited(name: &str) -> proto::WaitTarget {
    proto::WaitTarget {
        target: Some(target(name)),
        ..Default::default()
    }
}

/// A stream of verdicts.
struct Told {
    stream: Streaming<proto::WatchReadinessResponse>,
    token: bytes::Bytes,
}

impl Told {
    /// What comes without anything happening.
    async fn all(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let next = tokio::time::timeout(Duration::from_millis(10), self.stream.message());
            let Ok(message) = next.await else { return all };
            let Ok(Some(message)) = message else {
                all.push("end".to_owned());
                return all;
            };
            for event in message.events {
                let verdict = event.verdict.unwrap_or_default();
                let name = verdict.target.unwrap_or_default().name;
                all.push(match EventType::try_from(event.r#type) {
                    Ok(EventType::Upsert) => {
                        let state = ReadinessState::try_from(verdict.state).unwrap();
                        let state = state.as_str_name().trim_start_matches("READINESS_STATE_");
                        format!("{name} {state}")
                    }
                    _ => {
                        let cause = DeleteCause::try_from(event.cause).unwrap();
                        format!("{name} {}", cause.as_str_name())
                    }
                });
            }
            if let Some(mark) = message.mark {
                if !mark.token.is_empty() {
                    self.token = mark.token.clone();
                }
                match MarkType::try_from(mark.r#type).unwrap() {
                    MarkType::Reset => all.push(format!("reset {}", mark.reason)),
                    MarkType::ResetEnd => all.push("reset end".to_owned()),
                    MarkType::End => all.push(format!("end {}", mark.reason)),
                    MarkType::State => all.push("state".to_owned()),
                    _ => {}
                }
            }
        }
    }
}

/// An open wait.
struct Wait(Streaming<proto::WaitReadinessResponse>);

impl Wait {
    /// The outcome, and what is missing. `None` while it goes on for so long.
    async fn outcome(&mut self, patience: Duration) -> Option<(WaitOutcome, String)> {
        let all = async {
            loop {
                let answer = self
                    .0
                    .message()
                    .await
                    .unwrap()
                    .expect("an outcome comes first");
                let outcome = WaitOutcome::try_from(answer.outcome).unwrap();
                if outcome != WaitOutcome::Unspecified {
                    let missing = answer.missing.iter().map(|missing| missing.reason.as_str());
                    assert!(self.0.message().await.unwrap().is_none(), "it is the last");
                    return (outcome, missing.collect::<Vec<_>>().join(","));
                }
            }
        };
        tokio::time::timeout(patience, all).await.ok()
    }

    async fn goes_on(&mut self) -> bool {
        self.outcome(Duration::from_secs(1)).await.is_none()
    }

    async fn is_satisfied(&mut self) -> bool {
        let outcome = self.outcome(Duration::from_secs(1)).await;
        outcome == Some((WaitOutcome::Satisfied, String::new()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_verdict_is_given_with_all_that_is_known() {
    let mut fixture = Fixture::new();
    fixture.put("a", "1", State::NotReady);
    let get = |name: &str| {
        let request = proto::GetReadinessRequest {
            target: Some(target(name)),
        };
        let mut client = fixture.client();
        async move { client.get_readiness(request).await.unwrap().into_inner() }
    };
    let answer = get("a").await;
    let verdict = answer.verdict.unwrap();
    assert_eq!(verdict.state(), ReadinessState::NotReady);
    assert_eq!(
        (verdict.reason.as_str(), verdict.message.as_str()),
        ("Because", "of this")
    );
    assert_eq!(
        (verdict.uid.as_str(), verdict.resource_version.as_str()),
        ("1", "11")
    );
    assert_eq!(verdict.target.unwrap().resource, "pods");
    assert!(verdict.evidence.unwrap().from.is_some() && verdict.since.is_some());
    assert_eq!(answer.freshness.unwrap().state(), proto::KindState::Live);

    let absent = get("b").await.verdict.unwrap();
    assert_eq!(
        (absent.state(), absent.reason.as_str()),
        (ReadinessState::Gone, "NotFound")
    );
    fixture
        .judged
        .set_outdated(Some(("Stale", "nothing was heard")));
    let absent = get("b").await.verdict.unwrap();
    assert_eq!(absent.state(), ReadinessState::Unknown, "nobody can tell");
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_target_is_said_by_field() {
    let fixture = Fixture::new();
    let error = |target: proto::Target| {
        let mut client = fixture.client();
        let request = proto::GetReadinessRequest {
            target: Some(target),
        };
        async move { client.get_readiness(request).await.unwrap_err() }
    };
    let of = |resource: &str, namespace: &str, name: &str| proto::Target {
        resource: resource.into(),
        namespace: namespace.into(),
        name: name.into(),
    };
    for (target, code, reason) in [
        (
            of("", "default", "a"),
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
        (of("pods", "", "a"), Code::InvalidArgument, "INVALID_FIELD"),
        (
            of("pods", "default", ""),
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
        (
            of("pods", "default", "a/b"),
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
        (
            of("things", "default", "a"),
            Code::NotFound,
            "KIND_NOT_CONFIGURED",
        ),
        (of("nodes", "", "a"), Code::NotFound, "KIND_NOT_JUDGED"),
    ] {
        let status = error(target.clone()).await;
        let info = status.get_error_details().error_info().unwrap().clone();
        assert_eq!(
            (status.code(), info.reason.as_str()),
            (code, reason),
            "{target:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_from_a_list_and_from_its_own_tokens() {
    let mut fixture = Fixture::new();
    fixture.put("a", "1", State::Ready);
    fixture.put("b", "2", State::NotReady);
    let mut list = fixture
        .client()
        .list_readiness(proto::ListReadinessRequest::default())
        .await
        .unwrap()
        .into_inner();
    let first = list.message().await.unwrap().unwrap();
    assert_eq!(first.verdicts.len(), 2);
    let end = list.message().await.unwrap().unwrap().end.unwrap();
    assert_eq!((end.count, end.kinds[0].resource.as_str()), (2, "pods"));

    let from = |token: bytes::Bytes| proto::WatchReadinessRequest {
        token,
        ..Default::default()
    };
    let mut told = fixture.watch(from(end.token)).await;
    assert!(told.all().await.is_empty());
    fixture.put("b", "2", State::Ready);
    assert_eq!(told.all().await, ["b READY"]);
    let token = told.token.clone();
    drop(told);
    fixture.put("b", "3", State::NotReady);
    fixture.delete("a");
    let mut told = fixture.watch(from(token.clone())).await;
    assert_eq!(
        told.all().await,
        [
            "b DELETE_CAUSE_REPLACED",
            "b NOT_READY",
            "a DELETE_CAUSE_DELETED"
        ]
    );
    let mut new = fixture.watch(from(bytes::Bytes::new())).await;
    assert_eq!(
        new.all().await,
        ["reset INITIAL", "b NOT_READY", "reset end"]
    );

    let other = Fixture::new();
    let mut elsewhere = other.watch(from(token.clone())).await;
    assert_eq!(
        elsewhere.all().await,
        ["reset HISTORY_DIFFERS", "reset end"]
    );
    let transitions = proto::WatchReadinessRequest {
        changes: ReadinessChanges::Transitions.into(),
        ..from(token)
    };
    let refused = fixture.client().watch_readiness(transitions).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    fixture.shutdown.drain();
    assert_eq!(told.all().await, ["end DRAINING", "end"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_transitions_hears_of_nothing_else_and_loses_none() {
    let mut fixture = Fixture::new();
    fixture.put("a", "1", State::Ready);
    let request = proto::WatchReadinessRequest {
        changes: ReadinessChanges::Transitions.into(),
        ..Default::default()
    };
    let mut told = fixture.watch(request.clone()).await;
    assert_eq!(told.all().await, ["reset INITIAL", "a READY", "reset end"]);
    fixture.put("a", "1", State::Ready);
    fixture.put("a", "1", State::Ready);
    assert!(told.all().await.is_empty());
    fixture.put("a", "1", State::NotReady);
    fixture.put("a", "1", State::NotReady);
    assert_eq!(
        told.all().await,
        ["a NOT_READY"],
        "though its latest change was none"
    );
    fixture.put("a", "1", State::Ready);
    fixture.put("a", "1", State::NotReady);
    assert_eq!(told.all().await, ["a NOT_READY"], "it was ready in between");
    let token = told.token.clone();
    fixture.put("a", "1", State::Unknown);
    fixture.put("a", "1", State::Unknown);
    let mut again = fixture
        .watch(proto::WatchReadinessRequest { token, ..request })
        .await;
    assert_eq!(again.all().await, ["a UNKNOWN"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_told_of_its_scope_only() {
    let mut fixture = Fixture::new();
    let scope = ReadinessScope {
        resources: vec!["pod".into()],
        namespaces: vec!["default".into()],
        names: vec!["a".into(), "b".into()],
        label_selector: "app=web".into(),
        states: vec![ReadinessState::NotReady.into()],
    };
    let web = || [("app", "web")].into_iter().collect::<Labels>();
    fixture.put("a", "1", State::NotReady);
    let request = proto::WatchReadinessRequest {
        scope: Some(scope),
        changes: ReadinessChanges::Transitions.into(),
        ..Default::default()
    };
    let mut told = fixture.watch(request).await;
    assert_eq!(told.all().await, ["reset INITIAL", "reset end"]);
    fixture.judge("a", "1", State::NotReady, web());
    fixture.judge("c", "3", State::NotReady, web());
    assert_eq!(told.all().await, ["a NOT_READY"], "it has the label now");
    fixture.judge("a", "1", State::Ready, web());
    assert_eq!(told.all().await, ["a DELETE_CAUSE_LEFT_SELECTOR"]);
    for (scope, field) in [
        (
            ReadinessScope {
                names: vec![String::new()],
                ..Default::default()
            },
            "scope.names",
        ),
        (
            ReadinessScope {
                label_selector: "a=(".into(),
                ..Default::default()
            },
            "scope.label_selector",
        ),
        (
            ReadinessScope {
                states: vec![ReadinessState::Gone.into()],
                ..Default::default()
            },
            "scope.states",
        ),
    ] {
        let request = proto::WatchReadinessRequest {
            scope: Some(scope),
            ..Default::default()
        };
        let status = fixture.client().watch_readiness(request).await.unwrap_err();
        assert!(status.message().starts_with(field), "{}", status.message());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_says_when_verdicts_fall_out_of_date() {
    let mut fixture = Fixture::new();
    fixture.put("a", "1", State::Ready);
    let mut told = fixture.watch(proto::WatchReadinessRequest::default()).await;
    told.all().await;
    fixture
        .judged
        .set_outdated(Some(("Stale", "nothing was heard")));
    let all = told.all().await;
    assert!(
        all.contains(&"state".to_owned()) && all.contains(&"a UNKNOWN".to_owned()),
        "{all:?}"
    );
    fixture.judged.set_outdated(None);
    assert!(told.all().await.contains(&"a READY".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_wait_after_a_write_is_not_satisfied_by_what_was_before_it() {
    let mut fixture = Fixture::new();
    let before = fixture.put("a", "1", State::Ready);
    // The caller has just written version `before + 1`, which has not arrived here.
    fixture.says(Some(("1", before + 1)));
    let mut by_server = fixture.wait(waited("a"), WaitFor::Ready).await;
    let by_version = proto::WaitTarget {
        min_resource_version: (before + 1).to_string(),
        ..waited("a")
    };
    let mut by_version = fixture.wait(by_version, WaitFor::Ready).await;
    let by_generation = proto::WaitTarget {
        min_generation: i64::try_from(before + 1).unwrap(),
        ..waited("a")
    };
    let mut by_generation = fixture.wait(by_generation, WaitFor::Ready).await;
    assert!(
        by_server.goes_on().await && by_version.goes_on().await && by_generation.goes_on().await
    );
    fixture.change("a", "1");
    fixture.prove();
    assert!(
        by_server.goes_on().await && by_version.goes_on().await && by_generation.goes_on().await,
        "it is here, and not judged"
    );
    fixture.judge("a", "1", State::Ready, Labels::default());
    assert!(by_server.is_satisfied().await);
    assert!(by_version.is_satisfied().await);
    assert!(by_generation.is_satisfied().await);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_says_what_it_rests_on_has_nobody_asked() {
    let mut fixture = Fixture::new();
    let version = fixture.put("a", "1", State::Ready);
    fixture.says(Some(("1", version)));
    let by_version = proto::WaitTarget {
        min_resource_version: version.to_string(),
        ..waited("a")
    };
    let by_generation = proto::WaitTarget {
        uid: "1".to_owned(),
        min_generation: i64::try_from(version).unwrap(),
        ..waited("a")
    };
    for target in [by_version, by_generation] {
        let mut wait = fixture.wait(target, WaitFor::Ready).await;
        assert!(wait.is_satisfied().await);
    }
    assert_eq!(fixture.server.asked.load(Ordering::Relaxed), 0);
    // It was deleted and created again, at generation 1, which has not arrived here.
    fixture.says(Some(("2", version + 2)));
    let created = proto::WaitTarget {
        min_generation: 1,
        ..waited("a")
    };
    let mut wait = fixture.wait(created, WaitFor::Ready).await;
    assert!(wait.goes_on().await, "the verdict is on the one before it");
    assert_eq!(fixture.server.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn it_is_no_use_to_wait_for_what_a_newer_one_of_its_name_has_replaced() {
    let mut fixture = Fixture::new();
    let version = fixture.put("a", "2", State::Ready);
    let pinned = |seen: u64| proto::WaitTarget {
        uid: "1".to_owned(),
        min_resource_version: seen.to_string(),
        ..waited("a")
    };
    let wait = async |seen| {
        let mut wait = fixture.wait(pinned(seen), WaitFor::Ready).await;
        wait.outcome(Duration::from_secs(1)).await
    };
    assert_eq!(
        wait(version - 1).await,
        Some((WaitOutcome::Impossible, "OtherUid".to_owned()))
    );
    assert_eq!(wait(version + 1).await, None, "that one may be yet to come");
}

#[tokio::test(start_paused = true)]
async fn where_the_api_server_cannot_be_asked_the_cache_has_to_be_proven_current() {
    let mut fixture = Fixture::new();
    fixture.put("a", "1", State::Ready);
    tokio::time::advance(Duration::from_secs(1)).await;
    let mut wait = fixture.wait(waited("a"), WaitFor::Ready).await;
    assert!(wait.goes_on().await, "it was so before the call came");
    fixture.prove();
    assert!(wait.is_satisfied().await);
    let asked = fixture.server.asked.load(Ordering::Relaxed);
    assert_eq!(asked, 1);
}

#[tokio::test(start_paused = true)]
async fn the_api_servers_word_satisfies_a_wait_at_once() {
    let mut fixture = Fixture::new();
    let version = fixture.put("a", "1", State::Ready);
    fixture.says(Some(("1", version)));
    assert!(
        fixture
            .wait(waited("a"), WaitFor::Ready)
            .await
            .is_satisfied()
            .await
    );
    // It is there no more, which the cache has not heard of.
    fixture.says(None);
    let mut wait = fixture.wait(waited("a"), WaitFor::Ready).await;
    assert!(wait.goes_on().await);
    fixture.delete("a");
    assert!(wait.goes_on().await);
    fixture.put("a", "2", State::Ready);
    assert!(wait.is_satisfied().await);
}

#[tokio::test(start_paused = true)]
async fn at_its_timeout_a_wait_says_what_is_missing_and_why() {
    let mut fixture = Fixture::new();
    let version = fixture.put("a", "1", State::NotReady);
    fixture.says(Some(("1", version)));
    let mut wait = fixture.wait(waited("a"), WaitFor::Ready).await;
    let progress = wait.0.message().await.unwrap().unwrap();
    assert_eq!(progress.outcome(), WaitOutcome::Unspecified);
    assert_eq!(
        (progress.missing[0].reason.as_str(), progress.satisfied),
        ("Because", 0)
    );
    assert_eq!(progress.verdicts.len(), 1);
    fixture.put("a", "1", State::Unknown);
    let progress = wait.0.message().await.unwrap().unwrap();
    assert_eq!(progress.verdicts[0].state(), ReadinessState::Unknown);
    let outcome = wait.outcome(Duration::from_secs(60)).await;
    assert_eq!(outcome, Some((WaitOutcome::TimedOut, "Because".to_owned())));
    fixture.says(None);
    let outcome = fixture
        .wait(waited("b"), WaitFor::Ready)
        .await
        .outcome(Duration::from_secs(60))
        .await;
    assert_eq!(
        outcome,
        Some((WaitOutcome::TimedOut, "NotFound".to_owned()))
    );
}

#[tokio::test(start_paused = true)]
async fn gone_is_believed_only_when_the_api_server_agrees() {
    let mut fixture = Fixture::new();
    let version = fixture.put("a", "1", State::Ready);
    fixture.says(Some(("1", version)));
    let mut wait = fixture.wait(waited("a"), WaitFor::Gone).await;
    assert!(wait.goes_on().await);
    fixture.delete("a");
    assert!(wait.goes_on().await, "it left a selector, and still exists");
    fixture.says(None);
    assert!(wait.is_satisfied().await);
    assert!(
        fixture
            .wait(waited("a"), WaitFor::Gone)
            .await
            .is_satisfied()
            .await
    );
}

#[tokio::test(start_paused = true)]
async fn a_pinned_uid_is_waited_for_and_no_other() {
    let mut fixture = Fixture::new();
    let pinned = |uid: &str| proto::WaitTarget {
        uid: uid.to_owned(),
        ..waited("a")
    };
    let version = fixture.put("a", "2", State::Ready);
    fixture.says(Some(("2", version)));
    assert!(
        fixture
            .wait(pinned("2"), WaitFor::Ready)
            .await
            .is_satisfied()
            .await
    );
    let outcome = fixture
        .wait(pinned("1"), WaitFor::Ready)
        .await
        .outcome(Duration::from_secs(1))
        .await;
    assert_eq!(
        outcome,
        Some((WaitOutcome::Impossible, "OtherUid".to_owned()))
    );
    assert!(
        fixture
            .wait(pinned("1"), WaitFor::Gone)
            .await
            .is_satisfied()
            .await
    );
    assert!(
        fixture
            .wait(pinned("2"), WaitFor::Gone)
            .await
            .goes_on()
            .await
    );
}

#[tokio::test(start_paused = true)]
async fn probes_count_only_if_they_were_sent_after_the_call_came() {
    let mut fixture = Fixture::new();
    let version = fixture.put("a", "1", State::Ready);
    fixture.says(Some(("1", version)));
    let probe = |fixture: &Fixture, version: u64| {
        let window = Window {
            from: now(),
            to: now(),
        };
        let expires = now() + Duration::from_secs(10);
        let basis = Basis::Probes { window, expires };
        let answer = Answer::new(State::Ready, "Stable", "", basis);
        let key = Key::new("default", "a");
        let conditions = vec![("SafeToDisrupt".into(), answer)];
        let added = Contribution::new("1", &version.to_string(), conditions);
        fixture.judged.contribute(&key, "test", added);
    };
    let mut wait = fixture.wait(waited("a"), WaitFor::SafeToDisrupt).await;
    assert_eq!(
        wait.0.message().await.unwrap().unwrap().missing[0].reason,
        "NoSuchCondition"
    );
    drop(wait);
    probe(&fixture, version);
    tokio::time::advance(Duration::from_millis(1)).await;
    let (wishes, wished) = std::sync::mpsc::channel();
    fixture.judged.on_wish(move |key| {
        let _ = wishes.send(key.clone());
    });
    let mut wait = fixture.wait(waited("a"), WaitFor::SafeToDisrupt).await;
    assert!(wait.goes_on().await);
    assert_eq!(wished.try_recv(), Ok(Key::new("default", "a")));
    probe(&fixture, version - 1);
    assert!(
        wait.goes_on().await,
        "who probed had not seen the version yet"
    );
    probe(&fixture, version);
    assert!(wait.is_satisfied().await);
}

#[tokio::test(start_paused = true)]
async fn all_targets_have_to_be_as_asked_for_at_once() {
    let mut fixture = Fixture::new();
    fixture.put("a", "1", State::Ready);
    fixture.put("b", "2", State::NotReady);
    let request = proto::WaitReadinessRequest {
        targets: vec![waited("a"), waited("b")],
        ..Default::default()
    };
    let answer = fixture.client().wait_readiness(request).await.unwrap();
    let mut wait = Wait(answer.into_inner());
    tokio::time::advance(Duration::from_secs(1)).await;
    fixture.prove();
    assert!(wait.goes_on().await);
    fixture.put("a", "1", State::NotReady);
    fixture.put("b", "2", State::Ready);
    assert!(wait.goes_on().await);
    fixture.put("a", "1", State::Ready);
    assert!(wait.is_satisfied().await);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_asks_for_nonsense_is_refused() {
    let fixture = Fixture::new();
    let ask = |request: proto::WaitReadinessRequest| {
        let mut client = fixture.client();
        async move {
            client
                .wait_readiness(request)
                .await
                .unwrap_err()
                .message()
                .to_owned()
        }
    };
    let request = |change: &dyn Fn(&mut proto::WaitReadinessRequest)| {
        let mut request = proto::WaitReadinessRequest {
            targets: vec![waited("a")],
            ..Default::default()
        };
        change(&mut request);
        request
    };
    for (request, field) in [
        (request(&|request| request.targets.clear()), "targets: "),
        (request(&|request| request.wait_for = 77), "wait_for: "),
        (
            request(&|request| request.condition = "Ready".into()),
            "condition: ",
        ),
        (
            request(&|request| request.wait_for = WaitFor::Condition.into()),
            "condition: ",
        ),
        (
            request(&|request| {
                request.timeout = Some(prost_types::Duration {
                    seconds: 100_000,
                    nanos: 0,
                })
            }),
            "timeout: ",
        ),
        (
            request(&|request| {
                request.timeout = Some(prost_types::Duration {
                    seconds: i64::MIN,
                    nanos: 0,
                })
            }),
            "timeout: ",
        ),
        (
            request(&|request| request.targets[0].min_resource_version = "x".into()),
            "targets.min_resource_version: ",
        ),
        (
            request(&|request| request.targets[0].min_generation = -1),
            "targets.min_generation: ",
        ),
    ] {
        let message = ask(request).await;
        assert!(message.starts_with(field), "{message}");
    }
}
