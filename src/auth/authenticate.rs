//! Who calls: by a client certificate, a token, or by calling from this machine where that is taken for enough.
//!
//! As in Kubernetes several ways may be open at once, and a certificate goes before a token. A credential that is
//! presented and not believed ends the call; it never falls back to a way that asks for none.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, header::AUTHORIZATION};
use rustls::pki_types::CertificateDer;
use serde::Deserialize;

use super::{
    AuthError, Reviews,
    authorize::Urgency,
    budget::{Budget, Rate},
    certificate,
    identity::{AUTHENTICATED, Identity, Proof, Subject},
    memo::Memo,
    reviews::ReviewError,
    secret::{Fingerprints, Token},
};

/// How callers may say who they are.
#[derive(Clone, Debug, Default)]
pub struct Authentication {
    /// Kubernetes tokens, those that are meant for this audience.
    pub token_audience: Option<String>,
    /// Client certificates: whether one that was believed still is. (That it was, TLS has checked.)
    pub certificates: Option<CertificateTrust>,
    /// Whoever calls from this machine, and says nothing, may do everything.
    pub insecure_loopback: bool,
}

impl Authentication {
    /// Whether somebody could be let in by it who is elsewhere.
    pub fn is_any(&self) -> bool {
        self.token_audience.is_some() || self.certificates.is_some()
    }
}

/// Says why a chain of client certificates, the client's own first, is not to be believed.
#[derive(Clone)]
pub struct CertificateTrust(pub Arc<Believes>);

type Believes = dyn Fn(&[CertificateDer<'static>]) -> Result<(), String> + Send + Sync;

impl fmt::Debug for CertificateTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateTrust")
    }
}

/// What the transport knows of a caller.
#[derive(Clone, Debug, Default)]
pub struct Presented {
    /// Address and port; absent for calls within the process.
    pub peer: Option<SocketAddr>,
    /// The client's certificate and those that lead from it to the authority; empty where it has none. Verified.
    pub chain: Vec<CertificateDer<'static>>,
}

/// Longer than any token that Kubernetes makes.
const MAX_TOKEN: usize = 16 << 10;
/// How long the answer to a token is remembered.
const REMEMBER: Duration = Duration::from_secs(10);
const REMEMBERED: usize = 16 << 10;
/// Tokens that are nobody's are remembered apart: whoever makes them up pushes out no good ones.
const REMEMBERED_BAD: usize = 4 << 10;

pub(super) struct Authenticator {
    how: Authentication,
    reviews: Arc<dyn Reviews>,
    fingerprints: Arc<Fingerprints>,
    owners: Memo<Arc<Identity>, AuthError>,
    nobodys: Memo<(), ()>,
    certified: Memo<(Arc<Identity>, SystemTime), AuthError>,
    budget: Arc<Budget<IpAddr>>,
}

impl Authenticator {
    pub(super) fn new(
        how: Authentication,
        reviews: Arc<dyn Reviews>,
        fingerprints: Arc<Fingerprints>,
        rate: Rate,
    ) -> Self {
        // Whoever makes up tokens is found by its address; a gateway before many callers has one, too.
        let each = Rate {
            per_second: rate.per_second.div_ceil(2),
            burst: rate.burst,
        };
        Self {
            how,
            reviews,
            fingerprints,
            owners: Memo::new(REMEMBERED),
            nobodys: Memo::new(REMEMBERED_BAD),
            certified: Memo::new(REMEMBERED),
            budget: Arc::new(Budget::new(rate, each)),
        }
    }

    /// Who calls, by what the call says. Impersonation is not looked at.
    pub(super) async fn subject(
        &self,
        headers: &HeaderMap,
        presented: &Arc<Presented>,
    ) -> Result<Subject, AuthError> {
        if self.how.certificates.is_some() && !presented.chain.is_empty() {
            return self.by_certificate(presented.clone()).await;
        }
        if let Some(audience) = &self.how.token_audience
            && let Some(token) = bearer(headers)?
        {
            let ip = presented.peer.map(|peer| peer.ip());
            let urgency = Urgency::NewCall;
            return self.by_token(Arc::new(token), audience, ip, urgency).await;
        }
        let from_here = presented.peer.is_none_or(|peer| peer.ip().is_loopback());
        if self.how.insecure_loopback && from_here && presented.chain.is_empty() {
            return Ok(Subject::new(Arc::new(loopback()), None, Proof::Loopback));
        }
        let mut ways = Vec::new();
        if let Some(audience) = &self.how.token_audience {
            ways.push(format!(
                "a Kubernetes token for the audience {audience:?} (authorization: Bearer ...)"
            ));
        }
        if self.how.certificates.is_some() {
            ways.push("a client certificate".to_owned());
        }
        Err(AuthError::Unauthenticated(format!(
            "say who you are: send {}",
            ways.join(", or ")
        )))
    }

    /// Asks again who a subject is. Its identity may have got other groups; it cannot have become somebody else.
    pub(super) async fn again(&self, subject: &Subject) -> Result<Subject, AuthError> {
        let fresh = match &subject.proof {
            Proof::Loopback => return Ok(subject.clone()),
            Proof::Certificate(presented) => self.by_certificate(Arc::clone(presented)).await?,
            Proof::Token(token) => {
                let Some(audience) = &self.how.token_audience else {
                    return Err(nobody("tokens are not taken any more"));
                };
                let again = Urgency::OpenStream;
                self.by_token(Arc::clone(token), audience, None, again)
                    .await?
            }
        };
        if fresh.identity.user != subject.real.user || fresh.identity.uid != subject.real.uid {
            return Err(nobody("the credentials belong to somebody else now"));
        }
        Ok(fresh)
    }

    async fn by_certificate(&self, presented: Arc<Presented>) -> Result<Subject, AuthError> {
        let Some(trust) = self.how.certificates.clone() else {
            return Err(nobody("client certificates are not taken any more"));
        };
        let key = self.fingerprints.of(
            "certificate",
            presented.chain.iter().map(|der| der.as_ref()),
        );
        let chain = Arc::clone(&presented);
        let check = || async move { Ok((owner_of(&trust, &chain.chain)?, REMEMBER)) };
        let (identity, ends) = self.certified.get(key, check).await?;
        if ends <= SystemTime::now() {
            return Err(nobody("the client certificate has expired"));
        }
        Ok(Subject::new(
            identity,
            Some(ends),
            Proof::Certificate(presented),
        ))
    }

    async fn by_token(
        &self,
        token: Arc<Token>,
        audience: &str,
        ip: Option<IpAddr>,
        urgency: Urgency,
    ) -> Result<Subject, AuthError> {
        let claims = Claims::of(token.expose());
        // Only ever a reason to refuse: nobody has checked the signature yet.
        let ends = claims.expires();
        if ends.is_some_and(|ends| ends <= SystemTime::now()) {
            return Err(nobody("the token has expired"));
        }
        let key = self
            .fingerprints
            .of("token", [token.expose().as_bytes(), audience.as_bytes()]);
        if self.nobodys.find(&key).is_some() {
            return Err(not_ours(audience, &claims));
        }
        let ask = || {
            let (reviews, budget) = (Arc::clone(&self.reviews), Arc::clone(&self.budget));
            let (token, audience) = (Arc::clone(&token), audience.to_owned());
            async move {
                budget
                    .wait(ip, urgency.patience())
                    .await
                    .map_err(AuthError::Busy)?;
                let owner = reviews.token(&token, &audience).await?;
                let owner = owner
                    .filter(|owner| owner.audiences.contains(&audience))
                    .filter(|owner| !owner.identity.user.is_empty())
                    .ok_or_else(|| not_ours(&audience, &Claims::of(token.expose())))?;
                Ok((Arc::new(known(owner.identity)), REMEMBER))
            }
        };
        let owner = self.owners.get(key, ask).await;
        if let Err(AuthError::Unauthenticated(_)) = &owner {
            self.nobodys.put(key, (), REMEMBER);
        }
        Ok(Subject::new(owner?, ends, Proof::Token(token)))
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("how", &self.how)
            .field("owners", &self.owners)
            .finish_non_exhaustive()
    }
}

impl From<ReviewError> for AuthError {
    fn from(error: ReviewError) -> Self {
        match error {
            ReviewError::Unavailable(why) => Self::Unavailable(why),
            ReviewError::Busy(wait) => Self::Busy(wait),
        }
    }
}

fn nobody(why: &str) -> AuthError {
    AuthError::Unauthenticated(why.to_owned())
}

fn not_ours(audience: &str, claims: &Claims) -> AuthError {
    let audiences = claims.audiences();
    let hint = if audiences.is_empty() || audiences.contains(&audience) {
        String::new()
    } else {
        // Of the caller's own token, which it has sent us.
        format!("; this one is for {}", audiences.join(", "))
    };
    AuthError::Unauthenticated(format!(
        "the API server does not know the token, or not for the audience {audience:?}{hint}; get one with \
         `kubectl create token NAME --audience {audience}`, or a projected volume"
    ))
}

/// The API server adds the group to whoever it lets in; a review tells of it too, but promises nothing.
fn known(mut identity: Identity) -> Identity {
    if !identity.groups.iter().any(|group| group == AUTHENTICATED) {
        identity.groups.push(AUTHENTICATED.to_owned());
    }
    identity
}

/// Whose a certificate is, if its chain is still believed: certificates end, and authorities are replaced, while
/// connections stay.
fn owner_of(
    trust: &CertificateTrust,
    chain: &[CertificateDer<'static>],
) -> Result<(Arc<Identity>, SystemTime), AuthError> {
    let refuse = |why: &str| nobody(&format!("the client certificate is refused: {why}"));
    (trust.0)(chain).map_err(|why| refuse(&why))?;
    let owner = chain.first().and_then(|own| certificate::owner(own));
    let (identity, ends) = owner.ok_or_else(|| refuse("it names no user (common name)"))?;
    Ok((Arc::new(identity), ends))
}

/// Who calls from this machine and need not say more.
fn loopback() -> Identity {
    Identity {
        user: "informerd:loopback".to_owned(),
        ..Identity::default()
    }
}

/// The token of an `Authorization: Bearer` header, if there is such a header.
fn bearer(headers: &HeaderMap) -> Result<Option<Token>, AuthError> {
    let invalid = |why: &str| {
        Err(AuthError::Unauthenticated(format!(
            "the authorization header {why}"
        )))
    };
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return invalid("stands twice");
    }
    let Ok(text) = value.to_str() else {
        return invalid("is not plain text");
    };
    let Some((scheme, token)) = text.trim().split_once(' ') else {
        return invalid("is not Bearer and a token");
    };
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.contains(' ') {
        return invalid("is not Bearer and a token");
    }
    if token.len() > MAX_TOKEN {
        return invalid("has a token that is longer than any");
    }
    Ok(Some(Token::new(token)))
}

/// What a JSON Web Token says of itself. Nothing that is believed: it only shortens lives and explains refusals.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Claims {
    exp: Option<f64>,
    aud: Audiences,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Several(Vec<String>),
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Claims {
    fn of(token: &str) -> Self {
        let mut parts = token.split('.');
        let payload = parts.nth(1).filter(|_| parts.count() == 1);
        payload
            .and_then(|payload| BASE64_URL_SAFE_NO_PAD.decode(payload).ok())
            .and_then(|json| serde_json::from_slice(&json).ok())
            .unwrap_or_default()
    }

    fn expires(&self) -> Option<SystemTime> {
        let seconds = Duration::try_from_secs_f64(self.exp?).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    }

    fn audiences(&self) -> Vec<&str> {
        match &self.aud {
            Audiences::One(one) => vec![one],
            Audiences::Several(several) => several.iter().map(String::as_str).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(values: &[&'static str]) -> Result<Option<String>, AuthError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        Ok(bearer(&headers)?.map(|token| token.expose().to_owned()))
    }

    #[test]
    fn a_bearer_token_is_read_and_everything_else_is_refused() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["Bearer abc"]), Ok(Some("abc".to_owned())));
        assert_eq!(read(&["bearer  abc "]), Ok(Some("abc".to_owned())));
        for wrong in ["", "Bearer", "Bearer ", "Basic YTpi", "abc", "Bearer a b"] {
            assert!(read(&[wrong]).is_err(), "{wrong:?}");
        }
        assert!(read(&["Bearer a", "Bearer b"]).is_err());
    }

    #[test]
    fn a_web_token_tells_when_it_ends_and_other_tokens_do_not() {
        let token = |claims: &str| format!("h.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let claims = Claims::of(&token(r#"{"exp": 1700000000, "aud": ["a", "b"]}"#));
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(claims.expires(), Some(at));
        assert_eq!(claims.audiences(), ["a", "b"]);
        assert_eq!(Claims::of(&token(r#"{"aud": "a"}"#)).audiences(), ["a"]);
        for other in [
            "",
            "opaque",
            "a.b",
            "a.b.c",
            "a.e30.c.d",
            &token("[]"),
            &token(r#"{"exp": -1}"#),
            &token(r#"{"exp": 1e300}"#),
        ] {
            assert_eq!(Claims::of(other).expires(), None, "{other}");
        }
    }
}
