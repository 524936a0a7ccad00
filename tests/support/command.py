"""Run `coin` as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.parties import WAIT_SECONDS

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Return both outputs on one line, as a reader sees them."""
        return " ".join((self.out + self.err).split())

    @property
    def document(self) -> dict[str, Any]:
        """Return the one JSON object that was printed."""
        (line,) = self.out.splitlines()
        document: dict[str, Any] = json.loads(line)
        return document


Coin = Callable[..., Done]


def run_coin(
    *arguments: str | Path, small: bool = False, env: dict[str, str] | None = None
) -> Done:
    """Run `coin`, or `coin` over the small models, to its end."""
    done = subprocess.run(
        _command(arguments, small=small),
        cwd=ROOT,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        timeout=10 * WAIT_SECONDS,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@contextmanager
def serving_coin(
    *arguments: str | Path, small: bool = True, env: dict[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """Run a server of `coin`, or over the small models; give the JSON that it prints, and `pid`."""
    process = subprocess.Popen(
        _command(arguments, small=small),
        cwd=ROOT,
        env=os.environ | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                _, errors = process.communicate(timeout=WAIT_SECONDS)
                msg = f"the server did not start: {errors}"
                raise AssertionError(msg)
            yield {**json.loads(line), "pid": process.pid}
        finally:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def _command(arguments: tuple[str | Path, ...], *, small: bool) -> list[str]:
    module = "tests.support.small_coin" if small else "coin_protocol.cli"
    return [sys.executable, "-m", module, *map(str, arguments)]
