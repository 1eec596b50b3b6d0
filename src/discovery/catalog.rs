//! What the API server serves at one moment, and how a name finds its kind in it.
//!
//! Names resolve as kubectl resolves them, with one difference: where kubectl takes the first of several groups in
//! the server's order, only the core group wins by itself, and the rest must be named in full. A config should not
//! change its meaning because somebody installs a CRD.

use std::sync::Arc;

use kube::core::discovery::v2::APIGroupDiscoveryList;

use super::ResolvedKind;
use crate::config::KindIdentity;

/// All kinds that the API server serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    groups: Vec<Group>,
}

/// A group; its versions in the server's order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) versions: Vec<Version>,
}

/// A group's version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) name: String,
    pub(super) kinds: Vec<Arc<ResolvedKind>>,
    /// The server could not ask the API behind it: what it says of this version may be old, or nothing.
    pub(super) stale: bool,
}

/// Why a name does not lead to a kind that can be watched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Perhaps not yet: its CRD may come.
    #[error("the API server serves no `{resource}`{hint}")]
    NotServed {
        /// The name.
        resource: String,
        /// The nearest name that is served, as a question; or empty.
        hint: String,
    },
    /// Several groups have a kind of that name.
    #[error("`{resource}` may be any of {}: write one of these", candidates.join(", "))]
    Ambiguous {
        /// The name.
        resource: String,
        /// Full names.
        candidates: Vec<String>,
    },
    /// The kind cannot be listed and watched.
    #[error("`{resource}` cannot be watched: the API server allows only {} on it", verbs.join(", "))]
    NotWatchable {
        /// The name.
        resource: String,
        /// What the API server allows.
        verbs: Vec<String>,
    },
}

/// Names at least this alike (Jaro-Winkler) may be each other's misspelling.
const ALIKE: f64 = 0.9;

/// A name, taken apart in one way.
struct Asked<'a> {
    version: Option<&'a str>,
    group: Option<&'a str>,
}

impl Catalog {
    pub(super) fn new(groups: Vec<Group>) -> Self {
        Self { groups }
    }

    /// Reads one document of aggregated discovery.
    pub(super) fn aggregated(list: APIGroupDiscoveryList) -> Vec<Group> {
        let groups = list.items.into_iter().map(|group| {
            let name = group
                .metadata
                .and_then(|metadata| metadata.name)
                .unwrap_or_default();
            let versions = group.versions.into_iter().map(|version| {
                let of = version.version.unwrap_or_default();
                let kinds = version.resources.into_iter().filter_map(|resource| {
                    let kind = resource
                        .response_kind?
                        .kind
                        .filter(|kind| !kind.is_empty())?;
                    Some(Arc::new(ResolvedKind {
                        group: name.clone(),
                        version: of.clone(),
                        kind,
                        plural: resource.resource?,
                        singular: resource.singular_resource.unwrap_or_default(),
                        short_names: resource.short_names,
                        namespaced: resource.scope.as_deref() == Some("Namespaced"),
                        verbs: resource.verbs,
                        categories: resource.categories,
                        crd: None,
                        uid: String::new(),
                    }))
                });
                let stale = version.freshness.as_deref() == Some("Stale");
                Version {
                    kinds: kinds.collect(),
                    name: of.clone(),
                    stale,
                }
            });
            Group {
                versions: versions.collect(),
                name: name.clone(),
            }
        });
        groups.collect()
    }

    /// Fills in what the server could not say this time from what it said before.
    pub(super) fn remember(&mut self, before: &Self) {
        for group in &mut self.groups {
            for version in group.versions.iter_mut().filter(|version| version.stale) {
                let old = before.groups.iter().find(|old| old.name == group.name);
                let old =
                    old.and_then(|old| old.versions.iter().find(|old| old.name == version.name));
                if let Some(old) = old.filter(|old| !old.kinds.is_empty()) {
                    version.kinds = old.kinds.clone();
                }
            }
        }
    }

    /// The kind of a name: `pods`, `po`, `Pod`, `deployments.apps`, `deployments.v1.apps`.
    pub fn resolve(&self, resource: &str) -> Result<Arc<ResolvedKind>, ResolveError> {
        let lower = resource.to_lowercase();
        let (name, rest) = match lower.split_once('.') {
            Some((name, rest)) => (name, Some(rest)),
            None => (lower.as_str(), None),
        };
        for asked in Self::readings(rest) {
            let found = self.find(name, &asked);
            let chosen = match found.as_slice() {
                [] => continue,
                [one] => one,
                [first, ..] if first.group.is_empty() => first,
                several => {
                    let candidates = several.iter().map(|kind| kind.resource()).collect();
                    return Err(ResolveError::Ambiguous {
                        resource: resource.to_owned(),
                        candidates,
                    });
                }
            };
            return if chosen.is_watchable() {
                Ok(Arc::clone(chosen))
            } else {
                Err(ResolveError::NotWatchable {
                    resource: resource.to_owned(),
                    verbs: chosen.verbs.clone(),
                })
            };
        }
        Err(ResolveError::NotServed {
            resource: resource.to_owned(),
            hint: self.hint(name),
        })
    }

    /// What the configuration is checked against: the kind's full name, nothing if it is not served yet, or why it
    /// cannot be watched.
    pub fn identify(&self, resource: &str) -> Result<Option<KindIdentity>, String> {
        match self.resolve(resource) {
            Ok(kind) => Ok(Some(KindIdentity {
                resource: kind.resource(),
                namespaced: kind.namespaced,
            })),
            Err(ResolveError::NotServed { .. }) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The same kind in the same version, while it is served; else in the version that is preferred now.
    pub(super) fn again(&self, kind: &ResolvedKind) -> Option<Arc<ResolvedKind>> {
        let group = self.groups.iter().find(|group| group.name == kind.group)?;
        let mut served = group
            .versions
            .iter()
            .flat_map(|version| &version.kinds)
            .filter(|new| new.is_same_kind(kind));
        let first = served.clone().next()?;
        Some(Arc::clone(
            served
                .find(|new| new.version == kind.version)
                .unwrap_or(first),
        ))
    }

    /// The ways to read what follows the first dot, likeliest first.
    fn readings(rest: Option<&str>) -> Vec<Asked<'_>> {
        let Some(rest) = rest else {
            return vec![Asked {
                version: None,
                group: None,
            }];
        };
        let group = Asked {
            version: None,
            group: Some(rest),
        };
        match rest.split_once('.') {
            // deployments.v1.apps, else a group with dots.
            Some((version, of)) => vec![
                Asked {
                    version: Some(version),
                    group: Some(of),
                },
                group,
            ],
            // deployments.apps, else pods.v1.
            None => vec![
                group,
                Asked {
                    version: Some(rest),
                    group: Some(""),
                },
            ],
        }
    }

    /// The kinds of a name, at most one of each group, the core group's first.
    fn find(&self, name: &str, asked: &Asked<'_>) -> Vec<&Arc<ResolvedKind>> {
        let exact = |group: &&Group| asked.group.is_none_or(|wanted| group.name == wanted);
        let mut groups: Vec<&Group> = self.groups.iter().filter(exact).collect();
        if groups.is_empty()
            && let Some(prefix) = asked
                .group
                .filter(|prefix| !prefix.is_empty() && asked.version.is_none())
        {
            // As kubectl has it: ingresses.networking.
            groups = self
                .groups
                .iter()
                .filter(|group| group.name.starts_with(prefix))
                .collect();
        }
        groups.sort_by_key(|group| !group.name.is_empty());
        let named = |kind: &ResolvedKind| {
            kind.plural == name || kind.singular == name || kind.kind.eq_ignore_ascii_case(name)
        };
        let short = |kind: &ResolvedKind| kind.short_names.iter().any(|short| short == name);
        let pick = |matches: &dyn Fn(&ResolvedKind) -> bool| -> Vec<&Arc<ResolvedKind>> {
            groups
                .iter()
                .filter_map(|group| group.pick(asked.version, matches))
                .collect()
        };
        let found = pick(&named);
        if found.is_empty() {
            pick(&short)
        } else {
            found
        }
    }

    fn hint(&self, name: &str) -> String {
        let names = self
            .groups
            .iter()
            .flat_map(|group| &group.versions)
            .flat_map(|version| &version.kinds);
        let mut best: Option<(f64, String)> = None;
        for kind in names.filter(|kind| kind.is_watchable()) {
            let likeness = strsim::jaro_winkler(name, &kind.plural)
                .max(strsim::jaro_winkler(name, &kind.singular));
            if likeness > best.as_ref().map_or(ALIKE, |(best, _)| *best) {
                best = Some((likeness, kind.resource()));
            }
        }
        best.map_or_else(String::new, |(_, resource)| {
            format!("; did you mean `{resource}`?")
        })
    }
}

impl Group {
    /// The first matching kind in the order of preference, one that can be watched before others.
    fn pick(
        &self,
        version: Option<&str>,
        matches: &dyn Fn(&ResolvedKind) -> bool,
    ) -> Option<&Arc<ResolvedKind>> {
        let versions = self
            .versions
            .iter()
            .filter(|own| version.is_none_or(|wanted| own.name == wanted));
        let mut kinds = versions
            .flat_map(|version| &version.kinds)
            .filter(|kind| matches(kind));
        let first = kinds.next()?;
        if first.is_watchable() {
            return Some(first);
        }
        Some(kinds.find(|kind| kind.is_watchable()).unwrap_or(first))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::tests::kind, *};

    pub(in crate::discovery) fn catalog(kinds: Vec<ResolvedKind>) -> Catalog {
        let mut groups: Vec<Group> = Vec::new();
        for kind in kinds {
            let at = groups
                .iter()
                .position(|group| group.name == kind.group)
                .unwrap_or_else(|| {
                    groups.push(Group {
                        name: kind.group.clone(),
                        versions: Vec::new(),
                    });
                    groups.len() - 1
                });
            let versions = &mut groups[at].versions;
            match versions
                .iter_mut()
                .find(|version| version.name == kind.version)
            {
                Some(version) => version.kinds.push(Arc::new(kind)),
                None => {
                    let name = kind.version.clone();
                    versions.push(Version {
                        name,
                        kinds: vec![Arc::new(kind)],
                        stale: false,
                    });
                }
            }
        }
        Catalog::new(groups)
    }

    fn usual() -> Catalog {
        let mut pods = kind("", "v1", "Pod", "pods");
        pods.short_names = vec!["po".to_owned()];
        let mut reviews = kind("authentication.k8s.io", "v1", "TokenReview", "tokenreviews");
        reviews.verbs = vec!["create".to_owned()];
        catalog(vec![
            kind("events.k8s.io", "v1", "Event", "events"),
            kind("metrics.k8s.io", "v1beta1", "PodMetrics", "pods"),
            pods,
            kind("", "v1", "Event", "events"),
            kind("apps", "v1", "Deployment", "deployments"),
            kind(
                "autoscaling",
                "v2",
                "HorizontalPodAutoscaler",
                "horizontalpodautoscalers",
            ),
            kind(
                "autoscaling",
                "v1",
                "HorizontalPodAutoscaler",
                "horizontalpodautoscalers",
            ),
            kind(
                "networking.k8s.io",
                "v1",
                "NetworkPolicy",
                "networkpolicies",
            ),
            kind(
                "crd.projectcalico.org",
                "v1",
                "NetworkPolicy",
                "networkpolicies",
            ),
            reviews,
        ])
    }

    fn resolved(name: &str) -> String {
        match usual().resolve(name) {
            Ok(kind) => format!("{} {}", kind.resource(), kind.version),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_kind_is_found_by_each_of_its_names() {
        for name in [
            "pods", "pod", "Pod", "po", "PODS", "pods.v1", "pods.v1.", "pods.",
        ] {
            assert_eq!(resolved(name), "pods v1", "{name}");
        }
        for name in [
            "deployments",
            "Deployment",
            "deployments.apps",
            "deployments.v1.apps",
            "deployment.apps",
        ] {
            assert_eq!(resolved(name), "deployments.apps v1", "{name}");
        }
    }

    #[test]
    fn the_core_group_wins_and_others_are_had_by_their_full_name() {
        assert_eq!(resolved("events"), "events v1");
        assert_eq!(resolved("events.events.k8s.io"), "events.events.k8s.io v1");
        assert_eq!(
            resolved("pods.metrics.k8s.io"),
            "pods.metrics.k8s.io v1beta1"
        );
        assert_eq!(resolved("podmetrics"), "pods.metrics.k8s.io v1beta1");
    }

    #[test]
    fn the_preferred_version_is_taken_unless_another_is_named() {
        assert_eq!(
            resolved("horizontalpodautoscalers"),
            "horizontalpodautoscalers.autoscaling v2"
        );
        assert_eq!(
            resolved("horizontalpodautoscalers.v1.autoscaling"),
            "horizontalpodautoscalers.autoscaling v1"
        );
    }

    #[test]
    fn a_name_of_several_groups_lists_them() {
        assert_eq!(
            resolved("networkpolicies"),
            "`networkpolicies` may be any of networkpolicies.networking.k8s.io, \
             networkpolicies.crd.projectcalico.org: write one of these"
        );
        assert_eq!(
            resolved("networkpolicies.networking"),
            "networkpolicies.networking.k8s.io v1"
        );
    }

    #[test]
    fn what_cannot_be_watched_says_what_it_can() {
        assert_eq!(
            resolved("tokenreviews"),
            "`tokenreviews` cannot be watched: the API server allows only create on it"
        );
    }

    #[test]
    fn a_name_that_is_not_served_gets_the_nearest_one() {
        assert_eq!(
            resolved("deploymnets"),
            "the API server serves no `deploymnets`; did you mean `deployments.apps`?"
        );
        assert_eq!(
            resolved("aerospikeclusters.acko.io"),
            "the API server serves no `aerospikeclusters.acko.io`"
        );
        assert_eq!(resolved(""), "the API server serves no ``");
        assert_eq!(resolved("."), "the API server serves no `.`");
    }

    #[test]
    fn the_configuration_waits_for_what_is_not_served_and_refuses_what_cannot_be_watched() {
        let pods = KindIdentity {
            resource: "pods".to_owned(),
            namespaced: true,
        };
        assert_eq!(usual().identify("po"), Ok(Some(pods)));
        assert_eq!(usual().identify("widgets.acme.io"), Ok(None));
        assert!(
            usual()
                .identify("networkpolicies")
                .unwrap_err()
                .contains("write one of these")
        );
    }

    #[test]
    fn a_version_is_kept_as_long_as_it_is_served() {
        let v1 = kind(
            "autoscaling",
            "v1",
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
        );
        assert_eq!(usual().again(&v1).unwrap().version, "v1");
        let gone = ResolvedKind {
            version: "v2beta2".to_owned(),
            ..v1
        };
        assert_eq!(usual().again(&gone).unwrap().version, "v2");
        assert_eq!(
            usual().again(&kind("apps", "v1", "Nothing", "nothings")),
            None
        );
    }

    #[test]
    fn what_a_broken_api_said_before_still_counts() {
        let before = catalog(vec![kind(
            "metrics.k8s.io",
            "v1beta1",
            "PodMetrics",
            "pods",
        )]);
        let silent = Version {
            name: "v1beta1".to_owned(),
            kinds: Vec::new(),
            stale: true,
        };
        let mut now = Catalog::new(vec![Group {
            name: "metrics.k8s.io".to_owned(),
            versions: vec![silent],
        }]);
        assert!(now.resolve("podmetrics").is_err());
        now.remember(&before);
        assert!(now.resolve("podmetrics").is_ok());
    }
}
