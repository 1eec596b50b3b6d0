import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from informerd.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Delivery(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DELIVERY_UNSPECIFIED: _ClassVar[Delivery]
    DELIVERY_LATEST: _ClassVar[Delivery]
    DELIVERY_EVERY: _ClassVar[Delivery]

class Changes(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHANGES_UNSPECIFIED: _ClassVar[Changes]
    CHANGES_ALL: _ClassVar[Changes]
    CHANGES_VISIBLE: _ClassVar[Changes]
    CHANGES_GENERATION: _ClassVar[Changes]

class OnGap(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_GAP_UNSPECIFIED: _ClassVar[OnGap]
    ON_GAP_RESET: _ClassVar[OnGap]
    ON_GAP_FAIL: _ClassVar[OnGap]

class OnRevoke(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_REVOKE_UNSPECIFIED: _ClassVar[OnRevoke]
    ON_REVOKE_END: _ClassVar[OnRevoke]
    ON_REVOKE_RETRACT: _ClassVar[OnRevoke]

class EventType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_TYPE_UNSPECIFIED: _ClassVar[EventType]
    EVENT_TYPE_UPSERT: _ClassVar[EventType]
    EVENT_TYPE_DELETE: _ClassVar[EventType]

class DeleteCause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DELETE_CAUSE_UNSPECIFIED: _ClassVar[DeleteCause]
    DELETE_CAUSE_DELETED: _ClassVar[DeleteCause]
    DELETE_CAUSE_LEFT_SELECTOR: _ClassVar[DeleteCause]
    DELETE_CAUSE_VANISHED: _ClassVar[DeleteCause]
    DELETE_CAUSE_REPLACED: _ClassVar[DeleteCause]
    DELETE_CAUSE_REVOKED: _ClassVar[DeleteCause]
    DELETE_CAUSE_DELETED_OR_LEFT: _ClassVar[DeleteCause]

class MarkType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MARK_TYPE_UNSPECIFIED: _ClassVar[MarkType]
    MARK_TYPE_PROGRESS: _ClassVar[MarkType]
    MARK_TYPE_BOOKMARK: _ClassVar[MarkType]
    MARK_TYPE_STATE: _ClassVar[MarkType]
    MARK_TYPE_RESET: _ClassVar[MarkType]
    MARK_TYPE_RESET_END: _ClassVar[MarkType]
    MARK_TYPE_END: _ClassVar[MarkType]
DELIVERY_UNSPECIFIED: Delivery
DELIVERY_LATEST: Delivery
DELIVERY_EVERY: Delivery
CHANGES_UNSPECIFIED: Changes
CHANGES_ALL: Changes
CHANGES_VISIBLE: Changes
CHANGES_GENERATION: Changes
ON_GAP_UNSPECIFIED: OnGap
ON_GAP_RESET: OnGap
ON_GAP_FAIL: OnGap
ON_REVOKE_UNSPECIFIED: OnRevoke
ON_REVOKE_END: OnRevoke
ON_REVOKE_RETRACT: OnRevoke
EVENT_TYPE_UNSPECIFIED: EventType
EVENT_TYPE_UPSERT: EventType
EVENT_TYPE_DELETE: EventType
DELETE_CAUSE_UNSPECIFIED: DeleteCause
DELETE_CAUSE_DELETED: DeleteCause
DELETE_CAUSE_LEFT_SELECTOR: DeleteCause
DELETE_CAUSE_VANISHED: DeleteCause
DELETE_CAUSE_REPLACED: DeleteCause
DELETE_CAUSE_REVOKED: DeleteCause
DELETE_CAUSE_DELETED_OR_LEFT: DeleteCause
MARK_TYPE_UNSPECIFIED: MarkType
MARK_TYPE_PROGRESS: MarkType
MARK_TYPE_BOOKMARK: MarkType
MARK_TYPE_STATE: MarkType
MARK_TYPE_RESET: MarkType
MARK_TYPE_RESET_END: MarkType
MARK_TYPE_END: MarkType

class Object(_message.Message):
    __slots__ = ("namespace", "name", "uid", "resource_version", "object", "stale")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_VERSION_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    uid: str
    resource_version: str
    object: bytes
    stale: bool
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., uid: _Optional[str] = ..., resource_version: _Optional[str] = ..., object: _Optional[bytes] = ..., stale: bool = ...) -> None: ...

class GetObjectRequest(_message.Message):
    __slots__ = ("scope", "view", "fields", "min_resource_version", "consistent", "read_through")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    MIN_RESOURCE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CONSISTENT_FIELD_NUMBER: _ClassVar[int]
    READ_THROUGH_FIELD_NUMBER: _ClassVar[int]
    scope: _types_pb2.Scope
    view: _types_pb2.View
    fields: _containers.RepeatedScalarFieldContainer[str]
    min_resource_version: str
    consistent: bool
    read_through: bool
    def __init__(self, scope: _Optional[_Union[_types_pb2.Scope, _Mapping]] = ..., view: _Optional[_Union[_types_pb2.View, str]] = ..., fields: _Optional[_Iterable[str]] = ..., min_resource_version: _Optional[str] = ..., consistent: bool = ..., read_through: bool = ...) -> None: ...

class GetObjectResponse(_message.Message):
    __slots__ = ("object", "freshness")
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    FRESHNESS_FIELD_NUMBER: _ClassVar[int]
    object: Object
    freshness: _types_pb2.Freshness
    def __init__(self, object: _Optional[_Union[Object, _Mapping]] = ..., freshness: _Optional[_Union[_types_pb2.Freshness, _Mapping]] = ...) -> None: ...

class ListObjectsRequest(_message.Message):
    __slots__ = ("scope", "view", "fields", "min_resource_version", "consistent")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    MIN_RESOURCE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CONSISTENT_FIELD_NUMBER: _ClassVar[int]
    scope: _types_pb2.Scope
    view: _types_pb2.View
    fields: _containers.RepeatedScalarFieldContainer[str]
    min_resource_version: str
    consistent: bool
    def __init__(self, scope: _Optional[_Union[_types_pb2.Scope, _Mapping]] = ..., view: _Optional[_Union[_types_pb2.View, str]] = ..., fields: _Optional[_Iterable[str]] = ..., min_resource_version: _Optional[str] = ..., consistent: bool = ...) -> None: ...

class ListObjectsResponse(_message.Message):
    __slots__ = ("objects", "end")
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    objects: _containers.RepeatedCompositeFieldContainer[Object]
    end: ListEnd
    def __init__(self, objects: _Optional[_Iterable[_Union[Object, _Mapping]]] = ..., end: _Optional[_Union[ListEnd, _Mapping]] = ...) -> None: ...

class ListEnd(_message.Message):
    __slots__ = ("token", "freshness", "count")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    FRESHNESS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    freshness: _types_pb2.Freshness
    count: int
    def __init__(self, token: _Optional[bytes] = ..., freshness: _Optional[_Union[_types_pb2.Freshness, _Mapping]] = ..., count: _Optional[int] = ...) -> None: ...

class WatchObjectsRequest(_message.Message):
    __slots__ = ("scope", "view", "fields", "token", "delivery", "changes", "on_gap", "on_revoke", "min_interval", "bookmark_interval", "min_resource_version", "max_batch_bytes", "digests")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    ON_GAP_FIELD_NUMBER: _ClassVar[int]
    ON_REVOKE_FIELD_NUMBER: _ClassVar[int]
    MIN_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    BOOKMARK_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    MIN_RESOURCE_VERSION_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    scope: _types_pb2.Scope
    view: _types_pb2.View
    fields: _containers.RepeatedScalarFieldContainer[str]
    token: bytes
    delivery: Delivery
    changes: Changes
    on_gap: OnGap
    on_revoke: OnRevoke
    min_interval: _duration_pb2.Duration
    bookmark_interval: _duration_pb2.Duration
    min_resource_version: str
    max_batch_bytes: int
    digests: bool
    def __init__(self, scope: _Optional[_Union[_types_pb2.Scope, _Mapping]] = ..., view: _Optional[_Union[_types_pb2.View, str]] = ..., fields: _Optional[_Iterable[str]] = ..., token: _Optional[bytes] = ..., delivery: _Optional[_Union[Delivery, str]] = ..., changes: _Optional[_Union[Changes, str]] = ..., on_gap: _Optional[_Union[OnGap, str]] = ..., on_revoke: _Optional[_Union[OnRevoke, str]] = ..., min_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., bookmark_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., min_resource_version: _Optional[str] = ..., max_batch_bytes: _Optional[int] = ..., digests: bool = ...) -> None: ...

class WatchObjectsResponse(_message.Message):
    __slots__ = ("events", "mark")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    mark: Mark
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., mark: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("type", "revision", "namespace", "name", "uid", "resource_version", "object", "cause", "stale", "received_unix_nanos")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_VERSION_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_UNIX_NANOS_FIELD_NUMBER: _ClassVar[int]
    type: EventType
    revision: int
    namespace: str
    name: str
    uid: str
    resource_version: str
    object: bytes
    cause: DeleteCause
    stale: bool
    received_unix_nanos: int
    def __init__(self, type: _Optional[_Union[EventType, str]] = ..., revision: _Optional[int] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., uid: _Optional[str] = ..., resource_version: _Optional[str] = ..., object: _Optional[bytes] = ..., cause: _Optional[_Union[DeleteCause, str]] = ..., stale: bool = ..., received_unix_nanos: _Optional[int] = ...) -> None: ...

class Mark(_message.Message):
    __slots__ = ("type", "token", "freshness", "reason", "message", "namespaces", "retry_after")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    FRESHNESS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    type: MarkType
    token: bytes
    freshness: _types_pb2.Freshness
    reason: str
    message: str
    namespaces: _containers.RepeatedScalarFieldContainer[str]
    retry_after: _duration_pb2.Duration
    def __init__(self, type: _Optional[_Union[MarkType, str]] = ..., token: _Optional[bytes] = ..., freshness: _Optional[_Union[_types_pb2.Freshness, _Mapping]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., namespaces: _Optional[_Iterable[str]] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
