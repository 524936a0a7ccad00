"""The processes of a provider, each killed and started again any number of times."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

ROOT: Final = Path(__file__).parents[2]
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 60.0
_PAUSE: Final = 0.2
_SAID: Final = 2000
"""Characters of a log that are shown."""

COMMANDS: Final = {
    "gateway": ("gateway",),
    "service": ("provider", "serve"),
    "worker": ("provider", "worker"),
    "node": ("verifier", "serve"),
    "auditor": ("verifier", "worker"),
}


class Home(Protocol):
    """Where processes find their settings, and leave their logs."""

    @property
    def folder(self) -> Path:
        """With all files in it."""

    @property
    def config(self) -> Path:
        """The settings."""


@dataclass
class Life:
    """One process, from start to end.

    Attributes:
        process: As started.
        said: The line that it printed when it was ready.
        killed_at: By `time.monotonic`; None while nobody killed it.
    """

    process: asyncio.subprocess.Process
    said: Mapping[str, Any]
    killed_at: float | None = None

    @property
    def port(self) -> int:
        """That it serves; 0 for none."""
        return int(self.said.get("port", 0))

    @property
    def target(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"


@dataclass
class Child:
    """A process that is started again whenever it ends, as a supervisor would.

    Attributes:
        kind: Of `COMMANDS`.
        name: Of its log.
        house: Whose.
        environment: Variables beside those of this process.
        life: The process that is ready now; None while there is none.
        kills: How often it was killed.
        failed_starts: Processes that ended before they were ready.
        deaths: Exit codes of those that ended though nobody killed them.
    """

    kind: str
    name: str
    house: Home
    environment: Mapping[str, str] = field(default_factory=dict)
    life: Life | None = None
    kills: int = 0
    failed_starts: int = 0
    deaths: list[int] = field(default_factory=list)
    _keeper: asyncio.Task[None] | None = None
    _ready: asyncio.Event = field(default_factory=asyncio.Event)
    _stopping: bool = False

    @property
    def log(self) -> Path:
        """Where its errors go, those of all its lives."""
        return self.house.folder / f"{self.name}.log"

    def start(self) -> None:
        """Start it, and keep it running."""
        self._keeper = asyncio.create_task(self._keep())

    async def ready(self) -> Life:
        """Wait until it serves."""
        while self.life is None:
            try:
                await asyncio.wait_for(self._ready.wait(), _START_SECONDS)
            except TimeoutError:
                msg = (
                    f"{self.name} does not start, after {self.failed_starts} tries: {self._said()}"
                )
                raise RuntimeError(msg) from None
        return self.life

    def kill(self) -> None:
        """Kill it with SIGKILL, at once."""
        life = self.life
        if life is not None:
            # Noted before it happens: who loses a connection to it may look right away.
            life.killed_at = time.monotonic()
            self.kills += 1
            self._forget()
            with suppress(ProcessLookupError):
                life.process.kill()

    async def stop(self) -> int:
        """End it as an operator would; return its exit code."""
        self._stopping = True
        life = await self.ready()
        life.process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(life.process.wait(), _STOP_SECONDS)
        await self._cancel()
        return code

    async def discard(self) -> None:
        """End whatever is left of it."""
        self._stopping = True
        await self._cancel()

    def _said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-_SAID:]

    async def _cancel(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])

    def _forget(self) -> None:
        self.life = None
        self._ready.clear()

    async def _keep(self) -> None:
        while not self._stopping:
            process = await self._spawn()
            try:
                said = await self._served(process)
                if said is None:
                    self.failed_starts += 1
                    await asyncio.sleep(_PAUSE)
                    continue
                life = self.life = Life(process, said)
                self._ready.set()
                code = await process.wait()
                if life.killed_at is None and not self._stopping:
                    self.deaths.append(code)
                    self._forget()
                    await asyncio.sleep(_PAUSE)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    async def _spawn(self) -> asyncio.subprocess.Process:
        environment = os.environ | self.environment
        if self.kind != "worker":
            environment["COIN_EMBEDDING_WORKERS"] = "0"
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "tests.support.small_coin", *COMMANDS[self.kind]),
                *("--config", str(self.house.config)),
                cwd=ROOT,
                env=environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )

    async def _served(self, process: asyncio.subprocess.Process) -> Mapping[str, Any] | None:
        """Wait for the line that says it is ready and return it; None where the process ended."""
        if process.stdout is None:
            return None
        line = await asyncio.wait_for(process.stdout.readline(), _START_SECONDS)
        if not line:
            await process.wait()
            return None
        said: dict[str, Any] = json.loads(line)
        return said
