//! A stream that outlives the loss of a namespace: what its consumer had of it is taken back, and comes back with the
//! right to it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use informerd::proto::{DeleteCause, EventType, OnRevoke, WatchObjectsResponse};

use super::*;

const ROLES: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: retraction-reader}
rules: [{apiGroups: [\"\"], resources: [configmaps], verbs: [get, list, watch]}]
";

fn bind(namespace: &str) -> [&str; 7] {
    [
        "create",
        "rolebinding",
        "reader",
        "--clusterrole=retraction-reader",
        "--serviceaccount=kept:reader",
        "-n",
        namespace,
    ]
}

/// A stream's messages, each with the time when it came.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(Instant, WatchObjectsResponse)>>>);

impl Seen {
    /// Reads until the stream ends, or is dropped with the task.
    fn read(&self, mut stream: Streaming<WatchObjectsResponse>) -> tokio::task::JoinHandle<Status> {
        let seen = self.clone();
        tokio::spawn(async move {
            loop {
                match stream.message().await {
                    Ok(Some(message)) => seen.0.lock().unwrap().push((Instant::now(), message)),
                    Ok(None) => return Status::ok("ended"),
                    Err(status) => return status,
                }
            }
        })
    }

    fn all(&self) -> Vec<(Instant, WatchObjectsResponse)> {
        self.0.lock().unwrap().clone()
    }

    /// What a consumer holds by now, and its token.
    fn held(&self) -> (BTreeMap<(String, String), String>, bytes::Bytes) {
        let (mut held, mut token) = (BTreeMap::new(), bytes::Bytes::new());
        for (_, message) in self.all() {
            for event in &message.events {
                let key = (event.namespace.clone(), event.name.clone());
                match event.r#type() {
                    EventType::Delete => drop(held.remove(&key)),
                    _ => drop(held.insert(key, event.resource_version.clone())),
                }
            }
            let mark = message.mark.unwrap_or_default();
            if mark.r#type() == MarkType::Reset {
                held.clear();
            }
            if !mark.token.is_empty() {
                token = mark.token;
            }
        }
        (held, token)
    }

    /// When the last event of a namespace came.
    fn last_of(&self, namespace: &str) -> Option<Instant> {
        let all = self.all();
        let last = all.iter().rev().find(|(_, message)| {
            let mut events = message.events.iter();
            events.any(|event| event.namespace == namespace)
        });
        last.map(|(at, _)| *at)
    }
}

fn request(token: bytes::Bytes) -> WatchObjectsRequest {
    WatchObjectsRequest {
        scope: Some(scope("configmaps", &["kept", "lost"])),
        on_revoke: OnRevoke::Retract.into(),
        token,
        ..Default::default()
    }
}

async fn open(
    reader: &Caller,
    token: bytes::Bytes,
) -> Result<Streaming<WatchObjectsResponse>, Status> {
    let mut asked = Request::new(request(token));
    asked
        .metadata_mut()
        .insert("authorization", reader.token.clone());
    Ok(reader.cache().watch_objects(asked).await?.into_inner())
}

async fn in_both(cluster: &Cluster, name: &str) {
    let both = [config_map("kept", name), config_map("lost", name)].join("\n---\n");
    cluster.apply(&both).await;
}

#[tokio::test]
async fn a_stream_loses_the_namespace_of_its_role_binding_and_gets_it_back_with_it() {
    let Some(cluster) = cluster::shared().await.filter(|cluster| cluster.is_own()) else {
        return;
    };
    for name in ["kept", "lost"] {
        namespace(cluster, name).await;
    }
    let account = ["create", "serviceaccount", "reader", "-n", "kept"];
    cluster.kubectl_ok(&account).await;
    cluster.apply(ROLES).await;
    cluster.kubectl_ok(&bind("kept")).await;
    cluster.kubectl_ok(&bind("lost")).await;
    let daemon = Daemon::start(CONFIG, cluster.kubeconfig()).await;
    let reader = Caller::new(&daemon, &token(cluster, "kept", "reader", &[]).await).await;
    let seen = Seen::default();
    let stream = open(&reader, bytes::Bytes::new()).await.unwrap();
    let reading = seen.read(stream);
    in_both(cluster, "before").await;
    eventually("both namespaces are there", async || {
        let (held, _) = seen.held();
        let has = |namespace: &str| held.contains_key(&(namespace.into(), "before".into()));
        has("kept") && has("lost")
    })
    .await;

    let unbind = ["delete", "rolebinding", "reader", "-n", "lost"];
    cluster.kubectl_ok(&unbind).await;
    let revoked = Instant::now();
    let mut written = 0;
    let is_retracted = || {
        let (held, _) = seen.held();
        !held.keys().any(|(namespace, _)| namespace == "lost")
    };
    while !is_retracted() && revoked.elapsed() < Duration::from_secs(40) {
        in_both(cluster, &format!("c-{written}")).await;
        written += 1;
    }
    let retracted = seen.last_of("lost").expect("it had some of it");
    println!(
        "retracted {:?} after the binding went; {written} changes were made in each",
        retracted - revoked
    );
    assert!(retracted - revoked < Duration::from_secs(30));
    // What is written now is none of its business, and the rest goes on.
    for more in 0..5 {
        in_both(cluster, &format!("after-{more}")).await;
    }
    eventually("the other namespace goes on", async || {
        let (held, _) = seen.held();
        held.contains_key(&("kept".into(), "after-4".into()))
    })
    .await;
    assert_eq!(
        seen.last_of("lost"),
        Some(retracted),
        "nothing comes after it"
    );
    // Where something was about to be sent just then, it starts over instead.
    let (mut taken, mut resets) = (0, 0);
    for (_, message) in seen.all() {
        let reason = message.mark.as_ref().map(|mark| mark.reason.as_str());
        resets += usize::from(reason == Some("REVOKED"));
        for event in message.events {
            let is_taken = event.cause() == DeleteCause::Revoked;
            taken += usize::from(is_taken);
            assert!(!is_taken || event.namespace == "lost" && event.object.is_empty());
        }
    }
    // With what Kubernetes puts into each namespace.
    match resets {
        0 => assert!(taken > written, "{taken} of {written}"),
        _ => assert_eq!((resets, taken), (1, 0), "the one or the other"),
    }

    // The token carries on without what is withheld, and gives no right to it.
    let (held, token) = seen.held();
    let resumed = Seen::default();
    let again = resumed.read(open(&reader, token).await.unwrap());
    in_both(cluster, "resumed").await;
    eventually("it goes on from the token", async || {
        let (held, _) = resumed.held();
        held.contains_key(&("kept".into(), "resumed".into()))
    })
    .await;
    assert_eq!(resumed.last_of("lost"), None);
    assert!(
        resumed.held().0.len() <= held.len(),
        "it is not told all again"
    );

    cluster.kubectl_ok(&bind("lost")).await;
    let bound = Instant::now();
    let list = ["get", "configmaps", "-n", "lost", "-o", "name"];
    let there = cluster.kubectl_ok(&list).await.lines().count();
    for (name, seen) in [("the stream", &seen), ("the resumed one", &resumed)] {
        eventually(&format!("{name} has it back"), async || {
            let (held, _) = seen.held();
            let of_it = held.keys().filter(|(namespace, _)| namespace == "lost");
            of_it.count() == there
        })
        .await;
    }
    println!(
        "{there} objects are back {:?} after the binding",
        bound.elapsed()
    );
    in_both(cluster, "last").await;
    eventually("it goes on there, too", async || {
        let (held, _) = seen.held();
        held.contains_key(&("lost".into(), "last".into()))
    })
    .await;
    assert!(!reading.is_finished() && !again.is_finished());
    reading.abort();
    again.abort();
    discard(cluster, &["kept", "lost"]).await;
}
