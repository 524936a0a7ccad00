"""A process of a node that remembers and looks up: `python -m tests.unit.memory.worker`."""

from __future__ import annotations

import sys
from pathlib import Path

from coin_protocol.database.engine import open_engine
from tests.unit.memory.conftest import PROFILE, Node, near, vectors
from verifier_sdk.memory import Sizes, SqlMemory

COMMITMENTS = 10
BLOCKS = 4


def main() -> None:
    """Remember blocks of ones own, and find each at once; print how many."""
    url, cache, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    engine = open_engine(url)
    sizes = Sizes(seal_rows=16, settle_seconds=5.0 if url.startswith("postgresql") else 0.0)
    memory = SqlMemory(engine, profiles=[PROFILE], folder=cache, sizes=sizes)
    node = Node(memory, engine, cache)
    found = 0
    for at in range(COMMITMENTS):
        shown = vectors(BLOCKS, seed=1000 * number + at)
        node.remember(100 * number + at, shown)
        matches = node.lookup(near(shown, 0.999))
        found += sum(match is not None and match.cosine > 0.998 for match in matches)
        memory.maintain()
    memory.close()
    sys.stdout.write(f"{found}\n")


if __name__ == "__main__":
    main()
