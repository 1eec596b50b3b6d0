//! The services as a client sees them, over a shard that the test writes. In one process and without sockets,
//! so that time can be paused.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use super::{cache::CacheService, *};
use crate::{
    cache::{Cause, History, Identity, Kind, Limits, Phase, Unreadable, Writer, kind},
    object::{Decoder, Key, Object, PruneRules, Pruner, Selectable},
    proof::Ask,
    proto::{
        self, DeleteCause, Event, EventType, Mark, MarkType, Scope, View, WatchObjectsRequest,
        WatchObjectsResponse, cache_service_client::CacheServiceClient,
    },
};

mod ahead;
mod digests;
mod guarded;
mod limited;
mod reads;
mod resuming;
mod through;
mod told;
mod watches;

type Client = CacheServiceClient<CacheService>;

/// A kind in one shard, or in several, and the services over it.
struct Fixture {
    writers: Vec<Writer<Object>>,
    kind: Arc<Kind>,
    decoder: Decoder,
    api: Api,
    shutdown: Shutdown,
}

impl Fixture {
    fn new() -> Self {
        Self::sharded(&[""], Limits::default())
    }

    fn sharded(namespaces: &[&str], limits: Limits) -> Self {
        Self::build(namespaces, limits, false)
    }

    fn build(namespaces: &[&str], limits: Limits, metadata_only: bool) -> Self {
        let writers: Vec<_> = namespaces
            .iter()
            .map(|namespace| Writer::new(namespace, limits, now()))
            .collect();
        let shards = writers
            .iter()
            .map(|writer| writer.shard().clone())
            .collect();
        let kind = Arc::new(Kind::new("pods", true, metadata_only, 7, shards));
        let selectable = Selectable::builtin("", "pods");
        let pruner = Pruner::new(&PruneRules::default()).unwrap();
        let decoder = Decoder::new("v1", "Pod", true, &pruner, &selectable);
        let shutdown = Shutdown::new();
        let fixture = Self {
            api: Api::new(
                Catalog::new(vec![kind.clone()]),
                Settings::default(),
                shutdown.clone(),
            ),
            writers,
            kind,
            decoder,
            shutdown,
        };
        fixture.kind.set_identity(kind::tests::pods());
        fixture
    }

    /// With this many pods, listed at revision 100.
    fn with_pods(count: usize) -> Self {
        let mut fixture = Self::new();
        let pods = (0..count)
            .map(|n| fixture.pod("default", &format!("web-{n:03}"), 1, "web"))
            .collect();
        fixture.list(0, pods, 100);
        fixture
    }

    fn pod(&self, namespace: &str, name: &str, version: u64, app: &str) -> Arc<Object> {
        let json = serde_json::json!({
            "metadata": {
                "name": name, "namespace": namespace, "uid": format!("uid-{name}"),
                "resourceVersion": version.to_string(), "labels": {"app": app},
            },
            "spec": {"nodeName": format!("node-{app}"), "containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running"},
        });
        Arc::new(
            self.decoder
                .decode(json.to_string().as_bytes(), 42)
                .unwrap(),
        )
    }

    fn list(&mut self, shard: usize, pods: Vec<Arc<Object>>, revision: u64) {
        self.writers[shard].replace(pods, &Unreadable::default(), revision, History::Same, now());
        self.writers[shard].set_status(Phase::Live, "", "");
    }

    fn upsert(&mut self, name: &str, revision: u64, app: &str) {
        let pod = self.pod("default", name, revision, app);
        self.writers[0].upsert(pod, revision);
        self.writers[0].publish(now());
    }

    fn delete(&mut self, name: &str, revision: u64) {
        self.writers[0].delete(&Key::new("default", name), None, revision, Cause::Deleted);
        self.writers[0].publish(now());
    }

    /// The same with an API server that can be asked.
    fn asking(mut self, server: impl Ask) -> Self {
        let none: [&str; 0] = [];
        let board = Board::new(none, Limits::default());
        let catalog = Catalog::new(vec![self.kind.clone()]);
        let (settings, shutdown) = (Settings::default(), self.shutdown.clone());
        let prover = Arc::new(Prover::new(Arc::new(server)));
        self.api = Api::with_board(
            catalog,
            board,
            None,
            Some(prover),
            settings,
            Access::Open,
            shutdown,
        );
        self
    }

    fn client(&self) -> Client {
        CacheServiceClient::new(CacheService::new(self.api.clone()))
            .max_decoding_message_size(64 << 20)
    }

    async fn watch(&self, request: WatchObjectsRequest) -> Folded {
        self.try_watch(request).await.unwrap()
    }

    async fn try_watch(
        &self,
        request: impl tonic::IntoRequest<WatchObjectsRequest>,
    ) -> Result<Folded, Status> {
        let stream = self.client().watch_objects(request).await?.into_inner();
        Ok(Folded {
            stream,
            held: BTreeMap::new(),
            incoming: None,
            token: Vec::new(),
            revision: 0,
        })
    }
}

/// A stream and what a consumer has of it.
struct Folded {
    stream: Streaming<WatchObjectsResponse>,
    held: BTreeMap<String, Event>,
    incoming: Option<BTreeMap<String, Event>>,
    token: Vec<u8>,
    revision: u64,
}

impl Folded {
    /// All events up to the next mark, and the mark.
    async fn next(&mut self) -> (Vec<Event>, Mark) {
        self.try_next().await.expect("the stream goes on")
    }

    async fn try_next(&mut self) -> Result<(Vec<Event>, Mark), Status> {
        let mut events = Vec::new();
        loop {
            let message = self.stream.message().await?;
            let message = message.ok_or_else(|| Status::ok("the end"))?;
            for event in message.events {
                self.fold(&event);
                events.push(event);
            }
            let Some(mark) = message.mark else { continue };
            match mark.r#type() {
                MarkType::Reset => {
                    self.incoming = Some(BTreeMap::new());
                    self.revision = 0;
                    assert!(mark.token.is_empty());
                }
                MarkType::ResetEnd => self.held = self.incoming.take().expect("it began"),
                _ => {}
            }
            if !mark.token.is_empty() {
                assert!(self.incoming.is_none(), "no token inside a reset");
                self.token = mark.token.to_vec();
            }
            return Ok((events, mark));
        }
    }

    fn fold(&mut self, event: &Event) {
        assert!(event.revision >= self.revision, "Ordered");
        self.revision = event.revision;
        let key = format!("{}/{}", event.namespace, event.name);
        let held = self.incoming.as_mut().unwrap_or(&mut self.held);
        match event.r#type() {
            EventType::Upsert => drop(held.insert(key, event.clone())),
            EventType::Delete => {
                let old = held.remove(&key).expect("a DELETE is of what is held");
                assert_eq!(old.uid, event.uid);
            }
            EventType::Unspecified => panic!("an event without a type"),
        }
    }

    /// The initial state.
    async fn initial(&mut self) {
        let (_, mark) = self.next().await;
        assert_eq!(mark.r#type(), MarkType::Reset);
        loop {
            if self.next().await.1.r#type() == MarkType::ResetEnd {
                return;
            }
        }
    }

    fn names(&self) -> Vec<&str> {
        self.held
            .values()
            .map(|event| event.name.as_str())
            .collect()
    }
}

fn pods() -> Scope {
    Scope {
        resource: "pods".into(),
        ..Default::default()
    }
}

fn all_pods() -> WatchObjectsRequest {
    WatchObjectsRequest {
        scope: Some(pods()),
        ..Default::default()
    }
}

fn labelled(app: &str) -> WatchObjectsRequest {
    WatchObjectsRequest {
        scope: Some(Scope {
            label_selector: format!("app={app}"),
            ..pods()
        }),
        ..Default::default()
    }
}

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details
        .error_info()
        .map_or_else(String::new, |info| info.reason.clone())
}
