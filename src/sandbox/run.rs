//! `informerd sandbox`: the store, its protocol on a loopback port, and a kubeconfig for whoever wants to use it.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::net::TcpListener;

use super::{Store, http::Door, traffic::Traffic};
use crate::{kubeapi::KubeApi, shutdown::Shutdown};

/// What a person is told first.
pub const WHAT_IT_IS: &str = "This is a sandbox, for trying out and testing: no credentials are checked, everything \
    is admitted, no custom kind is validated, no field ownership is kept, no container runs, and all is forgotten \
    when it ends.";

/// How often kinds that have not changed are told that others have.
const BOOKMARKS: Duration = Duration::from_millis(500);

/// Why the sandbox did not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Whoever reaches the port may do everything.
    #[error("the sandbox asks nobody for credentials: --listen {0} must be a loopback address")]
    NotLoopback(SocketAddr),
    /// The address could not be taken.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The kubeconfig could not be written.
    #[error("cannot write the kubeconfig {}: {source}", path.display())]
    Kubeconfig {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Takes the sandbox's port.
///
/// # Errors
///
/// The address is none of this machine's own, or is taken.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, SandboxError> {
    if !address.ip().is_loopback() {
        return Err(SandboxError::NotLoopback(address));
    }
    TcpListener::bind(address)
        .await
        .map_err(|source| SandboxError::Listen { address, source })
}

/// Serves a store until the shutdown begins to drain. Who reads from it is noted in `traffic`.
///
/// # Errors
///
/// The listener failed.
pub async fn serve(
    store: Store,
    traffic: Traffic,
    listener: TcpListener,
    shutdown: Shutdown,
) -> io::Result<()> {
    let door = Door::new(store.clone(), traffic);
    let api = KubeApi::new(Arc::new(door), shutdown.clone());
    let bookmarks = async {
        let mut ticks = tokio::time::interval(BOOKMARKS);
        loop {
            ticks.tick().await;
            store.advance();
        }
    };
    tokio::select! {
        served = api.serve(listener, None) => served,
        () = bookmarks => Ok(()),
        () = shutdown.over() => Ok(()),
    }
}

/// Writes a kubeconfig for the sandbox at this address.
///
/// # Errors
///
/// The file cannot be written.
pub fn write_kubeconfig(path: &Path, address: SocketAddr) -> Result<(), SandboxError> {
    let server = format!("http://{address}");
    let text = crate::kubeconfig::without_credentials("sandbox", &server, "default");
    std::fs::write(path, text).map_err(|source| SandboxError::Kubeconfig {
        path: path.to_owned(),
        source,
    })
}
