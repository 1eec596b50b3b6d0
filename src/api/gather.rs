//! A connection that sends what its streams have to say in few writes.
//!
//! HTTP/2 writes every frame by itself. With many streams on a connection, each of which has a little to say
//! about the same change, the system calls would cost several times what making the frames does. So frames are
//! gathered, and a task of their own writes them once all who were woken together have spoken.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::Notify,
    task::{AbortHandle, yield_now},
};

/// Most bytes that are gathered; whoever has more waits until these are on their way. As many again may be being
/// written.
const LIMIT: usize = 64 << 10;
/// A buffer that has grown beyond this is only kept while it is needed.
const KEEP: usize = 8 << 10;

/// See the module's documentation. Made within a runtime.
#[derive(Debug)]
pub struct Gather<R> {
    read: R,
    out: Arc<Out>,
    writing: AbortHandle,
}

#[derive(Debug, Default)]
struct Out {
    pending: Mutex<Pending>,
    /// Something is there to be done by the writing task.
    work: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Waits for room or for the end.
    waiter: Option<Waker>,
    /// Nothing more will come.
    closing: bool,
    /// How the writing task ended.
    ended: Option<Result<(), io::ErrorKind>>,
}

impl Out {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exchanges what has been gathered for an empty buffer; whether more may come.
    fn take(&self, bytes: &mut Vec<u8>) -> bool {
        if bytes.capacity() > KEEP.max(bytes.len() * 16) {
            *bytes = Vec::new();
        }
        bytes.clear();
        let mut pending = self.lock();
        std::mem::swap(&mut pending.bytes, bytes);
        if !bytes.is_empty()
            && let Some(waiter) = pending.waiter.take()
        {
            waiter.wake();
        }
        !pending.closing
    }

    /// Writes what there is, whenever there is something.
    async fn write(&self, mut socket: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut bytes = Vec::new();
        loop {
            self.work.notified().await;
            // The others that were woken with the one that spoke first.
            yield_now().await;
            loop {
                let open = self.take(&mut bytes);
                if !bytes.is_empty() {
                    socket.write_all(&bytes).await?;
                } else if open {
                    break;
                } else {
                    return socket.shutdown().await;
                }
            }
        }
    }
}

impl<R> Gather<R> {
    /// The half that is read.
    pub(super) fn get_ref(&self) -> &R {
        &self.read
    }

    /// Over both halves of a connection that was just accepted.
    pub fn new(read: R, write: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        let out = Arc::new(Out::default());
        let task = out.clone();
        let writing = tokio::spawn(async move {
            let ended = task.write(write).await;
            let mut pending = task.lock();
            pending.ended = Some(ended.map_err(|error| error.kind()));
            if let Some(waiter) = pending.waiter.take() {
                waiter.wake();
            }
        });
        Self {
            read,
            out,
            writing: writing.abort_handle(),
        }
    }
}

impl<R> Drop for Gather<R> {
    fn drop(&mut self) {
        // Whoever wants the rest to arrive shuts down first.
        self.writing.abort();
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Gather<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl<R> AsyncWrite for Gather<R> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut pending = self.out.lock();
        if let Some(Err(kind)) = pending.ended {
            return Poll::Ready(Err(kind.into()));
        }
        let before = pending.bytes.len();
        if before >= LIMIT {
            pending.waiter = Some(cx.waker().clone());
            return Poll::Pending;
        }
        for slice in slices {
            let room = LIMIT - pending.bytes.len();
            pending
                .bytes
                .extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let taken = pending.bytes.len() - before;
        drop(pending);
        if before == 0 && taken > 0 {
            self.out.work.notify_one();
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// At once: what was taken is on its way.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.out.lock().ended {
            Some(Err(kind)) => Poll::Ready(Err(kind.into())),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Once all is written.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pending = self.out.lock();
        if let Some(ended) = pending.ended {
            return Poll::Ready(ended.map_err(Into::into));
        }
        pending.waiter = Some(cx.waker().clone());
        if !pending.closing {
            pending.closing = true;
            self.out.work.notify_one();
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    };

    use super::*;

    /// A connection, and its other end.
    async fn pair() -> (Gather<OwnedReadHalf>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, peer) = tokio::join!(listener.accept(), TcpStream::connect(address));
        let (read, write) = accepted.unwrap().0.into_split();
        (Gather::new(read, write), peer.unwrap())
    }

    fn numbers(count: u32) -> Vec<u8> {
        (0..count).flat_map(u32::to_be_bytes).collect()
    }

    #[tokio::test]
    async fn all_that_was_written_arrives_in_order_before_the_end() {
        let (mut gather, mut peer) = pair().await;
        let sent = numbers(1 << 18);
        let copy = sent.clone();
        let writing = tokio::spawn(async move {
            // Pieces of all sizes, larger than the buffer too.
            let mut rest = &copy[..];
            let mut size = 1;
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(size.min(rest.len()));
                gather.write_all(piece).await.unwrap();
                rest = after;
                size = size * 7 % 150_001;
            }
            gather.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        peer.read_to_end(&mut received).await.unwrap();
        assert!(received == sent);
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn a_small_piece_arrives_without_a_flush() {
        let (mut gather, mut peer) = pair().await;
        for piece in [&b"first"[..], b"second"] {
            gather.write_all(piece).await.unwrap();
            let mut received = vec![0; piece.len()];
            peer.read_exact(&mut received).await.unwrap();
            assert_eq!(received, piece);
        }
    }

    #[tokio::test]
    async fn what_is_gathered_is_bounded_while_the_peer_does_not_read() {
        let (mut gather, mut peer) = pair().await;
        let piece = numbers(1 << 12);
        let mut taken = 0;
        // Until nothing is taken for a while although the writing task had its turns.
        while let Ok(count) =
            tokio::time::timeout(std::time::Duration::from_millis(300), gather.write(&piece)).await
        {
            taken += count.unwrap();
            assert!(gather.out.lock().bytes.len() <= LIMIT);
        }
        assert_eq!(gather.out.lock().bytes.len(), LIMIT);
        let mut received = vec![0; taken];
        peer.read_exact(&mut received).await.unwrap();
        gather.write_all(b"on").await.unwrap();
        let mut more = [0; 2];
        peer.read_exact(&mut more).await.unwrap();
        assert_eq!(&more, b"on");
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_an_error() {
        let (mut gather, peer) = pair().await;
        drop(peer);
        let error = loop {
            if let Err(error) = gather.write_all(&[0; 1024]).await {
                break error;
            }
            yield_now().await;
        };
        assert!(
            matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_dropped_connection_is_closed() {
        let (gather, mut peer) = pair().await;
        drop(gather);
        assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0);
    }
}
