//! Lists, and the first states of streams, where what callers may have of them is limited.

use futures::StreamExt;
use tonic::Request;

use super::*;
use crate::auth::{self, Calls, Peer, Room};

/// Pods, and what alice may have.
struct Limited {
    fixture: Fixture,
    room: Room,
}

fn limited(limits: auth::Limits) -> Limited {
    let slot = Calls::of_nobody_in_particular(limits).enter("").unwrap();
    Limited {
        fixture: Fixture::with_pods(2),
        room: slot.room(&Peer::default()),
    }
}

fn one_at_a_time() -> Limited {
    limited(auth::Limits {
        snapshots: 1,
        ..auth::Limits::default()
    })
}

impl Limited {
    fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.extensions_mut().insert(self.room.clone());
        request
    }

    async fn list(&self) -> Result<Streaming<proto::ListObjectsResponse>, Status> {
        let request = proto::ListObjectsRequest {
            scope: Some(pods()),
            ..Default::default()
        };
        let mut client = self.fixture.client();
        Ok(client.list_objects(self.ask(request)).await?.into_inner())
    }

    async fn watch(&self, request: WatchObjectsRequest) -> Result<Folded, Status> {
        self.fixture.try_watch(self.ask(request)).await
    }
}

/// Reads it to its end; how many bytes of objects there were.
async fn all(mut list: Streaming<proto::ListObjectsResponse>) -> usize {
    let mut bytes = 0;
    while let Some(message) = list.message().await.unwrap() {
        let objects = message.objects.iter();
        bytes += objects.map(|object| object.object.len()).sum::<usize>();
    }
    bytes
}

fn is_busy<T>(answer: Result<T, Status>) -> Duration {
    let status = answer.err().expect("it is refused");
    assert_eq!(status.code(), Code::ResourceExhausted);
    let details = status.get_error_details();
    let retry = details.retry_info().expect("it says when to come again");
    retry.retry_delay.expect("it says when")
}

#[tokio::test(start_paused = true)]
async fn a_list_has_its_place_until_it_is_through() {
    let world = one_at_a_time();
    let under_way = world.list().await.unwrap();
    is_busy(world.list().await);
    is_busy(world.watch(all_pods()).await);
    all(under_way).await;
    let given_up = world.list().await.unwrap();
    is_busy(world.list().await);
    drop(given_up);
    assert!(world.list().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_one_until_its_first_state_is_complete_and_again_when_it_starts_over() {
    let mut world = one_at_a_time();
    let mut watch = world.watch(all_pods()).await.unwrap();
    is_busy(world.list().await);
    watch.initial().await;
    world.fixture.upsert("web-000", 101, "web");
    watch.next().await;
    let token = watch.token.clone();
    all(world.list().await.unwrap()).await;

    // Where it goes on from a token there is none to be had, and none needed.
    let under_way = world.list().await.unwrap();
    let resumed = WatchObjectsRequest {
        token: token.into(),
        ..all_pods()
    };
    let mut resumed = world.watch(resumed).await.unwrap();
    world.fixture.upsert("web-001", 102, "web");
    assert_eq!(resumed.next().await.0.len(), 1);
    drop(under_way);

    let pods = vec![world.fixture.pod("default", "web-000", 1, "web")];
    let nothing = Unreadable::default();
    world.fixture.writers[0].replace(pods, &nothing, 50, History::New, now());
    let (_, mark) = watch.next().await;
    assert_eq!(mark.r#type(), MarkType::Reset, "it is not refused");
    is_busy(world.list().await);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_not_honoured_is_refused_as_a_new_stream_would_be() {
    let mut world = one_at_a_time();
    let mut watch = world.watch(all_pods()).await.unwrap();
    watch.initial().await;
    let resumed = WatchObjectsRequest {
        token: watch.token.clone().into(),
        ..all_pods()
    };
    let pods = vec![world.fixture.pod("default", "web-000", 1, "web")];
    let nothing = Unreadable::default();
    world.fixture.writers[0].replace(pods, &nothing, 50, History::New, now());
    let under_way = world.list().await.unwrap();
    let mut refused = world.watch(resumed.clone()).await.unwrap();
    let (_, mark) = refused.next().await;
    assert_eq!(mark.r#type(), MarkType::End);
    is_busy(refused.try_next().await);
    drop(under_way);
    let (_, mark) = world.watch(resumed).await.unwrap().next().await;
    assert_eq!(mark.r#type(), MarkType::Reset);
}

#[tokio::test(start_paused = true)]
async fn whoever_has_listed_more_than_its_rate_lists_again_when_time_has_made_up_for_it() {
    let world = limited(auth::Limits {
        listed_per_second: 10,
        ..auth::Limits::default()
    });
    let bytes = all(world.list().await.unwrap()).await;
    assert!(bytes > 100, "{bytes}");
    let wait = is_busy(world.list().await);
    assert_eq!(is_busy(world.watch(all_pods()).await), wait);
    let expected = Duration::from_secs_f64(bytes as f64 / 10.0 - 2.0);
    assert_eq!(wait.as_millis(), expected.as_millis());
    tokio::time::sleep(wait).await;
    let mut watch = world.watch(all_pods()).await.unwrap();
    watch.initial().await;
    assert!(
        is_busy(world.list().await) > Duration::ZERO,
        "that was a list, too"
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_request_does_not_come_to_its_end_is_given_up_after_a_minute() {
    let fixture = Fixture::with_pods(2);
    let (client, server) = tokio::io::duplex(1 << 16);
    let incoming = futures::stream::iter([Ok(server)]).chain(futures::stream::pending());
    let (_, health) = tonic_health::server::health_reporter();
    tokio::spawn(fixture.api.clone().serve_all(incoming, health));
    let (send, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let begun = tokio::time::Instant::now();
    for method in ["GetObject", "ListObjects", "WatchObjects"] {
        let call = http::Request::post(format!("http://it/informerd.v1.CacheService/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (answer, mut body) = send.send_request(call, false).unwrap();
        // The beginning of a message of 9 bytes.
        body.send_data(vec![0, 0, 0, 0, 9, 1].into(), false)
            .unwrap();
        let answer = answer.await.unwrap();
        assert!(answer.headers()["grpc-status"] != "0", "{method}");
        body.send_reset(h2::Reason::CANCEL);
    }
    assert_eq!(begun.elapsed().as_secs(), 3 * 60);
}
