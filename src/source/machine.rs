//! The list/watch state machine of one shard: what to ask of the API server next, and what to do with the answer.
//!
//! It decides and does nothing else: no I/O, no clock, chance from a seed, so that each way an API server can
//! misbehave is a few lines of a test. kube's `watcher` was refused because one undecodable object, a mute server
//! or an HTTP 410 stops it for good, and because it hides bookmarks, without which nobody knows how old the cache is.
//!
//! What is to be done lives in two fields: `check` (is this still the history that we know?) and `need` (a list,
//! and why). Whatever happens only sets these; [`Machine::proceed`] asks for the first that is set, and watches
//! when neither is.
//!
//! Invariant: a watch is opened only from the revision of a complete list. Invariant: a list is published only
//! when its last page or its end mark is here; one that is cut is forgotten.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use fastrand::Rng;

use super::{
    backoff::Backoff,
    failure::{Failure, Fault},
    request::{ListFrom, Request, Revision},
    words::{Data, Input, Io, ListCause, Listing, Open, Report, Settings, State, Step},
};
use crate::{
    cache::{History, Phase},
    config::ListStrategy,
    planted::{self, Bug},
};

/// A server that refused to stream is asked again, though nobody saw that it was upgraded.
const STREAM_RETRY: Duration = Duration::from_secs(3600);
/// Streams that fail before a list is read in pages after all.
const STREAM_TRIES: u32 = 2;
/// A watch that ends by itself within this, having told nothing, has failed.
const SHORT: Duration = Duration::from_secs(1);
/// How far from what was asked for a watch may end.
const TIMEOUT_SLACK: Duration = Duration::from_secs(5);
/// How much longer than asked for a watch may last.
const OVERSTAY: Duration = Duration::from_secs(30);
/// A revision that expires so soon after its list will do so again.
const SOON: Duration = Duration::from_secs(10);
/// Watches are opened again with new credentials within this, not all at once.
const RENEWAL_SPREAD: Duration = Duration::from_secs(5);
/// The same failure at one place, without progress, that is not worth trying again.
const STUCK: u32 = 2;
/// As long as the API server may ask for a moment before that is called trouble, and how often.
const MOMENT: Duration = Duration::from_secs(2);
const MOMENTS: u32 = 4;
/// How often a suspicion is looked into.
const SUSPICION_INTERVAL: Duration = Duration::from_secs(60);

/// A list that is needed, until it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Need {
    cause: ListCause,
    from: From,
    paged: bool,
    expired: u32,
    too_new: u32,
    streams: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Any,
    MostRecent,
    NotOlderThanOurs,
}

/// Why the API server's revision is to be compared with ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// After an error, a reset or silence.
    Reconnect,
    /// It is the second silence in a row: if it is not the history, list anew.
    Silent,
    /// It keeps saying that our revision is of the future.
    TooNew,
    /// It told what cannot be.
    Suspect,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    rng: Rng,
    state: State,
    since: Instant,
    report: Report,
    served: bool,
    used: bool,
    /// Until when a kind without users is watched.
    idle_until: Option<Instant>,
    /// The shard is complete, and served.
    synced: bool,
    /// The kind was there, and went.
    removed: bool,
    /// Up to where the shard is known; set by the first complete list.
    revision: Option<Revision>,
    need: Option<Need>,
    check: Option<Check>,
    /// A probe found that the history is another one.
    new_history: bool,
    listed: Option<Instant>,
    streams_refused: Option<Instant>,
    backoff: Backoff,
    /// The kind sends bookmarks.
    bookmarks: bool,
    unproven: bool,
    /// When the list that is read was asked for.
    asked: Option<Instant>,
    silences: u32,
    shorts: u32,
    /// Failures in a row that the API server said would pass in a moment.
    moments: u32,
    stuck: u32,
    /// What was wrong, while backing off.
    fault: Option<Fault>,
    suspected: Option<Instant>,
    /// When to open the watch again, with new credentials.
    reopen: Option<Instant>,
    /// Lists that became needed since the driver looked last.
    begun: Vec<ListCause>,
    /// What failed since then.
    failed: Vec<Fault>,
}

impl Need {
    fn new(cause: ListCause, from: From) -> Self {
        Self {
            cause,
            from,
            paged: true,
            expired: 0,
            too_new: 0,
            streams: 0,
        }
    }
}

impl Machine {
    /// One that waits for [`Input::Served`]. The same seed and inputs give the same steps.
    pub fn new(settings: Settings, seed: u64, now: Instant) -> Self {
        Self {
            settings,
            rng: Rng::with_seed(seed),
            state: State::Waiting,
            since: now,
            report: Report::starting(),
            served: false,
            used: false,
            idle_until: None,
            synced: false,
            removed: false,
            revision: None,
            need: None,
            check: None,
            new_history: false,
            listed: None,
            streams_refused: None,
            backoff: Backoff::default(),
            bookmarks: false,
            unproven: false,
            asked: None,
            silences: 0,
            shorts: 0,
            moments: 0,
            stuck: 0,
            fault: None,
            suspected: None,
            reopen: None,
            begun: Vec::new(),
            failed: Vec::new(),
        }
    }

    /// What it is doing.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Since when.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// How well the shard is known, and why not better.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Whether the kind proves nothing between events, as far as is known.
    pub fn is_unproven(&self) -> bool {
        self.unproven
    }

    /// Causes of the lists that became needed since the last call.
    pub fn take_begun(&mut self) -> Vec<ListCause> {
        std::mem::take(&mut self.begun)
    }

    /// What failed since the last call.
    pub fn take_failed(&mut self) -> Vec<Fault> {
        std::mem::take(&mut self.failed)
    }

    /// When to send [`Input::Tick`]; `None` only while waiting.
    pub fn deadline(&self) -> Option<Instant> {
        let timing = &self.settings.timing;
        match &self.state {
            State::Waiting => None,
            State::BackingOff(until) => Some(*until),
            State::Listing(Listing { open, .. })
            | State::Streaming(open)
            | State::Probing(open) => {
                let patience = if open.opened.is_some() {
                    timing.body_patience
                } else {
                    timing.header_patience
                };
                Some(open.heard + patience)
            }
            State::Watching(open) => {
                let Some(opened) = open.opened else {
                    return Some(open.heard + timing.header_patience);
                };
                let silence = if self.bookmarks {
                    let noticed = !planted::is(Bug::HalfOpenUnnoticed);
                    noticed.then(|| open.heard + timing.bookmark_patience)
                } else {
                    (!self.unproven).then(|| opened + timing.bookmark_patience)
                };
                let idle = self
                    .idle_until
                    .filter(|_| !self.settings.eager && !self.used);
                [silence, idle, self.reopen]
                    .into_iter()
                    .flatten()
                    .chain([opened + open.asked + OVERSTAY])
                    .min()
            }
        }
    }

    /// Takes in what happened; says what to do.
    pub fn step(&mut self, input: Input, now: Instant) -> Step {
        match input {
            Input::Served => self.on_served(now),
            Input::Changed => self.on_changed(now),
            Input::Gone => self.on_gone(now),
            Input::Absent { known, why } => self.on_absent(known, &why),
            Input::Used => self.on_used(now),
            Input::Unused => {
                if self.used {
                    self.used = false;
                    self.idle_until = Some(now + self.settings.timing.idle);
                }
                Step::keep()
            }
            Input::Found => self.on_found(now),
            Input::Upgraded => {
                self.streams_refused = None;
                Step::keep()
            }
            Input::Renewed => self.on_renewed(now),
            Input::Tick => self.on_tick(now),
            Input::Opened => self.on_opened(now),
            Input::Failed(failure) => self.on_failed(failure, now),
            Input::Ended { whole } => self.on_ended(whole, now),
            Input::Bytes => {
                self.heard(now);
                Step::keep()
            }
            Input::Page { revision, next } => self.on_page(revision, next, now),
            Input::Change(revision) => self.on_change(revision, now),
            Input::Bookmark(revision) => self.on_bookmark(revision, now),
            Input::EndMark(revision) => self.on_end_mark(revision, now),
            Input::Probed(revision) => self.on_probed(&revision, now),
            Input::Suspect => self.on_suspect(now),
        }
    }

    fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
    }

    fn say(
        &mut self,
        phase: Phase,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) {
        self.report = Report {
            phase,
            reason: reason.into(),
            message: message.into(),
        };
    }

    fn heard(&mut self, now: Instant) {
        if let Some(open) = self.state.open() {
            open.heard = now;
        }
    }

    fn wanted(&self, now: Instant) -> bool {
        self.settings.eager || self.used || self.idle_until.is_some_and(|until| now < until)
    }

    fn need(&mut self, cause: ListCause, from: From) {
        self.check = None;
        self.begun.push(cause);
        self.need = Some(Need::new(cause, from));
    }

    /// Asks for whatever comes next.
    fn proceed(&mut self, now: Instant) -> Io {
        self.reopen = None;
        if self.check.is_some() {
            self.enter(State::Probing(Open::sent(now, Duration::ZERO)), now);
            return Io::Send(Request::Probe);
        }
        match (&self.need, &self.revision) {
            (None, Some(revision)) => {
                let revision = revision.clone();
                let asked = self.watch_timeout();
                self.enter(State::Watching(Open::sent(now, asked)), now);
                Io::Send(Request::Watch {
                    revision,
                    timeout_seconds: asked.as_secs(),
                })
            }
            (None, None) => {
                let first = if self.settings.any {
                    From::Any
                } else {
                    From::MostRecent
                };
                self.need(ListCause::Initial, first);
                self.list(now)
            }
            (Some(_), _) => self.list(now),
        }
    }

    /// Begins, or begins anew, the list that is needed.
    fn list(&mut self, now: Instant) -> Io {
        let Some(need) = &self.need else {
            return Io::Keep;
        };
        // What is read in pages is current when the first one is asked for.
        self.asked = Some(now);
        let (cause, paged, streams) = (need.cause, need.paged, need.streams);
        let from = match (need.from, &self.revision) {
            (From::Any, _) => ListFrom::Any,
            (From::NotOlderThanOurs, Some(revision)) => ListFrom::NotOlderThan(revision.clone()),
            (From::MostRecent | From::NotOlderThanOurs, _) => ListFrom::MostRecent,
        };
        // While something is wrong it stays on show until the API server answers.
        if self.fault.is_none() {
            self.say_listing(cause);
        }
        let refused = self
            .streams_refused
            .is_some_and(|at| now.saturating_duration_since(at) < STREAM_RETRY);
        let stream = match self.settings.strategy {
            ListStrategy::WatchList => true,
            ListStrategy::Paged => false,
            // From the watch cache, all at once is cheap enough.
            ListStrategy::Auto => from != ListFrom::Any && !refused && streams < STREAM_TRIES,
        };
        if stream {
            let asked = self.watch_timeout();
            self.enter(State::Streaming(Open::sent(now, asked)), now);
            return Io::Send(Request::Stream {
                from,
                timeout_seconds: asked.as_secs(),
            });
        }
        // A limit makes the API server forget resourceVersion=0.
        let limit = (paged && from != ListFrom::Any).then_some(self.settings.page_size);
        self.enter(
            State::Listing(Listing {
                open: Open::sent(now, Duration::ZERO),
                revision: None,
            }),
            now,
        );
        Io::Send(Request::List { from, limit })
    }

    fn say_listing(&mut self, cause: ListCause) {
        let phase = if self.synced {
            Phase::Relisting
        } else {
            Phase::Syncing
        };
        let (reason, message) = cause.report();
        self.say(phase, reason, message);
    }

    fn watch_timeout(&mut self) -> Duration {
        let timing = &self.settings.timing;
        let range = if self.unproven {
            &timing.unproven_timeout
        } else {
            &timing.watch_timeout
        };
        let (low, high) = (range.start(), range.end());
        Duration::from_secs(
            self.rng
                .u64(low.as_secs()..=high.as_secs().max(low.as_secs()))
                .max(1),
        )
    }

    fn on_opened(&mut self, now: Instant) -> Step {
        if let Some(open) = self.state.open() {
            open.heard = now;
            open.opened.get_or_insert(now);
        }
        match &self.state {
            State::Watching(_) => self.live(now),
            State::Listing(_) | State::Streaming(_) => {
                self.fault = None;
                if let Some(cause) = self.need.as_ref().map(|need| need.cause) {
                    self.say_listing(cause);
                }
            }
            State::Waiting | State::Probing(_) | State::BackingOff(_) => {}
        }
        Step::keep()
    }

    fn live(&mut self, now: Instant) {
        self.fault = None;
        self.moments = 0;
        self.backoff.healthy(now);
        self.say(Phase::Live, "", "");
    }

    fn on_tick(&mut self, now: Instant) -> Step {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Step::keep();
        }
        match self.state.clone() {
            State::Waiting => Step::keep(),
            State::BackingOff(_) if self.wanted(now) => Step {
                data: Data::Keep,
                io: self.proceed(now),
            },
            State::BackingOff(_) => self.stop(now),
            State::Streaming(open)
                if open.opened.is_some() && self.settings.strategy == ListStrategy::Auto =>
            {
                // It took the request for that of a plain watch, or cannot end what it began.
                self.streams_refused = Some(now);
                Step {
                    data: Data::Discard,
                    io: self.list(now),
                }
            }
            State::Listing(Listing { open, .. })
            | State::Streaming(open)
            | State::Probing(open) => {
                let message = match open.opened {
                    Some(_) => "the API server stopped in the middle of its response",
                    None => "the API server sent no response headers in time",
                };
                self.on_failed(Failure::new(Fault::Timeout, message), now)
            }
            State::Watching(open) => self.on_watch_tick(&open, now),
        }
    }

    fn on_watch_tick(&mut self, open: &Open, now: Instant) -> Step {
        let patience = self.settings.timing.bookmark_patience;
        let Some(opened) = open.opened else {
            let message = "the API server sent no response headers in time";
            return self.on_failed(Failure::new(Fault::Timeout, message), now);
        };
        if !self.wanted(now) {
            return self.stop(now);
        }
        if self.bookmarks && now >= open.heard + patience {
            self.silences += 1;
            self.check_history(if self.silences < STUCK {
                Check::Reconnect
            } else {
                Check::Silent
            });
            let message =
                format!("nothing heard for {patience:?}, not even a bookmark: reconnecting");
            self.say(Phase::BackingOff, "Silent", message);
            return Step {
                data: Data::Keep,
                io: self.proceed(now),
            };
        }
        let overstayed = now >= opened + open.asked + OVERSTAY;
        if overstayed || self.reopen.is_some_and(|at| now >= at) {
            // New credentials may lead to another server.
            self.check_history(Check::Reconnect);
            return Step {
                data: Data::Keep,
                io: self.proceed(now),
            };
        }
        // Its revision ages from now on, unless the API server is asked.
        self.unproven = true;
        self.check_history(Check::Reconnect);
        Step {
            data: Data::Unproven,
            io: self.proceed(now),
        }
    }

    /// Before anything else, compare revisions; where they cannot be compared, there is nothing to find out,
    /// and what a failed comparison would have led to is done at once.
    fn check_history(&mut self, check: Check) {
        match (&self.revision, check) {
            (Some(Revision::Number(_)), _) => self.check = Some(check),
            (_, Check::Silent) => self.need(ListCause::Silent, From::MostRecent),
            (_, Check::Suspect) => self.need(ListCause::Disordered, From::MostRecent),
            (_, Check::Reconnect | Check::TooNew) => {}
        }
    }

    fn on_page(&mut self, revision: Revision, next: Option<String>, now: Instant) -> Step {
        let State::Listing(listing) = &mut self.state else {
            return Step::keep();
        };
        let revision = listing.revision.get_or_insert(revision).clone();
        let Some(token) = next.filter(|_| !planted::is(Bug::PartialListPublished)) else {
            return self.publish(revision, None, now);
        };
        listing.open = Open::sent(now, Duration::ZERO);
        let paged = self.need.as_ref().is_some_and(|need| need.paged);
        let limit = paged.then_some(self.settings.page_size);
        Step {
            data: Data::Keep,
            io: Io::Send(Request::Continue { token, limit }),
        }
    }

    fn on_end_mark(&mut self, revision: Revision, now: Instant) -> Step {
        self.heard(now);
        match &self.state {
            State::Streaming(open) => {
                let open = open.clone();
                self.publish(revision, Some(open), now)
            }
            // Nothing that a watch begins with: as good as a bookmark, but no promise of more.
            State::Watching(_) if self.moves(&revision) => {
                self.revision = Some(revision);
                Step::data(Data::Apply)
            }
            _ => Step::keep(),
        }
    }

    /// A list is complete; `open` is the connection that goes on from it.
    fn publish(&mut self, revision: Revision, open: Option<Open>, now: Instant) -> Step {
        let behind = self.went_back(&revision);
        if let Some(need) = &mut self.need
            && behind
            && need.from == From::NotOlderThanOurs
        {
            // It is older than asked for, which says nothing about the history.
            need.from = From::MostRecent;
            return Step {
                data: Data::Discard,
                io: self.list(now),
            };
        }
        // The most recent list of all, older than what we have: that is a history of its own.
        let history = if self.new_history || behind {
            History::New
        } else {
            History::Same
        };
        // That of a stream is current at its end.
        let current = if open.is_some() {
            Some(now)
        } else {
            self.asked
        };
        let any = self
            .need
            .as_ref()
            .is_some_and(|need| need.from == From::Any);
        let proven = current.filter(|_| !any);
        self.revision = Some(revision.clone());
        (self.need, self.check, self.new_history, self.synced) = (None, None, false, true);
        (self.silences, self.stuck, self.shorts) = (0, 0, 0);
        self.listed = Some(now);
        self.live(now);
        let data = Data::Publish {
            revision,
            history,
            proven,
        };
        match open {
            Some(open) => {
                self.enter(State::Watching(open), now);
                Step::data(data)
            }
            None => Step {
                data,
                io: self.proceed(now),
            },
        }
    }

    /// Whether `revision` is not behind ours.
    fn moves(&self, revision: &Revision) -> bool {
        match (&self.revision, revision) {
            (Some(Revision::Number(ours)), Revision::Number(new)) => new >= ours,
            _ => true,
        }
    }

    /// Whether the API server, which is at `revision`, has gone back behind ours.
    fn went_back(&self, revision: &Revision) -> bool {
        !self.moves(revision) && !planted::is(Bug::HistoryIgnored)
    }

    fn on_change(&mut self, revision: Option<Revision>, now: Instant) -> Step {
        self.heard(now);
        match &mut self.state {
            State::Streaming(_) => Step::data(Data::Fold),
            State::Watching(open) => {
                open.changes += 1;
                self.silences = 0;
                if let Some(revision) = revision.filter(|revision| self.moves(revision)) {
                    if self.revision.as_ref() != Some(&revision) {
                        self.stuck = 0;
                    }
                    self.revision = Some(revision);
                }
                Step::data(Data::Apply)
            }
            _ => Step::keep(),
        }
    }

    fn on_bookmark(&mut self, revision: Revision, now: Instant) -> Step {
        self.heard(now);
        if !matches!(self.state, State::Watching(_)) {
            return Step::keep();
        }
        if !self.moves(&revision) {
            return self.on_suspect(now);
        }
        (self.bookmarks, self.unproven, self.silences) = (true, false, 0);
        self.revision = Some(revision);
        Step::data(Data::Apply)
    }

    fn on_suspect(&mut self, now: Instant) -> Step {
        let lately = self
            .suspected
            .is_some_and(|at| now.saturating_duration_since(at) < SUSPICION_INTERVAL);
        if lately || !matches!(self.state, State::Watching(_)) {
            return Step::keep();
        }
        self.suspected = Some(now);
        self.check_history(Check::Suspect);
        Step {
            data: Data::Keep,
            io: self.proceed(now),
        }
    }

    fn on_probed(&mut self, revision: &Revision, now: Instant) -> Step {
        if !matches!(self.state, State::Probing(_)) {
            return Step::keep();
        }
        let check = self.check.take();
        if self.went_back(revision) {
            self.new_history = true;
            self.need(ListCause::History, From::MostRecent);
        } else {
            match check {
                Some(Check::Silent) => self.need(ListCause::Silent, From::NotOlderThanOurs),
                Some(Check::Suspect) => self.need(ListCause::Disordered, From::MostRecent),
                Some(Check::TooNew) => {
                    if let Some(need) = &mut self.need {
                        need.from = From::MostRecent;
                    }
                }
                Some(Check::Reconnect) | None => {}
            }
        }
        Step {
            data: Data::Keep,
            io: self.proceed(now),
        }
    }
}

mod around;
mod failed;

#[cfg(test)]
mod tests;
