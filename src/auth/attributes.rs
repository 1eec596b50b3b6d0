//! What somebody wants to do, in the words of RBAC: what a SubjectAccessReview asks, and what a refusal names.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Read one object.
    Get,
    /// Read all of them.
    List,
    /// Follow them.
    Watch,
    /// Act for somebody else.
    Impersonate,
}

impl Verb {
    /// As RBAC has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Impersonate => "impersonate",
        }
    }
}

/// One permission. Spelled as SubjectAccessReview spells it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Attributes {
    /// On objects.
    #[serde(rename = "resourceAttributes")]
    Resource(ResourceAttributes),
    /// On something that is no object; by path.
    #[serde(rename = "nonResourceAttributes")]
    Path {
        /// As a ClusterRole's `nonResourceURLs` names it.
        path: String,
        /// `get`.
        verb: Verb,
    },
}

/// On objects of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceAttributes {
    /// What is to be done.
    pub verb: Verb,
    /// Empty for the core group.
    pub group: String,
    /// The plural.
    pub resource: String,
    /// `status`; empty for the object itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
    /// Empty for all namespaces, and for kinds that live in none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Empty for all names.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Only objects with these fields; nothing for all. Servers before 1.34 may not look at it, and then ask for
    /// more rights rather than fewer.
    #[serde(skip_serializing_if = "Selector::is_everything")]
    pub field_selector: Selector,
    /// Only objects with these labels; see `field_selector`.
    #[serde(skip_serializing_if = "Selector::is_everything")]
    pub label_selector: Selector,
}

/// A selector as a query has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// One for all namespaces of a call: it can be long, and they many.
    #[serde(serialize_with = "text")]
    raw_selector: Arc<str>,
}

fn text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

impl Selector {
    fn is_everything(&self) -> bool {
        self.raw_selector.is_empty()
    }
}

impl From<&str> for Selector {
    fn from(text: &str) -> Self {
        Self {
            raw_selector: text.into(),
        }
    }
}

impl Attributes {
    /// On all objects of a kind.
    pub fn on(verb: Verb, group: &str, resource: &str) -> ResourceAttributes {
        ResourceAttributes {
            verb,
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: String::new(),
            namespace: String::new(),
            name: String::new(),
            field_selector: Selector::default(),
            label_selector: Selector::default(),
        }
    }

    /// To read what stands under a path that is no object's.
    pub fn path(path: &str) -> Self {
        Self::Path {
            path: path.to_owned(),
            verb: Verb::Get,
        }
    }
}

impl From<ResourceAttributes> for Attributes {
    fn from(attributes: ResourceAttributes) -> Self {
        Self::Resource(attributes)
    }
}

/// After "cannot": in the API server's own words, which people and tools know.
impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = match self {
            Self::Path { path, verb } => return write!(f, "{} path {path:?}", verb.as_str()),
            Self::Resource(on) => on,
        };
        write!(f, "{} resource {:?}", on.verb.as_str(), shown(on))?;
        write!(f, " in API group {:?}", on.group)?;
        if !on.name.is_empty() {
            write!(f, ", name {:?},", on.name)?;
        }
        match on.namespace.as_str() {
            "" => f.write_str(" at the cluster scope"),
            namespace => write!(f, " in the namespace {namespace:?}"),
        }
    }
}

fn shown(on: &ResourceAttributes) -> String {
    match on.subresource.as_str() {
        "" => on.resource.clone(),
        subresource => format!("{}/{subresource}", on.resource),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_reads_as_in_the_api_servers_refusals() {
        let pods = Attributes::on(Verb::Watch, "", "pods");
        assert_eq!(
            Attributes::from(pods.clone()).to_string(),
            r#"watch resource "pods" in API group "" at the cluster scope"#
        );
        let one = ResourceAttributes {
            namespace: "shop".into(),
            name: "web".into(),
            ..pods
        };
        assert_eq!(
            Attributes::from(one).to_string(),
            r#"watch resource "pods" in API group "", name "web", in the namespace "shop""#
        );
        let path = Attributes::path("/informerd/introspection/kinds");
        assert_eq!(
            path.to_string(),
            r#"get path "/informerd/introspection/kinds""#
        );
    }

    #[test]
    fn a_permission_is_spelled_as_a_review_has_it() {
        let on = ResourceAttributes {
            namespace: "shop".into(),
            name: "web".into(),
            field_selector: "spec.nodeName=n1".into(),
            label_selector: "app=web".into(),
            ..Attributes::on(Verb::List, "apps", "deployments")
        };
        assert_eq!(
            serde_json::to_value(Attributes::from(on)).unwrap(),
            serde_json::json!({"resourceAttributes": {
                "verb": "list", "group": "apps", "resource": "deployments", "namespace": "shop", "name": "web",
                "fieldSelector": {"rawSelector": "spec.nodeName=n1"}, "labelSelector": {"rawSelector": "app=web"},
            }})
        );
        let all = Attributes::from(Attributes::on(Verb::Get, "", "pods"));
        assert_eq!(
            serde_json::to_value(all).unwrap(),
            serde_json::json!({"resourceAttributes": {"verb": "get", "group": "", "resource": "pods"}})
        );
        assert_eq!(
            serde_json::to_value(Attributes::path("/x")).unwrap(),
            serde_json::json!({"nonResourceAttributes": {"path": "/x", "verb": "get"}})
        );
    }
}
