//! What a survey proves: whether the cluster is joined, and whether it was safe to disrupt a node. Pure.
//!
//! - **Joined**: every node is in the cluster, which has integrity, its N nodes and one key, and whose partitions are
//!   placed. N comes from the spec, never from who answered.
//! - **SafeToDisrupt**: joined, `cluster-stable` gives that same key on every node, and no namespace of any node has
//!   stopped writes or is quiesced. This is what a rolling restart waits for.
//!
//! One node's word is enough for NotReady; Ready takes every node's, in both rounds, without a restart between; all
//! else is Unknown. Silence and majorities prove nothing. A verdict speaks of an instant within its window, and can
//! promise nothing about now; it reserves nothing either: two who wait may both see Ready, so let there be one
//! disruptor per cluster, or a Lease named for it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    evidence::{Member, NodeReport, Round, Survey, Window},
    findings::{self, Finding, Weight},
};

pub use super::findings::Reason;

/// Which of the two questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The nodes form the cluster that the spec asks for.
    Joined,
    /// Beyond that, one node could be taken down without harm.
    SafeToDisrupt,
}

/// What is known of the cluster besides what its nodes say.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// N, from the spec (or the StatefulSet, where there is no spec).
    pub size: u32,
    /// The pods that there are now.
    pub members: &'a [Member],
    /// How often nodes are asked: a verdict lasts two of these.
    pub interval: Duration,
}

/// What a verdict says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Proven.
    Ready,
    /// Disproven, by at least one node's word or by pods that are missing.
    NotReady,
    /// Neither.
    Unknown,
}

/// A state with its reason and its evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it says.
    pub state: State,
    /// Why, in a word.
    pub reason: Reason,
    /// Why, in a sentence: which nodes, and what of them.
    pub message: String,
    /// What the evidence is about. Of a verdict that is Ready, all of it holds for the whole window.
    pub key: Arc<EvidenceKey>,
    /// When the evidence was taken; none where no node was asked.
    pub window: Option<Window>,
    /// From when on it says nothing any more: two probe intervals after the window's end.
    pub expires: Option<Instant>,
}

/// What evidence is kept by: that of another pod, node or cluster does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvidenceKey {
    /// The cluster's key, if all who answered gave the same.
    pub cluster_key: Option<String>,
    /// Pod uid to node id, of those who answered.
    pub nodes: BTreeMap<String, String>,
}

/// All verdicts of one survey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The cluster: joined?
    pub joined: Verdict,
    /// The cluster: safe to disrupt?
    pub safe_to_disrupt: Verdict,
    /// Its nodes, in the order of the members.
    pub nodes: Vec<NodeJudgement>,
}

/// One node's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeJudgement {
    /// Whether this node is joined.
    pub joined: Verdict,
    /// Whether this node may be disrupted: never better than the cluster's.
    pub safe_to_disrupt: Verdict,
    /// What an operator shows of it.
    pub details: NodeDetails,
}

/// What is known of one node: enough to fill a status without asking it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDetails {
    /// The pod's uid.
    pub uid: String,
    /// The pod's name.
    pub pod: String,
    /// Its id.
    pub node_id: Option<String>,
    /// The key of the cluster that it is in.
    pub cluster_key: Option<String>,
    /// How many nodes it sees.
    pub cluster_size: Option<u32>,
    /// The server's version.
    pub build: Option<String>,
    /// Partitions that are still to move to or from it.
    pub migrating_partitions: Option<u64>,
    /// How long the process had run when it was asked.
    pub uptime: Option<Duration>,
    /// Its namespaces' names.
    pub namespaces: Vec<String>,
    /// Why nothing is known of it.
    pub error: Option<String>,
    /// From the question's going out to the answer's being read, in the newest round.
    pub round_trip: Option<Duration>,
    /// When it was asked last.
    pub asked: Option<SystemTime>,
}

/// What a verdict is about.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Cluster,
    Node(&'a str),
}

impl Condition {
    /// Its name in verdicts: `Joined` or `SafeToDisrupt`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Joined => "Joined",
            Self::SafeToDisrupt => "SafeToDisrupt",
        }
    }
}

impl Verdict {
    /// The verdict as of `now`: Unknown once it has expired.
    pub fn at(&self, now: Instant) -> Self {
        match self.expires {
            Some(expires) if now >= expires && self.state != State::Unknown => Self {
                state: State::Unknown,
                reason: Reason::Expired,
                message: format!(
                    "nothing newer is known; before: {} ({})",
                    self.message,
                    self.reason.as_str()
                ),
                key: Arc::default(),
                window: self.window,
                expires: None,
            },
            _ => self.clone(),
        }
    }
}

/// All verdicts that a survey gives: whether the nodes form the cluster that the spec asks for, whether a node of it
/// could be taken down without harm; and the same of each node by itself. A node is joined by its own word, and in one
/// cluster with the others that answered; of what speaks against disrupting it, that about the node itself comes first.
pub fn judge(expected: &Expected<'_>, survey: &Survey) -> Judgement {
    let case = Case {
        expected,
        survey,
        key: Arc::new(EvidenceKey::new(survey.latest())),
    };
    let joined = findings::joined(expected, survey);
    let safe = findings::safe_to_disrupt(expected, survey);
    let of_cluster = |all, condition| case.verdict(all, condition, Subject::Cluster);
    let of_all = of_cluster(safe.clone(), Condition::SafeToDisrupt);
    let node = |member: &Member| {
        let subject = Subject::Node(&member.name);
        NodeJudgement {
            joined: case.verdict(about(&joined, member), Condition::Joined, subject),
            safe_to_disrupt: case.safe(about(&safe, member), subject, &of_all),
            details: NodeDetails::new(member, survey.latest().report(&member.uid)),
        }
    };
    Judgement {
        nodes: expected.members.iter().map(node).collect(),
        joined: of_cluster(joined, Condition::Joined),
        safe_to_disrupt: of_all,
    }
}

/// Whether asking all of them once more may prove anything: each answered, and nothing speaks against its being joined.
pub(super) fn worth_a_second_round(size: u32, members: &[Member], first: &Round) -> bool {
    let expected = Expected {
        size,
        members,
        interval: Duration::ZERO,
    };
    findings::of_round(&expected, first, Condition::Joined).is_empty()
}

/// What concerns this member.
fn about(all: &[Finding], member: &Member) -> Vec<Finding> {
    let concerns = |finding: &&Finding| match &finding.uid {
        Some(uid) => *uid == member.uid,
        None => finding.reason.concerns_every_node(),
    };
    all.iter().filter(concerns).cloned().collect()
}

/// What is judged, and what the verdicts on it share.
struct Case<'a> {
    expected: &'a Expected<'a>,
    survey: &'a Survey,
    key: Arc<EvidenceKey>,
}

impl Case<'_> {
    /// Whether a node may be disrupted, by what was found of it and by what there is to say of all.
    fn safe(&self, own: Vec<Finding>, subject: Subject<'_>, of_all: &Verdict) -> Verdict {
        if own.is_empty() {
            return of_all.clone();
        }
        let own = self.verdict(own, Condition::SafeToDisrupt, subject);
        // That another node forbids it weighs more than that this one is silent.
        if own.state == State::Unknown && of_all.state == State::NotReady {
            return of_all.clone();
        }
        own
    }

    fn verdict(
        &self,
        mut all: Vec<Finding>,
        condition: Condition,
        subject: Subject<'_>,
    ) -> Verdict {
        let against = all.iter().any(|finding| finding.weight == Weight::Against);
        if against {
            all.retain(|finding| finding.weight == Weight::Against);
        }
        all.sort_by_key(|finding| finding.reason);
        let (state, reason) = match all.first() {
            Some(worst) if against => (State::NotReady, worst.reason),
            Some(worst) => (State::Unknown, worst.reason),
            None => (State::Ready, Reason::Proven(condition.into())),
        };
        let window = self.survey.window();
        let asked = !self.survey.first.reports.is_empty();
        Verdict {
            state,
            reason,
            message: message(self.expected, &all, condition, subject),
            key: self.key.clone(),
            window: asked.then_some(window),
            expires: asked.then(|| window.end.instant + 2 * self.expected.interval),
        }
    }
}

/// All that was found, or that nothing was; long lists are cut.
fn message(
    expected: &Expected<'_>,
    all: &[Finding],
    condition: Condition,
    subject: Subject<'_>,
) -> String {
    const SHOWN: usize = 4;
    if all.is_empty() {
        let size = expected.size;
        let (who, one) = match subject {
            Subject::Cluster => (format!("all {size} nodes were"), "one"),
            Subject::Node(name) => (format!("{name} was"), "the"),
        };
        return match condition {
            Condition::Joined => format!("{who} in {one} cluster of {size}"),
            Condition::SafeToDisrupt => {
                format!("{who} in {one} stable cluster of {size}, and took writes")
            }
        };
    }
    let shown = all.iter().take(SHOWN).map(|finding| finding.text.as_str());
    let mut text = shown.collect::<Vec<_>>().join("; ");
    if all.len() > SHOWN {
        text.push_str(&format!("; and {} more", all.len() - SHOWN));
    }
    text
}

impl EvidenceKey {
    fn new(round: &Round) -> Self {
        let mut key = Self::default();
        let mut keys = Vec::new();
        for report in &round.reports {
            if let Ok(facts) = &report.outcome {
                let (uid, id) = (report.member.uid.clone(), facts.node_id.clone());
                key.nodes.insert(uid, id);
                keys.push(facts.cluster_key.as_ref());
            }
        }
        keys.dedup();
        if let [Some(one)] = keys[..] {
            key.cluster_key = Some(one.clone());
        }
        key
    }
}

impl NodeDetails {
    fn new(member: &Member, report: Option<&NodeReport>) -> Self {
        let facts = report.and_then(|report| report.outcome.as_ref().ok());
        Self {
            uid: member.uid.clone(),
            pod: member.name.clone(),
            node_id: facts.map(|facts| facts.node_id.clone()),
            cluster_key: facts.and_then(|facts| facts.cluster_key.clone()),
            cluster_size: facts.and_then(|facts| facts.cluster_size),
            build: facts.and_then(|facts| facts.build.clone()),
            migrating_partitions: facts.and_then(|facts| facts.migrating_partitions),
            uptime: facts.and_then(|facts| facts.uptime),
            namespaces: facts
                .map(|facts| facts.namespaces.keys().cloned().collect())
                .unwrap_or_default(),
            error: match report {
                None => Some("not asked yet".to_owned()),
                Some(report) => report.outcome.as_ref().err().map(ToString::to_string),
            },
            round_trip: facts.and(report.map(|report| report.window.span())),
            asked: report.map(|report| report.window.start.wall),
        }
    }
}
