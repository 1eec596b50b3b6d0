//! How many connections are open, together and from each address.
//!
//! Whoever comes beyond is cut at once, so that those that are there stay well; and nobody takes all places, be it by
//! connections that say nothing.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tracing::warn;

/// Connections at once.
const MOST: usize = 4096;
/// Of one address. Gateways have many callers behind one.
const MOST_OF_ONE: usize = 1024;

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
    of_each: HashMap<IpAddr, usize>,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    connections: Connections,
    address: IpAddr,
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
    pub async fn accept(&self, listener: &TcpListener) -> (TcpStream, SocketAddr, Place) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    if let Some(place) = self.enter_or_count(peer.ip()) {
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

    /// A place for one more, if there is one; whoever is refused is counted.
    pub fn enter_or_count(&self, address: IpAddr) -> Option<Place> {
        let place = self.enter(address);
        if place.is_none() {
            metrics::counter!("informerd_connections_refused_total").increment(1);
        }
        place
    }

    /// A place for one more, if there is one.
    pub fn enter(&self, address: IpAddr) -> Option<Place> {
        let mut open = self.lock();
        let of_one = open.of_each.get(&address).copied().unwrap_or_default();
        if open.all >= self.most || of_one >= self.most_of_one {
            return None;
        }
        open.all += 1;
        open.of_each.insert(address, of_one + 1);
        let connections = self.clone();
        Some(Place {
            connections,
            address,
        })
    }
}

/// Says what this module's metrics mean.
pub fn describe_metrics() {
    metrics::describe_counter!(
        "informerd_connections_refused_total",
        "Connections that were cut at once because too many were open, of all or of their address."
    );
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        open.all -= 1;
        if let Some(of_one) = open.of_each.get_mut(&self.address) {
            *of_one -= 1;
            if *of_one == 0 {
                open.of_each.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_places() {
        let connections = Connections::new(5, 3);
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let mut open: Vec<_> = (0..3)
            .map(|_| connections.enter(address(1)).unwrap())
            .collect();
        assert!(connections.enter(address(1)).is_none());
        open.extend((0..2).map(|_| connections.enter(address(2)).unwrap()));
        assert!(connections.enter(address(3)).is_none(), "all of them");
        open.clear();
        assert!(connections.lock().of_each.is_empty());
        assert!(connections.enter(address(1)).is_some());
    }
}
