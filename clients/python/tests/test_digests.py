"""What a watch tells is held against informerd's digests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from both import Both, marked, short
from fake import Call, Informerd, delete, initial, mark, message, upsert
from informerd import Changes, Client, Delivery, Differs, Objects, OnGap, Reconnecting
from informerd.ledger import Ledger, number
from informerd.model import Freshness, KindState, Position
from informerd.v1 import cache_pb2, types_pb2

PODS = Objects("pods")
Clients = Callable[[str], Both]


def proving(kind: str, token: bytes, *objects: tuple[str, int]) -> cache_pb2.Mark:
    """A mark with the digest of these: names and versions."""
    told = mark(kind, token)
    digest = sum(number(f"default/{name}", f"uid-{name}", str(version)) for name, version in objects) % 2**64
    told.freshness.positions.append(types_pb2.ShardPosition(digest=digest, has_digest=True))
    return told


def proven(*events: cache_pb2.Event, token: bytes, there: list[tuple[str, int]]) -> list[Any]:
    """An initial state with its digest."""
    return [*initial(*events, token=token)[:2], message(mark=proving("RESET_END", token, *there))]


def test_the_documented_vectors_hold() -> None:
    text = (Path(__file__).parents[3] / "docs" / "digest.md").read_text()
    vectors = text.split("## Test vectors")[1]
    rows = [line.strip().strip("|").split("|") for line in vectors.splitlines() if line.startswith("|")]
    values = [[cell.strip().strip("`") for cell in row] for row in rows[2:]]
    assert len(values) == 5
    for key, uid, version, expected in values:
        assert number(key, uid, version) == int(expected, 16), key


def test_a_watch_that_was_not_told_of_a_change_begins_anew_by_itself(client: Clients) -> None:
    # The change of b is lost on the way.
    there = [("a", 1), ("b", 3), ("c", 4)]
    first = [
        *proven(upsert("a", 1), upsert("b", 2), token=b"2", there=[("a", 1), ("b", 2)]),
        message(upsert("c", 4), mark=proving("PROGRESS", b"4", *there)),
    ]
    second = proven(*(upsert(*it) for it in there), token=b"5", there=there)
    with Informerd(WatchObjects=[Call(first), Call(second)]) as server:
        told = client(server.address).watch(PODS, marked(b"5"))
        asked = server.script.asked_of("WatchObjects")
    cut = [it for it in told if isinstance(it, Reconnecting)]
    assert len(cut) == 1 and isinstance(cut[0].error, Differs)
    assert [(it.token, it.digests) for it in asked] == [(b"", True), (b"", True)]
    assert short(told)[-4:] == ["+default/a@1", "+default/b@3", "+default/c@4", "RESET_END"]


def test_digests_that_agree_or_are_not_there_change_nothing(client: Clients) -> None:
    there = [("a", 1), ("b", 2)]
    messages = [
        *proven(upsert("a", 1), upsert("b", 2), token=b"2", there=there),
        # One of another uid is not the one that is held.
        message(delete("b", 3, 1, uid="other"), mark=proving("PROGRESS", b"3", *there)),
        message(mark=mark("PROGRESS", b"4")),
        message(delete("b", 5, 1), mark=proving("BOOKMARK", b"5", ("a", 1))),
    ]
    with Informerd(WatchObjects=[Call(messages)]) as server:
        told = client(server.address).watch(PODS, marked(b"5"))
    assert not [it for it in told if isinstance(it, Reconnecting)]


def test_to_begin_anew_is_tried_once_and_again_only_after_they_agreed(client: Clients) -> None:
    wrong = proven(upsert("a", 1), token=b"2", there=[])
    second = [
        *wrong,
        message(mark=proving("BOOKMARK", b"3")),
        message(mark=proving("BOOKMARK", b"4", ("a", 1))),
        message(mark=proving("BOOKMARK", b"5")),
    ]
    third = proven(upsert("a", 1), token=b"6", there=[("a", 1)])
    with Informerd(WatchObjects=[Call(wrong), Call(second), Call(third)]) as server:
        told = client(server.address).watch(PODS, marked(b"6"))
    assert len([it for it in told if isinstance(it, Reconnecting)]) == 2
    assert b"4" in [getattr(it, "token", None) for it in told]


def test_what_did_not_agree_is_counted() -> None:
    messages = [*proven(upsert("a", 1), token=b"2", there=[]), message(mark=proving("BOOKMARK", b"3"))]
    with Informerd(WatchObjects=[Call(messages), Call(messages)]) as server:
        with Client(server.address) as client, client.watch(PODS) as watch:
            for event in watch:
                if getattr(event, "token", None) == b"3":
                    break
            assert watch.mismatches == 3


@pytest.mark.parametrize("feed", [Objects("pods", delivery=Delivery.EVERY), Objects("pods", on_gap=OnGap.FAIL)])
def test_a_watch_that_was_to_leave_nothing_out_ends_where_something_is_missing(client: Clients, feed: Objects) -> None:
    messages = [*proven(upsert("a", 1), token=b"2", there=[("a", 1)]), message(mark=proving("BOOKMARK", b"3"))]
    with Informerd(WatchObjects=[Call(messages), Call([])]) as server:
        with pytest.raises(Differs):
            client(server.address).watch(feed, lambda told: False)
        assert len(server.script.asked_of("WatchObjects")) == 1


@pytest.mark.parametrize(
    "feed",
    [
        Objects("pods", digests=False),
        Objects("pods", label_selector="app=web"),
        Objects("pods", "default", "a"),
        Objects("pods", changes=Changes.VISIBLE),
    ],
)
def test_where_there_is_no_digest_none_is_asked_for(feed: Objects) -> None:
    assert not feed.watch_request(b"").digests


def test_each_shard_is_held_against_its_own_digest() -> None:
    ledger = Ledger()
    ledger.begin(())
    ledger.upsert("x", "a", "1", "1")
    ledger.upsert("y", "b", "2", "2")
    ledger.end(())
    # One shard begins anew.
    ledger.begin(("y",))
    ledger.upsert("y", "c", "3", "3")
    ledger.end(("y",))

    def differs(**digests: int | None) -> bool:
        positions = {it.strip("_"): Position(1, digest) for it, digest in digests.items()}
        freshness = Freshness(KindState.LIVE, "", "", None, False, positions, False, False)
        return ledger.differs({"pods": freshness})[0]

    x, y = number("x/a", "1", "1"), number("y/c", "3", "3")
    assert not differs(x=x, y=y)
    assert differs(x=x, y=number("y/b", "2", "2"))
    assert not differs(_=(x + y) % 2**64, z=0)
    assert not differs(x=None)
