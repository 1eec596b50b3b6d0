//! Connections as they come in: plain or secured, with what is known of who is at the other end.
//!
//! Handshakes go on beside each other and beside everything else. A connection can be cut from outside, for a
//! stream whose rights are over and whose consumer does not read.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    sync::mpsc,
    time::sleep,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::{Connected, TcpIncoming};

use super::{KEEPALIVE, gather::Gather};
use crate::{
    auth::{Peer, Presented},
    connections::{Connections, Place, Socket},
    patience::Patient,
    tls::{Acceptor, Secured},
};

/// Connections that were accepted and that nobody has begun to serve.
const BACKLOG: usize = 64;

/// A connection; see the module's documentation.
pub(super) struct Connection {
    io: Io,
    peer: Peer,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: Arc<Place>,
}

enum Io {
    Plain(Gather<OwnedReadHalf>),
    Secured(Gather<ReadHalf<Secured>>),
}

/// The connections of a listener.
pub(super) fn incoming(
    listener: TcpListener,
    tls: Option<Acceptor>,
) -> impl Stream<Item = io::Result<Connection>> {
    let accepted = TcpIncoming::from(listener)
        .with_nodelay(Some(true))
        .with_keepalive(Some(KEEPALIVE));
    let (send, receive) = mpsc::channel(BACKLOG);
    tokio::spawn(accept(accepted, tls, send));
    ReceiverStream::new(receive)
}

async fn accept(
    mut accepted: TcpIncoming,
    tls: Option<Acceptor>,
    send: mpsc::Sender<io::Result<Connection>>,
) {
    let connections = Connections::default();
    loop {
        let stream = tokio::select! {
            stream = accepted.next() => stream,
            // Nobody serves any more.
            () = send.closed() => return,
        };
        let stream = match stream {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => {
                // Such as too many open files, which passes.
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
            None => return,
        };
        // Gone again where it has no address. Asked once: it may be gone any time.
        let Ok(peer) = stream.peer_addr() else {
            continue;
        };
        let Some(place) = connections.enter(peer.ip()) else {
            continue;
        };
        let Some(tls) = tls.clone() else {
            let connection = Connection::new(stream, peer, place);
            if send.send(Ok(connection)).await.is_err() {
                return;
            }
            continue;
        };
        let send = send.clone();
        tokio::spawn(async move {
            let secured = place
                .cut()
                .run_until_cancelled(tls.accept(Socket::new(stream, &place)))
                .await;
            if let Some(secured) = secured.flatten() {
                // Nobody serves any more: then nobody waits for it either.
                let _ = send
                    .send(Ok(Connection::secured(secured, peer, place)))
                    .await;
            }
        });
    }
}

impl Connection {
    fn new(stream: TcpStream, peer: SocketAddr, place: Arc<Place>) -> Self {
        let presented = Presented {
            peer: Some(peer),
            chain: Vec::new(),
        };
        let (read, write) = stream.into_split();
        Self::with(Io::Plain(Gather::new(read, write)), presented, place)
    }

    fn secured(secured: Secured, peer: SocketAddr, place: Arc<Place>) -> Self {
        let presented = Presented {
            peer: Some(peer),
            chain: secured.client_chain(),
        };
        let (read, write) = tokio::io::split(secured);
        Self::with(Io::Secured(Gather::new(read, write)), presented, place)
    }

    fn with(io: Io, presented: Presented, place: Arc<Place>) -> Self {
        let peer = Peer::new(presented, &place);
        Self {
            io,
            cut: Box::pin(peer.cut.clone().cancelled_owned()),
            peer,
            _place: place,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A secured one does so by itself.
        if let Io::Plain(io) = &self.io
            && self.peer.cut.is_cancelled()
        {
            // It may be closed by now.
            let _ = io.get_ref().as_ref().set_zero_linger();
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<Io: Connected> Connected for Patient<Io> {
    type ConnectInfo = Io::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.get_ref().connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Reading is always waited for, so this wakes whoever serves the connection.
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Io::Secured(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.as_mut().refuse_if_cut()?;
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Io::Secured(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.as_mut().refuse_if_cut()?;
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(cx, slices),
            Io::Secured(io) => Pin::new(io).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Secured(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Secured(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.as_mut().refuse_if_cut()?;
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Secured(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

impl Connection {
    fn refuse_if_cut(self: Pin<&mut Self>) -> io::Result<()> {
        match self.peer.cut.is_cancelled() {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;

    async fn connected() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = std::pin::pin!(incoming(listener, None));
        let (connection, peer) = tokio::join!(incoming.next(), TcpStream::connect(address));
        (connection.unwrap().unwrap(), peer.unwrap())
    }

    #[tokio::test]
    async fn a_connection_knows_its_peer_and_carries_bytes_both_ways() {
        let (mut connection, mut peer) = connected().await;
        let known = connection.connect_info().presented.peer;
        assert_eq!(known, peer.local_addr().ok());
        peer.write_all(b"in").await.unwrap();
        let mut bytes = [0; 2];
        connection.read_exact(&mut bytes).await.unwrap();
        connection.write_all(b"out").await.unwrap();
        let mut bytes = [0; 3];
        peer.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"out");
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_neither_reads_nor_writes_and_is_closed() {
        let (mut connection, mut peer) = connected().await;
        let cut = connection.connect_info().cut;
        let reading = async {
            let error = connection.read(&mut [0; 1]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
            assert!(connection.write(b"x").await.is_err());
            drop(connection);
        };
        let (_, ()) = tokio::join!(async { cut.cancel() }, reading);
        let end = timeout(Duration::from_secs(5), peer.read(&mut [0; 1])).await;
        assert_eq!(end.unwrap().unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn what_the_kernel_has_of_a_connection_that_is_cut_does_not_reach_its_peer() {
        let (mut connection, mut peer) = connected().await;
        let full = Duration::from_millis(200);
        let mut given = 0;
        while let Ok(taken) = timeout(full, connection.write(&[0; 1 << 16])).await {
            given += taken.unwrap();
        }
        connection.connect_info().cut.cancel();
        drop(connection);
        let mut had = Vec::new();
        let end = timeout(Duration::from_secs(5), peer.read_to_end(&mut had)).await;
        let error = end.expect("it is closed").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(had.len() < given, "{} of {given}", had.len());
    }
}
