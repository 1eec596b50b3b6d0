//! The rules of the store, each as a person would say it. What the errors say is the API server's wording.

use serde_json::{Value, json};

use super::{
    fields::{at, list, number, text},
    lifecycle::{Deleted, Preconditions},
    *,
};
use crate::object::Key;

mod creation;
mod custom_kinds;
mod deletion;
mod updates;

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
