//! Tokens that are ahead of the replica that they come to: is it late, or were they given before etcd was restored?

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures::{FutureExt, future::BoxFuture};

use super::*;
use crate::{
    proof::{Collection, Listed, Watched},
    proto::OnGap,
};

/// An API server at this revision, or one that cannot be asked.
#[derive(Default)]
struct Server {
    revision: AtomicU64,
    asked: AtomicUsize,
}

impl Ask for Arc<Server> {
    fn get<'a>(
        &'a self,
        _: &'a Identity,
        _: &'a Key,
    ) -> BoxFuture<'a, Result<Option<String>, String>> {
        async { Err("not asked".to_owned()) }.boxed()
    }

    fn list<'a>(
        &'a self,
        _: Collection<'a>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Listed, String>> {
        assert_eq!(limit, 1, "only the revision counts");
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = match self.revision.load(Ordering::Relaxed) {
            0 => Err("connection refused".to_owned()),
            revision => Ok(Listed {
                revision,
                versions: Vec::new(),
                complete: false,
            }),
        };
        async { answer }.boxed()
    }

    fn watch<'a>(
        &'a self,
        _: Collection<'a>,
        _: u64,
        _: u64,
    ) -> BoxFuture<'a, Result<Watched, String>> {
        async { Err("not asked".to_owned()) }.boxed()
    }
}

/// A replica at revision 100 and its API server, and a request with the token of another one that was at 500.
async fn behind(revision: u64) -> (Fixture, Arc<Server>, WatchObjectsRequest) {
    let mut other = Fixture::with_pods(2);
    other.upsert("web-000", 500, "web");
    let mut watch = other.watch(all_pods()).await;
    watch.initial().await;
    let server = Arc::new(Server::default());
    server.revision.store(revision, Ordering::Relaxed);
    let fixture = Fixture::with_pods(2).asking(server.clone());
    let request = WatchObjectsRequest {
        token: watch.token.into(),
        ..all_pods()
    };
    (fixture, server, request)
}

#[tokio::test(start_paused = true)]
async fn where_the_api_server_is_behind_the_token_too_its_history_is_void() {
    let (fixture, server, request) = behind(150).await;
    let begun = tokio::time::Instant::now();
    let mut watch = fixture.watch(request.clone()).await;
    let (_, mark) = watch.next().await;
    assert_eq!(
        (mark.r#type(), &*mark.reason),
        (MarkType::Reset, "HISTORY_VOID")
    );
    let waited = begun.elapsed();
    assert!(
        (3..4).contains(&waited.as_secs()),
        "not before it had its time: {waited:?}"
    );
    while watch.next().await.1.r#type() != MarkType::ResetEnd {}
    assert_eq!(watch.names(), ["web-000", "web-001"]);
    assert_eq!(server.asked.load(Ordering::Relaxed), 1);

    let failing = WatchObjectsRequest {
        on_gap: OnGap::Fail.into(),
        ..request
    };
    let mut watch = fixture.watch(failing).await;
    let status = loop {
        if let Err(status) = watch.try_next().await {
            break status;
        }
    };
    assert_eq!(
        (status.code(), &*reason(&status)),
        (Code::OutOfRange, "HISTORY_VOID")
    );
}

#[tokio::test(start_paused = true)]
async fn where_only_the_replica_is_behind_another_one_may_not_be() {
    for revision in [500, 9000, 0] {
        let (fixture, _, request) = behind(revision).await;
        let mut watch = fixture.watch(request).await;
        let (_, end) = watch.next().await;
        assert_eq!((end.r#type(), &*end.reason), (MarkType::End, "TOKEN_AHEAD"));
        let status = watch.try_next().await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.get_error_details().retry_info().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_comes_there_in_time_asks_nobody() {
    let (mut fixture, server, request) = behind(150).await;
    let mut watch = fixture.watch(request).await;
    let caught_up = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        fixture.upsert("web-000", 500, "web");
        fixture.upsert("web-001", 501, "db");
    };
    let ((events, mark), ()) = tokio::join!(watch.next(), caught_up);
    assert_eq!(mark.r#type(), MarkType::Progress);
    assert_eq!((events.len(), events[0].revision), (1, 501));
    assert_eq!(server.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_consumers_that_come_back_ask_once() {
    let (fixture, server, request) = behind(150).await;
    let (fixture, request) = (&fixture, &request);
    let watches = (0..100).map(|at| async move {
        // Within two seconds.
        tokio::time::sleep(Duration::from_millis(at * 20)).await;
        let mut watch = fixture.watch(request.clone()).await;
        let (_, mark) = watch.next().await;
        assert_eq!(mark.reason, "HISTORY_VOID");
    });
    futures::future::join_all(watches).await;
    assert_eq!(server.asked.load(Ordering::Relaxed), 1);
}
