//! Errors, as the API server words them: clients decide by reason and code what to do next, and people read the
//! message.

use std::{fmt::Write as _, time::Duration};

use http::{HeaderValue, Response, StatusCode, header::RETRY_AFTER};
use serde::Serialize;

use super::body::{self, Body};

/// A failed request: `metav1.Status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}", self.0.message)]
pub struct Status(Box<Fields>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    kind: &'static str,
    api_version: &'static str,
    metadata: Meta,
    status: &'static str,
    message: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    code: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Meta {
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    continue_token: Option<String>,
}

/// What the error is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Of the resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource, by a quirk of the API.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// One by one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to come again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// One of several things that are wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// One word.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'static str,
    /// For a person.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Which parameter.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub field: &'static str,
}

/// A parameter that must not be as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Which parameter.
    pub field: &'static str,
    /// `FieldValueForbidden` and the like.
    pub reason: &'static str,
    /// What of it, without the field's name.
    pub detail: String,
}

impl Status {
    /// With a reason that clients know.
    pub fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Fields {
            kind: "Status",
            api_version: "v1",
            metadata: Meta::default(),
            status: "Failure",
            message: message.into(),
            reason,
            details: None,
            code: code.as_u16(),
        }))
    }

    /// The same with details.
    #[must_use]
    pub fn with_details(mut self, details: Details) -> Self {
        self.0.details = Some(details);
        self
    }

    /// The HTTP status.
    pub fn code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// One word.
    pub fn reason(&self) -> &'static str {
        self.0.reason
    }

    /// For a person.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// A request that cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// No object of this name. `group` is empty for the core group.
    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", qualified(group, plural));
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).with_details(Details {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: plural.to_owned(),
            ..Details::default()
        })
    }

    /// Nothing at this path.
    pub fn no_such_path() -> Self {
        let message = "the server could not find the requested resource";
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).with_details(Details::default())
    }

    /// The resource is there, and does not do this.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
            .with_details(Details::default())
    }

    /// The caller may not do this. `why` stands at the end of what the API server says.
    pub fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let of = qualified(group, plural);
        let message = match name {
            "" => format!("{of} is forbidden: {why}"),
            name => format!("{of} \"{name}\" is forbidden: {why}"),
        };
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).with_details(Details {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: plural.to_owned(),
            ..Details::default()
        })
    }

    /// The version asked for is remembered no more.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// A list cannot go on as it was; with `token` it can go on in what there is now.
    pub fn expired_continue(token: String) -> Self {
        let mut status = Self::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a \
             new list without the continue parameter, or use the continue token in this response to retrieve \
             the remainder of the results. Continuing with the provided token results in an inconsistent list - \
             objects that were created, modified, or deleted between the time the first chunk was returned and \
             now may show up in the list.",
        );
        status.0.metadata.continue_token = Some(token);
        status
    }

    /// The version asked for has not come yet.
    pub fn too_large_version(wanted: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {wanted}, current: {current}");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message).with_details(Details {
            causes: vec![Cause {
                reason: "ResourceVersionTooLarge",
                message: "Too large resource version".to_owned(),
                field: "",
            }],
            retry_after_seconds: Some(1),
            ..Details::default()
        })
    }

    /// Not now; perhaps in a while.
    pub fn unavailable(message: impl Into<String>, retry_after: Duration) -> Self {
        let seconds = whole_seconds(retry_after);
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            message,
        )
        .with_details(Details {
            retry_after_seconds: Some(seconds),
            ..Details::default()
        })
    }

    /// Not ready to read yet.
    pub fn too_many_requests(message: impl Into<String>, retry_after: Duration) -> Self {
        let seconds = whole_seconds(retry_after);
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message).with_details(Details {
            retry_after_seconds: Some(seconds),
            ..Details::default()
        })
    }

    /// A resourceVersion that is none, in a list; elsewhere the API server takes it for its own mistake.
    pub fn invalid_version(text: &str, in_list: bool) -> Self {
        let message = format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        );
        if in_list {
            return Self::bad_request(format!("invalid resource version: {message}"));
        }
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
    }

    /// None of the representations that the caller takes.
    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    /// Parameters that do not go together, all of them at once.
    pub fn invalid(kind: &str, problems: &[Invalid]) -> Self {
        let worded: Vec<String> = problems
            .iter()
            .map(|problem| format!("{}: {}", problem.field, problem.detail))
            .collect();
        let all = match worded.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let mut message = String::new();
        // Writing to a String does not fail.
        let _ = write!(message, "{kind}.meta.k8s.io \"\" is invalid: {all}");
        let causes = problems.iter().map(|problem| Cause {
            reason: problem.reason,
            message: problem.detail.clone(),
            field: problem.field,
        });
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).with_details(Details {
            group: "meta.k8s.io".to_owned(),
            kind: kind.to_owned(),
            causes: causes.collect(),
            ..Details::default()
        })
    }

    /// As JSON, with the newline that the API server's encoder puts at the end.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings and numbers only: it cannot fail.
        let mut json = serde_json::to_vec(self).unwrap_or_default();
        json.push(b'\n');
        json
    }

    /// As an answer.
    pub fn response(&self) -> Response<Body> {
        let mut response = body::json(self.code(), body::full(self.to_json()));
        let seconds = self
            .0
            .details
            .as_ref()
            .and_then(|details| details.retry_after_seconds);
        if let Some(seconds) = seconds {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// `pods`, `deployments.apps`.
pub fn qualified(group: &str, plural: &str) -> String {
    match group {
        "" => plural.to_owned(),
        group => format!("{plural}.{group}"),
    }
}

/// As the header has it, and not too soon.
fn whole_seconds(wait: Duration) -> u32 {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(status: &Status) -> String {
        String::from_utf8(status.to_json()).unwrap()
    }

    #[test]
    fn errors_read_as_those_of_the_api_server() {
        assert_eq!(
            json(&Status::not_found("apps", "deployments", "web")),
            "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\
             \"message\":\"deployments.apps \\\"web\\\" not found\",\"reason\":\"NotFound\",\
             \"details\":{\"name\":\"web\",\"group\":\"apps\",\"kind\":\"deployments\"},\"code\":404}\n"
        );
        assert_eq!(
            json(&Status::too_large_version(9, 5)),
            "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\
             \"message\":\"Timeout: Too large resource version: 9, current: 5\",\"reason\":\"Timeout\",\
             \"details\":{\"causes\":[{\"reason\":\"ResourceVersionTooLarge\",\
             \"message\":\"Too large resource version\"}],\"retryAfterSeconds\":1},\"code\":504}\n"
        );
    }

    #[test]
    fn what_may_pass_says_when_to_come_again_in_the_header_too() {
        let response = Status::too_large_version(9, 5).response();
        assert_eq!(response.status(), 504);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
    }

    #[test]
    fn several_wrong_parameters_are_named_at_once() {
        let problem = |field| Invalid {
            field,
            reason: "FieldValueForbidden",
            detail: "Forbidden: no".to_owned(),
        };
        let status = Status::invalid("ListOptions", &[problem("a"), problem("b")]);
        assert_eq!(
            status.message(),
            "ListOptions.meta.k8s.io \"\" is invalid: [a: Forbidden: no, b: Forbidden: no]"
        );
        assert_eq!(status.code(), 422);
    }
}
