//! What a call asks for, checked and tied to a kind: the part of every request that says which objects and
//! how much of each.

use std::sync::Arc;

use super::{Access, Api, status::Error};
use crate::{
    cache::{Identity, Kind, Selection, Shard},
    object::{
        Key, Object,
        path::Path,
        projection::{Projection, View},
        selector::{FieldSelector, LabelSelector, MAX_BYTES as MAX_SELECTOR, Selector},
    },
    proto,
};

/// Most namespaces in a scope.
pub(super) const MAX_NAMESPACES: usize = 1000;
/// Most paths in a mask.
const MAX_FIELDS: usize = 256;
/// And most bytes of them.
const MAX_FIELD_BYTES: usize = 16 << 10;

/// Which objects of a kind, and how much of each.
#[derive(Clone, Debug)]
pub struct Query {
    /// The kind.
    pub kind: Arc<Kind>,
    /// Its full name, the same however it was asked for.
    pub resource: String,
    /// Which objects.
    pub selection: Arc<Selection>,
    /// How much of each.
    pub projection: Projection,
    /// Hash of all of this; what the token of a list is good for.
    pub hash: u64,
}

/// Of a request that names a kind: the kind. Its identity may not be known yet.
pub fn find_kind(api: &Api, scope: &proto::Scope) -> Result<Arc<Kind>, Error> {
    if scope.resource.is_empty() {
        let problem = "name the kind, as in \"pods\" or \"deployments.apps\"";
        return Err(Error::invalid("scope.resource", problem));
    }
    named(api, &scope.resource).cloned()
}

/// The kind that somebody calls so.
pub fn named<'a>(api: &'a Api, resource: &str) -> Result<&'a Arc<Kind>, Error> {
    let names = || api.catalog().iter().map(|kind| kind.name.as_str());
    api.catalog()
        .find(resource)
        .ok_or_else(|| Error::NotConfigured {
            // No longer than a name can be.
            resource: resource.chars().take(253).collect(),
            configured: match api.0.access {
                Access::Open | Access::Limited(_) => names().collect::<Vec<_>>().join(", "),
                // That is not everybody's business.
                Access::Guarded { .. } => String::new(),
            },
        })
}

impl Query {
    /// Checks scope, view and mask against the kind. `identity` is what discovery found of it.
    pub fn new(
        kind: Arc<Kind>,
        identity: &Identity,
        scope: &proto::Scope,
        view: i32,
        fields: &[String],
    ) -> Result<Self, Error> {
        let (selector, selector_text) = selector(identity, scope)?;
        let namespaces = namespaces(identity, scope)?;
        let one = one(identity, scope, &namespaces)?;
        let view = self::view(view)?;
        if kind.metadata_only && view == View::Full {
            let resource = kind.name.clone();
            return Err(Error::MetadataOnly { resource });
        }
        let projection = projection(view, fields)?;
        if let Some(missing) = unwatched(&kind, &namespaces, one.as_ref()) {
            let problem = format!(
                "namespace {missing:?} is not among those that the daemon watches for {}; see \
                 `namespaces.include` in its config",
                kind.name
            );
            return Err(Error::invalid("scope.namespaces", problem));
        }
        let selection = Selection::new(namespaces, one, selector);
        let hash = hash(&selection, &selector_text, &projection);
        Ok(Self {
            kind,
            resource: identity.resource(),
            selection: Arc::new(selection),
            projection,
            hash,
        })
    }

    /// The shards that have any of it; never empty.
    pub fn shards(&self) -> Vec<Arc<Shard<Object>>> {
        let shards = self.kind.shards().iter();
        shards
            .filter(|shard| self.selection.touches(shard))
            .cloned()
            .collect()
    }
}

/// A hash that is the same in every process: tokens carry it from one to the other.
fn hash(selection: &Selection, selector: &str, projection: &Projection) -> u64 {
    let where_ = match selection.one() {
        Some(one) => format!("one {one}"),
        None => format!("in {}", selection.namespaces().join(",")),
    };
    crate::digest::entry(&where_, selector, &projection.to_string())
}

/// A namespace that was asked for by name and that no shard watches.
fn unwatched(kind: &Kind, namespaces: &[String], one: Option<&Key>) -> Option<String> {
    let watched = |namespace: &str| {
        let shards = kind.shards().iter();
        shards
            .map(|shard| shard.namespace())
            .any(|shard| shard.is_empty() || shard == namespace)
    };
    let one = one
        .map(Key::namespace)
        .filter(|namespace| !namespace.is_empty());
    let mut asked = namespaces.iter().map(String::as_str).chain(one);
    asked
        .find(|namespace| !watched(namespace))
        .map(str::to_owned)
}

fn namespaces(identity: &Identity, scope: &proto::Scope) -> Result<Vec<String>, Error> {
    const FIELD: &str = "scope.namespaces";
    if scope.namespaces.is_empty() {
        return Ok(Vec::new());
    }
    if !identity.namespaced {
        let problem = format!("{} are cluster-scoped; leave it empty", identity.plural);
        return Err(Error::invalid(FIELD, problem));
    }
    if scope.namespaces.len() > MAX_NAMESPACES {
        let problem =
            format!("more than {MAX_NAMESPACES}; leave it empty and use a field selector");
        return Err(Error::invalid(FIELD, problem));
    }
    for namespace in &scope.namespaces {
        if namespace.is_empty() {
            return Err(Error::invalid(
                FIELD,
                "one of them is empty; leave the field empty for all",
            ));
        }
        if namespace.contains('/') {
            return Err(Error::invalid(
                FIELD,
                format!("{namespace:?} is not a namespace's name"),
            ));
        }
    }
    let mut namespaces = scope.namespaces.clone();
    // In the order of keys, where the separator counts.
    namespaces.sort_by_cached_key(|namespace| Key::new(namespace, ""));
    namespaces.dedup();
    Ok(namespaces)
}

fn one(
    identity: &Identity,
    scope: &proto::Scope,
    namespaces: &[String],
) -> Result<Option<Key>, Error> {
    const FIELD: &str = "scope.name";
    if scope.name.is_empty() {
        return Ok(None);
    }
    if scope.name.contains('/') {
        return Err(Error::invalid(
            FIELD,
            format!("{:?} is not an object's name", scope.name),
        ));
    }
    match (identity.namespaced, namespaces) {
        (false, _) => Ok(Some(Key::new("", &scope.name))),
        (true, [namespace]) => Ok(Some(Key::new(namespace, &scope.name))),
        (true, _) => {
            let problem = format!(
                "{} live in namespaces: name exactly one in scope.namespaces, or use the field selector \
                 metadata.name={}",
                identity.plural, scope.name
            );
            Err(Error::invalid(FIELD, problem))
        }
    }
}

/// A selector that is not too long to be read.
pub(super) fn text<'a>(field: &'static str, text: &'a str) -> Result<&'a str, Error> {
    if text.len() > MAX_SELECTOR {
        let problem = format!("{} bytes; at most {MAX_SELECTOR} are read", text.len());
        return Err(Error::invalid(field, problem));
    }
    Ok(text)
}

/// The selector, and the same in a form that is equal for equal ones.
fn selector(identity: &Identity, scope: &proto::Scope) -> Result<(Selector, String), Error> {
    let labels: LabelSelector = text("scope.label_selector", &scope.label_selector)?
        .parse()
        .map_err(|error| Error::invalid("scope.label_selector", error))?;
    let invalid = |error| Error::invalid("scope.field_selector", error);
    let fields = text("scope.field_selector", &scope.field_selector)?;
    let fields = FieldSelector::parse(fields).map_err(invalid)?;
    let text = format!("{labels};{fields}");
    let fields = fields.resolve(&identity.selectable).map_err(invalid)?;
    Ok((Selector { labels, fields }, text))
}

fn view(view: i32) -> Result<View, Error> {
    match proto::View::try_from(view) {
        Ok(proto::View::Unspecified | proto::View::Full) => Ok(View::Full),
        Ok(proto::View::Metadata) => Ok(View::Metadata),
        Ok(proto::View::Keys) => Ok(View::Keys),
        Err(_) => Err(Error::invalid(
            "view",
            format!("{view} is not a view that is known here"),
        )),
    }
}

/// What is shown of an object.
pub fn projection(view: View, fields: &[String]) -> Result<Projection, Error> {
    const FIELD: &str = "fields";
    if view == View::Keys && !fields.is_empty() {
        return Err(Error::invalid(
            FIELD,
            "VIEW_KEYS has no content to take fields of; leave it empty",
        ));
    }
    if fields.len() > MAX_FIELDS {
        return Err(Error::invalid(
            FIELD,
            format!("more than {MAX_FIELDS} paths"),
        ));
    }
    if fields.iter().map(String::len).sum::<usize>() > MAX_FIELD_BYTES {
        let problem = format!("more than {MAX_FIELD_BYTES} bytes together");
        return Err(Error::invalid(FIELD, problem));
    }
    let paths: Result<Vec<Path>, _> = fields.iter().map(|field| field.parse()).collect();
    Ok(Projection::new(
        view,
        paths.map_err(|error| Error::invalid(FIELD, error))?,
    ))
}
