//! What `changes: VISIBLE` saves a consumer of a kind whose status beats all the time.

use std::time::Duration;

use informerd::{
    object::Key,
    proto::{Changes, WatchObjectsRequest},
};
use prost::Message;
use tokio::time::sleep;

use crate::{
    etcd::{ApiServer, Content, Etcd, Serves},
    network::Network,
    replica::{Replica, config},
    validators::{Recorder, Recording, watch_request},
};

const NODES: usize = 1000;
/// Each node's status changes once in each.
const SECONDS: usize = 20;
/// And so many of them in what can be seen.
const SEEN_A_SECOND: usize = 5;

/// Events, the bytes of their messages, and how often the consumer was woken for them.
fn cost(recording: &Recording, from: usize) -> (usize, usize, usize) {
    let (mut events, mut bytes, mut woken) = (0, 0, 0);
    for entry in &recording.entries[from..] {
        match &entry.what {
            crate::validators::What::Event(event) => {
                events += 1;
                bytes += event.encoded_len();
            }
            crate::validators::What::Mark(mark) => {
                woken += 1;
                bytes += mark.encoded_len();
            }
            _ => {}
        }
    }
    (events, bytes, woken)
}

#[tokio::test(start_paused = true)]
async fn of_a_thousand_nodes_that_beat_only_labels_and_taints_are_told() {
    let etcd = Etcd::new();
    let key = |node: usize| Key::new("", &format!("node-{node:04}"));
    let content = |changed: usize, beat: usize| Content {
        labels: vec![("pool", format!("pool-{}", changed / 2))],
        taints: if changed % 2 == 1 {
            vec!["drain"]
        } else {
            Vec::new()
        },
        beat: beat as u64,
        unreadable: false,
    };
    for node in 0..NODES {
        etcd.put(&key(node), &content(0, 0));
    }
    let server = ApiServer::new(&etcd, Serves::Nodes);
    let network = Network::new(&etcd, std::slice::from_ref(&server), 1);
    let daemon = Replica::start(&config("nodes"), &network.client());
    let request = |changes: Changes| WatchObjectsRequest {
        fields: vec![".metadata.labels".into(), ".spec.taints".into()],
        changes: changes.into(),
        max_batch_bytes: 1 << 20,
        bookmark_interval: Some(prost_types::Duration {
            seconds: 10,
            nanos: 0,
        }),
        ..watch_request("nodes")
    };
    let start = |changes| Recorder::start(daemon.door.clone(), request(changes), None);
    let recorders = [Changes::Visible, Changes::All].map(start);
    let mut from = Vec::new();
    for recorder in &recorders {
        let begun = |recording: &Recording| recording.reached() > 0;
        let soon = Duration::from_secs(60);
        let recording = recorder.wait("the initial state", soon, begun).await;
        from.push(recording.entries.len());
    }

    let mut changed = vec![0; NODES];
    let mut expected = Vec::new();
    for second in 0..SECONDS {
        // All through the second, as nodes do, and not all at once.
        for (node, changed) in changed.iter().enumerate() {
            etcd.put(&key(node), &content(*changed, second + 1));
            if node % 100 == 99 {
                server.follow();
                sleep(Duration::from_millis(100)).await;
            }
        }
        for nth in 0..SEEN_A_SECOND {
            let node = (second * 37 + nth * 211) % NODES;
            changed[node] += 1;
            let revision = etcd.put(&key(node), &content(changed[node], second + 1));
            expected.push((key(node).name().to_owned(), revision));
        }
        server.follow();
        sleep(Duration::from_millis(1)).await;
    }
    let mut costs = Vec::new();
    for (recorder, from) in recorders.iter().zip(&from) {
        let all = |recording: &Recording| recording.reached() >= etcd.revision();
        let recording = recorder
            .wait("the last change", Duration::from_secs(120), all)
            .await;
        costs.push(cost(&recording, *from));
    }
    let visible = recorders[0].recording();
    let told = visible.entries[from[0]..]
        .iter()
        .filter_map(|entry| match &entry.what {
            crate::validators::What::Event(event) => Some((event.name.clone(), event.revision)),
            _ => None,
        });
    let told: Vec<_> = told.collect();
    assert_eq!(
        told, expected,
        "each visible change, once, and nothing else"
    );
    let [seen, all] = costs[..] else {
        unreachable!("there are two")
    };
    assert!(all.0 >= NODES * SECONDS);
    assert!(seen.1 * 10 < all.1, "bytes: {} of {}", seen.1, all.1);
    assert!(seen.2 * 2 < all.2, "wakeups: {} of {}", seen.2, all.2);
    println!(
        "{NODES} nodes, {SECONDS} s of heartbeats, {} visible changes: with VISIBLE {} events, {} KiB, {} messages; \
         without {} events, {} KiB, {} messages",
        expected.len(),
        seen.0,
        seen.1 >> 10,
        seen.2,
        all.0,
        all.1 >> 10,
        all.2,
    );
}
