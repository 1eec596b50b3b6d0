//! The door: who calls, whether they may, and whether they still may.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    AuthError, Reviews,
    attributes::Attributes,
    authenticate::{Authentication, Authenticator, Presented},
    authorize::{Authorizer, Urgency},
    budget::Rate,
    calls::{Calls, Limits, Slot, shed},
    changes::{Changes, Due},
    identity::{Identity, Subject},
    impersonate,
    in_flight::Room,
    rights::{Holder, Lease},
    secret::Fingerprints,
};
use crate::quota::Quota;

/// Most bytes of headers of calls of which it is being asked who makes them, of all and of one address.
const OUTSIDE: usize = 256 << 20;
const OUTSIDE_OF_ONE: usize = 16 << 20;
/// After which whoever is one too many may try again.
const LATER: Duration = Duration::from_secs(1);

/// How much the API server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// TokenReviews a second, and as many SubjectAccessReviews.
    pub reviews_per_second: u32,
    /// What callers may have open.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            reviews_per_second: 50,
            limits: Limits::default(),
        }
    }
}

/// See the module's documentation. Clones are the same door.
#[derive(Clone)]
pub struct Guard(Arc<Inner>);

struct Inner {
    authenticator: Authenticator,
    authorizer: Authorizer,
    outside: Quota,
    fingerprints: Arc<Fingerprints>,
    changes: Arc<Changes>,
    holder: Holder,
    calls: Calls,
}

impl Guard {
    /// Lets in whoever proves to be somebody in one of these ways. `None` where the system has no randomness.
    pub fn new(how: Authentication, reviews: Arc<dyn Reviews>, settings: Settings) -> Option<Self> {
        let fingerprints = Arc::new(Fingerprints::random()?);
        let rate = Rate {
            per_second: settings.reviews_per_second,
            burst: settings.reviews_per_second,
        };
        let (asked, keys) = (Arc::clone(&reviews), Arc::clone(&fingerprints));
        let changes = Arc::new(Changes::new(settings.reviews_per_second));
        Some(Self(Arc::new(Inner {
            authenticator: Authenticator::new(how, asked, keys, rate),
            authorizer: Authorizer::new(
                reviews,
                Arc::clone(&fingerprints),
                Arc::clone(&changes),
                rate,
            ),
            outside: Quota::new(OUTSIDE, OUTSIDE_OF_ONE),
            fingerprints,
            changes,
            holder: Holder::default(),
            calls: Calls::new(settings.limits),
        })))
    }

    /// Who calls, and for whom it acts.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        presented: &Arc<Presented>,
    ) -> Result<Subject, AuthError> {
        let wait_outside = |peer: SocketAddr| {
            let taken = self.0.outside.take(peer.ip(), size(headers));
            taken.ok_or(AuthError::Busy(LATER)).inspect_err(|_| shed())
        };
        let _outside = presented.peer.map(wait_outside).transpose()?;
        let subject = self.0.authenticator.subject(headers, presented).await?;
        let Some((identity, needed)) = impersonate::asked(headers)? else {
            return Ok(subject);
        };
        let subject = Subject {
            identity: Arc::new(identity),
            impersonation: needed.into(),
            ..subject
        };
        self.may_impersonate(&subject, Urgency::NewCall).await?;
        Ok(subject)
    }

    /// A place among the calls that are open, if its caller may have one more.
    pub fn enter(&self, subject: &Subject) -> Result<Slot, AuthError> {
        self.0.calls.enter(&subject.identity().user)
    }

    /// Whether a caller may do something, before anything is looked up for it.
    pub async fn authorize(
        &self,
        subject: &Subject,
        attributes: &Attributes,
    ) -> Result<(), AuthError> {
        self.check(subject, attributes, Urgency::NewCall).await
    }

    /// Rights that a stream rests on: they were there when it was opened, and are looked for again as long as it
    /// is. Streams that rest on the same share the questions. Two seconds after its rights ended the connection of the
    /// call, whose room it is, is cut if the stream is still there, or anything that was made for it before: what is
    /// queued for a consumer that does not read must not reach it later.
    pub fn hold(
        &self,
        subject: &Subject,
        all: impl Into<Arc<[Attributes]>>,
        room: Option<&Room>,
    ) -> Lease {
        let mut lease = self.0.holder.hold(self, subject, all.into());
        if let Some(room) = room {
            lease.cuts(room.clone());
        }
        lease
    }

    /// Says that roles or bindings have changed: what was answered before is forgotten, and the rights of open streams
    /// are looked for again, over the next seconds. Returns when it may be said again; what changes meanwhile is to be
    /// said once, then.
    pub async fn permissions_changed(&self) {
        self.0.changes.begin(self.0.holder.count()).await;
    }

    /// When rights are to be looked for again, to whoever looks.
    pub fn due(&self) -> Due {
        self.0.changes.due()
    }

    /// Asks again, of a stream that is open, who its caller is and what it may. Returns the caller as it is now.
    pub async fn confirm(
        &self,
        subject: &Subject,
        all: &[Attributes],
    ) -> Result<Subject, AuthError> {
        let fresh = self.0.authenticator.again(subject).await?;
        let fresh = if subject.is_impersonated() {
            Subject {
                identity: Arc::clone(&subject.identity),
                impersonation: Arc::clone(&subject.impersonation),
                ..fresh
            }
        } else {
            fresh
        };
        self.may_impersonate(&fresh, Urgency::OpenStream).await?;
        for attributes in all {
            self.check(&fresh, attributes, Urgency::OpenStream).await?;
        }
        Ok(fresh)
    }

    /// Stands for a caller's credentials and what it asked for.
    pub(super) fn fingerprint(&self, subject: &Subject, all: &[Attributes]) -> [u8; 32] {
        use super::identity::Proof;
        let fingerprints = &self.0.fingerprints;
        let credential = match &subject.proof {
            Proof::Token(token) => fingerprints.of("held token", [token.expose().as_bytes()]),
            Proof::Certificate(presented) => fingerprints.of(
                "held certificate",
                presented.chain.iter().map(|der| der.as_ref()),
            ),
            Proof::Loopback => fingerprints.of("held loopback", []),
        };
        let identity = subject.identity.fingerprint(fingerprints);
        // Groups that are named and groups that come by themselves make the same identity, by other permissions.
        let impersonation = serde_json::to_vec(&*subject.impersonation).unwrap_or_default();
        let all = serde_json::to_vec(all).unwrap_or_default();
        fingerprints.of("held", [&credential[..], &identity, &impersonation, &all])
    }

    async fn may_impersonate(&self, subject: &Subject, urgency: Urgency) -> Result<(), AuthError> {
        use super::identity::Proof;
        if matches!(subject.proof, Proof::Loopback) {
            return Ok(());
        }
        for needed in subject.impersonation.iter() {
            self.ask(&subject.real, needed, urgency).await?;
        }
        Ok(())
    }

    async fn check(
        &self,
        subject: &Subject,
        attributes: &Attributes,
        urgency: Urgency,
    ) -> Result<(), AuthError> {
        if subject.is_trusted() {
            return Ok(());
        }
        self.ask(&subject.identity, attributes, urgency).await
    }

    async fn ask(
        &self,
        identity: &Arc<Identity>,
        attributes: &Attributes,
        urgency: Urgency,
    ) -> Result<(), AuthError> {
        self.0.authorizer.check(identity, attributes, urgency).await
    }
}

/// What headers take, about.
fn size(headers: &HeaderMap) -> usize {
    let one = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 64;
    headers.iter().map(one).sum()
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("authenticator", &self.0.authenticator)
            .field("authorizer", &self.0.authorizer)
            .finish_non_exhaustive()
    }
}
