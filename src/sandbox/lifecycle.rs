//! How objects go: deletion with its grace and finalizers, owners and what they own, namespaces and their content.
//!
//! What on a real cluster the garbage collector and the namespace controller do a little later is done here within
//! the same step, so that there is no moment at which it is half done.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    crd,
    definition::Definition,
    fields::{at, list, number, set, text},
    refusal::{Refusal, about},
    store::{Id, Inner, Store, has_finalizers},
};
use crate::object::{Key, Object};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// Nothing works without them.
const IMMORTAL: [&str; 3] = ["default", "kube-public", "kube-system"];
const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// What may be said with a deletion: the parts of `DeleteOptions` that count here.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteOptions {
    /// How long a pod may take to end; 0 is at once.
    pub grace_period_seconds: Option<i64>,
    /// Only this object, as it is.
    pub preconditions: Option<Preconditions>,
    /// What becomes of what it owns; `Background` where nothing is said.
    pub propagation_policy: Option<String>,
    /// The older way to say `Orphan`.
    pub orphan_dependents: Option<bool>,
    /// `["All"]`: do everything but store it.
    pub dry_run: Vec<String>,
}

/// What a deleter has seen.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    /// The object's.
    pub uid: Option<String>,
    /// The object's.
    pub resource_version: Option<String>,
}

/// What a deletion answers: the object as it was or as it waits, or a `Status` that says it is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Deleted {
    /// The answer's body.
    pub answer: Value,
    /// It is there no more.
    pub gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Propagation {
    Background,
    Foreground,
    Orphan,
}

impl DeleteOptions {
    fn propagation(&self) -> Result<Propagation, Refusal> {
        match (self.propagation_policy.as_deref(), self.orphan_dependents) {
            (Some(_), Some(_)) => Err(Refusal::unprocessable(
                "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Invalid value: \"\": \
                 orphanDependents and deletionPropagation cannot be both set",
            )),
            (Some("Background"), _) | (None, None | Some(false)) => Ok(Propagation::Background),
            (Some("Foreground"), _) => Ok(Propagation::Foreground),
            (Some("Orphan"), _) | (None, Some(true)) => Ok(Propagation::Orphan),
            (Some(other), _) => Err(Refusal::unprocessable(format!(
                "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: {other:?}: \
                 supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
            ))),
        }
    }
}

impl Store {
    /// Deletes an object, or marks it for those who have to finish with it first.
    pub fn delete(
        &self,
        resource: &str,
        key: &Key,
        options: &DeleteOptions,
    ) -> Result<Deleted, Refusal> {
        self.lock().delete(resource, key, options)
    }

    /// Deletes all objects of a namespace (of all, where it is empty) that `selects` picks; returns them.
    pub fn delete_collection(
        &self,
        resource: &str,
        namespace: &str,
        selects: impl Fn(&Object) -> bool,
        options: &DeleteOptions,
    ) -> Result<Vec<Value>, Refusal> {
        let mut inner = self.lock();
        let found = inner.resource(resource)?;
        let keys = found.keys(namespace).into_iter();
        let keys: Vec<Key> = keys
            .filter(|key| found.held(key).is_some_and(|object| selects(&object)))
            .collect();
        let mut deleted = Vec::new();
        for key in keys {
            let id = Id {
                resource: resource.into(),
                key,
            };
            // One may go with another that owned it.
            if let Some(object) = inner.read(&id) {
                inner.delete(resource, &id.key, options)?;
                deleted.push(object);
            }
        }
        Ok(deleted)
    }
}

impl Inner {
    fn delete(
        &mut self,
        resource: &str,
        key: &Key,
        options: &DeleteOptions,
    ) -> Result<Deleted, Refusal> {
        let (definition, id) = self.place(resource, key)?;
        let mut object = self.existing(&definition, &id)?;
        check_preconditions(&definition, &object, options)?;
        if definition.is("", "namespaces") && IMMORTAL.contains(&key.name()) {
            let why = "this namespace may not be deleted";
            return Err(Refusal::forbidden(&definition, key.name(), why));
        }
        let propagation = options.propagation()?;
        let dry_run = options.dry_run.iter().any(|it| it == "All");
        if !dry_run {
            let grace = self.grace(&definition, &object, options.grace_period_seconds);
            self.begin(&definition, &id, object.clone(), propagation, grace)?;
            // What is gone has the version of its deletion, or of the last that went with it.
            let version = self.revision().to_string();
            set(&mut object, &["metadata", "resourceVersion"], version);
        }
        let now = self.read(&id);
        let gone = dry_run || now.is_none();
        let answer = match now {
            Some(waiting) if !dry_run => waiting,
            _ if definition.returns_deleted => object,
            _ => {
                let mut details = about(&definition, key.name());
                details["uid"] = text(&object, &["metadata", "uid"]).into();
                json!({
                    "kind": "Status",
                    "apiVersion": "v1",
                    "metadata": {},
                    "status": "Success",
                    "details": details,
                })
            }
        };
        Ok(Deleted { answer, gone })
    }

    /// How long a pod's node is waited for. Nobody is waited for but a kubelet.
    fn grace(&self, definition: &Definition, object: &Value, asked: Option<i64>) -> i64 {
        let runs = !text(object, &["spec", "nodeName"]).is_empty()
            && !matches!(text(object, &["status", "phase"]), "Succeeded" | "Failed");
        if !definition.is("", "pods") || !self.kubelet || !runs {
            return 0;
        }
        let own = number(object, &["spec", "terminationGracePeriodSeconds"]).unwrap_or(30);
        asked.unwrap_or(own).max(0)
    }

    /// Marks an object, or takes it out if nobody is waited for.
    fn begin(
        &mut self,
        definition: &Definition,
        id: &Id,
        mut object: Value,
        propagation: Propagation,
        grace: i64,
    ) -> Result<(), Refusal> {
        if definition.is("", "namespaces") {
            return self.end_namespace(id, object);
        }
        let already = at(&object, &["metadata", "deletionTimestamp"]).is_some();
        let before = object.clone();
        let finalizer = match propagation {
            Propagation::Background => None,
            Propagation::Foreground => Some(FOREGROUND),
            Propagation::Orphan => Some(ORPHAN),
        };
        let mut finalizers = list(&object, &["metadata", "finalizers"]).to_vec();
        if !already {
            finalizers.retain(|it| ![FOREGROUND, ORPHAN].iter().any(|own| it == own));
        }
        if let Some(finalizer) = finalizer.filter(|own| !finalizers.iter().any(|it| it == own)) {
            finalizers.push(finalizer.into());
        }
        set_finalizers(&mut object, finalizers);
        if grace == 0 && !has_finalizers(&object) {
            self.take_out(id);
            return Ok(());
        }
        let shorter = number(&object, &["metadata", "deletionGracePeriodSeconds"])
            .is_some_and(|held| grace < held);
        if !already || shorter {
            set(
                &mut object,
                &["metadata", "deletionTimestamp"],
                self.now(grace),
            );
            set(
                &mut object,
                &["metadata", "deletionGracePeriodSeconds"],
                grace,
            );
            if let Some(generation) = number(&object, &["metadata", "generation"]) {
                set(&mut object, &["metadata", "generation"], generation + 1);
            }
        }
        if object != before {
            self.commit(id, object)?;
        }
        if crd::is(definition) {
            for content in self
                .read(id)
                .map(|it| crd::content(self, &it))
                .unwrap_or_default()
            {
                self.delete_dependent(&content, Propagation::Background);
            }
            self.withdraw_if_empty(id)?;
        }
        match propagation {
            Propagation::Background => {}
            Propagation::Foreground => self.foreground(id)?,
            Propagation::Orphan => self.orphan(id)?,
        }
        Ok(())
    }

    /// Takes an object out, and then what only it owned; whoever waited for it goes on.
    pub(super) fn take_out(&mut self, id: &Id) {
        let owners = self.read(id).map(|object| {
            let owners = list(&object, &["metadata", "ownerReferences"]).to_vec();
            let is_crd = self.resources.get(&id.resource);
            let is_crd = is_crd.is_some_and(|it| crd::is(&it.definition));
            (owners, is_crd.then_some(object))
        });
        let Some(object) = self.expunge(id) else {
            return;
        };
        let (owners, crd) = owners.unwrap_or_default();
        if let Some(crd) = crd {
            crd::withdraw(self, &crd);
        }
        for dependent in self.dependents(&object.uid) {
            self.release(&dependent, &object.uid);
        }
        for owner in owners {
            if let Some(owner) = self.owner(id.key.namespace(), &owner) {
                self.go_on(&owner);
            }
        }
        self.end_if_empty(id.key.namespace());
        let crd = Id {
            resource: CRDS.into(),
            key: Key::new("", &id.resource),
        };
        // It is there, or nothing is to be done.
        let _ = self.withdraw_if_empty(&crd);
    }

    /// A definition that is being deleted goes when none of its objects is left.
    fn withdraw_if_empty(&mut self, id: &Id) -> Result<(), Refusal> {
        let Some(crd) = self.read(id) else {
            return Ok(());
        };
        let ends = at(&crd, &["metadata", "deletionTimestamp"]).is_some();
        if ends && crd::content(self, &crd).is_empty() {
            self.drop_finalizer(id, crd::CLEANUP)?;
        }
        Ok(())
    }

    /// An owner is gone: what has another one stays without the reference, the rest is deleted.
    fn release(&mut self, id: &Id, gone: &str) {
        let Some(mut object) = self.read(id) else {
            return;
        };
        let references = list(&object, &["metadata", "ownerReferences"]).to_vec();
        let others: Vec<Value> = references
            .into_iter()
            .filter(|it| text(it, &["uid"]) != gone)
            .collect();
        let namespace = id.key.namespace();
        if others.iter().any(|it| self.owner(namespace, it).is_some()) {
            set(&mut object, &["metadata", "ownerReferences"], others);
            // It was good before, and is so without a reference.
            let _ = self.commit(id, object);
        } else {
            self.delete_dependent(id, Propagation::Background);
        }
    }

    fn delete_dependent(&mut self, id: &Id, propagation: Propagation) {
        let Ok((definition, id)) = self.place(&id.resource, &id.key) else {
            return;
        };
        if let Some(object) = self.read(&id) {
            let grace = self.grace(&definition, &object, None);
            // What cannot be marked stays, as with the garbage collector.
            let _ = self.begin(&definition, &id, object, propagation, grace);
        }
    }

    /// What an object owns goes first; the object when what blocks it is gone.
    fn foreground(&mut self, id: &Id) -> Result<(), Refusal> {
        let uid = self
            .read(id)
            .map(|it| text(&it, &["metadata", "uid"]).to_owned());
        for dependent in self.dependents(&uid.unwrap_or_default()) {
            self.delete_dependent(&dependent, Propagation::Foreground);
        }
        self.go_on(id);
        Ok(())
    }

    /// What an object owns loses the reference, and stays.
    fn orphan(&mut self, id: &Id) -> Result<(), Refusal> {
        let Some(object) = self.read(id) else {
            return Ok(());
        };
        let uid = text(&object, &["metadata", "uid"]);
        for dependent in self.dependents(uid) {
            let Some(mut owned) = self.read(&dependent) else {
                continue;
            };
            let mut references = list(&owned, &["metadata", "ownerReferences"]).to_vec();
            references.retain(|it| text(it, &["uid"]) != uid);
            set(&mut owned, &["metadata", "ownerReferences"], references);
            self.commit(&dependent, owned)?;
        }
        self.drop_finalizer(id, ORPHAN)
    }

    /// An object that waits for what it owns goes when nothing blocks it any more.
    fn go_on(&mut self, id: &Id) {
        let Some(object) = self.read(id) else {
            return;
        };
        let finalizers = list(&object, &["metadata", "finalizers"]);
        let waits = at(&object, &["metadata", "deletionTimestamp"]).is_some()
            && finalizers.iter().any(|it| it == FOREGROUND);
        let uid = text(&object, &["metadata", "uid"]);
        let blocks = |dependent: &Id| {
            let owned = self.read(dependent).unwrap_or_default();
            let mut references = list(&owned, &["metadata", "ownerReferences"]).iter();
            references.any(|it| {
                text(it, &["uid"]) == uid && it.get("blockOwnerDeletion") == Some(&true.into())
            })
        };
        if waits && !self.dependents(uid).iter().any(blocks) {
            // The finalizer is there, and the object with it.
            let _ = self.drop_finalizer(id, FOREGROUND);
        }
    }

    fn drop_finalizer(&mut self, id: &Id, finalizer: &str) -> Result<(), Refusal> {
        let Some(mut object) = self.read(id) else {
            return Ok(());
        };
        let mut finalizers = list(&object, &["metadata", "finalizers"]).to_vec();
        finalizers.retain(|it| it != finalizer);
        set_finalizers(&mut object, finalizers);
        let object = self.commit(id, object)?;
        self.finish_deletion(id, &object);
        Ok(())
    }

    /// An object whose owners are all gone already goes too.
    pub(super) fn collect_if_orphaned(&mut self, id: &Id, object: &Value) {
        let references = list(object, &["metadata", "ownerReferences"]);
        let namespace = id.key.namespace();
        // Of a kind that is not served nobody can say that the owner is gone.
        let gone =
            |it: &Value| self.named(namespace, it).is_some() && self.owner(namespace, it).is_none();
        if !references.is_empty() && references.iter().all(gone) {
            self.delete_dependent(id, Propagation::Background);
        }
    }

    /// A namespace takes nothing new from now on, its content goes, and then it.
    fn end_namespace(&mut self, id: &Id, mut namespace: Value) -> Result<(), Refusal> {
        if at(&namespace, &["metadata", "deletionTimestamp"]).is_none() {
            set(
                &mut namespace,
                &["metadata", "deletionTimestamp"],
                self.now(0),
            );
            set(&mut namespace, &["status", "phase"], "Terminating");
            self.commit(id, namespace)?;
        }
        let name = id.key.name().to_owned();
        for content in self.content(&name) {
            self.delete_dependent(&content, Propagation::Background);
        }
        self.end_if_empty(&name);
        Ok(())
    }

    fn end_if_empty(&mut self, namespace: &str) {
        let id = Id {
            resource: "namespaces".into(),
            key: Key::new("", namespace),
        };
        let Some(object) = self.read(&id).filter(|_| !namespace.is_empty()) else {
            return;
        };
        let ends = at(&object, &["metadata", "deletionTimestamp"]).is_some();
        if ends && !has_finalizers(&object) && self.content(namespace).is_empty() {
            self.expunge(&id);
        }
    }
}

fn set_finalizers(object: &mut Value, finalizers: Vec<Value>) {
    if finalizers.is_empty() {
        super::fields::remove(object, &["metadata", "finalizers"]);
    } else {
        set(object, &["metadata", "finalizers"], finalizers);
    }
}

fn check_preconditions(
    definition: &Definition,
    object: &Value,
    options: &DeleteOptions,
) -> Result<(), Refusal> {
    let Some(preconditions) = &options.preconditions else {
        return Ok(());
    };
    let name = text(object, &["metadata", "name"]);
    for (what, field, wanted) in [
        ("UID", "uid", &preconditions.uid),
        (
            "ResourceVersion",
            "resourceVersion",
            &preconditions.resource_version,
        ),
    ] {
        let held = text(object, &["metadata", field]);
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != held) {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {held}"
            );
            return Err(Refusal::conflict(definition, name, &why));
        }
    }
    Ok(())
}
