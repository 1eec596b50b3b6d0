//! ReadinessService: what the controllers think of things, read from the board.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt, future::BoxFuture, stream};
use tonic::{Request, Response, Status};

use super::{
    Api, Error, freshness, now,
    token::{Token, TokenPosition},
    wait,
};
use crate::{
    cache::{Cursor, Identity, Kind, Step},
    object::Key,
    proto::{
        self,
        readiness_service_server::{ReadinessService, ReadinessServiceServer},
    },
    readiness::{Judged, Verdict},
};

mod scope;
mod shown;
#[cfg(test)]
mod tests;
mod waiting;
mod watch;

use scope::{Cases, Selection};

/// How many bytes of verdicts a list sends in a message, about.
const LIST_MESSAGE: usize = 256 << 10;

/// What the API server itself has under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
}

/// Asks the API server itself, for what the cache cannot prove by itself at once.
pub trait Live: Send + Sync + 'static {
    /// The object as it is at this moment; `None` where there is none. An error says why nobody knows.
    fn see<'a>(
        &'a self,
        identity: &'a Identity,
        key: &'a Key,
    ) -> BoxFuture<'a, Result<Option<Seen>, String>>;

    /// How far the API server is at this moment, as it says where objects of this kind are; of all namespaces where
    /// `namespace` is empty.
    fn revision<'a>(
        &'a self,
        identity: &'a Identity,
        namespace: &'a str,
    ) -> BoxFuture<'a, Result<u64, String>>;
}

/// The service, ready to be added to a server.
pub fn service(api: Api) -> ReadinessServiceServer<Readiness> {
    ReadinessServiceServer::new(Readiness(api)).max_decoding_message_size(super::MAX_REQUEST)
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Readiness(Api);

/// A kind and the verdicts on it.
#[derive(Clone, Debug)]
struct Case {
    kind: Arc<Kind>,
    judged: Arc<Judged>,
}

impl Case {
    fn find(api: &Api, field: &'static str, resource: &str) -> Result<Self, Error> {
        if resource.is_empty() {
            let problem = "name the kind, as in \"pods\" or \"deployments.apps\"";
            return Err(Error::invalid(field, problem));
        }
        let scope = proto::Scope {
            resource: resource.to_owned(),
            ..Default::default()
        };
        let kind = super::query::find_kind(api.catalog(), &scope)?;
        let judged = api.0.board.kind(&kind.name).cloned();
        let judged = judged.ok_or_else(|| Error::NotJudged {
            resource: kind.name.clone(),
            judged: api
                .0
                .board
                .kinds()
                .map(|judged| judged.name())
                .collect::<Vec<_>>()
                .join(", "),
        })?;
        Ok(Self { kind, judged })
    }

    /// The kind's full name, where it is known.
    fn resource(&self) -> String {
        let identity = self.kind.identity();
        identity.map_or_else(|| self.kind.name.clone(), |identity| identity.resource())
    }

    fn freshness(&self) -> proto::Freshness {
        let shards = self.kind.shards().iter().map(|shard| (shard, None));
        freshness::of(&self.kind, shards, false, now())
    }

    /// As lists and marks tell of it.
    fn described(&self, revision: u64) -> proto::JudgedKind {
        proto::JudgedKind {
            resource: self.resource(),
            revision,
            freshness: Some(self.freshness()),
        }
    }

    /// Until everything of the kind is judged.
    async fn complete(&self, until: tokio::time::Instant) -> Result<(), Error> {
        let shard = std::slice::from_ref(self.judged.shard());
        let state = || self.judged.shard().state();
        match wait::until(shard, until, state).await {
            Some(_) => Ok(()),
            None => Err(Error::not_synced(
                &format!("the verdicts on {}", self.kind.name),
                self.kind.phase(),
                &self.judged.shard().status().message,
            )),
        }
    }
}

/// A target of a request, checked.
fn key(target: &proto::Target, kind: &Kind, fields: [&'static str; 2]) -> Result<Key, Error> {
    let [namespace_field, name_field] = fields;
    if target.name.is_empty() || target.name.contains('/') {
        let problem = format!("{:?} is not a name; name the target", target.name);
        return Err(Error::invalid(name_field, problem));
    }
    if target.namespace.contains('/') {
        let problem = format!("{:?} is not a namespace's name", target.namespace);
        return Err(Error::invalid(namespace_field, problem));
    }
    match kind.identity().map(|identity| identity.namespaced) {
        Some(true) if target.namespace.is_empty() => {
            let problem = format!("{} live in namespaces: name one", kind.name);
            Err(Error::invalid(namespace_field, problem))
        }
        Some(false) if !target.namespace.is_empty() => {
            let problem = format!("{} are cluster-scoped; leave it empty", kind.name);
            Err(Error::invalid(namespace_field, problem))
        }
        _ => Ok(Key::new(&target.namespace, &target.name)),
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ReadinessService for Readiness {
    async fn get_readiness(
        &self,
        request: Request<proto::GetReadinessRequest>,
    ) -> Result<Response<proto::GetReadinessResponse>, Status> {
        let until = wait::capped(wait::SYNC, wait::deadline(request.metadata().as_ref()));
        let target = request.into_inner().target.unwrap_or_default();
        let case = Case::find(&self.0, "target.resource", &target.resource)?;
        let key = key(&target, &case.kind, ["target.namespace", "target.name"])?;
        case.complete(until).await?;
        let verdict = match case.judged.get(&key) {
            Some(verdict) => shown::verdict(&verdict, &self.0.0.board),
            None => shown::absent(&case, &key),
        };
        Ok(Response::new(proto::GetReadinessResponse {
            verdict: Some(verdict),
            freshness: Some(case.freshness()),
        }))
    }

    type ListReadinessStream = Answers<proto::ListReadinessResponse>;

    async fn list_readiness(
        &self,
        request: Request<proto::ListReadinessRequest>,
    ) -> Result<Response<Self::ListReadinessStream>, Status> {
        let until = wait::capped(wait::SYNC, wait::deadline(request.metadata().as_ref()));
        let scope = request.into_inner().scope.unwrap_or_default();
        let cases = Cases::find(&self.0, &scope)?;
        for case in &cases.all {
            case.complete(until).await?;
        }
        let part = |case: &Case| {
            let state = case.judged.shard().state()?;
            let position = state.position();
            Some((case.clone(), position, Cursor::over(state, now())))
        };
        let list = List {
            api: self.0.clone(),
            parts: cases.all.iter().filter_map(part).collect(),
            hash: cases.hash,
            selection: cases.selection,
            at: 0,
            count: 0,
        };
        let messages = stream::unfold(Some(list), |list| async {
            let mut list = list?;
            let message = list.next_message();
            let over = message.end.is_some();
            Some((Ok(message), (!over).then_some(list)))
        });
        Ok(Response::new(messages.boxed()))
    }

    type WatchReadinessStream = Answers<proto::WatchReadinessResponse>;

    async fn watch_readiness(
        &self,
        request: Request<proto::WatchReadinessRequest>,
    ) -> Result<Response<Self::WatchReadinessStream>, Status> {
        let user_agent = request.metadata().get("user-agent");
        let user_agent = user_agent.and_then(|value| value.to_str().ok());
        let caller = super::caller(request.extensions(), user_agent);
        let watch = watch::Watch::new(&self.0, request.into_inner(), caller)?;
        Ok(Response::new(watch.messages().boxed()))
    }

    type WaitReadinessStream = Answers<proto::WaitReadinessResponse>;

    async fn wait_readiness(
        &self,
        request: Request<proto::WaitReadinessRequest>,
    ) -> Result<Response<Self::WaitReadinessStream>, Status> {
        let deadline = wait::deadline(request.metadata().as_ref());
        let waiting = waiting::Waiting::new(&self.0, request.into_inner(), deadline)?;
        Ok(Response::new(waiting.answers().boxed()))
    }
}

/// A list on its way out.
struct List {
    api: Api,
    parts: Vec<(Case, crate::cache::Position, Cursor<Verdict>)>,
    selection: Selection,
    hash: u64,
    at: usize,
    count: u64,
}

impl List {
    fn next_message(&mut self) -> proto::ListReadinessResponse {
        while let Some((_, _, cursor)) = self.parts.get_mut(self.at) {
            let Some(Step::Items { items, .. }) = cursor.walk(&self.selection, LIST_MESSAGE, now())
            else {
                self.at += 1;
                continue;
            };
            self.count += items.len() as u64;
            let verdicts = items
                .iter()
                .map(|verdict| shown::verdict(verdict, &self.api.0.board));
            return proto::ListReadinessResponse {
                verdicts: verdicts.collect(),
                end: None,
            };
        }
        proto::ListReadinessResponse {
            verdicts: Vec::new(),
            end: Some(self.end()),
        }
    }

    fn end(&self) -> proto::ReadinessListEnd {
        let positions = self
            .parts
            .iter()
            .map(|(case, position, _)| TokenPosition::new(case.judged.name(), position));
        let incarnation = self.api.0.incarnation;
        // Another process's verdicts have another history: a token is good here only.
        let token = Token::new(
            scope::TOKEN,
            self.hash,
            incarnation,
            incarnation,
            positions.collect(),
        );
        let kinds = self
            .parts
            .iter()
            .map(|(case, position, _)| case.described(position.revision));
        proto::ReadinessListEnd {
            token: token.encode_to_bytes(),
            count: self.count,
            kinds: kinds.collect(),
        }
    }
}
