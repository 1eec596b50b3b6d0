//! Kinds whose CRD is edited, or goes and is back before anybody could miss it.

use std::time::Duration;

use informerd::proto::{DeleteCause, KindState, ListObjectsRequest, MarkType, Scope};

use crate::{
    cluster::{self, Cluster, Daemon},
    support::{connect, eventually, is, list, relists, scope, within},
    validators::{Recorder, Recording, check_without_reference, watch_request},
};

const GADGETS: &str = "gadgets.tests.informerd.dev";

/// The CRD, with this in its one version.
fn crd(version: &str) -> String {
    format!(
        "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {GADGETS}}}
spec:
  group: tests.informerd.dev
  scope: Namespaced
  names: {{plural: gadgets, singular: gadget, kind: Gadget}}
  versions:
  - name: v1
    served: true
    storage: true
{version}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {{color: {{type: string}}}}
"
    )
}

fn gadget(name: &str, color: &str) -> String {
    format!(
        "apiVersion: tests.informerd.dev/v1\nkind: Gadget\nmetadata: {{name: {name}, namespace: default}}\nspec: {{color: {color}}}\n---\n"
    )
}

async fn install(cluster: &Cluster, version: &str) {
    cluster.apply(&crd(version)).await;
    let name = format!("crd/{GADGETS}");
    cluster
        .kubectl_ok(&["wait", "--for=condition=Established", &name])
        .await;
}

/// Applies gadgets; a kind that was only just established refuses them for a moment.
async fn make(cluster: &Cluster, gadgets: &str) {
    let path = cluster.kubeconfig().with_extension("gadgets.yaml");
    std::fs::write(&path, gadgets).unwrap();
    let path = path.display().to_string();
    eventually("gadgets can be made", || async {
        let applied = cluster.kubectl(&["apply", "-f", &path]).await;
        applied.status.success()
    })
    .await;
}

/// A cluster with two gadgets, a daemon that has them, and a consumer.
async fn start() -> Option<(Cluster, Daemon, Recorder)> {
    let cluster = cluster::private().await?;
    install(&cluster, "").await;
    let two = gadget("a", "red") + &gadget("b", "blue");
    make(&cluster, &two).await;
    let config = format!("kinds: [{GADGETS}]");
    let daemon = Daemon::start(&config, cluster.kubeconfig()).await;
    let recorder = Recorder::start(daemon.server(), watch_request(GADGETS), None);
    recorder
        .wait("two gadgets", Duration::from_secs(20), |it| holds(it, 2))
        .await;
    Some((cluster, daemon, recorder))
}

fn holds(recording: &Recording, count: usize) -> bool {
    recording
        .last_state()
        .is_some_and(|(_, held)| held.len() == count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_of_a_crd_disturbs_nobody_and_new_fields_can_be_selected_by() {
    let Some((cluster, daemon, recorder)) = start().await else {
        return;
    };
    let client = connect(&daemon);
    let watches = async || {
        let kinds = client.kinds().await.unwrap();
        kinds[0].watches_opened
    };
    let before = watches().await;
    let columns =
        "    additionalPrinterColumns: [{name: Color, type: string, jsonPath: .spec.color}]";
    install(&cluster, columns).await;
    // The API server ends its watches on the kind and begins anew.
    within(Duration::from_secs(60), "another watch is open", || async {
        watches().await > before && is(&client, GADGETS, KindState::Live).await
    })
    .await;
    cluster.apply(&gadget("c", "red")).await;
    let patience = Duration::from_secs(20);
    let recording = recorder
        .wait("the third", patience, |it| holds(it, 3))
        .await;
    let troubles: Vec<_> = recording
        .marks(MarkType::State)
        .filter_map(|mark| mark.freshness.as_ref())
        // What it remembers of the kind begins anew, too, so that it may not know where we are; then it is listed again.
        .filter(|it| it.state() != KindState::Live && it.reason != "Expired")
        .map(|it| (it.reason.clone(), it.message.clone()))
        .collect();
    assert_eq!(troubles, [], "nothing that matters has changed");
    assert_eq!(recording.resets(), ["INITIAL"]);
    assert_eq!(relists(&client, GADGETS, "version").await, 0);

    let red = || Scope {
        field_selector: "spec.color=red".into(),
        ..scope(GADGETS, &[])
    };
    let request = ListObjectsRequest {
        scope: Some(red()),
        ..ListObjectsRequest::default()
    };
    let refused = client
        .list(request.clone())
        .await
        .expect_err("not selectable");
    assert!(refused.to_string().contains("spec.color"), "{refused}");
    install(&cluster, "    selectableFields: [{jsonPath: .spec.color}]").await;
    within(Duration::from_secs(20), "it is selectable", || async {
        client.list(request.clone()).await.is_ok()
    })
    .await;
    assert_eq!(list(&client, red()).await, ["a", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crd_that_is_deleted_and_back_at_once_ends_the_streams_of_the_old_one() {
    let Some((cluster, daemon, recorder)) = start().await else {
        return;
    };
    let client = connect(&daemon);
    cluster.kubectl_ok(&["delete", "crd", GADGETS]).await;
    install(&cluster, "").await;
    let patience = Duration::from_secs(30);
    let recording = recorder
        .wait("its end", patience, |it| it.closes().count() > 0)
        .await;
    let end = recording.marks(MarkType::End).next().expect("a last mark");
    assert_eq!(end.reason, "KIND_REMOVED");
    let why = recording.closes().next().unwrap();
    assert!(why.starts_with("NotFound KIND_REMOVED"), "{why}");
    assert!(holds(&recording, 0), "all was deleted before");
    let deletes = recording
        .events()
        .filter(|event| event.cause() != DeleteCause::Unspecified);
    assert_eq!(deletes.count(), 2);
    check_without_reference(&recording, &[]).unwrap();

    // What failed of the old one is not held against the new one.
    within(Duration::from_secs(10), "the new one is live", || {
        is(&client, GADGETS, KindState::Live)
    })
    .await;
    assert_eq!(relists(&client, GADGETS, "reappeared").await, 1);
    let recorder = Recorder::start(daemon.server(), watch_request(GADGETS), None);
    make(&cluster, &gadget("new", "red")).await;
    let followed = recorder.wait("the new gadget", patience, |it| holds(it, 1));
    let (_, held) = followed.await.last_state().unwrap();
    assert!(held.contains_key("default/new"));
}
