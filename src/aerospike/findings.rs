//! Everything that speaks against a verdict, found one by one.
//!
//! What is not found here is what makes a cluster Ready, so each check reads as the sentence that it denies, and a
//! fact that a node did not tell is a finding like one that it told and is bad; only weaker.

use std::{cmp::Ordering, collections::BTreeMap, time::Duration};

use super::{
    evidence::{Failure, Member, NodeReport, Round, Survey},
    node::{Facts, NamespaceFacts, Stability},
    verdict::{Condition, Expected},
};

/// Why a verdict is as it is. In the order of weight: of several, the first is the verdict's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The spec asks for no node, so there is nothing to be ready.
    SizeZero,
    /// There are fewer pods than the spec asks for.
    MissingNodes,
    /// There are more.
    SurplusNodes,
    /// A server does not listen yet, or not any more, or its pod has no IP.
    NodeStarting,
    /// A node is in no cluster.
    NotMember,
    /// Nodes are in different clusters.
    SplitCluster,
    /// Two pods lead to one and the same node.
    DuplicateNode,
    /// A node sees a cluster of another size than the spec's.
    WrongSize,
    /// A node hears nodes that are not in its cluster, or misses some that are.
    NoIntegrity,
    /// A node has no partition map yet.
    NoPartitions,
    /// Nodes still agree on where partitions belong.
    Rebalancing,
    /// Partitions are moving.
    Migrating,
    /// A node does not call the cluster stable.
    Unstable,
    /// A namespace has partitions whose nodes are missing.
    Unavailable,
    /// A namespace takes no writes, for want of room.
    StopWrites,
    /// A namespace takes no writes, because clocks differ.
    ClockSkew,
    /// A node has handed its partitions over.
    Quiesced,
    /// A server wants a login.
    AuthRequired,
    /// A server did not accept the login.
    LoginFailed,
    /// A pod was not asked yet: it is new, or has another uid than the one that was.
    NotAsked,
    /// A node was restarted while or after it was asked.
    Restarted,
    /// A node did not answer.
    NoAnswer,
    /// A node answered nonsense.
    Garbage,
    /// A node did not say what it was asked.
    NotTold,
    /// What holds was seen once only, not twice.
    Unconfirmed,
    /// The evidence is for another size of the cluster.
    OtherSize,
    /// The evidence is too old.
    Expired,
    /// Nothing speaks against it.
    Proven(Proof),
}

/// Which condition was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proof {
    /// See [`Condition::Joined`].
    Joined,
    /// See [`Condition::SafeToDisrupt`].
    SafeToDisrupt,
}

/// What a finding does to a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// It disproves it.
    Against,
    /// It keeps it from being proven.
    Unproven,
}

/// One thing that speaks against a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Whose; none if of the cluster as a whole.
    pub uid: Option<String>,
    pub reason: Reason,
    pub weight: Weight,
    /// With the node's name.
    pub text: String,
}

impl From<Condition> for Proof {
    fn from(condition: Condition) -> Self {
        match condition {
            Condition::Joined => Self::Joined,
            Condition::SafeToDisrupt => Self::SafeToDisrupt,
        }
    }
}

impl Reason {
    /// In CamelCase, as Kubernetes's conditions have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SizeZero => "SizeZero",
            Self::MissingNodes => "MissingNodes",
            Self::SurplusNodes => "SurplusNodes",
            Self::NodeStarting => "NodeStarting",
            Self::NotMember => "NotMember",
            Self::SplitCluster => "SplitCluster",
            Self::DuplicateNode => "DuplicateNode",
            Self::WrongSize => "WrongSize",
            Self::NoIntegrity => "NoIntegrity",
            Self::NoPartitions => "NoPartitions",
            Self::Rebalancing => "Rebalancing",
            Self::Migrating => "Migrating",
            Self::Unstable => "Unstable",
            Self::Unavailable => "Unavailable",
            Self::StopWrites => "StopWrites",
            Self::ClockSkew => "ClockSkew",
            Self::Quiesced => "Quiesced",
            Self::AuthRequired => "AuthRequired",
            Self::LoginFailed => "LoginFailed",
            Self::NotAsked => "NotAsked",
            Self::Restarted => "Restarted",
            Self::NoAnswer => "NoAnswer",
            Self::Garbage => "Garbage",
            Self::NotTold => "NotTold",
            Self::Unconfirmed => "Unconfirmed",
            Self::OtherSize => "OtherSize",
            Self::Expired => "Expired",
            Self::Proven(Proof::Joined) => "Joined",
            Self::Proven(Proof::SafeToDisrupt) => "SafeToDisrupt",
        }
    }

    /// Whether it concerns each node, though it is not about one alone: nobody can tell from outside which part of a
    /// split cluster is the right one.
    pub(super) fn concerns_every_node(self) -> bool {
        matches!(
            self,
            Self::SplitCluster | Self::Unconfirmed | Self::OtherSize
        )
    }
}

/// What speaks against the cluster's being joined.
pub(super) fn joined(expected: &Expected<'_>, survey: &Survey) -> Vec<Finding> {
    of_survey(expected, survey, Condition::Joined)
}

/// What speaks against its being safe to disrupt.
pub(super) fn safe_to_disrupt(expected: &Expected<'_>, survey: &Survey) -> Vec<Finding> {
    of_survey(expected, survey, Condition::SafeToDisrupt)
}

fn of_survey(expected: &Expected<'_>, survey: &Survey, condition: Condition) -> Vec<Finding> {
    let mut found = of_round(expected, survey.latest(), condition);
    if survey.latest().size != expected.size {
        let asked = survey.latest().size;
        let text = format!(
            "the spec's size is {}, nodes were asked for {asked}",
            expected.size
        );
        found.push(unproven(None, Reason::OtherSize, text));
    }
    if found.is_empty() {
        found = between_rounds(expected, survey, condition);
    }
    found
}

/// What one round of answers says against it.
pub(super) fn of_round(
    expected: &Expected<'_>,
    round: &Round,
    condition: Condition,
) -> Vec<Finding> {
    let mut found = pods(expected);
    let mut facts = Vec::new();
    for member in expected.members {
        match evidence(member, round) {
            Ok(told) => {
                of_node(member, told, expected.size, condition, &mut found);
                facts.push((member, told));
            }
            Err(finding) => found.push(finding),
        }
    }
    strangers(&facts, &mut found);
    found
}

fn pods(expected: &Expected<'_>) -> Vec<Finding> {
    let (size, pods) = (expected.size, expected.members.len());
    let text = format!("the spec asks for {size} nodes, and there are {pods} pods");
    match u32::try_from(pods).unwrap_or(u32::MAX).cmp(&size) {
        _ if size == 0 => {
            let text = "the spec asks for no node: there is nothing to be ready".to_owned();
            vec![against(None, Reason::SizeZero, text)]
        }
        Ordering::Less => vec![against(None, Reason::MissingNodes, text)],
        Ordering::Greater => vec![against(None, Reason::SurplusNodes, text)],
        Ordering::Equal => Vec::new(),
    }
}

/// The facts that this very pod told in the round.
fn evidence<'a>(member: &Member, round: &'a Round) -> Result<&'a Facts, Finding> {
    let name = &member.name;
    let Some(report) = round.report(&member.uid) else {
        let text = format!("{name} was not asked yet");
        return Err(unproven(Some(member), Reason::NotAsked, text));
    };
    if report.member.incarnation != member.incarnation {
        let text = format!("{name} was restarted since it was asked");
        return Err(unproven(Some(member), Reason::Restarted, text));
    }
    if report.member.address != member.address {
        let text = format!("{name} has another address than the one that was asked");
        return Err(unproven(Some(member), Reason::NotAsked, text));
    }
    report.outcome.as_ref().map_err(|failure| {
        let finding = match failure.cause() {
            Failure::NoAddress | Failure::Refused => against,
            _ => unproven,
        };
        let reason = match failure.cause() {
            Failure::NoAddress | Failure::Refused => Reason::NodeStarting,
            Failure::AuthRequired(_) => Reason::AuthRequired,
            Failure::Login(_) => Reason::LoginFailed,
            Failure::Garbage(_) => Reason::Garbage,
            _ => Reason::NoAnswer,
        };
        finding(Some(member), reason, format!("{name}: {failure}"))
    })
}

fn of_node(
    member: &Member,
    facts: &Facts,
    size: u32,
    condition: Condition,
    found: &mut Vec<Finding>,
) {
    let mut node = Node { member, found };
    node.must(
        facts.is_member,
        true,
        Reason::NotMember,
        "is in no cluster",
        "cluster_is_member",
    );
    node.must(
        facts.integrity,
        true,
        Reason::NoIntegrity,
        "sees a cluster without integrity",
        "cluster_integrity",
    );
    node.must(
        facts.migrate_allowed,
        true,
        Reason::Rebalancing,
        "still agrees with others on where partitions belong",
        "migrate_allowed",
    );
    match facts.partition_generation {
        Some(-1) => node.against(Reason::NoPartitions, "has no partition map yet"),
        Some(_) => {}
        None => node.not_told("partition-generation"),
    }
    if facts.cluster_key.as_deref().is_none_or(|key| key == "0") && facts.is_member == Some(true) {
        node.not_told("cluster_key");
    }
    // Servers that do not tell the size still compare it with the one asked for.
    match (facts.cluster_size, &facts.formed) {
        (Some(seen), _) if seen != size => {
            node.against(
                Reason::WrongSize,
                &format!("sees {seen} nodes, the spec asks for {size}"),
            );
        }
        (Some(_), _) => {}
        (None, Some(Stability::Key(key))) if Some(key) == facts.cluster_key.as_ref() => {}
        (None, Some(Stability::Not(error))) => {
            node.against(
                Reason::WrongSize,
                &format!("sees no cluster of {size} nodes: {error}"),
            );
        }
        (None, _) => node.not_told("cluster_size"),
    }
    if condition == Condition::SafeToDisrupt {
        stable(&mut node, facts);
        if !facts.namespaces_told {
            node.not_told("namespaces");
        }
        for (name, namespace) in &facts.namespaces {
            of_namespace(&mut node, name, namespace);
        }
    }
}

fn stable(node: &mut Node<'_>, facts: &Facts) {
    let moving = facts.migrating_partitions.filter(|moving| *moving > 0);
    match (&facts.stable, moving) {
        (_, Some(moving)) => {
            node.against(
                Reason::Migrating,
                &format!("has {moving} partitions to move"),
            );
        }
        (Some(Stability::Key(key)), None) if Some(key) == facts.cluster_key.as_ref() => {}
        (Some(Stability::Key(_)), None) => {
            node.against(Reason::Unstable, "changed its cluster while it answered");
        }
        (Some(Stability::Not(error)), None) => {
            node.against(
                Reason::Unstable,
                &format!("does not call the cluster stable: {error}"),
            );
        }
        (None, None) => node.not_told("cluster-stable"),
    }
}

fn of_namespace(node: &mut Node<'_>, name: &str, facts: &NamespaceFacts) {
    let bad = |what: &str| format!("{what} in namespace {name}");
    let told = |field: &str| format!("{field} of namespace {name}");
    node.must(
        facts.stop_writes,
        false,
        Reason::StopWrites,
        &bad("takes no writes, for want of room,"),
        &told("stop_writes"),
    );
    node.must(
        facts.clock_skew_stop_writes,
        false,
        Reason::ClockSkew,
        &bad("takes no writes, because clocks differ,"),
        &told("clock_skew_stop_writes"),
    );
    // Community servers cannot be quiesced, and need not say so.
    if facts.quiesced == Some(true) {
        node.against(Reason::Quiesced, &bad("is quiesced"));
    }
    if let Some(moving) = facts.migrating_partitions.filter(|moving| *moving > 0) {
        node.against(
            Reason::Migrating,
            &bad(&format!("has {moving} partitions to move")),
        );
    }
    if let Some(missing) = facts.unavailable_partitions.filter(|missing| *missing > 0) {
        let what = bad(&format!("has {missing} unavailable partitions"));
        node.against(Reason::Unavailable, &what);
    }
}

/// What nodes' answers say against each other.
fn strangers(facts: &[(&Member, &Facts)], found: &mut Vec<Finding>) {
    let mut keys: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut ids: BTreeMap<&str, Vec<&Member>> = BTreeMap::new();
    for (member, facts) in facts {
        if let Some(key) = &facts.cluster_key {
            keys.entry(key).or_default().push(&member.name);
        }
        ids.entry(&facts.node_id).or_default().push(member);
    }
    if keys.len() > 1 {
        let groups = keys
            .iter()
            .map(|(key, names)| format!("{} in {key}", names.join(", ")));
        let groups = groups.collect::<Vec<_>>().join("; ");
        let text = format!("nodes are in {} clusters: {groups}", keys.len());
        found.push(against(None, Reason::SplitCluster, text));
    }
    for (id, members) in ids.iter().filter(|(_, members)| members.len() > 1) {
        for member in members {
            let others = members.iter().filter(|other| other.uid != member.uid);
            let others: Vec<_> = others.map(|other| other.name.as_str()).collect();
            let text = format!(
                "{} is node {id}, and so is {}",
                member.name,
                others.join(", ")
            );
            found.push(against(Some(member), Reason::DuplicateNode, text));
        }
    }
}

/// What keeps two good rounds from proving that there was one good instant.
fn between_rounds(expected: &Expected<'_>, survey: &Survey, condition: Condition) -> Vec<Finding> {
    let once = |text: &str| vec![unproven(None, Reason::Unconfirmed, text.to_owned())];
    let Some(second) = &survey.second else {
        return once("all nodes were well when asked, but have not been asked a second time");
    };
    let first = &survey.first;
    if second.window.start.instant < first.window.end.instant {
        return once("nodes were asked the second time before all had answered the first");
    }
    if first.size != second.size || !of_round(expected, first, condition).is_empty() {
        return once("the nodes were well only when asked the second time");
    }
    let reports =
        |member: &&Member| Some((first.report(&member.uid)?, second.report(&member.uid)?));
    let changed = expected.members.iter().filter_map(|member| {
        let (before, after) = reports(&member)?;
        change(member, before, after)
    });
    changed.collect()
}

/// What happened to a node between its two answers.
fn change(member: &Member, before: &NodeReport, after: &NodeReport) -> Option<Finding> {
    let (Ok(was), Ok(is)) = (&before.outcome, &after.outcome) else {
        return None;
    };
    let name = &member.name;
    if was.node_id != is.node_id {
        let text = format!("{name} was node {}, then node {}", was.node_id, is.node_id);
        return Some(unproven(Some(member), Reason::Restarted, text));
    }
    if was.cluster_key != is.cluster_key {
        let text = format!("{name} went to another cluster between two questions");
        return Some(unproven(Some(member), Reason::Unconfirmed, text));
    }
    // Uptime comes in whole seconds, rounded at both ends: a second is allowed for that.
    let asked = before.window.start.instant;
    let answered = after.window.end.instant;
    match is.uptime {
        None => {
            let text = format!("{name} did not tell its uptime");
            Some(unproven(Some(member), Reason::NotTold, text))
        }
        Some(uptime) if uptime < answered - asked + Duration::from_secs(1) => {
            let text = format!(
                "{name} has run for {} s only, and may have been restarted between two questions",
                uptime.as_secs()
            );
            Some(unproven(Some(member), Reason::Restarted, text))
        }
        Some(_) => None,
    }
}

/// Findings about one node.
struct Node<'a> {
    member: &'a Member,
    found: &'a mut Vec<Finding>,
}

impl Node<'_> {
    fn must(&mut self, fact: Option<bool>, good: bool, reason: Reason, bad: &str, field: &str) {
        match fact {
            Some(fact) if fact == good => {}
            Some(_) => self.against(reason, bad),
            None => self.not_told(field),
        }
    }

    fn against(&mut self, reason: Reason, what: &str) {
        let text = format!("{} {what}", self.member.name);
        self.found.push(against(Some(self.member), reason, text));
    }

    fn not_told(&mut self, field: &str) {
        let text = format!("{} did not tell {field}", self.member.name);
        self.found
            .push(unproven(Some(self.member), Reason::NotTold, text));
    }
}

fn against(member: Option<&Member>, reason: Reason, text: String) -> Finding {
    Finding {
        uid: member.map(|member| member.uid.clone()),
        reason,
        weight: Weight::Against,
        text,
    }
}

fn unproven(member: Option<&Member>, reason: Reason, text: String) -> Finding {
    Finding {
        weight: Weight::Unproven,
        ..against(member, reason, text)
    }
}
