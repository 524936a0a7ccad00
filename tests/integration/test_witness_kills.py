"""Witnesses that are killed at any moment, logs that fork: one line of heads remains."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import httpx

from coin_protocol.note import NoteAlgorithm, NoteSigner, NoteVerifier, open_note
from coin_protocol.note_key import cosignature_time
from coin_protocol.signer import KeySigner, write_private_key
from tests.support.parties import WAIT_SECONDS
from tests.support.witnesses import NAME, Log, witness_over
from verifier_sdk.witness.cli import app
from verifier_sdk.witness.wire import PATH

KILLS = 15
SERVERS = 3
CONTENDERS = 4

# Processes of their own, that have imported by the time they start.
SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload([__name__, "alembic.command", "verifier_sdk.witness.server"])


def run(options: Sequence[str], out: Connection) -> None:
    """Be `coin witness serve`."""
    sys.stdout = os.fdopen(out.fileno(), "w", closefd=False)
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as there is a process
    os.environ["COIN_WITNESS_REQUESTS_PER_SECOND"] = "100000"
    app(["serve", *options])


class Processes:
    """Several witnesses over one database; a killed one is started again."""

    def __init__(self, options: Sequence[str]) -> None:
        self._options = options
        self._up: list[tuple[ForkServerProcess, int]] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.kills = 0

    def start(self) -> None:
        task = asyncio.create_task(self._start())
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _start(self) -> None:
        process, port = await asyncio.to_thread(self._started)
        self._up.append((process, port))
        self._changed.set()

    def _started(self) -> tuple[ForkServerProcess, int]:
        here, there = SPAWN.Pipe(duplex=False)
        process = SPAWN.Process(target=run, args=(self._options, there), daemon=True)
        process.start()
        there.close()
        with here:
            assert here.poll(2 * WAIT_SECONDS)
            line = os.read(here.fileno(), 4096)
        return process, json.loads(line)["port"]

    async def ports(self, least: int = 1) -> list[int]:
        """Return where they listen, once so many do."""
        while len(self._up) < least:
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 2 * WAIT_SECONDS)
        return [port for _, port in self._up]

    async def kill(self, choice: random.Random) -> None:
        process, _ = self._up.pop(choice.randrange(len(self._up)))
        process.kill()
        await asyncio.to_thread(process.join)
        self.kills += 1
        self.start()

    async def close(self) -> None:
        await asyncio.gather(*self._starting)
        for process, _ in self._up:
            process.kill()
            process.join()


@asynccontextmanager
async def processes(options: Sequence[str]) -> AsyncIterator[Processes]:
    made = Processes(options)
    try:
        for _ in range(SERVERS):
            made.start()
        yield made
    finally:
        await made.close()


class Heads:
    """What was cosigned, as those who asked know it."""

    def __init__(self, verifier: NoteVerifier) -> None:
        self.verifier = verifier
        self.roots: dict[int, bytes] = {}
        self.times: list[tuple[int, int]] = []
        self.lost = 0

    def keep(self, log: Log, status: int, answer: bytes) -> bool:
        """Note an answer; a second root for one size is what must never be."""
        assert status in {0, 200, 409, 503}
        self.lost += status == 0
        if status != 200:
            return False
        note = open_note(log.note() + answer, [log.verifier, self.verifier])
        size = len(log.tree)
        assert self.roots.setdefault(size, log.tree.root()) == log.tree.root()
        self.times.append((cosignature_time(note.verified[-1]), size))
        return True


async def post(http: httpx.AsyncClient, port: int, body: bytes) -> tuple[int, bytes]:
    """Return status and body; 0 where the answer was lost."""
    try:
        answer = await http.post(f"http://127.0.0.1:{port}{PATH}", content=body)
    except httpx.HTTPError:
        return 0, b""
    return answer.status_code, answer.content


async def play(running: Processes, http: httpx.AsyncClient, heads: Heads) -> Log:
    """Let forks of a log ask at the same moment, kill meanwhile; return the log that is left."""
    base = Log()
    choice = random.Random(7)  # noqa: S311 - no secret
    while running.kills < KILLS:
        ports = await running.ports(2)
        known = len(base.tree)
        forks = [
            base.branch(known, 0).grow(choice.randint(1, 3), f"fork {number}")
            for number in range(CONTENDERS)
        ]
        asked = asyncio.gather(
            *(post(http, choice.choice(ports), log.request(known)) for log in forks)
        )
        await asyncio.sleep(choice.uniform(0, 0.006))
        await running.kill(choice)
        answers = await asked
        won = [log for log, answer in zip(forks, answers, strict=True) if heads.keep(log, *answer)]
        assert len(won) <= 1
        # Whose head is on disk, though its answer may be lost? Ask again, as logs do.
        for log in forks:
            (port, *_) = await running.ports()
            if heads.keep(log, *await post(http, port, log.request(len(log.tree)))):
                won.append(log)
        # What was told to anybody is what is on disk.
        assert len({log.tree.root() for log in won}) <= 1
        base = won[0] if won else base
    return base


async def test_no_kill_and_no_race_leads_to_two_heads_of_one_size(tmp_path: Path) -> None:
    key = KeySigner.generate(NAME)
    write_private_key(tmp_path / "w.pem", key)
    url = f"sqlite:///{tmp_path / 'w.db'}"
    options = [
        *("--name", NAME, "--key", f"file:{tmp_path / 'w.pem'}", "--database", url),
        *("--log", Log().verifier.vkey, "--listen", "127.0.0.1:0"),
    ]
    signer = NoteSigner(key, NoteAlgorithm.COSIGNATURE)
    heads = Heads(signer.verifier)
    with witness_over(url, signer=signer):
        pass
    async with processes(options) as running, httpx.AsyncClient(timeout=WAIT_SECONDS) as http:
        base = await play(running, http, heads)
    assert running.kills == KILLS
    assert heads.lost > 0
    assert len(heads.roots) >= KILLS // 3
    # All of it lies on one line, and no head was said to be the largest after a larger one.
    assert all(base.tree.root(size) == root for size, root in heads.roots.items())
    assert [size for _, size in sorted(heads.times)] == sorted(size for _, size in heads.times)
    with witness_over(url, base, signer=signer, new=False) as witness:
        assert witness.store.heads()[base.origin].size == max(heads.roots)
