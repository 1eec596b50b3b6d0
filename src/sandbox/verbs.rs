//! What a client may do: create, update, patch, and their rules, as the API server has them. Deletion has a file of
//! its own ([`super::lifecycle`]).

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    FieldValidation,
    conform::conform,
    crd, defaults,
    definition::Definition,
    fields::{at, copy, drop_nulls, list, number, remove, set, text},
    patch::{Lists, Patch},
    refusal::{Refusal, Wrong},
    store::{Id, Inner, Store, has_finalizers},
    validate,
};
use crate::object::Key;

/// How many names are tried for an object that asks for a generated one.
const NAMES: usize = 8;

/// What may be said with a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Do everything but store it.
    pub dry_run: bool,
    /// Who writes, for server-side apply.
    pub field_manager: String,
    /// Of what a patch comes to; what is written whole is looked at before.
    pub field_validation: FieldValidation,
}

/// What of an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but its status, where that is written apart.
    Whole,
    /// `/status`.
    Status,
    /// `/scale`.
    Scale,
}

/// What a write came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The object now.
    pub object: Value,
    /// It was not there before.
    pub created: bool,
    /// What a patch would have added that the kind does not have, in words.
    pub unknown: Vec<String>,
}

impl Store {
    /// Creates an object.
    pub fn create(
        &self,
        resource: &str,
        namespace: &str,
        object: Value,
        options: &Options,
    ) -> Result<Value, Refusal> {
        self.lock().create(resource, namespace, object, options)
    }

    /// Replaces an object, or a part of it.
    pub fn update(
        &self,
        resource: &str,
        key: &Key,
        part: Part,
        object: Value,
        options: &Options,
    ) -> Result<Written, Refusal> {
        self.lock().update(resource, key, part, object, options)
    }

    /// Changes an object, or a part of it.
    pub fn patch(
        &self,
        resource: &str,
        key: &Key,
        part: Part,
        patch: &Patch,
        options: &Options,
    ) -> Result<Written, Refusal> {
        self.lock().patch(resource, key, part, patch, options)
    }

    /// An object's scale.
    pub fn scale(&self, resource: &str, key: &Key) -> Result<Value, Refusal> {
        let inner = self.lock();
        let (definition, id) = inner.place(resource, key)?;
        let object = inner.existing(&definition, &id)?;
        scale_of(&definition, &object)
    }

    /// Puts a pod on a node, as a scheduler does.
    pub fn bind(&self, key: &Key, node: &str) -> Result<Value, Refusal> {
        let mut inner = self.lock();
        let (definition, id) = inner.place("pods", key)?;
        let mut pod = inner.existing(&definition, &id)?;
        let held = text(&pod, &["spec", "nodeName"]);
        if !held.is_empty() {
            let why = format!("pod {} is already assigned to node {held:?}", key.name());
            return Err(Refusal::conflict(&definition, key.name(), &why));
        }
        set(&mut pod, &["spec", "nodeName"], node);
        let now = inner.now(0);
        let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
        set(&mut pod, &["status", "conditions"], json!([scheduled]));
        inner.commit(&id, pod)
    }

    /// Changes an object within one step; what `change` leaves as it was is not written. For those in the same
    /// process, who need no protocol.
    pub fn modify(
        &self,
        resource: &str,
        key: &Key,
        part: Part,
        change: impl FnOnce(&mut Value),
    ) -> Result<Value, Refusal> {
        let mut inner = self.lock();
        let (definition, id) = inner.place(resource, key)?;
        let mut object = inner.existing(&definition, &id)?;
        change(&mut object);
        let written = inner.update(resource, key, part, object, &Options::default())?;
        Ok(written.object)
    }
}

impl Inner {
    pub(super) fn place(
        &self,
        resource: &str,
        key: &Key,
    ) -> Result<(Arc<Definition>, Id), Refusal> {
        let definition = self.resource(resource)?.definition.clone();
        let id = Id {
            resource: resource.into(),
            key: key.clone(),
        };
        Ok((definition, id))
    }

    pub(super) fn existing(&self, definition: &Definition, id: &Id) -> Result<Value, Refusal> {
        self.read(id)
            .ok_or_else(|| Refusal::not_found(definition, id.key.name()))
    }

    pub(super) fn create(
        &mut self,
        resource: &str,
        namespace: &str,
        mut object: Value,
        options: &Options,
    ) -> Result<Value, Refusal> {
        let definition = self.resource(resource)?.definition.clone();
        check_type(&definition, &mut object)?;
        check_namespace(&definition, &mut object, namespace)?;
        if !text(&object, &["metadata", "resourceVersion"]).is_empty() {
            let why = "resourceVersion should not be set on objects to be created";
            return Err(Refusal::internal(why));
        }
        self.stamp(&definition, &mut object);
        let base = text(&object, &["metadata", "generateName"]).to_owned();
        let generate = text(&object, &["metadata", "name"]).is_empty() && !base.is_empty();
        // The API server cuts the base so that the name fits into a label.
        let base: String = base.chars().take(58).collect();
        let mut tries = if generate { NAMES } else { 1 };
        let id = loop {
            if generate {
                let name = format!("{base}{}", self.suffix());
                set(&mut object, &["metadata", "name"], name);
            }
            let name = text(&object, &["metadata", "name"]).to_owned();
            self.admit(&definition, &name, namespace)?;
            defaults::fill(&definition, &mut object);
            let wrong = validate::object(&definition, &object);
            if !wrong.is_empty() {
                return Err(Refusal::invalid(&definition, &name, &wrong));
            }
            let id = Id {
                resource: resource.into(),
                key: Key::new(namespace, &name),
            };
            if !self.holds(&id) {
                break id;
            }
            tries -= 1;
            if tries == 0 {
                return Err(Refusal::already_exists(&definition, &name));
            }
        };
        if definition.is("", "services") {
            self.addresses += 1;
            defaults::cluster_ip(&mut object, self.addresses);
        }
        if crd::is(&definition) {
            crd::establish(&mut object, &self.now(0));
            crd::check(self, &definition, &object)?;
        }
        if options.dry_run {
            return Ok(object);
        }
        let created = self.commit(&id, object)?;
        if crd::is(&definition) {
            crd::serve(self, &created)?;
        }
        self.collect_if_orphaned(&id, &created);
        Ok(created)
    }

    /// Whether the namespace takes it.
    fn admit(&self, definition: &Definition, name: &str, namespace: &str) -> Result<(), Refusal> {
        if !definition.identity.namespaced {
            return Ok(());
        }
        let namespaces = self.resource("namespaces")?;
        let Some(held) = namespaces.held(&Key::new("", namespace)) else {
            return Err(Refusal::not_found(&namespaces.definition, namespace));
        };
        if held.deletion_timestamp.is_some() {
            return Err(Refusal::terminating(definition, name, namespace));
        }
        Ok(())
    }

    /// What only the API server may say of a new object.
    fn stamp(&mut self, definition: &Definition, object: &mut Value) {
        for field in [
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "managedFields",
            "generation",
        ] {
            remove(object, &["metadata", field]);
        }
        set(object, &["metadata", "uid"], self.uid());
        set(object, &["metadata", "creationTimestamp"], self.now(0));
        if definition.generation {
            set(object, &["metadata", "generation"], 1);
        }
        if definition.status && !definition.keeps_status {
            remove(object, &["status"]);
        }
        if let Some(status) = defaults::first_status(definition) {
            set(object, &["status"], status);
        }
    }

    pub(super) fn update(
        &mut self,
        resource: &str,
        key: &Key,
        part: Part,
        mut new: Value,
        options: &Options,
    ) -> Result<Written, Refusal> {
        let (definition, id) = self.place(resource, key)?;
        if part == Part::Scale {
            let object = self.existing(&definition, &id)?;
            let wanted = rescaled(&definition, &object, &new)?;
            let written = self.update(resource, key, Part::Whole, wanted, options)?;
            return Ok(Written {
                object: scale_of(&definition, &written.object)?,
                created: false,
                unknown: Vec::new(),
            });
        }
        if part == Part::Status && !definition.status {
            return Err(Refusal::not_found(&definition, key.name()));
        }
        check_type(&definition, &mut new)?;
        let named = text(&new, &["metadata", "name"]);
        if named.is_empty() {
            return Err(Refusal::bad_request(
                "the name of the object must be given in metadata.name",
            ));
        }
        if named != key.name() {
            return Err(Refusal::bad_request(format!(
                "the name of the object ({named}) does not match the name on the URL ({})",
                key.name()
            )));
        }
        check_namespace(&definition, &mut new, key.namespace())?;
        let Some(old) = self.read(&id) else {
            if definition.create_on_update && part == Part::Whole {
                let object = self.create(resource, key.namespace(), new, options)?;
                return Ok(Written {
                    object,
                    created: true,
                    unknown: Vec::new(),
                });
            }
            return Err(Refusal::not_found(&definition, key.name()));
        };
        check_versions(&definition, &old, &new)?;
        let new = self.successor(&definition, part, &old, new)?;
        self.store_change(&definition, &id, &old, new, options)
    }

    /// The object that follows `old` where a writer wants `new`.
    fn successor(
        &self,
        definition: &Definition,
        part: Part,
        old: &Value,
        mut new: Value,
    ) -> Result<Value, Refusal> {
        if part == Part::Status {
            let status = new.get("status").cloned();
            new = old.clone();
            match status {
                Some(status) => set(&mut new, &["status"], status),
                None => {
                    remove(&mut new, &["status"]);
                }
            }
        } else if definition.status {
            copy(&mut new, old, &["status"]);
        }
        for field in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "generateName",
            "resourceVersion",
        ] {
            copy(&mut new, old, &["metadata", field]);
        }
        for field in ["selfLink", "managedFields"] {
            remove(&mut new, &["metadata", field]);
        }
        if definition.is("", "services") {
            // An address once given stays, where the writer leaves it out.
            for field in ["clusterIP", "clusterIPs"] {
                if at(&new, &["spec", field]).is_none() {
                    copy(&mut new, old, &["spec", field]);
                }
            }
        }
        defaults::fill(definition, &mut new);
        let mut wrong = validate::change(definition, old, &new);
        if part != Part::Status {
            wrong.extend(validate::object(definition, &new));
        }
        if !wrong.is_empty() {
            let name = text(old, &["metadata", "name"]);
            return Err(Refusal::invalid(definition, name, &wrong));
        }
        if definition.generation && content(definition, old) != content(definition, &new) {
            let generation = number(old, &["metadata", "generation"]).unwrap_or(0);
            set(&mut new, &["metadata", "generation"], generation + 1);
        }
        Ok(new)
    }

    fn store_change(
        &mut self,
        definition: &Definition,
        id: &Id,
        old: &Value,
        new: Value,
        options: &Options,
    ) -> Result<Written, Refusal> {
        if crd::is(definition) {
            crd::check(self, definition, &new)?;
        }
        let same = *old == new;
        let object = if same || options.dry_run {
            // What says nothing new is not written: its version stays.
            new
        } else {
            self.commit(id, new)?
        };
        if !same && !options.dry_run {
            if crd::is(definition) {
                crd::serve(self, &object)?;
            }
            self.finish_deletion(id, &object);
        }
        Ok(Written {
            object,
            created: false,
            unknown: Vec::new(),
        })
    }

    pub(super) fn patch(
        &mut self,
        resource: &str,
        key: &Key,
        part: Part,
        patch: &Patch,
        options: &Options,
    ) -> Result<Written, Refusal> {
        let (definition, id) = self.place(resource, key)?;
        let lists = Lists::of(&definition);
        let old = self.read(&id);
        if let Patch::Apply { object, .. } = patch {
            return self.apply(&definition, &id, part, object, old, options);
        }
        let old = old.ok_or_else(|| Refusal::not_found(&definition, key.name()))?;
        let target = match part {
            Part::Scale => scale_of(&definition, &old)?,
            Part::Whole | Part::Status => old,
        };
        let mut new = patch.apply(&target, &lists)?;
        let unknown = match part {
            Part::Scale => Vec::new(),
            Part::Whole | Part::Status => conform(&definition, &mut new, options.field_validation)?,
        };
        let written = self.update(resource, key, part, new, options)?;
        Ok(Written { unknown, ..written })
    }

    /// Server-side apply: what this manager applied before and does not any more is taken away, the rest is merged.
    /// Of other managers nothing is known, so there are no conflicts.
    fn apply(
        &mut self,
        definition: &Definition,
        id: &Id,
        part: Part,
        wanted: &Value,
        old: Option<Value>,
        options: &Options,
    ) -> Result<Written, Refusal> {
        let (resource, key) = (&*id.resource, &id.key);
        if options.field_manager.is_empty() {
            let wrong = Wrong::required("fieldManager", "is required for apply patch");
            let mut refusal = Refusal::invalid(definition, "", &[wrong]);
            refusal.message =
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is \
                required for apply patch"
                    .to_owned();
            return Err(refusal);
        }
        if part == Part::Scale {
            return Err(Refusal::media_type(
                "application/json-patch+json, application/merge-patch+json",
            ));
        }
        let mut wanted = wanted.clone();
        check_type(definition, &mut wanted)?;
        let unknown = conform(definition, &mut wanted, options.field_validation)?;
        if at(&wanted, &["metadata", "managedFields"]).is_some_and(|it| !it.is_null()) {
            return Err(Refusal::bad_request("metadata.managedFields must be nil"));
        }
        let Some(old) = old else {
            if part == Part::Status {
                return Err(Refusal::not_found(definition, key.name()));
            }
            let mut new = wanted.clone();
            set(&mut new, &["metadata", "name"], key.name());
            let object = self.create(resource, key.namespace(), new, options)?;
            self.remember_applied(&object, wanted, options);
            return Ok(Written {
                object,
                created: true,
                unknown,
            });
        };
        let manager = (
            Box::from(text(&old, &["metadata", "uid"])),
            options.field_manager.clone(),
        );
        let before = self.applied.get(&manager).cloned().unwrap_or_default();
        let new = super::patch::apply(&old, &before, &wanted, &Lists::of(definition));
        let written = self.update(resource, key, part, new, options)?;
        self.remember_applied(&written.object, wanted, options);
        Ok(Written { unknown, ..written })
    }

    fn remember_applied(&mut self, object: &Value, wanted: Value, options: &Options) {
        if !options.dry_run {
            let uid = Box::from(text(object, &["metadata", "uid"]));
            self.applied
                .insert((uid, options.field_manager.clone()), wanted);
        }
    }

    /// An object that is being deleted goes once nobody is waited for any more.
    pub(super) fn finish_deletion(&mut self, id: &Id, object: &Value) {
        let deleting = at(object, &["metadata", "deletionTimestamp"]).is_some();
        let grace = number(object, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0);
        if deleting && grace == 0 && !has_finalizers(object) {
            self.take_out(id);
        }
    }
}

/// All of an object but metadata, and status where that is written apart.
fn content<'a>(definition: &Definition, object: &'a Value) -> Vec<(&'a String, &'a Value)> {
    let apart = |key: &str| key == "metadata" || (key == "status" && definition.status);
    let fields = object.as_object().into_iter().flatten();
    fields.filter(|(key, _)| !apart(key)).collect()
}

/// The object must be of the kind that the path names; what it leaves out is filled in.
fn check_type(definition: &Definition, object: &mut Value) -> Result<(), Refusal> {
    if !object.is_object() {
        return Err(Refusal::bad_request(
            "the body of the request must be a JSON object",
        ));
    }
    let identity = &definition.identity;
    let (api_version, kind) = (text(object, &["apiVersion"]), text(object, &["kind"]));
    if !api_version.is_empty() && api_version != identity.api_version() {
        return Err(Refusal::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            identity.api_version()
        )));
    }
    if !kind.is_empty() && kind != identity.kind {
        return Err(Refusal::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {}: no kind {kind:?} is registered for version {0:?}",
            identity.version, identity.kind
        )));
    }
    if !definition.custom {
        drop_nulls(object);
    }
    set(object, &["apiVersion"], identity.api_version());
    set(object, &["kind"], identity.kind.clone());
    Ok(())
}

fn check_namespace(
    definition: &Definition,
    object: &mut Value,
    namespace: &str,
) -> Result<(), Refusal> {
    let named = text(object, &["metadata", "namespace"]);
    if !named.is_empty() && named != namespace {
        let why =
            "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Refusal::bad_request(why));
    }
    if definition.identity.namespaced {
        set(object, &["metadata", "namespace"], namespace);
    }
    Ok(())
}

/// A writer that says what it has seen must have seen what is there.
fn check_versions(definition: &Definition, old: &Value, new: &Value) -> Result<(), Refusal> {
    let name = text(old, &["metadata", "name"]);
    let [held, seen] = [old, new].map(|it| text(it, &["metadata", "uid"]));
    if !seen.is_empty() && seen != held {
        let why =
            format!("Precondition failed: UID in precondition: {seen}, UID in object meta: {held}");
        return Err(Refusal::conflict(definition, name, &why));
    }
    let [held, seen] = [old, new].map(|it| text(it, &["metadata", "resourceVersion"]));
    if seen.is_empty() && !definition.unconditional_update {
        let why = "must be specified for an update";
        let wrong = Wrong::invalid("metadata.resourceVersion", &json!(0), why);
        return Err(Refusal::invalid(definition, name, &[wrong]));
    }
    if !seen.is_empty() && seen != held {
        return Err(Refusal::modified(definition, name));
    }
    Ok(())
}

/// The `autoscaling/v1` Scale of an object.
fn scale_of(definition: &Definition, object: &Value) -> Result<Value, Refusal> {
    let name = text(object, &["metadata", "name"]);
    let scale = definition
        .scale
        .as_ref()
        .ok_or_else(|| Refusal::not_found(definition, name))?;
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let selector = match &scale.label_selector {
        Some(pointer) => object
            .pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned),
        None => at(object, &["spec", "selector"]).map(selector_text),
    };
    let mut metadata = json!({});
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        copy(&mut metadata, &object["metadata"], &[field]);
    }
    Ok(json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": number(&scale.spec_replicas)},
        "status": {"replicas": number(&scale.status_replicas), "selector": selector.unwrap_or_default()},
    }))
}

/// The object with the number of replicas that a Scale asks for, and the version that its writer has seen.
fn rescaled(definition: &Definition, object: &Value, wanted: &Value) -> Result<Value, Refusal> {
    let name = text(object, &["metadata", "name"]);
    let scale = definition
        .scale
        .as_ref()
        .ok_or_else(|| Refusal::not_found(definition, name))?;
    let replicas = number(wanted, &["spec", "replicas"]).unwrap_or(0);
    if replicas < 0 {
        let why = "must be greater than or equal to 0";
        let wrong = Wrong::invalid("spec.replicas", &replicas.into(), why);
        return Err(Refusal::invalid(definition, name, &[wrong]));
    }
    let mut new = object.clone();
    let path: Vec<&str> = scale.spec_replicas.split('/').skip(1).collect();
    set(&mut new, &path, replicas);
    let seen = text(wanted, &["metadata", "resourceVersion"]);
    if !seen.is_empty() {
        set(&mut new, &["metadata", "resourceVersion"], seen);
    }
    Ok(new)
}

/// A `LabelSelector` object as text.
fn selector_text(selector: &Value) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    for expression in list(selector, &["matchExpressions"]) {
        let key = text(expression, &["key"]);
        let values: Vec<&str> = list(expression, &["values"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let values = values.join(",");
        parts.push(match text(expression, &["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    parts.join(",")
}
