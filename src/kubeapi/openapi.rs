//! OpenAPI v3, as far as clients ask for it before they read or write: which operations there are on which kind.
//!
//! Schemas are open: the objects are whatever the API server made them, and nothing here checks them.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header::ETAG};
use serde_json::{Map, Value, json};

use super::{
    body::{self, Body},
    discovery::etag,
    read::Resource,
    status::Status,
};

type Resources = [Arc<Resource>];

/// Where a group version's document is: `api/v1`, `apis/apps/v1`.
fn place(resource: &Resource) -> String {
    let identity = &resource.identity;
    match identity.group.as_str() {
        "" => format!("api/{}", identity.version),
        group => format!("apis/{group}/{}", identity.version),
    }
}

/// `/openapi/v3`: where the documents are.
pub(super) fn index(resources: &Resources) -> Response<Body> {
    let mut paths = Map::new();
    for resource in resources {
        let place = place(resource);
        if paths.contains_key(&place) {
            continue;
        }
        let hash = etag(&document(resources, &place).to_string());
        let url = format!("/openapi/v3/{place}?hash={}", hash.trim_matches('"'));
        paths.insert(place, json!({ "serverRelativeURL": url }));
    }
    answer(&json!({ "paths": paths }))
}

/// `/openapi/v3/PLACE`.
pub(super) fn of(resources: &Resources, place: &str) -> Response<Body> {
    if resources
        .iter()
        .all(|resource| self::place(resource) != place)
    {
        return Status::no_such_path().response();
    }
    answer(&document(resources, place))
}

fn document(resources: &Resources, place: &str) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for resource in resources
        .iter()
        .filter(|resource| self::place(resource) == place)
    {
        let identity = &resource.identity;
        let kind = json!({
            "group": identity.group,
            "version": identity.version,
            "kind": identity.kind,
        });
        let scope = if identity.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let collection = format!("/{place}{scope}/{}", identity.plural);
        let operations = |of: &[(&str, &str)]| {
            let own = of
                .iter()
                .filter(|(verb, _)| resource.verbs.contains(verb))
                .map(|(verb, method)| ((*method).to_owned(), operation(verb, &kind)));
            Value::Object(own.collect())
        };
        paths.insert(
            collection.clone(),
            operations(&[
                ("list", "get"),
                ("create", "post"),
                ("deletecollection", "delete"),
            ]),
        );
        paths.insert(
            format!("{collection}/{{name}}"),
            operations(&[
                ("get", "get"),
                ("update", "put"),
                ("patch", "patch"),
                ("delete", "delete"),
            ]),
        );
        let name = match &resource.schema {
            Some(schema) => {
                schemas.extend(schema.components.clone());
                schema.name.clone()
            }
            None => {
                let name = format!(
                    "io.informerd.{}.{}.{}",
                    identity.group, identity.version, identity.kind
                );
                let name = name.replace("..", ".");
                let anything =
                    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
                schemas.insert(name.clone(), anything);
                name
            }
        };
        if let Some(Value::Object(own)) = schemas.get_mut(&name) {
            own.insert("x-kubernetes-group-version-kind".to_owned(), json!([kind]));
        }
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "informerd", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

fn operation(verb: &str, kind: &Value) -> Value {
    let action = match verb {
        "create" => "post",
        "update" => "put",
        verb => verb,
    };
    let mut operation = json!({
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": kind,
        "responses": {"200": {"description": "OK"}},
    });
    if ["create", "update", "patch"].contains(&verb) {
        let parameter = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
        // kubectl looks for these to know what it may ask for.
        operation["parameters"] = json!([
            parameter("dryRun"),
            parameter("fieldManager"),
            parameter("fieldValidation"),
        ]);
    }
    operation
}

fn answer(value: &Value) -> Response<Body> {
    let text = value.to_string();
    let etag = etag(&text);
    let mut response = body::json(StatusCode::OK, body::full(text));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}
