"""Single reads, lists and waits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone

import grpc
import pytest
from both import PATIENCE, Both
from fake import Call, Fail, Informerd, upsert, verdict
from google.protobuf.timestamp_pb2 import Timestamp
from informerd import (
    AsyncClient,
    CallError,
    Client,
    Freshness,
    Incomplete,
    KindState,
    NotFound,
    Object,
    ObjectKey,
    Objects,
    Outcome,
    Progress,
    State,
    Target,
    Verdicts,
    View,
    WaitTarget,
)
from informerd.v1 import cache_pb2, readiness_pb2, types_pb2

Clients = Callable[[str], Both]
LIVE = types_pb2.Freshness(
    state=types_pb2.KIND_STATE_LIVE,
    positions=[types_pb2.ShardPosition(revision=7, digest=9, has_digest=True)],
    pruned=True,
)


def thing(name: str) -> cache_pb2.Object:
    return cache_pb2.Object(
        namespace="default", name=name, uid="u", resource_version="7", object=b'{"spec":{"nodeName":"n1"}}'
    )


def test_an_object_is_read_with_how_fresh_it_is(client: Clients) -> None:
    reply = cache_pb2.GetObjectResponse(object=thing("a"), freshness=LIVE)
    reply.freshness.age.FromMilliseconds(1500)
    with Informerd(GetObject=[Call([reply])]) as server:
        pod, freshness = client(server.address).call(
            "get", Objects("pods", "default", "a", view=View.METADATA, consistent=True)
        )
        (asked,) = server.script.asked_of("GetObject")
    assert (pod.key, pod.namespace, pod.name) == (ObjectKey("default", "a"), "default", "a")
    assert pod.content() == {"spec": {"nodeName": "n1"}}
    assert (freshness.state, freshness.age, freshness.pruned) == (KindState.LIVE, 1.5, True)
    assert Freshness.from_proto(types_pb2.Freshness()).age is None, "no proof is not a fresh one"
    assert (freshness.positions[""].revision, freshness.positions[""].digest) == (7, 9)
    assert (asked.scope.name, asked.view, asked.consistent) == ("a", types_pb2.VIEW_METADATA, True)


def test_what_is_wrong_is_told_with_all_that_informerd_says(client: Clients) -> None:
    missing = Fail(grpc.StatusCode.NOT_FOUND, "pods a not found", "OBJECT_NOT_FOUND")
    bad = Fail(
        grpc.StatusCode.INVALID_ARGUMENT,
        "bad request",
        "BAD_SELECTOR",
        violations=[("scope.label_selector", "unclosed parenthesis")],
    )
    with Informerd(GetObject=[Call([], missing)], ListObjects=[Call([], bad)]) as server:
        with pytest.raises(NotFound, match="pods a not found"):
            client(server.address).call("get", Objects("pods", "default", "a"))
        with pytest.raises(CallError, match=r"bad request; scope.label_selector: unclosed parenthesis") as raised:
            client(server.address).call("list", Objects("pods", label_selector="("))
    assert (raised.value.reason, raised.value.permanent) == ("BAD_SELECTOR", True)


def test_a_list_is_put_together_and_counted(client: Clients) -> None:
    end = cache_pb2.ListEnd(token=b"t", freshness=LIVE, count=3)
    pages = [
        cache_pb2.ListObjectsResponse(objects=[thing("a"), thing("b")]),
        cache_pb2.ListObjectsResponse(objects=[thing("c")], end=end),
    ]
    with Informerd(ListObjects=[Call(pages)]) as server:
        listed = client(server.address).call("list", Objects("pods", namespaces=["default", "other"]))
        (asked,) = server.script.asked_of("ListObjects")
    assert [it.name for it in listed] == ["a", "b", "c"]
    assert (len(listed), listed.token, listed.freshness["pods"].pruned) == (3, b"t", True)
    assert list(asked.scope.namespaces) == ["default", "other"]


@pytest.mark.parametrize("end", [None, cache_pb2.ListEnd(count=2)])
def test_a_list_that_is_not_whole_is_no_list(client: Clients, end: cache_pb2.ListEnd | None) -> None:
    page = cache_pb2.ListObjectsResponse(objects=[thing("a")], end=end)
    with Informerd(ListObjects=[Call([page], "close")]) as server:
        with pytest.raises(Incomplete):
            client(server.address).call("list", Objects("pods"))


def test_a_verdict_reads_as_plain_values(client: Clients) -> None:
    since = Timestamp(seconds=1_700_000_000)
    told = verdict("a", "NOT_READY", reason="LessReady", details=b'{"ready":2}', generation=4, since=since)
    told.evidence.to.CopyFrom(since)
    told.conditions.add(name="SafeToDisrupt", state=readiness_pb2.READINESS_STATE_READY, expires=since)
    told.conditions.add(name="Joined", state=77)  # One that nobody knows.
    told.parts.add(target={"resource": "pods", "name": "p"}, state=readiness_pb2.READINESS_STATE_NOT_READY)
    replies = [readiness_pb2.GetReadinessResponse(verdict=told, freshness=LIVE)]
    with Informerd(GetReadiness=[Call(replies)]) as server:
        read, freshness = client(server.address).call("get_readiness", Target("deploy", "a", "default"))
        (asked,) = server.script.asked_of("GetReadiness")
    assert (asked.target.resource, asked.target.namespace, asked.target.name) == ("deploy", "default", "a")
    assert (read.state, read.ready, read.reason, read.details) == (State.NOT_READY, False, "LessReady", {"ready": 2})
    assert read.since == datetime(2023, 11, 14, 22, 13, 20, tzinfo=timezone.utc)
    assert read.expires is None and read.evidence is not None and read.evidence.end == read.since
    assert read.holds("SafeToDisrupt") and not read.holds("Joined") and not read.holds("Other")
    assert read.conditions["Joined"].state is State.UNKNOWN
    assert str(read.parts[0].target) == "pods/p"
    assert freshness.state is KindState.LIVE


def test_verdicts_are_listed(client: Clients) -> None:
    end = readiness_pb2.ReadinessListEnd(
        token=b"t", count=1, kinds=[readiness_pb2.JudgedKind(resource="deployments.apps", freshness=LIVE)]
    )
    page = readiness_pb2.ListReadinessResponse(verdicts=[verdict("a", "READY")], end=end)
    with Informerd(ListReadiness=[Call([page])]) as server:
        listed = client(server.address).call("list", Verdicts(states=[State.READY]))
        (asked,) = server.script.asked_of("ListReadiness")
    assert [it.ready for it in listed] == [True]
    assert listed.freshness["deployments.apps"].state is KindState.LIVE
    assert list(asked.scope.states) == [readiness_pb2.READINESS_STATE_READY]


def outcome(name: str, **rest: object) -> readiness_pb2.WaitReadinessResponse:
    value = readiness_pb2.WaitOutcome.Value(f"WAIT_OUTCOME_{name}")
    return readiness_pb2.WaitReadinessResponse(outcome=value, **rest)  # type: ignore[arg-type]


def missing(reason: str) -> readiness_pb2.MissingTarget:
    target = readiness_pb2.Target(resource="deployments.apps", namespace="default", name="a")
    return readiness_pb2.MissingTarget(target=target, reason=reason, message="2 of 3")


def test_a_wait_tells_its_progress_and_how_it_ended(client: Clients) -> None:
    steps = [
        outcome("UNSPECIFIED", verdicts=[verdict("a", "NOT_READY")], missing=[missing("LessReady")]),
        outcome("SATISFIED", verdicts=[verdict("a", "READY")], satisfied=1),
    ]
    seen: list[Progress] = []
    with Informerd(WaitReadiness=[Call(steps)]) as server:
        waited = [WaitTarget(Target("deploy", "a", "shop"), uid="u", min_generation=3), "svc/b"]
        result = client(server.address).call("wait_readiness", waited, timeout=30, on_progress=seen.append)
        (asked,) = server.script.asked_of("WaitReadiness")
    assert result and result.outcome is Outcome.SATISFIED and result.verdicts[0].ready
    assert [str(it) for it in seen[0].missing] == ["deployments.apps/a: LessReady: 2 of 3"]
    first, second = asked.targets
    assert (first.target.namespace, first.uid, first.min_generation) == ("shop", "u", 3)
    assert (second.target.resource, second.target.namespace, second.target.name) == ("svc", "default", "b")
    assert 29 < asked.timeout.ToMilliseconds() / 1000 <= 30
    assert asked.wait_for == readiness_pb2.WAIT_FOR_READY


def test_a_wait_rests_on_what_a_write_has_returned() -> None:
    metadata = {"namespace": "shop", "name": "a", "uid": "u", "generation": 3, "resourceVersion": "17"}
    written = WaitTarget.as_of("deployments.apps", {"kind": "Deployment", "metadata": metadata})
    assert written == WaitTarget(
        Target("deployments.apps", "a", "shop"), uid="u", min_generation=3, min_resource_version="17"
    )
    nowhere = WaitTarget.as_of("nodes", {"metadata": {"name": "n"}})
    assert nowhere == WaitTarget(Target("nodes", "n"))


@pytest.mark.parametrize(("ended", "expected"), [("TIMED_OUT", Outcome.TIMED_OUT), ("IMPOSSIBLE", Outcome.IMPOSSIBLE)])
def test_a_wait_in_vain_says_what_is_missing(client: Clients, ended: str, expected: Outcome) -> None:
    with Informerd(WaitReadiness=[Call([outcome(ended, missing=[missing("OtherUid")])])]) as server:
        result = client(server.address).call("wait_readiness", "deploy/a", wait_for="condition=Joined")
        (asked,) = server.script.asked_of("WaitReadiness")
    assert not result and result.outcome is expected
    assert result.missing[0].reason == "OtherUid"
    assert (asked.wait_for, asked.condition) == (readiness_pb2.WAIT_FOR_CONDITION, "Joined")


def test_a_wait_that_is_cut_goes_on_until_its_own_end(client: Clients) -> None:
    lost = Fail(grpc.StatusCode.UNAVAILABLE, "restarting")
    calls = [Call([outcome("UNSPECIFIED")], lost), Call([], "close"), Call([outcome("SATISFIED")])]
    with Informerd(WaitReadiness=calls) as server:
        assert client(server.address).call("wait_readiness", "deploy/a", wait_for="gone", timeout=20)
        asked = server.script.asked_of("WaitReadiness")
    timeouts = [it.timeout.ToMilliseconds() for it in asked]
    assert len(timeouts) == 3 and timeouts[0] > timeouts[1] > timeouts[2] > 15_000


def test_a_wait_that_cannot_be_made_is_an_error(client: Clients) -> None:
    refused = Fail(grpc.StatusCode.NOT_FOUND, "no controller judges it", "KIND_NOT_JUDGED")
    with Informerd(WaitReadiness=[Call([], refused)]) as server:
        with pytest.raises(CallError, match="no controller judges it"):
            client(server.address).call("wait_readiness", "deploy/a")
        address = server.address
    with pytest.raises(CallError) as raised:
        client(address).call("wait_readiness", "deploy/a", timeout=0.5)
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    for wrong in ("Ready", "condition", "condition="):
        with pytest.raises(ValueError, match="safe-to-disrupt"):
            client(address).call("wait_readiness", "deploy/a", wait_for=wrong)
    for target in ("deploy", "deploy/", "/a", "deploy/a/b"):
        with pytest.raises(ValueError, match="write deployment/web"):
            client(address).call("wait_readiness", target)


def test_a_cancelled_wait_ends_its_call() -> None:
    async def run() -> None:
        async with AsyncClient(server.address) as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.wait_readiness("deploy/a"), 0.2)

    with Informerd(WaitReadiness=[Call([outcome("UNSPECIFIED")])]) as server:
        asyncio.run(asyncio.wait_for(run(), PATIENCE))
        server.script.wait_until(lambda: server.script.over.get("WaitReadiness") == 1)


def test_a_blocking_wait_ends_with_its_client() -> None:
    raised: list[Exception] = []

    def wait() -> None:
        try:
            client.wait_readiness("deploy/a", timeout=PATIENCE)
        except CallError as error:
            raised.append(error)

    with Informerd(WaitReadiness=[Call([outcome("UNSPECIFIED")])]) as server:
        client = Client(server.address)
        waiter = threading.Thread(target=wait)
        waiter.start()
        server.script.wait_until(lambda: server.script.asked.get("WaitReadiness"))
        client.close()
        waiter.join(PATIENCE / 2)
        assert not waiter.is_alive() and len(raised) == 1
        assert len(server.script.asked_of("WaitReadiness")) == 1, "it is not tried again"


def test_a_call_that_gets_no_answer_ends_in_time(client: Clients) -> None:
    begun = time.monotonic()
    with Informerd() as server:
        with pytest.raises(CallError) as raised:
            client(server.address).call("list", Objects("pods"), timeout=0.2)
    assert raised.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - begun < PATIENCE


def test_addresses_are_checked_before_they_are_used() -> None:
    for wrong in ("", "localhost", "localhost:", ":7443", "https://localhost:7443", "http://h:1/path"):
        with pytest.raises(ValueError, match="HOST:PORT|authority"):
            Client(wrong)
    Client("http://localhost:7443/").close()


def test_an_event_and_an_object_read_alike() -> None:
    event = upsert("a", 7)
    alike = cache_pb2.Object(
        namespace=event.namespace,
        name=event.name,
        uid=event.uid,
        resource_version=event.resource_version,
        object=event.object,
    )
    assert Object.from_proto(event) == Object.from_proto(alike)
