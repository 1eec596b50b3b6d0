//! How a node is reached: TCP, TLS over it, or whatever a test puts in its place.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::evidence::Failure;

/// A connection to a node.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Opens connections to nodes.
pub trait Connect: Send + Sync + fmt::Debug {
    /// Connects. Dropping the future gives up; how long it may take is the caller's business.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, Result<Box<dyn Stream>, Failure>>;
}

/// Over TCP, with TLS where configured.
#[derive(Clone, Debug, Default)]
pub struct Network {
    tls: Option<Tls>,
}

/// How nodes prove who they are. All nodes of a cluster share one name: pods' IPs are in no certificate.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// A TLS name that is none.
#[derive(Debug, thiserror::Error)]
#[error("the TLS name {0:?} is not a host name; write what the servers' certificates are for")]
pub struct TlsNameError(String);

impl Tls {
    /// `config` says whom to trust and which certificate to show; `name` is Aerospike's `tls-name`.
    ///
    /// # Errors
    ///
    /// The name is neither a host name nor an address.
    pub fn new(config: Arc<ClientConfig>, name: &str) -> Result<Self, TlsNameError> {
        let parsed = ServerName::try_from(name.to_owned());
        let name = parsed.map_err(|_| TlsNameError(name.to_owned()))?;
        Ok(Self { config, name })
    }
}

impl Network {
    /// Plain TCP.
    pub fn plain() -> Self {
        Self::default()
    }

    /// TLS.
    pub fn tls(tls: Tls) -> Self {
        Self { tls: Some(tls) }
    }
}

impl Connect for Network {
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, Result<Box<dyn Stream>, Failure>> {
        let tls = self.tls.clone();
        async move {
            let stream = TcpStream::connect(address).await.map_err(Failure::from)?;
            // One small request at a time: waiting to fill a packet only delays it.
            stream.set_nodelay(true).map_err(Failure::from)?;
            let Some(Tls { config, name }) = tls else {
                return Ok(Box::new(stream) as Box<dyn Stream>);
            };
            let secured = TlsConnector::from(config).connect(name, stream).await;
            let secured = secured.map_err(|error| Failure::Tls(error.to_string()))?;
            Ok(Box::new(secured) as Box<dyn Stream>)
        }
        .boxed()
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            _ => Self::Broken(error.to_string()),
        }
    }
}
