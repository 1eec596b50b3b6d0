//! From a change in the cache to the verdict on the board.

use super::*;
use crate::{
    cache::Limits,
    controller::{
        self, Settings,
        fake::{Fed, at_once, between_ticks},
    },
    heartbeat::Heartbeats,
    readiness::{Board, State, Verdict},
    shutdown::Shutdown,
};

const SETTINGS: Settings = Settings {
    debounce: std::time::Duration::ZERO,
    concurrency: 2,
    timeout: std::time::Duration::from_secs(60),
    backoff: std::time::Duration::from_secs(1),
    backoff_max: std::time::Duration::from_secs(60),
};

fn run(board: &Board, fed: &Fed, role: &str, members: &PodsAndSets, shutdown: &Shutdown) {
    let judged = board.kind(&fed.kind.name).unwrap().clone();
    judged.expect([]);
    let workload = Workload::new(fed.kind.clone(), judged, members.clone());
    let triggers = workload.triggers(role, fed.feed.clone());
    let beat = Heartbeats::default().register("controller");
    tokio::spawn(controller::run(
        workload,
        triggers,
        SETTINGS,
        beat,
        shutdown.clone(),
    ));
}

async fn settle() {
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
}

const PENDING: &str = r#"{"status":{"phase":"Pending"}}"#;
const RUNNING: &str = r#"{"spec":{"nodeName":"n1"},"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;

fn deployment(available: u32) -> String {
    format!(
        r#"{{"spec":{{"replicas":2}},"status":{{"observedGeneration":1,"replicas":2,"updatedReplicas":2,
        "readyReplicas":{available},"availableReplicas":{available},
        "conditions":[{{"type":"Available","status":"True"}}]}}}}"#
    )
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_pod_reaches_its_own_verdict_and_that_of_its_deployment() {
    let shutdown = Shutdown::new();
    let mut pods = Fed::new("", "Pod", "pods", &shutdown);
    let mut sets = Fed::new("apps", "ReplicaSet", "replicasets", &shutdown);
    let mut deployments = Fed::new("apps", "Deployment", "deployments", &shutdown);
    let board = Board::new(["pods", "deployments"], Limits::default());
    let members = PodsAndSets::new(
        Some((pods.kind.clone(), pods.feed.clone())),
        Some((sets.kind.clone(), sets.feed.clone())),
    );
    run(&board, &pods, "pods", &members, &shutdown);
    run(
        &board,
        &deployments,
        "deployments.apps",
        &members,
        &shutdown,
    );
    let verdict = |kind: &str, name: &str| -> Option<Arc<Verdict>> {
        board.kind(kind).unwrap().get(&Key::new("default", name))
    };

    deployments.put("web", "d", None, &deployment(1));
    sets.put("web-1", "s", Some(("Deployment", "web", "d")), "{}");
    pods.put("web-1-a", "a", Some(("ReplicaSet", "web-1", "s")), RUNNING);
    pods.put("web-1-b", "b", Some(("ReplicaSet", "web-1", "s")), PENDING);
    pods.put("other", "o", Some(("ReplicaSet", "other-1", "x")), PENDING);
    settle().await;
    let web = verdict("deployments", "web").unwrap();
    assert_eq!(&*web.finding.resource, "deployments.apps");
    assert_eq!(&*web.standing.answer.reason, "LessAvailable");
    assert_eq!(
        &*web.standing.answer.message,
        "Available: 1/2; web-1-b: it is not running yet"
    );
    assert_eq!((web.finding.parts.total, web.finding.parts.ready), (2, 1));
    assert_eq!(&*web.finding.parts.named[1].message, "on n1");
    assert_eq!(
        verdict("pods", "web-1-b").unwrap().standing.answer.state,
        State::NotReady
    );

    pods.put("web-1-b", "b", Some(("ReplicaSet", "web-1", "s")), RUNNING);
    settle().await;
    let web = verdict("deployments", "web").unwrap();
    assert_eq!(
        web.finding.parts.ready, 2,
        "though the deployment itself has not changed"
    );
    assert_eq!(
        web.standing.answer.state,
        State::NotReady,
        "which it is to do yet"
    );
    let ready = verdict("pods", "web-1-b").unwrap();
    assert_eq!(ready.standing.answer.state, State::Ready);
    assert_eq!(
        &*ready.finding.resource_version,
        &*pods.revision.to_string()
    );

    deployments.put("web", "d", None, &deployment(2));
    pods.delete("web-1-a");
    settle().await;
    let web = verdict("deployments", "web").unwrap();
    assert_eq!(web.standing.answer.state, State::Ready);
    assert_eq!(web.finding.parts.total, 1);
    assert!(verdict("pods", "web-1-a").is_none());
    deployments.delete("web");
    settle().await;
    assert!(verdict("deployments", "web").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_takes_the_name_of_another_is_judged_for_itself_and_at_once() {
    let shutdown = Shutdown::new();
    let mut pods = Fed::new("", "Pod", "pods", &shutdown);
    let board = Board::new(["pods"], Limits::default());
    run(&board, &pods, "pods", &PodsAndSets::default(), &shutdown);
    pods.put("db-0", "1", None, RUNNING);
    settle().await;
    between_ticks().await;
    pods.delete("db-0");
    pods.put("db-0", "2", None, PENDING);
    at_once().await;
    let verdict = board
        .kind("pods")
        .unwrap()
        .get(&Key::new("default", "db-0"))
        .unwrap();
    assert_eq!(
        (&*verdict.finding.uid, verdict.standing.answer.state),
        ("2", State::NotReady)
    );
}

#[test]
fn what_it_reads_are_paths() {
    for path in Workload::READS.iter().flat_map(|reads| reads.paths) {
        path.parse::<crate::object::Path>()
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}
