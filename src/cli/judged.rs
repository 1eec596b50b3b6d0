//! What `ready` and `wait` share: targets as people name them, and verdicts as they read them.

use super::{Error, target};
use crate::proto::{KindStatus, ReadinessState, Target};

/// A kind, or one object of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// The kind's full name.
    pub resource: String,
    /// Empty for a cluster-scoped kind, and where all namespaces are meant.
    pub namespace: String,
    /// Empty for the whole kind.
    pub name: String,
}

impl Named {
    /// Reads `deployment/web` or `pods`.
    pub(super) fn resolve(
        text: &str,
        kinds: &[KindStatus],
        namespace: &str,
    ) -> Result<Self, Error> {
        let (resource, name) = text.split_once('/').unwrap_or((text, ""));
        if resource.is_empty() || name.contains('/') || (text.contains('/') && name.is_empty()) {
            let text =
                format!("{text:?} is not a target: write deployment/web, or pods for all of them");
            return Err(Error::Usage(text));
        }
        let kind = target::find(resource, kinds)?;
        // What the API server does not serve yet may be either; most custom kinds are namespaced.
        let namespaced = kind.namespaced || kind.api_version.is_empty();
        Ok(Self {
            resource: kind.resource.clone(),
            namespace: if namespaced { namespace } else { "" }.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Whether a verdict is on it.
    pub(super) fn covers(&self, target: &Target) -> bool {
        self.resource == target.resource
            && (self.namespace.is_empty() || self.namespace == target.namespace)
            && (self.name.is_empty() || self.name == target.name)
    }
}

/// `deployments.apps/web`.
pub(super) fn name(target: &Target) -> String {
    format!("{}/{}", target.resource, target.name)
}

/// `Ready`, `NotReady`, `Unknown`, `Gone`.
pub(super) fn state(state: ReadinessState) -> &'static str {
    match state {
        ReadinessState::Ready => "Ready",
        ReadinessState::NotReady => "NotReady",
        ReadinessState::Gone => "Gone",
        ReadinessState::Unknown | ReadinessState::Unspecified => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Vec<KindStatus> {
        let kind = |resource: &str, kind: &str, namespaced| KindStatus {
            resource: resource.into(),
            kind: kind.into(),
            api_version: "v1".into(),
            namespaced,
            ..KindStatus::default()
        };
        vec![
            kind("deployments.apps", "Deployment", true),
            kind("nodes", "Node", false),
        ]
    }

    #[test]
    fn targets_are_named_as_kubectl_names_them() {
        let named = |text: &str| Named::resolve(text, &kinds(), "default").unwrap();
        let web = named("deployment/web");
        assert_eq!(
            (
                web.resource.as_str(),
                web.namespace.as_str(),
                web.name.as_str()
            ),
            ("deployments.apps", "default", "web")
        );
        assert_eq!(named("nodes").namespace, "", "they live in none");
        for wrong in ["", "/web", "deployment/", "deployment/a/b", "things/x"] {
            assert!(
                Named::resolve(wrong, &kinds(), "default").is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_kind_covers_all_of_it_and_a_name_one() {
        let target = |resource: &str, namespace: &str, name: &str| Target {
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
        };
        let all = Named::resolve("deployments", &kinds(), "default").unwrap();
        let web = Named::resolve("deployments/web", &kinds(), "").unwrap();
        assert!(all.covers(&target("deployments.apps", "default", "db")));
        assert!(!all.covers(&target("deployments.apps", "other", "db")));
        assert!(web.covers(&target("deployments.apps", "other", "web")));
        assert!(!web.covers(&target("deployments.apps", "other", "db")));
        assert!(!web.covers(&target("nodes", "", "web")));
    }
}
