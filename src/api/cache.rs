//! CacheService: single reads, lists, and the way to the watch.
//!
//! The routes are laid by hand rather than generated, because a watch answers with bytes that are ready to be
//! sent, which no generated service can.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status, body::Body, server::Grpc};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

use super::{
    Api, Error,
    access::{Admitted, Asking, Held},
    ask, caller,
    consumers::{Asked, Registration},
    encode::Encoder,
    freshness, now,
    query::{self, Query},
    token::{Token, TokenPosition},
    wait, watch,
};
use crate::{
    auth::{PATIENCE, Snapshot, Verb},
    cache::{Cursor, Position, Shard, Step, Use},
    object::{Key, Object, projection::View},
    proof::{ProofError, ReadThrough, ThroughError, Whole},
    proto,
};

/// How many bytes of objects a list sends in a message, about.
const LIST_MESSAGE: usize = 256 << 10;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct CacheService(Api);

impl CacheService {
    /// For these kinds.
    pub fn new(api: Api) -> Self {
        Self(api)
    }
}

impl tonic::server::NamedService for CacheService {
    const NAME: &'static str = "informerd.v1.CacheService";
}

impl Service<http::Request<Body>> for CacheService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let api = self.0.clone();
        Box::pin(async move {
            let method = request
                .uri()
                .path()
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned();
            let started = std::time::Instant::now();
            let response = match method.as_str() {
                "GetObject" => {
                    let get = service_fn(|request| get_object(api.clone(), request));
                    in_own_words(grpc().unary(get, request).await)
                }
                "ListObjects" => {
                    let list = service_fn(|request| list_objects(api.clone(), request));
                    in_own_words(grpc().server_streaming(list, request).await)
                }
                "WatchObjects" => watch::respond(api, request).await,
                _ => {
                    let status =
                        Status::unimplemented(format!("CacheService has no method {method:?}"));
                    return Ok(status.into_http());
                }
            };
            observe(&method, started, &response);
            Ok(response)
        })
    }
}

fn grpc<Answer, Ask>() -> Grpc<ProstCodec<Answer, Ask>>
where
    Answer: prost::Message + Send + 'static,
    Ask: prost::Message + Default + Send + 'static,
{
    Grpc::new(ProstCodec::default()).max_decoding_message_size(super::MAX_REQUEST)
}

/// A call that tonic refused, as [`ask::own_words`] has it.
fn in_own_words(response: http::Response<Body>) -> http::Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != tonic::Code::Ok => ask::own_words(status).into_http(),
        _ => response,
    }
}

/// Counts a call once its headers are known: of a stream, that is its opening.
fn observe(method: &str, started: std::time::Instant, response: &http::Response<Body>) {
    // A status in the headers is a call that failed before it sent anything.
    let code = response
        .headers()
        .get("grpc-status")
        .and_then(|code| code.to_str().ok())
        .unwrap_or("0");
    let labels = [
        ("grpc_method", method.to_owned()),
        ("grpc_code", code.to_owned()),
    ];
    metrics::counter!("grpc_server_started_total", &labels[..1]).increment(1);
    metrics::counter!("grpc_server_handled_total", &labels).increment(1);
    metrics::histogram!("grpc_server_opening_seconds", &labels[..1]).record(started.elapsed());
}

fn user_agent<T>(request: &Request<T>) -> Option<&str> {
    request.metadata().get("user-agent")?.to_str().ok()
}

/// A request's query, once its kind is known, and a guard that keeps the kind in use.
async fn query(
    api: &Api,
    admitted: &Admitted,
    scope: Option<&proto::Scope>,
    view: i32,
    fields: &[String],
    until: tokio::time::Instant,
) -> Result<(Query, Use), Error> {
    let scope = scope.ok_or_else(|| Error::invalid("scope", "name a resource"))?;
    let kind = query::find_kind(api, scope)?;
    let used = kind.enter();
    let identity = wait::identity(&kind, until).await?;
    admitted.check(&scope.resource, &identity)?;
    Ok((Query::new(kind, &identity, scope, view, fields)?, used))
}

/// Whether the caller may, before anything of the scope is looked up.
async fn admit(
    api: &Api,
    asking: &Asking,
    verb: Verb,
    scope: Option<&proto::Scope>,
) -> Result<Admitted, Error> {
    let scope = scope.ok_or_else(|| Error::invalid("scope", "name a resource"))?;
    if verb == Verb::Get && scope.name.is_empty() {
        return Err(Error::invalid("scope.name", "name the object"));
    }
    api.admit(asking, verb, scope).await
}

/// Returns once what is here has all that was written before the call; at once where that was not asked for.
async fn prove(
    api: &Api,
    query: &Query,
    consistent: bool,
    deadline: Option<std::time::Duration>,
) -> Result<(), Error> {
    if !consistent {
        return Ok(());
    }
    let Some(prover) = &api.0.prover else {
        return Err(Error::NotBuilt {
            field: "consistent",
            value: "true, where the API server cannot be asked,".to_owned(),
        });
    };
    let not_proven = |why| Error::NotProven {
        resource: query.resource.clone(),
        why,
    };
    let until = wait::capped(wait::SYNC, deadline);
    let identity = wait::identity(&query.kind, until).await?;
    let shards = query.shards();
    let proofs = shards
        .iter()
        .map(|shard| prover.most_recent(&query.kind, &identity, shard, query.selection.one()));
    let proven = tokio::time::timeout_at(until, futures::future::try_join_all(proofs)).await;
    proven
        .unwrap_or(Err(ProofError::Late))
        .map(drop)
        .map_err(not_proven)
}

async fn get_object(
    api: Api,
    request: Request<proto::GetObjectRequest>,
) -> Result<Response<proto::GetObjectResponse>, Status> {
    let deadline = wait::deadline(request.metadata().as_ref());
    let asking = Asking::of(request.extensions());
    let request = request.into_inner();
    let admitted = admit(&api, &asking, Verb::Get, request.scope.as_ref()).await?;
    let until = wait::capped(wait::SYNC, deadline);
    let scope = request.scope.as_ref();
    let fields = &request.fields;
    let asked = query(&api, &admitted, scope, request.view, fields, until).await;
    let (query, _used, through) = match asked {
        Err(Error::MetadataOnly { resource }) if request.read_through => {
            let keys = proto::View::Keys.into();
            let (query, used) = query(&api, &admitted, scope, keys, &[], until).await?;
            let through = api.0.through.as_ref();
            let through = through.filter(|through| through.reads(&query.kind));
            let through = through.ok_or(Error::MetadataOnly { resource })?;
            let whole = query::projection(View::Full, fields)?;
            (query, used, Some((through.clone(), whole)))
        }
        asked => {
            let (query, used) = asked?;
            (query, used, None)
        }
    };
    let Some(key) = query.selection.one().cloned() else {
        return Err(Error::invalid("scope.name", "name the object").into());
    };
    let states = wait::states(&query, until).await?;
    wait::version(&query, &request.min_resource_version, deadline).await?;
    prove(&api, &query, request.consistent, deadline).await?;
    let shard = states.into_iter().next().map(|(shard, _)| shard);
    let found = shard.and_then(|shard| Some((shard.clone(), shard.state()?)));
    let Some((shard, state)) = found else {
        return Err(Error::not_synced(&query.kind.name, query.kind.phase(), "").into());
    };
    let object = state.get(&key).filter(|object| {
        let selection: &dyn crate::cache::Select<Object> = &*query.selection;
        selection.in_scope(&key) && selection.matches(object)
    });
    let not_found = || Error::NotFound {
        resource: query.resource.clone(),
        key: key.to_string(),
    };
    let object = object.ok_or_else(not_found)?;
    if let Some((through, projection)) = through {
        let whole = read_through(&through, &query, &key, until).await?;
        let whole = whole.ok_or_else(not_found)?;
        let encoder = api.0.projections.encoder(projection);
        return Ok(Response::new(proto::GetObjectResponse {
            object: Some(encoder.object(&whole.object)),
            freshness: Some(proto::Freshness {
                age: super::duration(whole.asked.elapsed()),
                state: proto::KindState::Live.into(),
                pruned: whole.pruned,
                unordered: query.kind.is_unordered(),
                ..Default::default()
            }),
        }));
    }
    let encoder = api.0.projections.encoder(query.projection.clone());
    let at = Some(state.position());
    Ok(Response::new(proto::GetObjectResponse {
        object: Some(encoder.object(object)),
        freshness: Some(freshness::of(
            &query.kind,
            [(&shard, at)].into_iter(),
            freshness::no_digest,
            now(),
        )),
    }))
}

/// The whole object as the API server has it after this call.
async fn read_through(
    through: &ReadThrough,
    query: &Query,
    key: &Key,
    until: tokio::time::Instant,
) -> Result<Option<Whole>, Error> {
    let identity = wait::identity(&query.kind, until).await?;
    let reading = through.read(&query.kind, &identity, key);
    let read = tokio::time::timeout_at(until, reading).await;
    let not_read = |why| Error::NotRead {
        resource: query.resource.clone(),
        why,
    };
    read.unwrap_or(Err(ThroughError::Late)).map_err(not_read)
}

type ListStream = Pin<Box<dyn Stream<Item = Result<proto::ListObjectsResponse, Status>> + Send>>;

async fn list_objects(
    api: Api,
    request: Request<proto::ListObjectsRequest>,
) -> Result<Response<ListStream>, Status> {
    let deadline = wait::deadline(request.metadata().as_ref());
    let caller = caller(request.extensions(), user_agent(&request));
    let asking = Asking::of(request.extensions());
    let request = request.into_inner();
    let mut admitted = admit(&api, &asking, Verb::List, request.scope.as_ref()).await?;
    let snapshot = asking.snapshot()?;
    let until = wait::capped(wait::SYNC, deadline);
    let (query, used) = query(
        &api,
        &admitted,
        request.scope.as_ref(),
        request.view,
        &request.fields,
        until,
    )
    .await?;
    wait::states(&query, until).await?;
    wait::version(&query, &request.min_resource_version, deadline).await?;
    prove(&api, &query, request.consistent, deadline).await?;
    let states = wait::states(&query, until).await?;
    let asked = Asked {
        scope: request.scope.unwrap_or_default(),
        view: request.view,
        fields: request.fields,
    };
    let registration =
        api.0
            .consumers
            .enter("ListObjects", caller, Some(query.kind.clone()), asked);
    let parts: Vec<_> = states
        .into_iter()
        .map(|(shard, state)| Part {
            digest: query
                .selection
                .digest(&shard, &state.position(), Some(&*state)),
            shard,
            cursor: Cursor::over(state, now()),
            end: None,
        })
        .collect();
    for part in &parts {
        registration.consumer.hold(&part.shard, part.cursor.hold());
    }
    let list = List {
        encoder: api.0.projections.encoder(query.projection.clone()),
        api,
        query,
        parts,
        at: 0,
        count: 0,
        registration,
        snapshot,
        held: admitted.hold(),
        _used: used,
    };
    // `None` once the last message is out, or an error.
    let messages = stream::unfold(Some(list), |list| async {
        let mut list = list?;
        let message = list.next_message();
        let over = message
            .as_ref()
            .map_or(true, |message| message.end.is_some());
        Some((message.map_err(Status::from), (!over).then_some(list)))
    });
    Ok(Response::new(messages.boxed()))
}

/// A list on its way out.
struct List {
    api: Api,
    query: Query,
    encoder: Encoder,
    parts: Vec<Part>,
    at: usize,
    count: u64,
    registration: Registration,
    snapshot: Option<Snapshot>,
    held: Held,
    _used: Use,
}

/// One shard's part of a list.
struct Part {
    shard: Arc<Shard<Object>>,
    cursor: Cursor<Object>,
    /// Of what is selected, where that is known.
    digest: Option<u64>,
    /// Set once it is sent.
    end: Option<Position>,
}

impl List {
    /// The next objects, or the end; ABORTED where the snapshot was taken away.
    fn next_message(&mut self) -> Result<proto::ListObjectsResponse, Error> {
        if let Some(error) = self.held.over() {
            self.registration.consumer.ends(error.reason());
            return Err(error);
        }
        for later in self.parts.iter().skip(self.at + 1) {
            later.cursor.touch(now());
        }
        while let Some(part) = self.parts.get_mut(self.at) {
            match part
                .cursor
                .walk(&*self.query.selection, LIST_MESSAGE, now())
            {
                Some(Step::Items { items, .. }) => {
                    let objects: Vec<_> = items
                        .iter()
                        .map(|object| self.encoder.object(object))
                        .collect();
                    self.count += objects.len() as u64;
                    let bytes = objects.iter().map(|object| object.object.len()).sum();
                    self.registration.consumer.sent(objects.len(), bytes);
                    if let Some(snapshot) = &self.snapshot {
                        snapshot.made(bytes);
                    }
                    return Ok(proto::ListObjectsResponse { objects, end: None });
                }
                Some(Step::ResetEnd(position)) => {
                    part.end = Some(position);
                    self.at += 1;
                }
                _ => {
                    let error = Error::Stalled(PATIENCE);
                    self.registration.consumer.ends(error.reason());
                    return Err(error);
                }
            }
        }
        Ok(proto::ListObjectsResponse {
            objects: Vec::new(),
            end: Some(self.end()),
        })
    }

    fn end(&self) -> proto::ListEnd {
        let kind = &self.query.kind;
        let positions = self
            .parts
            .iter()
            .filter_map(|part| Some((&part.shard, part.end?)));
        let token = Token::new(
            &self.query.resource,
            self.query.hash,
            kind.config_hash,
            self.api.0.incarnation,
            positions
                .clone()
                .map(|(shard, position)| TokenPosition::new(shard.namespace(), &position))
                .collect(),
        );
        let positions = positions.map(|(shard, position)| (shard, Some(position)));
        let digest = |shard: &Arc<Shard<Object>>, _: &Position| {
            let mut parts = self.parts.iter();
            parts.find(|part| Arc::ptr_eq(&part.shard, shard))?.digest
        };
        proto::ListEnd {
            token: token.encode_to_bytes(),
            freshness: Some(freshness::of(kind, positions, digest, now())),
            count: self.count,
        }
    }
}
