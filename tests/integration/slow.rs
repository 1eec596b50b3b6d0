//! Consumers that read nothing for a while, on a real cluster: what they hold up, and what they have in the end.

use std::time::Duration;

use informerd::proto::{KindState, WatchObjectsRequest};

use crate::{
    cluster::{self, Daemon},
    maps::{self, Maps},
    support::{connect, eventually, is},
    validators::{Recorder, check_without_reference},
};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_slower_than_the_journal_holds_up_nobody_and_is_right_in_the_end() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    // So large that a few of them fill a connection's window, and the journal.
    let mut maps = Maps::create(&cluster, 16 << 10).await;
    let config = "kinds: [{resource: configmaps, journal: {bytes: 256Ki}}]";
    let daemon = Daemon::start(config, cluster.kubeconfig()).await;
    let client = connect(&daemon);
    let start = |app| {
        let request = WatchObjectsRequest {
            max_batch_bytes: 1 << 20,
            ..maps::watch(app)
        };
        Recorder::start(daemon.server(), request, None)
    };
    let reader = start(None);
    let apps = [None, Some("web")];
    let sleepers = apps.map(start);
    for recorder in sleepers.iter().chain([&reader]) {
        recorder
            .wait("the initial state", SOON, |recording| {
                recording.reached() > 0
            })
            .await;
    }
    for sleeper in &sleepers {
        sleeper.sleep(true);
    }
    let last = maps.write(15).await;
    let read = reader.reach(last).await;
    assert_eq!(read.resets(), ["INITIAL"], "it was never behind");
    assert!(is(&client, maps::KIND, KindState::Live).await);
    assert!(
        sleepers
            .iter()
            .all(|sleeper| sleeper.recording().reached() < last)
    );

    for sleeper in &sleepers {
        sleeper.sleep(false);
    }
    for (sleeper, app) in sleepers.iter().zip(apps) {
        let recording = sleeper.reach(last).await;
        check_without_reference(&recording, &["PAST_JOURNAL", "STALLED"]).unwrap();
        maps.assert_right(&recording, app).await;
        assert_eq!(recording.closes().count(), 0);
        let (slow, fast) = (recording.events().count(), read.events().count());
        assert!(
            slow < fast / 2,
            "{slow} of {fast} events: it was not behind"
        );
    }
    // From there it follows like anybody else.
    let last = maps.write(1).await;
    for (sleeper, app) in sleepers.iter().zip(apps) {
        maps.assert_right(&sleeper.reach(last).await, app).await;
    }
    eventually("nothing is left to be told", || async {
        let consumers = client.consumers(maps::KIND).await.unwrap();
        consumers.len() == 3 && consumers.iter().all(|consumer| consumer.lag_changes == 0)
    })
    .await;
}
