//! What a kind's config says is not to be cached, checked once and compiled.
//!
//! Pruning happens while an object is parsed, so that what is dropped is never held in memory. Identity cannot be
//! dropped: the cache, selectors and controllers live on it.

use super::{
    path::Path,
    rules::{Fate, Node},
};

/// What every object is known by. No rule may drop it, in whole or in part, and keep rules keep it in any case.
pub(super) const IDENTITY: [&[&str]; 10] = [
    &["apiVersion"],
    &["kind"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "uid"],
    &["metadata", "resourceVersion"],
    &["metadata", "generation"],
    &["metadata", "deletionTimestamp"],
    &["metadata", "labels"],
    &["metadata", "ownerReferences"],
];

/// What to leave out of each object of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PruneRules {
    /// Drop `.metadata.managedFields`.
    pub managed_fields: bool,
    /// Drop the annotation `kubectl.kubernetes.io/last-applied-configuration`.
    pub last_applied: bool,
    /// Drop these, whole.
    pub drop: Vec<Path>,
    /// Keep only these (and identity, and creationTimestamp), before anything is dropped.
    pub keep: Option<Vec<Path>>,
}

impl Default for PruneRules {
    /// Drops what only `kubectl apply` and server-side apply read: often half of an object.
    fn default() -> Self {
        Self {
            managed_fields: true,
            last_applied: true,
            drop: Vec::new(),
            keep: None,
        }
    }
}

impl PruneRules {
    /// Rules that leave objects as they are.
    pub fn nothing() -> Self {
        Self {
            managed_fields: false,
            last_applied: false,
            drop: Vec::new(),
            keep: None,
        }
    }
}

/// Why rules are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PruneError {
    /// A rule would drop what the cache lives on.
    #[error(
        "the rule `drop: {rule}` would drop `{identity}`, which is always kept: name something beside it"
    )]
    DropsIdentity {
        /// The rule's path.
        rule: Path,
        /// The identity that it hits.
        identity: Path,
    },
}

/// [`PruneRules`], checked and compiled.
#[derive(Clone, Debug)]
pub struct Pruner {
    root: Node,
    prunes: bool,
}

impl Pruner {
    /// Compiles rules, unless they would drop some of an object's identity.
    pub fn new(rules: &PruneRules) -> Result<Self, PruneError> {
        for rule in &rules.drop {
            for identity in IDENTITY.map(Path::of) {
                if identity.starts_with(rule) || rule.starts_with(&identity) {
                    return Err(PruneError::DropsIdentity {
                        rule: rule.clone(),
                        identity,
                    });
                }
            }
        }
        let mut root = Node::new(Fate::Keep);
        if let Some(keep) = &rules.keep {
            root = Node::new(Fate::Shape);
            let identity = IDENTITY.map(Path::of);
            let created = Path::of(&["metadata", "creationTimestamp"]);
            for path in keep.iter().chain(&identity).chain([&created]) {
                root.keep(path);
            }
        }
        if rules.managed_fields {
            root.drop_at(&Path::of(&["metadata", "managedFields"]));
        }
        if rules.last_applied {
            let annotation = "kubectl.kubernetes.io/last-applied-configuration";
            root.drop_at(&Path::of(&["metadata", "annotations", annotation]));
        }
        for path in &rules.drop {
            root.drop_at(path);
        }
        Ok(Self {
            root,
            prunes: *rules != PruneRules::nothing(),
        })
    }

    /// Whether a reader of `path` would miss something: the rules drop it or an ancestor of it, or do not keep all
    /// of it. A rule that drops only a part below it does not count.
    pub fn reads_dropped(&self, path: &Path) -> bool {
        self.root.drops(path)
    }

    /// Whether anything is left out of objects, so that an update made from one would delete fields.
    pub fn prunes(&self) -> bool {
        self.prunes
    }

    /// The compiled rules, to add values to read to.
    pub(super) fn root(&self) -> Node {
        self.root.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::path::tests::path;

    fn dropping(paths: &[&str]) -> PruneRules {
        PruneRules {
            drop: paths.iter().map(|p| path(p)).collect(),
            ..PruneRules::default()
        }
    }

    fn keeping(paths: &[&str]) -> PruneRules {
        PruneRules {
            keep: Some(paths.iter().map(|p| path(p)).collect()),
            ..PruneRules::default()
        }
    }

    #[test]
    fn a_rule_that_would_drop_identity_is_refused_by_name() {
        for (rule, identity) in [
            (".metadata", ".metadata.name"),
            (".kind", ".kind"),
            (".metadata.labels['app']", ".metadata.labels"),
            (
                ".metadata.ownerReferences[*].uid",
                ".metadata.ownerReferences",
            ),
        ] {
            let error = Pruner::new(&dropping(&[".spec", rule])).unwrap_err();
            assert_eq!(
                error,
                PruneError::DropsIdentity {
                    rule: path(rule),
                    identity: path(identity)
                }
            );
        }
        assert_eq!(
            Pruner::new(&dropping(&["metadata.uid"]))
                .unwrap_err()
                .to_string(),
            "the rule `drop: .metadata.uid` would drop `.metadata.uid`, which is always kept: name something \
             beside it"
        );
        assert!(
            Pruner::new(&dropping(&[
                ".metadata.creationTimestamp",
                ".metadata.annotations"
            ]))
            .is_ok()
        );
    }

    #[test]
    fn a_reader_learns_what_it_would_miss() {
        let pruner = Pruner::new(&dropping(&[".spec.containers[*].env", ".status"])).unwrap();
        for gone in [
            ".status",
            ".status.phase",
            ".spec.containers[*].env[*].name",
            ".metadata.managedFields",
        ] {
            assert!(pruner.reads_dropped(&path(gone)), "{gone}");
        }
        for there in [
            ".spec",
            ".spec.containers[*].image",
            ".metadata.annotations.x",
            ".metadata.name",
        ] {
            assert!(!pruner.reads_dropped(&path(there)), "{there}");
        }
    }

    #[test]
    fn a_reader_of_kept_paths_learns_the_same() {
        let pruner = Pruner::new(&keeping(&[".spec.containers[*].image", ".status"])).unwrap();
        for gone in [
            ".spec",
            ".spec.nodeName",
            ".spec.containers[*].env",
            ".metadata.annotations",
        ] {
            assert!(pruner.reads_dropped(&path(gone)), "{gone}");
        }
        let there = [
            ".spec.containers[*].image",
            ".status.phase",
            ".metadata.labels.app",
        ];
        for there in there.iter().chain(&[
            ".metadata.creationTimestamp",
            ".metadata.ownerReferences[*].uid",
        ]) {
            assert!(!pruner.reads_dropped(&path(there)), "{there}");
        }
    }

    #[test]
    fn only_rules_that_leave_something_out_make_a_pruned_kind() {
        assert!(Pruner::new(&PruneRules::default()).unwrap().prunes());
        assert!(!Pruner::new(&PruneRules::nothing()).unwrap().prunes());
    }
}
