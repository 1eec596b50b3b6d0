//! The kinds that the sandbox brings, and how the API server treats each.

use std::sync::Arc;

use crate::{cache::Identity, object::Selectable};

/// A resource: what it is called, and what can be done with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Its names.
    pub identity: Identity,
    /// Groups of kinds that it is in, such as `all`.
    pub categories: Vec<String>,
    /// Whether status is written apart, at `/status`.
    pub status: bool,
    /// Whether status given at creation stays.
    pub keeps_status: bool,
    /// Whether `/scale` is there, and where it reads and writes.
    pub scale: Option<Scale>,
    /// Whether `metadata.generation` counts changes beside metadata and status.
    pub generation: bool,
    /// Whether a PUT without a resourceVersion is taken.
    pub unconditional_update: bool,
    /// Whether a PUT creates what is not there.
    pub create_on_update: bool,
    /// Whether a deletion answers with the object instead of a `Status`.
    pub returns_deleted: bool,
    /// Of a CRD.
    pub custom: bool,
}

/// Where a scale is in an object. JSON pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Wanted.
    pub spec_replicas: String,
    /// There.
    pub status_replicas: String,
    /// The selector as text, if there is one; else `/spec/selector` is read as a label selector.
    pub label_selector: Option<String>,
}

impl Definition {
    /// `pods`, `deployments.apps`.
    pub fn resource(&self) -> String {
        self.identity.resource()
    }

    /// What the kind is for who serves it: `(group, plural)`.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.identity.group == group && self.identity.plural == plural
    }
}

struct Builtin {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    /// Letters: `n` namespaced, `s` status apart, `k` keeps it at creation, `c` scale, `g` generation, `u` no
    /// unconditional update, `p` created by PUT, `d` deletion answers with the object.
    traits: &'static str,
}

const BUILTIN: &[Builtin] = &[
    Builtin {
        group: "",
        version: "v1",
        kind: "Namespace",
        plural: "namespaces",
        short: &["ns"],
        categories: &[],
        traits: "sd",
    },
    Builtin {
        group: "",
        version: "v1",
        kind: "Node",
        plural: "nodes",
        short: &["no"],
        categories: &[],
        traits: "sk",
    },
    Builtin {
        group: "",
        version: "v1",
        kind: "Pod",
        plural: "pods",
        short: &["po"],
        categories: &["all"],
        traits: "nsgd",
    },
    Builtin {
        group: "",
        version: "v1",
        kind: "Service",
        plural: "services",
        short: &["svc"],
        categories: &["all"],
        traits: "nsd",
    },
    Builtin {
        group: "",
        version: "v1",
        kind: "ConfigMap",
        plural: "configmaps",
        short: &["cm"],
        categories: &[],
        traits: "n",
    },
    Builtin {
        group: "",
        version: "v1",
        kind: "Secret",
        plural: "secrets",
        short: &[],
        categories: &[],
        traits: "n",
    },
    Builtin {
        group: "",
        version: "v1",
        kind: "Event",
        plural: "events",
        short: &["ev"],
        categories: &[],
        traits: "np",
    },
    Builtin {
        group: "discovery.k8s.io",
        version: "v1",
        kind: "EndpointSlice",
        plural: "endpointslices",
        short: &[],
        categories: &[],
        traits: "ng",
    },
    Builtin {
        group: "coordination.k8s.io",
        version: "v1",
        kind: "Lease",
        plural: "leases",
        short: &[],
        categories: &[],
        traits: "nup",
    },
    Builtin {
        group: "apps",
        version: "v1",
        kind: "Deployment",
        plural: "deployments",
        short: &["deploy"],
        categories: &["all"],
        traits: "nscg",
    },
    Builtin {
        group: "apps",
        version: "v1",
        kind: "ReplicaSet",
        plural: "replicasets",
        short: &["rs"],
        categories: &["all"],
        traits: "nscg",
    },
    Builtin {
        group: "apps",
        version: "v1",
        kind: "StatefulSet",
        plural: "statefulsets",
        short: &["sts"],
        categories: &["all"],
        traits: "nscg",
    },
    Builtin {
        group: "apiextensions.k8s.io",
        version: "v1",
        kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
        short: &["crd", "crds"],
        categories: &["api-extensions"],
        traits: "sgu",
    },
];

/// The kinds that are there from the start.
pub fn builtin() -> impl Iterator<Item = Arc<Definition>> {
    BUILTIN.iter().map(|it| {
        let has = |letter| it.traits.contains(letter);
        let owned = |all: &[&str]| all.iter().map(|&one| one.to_owned()).collect();
        Arc::new(Definition {
            identity: Identity {
                group: it.group.to_owned(),
                version: it.version.to_owned(),
                kind: it.kind.to_owned(),
                plural: it.plural.to_owned(),
                singular: it.kind.to_ascii_lowercase(),
                short_names: owned(it.short),
                namespaced: has('n'),
                selectable: Selectable::builtin(it.group, it.plural),
            },
            categories: owned(it.categories),
            status: has('s'),
            keeps_status: has('k'),
            scale: has('c').then(|| Scale {
                spec_replicas: "/spec/replicas".to_owned(),
                status_replicas: "/status/replicas".to_owned(),
                label_selector: None,
            }),
            generation: has('g'),
            unconditional_update: !has('u'),
            create_on_update: has('p'),
            returns_deleted: has('d'),
            custom: false,
        })
    })
}
