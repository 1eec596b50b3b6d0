//! What is created, and what is not.

use super::*;

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
