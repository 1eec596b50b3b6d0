//! Reads the top level of the file, and the flags.

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use http::HeaderValue;
use tracing_subscriber::EnvFilter;

use super::{
    AerospikeConfig, Config, ConfigError, FacadeConfig, JournalConfig, LogConfig, LogFormat, Named,
    Patience, Place, TombstoneConfig, UpstreamConfig, aerospike, facade,
    kind::{self, KindDefaults},
    problem::refuse_if_any,
    trust::{self, AuthConfig, LimitsConfig, SensitiveConfig},
    yaml::{self, Field, Map, Reader},
};
use crate::args::ServeArgs;

const DEFAULT_GRPC_PORT: u16 = 7443;
const DEFAULT_ADMIN_PORT: u16 = 7480;

pub(super) const TOP: [&str; 18] = [
    "listen",
    "admin",
    "kubeListen",
    "facade",
    "auth",
    "limits",
    "tls",
    "sensitive",
    "upstream",
    "journal",
    "tombstones",
    "bookmarkInterval",
    "shutdownGrace",
    "log",
    "controllers",
    "aerospike",
    "patience",
    "kinds",
];
pub(super) const UPSTREAM: [&str; 7] = [
    "bookmarkPatience",
    "requestTimeout",
    "listTimeout",
    "connectTimeout",
    "reloadInterval",
    "discoveryInterval",
    "userAgent",
];
const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

const fn seconds(from: u64, to: u64) -> RangeInclusive<Duration> {
    Duration::from_secs(from)..=Duration::from_secs(to)
}

/// Times that tests shorten.
const SHORT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// Reads everything. `file` is its name and text.
pub(super) fn config(
    file: Option<(&Arc<str>, &str)>,
    args: &ServeArgs,
) -> Result<Config, ConfigError> {
    let name = file.map_or_else(|| Arc::from(""), |(name, _)| Arc::clone(name));
    let mut reader = Reader::new(Arc::clone(&name));
    let mut config = Config {
        listen: (Ipv4Addr::LOCALHOST, DEFAULT_GRPC_PORT).into(),
        admin: (Ipv4Addr::LOCALHOST, DEFAULT_ADMIN_PORT).into(),
        kube_listen: None,
        facade: FacadeConfig::default(),
        auth: AuthConfig::default(),
        limits: LimitsConfig::default(),
        tls: None,
        sensitive: SensitiveConfig::default(),
        upstream: UpstreamConfig::default(),
        bookmark_interval: Duration::from_secs(10),
        shutdown_grace: Duration::from_secs(25),
        log: LogConfig::default(),
        controllers: Vec::new(),
        aerospike: AerospikeConfig::default(),
        patience: Patience::default(),
        kinds: Vec::new(),
    };
    let mut defaults = KindDefaults::default();
    let mut entries = args.kinds.len();
    if let Some((name, text)) = file {
        let node =
            yaml::parse(name, text).map_err(|problem| ConfigError::Invalid(vec![problem]))?;
        entries += from_file(&mut reader, &Field::root(&node), &mut config, &mut defaults);
    }
    from_flags(&mut reader, args, &mut config, &defaults);
    trust::flags(&mut reader, args, &mut config);
    trust::check(&mut reader, &config);
    trust::withhold(&mut reader, &mut config);
    if entries == 0 {
        let place = match file {
            Some((file, _)) => Place::At {
                file: Arc::clone(file),
                line: 1,
                column: 1,
            },
            None => Place::Default,
        };
        reader.refuse_at(
            place,
            "kinds",
            "nothing to watch: name at least one kind, with the flag --kind pods or in the file as\n\n\
             kinds:\n- resource: pods\n",
        );
    }
    kind::refuse_twice(&mut reader, &config.kinds);
    refuse_shared_ports(&mut reader, &config);
    refuse_if_any(reader.problems)?;
    Ok(config)
}

fn refuse_shared_ports(reader: &mut Reader, config: &Config) {
    let listen = ("listen", Some(config.listen));
    let admin = ("admin", Some(config.admin));
    let kube = ("kubeListen", config.kube_listen);
    for ((first, one), (second, other)) in [(listen, admin), (listen, kube), (admin, kube)] {
        if let Some(address) = one.filter(|one| Some(*one) == other && one.port() != 0) {
            let message = format!("both ports are {address}: write another one for one of them");
            reader.refuse_at(Place::Default, &format!("{first}, {second}"), message);
        }
    }
}

/// Returns the number of kinds that the file has, the refused ones too.
fn from_file(
    reader: &mut Reader,
    root: &Field<'_>,
    config: &mut Config,
    defaults: &mut KindDefaults,
) -> usize {
    let top = reader.map(root, &TOP);
    if let Some(field) = top.get("listen") {
        let text = reader.text(&field);
        set(
            &mut config.listen,
            text.and_then(|text| {
                address(text, DEFAULT_GRPC_PORT)
                    .map_err(|error| reader.refuse(&field, error))
                    .ok()
            }),
        );
    }
    if let Some(field) = top.get("admin") {
        let text = reader.text(&field);
        set(
            &mut config.admin,
            text.and_then(|text| {
                address(text, DEFAULT_ADMIN_PORT)
                    .map_err(|error| reader.refuse(&field, error))
                    .ok()
            }),
        );
    }
    if let Some(field) = top.get("kubeListen") {
        let text = reader.text(&field);
        set(
            &mut config.kube_listen,
            text.and_then(|text| {
                facade::address(text)
                    .map_err(|error| reader.refuse(&field, error))
                    .ok()
            }),
        );
    }
    if let Some(field) = top.get("facade") {
        facade::read(reader, &field, &mut config.facade);
    }
    if let Some(field) = top.get("auth") {
        trust::auth(reader, &field, &mut config.auth);
    }
    if let Some(field) = top.get("tls") {
        config.tls = trust::tls(reader, &field);
    }
    if let Some(field) = top.get("limits") {
        trust::limits(reader, &field, &mut config.limits);
    }
    if let Some(field) = top.get("sensitive") {
        config.sensitive = trust::sensitive(reader, &field);
    }
    if let Some(field) = top.get("upstream") {
        upstream(reader, &field, &mut config.upstream);
    }
    if let Some(field) = top.get("journal") {
        journal(reader, &field, &mut defaults.journal);
    }
    if let Some(field) = top.get("tombstones") {
        tombstones(reader, &field, &mut defaults.tombstones);
    }
    duration(
        reader,
        &top,
        "bookmarkInterval",
        SHORT,
        &mut config.bookmark_interval,
    );
    duration(
        reader,
        &top,
        "shutdownGrace",
        seconds(0, 3600),
        &mut config.shutdown_grace,
    );
    if let Some(field) = top.get("log") {
        log(reader, &field, &mut config.log);
    }
    if let Some(field) = top.get("controllers") {
        controllers(reader, &field, &mut config.controllers);
    }
    if let Some(field) = top.get("aerospike") {
        aerospike::read(reader, &field, &mut config.aerospike);
    }
    if let Some(field) = top.get("patience") {
        aerospike::patience(reader, &field, &mut config.patience);
    }
    let kinds = top
        .get("kinds")
        .map(|field| reader.list(&field))
        .unwrap_or_default();
    for field in &kinds {
        config.kinds.extend(kind::read(reader, field, defaults));
    }
    kinds.len()
}

fn from_flags(reader: &mut Reader, args: &ServeArgs, config: &mut Config, defaults: &KindDefaults) {
    let mut refuse = |flag: &str, value: &str, message: String| {
        reader.refuse_at(Place::Flag(format!("{flag} {value}")), "", message);
    };
    if let Some(text) = &args.listen {
        set(
            &mut config.listen,
            address(text, DEFAULT_GRPC_PORT)
                .map_err(|error| refuse("--listen", text, error))
                .ok(),
        );
    }
    if let Some(text) = &args.admin {
        let found = address(text, DEFAULT_ADMIN_PORT);
        set(
            &mut config.admin,
            found.map_err(|error| refuse("--admin", text, error)).ok(),
        );
    }
    if let Some(text) = &args.kube_listen {
        let found = facade::address(text);
        set(
            &mut config.kube_listen,
            found
                .map_err(|error| refuse("--kube-listen", text, error))
                .ok(),
        );
    }
    if let Some(text) = &args.log_format {
        match FORMATS.iter().find(|(word, _)| word == text) {
            Some((_, format)) => config.log.format = *format,
            None => refuse("--log-format", text, "write text or json".to_owned()),
        }
    }
    if let Some(text) = &args.log_filter {
        match filter(text) {
            Ok(filter) => config.log.filter = filter,
            Err(error) => refuse("--log-filter", text, error),
        }
    }
    for text in &args.kinds {
        match kind::check_name(text) {
            Ok(()) => {
                let place = Place::Flag(format!("--kind {text}"));
                config.kinds.push(defaults.kind(text, place));
            }
            Err(error) => refuse("--kind", text, error),
        }
    }
}

fn upstream(reader: &mut Reader, field: &Field<'_>, upstream: &mut UpstreamConfig) {
    let map = reader.map(field, &UPSTREAM);
    let mut read = |key: &str, into: &mut Duration| duration(reader, &map, key, SHORT, into);
    read("bookmarkPatience", &mut upstream.bookmark_patience);
    read("requestTimeout", &mut upstream.request_timeout);
    read("listTimeout", &mut upstream.list_timeout);
    read("connectTimeout", &mut upstream.connect_timeout);
    read("reloadInterval", &mut upstream.reload_interval);
    read("discoveryInterval", &mut upstream.discovery_interval);
    if let Some(field) = map.get("userAgent")
        && let Some(text) = reader.text(&field)
    {
        match HeaderValue::from_str(text)
            .ok()
            .filter(|_| !text.is_empty())
        {
            Some(value) => upstream.user_agent = value,
            None => reader.refuse(
                &field,
                "not the value of a header: write visible ASCII on one line",
            ),
        }
    }
}

pub(super) fn journal(reader: &mut Reader, field: &Field<'_>, journal: &mut JournalConfig) {
    let map = reader.map(field, &["bytes", "age"]);
    if let Some(field) = map.get("bytes") {
        set(
            &mut journal.bytes,
            reader.bytes(&field, 64 << 10..=64 << 30),
        );
    }
    duration(reader, &map, "age", seconds(1, 86_400), &mut journal.age);
}

pub(super) fn tombstones(reader: &mut Reader, field: &Field<'_>, tombstones: &mut TombstoneConfig) {
    let map = reader.map(field, &["count", "age"]);
    if let Some(field) = map.get("count") {
        set(&mut tombstones.count, reader.number(&field, 0..=10_000_000));
    }
    duration(
        reader,
        &map,
        "age",
        seconds(1, 7 * 86_400),
        &mut tombstones.age,
    );
}

fn log(reader: &mut Reader, field: &Field<'_>, log: &mut LogConfig) {
    let map = reader.map(field, &["format", "filter"]);
    if let Some(field) = map.get("format") {
        set(&mut log.format, reader.choice(&field, &FORMATS));
    }
    if let Some(field) = map.get("filter")
        && let Some(text) = reader.text(&field)
    {
        match filter(text) {
            Ok(filter) => log.filter = filter,
            Err(error) => reader.refuse(&field, error),
        }
    }
}

fn controllers(reader: &mut Reader, field: &Field<'_>, controllers: &mut Vec<Named>) {
    for field in reader.list(field) {
        let Some(name) = reader.text(&field) else {
            continue;
        };
        if controllers.iter().any(|known| known.name == name) {
            reader.refuse(
                &field,
                format!("`{name}` stands here twice: remove one of them"),
            );
            continue;
        }
        let place = reader.place(&field);
        controllers.push(Named {
            name: name.to_owned(),
            place,
        });
    }
}

pub(super) fn duration(
    reader: &mut Reader,
    map: &Map<'_>,
    key: &str,
    range: RangeInclusive<Duration>,
    into: &mut Duration,
) {
    if let Some(field) = map.get(key) {
        set(into, reader.duration(&field, range));
    }
}

pub(super) fn set<T>(into: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *into = value;
    }
}

fn filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "not a filter ({error}): write a level such as info, or informerd=debug,warn"
        )),
    }
}

pub(super) fn address(text: &str, port: u16) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("not an address and port: write an IP address and a port, as in 127.0.0.1:{port}")
    })
}
