//! informerd: one watch per Kubernetes resource kind, shared by everybody.

pub mod args;
pub mod config;
pub mod discovery;
pub mod object;
pub mod proto;
pub mod upstream;
