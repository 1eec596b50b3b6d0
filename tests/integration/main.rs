//! Tests against a real API server, all in one binary: it is linked once, and its tests share one cluster.

#[path = "../cluster/mod.rs"]
mod cluster;

mod harness;
mod manifest;
