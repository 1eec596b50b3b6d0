//! A stream that goes from one replica to the other and back, again and again, while pods change and both replicas are
//! cut from the API server: what is held after each hand-over is what an exact list says.

use std::{env, time::Duration};

use tokio::time::Instant;

use crate::{
    cluster::{self, Churn, ChurnOptions, Credential, Daemon, DirectWatch, Proxy, list_exact},
    support::{assert_as_listed, pods, seed},
    validators::{Recorder, Reference, check_all, digest_of, watch_request},
};

/// In a run of all tests.
const HANDOVERS: usize = 30;
/// So many of them at least between two cuts of a replica from the API server.
const BETWEEN_CUTS: usize = 7;
/// Who is cut again and again waits longer each time, and a stream that it is handed waits with it.
const CUTS: usize = 16;

fn handovers() -> usize {
    let given = env::var("INFORMERD_TEST_HANDOVERS").ok();
    given.map_or(HANDOVERS, |text| {
        text.parse().expect("a number of hand-overs")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_after_each_of_many_hand_overs_is_what_there_is() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let mut rng = fastrand::Rng::with_seed(seed());
    let client = cluster.client().await;
    let direct = DirectWatch::start(&client, &pods(), None, None)
        .await
        .unwrap();
    let mut upstreams = Vec::new();
    let mut daemons = Vec::new();
    for name in ["one", "two"] {
        let proxy = Proxy::start(cluster.address()).await.unwrap();
        let kubeconfig = cluster.kubeconfig_for(name, Credential::Admin, proxy.address());
        daemons.push(Daemon::start("kinds: [pods]", &kubeconfig.unwrap()).await);
        upstreams.push(proxy);
    }
    let options = ChurnOptions {
        seed: rng.u64(..),
        rate: 40,
        ..ChurnOptions::default()
    };
    let churn = Churn::start(client.clone(), options).await.unwrap();
    let way = Proxy::start(daemons[0].server()).await.unwrap();
    let recorder = Recorder::start(way.address(), watch_request("pods"), None);
    let soon = Duration::from_secs(90);
    recorder
        .wait("the initial state", soon, |it| it.reached() > 0)
        .await;

    let begun = Instant::now();
    let (all, mut cuts) = (handovers(), 0);
    let between_cuts = BETWEEN_CUTS.max(all / CUTS);
    for nth in 1..=all {
        if nth % between_cuts == 0 {
            upstreams[rng.usize(..2)].cut_all();
            cuts += 1;
        }
        let from = recorder.len();
        way.retarget(daemons[nth % 2].server());
        way.cut_all();
        let recording = recorder
            .wait("a token after the cut", soon, |it| {
                it.has_gone_on_since(from)
            })
            .await;
        let (at, held) = recording.last_state().unwrap();
        let listed = list_exact(&client, &pods(), None, &at[""].to_string())
            .await
            .unwrap();
        assert_as_listed(&held, &listed, &format!("after hand-over {nth}, at {at:?}"));
    }
    let took = begun.elapsed();

    let (writes, failures) = churn.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    let last = &writes.last().unwrap().resource_version;
    assert!(direct.wait_for(last, Duration::from_secs(30)).await);
    let recording = recorder.reach(last.parse().unwrap()).await;
    let reference = Reference::new(&direct.seen(), |_| true);
    // A replica that was cut may be behind the token for longer than it is waited for.
    check_all(&recording, &reference, &["PAST_JOURNAL", "HISTORY_DIFFERS"]).unwrap();
    let (_, held) = recording.last_state().unwrap();
    let resets = recording.resets();
    println!(
        "{all} hand-overs in {:.0} s, {cuts} cuts upstream, {} writes, {} events, digest {:x}, {} resets: {resets:?}",
        took.as_secs_f64(),
        writes.len(),
        recording.events().count(),
        digest_of(&held),
        resets.len(),
    );
    assert!(recording.closes().count() >= all);
}
