//! The Go client against the daemon: a copy that survives cuts, and an operator on controller-runtime that survives the
//! daemon.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{
    cluster::{self, Churn, ChurnOptions, Daemon, Proxy, go_client, has_go, list_exact},
    support::{Held, Said, eventually, pods, seed, within},
};

/// A line of either program.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Line {
    what: String,
    name: String,
    uid: String,
    resource_version: String,
    ready: bool,
    gone: bool,
    polling: bool,
    polls: usize,
    reason: String,
    revision: u64,
    objects: BTreeMap<String, Held>,
}

/// A running program, and what it has said so far. Its log is shown where the test fails.
struct Program {
    child: Child,
    said: Said<Line>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:#?}", self.log.lock().unwrap());
        }
    }
}

impl Program {
    async fn start(name: &str, args: &[&str]) -> Self {
        let mut command = Command::new(go_client(name).await.unwrap());
        command.args(args).kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut err = BufReader::new(child.stderr.take().expect("is piped")).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let logged = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = err.next_line().await {
                logged.lock().unwrap().push(line);
            }
        });
        let said = Said::by(&mut child);
        Self { child, said, log }
    }

    fn lines(&self) -> Vec<Line> {
        self.said.lines()
    }

    fn count(&self, what: &str) -> usize {
        let lines = self.lines().into_iter();
        lines.filter(|line| line.what == what).count()
    }

    /// Where its source stands: whether it polls, and how often it has.
    fn status(&self) -> (bool, usize) {
        let lines = self.lines().into_iter();
        let last = lines.rev().find(|line| line.what == "status");
        last.map_or((false, 0), |line| (line.polling, line.polls))
    }

    /// What it made of each pod when it last reconciled it.
    fn reconciled(&self) -> BTreeMap<String, Line> {
        let lines = self.lines().into_iter();
        let lines = lines.filter(|line| line.what == "reconcile");
        lines.map(|line| (line.name.clone(), line)).collect()
    }

    /// Whether the last look at a pod was at this one or, of the same uid, at a later version.
    fn has(&self, pod: &Pod) -> bool {
        let number = |text: &str| text.parse::<u64>().expect("a version");
        let reconciled = self.reconciled();
        reconciled.get(&pod.name_any()).is_some_and(|line| {
            Some(&line.uid) == pod.metadata.uid.as_ref()
                && number(&line.resource_version)
                    >= number(&pod.resource_version().expect("a version"))
        })
    }

    fn has_gone(&self, name: &str) -> bool {
        self.reconciled().get(name).is_some_and(|line| line.gone)
    }
}

/// The namespace of the operator's pods.
const SPACE: &str = "operated";

async fn create(api: &Api<Pod>, name: &str) -> Pod {
    let pod = json!({
        "metadata": { "name": name },
        "spec": { "containers": [{ "name": "main", "image": "registry.invalid/main:1" }] },
    });
    let pod = serde_json::from_value(pod).unwrap();
    api.create(&Default::default(), &pod).await.unwrap()
}

/// There is no kubelet here to say so.
async fn ready(api: &Api<Pod>, name: &str, is: bool) -> Pod {
    let condition = json!({ "type": "Ready", "status": if is { "True" } else { "False" } });
    let status = json!({ "phase": "Running", "conditions": [condition] });
    let patch = Patch::Merge(json!({ "status": status }));
    let params = PatchParams::default();
    api.patch_status(name, &params, &patch).await.unwrap()
}

async fn delete(api: &Api<Pod>, name: &str) {
    let at_once = DeleteParams::default().grace_period(0);
    api.delete(name, &at_once).await.unwrap();
}

/// The operator of clients/go/internal/e2e/reconcile.
async fn operator(daemon: &Daemon, kubeconfig: &Path, further: &[&str]) -> Program {
    let server = daemon.server().to_string();
    let kubeconfig = kubeconfig.display().to_string();
    let args = ["--server", &server, "--kubeconfig", &kubeconfig];
    let args = [&args[..], &["--namespace", SPACE], further].concat();
    Program::start("reconcile", &args).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_in_go_survives_cuts_and_is_exact() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    if !has_go() {
        return;
    }
    let client = cluster.client().await;
    let options = ChurnOptions {
        seed: seed(),
        rate: 60,
        ..ChurnOptions::default()
    };
    let churn = Churn::start(client.clone(), options).await.unwrap();
    let daemon = Daemon::start("kinds: [pods]", cluster.kubeconfig()).await;
    let proxy = Proxy::start(daemon.server()).await.unwrap();
    let server = proxy.address().to_string();
    let args = ["--server", &server, "--events", "300", "--timeout", "2m"];
    let mut program = Program::start("follow", &args).await;
    eventually("it has listed", || async { program.count("list") == 1 }).await;
    // From now on each connection breaks in the middle of something.
    proxy.cut_after(Some(24 << 10));
    proxy.cut_all();
    let ended = tokio::time::timeout(Duration::from_secs(125), program.child.wait()).await;
    let (writes, failures) = churn.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    assert!(writes.len() >= 100, "{} writes", writes.len());
    let status = ended.expect("it ends in time").expect("it was started");
    assert!(status.success(), "{status:?}");
    eventually("it has said all", || async { program.count("end") == 1 }).await;

    let cuts = program.count("cut");
    assert!(cuts >= 5, "{cuts} cuts");
    assert_eq!(program.count("reset"), 0, "each cut was resumed");
    let lines = program.lines();
    let end = lines.last().expect("there are some");
    let listed = list_exact(&client, &pods(), None, &end.revision.to_string())
        .await
        .unwrap();
    let listed: BTreeMap<_, Held> = listed
        .into_iter()
        .map(|(key, it)| (key, it.into()))
        .collect();
    assert_eq!(end.objects, listed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_in_go_reconciles_by_its_own_poll_while_the_daemon_is_gone() {
    const INTERVAL: Duration = Duration::from_secs(2);
    let Some(cluster) = cluster::private().await else {
        return;
    };
    if !has_go() {
        return;
    }
    cluster.kubectl_ok(&["create", "namespace", SPACE]).await;
    let daemon = Daemon::start("kinds: [pods]", cluster.kubeconfig()).await;
    let ports = daemon.ports();
    let program = operator(&daemon, cluster.kubeconfig(), &["--interval", "2s"]).await;
    let api = Api::namespaced(cluster.client().await, SPACE);
    let create = async |name: &str| create(&api, name).await;
    let ready = async |name: &str, is: bool| ready(&api, name, is).await;
    let delete = async |name: &str| delete(&api, name).await;

    // By the watch.
    for name in ["a", "b", "c", "d"] {
        create(name).await;
    }
    let pod = ready("a", true).await;
    eventually("the watch tells of readiness", || async {
        program.has(&pod) && program.reconciled()["a"].ready
    })
    .await;
    let pod = ready("a", false).await;
    eventually("and of its loss", || async {
        program.has(&pod) && !program.reconciled()["a"].ready
    })
    .await;
    assert_eq!(program.status(), (false, 0), "it has no need to poll");

    // By the poll.
    drop(daemon);
    eventually("it polls", || async { program.status().0 }).await;
    let a = ready("a", true).await;
    delete("b").await;
    delete("c").await;
    let c = create("c").await;
    let e = create("e").await;
    eventually("all of that is reconciled without the daemon", || async {
        let own = program.status().0;
        own && program.has(&a) && program.has(&c) && program.has(&e) && program.has_gone("b")
    })
    .await;
    assert!(program.reconciled()["a"].ready);
    assert!(program.reconciled()["a"].polling);

    // Between the last poll and the return; e was never known to the watch.
    let polls = program.status().1;
    eventually("a poll has just ended", || async {
        program.status().1 > polls
    })
    .await;
    let d = ready("d", true).await;
    delete("e").await;
    let f = create("f").await;
    let mut daemon = Daemon::spawn_on(ports, "kinds: [pods]", cluster.kubeconfig()).unwrap();
    daemon.wait_ready(Duration::from_secs(30)).await;
    eventually("the watch is back", || async { !program.status().0 }).await;
    eventually("nothing was lost on the way", || async {
        program.has(&d) && program.has(&f) && program.has_gone("e")
    })
    .await;
    let polls = program.status().1;
    let pod = ready("f", true).await;
    eventually("the watch tells of readiness again", || async {
        program.has(&pod) && program.reconciled()["f"].ready
    })
    .await;
    assert!(!program.reconciled()["f"].polling);
    tokio::time::sleep(2 * INTERVAL).await;
    assert_eq!(program.status(), (false, polls), "it polls no more");
    if let Some(audit) = cluster.audit_log() {
        // The API server may have counted one that was given up when the watch came back.
        let lists = audit.lists("reconcile-e2e", "pods");
        assert!(
            (polls..=polls + 1).contains(&lists),
            "{lists} lists for {polls} polls"
        );
        assert_eq!(audit.watches("reconcile-e2e", "pods"), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_in_go_loses_no_change_while_the_daemon_comes_and_goes() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    if !has_go() {
        return;
    }
    let client = cluster.client().await;
    let mut daemon = Daemon::start("kinds: [pods]", cluster.kubeconfig()).await;
    let ports = daemon.ports();
    let options = ChurnOptions {
        seed: seed(),
        rate: 40,
        namespace: SPACE.into(),
        ..ChurnOptions::default()
    };
    let churn = Churn::start(client.clone(), options).await.unwrap();
    let program = operator(&daemon, cluster.kubeconfig(), &["--interval", "1s"]).await;
    eventually("it reconciles", || async {
        program.count("reconcile") > 20
    })
    .await;
    for _ in 0..3 {
        drop(daemon);
        eventually("it polls", || async { program.status().0 }).await;
        let (_, polls) = program.status();
        eventually("it has polled more than once", || async {
            program.status().1 > polls + 1
        })
        .await;
        daemon = Daemon::spawn_on(ports, "kinds: [pods]", cluster.kubeconfig()).unwrap();
        daemon.wait_ready(Duration::from_secs(30)).await;
        eventually("the watch is back", || async { !program.status().0 }).await;
    }
    let (writes, failures) = churn.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    let api: Api<Pod> = Api::namespaced(client, SPACE);
    let listed = api.list(&ListParams::default()).await.unwrap().items;
    let listed: BTreeMap<_, _> = listed
        .into_iter()
        .map(|pod| (pod.name_any(), pod))
        .collect();
    let written = writes
        .iter()
        .filter_map(|write| write.key.split('/').nth(1));
    let written: std::collections::BTreeSet<_> = written.collect();
    assert!(written.len() > 20, "{} pods were written", written.len());
    within(
        Duration::from_secs(10),
        "its last look at each pod is at what there is of it",
        || async {
            written.iter().all(|name| match listed.get(*name) {
                Some(pod) => program.has(pod),
                None => program.has_gone(name),
            })
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_wake_an_operator_in_go_and_end_a_wait_in_go() {
    const CONFIG: &str = "controllers: [workload]\nkinds: [pods]";
    let Some(cluster) = cluster::private().await else {
        return;
    };
    if !has_go() {
        return;
    }
    cluster.kubectl_ok(&["create", "namespace", SPACE]).await;
    let daemon = Daemon::start(CONFIG, cluster.kubeconfig()).await;
    let (ports, server) = (daemon.ports(), daemon.server().to_string());
    let flags = ["--verdicts", "--interval", "1s"];
    let program = operator(&daemon, cluster.kubeconfig(), &flags).await;
    let api = Api::namespaced(cluster.client().await, SPACE);

    create(&api, "a").await;
    let target = ["--server", &server, "--namespace", SPACE, "--name", "a"];
    let mut wait = Program::start("wait", &[&target[..], &["--timeout", "60s"]].concat()).await;
    eventually("the wait knows that it is not ready", || async {
        wait.count("missing") > 0
    })
    .await;
    let pod = ready(&api, "a", true).await;
    eventually("the operator hears that it is", || async {
        program.has(&pod) && program.reconciled()["a"].ready
    })
    .await;
    assert!(wait.child.wait().await.unwrap().success());
    eventually("the wait has said all", || async {
        wait.count("ready") == 1
    })
    .await;
    let said = wait.lines().pop().unwrap();
    assert_eq!(Some(said.uid), pod.metadata.uid);

    // A wait for a version that has just been written is not satisfied by the verdict of before it.
    let pod = ready(&api, "a", false).await;
    let version = pod.resource_version().unwrap();
    let asked = ["--version", &version, "--timeout", "2s"];
    let mut wait = Program::start("wait", &[&target[..], &asked].concat()).await;
    assert!(wait.child.wait().await.unwrap().success());
    eventually("it was not in time", || async { wait.count("late") == 1 }).await;
    eventually("the operator has heard of the loss", || async {
        program.has(&pod) && !program.reconciled()["a"].ready
    })
    .await;
    assert_eq!(program.status(), (false, 0), "it has no need to poll");

    drop(daemon);
    eventually("it polls", || async { program.status().0 }).await;
    let pod = ready(&api, "a", true).await;
    eventually("it reconciles without the daemon", || async {
        program.has(&pod) && program.reconciled()["a"].polling
    })
    .await;
    let mut daemon = Daemon::spawn_on(ports, CONFIG, cluster.kubeconfig()).unwrap();
    daemon.wait_ready(Duration::from_secs(30)).await;
    eventually("the watch is back", || async { !program.status().0 }).await;
    delete(&api, "a").await;
    eventually("it hears that the pod is gone", || async {
        program.has_gone("a")
    })
    .await;
    assert!(!program.reconciled()["a"].polling);
}
