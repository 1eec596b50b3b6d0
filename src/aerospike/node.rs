//! What one node says of itself and of the cluster that it sees, as typed facts.
//!
//! A fact that the node did not tell, or told in no form known here, is absent, never a default: what is not known
//! must not read as good. Field names are those of servers 4.3 to 8.1.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::protocol::{Answers, InfoError};

/// What every node of a cluster is asked, in one round trip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// N: the cluster's size as its spec has it.
    pub size: u32,
    /// Namespaces to ask for; those that a node has beyond these cost it a second round trip.
    pub namespaces: BTreeSet<String>,
}

/// What a node answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The node's id, as in `BB9020011AC4202`.
    pub node_id: String,
    /// The server's version, as in `8.1.2.0`.
    pub build: Option<String>,
    /// Names the cluster that the node is in; drawn anew whenever nodes come or go.
    pub cluster_key: Option<String>,
    /// How many nodes the node sees in its cluster, itself included.
    pub cluster_size: Option<u32>,
    /// Whether the node is in a cluster, rather than an orphan.
    pub is_member: Option<bool>,
    /// Whether all nodes that it hears are in its cluster.
    pub integrity: Option<bool>,
    /// False while the cluster's nodes still agree on where partitions belong.
    pub migrate_allowed: Option<bool>,
    /// Counts changes of the partition map; -1 before the first.
    pub partition_generation: Option<i64>,
    /// How long the process has run, in whole seconds: it tells a warm restart, which keeps the pod.
    pub uptime: Option<Duration>,
    /// Partitions that still are to move to or from this node.
    pub migrating_partitions: Option<u64>,
    /// What it says to `cluster-stable` for N nodes, migrations left aside.
    pub formed: Option<Stability>,
    /// What it says to `cluster-stable` for N nodes, with migrations done.
    pub stable: Option<Stability>,
    /// By name, every namespace that the node has; empty facts for one that it would not tell about.
    pub namespaces: BTreeMap<String, NamespaceFacts>,
    /// Whether the node told which namespaces it has.
    pub namespaces_told: bool,
}

/// A node's answer to `cluster-stable`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stability {
    /// Stable, under this cluster key.
    Key(String),
    /// Not stable, or not of the size asked for.
    Not(InfoError),
}

/// What a node says of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// It takes no writes, for want of room.
    pub stop_writes: Option<bool>,
    /// It takes no writes, because clocks differ.
    pub clock_skew_stop_writes: Option<bool>,
    /// The node has handed its partitions over. Enterprise only: absent means no.
    pub quiesced: Option<bool>,
    /// Partitions that are still to move.
    pub migrating_partitions: Option<u64>,
    /// Partitions without the nodes that hold them; strong consistency only.
    pub unavailable_partitions: Option<u64>,
}

/// An answer that holds no facts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// The node wants a login, or this user may not ask.
    #[error("the node wants to know who is asking: {0}")]
    AuthRequired(InfoError),
    /// The node answered, but not as an Aerospike node does.
    #[error("the answer makes no sense: {0}")]
    Garbage(String),
}

const MAX_NAMESPACES: usize = 32;

const BUILD: &str = "build";
const NODE: &str = "node";
const STATISTICS: &str = "statistics";
const PARTITION_GENERATION: &str = "partition-generation";
const NAMESPACES: &str = "namespaces";

impl Question {
    /// The commands. The order matters little: all of it is evidence for the span from asking to answer.
    pub fn commands(&self) -> Vec<String> {
        let fixed = [BUILD, NODE, STATISTICS, PARTITION_GENERATION, NAMESPACES];
        let mut commands: Vec<_> = fixed.map(str::to_owned).into();
        commands.extend([self.stable(true), self.stable(false)]);
        commands.extend(self.namespaces.iter().map(|name| namespace(name)));
        commands
    }

    /// What is still to be asked after these answers: the namespaces that the node has and was not asked for.
    pub fn rest(&self, answers: &Answers) -> Vec<String> {
        let has = names(answers).into_iter().flatten();
        let missing = has.filter(|name| !self.namespaces.contains(name));
        missing.map(|name| namespace(&name)).collect()
    }

    /// `ignore-migrations` is spelled out because its default is not the same for everybody who reads this.
    fn stable(&self, ignore_migrations: bool) -> String {
        let size = self.size;
        format!("cluster-stable:size={size};ignore-migrations={ignore_migrations}")
    }

    /// Reads the answers.
    ///
    /// # Errors
    ///
    /// The node wants authentication, or what came are no answers to this question.
    pub fn facts(&self, answers: &Answers) -> Result<Facts, FactsError> {
        if let Some(error) = answers.errors().find(|error| error.wants_authentication()) {
            return Err(FactsError::AuthRequired(error.clone()));
        }
        if let Some(error) = answers.refusal() {
            return Err(FactsError::Garbage(error.to_string()));
        }
        let value = |command: &str| answers.get(command).and_then(Result::ok);
        let garbage = |command: &str| FactsError::Garbage(format!("no answer to `{command}`"));
        let node_id = value(NODE).filter(|id| is_hex(id));
        let statistics = value(STATISTICS).map(Fields::new);
        let statistics = statistics.filter(|fields| !fields.0.is_empty());
        let statistics = statistics.ok_or_else(|| garbage(STATISTICS))?;

        let told = names(answers);
        let mut namespaces = BTreeMap::new();
        for name in told.iter().flatten() {
            let facts = value(&namespace(name)).map(NamespaceFacts::read);
            namespaces.insert(name.clone(), facts.unwrap_or_default());
        }
        let stability = |ignore| match answers.get(&self.stable(ignore))? {
            Ok(key) if is_hex(key) => Some(Stability::Key(key.to_owned())),
            Ok(_) => None,
            Err(error) => Some(Stability::Not(error.clone())),
        };
        Ok(Facts {
            node_id: node_id.ok_or_else(|| garbage(NODE))?.to_owned(),
            build: value(BUILD).map(str::to_owned),
            cluster_key: statistics.hex("cluster_key"),
            cluster_size: statistics
                .number("cluster_size")
                .or_else(|| statistics.number("cluster-size")),
            is_member: statistics.flag("cluster_is_member"),
            integrity: statistics.flag("cluster_integrity"),
            migrate_allowed: statistics.flag("migrate_allowed"),
            partition_generation: value(PARTITION_GENERATION).and_then(|n| n.parse().ok()),
            uptime: statistics.number("uptime").map(Duration::from_secs),
            migrating_partitions: statistics
                .number("migrate_partitions_remaining")
                .or_else(|| statistics.migrating()),
            formed: stability(true),
            stable: stability(false),
            namespaces,
            namespaces_told: told.is_some(),
        })
    }
}

impl NamespaceFacts {
    fn read(value: &str) -> Self {
        let fields = Fields::new(value);
        Self {
            stop_writes: fields.flag("stop_writes"),
            clock_skew_stop_writes: fields.flag("clock_skew_stop_writes"),
            quiesced: fields.flag("effective_is_quiesced"),
            migrating_partitions: fields.migrating(),
            unavailable_partitions: match (
                fields.number("unavailable_partitions"),
                fields.number("dead_partitions"),
            ) {
                (None, None) => None,
                (a, b) => Some(a.unwrap_or(0_u64).saturating_add(b.unwrap_or(0))),
            },
        }
    }
}

/// `name=value;name=value`. Of a name that comes twice the first is taken.
struct Fields<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    fn new(value: &'a str) -> Self {
        let pairs = value.split(';').filter_map(|pair| pair.split_once('='));
        let mut fields = BTreeMap::new();
        for (name, value) in pairs {
            fields.entry(name).or_insert(value);
        }
        Self(fields)
    }

    fn flag(&self, name: &str) -> Option<bool> {
        match *self.0.get(name)? {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.0.get(name)?.parse().ok()
    }

    fn hex(&self, name: &str) -> Option<String> {
        let value = self.0.get(name).filter(|value| is_hex(value))?;
        Some((*value).to_owned())
    }

    fn migrating(&self) -> Option<u64> {
        let tx: u64 = self.number("migrate_tx_partitions_remaining")?;
        let rx: u64 = self.number("migrate_rx_partitions_remaining")?;
        Some(tx.saturating_add(rx))
    }
}

fn namespace(name: &str) -> String {
    format!("namespace/{name}")
}

/// The namespaces that a node has, if it told.
pub(super) fn names(answers: &Answers) -> Option<Vec<String>> {
    let told = answers.get(NAMESPACES)?.ok()?;
    // A server has at most 32, of 31 characters each; a hostile one could name what is no command, or millions.
    let good = |name: &&str| !name.is_empty() && name.len() < 32 && !name.contains('\t');
    let names = told.split(';').filter(good).take(MAX_NAMESPACES);
    Some(names.map(str::to_owned).collect())
}

/// Keys and ids are up to 16 hexadecimal digits.
fn is_hex(value: &str) -> bool {
    (1..=16).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn question() -> Question {
        Question {
            size: 2,
            namespaces: BTreeSet::from(["test".to_owned()]),
        }
    }

    const BODY: &str = "build\t6.4.0.1\nnode\tBB9020011AC4202\n\
        statistics\tcluster_size=2;cluster_key=8B4F;cluster_integrity=true;cluster_is_member=true;\
        uptime=75;migrate_allowed=true;migrate_partitions_remaining=3\n\
        partition-generation\t5\nnamespaces\ttest\n\
        cluster-stable:size=2;ignore-migrations=true\t8B4F\n\
        cluster-stable:size=2;ignore-migrations=false\tERROR::unstable-cluster\n\
        namespace/test\tstop_writes=false;clock_skew_stop_writes=true;effective_is_quiesced=false;\
        migrate_tx_partitions_remaining=1;migrate_rx_partitions_remaining=2\n";

    fn read(body: &str) -> Result<Facts, FactsError> {
        question().facts(&Answers::parse(body.as_bytes()))
    }

    #[test]
    fn a_whole_answer_becomes_facts() {
        let facts = read(BODY).unwrap();
        assert_eq!(facts.node_id, "BB9020011AC4202");
        assert_eq!(facts.cluster_key.as_deref(), Some("8B4F"));
        assert_eq!((facts.cluster_size, facts.is_member), (Some(2), Some(true)));
        assert_eq!(facts.uptime, Some(Duration::from_secs(75)));
        assert_eq!(facts.partition_generation, Some(5));
        assert_eq!(facts.migrating_partitions, Some(3));
        assert_eq!(facts.formed, Some(Stability::Key("8B4F".to_owned())));
        assert!(matches!(&facts.stable, Some(Stability::Not(e)) if e.text == "unstable-cluster"));
        let test = &facts.namespaces["test"];
        assert_eq!(test.clock_skew_stop_writes, Some(true));
        assert_eq!(test.migrating_partitions, Some(3));
    }

    #[test]
    fn what_is_not_told_is_absent_and_never_a_default() {
        let facts = read("node\tA1\nstatistics\tuptime=x;cluster_is_member=yes\n").unwrap();
        assert_eq!(facts.is_member, None);
        assert_eq!(facts.uptime, None);
        assert_eq!(facts.cluster_size, None);
        assert_eq!(facts.stable, None);
        assert!(!facts.namespaces_told);
        let unknown =
            read("node\tA1\nstatistics\ta=b\nnamespaces\ttest\nnamespace/test\ttype=unknown\n");
        let facts = unknown.unwrap();
        assert_eq!(facts.namespaces["test"], NamespaceFacts::default());
    }

    #[test]
    fn a_namespace_that_was_not_asked_for_is_asked_for_next() {
        let answers = Answers::parse(b"namespaces\ttest;bar\n");
        assert_eq!(question().rest(&answers), ["namespace/bar"]);
    }

    #[test]
    fn a_wish_for_a_login_is_told_from_garbage() {
        for body in [
            "ERROR:80:not authenticated\n",
            "build\tERROR:80:not authenticated\n",
            "node\tA1\nstatistics\tERROR:81:role violation - requires permission 'x'\n",
        ] {
            assert!(
                matches!(read(body), Err(FactsError::AuthRequired(_))),
                "{body}"
            );
        }
        for body in [
            "",
            "node\tA1\n",
            "ERROR::timeout\n",
            "node\thello world\nstatistics\ta=b\n",
        ] {
            assert!(matches!(read(body), Err(FactsError::Garbage(_))), "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(noise in "\\PC{0,200}", at in 0usize..600) {
            let mut body = BODY.to_owned();
            let at = (0..=at.min(body.len())).rev().find(|at| body.is_char_boundary(*at)).unwrap();
            body.insert_str(at, &noise);
            let _ = read(&body);
            let _ = question().rest(&Answers::parse(body.as_bytes()));
        }
    }
}
