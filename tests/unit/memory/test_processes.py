"""Processes of one machine use one database and one folder of segments at once."""

from __future__ import annotations

import subprocess
import sys

from tests.unit.memory.conftest import MakeNode, near, vectors
from tests.unit.memory.worker import BLOCKS, COMMITMENTS
from verifier_sdk.memory import Sizes

PROCESSES = 3


def test_processes_share_a_memory(make_node: MakeNode, url: str) -> None:
    node = make_node(sizes=Sizes(seal_rows=16, settle_seconds=0.0))
    command = [sys.executable, "-m", "tests.unit.memory.worker", url, str(node.cache)]
    workers = [
        subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(PROCESSES)
    ]
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * PROCESSES
    assert outputs == [f"{COMMITMENTS * BLOCKS}\n"] * PROCESSES
    for _ in range(2):
        for number in range(PROCESSES):
            for at in range(COMMITMENTS):
                asked = near(vectors(BLOCKS, seed=1000 * number + at), 0.999)
                found = node.lookup(asked)
                assert all(match is not None and match.cosine > 0.998 for match in found)
        node.memory.maintain()
    state = node.memory.state()
    assert state.blocks + state.tail == PROCESSES * COMMITMENTS * BLOCKS
