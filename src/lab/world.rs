//! One history: a cluster, two replicas, their consumers, and a scheduler that lets one of them do one thing at a
//! time. All that is left to chance comes from the seed.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::advance;

use super::{cases::Cases, cluster::Cluster, consumer::Consumer, replica::Replica};

/// Things that happen in a history.
const LENGTH: usize = 160;
const CONSUMERS: usize = 3;
/// When nothing goes wrong any more, all is well within this: a watch may have to be found silent first, and that
/// takes 130 s. Connections end by themselves only after 330.
const RECOVERY: Duration = Duration::from_secs(290);

/// See the module's documentation.
pub(super) struct World {
    rng: Rng,
    cluster: Cluster,
    replicas: Vec<Replica>,
    consumers: Vec<Consumer>,
    cases: Cases,
    /// Where one history is looked at, it is told.
    tells: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let cluster = Cluster::new(rng.fork());
        let replicas = (0..2)
            .map(|name| Replica::new(name, any_config(&mut rng), &mut rng))
            .collect();
        let consumers = (0..CONSUMERS)
            .map(|name| Consumer::new(name, rng.usize(..2), &mut rng))
            .collect();
        Self {
            rng,
            cluster,
            replicas,
            consumers,
            cases: Cases::default(),
            tells: std::env::var_os("INFORMERD_SEED").is_some(),
        }
    }

    /// From its beginning to the day after, when everybody must have the same.
    pub(super) async fn run(mut self) -> Cases {
        for _ in 0..LENGTH {
            self.happen().await;
        }
        self.recover().await;
        self.finish().await;
        self.cases
    }

    async fn happen(&mut self) {
        self.look_at_replicas();
        let replica = self.rng.usize(..self.replicas.len());
        let consumer = self.rng.usize(..self.consumers.len());
        match self.rng.u8(..100) {
            0..22 => {
                for _ in 0..self.rng.u8(1..4) {
                    self.cluster.change();
                }
            }
            22..52 => {
                self.replicas[replica].turn(&mut self.cluster, true, &mut self.cases);
            }
            52..62 => {
                let passes = match self.rng.u8(..12) {
                    // A machine that slept.
                    0 => self.rng.u64(200..900),
                    1 | 2 => self.rng.u64(30..150),
                    _ => self.rng.u64(0..8),
                };
                self.pass(Duration::from_millis(passes * 1000 + 300)).await;
            }
            62..64 => {
                let back = self.rng.u64(..6);
                self.cluster.compact(back);
            }
            64 if self.rng.u8(..4) == 0 => {
                let back = self.rng.u64(..8);
                self.cluster.restore(back);
                for replica in &mut self.replicas {
                    replica.restored(&self.cluster);
                }
            }
            65..69 => self.consumers[consumer].cut(replica),
            69 => {
                let at = self.consumers[consumer].replica;
                let replica = &self.replicas[at];
                self.consumers[consumer]
                    .change(replica, &mut self.rng)
                    .await;
            }
            70 if self.rng.u8(..3) == 0 => self.restart(replica),
            71 => self.replicas[replica].expire(),
            _ => {
                // The first one hardly ever reads.
                if consumer == 0 && self.rng.u8(..10) != 0 {
                    self.cases.saw(3);
                    return;
                }
                for _ in 0..self.rng.u8(1..5) {
                    self.read(consumer).await;
                }
            }
        }
    }

    fn look_at_replicas(&mut self) {
        let void = self.replicas.iter().filter_map(|replica| replica.void_from);
        self.cluster.ceiling = void.min();
        if self.tells {
            let replicas = self.replicas.iter().map(Replica::to_string);
            let replicas: Vec<_> = replicas.collect();
            println!(
                "the cluster is at {}, {}",
                self.cluster.revision,
                replicas.join(", ")
            );
        }
    }

    /// A new process takes a replica's place, perhaps with another configuration.
    fn restart(&mut self, at: usize) {
        self.replicas[at] = Replica::new(at, any_config(&mut self.rng), &mut self.rng);
        for consumer in &mut self.consumers {
            if consumer.replica == at {
                consumer.cut(at);
            }
        }
    }

    async fn read(&mut self, consumer: usize) -> bool {
        let consumer = &mut self.consumers[consumer];
        let replica = &self.replicas[consumer.replica];
        consumer.read(replica, &self.cluster, &mut self.cases).await
    }

    async fn pass(&mut self, time: Duration) {
        advance(time).await;
        for replica in &mut self.replicas {
            replica.tick(&self.cluster, &mut self.cases);
        }
    }

    /// Nothing goes wrong any more: the replicas come to be current.
    async fn recover(&mut self) {
        let begun = tokio::time::Instant::now();
        loop {
            self.look_at_replicas();
            for replica in &mut self.replicas {
                while replica.turn(&mut self.cluster, false, &mut self.cases) {}
            }
            let lacking = self
                .replicas
                .iter()
                .enumerate()
                .find_map(|(name, replica)| Some((name, replica.lacks(&self.cluster)?)));
            let Some((name, lack)) = lacking else {
                return;
            };
            assert!(
                begun.elapsed() < RECOVERY,
                "Live: replica {name} is not current after {RECOVERY:?}: {lack}"
            );
            self.pass(Duration::from_secs(2)).await;
        }
    }

    /// Everybody reads all there is.
    async fn finish(&mut self) {
        for at in 0..self.consumers.len() {
            let mut rounds = 0;
            loop {
                while self.read(at).await {}
                let consumer = &self.consumers[at];
                if consumer.is_complete(&self.replicas[consumer.replica]) {
                    break;
                }
                rounds += 1;
                assert!(
                    rounds < 12,
                    "Reliable: consumer {at} of replica {} does not converge",
                    consumer.replica
                );
                // A bookmark, or the end of a rest.
                advance(Duration::from_secs(10)).await;
            }
        }
    }
}

fn any_config(rng: &mut Rng) -> u64 {
    u64::from(rng.u8(..4) == 0)
}
