//! The sandbox, from outside: a daemon over it, as over an API server, which needs no Go; strangers that keep what is
//! in it; kubectl, as people use it; and the demo as a process.

use std::{process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
    time::timeout,
};

use crate::{
    cluster::{self, Churn, ChurnOptions, Daemon, DirectWatch, Proxy, Sandbox, informers},
    storm::Storm,
    support::{connect, informerd, kind, pods, seed, text, within},
    validators::{Recorder, Reference, check_all, watch_request},
};

mod kubectl;
mod protobuf;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_follows_a_sandbox_as_it_follows_an_api_server() {
    let sandbox = Sandbox::start(&["--still"]).await.unwrap();
    let proxy = Proxy::start(sandbox.address()).await.unwrap();
    let client = cluster::client(&sandbox.kubeconfig()).await.unwrap();
    let direct = DirectWatch::start(&client, &pods(), None, None)
        .await
        .unwrap();
    let options = ChurnOptions {
        seed: seed(),
        rate: 100,
        ..ChurnOptions::default()
    };
    let churn = Churn::start(client, options).await.unwrap();
    let kubeconfig =
        cluster::rerouted(&sandbox.kubeconfig(), sandbox.address(), proxy.address()).unwrap();
    let daemon = Daemon::start("kinds: [pods, cats.example.com]", &kubeconfig).await;
    let recorder = Recorder::start(daemon.server(), watch_request("pods"), None);
    for _ in 0..2 {
        let before = direct.seen().len();
        within(Duration::from_secs(30), "100 changes", || async {
            direct.seen().len() >= before + 100
        })
        .await;
        proxy.cut_all();
    }
    let before = direct.seen().len();
    within(
        Duration::from_secs(30),
        "100 changes after the cuts",
        || async { direct.seen().len() >= before + 100 },
    )
    .await;
    let (writes, failures) = churn.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    let last = &writes.last().unwrap().resource_version;
    assert!(direct.wait_for(last, Duration::from_secs(10)).await);
    let recording = recorder.reach(last.parse().unwrap()).await;
    let reference = Reference::new(&direct.seen(), |_| true);
    check_all(&recording, &reference, &[]).unwrap();
    let status = kind(&connect(&daemon), "pods").await.unwrap();
    assert_eq!(
        status.relists,
        [("initial".into(), 1)].into(),
        "a cut needs no list"
    );
    assert_eq!((status.digest_mismatches, status.undecodable), (0, 0));
    assert!(status.watches_opened > 1, "the proxy cuts");
}

async fn storm(sandbox: &Sandbox) -> Storm {
    let kubeconfig = sandbox.kubeconfig();
    let client = cluster::client(&kubeconfig).await.unwrap();
    Storm::begin(client, &kubeconfig, sandbox.address()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rs_holds_the_same_state_through_cuts_of_a_sandbox() {
    let sandbox = Sandbox::start(&["--still"]).await.unwrap();
    storm(&sandbox).await.kube_rs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_go_and_controller_runtime_hold_the_same_state_through_cuts_of_a_sandbox() {
    if !cluster::has_go_for("client-go against a sandbox") {
        return;
    }
    informers().await.unwrap();
    let sandbox = Sandbox::start(&["--still"]).await.unwrap();
    storm(&sandbox).await.client_go().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_judges_the_world_of_a_sandbox() {
    let sandbox = Sandbox::start(&["--rate", "0", "--pods", "18"])
        .await
        .unwrap();
    let config = "controllers: [node, service, workload]
kinds: [pods, nodes, services, endpointslices.discovery.k8s.io, deployments.apps, replicasets.apps]";
    let daemon = Daemon::start(config, &sandbox.kubeconfig()).await;
    let server = daemon.server().to_string();
    let targets = ["deployment/web", "service/web"];
    let mut args = vec![
        "wait",
        "--server",
        &server,
        "-n",
        "shop",
        "--timeout",
        "60s",
    ];
    args.extend(targets);
    let output = informerd(&args).await;
    assert!(output.status.success(), "{:?}", text(&output));
}

#[tokio::test]
async fn a_sandbox_says_what_it_is_and_listens_on_loopback_only() {
    let sandbox = Sandbox::start(&["--still"]).await.unwrap();
    let log = sandbox.log();
    let first = log.lines().next().unwrap_or_default();
    assert!(
        first.starts_with("This is a sandbox, for trying out and testing: no credentials"),
        "{first}"
    );
    let output = informerd(&["sandbox", "--listen", "0.0.0.0:0"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).1.contains("must be a loopback address"),
        "{:?}",
        text(&output)
    );
}

#[tokio::test]
async fn a_demo_ends_by_itself_and_all_have_agreed() {
    let demo = informerd(&["demo", "--for", "8s", "--rate", "5", "--consumers", "8"]);
    let output = timeout(Duration::from_secs(120), demo)
        .await
        .expect("it ends by itself");
    let (out, err) = text(&output);
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    for said in [
        "Try in another terminal:",
        " watches, never two of one kind; ",
        "consumers  8 over gRPC",
        "and 8 consumers' copies: all the same as the API server's",
    ] {
        assert!(out.contains(said), "{said:?} is missing:\n{out}");
    }
    assert!(
        !out.contains('\x1b'),
        "plain lines where there is no terminal"
    );
}

#[tokio::test]
async fn a_demo_in_which_something_is_broken_says_what_and_fails() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_informerd"));
    demo.args(["demo", "--for", "60s", "--rate", "0", "--consumers", "2"]);
    demo.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut demo = demo.kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut address = None;
    let going_on = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some(rest) = line.strip_prefix("API server    http://") {
                address = rest.split(',').next().map(str::to_owned);
            }
            if line.contains(" 2 consumers, ") {
                return;
            }
        }
        panic!("it ends");
    };
    timeout(Duration::from_secs(60), going_on).await.unwrap();
    // Somebody who says that he is the daemon watches what the daemon watches.
    let mut second = TcpStream::connect(address.unwrap()).await.unwrap();
    let watch =
        "GET /api/v1/pods?watch=1 HTTP/1.1\r\nHost: localhost\r\nUser-Agent: informerd/2\r\n\r\n";
    second.write_all(watch.as_bytes()).await.unwrap();
    let rest = async {
        let mut said = String::new();
        let mut err = demo.stderr.take().unwrap();
        err.read_to_string(&mut said).await.unwrap();
        // Its last words are not to be held up.
        while lines.next_line().await.unwrap().is_some() {}
        (said, demo.wait().await.unwrap())
    };
    let (said, status) = timeout(Duration::from_secs(30), rest).await.unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("pods is watched 2 times upstream"), "{said}");
}
