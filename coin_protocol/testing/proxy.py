"""Bad networks as proxies: `TcpProxy` for bytes of any kind, `GrpcProxy` for whole calls.

Both do what a script says. A script is a function of what is counted (connections, or calls of a
method), so it does the same in every run; `by_chance` makes one out of a seed.

    async with TcpProxy(target, in_turn(Line(to_client=500, end=End.CUT))) as proxy:
        ...  # the first connection is cut after 500 bytes of the server's; others are sound

TCP neither reorders nor repeats what it carries. A proxy that speaks gRPC may: it holds a call back
until another has passed, sends it twice, answers with an old reply, or changes bytes. It is part of
the end that it stands before, inside of its TLS. `GrpcProxy` needs the extra `server`.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from socket import SO_LINGER, SOL_SOCKET
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import grpc
from grpc import aio

from coin_protocol import transport

_CHUNK_BYTES: Final = 1 << 16
_HOST: Final = "127.0.0.1"
_OWN_METADATA: Final = ("grpc-", "user-agent")
"""Beginnings of keys that each connection sets for itself."""

F = TypeVar("F")


# Bytes


class End(StrEnum):
    """How a connection ends that does not carry all."""

    CUT = "cut"
    """Reset, in both directions."""
    CLOSE = "close"
    """Closed as if all had been said: what came is a truncation."""
    SILENCE = "silence"
    """Open, and nothing passes any more."""


@dataclass(frozen=True, slots=True)
class Line:
    """What a connection does to what it carries.

    Attributes:
        to_server: Bytes that pass from the client before the end; None for all.
        to_client: Bytes that pass from the server before the end; None for all.
        end: How it ends when either is reached. With 0 bytes it ends at its beginning.
        delay: Seconds that each piece waits.
    """

    to_server: int | None = None
    to_client: int | None = None
    end: End = End.CUT
    delay: float = 0.0


SOUND: Final = Line()
"""A connection that carries everything at once."""

LineScript = Callable[[int], Line]
"""Takes the number of a connection, from 0, and returns what it does."""


def in_turn(*lines: Line) -> LineScript:
    """Return a script that gives the first connections these lines; the rest are sound."""
    return lambda number: lines[number] if number < len(lines) else SOUND


_ALL_SOUND: Final = in_turn()


class TcpProxy:
    """Stands before HOST:PORT on a port of this machine. Use as an async context manager."""

    def __init__(self, target: str, script: LineScript = _ALL_SOUND) -> None:
        """Name the target; nothing is open before `up`.

        Args:
            target: HOST:PORT.
            script: What each connection does.
        """
        self._host, _, port = target.rpartition(":")
        self._target_port = int(port)
        self._script = script
        self._port = 0
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._speaks = asyncio.Event()
        self._speaks.set()
        self.connections = 0

    async def __aenter__(self) -> Self:
        """Listen."""
        await self.up()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cut all connections."""
        await self.down()

    @property
    def target(self) -> str:
        """HOST:PORT."""
        return f"{_HOST}:{self._port}"

    async def up(self) -> None:
        """Listen, on the same port each time."""
        self._server = await asyncio.start_server(self._serve, _HOST, self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Cut all connections, and take no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        await asyncio.gather(*self._open, return_exceptions=True)

    def cut(self) -> None:
        """Cut all connections; new ones are taken."""
        for task, writers in self._open.items():
            _abort(writers)
            task.cancel()

    def fall_silent(self) -> None:
        """Pass nothing on from here, as a network does that drops packets."""
        self._speaks.clear()

    def speak(self) -> None:
        """Pass on again, first of all what was held back."""
        self._speaks.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        line, writers = self._script(self.connections), [writer]
        self.connections += 1
        self._open[task] = writers
        try:
            await self._carry(line, reader, writers)
        except (OSError, asyncio.CancelledError):
            _abort(writers)
        finally:
            del self._open[task]
            for each in writers:
                each.close()

    async def _carry(
        self, line: Line, reader: asyncio.StreamReader, writers: list[asyncio.StreamWriter]
    ) -> None:
        """Carry what comes until both sides have said all, or the line ends."""
        (client,) = writers
        server_reader, server = await asyncio.open_connection(self._host, self._target_port)
        writers.append(server)
        ways = [
            asyncio.create_task(self._pump(line, line.to_server, reader, server)),
            asyncio.create_task(self._pump(line, line.to_client, server_reader, client)),
        ]
        ends = False
        try:
            for way in asyncio.as_completed(ways):
                ends = not await way
                if ends:
                    break
        finally:
            for task in ways:
                task.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        if ends:
            await self._end(line, writers)

    async def _pump(
        self,
        line: Line,
        most: int | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Pass on what one side says; return whether it was all."""
        left = most
        while left != 0:
            chunk = await reader.read(_CHUNK_BYTES)
            if not chunk:
                writer.write_eof()
                return True
            await self._speaks.wait()
            await asyncio.sleep(line.delay)
            part = chunk[:left]
            writer.write(part)
            await writer.drain()
            left = None if left is None else left - len(part)
        return False

    async def _end(self, line: Line, writers: Sequence[asyncio.StreamWriter]) -> None:
        if line.end == End.CUT:
            _abort(writers)
        elif line.end == End.SILENCE:
            await asyncio.Event().wait()


def _abort(writers: Sequence[asyncio.StreamWriter]) -> None:
    """Reset connections: without lingering, a close says nothing but that."""
    for writer in writers:
        socket = writer.get_extra_info("socket")
        with suppress(OSError):
            socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


# Calls


class Act(StrEnum):
    """What is done to a call."""

    NOTHING = "nothing"
    BREAK = "break"
    """It ends in UNAVAILABLE, as where a connection breaks."""
    LOSE = "lose"
    """Nothing comes back, until the caller gives up."""
    DELAY = "delay"
    HOLD = "hold"
    """It waits until another call has passed, at most `seconds`: they change places."""
    DUPLICATE = "duplicate"
    """It is made twice; the second reply is passed back."""
    TRUNCATE = "truncate"
    CORRUPT = "corrupt"
    """One bit is flipped."""
    REPLAY = "replay"
    """It is answered with the last reply to another call of its method, where there is one."""


class Way(StrEnum):
    """Where it is done."""

    REQUEST = "request"
    """Before the target has the request."""
    REPLY = "reply"
    """After the target has answered."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a call.

    Attributes:
        act: What is done.
        way: Where. `DUPLICATE` is of requests and `REPLAY` of replies, whatever it says.
        seconds: Of a delay, or of a call that is held back.
        place: Share of a message before the place where it is cut or changed, below 1.
    """

    act: Act = Act.NOTHING
    way: Way = Way.REPLY
    seconds: float = 0.1
    place: float = 0.5


PASSED: Final = Fault()
"""A call that is passed on."""

CallScript = Callable[[str, int], Fault]
"""Takes a method's short name and the number of its call, from 0, and returns what happens."""


def scripted(faults: Mapping[str, Sequence[Fault]]) -> CallScript:
    """Return a script of what happens to the first calls of each method; the rest is passed on."""

    def fault(method: str, number: int) -> Fault:
        of_method = faults.get(method, ())
        return of_method[number] if number < len(of_method) else PASSED

    return fault


def always(what: F) -> Callable[..., F]:
    """Return a script, for lines or for calls, by which all meet the same."""
    return lambda *_: what


def by_chance(seed: int | str, choices: Sequence[F], sound: F, *, share: float) -> Callable[..., F]:
    """Return a script, for lines or for calls, that `seed` decides.

    Args:
        seed: The same seed decides the same, whatever else happens.
        choices: What may happen, each as likely as any.
        sound: What happens to the rest.
        share: Of what is counted, how much one of `choices` happens to.
    """

    def choose(*counted: object) -> F:
        chance = random.Random(f"{seed}/{counted}")  # noqa: S311 - no secret, and repeatable
        return chance.choice(choices) if chance.random() < share else sound

    return choose


_ALL_PASSED: Final = scripted({})


class GrpcProxy:
    """Passes on gRPC calls of any service, one request each. Use as an async context manager."""

    def __init__(
        self,
        target: str,
        script: CallScript = _ALL_PASSED,
        *,
        tls: transport.ClientTls | None = None,
    ) -> None:
        """Name the target; nothing is open before `up`.

        Args:
            target: HOST:PORT.
            script: What happens to each call.
            tls: As `transport.open_channel` takes it; callers come in plaintext, from this machine.
        """
        self._target = target
        self._tls = tls
        self._script = script
        self._port = 0
        self._server: aio.Server | None = None
        self._channel: aio.Channel | None = None
        self._passed = asyncio.Condition()
        self._ended = 0
        self._last: dict[str, list[bytes]] = {}
        self.calls: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        """Serve."""
        await self.up()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        await self.down()

    @property
    def target(self) -> str:
        """HOST:PORT."""
        return f"{_HOST}:{self._port}"

    async def up(self) -> None:
        """Serve, on the same port each time."""
        self._channel = transport.open_channel(self._target, self._tls)
        self._server = aio.server(
            handlers=(_AnyMethod(self),),
            options=(*transport.CHANNEL_OPTIONS, ("grpc.so_reuseport", 0)),
        )
        self._port = self._server.add_insecure_port(self.target)
        await self._server.start()

    async def down(self) -> None:
        """End all calls, and take no more."""
        if self._server is not None:
            await self._server.stop(None)
        if self._channel is not None:
            await self._channel.close()
        self._server = self._channel = None

    async def relay(
        self, method: str, requests: AsyncIterator[bytes], context: transport.Context
    ) -> AsyncIterator[bytes]:
        """Yield the replies to a call."""
        name = method.rpartition("/")[2]
        fault = self._script(name, self.calls[name])
        self.calls[name] += 1
        request = await anext(aiter(requests), b"")
        try:
            if fault.way == Way.REQUEST:
                await self._meet(fault, context)
                request = _changed(fault, request)
            if fault.act == Act.DUPLICATE:
                _ = [reply async for reply in self._made(method, request, context)]
            replies = self._made(method, request, context)
            async for reply in self._answered(name, fault, replies, context):
                yield reply
        finally:
            async with self._passed:
                self._ended += 1
                self._passed.notify_all()

    async def _answered(
        self,
        name: str,
        fault: Fault,
        replies: AsyncIterator[bytes],
        context: transport.Context,
    ) -> AsyncIterator[bytes]:
        """Yield replies with what happens to them."""
        old = self._last.get(name) if fault.act == Act.REPLAY else None
        kept: list[bytes] = []
        async for reply in replies:
            kept.append(reply)
            if old is not None:
                continue
            if fault.way == Way.REPLY:
                if len(kept) == 1:
                    await self._meet(fault, context)
                yield _changed(fault, reply)
            else:
                yield reply
        for reply in old or ():
            yield reply
        self._last[name] = kept

    async def _meet(self, fault: Fault, context: transport.Context) -> None:
        """Let happen what happens to a message on its way."""
        if fault.act == Act.BREAK:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection broke")
        elif fault.act == Act.LOSE:
            await asyncio.Event().wait()
        elif fault.act == Act.DELAY:
            await asyncio.sleep(fault.seconds)
        elif fault.act == Act.HOLD:
            before = self._ended
            with suppress(TimeoutError):
                async with asyncio.timeout(fault.seconds), self._passed:
                    await self._passed.wait_for(lambda: self._ended > before)

    async def _made(
        self, method: str, request: bytes, context: transport.Context
    ) -> AsyncIterator[bytes]:
        """Make a call of the target's, and yield its replies; one that fails ends ours alike."""
        if self._channel is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the proxy is down")
        metadata = [
            (key, value)
            for key, value in context.invocation_metadata() or ()
            if not key.startswith(_OWN_METADATA)
        ]
        left: Any = context.time_remaining()
        to_target: Any = self._channel.unary_stream(method)
        try:
            async for reply in to_target(request, timeout=left, metadata=metadata):
                yield reply
        except aio.AioRpcError as error:
            trailing = tuple(error.trailing_metadata() or ())
            await context.abort(error.code(), error.details() or "", trailing)


class _AnyMethod(grpc.GenericRpcHandler):
    """Hands every call to a proxy, as one whose requests and replies are streams of bytes."""

    def __init__(self, proxy: GrpcProxy) -> None:
        self._proxy = proxy

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:  # noqa: ANN401 - as in grpc
        method, relay = handler_call_details.method, self._proxy.relay

        async def answer(
            requests: AsyncIterator[bytes], context: transport.Context
        ) -> AsyncIterator[bytes]:
            async for reply in relay(method, requests, context):
                yield reply

        return grpc.stream_stream_rpc_method_handler(answer)


def _changed(fault: Fault, message: bytes) -> bytes:
    """Return what a fault leaves of a message."""
    place = int(len(message) * fault.place)
    if fault.act == Act.TRUNCATE:
        return message[:place]
    if fault.act == Act.CORRUPT and message:
        return message[:place] + bytes((message[place] ^ 1,)) + message[place + 1 :]
    return message
