//! Why a request is refused, as the API server says it: code, reason, message and details of its `Status`.

use serde_json::{Value, json};

use super::definition::Definition;

/// One refusal.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The HTTP status.
    pub code: u16,
    /// `NotFound`, `Conflict`, ...; empty where the API server gives none.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// `details` of the status; null if there are none.
    pub details: Value,
}

/// What is wrong with one field of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// `spec.containers[0].name`.
    pub field: String,
    /// How it is wrong.
    pub kind: WrongKind,
}

/// How a field is wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum WrongKind {
    /// It is missing; with a hint, or none.
    Required(&'static str),
    /// Its value cannot be; with why.
    Invalid(Value, String),
    /// Its value is none of these.
    Unsupported(Value, &'static [&'static str]),
    /// It may not be given; with why.
    Forbidden(String),
    /// It stands twice.
    Duplicate(Value),
}

impl Wrong {
    /// A field that is missing.
    pub fn required(field: impl Into<String>, hint: &'static str) -> Self {
        let kind = WrongKind::Required(hint);
        Self {
            field: field.into(),
            kind,
        }
    }

    /// A field whose value cannot be.
    pub fn invalid(field: impl Into<String>, value: &Value, why: impl Into<String>) -> Self {
        let kind = WrongKind::Invalid(value.clone(), why.into());
        Self {
            field: field.into(),
            kind,
        }
    }

    /// A field whose value is none of those that can be.
    pub fn unsupported(
        field: impl Into<String>,
        value: &Value,
        known: &'static [&'static str],
    ) -> Self {
        let kind = WrongKind::Unsupported(value.clone(), known);
        Self {
            field: field.into(),
            kind,
        }
    }

    /// A field that may not be given.
    pub fn forbidden(field: impl Into<String>, why: impl Into<String>) -> Self {
        let kind = WrongKind::Forbidden(why.into());
        Self {
            field: field.into(),
            kind,
        }
    }

    /// A value that stands twice.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        let kind = WrongKind::Duplicate(value.clone());
        Self {
            field: field.into(),
            kind,
        }
    }

    /// A field that must stay as it is.
    pub fn immutable(field: impl Into<String>, value: &Value) -> Self {
        Self::invalid(field, value, "field is immutable")
    }

    fn reason(&self) -> &'static str {
        match self.kind {
            WrongKind::Required(_) => "FieldValueRequired",
            WrongKind::Invalid(..) => "FieldValueInvalid",
            WrongKind::Unsupported(..) => "FieldValueNotSupported",
            WrongKind::Forbidden(_) => "FieldValueForbidden",
            WrongKind::Duplicate(_) => "FieldValueDuplicate",
        }
    }

    /// Without the field's path.
    fn body(&self) -> String {
        match &self.kind {
            WrongKind::Required("") => "Required value".to_owned(),
            WrongKind::Required(hint) => format!("Required value: {hint}"),
            WrongKind::Invalid(value, why) => format!("Invalid value: {value}: {why}"),
            WrongKind::Unsupported(value, known) => {
                let known: Vec<String> = known.iter().map(|it| format!("{it:?}")).collect();
                format!(
                    "Unsupported value: {value}: supported values: {}",
                    known.join(", ")
                )
            }
            WrongKind::Forbidden(why) => format!("Forbidden: {why}"),
            WrongKind::Duplicate(value) => format!("Duplicate value: {value}"),
        }
    }
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: String, details: Value) -> Self {
        Self {
            code,
            reason,
            message,
            details,
        }
    }

    /// There is no such object.
    pub fn not_found(definition: &Definition, name: &str) -> Self {
        let message = format!("{} {name:?} not found", definition.resource());
        Self::new(404, "NotFound", message, about(definition, name))
    }

    /// There is one of this name.
    pub fn already_exists(definition: &Definition, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", definition.resource());
        Self::new(409, "AlreadyExists", message, about(definition, name))
    }

    /// The object is another one than the writer has seen.
    pub fn modified(definition: &Definition, name: &str) -> Self {
        Self::conflict(
            definition,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// It cannot be done to the object as it is.
    pub fn conflict(definition: &Definition, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {why}",
            definition.resource()
        );
        Self::new(409, "Conflict", message, about(definition, name))
    }

    /// The object as asked for cannot be.
    pub fn invalid(definition: &Definition, name: &str, wrong: &[Wrong]) -> Self {
        let identity = &definition.identity;
        let kind = if identity.group.is_empty() {
            identity.kind.clone()
        } else {
            format!("{}.{}", identity.kind, identity.group)
        };
        let said: Vec<String> = wrong
            .iter()
            .map(|wrong| format!("{}: {}", wrong.field, wrong.body()))
            .collect();
        let said = match said.as_slice() {
            [one] => one.clone(),
            all => format!("[{}]", all.join(", ")),
        };
        let causes: Vec<Value> = wrong
            .iter()
            .map(|wrong| json!({"reason": wrong.reason(), "message": wrong.body(), "field": wrong.field}))
            .collect();
        let mut details = about(definition, name);
        details["kind"] = identity.kind.clone().into();
        details["causes"] = causes.into();
        let message = format!("{kind} {name:?} is invalid: {said}");
        Self::new(422, "Invalid", message, details)
    }

    /// The namespace takes nothing new.
    pub fn terminating(definition: &Definition, name: &str, namespace: &str) -> Self {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut refusal = Self::forbidden(definition, name, &why);
        refusal.details["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        }]);
        refusal
    }

    /// Nobody may do that.
    pub fn forbidden(definition: &Definition, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", definition.resource());
        Self::new(403, "Forbidden", message, about(definition, name))
    }

    /// The request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message.into(), Value::Null)
    }

    /// A patch that leads nowhere from the object as it is.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(422, "Invalid", message.into(), Value::Null)
    }

    /// Nothing is there.
    pub fn no_such_path() -> Self {
        let message = "the server could not find the requested resource";
        Self::new(404, "NotFound", message.to_owned(), json!({}))
    }

    /// The resource has no such verb.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message.to_owned(), Value::Null)
    }

    /// Nobody has a body of this type here.
    pub fn media_type(accepted: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Self::new(415, "UnsupportedMediaType", message, Value::Null)
    }

    /// The API server's fault, in its own words.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "", message.into(), Value::Null)
    }

    /// As a `Status` object.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}

/// Which object a status is about.
pub(super) fn about(definition: &Definition, name: &str) -> Value {
    let identity = &definition.identity;
    let mut details = json!({"kind": identity.plural});
    for (key, value) in [("name", name), ("group", &identity.group)] {
        if !value.is_empty() {
            details[key] = value.into();
        }
    }
    details
}
