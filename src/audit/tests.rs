//! A scripted daemon, and an API server that is a function.

use std::sync::{Arc, Mutex};

use clap::Parser;
use http::{Request, Response};
use http_body_util::Full;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::{
    client::fake::{Fake, Script, object},
    proto::{Freshness, ListEnd, ListObjectsResponse, Object},
};

/// What the API server has answered to so far.
type Asked = Arc<Mutex<Vec<String>>>;

/// An API server that answers so to a path with its query.
fn upstream(answer: impl Fn(&str) -> (u16, Value) + Send + Sync + 'static) -> (Upstream, Asked) {
    let asked = Asked::default();
    let (noted, answer) = (asked.clone(), Arc::new(answer));
    let service = tower::service_fn(move |request: Request<Body>| {
        let uri = request.uri().to_string();
        let (status, body) = answer(&uri);
        noted.lock().unwrap().push(uri);
        let body = Full::new(bytes::Bytes::from(body.to_string()));
        let response = Response::builder().status(status).body(body);
        async move { response.map_err(|error| std::io::Error::other(error.to_string())) }
    });
    let client = kube::Client::new(service, "default");
    let upstream = Upstream::fixed(client.clone(), client, UpstreamSettings::default());
    (upstream, asked)
}

fn pages(revision: u64, objects: &[(&str, &str, &str)], next: &str) -> (u16, Value) {
    let item = |&(name, uid, version): &(&str, &str, &str)| {
        let metadata =
            json!({"namespace": "n", "name": name, "uid": uid, "resourceVersion": version});
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
    };
    let items: Vec<_> = objects.iter().map(item).collect();
    let metadata = json!({"resourceVersion": revision.to_string(), "continue": next});
    let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata, "items": items});
    (200, list)
}

fn refused(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message, "code": code});
    (code, status)
}

/// A daemon that has these objects, at these shards' revisions.
fn daemon(kind: KindStatus, shards: &[(&str, u64)], objects: Vec<Object>) -> Script {
    let position = |&(namespace, revision): &(&str, u64)| ShardPosition {
        namespace: namespace.into(),
        revision,
        ..ShardPosition::default()
    };
    let end = ListEnd {
        count: objects.len() as u64,
        freshness: Some(Freshness {
            positions: shards.iter().map(position).collect(),
            ..Freshness::default()
        }),
        ..ListEnd::default()
    };
    Script {
        kinds: vec![kind],
        list: vec![ListObjectsResponse {
            objects,
            end: Some(end),
        }],
        ..Script::default()
    }
}

fn pods() -> KindStatus {
    KindStatus {
        resource: "pods".into(),
        api_version: "v1".into(),
        kind: "Pod".into(),
        namespaced: true,
        aliases: vec!["po".into()],
        ..KindStatus::default()
    }
}

/// What is printed, and what it comes to.
async fn audited(
    script: Script,
    upstream: Upstream,
    line: &str,
) -> (Result<Outcome, AuditError>, String, Fake) {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: AuditArgs,
    }
    let words = ["audit"].into_iter().chain(line.split_whitespace());
    let args = Line::parse_from(words).args;
    let fake = Fake::new(script);
    let client = Client::connect(&fake.serve().await.to_string()).unwrap();
    let (mut printed, mut notes) = (Vec::new(), Vec::new());
    let mut out = Output {
        out: &mut printed,
        err: &mut notes,
        now: jiff::Timestamp::now,
    };
    let outcome = audit(
        &client,
        Live::new(upstream),
        &args,
        Duration::ZERO,
        &mut out,
    )
    .await;
    (outcome, String::from_utf8(printed).unwrap(), fake)
}

#[tokio::test]
async fn both_are_read_at_the_revision_of_the_cache_page_by_page() {
    let (upstream, asked) = self::upstream(|uri| {
        if uri.contains("continue=") {
            pages(7, &[("b", "2", "6")], "")
        } else {
            pages(7, &[("a", "1", "5")], "more")
        }
    });
    let objects = vec![object("n", "a", "1", "5"), object("n", "b", "2", "6")];
    let kind = KindStatus {
        label_selector: "app=web".into(),
        field_selector: "metadata.namespace!=kube-system".into(),
        ..pods()
    };
    let (outcome, printed, fake) =
        audited(daemon(kind, &[("", 7)], objects), upstream, "po -A").await;
    assert_eq!(outcome.unwrap(), Outcome::Same);
    assert_eq!(
        printed,
        "pods: the same in informerd and at the API server: 2 objects at revision 7\n"
    );
    let asked = asked.lock().unwrap();
    let selected =
        "fieldSelector=metadata.namespace%21%3Dkube-system&labelSelector=app%3Dweb&limit=500";
    let exact = "resourceVersion=7&resourceVersionMatch=Exact";
    assert_eq!(
        *asked,
        [
            format!("/api/v1/pods?&{selected}&{exact}"),
            format!("/api/v1/pods?&{selected}&continue=more"),
        ]
    );
    let script = fake.script.lock().unwrap();
    assert_eq!(script.asked_list[0].view(), View::Keys);
    assert!(
        script.asked_list[0]
            .scope
            .as_ref()
            .unwrap()
            .namespaces
            .is_empty()
    );
}

#[tokio::test]
async fn what_differs_is_named() {
    let live = |_: &str| {
        pages(
            7,
            &[
                ("changed", "1", "5"),
                ("missing", "2", "6"),
                ("new", "9", "7"),
            ],
            "",
        )
    };
    let objects = || {
        vec![
            object("n", "changed", "1", "4"),
            object("n", "extra", "3", "3"),
            object("n", "new", "8", "2"),
        ]
    };
    let script = || daemon(pods(), &[("", 7)], objects());
    let (outcome, printed, _) = audited(script(), upstream(live).0, "pods -n n").await;
    assert_eq!(outcome.unwrap(), Outcome::Different);
    let expected = "\
DIFFERENCE   NAMESPACE   NAME      INFORMERD   API SERVER
version      n           changed   4           5
extra        n           extra     3           <none>
missing      n           missing   <none>      6
uid          n           new       2 (uid 8)   7 (uid 9)
pods: 4 differ; informerd has 3 objects at revision 7
";
    let squeezed = |text: &str| {
        let lines = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.collect::<Vec<_>>()
    };
    assert_eq!(squeezed(&printed), squeezed(expected));

    let (outcome, printed, _) = audited(script(), upstream(live).0, "pods -n n -o json").await;
    assert_eq!(outcome.unwrap(), Outcome::Different);
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(printed["same"], false);
    assert_eq!(
        printed["parts"],
        json!([{"namespace": "", "revision": "7", "objects": 3}])
    );
    assert_eq!(
        printed["differences"][2],
        json!({"what": "missing", "namespace": "n", "name": "missing", "informerd": null,
            "apiServer": {"uid": "2", "resourceVersion": "6"}})
    );
}

#[tokio::test]
async fn each_shard_is_read_at_its_own_revision() {
    let (upstream, asked) = self::upstream(|uri| match uri {
        uri if uri.starts_with("/api/v1/namespaces/n/pods") => pages(7, &[("a", "1", "5")], ""),
        uri if uri.starts_with("/api/v1/namespaces/m/pods") => pages(9, &[], ""),
        uri => panic!("{uri}"),
    });
    let objects = vec![object("n", "a", "1", "5")];
    let script = daemon(pods(), &[("m", 9), ("n", 7)], objects);
    let (outcome, printed, _) = audited(script, upstream, "pods -A").await;
    assert_eq!(outcome.unwrap(), Outcome::Same);
    assert!(
        printed.ends_with("1 objects at revision m=9,n=7\n"),
        "{printed}"
    );
    let asked = asked.lock().unwrap();
    assert!(asked[0].contains("namespaces/m/") && asked[0].contains("resourceVersion=9&"));
    assert!(asked[1].contains("namespaces/n/") && asked[1].contains("resourceVersion=7&"));
}

#[tokio::test]
async fn a_revision_that_cannot_be_had_is_no_difference_but_another_look() {
    let objects = || vec![object("n", "a", "1", "5")];
    for (code, reason) in [(410, "Expired"), (504, "Timeout")] {
        let gone = move |uri: &str, now: &[(&str, &str, &str)]| match uri.contains("Exact") {
            true if code == 410 => refused(code, reason, "too old resource version"),
            true => refused(code, reason, "Too large resource version: 7, current: 3"),
            false => pages(8, now, ""),
        };
        // The latest list has the same: so nothing is missing.
        let (upstream, _) = self::upstream(move |uri| gone(uri, &[("a", "1", "5")]));
        let (outcome, printed, _) =
            audited(daemon(pods(), &[("", 7)], objects()), upstream, "pods -n n").await;
        assert_eq!(outcome.unwrap(), Outcome::Same);
        assert!(printed.ends_with("at revision 8\n"), "{printed}");

        // It has not: that may have changed since, and stays unclear if nothing else is learnt.
        let (upstream, asked) = self::upstream(move |uri| gone(uri, &[("a", "1", "6")]));
        let (outcome, printed, _) =
            audited(daemon(pods(), &[("", 7)], objects()), upstream, "pods -n n").await;
        let error = outcome.expect_err("it cannot be told").to_string();
        assert!(
            error.starts_with("cannot tell whether pods are the same: "),
            "{error}"
        );
        assert_eq!(printed, "");
        assert_eq!(asked.lock().unwrap().len(), 2 * TRIES);
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_an_error_and_no_difference() {
    let denied = |_: &str| refused(403, "Forbidden", "pods is forbidden");
    let script = daemon(pods(), &[("", 7)], Vec::new());
    let (outcome, ..) = audited(script, upstream(denied).0, "pods").await;
    assert_eq!(
        outcome.expect_err("refused").to_string(),
        "cannot read pods from the API server: 403 Forbidden: pods is forbidden"
    );
    let none = |_: &str| -> (u16, Value) { panic!("nothing is to be asked") };
    let script = daemon(pods(), &[("", 7)], Vec::new());
    let (outcome, ..) = audited(script, upstream(none).0, "nodes").await;
    assert!(matches!(outcome, Err(AuditError::Kind(_))));
    let kind = KindStatus {
        api_version: String::new(),
        ..pods()
    };
    let (outcome, ..) = audited(daemon(kind, &[], Vec::new()), upstream(none).0, "pods").await;
    assert!(matches!(outcome, Err(AuditError::NotServed(_))));
}
