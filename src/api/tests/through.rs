//! Whole objects of a kind of which only metadata is cached.

use std::sync::Mutex;

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};

use super::*;
use crate::proof::{Fetch, ReadThrough, ThroughError};

/// What the API server says, and of what it was asked.
struct Server {
    says: Result<Option<serde_json::Value>, ThroughError>,
    asked: Mutex<Vec<String>>,
}

impl Fetch for Arc<Server> {
    fn fetch<'a>(
        &'a self,
        _: &'a Identity,
        key: &'a Key,
    ) -> BoxFuture<'a, Result<Option<Bytes>, ThroughError>> {
        self.asked.lock().unwrap().push(key.to_string());
        let says = self.says.clone();
        async move { Ok(says?.map(|object| object.to_string().into())) }.boxed()
    }
}

fn whole() -> serde_json::Value {
    serde_json::json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "uid-web", "resourceVersion": "7",
            "managedFields": []},
        "spec": {"nodeName": "n1", "hostname": "h"},
    })
}

/// The pod `default/web` is cached, its metadata only.
fn fixture(says: Result<Option<serde_json::Value>, ThroughError>) -> (Fixture, Arc<Server>) {
    let mut fixture = Fixture::build(&[""], Limits::default(), true);
    let pod = fixture.pod("default", "web", 1, "web");
    fixture.list(0, vec![pod], 100);
    let asked = Mutex::default();
    let server = Arc::new(Server { says, asked });
    let rules = PruneRules::default();
    let kinds = [("pods", &rules, Pruner::new(&rules).unwrap())];
    let through = Arc::new(ReadThrough::new(Arc::new(server.clone()), kinds));
    let catalog = Catalog::new(vec![fixture.kind.clone()]);
    let api = Api::new(catalog, Settings::default(), fixture.shutdown.clone());
    fixture.api = api.reading_through(through);
    (fixture, server)
}

fn request(name: &str) -> proto::GetObjectRequest {
    proto::GetObjectRequest {
        scope: Some(Scope {
            namespaces: vec!["default".into()],
            name: name.into(),
            ..pods()
        }),
        read_through: true,
        ..Default::default()
    }
}

async fn get(
    fixture: &Fixture,
    request: proto::GetObjectRequest,
) -> Result<proto::GetObjectResponse, Status> {
    let reply = fixture.client().get_object(request).await;
    reply.map(tonic::Response::into_inner)
}

#[tokio::test(start_paused = true)]
async fn the_whole_object_is_read_from_the_api_server_for_who_asks_for_it() {
    let (fixture, server) = fixture(Ok(Some(whole())));
    let reply = get(&fixture, request("web")).await.unwrap();
    let object = reply.object.unwrap();
    let json: serde_json::Value = serde_json::from_slice(&object.object).unwrap();
    assert_eq!(json["spec"]["nodeName"], "n1");
    assert!(json["metadata"].get("managedFields").is_none(), "{json}");
    assert_eq!(
        (&json["apiVersion"], object.resource_version.as_str()),
        (&"v1".into(), "7")
    );
    let freshness = reply.freshness.unwrap();
    assert!(freshness.positions.is_empty() && freshness.pruned && freshness.age.is_some());

    let masked = proto::GetObjectRequest {
        fields: vec![".spec.hostname".into()],
        ..request("web")
    };
    let object = get(&fixture, masked).await.unwrap().object.unwrap();
    let json: serde_json::Value = serde_json::from_slice(&object.object).unwrap();
    assert_eq!(json["spec"], serde_json::json!({"hostname": "h"}));
    assert_eq!(
        *server.asked.lock().unwrap(),
        ["default/web", "default/web"]
    );

    let metadata = proto::GetObjectRequest {
        view: View::Metadata.into(),
        ..request("web")
    };
    let reply = get(&fixture, metadata).await.unwrap();
    assert_eq!(
        reply.object.unwrap().resource_version,
        "1",
        "that is cached"
    );
    assert_eq!(server.asked.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_that_is_not_asked_for_or_not_let() {
    let (mut fixture, server) = fixture(Ok(Some(whole())));
    let plain = proto::GetObjectRequest {
        read_through: false,
        ..request("web")
    };
    let status = get(&fixture, plain).await.unwrap_err();
    assert_eq!(reason(&status), "METADATA_ONLY");
    assert!(
        status.message().contains("`readThrough: true`"),
        "{}",
        status.message()
    );
    // What the config leaves out is not found, whatever the API server has.
    let status = get(&fixture, request("other")).await.unwrap_err();
    assert_eq!(reason(&status), "OBJECT_NOT_FOUND");
    let catalog = Catalog::new(vec![fixture.kind.clone()]);
    fixture.api = Api::new(catalog, Settings::default(), fixture.shutdown.clone());
    let status = get(&fixture, request("web")).await.unwrap_err();
    assert_eq!(reason(&status), "METADATA_ONLY");
    assert!(server.asked.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_the_api_server_refuses_is_said_as_it_is() {
    let status = |says| async move {
        let (fixture, _) = fixture(says);
        get(&fixture, request("web")).await.unwrap_err()
    };
    let gone = status(Ok(None)).await;
    assert_eq!(
        (gone.code(), reason(&gone).as_str()),
        (Code::NotFound, "OBJECT_NOT_FOUND")
    );
    for (why, code, again) in [
        (
            ThroughError::Forbidden("no".into()),
            Code::PermissionDenied,
            false,
        ),
        (ThroughError::TooMany, Code::ResourceExhausted, true),
        (
            ThroughError::Upstream("down".into()),
            Code::Unavailable,
            true,
        ),
        (ThroughError::Late, Code::Unavailable, true),
    ] {
        let refused = status(Err(why)).await;
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (code, "NOT_READ_THROUGH")
        );
        let details = refused.get_error_details();
        assert_eq!(details.retry_info().is_some(), again, "{refused}");
    }
}
