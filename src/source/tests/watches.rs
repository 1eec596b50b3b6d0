//! Watches: what they tell, how they fail, and what proves that they are alive.

use super::*;

#[tokio::test(start_paused = true)]
async fn case_2_a_410_as_http_status_relists_once_without_a_gap_or_a_duplicate() {
    let (mut world, stream) = World::with_bookmarks(&[pod("a", 1), pod("b", 2)], 10).await;
    stream.send(event("MODIFIED", &pod("a", 11))).await;
    sleep(60).await;
    stream.cut();
    world.probed(30).await;
    let asked = world.asked_for("watch=1").await;
    asked.refuse(410, "Expired", "too old resource version");
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 11), pod("c", 25)], 30, ""));
    let stream = world.watch(30).await;
    stream.send(event("ADDED", &pod("d", 31))).await;
    assert_eq!(world.held(), ["a@11", "c@25", "d@31"]);
    assert_eq!(
        world.told(),
        [
            "11 Changed a@11",
            "30 Changed c@25",
            "30 Vanished b@2",
            "31 Changed d@31"
        ]
    );
    assert_eq!(
        (world.relists(), world.watches()),
        (vec![("expired", 1), ("initial", 1)], (2, 1))
    );
}

#[tokio::test(start_paused = true)]
async fn case_2_a_410_in_the_stream_relists_once_without_a_gap_or_a_duplicate() {
    let (mut world, stream) = World::with_bookmarks(&[pod("a", 1), pod("b", 2)], 10).await;
    sleep(60).await;
    stream.put(
        event("MODIFIED", &pod("a", 11)) + &event("ERROR", &status(410, "Expired", "too old")),
    );
    let asked = world.asked().await;
    assert_eq!(asked.query, "limit=500", "after a 410 without a revision");
    assert_eq!(
        (world.phase(), world.held()),
        (Phase::Relisting, vec!["a@11".to_owned(), "b@2".to_owned()])
    );
    asked.ok(list(&[pod("a", 11), pod("c", 25)], 30, ""));
    let _stream = world.watch(30).await;
    assert_eq!(
        world.told(),
        ["11 Changed a@11", "30 Changed c@25", "30 Vanished b@2"]
    );
    assert_eq!(
        (world.relists(), world.phase()),
        (vec![("expired", 1), ("initial", 1)], Phase::Live)
    );
}

#[tokio::test(start_paused = true)]
async fn case_10_a_half_open_watch_is_noticed_by_missing_bookmarks() {
    let (mut world, silent) = World::with_bookmarks(&[pod("a", 1)], 10).await;
    sleep(129).await;
    assert!(silent.is_open() && world.phase() == Phase::Live);
    assert!(world.shard.age(now()).unwrap() >= Duration::from_secs(129));
    world.probed(12).await;
    assert!(!silent.is_open(), "one watch at most");
    assert_eq!(
        (world.phase(), world.shard.status().reason.as_str()),
        (Phase::BackingOff, "Silent")
    );
    let stream = world.watch(10).await;
    stream.send(event("ADDED", &pod("b", 12))).await;
    assert_eq!(
        (world.phase(), world.held()),
        (Phase::Live, vec!["a@1".to_owned(), "b@12".to_owned()])
    );
    assert_eq!(
        (world.relists(), world.watches()),
        (vec![("initial", 1)], (2, 1))
    );
    assert!(world.shard.age(now()).unwrap() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn case_10_a_watch_that_stays_silent_is_listed_anew() {
    let (mut world, _silent) = World::with_bookmarks(&[pod("a", 1)], 10).await;
    world.probed(12).await;
    let _silent_too = world.watch(10).await;
    world.probed(12).await;
    let asked = world.asked().await;
    assert_eq!(
        asked.query,
        "resourceVersion=10&resourceVersionMatch=NotOlderThan&limit=500"
    );
    asked.ok(list(&[pod("a", 1), pod("b", 12)], 12, ""));
    let _stream = world.watch(12).await;
    assert_eq!(world.relists(), [("initial", 1), ("silent", 1)]);
}

#[tokio::test(start_paused = true)]
async fn case_11_a_revision_that_went_back_voids_the_history() {
    let (mut world, stream) = World::with_bookmarks(&[pod("a", 90), pod("b", 95)], 100).await;
    stream.cut();
    world.probed(40).await;
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 35)], 40, ""));
    let stream = world.watch(40).await;
    let state = world.shard.state().unwrap();
    assert_eq!((state.history, state.revision), (1, 40));
    stream.send(event("ADDED", &pod("c", 41))).await;
    assert_eq!(world.held(), ["a@35", "c@41"]);
    assert_eq!(world.relists(), [("history", 1), ("initial", 1)]);
}

#[tokio::test(start_paused = true)]
async fn case_11_and_13_of_a_void_history_nothing_is_kept_in_place_of_what_cannot_be_decoded() {
    let (mut world, stream) = World::with_bookmarks(&[pod("a", 90), pod("b", 95)], 100).await;
    stream.cut();
    world.probed(40).await;
    let mut bad = pod("b", 38);
    bad["metadata"]["labels"] = json!("no map");
    let asked = world.asked_for("limit=500").await;
    asked.ok(list(&[pod("a", 35), bad], 40, ""));
    let stream = world.watch(40).await;
    assert_eq!(world.held(), ["a@35"]);
    // Its versions would go back.
    stream.send(event("MODIFIED", &pod("b", 41))).await;
    assert_eq!(world.held(), ["a@35", "b@41"]);
}

#[tokio::test(start_paused = true)]
async fn case_13_what_is_kept_in_place_of_another_that_cannot_be_decoded_goes_with_that() {
    let (mut world, stream) = World::with_bookmarks(&[pod("a", 1)], 10).await;
    sleep(60).await;
    stream.put(event("ERROR", &status(410, "Expired", "too old")));
    // Deleted and made anew meanwhile, in a form that cannot be read.
    let mut other = pod("a", 15);
    other["metadata"]["uid"] = json!("another");
    other["metadata"]["labels"] = json!("no map");
    let asked = world.asked_for("limit=500").await;
    asked.ok(list(&[other.clone()], 20, ""));
    let stream = world.watch(20).await;
    assert_eq!(world.held(), ["a@1*"]);
    other["metadata"]["resourceVersion"] = json!("21");
    stream.send(event("DELETED", &other)).await;
    assert!(world.held().is_empty());
}

#[tokio::test(start_paused = true)]
async fn case_11_a_version_that_comes_again_in_another_history_is_taken_as_it_is_there() {
    let labelled = |app: &str| {
        let mut pod = pod("a", 41);
        pod["metadata"]["labels"] = json!({"app": app});
        pod
    };
    let items = [labelled("old"), pod("b", 95)];
    let (mut world, stream) = World::with_bookmarks(&items, 100).await;
    let before = world.shard.state().unwrap();
    let app = |world: &World| {
        let state = world.shard.state().unwrap();
        let held = state.get(&Key::new("ns", "a")).unwrap();
        held.labels.get("app").map(str::to_owned)
    };
    assert_eq!(app(&world).as_deref(), Some("old"));
    stream.cut();
    world.probed(41).await;
    // Restored as it was at 40, and written to once since: that is 41, too.
    let after = list(&[labelled("new"), pod("b", 95)], 41, "");
    world.asked_for("limit=500").await.ok(after);
    let _stream = world.watch(41).await;
    assert_eq!(app(&world).as_deref(), Some("new"));
    let state = world.shard.state().unwrap();
    let b = Key::new("ns", "b");
    let kept = Arc::ptr_eq(before.get(&b).unwrap(), state.get(&b).unwrap());
    assert!(kept, "what says the same is not held twice");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_names_a_time_is_not_asked_before() {
    let mut world = World::new(paged());
    let asked = world.asked_for("limit=500").await;
    asked.respond(
        429,
        &[("retry-after", "40")],
        status(429, "TooManyRequests", "later").to_string(),
    );
    world.quiet(40).await;
    assert_eq!(world.shard.status().reason, "TooManyRequests");
    world.asked_for("limit=500").await.ok(list(&[], 10, ""));
    let stream = world.watch(10).await;
    let error = json!({"kind": "Status", "reason": "TooManyRequests", "code": 429, "details": {"retryAfterSeconds": 30}});
    stream.put(event("ERROR", &error));
    world.quiet(30).await;
    world.probed(10).await;
    let _stream = world.watch(10).await;
}

#[tokio::test(start_paused = true)]
async fn case_13_an_undecodable_update_keeps_the_old_object_marked_stale_and_the_rest_goes_on() {
    let (world, stream) = World::live(paged(), &[pod("a", 1), pod("b", 2)], 10).await;
    let mut bad = pod("a", 11);
    bad["metadata"]["labels"] = json!("no map");
    stream
        .send(event("MODIFIED", &bad) + &event("MODIFIED", &pod("b", 12)))
        .await;
    assert_eq!(world.held(), ["a@1*", "b@12"]);
    assert_eq!(world.revision(), 12);
    // A readable one heals it, and one that cannot be read can still be deleted.
    stream.send(event("MODIFIED", &pod("a", 13))).await;
    assert_eq!(world.held(), ["a@13", "b@12"]);
    bad["metadata"]["resourceVersion"] = json!("14");
    stream.send(event("DELETED", &bad)).await;
    assert_eq!(world.held(), ["b@12"]);
    assert_eq!(world.shard.counters.undecodable.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_version_cannot_be_read_is_found_by_a_list() {
    let (mut world, stream) = World::live(paged(), &[pod("a", 1)], 10).await;
    let mut bad = pod("a", 11);
    bad["metadata"]["resourceVersion"] = json!(null);
    stream.put(event("MODIFIED", &bad));
    world.probed(11).await;
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 11)], 11, ""));
    let _stream = world.watch(11).await;
    assert_eq!(
        (world.held(), world.relists()),
        (
            vec!["a@11".to_owned()],
            vec![("disordered", 1), ("initial", 1)]
        )
    );
    assert!(!world.kind.is_unordered());
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_no_event_fails_the_watch_and_a_second_one_lists_anew() {
    let (mut world, stream) = World::live(paged(), &[pod("a", 1)], 10).await;
    stream.put("<html>502</html>\n");
    world.probed(10).await;
    let stream = world.watch(10).await;
    assert_eq!(world.relists(), [("initial", 1)]);
    stream.put("<html>502</html>\n");
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 1)], 10, ""));
    let _stream = world.watch(10).await;
    assert_eq!(world.relists(), [("error", 1), ("initial", 1)]);
}

#[tokio::test(start_paused = true)]
async fn case_8_duplicates_and_events_from_the_past_change_nothing() {
    let (mut world, stream) = World::with_bookmarks(&[pod("a", 8), pod("b", 2)], 10).await;
    stream.send(event("MODIFIED", &pod("b", 11))).await;
    stream
        .send(event("MODIFIED", &pod("b", 11)) + &event("MODIFIED", &pod("a", 7)))
        .await;
    stream.send(event("DELETED", &pod("a", 9))).await;
    assert_eq!(
        (world.held(), world.told()),
        (
            vec!["a@8".to_owned(), "b@11".to_owned()],
            vec!["11 Changed b@11".to_owned()]
        )
    );
    // The delete was newer than what is held, which cannot be: looked into.
    world.probed(11).await;
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("b", 11)], 12, ""));
    let _stream = world.watch(12).await;
    assert_eq!(world.held(), ["b@11"]);
}

#[tokio::test(start_paused = true)]
async fn versions_that_go_back_twice_though_the_history_does_not_have_no_order() {
    let (mut world, mut stream) = World::live(paged(), &[pod("a", 1)], 10).await;
    for version in [2, 3] {
        assert!(!world.kind.is_unordered());
        stream.put(event("MODIFIED", &pod("a", version)));
        world.probed(10).await;
        world
            .asked_for("limit=500")
            .await
            .ok(list(&[pod("a", version)], 10, ""));
        stream = world.asked_for("watch=1").await.stream();
        sleep(120).await;
    }
    assert!(world.kind.is_unordered());
    stream.send(event("MODIFIED", &pod("a", 4))).await;
    assert_eq!(world.held(), ["a@4"]);
}

#[tokio::test(start_paused = true)]
async fn a_kind_without_bookmarks_is_unproven_and_not_half_open() {
    let (mut world, stream) = World::live(paged(), &[pod("a", 1)], 10).await;
    assert!(!world.shard.is_unproven());
    // Is it still the history that is known? The watch goes on where it was, whatever the API server's revision is.
    world.probed(90).await;
    assert!(world.shard.is_unproven() && !stream.is_open());
    let stream = world.watch(10).await;
    assert_eq!(world.phase(), Phase::Live);
    world.quiet(3000).await;
    drop(stream);
    world.probed(700).await;
    let stream = world.watch(10).await;
    assert_eq!(
        (world.revision(), world.relists()),
        (10, vec![("initial", 1)])
    );
    stream.send(bookmark(701)).await;
    assert!(!world.shard.is_unproven());
}

#[tokio::test(start_paused = true)]
async fn bookmarks_move_the_revision_and_prove_the_shard() {
    let (mut world, stream) = World::with_bookmarks(&[pod("a", 1)], 10).await;
    sleep(60).await;
    stream.send(bookmark(50)).await;
    assert_eq!(world.revision(), 50);
    assert!(world.shard.age(now()).unwrap() < Duration::from_secs(1));
    // It ends in its time: followed at once by the next, from the bookmark, with no other request.
    for revision in 51..=86 {
        sleep(98).await;
        stream.send(bookmark(revision)).await;
    }
    sleep(10).await;
    let begun = now();
    drop(stream);
    let _stream = world.watch(86).await;
    assert!(now() - begun < Duration::from_millis(10));
    assert_eq!((world.phase(), world.watches()), (Phase::Live, (2, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_before_its_time_is_followed_by_a_check_of_the_history() {
    let (mut world, stream) = World::with_bookmarks(&[pod("a", 1)], 10).await;
    sleep(60).await;
    drop(stream);
    world.probed(10).await;
    let _stream = world.watch(10).await;
    assert_eq!(
        (world.phase(), world.relists()),
        (Phase::Live, vec![("initial", 1)])
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_at_once_again_and_again_is_not_hammered() {
    let (mut world, stream) = World::with_bookmarks(&[], 10).await;
    drop(stream);
    let begun = now();
    let mut watches = 0;
    while now() - begun < Duration::from_secs(60) {
        let asked = world.asked().await;
        if asked.query == "limit=1" {
            asked.ok(list(&[], 10, ""));
        } else {
            watches += 1;
            drop(asked.stream());
        }
    }
    assert!(watches < 10, "{watches}");
}

#[tokio::test(start_paused = true)]
async fn versions_without_an_order_are_told_and_resumed_as_they_are() {
    let mut world = World::new(paged());
    let odd = |name: &str, version: &str| json!({"metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": version}});
    let body = json!({"kind": "PodList", "metadata": {"resourceVersion": "r-z"}, "items": [odd("a", "r-y")]});
    world.asked_for("limit=500").await.ok(body.to_string());
    let stream = world.asked_for("resourceVersion=r-z").await.stream();
    stream
        .send(event("MODIFIED", &odd("a", "r-b")) + &event("ADDED", &odd("b", "r-a")))
        .await;
    assert!(world.kind.is_unordered());
    assert_eq!(
        (world.held(), world.revision()),
        (vec!["a@r-b".to_owned(), "b@r-a".to_owned()], 0)
    );
    stream.cut();
    world.asked_for("resourceVersion=r-a").await;
}

#[tokio::test(start_paused = true)]
async fn items_newer_than_their_list_have_no_order() {
    let mut world = World::new(paged());
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 99)], 10, ""));
    let _stream = world.watch(10).await;
    assert!(world.kind.is_unordered());
    assert_eq!(
        (world.held(), world.revision()),
        (vec!["a@99".to_owned()], 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_published_in_batches_and_each_line_may_come_in_pieces() {
    let (world, stream) = World::live(paged(), &[], 10).await;
    let burst: String = (0..2500)
        .map(|i| event("ADDED", &pod(&format!("p{i}"), 11 + i)))
        .collect();
    for piece in burst.as_bytes().chunks(1000) {
        stream.put(Bytes::copy_from_slice(piece));
    }
    settle().await;
    assert_eq!(world.held().len(), 2500);
    let state = world.shard.state().unwrap();
    let sizes: Vec<usize> = state
        .journal
        .segments()
        .map(|segment| segment.entries.len())
        .collect();
    assert!(sizes.len() >= 3 && sizes.len() <= 10, "{sizes:?}");
    assert!(
        state
            .objects
            .values()
            .all(|slot| slot.item.received_unix_nanos > 0)
    );
}
