//! informerd: one watch per Kubernetes resource kind, shared by everybody.

pub mod api;
pub mod args;
pub mod cache;
pub mod cli;
pub mod client;
pub mod config;
pub mod digest;
pub mod discovery;
pub mod object;
pub mod proto;
pub mod upstream;
