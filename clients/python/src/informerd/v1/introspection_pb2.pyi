import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from informerd.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListKindsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListKindsResponse(_message.Message):
    __slots__ = ("kinds",)
    KINDS_FIELD_NUMBER: _ClassVar[int]
    kinds: _containers.RepeatedCompositeFieldContainer[KindStatus]
    def __init__(self, kinds: _Optional[_Iterable[_Union[KindStatus, _Mapping]]] = ...) -> None: ...

class KindStatus(_message.Message):
    __slots__ = ("resource", "api_version", "kind", "namespaced", "aliases", "freshness", "since", "objects", "object_bytes", "journal_entries", "journal_bytes", "journal_span", "watches_opened", "watches_open", "relists", "undecodable", "digest_mismatches", "consumers", "shards", "label_selector", "field_selector", "metadata_only")
    class RelistsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    API_VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACED_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    FRESHNESS_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    OBJECT_BYTES_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_SPAN_FIELD_NUMBER: _ClassVar[int]
    WATCHES_OPENED_FIELD_NUMBER: _ClassVar[int]
    WATCHES_OPEN_FIELD_NUMBER: _ClassVar[int]
    RELISTS_FIELD_NUMBER: _ClassVar[int]
    UNDECODABLE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_MISMATCHES_FIELD_NUMBER: _ClassVar[int]
    CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    LABEL_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    FIELD_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    METADATA_ONLY_FIELD_NUMBER: _ClassVar[int]
    resource: str
    api_version: str
    kind: str
    namespaced: bool
    aliases: _containers.RepeatedScalarFieldContainer[str]
    freshness: _types_pb2.Freshness
    since: _timestamp_pb2.Timestamp
    objects: int
    object_bytes: int
    journal_entries: int
    journal_bytes: int
    journal_span: _duration_pb2.Duration
    watches_opened: int
    watches_open: int
    relists: _containers.ScalarMap[str, int]
    undecodable: int
    digest_mismatches: int
    consumers: int
    shards: _containers.RepeatedCompositeFieldContainer[ShardStatus]
    label_selector: str
    field_selector: str
    metadata_only: bool
    def __init__(self, resource: _Optional[str] = ..., api_version: _Optional[str] = ..., kind: _Optional[str] = ..., namespaced: bool = ..., aliases: _Optional[_Iterable[str]] = ..., freshness: _Optional[_Union[_types_pb2.Freshness, _Mapping]] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., objects: _Optional[int] = ..., object_bytes: _Optional[int] = ..., journal_entries: _Optional[int] = ..., journal_bytes: _Optional[int] = ..., journal_span: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., watches_opened: _Optional[int] = ..., watches_open: _Optional[int] = ..., relists: _Optional[_Mapping[str, int]] = ..., undecodable: _Optional[int] = ..., digest_mismatches: _Optional[int] = ..., consumers: _Optional[int] = ..., shards: _Optional[_Iterable[_Union[ShardStatus, _Mapping]]] = ..., label_selector: _Optional[str] = ..., field_selector: _Optional[str] = ..., metadata_only: bool = ...) -> None: ...

class ShardStatus(_message.Message):
    __slots__ = ("namespace", "state", "reason", "message", "since", "revision", "digest", "objects")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    state: _types_pb2.KindState
    reason: str
    message: str
    since: _timestamp_pb2.Timestamp
    revision: int
    digest: int
    objects: int
    def __init__(self, namespace: _Optional[str] = ..., state: _Optional[_Union[_types_pb2.KindState, str]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revision: _Optional[int] = ..., digest: _Optional[int] = ..., objects: _Optional[int] = ...) -> None: ...

class ListConsumersRequest(_message.Message):
    __slots__ = ("resource",)
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    resource: str
    def __init__(self, resource: _Optional[str] = ...) -> None: ...

class ListConsumersResponse(_message.Message):
    __slots__ = ("consumers",)
    CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    consumers: _containers.RepeatedCompositeFieldContainer[Consumer]
    def __init__(self, consumers: _Optional[_Iterable[_Union[Consumer, _Mapping]]] = ...) -> None: ...

class Consumer(_message.Message):
    __slots__ = ("id", "peer", "user_agent", "method", "scope", "view", "fields", "since", "events_sent", "bytes_sent", "position", "lag_changes", "stalled", "resets", "clipped")
    ID_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    USER_AGENT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    EVENTS_SENT_FIELD_NUMBER: _ClassVar[int]
    BYTES_SENT_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    LAG_CHANGES_FIELD_NUMBER: _ClassVar[int]
    STALLED_FIELD_NUMBER: _ClassVar[int]
    RESETS_FIELD_NUMBER: _ClassVar[int]
    CLIPPED_FIELD_NUMBER: _ClassVar[int]
    id: int
    peer: str
    user_agent: str
    method: str
    scope: _types_pb2.Scope
    view: _types_pb2.View
    fields: _containers.RepeatedScalarFieldContainer[str]
    since: _timestamp_pb2.Timestamp
    events_sent: int
    bytes_sent: int
    position: str
    lag_changes: int
    stalled: _duration_pb2.Duration
    resets: int
    clipped: bool
    def __init__(self, id: _Optional[int] = ..., peer: _Optional[str] = ..., user_agent: _Optional[str] = ..., method: _Optional[str] = ..., scope: _Optional[_Union[_types_pb2.Scope, _Mapping]] = ..., view: _Optional[_Union[_types_pb2.View, str]] = ..., fields: _Optional[_Iterable[str]] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., events_sent: _Optional[int] = ..., bytes_sent: _Optional[int] = ..., position: _Optional[str] = ..., lag_changes: _Optional[int] = ..., stalled: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., resets: _Optional[int] = ..., clipped: bool = ...) -> None: ...
