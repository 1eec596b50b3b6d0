"""What a watch tells, the same for objects and for verdicts.

``K`` is what things are known by (:class:`ObjectKey`, :class:`Target`) and ``T`` what they are (:class:`Object`,
:class:`Verdict`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, Union

from informerd.errors import Error
from informerd.model import DeleteCause, Freshness
from informerd.v1 import cache_pb2

__all__ = ["Delete", "Event", "Mark", "MarkType", "Reconnecting", "ResetBegin", "ResetEnd", "Upsert"]

K = TypeVar("K")
T = TypeVar("T")


class MarkType(enum.Enum):
    """What a mark says."""

    #: Follows a flush of events: all up to here has been told.
    PROGRESS = cache_pb2.MARK_TYPE_PROGRESS
    #: From time to time on an idle stream.
    BOOKMARK = cache_pb2.MARK_TYPE_BOOKMARK
    #: The state of a kind changed; see the freshness.
    STATE = cache_pb2.MARK_TYPE_STATE
    #: The last one before informerd ends the stream, which then resumes by itself.
    END = cache_pb2.MARK_TYPE_END

    @classmethod
    def _missing_(cls, value: object) -> MarkType:
        return cls.PROGRESS


@dataclass(frozen=True, slots=True)
class ResetBegin:
    """A state begins that replaces what the consumer holds; the initial state too."""

    #: One word: INITIAL, PAST_JOURNAL, HISTORY_DIFFERS, ...; and the same for a person.
    reason: str
    message: str
    #: Which part of the scope it covers: namespaces of objects, kinds of verdicts. Empty means all.
    covers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Upsert(Generic[K, T]):
    """It is in scope and this is its content; it may have been before."""

    key: K
    item: T
    #: Position in the stream.
    revision: int
    #: When informerd received an object, Unix time in nanoseconds; 0 in a reset and of verdicts.
    received_unix_nanos: int = 0


@dataclass(frozen=True, slots=True)
class Delete(Generic[K]):
    """It left the scope."""

    key: K
    #: Which one of that name.
    uid: str
    cause: DeleteCause
    #: Position in the stream.
    revision: int


@dataclass(frozen=True, slots=True)
class ResetEnd:
    """The state that began with :class:`ResetBegin` is complete: what was not in it is gone."""

    covers: tuple[str, ...]
    #: Where to resume; ``None`` while another reset is open.
    token: bytes | None
    #: How well each kind is known, by its name.
    freshness: Mapping[str, Freshness]


@dataclass(frozen=True, slots=True)
class Mark:
    """All up to here has been told."""

    type: MarkType
    #: Where to resume, where this mark moved it.
    token: bytes | None
    #: How well each kind is known, by its name.
    freshness: Mapping[str, Freshness]


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """The stream was cut; a reset that was open is void. It resumes by itself after the delay."""

    error: Error
    #: Seconds until the next try.
    delay: float


Event = Union[ResetBegin, Upsert[K, T], Delete[K], ResetEnd, Mark, Reconnecting]
