//! What somebody may do, as the API server says.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    AuthError, Reviews,
    attributes::Attributes,
    budget::{Budget, Rate},
    changes::Changes,
    identity::Identity,
    memo::Memo,
    reviews::Decision,
    secret::{Fingerprint, Fingerprints},
};

/// How long it is worth to wait for one's turn to ask the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Somebody new. Shed first: its client tries again.
    NewCall,
    /// A stream that is open, whose rights must be seen to be there.
    OpenStream,
}

impl Urgency {
    pub(super) fn patience(self) -> Duration {
        match self {
            Self::NewCall => Duration::from_secs(1),
            Self::OpenStream => Duration::from_secs(8),
        }
    }
}

/// How long an answer is remembered, yes or no.
const REMEMBER: Duration = Duration::from_secs(10);
const REMEMBERED: usize = 64 << 10;

pub(super) struct Authorizer {
    reviews: Arc<dyn Reviews>,
    fingerprints: Arc<Fingerprints>,
    changes: Arc<Changes>,
    decisions: Memo<Decision, AuthError>,
    budget: Arc<Budget<Fingerprint>>,
}

impl Authorizer {
    pub(super) fn new(
        reviews: Arc<dyn Reviews>,
        fingerprints: Arc<Fingerprints>,
        changes: Arc<Changes>,
        rate: Rate,
    ) -> Self {
        let each = Rate {
            per_second: rate.per_second.div_ceil(2),
            burst: rate.burst.div_ceil(2),
        };
        Self {
            reviews,
            fingerprints,
            changes,
            decisions: Memo::new(REMEMBERED),
            budget: Arc::new(Budget::new(rate, each)),
        }
    }

    /// Whether an identity may do something; an error says that it may not, or that nobody could be asked.
    pub(super) async fn check(
        &self,
        identity: &Arc<Identity>,
        attributes: &Attributes,
        urgency: Urgency,
    ) -> Result<(), AuthError> {
        let who = identity.fingerprint(&self.fingerprints);
        let key = {
            // Every field has a name there, so that no two permissions read the same. Not kept while it is asked.
            let what = serde_json::to_vec(attributes)
                .map_err(|error| AuthError::Unavailable(error.to_string()))?;
            // Of the time before permissions changed nothing is found any more.
            let round = self.changes.round().to_be_bytes();
            self.fingerprints.of("access", [&who[..], &what, &round])
        };
        let ask = || {
            let (reviews, budget) = (Arc::clone(&self.reviews), Arc::clone(&self.budget));
            let (identity, attributes) = (Arc::clone(identity), attributes.clone());
            // Open streams ask as often as their number has it, not as often as their owner likes.
            let asker = (urgency == Urgency::NewCall).then_some(who);
            async move {
                budget
                    .wait(asker, urgency.patience())
                    .await
                    .map_err(AuthError::Busy)?;
                let decision = reviews.access(&identity, &attributes).await?;
                Ok((decision, REMEMBER))
            }
        };
        match self.decisions.get(key, ask).await? {
            Decision::Allowed => Ok(()),
            Decision::Denied => Err(AuthError::Forbidden {
                user: identity.user.clone(),
                attributes: Box::new(attributes.clone()),
            }),
        }
    }
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorizer")
            .field("decisions", &self.decisions)
            .finish_non_exhaustive()
    }
}
