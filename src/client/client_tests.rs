//! The client over real connections on loopback.

use super::{
    fake::{End, Fake, Proxy, Script, events, live, mark, object, scope, upsert},
    *,
};
use crate::proto::{ListEnd, MarkType};
use tokio::net::TcpListener;
use tonic::Code;
use tonic_types::{ErrorDetails, StatusExt};

fn client(address: std::net::SocketAddr) -> Client {
    Client::connect(&address.to_string()).expect("a good address")
}

/// The next event, soon.
async fn next(watch: &mut Watch) -> WatchEvent {
    let event = tokio::time::timeout(Duration::from_secs(30), watch.next()).await;
    event
        .expect("comes in time")
        .expect("goes on")
        .expect("not for good")
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("is bound");
    drop(listener);
    let error = client(address).kinds().await.expect_err("nobody listens");
    assert_eq!(
        error.to_string(),
        format!(
            "cannot reach informerd at {address}: connection refused; is `informerd serve` running?"
        )
    );
    assert!(!error.is_permanent());
}

#[tokio::test]
async fn addresses_that_cannot_be_used_are_refused_with_what_to_write() {
    for (address, why) in [
        ("localhost", "the port is missing"),
        (
            "https://localhost:7443",
            "give the authority that signs its certificate (--ca)",
        ),
        ("ftp://localhost:7443", "it is neither http:// nor https://"),
        ("localhost:7443/x", "it has a path"),
        ("a b:1", "it cannot be parsed"),
    ] {
        let error = Client::connect(address).expect_err(address).to_string();
        assert!(
            error.contains(why) && error.contains("write HOST:PORT"),
            "{error}"
        );
    }
    for address in [
        "127.0.0.1:7443",
        "http://[::1]:7443/",
        "informerd.ns.svc:7443",
    ] {
        Client::connect(address).expect(address);
    }
}

#[tokio::test]
async fn a_list_is_given_only_when_it_is_complete() {
    let page = |name: &str| ListObjectsResponse {
        objects: vec![object("n", name, "u", "1")],
        end: None,
    };
    let end = |count| ListObjectsResponse {
        objects: Vec::new(),
        end: Some(ListEnd {
            token: "t1".into(),
            freshness: Some(live()),
            count,
        }),
    };
    for (pages, complete) in [
        (vec![page("a"), page("b"), end(2)], true),
        (vec![page("a"), page("b")], false),
        (vec![page("a"), end(2)], false),
    ] {
        let fake = Fake::new(Script {
            list: pages,
            ..Script::default()
        });
        let request = ListObjectsRequest {
            scope: scope("pods"),
            ..Default::default()
        };
        match client(fake.serve().await).list(request).await {
            Ok(list) => {
                assert!(complete);
                assert_eq!((list.objects.len(), list.token.as_ref()), (2, &b"t1"[..]));
            }
            Err(error) => assert!(
                !complete && matches!(error, Error::Incomplete(_)),
                "{error}"
            ),
        }
    }
}

#[tokio::test]
async fn an_error_status_arrives_with_its_details() {
    let status = Status::with_error_details(
        Code::NotFound,
        "pods n/x does not exist",
        ErrorDetails::with_error_info("OBJECT_NOT_FOUND", "informerd", []),
    );
    let fake = Fake::new(Script {
        get: Some(Err(status)),
        ..Script::default()
    });
    let request = GetObjectRequest {
        scope: scope("pods"),
        ..Default::default()
    };
    let error = client(fake.serve().await)
        .get(request)
        .await
        .expect_err("not found");
    assert_eq!(
        (error.code(), error.reason()),
        (Some(Code::NotFound), "OBJECT_NOT_FOUND")
    );
    assert_eq!(error.to_string(), "pods n/x does not exist");
}

#[tokio::test]
async fn a_watch_survives_a_cut_connection() {
    let first = vec![
        mark(MarkType::Reset, ""),
        events([upsert(object("n", "a", "1", "1"))]),
        mark(MarkType::ResetEnd, "t1"),
    ];
    let second = vec![
        events([upsert(object("n", "b", "2", "2"))]),
        mark(MarkType::Progress, "t2"),
    ];
    let watches = [(first, End::Hang), (second, End::Hang)].into();
    let fake = Fake::new(Script {
        watches,
        ..Script::default()
    });
    let proxy = Proxy::to(fake.serve().await).await;
    let mut watch = client(proxy.address).watch(WatchObjectsRequest {
        scope: scope("pods"),
        ..Default::default()
    });
    let mut mirror = Mirror::new();
    let mut cuts = Vec::new();
    while mirror.token() != "t2" {
        let event = next(&mut watch).await;
        mirror.apply(&event);
        match event {
            WatchEvent::ResetEnd { .. } => proxy.cut(),
            WatchEvent::Reconnecting { error, .. } => cuts.push(error),
            _ => {}
        }
    }
    assert!(matches!(cuts[..], [Error::Lost { .. }]), "{cuts:?}");
    assert_eq!(mirror.objects().len(), 2);
    let tokens: Vec<_> = fake
        .watches_asked()
        .into_iter()
        .map(|it| it.token)
        .collect();
    assert_eq!(tokens, ["", "t1"]);
}

#[tokio::test]
async fn a_stuck_stream_is_left_for_another_connection() {
    let watches = [
        (vec![mark(MarkType::Bookmark, "t1")], End::Hang),
        (vec![mark(MarkType::Bookmark, "t2")], End::Hang),
    ];
    let fake = Fake::new(Script {
        watches: watches.into(),
        ..Script::default()
    });
    let proxy = Proxy::to(fake.serve().await).await;
    let interval = Duration::from_millis(50).try_into().expect("is short");
    let mut watch = client(proxy.address).watch(WatchObjectsRequest {
        scope: scope("pods"),
        bookmark_interval: Some(interval),
        ..Default::default()
    });
    while watch.token() != "t2" {
        next(&mut watch).await;
    }
    assert_eq!(proxy.accepted.load(std::sync::atomic::Ordering::Relaxed), 2);
}
