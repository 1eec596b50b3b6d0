//! Tokens: where a stream goes on, and for how long it can.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_resumed_stream_goes_on_as_if_never_cut() {
    let mut fixture = Fixture::with_pods(3);
    for request in [all_pods(), labelled("web")] {
        let mut watch = fixture.watch(request.clone()).await;
        watch.initial().await;
        let revision = fixture.writers[0].revision();
        fixture.upsert("web-000", revision + 1, "web");
        watch.next().await;
        let (held, token) = (watch.held.clone(), watch.token.clone());
        drop(watch);

        fixture.upsert("web-001", revision + 2, "web");
        fixture.delete("web-002", revision + 3);
        fixture.upsert("web-003", revision + 4, "web");
        let mut again = fixture
            .watch(WatchObjectsRequest {
                token: token.into(),
                ..request
            })
            .await;
        again.held = held;
        let mut told = Vec::new();
        while told.len() < 3 {
            let (events, mark) = again.next().await;
            assert_eq!(mark.r#type(), MarkType::Progress, "no reset");
            told.extend(events.into_iter().map(|event| event.revision));
        }
        assert_eq!(told, [revision + 2, revision + 3, revision + 4]);
        assert_eq!(again.names(), ["web-000", "web-001", "web-003"]);
        fixture.upsert("web-002", revision + 5, "web");
        fixture.delete("web-003", revision + 6);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_catch_up_is_marked_at_once_wherever_its_messages_end() {
    let limits = Limits {
        journal_bytes: 0,
        ..Limits::default()
    };
    // However many events fit into a message, for one of these the last one is full.
    for changes in 1..16 {
        let mut fixture = Fixture::sharded(&[""], limits);
        let listed = vec![fixture.pod("default", "a", 1, "web")];
        fixture.list(0, listed, 100);
        let small = WatchObjectsRequest {
            max_batch_bytes: 1024,
            ..all_pods()
        };
        let mut watch = fixture.watch(small.clone()).await;
        watch.initial().await;
        let (held, token) = (watch.held.clone(), watch.token.clone());
        drop(watch);
        for change in 0..changes {
            fixture.upsert(&format!("b{change}"), 101 + change, "web");
        }
        let token = token.into();
        let mut again = fixture.watch(WatchObjectsRequest { token, ..small }).await;
        again.held = held;
        let (events, mark) = again.next().await;
        assert_eq!(events.len() as u64, changes);
        assert_eq!(mark.r#type(), MarkType::Progress, "{changes} changes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_past_the_journal_catches_up_or_is_reset() {
    let limits = Limits {
        journal_bytes: 0,
        ..Limits::default()
    };
    let mut fixture = Fixture::sharded(&[""], limits);
    let listed = vec![
        fixture.pod("default", "a", 1, "web"),
        fixture.pod("default", "b", 1, "web"),
    ];
    fixture.list(0, listed, 100);
    for (request, reset) in [(all_pods(), false), (labelled("web"), true)] {
        let mut watch = fixture.watch(request.clone()).await;
        watch.initial().await;
        let (held, token) = (watch.held.clone(), watch.token.clone());
        drop(watch);
        let revision = fixture.writers[0].revision();
        fixture.delete("a", revision + 1);
        fixture.upsert("c", revision + 2, "web");

        let fail = WatchObjectsRequest {
            token: token.clone().into(),
            on_gap: proto::OnGap::Fail.into(),
            ..request.clone()
        };
        let mut failing = fixture.watch(fail).await;
        failing.held = held.clone();
        if reset {
            let (_, end) = failing.next().await;
            assert_eq!(
                (end.r#type(), end.reason.as_str()),
                (MarkType::End, "PAST_JOURNAL")
            );
            let status = failing.try_next().await.unwrap_err();
            assert_eq!(
                (status.code(), reason(&status).as_str()),
                (Code::OutOfRange, "PAST_JOURNAL")
            );
        } else {
            failing.next().await;
            assert_eq!(failing.names(), ["b", "c"]);
        }

        let mut again = fixture
            .watch(WatchObjectsRequest {
                token: token.into(),
                ..request
            })
            .await;
        again.held = held;
        let (_, mark) = again.next().await;
        if reset {
            assert_eq!(
                (mark.r#type(), mark.reason.as_str()),
                (MarkType::Reset, "PAST_JOURNAL")
            );
            again.next().await;
        }
        assert_eq!(again.names(), ["b", "c"]);
        fixture.upsert("a", revision + 3, "web");
        fixture.delete("c", revision + 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_refused_for_another_watch_and_so_are_any_other_bytes() {
    let fixture = Fixture::with_pods(1);
    let mut watch = fixture.watch(all_pods()).await;
    watch.initial().await;
    let misuse = WatchObjectsRequest {
        token: watch.token.clone().into(),
        view: View::Metadata.into(),
        ..all_pods()
    };
    let status = fixture.try_watch(misuse).await.err().unwrap();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "TOKEN_SCOPE")
    );
    let nonsense = WatchObjectsRequest {
        token: b"nonsense"[..].into(),
        ..all_pods()
    };
    let status = fixture.try_watch(nonsense).await.err().unwrap();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().starts_with("token: not a token"),
        "{}",
        status.message()
    );
}

#[tokio::test(start_paused = true)]
async fn idle_streams_get_bookmarks_that_move_their_token() {
    let mut fixture = Fixture::with_pods(1);
    let mut watch = fixture.watch(labelled("nobody")).await;
    watch.initial().await;
    fixture.upsert("web-000", 101, "web");
    fixture.writers[0].advance(120);
    fixture.writers[0].publish(now());
    let before = tokio::time::Instant::now();
    let (events, mark) = watch.next().await;
    assert!(events.is_empty());
    assert_eq!(mark.r#type(), MarkType::Bookmark);
    assert_eq!(mark.freshness.unwrap().positions[0].revision, 120);
    assert!(before.elapsed() >= Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn nothing_to_hear_for_minutes_is_not_falling_behind() {
    let limits = Limits {
        journal_bytes: 4 << 10,
        tombstones: 0,
        ..Limits::default()
    };
    let mut fixture = Fixture::sharded(&[""], limits);
    let pods = vec![fixture.pod("quiet", "a", 1, "web")];
    fixture.list(0, pods, 100);
    let request = WatchObjectsRequest {
        bookmark_interval: Some(prost_types::Duration {
            seconds: 300,
            nanos: 0,
        }),
        scope: Some(Scope {
            namespaces: vec!["quiet".into()],
            label_selector: "app=web".into(),
            ..self::pods()
        }),
        ..Default::default()
    };
    let mut watch = fixture.watch(request).await;
    watch.initial().await;
    let consumers = fixture.api.consumers().clone();
    let elsewhere = async {
        let mut revision = 100;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            consumers.expire(now());
            revision += 1;
            fixture.upsert("busy", revision, "web");
        }
    };
    let (events, mark) = tokio::select! {
        next = watch.next() => next,
        () = elsewhere => unreachable!(),
    };
    assert!(events.is_empty());
    assert_eq!(mark.r#type(), MarkType::Bookmark, "{mark:?}");
}

#[tokio::test(start_paused = true)]
async fn those_who_come_back_again_and_again_cost_the_journal_nothing() {
    let mut fixture = Fixture::with_pods(1);
    let mut watch = fixture.watch(all_pods()).await;
    watch.initial().await;
    let token = watch.token.clone();
    drop(watch);
    fixture.upsert("web-000", 101, "web");
    let journal = || fixture.kind.shards()[0].state().unwrap().journal.bytes();
    let mut bytes = Vec::new();
    for _ in 0..3 {
        let request = WatchObjectsRequest {
            token: token.clone().into(),
            ..all_pods()
        };
        let (events, _) = fixture.watch(request).await.next().await;
        assert_eq!(events.len(), 1);
        bytes.push(journal());
    }
    assert!(bytes.iter().all(|one| *one == bytes[0]), "{bytes:?}");
}

#[tokio::test(start_paused = true)]
async fn no_number_of_masks_pushes_out_of_the_journal_what_others_resume_from() {
    let limits = Limits {
        journal_bytes: 64 << 10,
        ..Limits::default()
    };
    let mut fixture = Fixture::sharded(&[""], limits);
    let pods = vec![fixture.pod("default", "web-000", 1, "web")];
    fixture.list(0, pods, 100);
    let mask = |n: usize| WatchObjectsRequest {
        fields: vec![".spec".into(), format!(".status.f{n}")],
        ..all_pods()
    };
    let mut watches = Vec::new();
    for n in 0..60 {
        let mut watch = fixture.watch(mask(n)).await;
        watch.initial().await;
        watches.push(watch);
    }
    for revision in 101..121 {
        fixture.upsert("web-000", revision, "web");
        for watch in &mut watches {
            let (events, _) = watch.next().await;
            assert_eq!(events.len(), 1);
        }
        let journal = &fixture.kind.shards()[0].state().unwrap().journal;
        assert_eq!(journal.len() as u64, revision - 100);
        assert!(journal.bytes() <= limits.journal_bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_never_begins_before_the_version_asked_for() {
    let mut fixture = Fixture::new();
    let identity = Identity::clone(&*fixture.kind.identity().unwrap());
    // Not found by discovery yet.
    fixture.kind = Arc::new(Kind::new(
        "pods",
        true,
        false,
        7,
        fixture.kind.shards().to_vec(),
    ));
    fixture.api = Api::new(
        Catalog::new(vec![fixture.kind.clone()]),
        Settings::default(),
        fixture.shutdown.clone(),
    );
    let request = |version: &str| WatchObjectsRequest {
        min_resource_version: version.into(),
        ..all_pods()
    };
    let status = fixture.try_watch(request("101")).await.err().unwrap();
    assert_eq!(reason(&status), "KIND_NOT_SYNCED");
    let mut client = fixture.client();
    let (answer, ()) = tokio::join!(client.watch_objects(request("101")), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        fixture.kind.set_identity(identity);
        let pods = vec![fixture.pod("default", "a", 5, "web")];
        fixture.list(0, pods, 100);
    });
    assert_eq!(reason(&answer.unwrap_err()), "VERSION_NOT_REACHED");
}
