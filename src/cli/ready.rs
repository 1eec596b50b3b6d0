//! `informerd ready`.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;

use super::{
    Error, Output, ServerArgs,
    judged::{self, Named},
    table::Table,
    time,
};
use crate::{
    client::Client,
    proto::{
        EventType, ListReadinessRequest, MarkType, ReadinessChanges, ReadinessScope, Target,
        Verdict, WatchReadinessRequest,
    },
};

/// How long to wait before a watch that was cut is opened again.
const PAUSE: Duration = Duration::from_secs(1);

/// Arguments of `ready`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// What to look at: deployment/web, or pods for all of them; everything that is judged if left out
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// In this namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// In all namespaces, cluster-scoped targets included
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only targets with these labels: app=web,tier in (a,b)
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    selector: String,
    /// Go on with what changes
    #[arg(short, long)]
    watch: bool,
}

/// Prints verdicts with their reasons, the bad ones first; with --watch also what becomes of them.
pub async fn run(args: Args, out: &mut Output<'_>) -> Result<(), Error> {
    let client = args.server.connect()?;
    let kinds = client.kinds().await?;
    let namespace = if args.all_namespaces {
        ""
    } else {
        &args.namespace
    };
    let named = args.targets.iter();
    let named = named.map(|text| Named::resolve(text, &kinds, namespace));
    let named = named.collect::<Result<Vec<_>, _>>()?;
    let scope = scope(&args, &named, namespace);
    let request = ListReadinessRequest {
        scope: Some(scope.clone()),
    };
    let (mut verdicts, end) = client.verdicts(request).await?;
    let wanted = |verdict: &Verdict| {
        let target = verdict.target.clone().unwrap_or_default();
        named.is_empty() || named.iter().any(|named| named.covers(&target))
    };
    verdicts.retain(wanted);
    let missing = named.iter().filter(|named| {
        let is_it = |verdict: &Verdict| named.covers(&verdict.target.clone().unwrap_or_default());
        !named.name.is_empty() && !verdicts.iter().any(is_it)
    });
    let missing: Vec<Named> = missing.cloned().collect();
    verdicts.sort_by_key(|verdict| judged::state(verdict) == "Ready");
    let mut table = Rows::new(args.all_namespaces);
    table.write(out, &verdicts)?;
    for named in &missing {
        writeln!(out.err, "{}/{} does not exist", named.resource, named.name)?;
    }
    if verdicts.is_empty() && missing.is_empty() {
        writeln!(out.err, "Nothing that is judged")?;
    }
    if !args.watch {
        return match missing.first() {
            Some(named) => Err(Error::NotFound {
                what: format!("{} {:?} not found", named.resource, named.name),
            }),
            None => Ok(()),
        };
    }
    out.out.flush()?;
    let token = end.token;
    watch(&client, scope, token, wanted, table, out).await
}

fn scope(args: &Args, named: &[Named], namespace: &str) -> ReadinessScope {
    let unique = |texts: Vec<&String>| -> Vec<String> {
        let texts: std::collections::BTreeSet<_> = texts.into_iter().cloned().collect();
        texts.into_iter().collect()
    };
    let whole = named.iter().any(|named| named.name.is_empty());
    let cluster_scoped = named.iter().any(|named| named.namespace.is_empty());
    ReadinessScope {
        resources: unique(named.iter().map(|named| &named.resource).collect()),
        namespaces: if namespace.is_empty() || cluster_scoped {
            Vec::new()
        } else {
            vec![namespace.to_owned()]
        },
        names: if whole {
            Vec::new()
        } else {
            unique(named.iter().map(|named| &named.name).collect())
        },
        label_selector: args.selector.clone(),
        states: Vec::new(),
    }
}

/// Prints each change of a state or of its reason, until it fails for good or nobody reads on.
async fn watch(
    client: &Client,
    scope: ReadinessScope,
    mut token: Bytes,
    wanted: impl Fn(&Verdict) -> bool,
    mut table: Rows,
    out: &mut Output<'_>,
) -> Result<(), Error> {
    // Where a stream begins anew, all is told again: only what is news is printed.
    loop {
        let request = WatchReadinessRequest {
            scope: Some(scope.clone()),
            token: token.clone(),
            changes: ReadinessChanges::All.into(),
            ..WatchReadinessRequest::default()
        };
        let error = match client.watch_verdicts(request).await {
            Err(error) => error,
            Ok(mut messages) => loop {
                let message = match messages.next().await {
                    None => break crate::client::Error::Incomplete("the stream stopped"),
                    Some(Err(error)) => break error,
                    Some(Ok(message)) => message,
                };
                let changed: Vec<Verdict> = message
                    .events
                    .into_iter()
                    .filter(|event| event.r#type() != EventType::Unspecified)
                    .filter_map(|event| event.verdict)
                    .filter(&wanted)
                    .collect();
                table.write_news(out, changed)?;
                if let Some(mark) = message.mark {
                    if !mark.token.is_empty() {
                        token = mark.token.clone();
                    }
                    if mark.r#type() == MarkType::End {
                        break crate::client::Error::Ended {
                            reason: mark.reason,
                            message: mark.message,
                        };
                    }
                }
            },
        };
        if error.is_permanent() {
            return Err(error.into());
        }
        let pause = PAUSE.as_secs();
        writeln!(out.err, "note: {error}; trying again in {pause}s")?;
        tokio::time::sleep(PAUSE).await;
    }
}

/// The table, and what it said last of each target.
struct Rows {
    table: Table,
    with_namespace: bool,
    said: BTreeMap<(String, String, String), (&'static str, String)>,
}

impl Rows {
    fn new(with_namespace: bool) -> Self {
        let headers = ["TARGET", "STATE", "REASON", "SINCE", "WHY"];
        let namespace = with_namespace.then_some("NAMESPACE");
        Self {
            table: Table::new(namespace.into_iter().chain(headers)),
            with_namespace,
            said: BTreeMap::new(),
        }
    }

    fn write(&mut self, out: &mut Output<'_>, verdicts: &[Verdict]) -> Result<(), Error> {
        let now = (out.now)();
        for verdict in verdicts {
            self.is_news(verdict);
        }
        let rows: Vec<_> = verdicts
            .iter()
            .map(|verdict| self.row(verdict, now))
            .collect();
        Ok(self.table.write(out.out, &rows)?)
    }

    fn write_news(&mut self, out: &mut Output<'_>, verdicts: Vec<Verdict>) -> Result<(), Error> {
        let now = (out.now)();
        let news: Vec<_> = verdicts
            .into_iter()
            .filter(|one| self.is_news(one))
            .collect();
        let rows: Vec<_> = news.iter().map(|verdict| self.row(verdict, now)).collect();
        self.table.write(out.out, &rows)?;
        Ok(out.out.flush()?)
    }

    fn is_news(&mut self, verdict: &Verdict) -> bool {
        let Target {
            resource,
            namespace,
            name,
        } = verdict.target.clone().unwrap_or_default();
        let now = (judged::state(verdict), verdict.reason.clone());
        let before = self.said.insert((resource, namespace, name), now.clone());
        before != Some(now)
    }

    fn row(&self, verdict: &Verdict, now: Timestamp) -> Vec<String> {
        let target = verdict.target.clone().unwrap_or_default();
        let since = time::timestamp(&verdict.since);
        let row = [
            judged::name(&target),
            judged::state(verdict).to_owned(),
            verdict.reason.clone(),
            since.map_or_else(String::new, |since| time::between(since, now)),
            verdict.message.clone(),
        ];
        let namespace = self.with_namespace.then_some(target.namespace);
        namespace.into_iter().chain(row).collect()
    }
}
