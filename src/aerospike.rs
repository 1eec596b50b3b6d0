//! Aerospike, asked over its info protocol: what each node says, and what that proves of the cluster.
//!
//! ```text
//!  model (tests, sandbox)      nodes
//!            \                /   TCP or TLS, login          connect, login
//!             v              v
//!            prober: all nodes at once, two rounds           probe, breaker, protocol
//!                    |  Survey: who said what, and when       evidence, node
//!                    v
//!            judge: Joined, SafeToDisrupt; pure              verdict, findings
//! ```
//!
//! Nothing here knows of Kubernetes or of gRPC: members and N are handed in, verdicts are handed out.

pub mod breaker;
pub mod connect;
pub mod evidence;
mod findings;
pub mod login;
pub mod model;
pub mod node;
pub mod probe;
pub mod protocol;
pub mod verdict;

#[cfg(test)]
mod network_tests;
#[cfg(test)]
pub(crate) mod simulation;
#[cfg(test)]
mod tests;

pub use connect::Network;
pub use evidence::{Member, Survey};
pub use probe::{ProbeSettings, Prober};
pub use verdict::{Expected, Judgement, State, Verdict, judge};
