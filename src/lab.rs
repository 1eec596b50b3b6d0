//! The lab: a cluster that is a map with revisions, replicas of the daemon in front of it, and consumers, under a
//! scheduler that leaves everything to a seed.
//!
//! What runs is what a daemon runs, from the bytes of the API server's answers to those of the service's: the state
//! machine of the source, the decoder, the cache, its cursors, the merged stream and its tokens. Only sockets and time
//! are not real: who does something next, and how late it is, is drawn. So each history can be had again by its seed,
//! and thousands of them fit into a minute.
//!
//! `INFORMERD_HISTORIES=1000000` runs as many, `INFORMERD_SEED=7` that one alone.

use tokio::task::unconstrained;

use crate::aerospike::simulation::histories;

mod cases;
mod cluster;
mod consumer;
mod planted_bugs;
mod replica;
mod server;
mod world;

use cases::Cases;
use world::World;

/// In a debug build a history takes some 15 ms.
const HISTORIES: u64 = 400;

async fn history(seed: u64) -> Cases {
    // Nobody else is to have a turn in this thread.
    unconstrained(World::new(seed).run()).await
}

#[test]
fn in_random_histories_every_consumer_holds_what_the_cluster_has() {
    let tallies = histories(HISTORIES, history);
    let mut all = Cases::default();
    tallies.iter().for_each(|cases| all.add(cases));
    println!("{all}");
    if tallies.len() > 1 {
        assert_eq!(
            all.missing(),
            Vec::<&str>::new(),
            "cases that never occurred"
        );
    }
}
