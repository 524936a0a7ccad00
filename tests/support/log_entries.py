"""Entries for logs, and a log to put them into."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import shake_256
from pathlib import Path

from sqlalchemy import Engine

from coin_protocol.database.engine import writing
from coin_protocol.log_leaf import CommitmentLeaf, VerdictLeaf
from coin_protocol.merkle import IncrementalTree
from coin_protocol.note import NoteSigner
from coin_protocol.signer import KeySigner
from verifier_sdk.log import Log, Pass, Sequencer, enqueue_all

ORIGIN = "example.org/coin-log"


def commitment(number: int, provider: str = "acme") -> CommitmentLeaf:
    """Return the leaf of a commitment, another one for each number."""
    raw = shake_256(b"%d" % number).digest(48)
    return CommitmentLeaf(provider, raw[:16], raw[16:])


def verdict(number: int) -> VerdictLeaf:
    """Return the leaf of a verdict on it."""
    digest = commitment(number).commitment_sha256
    return VerdictLeaf(digest, shake_256(b"verdict %d" % number).digest(32))


def leaves(start: int, stop: int) -> list[bytes]:
    """Return the data of leaves, no two the same."""
    return [commitment(number).to_bytes() for number in range(start, stop)]


@dataclass
class House:
    """A log in a database, and a tree in memory that must be the same."""

    engine: Engine
    folder: Path
    signer: NoteSigner = field(default_factory=lambda: NoteSigner(KeySigner.generate(ORIGIN)))
    tree: IncrementalTree = field(default_factory=IncrementalTree)

    @property
    def log(self) -> Log:
        """A reader that remembers nothing."""
        return Log(self.engine)

    def sequencer(self, **instead: object) -> Sequencer:
        """Return a sequencer of this log."""
        arguments = {"origin": ORIGIN, "head_file": self.folder / "head"} | instead
        return Sequencer(self.engine, self.signer, **arguments)  # type: ignore[arg-type]

    def say(self, data: list[bytes]) -> list[bytes]:
        """Enqueue leaves, and return their hashes."""
        with writing(self.engine) as connection:
            return enqueue_all(connection, data)

    def append(self, count: int) -> Pass:
        """Enqueue so many further leaves, and sequence them."""
        size = len(self.tree)
        self.tree.extend(self.say(leaves(size, size + count)))
        return self.sequencer().run_once()
