//! Reads: one object, lists, and what the daemon tells of itself; what is wrong with a request.

use super::*;

#[tokio::test(start_paused = true)]
async fn unary_calls_wait_for_the_first_list_and_no_longer_than_they_may() {
    let mut fixture = Fixture::new();
    let request = proto::GetObjectRequest {
        scope: Some(Scope {
            name: "a".into(),
            namespaces: vec!["default".into()],
            ..pods()
        }),
        ..Default::default()
    };
    let before = tokio::time::Instant::now();
    let status = fixture
        .client()
        .get_object(request.clone())
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "KIND_NOT_SYNCED")
    );
    assert_eq!(before.elapsed().as_secs(), 10);
    assert!(status.get_error_details().retry_info().is_some());

    let mut hurried = tonic::Request::new(request.clone());
    hurried.set_timeout(Duration::from_secs(2));
    let before = tokio::time::Instant::now();
    fixture.client().get_object(hurried).await.unwrap_err();
    assert!(
        before.elapsed() < Duration::from_secs(2),
        "the answer is ours, not the deadline's"
    );

    let mut client = fixture.client();
    let waiting = client.get_object(request);
    let pods = vec![fixture.pod("default", "a", 5, "web")];
    fixture.list(0, pods, 100);
    let object = waiting.await.unwrap().into_inner().object.unwrap();
    assert_eq!(object.name, "a");
}

#[tokio::test(start_paused = true)]
async fn a_read_after_a_write_waits_for_the_version_that_the_write_returned() {
    let mut fixture = Fixture::with_pods(1);
    let get = |version: &str| proto::GetObjectRequest {
        scope: Some(Scope {
            name: "web-000".into(),
            namespaces: vec!["default".into()],
            ..pods()
        }),
        min_resource_version: version.into(),
        ..Default::default()
    };
    let before = tokio::time::Instant::now();
    let status = fixture.client().get_object(get("101")).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "VERSION_NOT_REACHED")
    );
    assert_eq!(before.elapsed().as_secs(), 3);
    let mut client = fixture.client();
    let (answer, ()) = tokio::join!(client.get_object(get("101")), async {
        tokio::task::yield_now().await;
        fixture.upsert("web-000", 101, "web");
    });
    assert_eq!(
        answer
            .unwrap()
            .into_inner()
            .object
            .unwrap()
            .resource_version,
        "101"
    );
    let status = client.get_object(get("abc")).await.unwrap_err();
    assert!(
        status
            .message()
            .starts_with("min_resource_version: \"abc\""),
        "{}",
        status.message()
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_is_one_snapshot_and_its_token_goes_on_from_it() {
    let mut fixture = Fixture::with_pods(500);
    let request = proto::ListObjectsRequest {
        scope: Some(pods()),
        ..Default::default()
    };
    let mut list = fixture
        .client()
        .list_objects(request)
        .await
        .unwrap()
        .into_inner();
    let mut names = Vec::new();
    let mut end = None;
    let mut revision = 101;
    while let Some(message) = list.message().await.unwrap() {
        assert!(end.is_none(), "the end is the last message");
        names.extend(message.objects.into_iter().map(|object| object.name));
        end = message.end;
        // The world goes on meanwhile.
        fixture.delete(&format!("web-{:03}", 600 - revision), revision);
        revision += 1;
    }
    let end = end.unwrap();
    assert_eq!((names.len(), end.count), (500, 500));
    assert!(names.is_sorted());
    let follow = WatchObjectsRequest {
        token: end.token,
        ..all_pods()
    };
    let mut watch = fixture.watch(follow).await;
    let mut events = Vec::new();
    while events.len() as u64 + 101 < revision {
        let message = watch.stream.message().await.unwrap().unwrap();
        events.extend(message.events);
    }
    assert!(
        events
            .iter()
            .all(|event| event.cause() == DeleteCause::Deleted)
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_that_nobody_takes_is_aborted() {
    let fixture = Fixture::with_pods(3000);
    let request = proto::ListObjectsRequest {
        scope: Some(pods()),
        ..Default::default()
    };
    let mut list = fixture
        .client()
        .list_objects(request)
        .await
        .unwrap()
        .into_inner();
    list.message().await.unwrap().unwrap();
    tokio::time::advance(Duration::from_secs(61)).await;
    fixture.api.consumers().expire(now());
    let status = loop {
        match list.message().await {
            Ok(Some(message)) => assert!(message.end.is_none()),
            Ok(None) => panic!("it must not look complete"),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Aborted, "SNAPSHOT_EXPIRED")
    );
}

#[tokio::test(start_paused = true)]
async fn views_and_fields_cut_what_is_sent() {
    let fixture = Fixture::with_pods(1);
    let scope = Scope {
        name: "web-000".into(),
        namespaces: vec!["default".into()],
        ..pods()
    };
    let mut client = fixture.client();
    let mut get = async |view: View, fields: &[&str]| {
        let request = proto::GetObjectRequest {
            scope: Some(scope.clone()),
            view: view.into(),
            fields: fields.iter().map(|field| (*field).into()).collect(),
            ..Default::default()
        };
        let object = client
            .get_object(request)
            .await?
            .into_inner()
            .object
            .unwrap();
        Ok::<_, Status>(String::from_utf8(object.object.to_vec()).unwrap())
    };
    assert_eq!(get(View::Keys, &[]).await.unwrap(), "");
    let metadata = get(View::Metadata, &[]).await.unwrap();
    assert!(
        metadata.contains("labels") && !metadata.contains("spec"),
        "{metadata}"
    );
    let masked = get(View::Full, &[".spec.containers[*].image"])
        .await
        .unwrap();
    assert!(
        masked.contains(r#""containers":[{"image":"i"}]"#) && !masked.contains("nodeName"),
        "{masked}"
    );
    let status = get(View::Full, &[".spec..x"]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().starts_with("fields: "),
        "{}",
        status.message()
    );
    let status = get(View::Keys, &[".spec"]).await.unwrap_err();
    assert!(
        status.message().starts_with("fields: VIEW_KEYS"),
        "{}",
        status.message()
    );
}

#[tokio::test(start_paused = true)]
async fn bad_scopes_are_refused_naming_the_field() {
    let fixture = Fixture::with_pods(1);
    let scope = |change: fn(&mut Scope)| {
        let mut scope = pods();
        change(&mut scope);
        scope
    };
    for (scope, code, message) in [
        (
            scope(|s| s.resource.clear()),
            Code::InvalidArgument,
            "scope.resource: name the kind",
        ),
        (
            scope(|s| s.resource = "cats".into()),
            Code::NotFound,
            "this daemon does not watch \"cats\"; it watches pods",
        ),
        (
            scope(|s| s.name = "a".into()),
            Code::InvalidArgument,
            "scope.name: pods live in namespaces",
        ),
        (
            scope(|s| s.namespaces = vec![String::new()]),
            Code::InvalidArgument,
            "scope.namespaces: one of them is empty",
        ),
        (
            scope(|s| s.label_selector = "a b".into()),
            Code::InvalidArgument,
            "scope.label_selector: ",
        ),
        (
            scope(|s| s.field_selector = "spec.foo=1".into()),
            Code::InvalidArgument,
            "scope.field_selector: ",
        ),
    ] {
        let request = WatchObjectsRequest {
            scope: Some(scope),
            ..Default::default()
        };
        let status = fixture.try_watch(request).await.err().unwrap();
        assert_eq!(status.code(), code, "{}", status.message());
        assert!(
            status.message().starts_with(message),
            "{}",
            status.message()
        );
        assert!(!reason(&status).is_empty());
    }
    let status = fixture
        .try_watch(WatchObjectsRequest::default())
        .await
        .err()
        .unwrap();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_too_large_is_no_gap() {
    let fixture = Fixture::with_pods(1);
    let scope = Some(Scope {
        label_selector: "a".repeat(300_000),
        ..pods()
    });
    let list = proto::ListObjectsRequest {
        scope: scope.clone(),
        ..Default::default()
    };
    let watch = WatchObjectsRequest {
        scope,
        ..Default::default()
    };
    let list = fixture.client().list_objects(list).await.err().unwrap();
    let watch = fixture.try_watch(watch).await.err().unwrap();
    for status in [list, watch] {
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().starts_with("request: it has more than"));
        assert_eq!(reason(&status), "INVALID_FIELD");
    }
}

#[tokio::test(start_paused = true)]
async fn only_metadata_is_never_passed_off_as_the_whole() {
    let mut fixture = Fixture::build(&[""], Limits::default(), true);
    fixture.list(0, Vec::new(), 100);
    let status = fixture.try_watch(all_pods()).await.err().unwrap();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "METADATA_ONLY")
    );
    assert!(
        status.message().contains("metadataOnly: true"),
        "{}",
        status.message()
    );
    let metadata = WatchObjectsRequest {
        view: View::Metadata.into(),
        ..all_pods()
    };
    fixture.watch(metadata).await.initial().await;
}

#[tokio::test(start_paused = true)]
async fn introspection_tells_of_kinds_and_consumers() {
    use proto::introspection_service_server::IntrospectionService;
    let fixture = Fixture::with_pods(2);
    let mut watch = fixture.watch(labelled("web")).await;
    watch.initial().await;
    let introspection = introspection::Introspection::new(fixture.api.clone());
    let kinds = introspection
        .list_kinds(tonic::Request::new(Default::default()))
        .await
        .unwrap()
        .into_inner()
        .kinds;
    let [kind] = kinds.as_slice() else {
        panic!("{kinds:?}")
    };
    assert_eq!(
        (
            kind.resource.as_str(),
            kind.api_version.as_str(),
            kind.kind.as_str()
        ),
        ("pods", "v1", "Pod")
    );
    assert_eq!((kind.objects, kind.consumers), (2, 1));
    assert!(kind.object_bytes > 0 && kind.aliases.contains(&"po".to_owned()));

    let request = tonic::Request::new(proto::ListConsumersRequest {
        resource: "po".into(),
    });
    let consumers = introspection
        .list_consumers(request)
        .await
        .unwrap()
        .into_inner()
        .consumers;
    let [consumer] = consumers.as_slice() else {
        panic!("{consumers:?}")
    };
    assert_eq!(
        (consumer.method.as_str(), consumer.events_sent),
        ("WatchObjects", 2)
    );
    assert_eq!(consumer.scope.as_ref().unwrap().label_selector, "app=web");
    drop(watch);
    let consumers = introspection
        .list_consumers(tonic::Request::new(Default::default()))
        .await
        .unwrap()
        .into_inner();
    assert!(
        consumers.consumers.is_empty(),
        "a closed stream is forgotten"
    );
}
