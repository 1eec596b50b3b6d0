"""A watch that lasts, without the transport: it is told what came and says what to tell the consumer.

Events are told once the mark comes that they count with, which follows directly behind them; so whatever is told
stands, and a cut needs nothing to be taken back. Both the blocking and the asyncio watch turn this one machine.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import grpc

from informerd.backoff import Backoff
from informerd.errors import EXPIRED, CallError, ContractError, Differs, Ended, Error
from informerd.events import Delete, Event, Mark, MarkType, Reconnecting, ResetBegin, ResetEnd, Upsert
from informerd.feeds import Feed
from informerd.ledger import Ledger
from informerd.model import Freshness, Object, ObjectKey, seconds
from informerd.v1 import cache_pb2

__all__ = ["CLOSING", "Follower"]

K = TypeVar("K")
T = TypeVar("T")

_LOG = logging.getLogger("informerd")
# informerd's own interval of bookmarks, where the request does not set one.
_BOOKMARK_INTERVAL = 10.0
# A stream that still delivers after this long was worth opening: the next failure is a first one.
_HEALTHY = 10.0
# How long credentials that have ended may take to be replaced.
_RENEWAL = 60.0
#: How long to wait for the status after the last message.
CLOSING = 5.0


class Follower(Generic[K, T]):
    """What was told and what is to be told; see the module's documentation."""

    def __init__(self, feed: Feed[K, T], token: bytes) -> None:
        self._feed = feed
        self.token = token
        #: To be given to the consumer, in order.
        self.told: deque[Event[K, T]] = deque()
        #: How long nothing may come, in seconds.
        self.patience = 3 * (feed.bookmark_interval or _BOOKMARK_INTERVAL)
        self._backoff = Backoff()
        self._opened = 0.0
        # Until when nobody need be let in, since the credentials have ended and new ones are to come.
        self._renewed_by = 0.0
        # The resets that have begun and not ended, by what they cover.
        self._resets: list[tuple[str, ...]] = []
        # Since the last token, outside a reset. What a cut leaves here may never be spoken of again.
        self._unsettled: list[Upsert[K, T] | Delete[K]] = []
        self._end: Any = None
        # Counts what is told, where marks have digests to hold that against.
        self._ledger = Ledger() if feed.counted else None
        #: How often what was told was not what informerd holds.
        self.mismatches = 0

    @property
    def is_ending(self) -> bool:
        """Whether informerd has said that nothing more comes but the status."""
        return self._end is not None

    def opened(self, now: float) -> Any:
        """A call is made now, with this request."""
        self._opened = now
        self._end = None
        return self._feed.watch_request(self.token)

    def take(self, message: Any, now: float) -> None:
        """A message came. Raises what cannot be understood."""
        if now - self._opened >= _HEALTHY:
            self._backoff.reset()
        for event in message.events:
            read = self._feed.read_event(event)
            if self._resets:
                self._tell(read)
            else:
                self._unsettled.append(read)
        if message.HasField("mark"):
            self._mark(message.mark)

    def cut(self, error: Error | None, now: float) -> float:
        """The call is over, by this error if there was one. Gives the seconds until the next; raises what is final."""
        end, self._end = self._end, None
        self._resets.clear()
        self._unsettled.clear()
        if self._ledger is not None:
            self._ledger.cut()
            if isinstance(error, Differs):
                self._ledger.forget()
                self.token = b""
        if error is not None and error.reason == EXPIRED:
            self._renewed_by = now + _RENEWAL
        elif error is not None and error.permanent and not self._may_be_renewed(error, now):
            self.told.clear()
            raise error
        asked = error.retry_delay if error is not None else None
        if end is not None:
            if end.HasField("retry_after"):
                asked = seconds(end.retry_after)
            error = Ended(end.reason, end.message, asked)
        elif error is None:
            error = Ended("", "the watch was closed without a word", None)
        delay = self._backoff.next(asked)
        self.told.append(Reconnecting(error, delay))
        return delay

    def _may_be_renewed(self, error: Error, now: float) -> bool:
        is_nobody = isinstance(error, CallError) and error.code is grpc.StatusCode.UNAUTHENTICATED
        return is_nobody and now < self._renewed_by

    def _mark(self, mark: Any) -> None:
        covers = self._feed.covers(mark)
        if mark.type == cache_pb2.MARK_TYPE_RESET:
            # What other parts were told goes on to wait for its token.
            self._unsettled = [it for it in self._unsettled if covers and self._feed.part_of(it.key) not in covers]
            self._resets = [it for it in self._resets if it != covers]
            self._resets.append(covers)
            if self._ledger is not None:
                self._ledger.begin(covers)
            self.told.append(ResetBegin(mark.reason, mark.message, covers))
            return
        freshness = self._feed.freshness(mark)
        if mark.type == cache_pb2.MARK_TYPE_RESET_END:
            if covers not in self._resets:
                raise ContractError("RESET_END without a RESET")
            self._resets.remove(covers)
            end = ResetEnd(covers, self._advance(mark.token), freshness)
            if self._ledger is not None:
                self._ledger.end(covers)
            self._compare(freshness)
            self.told.append(end)
            return
        told = Mark(MarkType(mark.type), self._advance(mark.token), freshness)
        self._compare(freshness)
        self.told.append(told)
        if mark.type == cache_pb2.MARK_TYPE_END:
            self._end = mark

    def _advance(self, token: bytes) -> bytes | None:
        """Moves the token. Within a reset the old one stays valid, and only that."""
        if not token or self._resets:
            return None
        self.token = token
        for event in self._unsettled:
            self._tell(event)
        self._unsettled.clear()
        return token

    def _tell(self, event: Upsert[K, T] | Delete[K]) -> None:
        """Tells of an item, and counts it."""
        if self._ledger is not None and isinstance(event.key, ObjectKey):
            namespace, name = event.key.namespace, event.key.name
            if isinstance(event, Delete):
                self._ledger.delete(namespace, name, event.uid)
            elif isinstance(event.item, Object):
                self._ledger.upsert(namespace, name, event.item.uid, event.item.resource_version)
        self.told.append(event)

    def _compare(self, freshness: Mapping[str, Freshness]) -> None:
        """Holds all that was told until a mark against the digests that the mark has. Raises where the watch is to
        begin anew for it."""
        if self._ledger is None:
            return
        differs, anew = self._ledger.differs(freshness)
        if differs:
            self.mismatches += 1
            _LOG.warning("what a watch of %s was told is not what informerd holds", self._feed)
        if anew:
            raise Differs(permanent=self._feed.leaves_nothing_out)
