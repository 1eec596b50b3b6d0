//! The gRPC API's generated types (proto/informerd/v1), and nothing else.

#![allow(missing_docs, reason = "generated; the documentation is in proto/")]
#![allow(clippy::all, reason = "generated")]

tonic::include_proto!("informerd.v1");

/// The compiled descriptors, as gRPC reflection serves them.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/informerd.v1.bin"));
