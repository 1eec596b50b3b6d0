//! The connection that a call came over, as both ports know it.

use std::{net::SocketAddr, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::authenticate::Presented;

/// What a call can know of the connection that it came over.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Who it seems to be.
    pub presented: Arc<Presented>,
    /// Cuts the connection.
    pub cut: CancellationToken,
}

impl Peer {
    /// At the other end of a new connection.
    pub fn new(presented: Presented) -> Self {
        Self {
            presented: Arc::new(presented),
            cut: CancellationToken::new(),
        }
    }

    /// Where it is; absent for calls within the process.
    pub fn address(&self) -> Option<SocketAddr> {
        self.presented.peer
    }
}
