//! Puts on the board what was decided of one cluster, and takes it off again.
//!
//! What is decided of anything else than what is judged at the moment comes too late and is not shown.

use std::{collections::HashMap, sync::Arc, time::Instant};

use super::{
    apply::Kinds,
    decide::Shown,
    plan::{Plan, Subject},
};
use crate::{
    object::Key,
    readiness::{Answer, Contribution, Judged},
};

/// Who contributes.
const BY: &str = "aerospike";

/// The verdicts on one cluster.
#[derive(Debug)]
pub(super) struct Publisher {
    kinds: Kinds,
    /// What is judged; none once that is withdrawn.
    subject: Option<Subject>,
    /// What was contributed to, by key, with the uid.
    sets: HashMap<Key, Box<str>>,
    pods: HashMap<Key, Box<str>>,
}

/// What is to be contributed to one object: its key, uid and version, and the conditions.
type Added<'a> = (&'a Key, &'a str, &'a str, Vec<(Arc<str>, Answer)>);

impl Publisher {
    pub(super) fn new(kinds: Kinds) -> Self {
        Self {
            kinds,
            subject: None,
            sets: HashMap::new(),
            pods: HashMap::new(),
        }
    }

    /// From now on this is judged. What was said of anything else is withdrawn.
    pub(super) fn set_subject(&mut self, subject: &Subject) {
        if !self.subject.as_ref().is_some_and(|is| is.is_same(subject)) {
            contribute(&self.kinds.sets.1, &mut self.sets, Vec::new());
        }
        self.subject = Some(subject.clone());
    }

    /// Nothing is judged any more. Of the cluster's own object nothing is said here: whoever knows that it is gone
    /// tells the board.
    pub(super) fn withdraw(&mut self) {
        self.subject = None;
        contribute(&self.kinds.sets.1, &mut self.sets, Vec::new());
        contribute(&self.kinds.pods.1, &mut self.pods, Vec::new());
    }

    /// Shows what was decided of a plan, unless something else is judged by now.
    pub(super) fn show(&mut self, plan: &Plan, shown: &Shown, now: Instant) {
        if !self
            .subject
            .as_ref()
            .is_some_and(|is| is.is_same(&plan.subject))
        {
            return;
        }
        match &plan.subject {
            Subject::Cluster(cluster) => {
                if let Some((kind, judged)) = self.kinds.cluster(plan.id.operator)
                    && let Some(identity) = kind.identity()
                {
                    let finding = shown.finding(identity.resource().into(), cluster, now);
                    judged.publish(&cluster.key, finding);
                }
            }
            Subject::Sets(sets) => {
                let all = sets
                    .iter()
                    .map(|set| (&set.key, &*set.uid, &*set.version, shown.conditions()));
                contribute(&self.kinds.sets.1, &mut self.sets, all.collect());
            }
        }
        let nodes = shown
            .nodes
            .iter()
            .map(|node| (&node.key, &*node.uid, &*node.version, node.conditions()));
        contribute(&self.kinds.pods.1, &mut self.pods, nodes.collect());
    }
}

/// Contributes this and nothing else.
fn contribute(judged: &Judged, known: &mut HashMap<Key, Box<str>>, all: Vec<Added<'_>>) {
    let is_to_stay = |key: &Key| all.iter().any(|(other, ..)| *other == key);
    let gone: Vec<_> = known.extract_if(|key, _| !is_to_stay(key)).collect();
    known.extend(
        all.iter()
            .map(|(key, uid, ..)| ((*key).clone(), (*uid).into())),
    );
    let taken_back = gone.iter().map(|(key, uid)| (key, &**uid, "", Vec::new()));
    let all = taken_back
        .chain(all)
        .map(|(key, uid, version, conditions)| (key, Contribution::new(uid, version, conditions)));
    judged.contribute_all(BY, all);
}
