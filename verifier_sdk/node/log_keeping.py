"""The node's log: entries are sequenced, heads signed and cosigned, while the node runs."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from coin_protocol.encoding import digest
from coin_protocol.errors import CoinError, TryLaterError
from coin_protocol.files import data_folder
from coin_protocol.note import NoteAlgorithm, NoteSigner, NoteVerifier
from verifier_sdk.log import (
    Head,
    Log,
    LogDamagedError,
    LogForkError,
    NotLoggedYetError,
    Pass,
    Sequencer,
)
from verifier_sdk.node.ending import end
from verifier_sdk.node.metrics import NodeMetrics
from verifier_sdk.node.settings import LogEntry
from verifier_sdk.witness.client import WitnessAheadError, WitnessClient, WitnessRefusedError
from verifier_sdk.witness.witnesses import QuorumError, Witnesses

_LOG = logging.getLogger(__name__)

_FORKED: Final = frozenset({409, 422})
"""What a witness answers to a head that does not follow from the one that it cosigned."""

_COSIGN_SECONDS: Final = 60.0
"""A head that too few cosigned is shown to them again so often."""


@dataclass(frozen=True)
class KeptLog:
    """A log that is being kept.

    Attributes:
        log: To read it by.
        origin: Its name.
        vkey: The key that its heads are to be checked with.
        witnesses: Keys of those that cosign.
    """

    log: Log
    origin: str
    vkey: str
    witnesses: tuple[NoteVerifier, ...]


@asynccontextmanager
async def keeping_log(
    settings: LogEntry, engine: Engine, metrics: NodeMetrics
) -> AsyncIterator[KeptLog]:
    """Keep the log until the block ends; any number of processes may do so.

    Where the log stops, because a head that was signed is not borne out by the tree, the node
    goes on: receipts and verdicts wait for their places, and `coin_log_errors_total` says so.

    Raises:
        ConfigurationError: The key, or a witness, cannot be used.
        StoreUnavailableError: The database does not answer.
    """
    signer = NoteSigner.from_uri(
        settings.key.get_secret_value(), settings.origin, NoteAlgorithm.ED25519
    )
    verifiers = {
        name: NoteVerifier.from_vkey(entry.vkey) for name, entry in settings.witnesses.items()
    }
    clients = [
        WitnessClient(entry.url, verifiers[name]) for name, entry in settings.witnesses.items()
    ]
    sequencer = Sequencer(
        engine,
        signer,
        origin=settings.origin,
        head_file=head_file(settings),
        older_keys=[NoteVerifier.from_vkey(vkey) for vkey in settings.older_keys],
    )
    log = Log(engine, quorum=settings.quorum)
    loop, signed = asyncio.get_running_loop(), asyncio.Event()

    def shown(head: Head) -> None:
        metrics.log_size.set(head.size)
        metrics.log_head.set(head.signed_at)

    def passed(done: Pass) -> None:
        if done.head is not None:
            shown(done.head)
            loop.call_soon_threadsafe(signed.set)

    with suppress(NotLoggedYetError):
        shown(await asyncio.to_thread(Log(engine).head))
    stop = threading.Event()
    thread = threading.Thread(
        target=_sequence,
        args=(sequencer, stop, settings.interval_seconds, passed, metrics),
        name="coin-log",
    )
    async with Witnesses(clients, settings.quorum) as witnesses:
        keys = tuple(verifiers.values())
        cosigning = _Cosigning(Log(engine), log, witnesses, keys, metrics)
        if keys:
            # Before anything new is signed: a restored machine has forgotten what they have not.
            doubt = await cosigning.once()
            if doubt:
                _LOG.critical("the log is stopped: %s", doubt)
                metrics.log_errors.inc()
                sequencer.refuse(doubt)
        thread.start()
        task = asyncio.create_task(cosigning.run(signed))
        try:
            yield KeptLog(log, settings.origin, signer.verifier.vkey, keys)
        finally:
            stop.set()
            await end(task)
            await asyncio.to_thread(thread.join)


def head_file(settings: LogEntry) -> Path:
    """Return where the last head is kept: of each log in a file of its own."""
    if settings.head_file is not None:
        return settings.head_file
    return data_folder() / f"log-head-{digest(settings.origin.encode()).hex()[:16]}.note"


def _sequence(
    sequencer: Sequencer,
    stop: threading.Event,
    interval: float,
    passed: Callable[[Pass], None],
    metrics: NodeMetrics,
) -> None:
    try:
        sequencer.run(stop, head_interval=interval, passed=passed)
    except (LogForkError, LogDamagedError):
        # It was logged, and what it means is the operator's to decide.
        metrics.log_errors.inc()


@dataclass(frozen=True)
class _Cosigning:
    """Shows heads to the witnesses of a log.

    Attributes:
        heads: The log with every head that was signed.
        log: The same with those that have their quorum.
        witnesses: Who cosigns.
        keys: Theirs.
        metrics: Told what is missing.
    """

    heads: Log
    log: Log
    witnesses: Witnesses
    keys: tuple[NoteVerifier, ...]
    metrics: NodeMetrics

    async def run(self, signed: asyncio.Event) -> None:
        """Have each new head cosigned; of several that come meanwhile, the newest."""
        while self.keys:
            with suppress(TimeoutError):
                async with asyncio.timeout(_COSIGN_SECONDS):
                    await signed.wait()
            signed.clear()
            try:
                doubt = await self.once()
            except TryLaterError as error:
                _LOG.warning("the newest head was not cosigned: %s", error)
            except Exception:  # noqa: BLE001 - the next head may go well
                _LOG.exception("cosigning failed")
            else:
                if doubt:
                    # One witness that errs must not stop a log: an operator is to look at it.
                    _LOG.error("%s", doubt)
                    self.metrics.log_errors.inc()

    async def once(self) -> str:
        """Show the newest head; return why a witness doubts it, empty where none does.

        Raises:
            StoreUnavailableError: The database does not answer.
        """
        size = await asyncio.to_thread(_size, self.heads)
        doubt = await _cosign_newest(self.heads, self.witnesses, self.keys)
        # Other processes show it, too: what counts is whether readers are given that head by now.
        missing = await asyncio.to_thread(_size, self.log) < size
        self.metrics.log_quorum_missing.set(int(missing))
        return doubt


def _size(log: Log) -> int:
    """Return the size of the newest head; -1 where there is none."""
    try:
        return log.head().size
    except NotLoggedYetError:
        return -1


async def _cosign_newest(log: Log, witnesses: Witnesses, keys: tuple[NoteVerifier, ...]) -> str:
    """Show the newest head to all witnesses and keep their cosignatures.

    Returns:
        Why one of them holds that this log has forked; empty where none does.
    """
    try:
        head = await asyncio.to_thread(log.head)
        try:
            found = await witnesses.cosign(
                head.note, lambda old, new: log.consistency(old, new, unsigned=True)
            )
        except QuorumError as error:
            _LOG.warning("%s", error)
            found = error.found
        if found.cosigned:
            await asyncio.to_thread(log.cosign, found.note, keys)
        newest = await asyncio.to_thread(log.head)
    except NotLoggedYetError:
        return ""
    except CoinError as error:
        _LOG.warning("the newest head was not cosigned: %s", error)
        return ""
    for failure in found.failures.values():
        ahead = isinstance(failure, WitnessAheadError) and failure.size > newest.size
        forked = isinstance(failure, WitnessRefusedError) and failure.status in _FORKED
        if ahead or forked:
            return (
                f"{failure}; either this log has lost entries, and docs/verifier.md says what to "
                "do, or that witness errs and is to be taken out of the settings"
            )
    return ""
