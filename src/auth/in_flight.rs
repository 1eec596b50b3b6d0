//! Bytes that were made for callers and that have not left the process: what consumers that do not read cost.
//!
//! HTTP/2 takes from a stream what its consumer said that it has room for, and a consumer may say that of gigabytes
//! and then not read. So what is taken is counted until it is written, on each connection and for each identity, and
//! beyond a limit nothing more is given out there until some of it is. That holds up streams of that connection, or
//! of that identity, and no others.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio_util::sync::CancellationToken;

use super::{
    AuthError,
    attributes::Attributes,
    calls::shed,
    guard::Guard,
    identity::Subject,
    snapshots::{Snapshot, Snapshots},
    untaken::{Answer, Claim, Untaken},
};

/// What is on its way to somebody.
#[derive(Debug)]
pub(super) struct InFlight {
    limit: usize,
    bytes: AtomicUsize,
    /// Streams that wait for room.
    waiting: Mutex<Vec<Waker>>,
}

/// The room that a call has for what it sends.
#[derive(Clone, Debug)]
pub struct Room(Arc<Within>);

#[derive(Debug)]
struct Within {
    /// Its connection's and its identity's.
    own: [Arc<InFlight>; 2],
    /// Everybody's, which holds up nobody.
    all: Arc<InFlight>,
    /// Whose it is, and what it and all have of states that are walked.
    user: String,
    snapshots: [Arc<Snapshots>; 2],
    /// How many calls its identity had open when it came.
    turn: u32,
    /// Bytes of the call since it began.
    made: AtomicU64,
    left: AtomicU64,
    cut: CancellationToken,
    /// What it was allowed by; nothing where nobody is asked.
    claims: Mutex<Vec<Claim>>,
    /// How many look at that.
    leases: AtomicUsize,
    untaken: Untaken,
    /// Once nobody does.
    answer: OnceLock<Answer>,
}

/// A piece that is on its way.
struct Counted {
    bytes: Bytes,
    room: Room,
}

impl InFlight {
    /// Up to so many bytes, and the piece that goes beyond.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: AtomicUsize::new(0),
            waiting: Mutex::default(),
        }
    }

    /// How many bytes there are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the limit is reached.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.load(Ordering::SeqCst) >= self.limit
    }

    /// Until there is room for one more piece.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_full() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|waker| !waker.will_wake(cx.waker()));
        waiting.push(cx.waker().clone());
        drop(waiting);
        // Some may have left before we stood in line.
        match self.is_full() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }

    fn leave(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        if before >= self.limit && before - bytes < self.limit {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            for waker in waiting.drain(..) {
                waker.wake();
            }
        }
    }
}

impl Room {
    pub(super) fn new(
        (user, turn): (&str, u32),
        (own, all): ([&Arc<InFlight>; 2], &Arc<InFlight>),
        snapshots: [&Arc<Snapshots>; 2],
        (cut, untaken): (&CancellationToken, &Untaken),
    ) -> Self {
        Self(Arc::new(Within {
            own: own.map(Arc::clone),
            all: all.clone(),
            user: user.to_owned(),
            turn,
            snapshots: snapshots.map(Arc::clone),
            made: AtomicU64::new(0),
            left: AtomicU64::new(0),
            cut: cut.clone(),
            claims: Mutex::default(),
            leases: AtomicUsize::new(0),
            untaken: untaken.clone(),
            answer: OnceLock::new(),
        }))
    }

    /// Bytes that were made for the call so far.
    pub(super) fn made(&self) -> u64 {
        self.0.made.load(Ordering::SeqCst)
    }

    /// Of them, those that have left the process.
    pub(super) fn left(&self) -> u64 {
        self.0.left.load(Ordering::SeqCst)
    }

    /// How many calls of its identity were open when it began; none where nobody is asked who it is.
    pub fn turn(&self) -> u32 {
        self.0.turn
    }

    /// Says what the call was allowed by.
    pub fn rests_on(&self, guard: &Guard, subject: &Subject, all: &Arc<[Attributes]>) {
        self.claims().push(Claim {
            guard: guard.clone(),
            subject: subject.clone(),
            all: Arc::clone(all),
        });
    }

    fn claims(&self) -> MutexGuard<'_, Vec<Claim>> {
        let claims = self.0.claims.lock();
        claims.unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody looks at these rights, which the call rests on. Their list is one for all calls that rest on the same.
    pub(super) fn hold(&self, all: &Arc<[Attributes]>) {
        self.0.leases.fetch_add(1, Ordering::SeqCst);
        let mut claims = self.claims();
        for claim in claims.iter_mut().filter(|claim| claim.all == *all) {
            claim.all = Arc::clone(all);
        }
    }

    /// One less does.
    pub(super) fn let_go(&self) {
        self.0.leases.fetch_sub(1, Ordering::SeqCst);
    }

    /// To be called when an answer is given. Where nobody looks at what it was allowed by, somebody does if it is not
    /// taken soon.
    pub fn answered(&self) {
        if self.0.leases.load(Ordering::SeqCst) == 0 {
            self.hold_if_late();
        }
    }

    /// To be called when an answer has come to its end: the same of what was made for it and has not left.
    pub fn ended(&self) {
        if self.left() < self.made() {
            self.hold_if_late();
        }
    }

    fn hold_if_late(&self) {
        let claims = std::mem::take(&mut *self.claims());
        if !claims.is_empty() {
            let within = &self.0;
            within
                .answer
                .get_or_init(|| within.untaken.give(claims, &within.cut));
        }
    }

    /// Cuts the connection.
    pub(super) fn cut(&self) {
        self.0.cut.cancel();
    }

    /// A state to be walked for the caller, if it may have one more.
    pub fn snapshot(&self) -> Result<Snapshot, AuthError> {
        let [own, all] = &self.0.snapshots;
        let checked = all.check("all").and_then(|()| own.check(&self.0.user));
        checked.inspect_err(|_| shed())?;
        Ok(self.another_snapshot())
    }

    /// The same of a stream that is open: it is not refused, and counts.
    pub fn another_snapshot(&self) -> Snapshot {
        Snapshot::of(&self.0.snapshots)
    }

    /// Until there is room for one more piece.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        for own in &self.0.own {
            ready!(own.poll_room(cx));
        }
        Poll::Ready(())
    }

    /// The body's next frame once there is room for it, counted.
    pub fn poll_frame<B: Body<Data = Bytes>>(
        &self,
        cx: &mut Context<'_>,
        body: Pin<&mut B>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        ready!(self.poll(cx));
        let frame = ready!(body.poll_frame(cx));
        let counted = |frame: Frame<Bytes>| frame.map_data(|bytes| self.count(bytes));
        Poll::Ready(frame.map(|frame| frame.map(counted)))
    }

    /// Whether half of it is taken: then it is time for smaller pieces.
    pub fn is_tight(&self) -> bool {
        self.gauges().any(|one| one.bytes() > one.limit / 2)
    }

    /// The same bytes, counted until they are dropped.
    pub fn count(&self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        for one in self.gauges() {
            one.bytes.fetch_add(bytes.len(), Ordering::SeqCst);
        }
        self.0.made.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        let room = self.clone();
        Bytes::from_owner(Counted { bytes, room })
    }

    fn gauges(&self) -> impl Iterator<Item = &Arc<InFlight>> {
        self.0.own.iter().chain([&self.0.all])
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        for one in self.room.gauges() {
            one.leave(self.bytes.len());
        }
        let left = &self.room.0.left;
        left.fetch_add(self.bytes.len() as u64, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::time::timeout;

    use super::*;

    fn gauge(limit: usize) -> Arc<InFlight> {
        Arc::new(InFlight::new(limit))
    }

    fn room_of(own: [&Arc<InFlight>; 2], all: &Arc<InFlight>) -> Room {
        let snapshots = Arc::new(Snapshots::new(1, 1));
        let how = (&CancellationToken::new(), &Untaken::default());
        Room::new(("alice", 0), (own, all), [&snapshots, &snapshots], how)
    }

    fn piece(len: usize) -> Bytes {
        vec![0; len].into()
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_limit_nothing_is_given_out_until_something_is_written() {
        let (connection, wide) = (gauge(100), gauge(1000));
        let room = room_of([&connection, &wide], &wide);
        let wait = || poll_fn(|cx| room.poll(cx));
        wait().await;
        let first = room.count(piece(90));
        wait().await;
        let second = room.count(piece(90));
        assert_eq!((connection.bytes(), first.len()), (180, 90));
        assert!(timeout(Duration::from_secs(1), wait()).await.is_err());
        let waiting = tokio::spawn({
            let room = room.clone();
            async move { poll_fn(|cx| room.poll(cx)).await }
        });
        tokio::task::yield_now().await;
        // A slice keeps what it is a slice of.
        let part = second.slice(0..1);
        drop(second);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(part);
        let woken = timeout(Duration::from_secs(1), waiting).await;
        woken.expect("woken").expect("no panic");
        drop(first);
        assert_eq!(connection.bytes(), 0);
    }

    #[test]
    fn a_piece_counts_for_its_connection_and_for_its_identity() {
        let (connection, identity, all) = (gauge(100), gauge(1000), gauge(1000));
        let room = room_of([&connection, &identity], &all);
        let sent = room.count(piece(60));
        assert!(room.is_tight());
        assert!(!room_of([&identity, &identity], &all).is_tight());
        let counted = [&connection, &identity, &all].map(|one| one.bytes());
        assert_eq!(counted, [60, 60, 60]);
        drop(sent);
        let counted = [&connection, &identity, &all].map(|one| one.bytes());
        assert_eq!(counted, [0, 0, 0]);
    }
}
