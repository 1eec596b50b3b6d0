//! Reads `facade`: how the port that speaks Kubernetes's protocol answers.

use std::net::SocketAddr;

use super::{
    read::set,
    yaml::{Field, Reader},
};

const PASSTHROUGH: [(&str, bool); 2] = [("none", false), ("reads", true)];
const UNSET: [(&str, bool); 2] = [("mostRecent", false), ("any", true)];
/// For messages and the example.
pub(super) const DEFAULT_PORT: u16 = 7481;

/// How the facade answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FacadeConfig {
    /// What is not cached is asked of the API server, with the caller's credentials.
    pub passthrough: bool,
    /// A read that names no version gets what is at hand, unproven.
    pub unset_is_any: bool,
}

pub(super) fn read(reader: &mut Reader, field: &Field<'_>, facade: &mut FacadeConfig) {
    let map = reader.map(field, &["passthrough", "unset"]);
    if let Some(field) = map.get("passthrough") {
        let passthrough = reader.choice(&field, &PASSTHROUGH);
        set(&mut facade.passthrough, passthrough);
    }
    if let Some(field) = map.get("unset") {
        let unset = reader.choice(&field, &UNSET);
        set(&mut facade.unset_is_any, unset);
    }
}

/// `off`, or an address.
pub(super) fn address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    super::read::address(text, DEFAULT_PORT).map(Some)
}
