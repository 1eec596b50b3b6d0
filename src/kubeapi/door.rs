//! Who may read, where callers sign in: each request is held against what its caller may do before anything is looked
//! up for it, and its answer again and again for as long as it is sent.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderMap, Response, StatusCode, Uri};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use super::{
    KubeApi,
    body::{Body, BodyError},
    options::Query,
    read::{Ended, Target},
    route::Route,
    status::Status,
    watch,
};
use crate::{
    auth::{
        Attributes, AuthError, Called, Door, Kept, Lease, Over, Peer, ResourceAttributes, Room,
        Slot, Subject, Verb, allowed, denied,
    },
    object::selector::{FieldSelector, LabelSelector},
};

/// A caller that was let in with a request.
pub(super) struct Entered {
    /// Absent where nobody is asked.
    pub(super) subject: Option<Subject>,
    slot: Slot,
    kept: Kept,
    /// What may be on its way to it.
    pub(super) room: Room,
    /// Of what is sent over a time.
    lease: Option<Lease>,
    /// For those who account for it.
    pub(super) ended: Ended,
    is_watch: bool,
}

impl KubeApi {
    /// Whether the caller may ask this; nothing where nobody counts what there is, and of health, which says of no
    /// object.
    pub(super) async fn enter(
        &self,
        route: &Route,
        called: &Called,
        uri: &Uri,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Option<Entered>, Status> {
        if matches!(route, Route::Health) {
            return Ok(None);
        }
        let refused = |subject: Option<&Subject>, error: AuthError| {
            denied(called, subject, Some(peer), &error);
            status(&error)
        };
        let verb = match route {
            Route::Objects(target) => target.verb,
            _ => "get",
        };
        let guard = match &self.0.door {
            Door::Open => return Ok(None),
            Door::Limited(calls) => {
                let slot = calls.enter("").map_err(|error| refused(None, error))?;
                peer.sign_in("");
                let room = slot.room(peer);
                let entered = Entered::new(None, slot, room, None, verb);
                return entered
                    .keeping(uri)
                    .map(Some)
                    .map_err(|error| refused(None, error));
            }
            Door::Guarded(guard) => guard,
        };
        let subject = guard.authenticate(headers, &peer.presented).await;
        let subject = subject.map_err(|error| refused(None, error))?;
        let slot = guard.enter(&subject);
        let slot = slot.map_err(|error| refused(Some(&subject), error))?;
        peer.sign_in(subject.owner());
        let needed = needed(route, uri)?;
        let may = guard.authorize(&subject, &needed).await;
        may.map_err(|error| refused(Some(&subject), error))?;
        allowed(called, &subject, peer);
        let room = slot.room(peer);
        let needed = [needed].into();
        room.rests_on(guard, &subject, &needed);
        // One object has mostly left soon. All else may go on for long, as a log does that is followed.
        let is_one =
            matches!(route, Route::Objects(it) if it.verb == "get" && it.subresource.is_none());
        let lease = (!is_one).then(|| guard.hold(&subject, needed, Some(&room)));
        let entered = Entered::new(Some(subject.clone()), slot, room, lease, verb).keeping(uri);
        entered
            .map(Some)
            .map_err(|error| refused(Some(&subject), error))
    }
}

impl Entered {
    fn new(
        subject: Option<Subject>,
        slot: Slot,
        room: Room,
        lease: Option<Lease>,
        verb: &str,
    ) -> Self {
        Self {
            is_watch: verb == "watch",
            subject,
            room,
            ended: Ended::default(),
            kept: slot.kept(),
            slot,
            lease,
        }
    }

    /// With what it asks for, which is all in here.
    fn keeping(self, uri: &Uri) -> Result<Self, AuthError> {
        let path_and_query = uri.path_and_query();
        self.kept
            .add(path_and_query.map_or(0, |it| it.as_str().len()))?;
        Ok(self)
    }

    /// The answer, counted while it is sent, and ended when the rights to it are over.
    pub(super) fn answer(self, response: Response<Body>) -> Response<Body> {
        let over = self.lease.as_ref().map(|lease| lease.when_over().boxed());
        self.room.answered();
        response.map(|body| {
            let held = Held {
                body,
                over,
                room: self.room,
                ended: self.ended,
                is_watch: self.is_watch,
                has_ended: false,
                _lease: self.lease,
                _kept: self.kept,
                _slot: self.slot,
            };
            held.boxed_unsync()
        })
    }
}

/// See [`Entered::answer`].
struct Held {
    body: Body,
    over: Option<BoxFuture<'static, Over>>,
    room: Room,
    ended: Ended,
    is_watch: bool,
    has_ended: bool,
    _lease: Option<Lease>,
    _kept: Kept,
    _slot: Slot,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.ended();
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        if let Some(over) = &mut self.over
            && let Poll::Ready(over) = over.poll_unpin(cx)
        {
            self.has_ended = true;
            // The first reason is the reason.
            let _ = self.ended.set(over.as_str());
            let status = status_of(&over);
            // A watch can say so; of anything else the reader must see that it is not all there.
            let last = match self.is_watch {
                true => Ok(Frame::data(watch::error(&status))),
                false => Err(status.into()),
            };
            return Poll::Ready(Some(last));
        }
        let Self { body, room, .. } = &mut *self;
        room.poll_frame(cx, Pin::new(body))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The permission that a request takes, in its own words.
fn needed(route: &Route, uri: &Uri) -> Result<Attributes, Status> {
    let Route::Objects(target) = route else {
        return Ok(Attributes::path(uri.path()));
    };
    let verb = match target.verb {
        "get" => Verb::Get,
        "list" => Verb::List,
        "watch" => Verb::Watch,
        _ => return Err(Status::method_not_allowed()),
    };
    let Target {
        group,
        plural,
        namespace,
        name,
        subresource,
        ..
    } = target;
    let mut on = ResourceAttributes {
        namespace: namespace.clone(),
        name: name.clone().unwrap_or_default(),
        subresource: subresource.clone().unwrap_or_default(),
        ..Attributes::on(verb, group, plural)
    };
    if verb != Verb::Get {
        let query = Query::parse(uri.query());
        let labels = query.get("labelSelector").unwrap_or_default();
        let labels: LabelSelector = labels
            .parse()
            .map_err(|error| Status::bad_request(format!("labelSelector: {error}")))?;
        let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default());
        let fields =
            fields.map_err(|error| Status::bad_request(format!("fieldSelector: {error}")))?;
        // As the API server reads a selector that leaves one name only.
        if let Some(name) = fields.only_name().filter(|_| on.name.is_empty()) {
            on.name = name.to_owned();
        }
        on.label_selector = labels.to_string().as_str().into();
        on.field_selector = fields.for_review().as_str().into();
    }
    // To the API server a namespace lives in itself where its path names it.
    if verb == Verb::Get
        && on.group.is_empty()
        && on.resource == "namespaces"
        && on.namespace.is_empty()
    {
        on.namespace = on.name.clone();
    }
    Ok(on.into())
}

/// As the API server words it.
pub(super) fn status(error: &AuthError) -> Status {
    let message = error.to_string();
    match error {
        AuthError::Unauthenticated(_) => unauthorized(&message),
        AuthError::Forbidden { attributes, .. } => match &**attributes {
            Attributes::Resource(on) => {
                Status::forbidden(&on.group, &on.resource, &on.name, &message)
            }
            Attributes::Path { .. } => Status::new(
                StatusCode::FORBIDDEN,
                "Forbidden",
                format!("forbidden: {message}"),
            ),
        },
        AuthError::Invalid(_) => Status::bad_request(message),
        AuthError::Unavailable(_) => {
            Status::unavailable(message, error.retry_after().unwrap_or_default())
        }
        AuthError::Busy(_) | AuthError::TooMany(_) => {
            Status::too_many_requests(message, error.retry_after().unwrap_or_default())
        }
    }
}

fn status_of(over: &Over) -> Status {
    match over {
        Over::Revoked(error) | Over::Unproven(error) => status(error),
        Over::Expired => unauthorized("the credentials have expired"),
    }
}

fn unauthorized(why: &str) -> Status {
    Status::new(
        StatusCode::UNAUTHORIZED,
        "Unauthorized",
        format!("Unauthorized: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn asks(uri: &str) -> String {
        let uri: Uri = uri.parse().unwrap();
        let watch = Query::parse(uri.query()).flag("watch").unwrap_or(false);
        let route = Route::of(&Method::GET, uri.path(), watch);
        needed(&route, &uri).unwrap().to_string()
    }

    #[test]
    fn a_request_takes_the_permission_that_it_takes_at_the_api_server() {
        for (uri, permission) in [
            (
                "/api/v1/pods",
                r#"list resource "pods" in API group "" at the cluster scope"#,
            ),
            (
                "/apis/apps/v1/namespaces/shop/deployments?watch=1",
                r#"watch resource "deployments" in API group "apps" in the namespace "shop""#,
            ),
            (
                "/api/v1/namespaces/shop/pods/web",
                r#"get resource "pods" in API group "", name "web", in the namespace "shop""#,
            ),
            (
                "/api/v1/namespaces/shop/pods?watch=true&fieldSelector=metadata.name%3Dweb",
                r#"watch resource "pods" in API group "", name "web", in the namespace "shop""#,
            ),
            (
                "/api/v1/namespaces/shop/pods/web/log",
                r#"get resource "pods/log" in API group "", name "web", in the namespace "shop""#,
            ),
            (
                "/api/v1/namespaces/shop",
                r#"get resource "namespaces" in API group "", name "shop", in the namespace "shop""#,
            ),
            (
                "/api/v1/namespaces?fieldSelector=metadata.name%3Dshop",
                r#"list resource "namespaces" in API group "", name "shop", at the cluster scope"#,
            ),
            ("/apis/apps", r#"get path "/apis/apps""#),
            ("/metrics", r#"get path "/metrics""#),
        ] {
            assert_eq!(asks(uri), permission, "{uri}");
        }
    }
}
