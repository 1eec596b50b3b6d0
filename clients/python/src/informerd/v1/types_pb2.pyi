import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class View(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VIEW_UNSPECIFIED: _ClassVar[View]
    VIEW_KEYS: _ClassVar[View]
    VIEW_METADATA: _ClassVar[View]
    VIEW_FULL: _ClassVar[View]

class KindState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_STATE_UNSPECIFIED: _ClassVar[KindState]
    KIND_STATE_WAITING: _ClassVar[KindState]
    KIND_STATE_SYNCING: _ClassVar[KindState]
    KIND_STATE_LIVE: _ClassVar[KindState]
    KIND_STATE_RELISTING: _ClassVar[KindState]
    KIND_STATE_FORBIDDEN: _ClassVar[KindState]
    KIND_STATE_BACKING_OFF: _ClassVar[KindState]
    KIND_STATE_REMOVED: _ClassVar[KindState]
VIEW_UNSPECIFIED: View
VIEW_KEYS: View
VIEW_METADATA: View
VIEW_FULL: View
KIND_STATE_UNSPECIFIED: KindState
KIND_STATE_WAITING: KindState
KIND_STATE_SYNCING: KindState
KIND_STATE_LIVE: KindState
KIND_STATE_RELISTING: KindState
KIND_STATE_FORBIDDEN: KindState
KIND_STATE_BACKING_OFF: KindState
KIND_STATE_REMOVED: KindState

class Scope(_message.Message):
    __slots__ = ("resource", "namespaces", "name", "label_selector", "field_selector")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    FIELD_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    resource: str
    namespaces: _containers.RepeatedScalarFieldContainer[str]
    name: str
    label_selector: str
    field_selector: str
    def __init__(self, resource: _Optional[str] = ..., namespaces: _Optional[_Iterable[str]] = ..., name: _Optional[str] = ..., label_selector: _Optional[str] = ..., field_selector: _Optional[str] = ...) -> None: ...

class ShardPosition(_message.Message):
    __slots__ = ("namespace", "revision", "digest", "has_digest")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    HAS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    revision: int
    digest: int
    has_digest: bool
    def __init__(self, namespace: _Optional[str] = ..., revision: _Optional[int] = ..., digest: _Optional[int] = ..., has_digest: bool = ...) -> None: ...

class Freshness(_message.Message):
    __slots__ = ("positions", "age", "age_unproven", "state", "reason", "message", "pruned", "unordered")
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    AGE_UNPROVEN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PRUNED_FIELD_NUMBER: _ClassVar[int]
    UNORDERED_FIELD_NUMBER: _ClassVar[int]
    positions: _containers.RepeatedCompositeFieldContainer[ShardPosition]
    age: _duration_pb2.Duration
    age_unproven: bool
    state: KindState
    reason: str
    message: str
    pruned: bool
    unordered: bool
    def __init__(self, positions: _Optional[_Iterable[_Union[ShardPosition, _Mapping]]] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., age_unproven: bool = ..., state: _Optional[_Union[KindState, str]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., pruned: bool = ..., unordered: bool = ...) -> None: ...
