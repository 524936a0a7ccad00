"""Whatever logs ask for, in whatever order: no two roots for one size, and never a smaller one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import Engine

from coin_protocol.checkpoint import verify_checkpoint
from coin_protocol.database.engine import open_engine
from coin_protocol.evidence import read_evidence, verify_evidence
from coin_protocol.note import add_signatures, parse_signatures
from tests.support.witnesses import NOW, ORIGIN, Log, cosigner, witness_over
from verifier_sdk.witness.rules import MAX_CLOCK_STEP_SECONDS, Refusal, Refused
from verifier_sdk.witness.store import ClockError, WitnessStore
from verifier_sdk.witness.witness import Witness

LEAVES = 12
HONEST = Log().grow(LEAVES)
BRANCHES = [
    HONEST,
    HONEST.branch(3, LEAVES - 3),
    HONEST.branch(7, LEAVES - 7),
    Log().grow(LEAVES, "else"),
]
KEY = cosigner()
LOGS = {ORIGIN: (HONEST.verifier,)}


@cache
def template() -> bytes:
    """Return a database as `coin witness init` makes it."""
    with tempfile.TemporaryDirectory(prefix="coin-witness-") as folder:
        path = Path(folder, "new.db")
        with witness_over(f"sqlite:///{path}", HONEST):
            pass
        return path.read_bytes()


@contextmanager
def copied() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="coin-witness-") as folder:
        path = Path(folder, "new.db")
        path.write_bytes(template())
        yield path


class Machine(RuleBasedStateMachine):
    """A log that may show any branch, and a witness that may be restarted at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = copied()
        self.path = self.stack.__enter__()
        self.now = NOW
        self.size = 0
        self.at = 0
        self.roots: dict[int, bytes] = {}
        self.line = HONEST
        self.shown: dict[int, set[bytes]] = {}
        self.engine: Engine | None = None
        self.start()

    @rule()
    def start(self) -> None:
        """Start, or start again after a crash: nothing but the file is left."""
        if self.engine is not None:
            self.engine.dispose()
        self.engine = open_engine(f"sqlite:///{self.path}")
        store = WitnessStore(self.engine, KEY.verifier.vkey, LOGS)
        self.witness = Witness(KEY, LOGS, store, clock=lambda: self.now)

    @rule(seconds=st.sampled_from([-90, -30, -1, 1, 600]))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def mend_the_clock(self) -> None:
        self.now = max(self.now, self.at)

    @rule(leaves=st.integers(0, LEAVES))
    def go_on(self, leaves: int) -> None:
        """Ask as an honest log does: what is right is never refused."""
        if self.now < self.at - MAX_CLOCK_STEP_SECONDS:
            self.mend_the_clock()
        size = min(self.size + leaves, LEAVES)
        before = self.size
        self.ask(self.line, before, size, spoilt=False, answered=True)
        assert self.size == size

    @rule(
        branch=st.sampled_from(BRANCHES),
        old=st.none() | st.integers(0, LEAVES),
        size=st.integers(0, LEAVES),
        spoilt=st.integers(0, 9).map(lambda number: number == 0),
        answered=st.booleans(),
    )
    def ask(self, branch: Log, old: int | None, size: int, *, spoilt: bool, answered: bool) -> None:
        """Ask for any head, most often from where the witness is."""
        old = self.size if old is None else old
        proof = [bytes(32)] if spoilt else None
        body = branch.request(old, size, proof)
        checkpoint = branch.head(size)
        try:
            answer = self.witness.add_checkpoint(body)
        except ClockError:
            assert self.now < self.at - MAX_CLOCK_STEP_SECONDS
            return
        others = self.shown.setdefault(size, set()) - {checkpoint.root}
        self.shown[size].add(checkpoint.root)
        if others:
            assert size in {entry.size for entry in self.witness.store.evidence()}
        if answer.evidence is not None:
            assert others
            self.check_evidence(answer.evidence)
        if isinstance(answer.result, Refused):
            if answer.result.why is Refusal.STALE:
                assert answer.result.size == self.size != old
            return
        assert old == self.size <= size
        assert self.roots.setdefault(size, checkpoint.root) == checkpoint.root
        # All that was cosigned lies on this branch.
        assert all(branch.tree.root(known) == root for known, root in self.roots.items())
        assert answer.result.at >= self.at
        self.size, self.at, self.line = size, answer.result.at, branch
        if answered:
            whole = add_signatures(branch.note(size), parse_signatures(answer.result.line))
            verify_checkpoint(whole, HONEST.verifier, [KEY.verifier], 1)

    def check_evidence(self, raw: bytes) -> None:
        finding = verify_evidence(read_evidence(raw), trust=None, log_key=HONEST.verifier)
        assert finding.party == ORIGIN

    @invariant()
    def what_is_on_disk_is_what_was_cosigned_last(self) -> None:
        head = self.witness.store.heads()[ORIGIN]
        assert (head.size, head.cosigned_at) == (self.size, self.at)
        if self.size:
            assert head.root == self.roots[self.size]

    def teardown(self) -> None:
        if self.engine is not None:
            self.engine.dispose()
        self.stack.__exit__(None, None, None)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
