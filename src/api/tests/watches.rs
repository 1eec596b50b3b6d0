//! Watches: how they begin, what they tell, and how they end.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_watch_begins_with_the_state_and_goes_on_with_changes() {
    let mut fixture = Fixture::with_pods(2);
    let mut watch = fixture.watch(all_pods()).await;
    let (_, begin) = watch.next().await;
    assert_eq!(
        (begin.r#type(), begin.reason.as_str()),
        (MarkType::Reset, "INITIAL")
    );
    let (initial, end) = watch.next().await;
    assert_eq!(end.r#type(), MarkType::ResetEnd);
    assert!(
        initial
            .iter()
            .all(|event| event.revision == 100 && event.received_unix_nanos == 0)
    );
    let freshness = end.freshness.unwrap();
    assert!(freshness.pruned);
    assert_eq!(freshness.state(), proto::KindState::Live);
    assert_eq!(freshness.positions[0].revision, 100);

    fixture.upsert("web-000", 101, "web");
    let (events, mark) = watch.next().await;
    assert_eq!(mark.r#type(), MarkType::Progress);
    let [event] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!((event.r#type(), event.revision), (EventType::Upsert, 101));
    assert_eq!(
        (event.namespace.as_str(), event.name.as_str()),
        ("default", "web-000")
    );
    assert_eq!(
        (event.uid.as_str(), event.resource_version.as_str()),
        ("uid-web-000", "101")
    );
    assert_eq!(event.received_unix_nanos, 42);
    let json: serde_json::Value = serde_json::from_slice(&event.object).unwrap();
    assert_eq!(
        (&json["apiVersion"], &json["kind"]),
        (&"v1".into(), &"Pod".into())
    );

    fixture.delete("web-001", 102);
    let (events, _) = watch.next().await;
    let [event] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(
        (event.r#type(), event.cause()),
        (EventType::Delete, DeleteCause::Deleted)
    );
    assert!(event.object.is_empty(), "a deletion carries no content");
    assert_eq!(watch.names(), ["web-000"]);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_leaves_the_selector_is_deleted_and_comes_back_by_an_upsert() {
    let mut fixture = Fixture::with_pods(2);
    let mut watch = fixture.watch(labelled("web")).await;
    watch.initial().await;
    fixture.upsert("web-000", 101, "db");
    let (events, _) = watch.next().await;
    assert_eq!(
        (events[0].r#type(), events[0].cause()),
        (EventType::Delete, DeleteCause::LeftSelector)
    );
    assert_eq!(watch.names(), ["web-001"]);
    fixture.upsert("web-000", 102, "web");
    watch.next().await;
    assert_eq!(watch.names(), ["web-000", "web-001"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_an_incomplete_kind_says_so_and_starts_when_it_is_complete() {
    let mut fixture = Fixture::new();
    fixture.writers[0].set_status(Phase::Syncing, "Listing", "page 1");
    let mut watch = fixture.watch(all_pods()).await;
    let (events, mark) = watch.next().await;
    assert!(events.is_empty() && mark.token.is_empty());
    assert_eq!(mark.r#type(), MarkType::State);
    let freshness = mark.freshness.unwrap();
    assert_eq!(
        (freshness.state(), freshness.reason.as_str()),
        (proto::KindState::Syncing, "Listing")
    );
    let pods = vec![fixture.pod("default", "a", 5, "web")];
    fixture.list(0, pods, 100);
    while watch.names().is_empty() {
        watch.next().await;
    }
    assert_eq!(watch.names(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_comes_back_in_another_version_is_selected_by_that() {
    let mut fixture = Fixture::with_pods(1);
    let select = |selector: &str| WatchObjectsRequest {
        scope: Some(Scope {
            field_selector: selector.into(),
            ..pods()
        }),
        ..Default::default()
    };
    let mut watch = fixture.watch(select("spec.nodeName=node-web")).await;
    watch.initial().await;
    let mut lost = fixture.watch(select("spec.schedulerName!=x")).await;
    lost.initial().await;

    let identity = Identity::clone(&*fixture.kind.identity().unwrap());
    let paths = [".status.phase", ".spec.nodeName"].map(|path| path.parse().unwrap());
    let selectable = Selectable::default().with(paths).unwrap();
    let pruner = Pruner::new(&PruneRules::default()).unwrap();
    fixture.decoder = Decoder::new("v2", "Pod", true, &pruner, &selectable);
    fixture.kind.set_identity(Identity {
        selectable,
        version: "v2".into(),
        ..identity
    });
    fixture.writers[0].unsync();
    fixture.writers[0].retire(now());
    let listed = ["web", "db"].map(|app| fixture.pod("default", app, 120, app));
    fixture.writers[0].replace(
        listed.into(),
        &Unreadable::default(),
        120,
        History::New,
        now(),
    );
    watch.initial().await;
    assert_eq!(watch.names(), ["web"]);
    let (_, end) = lost.next().await;
    assert_eq!(end.r#type(), MarkType::End);
    let status = lost.try_next().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn a_kind_in_shards_is_one_stream_with_one_initial_state() {
    let mut fixture = Fixture::sharded(&["a", "b"], Limits::default());
    let pods = vec![fixture.pod("a", "x", 5, "web")];
    fixture.list(0, pods, 100);
    let mut watch = fixture.watch(all_pods()).await;
    let (_, mark) = watch.next().await;
    assert_eq!(
        mark.r#type(),
        MarkType::State,
        "nothing before all shards are complete"
    );
    let pods = vec![fixture.pod("b", "y", 7, "web")];
    fixture.list(1, pods, 200);
    while watch.held.is_empty() {
        let (_, mark) = watch.next().await;
        if mark.r#type() == MarkType::ResetEnd {
            assert!(mark.namespaces.is_empty(), "it covers all");
        }
    }
    assert_eq!(watch.names(), ["x", "y"]);

    let pod = fixture.pod("b", "y", 201, "db");
    fixture.writers[1].upsert(pod, 201);
    fixture.writers[1].publish(now());
    let (_, mark) = watch.next().await;
    let positions = mark.freshness.unwrap().positions;
    let revisions: Vec<_> = positions
        .iter()
        .map(|at| (at.namespace.as_str(), at.revision))
        .collect();
    assert_eq!(revisions, [("a", 100), ("b", 201)]);

    // One shard's upstream is restored: its part is sent anew, and only that.
    fixture.writers[0].replace(Vec::new(), &Unreadable::default(), 50, History::New, now());
    let (_, mark) = watch.next().await;
    assert_eq!(
        (mark.r#type(), mark.reason.as_str()),
        (MarkType::Reset, "HISTORY_VOID")
    );
    assert_eq!(mark.namespaces, ["a"]);

    let unwatched = WatchObjectsRequest {
        scope: Some(Scope {
            namespaces: vec!["c".into()],
            ..self::pods()
        }),
        ..Default::default()
    };
    let status = fixture.try_watch(unwatched).await.err().unwrap();
    assert!(
        status.message().contains("namespaces.include"),
        "{}",
        status.message()
    );
}

#[tokio::test(start_paused = true)]
async fn a_state_that_begins_anew_is_announced_before_any_of_it_and_no_token_points_into_it() {
    let mut fixture = Fixture::sharded(&["a", "b"], Limits::default());
    let many = |fixture: &Fixture, namespace: &str, version: u64| {
        let name = |n| format!("{namespace}-{n:02}");
        (0..20)
            .map(|n| fixture.pod(namespace, &name(n), version, "web"))
            .collect::<Vec<_>>()
    };
    for (shard, namespace) in ["a", "b"].into_iter().enumerate() {
        let pods = many(&fixture, namespace, 1);
        fixture.list(shard, pods, 100);
    }
    let request = WatchObjectsRequest {
        max_batch_bytes: 1024,
        ..all_pods()
    };
    let mut watch = fixture.watch(request).await;
    loop {
        let message = watch.stream.message().await.unwrap().unwrap();
        if message.events.iter().any(|event| event.namespace == "b") {
            break;
        }
    }
    // A new history, which one of the two shards sees later.
    for writer in &mut fixture.writers {
        writer.unsync();
        writer.retire(now());
    }
    let again = |fixture: &mut Fixture, shard: usize, pods| {
        fixture.writers[shard].replace(pods, &Unreadable::default(), 50, History::New, now());
    };
    let pods = many(&fixture, "b", 2);
    again(&mut fixture, 1, pods);
    let mut late = false;
    let mut restarted = false;
    loop {
        let message = watch.stream.message().await.unwrap().unwrap();
        // What was on its way may still come.
        let new = message.events.iter().any(|event| event.revision == 50);
        assert!(restarted || !new, "{message:?}");
        let Some(mark) = message.mark else { continue };
        match mark.r#type() {
            MarkType::Reset => restarted = true,
            MarkType::ResetEnd => break,
            _ => {
                assert!(mark.token.is_empty(), "{mark:?}");
                if !std::mem::replace(&mut late, true) {
                    let pods = many(&fixture, "a", 2);
                    again(&mut fixture, 0, pods);
                }
            }
        }
    }
    assert!(late && restarted);
}

#[tokio::test(start_paused = true)]
async fn a_removed_kind_ends_its_streams_after_its_deletions() {
    let mut fixture = Fixture::with_pods(1);
    let mut watch = fixture.watch(all_pods()).await;
    watch.initial().await;
    fixture.writers[0].retire(now());
    fixture.writers[0].set_status(Phase::Removed, "NotServed", "its CRD was removed");
    let mut end = Mark::default();
    while end.r#type() != MarkType::End {
        end = watch.next().await.1;
    }
    assert_eq!(end.reason, "KIND_REMOVED");
    assert!(watch.names().is_empty());
    let status = watch.try_next().await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "KIND_REMOVED")
    );
    // Whoever comes now waits for it to be back.
    let mut later = fixture.watch(all_pods()).await;
    let (_, mark) = later.next().await;
    assert_eq!(mark.freshness.unwrap().state(), proto::KindState::Removed);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_removed_and_back_at_once_ends_its_streams_all_the_same() {
    let mut fixture = Fixture::with_pods(2);
    let mut watch = fixture.watch(all_pods()).await;
    watch.initial().await;
    // All of it before the stream is polled again.
    fixture.writers[0].retire(now());
    fixture.writers[0].set_status(Phase::Removed, "NotServed", "its CRD was removed");
    fixture.writers[0].unsync();
    fixture.writers[0].set_status(Phase::Syncing, "Reappeared", "listed again");
    let mut deleted = Vec::new();
    let end = loop {
        let (events, mark) = watch.next().await;
        deleted.extend(
            events
                .into_iter()
                .map(|event| (event.name.clone(), event.cause())),
        );
        if mark.r#type() == MarkType::End {
            break mark;
        }
    };
    let vanished = |name: &str| (name.to_owned(), DeleteCause::Vanished);
    assert_eq!(deleted, [vanished("web-000"), vanished("web-001")]);
    assert_eq!(end.reason, "KIND_REMOVED");
    assert_eq!(reason(&watch.try_next().await.unwrap_err()), "KIND_REMOVED");
    // Whoever comes now is there for what it is by now.
    let mut later = fixture.watch(all_pods()).await;
    let pod = fixture.pod("default", "new", 120, "web");
    fixture.list(0, vec![pod], 120);
    while later.names().is_empty() {
        later.next().await;
    }
    assert_eq!(later.names(), ["new"]);
}

#[tokio::test(start_paused = true)]
async fn a_draining_server_ends_streams_with_a_token_and_when_to_come_back() {
    let fixture = Fixture::with_pods(1);
    let mut watch = fixture.watch(all_pods()).await;
    watch.initial().await;
    fixture.shutdown.drain();
    let (_, end) = watch.next().await;
    assert_eq!(
        (end.r#type(), end.reason.as_str()),
        (MarkType::End, "DRAINING")
    );
    assert!(!end.token.is_empty() && end.retry_after.is_some());
    let status = watch.try_next().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn large_states_and_batches_come_in_messages_of_the_size_asked_for() {
    let mut fixture = Fixture::with_pods(300);
    let request = WatchObjectsRequest {
        max_batch_bytes: 4096,
        ..all_pods()
    };
    let mut watch = fixture.watch(request).await;
    let size = |message: &WatchObjectsResponse| prost::Message::encoded_len(message);
    let mut events = 0;
    while events < 300 {
        let message = watch.stream.message().await.unwrap().unwrap();
        assert!(size(&message) < 4096 + 1024, "{}", size(&message));
        events += message.events.len();
    }
    while watch
        .stream
        .message()
        .await
        .unwrap()
        .unwrap()
        .mark
        .is_none()
    {}
    for n in 0..300 {
        let revision = 101 + n;
        let pod = fixture.pod("default", &format!("web-{n:03}"), revision, "web");
        fixture.writers[0].upsert(pod, revision);
    }
    fixture.writers[0].publish(now());
    let mut events = 0;
    while events < 300 {
        let message = watch.stream.message().await.unwrap().unwrap();
        assert!(size(&message) < 4096 + 1024, "{}", size(&message));
        events += message.events.len();
        assert!(message.mark.is_none(), "a token comes once all is sent");
    }
}
