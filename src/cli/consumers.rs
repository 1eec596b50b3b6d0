//! `informerd consumers`.

use super::{Error, Output, ServerArgs, table::Table, time};
use crate::proto::{Consumer, View};

/// Arguments of `consumers`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Only consumers of this kind
    #[arg(value_name = "RESOURCE", default_value = "", hide_default_value = true)]
    resource: String,
}

const HEADERS: [&str; 13] = [
    "ID",
    "PEER",
    "METHOD",
    "SCOPE",
    "VIEW",
    "POSITION",
    "LAG",
    "STALLED",
    "EVENTS",
    "BYTES",
    "RESETS",
    "AGE",
    "USER-AGENT",
];

/// Prints one line an open call.
pub async fn run(args: Args, out: &mut Output<'_>) -> Result<(), Error> {
    let consumers = args.server.connect()?.consumers(&args.resource).await?;
    if consumers.is_empty() {
        return Ok(writeln!(out.err, "No consumers")?);
    }
    let now = (out.now)();
    let row = |it: &Consumer| {
        let seconds = |age: std::time::Duration| i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        vec![
            it.id.to_string(),
            it.peer.clone(),
            it.method.clone(),
            scope(it),
            view(it),
            it.position.clone(),
            it.lag_changes.to_string(),
            time::duration(&it.stalled)
                .filter(|it| !it.is_zero())
                .map_or("<none>".into(), |it| time::human(seconds(it))),
            it.events_sent.to_string(),
            it.bytes_sent.to_string(),
            it.resets.to_string(),
            time::timestamp(&it.since)
                .map_or("<unknown>".into(), |since| time::between(since, now)),
            it.user_agent.clone(),
        ]
    };
    let rows: Vec<_> = consumers.iter().map(row).collect();
    Ok(Table::new(HEADERS).write(out.out, &rows)?)
}

/// `pods in a,b named x where app=web and spec.nodeName=n1`; with dots where it or the mask is longer than what is told.
fn scope(consumer: &Consumer) -> String {
    let scope = consumer.scope.clone().unwrap_or_default();
    let mut text = scope.resource.clone();
    if !scope.namespaces.is_empty() {
        text += &format!(" in {}", scope.namespaces.join(","));
    }
    if !scope.name.is_empty() {
        text += &format!(" named {}", scope.name);
    }
    let selectors = [scope.label_selector.as_str(), scope.field_selector.as_str()];
    let selectors: Vec<_> = selectors.into_iter().filter(|it| !it.is_empty()).collect();
    if !selectors.is_empty() {
        text += &format!(" where {}", selectors.join(" and "));
    }
    if consumer.clipped {
        text += " ...";
    }
    text
}

fn view(consumer: &Consumer) -> String {
    let view = match consumer.view() {
        View::Keys => "keys",
        View::Metadata => "metadata",
        View::Full | View::Unspecified => "full",
    };
    match &consumer.fields[..] {
        [] => view.into(),
        fields => format!("{view} {}", fields.join(",")),
    }
}
