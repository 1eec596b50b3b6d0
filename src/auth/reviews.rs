//! The two questions that the API server is asked, behind a trait so that everything around them is tested
//! without one.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use http::{Request, header::CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{attributes::Attributes, identity::Identity, secret::Token};
use crate::upstream::{Upstream, UpstreamError, Verb};

/// Asks the API server.
pub trait Reviews: Send + Sync + 'static {
    /// Whose token it is, among those that are meant for `audience`; `None` where it is nobody's.
    fn token<'a>(
        &'a self,
        token: &'a Token,
        audience: &'a str,
    ) -> BoxFuture<'a, Result<Option<TokenOwner>, ReviewError>>;

    /// Whether an identity may do something.
    fn access<'a>(
        &'a self,
        identity: &'a Identity,
        attributes: &'a Attributes,
    ) -> BoxFuture<'a, Result<Decision, ReviewError>>;
}

/// Whose a token is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenOwner {
    /// Whose.
    pub identity: Identity,
    /// For whom it is meant, among the audiences asked for. Empty from a server that knows nothing of audiences.
    pub audiences: Vec<String>,
}

/// Whether somebody may do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They may.
    Allowed,
    /// Nobody says that they may, or somebody says that they may not.
    Denied,
}

/// Nobody could be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// The API server is not there, or does not let us ask.
    #[error("{0}")]
    Unavailable(String),
    /// It has too much to do.
    #[error("the API server asks for patience")]
    Busy(Duration),
}

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Larger than any answer: groups and extra values of one identity.
const MAX_BYTES: usize = 1 << 20;

const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS_REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

/// Asks over the daemon's connection to the API server.
#[derive(Clone)]
pub struct ApiReviews(Upstream);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<S> {
    api_version: &'static str,
    kind: &'static str,
    spec: S,
}

#[derive(Serialize)]
struct TokenSpec<'a> {
    token: &'a str,
    audiences: [&'a str; 1],
}

#[derive(Serialize)]
struct AccessSpec<'a> {
    user: &'a str,
    uid: &'a str,
    groups: &'a [String],
    extra: &'a std::collections::BTreeMap<String, Vec<String>>,
    #[serde(flatten)]
    attributes: &'a Attributes,
}

#[derive(Deserialize)]
struct Answer<T> {
    status: T,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenStatus {
    authenticated: bool,
    user: Identity,
    audiences: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AccessStatus {
    allowed: bool,
    denied: bool,
}

impl ApiReviews {
    /// Over this connection.
    pub fn new(upstream: Upstream) -> Self {
        Self(upstream)
    }

    async fn ask<T: for<'de> Deserialize<'de>>(
        &self,
        path: &'static str,
        review: &impl Serialize,
    ) -> Result<T, ReviewError> {
        let begun = Instant::now();
        let asked = timeout(PATIENCE, self.post(path, review)).await;
        let answer = asked.unwrap_or_else(|_| {
            let patience = format!("no answer within {} s", PATIENCE.as_secs());
            Err(ReviewError::Unavailable(patience))
        });
        let review = path.rsplit('/').next().unwrap_or_default();
        metrics::histogram!("informerd_auth_review_seconds", "review" => review)
            .record(begun.elapsed());
        let word = match &answer {
            Ok(_) => "answered",
            Err(ReviewError::Unavailable(_)) => "unavailable",
            Err(ReviewError::Busy(_)) => "busy",
        };
        metrics::counter!("informerd_auth_reviews_total", "review" => review, "answer" => word)
            .increment(1);
        answer
    }

    async fn post<T: for<'de> Deserialize<'de>>(
        &self,
        path: &'static str,
        review: &impl Serialize,
    ) -> Result<T, ReviewError> {
        let unavailable = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, path, "the API server does not say who may do what");
            ReviewError::Unavailable(error.to_string())
        };
        // Of a token's review this is a copy of the token, which lives as long as the request.
        let body = serde_json::to_vec(review).map_err(|error| unavailable(&error))?;
        let request = Request::post(path)
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| unavailable(&error))?;
        match self.0.fetch(Verb::Create, request, MAX_BYTES).await {
            Ok((_, answer)) => serde_json::from_slice(&answer)
                .map(|answer: Answer<T>| answer.status)
                .map_err(|error| unavailable(&error)),
            Err(error) => Err(refused(&error, path)),
        }
    }
}

fn refused(error: &UpstreamError, path: &'static str) -> ReviewError {
    if let Some(status) = error.status().filter(|status| status.code == 429) {
        return ReviewError::Busy(status.retry_after.unwrap_or(Duration::from_secs(1)));
    }
    let forbidden = error.status().is_some_and(|status| status.is_forbidden());
    let hint = if forbidden {
        "; bind informerd's own account to the ClusterRole system:auth-delegator"
    } else {
        ""
    };
    tracing::warn!(%error, path, "the API server does not say who may do what{hint}");
    // What it said may name things that are none of the caller's business.
    ReviewError::Unavailable(error.cause().to_owned())
}

impl Reviews for ApiReviews {
    fn token<'a>(
        &'a self,
        token: &'a Token,
        audience: &'a str,
    ) -> BoxFuture<'a, Result<Option<TokenOwner>, ReviewError>> {
        Box::pin(async move {
            let review = Review {
                api_version: "authentication.k8s.io/v1",
                kind: "TokenReview",
                spec: TokenSpec {
                    token: token.expose(),
                    audiences: [audience],
                },
            };
            let status: TokenStatus = self.ask(TOKEN_REVIEWS, &review).await?;
            Ok(status.authenticated.then_some(TokenOwner {
                identity: status.user,
                audiences: status.audiences,
            }))
        })
    }

    fn access<'a>(
        &'a self,
        identity: &'a Identity,
        attributes: &'a Attributes,
    ) -> BoxFuture<'a, Result<Decision, ReviewError>> {
        Box::pin(async move {
            let review = Review {
                api_version: "authorization.k8s.io/v1",
                kind: "SubjectAccessReview",
                spec: AccessSpec {
                    user: &identity.user,
                    uid: &identity.uid,
                    groups: &identity.groups,
                    extra: &identity.extra,
                    attributes,
                },
            };
            let status: AccessStatus = self.ask(ACCESS_REVIEWS, &review).await?;
            Ok(match status.allowed && !status.denied {
                true => Decision::Allowed,
                false => Decision::Denied,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use http::{Response, StatusCode};
    use http_body_util::BodyExt;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower_test::mock;

    use super::*;
    use crate::{auth::attributes::Verb, upstream::UpstreamSettings};

    type Server = mock::Handle<Request<Body>, Response<Body>>;

    fn pair() -> (ApiReviews, Server) {
        let (service, server) = mock::pair();
        let client = kube::Client::new(service, "default");
        let upstream = Upstream::fixed(client.clone(), client, UpstreamSettings::default());
        (ApiReviews::new(upstream), server)
    }

    /// Answers one request, and returns its path and body.
    async fn answer(server: &mut Server, code: u16, body: Value) -> (String, Value) {
        let (request, respond) = server.next_request().await.expect("a request");
        let path = request.uri().path().to_owned();
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        let response = Response::builder().status(StatusCode::from_u16(code).unwrap());
        respond.send_response(response.body(body.to_string().into_bytes().into()).unwrap());
        (path, serde_json::from_slice(&asked).unwrap())
    }

    #[tokio::test]
    async fn a_token_is_asked_for_with_the_audience_that_it_must_have() {
        let (reviews, mut server) = pair();
        let token = Token::new("t");
        let user =
            json!({"username": "alice", "uid": "u", "groups": ["dev"], "extra": {"k": ["v"]}});
        let status = json!({"authenticated": true, "user": user, "audiences": ["informerd"]});
        let (owner, (path, asked)) = tokio::join!(
            reviews.token(&token, "informerd"),
            answer(&mut server, 201, json!({"status": status}))
        );
        assert_eq!(path, "/apis/authentication.k8s.io/v1/tokenreviews");
        let spec = json!({"token": "t", "audiences": ["informerd"]});
        assert_eq!(
            asked,
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec})
        );
        let owner = owner.unwrap().unwrap();
        assert_eq!(owner.audiences, ["informerd"]);
        assert_eq!(
            (owner.identity.user.as_str(), owner.identity.uid.as_str()),
            ("alice", "u")
        );
        assert_eq!(owner.identity.extra["k"], ["v"]);

        let nobody = json!({"status": {"error": "token has been invalidated"}});
        let (owner, _) = tokio::join!(
            reviews.token(&token, "informerd"),
            answer(&mut server, 201, nobody)
        );
        assert_eq!(owner, Ok(None));
    }

    #[tokio::test]
    async fn access_is_asked_for_with_all_that_an_identity_is() {
        let (reviews, mut server) = pair();
        let identity = Identity {
            user: "alice".into(),
            uid: "u".into(),
            groups: vec!["dev".into()],
            extra: [("k".to_owned(), vec!["v".to_owned()])].into(),
        };
        let attributes = Attributes::on(Verb::Watch, "apps", "deployments").into();
        for (status, expected) in [
            (json!({"allowed": true}), Decision::Allowed),
            (json!({"allowed": true, "denied": true}), Decision::Denied),
            (
                json!({"allowed": false, "evaluationError": "no role"}),
                Decision::Denied,
            ),
            (json!({}), Decision::Denied),
        ] {
            let (decision, (path, asked)) = tokio::join!(
                reviews.access(&identity, &attributes),
                answer(&mut server, 201, json!({"status": status}))
            );
            assert_eq!(decision, Ok(expected));
            assert_eq!(path, "/apis/authorization.k8s.io/v1/subjectaccessreviews");
            let on = json!({"verb": "watch", "group": "apps", "resource": "deployments"});
            assert_eq!(
                asked["spec"],
                json!({"user": "alice", "uid": "u", "groups": ["dev"], "extra": {"k": ["v"]}, "resourceAttributes": on})
            );
        }
    }

    #[tokio::test]
    async fn whatever_is_no_answer_is_that_nobody_could_be_asked() {
        let (reviews, mut server) = pair();
        let token = Token::new("t");
        let forbidden =
            json!({"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no"});
        for (code, body) in [
            (403, forbidden),
            (500, json!("x")),
            (200, json!({})),
            (200, json!([])),
        ] {
            let (owner, _) = tokio::join!(
                reviews.token(&token, "informerd"),
                answer(&mut server, code, body)
            );
            assert!(matches!(owner, Err(ReviewError::Unavailable(_))), "{code}");
        }
        let busy = json!({"kind": "Status", "code": 429, "details": {"retryAfterSeconds": 3}});
        let (owner, _) = tokio::join!(
            reviews.token(&token, "informerd"),
            answer(&mut server, 429, busy)
        );
        assert_eq!(owner, Err(ReviewError::Busy(Duration::from_secs(3))));
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_does_not_answer_is_not_waited_for_long() {
        let (reviews, mut server) = pair();
        let token = Token::new("t");
        let begun = tokio::time::Instant::now();
        let (owner, _request) =
            tokio::join!(reviews.token(&token, "informerd"), server.next_request());
        assert!(matches!(owner, Err(ReviewError::Unavailable(_))));
        assert_eq!(begun.elapsed(), PATIENCE);
    }
}
