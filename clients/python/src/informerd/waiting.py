"""What a wait is for, and how it went."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Union

from informerd.errors import ContractError
from informerd.model import Target, Verdict, duration
from informerd.v1 import readiness_pb2

__all__ = ["Missing", "OnProgress", "Outcome", "Progress", "WaitResult", "WaitTarget", "Waited"]


class Outcome(enum.Enum):
    """How a wait ended."""

    #: All targets were as asked for at the same time.
    SATISFIED = readiness_pb2.WAIT_OUTCOME_SATISFIED
    #: They were not in time.
    TIMED_OUT = readiness_pb2.WAIT_OUTCOME_TIMED_OUT
    #: They will never be: the uid asked for is no more.
    IMPOSSIBLE = readiness_pb2.WAIT_OUTCOME_IMPOSSIBLE


@dataclass(frozen=True, slots=True)
class WaitTarget:
    """A target, and how new a verdict on it has to be. Pass what a write returned, if there was one."""

    target: Target
    #: Only this very object.
    uid: str = ""
    #: Only a verdict on this metadata.generation or a later one.
    min_generation: int = 0
    #: Only a verdict on this resourceVersion or a later one.
    min_resource_version: str = ""

    @classmethod
    def as_of(cls, resource: str, written: Mapping[str, Any]) -> WaitTarget:
        """This very object, as a write has returned it (a mapping, as JSON has it) or later. informerd then has no
        need to ask the API server what there is."""
        metadata = written["metadata"]
        return cls(
            Target(resource, metadata["name"], metadata.get("namespace", "")),
            uid=metadata.get("uid", ""),
            min_generation=metadata.get("generation", 0),
            min_resource_version=metadata.get("resourceVersion", ""),
        )


@dataclass(frozen=True, slots=True)
class Missing:
    """A target that is not as asked for."""

    target: Target
    #: Why, in one word, and the same for a person.
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.target}: {self.reason}: {self.message}"


@dataclass(frozen=True, slots=True)
class Progress:
    """How a wait stands."""

    #: The verdicts that have changed since the last time.
    verdicts: list[Verdict]
    missing: list[Missing]
    #: How many targets are as asked for.
    satisfied: int


@dataclass(frozen=True, slots=True)
class WaitResult:
    """How a wait ended. True where it was satisfied."""

    outcome: Outcome
    #: Of all targets, in the order in which they were asked for.
    verdicts: list[Verdict]
    #: The targets that are not as asked for, and why.
    missing: list[Missing]

    def __bool__(self) -> bool:
        return self.outcome is Outcome.SATISFIED


#: What can be waited for: ``"deployment/web"``, a target, or one with how new its verdict has to be.
Waited = Union[str, Target, WaitTarget]
#: Called with each change while a wait goes on.
OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait, checked."""

    targets: tuple[WaitTarget, ...]
    wait_for: readiness_pb2.WaitFor
    condition: str

    @classmethod
    def of(cls, targets: Waited | Iterable[Waited], wait_for: str, namespace: str) -> Wait:
        """Reads what a caller asks for."""
        if isinstance(targets, (str, Target, WaitTarget)):
            targets = [targets]
        plain = {
            "ready": readiness_pb2.WAIT_FOR_READY,
            "gone": readiness_pb2.WAIT_FOR_GONE,
            "safe-to-disrupt": readiness_pb2.WAIT_FOR_SAFE_TO_DISRUPT,
        }
        read = tuple(_target(target, namespace) for target in targets)
        word, equals, condition = wait_for.partition("=")
        if wait_for in plain:
            return cls(read, plain[wait_for], "")
        if word == "condition" and equals and condition:
            return cls(read, readiness_pb2.WAIT_FOR_CONDITION, condition)
        raise ValueError(f"cannot wait for {wait_for!r}: write ready, gone, safe-to-disrupt or condition=NAME")

    def request(self, timeout: float) -> readiness_pb2.WaitReadinessRequest:
        """For so many seconds."""
        return readiness_pb2.WaitReadinessRequest(
            targets=[
                readiness_pb2.WaitTarget(
                    target=it.target.to_proto(),
                    uid=it.uid,
                    min_generation=it.min_generation,
                    min_resource_version=it.min_resource_version,
                )
                for it in self.targets
            ],
            wait_for=self.wait_for,
            condition=self.condition,
            timeout=duration(timeout),
        )


def call_timeout(timeout: float) -> float:
    """How long the call of a wait may take: longer, so that the answer can say what is missing. informerd itself ends
    a wait at 95% of it."""
    return timeout * 1.1 + 5.0


def read(message: readiness_pb2.WaitReadinessResponse) -> Progress | WaitResult:
    """One message of a wait."""
    verdicts = [Verdict.from_proto(it) for it in message.verdicts]
    missing = [Missing(Target.from_proto(it.target), it.reason, it.message) for it in message.missing]
    if message.outcome == readiness_pb2.WAIT_OUTCOME_UNSPECIFIED:
        return Progress(verdicts, missing, message.satisfied)
    try:
        outcome = Outcome(message.outcome)
    except ValueError:
        raise ContractError(f"a wait with the outcome {message.outcome}") from None
    return WaitResult(outcome, verdicts, missing)


def _target(target: Waited, namespace: str) -> WaitTarget:
    if isinstance(target, str):
        target = Target.parse(target, namespace)
    return WaitTarget(target) if isinstance(target, Target) else target
