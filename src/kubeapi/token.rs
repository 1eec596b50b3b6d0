//! Continue tokens, in the form that the API server has: so a list that was begun there goes on here.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::status::Status;
use crate::object::Key;

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Continue {
    /// In which revision; `None` in whatever there is then.
    pub(super) revision: Option<u64>,
    /// After this key of the listed namespace.
    pub(super) after: After,
}

/// A place between keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Right after this key.
    Key(Key),
    /// At this key, or the next that there is.
    From(Key),
}

#[derive(Deserialize, Serialize)]
struct Encoded {
    #[serde(default)]
    v: String,
    #[serde(default)]
    rv: i64,
    #[serde(default)]
    start: String,
}

const VERSION: &str = "meta.k8s.io/v1";
/// What makes the least key after another one.
const NEXT: char = '\0';

impl Continue {
    /// Right after `key`, which a list of `namespace` (empty for all) has just come to.
    pub(super) fn after(key: &Key, namespace: &str, revision: Option<u64>) -> String {
        encode(&format!("{}{NEXT}", relative(key, namespace)), revision)
    }

    /// Reads one, for a list of `namespace`.
    pub(super) fn parse(text: &str, namespace: &str) -> Result<Self, Status> {
        let invalid = |why: String| {
            Status::bad_request(format!(
                "invalid continue token: continue key is not valid{why}"
            ))
        };
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|error| invalid(format!(": {error}")))?;
        let encoded: Encoded =
            serde_json::from_slice(&bytes).map_err(|error| invalid(format!(": {error}")))?;
        if encoded.v != VERSION {
            return Err(invalid(format!(
                ": server does not recognize this encoded version {}",
                encoded.v
            )));
        }
        let revision = match encoded.rv {
            0 => {
                return Err(invalid(
                    ": incorrect encoded start resourceVersion (version meta.k8s.io/v1)".to_owned(),
                ));
            }
            rv => u64::try_from(rv).ok(),
        };
        if encoded.start.is_empty() {
            return Err(invalid(
                ": encoded start key empty (version meta.k8s.io/v1)".to_owned(),
            ));
        }
        let start = encoded.start.strip_prefix('/').unwrap_or(&encoded.start);
        let (start, next) = match start.strip_suffix(NEXT) {
            Some(start) => (start, true),
            None => (start, false),
        };
        let leads_out = |part: &str| part.is_empty() || part == "." || part == "..";
        if start.split('/').any(leads_out) || start.contains(NEXT) {
            return Err(invalid(format!(": {}", encoded.start)));
        }
        let key = match (namespace, start.split_once('/')) {
            ("", Some((namespace, name))) => Key::new(namespace, name),
            (namespace, _) => Key::new(namespace, start),
        };
        Ok(Self {
            revision,
            after: if next {
                After::Key(key)
            } else {
                After::From(key)
            },
        })
    }

    /// The same place in whatever there is then.
    pub(super) fn inconsistent(&self, namespace: &str) -> String {
        match &self.after {
            After::Key(key) => Self::after(key, namespace, None),
            After::From(key) => encode(relative(key, namespace), None),
        }
    }
}

/// The key as the API server has it in a token: below what is listed.
fn relative<'a>(key: &'a Key, namespace: &str) -> &'a str {
    if namespace.is_empty() {
        key.as_str()
    } else {
        key.name()
    }
}

fn encode(start: &str, revision: Option<u64>) -> String {
    let encoded = Encoded {
        v: VERSION.to_owned(),
        rv: revision
            .and_then(|revision| i64::try_from(revision).ok())
            .unwrap_or(-1),
        start: start.to_owned(),
    };
    // Two texts and a number: it cannot fail.
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&encoded).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(json)
    }

    #[test]
    fn a_token_leads_back_to_its_place() {
        let key = Key::new("a", "x");
        for namespace in ["", "a"] {
            let token = Continue::after(&key, namespace, Some(7));
            let back = Continue::parse(&token, namespace).unwrap();
            assert_eq!(back.revision, Some(7));
            assert_eq!(back.after, After::Key(key.clone()), "{namespace}");
            let later = Continue::parse(&back.inconsistent(namespace), namespace).unwrap();
            assert_eq!((later.revision, later.after), (None, back.after));
        }
    }

    #[test]
    fn the_api_servers_own_tokens_are_read() {
        let token = of(r#"{"v":"meta.k8s.io/v1","rv":5,"start":"default/web-0\u0000"}"#);
        let back = Continue::parse(&token, "").unwrap();
        assert_eq!(back.after, After::Key(Key::new("default", "web-0")));
        let token = of(r#"{"v":"meta.k8s.io/v1","rv":5,"start":"web-0"}"#);
        let back = Continue::parse(&token, "default").unwrap();
        assert_eq!(back.after, After::From(Key::new("default", "web-0")));
    }

    #[test]
    fn nonsense_is_refused() {
        for (token, says) in [
            ("&".to_owned(), "continue key is not valid: "),
            (of("{"), "continue key is not valid: "),
            (
                of(r#"{"v":"x","rv":1,"start":"a"}"#),
                "does not recognize this encoded version x",
            ),
            (
                of(r#"{"v":"meta.k8s.io/v1","start":"a"}"#),
                "incorrect encoded start resourceVersion",
            ),
            (
                of(r#"{"v":"meta.k8s.io/v1","rv":1}"#),
                "encoded start key empty",
            ),
            (
                of(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../x"}"#),
                "continue key is not valid: ../x",
            ),
        ] {
            let status = Continue::parse(&token, "").expect_err(says);
            assert_eq!(status.code(), 400);
            assert!(status.message().contains(says), "{}", status.message());
        }
    }
}
