"""An informerd for tests: says what it was scripted to say, on loopback, and notes what it was asked."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from informerd.v1 import (
    cache_pb2,
    cache_pb2_grpc,
    introspection_pb2_grpc,
    readiness_pb2,
    readiness_pb2_grpc,
    types_pb2,
)


@dataclass
class Fail:
    """Ends a call with an error."""

    code: grpc.StatusCode
    message: str = ""
    reason: str = ""
    retry_delay: float | None = None
    violations: Sequence[tuple[str, str]] = ()


#: How a call ends that sends nothing more and goes on.
HANG = "hang"
#: How a call ends with OK.
CLOSE = "close"


@dataclass
class Call:
    """One call: what it sends (or does in between), and how it ends."""

    messages: Sequence[Any]
    end: Fail | str = HANG


@dataclass
class Script:
    """The calls to come, by method, and what was asked. A method without one left hangs."""

    calls: dict[str, deque[Call]] = field(default_factory=dict)
    asked: dict[str, list[Any]] = field(default_factory=dict)
    #: Who each call was from: its token, and the name in its certificate.
    shown: list[tuple[str, str]] = field(default_factory=list)
    #: Tokens that let nobody in.
    ended: set[str] = field(default_factory=set)
    #: Calls of each method whose client has gone, or that have ended.
    over: dict[str, int] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def play(self, method: str, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        over = threading.Event()
        if not context.add_callback(over.set):
            over.set()
        token = str(dict(context.invocation_metadata()).get("authorization", ""))
        names: Any = context.auth_context().get("x509_common_name", [b""])
        with self.changed:
            self.shown.append((token, names[0].decode()))
            if token in self.ended:
                fail(Fail(grpc.StatusCode.UNAUTHENTICATED, "the token has expired"), context)
            self.asked.setdefault(method, []).append(request)
            calls = self.calls.get(method)
            call = calls.popleft() if calls else Call([])
            self.changed.notify_all()
        try:
            for it in call.messages:
                if callable(it):
                    it()
                else:
                    yield it
            if isinstance(call.end, Fail):
                fail(call.end, context)
            if call.end == HANG:
                over.wait()
        finally:
            with self.changed:
                self.over[method] = self.over.get(method, 0) + 1
                self.changed.notify_all()

    def end(self, token: str) -> None:
        """From now on it lets nobody in."""
        with self.changed:
            self.ended.add(token)

    def wait_until(self, condition: Any) -> None:
        """Until something holds of it; fails after 10 s."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout=10)

    def asked_of(self, method: str) -> list[Any]:
        with self.changed:
            return list(self.asked.get(method, []))


class Informerd(
    cache_pb2_grpc.CacheServiceServicer,
    readiness_pb2_grpc.ReadinessServiceServicer,
    introspection_pb2_grpc.IntrospectionServiceServicer,
):
    """Serves a script."""

    def __init__(self, secure: grpc.ServerCredentials | None = None, **calls: Sequence[Call]) -> None:
        self.script = Script({method: deque(them) for method, them in calls.items()})
        self._server = grpc.server(ThreadPoolExecutor(max_workers=16))
        cache_pb2_grpc.add_CacheServiceServicer_to_server(self, self._server)
        readiness_pb2_grpc.add_ReadinessServiceServicer_to_server(self, self._server)
        introspection_pb2_grpc.add_IntrospectionServiceServicer_to_server(self, self._server)
        if secure is None:
            self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        else:
            self.address = f"https://127.0.0.1:{self._server.add_secure_port('127.0.0.1:0', secure)}"

    def __enter__(self) -> Informerd:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def GetObject(self, request: Any, context: grpc.ServicerContext) -> Any:
        return next(self.script.play("GetObject", request, context))

    def ListObjects(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        return self.script.play("ListObjects", request, context)

    def WatchObjects(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        return self.script.play("WatchObjects", request, context)

    def GetReadiness(self, request: Any, context: grpc.ServicerContext) -> Any:
        return next(self.script.play("GetReadiness", request, context))

    def ListReadiness(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        return self.script.play("ListReadiness", request, context)

    def WatchReadiness(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        return self.script.play("WatchReadiness", request, context)

    def WaitReadiness(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        return self.script.play("WaitReadiness", request, context)


def fail(how: Fail, context: grpc.ServicerContext) -> None:
    details: list[Any] = []
    if how.reason:
        details.append(error_details_pb2.ErrorInfo(reason=how.reason, domain="informerd"))
    if how.retry_delay is not None:
        nanos = int(how.retry_delay * 1e9)
        delay = Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if how.violations:
        violation = error_details_pb2.BadRequest.FieldViolation
        violations = [violation(field=name, description=text) for name, text in how.violations]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    status = status_pb2.Status(code=how.code.value[0], message=how.message)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(how.code, how.message)


# Messages, shortly.


def message(*events: cache_pb2.Event, mark: cache_pb2.Mark | None = None) -> cache_pb2.WatchObjectsResponse:
    return cache_pb2.WatchObjectsResponse(events=events, mark=mark)


def mark(kind: str, token: bytes = b"", **rest: Any) -> cache_pb2.Mark:
    kind_of_mark: Any = cache_pb2.MarkType.Value(f"MARK_TYPE_{kind}")
    live = types_pb2.Freshness(state=types_pb2.KIND_STATE_LIVE)
    return cache_pb2.Mark(type=kind_of_mark, token=token, freshness=live, **rest)


def upsert(name: str, version: int, *, uid: str = "", namespace: str = "default") -> cache_pb2.Event:
    return cache_pb2.Event(
        type=cache_pb2.EVENT_TYPE_UPSERT,
        revision=version,
        namespace=namespace,
        name=name,
        uid=uid or f"uid-{name}",
        resource_version=str(version),
        object=b'{"metadata":{"name":"%s"}}' % name.encode(),
    )


def delete(name: str, revision: int, cause: int, *, uid: str = "", namespace: str = "default") -> cache_pb2.Event:
    return cache_pb2.Event(
        type=cache_pb2.EVENT_TYPE_DELETE,
        revision=revision,
        namespace=namespace,
        name=name,
        uid=uid or f"uid-{name}",
        cause=cause,  # type: ignore[arg-type]  # Also one that nobody knows.
    )


def initial(*events: cache_pb2.Event, token: bytes) -> list[cache_pb2.WatchObjectsResponse]:
    """What a watch without a token begins with."""
    reset = mark("RESET", reason="INITIAL")
    return [message(mark=reset), message(*events), message(mark=mark("RESET_END", token))]


def verdict(name: str, state: str, **rest: Any) -> readiness_pb2.Verdict:
    target = readiness_pb2.Target(resource="deployments.apps", namespace="default", name=name)
    value: Any = readiness_pb2.ReadinessState.Value(f"READINESS_STATE_{state}")
    return readiness_pb2.Verdict(target=target, state=value, uid=f"uid-{name}", **rest)


def readiness_mark(kind: str, token: bytes = b"", **rest: Any) -> readiness_pb2.ReadinessMark:
    live = types_pb2.Freshness(state=types_pb2.KIND_STATE_LIVE)
    kinds = [readiness_pb2.JudgedKind(resource="deployments.apps", revision=1, freshness=live)]
    kind_of_mark: Any = cache_pb2.MarkType.Value(f"MARK_TYPE_{kind}")
    return readiness_pb2.ReadinessMark(type=kind_of_mark, token=token, kinds=kinds, **rest)
