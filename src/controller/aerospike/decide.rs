//! What is to be thought of a cluster and its nodes, as the board has it. Pure.

use std::{sync::Arc, time::Instant};

use super::{
    super::{
        opinion::{Opinion, finding},
        workload,
    },
    details,
    plan::Plan,
};
use crate::{
    aerospike::{
        self, Expected, Survey,
        verdict::{Condition, Reason},
    },
    config::ProbeMode,
    object::{Key, Object},
    readiness::{Answer, Basis, Finding, Part, Parts, State, Target, Window},
};

/// Where pods are known from at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stance {
    /// From the cache.
    Watch,
    /// From the API server. Where `owner`, what says how many there are to be is read from it too.
    Poll { owner: bool },
    /// From nowhere; why.
    Blind(String),
}

/// What is known of the nodes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Known<'a> {
    /// Nothing; one word, and the same for a person.
    Nothing(&'a str, &'a str),
    /// What they said.
    Asked {
        survey: &'a Survey,
        /// When pods were read, where that was for this survey.
        read: Option<Instant>,
    },
}

/// Everything that is to be shown.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    /// Of the cluster.
    pub(super) joined: Answer,
    pub(super) safe_to_disrupt: Answer,
    pub(super) nodes: Vec<NodeShown>,
    pub(super) parts: Parts,
}

/// One pod's part of it.
#[derive(Clone, Debug)]
pub(super) struct NodeShown {
    pub(super) key: Key,
    pub(super) uid: Box<str>,
    pub(super) version: Box<str>,
    pub(super) joined: Answer,
    pub(super) safe_to_disrupt: Answer,
}

/// Where pods are to be known from. `pods` and `owner` say why what the cache has of them is out of date, if it is.
pub(super) fn stance(mode: ProbeMode, pods: Option<&str>, owner: Option<&str>) -> Stance {
    let stale = pods.or(owner);
    match (mode, stale) {
        (ProbeMode::Watch, Some(why)) => Stance::Blind(why.to_owned()),
        (ProbeMode::WatchAndPoll | ProbeMode::Watch, None) => Stance::Watch,
        (ProbeMode::WatchAndPoll, Some(_)) | (ProbeMode::Poll, _) => Stance::Poll {
            owner: owner.is_some(),
        },
    }
}

/// What is to be shown, given what is known.
pub(super) fn decide(
    plan: &Plan,
    known: Known<'_>,
    interval: std::time::Duration,
    now: Instant,
) -> Shown {
    let (size, survey, read) = match (&plan.size, known) {
        (Err((reason, message)), _) => return unknown(plan, reason, message, now),
        (Ok(_), Known::Nothing(reason, message)) => return unknown(plan, reason, message, now),
        (Ok(size), Known::Asked { survey, read }) => (*size, survey, read),
    };
    let members = plan.members();
    let judged = aerospike::judge(
        &Expected {
            size,
            members: &members,
            interval,
        },
        survey,
    );
    let answer = |verdict: &aerospike::Verdict| answer(plan, verdict, read, now);
    let nodes = plan.pods.iter().map(|pod| {
        let own = judged
            .nodes
            .iter()
            .find(|node| *node.details.uid == *pod.uid);
        let details = details::of_node(plan, pod, Some(&judged));
        let (joined, safe) = match own {
            Some(own) => (answer(&own.joined), answer(&own.safe_to_disrupt)),
            None => {
                let going = Opinion::not_ready("Terminating", "it is being deleted");
                let going = going.answer(Basis::Object(now));
                (going.clone(), going)
            }
        };
        NodeShown {
            key: pod.key.clone(),
            uid: pod.uid.clone(),
            version: pod.version.clone(),
            joined: joined.with_details(details),
            safe_to_disrupt: safe,
        }
    });
    let nodes: Vec<_> = nodes.collect();
    Shown {
        joined: answer(&judged.joined).with_details(details::of_cluster(plan, Some(&judged))),
        safe_to_disrupt: answer(&judged.safe_to_disrupt),
        parts: parts(&nodes),
        nodes,
    }
}

fn unknown(plan: &Plan, reason: &str, message: &str, now: Instant) -> Shown {
    let answer = Answer::new(State::Unknown, reason, message, Basis::Object(now));
    let nodes = plan.pods.iter().map(|pod| NodeShown {
        key: pod.key.clone(),
        uid: pod.uid.clone(),
        version: pod.version.clone(),
        joined: answer
            .clone()
            .with_details(details::of_node(plan, pod, None)),
        safe_to_disrupt: answer.clone(),
    });
    let nodes: Vec<_> = nodes.collect();
    Shown {
        joined: answer.clone().with_details(details::of_cluster(plan, None)),
        safe_to_disrupt: answer,
        parts: parts(&nodes),
        nodes,
    }
}

fn parts(nodes: &[NodeShown]) -> Parts {
    let part = |node: &NodeShown| Part {
        target: Target {
            resource: "pods".into(),
            key: node.key.clone(),
        },
        uid: node.uid.clone(),
        state: node.joined.state,
        reason: node.joined.reason.clone(),
        message: node.joined.message.clone(),
    };
    nodes.iter().map(part).collect()
}

fn answer(
    plan: &Plan,
    verdict: &aerospike::Verdict,
    read: Option<Instant>,
    now: Instant,
) -> Answer {
    let state = match verdict.state {
        aerospike::State::Ready => State::Ready,
        aerospike::State::NotReady => State::NotReady,
        aerospike::State::Unknown => State::Unknown,
    };
    let basis = match (verdict.window, verdict.expires) {
        (Some(window), Some(expires)) => {
            let from = window.start.instant.into_std();
            Basis::Probes {
                window: Window {
                    // The pods that count are those of that time.
                    from: read.map_or(from, |read| read.min(from)),
                    to: window.end.instant.into_std(),
                },
                expires: expires.into_std(),
            }
        }
        _ => Basis::Object(now),
    };
    let mut message = verdict.message.clone();
    let going = plan.pods.iter().filter(|pod| pod.terminating);
    let going: Vec<_> = going.map(|pod| pod.key.name()).collect();
    if verdict.reason == Reason::MissingNodes && !going.is_empty() {
        message.push_str(&format!("; being deleted: {}", going.join(", ")));
    }
    Answer::new(state, verdict.reason.as_str(), message, basis)
}

impl Shown {
    /// The two conditions of a cluster.
    pub(super) fn conditions(&self) -> Vec<(Arc<str>, Answer)> {
        pair(&self.joined, &self.safe_to_disrupt)
    }

    /// What there is to be said of the cluster's own object: what its operator says against it, else whether it is
    /// joined.
    pub(super) fn finding(&self, resource: Arc<str>, cluster: &Object, now: Instant) -> Finding {
        let own = workload::decide(&resource, cluster, &Parts::default());
        let basis = Basis::Object(now);
        let answer = match own.opinion.state {
            State::NotReady => own.opinion.answer(basis),
            // What nodes are known to be outweighs that the operator says nothing.
            _ => Answer {
                details: bytes::Bytes::new(),
                ..self.joined.clone()
            },
        };
        let reported = own.conditions.into_iter();
        let reported = reported.map(|(name, opinion)| (name.into(), opinion.answer(basis)));
        Finding {
            observed_generation: own.observed_generation,
            conditions: reported.chain(self.conditions()).collect(),
            parts: self.parts.clone(),
            ..finding(resource, cluster, answer)
        }
    }

    /// Whether the cluster may be disrupted.
    pub(super) fn is_settled(&self) -> bool {
        self.safe_to_disrupt.state == State::Ready
    }
}

impl NodeShown {
    /// The two conditions of a pod.
    pub(super) fn conditions(&self) -> Vec<(Arc<str>, Answer)> {
        pair(&self.joined, &self.safe_to_disrupt)
    }
}

fn pair(joined: &Answer, safe_to_disrupt: &Answer) -> Vec<(Arc<str>, Answer)> {
    let name = |condition: Condition| Arc::from(condition.name());
    vec![
        (name(Condition::Joined), joined.clone()),
        (name(Condition::SafeToDisrupt), safe_to_disrupt.clone()),
    ]
}
