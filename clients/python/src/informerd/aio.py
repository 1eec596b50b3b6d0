"""The client for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

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

__all__ = ["AsyncClient", "AsyncWatch"]

# The stubs of others do not know it.
_EOF = getattr(grpc.aio, "EOF")

K = TypeVar("K")
T = TypeVar("T")


class AsyncClient:
    """What :class:`Client` is, for asyncio. Make and use it within one running event loop."""

    def __init__(
        self,
        address: str = "127.0.0.1:7443",
        *,
        credentials: Credentials | None = None,
        channel: grpc.aio.Channel | None = None,
        timeout: float = 10.0,
    ) -> None:
        """As of :class:`Client`; the channel is one of ``grpc.aio``."""
        self._closing: set[asyncio.Future[None]] = set()
        self._line = channels.Line(channel, address, credentials, _channel, self._retire)
        self._timeout = timeout
        self._watches: weakref.WeakSet[AsyncWatch[Any, Any]] = weakref.WeakSet()

    async def get(self, what: Objects, *, timeout: float | None = None) -> tuple[Object, Freshness]:
        """See :meth:`Client.get`."""
        reply = await self._unary(methods.get_object, what.get_request(), timeout)
        return Object.from_proto(reply.object), Freshness.from_proto(reply.freshness)

    async def list(self, what: Feed[K, T], *, timeout: float | None = None) -> Listed[K, T]:
        """See :meth:`Client.list`."""
        pages = Pages(what)
        call = self._open(what.list_call, what.list_request(), self._or_own(timeout))
        try:
            async for page in call:
                listed = pages.take(page)
                if listed is not None:
                    return listed
        except grpc.RpcError as error:
            raise from_rpc(error) from error
        finally:
            call.cancel()
        raise pages.stopped()

    def watch(self, what: Feed[K, T], *, token: bytes = b"") -> AsyncWatch[K, T]:
        """See :meth:`Client.watch`."""
        watch = AsyncWatch(what, token, lambda request: self._open(what.watch_call, request, None))
        self._watches.add(watch)
        return watch

    async def get_readiness(self, target: Target, *, timeout: float | None = None) -> tuple[Verdict, Freshness]:
        """See :meth:`Client.get_readiness`."""
        request = readiness_pb2.GetReadinessRequest(target=target.to_proto())
        reply = await self._unary(methods.get_readiness, request, timeout)
        return Verdict.from_proto(reply.verdict), Freshness.from_proto(reply.freshness)

    async def wait_readiness(
        self,
        targets: Waited | Iterable[Waited],
        *,
        wait_for: str = "ready",
        namespace: str = "default",
        timeout: float = 60.0,
        on_progress: OnProgress | None = None,
    ) -> WaitResult:
        """See :meth:`Client.wait_readiness`. Cancelling it ends the call."""
        wait = waiting.Wait.of(targets, wait_for, namespace)
        deadline = time.monotonic() + timeout
        backoff = Backoff()
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            try:
                call = self._open(methods.wait_readiness, wait.request(left), waiting.call_timeout(left))
                return await self._wait(call, on_progress)
            except Error as error:
                delay = backoff.next(error.retry_delay)
                if error.permanent or time.monotonic() + delay >= deadline:
                    raise
            await asyncio.sleep(delay)

    async def kinds(self, *, timeout: float | None = None) -> Sequence[introspection_pb2.KindStatus]:
        """See :meth:`Client.kinds`."""
        request = introspection_pb2.ListKindsRequest()
        reply = await self._unary(methods.list_kinds, request, timeout)
        return tuple(reply.kinds)

    async def close(self) -> None:
        """Ends all watches and the connection."""
        for watch in tuple(self._watches):
            watch.close()
        for channel in self._line.own():
            await channel.close(None)
        await asyncio.gather(*self._closing)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _or_own(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout

    def _retire(self, old: Any) -> None:
        closing = asyncio.ensure_future(old.close(None))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _open(self, method: Callable[[Any], Any], request: Any, timeout: float | None) -> Any:
        """Begins a call, by the credentials of now."""
        return method(self._line.channel())(request, timeout=timeout, metadata=self._line.metadata())

    async def _unary(self, method: Callable[[Any], Any], request: Any, timeout: float | None) -> Any:
        try:
            return await self._open(method, request, self._or_own(timeout))
        except grpc.RpcError as error:
            raise from_rpc(error) from error

    @staticmethod
    async def _wait(call: Any, on_progress: OnProgress | None) -> WaitResult:
        try:
            async for message in call:
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


def _channel(server: str, secured: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    if secured is None:
        return grpc.aio.insecure_channel(server, options=channels.PLAIN_OPTIONS)
    return grpc.aio.secure_channel(server, secured, options=channels.OPTIONS)


class AsyncWatch(Generic[K, T]):
    """What :class:`Watch` is, for ``async for``. A reading that is cancelled (by ``asyncio.timeout``, say) loses
    nothing: the next one goes on."""

    def __init__(self, feed: Feed[K, T], token: bytes, open_call: Callable[[Any], Any]) -> None:
        self._follower = Follower(feed, token)
        self._open = open_call
        self._call: Any = None
        self._retry_at = 0.0
        # What is waited for, a message or the time to try again; it outlives the reading that began it.
        self._step: asyncio.Future[Any] | None = None
        self._deadline = 0.0
        self._closed = False

    @property
    def token(self) -> bytes:
        """See :attr:`Watch.token`."""
        return self._follower.token

    @property
    def mismatches(self) -> int:
        """See :attr:`Watch.mismatches`."""
        return self._follower.mismatches

    def close(self) -> None:
        """Ends the watch; whoever reads it finds it over."""
        self._closed = True
        # Where the event loop is no more, neither is the call.
        with contextlib.suppress(RuntimeError):
            if self._call is not None:
                self._call.cancel()
            if self._step is not None:
                self._step.cancel()

    def __aiter__(self) -> AsyncIterator[Event[K, T]]:
        return self

    async def __anext__(self) -> Event[K, T]:
        while not self._closed:
            if self._follower.told:
                return self._follower.told.popleft()
            await self._turn()
        raise StopAsyncIteration

    async def __aenter__(self) -> AsyncWatch[K, T]:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # One whose making failed has none of it.
        if hasattr(self, "_closed"):
            self.close()

    async def _turn(self) -> None:
        """One step towards having something to tell."""
        follower = self._follower
        if self._call is None:
            delay = self._retry_at - time.monotonic()
            if delay > 0:
                await self._wait(asyncio.sleep(delay), None)
                if self._closed:
                    return
        failure: Error | None = None
        patience = CLOSING if follower.is_ending else follower.patience
        try:
            if self._call is None:
                self._call = self._open(follower.opened(time.monotonic()))
            message = await self._wait(self._call.read(), patience)
            if self._closed:
                return
            if message is not _EOF:
                follower.take(message, time.monotonic())
                return
        except asyncio.TimeoutError:
            failure = None if follower.is_ending else Silent(patience)
        except grpc.RpcError as error:
            failure = from_rpc(error)
        except Error as error:
            failure = error
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        try:
            self._retry_at = time.monotonic() + follower.cut(failure, time.monotonic())
        except Error:
            self.close()
            raise

    async def _wait(self, step: Any, patience: float | None) -> Any:
        """Goes on with what is waited for, or begins with ``step``."""
        if self._step is None:
            self._step = asyncio.ensure_future(step)
            self._deadline = time.monotonic() + (patience or 0.0)
        else:
            step.close()
        timeout = None if patience is None else max(self._deadline - time.monotonic(), 0.0)
        await asyncio.wait({self._step}, timeout=timeout)
        done, self._step = self._step, None
        if not done.done():
            done.cancel()
            raise asyncio.TimeoutError
        if done.cancelled():
            # By close(), or by gRPC when the call itself was.
            if self._closed:
                return None
            raise Incomplete("the call was cancelled")
        return done.result()
