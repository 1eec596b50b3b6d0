"""A complete list, put together from the pages of a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from informerd.errors import Incomplete
from informerd.feeds import Feed
from informerd.model import Freshness

__all__ = ["Listed", "Pages"]

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Listed(Generic[K, T]):
    """All of one snapshot (verdicts: one snapshot a kind)."""

    #: In the order of their keys.
    items: list[T]
    #: Where a watch of the same feed follows on.
    token: bytes
    #: How well each kind is known, by its name.
    freshness: Mapping[str, Freshness]

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class Pages(Generic[K, T]):
    """A list under way."""

    def __init__(self, feed: Feed[K, T]) -> None:
        self._feed = feed
        self._items: list[T] = []

    def take(self, page: Any) -> Listed[K, T] | None:
        """Takes one message in; gives the list with the last."""
        items, end, freshness = self._feed.read_list(page)
        self._items.extend(items)
        if end is None:
            return None
        if end.count != len(self._items):
            raise Incomplete(f"the list should have {end.count} items, and {len(self._items)} came")
        return Listed(self._items, end.token, freshness)

    @staticmethod
    def stopped() -> Incomplete:
        """For a stream that was over before its last message."""
        return Incomplete("the list stopped before its end mark")
