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
use kube::client::Body;
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

mod backoff;
mod decode;
mod extent;
mod failure;
mod link;
pub mod machine;
mod metrics;
mod pending;
mod request;
mod served;
mod words;

pub use failure::{Failure, Fault};
pub use machine::Machine;
pub use metrics::describe_metrics;
pub use request::{ListFrom, Request, Revision};
pub use words::{Data, Input, Io, ListCause, Listing, Open, Report, Settings, State, Step, Timing};

use decode::{Event, EventType};
use link::{Link, News, OpenWatch, Reader};
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
    /// As configured. `seed` is for all that is left to chance: when watches end, how long to wait.
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
    disordered: Option<Instant>,
    complaints: HashSet<Key>,
    complained_of_unnamed: bool,
}

/// Something to tell the machine.
enum Turn {
    Resolved,
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
    /// A source that feeds `writer`, which is that of one of `kind`'s shards. `resolved` is what discovery says.
    pub fn new(
        kind: Arc<Kind>,
        writer: Writer<Object>,
        settings: SourceSettings,
        upstream: Upstream,
        resolved: watch::Receiver<Availability>,
        heartbeat: Heartbeat,
    ) -> Self {
        let now = now();
        Self {
            meters: Meters::new(&kind.name, writer.shard().namespace()),
            machine: Machine::new(settings.machine, settings.seed, now),
            scope: settings.scope,
            kind,
            writer,
            upstream,
            resolved,
            heartbeat,
            link: Link::Idle,
            served: None,
            pending: Pending::new(now, None),
            told: None,
            dirty: false,
            proof: false,
            verified: None,
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
        let (mut resolving, mut renewing) = (true, true);
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
        if let Input::Failed(failure) = &input {
            self.meters.failed(failure.fault);
        }
        let step = self.machine.step(input, now);
        self.perform(step, now)
    }

    fn perform(&mut self, step: Step, now: Instant) -> bool {
        for cause in self.machine.take_begun() {
            self.writer.shard().counters.count_relist(cause.as_str());
            self.meters.list_needed(cause);
            if cause == ListCause::Disordered {
                self.on_disorder(now);
            }
        }
        match step.data {
            // The change itself is in the hands of who asked.
            Data::Keep | Data::Apply | Data::Fold => {}
            Data::Discard => self.pending = Pending::new(now, None),
            Data::Publish { revision, history } => {
                self.flush();
                let pending = std::mem::replace(&mut self.pending, Pending::new(now, None));
                let begun = pending.begun;
                let (list, unreadable) = pending.into_parts();
                self.meters
                    .listed(now.saturating_duration_since(begun), list.len());
                tracing::info!(%revision, ?history, objects = list.len(), "listed");
                self.writer
                    .replace(list, &unreadable, revision.number(), history, now);
                self.writer.prove(begun);
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
        self.meters.phase(phase);
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
            Availability::Absent(why) => return self.on_absent(true, why),
            Availability::Unknown(why) => return self.on_absent(false, why),
        };
        let served = Served::new(resolved, &self.scope);
        self.kind.set_identity(served.identity.clone());
        let before = self.served.replace(served);
        match (before, &self.served) {
            (Some(before), Some(now)) if before.reads_like(now) => {}
            (Some(_), _) => {
                self.step(Input::Changed);
            }
            (None, _) => {
                self.step(Input::Served);
            }
        }
    }

    fn on_absent(&mut self, known: bool, why: Arc<str>) {
        if self.served.take().is_some() {
            self.step(Input::Gone);
        }
        self.step(Input::Absent { known, why });
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
        let (form, verb) = match &request {
            Request::List { .. } | Request::Continue { .. } => (Form::List, Verb::List),
            Request::Stream { .. } | Request::Watch { .. } => (Form::Watch, Verb::Watch),
            Request::Probe => (Form::Probe, Verb::List),
        };
        let path = served.path(self.writer.shard().namespace());
        let query = request.query(&self.scope.label_selector, &self.scope.field_selector);
        tracing::debug!(path, query, "asking");
        let http = http::Request::get(format!("{path}?{query}"))
            .header(ACCEPT, self.scope.accept(form))
            .body(Vec::new());
        let upstream = self.upstream.clone();
        let answer: BoxFuture<'static, Result<Response<Body>, UpstreamError>> = match http {
            Ok(http) => async move { upstream.send(verb, http).await }.boxed(),
            Err(error) => std::future::ready(Err(UpstreamError::Transport(error.into()))).boxed(),
        };
        self.link = Link::Sending { form, answer };
    }

    fn on_news(&mut self, news: News) {
        match news {
            News::Answer(Ok(response)) => {
                let Link::Sending { form, .. } = &self.link else {
                    return;
                };
                let reader = match form {
                    Form::List => Reader::Page(decode::Page::default()),
                    Form::Probe => Reader::Probe(decode::Page::default()),
                    Form::Watch => {
                        self.meters.watch_opened();
                        Reader::Watch {
                            lines: decode::Lines::default(),
                            checked: false,
                            open: OpenWatch::new(self.writer.shard().clone(), now()),
                        }
                    }
                };
                self.link = Link::Reading {
                    body: response.into_body(),
                    reader,
                };
                self.step(Input::Opened);
            }
            News::Answer(Err(error)) => {
                self.link = Link::Idle;
                self.step(Input::Failed((&error).into()));
            }
            News::Frame(frame) => {
                // Taken out while it is worked on, so that whatever the machine wants instead can take its place.
                let Link::Reading { body, reader } = std::mem::replace(&mut self.link, Link::Idle)
                else {
                    return;
                };
                let left = match reader {
                    Reader::Page(page) => self
                        .on_list_frame(page, frame)
                        .map(|page| (body, Reader::Page(page))),
                    Reader::Probe(page) => self
                        .on_probe_frame(page, frame)
                        .map(|page| (body, Reader::Probe(page))),
                    Reader::Watch {
                        lines,
                        checked,
                        open,
                    } => self.on_watch_frame(body, lines, checked, open, frame),
                };
                if let Some((body, reader)) = left {
                    self.link = Link::Reading { body, reader };
                }
            }
        }
    }

    /// The page, as long as it is to be read on.
    fn on_list_frame(
        &mut self,
        mut page: decode::Page,
        frame: Option<Result<Bytes, UpstreamError>>,
    ) -> Option<decode::Page> {
        match frame {
            Some(Ok(bytes)) => {
                let mut items = Vec::new();
                let pushed = page.push(&bytes, |item| items.push(self.decode(item, 0)));
                for item in items {
                    match item {
                        Ok(object) => self.pending.insert(object),
                        Err(error) => {
                            self.complain(&error);
                            self.pending.insert_unreadable(&error);
                        }
                    }
                }
                if let Err(error) = pushed {
                    self.garbled(&error);
                    return None;
                }
                self.step(Input::Bytes).then_some(page)
            }
            Some(Err(error)) => {
                self.step(Input::Failed((&error).into()));
                None
            }
            None => {
                self.on_page(page);
                None
            }
        }
    }

    fn on_page(&mut self, page: decode::Page) {
        let end = match page.finish() {
            Ok(end) => end,
            Err(error) => return self.garbled(&error),
        };
        if self.scope.metadata_only && end.kind != "PartialObjectMetadataList" {
            self.step(Input::Failed(whole_objects()));
            return;
        }
        tracing::debug!(revision = %end.revision, remaining = end.remaining, "a page is complete");
        let mut revision = end.revision;
        if self.pending.highest > revision.number() && revision.number() > 0 {
            self.unordered("the list has items that are newer than itself");
        }
        revision = self.ordered(revision);
        self.step(Input::Page {
            revision,
            next: end.next,
        });
    }

    fn on_probe_frame(
        &mut self,
        mut page: decode::Page,
        frame: Option<Result<Bytes, UpstreamError>>,
    ) -> Option<decode::Page> {
        match frame {
            Some(Ok(bytes)) => {
                if let Err(error) = page.push(&bytes, |_| ()) {
                    self.garbled(&error);
                    return None;
                }
                self.step(Input::Bytes).then_some(page)
            }
            Some(Err(error)) => {
                self.step(Input::Failed((&error).into()));
                None
            }
            None => {
                match page.finish() {
                    Ok(end) => {
                        let revision = self.ordered(end.revision);
                        self.step(Input::Probed(revision));
                    }
                    Err(error) => self.garbled(&error),
                }
                None
            }
        }
    }

    /// Applies this frame and all that can be read without waiting, up to a batch, and publishes them together.
    fn on_watch_frame(
        &mut self,
        mut body: Body,
        mut lines: decode::Lines,
        mut checked: bool,
        open: OpenWatch,
        frame: Option<Result<Bytes, UpstreamError>>,
    ) -> Option<(Body, Reader)> {
        let (mut bytes, mut events) = (0, 0);
        let mut frame = Some(frame);
        let mut kept = true;
        while kept && let Some(next) = frame {
            kept = match next {
                Some(Ok(data)) => {
                    bytes += data.len();
                    lines.push(data);
                    self.on_lines(&mut lines, &mut checked, &mut events)
                }
                Some(Err(error)) => {
                    self.flush();
                    self.step(Input::Failed((&error).into()));
                    false
                }
                None => {
                    self.flush();
                    self.step(Input::Ended {
                        whole: lines.is_whole(),
                    });
                    false
                }
            };
            frame = (bytes < BATCH_BYTES && events < BATCH_EVENTS)
                .then(|| body.frame().now_or_never())
                .flatten()
                .map(link::data);
        }
        self.flush();
        if !kept {
            self.meters.watch_closed(open.since(), now());
            return None;
        }
        Some((
            body,
            Reader::Watch {
                lines,
                checked,
                open,
            },
        ))
    }

    /// Whether the connection is still the same.
    fn on_lines(
        &mut self,
        lines: &mut decode::Lines,
        checked: &mut bool,
        events: &mut usize,
    ) -> bool {
        let received = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let received = u64::try_from(received.as_nanos()).unwrap_or(u64::MAX);
        let mut kept = self.step(Input::Bytes);
        while kept {
            kept = match lines.take() {
                Ok(Some(line)) => {
                    *events += 1;
                    self.on_line(&line, received, checked)
                }
                Ok(None) => return true,
                Err(error) => {
                    self.garbled(&error);
                    false
                }
            };
        }
        false
    }

    fn on_line(&mut self, line: &[u8], received: u64, checked: &mut bool) -> bool {
        match Event::read(line) {
            Ok(Event::Change { r#type, object }) => {
                if self.scope.metadata_only && !*checked {
                    if decode::kind_of(object) != "PartialObjectMetadata" {
                        return self.step(Input::Failed(whole_objects()));
                    }
                    *checked = true;
                }
                let decoded = self.decode(object, received).or_else(|error| {
                    // The members may stand in another order than is usual, and `object` have taken too much.
                    match Event::read_any(line) {
                        Ok(Event::Change { object: other, .. }) if other != object => {
                            self.decode(other, received)
                        }
                        _ => Err(error),
                    }
                });
                self.on_change(r#type, decoded)
            }
            Ok(Event::Bookmark { revision, end_mark }) => self.on_bookmark(revision, end_mark),
            Ok(Event::Error(status)) => {
                self.flush();
                self.step(Input::Failed(Failure::in_stream(&status)))
            }
            Err(error) => {
                self.flush();
                let failure = Failure::new(Fault::Garbled, error.to_string());
                self.step(Input::Failed(Failure {
                    in_stream: true,
                    ..failure
                }))
            }
        }
    }

    fn on_bookmark(&mut self, revision: Revision, end_mark: bool) -> bool {
        self.meters.bookmark();
        let revision = self.ordered(revision);
        let now = now();
        let input = if end_mark {
            Input::EndMark(revision.clone())
        } else {
            Input::Bookmark(revision.clone())
        };
        let step = self.machine.step(input, now);
        if step.data == Data::Apply {
            self.writer.advance(revision.number());
            self.writer.set_unproven(self.machine.is_unproven());
            (self.dirty, self.proof) = (true, true);
            if self
                .verified
                .is_none_or(|at| now.saturating_duration_since(at) >= VERIFY_INTERVAL)
            {
                self.verified = Some(now);
                if !self.writer.verify() {
                    self.meters.mismatches.increment(1);
                    tracing::error!("the running digest did not agree with the state: mended");
                }
            }
        }
        self.perform(step, now)
    }

    fn on_change(&mut self, r#type: EventType, decoded: Result<Object, DecodeError>) -> bool {
        self.meters.event(r#type);
        let version = match &decoded {
            Ok(object) => Some(&*object.resource_version),
            Err(error) => error.resource_version.as_deref(),
        };
        let revision = version
            .map(Revision::parse)
            .map(|revision| self.ordered(revision));
        let now = now();
        let step = self.machine.step(Input::Change(revision.clone()), now);
        let sound = match step.data {
            Data::Apply => self.apply(r#type, decoded, revision),
            Data::Fold => {
                self.fold(r#type, decoded);
                true
            }
            _ => true,
        };
        let kept = self.perform(step, now);
        if kept && !sound {
            self.flush();
            return self.step(Input::Suspect);
        }
        kept
    }

    /// Into the pending list.
    fn fold(&mut self, r#type: EventType, decoded: Result<Object, DecodeError>) {
        match (r#type, decoded) {
            (EventType::Deleted, Ok(object)) => self.pending.remove(&object.key),
            (EventType::Deleted, Err(DecodeError { key: Some(key), .. })) => {
                self.pending.remove(&key)
            }
            (_, Ok(object)) => self.pending.insert(object),
            (_, Err(error)) => {
                self.complain(&error);
                self.pending.insert_unreadable(&error);
            }
        }
    }

    /// To the writer. Whether it can be.
    fn apply(
        &mut self,
        r#type: EventType,
        decoded: Result<Object, DecodeError>,
        revision: Option<Revision>,
    ) -> bool {
        if let Err(error) = &decoded
            && (r#type != EventType::Deleted || error.key.is_none())
        {
            self.complain(error);
        }
        let Some(revision) = revision else {
            // Something changed and nobody can say when: a list will tell.
            return false;
        };
        let number = revision.number();
        if number != 0 && number <= self.writer.revision() {
            self.meters.stale.increment(1);
            return !decoded.is_ok_and(|object| self.contradicts(&object));
        }
        let gone = if self.scope.selected {
            Cause::DeletedOrLeft
        } else {
            Cause::Deleted
        };
        match (r#type, decoded) {
            (EventType::Deleted, Ok(object)) => {
                self.writer
                    .delete(&object.key, Some(&object.uid), number, gone);
            }
            (
                EventType::Deleted,
                Err(DecodeError {
                    key: Some(key),
                    uid,
                    ..
                }),
            ) => {
                self.writer.delete(&key, uid.as_deref(), number, gone);
            }
            (_, Ok(object)) => {
                self.writer.upsert(Arc::new(object), number);
            }
            (_, Err(DecodeError { key: Some(key), .. })) => {
                self.writer.mark_stale(&key, number);
            }
            // Whatever it was, the shard goes on.
            (_, Err(_)) => self.writer.advance(number),
        }
        (self.dirty, self.proof) = (true, true);
        true
    }

    /// Whether a change that comes too late is news all the same, which cannot be where versions have an order.
    fn contradicts(&mut self, object: &Object) -> bool {
        self.flush();
        let state = self.writer.shard().state();
        let held = state.as_ref().and_then(|state| state.get(&object.key));
        held.is_some_and(|held| {
            held.uid() == object.uid() && version_number(&**held) < version_number(object)
        })
    }

    fn flush(&mut self) {
        let now = now();
        if std::mem::take(&mut self.proof) {
            self.writer.prove(now);
        }
        if std::mem::take(&mut self.dirty) {
            self.writer.publish(now);
        }
    }

    fn decode(&self, object: &[u8], received: u64) -> Result<Object, DecodeError> {
        match &self.served {
            Some(served) => served.decoder.decode(object, received),
            None => Err(DecodeError {
                message: "the kind is not served".to_owned(),
                key: None,
                uid: None,
                resource_version: None,
            }),
        }
    }

    fn complain(&mut self, error: &DecodeError) {
        use std::sync::atomic::Ordering;
        self.writer
            .shard()
            .counters
            .undecodable
            .fetch_add(1, Ordering::Relaxed);
        self.meters.undecodable.increment(1);
        let first = match &error.key {
            None => !std::mem::replace(&mut self.complained_of_unnamed, true),
            Some(key) => self.complaints.len() < COMPLAINTS && self.complaints.insert(key.clone()),
        };
        if first {
            tracing::warn!(%error, "cannot decode an object: what is cached of it stays, marked stale");
        }
    }

    fn garbled(&mut self, error: &decode::DecodeError) {
        self.flush();
        let fault = match error {
            decode::DecodeError::Partial => Fault::Cut,
            _ => Fault::Garbled,
        };
        self.step(Input::Failed(Failure::new(fault, error.to_string())));
    }

    /// The revision as the kind's versions are: with an order, or without.
    fn ordered(&self, revision: Revision) -> Revision {
        match revision {
            Revision::Number(number) if self.kind.is_unordered() => {
                Revision::Opaque(number.to_string().into())
            }
            Revision::Number(_) => revision,
            Revision::Opaque(_) => {
                self.unordered("a resource version is no decimal");
                revision
            }
        }
    }

    fn unordered(&self, why: &str) {
        if !self.kind.is_unordered() {
            tracing::warn!(why, "the resource versions of this kind have no order");
            self.kind.set_unordered();
        }
    }

    fn on_disorder(&mut self, now: Instant) {
        let before = self.disordered.replace(now);
        if before.is_some_and(|at| now.saturating_duration_since(at) < DISORDER_MEMORY) {
            self.unordered("events came out of order again");
        }
    }
}

fn whole_objects() -> Failure {
    Failure::new(
        Fault::Refused,
        "the API server sends whole objects though only metadata was asked for: set `metadataOnly: false` for this kind",
    )
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
