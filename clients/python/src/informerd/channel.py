"""Where this client's calls go, and what they bring along; the same for both kinds of channels."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import metadata
from typing import Any, Union

import grpc

from informerd.credentials import Credentials
from informerd.errors import CallError

__all__ = ["OPTIONS", "PLAIN_OPTIONS", "Line", "address"]

try:
    _VERSION = metadata.version("informerd")
except metadata.PackageNotFoundError:
    # Used from a source tree.
    _VERSION = "0"

OPTIONS: list[tuple[str, str | int]] = [
    ("grpc.primary_user_agent", f"informerd-python/{_VERSION}"),
    # Larger than any message that informerd sends: one object alone may exceed its batches' 4 MiB.
    ("grpc.max_receive_message_length", 64 << 20),
    # Find a dead connection before a watch's patience ends, and also where no watch is open.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC waits up to 2 minutes before it connects again, and meanwhile calls fail without a try. The backoff that
    # counts is the watch's own.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Two clients of one process are two connections: a slow consumer on one does not hold up the other.
    ("grpc.use_local_subchannel_pool", 1),
]

# In plain text a token goes to this machine only, and a proxy would take it elsewhere.
PLAIN_OPTIONS = [*OPTIONS, ("grpc.enable_http_proxy", 0)]


def address(text: str) -> tuple[str, str, bool]:
    """Checks ``HOST:PORT``, ``http://HOST:PORT`` or ``https://HOST:PORT``: the first of these, the host, and whether it
    is the last."""
    secured = text.startswith("https://")
    server = text.removeprefix("https://" if secured else "http://").rstrip("/")
    host, colon, port = server.rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise ValueError(f"{text!r} is not an address of informerd: write HOST:PORT or https://HOST:PORT")
    return server, host, secured


#: Makes a channel to a server, with credentials where it is to be secured.
Make = Callable[[str, Union[grpc.ChannelCredentials, None]], Any]


class Line:
    """The channel that calls go over: the caller's own, or one that is made anew once its certificates are replaced,
    since a channel keeps those that it was made with. What runs on the one before goes on there, until there is yet
    another one."""

    def __init__(
        self, given: Any, text: str, credentials: Credentials | None, make: Make, retire: Callable[[Any], None]
    ) -> None:
        if given is not None and credentials is not None:
            raise ValueError("a channel of your own has its own credentials")
        self._credentials = credentials or Credentials()
        self._make = make
        self._retire = retire
        self._lock = threading.Lock()
        self._made: list[Any] = []
        self._with: tuple[bytes | None, ...] = ()
        self._secured = False
        self._current = given
        if given is None:
            self._server, host, self._secured = address(text)
            self._credentials.check(self._secured, host)
            self._with = self._credentials.certificates()
            self._current = self._new()

    def channel(self) -> Any:
        """For the next call."""
        if not self._secured:
            return self._current
        with self._lock:
            try:
                now = self._credentials.certificates()
            except OSError as error:
                raise CallError(grpc.StatusCode.UNAVAILABLE, f"cannot read a certificate: {error}") from error
            if now != self._with:
                self._with = now
                self._current = self._new()
            return self._current

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """For the next call."""
        return self._credentials.metadata()

    def own(self) -> list[Any]:
        """The channels that were made here and are open, to be closed at the end."""
        with self._lock:
            made, self._made = self._made, []
            return made

    def _new(self) -> Any:
        secured = grpc.ssl_channel_credentials(*self._with) if self._secured else None
        channel = self._make(self._server, secured)
        self._made.append(channel)
        if len(self._made) > 2:
            self._retire(self._made.pop(0))
        return channel
