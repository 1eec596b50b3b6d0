//! Patches, by their media types.

use serde_json::{Map, Value};

use super::{definition::Definition, refusal::Refusal};

mod apply;
mod lists;
mod strategic;

pub use apply::apply;
pub use lists::Lists;

/// A change to an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    /// RFC 6902.
    Json(json_patch::Patch),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes's own: lists are merged by the keys of their items. Built-in kinds only.
    Strategic(Value),
    /// Server-side apply: what the writer wants, as a whole.
    Apply {
        /// What is wanted.
        object: Value,
    },
}

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

impl Patch {
    /// Reads a patch of this media type for objects of this kind.
    pub fn parse(media_type: &str, body: &[u8], definition: &Definition) -> Result<Self, Refusal> {
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        let unreadable = |error: &dyn std::error::Error| {
            Refusal::bad_request(format!("error decoding patch: {error}"))
        };
        let value = || serde_json::from_slice(body).map_err(|error| unreadable(&error));
        let object = || {
            let value: Value = value()?;
            let wrong = || Refusal::bad_request("error decoding patch: it is not a JSON object");
            value.is_object().then_some(value).ok_or_else(wrong)
        };
        match media_type {
            JSON => Ok(Self::Json(
                serde_json::from_slice(body).map_err(|error| unreadable(&error))?,
            )),
            MERGE => Ok(Self::Merge(object()?)),
            STRATEGIC if !definition.custom => Ok(Self::Strategic(object()?)),
            APPLY | "application/apply-patch+json" => {
                let text = str::from_utf8(body).map_err(|error| unreadable(&error))?;
                let object: Value = serde_saphyr::from_str(text).map_err(|error| {
                    Refusal::bad_request(format!("error decoding YAML: {error}"))
                })?;
                if !object.is_object() {
                    return Err(Refusal::bad_request(
                        "error decoding YAML: it is not an object",
                    ));
                }
                Ok(Self::Apply { object })
            }
            _ => {
                let strategic = (!definition.custom).then_some(STRATEGIC);
                let all: Vec<&str> = [Some(JSON), Some(MERGE), strategic, Some(APPLY)]
                    .into_iter()
                    .flatten()
                    .collect();
                Err(Refusal::media_type(&all.join(", ")))
            }
        }
    }

    /// What the object becomes.
    pub fn apply(&self, object: &Value, lists: &Lists) -> Result<Value, Refusal> {
        let mut new = object.clone();
        match self {
            Self::Json(patch) => json_patch::patch(&mut new, patch).map_err(|error| {
                // The API server says only the first half; the second is what a person needs.
                Refusal::unprocessable(format!(
                    "the server rejected our request due to an error in our request: {error}"
                ))
            })?,
            Self::Merge(patch) => json_patch::merge(&mut new, patch),
            Self::Strategic(patch) => strategic::merge(&mut new, patch, lists)?,
            Self::Apply { object } => new = apply(&new, &Value::Null, object, lists),
        }
        Ok(new)
    }
}

/// An object to write into, whatever was there.
fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was just made one"),
    }
}
