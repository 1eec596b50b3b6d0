//! What a watch is told of: every change, what can be seen, or what came of some time.

use tokio::time::Instant;

use super::*;
use crate::proto::{Changes, Delivery, ListObjectsRequest, OnGap};

fn visible(fields: &[&str]) -> WatchObjectsRequest {
    WatchObjectsRequest {
        changes: Changes::Visible.into(),
        fields: fields.iter().map(|&field| field.to_owned()).collect(),
        ..all_pods()
    }
}

fn every() -> WatchObjectsRequest {
    WatchObjectsRequest {
        delivery: Delivery::Every.into(),
        ..all_pods()
    }
}

fn told(events: &[Event]) -> Vec<(&str, u64)> {
    let told = events.iter();
    told.map(|event| (event.name.as_str(), event.revision))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_seen_is_not_told() {
    for (fields, shown) in [
        (&[][..], true),
        (&[".metadata.labels"][..], true),
        (&[".spec.nodeName"][..], true),
        (&[".status", ".spec.containers"][..], false),
    ] {
        let mut fixture = Fixture::with_pods(2);
        let mut watch = fixture.watch(visible(fields)).await;
        watch.initial().await;
        // A new resourceVersion and nothing else; something else, and back again; something else.
        fixture.upsert("web-000", 101, "web");
        fixture.upsert("web-001", 102, "db");
        fixture.upsert("web-001", 103, "web");
        fixture.upsert("new", 104, "web");
        assert_eq!(told(&watch.next().await.0), [("new", 104)], "{fields:?}");
        fixture.upsert("web-000", 105, "web");
        fixture.upsert("web-000", 106, "db");
        fixture.upsert("web-000", 107, "db");
        fixture.delete("new", 108);
        let expected: &[_] = if shown {
            &[("web-000", 107), ("new", 108)]
        } else {
            &[("new", 108)]
        };
        assert_eq!(told(&watch.next().await.0), expected, "{fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_stays_seen_over_a_cut_and_tokens_move_on_with_what_is_not_told() {
    let mut fixture = Fixture::with_pods(1);
    let mut watch = fixture.watch(visible(&[])).await;
    watch.initial().await;
    fixture.upsert("web-000", 101, "web");
    let (events, mark) = watch.next().await;
    assert!(events.is_empty());
    assert_eq!(mark.r#type(), MarkType::Bookmark);
    assert_eq!(mark.freshness.unwrap().positions[0].revision, 101);
    let token = watch.token.clone().into();
    fixture.upsert("web-000", 102, "web");
    fixture.upsert("new", 103, "web");
    let mut again = fixture
        .watch(WatchObjectsRequest {
            token,
            ..visible(&[])
        })
        .await;
    assert_eq!(told(&again.next().await.0), [("new", 103)]);
}

#[tokio::test(start_paused = true)]
async fn of_generations_only_the_changes_are_told() {
    let mut fixture = Fixture::new();
    let at = |fixture: &Fixture, generation: i64, version: u64| {
        let json = serde_json::json!({"metadata": {
            "name": "a", "namespace": "n", "uid": "u", "generation": generation,
            "resourceVersion": version.to_string(),
        }});
        let decoder = &fixture.decoder;
        Arc::new(decoder.decode(json.to_string().as_bytes(), 0).unwrap())
    };
    let first = at(&fixture, 1, 1);
    fixture.list(0, vec![first], 100);
    let request = WatchObjectsRequest {
        changes: Changes::Generation.into(),
        ..all_pods()
    };
    let mut watch = fixture.watch(request).await;
    watch.initial().await;
    for (generation, version) in [(1, 101), (2, 102), (2, 103), (3, 104)] {
        let item = at(&fixture, generation, version);
        fixture.writers[0].upsert(item, version);
        fixture.writers[0].publish(now());
        if [102, 104].contains(&version) {
            assert_eq!(told(&watch.next().await.0), [("a", version)]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_change_is_told_however_far_behind_a_consumer_is() {
    let mut fixture = Fixture::with_pods(1);
    let mut watch = fixture.watch(every()).await;
    watch.initial().await;
    for revision in 101..1_101 {
        fixture.upsert("web-000", revision, "web");
    }
    fixture.delete("web-000", 1_101);
    let mut revisions = Vec::new();
    let mut cut = None;
    while revisions.len() < 1_001 {
        let (events, mark) = watch.next().await;
        assert_eq!(mark.r#type(), MarkType::Progress);
        revisions.extend(events.iter().map(|event| event.revision));
        cut.get_or_insert((revisions.len(), watch.token.clone()));
    }
    assert!(revisions.into_iter().eq(101..=1_101));

    let (seen, token) = cut.unwrap();
    let resumed = WatchObjectsRequest {
        token: token.into(),
        ..every()
    };
    let mut again = fixture.watch(resumed).await;
    again.held = watch.held.clone();
    let mut revisions = Vec::new();
    while seen + revisions.len() < 1_001 {
        let stream = again.stream.message().await.unwrap().unwrap();
        revisions.extend(stream.events.iter().map(|event| event.revision));
    }
    assert!(revisions.into_iter().eq(101 + seen as u64..=1_101));
}

#[tokio::test(start_paused = true)]
async fn every_change_up_to_a_relist_is_told_and_then_that_there_is_a_gap() {
    for difference in [true, false] {
        let mut fixture = Fixture::with_pods(1);
        let mut watch = fixture.watch(every()).await;
        watch.initial().await;
        fixture.upsert("web-000", 101, "db");
        let last = if difference { 109 } else { 101 };
        let list = vec![fixture.pod("default", "web-000", last, "db")];
        fixture.list(0, list, 110);
        fixture.upsert("web-000", 111, "web");
        assert_eq!(told(&watch.next().await.0), [("web-000", 101)]);
        let (_, end) = watch.next().await;
        assert_eq!(
            (end.r#type(), end.reason.as_str()),
            (MarkType::End, "HISTORY_GAP")
        );
        let status = watch.try_next().await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::OutOfRange, "HISTORY_GAP")
        );

        // From after it on, all is there again.
        let mut anew = fixture.watch(every()).await;
        anew.initial().await;
        fixture.upsert("web-000", 112, "web");
        assert_eq!(told(&anew.next().await.0), [("web-000", 112)]);
    }
}

#[tokio::test(start_paused = true)]
async fn every_change_is_refused_of_what_is_forgotten_or_has_no_order() {
    let limits = Limits {
        journal_bytes: 0,
        ..Limits::default()
    };
    let mut fixture = Fixture::sharded(&[""], limits);
    let list = vec![fixture.pod("default", "a", 1, "web")];
    fixture.list(0, list, 100);
    let mut watch = fixture.watch(every()).await;
    watch.initial().await;
    fixture.upsert("a", 101, "web");
    let (_, end) = watch.next().await;
    assert_eq!(end.reason, "PAST_JOURNAL");
    let status = watch.try_next().await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);

    fixture.kind.set_unordered();
    let status = fixture.try_watch(every()).await.err().unwrap();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status
            .message()
            .starts_with("delivery: DELIVERY_EVERY needs")
    );
}

#[tokio::test(start_paused = true)]
async fn an_object_that_was_told_rests_and_its_latest_comes_after_that() {
    let rest = Duration::from_secs(20);
    let request = |token: Vec<u8>| WatchObjectsRequest {
        min_interval: super::super::duration(rest),
        bookmark_interval: super::super::duration(Duration::from_secs(5)),
        token: token.into(),
        ..all_pods()
    };
    let mut fixture = Fixture::with_pods(1);
    let mut watch = fixture.watch(request(Vec::new())).await;
    watch.initial().await;
    let mut last = Instant::now();
    for round in 0..3 {
        let revision = 101 + round * 10;
        for change in 0..10 {
            fixture.upsert("web-000", revision + change, "web");
        }
        let mut bookmarks = 0;
        loop {
            let (events, mark) = watch.next().await;
            if events.is_empty() {
                assert_eq!(mark.r#type(), MarkType::Bookmark);
                bookmarks += 1;
                continue;
            }
            assert_eq!(told(&events), [("web-000", revision + 9)], "the latest");
            break;
        }
        assert!(bookmarks >= 3, "the stream is heard of meanwhile");
        assert!(last.elapsed() >= rest);
        last = Instant::now();
    }
    // A bookmark's token is not ahead of what rests.
    fixture.upsert("web-000", 200, "web");
    assert_eq!(watch.next().await.1.r#type(), MarkType::Bookmark);
    let mut again = fixture.watch(request(watch.token.clone())).await;
    assert_eq!(told(&again.next().await.0), [("web-000", 200)]);

    // Whoever has rested is told at once.
    while watch.next().await.0.is_empty() {}
    tokio::time::sleep(rest).await;
    while tokio::time::timeout(Duration::ZERO, watch.next())
        .await
        .is_ok()
    {}
    fixture.upsert("web-000", 201, "web");
    let before = Instant::now();
    while watch.next().await.0.is_empty() {}
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_good_for_the_changes_it_was_given_for_and_that_of_a_list_for_all() {
    let mut fixture = Fixture::with_pods(1);
    let request = ListObjectsRequest {
        scope: Some(pods()),
        ..Default::default()
    };
    let list = fixture.client().list_objects(request).await.unwrap();
    let mut list = list.into_inner();
    let mut token = Vec::new();
    while let Some(message) = list.message().await.unwrap() {
        if let Some(end) = message.end {
            token = end.token.to_vec();
        }
    }
    fixture.upsert("web-000", 101, "web");
    fixture.upsert("new", 102, "web");
    let mut watch = fixture
        .watch(WatchObjectsRequest {
            token: token.into(),
            ..visible(&[])
        })
        .await;
    assert_eq!(told(&watch.next().await.0), [("new", 102)]);
    let other = WatchObjectsRequest {
        token: watch.token.clone().into(),
        on_gap: OnGap::Fail.into(),
        ..all_pods()
    };
    let status = fixture.try_watch(other).await.err().unwrap();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "TOKEN_SCOPE")
    );
}
