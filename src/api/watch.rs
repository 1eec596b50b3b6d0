//! WatchObjects: one stream, from its request to its last mark.
//!
//! A [`Watch`] is pulled by the connection: whenever there is room for more it is asked for its next bytes, and
//! takes them from its cursors. So nothing queues up for a consumer that does not read, and nobody waits for it.

use std::{
    collections::{BTreeSet, VecDeque},
    mem,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use http_body::Frame;
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::{Instant, Sleep, sleep_until},
};
use tonic::{Status, body::Body};

use super::{
    Api, Error,
    access::{Admitted, Asking, Held},
    ask::{self, Ask},
    caller,
    consumers::{Asked, Registration},
    encode::{self, Encoder},
    flush::{self, Due, Flush},
    freshness,
    grants::Turn,
    merge::{Ahead, Merge, Next, reason_word, servable},
    messages::{self, Work},
    now,
    query::{self, Query},
    token::{Token, TokenPosition},
    told::Told,
    wait,
};
use crate::{
    auth::{Room, Snapshot, Verb},
    cache::{
        Doorbell, Identity, Kind, Phase, Position, Select, Shard, Status as ShardStatus,
        Subscription, Use,
    },
    object::Object,
    proof::Prover,
    proto::{self, MarkType},
    shutdown::Notice,
};

/// Up to this size events are sent in one frame with the mark behind them, at the price of a copy.
const COALESCE: usize = 16 << 10;
/// Most namespaces of a stream that outlives the loss of some: each right is looked for by itself.
const MAX_PARTS: usize = 64;
/// How much is made at once for a caller that does not read.
const TIGHT: usize = 16 << 10;
/// How often a stream looks where its shards are, however seldom it wants to hear of it. Far below the time
/// after which what a consumer holds is taken away.
const ADVANCE: Duration = Duration::from_secs(10);

/// Answers a WatchObjects call.
pub async fn respond(api: Api, request: http::Request<Body>) -> http::Response<Body> {
    match open(api, request).await {
        Ok(watch) => {
            let body = http_body_util::StreamBody::new(watch.frames());
            let mut response = http::Response::new(Body::new(body));
            let content_type = http::HeaderValue::from_static("application/grpc");
            response
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, content_type);
            response
        }
        Err(status) => status.into_http(),
    }
}

async fn open(api: Api, request: http::Request<Body>) -> Result<Watch, Status> {
    let deadline = wait::deadline(request.headers());
    let user_agent = request.headers().get(http::header::USER_AGENT);
    let caller = caller(
        request.extensions(),
        user_agent.and_then(|value| value.to_str().ok()),
    );
    let asking = Asking::of(request.extensions());
    let request = ask::read(request).await?;
    let ask = Ask::new(&request)?;
    let scope = request.scope.clone().unwrap_or_default();
    if ask.retract && scope.namespaces.len() > MAX_PARTS {
        let problem = format!(
            "ON_REVOKE_RETRACT looks at the right to each namespace by itself, of {MAX_PARTS} at most; name fewer, or \
             none for all"
        );
        return Err(Error::invalid("on_revoke", problem).into());
    }
    let withheld = withheld(&request, &ask, &scope)?;
    let none = BTreeSet::new();
    let may_lack = if ask.retract { &withheld } else { &none };
    let admitted = api.admit_parts(&asking, Verb::Watch, &scope, may_lack);
    let (mut admitted, lacking) = admitted.await?;
    let held = match ask.retract {
        true => admitted.hold_parts(&scope, &lacking),
        false => admitted.hold(),
    };
    let kind = query::find_kind(&api, &scope)?;
    let asked = Asked {
        scope,
        view: request.view,
        fields: request.fields.clone(),
    };
    let bookmark_at = Instant::now()
        + ask
            .bookmark_interval
            .unwrap_or(api.0.settings.bookmark_interval);
    let bell: Arc<Doorbell> = Arc::default();
    let drained = bell.clone();
    let mut watch = Watch {
        used: kind.enter(),
        registration: api
            .0
            .consumers
            .enter("WatchObjects", caller, Some(kind.clone()), asked),
        now: Instant::now(),
        draining: api.0.shutdown.notice(move || {
            drained.ring();
        }),
        held,
        snapshot: None,
        has_told: false,
        given: withheld.difference(&lacking).cloned().collect(),
        withheld,
        turned: None,
        admitted,
        asking,
        bell,
        waiting: Vec::new(),
        stream: None,
        doubts: Vec::new(),
        out: VecDeque::new(),
        bookmark_at,
        alarm: Box::pin(sleep_until(bookmark_at)),
        told: None,
        seen: Vec::new(),
        end: End::No,
        api,
        kind,
        ask,
        resumes: !request.token.is_empty(),
        request,
    };
    if !watch.request.min_resource_version.is_empty() {
        // Which shard's version that is can only be told once the kind is known.
        wait::identity(&watch.kind, wait::capped(wait::SYNC, deadline)).await?;
    }
    // What is wrong with the request is said at once, where that can be known.
    if watch.begin()?
        && let Some(stream) = &watch.stream
    {
        wait::version(&stream.query, &watch.request.min_resource_version, deadline).await?;
    }
    // Where it begins with the state that there is. One that waits for a first state walks the same as all who do.
    if !watch.resumes && watch.shards().all(|shard| servable(shard).is_some()) {
        watch.snapshot = watch.asking.snapshot()?;
    }
    Ok(watch)
}

/// Parts of the scope that were withheld when the token was given: the consumer has nothing of them.
fn withheld(
    request: &proto::WatchObjectsRequest,
    ask: &Ask,
    scope: &proto::Scope,
) -> Result<BTreeSet<String>, Error> {
    if request.token.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut withheld: BTreeSet<_> = Token::decode_bytes(&request.token)?
        .withheld
        .into_iter()
        .collect();
    withheld.retain(|part| match scope.namespaces.is_empty() {
        true => part.is_empty(),
        false => scope.namespaces.contains(part),
    });
    if ask.every && !withheld.is_empty() {
        let reason = "REVOKED";
        return Err(Error::Gap { reason });
    }
    Ok(withheld)
}

/// One open watch.
struct Watch {
    api: Api,
    kind: Arc<Kind>,
    ask: Ask,
    request: proto::WatchObjectsRequest,
    /// Whether it came with a token, which is kept until the kind is known.
    resumes: bool,
    registration: Registration,
    #[expect(dead_code, reason = "held, not read")]
    used: Use,
    bell: Arc<Doorbell>,
    draining: Notice,
    /// What the call was held against when it came, and is held against again and again.
    admitted: Admitted,
    held: Held,
    asking: Asking,
    /// The state that is being sent, while one is.
    snapshot: Option<Snapshot>,
    /// Whether anything was said on it.
    has_told: bool,
    /// Parts of the scope that the caller may not see at present, and those of them that it may again.
    withheld: BTreeSet<String>,
    given: BTreeSet<String>,
    /// What has changed about its rights, and was not acted on yet.
    turned: Option<Turn>,
    /// When the step at hand began: to ask for the time costs a good part of what a step does.
    now: Instant,
    /// Wakes once the kind's identity is known.
    waiting: Vec<Subscription>,
    /// Absent until then.
    stream: Option<Open>,
    /// Tokens that are ahead of their shards, and what the API server says of that.
    doubts: Vec<Doubt>,
    out: VecDeque<Bytes>,
    bookmark_at: Instant,
    /// Rings when it is time to look, or before: to set it anew for each flush would cost more than to look again.
    alarm: Pin<Box<Sleep>>,
    /// The state that the consumer was told last.
    told: Option<(Phase, String, String)>,
    /// The shards' states when that was looked at.
    seen: Vec<Arc<ShardStatus>>,
    end: End,
}

/// What there is of a watch once its kind is known.
struct Open {
    /// What `query` was understood by.
    identity: Arc<Identity>,
    query: Query,
    told: Told,
    encoder: Encoder,
    merge: Merge<Object>,
    /// Events being sent, and what is reached by them.
    work: Option<(Work<Object>, Option<Position>)>,
}

/// A token that is ahead of its shard, and what the API server says of that.
struct Doubt {
    ahead: Ahead<Object>,
    answer: oneshot::Receiver<u64>,
}

/// How a stream ends.
enum End {
    No,
    /// The status is to be sent.
    With(Status),
    Done,
}

impl Watch {
    /// Ties the request to its kind, once that is known. Whether it is.
    fn begin(&mut self) -> Result<bool, Error> {
        if let Some(open) = &mut self.stream {
            open.follow(&self.kind, &self.request, &self.ask, &self.admitted)?;
            return Ok(true);
        }
        if self.waiting.is_empty() {
            let subscribe = |shard: &Arc<Shard<Object>>| shard.subscribe(Vec::new(), &self.bell);
            self.waiting = self.kind.shards().iter().map(subscribe).collect();
        }
        let Some(identity) = self.kind.identity() else {
            return Ok(false);
        };
        let request = &self.request;
        let scope = request.scope.clone().unwrap_or_default();
        self.admitted.check(&scope.resource, &identity)?;
        let query = Query::new(
            self.kind.clone(),
            &identity,
            &scope,
            request.view,
            &request.fields,
        )?;
        let mut told = Told::new(&query, &self.ask);
        told.withhold(&self.withheld);
        if self.ask.every && self.kind.is_unordered() {
            let problem = format!(
                "DELIVERY_EVERY needs resource versions with an order, which those of {} have not; leave it unset",
                query.resource
            );
            return Err(Error::invalid("delivery", problem));
        }
        let mut places = Vec::new();
        if !request.token.is_empty() {
            let token = Token::decode_bytes(&request.token)?;
            token.check(&query.resource, &[query.hash, told.hash])?;
            places = token.places(self.api.0.incarnation, self.kind.config_hash);
        }
        self.stream = Some(Open {
            encoder: self.api.0.projections.encoder(query.projection.clone()),
            merge: Merge::new(
                &query.resource,
                query.shards(),
                &query.selection.wake_scopes(),
                &places,
                self.ask.fail_on_gap,
                self.ask.min_interval,
                (self.asking.turn(), &self.bell),
            ),
            query,
            told,
            identity,
            work: None,
        });
        self.waiting.clear();
        self.request.token = Default::default();
        Ok(true)
    }

    /// The body: data, then trailers.
    fn frames(self) -> impl Stream<Item = Result<Frame<Bytes>, Status>> + Send {
        // Boxed, since it changes hands with each frame.
        stream::unfold(Box::new(self), |mut watch| async move {
            let frame = watch.next_frame().await?;
            Some((Ok(frame), watch))
        })
    }

    async fn next_frame(&mut self) -> Option<Frame<Bytes>> {
        loop {
            if matches!(self.end, End::No)
                && let Some(turn) = self.turned.take().or_else(|| self.held.turned())
            {
                self.turn(turn);
            }
            if let Some(bytes) = self.out.pop_front() {
                return Some(Frame::data(bytes));
            }
            match mem::replace(&mut self.end, End::Done) {
                End::No => self.end = End::No,
                End::With(status) => return Some(trailers(&status)),
                End::Done => return None,
            }
            self.now = Instant::now();
            if self.draining.is_given() {
                self.finish(Error::Draining);
                continue;
            }
            self.tell_state();
            match self.advance() {
                Err(error) => self.finish(error),
                Ok(true) => {}
                Ok(false) if self.now >= self.bookmark_at => {
                    let mark = self.mark(MarkType::Bookmark);
                    self.push(&mark);
                }
                Ok(false) if self.out.is_empty() => self.idle().await,
                Ok(false) => {}
            }
        }
    }

    /// Until something may have changed.
    async fn idle(&mut self) {
        let again = self
            .stream
            .as_ref()
            .and_then(|open| open.merge.look_again());
        let until = self.bookmark_at.min(self.now + ADVANCE);
        let until = again.map_or(until, |again| again.min(until));
        if self.alarm.deadline() > until || self.alarm.is_elapsed() {
            self.alarm.as_mut().reset(until);
        }
        tokio::select! {
            biased;
            () = self.bell.rung() => {}
            // Acted on by whoever called.
            turn = self.held.turn() => self.turned = Some(turn),
            () = &mut self.alarm => {}
        }
    }

    /// Does the next piece of work; whether there was any. Marks and events land in `out`.
    fn advance(&mut self) -> Result<bool, Error> {
        if !self.begin()? {
            return Ok(false);
        }
        let Some(open) = &mut self.stream else {
            return Ok(false);
        };
        if open.work.is_some() {
            self.send_some();
            return Ok(true);
        }
        if self.give_back() {
            return Ok(true);
        }
        let batch = self.batch();
        let Some(open) = &mut self.stream else {
            return Ok(false);
        };
        let answered = |(at, doubt): (usize, &mut Doubt)| Some((at, doubt.answer()?));
        while let Some((at, revision)) = self.doubts.iter_mut().enumerate().find_map(answered) {
            let doubt = self.doubts.swap_remove(at);
            open.merge.settle(&doubt.ahead, revision)?;
        }
        match open
            .merge
            .next(&open.told, batch, &self.registration.consumer, self.now)?
        {
            Next::Idle => return Ok(false),
            Next::Work(work, position) => {
                if self.send_shared(&work).is_none()
                    && let Some(open) = &mut self.stream
                {
                    open.work = Some((work, position));
                    self.send_some();
                }
            }
            Next::ResetBegin(reason, namespaces) => {
                if self.snapshot.is_none() {
                    // A token that is not honoured is a new stream.
                    self.snapshot = match self.has_told {
                        false if self.resumes => self.asking.snapshot()?,
                        _ => self.asking.room().map(Room::another_snapshot),
                    };
                }
                let mark = proto::Mark {
                    namespaces,
                    reason: reason_word(reason).to_owned(),
                    ..self.mark(MarkType::Reset)
                };
                self.push(&mark);
            }
            Next::ResetEnd(namespaces) => {
                self.snapshot = None;
                let mark = proto::Mark {
                    namespaces,
                    ..self.mark(MarkType::ResetEnd)
                };
                self.push(&mark);
            }
            Next::Ahead(ahead) => match &self.api.0.prover {
                Some(prover) => {
                    let (kind, identity) = (self.kind.clone(), open.identity.clone());
                    let bell = self.bell.clone();
                    let doubt = Doubt::new(ahead, prover.clone(), kind, identity, bell);
                    self.doubts.push(doubt);
                }
                None => open.merge.settle(&ahead, None)?,
            },
        }
        Ok(true)
    }

    /// Puts out the work and the mark behind it in one piece that other streams send, too. `None` where it is
    /// not the same for others, or too large.
    fn send_shared(&mut self, work: &Work<Object>) -> Option<()> {
        let open = self.stream.as_mut()?;
        let (Work::Shared { state, from }, [status]) = (work, self.seen.as_slice()) else {
            return None;
        };
        if self.ask.max_batch < flush::MAX_BYTES {
            return None;
        }
        let due = Due {
            query: open.query.hash,
            digests: self.ask.digests,
            from: *from,
            position: state.position(),
        };
        let made = self.now.into_std();
        let flush = match self.api.0.flushes.get(due, status, made) {
            Some(flush) => {
                open.merge.reached(due.position);
                flush
            }
            None => {
                let (all, events) = messages::whole(state, *from, &open.encoder, flush::MAX_BYTES)?;
                let status = status.clone();
                open.merge.reached(due.position);
                let mark = self.mark(MarkType::Progress);
                let flush = Flush {
                    bytes: encode::mark_after(all, &mark),
                    events,
                    made,
                };
                self.api.0.flushes.put(due, status, flush.clone());
                flush
            }
        };
        let sent = flush.bytes.len();
        self.registration.consumer.sent(flush.events, sent);
        self.put_off_bookmark();
        self.out.push_back(flush.bytes);
        Some(())
    }

    /// How much to make at once: little where much of what was made before was not read yet.
    fn batch(&self) -> usize {
        let asked = self.ask.max_batch;
        match self.asking.room() {
            Some(room) if room.is_tight() => asked.min(TIGHT),
            _ => asked,
        }
    }

    /// Puts out the next message of the work at hand, and the mark behind it where that was the last.
    fn send_some(&mut self) {
        let batch = self.batch();
        let Some(open) = &mut self.stream else { return };
        let Some((work, position)) = &mut open.work else {
            return;
        };
        let sent = work.send_some(&open.encoder, batch, &mut self.out);
        self.registration.consumer.sent(sent.events, sent.bytes);
        if let Some(snapshot) = &self.snapshot {
            snapshot.made(sent.bytes);
        }
        if !work.is_done() {
            return;
        }
        let position = *position;
        open.work = None;
        if let Some(position) = position {
            open.merge.reached(position);
            let mark = self.mark(MarkType::Progress);
            self.push(&mark);
        }
    }

    /// The shards that the stream is about.
    fn shards(&self) -> impl Iterator<Item = &Arc<Shard<Object>>> {
        let of_stream = self.stream.iter().flat_map(|open| open.merge.shards());
        let unknown = self.stream.is_none().then(|| self.kind.shards());
        of_stream.chain(unknown.into_iter().flatten())
    }

    /// Tells of a change in how well the kind is known.
    fn tell_state(&mut self) {
        if self.shards().count() == self.seen.len()
            && self
                .shards()
                .zip(&self.seen)
                .all(|(shard, seen)| shard.has_status(seen))
        {
            return;
        }
        self.seen = self.shards().map(|shard| shard.status()).collect();
        let worst = self.seen.iter().max_by_key(|status| status.phase.badness());
        let Some(worst) = worst.cloned() else { return };
        let told = self.told.as_ref();
        let same = told.map_or(worst.phase == Phase::Live, |(phase, reason, message)| {
            *phase == worst.phase && *reason == worst.reason && *message == worst.message
        });
        if same {
            return;
        }
        self.told = Some((worst.phase, worst.reason.clone(), worst.message.clone()));
        let mark = self.mark(MarkType::State);
        self.push(&mark);
    }

    /// Acts on what has changed about the stream's rights.
    fn turn(&mut self, turn: Turn) {
        match turn {
            Turn::Over(error) => self.revoke(error),
            Turn::Changed { taken, mut given } => {
                self.registration.consumer.rights("retracted", &taken);
                self.registration.consumer.rights("given back", &given);
                given.retain(|part| self.withheld.contains(part));
                self.given.append(&mut given);
                self.given.retain(|part| !taken.contains(part));
                let taken = taken.difference(&self.withheld).cloned().collect();
                if let Err(error) = self.retract(taken) {
                    self.finish(error);
                }
            }
        }
    }

    /// Takes back what the consumer has of some parts of the scope. What was not sent yet is not sent any more; what
    /// it had of the rest is sent anew, as a whole.
    fn retract(&mut self, taken: BTreeSet<String>) -> Result<(), Error> {
        if taken.is_empty() {
            return Ok(());
        }
        self.withheld.extend(taken.iter().cloned());
        let Some(open) = &mut self.stream else {
            return Ok(());
        };
        let dropped = open.work.take().is_some() || !self.out.is_empty();
        self.out.clear();
        // What was dropped may have told of it.
        self.told = None;
        self.seen.clear();
        open.told.withhold(&self.withheld);
        let part = Arc::new(open.told.parts(taken));
        let scope: Arc<dyn Select<Object>> = part.clone();
        open.merge
            .take(&scope, |shard| part.touches(shard), dropped)
    }

    /// Tells of the parts of the scope that the consumer may see again, once it stands where that can be told.
    /// Whether it does.
    fn give_back(&mut self) -> bool {
        if self.given.is_empty() {
            return false;
        }
        let Some(open) = &mut self.stream else {
            return false;
        };
        let part = Arc::new(open.told.parts(self.given.clone()));
        if !open.merge.can_give(|shard| part.touches(shard)) {
            return false;
        }
        for part in mem::take(&mut self.given) {
            self.withheld.remove(&part);
        }
        open.told.withhold(&self.withheld);
        let scope: Arc<dyn Select<Object>> = part.clone();
        open.merge.give(&scope, |shard| part.touches(shard));
        true
    }

    /// Ends the stream because its rights are over. What was not sent yet is not sent any more, and the last token
    /// that was is the last: one behind what is dropped would lose it.
    fn revoke(&mut self, over: Error) {
        let unsent = !self.out.is_empty();
        self.out.clear();
        let mut last = self.last(&over);
        if unsent {
            last.token.clear();
        }
        self.end_with(&last, over);
    }

    /// Ends the stream with a mark that says why, and then the status.
    fn finish(&mut self, error: Error) {
        let last = self.last(&error);
        self.end_with(&last, error);
    }

    fn last(&self, error: &Error) -> proto::Mark {
        proto::Mark {
            reason: error.reason().to_owned(),
            message: error.to_string(),
            retry_after: error.retry_after().and_then(super::duration),
            ..self.mark(MarkType::End)
        }
    }

    fn end_with(&mut self, last: &proto::Mark, error: Error) {
        self.registration.consumer.ends(error.reason());
        self.push(last);
        self.end = End::With(error.into());
    }

    /// A mark of this moment: with a token where all that was sent is complete, but not when it opens a state.
    fn mark(&self, r#type: MarkType) -> proto::Mark {
        let mut mark = proto::Mark {
            r#type: r#type.into(),
            ..Default::default()
        };
        let Some(open) = &self.stream else {
            let shards = self.kind.shards().iter().map(|shard| (shard, None));
            let freshness = freshness::of(&self.kind, shards, freshness::no_digest, now());
            mark.freshness = Some(freshness);
            return mark;
        };
        let complete = open.work.is_none() && open.merge.is_complete();
        if complete && r#type != MarkType::Reset {
            mark.token = open.token(&self.kind, self.api.0.incarnation);
        }
        let digests = complete && self.ask.digests;
        let digest = |shard: &Arc<Shard<Object>>, position: &Position| {
            digests.then(|| open.told.digest(shard, position)).flatten()
        };
        mark.freshness = Some(freshness::of(
            &self.kind,
            open.merge.positions(),
            digest,
            now(),
        ));
        mark
    }

    fn put_off_bookmark(&mut self) {
        self.has_told = true;
        let interval = self
            .ask
            .bookmark_interval
            .unwrap_or(self.api.0.settings.bookmark_interval);
        self.bookmark_at = self.now + interval;
    }

    fn push(&mut self, mark: &proto::Mark) {
        self.put_off_bookmark();
        let before = self.out.pop_back_if(|events| events.len() <= COALESCE);
        let messages = before.map_or_else(BytesMut::new, |events| {
            // Its own where nobody else has it: then this is no copy.
            events.try_into_mut().unwrap_or_else(|shared| {
                let mut copy = BytesMut::with_capacity(shared.len() + messages::ROOM_FOR_MARK);
                copy.extend_from_slice(&shared);
                copy
            })
        });
        self.out.push_back(encode::mark_after(messages, mark));
    }
}

impl Doubt {
    /// Asks by a task of its own: who asks together shares the answer, and a stream that its consumer does not read
    /// is not polled.
    fn new(
        ahead: Ahead<Object>,
        prover: Arc<Prover>,
        kind: Arc<Kind>,
        identity: Arc<Identity>,
        bell: Arc<Doorbell>,
    ) -> Self {
        let (answering, answer) = oneshot::channel();
        let (shard, since) = (ahead.shard.clone(), ahead.since);
        tokio::spawn(async move {
            match prover.revision(&kind, &identity, &shard, since).await {
                // The consumer may have gone.
                Ok(revision) => drop(answering.send(revision)),
                Err(_) => drop(answering),
            }
            bell.ring();
        });
        Self { ahead, answer }
    }

    /// Once there is one: the API server's revision, if it could be asked.
    fn answer(&mut self) -> Option<Option<u64>> {
        match self.answer.try_recv() {
            Ok(revision) => Some(Some(revision)),
            Err(TryRecvError::Closed) => Some(None),
            Err(TryRecvError::Empty) => None,
        }
    }
}

impl Open {
    /// A kind may come back in another version (its CRD was changed). What is selected by a path is then found
    /// elsewhere in its objects, or not at all.
    fn follow(
        &mut self,
        kind: &Arc<Kind>,
        request: &proto::WatchObjectsRequest,
        ask: &Ask,
        admitted: &Admitted,
    ) -> Result<(), Error> {
        if kind.has_identity(&self.identity) {
            return Ok(());
        }
        let Some(identity) = kind.identity() else {
            return Ok(());
        };
        let scope = request.scope.clone().unwrap_or_default();
        admitted.check(&scope.resource, &identity)?;
        self.query = Query::new(
            kind.clone(),
            &identity,
            &scope,
            request.view,
            &request.fields,
        )?;
        let withheld = self.told.withheld().clone();
        self.told = Told::new(&self.query, ask);
        self.told.withhold(&withheld);
        self.identity = identity;
        Ok(())
    }

    /// Empty as long as the consumer is complete in no shard.
    fn token(&self, kind: &Kind, incarnation: u64) -> Bytes {
        let position = |(shard, position): (&Arc<Shard<Object>>, Option<Position>)| {
            Some(TokenPosition::new(shard.namespace(), &position?))
        };
        let positions: Vec<_> = self.merge.positions().filter_map(position).collect();
        if positions.is_empty() {
            return Bytes::new();
        }
        let query = &self.query;
        let mut token = Token::new(
            &query.resource,
            self.told.hash,
            kind.config_hash,
            incarnation,
            positions,
        );
        token.withheld = self.told.withheld().iter().cloned().collect();
        token.encode_to_bytes()
    }
}

fn trailers(status: &Status) -> Frame<Bytes> {
    let mut trailers = http::HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // Without any status the caller would take it for a broken connection.
        trailers.insert("grpc-status", http::HeaderValue::from_static("13"));
    }
    Frame::trailers(trailers)
}
