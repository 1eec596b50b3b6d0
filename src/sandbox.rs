//! A Kubernetes to try things out on: no etcd, no nodes, nothing but this process.
//!
//! ```text
//!  store     one lock, one revision; each resource's objects in a Kind of the cache
//!  verbs     create, update, patch; lifecycle: deletion, owners, namespaces; crd: custom kinds
//!  world     what schedulers, kubelets, controllers and people do on a real cluster
//!  http      the writes as Kubernetes's protocol has them; run: on a loopback port
//! ```
//!
//! Reading from it is the cache's and `kubeapi`'s work, the same as in the daemon. What it does not do: it checks no
//! credentials, admits everything, keeps no field ownership, validates no custom kind, and forgets all when it ends.

mod conform;
mod crd;
mod defaults;
pub mod definition;
pub mod fields;
pub mod http;
pub mod lifecycle;
mod names;
pub mod patch;
pub mod protobuf;
pub mod refusal;
mod reviews;
pub mod run;
pub mod store;
pub mod traffic;
mod types;
pub mod validate;
pub mod verbs;
pub mod world;

#[cfg(test)]
mod tests;

pub use conform::FieldValidation;
pub use lifecycle::DeleteOptions;
pub use patch::Patch;
pub use refusal::Refusal;
pub use store::{Id, Served, Settings, Store};
pub use verbs::{Options, Part, Written};
pub use world::{World, WorldSettings};
