//! Whether what a client writes is an object of its kind: no field that the kind does not have, none of another type.
//!
//! Without this an object could be stored that no typed client can read afterwards, and all of them would stand still
//! because of it. Of custom kinds nothing is known here.

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    definition::Definition,
    refusal::Refusal,
    types::{Field, Many, TYPES, Type},
};

/// What becomes of fields that the kind does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// They are left out.
    Ignore,
    /// They are left out, and the writer is told.
    #[default]
    Warn,
    /// They are refused.
    Strict,
}

/// Takes out what the kind does not have; returns what that was, in words for the writer.
///
/// # Errors
///
/// A field is of another type than the kind says, or the writer wants to hear of unknown ones.
pub fn conform(
    definition: &Definition,
    object: &mut Value,
    validation: FieldValidation,
) -> Result<Vec<String>, Refusal> {
    let identity = &definition.identity;
    let Some(root) = TYPES.root(&identity.api_version(), &identity.kind) else {
        return Ok(Vec::new());
    };
    let mut walk = Walk::default();
    if let Some(object) = object.as_object_mut() {
        walk.message(root, object, "");
    }
    let refuse = |why: String| {
        let (kind, version) = (&identity.kind, &identity.version);
        Refusal::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
        ))
    };
    if let Some(wrong) = walk.wrong {
        return Err(refuse(wrong));
    }
    let unknown: Vec<String> = walk
        .unknown
        .iter()
        .map(|path| format!("unknown field \"{path}\""))
        .collect();
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Strict if !unknown.is_empty() => Err(refuse(format!(
            "strict decoding error: {}",
            unknown.join(", ")
        ))),
        FieldValidation::Strict | FieldValidation::Warn => Ok(unknown),
    }
}

/// What is found on the way.
#[derive(Default)]
struct Walk {
    unknown: Vec<String>,
    /// The first value of a wrong type.
    wrong: Option<String>,
}

impl Walk {
    fn message(&mut self, message: &'static str, object: &mut Map<String, Value>, path: &str) {
        object.retain(|name, value| {
            let path = match path {
                // The type of an object is none of its fields.
                "" if ["apiVersion", "kind"].contains(&name.as_str()) => return true,
                "" => name.clone(),
                path => format!("{path}.{name}"),
            };
            match TYPES.named(message, name) {
                Some(field) => {
                    self.field(field, value, &path);
                    true
                }
                None => {
                    self.unknown.push(path);
                    false
                }
            }
        });
    }

    fn field(&mut self, field: &Field, value: &mut Value, path: &str) {
        match (field.many, value) {
            // As good as nothing.
            (_, Value::Null) => {}
            (Many::One, value) => self.value(field.of, value, path),
            (Many::List, Value::Array(items)) => {
                for (at, item) in items.iter_mut().enumerate() {
                    self.value(field.of, item, &format!("{path}[{at}]"));
                }
            }
            (Many::Map, Value::Object(map)) => {
                for (key, value) in map {
                    self.value(field.of, value, &format!("{path}.{key}"));
                }
            }
            (Many::List, value) => self.wrong(path, value, "a list"),
            (Many::Map, value) => self.wrong(path, value, "a map"),
        }
    }

    fn value(&mut self, of: Type, value: &mut Value, path: &str) {
        let text = value.as_str();
        let (fits, wanted) = match of {
            _ if value.is_null() => return,
            Type::Message(message) => {
                return match value {
                    Value::Object(object) => self.message(message, object, path),
                    value => self.wrong(path, value, "an object"),
                };
            }
            Type::Json => return,
            Type::Strings => (
                value
                    .as_array()
                    .is_some_and(|all| all.iter().all(Value::is_string)),
                "a list of strings",
            ),
            Type::String => (text.is_some(), "a string"),
            Type::Bool => (value.is_boolean(), "true or false"),
            Type::Int => (value.is_i64(), "a whole number"),
            Type::Bytes => (
                text.is_some_and(|text| BASE64_STANDARD.decode(text).is_ok()),
                "a string in base64",
            ),
            Type::Time | Type::MicroTime => (
                text.is_some_and(|text| text.parse::<Timestamp>().is_ok()),
                "a time as in RFC 3339",
            ),
            Type::Quantity => (text.is_some() || value.is_number(), "a quantity"),
            Type::IntOrString => (
                text.is_some() || value.is_i64(),
                "a whole number or a string",
            ),
        };
        if !fits {
            self.wrong(path, value, wanted);
        }
    }

    fn wrong(&mut self, path: &str, value: &Value, wanted: &str) {
        let is = match value {
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
            value => value.to_string(),
        };
        self.wrong
            .get_or_insert_with(|| format!("{path} is {is}, and must be {wanted}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sandbox::definition;

    fn pod(object: Value, validation: FieldValidation) -> (Value, Result<Vec<String>, String>) {
        let mut definitions = definition::builtin();
        let pods = definitions.find(|it| it.is("", "pods")).unwrap();
        let mut object = object;
        let conformed = conform(&pods, &mut object, validation).map_err(|refusal| refusal.message);
        (object, conformed)
    }

    #[test]
    fn what_the_kind_has_passes() {
        let good = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "creationTimestamp": null, "labels": {"any": "thing"}},
            "spec": {
                "containers": [{"name": "c", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
                    "livenessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 3}}],
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
        });
        let (after, conformed) = pod(good.clone(), FieldValidation::Strict);
        assert_eq!((after, conformed), (good, Ok(Vec::new())));
    }

    #[test]
    fn unknown_fields_are_refused_told_or_left_out_as_the_writer_wishes() {
        let odd = json!({"spec": {"containers": [{"name": "c", "imagee": "x"}]}, "specc": 1});
        let (_, refused) = pod(odd.clone(), FieldValidation::Strict);
        assert_eq!(
            refused.unwrap_err(),
            "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \
             \"spec.containers[0].imagee\", unknown field \"specc\""
        );
        let (after, told) = pod(odd.clone(), FieldValidation::Warn);
        assert_eq!(after, json!({"spec": {"containers": [{"name": "c"}]}}));
        assert_eq!(told.unwrap().len(), 2);
        let (_, ignored) = pod(odd, FieldValidation::Ignore);
        assert_eq!(ignored, Ok(Vec::new()));
    }

    #[test]
    fn a_value_of_another_type_is_refused_whatever_the_writer_wishes() {
        for (spec, said) in [
            (
                json!({"containers": {}}),
                "spec.containers is an object, and must be a list",
            ),
            (
                json!({"containers": ["c"]}),
                "spec.containers[0] is \"c\", and must be an object",
            ),
            (
                json!({"hostNetwork": "yes"}),
                "spec.hostNetwork is \"yes\", and must be true or false",
            ),
            (
                json!({"priority": 1.5}),
                "spec.priority is 1.5, and must be a whole number",
            ),
            (
                json!({"nodeSelector": {"a": true}}),
                "spec.nodeSelector.a is true, and must be a string",
            ),
        ] {
            let (_, refused) = pod(json!({"spec": spec}), FieldValidation::Ignore);
            assert!(refused.clone().unwrap_err().ends_with(said), "{refused:?}");
        }
    }
}
