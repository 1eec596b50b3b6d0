//! What happens to kinds, told as it happens: in the log, and to whoever subscribes.

use std::{sync::Arc, time::Duration};

use async_broadcast::{InactiveReceiver, Receiver, Sender};

use crate::{
    cache::{Catalog, Doorbell, Phase, Status, WakeScope},
    heartbeat::Heartbeat,
    shutdown::{Shutdown, Stage},
};

/// How many transitions a subscriber may be behind before it misses the oldest.
const CAPACITY: usize = 256;

/// A busy kind wakes the watch with each batch; it looks no more often than this. What comes and goes within is
/// not told.
const PAUSE: Duration = Duration::from_millis(20);

/// A kind, or the part of it in one namespace, went from one phase to another, or has another reason to be in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindTransition {
    /// As the config names it.
    pub kind: String,
    /// Empty where the kind is watched as a whole.
    pub namespace: String,
    /// The phase before.
    pub from: Phase,
    /// The phase now.
    pub to: Phase,
    /// One word; empty while all is well.
    pub reason: String,
    /// The same for a person.
    pub message: String,
}

/// Tells of transitions. A subscriber that does not listen misses the oldest and delays nobody.
#[derive(Clone, Debug)]
pub struct Transitions {
    sender: Sender<Arc<KindTransition>>,
    /// Keeps the channel open while nobody listens.
    inactive: InactiveReceiver<Arc<KindTransition>>,
}

impl Default for Transitions {
    fn default() -> Self {
        Self::new()
    }
}

impl Transitions {
    /// With nobody who listens.
    pub fn new() -> Self {
        let (mut sender, receiver) = async_broadcast::broadcast(CAPACITY);
        sender.set_overflow(true);
        sender.set_await_active(false);
        Self {
            sender,
            inactive: receiver.deactivate(),
        }
    }

    /// All transitions from now on.
    pub fn subscribe(&self) -> Receiver<Arc<KindTransition>> {
        self.inactive.activate_cloned()
    }

    /// Watches the kinds until draining begins.
    pub async fn watch(self, catalog: Catalog, heartbeat: Heartbeat, shutdown: Shutdown) {
        let bell = Arc::new(Doorbell::default());
        let shards: Vec<_> = catalog
            .iter()
            .flat_map(|kind| {
                kind.shards()
                    .iter()
                    .map(move |shard| (kind.name.clone(), shard.clone()))
            })
            .collect();
        let _subscriptions: Vec<_> = shards
            .iter()
            .map(|(_, shard)| shard.subscribe(vec![WakeScope::All], &bell))
            .collect();
        let mut seen: Vec<Arc<Status>> = shards.iter().map(|(_, shard)| shard.status()).collect();
        let mut beat = Heartbeat::timer();
        while shutdown.stage() == Stage::Running {
            for ((kind, shard), seen) in shards.iter().zip(&mut seen) {
                let status = shard.status();
                if !Arc::ptr_eq(seen, &status) {
                    self.tell(kind, shard.namespace(), seen, &status);
                    *seen = status;
                }
            }
            heartbeat.beat();
            tokio::select! {
                () = shutdown.draining() => {}
                () = bell.rung() => tokio::time::sleep(PAUSE).await,
                _ = beat.tick() => {}
            }
        }
    }

    fn tell(&self, kind: &str, namespace: &str, before: &Status, now: &Status) {
        if before.phase == now.phase && before.reason == now.reason {
            return;
        }
        let transition = KindTransition {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            from: before.phase,
            to: now.phase,
            reason: now.reason.clone(),
            message: now.message.clone(),
        };
        // Fails only while nobody listens.
        let _ = self.sender.try_broadcast(Arc::new(transition));
    }
}
