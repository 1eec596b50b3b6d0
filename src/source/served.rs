//! A kind as the API server serves it, and how its objects are asked for and read.

use std::sync::Arc;

use super::request::Request;
use crate::{
    cache::Identity,
    config::{KindConfig, Namespaces},
    discovery::ResolvedKind,
    object::{
        Decoder, Path, Pruner, Selectable,
        prune::{PruneError, PruneRules},
    },
};

/// What the config says about which objects of a kind are asked for, and what is kept of them.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) label_selector: String,
    pub(super) field_selector: String,
    /// An object that is reported deleted may have left the selection instead.
    pub(super) selected: bool,
    pub(super) metadata_only: bool,
    pruner: Pruner,
    selectable: Vec<Path>,
}

/// The kind as it is served now.
#[derive(Debug)]
pub(super) struct Served {
    resolved: Arc<ResolvedKind>,
    pub(super) identity: Identity,
    pub(super) decoder: Decoder,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    List,
    Watch,
    /// A list of which only the revision counts.
    Probe,
}

impl Form {
    pub(super) fn of(request: &Request) -> Self {
        match request {
            Request::List { .. } | Request::Continue { .. } => Self::List,
            Request::Stream { .. } | Request::Watch { .. } => Self::Watch,
            Request::Probe => Self::Probe,
        }
    }
}

impl Scope {
    pub(super) fn new(kind: &KindConfig) -> Result<Self, PruneError> {
        debug_assert!(!matches!(&kind.namespaces, Namespaces::Include(names) if names.is_empty()));
        let rules: &PruneRules = &kind.prune;
        Ok(Self {
            label_selector: kind.label_selector.to_string(),
            field_selector: kind.upstream_field_selector(),
            selected: kind.is_selected(),
            metadata_only: kind.metadata_only,
            pruner: Pruner::new(rules)?,
            selectable: kind.selectable.clone(),
        })
    }

    /// The `Accept` header. Metadata only is demanded, not hoped for: whole objects would fill the memory that the
    /// config means to save.
    pub(super) fn accept(&self, form: Form) -> &'static str {
        match (form, self.metadata_only) {
            (Form::List, true) => {
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
            }
            (Form::Watch, true) => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            (Form::List | Form::Watch, false) => "application/json",
            (Form::Probe, _) => {
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
            }
        }
    }
}

impl Served {
    pub(super) fn new(resolved: Arc<ResolvedKind>, scope: &Scope) -> Self {
        let selectable = selectable(&resolved, &scope.selectable);
        let identity = Identity {
            group: resolved.group.clone(),
            version: resolved.version.clone(),
            kind: resolved.kind.clone(),
            plural: resolved.plural.clone(),
            singular: resolved.singular.clone(),
            short_names: resolved.short_names.clone(),
            namespaced: resolved.namespaced,
            selectable,
        };
        let decoder = Decoder::new(
            &identity.api_version(),
            &identity.kind,
            identity.namespaced,
            &scope.pruner,
            &identity.selectable,
        );
        Self {
            resolved,
            identity,
            decoder,
        }
    }

    /// Whether the same bytes make the same objects.
    pub(super) fn reads_like(&self, other: &Self) -> bool {
        let what = |served: &Self| {
            let identity = &served.identity;
            (
                identity.api_version(),
                identity.kind.clone(),
                identity.plural.clone(),
                identity.namespaced,
            )
        };
        what(self) == what(other) && self.identity.selectable == other.identity.selectable
    }

    /// Whether both have the same name and nothing else: a CRD was deleted, and made anew.
    pub(super) fn is_other_than(&self, other: &Self) -> bool {
        let uids = [&self.resolved.uid, &other.resolved.uid];
        uids.iter().all(|uid| !uid.is_empty()) && uids[0] != uids[1]
    }

    /// The collection's path; of all namespaces where `namespace` is empty.
    pub(super) fn path(&self, namespace: &str) -> String {
        self.resolved
            .url_path(Some(namespace).filter(|namespace| !namespace.is_empty()))
    }
}

/// The API server's own paths, the CRD's, and the config's, as far as they can be had.
fn selectable(resolved: &ResolvedKind, configured: &[Path]) -> Selectable {
    let mut all = Selectable::builtin(&resolved.group, &resolved.plural);
    let of_crd = resolved.crd.iter().flat_map(|crd| &crd.selectable);
    let crd = of_crd.filter_map(|text| match text.parse::<Path>() {
        Ok(path) => Some(path),
        Err(error) => {
            tracing::warn!(kind = %resolved, path = text, %error, "cannot select by this path of the CRD");
            None
        }
    });
    for path in crd.chain(configured.iter().cloned()) {
        match all.with([path]) {
            Ok(more) => all = more,
            Err(error) => tracing::warn!(kind = %resolved, %error, "cannot select by this path"),
        }
    }
    all
}
