"""A node's log while it runs: heads cosigned by a real witness, and stopped where it forked."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from sqlalchemy import Engine

from coin_protocol.checkpoint import verify_checkpoint
from coin_protocol.database.engine import writing
from coin_protocol.log_leaf import VerdictLeaf
from coin_protocol.signer import KeySigner, write_private_key
from tests.support.nodes import node_database
from tests.support.witnesses import Log as FarLog
from tests.support.witnesses import app_of, cosigner, serving, witness_over
from verifier_sdk.log.errors import NotLoggedYetError
from verifier_sdk.log.outbox import enqueue
from verifier_sdk.node.log_keeping import KeptLog, head_file, keeping_log
from verifier_sdk.node.metrics import NodeMetrics
from verifier_sdk.node.settings import LogEntry

SEED = 7
LOG = FarLog(seed=SEED)


@asynccontextmanager
async def witnessed(folder: Path) -> AsyncIterator[str]:
    """Serve a witness that follows the log; give its URL."""
    url = f"sqlite:///{folder / 'witness.db'}"
    with witness_over(url, LOG, now=int(time.time())) as witness:
        async with serving(app_of(witness).app) as port:
            yield f"http://127.0.0.1:{port}"


def settings(folder: Path, url: str | None, **instead: Any) -> LogEntry:
    """Return the settings of a log, its key on disk."""
    key = folder / "log.pem"
    if not key.exists():
        private = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([SEED]) * 32)
        write_private_key(key, KeySigner(LOG.origin, private), None)
    witness = {"url": url, "vkey": cosigner().verifier.vkey}
    given: dict[str, Any] = {
        "origin": LOG.origin,
        "key": f"file:{key}",
        "head_file": folder / "head.note",
        "interval_seconds": 0.05,
        "witnesses": {} if url is None else {"w1": witness},
        "quorum": 0 if url is None else 1,
    }
    return LogEntry(**(given | instead))


def say(engine: Engine, count: int = 1) -> None:
    """Have the log say something new."""
    with writing(engine) as connection:
        for _ in range(count):
            leaf = VerdictLeaf(secrets.token_bytes(32), secrets.token_bytes(32))
            enqueue(connection, leaf.to_bytes())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - another thread's doing
            await asyncio.sleep(0.02)


def size_of(kept: KeptLog) -> int:
    """Return the size of the newest head that its quorum cosigned, -1 for none."""
    try:
        return kept.log.head().size
    except NotLoggedYetError:
        return -1


async def test_heads_are_cosigned_while_entries_come(engine: Engine, tmp_path: Path) -> None:
    async with (
        witnessed(tmp_path) as url,
        keeping_log(settings(tmp_path, url), engine, metrics := NodeMetrics()) as kept,
    ):
        for wanted in (3, 6, 9):
            say(engine, 3)
            await until(lambda wanted=wanted: size_of(kept) == wanted)  # type: ignore[misc]
        note = kept.log.head().note
        found = verify_checkpoint(note, LOG.verifier, [cosigner().verifier], 1, origin=LOG.origin)
        assert found.checkpoint.size == 9
        assert kept.vkey == LOG.verifier.vkey
    assert metrics.log_size._value.get() == 9
    assert metrics.log_errors._value.get() == 0


async def test_a_head_waits_for_its_quorum_and_the_log_goes_on(
    engine: Engine, tmp_path: Path
) -> None:
    metrics = NodeMetrics()
    with_nobody = settings(tmp_path, "http://127.0.0.1:1")
    async with keeping_log(with_nobody, engine, metrics) as kept:
        say(engine)
        await until(lambda: metrics.log_size._value.get() == 1)
        await until(lambda: metrics.log_quorum_missing._value.get() == 1)
        assert size_of(kept) == -1
    async with (
        witnessed(tmp_path) as url,
        keeping_log(settings(tmp_path, url), engine, metrics) as kept,
    ):
        # The newest head is shown at once, before anything new is signed.
        assert size_of(kept) == 1
        assert metrics.log_quorum_missing._value.get() == 0
        say(engine)
        await until(lambda: size_of(kept) == 2)
        assert metrics.log_quorum_missing._value.get() == 0


async def test_a_quorum_that_another_process_found_is_not_missing(
    engine: Engine, tmp_path: Path
) -> None:
    metrics = NodeMetrics()
    async with witnessed(tmp_path) as url:
        async with keeping_log(settings(tmp_path, url), engine, NodeMetrics()) as kept:
            say(engine)
            await until(lambda: size_of(kept) == 1)
        cut_off = settings(tmp_path, "http://127.0.0.1:1")
        async with keeping_log(cut_off, engine, metrics):
            assert metrics.log_quorum_missing._value.get() == 0
            say(engine)
            await until(lambda: metrics.log_quorum_missing._value.get() == 1)


async def test_a_machine_that_was_restored_signs_nothing_that_its_witnesses_contradict(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with witnessed(tmp_path) as url:
        async with keeping_log(settings(tmp_path, url), engine, NodeMetrics()) as kept:
            say(engine, 5)
            await until(lambda: size_of(kept) == 5)
        # The machine as it was before: neither its database nor its head file knows better.
        (tmp_path / "old").mkdir()
        with node_database("sqlite", tmp_path / "old") as old:
            async with keeping_log(
                settings(tmp_path, None, head_file=tmp_path / "o"), old, NodeMetrics()
            ):
                say(old, 2)
                await until((tmp_path / "o").exists)
            metrics = NodeMetrics()
            restored = settings(tmp_path, url, head_file=tmp_path / "o")
            async with keeping_log(restored, old, metrics):
                say(old, 9)
                await until(lambda: metrics.log_errors._value.get() >= 2)
            assert metrics.log_size._value.get() <= 2
    assert "the log is stopped" in caplog.text


def test_each_log_has_a_head_file_of_its_own(tmp_path: Path) -> None:
    named = settings(tmp_path, None, head_file=None)
    other = settings(tmp_path, None, head_file=None, origin="example.org/other")
    assert head_file(named) != head_file(other)
    assert head_file(settings(tmp_path, None)) == tmp_path / "head.note"
