//! What is known of one cluster, and what is shown of it: a change of the one is on the board before whoever made it
//! goes on.
//!
//! The reconcile brings plans, the task brings what nodes have said; both may come at the same time, so both do it here,
//! under one lock. A change of a pod needs no answer of a node to take back that a cluster is safe, and so it does not
//! wait for the task to have its turn.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant as StdInstant,
};

use tokio::time::Instant;

use super::{
    attend::Means,
    decide::{Known, Shown, Stance, decide},
    plan::Plan,
    publish::Publisher,
};
use crate::aerospike::Survey;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Dossier {
    means: Arc<Means>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    publisher: Publisher,
    /// As the reconcile has it.
    latest: Arc<Plan>,
    polled: Option<Polled>,
    last: Option<Last>,
}

/// The last survey that was completed.
#[derive(Debug)]
struct Last {
    survey: Survey,
    /// See [`Known::Asked`].
    read: Option<StdInstant>,
}

/// What the API server said instead of the watch.
#[derive(Clone, Debug)]
pub(super) struct Polled {
    pub(super) plan: Arc<Plan>,
    /// When it was asked.
    pub(super) at: Instant,
}

/// Why nothing is known: one word, and the same for a person.
pub(super) type Why<'a> = (&'a str, &'a str);

impl Dossier {
    /// Of a cluster that nobody has asked yet: nothing is shown.
    pub(super) fn new(means: Arc<Means>, plan: Arc<Plan>) -> Self {
        let mut publisher = Publisher::new(means.kinds.clone());
        publisher.set_subject(&plan.subject);
        let state = State {
            publisher,
            latest: plan,
            polled: None,
            last: None,
        };
        Self {
            means,
            state: Mutex::new(state),
        }
    }

    /// Takes a new plan, and shows what is known as it now stands.
    pub(super) fn take(&self, plan: Arc<Plan>) {
        let mut state = self.state();
        state.publisher.set_subject(&plan.subject);
        state.latest = plan;
        // Where pods are read from the API server, that is at the next interval.
        let polls = matches!(self.means.stance(&state.latest), Stance::Poll { .. });
        if !polls && state.last.is_some() {
            self.show(&mut state, None);
        }
    }

    /// Takes what nodes have said, none where there was nothing to ask for, and what was read from the API server for
    /// it; and shows that.
    pub(super) fn answered(&self, polled: Option<Polled>, survey: Option<Survey>) -> Shown {
        let mut state = self.state();
        let read = polled.as_ref().map(|polled| polled.at.into_std());
        state.polled = polled;
        state.last = survey.map(|survey| Last { survey, read });
        self.show(&mut state, None)
    }

    /// Nodes could not be asked this time. What they said before is shown as long as it stands; nothing is returned
    /// where it does not.
    pub(super) fn failed(&self, why: Why<'_>) -> Option<Shown> {
        let mut state = self.state();
        if state.last.as_ref().is_some_and(|last| self.stands(last)) {
            return Some(self.show(&mut state, None));
        }
        self.forget(&mut state, why);
        None
    }

    /// There is nothing to go by: what nodes have said counts no more.
    pub(super) fn blind(&self, why: Why<'_>) {
        self.forget(&mut self.state(), why);
    }

    /// Nothing is judged any more.
    pub(super) fn withdraw(&self) {
        self.state().publisher.withdraw();
    }

    /// What was read from the API server last.
    pub(super) fn polled(&self) -> Option<Polled> {
        self.state().polled.clone()
    }

    /// When nodes were asked last.
    pub(super) fn asked(&self) -> Option<Instant> {
        let state = self.state();
        let last = state.last.as_ref()?;
        Some(last.survey.window().start.instant)
    }

    /// Whether what was proven has not expired yet.
    fn stands(&self, last: &Last) -> bool {
        let end = last.survey.window().end.instant;
        Instant::now() < end + 2 * self.means.config.probe_interval
    }

    fn forget(&self, state: &mut State, why: Why<'_>) {
        state.last = None;
        self.show(state, Some(why));
    }

    fn show(&self, state: &mut State, why: Option<Why<'_>>) -> Shown {
        let plan = state.plan(&self.means.stance(&state.latest));
        let now = Instant::now().into_std();
        let known = match (&state.last, why) {
            (Some(last), None) => Known::Asked {
                survey: &last.survey,
                read: last.read,
            },
            (_, Some((reason, message))) => Known::Nothing(reason, message),
            (None, None) => Known::Nothing("NotAsked", "its nodes were not asked yet"),
        };
        let shown = decide(&plan, known, self.means.config.probe_interval, now);
        state.publisher.show(&plan, &shown, now);
        shown
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What is judged: the plan, with what a poll has read.
    fn plan(&self, stance: &Stance) -> Arc<Plan> {
        match (&self.polled, stance) {
            (Some(polled), Stance::Poll { owner: true }) => polled.plan.clone(),
            (Some(polled), Stance::Poll { owner: false }) => {
                Arc::new(self.latest.with_pods(polled.plan.pods.clone()))
            }
            _ => self.latest.clone(),
        }
    }
}
