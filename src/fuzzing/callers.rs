//! What callers say of themselves: certificates, and headers by which they act for somebody else.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::split;
use crate::auth::{certificate, impersonate};

/// Whoever a certificate is for has a name that looks like what it is.
pub(super) fn certificate(data: &[u8]) {
    let Some((identity, _)) = certificate::owner(data) else {
        return;
    };
    assert!(!identity.user.is_empty());
    let names = identity
        .groups
        .iter()
        .chain([&identity.user, &identity.uid]);
    for name in names {
        assert!(!name.chars().any(char::is_control), "{name:?}");
    }
}

/// Nobody acts for somebody without a permission that is asked for: one for the user, and one for each other part.
pub(super) fn impersonation(data: &[u8]) {
    let (mut headers, mut rest) = (HeaderMap::new(), data);
    while !rest.is_empty() {
        let (line, after) = split(rest);
        rest = after;
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    if let Ok(Some((identity, needed))) = impersonate::asked(&headers) {
        assert!(!identity.user.is_empty());
        assert!(!needed.is_empty());
    }
}
