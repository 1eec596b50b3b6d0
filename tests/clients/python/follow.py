"""Follows objects or verdicts with the package in clients/python, and says in lines of JSON what it sees.

It begins with a list, or with the watch's own initial state. It is cut, its server restarted and its credentials
replaced by the test that runs it. It ends at the first mark at or past the revision that it reads from its standard
input, with all that it then holds; verdicts, whose revisions nobody else knows, when that is closed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading

from informerd import (
    AsyncClient,
    Changes,
    Client,
    Credentials,
    Listed,
    Mark,
    Mirror,
    Objects,
    Reconnecting,
    ResetBegin,
    Verdicts,
)


def say(what: str, **rest: object) -> None:
    print(json.dumps({"what": what, **rest}), flush=True)


class Follower:
    """What is done with an event, whichever client it came by."""

    def __init__(self, feed: Objects | Verdicts, listed: Listed | None) -> None:
        self.mirror = Mirror(feed, listed)
        self.verdicts = isinstance(feed, Verdicts)
        self.wanted: int | None = None
        self.closed = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self.wanted = int(line)
        self.closed = True

    def take(self, event: object) -> bool:
        """Whether to go on."""
        for change in self.mirror.apply(event):
            item = change.new or change.old
            kind = "added" if change.old is None else "deleted" if change.new is None else "modified"
            if self.verdicts:
                say(kind, key=str(change.key), state=item.state.name, reason=item.reason, ready=item.parts_ready)
            else:
                say(kind, key=str(change.key), uid=item.uid, resourceVersion=item.resource_version)
        if isinstance(event, ResetBegin):
            say("reset", reason=event.reason)
        if isinstance(event, Reconnecting):
            say("cut", error=type(event.error).__name__, reason=event.error.reason)
        if isinstance(event, Mark) and event.token:
            if self.verdicts:
                return not self.closed
            (freshness,) = event.freshness.values()
            revision = min(it.revision for it in freshness.positions.values())
            if self.wanted is not None and revision >= self.wanted:
                held = self.mirror.values()
                objects = {str(it.key): {"uid": it.uid, "resourceVersion": it.resource_version} for it in held}
                say("end", revision=revision, objects=objects)
                return False
        return True


def blocking(server: str, own: Credentials, feed: Objects | Verdicts, with_list: bool) -> None:
    with Client(server, credentials=own) as client:
        listed = client.list(feed) if with_list else None
        follower = Follower(feed, listed)
        for event in client.watch(feed, token=follower.mirror.token):
            if not follower.take(event):
                return


async def with_asyncio(server: str, own: Credentials, feed: Objects | Verdicts, with_list: bool) -> None:
    async with AsyncClient(server, credentials=own) as client:
        listed = await client.list(feed) if with_list else None
        follower = Follower(feed, listed)
        async for event in client.watch(feed, token=follower.mirror.token):
            if not follower.take(event):
                return


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--server", required=True)
    arguments.add_argument("--asyncio", action="store_true")
    arguments.add_argument("--list", action="store_true")
    arguments.add_argument("--verdicts", action="store_true")
    arguments.add_argument("--namespace", default="")
    arguments.add_argument("--selector", default="")
    for file in ("--ca", "--cert", "--key", "--token-file"):
        arguments.add_argument(file)
    arguments.add_argument("resource")
    args = arguments.parse_args()
    feed: Objects | Verdicts
    if args.verdicts:
        feed = Verdicts(
            args.resource,
            namespaces=args.namespace,
            label_selector=args.selector,
            changes=Changes.TRANSITIONS,
            bookmark_interval=1,
        )
    else:
        feed = Objects(
            args.resource, namespaces=args.namespace, label_selector=args.selector, bookmark_interval=1
        )
    own = Credentials(ca=args.ca, certificate=args.cert, key=args.key, token_file=args.token_file)
    if args.asyncio:
        asyncio.run(with_asyncio(args.server, own, feed, args.list))
    else:
        blocking(args.server, own, feed, args.list)


if __name__ == "__main__":
    main()
