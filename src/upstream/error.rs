//! What can go wrong between informerd and the API server, as values that a state machine can match on.
//!
//! kube's own mapping (`handle_api_errors`) is private, and flattens what a list/watch loop has to tell apart:
//! how long to wait, whether a revision is too old or too new, whether it was an answer at all.

use std::{error::Error, fmt, time::Duration};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use jiff::Timestamp;
use kube::core::Status;

/// A boxed error from the HTTP stack.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A request to the API server that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The API server (or a proxy before it) answered with an error.
    #[error("{0}")]
    Status(Box<ApiStatus>),
    /// 401: the credentials are missing, expired or revoked. The clients are being rebuilt.
    #[error("the API server does not accept the credentials: {0}")]
    Unauthorized(Box<ApiStatus>),
    /// Connected or not, no response headers arrived in time.
    #[error("the API server sent no response headers within {0:?}")]
    HeaderTimeout(Duration),
    /// The headers came, the rest of the body did not.
    #[error("the API server did not finish its response within {0:?}")]
    BodyTimeout(Duration),
    /// The body is larger than what the caller takes; the limit in bytes.
    #[error("the response is larger than {0} bytes")]
    TooLarge(usize),
    /// No connection, TLS refused, cut in the middle, a proxy in the way.
    #[error("cannot reach the API server: {}", chain(.0.as_ref()))]
    Transport(#[source] BoxError),
    /// The answer came, but is not what was asked for.
    #[error("cannot read the API server's {what}: {source}")]
    Decode {
        /// What it should have been.
        what: &'static str,
        /// Why it is not.
        source: serde_json::Error,
    },
}

impl UpstreamError {
    /// The API server's answer, if there was one.
    pub fn status(&self) -> Option<&ApiStatus> {
        match self {
            Self::Status(status) | Self::Unauthorized(status) => Some(status),
            _ => None,
        }
    }

    /// How long the API server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.status()?.retry_after
    }

    /// A short word for a metric's label.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Status(status) if status.is_expired() => "expired",
            Self::Status(status) if status.is_forbidden() => "forbidden",
            Self::Status(status) if status.is_not_found() => "not_found",
            Self::Status(status) if status.code == 429 => "too_many_requests",
            Self::Status(_) => "status",
            Self::Unauthorized(_) => "unauthorized",
            Self::HeaderTimeout(_) | Self::BodyTimeout(_) => "timeout",
            Self::TooLarge(_) | Self::Decode { .. } => "decode",
            Self::Transport(_) => "transport",
        }
    }
}

impl From<ApiStatus> for UpstreamError {
    fn from(status: ApiStatus) -> Self {
        match status.code {
            401 => Self::Unauthorized(Box::new(status)),
            _ => Self::Status(Box::new(status)),
        }
    }
}

impl From<kube::Error> for UpstreamError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => ApiStatus::from(*status).into(),
            kube::Error::Service(error) => Self::Transport(error),
            error => Self::Transport(Box::new(error)),
        }
    }
}

/// An error answer: what the API server's `metav1.Status` says, or the nearest to it where the body is something
/// else (a plain text 404, a load balancer's page).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiStatus {
    /// HTTP status code, or that of an in-stream error.
    pub code: u16,
    /// `Expired`, `Forbidden`, ...; empty if unknown.
    pub reason: String,
    /// For people. That of a `Forbidden` names user, verb, resource, group and scope.
    pub message: String,
    /// From the `Retry-After` header, else from `details.retryAfterSeconds`.
    pub retry_after: Option<Duration>,
    /// The reasons of `details.causes`, such as `ResourceVersionTooLarge`.
    pub causes: Vec<String>,
}

/// As much of an error body as anyone wants to read in a log.
const MESSAGE_CHARS: usize = 1024;

impl ApiStatus {
    /// Reads an error response. `body` may be anything.
    pub fn from_response(code: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let mut status = Self::from_json(body).unwrap_or_else(|| Self {
            message: printable(&String::from_utf8_lossy(body)),
            ..Self::default()
        });
        // The status line is what the server did; a body may be an older server's opinion, or a proxy's.
        status.code = code.as_u16();
        if status.message.is_empty() {
            status.message = code.canonical_reason().unwrap_or("no message").to_owned();
        }
        status.retry_after = retry_after(headers, Timestamp::now()).or(status.retry_after);
        status
    }

    /// Reads a `metav1.Status`, as error responses and a watch's `ERROR` events carry it. `None` if it is not one.
    pub fn from_json(json: &[u8]) -> Option<Self> {
        let looks: Kind = serde_json::from_slice(json).ok()?;
        (looks.kind == "Status").then_some(())?;
        serde_json::from_slice::<Status>(json).ok().map(Self::from)
    }

    /// 410: the revision asked for is gone from the API server's history.
    pub fn is_expired(&self) -> bool {
        self.code == 410 || self.reason == "Expired" || self.reason == "Gone"
    }

    /// 403: a permission is missing; the message names it.
    pub fn is_forbidden(&self) -> bool {
        self.code == 403
    }

    /// 404: no such object, or the kind is not served.
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    /// The revision asked for is one that this API server has not seen yet.
    pub fn is_resource_version_too_large(&self) -> bool {
        self.causes.iter().any(|cause| cause == "ResourceVersionTooLarge")
            // What servers before 1.17 say instead of the cause.
            || self.message.contains("Too large resource version")
    }
}

#[derive(serde::Deserialize)]
struct Kind {
    #[serde(default)]
    kind: String,
}

impl From<Status> for ApiStatus {
    fn from(status: Status) -> Self {
        let details = status.details;
        Self {
            code: status.code,
            reason: status.reason,
            message: printable(&status.message),
            retry_after: details
                .as_ref()
                .filter(|details| details.retry_after_seconds > 0)
                .map(|details| Duration::from_secs(details.retry_after_seconds.into())),
            causes: details
                .into_iter()
                .flat_map(|details| details.causes)
                .map(|cause| cause.reason)
                .collect(),
        }
    }
}

impl fmt::Display for ApiStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if !self.reason.is_empty() {
            write!(f, " {}", self.reason)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Seconds, or the date that proxies may write instead.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(value)
        .ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

/// One line, of bounded length, without control characters.
fn printable(text: &str) -> String {
    let text = text.trim();
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut out: String = clean.take(MESSAGE_CHARS).collect();
    if text.chars().nth(MESSAGE_CHARS).is_some() {
        out.push('…');
    }
    out
}

/// An error with its causes, for hyper's say only "client error (Connect)" by themselves.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        // rustls sends whoever programs with it to its manual.
        let next = next
            .split(": https://docs.rs/rustls/")
            .next()
            .unwrap_or(&next);
        // Some errors already print their cause.
        if !text.contains(next) {
            text.push_str(": ");
            text.push_str(next);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn answer(code: u16, headers: &[(&'static str, &'static str)], body: &str) -> ApiStatus {
        let headers = headers
            .iter()
            .map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_static(v)))
            .collect();
        ApiStatus::from_response(
            StatusCode::from_u16(code).unwrap(),
            &headers,
            body.as_bytes(),
        )
    }

    #[test]
    fn a_forbidden_error_names_the_missing_permission() {
        let message = r#"pods is forbidden: User "system:serviceaccount:informerd:informerd" cannot list resource "pods" in API group "" at the cluster scope"#;
        let body = serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": "Forbidden", "details": {"kind": "pods"}, "code": 403});
        let error = UpstreamError::from(answer(403, &[], &body.to_string()));
        assert_eq!(error.to_string(), format!("403 Forbidden: {message}"));
        assert_eq!(error.cause(), "forbidden");
    }

    #[test]
    fn a_revision_of_the_future_is_told_by_its_cause_and_says_when_to_retry() {
        let body = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",
            "message":"Timeout: Too large resource version: 9, current: 5","reason":"Timeout",
            "details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}],
            "retryAfterSeconds":1},"code":504}"#;
        let status = answer(504, &[], body);
        assert!(status.is_resource_version_too_large());
        assert_eq!(status.retry_after, Some(Duration::from_secs(1)));
        assert!(!status.is_expired());
    }

    #[test]
    fn the_retry_after_header_wins_over_the_body() {
        let body = r#"{"kind":"Status","reason":"TooManyRequests","details":{"retryAfterSeconds":1},"code":429}"#;
        let error = UpstreamError::from(answer(429, &[("retry-after", "7")], body));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(error.cause(), "too_many_requests");
    }

    #[test]
    fn a_retry_after_date_counts_from_now_and_is_never_negative() {
        let mut headers = HeaderMap::new();
        headers.insert(
            RETRY_AFTER,
            HeaderValue::from_static("Wed, 21 Oct 2015 07:28:00 GMT"),
        );
        let before: Timestamp = "2015-10-21T07:27:30Z".parse().unwrap();
        let after: Timestamp = "2015-10-21T07:29:00Z".parse().unwrap();
        assert_eq!(retry_after(&headers, before), Some(Duration::from_secs(30)));
        assert_eq!(retry_after(&headers, after), Some(Duration::ZERO));
    }

    #[test]
    fn a_plain_text_404_is_still_an_answer() {
        let status = answer(404, &[], "404 page not found\n");
        assert!(status.is_not_found());
        assert_eq!(status.to_string(), "404: 404 page not found");
    }

    #[test]
    fn an_empty_body_says_what_the_status_line_says() {
        assert_eq!(answer(503, &[], "").to_string(), "503: Service Unavailable");
    }

    #[test]
    fn a_long_error_page_is_cut() {
        let status = answer(502, &[], &"é\n".repeat(5000));
        assert_eq!(status.message.chars().count(), MESSAGE_CHARS + 1);
        assert!(!status.message.contains('\n'));
    }

    #[test]
    fn an_expired_watch_is_told_in_stream_as_well() {
        let json = br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",
            "message":"too old resource version: 1 (5)","reason":"Expired","code":410}"#;
        assert!(ApiStatus::from_json(json).unwrap().is_expired());
        assert_eq!(ApiStatus::from_json(br#"{"kind":"Pod"}"#), None);
        assert_eq!(ApiStatus::from_json(b"nonsense"), None);
    }

    #[test]
    fn unauthorized_is_a_case_of_its_own() {
        let error = UpstreamError::from(answer(
            401,
            &[],
            r#"{"kind":"Status","message":"Unauthorized","reason":"Unauthorized","code":401}"#,
        ));
        assert!(matches!(error, UpstreamError::Unauthorized(_)));
    }

    #[test]
    fn a_transport_error_shows_its_causes_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("client error (Connect)")]
        struct Outer(#[source] std::io::Error);
        let error =
            UpstreamError::Transport(Box::new(Outer(std::io::Error::other("connection refused"))));
        assert_eq!(
            error.to_string(),
            "cannot reach the API server: client error (Connect): connection refused"
        );
        let eof = std::io::Error::other(
            "peer closed connection without sending TLS close_notify: https://docs.rs/rustls/latest/x.html#eof",
        );
        assert_eq!(
            chain(&Outer(eof)),
            "client error (Connect): peer closed connection without sending TLS close_notify"
        );
    }
}
