"""What can be listed and watched: objects of one kind, and verdicts.

A feed is a value that says what is wanted and how; a token belongs to the feed that it was received for. It also
knows how its messages read, so that everything behind it (lists, watches, mirrors) is written once.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, Union

from informerd.errors import ContractError
from informerd.events import Delete, Upsert
from informerd.model import DeleteCause, Freshness, Object, ObjectKey, State, Target, Verdict, duration
from informerd.v1 import cache_pb2, cache_pb2_grpc, readiness_pb2, readiness_pb2_grpc, types_pb2

__all__ = ["Changes", "Delivery", "Feed", "Objects", "OnGap", "OnRevoke", "Verdicts", "View"]

K = TypeVar("K")
T = TypeVar("T")


class View(enum.Enum):
    """How much of each object is sent."""

    #: Identity only, no content.
    KEYS = types_pb2.VIEW_KEYS
    #: apiVersion, kind and metadata.
    METADATA = types_pb2.VIEW_METADATA
    #: The whole object as cached, that is, after pruning.
    FULL = types_pb2.VIEW_FULL


class Delivery(enum.Enum):
    """How many of an object's revisions are delivered."""

    #: Always converges; several changes of one object may fold into its latest where the consumer is behind.
    LATEST = cache_pb2.DELIVERY_LATEST
    #: Each revision; the watch raises a :class:`CallError` with the code OUT_OF_RANGE where one cannot be had: its
    #: reason is HISTORY_GAP (informerd had to list the kind anew) or PAST_JOURNAL (it no longer remembers).
    EVERY = cache_pb2.DELIVERY_EVERY


class Changes(enum.Enum):
    """Which changes are worth an event."""

    ALL = enum.auto()
    #: Of objects: only what the view and the fields let one see.
    VISIBLE = enum.auto()
    #: Of objects: only changes of metadata.generation, creation and deletion.
    GENERATION = enum.auto()
    #: Of verdicts: only where the state of the verdict or of one of its conditions differs, or its uid.
    TRANSITIONS = enum.auto()


class OnGap(enum.Enum):
    """What happens when a stream cannot be continued from where it was."""

    #: It starts over: ResetBegin, everything, ResetEnd.
    RESET = cache_pb2.ON_GAP_RESET
    #: It fails with OUT_OF_RANGE.
    FAIL = cache_pb2.ON_GAP_FAIL


class OnRevoke(enum.Enum):
    """What happens when the caller loses the right to what it watches."""

    #: The watch fails with PERMISSION_DENIED.
    END = cache_pb2.ON_REVOKE_END
    #: The objects are retracted with the cause REVOKED, and the watch goes on.
    RETRACT = cache_pb2.ON_REVOKE_RETRACT


class Feed(Protocol[K, T]):
    """What lists and watches need to know of what they are of."""

    @property
    def bookmark_interval(self) -> float | None:
        """How often an idle watch gets a mark, in seconds."""

    @property
    def counted(self) -> bool:
        """Whether marks have digests to hold what was told against."""

    @property
    def leaves_nothing_out(self) -> bool:
        """Whether a watch must fail rather than begin anew."""

    def list_call(self, channel: Any) -> Any:
        """The call that lists, of a channel of either kind."""

    def list_request(self) -> Any:
        """For it."""

    def read_list(self, page: Any) -> tuple[Iterable[T], Any, Mapping[str, Freshness]]:
        """The items of a page, its end mark (or None) and what that says of freshness."""

    def watch_call(self, channel: Any) -> Any:
        """The call that watches, of a channel of either kind."""

    def watch_request(self, token: bytes) -> Any:
        """For it."""

    def read_event(self, event: Any) -> Upsert[K, T] | Delete[K]:
        """One event of a message."""

    def covers(self, mark: Any) -> tuple[str, ...]:
        """Which part of the scope a reset covers; empty means all."""

    def freshness(self, mark: Any) -> Mapping[str, Freshness]:
        """What a mark says of it, by kind."""

    def part_of(self, key: K) -> str:
        """The part of the scope that a reset may cover and that this belongs to."""

    def key_of(self, item: T) -> K:
        """What an item is known by."""


_CHANGES_OF_OBJECTS = {
    Changes.ALL: cache_pb2.CHANGES_ALL,
    Changes.VISIBLE: cache_pb2.CHANGES_VISIBLE,
    Changes.GENERATION: cache_pb2.CHANGES_GENERATION,
}

_CHANGES_OF_VERDICTS = {
    Changes.ALL: readiness_pb2.READINESS_CHANGES_ALL,
    Changes.TRANSITIONS: readiness_pb2.READINESS_CHANGES_TRANSITIONS,
}


@dataclass(frozen=True, slots=True)
class Objects:
    """Cached objects of one kind."""

    #: The kind as people name it: ``pods``, ``po``, ``deployments.apps``.
    resource: str
    #: Only of these namespaces; all where empty. Not for cluster-scoped kinds.
    namespaces: str | Sequence[str] = ()
    #: Only the object of this name; of a namespaced kind in exactly one namespace.
    name: str = ""
    #: ``app=web,tier in (a,b),!canary``.
    label_selector: str = ""
    #: ``spec.nodeName=n1,status.phase notin (Failed,Succeeded)``.
    field_selector: str = ""
    view: View = View.FULL
    #: Paths to keep of each object, as in ``.spec.containers[*].image``; all of the view where empty.
    fields: Sequence[str] = ()
    #: Begin only at or past this resourceVersion, one that a write to an object of this kind returned.
    min_resource_version: str = ""
    #: Of a list: prove it fresh against the API server before it is given.
    consistent: bool = False
    #: Of a single object of a kind of which only metadata is cached, where informerd's config lets one have it: read all
    #: of it from the API server.
    read_through: bool = False
    delivery: Delivery = Delivery.LATEST
    changes: Changes = Changes.ALL
    #: RESET where not set; with ``Delivery.EVERY``, which does not go with RESET, FAIL.
    on_gap: OnGap | None = None
    on_revoke: OnRevoke = OnRevoke.END
    #: At most one event per object in so many seconds, the latest.
    min_interval: float | None = None
    #: How often an idle watch gets a mark, in seconds; informerd's default is 10.
    bookmark_interval: float | None = None
    #: Hold what a watch tells against informerd's digests (docs/digest.md), where the scope allows, and begin anew where
    #: they differ. Costs about 10 us an event.
    digests: bool = True

    @property
    def counted(self) -> bool:
        narrow = self.name or self.label_selector or self.field_selector
        return self.digests and self.changes is Changes.ALL and not narrow

    @property
    def leaves_nothing_out(self) -> bool:
        return self.delivery is Delivery.EVERY or self.on_gap is OnGap.FAIL

    def _scope(self) -> types_pb2.Scope:
        return types_pb2.Scope(
            resource=self.resource,
            namespaces=_strings(self.namespaces),
            name=self.name,
            label_selector=self.label_selector,
            field_selector=self.field_selector,
        )

    def get_request(self) -> cache_pb2.GetObjectRequest:
        """For one object."""
        return cache_pb2.GetObjectRequest(
            scope=self._scope(),
            view=self.view.value,
            fields=_strings(self.fields),
            min_resource_version=self.min_resource_version,
            consistent=self.consistent,
            read_through=self.read_through,
        )

    def list_call(self, channel: Any) -> Any:
        return cache_pb2_grpc.CacheServiceStub(channel).ListObjects

    def list_request(self) -> cache_pb2.ListObjectsRequest:
        return cache_pb2.ListObjectsRequest(
            scope=self._scope(),
            view=self.view.value,
            fields=_strings(self.fields),
            min_resource_version=self.min_resource_version,
            consistent=self.consistent,
        )

    def read_list(
        self, page: cache_pb2.ListObjectsResponse
    ) -> tuple[Iterable[Object], cache_pb2.ListEnd | None, Mapping[str, Freshness]]:
        objects = [Object.from_proto(it) for it in page.objects]
        if not page.HasField("end"):
            return objects, None, {}
        return objects, page.end, self.freshness(page.end)

    def watch_call(self, channel: Any) -> Any:
        return cache_pb2_grpc.CacheServiceStub(channel).WatchObjects

    def watch_request(self, token: bytes) -> cache_pb2.WatchObjectsRequest:
        return cache_pb2.WatchObjectsRequest(
            scope=self._scope(),
            view=self.view.value,
            fields=_strings(self.fields),
            token=token,
            delivery=self.delivery.value,
            changes=_changes(_CHANGES_OF_OBJECTS, self.changes),
            on_gap=cache_pb2.ON_GAP_UNSPECIFIED if self.on_gap is None else self.on_gap.value,
            on_revoke=self.on_revoke.value,
            min_interval=duration(self.min_interval),
            bookmark_interval=duration(self.bookmark_interval),
            min_resource_version=self.min_resource_version,
            digests=self.counted,
        )

    def read_event(self, event: cache_pb2.Event) -> Upsert[ObjectKey, Object] | Delete[ObjectKey]:
        if event.type == cache_pb2.EVENT_TYPE_UPSERT:
            item = Object.from_proto(event)
            return Upsert(item.key, item, event.revision, event.received_unix_nanos)
        if event.type == cache_pb2.EVENT_TYPE_DELETE:
            key = ObjectKey(event.namespace, event.name)
            return Delete(key, event.uid, DeleteCause(event.cause), event.revision)
        raise ContractError(f"an event of type {event.type}")

    def covers(self, mark: cache_pb2.Mark) -> tuple[str, ...]:
        return tuple(mark.namespaces)

    def freshness(self, mark: cache_pb2.Mark | cache_pb2.ListEnd) -> Mapping[str, Freshness]:
        return {self.resource: Freshness.from_proto(mark.freshness)}

    def part_of(self, key: ObjectKey) -> str:
        return key.namespace

    def key_of(self, item: Object) -> ObjectKey:
        return item.key


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Verdicts on targets of some kinds, or of all that are judged."""

    #: Kinds as people name them; all that are judged where empty.
    resources: str | Sequence[str] = ()
    #: All where empty. Cluster-scoped targets are in no namespace.
    namespaces: str | Sequence[str] = ()
    #: All where empty.
    names: str | Sequence[str] = ()
    #: On the labels of the target.
    label_selector: str = ""
    #: Only verdicts of these states; all where empty.
    states: Sequence[State] = ()
    #: ALL or TRANSITIONS.
    changes: Changes = Changes.ALL
    on_gap: OnGap = OnGap.RESET
    #: How often an idle watch gets a mark, in seconds; informerd's default is 10.
    bookmark_interval: float | None = None

    @property
    def counted(self) -> bool:
        return False

    @property
    def leaves_nothing_out(self) -> bool:
        return self.on_gap is OnGap.FAIL

    def _scope(self) -> readiness_pb2.ReadinessScope:
        return readiness_pb2.ReadinessScope(
            resources=_strings(self.resources),
            namespaces=_strings(self.namespaces),
            names=_strings(self.names),
            label_selector=self.label_selector,
            states=[it.value for it in self.states],
        )

    def list_call(self, channel: Any) -> Any:
        return readiness_pb2_grpc.ReadinessServiceStub(channel).ListReadiness

    def list_request(self) -> readiness_pb2.ListReadinessRequest:
        return readiness_pb2.ListReadinessRequest(scope=self._scope())

    def read_list(
        self, page: readiness_pb2.ListReadinessResponse
    ) -> tuple[Iterable[Verdict], readiness_pb2.ReadinessListEnd | None, Mapping[str, Freshness]]:
        verdicts = [Verdict.from_proto(it) for it in page.verdicts]
        if not page.HasField("end"):
            return verdicts, None, {}
        return verdicts, page.end, self.freshness(page.end)

    def watch_call(self, channel: Any) -> Any:
        return readiness_pb2_grpc.ReadinessServiceStub(channel).WatchReadiness

    def watch_request(self, token: bytes) -> readiness_pb2.WatchReadinessRequest:
        return readiness_pb2.WatchReadinessRequest(
            scope=self._scope(),
            token=token,
            changes=_changes(_CHANGES_OF_VERDICTS, self.changes),
            on_gap=self.on_gap.value,
            bookmark_interval=duration(self.bookmark_interval),
        )

    def read_event(self, event: readiness_pb2.ReadinessEvent) -> Upsert[Target, Verdict] | Delete[Target]:
        if event.type == cache_pb2.EVENT_TYPE_UPSERT:
            item = Verdict.from_proto(event.verdict)
            return Upsert(item.target, item, event.revision)
        if event.type == cache_pb2.EVENT_TYPE_DELETE:
            target = Target.from_proto(event.verdict.target)
            return Delete(target, event.verdict.uid, DeleteCause(event.cause), event.revision)
        raise ContractError(f"an event of type {event.type}")

    def covers(self, mark: readiness_pb2.ReadinessMark) -> tuple[str, ...]:
        return tuple(mark.resources)

    def freshness(
        self, mark: readiness_pb2.ReadinessMark | readiness_pb2.ReadinessListEnd
    ) -> Mapping[str, Freshness]:
        return {it.resource: Freshness.from_proto(it.freshness) for it in mark.kinds}

    def part_of(self, key: Target) -> str:
        return key.resource

    def key_of(self, item: Verdict) -> Target:
        return item.target


Number = TypeVar("Number")


def _changes(known: Mapping[Changes, Number], changes: Changes) -> Number:
    try:
        return known[changes]
    except KeyError:
        names = ", ".join(it.name for it in known)
        raise ValueError(f"changes {changes.name} cannot be watched here, only {names}") from None


def _strings(value: Union[str, Sequence[str]]) -> Sequence[str]:
    """One string is meant as a list of one, not as its letters."""
    if isinstance(value, str):
        return [value] if value else []
    return value
