//! What several of the tests need.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Output,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use informerd::{
    client::Client,
    proto::{KindState, KindStatus, ListObjectsRequest, Scope, View},
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ApiResource;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    cluster::{Cluster, Daemon, Listed},
    validators::Objects,
};

/// What a consumer holds must be what a list has.
pub fn assert_as_listed(held: &Objects, listed: &BTreeMap<String, Listed>, what: &str) {
    let held = held.iter();
    let held = held.map(|(key, it)| (key, &it.uid, &it.resource_version));
    let listed = listed.iter();
    let listed = listed.map(|(key, it)| (key, &it.uid, &it.resource_version));
    assert_eq!(
        held.collect::<Vec<_>>(),
        listed.collect::<Vec<_>>(),
        "{what}"
    );
}

/// Polls until `condition` holds. Panics after 30 s.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl FnMut() -> F) {
    within(Duration::from_secs(30), what, condition).await;
}

/// Polls until `condition` holds. Panics after `patience`.
pub async fn within<F: Future<Output = bool>>(
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    let deadline = Instant::now() + patience;
    while !condition().await {
        assert!(
            Instant::now() < deadline,
            "after {patience:?} still not: {what}"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// Pods, for the oracle.
pub fn pods() -> ApiResource {
    ApiResource::erase::<Pod>(&())
}

/// The Rust client of a daemon.
pub fn connect(daemon: &Daemon) -> Client {
    Client::connect(&daemon.server().to_string()).expect("the address is one")
}

/// What the daemon says of a kind; `None` where it cannot be asked.
pub async fn kind(client: &Client, resource: &str) -> Option<KindStatus> {
    let kinds = client.kinds().await.ok()?;
    kinds.into_iter().find(|kind| kind.resource == resource)
}

/// Whether the kind is in this state.
pub async fn is(client: &Client, resource: &str, state: KindState) -> bool {
    let kind = kind(client, resource).await;
    kind.and_then(|kind| kind.freshness)
        .is_some_and(|it| it.state() == state)
}

/// How many lists of the kind were begun, for this cause.
pub async fn relists(client: &Client, resource: &str, cause: &str) -> u64 {
    let kind = kind(client, resource)
        .await
        .expect("the daemon knows the kind");
    kind.relists.get(cause).copied().unwrap_or(0)
}

/// A kind, in some namespaces or in all.
pub fn scope(resource: &str, namespaces: &[&str]) -> Scope {
    Scope {
        resource: resource.into(),
        namespaces: namespaces.iter().map(|&it| it.into()).collect(),
        ..Scope::default()
    }
}

/// An object as sent.
pub fn object(json: &[u8]) -> Value {
    serde_json::from_slice(json).expect("objects are JSON")
}

/// The names of the objects in a scope.
pub async fn list(client: &Client, scope: Scope) -> Vec<String> {
    let request = ListObjectsRequest {
        scope: Some(scope),
        view: View::Keys.into(),
        ..ListObjectsRequest::default()
    };
    let list = client.list(request).await.unwrap();
    list.objects.into_iter().map(|object| object.name).collect()
}

/// Standard output and standard error.
pub fn text(output: &Output) -> (String, String) {
    let [out, err] =
        [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned());
    (out, err)
}

/// Standard output of a command that must succeed.
pub fn succeeded(output: &Output) -> String {
    let (out, err) = text(output);
    assert!(output.status.success(), "{:?}: {out}{err}", output.status);
    out
}

/// Runs `informerd ARGS`, without a server.
pub async fn informerd(args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_informerd"));
    command.args(args).kill_on_drop(true);
    command.output().await.expect("informerd starts")
}

/// The seed of all that is left to chance in this run: INFORMERD_TEST_SEED, or a new one. Shown where a test fails.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    let seed = SEED.get_or_init(|| {
        let given = std::env::var("INFORMERD_TEST_SEED").ok();
        let given = given.and_then(|seed| seed.parse().ok());
        given.unwrap_or_else(|| fastrand::u64(..1_000_000))
    });
    println!("INFORMERD_TEST_SEED={seed}");
    *seed
}

/// An object as a client in another language says that it has it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    uid: String,
    resource_version: String,
}

impl From<Listed> for Held {
    fn from(listed: Listed) -> Self {
        Self {
            uid: listed.uid,
            resource_version: listed.resource_version,
        }
    }
}

/// The JSON lines that a program has printed so far.
pub struct Said<T> {
    lines: Arc<Mutex<Vec<T>>>,
    reader: JoinHandle<()>,
}

impl<T: Clone + DeserializeOwned + Send + 'static> Said<T> {
    /// Of a child whose standard output is piped.
    pub fn by(child: &mut Child) -> Self {
        let out = child.stdout.take().expect("it is piped");
        let lines = Arc::<Mutex<Vec<T>>>::default();
        let said = lines.clone();
        let reader = tokio::spawn(async move {
            let mut text = BufReader::new(out).lines();
            while let Some(line) = text.next_line().await.expect("it is text") {
                let line = serde_json::from_str(&line).expect("it prints JSON lines");
                said.lock().expect("not poisoned").push(line);
            }
        });
        Self { lines, reader }
    }

    /// Those that there are.
    pub fn lines(&self) -> Vec<T> {
        self.lines.lock().expect("not poisoned").clone()
    }

    /// All, once the program has ended.
    pub async fn all(self) -> Vec<T> {
        self.reader.await.expect("all is read");
        let lines = self.lines.lock().expect("not poisoned");
        lines.clone()
    }
}

/// Creates a namespace that is not there yet.
pub async fn namespace(cluster: &Cluster, name: &str) {
    cluster.kubectl_ok(&["create", "namespace", name]).await;
}

/// Deletes namespaces and does not wait for it: for the next test they have another name.
pub async fn discard(cluster: &Cluster, names: &[&str]) {
    let args = ["delete", "namespace", "--wait=false"];
    cluster.kubectl_ok(&[&args[..], names].concat()).await;
}

/// A kubeconfig that has another user in the place of its own.
pub fn with_user(kubeconfig: &Path, user: Value) {
    let text = std::fs::read_to_string(kubeconfig).expect("the kubeconfig is there");
    let mut config: Value = serde_json::from_str(&text).expect("it is JSON");
    config["users"][0]["user"] = user;
    std::fs::write(kubeconfig, config.to_string()).expect("it can be written");
}
