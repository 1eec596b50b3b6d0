//! The command line. What a flag means is said once, in [`crate::config`], where the file's keys are read too.

use std::path::PathBuf;
#[cfg(feature = "sandbox")]
use std::{net::SocketAddr, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cli;

/// One watch per Kubernetes kind, shared by everybody.
#[derive(Debug, Parser)]
#[command(name = "informerd", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the configured kinds and serve them over gRPC
    Serve(ServeArgs),
    /// Show all of it at once, with nothing but this program: a sandbox, the daemon over it, and consumers
    #[cfg(feature = "sandbox")]
    Demo(DemoArgs),
    /// Run a Kubernetes for trying out and testing: an API in memory, and a small world in it
    #[cfg(feature = "sandbox")]
    Sandbox(SandboxArgs),
    /// Work with the configuration file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make certificates
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Say whether a running informerd has what the API server has: exit code 0 if so, 1 if not, 2 if it cannot be told
    Audit(AuditArgs),
    /// Read from a running informerd
    #[command(flatten)]
    Read(cli::Command),
}

/// `informerd serve`. Flags go before the file.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// Configuration file (YAML)
    #[arg(long, value_name = "FILE", env = "INFORMERD_CONFIG")]
    pub config: Option<PathBuf>,
    /// Watch this kind too, with default settings; may be repeated: --kind pods --kind deployments.apps
    #[arg(long = "kind", value_name = "KIND")]
    pub kinds: Vec<String>,
    /// Which cluster
    #[command(flatten)]
    pub kube: KubeArgs,
    /// Address of the gRPC port [default: 127.0.0.1:7443]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Let in Kubernetes tokens that are made for this audience
    #[arg(long, value_name = "NAME")]
    pub token_audience: Option<String>,
    /// Let in client certificates of the authorities in this file (PEM)
    #[arg(long, value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
    /// Let in whoever calls from this machine and says nothing of itself, with all rights
    #[arg(long)]
    pub insecure_loopback: bool,
    /// The server's certificate (PEM); read again when it changes
    #[arg(long, value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Address of the port for metrics and health [default: 127.0.0.1:7480]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin: Option<String>,
    /// Address of the port that speaks Kubernetes's read protocol, for kubectl and client libraries [default: off]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub kube_listen: Option<String>,
    /// Log as text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// What to log: info, or informerd=debug,warn [default: info]
    #[arg(long, value_name = "FILTER", env = "RUST_LOG")]
    pub log_filter: Option<String>,
}

/// Which cluster.
#[derive(Args, Clone, Debug, Default)]
pub struct KubeArgs {
    /// Kubeconfig [default: as kubectl: KUBECONFIG, ~/.kube/config; in a pod, its service account]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// `informerd audit`.
#[derive(Args, Clone, Debug)]
pub struct AuditArgs {
    /// The kind as you know it: pods, po, deployments.apps
    #[arg(value_name = "RESOURCE")]
    pub resource: String,
    /// Only objects of this namespace
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// How to print what differs
    #[arg(short, long, value_enum, default_value_t = AuditFormat::Table)]
    pub output: AuditFormat,
    /// Which informerd
    #[command(flatten)]
    pub server: cli::ServerArgs,
    /// Which cluster, and as whom
    #[command(flatten)]
    pub kube: KubeArgs,
}

/// How an audit is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuditFormat {
    /// One line an object that differs
    Table,
    /// One object: resource, same, parts, differences
    Json,
}

/// How large and how busy the sandbox's world is.
#[cfg(feature = "sandbox")]
#[derive(Args, Clone, Copy, Debug)]
pub struct WorldArgs {
    /// What is left to chance is drawn from this
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// What people do in a second, on average; 0 leaves the world to itself
    #[arg(long, value_name = "N", default_value_t = 2.0, value_parser = rate)]
    pub rate: f64,
    /// Nodes at the beginning
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub nodes: usize,
    /// Pods of Deployments at the beginning, about
    #[arg(long, value_name = "N", default_value_t = 120)]
    pub pods: usize,
}

#[cfg(feature = "sandbox")]
fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "write a number".to_owned())?;
    if (0.0..=1000.0).contains(&rate) {
        Ok(rate)
    } else {
        Err("write a number from 0 to 1000".to_owned())
    }
}

/// `informerd sandbox`.
#[cfg(feature = "sandbox")]
#[derive(Args, Clone, Debug)]
pub struct SandboxArgs {
    /// Address of its port; on loopback only
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Where to write a kubeconfig for it [default: a file among the temporary ones]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Nothing but the API: no world, and so no controllers and no nodes
    #[arg(long)]
    pub still: bool,
    /// Its world
    #[command(flatten)]
    pub world: WorldArgs,
    /// What to log
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = "warn")]
    pub log_filter: String,
}

/// `informerd demo`.
#[cfg(feature = "sandbox")]
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// End after this time (20s, 5m), with a summary; otherwise with Ctrl-C
    #[arg(long, value_name = "TIME", value_parser = cli::parse_duration)]
    pub r#for: Option<Duration>,
    /// How many consumers keep a copy of a kind each
    #[arg(long, value_name = "N", default_value_t = 24)]
    pub consumers: usize,
    /// The sandbox's world
    #[command(flatten)]
    pub world: WorldArgs,
    /// What to log
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = "error")]
    pub log_filter: String,
}

/// `informerd certs`.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Make an authority, a server's and a client's certificate for trying out
    Dev(DevArgs),
}

/// `informerd certs dev`.
#[derive(Args, Debug)]
pub struct DevArgs {
    /// Where the files go: ca, server and client, each .crt and .key
    #[arg(value_name = "FOLDER", default_value = "informerd-certs")]
    pub folder: PathBuf,
    /// Name or address that the server is reached by; may be repeated
    #[arg(long = "host", value_name = "HOST", default_values = ["localhost", "127.0.0.1", "::1"])]
    pub hosts: Vec<String>,
    /// The client's user name
    #[arg(long, value_name = "NAME", default_value = "informerd-dev")]
    pub user: String,
    /// The client's group
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
}

/// `informerd config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say what is wrong with a configuration file, without starting
    Check(CheckArgs),
}

/// `informerd config check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Configuration file (YAML)
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn kinds_are_given_one_flag_each() {
        let cli = Cli::parse_from([
            "informerd",
            "serve",
            "--kind",
            "pods",
            "--kind=deployments.apps",
            "--context",
            "dev",
        ]);
        let Command::Serve(args) = cli.command else {
            panic!("serve")
        };
        assert_eq!(args.kinds, ["pods", "deployments.apps"]);
        assert_eq!(args.kube.context.as_deref(), Some("dev"));
    }
}
