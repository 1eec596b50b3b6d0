//! Compiles proto/ with protox, so that no protoc is needed on the machine.

use std::{env, error::Error, path::PathBuf};

const PROTOS: [&str; 4] = [
    "proto/informerd/v1/types.proto",
    "proto/informerd/v1/cache.proto",
    "proto/informerd/v1/introspection.proto",
    "proto/informerd/v1/readiness.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Served by reflection, so that grpcurl works without our files.
    std::fs::write(
        out.join("informerd.v1.bin"),
        protox::prost::Message::encode_to_vec(&descriptors),
    )?;
    tonic_prost_build::configure()
        // Objects are slices of the cache's own memory: no copy on the way out.
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
