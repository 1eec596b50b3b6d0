//! Programs that know Kubernetes only, kept under churn while every connection of theirs is cut again and again: in
//! the end each must hold what a list of the server of record has. The same for every server that claims to speak
//! the protocol.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    runtime::{Controller, WatchStreamExt, controller::Action, reflector, watcher},
};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    cluster::{self, Churn, ChurnOptions, Proxy, client, informers},
    support::{seed, within},
};

/// How long each client is kept under churn.
fn churn_for() -> Duration {
    let given = std::env::var("INFORMERD_TEST_FACADE_SECONDS").ok();
    let seconds = given.and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

/// What a client holds of an object: uid and version.
type State = BTreeMap<String, (String, String)>;

fn held(pod: &Pod) -> (String, (String, String)) {
    let key = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    let version = pod.resource_version().unwrap_or_default();
    (key, (pod.uid().unwrap_or_default(), version))
}

/// Churn, and a proxy in front of the server under test that cuts every connection every few seconds.
pub struct Storm {
    /// Of the server of record, not through the proxy.
    record: Client,
    churn: Churn,
    /// Of the server under test, through the proxy.
    kubeconfig: PathBuf,
    proxy: Proxy,
}

impl Storm {
    /// Writes go to the server of record. The server under test, which has the same objects, listens at `address`,
    /// and this is a kubeconfig for it.
    pub async fn begin(record: Client, kubeconfig: &Path, address: SocketAddr) -> Self {
        let options = ChurnOptions {
            seed: seed(),
            rate: 40,
            ..ChurnOptions::default()
        };
        let churn = Churn::start(record.clone(), options).await.unwrap();
        let proxy = Proxy::start(address).await.unwrap();
        let kubeconfig = cluster::rerouted(kubeconfig, address, proxy.address()).unwrap();
        Self {
            record,
            churn,
            kubeconfig,
            proxy,
        }
    }

    /// Lets it storm, with cuts; then returns what there is, once nothing is written any more. The proxy lives on
    /// with what is returned.
    async fn rage(self) -> (State, Proxy) {
        let until = Instant::now() + churn_for();
        while Instant::now() < until {
            sleep(Duration::from_secs(2)).await;
            self.proxy.cut_all();
        }
        let (writes, failures) = self.churn.stop().await;
        assert!(failures.is_empty(), "{failures:?}");
        assert!(writes.len() > 100, "{} writes", writes.len());
        let pods: Api<Pod> = Api::all(self.record);
        let list = pods.list(&Default::default()).await.unwrap();
        (list.items.iter().map(held).collect(), self.proxy)
    }

    /// kube-rs: two reflectors, one that lists page by page and one that lets the list be streamed, and a Controller.
    pub async fn kube_rs(self) {
        let paged = reflect(&self.kubeconfig, watcher::Config::default().page_size(20)).await;
        let streaming = reflect(
            &self.kubeconfig,
            watcher::Config::default().streaming_lists(),
        )
        .await;
        let (controller, mut reconciled) = control(&self.kubeconfig).await;
        let (there, _proxy) = self.rage().await;
        for (what, reflection) in [
            ("paged", &paged),
            ("streaming", &streaming),
            ("Controller", &controller),
        ] {
            let what = format!("{what} holds what there is");
            within(Duration::from_secs(30), &what, || async {
                let state: State = reflection
                    .store
                    .state()
                    .iter()
                    .map(|pod| held(pod))
                    .collect();
                state == there
            })
            .await;
        }
        assert!(reconciled.try_recv().is_ok(), "the controller reconciled");
    }

    /// client-go: two SharedInformerFactories. controller-runtime: the cache of a manager whose controller is
    /// triggered by it.
    pub async fn client_go(self) {
        let mut shared = Stranger::start(&self.kubeconfig, "shared-informer", 2).await;
        let mut managed = Stranger::start(&self.kubeconfig, "manager", 1).await;
        let (there, _proxy) = self.rage().await;
        for stranger in [&mut shared, &mut managed] {
            let deadline = Instant::now() + Duration::from_secs(45);
            loop {
                let states = stranger.states().await;
                assert!(states.iter().all(|(_, events)| *events > 0));
                if states.iter().all(|(state, _)| *state == there) {
                    break;
                }
                assert!(
                    Instant::now() < deadline,
                    "{states:?}\n\nbut there is\n\n{there:?}"
                );
                sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// A store that something fills. It ends when dropped.
struct Reflection {
    store: reflector::Store<Pod>,
    task: JoinHandle<()>,
}

impl Drop for Reflection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn reflect(kubeconfig: &Path, config: watcher::Config) -> Reflection {
    let pods: Api<Pod> = Api::all(client(kubeconfig).await.unwrap());
    let (store, writer) = reflector::store();
    #[expect(clippy::disallowed_methods, reason = "it is the stranger here")]
    let events = watcher::watcher(pods, config);
    let task = tokio::spawn(async move {
        let events = reflector::reflector(writer, events.default_backoff());
        let mut events = std::pin::pin!(events);
        // Errors are what cuts are to it; it goes on by itself.
        while events.next().await.is_some() {}
    });
    Reflection { store, task }
}

/// A controller's store, and the names that it reconciles.
async fn control(kubeconfig: &Path) -> (Reflection, mpsc::UnboundedReceiver<String>) {
    let pods: Api<Pod> = Api::all(client(kubeconfig).await.unwrap());
    let (sender, reconciled) = mpsc::unbounded_channel();
    #[expect(clippy::disallowed_methods, reason = "it is the stranger here")]
    let controller = Controller::new(pods, watcher::Config::default());
    let store = controller.store();
    let reconcile = move |pod: Arc<Pod>, _| {
        let _ = sender.send(pod.name_any());
        async { Ok::<_, std::io::Error>(Action::await_change()) }
    };
    let again = |_, _: &_, _| Action::requeue(Duration::from_secs(1));
    let run = controller.run(reconcile, again, Arc::new(()));
    let task = tokio::spawn(run.for_each(async |_| {}));
    (Reflection { store, task }, reconciled)
}

/// A line of tests/clients/informers.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Line {
    synced: usize,
    states: Vec<Informer>,
}

#[derive(Debug, Deserialize)]
struct Informer {
    objects: BTreeMap<String, Held>,
    events: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Held {
    uid: String,
    resource_version: String,
}

/// The program of tests/clients/informers.
struct Stranger {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Stranger {
    async fn start(kubeconfig: &Path, mode: &str, count: usize) -> Self {
        let program = informers().await.unwrap();
        let mut command = Command::new(program);
        let count = count.to_string();
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--mode", mode, "--count", &count]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().expect("it starts");
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stranger = Self {
            _child: child,
            input,
            output,
        };
        let line = stranger.line().await;
        assert!(line.synced > 0, "{line:?}");
        stranger
    }

    async fn line(&mut self) -> Line {
        let line = timeout(Duration::from_secs(90), self.output.next_line()).await;
        let line = line.expect("a line in 90 s").unwrap();
        serde_json::from_str(&line.expect("it goes on")).expect("lines are JSON")
    }

    async fn states(&mut self) -> Vec<(State, u64)> {
        self.input.write_all(b"\n").await.unwrap();
        let states = self.line().await.states.into_iter();
        states
            .map(|informer| {
                let objects = informer.objects.into_iter();
                let state = objects.map(|(key, held)| (key, (held.uid, held.resource_version)));
                (state.collect(), informer.events)
            })
            .collect()
    }
}
