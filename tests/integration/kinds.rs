//! Kinds of all sorts: custom ones that come and go, those of a rollout, of some namespaces, on first use.

use std::time::Duration;

use informerd::proto::{
    DeleteCause, KindState, ListObjectsRequest, MarkType, Scope, WatchObjectsRequest,
};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::ConfigMap,
};
use kube::{Resource, api::ApiResource};
use tonic::Code;

use crate::{
    cluster::{self, Cluster, Daemon, DirectWatch, get, list_exact},
    support::{
        assert_as_listed, connect, discard, eventually, is, kind, list, namespace, object, pods,
        relists, scope, seed, within,
    },
    validators::{Recorder, Reference, check_all, check_without_reference, watch_request},
};

const WIDGETS: &str = "widgets.tests.informerd.dev";

const CRD: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.tests.informerd.dev}
spec:
  group: tests.informerd.dev
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wg]}
  versions:
  - name: v1
    served: true
    storage: true
    selectableFields: [{jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {size: {type: string}}
";

fn widget(name: &str, size: &str) -> String {
    format!(
        "apiVersion: tests.informerd.dev/v1\nkind: Widget\nmetadata: {{name: {name}, namespace: widgets}}\nspec: {{size: {size}}}\n---\n"
    )
}

async fn install(cluster: &Cluster) {
    cluster.apply(CRD).await;
    let crd = format!("crd/{WIDGETS}");
    cluster
        .kubectl_ok(&["wait", "--for=condition=Established", &crd])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_custom_kind_is_waited_for_served_and_let_go() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    namespace(cluster, "widgets").await;
    let config = format!("kinds: [configmaps, {WIDGETS}]");
    let daemon = Daemon::start(&config, cluster.kubeconfig()).await;
    let client = connect(&daemon);
    assert!(
        is(&client, WIDGETS, KindState::Waiting).await,
        "and it holds up nobody"
    );
    let recorder = Recorder::start(daemon.server(), watch_request(WIDGETS), None);
    let waiting = |state| {
        move |recording: &crate::validators::Recording| {
            let mut marks = recording.marks(MarkType::State);
            marks.any(|mark| {
                mark.freshness
                    .as_ref()
                    .is_some_and(|it| it.state() == state)
            })
        }
    };
    let soon = Duration::from_secs(30);
    recorder
        .wait("that it waits", soon, waiting(KindState::Waiting))
        .await;

    install(cluster).await;
    eventually("it is served", || is(&client, WIDGETS, KindState::Live)).await;
    let widgets =
        ["a", "b", "c"].map(|name| widget(name, if name == "b" { "small" } else { "large" }));
    cluster.apply(&widgets.concat()).await;
    let three = recorder.wait("three widgets", soon, |recording| {
        recording
            .last_state()
            .is_some_and(|(_, held)| held.len() == 3)
    });
    let (_, held) = three.await.last_state().unwrap();
    assert_eq!(object(&held["widgets/b"].object)["spec"]["size"], "small");
    // What the CRD declares can be selected by, under any of its names.
    let large = Scope {
        field_selector: "spec.size=large".into(),
        ..scope("wg", &[])
    };
    assert_eq!(list(&client, large).await, ["a", "c"]);

    cluster.kubectl_ok(&["delete", "crd", WIDGETS]).await;
    let recording = recorder
        .wait("its end", Duration::from_secs(60), |recording| {
            recording.closes().count() > 0
        })
        .await;
    assert_eq!(recording.closes().collect::<Vec<_>>().len(), 1);
    let end = recording
        .marks(MarkType::End)
        .next()
        .expect("it says why it ends");
    assert_eq!(end.reason, "KIND_REMOVED");
    assert!(!end.token.is_empty());
    assert!(
        recording
            .closes()
            .all(|why| why.starts_with("NotFound KIND_REMOVED")),
        "{:?}",
        recording.closes().collect::<Vec<_>>()
    );
    assert_eq!(
        recording.last_state().unwrap().1.len(),
        0,
        "all was deleted before the end"
    );
    let deletes = recording
        .events()
        .filter(|event| event.cause() != DeleteCause::Unspecified);
    assert_eq!(deletes.count(), 3);
    check_without_reference(&recording, &[]).unwrap();
    assert!(is(&client, WIDGETS, KindState::Removed).await);
    assert_eq!(
        get(&daemon.admin_url("/readyz")).await.unwrap().0,
        200,
        "readiness is of the start"
    );

    // And it may come again.
    install(cluster).await;
    within(Duration::from_secs(60), "it is served again", || {
        is(&client, WIDGETS, KindState::Live)
    })
    .await;
    assert_eq!(relists(&client, WIDGETS, "reappeared").await, 1);
    cluster.apply(&widget("d", "large")).await;
    eventually("the new one is there", || async {
        list(&client, scope(WIDGETS, &[])).await == ["d"]
    })
    .await;
    cluster.kubectl_ok(&["delete", "crd", WIDGETS]).await;
    discard(cluster, &["widgets"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_and_the_end_of_its_namespace_are_followed_through_all_kinds() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    let client = cluster.client().await;
    namespace(cluster, "rollout").await;
    let resources = ["deployments.apps", "replicasets.apps", "pods"];
    let kinds = [erased::<Deployment>(), erased::<ReplicaSet>(), pods()];
    let config = "kinds: [deployments.apps, replicasets.apps, pods]";
    let daemon = Daemon::start(config, cluster.kubeconfig()).await;
    let mut watches = Vec::new();
    let mut recorders = Vec::new();
    for (resource, kind) in resources.iter().zip(&kinds) {
        watches.push(
            DirectWatch::start(&client, kind, Some("rollout"), None)
                .await
                .unwrap(),
        );
        let request = WatchObjectsRequest {
            scope: Some(scope(resource, &["rollout"])),
            ..watch_request(resource)
        };
        recorders.push(Recorder::start(daemon.server(), request, Some(seed())));
    }
    let rolled_out = async |image: &str| {
        let patience = Duration::from_secs(60);
        recorders[0]
            .wait("the rollout's end", patience, |recording| {
                let Some((_, held)) = recording.last_state() else {
                    return false;
                };
                let Some(web) = held.get("rollout/web") else {
                    return false;
                };
                let web = object(&web.object);
                let status = |name: &str| web["status"][name].as_u64();
                web["spec"]["template"]["spec"]["containers"][0]["image"] == image
                    && status("observedGeneration") == web["metadata"]["generation"].as_u64()
                    && ["replicas", "updatedReplicas", "availableReplicas"]
                        .iter()
                        .all(|it| status(it) == Some(3))
            })
            .await
    };
    let on = ["-n", "rollout"];
    cluster
        .kubectl_ok(
            &[
                &[
                    "create",
                    "deployment",
                    "web",
                    "--image=registry.invalid/web:1",
                    "--replicas=3",
                ],
                &on[..],
            ]
            .concat(),
        )
        .await;
    rolled_out("registry.invalid/web:1").await;
    cluster
        .kubectl_ok(
            &[
                &["set", "image", "deployment/web", "*=registry.invalid/web:2"],
                &on[..],
            ]
            .concat(),
        )
        .await;
    rolled_out("registry.invalid/web:2").await;

    // Pods that go may linger: at any mark, the streams say what was so at its revision.
    recorders[1]
        .wait(
            "the old replica set is at zero",
            Duration::from_secs(30),
            |recording| {
                recording.last_state().is_some_and(|(_, held)| {
                    let mut replicas: Vec<_> = held
                        .values()
                        .map(|set| object(&set.object)["status"]["replicas"].as_u64())
                        .collect();
                    replicas.sort();
                    replicas == [Some(0), Some(3)]
                })
            },
        )
        .await;
    recorders[2]
        .wait(
            "three new pods alone",
            Duration::from_secs(30),
            |recording| {
                recording.last_state().is_some_and(|(_, held)| {
                    held.len() == 3
                        && held.values().all(|pod| {
                            object(&pod.object)["spec"]["containers"][0]["image"]
                                == "registry.invalid/web:2"
                        })
                })
            },
        )
        .await;
    for (recorder, kind) in recorders.iter().zip(&kinds) {
        let (positions, held) = recorder.recording().last_state().unwrap();
        let listed = list_exact(&client, kind, Some("rollout"), &positions[""].to_string())
            .await
            .unwrap();
        assert_as_listed(&held, &listed, &kind.plural);
    }

    cluster
        .kubectl_ok(&["delete", "namespace", "rollout", "--wait=false"])
        .await;
    for (recorder, watch) in recorders.iter().zip(&watches) {
        let gone = recorder.wait("that all is gone", Duration::from_secs(60), |recording| {
            recording
                .last_state()
                .is_some_and(|(_, held)| held.is_empty())
        });
        let recording = gone.await;
        // The direct watch may be a moment behind.
        let last = recording
            .events()
            .map(|event| event.revision)
            .max()
            .unwrap();
        assert!(
            watch
                .wait_for(&last.to_string(), Duration::from_secs(10))
                .await
        );
        check_all(&recording, &Reference::new(&watch.seen(), |_| true), &[]).unwrap();
    }
}

fn erased<K: Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_of_some_namespaces_is_one_watch_each_and_one_stream() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    for name in ["shard-a", "shard-b", "shard-c"] {
        namespace(cluster, name).await;
    }
    // Every namespace has one from the start.
    let root = "kube-root-ca.crt";
    let client = cluster.client().await;
    let config_maps = erased::<ConfigMap>();
    for name in ["shard-a", "shard-b", "shard-c"] {
        eventually("the namespace has its root certificate", || async {
            cluster
                .kubectl(&["get", "configmap", root, "-n", name])
                .await
                .status
                .success()
        })
        .await;
    }
    let config = "upstream: {userAgent: informerd-shards}\nkinds: [{resource: configmaps, namespaces: {include: [shard-b, shard-a]}}]";
    let daemon = Daemon::start(config, cluster.kubeconfig()).await;
    let recorders = [None, Some(seed())]
        .map(|cuts| Recorder::start(daemon.server(), watch_request("configmaps"), cuts));
    let soon = Duration::from_secs(30);
    for recorder in &recorders {
        recorder
            .wait("the initial state", soon, |recording| {
                recording.last_state().is_some()
            })
            .await;
    }
    for round in 0..10 {
        for name in ["shard-a", "shard-b", "shard-c"] {
            let data = format!("--from-literal=round={round}");
            let on = [&*format!("cm-{round}"), &data, "-n", name];
            cluster
                .kubectl_ok(&[&["create", "configmap"], &on[..]].concat())
                .await;
        }
    }
    cluster
        .kubectl_ok(&["delete", "configmap", "cm-3", "-n", "shard-a"])
        .await;
    for recorder in &recorders {
        let done = |recording: &crate::validators::Recording| {
            let last = recording.last_state();
            last.is_some_and(|(_, held)| {
                held.len() == 21
                    && held.contains_key("shard-b/cm-9")
                    && !held.contains_key("shard-a/cm-3")
            })
        };
        let recording = recorder.wait("all but one", soon, done).await;
        check_without_reference(&recording, &[]).unwrap();
        let (positions, held) = recording.last_state().unwrap();
        assert_eq!(positions.keys().collect::<Vec<_>>(), ["shard-a", "shard-b"]);
        for (namespace, revision) in positions {
            let listed = list_exact(
                &client,
                &config_maps,
                Some(&namespace),
                &revision.to_string(),
            )
            .await
            .unwrap();
            let held = held
                .iter()
                .filter(|(key, _)| key.starts_with(&format!("{namespace}/")));
            let held: Vec<_> = held
                .map(|(key, held)| (key, &held.resource_version))
                .collect();
            let listed: Vec<_> = listed
                .iter()
                .map(|(key, listed)| (key, &listed.resource_version))
                .collect();
            assert_eq!(held, listed);
        }
    }
    let client = connect(&daemon);
    let elsewhere = ListObjectsRequest {
        scope: Some(scope("configmaps", &["shard-c"])),
        ..ListObjectsRequest::default()
    };
    let refused = client.list(elsewhere).await.expect_err("nobody watches it");
    assert_eq!(refused.code(), Some(Code::InvalidArgument));
    assert!(
        refused.to_string().contains("namespaces.include"),
        "{refused}"
    );
    if let Some(log) = cluster.audit_log() {
        let mut open: Vec<_> = log
            .requests("informerd-shards", "watch", "configmaps")
            .filter(|watch| watch.open)
            .map(|watch| &*watch.namespace)
            .collect();
        open.sort();
        assert_eq!(open, ["shard-a", "shard-b"]);
    }
    discard(cluster, &["shard-a", "shard-b", "shard-c"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_on_first_use_is_watched_when_somebody_asks() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    let config =
        "upstream: {userAgent: informerd-lazy}\nkinds: [{resource: namespaces, start: onFirstUse}]";
    let daemon = Daemon::start(config, cluster.kubeconfig()).await;
    let client = connect(&daemon);
    assert!(is(&client, "namespaces", KindState::Waiting).await);
    if let Some(log) = cluster.audit_log() {
        assert_eq!(
            log.watches("informerd-lazy", "namespaces") + log.lists("informerd-lazy", "namespaces"),
            0
        );
    }
    assert!(
        list(&client, scope("ns", &[]))
            .await
            .contains(&"default".to_owned()),
        "the first one waits"
    );
    assert_eq!(kind(&client, "namespaces").await.unwrap().watches_opened, 1);
}
