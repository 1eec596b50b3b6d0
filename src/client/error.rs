//! What can go wrong between this client and informerd, told apart as a caller needs it: retry, or tell somebody.

use std::{error::Error as StdError, fmt, io, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Why a call or a stream failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be used.
    #[error(
        "{address:?} is not an address of informerd: {why}; write HOST:PORT, http://HOST:PORT or https://HOST:PORT"
    )]
    Address {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// No connection could be made.
    #[error("cannot reach informerd at {server}: {why}; is `informerd serve` running?")]
    Unreachable {
        /// Host and port.
        server: String,
        /// "connection refused".
        why: String,
    },
    /// A connection that had been made broke.
    #[error("lost the connection to informerd at {server}: {why}")]
    Lost {
        /// Host and port.
        server: String,
        /// What the transport said.
        why: String,
    },
    /// informerd answered with an error.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// A watch received nothing, not even a bookmark: the connection or the server is stuck.
    #[error("heard nothing from informerd for {}s", .0.as_secs_f64())]
    Silent(Duration),
    /// informerd ended the stream in good order.
    #[error("informerd ended the stream: {}", words(.reason, .message))]
    Ended {
        /// One word: DRAINING, KIND_REMOVED, ...
        reason: String,
        /// The same for a person.
        message: String,
    },
    /// The answer stopped before it was complete.
    #[error("informerd's answer ended too early: {0}")]
    Incomplete(&'static str),
    /// What a watch has told does not come to what informerd says that it holds: something was lost on the way.
    #[error("what was told is not what informerd holds; {}", whether_anew(.for_good))]
    Differs {
        /// The watch was not to leave out what was missed: each change was asked for, or to fail at a gap.
        for_good: bool,
    },
    /// informerd sent what this client cannot understand.
    #[error("cannot understand informerd: {0}; use a client and a daemon of the same version")]
    Contract(String),
}

/// An error status from informerd: google.rpc.Status with its details.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The gRPC code.
    pub code: Code,
    /// ErrorInfo's reason, such as OBJECT_NOT_FOUND; empty where the status had none.
    pub reason: String,
    /// For a person.
    pub message: String,
    /// The fields of the request that are wrong.
    pub violations: Vec<Violation>,
    /// When to try again, where that helps.
    pub retry_delay: Option<Duration>,
}

/// One field of the request that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its path in the request: "scope.label_selector".
    pub field: String,
    /// What is wrong, and what to write instead.
    pub description: String,
}

impl Error {
    /// Reads a status, which is either informerd's own or the transport's.
    pub(super) fn from_status(server: &str, status: &Status) -> Self {
        // A status that was received has no source; the transport's own keep what caused them.
        let Some(source) = status.source() else {
            return Self::Refused(Box::new(Refusal::from(status)));
        };
        let chain = || std::iter::successors(Some(source), |&error| error.source());
        let io = chain().find_map(|error| error.downcast_ref::<io::Error>());
        let why = match io {
            Some(io) if io.raw_os_error().is_some() => io.kind().to_string(),
            _ => chain().last().unwrap_or(source).to_string(),
        };
        let server = server.to_owned();
        if chain().any(|error| error.is::<tonic::ConnectError>()) {
            Self::Unreachable { server, why }
        } else {
            Self::Lost { server, why }
        }
    }

    /// informerd's reason in one word, such as KIND_NOT_CONFIGURED; empty where it did not give one.
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused(refusal) => &refusal.reason,
            Self::Ended { reason, .. } => reason,
            _ => "",
        }
    }

    /// The gRPC code, where informerd answered with an error.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }

    /// How long informerd asks to wait before another try.
    pub fn retry_delay(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_delay,
            _ => None,
        }
    }

    /// Whether the caller's credentials have ended: with new ones it goes on.
    pub(super) fn is_expiry(&self) -> bool {
        self.reason() == "CREDENTIALS_EXPIRED"
    }

    /// Whether another try of the same request is bound to fail as well.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Address { .. } | Self::Contract(_) => true,
            Self::Differs { for_good } => *for_good,
            Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::Silent(_)
            | Self::Ended { .. }
            | Self::Incomplete(_) => false,
            Self::Refused(_) if self.is_expiry() => false,
            Self::Refused(refusal) => match refusal.code {
                // What proxies and restarting servers send, beside what informerd means to be retried.
                Code::Unavailable
                | Code::Aborted
                | Code::Cancelled
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Internal
                | Code::Unknown
                | Code::Ok => false,
                Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::Unimplemented
                | Code::DataLoss
                | Code::Unauthenticated => true,
            },
        }
    }
}

impl From<&Status> for Refusal {
    fn from(status: &Status) -> Self {
        Self {
            code: status.code(),
            reason: status
                .get_details_error_info()
                .map(|info| info.reason)
                .unwrap_or_default(),
            message: status.message().to_owned(),
            violations: status
                .get_details_bad_request()
                .into_iter()
                .flat_map(|bad| bad.field_violations)
                .map(|it| Violation {
                    field: it.field,
                    description: it.description,
                })
                .collect(),
            retry_delay: status
                .get_details_retry_info()
                .and_then(|info| info.retry_delay),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.message.is_empty(), self.reason.is_empty()) {
            (false, _) => f.write_str(&self.message)?,
            (true, false) => f.write_str(&self.reason)?,
            (true, true) => f.write_str(self.code.description())?,
        }
        for violation in &self.violations {
            if !self.message.contains(&violation.description) {
                write!(f, "; {}: {}", violation.field, violation.description)?;
            }
        }
        Ok(())
    }
}

fn whether_anew(for_good: &bool) -> &'static str {
    if *for_good {
        "watch again without a token"
    } else {
        "beginning anew"
    }
}

/// `REASON: message`, or whichever of the two there is.
fn words(reason: &str, message: &str) -> String {
    match (reason.is_empty(), message.is_empty()) {
        (false, false) => format!("{reason}: {message}"),
        (false, true) => reason.to_owned(),
        (true, false) => message.to_owned(),
        (true, true) => "no reason given".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn the_details_of_a_status_are_read() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info("BAD_SELECTOR", "informerd", [])
            .set_retry_info(Some(Duration::from_secs(3)))
            .add_bad_request_violation("scope.label_selector", "unclosed parenthesis");
        let status = Status::with_error_details(Code::InvalidArgument, "bad request", details);
        let error = Error::from_status("h:1", &status);
        assert_eq!(error.reason(), "BAD_SELECTOR");
        assert_eq!(error.code(), Some(Code::InvalidArgument));
        assert_eq!(error.retry_delay(), Some(Duration::from_secs(3)));
        assert!(error.is_permanent());
        assert_eq!(
            error.to_string(),
            "bad request; scope.label_selector: unclosed parenthesis"
        );
    }

    #[test]
    fn a_violation_that_the_message_already_tells_is_not_told_twice() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("token", "belongs to another scope");
        let status = Status::with_error_details(
            Code::InvalidArgument,
            "token belongs to another scope",
            details,
        );
        assert_eq!(
            Error::from_status("", &status).to_string(),
            "token belongs to another scope"
        );
    }

    #[test]
    fn what_may_pass_is_retried_and_what_cannot_is_not() {
        let permanent = |code| Error::from_status("", &Status::new(code, "")).is_permanent();
        for code in [
            Code::Unavailable,
            Code::Aborted,
            Code::ResourceExhausted,
            Code::Internal,
        ] {
            assert!(!permanent(code), "{code:?}");
        }
        for code in [
            Code::InvalidArgument,
            Code::OutOfRange,
            Code::PermissionDenied,
        ] {
            assert!(permanent(code), "{code:?}");
        }
    }
}
