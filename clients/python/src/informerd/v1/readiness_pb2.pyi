import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from informerd.v1 import cache_pb2 as _cache_pb2
from informerd.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReadinessState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    READINESS_STATE_UNSPECIFIED: _ClassVar[ReadinessState]
    READINESS_STATE_READY: _ClassVar[ReadinessState]
    READINESS_STATE_NOT_READY: _ClassVar[ReadinessState]
    READINESS_STATE_UNKNOWN: _ClassVar[ReadinessState]
    READINESS_STATE_GONE: _ClassVar[ReadinessState]

class ReadinessChanges(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    READINESS_CHANGES_UNSPECIFIED: _ClassVar[ReadinessChanges]
    READINESS_CHANGES_ALL: _ClassVar[ReadinessChanges]
    READINESS_CHANGES_TRANSITIONS: _ClassVar[ReadinessChanges]

class WaitFor(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WAIT_FOR_UNSPECIFIED: _ClassVar[WaitFor]
    WAIT_FOR_READY: _ClassVar[WaitFor]
    WAIT_FOR_GONE: _ClassVar[WaitFor]
    WAIT_FOR_SAFE_TO_DISRUPT: _ClassVar[WaitFor]
    WAIT_FOR_CONDITION: _ClassVar[WaitFor]

class WaitOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WAIT_OUTCOME_UNSPECIFIED: _ClassVar[WaitOutcome]
    WAIT_OUTCOME_SATISFIED: _ClassVar[WaitOutcome]
    WAIT_OUTCOME_TIMED_OUT: _ClassVar[WaitOutcome]
    WAIT_OUTCOME_IMPOSSIBLE: _ClassVar[WaitOutcome]
READINESS_STATE_UNSPECIFIED: ReadinessState
READINESS_STATE_READY: ReadinessState
READINESS_STATE_NOT_READY: ReadinessState
READINESS_STATE_UNKNOWN: ReadinessState
READINESS_STATE_GONE: ReadinessState
READINESS_CHANGES_UNSPECIFIED: ReadinessChanges
READINESS_CHANGES_ALL: ReadinessChanges
READINESS_CHANGES_TRANSITIONS: ReadinessChanges
WAIT_FOR_UNSPECIFIED: WaitFor
WAIT_FOR_READY: WaitFor
WAIT_FOR_GONE: WaitFor
WAIT_FOR_SAFE_TO_DISRUPT: WaitFor
WAIT_FOR_CONDITION: WaitFor
WAIT_OUTCOME_UNSPECIFIED: WaitOutcome
WAIT_OUTCOME_SATISFIED: WaitOutcome
WAIT_OUTCOME_TIMED_OUT: WaitOutcome
WAIT_OUTCOME_IMPOSSIBLE: WaitOutcome

class Target(_message.Message):
    __slots__ = ("resource", "namespace", "name")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    resource: str
    namespace: str
    name: str
    def __init__(self, resource: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class EvidenceWindow(_message.Message):
    __slots__ = ("to",)
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    to: _timestamp_pb2.Timestamp
    def __init__(self, to: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., **kwargs) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("target", "state", "reason", "message", "details", "generation", "observed_generation", "uid", "resource_version", "evidence", "since", "expires", "conditions", "parts", "parts_total", "parts_ready")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_VERSION_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    PARTS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    PARTS_READY_FIELD_NUMBER: _ClassVar[int]
    target: Target
    state: ReadinessState
    reason: str
    message: str
    details: bytes
    generation: int
    observed_generation: int
    uid: str
    resource_version: str
    evidence: EvidenceWindow
    since: _timestamp_pb2.Timestamp
    expires: _timestamp_pb2.Timestamp
    conditions: _containers.RepeatedCompositeFieldContainer[ReadinessCondition]
    parts: _containers.RepeatedCompositeFieldContainer[ReadinessPart]
    parts_total: int
    parts_ready: int
    def __init__(self, target: _Optional[_Union[Target, _Mapping]] = ..., state: _Optional[_Union[ReadinessState, str]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., details: _Optional[bytes] = ..., generation: _Optional[int] = ..., observed_generation: _Optional[int] = ..., uid: _Optional[str] = ..., resource_version: _Optional[str] = ..., evidence: _Optional[_Union[EvidenceWindow, _Mapping]] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., conditions: _Optional[_Iterable[_Union[ReadinessCondition, _Mapping]]] = ..., parts: _Optional[_Iterable[_Union[ReadinessPart, _Mapping]]] = ..., parts_total: _Optional[int] = ..., parts_ready: _Optional[int] = ...) -> None: ...

class ReadinessCondition(_message.Message):
    __slots__ = ("name", "state", "reason", "message", "details", "evidence", "since", "expires")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: ReadinessState
    reason: str
    message: str
    details: bytes
    evidence: EvidenceWindow
    since: _timestamp_pb2.Timestamp
    expires: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[ReadinessState, str]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., details: _Optional[bytes] = ..., evidence: _Optional[_Union[EvidenceWindow, _Mapping]] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ReadinessPart(_message.Message):
    __slots__ = ("target", "uid", "state", "reason", "message")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    target: Target
    uid: str
    state: ReadinessState
    reason: str
    message: str
    def __init__(self, target: _Optional[_Union[Target, _Mapping]] = ..., uid: _Optional[str] = ..., state: _Optional[_Union[ReadinessState, str]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class GetReadinessRequest(_message.Message):
    __slots__ = ("target",)
    TARGET_FIELD_NUMBER: _ClassVar[int]
    target: Target
    def __init__(self, target: _Optional[_Union[Target, _Mapping]] = ...) -> None: ...

class GetReadinessResponse(_message.Message):
    __slots__ = ("verdict", "freshness")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    FRESHNESS_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    freshness: _types_pb2.Freshness
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ..., freshness: _Optional[_Union[_types_pb2.Freshness, _Mapping]] = ...) -> None: ...

class ReadinessScope(_message.Message):
    __slots__ = ("resources", "namespaces", "names", "label_selector", "states")
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    LABEL_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    resources: _containers.RepeatedScalarFieldContainer[str]
    namespaces: _containers.RepeatedScalarFieldContainer[str]
    names: _containers.RepeatedScalarFieldContainer[str]
    label_selector: str
    states: _containers.RepeatedScalarFieldContainer[ReadinessState]
    def __init__(self, resources: _Optional[_Iterable[str]] = ..., namespaces: _Optional[_Iterable[str]] = ..., names: _Optional[_Iterable[str]] = ..., label_selector: _Optional[str] = ..., states: _Optional[_Iterable[_Union[ReadinessState, str]]] = ...) -> None: ...

class ListReadinessRequest(_message.Message):
    __slots__ = ("scope",)
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    scope: ReadinessScope
    def __init__(self, scope: _Optional[_Union[ReadinessScope, _Mapping]] = ...) -> None: ...

class ListReadinessResponse(_message.Message):
    __slots__ = ("verdicts", "end")
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    verdicts: _containers.RepeatedCompositeFieldContainer[Verdict]
    end: ReadinessListEnd
    def __init__(self, verdicts: _Optional[_Iterable[_Union[Verdict, _Mapping]]] = ..., end: _Optional[_Union[ReadinessListEnd, _Mapping]] = ...) -> None: ...

class ReadinessListEnd(_message.Message):
    __slots__ = ("token", "count", "kinds")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    count: int
    kinds: _containers.RepeatedCompositeFieldContainer[JudgedKind]
    def __init__(self, token: _Optional[bytes] = ..., count: _Optional[int] = ..., kinds: _Optional[_Iterable[_Union[JudgedKind, _Mapping]]] = ...) -> None: ...

class JudgedKind(_message.Message):
    __slots__ = ("resource", "revision", "freshness")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    FRESHNESS_FIELD_NUMBER: _ClassVar[int]
    resource: str
    revision: int
    freshness: _types_pb2.Freshness
    def __init__(self, resource: _Optional[str] = ..., revision: _Optional[int] = ..., freshness: _Optional[_Union[_types_pb2.Freshness, _Mapping]] = ...) -> None: ...

class WatchReadinessRequest(_message.Message):
    __slots__ = ("scope", "token", "changes", "on_gap", "bookmark_interval", "max_batch_bytes")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    ON_GAP_FIELD_NUMBER: _ClassVar[int]
    BOOKMARK_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_BYTES_FIELD_NUMBER: _ClassVar[int]
    scope: ReadinessScope
    token: bytes
    changes: ReadinessChanges
    on_gap: _cache_pb2.OnGap
    bookmark_interval: _duration_pb2.Duration
    max_batch_bytes: int
    def __init__(self, scope: _Optional[_Union[ReadinessScope, _Mapping]] = ..., token: _Optional[bytes] = ..., changes: _Optional[_Union[ReadinessChanges, str]] = ..., on_gap: _Optional[_Union[_cache_pb2.OnGap, str]] = ..., bookmark_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_batch_bytes: _Optional[int] = ...) -> None: ...

class WatchReadinessResponse(_message.Message):
    __slots__ = ("events", "mark")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[ReadinessEvent]
    mark: ReadinessMark
    def __init__(self, events: _Optional[_Iterable[_Union[ReadinessEvent, _Mapping]]] = ..., mark: _Optional[_Union[ReadinessMark, _Mapping]] = ...) -> None: ...

class ReadinessEvent(_message.Message):
    __slots__ = ("type", "revision", "verdict", "cause")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    type: _cache_pb2.EventType
    revision: int
    verdict: Verdict
    cause: _cache_pb2.DeleteCause
    def __init__(self, type: _Optional[_Union[_cache_pb2.EventType, str]] = ..., revision: _Optional[int] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., cause: _Optional[_Union[_cache_pb2.DeleteCause, str]] = ...) -> None: ...

class ReadinessMark(_message.Message):
    __slots__ = ("type", "token", "kinds", "reason", "message", "resources", "retry_after")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    type: _cache_pb2.MarkType
    token: bytes
    kinds: _containers.RepeatedCompositeFieldContainer[JudgedKind]
    reason: str
    message: str
    resources: _containers.RepeatedScalarFieldContainer[str]
    retry_after: _duration_pb2.Duration
    def __init__(self, type: _Optional[_Union[_cache_pb2.MarkType, str]] = ..., token: _Optional[bytes] = ..., kinds: _Optional[_Iterable[_Union[JudgedKind, _Mapping]]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., resources: _Optional[_Iterable[str]] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WaitTarget(_message.Message):
    __slots__ = ("target", "uid", "min_generation", "min_resource_version")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    MIN_GENERATION_FIELD_NUMBER: _ClassVar[int]
    MIN_RESOURCE_VERSION_FIELD_NUMBER: _ClassVar[int]
    target: Target
    uid: str
    min_generation: int
    min_resource_version: str
    def __init__(self, target: _Optional[_Union[Target, _Mapping]] = ..., uid: _Optional[str] = ..., min_generation: _Optional[int] = ..., min_resource_version: _Optional[str] = ...) -> None: ...

class WaitReadinessRequest(_message.Message):
    __slots__ = ("targets", "wait_for", "condition", "timeout")
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    WAIT_FOR_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    targets: _containers.RepeatedCompositeFieldContainer[WaitTarget]
    wait_for: WaitFor
    condition: str
    timeout: _duration_pb2.Duration
    def __init__(self, targets: _Optional[_Iterable[_Union[WaitTarget, _Mapping]]] = ..., wait_for: _Optional[_Union[WaitFor, str]] = ..., condition: _Optional[str] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WaitReadinessResponse(_message.Message):
    __slots__ = ("outcome", "verdicts", "missing", "satisfied")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    SATISFIED_FIELD_NUMBER: _ClassVar[int]
    outcome: WaitOutcome
    verdicts: _containers.RepeatedCompositeFieldContainer[Verdict]
    missing: _containers.RepeatedCompositeFieldContainer[MissingTarget]
    satisfied: int
    def __init__(self, outcome: _Optional[_Union[WaitOutcome, str]] = ..., verdicts: _Optional[_Iterable[_Union[Verdict, _Mapping]]] = ..., missing: _Optional[_Iterable[_Union[MissingTarget, _Mapping]]] = ..., satisfied: _Optional[int] = ...) -> None: ...

class MissingTarget(_message.Message):
    __slots__ = ("target", "reason", "message")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    target: Target
    reason: str
    message: str
    def __init__(self, target: _Optional[_Union[Target, _Mapping]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...
