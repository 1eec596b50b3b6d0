//! informerd: one watch per Kubernetes resource kind, shared by everybody.

pub mod api;
pub mod cache;
pub mod digest;
pub mod object;
pub mod proto;
