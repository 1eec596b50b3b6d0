//! What goes, what waits, and what goes with it.

use super::*;

#[test]
fn a_deleted_object_is_gone_and_the_answer_says_which() {
    let store = store();
    let made = make(&store, "configmaps", config_map("a"));
    let deleted = delete(&store, "configmaps", "a", &DeleteOptions::default()).unwrap();
    assert!(deleted.gone);
    assert_eq!(
        deleted.answer,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}})
    );
    let again = refused(delete(&store, "configmaps", "a", &DeleteOptions::default()));
    assert_eq!(
        (again.code, again.message.as_str()),
        (404, "configmaps \"a\" not found")
    );
    assert!(
        store.revision() > version(&made),
        "a deletion is a revision"
    );
}

#[test]
fn a_deletion_may_be_of_one_incarnation_only() {
    let store = store();
    make(&store, "configmaps", config_map("a"));
    let options = DeleteOptions {
        preconditions: Some(Preconditions {
            uid: Some("x".to_owned()),
            resource_version: None,
        }),
        ..DeleteOptions::default()
    };
    let refusal = refused(delete(&store, "configmaps", "a", &options));
    assert_eq!(refusal.reason, "Conflict");
    assert!(
        refusal
            .message
            .contains("Precondition failed: UID in precondition: x, UID in object meta: ")
    );
}

#[test]
fn an_object_with_finalizers_waits_for_them() {
    let store = store();
    let mut given = deployment("a");
    given["metadata"]["finalizers"] = json!(["x/y"]);
    make(&store, DEPLOYMENTS, given);
    let deleted = delete(&store, DEPLOYMENTS, "a", &DeleteOptions::default()).unwrap();
    assert!(!deleted.gone);
    assert_eq!(
        number(&deleted.answer, &["metadata", "generation"]),
        Some(2)
    );
    assert_eq!(
        number(&deleted.answer, &["metadata", "deletionGracePeriodSeconds"]),
        Some(0)
    );
    let more = patch(
        &store,
        DEPLOYMENTS,
        "a",
        Part::Whole,
        json!({"metadata": {"finalizers": ["x/y", "z/z"]}}),
    );
    assert!(
        refused(more)
            .message
            .contains("no new finalizers can be added if the object is being deleted")
    );
    patch(
        &store,
        DEPLOYMENTS,
        "a",
        Part::Whole,
        json!({"metadata": {"finalizers": null}}),
    )
    .unwrap();
    assert!(!exists(&store, DEPLOYMENTS, "a"));
}

#[test]
fn a_pod_on_a_node_waits_for_its_kubelet() {
    let store = with_kubelet();
    make(&store, "pods", pod("p"));
    let marked = delete(&store, "pods", "p", &DeleteOptions::default()).unwrap();
    assert!(!marked.gone);
    assert_eq!(
        number(&marked.answer, &["metadata", "deletionGracePeriodSeconds"]),
        Some(30)
    );
    let now = DeleteOptions {
        grace_period_seconds: Some(0),
        ..DeleteOptions::default()
    };
    assert!(delete(&store, "pods", "p", &now).unwrap().gone);
    let mut unscheduled = pod("q");
    fields::remove(&mut unscheduled, &["spec", "nodeName"]);
    make(&store, "pods", unscheduled);
    assert!(
        delete(&store, "pods", "q", &DeleteOptions::default())
            .unwrap()
            .gone,
        "nobody runs it"
    );
}

#[test]
fn without_a_kubelet_nobody_is_waited_for() {
    let store = store();
    make(&store, "pods", pod("p"));
    let deleted = delete(&store, "pods", "p", &DeleteOptions::default()).unwrap();
    assert!(deleted.gone);
    assert_eq!(
        text(&deleted.answer, &["kind"]),
        "Pod",
        "a pod's deletion answers with the pod"
    );
}

#[test]
fn what_is_owned_goes_with_its_owner() {
    let store = store();
    let owner = make(&store, "secrets", json!({"metadata": {"name": "o"}}));
    make(&store, "configmaps", owned_by(&owner, "Secret", "a", false));
    let child = read(&store, "configmaps", "a");
    make(
        &store,
        "configmaps",
        owned_by(&child, "ConfigMap", "b", false),
    );
    delete(&store, "secrets", "o", &DeleteOptions::default()).unwrap();
    assert!(!exists(&store, "configmaps", "a") && !exists(&store, "configmaps", "b"));
}

#[test]
fn what_has_another_owner_stays() {
    let store = store();
    let [one, two] =
        ["o", "p"].map(|name| make(&store, "secrets", json!({"metadata": {"name": name}})));
    let mut given = owned_by(&one, "Secret", "a", false);
    let more = owned_by(&two, "Secret", "a", false);
    let both = [
        given["metadata"]["ownerReferences"][0].clone(),
        more["metadata"]["ownerReferences"][0].clone(),
    ];
    given["metadata"]["ownerReferences"] = json!(both);
    make(&store, "configmaps", given);
    delete(&store, "secrets", "o", &DeleteOptions::default()).unwrap();
    let left = read(&store, "configmaps", "a");
    assert_eq!(list(&left, &["metadata", "ownerReferences"]), &both[1..]);
    delete(&store, "secrets", "p", &DeleteOptions::default()).unwrap();
    assert!(!exists(&store, "configmaps", "a"));
}

#[test]
fn orphans_stay_without_the_reference() {
    let store = store();
    let owner = make(&store, "secrets", json!({"metadata": {"name": "o"}}));
    make(&store, "configmaps", owned_by(&owner, "Secret", "a", true));
    assert!(
        delete(&store, "secrets", "o", &policy("Orphan"))
            .unwrap()
            .gone
    );
    assert_eq!(
        list(
            &read(&store, "configmaps", "a"),
            &["metadata", "ownerReferences"]
        ),
        &[] as &[Value]
    );
    let refusal = refused(delete(&store, "configmaps", "a", &policy("Sideways")));
    assert_eq!(refusal.code, 422);
}

#[test]
fn in_the_foreground_the_owner_goes_last() {
    let store = store();
    let owner = make(&store, "secrets", json!({"metadata": {"name": "o"}}));
    let mut blocking = owned_by(&owner, "Secret", "a", true);
    blocking["metadata"]["finalizers"] = json!(["x/y"]);
    make(&store, "configmaps", blocking);
    let waits = delete(&store, "secrets", "o", &policy("Foreground")).unwrap();
    assert!(!waits.gone);
    assert_eq!(
        list(&waits.answer, &["metadata", "finalizers"]),
        [json!("foregroundDeletion")]
    );
    patch(
        &store,
        "configmaps",
        "a",
        Part::Whole,
        json!({"metadata": {"finalizers": null}}),
    )
    .unwrap();
    assert!(!exists(&store, "configmaps", "a") && !exists(&store, "secrets", "o"));
}

#[test]
fn what_is_born_after_its_owner_is_collected() {
    let store = store();
    let owner = make(&store, "secrets", json!({"metadata": {"name": "o"}}));
    delete(&store, "secrets", "o", &DeleteOptions::default()).unwrap();
    make(&store, "configmaps", owned_by(&owner, "Secret", "a", false));
    assert!(!exists(&store, "configmaps", "a"));
    make(
        &store,
        "configmaps",
        owned_by(&owner, "Unknown", "b", false),
    );
    assert!(
        exists(&store, "configmaps", "b"),
        "of a kind that is not served nobody knows"
    );
}

#[test]
fn a_collection_is_deleted_by_what_selects() {
    let store = store();
    for name in ["a", "b", "c"] {
        make(&store, "configmaps", config_map(name));
    }
    let not_b = |object: &crate::object::Object| object.key.name() != "b";
    let gone = store
        .delete_collection("configmaps", "default", not_b, &DeleteOptions::default())
        .unwrap();
    assert_eq!(gone.len(), 2);
    assert!(exists(&store, "configmaps", "b") && !exists(&store, "configmaps", "a"));
}

#[test]
fn a_namespace_goes_with_its_content() {
    let store = with_kubelet();
    let namespace = json!({"metadata": {"name": "ns"}});
    let made = store
        .create("namespaces", "", namespace, &Options::default())
        .unwrap();
    assert_eq!(text(&made, &["status", "phase"]), "Active");
    assert_eq!(
        text(
            &made,
            &["metadata", "labels", "kubernetes.io/metadata.name"]
        ),
        "ns"
    );
    let create = |resource: &str, object| store.create(resource, "ns", object, &Options::default());
    create("configmaps", config_map("a")).unwrap();
    create("pods", pod("p")).unwrap();
    let waits = store
        .delete("namespaces", &Key::new("", "ns"), &DeleteOptions::default())
        .unwrap();
    assert_eq!(
        text(&waits.answer, &["status", "phase"]),
        "Terminating",
        "the pod has its grace"
    );
    assert!(store.get("configmaps", &Key::new("ns", "a")).is_none());
    let refusal = refused(create("configmaps", config_map("b")));
    assert_eq!(
        (refusal.code, refusal.message.as_str()),
        (
            403,
            "configmaps \"b\" is forbidden: unable to create new content in namespace ns because it is being terminated"
        )
    );
    let now = DeleteOptions {
        grace_period_seconds: Some(0),
        ..DeleteOptions::default()
    };
    store.delete("pods", &Key::new("ns", "p"), &now).unwrap();
    assert!(store.get("namespaces", &Key::new("", "ns")).is_none());
}

#[test]
fn some_namespaces_stay() {
    let store = store();
    for name in ["default", "kube-system"] {
        let deleted = store.delete("namespaces", &Key::new("", name), &DeleteOptions::default());
        assert_eq!(
            refused(deleted).message,
            format!("namespaces {name:?} is forbidden: this namespace may not be deleted")
        );
    }
}
