//! Kinds that are defined, changed and taken back.

use super::*;

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
