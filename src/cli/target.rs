//! What `get` and `watch` are about: a kind as people name it, and the part of it that they want.
//!
//! The server refuses a namespace for a cluster-scoped kind, while people leave the namespace out and mean
//! `default`; so the kinds are asked for first.

use super::{Error, Format, Output, ServerArgs};
use crate::{
    client::Client,
    proto::{KindStatus, Scope, View},
};

/// RESOURCE, NAME and the flags that narrow them down.
#[derive(Clone, Debug, clap::Args)]
pub struct TargetArgs {
    /// The kind as you know it: pods, po, deployments.apps; or pods/NAME
    #[arg(value_name = "RESOURCE")]
    pub resource: String,
    /// Only the object of this name
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Only objects of this namespace
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Label selector: app=web,tier in (a,b),!canary
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Field selector: spec.nodeName=n1,status.phase notin (Failed,Succeeded)
    #[arg(long, default_value = "", hide_default_value = true)]
    pub field_selector: String,
}

/// What `get` and `watch` read, from where, and how it is printed.
#[derive(Clone, Debug, clap::Args)]
pub struct ReadArgs {
    #[command(flatten)]
    pub(super) server: ServerArgs,
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// How to print the objects; watched ones as json are one {"type","object"} a line
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
    /// With -o json or yaml: only these paths of each object: .spec.nodeName,.spec.containers[*].image
    #[arg(long, value_name = "PATHS", value_delimiter = ',')]
    pub(super) fields: Vec<String>,
}

impl ReadArgs {
    /// Connects, and finds the kind among those that informerd watches.
    pub(super) async fn resolve(&self) -> Result<(Client, Target), Error> {
        // A table is made of the whole object.
        if !self.fields.is_empty() && !self.output.is_whole() {
            return Err(Error::Usage(
                "--fields needs whole objects: add -o json or -o yaml".into(),
            ));
        }
        let client = self.server.connect()?;
        let kinds = super::kinds(&client, [self.target.resource.as_str()]).await?;
        let target = self.target.resolve(&kinds)?;
        Ok((client, target))
    }
}

/// A target whose kind has been found.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub kind: KindStatus,
    pub scope: Scope,
    /// Whether rows need to say their namespace.
    pub with_namespace: bool,
    /// Nothing more is cached, as the server said.
    pub metadata_only: bool,
}

impl TargetArgs {
    /// Finds the kind among those that informerd watches.
    pub(super) fn resolve(&self, kinds: &[KindStatus]) -> Result<Target, Error> {
        let (resource, name) = match (self.resource.split_once('/'), &self.name) {
            (None, name) => (self.resource.as_str(), name.as_deref()),
            (Some((resource, name)), None) if !name.is_empty() && !name.contains('/') => {
                (resource, Some(name))
            }
            _ => {
                let text = format!(
                    "{:?} is not a resource: write pods NAME or pods/NAME",
                    self.resource
                );
                return Err(Error::Usage(text));
            }
        };
        if name.is_some() && !(self.selector.is_empty() && self.field_selector.is_empty()) {
            return Err(Error::Usage(
                "a NAME and a selector exclude each other: leave one out".into(),
            ));
        }
        let kind = find(resource, kinds)?.clone();
        // What the API server does not serve yet may be either; most custom kinds are namespaced.
        let namespaced = kind.namespaced || kind.api_version.is_empty();
        if name.is_some() && namespaced && self.all_namespaces {
            return Err(Error::Usage(
                "an object cannot be found by NAME in all namespaces: write -n NAMESPACE".into(),
            ));
        }
        let one_namespace = namespaced && !self.all_namespaces;
        let scope = Scope {
            resource: kind.resource.clone(),
            namespaces: one_namespace
                .then(|| self.namespace.clone())
                .into_iter()
                .collect(),
            name: name.unwrap_or_default().into(),
            label_selector: self.selector.clone(),
            field_selector: self.field_selector.clone(),
        };
        Ok(Target {
            with_namespace: namespaced && self.all_namespaces,
            kind,
            scope,
            metadata_only: false,
        })
    }
}

impl Target {
    /// `pods "web-0" not found in namespace "default"`.
    pub(super) fn not_found(&self) -> Error {
        let mut what = format!("{} {:?}", self.scope.resource, self.scope.name);
        what += " not found";
        if let [namespace] = &self.scope.namespaces[..] {
            what += &format!(" in namespace {namespace:?}");
        }
        Error::NotFound { what }
    }

    /// Whether it was refused for want of anything but metadata: then that is worth asking for.
    pub(super) fn accept_metadata(&mut self, refused: &Error, out: &mut Output<'_>) -> bool {
        let only = matches!(refused, Error::Client(error) if error.reason() == "METADATA_ONLY");
        if !only || std::mem::replace(&mut self.metadata_only, true) {
            return false;
        }
        let resource = &self.scope.resource;
        let note = writeln!(
            out.err,
            "note: {resource}: only metadata is cached, as the daemon's config says"
        );
        // Whoever does not read notes may still read the rest.
        note.is_ok()
    }

    /// How much of each object a format needs, and is there.
    pub(super) fn view(&self, format: Format) -> View {
        match format {
            Format::Name => View::Keys,
            _ if self.metadata_only => View::Metadata,
            _ => View::Full,
        }
    }

    /// What kubectl says of an empty list.
    pub(super) fn nothing(&self) -> String {
        match &self.scope.namespaces[..] {
            [namespace] => format!("No resources found in {namespace} namespace."),
            _ => "No resources found".into(),
        }
    }
}

/// By its full name, an alias, its kind, its kind with the group, or the part of its name before the group, whichever
/// fits first.
pub(crate) fn find<'a>(resource: &str, kinds: &'a [KindStatus]) -> Result<&'a KindStatus, Error> {
    let same = |name: &str| name.eq_ignore_ascii_case(resource);
    let fits: [&dyn Fn(&KindStatus) -> bool; 5] = [
        &|kind| same(&kind.resource),
        &|kind| kind.aliases.iter().any(|alias| same(alias)),
        &|kind| same(&kind.kind),
        &|kind| match kind.resource.split_once('.') {
            Some((_, group)) => same(&format!("{}.{group}", kind.kind)),
            None => false,
        },
        &|kind| kind.resource.split('.').next().is_some_and(same),
    ];
    fits.iter()
        .find_map(|fits| kinds.iter().find(|kind| fits(kind)))
        .ok_or_else(|| unknown(resource, kinds))
}

/// That none of the kinds is this one.
pub(super) fn unknown(resource: &str, kinds: &[KindStatus]) -> Error {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.resource.as_str()).collect();
    let hint = match names[..] {
        [] => "it watches nothing yet: name the kinds in its config".into(),
        _ => format!("it watches: {}", names.join(", ")),
    };
    Error::UnknownKind {
        resource: resource.into(),
        hint,
    }
}

/// Kubernetes's own kinds that live in no namespace, by the names that are known here.
const CLUSTER_SCOPED: [&str; 12] = [
    "nodes",
    "node",
    "no",
    "namespaces",
    "namespace",
    "ns",
    "persistentvolumes",
    "pv",
    "clusterroles",
    "clusterrolebindings",
    "storageclasses",
    "customresourcedefinitions",
];

/// What can be told of a kind from its name alone.
pub(super) fn guess(resource: &str) -> KindStatus {
    let resource = resource.split('/').next().unwrap_or_default();
    let short = resource.split('.').next().unwrap_or_default();
    KindStatus {
        resource: resource.to_owned(),
        namespaced: !CLUSTER_SCOPED.contains(&short.to_ascii_lowercase().as_str()),
        // Else it would count as not served yet.
        api_version: "v1".to_owned(),
        ..KindStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Vec<KindStatus> {
        let kind = |resource: &str, kind: &str, namespaced, aliases: &[&str]| KindStatus {
            resource: resource.into(),
            kind: kind.into(),
            api_version: "v1".into(),
            namespaced,
            aliases: aliases.iter().map(|it| it.to_string()).collect(),
            ..KindStatus::default()
        };
        vec![
            kind("pods", "Pod", true, &["po", "pod"]),
            kind("nodes", "Node", false, &["no", "node"]),
            kind("deployments.apps", "Deployment", true, &["deploy"]),
        ]
    }

    fn args(line: &str) -> TargetArgs {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            target: TargetArgs,
        }
        let words = ["get"].into_iter().chain(line.split_whitespace());
        <Line as clap::Parser>::try_parse_from(words)
            .expect("parses")
            .target
    }

    fn scope(line: &str) -> Scope {
        args(line).resolve(&kinds()).expect("resolves").scope
    }

    #[test]
    fn a_kind_is_found_by_every_name_that_people_use() {
        for name in ["pods", "po", "pod", "Pod", "POD"] {
            assert_eq!(scope(name).resource, "pods");
        }
        for name in [
            "deployments.apps",
            "deployments",
            "deploy",
            "deployment",
            "deployment.apps",
        ] {
            assert_eq!(scope(name).resource, "deployments.apps");
        }
        let error = args("secrets").resolve(&kinds()).expect_err("not watched");
        assert_eq!(
            error.to_string(),
            "informerd does not watch \"secrets\"; it watches: pods, nodes, deployments.apps"
        );
    }

    #[test]
    fn the_namespace_is_default_unless_all_are_wanted_or_the_kind_has_none() {
        assert_eq!(scope("pods").namespaces, ["default"]);
        assert_eq!(scope("pods -n kube-system").namespaces, ["kube-system"]);
        assert!(scope("pods -A").namespaces.is_empty());
        assert!(scope("nodes").namespaces.is_empty());
        assert!(scope("nodes -n kube-system").namespaces.is_empty());
    }

    #[test]
    fn a_name_stands_alone_or_behind_a_slash() {
        for line in ["pods web-0", "pod/web-0", "po/web-0 -n default"] {
            assert_eq!(
                (scope(line).resource, scope(line).name),
                ("pods".into(), "web-0".into())
            );
        }
        for line in [
            "pod/web-0 web-1",
            "pod/",
            "pod/a/b",
            "pods web-0 -A",
            "pods web-0 -l app=web",
        ] {
            let error = args(line).resolve(&kinds()).expect_err(line);
            assert!(matches!(error, Error::Usage(_)), "{line}: {error}");
        }
        assert_eq!(scope("nodes n1 -A").name, "n1");
    }

    #[test]
    fn what_is_missing_is_said_with_where() {
        let not_found = |line: &str| {
            args(line)
                .resolve(&kinds())
                .expect("resolves")
                .not_found()
                .to_string()
        };
        assert_eq!(
            not_found("pods x"),
            "pods \"x\" not found in namespace \"default\""
        );
        assert_eq!(not_found("nodes x"), "nodes \"x\" not found");
    }
}
