//! The connection that a call came over, as both ports know it.

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{AuthError, authenticate::Presented, calls::shed, in_flight::InFlight};
use crate::connections::Place;

/// Most bytes that are on their way over one connection, and the piece that goes beyond.
const IN_FLIGHT: usize = 8 << 20;

/// Most calls that nobody signs in for, open at once on one connection. Probes have one.
const OPEN_TO_ALL: usize = 16;

/// What a call can know of the connection that it came over.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Who it seems to be.
    pub presented: Arc<Presented>,
    /// Cuts the connection.
    pub cut: CancellationToken,
    pub(super) in_flight: Arc<InFlight>,
    open_to_all: Arc<Semaphore>,
    /// Not held: calls may go on for a moment after their connection.
    place: Weak<Place>,
}

impl Default for Peer {
    /// Within the process.
    fn default() -> Self {
        Self::with(Presented::default(), CancellationToken::new(), Weak::new())
    }
}

impl Peer {
    /// At the other end of a new connection.
    pub fn new(presented: Presented, place: &Arc<Place>) -> Self {
        Self::with(presented, place.cut().clone(), Arc::downgrade(place))
    }

    fn with(presented: Presented, cut: CancellationToken, place: Weak<Place>) -> Self {
        Self {
            presented: Arc::new(presented),
            cut,
            place,
            in_flight: Arc::new(InFlight::new(IN_FLIGHT)),
            open_to_all: Arc::new(Semaphore::new(OPEN_TO_ALL)),
        }
    }

    /// A place for a call that nobody signs in for, until it is dropped, if the connection has one more.
    pub fn enter_open_to_all(&self) -> Result<OwnedSemaphorePermit, AuthError> {
        let place = self.open_to_all.clone().try_acquire_owned();
        place.map_err(|_| {
            shed();
            let what = "calls that nobody signs in for are open on this connection";
            AuthError::TooMany(format!("{OPEN_TO_ALL} {what}"))
        })
    }

    /// Says that somebody has signed in on the connection; its name is empty where nobody is asked for it.
    pub fn sign_in(&self, user: &str) {
        if let Some(place) = self.place.upgrade() {
            place.sign_in(user);
        }
    }

    /// Where it is; absent for calls within the process.
    pub fn address(&self) -> Option<SocketAddr> {
        self.presented.peer
    }
}
