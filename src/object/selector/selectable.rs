//! The paths that a kind can be selected by, beside name and namespace.
//!
//! For the built-in kinds these are the ones that the API server takes, with its names and defaults, so that a
//! field selector gives here what it gives to kubectl. Further ones come from a CRD or the config.

use std::sync::Arc;

use crate::object::path::{Path, Segment};

/// Most paths of a kind.
pub const MAX_SELECTABLE: usize = 40;

/// What a built-in kind can be selected by, as the API server has it.
struct Builtin {
    group: &'static str,
    plural: &'static str,
    fields: &'static [Field],
}

/// How a path is written in selectors, where its value is read (the first that is set counts), and what it is
/// where none is.
struct Field {
    path: &'static [&'static str],
    read: &'static [&'static [&'static str]],
    unset: &'static str,
}

/// A value that is read where its path says, and empty where unset.
const fn text(path: &'static [&'static str]) -> Field {
    Field {
        path,
        read: &[],
        unset: "",
    }
}

const fn with_default(path: &'static [&'static str], unset: &'static str) -> Field {
    Field {
        path,
        read: &[],
        unset,
    }
}

const BUILTIN: &[Builtin] = &[
    Builtin {
        group: "",
        plural: "pods",
        fields: &[
            text(&["spec", "nodeName"]),
            text(&["spec", "restartPolicy"]),
            text(&["spec", "schedulerName"]),
            text(&["spec", "serviceAccountName"]),
            with_default(&["spec", "hostNetwork"], "false"),
            text(&["status", "phase"]),
            text(&["status", "podIP"]),
            // The API server accepts it and never gives it a value; a list is no value here either.
            text(&["status", "podIPs"]),
            text(&["status", "nominatedNodeName"]),
            // What spec.nodeName was called before v1.
            Field {
                path: &["spec", "host"],
                read: &[&["spec", "nodeName"]],
                unset: "",
            },
        ],
    },
    Builtin {
        group: "",
        plural: "nodes",
        fields: &[with_default(&["spec", "unschedulable"], "false")],
    },
    Builtin {
        group: "",
        plural: "namespaces",
        fields: &[text(&["status", "phase"])],
    },
    Builtin {
        group: "",
        plural: "secrets",
        fields: &[text(&["type"])],
    },
    Builtin {
        group: "",
        plural: "services",
        fields: &[text(&["spec", "clusterIP"]), text(&["spec", "type"])],
    },
    Builtin {
        group: "",
        plural: "replicationcontrollers",
        fields: &[with_default(&["status", "replicas"], "0")],
    },
    Builtin {
        group: "",
        plural: "events",
        fields: &[
            text(&["involvedObject", "kind"]),
            text(&["involvedObject", "namespace"]),
            text(&["involvedObject", "name"]),
            text(&["involvedObject", "uid"]),
            text(&["involvedObject", "apiVersion"]),
            text(&["involvedObject", "resourceVersion"]),
            text(&["involvedObject", "fieldPath"]),
            text(&["reason"]),
            text(&["reportingComponent"]),
            Field {
                path: &["source"],
                read: &[&["source", "component"], &["reportingComponent"]],
                unset: "",
            },
            text(&["type"]),
        ],
    },
    Builtin {
        group: "events.k8s.io",
        plural: "events",
        fields: &[
            text(&["reason"]),
            text(&["regarding", "kind"]),
            text(&["regarding", "namespace"]),
            text(&["regarding", "name"]),
            text(&["regarding", "uid"]),
            text(&["regarding", "apiVersion"]),
            text(&["regarding", "resourceVersion"]),
            text(&["regarding", "fieldPath"]),
            text(&["reportingController"]),
            text(&["type"]),
        ],
    },
    Builtin {
        group: "batch",
        plural: "jobs",
        fields: &[Field {
            path: &["status", "successful"],
            read: &[&["status", "succeeded"]],
            unset: "0",
        }],
    },
    Builtin {
        group: "certificates.k8s.io",
        plural: "certificatesigningrequests",
        fields: &[text(&["spec", "signerName"])],
    },
    Builtin {
        group: "certificates.k8s.io",
        plural: "clustertrustbundles",
        fields: &[text(&["spec", "signerName"])],
    },
    Builtin {
        group: "certificates.k8s.io",
        plural: "podcertificaterequests",
        fields: &[
            text(&["spec", "signerName"]),
            text(&["spec", "podName"]),
            text(&["spec", "nodeName"]),
        ],
    },
    Builtin {
        group: "resource.k8s.io",
        plural: "resourceslices",
        fields: &[text(&["spec", "nodeName"]), text(&["spec", "driver"])],
    },
];

/// The paths that a kind can be selected by, in the order of [`Object::fields`](crate::object::Object::fields).
/// Name and namespace are not among them: they always can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selectable(Arc<[Readable]>);

/// One path, and how its value comes to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::object) struct Readable {
    /// As selectors write it.
    pub(in crate::object) path: Path,
    /// Where the value is read; the first that is set counts.
    pub(in crate::object) read: Vec<Path>,
    /// What the value is where none is set.
    pub(in crate::object) unset: &'static str,
}

/// Why a path cannot be made selectable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectableError {
    /// It may have many values in one object.
    #[error(
        "`{0}` cannot be selectable, it has many values in one object: name a single value, such as .spec.nodeName"
    )]
    ManyValues(Path),
    /// Over [`MAX_SELECTABLE`].
    #[error(
        "more than {MAX_SELECTABLE} selectable paths in one kind, from `{0}` on: leave some out"
    )]
    TooMany(Path),
}

impl Selectable {
    /// What the API server lets this kind be selected by; nothing for kinds that it does not bring itself.
    pub fn builtin(group: &str, plural: &str) -> Self {
        let fields = BUILTIN
            .iter()
            .find(|kind| kind.group == group && kind.plural == plural)
            .map_or(&[][..], |k| k.fields);
        let readable = |field: &Field| {
            let path = Path::of(field.path);
            let mut read: Vec<Path> = field.read.iter().map(|path| Path::of(path)).collect();
            if read.is_empty() {
                read.push(path.clone());
            }
            Readable {
                path,
                read,
                unset: field.unset,
            }
        };
        Self(fields.iter().map(readable).collect())
    }

    /// The same and further paths, say of a CRD's `selectableFields` or the config's `selectable`. Those that are
    /// there already, name and namespace included, stay as they are.
    pub fn with(&self, paths: impl IntoIterator<Item = Path>) -> Result<Self, SelectableError> {
        let mut all = self.0.to_vec();
        for path in paths {
            if path.segments().contains(&Segment::AllItems) {
                return Err(SelectableError::ManyValues(path));
            }
            let known = path == Path::of(&["metadata", "name"])
                || path == Path::of(&["metadata", "namespace"]);
            if known || all.iter().any(|readable| readable.path == path) {
                continue;
            }
            if all.len() == MAX_SELECTABLE {
                return Err(SelectableError::TooMany(path));
            }
            all.push(Readable {
                read: vec![path.clone()],
                path,
                unset: "",
            });
        }
        Ok(Self(all.into()))
    }

    /// The paths, in the order of an object's fields.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.0.iter().map(|readable| &readable.path)
    }

    pub(in crate::object) fn readable(&self) -> &[Readable] {
        &self.0
    }

    /// The place of a path among an object's fields, and its value where unset.
    pub(super) fn find(&self, path: &Path) -> Option<(usize, &'static str)> {
        let at = self.0.iter().position(|readable| readable.path == *path)?;
        Some((at, self.0[at].unset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::path::tests::path;

    #[test]
    fn built_in_kinds_have_what_the_api_server_takes() {
        let paths = |group, plural| -> Vec<String> {
            Selectable::builtin(group, plural)
                .paths()
                .map(Path::selector_form)
                .collect()
        };
        assert_eq!(paths("", "nodes"), ["spec.unschedulable"]);
        assert_eq!(paths("batch", "jobs"), ["status.successful"]);
        assert_eq!(paths("", "events").len(), 11);
        assert_eq!(paths("apps", "deployments"), [""; 0]);
        assert_eq!(paths("other.io", "pods"), [""; 0]);
        for kind in BUILTIN {
            assert!(kind.fields.len() <= MAX_SELECTABLE);
        }
    }

    #[test]
    fn further_paths_come_after_and_do_not_change_what_is_there() {
        let selectable = Selectable::builtin("", "nodes")
            .with([
                path(".spec.podCIDR"),
                path(".spec.unschedulable"),
                path(".metadata.name"),
            ])
            .unwrap();
        let paths: Vec<_> = selectable.paths().map(ToString::to_string).collect();
        assert_eq!(paths, [".spec.unschedulable", ".spec.podCIDR"]);
        assert_eq!(
            selectable.find(&path(".spec.unschedulable")),
            Some((0, "false"))
        );
        assert_eq!(selectable.find(&path(".spec.podCIDR")), Some((1, "")));
    }

    #[test]
    fn a_path_with_many_values_or_one_too_many_is_refused() {
        let many = path(".spec.containers[*].image");
        let nothing = Selectable::default();
        assert_eq!(
            nothing.with([many.clone()]),
            Err(SelectableError::ManyValues(many))
        );
        let paths = (0..=MAX_SELECTABLE).map(|i| path(&format!(".a{i}")));
        assert_eq!(
            nothing.with(paths),
            Err(SelectableError::TooMany(path(&format!(
                ".a{MAX_SELECTABLE}"
            ))))
        );
    }
}
