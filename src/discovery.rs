//! Which kinds the API server serves, under which names, and since when.
//!
//! People name kinds as they do for kubectl (`po`, `deployments.apps`); the API server is asked for group, version
//! and plural. It is asked again and again, because CRDs come and go: aggregated discovery with an ETag makes that
//! one cheap request, and a watch on CRDs, where it is permitted, says when it is worth one.

use std::{fmt, sync::Arc};

use crate::{columns::PrinterColumn, object::names};

mod catalog;
mod crds;
#[cfg(test)]
mod fake;
mod fetch;
mod registry;

pub use catalog::{Catalog, ResolveError};
pub use fetch::Discovery;
pub use registry::{Registry, RegistrySettings};

/// Whether the API server serves a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It has not said yet; why.
    Unknown(Arc<str>),
    /// It does not, as it says itself; why.
    Absent(Arc<str>),
    /// It does.
    Served(Arc<ResolvedKind>),
}

impl Availability {
    /// The kind, where it is served.
    pub fn kind(&self) -> Option<&Arc<ResolvedKind>> {
        match self {
            Self::Served(kind) => Some(kind),
            Self::Unknown(_) | Self::Absent(_) => None,
        }
    }
}

/// A kind that the API server serves, in the one version that informerd reads it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedKind {
    /// `apps`; empty for the core group.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// `Deployment`.
    pub kind: String,
    /// `deployments`.
    pub plural: String,
    /// `deployment`; empty if the API server names none.
    pub singular: String,
    /// `deploy`.
    pub short_names: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// `get`, `list`, `watch`, ...
    pub verbs: Vec<String>,
    /// Groups of kinds that it is in: `all`.
    pub categories: Vec<String>,
    /// What its CRD says of it; nothing for kinds that the API server brings, and where CRDs may not be read.
    pub crd: Option<CrdVersion>,
    /// That of the CRD; empty where there is none, or none that may be read.
    pub uid: String,
}

/// What a CRD says of one of its versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrdVersion {
    /// The paths in `selectableFields`, as written there (`.spec.color`).
    pub selectable: Vec<String>,
    /// `additionalPrinterColumns`.
    pub columns: Vec<PrinterColumn>,
}

impl ResolvedKind {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        names::api_version(&self.group, &self.version)
    }

    /// The one name that cannot be confused with another kind's: `pods`, `deployments.apps`.
    pub fn resource(&self) -> String {
        names::resource(&self.plural, &self.group)
    }

    /// The other names that it is found by, in lower case: `po`, `pod`.
    pub fn aliases(&self) -> Vec<String> {
        let mut aliases = self.short_names.clone();
        aliases.extend([
            self.singular.clone(),
            self.kind.to_lowercase(),
            self.plural.clone(),
        ]);
        let resource = self.resource();
        let mut seen = Vec::new();
        aliases.retain(|alias| {
            let new = !alias.is_empty() && *alias != resource && !seen.contains(alias);
            seen.push(alias.clone());
            new
        });
        aliases
    }

    /// The path of the collection, `/apis/apps/v1/namespaces/web/deployments`; without a namespace, or for a
    /// cluster-scoped kind, of all objects.
    pub fn url_path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            "/api"
        } else {
            "/apis"
        };
        let api_version = self.api_version();
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!(
                "{root}/{api_version}/namespaces/{namespace}/{}",
                self.plural
            ),
            None => format!("{root}/{api_version}/{}", self.plural),
        }
    }

    /// Whether a CRD may stand behind it: the group of one has a dot; `apps` and the like need not be asked for.
    pub(crate) fn may_be_custom(&self) -> bool {
        self.group.contains('.')
    }

    /// Whether it can be listed and watched.
    pub fn is_watchable(&self) -> bool {
        ["list", "watch"]
            .iter()
            .all(|verb| self.verbs.iter().any(|served| served == verb))
    }

    /// Whether both are the same objects, be it in different versions.
    pub fn is_same_kind(&self, other: &Self) -> bool {
        self.group == other.group && self.plural == other.plural
    }
}

impl fmt::Display for ResolvedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource())
    }
}

/// Describes the metrics of this module. Once, after the recorder is installed.
pub fn describe_metrics() {
    metrics::describe_counter!(
        "informerd_discovery_polls_total",
        "Times that the API server was asked what it serves, by result."
    );
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A namespaced kind without anything special.
    pub(crate) fn kind(group: &str, version: &str, kind: &str, plural: &str) -> ResolvedKind {
        ResolvedKind {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            singular: kind.to_lowercase(),
            short_names: Vec::new(),
            namespaced: true,
            verbs: ["get", "list", "watch"].map(str::to_owned).to_vec(),
            categories: Vec::new(),
            crd: None,
            uid: String::new(),
        }
    }

    #[test]
    fn paths_follow_the_group_and_the_scope() {
        let pods = kind("", "v1", "Pod", "pods");
        assert_eq!(pods.url_path(None), "/api/v1/pods");
        assert_eq!(pods.url_path(Some("web")), "/api/v1/namespaces/web/pods");
        let deployments = kind("apps", "v1", "Deployment", "deployments");
        assert_eq!(
            deployments.url_path(Some("web")),
            "/apis/apps/v1/namespaces/web/deployments"
        );
        let nodes = ResolvedKind {
            namespaced: false,
            ..kind("", "v1", "Node", "nodes")
        };
        assert_eq!(nodes.url_path(Some("web")), "/api/v1/nodes");
    }

    #[test]
    fn aliases_are_all_names_but_the_full_one_each_once() {
        let mut pods = kind("", "v1", "Pod", "pods");
        pods.short_names = vec!["po".to_owned()];
        assert_eq!(pods.aliases(), ["po", "pod"]);
        let deployments = kind("apps", "v1", "Deployment", "deployments");
        assert_eq!(deployments.resource(), "deployments.apps");
        assert_eq!(deployments.aliases(), ["deployment", "deployments"]);
    }
}
