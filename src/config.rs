//! What to watch and how to serve it: a YAML file, and flags that go before it.
//!
//! A mistake here costs a cluster's worth of objects or a controller that sees half of one, so everything is
//! checked before anything starts, all of it at once, and each complaint names file, line and column and says what
//! to write instead. `deploy/config.example.yaml` shows every setting.

use std::{fmt, net::SocketAddr, path::Path as FilePath, sync::Arc, time::Duration};

use http::HeaderValue;

use crate::{
    args::ServeArgs,
    digest,
    object::{
        path::Path,
        prune::PruneRules,
        selector::{FieldSelector, LabelSelector},
    },
};

mod aerospike;
mod checks;
mod facade;
mod kind;
mod problem;
mod read;
mod trust;
mod units;
mod yaml;

pub use aerospike::{AerospikeConfig, AerospikeLogin, AerospikeTls, Patience, ProbeMode};
pub use checks::{KindIdentity, Reads};
pub use facade::FacadeConfig;
pub use problem::{ConfigError, Place, Problem};
pub use trust::{AuthConfig, LimitsConfig, SensitiveConfig, TlsConfig};

/// The whole configuration, checked as far as that goes without the API server; for the rest see
/// [`Config::check_kinds`] and [`Config::check_reads`].
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Of the gRPC port; a loopback address unless it is known who is let in, over TLS.
    pub listen: SocketAddr,
    /// Who is let in.
    pub auth: AuthConfig,
    /// What callers may have.
    pub limits: LimitsConfig,
    /// How connections are secured; in plain text if it is missing.
    pub tls: Option<TlsConfig>,
    /// What is served with care only.
    pub sensitive: SensitiveConfig,
    /// Of the port for metrics and health.
    pub admin: SocketAddr,
    /// Of the port that speaks Kubernetes's protocol, if there is one; see `listen`.
    pub kube_listen: Option<SocketAddr>,
    /// How that port answers.
    pub facade: FacadeConfig,
    /// The connection to the API server.
    pub upstream: UpstreamConfig,
    /// How often an idle stream gets a new token.
    pub bookmark_interval: Duration,
    /// How long a SIGTERM may take.
    pub shutdown_grace: Duration,
    /// What is logged.
    pub log: LogConfig,
    /// Names of the controllers that run.
    pub controllers: Vec<Named>,
    /// How the controller `aerospike` asks nodes.
    pub aerospike: AerospikeConfig,
    /// For how long kinds count as current without news.
    pub patience: Patience,
    /// At least one, each name once.
    pub kinds: Vec<KindConfig>,
}

/// A name and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name.
    pub name: String,
    /// Where it stands.
    pub place: Place,
}

/// The connection to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// How long a kind that sends bookmarks may send nothing before its watch counts as half-open.
    pub bookmark_patience: Duration,
    /// Until response headers, of all but lists.
    pub request_timeout: Duration,
    /// Until the headers of one page of a list.
    pub list_timeout: Duration,
    /// Until connected, TLS included.
    pub connect_timeout: Duration,
    /// How often the files that hold the credentials are looked at.
    pub reload_interval: Duration,
    /// How often the API server is asked what it serves.
    pub discovery_interval: Duration,
    /// Sent as `User-Agent`.
    pub user_agent: HeaderValue,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// How a line looks.
    pub format: LogFormat,
    /// What `tracing_subscriber::EnvFilter` reads; known to be valid.
    pub filter: String,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// One kind to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindConfig {
    /// As written: `pods`, `po`, `deployments.apps`.
    pub resource: String,
    /// Where it was written.
    pub place: Place,
    /// Which namespaces.
    pub namespaces: Namespaces,
    /// Which labels, for the API server to select by.
    pub label_selector: LabelSelector,
    /// Which fields, for the API server to select by; without sets. See [`KindConfig::upstream_field_selector`].
    pub field_selector: FieldSelector,
    /// Objects in a page of a list.
    pub page_size: u32,
    /// How the first state is read.
    pub list: ListStrategy,
    /// How fresh the first list must be.
    pub consistency: Consistency,
    /// Whether only metadata is read.
    pub metadata_only: bool,
    /// The data of a sensitive kind is wanted nevertheless; said a second time at the top level.
    pub with_data: bool,
    /// Whether single whole objects are read from the API server for who asks for them; only where `metadata_only`.
    pub read_through: bool,
    /// What is not cached.
    pub prune: PruneRules,
    /// Paths to select by, beside those that the API server offers.
    pub selectable: Vec<Path>,
    /// When watching begins.
    pub start: Start,
    /// How much history is kept.
    pub journal: JournalConfig,
    /// How many deletions are remembered.
    pub tombstones: TombstoneConfig,
    /// Where the settings stand that a later check may complain about.
    places: KindPlaces,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct KindPlaces {
    prune: Place,
    metadata_only: Place,
    namespaces: Place,
}

/// The namespaces of a kind that are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Namespaces {
    /// One watch of everything.
    #[default]
    All,
    /// One watch each; at least one, each once.
    Include(Vec<String>),
    /// One watch of everything else, by a field selector; at least one, each once.
    Exclude(Vec<String>),
}

/// How the first state of a kind is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListStrategy {
    /// As a stream where the API server can, else in pages.
    #[default]
    Auto,
    /// As a stream (WatchList).
    WatchList,
    /// In pages.
    Paged,
}

/// How fresh the first list must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// As fresh as etcd.
    #[default]
    MostRecent,
    /// As fresh as the API server's watch cache happens to be: cheap, and possibly old.
    Any,
}

/// When the watching of a kind begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At once; the daemon is not ready before.
    #[default]
    Eager,
    /// When somebody asks for it.
    OnFirstUse,
}

/// How much history of a kind is kept; whichever is reached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// In memory.
    pub bytes: u64,
    /// Of the oldest change.
    pub age: Duration,
}

/// How many deletions of a kind are remembered; whichever is reached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TombstoneConfig {
    /// At most.
    pub count: u64,
    /// Of the oldest.
    pub age: Duration,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            age: Duration::from_secs(300),
        }
    }
}

impl Default for TombstoneConfig {
    fn default() -> Self {
        Self {
            count: 100_000,
            age: Duration::from_secs(3600),
        }
    }
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            bookmark_patience: Duration::from_secs(130),
            request_timeout: Duration::from_secs(15),
            list_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            reload_interval: Duration::from_secs(5),
            discovery_interval: Duration::from_secs(30),
            user_agent: HeaderValue::from_static(concat!("informerd/", env!("CARGO_PKG_VERSION"))),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info".to_owned(),
        }
    }
}

impl KindConfig {
    /// A kind with default settings.
    pub fn new(resource: impl Into<String>, place: Place) -> Self {
        Self {
            resource: resource.into(),
            namespaces: Namespaces::All,
            label_selector: LabelSelector::default(),
            field_selector: FieldSelector::default(),
            page_size: 500,
            list: ListStrategy::default(),
            consistency: Consistency::default(),
            metadata_only: false,
            with_data: false,
            read_through: false,
            prune: PruneRules::default(),
            selectable: Vec::new(),
            start: Start::default(),
            journal: JournalConfig::default(),
            tombstones: TombstoneConfig::default(),
            places: KindPlaces {
                prune: place.clone(),
                metadata_only: place.clone(),
                namespaces: place.clone(),
            },
            place,
        }
    }

    /// The `fieldSelector` to send upstream, excluded namespaces included; empty for none.
    pub fn upstream_field_selector(&self) -> String {
        let mut terms: Vec<String> = self.field_selector.to_kubernetes().into_iter().collect();
        if let Namespaces::Exclude(names) = &self.namespaces {
            terms.extend(
                names
                    .iter()
                    .map(|name| format!("metadata.namespace!={name}")),
            );
        }
        terms.retain(|term| !term.is_empty());
        terms.join(",")
    }

    /// Whether the API server is asked for some of the objects only, so that one that it reports deleted may have
    /// left the selection instead. (Namespaces do not count: an object cannot leave its own.)
    pub fn is_selected(&self) -> bool {
        !self.label_selector.is_everything() || !self.field_selector.is_everything()
    }

    /// Reads no more of it than metadata, and of that nothing that repeats the rest.
    fn leave_out_data(&mut self) {
        self.metadata_only = true;
        self.prune.last_applied = true;
        self.prune.managed_fields = true;
        if let Some(keep) = &mut self.prune.keep {
            let metadata = kind::metadata();
            keep.retain(|path| path.starts_with(&metadata));
        }
        let metadata = kind::metadata();
        self.prune.drop.retain(|path| path.starts_with(&metadata));
        self.selectable.retain(|path| path.starts_with(&metadata));
    }

    /// Whether objects may lack fields that they have upstream.
    pub fn is_pruned(&self) -> bool {
        self.prune != PruneRules::nothing() || self.metadata_only
    }

    /// A number for all settings that change what is cached: equal on two replicas, in two runs and after an
    /// upgrade only where the cached objects are the same.
    pub fn content_hash(&self) -> u64 {
        let text = format!(
            "1|{:?}|{}|{}|{}|{:?}|{:?}",
            self.namespaces,
            self.label_selector,
            self.field_selector,
            self.metadata_only,
            (
                self.prune.managed_fields,
                self.prune.last_applied,
                shown(&self.prune.drop),
                self.prune.keep.as_deref().map(shown)
            ),
            shown(&self.selectable),
        );
        digest::fnv1a([&*text])
    }
}

fn shown(paths: &[Path]) -> Vec<String> {
    paths.iter().map(Path::to_string).collect()
}

/// Reads the file, if there is one, and the flags. The error has everything that is wrong.
pub fn load(args: &ServeArgs) -> Result<Config, ConfigError> {
    let file = args.config.as_deref().map(read_file).transpose()?;
    read::config(
        file.as_ref().map(|(name, text)| (name, text.as_str())),
        args,
    )
}

/// The same, of a text instead of a file.
pub fn load_text(text: &str, args: &ServeArgs) -> Result<Config, ConfigError> {
    read::config(Some((&Arc::from("built in"), text)), args)
}

/// What `informerd config check` does: the same checks as at start, and what the controllers say of it. Returns
/// what the file says, for people.
pub fn check(file: &FilePath, reads: &[Reads]) -> Result<String, ConfigError> {
    let args = ServeArgs {
        config: Some(file.to_owned()),
        ..ServeArgs::default()
    };
    let config = load(&args)?;
    config.check_reads(reads)?;
    Ok(format!("{}: ok\n{config}", file.display()))
}

/// Larger than any configuration that a person wrote.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

fn read_file(file: &FilePath) -> Result<(Arc<str>, String), ConfigError> {
    let refuse = |message: String| ConfigError::Read {
        file: file.to_owned(),
        message,
    };
    let size = std::fs::metadata(file)
        .map_err(|error| refuse(format!("cannot read the configuration: {error}")))?
        .len();
    if size > MAX_FILE_BYTES {
        return Err(refuse(format!(
            "has {size} bytes, a configuration has at most {MAX_FILE_BYTES}: is it the right file?"
        )));
    }
    let text = std::fs::read_to_string(file)
        .map_err(|error| refuse(format!("cannot read the configuration: {error}")))?;
    Ok((file.display().to_string().into(), text))
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listen {}, admin {}", self.listen, self.admin)?;
        if let Some(kube) = self.kube_listen {
            write!(f, ", kubeListen {kube}")?;
        }
        writeln!(f)?;
        let AuthConfig {
            token_audience,
            client_ca,
            insecure_loopback,
        } = &self.auth;
        let mut ways = Vec::new();
        if let Some(audience) = token_audience {
            ways.push(format!("tokens for {audience}"));
        }
        if let Some(ca) = client_ca {
            ways.push(format!("client certificates of {}", ca.display()));
        }
        if *insecure_loopback {
            ways.push("everybody on this machine".to_owned());
        }
        if !ways.is_empty() {
            writeln!(f, "lets in {}", ways.join(", "))?;
        }
        if let Some(tls) = &self.tls {
            writeln!(f, "secured by {}", tls.certificate.display())?;
        }
        let names: Vec<&str> = self
            .controllers
            .iter()
            .map(|controller| controller.name.as_str())
            .collect();
        if !names.is_empty() {
            writeln!(f, "controllers {}", names.join(", "))?;
        }
        for kind in &self.kinds {
            writeln!(f, "{kind}")?;
        }
        Ok(())
    }
}

impl fmt::Display for KindConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {}", self.resource)?;
        match &self.namespaces {
            Namespaces::All => {}
            Namespaces::Include(names) => write!(f, "; only in {}", names.join(", "))?,
            Namespaces::Exclude(names) => write!(f, "; not in {}", names.join(", "))?,
        }
        if !self.label_selector.is_everything() {
            write!(f, "; labels {}", self.label_selector)?;
        }
        if !self.field_selector.is_everything() {
            write!(f, "; fields {}", self.field_selector)?;
        }
        if self.metadata_only {
            f.write_str("; metadata only")?;
        }
        if self.read_through {
            f.write_str(", whole objects one by one")?;
        }
        match &self.prune.keep {
            Some(keep) => write!(f, "; keeps {}", shown(keep).join(", "))?,
            None if !self.prune.drop.is_empty() => {
                write!(f, "; drops {}", shown(&self.prune.drop).join(", "))?
            }
            None => {}
        }
        if !self.selectable.is_empty() {
            write!(f, "; selectable {}", shown(&self.selectable).join(", "))?;
        }
        match self.start {
            Start::Eager => Ok(()),
            Start::OnFirstUse => f.write_str("; on first use"),
        }
    }
}

#[cfg(test)]
mod tests;
