//! What goes wrong between the daemon and the API server, each on a cluster of its own and through a proxy: the
//! consumers' streams live on and stay right.

use std::{path::PathBuf, time::Duration};

use informerd::proto::{DeleteCause, Event, GetObjectRequest, KindState, MarkType};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    cluster::{
        self, Authority, Churn, ChurnOptions, Cluster, Credential, Daemon, DirectWatch, Proxy,
        Seen, fill_pods, get, token,
    },
    support::{
        connect, eventually, is, kind, pods, relists, scope, seed, succeeded, with_user, within,
    },
    validators::{Recorder, Recording, Reference, check_all, complete, watch_request},
};

/// As informerd names itself to the API server.
const AGENT: &str = "informerd/";

/// A cluster, and a proxy before it that a daemon is to use.
struct Proxied {
    cluster: Cluster,
    proxy: Proxy,
    kubeconfig: PathBuf,
}

impl Proxied {
    async fn start() -> Option<Self> {
        let cluster = cluster::private().await?;
        let proxy = Proxy::start(cluster.address()).await.unwrap();
        let kubeconfig = cluster.kubeconfig_for("proxied", Credential::Admin, proxy.address());
        let kubeconfig = kubeconfig.unwrap();
        Some(Self {
            cluster,
            proxy,
            kubeconfig,
        })
    }

    async fn churn(&self, rate: u32) -> Churn {
        let options = ChurnOptions {
            seed: seed(),
            names: 20,
            rate,
            ..ChurnOptions::default()
        };
        Churn::start(self.cluster.client().await, options)
            .await
            .unwrap()
    }

    async fn direct(&self) -> DirectWatch {
        let client = self.cluster.client().await;
        DirectWatch::start(&client, &pods(), None, None)
            .await
            .unwrap()
    }
}

/// Stops the churn, and returns the revision of its last write once the direct watch has seen that.
async fn settle(churn: Churn, direct: &DirectWatch) -> u64 {
    let (writes, failures) = churn.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    let version = &writes.last().expect("it has written").resource_version;
    assert!(direct.wait_for(version, Duration::from_secs(10)).await);
    version.parse().unwrap()
}

/// A consumer that is never cut, and one that is.
fn two(daemon: &Daemon) -> [Recorder; 2] {
    [None, Some(seed())].map(|cuts| Recorder::start(daemon.server(), watch_request("pods"), cuts))
}

fn assert_sound(recordings: &[Recording], seen: &[Seen]) {
    let reference = Reference::new(seen, |_| true);
    for recording in recordings {
        check_all(recording, &reference, &[]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_is_gone_costs_one_list_and_consumers_see_a_difference() {
    let Some(mut proxied) = Proxied::start().await else {
        return;
    };
    let direct = proxied.direct().await;
    let churn = proxied.churn(80).await;
    // One that is there before, and not after.
    let victim = ["victim", "-n", "churn"];
    let image = ["--image=registry.invalid/main:1"];
    let cluster = &proxied.cluster;
    cluster
        .kubectl_ok(&[&["run"], &victim[..], &image[..]].concat())
        .await;
    let daemon = Daemon::start("kinds: [pods]", &proxied.kubeconfig).await;
    let client = connect(&daemon);
    let recorders = two(&daemon);
    eventually("100 changes are seen", || async {
        direct.seen().len() >= 100
    })
    .await;

    // While the daemon is away, more happens than it will ever be told.
    proxied.proxy.refuse(true).await.unwrap();
    proxied.proxy.cut_all();
    eventually("it notices", || is(&client, "pods", KindState::BackingOff)).await;
    let before = direct.seen().len();
    eventually("100 changes are missed", || async {
        direct.seen().len() >= before + 100
    })
    .await;
    let delete = ["delete", "pod", "--force"];
    cluster
        .kubectl_ok(&[&delete[..], &victim[..]].concat())
        .await;
    let missed = settle(churn, &direct).await;
    proxied.cluster.compact().await.unwrap();
    proxied.cluster.restart_apiserver().await.unwrap();
    let after = proxied.direct().await;
    proxied.proxy.refuse(false).await.unwrap();
    within(Duration::from_secs(60), "it is live again", || {
        is(&client, "pods", KindState::Live)
    })
    .await;
    for recorder in &recorders {
        recorder.reach(missed).await;
    }

    // And goes on from there.
    let churn = proxied.churn(80).await;
    eventually("50 more changes are seen", || async {
        after.seen().len() >= 50
    })
    .await;
    let last = settle(churn, &after).await;
    let seen = [direct.seen(), after.seen()].concat();
    let mut recordings = Vec::new();
    for recorder in &recorders {
        recordings.push(recorder.reach(last).await);
    }
    assert_sound(&recordings, &seen);
    assert_eq!(relists(&client, "pods", "expired").await, 1);
    let vanished = |event: &&Event| event.cause() == DeleteCause::Vanished;
    let mut vanished = recordings[0].events().filter(vanished);
    assert!(
        vanished.any(|event| event.name == "victim"),
        "its end is told"
    );
    assert_eq!(recordings[0].closes().count(), 0, "no stream was broken");
    let states: Vec<_> = recordings[0].marks(MarkType::State).collect();
    let told = |state| {
        states.iter().any(|mark| {
            mark.freshness
                .as_ref()
                .is_some_and(|it| it.state() == state)
        })
    };
    assert!(
        told(KindState::BackingOff) && told(KindState::Live),
        "{states:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_api_server_breaks_no_stream() {
    let Some(mut proxied) = Proxied::start().await else {
        return;
    };
    let direct = proxied.direct().await;
    let churn = proxied.churn(60).await;
    let daemon = Daemon::start("kinds: [pods]", &proxied.kubeconfig).await;
    let client = connect(&daemon);
    let recorders = two(&daemon);
    eventually("60 changes are seen", || async {
        direct.seen().len() >= 60
    })
    .await;
    let before = settle(churn, &direct).await;
    for recorder in &recorders {
        recorder.reach(before).await;
    }
    proxied.cluster.restart_apiserver().await.unwrap();
    let churn = proxied.churn(60).await;
    let now = direct.seen().len();
    eventually("60 more changes are seen", || async {
        direct.seen().len() >= now + 60
    })
    .await;
    let last = settle(churn, &direct).await;
    let mut recordings = Vec::new();
    for recorder in &recorders {
        recordings.push(recorder.reach(last).await);
    }
    assert_sound(&recordings, &direct.seen());
    assert_eq!(recordings[0].closes().count(), 0, "no stream was broken");
    let status = kind(&client, "pods").await.unwrap();
    assert_eq!(
        status.relists,
        [("initial".into(), 1)].into(),
        "nothing was lost: no list is needed"
    );
    let reference = Reference::new(&direct.seen(), |_| true);
    assert!(complete(&recordings[0], &reference).unwrap() > 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_is_found_by_its_silence() {
    let Some(proxied) = Proxied::start().await else {
        return;
    };
    let direct = proxied.direct().await;
    // Something all the time, so that three seconds of silence are a fault.
    let churn = proxied.churn(10).await;
    let config = "upstream: {bookmarkPatience: 3s, requestTimeout: 3s, connectTimeout: 3s}\nkinds: [{resource: pods, list: paged}]";
    let daemon = Daemon::start(config, &proxied.kubeconfig).await;
    let client = connect(&daemon);
    let recorders = two(&daemon);
    // A kind must have sent a bookmark before their absence means anything; the first comes after a minute.
    within(Duration::from_secs(90), "a bookmark has come", || async {
        let series = r#"informerd_source_events_total{kind="pods",type="bookmark"}"#;
        daemon.metric(series).await > Some(0.0)
    })
    .await;
    proxied.proxy.mute(true);
    within(Duration::from_secs(15), "it notices", || {
        is(&client, "pods", KindState::BackingOff)
    })
    .await;
    let status = kind(&client, "pods").await.unwrap().freshness.unwrap();
    assert!(status.age.is_some_and(|age| age.seconds >= 2), "{status:?}");
    proxied.proxy.mute(false);
    within(Duration::from_secs(60), "it is live again", || {
        is(&client, "pods", KindState::Live)
    })
    .await;
    let last = settle(churn, &direct).await;
    let mut recordings = Vec::new();
    for recorder in &recorders {
        recordings.push(recorder.reach(last).await);
    }
    assert_sound(&recordings, &direct.seen());
    assert_eq!(recordings[0].closes().count(), 0, "no stream was broken");
    assert_eq!(relists(&client, "pods", "expired").await, 0);
}

/// Neither in pages nor as a stream is a part of a list ever shown.
async fn a_cut_list_is_never_shown(list: &str) {
    const PODS: usize = 400;
    let Some(proxied) = Proxied::start().await else {
        return;
    };
    fill_pods(&proxied.cluster, PODS).await.unwrap();
    // A pod takes about 2 KB on this wire: a list ends in its first half, always.
    proxied.proxy.cut_after(Some(300_000));
    let config = format!("kinds: [{{resource: pods, pageSize: 50, list: {list}}}]");
    let mut daemon = Daemon::spawn(&config, &proxied.kubeconfig);
    let client = connect(&daemon);
    within(Duration::from_secs(30), "a list was cut", || {
        is(&client, "pods", KindState::BackingOff)
    })
    .await;
    let recorder = Recorder::start(daemon.server(), watch_request("pods"), None);
    let accepted = proxied.proxy.accepted();
    within(Duration::from_secs(30), "more lists were cut", || async {
        proxied.proxy.accepted() >= accepted + 3
    })
    .await;

    let status = kind(&client, "pods").await.unwrap();
    assert_eq!(
        (status.objects, status.freshness.unwrap().positions.len()),
        (0, 0)
    );
    let (code, body) = get(&daemon.admin_url("/readyz")).await.unwrap();
    assert_eq!(code, 503);
    assert!(
        body.contains("pods") && body.contains("not listed yet"),
        "{body}"
    );
    assert_eq!(get(&daemon.admin_url("/livez")).await.unwrap().0, 200);
    let early = recorder.recording();
    assert_eq!(
        (
            early.events().count(),
            early.resets().len(),
            early.reached()
        ),
        (0, 0, 0)
    );
    assert!(
        early.marks(MarkType::State).count() > 0,
        "but the consumer is told why it waits"
    );

    proxied.proxy.cut_after(None);
    daemon.wait_ready(Duration::from_secs(60)).await;
    let recording = recorder
        .wait("the whole state", Duration::from_secs(30), |recording| {
            recording.reached() > 0
        })
        .await;
    assert_eq!(recording.last_state().unwrap().1.len(), PODS);
    assert_eq!(recording.events().count(), PODS);
    assert_eq!(
        relists(&client, "pods", "initial").await,
        1,
        "one need, however often it is tried"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paged_list_that_is_cut_is_never_shown() {
    a_cut_list_is_never_shown("paged").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_list_that_is_cut_is_never_shown() {
    a_cut_list_is_never_shown("watchlist").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_that_is_forbidden_names_the_permission_and_starts_when_it_is_granted() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let grant = async |name: &str, resource: &str| {
        let flags = ["--verb=get,list,watch", &format!("--resource={resource}")];
        cluster
            .kubectl_ok(&["create", "clusterrole", name, flags[0], flags[1]])
            .await;
        let flags = [&format!("--clusterrole={name}"), "--user=informerd"];
        cluster
            .kubectl_ok(&["create", "clusterrolebinding", name, flags[0], flags[1]])
            .await;
    };
    grant("reads-pods", "pods").await;
    let kubeconfig = cluster.kubeconfig_for(
        "informerd",
        Credential::User("informerd"),
        cluster.address(),
    );
    let mut daemon = Daemon::spawn("kinds: [pods, configmaps]", &kubeconfig.unwrap());
    let client = connect(&daemon);
    eventually("pods are live", || is(&client, "pods", KindState::Live)).await;
    eventually("configmaps are forbidden", || {
        is(&client, "configmaps", KindState::Forbidden)
    })
    .await;

    let kinds = succeeded(&daemon.cli(&["kinds"]).await);
    let line = kinds
        .lines()
        .find(|line| line.contains("configmaps"))
        .expect("the kind is shown");
    assert!(line.contains("FORBIDDEN"), "{line}");
    assert!(
        line.contains("User \"informerd\" cannot watch resource \"configmaps\""),
        "{line}"
    );
    let (code, body) = get(&daemon.admin_url("/readyz")).await.unwrap();
    assert_eq!(code, 503);
    assert!(
        body.contains("configmaps") && !body.contains("[-]kind/pods"),
        "{body}"
    );
    let request = GetObjectRequest {
        scope: Some(informerd::proto::Scope {
            name: "kube-root-ca.crt".into(),
            ..scope("configmaps", &["default"])
        }),
        ..GetObjectRequest::default()
    };
    // What is refused does not hold up the others.
    let pods = client.list(informerd::proto::ListObjectsRequest {
        scope: Some(scope("pods", &[])),
        ..Default::default()
    });
    assert_eq!(pods.await.unwrap().objects.len(), 0);

    grant("reads-configmaps", "configmaps").await;
    // It is tried again at least once a minute.
    daemon.wait_ready(Duration::from_secs(90)).await;
    assert!(is(&client, "configmaps", KindState::Live).await);
    let missing = client
        .get(request)
        .await
        .expect_err("there is no controller to make it");
    assert_eq!(missing.reason(), "OBJECT_NOT_FOUND");
}

/// Changes a pod by its label, and waits until the consumer has that.
async fn touch(cluster: &Cluster, recorder: &Recorder, value: &str) {
    let api: Api<Pod> = Api::namespaced(cluster.client().await, "fill-0");
    let patch = json!({ "metadata": { "labels": { "touched": value } } });
    let patched = api
        .patch("pod-00000", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    let version = patched.metadata.resource_version.unwrap();
    recorder.reach(version.parse().unwrap()).await;
}

/// Starts a daemon as one user, makes it another by `rotate`, and sees who watches and what the consumers notice.
async fn rotated(
    cluster: &Cluster,
    kubeconfig: PathBuf,
    users: [&str; 2],
    rotate: impl AsyncFnOnce(),
) {
    fill_pods(cluster, 1).await.unwrap();
    for user in users {
        let flags = ["--clusterrole=cluster-admin", &format!("--user={user}")];
        cluster
            .kubectl_ok(&["create", "clusterrolebinding", user, flags[0], flags[1]])
            .await;
    }
    let daemon = Daemon::start(
        "upstream: {reloadInterval: 500ms}\nkinds: [pods]",
        &kubeconfig,
    )
    .await;
    let recorder = Recorder::start(daemon.server(), watch_request("pods"), None);
    touch(cluster, &recorder, "before").await;
    let watches = |user: &str| {
        let log = cluster.audit_log().unwrap();
        log.requests(AGENT, "watch", "pods")
            .filter(|it| it.open && it.user == user)
            .count()
    };
    eventually("the first user watches", || async {
        watches(users[0]) == 1
    })
    .await;
    rotate().await;
    eventually("the second user watches", || async {
        watches(users[1]) == 1
    })
    .await;
    eventually("the first one does not", || async {
        watches(users[0]) == 0
    })
    .await;
    touch(cluster, &recorder, "after").await;
    let client = connect(&daemon);
    eventually("it is live", || is(&client, "pods", KindState::Live)).await;
    let recording = recorder.recording();
    assert_eq!(recording.closes().count(), 0, "no stream was broken");
    assert_eq!(recording.resets(), ["INITIAL"]);
    let status = kind(&client, "pods").await.unwrap();
    assert_eq!(
        status.relists,
        [("initial".into(), 1)].into(),
        "and nothing was listed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_that_is_rotated_costs_no_stream() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let write = |user: &str, lifetime: Duration| {
        let certificate = Authority::get().client(user, None, lifetime).unwrap();
        let credential = Credential::Certificate(&certificate);
        cluster
            .kubeconfig_for("rotated", credential, cluster.address())
            .unwrap()
    };
    let kubeconfig = write("carol", Duration::from_secs(120));
    rotated(&cluster, kubeconfig, ["carol", "dave"], async || {
        write("dave", Duration::from_secs(3600));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_file_that_is_rotated_costs_no_stream() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let kubeconfig = cluster
        .kubeconfig_for("rotated", Credential::Admin, cluster.address())
        .unwrap();
    let file = kubeconfig.with_extension("token");
    std::fs::write(&file, token("alice")).unwrap();
    with_user(&kubeconfig, json!({ "tokenFile": file }));
    rotated(&cluster, kubeconfig, ["alice", "bob"], async || {
        std::fs::write(&file, token("bob")).unwrap();
    })
    .await;
}
