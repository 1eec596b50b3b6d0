//! Asks the API server what it serves: in two documents with ETags where it can (1.26 and later), else group by
//! group.

use std::sync::Arc;

use futures::{StreamExt, stream};
use http::{
    HeaderValue, Request, StatusCode,
    header::{ACCEPT, ETAG, IF_NONE_MATCH},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroupList, APIResourceList, APIVersions};
use kube::core::discovery::v2::{ACCEPT_AGGREGATED_DISCOVERY_V2, APIGroupDiscoveryList};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Catalog, CrdVersion, ResolvedKind,
    catalog::{Group, Version},
    crds::{Edition, Look},
};
use crate::{
    columns::PrinterColumn,
    upstream::{Upstream, UpstreamError, Verb},
};

/// A cluster with a thousand CRDs needs about 2 MB.
const DOCUMENT_BYTES: usize = 64 * 1024 * 1024;
/// Group versions asked at once, where they have to be asked one by one.
const AT_ONCE: usize = 8;

/// Asks the API server what it serves, and remembers what it said.
pub struct Discovery {
    upstream: Upstream,
    core: Document,
    apis: Document,
    catalog: Option<Arc<Catalog>>,
    /// The documents say something else than the catalog.
    outdated: bool,
}

/// The last answer at one path.
struct Document {
    path: &'static str,
    etag: Option<HeaderValue>,
    groups: Vec<Group>,
}

/// The group versions that a server without aggregated discovery lists, preferred ones first.
type Listed = Vec<(String, Vec<String>)>;

enum Answer {
    Unchanged,
    Groups(Vec<Group>),
    Legacy(Listed),
}

impl Discovery {
    /// Nothing is asked yet.
    pub fn new(upstream: Upstream) -> Self {
        let document = |path| Document {
            path,
            etag: None,
            groups: Vec::new(),
        };
        Self {
            upstream,
            core: document("/api"),
            apis: document("/apis"),
            catalog: None,
            outdated: false,
        }
    }

    /// Asks. Returns whether the catalog is another one than before. An API that is registered but cannot be
    /// reached is no error: what it said before still counts.
    pub async fn poll(&mut self) -> Result<bool, UpstreamError> {
        for document in [&mut self.core, &mut self.apis] {
            // Kept at once, with its ETag: what comes after it may fail, and then nobody is told it again.
            let groups = match document.ask(&self.upstream).await? {
                Answer::Unchanged => continue,
                Answer::Groups(groups) => groups,
                Answer::Legacy(listed) => one_by_one(&self.upstream, listed).await,
            };
            document.groups = groups;
            self.outdated = true;
        }
        if !std::mem::take(&mut self.outdated) && self.catalog.is_some() {
            return Ok(false);
        }
        let mut catalog = Catalog::new([&self.core.groups[..], &self.apis.groups[..]].concat());
        if let Some(before) = &self.catalog {
            catalog.remember(before);
            if **before == catalog {
                return Ok(false);
            }
        }
        self.catalog = Some(Arc::new(catalog));
        Ok(true)
    }

    /// What the API server said last; `None` before it said anything.
    pub fn catalog(&self) -> Option<&Arc<Catalog>> {
        self.catalog.as_ref()
    }

    /// The version of the API server, `v1.36.3`; `None` where it does not say.
    pub async fn server_version(&self) -> Option<Arc<str>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            git_version: String,
        }
        let (_, _, body) = get(&self.upstream, "/version", "application/json", None)
            .await
            .ok()?;
        let version: Version = parse(&body, "version").ok()?;
        Some(version.git_version.into())
    }

    /// The kind with what its CRD says of it. As it is where it is not a CRD's, or where CRDs may not be read.
    pub(super) async fn with_crd(
        &self,
        kind: &ResolvedKind,
    ) -> Result<(ResolvedKind, Look), UpstreamError> {
        let Some(Crd { metadata, spec }) = self.crd(kind).await? else {
            return Ok((kind.clone(), Look::new(None)));
        };
        let mut versions = spec.versions.into_iter();
        let version = versions.find(|version| version.name == kind.version);
        let version = version.map(|version| CrdVersion {
            selectable: version
                .selectable_fields
                .into_iter()
                .map(|field| field.json_path)
                .collect(),
            columns: version.additional_printer_columns,
        });
        let kind = ResolvedKind {
            crd: Some(version.unwrap_or_default()),
            uid: metadata.uid.clone(),
            ..kind.clone()
        };
        Ok((kind, Look::new(Some(metadata))))
    }

    async fn crd(&self, kind: &ResolvedKind) -> Result<Option<Crd>, UpstreamError> {
        if !kind.may_be_custom() {
            return Ok(None);
        }
        let path = format!(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}.{}",
            kind.plural, kind.group
        );
        match get(&self.upstream, &path, "application/json", None).await {
            Ok((_, _, body)) => parse(&body, "CustomResourceDefinition").map(Some),
            Err(error) if error.status().is_some_and(|status| status.is_not_found()) => Ok(None),
            Err(error) if error.status().is_some_and(|status| status.is_forbidden()) => {
                tracing::info!(kind = %kind, %error, "cannot read the CRD's selectable fields and columns");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

#[derive(Deserialize)]
struct Crd {
    #[serde(default)]
    metadata: Edition,
    spec: CrdSpec,
}

#[derive(Deserialize)]
struct CrdSpec {
    #[serde(default)]
    versions: Vec<WrittenVersion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenVersion {
    name: String,
    #[serde(default)]
    selectable_fields: Vec<SelectableField>,
    #[serde(default)]
    additional_printer_columns: Vec<PrinterColumn>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SelectableField {
    json_path: String,
}

impl Document {
    async fn ask(&mut self, upstream: &Upstream) -> Result<Answer, UpstreamError> {
        let (status, etag, body) = get(
            upstream,
            self.path,
            ACCEPT_AGGREGATED_DISCOVERY_V2,
            self.etag.clone(),
        )
        .await?;
        if status == StatusCode::NOT_MODIFIED {
            return Ok(Answer::Unchanged);
        }
        #[derive(Deserialize)]
        struct Any {
            #[serde(default)]
            kind: String,
        }
        let answer = match parse::<Any>(&body, "discovery document")?.kind.as_str() {
            "APIGroupDiscoveryList" => {
                Answer::Groups(Catalog::aggregated(parse::<APIGroupDiscoveryList>(
                    &body,
                    "discovery document",
                )?))
            }
            "APIVersions" => {
                let core: APIVersions = parse(&body, "list of core versions")?;
                Answer::Legacy(vec![(String::new(), core.versions)])
            }
            _ => Answer::Legacy(listed(parse(&body, "list of groups")?)),
        };
        self.etag = match &answer {
            Answer::Groups(_) => etag,
            _ => None,
        };
        Ok(answer)
    }
}

fn listed(groups: APIGroupList) -> Listed {
    let groups = groups.groups.into_iter().map(|group| {
        let preferred = group.preferred_version.map(|preferred| preferred.version);
        let mut versions: Vec<String> = group
            .versions
            .into_iter()
            .map(|version| version.version)
            .collect();
        versions.sort_by_key(|version| Some(version) != preferred.as_ref());
        (group.name, versions)
    });
    groups.collect()
}

/// Asks for each group version. One that does not answer is stale, and harms none of the others.
async fn one_by_one(upstream: &Upstream, listed: Listed) -> Vec<Group> {
    let all = listed.into_iter().flat_map(|(group, versions)| {
        versions
            .into_iter()
            .map(move |version| (group.clone(), version))
    });
    let answers: Vec<(String, Version)> = stream::iter(all)
        .map(|(group, version)| async move {
            let answer = group_version(upstream, &group, &version).await;
            if let Err(error) = &answer {
                tracing::debug!(group, version, %error, "cannot ask what this group serves");
            }
            let stale = answer.is_err();
            (
                group,
                Version {
                    name: version,
                    kinds: answer.unwrap_or_default(),
                    stale,
                },
            )
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let mut groups: Vec<Group> = Vec::new();
    for (name, version) in answers {
        match groups.last_mut() {
            Some(group) if group.name == name => group.versions.push(version),
            _ => groups.push(Group {
                name,
                versions: vec![version],
            }),
        }
    }
    groups
}

async fn group_version(
    upstream: &Upstream,
    group: &str,
    version: &str,
) -> Result<Vec<Arc<ResolvedKind>>, UpstreamError> {
    let path = if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    };
    let (_, _, body) = get(upstream, &path, "application/json", None).await?;
    let list: APIResourceList = parse(&body, "list of resources")?;
    // A name with a slash is a subresource.
    let kinds = list
        .resources
        .into_iter()
        .filter(|resource| !resource.name.contains('/'))
        .map(|resource| {
            Arc::new(ResolvedKind {
                group: group.to_owned(),
                version: version.to_owned(),
                kind: resource.kind,
                plural: resource.name,
                singular: resource.singular_name,
                short_names: resource.short_names.unwrap_or_default(),
                namespaced: resource.namespaced,
                verbs: resource.verbs,
                categories: resource.categories.unwrap_or_default(),
                crd: None,
                uid: String::new(),
            })
        });
    Ok(kinds.collect())
}

async fn get(
    upstream: &Upstream,
    path: &str,
    accept: &'static str,
    etag: Option<HeaderValue>,
) -> Result<(StatusCode, Option<HeaderValue>, bytes::Bytes), UpstreamError> {
    let mut request = Request::get(path).header(ACCEPT, accept);
    if let Some(etag) = etag {
        request = request.header(IF_NONE_MATCH, etag);
    }
    let request = request
        .body(Vec::new())
        .map_err(|error| UpstreamError::Transport(Box::new(error)))?;
    let (mut parts, body) = upstream.fetch(Verb::Get, request, DOCUMENT_BYTES).await?;
    Ok((parts.status, parts.headers.remove(ETAG), body))
}

fn parse<T: DeserializeOwned>(body: &[u8], what: &'static str) -> Result<T, UpstreamError> {
    serde_json::from_slice(body).map_err(|source| UpstreamError::Decode { what, source })
}

#[cfg(test)]
mod tests;
