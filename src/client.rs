//! A client of informerd: single reads, lists, and watches that resume by themselves.
//!
//! ```no_run
//! use futures::StreamExt;
//! use informerd::client::{Client, Mirror};
//! use informerd::proto::{Scope, WatchObjectsRequest};
//!
//! # async fn example() -> Result<(), informerd::client::Error> {
//! let client = Client::connect("127.0.0.1:7443")?;
//! let scope = Scope { resource: "pods".into(), ..Scope::default() };
//! let mut watch = client.watch(WatchObjectsRequest { scope: Some(scope), ..Default::default() });
//! let mut pods = Mirror::new();
//! while let Some(event) = watch.next().await {
//!     for change in pods.apply(&event?) {
//!         println!("{change:?}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Requests are the protos' own messages: a second set of types would only have to be kept equal to them.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use tonic::{
    Status,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use crate::proto::{
    Consumer, Freshness, GetObjectRequest, KindStatus, ListConsumersRequest, ListKindsRequest,
    ListObjectsRequest, ListObjectsResponse, Object, WatchObjectsRequest,
    cache_service_client::CacheServiceClient,
    introspection_service_client::IntrospectionServiceClient,
};

mod backoff;
mod credentials;
mod error;
mod ledger;
mod mirror;
mod readiness;
mod watch;

pub use backoff::Backoff;
pub use credentials::Credentials;
pub use error::{Error, Refusal, Violation};
pub use mirror::{Change, Mirror, Objects};
pub use watch::{Watch, WatchEvent};

use credentials::Bearer;

/// A connection to one informerd; cheap to clone. It connects when first used, and again whenever it must.
///
/// The calls of one `Client` share one HTTP/2 connection and its flow control: a watch that is not read holds up
/// the others. Give a slow consumer a `Client` of its own.
#[derive(Clone, Debug)]
pub struct Client {
    server: Arc<str>,
    dial: Dial,
    bearer: Bearer,
    channel: Wire,
}

/// Makes a channel that connects when it is first used.
#[derive(Clone)]
struct Dial(Arc<dyn Fn() -> Channel + Send + Sync>);

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dial")
    }
}

/// A channel that says who calls.
type Wire = InterceptedService<Channel, Bearer>;

/// A complete list.
#[derive(Clone, Debug)]
pub struct List {
    /// In the order of their keys.
    pub objects: Vec<Object>,
    /// Where a watch with the same scope, view and fields follows on.
    pub token: Bytes,
    /// How well the kind is known.
    pub freshness: Freshness,
}

/// Larger than any message that informerd sends: one object alone may exceed its batches' 4 MiB.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

impl Client {
    /// Prepares a connection to `HOST:PORT` or `http://HOST:PORT`; does not wait for it.
    ///
    /// # Errors
    /// [`Error::Address`].
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn connect(address: &str) -> Result<Self, Error> {
        Self::connect_with(address, &Credentials::default())
    }

    /// The same to a server that asks who calls; `https://HOST:PORT` for a secured connection.
    ///
    /// # Errors
    /// [`Error::Address`].
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn connect_with(address: &str, credentials: &Credentials) -> Result<Self, Error> {
        let refused = |why: &str| Error::Address {
            address: address.into(),
            why: why.into(),
        };
        let (scheme, server) = match address.split_once("://") {
            Some((scheme @ ("http" | "https"), server)) => (scheme, server),
            Some(_) => return Err(refused("it is neither http:// nor https://")),
            None => ("http", address),
        };
        let server = server.trim_end_matches('/');
        let endpoint = Endpoint::from_shared(format!("{scheme}://{server}"))
            .map_err(|_| refused("it cannot be parsed"))?;
        match (endpoint.uri().port_u16(), endpoint.uri().path()) {
            (None | Some(0), _) => return Err(refused("the port is missing")),
            (_, path) if path != "/" => return Err(refused("it has a path")),
            _ => {}
        }
        let host = endpoint.uri().host().unwrap_or_default();
        credentials
            .check(scheme == "https", host)
            .map_err(|why| refused(&why))?;
        let endpoint = endpoint
            .user_agent(concat!("informerd-client/", env!("CARGO_PKG_VERSION")))
            .map_err(|_| refused("it cannot be used"))?
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            // Find a dead connection before a watch's patience ends, and also where no watch is open.
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10))
            // More than one flush in flight on a long round trip.
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        if scheme == "http" {
            let dial = move || endpoint.connect_lazy();
            return Ok(Self::new(server, dial, credentials.bearer()));
        }
        let files = credentials.clone();
        let secured = move || {
            let unusable = |error| format!("its certificates cannot be used: {error:?}");
            endpoint.clone().tls_config(files.tls()?).map_err(unusable)
        };
        let first = secured().map_err(|why| refused(&why))?;
        // By what the files have then: certificates are replaced before they end.
        let dial = move || secured().as_ref().unwrap_or(&first).connect_lazy();
        Ok(Self::new(server, dial, credentials.bearer()))
    }

    /// The same over a transport of the caller's own, such as a Unix socket or a tunnel: `channel` makes a channel that
    /// connects when it is first used, and is called again where one does not come to life any more. `server` is what
    /// errors call the other end.
    pub fn through(server: &str, channel: impl Fn() -> Channel + Send + Sync + 'static) -> Self {
        Self::new(server, channel, Credentials::default().bearer())
    }

    fn new(
        server: &str,
        dial: impl Fn() -> Channel + Send + Sync + 'static,
        bearer: Bearer,
    ) -> Self {
        Self {
            server: server.into(),
            channel: InterceptedService::new(dial(), bearer.clone()),
            dial: Dial(Arc::new(dial)),
            bearer,
        }
    }

    /// Host and port of the server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Reads one object.
    ///
    /// # Errors
    /// [`Error::Refused`] with reason OBJECT_NOT_FOUND or KIND_NOT_CONFIGURED, and others.
    pub async fn get(&self, request: GetObjectRequest) -> Result<(Object, Freshness), Error> {
        let reply = self.cache().get_object(request).await;
        let reply = reply.map_err(|status| self.error(&status))?.into_inner();
        let object = reply
            .object
            .ok_or(Error::Incomplete("the reply has no object"))?;
        Ok((object, reply.freshness.unwrap_or_default()))
    }

    /// Lists the objects of a scope, all of one snapshot.
    pub async fn list(&self, request: ListObjectsRequest) -> Result<List, Error> {
        let mut pages = std::pin::pin!(self.list_pages(request).await?);
        let mut objects = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page?;
            objects.extend(page.objects);
            let Some(end) = page.end else { continue };
            if end.count != objects.len() as u64 {
                return Err(Error::Incomplete("objects of the list are missing"));
            }
            let freshness = end.freshness.unwrap_or_default();
            return Ok(List {
                objects,
                token: end.token,
                freshness,
            });
        }
        Err(Error::Incomplete("the list stopped before its end mark"))
    }

    /// Like [`Client::list`], page by page. The list is complete only with the page that has an `end`.
    pub async fn list_pages(
        &self,
        request: ListObjectsRequest,
    ) -> Result<impl Stream<Item = Result<ListObjectsResponse, Error>> + use<>, Error> {
        let pages = self.cache().list_objects(request).await;
        let pages = pages.map_err(|status| self.error(&status))?.into_inner();
        let server = self.server.clone();
        Ok(pages.map(move |page| page.map_err(|status| Error::from_status(&server, &status))))
    }

    /// Watches a scope, from the request's token or from the initial state on. Opens the call when first polled.
    ///
    /// What it tells is held against the digests of what informerd holds, where the scope has them (docs/digest.md), and
    /// where that differs it begins anew; see [`Watch::mismatches`].
    pub fn watch(&self, request: WatchObjectsRequest) -> Watch {
        let mut client = self.clone();
        let open = move |request: WatchObjectsRequest, stuck: bool| {
            if stuck {
                client.channel = InterceptedService::new((client.dial.0)(), client.bearer.clone());
            }
            let client = client.clone();
            async move {
                let messages = client.cache().watch_objects(request).await;
                let messages = messages
                    .map_err(|status| client.error(&status))?
                    .into_inner();
                Ok(messages
                    .map(move |it| it.map_err(|status| client.error(&status)))
                    .boxed())
            }
            .boxed()
        };
        Watch::new(request, Box::new(open))
    }

    /// The kinds that informerd is configured to watch.
    pub async fn kinds(&self) -> Result<Vec<KindStatus>, Error> {
        let reply = self.introspection().list_kinds(ListKindsRequest {}).await;
        Ok(reply
            .map_err(|status| self.error(&status))?
            .into_inner()
            .kinds)
    }

    /// The open watches and lists; of one kind, or of all if `resource` is empty.
    pub async fn consumers(&self, resource: &str) -> Result<Vec<Consumer>, Error> {
        let request = ListConsumersRequest {
            resource: resource.into(),
        };
        let reply = self.introspection().list_consumers(request).await;
        Ok(reply
            .map_err(|status| self.error(&status))?
            .into_inner()
            .consumers)
    }

    fn cache(&self) -> CacheServiceClient<Wire> {
        CacheServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn introspection(&self) -> IntrospectionServiceClient<Wire> {
        IntrospectionServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn error(&self, status: &Status) -> Error {
        Error::from_status(&self.server, status)
    }
}

#[cfg(test)]
#[path = "client/fake.rs"]
pub(crate) mod fake;

#[cfg(test)]
#[path = "client/client_tests.rs"]
mod tests;
