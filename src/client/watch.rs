//! A watch that lasts: it resumes after cuts, so that its consumer sees one stream.
//!
//! Events are told once the mark comes that they count with, which follows directly behind them; so whatever is
//! told stands, and a cut needs nothing to be taken back.
//!
//! What was told is counted up, too ([`Ledger`]): where it does not come to the digest that a mark has, something was
//! lost on the way, and the watch begins anew by itself.
//!
//! A hand-written `Stream` instead of a task and a channel: nothing is received that the consumer has not asked
//! for, dropping it ends the call, and `next()` may be dropped at any time. It does not know the transport: a
//! function opens the next call, so that tests own both the server and the clock.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use tokio::time::{Instant, Sleep};
use tonic::Code;

use super::{Backoff, Error, ledger::Ledger};
use crate::proto::{
    DeleteCause, Delivery, Event, EventType, Freshness, Mark, MarkType, Object, OnGap,
    WatchObjectsRequest, WatchObjectsResponse,
};

/// One thing that a watch tells. To keep a copy of what is watched, give them all to a
/// [`Mirror`](super::Mirror), in order.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// A state that replaces what the consumer holds begins; the initial state too.
    ResetBegin {
        /// One word: INITIAL, PAST_JOURNAL, ...
        reason: String,
        /// The same for a person.
        message: String,
        /// What it covers; empty means all of the scope.
        namespaces: Vec<String>,
        /// How well the kind is known.
        freshness: Freshness,
    },
    /// An object is in scope and this is its content; it may have been before.
    Upsert {
        /// As cached, cut to view and fields.
        object: Object,
        /// Position in the stream.
        revision: u64,
        /// When the daemon received it, Unix time in nanoseconds; 0 in a reset.
        received_unix_nanos: u64,
    },
    /// An object left the scope.
    Delete {
        /// Empty for a cluster-scoped object.
        namespace: String,
        /// Its name.
        name: String,
        /// Which object of that name.
        uid: String,
        /// Why it left.
        cause: DeleteCause,
        /// Position in the stream.
        revision: u64,
    },
    /// The state that began with `ResetBegin` is complete: what was not in it is gone.
    ResetEnd {
        /// As in `ResetBegin`.
        namespaces: Vec<String>,
        /// Where to resume, unless another reset is still open.
        token: Option<Bytes>,
        /// How well the kind is known.
        freshness: Freshness,
    },
    /// All up to here has been told.
    Mark {
        /// PROGRESS, BOOKMARK, STATE or END.
        mark: MarkType,
        /// Where to resume, where this mark moved it.
        token: Option<Bytes>,
        /// How well the kind is known.
        freshness: Freshness,
    },
    /// The stream was cut; a reset that was open is void. It resumes by itself after the delay.
    Reconnecting {
        /// Why.
        error: Error,
        /// Until the next try.
        delay: Duration,
    },
}

impl WatchEvent {
    /// Whether it is about an object of one of these; all are meant where there are none.
    fn is_of_namespace(&self, namespaces: &[String]) -> bool {
        let of = match self {
            Self::Upsert { object, .. } => &object.namespace,
            Self::Delete { namespace, .. } => namespace,
            _ => return false,
        };
        namespaces.is_empty() || namespaces.contains(of)
    }
}

/// A stream of [`WatchEvent`]s that goes on until it is dropped or fails for good: an error is its last item,
/// and always one that another try would meet again ([`Error::is_permanent`]).
pub struct Watch {
    open: Open,
    /// `token` is kept current.
    request: WatchObjectsRequest,
    patience: Duration,
    backoff: Backoff,
    /// The resets that have begun and not ended, by what they cover.
    resets: Vec<Vec<String>>,
    told: VecDeque<WatchEvent>,
    /// Since the last token, outside a reset. They count with the next token: what a cut leaves here may never be
    /// spoken of again, since an object created and deleted meanwhile folds away.
    unsettled: Vec<WatchEvent>,
    /// Absent where marks have no digests.
    ledger: Option<Ledger>,
    /// How often it did not agree.
    mismatches: u64,
    /// It did not agree the last time: to begin anew again would be of no use.
    doubted: bool,
    state: State,
    /// Ends `Waiting`, and any other state in which nothing comes.
    timer: Pin<Box<Sleep>>,
    stuck: bool,
    /// Until when nobody need be let in: the credentials have ended, and new ones are to come.
    renewed_by: Option<Instant>,
}

/// Messages of one call.
pub(super) type Messages = BoxStream<'static, Result<WatchObjectsResponse, Error>>;
/// Opens a call; by a new connection if the last one is stuck, or has credentials that have ended.
pub(super) type Open =
    Box<dyn FnMut(WatchObjectsRequest, bool) -> BoxFuture<'static, Result<Messages, Error>> + Send>;

enum State {
    Waiting,
    Opening(BoxFuture<'static, Result<Messages, Error>>),
    Open {
        messages: Messages,
        since: Instant,
        end: Option<Box<Mark>>,
    },
    Over,
}

/// informerd's own interval of bookmarks, where the request does not set one.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(10);
/// A stream that still delivers after this long was worth opening: the next failure is a first one.
const HEALTHY: Duration = Duration::from_secs(10);
/// How long credentials that have ended may take to be replaced.
const RENEWAL: Duration = Duration::from_secs(60);
/// How long to wait for the status after the last message.
const CLOSING: Duration = Duration::from_secs(5);

impl Watch {
    pub(super) fn new(mut request: WatchObjectsRequest, open: Open) -> Self {
        let ledger = Ledger::of(&request);
        request.digests |= ledger.is_some();
        let interval = request
            .bookmark_interval
            .and_then(|it| Duration::try_from(it).ok());
        Self {
            open,
            request,
            patience: 3 * interval.unwrap_or(BOOKMARK_INTERVAL),
            backoff: Backoff::default(),
            resets: Vec::new(),
            told: VecDeque::new(),
            unsettled: Vec::new(),
            ledger,
            mismatches: 0,
            doubted: false,
            state: State::Waiting,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            stuck: false,
            renewed_by: None,
        }
    }

    /// Where another watch with the same request would resume. Empty before the initial state is complete.
    pub fn token(&self) -> &Bytes {
        &self.request.token
    }

    /// How often what was told did not come to the digest of what informerd holds. The watch begins anew each time,
    /// with [`WatchEvent::Reconnecting`] and [`Error::Differs`], unless it did so just before and that was of no use.
    pub fn mismatches(&self) -> u64 {
        self.mismatches
    }

    fn set_timer(&mut self, after: Duration) {
        self.timer.as_mut().reset(Instant::now() + after);
    }

    /// Ends the call. Gives the error back if it is for good.
    fn cut(&mut self, error: Error, asked: Option<Duration>) -> Result<(), Error> {
        self.resets.clear();
        self.unsettled.clear();
        if let (Error::Differs { .. }, Some(ledger)) = (&error, &mut self.ledger) {
            ledger.forget();
            self.request.token = Bytes::new();
        }
        let now = Instant::now();
        let expired = error.is_expiry();
        if expired {
            self.renewed_by = Some(now + RENEWAL);
        }
        let awaited = error.code() == Some(Code::Unauthenticated)
            && self.renewed_by.is_some_and(|by| now < by);
        self.stuck = matches!(error, Error::Silent(_)) || expired || awaited;
        if error.is_permanent() && !awaited {
            self.told.clear();
            self.state = State::Over;
            return Err(error);
        }
        let delay = self.backoff.next(asked.or(error.retry_delay()));
        self.state = State::Waiting;
        self.set_timer(delay);
        self.tell(WatchEvent::Reconnecting { error, delay });
        Ok(())
    }

    /// The call is over: by the server's status or by the transport.
    fn closed(&mut self, end: Option<Box<Mark>>, error: Option<Error>) -> Result<(), Error> {
        match (end, error) {
            (_, Some(error)) if error.is_permanent() => self.cut(error, None),
            (Some(mark), error) => {
                let asked = mark.retry_after.and_then(|it| Duration::try_from(it).ok());
                let asked = asked.or(error.and_then(|it| it.retry_delay()));
                self.cut(
                    Error::Ended {
                        reason: mark.reason,
                        message: mark.message,
                    },
                    asked,
                )
            }
            (None, Some(error)) => self.cut(error, None),
            (None, None) => self.cut(
                Error::Incomplete("the watch was closed without a word"),
                None,
            ),
        }
    }

    /// Takes one message in. Gives the mark that ends the stream back.
    fn take(&mut self, message: WatchObjectsResponse) -> Result<Option<Box<Mark>>, Error> {
        for event in message.events {
            let event = WatchEvent::try_from(event)?;
            if self.resets.is_empty() {
                self.unsettled.push(event);
            } else {
                self.tell(event);
            }
        }
        let Some(mark) = message.mark else {
            return Ok(None);
        };
        let kind = mark.r#type();
        let freshness = mark.freshness.clone().unwrap_or_default();
        let namespaces = mark.namespaces.clone();
        match kind {
            MarkType::Reset => {
                // What other shards were told goes on to wait for its token.
                self.unsettled
                    .retain(|event| !event.is_of_namespace(&namespaces));
                self.resets.retain(|open| *open != namespaces);
                self.resets.push(namespaces.clone());
                let (reason, message) = (mark.reason, mark.message);
                self.tell(WatchEvent::ResetBegin {
                    reason,
                    message,
                    namespaces,
                    freshness,
                });
                return Ok(None);
            }
            MarkType::ResetEnd => {
                let at = self.resets.iter().position(|open| *open == namespaces);
                let at = at.ok_or_else(|| Error::Contract("RESET_END without a RESET".into()))?;
                self.resets.remove(at);
                let token = self.advance(mark.token);
                let end = WatchEvent::ResetEnd {
                    namespaces,
                    token,
                    freshness,
                };
                return self.check(end).map(|()| None);
            }
            _ => {}
        }
        let token = self.advance(mark.token.clone());
        self.check(WatchEvent::Mark {
            mark: kind,
            token,
            freshness,
        })?;
        Ok((kind == MarkType::End).then(|| Box::new(mark)))
    }

    /// Moves the token. Within a reset the old one stays valid, and only that.
    fn advance(&mut self, token: Bytes) -> Option<Bytes> {
        if token.is_empty() || !self.resets.is_empty() {
            return None;
        }
        self.request.token = token.clone();
        for event in std::mem::take(&mut self.unsettled) {
            self.tell(event);
        }
        Some(token)
    }

    fn tell(&mut self, event: WatchEvent) {
        if let Some(ledger) = &mut self.ledger {
            ledger.apply(&event);
        }
        self.told.push_back(event);
    }

    /// Tells of a mark, if all that was told until then is what informerd holds.
    fn check(&mut self, event: WatchEvent) -> Result<(), Error> {
        if let Some(ledger) = &mut self.ledger
            && let WatchEvent::ResetEnd { freshness, .. } | WatchEvent::Mark { freshness, .. } =
                &event
        {
            // A whole state counts with its end.
            ledger.apply(&event);
            match ledger.agrees(&freshness.positions) {
                None => {}
                Some(true) => self.doubted = false,
                Some(false) => {
                    self.mismatches += 1;
                    let again = std::mem::replace(&mut self.doubted, true);
                    let scope = self.request.scope.as_ref();
                    let resource = scope.map_or("", |scope| scope.resource.as_str());
                    tracing::warn!(
                        resource,
                        again,
                        "what a watch was told is not what informerd holds"
                    );
                    if !again {
                        return Err(Error::Differs {
                            for_good: self.wants_all(),
                        });
                    }
                }
            }
        }
        self.told.push_back(event);
        Ok(())
    }

    /// Whether what was missed must not just be left out.
    fn wants_all(&self) -> bool {
        self.request.delivery() == Delivery::Every || self.request.on_gap() == OnGap::Fail
    }

    /// Turns the machine until it has something to tell, is over, or must wait.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while self.told.is_empty() {
            match &mut self.state {
                State::Over => break,
                State::Waiting => {
                    ready!(self.timer.as_mut().poll(cx));
                    let call = (self.open)(self.request.clone(), self.stuck);
                    self.state = State::Opening(call);
                    self.set_timer(self.patience);
                }
                State::Opening(call) => match call.as_mut().poll(cx) {
                    Poll::Ready(Ok(messages)) => {
                        self.state = State::Open {
                            messages,
                            since: Instant::now(),
                            end: None,
                        };
                        self.set_timer(self.patience);
                    }
                    Poll::Ready(Err(error)) => self.cut(error, None)?,
                    Poll::Pending => {
                        ready!(self.timer.as_mut().poll(cx));
                        self.cut(Error::Silent(self.patience), None)?;
                    }
                },
                State::Open {
                    messages,
                    since,
                    end,
                } => match messages.poll_next_unpin(cx) {
                    Poll::Ready(Some(Ok(message))) => {
                        if since.elapsed() >= HEALTHY {
                            self.backoff.reset();
                        }
                        let last = match self.take(message) {
                            Ok(last) => last,
                            Err(error) => return Poll::Ready(self.cut(error, None)),
                        };
                        self.set_timer(if last.is_some() {
                            CLOSING
                        } else {
                            self.patience
                        });
                        if let (State::Open { end, .. }, Some(_)) = (&mut self.state, &last) {
                            *end = last;
                        }
                    }
                    Poll::Ready(Some(Err(error))) => {
                        let end = end.take();
                        self.closed(end, Some(error))?;
                    }
                    Poll::Ready(None) => {
                        let end = end.take();
                        self.closed(end, None)?;
                    }
                    Poll::Pending => {
                        ready!(self.timer.as_mut().poll(cx));
                        match end.take() {
                            Some(end) => self.closed(Some(end), None)?,
                            None => self.cut(Error::Silent(self.patience), None)?,
                        }
                    }
                },
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Stream for Watch {
    type Item = Result<WatchEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match ready!(self.turn(cx)) {
            Ok(()) => Poll::Ready(self.told.pop_front().map(Ok)),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Waiting => "Waiting",
            State::Opening(_) => "Opening",
            State::Open { .. } => "Open",
            State::Over => "Over",
        };
        f.debug_struct("Watch")
            .field("request", &self.request)
            .field("state", &state)
            .finish()
    }
}

impl TryFrom<Event> for WatchEvent {
    type Error = Error;

    fn try_from(event: Event) -> Result<Self, Error> {
        match event.r#type() {
            EventType::Upsert => Ok(Self::Upsert {
                revision: event.revision,
                received_unix_nanos: event.received_unix_nanos,
                object: Object {
                    namespace: event.namespace,
                    name: event.name,
                    uid: event.uid,
                    resource_version: event.resource_version,
                    object: event.object,
                    stale: event.stale,
                },
            }),
            EventType::Delete => Ok(Self::Delete {
                // A cause that this client does not know is to be read as DELETED.
                cause: DeleteCause::try_from(event.cause).unwrap_or(DeleteCause::Deleted),
                namespace: event.namespace,
                name: event.name,
                uid: event.uid,
                revision: event.revision,
            }),
            EventType::Unspecified => Err(Error::Contract(format!(
                "an event of type {}",
                event.r#type
            ))),
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
