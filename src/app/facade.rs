//! Ties the facade to the daemon's cache, where the config has a port for it.

use std::{io, sync::Arc};

use tokio::{net::TcpListener, task::JoinHandle};
use tracing::info;

use super::AppError;
use crate::{
    api::Consumers,
    auth::Door,
    cache::Catalog,
    config::Config,
    discovery::Registry,
    facade::{self, Facade},
    kubeapi::KubeApi,
    proof::{Live, Prover},
    shutdown::Shutdown,
    tls::Acceptor,
    upstream::Upstream,
};

/// What the facade is made of.
pub(super) struct Parts<'a> {
    pub(super) config: &'a Config,
    pub(super) catalog: &'a Catalog,
    pub(super) registry: &'a Registry,
    pub(super) upstream: &'a Upstream,
    pub(super) prover: Arc<Prover>,
    pub(super) consumers: Arc<Consumers>,
    pub(super) door: Door,
    pub(super) tls: Option<Acceptor>,
}

/// The port, if there is to be one.
pub(super) fn listen(config: &Config) -> Result<Option<TcpListener>, AppError> {
    match config.kube_listen {
        None => Ok(None),
        Some(address) => super::listen(address, "Kubernetes's protocol", "kube-listen").map(Some),
    }
}

/// Proves that the cache is current.
pub fn prover(upstream: &Upstream) -> Arc<Prover> {
    Arc::new(Prover::new(Arc::new(Live::new(upstream.clone()))))
}

impl Parts<'_> {
    /// Serves until the shutdown begins to drain, and then until the open requests have ended.
    pub(super) fn serve(
        self,
        listener: TcpListener,
        shutdown: Shutdown,
    ) -> impl Future<Output = io::Result<()>> + Send + use<> {
        let kinds = facade::served(&self.config.kinds, self.catalog, |name| {
            self.registry.subscribe(name)
        });
        let facade = Facade::new(
            kinds,
            self.prover,
            self.upstream.clone(),
            self.consumers,
            self.config.facade,
        );
        if let Ok(address) = listener.local_addr() {
            info!(%address, passthrough = self.config.facade.passthrough, "the facade listens");
        }
        KubeApi::behind(self.door, Arc::new(facade), shutdown).serve(listener, self.tls)
    }
}

/// Waits for the facade's open requests to end, within the grace period.
pub(super) async fn drained(
    facade: JoinHandle<io::Result<()>>,
    shutdown: &Shutdown,
) -> Result<(), AppError> {
    shutdown.drain();
    tokio::select! {
        ended = facade => match ended {
            Ok(ended) => Ok(ended?),
            // The panic has been logged.
            Err(_) => Err(AppError::Ended { part: "the facade" }),
        },
        () = shutdown.over() => Ok(()),
    }
}
