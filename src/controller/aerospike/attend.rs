//! The task that looks after one cluster: asks its nodes at intervals and whenever the plan changes, and shows what
//! that proves.
//!
//! It holds the latest plan only. A plan that asks something else drops the survey that is running, with all its
//! connections; one that asks the same (a label of a pod has changed) leaves it alone.

use std::{sync::Arc, time::Instant as StdInstant};

use metrics::{counter, histogram};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep_until},
};
use tracing::debug;

use super::{
    access::Accessible,
    apply::Kinds,
    decide::{Known, Shown, Stance, decide, stance},
    facts::Operator,
    plan::{Plan, Reach, Subject},
    poll::{PollError, Poller},
    publish::Publisher,
};
use crate::{
    aerospike::{ProbeSettings, Prober, Survey, breaker::BreakerSettings},
    config::AerospikeConfig,
};

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
    pub(super) publisher: Arc<Publisher>,
    /// Given a permit when somebody waits for newer evidence.
    pub(super) wanted: Arc<Notify>,
    pub(super) _task: tokio_util::task::AbortOnDropHandle<()>,
}

/// The task's own.
struct Attending {
    means: Arc<Means>,
    publisher: Arc<Publisher>,
    prober: Prober,
    /// As the reconcile has it.
    latest: Arc<Plan>,
    polled: Option<Polled>,
    last: Option<Last>,
}

/// The last survey that was completed.
struct Last {
    survey: Survey,
    /// See [`Known::Asked`].
    read: Option<StdInstant>,
}

/// What the API server said instead of the watch.
#[derive(Clone)]
struct Polled {
    plan: Arc<Plan>,
    /// When it was asked.
    at: Instant,
}

/// Why the nodes were not asked.
enum Unasked {
    /// The plan has changed meanwhile.
    Cancelled,
    /// It is all over.
    Ended,
    /// One word, and the same for a person.
    Because(&'static str, String),
}

impl Attendant {
    pub(super) fn start(means: Arc<Means>, plan: Plan) -> Self {
        let publisher = Arc::new(Publisher::new(means.kinds.clone()));
        let plan = Arc::new(plan);
        publisher.set_subject(&plan.subject);
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
            publisher: publisher.clone(),
            latest: plan,
            polled: None,
            last: None,
        };
        let task = tokio::spawn(attending.run(plans, wanted.clone()));
        Self {
            plans: sender,
            publisher,
            wanted,
            _task: tokio_util::task::AbortOnDropHandle::new(task),
        }
    }

    /// Takes a new plan, if it is one.
    pub(super) fn give(&self, plan: Plan) {
        self.publisher.set_subject(&plan.subject);
        self.plans.send_if_modified(|known| {
            let is_new = **known != plan;
            if is_new {
                *known = Arc::new(plan);
            }
            is_new
        });
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
    fn stance(&self, plan: &Plan) -> Stance {
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
                        due = Instant::now();
                    }
                }
                Ok(()) = stale.changed() => due = Instant::now(),
                Ok(()) = access.changed() => due = Instant::now(),
                // However many wait, nodes are asked no more often than while the cluster settles.
                () = wanted.notified() => {
                    let soonest = self.asked().map(|at| at + self.means.config.settling_interval);
                    due = due.min(soonest.unwrap_or_else(Instant::now));
                }
                () = until(due) => {
                    let begun = Instant::now();
                    match self.ask(&mut plans).await {
                        Ok(()) => {
                            let shown = self.show(None);
                            due = self.next(begun, &shown);
                        }
                        Err(Unasked::Cancelled) => due = Instant::now(),
                        Err(Unasked::Ended) => return,
                        Err(Unasked::Because(reason, message)) => {
                            self.show(Some((reason, &message)));
                            due = begun + self.means.config.probe_interval;
                        }
                    }
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

    fn asked(&self) -> Option<Instant> {
        let last = self.last.as_ref()?;
        Some(last.survey.window().start.instant)
    }

    /// Takes a new plan, and shows what is known as it now stands. Whether nodes are to be asked because of it.
    fn take(&mut self, new: Arc<Plan>) -> bool {
        for uid in new.stirred(&self.latest) {
            self.prober.forgive(uid);
        }
        let polls = matches!(self.means.stance(&new), Stance::Poll { .. });
        let before = std::mem::replace(&mut self.latest, new);
        if polls {
            // Pods are read anew at the next interval; how many there are to be counts at once.
            return !self.latest.asks_for_the_same(&before);
        }
        if self.last.is_some() {
            self.show(None);
        }
        let stirred = self.latest.stirred(&before).next().is_some();
        stirred || !self.latest.asks_the_same(&before)
    }

    /// What is judged: the plan, with what a poll has read.
    fn plan(&self) -> Arc<Plan> {
        match (&self.polled, self.means.stance(&self.latest)) {
            (Some(polled), Stance::Poll { owner }) => {
                if owner {
                    polled.plan.clone()
                } else {
                    Arc::new(self.latest.with_pods(polled.plan.pods.clone()))
                }
            }
            _ => self.latest.clone(),
        }
    }

    /// Shows what is known, or why nothing is.
    fn show(&self, why: Option<(&str, &str)>) -> Shown {
        let plan = self.plan();
        let now = Instant::now().into_std();
        let known = match (&self.last, why) {
            (Some(last), None) => Known::Asked {
                survey: &last.survey,
                read: last.read,
            },
            (_, Some((reason, message))) => Known::Nothing(reason, message),
            (None, None) => Known::Nothing("NotAsked", "its nodes were not asked yet"),
        };
        let shown = decide(&plan, known, self.means.config.probe_interval, now);
        self.publisher.show(&plan, &shown, now);
        shown
    }

    /// Asks all nodes, unless the plan changes meanwhile.
    async fn ask(&mut self, plans: &mut watch::Receiver<Arc<Plan>>) -> Result<(), Unasked> {
        let stance = self.means.stance(&self.latest);
        if let Stance::Blind(why) = &stance {
            self.last = None;
            return Err(Unasked::Because("Stale", why.clone()));
        }
        let polls = matches!(stance, Stance::Poll { .. });
        let mut stale = self.means.stale.clone();
        stale.mark_unchanged();
        let means = self.means.clone();
        let (latest, polled) = (self.latest.clone(), self.polled.clone());
        let mut newest = latest.clone();
        let done = {
            let work = work(&means, &mut self.prober, &latest, &stance, polled);
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
                            new.asks_for_the_same(&latest)
                        } else {
                            new.asks_the_same(&latest) && new.stirred(&latest).next().is_none()
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
        self.latest = newest;
        match done {
            Ok(Worked { polled, survey }) => {
                let read = polled.as_ref().map(|polled| polled.at.into_std());
                self.polled = polled;
                self.last = survey.map(|survey| Last { survey, read });
                Ok(())
            }
            Err(Unasked::Because(reason, message)) => {
                // What was proven before stands until it expires.
                let stands = self.last.as_ref().is_some_and(|last| {
                    let end = last.survey.window().end.instant;
                    Instant::now() < end + 2 * means.config.probe_interval
                });
                debug!(cluster = %self.latest.id.key, reason, message, stands, "nodes were not asked");
                if stands {
                    Ok(())
                } else {
                    self.last = None;
                    Err(Unasked::Because(reason, message))
                }
            }
            Err(other) => Err(other),
        }
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
                Unasked::Because("PollFailed", message)
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
    let access = access.map_err(|why| Unasked::Because("NoAccess", why))?;
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
