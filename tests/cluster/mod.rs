//! A real Kubernetes for the integration tests and benches, and the tools that disturb and observe it.
//!
//! | what | where |
//! |---|---|
//! | clusters: [`shared`], [`private`] | `control_plane.rs`, built by `binaries.rs`, run by `process.rs` |
//! | who asked the API server what | `audit.rs` |
//! | objects and changes: [`fill_pods`], [`Churn`] | `load.rs` |
//! | cuts, half-open connections, delays, and each byte that came: [`Proxy`] | `proxy.rs` |
//! | what is true: [`DirectWatch`], [`list_exact`] | `oracle.rs` |
//! | tokens that end soon: [`short_token`] | `tokens.rs` |
//! | an authorizer beside RBAC: [`Webhook`] | `webhook.rs` |
//! | certificates with lifetimes: [`Authority`] | `pki.rs` |
//! | database clusters of both operators, whose nodes are a model's: [`aerospike`] | `aerospike.rs` |
//! | the daemon as a process: [`Daemon`] | `daemon.rs` |
//! | a Python with the package of clients/python: [`python`] | `venv.rs` |
//! | a cluster without Go: [`Sandbox`] | `sandbox.rs` |
//!
//! A test begins with
//!
//! ```ignore
//! let Some(cluster) = cluster::shared().await else { return };
//! ```
//!
//! Everything listens on 127.0.0.1 and ends with the test process. CONTRIBUTING.md lists the environment variables.

// One harness for several binaries (tests, benches), none of which uses all of it.
#![allow(
    dead_code,
    unused_imports,
    reason = "each binary uses the part that it needs"
)]

use std::{env, path::PathBuf};

use tokio::sync::OnceCell;

pub mod aerospike;
mod audit;
mod binaries;
mod control_plane;
mod daemon;
mod http;
mod load;
mod oracle;
mod pki;
mod process;
mod proxy;
mod sandbox;
mod tokens;
mod venv;
mod webhook;

pub use audit::{AuditLog, AuditedRequest};
pub use binaries::{
    go_client, go_example, go_watcher, grpcurl, has_go, has_go_for, informers, kstatus, selectors,
    wire,
};
pub use control_plane::{
    Cluster, Credential, Extent, NODES, TEST_USER_AGENT, USERS, client, token,
};
pub use daemon::{Daemon, Ports};
pub use http::{get, get_as, status};
pub use load::{Churn, ChurnOptions, Operation, Write, fill_namespaces, fill_pods};
pub use oracle::{DirectWatch, Listed, Seen, list_exact};
pub use pki::{Authority, Certificate};
pub use process::{Process, Scratch, free_port};
pub use proxy::{Proxy, rerouted};
pub use sandbox::Sandbox;
pub use tokens::short_token;
pub use venv::python;
pub use webhook::Webhook;

/// Of the harness: whatever it was, with words for the person who runs the tests.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The cluster that the tests of this process share, started on first use. `None`, after a loud line, where there
/// is neither Go nor an existing cluster to use; with INFORMERD_REQUIRE_CLUSTER=1 that is a failure.
pub async fn shared() -> Option<&'static Cluster> {
    static SHARED: OnceCell<Result<Cluster, String>> = OnceCell::const_new();
    if existing().is_none() && !can_start() {
        return None;
    }
    let cluster = SHARED
        .get_or_init(async || match existing() {
            Some(kubeconfig) => Ok(Cluster::existing(kubeconfig)),
            None => Cluster::start(Extent::Full)
                .await
                .map_err(|e| e.to_string()),
        })
        .await;
    match cluster {
        Ok(cluster) => Some(cluster),
        Err(why) => panic!("no cluster for the tests: {why}"),
    }
}

/// An etcd and an API server for one test alone, to restart, compact and kill. `None` as for [`shared`], and where
/// the tests are to use an existing cluster only.
pub async fn private() -> Option<Cluster> {
    private_with(Vec::new()).await
}

/// The same with these flags of the API server beside the usual ones; to one that is a list there they add.
pub async fn private_with(flags: Vec<String>) -> Option<Cluster> {
    if existing().is_some() {
        binaries::say(
            "skipped a test that restarts its API server: INFORMERD_TEST_KUBECONFIG is set",
        );
        return None;
    }
    if !can_start() {
        return None;
    }
    match Cluster::start_with(Extent::Api, flags).await {
        Ok(cluster) => Some(cluster),
        Err(why) => panic!("no cluster for this test: {why}"),
    }
}

/// A binary that is kubectl when its first argument is `kubectl`. `None` as for [`shared`].
pub async fn kubectl() -> Option<PathBuf> {
    if !can_start() {
        return None;
    }
    match binaries::control_plane().await {
        Ok(binaries) => Some(binaries.control_plane),
        Err(why) => panic!("kubectl cannot be built: {why}"),
    }
}

fn existing() -> Option<PathBuf> {
    env::var_os("INFORMERD_TEST_KUBECONFIG")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

fn can_start() -> bool {
    has_go_for("ALL TESTS THAT NEED A CLUSTER (or set INFORMERD_TEST_KUBECONFIG)")
}
