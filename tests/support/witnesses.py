"""Logs that are honest or not, and witnesses in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519

from coin_protocol.checkpoint import Checkpoint, sign_checkpoint
from coin_protocol.database.engine import open_engine
from coin_protocol.merkle import IncrementalTree, leaf_hash
from coin_protocol.note import NoteAlgorithm, NoteSigner, NoteVerifier
from coin_protocol.signer import KeySigner
from coin_protocol.transport.observe import Observer, Unobserved
from coin_protocol.transport.rate import RateLimit, RateLimiter
from verifier_sdk.witness.app import WitnessApp
from verifier_sdk.witness.config import WitnessSettings, load_settings
from verifier_sdk.witness.metrics import Metrics
from verifier_sdk.witness.server import Server
from verifier_sdk.witness.store import WitnessStore
from verifier_sdk.witness.wire import write_request
from verifier_sdk.witness.witness import Witness

NOW = 1_700_000_000
ORIGIN = "example.org/log"
NAME = "witness.example/w1"


def note_signer(
    name: str, seed: int, algorithm: NoteAlgorithm = NoteAlgorithm.ED25519
) -> NoteSigner:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return NoteSigner(KeySigner(name, key), algorithm)


def cosigner(name: str = NAME, seed: int = 100) -> NoteSigner:
    return note_signer(name, seed, NoteAlgorithm.COSIGNATURE)


@dataclass
class Log:
    """A log; `branch` gives one that goes on from its first leaves with others."""

    origin: str = ORIGIN
    seed: int = 1
    tree: IncrementalTree = field(default_factory=IncrementalTree)

    @property
    def signer(self) -> NoteSigner:
        return note_signer(self.origin, self.seed)

    @property
    def verifier(self) -> NoteVerifier:
        return self.signer.verifier

    def grow(self, leaves: int, word: str = "leaf") -> Log:
        start = len(self.tree)
        self.tree.extend(leaf_hash(f"{word} {start + i}".encode()) for i in range(leaves))
        return self

    def branch(self, size: int, leaves: int) -> Log:
        kept = IncrementalTree(self.tree.leaf_hashes[:size])
        return Log(self.origin, self.seed, kept).grow(leaves, "other")

    def head(self, size: int | None = None) -> Checkpoint:
        size = len(self.tree) if size is None else size
        return Checkpoint(self.origin, size, self.tree.root(size))

    def note(self, size: int | None = None) -> bytes:
        return sign_checkpoint(self.head(size), [self.signer])

    def proof(self, old: int, new: int | None = None) -> list[bytes]:
        return self.tree.consistency_proof(old, new) if old else []

    def request(
        self, old: int, size: int | None = None, proof: Sequence[bytes] | None = None
    ) -> bytes:
        size = len(self.tree) if size is None else size
        shown = (self.proof(old, size) if old <= size else []) if proof is None else proof
        return write_request(old, shown, self.note(size))


@contextmanager
def witness_over(
    url: str, *logs: Log, signer: NoteSigner | None = None, now: int = NOW, new: bool = True
) -> Iterator[Witness]:
    """Give a witness over a database, which is made unless `new` is false."""
    signer = cosigner() if signer is None else signer
    followed = {log.origin: (log.verifier,) for log in logs}
    engine = open_engine(url)
    try:
        if new:
            WitnessStore.initialise(engine, signer.verifier.vkey)
        store = WitnessStore(engine, signer.verifier.vkey, followed)
        yield Witness(signer, followed, store, clock=lambda: now)
    finally:
        engine.dispose()


def app_of(witness: Witness, *, per_second: float = 1e6, burst: int = 100_000) -> WitnessApp:
    metrics = Metrics(witness.origins)
    metrics.show(witness.store)
    limit = RateLimit(per_second=per_second, burst=burst)
    return WitnessApp(witness, metrics, RateLimiter(limit))


@asynccontextmanager
async def serving(
    app: Any, observer: Observer | None = None, **given: object
) -> AsyncIterator[int]:
    """Serve an ASGI application as a witness is served; give the port."""
    settings = settings_for(**given)
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = Server(app, settings, started.set_result, observer or Unobserved())
    task = asyncio.create_task(server.serve())
    try:
        yield await asyncio.wait_for(started, 10)
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, 20)


def settings_for(**given: object) -> WitnessSettings:
    defaults = {"name": NAME, "key": "file:none", "listen": "127.0.0.1:0", "grace_seconds": 1}
    return load_settings(None, **{**defaults, **given})


@contextmanager
def sqlite_witness(folder: Path, *logs: Log) -> Iterator[Witness]:
    with witness_over(f"sqlite:///{folder / 'witness.db'}", *logs) as witness:
        yield witness
