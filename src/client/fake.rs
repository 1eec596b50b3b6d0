//! An informerd for tests: says what it was scripted to say, on loopback, and notes what it was asked.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{StreamExt, stream, stream::BoxStream};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt};

use crate::proto::{
    cache_service_server::{CacheService, CacheServiceServer},
    introspection_service_server::{IntrospectionService, IntrospectionServiceServer},
    readiness_service_server::{ReadinessService, ReadinessServiceServer},
    *,
};

/// One streaming call: what it sends, and how it ends.
pub(crate) type StreamScript<T> = (Vec<T>, End);
/// One call to WatchObjects.
pub(crate) type WatchScript = StreamScript<WatchObjectsResponse>;

#[derive(Clone, Debug)]
pub(crate) enum End {
    /// Nothing more is sent.
    Hang,
    /// The call ends with OK.
    Close,
    /// The call ends with this.
    Fail(Status),
}

/// The script, and what was asked.
#[derive(Default)]
pub(crate) struct Script {
    pub get: Option<Result<GetObjectResponse, Status>>,
    pub list: Vec<ListObjectsResponse>,
    pub watches: VecDeque<WatchScript>,
    pub kinds: Vec<KindStatus>,
    pub consumers: Vec<Consumer>,
    pub verdicts: Vec<Verdict>,
    pub verdict_watches: VecDeque<StreamScript<WatchReadinessResponse>>,
    pub waits: VecDeque<StreamScript<WaitReadinessResponse>>,
    /// Refuses whole objects.
    pub metadata_only: bool,
    pub asked_get: Vec<GetObjectRequest>,
    pub asked_list: Vec<ListObjectsRequest>,
    pub asked_watch: Vec<WatchObjectsRequest>,
    pub asked_verdicts: Vec<ListReadinessRequest>,
    pub asked_waits: Vec<WaitReadinessRequest>,
}

#[derive(Clone, Default)]
pub(crate) struct Fake {
    pub script: Arc<Mutex<Script>>,
}

impl Script {
    fn refuse(&self, view: View) -> Result<(), Status> {
        if !self.metadata_only || matches!(view, View::Metadata | View::Keys) {
            return Ok(());
        }
        let details = ErrorDetails::with_error_info("METADATA_ONLY", "informerd", []);
        let text = "view: only metadata is cached";
        Err(Status::with_error_details(
            Code::FailedPrecondition,
            text,
            details,
        ))
    }
}

impl Fake {
    pub(crate) fn new(script: Script) -> Self {
        Self {
            script: Arc::new(Mutex::new(script)),
        }
    }

    /// Serves until the runtime ends.
    pub(crate) async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("is bound");
        let server = Server::builder()
            .add_service(CacheServiceServer::new(self.clone()))
            .add_service(IntrospectionServiceServer::new(self.clone()))
            .add_service(ReadinessServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }

    fn with<T>(&self, f: impl FnOnce(&mut Script) -> T) -> T {
        f(&mut self
            .script
            .lock()
            .expect("no test panics while it holds the lock"))
    }

    pub(crate) fn watches_asked(&self) -> Vec<WatchObjectsRequest> {
        self.with(|script| script.asked_watch.clone())
    }
}

#[tonic::async_trait]
impl CacheService for Fake {
    type ListObjectsStream = BoxStream<'static, Result<ListObjectsResponse, Status>>;
    type WatchObjectsStream = BoxStream<'static, Result<WatchObjectsResponse, Status>>;

    async fn get_object(
        &self,
        request: Request<GetObjectRequest>,
    ) -> Result<Response<GetObjectResponse>, Status> {
        self.with(|script| {
            script.refuse(request.get_ref().view())?;
            script.asked_get.push(request.into_inner());
            script
                .get
                .clone()
                .unwrap_or(Err(Status::unimplemented("no get")))
                .map(Response::new)
        })
    }

    async fn list_objects(
        &self,
        request: Request<ListObjectsRequest>,
    ) -> Result<Response<Self::ListObjectsStream>, Status> {
        let pages = self.with(|script| {
            script.refuse(request.get_ref().view())?;
            script.asked_list.push(request.into_inner());
            Ok::<_, Status>(script.list.clone())
        })?;
        Ok(Response::new(stream::iter(pages).map(Ok).boxed()))
    }

    async fn watch_objects(
        &self,
        request: Request<WatchObjectsRequest>,
    ) -> Result<Response<Self::WatchObjectsStream>, Status> {
        let (messages, end) = self.with(|script| {
            script.refuse(request.get_ref().view())?;
            script.asked_watch.push(request.into_inner());
            let watch = script.watches.pop_front();
            Ok::<_, Status>(watch.unwrap_or((Vec::new(), End::Hang)))
        })?;
        Ok(played(messages, end))
    }
}

type Stream<T> = BoxStream<'static, Result<T, Status>>;

/// A streaming call that goes by the script.
fn played<T: Send + 'static>(messages: Vec<T>, end: End) -> Response<Stream<T>> {
    let messages = stream::iter(messages).map(Ok);
    Response::new(match end {
        End::Hang => messages.chain(stream::pending()).boxed(),
        End::Close => messages.boxed(),
        End::Fail(status) => messages.chain(stream::iter([Err(status)])).boxed(),
    })
}

#[tonic::async_trait]
impl ReadinessService for Fake {
    type ListReadinessStream = Stream<ListReadinessResponse>;
    type WatchReadinessStream = Stream<WatchReadinessResponse>;
    type WaitReadinessStream = Stream<WaitReadinessResponse>;

    async fn get_readiness(
        &self,
        _: Request<GetReadinessRequest>,
    ) -> Result<Response<GetReadinessResponse>, Status> {
        Err(Status::unimplemented("no verdict"))
    }

    async fn list_readiness(
        &self,
        request: Request<ListReadinessRequest>,
    ) -> Result<Response<Self::ListReadinessStream>, Status> {
        let verdicts = self.with(|script| {
            script.asked_verdicts.push(request.into_inner());
            script.verdicts.clone()
        });
        let end = ReadinessListEnd {
            token: "listed".into(),
            count: verdicts.len() as u64,
            ..ReadinessListEnd::default()
        };
        let page = ListReadinessResponse {
            verdicts,
            end: Some(end),
        };
        Ok(played(vec![page], End::Close))
    }

    async fn watch_readiness(
        &self,
        _: Request<WatchReadinessRequest>,
    ) -> Result<Response<Self::WatchReadinessStream>, Status> {
        let call = self.with(|script| script.verdict_watches.pop_front());
        let (messages, end) = call.unwrap_or((Vec::new(), End::Hang));
        Ok(played(messages, end))
    }

    async fn wait_readiness(
        &self,
        request: Request<WaitReadinessRequest>,
    ) -> Result<Response<Self::WaitReadinessStream>, Status> {
        let call = self.with(|script| {
            script.asked_waits.push(request.into_inner());
            script.waits.pop_front()
        });
        let (messages, end) = call.unwrap_or((Vec::new(), End::Hang));
        Ok(played(messages, end))
    }
}

#[tonic::async_trait]
impl IntrospectionService for Fake {
    async fn list_kinds(
        &self,
        _: Request<ListKindsRequest>,
    ) -> Result<Response<ListKindsResponse>, Status> {
        let kinds = self.with(|script| script.kinds.clone());
        Ok(Response::new(ListKindsResponse { kinds }))
    }

    async fn list_consumers(
        &self,
        _: Request<ListConsumersRequest>,
    ) -> Result<Response<ListConsumersResponse>, Status> {
        let consumers = self.with(|script| script.consumers.clone());
        Ok(Response::new(ListConsumersResponse { consumers }))
    }
}

/// A TCP forwarder whose connections can be cut.
pub(crate) struct Proxy {
    pub address: SocketAddr,
    /// How many there have been.
    pub accepted: Arc<AtomicUsize>,
    connections: Arc<Mutex<JoinSet<()>>>,
}

impl Proxy {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("is bound");
        let connections = Arc::new(Mutex::new(JoinSet::new()));
        let accepted = Arc::new(AtomicUsize::new(0));
        let (open, count) = (connections.clone(), accepted.clone());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                open.lock().expect("not poisoned").spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(server).await {
                        // It ends by a cut; how makes no difference.
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self {
            address,
            accepted,
            connections,
        }
    }

    pub(crate) fn cut(&self) {
        self.connections.lock().expect("not poisoned").abort_all();
    }
}

pub(crate) fn scope(resource: &str) -> Option<Scope> {
    Some(Scope {
        resource: resource.into(),
        ..Scope::default()
    })
}

/// An object that says only who it is.
pub(crate) fn object(namespace: &str, name: &str, uid: &str, version: &str) -> Object {
    Object {
        namespace: namespace.into(),
        name: name.into(),
        uid: uid.into(),
        resource_version: version.into(),
        ..Object::default()
    }
}

pub(crate) fn upsert(object: Object) -> Event {
    Event {
        r#type: EventType::Upsert.into(),
        revision: object.resource_version.parse().unwrap_or_default(),
        namespace: object.namespace,
        name: object.name,
        uid: object.uid,
        resource_version: object.resource_version,
        object: object.object,
        stale: object.stale,
        ..Event::default()
    }
}

pub(crate) fn delete(namespace: &str, name: &str, uid: &str, revision: u64) -> Event {
    Event {
        r#type: EventType::Delete.into(),
        cause: DeleteCause::Deleted.into(),
        revision,
        namespace: namespace.into(),
        name: name.into(),
        uid: uid.into(),
        ..Event::default()
    }
}

pub(crate) fn events(events: impl IntoIterator<Item = Event>) -> WatchObjectsResponse {
    WatchObjectsResponse {
        events: events.into_iter().collect(),
        mark: None,
    }
}

/// A message with nothing but a mark; no token if `token` is empty.
pub(crate) fn mark(kind: MarkType, token: &str) -> WatchObjectsResponse {
    let mark = Mark {
        r#type: kind.into(),
        token: token.to_owned().into(),
        freshness: Some(live()),
        reason: if kind == MarkType::Reset {
            "INITIAL".into()
        } else {
            String::new()
        },
        ..Mark::default()
    };
    WatchObjectsResponse {
        events: Vec::new(),
        mark: Some(mark),
    }
}

/// RESET or RESET_END of some namespaces.
pub(crate) fn shard_mark(kind: MarkType, token: &str, namespace: &str) -> WatchObjectsResponse {
    let mut message = mark(kind, token);
    if let Some(mark) = &mut message.mark {
        mark.namespaces = vec![namespace.into()];
    }
    message
}

pub(crate) fn live() -> Freshness {
    Freshness {
        state: KindState::Live.into(),
        ..Freshness::default()
    }
}
