"""Clients of a node: as many receipts as it can audit, or so many a second, come what may."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from sqlalchemy import Engine, func, select

from benchmarks._soak.replies import Replies
from coin_protocol.database.engine import reading
from coin_protocol.v1 import receipt_pb2
from coin_protocol.v1 import verifier_service_pb2 as pb
from verifier_sdk.store.tables import AUDIT, QUEUED, RUNNING

WAITING: Final = 200
"""Audits that wait while capacity is measured: more than are under way at a time."""

_CALL_SECONDS: Final = 60.0
_CALLS_AT_ONCE: Final = 64
_LOOK_SECONDS: Final = 0.2
_BY_HTTP: Final = 10
_WATCHED: Final = 20
_PROTOBUF: Final = {"content-type": "application/x-protobuf"}

Told = Callable[[str, float, float], None]
"""Told what is done now, how far it is, and how far it goes."""


@dataclass
class Clients:
    """Hand receipts in, each tenth over HTTP, and watch each twentieth to its verdict.

    Attributes:
        stub: Of the node's gRPC service.
        http: With the URL of its HTTP.
        engine: Of its database, to see what is left.
        replies: Where receipts come from.
        sent: When a receipt was sent, in seconds since 1970, by the id of its audit.
        failures: Calls that went wrong.
    """

    stub: Any
    http: httpx.AsyncClient
    engine: Engine
    replies: Replies
    sent: dict[bytes, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    _number: int = 0
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_CALLS_AT_ONCE))
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)

    async def saturate(self, seconds: float, warm: float, told: Told) -> float:
        """Keep the node busy; return how many audits it decides a second, the first left out.

        Args:
            seconds: For so long.
            warm: After so many more, which do not count.
            told: As it goes on.
        """
        began = time.monotonic()
        counted: tuple[float, int] | None = None
        while True:
            left = await asyncio.to_thread(self.left)
            now = time.monotonic() - began
            decided = len(self.sent) - left
            if counted is None and now >= warm:
                counted = now, decided
            if counted is not None and now >= counted[0] + seconds:
                return (decided - counted[1]) / (now - counted[0])
            await asyncio.gather(*(self._submit() for _ in range(WAITING - left)))
            told("capacity is measured", now, warm + seconds)
            await asyncio.sleep(_LOOK_SECONDS)

    async def offer(self, rate: float, seconds: float, told: Told) -> None:
        """Hand receipts in at random times, however the node does meanwhile.

        Args:
            rate: So many a second on average.
            seconds: For so long.
            told: As it goes on.
        """
        chance = random.Random("soak")  # noqa: S311 - no secret
        began = time.monotonic()
        due = chance.expovariate(rate)
        while due < seconds:
            await asyncio.sleep(max(0.0, began + due - time.monotonic()))
            self._start(self._client())
            told("half of that is handed in", due, seconds)
            due += chance.expovariate(rate)

    async def settle(self, seconds: float, told: Told) -> None:
        """Wait until all calls are answered and all is audited, for so many seconds at most."""
        began = time.monotonic()
        if self._under_way:
            _, waiting = await asyncio.wait(self._under_way, timeout=seconds)
            self.failures += ["no answer in time"] * len(waiting)
        while await asyncio.to_thread(self.left):
            waited = time.monotonic() - began
            if waited > seconds:
                return
            told("the rest is audited", waited, seconds)
            await asyncio.sleep(_LOOK_SECONDS)

    def left(self) -> int:
        """Return how many audits wait or are under way."""
        waiting = select(func.count()).where(AUDIT.c.state.in_((QUEUED, RUNNING)))
        with reading(self.engine) as connection:
            return int(connection.execute(waiting).scalar_one())

    def _start(self, client: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(client)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _client(self) -> None:
        """Hand one in; what goes wrong is noted."""
        try:
            audit_id = await self._submit()
            if len(self.sent) % _WATCHED == 0:
                request = pb.WatchAuditRequest(audit_id=audit_id)
                async for _ in self.stub.WatchAudit(request, timeout=_CALL_SECONDS):
                    pass
        except Exception as error:  # noqa: BLE001 - noted, and the load goes on
            self.failures.append(f"{type(error).__name__}: {error}"[:500])

    async def _submit(self) -> str:
        self._number += 1
        call = self._by_grpc if self._number % _BY_HTTP else self._by_http
        receipt = await self.replies.take()
        sent = time.time()
        async with self._turn:
            audit_id = await call(receipt)
        self.sent[bytes.fromhex(audit_id)] = sent
        return audit_id

    async def _by_grpc(self, receipt: receipt_pb2.Receipt) -> str:
        request = pb.SubmitReceiptRequest(receipt=receipt)
        kept = await self.stub.SubmitReceipt(request, timeout=_CALL_SECONDS)
        return str(kept.audit_id)

    async def _by_http(self, receipt: receipt_pb2.Receipt) -> str:
        raw = receipt.SerializeToString()
        reply = await self.http.post("/coin/v1/receipts", content=raw, headers=_PROTOBUF)
        return str(reply.raise_for_status().json()["audit_id"])
