//! Around the connection: kinds that come, go and change, permissions, users, what the config asks for.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_not_served_waits_until_it_is() {
    let mut world = World::new(paged());
    world
        .resolved
        .send_replace(Availability::Absent("gone".into()));
    world.quiet(300).await;
    assert_eq!(world.phase(), Phase::Waiting);
    world
        .resolved
        .send_replace(Availability::Served(Arc::new(resolved())));
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 1)], 10, ""));
    let _stream = world.watch(10).await;
    assert_eq!(world.held(), ["a@1"]);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_removed_shows_its_deletions_and_serves_nothing_until_it_is_complete_again()
{
    let (mut world, stream) = World::with_bookmarks(&[pod("a", 1), pod("b", 2)], 10).await;
    stream.put(event("DELETED", &pod("a", 11)));
    drop(stream);
    world.probed(11).await;
    world.asked_for("watch=1").await.refuse(
        404,
        "NotFound",
        "the server could not find the requested resource",
    );
    settle().await;
    assert_eq!(
        (world.phase(), world.held()),
        (Phase::BackingOff, vec!["b@2".to_owned()]),
        "one 404 sweeps nothing"
    );
    world
        .resolved
        .send_replace(Availability::Absent("gone".into()));
    settle().await;
    assert_eq!((world.phase(), world.held().len()), (Phase::Removed, 0));
    assert_eq!(world.told(), ["11 Deleted a@1", "11 Vanished b@2"]);
    world.quiet(600).await;
    world
        .resolved
        .send_replace(Availability::Served(Arc::new(resolved())));
    let asked = world.asked_for("limit=500").await;
    assert!(world.shard.state().is_none());
    assert_eq!(world.phase(), Phase::Syncing);
    asked.ok(list(&[pod("c", 20)], 20, ""));
    let _stream = world.watch(20).await;
    assert_eq!(
        (world.held(), world.phase()),
        (vec!["c@20".to_owned()], Phase::Live)
    );
}

#[tokio::test(start_paused = true)]
async fn a_kind_in_another_version_is_read_anew_as_another_history() {
    let (mut world, stream) = World::live(paged(), &[pod("a", 1)], 10).await;
    let before = world
        .shard
        .state()
        .unwrap()
        .get(&Key::new("ns", "a"))
        .unwrap()
        .json
        .clone();
    world
        .resolved
        .send_replace(Availability::Served(Arc::new(ResolvedKind {
            short_names: Vec::new(),
            ..resolved()
        })));
    world.quiet(60).await;
    world
        .resolved
        .send_replace(Availability::Served(Arc::new(ResolvedKind {
            version: "v2".into(),
            ..resolved()
        })));
    let asked = world.asked_for("limit=500").await;
    assert_eq!(asked.path, "/api/v2/pods");
    assert!(!stream.is_open() && world.shard.state().is_none());
    asked.ok(list(&[pod("a", 1)], 11, ""));
    let _stream = world.watch(11).await;
    let state = world.shard.state().unwrap();
    assert_eq!(state.history, 1);
    assert_ne!(state.get(&Key::new("ns", "a")).unwrap().json, before);
}

#[tokio::test(start_paused = true)]
async fn a_missing_permission_is_named_and_the_last_state_stays() {
    let (mut world, stream) = World::with_bookmarks(&[pod("a", 1)], 10).await;
    stream.cut();
    let message = r#"pods is forbidden: User "u" cannot list resource "pods" in API group "" at the cluster scope"#;
    for _ in 0..8 {
        world.asked().await.refuse(403, "Forbidden", message);
        settle().await;
        let status = world.shard.status();
        assert_eq!(
            (status.phase, status.reason.as_str()),
            (Phase::Forbidden, "Forbidden")
        );
        assert!(status.message.contains(message), "{}", status.message);
        assert_eq!(world.held(), ["a@1"]);
    }
    let begun = now();
    world.probed(10).await;
    assert!(now() - begun <= Duration::from_secs(60));
    let _stream = world.watch(10).await;
    assert_eq!(world.phase(), Phase::Live);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_was_deleted_and_made_anew_is_another_one_however_fast_that_was() {
    let with_uid = |uid: &str| {
        let uid = uid.to_owned();
        Availability::Served(Arc::new(ResolvedKind { uid, ..resolved() }))
    };
    let (mut world, _stream) = World::with_bookmarks(&[pod("a", 1)], 10).await;
    world.resolved.send_replace(with_uid("one"));
    world.quiet(60).await;
    assert_eq!(world.shard.removals(), 0, "its uid was not known before");
    let before = world.shard.state().unwrap();
    world.resolved.send_replace(with_uid("two"));
    let asked = world.asked_for("limit=500").await;
    assert_eq!((world.shard.removals(), world.phase()), (1, Phase::Syncing));
    assert!(world.shard.state().is_none());
    let last = world.shard.last_state();
    assert_eq!(
        (last.objects.len(), last.sequence),
        (0, before.sequence + 1)
    );
    asked.ok(list(&[pod("a", 20)], 20, ""));
    let _stream = world.watch(20).await;
    assert_eq!(world.relists(), [("initial", 1), ("reappeared", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_kind_on_first_use_is_watched_while_it_is_used() {
    let mut world = World::new(paged_and(|kind| kind.start = Start::OnFirstUse));
    world.quiet(100).await;
    assert_eq!(
        (world.phase(), world.shard.status().reason.as_str()),
        (Phase::Waiting, "NotUsed")
    );
    let user = world.kind.enter();
    world
        .asked_for("limit=500")
        .await
        .ok(list(&[pod("a", 1)], 10, ""));
    let stream = world.watch(10).await;
    stream.send(bookmark(10)).await;
    drop(user);
    for _ in 0..5 {
        sleep(100).await;
        stream.send(bookmark(11)).await;
    }
    sleep(99).await;
    assert!(world.shard.state().is_some() && world.phase() == Phase::Live);
    sleep(2).await;
    assert!(world.shard.state().is_none() && world.phase() == Phase::Waiting && !stream.is_open());
    let _user = world.kind.enter();
    let asked = world.asked().await;
    assert_eq!(
        asked.query,
        "resourceVersion=11&resourceVersionMatch=NotOlderThan&limit=500"
    );
    asked.ok(list(&[pod("b", 12)], 12, ""));
    let _stream = world.watch(12).await;
    assert_eq!(world.held(), ["b@12"]);
}

#[tokio::test(start_paused = true)]
async fn selectors_go_upstream_and_what_leaves_them_may_still_exist() {
    let config = paged_and(|kind| {
        kind.label_selector = "app=web".parse::<LabelSelector>().unwrap();
        kind.namespaces = crate::config::Namespaces::Exclude(vec!["kube-system".into()]);
    });
    let mut world = World::new(config);
    let asked = world.asked().await;
    assert_eq!(
        asked.query,
        "limit=500&labelSelector=app%3Dweb&fieldSelector=metadata.namespace%21%3Dkube-system"
    );
    asked.ok(list(&[pod("a", 1)], 10, ""));
    let stream = world.asked_for("labelSelector=app%3Dweb").await.stream();
    stream.send(event("DELETED", &pod("a", 11))).await;
    assert_eq!(world.told(), ["11 DeletedOrLeft a@1"]);
}

#[tokio::test(start_paused = true)]
async fn metadata_only_is_demanded() {
    let mut world = World::new(paged_and(|kind| kind.metadata_only = true));
    let asked = world.asked().await;
    assert_eq!(
        asked.accept,
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    );
    asked.ok(list(&[pod("a", 1)], 10, ""));
    // Tried again without a limit, in vain.
    world.asked().await.ok(list(&[pod("a", 1)], 10, ""));
    settle().await;
    assert!(world.shard.status().message.contains("metadataOnly: false"));
    let partial = list(&[pod("a", 1)], 10, "").replace("PodList", "PartialObjectMetadataList");
    world.asked().await.ok(partial);
    let asked = world.asked_for("watch=1").await;
    assert_eq!(
        asked.accept,
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    );
    let stream = asked.stream();
    let mut object = pod("b", 11);
    object["kind"] = json!("PartialObjectMetadata");
    object["apiVersion"] = json!("meta.k8s.io/v1");
    stream.send(event("ADDED", &object)).await;
    assert_eq!(world.held(), ["a@1", "b@11"]);
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_told_and_leaves_the_state_readable() {
    let (mut world, stream) = World::live(paged(), &[pod("a", 1)], 10).await;
    let (end, task) = world.running.take().unwrap();
    end.send(()).unwrap();
    task.await.unwrap();
    assert!(!stream.is_open());
    assert_eq!(
        (world.held(), world.watches()),
        (vec!["a@1".to_owned()], (1, 0))
    );
}
