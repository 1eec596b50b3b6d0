//! Follows one kind, or one namespace of it, upstream: the hands of the state machine.
//!
//! One task per shard owns the shard's writer, one connection at most, and the [machine](machine::Machine), and does
//! three things in turn: wait for whatever comes first, tell the machine, do as it says. All judgement is in the
//! machine; all knowledge of bytes in `decode`. There is no queue between the watch and the cache: what is read is
//! applied, what can be read without waiting is published at once, and a slow consumer cannot be felt here.
//!
//! kube's `watcher` was refused for reasons given in [`machine`].

use std::{
    collections::HashSet,
    future::{Future, pending},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Response, header::ACCEPT};
use http_body_util::BodyExt;
use tokio::{sync::watch, time::sleep_until};
use tracing::Instrument;

use crate::{
    cache::{Cause, Item, Kind, Phase, Writer, version_number},
    config::{KindConfig, UpstreamConfig},
    discovery::Availability,
    heartbeat::Heartbeat,
    object::{DecodeError, Key, Object, prune::PruneError},
    upstream::{Upstream, UpstreamError, Verb},
};

mod apply;
mod backoff;
pub(crate) mod decode;
mod extent;
mod failure;
mod link;
pub mod machine;
mod metrics;
mod pending;
mod read;
mod request;
mod served;
mod words;

pub use failure::{Failure, Fault};
pub use machine::Machine;
pub use metrics::describe_metrics;
pub use request::{ListFrom, Request, Revision};
pub use words::{Data, Input, Io, ListCause, Listing, Open, Report, Settings, State, Step, Timing};

use decode::{Event, EventType};
use link::{Incoming, Link, News, OpenWatch, Reader};
use metrics::Meters;
use pending::Pending;
use served::{Form, Scope, Served};

/// A batch is published when it is this large, even if more can be read without waiting.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_EVENTS: usize = 1000;
/// How often the digest is made anew from the whole state and compared.
const VERIFY_INTERVAL: Duration = Duration::from_secs(60);
/// Objects that cannot be decoded are logged once each, up to here.
const COMPLAINTS: usize = 1000;
/// Lists for disorder within this, one after another, mean that versions have no order.
const DISORDER_MEMORY: Duration = Duration::from_secs(3600);

/// What a source is told once.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    machine: Settings,
    scope: Scope,
    seed: u64,
}

impl SourceSettings {
    /// As configured. `seed` is for all that is left to chance: when watches end, how long to wait; give
    /// each source its own.
    ///
    /// # Errors
    ///
    /// A prune rule hits an object's identity.
    pub fn new(
        kind: &KindConfig,
        upstream: &UpstreamConfig,
        seed: u64,
    ) -> Result<Self, PruneError> {
        Ok(Self {
            machine: Settings::new(kind, upstream),
            scope: Scope::new(kind)?,
            seed,
        })
    }
}

/// Follows one shard of a kind.
pub struct Source {
    kind: Arc<Kind>,
    writer: Writer<Object>,
    upstream: Upstream,
    resolved: watch::Receiver<Availability>,
    version: watch::Receiver<Arc<str>>,
    heartbeat: Heartbeat,
    scope: Scope,
    machine: Machine,
    meters: Meters,
    link: Link,
    served: Option<Served>,
    pending: Pending,
    told: Option<Report>,
    /// Something is to be published.
    dirty: bool,
    /// And it proves the shard current.
    proof: bool,
    verified: Option<Instant>,
    /// An event was news though it came too late.
    contradicted: bool,
    disordered: Option<Instant>,
    complaints: HashSet<Key>,
    complained_of_unnamed: bool,
}

/// Something to tell the machine.
enum Turn {
    Resolved,
    Upgraded,
    Users,
    Renewed,
    Link(News),
    Time,
    Nothing,
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Source {
    /// A source that feeds `writer`, which is that of one of `kind`'s shards. `resolved` is what discovery says of
    /// the kind, `version` what it says of the API server.
    pub fn new(
        kind: Arc<Kind>,
        writer: Writer<Object>,
        settings: SourceSettings,
        upstream: Upstream,
        resolved: watch::Receiver<Availability>,
        version: watch::Receiver<Arc<str>>,
        heartbeat: Heartbeat,
    ) -> Self {
        let now = now();
        Self {
            meters: Meters::new(&kind.name),
            machine: Machine::new(settings.machine, settings.seed, now),
            scope: settings.scope,
            kind,
            writer,
            upstream,
            resolved,
            version,
            heartbeat,
            link: Link::Idle,
            served: None,
            pending: Pending::new(now, None),
            told: None,
            dirty: false,
            proof: false,
            verified: None,
            contradicted: false,
            disordered: None,
            complaints: HashSet::new(),
            complained_of_unnamed: false,
        }
    }

    /// Runs until `end` is ready. What is cached stays readable.
    pub async fn run(self, end: impl Future<Output = ()>) {
        let namespace = self.writer.shard().namespace();
        let span = tracing::info_span!("source", kind = self.kind.name, namespace);
        self.follow(end).instrument(span).await;
    }

    async fn follow(mut self, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        let mut users = self.kind.users_changed();
        let mut renewed = self.upstream.changed();
        let mut beat = Heartbeat::timer();
        // Closed channels are always ready: they are not asked again.
        let (mut resolving, mut renewing, mut upgrading) = (true, true, true);
        self.tell();
        self.on_users();
        self.on_resolved();
        loop {
            self.heartbeat.beat();
            let deadline = self.machine.deadline();
            let turn = tokio::select! {
                biased;
                () = &mut end => return,
                changed = self.resolved.changed(), if resolving => {
                    resolving = changed.is_ok();
                    Turn::Resolved
                }
                changed = users.changed() => if changed.is_ok() { Turn::Users } else { Turn::Nothing },
                changed = renewed.changed(), if renewing => {
                    renewing = changed.is_ok();
                    if renewing { Turn::Renewed } else { Turn::Nothing }
                }
                changed = self.version.changed(), if upgrading => {
                    upgrading = changed.is_ok();
                    if upgrading { Turn::Upgraded } else { Turn::Nothing }
                }
                // Before the timers: what has come is no silence, however late it is looked at.
                news = self.link.next() => Turn::Link(news),
                () = until(deadline) => Turn::Time,
                _ = beat.tick() => Turn::Nothing,
            };
            match turn {
                Turn::Resolved => self.on_resolved(),
                Turn::Users => self.on_users(),
                Turn::Renewed => {
                    self.step(Input::Renewed);
                }
                Turn::Upgraded => {
                    self.step(Input::Upgraded);
                }
                Turn::Link(news) => self.on_news(news),
                Turn::Time | Turn::Nothing => {}
            }
            // Also where the link is never silent.
            self.step(Input::Tick);
            tokio::task::yield_now().await;
        }
    }

    /// Tells the machine, and does as it says. Whether the connection is still the same.
    fn step(&mut self, input: Input) -> bool {
        let now = now();
        let step = self.machine.step(input, now);
        self.perform(step, now)
    }

    fn perform(&mut self, step: Step, now: Instant) -> bool {
        for cause in self.machine.take_begun() {
            self.writer.shard().counters.count_relist(cause.as_str());
            if cause == ListCause::Disordered {
                self.on_disorder(now);
            }
        }
        for fault in self.machine.take_failed() {
            self.meters.failed(fault);
        }
        match step.data {
            // The change itself is in the hands of who asked.
            Data::Keep | Data::Apply | Data::Fold => {}
            Data::Discard => self.pending = Pending::new(now, None),
            Data::Publish {
                revision,
                history,
                proven,
            } => {
                self.flush();
                let pending = std::mem::replace(&mut self.pending, Pending::new(now, None));
                let begun = pending.begun;
                let (list, unreadable) = pending.into_parts();
                self.meters
                    .listed(now.saturating_duration_since(begun), list.len());
                tracing::info!(%revision, ?history, objects = list.len(), "listed");
                self.writer
                    .replace(list, &unreadable, revision.number(), history, now);
                if let Some(proven) = proven {
                    self.writer.prove(proven);
                }
            }
            Data::Unproven => self.writer.set_unproven(true),
            Data::Retire => {
                self.flush();
                self.writer.retire(now);
            }
            Data::Unsync => {
                self.flush();
                self.writer.unsync();
            }
            Data::Forget => {
                self.flush();
                self.pending = Pending::new(now, None);
                self.writer.unsync();
                self.writer.retire(now);
            }
        }
        self.tell();
        match step.io {
            Io::Keep => true,
            Io::Close => {
                self.link = Link::Idle;
                false
            }
            Io::Send(request) => {
                self.send(request, now);
                false
            }
        }
    }

    /// Shows readers, metrics and the log how the shard is.
    fn tell(&mut self) {
        let report = self.machine.report();
        if self.told.as_ref() == Some(report) {
            return;
        }
        let Report {
            phase,
            reason,
            message,
        } = report.clone();
        match phase {
            Phase::BackingOff | Phase::Forbidden => {
                tracing::warn!(phase = phase.as_str(), reason = &*reason, "{message}");
            }
            Phase::Live => tracing::info!(phase = phase.as_str(), "followed by a watch"),
            _ => tracing::info!(phase = phase.as_str(), reason = &*reason, "{message}"),
        }
        self.writer.set_status(phase, &reason, &message);
        self.told = Some(Report {
            phase,
            reason,
            message,
        });
    }

    fn on_resolved(&mut self) {
        let resolved = self.resolved.borrow_and_update().clone();
        let resolved = match resolved {
            Availability::Served(kind) => kind,
            Availability::Absent(why) => return self.on_absent(why),
            Availability::Unknown(why) => return self.on_unknown(why),
        };
        let served = Served::new(resolved, &self.scope);
        if let Some(before) = &self.served
            && before.is_other_than(&served)
        {
            // Deleted and made anew since: its objects went with it.
            self.served = None;
            self.step(Input::Gone);
        }
        self.kind.set_identity(served.identity.clone());
        let before = self.served.replace(served);
        match (before, &self.served) {
            (Some(before), Some(now)) if before.reads_like(now) => {
                self.step(Input::Found);
            }
            (Some(_), _) => {
                self.step(Input::Changed);
            }
            (None, _) => {
                self.step(Input::Served);
            }
        }
    }

    fn on_absent(&mut self, why: Arc<str>) {
        if self.served.take().is_some() {
            self.step(Input::Gone);
        }
        self.step(Input::Absent { known: true, why });
    }

    /// That nobody can say is no proof that a kind is gone.
    fn on_unknown(&mut self, why: Arc<str>) {
        if self.served.is_none() {
            self.step(Input::Absent { known: false, why });
        }
    }

    fn on_users(&mut self) {
        let used = self.kind.users() > 0;
        self.step(if used { Input::Used } else { Input::Unused });
    }

    fn send(&mut self, request: Request, now: Instant) {
        let Some(served) = &self.served else {
            // The machine asks for nothing that is not served.
            self.link = Link::Idle;
            return;
        };
        if matches!(request, Request::List { .. } | Request::Stream { .. }) {
            self.pending = Pending::new(now, self.writer.shard().state());
        }
        let form = Form::of(&request);
        let verb = match form {
            Form::List | Form::Probe => Verb::List,
            Form::Watch => Verb::Watch,
        };
        let path = served.path(self.writer.shard().namespace());
        let query = request.query(&self.scope.label_selector, &self.scope.field_selector);
        tracing::debug!(path, query, "asking");
        let http = http::Request::get(format!("{path}?{query}"))
            .header(ACCEPT, self.scope.accept(form))
            .body(Vec::new());
        let upstream = self.upstream.clone();
        let answer: BoxFuture<'static, Result<Response<Incoming>, UpstreamError>> = match http {
            Ok(http) => async move {
                let response = upstream.send(verb, http).await?;
                Ok(response.map(|body| -> Incoming { Box::pin(body) }))
            }
            .boxed(),
            Err(error) => std::future::ready(Err(UpstreamError::Transport(error.into()))).boxed(),
        };
        self.link = Link::Sending { request, answer };
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
pub(crate) mod tests;
