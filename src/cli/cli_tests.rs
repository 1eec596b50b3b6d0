//! The commands against a scripted server: what a person reads, to the letter.

use super::*;
use crate::{
    client::fake::{End, Fake, Script, delete, events, live, mark, upsert},
    proto::*,
};
use std::sync::{Arc, Mutex};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

#[derive(clap::Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// A writer that the test can read from meanwhile.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("is text")
    }
}

pub(super) struct Printed {
    pub out: String,
    pub err: String,
    pub done: Result<(), Error>,
}

fn now() -> Timestamp {
    "2026-01-01T00:05:00Z".parse().expect("is a time")
}

/// Runs a command line to its end.
pub(super) async fn print(script: Script, line: &str) -> (Printed, Fake) {
    let fake = Fake::new(script);
    let server = fake.serve().await.to_string();
    let words = ["informerd"]
        .into_iter()
        .chain(line.split_whitespace())
        .chain(["--server", &server]);
    let command = <Line as clap::Parser>::try_parse_from(words)
        .expect("parses")
        .command;
    let (mut out, mut err) = (Paper::default(), Paper::default());
    let done = run(
        command,
        &mut Output {
            out: &mut out,
            err: &mut err,
            now,
        },
    )
    .await;
    (
        Printed {
            out: out.text(),
            err: err.text(),
            done,
        },
        fake,
    )
}

pub(super) fn kind(resource: &str, kind: &str, namespaced: bool, alias: &str) -> KindStatus {
    let api_version = if resource.contains('.') {
        "apps/v1"
    } else {
        "v1"
    };
    KindStatus {
        resource: resource.into(),
        kind: kind.into(),
        api_version: api_version.into(),
        namespaced,
        aliases: vec![alias.into()],
        freshness: Some(live()),
        ..KindStatus::default()
    }
}

pub(super) fn kinds() -> Vec<KindStatus> {
    vec![
        kind("pods", "Pod", true, "po"),
        kind("nodes", "Node", false, "no"),
    ]
}

fn pod(namespace: &str, name: &str, version: u64, phase: &str) -> Object {
    let json = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": name,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": { "containers": [{ "name": "c", "args": ["yes", "a\nb\n"] }], "priority": 0 },
        "status": { "phase": phase },
    });
    Object {
        namespace: namespace.into(),
        name: name.into(),
        uid: name.into(),
        resource_version: version.to_string(),
        object: json.to_string().into(),
        stale: false,
    }
}

fn list(objects: Vec<Object>, freshness: Freshness) -> Vec<ListObjectsResponse> {
    let count = objects.len() as u64;
    let end = ListEnd {
        token: "t1".into(),
        freshness: Some(freshness),
        count,
    };
    vec![
        ListObjectsResponse { objects, end: None },
        ListObjectsResponse {
            objects: Vec::new(),
            end: Some(end),
        },
    ]
}

fn script(objects: Vec<Object>) -> Script {
    Script {
        kinds: kinds(),
        list: list(objects, live()),
        ..Script::default()
    }
}

#[tokio::test]
async fn a_list_is_a_table() {
    let pods = vec![
        pod("a", "web-0", 1, "Running"),
        pod("bc", "db", 2, "Pending"),
    ];
    let (printed, fake) = print(script(pods.clone()), "get po -A").await;
    printed.done.expect("works");
    assert_eq!(
        printed.out,
        "NAMESPACE   NAME    READY   STATUS    RESTARTS   AGE\n\
         a           web-0   0/1     Running   0          5m\n\
         bc          db      0/1     Pending   0          5m\n"
    );
    assert_eq!(printed.err, "");
    let asked = fake.script.lock().expect("not poisoned").asked_list[0]
        .scope
        .clone();
    assert_eq!(asked.expect("is set").resource, "pods");

    let (printed, _) = print(script(pods[..1].to_vec()), "get pods -n a -o wide").await;
    assert_eq!(
        printed.out,
        "NAME    READY   STATUS    RESTARTS   AGE   IP       NODE     NOMINATED NODE   READINESS GATES\n\
         web-0   0/1     Running   0          5m    <none>   <none>   <none>           <none>\n"
    );
}

#[tokio::test]
async fn nothing_found_is_said_beside_the_output() {
    let (printed, _) = print(script(vec![]), "get pods").await;
    assert_eq!(printed.out, "");
    assert_eq!(printed.err, "No resources found in default namespace.\n");
    for line in ["get pods -A", "get pods -A -o name"] {
        let (printed, _) = print(script(vec![]), line).await;
        assert_eq!(printed.err, "No resources found\n");
    }
    let (printed, _) = print(script(vec![]), "get pods -A -o json").await;
    assert!(printed.out.contains("\"items\": []"), "{}", printed.out);
    assert_eq!(printed.err, "");
}

#[tokio::test]
async fn one_object_that_is_not_there_fails_with_where_it_was_sought() {
    let details = ErrorDetails::with_error_info("OBJECT_NOT_FOUND", "informerd", []);
    let status = Status::with_error_details(Code::NotFound, "no such object", details);
    let not_there = || Script {
        get: Some(Err(status.clone())),
        ..script(vec![])
    };
    let (printed, fake) = print(not_there(), "get pods x").await;
    let error = printed.done.expect_err("not found");
    assert_eq!(
        error.to_string(),
        "pods \"x\" not found in namespace \"default\""
    );
    let asked = fake.script.lock().expect("not poisoned").asked_get[0]
        .scope
        .clone();
    let asked = asked.expect("is set");
    assert_eq!(
        (asked.name.as_str(), &asked.namespaces[..]),
        ("x", &["default".to_owned()][..])
    );
    let (printed, _) = print(not_there(), "get no/x").await;
    assert_eq!(
        printed.done.expect_err("not found").to_string(),
        "nodes \"x\" not found"
    );
}

#[tokio::test]
async fn one_object_is_printed_as_itself_and_several_as_a_list() {
    let object = pod("default", "web-0", 1, "Running");
    let reply = GetObjectResponse {
        object: Some(object.clone()),
        freshness: Some(live()),
    };
    let one = Script {
        get: Some(Ok(reply)),
        ..script(vec![])
    };
    let (printed, _) = print(one, "get pods web-0 -o yaml").await;
    let body = "apiVersion: v1\nkind: Pod\nmetadata:\n  creationTimestamp: \"2026-01-01T00:00:00Z\"\n  \
        name: web-0\n  namespace: default\n  uid: web-0\nspec:\n  containers:\n  - args:\n    \
        - \"yes\"\n    - |\n      a\n      b\n    name: c\n  priority: 0\nstatus:\n  phase: Running\n";
    // Either quotation mark is YAML.
    assert_eq!(printed.out.replace('\'', "\""), body);

    let (printed, _) = print(script(vec![object.clone()]), "get pods -o yaml").await;
    assert!(
        printed
            .out
            .starts_with("apiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Pod\n")
    );
    assert!(
        printed
            .out
            .replace('\'', "\"")
            .ends_with("kind: List\nmetadata:\n  resourceVersion: \"\"\n")
    );

    let (printed, _) = print(script(vec![object]), "get pods -o json").await;
    assert!(printed.out.starts_with(
        "{\n    \"apiVersion\": \"v1\",\n    \"items\": [\n        {\n            \"apiVersion\": \"v1\","
    ));
    let value: serde_json::Value = serde_json::from_str(&printed.out).expect("is JSON");
    assert_eq!(
        value["items"][0]["spec"]["containers"][0]["args"][1],
        "a\nb\n"
    );
}

#[tokio::test]
async fn names_say_the_kind_and_its_group_and_ask_for_no_content() {
    let objects = vec![pod("default", "web-0", 1, "Running")];
    let (printed, fake) = print(script(objects.clone()), "get pods -o name").await;
    assert_eq!(printed.out, "pod/web-0\n");
    assert_eq!(
        fake.script.lock().expect("not poisoned").asked_list[0].view(),
        View::Keys
    );
    let mut script = script(objects);
    script.kinds = vec![kind("deployments.apps", "Deployment", true, "deploy")];
    let (printed, _) = print(script, "get deploy -o name").await;
    assert_eq!(printed.out, "deployment.apps/web-0\n");
}

#[tokio::test]
async fn where_only_metadata_is_cached_that_is_asked_for_and_shown() {
    let note = "note: pods: only metadata is cached, as the daemon's config says\n";
    let only = |script| Script {
        metadata_only: true,
        ..script
    };
    let objects = vec![pod("default", "web-0", 1, "Running")];
    let (printed, fake) = print(only(script(objects.clone())), "get pods").await;
    assert_eq!(printed.out, "NAME    AGE\nweb-0   5m\n");
    assert_eq!(printed.err, note);
    let asked = fake.script.lock().expect("not poisoned").asked_list.clone();
    assert_eq!((asked.len(), asked[0].view()), (1, View::Metadata));
    let (printed, _) = print(only(script(objects)), "get pods -o name").await;
    assert_eq!(
        (printed.out.as_str(), printed.err.as_str()),
        ("pod/web-0\n", "")
    );

    let (printed, _) = print(only(watched()), "watch pods").await;
    assert!(
        printed
            .out
            .starts_with("NAME    AGE\ndb      5m\nweb-0   5m\n"),
        "{}",
        printed.out
    );
    assert!(printed.err.starts_with(note), "{}", printed.err);
}

#[tokio::test]
async fn an_old_or_pruned_answer_says_so() {
    let freshness = Freshness {
        state: KindState::BackingOff.into(),
        reason: "ConnectionRefused".into(),
        age: Some(prost_types::Duration {
            seconds: 200,
            nanos: 0,
        }),
        pruned: true,
        ..Freshness::default()
    };
    let script = || Script {
        kinds: kinds(),
        list: list(vec![pod("default", "x", 1, "Running")], freshness.clone()),
        ..Script::default()
    };
    let warning = "warning: pods: BACKING_OFF: ConnectionRefused (served from cache, age 3m20s)\n";
    let (printed, _) = print(script(), "get pods").await;
    assert_eq!(printed.err, warning);
    let (printed, _) = print(script(), "get pods -o json").await;
    assert_eq!(printed.err, format!("{warning}{}\n", note::PRUNED));
}

/// An initial state, a change, a cut, and what came meanwhile; then the right to watch is lost.
fn watched() -> Script {
    let refused = Status::permission_denied("no longer allowed");
    let first = vec![
        mark(MarkType::Reset, ""),
        events([
            upsert(pod("default", "db", 1, "Running")),
            upsert(pod("default", "web-0", 2, "Pending")),
        ]),
        mark(MarkType::ResetEnd, "t2"),
        events([upsert(pod("default", "web-0", 3, "Running"))]),
        mark(MarkType::Progress, "t3"),
    ];
    let second = vec![
        events([delete("default", "db", "db", 4)]),
        mark(MarkType::Progress, "t4"),
    ];
    let watches = [(first, End::Close), (second, End::Fail(refused))].into();
    Script {
        kinds: kinds(),
        watches,
        ..Script::default()
    }
}

#[tokio::test]
async fn a_watch_asks_for_the_changes_that_it_is_told_to() {
    let line = "watch pods --changes visible --min-interval 1m500ms -o json --fields .status.phase";
    let (_, fake) = print(watched(), line).await;
    let asked = fake.watches_asked()[0].clone();
    assert_eq!(asked.delivery(), Delivery::Latest);
    assert_eq!(asked.changes(), Changes::Visible);
    let rest = asked.min_interval.expect("is set");
    assert_eq!((rest.seconds, rest.nanos), (60, 500_000_000));
    assert_eq!(asked.fields, [".status.phase"]);

    let (_, fake) = print(watched(), "watch pods --every --changes generation").await;
    let asked = fake.watches_asked()[0].clone();
    assert_eq!(asked.delivery(), Delivery::Every);
    assert_eq!(asked.changes(), Changes::Generation);
    assert_eq!(
        (asked.min_interval, asked.on_gap()),
        (None, OnGap::Unspecified)
    );

    let (_, fake) = print(watched(), "watch pods").await;
    assert_eq!(fake.watches_asked()[0].changes(), Changes::All);
    let both = [
        "informerd",
        "watch",
        "pods",
        "--every",
        "--min-interval",
        "5s",
    ];
    let parsed = <Line as clap::Parser>::try_parse_from(both);
    assert!(parsed.is_err(), "each change, and not each");
}

#[tokio::test]
async fn a_watch_of_each_change_ends_where_one_cannot_be_had() {
    for reason in ["HISTORY_GAP", "PAST_JOURNAL"] {
        let details = ErrorDetails::with_error_info(reason, "informerd", []);
        let gap = Status::with_error_details(Code::OutOfRange, "begin again", details);
        let mut end = mark(MarkType::End, "t3");
        end.mark.as_mut().expect("a mark").reason = reason.into();
        let messages = vec![
            mark(MarkType::Reset, ""),
            mark(MarkType::ResetEnd, "t2"),
            events([upsert(pod("default", "web-0", 3, "Running"))]),
            mark(MarkType::Progress, "t3"),
            end,
        ];
        let script = Script {
            kinds: kinds(),
            watches: [(messages, End::Fail(gap))].into(),
            ..Script::default()
        };
        let (printed, _) = print(script, "watch pods --every -o name").await;
        assert_eq!(printed.out, "pod/web-0\n", "all before it is told");
        let error = printed.done.expect_err("one is missing").to_string();
        let said = format!("not each change of pods can be told any more ({reason}): ");
        assert!(error.starts_with(&said), "{error}");
    }
}

#[tokio::test]
async fn a_watch_prints_the_initial_state_and_what_changes() {
    let (printed, fake) = print(watched(), "watch pods --output-watch-events").await;
    assert_eq!(
        printed.done.expect_err("for good").to_string(),
        "no longer allowed"
    );
    assert_eq!(
        printed.out,
        "EVENT      NAME    READY   STATUS    RESTARTS   AGE\n\
         ADDED      db      0/1     Running   0          5m\n\
         ADDED      web-0   0/1     Pending   0          5m\n\
         MODIFIED   web-0   0/1     Running   0          5m\n\
         DELETED    db      0/1     Running   0          5m\n"
            .replace("EVENT      ", "EVENT   ")
            .replace("ADDED      ", "ADDED   ")
    );
    let why = "note: pods: informerd's answer ended too early: the watch was closed without a word";
    assert_eq!(
        printed.err,
        format!("{why}; trying again in 0.1s\nnote: pods: watching again\n")
    );
    let tokens: Vec<_> = fake
        .watches_asked()
        .into_iter()
        .map(|it| it.token)
        .collect();
    assert_eq!(tokens, ["", "t3"]);
}

#[tokio::test]
async fn a_watch_may_leave_the_initial_state_out() {
    for flag in ["--watch-only", "--only"] {
        let (printed, _) = print(watched(), &format!("watch po -o name {flag}")).await;
        assert_eq!(printed.out, "pod/web-0\npod/db\n");
    }
}

#[tokio::test]
async fn a_watch_as_json_is_one_event_a_line() {
    let (printed, _) = print(watched(), "watch pods -o json").await;
    let lines: Vec<serde_json::Value> = printed
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("is JSON"))
        .collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            let text = |value: &serde_json::Value| value.as_str().expect("is text").to_owned();
            (
                text(&line["type"]),
                text(&line["object"]["metadata"]["name"]),
            )
        })
        .collect();
    let expected = [
        ("ADDED", "db"),
        ("ADDED", "web-0"),
        ("MODIFIED", "web-0"),
        ("DELETED", "db"),
    ];
    assert_eq!(
        told,
        expected.map(|(event, name)| (event.into(), name.into()))
    );
}

#[tokio::test]
async fn kinds_are_a_table() {
    let mut pods = kind("pods", "Pod", true, "po");
    pods.objects = 5000;
    pods.watches_opened = 2;
    pods.consumers = 50;
    pods.relists = [("initial".into(), 1), ("expired".into(), 2)].into();
    let position = |namespace: &str, revision| ShardPosition {
        namespace: namespace.into(),
        revision,
        ..ShardPosition::default()
    };
    let freshness = pods.freshness.as_mut().expect("is set");
    freshness.positions = vec![position("", 1234)];
    freshness.age = Some(prost_types::Duration {
        seconds: 3,
        nanos: 0,
    });
    let mut events = kind("events", "Event", true, "ev");
    events.freshness = Some(Freshness {
        positions: vec![position("a", 1), position("b", 2)],
        age: Some(prost_types::Duration {
            seconds: 150,
            nanos: 0,
        }),
        age_unproven: true,
        state: KindState::Forbidden.into(),
        reason: "Forbidden".into(),
        message: "may not list events".into(),
        ..Freshness::default()
    });
    let foos = KindStatus {
        resource: "foos.x.test".into(),
        ..KindStatus::default()
    };
    let script = Script {
        kinds: vec![pods, events, foos],
        ..Script::default()
    };
    let (printed, _) = print(script, "kinds").await;
    assert_eq!(
        printed.out,
        "\
RESOURCE      STATE         OBJECTS   REVISION   AGE                WATCHES   RELISTS               CONSUMERS   WHY
pods          LIVE          5000      1234       3s                 2         expired=2,initial=1   50          
events        FORBIDDEN     0         a=1,b=2    2m30s (unproven)   0         0                     0           Forbidden: may not list events
foos.x.test   UNSPECIFIED   0         <none>     <unknown>          0         0                     0           
"
    );
}

#[tokio::test]
async fn consumers_are_a_table() {
    let consumer = Consumer {
        id: 7,
        peer: "127.0.0.1:5".into(),
        user_agent: "x/1".into(),
        method: "WatchObjects".into(),
        scope: Some(Scope {
            resource: "pods".into(),
            namespaces: vec!["a".into()],
            label_selector: "app=web".into(),
            ..Scope::default()
        }),
        since: Some(prost_types::Timestamp {
            seconds: now().as_second() - 90,
            nanos: 0,
        }),
        events_sent: 12,
        bytes_sent: 3456,
        position: "head".into(),
        ..Consumer::default()
    };
    let script = Script {
        consumers: vec![
            Consumer {
                clipped: true,
                ..consumer.clone()
            },
            consumer,
        ],
        ..Script::default()
    };
    let (printed, _) = print(script, "consumers").await;
    assert_eq!(
        printed.out,
        "\
ID    PEER          METHOD         SCOPE                         VIEW   POSITION   LAG   STALLED   EVENTS   BYTES   RESETS   AGE   USER-AGENT
7     127.0.0.1:5   WatchObjects   pods in a where app=web ...   full   head       0     <none>    12       3456    0        90s   x/1
7     127.0.0.1:5   WatchObjects   pods in a where app=web       full   head       0     <none>    12       3456    0        90s   x/1
"
    );
    let (printed, _) = print(Script::default(), "consumers pods").await;
    assert_eq!(
        (printed.out.as_str(), printed.err.as_str()),
        ("", "No consumers\n")
    );
}

#[tokio::test]
async fn mistakes_in_the_arguments_are_told_apart_from_failures() {
    let (printed, _) = print(script(vec![]), "get pods x -l a=b").await;
    assert!(matches!(printed.done, Err(Error::Usage(_))));
    let (printed, _) = print(script(vec![]), "get pods --fields .spec").await;
    let error = printed.done.expect_err("needs whole objects");
    assert_eq!(
        error.to_string(),
        "--fields needs whole objects: add -o json or -o yaml"
    );
    assert_eq!(error.exit_code(), ExitCode::from(2));
}

#[tokio::test]
async fn a_reader_that_has_gone_is_no_failure() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for format in ["table", "json", "yaml", "name"] {
        let fake = Fake::new(script(vec![pod("default", "x", 1, "Running")]));
        let server = fake.serve().await.to_string();
        let words = [
            "informerd",
            "get",
            "pods",
            "-o",
            format,
            "--server",
            &server,
        ];
        let command = <Line as clap::Parser>::try_parse_from(words)
            .expect("parses")
            .command;
        let done = run(
            command,
            &mut Output {
                out: &mut Gone,
                err: &mut io::sink(),
                now,
            },
        )
        .await;
        done.expect(format);
    }
}
