"""How this client's channels are set up, the same for both kinds of them."""

from __future__ import annotations

from importlib import metadata

__all__ = ["OPTIONS", "address"]

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


def address(text: str) -> str:
    """Checks ``HOST:PORT`` or ``http://HOST:PORT``."""
    if text.startswith("https://"):
        raise ValueError(f"{text!r}: this client speaks plaintext only; pass a channel of your own")
    server = text.removeprefix("http://").rstrip("/")
    host, colon, port = server.rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise ValueError(f"{text!r} is not an address of informerd: write HOST:PORT")
    return server
