//! Handshakes: in the background, so many at once and no longer than a few seconds each, so that nobody who
//! connects and says nothing keeps others out.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::reload::Tls;
use crate::connections::{Connections, Socket};

/// Bounds of handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At once, of those that have begun: who connects and says nothing is none.
    pub at_once: usize,
    /// Of them, by one address.
    pub of_one: usize,
    /// How long one is left alone. Whoever comes beyond takes the place of the one that has been under way for
    /// longest, of the address that has most, if it has been for so long; else it is refused: its client tries again,
    /// and what is under way gets done.
    pub keep: Duration,
    /// How long one may take.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            at_once: 256,
            of_one: 32,
            keep: Duration::from_secs(1),
            patience: Duration::from_secs(10),
        }
    }
}

/// Makes connections that were accepted secure. Clones share the limits.
#[derive(Clone, Debug)]
pub struct Acceptor {
    tls: Tls,
    under_way: Connections,
    keep: Duration,
    patience: Duration,
}

/// Why there is no connection.
enum Failure {
    /// Too many at once.
    Refused,
    Failed(io::Error),
}

impl Acceptor {
    /// With the certificates that are in use at each handshake.
    pub fn new(tls: Tls, limits: Limits) -> Self {
        Self {
            tls,
            under_way: Connections::new(limits.at_once, limits.of_one),
            keep: limits.keep,
            patience: limits.patience,
        }
    }

    /// A handshake; nothing where it failed, which has been counted.
    pub async fn accept(&self, stream: Socket) -> Option<Secured> {
        let count = |result: &'static str| {
            metrics::counter!("informerd_tls_handshakes_total", "result" => result).increment(1);
        };
        // Gone again where it has no address.
        let peer = stream.peer_addr().ok()?;
        match timeout(self.patience, self.shake_hands(stream, peer.ip())).await {
            Ok(Ok(stream)) => {
                count("done");
                Some(Secured(Box::new(stream)))
            }
            Ok(Err(Failure::Refused)) => {
                count("refused");
                None
            }
            Ok(Err(Failure::Failed(error))) => {
                count("failed");
                tracing::debug!(%peer, %error, "a TLS handshake failed");
                None
            }
            Err(_) => {
                count("timeout");
                None
            }
        }
    }

    async fn shake_hands(
        &self,
        stream: Socket,
        peer: IpAddr,
    ) -> Result<TlsStream<Socket>, Failure> {
        stream.said().await.map_err(Failure::Failed)?;
        let (place, _) = self.under_way.claim(peer, self.keep);
        let place = place.ok_or(Failure::Refused)?;
        let handshake = TlsAcceptor::from(self.tls.server()).accept(stream);
        let shaken = place.cut().run_until_cancelled(handshake).await;
        shaken.ok_or(Failure::Refused)?.map_err(Failure::Failed)
    }
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Secured(Box<TlsStream<Socket>>);

impl Secured {
    /// The client's certificate and those that lead from it to the authority; empty where it has none. Verified.
    pub fn client_chain(&self) -> Vec<CertificateDer<'static>> {
        let (_, connection) = self.0.get_ref();
        let chain = connection.peer_certificates().unwrap_or_default();
        chain.to_vec()
    }

    /// What was agreed on to speak over it: `h2`, `http/1.1`, or nothing.
    pub fn protocol(&self) -> &[u8] {
        self.0.get_ref().1.alpn_protocol().unwrap_or_default()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "accept_tests.rs"]
mod tests;
