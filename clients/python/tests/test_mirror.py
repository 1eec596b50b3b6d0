"""A mirror holds what a watch has told, whatever happens to it."""

from __future__ import annotations

from typing import TypeVar

from fake import upsert, verdict
from informerd import (
    CallError,
    Change,
    Delete,
    DeleteCause,
    Event,
    Freshness,
    Listed,
    Mark,
    MarkType,
    Mirror,
    Object,
    ObjectKey,
    Objects,
    Reconnecting,
    ResetBegin,
    ResetEnd,
    Target,
    Upsert,
    Verdict,
    Verdicts,
)
from informerd.backoff import Backoff
from informerd.v1 import types_pb2
import grpc

K = TypeVar("K")
FRESH = {"pods": Freshness.from_proto(types_pb2.Freshness())}
CUT = Reconnecting(CallError(grpc.StatusCode.UNAVAILABLE, "cut"), 0.1)


def put(name: str, version: int, uid: str = "", namespace: str = "default") -> Upsert[ObjectKey, Object]:
    item = Object.from_proto(upsert(name, version, uid=uid, namespace=namespace))
    return Upsert(item.key, item, version)


def drop(name: str, uid: str = "") -> Delete[ObjectKey]:
    return Delete(ObjectKey("default", name), uid or f"uid-{name}", DeleteCause.DELETED, 9)


def begin(*covers: str) -> ResetBegin:
    return ResetBegin("PAST_JOURNAL", "", covers)


def end(*covers: str, token: bytes | None = b"t") -> ResetEnd:
    return ResetEnd(covers, token, FRESH)


def fold(mirror: Mirror[ObjectKey, Object], *events: Event[ObjectKey, Object]) -> list[str]:
    """`+a`, `~a`, `-a`."""

    def word(change: Change[ObjectKey, Object]) -> str:
        sign = "+" if change.old is None else "-" if change.new is None else "~"
        return sign + change.key.name

    return [word(change) for event in events for change in mirror.apply(event)]


def test_what_changes_is_told_once() -> None:
    pods = Mirror(Objects("pods"))
    assert fold(pods, begin(), put("a", 1), end()) == ["+a"]
    assert pods.complete and pods.token == b"t"
    assert fold(pods, put("a", 1)) == [], "an atom that is repeated changes nothing"
    assert fold(pods, put("a", 2), put("b", 3)) == ["~a", "+b"]
    assert fold(pods, drop("a"), drop("a")) == ["-a"]
    assert list(pods) == [ObjectKey("default", "b")] and ObjectKey("default", "b") in pods
    assert pods[ObjectKey("default", "b")].resource_version == "3" and pods.get(ObjectKey("", "x")) is None
    pods.apply(Mark(MarkType.BOOKMARK, b"u", FRESH))
    assert pods.token == b"u" and len(list(pods.values())) == len(pods) == 1


def test_a_reset_is_seen_only_when_it_is_whole() -> None:
    pods = Mirror(Objects("pods"))
    assert fold(pods, begin(), put("a", 1)) == [] and not pods.complete and len(pods) == 0
    assert fold(pods, put("b", 1), end()) == ["+a", "+b"]
    assert fold(pods, begin(), put("b", 2), put("c", 2)) == []
    assert {it.name for it in pods} == {"a", "b"}
    assert fold(pods, end()) == ["-a", "~b", "+c"]


def test_a_reset_that_is_cut_leaves_no_trace() -> None:
    pods = Mirror(Objects("pods"))
    fold(pods, begin(), put("a", 1), end(), begin(), put("b", 2))
    assert fold(pods, CUT, put("a", 3)) == ["~a"]
    assert {it.name for it in pods} == {"a"}


def test_a_reset_of_one_namespace_leaves_the_others_alone() -> None:
    pods = Mirror(Objects("pods"))
    fold(pods, begin(), put("a", 1), put("x", 1, namespace="other"), end())
    assert fold(pods, begin("other"), put("a", 2), put("y", 2, namespace="other")) == ["~a"]
    assert fold(pods, end("other")) == ["-x", "+y"]
    assert {it.name for it in pods} == {"a", "y"}


def test_a_successor_of_the_same_name_is_another_object() -> None:
    pods = Mirror(Objects("pods"))
    fold(pods, begin(), put("a", 1, "old"), end())
    assert fold(pods, put("a", 2, "new")) == ["-a", "+a"]
    assert fold(pods, drop("a", "old")) == [], "a delete that comes again must not take it"
    assert fold(pods, drop("a", "new")) == ["-a"]


def test_a_list_is_continued_by_a_watch() -> None:
    listed: Listed[ObjectKey, Object] = Listed([put("a", 1).item], b"t", FRESH)
    pods = Mirror(Objects("pods"), listed)
    assert pods.complete and pods.token == b"t" and fold(pods, put("a", 1), put("b", 2)) == ["+b"]


def test_verdicts_are_mirrored_by_kind() -> None:
    def judged(name: str, state: str) -> Upsert[Target, Verdict]:
        item = Verdict.from_proto(verdict(name, state))
        return Upsert(item.target, item, 1)

    verdicts = Mirror(Verdicts())
    for event in (begin(), judged("a", "READY"), end()):
        verdicts.apply(event)
    for event in (begin("pods"), end("pods")):
        assert verdicts.apply(event) == [], "another kind"
    (change,) = verdicts.apply(judged("a", "NOT_READY"))
    assert change.old is not None and change.old.ready and change.new is not None and not change.new.ready
    verdicts.apply(begin("deployments.apps"))
    (change,) = verdicts.apply(end("deployments.apps"))
    assert change.new is None


def test_delays_double_up_to_the_longest_and_begin_anew_after_a_reset() -> None:
    backoff = Backoff()
    step = Backoff.FIRST
    for _ in range(12):
        assert step / 2 <= backoff.next() <= step
        step = min(2 * step, Backoff.LONGEST)
    assert step == Backoff.LONGEST
    assert 60 <= backoff.next(60) <= 66, "the server is heard"
    assert backoff.next(1e9) <= Backoff.PATIENCE * 1.1, "within reason"
    backoff.reset()
    assert backoff.next() <= Backoff.FIRST
