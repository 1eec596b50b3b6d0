//! `informerd wait`: for init containers and scripts.

use std::{collections::HashMap, io, path::PathBuf, time::Duration};

use futures::StreamExt;
use tokio::time::Instant;

use super::{
    Error, Output, ServerArgs,
    judged::{self, Named},
    time, written,
};
use crate::{
    client::{self, Backoff, Client},
    proto::{
        Target, WaitFor, WaitOutcome, WaitReadinessRequest, WaitReadinessResponse, WaitTarget,
    },
};

/// Arguments of `wait`. [`Error::exit_code`] has the exit codes.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 all targets are as asked for; 1 failed, also where informerd could not be asked until \
the timeout; 2 wrong usage; 3 timed out; 4 a target that was pinned by --uid is no more."
)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// What to wait for: deployment/web service/db aerospikecluster/cache
    #[arg(value_name = "TARGET", required_unless_present = "filename")]
    targets: Vec<String>,
    /// Also for the objects in this file, as they are there or later: what kubectl apply -o json prints; - for standard
    /// input
    #[arg(short, long, value_name = "FILE")]
    filename: Option<PathBuf>,
    /// In this namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// ready, gone, safe-to-disrupt, or condition=NAME
    #[arg(long = "for", value_name = "WHAT", default_value = "ready")]
    wanted: String,
    /// How long to wait at most: 30s, 5m, 1h30m
    #[arg(long, default_value = "5m", value_parser = time::parse)]
    timeout: Duration,
    /// Only the object with this uid; needs exactly one TARGET
    #[arg(long, default_value = "", hide_default_value = true)]
    uid: String,
    /// Only verdicts on this resourceVersion or a later one, as a write returned it; needs exactly one TARGET
    #[arg(long, default_value = "", hide_default_value = true)]
    min_resource_version: String,
    /// Only verdicts on this metadata.generation or a later one; needs exactly one TARGET
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    min_generation: i64,
    /// Say nothing while waiting
    #[arg(short, long)]
    quiet: bool,
}

/// Waits, says meanwhile what is missing, and at the end how it went.
pub async fn run(args: Args, out: &mut Output<'_>) -> Result<(), Error> {
    let deadline = Instant::now() + args.timeout;
    let (wait_for, condition) = wanted(&args.wanted)?;
    let client = args.server.connect()?;
    let mut targets = None;
    let mut backoff = Backoff::default();
    loop {
        let error = match attempt(
            &client,
            &args,
            wait_for,
            &condition,
            deadline,
            &mut targets,
            out,
        )
        .await
        {
            Err(Error::Client(error)) if !error.is_permanent() => error,
            done => return done,
        };
        let pause = backoff.next(error.retry_delay());
        if Instant::now() + pause >= deadline {
            return Err(error.into());
        }
        if !args.quiet {
            let seconds = pause.as_secs_f64();
            writeln!(out.err, "note: {error}; trying again in {seconds:.1}s")?;
        }
        tokio::time::sleep(pause).await;
    }
}

/// One call. What it waits for stays the same over all of them.
async fn attempt(
    client: &Client,
    args: &Args,
    wait_for: WaitFor,
    condition: &str,
    deadline: Instant,
    targets: &mut Option<Vec<WaitTarget>>,
    out: &mut Output<'_>,
) -> Result<(), Error> {
    let targets = match targets {
        Some(targets) => targets.clone(),
        None => {
            let found = resolve(client, args).await?;
            targets.insert(found).clone()
        }
    };
    let request = WaitReadinessRequest {
        targets,
        wait_for: wait_for.into(),
        condition: condition.to_owned(),
        timeout: (deadline - Instant::now()).try_into().ok(),
    };
    let mut answers = client.wait(request).await?;
    let mut said = HashMap::new();
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        match answer.outcome() {
            WaitOutcome::Unspecified if args.quiet => {}
            WaitOutcome::Unspecified => progress(&answer, &mut said, out)?,
            WaitOutcome::Satisfied => {
                for verdict in &answer.verdicts {
                    let target = verdict.target.clone().unwrap_or_default();
                    writeln!(out.out, "{} {}", judged::name(&target), met(&args.wanted))?;
                }
                return Ok(());
            }
            WaitOutcome::TimedOut => {
                let missing = missing(&answer);
                return Err(Error::TimedOut { missing });
            }
            WaitOutcome::Impossible => {
                let missing = missing(&answer);
                return Err(Error::Impossible { missing });
            }
        }
    }
    Err(client::Error::Incomplete("the wait ended without an outcome").into())
}

async fn resolve(client: &Client, args: &Args) -> Result<Vec<WaitTarget>, Error> {
    let pinned =
        !args.uid.is_empty() || !args.min_resource_version.is_empty() || args.min_generation != 0;
    if pinned && (args.targets.len() != 1 || args.filename.is_some()) {
        let text = "--uid, --min-resource-version and --min-generation need exactly one TARGET";
        return Err(Error::Usage(text.to_owned()));
    }
    let kinds = match &args.filename {
        // What a file has of a kind tells no name of its resource.
        Some(_) => client.kinds().await?,
        None => super::kinds(client, args.targets.iter().map(String::as_str)).await?,
    };
    let named = |text: &String| {
        let named = Named::resolve(text, &kinds, &args.namespace)?;
        if named.name.is_empty() {
            let text = format!("{text:?} has no name: write {text}/NAME");
            return Err(Error::Usage(text));
        }
        Ok(WaitTarget {
            target: Some(Target {
                resource: named.resource,
                namespace: named.namespace,
                name: named.name,
            }),
            uid: args.uid.clone(),
            min_generation: args.min_generation,
            min_resource_version: args.min_resource_version.clone(),
        })
    };
    let named: Result<Vec<_>, _> = args.targets.iter().map(named).collect();
    let mut targets = named?;
    if let Some(file) = &args.filename {
        let text = match file.to_str() {
            Some("-") => io::read_to_string(io::stdin()),
            _ => std::fs::read_to_string(file),
        };
        let text =
            text.map_err(|error| Error::Usage(format!("cannot read {}: {error}", file.display())))?;
        targets.extend(written::read(&text, &kinds)?);
    }
    Ok(targets)
}

fn wanted(text: &str) -> Result<(WaitFor, String), Error> {
    let none = String::new;
    match text {
        "ready" => Ok((WaitFor::Ready, none())),
        "gone" | "delete" => Ok((WaitFor::Gone, none())),
        "safe-to-disrupt" => Ok((WaitFor::SafeToDisrupt, none())),
        _ => match text.strip_prefix("condition=") {
            Some(name) if !name.is_empty() => Ok((WaitFor::Condition, name.to_owned())),
            _ => Err(Error::Usage(format!(
                "cannot wait for {text:?}: write ready, gone, safe-to-disrupt or condition=NAME"
            ))),
        },
    }
}

fn met(wanted: &str) -> &str {
    match wanted {
        "safe-to-disrupt" => "was safe to disrupt",
        "ready" | "gone" => wanted,
        _ => "condition met",
    }
}

/// Says of each target what it lacks, if that is news.
fn progress(
    answer: &WaitReadinessResponse,
    said: &mut HashMap<String, String>,
    out: &mut Output<'_>,
) -> Result<(), Error> {
    let changed = |target: &Option<Target>| {
        let mut verdicts = answer.verdicts.iter();
        verdicts.any(|verdict| verdict.target == *target)
    };
    for missing in answer.missing.iter().filter(|it| changed(&it.target)) {
        let target = missing.target.clone().unwrap_or_default();
        let why = format!("{}: {}", missing.reason, missing.message);
        let name = judged::name(&target);
        if said.get(&name) != Some(&why) {
            writeln!(out.err, "waiting for {name}: {why}")?;
            said.insert(name, why);
        }
    }
    Ok(())
}

fn missing(answer: &WaitReadinessResponse) -> String {
    let missing = answer.missing.iter().map(|missing| {
        let target = missing.target.clone().unwrap_or_default();
        let (reason, message) = (&missing.reason, &missing.message);
        format!("{} ({reason}: {message})", judged::name(&target))
    });
    missing.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_said_in_a_word() {
        for (text, expected) in [
            ("ready", (WaitFor::Ready, "")),
            ("gone", (WaitFor::Gone, "")),
            ("safe-to-disrupt", (WaitFor::SafeToDisrupt, "")),
            ("condition=Complete", (WaitFor::Condition, "Complete")),
        ] {
            let (wait_for, condition) = wanted(text).unwrap();
            assert_eq!((wait_for, condition.as_str()), expected);
        }
        for wrong in ["", "Ready", "condition", "condition="] {
            let error = wanted(wrong).unwrap_err();
            assert!(error.to_string().contains("safe-to-disrupt"), "{error}");
        }
    }
}
