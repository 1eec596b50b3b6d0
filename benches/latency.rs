//! How much later than by a watch of its own a consumer hears of a change through informerd.
//!
//! A real API server, a writer, and two readers of the same events in one process: a direct watch, of which only
//! the line's identity is read, and informerd's stream. Per event, the one's receipt is taken from the other's.
//! Ends with an error where the limit is missed. Needs Go, as the integration tests do.

#[path = "../tests/cluster/mod.rs"]
mod cluster;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use cluster::{Churn, ChurnOptions, Daemon};
use informerd::proto::{Scope, WatchObjectsRequest, cache_service_client::CacheServiceClient};

mod common {
    pub mod receipts;
}
use common::receipts::{Receipts, ms};

/// Of the median event, in ms.
const LIMIT_P50: f64 = 1.0;
const ROUNDS: u64 = 3;
const ROUND: Duration = Duration::from_secs(10);
const NAMESPACE: &str = "latency";

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match runtime.block_on(run()) {
        Ok(within) => ExitCode::from(u8::from(!within)),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<bool, cluster::Error> {
    let Some(cluster) = cluster::private().await else {
        return Err("this bench needs a control plane of its own".into());
    };
    let daemon = Daemon::start("kinds: [pods]", cluster.kubeconfig()).await;
    let (direct, served) = (Receipts::default(), Receipts::default());
    direct.watch_directly(&cluster, "/api/v1/pods").await?;
    watch_informerd(&daemon, served.clone()).await?;
    println!("added latency of informerd over a direct watch of the same events, N = 1 each");
    println!(
        "{:>6} {:>8} {:>12} {:>12}",
        "round", "events", "p50 ms", "p99 ms"
    );
    let mut medians = Vec::new();
    for round in 0..ROUNDS {
        let options = ChurnOptions {
            seed: round,
            namespace: NAMESPACE.into(),
            rate: 60,
            ..ChurnOptions::default()
        };
        let churn = Churn::start(cluster.client().await, options).await?;
        tokio::time::sleep(ROUND).await;
        let (writes, failures) = churn.stop().await;
        if let Some(failure) = failures.first() {
            return Err(format!("a write failed: {failure}").into());
        }
        let last = writes.last().ok_or("nothing was written")?;
        direct.wait_for(&last.resource_version).await?;
        served.wait_for(&last.resource_version).await?;
        let (direct, served) = (direct.take(), served.take());
        // A version that was folded away on the one stream is not on the other: only pairs count.
        let mut added: Vec<f64> = served
            .iter()
            .filter_map(|(version, at)| Some((at, direct.get(version)?)))
            .map(|(served, direct)| ms(*direct, *served))
            .collect();
        added.sort_by(f64::total_cmp);
        let (p50, p99) = (added[added.len() / 2], added[added.len() * 99 / 100]);
        println!("{round:>6} {:>8} {p50:>12.3} {p99:>12.3}", added.len());
        medians.push(p50);
    }
    medians.sort_by(f64::total_cmp);
    let median = medians[medians.len() / 2];
    let within = median <= LIMIT_P50;
    let verdict = if within { "within" } else { "OVER" };
    println!("median p50 {median:.3} ms, {verdict} the limit of {LIMIT_P50} ms");
    Ok(within)
}

async fn watch_informerd(daemon: &Daemon, receipts: Receipts) -> Result<(), cluster::Error> {
    let mut client = CacheServiceClient::connect(format!("http://{}", daemon.server())).await?;
    let request = WatchObjectsRequest {
        scope: Some(Scope {
            resource: "pods".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut stream = client.watch_objects(request).await?.into_inner();
    tokio::spawn(async move {
        while let Ok(Some(message)) = stream.message().await {
            let at = Instant::now();
            for event in message.events {
                // A deletion's version is its revision.
                receipts.note(event.revision.to_string(), at);
            }
        }
    });
    Ok(())
}
