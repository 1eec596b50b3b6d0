//! The task that looks after one cluster: asks its nodes at intervals and whenever the plan changes, and shows what
//! that proves.
//!
//! It holds the latest plan only. A plan that asks something else drops the survey that is running, with all its
//! connections; one that asks the same (a label of a pod has changed) leaves it alone.

use std::{sync::Arc, time::Duration};

use metrics::{counter, histogram};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep_until},
};
use tracing::debug;

use super::{
    access::Accessible,
    apply::Kinds,
    decide::{Shown, Stance, stance},
    dossier::{Dossier, Polled},
    facts::Operator,
    plan::{Plan, Reach, Subject},
    poll::{PollError, Poller},
};
use crate::{
    aerospike::{ProbeSettings, Prober, Survey, breaker::BreakerSettings},
    config::AerospikeConfig,
};

/// After a change of the plan, before nodes are asked: what the change alone has proven is shown by then, and is not to
/// wait behind a connection to each node.
const HEAD_START: Duration = Duration::from_millis(2);

/// What all clusters' tasks share.
#[derive(Debug)]
pub(super) struct Means {
    pub(super) config: AerospikeConfig,
    pub(super) access: watch::Receiver<Accessible>,
    /// Why kinds are out of date.
    pub(super) stale: watch::Receiver<Stale>,
    /// How many clusters may be asked at once.
    pub(super) permits: Semaphore,
    pub(super) poller: Poller,
    pub(super) kinds: Kinds,
}

/// Why what the cache has of a kind is out of date; nothing where it is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stale {
    pub(super) pods: Option<String>,
    pub(super) sets: Option<String>,
    pub(super) clusters: Vec<(Operator, String)>,
}

/// One cluster's task, from outside.
#[derive(Debug)]
pub(super) struct Attendant {
    pub(super) plans: watch::Sender<Arc<Plan>>,
    pub(super) dossier: Arc<Dossier>,
    /// Given a permit when somebody waits for newer evidence.
    pub(super) wanted: Arc<Notify>,
    pub(super) _task: tokio_util::task::AbortOnDropHandle<()>,
}

/// The task's own.
struct Attending {
    means: Arc<Means>,
    dossier: Arc<Dossier>,
    prober: Prober,
    /// What nodes are asked by, or were last.
    plan: Arc<Plan>,
}

/// Why the nodes were not asked.
enum Unasked {
    /// The plan has changed meanwhile.
    Cancelled,
    /// It is all over.
    Ended,
    /// There is nothing to go by, and what was proven counts no more. One word, and the same for a person.
    Blind(&'static str, String),
    /// It did not work this time. One word, and the same for a person.
    Failed(&'static str, String),
}

impl Attendant {
    pub(super) fn start(means: Arc<Means>, plan: Plan) -> Self {
        let plan = Arc::new(plan);
        let dossier = Arc::new(Dossier::new(means.clone(), plan.clone()));
        let (sender, plans) = watch::channel(plan.clone());
        let wanted = Arc::new(Notify::new());
        let config = &means.config;
        let settings = ProbeSettings {
            timeout: config.timeout,
            breaker: BreakerSettings {
                failures: config.breaker_failures,
                pause: config.breaker_pause,
            },
        };
        let plain = Arc::new(crate::aerospike::Network::plain());
        let attending = Attending {
            prober: Prober::new(plain, settings, None),
            means,
            dossier: dossier.clone(),
            plan,
        };
        let task = tokio::spawn(attending.run(plans, wanted.clone()));
        Self {
            plans: sender,
            dossier,
            wanted,
            _task: tokio_util::task::AbortOnDropHandle::new(task),
        }
    }

    /// Takes a new plan, if it is one: shows what is known as it now stands, and has nodes asked if they should be.
    pub(super) fn give(&self, plan: Plan) {
        if **self.plans.borrow() == plan {
            return;
        }
        let plan = Arc::new(plan);
        self.dossier.take(plan.clone());
        self.plans.send_replace(plan);
    }
}

impl Stale {
    fn owner(&self, plan: &Plan) -> Option<&str> {
        match plan.subject {
            Subject::Cluster(_) => {
                let operator = plan.id.operator;
                let mut clusters = self.clusters.iter();
                let found = clusters.find(|(of, _)| *of == operator)?;
                Some(&found.1)
            }
            Subject::Sets(_) => self.sets.as_deref(),
        }
    }
}

impl Means {
    pub(super) fn stance(&self, plan: &Plan) -> Stance {
        let stale = self.stale.borrow();
        stance(self.config.mode, stale.pods.as_deref(), stale.owner(plan))
    }

    pub(super) fn reach(&self) -> Reach {
        Reach {
            port: self.config.port,
            tls: self.config.tls.is_some(),
        }
    }
}

impl Attending {
    async fn run(mut self, mut plans: watch::Receiver<Arc<Plan>>, wanted: Arc<Notify>) {
        let mut stale = self.means.stale.clone();
        let mut access = self.means.access.clone();
        let pause = self.means.config.probe_interval;
        let mut due = Instant::now();
        loop {
            tokio::select! {
                biased;
                changed = plans.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let new = plans.borrow_and_update().clone();
                    if self.take(new) {
                        due = Instant::now() + HEAD_START;
                    }
                }
                Ok(()) = stale.changed() => due = Instant::now(),
                Ok(()) = access.changed() => due = Instant::now(),
                // However many wait, nodes are asked no more often than while the cluster settles.
                () = wanted.notified() => {
                    let soonest = self.dossier.asked().map(|at| at + self.means.config.settling_interval);
                    due = due.min(soonest.unwrap_or_else(Instant::now));
                }
                () = until(due) => {
                    let begun = Instant::now();
                    due = match self.ask(&mut plans).await {
                        Ok(Worked { polled, survey }) => {
                            let shown = self.dossier.answered(polled, survey);
                            self.next(begun, &shown)
                        }
                        Err(Unasked::Failed(reason, message)) => {
                            debug!(cluster = %self.plan.id.key, reason, message, "nodes were not asked");
                            let shown = self.dossier.failed((reason, &message));
                            shown.map_or(begun + pause, |shown| self.next(begun, &shown))
                        }
                        Err(Unasked::Blind(reason, message)) => {
                            self.dossier.blind((reason, &message));
                            begun + pause
                        }
                        Err(Unasked::Cancelled) => Instant::now() + HEAD_START,
                        Err(Unasked::Ended) => return,
                    };
                }
            }
        }
    }

    /// When to ask again, after nodes were asked from `begun` on. Whoever was left alone meanwhile is asked once its
    /// pause is over: at the interval after that it would be later than a verdict may be.
    fn next(&self, begun: Instant, shown: &Shown) -> Instant {
        let config = &self.means.config;
        let pace = if shown.is_settled() {
            config.probe_interval
        } else {
            config.settling_interval
        };
        let due = begun + pace;
        self.prober
            .reopens_after(begun)
            .map_or(due, |at| due.min(at))
    }

    /// Takes a new plan. Whether nodes are to be asked because of it.
    fn take(&mut self, new: Arc<Plan>) -> bool {
        for uid in new.stirred(&self.plan) {
            self.prober.forgive(uid);
        }
        let polls = matches!(self.means.stance(&new), Stance::Poll { .. });
        let before = std::mem::replace(&mut self.plan, new);
        if polls {
            // Pods are read anew at the next interval; how many there are to be counts at once.
            return !self.plan.asks_for_the_same(&before);
        }
        let stirred = self.plan.stirred(&before).next().is_some();
        stirred || !self.plan.asks_the_same(&before)
    }

    /// Asks all nodes, unless the plan changes meanwhile.
    async fn ask(&mut self, plans: &mut watch::Receiver<Arc<Plan>>) -> Result<Worked, Unasked> {
        let stance = self.means.stance(&self.plan);
        if let Stance::Blind(why) = &stance {
            return Err(Unasked::Blind("Stale", why.clone()));
        }
        let polls = matches!(stance, Stance::Poll { .. });
        let mut stale = self.means.stale.clone();
        stale.mark_unchanged();
        let means = self.means.clone();
        let (plan, polled) = (self.plan.clone(), self.dossier.polled());
        let mut newest = plan.clone();
        let done = {
            let work = work(&means, &mut self.prober, &plan, &stance, polled);
            let mut work = std::pin::pin!(work);
            loop {
                tokio::select! {
                    biased;
                    changed = plans.changed() => {
                        if changed.is_err() {
                            return Err(Unasked::Ended);
                        }
                        let new = plans.borrow_and_update().clone();
                        let same = if polls {
                            new.asks_for_the_same(&plan)
                        } else {
                            new.asks_the_same(&plan) && new.stirred(&plan).next().is_none()
                        };
                        newest = new;
                        if !same {
                            break None;
                        }
                    }
                    Ok(()) = stale.changed() => {
                        if means.stance(&newest) != stance {
                            break None;
                        }
                    }
                    done = &mut work => break Some(done),
                }
            }
        };
        let Some(done) = done else {
            counter!("informerd_aerospike_surveys_total", "outcome" => "cancelled").increment(1);
            self.take(newest);
            return Err(Unasked::Cancelled);
        };
        self.plan = newest;
        done
    }
}

/// At once, if that is past: a timer would take until the next millisecond.
async fn until(due: Instant) {
    if due > Instant::now() {
        sleep_until(due).await;
    }
}

/// What came of it.
struct Worked {
    polled: Option<Polled>,
    /// None where there is nothing to ask for.
    survey: Option<Survey>,
}

/// Reads pods where the stance says so, and asks all nodes.
async fn work(
    means: &Means,
    prober: &mut Prober,
    latest: &Plan,
    stance: &Stance,
    polled: Option<Polled>,
) -> Result<Worked, Unasked> {
    let permit = means.permits.acquire().await;
    let _permit = permit.map_err(|_| Unasked::Ended)?;
    let polled = match stance {
        Stance::Poll { owner } => {
            let interval = means.config.probe_interval;
            // Nodes may be asked more often than the API server.
            let known = polled.filter(|polled| {
                polled.at.elapsed() < interval && polled.plan.asks_for_the_same(latest)
            });
            let polled = match known {
                Some(known) => Ok(known),
                None => poll(means, latest, *owner).await,
            };
            Some(polled.map_err(|error| {
                let message = format!("its pods could not be read from the API server: {error}");
                Unasked::Failed("PollFailed", message)
            })?)
        }
        Stance::Watch | Stance::Blind(_) => None,
    };
    let plan = polled.as_ref().map_or(latest, |polled| &polled.plan);
    let Ok(size) = plan.size else {
        return Ok(Worked {
            polled,
            survey: None,
        });
    };
    let access = means.access.borrow().clone();
    let access = access.map_err(|why| Unasked::Failed("NoAccess", why))?;
    let connect = access.tls.as_ref().filter(|_| plan.tls);
    let connect = connect.unwrap_or(&access.plain).clone();
    prober.set_access(connect, access.credentials.clone());
    let (before, begun) = (prober.asked(), Instant::now());
    let survey = prober.survey(size, &plan.members()).await;
    counter!("informerd_aerospike_questions_total").increment(prober.asked() - before);
    counter!("informerd_aerospike_surveys_total", "outcome" => "done").increment(1);
    histogram!("informerd_aerospike_survey_seconds").record(begun.elapsed().as_secs_f64());
    let reports = survey.latest().reports.iter();
    for failure in reports.filter_map(|report| report.outcome.as_ref().err()) {
        counter!("informerd_aerospike_failures_total", "cause" => failure.word()).increment(1);
    }
    Ok(Worked {
        polled,
        survey: Some(survey),
    })
}

/// One LIST of the pods; and what says how many there are to be, where that is out of date too.
async fn poll(means: &Means, latest: &Plan, owner: bool) -> Result<Polled, PollError> {
    let reach = means.reach();
    let at = Instant::now();
    let plan = match (&latest.subject, means.kinds.cluster(latest.id.operator)) {
        (Subject::Cluster(known), Some((kind, _))) if owner => {
            match means.poller.cluster(kind, &latest.id).await? {
                Some((object, facts)) if object.uid == known.uid => {
                    latest.with_subject(Subject::Cluster(Arc::new(object)), facts, reach)
                }
                // The reconcile deals with that once the watch tells.
                _ => return Err(PollError::Gone),
            }
        }
        (Subject::Sets(_), _) if owner => {
            let sets = means.poller.sets(&means.kinds.sets.0, &latest.id).await?;
            latest.with_sets(sets, reach)
        }
        _ => latest.clone(),
    };
    let pods = means.poller.pods(&means.kinds.pods.0, &latest.id).await?;
    Ok(Polled {
        plan: Arc::new(plan.with_pods(pods)),
        at,
    })
}
