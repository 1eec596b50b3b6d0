//! Who was not let in: a line in the log for each such call, with the permission that was missing and nothing else of
//! what was asked for.

use super::{AuthError, identity::Subject, peer::Peer};

/// Counts and logs a call that was not let in.
pub fn denied(subject: Option<&Subject>, peer: Option<&Peer>, error: &AuthError) {
    let reason = match error {
        AuthError::Unauthenticated(_) => "unauthenticated",
        AuthError::Forbidden { .. } => "forbidden",
        AuthError::Invalid(_) => "invalid",
        AuthError::Unavailable(_) => "unavailable",
        AuthError::Busy(_) | AuthError::TooMany(_) => "busy",
    };
    metrics::counter!("informerd_auth_denied_total", "reason" => reason).increment(1);
    tracing::warn!(
        target: "informerd::audit",
        event = "denied",
        reason,
        user = subject.map(|subject| subject.identity().user.as_str()),
        impersonator = subject.and_then(|subject| subject.impersonator()).map(|real| real.user.as_str()),
        by = subject.map(|subject| subject.method().as_str()),
        peer = peer.and_then(Peer::address).map(tracing::field::display),
        why = %error,
    );
}
