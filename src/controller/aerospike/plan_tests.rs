//! From objects to whom to ask: every way in which they may be written.

use std::sync::Arc;

use super::{
    decide::{Stance, stance},
    facts::{ClusterId, Operator, PodFacts, owner, read_sets},
    plan::{Plan, Reach, Seen, Subject, plan},
};
use crate::{
    config::ProbeMode,
    object::{Key, Object, OwnerReference, tests::object},
};

const REACH: Reach = Reach {
    port: 3000,
    tls: false,
};

fn id() -> ClusterId {
    ClusterId {
        operator: Operator::Acko,
        key: Key::new("default", "cache"),
    }
}

fn owned(object: Object, kind: &str, api_version: &str) -> Object {
    let owner = OwnerReference {
        api_version: api_version.into(),
        kind: kind.into(),
        name: "cache".into(),
        uid: "owner".into(),
        controller: true,
    };
    Object {
        owner_references: [owner].into(),
        ..object
    }
}

fn labelled(name: &str, json: &str) -> Object {
    let labels = [
        ("app.kubernetes.io/name", "aerospike-cluster"),
        ("app.kubernetes.io/instance", "cache"),
        ("acko.io/rack", "2"),
    ];
    Object {
        labels: labels.into_iter().collect(),
        json: json.to_owned().into(),
        uid: name.into(),
        ..object("default", name)
    }
}

/// As with readiness gates on: the pod is not Ready before the operator says so.
const POD: &str = r#"{"status": {"podIP": "10.0.0.1",
    "conditions": [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}],
    "containerStatuses": [
        {"name": "exporter", "restartCount": 9, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}},
        {"name": "aerospike-server", "restartCount": 2, "state": {"running": {"startedAt": "2026-02-01T00:00:00Z"}}}]}}"#;

fn pod(name: &str) -> Arc<Object> {
    Arc::new(owned(labelled(name, POD), "StatefulSet", "apps/v1"))
}

fn set(name: &str, replicas: u32) -> Arc<Object> {
    let json = format!(r#"{{"spec": {{"replicas": {replicas}}}}}"#);
    Arc::new(owned(
        labelled(name, &json),
        "AerospikeCluster",
        "acko.io/v1alpha1",
    ))
}

fn cluster(json: &str) -> Arc<Object> {
    Arc::new(labelled("cache", json))
}

fn planned(seen: &Seen) -> Plan {
    plan(&id(), seen, REACH, &[]).expect("something to judge")
}

#[test]
fn the_size_is_the_specs_whoever_is_there() {
    let seen = Seen {
        cluster: Some(cluster(r#"{"spec": {"size": 3}}"#)),
        sets: vec![set("cache-0", 2)],
        pods: vec![pod("cache-0-0")],
        blind: false,
    };
    let plan = planned(&seen);
    assert_eq!((plan.size.clone(), plan.port), (Ok(3), 3000));
    assert_eq!(plan.subject.size_from(), "spec");
    let [member] = &plan.members()[..] else {
        panic!("one pod")
    };
    assert_eq!(member.address, Some(([10, 0, 0, 1], 3000).into()));
    assert_eq!(member.incarnation.restarts, 2, "of the server's container");
    assert!(member.incarnation.started.is_some());
    assert!(plan.pods[0].containers_ready, "Ready does not matter");
    assert_eq!(plan.pods[0].rack.as_deref(), Some("2"));
}

#[test]
fn where_there_is_no_such_object_all_its_stateful_sets_together_say_the_size() {
    let mut seen = Seen {
        blind: true,
        sets: vec![set("cache-0", 2), set("cache-1", 3)],
        ..Seen::default()
    };
    let blind = planned(&seen);
    assert_eq!(
        (blind.size, blind.subject.size_from()),
        (Ok(5), "statefulsets")
    );
    seen.blind = false;
    assert_eq!(
        plan(&id(), &seen, REACH, &[]),
        None,
        "the cluster is known to be gone, and they are to follow"
    );
    let free = Object {
        owner_references: Box::default(),
        ..(*set("cache-0", 4)).clone()
    };
    seen.sets = vec![Arc::new(free)];
    assert_eq!(planned(&seen).size, Ok(4), "nobody made it: it counts");
    let no_replicas = Object {
        json: r#"{"spec": {}}"#.into(),
        ..(*seen.sets[0]).clone()
    };
    seen.sets = vec![Arc::new(no_replicas)];
    assert_eq!(planned(&seen).size, Ok(1), "as the API server has it");
}

#[test]
fn what_cannot_be_read_is_trouble_and_no_default() {
    for (json, stale, reason) in [
        (r#"{"spec": {}}"#, false, "NoSize"),
        (r#"{}"#, false, "NoSize"),
        (r#"{"spec": {"size": -1}}"#, false, "Undecodable"),
        (r#"{"spec": {"size": 3}}"#, true, "Stale"),
    ] {
        let object = Object {
            stale,
            ..(*cluster(json)).clone()
        };
        let seen = Seen {
            cluster: Some(Arc::new(object)),
            ..Seen::default()
        };
        let trouble = planned(&seen).size.unwrap_err();
        assert_eq!(trouble.0, reason, "{json}");
    }
    let broken = owned(
        labelled("cache-0", r#"{"status": 5}"#),
        "StatefulSet",
        "apps/v1",
    );
    let seen = Seen {
        cluster: Some(cluster(r#"{"spec": {"size": 1}}"#)),
        pods: vec![Arc::new(broken)],
        ..Seen::default()
    };
    let (reason, message) = planned(&seen).size.unwrap_err();
    assert_eq!(reason, "Undecodable");
    assert!(message.starts_with("cache-0: "), "{message}");
}

#[test]
fn pods_that_go_are_members_no_more_and_strangers_never_were() {
    let going = Object {
        deletion_timestamp: Some("2026-01-01T00:00:00Z".into()),
        ..(*pod("cache-0-1")).clone()
    };
    let stranger = owned(labelled("backup-x", POD), "Job", "batch/v1");
    let seen = Seen {
        cluster: Some(cluster(r#"{"spec": {"size": 2}}"#)),
        pods: vec![pod("cache-0-0"), Arc::new(going), Arc::new(stranger)],
        ..Seen::default()
    };
    let plan = planned(&seen);
    let names: Vec<_> = plan.members().into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["cache-0-0"]);
    assert_eq!(plan.pods.len(), 2);
}

#[test]
fn the_port_is_the_specs_and_tls_is_used_where_both_sides_have_it() {
    let spec = r#"{"spec": {"size": 1, "aerospikeConfig": {"service": {"cluster-name": "x"}, "network":
        {"service": {"port": 4000, "tls-port": 4333}, "heartbeat": {"port": 3002}}}}}"#;
    let seen = Seen {
        cluster: Some(cluster(spec)),
        pods: vec![pod("cache-0-0")],
        ..Seen::default()
    };
    let plain = planned(&seen);
    assert_eq!((plain.port, plain.tls), (4000, false));
    let reach = Reach { tls: true, ..REACH };
    let secured = plan(&id(), &seen, reach, &[]).unwrap();
    assert_eq!((secured.port, secured.tls), (4333, true));
    assert!(!secured.asks_the_same(&plain));
    let seen = Seen {
        cluster: Some(cluster(
            r#"{"spec": {"size": 1, "aerospikeConfig": {"network": {"service": {"port": "x"}}}}}"#,
        )),
        ..Seen::default()
    };
    let odd = plan(&id(), &seen, reach, &[]).unwrap();
    assert_eq!((odd.port, odd.tls), (3000, false));
}

#[test]
fn both_operators_clusters_are_known_by_their_labels() {
    let of = |labels: &[(&str, &'static str)]| {
        let label = |name: &str| {
            let found = labels.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| *value)
        };
        ClusterId::of("ns", label)
    };
    let acko = of(&[
        ("app.kubernetes.io/name", "aerospike-cluster"),
        ("app.kubernetes.io/instance", "a"),
    ]);
    let acko = acko.unwrap();
    assert_eq!(acko.operator, Operator::Acko);
    assert_eq!(
        acko.selector(),
        "app.kubernetes.io/name=aerospike-cluster,app.kubernetes.io/instance=a"
    );
    let ako = of(&[("app", "aerospike-cluster"), ("aerospike.com/cr", "a")]).unwrap();
    assert_eq!((ako.operator, ako.key.as_str()), (Operator::Ako, "ns/a"));
    assert_eq!(ako.selector(), "app=aerospike-cluster,aerospike.com/cr=a");
    assert_ne!(acko.group(), ako.group());
    assert_eq!(of(&[("app", "aerospike-cluster")]), None);
    assert_eq!(of(&[("aerospike.com/cr", "a")]), None);
    assert_eq!(owner(&set("x", 1)), Some(Operator::Acko));
    assert_eq!(owner(&pod("x")), None);
}

#[test]
fn a_list_of_pods_reads_as_the_cache_does() {
    let item = |name: &str, extra: &str| {
        let status = &POD[1..POD.len() - 1];
        format!(
            r#"{{"metadata": {{"name": "{name}", "namespace": "default", "uid": "{name}", "resourceVersion": "1",
            "labels": {{"app.kubernetes.io/name": "aerospike-cluster", "app.kubernetes.io/instance": "cache",
            "acko.io/rack": "2"}}, "ownerReferences": [{{"apiVersion": "apps/v1", "kind": "StatefulSet",
            "name": "cache", "uid": "owner", "controller": true}}]{extra}}}, {status}}}"#
        )
    };
    let stranger = r#"{"metadata": {"name": "x", "namespace": "default"}}"#;
    let list = format!(
        r#"{{"kind": "PodList", "items": [{}, {}, {stranger}]}}"#,
        item(
            "cache-0-1",
            r#", "deletionTimestamp": "2026-01-01T00:00:00Z""#
        ),
        item("cache-0-0", "")
    );
    let pods = PodFacts::read_list(list.as_bytes()).unwrap();
    let cached = PodFacts::read(&pod("cache-0-0")).unwrap().unwrap();
    assert_eq!(pods[0], cached);
    assert!(pods[1].terminating && pods.len() == 2);
    let sets = r#"{"items": [{"metadata": {"name": "a", "namespace": "default", "uid": "u",
        "resourceVersion": "7"}, "spec": {"replicas": 3}}]}"#;
    let sets = read_sets(sets.as_bytes()).unwrap();
    assert_eq!((sets[0].replicas, &*sets[0].version), (3, "7"));
}

#[test]
fn what_is_known_of_a_pod_is_of_one_version_of_it() {
    let seen = Seen {
        cluster: Some(cluster(r#"{"spec": {"size": 2}}"#)),
        pods: vec![pod("cache-0"), pod("cache-1")],
        ..Seen::default()
    };
    let known = planned(&seen).pods;
    let again = plan(&id(), &seen, REACH, &known).unwrap();
    assert_eq!(again.pods, known);
    let mut wrong = known.clone();
    wrong[0].containers_ready ^= true;
    let read = |wrong: &[PodFacts]| plan(&id(), &seen, REACH, wrong).unwrap().pods;
    assert_eq!(read(&wrong), wrong, "what is known is not read again");
    wrong[0].version = "other".into();
    assert_eq!(read(&wrong), known);
    let mut wrong = known.clone();
    wrong[1].containers_ready ^= true;
    wrong[1].uid = "other".into();
    assert_eq!(read(&wrong), known);
}

#[test]
fn a_new_version_alone_is_another_plan_that_asks_the_same() {
    let seen = |version: &str, json: &str| {
        let pod = Object {
            resource_version: version.into(),
            json: json.to_owned().into(),
            ..(*pod("cache-0-0")).clone()
        };
        let seen = Seen {
            cluster: Some(cluster(r#"{"spec": {"size": 1}}"#)),
            pods: vec![Arc::new(pod)],
            ..Seen::default()
        };
        planned(&seen)
    };
    let (a, b) = (seen("1", POD), seen("2", POD));
    assert!(a != b && a.asks_the_same(&b));
    assert_eq!(b.stirred(&a).count(), 0);
    let c = seen(
        "3",
        &POD.replace(r#""restartCount": 2"#, r#""restartCount": 3"#),
    );
    assert!(!c.asks_the_same(&b));
    assert_eq!(c.stirred(&b).collect::<Vec<_>>(), ["cache-0-0"]);
    let unready = POD.replace(
        r#""ContainersReady", "status": "True""#,
        r#""ContainersReady", "status": "False""#,
    );
    let d = seen("4", &unready);
    assert!(d.asks_the_same(&b), "nodes are asked all the same");
    assert_eq!(d.stirred(&b).count(), 1, "but at once");
    assert!(matches!(a.subject, Subject::Cluster(_)));
}

#[test]
fn the_mode_says_where_pods_are_known_from() {
    use ProbeMode::{Poll, Watch, WatchAndPoll};
    let (pods, owner) = (Some("pods"), Some("owner"));
    let poll = |owner| Stance::Poll { owner };
    let blind = |why: &str| Stance::Blind(why.to_owned());
    for (mode, pods, owner, expected) in [
        (Watch, None, None, Stance::Watch),
        (Watch, pods, None, blind("pods")),
        (Watch, None, owner, blind("owner")),
        (WatchAndPoll, None, None, Stance::Watch),
        (WatchAndPoll, pods, None, poll(false)),
        (WatchAndPoll, None, owner, poll(true)),
        (Poll, None, None, poll(false)),
        (Poll, pods, owner, poll(true)),
    ] {
        assert_eq!(stance(mode, pods, owner), expected, "{mode:?}");
    }
}
