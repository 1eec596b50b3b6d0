//! The command line. What a flag means is said once, in [`crate::config`], where the file's keys are read too.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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
    /// Work with the configuration file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make certificates
    #[command(subcommand)]
    Certs(CertsCommand),
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
