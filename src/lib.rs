//! informerd: one watch per Kubernetes resource kind, shared by everybody.

pub mod cache;
pub mod controller;
pub mod digest;
pub mod feed;
pub mod heartbeat;
pub mod object;
pub mod proto;
pub mod shutdown;
pub mod telemetry;
