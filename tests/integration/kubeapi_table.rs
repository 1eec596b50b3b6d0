//! What Kubernetes's read protocol means is what the API server does. A table of requests is sent to it and to the
//! server under test, which is the facade or the sandbox, and the answers are compared field by field. Where they
//! differ by design, the row says in what, and why; a difference that is not listed fails, and so does one that is
//! listed and not there.

use std::{path::Path, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::Request;
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};

use crate::{
    cluster::{self, Cluster, Daemon, client},
    support::{eventually, succeeded},
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

/// Two servers whose answers are compared, and how the objects of the one under test came to be.
#[derive(Clone, Copy, PartialEq)]
enum Objects {
    /// They are those of the API server.
    Same,
    /// They were written to it too: they are as old and have other identities.
    Twins,
}

impl Objects {
    /// What differs, as `place: this, that`.
    fn differences(self, real: &Answer, other: &Answer) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, real: &dyn std::fmt::Debug, other: &dyn std::fmt::Debug| {
            let (real, other) = (format!("{real:?}"), format!("{other:?}"));
            if real != other {
                found.push(format!("{what}: {real}, {other}"));
            }
        };
        compare("status", &real.status, &other.status);
        compare("content-type", &real.content_type, &other.content_type);
        compare("retry-after", &real.retry_after, &other.retry_after);
        compare("cache-control", &real.cache_control, &other.cache_control);
        compare("bodies", &real.bodies.len(), &other.bodies.len());
        if real.bodies.is_empty() && other.bodies.is_empty() {
            compare("text", &real.text, &other.text);
        }
        for (real, other) in real.bodies.iter().zip(&other.bodies) {
            self.diff("", real, other, &mut found);
        }
        found
    }

    fn diff(self, place: &str, real: &Value, other: &Value, found: &mut Vec<String>) {
        match (real, other) {
            (Value::Object(a), Value::Object(b)) => {
                for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                    let side = |map: &serde_json::Map<String, Value>| {
                        map.get(key).cloned().unwrap_or_else(|| json!("(absent)"))
                    };
                    self.diff(&format!("{place}/{key}"), &side(a), &side(b), found);
                }
            }
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                for (at, (a, b)) in a.iter().zip(b).enumerate() {
                    self.diff(&format!("{place}/{at}"), a, b, found);
                }
            }
            _ if self.is_same(place, real, other) => {}
            _ => found.push(format!("{place}: {real}, {other}")),
        }
    }

    /// Numbers of a moment that no two servers can share.
    fn is_same(self, place: &str, real: &Value, other: &Value) -> bool {
        if real == other {
            return true;
        }
        let both = |is: fn(&str) -> bool| {
            [real, other]
                .iter()
                .all(|value| value.as_str().is_some_and(is))
        };
        let is_number = |text: &str| text.parse::<u64>().is_ok();
        match place {
            // A list's revision is that of its moment. An object's own must be the same.
            "/metadata/resourceVersion" | "/object/metadata/resourceVersion" => both(is_number),
            "/metadata/continue" => start(real).is_some() && start(real) == start(other),
            "/message" | "/object/message" => {
                let words = |value: &Value| {
                    let text = value.as_str().unwrap_or_default();
                    text.replace(|c: char| c.is_ascii_digit(), "")
                };
                let says_version = words(real).contains("esource version");
                says_version && words(real) == words(other)
            }
            _ if self == Self::Same => false,
            _ if place.ends_with("/metadata/resourceVersion") => both(is_number),
            _ if place.ends_with("/metadata/uid") => both(|text| text.len() == 36),
            _ if place.ends_with("Timestamp") || place.ends_with("Time") => {
                both(|text| text.parse::<jiff::Timestamp>().is_ok())
            }
            // An age: `4s`.
            _ if place.contains("/cells/") => both(|text| {
                let number = text.trim_end_matches(['s', 'm']);
                number.len() < text.len() && number.parse::<u64>().is_ok()
            }),
            _ => false,
        }
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

/// A server, and what rows name of it.
struct Side {
    client: Client,
    /// The version before any of the objects.
    before: u64,
    /// That of pod p-0.
    pod: u64,
    /// That of the last write of all.
    last: u64,
    /// Goes on after two pods.
    token: String,
}

const PODS: &str = "/api/v1/namespaces/table-a/pods";
const GADGETS: &str = "/apis/table.example.com/v1/namespaces/table-a/gadgets";

impl Side {
    /// Before the objects are there.
    async fn before(client: Client) -> Self {
        // What the API server remembers of a kind begins when it is first asked for it.
        eventually("the new kind can be read", || async {
            ask(&client, &Row::get(GADGETS), GADGETS).await.status == 200
        })
        .await;
        let before = version(&get(&client, PODS).await);
        Self {
            client,
            before,
            pod: 0,
            last: 0,
            token: String::new(),
        }
    }

    /// When they are.
    async fn after(mut self) -> Self {
        self.last = version(&get(&self.client, GADGETS).await);
        self.pod = version(&get(&self.client, &format!("{PODS}/p-0")).await);
        self.token = token(&self.client).await;
        self
    }

    async fn ask(&self, row: &Row) -> Answer {
        let target = row
            .target
            .replace("{before}", &self.before.to_string())
            .replace("{pod}", &self.pod.to_string())
            .replace("{last}", &self.last.to_string())
            .replace("{token}", &self.token);
        ask(&self.client, row, &target).await
    }
}

async fn get(client: &Client, target: &str) -> Value {
    let answer = ask(client, &Row::get(target), target).await;
    assert_eq!(answer.status, 200, "{target}: {}", answer.text);
    answer.bodies.into_iter().next().expect("JSON")
}

async fn token(client: &Client) -> String {
    let list = get(client, &format!("{PODS}?limit=2")).await;
    let token = list["metadata"]["continue"].as_str();
    token.expect("there is more").to_owned()
}

fn version(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"].as_str();
    text.expect("objects have one").parse().expect("a number")
}

/// The namespaces and the definition of a kind.
async fn prepare(cluster: &Cluster, kubeconfig: &Path) {
    cluster.apply_to(kubeconfig, OBJECTS).await;
    let established = [
        "wait",
        "--for=condition=Established",
        "crd/gadgets.table.example.com",
    ];
    succeeded(&cluster.kubectl_with(kubeconfig, &established).await);
}

/// Sends each row to both, and judges.
async fn compare(server: &str, objects: Objects, real: Side, other: Side) {
    let (rows, anywhere) = rows::all(server);
    let mut met = vec![false; anywhere.len()];
    assert!(rows.len() >= 120, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let mut found = Vec::new();
        // Ages move on between two answers.
        for _ in 0..3 {
            let answers = tokio::join!(real.ask(row), other.ask(row));
            let mut differences = objects.differences(&answers.0, &answers.1);
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
    assert!(met.iter().all(|met| *met), "not met: {anywhere:?} {met:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_facade_answers_as_the_api_server_does() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    prepare(&cluster, cluster.kubeconfig()).await;
    let daemon = Daemon::start(CONFIG, cluster.kubeconfig()).await;
    let facade = client(&daemon.kubeconfig().await).await.unwrap();
    let real = Side::before(cluster.client().await).await;
    cluster.apply(&more_objects()).await;
    let real = real.after().await;
    eventually("the facade has all", || async {
        let list = get(&facade, &format!("{GADGETS}?resourceVersion=0")).await;
        list["items"]
            .as_array()
            .is_some_and(|items| items.len() == 2)
    })
    .await;
    let other = Side {
        token: token(&facade).await,
        client: facade,
        ..real
    };
    compare("facade", Objects::Same, real, other).await;
}

#[cfg(feature = "sandbox")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sandbox_answers_as_the_api_server_does() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let sandbox = cluster::Sandbox::start(&["--still"]).await.unwrap();
    let mut sides = Vec::new();
    for kubeconfig in [cluster.kubeconfig(), &sandbox.kubeconfig()] {
        prepare(&cluster, kubeconfig).await;
        let side = Side::before(client(kubeconfig).await.unwrap()).await;
        cluster.apply_to(kubeconfig, &more_objects()).await;
        sides.push(side.after().await);
    }
    let [real, other] = sides.try_into().ok().expect("there are two");
    compare("sandbox", Objects::Twins, real, other).await;
}
