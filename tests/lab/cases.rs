//! The cases that break shared caches, each by its name and number in `docs/contract.md`, against a whole daemon.

use std::time::Duration;

use bytes::Bytes;
use informerd::{
    object::Key,
    proto::{DeleteCause, EventType, WatchObjectsRequest},
};
use tokio::time::sleep;

use crate::{
    etcd::{ApiServer, Content},
    network::{Ask, Fault, Order},
    replica::config,
    validators::{Recorder, Recording},
    world::{SOON, World, all, selected},
};

/// Long enough for what comes by itself, and nothing that is waited for.
const MOMENT: Duration = Duration::from_millis(50);

/// Two daemons that have listed some pods, and two consumers of the first.
async fn world() -> World {
    let mut world = unfollowed();
    world.start(&[config("pods"), config("pods")]);
    world.consume("steady", all(), Some(0), None, &["HISTORY_VOID"]);
    world.consume("selected", selected(), Some(0), None, &["HISTORY_VOID"]);
    world.agree().await;
    sleep(MOMENT).await;
    world
}

/// Some pods, and no daemon.
fn unfollowed() -> World {
    fastrand::seed(1);
    let world = World::new(1);
    for name in 0..8 {
        put(&world, &format!("p{name}"), ["web", "db"][name % 2]);
    }
    world
}

fn key(name: &str) -> Key {
    Key::new("a", name)
}

fn put(world: &World, name: &str, app: &str) {
    let content = Content {
        labels: vec![("app", app.to_owned())],
        beat: world.etcd.revision(),
        ..Content::default()
    };
    world.etcd.put(&key(name), &content);
    world.servers.iter().for_each(ApiServer::follow);
}

fn delete(world: &World, name: &str) {
    world.etcd.delete(&key(name));
    world.servers.iter().for_each(ApiServer::follow);
}

/// What a consumer has been told so far.
fn told(world: &World, consumer: usize) -> Recording {
    world.consumers[consumer].recorder.recording()
}

/// How often the first daemon has listed, by cause.
fn lists(world: &World, cause: &str) -> u64 {
    let relists = world.replicas[0].kind.shards()[0].counters.relists();
    relists.get(cause).copied().unwrap_or_default()
}

fn last_token(recording: &Recording) -> Bytes {
    recording.last_token().expect("it has a token").clone()
}

/// Goes on with a token at the second daemon, and tells why it begins anew there, if it does.
async fn go_on_elsewhere(world: &mut World, token: Bytes) -> Vec<String> {
    let request = WatchObjectsRequest { token, ..all() };
    let recorder = Recorder::start(world.replicas(Some(1)), request, None);
    let revision = world.etcd.revision();
    let reached = |recording: &Recording| recording.reached() >= revision;
    let recording = recorder.wait("what is stored", SOON, reached).await;
    if recording.resets().is_empty() {
        return Vec::new();
    }
    let (_, held) = recording.last_state().expect("it has a state");
    let held: Vec<_> = held
        .into_iter()
        .map(|(key, held)| (key, held.uid))
        .collect();
    let stored: Vec<_> = world
        .etcd
        .objects()
        .into_iter()
        .map(|(key, stored)| (key.as_str().to_owned(), stored.uid))
        .collect();
    assert_eq!(held, stored);
    recording.resets().into_iter().map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn case_1_a_relist_deletes_what_went_meanwhile_and_what_was_only_queued() {
    let world = world().await;
    put(&world, "late", "web");
    // It is on its way to the daemon when the watch ends, and its history is gone.
    world.networks[0].order(Order::Gone);
    delete(&world, "late");
    delete(&world, "p0");
    world.agree().await;
    sleep(MOMENT).await;
    assert_eq!(lists(&world, "expired"), 1);
    let recording = told(&world, 0);
    let vanished = recording
        .events()
        .filter(|it| it.cause() == DeleteCause::Vanished);
    let names: Vec<_> = vanished.map(|it| it.name.clone()).collect();
    assert!(names.contains(&"p0".to_owned()), "{names:?}");
    world.finish().await;
}

/// Pods change around it, and all that comes of it is one list.
async fn one_relist(world: World) {
    put(&world, "p0", "db");
    put(&world, "new", "web");
    world.agree().await;
    put(&world, "p1", "web");
    assert_eq!(lists(&world, "expired"), 1);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn case_2_a_410_in_the_stream_is_one_relist_without_a_gap_or_a_duplicate() {
    let world = world().await;
    world.networks[0].order(Order::Gone);
    one_relist(world).await;
}

#[tokio::test(start_paused = true)]
async fn case_2_a_410_as_http_status_is_one_relist_without_a_gap_or_a_duplicate() {
    let world = world().await;
    world.networks[0].plan(Ask::Watch, Fault::Gone);
    world.networks[0].order(Order::Cut);
    one_relist(world).await;
}

#[tokio::test(start_paused = true)]
async fn case_3_a_consumer_that_never_reads_harms_nobody_and_converges() {
    let mut world = unfollowed();
    let mut tiny = config("pods");
    tiny.kinds[0].journal.bytes = 8 << 10;
    tiny.kinds[0].tombstones.count = 4;
    world.start(&[tiny.clone(), tiny]);
    world.consume("steady", all(), Some(0), None, &[]);
    world.consume("sleeps", all(), Some(0), None, &["PAST_JOURNAL", "STALLED"]);
    world.consume(
        "selected",
        selected(),
        Some(0),
        None,
        &["PAST_JOURNAL", "STALLED"],
    );
    world.agree().await;
    sleep(MOMENT).await;
    for sleeper in 1..3 {
        world.consumers[sleeper].recorder.sleep(true);
    }
    for n in 0..400 {
        put(&world, &format!("p{}", n % 40), ["web", "db"][n / 7 % 2]);
        if n % 9 == 0 {
            delete(&world, &format!("p{}", n * 7 % 40));
        }
        sleep(Duration::from_millis(500)).await;
    }
    let revision = world.etcd.revision();
    assert!(told(&world, 0).reached() >= revision, "it is not held up");
    assert!(told(&world, 1).reached() < revision);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn case_4_who_comes_into_a_selector_and_leaves_it_is_told_so() {
    let world = world().await;
    for n in 0..12 {
        put(&world, "p0", ["db", "web"][n % 2]);
        // Some of it is folded, some is not.
        if n % 3 == 0 {
            sleep(MOMENT).await;
        }
    }
    put(&world, "p0", "db");
    sleep(MOMENT).await;
    let recording = told(&world, 1);
    let last = recording.events().filter(|it| it.name == "p0").last();
    let last = last.expect("it was in the selector");
    assert_eq!(last.cause(), DeleteCause::LeftSelector);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn case_5_the_same_name_with_a_new_uid_is_replaced_within_one_atom() {
    let world = world().await;
    world.networks[0].order(Order::Gone);
    let before = world.etcd.get(&key("p0")).expect("it is there").uid;
    delete(&world, "p0");
    put(&world, "p0", "web");
    world.agree().await;
    sleep(MOMENT).await;
    let recording = told(&world, 0);
    let events: Vec<_> = recording.events().filter(|it| it.name == "p0").collect();
    let [.., old, new] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(old.cause(), DeleteCause::Replaced);
    assert_eq!(old.uid, before);
    assert_eq!(new.r#type(), EventType::Upsert);
    assert_eq!(old.revision, new.revision);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn case_6_a_partial_first_list_is_never_ready() {
    for (list, ask, fault) in [
        ("list: auto", Ask::Stream, Fault::Cut(900)),
        ("list: auto", Ask::Stream, Fault::Truncate(900)),
        ("list: paged, pageSize: 3", Ask::Continue, Fault::Cut(100)),
        (
            "list: paged, pageSize: 3",
            Ask::Continue,
            Fault::Truncate(100),
        ),
        ("list: paged", Ask::List, Fault::Truncate(1500)),
    ] {
        let mut world = unfollowed();
        for network in &world.networks {
            network.plan(ask, fault);
        }
        let config = config(&format!("{{resource: pods, {list}}}"));
        world.start(&[config.clone(), config]);
        world.consume("steady", all(), Some(0), None, &[]);
        while !world.networks[0].tally().contains_key(match fault {
            Fault::Cut(_) => "cut inside",
            _ => "truncated",
        }) {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(MOMENT).await;
        let state = world.replicas[0].kind.shards()[0].state();
        assert!(state.is_none(), "{list}, {fault:?}: it is not complete");
        assert_eq!(told(&world, 0).events().count(), 0, "{list}, {fault:?}");
        world.agree().await;
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn case_6_a_partial_relist_sweeps_nothing() {
    let world = world().await;
    world.networks[0].plan(Ask::Stream, Fault::Cut(900));
    world.networks[0].order(Order::Gone);
    while !world.networks[0].tally().contains_key("cut inside") {
        sleep(MOMENT).await;
    }
    sleep(MOMENT).await;
    let state = world.replicas[0].kind.shards()[0].state();
    assert_eq!(state.expect("it stays").objects.len(), 8);
    world.agree().await;
    sleep(SOON / 60).await;
    let deleted = told(&world, 0)
        .events()
        .filter(|it| it.r#type() == EventType::Delete)
        .count();
    assert_eq!(deleted, 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn case_6_what_comes_before_the_end_mark_makes_nothing_ready() {
    let mut world = unfollowed();
    for network in &world.networks {
        network.plan(Ask::Stream, Fault::EarlyBookmarks);
        network.plan(Ask::Stream, Fault::NoEndMark);
    }
    world.start(&[config("pods"), config("pods")]);
    world.consume("steady", all(), Some(0), None, &[]);
    world.agree().await;
    put(&world, "p0", "db");
    world.networks[0].order(Order::Gone);
    put(&world, "p1", "db");
    world.agree().await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn case_7_no_bookmark_overtakes_what_is_queued() {
    let mut world = world().await;
    let often = || WatchObjectsRequest {
        bookmark_interval: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        ..all()
    };
    world.consume("often", often(), Some(0), None, &[]);
    world.consume("cut", often(), Some(0), Some(7), &[]);
    let slow = world.consumers.len() - 2;
    for round in 0..30 {
        world.consumers[slow].recorder.sleep(round % 2 == 0);
        for n in 0..12 {
            put(&world, &format!("p{n}"), ["web", "db"][round % 2]);
        }
        sleep(Duration::from_millis(700)).await;
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn case_8_duplicates_and_events_of_the_past_change_nothing() {
    let world = world().await;
    world.networks[0].plan(Ask::Watch, Fault::Repeat);
    world.networks[0].order(Order::End);
    sleep(SOON / 60).await;
    for n in 0..20 {
        put(&world, &format!("p{}", n % 5), ["web", "db"][n % 2]);
        if n % 6 == 0 {
            delete(&world, &format!("p{}", n % 5));
        }
        sleep(MOMENT).await;
    }
    // A watch that goes on at a server that lags is told nothing of what it knows already.
    world.servers[0].lag(true);
    world.servers[1].lag(true);
    world.networks[0].order(Order::Cut);
    put(&world, "p1", "db");
    sleep(SOON / 60).await;
    world.calm();
    world.agree().await;
    assert!(world.networks[0].tally().contains_key("duplicates"));
    assert!(!world.replicas[0].kind.is_unordered());
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn case_9_an_upstream_that_begins_anew_is_a_difference_and_no_storm() {
    let world = world().await;
    let before = told(&world, 0).events().count();
    world.networks[0].order(Order::Gone);
    put(&world, "p3", "web");
    world.agree().await;
    sleep(MOMENT).await;
    let recording = told(&world, 0);
    assert_eq!(recording.events().count() - before, 1, "what has changed");
    assert_eq!(recording.resets(), ["INITIAL"]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn case_10_a_half_open_watch_is_noticed_and_goes_on_where_it_was() {
    let world = world().await;
    // It must have sent bookmarks to be missed.
    sleep(Duration::from_secs(150)).await;
    world.networks[0].order(Order::Mute);
    put(&world, "p0", "db");
    delete(&world, "p1");
    sleep(Duration::from_secs(60)).await;
    assert!(!world.agrees(0), "nothing can be known of it yet");
    sleep(Duration::from_secs(90)).await;
    assert!(world.agrees(0), "it was noticed");
    assert_eq!(lists(&world, "silent"), 0, "no list is needed");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn case_11_a_revision_that_goes_back_voids_the_history_once_for_each_stream() {
    for cut in [true, false] {
        let mut world = world().await;
        let to = world.etcd.revision();
        for n in 0..6 {
            put(&world, &format!("p{n}"), "web");
            delete(&world, &format!("p{}", n + 1));
        }
        world.agree().await;
        sleep(MOMENT).await;
        // Where they are cut, nobody tells them: they must ask.
        world.restore_as(to, cut);
        world.agree().await;
        sleep(MOMENT).await;
        put(&world, "after", "web");
        sleep(MOMENT).await;
        for consumer in 0..2 {
            assert_eq!(told(&world, consumer).resets(), ["INITIAL", "HISTORY_VOID"]);
        }
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn case_12_a_token_from_within_a_relist_of_this_replica_begins_anew() {
    let mut world = world().await;
    // The second daemon sees nothing of what comes now, and then all of it at once.
    world.networks[1].order(Order::Mute);
    put(&world, "p0", "db");
    put(&world, "between", "web");
    sleep(MOMENT).await;
    let within = last_token(&told(&world, 0));
    delete(&world, "between");
    put(&world, "p2", "db");
    sleep(MOMENT).await;
    let at_its_end = last_token(&told(&world, 0));
    world.replicas[1].kind.shards()[0]
        .state()
        .expect("it is complete");
    world.networks[1].plan(Ask::Watch, Fault::Gone);
    world.agree().await;
    let resets = go_on_elsewhere(&mut world, within).await;
    assert_eq!(
        resets,
        ["PAST_JOURNAL"],
        "of what was between nothing is known"
    );
    let resets = go_on_elsewhere(&mut world, at_its_end).await;
    assert_eq!(resets, [""; 0], "at its end it is the same");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn case_13_what_cannot_be_decoded_keeps_the_old_object_marked_stale() {
    let world = world().await;
    let broken = Content {
        unreadable: true,
        labels: vec![("app", "web".to_owned())],
        ..Content::default()
    };
    for name in ["p0", "never-seen"] {
        world.etcd.put(&key(name), &broken);
    }
    world.servers.iter().for_each(ApiServer::follow);
    put(&world, "p1", "web");
    let is_stale = |world: &World| {
        let state = world.replicas[0].kind.shards()[0].state();
        let state = state.expect("it is complete");
        assert!(state.get(&key("never-seen")).is_none());
        state.get(&key("p0")).expect("it stays").stale
    };
    sleep(MOMENT).await;
    assert!(is_stale(&world), "after an update");
    world.networks[0].order(Order::Gone);
    sleep(SOON / 60).await;
    assert_eq!(lists(&world, "expired"), 1);
    assert!(is_stale(&world), "after a list");
    let recording = told(&world, 0);
    let mut vanished = recording
        .events()
        .filter(|it| it.r#type() == EventType::Delete);
    assert!(vanished.next().is_none());
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn case_14_a_token_of_another_configuration_begins_anew() {
    let mut world = world().await;
    let token = last_token(&told(&world, 0));
    let resets = go_on_elsewhere(&mut world, token.clone()).await;
    assert_eq!(
        resets, [""; 0],
        "the same configuration has the same objects"
    );
    for other in [
        "{resource: pods, prune: {drop: [.status.beat]}}",
        "{resource: pods, labelSelector: app!=none}",
    ] {
        world.restart(1, &config(other));
        world.agree().await;
        let resets = go_on_elsewhere(&mut world, token.clone()).await;
        assert_eq!(resets, ["HISTORY_DIFFERS"], "{other}");
    }
    world.finish().await;
}
