//! **informerd** watches each kind of a Kubernetes cluster once, and serves that one cache to any number of
//! consumers: controllers inside the process, everybody else over gRPC.
//!
//! # The way data flows
//!
//! ```text
//!  kube-apiserver
//!      | LIST / WATCH / WatchList: one per kind, or per namespace where the config says so
//!      v
//!  source      a state machine per shard; objects are decoded and pruned while they are parsed (object)
//!      | upsert, delete, relist, bookmark
//!      v
//!  cache       the shard's one Writer publishes an immutable State a batch: objects, change index, journal
//!      | readers load a State and walk it; every consumer is a Cursor
//!      |---------------------------|---------------------------------------|
//!      v                           v                                       v
//!  feed: kube's shared store    api: CacheService, ReadinessService,    kubeapi: Kubernetes's own read
//!      v                           ^ IntrospectionService               protocol; the facade over the cache
//!  controller: node, service, workload (kube Controllers; what to do is decided by pure functions),
//!      |       aerospike (the same, and asks database nodes how they are: aerospike)
//!      v                           |
//!  readiness   the board, one verdict for each target: the cache's machine over verdicts
//! ```
//!
//! Data goes one way; there are no loops. `app` wires it all and nothing else does. Beside the way stand:
//! `config` and `args` (what to watch), `upstream` (the connection to the API server), `discovery` (which kinds
//! it serves), `auth` (who calls, and what they may see), `tls`, `connections` (which there are), `quota` (how much of
//! something an address may have), `patience` (how long a connection is waited for), `proof` (asks the API server whether what is cached is current), `columns` (what tables show of a kind),
//! `aerospike` (the info protocol: asks database nodes, and judges what they say), `admin` (metrics and health),
//! `client` and `cli` (the other end of the wire), `audit` (compares the cache of a running daemon with the API
//! server), `kubeconfig`, `telemetry`, `heartbeat`, `shutdown`; and `sandbox` (a Kubernetes in memory, to try all this
//! out on), `planted` (bugs that tests plant, to see that they would find
//! them) and `fuzzing` (what a fuzzer calls), which a release image leaves out.
//!
//! # Who may know whom
//!
//! `object` <- `cache` <- `source`, `feed`, `readiness`, `api`, `admin`; `feed`, `readiness` <- `controller`;
//! `aerospike` <- `controller`; `readiness` <- `api`; `auth`, `tls`, `patience`, `connections` <- `api`, `kubeapi`;
//! `quota` <- `auth`; `connections` <- `auth`, `tls`; `cache` <- `kubeapi` <- `facade`, and `proof` <- `api`, `facade`. Only `source`, `discovery`, `proof`, `auth`, `upstream`, where it polls
//! `controller::aerospike`, and the facade where it passes a caller's request through, talk to the API server. Only
//! `api`, `client` and `admin` (for health) know gRPC; `cache` knows neither. Only `app` sees all.
//! `tests/architecture.rs` holds this.
//!
//! # Invariants
//!
//! - Invariant: at most one upstream watch per kind and shard, whatever the number of consumers and controllers
//!   (`tests/integration`, by the API server's own audit log); beside it only the seconds of a proof that a reader
//!   asked for, of which there is one at a time and a rate that is limited (`proof::tests`), and, where callers sign
//!   in, one watch of each kind that permissions are made of.
//! - Invariant: the facade is never silently staler than the API server would be: what is not proven, or not all
//!   there, is refused or says so (`facade::tests`, `tests/integration/kubeapi_table.rs`).
//! - Invariant: state and journal agree. Replaying the journal from any retained point gives the state
//!   (`cache::simulation`, `lab`); a running digest checks the state itself once a minute, and a metric counts mismatches.
//! - Invariant: no consumer, in the process or outside, can delay another one or the upstream. Consumers pull; a
//!   state is kept for one that dawdles for a minute at most (`benches/slow_consumer.rs`).
//! - Invariant: nothing is served before the first complete list of its kind; a partial list is never published,
//!   and sweeps nothing (`source::tests`).
//! - Invariant: memory is bounded by objects + journal + consumers times a small constant: no cursor keeps what the
//!   journal has forgotten (`cache::simulation`), and what is counted is what is held (`benches/publish.rs`). What
//!   the allocator leaves unused comes on top.
//! - Invariant: what is pruned never reaches the cache, and what is served says that it is pruned.
//! - Invariant: a verdict is never Ready from silence, from another uid or from another generation; what nothing
//!   recent supports becomes Unknown by itself (`readiness::tests`, `controller::workload::tests`).
//! - Invariant: a database cluster is never Ready from the silence of a node, from a majority, or from what was said of
//!   other pods than there are now; each true verdict's window holds an instant at which it was so, and what is so is
//!   said within two probe intervals (`aerospike::simulation`, `controller::aerospike::simulation`).
//! - Invariant: a wait that is made after a write is not satisfied by what was before it (`api::readiness::tests`).
//! - Invariant: where callers are asked who they are, nothing is looked up for one before the API server has said
//!   that it may have it, and nothing reaches it 30 s after it may not any more (`auth::tests`,
//!   `tests/integration/trust.rs`).
//! - Invariant: what is made for callers and that they do not read is bounded, for each connection and each identity
//!   (`auth::in_flight`, `benches/hostile.rs`), and so is how many old states they keep alive (`auth::snapshots`).
//! - Invariant: a token is given only where all that was sent before it is complete (`api::merge`).
//!
//! # What it costs
//!
//! A kind with a controller is held in two maps of the same handles: the cache's and kube's `Store`, about 312 B an
//! object. That is the price of kube's `Controller`; `informerd_feed_store_objects` shows it, and kinds without a
//! controller have no feed.

#![forbid(unsafe_code)]

pub mod admin;
pub mod aerospike;
pub mod api;
pub mod app;
pub mod args;
pub mod audit;
pub mod auth;
pub mod cache;
pub mod cli;
pub mod client;
pub mod columns;
pub mod config;
pub mod connections;
pub mod controller;
pub mod digest;
pub mod discovery;
pub mod facade;
pub mod feed;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod heartbeat;
pub mod kubeapi;
pub mod kubeconfig;
#[cfg(test)]
mod lab;
pub mod object;
pub mod patience;
pub mod planted;
pub mod proof;
pub mod proto;
pub mod quota;
pub mod readiness;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod shutdown;
pub mod source;
pub mod telemetry;
pub mod tls;
pub mod upstream;
