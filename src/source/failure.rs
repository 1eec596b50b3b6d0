//! What went wrong upstream, as far as the state machine has to tell it apart.

use std::time::Duration;

use crate::upstream::{ApiStatus, UpstreamError};

/// A request, or an open watch, that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the machine goes by.
    pub fault: Fault,
    /// One word for the kind's status, such as `Forbidden`.
    pub reason: String,
    /// The same for a person.
    pub message: String,
    /// How long the API server wants to be left alone.
    pub retry_after: Option<Duration>,
    /// It came as an `ERROR` event of an open watch.
    pub in_stream: bool,
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// 410: the revision, or the continue token, is gone from history.
    Expired,
    /// The revision is one that the API server has not seen yet.
    TooNew,
    /// 400, 405, 406 or 422: it does not understand, or does not do, what was asked.
    Refused,
    /// 403.
    Forbidden,
    /// 401.
    Unauthorized,
    /// 404: the kind is not served, at the moment at least.
    NotFound,
    /// Any other answer that is an error.
    Status,
    /// No answer in time, or it stopped in the middle.
    Timeout,
    /// The connection failed.
    Cut,
    /// The answer makes no sense.
    Garbled,
}

impl Fault {
    /// For a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::TooNew => "too_new",
            Self::Refused => "refused",
            Self::Forbidden => "forbidden",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not_found",
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::Cut => "cut",
            Self::Garbled => "garbled",
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Expired => "Expired",
            Self::TooNew => "ResourceVersionTooLarge",
            Self::Refused => "BadRequest",
            Self::Forbidden => "Forbidden",
            Self::Unauthorized => "Unauthorized",
            Self::NotFound => "NotFound",
            Self::Status => "ServerError",
            Self::Timeout => "Timeout",
            Self::Cut => "Disconnected",
            Self::Garbled => "BadResponse",
        }
    }
}

impl Failure {
    /// One that no answer of the API server stands for.
    pub fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self {
            fault,
            reason: fault.reason().to_owned(),
            message: message.into(),
            retry_after: None,
            in_stream: false,
        }
    }

    /// An `ERROR` event.
    pub fn in_stream(status: &ApiStatus) -> Self {
        Self {
            in_stream: true,
            ..Self::from(status)
        }
    }
}

impl From<&ApiStatus> for Failure {
    fn from(status: &ApiStatus) -> Self {
        let fault = if status.is_expired() {
            Fault::Expired
        } else if status.is_resource_version_too_large() {
            Fault::TooNew
        } else {
            match status.code {
                400 | 405 | 406 | 422 => Fault::Refused,
                401 => Fault::Unauthorized,
                403 => Fault::Forbidden,
                404 => Fault::NotFound,
                _ => Fault::Status,
            }
        };
        let given = !status.reason.is_empty() && fault != Fault::TooNew;
        let reason = if given {
            status.reason.clone()
        } else {
            fault.reason().to_owned()
        };
        Self {
            fault,
            reason,
            message: status.to_string(),
            retry_after: status.retry_after,
            in_stream: false,
        }
    }
}

impl From<&UpstreamError> for Failure {
    fn from(error: &UpstreamError) -> Self {
        match error {
            UpstreamError::Status(status) | UpstreamError::Unauthorized(status) => Self {
                message: error.to_string(),
                ..Self::from(&**status)
            },
            UpstreamError::HeaderTimeout(_) | UpstreamError::BodyTimeout(_) => {
                Self::new(Fault::Timeout, error.to_string())
            }
            UpstreamError::TooLarge(_) | UpstreamError::Decode { .. } => {
                Self::new(Fault::Garbled, error.to_string())
            }
            UpstreamError::Transport(_) => Self::new(Fault::Cut, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: u16, reason: &str, causes: &[&str]) -> Fault {
        let causes = causes.iter().map(|&cause| cause.to_owned()).collect();
        Failure::from(&ApiStatus {
            code,
            reason: reason.to_owned(),
            causes,
            ..ApiStatus::default()
        })
        .fault
    }

    #[test]
    fn answers_are_told_apart_by_what_is_to_be_done() {
        assert_eq!(fault(410, "Expired", &[]), Fault::Expired);
        assert_eq!(fault(410, "", &[]), Fault::Expired);
        assert_eq!(
            fault(504, "Timeout", &["ResourceVersionTooLarge"]),
            Fault::TooNew
        );
        assert_eq!(fault(504, "Timeout", &[]), Fault::Status);
        assert_eq!(fault(422, "Invalid", &[]), Fault::Refused);
        assert_eq!(fault(403, "Forbidden", &[]), Fault::Forbidden);
        assert_eq!(fault(429, "TooManyRequests", &[]), Fault::Status);
    }

    #[test]
    fn a_failure_keeps_the_words_of_the_api_server_and_when_to_come_back() {
        let status = ApiStatus {
            code: 429,
            reason: "TooManyRequests".to_owned(),
            message: "slow down".to_owned(),
            retry_after: Some(Duration::from_secs(3)),
            causes: Vec::new(),
        };
        let failure = Failure::from(&UpstreamError::from(status));
        assert_eq!(
            (failure.reason.as_str(), failure.retry_after),
            ("TooManyRequests", Some(Duration::from_secs(3)))
        );
        assert!(failure.message.contains("slow down"));
    }
}
