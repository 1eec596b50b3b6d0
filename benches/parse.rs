//! What it costs to take in one object: time and memory of parse + prune, beside the floor of any parse and beside
//! what clients usually do.
//!
//! A plain main, because the limits are on ratios between contestants of one run, interleaved so that a noisy
//! machine hits all of them alike. Ends with an error where a limit is missed.

use std::{alloc::System, hint::black_box, process::ExitCode, time::Instant};

use informerd::object::{Decoder, Object, PruneRules, Pruner, Selectable};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DynamicObject;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const PODS: usize = 400;
const ROUNDS: usize = 41;

/// Most nanoseconds for an object of this size.
const LIMIT_NANOS: f64 = 16_000.0;
/// Most time, as a multiple of a skip-parse.
const LIMIT_TO_SKIP: f64 = 1.3;
/// Most memory, as a multiple of the pruned JSON.
const LIMIT_HEAP: f64 = 1.3;

/// Takes in one object and drops it.
type Run = Box<dyn Fn(&[u8])>;
/// Takes in all objects; returns how many bytes each of them holds.
type Hold = Box<dyn Fn(&[Vec<u8>]) -> usize>;

/// One way to take in an object, and how many bytes it holds afterwards.
struct Contestant {
    name: &'static str,
    run: Run,
    hold: Hold,
}

impl Contestant {
    fn new<T: 'static>(name: &'static str, parse: impl Fn(&[u8]) -> T + Clone + 'static) -> Self {
        let hold = parse.clone();
        Self {
            name,
            run: Box::new(move |raw| {
                black_box(parse(black_box(raw)));
            }),
            hold: Box::new(move |pods| {
                let mut held = Vec::with_capacity(pods.len());
                let region = Region::new(ALLOCATOR);
                held.extend(pods.iter().map(|raw| hold(raw)));
                let change = region.change();
                let inline = if size_of::<T>() > 8 {
                    size_of::<T>()
                } else {
                    0
                };
                drop(held);
                (change.bytes_allocated - change.bytes_deallocated) / pods.len() + inline
            }),
        }
    }
}

fn main() -> ExitCode {
    let pods: Vec<Vec<u8>> = (0..PODS).map(|i| pod(i).to_string().into_bytes()).collect();
    let size = pods.iter().map(Vec::len).sum::<usize>() / PODS;
    let decoder = |rules: PruneRules| {
        let pruner = Pruner::new(&rules).expect("the rules are right");
        Decoder::new("v1", "Pod", true, &pruner, &Selectable::builtin("", "pods"))
    };
    let path = |text: &str| text.parse().expect("the path is right");
    let (plain, deep, few) = (
        decoder(PruneRules::default()),
        decoder(PruneRules {
            drop: vec![
                path(".spec.containers[*].env"),
                path(".status.conditions[*].message"),
            ],
            ..PruneRules::default()
        }),
        decoder(PruneRules {
            keep: Some(vec![
                path(".spec.containers[*].image"),
                path(".status.phase"),
            ]),
            ..PruneRules::default()
        }),
    );
    let kept = pods
        .iter()
        .map(|raw| decode(&plain, raw).json.len())
        .sum::<usize>()
        / PODS;

    let contestants = [
        Contestant::new("find the closing brace", closing_brace),
        Contestant::new("skip-parse (IgnoredAny)", |raw| {
            serde_json::from_slice::<IgnoredAny>(raw).map(drop).is_ok()
        }),
        Contestant::new("decode + prune", move |raw| decode(&plain, raw)),
        Contestant::new("decode + prune, deep drops", move |raw| decode(&deep, raw)),
        Contestant::new("decode + prune, keep two paths", move |raw| {
            decode(&few, raw)
        }),
        Contestant::new("typed Pod", |raw| {
            serde_json::from_slice::<Pod>(raw).expect("a pod")
        }),
        Contestant::new("DynamicObject", |raw| {
            serde_json::from_slice::<DynamicObject>(raw).expect("an object")
        }),
    ];
    let mut rounds = vec![Vec::new(); contestants.len()];
    for _ in 0..ROUNDS {
        for (contestant, times) in contestants.iter().zip(&mut rounds) {
            let start = Instant::now();
            pods.iter().for_each(|raw| (contestant.run)(raw));
            times.push(start.elapsed().as_nanos() as f64 / PODS as f64);
        }
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let nanos: Vec<f64> = rounds.iter_mut().map(median).collect();
    let heap: Vec<usize> = contestants
        .iter()
        .map(|contestant| (contestant.hold)(&pods))
        .collect();

    println!("pods of {size} bytes, {kept} after pruning; median of {ROUNDS} rounds of {PODS}");
    println!(
        "{:<32} {:>10} {:>14} {:>12}",
        "", "ns/object", "to skip-parse", "bytes held"
    );
    for ((contestant, nanos_each), heap) in contestants.iter().zip(&nanos).zip(&heap) {
        println!(
            "{:<32} {nanos_each:>10.0} {:>14.2} {heap:>12}",
            contestant.name,
            nanos_each / nanos[1]
        );
    }
    let checks = [
        ("decode + prune, ns/object", nanos[2], LIMIT_NANOS),
        (
            "decode + prune / skip-parse",
            nanos[2] / nanos[1],
            LIMIT_TO_SKIP,
        ),
        (
            "bytes held / pruned JSON",
            heap[2] as f64 / kept as f64,
            LIMIT_HEAP,
        ),
    ];
    let mut missed = false;
    for (name, value, limit) in checks {
        let verdict = if value <= limit { "ok" } else { "MISSED" };
        missed |= value > limit;
        println!("{name:<32} {value:>10.2}   limit {limit:>9.2}   {verdict}");
    }
    if missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn decode(decoder: &Decoder, raw: &[u8]) -> Object {
    decoder.decode(raw, 0).expect("a pod")
}

/// The least that anything must do which has to find where an object ends: one look at each byte.
fn closing_brace(raw: &[u8]) -> usize {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, byte) in raw.iter().enumerate() {
        if quoted {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => quoted = true,
            b'{' => depth += 1,
            b'}' if depth == 1 => return at,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    raw.len()
}

/// A pod of a Deployment with a sidecar, as a cluster has them.
fn pod(i: usize) -> Value {
    let hash = format!("{:010x}", i * 7_919);
    let uid = |n: usize| format!("{:08x}-7c1d-4e0a-9b55-{:012x}", i + n * 1_000, i * 31 + n);
    let container = |name: &str, port: u16| {
        json!({
            "name": name,
            "image": format!("registry.example.com/shop/{name}:v2.14.{}", i % 9),
            "args": ["--config=/etc/app/config.yaml", "--log-format=json", format!("--listen=:{port}")],
            "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
            "env": [
                {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
                {"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "checkout-db", "key": "url"}}},
                {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://otel-collector.observability:4317"},
                {"name": "GREETING", "value": "say \"hello\"\n"}
            ],
            "resources": {"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "256Mi"}},
            "volumeMounts": [
                {"name": "config", "readOnly": true, "mountPath": "/etc/app"},
                {"name": "kube-api-access", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
            ],
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 5, "successThreshold": 1, "failureThreshold": 3},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "imagePullPolicy": "IfNotPresent",
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true}
        })
    };
    let status = |name: &str| {
        json!({
            "name": name, "state": {"running": {"startedAt": "2024-05-02T08:11:21Z"}}, "lastState": {}, "ready": true,
            "restartCount": 0, "image": format!("registry.example.com/shop/{name}:v2.14.{}", i % 9),
            "imageID": format!("registry.example.com/shop/{name}@sha256:{}", "3f1c9a7e".repeat(8)),
            "containerID": format!("containerd://{}", "9d2b44e0".repeat(8)), "started": true
        })
    };
    let condition = |kind: &str| json!({"type": kind, "status": "True", "observedGeneration": 1, "lastProbeTime": null, "lastTransitionTime": "2024-05-02T08:11:22Z"});
    let kinds = [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ];
    let conditions = kinds.map(condition);
    let managed_container = json!({
        ".": {}, "f:args": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {}, "f:env": {
            ".": {}, "k:{\"name\":\"POD_NAME\"}": {".": {}, "f:name": {}, "f:valueFrom": {".": {}, "f:fieldRef": {}}},
            "k:{\"name\":\"DATABASE_URL\"}": {".": {}, "f:name": {}, "f:valueFrom": {".": {}, "f:secretKeyRef": {}}},
            "k:{\"name\":\"GREETING\"}": {".": {}, "f:name": {}, "f:value": {}}
        },
        "f:livenessProbe": {".": {}, "f:failureThreshold": {}, "f:httpGet": {".": {}, "f:path": {}, "f:port": {}, "f:scheme": {}}, "f:periodSeconds": {}, "f:successThreshold": {}, "f:timeoutSeconds": {}},
        "f:resources": {".": {}, "f:limits": {".": {}, "f:cpu": {}, "f:memory": {}}, "f:requests": {".": {}, "f:cpu": {}, "f:memory": {}}},
        "f:securityContext": {".": {}, "f:allowPrivilegeEscalation": {}, "f:capabilities": {".": {}, "f:drop": {}}},
        "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {}, "f:volumeMounts": {".": {}, "k:{\"mountPath\":\"/etc/app\"}": {".": {}, "f:mountPath": {}, "f:name": {}, "f:readOnly": {}}}
    });
    json!({
        "metadata": {
            "name": format!("checkout-{hash}-{i:05}"), "generateName": format!("checkout-{hash}-"), "namespace": format!("shop-{}", i % 20),
            "uid": uid(0), "resourceVersion": (1_000_000 + i).to_string(), "generation": 1, "creationTimestamp": "2024-05-02T08:11:19Z",
            "labels": {
                "app.kubernetes.io/name": "checkout", "app.kubernetes.io/instance": format!("checkout-{}", i % 20), "app.kubernetes.io/part-of": "shop",
                "app.kubernetes.io/version": "v2.14.0", "pod-template-hash": hash
            },
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "checksum/config": "b1946ac9".repeat(8)},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("checkout-{hash}"), "uid": uid(1), "controller": true, "blockOwnerDeletion": true}],
            "managedFields": [
                {"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1", "time": "2024-05-02T08:11:19Z", "fieldsType": "FieldsV1",
                 "fieldsV1": {"f:metadata": {"f:annotations": {".": {}, "f:checksum/config": {}}, "f:labels": {".": {}, "f:app.kubernetes.io/name": {}, "f:pod-template-hash": {}}, "f:ownerReferences": {".": {}, "k:{\"uid\":\"x\"}": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"checkout\"}": managed_container, "k:{\"name\":\"proxy\"}": managed_container}, "f:dnsPolicy": {}, "f:enableServiceLinks": {}, "f:restartPolicy": {}, "f:schedulerName": {}}}},
                {"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "time": "2024-05-02T08:11:22Z", "fieldsType": "FieldsV1", "subresource": "status",
                 "fieldsV1": {"f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {".": {}, "f:lastProbeTime": {}, "f:lastTransitionTime": {}, "f:status": {}, "f:type": {}}}, "f:containerStatuses": {}, "f:hostIP": {}, "f:phase": {}, "f:podIP": {}, "f:startTime": {}}}}
            ]
        },
        "spec": {
            "volumes": [
                {"name": "config", "configMap": {"name": "checkout-config", "defaultMode": 420}},
                {"name": "kube-api-access", "projected": {"sources": [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}, {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}], "defaultMode": 420}}
            ],
            "containers": [container("checkout", 8080), container("proxy", 15_001)],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "serviceAccountName": "checkout", "serviceAccount": "checkout",
            "nodeName": format!("node-{}", i % 50), "securityContext": {"runAsNonRoot": true, "fsGroup": 2000}, "schedulerName": "default-scheduler",
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            ],
            "priority": 0, "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority"
        },
        "status": {
            "phase": "Running", "conditions": conditions,
            "hostIP": format!("10.0.0.{}", i % 250), "podIP": format!("10.1.{}.{}", i / 250, i % 250), "podIPs": [{"ip": format!("10.1.{}.{}", i / 250, i % 250)}],
            "startTime": "2024-05-02T08:11:19Z", "containerStatuses": [status("checkout"), status("proxy")], "qosClass": "Burstable"
        }
    })
}
