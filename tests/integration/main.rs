//! Tests against a real API server, all in one binary: it is linked once, and its tests share one cluster.

#[path = "../cluster/mod.rs"]
mod cluster;

#[path = "../validators/mod.rs"]
mod validators;

mod aerospike;
mod churn;
mod clients;
mod configuration;
mod crds;
mod faults;
mod harness;
mod kinds;
mod kstatus;
mod lifecycle;
mod manifest;
mod maps;
mod python;
mod readiness;
mod restore;
mod slow;
mod support;
mod sync;
