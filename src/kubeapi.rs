//! Kubernetes's own read protocol: discovery, GET, LIST and WATCH in all their forms, over whatever keeps its
//! objects in the cache's [`Kind`](crate::cache::Kind)s.
//!
//! Written once, for two: the facade, through which everything that already speaks to the API server reads from the
//! daemon's cache, and the sandbox, which keeps its own objects in the same way and thereby has no read half of its
//! own. What differs between the two is in [`Read`]. What a request means is the API server's word, bugs and all;
//! `tests/integration/kubeapi_table.rs` holds both against each other.
//!
//! Each request is about one shard, since a resourceVersion is one number: of a kind that is watched namespace by
//! namespace, each of these namespaces can be read, and no two at once.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH, WARNING},
};
use tracing::Instrument;

pub use crate::auth::Peer;
use crate::{
    auth::{Called, Door, Room, Snapshot, Subject, clip, denied},
    cache::{Cursor, Doorbell, Shard},
    object::{Key, Object},
    shutdown::{Shutdown, Stage},
};

mod accept;
mod body;
mod discovery;
mod door;
mod event;
mod frozen;
mod holds;
mod list;
mod openapi;
mod options;
mod read;
mod route;
mod scope;
mod serve;
mod shape;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod token;
mod wait;
mod watch;

pub use body::{Body, BodyError, full, json, stream, text};
pub use options::Query;
pub use read::{
    Ended, Opened, Other, Patience, PrinterColumn, Proven, Read, Reader, Resource, Schema,
    Subresource, Target, Wanted,
};
pub use status::{Cause, Details, Invalid, Status, qualified};

use accept::Form;
use holds::Rest;
use options::{ListOptions, Version};
use route::Route;
use table::Table;
use token::Continue;
use watch::{Gauge, Place, Watch};

/// A watch that names no end gets one between this and twice this, as on the API server.
const WATCH_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Serves what a [`Read`] has. Cheap to clone.
#[derive(Clone)]
pub struct KubeApi(Arc<Inner>);

struct Inner {
    read: Arc<dyn Read>,
    door: Door,
    frozen: frozen::FrozenStates,
    holds: Arc<holds::Holds>,
    shutdown: Shutdown,
}

impl fmt::Debug for KubeApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubeApi").finish_non_exhaustive()
    }
}

/// Who asks, as far as that is known.
struct Asker {
    peer: Peer,
    subject: Option<Subject>,
    called: Called,
    room: Option<Room>,
    ended: Ended,
}

impl Asker {
    /// By name; empty where nobody is asked.
    fn user(&self) -> &str {
        let subject = self.subject.as_ref();
        subject.map_or("", |subject| &subject.identity().user)
    }

    /// A state to be walked for it, if it may have one more; nothing where nobody counts them.
    fn snapshot(&self) -> Result<Option<Snapshot>, Status> {
        let snapshot = self.room.as_ref().map(Room::snapshot).transpose();
        snapshot.map_err(|error| {
            denied(
                &self.called,
                self.subject.as_ref(),
                Some(&self.peer),
                &error,
            );
            door::status(&error)
        })
    }
}

/// A request for objects, taken apart.
struct Ask<'a> {
    target: &'a Target,
    resource: &'a Arc<Resource>,
    query: Query<'a>,
    headers: &'a HeaderMap,
    asker: &'a Asker,
}

/// Why a request is not answered from here.
enum Refused {
    /// With this answer.
    Status(Status),
    /// By whoever answers the rest; this is why.
    Elsewhere(Status),
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl KubeApi {
    /// Until the shutdown begins to drain; then watches end. Whoever can connect may read.
    pub fn new(read: Arc<dyn Read>, shutdown: Shutdown) -> Self {
        Self::behind(Door::Open, read, shutdown)
    }

    /// The same, for whom this door lets in.
    pub fn behind(door: Door, read: Arc<dyn Read>, shutdown: Shutdown) -> Self {
        Self(Arc::new(Inner {
            read,
            door,
            frozen: frozen::FrozenStates::default(),
            holds: Arc::default(),
            shutdown,
        }))
    }

    /// Answers a request. What is no read of what is served goes to [`Read::other`].
    pub async fn handle(&self, request: Request<Body>, peer: Peer) -> Response<Body> {
        let query = Query::parse(request.uri().query());
        let watch = query.flag("watch").unwrap_or(false);
        let route = Route::of(request.method(), request.uri().path(), watch);
        let (verb, resource) = match &route {
            Route::Objects(target) => (target.verb, self.label(target)),
            _ => ("get", "".to_owned()),
        };
        let span = tracing::info_span!("kube", verb, resource, path = clip(request.uri().path()));
        let begun = Instant::now();
        let mut response = self.answer(route, request, peer).instrument(span).await;
        response
            .headers_mut()
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-cache, private"));
        let code = response.status().as_str().to_owned();
        metrics::histogram!("informerd_kube_request_duration_seconds", "verb" => verb)
            .record(begun.elapsed());
        metrics::counter!("informerd_kube_requests_total", "verb" => verb, "resource" => resource, "code" => code)
            .increment(1);
        response
    }

    /// Whatever the answer is, to whoever may have it.
    async fn answer(&self, route: Route, request: Request<Body>, peer: Peer) -> Response<Body> {
        let called = Called::new(request.uri().path());
        let entered = self.enter(&route, &called, request.uri(), request.headers(), &peer);
        let entered = match entered.await {
            Ok(entered) => entered,
            Err(status) => return status.response(),
        };
        let asker = Asker {
            peer,
            called,
            subject: entered.as_ref().and_then(|entered| entered.subject.clone()),
            room: entered.as_ref().map(|entered| entered.room.clone()),
            ended: entered
                .as_ref()
                .map(|entered| entered.ended.clone())
                .unwrap_or_default(),
        };
        let response = self.route(route, request, &asker).await;
        match entered {
            Some(entered) => entered.answer(response),
            None => response,
        }
    }

    /// A name for metrics: of what is served only, or there would be no end of them.
    fn label(&self, target: &Target) -> String {
        match self.find(target) {
            Some(resource) => resource.identity.resource(),
            None => "other".to_owned(),
        }
    }

    fn find(&self, target: &Target) -> Option<Arc<Resource>> {
        let resources = self.0.read.resources();
        let found = resources
            .iter()
            .find(|resource| resource.is(&target.group, &target.version, &target.plural));
        found.cloned()
    }

    async fn route(&self, route: Route, request: Request<Body>, asker: &Asker) -> Response<Body> {
        let read = &self.0.read;
        let resources = read.resources();
        let of_discovery = !matches!(
            route,
            Route::Version | Route::Health | Route::Objects(_) | Route::Unknown
        );
        if of_discovery && !read.serves_discovery() {
            return read.other(request, Other::Path).await;
        }
        match route {
            Route::Core => discovery::core(&resources, request.headers()),
            Route::Groups => discovery::all_groups(&resources, request.headers()),
            Route::Group(name) => match discovery::one_group(&resources, &name) {
                Some(answer) => answer,
                None => read.other(request, Other::Path).await,
            },
            Route::GroupVersion(group, version) => {
                match discovery::group_version(&resources, &group, &version) {
                    Some(answer) => answer,
                    None if discovery::has_group(&resources, &group) => {
                        Status::no_such_path().response()
                    }
                    None => read.other(request, Other::Path).await,
                }
            }
            Route::Version => match read.version().await {
                Ok(version) => json(StatusCode::OK, full(version)),
                Err(status) => status.response(),
            },
            Route::Health => self.health(request.uri().path()),
            Route::Objects(target) => self.objects(target, request, asker).await,
            Route::OpenApi => openapi::index(&resources),
            Route::OpenApiOf(place) => openapi::of(&resources, &place),
            Route::Unknown => read.other(request, Other::Path).await,
        }
    }

    /// As the API server's: livez never fails, readyz does while draining.
    fn health(&self, path: &str) -> Response<Body> {
        let draining = self.0.shutdown.stage() != Stage::Running;
        if draining && !path.contains("livez") {
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "[-]shutdown failed: draining\n",
            );
        }
        text(StatusCode::OK, "ok")
    }

    async fn objects(
        &self,
        target: Target,
        request: Request<Body>,
        asker: &Asker,
    ) -> Response<Body> {
        let resource = self.find(&target);
        let is_read = ["get", "list", "watch"].contains(&target.verb);
        let answered = match &resource {
            Some(resource) if is_read && target.subresource.is_none() => {
                let ask = Ask {
                    target: &target,
                    resource,
                    query: Query::parse(request.uri().query()),
                    headers: request.headers(),
                    asker,
                };
                match self.read(&ask).await {
                    Ok(mut answer) => {
                        warn(resource, &mut answer);
                        return answer;
                    }
                    Err(Refused::Status(status)) => return status.response(),
                    Err(Refused::Elsewhere(why)) => Some(why),
                }
            }
            _ => None,
        };
        let what = Other::Resource {
            target,
            resource,
            why: answered,
        };
        self.0.read.other(request, what).await
    }

    async fn read(&self, ask: &Ask<'_>) -> Result<Response<Body>, Refused> {
        let Ask {
            target, resource, ..
        } = ask;
        let identity = &resource.identity;
        let in_namespace = !target.namespace.is_empty();
        let fits = match (identity.namespaced, target.verb) {
            (true, "get") => in_namespace,
            (true, _) => true,
            (false, _) => !in_namespace,
        };
        if !fits {
            return Err(Status::no_such_path().into());
        }
        let accept = ask.headers.get(http::header::ACCEPT);
        let form = Form::negotiate(accept.and_then(|accept| accept.to_str().ok()))?;
        if resource.kind.is_unordered() {
            let message = format!(
                "{} cannot be read here: their resource versions have no order",
                identity.resource()
            );
            let status = Status::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message);
            return Err(Refused::Elsewhere(status));
        }
        if form == Form::Object && resource.kind.metadata_only {
            let message = format!(
                "only metadata of {} is cached, as `metadataOnly: true` in the config of informerd says; ask for \
                 application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, or for a table",
                identity.resource()
            );
            return Err(Refused::Elsewhere(Status::not_acceptable(message)));
        }
        match target.verb {
            "get" => self.get(ask, form).await,
            "list" => self.list(ask, form).await,
            _ => self.watch(ask, form).await,
        }
    }

    /// The shard that has all of what is asked for.
    fn shard<'a>(
        &self,
        ask: &'a Ask<'_>,
        namespace: &str,
    ) -> Result<&'a Arc<Shard<Object>>, Refused> {
        let Ask {
            target, resource, ..
        } = ask;
        if let Some(shard) = resource.shard(namespace) {
            return Ok(shard);
        }
        let watched: Vec<&str> = resource
            .kind
            .shards()
            .iter()
            .map(|shard| shard.namespace())
            .filter(|namespace| !namespace.is_empty())
            .collect();
        let place = match namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        let where_ = if watched.is_empty() {
            format!("outside of {}", resource.excluded.join(", "))
        } else {
            format!("in {} only", watched.join(", "))
        };
        let why = format!(
            "cannot {} resource {:?} {place}: the config of informerd has it watched {where_}",
            target.verb, target.plural,
        );
        let name = target.name.as_deref().unwrap_or_default();
        Err(Refused::Elsewhere(Status::forbidden(
            &target.group,
            &target.plural,
            name,
            &why,
        )))
    }

    /// A state as fresh as was asked for.
    async fn state(
        &self,
        resource: &Resource,
        shard: &Arc<Shard<Object>>,
        key: Option<&Key>,
        version: Version,
    ) -> Result<Proven, Status> {
        let read = &self.0.read;
        let patience = read.patience();
        let state = wait::complete(resource, shard, patience.first_list).await?;
        match version {
            Version::Unset if !read.unset_is_any() => {
                let wanted = Wanted {
                    resource,
                    shard,
                    key,
                };
                read.most_recent(wanted).await
            }
            Version::Unset | Version::Any => Ok(Proven::of(state)),
            Version::AtLeast(revision) if state.revision >= revision => Ok(Proven::of(state)),
            Version::AtLeast(revision) => self.reached(resource, shard, revision).await,
            Version::Exactly(revision) => self.exactly(resource, shard, revision).await,
        }
    }

    /// A state that is at this revision or past it. A quiet kind is proven to be, since its own revision does not move
    /// with what is written elsewhere.
    async fn reached(
        &self,
        resource: &Resource,
        shard: &Arc<Shard<Object>>,
        revision: u64,
    ) -> Result<Proven, Status> {
        if let Some(state) = wait::servable(shard).filter(|state| state.revision >= revision) {
            return Ok(Proven::of(state));
        }
        let wanted = Wanted {
            resource,
            shard,
            key: None,
        };
        let proven = self.0.read.most_recent(wanted).await;
        match proven {
            Ok(proven) if proven.revision >= revision => Ok(proven),
            _ => {
                let patience = self.0.read.patience().version;
                let state = wait::revision(shard, revision, patience).await?;
                Ok(Proven::of(state))
            }
        }
    }

    /// The state that was there at just this revision.
    async fn exactly(
        &self,
        resource: &Resource,
        shard: &Arc<Shard<Object>>,
        revision: u64,
    ) -> Result<Proven, Status> {
        let kept = wait::servable(shard)
            .and_then(|current| self.0.frozen.at(shard, &current, revision, now()));
        let state = match kept {
            Some(kept) => Some(kept),
            None => {
                let current = self.reached(resource, shard, revision).await?.state;
                if current.revision < revision {
                    // Nothing has happened between the two.
                    Some(current)
                } else {
                    self.0.frozen.at(shard, &current, revision, now())
                }
            }
        };
        let expired = || Status::expired("The resourceVersion for the provided list is too old.");
        Ok(Proven {
            state: state.ok_or_else(expired)?,
            revision,
        })
    }

    async fn get(&self, ask: &Ask<'_>, form: Form) -> Result<Response<Body>, Refused> {
        let Ask {
            target, resource, ..
        } = ask;
        let identity = &resource.identity;
        let form = form.fits(&identity.kind, false)?;
        let version = options::get_version(&ask.query)?;
        let shard = self.shard(ask, &target.namespace)?;
        let _used = resource.kind.enter();
        let name = target.name.as_deref().unwrap_or_default();
        if name.contains('/') {
            return Err(Status::not_found(&identity.group, &identity.plural, name).into());
        }
        let key = Key::new(&target.namespace, name);
        let proven = self.state(resource, shard, Some(&key), version).await?;
        let Some(object) = proven.state.get(&key) else {
            return Err(Status::not_found(&identity.group, &identity.plural, name).into());
        };
        let mut out = Vec::new();
        match form {
            // The cache's own bytes, counted as they are given out: a reader who takes none of them has no copy.
            Form::Object => {
                let length = object.json.len() + 1;
                let pieces = [object.json.clone(), Bytes::from_static(b"\n")];
                let body = stream(futures::stream::iter(pieces.map(Ok)));
                let mut response = json(StatusCode::OK, body);
                let headers = response.headers_mut();
                headers.insert(CONTENT_LENGTH, length.into());
                return Ok(response);
            }
            Form::Table { version } => {
                let table = Table::new(resource, &ask.query, version)?;
                let own = serde_json::json!({ "resourceVersion": object.resource_version });
                table.head(own.to_string().as_bytes(), true, &mut out);
                table.row(object, &object.json, &mut out);
                out.extend_from_slice(b"]}");
            }
            Form::Metadata { version, .. } => {
                shape::partial(shape::metadata(&object.json), version, &mut out);
            }
        }
        out.push(b'\n');
        Ok(json(StatusCode::OK, full(out)))
    }

    async fn list(&self, ask: &Ask<'_>, form: Form) -> Result<Response<Body>, Refused> {
        let Ask {
            target, resource, ..
        } = ask;
        let identity = &resource.identity;
        let form = form.fits(&identity.kind, true)?;
        let options = ListOptions::parse(&ask.query, identity, false)?;
        let namespace = &target.namespace;
        let token = options
            .continue_token
            .as_deref()
            .map(|token| Continue::parse(token, namespace))
            .transpose()?;
        let shard = self.shard(ask, namespace)?;
        let used = resource.kind.enter();
        let scope = scope::selection(namespace, identity.namespaced, options.selector.clone());
        let items = list::Items::of(form, resource, &ask.query)?;
        let snapshot = ask.asker.snapshot()?;
        let proven = match &token {
            None => self.state(resource, shard, None, options.version).await?,
            Some(token) => self.go_on(resource, shard, token, namespace).await?,
        };
        // A list of whatever is at hand comes whole, as the API server's.
        let limit = options.limit.filter(|_| options.version != Version::Any);
        let body = if limit.is_some() || token.is_some() {
            let after = token.as_ref().map(|token| &token.after);
            let page = list::page(&proven.state, &scope, after, limit);
            let continue_token = list::next_token(&page, namespace, &proven);
            if continue_token.is_some() {
                let user = ask.asker.user();
                let frozen = &self.0.frozen;
                frozen.keep(user, shard, &proven.state, proven.revision, now());
            }
            let meta = list::ListMeta {
                revision: proven.revision,
                continue_token,
                remaining: page.remaining,
            };
            let page = list::Paged {
                rest: Rest::new(page.items, now()),
                items,
                snapshot,
            };
            page.body(resource, &meta, &self.0.holds)
        } else {
            let cursor = Cursor::over(proven.state, now());
            let reader = self.0.read.open(opened(ask, "list", &options, form));
            if let Some(reader) = &reader {
                reader.hold(shard, cursor.hold());
            }
            let whole = list::Whole {
                resource: Arc::clone(resource),
                items,
                scope,
                _held: self.0.holds.watch_over(cursor.hold()),
                cursor,
                revision: proven.revision,
                reader,
                snapshot,
                _used: used,
            };
            whole.body()
        };
        Ok(json(StatusCode::OK, body))
    }

    /// The state in which a list in pages goes on.
    async fn go_on(
        &self,
        resource: &Resource,
        shard: &Arc<Shard<Object>>,
        token: &Continue,
        namespace: &str,
    ) -> Result<Proven, Status> {
        let Some(revision) = token.revision else {
            return self.state(resource, shard, None, Version::Unset).await;
        };
        let patience = self.0.read.patience();
        let current = wait::complete(resource, shard, patience.first_list).await?;
        let kept = self.0.frozen.at(shard, &current, revision, now());
        let state = kept.ok_or_else(|| Status::expired_continue(token.inconsistent(namespace)))?;
        Ok(Proven { state, revision })
    }

    async fn watch(&self, ask: &Ask<'_>, form: Form) -> Result<Response<Body>, Refused> {
        let Ask {
            target, resource, ..
        } = ask;
        let identity = &resource.identity;
        let options = ListOptions::parse(&ask.query, identity, true)?;
        let shard = self.shard(ask, &target.namespace)?;
        let used = resource.kind.enter();
        let (form_of_lines, table) = match form {
            Form::Object => (event::Form::Object, None),
            Form::Metadata { version, .. } => (event::Form::Metadata(version), None),
            Form::Table { version } => {
                let table = Table::new(resource, &ask.query, version)?;
                (event::Form::Object, Some((table, false)))
            }
        };
        let lines = event::Lines {
            form: form_of_lines,
            table,
        };
        let scope = scope::selection(
            &target.namespace,
            identity.namespaced,
            options.selector.clone(),
        );
        // Before the state is looked at, so that no change falls between.
        let bell = Arc::new(Doorbell::default());
        let turn = ask.asker.room.as_ref().map_or(0, Room::turn);
        let subscription = shard.subscribe_in_turn(turn, scope.wake_scopes(), &bell);
        let reader = self.0.read.open(opened(ask, "watch", &options, form));
        let place = match self.begin(ask, shard, &options, &reader).await {
            Ok(place) => place,
            // Past the parameters, a watch says what is wrong in its first line.
            Err(status) if status.reason() == "Expired" || status.code() == 504 => {
                Place::Last(status)
            }
            Err(status) => return Err(status.into()),
        };
        let timeout = match options.timeout_seconds {
            Some(seconds) if seconds != 0 => {
                Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
            }
            _ => WATCH_TIMEOUT.mul_f64(1.0 + fastrand::f64()),
        };
        let begun = tokio::time::Instant::now();
        let deadline = begun + timeout.min(WATCH_TIMEOUT * 48);
        let watch = Watch {
            resource: Arc::clone(resource),
            shard: Arc::clone(shard),
            scope,
            lines,
            place,
            bookmarks: options.bookmarks,
            deadline,
            next_bookmark: watch::next_bookmark(begun, deadline),
            bell,
            _subscription: subscription,
            reader,
            draining: Box::pin(self.0.shutdown.draining_owned()),
            _used: used,
            _open: Gauge::new(identity.resource()),
        };
        Ok(json(StatusCode::OK, stream(watch.pieces())))
    }

    /// Where a watch begins.
    async fn begin(
        &self,
        ask: &Ask<'_>,
        shard: &Arc<Shard<Object>>,
        options: &ListOptions,
        reader: &Option<Box<dyn Reader>>,
    ) -> Result<Place, Status> {
        let resource = ask.resource;
        if options.send_initial_events != Some(true) {
            let patience = self.0.read.patience().first_list;
            let state = wait::complete(resource, shard, patience).await?;
            return Ok(match options.version {
                Version::AtLeast(revision) | Version::Exactly(revision) => {
                    Place::after(&state, revision)
                }
                Version::Unset | Version::Any => Place::after(&state, state.revision),
            });
        }
        let snapshot = ask.asker.snapshot()?;
        let proven = self.state(resource, shard, None, options.version).await?;
        let (history, sequence) = (proven.state.history, proven.state.sequence);
        let cursor = Cursor::over(proven.state, now());
        if let Some(reader) = reader {
            reader.hold(shard, cursor.hold());
        }
        Ok(Place::Initial {
            _held: self.0.holds.watch_over(cursor.hold()),
            cursor,
            history,
            sequence,
            revision: proven.revision,
            snapshot,
            marked: options.bookmarks,
        })
    }
}

fn opened(ask: &Ask<'_>, verb: &'static str, options: &ListOptions, form: Form) -> Opened {
    let agent = ask.headers.get(http::header::USER_AGENT);
    let agent = agent.and_then(|agent| agent.to_str().ok());
    Opened {
        verb,
        resource: Arc::clone(ask.resource),
        namespace: ask.target.namespace.clone(),
        label_selector: options.label_selector.clone(),
        field_selector: options.field_selector.clone(),
        metadata_only: matches!(form, Form::Metadata { .. }),
        peer: ask.asker.peer.address(),
        subject: ask.asker.subject.clone(),
        ended: ask.asker.ended.clone(),
        user_agent: agent.unwrap_or_default().chars().take(256).collect(),
    }
}

/// Says what the objects of an answer lack.
fn warn(resource: &Resource, response: &mut Response<Body>) {
    for warning in &resource.warnings {
        let text = format!("299 - {}", serde_json::Value::from(warning.as_str()));
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// Says what this module's metrics mean.
pub fn describe_metrics() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!(
        "informerd_kube_requests_total",
        "Requests in Kubernetes's protocol, by verb, resource (`other` for what is not served) and status."
    );
    describe_histogram!(
        "informerd_kube_request_duration_seconds",
        Unit::Seconds,
        "Time to the headers of an answer in Kubernetes's protocol, by verb."
    );
    describe_gauge!(
        "informerd_kube_watches",
        "Open watches in Kubernetes's protocol, by resource."
    );
    describe_counter!(
        "informerd_kube_expiries_total",
        "Lists in Kubernetes's protocol that were cut because their reader took nothing for a minute."
    );
}

/// The clock of patience; tokio's, so that tests can pause it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
