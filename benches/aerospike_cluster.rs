//! A database cluster of eight on a real API server: restarted node after node, driven by the verdict and by a poll of
//! ten seconds, side by side; and how much later than by a watch of its own an operator hears of a pod.
//!
//! Ends with an error where a step was wrong or a limit is missed. Needs Go, as the integration tests do. What to run
//! is named: `restart`, `latency`; both without a name.

#[path = "../tests/cluster/mod.rs"]
mod cluster;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use cluster::{
    Cluster, Daemon, Error,
    aerospike::{Operator, Stage, quick},
};
use futures::StreamExt;
use http::{HeaderValue, header::USER_AGENT};
use informerd::{
    aerospike::{
        Expected, Network, ProbeSettings, Prober, State, judge,
        model::{Manner, Rules},
    },
    client::Client,
    proto::{
        EvidenceWindow, GetReadinessRequest, ReadinessChanges, ReadinessCondition, ReadinessScope,
        ReadinessState, Target, WaitFor, WaitOutcome, WaitReadinessRequest, WaitTarget,
        WatchReadinessRequest,
    },
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Config, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

mod common {
    pub mod receipts;
    pub mod report;
}
use common::{
    receipts::{Receipts, ms},
    report::{Report, median},
};

const NODES: usize = 8;
const POLL: Duration = Duration::from_secs(10);
/// What a verdict adds to the direct watch's receipt of the same event, at the median, in ms.
const LIMIT_P50: f64 = 1.0;
/// The verdict's p99 from the write on, to the direct watch's.
const LIMIT_P99: f64 = 1.2;
const RATE: u64 = 40;
const EVENTS: usize = 1200;
const LOSSES: usize = 300;
const DAEMON: &str = "informerd-bench";
const BY_POLL: &str = "poll-operator";
const BY_STREAM: &str = "stream-operator";

fn main() -> ExitCode {
    let named: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let runs = |name: &str| named.is_empty() || named.iter().any(|one| one == name);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let run = async {
        let mut report = Report::default();
        if runs("restart") {
            restart(&mut report).await?;
        }
        if runs("latency") {
            latency(&mut report).await?;
        }
        Ok::<_, Error>(report)
    };
    match runtime.block_on(run) {
        Ok(report) => report.end(),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How one rolling restart went.
#[derive(Debug, Default)]
struct Restarted {
    took: Duration,
    /// Between two restarts, altogether, less what the nodes themselves needed.
    waited: Duration,
    wrong: usize,
    reads: usize,
}

async fn restart(report: &mut Report) -> Result<(), Error> {
    let cluster = cluster::private()
        .await
        .ok_or("this bench needs a control plane of its own")?;
    Operator::Acko.install(&cluster).await;
    // As real nodes have it, but for the hours that migrations may take.
    let rules = Rules::default();
    let streamed = Stage::new(
        &cluster,
        Operator::Acko,
        "streamed",
        NODES,
        rules.clone(),
        true,
    );
    let streamed = streamed.await?;
    let polled = Stage::new(&cluster, Operator::Acko, "polled", NODES, rules, true).await?;
    let daemon = daemon(&cluster, "").await;
    let client = Client::connect(&daemon.server().to_string())?;
    // Both begin with a cluster that has settled.
    for stage in [&streamed, &polled] {
        let own = WaitTarget {
            target: Some(target(stage, None)),
            ..WaitTarget::default()
        };
        wait(&client, vec![own]).await?;
    }

    let before = reads(&cluster, &[DAEMON, BY_STREAM]);
    let begun = Instant::now();
    let mut by_stream = Restarted::default();
    // What is acted on: the cluster and its pods as informerd has judged them, later as writes have returned them.
    let mut known = vec![judged(&client, target(&streamed, None)).await?];
    for node in 0..NODES {
        known.push(judged(&client, target(&streamed, Some(node))).await?);
    }
    for node in 0..=NODES {
        let waiting = Instant::now();
        let windows = wait(&client, known.clone()).await?;
        by_stream.waited += waiting.elapsed();
        by_stream.wrong += usize::from(!windows.iter().all(|window| within(&streamed, window)));
        if node < NODES {
            let pod = streamed.restart(node).await?;
            known[node + 1].uid = pod.uid().unwrap_or_default();
            known[node + 1].min_resource_version = pod.resource_version().unwrap_or_default();
        }
    }
    by_stream.took = begun.elapsed();
    by_stream.reads = reads(&cluster, &[DAEMON, BY_STREAM]) - before;
    let by_stream = less_what_nodes_need(by_stream, &streamed, begun);

    let by_poll = poll(&cluster, &polled).await?;
    println!(
        "eight nodes, restarted one by one as soon as that is known to be safe; the same model and API server"
    );
    println!(
        "{:>26} {:>10} {:>16} {:>22} {:>12}",
        "", "total s", "waited in vain s", "reads of the API server", "wrong steps"
    );
    for (name, run) in [
        ("verdicts on the stream", &by_stream),
        ("poll of 10 s", &by_poll),
    ] {
        println!(
            "{name:>26} {:>10.1} {:>16.1} {:>22} {:>12}",
            run.took.as_secs_f64(),
            run.waited.as_secs_f64(),
            run.reads,
            run.wrong
        );
    }
    report.at_most("wrong steps by the stream", by_stream.wrong as f64, 0.0);
    report.at_most(
        "waited in vain by the stream, to that by the poll",
        by_stream.waited.as_secs_f64() / by_poll.waited.as_secs_f64(),
        0.5,
    );
    Ok(())
}

/// The operators' way: every ten seconds a look at the pods, and if they are up, at the nodes, one after the other.
async fn poll(cluster: &Cluster, stage: &Stage) -> Result<Restarted, Error> {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let agent = HeaderValue::from_static(BY_POLL);
    config.headers.push((USER_AGENT, agent));
    let pods: Api<Pod> = Api::namespaced(kube::Client::try_from(config)?, stage.namespace());
    let ours = ListParams::default().labels("app.kubernetes.io/instance=cache");
    let begun = Instant::now();
    let mut run = Restarted::default();
    let mut tick = tokio::time::interval(POLL);
    for node in 0..=NODES {
        let waiting = Instant::now();
        loop {
            tick.tick().await;
            let listed = pods.list(&ours).await?;
            let up = listed.iter().filter(|pod| containers_ready(pod)).count();
            let from = SystemTime::now();
            if up == NODES && is_safe_one_by_one(stage).await {
                run.waited += waiting.elapsed();
                run.wrong += usize::from(!stage.was_safe_within(from, SystemTime::now()));
                break;
            }
        }
        if node < NODES {
            stage.restart(node).await?;
        }
    }
    run.took = begun.elapsed();
    run.reads = reads(cluster, &[BY_POLL]);
    Ok(less_what_nodes_need(run, stage, begun))
}

fn containers_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| {
        all.iter()
            .any(|one| one.type_ == "ContainersReady" && one.status == "True")
    })
}

async fn is_safe_one_by_one(stage: &Stage) -> bool {
    let members = stage.members();
    for member in &members {
        let mut one = Prober::new(Arc::new(Network::plain()), ProbeSettings::default(), None);
        let size = NODES as u32;
        let survey = one.survey(size, std::slice::from_ref(member)).await;
        if survey.latest().reports[0].outcome.is_err() {
            return false;
        }
    }
    let mut all = Prober::new(Arc::new(Network::plain()), ProbeSettings::default(), None);
    let size = NODES as u32;
    let survey = all.survey(size, &members).await;
    let expected = Expected {
        size,
        members: &members,
        interval: POLL,
    };
    judge(&expected, &survey).safe_to_disrupt.state == State::Ready
}

/// Takes off the time in which the model was not safe: nobody can wait for less.
fn less_what_nodes_need(run: Restarted, stage: &Stage, begun: Instant) -> Restarted {
    let truth = stage.model.truth();
    let begun = tokio::time::Instant::from_std(begun);
    let end = begun + run.took;
    let ends = truth.iter().skip(1).map(|turn| turn.0).chain([end]);
    let unsafe_for = truth.iter().zip(ends).filter(|(turn, _)| !turn.1);
    let unsafe_for: Duration = unsafe_for
        .map(|(turn, until)| until.min(end).saturating_duration_since(turn.0.max(begun)))
        .sum();
    Restarted {
        waited: run.waited.saturating_sub(unsafe_for),
        ..run
    }
}

fn within(stage: &Stage, window: &EvidenceWindow) -> bool {
    let wall = |at: &Option<prost_types::Timestamp>| SystemTime::try_from(at.unwrap_or_default());
    match (wall(&window.from), wall(&window.to)) {
        (Ok(from), Ok(to)) => stage.was_safe_within(from, to),
        _ => false,
    }
}

/// Reads of any kind by these clients.
fn reads(cluster: &Cluster, agents: &[&str]) -> usize {
    let log = cluster.audit_log().unwrap_or_default();
    let of = |agent: &&str| {
        let requests = log.requests.iter();
        requests
            .filter(|one| one.user_agent.starts_with(*agent))
            .filter(|one| ["get", "list", "watch"].contains(&one.verb.as_str()))
            .filter(|one| !one.resource.is_empty())
            .count()
    };
    agents.iter().map(of).sum()
}

async fn daemon(cluster: &Cluster, more: &str) -> Daemon {
    let config = format!(
        "upstream: {{userAgent: {DAEMON}}}\ncontrollers: [aerospike]\n{more}\n\
         kinds: [pods, statefulsets.apps, aerospikeclusters.acko.io]"
    );
    Daemon::start(&config, cluster.kubeconfig()).await
}

fn target(stage: &Stage, node: Option<usize>) -> Target {
    Target {
        resource: if node.is_some() { "pods" } else { "asc" }.into(),
        namespace: stage.namespace().into(),
        name: node.map_or_else(|| "cache".into(), Stage::pod_name),
    }
}

/// The target as it was judged, or later: what a wait for it then rests on.
async fn judged(client: &Client, target: Target) -> Result<WaitTarget, Error> {
    let request = GetReadinessRequest {
        target: Some(target.clone()),
    };
    let (verdict, _) = client.verdict(request).await?;
    Ok(WaitTarget {
        target: Some(target),
        uid: verdict.uid,
        min_generation: verdict.generation,
        min_resource_version: verdict.resource_version,
    })
}

/// Waits until all may be disrupted, and returns the windows that say so.
async fn wait(client: &Client, targets: Vec<WaitTarget>) -> Result<Vec<EvidenceWindow>, Error> {
    let request = WaitReadinessRequest {
        targets,
        wait_for: WaitFor::SafeToDisrupt.into(),
        timeout: Some(prost_types::Duration {
            seconds: 180,
            nanos: 0,
        }),
        ..WaitReadinessRequest::default()
    };
    let mut answers = client.wait(request).await?;
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        match answer.outcome() {
            WaitOutcome::Unspecified => {}
            WaitOutcome::Satisfied => {
                let conditions = answer.verdicts.into_iter().flat_map(|one| one.conditions);
                let safe = conditions.filter(|one| one.name == "SafeToDisrupt");
                return Ok(safe.filter_map(|one| one.evidence).collect());
            }
            _ => return Err(format!("not safe in time: {:?}", answer.missing).into()),
        }
    }
    Err("the wait ended without an outcome".into())
}

async fn latency(report: &mut Report) -> Result<(), Error> {
    let cluster = cluster::private()
        .await
        .ok_or("this bench needs a control plane of its own")?;
    Operator::Acko.install(&cluster).await;
    let stage = Stage::new(&cluster, Operator::Acko, "latency", NODES, quick(), true).await?;
    let daemon = daemon(&cluster, "").await;
    let client = Client::connect(&daemon.server().to_string())?;
    let own = WaitTarget {
        target: Some(target(&stage, None)),
        ..WaitTarget::default()
    };
    wait(&client, vec![own]).await?;
    let direct = Receipts::default();
    let pods = "/api/v1/namespaces/latency/pods";
    direct.watch_directly(&cluster, pods).await?;
    verdicts(&stage, &client, &direct, report).await?;
    losses(&stage, &client, &direct, report).await
}

/// Pods whose gate is opened and closed by their operator: they are judged anew each time.
async fn verdicts(
    stage: &Stage,
    client: &Client,
    direct: &Receipts,
    report: &mut Report,
) -> Result<(), Error> {
    let judged = Receipts::default();
    watch_verdicts(client, judged.clone()).await?;
    let mut events = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
    let busy = Busy::now();
    for event in 0..EVENTS {
        tick.tick().await;
        let open = if (event / NODES).is_multiple_of(2) {
            "True"
        } else {
            "False"
        };
        let status = json!({"conditions": [
            {"type": "acko.io/aerospike-ready", "status": open},
            {"type": "Ready", "status": open},
        ]});
        let at = Instant::now();
        let version = patch(stage, event % NODES, status).await?;
        events.push((version, at));
    }
    let busy = busy.since();
    let last = events.last().map_or("", |(version, _)| version);
    for receipts in [direct, &judged] {
        receipts.wait_for(last).await?;
    }
    let judged = judged.take();
    let events = events.into_iter();
    let events = events.filter_map(|(version, at)| {
        let judged = *judged.get(&version)?;
        Some((version, at, judged))
    });
    let title =
        format!("a pod's verdict, {EVENTS} changes, {RATE} a second, machine busy {busy:.0} %");
    compare(&title, direct, events.collect(), report)
}

/// Servers that were restarted in their containers, as their pods tell: that the cluster is not known to be safe any
/// more takes no answer of a node, and is to be told at once.
async fn losses(
    stage: &Stage,
    client: &Client,
    direct: &Receipts,
    report: &mut Report,
) -> Result<(), Error> {
    // So that safe and not safe are not folded into one.
    for node in 0..NODES {
        stage
            .model
            .set_manner(node, Manner::Slow(Duration::from_millis(20)));
    }
    let mut safety = watch_safety(client).await?;
    let mut events = Vec::new();
    let busy = Busy::now();
    for event in 0..LOSSES {
        becomes(&mut safety, true).await?;
        let status = json!({"containerStatuses": [
            {"name": "aerospike-server", "restartCount": event + 1},
        ]});
        let at = Instant::now();
        let version = patch(stage, event % NODES, status).await?;
        events.push((version, at, becomes(&mut safety, false).await?));
    }
    let busy = busy.since();
    if let Some((last, ..)) = events.last() {
        direct.wait_for(last).await?;
    }
    let title =
        format!("that a cluster is safe no more, {LOSSES} restarts, machine busy {busy:.0} %");
    compare(&title, direct, events, report)
}

async fn patch(stage: &Stage, node: usize, status: serde_json::Value) -> Result<String, Error> {
    let patch = Patch::Strategic(json!({"status": status}));
    let name = Stage::pod_name(node);
    let pod = stage.pods();
    let pod = pod
        .patch_status(&name, &PatchParams::default(), &patch)
        .await?;
    Ok(pod.resource_version().unwrap_or_default())
}

/// Sets receipts (version, written, received by the verdict) beside those of the direct watch.
fn compare(
    title: &str,
    direct: &Receipts,
    events: Vec<(String, Instant, Instant)>,
    report: &mut Report,
) -> Result<(), Error> {
    let direct = direct.take();
    let (mut own, mut whole, mut added) = (Vec::new(), Vec::new(), Vec::new());
    let all = events.len();
    for (version, written, judged) in events {
        let Some(direct) = direct.get(&version) else {
            continue;
        };
        own.push(ms(written, *direct));
        whole.push(ms(written, judged));
        added.push(ms(*direct, judged));
    }
    println!();
    println!("{title}; {} of {all} in both", added.len());
    println!("{:>44} {:>10} {:>10}", "ms", "p50", "p99");
    for (name, values) in [
        ("write to receipt by the direct watch", &mut own),
        ("write to receipt of the verdict", &mut whole),
        ("verdict less direct", &mut added),
    ] {
        values.sort_by(f64::total_cmp);
        println!(
            "{name:>44} {:>10.3} {:>10.3}",
            at(values, 50),
            at(values, 99)
        );
    }
    report.at_most("added by the verdict, p50, ms", median(added), LIMIT_P50);
    report.at_most(
        "p99 of the verdict to that of the direct watch",
        at(&whole, 99) / at(&own, 99),
        LIMIT_P99,
    );
    Ok(())
}

/// What the machine's processors have done so far, in ticks: all, and idling.
struct Busy(u64, u64);

impl Busy {
    fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().flat_map(str::parse).collect();
        // Idle and waiting for a disk.
        let idle = ticks.iter().skip(3).take(2).sum();
        Self(ticks.iter().take(8).sum(), idle)
    }

    /// In percent.
    fn since(&self) -> f64 {
        let now = Self::now();
        let (all, idle) = (now.0 - self.0, now.1 - self.1);
        100.0 * (all.saturating_sub(idle)) as f64 / all.max(1) as f64
    }
}

/// Of sorted values.
fn at(values: &[f64], percent: usize) -> f64 {
    let place = values.len() * percent / 100;
    values
        .get(place.min(values.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

async fn watch_verdicts(client: &Client, receipts: Receipts) -> Result<(), Error> {
    let request = WatchReadinessRequest {
        scope: Some(ReadinessScope {
            resources: vec!["pods".into()],
            namespaces: vec!["latency".into()],
            ..ReadinessScope::default()
        }),
        changes: ReadinessChanges::All.into(),
        ..WatchReadinessRequest::default()
    };
    let mut messages = client.watch_verdicts(request).await?;
    tokio::spawn(async move {
        while let Some(Ok(message)) = messages.next().await {
            let at = Instant::now();
            for verdict in message.events.into_iter().filter_map(|event| event.verdict) {
                if verdict.state() != ReadinessState::Gone {
                    receipts.note(verdict.resource_version, at);
                }
            }
        }
    });
    Ok(())
}

/// When a cluster came to be safe, or not to be.
async fn watch_safety(client: &Client) -> Result<UnboundedReceiver<(Instant, bool)>, Error> {
    let request = WatchReadinessRequest {
        scope: Some(ReadinessScope {
            resources: vec!["asc".into()],
            namespaces: vec!["latency".into()],
            ..ReadinessScope::default()
        }),
        changes: ReadinessChanges::Transitions.into(),
        ..WatchReadinessRequest::default()
    };
    let mut messages = client.watch_verdicts(request).await?;
    let (told, safety) = unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = messages.next().await {
            let at = Instant::now();
            for verdict in message.events.into_iter().filter_map(|event| event.verdict) {
                let is_safe = |one: &ReadinessCondition| {
                    one.name == "SafeToDisrupt" && one.state() == ReadinessState::Ready
                };
                let _ = told.send((at, verdict.conditions.iter().any(is_safe)));
            }
        }
    });
    Ok(safety)
}

async fn becomes(
    safety: &mut UnboundedReceiver<(Instant, bool)>,
    wanted: bool,
) -> Result<Instant, Error> {
    let found = async {
        while let Some((at, is_safe)) = safety.recv().await {
            if is_safe == wanted {
                return Ok(at);
            }
        }
        Err("the watch has ended".into())
    };
    tokio::time::timeout(Duration::from_secs(10), found)
        .await
        .map_err(|_| format!("the cluster's safety did not become {wanted} within 10 s"))?
}
