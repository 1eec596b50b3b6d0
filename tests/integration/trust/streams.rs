//! Open streams end soon after what allowed them.

use super::*;

/// Reads a stream to its end: the events of each message with their time, and how it ended.
async fn to_its_end(
    mut stream: Streaming<informerd::proto::WatchObjectsResponse>,
    within: Duration,
) -> (
    Instant,
    Option<informerd::proto::Mark>,
    bytes::Bytes,
    Status,
) {
    let mut last_events = Instant::now();
    let (mut end, mut last_token) = (None, bytes::Bytes::new());
    let reading = async {
        loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    if !message.events.is_empty() {
                        last_events = Instant::now();
                    }
                    if let Some(mark) = message.mark {
                        if !mark.token.is_empty() {
                            last_token = mark.token.clone();
                        }
                        if mark.r#type() == MarkType::End {
                            end = Some(mark);
                        }
                    }
                }
                Ok(None) => return Status::ok("ended"),
                Err(status) => return status,
            }
        }
    };
    let status = timeout(within, reading)
        .await
        .expect("the stream ends in time");
    (last_events, end, last_token, status)
}

#[tokio::test]
async fn a_stream_ends_within_half_a_minute_of_its_role_binding_and_goes_on_when_that_is_back() {
    let Some(cluster) = cluster::shared().await.filter(|cluster| cluster.is_own()) else {
        return;
    };
    namespace(cluster, "revoked").await;
    reader(cluster, "revoked").await;
    bind(cluster, "revoked").await;
    let daemon = Daemon::start(CONFIG, cluster.kubeconfig()).await;
    let reader = Caller::new(&daemon, &token(cluster, "revoked", "reader", &[]).await).await;
    let scope = scope("configmaps", &["revoked"]);
    let stream = reader
        .watch(scope.clone(), bytes::Bytes::new())
        .await
        .unwrap();
    let reading = tokio::spawn(to_its_end(stream, Duration::from_secs(60)));

    cluster
        .kubectl_ok(&["delete", "rolebinding", "reader", "-n", "revoked"])
        .await;
    let revoked = Instant::now();
    let mut written = 0;
    while !reading.is_finished() {
        cluster
            .apply(&config_map("revoked", &format!("c-{written}")))
            .await;
        written += 1;
    }
    let (last_events, end, last_token, status) = reading.await.unwrap();
    println!(
        "ended {:?} after the binding went, {written} changes were made",
        revoked.elapsed()
    );
    assert!(revoked.elapsed() < Duration::from_secs(31));
    assert!(last_events.saturating_duration_since(revoked) < Duration::from_secs(30));
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert!(
        status
            .message()
            .contains(r#"cannot watch resource "configmaps""#),
        "{}",
        status.message()
    );
    assert_eq!(end.unwrap().reason, "REVOKED");

    // The token of the stream gives no rights.
    let refused = reader
        .watch(scope.clone(), last_token.clone())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    cluster.apply(&config_map("revoked", "while-away")).await;
    bind(cluster, "revoked").await;
    eventually("the stream goes on where it was", async || {
        let Ok(mut stream) = reader.watch(scope.clone(), last_token.clone()).await else {
            return false;
        };
        while let Ok(Ok(Some(message))) = timeout(Duration::from_secs(5), stream.message()).await {
            let reset = message.mark.as_ref().map(|mark| mark.r#type());
            assert_ne!(reset, Some(MarkType::Reset), "it resumes");
            if message
                .events
                .iter()
                .any(|event| event.name == "while-away")
            {
                return true;
            }
        }
        panic!("what was written meanwhile is missing");
    })
    .await;
    discard(cluster, &["revoked"]).await;
}

#[tokio::test]
async fn a_stream_ends_within_half_a_minute_of_the_pod_that_its_token_was_bound_to() {
    let Some(cluster) = cluster::shared().await.filter(|cluster| cluster.is_own()) else {
        return;
    };
    namespace(cluster, "bound").await;
    reader(cluster, "bound").await;
    bind(cluster, "bound").await;
    cluster
        .apply(
            "{apiVersion: v1, kind: Pod, metadata: {name: owner, namespace: bound}, \
             spec: {serviceAccountName: reader, nodeName: node-0, containers: [{name: c, image: x}]}}",
        )
        .await;
    let daemon = Daemon::start(CONFIG, cluster.kubeconfig()).await;
    let more = ["--bound-object-kind", "Pod", "--bound-object-name", "owner"];
    let reader = Caller::new(&daemon, &token(cluster, "bound", "reader", &more).await).await;
    let stream = reader
        .watch(scope("configmaps", &["bound"]), bytes::Bytes::new())
        .await
        .unwrap();
    let reading = tokio::spawn(to_its_end(stream, Duration::from_secs(60)));
    cluster
        .kubectl_ok(&[
            "delete",
            "pod",
            "owner",
            "-n",
            "bound",
            "--force",
            "--grace-period=0",
        ])
        .await;
    let deleted = Instant::now();
    let (_, end, _, status) = reading.await.unwrap();
    println!("ended {:?} after the pod went", deleted.elapsed());
    assert!(deleted.elapsed() < Duration::from_secs(31));
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    assert_eq!(end.unwrap().reason, "REVOKED");
    discard(cluster, &["bound"]).await;
}
