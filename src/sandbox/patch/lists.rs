//! How the lists of built-in kinds are merged: `patchStrategy` and `patchMergeKey` of the API's types.
//!
//! A field's name tells, where it is a list at all: the same names mean the same in all kinds here but for `ports`.

use super::Definition;

/// The lists of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lists {
    custom: bool,
    service: bool,
}

/// How a list is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Merge {
    /// Item by item, each known by this field.
    By(&'static str),
    /// As a set of values.
    Set,
    /// Not at all: it is replaced.
    Replace,
}

impl Lists {
    /// Those of this kind. The lists of a custom kind are replaced.
    pub fn of(definition: &Definition) -> Self {
        Self {
            custom: definition.custom,
            service: definition.is("", "services"),
        }
    }

    pub(super) fn merge(&self, field: &str) -> Merge {
        match field {
            "ownerReferences" => Merge::By("uid"),
            "finalizers" => Merge::Set,
            _ if self.custom => Merge::Replace,
            "containers"
            | "initContainers"
            | "ephemeralContainers"
            | "volumes"
            | "env"
            | "imagePullSecrets"
            | "resourceClaims" => Merge::By("name"),
            "volumeMounts" => Merge::By("mountPath"),
            "volumeDevices" => Merge::By("devicePath"),
            "ports" if self.service => Merge::By("port"),
            "ports" => Merge::By("containerPort"),
            "conditions" | "addresses" => Merge::By("type"),
            "hostAliases" | "podIPs" | "hostIPs" => Merge::By("ip"),
            "topologySpreadConstraints" => Merge::By("topologyKey"),
            "podCIDRs" => Merge::Set,
            _ => Merge::Replace,
        }
    }
}
