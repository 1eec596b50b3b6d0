//! What Kubernetes's read protocol means is what the API server does. A table of requests is sent to it and to the
//! facade, and the answers are compared field by field. Where they differ by design, the row says in what, and why;
//! a difference that is not listed fails, and so does one that is listed and not there.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::Request;
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};

use crate::{
    cluster::{self, Daemon, client},
    support::eventually,
};

#[path = "kubeapi_rows.rs"]
mod rows;

use rows::Row;

/// Nothing is pruned, so that whole objects can be compared.
const CONFIG: &str = "
kinds:
- {resource: pods, prune: {managedFields: false, lastApplied: false}}
- {resource: configmaps, prune: {managedFields: false, lastApplied: false}}
- {resource: namespaces, prune: {managedFields: false, lastApplied: false}}
- {resource: deployments.apps, prune: {managedFields: false, lastApplied: false}}
- {resource: gadgets.table.example.com, prune: {managedFields: false, lastApplied: false}}
";

const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: table-a}
---
apiVersion: v1
kind: Namespace
metadata: {name: table-b}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.table.example.com}
spec:
  group: table.example.com
  scope: Namespaced
  names: {kind: Gadget, plural: gadgets, singular: gadget, shortNames: [gg], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    selectableFields: [{jsonPath: .spec.color}]
    additionalPrinterColumns:
    - {name: Color, type: string, jsonPath: .spec.color, description: What it looks like}
    - {name: Size, type: integer, jsonPath: .spec.size, priority: 1}
    - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].status'}
    - {name: Active, type: boolean, jsonPath: .spec.active}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {color: {type: string}, size: {type: integer}, active: {type: boolean}}
          status:
            type: object
            x-kubernetes-preserve-unknown-fields: true
"#;

fn more_objects() -> String {
    let mut yaml = String::new();
    for (at, (namespace, app)) in [
        ("table-a", "web"),
        ("table-a", "web"),
        ("table-a", "db"),
        ("table-a", "db"),
        ("table-a", "cache"),
        ("table-b", "web"),
    ]
    .iter()
    .enumerate()
    {
        // Of no scheduler, so that nobody touches them.
        yaml += &format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p-{at}, namespace: {namespace}, labels: {{app: {app}, set: table, num: '{at}'}}}}\n\
             spec: {{schedulerName: nobody, containers: [{{name: c, image: i}}]}}\n\
             ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c-{at}, namespace: {namespace}, labels: {{set: table}}}}\ndata: {{a: b}}\n"
        );
    }
    yaml += "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: table-a, labels: {set: table}}\n\
             spec: {replicas: 0, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}\n";
    for (name, color, size) in [("one", "red", 1), ("two", "blue", 2)] {
        yaml += &format!(
            "---\napiVersion: table.example.com/v1\nkind: Gadget\nmetadata: {{name: {name}, namespace: table-a}}\n\
             spec: {{color: {color}, size: {size}, active: true}}\nstatus: {{conditions: [{{type: Ready, status: 'True'}}]}}\n"
        );
    }
    yaml
}

/// An answer, as it is compared.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    content_type: String,
    retry_after: String,
    cache_control: String,
    /// One document, or one for each line of a watch.
    bodies: Vec<Value>,
    text: String,
}

async fn ask(client: &Client, row: &Row, target: &str) -> Answer {
    let request = Request::builder()
        .method(row.method.as_str())
        .uri(target)
        .header("accept", &row.accept)
        .body(Body::empty())
        .expect("the row is a request");
    let response = tokio::time::timeout(Duration::from_secs(20), client.send(request));
    let response = response.await;
    let response = response.unwrap_or_else(|_| panic!("no answer in 20 s: {target}"));
    let response = response.expect(target);
    let header = |name: &str| {
        let value = response.headers().get(name);
        value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    };
    let (status, content_type) = (response.status().as_u16(), header("content-type"));
    let (retry_after, cache_control) = (header("retry-after"), header("cache-control"));
    let body = tokio::time::timeout(Duration::from_secs(20), response.into_body().collect());
    let body = body.await;
    let body = body.unwrap_or_else(|_| panic!("the body does not end: {target}"));
    let body = body.expect(target).to_bytes();
    let text = String::from_utf8(body.to_vec()).expect("answers are text");
    let bodies = serde_json::Deserializer::from_str(&text)
        .into_iter()
        .map_while(Result::ok)
        .collect();
    Answer {
        status,
        content_type,
        retry_after,
        cache_control,
        bodies,
        text,
    }
}

/// What differs, as `place: this, that`.
fn differences(real: &Answer, facade: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, real: &dyn std::fmt::Debug, facade: &dyn std::fmt::Debug| {
        let (real, facade) = (format!("{real:?}"), format!("{facade:?}"));
        if real != facade {
            found.push(format!("{what}: {real}, {facade}"));
        }
    };
    compare("status", &real.status, &facade.status);
    compare("content-type", &real.content_type, &facade.content_type);
    compare("retry-after", &real.retry_after, &facade.retry_after);
    compare("cache-control", &real.cache_control, &facade.cache_control);
    compare("bodies", &real.bodies.len(), &facade.bodies.len());
    if real.bodies.is_empty() && facade.bodies.is_empty() {
        compare("text", &real.text, &facade.text);
    }
    for (real, facade) in real.bodies.iter().zip(&facade.bodies) {
        diff("", real, facade, &mut found);
    }
    found
}

fn diff(place: &str, real: &Value, facade: &Value, found: &mut Vec<String>) {
    match (real, facade) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let side = |map: &serde_json::Map<String, Value>| {
                    map.get(key).cloned().unwrap_or_else(|| json!("(absent)"))
                };
                diff(&format!("{place}/{key}"), &side(a), &side(b), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                diff(&format!("{place}/{at}"), a, b, found);
            }
        }
        _ if is_same(place, real, facade) => {}
        _ => found.push(format!("{place}: {real}, {facade}")),
    }
}

/// Numbers of a moment that no two servers can share.
fn is_same(place: &str, real: &Value, facade: &Value) -> bool {
    if real == facade {
        return true;
    }
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok());
    match place {
        // A list's revision is that of its moment. An object's own must be the same.
        "/metadata/resourceVersion" | "/object/metadata/resourceVersion" => {
            number(real).is_some() && number(facade).is_some()
        }
        "/metadata/continue" => start(real).is_some() && start(real) == start(facade),
        "/message" | "/object/message" => {
            let words = |value: &Value| {
                let text = value.as_str().unwrap_or_default();
                text.replace(|c: char| c.is_ascii_digit(), "")
            };
            let says_version = words(real).contains("esource version");
            says_version && words(real) == words(facade)
        }
        _ => false,
    }
}

/// Where a continue token goes on.
fn start(token: &Value) -> Option<String> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token.as_str()?).ok()?;
    let token: Value = serde_json::from_slice(&bytes).ok()?;
    // Of custom resources it has a slash in front.
    Some(token["start"].as_str()?.trim_start_matches('/').to_owned())
}

fn place(difference: &str) -> &str {
    difference.split(": ").next().unwrap_or_default()
}

/// Whether what was found is what the row lists: each by the beginning of its place.
fn judge(row: &Row, found: &[String]) -> Vec<String> {
    let listed = |difference: &&String| {
        let listed = row.differs.iter();
        listed
            .map(|(prefix, _)| prefix)
            .any(|prefix| matches(prefix, place(difference)))
    };
    let mut wrong: Vec<String> = found
        .iter()
        .filter(|difference| !listed(difference))
        .map(|difference| format!("differs in {difference}"))
        .collect();
    for (prefix, _) in &row.differs {
        if !found.iter().any(|it| matches(prefix, place(it))) {
            wrong.push(format!("does not differ in {prefix}, though it is listed"));
        }
    }
    wrong
}

/// `*` stands for one part of a place.
fn matches(prefix: &str, place: &str) -> bool {
    let (prefix, place): (Vec<_>, Vec<_>) =
        (prefix.split('/').collect(), place.split('/').collect());
    prefix.len() <= place.len()
        && prefix
            .iter()
            .zip(&place)
            .all(|(prefix, part)| *prefix == "*" || prefix == part)
}

/// The numbers that rows name.
struct Versions {
    /// Before any of the objects.
    before: u64,
    /// Of pod p-0.
    pod: u64,
    /// Of the last write of all.
    last: u64,
    real_token: String,
    facade_token: String,
}

impl Versions {
    fn fill(&self, text: &str, token: &str) -> String {
        text.replace("{before}", &self.before.to_string())
            .replace("{pod}", &self.pod.to_string())
            .replace("{last}", &self.last.to_string())
            .replace("{token}", token)
    }
}

fn version(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"].as_str();
    text.expect("objects have one").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_facade_answers_as_the_api_server_does() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let real = cluster.client().await;
    cluster.apply(OBJECTS).await;
    cluster
        .kubectl_ok(&[
            "wait",
            "--for=condition=Established",
            "crd/gadgets.table.example.com",
        ])
        .await;
    let daemon = Daemon::start(CONFIG, cluster.kubeconfig()).await;
    let facade = client(&daemon.kubeconfig().await).await.unwrap();
    let get = async |client: &Client, target: &str| {
        let row = Row::get(target);
        let answer = ask(client, &row, target).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text);
        answer.bodies.into_iter().next().expect("JSON")
    };
    let pods = "/api/v1/namespaces/table-a/pods";
    let before = version(&get(&real, pods).await);
    cluster.apply(&more_objects()).await;
    let gadgets = "/apis/table.example.com/v1/namespaces/table-a/gadgets";
    let last = version(&get(&real, gadgets).await);
    let pod = version(&get(&real, &format!("{pods}/p-0")).await);
    eventually("the facade has all", || async {
        let list = get(&facade, &format!("{gadgets}?resourceVersion=0")).await;
        list["items"]
            .as_array()
            .is_some_and(|items| items.len() == 2)
    })
    .await;
    let token = async |client: &Client| {
        let list = get(client, &format!("{pods}?limit=2")).await;
        let token = list["metadata"]["continue"].as_str();
        token.expect("there is more").to_owned()
    };
    let versions = Versions {
        before,
        pod,
        last,
        real_token: token(&real).await,
        facade_token: token(&facade).await,
    };
    let (rows, anywhere) = rows::all();
    let mut met = vec![false; anywhere.len()];
    assert!(rows.len() >= 120, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let mut found = Vec::new();
        // Ages move on between two answers.
        for _ in 0..3 {
            let (one, other) = (
                versions.fill(&row.target, &versions.real_token),
                versions.fill(&row.target, &versions.facade_token),
            );
            let answers = tokio::join!(ask(&real, row, &one), ask(&facade, row, &other));
            let mut differences = differences(&answers.0, &answers.1);
            differences.retain(|difference| {
                let known = anywhere
                    .iter()
                    .position(|(prefix, _)| matches(prefix, place(difference)));
                if let Some(known) = known {
                    met[known] = true;
                }
                known.is_none()
            });
            found = judge(row, &differences);
            if found.is_empty() {
                break;
            }
        }
        for difference in found {
            wrong.push(format!(
                "{} {} ({}): {difference}",
                row.method, row.target, row.accept
            ));
        }
    }
    assert!(met.iter().all(|met| *met), "not met: {anywhere:?} {met:?}");
    println!(
        "{} rows, {} with listed differences",
        rows.len(),
        rows.iter().filter(|row| !row.differs.is_empty()).count()
    );
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
