"""Both clients by one set of functions, so that each test is about both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import informerd
from informerd import AsyncClient, Client, Credentials, Event, Feed

K = TypeVar("K")
T = TypeVar("T")

#: How long anything may take here, in seconds.
PATIENCE = 20


class Both:
    """One of the two clients, of a server."""

    def __init__(self, kind: str, address: str, credentials: Credentials | None = None) -> None:
        self.kind = kind
        self.address = address
        self.credentials = credentials

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a method of the client."""
        if self.kind == "blocking":
            with Client(self.address, credentials=self.credentials) as client:
                return getattr(client, method)(*args, **kwargs)

        async def run() -> Any:
            async with AsyncClient(self.address, credentials=self.credentials) as client:
                return await asyncio.wait_for(getattr(client, method)(*args, **kwargs), PATIENCE)

        return asyncio.run(run())

    def watch(
        self, feed: Feed[K, T], until: Callable[[list[Event[K, T]]], bool], token: bytes = b""
    ) -> list[Event[K, T]]:
        """What a watch tells until enough was told; an error is raised."""
        told: list[Event[K, T]] = []
        if self.kind == "blocking":
            with Client(self.address, credentials=self.credentials) as client, client.watch(feed, token=token) as watch:
                for event in watch:
                    told.append(event)
                    if until(told):
                        return told
            return told

        async def run() -> None:
            async with AsyncClient(self.address, credentials=self.credentials) as client:
                async with client.watch(feed, token=token) as watch:
                    async for event in watch:
                        told.append(event)
                        if until(told):
                            return

        asyncio.run(asyncio.wait_for(run(), PATIENCE))
        return told


def marked(token: bytes) -> Callable[[list[Any]], bool]:
    """Until a mark with this token."""
    return lambda told: getattr(told[-1], "token", None) == token


def short(told: Iterable[Any]) -> list[str]:
    """What was told, to be read."""
    words = []
    for event in told:
        if isinstance(event, informerd.Upsert):
            words.append(f"+{event.key}@{event.revision}")
        elif isinstance(event, informerd.Delete):
            words.append(f"-{event.key} {event.cause.name}")
        elif isinstance(event, informerd.Mark):
            words.append(event.type.name)
        elif isinstance(event, informerd.ResetBegin):
            words.append(f"RESET {event.reason}")
        elif isinstance(event, informerd.ResetEnd):
            words.append("RESET_END")
        else:
            words.append(f"cut: {type(event.error).__name__}")
    return words
