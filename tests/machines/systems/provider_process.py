"""The provider of `provider_sdk` as a process of its own, over SQLite: it is killed for real.

Replies come through a pipe; manifests, key sets and challenges over gRPC, as verifiers ask.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import grpc
from grpc import aio

from coin_protocol import envelope, transport
from coin_protocol.commitment import SessionSecret
from coin_protocol.keys import VerificationKey
from coin_protocol.keyset import SignedKeySet
from coin_protocol.profile import Profile
from coin_protocol.testing.machines.exposure import Terms, verifier_ring
from coin_protocol.testing.machines.provider_system import DiedError, Ended
from coin_protocol.v1 import envelope_pb2, statements_pb2
from coin_protocol.v1 import provider_service_pb2 as pb
from coin_protocol.v1.provider_service_pb2_grpc import ProviderServiceStub
from provider_sdk.fingerprints import FingerprintWorker
from provider_sdk.provider import Provider
from provider_sdk.service import ServiceSettings, make_server
from provider_sdk.store import SqlStore
from tests.machines.systems import folder as new_folder
from tests.machines.systems.provider_keys import FolderKeys
from tests.machines.systems.provider_rules import LONG, MovedClock
from tests.machines.systems.provider_sdk import WAIT_SECONDS, Life, started

SECONDS_A_STEP: Final = 0.002
"""A death comes so much later for each step that it is put off."""

_IDLE_SECONDS: Final = 0.01
_SETTINGS: Final = ServiceSettings(rate=transport.RateLimit(per_second=10_000.0, burst=100_000))
_PROCESSES: Final = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["__main__", __name__])

Call = tuple[str, tuple[Any, ...], dict[str, Any]]


class _Served:
    """A life, and what it is told besides."""

    def __init__(self, life: Life, keys: FolderKeys, clock: MovedClock) -> None:
        self._life = life
        self._keys = keys
        self._clock = clock

    def call(self, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Do what the other end of the pipe asks for."""
        if name == "pass_time":
            return self._clock.pass_time(*arguments)
        if name == "rotate":
            return self._keys.rotate(LONG, *arguments)
        return getattr(self._life, name)(*arguments, **options)


def live(pipe: Connection, folder: Path, profile: bytes, passed: float, ahead: float) -> None:
    """Live as a provider, until killed or let go of."""
    clock = MovedClock()
    clock.pass_time(passed)
    clock.set_clock(ahead)
    clock.start()
    keys = FolderKeys(clock, folder, valid_for=LONG)
    terms = Terms(Profile.from_bytes(profile), verifier_ring())
    life = started(folder, terms, keys, clock)
    for work in (_embed, _serve):
        threading.Thread(target=work, args=(life, pipe), daemon=True).start()
    served = _Served(life, keys, clock)
    while True:
        try:
            name, arguments, options = pipe.recv()
        except EOFError:
            os._exit(0)
        try:
            pipe.send((True, served.call(name, arguments, options)))
        except ValueError as error:
            pipe.send((False, ValueError(str(error))))


def _embed(life: Life, pipe: Connection) -> None:
    del pipe
    assert isinstance(life.store, SqlStore)
    worker = FingerprintWorker(life.provider, life.store, batch_blocks=2)
    worker.run(threading.Event(), _IDLE_SECONDS)


def _serve(life: Life, pipe: Connection) -> None:
    asyncio.run(_serving(life.provider, pipe))


async def _serving(provider: Provider, pipe: Connection) -> None:
    server = await make_server(provider, _SETTINGS)
    port = transport.bind(server, "127.0.0.1:0", None)
    await server.start()
    pipe.send(port)
    await server.wait_for_termination()


class ProcessProvider:
    """A `ProviderSystem` of one process after the other."""

    keeps_open_replies = True

    def __init__(self, terms: Terms) -> None:
        self._profile = terms.profile.raw
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(new_folder()))
        self._loop = self._stack.enter_context(asyncio.Runner())
        self._passed = self._ahead = 0.0
        self._death: threading.Timer | None = None
        self._start()

    @property
    def root(self) -> VerificationKey:
        path = self._folder / "keys" / "root.pub.pem"
        return VerificationKey.from_pem("root", path.read_bytes())

    def key_set(self) -> SignedKeySet:
        try:
            reply = self._loop.run(self._key_set())
        except aio.AioRpcError as error:
            raise self._dead(error) from error
        return SignedKeySet(reply.key_set, tuple(reply.root_chain))

    def rotate(self, overlap: timedelta) -> None:
        self._call("rotate", overlap)

    def open(self, name: str, request: bytes, client_nonce: bytes) -> None:
        self._call("open", name, request, client_nonce)

    def append(
        self, name: str, token_ids: Sequence[int], *, wait: bool
    ) -> Sequence[envelope_pb2.Envelope]:
        found: list[envelope_pb2.Envelope] = self._call("append", name, token_ids, wait=wait)
        return found

    def finish(self, name: str, answer: bytes) -> Ended:
        ended: Ended = self._call("finish", name, answer)
        return ended

    def abort(
        self, name: str, reason: statements_pb2.AbortReason.ValueType, answer: bytes
    ) -> Ended:
        ended: Ended = self._call("abort", name, reason, answer)
        return ended

    def leave(self, name: str) -> None:
        self._call("leave", name)

    def find(self, name: str) -> envelope_pb2.Envelope | None:
        found: envelope_pb2.Envelope | None = self._call("find", name)
        return found

    def secret(self, name: str) -> SessionSecret:
        """Tell a session's secret."""
        found: SessionSecret = self._call("secret", name)
        return found

    def manifest(
        self, commitment_sha256: bytes
    ) -> tuple[envelope_pb2.Envelope, envelope_pb2.Envelope]:
        try:
            return self._loop.run(self._manifest(commitment_sha256))
        except aio.AioRpcError as error:
            raise self._dead(error) from error

    def answer(
        self, commitment_sha256: bytes, challenges: Sequence[envelope_pb2.Envelope]
    ) -> Sequence[envelope_pb2.Envelope | None]:
        return self._loop.run(self._answers(commitment_sha256, challenges))

    def pass_time(self, seconds: float) -> None:
        self._passed += seconds
        self._call("pass_time", seconds)

    def set_clock(self, ahead: float) -> None:
        self._ahead = ahead

    def die(self, after: int) -> None:
        self._death = threading.Timer(after * SECONDS_A_STEP, self._process.kill)
        self._death.start()

    def restart(self) -> None:
        self._end()
        self._start()

    def close(self) -> None:
        self._end()
        self._stack.close()

    def _start(self) -> None:
        self._pipe, theirs = _PROCESSES.Pipe()
        self._process = _PROCESSES.Process(
            target=live, args=(theirs, self._folder, self._profile, self._passed, self._ahead)
        )
        self._process.start()
        theirs.close()
        port = self._pipe.recv()
        self._loop.run(self._connect(port))

    def _end(self) -> None:
        if self._death is not None:
            self._death.join()
            self._death = None
        self._process.kill()
        self._process.join()
        self._process.close()
        self._pipe.close()
        self._loop.run(self._channel.close())

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        try:
            self._pipe.send((name, arguments, options))
            good, value = self._pipe.recv()
        except (EOFError, OSError):
            if self._death is None:
                raise
            raise DiedError from None
        if not good:
            raise value
        return value

    def _dead(self, error: aio.AioRpcError) -> Exception:
        """Return what an error means: a process that was told to die, or what nobody expects."""
        return error if self._death is None else DiedError()

    async def _connect(self, port: int) -> None:
        self._channel = transport.open_channel(f"127.0.0.1:{port}", None)
        self._stub = ProviderServiceStub(self._channel)

    async def _key_set(self) -> pb.GetKeySetResponse:
        return await self._stub.GetKeySet(pb.GetKeySetRequest(), timeout=WAIT_SECONDS)

    async def _manifest(
        self, commitment_sha256: bytes
    ) -> tuple[envelope_pb2.Envelope, envelope_pb2.Envelope]:
        request = pb.GetManifestRequest(commitment_sha256=commitment_sha256)
        while True:
            try:
                reply = await self._stub.GetManifest(request, timeout=WAIT_SECONDS)
            except aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE or not self._process.is_alive():
                    raise
                await asyncio.sleep(_IDLE_SECONDS)
            else:
                return reply.manifest, reply.fingerprints

    async def _answers(
        self, commitment_sha256: bytes, challenges: Sequence[envelope_pb2.Envelope]
    ) -> Sequence[envelope_pb2.Envelope | None]:
        asked = [self._answer(commitment_sha256, challenge) for challenge in challenges]
        return await asyncio.gather(*asked)

    async def _answer(
        self, commitment_sha256: bytes, challenge: envelope_pb2.Envelope
    ) -> envelope_pb2.Envelope | None:
        ask = self._whole if challenge.payload_type == envelope.WHOLE_CHALLENGE else self._plain
        try:
            return await ask(commitment_sha256, challenge)
        except aio.AioRpcError as error:
            refusal = transport.details_of(error, pb.RefusalDetail())
            if refusal is not None:
                return refusal.refusal
            if error.code() in _NO_CHALLENGE or self._death is not None:
                return None
            raise

    async def _plain(self, key: bytes, challenge: envelope_pb2.Envelope) -> envelope_pb2.Envelope:
        request = pb.AnswerChallengeRequest(commitment_sha256=key, challenge=challenge)
        return (await self._stub.AnswerChallenge(request, timeout=WAIT_SECONDS)).opening

    async def _whole(self, key: bytes, challenge: envelope_pb2.Envelope) -> envelope_pb2.Envelope:
        request = pb.AnswerWholeBlockChallengeRequest(commitment_sha256=key, challenge=challenge)
        return (await self._stub.AnswerWholeBlockChallenge(request, timeout=WAIT_SECONDS)).opening


_NO_CHALLENGE: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)
"""What a challenge meets that is none, or none of this commitment."""
