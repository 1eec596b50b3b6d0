//! The digest by which the daemon, its replicas and its clients tell whether they hold the same set.
//!
//! A sum, so that it can be kept up to date one object at a time and added up over shards; made of functions
//! that are ten lines in any language, because clients recompute it. The recipe is in docs/digest.md.

/// FNV-1a of the parts, one after the other: the standard library's hashers promise nothing across versions.
pub fn fnv1a<'a>(parts: impl IntoIterator<Item = &'a str>) -> u64 {
    let bytes = parts.into_iter().flat_map(str::bytes);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// What one object adds to the digest of its set; the digest is the wrapping sum over all of them.
pub fn entry(key: &str, uid: &str, resource_version: &str) -> u64 {
    let mut hash = fnv1a([key, "\0", uid, "\0", resource_version]);
    // FNV alone is too regular to be summed: mix every bit into every other.
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::entry;

    /// Key, uid, resourceVersion and number of each row of the vectors in the documentation, and their sum.
    fn documented() -> (Vec<(String, String, String, u64)>, u64) {
        let text = include_str!("../docs/digest.md");
        let (_, vectors) = text
            .split_once("## Test vectors")
            .expect("the section exists");
        let hex = |text: &str| u64::from_str_radix(text.trim_matches('`'), 16).expect("is hex");
        let rows = vectors
            .lines()
            .filter(|line| line.starts_with('|'))
            .skip(2)
            .map(|line| {
                let cells: Vec<&str> = line
                    .trim_matches('|')
                    .split('|')
                    .map(|c| c.trim().trim_matches('`'))
                    .collect();
                let [key, uid, version, number] = cells[..] else {
                    panic!("four cells: {line}")
                };
                (key.into(), uid.into(), version.into(), hex(number))
            })
            .collect();
        let (_, sum) = vectors
            .split_once("together is `")
            .expect("the sum is given");
        (rows, hex(&sum[..16]))
    }

    #[test]
    fn the_documented_vectors_hold() {
        let (rows, sum) = documented();
        assert_eq!(rows.len(), 5);
        for (key, uid, version, number) in &rows {
            assert_eq!(entry(key, uid, version), *number, "{key} {uid} {version}");
        }
        let all = rows.iter().fold(0u64, |sum, (key, uid, version, _)| {
            sum.wrapping_add(entry(key, uid, version))
        });
        assert_eq!(all, sum);
    }

    #[test]
    fn a_byte_that_moves_from_one_part_to_the_next_changes_the_number() {
        assert_ne!(entry("a/b", "c", "1"), entry("a/bc", "", "1"));
        assert_ne!(entry("a/b", "c1", ""), entry("a/b", "c", "1"));
    }
}
