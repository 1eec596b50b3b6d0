//! `informerd audit`: whether a daemon holds what the API server has.
//!
//! Both are read at one revision: a list of the cache says at which one it is, and the API server still knows that
//! one unless it was compacted since. So whatever changes meanwhile is not taken for a difference. Where the API
//! server has forgotten the revision, or versions have no order, its latest list is compared instead: if that is the
//! same, nothing is missing; if not, the next try may tell more.
//!
//! It stands beside the commands of [`cli`](crate::cli), which ask the daemon and nobody else: who doubts the daemon
//! asks the API server, too, and with credentials of their own.

use std::{process::ExitCode, time::Duration};

use crate::{
    args::{AuditArgs, AuditFormat},
    cli::Output,
    client::{self, Client},
    proto::{KindStatus, ListObjectsRequest, Scope, ShardPosition, View},
    upstream::{ConnectError, Upstream, UpstreamSettings},
};

mod compare;
mod live;
mod report;
#[cfg(test)]
mod tests;

use compare::{Difference, Held, Items};
use live::{Collection, Live, LiveError};
use report::Report;

/// How often it is looked before it gives up.
const TRIES: usize = 5;
/// Between two looks: by then, what was on its way should be there.
const PAUSE: Duration = Duration::from_secs(1);

/// Why it cannot be told whether both are the same.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The daemon does not answer, or refuses.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The kind is not one that it watches.
    #[error(transparent)]
    Kind(#[from] crate::cli::Error),
    /// The API server cannot be found.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It does not answer, or refuses.
    #[error("cannot read {resource} from the API server: {why}")]
    Live {
        /// The kind.
        resource: String,
        /// What it said.
        why: String,
    },
    /// There is nothing to compare with.
    #[error("the API server does not serve {0}")]
    NotServed(String),
    /// They were never read at the same revision.
    #[error(
        "cannot tell whether {resource} are the same: {why}; where this stays so, they are not, or the API server's \
         history went back"
    )]
    Unclear {
        /// The kind.
        resource: String,
        /// What was in the way at last.
        why: String,
    },
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
}

/// What it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Both have the same.
    Same,
    /// They differ.
    Different,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Same => Self::SUCCESS,
            Outcome::Different => Self::FAILURE,
        }
    }
}

/// Compares, and prints what differs. An error says that it could not be told.
pub async fn run(args: AuditArgs, out: &mut Output<'_>) -> Result<Outcome, AuditError> {
    let client = args.server.connect()?;
    let settings = UpstreamSettings::default();
    let (upstream, _) = Upstream::connect(args.kube.clone().into(), settings).await?;
    audit(&client, Live::new(upstream), &args, PAUSE, out).await
}

async fn audit(
    client: &Client,
    live: Live,
    args: &AuditArgs,
    pause: Duration,
    out: &mut Output<'_>,
) -> Result<Outcome, AuditError> {
    let kinds = client.kinds().await?;
    let kind = crate::cli::find_kind(&args.resource, &kinds)?;
    if kind.api_version.is_empty() {
        return Err(AuditError::NotServed(kind.resource.clone()));
    }
    let namespaces = (kind.namespaced && !args.all_namespaces).then(|| args.namespace.clone());
    let namespaces: Vec<String> = namespaces.into_iter().collect();
    let audit = Audit {
        client,
        live,
        kind,
        namespaces,
        pause,
    };
    let report = audit.report().await?;
    match args.output {
        AuditFormat::Table => report.print(out.out)?,
        AuditFormat::Json => report.print_json(out.out)?,
    }
    out.out.flush()?;
    Ok(if report.is_same() {
        Outcome::Same
    } else {
        Outcome::Different
    })
}

/// One kind, and the part of it that is looked at.
struct Audit<'a> {
    client: &'a Client,
    live: Live,
    kind: &'a KindStatus,
    /// Empty for all.
    namespaces: Vec<String>,
    /// Between two looks.
    pause: Duration,
}

/// What was found of one shard.
struct Part {
    /// Of the shard, empty where the kind is watched as a whole.
    namespace: String,
    /// At which both were read.
    revision: String,
    /// How many objects the cache has of it.
    objects: usize,
    differences: Vec<Difference>,
}

impl Audit<'_> {
    /// Looks until each shard was read at one revision on both sides.
    async fn report(&self) -> Result<Report<'_>, AuditError> {
        let mut parts: Vec<Part> = Vec::new();
        let mut unclear = String::new();
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(self.pause).await;
            }
            let (held, positions, unordered) = self.cached().await?;
            let known = |position: &ShardPosition| {
                parts
                    .iter()
                    .any(|part| part.namespace == position.namespace)
            };
            let open: Vec<_> = positions.iter().filter(|it| !known(it)).cloned().collect();
            let mut missing = false;
            for position in open {
                match self.compare(&position, unordered, &held).await? {
                    Ok(part) => parts.push(part),
                    Err(why) => {
                        missing = true;
                        unclear = why;
                    }
                }
            }
            if !missing {
                parts.sort_by(|a, b| a.namespace.cmp(&b.namespace));
                return Ok(Report::new(&self.kind.resource, parts));
            }
        }
        Err(AuditError::Unclear {
            resource: self.kind.resource.clone(),
            why: unclear,
        })
    }

    /// What the daemon has now, and where each shard stands.
    async fn cached(&self) -> Result<(Items, Vec<ShardPosition>, bool), AuditError> {
        let request = ListObjectsRequest {
            scope: Some(Scope {
                resource: self.kind.resource.clone(),
                namespaces: self.namespaces.clone(),
                ..Scope::default()
            }),
            view: View::Keys.into(),
            ..ListObjectsRequest::default()
        };
        let list = self.client.list(request).await?;
        let items = list.objects.into_iter().map(|object| {
            let held = Held {
                uid: object.uid,
                resource_version: object.resource_version,
                stale: object.stale,
            };
            ((object.namespace, object.name), held)
        });
        let freshness = list.freshness;
        Ok((items.collect(), freshness.positions, freshness.unordered))
    }

    /// One shard; `Err` within says why this look told nothing.
    async fn compare(
        &self,
        position: &ShardPosition,
        unordered: bool,
        held: &Items,
    ) -> Result<Result<Part, String>, AuditError> {
        let shard = &position.namespace;
        let held: Items = held
            .iter()
            .filter(|((namespace, _), _)| shard.is_empty() || namespace == shard)
            .map(|(key, held)| (key.clone(), held.clone()))
            .collect();
        let namespace = match self.namespaces.as_slice() {
            [namespace] => namespace,
            _ => shard,
        };
        let of = Collection {
            kind: self.kind,
            namespace,
        };
        let part = |revision: String, differences| Part {
            namespace: shard.clone(),
            revision,
            objects: held.len(),
            differences,
        };
        let mut why = "their versions have no order".to_owned();
        if !unordered {
            match self.live.list(of, Some(position.revision)).await {
                Ok(listed) => {
                    let differences = compare::differences(&held, &listed.items);
                    return Ok(Ok(part(position.revision.to_string(), differences)));
                }
                Err(LiveError::Revision(error)) => why = error,
                Err(LiveError::Failed(error)) => return Err(self.failed(error)),
            }
        }
        // Whatever the revisions are: two sets that are equal are equal.
        match self.live.list(of, None).await {
            Ok(listed) if compare::differences(&held, &listed.items).is_empty() => {
                Ok(Ok(part(listed.revision, Vec::new())))
            }
            Ok(_) => Ok(Err(why)),
            Err(LiveError::Revision(error) | LiveError::Failed(error)) => Err(self.failed(error)),
        }
    }

    fn failed(&self, why: String) -> AuditError {
        AuditError::Live {
            resource: self.kind.resource.clone(),
            why,
        }
    }
}
