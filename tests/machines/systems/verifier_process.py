"""A process of `coin verifier serve`, asked over gRPC, and a provider that it asks over gRPC."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import grpc

from benchmarks._crashes.site import build
from coin_protocol import transport
from coin_protocol.testing.machines.verifier_system import DAY, Audit, Hold, Mode, State
from coin_protocol.v1 import provider_service_pb2 as provider_pb
from coin_protocol.v1 import receipt_pb2
from coin_protocol.v1 import verifier_service_pb2 as pb
from coin_protocol.v1.provider_service_pb2_grpc import add_ProviderServiceServicer_to_server
from coin_protocol.v1.verifier_service_pb2_grpc import VerifierServiceStub
from provider_sdk.service import SERVICE, ProviderServicer
from tests.machines.systems.log_process import new_database
from tests.machines.systems.verifier_children import Child
from tests.machines.systems.verifier_providers import LIES, Providers, new_parties, reader_of
from tests.support.parties import WAIT_SECONDS

T = TypeVar("T")

SLOW_SECONDS = 0.2
HELD_SECONDS = 1.0
"""An answer is kept back for no longer than this: one that is late would be a lie."""
WORK_SECONDS = 3.0
"""Longer than the lease of an audit whose worker died."""
LOOK_SECONDS = 0.05
AWAY_SECONDS = 0.3
"""Nothing comes of work while the provider does not answer."""

STATUS = {
    Mode.AWAY: grpc.StatusCode.UNAVAILABLE,
    Mode.DENIED: grpc.StatusCode.PERMISSION_DENIED,
}


class Moody(ProviderServicer):
    """Answers as the mode of the hour has it."""

    def __init__(self, providers: Providers) -> None:
        self._own = transport.Workers()
        super().__init__(providers.holder, self._own)
        self.mode = Mode.UP
        self.asked = 0
        self.hold: Hold | None = None
        self.reached = threading.Event()
        self.go = asyncio.Event()

    async def GetManifest(
        self, request: provider_pb.GetManifestRequest, context: transport.Context
    ) -> provider_pb.GetManifestResponse:
        return await self._answer(
            context, lambda: ProviderServicer.GetManifest(self, request, context)
        )

    async def AnswerChallenge(
        self, request: provider_pb.AnswerChallengeRequest, context: transport.Context
    ) -> provider_pb.AnswerChallengeResponse:
        return await self._answer(
            context, lambda: ProviderServicer.AnswerChallenge(self, request, context)
        )

    async def AnswerWholeBlockChallenge(
        self, request: provider_pb.AnswerWholeBlockChallengeRequest, context: transport.Context
    ) -> provider_pb.AnswerWholeBlockChallengeResponse:
        return await self._answer(
            context, lambda: ProviderServicer.AnswerWholeBlockChallenge(self, request, context)
        )

    async def _answer(self, context: transport.Context, honest: Callable[[], Awaitable[T]]) -> T:
        if (status := STATUS.get(self.mode)) is not None:
            return await transport.abort(context, status, self.mode)
        self.asked += 1
        question = self.asked
        await self._stand_still(Hold(question, answered=False))
        answer = await honest()
        if self.mode is Mode.SLOW:
            await asyncio.sleep(SLOW_SECONDS)
        await self._stand_still(Hold(question, answered=True))
        return answer

    async def _stand_still(self, at: Hold) -> None:
        if at == self.hold:
            self.reached.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.go.wait(), HELD_SECONDS)

    def end(self) -> None:
        """End its threads."""
        self._own.close()


class ProcessVerifier:
    """A node of one process that serves and audits, and the provider beside it."""

    lies = LIES
    modes = (Mode.UP, Mode.SLOW, Mode.AWAY, Mode.DENIED)
    audits_per_day: int | None = None

    def __init__(self) -> None:
        parties = new_parties()
        self._providers = Providers(parties)
        self.reader = reader_of(parties)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="provider")
        self._thread.start()
        self._moody, self._server, port = self._run(self._serve())
        self._folder = TemporaryDirectory(prefix="coin-node-")
        folder = Path(self._folder.name)
        self._path = folder / "node.db"
        self._path.write_bytes(new_database())
        more = {
            "call_seconds": 20,
            "retry_seconds": [0.2, 0.2],
            "memory_folder": str(folder / "memory"),
            "receipts_per_commitment": 1000,
        }
        site = build(
            folder,
            parties,
            url=f"sqlite:///{self._path}",
            target=f"127.0.0.1:{port}",
            nats=None,
            at_once=2,
            more=more,
        )
        self._node = Child("verifier", ["--config", str(site.config)], folder / "node.log")
        self._channel: grpc.Channel | None = None
        self._ids: set[str] = set()
        self._node.start()

    async def _serve(self) -> tuple[Moody, transport.Server, int]:
        moody = Moody(self._providers)
        server = await transport.make_server(SERVICE)
        add_ProviderServiceServicer_to_server(moody, server)
        port = transport.bind(server, "127.0.0.1:0", None)
        await server.start()
        return moody, server, port

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(2 * WAIT_SECONDS)

    @property
    def _stub(self) -> Any:
        if self._channel is None:
            self._channel = grpc.insecure_channel(f"127.0.0.1:{self._node.said('port')}")
        return VerifierServiceStub(self._channel)

    def reply(self, lie: str) -> bytes:
        return self._providers.reply(lie)

    def meet(self, mode: Mode) -> None:
        self._moody.mode = mode

    def submit(self, receipts: Sequence[bytes]) -> Sequence[str | None]:
        calls = [
            self._stub.SubmitReceipt.future(
                pb.SubmitReceiptRequest(receipt=receipt_pb2.Receipt.FromString(raw)),
                timeout=WAIT_SECONDS,
            )
            for raw in receipts
        ]
        found: list[str | None] = []
        for call in calls:
            try:
                found.append(call.result().audit_id)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                    raise
                found.append(None)
        self._ids.update(filter(None, found))
        return found

    def look(self, audit_id: str) -> Audit | None:
        request = pb.GetAuditRequest(audit_id=audit_id)
        try:
            audit = self._stub.GetAudit(request, timeout=WAIT_SECONDS).audit
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return None
        if audit.state == pb.AUDIT_STATE_DECIDED:
            self._ids.discard(audit_id)
            return Audit(State.DECIDED, audit.bundle.SerializeToString(deterministic=True))
        return Audit(State.ERROR if audit.state == pb.AUDIT_STATE_ERROR else State.WAITING)

    def ask(self, audit_id: str) -> None:
        self._stub.RunAudit(pb.RunAuditRequest(audit_id=audit_id), timeout=WAIT_SECONDS)

    def work(self, hold: Hold | None) -> bool:
        moody = self._moody
        waiting = len(self._ids)
        if not waiting:
            return False
        moody.reached.clear()
        moody.hold = hold and Hold(moody.asked + hold.question, hold.answered)
        end = time.monotonic() + (AWAY_SECONDS if moody.mode in STATUS else WORK_SECONDS)
        while time.monotonic() < end and not moody.reached.is_set():
            for audit_id in tuple(self._ids):
                self.look(audit_id)
            if len(self._ids) < waiting:
                return True
            time.sleep(LOOK_SECONDS)
        return False

    def resume(self) -> None:
        self._moody.hold = None

        async def go() -> None:
            self._moody.go.set()
            await asyncio.sleep(0)
            self._moody.go.clear()

        self._run(go())

    def crash(self) -> None:
        self._kill()
        self.resume()
        self._node.start()

    def _kill(self) -> None:
        self._node.said("port")
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._node.kill()

    def jump(self, seconds: float) -> None:
        pass

    def day(self) -> int:
        return int(time.time() // DAY)

    def said(self) -> Sequence[bytes]:
        with closing(sqlite3.connect(self._path)) as connection:
            return [data for (data,) in connection.execute("SELECT data FROM log_entry")]

    def close(self) -> None:
        self._kill()
        self._run(self._server.stop(None))
        self._moody.end()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._providers.close()
        self._folder.cleanup()
