"""The parts of a node over SQLite; its workers are in this process, and die where they stand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TypeVar, cast
from unittest.mock import patch

from sqlalchemy import select

from coin_protocol.clock import wall_time
from coin_protocol.database.engine import open_engine, reading
from coin_protocol.errors import CoinError, InvalidInputError, PeerUnavailableError
from coin_protocol.keyset import SignedKeySet
from coin_protocol.testing.machines.verifier_system import DAY, Audit, Hold, Mode, State
from coin_protocol.v1 import envelope_pb2, receipt_pb2
from provider_sdk.provider import RefusedChallengeError
from provider_sdk.service import _code_of
from tests.machines.systems.log_process import new_database
from tests.machines.systems.verifier_providers import LIES, Providers, new_parties, reader_of
from tests.machines.systems.verifier_pure import STATUS
from tests.support.nodes import NodeParts, lease
from tests.support.parties import PROVIDER
from tests.support.workers import Seen
from verifier_sdk.client import ProviderClient
from verifier_sdk.log.tables import ENTRY
from verifier_sdk.node.intake import Intake
from verifier_sdk.node.queues import DatabaseJob, DatabaseQueue
from verifier_sdk.node.sampling import ASKED_PRIORITY
from verifier_sdk.node.worker import Target, Worker
from verifier_sdk.store import clock as store_clock
from verifier_sdk.store.claims import Budget, claim_next
from verifier_sdk.store.quota import Quota
from verifier_sdk.store.reading import failed_share, find_audit, find_bundle
from verifier_sdk.store.submissions import ask_for
from verifier_sdk.store.tables import DECIDED, ERROR

T = TypeVar("T")

PAUSES = (10.0, 100.0)
LEASE_SECONDS = 30.0
WIDE = Quota(receipts_per_day=1_000_000, bytes_per_day=1 << 40, receipts_per_commitment=1_000)


@dataclass
class Line:
    """What one worker asks the provider by: `ProviderClient` without a network.

    Attributes:
        node: Whose worker, and how the provider meets it.
        hold: The question at which the worker stands still.
        reached: Set when it does.
        go: Ends that.
    """

    node: SqliteNode
    hold: Hold | None
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0

    async def served_key_set(self, *, within: float = 0.0) -> SignedKeySet:
        del within
        if self.node.mode is Mode.AWAY:
            raise PeerUnavailableError(self.node.mode)
        return self.node.providers.holder(b"").served

    async def manifest(
        self, commitment_sha256: bytes
    ) -> tuple[envelope_pb2.Envelope, envelope_pb2.Envelope]:
        holder = self.node.providers.holder(commitment_sha256)
        return await self._question(lambda: holder.manifest(commitment_sha256))

    async def challenge(
        self, commitment_sha256: bytes, challenge: envelope_pb2.Envelope, *, whole: bool
    ) -> receipt_pb2.Round:
        holder = self.node.providers.holder(commitment_sha256)
        answer = holder.answer_whole if whole else holder.answer
        entry = receipt_pb2.Round(challenge=challenge, sent_at=wall_time())
        try:
            entry.opening.CopyFrom(
                await self._question(lambda: answer(commitment_sha256, challenge))
            )
        except RefusedChallengeError as refused:
            entry.refusal.CopyFrom(refused.signed)
        except PeerUnavailableError as error:
            entry.no_answer = error.status
        except CoinError as error:
            entry.no_answer = _code_of(error)[0].name
        entry.received_at.CopyFrom(wall_time())
        return entry

    async def _question(self, answer: Callable[[], T]) -> T:
        self.asked += 1
        await self._stand_still(Hold(self.asked, answered=False))
        status = STATUS.get(self.node.mode)
        if status is not None:
            raise PeerUnavailableError(self.node.mode, status=status)
        found = answer()
        await self._stand_still(Hold(self.asked, answered=True))
        return found

    async def _stand_still(self, at: Hold) -> None:
        if at == self.hold:
            self.reached.set()
            await self.go.wait()


class SqliteNode:
    """A node without sockets."""

    lies = LIES
    modes = tuple(Mode)
    audits_per_day: int | None = None

    def __init__(self) -> None:
        self._parties = new_parties()
        self.providers = Providers(self._parties)
        self.reader = reader_of(self._parties)
        self.mode = Mode.UP
        self._folder = TemporaryDirectory(prefix="coin-node-")
        path = Path(self._folder.name) / "node.db"
        path.write_bytes(new_database())
        self._url = f"sqlite:///{path}"
        self._ahead = 0.0
        clock = SimpleNamespace(time=lambda: time.time() + self._ahead)
        self._clock = patch.object(store_clock, "time", clock)
        self._clock.start()
        self._runner = asyncio.Runner()
        self._held: list[tuple[Line, asyncio.Task[None]]] = []
        self._workers = 0
        self._start()

    def _start(self) -> None:
        self._engine = open_engine(self._url)
        self._auditor = self._parties.auditor()
        self._intake = Intake(
            self._engine,
            NodeParts(self._parties, self._engine, "").providers,
            secret=bytes(32),
            block_size=self._parties.profile.block_size,
            failed_share=lambda name: failed_share(self._engine, name),
            quota=WIDE,
        )

    def reply(self, lie: str) -> bytes:
        return self.providers.reply(lie)

    def meet(self, mode: Mode) -> None:
        self.mode = mode

    def submit(self, receipts: Sequence[bytes]) -> Sequence[str | None]:
        async def take(raw: bytes) -> str | None:
            try:
                prepared = self._intake.prepare(receipt_pb2.Receipt.FromString(raw), "client")
            except InvalidInputError:
                return None
            return (await self._intake.keep(prepared)).audit_id.hex()

        async def all_at_once() -> Sequence[str | None]:
            return await asyncio.gather(*map(take, receipts))

        return self._runner.run(all_at_once())

    def look(self, audit_id: str) -> Audit | None:
        row = find_audit(self._engine, bytes.fromhex(audit_id))
        if row is None:
            return None
        if row.state == DECIDED:
            return Audit(State.DECIDED, find_bundle(self._engine, bytes.fromhex(audit_id)))
        return Audit(State.ERROR if row.state == ERROR else State.WAITING)

    def ask(self, audit_id: str) -> None:
        ask_for(self._engine, bytes.fromhex(audit_id), priority=ASKED_PRIORITY)

    def work(self, hold: Hold | None) -> bool:
        return self._runner.run(self._work(hold))

    async def _work(self, hold: Hold | None) -> bool:
        self._workers += 1
        budget = Budget.of(self.audits_per_day, 0.5)
        own = lease(f"worker {self._workers}", seconds=LEASE_SECONDS, default_budget=budget)
        claim = claim_next(self._engine, own)
        if claim is None:
            return False
        line = Line(self, hold)
        worker = Worker(
            self._engine,
            DatabaseQueue(self._engine, asyncio.Event()),
            {PROVIDER: Target(self._auditor, cast("ProviderClient", line))},
            own,
            observer=Seen(),
            weigher=None,
            remember=lambda _name, _bundle: lambda _: None,
            pauses=PAUSES,
        )
        working = asyncio.create_task(worker.work(DatabaseJob(claim)))
        reached = asyncio.create_task(line.reached.wait())
        await asyncio.wait({working, reached}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            reached.cancel()
            await _ended(reached)
            await working
        else:
            self._held.append((line, working))
        return True

    def resume(self) -> None:
        self._runner.run(self._resume())

    async def _resume(self) -> None:
        held, self._held = self._held, []
        for line, working in held:
            line.go.set()
            await working

    def crash(self) -> None:
        self._runner.run(self._kill())
        self._engine.dispose()
        self._start()

    async def _kill(self) -> None:
        held, self._held = self._held, []
        for _, working in held:
            working.cancel()
            await _ended(working)

    def jump(self, seconds: float) -> None:
        self._ahead += seconds

    def day(self) -> int:
        return int((time.time() + self._ahead) // DAY)

    def said(self) -> Sequence[bytes]:
        with reading(self._engine) as connection:
            return list(connection.execute(select(ENTRY.c.data)).scalars())

    def close(self) -> None:
        self._runner.run(self._kill())
        self._runner.close()
        self._engine.dispose()
        self._clock.stop()
        self.providers.close()
        self._folder.cleanup()


class SqliteNodeOfFewAudits(SqliteNode):
    """One that begins no more than two audits in a day."""

    audits_per_day = 2


async def _ended(task: Awaitable[object]) -> None:
    with suppress(asyncio.CancelledError):
        await task
