//! WatchReadiness: one stream of verdicts, over the same cursors and by the same rules as WatchObjects.
//!
//! Verdicts change so much more rarely than objects that each stream is encoded by itself.

use std::{collections::VecDeque, sync::Arc};

use futures::{Stream, stream};
use prost::Message;
use tokio::time::Instant;
use tonic::Status;

use super::{Case, scope::Cases, scope::TOKEN, shown, sight::Sight};
use crate::{
    api::{
        Api, Error,
        access::{Admitted, Asking, Held},
        ask,
        consumers::{Caller, Registration},
        duration,
        merge::{Merge, Next, reason_word},
        messages::Work,
        token::{Token, TokenPosition},
    },
    auth::{Room, Snapshot},
    cache::{Cause, Doorbell, Event, Position, Select, Status as ShardStatus, WakeScope, What},
    proto::{self, DeleteCause, EventType, MarkType, ReadinessChanges},
    readiness::Verdict,
};

/// One open watch.
pub(super) struct Watch {
    api: Api,
    cases: Cases,
    hash: u64,
    transitions: bool,
    max_batch: usize,
    bookmark_interval: std::time::Duration,
    bookmark_at: Instant,
    bell: Arc<Doorbell>,
    merge: Merge<Verdict>,
    registration: Registration,
    /// Events on their way out, and what is reached by them.
    work: Option<(VecDeque<proto::ReadinessEvent>, Option<Position>)>,
    out: VecDeque<proto::WatchReadinessResponse>,
    /// Of each kind, what the consumer was told of how well it is known.
    told: Vec<Arc<ShardStatus>>,
    end: Option<Status>,
    over: bool,
    held: Held,
    asking: Asking,
    /// The state that is being sent, while one is.
    snapshot: Option<Snapshot>,
    sight: Sight,
}

impl Watch {
    pub(super) fn new(
        api: &Api,
        request: proto::WatchReadinessRequest,
        caller: Caller,
        asking: Asking,
        mut admitted: Admitted,
    ) -> Result<Self, Error> {
        let scope = request.scope.unwrap_or_default();
        let cases = Cases::find(api, &scope)?;
        for case in &cases.all {
            case.check(&admitted, case.judged.name())?;
        }
        let changes: ReadinessChanges = ask::known("changes", request.changes)?;
        let transitions = changes == ReadinessChanges::Transitions;
        let on_gap: proto::OnGap = ask::known("on_gap", request.on_gap)?;
        let hash = if transitions {
            cases.hash.rotate_left(1)
        } else {
            cases.hash
        };
        let mut places = Vec::new();
        if !request.token.is_empty() {
            let token = Token::decode_bytes(&request.token)?;
            token.check(TOKEN, &[hash])?;
            places = token.places(api.0.incarnation, api.0.incarnation);
        }
        // Where it begins with the verdicts that there are.
        let is_judged = |case: &Case| case.judged.shard().state().is_some();
        let snapshot = match request.token.is_empty() && cases.all.iter().all(is_judged) {
            true => asking.snapshot()?,
            false => None,
        };
        let interval = ask::bookmark_interval(request.bookmark_interval)?;
        let bookmark_interval = interval.unwrap_or(api.0.settings.bookmark_interval);
        let asked = super::asked(scope);
        let bell = Arc::new(Doorbell::default());
        let shards = cases.all.iter().map(|case| case.judged.shard().clone());
        let merge = Merge::new(
            "what is judged",
            shards.collect(),
            &cases.selection.wake_scopes(),
            &places,
            on_gap == proto::OnGap::Fail,
            None,
            (asking.turn(), &bell),
        );
        Ok(Self {
            registration: api.0.consumers.enter("WatchReadiness", caller, None, asked),
            hash,
            transitions,
            max_batch: ask::max_batch(request.max_batch_bytes)?,
            bookmark_interval,
            bookmark_at: Instant::now() + bookmark_interval,
            bell,
            merge,
            work: None,
            out: VecDeque::new(),
            told: Vec::new(),
            end: None,
            over: false,
            cases,
            api: api.clone(),
            held: admitted.hold(),
            asking,
            snapshot,
            sight: Sight::new(api, admitted),
        })
    }

    /// Events and marks; an error ends the stream, after a last mark that says why.
    pub(super) fn messages(
        self,
    ) -> impl Stream<Item = Result<proto::WatchReadinessResponse, Status>> + Send {
        stream::unfold(self, |mut watch| async move {
            let message = watch.next().await?;
            Some((message, watch))
        })
    }

    async fn next(&mut self) -> Option<Result<proto::WatchReadinessResponse, Status>> {
        loop {
            if self.end.is_none()
                && !self.over
                && let Some(over) = self.held.over()
            {
                self.revoke(over);
            }
            if let Some(mut message) = self.out.pop_front() {
                for event in &mut message.events {
                    if let Some(verdict) = &mut event.verdict {
                        self.sight.shorten(verdict).await;
                    }
                }
                return Some(Ok(message));
            }
            if let Some(status) = self.end.take() {
                self.over = true;
                return Some(Err(status));
            }
            if self.over {
                return None;
            }
            if self.api.is_draining() {
                self.finish(Error::Draining);
                continue;
            }
            self.tell_state();
            match self.advance() {
                Err(error) => self.finish(error),
                Ok(true) => {}
                Ok(false) if Instant::now() >= self.bookmark_at => {
                    let mark = self.mark(MarkType::Bookmark);
                    self.push(Vec::new(), Some(mark));
                }
                Ok(false) if self.out.is_empty() => self.idle().await,
                Ok(false) => {}
            }
        }
    }

    async fn idle(&mut self) {
        let shutdown = &self.api.0.shutdown;
        tokio::select! {
            // Looked at again by whoever called.
            _ = self.held.ended() => {}
            () = self.bell.rung() => {}
            () = tokio::time::sleep_until(self.bookmark_at) => {}
            () = shutdown.draining() => {}
        }
    }

    /// Does the next piece of work; whether there was any.
    fn advance(&mut self) -> Result<bool, Error> {
        if self.work.is_some() {
            self.send_some();
            return Ok(true);
        }
        let consumer = &self.registration.consumer;
        let next = self.merge.next(
            &self.cases.selection,
            self.max_batch,
            consumer,
            Instant::now(),
        )?;
        match next {
            Next::Idle => return Ok(false),
            Next::Work(work, position) => {
                self.work = Some((self.events(work), position));
            }
            Next::ResetBegin(reason, kinds) => {
                if self.snapshot.is_none() {
                    self.snapshot = self.asking.room().map(Room::another_snapshot);
                }
                let mark = proto::ReadinessMark {
                    resources: self.resources(&kinds),
                    reason: reason_word(reason).to_owned(),
                    ..self.mark(MarkType::Reset)
                };
                self.push(Vec::new(), Some(mark));
            }
            // Nobody else has these verdicts.
            Next::Ahead(ahead) => self.merge.settle(&ahead, None)?,
            Next::ResetEnd(kinds) => {
                self.snapshot = None;
                let mark = proto::ReadinessMark {
                    resources: self.resources(&kinds),
                    ..self.mark(MarkType::ResetEnd)
                };
                self.push(Vec::new(), Some(mark));
            }
        }
        Ok(true)
    }

    /// Puts out as many events as fit into a message, with a mark behind the last.
    fn send_some(&mut self) {
        let Some((events, position)) = &mut self.work else {
            return;
        };
        let (mut some, mut bytes) = (Vec::new(), 0);
        while let Some(event) = events.front() {
            let length = event.encoded_len();
            if !some.is_empty() && bytes + length > self.max_batch {
                break;
            }
            bytes += length;
            some.extend(events.pop_front());
        }
        let done = events.is_empty().then_some(*position);
        self.registration.consumer.sent(some.len(), bytes);
        if let Some(snapshot) = &self.snapshot {
            snapshot.made(bytes);
        }
        let mut mark = None;
        if let Some(position) = done {
            self.work = None;
            if let Some(position) = position {
                self.merge.reached(position);
                // Of what was left out nobody needs to hear.
                mark = (!some.is_empty()).then(|| self.mark(MarkType::Progress));
            }
        }
        if !some.is_empty() {
            self.push(some, mark);
        }
    }

    /// What of it this consumer is sent.
    fn events(&self, work: Work<Verdict>) -> VecDeque<proto::ReadinessEvent> {
        let before = self.merge.before().map(|position| position.revision);
        let wanted = |verdict: &Verdict| {
            !self.transitions || before.is_none_or(|before| verdict.transition > before)
        };
        match work {
            Work::Items {
                revision, items, ..
            } => items
                .iter()
                .map(|verdict| self.upsert(verdict, revision))
                .collect(),
            Work::Events { batch, .. } => batch
                .events
                .iter()
                .filter_map(|event| match &event.what {
                    What::Upsert { item, .. } => {
                        wanted(item).then(|| self.upsert(item, event.revision))
                    }
                    What::Delete { .. } => self.delete(event),
                })
                .collect(),
            // Only for those who select everything, which is never said here.
            Work::Shared { .. } | Work::Segments { .. } => VecDeque::new(),
        }
    }

    fn upsert(&self, verdict: &Verdict, revision: u64) -> proto::ReadinessEvent {
        proto::ReadinessEvent {
            r#type: EventType::Upsert.into(),
            revision,
            verdict: Some(shown::verdict(verdict, &self.api.0.board)),
            cause: DeleteCause::Unspecified.into(),
        }
    }

    fn delete(&self, event: &Event<Verdict>) -> Option<proto::ReadinessEvent> {
        let What::Delete { key, uid, cause } = &event.what else {
            return None;
        };
        let (cause, state) = match cause {
            Cause::LeftSelector => (
                DeleteCause::LeftSelector,
                proto::ReadinessState::Unspecified,
            ),
            Cause::Replaced => (DeleteCause::Replaced, proto::ReadinessState::Gone),
            _ => (DeleteCause::Deleted, proto::ReadinessState::Gone),
        };
        let name = self.merge.current().map(|shard| shard.namespace());
        let case = self.cases.all.iter();
        let case = case.clone().find(|case| Some(case.judged.name()) == name);
        Some(proto::ReadinessEvent {
            r#type: EventType::Delete.into(),
            revision: event.revision,
            verdict: Some(proto::Verdict {
                target: Some(proto::Target {
                    resource: case.map_or_else(String::new, Case::resource),
                    namespace: key.namespace().to_owned(),
                    name: key.name().to_owned(),
                }),
                uid: uid.to_string(),
                state: state.into(),
                ..Default::default()
            }),
            cause: cause.into(),
        })
    }

    /// The full names of kinds that the board has under these names.
    fn resources(&self, kinds: &[String]) -> Vec<String> {
        let cases = self.cases.all.iter();
        cases
            .filter(|case| kinds.iter().any(|kind| kind == case.judged.name()))
            .map(Case::resource)
            .collect()
    }

    /// Tells of a change in how well a kind is known.
    fn tell_state(&mut self) {
        let cases = self.cases.all.iter();
        let now: Vec<_> = cases.map(|case| case.judged.shard().status()).collect();
        let first = self.told.is_empty();
        let same = self.told.iter().zip(&now).all(|(told, now)| told == now);
        if !first && same {
            return;
        }
        let well = now
            .iter()
            .all(|status| status.phase == crate::cache::Phase::Live);
        self.told = now;
        if !(first && well) {
            let mark = self.mark(MarkType::State);
            self.push(Vec::new(), Some(mark));
        }
    }

    /// Ends the stream because its rights are over; see [`crate::api`]'s watch of objects.
    fn revoke(&mut self, over: Error) {
        let unsent = !self.out.is_empty();
        self.out.clear();
        let mut last = self.last(&over);
        if unsent {
            last.token.clear();
        }
        self.end_with(last, over);
    }

    /// Ends the stream with a mark that says why, and then the status.
    fn finish(&mut self, error: Error) {
        let last = self.last(&error);
        self.end_with(last, error);
    }

    fn last(&self, error: &Error) -> proto::ReadinessMark {
        proto::ReadinessMark {
            reason: error.reason().to_owned(),
            message: error.to_string(),
            retry_after: error.retry_after().and_then(duration),
            ..self.mark(MarkType::End)
        }
    }

    fn end_with(&mut self, last: proto::ReadinessMark, error: Error) {
        self.registration.consumer.ends(error.reason());
        self.push(Vec::new(), Some(last));
        self.end = Some(error.into());
    }

    /// A mark of this moment: with a token where all that was sent is complete, but not when it opens a state.
    fn mark(&self, r#type: MarkType) -> proto::ReadinessMark {
        let complete = self.work.is_none() && self.merge.is_complete();
        let mut mark = proto::ReadinessMark {
            r#type: r#type.into(),
            ..Default::default()
        };
        if complete && r#type != MarkType::Reset {
            mark.token = self.token();
        }
        let positions = self.merge.positions();
        mark.kinds = positions
            .zip(&self.cases.all)
            .map(|((_, position), case)| {
                case.described(position.map_or(0, |position| position.revision))
            })
            .collect();
        mark
    }

    /// Empty as long as the consumer is complete in no kind.
    fn token(&self) -> bytes::Bytes {
        let positions = self.merge.positions().filter_map(|(shard, position)| {
            Some(TokenPosition::new(shard.namespace(), &position?))
        });
        let positions: Vec<_> = positions.collect();
        if positions.is_empty() {
            return bytes::Bytes::new();
        }
        let incarnation = self.api.0.incarnation;
        // Another process's verdicts have another history: a token is good here only.
        Token::new(TOKEN, self.hash, incarnation, incarnation, positions).encode_to_bytes()
    }

    fn push(&mut self, events: Vec<proto::ReadinessEvent>, mark: Option<proto::ReadinessMark>) {
        if mark.is_some() {
            self.bookmark_at = Instant::now() + self.bookmark_interval;
        }
        self.out
            .push_back(proto::WatchReadinessResponse { events, mark });
    }
}

impl super::scope::Selection {
    /// Which publications concern it.
    fn wake_scopes(&self) -> Vec<WakeScope> {
        let ranges = self.ranges().into_iter();
        let scope = |range| match range {
            crate::cache::KeyRange::Namespace(namespace) => WakeScope::Namespace(namespace),
            crate::cache::KeyRange::One(key) => WakeScope::One(key),
            crate::cache::KeyRange::All => WakeScope::All,
        };
        ranges.map(scope).collect()
    }
}
