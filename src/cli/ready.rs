//! `informerd ready`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;

use super::{
    Error, Format, Output, ServerArgs,
    judged::{self, Named},
    print, shape,
    table::Table,
    time,
};
use crate::{
    client::{self, Backoff, Client},
    proto::{
        EventType, ListReadinessRequest, MarkType, ReadinessChanges, ReadinessMark, ReadinessScope,
        ReadinessState, Target, Verdict, WatchReadinessRequest,
    },
};

/// Arguments of `ready`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 printed, ready or not; 1 failed, or a TARGET that was named does not exist; 2 wrong \
usage. To act on readiness use `informerd wait`."
)]
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
    /// How to print verdicts; with --watch, json prints one a line
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
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
    verdicts.sort_by_key(|verdict| verdict.state() == ReadinessState::Ready);
    let mut printer = Printer::new(&args);
    if args.watch {
        printer.news(out, verdicts.clone())?;
    } else {
        let alone = matches!(&named[..], [only] if !only.name.is_empty());
        printer.whole(out, &verdicts, alone)?;
    }
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
    watch(&client, scope, end.token, wanted, printer, out).await
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
    mut printer: Printer,
    out: &mut Output<'_>,
) -> Result<(), Error> {
    let mut backoff = Backoff::default();
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
                    None => break client::Error::Incomplete("the stream stopped"),
                    Some(Err(error)) => break error,
                    Some(Ok(message)) => message,
                };
                backoff.reset();
                let changed: Vec<Verdict> = message
                    .events
                    .into_iter()
                    .filter(|event| event.r#type() != EventType::Unspecified)
                    .filter_map(|event| event.verdict)
                    .filter(&wanted)
                    .collect();
                printer.news(out, changed)?;
                if let Some(mark) = message.mark {
                    printer.mark(out, &mark)?;
                    if !mark.token.is_empty() {
                        token = mark.token.clone();
                    }
                    if mark.r#type() == MarkType::End {
                        break client::Error::Ended {
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
        let pause = backoff.next(error.retry_delay());
        let seconds = pause.as_secs_f64();
        writeln!(out.err, "note: {error}; trying again in {seconds:.1}s")?;
        tokio::time::sleep(pause).await;
    }
}

/// A target, as verdicts name it: kind, namespace, name.
type Id = (String, String, String);

/// Prints verdicts, and remembers what it said last of each target.
struct Printer {
    format: Format,
    table: Table,
    with_namespace: bool,
    said: BTreeMap<Id, (ReadinessState, String)>,
    /// What came since the last reset of its kind began.
    brought: BTreeSet<Id>,
}

impl Printer {
    fn new(args: &Args) -> Self {
        let wide = args.output == Format::Wide;
        let before = args.all_namespaces.then_some("NAMESPACE");
        let more = ["PARTS", "GENERATION", "CONDITIONS"];
        let headers = before
            .into_iter()
            .chain(["TARGET", "STATE", "REASON", "SINCE"])
            .chain(more.into_iter().filter(|_| wide))
            .chain(["WHY"]);
        Self {
            format: args.output,
            table: Table::new(headers),
            with_namespace: args.all_namespaces,
            said: BTreeMap::new(),
            brought: BTreeSet::new(),
        }
    }

    /// All there is; `alone` where just one target was asked for by its name.
    fn whole(
        &mut self,
        out: &mut Output<'_>,
        verdicts: &[Verdict],
        alone: bool,
    ) -> Result<(), Error> {
        if !self.format.is_whole() {
            return self.rows(out, verdicts);
        }
        let items = verdicts.iter().map(shape::Verdict::of);
        let items = items.collect::<Result<Vec<_>, _>>()?;
        match &items[..] {
            [only] if alone => print::whole(out.out, self.format, only),
            // That it does not exist is said beside the output.
            [] if alone => Ok(()),
            _ => print::whole(out.out, self.format, &shape::Verdicts { items }),
        }
    }

    /// Those that differ from what was said before, in their state or its reason.
    fn news(&mut self, out: &mut Output<'_>, verdicts: Vec<Verdict>) -> Result<(), Error> {
        let news = verdicts.into_iter().filter(|one| self.is_news(one));
        let news: Vec<_> = news.collect();
        match self.format {
            Format::Json => {
                for verdict in &news {
                    let shape = shape::Verdict::of(verdict)?;
                    let line = serde_json::to_string(&shape).map_err(std::io::Error::from)?;
                    writeln!(out.out, "{line}")?;
                }
            }
            Format::Yaml => {
                for verdict in &news {
                    writeln!(out.out, "---")?;
                    print::whole(out.out, self.format, &shape::Verdict::of(verdict)?)?;
                }
            }
            Format::Table | Format::Wide | Format::Name => self.rows(out, &news)?,
        }
        Ok(out.out.flush()?)
    }

    /// At the end of a state that replaces what was said, what it did not bring is gone.
    fn mark(&mut self, out: &mut Output<'_>, mark: &ReadinessMark) -> Result<(), Error> {
        let covers =
            |(resource, _, _): &Id| mark.resources.is_empty() || mark.resources.contains(resource);
        if mark.r#type() == MarkType::Reset {
            self.brought.retain(|id| !covers(id));
        }
        if mark.r#type() != MarkType::ResetEnd {
            return Ok(());
        }
        let gone = self.said.iter().filter(|(id, (state, _))| {
            covers(id) && *state != ReadinessState::Gone && !self.brought.contains(*id)
        });
        let gone = gone.map(|((resource, namespace, name), _)| Verdict {
            target: Some(Target {
                resource: resource.clone(),
                namespace: namespace.clone(),
                name: name.clone(),
            }),
            state: ReadinessState::Gone.into(),
            ..Verdict::default()
        });
        let gone: Vec<_> = gone.collect();
        self.news(out, gone)
    }

    fn is_news(&mut self, verdict: &Verdict) -> bool {
        let Target {
            resource,
            namespace,
            name,
        } = verdict.target.clone().unwrap_or_default();
        let id = (resource, namespace, name);
        self.brought.insert(id.clone());
        let now = (verdict.state(), verdict.reason.clone());
        let before = self.said.insert(id, now.clone());
        before != Some(now)
    }

    fn rows(&mut self, out: &mut Output<'_>, verdicts: &[Verdict]) -> Result<(), Error> {
        if self.format == Format::Name {
            for verdict in verdicts {
                let target = verdict.target.clone().unwrap_or_default();
                writeln!(out.out, "{}", judged::name(&target))?;
            }
            return Ok(());
        }
        let now = (out.now)();
        let rows: Vec<_> = verdicts
            .iter()
            .map(|verdict| self.row(verdict, now))
            .collect();
        Ok(self.table.write(out.out, &rows)?)
    }

    fn row(&self, verdict: &Verdict, now: Timestamp) -> Vec<String> {
        let target = verdict.target.clone().unwrap_or_default();
        let since = time::timestamp(&verdict.since);
        let row = [
            judged::name(&target),
            judged::state(verdict.state()).to_owned(),
            verdict.reason.clone(),
            since.map_or_else(String::new, |since| time::between(since, now)),
        ];
        let wide = (self.format == Format::Wide).then(|| more(verdict));
        let namespace = self.with_namespace.then_some(target.namespace);
        namespace
            .into_iter()
            .chain(row)
            .chain(wide.into_iter().flatten())
            .chain([verdict.message.clone()])
            .collect()
    }
}

/// The further columns of -o wide: parts that are ready, the generation, and which conditions hold.
fn more(verdict: &Verdict) -> [String; 3] {
    let parts = match verdict.parts_total {
        0 => String::new(),
        total => format!("{}/{total}", verdict.parts_ready),
    };
    let generation = match (verdict.observed_generation, verdict.generation) {
        (_, 0) => String::new(),
        (0, latest) => latest.to_string(),
        (observed, latest) if observed == latest => latest.to_string(),
        (observed, latest) => format!("{observed} of {latest}"),
    };
    let holding = verdict.conditions.iter();
    let holding = holding.filter(|condition| condition.state() == ReadinessState::Ready);
    let holding: Vec<_> = holding.map(|condition| condition.name.as_str()).collect();
    [parts, generation, holding.join(",")]
}
