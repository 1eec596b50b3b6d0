//! Who calls, and what they may see.
//!
//! A cache that everybody shares is a way around the cluster's own permissions unless each call is held against
//! them. So nothing is decided here: the API server is asked who a token belongs to (TokenReview) and what that
//! identity may do (SubjectAccessReview), for the very verb, kind, namespace and name that a call is about and
//! before anything is looked up. What it said is remembered for ten seconds, or until permissions change; that it could not be asked is not,
//! and lets nobody in.
//!
//! The room knows neither gRPC nor HTTP routing: both faces of the daemon use it alike. What it needs of the API
//! server stands behind [`Reviews`].

use std::time::Duration;

mod attributes;
mod audit;
mod authenticate;
mod authorize;
mod budget;
mod calls;
pub(crate) mod certificate;
mod changes;
#[cfg(test)]
pub mod fake;
mod guard;
mod identity;
pub(crate) mod impersonate;
mod in_flight;
mod kept;
mod memo;
mod peer;
mod reviews;
mod rights;
mod secret;
mod snapshots;
#[cfg(test)]
mod tests;
mod untaken;

pub use attributes::{Attributes, ResourceAttributes, Verb};
pub use audit::{Called, allowed, clip, denied};
pub use authenticate::{Authentication, CertificateTrust, Presented};
pub use authorize::Urgency;
pub use calls::{Calls, Limits, Slot};
pub use changes::Due;
pub use guard::{Guard, Settings};
pub use identity::{Identity, Method, Subject};
pub use in_flight::Room;
pub use kept::Kept;
pub use peer::Peer;
pub use reviews::{ApiReviews, Decision, ReviewError, Reviews, TokenOwner};
pub use rights::{Lease, Over};
pub use secret::Token;
pub use snapshots::{PATIENCE, Snapshot};

/// Who may come in at a port.
#[derive(Clone, Debug, Default)]
pub enum Door {
    /// Whoever can connect, and as much as they like: within one process.
    #[default]
    Open,
    /// Whoever can connect, within limits.
    Limited(Calls),
    /// Who is somebody.
    Guarded(Guard),
}

/// Why a call is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The caller did not say who it is, or not credibly.
    #[error("{0}")]
    Unauthenticated(String),
    /// The caller is known, and may not do this.
    #[error("User {user:?} cannot {attributes}")]
    Forbidden {
        /// Who.
        user: String,
        /// The permission that is missing.
        attributes: Box<Attributes>,
    },
    /// The request's own words are wrong.
    #[error("{0}")]
    Invalid(String),
    /// The API server could not be asked. Fail closed.
    #[error("the API server cannot be asked who may do this: {0}")]
    Unavailable(String),
    /// More calls than may come in that time, or more questions at once than the API server is to be asked.
    #[error("too much is asked in a short time; try again in {} ms", .0.as_millis())]
    Busy(Duration),
    /// More calls than the caller, or everybody, may have open at once.
    #[error("{0}; try again later, or ask for less at once")]
    TooMany(String),
}

impl AuthError {
    /// When to try again, where that may help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable(_) => Some(Duration::from_secs(2)),
            Self::Busy(wait) => Some(*wait),
            Self::TooMany(_) => Some(Duration::from_secs(1)),
            Self::Unauthenticated(_) | Self::Forbidden { .. } | Self::Invalid(_) => None,
        }
    }

    /// Whether it says nothing about the caller: nobody could be asked.
    pub fn is_undecided(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Busy(_))
    }
}

/// Says what this module's metrics mean.
pub fn describe_metrics() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!(
        "informerd_auth_reviews_total",
        "Questions to the API server of who somebody is or what they may do, by review and answer."
    );
    describe_histogram!(
        "informerd_auth_review_seconds",
        Unit::Seconds,
        "How long the API server took to answer one, by review."
    );
    describe_counter!(
        "informerd_auth_permission_changes_total",
        "Times that roles or bindings had changed and the rights of open streams were looked for again at once."
    );
    describe_counter!(
        "informerd_auth_denied_total",
        "Calls that were not let in, by reason."
    );
    describe_counter!(
        "informerd_calls_shed_total",
        "Calls that were refused because their caller, or all, had too many at once."
    );
    describe_gauge!(
        "informerd_bytes_in_flight",
        Unit::Bytes,
        "What was made for callers and was not written yet."
    );
    describe_gauge!(
        "informerd_snapshots_held",
        "Lists, and first states of streams, that are under way for callers."
    );
    describe_counter!(
        "informerd_auth_streams_ended_total",
        "Streams whose rights went while they were open, by reason."
    );
    describe_counter!(
        "informerd_auth_connections_cut_total",
        "Streams whose connection was cut, since what they had been sent was not read soon after their rights went."
    );
}
