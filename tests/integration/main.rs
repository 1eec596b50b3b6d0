//! Tests against a real API server, all in one binary: it is linked once, and its tests share one cluster.

#[path = "../cluster/mod.rs"]
mod cluster;

#[path = "../validators/mod.rs"]
mod validators;

mod aerospike;
mod audit;
mod churn;
mod clients;
mod configuration;
mod crds;
mod facade;
mod faults;
mod go_client;
mod handover;
mod harness;
mod kinds;
mod kstatus;
mod kubeapi_table;
mod lifecycle;
mod manifest;
mod maps;
mod python;
mod readiness;
mod restore;
#[cfg(feature = "sandbox")]
mod sandbox;
mod selectors;
mod sign_in;
mod slow;
mod storm;
mod support;
mod sync;
mod through;
mod trust;
