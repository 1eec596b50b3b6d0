"""A local copy of what a watch covers.

Resets are built beside the copy and swapped in when they are complete, so a reader never sees half of one, and one
that is cut leaves no trace. What a watch tells stands, so nothing is ever taken back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from informerd.events import Delete, Event, Mark, Reconnecting, ResetBegin, ResetEnd, Upsert
from informerd.feeds import Feed
from informerd.listed import Listed
from informerd.model import Freshness

__all__ = ["Change", "Mirror"]

K = TypeVar("K")


class _Item(Protocol):
    @property
    def uid(self) -> str: ...


T = TypeVar("T", bound=_Item)


@dataclass(frozen=True, slots=True)
class Change(Generic[K, T]):
    """What an event changed in the copy: added where ``old`` is None, deleted where ``new`` is, else modified."""

    key: K
    old: T | None
    new: T | None


class Mirror(Generic[K, T]):
    """What a watch has told so far, folded. Reads like a dict; give it all events of one watch, in order.

    It is not locked: apply and read it from one thread, or hold a lock of your own.
    """

    def __init__(self, feed: Feed[K, T], listed: Listed[K, T] | None = None) -> None:
        """An empty copy; or one that begins with a list, to be continued by a watch from the list's token."""
        self._feed = feed
        self._items: dict[K, T] = {}
        self._resets: dict[tuple[str, ...], dict[K, T]] = {}
        #: Whether the initial state has been complete once.
        self.complete = False
        #: Where a watch resumes that continues this copy; empty before the first one was told.
        self.token = b""
        #: How well each kind is known, by what the last mark said.
        self.freshness: Mapping[str, Freshness] = {}
        if listed is not None:
            self._items = {feed.key_of(item): item for item in listed}
            self.complete, self.token, self.freshness = True, listed.token, listed.freshness

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[K]:
        return iter(self._items)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __getitem__(self, key: K) -> T:
        return self._items[key]

    def get(self, key: K) -> T | None:
        """What is held under a key."""
        return self._items.get(key)

    def values(self) -> Iterator[T]:
        """All that is held, in no order."""
        return iter(self._items.values())

    def apply(self, event: Event[K, T]) -> list[Change[K, T]]:
        """Folds one event in, and tells what that changed."""
        if isinstance(event, Upsert):
            reset = self._reset_of(event.key)
            if reset is not None:
                reset[event.key] = event.item
                return []
            return self._put(event.key, event.item)
        if isinstance(event, Delete):
            reset = self._reset_of(event.key)
            items = self._items if reset is None else reset
            held = items.get(event.key)
            # Only the one of this uid: a repeated delete must not take its successor of the same name.
            if held is None or held.uid != event.uid:
                return []
            del items[event.key]
            return [Change(event.key, held, None)] if reset is None else []
        if isinstance(event, ResetBegin):
            # The latest one is looked at first.
            self._resets.pop(event.covers, None)
            self._resets[event.covers] = {}
            return []
        if isinstance(event, ResetEnd):
            self._note(event)
            return self._swap(event.covers)
        if isinstance(event, Mark):
            self._note(event)
            return []
        assert isinstance(event, Reconnecting)
        self._resets.clear()
        return []

    def _note(self, event: Mark | ResetEnd) -> None:
        if event.token is not None:
            self.token = event.token
        self.freshness = event.freshness

    def _covers(self, covers: tuple[str, ...], key: K) -> bool:
        return not covers or self._feed.part_of(key) in covers

    def _reset_of(self, key: K) -> dict[K, T] | None:
        """The reset under way that this belongs to."""
        for covers in reversed(self._resets):
            if self._covers(covers, key):
                return self._resets[covers]
        return None

    def _put(self, key: K, item: T) -> list[Change[K, T]]:
        old = self._items.get(key)
        if old == item:
            return []
        self._items[key] = item
        if old is not None and old.uid != item.uid:
            return [Change(key, old, None), Change(key, None, item)]
        return [Change(key, old, item)]

    def _swap(self, covers: tuple[str, ...]) -> list[Change[K, T]]:
        """Puts a complete reset in the place of what was held of its part."""
        new = self._resets.pop(covers, None)
        if new is None:
            return []
        self.complete = self.complete or not self._resets
        gone = [key for key in self._items if self._covers(covers, key) and key not in new]
        changes = [Change(key, self._items.pop(key), None) for key in gone]
        for key, item in new.items():
            changes.extend(self._put(key, item))
        return changes
