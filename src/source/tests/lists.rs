//! Lists: in pages and as streams, whole, cut, refused and garbled.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_paged_list_is_published_when_its_last_page_is_here_and_then_watched() {
    let mut world = World::new(paged());
    let asked = world.asked().await;
    assert_eq!(
        (asked.path.as_str(), asked.query.as_str()),
        ("/api/v1/pods", "limit=500")
    );
    asked.ok(list(&[pod("a", 3)], 10, "next"));
    settle().await;
    assert!(
        world.shard.state().is_none(),
        "a partial list is never published"
    );
    assert_eq!(world.phase(), Phase::Syncing);
    world
        .asked_for("limit=500&continue=next")
        .await
        .ok(list(&[pod("b", 4)], 10, ""));
    let stream = world.watch(10).await;
    assert_eq!(
        (world.held(), world.revision()),
        (vec!["a@3".to_owned(), "b@4".to_owned()], 10)
    );
    stream
        .send(event("ADDED", &pod("c", 11)) + &event("MODIFIED", &pod("a", 12)))
        .await;
    stream.send(event("DELETED", &pod("b", 13))).await;
    assert_eq!(world.held(), ["a@12", "c@11"]);
    assert_eq!(
        world.told(),
        ["11 Changed c@11", "12 Changed a@12", "13 Deleted b@4"]
    );
    assert_eq!((world.phase(), world.watches()), (Phase::Live, (1, 1)));
    assert_eq!(world.kind.identity().unwrap().resource(), "pods");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_published_at_its_end_mark_with_live_events_folded_in() {
    let mut world = World::new(streamed());
    let asked = world.asked_for("sendInitialEvents=true").await;
    assert!(
        asked.query.contains("resourceVersionMatch=NotOlderThan&")
            || asked.query.ends_with("NotOlderThan")
    );
    let stream = asked.stream();
    stream.put(event("ADDED", &pod("a", 3)));
    stream.put(event("ADDED", &pod("b", 2)));
    stream.put(event("ADDED", &pod("c", 1)));
    stream.put(event("DELETED", &pod("a", 11)));
    stream.put(event("MODIFIED", &pod("b", 12)));
    settle().await;
    assert!(world.shard.state().is_none());
    stream
        .send(end_mark(12) + &event("ADDED", &pod("d", 13)))
        .await;
    assert_eq!(world.held(), ["b@12", "c@1", "d@13"]);
    assert_eq!((world.phase(), world.watches()), (Phase::Live, (1, 1)));
    world.quiet(60).await;
}

#[tokio::test(start_paused = true)]
async fn case_6_a_partial_list_is_never_ready_and_never_sweeps() {
    let (mut world, stream) = World::live(paged(), &[pod("a", 1), pod("b", 2)], 10).await;
    sleep(60).await;
    stream.put(event("ERROR", &status(410, "Expired", "too old")));
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 1)], 20, "next"));
    // The second page is cut in the middle.
    let page = world.asked_for("continue=next").await.stream();
    page.put(list(&[pod("c", 15)], 20, "")[..100].to_owned());
    page.cut();
    settle().await;
    assert_eq!(
        (world.held(), world.phase()),
        (vec!["a@1".to_owned(), "b@2".to_owned()], Phase::BackingOff)
    );
    // And then one that ends early without saying so.
    let page = world.asked_for("limit=500").await.stream();
    page.put(list(&[pod("a", 1)], 21, "")[..150].to_owned());
    drop(page);
    settle().await;
    assert_eq!(world.held(), ["a@1", "b@2"]);
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 1), pod("c", 15)], 22, ""));
    let _stream = world.watch(22).await;
    assert_eq!(world.held(), ["a@1", "c@15"]);
    assert_eq!(world.told(), ["22 Changed c@15", "22 Vanished b@2"]);
    assert_eq!(world.relists(), [("expired", 1), ("initial", 1)]);
}

#[tokio::test(start_paused = true)]
async fn case_6_a_stream_cut_before_its_end_mark_is_never_ready() {
    let mut world = World::new(streamed());
    for _ in 0..2 {
        let stream = world.asked_for("sendInitialEvents=true").await.stream();
        stream.send(event("ADDED", &pod("a", 3))).await;
        stream.cut();
        settle().await;
        assert!(world.shard.state().is_none());
    }
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("b", 4)], 10, ""));
    let _stream = world.watch(10).await;
    assert_eq!(world.held(), ["b@4"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_to_stream_is_listed_in_pages_at_once() {
    for code in [400, 422] {
        let mut world = World::new(streamed());
        world.asked_for("sendInitialEvents=true").await.refuse(
            code,
            "Invalid",
            "sendInitialEvents is forbidden",
        );
        let begun = now();
        world
            .asked_for("limit=500")
            .await
            .ok(list(&[pod("a", 3)], 10, ""));
        assert!(now() - begun < Duration::from_millis(100));
        let _stream = world.watch(10).await;
        assert_eq!(world.held(), ["a@3"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_a_stream_for_a_plain_watch_is_listed_in_pages() {
    let mut world = World::new(streamed());
    let stream = world.asked_for("sendInitialEvents=true").await.stream();
    stream.send(event("ADDED", &pod("a", 3))).await;
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 3)], 10, ""));
    assert!(!stream.is_open());
    let _stream = world.watch(10).await;
    assert_eq!(world.held(), ["a@3"]);
}

#[tokio::test(start_paused = true)]
async fn a_mute_server_is_given_up_and_asked_again() {
    let mut world = World::new(paged());
    let mute = world.asked_for("limit=500").await;
    sleep(61).await;
    assert_eq!(world.phase(), Phase::BackingOff);
    assert!(world.shard.status().message.contains("no response headers"));
    drop(mute);
    world.asked_for("limit=500").await.ok(list(&[], 10, ""));
    let mute = world.asked_for("watch=1").await;
    sleep(16).await;
    assert_eq!(world.phase(), Phase::BackingOff);
    drop(mute);
    world.probed(10).await;
    let _stream = world.watch(10).await;
    assert_eq!(world.phase(), Phase::Live);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_stops_in_the_middle_is_given_up_and_read_again() {
    let mut world = World::new(paged());
    let page = world.asked_for("limit=500").await.stream();
    page.send(list(&[pod("a", 3)], 10, "")[..120].to_owned())
        .await;
    sleep(29).await;
    assert!(page.is_open());
    sleep(2).await;
    assert!(!page.is_open() && world.phase() == Phase::BackingOff);
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 3)], 10, ""));
    let _stream = world.watch(10).await;
    assert_eq!(world.held(), ["a@3"]);
}

#[tokio::test(start_paused = true)]
async fn case_13_an_undecodable_item_of_a_list_keeps_the_old_object_marked_stale() {
    let (mut world, stream) =
        World::live(paged(), &[pod("a", 1), pod("b", 2), pod("c", 3)], 10).await;
    sleep(60).await;
    stream.put(event("ERROR", &status(410, "Expired", "too old")));
    let mut bad = pod("b", 15);
    bad["metadata"]["labels"] = json!("no map");
    let mut body = list(&[pod("a", 1), bad, pod("d", 16)], 20, "").into_bytes();
    // Not even UTF-8.
    let at = body
        .windows(6)
        .position(|window| window == b"no map")
        .unwrap();
    body[at] = 0xff;
    let asked = world.asked_for("limit=500").await;
    asked.answer.send_response(Response::new(whole(body)));
    let _stream = world.watch(20).await;
    assert_eq!(world.held(), ["a@1", "b@2*", "d@16"]);
    assert_eq!(world.shard.counters.undecodable.load(Ordering::Relaxed), 1);
    assert_eq!(
        world.told(),
        ["20 Changed d@16", "20 Changed b@2", "20 Vanished c@3"]
    );
}

#[tokio::test(start_paused = true)]
async fn case_13_with_an_item_that_has_no_name_nothing_is_known_to_have_vanished() {
    let (mut world, stream) = World::live(paged(), &[pod("a", 1), pod("b", 2)], 10).await;
    sleep(60).await;
    stream.put(event("ERROR", &status(410, "Expired", "too old")));
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[json!({"metadata": 7}), pod("a", 1)], 20, ""));
    let _stream = world.watch(20).await;
    assert_eq!(world.held(), ["a@1", "b@2*"]);
}

#[tokio::test(start_paused = true)]
async fn case_5_and_9_a_relist_is_told_as_a_difference_with_a_new_uid_as_replaced() {
    let (mut world, stream) =
        World::live(paged(), &[pod("a", 1), pod("b", 2), pod("c", 3)], 10).await;
    sleep(60).await;
    stream.put(event("ERROR", &status(410, "Expired", "too old")));
    let mut other = pod("b", 15);
    other["metadata"]["uid"] = json!("another");
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 1), other], 20, ""));
    let _stream = world.watch(20).await;
    assert_eq!(
        world.told(),
        ["20 Replaced b@2", "20 Changed b@15", "20 Vanished c@3"]
    );
}

#[tokio::test(start_paused = true)]
async fn case_1_what_was_only_applied_and_not_published_is_deleted_by_a_relist_too() {
    let (mut world, stream) = World::live(paged(), &[pod("a", 1)], 10).await;
    sleep(60).await;
    // In one frame: added, and at once the end of what the server remembers.
    stream.put(event("ADDED", &pod("b", 11)) + &event("ERROR", &status(410, "Expired", "too old")));
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 1)], 20, ""));
    let _stream = world.watch(20).await;
    assert_eq!(world.told(), ["11 Changed b@11", "20 Vanished b@11"]);
}

#[tokio::test(start_paused = true)]
async fn a_first_list_that_may_be_old_proves_nothing_until_the_watch_does() {
    let mut world = World::new(config(|kind| kind.consistency = Consistency::Any));
    let asked = world.asked_for("resourceVersion=0").await;
    asked.ok(list(&[pod("a", 1)], 10, ""));
    let stream = world.watch(10).await;
    assert_eq!(
        (world.held(), world.phase()),
        (vec!["a@1".to_owned()], Phase::Live)
    );
    assert_eq!(world.shard.age(now()), None);
    stream.send(event("MODIFIED", &pod("a", 11))).await;
    assert!(world.shard.age(now()).is_some());
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_server_is_asked_to_stream_again() {
    let mut world = World::new(streamed());
    let refusal = "sendInitialEvents is forbidden for watch";
    world
        .asked_for("sendInitialEvents")
        .await
        .refuse(422, "Invalid", refusal);
    world.asked_for("limit=500").await.ok(list(&[], 10, ""));
    let stream = world.watch(10).await;
    world.version.send_replace("v1.37.0".into());
    settle().await;
    stream
        .send(event("ERROR", &status(410, "Expired", "too old")))
        .await;
    sleep(10).await;
    world.asked_for("sendInitialEvents").await;
}
