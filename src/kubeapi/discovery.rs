//! What is served, as clients discover it: group by group, and all at once with an ETag.

use std::{collections::BTreeMap, sync::Arc};

use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    accept::alternatives,
    body::{self, Body},
    read::Resource,
};

type Resources = [Arc<Resource>];

/// The groups other than the core one, each with its versions in the order of discovery.
fn groups(resources: &Resources) -> Vec<(&str, Vec<&str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for resource in resources {
        let (group, version) = (&*resource.identity.group, &*resource.identity.version);
        if group.is_empty() {
            continue;
        }
        match groups.iter_mut().find(|(name, _)| *name == group) {
            Some((_, versions)) if versions.contains(&version) => {}
            Some((_, versions)) => versions.push(version),
            None => groups.push((group, vec![version])),
        }
    }
    groups
}

fn group(name: &str, versions: &[&str]) -> Value {
    let version =
        |version: &&str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let versions: Vec<Value> = versions.iter().map(version).collect();
    json!({"name": name, "preferredVersion": versions.first(), "versions": versions})
}

fn with_type(kind: &str, mut value: Value) -> Value {
    if let Some(map) = value.as_object_mut() {
        map.insert("kind".to_owned(), kind.into());
        map.insert("apiVersion".to_owned(), "v1".into());
    }
    value
}

/// `/api`, which `accept` may ask for with everything that is in it.
pub(super) fn core(resources: &Resources, headers: &http::HeaderMap) -> Response<Body> {
    if let Some(version) = aggregated_version(headers) {
        return aggregated(resources, true, version, headers);
    }
    answer(&json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    }))
}

/// `/apis`, the same for the other groups.
pub(super) fn all_groups(resources: &Resources, headers: &http::HeaderMap) -> Response<Body> {
    if let Some(version) = aggregated_version(headers) {
        return aggregated(resources, false, version, headers);
    }
    let groups = groups(resources);
    let groups: Vec<Value> = groups
        .iter()
        .map(|(name, versions)| group(name, versions))
        .collect();
    answer(&with_type("APIGroupList", json!({"groups": groups})))
}

/// Whether anything of a group is served.
pub(super) fn has_group(resources: &Resources, name: &str) -> bool {
    resources
        .iter()
        .any(|resource| resource.identity.group == name)
}

/// `/apis/GROUP`.
pub(super) fn one_group(resources: &Resources, name: &str) -> Option<Response<Body>> {
    let groups = groups(resources);
    let (name, versions) = groups.iter().find(|(known, _)| *known == name)?;
    Some(answer(&with_type("APIGroup", group(name, versions))))
}

/// `/api/v1`, `/apis/GROUP/VERSION`.
pub(super) fn group_version(
    resources: &Resources,
    group: &str,
    version: &str,
) -> Option<Response<Body>> {
    let own: Vec<&Arc<Resource>> = of(resources, group, version).collect();
    if own.is_empty() && !group.is_empty() {
        return None;
    }
    let group_version = match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    let mut listed: Vec<APIResource<'_>> = Vec::new();
    for resource in own {
        let identity = &resource.identity;
        listed.push(APIResource {
            name: identity.plural.clone(),
            singular_name: &identity.singular,
            namespaced: identity.namespaced,
            group: "",
            version: "",
            kind: &identity.kind,
            verbs: &resource.verbs,
            short_names: &identity.short_names,
            categories: &resource.categories,
        });
        for sub in &resource.subresources {
            let (group, version, kind) = match &sub.kind {
                Some((group, version, kind)) => (group.as_str(), version.as_str(), kind.as_str()),
                None => ("", "", identity.kind.as_str()),
            };
            listed.push(APIResource {
                name: format!("{}/{}", identity.plural, sub.name),
                singular_name: "",
                namespaced: identity.namespaced,
                group,
                version,
                kind,
                verbs: &sub.verbs,
                short_names: &[],
                categories: &[],
            });
        }
    }
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    let mut list = json!({
        "kind": "APIResourceList",
        "groupVersion": group_version,
        "resources": listed,
    });
    // That of the core group has none.
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    Some(answer(&list))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct APIResource<'a> {
    name: String,
    singular_name: &'a str,
    namespaced: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    kind: &'a str,
    verbs: &'a [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    short_names: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    categories: &'a [String],
}

fn of<'a>(
    resources: &'a Resources,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = &'a Arc<Resource>> {
    resources.iter().filter(move |resource| {
        resource.identity.group == group && resource.identity.version == version
    })
}

/// The version of `apidiscovery.k8s.io` that is asked for before anything else that can be had.
fn aggregated_version(headers: &http::HeaderMap) -> Option<&'static str> {
    let accept = headers.get(http::header::ACCEPT)?.to_str().ok()?;
    let all = alternatives(Some(accept));
    let first = all.iter().filter(|it| it.takes_json()).find_map(|it| {
        match (it.param("g"), it.param("v"), it.param("as")) {
            ("apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList") => Some(Some("v2")),
            ("apidiscovery.k8s.io", "v2beta1", "APIGroupDiscoveryList") => Some(Some("v2beta1")),
            ("", "", "") => Some(None),
            _ => None,
        }
    });
    first.flatten()
}

fn aggregated(
    resources: &Resources,
    core: bool,
    version: &str,
    headers: &http::HeaderMap,
) -> Response<Body> {
    let mut items: Vec<Value> = Vec::new();
    let groups = if core {
        vec![("", vec!["v1"])]
    } else {
        groups(resources)
    };
    for (name, versions) in groups {
        let versions: Vec<Value> = versions
            .iter()
            .map(|version| {
                let mut own: Vec<&Arc<Resource>> = of(resources, name, version).collect();
                own.sort_by(|a, b| a.identity.plural.cmp(&b.identity.plural));
                let resources: Vec<Value> = own
                    .iter()
                    .map(|resource| aggregated_resource(resource))
                    .collect();
                json!({"version": version, "resources": resources, "freshness": "Current"})
            })
            .collect();
        let metadata = match name {
            "" => json!({"creationTimestamp": null}),
            name => json!({"name": name, "creationTimestamp": null}),
        };
        items.push(json!({"metadata": metadata, "versions": versions}));
    }
    let document = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    });
    let text = document.to_string();
    let etag = etag(&text);
    let media =
        format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let unchanged = headers
        .get(IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == etag.as_bytes());
    let mut response = if unchanged {
        let mut response = Response::new(body::full(Vec::new()));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        body::json(StatusCode::OK, body::full(text + "\n"))
    };
    let headers = response.headers_mut();
    for (name, text) in [
        (CONTENT_TYPE, media.as_str()),
        (ETAG, etag.as_str()),
        (VARY, "Accept"),
    ] {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    }
    response
}

fn aggregated_resource(resource: &Resource) -> Value {
    let identity = &resource.identity;
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let own = kind(&identity.group, &identity.version, &identity.kind);
    let mut value = json!({
        "resource": identity.plural,
        "responseKind": own,
        "scope": if identity.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": identity.singular,
        "verbs": resource.verbs,
    });
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|sub| {
            let response_kind = match &sub.kind {
                Some((group, version, of)) => kind(group, version, of),
                None => own.clone(),
            };
            json!({"subresource": sub.name, "responseKind": response_kind, "verbs": sub.verbs})
        })
        .collect();
    let optional: BTreeMap<&str, Value> = [
        ("shortNames", json!(identity.short_names)),
        ("categories", json!(resource.categories)),
        ("subresources", Value::Array(subresources)),
    ]
    .into();
    if let Some(map) = value.as_object_mut() {
        for (name, list) in optional {
            if list.as_array().is_some_and(|list| !list.is_empty()) {
                map.insert(name.to_owned(), list);
            }
        }
    }
    value
}

/// The same text has the same, in every process.
pub(super) fn etag(text: &str) -> String {
    format!("\"{:016X}\"", crate::digest::entry("discovery", text, ""))
}

fn answer(value: &Value) -> Response<Body> {
    body::json(StatusCode::OK, body::full(value.to_string() + "\n"))
}
