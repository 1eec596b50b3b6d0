//! Custom kinds: a CustomResourceDefinition is served from the moment that it is there.
//!
//! Of several versions the stored one is served, and no other: there is no conversion here.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    defaults,
    definition::{Definition, Scale},
    fields::{at, list, set, text},
    refusal::{Refusal, Wrong},
    store::{Id, Inner, Shown},
};
use crate::{
    cache::Identity,
    object::{Path, Selectable},
};

/// Whether a resource is that of the definitions.
pub(super) fn is(definition: &Definition) -> bool {
    definition.is("apiextensions.k8s.io", "customresourcedefinitions")
}

/// Holds a definition back until its objects are gone.
pub(super) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Says in a new definition's status that its kind is served.
pub(super) fn establish(crd: &mut Value, now: &str) {
    let status = defaults::established(crd, now);
    set(crd, &["status"], status);
    set(crd, &["metadata", "finalizers"], json!([CLEANUP]));
}

/// Refuses a definition that cannot be served. The version that is stored stays the same: nothing here converts.
pub(super) fn check(inner: &Inner, definition: &Definition, crd: &Value) -> Result<(), Refusal> {
    let name = text(crd, &["metadata", "name"]);
    let refuse = |wrong| Refusal::invalid(definition, name, &[wrong]);
    let defined = define(crd).map_err(refuse)?;
    let served = inner
        .resources
        .get(name)
        .map(|it| &it.definition.identity.version);
    if served.is_some_and(|served| *served != defined.identity.version) {
        let why = "the sandbox does not convert objects: the stored version stays as it is";
        return Err(refuse(Wrong::forbidden("spec.versions", why)));
    }
    Ok(())
}

/// Serves what a definition says, from now on or in a new way.
pub(super) fn serve(inner: &mut Inner, crd: &Value) -> Result<(), Refusal> {
    let defined = define(crd).map_err(|wrong| Refusal::internal(wrong.field))?;
    let version = stored(crd);
    let columns = version.get("additionalPrinterColumns").cloned();
    let shown = Shown {
        columns: Some(columns.unwrap_or_else(|| json!([]))),
        schema: at(version, &["schema", "openAPIV3Schema"]).cloned(),
    };
    let definition = Arc::new(defined);
    if inner.resources.contains_key(&*definition.resource()) {
        inner.redefine(definition, shown);
    } else {
        inner.serve(definition, shown);
    }
    Ok(())
}

/// The objects of a definition's kind.
pub(super) fn content(inner: &Inner, crd: &Value) -> Vec<Id> {
    let name = text(crd, &["metadata", "name"]);
    let resource = inner.resource(name).ok();
    let keys = resource
        .filter(|it| it.definition.custom)
        .map(|it| it.keys(""));
    let id = |key| Id {
        resource: name.into(),
        key,
    };
    keys.into_iter().flatten().map(id).collect()
}

/// Serves the kind of a definition no more.
pub(super) fn withdraw(inner: &mut Inner, crd: &Value) {
    let name = text(crd, &["metadata", "name"]);
    let custom = inner.resource(name).is_ok_and(|it| it.definition.custom);
    if custom {
        inner.retire(name);
    }
}

fn stored(crd: &Value) -> &Value {
    let versions = list(crd, &["spec", "versions"]).iter();
    let mut stored = versions.filter(|it| it.get("storage") == Some(&true.into()));
    stored.next().unwrap_or(&Value::Null)
}

fn define(crd: &Value) -> Result<Definition, Wrong> {
    let version = stored(crd);
    let names = at(crd, &["spec", "names"]).unwrap_or(&Value::Null);
    let words = |field: &str| -> Vec<String> {
        let words = list(names, &[field]).iter().filter_map(Value::as_str);
        words.map(str::to_owned).collect()
    };
    let paths: Vec<(usize, &Value)> = list(version, &["selectableFields"])
        .iter()
        .enumerate()
        .collect();
    let mut fields = Vec::new();
    for (at, field) in paths {
        let path = text(field, &["jsonPath"]);
        fields.push(path.parse::<Path>().map_err(|error| {
            let place = format!("spec.versions[].selectableFields[{at}].jsonPath");
            Wrong::invalid(place, &path.into(), error.to_string())
        })?);
    }
    let selectable = Selectable::default().with(fields).map_err(|error| {
        let given = at(version, &["selectableFields"]).cloned();
        let place = "spec.versions[].selectableFields";
        Wrong::invalid(place, &given.unwrap_or_default(), error.to_string())
    })?;
    let scale = at(version, &["subresources", "scale"]).map(|scale| Scale {
        spec_replicas: pointer(text(scale, &["specReplicasPath"])),
        status_replicas: pointer(text(scale, &["statusReplicasPath"])),
        label_selector: Some(pointer(text(scale, &["labelSelectorPath"]))),
    });
    Ok(Definition {
        identity: Identity {
            group: text(crd, &["spec", "group"]).to_owned(),
            version: text(version, &["name"]).to_owned(),
            kind: text(names, &["kind"]).to_owned(),
            plural: text(names, &["plural"]).to_owned(),
            singular: text(names, &["singular"]).to_owned(),
            short_names: words("shortNames"),
            namespaced: text(crd, &["spec", "scope"]) == "Namespaced",
            selectable,
        },
        categories: words("categories"),
        status: at(version, &["subresources", "status"]).is_some(),
        keeps_status: false,
        scale,
        generation: true,
        unconditional_update: false,
        create_on_update: false,
        returns_deleted: false,
        custom: true,
    })
}

/// `.spec.replicas` as a JSON pointer. Such a path has names only.
fn pointer(path: &str) -> String {
    path.replace('.', "/")
}
