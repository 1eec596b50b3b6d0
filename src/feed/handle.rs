//! What in-process controllers hold: an object of the cache in the clothes that kube's Controller wants.

use std::{
    borrow::Cow,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{OwnerReference, Time},
    jiff::Timestamp,
};
use kube::{
    core::{DynamicResourceScope, ObjectMeta, Resource},
    runtime::reflector::ObjectRef,
};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    cache::{Identity, Kind},
    object::{Key, Object},
};

/// An object, or the tombstone of one, as a kube `Resource`.
///
/// It has an `ObjectMeta`, which the cache's [`Object`] has not: kinds without a controller would pay for it in
/// every object. kube clones handles freely, so it is a few shared pointers.
#[derive(Clone, Debug)]
pub struct Handle {
    key: Key,
    meta: Arc<ObjectMeta>,
    object: Option<Arc<Object>>,
}

/// The kind of a [`Handle`]. One pointer, since kube puts a clone of it into every key of its store.
///
/// Its names are those that discovery found last; before, they are empty.
#[derive(Clone, Default)]
pub struct KindRef(Option<Arc<Kind>>);

impl Handle {
    /// Of an object that is there.
    pub fn live(object: Arc<Object>) -> Self {
        Self {
            key: object.key.clone(),
            meta: Arc::new(meta(&object)),
            object: Some(object),
        }
    }

    /// Of the same object, now that it is gone. Identity, labels and owners stay, so that owners are found.
    #[must_use]
    pub fn to_tombstone(&self) -> Self {
        Self {
            object: None,
            ..self.clone()
        }
    }

    /// Namespace and name.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Empty only for kinds that have none.
    pub fn uid(&self) -> &str {
        self.meta.uid.as_deref().unwrap_or_default()
    }

    /// The object; `None` once it is gone.
    pub fn object(&self) -> Option<&Arc<Object>> {
        self.object.as_ref()
    }

    /// Whether the object is gone.
    pub fn is_tombstone(&self) -> bool {
        self.object.is_none()
    }
}

impl KindRef {
    /// Of this kind.
    pub fn new(kind: Arc<Kind>) -> Self {
        Self(Some(kind))
    }

    /// What kube's store has this key under.
    pub fn object_ref(&self, key: &Key) -> ObjectRef<Handle> {
        let object_ref = ObjectRef::new_with(key.name(), self.clone());
        match key.namespace() {
            "" => object_ref,
            namespace => object_ref.within(namespace),
        }
    }

    fn name(&self) -> &str {
        self.0.as_ref().map_or("", |kind| &kind.name)
    }

    fn identity(&self, part: impl Fn(&Identity) -> &String) -> Cow<'_, str> {
        let identity = self.0.as_ref().and_then(|kind| kind.identity());
        identity.map_or(Cow::Borrowed(""), |identity| {
            Cow::Owned(part(&identity).clone())
        })
    }
}

// By the name in the config, which is one kind's alone and known before discovery has found it.
impl PartialEq for KindRef {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for KindRef {}

impl Hash for KindRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl fmt::Debug for KindRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KindRef({})", self.name())
    }
}

impl Resource for Handle {
    type DynamicType = KindRef;
    type Scope = DynamicResourceScope;

    fn kind(kind: &KindRef) -> Cow<'_, str> {
        kind.identity(|identity| &identity.kind)
    }

    fn group(kind: &KindRef) -> Cow<'_, str> {
        kind.identity(|identity| &identity.group)
    }

    fn version(kind: &KindRef) -> Cow<'_, str> {
        kind.identity(|identity| &identity.version)
    }

    fn plural(kind: &KindRef) -> Cow<'_, str> {
        kind.identity(|identity| &identity.plural)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        Arc::make_mut(&mut self.meta)
    }
}

impl<'de> Deserialize<'de> for Handle {
    /// Always an error. kube's Controller asks for this because it might list and watch by itself; a handle is
    /// made from the cache and from nothing else.
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom(
            "a handle is made from the cache, it has no form of its own",
        ))
    }
}

fn meta(object: &Object) -> ObjectMeta {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let labels = object
        .labels
        .iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    let owners = object.owner_references.iter().map(|owner| OwnerReference {
        api_version: owner.api_version.to_string(),
        kind: owner.kind.to_string(),
        name: owner.name.to_string(),
        uid: owner.uid.to_string(),
        controller: Some(owner.controller),
        block_owner_deletion: None,
    });
    ObjectMeta {
        name: Some(object.key.name().to_owned()),
        namespace: text(object.key.namespace()),
        uid: text(&object.uid),
        resource_version: text(&object.resource_version),
        generation: object.generation,
        // That it is being deleted counts for more than since when.
        deletion_timestamp: object
            .deletion_timestamp
            .as_ref()
            .map(|at| Time(at.parse().unwrap_or(Timestamp::UNIX_EPOCH))),
        labels: Some(labels.collect()),
        owner_references: Some(owners.collect()),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{OwnerReference as Owner, tests::object};

    #[test]
    fn a_handle_says_what_the_object_says() {
        let owner = Owner {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: "web".into(),
            uid: "owner".into(),
            controller: true,
        };
        let object = Object {
            generation: Some(3),
            deletion_timestamp: Some("2026-01-02T03:04:05Z".into()),
            labels: [("app", "web")].into_iter().collect(),
            owner_references: [owner].into(),
            ..object("default", "web-0")
        };
        let handle = Handle::live(Arc::new(object));
        let meta = handle.meta();
        assert_eq!(
            (meta.name.as_deref(), meta.namespace.as_deref()),
            (Some("web-0"), Some("default"))
        );
        assert_eq!(
            (meta.uid.as_deref(), meta.resource_version.as_deref()),
            (Some("uid"), Some("1"))
        );
        assert_eq!(meta.generation, Some(3));
        assert_eq!(
            meta.deletion_timestamp
                .as_ref()
                .map(|at| at.0.to_string())
                .as_deref(),
            Some("2026-01-02T03:04:05Z")
        );
        assert_eq!(
            meta.labels
                .as_ref()
                .and_then(|labels| labels.get("app"))
                .map(String::as_str),
            Some("web")
        );
        let owners = meta.owner_references.as_deref().unwrap_or_default();
        assert_eq!(
            owners
                .iter()
                .map(|owner| owner.kind.as_str())
                .collect::<Vec<_>>(),
            ["ReplicaSet"]
        );
    }

    #[test]
    fn a_tombstone_keeps_who_it_was_and_lets_go_of_the_object() {
        let object = Arc::new(object("", "node-1"));
        let tombstone = Handle::live(object.clone()).to_tombstone();
        assert!(tombstone.is_tombstone());
        assert_eq!(
            (tombstone.key().as_str(), tombstone.uid()),
            ("node-1", "uid")
        );
        assert_eq!(Arc::strong_count(&object), 1);
    }

    #[test]
    fn an_unreadable_deletion_time_is_a_deletion_all_the_same() {
        let object = Object {
            deletion_timestamp: Some("soon".into()),
            ..object("", "x")
        };
        assert!(
            Handle::live(Arc::new(object))
                .meta()
                .deletion_timestamp
                .is_some()
        );
    }
}
