//! Reads what the file says about asking Aerospike nodes, and for how long kinds count as current.
//!
//! The times depend on each other: a verdict lasts two probe intervals, so all that can hold up a question has to fit
//! in one.

use std::{path::PathBuf, time::Duration};

use super::{
    read::{duration, set},
    units::show_duration,
    yaml::{Field, Map, Reader},
};

/// How the controller `aerospike` asks nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AerospikeConfig {
    /// Where pods are known from.
    pub mode: ProbeMode,
    /// How often each node is asked; verdicts last two of these.
    pub probe_interval: Duration,
    /// The same while a cluster is not safe to disrupt.
    pub settling_interval: Duration,
    /// How long one node may take to answer.
    pub timeout: Duration,
    /// Failures in a row after which a node is left alone for a while.
    pub breaker_failures: u32,
    /// For how long it is.
    pub breaker_pause: Duration,
    /// How many clusters are asked at once.
    pub concurrency: u16,
    /// Where nodes listen, unless the cluster's spec says otherwise.
    pub port: u16,
    /// How to reach nodes of clusters whose spec names a TLS port.
    pub tls: Option<AerospikeTls>,
    /// Who is asking, for servers with security on.
    pub login: Option<AerospikeLogin>,
}

/// Where the pods of a cluster are known from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProbeMode {
    /// One LIST per cluster and interval.
    Poll,
    /// The shared watch; the same LIST while that is out of date.
    #[default]
    WatchAndPoll,
    /// The shared watch; nothing is known while that is out of date.
    Watch,
}

/// Files and names for TLS to nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AerospikeTls {
    /// What the nodes' certificates are for: Aerospike's `tls-name`.
    pub name: String,
    /// Whom to trust, as PEM.
    pub ca_file: PathBuf,
    /// Which certificate and key to show, as PEM, where nodes want one.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A user and the file that holds the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AerospikeLogin {
    /// The name.
    pub user: String,
    /// Its content, less a line's end, is the password.
    pub password_file: PathBuf,
}

/// For how long a kind is taken for current after it was proven so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// While it is followed: more than two bookmarks apart.
    pub followed: Duration,
    /// While it is not: the connection is down, or the API server refuses.
    pub cut_off: Duration,
}

impl Default for AerospikeConfig {
    fn default() -> Self {
        Self {
            mode: ProbeMode::default(),
            probe_interval: Duration::from_secs(5),
            settling_interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            breaker_failures: 3,
            breaker_pause: Duration::from_secs(1),
            concurrency: 64,
            port: 3000,
            tls: None,
            login: None,
        }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            followed: Duration::from_secs(150),
            cut_off: Duration::from_secs(15),
        }
    }
}

pub(super) const AEROSPIKE: [&str; 10] = [
    "mode",
    "probeInterval",
    "settlingInterval",
    "timeout",
    "breaker",
    "concurrency",
    "port",
    "tls",
    "user",
    "passwordFile",
];
pub(super) const PATIENCE: [&str; 2] = ["followed", "cutOff"];
const MODES: [(&str, ProbeMode); 3] = [
    ("poll", ProbeMode::Poll),
    ("watch-and-poll", ProbeMode::WatchAndPoll),
    ("watch", ProbeMode::Watch),
];

const TIMES: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(600);

/// Reads the section `aerospike`.
pub(super) fn read(reader: &mut Reader, field: &Field<'_>, config: &mut AerospikeConfig) {
    let map = reader.map(field, &AEROSPIKE);
    if let Some(field) = map.get("mode") {
        set(&mut config.mode, reader.choice(&field, &MODES));
    }
    let mut time = |key: &str, into: &mut Duration| duration(reader, &map, key, TIMES, into);
    time("probeInterval", &mut config.probe_interval);
    time("settlingInterval", &mut config.settling_interval);
    time("timeout", &mut config.timeout);
    let breaker = map.get("breaker");
    let breaker = breaker.map(|field| reader.map(&field, &["failures", "pause"]));
    if let Some(breaker) = &breaker {
        if let Some(field) = breaker.get("failures") {
            let failures = reader.number(&field, 1..=1000);
            let failures = failures.and_then(|number| u32::try_from(number).ok());
            set(&mut config.breaker_failures, failures);
        }
        duration(reader, breaker, "pause", TIMES, &mut config.breaker_pause);
    }
    let mut number = |key: &str, into: &mut u16| {
        if let Some(field) = map.get(key) {
            let number = reader.number(&field, 1..=u64::from(u16::MAX));
            set(into, number.and_then(|number| u16::try_from(number).ok()));
        }
    };
    number("concurrency", &mut config.concurrency);
    number("port", &mut config.port);
    if let Some(field) = map.get("tls") {
        config.tls = tls(reader, &field);
    }
    config.login = login(reader, &map);
    check_times(reader, field, &map, breaker.as_ref(), config);
}

/// Reads the section `patience`.
pub(super) fn patience(reader: &mut Reader, field: &Field<'_>, patience: &mut Patience) {
    const RANGE: std::ops::RangeInclusive<Duration> =
        Duration::from_millis(500)..=Duration::from_secs(3600);
    let map = reader.map(field, &PATIENCE);
    duration(reader, &map, "followed", RANGE, &mut patience.followed);
    duration(reader, &map, "cutOff", RANGE, &mut patience.cut_off);
}

fn tls(reader: &mut Reader, field: &Field<'_>) -> Option<AerospikeTls> {
    let map = reader.map(field, &["name", "caFile", "certFile", "keyFile"]);
    let text = |reader: &mut Reader, key: &str| {
        let field = map.get(key)?;
        reader.text(&field).map(str::to_owned)
    };
    let name = text(reader, "name");
    let ca_file = text(reader, "caFile");
    let client = match (text(reader, "certFile"), text(reader, "keyFile")) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((cert.into(), key.into())),
        (Some(_), None) => {
            reader.refuse(field, "certFile needs a key: write keyFile too");
            return None;
        }
        (None, Some(_)) => {
            reader.refuse(field, "keyFile needs a certificate: write certFile too");
            return None;
        }
    };
    let (Some(name), Some(ca_file)) = (name, ca_file) else {
        let message =
            "write both name, what the nodes' certificates are for, and caFile, who signed them";
        reader.refuse(field, message);
        return None;
    };
    Some(AerospikeTls {
        name,
        ca_file: ca_file.into(),
        client,
    })
}

fn login(reader: &mut Reader, map: &Map<'_>) -> Option<AerospikeLogin> {
    let (user, file) = (map.get("user"), map.get("passwordFile"));
    match (&user, &file) {
        (Some(user), None) => {
            reader.refuse(
                user,
                "has no password: write passwordFile too, or remove it",
            );
            None
        }
        (None, Some(file)) => {
            reader.refuse(file, "is nobody's: write user too, or remove it");
            None
        }
        (Some(user), Some(file)) => Some(AerospikeLogin {
            user: reader.text(user)?.to_owned(),
            password_file: reader.text(file)?.into(),
        }),
        (None, None) => None,
    }
}

/// Complains where the longer one is written, else where the interval is.
fn check_times(
    reader: &mut Reader,
    section: &Field<'_>,
    map: &Map<'_>,
    breaker: Option<&Map<'_>>,
    config: &AerospikeConfig,
) {
    let interval = config.probe_interval;
    let shown = show_duration(interval);
    let pause = breaker.and_then(|breaker| breaker.get("pause"));
    let whole = |why: &str, most: Duration| {
        format!(
            "{why} the probeInterval {shown}: write {} or less, or a longer probeInterval",
            show_duration(most)
        )
    };
    let half = interval / 2;
    let checks = [
        (
            config.breaker_pause > interval,
            pause,
            "breaker.pause",
            whole("a node would be left alone for longer than", interval),
        ),
        (
            config.settling_interval > interval,
            map.get("settlingInterval"),
            "settlingInterval",
            whole(
                "clusters that are not settled would be asked more rarely than in",
                interval,
            ),
        ),
        (
            config.timeout > half,
            map.get("timeout"),
            "timeout",
            whole(
                "nodes are asked twice, and two timeouts are longer than",
                half,
            ),
        ),
    ];
    for (is_wrong, field, name, message) in checks {
        if !is_wrong {
            continue;
        }
        match field {
            Some(field) => reader.refuse(&field, message),
            None => {
                let at = map.get("probeInterval");
                let at = at.as_ref().unwrap_or(section);
                reader.refuse(at, format!("{name}: {message}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::*, *};
    use crate::args::ServeArgs;

    fn parse(settings: &str) -> Result<Config, ConfigError> {
        let text = format!("kinds: [pods]\n{settings}\n");
        super::super::read::config(Some((&Arc::from("c.yaml"), &text)), &ServeArgs::default())
    }

    fn error(settings: &str) -> String {
        parse(settings).expect_err("an error").to_string()
    }

    #[test]
    fn what_is_written_goes_before_the_defaults() {
        let config = parse(
            "aerospike:\n  mode: watch\n  probeInterval: 2s\n  settlingInterval: 500ms\n  timeout: 200ms\n  \
             breaker: {failures: 5, pause: 2s}\n  concurrency: 8\n  port: 4000\n  user: admin\n  \
             passwordFile: /etc/aerospike/password\n  tls: {name: cache.example, caFile: ca.pem, certFile: a.pem, \
             keyFile: b.pem}\npatience: {followed: 1m, cutOff: 2s}",
        );
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        let expected = AerospikeConfig {
            mode: ProbeMode::Watch,
            probe_interval: Duration::from_secs(2),
            settling_interval: Duration::from_millis(500),
            timeout: Duration::from_millis(200),
            breaker_failures: 5,
            breaker_pause: Duration::from_secs(2),
            concurrency: 8,
            port: 4000,
            tls: Some(AerospikeTls {
                name: "cache.example".to_owned(),
                ca_file: "ca.pem".into(),
                client: Some(("a.pem".into(), "b.pem".into())),
            }),
            login: Some(AerospikeLogin {
                user: "admin".to_owned(),
                password_file: "/etc/aerospike/password".into(),
            }),
        };
        assert_eq!(config.aerospike, expected);
        assert_eq!(
            config.patience,
            Patience {
                followed: Duration::from_secs(60),
                cut_off: Duration::from_secs(2)
            }
        );
        assert_eq!(parse("").unwrap().aerospike, AerospikeConfig::default());
    }

    #[test]
    fn times_that_do_not_fit_together_are_refused_where_they_stand() {
        assert_eq!(
            error("aerospike:\n  probeInterval: 5s\n  breaker:\n    pause: 10s"),
            "c.yaml:5:12: aerospike.breaker.pause: a node would be left alone for longer than the probeInterval 5s: \
             write 5s or less, or a longer probeInterval"
        );
        assert_eq!(
            error("aerospike: {timeout: 3s}"),
            "c.yaml:2:22: aerospike.timeout: nodes are asked twice, and two timeouts are longer than the \
             probeInterval 5s: write 2s500ms or less, or a longer probeInterval"
        );
        let all = error("aerospike:\n  probeInterval: 500ms");
        let lines: Vec<_> = all.lines().collect();
        assert_eq!(lines.len(), 3, "{all}");
        for (line, name) in lines
            .iter()
            .zip(["breaker.pause", "settlingInterval", "timeout"])
        {
            let begins = format!("c.yaml:3:18: aerospike.probeInterval: {name}: ");
            assert!(line.starts_with(&begins), "{line}");
        }
    }

    #[test]
    fn half_a_login_and_half_a_tls_are_refused() {
        for (settings, expected) in [
            (
                "aerospike: {user: admin}",
                "c.yaml:2:19: aerospike.user: has no password: write passwordFile too, or remove it",
            ),
            (
                "aerospike: {passwordFile: x}",
                "c.yaml:2:27: aerospike.passwordFile: is nobody's: write user too, or remove it",
            ),
            (
                "aerospike: {tls: {name: a}}",
                "c.yaml:2:18: aerospike.tls: write both name, what the nodes' certificates are for, and caFile, who \
                 signed them",
            ),
            (
                "aerospike: {tls: {name: a, caFile: b, keyFile: c}}",
                "c.yaml:2:18: aerospike.tls: keyFile needs a certificate: write certFile too",
            ),
            (
                "aerospike: {mode: stream}",
                "c.yaml:2:19: aerospike.mode: `stream` cannot stand here: write poll, watch-and-poll or watch",
            ),
            (
                "aerospike: {probeIntervall: 1s}",
                "c.yaml:2:13: aerospike.probeIntervall: unknown key: did you mean `probeInterval`?",
            ),
        ] {
            assert_eq!(error(settings), expected, "{settings}");
        }
    }
}
