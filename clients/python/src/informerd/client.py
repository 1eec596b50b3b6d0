"""The blocking client."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

import grpc

from informerd import channel as channels
from informerd import methods, waiting
from informerd.backoff import Backoff
from informerd.credentials import Credentials
from informerd.errors import Error, Incomplete, Silent, from_rpc
from informerd.events import Event
from informerd.feeds import Feed, Objects
from informerd.follow import CLOSING, Follower
from informerd.listed import Listed, Pages
from informerd.model import Freshness, Object, Target, Verdict
from informerd.v1 import introspection_pb2, readiness_pb2
from informerd.waiting import OnProgress, Waited, WaitResult

__all__ = ["Client", "Watch"]

K = TypeVar("K")
T = TypeVar("T")

# How often a watchdog looks whether there is something to watch over, in seconds.
_LOOKS = 1.0


class Client:
    """A connection to one informerd; safe to share between threads. It connects when first used, and again whenever
    it must.

    The calls of one client share one HTTP/2 connection and its flow control: a watch that is not read holds up the
    others. Give a slow consumer a client of its own.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:7443",
        *,
        credentials: Credentials | None = None,
        channel: grpc.Channel | None = None,
        timeout: float = 10.0,
    ) -> None:
        """Prepares a connection to ``HOST:PORT`` or ``https://HOST:PORT``, or uses a channel of your own, which stays
        yours to close. ``timeout``: seconds for calls that are not told otherwise; not for watches and waits."""
        self._line = channels.Line(channel, address, credentials, _channel, lambda old: old.close())
        self._timeout = timeout
        self._closed = threading.Event()
        self._watches: weakref.WeakSet[Watch[Any, Any]] = weakref.WeakSet()

    def get(self, what: Objects, *, timeout: float | None = None) -> tuple[Object, Freshness]:
        """Reads the object that ``what`` names, and how fresh it is. Raises :class:`NotFound` where there is none."""
        reply = self._unary(methods.get_object, what.get_request(), timeout)
        return Object.from_proto(reply.object), Freshness.from_proto(reply.freshness)

    def list(self, what: Feed[K, T], *, timeout: float | None = None) -> Listed[K, T]:
        """Lists objects or verdicts, all of one snapshot."""
        pages = Pages(what)
        call = self._open(what.list_call, what.list_request(), self._or_own(timeout))
        try:
            for page in call:
                listed = pages.take(page)
                if listed is not None:
                    return listed
        except grpc.RpcError as error:
            raise from_rpc(error) from error
        finally:
            call.cancel()
        raise pages.stopped()

    def watch(self, what: Feed[K, T], *, token: bytes = b"") -> Watch[K, T]:
        """Watches objects or verdicts, from a token or from the initial state on. Opens the call when first read."""
        watch = Watch(what, token, lambda request: self._open(what.watch_call, request, None))
        self._watches.add(watch)
        return watch

    def get_readiness(self, target: Target, *, timeout: float | None = None) -> tuple[Verdict, Freshness]:
        """The verdict on one target, and how well its kind is known. A target that does not exist is GONE."""
        request = readiness_pb2.GetReadinessRequest(target=target.to_proto())
        reply = self._unary(methods.get_readiness, request, timeout)
        return Verdict.from_proto(reply.verdict), Freshness.from_proto(reply.freshness)

    def wait_readiness(
        self,
        targets: Waited | Iterable[Waited],
        *,
        wait_for: str = "ready",
        namespace: str = "default",
        timeout: float = 60.0,
        on_progress: OnProgress | None = None,
    ) -> WaitResult:
        """Waits until all targets are as asked for at the same time: ``ready``, ``gone``, ``safe-to-disrupt`` or
        ``condition=NAME``. ``namespace`` is that of targets given as text.

        Only evidence gathered after the call counts, so a wait right after a write is never satisfied by what was
        before it. A call that is cut is made again. Raises where informerd cannot be asked at all within ``timeout``
        seconds, or refuses; a wait that timed out is a result like any other.
        """
        wait = waiting.Wait.of(targets, wait_for, namespace)
        deadline = time.monotonic() + timeout
        backoff = Backoff()
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            try:
                call = self._open(methods.wait_readiness, wait.request(left), waiting.call_timeout(left))
                return self._wait(call, on_progress)
            except Error as error:
                delay = backoff.next(error.retry_delay)
                if error.permanent or time.monotonic() + delay >= deadline or self._closed.wait(delay):
                    raise

    def kinds(self, *, timeout: float | None = None) -> Sequence[introspection_pb2.KindStatus]:
        """The kinds that informerd is configured to watch."""
        request = introspection_pb2.ListKindsRequest()
        reply = self._unary(methods.list_kinds, request, timeout)
        return tuple(reply.kinds)

    def close(self) -> None:
        """Ends all watches, waits and the connection."""
        self._closed.set()
        for watch in tuple(self._watches):
            watch.close()
        for channel in self._line.own():
            channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _or_own(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout

    def _open(self, method: Callable[[Any], Any], request: Any, timeout: float | None) -> Any:
        """Begins a call, by the credentials of now."""
        return method(self._line.channel())(request, timeout=timeout, metadata=self._line.metadata())

    def _unary(self, method: Callable[[Any], Any], request: Any, timeout: float | None) -> Any:
        try:
            return self._open(method, request, self._or_own(timeout))
        except grpc.RpcError as error:
            raise from_rpc(error) from error

    @staticmethod
    def _wait(call: Any, on_progress: OnProgress | None) -> WaitResult:
        try:
            for message in call:
                step = waiting.read(message)
                if isinstance(step, WaitResult):
                    return step
                if on_progress is not None:
                    on_progress(step)
        except grpc.RpcError as error:
            raise from_rpc(error) from error
        finally:
            call.cancel()
        raise Incomplete("the wait ended without an outcome")


def _channel(server: str, secured: grpc.ChannelCredentials | None) -> grpc.Channel:
    if secured is None:
        return grpc.insecure_channel(server, options=channels.PLAIN_OPTIONS)
    return grpc.secure_channel(server, secured, options=channels.OPTIONS)


class Watch(Generic[K, T]):
    """An iterator over :data:`Event`\\ s that goes on until it is closed or fails for good: what it raises is an
    error that another try would meet again. It resumes by itself after anything else.

    Read it from one thread. :meth:`close` may be called from any.
    """

    def __init__(self, feed: Feed[K, T], token: bytes, open_call: Callable[[Any], Any]) -> None:
        self._follower = Follower(feed, token)
        self._open = open_call
        self._call: Any = None
        self._retry_at = 0.0
        self._closed = threading.Event()
        self._watchdog = _Watchdog()

    @property
    def token(self) -> bytes:
        """Where another watch of the same feed would resume; empty before the initial state is complete."""
        return self._follower.token

    @property
    def mismatches(self) -> int:
        """How often what was told did not come to the digest of what informerd holds. The watch begins anew each time,
        with :class:`Reconnecting` and :class:`Differs`, unless it did so just before and that was of no use."""
        return self._follower.mismatches

    def close(self) -> None:
        """Ends the watch; whoever reads it finds it over."""
        self._closed.set()
        self._watchdog.stop()
        call = self._call
        if call is not None:
            call.cancel()

    def __iter__(self) -> Iterator[Event[K, T]]:
        return self

    def __next__(self) -> Event[K, T]:
        while not self._closed.is_set():
            if self._follower.told:
                return self._follower.told.popleft()
            self._turn()
        raise StopIteration

    def __enter__(self) -> Watch[K, T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        # One whose making failed has none of it.
        if hasattr(self, "_watchdog"):
            self.close()

    def _turn(self) -> None:
        """One step towards having something to tell."""
        follower = self._follower
        if self._call is None:
            if self._closed.wait(max(self._retry_at - time.monotonic(), 0.0)):
                return
        failure: Error | None = None
        patience = CLOSING if follower.is_ending else follower.patience
        try:
            if self._call is None:
                self._call = self._open(follower.opened(time.monotonic()))
                if self._closed.is_set():
                    self._call.cancel()
            with self._watchdog.watching(self._call, patience):
                message = next(self._call)
            follower.take(message, time.monotonic())
            return
        except StopIteration:
            pass
        except grpc.RpcError as error:
            failure = from_rpc(error)
        except Error as error:
            failure = error
        if self._closed.is_set():
            return
        if self._watchdog.fired:
            failure = None if follower.is_ending else Silent(patience)
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        try:
            self._retry_at = time.monotonic() + follower.cut(failure, time.monotonic())
        except Error:
            self.close()
            raise


class _Watchdog:
    """Cancels a call on which nothing comes: reading one blocks without a limit. One thread for a watch's life,
    which begins with the first reading."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._call: Any = None
        self._deadline = 0.0
        self._looks_at = 0.0
        self._stopped = False
        #: Whether it has cancelled the call that was last read.
        self.fired = False

    def watching(self, call: Any, patience: float) -> _Watchdog:
        """For one reading."""
        with self._changed:
            self.fired = False
            self._call = call
            self._deadline = time.monotonic() + patience
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._run, name="informerd-watchdog", daemon=True)
                self._thread.start()
            if self._deadline < self._looks_at:
                self._changed.notify()
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._call = None

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                if self._call is not None and self._deadline <= now:
                    self.fired = True
                    self._call.cancel()
                    self._call = None
                # Most readings end and the next begins before this is over, without a word to this thread.
                wait = self._deadline - now if self._call is not None else _LOOKS
                self._looks_at = now + wait
                self._changed.wait(wait)
