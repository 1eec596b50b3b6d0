//! What differs between what is cached and what there is, by identity and version; content is the version's.

use std::collections::{BTreeMap, BTreeSet};

/// Objects by namespace and name.
pub(super) type Items = BTreeMap<(String, String), Held>;

/// Which object it is, and in which version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub uid: String,
    pub resource_version: String,
    /// The daemon knows that there is a newer one, which it could not decode.
    pub stale: bool,
}

/// How an object differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The API server has it, the cache does not.
    Missing,
    /// The cache has it, the API server does not.
    Extra,
    /// Another object of that name.
    Uid,
    /// The object in another version.
    Version,
    /// The cache knows that its version is old: a newer one could not be decoded.
    Stale,
}

impl What {
    /// As it is printed.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Uid => "uid",
            Self::Version => "version",
            Self::Stale => "stale",
        }
    }
}

/// One object that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub what: What,
    pub namespace: String,
    pub name: String,
    /// In the cache.
    pub cached: Option<Held>,
    /// At the API server.
    pub live: Option<Held>,
}

/// In the order of namespaces and names.
pub(super) fn differences(cached: &Items, live: &Items) -> Vec<Difference> {
    let keys: BTreeSet<_> = cached.keys().chain(live.keys()).collect();
    let difference = |key: &(String, String)| {
        let (cached, live) = (cached.get(key), live.get(key));
        let what = match (cached, live) {
            (None, Some(_)) => What::Missing,
            (Some(_), None) => What::Extra,
            (Some(cached), Some(live)) if cached.uid != live.uid => What::Uid,
            (Some(cached), Some(live)) if cached.resource_version != live.resource_version => {
                if cached.stale {
                    What::Stale
                } else {
                    What::Version
                }
            }
            _ => return None,
        };
        let (namespace, name) = key.clone();
        Some(Difference {
            what,
            namespace,
            name,
            cached: cached.cloned(),
            live: live.cloned(),
        })
    };
    keys.into_iter().filter_map(difference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(of: &[(&str, &str, &str)]) -> Items {
        let item = |&(name, uid, version): &(&str, &str, &str)| {
            let held = Held {
                uid: uid.into(),
                resource_version: version.into(),
                stale: false,
            };
            (("n".to_owned(), name.to_owned()), held)
        };
        of.iter().map(item).collect()
    }

    #[test]
    fn each_way_in_which_objects_may_differ_has_its_name() {
        let mut cached = items(&[
            ("extra", "1", "1"),
            ("same", "2", "2"),
            ("stale", "3", "3"),
            ("uid", "4", "4"),
            ("version", "5", "5"),
        ]);
        let stale = cached.get_mut(&("n".into(), "stale".into()));
        stale.expect("is there").stale = true;
        let live = items(&[
            ("missing", "9", "9"),
            ("same", "2", "2"),
            ("stale", "3", "33"),
            ("uid", "44", "44"),
            ("version", "5", "55"),
        ]);
        let found = differences(&cached, &live);
        for difference in &found {
            assert_eq!(difference.what.as_str(), difference.name);
        }
        let names: Vec<_> = found.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["extra", "missing", "stale", "uid", "version"]);
        assert_eq!(differences(&cached, &cached), []);
    }
}
