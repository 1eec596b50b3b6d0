//! The commands that read from a running informerd, with arguments and output as people know them from kubectl.
//!
//! Each command is a noun of its own: a clap `Args` and an async `run(args, out)`. They write to an [`Output`],
//! so that tests read what a person would.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Subcommand;
use jiff::Timestamp;

use crate::{
    client::{self, Client, Credentials},
    proto::KindStatus,
};

pub mod consumers;
pub mod get;
mod judged;
pub mod kinds;
pub mod kubeconfig;
mod note;
mod print;
pub mod ready;
mod shape;
mod target;
mod time;
pub mod wait;
pub mod watch;
mod written;

mod table;

pub use print::Format;
pub(crate) use table::Table;
pub(crate) use target::find as find_kind;
pub use target::{ReadArgs, TargetArgs};
pub use time::parse as parse_duration;

/// The reading commands; flatten them into the program's own.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print cached objects, as `kubectl get` does
    Get(get::Args),
    /// Print cached objects and then what changes, as `kubectl get --watch` does
    Watch(watch::Args),
    /// Print what is ready and what is not, and why
    Ready(ready::Args),
    /// Wait until targets are ready, gone, or safe to disrupt
    Wait(wait::Args),
    /// Print the kinds that informerd watches and how well it knows them
    Kinds(kinds::Args),
    /// Print who reads from informerd
    Consumers(consumers::Args),
    /// Print a kubeconfig for informerd's Kubernetes port, for kubectl and client libraries
    Kubeconfig(kubeconfig::Args),
}

/// Where informerd is.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// Address of informerd
    #[arg(
        long,
        env = "INFORMERD_SERVER",
        default_value = "127.0.0.1:7443",
        value_name = "HOST:PORT"
    )]
    pub server: String,
    /// The authority that signs its certificate (PEM); for https:// addresses
    #[arg(long, env = "INFORMERD_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Your certificate (PEM)
    #[arg(long, env = "INFORMERD_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, env = "INFORMERD_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Your Kubernetes token, made with `kubectl create token NAME --audience informerd`
    #[arg(long, env = "INFORMERD_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Where a command writes to, and what time it is there.
pub struct Output<'a> {
    /// What was asked for.
    pub out: &'a mut (dyn Write + Send),
    /// Notes and warnings.
    pub err: &'a mut (dyn Write + Send),
    /// Ages are counted up to this.
    pub now: fn() -> Timestamp,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments contradict each other.
    #[error("{0}")]
    Usage(String),
    /// The kind is not one that informerd watches.
    #[error("informerd does not watch {resource:?}; {hint}")]
    UnknownKind {
        /// As it was asked for.
        resource: String,
        /// What it does watch.
        hint: String,
    },
    /// There is no such object.
    #[error("{what}")]
    NotFound {
        /// `pods "x" not found in namespace "default"`.
        what: String,
    },
    /// Not in time.
    #[error("timed out waiting for {missing}")]
    TimedOut {
        /// The targets that are not as asked for, and why.
        missing: String,
    },
    /// Never.
    #[error("it is no use to wait for {missing}")]
    Impossible {
        /// See [`Error::TimedOut`].
        missing: String,
    },
    /// Each change was asked for, and one cannot be had any more.
    #[error(
        "not each change of {resource} can be told any more ({reason}): watch again to begin with what there is now, or \
         leave out --every"
    )]
    Missed {
        /// The kind.
        resource: String,
        /// One word: PAST_JOURNAL, HISTORY_GAP, ...
        reason: String,
    },
    /// The server could not be reached or refused.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// An object that is no JSON, or not an object.
    #[error("cannot read the object {name} that informerd sent: {why}")]
    Object {
        /// `namespace/name`.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl Error {
    /// 2 for a mistake in the arguments, 3 for a wait that timed out, 4 for one that is hopeless, 1 for the rest.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::TimedOut { .. } => ExitCode::from(3),
            Self::Impossible { .. } => ExitCode::from(4),
            _ => ExitCode::FAILURE,
        }
    }

    /// Whether the reader has gone, as `head` does when it has enough. That is no failure.
    fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Runs one of the reading commands.
pub async fn run(command: Command, out: &mut Output<'_>) -> Result<(), Error> {
    let done = match command {
        Command::Get(args) => get::run(args, out).await,
        Command::Watch(args) => watch::run(args, out).await,
        Command::Kinds(args) => kinds::run(args, out).await,
        Command::Consumers(args) => consumers::run(args, out).await,
        Command::Kubeconfig(args) => kubeconfig::run(args, out).await,
        Command::Ready(args) => ready::run(args, out).await,
        Command::Wait(args) => wait::run(args, out).await,
    };
    match done.and_then(|()| Ok(out.out.flush()?)) {
        Err(error) if error.is_broken_pipe() => Ok(()),
        done => done,
    }
}

impl ServerArgs {
    /// A client of it, not connected yet.
    pub(crate) fn connect(&self) -> Result<Client, Error> {
        let credentials = Credentials {
            ca: self.ca.clone(),
            certificate: self.cert.clone(),
            key: self.key.clone(),
            token_file: self.token_file.clone(),
        };
        Ok(Client::connect_with(&self.server, &credentials)?)
    }
}

/// The kinds that informerd watches; where those are not the caller's business, the ones that are asked for, as far
/// as their names tell.
async fn kinds<'a>(
    client: &Client,
    resources: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<KindStatus>, Error> {
    match client.kinds().await {
        Err(error) if error.code() == Some(tonic::Code::PermissionDenied) => {
            Ok(resources.into_iter().map(target::guess).collect())
        }
        kinds => Ok(kinds?),
    }
}

#[cfg(test)]
#[path = "cli/cli_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "cli/ready_tests.rs"]
mod ready_tests;
