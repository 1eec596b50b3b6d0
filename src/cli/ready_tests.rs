//! `informerd ready` and `informerd wait` against a scripted server: what people read, and what scripts do.

use serde_json::{Value, json};
use tonic::{Code, Status};

use super::{
    Error,
    tests::{Printed, kind, kinds, print},
};
use crate::{
    client::fake::{End, Fake, Script},
    proto::*,
};
use std::process::ExitCode;

fn target(resource: &str, name: &str) -> Option<Target> {
    Some(Target {
        resource: resource.into(),
        namespace: "default".into(),
        name: name.into(),
    })
}

fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    // Before 2026-01-01T00:05:00Z, which is now.
    Some(prost_types::Timestamp {
        seconds: 1_767_225_900 - seconds,
        nanos: 0,
    })
}

fn verdict(name: &str, state: ReadinessState, reason: &str) -> Verdict {
    Verdict {
        target: target("deployments.apps", name),
        state: state.into(),
        reason: reason.into(),
        message: format!("{reason} it is"),
        since: at(90),
        ..Verdict::default()
    }
}

fn web() -> Verdict {
    let condition = |name: &str, state: ReadinessState| ReadinessCondition {
        name: name.into(),
        state: state.into(),
        reason: "Because".into(),
        ..ReadinessCondition::default()
    };
    Verdict {
        details: r#"{"endpoints":3}"#.into(),
        generation: 3,
        observed_generation: 2,
        uid: "u".into(),
        resource_version: "7".into(),
        evidence: Some(EvidenceWindow {
            from: at(2),
            to: at(1),
        }),
        expires: at(-5),
        conditions: vec![
            condition("Available", ReadinessState::Ready),
            condition("SafeToDisrupt", ReadinessState::NotReady),
        ],
        parts: vec![ReadinessPart {
            target: target("pods", "web-0"),
            uid: "p".into(),
            state: ReadinessState::NotReady.into(),
            reason: "CrashLoopBackOff".into(),
            message: "container web".into(),
        }],
        parts_total: 3,
        parts_ready: 2,
        ..verdict("web", ReadinessState::NotReady, "LessReady")
    }
}

fn script(verdicts: Vec<Verdict>) -> Script {
    let mut kinds = kinds();
    kinds.push(kind("deployments.apps", "Deployment", true, "deploy"));
    kinds.push(kind(
        "aerospikeclusters.acko.io",
        "AerospikeCluster",
        true,
        "asc",
    ));
    Script {
        kinds,
        verdicts,
        ..Script::default()
    }
}

fn both() -> Script {
    script(vec![
        verdict("db", ReadinessState::Ready, "Available"),
        web(),
    ])
}

async fn printed(script: Script, line: &str) -> Printed {
    print(script, line).await.0
}

#[tokio::test]
async fn verdicts_are_a_table_of_what_is_wrong_first() {
    let Printed { out, err, done } = printed(both(), "ready").await;
    done.expect("it is printed");
    assert_eq!(
        out,
        "\
TARGET                 STATE      REASON      SINCE   WHY
deployments.apps/web   NotReady   LessReady   90s     LessReady it is
deployments.apps/db    Ready      Available   90s     Available it is
"
    );
    assert_eq!(err, "");
    let Printed { out, done, .. } = printed(both(), "ready -A -o wide").await;
    done.expect("it is printed");
    assert_eq!(
        out,
        "\
NAMESPACE   TARGET                 STATE      REASON      SINCE   PARTS   GENERATION   CONDITIONS   WHY
default     deployments.apps/web   NotReady   LessReady   90s     2/3     2 of 3       Available    LessReady it is
default     deployments.apps/db    Ready      Available   90s                                       Available it is
"
    );
    let Printed { out, .. } = printed(both(), "ready deploy -o name").await;
    assert_eq!(out, "deployments.apps/web\ndeployments.apps/db\n");
}

#[tokio::test]
async fn one_target_as_json_is_its_verdict_and_more_are_items() {
    let one = script(vec![web()]);
    let Printed { out, done, .. } = printed(one, "ready deployment/web -o json").await;
    done.expect("it is printed");
    let said: Value = serde_json::from_str(&out).expect("it is JSON");
    let expected = json!({
        "target": {"resource": "deployments.apps", "namespace": "default", "name": "web"},
        "state": "NotReady",
        "reason": "LessReady",
        "message": "LessReady it is",
        "details": {"endpoints": 3},
        "generation": 3,
        "observedGeneration": 2,
        "uid": "u",
        "resourceVersion": "7",
        "evidence": {"from": "2026-01-01T00:04:58Z", "to": "2026-01-01T00:04:59Z"},
        "since": "2026-01-01T00:03:30Z",
        "expires": "2026-01-01T00:05:05Z",
        "conditions": [
            {"name": "Available", "state": "Ready", "reason": "Because", "message": ""},
            {"name": "SafeToDisrupt", "state": "NotReady", "reason": "Because", "message": ""},
        ],
        "parts": [{
            "target": {"resource": "pods", "namespace": "default", "name": "web-0"},
            "uid": "p",
            "state": "NotReady",
            "reason": "CrashLoopBackOff",
            "message": "container web",
        }],
        "partsTotal": 3,
        "partsReady": 2,
    });
    assert_eq!(said, expected);
    let Printed { out, .. } = printed(both(), "ready -o json").await;
    let said: Value = serde_json::from_str(&out).expect("it is JSON");
    assert_eq!(said["items"][0], expected);
    assert_eq!(
        said["items"][1],
        json!({
            "target": {"resource": "deployments.apps", "namespace": "default", "name": "db"},
            "state": "Ready",
            "reason": "Available",
            "message": "Available it is",
            "since": "2026-01-01T00:03:30Z",
            "conditions": [],
            "parts": [],
            "partsTotal": 0,
            "partsReady": 0,
        }),
        "what there is none of is left out"
    );
    let Printed { out, .. } = printed(script(vec![web()]), "ready deploy/web -o yaml").await;
    assert!(
        out.starts_with("target:\n  resource: deployments.apps\n"),
        "{out}"
    );
    let Printed { out, .. } = printed(script(vec![]), "ready -o json").await;
    let said: Value = serde_json::from_str(&out).expect("it is JSON");
    assert_eq!(said, json!({"items": []}));
}

#[tokio::test]
async fn details_that_are_no_json_are_an_error_and_not_left_out() {
    let bad = Verdict {
        details: "{".into(),
        ..web()
    };
    let Printed { out, done, .. } = printed(script(vec![bad]), "ready -o json").await;
    assert!(matches!(done, Err(Error::Object { .. })));
    assert_eq!(out, "");
}

#[tokio::test]
async fn a_named_target_that_is_not_there_is_a_failure() {
    for format in ["table", "json"] {
        let line = format!("ready deploy/web deploy/none -o {format}");
        let Printed { out, err, done } = printed(script(vec![web()]), &line).await;
        assert!(out.contains("web"), "{out}");
        assert!(
            err.contains("deployments.apps/none does not exist"),
            "{err}"
        );
        let error = done.expect_err("it does not exist");
        assert_eq!(error.exit_code(), ExitCode::FAILURE);
    }
    let Printed { out, done, .. } = printed(script(vec![]), "ready deploy/none -o json").await;
    assert_eq!(out, "", "there is no verdict to print");
    assert!(matches!(done, Err(Error::NotFound { .. })));
}

fn mark(kind: MarkType, token: &str) -> WatchReadinessResponse {
    WatchReadinessResponse {
        events: Vec::new(),
        mark: Some(ReadinessMark {
            r#type: kind.into(),
            token: token.to_owned().into(),
            ..ReadinessMark::default()
        }),
    }
}

fn told(verdicts: impl IntoIterator<Item = Verdict>) -> WatchReadinessResponse {
    let event = |verdict| ReadinessEvent {
        r#type: EventType::Upsert.into(),
        verdict: Some(verdict),
        ..ReadinessEvent::default()
    };
    WatchReadinessResponse {
        events: verdicts.into_iter().map(event).collect(),
        mark: Some(ReadinessMark::default()),
    }
}

/// Cut once; then all begins anew, without db, and at last it is refused for good.
fn watched() -> Script {
    let lost = End::Fail(Status::unavailable("restarting"));
    let refused = End::Fail(Status::new(Code::PermissionDenied, "no more"));
    let ready = || verdict("web", ReadinessState::Ready, "Available");
    let calls = [
        (vec![told([web()]), told([ready()])], lost),
        (
            vec![
                mark(MarkType::Reset, ""),
                told([ready(), verdict("new", ReadinessState::Unknown, "Stale")]),
                mark(MarkType::ResetEnd, "2"),
            ],
            refused,
        ),
    ];
    Script {
        verdict_watches: calls.into(),
        ..both()
    }
}

#[tokio::test]
async fn a_watch_prints_what_is_news_also_what_vanished_while_it_was_cut() {
    let Printed { out, err, done } = printed(watched(), "ready --watch").await;
    let error = done.expect_err("it is refused");
    assert_eq!(error.to_string(), "no more");
    assert!(err.contains("restarting; trying again in 0.1s"), "{err}");
    let said: Vec<_> = out
        .lines()
        .skip(1)
        .map(|line| {
            line.split_whitespace()
                .take(2)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    assert_eq!(
        said,
        [
            "deployments.apps/web NotReady",
            "deployments.apps/db Ready",
            "deployments.apps/web Ready",
            "deployments.apps/new Unknown",
            "deployments.apps/db Gone",
        ]
    );
    let Printed { out, .. } = printed(watched(), "ready --watch -o json").await;
    let lines = out.lines().map(serde_json::from_str::<Value>);
    let states: Vec<_> = lines
        .map(|line| line.expect("each line is JSON")["state"].clone())
        .collect();
    assert_eq!(states, ["NotReady", "Ready", "Ready", "Unknown", "Gone"]);
}

fn answer(outcome: WaitOutcome, verdicts: Vec<Verdict>) -> WaitReadinessResponse {
    let missing = match outcome {
        WaitOutcome::Satisfied => Vec::new(),
        _ => vec![MissingTarget {
            target: target("deployments.apps", "web"),
            reason: "LessReady".into(),
            message: "Ready: 2/3".into(),
        }],
    };
    WaitReadinessResponse {
        outcome: outcome.into(),
        verdicts,
        missing,
        satisfied: 0,
    }
}

async fn waited(waits: Vec<(Vec<WaitReadinessResponse>, End)>, line: &str) -> (Printed, Fake) {
    let script = Script {
        waits: waits.into(),
        ..script(vec![])
    };
    print(script, line).await
}

#[tokio::test]
async fn a_wait_tells_its_progress_and_ends_with_what_was_met() {
    let steps = || {
        vec![
            answer(WaitOutcome::Unspecified, vec![web()]),
            answer(
                WaitOutcome::Satisfied,
                vec![verdict("web", ReadinessState::Ready, "Available")],
            ),
        ]
    };
    let line = "wait deployment.apps/web asc/cache --for condition=Available --timeout 90s -n shop";
    let (Printed { out, err, done }, fake) = waited(vec![(steps(), End::Close)], line).await;
    done.expect("it is met");
    assert_eq!(out, "deployments.apps/web condition met\n");
    assert_eq!(
        err,
        "waiting for deployments.apps/web: LessReady: Ready: 2/3\n"
    );
    let asked = fake
        .script
        .lock()
        .expect("not poisoned")
        .asked_waits
        .clone();
    let [asked] = &asked[..] else {
        panic!("{asked:?}")
    };
    assert_eq!(asked.wait_for(), WaitFor::Condition);
    assert_eq!(asked.condition, "Available");
    let seconds = asked.timeout.expect("it has one").seconds;
    assert!((80..=90).contains(&seconds), "{seconds}");
    let names: Vec<_> = asked
        .targets
        .iter()
        .filter_map(|it| it.target.as_ref())
        .map(|it| format!("{} {} {}", it.resource, it.namespace, it.name))
        .collect();
    assert_eq!(
        names,
        [
            "deployments.apps shop web",
            "aerospikeclusters.acko.io shop cache"
        ]
    );
    let line = "wait aerospikecluster/cache --for safe-to-disrupt --quiet";
    let (Printed { err, done, .. }, _) = waited(vec![(steps(), End::Close)], line).await;
    done.expect("it is met");
    assert_eq!(err, "");
}

#[tokio::test]
async fn each_way_for_a_wait_to_end_has_an_exit_code_of_its_own() {
    let end = |outcome| vec![(vec![answer(outcome, vec![])], End::Close)];
    let refused = Status::new(Code::NotFound, "no controller judges it");
    for (waits, line, code, said) in [
        (end(WaitOutcome::Satisfied), "deploy/web", 0, ""),
        (
            vec![(vec![], End::Fail(refused))],
            "deploy/web",
            1,
            "no controller judges it",
        ),
        (vec![], "deploy", 2, "has no name"),
        (vec![], "deploy/web --for peace", 2, "safe-to-disrupt"),
        (vec![], "deploy/web pods/a --uid u", 2, "exactly one TARGET"),
        (
            end(WaitOutcome::TimedOut),
            "deploy/web",
            3,
            "timed out waiting for deployments.apps/web (LessReady: Ready: 2/3)",
        ),
        (
            end(WaitOutcome::Impossible),
            "deploy/web --uid u",
            4,
            "it is no use to wait for deployments.apps/web",
        ),
    ] {
        let (Printed { done, .. }, _) = waited(waits, &format!("wait {line}")).await;
        match done {
            Ok(()) => assert_eq!(code, 0, "{line}"),
            Err(error) => {
                assert_eq!(error.exit_code(), ExitCode::from(code), "{line}: {error}");
                assert!(error.to_string().contains(said), "{line}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn a_wait_that_is_cut_is_made_again_for_what_is_left_of_its_time() {
    let lost = || End::Fail(Status::unavailable("restarting"));
    let calls = vec![
        (vec![answer(WaitOutcome::Unspecified, vec![])], lost()),
        (vec![answer(WaitOutcome::Satisfied, vec![])], End::Close),
    ];
    let (Printed { err, done, .. }, fake) = waited(calls, "wait deploy/web --timeout 60s").await;
    done.expect("it is met after all");
    assert!(err.contains("note: restarting; trying again in"), "{err}");
    let asked = fake
        .script
        .lock()
        .expect("not poisoned")
        .asked_waits
        .clone();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].targets, asked[1].targets);
    let left = |asked: &WaitReadinessRequest| {
        let timeout = asked.timeout.expect("it has one");
        (timeout.seconds, timeout.nanos)
    };
    assert!(left(&asked[1]) < left(&asked[0]));

    // Nobody is there: it says so once its time is over.
    let calls = (0..20).map(|_| (vec![], lost())).collect();
    let (Printed { done, .. }, _) = waited(calls, "wait deploy/web --timeout 300ms").await;
    let error = done.expect_err("it cannot be asked");
    assert_eq!(error.exit_code(), ExitCode::FAILURE);
    assert!(error.to_string().contains("restarting"), "{error}");
}
