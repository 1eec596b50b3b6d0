//! `informerd kinds`.

use super::{Error, Output, ServerArgs, note, table::Table, time};
use crate::proto::{Freshness, KindStatus};

/// Arguments of `kinds`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
}

const HEADERS: [&str; 9] = [
    "RESOURCE",
    "STATE",
    "OBJECTS",
    "REVISION",
    "AGE",
    "WATCHES",
    "RELISTS",
    "CONSUMERS",
    "WHY",
];

/// Prints one line a kind.
pub async fn run(args: Args, out: &mut Output<'_>) -> Result<(), Error> {
    let kinds = args.server.connect()?.kinds().await?;
    if kinds.is_empty() {
        return Ok(writeln!(out.err, "No kinds are configured")?);
    }
    let rows: Vec<_> = kinds.iter().map(row).collect();
    Ok(Table::new(HEADERS).write(out.out, &rows)?)
}

fn row(kind: &KindStatus) -> Vec<String> {
    let freshness = kind.freshness.clone().unwrap_or_default();
    vec![
        kind.resource.clone(),
        note::state_name(freshness.state()).into(),
        kind.objects.to_string(),
        revision(&freshness),
        age(&freshness),
        kind.watches_opened.to_string(),
        relists(kind),
        kind.consumers.to_string(),
        why(&freshness),
    ]
}

/// The shards' revisions, each with its namespace where there are several.
fn revision(freshness: &Freshness) -> String {
    let shard = |it: &crate::proto::ShardPosition| match it.namespace.as_str() {
        "" => it.revision.to_string(),
        namespace => format!("{namespace}={}", it.revision),
    };
    match &freshness.positions[..] {
        [] => "<none>".into(),
        shards => shards.iter().map(shard).collect::<Vec<_>>().join(","),
    }
}

fn age(freshness: &Freshness) -> String {
    let Some(age) = time::duration(&freshness.age) else {
        return "<unknown>".into();
    };
    let age = time::human(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
    if freshness.age_unproven {
        format!("{age} (unproven)")
    } else {
        age
    }
}

/// How many lists, by cause.
fn relists(kind: &KindStatus) -> String {
    let mut causes: Vec<_> = kind
        .relists
        .iter()
        .filter(|(_, count)| **count > 0)
        .collect();
    causes.sort();
    match causes[..] {
        [] => "0".into(),
        _ => {
            let parts: Vec<_> = causes
                .iter()
                .map(|(cause, n)| format!("{cause}={n}"))
                .collect();
            parts.join(",")
        }
    }
}

fn why(freshness: &Freshness) -> String {
    let parts = [freshness.reason.as_str(), freshness.message.as_str()];
    parts
        .into_iter()
        .filter(|it| !it.is_empty())
        .collect::<Vec<_>>()
        .join(": ")
}
