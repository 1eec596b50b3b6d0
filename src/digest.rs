//! The digest by which the daemon, its replicas and its clients tell whether they hold the same set.
//!
//! A sum, so that it can be kept up to date one object at a time and added up over shards; made of functions
//! that are ten lines in any language, because clients recompute it. The recipe is in docs/digest.md.

/// What one object adds to the digest of its set; the digest is the wrapping sum over all of them.
pub fn entry(key: &str, uid: &str, resource_version: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in [key, "\0", uid, "\0", resource_version] {
        for byte in part.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    // FNV alone is too regular to be summed: mix every bit into every other.
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}
