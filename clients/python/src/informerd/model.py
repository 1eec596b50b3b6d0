"""What informerd tells: objects, verdicts and how fresh they are, as plain values.

The protobuf messages are not handed out: their enums are numbers and their times are pairs of numbers, and a value
that this version does not know would go unnoticed. Here it reads as what is safe: a state as UNKNOWN, a cause as
DELETED.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from informerd.errors import ContractError
from informerd.v1 import cache_pb2, readiness_pb2, types_pb2

__all__ = [
    "Condition",
    "DeleteCause",
    "Evidence",
    "Freshness",
    "KindState",
    "Object",
    "ObjectKey",
    "Part",
    "Position",
    "State",
    "Target",
    "Verdict",
]


class KindState(enum.Enum):
    """How well informerd knows a kind. All but LIVE serve the last complete state, if there was one."""

    UNSPECIFIED = types_pb2.KIND_STATE_UNSPECIFIED
    #: The API server does not serve the kind yet.
    WAITING = types_pb2.KIND_STATE_WAITING
    SYNCING = types_pb2.KIND_STATE_SYNCING
    LIVE = types_pb2.KIND_STATE_LIVE
    RELISTING = types_pb2.KIND_STATE_RELISTING
    FORBIDDEN = types_pb2.KIND_STATE_FORBIDDEN
    BACKING_OFF = types_pb2.KIND_STATE_BACKING_OFF
    REMOVED = types_pb2.KIND_STATE_REMOVED

    @classmethod
    def _missing_(cls, value: object) -> KindState:
        return cls.UNSPECIFIED


class DeleteCause(enum.Enum):
    """Why an object or a verdict left the scope."""

    DELETED = cache_pb2.DELETE_CAUSE_DELETED
    #: It still exists and no longer matches the selector.
    LEFT_SELECTOR = cache_pb2.DELETE_CAUSE_LEFT_SELECTOR
    #: Found missing when informerd listed the kind anew.
    VANISHED = cache_pb2.DELETE_CAUSE_VANISHED
    #: Replaced by another object of the same name (a new uid).
    REPLACED = cache_pb2.DELETE_CAUSE_REPLACED
    #: The caller lost the right to see it.
    REVOKED = cache_pb2.DELETE_CAUSE_REVOKED
    #: informerd watches the kind by a selector: deleted, or it left that selector and may still exist.
    DELETED_OR_LEFT = cache_pb2.DELETE_CAUSE_DELETED_OR_LEFT

    @classmethod
    def _missing_(cls, value: object) -> DeleteCause:
        return cls.DELETED


class State(enum.Enum):
    """Whether a target can be counted on."""

    #: It does what it is there for, as of its latest generation.
    READY = readiness_pb2.READINESS_STATE_READY
    #: It does not, or not yet.
    NOT_READY = readiness_pb2.READINESS_STATE_NOT_READY
    #: Nothing recent supports an answer.
    UNKNOWN = readiness_pb2.READINESS_STATE_UNKNOWN
    #: It does not exist.
    GONE = readiness_pb2.READINESS_STATE_GONE

    @classmethod
    def _missing_(cls, value: object) -> State:
        return cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class Position:
    """Where one shard of a kind stands."""

    revision: int
    #: See docs/digest.md; only where it was asked for and describes exactly what the caller holds.
    digest: int | None


@dataclass(frozen=True, slots=True)
class Freshness:
    """How fresh an answer is."""

    state: KindState
    #: One word saying why the kind is in that state, and the same for a person; empty when it is live.
    reason: str
    message: str
    #: Seconds since the API server last proved the kind current; of the worst shard. None where it never did.
    age: float | None
    #: The kind never proves itself between events: ``age`` is only the time since the last event.
    age_unproven: bool
    #: By the shard's namespace; one of the empty name for a kind that is watched as a whole.
    positions: Mapping[str, Position]
    #: The objects lack fields that informerd's config drops: to change an object, patch it.
    pruned: bool
    #: Resource versions of this kind have no order.
    unordered: bool

    @classmethod
    def from_proto(cls, message: types_pb2.Freshness) -> Freshness:
        """Reads it."""
        return cls(
            state=KindState(message.state),
            reason=message.reason,
            message=message.message,
            age=seconds(message.age) if message.HasField("age") else None,
            age_unproven=message.age_unproven,
            positions={
                it.namespace: Position(it.revision, it.digest if it.has_digest else None) for it in message.positions
            },
            pruned=message.pruned,
            unordered=message.unordered,
        )


@dataclass(frozen=True, order=True, slots=True)
class ObjectKey:
    """Which object of a kind."""

    #: Empty for a cluster-scoped object.
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Object:
    """An object as informerd has it."""

    key: ObjectKey
    uid: str
    resource_version: str
    #: JSON, pruned and cut to the view and fields asked for; empty for :attr:`View.KEYS`.
    json: bytes
    #: A newer version exists upstream but could not be decoded.
    stale: bool

    @property
    def namespace(self) -> str:
        """Empty for a cluster-scoped object."""
        return self.key.namespace

    @property
    def name(self) -> str:
        """Its name."""
        return self.key.name

    def content(self) -> dict[str, Any]:
        """The JSON, parsed anew at each call."""
        content: dict[str, Any] = json.loads(self.json) if self.json else {}
        return content

    @classmethod
    def from_proto(cls, message: cache_pb2.Object | cache_pb2.Event) -> Object:
        """Reads it; an event has the same fields."""
        return cls(
            key=ObjectKey(message.namespace, message.name),
            uid=message.uid,
            resource_version=message.resource_version,
            json=message.object,
            stale=message.stale,
        )


@dataclass(frozen=True, order=True, slots=True)
class Target:
    """What a verdict is about."""

    #: The kind as people name it: ``deploy``, ``deployments.apps``. In answers its full name.
    resource: str
    name: str
    #: Empty for a cluster-scoped target.
    namespace: str = ""

    @classmethod
    def parse(cls, text: str, namespace: str = "default") -> Target:
        """Reads ``deployment/web``. A cluster-scoped kind needs ``namespace=""``."""
        resource, slash, name = text.partition("/")
        if not (resource and slash and name) or "/" in name:
            raise ValueError(f"{text!r} is not a target: write deployment/web")
        return cls(resource, name, namespace)

    def __str__(self) -> str:
        return f"{self.resource}/{self.name}"

    @classmethod
    def from_proto(cls, message: readiness_pb2.Target) -> Target:
        """Reads it."""
        return cls(message.resource, message.name, message.namespace)

    def to_proto(self) -> readiness_pb2.Target:
        """For a request."""
        return readiness_pb2.Target(resource=self.resource, namespace=self.namespace, name=self.name)


@dataclass(frozen=True, slots=True)
class Evidence:
    """When the answers were taken that a verdict rests on: it held at some instant in between."""

    begin: datetime
    end: datetime

    @classmethod
    def from_proto(cls, holder: readiness_pb2.Verdict | readiness_pb2.ReadinessCondition) -> Evidence | None:
        """Reads it of what may have one."""
        if not holder.HasField("evidence"):
            return None
        # `from` is a word of Python's.
        return cls(moment(getattr(holder.evidence, "from")), moment(holder.evidence.to))


@dataclass(frozen=True, slots=True)
class Condition:
    """The answer to one further question about a target."""

    #: READY where it holds, NOT_READY where it does not.
    state: State
    reason: str
    message: str
    details: Mapping[str, Any]
    evidence: Evidence | None
    since: datetime | None
    expires: datetime | None

    @classmethod
    def from_proto(cls, message: readiness_pb2.ReadinessCondition) -> Condition:
        """Reads it."""
        return cls(
            state=State(message.state),
            reason=message.reason,
            message=message.message,
            details=_details(message.details),
            evidence=Evidence.from_proto(message),
            since=_time(message, "since"),
            expires=_time(message, "expires"),
        )


@dataclass(frozen=True, slots=True)
class Part:
    """Something that a target is made of: a pod, a node."""

    target: Target
    uid: str
    state: State
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be thought of a target."""

    target: Target
    state: State
    #: Why, in one word, and the same for a person.
    reason: str
    message: str
    #: What else is known; the fields depend on the kind.
    details: Mapping[str, Any]
    #: The target's metadata.generation, and the one that its own controller has acted on; 0 where it has none.
    generation: int
    observed_generation: int
    #: The object that was judged.
    uid: str
    resource_version: str
    evidence: Evidence | None
    #: When the state became what it is, as far as this replica has seen.
    since: datetime | None
    #: When the verdict becomes UNKNOWN unless it is renewed.
    expires: datetime | None
    #: Further questions, by name: ``Available``, ``Joined``, ``SafeToDisrupt``.
    conditions: Mapping[str, Condition]
    #: What the target is made of, those that are not ready first; at most 100.
    parts: tuple[Part, ...]
    #: How many parts there are, and how many of them are ready.
    parts_total: int
    parts_ready: int

    @property
    def ready(self) -> bool:
        """Whether the state is READY."""
        return self.state is State.READY

    def holds(self, condition: str) -> bool:
        """Whether the condition of this name is known to hold."""
        found = self.conditions.get(condition)
        return found is not None and found.state is State.READY

    @classmethod
    def from_proto(cls, message: readiness_pb2.Verdict) -> Verdict:
        """Reads it."""
        return cls(
            target=Target.from_proto(message.target),
            state=State(message.state),
            reason=message.reason,
            message=message.message,
            details=_details(message.details),
            generation=message.generation,
            observed_generation=message.observed_generation,
            uid=message.uid,
            resource_version=message.resource_version,
            evidence=Evidence.from_proto(message),
            since=_time(message, "since"),
            expires=_time(message, "expires"),
            conditions={it.name: Condition.from_proto(it) for it in message.conditions},
            parts=tuple(
                Part(Target.from_proto(it.target), it.uid, State(it.state), it.reason, it.message)
                for it in message.parts
            ),
            parts_total=message.parts_total,
            parts_ready=message.parts_ready,
        )


def seconds(duration: Duration) -> float:
    """A duration as Python has it."""
    return duration.seconds + duration.nanos / 1e9


def duration(value: float | None) -> Duration | None:
    """A number of seconds for a request."""
    if value is None:
        return None
    whole = int(value // 1)
    return Duration(seconds=whole, nanos=int((value - whole) * 1e9))


def moment(timestamp: Timestamp) -> datetime:
    """A time as Python has it, in UTC."""
    return timestamp.ToDatetime(tzinfo=timezone.utc)


def _time(message: Any, field: str) -> datetime | None:
    return moment(getattr(message, field)) if message.HasField(field) else None


def _details(text: bytes) -> Mapping[str, Any]:
    try:
        details = json.loads(text) if text else {}
    except ValueError as error:
        raise ContractError(f"details that are no JSON: {error}") from error
    if not isinstance(details, dict):
        raise ContractError("details that are no JSON object")
    return details
