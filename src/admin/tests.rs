//! What those who run the process are told.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_server::Health,
};
use tower::ServiceExt;

use super::*;
use crate::{
    cache::{History, Kind, Limits, Phase, Unreadable, Writer},
    object::{Object, tests::object},
};

/// Kinds, each of one shard, and their writers.
fn kinds(names: &[&str]) -> (Vec<Writer<Object>>, Vec<Arc<Kind>>) {
    let new = |name: &&str| {
        let writer = Writer::new("", Limits::default(), Instant::now());
        let kind = Kind::new(name, false, false, 0, vec![writer.shard().clone()]);
        (writer, Arc::new(kind))
    };
    names.iter().map(new).unzip()
}

fn list(writer: &mut Writer<Object>, names: &[&str]) {
    let objects = names
        .iter()
        .map(|name| Arc::new(object("", name)))
        .collect();
    writer.replace(
        objects,
        &Unreadable::default(),
        7,
        History::Same,
        Instant::now(),
    );
    writer.set_status(Phase::Live, "", "");
}

fn admin(kinds: &[Arc<Kind>]) -> Admin {
    Admin {
        metrics: metrics::builder().unwrap().build_recorder().handle(),
        catalog: Catalog::new(kinds.to_vec()),
        first_sync: Arc::new(FirstSync::new(kinds.to_vec())),
        heartbeats: Heartbeats::default(),
        shutdown: Shutdown::new(),
    }
}

async fn get(admin: &Admin, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = admin.clone().router().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn readyz_latches_at_the_first_sync_and_fails_again_when_draining() {
    let (mut writers, kinds) = kinds(&["pods", "nodes"]);
    let admin = admin(&kinds);
    list(&mut writers[0], &[]);
    writers[1].set_status(Phase::Forbidden, "Forbidden", "cannot list nodes");
    let (status, body) = get(&admin, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        body,
        "[-]kind/nodes failed: not listed yet: cannot list nodes\nreadyz check failed\n"
    );

    list(&mut writers[1], &[]);
    assert_eq!(
        get(&admin, "/readyz").await,
        (StatusCode::OK, "ok\n".to_owned())
    );
    writers[0].unsync();
    let verbose = "[+]running ok\n[+]kind/pods ok\n[+]kind/nodes ok\nreadyz check passed\n";
    assert_eq!(
        get(&admin, "/readyz?verbose").await,
        (StatusCode::OK, verbose.to_owned())
    );

    admin.shutdown.drain();
    let (status, body) = get(&admin, "/readyz").await;
    assert_eq!(
        (status, body.lines().next()),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            Some("[-]running failed: draining")
        )
    );
}

#[tokio::test]
async fn a_kind_that_the_api_server_does_not_serve_holds_readiness_not_up() {
    let (writers, kinds) = kinds(&["widgets.example.com"]);
    let admin = admin(&kinds);
    assert_eq!(
        get(&admin, "/readyz").await.0,
        StatusCode::SERVICE_UNAVAILABLE,
        "nobody has looked yet"
    );
    writers[0].set_status(
        Phase::Waiting,
        "NotServed",
        "the API server does not serve this kind yet",
    );
    assert_eq!(get(&admin, "/readyz").await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn livez_names_the_loop_that_is_stuck_and_knows_nothing_of_the_upstream() {
    let (writers, kinds) = kinds(&["pods"]);
    let admin = admin(&kinds);
    writers[0].set_status(Phase::BackingOff, "Unreachable", "connection refused");
    let (turning, _stuck) = (
        admin.heartbeats.register("feed/nodes"),
        admin.heartbeats.register("source/pods"),
    );
    assert_eq!(
        get(&admin, "/livez").await,
        (StatusCode::OK, "ok\n".to_owned())
    );
    tokio::time::advance(Duration::from_secs(61)).await;
    turning.beat();
    let (status, body) = get(&admin, "/livez?verbose=1").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        body,
        "[+]feed/nodes ok\n[-]source/pods failed: has not turned for 61 s\nlivez check failed\n"
    );
}

#[tokio::test]
async fn there_is_an_index_and_it_is_what_a_wrong_path_shows() {
    let admin = admin(&[]);
    let (status, index) = get(&admin, "/").await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        ["/metrics", "/livez", "/readyz"]
            .iter()
            .all(|path| index.contains(path)),
        "{index}"
    );
    assert_eq!(
        get(&admin, "/healthz").await,
        (StatusCode::NOT_FOUND, index)
    );
}

#[tokio::test]
async fn metrics_say_of_each_kind_what_the_catalog_has() {
    let (mut writers, kinds) = kinds(&["pods", "nodes"]);
    let recorder = metrics::builder().unwrap().build_recorder();
    let _guard = ::metrics::set_default_local_recorder(&recorder);
    metrics::describe();
    let admin = Admin {
        metrics: recorder.handle(),
        ..admin(&kinds)
    };
    list(&mut writers[0], &["a", "b"]);
    kinds[0].shards()[0].counters.count_relist("start");
    ::metrics::histogram!("informerd_test_seconds").record(0.002);

    let (status, text) = get(&admin, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    for line in [
        r#"informerd_kind_objects{kind="pods"} 2"#,
        r#"informerd_kind_revision{kind="pods"} 7"#,
        r#"informerd_kind_phase{kind="pods",phase="live"} 1"#,
        r#"informerd_kind_phase{kind="pods",phase="waiting"} 0"#,
        r#"informerd_kind_relists_total{kind="pods",cause="start"} 1"#,
        r#"informerd_kind_synced{kind="pods"} 1"#,
        r#"informerd_kind_synced{kind="nodes"} 0"#,
        r#"informerd_kind_phase{kind="nodes",phase="waiting"} 1"#,
        r#"informerd_test_seconds_bucket{le="0.0025"} 1"#,
        "# TYPE informerd_kind_watches_opened_total counter",
        "# HELP informerd_kind_objects Objects in the cache.",
    ] {
        assert!(
            text.lines().any(|shown| shown == line),
            "no {line} in\n{text}"
        );
    }
    assert!(text.contains("informerd_build_info{version="), "{text}");
    assert!(
        !text.contains(r#"informerd_kind_age_seconds{kind="nodes"}"#),
        "never proven, so it has no age"
    );
}

#[tokio::test(start_paused = true)]
async fn transitions_are_told_and_a_listener_that_sleeps_misses_the_oldest_only() {
    let (mut writers, kinds) = kinds(&["pods"]);
    let transitions = Transitions::new();
    let (mut listener, mut asleep) = (transitions.subscribe(), transitions.subscribe());
    let heartbeat = Heartbeats::default().register("transitions");
    let watching = transitions
        .clone()
        .watch(Catalog::new(kinds), heartbeat, Shutdown::new());
    tokio::spawn(watching);
    tokio::time::sleep(Duration::from_millis(1)).await;
    list(&mut writers[0], &[]);
    let told = listener.recv().await.unwrap();
    let expected = KindTransition {
        kind: "pods".into(),
        namespace: String::new(),
        from: Phase::Waiting,
        to: Phase::Live,
        reason: String::new(),
        message: String::new(),
    };
    assert_eq!(*told, expected);

    for round in 0..300 {
        writers[0].set_status(Phase::BackingOff, &format!("Reason{round}"), "");
        assert_eq!(
            listener.recv().await.unwrap().reason,
            format!("Reason{round}")
        );
    }
    assert!(matches!(
        asleep.recv().await,
        Err(async_broadcast::RecvError::Overflowed(45))
    ));
    assert_eq!(asleep.recv().await.unwrap().reason, "Reason44");
}

#[tokio::test(start_paused = true)]
async fn grpc_health_serves_from_the_first_sync_until_draining() {
    let (mut writers, kinds) = kinds(&["pods"]);
    let transitions = Transitions::new();
    let reporter_kinds = kinds.clone();
    let (_service, reporting) = health::service(&transitions).await;
    let asked = reporting.asked();
    let status = async |service: &str| {
        let request = tonic::Request::new(HealthCheckRequest {
            service: service.into(),
        });
        asked.check(request).await.unwrap().into_inner().status()
    };
    let all = [
        "",
        "informerd.v1.CacheService",
        "informerd.v1.IntrospectionService",
    ];
    for service in all {
        assert_eq!(
            status(service).await,
            ServingStatus::NotServing,
            "{service:?} before it runs"
        );
    }
    let (shutdown, heartbeats) = (Shutdown::new(), Heartbeats::default());
    let first_sync = Arc::new(FirstSync::new(reporter_kinds));
    let running =
        tokio::spawn(reporting.run(first_sync, heartbeats.register("health"), shutdown.clone()));
    list(&mut writers[0], &[]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    for service in all {
        assert_eq!(status(service).await, ServingStatus::Serving, "{service:?}");
    }
    shutdown.drain();
    running.await.unwrap();
    for service in all {
        assert_eq!(
            status(service).await,
            ServingStatus::NotServing,
            "{service:?} when draining"
        );
    }
}

#[tokio::test]
async fn the_port_answers_while_draining_and_closes_when_the_grace_period_is_over() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let admin = admin(&[]);
    let shutdown = admin.shutdown.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(admin.serve(listener));
    shutdown.drain();
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    connection.write_all(request).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    shutdown.cut();
    serving.await.unwrap();
}
