"""What signing costs a gateway: CPU a token, time to the first token, gaps, and the receipt.

Two gateways in processes of their own, one with signing off, before one upstream that streams one
token a chunk, the first after 50 ms; real tokenizer and token table, SQLite, synced. CPU is what
the kernel counts for the gateway's process. Reasoning is passed on, so that clients of both see the
same chunks.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import report, skip
from benchmarks._gateway.load import Seen, load
from coin_protocol.profile import Profile
from coin_protocol.table import table_path

_STREAMS = 64
_STEADY = "60-1-30"
"""64 of these, of which the last begins 1.3 seconds after the first, are 1,920 tokens a second."""
_AT_ONCE = "30-1-30-0"
"""No model is as fast: what is added to the first token stands out."""
_CPU = "4000-1-100000"
"""As fast as it goes: nothing is idle while CPU is counted."""
_LONG = "10000-16-20000"
_ROUNDS = 3
_STEADY_ROUNDS = 12
"""So many that a stall of the machine, which few of all streams meet, stays out of the p99."""
_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def running(*command: str, **environment: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run a process that prints one line of JSON when it is ready; give its id and that line."""
    with subprocess.Popen(  # noqa: S603 - our own
        [sys.executable, "-m", *command],
        stdout=subprocess.PIPE,
        env=os.environ | environment,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - as asked for
            yield process.pid, json.loads(process.stdout.readline())
        finally:
            process.terminate()


def _coin(*arguments: str) -> None:
    command = [sys.executable, "-m", "coin_protocol.cli", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own


def cpu_seconds(pid: int) -> float:
    """Return what a process has used so far, in the kernel's ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _late(seen: list[Seen]) -> list[float]:
    return [one.late for one in seen if one.late is not None]


def _p99(values: list[float]) -> float:
    return float(np.quantile(values, 0.99))


class Gateways:
    """A gateway that signs and one that does not."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        """Start both, and the upstream."""
        keys = folder / "keys"
        _coin("keys", "init", str(keys), "--name", "bench")
        _coin("provider", "sealing-key", str(keys / "sealing.key"))
        _, upstream = stack.enter_context(running("benchmarks._gateway.upstream"))
        self.pids: dict[bool, int] = {}
        self.urls: dict[bool, str] = {}
        for sign in (True, False):
            arguments = (
                *("--upstream", f"http://127.0.0.1:{upstream['port']}", "--port", "0"),
                *("--keys", str(keys), "--name", "bench"),
                *("--database", f"sqlite:///{folder / f'{sign}.db'}"),
                "--sign" if sign else "--no-sign",
            )
            pid, ready = stack.enter_context(
                running(
                    "coin_protocol.cli",
                    "gateway",
                    *arguments,
                    COIN_GATEWAY_REASONING="pass",
                    COIN_LOG_LEVEL="error",
                )
            )
            self.pids[sign], self.urls[sign] = pid, f"http://127.0.0.1:{ready['port']}"

    def load(self, model: str, streams: int, replies: int = 1, *, sign: bool) -> list[Seen]:
        """Load one of them."""
        return asyncio.run(load(self.urls[sign], model, streams, replies))

    def cpu_per_token(self, *, sign: bool) -> float:
        """Return the CPU seconds that one of them takes for a token."""
        before = cpu_seconds(self.pids[sign])
        seen = self.load(_CPU, 4, sign=sign)
        return (cpu_seconds(self.pids[sign]) - before) / sum(one.chunks for one in seen)

    def in_turns(self, model: str) -> dict[bool, list[Seen]]:
        """Load both at a steady rate."""
        seen: dict[bool, list[Seen]] = {True: [], False: []}
        for _ in range(_STEADY_ROUNDS):
            for sign, found in seen.items():
                found.extend(self.load(model, _STREAMS, sign=sign))
        return seen


def main() -> None:
    """Measure both in turns."""
    if not table_path(Profile.shipped("default").message).exists():
        skip("gateway_cost.cpu_per_token", "no token table: run `coin table build`")
        return
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        gateways = Gateways(stack, Path(name))
        for sign in (True, False):
            for model in ("500-1-100000", _STEADY):
                gateways.load(model, 2, sign=sign)
        cpu = {True: float("inf"), False: float("inf")}
        for _ in range(_ROUNDS):
            for sign, least in cpu.items():
                cpu[sign] = min(least, gateways.cpu_per_token(sign=sign))
        steady, bare = gateways.in_turns(_STEADY), gateways.in_turns(_AT_ONCE)
        receipts = _late(gateways.load(_LONG, 1, 100, sign=True))
    added = (cpu[True] - cpu[False]) * 1e6
    report("gateway_cost.cpu_per_token", added, unit="us", better="lower", limit=20)
    report("gateway_cost.cpu_to_unsigned", cpu[True] / cpu[False], unit="ratio", better="lower")
    first = {sign: _p99([one.first for one in seen]) for sign, seen in steady.items()}
    gaps = {sign: _p99([gap for one in seen for gap in one.gaps]) for sign, seen in steady.items()}
    for what, found in (("first_token", first), ("gap", gaps)):
        ratio = found[True] / found[False]
        report(f"gateway_cost.{what}_p99", found[True] * 1e3, unit="ms", better="lower")
        report(
            f"gateway_cost.{what}_p99_to_unsigned", ratio, unit="ratio", better="lower", limit=1.25
        )
    late = (first[True] - first[False]) * 1e3
    report("gateway_cost.first_token_p99_added", late, unit="ms", better="lower")
    at_once = {sign: _p99([one.first for one in seen]) for sign, seen in bare.items()}
    name = "gateway_cost.first_token_at_once_p99_to_unsigned"
    report(name, at_once[True] / at_once[False], unit="ratio", better="lower")
    report("gateway_cost.receipt_p99", _p99(receipts) * 1e3, unit="ms", better="lower", limit=20)


if __name__ == "__main__":
    main()
