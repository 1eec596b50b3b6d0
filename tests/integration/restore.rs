//! An etcd that is put back to an earlier time: what was told of the time since is void, and nobody says so.

use std::time::Duration;

use bytes::Bytes;
use informerd::proto::{KindState, WatchObjectsRequest};

use crate::{
    cluster::{self, Daemon},
    maps::{self, Maps},
    support::{connect, is},
    validators::{Recorder, Recording, check_without_reference},
};

const SOON: Duration = Duration::from_secs(30);

fn last_token(recording: &Recording) -> Bytes {
    recording.last_token().expect("it has a token").clone()
}

/// Whether the last token is of a revision within these.
fn is_within(recording: &Recording, range: std::ops::Range<u64>) -> bool {
    recording
        .last_state()
        .is_some_and(|(at, _)| range.contains(&at[""]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restore_every_stream_starts_over_once_and_older_tokens_are_void() {
    let Some(mut cluster) = cluster::private().await else {
        return;
    };
    let mut maps = Maps::create(&cluster, 100).await;
    maps.write(3).await;
    cluster.save_etcd().await.unwrap();
    let mut daemon = Daemon::start("kinds: [configmaps]", cluster.kubeconfig()).await;
    let client = connect(&daemon);
    let apps = [None, Some("web"), Some("db")];
    let recorders = apps.map(|app| Recorder::start(daemon.server(), maps::watch(app), None));
    let lost = maps.write(20).await;
    for recorder in &recorders {
        recorder.reach(lost).await;
    }
    let token = last_token(&recorders[0].recording());

    cluster.restore_etcd().await.unwrap();
    assert!(maps.revision().await < lost, "it went back");
    for (recorder, app) in recorders.iter().zip(apps) {
        let begun = recorder.wait("a new beginning", Duration::from_secs(60), |recording| {
            is_within(recording, 0..lost)
        });
        maps.assert_right(&begun.await, app).await;
    }
    assert!(is(&client, maps::KIND, KindState::Live).await);
    // The new history goes on, within the revisions of the old one.
    let next = maps.write(3).await;
    assert!(next < lost, "{next}: nothing would be met again");
    for (recorder, app) in recorders.iter().zip(apps) {
        let followed = recorder.wait("what comes next", SOON, |recording| {
            is_within(recording, next..lost)
        });
        let recording = followed.await;
        maps.assert_right(&recording, app).await;
        check_without_reference(&recording, &["HISTORY_VOID"]).unwrap();
        assert_eq!(recording.resets(), ["INITIAL", "HISTORY_VOID"], "once");
        assert_eq!(recording.closes().count(), 0, "in-band");
    }

    // Whoever comes back with what it was given before: to the same process, and to one that cannot know of the
    // restore, but finds itself and the API server behind the token.
    let begins_anew = async |daemon: &Daemon| {
        let request = WatchObjectsRequest {
            token: token.clone(),
            ..maps::watch(None)
        };
        let recorder = Recorder::start(daemon.server(), request, None);
        let begun = recorder.wait("a new beginning", SOON, |recording| {
            is_within(recording, 0..lost)
        });
        let recording = begun.await;
        assert_eq!(recording.resets(), ["HISTORY_VOID"]);
        assert_eq!(recording.closes().count(), 0, "in-band");
        maps.assert_right(&recording, None).await;
    };
    begins_anew(&daemon).await;
    assert_eq!(daemon.terminate(Duration::from_secs(25)).await, Some(0));
    let daemon = Daemon::start("kinds: [configmaps]", cluster.kubeconfig()).await;
    begins_anew(&daemon).await;
}
