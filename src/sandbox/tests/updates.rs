//! What is changed, by whom, and what stays as it was.

use super::*;

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
