//! What each kind's status means.

use super::*;
use crate::{
    object::{Key, tests::object},
    readiness::{Part, Target},
};

fn of(json: &str, generation: Option<i64>) -> Object {
    Object {
        json: json.to_owned().into(),
        generation,
        ..object("default", "web")
    }
}

/// `state reason` of an object of generation 2.
fn decided(resource: &str, json: &str) -> String {
    let decision = decide(resource, &of(json, Some(2)), &Parts::default());
    said(&decision.opinion)
}

fn said(opinion: &Opinion) -> String {
    format!("{} {}", opinion.state.as_str(), opinion.reason)
}

fn message(resource: &str, json: &str) -> String {
    decide(resource, &of(json, Some(2)), &Parts::default())
        .opinion
        .message
}

fn check(resource: &str, table: &[(&str, &str)]) {
    for (json, expected) in table {
        assert_eq!(&decided(resource, json), expected, "{resource} {json}");
    }
}

#[test]
fn no_kind_is_ready_by_an_empty_status() {
    for resource in [
        "pods",
        "deployments.apps",
        "replicasets.apps",
        "statefulsets.apps",
        "daemonsets.apps",
        "jobs.batch",
        "persistentvolumeclaims",
        "persistentvolumes",
        "replicationcontrollers",
        "poddisruptionbudgets.policy",
        "horizontalpodautoscalers.autoscaling",
        "namespaces",
        "customresourcedefinitions.apiextensions.k8s.io",
        "apiservices.apiregistration.k8s.io",
        "aerospikeclusters.acko.io",
    ] {
        for json in [
            "{}",
            r#"{"spec":{"replicas":0},"status":{}}"#,
            r#"{"spec":{"replicas":0},"status":null}"#,
            r#"{"spec":{"replicas":0},"status":{"conditions":[]}}"#,
            r#"{"status":7}"#,
            "",
        ] {
            assert!(
                !decided(resource, json).starts_with("ready"),
                "{resource} {json}"
            );
        }
    }
}

#[test]
fn what_cannot_be_read_and_what_is_stale_is_unknown() {
    let ready = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"},{"type":"Gate","status":"True"}]}}"#;
    assert_eq!(decided("pods", ready), "ready Ready");
    let stale = Object {
        stale: true,
        ..of(ready, None)
    };
    let decision = decide("pods", &stale, &Parts::default());
    assert_eq!(said(&decision.opinion), "unknown Stale");
    assert_eq!(said(&decision.conditions[0].1), "unknown Stale");
    check(
        "pods",
        &[
            (r#"{"status":{"phase":3}}"#, "unknown Undecodable"),
            (
                r#"{"status":{"conditions":"Ready"}}"#,
                "unknown Undecodable",
            ),
            (r#"{"status":{"phase":"Floating"}}"#, "unknown UnknownPhase"),
        ],
    );
}

#[test]
fn what_is_being_deleted_is_not_ready() {
    let going = Object {
        deletion_timestamp: Some("2026-01-02T03:04:05Z".into()),
        ..of(r#"{"status":{"phase":"Bound"}}"#, None)
    };
    let decision = decide("persistentvolumeclaims", &going, &Parts::default());
    assert_eq!(said(&decision.opinion), "not_ready Terminating");
}

#[test]
fn a_generation_that_was_not_acted_on_is_not_ready_whatever_the_rest_says() {
    let good = |observed: &str| {
        format!(
            r#"{{"spec":{{"replicas":1}},"status":{{{observed}"replicas":1,"readyReplicas":1,"updatedReplicas":1,
            "availableReplicas":1,"fullyLabeledReplicas":1,"currentReplicas":1,"desiredNumberScheduled":1,
            "currentNumberScheduled":1,"updatedNumberScheduled":1,"numberAvailable":1,"numberReady":1,
            "currentHealthy":1,"desiredHealthy":1,"expectedPods":1,
            "conditions":[{{"type":"Available","status":"True"}},{{"type":"Ready","status":"True"}}]}}}}"#
        )
    };
    for resource in [
        "deployments.apps",
        "replicasets.apps",
        "statefulsets.apps",
        "daemonsets.apps",
        "poddisruptionbudgets.policy",
    ] {
        let decided = |observed| decided(resource, &good(observed));
        assert!(
            decided(r#""observedGeneration":2,"#).starts_with("ready"),
            "{resource}"
        );
        assert_eq!(
            decided(r#""observedGeneration":1,"#),
            "not_ready OldGeneration",
            "{resource}"
        );
        assert_eq!(
            decided(r#""observedGeneration":3,"#),
            "not_ready OldGeneration",
            "{resource}"
        );
        assert_eq!(decided(""), "not_ready NotObserved", "{resource}");
    }
    let custom = |observed| decided("things.example.com", &good(observed));
    assert_eq!(custom(r#""observedGeneration":2,"#), "ready Ready");
    assert_eq!(
        custom(r#""observedGeneration":1,"#),
        "not_ready OldGeneration"
    );
    assert_eq!(custom(""), "unknown GenerationNotObserved");
}

#[test]
fn a_deployment_is_ready_once_its_latest_replica_set_is_rolled_out() {
    let deployment = |spec: &str, status: &str| {
        let json = format!(
            r#"{{"spec":{{"replicas":2{spec}}},"status":{{"observedGeneration":2,{status}}}}}"#
        );
        decided("deployments.apps", &json)
    };
    let counts = |all, updated, available, ready| {
        format!(
            r#""replicas":{all},"updatedReplicas":{updated},"availableReplicas":{available},"readyReplicas":{ready}"#
        )
    };
    let good = r#","conditions":[{"type":"Available","status":"True"},{"type":"Progressing","status":"True","reason":"NewReplicaSetAvailable"}]"#;
    for (counts, expected) in [
        (counts(1, 1, 1, 1), "not_ready LessReplicas"),
        (counts(3, 1, 2, 2), "not_ready LessUpdated"),
        (counts(3, 2, 2, 2), "not_ready ExtraPods"),
        (counts(2, 2, 1, 2), "not_ready LessAvailable"),
        (counts(2, 2, 2, 1), "not_ready LessReady"),
        (counts(2, 2, 2, 2), "ready Available"),
    ] {
        assert_eq!(deployment("", &format!("{counts}{good}")), expected);
    }
    let all = counts(2, 2, 2, 2);
    let deadline = r#","progressDeadlineSeconds":600"#;
    assert_eq!(
        deployment(deadline, &format!("{all}{good}")),
        "ready Available"
    );
    for (conditions, expected) in [
        ("", "not_ready DeploymentNotAvailable"),
        (
            r#"{"type":"Available","status":"False","reason":"MinimumReplicasUnavailable"}"#,
            "not_ready MinimumReplicasUnavailable",
        ),
        (
            r#"{"type":"Progressing","status":"False","reason":"ProgressDeadlineExceeded"}"#,
            "not_ready ProgressDeadlineExceeded",
        ),
    ] {
        assert_eq!(
            deployment("", &format!(r#"{all},"conditions":[{conditions}]"#)),
            expected
        );
    }
    let updating = r#"{"type":"Available","status":"True"},{"type":"Progressing","status":"True","reason":"ReplicaSetUpdated"}"#;
    let updating = format!(r#"{all},"conditions":[{updating}]"#);
    assert_eq!(
        deployment(deadline, &updating),
        "not_ready ReplicaSetNotAvailable"
    );
    let quota = r#","conditions":[{"type":"ReplicaFailure","status":"True","reason":"FailedCreate","message":"exceeded quota"}]"#;
    assert_eq!(
        deployment("", &format!("{}{quota}", counts(1, 1, 1, 1))),
        "not_ready FailedCreate"
    );
}

#[test]
fn a_deployment_says_which_pods_are_to_blame() {
    let part = |name: &str, state, message: &str| Part {
        target: Target {
            resource: "pods".into(),
            key: Key::new("default", name),
        },
        uid: "1".into(),
        state,
        reason: "CrashLoopBackOff".into(),
        message: message.into(),
    };
    let parts: Parts = [
        part("web-1", State::Ready, ""),
        part("web-2", State::NotReady, "container app: CrashLoopBackOff"),
        part("web-3", State::Unknown, ""),
        part("web-4", State::NotReady, ""),
        part("web-5", State::NotReady, ""),
    ]
    .into_iter()
    .collect();
    let json = r#"{"spec":{"replicas":5},"status":{"observedGeneration":2,"replicas":5,"updatedReplicas":5,"availableReplicas":1}}"#;
    let decision = decide("deployments.apps", &of(json, Some(2)), &parts);
    assert_eq!(
        decision.opinion.message,
        "Available: 1/5; web-2: container app: CrashLoopBackOff; web-3: CrashLoopBackOff; web-4: CrashLoopBackOff; \
         and 1 more"
    );
}

#[test]
fn a_stateful_set_is_ready_once_all_pods_have_the_latest_revision() {
    let set = |spec: &str, status: &str| {
        let json = format!(
            r#"{{"spec":{{"replicas":3{spec}}},"status":{{"observedGeneration":2,{status}}}}}"#
        );
        decided("statefulsets.apps", &json)
    };
    let all = r#""replicas":3,"readyReplicas":3,"availableReplicas":3,"currentReplicas":3,"updatedReplicas":3,"currentRevision":"a","updateRevision":"a""#;
    assert_eq!(set("", all), "ready Available");
    for (from, to, expected) in [
        (
            r#""replicas":3"#,
            r#""replicas":2"#,
            "not_ready LessReplicas",
        ),
        (r#""replicas":3"#, r#""replicas":4"#, "not_ready ExtraPods"),
        (
            r#""readyReplicas":3"#,
            r#""readyReplicas":2"#,
            "not_ready LessReady",
        ),
        (
            r#""availableReplicas":3"#,
            r#""availableReplicas":2"#,
            "not_ready LessAvailable",
        ),
        (
            r#""updateRevision":"a""#,
            r#""updateRevision":"b""#,
            "not_ready RevisionMismatch",
        ),
        (
            r#""currentReplicas":3"#,
            r#""currentReplicas":2"#,
            "not_ready LessCurrent",
        ),
    ] {
        let status = all.replacen(from, to, 1);
        assert_ne!(status, all);
        assert_eq!(set("", &status), expected);
    }
    let updating = all
        .replace(r#""updatedReplicas":3"#, r#""updatedReplicas":1"#)
        .replace(r#""updateRevision":"a""#, r#""updateRevision":"b""#);
    let partition = |at| {
        format!(
            r#","updateStrategy":{{"type":"RollingUpdate","rollingUpdate":{{"partition":{at}}}}}"#
        )
    };
    assert_eq!(set(&partition(2), &updating), "ready Available");
    assert_eq!(set(&partition(1), &updating), "not_ready LessUpdated");
    assert_eq!(set(&partition(0), &updating), "not_ready RevisionMismatch");
    let on_delete = r#","updateStrategy":{"type":"OnDelete"}"#;
    assert_eq!(set(on_delete, &updating), "ready Available");
    let down = updating.replace(r#""readyReplicas":3"#, r#""readyReplicas":0"#);
    assert_eq!(
        set(on_delete, &down),
        "not_ready LessReady",
        "kstatus would call it current"
    );
    let long = updating.replace(r#""availableReplicas":3,"#, "");
    assert_eq!(
        set(on_delete, &long),
        "ready Available",
        "an old server does not count them"
    );
    let min_ready = format!(r#"{on_delete},"minReadySeconds":30"#);
    assert_eq!(set(&min_ready, &long), "not_ready LessAvailable");
}

#[test]
fn a_daemon_set_is_ready_on_every_node_that_it_is_for() {
    let set = |spec: &str, counts: [i64; 5]| {
        let [wanted, current, updated, available, ready] = counts;
        let json = format!(
            r#"{{"spec":{{{spec}}},"status":{{"observedGeneration":2,"desiredNumberScheduled":{wanted},
            "currentNumberScheduled":{current},"updatedNumberScheduled":{updated},"numberAvailable":{available},
            "numberReady":{ready}}}}}"#
        );
        (
            decided("daemonsets.apps", &json),
            message("daemonsets.apps", &json),
        )
    };
    for (counts, expected) in [
        ([3, 2, 3, 3, 3], "not_ready LessCurrent"),
        ([3, 3, 2, 3, 3], "not_ready LessUpdated"),
        ([3, 3, 3, 2, 3], "not_ready LessAvailable"),
        ([3, 3, 3, 3, 2], "not_ready LessReady"),
        ([3, 3, 3, 3, 3], "ready Available"),
        ([0, 0, 0, 0, 0], "ready Available"),
    ] {
        assert_eq!(set("", counts).0, expected);
    }
    let (decided, why) = set(r#""updateStrategy":{"type":"OnDelete"}"#, [3, 3, 2, 3, 3]);
    assert_eq!(decided, "not_ready LessUpdated");
    assert!(why.contains("OnDelete"), "{why}");
}

#[test]
fn a_replica_set_has_all_its_pods() {
    let good = r#""replicas":2,"fullyLabeledReplicas":2,"availableReplicas":2,"readyReplicas":2"#;
    let set = |status: &str| {
        let json =
            format!(r#"{{"spec":{{"replicas":2}},"status":{{"observedGeneration":2,{status}}}}}"#);
        decided("replicasets.apps", &json)
    };
    assert_eq!(set(good), "ready Available");
    for (from, to, expected) in [
        (
            r#""fullyLabeledReplicas":2"#,
            r#""fullyLabeledReplicas":1"#,
            "not_ready LessLabelled",
        ),
        (
            r#""availableReplicas":2"#,
            r#""availableReplicas":1"#,
            "not_ready LessAvailable",
        ),
        (
            r#""readyReplicas":2"#,
            r#""readyReplicas":1"#,
            "not_ready LessReady",
        ),
        (r#""replicas":2"#, r#""replicas":3"#, "not_ready ExtraPods"),
    ] {
        assert_eq!(set(&good.replacen(from, to, 1)), expected);
    }
    let quota =
        r#","conditions":[{"type":"ReplicaFailure","status":"True","reason":"FailedCreate"}]"#;
    assert_eq!(set(&format!("{good}{quota}")), "not_ready FailedCreate");
}

#[test]
fn a_pod_says_which_container_and_what_is_the_matter() {
    let pod = |phase: &str, rest: &str| format!(r#"{{"status":{{"phase":"{phase}"{rest}}}}}"#);
    let condition = |name: &str, status: &str| {
        format!(r#"{{"type":"{name}","status":"{status}","reason":"R{name}","message":"m"}}"#)
    };
    let not_ready = format!(r#","conditions":[{}]"#, condition("Ready", "False"));
    let container = |state: &str| {
        format!(
            r#","containerStatuses":[{{"name":"side","ready":true,"state":{{"running":{{}}}}}},{{"name":"app","ready":false,{state}}}]"#
        )
    };
    for (phase, rest, expected, why) in [
        ("Running", format!(r#","conditions":[{}]"#, condition("Ready", "True")), "ready Ready", "m"),
        ("Pending", format!(r#","conditions":[{}]"#, condition("Ready", "True")), "not_ready Pending", "it is not running yet"),
        ("Running", not_ready.clone(), "not_ready RReady", "m"),
        ("Running", String::new(), "not_ready NotReady", "it is running but not ready"),
        ("Succeeded", String::new(), "ready Succeeded", "it has run to its end"),
        ("Failed", r#","reason":"Evicted","message":"low on memory""#.to_owned(), "not_ready Evicted", "low on memory"),
        ("Unknown", String::new(), "unknown PhaseUnknown", "its node has not been heard of"),
        ("Pending", r#","conditions":[{"type":"PodScheduled","status":"False","reason":"Unschedulable","message":"0/3 nodes"}]"#.to_owned(), "not_ready Unschedulable", "0/3 nodes"),
        ("Pending", container(r#""state":{"waiting":{"reason":"ImagePullBackOff","message":"no such image"}}"#), "not_ready ImagePullBackOff", "container app: ImagePullBackOff: no such image"),
        ("Pending", container(r#""state":{"waiting":{"reason":"ContainerCreating"}}"#), "not_ready ContainerCreating", "container app: ContainerCreating"),
        ("Running", format!("{not_ready}{}", container(r#""restartCount":7,"state":{"waiting":{"reason":"CrashLoopBackOff","message":"back-off 5m"}},"lastState":{"terminated":{"reason":"OOMKilled","exitCode":137}}"#)), "not_ready CrashLoopBackOff", "container app: CrashLoopBackOff: OOMKilled (exit code 137), 7 restarts"),
        ("Running", container(r#""state":{"terminated":{"reason":"Error","exitCode":1}}"#), "not_ready Error", "container app: Error (exit code 1)"),
        ("Running", format!("{not_ready}{}", container(r#""state":{"running":{}}"#)), "not_ready ContainersNotReady", "container app runs but is not ready"),
        ("Pending", r#","initContainerStatuses":[{"name":"init","ready":false,"restartCount":1,"state":{"waiting":{"reason":"CrashLoopBackOff"}}}],"containerStatuses":[{"name":"app","state":{"waiting":{"reason":"PodInitializing"}}}]"#.to_owned(), "not_ready CrashLoopBackOff", "init container init: CrashLoopBackOff"),
        ("Pending", r#","initContainerStatuses":[{"name":"init","ready":true,"state":{"terminated":{"exitCode":0,"reason":"Completed"}}}]"#.to_owned(), "not_ready Pending", "it is not running yet"),
    ] {
        let json = pod(phase, &rest);
        assert_eq!((decided("pods", &json).as_str(), message("pods", &json).as_str()), (expected, why), "{json}");
    }
}

#[test]
fn a_pod_that_only_waits_for_a_readiness_gate_says_so() {
    let gates = r#"{"spec":{"readinessGates":[{"conditionType":"acko.io/aerospike-ready"}]},"status":{"phase":"Running",
        "conditions":[{"type":"Ready","status":"False","reason":"ReadinessGatesNotReady"},
        {"type":"ContainersReady","status":"True"}GATE]}}"#;
    let closed = gates.replace(
        "GATE",
        r#",{"type":"acko.io/aerospike-ready","status":"False","message":"migrating"}"#,
    );
    assert_eq!(decided("pods", &closed), "not_ready ReadinessGatesNotReady");
    assert_eq!(
        message("pods", &closed),
        "the containers are ready, readiness gate acko.io/aerospike-ready is not: migrating"
    );
    assert_eq!(
        decided("pods", &gates.replace("GATE", "")),
        "not_ready ReadinessGatesNotReady"
    );
    let decision = decide("pods", &of(&closed, None), &Parts::default());
    let shown: Vec<_> = decision
        .conditions
        .iter()
        .map(|(name, opinion)| (name.as_str(), opinion.state))
        .collect();
    assert_eq!(
        shown,
        [
            ("ContainersReady", State::Ready),
            ("acko.io/aerospike-ready", State::NotReady)
        ]
    );
}

#[test]
fn a_job_is_ready_while_it_gets_on_and_once_it_is_complete() {
    check(
        "jobs.batch",
        &[
            (
                r#"{"status":{"startTime":"t","active":1}}"#,
                "ready Running",
            ),
            (
                r#"{"status":{"startTime":"t","active":1,"ready":0}}"#,
                "ready Running",
            ),
            (
                r#"{"status":{"startTime":"t","active":1,"ready":0,"failed":2}}"#,
                "not_ready Retrying",
            ),
            (
                r#"{"status":{"startTime":"t","active":1,"ready":1,"failed":2}}"#,
                "ready Running",
            ),
            (
                r#"{"status":{"startTime":"t","succeeded":1,"conditions":[{"type":"Complete","status":"True"}]}}"#,
                "ready Complete",
            ),
            (
                r#"{"status":{"startTime":"t","conditions":[{"type":"Failed","status":"True","reason":"BackoffLimitExceeded"}]}}"#,
                "not_ready BackoffLimitExceeded",
            ),
            (
                r#"{"status":{"startTime":"t","conditions":[{"type":"FailureTarget","status":"True"}]}}"#,
                "not_ready Failed",
            ),
            (
                r#"{"status":{"conditions":[{"type":"Suspended","status":"True"}]}}"#,
                "not_ready Suspended",
            ),
            (
                r#"{"status":{"conditions":[{"type":"Complete","status":"False"}]}}"#,
                "not_ready NotStarted",
            ),
        ],
    );
}

#[test]
fn claims_namespaces_definitions_and_services_of_the_api_say_it_themselves() {
    check(
        "persistentvolumeclaims",
        &[
            (r#"{"status":{"phase":"Bound"}}"#, "ready Bound"),
            (r#"{"status":{"phase":"Pending"}}"#, "not_ready Pending"),
            (r#"{"status":{"phase":"Lost"}}"#, "not_ready Lost"),
        ],
    );
    check(
        "namespaces",
        &[
            (r#"{"status":{"phase":"Active"}}"#, "ready Active"),
            (
                r#"{"status":{"phase":"Terminating"}}"#,
                "not_ready Terminating",
            ),
        ],
    );
    let conditions = |all: &[(&str, &str, &str)]| {
        let one = |(name, status, reason): &(&str, &str, &str)| {
            format!(r#"{{"type":"{name}","status":"{status}","reason":"{reason}"}}"#)
        };
        let all: Vec<_> = all.iter().map(one).collect();
        format!(r#"{{"status":{{"conditions":[{}]}}}}"#, all.join(","))
    };
    let definition = "customresourcedefinitions.apiextensions.k8s.io";
    for (all, expected) in [
        (
            &[
                ("NamesAccepted", "True", "NoConflicts"),
                ("Established", "True", "InitialNamesAccepted"),
            ][..],
            "ready InitialNamesAccepted",
        ),
        (
            &[
                ("NamesAccepted", "False", "Conflict"),
                ("Established", "True", "x"),
            ],
            "not_ready Conflict",
        ),
        (
            &[("Established", "False", "Installing")],
            "not_ready Installing",
        ),
        (
            &[("NamesAccepted", "True", "NoConflicts")],
            "not_ready NotObserved",
        ),
    ] {
        assert_eq!(decided(definition, &conditions(all)), expected);
    }
    let service = "apiservices.apiregistration.k8s.io";
    for (all, expected) in [
        (&[("Available", "True", "Passed")], "ready Passed"),
        (
            &[("Available", "False", "MissingEndpoints")],
            "not_ready MissingEndpoints",
        ),
        (&[("Available", "Unknown", "Wait")], "unknown Wait"),
    ] {
        assert_eq!(decided(service, &conditions(all)), expected);
    }
    let autoscaler = "horizontalpodautoscalers.autoscaling";
    for (all, expected) in [
        (
            &[
                ("AbleToScale", "True", "x"),
                ("ScalingActive", "True", "ValidMetricFound"),
            ],
            "ready ScalingActive",
        ),
        (
            &[
                ("AbleToScale", "True", "x"),
                ("ScalingActive", "False", "FailedGetResourceMetric"),
            ],
            "not_ready FailedGetResourceMetric",
        ),
        (
            &[
                ("AbleToScale", "False", "FailedGetScale"),
                ("ScalingActive", "True", "x"),
            ],
            "not_ready FailedGetScale",
        ),
    ] {
        assert_eq!(decided(autoscaler, &conditions(all)), expected);
    }
}

#[test]
fn a_disruption_budget_says_whether_a_pod_may_go() {
    let budget = |healthy: i64, allowed: i64| {
        let json = format!(
            r#"{{"status":{{"observedGeneration":2,"currentHealthy":{healthy},"desiredHealthy":2,"expectedPods":3,
            "disruptionsAllowed":{allowed}}}}}"#
        );
        let decision = decide(
            "poddisruptionbudgets.policy",
            &of(&json, Some(2)),
            &Parts::default(),
        );
        let safe = decision
            .conditions
            .iter()
            .find(|(name, _)| name == "SafeToDisrupt")
            .unwrap();
        (said(&decision.opinion), safe.1.state)
    };
    assert_eq!(budget(3, 1), ("ready Computed".to_owned(), State::Ready));
    assert_eq!(budget(2, 0), ("ready Computed".to_owned(), State::NotReady));
    assert_eq!(
        budget(1, 0),
        ("not_ready InsufficientPods".to_owned(), State::NotReady)
    );
    let old = r#"{"status":{"observedGeneration":1,"currentHealthy":3,"desiredHealthy":2,"disruptionsAllowed":1}}"#;
    let decision = decide(
        "poddisruptionbudgets.policy",
        &of(old, Some(2)),
        &Parts::default(),
    );
    assert_eq!(decision.conditions[0].1.state, State::NotReady);
}

#[test]
fn a_custom_resource_is_taken_at_its_word_and_never_at_its_silence() {
    let conditions = |conditions: &str| {
        decided(
            "things.example.com",
            &format!(r#"{{"status":{{"observedGeneration":2,"conditions":[{conditions}]}}}}"#),
        )
    };
    for (all, expected) in [
        (
            r#"{"type":"Ready","status":"True","reason":"Up"}"#,
            "ready Up",
        ),
        (r#"{"type":"Ready","status":"True"}"#, "ready Ready"),
        (
            r#"{"type":"Ready","status":"False","reason":"Down"}"#,
            "not_ready Down",
        ),
        (r#"{"type":"Ready","status":"False"}"#, "not_ready NotReady"),
        (
            r#"{"type":"Ready","status":"Unknown","reason":"Hm"}"#,
            "unknown Hm",
        ),
        (
            r#"{"type":"Ready","status":"True","observedGeneration":1}"#,
            "not_ready OldGeneration",
        ),
        (r#"{"type":"Available","status":"True"}"#, "ready Available"),
        (
            r#"{"type":"Ready","status":"False"},{"type":"Available","status":"True"}"#,
            "not_ready NotReady",
        ),
        (
            r#"{"type":"Ready","status":"True"},{"type":"Degraded","status":"True"}"#,
            "not_ready Degraded",
        ),
        (
            r#"{"type":"Failed","status":"False"}"#,
            "unknown NoReadyCondition",
        ),
        (
            r#"{"type":"Stalled","status":"True","reason":"Broken"},{"type":"Ready","status":"True"}"#,
            "not_ready Broken",
        ),
        (
            r#"{"type":"Reconciling","status":"True"},{"type":"Ready","status":"True"}"#,
            "not_ready Reconciling",
        ),
        ("", "unknown NoReadyCondition"),
    ] {
        assert_eq!(conditions(all), expected, "{all}");
    }
    assert_eq!(
        decided("things.example.com", r#"{"spec":{}}"#),
        "unknown NoStatus"
    );
    assert_eq!(
        decided("things.example.com", r#"{"status":{"phase":"x"}}"#),
        "unknown NoReadyCondition"
    );
    let young = of(
        r#"{"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#,
        Some(1),
    );
    assert_eq!(
        said(&decide("things.example.com", &young, &Parts::default()).opinion),
        "ready Ready"
    );
    assert_eq!(decided("configmaps", "{}"), "ready Exists");
}
