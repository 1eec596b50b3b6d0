//! The API server's side: who is there at a revision, without content.

use kube::{
    api::{ListParams, ObjectList, PartialObjectMeta, Request, VersionMatch},
    core::DynamicObject,
};

use super::compare::{Held, Items};
use crate::{
    proto::KindStatus,
    upstream::{Upstream, UpstreamError, Verb},
};

/// Objects in a page.
const PAGE: u32 = 500;
/// Of a page: managed fields may be as long as an object.
const MAX_BYTES: usize = 256 << 20;

/// Asks the API server.
pub(super) struct Live(Upstream);

/// Which objects.
#[derive(Clone, Copy)]
pub(super) struct Collection<'a> {
    /// With the selectors that the daemon watches it by.
    pub kind: &'a KindStatus,
    /// Empty for all.
    pub namespace: &'a str,
}

/// What there was.
pub(super) struct Listed {
    pub revision: String,
    pub items: Items,
}

/// Why it was not listed.
pub(super) enum LiveError {
    /// Not at this revision: it is forgotten, or has not come yet.
    Revision(String),
    /// Not at all.
    Failed(String),
}

impl Live {
    pub(super) fn new(upstream: Upstream) -> Self {
        Self(upstream)
    }

    /// All of it exactly as it was at a revision; without one, as it is now.
    pub(super) async fn list(
        &self,
        of: Collection<'_>,
        revision: Option<u64>,
    ) -> Result<Listed, LiveError> {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut params = ListParams {
            label_selector: given(&of.kind.label_selector),
            field_selector: given(&of.kind.field_selector),
            limit: Some(PAGE),
            version_match: revision.map(|_| VersionMatch::Exact),
            resource_version: revision.map(|revision| revision.to_string()),
            ..ListParams::default()
        };
        let path = path(of);
        let mut items = Items::new();
        loop {
            let page = self.page(&path, &params).await?;
            for item in page.items {
                let metadata = item.metadata;
                let key = (
                    metadata.namespace.unwrap_or_default(),
                    metadata.name.unwrap_or_default(),
                );
                let held = Held {
                    uid: metadata.uid.unwrap_or_default(),
                    resource_version: metadata.resource_version.unwrap_or_default(),
                    stale: false,
                };
                items.insert(key, held);
            }
            let at = page.metadata.resource_version.unwrap_or_default();
            if let Some(revision) = revision.filter(|revision| at != revision.to_string()) {
                let why =
                    format!("the API server answered for {at} where {revision} was asked for");
                return Err(LiveError::Revision(why));
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    return Ok(Listed {
                        revision: at,
                        items,
                    });
                }
            }
        }
    }

    async fn page(
        &self,
        path: &str,
        params: &ListParams,
    ) -> Result<ObjectList<PartialObjectMeta<DynamicObject>>, LiveError> {
        let request = Request::new(path).list_metadata(params);
        let request = request.map_err(|error| LiveError::Failed(error.to_string()))?;
        match self.0.fetch(Verb::List, request, MAX_BYTES).await {
            Ok((_, body)) => serde_json::from_slice(&body)
                .map_err(|error| LiveError::Failed(format!("its list is no list: {error}"))),
            Err(error) if is_of_revision(&error) => Err(LiveError::Revision(error.to_string())),
            Err(error) => Err(LiveError::Failed(error.to_string())),
        }
    }
}

/// Whether another revision may be had.
fn is_of_revision(error: &UpstreamError) -> bool {
    error
        .status()
        .is_some_and(|status| status.is_expired() || status.is_resource_version_too_large())
}

fn path(of: Collection<'_>) -> String {
    let KindStatus {
        api_version,
        resource,
        namespaced,
        ..
    } = of.kind;
    // `deployments.apps`: the group is in the version, too.
    let plural = resource.split('.').next().unwrap_or_default();
    let root = if api_version.contains('/') {
        "apis"
    } else {
        "api"
    };
    match of.namespace {
        namespace if *namespaced && !namespace.is_empty() => {
            format!("/{root}/{api_version}/namespaces/{namespace}/{plural}")
        }
        _ => format!("/{root}/{api_version}/{plural}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_where_the_api_server_has_it() {
        let at = |api_version: &str, resource: &str, namespaced, namespace| {
            let kind = KindStatus {
                api_version: api_version.into(),
                resource: resource.into(),
                namespaced,
                ..KindStatus::default()
            };
            path(Collection {
                kind: &kind,
                namespace,
            })
        };
        assert_eq!(at("v1", "pods", true, ""), "/api/v1/pods");
        assert_eq!(at("v1", "nodes", false, "default"), "/api/v1/nodes");
        assert_eq!(
            at("apps/v1", "deployments.apps", true, "shop"),
            "/apis/apps/v1/namespaces/shop/deployments"
        );
    }
}
