//! A connection that is not waited for without end.
//!
//! HTTP has limits on how long things may take, but only once both sides speak it: a connection that never says
//! anything would stay open for ever, and hold up a server that drains until its grace period is over. So does one
//! whose other end has gone without a word. Here the first has some seconds to say what it speaks; and where a
//! shutdown is known, none once that has begun, and nobody is waited for then who is silent.
//!
//! One that takes nothing of what there is for it, and says nothing, is gone for all that is known: HTTP/2 would ask it
//! for a sign of life, but a question waits behind what it does not take.
//!
//! In HTTP/2 a peer may change its settings, and answer pings, only so often: h2 walks all streams of the connection for
//! each change of their window, so that with thousands of streams a stream of settings would have the processor for
//! itself; and of each answer to a ping that nobody sent it writes a line into the log.
//!
//! In HTTP/1.1 a request must have all its headers soon after its first byte. (hyper's own time for headers begins with
//! the idle time before them, so that it can be no shorter than a client keeps connections for later.)

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::shutdown::Shutdown;

/// Until a client has said what it speaks.
pub const GREETING: Duration = Duration::from_secs(10);
/// Until a request of HTTP/1.1 that has begun has all its headers.
pub const HEADERS: Duration = Duration::from_secs(10);
/// What HTTP/2 begins with, always, and HTTP/1.1 never.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest silence of a client, who is asked for a sign of life at once, while the server drains.
const SILENCE: Duration = Duration::from_secs(10);

/// How long a client may take nothing while it says nothing either.
const UNTAKEN: Duration = Duration::from_secs(60);

/// Most changes of settings, and answers to pings, within [`CONTROL_PER`]. Clients say their settings once, and some
/// again after a while; and they are asked for a sign of life a few times a minute.
const CONTROL: u32 = 32;
const CONTROL_PER: Duration = Duration::from_secs(10);

/// Follows the frames of HTTP/2, for how often those come.
#[derive(Debug, Default)]
struct Frames {
    /// What has come of a frame's header.
    header: [u8; 9],
    have: usize,
    /// What is to come of its payload.
    payload: usize,
    control: u32,
    since: Option<Instant>,
}

impl Frames {
    /// Whether they come too often.
    fn follow(&mut self, mut bytes: &[u8]) -> bool {
        const SETTINGS: u8 = 4;
        const PING: u8 = 6;
        const ACK: u8 = 1;
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skipped = self.payload.min(bytes.len());
                self.payload -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (self.header.len() - self.have).min(bytes.len());
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have < self.header.len() {
                break;
            }
            self.have = 0;
            let [a, b, c, of, flags, ..] = self.header;
            self.payload = u32::from_be_bytes([0, a, b, c]) as usize;
            let is_ack = flags & ACK != 0;
            let counts = matches!((of, is_ack), (SETTINGS, false) | (PING, true));
            if counts && self.is_one_too_many() {
                return true;
            }
        }
        false
    }

    fn is_one_too_many(&mut self) -> bool {
        let now = Instant::now();
        if self.since.is_none_or(|since| now - since >= CONTROL_PER) {
            self.since = Some(now);
            self.control = 0;
        }
        self.control += 1;
        self.control > CONTROL
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Patient<Io> {
    io: Io,
    /// How much of the preface was said, where nothing else was.
    said: usize,
    has_greeted: bool,
    is_http2: bool,
    frames: Frames,
    /// Where they are told of, those of the connection.
    requests: Option<Requests>,
    /// Of a request whose headers have begun to come: how many had come before, and when patience with it ends.
    headers: Option<(u64, Pin<Box<Sleep>>)>,
    /// Where the server's end matters to it.
    draining: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    drains: bool,
    /// When patience ends, for whom there is little.
    alarm: Pin<Box<Sleep>>,
    /// The same for who takes nothing of what there is for it, while that is so.
    untaken: Option<Pin<Box<Sleep>>>,
}

/// The requests of a connection, as whoever answers them tells. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicU64,
    answered: AtomicU64,
}

/// A request that is being answered, until it is dropped.
#[derive(Debug)]
pub struct Answering(Arc<Counts>);

impl Requests {
    /// All headers of one have come.
    pub fn begin(&self) -> Answering {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Answering(self.0.clone())
    }

    fn begun(&self) -> u64 {
        self.0.begun.load(Ordering::Relaxed)
    }

    fn are_answered(&self) -> bool {
        self.begun() == self.0.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answered.fetch_add(1, Ordering::Relaxed);
    }
}

impl<Io> Patient<Io> {
    /// With who does not say what it speaks, from now on.
    pub fn new(io: Io) -> Self {
        Self {
            io,
            said: 0,
            has_greeted: false,
            is_http2: false,
            frames: Frames::default(),
            requests: None,
            headers: None,
            draining: None,
            drains: false,
            alarm: Box::pin(sleep(GREETING)),
            untaken: None,
        }
    }

    /// Also with who is silent, once the shutdown begins.
    #[must_use]
    pub fn until(self, shutdown: &Shutdown) -> Self {
        Self {
            draining: Some(Box::pin(shutdown.draining_apart())),
            ..self
        }
    }

    /// Also with headers that do not come to an end.
    #[must_use]
    pub fn with_headers_of(self, requests: &Requests) -> Self {
        Self {
            requests: Some(requests.clone()),
            ..self
        }
    }

    /// What it carries.
    pub fn get_ref(&self) -> &Io {
        &self.io
    }

    /// Whether there is no patience with that.
    fn hear(&mut self, bytes: &[u8]) -> bool {
        let mut frames = bytes;
        if !self.has_greeted {
            let rest = &PREFACE[self.said..];
            self.has_greeted = rest.len() <= bytes.len() || !rest.starts_with(bytes);
            self.is_http2 = bytes.starts_with(rest);
            self.said += bytes.len().min(rest.len());
            frames = &bytes[rest.len().min(bytes.len())..];
        }
        if let Some(requests) = &self.requests
            && self.has_greeted
            && !self.is_http2
            && !bytes.is_empty()
            && self.headers.is_none()
            // Else it is a body, or waits for its turn.
            && requests.are_answered()
        {
            self.headers = Some((requests.begun(), Box::pin(sleep(HEADERS))));
        }
        if self.drains && !bytes.is_empty() {
            self.alarm.as_mut().reset(Instant::now() + SILENCE);
        }
        if let Some(untaken) = self.untaken.as_mut().filter(|_| !bytes.is_empty()) {
            untaken.as_mut().reset(Instant::now() + UNTAKEN);
        }
        self.is_http2 && self.frames.follow(frames)
    }

    /// What came of giving the peer something; an error once it has taken nothing for too long.
    fn poll_taken<T>(
        &mut self,
        cx: &mut Context<'_>,
        given: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if given.is_ready() {
            self.untaken = None;
            return given;
        }
        let untaken = self.untaken.get_or_insert_with(|| Box::pin(sleep(UNTAKEN)));
        ready!(untaken.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Nothing has come: until the headers that have begun need not be waited for any more.
    fn poll_headers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (Some(requests), Some((before, alarm))) = (&self.requests, &mut self.headers) else {
            return Poll::Pending;
        };
        if requests.begun() == *before {
            return alarm.as_mut().poll(cx);
        }
        self.headers = None;
        Poll::Pending
    }

    /// Nothing has come: until it need not be waited for any more.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.drains
            && let Some(draining) = &mut self.draining
            && draining.as_mut().poll(cx).is_ready()
        {
            self.drains = true;
            self.alarm.as_mut().reset(Instant::now() + SILENCE);
        }
        if self.drains && !self.has_greeted {
            return Poll::Ready(Ok(()));
        }
        if self.drains || !self.has_greeted {
            ready!(self.alarm.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Patient<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut self.io).poll_read(cx, buf) {
            if self.hear(&buf.filled()[before..]) {
                // Whoever reads is told of no bytes beside an error.
                buf.set_filled(before);
                let problem = "the peer changes its settings, or answers pings, too often";
                return Poll::Ready(Err(io::Error::other(problem)));
            }
            return Poll::Ready(read);
        }
        if self.poll_headers(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.poll_over(cx)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Patient<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let given = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.poll_taken(cx, given)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let given = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.poll_taken(cx, given)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let given = Pin::new(&mut self.io).poll_flush(cx);
        self.poll_taken(cx, given)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let given = Pin::new(&mut self.io).poll_shutdown(cx);
        self.poll_taken(cx, given)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::timeout,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn pair(shutdown: &Shutdown) -> (DuplexStream, Patient<DuplexStream>) {
        let (client, server) = duplex(1024);
        (client, Patient::new(server).until(shutdown))
    }

    async fn greeted(shutdown: &Shutdown) -> (DuplexStream, Patient<DuplexStream>) {
        let (mut client, mut server) = pair(shutdown);
        client.write_all(PREFACE).await.unwrap();
        let mut hello = [0; PREFACE.len()];
        server.read_exact(&mut hello).await.unwrap();
        (client, server)
    }

    /// How its reading ends, and after how long.
    async fn end(server: &mut Patient<DuplexStream>) -> (Option<io::ErrorKind>, u64) {
        let begun = Instant::now();
        let mut buffer = [0; 64];
        loop {
            match server.read(&mut buffer).await {
                Ok(0) => return (None, begun.elapsed().as_secs()),
                Ok(_) => {}
                Err(error) => return (Some(error.kind()), begun.elapsed().as_secs()),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_speaks_is_cut_after_some_seconds_be_it_byte_by_byte() {
        let (_client, mut server) = pair(&Shutdown::new());
        assert_eq!(end(&mut server).await, (Some(io::ErrorKind::TimedOut), 10));
        let (mut client, mut server) = pair(&Shutdown::new());
        tokio::spawn(async move {
            for byte in PREFACE {
                // Fails once it is cut.
                let _ = client.write_all(&[*byte]).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        assert_eq!(end(&mut server).await, (Some(io::ErrorKind::TimedOut), 10));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_greeted_may_be_silent_for_as_long_as_http_2_lets_it() {
        let (_client, mut server) = greeted(&Shutdown::new()).await;
        assert!(timeout(LONG, end(&mut server)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_changes_settings_or_answers_pings_again_and_again_is_cut_however_the_frames_are_cut_up()
     {
        const FRAME: &[u8] = &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1];
        const PONG: &[u8] = &[0, 0, 8, 6, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        const ACK: &[u8] = &[0, 0, 0, 4, 1, 0, 0, 0, 0];
        // A DATA frame whose payload looks like settings.
        let data = [&[0, 0, 15, 0, 0, 0, 0, 0, 1], FRAME].concat();
        let each = [1, 7, 4096].map(|piece| [(piece, FRAME), (piece, PONG)]);
        for (piece, frame) in each.into_iter().flatten() {
            let (mut client, mut server) = greeted(&Shutdown::new()).await;
            let said = tokio::spawn(async move { end(&mut server).await });
            let harmless = [&data[..], ACK].concat().repeat(200);
            let allowed = frame.repeat(CONTROL as usize);
            for bytes in [&harmless[..], &allowed, &harmless] {
                for bytes in bytes.chunks(piece) {
                    client.write_all(bytes).await.unwrap();
                }
            }
            tokio::time::sleep(CONTROL_PER).await;
            for bytes in allowed.chunks(piece) {
                client.write_all(bytes).await.unwrap();
            }
            assert!(!said.is_finished());
            client.write_all(frame).await.unwrap();
            assert_eq!(said.await.unwrap().0, Some(io::ErrorKind::Other));
        }
    }

    /// How long it is written to until that ends, and whether that is because the peer is not waited for any more.
    async fn written(server: &mut Patient<DuplexStream>) -> (bool, u64) {
        let begun = Instant::now();
        let error = loop {
            if let Err(error) = server.write_all(&[0; 4096]).await {
                break error.kind();
            }
        };
        (error == io::ErrorKind::TimedOut, begun.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_waited_for_as_long_as_it_is_heard() {
        let (_client, mut server) = greeted(&Shutdown::new()).await;
        assert_eq!(written(&mut server).await, (true, UNTAKEN.as_secs()));

        let (mut client, server) = greeted(&Shutdown::new()).await;
        let (mut read, mut write) = tokio::io::split(server);
        tokio::spawn(async move {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                client.write_all(b"a sign").await.unwrap();
            }
            std::future::pending::<()>().await;
        });
        let hearing = async {
            let mut said = [0; 64];
            while let Ok(1..) = read.read(&mut said).await {}
        };
        let begun = Instant::now();
        let writing = async {
            while write.write_all(&[0; 4096]).await.is_ok() {}
            begun.elapsed().as_secs()
        };
        tokio::select! {
            after = writing => assert_eq!(after, 500 + UNTAKEN.as_secs()),
            () = hearing => panic!("the reading has ended"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_little_now_and_then_is_waited_for() {
        let (mut client, mut server) = greeted(&Shutdown::new()).await;
        let taking = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                client.read_exact(&mut [0; 100]).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = written(&mut server) => assert_eq!(ended, (true, 500 + UNTAKEN.as_secs())),
            () = taking => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_not_greeted_is_not_waited_for_by_a_server_that_drains() {
        let shutdown = Shutdown::new();
        let (_client, mut server) = pair(&shutdown);
        let drained = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            shutdown.drain();
        };
        let (ended, ()) = tokio::join!(end(&mut server), drained);
        assert_eq!(ended, (None, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn while_it_drains_only_those_that_are_heard_are_waited_for() {
        let shutdown = Shutdown::new();
        let (mut client, mut server) = greeted(&shutdown).await;
        shutdown.drain();
        tokio::spawn(async move {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(8)).await;
                client.write_all(b"a sign").await.unwrap();
            }
            std::future::pending::<()>().await;
        });
        assert_eq!(end(&mut server).await, (Some(io::ErrorKind::TimedOut), 50));
    }
}
