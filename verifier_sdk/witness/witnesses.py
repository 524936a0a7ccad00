"""Ask several witnesses at once: a head counts once enough of them have cosigned it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from coin_protocol.errors import CoinError, ConfigurationError, PeerUnavailableError, TryLaterError
from coin_protocol.note import NoteSignature, add_signatures
from verifier_sdk.witness.client import ProofFor, WitnessClient

_LOG = logging.getLogger(__name__)

LINGER_SECONDS: Final = 0.5
"""Once enough have cosigned, the others are waited for so long: more is better than enough."""


@dataclass(frozen=True, slots=True)
class CosignedNote:
    """A checkpoint with the cosignatures that there are.

    Attributes:
        note: The checkpoint.
        cosigned: Names of the witnesses that signed, sorted.
        failures: Why the others did not, by name. A `WitnessAheadError` or a
            `WitnessRefusedError` among them is about the log, not about the witness.
    """

    note: bytes
    cosigned: tuple[str, ...]
    failures: dict[str, CoinError]


class QuorumError(TryLaterError):
    """Too few witnesses cosigned a checkpoint.

    Attributes:
        found: What there is all the same.
    """

    def __init__(self, message: str, *, found: CosignedNote) -> None:
        """Say what is missing."""
        super().__init__(message)
        self.found = found


class Witnesses:
    """The witnesses of a log, of which any `quorum` are enough. For one event loop."""

    def __init__(self, clients: Sequence[WitnessClient], quorum: int) -> None:
        """Ask through `clients`, which this closes.

        Raises:
            ConfigurationError: The quorum can never be reached, or a key or name stands twice.
        """
        if not 0 <= quorum <= len(clients):
            msg = f"wanted {quorum} of {len(clients)} witnesses; that can never be"
            raise ConfigurationError(msg)
        keys = {client.verifier.public.spki for client in clients}
        names = {client.name for client in clients}
        if not len(keys) == len(names) == len(clients):
            msg = "one key or one name stands for two witnesses; each counts once"
            raise ConfigurationError(msg)
        self._clients = tuple(clients)
        self.quorum: Final = quorum

    async def __aenter__(self) -> Self:
        """Return the witnesses."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients:
            await client.aclose()

    async def cosign(self, note: bytes, proof_for: ProofFor) -> CosignedNote:
        """Return a checkpoint with the cosignatures of a quorum at least.

        Witnesses that fail are no error while enough others do not.

        Args:
            note: The checkpoint, signed by its log.
            proof_for: Gives consistency proofs of this log; called from several threads.

        Raises:
            QuorumError: Too few cosigned; what there is comes with the error.
            StatementError: `note` is no checkpoint.
            LimitError: It is too large.
        """
        tasks = {
            asyncio.create_task(client.cosign(note, proof_for)): client for client in self._clients
        }
        signatures: dict[str, NoteSignature] = {}
        failures: dict[str, CoinError] = {}
        try:
            await self._gather(tasks, signatures, failures)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        ordered = [signatures[name] for name in sorted(signatures)]
        found = CosignedNote(add_signatures(note, ordered), tuple(sorted(signatures)), failures)
        if len(signatures) < self.quorum:
            why = "; ".join(str(failure) for failure in failures.values())
            msg = (
                f"{len(signatures)} of {len(self._clients)} witnesses cosigned, wanted "
                f"{self.quorum}: {why}"
            )
            raise QuorumError(msg, found=found)
        return found

    async def _gather(
        self,
        tasks: dict[asyncio.Task[NoteSignature], WitnessClient],
        signatures: dict[str, NoteSignature],
        failures: dict[str, CoinError],
    ) -> None:
        """Wait for all; once a quorum is there, for a moment only."""
        pending = set(tasks)
        linger: float | None = None
        loop = asyncio.get_running_loop()
        while pending:
            left = None if linger is None else max(0.0, linger - loop.time())
            done, pending = await asyncio.wait(
                pending, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
            for task in done:
                name = tasks[task].name
                try:
                    signatures[name] = task.result()
                except CoinError as error:
                    failures[name] = error
                    _LOG.warning("no cosignature: %s", error)
            if linger is None and len(signatures) >= self.quorum:
                linger = loop.time() + LINGER_SECONDS
        for task in pending:
            msg = f"witness {tasks[task].name!r} is late"
            failures[tasks[task].name] = PeerUnavailableError(msg, status="DEADLINE_EXCEEDED")
