//! The first thing that happens to a call: who makes it, and whether it may have one more at once.
//!
//! Health is open to everybody: probes cannot sign in, and it says of no object. All else, reflection too, is for
//! those who are somebody; what they may do is asked by each method, which knows what it is about.

use std::{
    collections::HashMap,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{
    Error,
    access::{Access, Asking, denied},
    listen::Peer,
};
use crate::auth::{AuthError, Subject};

const HEALTH: &str = "/grpc.health.v1.Health/";

/// What callers may have, each and together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls that are open at once, of all callers.
    pub calls: usize,
    /// The same of one identity.
    pub calls_of_one: usize,
    /// New calls a second of one identity; twice as many at once.
    pub calls_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: 10_000,
            calls_of_one: 2_000,
            calls_per_second: 500,
        }
    }
}

/// See the module's documentation. Clones share what they count.
#[derive(Clone, Debug)]
pub(super) struct SignIn {
    access: Access,
    counts: Arc<Counts>,
}

impl SignIn {
    pub(super) fn new(access: Access, limits: Limits) -> Self {
        let counts = Arc::new(Counts {
            limits,
            open: AtomicUsize::new(0),
            of_each: Mutex::default(),
        });
        Self { access, counts }
    }
}

impl<S> Layer<S> for SignIn {
    type Service = SignedIn<S>;

    fn layer(&self, inner: S) -> SignedIn<S> {
        SignedIn {
            inner,
            sign_in: self.clone(),
        }
    }
}

/// A service behind the door.
#[derive(Clone, Debug)]
pub(super) struct SignedIn<S> {
    inner: S,
    sign_in: SignIn,
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl<S> Service<http::Request<Body>> for SignedIn<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Answer {
        // The one that was asked whether it is ready, and a fresh one for next time.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let Access::Guarded { guard, .. } = &self.sign_in.access else {
            return Box::pin(inner.call(request));
        };
        if request.uri().path().starts_with(HEALTH) {
            return Box::pin(inner.call(request));
        }
        let (guard, counts) = (guard.clone(), Arc::clone(&self.sign_in.counts));
        Box::pin(async move {
            let presented = request
                .extensions()
                .get::<Peer>()
                .map(|peer| Arc::clone(&peer.presented))
                .unwrap_or_default();
            let subject = match guard.authenticate(request.headers(), &presented).await {
                Ok(subject) => subject,
                Err(error) => {
                    denied(&Asking::of(request.extensions()), &error);
                    return Ok(Status::from(Error::from(error)).into_http());
                }
            };
            let slot = match counts.enter(&subject) {
                Ok(slot) => slot,
                Err(error) => {
                    metrics::counter!("informerd_calls_shed_total").increment(1);
                    return Ok(Status::from(error).into_http());
                }
            };
            // What is logged must not have it, whatever is logged.
            request.headers_mut().remove(http::header::AUTHORIZATION);
            request.extensions_mut().insert(subject);
            let response = inner.call(request).await?;
            Ok(response.map(|body| Body::new(Counted { body, _slot: slot })))
        })
    }
}

/// Identities that have nothing open are forgotten once so many are known.
const SWEEP: usize = 1024;

/// Calls that are open, and how many came lately.
#[derive(Debug)]
struct Counts {
    limits: Limits,
    open: AtomicUsize,
    of_each: Mutex<HashMap<String, Own>>,
}

/// Of one identity.
#[derive(Debug)]
struct Own {
    open: usize,
    /// When the next call may come, if calls came at the rate that is allowed.
    next: Instant,
}

/// A call's place among those that are open.
#[derive(Debug)]
struct Slot {
    counts: Arc<Counts>,
    user: String,
}

impl Counts {
    /// What is over the limit is refused while it is new: what is open goes on.
    fn enter(self: &Arc<Self>, subject: &Subject) -> Result<Slot, Error> {
        let user = subject.identity().user.clone();
        let now = Instant::now();
        let interval = Duration::from_secs(1) / self.limits.calls_per_second.max(1);
        let mut of_each = self.of_each.lock().unwrap_or_else(PoisonError::into_inner);
        if of_each.len() >= SWEEP && of_each.len() == of_each.capacity() {
            of_each.retain(|_, own| own.open > 0 || own.next > now);
        }
        let own = of_each
            .entry(user.clone())
            .or_insert(Own { open: 0, next: now });
        let wait = own.next.saturating_duration_since(now);
        if wait > interval * self.limits.calls_per_second.saturating_mul(2) {
            return Err(AuthError::Busy(wait).into());
        }
        if own.open >= self.limits.calls_of_one {
            let what = format!("{} calls of {user:?} are open", own.open);
            return Err(Error::TooMuch { what });
        }
        let open = self.open.load(Ordering::Relaxed);
        if open >= self.limits.calls {
            let what = format!("{open} calls are open");
            return Err(Error::TooMuch { what });
        }
        own.next = own.next.max(now) + interval;
        own.open += 1;
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Slot {
            counts: Arc::clone(self),
            user,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
        let of_each = self.counts.of_each.lock();
        let mut of_each = of_each.unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = of_each.get_mut(&self.user) {
            own.open -= 1;
            if own.open == 0 && own.next <= Instant::now() {
                of_each.remove(&self.user);
            }
        }
    }
}

/// An answer that is counted until it is sent or given up.
struct Counted {
    body: Body,
    _slot: Slot,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tonic::Code;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::auth::{Authentication, Guard, Settings, fake::FakeReviews};

    /// Answers each call with the user that it was let in as.
    fn behind_the_door(
        reviews: &FakeReviews,
        limits: Limits,
    ) -> impl Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
    {
        let how = Authentication {
            token_audience: Some("informerd".to_owned()),
            ..Authentication::default()
        };
        let guard = Guard::new(how, Arc::new(reviews.clone()), Settings::default()).unwrap();
        let access = Access::Guarded {
            guard,
            names: Arc::new(|_| None),
        };
        let inner = service_fn(|request: http::Request<Body>| async move {
            assert!(!request.headers().contains_key("authorization"));
            let user = request
                .extensions()
                .get::<Subject>()
                .map(|subject| subject.identity().user.clone());
            // A stream that stays open.
            let frames = futures::stream::pending::<Result<Frame<Bytes>, Status>>();
            let body = Body::new(http_body_util::StreamBody::new(frames));
            let mut response = http::Response::new(body);
            if let Some(user) = user {
                let user = user.parse().unwrap();
                response.headers_mut().insert("user", user);
            }
            Ok(response)
        });
        SignIn::new(access, limits).layer(inner)
    }

    async fn call<S>(service: &mut S, path: &str, token: Option<&str>) -> http::Response<Body>
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    {
        let mut request = http::Request::post(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::empty()).unwrap();
        service.ready().await.unwrap().call(request).await.unwrap()
    }

    fn code(response: &http::Response<Body>) -> Code {
        Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
    }

    const LIST: &str = "/informerd.v1.CacheService/ListObjects";

    /// CVE-2026-39429: a cache was served to whoever could connect.
    #[tokio::test(start_paused = true)]
    async fn cve_2026_39429_nobody_reaches_the_cache_without_credentials() {
        let reviews = FakeReviews::default();
        let mut service = behind_the_door(&reviews, Limits::default());
        for path in [
            LIST,
            "/informerd.v1.CacheService/GetObject",
            "/informerd.v1.CacheService/WatchObjects",
            "/informerd.v1.ReadinessService/WaitReadiness",
            "/informerd.v1.IntrospectionService/ListConsumers",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.health.v1.Healthy/Check",
            "/a.service.to.come/Method",
        ] {
            for token in [None, Some("made-up")] {
                let refused = call(&mut service, path, token).await;
                assert_eq!(code(&refused), Code::Unauthenticated, "{path} {token:?}");
            }
        }
        let health = call(&mut service, "/grpc.health.v1.Health/Check", None).await;
        assert_eq!(code(&health), Code::Ok);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_let_in_is_known_to_what_is_behind_and_its_token_is_not() {
        let reviews = FakeReviews::default();
        reviews.give("t", "alice", &["informerd"]);
        let mut service = behind_the_door(&reviews, Limits::default());
        let answer = call(&mut service, LIST, Some("t")).await;
        assert_eq!(answer.headers()["user"], "alice");
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_cannot_take_what_is_there_for_all() {
        let reviews = FakeReviews::default();
        reviews.give("a", "alice", &["informerd"]);
        reviews.give("b", "bob", &["informerd"]);
        let limits = Limits {
            calls: 5,
            calls_of_one: 3,
            ..Limits::default()
        };
        let mut service = behind_the_door(&reviews, limits);
        let mut open = Vec::new();
        for _ in 0..3 {
            open.push(call(&mut service, LIST, Some("a")).await);
        }
        let refused = call(&mut service, LIST, Some("a")).await;
        assert_eq!(code(&refused), Code::ResourceExhausted);
        for _ in 0..2 {
            let answer = call(&mut service, LIST, Some("b")).await;
            assert_eq!(code(&answer), Code::Ok);
            open.push(answer);
        }
        let refused = call(&mut service, LIST, Some("b")).await;
        assert_eq!(code(&refused), Code::ResourceExhausted, "all of them");
        open.remove(0);
        let answer = call(&mut service, LIST, Some("b")).await;
        assert_eq!(code(&answer), Code::Ok);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_come_no_faster_than_allowed() {
        let reviews = FakeReviews::default();
        reviews.give("a", "alice", &["informerd"]);
        let limits = Limits {
            calls_per_second: 10,
            ..Limits::default()
        };
        let mut service = behind_the_door(&reviews, limits);
        let mut let_in = 0;
        for _ in 0..100 {
            let answer = call(&mut service, LIST, Some("a")).await;
            let_in += usize::from(code(&answer) == Code::Ok);
        }
        assert_eq!(let_in, 21, "those of two seconds at once");
        tokio::time::advance(Duration::from_secs(1)).await;
        let answer = call(&mut service, LIST, Some("a")).await;
        assert_eq!(code(&answer), Code::Ok);
    }
}
