"""Killed at any moment, a log loses nothing that it has acknowledged and forks nowhere."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from coin_protocol.database.engine import open_engine
from coin_protocol.merkle import IncrementalTree, leaf_hash
from coin_protocol.note import NoteSigner
from coin_protocol.signer import FileSigner, KeySigner, write_private_key
from tests.support.log_entries import ORIGIN, House, leaves
from tests.support.parties import WAIT_SECONDS
from verifier_sdk.log import check_log

KILLS = 20
AT_ONCE = 2
LIVES = range(KILLS + AT_ONCE)


def live(url: str, folder: Path, life: int, told: Connection) -> None:
    """Append and sign until killed, telling what is acknowledged once it is."""
    signer = NoteSigner(FileSigner.from_uri(f"file:{folder / 'key.pem'}", ORIGIN))
    house = House(open_engine(url), folder, signer)
    sequencer = house.sequencer(head_file=folder / f"head-{life % AT_ONCE}")
    chance = random.Random(life)  # noqa: S311 - sizes of batches
    start = life * 100_000
    while True:
        count = chance.choice([1, 3, 40, 300])
        house.say(leaves(start, start + count))
        start += count
        told.send(("said", start))
        sequencer.run_once()
        head = house.log.head()
        told.send(("head", (head.size, head.root)))


@pytest.fixture(scope="module")
def context() -> ForkServerContext:
    """Processes that are there in a moment."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload([__name__, "psycopg"])
    return found


class Lives:
    """Processes that come and go, and what they have told."""

    def __init__(self, context: ForkServerContext, url: str, folder: Path) -> None:
        self.said: dict[int, int] = {}
        self.told: Counter[int] = Counter()
        self.heads: dict[int, list[tuple[int, bytes]]] = {}
        self._context, self._url, self._folder = context, url, folder
        self._next = iter(LIVES)
        self._alive: list[tuple[int, BaseProcess, Connection]] = []
        for _ in range(AT_ONCE):
            self.begin()

    def begin(self) -> None:
        """Start one more."""
        life = next(self._next)
        here, there = self._context.Pipe(duplex=False)
        arguments = self._url, self._folder, life, there
        process = self._context.Process(target=live, args=arguments, daemon=True)
        process.start()
        there.close()
        self._alive.append((life, process, here))

    def listen(self, which: int, messages: int) -> None:
        """Listen to all until one of them has told so much."""
        while self.told[self._alive[which][0]] < messages:
            speaking = wait([here for _, _, here in self._alive], WAIT_SECONDS)
            assert speaking, "nobody gets on"
            for life, _, here in self._alive:
                if here in speaking:
                    self._take(life, here)

    def kill(self, which: int) -> None:
        """Kill one, and take what it had told before."""
        life, process, here = self._alive.pop(which)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(WAIT_SECONDS)
        assert process.exitcode == -signal.SIGKILL
        try:
            while True:
                self._take(life, here)
        except EOFError:
            here.close()

    def end(self) -> None:
        """Kill all."""
        while self._alive:
            self.kill(0)

    def _take(self, life: int, here: Connection) -> None:
        what, value = here.recv()
        self.told[life] += 1
        if what == "said":
            self.said[life] = value
        else:
            self.heads.setdefault(life, []).append(value)


def test_killed_while_it_sequences_it_loses_nothing(
    url: str, tmp_path: Path, context: ForkServerContext
) -> None:
    signer = KeySigner.generate(ORIGIN)
    write_private_key(tmp_path / "key.pem", signer)
    chance = random.Random(7)  # noqa: S311 - when to kill whom
    lives = Lives(context, url, tmp_path)
    try:
        for _ in range(KILLS):
            which = chance.randrange(AT_ONCE)
            lives.listen(which, chance.randrange(1, 5))
            if chance.random() < 0.5:  # else right after a message: before or in the next commit
                time.sleep(chance.uniform(0.0, 0.015))
            lives.kill(which)
            lives.begin()
    finally:
        lives.end()

    house = House(open_engine(url), tmp_path, NoteSigner(signer))
    try:
        check(house, lives)
    finally:
        house.engine.dispose()


def check(house: House, lives: Lives) -> None:
    """Check that all that was told is there."""
    for at in range(AT_ONCE):
        house.sequencer(head_file=house.folder / f"head-{at}").run_once()
    size = house.log.head().size
    entries: list[bytes] = []
    while len(entries) < size:
        entries += house.log.entries(len(entries), 1024)
    there = set(entries)
    assert len(there) == len(entries)
    for life, said in lives.said.items():
        missing = [data for data in leaves(life * 100_000, said) if data not in there]
        assert not missing
    tree = IncrementalTree(leaf_hash(data) for data in entries)
    assert sum(len(heads) for heads in lives.heads.values()) > KILLS / 2
    for heads in lives.heads.values():
        sizes = [head_size for head_size, _ in heads]
        assert sizes == sorted(sizes)
        assert all(tree.root(head_size) == root for head_size, root in heads)
    assert check_log(house.engine, [house.signer.verifier], ORIGIN).entries == size
