//! Which connections are open, together and from each address, and which of them somebody has signed in on.
//!
//! Where there is no place for one more, whoever has signed in stays, and of the others the one goes that has been
//! there for longest, of the address that has most: so nobody takes all places by connections that say nothing. Where
//! all have signed in, whoever comes is cut at once.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Connections at once.
pub const MOST: usize = 4096;
/// Of one address. Gateways have many callers behind one.
const MOST_OF_ONE: usize = 1024;

/// What the kernel is asked to take of a connection that its peer has not. (Linux takes twice as much, with its own
/// costs; by itself it would take up to 4 MiB, which nobody counts, and would say that there is room for more only once
/// a third of that has been read.)
const SEND_BUFFER: u32 = 128 << 10;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Takes an address, for connections of which the kernel takes little ahead.
///
/// # Errors
///
/// The address is another's, or none of this machine.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // As every listener: after a restart, connections of the process before still wait to be forgotten.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    // Connections inherit it.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A socket of which nothing goes on its way any more once its connection is cut: what the kernel has of it is
/// dropped, and the peer is told that it is reset.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    cut: CancellationToken,
}

impl Socket {
    /// At this place.
    pub fn new(stream: TcpStream, place: &Place) -> Self {
        let cut = place.cut().clone();
        Self { stream, cut }
    }

    /// Until its peer has said something, or is gone.
    ///
    /// # Errors
    ///
    /// It has failed.
    pub async fn said(&self) -> io::Result<()> {
        self.stream.peek(&mut [0]).await.map(drop)
    }

    /// Where its peer is.
    ///
    /// # Errors
    ///
    /// It is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.cut.is_cancelled() {
            // It may be closed by now.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Counts them. Clones count together.
#[derive(Clone, Debug)]
pub struct Connections {
    most: usize,
    most_of_one: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    of_each: HashMap<IpAddr, OfOne>,
    /// Those that each user has signed in on.
    of_user: HashMap<String, usize>,
    /// How many there have been.
    came: u64,
}

/// Of one address.
#[derive(Debug, Default)]
struct OfOne {
    known: usize,
    /// Those that nobody has signed in on, in the order in which they came.
    strangers: BTreeMap<u64, Stranger>,
}

/// A connection that nobody has signed in on.
#[derive(Debug)]
struct Stranger {
    since: Instant,
    cut: CancellationToken,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    connections: Connections,
    address: IpAddr,
    number: u64,
    cut: CancellationToken,
    user: OnceLock<String>,
}

impl Default for Connections {
    fn default() -> Self {
        Self::new(MOST, MOST_OF_ONE)
    }
}

impl Connections {
    /// So many at once, and so many of one address.
    pub fn new(most: usize, most_of_one: usize) -> Self {
        Self {
            most,
            most_of_one,
            open: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next connection of a listener that there is a place for.
    pub async fn accept(&self, listener: &TcpListener) -> (TcpStream, SocketAddr, Arc<Place>) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    if let Some(place) = self.enter(peer.ip()) {
                        return (stream, peer, place);
                    }
                }
                Err(error) => {
                    // Out of file descriptors, mostly: others may close theirs.
                    warn!(%error, "cannot accept a connection");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// A place for one more, if there is one or one can be made. Whoever must go is counted.
    pub fn enter(&self, address: IpAddr) -> Option<Arc<Place>> {
        let (place, evicted) = self.claim(address, Duration::ZERO);
        if place.is_none() {
            metrics::counter!("informerd_connections_refused_total").increment(1);
        } else if evicted {
            metrics::counter!("informerd_connections_evicted_total").increment(1);
        }
        place
    }

    /// The same, uncounted, where nobody has to go who has not been there for so long; and whether somebody had to.
    pub fn claim(&self, address: IpAddr, keep: Duration) -> (Option<Arc<Place>>, bool) {
        let mut open = self.lock();
        let of_one = open.of_each.get(&address).map_or(0, OfOne::count);
        let crowded = if of_one >= self.most_of_one {
            Some(address)
        } else if open.all >= self.most {
            open.most_crowded()
        } else {
            return (Some(self.place(&mut open, address)), false);
        };
        match crowded.is_some_and(|address| open.evict(address, keep)) {
            true => (Some(self.place(&mut open, address)), true),
            false => (None, false),
        }
    }

    /// How many there have been.
    #[cfg(test)]
    pub fn came(&self) -> u64 {
        self.lock().came
    }

    fn place(&self, open: &mut Open, address: IpAddr) -> Arc<Place> {
        open.all += 1;
        open.came += 1;
        let number = open.came;
        let cut = CancellationToken::new();
        let strangers = &mut open.of_each.entry(address).or_default().strangers;
        let stranger = Stranger {
            since: Instant::now(),
            cut: cut.clone(),
        };
        strangers.insert(number, stranger);
        Arc::new(Place {
            connections: self.clone(),
            address,
            number,
            cut,
            user: OnceLock::new(),
        })
    }
}

impl Open {
    /// The address with the most connections that nobody has signed in on; of several the one with the oldest.
    fn most_crowded(&self) -> Option<IpAddr> {
        let with_strangers = self.of_each.iter().filter_map(|(address, of_one)| {
            let (oldest, _) = of_one.strangers.first_key_value()?;
            Some((of_one.strangers.len(), std::cmp::Reverse(*oldest), *address))
        });
        with_strangers.max().map(|(.., address)| address)
    }

    /// Cuts the oldest connection of an address that nobody has signed in on, if there is one of that age.
    fn evict(&mut self, address: IpAddr, keep: Duration) -> bool {
        let of_one = self.of_each.get_mut(&address);
        let Some(oldest) = of_one.and_then(|of_one| of_one.strangers.first_entry()) else {
            return false;
        };
        if oldest.get().since.elapsed() < keep {
            return false;
        }
        oldest.remove().cut.cancel();
        self.leave(address);
        true
    }

    /// One less, which is counted by the address no more.
    fn leave(&mut self, address: IpAddr) {
        self.all -= 1;
        if self.of_each.get(&address).map_or(0, OfOne::count) == 0 {
            self.of_each.remove(&address);
        }
    }
}

impl OfOne {
    fn count(&self) -> usize {
        self.known + self.strangers.len()
    }
}

/// Says what this module's metrics mean.
pub fn describe_metrics() {
    metrics::describe_counter!(
        "informerd_connections_refused_total",
        "Connections that were cut at once because too many were open, of all or of their address."
    );
    metrics::describe_counter!(
        "informerd_connections_evicted_total",
        "Connections that nobody had signed in on and that were cut to make place for others."
    );
}

impl Place {
    /// Cuts the connection, and says that it is cut.
    pub fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// Somebody has signed in on it: it is not cut to make place for another, unless that is one of very many of the
    /// same user.
    pub fn sign_in(&self, user: &str) {
        if self.user.get().is_some() {
            return;
        }
        let most = self.connections.most_of_one;
        let mut open = self.connections.lock();
        let open = &mut *open;
        let Some(of_one) = open.of_each.get_mut(&self.address) else {
            return;
        };
        let of_user = open.of_user.get(user).copied().unwrap_or_default();
        if of_user >= most || of_one.strangers.remove(&self.number).is_none() {
            // One too many, or it has had to go, or another call of it was faster.
            return;
        }
        of_one.known += 1;
        open.of_user.insert(user.to_owned(), of_user + 1);
        // Under the lock, and whoever was a stranger has none.
        let _ = self.user.set(user.to_owned());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        let open = &mut *open;
        let Some(of_one) = open.of_each.get_mut(&self.address) else {
            return;
        };
        if let Some(user) = self.user.get() {
            of_one.known -= 1;
            if let Some(of_user) = open.of_user.get_mut(user) {
                *of_user -= 1;
                if *of_user == 0 {
                    open.of_user.remove(user);
                }
            }
        } else if of_one.strangers.remove(&self.number).is_none() {
            // It has had to go before.
            return;
        }
        open.leave(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// So many connections of an address, each of a user of its own if they sign in.
    fn open(connections: &Connections, last: u8, count: usize, sign_in: bool) -> Vec<Arc<Place>> {
        let places = (0..count).map(|n| connections.enter(address(last)).map(|it| (n, it)));
        let places = places.map(|place| {
            let (n, place) = place.expect("there is a place");
            if sign_in {
                place.sign_in(&format!("user {last}/{n}"));
            }
            place
        });
        places.collect()
    }

    fn cut(places: &[Arc<Place>]) -> Vec<bool> {
        places
            .iter()
            .map(|place| place.cut().is_cancelled())
            .collect()
    }

    #[test]
    fn one_address_cannot_take_all_places() {
        let connections = Connections::new(5, 3);
        let mut places = open(&connections, 1, 3, true);
        assert!(connections.enter(address(1)).is_none());
        places.extend(open(&connections, 2, 2, true));
        assert!(connections.enter(address(3)).is_none(), "all of them");
        places.clear();
        let left = connections.lock();
        assert!(left.of_each.is_empty() && left.of_user.is_empty() && left.all == 0);
        drop(left);
        assert!(connections.enter(address(1)).is_some());
    }

    #[test]
    fn who_has_not_signed_in_makes_place_for_the_next_and_the_oldest_goes_first() {
        let connections = Connections::new(9, 3);
        let known = open(&connections, 1, 1, true);
        let strangers = open(&connections, 1, 2, false);
        let next = open(&connections, 1, 1, false);
        assert_eq!(cut(&strangers), [true, false]);
        assert_eq!(cut(&known), [false]);
        next[0].sign_in("late");
        strangers[0].sign_in("too late");
        assert_eq!(connections.lock().of_user.len(), 2);
        drop(strangers);
        let last = open(&connections, 1, 1, true);
        assert!(connections.enter(address(1)).is_none(), "all are known");
        drop((known, next, last));
        assert_eq!(connections.lock().all, 0);
    }

    #[test]
    fn where_all_places_are_taken_the_address_with_most_strangers_loses_one() {
        let connections = Connections::new(6, 6);
        let few = open(&connections, 1, 2, false);
        let many = open(&connections, 2, 4, false);
        let new = open(&connections, 3, 1, false);
        assert_eq!(cut(&few), [false, false]);
        assert_eq!(cut(&many), [true, false, false, false]);
        assert_eq!(cut(&new), [false]);
    }

    #[test]
    fn one_user_keeps_no_more_places_than_one_address() {
        let connections = Connections::new(6, 3);
        let places: Vec<_> = [1, 1, 2, 2]
            .map(|last| open(&connections, last, 1, false).remove(0))
            .into();
        for place in &places {
            place.sign_in("greedy");
            place.sign_in("greedy");
        }
        let others = open(&connections, 3, 3, true);
        assert_eq!(cut(&places), [false, false, false, true]);
        drop((places, others));
        assert!(connections.lock().of_user.is_empty());
    }
}
