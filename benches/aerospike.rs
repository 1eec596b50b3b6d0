//! What it costs to ask the nodes of database clusters, and to keep what they say.
//!
//! Model nodes on loopback, asked as informerd asks them: how long eight take that take 50 and 500 ms each, beside
//! one after the other; and what the controller, its feeds and its verdicts take in memory for one cluster and for a
//! thousand. A plain main, because the limits are on ratios and on counted memory.

use std::{
    alloc::System,
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use informerd::{
    aerospike::{
        Member, Network, ProbeSettings, Prober,
        breaker::BreakerSettings,
        evidence::Window,
        model::{self, Manner, Model, Rules, Served},
    },
    cache::{History, Identity, Kind, Limits, Phase, Unreadable, Writer},
    config::AerospikeConfig,
    controller::{
        self, Settings,
        aerospike::{Aerospike, Kinds, Role, Shared},
        workload::{PodsAndSets, Workload},
    },
    feed::Feed,
    heartbeat::Heartbeats,
    object::{Key, Object, OwnerReference, Selectable},
    readiness::{Board, State},
    shutdown::Shutdown,
    upstream::{Upstream, UpstreamSettings},
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

mod common {
    pub mod report;
}
use common::report::{Report, median};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NODES: usize = 8;
const ROUNDS: usize = 11;
/// Above one node that is asked alone, in ms.
const LIMIT_MS: f64 = 5.0;
/// For one cluster, in MB.
const LIMIT_MB: f64 = 10.0;
/// As often as a verdict is renewed while the journal keeps it: 5 min of 5 s.
const RENEWALS: u32 = 60;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut report = Report::default();
    runtime.block_on(async {
        let (model, members, _served) = cluster().await;
        asking(&model, &members, &mut report).await;
        for node in 0..NODES {
            model.set_manner(node, Manner::Prompt);
        }
        println!();
        println!("memory of controller, feeds and verdicts, objects in the cache not counted");
        let one = memory(&members, 1, Duration::from_millis(50), RENEWALS).await;
        report.at_most("1 cluster, 5 min of renewals at 5 s, MB", one, LIMIT_MB);
        let many = memory(&members, 1000, Duration::from_secs(60), 1).await;
        println!(
            "{:<56} {many:>10.3}",
            "1,000 clusters, each judged once, MB"
        );
    });
    report.end()
}

/// Eight nodes that have settled.
async fn cluster() -> (Model, Vec<Member>, Vec<Served>) {
    let moment = Duration::from_millis(20);
    let rules = Rules {
        load: moment,
        notice: moment,
        agree: moment,
        spread: moment,
        balance: moment,
        migration_rate: 1_000_000,
        ..Rules::default()
    };
    let model = Model::new(NODES, rules, 1);
    let (mut members, mut served) = (Vec::new(), Vec::new());
    for node in 0..NODES {
        // One port for all of them, as in a cluster.
        let port = served
            .first()
            .map_or(0, |first: &Served| first.address().port());
        let address = SocketAddr::from(([127, 0, 33, 1 + node as u8], port));
        let one = model::serve(&model, node, address).await.expect("a port");
        members.extend(model.member(node, one.address()));
        served.push(one);
    }
    while model.truth().last().is_none_or(|turn| !turn.1) {
        tokio::time::sleep(moment).await;
        // Somebody has to look for it to go on.
        model.is_serving(0);
    }
    (model, members, served)
}

fn prober() -> Prober {
    let settings = ProbeSettings {
        timeout: Duration::from_secs(2),
        breaker: BreakerSettings::default(),
    };
    Prober::new(Arc::new(Network::plain()), settings, None)
}

async fn asking(model: &Model, members: &[Member], report: &mut Report) {
    println!("ms until eight nodes have answered, median of {ROUNDS}");
    println!(
        "{:>10} {:>12} {:>12} {:>16} {:>12}",
        "each", "all at once", "both rounds", "one by one", "one alone"
    );
    let ms = |window: Window| window.span().as_secs_f64() * 1e3;
    for delay in [50, 500] {
        for node in 0..NODES {
            model.set_manner(node, Manner::Slow(Duration::from_millis(delay)));
        }
        let mut prober = prober();
        // Learns the namespaces: after that one round trip is enough.
        prober.survey(NODES as u32, members).await;
        let (mut once, mut twice) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let survey = prober.survey(NODES as u32, members).await;
            once.push(ms(survey.first.window));
            twice.push(ms(survey.window()));
        }
        // What a node takes besides its delay is the machine's affair, and the same for all.
        let mut alone = Vec::new();
        for member in members {
            let survey = prober.survey(1, std::slice::from_ref(member)).await;
            alone.push(ms(survey.first.window));
        }
        let serial: f64 = alone.iter().sum();
        let (once, alone) = (median(once), median(alone));
        println!(
            "{delay:>10} {once:>12.1} {:>12.1} {serial:>16.1} {alone:>12.1}",
            median(twice)
        );
        report.at_most(
            &format!("eight of {delay} ms: above one that is asked alone, ms"),
            once - alone,
            LIMIT_MS,
        );
    }
}

/// A kind with these objects, and its feed.
struct Fed {
    writer: Writer<Object>,
    kind: Arc<Kind>,
    feed: Feed,
}

fn now() -> Instant {
    Instant::now()
}

fn fed(
    group: &str,
    kind_name: &str,
    plural: &str,
    objects: Vec<Arc<Object>>,
    shutdown: &Shutdown,
) -> Fed {
    let mut writer = Writer::new("", Limits::default(), now());
    let shards = vec![writer.shard().clone()];
    let kind = Arc::new(Kind::new(plural, false, false, 0, shards));
    kind.set_identity(Identity {
        group: group.into(),
        version: "v1".into(),
        kind: kind_name.into(),
        plural: plural.into(),
        singular: kind_name.to_lowercase(),
        short_names: Vec::new(),
        namespaced: true,
        selectable: Selectable::builtin(group, plural),
    });
    writer.replace(objects, &Unreadable::default(), 1, History::Same, now());
    writer.set_status(Phase::Live, "", "");
    let (feed, runner) = Feed::new(kind.clone());
    tokio::spawn(runner.run(Heartbeats::default().register("feed"), shutdown.clone()));
    Fed { writer, kind, feed }
}

fn object(
    name: &str,
    uid: String,
    owner: Option<(&str, &str)>,
    cluster: &str,
    json: String,
) -> Object {
    let owner = owner.map(|(kind, name)| OwnerReference {
        api_version: "apps/v1".into(),
        kind: kind.into(),
        name: name.into(),
        uid: name.into(),
        controller: true,
    });
    let labels = [
        ("app.kubernetes.io/name", "aerospike-cluster"),
        ("app.kubernetes.io/instance", cluster),
        ("acko.io/rack", "1"),
    ];
    Object {
        key: Key::new("default", name),
        uid: uid.into(),
        resource_version: "1".into(),
        generation: Some(1),
        deletion_timestamp: None,
        labels: labels.into_iter().collect(),
        owner_references: owner.into_iter().collect(),
        fields: Box::default(),
        json: json.into(),
        stale: false,
        received_unix_nanos: 0,
    }
}

/// MB that are held when so many clusters, which have the same nodes, have been judged so often.
async fn memory(members: &[Member], clusters: usize, interval: Duration, renewals: u32) -> f64 {
    let shutdown = Shutdown::new();
    let port = |member: &Member| member.address.expect("it has one").port();
    let (mut own, mut pods) = (Vec::new(), Vec::new());
    for n in 0..clusters {
        let name = format!("cache-{n}");
        let json = format!(r#"{{"spec":{{"size":{NODES}}},"status":{{"observedGeneration":1}}}}"#);
        own.push(Arc::new(object(
            &name,
            format!("uid-of-{name}"),
            None,
            &name,
            json,
        )));
        for (node, member) in members.iter().enumerate() {
            let address = member.address.expect("it has one");
            let json = format!(
                r#"{{"status":{{"phase":"Running","podIP":"{}","conditions":[{{"type":"ContainersReady","status":
                "True"}}],"containerStatuses":[{{"name":"aerospike-server","restartCount":0,"state":{{"running":
                {{"startedAt":"2026-01-01T00:00:00Z"}}}}}}]}}}}"#,
                address.ip()
            );
            let pod = format!("{name}-{node}");
            let uid = format!("{pod}-9c56-4a7e-8e0d-2f1f0f0e0d0c");
            pods.push(Arc::new(object(
                &pod,
                uid,
                Some(("StatefulSet", &name)),
                &name,
                json,
            )));
        }
    }
    let before = held();
    let (own, pods) = (
        fed(
            "acko.io",
            "AerospikeCluster",
            "aerospikeclusters",
            own,
            &shutdown,
        ),
        fed("", "Pod", "pods", pods, &shutdown),
    );
    let sets = fed("apps", "StatefulSet", "statefulsets", Vec::new(), &shutdown);
    let filled = held();
    let board = Board::new(
        ["aerospikeclusters", "statefulsets", "pods"],
        Limits::default(),
    );
    let beats = Heartbeats::default();
    let judged = |fed: &Fed| {
        let judged = board.kind(&fed.kind.name).expect("it is judged").clone();
        judged.expect([]);
        (fed.kind.clone(), judged)
    };
    let kinds = Kinds {
        clusters: vec![judged(&own)],
        sets: judged(&sets),
        pods: judged(&pods),
    };
    let config = AerospikeConfig {
        mode: informerd::config::ProbeMode::Watch,
        probe_interval: interval,
        // A node that was not asked in time is asked again.
        settling_interval: interval.min(Duration::from_secs(1)),
        port: port(&members[0]),
        ..AerospikeConfig::default()
    };
    let nowhere = kube::Config::new("http://127.0.0.1:1".parse().expect("an address"));
    let client = kube::Client::try_from(nowhere).expect("a client");
    let upstream = Upstream::fixed(client.clone(), client, UpstreamSettings::default());
    let shared = Shared::new(kinds.clone(), config, upstream);
    let settings = Settings {
        debounce: Duration::ZERO,
        ..Settings::default()
    };
    let feeds = [(own.kind.clone(), own.feed.clone())];
    let (kind, of_clusters) = kinds.clusters[0].clone();
    for role in [Role::Clusters(kind), Role::Sets] {
        let controller = Aerospike::new(shared.clone(), role);
        let triggers = controller.triggers(sets.feed.clone(), pods.feed.clone(), &feeds);
        let beat = beats.register("aerospike");
        tokio::spawn(controller::run(
            controller,
            triggers,
            settings,
            beat,
            shutdown.clone(),
        ));
    }
    let (kind, of_pods) = kinds.pods;
    let workload = Workload::new(kind, of_pods.clone(), PodsAndSets::default());
    let triggers = workload.triggers("pods", pods.feed.clone());
    let beat = beats.register("workload");
    tokio::spawn(controller::run(
        workload,
        triggers,
        settings,
        beat,
        shutdown.clone(),
    ));

    let safe = || {
        let state = of_clusters.shard().state()?;
        let safe = |key: &Key| {
            let verdict = of_clusters.get(key)?;
            Some(verdict.condition("SafeToDisrupt")?.answer.state == State::Ready)
        };
        let all = state.objects.keys().filter(|key| safe(key) == Some(true));
        Some((all.count(), state.sequence))
    };
    let begun = Instant::now();
    while safe().is_none_or(|(count, _)| count < clusters) {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "not judged in time: {:?}",
            safe()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = begun.elapsed();
    let first = held();
    let goal =
        safe().map_or(0, |(_, sequence)| sequence) + u64::from(renewals - 1) * clusters as u64;
    while safe().is_none_or(|(_, sequence)| sequence < goal) {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "not renewed in time"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mb = |bytes: isize| bytes as f64 / 1e6;
    let last = held();
    println!(
        "{clusters:>6} clusters: all judged in {:.2} s; the cache holds {:.2} MB; {:.2} MB more then, {:.2} MB after {renewals} \
         rounds",
        took.as_secs_f64(),
        mb(filled - before),
        mb(first - filled),
        mb(last - filled),
    );
    shutdown.cut();
    drop((own.writer, sets.writer, pods.writer));
    mb(last - filled)
}

/// Bytes that are allocated now.
fn held() -> isize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as isize - stats.bytes_deallocated as isize
}
