"""What can go wrong between this client and informerd, told apart as a caller needs it: retry, or tell somebody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

__all__ = ["CallError", "ContractError", "Differs", "Ended", "Error", "Incomplete", "NotFound", "Silent", "Violation"]

_DETAILS = "grpc-status-details-bin"

#: informerd's reason for the end of a stream whose caller's token or certificate has ended: with a new one it goes on.
EXPIRED = "CREDENTIALS_EXPIRED"

# What proxies and restarting servers send, beside what informerd means to be retried.
_TRANSIENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)


class Error(Exception):
    """Why a call or a watch failed."""

    #: Whether another try of the same request is bound to fail as well.
    permanent: bool = False
    #: informerd's reason in one word, such as ``KIND_NOT_CONFIGURED``; empty where it gave none.
    reason: str = ""
    #: How many seconds informerd asks to wait before another try, where it does.
    retry_delay: float | None = None


@dataclass(frozen=True)
class Violation:
    """One field of the request that is wrong."""

    #: Its path in the request: ``scope.label_selector``.
    field: str
    #: What is wrong, and what to write instead.
    description: str


class CallError(Error):
    """informerd answered with an error, or could not be reached (then the code is UNAVAILABLE)."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        violations: tuple[Violation, ...] = (),
        retry_delay: float | None = None,
    ) -> None:
        told = message or reason or code.name
        told += "".join(f"; {it.field}: {it.description}" for it in violations if it.description not in told)
        super().__init__(told)
        self.code = code
        self.message = message
        self.reason = reason
        self.violations = violations
        self.retry_delay = retry_delay
        self.permanent = code not in _TRANSIENT and reason != EXPIRED


class NotFound(CallError):
    """The object does not exist."""


class Silent(Error):
    """A watch received nothing, not even a bookmark: the connection or the server is stuck."""

    def __init__(self, patience: float) -> None:
        super().__init__(f"heard nothing from informerd for {patience:g} s")


class Ended(Error):
    """informerd ended the stream in good order, to be resumed elsewhere or later."""

    def __init__(self, reason: str, message: str, retry_delay: float | None) -> None:
        super().__init__("informerd ended the stream: " + (": ".join(filter(None, (reason, message))) or "no reason"))
        self.reason = reason
        self.message = message
        self.retry_delay = retry_delay


class Incomplete(Error):
    """The answer stopped before it was complete."""


class Differs(Error):
    """What a watch has told does not come to what informerd says that it holds: something was lost on the way. The
    watch begins anew by itself, unless it was to leave nothing out (``Delivery.EVERY``, ``OnGap.FAIL``)."""

    def __init__(self, permanent: bool) -> None:
        super().__init__("what was told is not what informerd holds")
        self.permanent = permanent


class ContractError(Error):
    """informerd sent what this client cannot understand. Use a client and a daemon of the same version."""

    permanent = True


def from_rpc(error: grpc.RpcError) -> CallError:
    """Reads a status with its details, which is either informerd's own or the transport's."""
    # Every RpcError of a call is a Call too, which the base class does not say.
    call: Any = error
    status = _details(call)
    reason = ""
    retry_delay: float | None = None
    violations: tuple[Violation, ...] = ()
    for detail in status.details:
        info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
        try:
            if detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(retry):
                retry_delay = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
            elif detail.Unpack(bad):
                violations = tuple(Violation(it.field, it.description) for it in bad.field_violations)
        except DecodeError:
            # The code and the message stand without it.
            continue
    kind = NotFound if reason == "OBJECT_NOT_FOUND" else CallError
    return kind(call.code(), call.details() or "", reason=reason, violations=violations, retry_delay=retry_delay)


def _details(call: Any) -> Any:
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()
