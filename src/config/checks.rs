//! Checks of the configuration that need to know more than the file: what the API server serves, and what the
//! controllers read.

use super::{
    Config, ConfigError, KindConfig, Namespaces, Place, Problem, kind::metadata,
    problem::refuse_if_any, yaml::instead_of,
};
use crate::object::{
    path::{Path, PathError},
    prune::Pruner,
};

/// What a controller reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    /// The controller's name, as in the config.
    pub controller: &'static str,
    /// The plural of a kind: `nodes`, `deployments.apps`.
    pub resource: &'static str,
    /// Other names that a config may have for it: `node`, `no`.
    pub aliases: &'static [&'static str],
    /// The paths that it reads there, outside identity, labels and owner references.
    pub paths: &'static [&'static str],
    /// It gets along without: the kind need not be configured, or only its metadata.
    pub optional: bool,
}

/// What the API server says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindIdentity {
    /// The full name: two names of one kind have the same.
    pub resource: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
}

impl Config {
    /// Checks the kinds against the API server. `resolve` says what a name means there: nothing if it is not
    /// served yet, or why it cannot be watched. The error has everything that is wrong.
    pub fn check_kinds(
        &self,
        resolve: impl Fn(&str) -> Result<Option<KindIdentity>, String>,
    ) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let mut known: Vec<(KindIdentity, &KindConfig)> = Vec::new();
        for kind in &self.kinds {
            let identity = match resolve(&kind.resource) {
                Ok(Some(identity)) => identity,
                Ok(None) => continue,
                Err(message) => {
                    problems.push(problem(&kind.place, message));
                    continue;
                }
            };
            if kind.namespaces != Namespaces::All && !identity.namespaced {
                let message = format!(
                    "`{}` do not live in namespaces: remove `namespaces`",
                    identity.resource
                );
                problems.push(problem(&kind.places.namespaces, message));
            }
            let means_it = |name: &String| resolve(name).ok().flatten().as_ref() == Some(&identity);
            let is_sensitive =
                identity.resource == "secrets" || self.sensitive.kinds.iter().any(means_it);
            if is_sensitive && (!kind.metadata_only || kind.read_through) && !kind.with_data {
                let message = format!(
                    "`{}` means {}, which are sensitive: write that name, and their data is left out",
                    kind.resource, identity.resource
                );
                problems.push(problem(&kind.place, message));
            }
            if let Some((_, first)) = known
                .iter()
                .find(|(other, _)| other.resource == identity.resource)
            {
                let message = format!(
                    "`{}` and `{}` at {} are the same kind, {}: remove one of them",
                    kind.resource, first.resource, first.place, identity.resource
                );
                problems.push(problem(&kind.place, message));
            }
            known.push((identity, kind));
        }
        refuse_if_any(problems)
    }

    /// Checks that each configured controller exists, and finds in the cache what it reads. `reads` has all
    /// controllers that there are. The error has everything that is wrong.
    pub fn check_reads(&self, reads: &[Reads]) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        for controller in &self.controllers {
            let mut own = reads
                .iter()
                .filter(|reads| reads.controller == controller.name)
                .peekable();
            if own.peek().is_none() {
                let mut names: Vec<&str> = reads.iter().map(|reads| reads.controller).collect();
                names.dedup();
                let instead = match names.as_slice() {
                    [] => "this build has none, remove it".to_owned(),
                    names => instead_of(&controller.name, names),
                };
                let message = format!("there is no controller `{}`: {instead}", controller.name);
                problems.push(problem(&controller.place, message));
            }
            for reads in own {
                self.check_one(reads, &controller.place, &mut problems);
            }
        }
        refuse_if_any(problems)
    }

    fn check_one(&self, reads: &Reads, controller: &Place, problems: &mut Vec<Problem>) {
        let Reads {
            controller: name,
            resource,
            aliases,
            paths,
            optional,
        } = reads;
        let is_it = |kind: &&KindConfig| {
            [*resource]
                .iter()
                .chain(*aliases)
                .any(|own| own.eq_ignore_ascii_case(&kind.resource))
        };
        let Some(kind) = self.kinds.iter().find(is_it) else {
            if *optional {
                return;
            }
            let message = format!(
                "the controller `{name}` reads {resource}, which are not configured: add `- resource: {resource}` \
                 to kinds, or remove `{name}`"
            );
            problems.push(problem(controller, message));
            return;
        };
        let read: Result<Vec<Path>, PathError> = paths.iter().map(|path| path.parse()).collect();
        let (read, pruner) = match (read, Pruner::new(&kind.prune)) {
            (Ok(read), Ok(pruner)) => (read, pruner),
            (Err(error), _) => {
                problems.push(problem(
                    controller,
                    format!("the controller `{name}`: {error}"),
                ));
                return;
            }
            (_, Err(error)) => {
                problems.push(problem(&kind.places.prune, error.to_string()));
                return;
            }
        };
        for path in read {
            let instead = format!("or remove `{name}` from controllers ({controller})");
            if kind.metadata_only && *optional {
                return;
            }
            if kind.metadata_only && !path.starts_with(&metadata()) {
                let message = format!(
                    "the controller `{name}` reads {path} of {resource}, which metadataOnly leaves out: remove \
                     metadataOnly, {instead}"
                );
                problems.push(problem(&kind.places.metadata_only, message));
                return;
            }
            if pruner.reads_dropped(&path) {
                let message = format!(
                    "the controller `{name}` reads {path} of {resource}, which prune leaves out: keep it, {instead}"
                );
                problems.push(problem(&kind.places.prune, message));
            }
        }
    }
}

fn problem(place: &Place, message: String) -> Problem {
    Problem {
        place: place.clone(),
        setting: String::new(),
        message,
    }
}
