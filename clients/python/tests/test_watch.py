"""Watches resume, so that their consumer sees one stream."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from both import PATIENCE, Both, marked, short
from fake import CLOSE, Call, Fail, Informerd, delete, initial, mark, message, readiness_mark, upsert, verdict
from informerd import (
    AsyncClient,
    CallError,
    Changes,
    Client,
    DeleteCause,
    Delivery,
    Ended,
    KindState,
    Objects,
    OnGap,
    Reconnecting,
    Silent,
    State,
    Upsert,
    Verdicts,
)
from informerd.v1 import cache_pb2, readiness_pb2

PODS = Objects("pods")
Clients = Callable[[str], Both]

LOST = Fail(grpc.StatusCode.UNAVAILABLE, "the connection broke")


def test_a_cut_watch_resumes_from_its_last_token(client: Clients) -> None:
    first = [*initial(upsert("a", 1), token=b"1"), message(upsert("b", 2), mark=mark("PROGRESS", b"2"))]
    second = [message(upsert("c", 3), mark=mark("PROGRESS", b"3"))]
    with Informerd(WatchObjects=[Call(first, LOST), Call(second)]) as server:
        told = client(server.address).watch(PODS, marked(b"3"))
        tokens = [it.token for it in server.script.asked_of("WatchObjects")]
    assert short(told) == [
        "RESET INITIAL",
        "+default/a@1",
        "RESET_END",
        "+default/b@2",
        "PROGRESS",
        "cut: CallError",
        "+default/c@3",
        "PROGRESS",
    ]
    assert tokens == [b"", b"2"]


def test_events_without_their_mark_are_never_told(client: Clients) -> None:
    # Created and deleted while nobody was there: the resumed stream never speaks of it again.
    first = [*initial(token=b"1"), message(upsert("ghost", 2)), message(upsert("b", 3))]
    second = [message(upsert("b", 5), mark=mark("PROGRESS", b"5"))]
    with Informerd(WatchObjects=[Call(first, LOST), Call(second)]) as server:
        told = client(server.address).watch(PODS, marked(b"5"))
    assert short(told) == ["RESET INITIAL", "RESET_END", "cut: CallError", "+default/b@5", "PROGRESS"]


def test_events_wait_for_a_mark_that_has_a_token(client: Clients) -> None:
    messages = [
        *initial(token=b"1"),
        message(upsert("a", 2), mark=mark("STATE")),
        message(upsert("b", 3), mark=mark("PROGRESS", b"3")),
    ]
    with Informerd(WatchObjects=[Call(messages)]) as server:
        told = client(server.address).watch(PODS, marked(b"3"))
    assert short(told) == ["RESET INITIAL", "RESET_END", "STATE", "+default/a@2", "+default/b@3", "PROGRESS"]


def test_a_cut_within_a_reset_keeps_the_old_token(client: Clients) -> None:
    first = [
        *initial(upsert("a", 1), token=b"1"),
        message(mark=mark("RESET", reason="PAST_JOURNAL")),
        message(upsert("b", 9), mark=mark("STATE", b"not this one")),
    ]
    second = initial(upsert("c", 10), token=b"10")
    with Informerd(WatchObjects=[Call(first, LOST), Call(second)]) as server:
        told = client(server.address).watch(PODS, marked(b"10"))
        tokens = [it.token for it in server.script.asked_of("WatchObjects")]
    assert short(told)[3:] == [
        "RESET PAST_JOURNAL",
        "+default/b@9",
        "STATE",
        "cut: CallError",
        "RESET INITIAL",
        "+default/c@10",
        "RESET_END",
    ]
    assert tokens == [b"", b"1"]


def test_a_reset_of_two_parts_gives_a_token_at_the_end_of_both(client: Clients) -> None:
    messages = [
        message(mark=mark("RESET", namespaces=["a"])),
        message(mark=mark("RESET", namespaces=["b"])),
        message(upsert("x", 1, namespace="a")),
        message(mark=mark("RESET_END", b"early", namespaces=["a"])),
        message(mark=mark("RESET_END", b"whole", namespaces=["b"])),
    ]
    with Informerd(WatchObjects=[Call(messages)]) as server:
        told = client(server.address).watch(PODS, marked(b"whole"))
    ends = [(it.covers, it.token) for it in told if hasattr(it, "covers") and hasattr(it, "token")]
    assert ends == [(("a",), None), (("b",), b"whole")]


def test_what_one_part_was_told_outlives_the_reset_of_another_one(client: Clients) -> None:
    messages = [
        *initial(upsert("x", 1, namespace="a"), upsert("x", 1, namespace="b"), token=b"1"),
        message(upsert("x", 5, namespace="a"), upsert("gone", 5, namespace="b")),
        message(mark=mark("RESET", namespaces=["b"])),
        message(upsert("x", 7, namespace="b")),
        message(mark=mark("RESET_END", b"2", namespaces=["b"])),
    ]
    with Informerd(WatchObjects=[Call(messages)]) as server:
        told = client(server.address).watch(PODS, marked(b"2"))
    assert "+a/x@5" in short(told)
    assert "+b/gone@5" not in short(told)


def test_a_stream_that_is_ended_in_good_order_comes_back_when_it_is_asked_to(client: Clients) -> None:
    end = mark("END", b"2", reason="DRAINING", message="shutting down")
    end.retry_after.FromMilliseconds(300)
    first = [*initial(token=b"1"), message(upsert("a", 2), mark=end)]
    last = [message(mark=mark("BOOKMARK", b"3"))]
    unavailable = Fail(grpc.StatusCode.UNAVAILABLE, "draining")
    with Informerd(WatchObjects=[Call(first, unavailable), Call(last)]) as server:
        told = client(server.address).watch(PODS, marked(b"3"))
        tokens = [it.token for it in server.script.asked_of("WatchObjects")]
    cut = next(it for it in told if isinstance(it, Reconnecting))
    assert isinstance(cut.error, Ended) and cut.error.reason == "DRAINING"
    assert 0.3 <= cut.delay <= 0.33
    assert short(told)[2:] == ["+default/a@2", "END", "cut: Ended", "BOOKMARK"]
    assert tokens == [b"", b"2"]


def test_a_final_status_after_the_end_mark_is_raised(client: Clients) -> None:
    end = message(mark=mark("END", b"2", reason="REVOKED"))
    denied = Fail(grpc.StatusCode.PERMISSION_DENIED, "no more", "REVOKED")
    with Informerd(WatchObjects=[Call([*initial(token=b"1"), end], denied)]) as server:
        with pytest.raises(CallError, match="no more") as raised:
            client(server.address).watch(PODS, lambda told: False)
    assert raised.value.code is grpc.StatusCode.PERMISSION_DENIED
    assert raised.value.permanent


def test_a_gap_fails_where_that_is_asked_for(client: Clients) -> None:
    gap = Fail(grpc.StatusCode.OUT_OF_RANGE, "the journal does not reach back so far", "PAST_JOURNAL")
    feed = Objects("pods", on_gap=OnGap.FAIL)
    with Informerd(WatchObjects=[Call([], gap)]) as server:
        with pytest.raises(CallError) as raised:
            client(server.address).watch(feed, lambda told: False, token=b"old")
        (asked,) = server.script.asked_of("WatchObjects")
    assert raised.value.code is grpc.StatusCode.OUT_OF_RANGE
    assert raised.value.reason == "PAST_JOURNAL"
    assert (asked.token, asked.on_gap) == (b"old", cache_pb2.ON_GAP_FAIL)


@pytest.mark.parametrize("reason", ["HISTORY_GAP", "PAST_JOURNAL"])
def test_a_watch_of_each_change_ends_where_one_cannot_be_had(client: Clients, reason: str) -> None:
    gap = Fail(grpc.StatusCode.OUT_OF_RANGE, "begin again", reason)
    messages = [
        *initial(upsert("a", 1), token=b"1"),
        message(upsert("a", 2), mark=mark("PROGRESS", b"2")),
        message(mark=mark("END", b"2", reason=reason)),
    ]
    feed = Objects("pods", delivery=Delivery.EVERY)
    told: list[Any] = []

    def note(so_far: list[Any]) -> bool:
        told[:] = so_far
        return False

    with Informerd(WatchObjects=[Call(messages, gap), Call([])]) as server:
        with pytest.raises(CallError) as raised:
            client(server.address).watch(feed, note)
        (asked,) = server.script.asked_of("WatchObjects")
    assert (raised.value.code, raised.value.reason) == (grpc.StatusCode.OUT_OF_RANGE, reason)
    assert raised.value.permanent
    assert short(told)[-3:] == ["+default/a@2", "PROGRESS", "END"]
    # RESET would be refused beside EVERY.
    assert (asked.delivery, asked.on_gap) == (cache_pb2.DELIVERY_EVERY, cache_pb2.ON_GAP_UNSPECIFIED)


def test_every_cause_of_a_delete_is_told_and_one_that_is_not_known_reads_as_deleted(client: Clients) -> None:
    causes = [it for it in cache_pb2.DeleteCause.values() if it] + [99]
    events = [delete(f"p{cause}", 2, cause) for cause in causes]
    messages = [*initial(token=b"1"), message(*events, mark=mark("PROGRESS", b"2"))]
    with Informerd(WatchObjects=[Call(messages)]) as server:
        told = client(server.address).watch(PODS, marked(b"2"))
    seen = [it.cause.name for it in told if hasattr(it, "cause")]
    assert seen == ["DELETED", "LEFT_SELECTOR", "VANISHED", "REPLACED", "REVOKED", "DELETED_OR_LEFT", "DELETED"]
    assert {it.name for it in DeleteCause} == set(seen)


def test_a_watch_that_hears_nothing_is_opened_again(client: Clients) -> None:
    feed = Objects("pods", bookmark_interval=0.1)
    calls = [Call(initial(token=b"1")), Call([message(mark=mark("BOOKMARK", b"2"))])]
    begun = time.monotonic()
    with Informerd(WatchObjects=calls) as server:
        told = client(server.address).watch(feed, marked(b"2"))
    cut = next(it for it in told if isinstance(it, Reconnecting))
    assert isinstance(cut.error, Silent)
    assert time.monotonic() - begun < 8, "not by the connection's own keepalive"


def test_a_stream_that_is_closed_without_a_word_is_opened_again(client: Clients) -> None:
    calls = [Call(initial(token=b"1"), CLOSE), Call([message(mark=mark("BOOKMARK", b"2"))])]
    with Informerd(WatchObjects=calls) as server:
        told = client(server.address).watch(PODS, marked(b"2"))
    assert short(told)[2:] == ["cut: Ended", "BOOKMARK"]


def test_the_server_is_heard_on_when_to_come_back(client: Clients) -> None:
    busy = Fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams", "TOO_MANY", retry_delay=0.25)
    with Informerd(WatchObjects=[Call([], busy), Call(initial(token=b"1"))]) as server:
        told = client(server.address).watch(PODS, marked(b"1"))
    cut = told[0]
    assert isinstance(cut, Reconnecting) and 0.25 <= cut.delay <= 0.275


@pytest.mark.parametrize(
    "bad",
    [
        message(cache_pb2.Event(type=7)),  # type: ignore[arg-type]
        message(mark=mark("RESET_END", b"1", namespaces=["never begun"])),
    ],
)
def test_what_cannot_be_understood_is_final(client: Clients, bad: cache_pb2.WatchObjectsResponse) -> None:
    with Informerd(WatchObjects=[Call([*initial(token=b"1"), bad])]) as server:
        with pytest.raises(Exception, match="RESET_END without a RESET|an event of type 7"):
            client(server.address).watch(PODS, lambda told: False)


def test_a_server_that_is_not_there_is_tried_until_it_is(client: Clients) -> None:
    with Informerd() as server:
        address = server.address
    told = client(address).watch(PODS, lambda told: len(told) == 3)
    assert short(told) == ["cut: CallError"] * 3


def test_what_is_asked_for_is_what_the_request_says(client: Clients) -> None:
    feed = Objects(
        "pods",
        namespaces="default",
        label_selector="app=web",
        fields=[".spec.nodeName"],
        changes=Changes.VISIBLE,
        min_interval=1.5,
        min_resource_version="7",
    )
    with Informerd(WatchObjects=[Call(initial(token=b"1"))]) as server:
        client(server.address).watch(feed, marked(b"1"))
        (asked,) = server.script.asked_of("WatchObjects")
    assert list(asked.scope.namespaces) == ["default"]
    assert (asked.scope.label_selector, list(asked.fields)) == ("app=web", [".spec.nodeName"])
    assert (asked.view, asked.changes) == (3, cache_pb2.CHANGES_VISIBLE)
    assert asked.min_interval.ToMilliseconds() == 1500
    assert asked.min_resource_version == "7"
    assert not asked.HasField("bookmark_interval")
    with pytest.raises(ValueError, match="only ALL, TRANSITIONS"):
        Verdicts(changes=Changes.VISIBLE).watch_request(b"")


def test_verdicts_are_watched_by_the_same_rules(client: Clients) -> None:
    def said(*verdicts: readiness_pb2.Verdict, **rest: bytes) -> readiness_pb2.WatchReadinessResponse:
        events = [readiness_pb2.ReadinessEvent(type=cache_pb2.EVENT_TYPE_UPSERT, revision=1, verdict=it) for it in verdicts]
        mark = readiness_mark("PROGRESS", rest["token"]) if "token" in rest else None
        return readiness_pb2.WatchReadinessResponse(events=events, mark=mark)

    begin = readiness_pb2.WatchReadinessResponse(mark=readiness_mark("RESET", reason="INITIAL"))
    end = readiness_pb2.WatchReadinessResponse(mark=readiness_mark("RESET_END", b"1"))
    gone = readiness_pb2.ReadinessEvent(
        type=cache_pb2.EVENT_TYPE_DELETE,
        revision=3,
        verdict=verdict("a", "GONE"),
        cause=cache_pb2.DELETE_CAUSE_DELETED,
    )
    first = [begin, said(verdict("a", "NOT_READY", reason="LessReady")), end, said(verdict("ghost", "READY"))]
    second = [
        said(verdict("a", "READY"), token=b"2"),
        readiness_pb2.WatchReadinessResponse(events=[gone], mark=readiness_mark("PROGRESS", b"3")),
    ]
    with Informerd(WatchReadiness=[Call(first, LOST), Call(second)]) as server:
        told = client(server.address).watch(Verdicts("deploy", changes=Changes.TRANSITIONS), marked(b"3"))
        asked = server.script.asked_of("WatchReadiness")
    assert short(told) == [
        "RESET INITIAL",
        "+deployments.apps/a@1",
        "RESET_END",
        "cut: CallError",
        "+deployments.apps/a@1",
        "PROGRESS",
        "-deployments.apps/a DELETED",
        "PROGRESS",
    ]
    assert [it.item.state for it in told if isinstance(it, Upsert)] == [State.NOT_READY, State.READY]
    assert [it.token for it in asked] == [b"", b"1"]
    assert asked[0].changes == readiness_pb2.READINESS_CHANGES_TRANSITIONS
    last = told[-1]
    assert hasattr(last, "freshness") and last.freshness["deployments.apps"].state is KindState.LIVE


def test_a_blocking_watch_is_closed_from_another_thread() -> None:
    with Informerd(WatchObjects=[Call([message(mark=mark("RESET"))])]) as server:
        with Client(server.address) as client:
            watch = client.watch(PODS)
            assert short([next(watch)]) == ["RESET "]
            reader = threading.Thread(target=lambda: list(watch))
            reader.start()
            # From here on it waits for a message that never comes.
            while watch._watchdog._call is None:
                time.sleep(0.001)
            watch.close()
            reader.join(PATIENCE)
            assert not reader.is_alive()
            server.script.wait_until(lambda: server.script.over.get("WatchObjects") == 1)


def test_a_closed_client_ends_its_watches_also_between_two_tries() -> None:
    with Informerd() as server:
        address = server.address
    client = Client(address)
    watch = client.watch(PODS)
    assert isinstance(next(watch), Reconnecting)
    threading.Timer(0.05, client.close).start()
    assert all(isinstance(it, Reconnecting) for it in watch)


def test_a_cancelled_reading_loses_nothing() -> None:
    messages = [*initial(upsert("a", 1), token=b"1"), message(upsert("b", 2), mark=mark("PROGRESS", b"2"))]

    async def run() -> list[str]:
        told: list[Any] = []
        async with AsyncClient(server.address) as client, client.watch(PODS) as watch:
            while not (told and getattr(told[-1], "token", None) == b"2"):
                # Far too short for most: it is cancelled again and again.
                try:
                    told.append(await asyncio.wait_for(anext(watch), 0.0002))
                except asyncio.TimeoutError:
                    await asyncio.sleep(0)
        return short(told)

    with Informerd(WatchObjects=[Call(messages)]) as server:
        told = asyncio.run(asyncio.wait_for(run(), PATIENCE))
        assert len(server.script.asked_of("WatchObjects")) == 1, "the call outlives the readings"
    assert told == ["RESET INITIAL", "+default/a@1", "RESET_END", "+default/b@2", "PROGRESS"]


def test_a_cancelled_task_ends_its_call() -> None:
    async def run() -> None:
        async def read() -> None:
            async with AsyncClient(server.address) as client, client.watch(PODS) as watch:
                async for _ in watch:
                    pass

        reader = asyncio.create_task(read())
        await asyncio.to_thread(server.script.wait_until, lambda: server.script.asked.get("WatchObjects"))
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader

    with Informerd(WatchObjects=[Call(initial(token=b"1"))]) as server:
        asyncio.run(asyncio.wait_for(run(), PATIENCE))
        server.script.wait_until(lambda: server.script.over.get("WatchObjects") == 1)


def test_a_closed_watch_of_asyncio_is_over_for_its_reader() -> None:
    async def run() -> list[str]:
        async with AsyncClient(server.address) as client:
            watch = client.watch(PODS)

            async def read() -> list[str]:
                return short([it async for it in watch])

            reader = asyncio.create_task(read())
            await asyncio.to_thread(server.script.wait_until, lambda: server.script.asked.get("WatchObjects"))
            watch.close()
            return await reader

    with Informerd(WatchObjects=[Call([])]) as server:
        assert asyncio.run(asyncio.wait_for(run(), PATIENCE)) == []
