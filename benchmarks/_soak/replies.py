"""The provider's process as the load sees it: receipts, some made ahead."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks._faults.children import ROOT
from benchmarks._soak.provider import LENGTH
from coin_protocol.v1 import receipt_pb2

_ASKED: Final = 32
_END_SECONDS: Final = 20.0


@dataclass(frozen=True)
class Replies:
    """Receipts of new replies.

    Attributes:
        target: HOST:PORT where the provider answers challenges.
    """

    target: str
    _made: asyncio.Queue[receipt_pb2.Receipt | None] = field(default_factory=asyncio.Queue)
    _wanted: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def take(self) -> receipt_pb2.Receipt:
        """Return one that nobody has had; another one is made instead.

        Raises:
            ConnectionError: The provider's process ended.
        """
        receipt = await self._made.get()
        if receipt is None:
            self._made.put_nowait(None)
            msg = "the provider's process ended"
            raise ConnectionError(msg)
        self._wanted.release()
        return receipt

    def more(self, count: int) -> None:
        """Have so many more made ahead."""
        for _ in range(count):
            self._wanted.release()

    async def fill(self, asked: asyncio.StreamWriter, given: asyncio.StreamReader) -> None:
        """Have as many made as are wanted, a few at a time, until cancelled.

        Args:
            asked: To the provider's process.
            given: From it.
        """
        try:
            while True:
                await self._wanted.acquire()
                count = 1
                while count < _ASKED and not self._wanted.locked():
                    await self._wanted.acquire()
                    count += 1
                asked.write(b"%d\n" % count)
                for _ in range(count):
                    (length,) = LENGTH.unpack(await given.readexactly(LENGTH.size))
                    raw = await given.readexactly(length)
                    self._made.put_nowait(receipt_pb2.Receipt.FromString(raw))
        finally:
            # Whoever waits for one is told that none will come.
            self._made.put_nowait(None)

    @property
    def ahead(self) -> int:
        """How many are made and not taken."""
        return self._made.qsize()


@asynccontextmanager
async def making_replies(folder: Path) -> AsyncIterator[Replies]:
    """Run a provider whose keys lie in a folder."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks._soak.provider", str(folder)),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None  # noqa: S101 - as asked for
    assert process.stdout is not None  # noqa: S101 - as asked for
    try:
        said = json.loads(await process.stdout.readline())
        found = Replies(said["target"])
        filling = asyncio.create_task(found.fill(process.stdin, process.stdout))
        try:
            yield found
        finally:
            filling.cancel()
            await asyncio.wait([filling])
            process.stdin.close()
            await asyncio.wait_for(process.wait(), _END_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
