"""Whatever is done in whatever order by two processes: lookups say what the table says."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coin_protocol.database.engine import open_engine
from coin_protocol.embedding import unit
from tests.unit.memory.conftest import DIMENSION, PROFILE, Node, make_tables, near, vectors
from verifier_sdk.memory import Sizes, SqlMemory

FEW = vectors(6)
POOL = np.concatenate([FEW, near(FEW, 0.9999), near(FEW, 0.996), near(FEW, 0.98), -FEW[:2]])
"""Among them near duplicates, and some that are none."""

PICKS = st.lists(st.integers(0, len(POOL) - 1), min_size=1, max_size=4)
WHO = st.sampled_from(["acme", "another"])
COMMITMENTS = st.integers(0, 4)


@dataclass(frozen=True)
class Remember:
    provider: str
    number: int
    picks: list[int]
    first: int


@dataclass(frozen=True)
class Lookup:
    provider: str
    number: int
    picks: list[int]


@dataclass(frozen=True)
class Maintain:
    pass


@dataclass(frozen=True)
class Forget:
    share: float


@dataclass(frozen=True)
class Restart:
    pass


Step = Remember | Lookup | Maintain | Forget | Restart
STEPS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.builds(Remember, WHO, COMMITMENTS, PICKS, st.integers(0, 3))
        | st.builds(Lookup, WHO, COMMITMENTS, PICKS)
        | st.builds(Maintain)
        | st.builds(Forget, st.floats(0, 1))
        | st.builds(Restart),
    ),
    min_size=4,
    max_size=14,
)


class Processes:
    """Two processes on one machine."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self._stack = stack
        self._cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._engine = open_engine(url)
        stack.callback(self._engine.dispose)
        make_tables(self._engine)
        self.nodes = [self._start(), self._start()]

    def _start(self) -> Node:
        memory = SqlMemory(
            self._engine,
            profiles=[PROFILE],
            folder=self._cache,
            sizes=Sizes(seal_rows=3, segment_rows=12, settle_seconds=0.0),
        )
        self._stack.callback(memory.close)
        return Node(memory, self._engine, self._cache)

    def do(self, which: int, step: Step) -> None:
        node = self.nodes[which]
        match step:
            case Remember(provider, number, picks, first):
                # A commitment is one provider's.
                number = 2 * number + (provider == "acme")
                node.remember(number, POOL[picks], provider=provider, first=first)
            case Lookup(provider, number, picks):
                self.check(node, provider, 2 * number + (provider == "acme"), picks)
            case Maintain():
                node.memory.maintain()
            case Forget(share):
                times = node.times()
                if times:
                    node.forget(times[int(share * (len(times) - 1))])
            case Restart():
                self.nodes[which] = self._start()

    def check(self, node: Node, provider: str, number: int, picks: list[int]) -> None:
        asked = unit(POOL[picks])
        found = node.lookup(asked, excluding=number, provider=provider)
        for match, wanted in zip(
            found, node.by_hand(asked, excluding=number, provider=provider), strict=True
        ):
            assert (match is None) == (wanted is None)
            if match is None or wanted is None:
                continue
            assert match.exact == wanted.exact
            assert match.cosine == pytest.approx(wanted.cosine, abs=1e-9)
            same = (match.commitment_sha256, match.block_index)
            assert same == (wanted.commitment_sha256, wanted.block_index)


@given(STEPS)
@settings(max_examples=40)
def test_lookups_say_what_comparing_with_all_says(
    shared_url: str, steps: list[tuple[int, Step]]
) -> None:
    with ExitStack() as stack:
        processes = Processes(shared_url, stack)
        for which, step in steps:
            processes.do(which, step)
        for node in processes.nodes:
            for provider in ("acme", "another"):
                processes.check(node, provider, 1, list(range(len(POOL))))


def test_the_pool_has_what_it_is_for() -> None:
    cosines = POOL[:6] @ POOL[6:12].T
    assert np.diag(cosines) == pytest.approx(np.full(6, 0.9999))
    assert POOL.shape == (26, DIMENSION)
