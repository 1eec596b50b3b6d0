//! informerd: one watch per Kubernetes resource kind, shared by everybody.

pub mod cache;
pub mod digest;
pub mod discovery;
pub mod object;
pub mod proto;
pub mod source;
pub mod upstream;
