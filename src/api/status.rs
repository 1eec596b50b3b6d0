//! The one place where what can go wrong becomes a gRPC status.
//!
//! Every status carries ErrorInfo (a reason, the domain `informerd`); RetryInfo where a retry helps; BadRequest
//! with the field for bad input.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    auth::{AuthError, Over},
    cache::Phase,
    proof::{ProofError, ThroughError},
};

/// Domain of every ErrorInfo.
pub const DOMAIN: &str = "informerd";
/// Longest message in bytes. A status travels in headers, of which many clients take 8 KiB, and names what was
/// asked for.
const MAX_MESSAGE: usize = 1024;

/// Why a call fails, or a stream ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something in the request is wrong.
    #[error("{field}: {problem}")]
    Invalid {
        /// The request's field, as the proto names it.
        field: &'static str,
        /// What is wrong, and what to write instead.
        problem: String,
    },
    /// The request asks for something that is not there yet.
    #[error("{field}: {value} is not built yet; leave it unset")]
    NotBuilt {
        /// The request's field.
        field: &'static str,
        /// What it was set to.
        value: String,
    },
    /// The token belongs to another watch.
    #[error("token: it was given for {given}; it can only be used to go on with the same")]
    TokenScope {
        /// What differs.
        given: String,
    },
    /// The daemon does not watch the kind.
    #[error("this daemon does not watch {resource:?}{}", self::configured(.configured))]
    NotConfigured {
        /// As asked for.
        resource: String,
        /// The names of those that are; empty where that is not everybody's business.
        configured: String,
    },
    /// No controller has verdicts on the kind.
    #[error(
        "no controller judges {resource}{}. Add `workload`, or the controller that is made for \
         the kind, under `controllers` in the daemon's config, and let the kind start eagerly with more than its \
         metadata", self::judged(.judged)
    )]
    NotJudged {
        /// As asked for.
        resource: String,
        /// The kinds that are; empty where that is not everybody's business.
        judged: String,
    },
    /// No such object.
    #[error("{resource} \"{key}\" not found")]
    NotFound {
        /// As asked for.
        resource: String,
        /// `namespace/name` or `name`.
        key: String,
    },
    /// Only metadata is there, and more was asked for.
    #[error(
        "view: only metadata of {resource} is cached, as its `metadataOnly: true` in the daemon's config says; \
         ask for VIEW_METADATA or VIEW_KEYS, or for single objects with read_through where it has `readThrough: true`"
    )]
    MetadataOnly {
        /// As asked for.
        resource: String,
    },
    /// The whole object was to be read from the API server, and was not.
    #[error("read_through: {resource}: {why}")]
    NotRead {
        /// As asked for.
        resource: String,
        /// Why.
        why: ThroughError,
    },
    /// Not complete yet.
    #[error("{resource} is not synced: {phase}{}", because(.message))]
    NotSynced {
        /// As asked for.
        resource: String,
        /// Where it is instead.
        phase: &'static str,
        /// Why, if known.
        message: String,
    },
    /// The version asked for did not come in time.
    #[error("min_resource_version: {wanted} was not reached in time; {resource} is at {reached}")]
    VersionNotReached {
        /// As asked for.
        resource: String,
        /// What was asked for.
        wanted: u64,
        /// What there is.
        reached: u64,
    },
    /// What is here could not be proven to be the most recent.
    #[error(
        "consistent: {resource} is not proven to be the most recent: {why}; leave it unset for what is at hand"
    )]
    NotProven {
        /// As asked for.
        resource: String,
        /// Why.
        why: ProofError,
    },
    /// The token is ahead of this replica.
    #[error("token: it is ahead of this replica, which is at {reached}; try again soon")]
    TokenAhead {
        /// What there is.
        reached: u64,
    },
    /// The stream cannot go on from where it was.
    #[error(
        "the stream cannot go on from this token ({reason}); begin again without it, or watch with on_gap RESET"
    )]
    Gap {
        /// One word.
        reason: &'static str,
    },
    /// A snapshot was held too long.
    #[error("the list made no progress for {} s, and its snapshot was let go; list again", .0.as_secs())]
    Stalled(Duration),
    /// The daemon is shutting down.
    #[error("this replica is shutting down; go on at another one, or here when it is back")]
    Draining,
    /// The caller is not let in.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The caller was let in, and its rights are over.
    #[error("{}", rights_over(.0))]
    RightsOver(Over),
    /// A name means another kind to the API server than to the cache.
    #[error("scope.resource: {asked:?} may mean several kinds; write {full:?}")]
    Ambiguous {
        /// As asked for.
        asked: String,
        /// What to write.
        full: String,
    },
    /// The API server serves the kind no more.
    #[error("{resource} is no longer served by the API server: {message}")]
    KindRemoved {
        /// As asked for.
        resource: String,
        /// Why, if known.
        message: String,
    },
}

/// The message, cut where it is longer than [`MAX_MESSAGE`].
fn clip(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        message.push_str("...");
    }
    message
}

fn configured(kinds: &str) -> String {
    match kinds {
        "" => String::new(),
        kinds => format!("; it watches {kinds}. Add it under `kinds` in its config"),
    }
}

fn judged(kinds: &str) -> String {
    match kinds {
        "" => String::new(),
        kinds => format!("; judged are {kinds}"),
    }
}

fn rights_over(over: &Over) -> String {
    match over {
        Over::Revoked(error) => format!("the right to this stream is gone: {error}"),
        Over::Expired => {
            "the credentials have expired; go on from the last token with new ones".to_owned()
        }
        Over::Unproven(error) => {
            format!("nobody can say any more whether this stream is still allowed: {error}")
        }
    }
}

fn because(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(" ({message})")
    }
}

impl Error {
    /// For a request's field.
    pub fn invalid(field: &'static str, problem: impl ToString) -> Self {
        Self::Invalid {
            field,
            problem: problem.to_string(),
        }
    }

    /// Of a kind that has nothing to serve yet.
    pub fn not_synced(resource: &str, phase: Phase, message: &str) -> Self {
        Self::NotSynced {
            resource: resource.to_owned(),
            phase: phase.as_str(),
            message: message.to_owned(),
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Invalid { .. } | Self::TokenScope { .. } => Code::InvalidArgument,
            Self::NotBuilt { .. } => Code::Unimplemented,
            Self::NotConfigured { .. }
            | Self::NotJudged { .. }
            | Self::NotFound { .. }
            | Self::KindRemoved { .. } => Code::NotFound,
            Self::MetadataOnly { .. } => Code::FailedPrecondition,
            Self::NotProven {
                why: ProofError::TooMany,
                ..
            }
            | Self::NotRead {
                why: ThroughError::TooMany,
                ..
            } => Code::ResourceExhausted,
            Self::NotRead {
                why: ThroughError::Forbidden(_),
                ..
            } => Code::PermissionDenied,
            Self::NotSynced { .. }
            | Self::NotProven { .. }
            | Self::NotRead { .. }
            | Self::VersionNotReached { .. }
            | Self::TokenAhead { .. }
            | Self::Draining => Code::Unavailable,
            Self::Gap { .. } => Code::OutOfRange,
            Self::Stalled(_) => Code::Aborted,
            Self::Auth(error) => auth_code(error),
            Self::RightsOver(Over::Revoked(error) | Over::Unproven(error)) => auth_code(error),
            Self::RightsOver(Over::Expired) => Code::Unauthenticated,
            Self::Ambiguous { .. } => Code::InvalidArgument,
        }
    }

    /// One word, as in ErrorInfo and in an END mark.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "INVALID_FIELD",
            Self::NotBuilt { .. } => "NOT_BUILT",
            Self::TokenScope { .. } => "TOKEN_SCOPE",
            Self::NotConfigured { .. } => "KIND_NOT_CONFIGURED",
            Self::NotJudged { .. } => "KIND_NOT_JUDGED",
            Self::NotFound { .. } => "OBJECT_NOT_FOUND",
            Self::MetadataOnly { .. } => "METADATA_ONLY",
            Self::NotSynced { .. } => "KIND_NOT_SYNCED",
            Self::VersionNotReached { .. } => "VERSION_NOT_REACHED",
            Self::NotProven { .. } => "NOT_PROVEN",
            Self::NotRead { .. } => "NOT_READ_THROUGH",
            Self::TokenAhead { .. } => "TOKEN_AHEAD",
            Self::Gap { reason } => reason,
            Self::Stalled(_) => "SNAPSHOT_EXPIRED",
            Self::Draining => "DRAINING",
            Self::KindRemoved { .. } => "KIND_REMOVED",
            Self::Auth(AuthError::Unauthenticated(_)) => "UNAUTHENTICATED",
            Self::Auth(AuthError::Forbidden { .. }) => "PERMISSION_DENIED",
            Self::Auth(AuthError::Invalid(_)) => "IMPERSONATION_INVALID",
            Self::Auth(AuthError::Unavailable(_)) => "AUTH_UNAVAILABLE",
            Self::Auth(AuthError::Busy(_)) => "AUTH_BUSY",
            Self::RightsOver(Over::Revoked(_)) => "REVOKED",
            Self::RightsOver(Over::Expired) => "CREDENTIALS_EXPIRED",
            Self::RightsOver(Over::Unproven(_)) => "AUTH_UNAVAILABLE",
            Self::Ambiguous { .. } => "KIND_AMBIGUOUS",
            Self::Auth(AuthError::TooMany(_)) => "TOO_MUCH",
        }
    }

    fn field(&self) -> Option<&'static str> {
        match self {
            Self::Invalid { field, .. } | Self::NotBuilt { field, .. } => Some(field),
            Self::TokenScope { .. } => Some("token"),
            Self::Ambiguous { .. } => Some("scope.resource"),
            _ => None,
        }
    }

    /// When a retry may help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NotSynced { .. } => Some(Duration::from_secs(2)),
            Self::VersionNotReached { .. } | Self::TokenAhead { .. } => {
                Some(Duration::from_millis(500))
            }
            Self::NotRead {
                why: ThroughError::Forbidden(_),
                ..
            } => None,
            Self::Draining | Self::NotProven { .. } | Self::NotRead { .. } => {
                Some(Duration::from_secs(1))
            }
            Self::Stalled(_) => Some(Duration::ZERO),
            Self::Auth(error) | Self::RightsOver(Over::Unproven(error)) => error.retry_after(),
            _ => None,
        }
    }
}

fn auth_code(error: &AuthError) -> Code {
    match error {
        AuthError::Unauthenticated(_) => Code::Unauthenticated,
        AuthError::Forbidden { .. } => Code::PermissionDenied,
        AuthError::Invalid(_) => Code::InvalidArgument,
        AuthError::Unavailable(_) => Code::Unavailable,
        AuthError::Busy(_) | AuthError::TooMany(_) => Code::ResourceExhausted,
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = clip(error.to_string());
        let mut details = ErrorDetails::with_error_info(error.reason(), DOMAIN, HashMap::new());
        if let Some(field) = error.field() {
            details.add_bad_request_violation(field, &message);
        }
        if let Some(delay) = error.retry_after() {
            details.set_retry_info(Some(delay));
        }
        Self::with_error_details(error.code(), message, details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_names_the_field_in_the_message_and_in_the_details() {
        let status = Status::from(Error::invalid("scope.name", "needs exactly one namespace"));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "scope.name: needs exactly one namespace");
        let details = status.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "scope.name");
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("INVALID_FIELD", "informerd")
        );
    }

    #[test]
    fn a_status_fits_into_headers_however_long_what_it_quotes() {
        let status = Status::from(Error::NotFound {
            resource: "pods".to_owned(),
            key: "\u{e9}".repeat(60_000),
        });
        assert!(status.message().len() <= MAX_MESSAGE + 3);
        assert!(status.message().ends_with("..."));
        assert!(status.details().len() < 4 << 10);
        let short = Status::from(Error::invalid("view", "9"));
        assert_eq!(short.message(), "view: 9");
    }

    #[test]
    fn what_may_pass_says_when_to_try_again() {
        let status = Status::from(Error::not_synced(
            "pods",
            Phase::Forbidden,
            "pods is forbidden",
        ));
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(
            status.message(),
            "pods is not synced: forbidden (pods is forbidden)"
        );
        assert!(status.get_error_details().retry_info().is_some());
    }
}
