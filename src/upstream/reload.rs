//! Keeps the credentials fresh: looks at the files they come from, and renews those that end.
//!
//! By reading, not by inotify: a mounted Secret is a symlink that is swapped, and a few small files every few
//! seconds cost nothing. A state in between (a certificate whose key is not written yet) keeps the old clients.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::config::AuthInfo;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Clients, ConnectError, Upstream, UpstreamSettings,
    kubeconfig::{Files, KubeSource, load},
    transport::{Transport, client},
};

/// Credentials are renewed this long before they end.
const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// Renewals that somebody or a timer asked for, at most once in this time: an exec plugin may be a sign-in.
const RENEW_AT_MOST_EVERY: Duration = Duration::from_secs(10);

/// The task that rebuilds an [`Upstream`]'s clients.
pub struct Reloader {
    upstream: Upstream,
    source: KubeSource,
    held: Held,
    /// The last complaint, so that each is logged once.
    complaint: Option<String>,
}

/// What the clients in use were made from.
pub(super) struct Held {
    files: Files,
    expires: Option<Timestamp>,
    context: Option<String>,
    server: String,
}

pub(super) async fn build(
    source: &KubeSource,
    settings: &UpstreamSettings,
    generation: u64,
) -> Result<(Clients, Held), ConnectError> {
    let loaded = load(source).await?;
    let transport = |read_timeout| Transport {
        user_agent: settings.user_agent.clone(),
        connect_timeout: settings.connect_timeout,
        read_timeout,
    };
    let make = |read_timeout| {
        client(
            loaded.config.clone(),
            loaded.proxy.as_ref(),
            &transport(read_timeout),
        )
        .map_err(|error| ConnectError::Client(Box::new(error)))
    };
    let mut nobody = loaded.config.clone();
    nobody.auth_info = AuthInfo::default();
    let caller = client(nobody, loaded.proxy.as_ref(), &transport(None));
    let clients = Clients {
        watch: make(None)?,
        api: make(Some(settings.list_timeout))?,
        caller: caller.map_err(|error| ConnectError::Client(Box::new(error)))?,
        generation,
        fingerprint: loaded.fingerprint,
    };
    let server = loaded.config.cluster_url.to_string();
    Ok((
        clients,
        Held {
            files: loaded.files,
            expires: loaded.expires,
            context: loaded.context,
            server,
        },
    ))
}

impl Reloader {
    pub(super) fn new(upstream: Upstream, mut source: KubeSource, held: Held) -> Self {
        // Somebody's `kubectl config use-context` must not move a running daemon to another cluster.
        source.context = source.context.or_else(|| held.context.clone());
        Self {
            upstream,
            source,
            held,
            complaint: None,
        }
    }

    /// Runs until dropped.
    pub async fn run(mut self) {
        let shared = Arc::clone(&self.upstream.shared);
        let interval = shared.settings.reload_interval;
        let mut renew_allowed = Instant::now();
        loop {
            let renew = tokio::select! {
                () = shared.invalid.notified() => true,
                () = sleep(interval) => self.expires_soon(),
            };
            if renew {
                sleep_until(renew_allowed).await;
                renew_allowed = Instant::now() + RENEW_AT_MOST_EVERY;
            }
            self.refresh(renew).await;
        }
    }

    fn expires_soon(&self) -> bool {
        self.held
            .expires
            .is_some_and(|expires| Timestamp::now() + RENEW_BEFORE >= expires)
    }

    /// Rebuilds the clients if a file changed, or anyway if `renew`.
    pub(super) async fn refresh(&mut self, renew: bool) {
        if !renew && !self.held.files.changed() {
            return;
        }
        let current = self.upstream.current();
        match build(
            &self.source,
            &self.upstream.shared.settings,
            current.generation + 1,
        )
        .await
        {
            Ok((clients, held)) => {
                if held.server != self.held.server {
                    tracing::warn!(
                        from = self.held.server,
                        to = held.server,
                        "the API server's address changed"
                    );
                }
                self.held = held;
                self.complaint = None;
                if clients.fingerprint != current.fingerprint {
                    self.publish(clients);
                }
            }
            Err(error) => self.complain(error.to_string()),
        }
    }

    fn publish(&self, clients: Clients) {
        let generation = clients.generation;
        self.upstream.shared.current.store(Arc::new(clients));
        self.upstream.shared.changed.send_replace(generation);
        metrics::counter!("informerd_upstream_reloads_total", "result" => "changed").increment(1);
        tracing::info!(generation, "the credentials for the API server changed");
    }

    fn complain(&mut self, error: String) {
        metrics::counter!("informerd_upstream_reloads_total", "result" => "failed").increment(1);
        if self.complaint.as_ref() != Some(&error) {
            tracing::warn!(
                error,
                "cannot use the changed credentials for the API server; going on with the old ones"
            );
            self.complaint = Some(error);
        }
    }
}
