//! What the daemon tells of itself.

use std::{collections::HashMap, sync::atomic::Ordering};

use tonic::{Request, Response, Status};

use super::{
    Api,
    access::{self, Asking},
    freshness, now, query,
};
use crate::{
    cache::Kind,
    proto::{
        self,
        introspection_service_server::{IntrospectionService, IntrospectionServiceServer},
    },
};

/// The service, ready to be added to a server.
pub fn service(api: Api) -> IntrospectionServiceServer<Introspection> {
    IntrospectionServiceServer::new(Introspection::new(api))
        .max_decoding_message_size(super::MAX_REQUEST)
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Introspection(Api);

impl Introspection {
    /// Of these services.
    pub fn new(api: Api) -> Self {
        Self(api)
    }
}

#[tonic::async_trait]
impl IntrospectionService for Introspection {
    async fn list_kinds(
        &self,
        request: Request<proto::ListKindsRequest>,
    ) -> Result<Response<proto::ListKindsResponse>, Status> {
        let asking = Asking::of(request.extensions());
        self.0.admit_path(&asking, access::KINDS).await?;
        let kinds = self.0.catalog().iter().map(|kind| {
            let consumers = self.0.consumers().count(kind);
            describe(kind, consumers.try_into().unwrap_or(u32::MAX))
        });
        Ok(Response::new(proto::ListKindsResponse {
            kinds: kinds.collect(),
        }))
    }

    async fn list_consumers(
        &self,
        request: Request<proto::ListConsumersRequest>,
    ) -> Result<Response<proto::ListConsumersResponse>, Status> {
        let asking = Asking::of(request.extensions());
        self.0.admit_path(&asking, access::CONSUMERS).await?;
        let resource = request.into_inner().resource;
        let kind = match resource.as_str() {
            "" => None,
            resource => Some(query::named(&self.0, resource)?),
        };
        let wanted = |consumer: &&std::sync::Arc<super::consumers::Consumer>| {
            kind.is_none_or(|kind| {
                let own = consumer.kind();
                own.is_some_and(|own| std::sync::Arc::ptr_eq(kind, own))
            })
        };
        let consumers = self.0.consumers().list();
        let consumers = consumers
            .iter()
            .filter(wanted)
            .map(|consumer| consumer.describe(now()));
        Ok(Response::new(proto::ListConsumersResponse {
            consumers: consumers.collect(),
        }))
    }
}

fn describe(kind: &Kind, consumers: u32) -> proto::KindStatus {
    let now = now();
    let identity = kind.identity();
    let states: Vec<_> = kind
        .shards()
        .iter()
        .map(|shard| (shard, shard.state()))
        .collect();
    let positions = states
        .iter()
        .map(|(shard, state)| (*shard, state.as_ref().map(|state| state.position())));
    let mut status = proto::KindStatus {
        resource: kind.name.clone(),
        freshness: Some(freshness::of(
            kind,
            positions,
            |_, position| Some(position.digest),
            now,
        )),
        consumers,
        label_selector: kind.label_selector.clone(),
        field_selector: kind.field_selector.clone(),
        metadata_only: kind.metadata_only,
        ..Default::default()
    };
    if let Some(identity) = identity {
        status.resource = identity.resource();
        status.api_version = identity.api_version();
        status.kind = identity.kind.clone();
        status.namespaced = identity.namespaced;
        status.aliases = identity.short_names.clone();
        status.aliases.push(identity.singular.clone());
    }
    let mut relists: HashMap<String, u64> = HashMap::new();
    let mut since = None;
    let mut span = None;
    for (shard, state) in &states {
        let shard_status = shard.status();
        let counters = &shard.counters;
        for (cause, count) in counters.relists() {
            *relists.entry(cause.to_owned()).or_default() += count;
        }
        status.watches_opened += counters.watches_opened.load(Ordering::Relaxed);
        let open = counters.watches_open.load(Ordering::Relaxed);
        status.watches_open += u32::try_from(open).unwrap_or(u32::MAX);
        status.undecodable += counters.undecodable.load(Ordering::Relaxed);
        status.digest_mismatches += counters.digest_mismatches.load(Ordering::Relaxed);
        if shard_status.phase == kind.phase() {
            since = since.max(Some(shard_status.since));
        }
        let mut of_shard = proto::ShardStatus {
            namespace: shard.namespace().to_owned(),
            state: freshness::state(shard_status.phase).into(),
            reason: shard_status.reason.clone(),
            message: shard_status.message.clone(),
            since: Some(shard_status.since.into()),
            ..Default::default()
        };
        if let Some(state) = state {
            status.objects += state.objects.len() as u64;
            status.object_bytes += state.bytes as u64;
            status.journal_entries += state.journal.len() as u64;
            status.journal_bytes += state.journal.bytes() as u64;
            if let Some(oldest) = state.journal.oldest() {
                span = span.max(Some(now.saturating_duration_since(oldest)));
            }
            of_shard.revision = state.revision;
            of_shard.digest = state.digest;
            of_shard.objects = state.objects.len() as u64;
        }
        status.shards.push(of_shard);
    }
    status.journal_span = span.and_then(super::duration);
    status.relists = relists;
    status.since = since.map(Into::into);
    status
}
