//! The first thing that happens to a call: who makes it, and whether it may have one more at once.
//!
//! Health is open to everybody: probes cannot sign in, and it says of no object. All else, reflection too, is for
//! those who are somebody; what they may do is asked by each method, which knows what it is about.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{Error, access::Access};
use crate::auth::{Called, Kept, Peer, Room, Slot, Subject, allowed, denied};

const HEALTH: &str = "/grpc.health.v1.Health/";

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct SignIn(pub(super) Access);

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
        let access = self.sign_in.0.clone();
        Box::pin(async move {
            let peer = request.extensions().get::<Peer>().cloned();
            let peer = peer.unwrap_or_default();
            let called = Called::new(request.uri().path());
            let refuse = |subject: Option<&Subject>, error| {
                denied(&called, subject, Some(&peer), &error);
                Ok(Status::from(Error::from(error)).into_http())
            };
            if request.uri().path().starts_with(HEALTH) {
                let place = match peer.enter_open_to_all() {
                    Ok(place) => place,
                    Err(error) => return refuse(None, error),
                };
                let response = inner.call(request).await?;
                // The place goes with the body.
                let counted = |body: Body| body.map_frame(move |frame| (&place, frame).1);
                return Ok(response.map(|body| Body::new(counted(body))));
            }
            let slot = match &access {
                Access::Open => return inner.call(request).await,
                Access::Limited(calls) => match calls.enter("") {
                    Ok(slot) => {
                        peer.sign_in("");
                        slot
                    }
                    Err(error) => return refuse(None, error),
                },
                Access::Guarded { guard, .. } => {
                    let subject = guard.authenticate(request.headers(), &peer.presented).await;
                    let subject = match subject {
                        Ok(subject) => subject,
                        Err(error) => return refuse(None, error),
                    };
                    let slot = match guard.enter(&subject) {
                        Ok(slot) => slot,
                        Err(error) => return refuse(Some(&subject), error),
                    };
                    peer.sign_in(subject.owner());
                    allowed(&called, &subject, &peer);
                    // What is logged must not have it, whatever is logged.
                    request.headers_mut().remove(http::header::AUTHORIZATION);
                    request.extensions_mut().insert(subject);
                    slot
                }
            };
            let room = slot.room(&peer);
            request.extensions_mut().insert(room.clone());
            request.extensions_mut().insert(called);
            let kept = Arc::new(slot.kept());
            let coming = Arc::clone(&kept);
            let request = request.map(|body| Body::new(Coming { body, kept: coming }));
            let response = inner.call(request).await?;
            room.answered();
            let counted = |body| Counted {
                body,
                room,
                _kept: kept,
                _slot: slot,
            };
            Ok(response.map(|body| Body::new(counted(body))))
        })
    }
}

/// A request, counted as it comes.
struct Coming {
    body: Body,
    kept: Arc<Kept>,
}

impl http_body::Body for Coming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        Poll::Ready(match self.kept.add(bytes) {
            Ok(()) => frame,
            Err(error) => Some(Err(Error::from(error).into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer that is counted until it is sent or given up, and given out as far as there is room for it.
struct Counted {
    body: Body,
    room: Room,
    _kept: Arc<Kept>,
    _slot: Slot,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.room.ended();
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, room, .. } = &mut *self;
        room.poll_frame(cx, Pin::new(body))
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
    use futures::{FutureExt, StreamExt};
    use http_body_util::BodyExt;
    use tonic::Code;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::{
        auth::{Authentication, Calls, Guard, Limits, Presented, Settings, fake::FakeReviews},
        connections::Connections,
    };

    /// Answers each call with the user that it was let in as, and so many pieces of 60 bytes.
    fn behind_the_door(
        reviews: &FakeReviews,
        limits: Limits,
        pieces: usize,
    ) -> impl Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
    {
        answering(guard(reviews, limits), pieces)
    }

    /// Each with a name for a token.
    fn alice_and_bob() -> FakeReviews {
        let reviews = FakeReviews::default();
        for name in ["alice", "bob"] {
            reviews.give(name, name, &["informerd"]);
        }
        reviews
    }

    fn guard(reviews: &FakeReviews, limits: Limits) -> Access {
        let how = Authentication {
            token_audience: Some("informerd".to_owned()),
            ..Authentication::default()
        };
        let settings = Settings {
            limits,
            ..Settings::default()
        };
        let guard = Guard::new(how, Arc::new(reviews.clone()), settings).unwrap();
        Access::Guarded {
            guard,
            names: Arc::new(|_| None),
        }
    }

    /// The same behind any door.
    fn answering(
        access: Access,
        pieces: usize,
    ) -> impl Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
    {
        let inner = service_fn(move |request: http::Request<Body>| async move {
            assert!(!request.headers().contains_key("authorization"));
            let user = request
                .extensions()
                .get::<Subject>()
                .map(|subject| subject.identity().user.clone());
            // A stream that stays open.
            let piece = || Ok::<_, Status>(Frame::data(Bytes::from(vec![0; 60])));
            let frames = futures::stream::repeat_with(piece)
                .take(pieces)
                .chain(futures::stream::pending());
            let body = Body::new(http_body_util::StreamBody::new(frames));
            let mut response = http::Response::new(body);
            if let Some(user) = user {
                let user = user.parse().unwrap();
                response.headers_mut().insert("user", user);
            }
            Ok(response)
        });
        SignIn(access).layer(inner)
    }

    async fn call<S>(service: &mut S, path: &str, token: Option<&str>) -> http::Response<Body>
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    {
        over(&Peer::default(), service, path, token).await
    }

    /// The same over a connection.
    async fn over<S>(
        peer: &Peer,
        service: &mut S,
        path: &str,
        token: Option<&str>,
    ) -> http::Response<Body>
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    {
        let mut request = http::Request::post(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(peer.clone());
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
        let mut service = behind_the_door(&reviews, Limits::default(), 0);
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
        let mut service = behind_the_door(&reviews, Limits::default(), 0);
        let answer = call(&mut service, LIST, Some("t")).await;
        assert_eq!(answer.headers()["user"], "alice");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_is_given_no_more_than_may_be_unread() {
        let reviews = alice_and_bob();
        let limits = Limits {
            bytes_of_one: 100,
            ..Limits::default()
        };
        let mut service = behind_the_door(&reviews, limits, 9);
        let mut first = call(&mut service, LIST, Some("alice")).await.into_body();
        let mut second = call(&mut service, LIST, Some("alice")).await.into_body();
        let one = first.frame().await;
        let other = second.frame().await;
        for stream in [&mut first, &mut second] {
            assert!(
                stream.frame().now_or_never().is_none(),
                "120 bytes are unread"
            );
        }
        let refused = call(&mut service, LIST, Some("alice")).await;
        assert_eq!(code(&refused), Code::ResourceExhausted);
        let mut bob = call(&mut service, LIST, Some("bob")).await.into_body();
        assert!(
            bob.frame().await.is_some(),
            "that is nobody else's business"
        );
        drop(other);
        assert!(first.frame().await.is_some());
        drop(one);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_counts_until_its_answer_is_sent_or_given_up() {
        let reviews = FakeReviews::default();
        reviews.give("a", "alice", &["informerd"]);
        let limits = Limits {
            calls_of_one: 1,
            ..Limits::default()
        };
        let mut service = behind_the_door(&reviews, limits, 0);
        let open = call(&mut service, LIST, Some("a")).await;
        let refused = call(&mut service, LIST, Some("a")).await;
        assert_eq!(code(&refused), Code::ResourceExhausted);
        drop(open);
        let answer = call(&mut service, LIST, Some("a")).await;
        assert_eq!(code(&answer), Code::Ok);
    }

    #[tokio::test(start_paused = true)]
    async fn who_need_not_sign_in_has_no_more_than_there_is_for_all() {
        let calls = Calls::of_nobody_in_particular(Limits {
            calls: 2,
            bytes: 100,
            ..Limits::default()
        });
        let mut service = answering(Access::Limited(calls), 9);
        let mut first = call(&mut service, LIST, None).await.into_body();
        let second = call(&mut service, LIST, None).await;
        let refused = call(&mut service, LIST, None).await;
        assert_eq!(code(&refused), Code::ResourceExhausted, "two are open");
        let health = call(&mut service, "/grpc.health.v1.Health/Check", None).await;
        assert_eq!(code(&health), Code::Ok);
        drop((second, health));

        let unread = [first.frame().await, first.frame().await];
        assert!(
            first.frame().now_or_never().is_none(),
            "120 bytes are unread"
        );
        let refused = call(&mut service, LIST, None).await;
        assert_eq!(code(&refused), Code::ResourceExhausted);
        drop(unread);
        let answer = call(&mut service, LIST, None).await;
        assert_eq!(code(&answer), Code::Ok);
    }

    #[tokio::test]
    async fn calls_that_nobody_signs_in_for_are_so_many_on_a_connection_until_they_end() {
        let reviews = FakeReviews::default();
        let mut door = behind_the_door(&reviews, Limits::default(), 1);
        let peer = Peer::default();
        let mut check = || {
            let mut request = http::Request::new(Body::empty());
            *request.uri_mut() = "/grpc.health.v1.Health/Check".parse().unwrap();
            request.extensions_mut().insert(peer.clone());
            door.call(request).now_or_never().unwrap().unwrap()
        };
        let mut open: Vec<_> = (0..16).map(|_| check()).collect();
        assert!(open.iter().all(|answer| code(answer) == Code::Ok));
        assert_eq!(code(&check()), Code::ResourceExhausted);
        open.pop();
        assert_eq!(code(&check()), Code::Ok, "one has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_somebody_signed_in_on_keeps_its_place() {
        let reviews = FakeReviews::default();
        reviews.give("a", "alice", &["informerd"]);
        let mut door = behind_the_door(&reviews, Limits::default(), 0);
        let connections = Connections::new(2, 2);
        let address = std::net::IpAddr::from([10, 0, 0, 1]);
        let [known, stranger] = [0; 2].map(|_| connections.enter(address).unwrap());
        let peers = [&known, &stranger].map(|place| Peer::new(Presented::default(), place));
        let _call = over(&peers[0], &mut door, LIST, Some("a")).await;
        let refused = over(&peers[1], &mut door, LIST, None).await;
        assert_eq!(code(&refused), Code::Unauthenticated);
        let _next = connections.enter(address).unwrap();
        let cut = peers.map(|peer| peer.cut.is_cancelled());
        assert_eq!(cut, [false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn large_requests_are_refused_while_others_of_their_caller_take_what_there_is() {
        let reviews = alice_and_bob();
        let limits = Limits {
            bytes_of_one: 1900,
            ..Limits::default()
        };
        let guard = guard(&reviews, limits);
        // Takes the request, and keeps the call open.
        let inner = service_fn(|request: http::Request<Body>| async move {
            let taken = request.into_body().collect().await;
            let open = futures::stream::pending::<Result<Frame<Bytes>, Status>>();
            let answer = match taken {
                Ok(_) => http::Response::new(Body::new(http_body_util::StreamBody::new(open))),
                Err(status) => Status::from_error(status.into()).into_http(),
            };
            Ok(answer)
        });
        let mut door = SignIn(guard).layer(inner);
        let mut send = async |token: &str, bytes: usize| {
            let request =
                http::Request::post(LIST).header("authorization", format!("Bearer {token}"));
            let body = http_body_util::Full::new(Bytes::from(vec![0; bytes]));
            let request = request.body(Body::new(body)).unwrap();
            door.ready().await.unwrap().call(request).await.unwrap()
        };
        let first = send("alice", 60).await;
        let second = send("alice", 60).await;
        let third = send("alice", 1).await;
        let codes = [&first, &second, &third].map(code);
        assert_eq!(codes, [Code::Ok, Code::Ok, Code::ResourceExhausted]);
        assert_eq!(code(&send("bob", 60).await), Code::Ok);
        drop(first);
        assert_eq!(code(&send("alice", 1).await), Code::Ok, "one is over");
    }
}
