//! grpc.health.v1, for those who speak gRPC to the process anyway: the same as `/readyz`.

use std::{sync::Arc, time::Duration};

use async_broadcast::{Receiver, RecvError};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use super::{FirstSync, KindTransition, Transitions};
use crate::{
    heartbeat::Heartbeat,
    shutdown::{Shutdown, Stage},
};

/// The services that it tells of; the empty name is the process as a whole.
const SERVICES: [&str; 3] = [
    "",
    "informerd.v1.CacheService",
    "informerd.v1.IntrospectionService",
];

/// Largest request that is read: it names a service.
const MAX_REQUEST: usize = 1 << 10;

/// How often it is looked whether all kinds have been listed, should a transition have told nothing of it.
const EVERY: Duration = Duration::from_secs(1);

/// Tells grpc.health.v1 how the process is.
#[derive(Debug)]
pub struct Reporting {
    reporter: HealthReporter,
    transitions: Receiver<Arc<KindTransition>>,
}

/// The service, which says NOT_SERVING until its other half runs and has something better to say.
pub async fn service(transitions: &Transitions) -> (HealthServer<HealthService>, Reporting) {
    let reporter = HealthReporter::new();
    let service = HealthServer::new(HealthService::from_health_reporter(reporter.clone()))
        .max_decoding_message_size(MAX_REQUEST);
    let reporting = Reporting {
        reporter,
        transitions: transitions.subscribe(),
    };
    reporting.say(ServingStatus::NotServing).await;
    (service, reporting)
}

impl Reporting {
    /// Says SERVING when the first sync is done, NOT_SERVING when draining begins, and ends.
    pub async fn run(
        mut self,
        first_sync: Arc<FirstSync>,
        heartbeat: Heartbeat,
        shutdown: Shutdown,
    ) {
        let mut timer = tokio::time::interval(EVERY);
        let mut serving = false;
        while shutdown.stage() == Stage::Running {
            if !serving && first_sync.is_done() {
                serving = true;
                tracing::info!("ready: every eager kind has been listed");
                self.say(ServingStatus::Serving).await;
            }
            heartbeat.beat();
            tokio::select! {
                () = shutdown.draining() => {}
                _ = timer.tick() => {}
                // Having missed some makes no difference: it is looked again.
                Ok(_) | Err(RecvError::Overflowed(_)) = self.transitions.recv_direct(), if !serving => {}
            }
        }
        self.say(ServingStatus::NotServing).await;
    }

    async fn say(&self, status: ServingStatus) {
        for service in SERVICES {
            self.reporter.set_service_status(service, status).await;
        }
    }
}

#[cfg(test)]
impl Reporting {
    /// The service without its wire.
    pub(super) fn asked(&self) -> HealthService {
        HealthService::from_health_reporter(self.reporter.clone())
    }
}
