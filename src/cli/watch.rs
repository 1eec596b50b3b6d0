//! `informerd watch`.

use std::{io::Write, time::Duration};

use clap::ValueEnum;
use futures::StreamExt;
use tonic::Code;

use super::{
    Error, Format, Output, note, print,
    target::{ReadArgs, Target},
    time,
};
use crate::{
    client::{self, Change, Client, Mirror, WatchEvent},
    proto::{self, Delivery, Freshness, KindState, WatchObjectsRequest},
};

/// Arguments of `watch`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    read: ReadArgs,
    /// In tables, say which are ADDED, MODIFIED and DELETED
    #[arg(long)]
    output_watch_events: bool,
    /// Only what changes from now on, without the initial state
    #[arg(long, visible_alias = "only")]
    watch_only: bool,
    /// Each change, also where several follow each other closely; ends with an error where one cannot be had
    #[arg(long)]
    every: bool,
    /// Which changes: all of them; those that can be seen, by --fields too; or those of metadata.generation
    #[arg(long, value_enum, default_value_t = Changes::All)]
    changes: Changes,
    /// At most one change of an object in this time (500ms, 5s, 1m), the latest
    #[arg(long, value_name = "TIME", value_parser = time::parse, conflicts_with = "every")]
    min_interval: Option<Duration>,
}

/// Which changes are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Changes {
    All,
    Visible,
    Generation,
}

impl From<Changes> for proto::Changes {
    fn from(changes: Changes) -> Self {
        match changes {
            Changes::All => Self::All,
            Changes::Visible => Self::Visible,
            Changes::Generation => Self::Generation,
        }
    }
}

/// Prints the initial state and what changes, until it fails for good or nobody reads on.
pub async fn run(args: Args, out: &mut Output<'_>) -> Result<(), Error> {
    let (client, mut target) = args.read.resolve().await?;
    match follow(&client, &target, &args, out).await {
        Err(refused) if target.accept_metadata(&refused, out) => {
            follow(&client, &target, &args, out).await
        }
        followed => followed,
    }
}

async fn follow(
    client: &Client,
    target: &Target,
    args: &Args,
    out: &mut Output<'_>,
) -> Result<(), Error> {
    let output = args.read.output;
    let mut watch = client.watch(request(target, args)?);
    let mut printer = Printer::new(target, output, args.output_watch_events);
    let mut teller = Teller::new(target, output);
    let mut mirror = Mirror::new();
    while let Some(event) = watch.next().await {
        let event = event.map_err(|error| missed(target, args, error))?;
        teller.tell(out.err, &event)?;
        let skip = args.watch_only && !mirror.is_complete();
        let changes = mirror.apply(&event);
        if !skip && !changes.is_empty() {
            printer.print(out, &changes)?;
            out.out.flush()?;
        }
    }
    Ok(())
}

fn request(target: &Target, args: &Args) -> Result<WatchObjectsRequest, Error> {
    let delivery = if args.every {
        Delivery::Every
    } else {
        Delivery::Latest
    };
    let min_interval = args.min_interval.map(prost_types::Duration::try_from);
    Ok(WatchObjectsRequest {
        scope: Some(target.scope.clone()),
        view: target.view(args.read.output).into(),
        fields: args.read.fields.clone(),
        delivery: delivery.into(),
        changes: proto::Changes::from(args.changes).into(),
        min_interval: min_interval
            .transpose()
            .map_err(|_| Error::Usage("--min-interval is beyond all measure".into()))?,
        ..WatchObjectsRequest::default()
    })
}

/// Where each change was asked for, and one cannot be had: that, in the words of the command line.
fn missed(target: &Target, args: &Args, error: client::Error) -> Error {
    match error.code() {
        Some(Code::OutOfRange) if args.every => Error::Missed {
            resource: target.scope.resource.clone(),
            reason: error.reason().into(),
        },
        _ => error.into(),
    }
}

/// Prints changes.
struct Printer<'a> {
    target: &'a Target,
    format: Format,
    rows: print::Rows,
}

impl<'a> Printer<'a> {
    fn new(target: &'a Target, format: Format, with_event: bool) -> Self {
        Self {
            target,
            format,
            rows: print::Rows::new(target, format, with_event),
        }
    }

    fn print(&mut self, out: &mut Output<'_>, changes: &[Change]) -> Result<(), Error> {
        let changes = changes.iter().map(|change| match change {
            Change::Added(object) => ("ADDED", object),
            Change::Modified(object) => ("MODIFIED", object),
            Change::Deleted(object) => ("DELETED", object),
        });
        match self.format {
            Format::Table | Format::Wide => self.rows.write(out, changes)?,
            Format::Json => {
                for (event, object) in changes {
                    print::event(out.out, event, object)?;
                }
            }
            Format::Yaml => {
                for (_, object) in changes {
                    writeln!(out.out, "---")?;
                    print::one(out.out, Format::Yaml, object)?;
                }
            }
            Format::Name => {
                for (_, object) in changes {
                    print::name(out.out, self.target, object)?;
                }
            }
        }
        Ok(())
    }
}

/// Tells a person what happens to the watch itself.
struct Teller<'a> {
    target: &'a Target,
    /// Still to be told once.
    pruned: bool,
    cut: bool,
    warned: Option<KindState>,
}

impl<'a> Teller<'a> {
    fn new(target: &'a Target, format: Format) -> Self {
        Self {
            target,
            pruned: format.is_whole(),
            cut: false,
            warned: None,
        }
    }

    fn tell(&mut self, err: &mut dyn Write, event: &WatchEvent) -> Result<(), Error> {
        let resource = &self.target.scope.resource;
        if let WatchEvent::Reconnecting { error, delay } = event {
            self.cut = true;
            let delay = delay.as_secs_f64();
            writeln!(
                err,
                "note: {resource}: {error}; trying again in {delay:.1}s"
            )?;
            return Ok(());
        }
        if std::mem::take(&mut self.cut) {
            writeln!(err, "note: {resource}: watching again")?;
        }
        match event {
            WatchEvent::ResetBegin {
                reason,
                message,
                freshness,
                ..
            } => {
                if reason != "INITIAL" {
                    let colon = if message.is_empty() { "" } else { ": " };
                    writeln!(
                        err,
                        "note: {resource}: starting over: {reason}{colon}{message}"
                    )?;
                }
                self.look(err, freshness)
            }
            WatchEvent::ResetEnd { freshness, .. } | WatchEvent::Mark { freshness, .. } => {
                self.look(err, freshness)
            }
            _ => Ok(()),
        }
    }

    /// Warns once as long as a state lasts.
    fn look(&mut self, err: &mut dyn Write, freshness: &Freshness) -> Result<(), Error> {
        let resource = &self.target.scope.resource;
        if freshness.pruned && std::mem::take(&mut self.pruned) {
            writeln!(err, "{}", note::PRUNED)?;
        }
        match note::warning(resource, freshness, Some(&self.target.kind)) {
            Some(warning) if self.warned != Some(freshness.state()) => {
                self.warned = Some(freshness.state());
                writeln!(err, "{warning}")?;
            }
            None if self.warned.take().is_some() => {
                writeln!(err, "note: {resource}: current again")?;
            }
            _ => {}
        }
        Ok(())
    }
}
