//! What is asked of the API server, as query parameters.
//!
//! Written here rather than by kube's `ListParams`, which drops `resourceVersion=0` next to a limit without a
//! word and has no `NotOlderThan` for a resource version of its own.

use std::fmt::{self, Write};

/// What to send next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The first page of a list, or all of it.
    List {
        /// How fresh it must be.
        from: ListFrom,
        /// Objects in a page; `None` for all at once.
        limit: Option<u32>,
    },
    /// The next page.
    Continue {
        /// The token that the last page ended with.
        token: String,
        /// Objects in a page.
        limit: Option<u32>,
    },
    /// A watch that begins with everything that is there (WatchList).
    Stream {
        /// How fresh that must be.
        from: ListFrom,
        /// When the API server is to end it.
        timeout_seconds: u64,
    },
    /// A watch of what comes after a revision.
    Watch {
        /// The revision.
        revision: Revision,
        /// When the API server is to end it.
        timeout_seconds: u64,
    },
    /// A list of one object's metadata: only its revision counts.
    Probe,
}

/// How fresh a list must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListFrom {
    /// As fresh as the watch cache happens to be.
    Any,
    /// As fresh as etcd.
    MostRecent,
    /// At least as fresh as this.
    NotOlderThan(Revision),
}

/// A resource version of a list or an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revision {
    /// Almost always: they increase. Never 0.
    Number(u64),
    /// Of APIs whose versions have no order.
    Opaque(Box<str>),
}

impl Revision {
    /// As the API server wrote it.
    pub fn parse(text: &str) -> Self {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        match text.parse() {
            Ok(number) if digits => Self::Number(number),
            _ => Self::Opaque(text.into()),
        }
    }

    /// For the cache, which takes 0 for "no order".
    pub fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Opaque(_) => 0,
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Opaque(text) => f.write_str(text),
        }
    }
}

impl Request {
    /// Whether the answer is a stream of events.
    pub fn is_watch(&self) -> bool {
        matches!(self, Self::Stream { .. } | Self::Watch { .. })
    }

    /// The query of the request, with the selectors of the kind (empty for none).
    pub fn query(&self, label_selector: &str, field_selector: &str) -> String {
        let mut query = Query(String::new());
        match self {
            Self::List { from, limit } => {
                query.from(from);
                query.limit(*limit);
            }
            Self::Continue { token, limit } => {
                query.limit(*limit);
                query.add("continue", token);
            }
            Self::Stream {
                from,
                timeout_seconds,
            } => {
                query.watch(*timeout_seconds);
                query.add("sendInitialEvents", "true");
                // The API server insists on it here, with or without a revision.
                query.add("resourceVersionMatch", "NotOlderThan");
                match from {
                    ListFrom::Any => query.add("resourceVersion", "0"),
                    ListFrom::MostRecent => {}
                    ListFrom::NotOlderThan(revision) => {
                        query.add("resourceVersion", &revision.to_string())
                    }
                }
            }
            Self::Watch {
                revision,
                timeout_seconds,
            } => {
                query.watch(*timeout_seconds);
                query.add("resourceVersion", &revision.to_string());
            }
            Self::Probe => query.limit(Some(1)),
        }
        for (name, selector) in [
            ("labelSelector", label_selector),
            ("fieldSelector", field_selector),
        ] {
            if !selector.is_empty() {
                query.add(name, selector);
            }
        }
        query.0
    }
}

/// `a=b&c=d`, escaped.
struct Query(String);

impl Query {
    fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(name);
        self.0.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                self.0.push(byte.into());
            } else {
                // A String takes everything.
                let _ = write!(self.0, "%{byte:02X}");
            }
        }
    }

    fn from(&mut self, from: &ListFrom) {
        match from {
            ListFrom::Any => self.add("resourceVersion", "0"),
            ListFrom::MostRecent => {}
            ListFrom::NotOlderThan(revision) => {
                self.add("resourceVersion", &revision.to_string());
                self.add("resourceVersionMatch", "NotOlderThan");
            }
        }
    }

    fn limit(&mut self, limit: Option<u32>) {
        if let Some(limit) = limit {
            self.add("limit", &limit.to_string());
        }
    }

    fn watch(&mut self, timeout_seconds: u64) {
        self.add("watch", "1");
        self.add("allowWatchBookmarks", "true");
        self.add("timeoutSeconds", &timeout_seconds.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_says_what_it_means() {
        let at = Revision::Number(7);
        let list = |from, limit| Request::List { from, limit }.query("", "");
        assert_eq!(list(ListFrom::Any, None), "resourceVersion=0");
        assert_eq!(list(ListFrom::MostRecent, Some(500)), "limit=500");
        assert_eq!(
            list(ListFrom::NotOlderThan(at.clone()), Some(2)),
            "resourceVersion=7&resourceVersionMatch=NotOlderThan&limit=2"
        );
        let next = Request::Continue {
            token: "a/b=".to_owned(),
            limit: Some(2),
        };
        assert_eq!(next.query("", ""), "limit=2&continue=a%2Fb%3D");
        assert_eq!(
            Request::Watch {
                revision: at.clone(),
                timeout_seconds: 300
            }
            .query("", ""),
            "watch=1&allowWatchBookmarks=true&timeoutSeconds=300&resourceVersion=7"
        );
        let stream = |from| {
            Request::Stream {
                from,
                timeout_seconds: 300,
            }
            .query("", "")
        };
        let start = "watch=1&allowWatchBookmarks=true&timeoutSeconds=300&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        assert_eq!(stream(ListFrom::MostRecent), start);
        assert_eq!(
            stream(ListFrom::NotOlderThan(at)),
            format!("{start}&resourceVersion=7")
        );
        assert_eq!(Request::Probe.query("", ""), "limit=1");
    }

    #[test]
    fn selectors_go_with_every_request_and_are_escaped() {
        assert_eq!(
            Request::Probe.query("app in (a, b)", "metadata.namespace!=kube-system"),
            "limit=1&labelSelector=app%20in%20%28a%2C%20b%29&fieldSelector=metadata.namespace%21%3Dkube-system"
        );
    }

    #[test]
    fn only_plain_positive_decimals_have_an_order() {
        assert_eq!(Revision::parse("12"), Revision::Number(12));
        for text in [
            "",
            "0",
            "012",
            "+1",
            "-1",
            "1a",
            "99999999999999999999",
            "sha:1",
        ] {
            assert_eq!(Revision::parse(text), Revision::Opaque(text.into()));
            assert_eq!(Revision::parse(text).to_string(), text);
        }
    }
}
