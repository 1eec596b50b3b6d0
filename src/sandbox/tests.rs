//! The rules of the store, each as a person would say it. What the errors say is the API server's wording.

use serde_json::{Value, json};

use super::{
    fields::{at, list, number, text},
    lifecycle::{Deleted, Preconditions},
    *,
};
use crate::object::Key;

const DEPLOYMENTS: &str = "deployments.apps";
const SETS: &str = "replicasets.apps";
const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

fn store() -> Store {
    Store::new(Settings::default())
}

fn with_kubelet() -> Store {
    Store::new(Settings {
        kubelet: true,
        ..Settings::default()
    })
}

fn key(name: &str) -> Key {
    Key::new("default", name)
}

fn make(store: &Store, resource: &str, object: Value) -> Value {
    store
        .create(resource, "default", object, &Options::default())
        .unwrap()
}

fn refused(result: Result<impl std::fmt::Debug, Refusal>) -> Refusal {
    result.unwrap_err()
}

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}})
}

fn deployment(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
    }})
}

fn crd() -> Value {
    json!({"metadata": {"name": "cats.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced",
        "names": {"plural": "cats", "kind": "Cat", "shortNames": ["ct"]},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}},
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.lives",
                "statusReplicasPath": ".status.lives", "labelSelectorPath": ".status.selector"}}}],
    }})
}

fn owned_by(owner: &Value, kind: &str, name: &str, block: bool) -> Value {
    let mut object = config_map(name);
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": kind, "name": text(owner, &["metadata", "name"]),
        "uid": text(owner, &["metadata", "uid"]), "blockOwnerDeletion": block,
    }]);
    object
}

fn exists(store: &Store, resource: &str, name: &str) -> bool {
    store.get(resource, &key(name)).is_some()
}

fn read(store: &Store, resource: &str, name: &str) -> Value {
    let object = store.get(resource, &key(name)).expect("it is there");
    serde_json::from_slice(&object.json).unwrap()
}

fn version(object: &Value) -> u64 {
    text(object, &["metadata", "resourceVersion"])
        .parse()
        .unwrap()
}

fn patch(
    store: &Store,
    resource: &str,
    name: &str,
    part: Part,
    patch: Value,
) -> Result<Written, Refusal> {
    store.patch(
        resource,
        &key(name),
        part,
        &Patch::Merge(patch),
        &Options::default(),
    )
}

fn delete(
    store: &Store,
    resource: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted, Refusal> {
    store.delete(resource, &key(name), options)
}

fn policy(name: &str) -> DeleteOptions {
    DeleteOptions {
        propagation_policy: Some(name.to_owned()),
        ..DeleteOptions::default()
    }
}

// Creation.

#[test]
fn a_created_object_gets_what_only_the_server_gives() {
    let store = store();
    let mut given = config_map("a");
    given["metadata"]["uid"] = "mine".into();
    given["metadata"]["deletionTimestamp"] = "2020-01-01T00:00:00Z".into();
    let made = make(&store, "configmaps", given);
    let uid = text(&made, &["metadata", "uid"]);
    assert_eq!(
        (uid.len(), &uid[14..15]),
        (36, "4"),
        "a version 4 uid: {uid}"
    );
    assert_eq!(version(&made), store.revision());
    assert!(text(&made, &["metadata", "creationTimestamp"]).ends_with('Z'));
    assert_eq!(at(&made, &["metadata", "deletionTimestamp"]), None);
    assert_eq!(text(&made, &["metadata", "namespace"]), "default");
    assert_eq!(
        (text(&made, &["apiVersion"]), text(&made, &["kind"])),
        ("v1", "ConfigMap")
    );
    assert_eq!(read(&store, "configmaps", "a"), made);
}

#[test]
fn a_name_is_generated_where_one_is_asked_for() {
    let store = store();
    let given = json!({"metadata": {"generateName": "a-"}});
    let made = make(&store, "configmaps", given);
    let name = text(&made, &["metadata", "name"]);
    assert!(name.starts_with("a-") && name.len() == 7, "{name}");
}

#[test]
fn a_name_is_taken_once() {
    let store = store();
    make(&store, DEPLOYMENTS, deployment("a"));
    let again = store.create(DEPLOYMENTS, "default", deployment("a"), &Options::default());
    let refusal = refused(again);
    assert_eq!(
        refusal.to_status(),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "deployments.apps \"a\" already exists", "reason": "AlreadyExists",
            "details": {"name": "a", "group": "apps", "kind": "deployments"}, "code": 409})
    );
}

#[test]
fn names_labels_and_required_basics_are_checked() {
    let store = store();
    let create = |resource: &str, object: Value| {
        refused(store.create(resource, "default", object, &Options::default()))
    };
    let refusal = create("configmaps", json!({"metadata": {"name": "A_b"}}));
    assert_eq!((refusal.code, refusal.reason), (422, "Invalid"));
    assert!(
        refusal.message.starts_with(
            "ConfigMap \"A_b\" is invalid: metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must"
        ),
        "{refusal}"
    );
    let refusal = create("configmaps", json!({}));
    assert_eq!(
        refusal.message,
        "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required"
    );
    let refusal = create("pods", json!({"metadata": {"name": "p"}}));
    assert_eq!(
        refusal.message,
        "Pod \"p\" is invalid: spec.containers: Required value"
    );
    assert_eq!(refusal.details["causes"][0]["reason"], "FieldValueRequired");
    let mut wrong = deployment("d");
    wrong["spec"]["template"]["metadata"]["labels"]["app"] = "e".into();
    let refusal = create(DEPLOYMENTS, wrong);
    assert_eq!(
        refusal.message,
        "Deployment.apps \"d\" is invalid: spec.template.metadata.labels: Invalid value: {\"app\":\"e\"}: \
         `selector` does not match template `labels`"
    );
    let mut wrong = config_map("c");
    wrong["metadata"]["labels"] = json!({"a b": "c", "d": "e f"});
    let refusal = create("configmaps", wrong);
    assert_eq!(list(&refusal.details, &["causes"]).len(), 2, "{refusal}");
    let refusal = create(
        "services",
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 0}]}}),
    );
    assert!(
        refusal
            .message
            .contains("spec.ports[0].port: Invalid value: 0: must be between 1 and 65535")
    );
}

#[test]
fn the_body_must_be_what_the_path_says() {
    let store = store();
    let create =
        |object: Value| refused(store.create("configmaps", "default", object, &Options::default()));
    for (object, said) in [
        (
            json!({"kind": "Secret"}),
            "Secret in version \"v1\" cannot be handled as a ConfigMap",
        ),
        (
            json!({"apiVersion": "v2"}),
            "the API version in the data (v2) does not match the expected API version (v1)",
        ),
        (
            json!({"metadata": {"name": "a", "namespace": "b"}}),
            "the namespace of the provided object does not match",
        ),
        (json!([]), "must be a JSON object"),
    ] {
        let refusal = create(object);
        assert_eq!(refusal.code, 400);
        assert!(refusal.message.contains(said), "{refusal}");
    }
    let refusal = create(json!({"metadata": {"name": "a", "resourceVersion": "5"}}));
    assert_eq!(
        refusal.message,
        "resourceVersion should not be set on objects to be created"
    );
}

#[test]
fn there_is_no_creating_in_a_namespace_that_is_not_there() {
    let refusal = refused(store().create(
        "configmaps",
        "nowhere",
        config_map("a"),
        &Options::default(),
    ));
    assert_eq!(
        (refusal.code, refusal.message.as_str()),
        (404, "namespaces \"nowhere\" not found")
    );
}

#[test]
fn a_dry_run_does_everything_but_store() {
    let store = store();
    let before = store.revision();
    let dry = Options {
        dry_run: true,
        ..Options::default()
    };
    let made = store
        .create(DEPLOYMENTS, "default", deployment("a"), &dry)
        .unwrap();
    assert_eq!(
        number(&made, &["spec", "replicas"]),
        Some(1),
        "defaults are shown"
    );
    assert!(!exists(&store, DEPLOYMENTS, "a"));
    make(&store, "configmaps", config_map("b"));
    let change = Patch::Merge(json!({"data": {"a": "2"}}));
    let written = store
        .patch("configmaps", &key("b"), Part::Whole, &change, &dry)
        .unwrap();
    assert_eq!(text(&written.object, &["data", "a"]), "2");
    assert_eq!(text(&read(&store, "configmaps", "b"), &["data", "a"]), "1");
    let options = DeleteOptions {
        dry_run: vec!["All".to_owned()],
        ..DeleteOptions::default()
    };
    delete(&store, "configmaps", "b", &options).unwrap();
    assert!(exists(&store, "configmaps", "b"));
    assert_eq!(store.revision(), before + 1);
}

#[test]
fn what_a_writer_leaves_out_is_filled_in_as_the_server_does() {
    let store = store();
    let made = make(&store, DEPLOYMENTS, deployment("a"));
    assert_eq!(
        text(&made, &["spec", "strategy", "rollingUpdate", "maxSurge"]),
        "25%"
    );
    assert_eq!(
        text(&made, &["spec", "template", "spec", "restartPolicy"]),
        "Always"
    );
    let service = make(
        &store,
        "services",
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}}),
    );
    assert!(text(&service, &["spec", "clusterIP"]).starts_with("10.96."));
    assert_eq!(service["spec"]["ports"][0]["targetPort"], 80);
    let headless = json!({"metadata": {"name": "h"}, "spec": {"clusterIP": "None"}});
    assert_eq!(
        make(&store, "services", headless)["spec"]["clusterIPs"],
        json!(["None"])
    );
    let secret = make(
        &store,
        "secrets",
        json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}}),
    );
    assert_eq!(
        (text(&secret, &["type"]), text(&secret, &["data", "a"])),
        ("Opaque", "Yg==")
    );
}

// Updates.

#[test]
fn an_update_of_what_has_changed_meanwhile_is_a_conflict() {
    let store = store();
    let seen = make(&store, "configmaps", config_map("a"));
    patch(
        &store,
        "configmaps",
        "a",
        Part::Whole,
        json!({"data": {"a": "2"}}),
    )
    .unwrap();
    let update = |object| {
        store.update(
            "configmaps",
            &key("a"),
            Part::Whole,
            object,
            &Options::default(),
        )
    };
    let refusal = refused(update(seen.clone()));
    assert_eq!((refusal.code, refusal.reason), (409, "Conflict"));
    assert_eq!(
        refusal.message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes \
         to the latest version and try again"
    );
    let mut other = seen.clone();
    other["metadata"]["uid"] = "x".into();
    assert!(
        refused(update(other))
            .message
            .contains("Precondition failed: UID in precondition: x")
    );
    let mut blind = seen;
    fields::remove(&mut blind, &["metadata", "resourceVersion"]);
    assert!(update(blind).is_ok(), "without a version the last one wins");
}

#[test]
fn some_kinds_are_updated_only_by_who_has_seen_them() {
    let store = store();
    make(
        &store,
        "leases.coordination.k8s.io",
        json!({"metadata": {"name": "l"}}),
    );
    let blind = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "x"}});
    let refusal = refused(store.update(
        "leases.coordination.k8s.io",
        &key("l"),
        Part::Whole,
        blind,
        &Options::default(),
    ));
    assert_eq!(refusal.code, 422);
    assert!(
        refusal.message.contains(
            "metadata.resourceVersion: Invalid value: 0: must be specified for an update"
        )
    );
}

#[test]
fn an_update_names_its_object() {
    let store = store();
    make(&store, "configmaps", config_map("a"));
    let update = |name: &str, object| {
        store.update(
            "configmaps",
            &key(name),
            Part::Whole,
            object,
            &Options::default(),
        )
    };
    assert_eq!(
        refused(update("a", config_map("b"))).message,
        "the name of the object (b) does not match the name on the URL (a)"
    );
    assert_eq!(
        refused(update("b", config_map("b"))).message,
        "configmaps \"b\" not found"
    );
}

#[test]
fn what_says_nothing_new_is_not_written() {
    let store = store();
    let made = make(&store, "configmaps", config_map("a"));
    let written = patch(
        &store,
        "configmaps",
        "a",
        Part::Whole,
        json!({"data": {"a": "1"}}),
    )
    .unwrap();
    assert_eq!(version(&written.object), version(&made));
    assert_eq!(store.revision(), version(&made));
}

#[test]
fn the_generation_counts_changes_of_the_spec_only() {
    let store = store();
    let made = make(&store, DEPLOYMENTS, deployment("a"));
    assert_eq!(number(&made, &["metadata", "generation"]), Some(1));
    let generation = |part, change| {
        let written = patch(&store, DEPLOYMENTS, "a", part, change).unwrap();
        number(&written.object, &["metadata", "generation"])
    };
    assert_eq!(
        generation(Part::Whole, json!({"metadata": {"labels": {"x": "y"}}})),
        Some(1)
    );
    assert_eq!(
        generation(Part::Status, json!({"status": {"replicas": 1}})),
        Some(1)
    );
    assert_eq!(
        generation(Part::Whole, json!({"spec": {"replicas": 3}})),
        Some(2)
    );
    let map = make(&store, "configmaps", config_map("a"));
    assert_eq!(
        number(&map, &["metadata", "generation"]),
        None,
        "config maps have none"
    );
}

#[test]
fn status_and_the_rest_are_written_apart() {
    let store = store();
    make(&store, DEPLOYMENTS, deployment("a"));
    let both = json!({"spec": {"replicas": 5}, "status": {"replicas": 4}});
    let whole = patch(&store, DEPLOYMENTS, "a", Part::Whole, both.clone())
        .unwrap()
        .object;
    assert_eq!(
        (
            number(&whole, &["spec", "replicas"]),
            at(&whole, &["status", "replicas"])
        ),
        (Some(5), None)
    );
    let other = json!({"spec": {"replicas": 6}, "status": {"replicas": 4}});
    let status = patch(&store, DEPLOYMENTS, "a", Part::Status, other)
        .unwrap()
        .object;
    assert_eq!(
        (
            number(&status, &["spec", "replicas"]),
            number(&status, &["status", "replicas"])
        ),
        (Some(5), Some(4))
    );
    make(&store, "configmaps", config_map("a"));
    let none = patch(&store, "configmaps", "a", Part::Status, json!({}));
    assert_eq!(refused(none).code, 404, "config maps have no status");
    let born = json!({"metadata": {"name": "b"}, "status": {"replicas": 9}});
    let mut given = deployment("b");
    json_patch::merge(&mut given, &born);
    assert_eq!(
        at(&make(&store, DEPLOYMENTS, given), &["status", "replicas"]),
        None
    );
    let node = json!({"metadata": {"name": "n"}, "status": {"nodeInfo": {"kubeletVersion": "v1"}}});
    let node = store
        .create("nodes", "", node, &Options::default())
        .unwrap();
    assert_eq!(
        text(&node, &["status", "nodeInfo", "kubeletVersion"]),
        "v1",
        "a node brings its status"
    );
}

#[test]
fn a_scale_is_read_and_written_in_its_own_form() {
    let store = store();
    make(&store, DEPLOYMENTS, deployment("a"));
    let scale = store.scale(DEPLOYMENTS, &key("a")).unwrap();
    assert_eq!(
        (
            text(&scale, &["kind"]),
            text(&scale, &["status", "selector"])
        ),
        ("Scale", "app=a")
    );
    let written = patch(
        &store,
        DEPLOYMENTS,
        "a",
        Part::Scale,
        json!({"spec": {"replicas": 7}}),
    )
    .unwrap();
    assert_eq!(number(&written.object, &["spec", "replicas"]), Some(7));
    let now = read(&store, DEPLOYMENTS, "a");
    assert_eq!(
        (
            number(&now, &["spec", "replicas"]),
            number(&now, &["metadata", "generation"])
        ),
        (Some(7), Some(2))
    );
    let stale = store.update(
        DEPLOYMENTS,
        &key("a"),
        Part::Scale,
        scale,
        &Options::default(),
    );
    assert_eq!(refused(stale).reason, "Conflict");
    assert_eq!(refused(store.scale("configmaps", &key("a"))).code, 404);
    assert_eq!(
        refused(patch(
            &store,
            DEPLOYMENTS,
            "a",
            Part::Scale,
            json!({"spec": {"replicas": -1}})
        ))
        .code,
        422
    );
}

#[test]
fn what_is_fixed_stays_fixed() {
    let store = store();
    make(&store, DEPLOYMENTS, deployment("a"));
    let change = json!({"spec": {"selector": {"matchLabels": {"x": "y"}}, "template": {"metadata": {"labels": {"x": "y"}}}}});
    let refusal = refused(patch(&store, DEPLOYMENTS, "a", Part::Whole, change));
    assert!(
        refusal.message.contains("spec.selector: Invalid value"),
        "{refusal}"
    );
    assert!(refusal.message.ends_with("field is immutable"), "{refusal}");
    make(&store, "pods", pod("p"));
    let moved = patch(
        &store,
        "pods",
        "p",
        Part::Whole,
        json!({"spec": {"nodeName": "m"}}),
    );
    assert!(
        refused(moved)
            .message
            .contains("pod updates may not change fields other than")
    );
    let image = json!({"spec": {"containers": [{"name": "c", "image": "j"}]}});
    let image = Patch::Strategic(image);
    assert!(
        store
            .patch("pods", &key("p"), Part::Whole, &image, &Options::default())
            .is_ok()
    );
    make(
        &store,
        "configmaps",
        json!({"metadata": {"name": "i"}, "immutable": true, "data": {"a": "1"}}),
    );
    assert_eq!(
        refused(patch(
            &store,
            "configmaps",
            "i",
            Part::Whole,
            json!({"data": {"a": "2"}})
        ))
        .code,
        422
    );
}

// Patches.

#[test]
fn a_json_patch_is_tested_and_applied() {
    let store = store();
    make(&store, "configmaps", config_map("a"));
    let apply = |text: &str| {
        let definition = &store.find("configmaps").unwrap().definition;
        let patch = Patch::parse("application/json-patch+json", text.as_bytes(), definition)?;
        store.patch(
            "configmaps",
            &key("a"),
            Part::Whole,
            &patch,
            &Options::default(),
        )
    };
    let good = apply(
        r#"[{"op":"test","path":"/data/a","value":"1"},{"op":"add","path":"/data/b","value":"2"}]"#,
    );
    assert_eq!(good.unwrap().object["data"], json!({"a": "1", "b": "2"}));
    let bad = refused(apply(r#"[{"op":"test","path":"/data/a","value":"x"}]"#));
    assert_eq!((bad.code, bad.reason), (422, "Invalid"));
    assert_eq!(refused(apply("{")).code, 400);
}

#[test]
fn a_patch_with_a_version_must_have_seen_it() {
    let store = store();
    make(&store, "configmaps", config_map("a"));
    let change = json!({"metadata": {"resourceVersion": "1"}, "data": {"a": "2"}});
    assert_eq!(
        refused(patch(&store, "configmaps", "a", Part::Whole, change)).reason,
        "Conflict"
    );
}

#[test]
fn a_strategic_patch_is_for_built_in_kinds_only() {
    let store = store();
    store.create(CRDS, "", crd(), &Options::default()).unwrap();
    let custom = &store.find("cats.example.com").unwrap().definition;
    let refusal = refused(Patch::parse(
        "application/strategic-merge-patch+json",
        b"{}",
        custom,
    ));
    assert_eq!(
        (refusal.code, refusal.message.as_str()),
        (
            415,
            "the body of the request was in an unknown format - accepted media types include: \
            application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
        )
    );
    assert_eq!(refused(Patch::parse("text/plain", b"{}", custom)).code, 415);
}

#[test]
fn server_side_apply_creates_then_merges_and_takes_back_what_it_left_out() {
    let store = store();
    let apply = |wanted: Value| {
        let options = Options {
            field_manager: "me".to_owned(),
            ..Options::default()
        };
        let patch = Patch::Apply { object: wanted };
        store
            .patch("configmaps", &key("a"), Part::Whole, &patch, &options)
            .unwrap()
    };
    let first =
        apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1", "b": "2"}}));
    assert!(first.created);
    patch(
        &store,
        "configmaps",
        "a",
        Part::Whole,
        json!({"data": {"other": "3"}}),
    )
    .unwrap();
    let second = apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "4"}}));
    assert!(!second.created);
    assert_eq!(second.object["data"], json!({"a": "4", "other": "3"}));
    let nobody = Patch::Apply { object: json!({}) };
    let refusal = refused(store.patch(
        "configmaps",
        &key("a"),
        Part::Whole,
        &nobody,
        &Options::default(),
    ));
    assert!(
        refusal.message.contains("fieldManager: Required value"),
        "{refusal}"
    );
}

// Deletion.

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

// Namespaces.

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

// Custom kinds.

#[test]
fn a_definition_is_served_at_once() {
    let store = store();
    let made = store.create(CRDS, "", crd(), &Options::default()).unwrap();
    let conditions: Vec<(&str, &str)> = list(&made, &["status", "conditions"])
        .iter()
        .map(|it| (text(it, &["type"]), text(it, &["status"])))
        .collect();
    assert_eq!(
        conditions,
        [("NamesAccepted", "True"), ("Established", "True")]
    );
    assert_eq!(text(&made, &["spec", "names", "listKind"]), "CatList");
    let cat = make(
        &store,
        "cats.example.com",
        json!({"metadata": {"name": "c"}, "spec": {"lives": 9}, "status": {"lives": 1}}),
    );
    assert_eq!(
        (text(&cat, &["apiVersion"]), at(&cat, &["status"])),
        ("example.com/v1", None)
    );
    let scale = store.scale("cats.example.com", &key("c")).unwrap();
    assert_eq!(number(&scale, &["spec", "replicas"]), Some(9));
    let changed = patch(
        &store,
        "cats.example.com",
        "c",
        Part::Whole,
        json!({"spec": {"lives": 8}}),
    )
    .unwrap();
    assert_eq!(
        number(&changed.object, &["metadata", "generation"]),
        Some(2)
    );
}

#[test]
fn a_definition_takes_its_objects_along() {
    let store = store();
    store.create(CRDS, "", crd(), &Options::default()).unwrap();
    let mut cat = json!({"metadata": {"name": "c", "finalizers": ["x/y"]}});
    make(&store, "cats.example.com", cat.clone());
    let deleted = store
        .delete(
            CRDS,
            &Key::new("", "cats.example.com"),
            &DeleteOptions::default(),
        )
        .unwrap();
    assert!(!deleted.gone, "the cat's finalizer is waited for");
    cat["metadata"]["finalizers"] = Value::Null;
    patch(
        &store,
        "cats.example.com",
        "c",
        Part::Whole,
        json!({"metadata": {"finalizers": null}}),
    )
    .unwrap();
    assert!(store.find("cats.example.com").is_none());
    assert!(store.get(CRDS, &Key::new("", "cats.example.com")).is_none());
    let refusal = refused(store.create("cats.example.com", "default", cat, &Options::default()));
    assert_eq!(
        refusal.message,
        "the server could not find the requested resource"
    );
    store.create(CRDS, "", crd(), &Options::default()).unwrap();
    assert!(
        store.find("cats.example.com").is_some(),
        "it may come again"
    );
}

#[test]
fn a_definition_that_makes_no_sense_is_refused() {
    let store = store();
    let mut wrong = crd();
    wrong["metadata"]["name"] = "dogs.example.com".into();
    let refusal = refused(store.create(CRDS, "", wrong, &Options::default()));
    assert!(
        refusal
            .message
            .contains("must be spec.names.plural+\".\"+spec.group"),
        "{refusal}"
    );
    let mut wrong = crd();
    wrong["spec"]["versions"][0]["storage"] = false.into();
    let refusal = refused(store.create(CRDS, "", wrong, &Options::default()));
    assert!(
        refusal
            .message
            .contains("must have exactly one version marked as storage version"),
        "{refusal}"
    );
}

// Readers.

#[test]
fn every_write_is_one_revision_and_readers_see_it_at_once() {
    let store = store();
    let kind = store.find("configmaps").unwrap().kind.clone();
    let seen = || kind.shards()[0].state().unwrap();
    let made = make(&store, "configmaps", config_map("a"));
    assert_eq!((seen().revision, seen().objects.len()), (version(&made), 1));
    make(&store, "secrets", json!({"metadata": {"name": "s"}}));
    assert_eq!(
        seen().revision,
        version(&made),
        "another kind's write is none of its own"
    );
    store.advance();
    assert_eq!(
        seen().revision,
        store.revision(),
        "but it is complete up to it"
    );
    delete(&store, "configmaps", "a", &DeleteOptions::default()).unwrap();
    assert_eq!(
        (seen().revision, seen().objects.len()),
        (store.revision(), 0)
    );
}

#[test]
fn the_same_seed_draws_the_same_uids() {
    let uids = |seed| {
        let store = Store::new(Settings {
            seed,
            kubelet: false,
        });
        let made = make(&store, SETS, deployment("a"));
        text(&made, &["metadata", "uid"]).to_owned()
    };
    assert_eq!(uids(1), uids(1));
    assert_ne!(uids(1), uids(2));
}
