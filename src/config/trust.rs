//! Reads who is let in, how connections are secured, and what is served with care only; and refuses what would
//! let in anybody by accident.

use std::{net::SocketAddr, path::PathBuf};

use super::{
    Config, KindConfig, Place,
    read::set,
    yaml::{Field, Reader},
};
use crate::args::ServeArgs;

/// Who is let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// Kubernetes tokens for this audience.
    pub token_audience: Option<String>,
    /// Client certificates of the authorities in this file.
    pub client_ca: Option<PathBuf>,
    /// Whoever calls from this machine and says nothing of itself may do everything.
    pub insecure_loopback: bool,
}

/// How connections are secured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The server's certificate, and those that lead from it to its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Kinds that are served without their data, beside Secrets; and those of which the data is served nevertheless.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SensitiveConfig {
    /// More kinds to take care of, as the config names them.
    pub kinds: Vec<String>,
    /// The first of the two times that it must be said.
    pub with_data: Vec<String>,
}

/// What callers that sign in may have; see [`crate::auth`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Calls that are open at once, of all.
    pub calls: u64,
    /// The same of one identity.
    pub calls_of_one: u64,
    /// New calls a second, of all.
    pub calls_per_second: u64,
    /// The same of one identity.
    pub calls_per_second_of_one: u64,
    /// Bytes that were made and are not read, of all.
    pub unread: u64,
    /// The same of one identity.
    pub unread_of_one: u64,
    /// Lists, and first states of streams, that are under way at once, of all.
    pub snapshots: u64,
    /// The same of one identity.
    pub snapshots_of_one: u64,
    /// Bytes a second that are made of them, of all.
    pub listed_per_second: u64,
    /// The same of one identity.
    pub listed_per_second_of_one: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            calls: 10_000,
            calls_of_one: 2_000,
            calls_per_second: 5_000,
            calls_per_second_of_one: 500,
            unread: 1 << 30,
            unread_of_one: 128 << 20,
            snapshots: 4_000,
            snapshots_of_one: 1_000,
            listed_per_second: 1 << 30,
            listed_per_second_of_one: 256 << 20,
        }
    }
}

impl AuthConfig {
    /// Whether anybody has to say who it is. Where nothing is configured, calls from this machine are all there
    /// are, and need not.
    pub fn is_any(&self) -> bool {
        self.asks() || self.insecure_loopback
    }

    /// Whether somebody can be let in who is elsewhere.
    pub fn asks(&self) -> bool {
        self.token_audience.is_some() || self.client_ca.is_some()
    }
}

pub(super) const AUTH: [&str; 3] = ["tokens", "clientCertificates", "insecureLoopback"];
pub(super) const TLS: [&str; 2] = ["certificate", "key"];
pub(super) const SENSITIVE: [&str; 2] = ["kinds", "withData"];
pub(super) const LIMITS: [&str; 10] = [
    "calls",
    "callsOfOne",
    "callsPerSecond",
    "callsPerSecondOfOne",
    "unread",
    "unreadOfOne",
    "snapshots",
    "snapshotsOfOne",
    "listedPerSecond",
    "listedPerSecondOfOne",
];
/// What tokens are for, where the config does not say.
const AUDIENCE: &str = "informerd";
const EMPTY_AUDIENCE: &str =
    "the audience is empty: write audience: informerd, or another name that tokens are made for";

pub(super) fn auth(reader: &mut Reader, field: &Field<'_>, auth: &mut AuthConfig) {
    let map = reader.map(field, &AUTH);
    if let Some(field) = map.get("tokens") {
        let map = reader.map(&field, &["audience"]);
        let audience = match map.get("audience") {
            Some(field) => reader.text(&field).map(str::to_owned),
            None => Some(AUDIENCE.to_owned()),
        };
        auth.token_audience = audience.filter(|audience| !audience.is_empty());
        if auth.token_audience.is_none() {
            reader.refuse(&field, EMPTY_AUDIENCE);
        }
    }
    if let Some(field) = map.get("clientCertificates") {
        let map = reader.map(&field, &["ca"]);
        auth.client_ca = match map.get("ca") {
            Some(field) => file(reader, &field),
            None => {
                reader.refuse(
                    &field,
                    "names no authority: write ca: FILE, the authorities that sign client certificates",
                );
                None
            }
        };
    }
    if let Some(field) = map.get("insecureLoopback") {
        set(&mut auth.insecure_loopback, reader.boolean(&field));
    }
}

pub(super) fn tls(reader: &mut Reader, field: &Field<'_>) -> Option<TlsConfig> {
    let map = reader.map(field, &TLS);
    let [certificate, key] = TLS.map(|key| map.get(key));
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(TlsConfig {
            certificate: file(reader, &certificate)?,
            key: file(reader, &key)?,
        }),
        _ => {
            reader.refuse(
                field,
                "takes a certificate and its key: write certificate: FILE and key: FILE",
            );
            None
        }
    }
}

pub(super) fn sensitive(reader: &mut Reader, field: &Field<'_>) -> SensitiveConfig {
    let map = reader.map(field, &SENSITIVE);
    let mut names = |key: &str| {
        let Some(field) = map.get(key) else {
            return Vec::new();
        };
        let names = reader.list(&field);
        let names = names.iter().filter_map(|name| reader.text(name));
        names.map(str::to_owned).collect()
    };
    SensitiveConfig {
        kinds: names("kinds"),
        with_data: names("withData"),
    }
}

pub(super) fn limits(reader: &mut Reader, field: &Field<'_>, limits: &mut LimitsConfig) {
    let map = reader.map(field, &LIMITS);
    let LimitsConfig {
        calls,
        calls_of_one,
        calls_per_second,
        calls_per_second_of_one,
        unread,
        unread_of_one,
        snapshots,
        snapshots_of_one,
        listed_per_second,
        listed_per_second_of_one,
    } = limits;
    for (key, limit) in [
        ("calls", calls),
        ("callsOfOne", calls_of_one),
        ("callsPerSecond", calls_per_second),
        ("callsPerSecondOfOne", calls_per_second_of_one),
        ("snapshots", snapshots),
        ("snapshotsOfOne", snapshots_of_one),
    ] {
        if let Some(field) = map.get(key) {
            set(limit, reader.number(&field, 1..=1_000_000));
        }
    }
    for (key, limit) in [
        ("unread", unread),
        ("unreadOfOne", unread_of_one),
        ("listedPerSecond", listed_per_second),
        ("listedPerSecondOfOne", listed_per_second_of_one),
    ] {
        if let Some(field) = map.get(key) {
            // One message must fit.
            set(limit, reader.bytes(&field, 8 << 20..=1 << 40));
        }
    }
}

fn file(reader: &mut Reader, field: &Field<'_>) -> Option<PathBuf> {
    let text = reader.text(field)?;
    if text.is_empty() {
        reader.refuse(field, "is empty: write the path of a file");
        return None;
    }
    Some(text.into())
}

pub(super) fn flags(reader: &mut Reader, args: &ServeArgs, config: &mut Config) {
    match &args.token_audience {
        // Such as of a variable that is not set: not to be taken for nobody being asked.
        Some(audience) if audience.is_empty() => {
            reader.refuse_at(
                Place::Flag("--token-audience".to_owned()),
                "",
                EMPTY_AUDIENCE,
            );
        }
        Some(audience) => config.auth.token_audience = Some(audience.clone()),
        None => {}
    }
    if let Some(ca) = &args.client_ca {
        config.auth.client_ca = Some(ca.clone());
    }
    config.auth.insecure_loopback |= args.insecure_loopback;
    match (&args.tls_certificate, &args.tls_key) {
        (Some(certificate), Some(key)) => {
            config.tls = Some(TlsConfig {
                certificate: certificate.clone(),
                key: key.clone(),
            });
        }
        (None, None) => {}
        _ => reader.refuse_at(
            Place::Flag("--tls-certificate, --tls-key".to_owned()),
            "",
            "one goes with the other: give both",
        ),
    }
}

/// What must not be together, once everything is read.
pub(super) fn check(reader: &mut Reader, config: &Config) {
    let mut refuse = |setting: &str, message: String| {
        reader.refuse_at(Place::Default, setting, message);
    };
    let Config {
        listen,
        kube_listen,
        facade,
        auth,
        tls,
        ..
    } = config;
    if auth.client_ca.is_some() && tls.is_none() {
        refuse(
            "auth.clientCertificates",
            "clients show certificates only over TLS: write tls: {certificate: FILE, key: FILE}"
                .into(),
        );
    }
    if facade.passthrough && auth.asks() {
        refuse(
            "facade.passthrough",
            "hands the callers' credentials on to the API server, and those that `auth` asks for are made for \
             informerd: write passthrough: none, or remove auth"
                .into(),
        );
    }
    let reached = [Some(*listen), *kube_listen];
    for address in reached.into_iter().flatten() {
        if address.ip().is_loopback() {
            continue;
        }
        if auth.insecure_loopback {
            refuse(
                "auth.insecureLoopback",
                format!(
                    "lets in whoever is on this machine, and {address} can be reached from others, by way of proxies \
                     too: remove it, or listen on 127.0.0.1:{}",
                    address.port()
                ),
            );
        }
        if !auth.asks() {
            refuse("auth", nobody_asked(address));
        }
        if tls.is_none() {
            refuse(
                "tls",
                format!(
                    "{address} can be reached from other machines, and tokens and objects would go there in plain \
                     text: write tls: {{certificate: FILE, key: FILE}} (`informerd certs dev` makes some for trying \
                     out), or listen on 127.0.0.1:{}",
                    address.port()
                ),
            );
        }
    }
}

fn nobody_asked(address: SocketAddr) -> String {
    format!(
        "{address} can be reached from other machines, and nothing says who is let in: write auth: {{tokens: \
         {{audience: informerd}}}} for Kubernetes tokens, auth: {{clientCertificates: {{ca: FILE}}}} for \
         certificates, or listen on 127.0.0.1:{}",
        address.port()
    )
}

/// Leaves out the data of kinds that are sensitive, unless the config says twice that it is wanted.
pub(super) fn withhold(reader: &mut Reader, config: &mut Config) {
    let Config {
        sensitive, kinds, ..
    } = config;
    let named = |names: &[String], kind: &KindConfig| {
        names
            .iter()
            .any(|name| name.eq_ignore_ascii_case(&kind.resource))
    };
    for kind in kinds {
        let is_sensitive = is_secrets(&kind.resource) || named(&sensitive.kinds, kind);
        if is_sensitive && kind.read_through {
            let message = format!(
                "hands out the data of {}, which are sensitive: remove it",
                kind.resource
            );
            reader.refuse_at(kind.place.clone(), "readThrough", message);
        }
        match (kind.with_data, named(&sensitive.with_data, kind)) {
            (true, true) => {}
            (false, false) if is_sensitive => kind.leave_out_data(),
            (false, false) => {}
            (true, false) if is_sensitive => {
                let message = format!(
                    "the data of {0} is served only if that is said twice: write sensitive: {{withData: [{0}]}} at \
                     the top level too, or remove it here",
                    kind.resource
                );
                reader.refuse_at(kind.place.clone(), "withData", message);
            }
            (true, false) => {
                let message = format!(
                    "{} are not sensitive, their data is served anyway: remove it",
                    kind.resource
                );
                reader.refuse_at(kind.place.clone(), "withData", message);
            }
            (false, true) => {
                let message = format!(
                    "the data of {} is served only if that is said twice: write withData: true there too, or remove \
                     it from sensitive.withData",
                    kind.resource
                );
                reader.refuse_at(kind.place.clone(), "", message);
            }
        }
    }
}

/// Whether a name means the core group's Secrets.
pub(super) fn is_secrets(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let (kind, rest) = name.split_once('.').unwrap_or((&name, ""));
    matches!(kind, "secret" | "secrets") && matches!(rest, "" | "v1")
}
