//! While pods change all the time, and connections break on both sides of the daemon, what each consumer has folded
//! is compared with exact lists of the past, each event with a direct watch, each stream with the guarantees.

use std::{collections::BTreeMap, time::Duration};

use informerd::proto::{View, WatchObjectsRequest};
use kube::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    cluster::{
        self, Churn, ChurnOptions, Credential, Daemon, DirectWatch, Listed, Proxy, Seen, list_exact,
    },
    support::{connect, kind, pods, scope, seed},
    validators::{
        Held, Interest, Objects, Recorder, Recording, Reference, check_all, complete, digest_of,
        watch_request,
    },
};

/// How long it goes on.
const CHURN: Duration = Duration::from_secs(25);
/// How often the daemon is cut from the API server.
const CUTS: usize = 4;
/// At how many tokens of each stream its state is compared.
const COMPARED: usize = 10;

const SELECTOR: &str = "app in (web,api),tier=a";
const MASK: [&str; 3] = [
    ".spec.containers[*].image",
    ".status.phase",
    ".metadata.labels",
];

type Labels = BTreeMap<String, String>;

/// A consumer, and what it should see.
struct Stream {
    name: &'static str,
    recorder: Recorder,
    interest: Interest,
    /// What a list of the truth is asked for.
    namespace: Option<&'static str>,
    selected: fn(&Labels) -> bool,
    expected: fn(&Value) -> Value,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stream_keeps_its_guarantees_under_churn_and_cuts() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let mut rng = fastrand::Rng::with_seed(seed());
    let client = cluster.client().await;
    let direct = DirectWatch::start(&client, &pods(), None, None)
        .await
        .unwrap();
    let proxy = Proxy::start(cluster.address()).await.unwrap();
    let kubeconfig = cluster
        .kubeconfig_for("proxied", Credential::Admin, proxy.address())
        .unwrap();
    let churns = [("churn", 40, 60), ("other", 10, 15)].map(|(namespace, names, rate)| {
        let options = ChurnOptions {
            seed: rng.u64(..),
            namespace: namespace.into(),
            names,
            rate,
        };
        Churn::start(client.clone(), options)
    });
    let [churn, other] = churns;
    let (churn, other) = (churn.await.unwrap(), other.await.unwrap());
    let daemon = Daemon::start("kinds: [pods]", &kubeconfig).await;
    let streams = streams(&daemon, &mut rng);

    // Disturbances come at any time: that is what is tested, nothing is waited for. Only a few, for the daemon
    // backs off for longer each time.
    let mut times: Vec<_> = (0..CUTS).map(|_| CHURN.mul_f64(rng.f64())).collect();
    times.sort();
    let begun = Instant::now();
    for (at, refuse) in times.iter().zip([false, true].into_iter().cycle()) {
        sleep_until(begun + *at).await;
        proxy.refuse(refuse).await.unwrap();
        proxy.cut_all();
        sleep(Duration::from_millis(rng.u64(..600))).await;
        proxy.refuse(false).await.unwrap();
    }
    sleep_until(begun + CHURN).await;

    let mut last = 0;
    let mut written = 0;
    for churn in [churn, other] {
        let (writes, failures) = churn.stop().await;
        assert!(failures.is_empty(), "{failures:?}");
        let version = &writes.last().unwrap().resource_version;
        assert!(direct.wait_for(version, Duration::from_secs(10)).await);
        last = last.max(version.parse().unwrap());
        written += writes.len();
    }
    let seen = direct.seen();
    assert_eq!(direct.ended(), None);
    let mut whole = 0;
    for stream in &streams {
        let recording = stream.recorder.reach(last).await;
        println!(
            "{}: {} calls, {} events",
            stream.name,
            recording.closes().count() + 1,
            recording.events().count()
        );
        whole += stream.check(&recording, &seen, &client).await;
    }
    println!("{written} writes, {CUTS} cuts upstream, {whole} events compared one by one");
    // Two streams are of everything, and one of those is never cut.
    assert!(
        whole > written,
        "only {whole} of {written} writes were compared event by event"
    );

    let status = kind(&connect(&daemon), "pods").await.unwrap();
    assert_eq!(
        status.relists,
        [("initial".into(), 1)].into(),
        "a cut needs no list"
    );
    assert!(status.watches_opened > 1, "the proxy cuts");
    assert_eq!((status.digest_mismatches, status.undecodable), (0, 0));
}

fn streams(daemon: &Daemon, rng: &mut fastrand::Rng) -> Vec<Stream> {
    let mut stream = |name, request, interest, expected: fn(&Value) -> Value, cut: bool| Stream {
        name,
        recorder: Recorder::start(daemon.server(), request, cut.then(|| rng.u64(..))),
        interest,
        namespace: None,
        selected: |_| true,
        expected,
    };
    let all = || watch_request("pods");
    let metadata = WatchObjectsRequest {
        view: View::Metadata.into(),
        ..all()
    };
    let mask = WatchObjectsRequest {
        fields: MASK.map(String::from).into(),
        ..all()
    };
    let mut selected = all();
    if let Some(scope) = &mut selected.scope {
        scope.label_selector = SELECTOR.into();
    }
    let one = WatchObjectsRequest {
        scope: Some(scope("pods", &["churn"])),
        ..all()
    };
    let everything: Interest = |_| true;
    let is_selected: Interest = |seen| selected_by_labels(&seen.labels);
    vec![
        stream("FULL, never cut", all(), everything, full, false),
        stream("FULL", all(), everything, full, true),
        stream("METADATA", metadata, everything, metadata_of, true),
        stream("mask", mask, everything, masked, true),
        Stream {
            selected: selected_by_labels,
            ..stream("label selector", selected.clone(), is_selected, full, true)
        },
        Stream {
            selected: selected_by_labels,
            ..stream(
                "label selector, never cut",
                selected,
                is_selected,
                full,
                false,
            )
        },
        Stream {
            namespace: Some("churn"),
            ..stream(
                "one namespace",
                one,
                |seen| seen.key.starts_with("churn/"),
                full,
                true,
            )
        },
    ]
}

impl Stream {
    /// Returns how many events were compared one by one with the direct watch.
    async fn check(&self, recording: &Recording, seen: &[Seen], client: &Client) -> usize {
        let name = self.name;
        let reference = Reference::new(seen, self.interest);
        if let Err(why) = check_all(recording, &reference, &[]) {
            panic!("{name}: {why}");
        }
        let mut states = Vec::new();
        recording.states(|span, to, held| {
            for shard in span
                .end
                .iter()
                .flat_map(|mark| &mark.freshness)
                .flat_map(|it| &it.positions)
            {
                if shard.has_digest {
                    assert_eq!(
                        shard.digest,
                        digest_of(held),
                        "{name}: the digest at {to:?}"
                    );
                }
            }
            states.push((to[""], held.clone()));
        });
        let step = (states.len() / COMPARED).max(1);
        // Backwards, so that the last one is among them.
        for (revision, held) in states.iter().rev().step_by(step) {
            let revision = revision.to_string();
            let listed = list_exact(client, &pods(), self.namespace, &revision)
                .await
                .unwrap();
            self.compare(&revision, held, &listed);
        }
        // What is narrowed down folds where several changes come at once.
        let scope = recording.request.scope.as_ref();
        let folds =
            scope.is_some_and(|it| !it.label_selector.is_empty() || !it.namespaces.is_empty());
        match complete(recording, &reference) {
            Ok(compared) => compared,
            Err(_) if folds => 0,
            Err(why) => panic!("{name}: {why}"),
        }
    }

    fn compare(&self, revision: &str, held: &Objects, listed: &BTreeMap<String, Listed>) {
        let expected: BTreeMap<_, _> = listed
            .iter()
            .filter(|(_, listed)| (self.selected)(&listed.labels))
            .map(|(key, listed)| (key, (self.expected)(&listed.object)))
            .collect();
        let content = |held: &Held| serde_json::from_slice(&held.object).unwrap();
        let held: BTreeMap<_, Value> = held
            .iter()
            .map(|(key, held)| (key, content(held)))
            .collect();
        assert_eq!(
            held.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "{} at revision {revision}",
            self.name
        );
        for (key, held) in held {
            assert_eq!(
                held, expected[key],
                "{}: {key} at revision {revision}",
                self.name
            );
        }
    }
}

/// What [`SELECTOR`] says.
fn selected_by_labels(labels: &Labels) -> bool {
    let label = |name: &str| labels.get(name).map(String::as_str);
    matches!(label("app"), Some("web" | "api")) && label("tier") == Some("a")
}

/// As cached: normalised, and pruned as by default.
fn full(object: &Value) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = json!("v1");
    object["kind"] = json!("Pod");
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    object
}

fn metadata_of(object: &Value) -> Value {
    let full = full(object);
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": full["metadata"] })
}

fn masked(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let images = object["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|container| json!({ "image": container["image"] }));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "labels": metadata["labels"],
        },
        "spec": { "containers": images.collect::<Vec<_>>() },
        "status": { "phase": object["status"]["phase"] },
    })
}
