//! Digests: what a consumer can hold its copy against.

use super::*;
use crate::digest;

fn of(held: &BTreeMap<String, Event>) -> u64 {
    let entry = |(key, it): (&String, &Event)| digest::entry(key, &it.uid, &it.resource_version);
    held.iter().map(entry).fold(0, u64::wrapping_add)
}

/// By shard.
fn told(mark: &Mark) -> Vec<Option<u64>> {
    let positions = &mark
        .freshness
        .as_ref()
        .expect("every mark has it")
        .positions;
    let digest = |it: &proto::ShardPosition| it.has_digest.then_some(it.digest);
    positions.iter().map(digest).collect()
}

fn asking(namespaces: &[&str]) -> WatchObjectsRequest {
    WatchObjectsRequest {
        scope: Some(Scope {
            namespaces: namespaces.iter().map(|&it| it.into()).collect(),
            ..pods()
        }),
        digests: true,
        ..Default::default()
    }
}

fn in_three_namespaces() -> Fixture {
    let mut fixture = Fixture::new();
    let pods = ["a", "b", "c"].map(|namespace| fixture.pod(namespace, "web", 1, "web"));
    fixture.list(0, pods.into(), 100);
    fixture
}

fn upsert(fixture: &mut Fixture, namespace: &str, revision: u64) {
    let pod = fixture.pod(namespace, "web", revision, "web");
    fixture.writers[0].upsert(pod, revision);
    fixture.writers[0].publish(now());
}

#[tokio::test(start_paused = true)]
async fn marks_have_the_digest_of_the_namespaces_that_a_consumer_holds() {
    for namespaces in [&["a"][..], &["a", "c"], &[]] {
        let mut fixture = in_three_namespaces();
        let mut watch = fixture.watch(asking(namespaces)).await;
        watch.next().await;
        let (_, end) = watch.next().await;
        assert_eq!(told(&end), [Some(of(&watch.held))], "{namespaces:?}");

        upsert(&mut fixture, "a", 101);
        let (_, progress) = watch.next().await;
        assert_eq!(progress.r#type(), MarkType::Progress);
        assert_eq!(told(&progress), [Some(of(&watch.held))], "{namespaces:?}");

        let gone = Key::new("a", "web");
        fixture.writers[0].delete(&gone, None, 102, Cause::Deleted);
        fixture.writers[0].publish(now());
        let (_, progress) = watch.next().await;
        assert_eq!(told(&progress), [Some(of(&watch.held))], "{namespaces:?}");

        // What changes elsewhere moves only the bookmark.
        upsert(&mut fixture, "b", 103);
        let (_, mark) = watch.next().await;
        assert_eq!(told(&mark), [Some(of(&watch.held))], "{namespaces:?}");
        let revision = mark.freshness.expect("every mark has it").positions[0].revision;
        assert_eq!(revision, 103);
        assert!(fixture.writers[0].verify());
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_of_a_namespace_has_its_own_digest() {
    let mut fixture = Fixture::sharded(&["a", "b"], Limits::default());
    for (shard, namespace) in ["a", "b"].into_iter().enumerate() {
        let pod = fixture.pod(namespace, "web", 1, "web");
        fixture.list(shard, vec![pod], 100);
    }
    let mut watch = fixture.watch(asking(&["a"])).await;
    watch.initial().await;
    upsert(&mut fixture, "a", 101);
    let (_, progress) = watch.next().await;
    assert_eq!(told(&progress), [Some(of(&watch.held))]);
}

#[tokio::test(start_paused = true)]
async fn what_a_digest_does_not_describe_has_none() {
    let scope = |narrow: fn(&mut Scope)| {
        let mut scope = Scope {
            namespaces: vec!["a".into()],
            ..pods()
        };
        narrow(&mut scope);
        WatchObjectsRequest {
            scope: Some(scope),
            digests: true,
            ..Default::default()
        }
    };
    let requests = [
        scope(|it| it.name = "web".into()),
        scope(|it| it.label_selector = "app=web".into()),
        scope(|it| it.field_selector = "metadata.name=web".into()),
        WatchObjectsRequest {
            changes: proto::Changes::Visible.into(),
            ..asking(&["a"])
        },
        WatchObjectsRequest {
            changes: proto::Changes::Generation.into(),
            ..asking(&[])
        },
        WatchObjectsRequest {
            digests: false,
            ..asking(&["a"])
        },
    ];
    for request in requests {
        let fixture = in_three_namespaces();
        let mut watch = fixture.watch(request.clone()).await;
        watch.next().await;
        let (_, end) = watch.next().await;
        assert_eq!(told(&end), [None], "{request:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_has_the_digest_of_its_snapshot_whatever_has_changed_since() {
    let mut fixture = in_three_namespaces();
    let request = proto::ListObjectsRequest {
        scope: asking(&["a", "b"]).scope,
        ..Default::default()
    };
    let pages = fixture.client().list_objects(request).await.unwrap();
    upsert(&mut fixture, "a", 101);
    let mut pages = pages.into_inner();
    let mut sum = 0u64;
    while let Some(page) = pages.message().await.unwrap() {
        for it in page.objects {
            let key = Key::new(&it.namespace, &it.name);
            sum = sum.wrapping_add(digest::entry(key.as_str(), &it.uid, &it.resource_version));
        }
        if let Some(end) = page.end {
            let position = &end.freshness.unwrap().positions[0];
            assert!(position.has_digest);
            assert_eq!((position.digest, position.revision), (sum, 100));
            return;
        }
    }
    panic!("a list ends");
}
