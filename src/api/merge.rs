//! The shards of one stream, merged: which of them is next, whole states that span several, and where the
//! consumer is complete.
//!
//! Invariant: within a reset, a catch-up or a batch only one shard is walked, so that what lies between two
//! tokens belongs together.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Error,
    consumers::Consumer,
    messages::Work,
    now,
    token::{Origin, Place},
    wait,
};
use crate::{
    cache::{
        self, Cursor, Doorbell, Item, Phase, Position, ResetReason, Resolution, Select, Shard,
        State, Step, Subscription, WakeScope,
    },
    planted::{self, Bug},
};

/// See the module's documentation.
#[derive(Debug)]
pub struct Merge<T> {
    /// What is read, for errors.
    resource: String,
    parts: Vec<Part<T>>,
    /// Where to look next.
    turn: usize,
    /// Inside a catch-up of the part whose turn it is.
    in_atom: bool,
    /// An atom was left in the middle: what was sent of it counts only with the whole state that is due.
    torn: bool,
    reset: Option<Reset>,
    fail_on_gap: bool,
    min_interval: Option<Duration>,
    bell: Arc<Doorbell>,
}

/// One shard.
#[derive(Debug)]
struct Part<T> {
    shard: Arc<Shard<T>>,
    /// How often it had been removed when the stream began.
    removals: u64,
    _subscription: Subscription,
    start: Start<T>,
    /// Where the consumer is complete; absent before its first state.
    position: Option<Position>,
    /// Until when nothing more is told of its objects, since some were.
    rests: Option<std::time::Instant>,
}

/// How far a part has come into being.
#[derive(Debug)]
enum Start<T> {
    /// To be looked up once the shard is complete.
    Token(Place),
    /// The token is ahead of the shard: since when, whether that was doubted, and what wakes us for each of its
    /// publications.
    Ahead {
        place: Place,
        since: Instant,
        doubted: bool,
        _every: Subscription,
    },
    /// To be sent as a whole.
    Nothing,
    /// Under way. `fresh` until its first step, which announces the state that is being sent anyway.
    Cursor { cursor: Cursor<T>, fresh: bool },
}

/// A whole state of one shard, or of several in one go.
#[derive(Debug)]
struct Reset {
    members: Vec<usize>,
    /// How many of them are through; `None` until all are complete and it is announced.
    through: Option<usize>,
    reason: ResetReason,
}

/// What comes next on the stream.
#[derive(Debug)]
pub enum Next<T> {
    /// Nothing, until somebody wakes us.
    Idle,
    /// A whole state follows of these shards; of all where empty.
    ResetBegin(ResetReason, Vec<String>),
    /// Events; once they are sent, [`Merge::reached`] is told the position, if any.
    Work(Work<T>, Option<Position>),
    /// The whole state is complete.
    ResetEnd(Vec<String>),
    /// A token has been ahead for too long: it may be of a time that never was, see [`Merge::settle`].
    Ahead(Ahead<T>),
}

/// A token that is ahead of a shard.
#[derive(Debug)]
pub struct Ahead<T> {
    part: usize,
    /// The token's revision.
    wanted: u64,
    /// The shard's revision.
    reached: u64,
    /// Which shard.
    pub shard: Arc<Shard<T>>,
    /// When that was seen first.
    pub since: Instant,
}

impl<T: Item> Merge<T> {
    /// Over these shards, from where a token stands, woken by changes in `scopes` when it is its turn. Parts that the token knows
    /// nothing of are sent as a whole, in one go, once all of them are complete.
    pub fn new(
        resource: &str,
        shards: Vec<Arc<Shard<T>>>,
        scopes: &[WakeScope],
        places: &[(String, Place)],
        fail_on_gap: bool,
        min_interval: Option<Duration>,
        (turn, bell): (u32, &Arc<Doorbell>),
    ) -> Self {
        let mut fresh = Vec::new();
        let mut parts = Vec::new();
        for shard in shards {
            let place = places
                .iter()
                .find(|(namespace, _)| namespace == shard.namespace());
            if place.is_none() {
                fresh.push(parts.len());
            }
            parts.push(Part {
                removals: shard.removals(),
                _subscription: shard.subscribe_in_turn(turn, scopes.to_vec(), bell),
                shard,
                start: place.map_or(Start::Nothing, |(_, place)| Start::Token(*place)),
                position: None,
                rests: None,
            });
        }
        Self {
            resource: resource.to_owned(),
            parts,
            turn: 0,
            in_atom: false,
            torn: false,
            reset: (!fresh.is_empty()).then_some(Reset {
                members: fresh,
                through: None,
                reason: ResetReason::Initial,
            }),
            fail_on_gap,
            min_interval,
            bell: bell.clone(),
        }
    }

    /// The shards and where the consumer is complete in them.
    pub fn positions(&self) -> impl Iterator<Item = (&Arc<Shard<T>>, Option<Position>)> {
        self.parts.iter().map(|part| (&part.shard, part.complete()))
    }

    /// The shards.
    pub fn shards(&self) -> impl Iterator<Item = &Arc<Shard<T>>> {
        self.parts.iter().map(|part| &part.shard)
    }

    /// Whether all that was given out is complete, so that a token may be given.
    pub fn is_complete(&self) -> bool {
        !self.in_atom
            && !self.torn
            && self
                .reset
                .as_ref()
                .is_none_or(|reset| reset.through.is_none())
    }

    /// The shard of the last [`Next::Work`].
    pub fn current(&self) -> Option<&Arc<Shard<T>>> {
        self.parts.get(self.turn).map(|part| &part.shard)
    }

    /// Where the consumer was complete in the shard of the last [`Next::Work`], before that.
    pub fn before(&self) -> Option<Position> {
        self.parts[self.turn].position
    }

    /// The consumer has been sent all up to here in the shard of the last [`Next::Work`].
    pub fn reached(&mut self, position: Position) {
        self.parts[self.turn].position = Some(position);
    }

    /// Whether [`Merge::give`] can be told from where the consumer stands in the shards that have any of it.
    pub fn can_give(&self, touches: impl Fn(&Shard<T>) -> bool) -> bool {
        let ready = |part: &Part<T>| match &part.start {
            Start::Nothing => true,
            Start::Token(_) | Start::Ahead { .. } => false,
            Start::Cursor { cursor, .. } => part.position.is_some_and(|at| cursor.can_rescope(at)),
        };
        self.is_complete()
            && self
                .parts
                .iter()
                .filter(|part| touches(&part.shard))
                .all(ready)
    }

    /// The consumer may have this again: it is told what there is of it. Only where [`Merge::can_give`] says so.
    pub fn give(&mut self, scope: &Arc<dyn Select<T>>, touches: impl Fn(&Shard<T>) -> bool) {
        for part in &mut self.parts {
            if touches(&part.shard) {
                part.rescope(scope, false);
            }
        }
    }

    /// The consumer may not have this any more: what it holds of it is taken back. Where something that was to be
    /// sent was `dropped`, and where what it holds cannot be told, it starts over.
    pub fn take(
        &mut self,
        scope: &Arc<dyn Select<T>>,
        touches: impl Fn(&Shard<T>) -> bool,
        dropped: bool,
    ) -> Result<(), Error> {
        if dropped || !self.is_complete() {
            for at in 0..self.parts.len() {
                if self.parts[at].has_begun() {
                    self.take_back_all(at)?;
                }
            }
            return Ok(());
        }
        for at in 0..self.parts.len() {
            let part = &mut self.parts[at];
            if touches(&part.shard) && part.has_begun() && !part.rescope(scope, true) {
                self.take_back_all(at)?;
            }
        }
        Ok(())
    }

    /// The part starts over; until it has, a token knows nothing of it, for what the consumer holds is not what it
    /// should.
    fn take_back_all(&mut self, at: usize) -> Result<(), Error> {
        self.parts[at].position = None;
        self.start_over(at, ResetReason::Revoked).map(drop)
    }

    /// What comes next, of about `budget` bytes of objects.
    pub fn next<S: Select<T> + ?Sized>(
        &mut self,
        select: &S,
        budget: usize,
        consumer: &Consumer,
        now: Instant,
    ) -> Result<Next<T>, Error> {
        // Every round either returns, or brings a part on.
        loop {
            self.look_up_all(consumer)?;
            if let Some(begin) = self.begin_reset(consumer) {
                return Ok(begin);
            }
            let (first, count) = self.candidates();
            let mut advanced = false;
            for by in 0..count {
                let at = (first + by) % self.parts.len();
                self.turn = at;
                match self.step(at, select, budget, consumer, now.into_std())? {
                    Stepped::Idle => {}
                    Stepped::Again => {
                        advanced = true;
                        break;
                    }
                    Stepped::Next(next) => return Ok(next),
                }
            }
            if advanced {
                continue;
            }
            if self.is_removed() {
                let status = self.parts[self.turn].shard.status();
                let message = match status.phase {
                    Phase::Removed => status.message.clone(),
                    _ => "another one has taken its place; begin anew".to_owned(),
                };
                return Err(Error::KindRemoved {
                    resource: self.resource.clone(),
                    message,
                });
            }
            return Ok(Next::Idle);
        }
    }

    /// The parts to look at, from which one and how many: the one that is being walked, else all in turn.
    fn candidates(&self) -> (usize, usize) {
        match &self.reset {
            Some(Reset {
                members,
                through: Some(through),
                ..
            }) => (members[*through], 1),
            _ if self.in_atom => (self.turn, 1),
            _ => (self.turn + 1, self.parts.len()),
        }
    }

    /// Announces the whole state that is due, once all of its shards are complete.
    fn begin_reset(&mut self, consumer: &Consumer) -> Option<Next<T>> {
        let reset = self
            .reset
            .as_mut()
            .filter(|reset| reset.through.is_none())?;
        if self.in_atom
            || !reset
                .members
                .iter()
                .all(|&at| servable(&self.parts[at].shard).is_some())
        {
            return None;
        }
        reset.through = Some(0);
        consumer.reset(reason_word(reset.reason));
        for &at in &reset.members {
            let part = &mut self.parts[at];
            let cursor = Cursor::start(reset.reason, now());
            consumer.hold(&part.shard, cursor.hold());
            part.start = Start::Cursor {
                cursor,
                fresh: true,
            };
        }
        let reset = self.reset.as_ref()?;
        Some(Next::ResetBegin(
            reset.reason,
            self.namespaces(&reset.members),
        ))
    }

    fn namespaces(&self, members: &[usize]) -> Vec<String> {
        if members.len() == self.parts.len() {
            return Vec::new();
        }
        members
            .iter()
            .map(|&at| self.parts[at].shard.namespace().to_owned())
            .collect()
    }

    fn step<S: Select<T> + ?Sized>(
        &mut self,
        at: usize,
        select: &S,
        budget: usize,
        consumer: &Consumer,
        now: std::time::Instant,
    ) -> Result<Stepped<T>, Error> {
        let rest = self.min_interval.map(|interval| now + interval);
        let part = &mut self.parts[at];
        let removed = part.is_removed();
        let (cursor, fresh) = match &mut part.start {
            Start::Nothing => return Ok(Stepped::Idle),
            Start::Token(_) | Start::Ahead { .. } => return self.look_up(at, consumer),
            Start::Cursor { cursor, fresh } => (cursor, fresh),
        };
        let (last, peeked);
        let state: &Arc<State<T>> = if removed {
            // What went with the kind is still to be told.
            last = part.shard.last_state();
            &last
        } else if let Some(state) = part.shard.peek() {
            peeked = state;
            &peeked
        } else {
            return Ok(Stepped::Idle);
        };
        if !removed && part.rests.is_some_and(|until| now < until) {
            cursor.touch(now);
            return Ok(Stepped::Idle);
        }
        part.rests = None;
        let step = cursor.step(state, select, budget, now);
        Ok(match step {
            Step::Idle => {
                // Bookmarks move on what has no events.
                part.position = Some(state.position());
                Stepped::Idle
            }
            Step::Reset(_) if std::mem::take(fresh) => Stepped::Again,
            Step::Reset(reason) => return self.start_over(at, reason),
            Step::Items { revision, items } => {
                let work = Work::Items {
                    revision,
                    items,
                    at: 0,
                };
                Stepped::Next(Next::Work(work, None))
            }
            Step::ResetEnd(position) => {
                part.position = Some(position);
                part.rests = rest;
                self.end_of_part()
            }
            Step::Shared { state, from } => {
                let position = state.position();
                part.rests = rest;
                Stepped::Next(Next::Work(Work::Shared { state, from }, Some(position)))
            }
            Step::Events { batch, position } => {
                let told = std::mem::replace(&mut self.in_atom, position.is_none());
                // Where the atom's end has no events of its own, those before it still wait for their mark.
                if batch.events.is_empty() && !(told && position.is_some()) {
                    part.position = position.or(part.position);
                    return Ok(Stepped::Again);
                }
                if position.is_some() {
                    part.rests = rest;
                }
                Stepped::Next(Next::Work(Work::Events { batch, at: 0 }, position))
            }
        })
    }

    fn end_of_part(&mut self) -> Stepped<T> {
        let Some(reset) = &mut self.reset else {
            return Stepped::Again;
        };
        let through = reset.through.map_or(0, |through| through + 1);
        reset.through = Some(through);
        if through < reset.members.len() {
            return Stepped::Again;
        }
        let members = std::mem::take(&mut reset.members);
        self.reset = None;
        self.torn = false;
        Stepped::Next(Next::ResetEnd(self.namespaces(&members)))
    }

    /// The part cannot go on. In the middle of a whole state that one begins anew, with all its parts.
    fn start_over(&mut self, at: usize, reason: ResetReason) -> Result<Stepped<T>, Error> {
        let announced = self
            .reset
            .as_ref()
            .is_some_and(|reset| reset.through.is_some());
        if self.fail_on_gap && !announced {
            return Err(Error::Gap {
                reason: reason_word(reason),
            });
        }
        self.torn |= self.in_atom || announced;
        self.in_atom = false;
        let mut members = self
            .reset
            .take()
            .map_or_else(Vec::new, |reset| reset.members);
        if !members.contains(&at) {
            members.push(at);
            members.sort_unstable();
        }
        for &member in &members {
            // Nothing is sent of it before all of them can be announced.
            self.parts[member].start = Start::Nothing;
            self.parts[member].rests = None;
        }
        self.reset = Some(Reset {
            members,
            through: None,
            reason,
        });
        Ok(Stepped::Again)
    }

    /// Finds out where the token leads in each shard, as far as that can be known, before anything is told of any: a
    /// token that were given before could not say where the others are.
    fn look_up_all(&mut self, consumer: &Consumer) -> Result<(), Error> {
        let announced = self
            .reset
            .as_ref()
            .is_some_and(|reset| reset.through.is_some());
        if self.in_atom || announced {
            return Ok(());
        }
        for at in 0..self.parts.len() {
            if matches!(self.parts[at].start, Start::Token(_)) {
                self.look_up(at, consumer)?;
            }
        }
        Ok(())
    }

    /// Finds out what a token means here, once the shard is complete.
    fn look_up(&mut self, at: usize, consumer: &Consumer) -> Result<Stepped<T>, Error> {
        let part = &mut self.parts[at];
        let Some(state) = servable(&part.shard) else {
            return Ok(Stepped::Idle);
        };
        let (place, since) = match &part.start {
            Start::Token(place) => (*place, None),
            Start::Ahead {
                place,
                since,
                doubted,
                ..
            } => (*place, Some((*since, *doubted))),
            Start::Nothing | Start::Cursor { .. } => return Ok(Stepped::Idle),
        };
        let reason = match resolve(&place, &state) {
            Resolution::At(sequence) => {
                let again = u64::from(planted::is(Bug::DuplicateAfterResume));
                let position = Position {
                    history: state.history,
                    sequence: sequence.saturating_sub(again),
                    ..place.position
                };
                let cursor = Cursor::resume(position, now());
                consumer.hold(&part.shard, cursor.hold());
                part.position = Some(position);
                part.start = Start::Cursor {
                    cursor,
                    fresh: false,
                };
                return Ok(Stepped::Again);
            }
            Resolution::Ahead => {
                let (since, doubted) = since.unwrap_or_else(|| (Instant::now(), false));
                let doubt = !doubted && since.elapsed() >= wait::VERSION;
                let ahead = Ahead {
                    part: at,
                    wanted: place.position.revision,
                    reached: state.revision,
                    shard: part.shard.clone(),
                    since,
                };
                if doubt || matches!(part.start, Start::Token(_)) {
                    part.start = Start::Ahead {
                        place,
                        since,
                        doubted: doubt,
                        _every: part.shard.subscribe(Vec::new(), &self.bell),
                    };
                }
                return Ok(match doubt {
                    true => Stepped::Next(Next::Ahead(ahead)),
                    false => Stepped::Idle,
                });
            }
            Resolution::Past => ResetReason::PastJournal,
            Resolution::Differs if place.origin == Origin::Here => ResetReason::HistoryVoid,
            Resolution::Differs => ResetReason::HistoryDiffers,
        };
        self.start_over(at, reason)
    }

    /// What the API server says of a token that is ahead: its revision, if it could be asked. Where that is behind
    /// the token, too, it went back, and what the token stands for is void. Else the shard is late, and another
    /// replica may not be.
    pub fn settle(&mut self, ahead: &Ahead<T>, revision: Option<u64>) -> Result<(), Error> {
        if !matches!(self.parts[ahead.part].start, Start::Ahead { .. }) {
            // The shard came there meanwhile.
            return Ok(());
        }
        match revision {
            Some(revision) if revision < ahead.wanted => self
                .start_over(ahead.part, ResetReason::HistoryVoid)
                .map(drop),
            _ => Err(Error::TokenAhead {
                reached: ahead.reached,
            }),
        }
    }

    /// When to look again although nobody wakes us: a token that is ahead is waited for only so long, and what
    /// changed while its object rested is told after that.
    pub fn look_again(&self) -> Option<Instant> {
        let again = self.parts.iter().filter_map(|part| match &part.start {
            Start::Ahead {
                since,
                doubted: false,
                ..
            } => Some(*since + wait::VERSION),
            Start::Cursor { .. } => part.rests.map(Instant::from_std),
            _ => None,
        });
        again.min()
    }

    /// Whether the kind is gone and the consumer, which had some of it, knows all about that.
    fn is_removed(&self) -> bool {
        let served =
            |part: &Part<T>| matches!(part.start, Start::Cursor { .. }) || part.position.is_some();
        self.parts.iter().any(served) && self.parts.iter().all(Part::is_removed)
    }
}

impl<T: Item> Part<T> {
    /// Where the consumer is complete.
    fn complete(&self) -> Option<Position> {
        if planted::is(Bug::BookmarkEarly)
            && self.position.is_some()
            && let Some(state) = self.shard.peek()
        {
            return Some(state.position());
        }
        self.position
    }

    /// Whether the consumer may hold something of it.
    fn has_begun(&self) -> bool {
        !matches!(self.start, Start::Nothing)
    }

    /// Tells what is taken back or given, if the consumer stands where that can be told. Until it has been, it is
    /// complete nowhere.
    fn rescope(&mut self, scope: &Arc<dyn Select<T>>, taken: bool) -> bool {
        let Start::Cursor { cursor, .. } = &mut self.start else {
            return false;
        };
        let scope = scope.clone();
        let done = self
            .position
            .is_some_and(|at| cursor.rescope(cache::Part { scope, taken }, at));
        if done {
            self.position = None;
            self.rests = None;
        }
        done
    }

    /// Whether the kind was removed since the stream began, be it back by now.
    fn is_removed(&self) -> bool {
        self.shard.removals() != self.removals
    }
}

/// What a step of one part came to.
enum Stepped<T> {
    Idle,
    /// Something moved; look again.
    Again,
    Next(Next<T>),
}

/// The state of a shard that can be served: complete, and of a kind that still exists.
pub fn servable<T: Item>(shard: &Shard<T>) -> Option<Arc<State<T>>> {
    shard.state().filter(|_| shard.phase() != Phase::Removed)
}

/// What a token's place means in this state.
fn resolve<T: Item>(place: &Place, state: &State<T>) -> Resolution {
    let position = &place.position;
    match place.origin {
        Origin::Here
            if position.history == state.history && position.sequence <= state.sequence =>
        {
            Resolution::At(position.sequence)
        }
        Origin::Here | Origin::OtherConfig => Resolution::Differs,
        Origin::Replica => state.resolve(position),
    }
}

/// As marks and errors say it.
pub fn reason_word(reason: ResetReason) -> &'static str {
    match reason {
        ResetReason::Initial => "INITIAL",
        ResetReason::PastJournal => "PAST_JOURNAL",
        ResetReason::HistoryDiffers => "HISTORY_DIFFERS",
        ResetReason::HistoryGap => "HISTORY_GAP",
        ResetReason::HistoryVoid => "HISTORY_VOID",
        ResetReason::Stalled => "STALLED",
        ResetReason::Revoked => "REVOKED",
    }
}
