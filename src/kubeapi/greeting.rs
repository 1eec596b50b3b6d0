//! A connection that soon says what it speaks, or is closed: until then nobody can tell how long to wait for a request.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How long that may take.
pub(super) const GREETING: Duration = Duration::from_secs(10);
/// What HTTP/2 begins with, and HTTP/1.1 never.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// See the module's documentation.
pub(super) struct Greeting<Io> {
    io: Io,
    /// How much of the preface was said.
    said: usize,
    /// Gone once it is known what is spoken.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<Io> Greeting<Io> {
    /// From now on.
    pub(super) fn new(io: Io) -> Self {
        Self {
            io,
            said: 0,
            alarm: Some(Box::pin(sleep(GREETING))),
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        let rest = &PREFACE[self.said..];
        let is_more = rest.len() > bytes.len() && rest.starts_with(bytes);
        self.said += bytes.len().min(rest.len());
        if !is_more {
            self.alarm = None;
        }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Greeting<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        let Some(alarm) = &mut self.alarm else {
            return read;
        };
        if read.is_ready() {
            self.hear(&buf.filled()[before..]);
            return read;
        }
        ready!(alarm.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Greeting<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
