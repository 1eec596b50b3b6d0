//! Kinds that come, go, and only seem to go. Time is paused.

use tokio::task::AbortHandle;

use super::{super::fake::FakeServer, *};

const PODS: (&str, &str, &str, &str) = ("", "v1", "Pod", "pods");
const WIDGETS: (&str, &str, &str, &str) = ("acme.io", "v1", "Widget", "widgets");

struct Running {
    registry: Registry,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn run(server: &FakeServer) -> Running {
    let registry = Registry::new(server.upstream(), RegistrySettings::default());
    let task = tokio::spawn(registry.clone().run()).abort_handle();
    Running { registry, task }
}

/// The kind's name once that is another one than now, or the kind is there or gone.
async fn next(receiver: &mut watch::Receiver<Availability>) -> Option<String> {
    let name = |served: &Availability| served.kind().map(|kind| kind.resource());
    let before = name(&receiver.borrow());
    name(
        &receiver
            .wait_for(|served| name(served) != before)
            .await
            .unwrap(),
    )
}

/// What it may be selected by, as its CRD says.
fn selectable(receiver: &watch::Receiver<Availability>) -> Vec<String> {
    let served = receiver.borrow();
    let crd = served.kind().and_then(|kind| kind.crd.as_ref());
    crd.map(|crd| crd.selectable.clone()).unwrap_or_default()
}

/// Why the kind is not there.
fn why(receiver: &watch::Receiver<Availability>) -> Option<String> {
    match &*receiver.borrow() {
        Availability::Unknown(why) | Availability::Absent(why) => Some(why.to_string()),
        Availability::Served(_) => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_served_kind_is_announced_at_once_and_a_missing_one_when_it_comes() {
    let server = FakeServer::serving(&[PODS]);
    let running = run(&server);
    let mut pods = running.registry.subscribe("po");
    let mut widgets = running.registry.subscribe("widgets.acme.io");
    assert_eq!(
        why(&pods).as_deref(),
        Some("the API server has not said yet what it serves")
    );
    running.registry.catalog().await;
    assert!(
        pods.borrow_and_update().kind().is_none(),
        "no such short name"
    );
    assert_eq!(
        why(&pods).as_deref(),
        Some("the API server serves no `po`; did you mean `pods`?")
    );

    let mut pods = running.registry.subscribe("pods");
    assert_eq!(next(&mut pods).await.as_deref(), Some("pods"));
    assert_eq!(why(&pods), None);

    server.serve(&[PODS, WIDGETS]);
    let begun = Instant::now();
    assert_eq!(next(&mut widgets).await.as_deref(), Some("widgets.acme.io"));
    assert!(
        begun.elapsed() <= Duration::from_secs(36),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_on_crds_finds_a_new_kind_within_a_second_or_two() {
    let server = FakeServer::serving(&[PODS]);
    let running = run(&server);
    let mut widgets = running.registry.subscribe("widgets");
    running.registry.catalog().await;
    // Long after the start, when nothing is urgent.
    sleep(Duration::from_secs(100)).await;
    server.serve(&[PODS, WIDGETS]);
    let begun = Instant::now();
    server.crd_event().await;
    assert_eq!(next(&mut widgets).await.as_deref(), Some("widgets.acme.io"));
    assert!(
        begun.elapsed() <= Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_kind_is_gone_only_when_it_stays_away() {
    let server = FakeServer::serving(&[PODS, WIDGETS]);
    let running = run(&server);
    let mut widgets = running.registry.subscribe("widgets");
    next(&mut widgets).await;

    // Missed for a moment, as after a restart of the API server.
    server.serve(&[PODS]);
    server.crd_event().await;
    sleep(Duration::from_secs(3)).await;
    server.serve(&[PODS, WIDGETS]);
    sleep(Duration::from_secs(60)).await;
    assert!(
        widgets.has_changed().unwrap(),
        "whoever waits for it is told to ask again"
    );
    assert!(widgets.borrow_and_update().kind().is_some());

    server.serve(&[PODS]);
    let begun = Instant::now();
    server.crd_event().await;
    assert_eq!(next(&mut widgets).await, None);
    assert!(
        begun.elapsed() >= Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        begun.elapsed() <= Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    assert!(why(&widgets).is_some());

    server.serve(&[PODS, WIDGETS]);
    assert_eq!(next(&mut widgets).await.as_deref(), Some("widgets.acme.io"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_be_asked_makes_nothing_go() {
    let server = FakeServer::serving(&[PODS]);
    let running = run(&server);
    let mut pods = running.registry.subscribe("pods");
    next(&mut pods).await;
    server.set_down(true);
    sleep(Duration::from_secs(3600)).await;
    assert!(!pods.has_changed().unwrap());
    assert_eq!(why(&pods), None);
}

#[tokio::test(start_paused = true)]
async fn two_names_of_one_kind_are_one_subscription_too_many() {
    let server = FakeServer::serving(&[PODS]);
    let running = run(&server);
    let mut first = running.registry.subscribe("pods");
    let second = running.registry.subscribe("pod");
    next(&mut first).await;
    sleep(Duration::from_secs(100)).await;
    assert!(second.borrow().kind().is_none());
    assert_eq!(
        why(&second).as_deref(),
        Some("`pod` is the same kind as `pods`: remove one of them from the config")
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_that_becomes_ambiguous_keeps_its_meaning() {
    let server = FakeServer::serving(&[WIDGETS]);
    let running = run(&server);
    let mut widgets = running.registry.subscribe("widgets");
    next(&mut widgets).await;
    server.serve(&[("other.io", "v1", "Widget", "widgets"), WIDGETS]);
    server.crd_event().await;
    sleep(Duration::from_secs(100)).await;
    assert!(!widgets.has_changed().unwrap());
    assert!(running.registry.catalog().await.resolve("widgets").is_err());
}

#[tokio::test(start_paused = true)]
async fn selectable_fields_come_with_the_kind() {
    let server = FakeServer::serving(&[WIDGETS]);
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.acme.io";
    server.set(path, 500, serde_json::json!({}));
    let running = run(&server);
    let mut widgets = running.registry.subscribe("widgets");
    running.registry.catalog().await;
    assert!(
        widgets.borrow_and_update().kind().is_none(),
        "not before its fields are known"
    );
    server.set(
        path,
        200,
        serde_json::json!({"spec": {"versions": [{"name": "v1", "selectableFields": [{"jsonPath": ".spec.color"}]}]}}),
    );
    next(&mut widgets).await;
    assert_eq!(selectable(&widgets), [".spec.color"]);
}

#[tokio::test(start_paused = true)]
async fn fields_that_are_edited_into_a_crd_are_found_and_other_edits_are_nobodys_business() {
    let server = FakeServer::serving(&[WIDGETS]);
    let running = run(&server);
    server.crd("u", 1, &[".spec.color"]).await;
    let mut widgets = running.registry.subscribe("widgets");
    next(&mut widgets).await;
    sleep(Duration::from_secs(100)).await;
    server.asked();
    server.crd("u", 2, &[".spec.color"]).await;
    sleep(Duration::from_secs(100)).await;
    assert!(!widgets.has_changed().unwrap());
    let looks = |asked: Vec<String>| {
        asked
            .iter()
            .filter(|path| path.contains("definitions/"))
            .count()
    };
    assert_eq!(looks(server.asked()), 1, "one edit, one look");

    server.crd("u", 3, &[".spec.color", ".spec.size"]).await;
    let begun = Instant::now();
    widgets.changed().await.unwrap();
    assert!(
        begun.elapsed() <= Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(selectable(&widgets), [".spec.color", ".spec.size"]);
}

#[tokio::test(start_paused = true)]
async fn a_crd_that_is_deleted_and_made_anew_within_seconds_is_another_one() {
    let server = FakeServer::serving(&[WIDGETS]);
    let running = run(&server);
    server.crd("one", 1, &[]).await;
    let mut widgets = running.registry.subscribe("widgets");
    next(&mut widgets).await;
    assert_eq!(widgets.borrow_and_update().kind().unwrap().uid, "one");
    server.serve(&[]);
    server.crd_event().await;
    sleep(Duration::from_secs(2)).await;
    server.serve(&[WIDGETS]);
    server.crd("two", 1, &[]).await;
    let is_two = |served: &Availability| served.kind().is_some_and(|kind| kind.uid == "two");
    let found = timeout(Duration::from_secs(2), widgets.wait_for(is_two));
    found.await.expect("soon").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_crd_that_is_going_has_still_said_what_it_said() {
    let server = FakeServer::serving(&[WIDGETS]);
    let running = run(&server);
    server.crd("one", 1, &[".spec.color"]).await;
    let mut widgets = running.registry.subscribe("widgets");
    next(&mut widgets).await;
    widgets.borrow_and_update();
    // Discovery shows other verbs for a moment, while the CRD cannot be read any more.
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.acme.io";
    server.set(path, 404, serde_json::json!({}));
    server.serve(&[("acme.io", "v1", "Widgets", "widgets")]);
    server.crd_event().await;
    widgets.changed().await.unwrap();
    assert_eq!(selectable(&widgets), [".spec.color"]);
    assert_eq!(widgets.borrow().kind().unwrap().uid, "one");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_of_the_server_is_noticed() {
    let server = FakeServer::serving(&[PODS]);
    server.set(
        "/version",
        200,
        serde_json::json!({"gitVersion": "v1.36.3"}),
    );
    let running = run(&server);
    let mut version = running.registry.server_version();
    let mut pods = running.registry.subscribe("pods");
    next(&mut pods).await;
    assert_eq!(
        &**version.borrow_and_update(),
        "v1.36.3",
        "before its kinds"
    );
    sleep(Duration::from_secs(100)).await;
    assert!(!version.has_changed().unwrap());
    server.set(
        "/version",
        200,
        serde_json::json!({"gitVersion": "v1.37.0"}),
    );
    sleep(Duration::from_secs(100)).await;
    assert_eq!(&**version.borrow_and_update(), "v1.37.0");
    // That it does not say is no news.
    server.set("/version", 403, serde_json::json!({}));
    sleep(Duration::from_secs(100)).await;
    assert!(!version.has_changed().unwrap());
}
