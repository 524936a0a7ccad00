"""Processes of `coin … serve`, killed and started again; forked from one that has imported."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from tests.support.parties import WAIT_SECONDS

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [__name__, "alembic.command", "verifier_sdk.node.running", "verifier_sdk.witness.server"]
)


def serve(command: str, options: Sequence[str], log: Path, out: Connection) -> None:
    """Be `coin COMMAND serve`, over the small models."""
    from coin_protocol import models
    from coin_protocol.testing.small import SmallModels

    models.Models = SmallModels  # type: ignore[misc]
    sys.stdout = os.fdopen(out.fileno(), "w", closefd=False)
    sys.stderr = log.open("a")
    os.environ["COIN_WITNESS_REQUESTS_PER_SECOND"] = "100000"
    os.environ["COIN_WITNESS_REQUESTS_BURST"] = "1000000"
    if command == "witness":
        from verifier_sdk.witness.cli import app
    else:
        from verifier_sdk.node.cli import app
    app(["serve", *options])


class Child:
    """A process that serves until it is killed, and then again."""

    def __init__(self, command: str, options: Sequence[str], log: Path) -> None:
        """Say which; nothing is started yet.

        Args:
            command: `witness` or `verifier`.
            options: Of its `serve`.
            log: File that its errors go to.
        """
        self._command = command
        self._options = tuple(options)
        self._log = log
        self._process: ForkServerProcess | None = None
        self._told: Connection | None = None
        self._said: dict[str, Any] = {}

    def start(self) -> None:
        """Start it, and do not wait."""
        here, there = FORKS.Pipe(duplex=False)
        arguments = self._command, self._options, self._log, there
        self._process = FORKS.Process(target=serve, args=arguments, daemon=True)
        self._process.start()
        there.close()
        self._told, self._said = here, {}

    def said(self, what: str) -> Any:
        """Return what it said once it served."""
        if not self._said:
            assert self._told is not None
            line = b""
            if self._told.poll(2 * WAIT_SECONDS):
                line = os.read(self._told.fileno(), 4096)
            assert line, f"it does not start: {self._log.read_text()[-2000:]}"
            self._said = json.loads(line)
        return self._said[what]

    def kill(self) -> None:
        """Kill it, wherever it is."""
        if self._process is not None and self._told is not None:
            self._process.kill()
            self._process.join(WAIT_SECONDS)
            self._process.close()
            self._told.close()
            self._process = self._told = None
