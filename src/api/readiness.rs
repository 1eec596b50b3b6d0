//! ReadinessService: what the controllers think of things, read from the board.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt, future::BoxFuture, stream};
use prost::Message;
use tonic::{Request, Response, Status};

use super::{
    Api, Error,
    access::{Access, Admitted, Asking},
    consumers::{Asked, Caller},
    freshness, now,
    token::{Token, TokenPosition},
    wait,
};
use crate::{
    auth::Verb,
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
mod sight;
#[cfg(test)]
mod tests;
mod waiting;
mod watch;

use scope::{Cases, Selection};
use sight::Sight;

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
        let kind = super::query::find_kind(api, &scope)?;
        let judged = api.0.board.kind(&kind.name).cloned();
        let judged = judged.ok_or_else(|| {
            let names = api.0.board.kinds().map(|judged| judged.name());
            Error::NotJudged {
                resource: kind.name.clone(),
                judged: match api.0.access {
                    Access::Open | Access::Limited(_) => names.collect::<Vec<_>>().join(", "),
                    Access::Guarded { .. } => String::new(),
                },
            }
        })?;
        Ok(Self { kind, judged })
    }

    /// Whether it is what the caller was admitted to.
    fn check(&self, admitted: &Admitted, asked: &str) -> Result<(), Error> {
        match self.kind.identity() {
            Some(identity) => admitted.check(asked, &identity),
            None if admitted.is_everybody() => Ok(()),
            // What nobody can name yet nobody can be admitted to.
            None => Err(Error::not_synced(
                &self.kind.name,
                self.kind.phase(),
                "the API server does not serve it yet",
            )),
        }
    }

    /// The kind's full name, where it is known.
    fn resource(&self) -> String {
        let identity = self.kind.identity();
        identity.map_or_else(|| self.kind.name.clone(), |identity| identity.resource())
    }

    fn freshness(&self) -> proto::Freshness {
        let shards = self.kind.shards().iter().map(|shard| (shard, None));
        freshness::of(&self.kind, shards, freshness::no_digest, now())
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
        let asking = Asking::of(request.extensions());
        let target = request.into_inner().target.unwrap_or_default();
        let admitted = admit_target(&self.0, &asking, Verb::Get, &target).await?;
        let case = Case::find(&self.0, "target.resource", &target.resource)?;
        let key = key(&target, &case.kind, ["target.namespace", "target.name"])?;
        case.complete(until).await?;
        case.check(&admitted, &target.resource)?;
        let mut verdict = match case.judged.get(&key) {
            Some(verdict) => shown::verdict(&verdict, &self.0.0.board),
            None => shown::absent(&case, &key),
        };
        let mut sight = Sight::new(&self.0, admitted);
        sight.shorten(&mut verdict).await;
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
        let caller = caller(&request);
        let asking = Asking::of(request.extensions());
        let scope = request.into_inner().scope.unwrap_or_default();
        let mut admitted = admit_scope(&self.0, &asking, Verb::List, &scope).await?;
        let snapshot = asking.snapshot()?;
        let cases = Cases::find(&self.0, &scope)?;
        for case in &cases.all {
            case.complete(until).await?;
            case.check(&admitted, case.judged.name())?;
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
        let held = admitted.hold();
        let sight = Sight::new(&self.0, admitted);
        let consumers = self.0.consumers();
        let registration = consumers.enter("ListReadiness", caller, None, asked(scope));
        let parts = (list, sight, held, snapshot, registration);
        let messages = stream::unfold(Some(parts), |parts| async {
            let (mut list, mut sight, held, snapshot, registration) = parts?;
            if let Some(error) = held.over() {
                registration.consumer.ends(error.reason());
                return Some((Err(error.into()), None));
            }
            let mut message = list.next_message();
            for verdict in &mut message.verdicts {
                sight.shorten(verdict).await;
            }
            registration.consumer.sent(message.verdicts.len(), 0);
            if let Some(snapshot) = &snapshot {
                snapshot.made(message.encoded_len());
            }
            let over = message.end.is_some();
            let parts = (list, sight, held, snapshot, registration);
            Some((Ok(message), (!over).then_some(parts)))
        });
        Ok(Response::new(messages.boxed()))
    }

    type WatchReadinessStream = Answers<proto::WatchReadinessResponse>;

    async fn watch_readiness(
        &self,
        request: Request<proto::WatchReadinessRequest>,
    ) -> Result<Response<Self::WatchReadinessStream>, Status> {
        let caller = caller(&request);
        let asking = Asking::of(request.extensions());
        let request = request.into_inner();
        let scope = request.scope.clone().unwrap_or_default();
        let admitted = admit_scope(&self.0, &asking, Verb::Watch, &scope).await?;
        let watch = watch::Watch::new(&self.0, request, caller, asking, admitted)?;
        Ok(Response::new(watch.messages().boxed()))
    }

    type WaitReadinessStream = Answers<proto::WaitReadinessResponse>;

    async fn wait_readiness(
        &self,
        request: Request<proto::WaitReadinessRequest>,
    ) -> Result<Response<Self::WaitReadinessStream>, Status> {
        let deadline = wait::deadline(request.metadata().as_ref());
        let caller = caller(&request);
        let asking = Asking::of(request.extensions());
        let request = request.into_inner();
        waiting::limit(&request)?;
        let mut admitted = Vec::new();
        for asked in &request.targets {
            let target = asked.target.clone().unwrap_or_default();
            admitted.push(admit_target(&self.0, &asking, Verb::Watch, &target).await?);
        }
        let waiting = waiting::Waiting::new(&self.0, request, deadline, admitted, caller)?;
        Ok(Response::new(waiting.answers().boxed()))
    }
}

/// Who calls.
fn caller<T>(request: &Request<T>) -> Caller {
    let user_agent = request.metadata().get("user-agent");
    let user_agent = user_agent.and_then(|value| value.to_str().ok());
    super::caller(request.extensions(), user_agent)
}

/// What is asked for, for those who want to know who reads.
fn asked(scope: proto::ReadinessScope) -> Asked {
    Asked {
        scope: proto::Scope {
            resource: scope.resources.join(","),
            namespaces: scope.namespaces,
            name: scope.names.join(","),
            label_selector: scope.label_selector,
            field_selector: String::new(),
        },
        view: proto::View::Full.into(),
        fields: Vec::new(),
    }
}

/// Whether the caller may do this to one target.
async fn admit_target(
    api: &Api,
    asking: &Asking,
    verb: Verb,
    target: &proto::Target,
) -> Result<Admitted, Error> {
    let namespace = Some(&target.namespace).filter(|namespace| !namespace.is_empty());
    let scope = proto::Scope {
        resource: target.resource.clone(),
        namespaces: namespace.into_iter().cloned().collect(),
        name: target.name.clone(),
        ..Default::default()
    };
    api.admit(asking, verb, &scope).await
}

/// Whether the caller may do this to all kinds of a scope: those that it names, or all that are judged.
async fn admit_scope(
    api: &Api,
    asking: &Asking,
    verb: Verb,
    scope: &proto::ReadinessScope,
) -> Result<Admitted, Error> {
    scope::limit("scope.resources", scope.resources.len())?;
    let mut resources = scope.resources.clone();
    if resources.is_empty() {
        let judged = api.catalog().iter();
        let judged = judged.filter(|kind| api.0.board.kind(&kind.name).is_some());
        resources = judged
            .map(|kind| match kind.identity() {
                Some(identity) => identity.resource(),
                None => kind.name.clone(),
            })
            .collect();
    }
    if matches!(api.0.access, Access::Guarded { .. }) {
        // Each is a question to the API server.
        let questions = resources.len() * scope.namespaces.len();
        scope::limit("scope.namespaces (for each kind)", questions)?;
    }
    let mut all = Admitted::default();
    for resource in resources {
        let scope = proto::Scope {
            resource,
            namespaces: scope.namespaces.clone(),
            name: String::new(),
            label_selector: scope.label_selector.clone(),
            field_selector: String::new(),
        };
        all = all.and(api.admit(asking, verb, &scope).await?);
    }
    Ok(all)
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
