//! Puts on the board what was decided of one cluster, and takes it off again.
//!
//! The task that asks nodes shows, the reconcile withdraws; both may come at the same time. So what is judged at the
//! moment is kept here, under the lock: what is decided of anything else comes too late and is not shown.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    apply::Kinds,
    decide::Shown,
    plan::{Plan, Subject},
};
use crate::{
    object::Key,
    readiness::{Answer, Judged},
};

/// Who contributes.
const BY: &str = "aerospike";

/// The verdicts on one cluster.
#[derive(Debug)]
pub(super) struct Publisher {
    kinds: Kinds,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What is judged; none once that is withdrawn.
    subject: Option<Subject>,
    /// What was contributed to, by key, with the uid.
    sets: HashMap<Key, Box<str>>,
    pods: HashMap<Key, Box<str>>,
}

/// What is to be contributed to one object: its key, uid and version, and the conditions.
type Contribution<'a> = (&'a Key, &'a str, &'a str, Vec<(Arc<str>, Answer)>);

impl Publisher {
    pub(super) fn new(kinds: Kinds) -> Self {
        Self {
            kinds,
            state: Mutex::default(),
        }
    }

    /// From now on this is judged. What was said of anything else is withdrawn.
    pub(super) fn set_subject(&self, subject: &Subject) {
        let mut state = self.state();
        let state = &mut *state;
        if !state.subject.as_ref().is_some_and(|is| is.is_same(subject)) {
            contribute(&self.kinds.sets.1, &mut state.sets, Vec::new());
        }
        state.subject = Some(subject.clone());
    }

    /// Nothing is judged any more. Of the cluster's own object nothing is said here: whoever knows that it is gone
    /// tells the board.
    pub(super) fn withdraw(&self) {
        let mut state = self.state();
        let state = &mut *state;
        state.subject = None;
        contribute(&self.kinds.sets.1, &mut state.sets, Vec::new());
        contribute(&self.kinds.pods.1, &mut state.pods, Vec::new());
    }

    /// Shows what was decided of a plan, unless something else is judged by now.
    pub(super) fn show(&self, plan: &Plan, shown: &Shown, now: Instant) {
        let mut state = self.state();
        let state = &mut *state;
        if !state
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
                contribute(&self.kinds.sets.1, &mut state.sets, all.collect());
            }
        }
        let nodes = shown
            .nodes
            .iter()
            .map(|node| (&node.key, &*node.uid, &*node.version, node.conditions()));
        contribute(&self.kinds.pods.1, &mut state.pods, nodes.collect());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Contributes this and nothing else.
fn contribute(judged: &Judged, known: &mut HashMap<Key, Box<str>>, all: Vec<Contribution<'_>>) {
    known.retain(|key, uid| {
        let stays = all.iter().any(|(other, ..)| *other == key);
        if !stays {
            judged.contribute(key, BY, (uid, ""), Vec::new());
        }
        stays
    });
    for (key, uid, version, conditions) in all {
        judged.contribute(key, BY, (uid, version), conditions);
        known.insert(key.clone(), uid.into());
    }
}
