"""A witness without its sockets: takes the body of a request, gives a cosignature or a refusal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from coin_protocol.checkpoint import Checkpoint, cosign, read_unverified
from coin_protocol.errors import (
    ConfigurationError,
    InvalidInputError,
    LimitError,
    SignatureError,
    StatementError,
)
from coin_protocol.note import NoteAlgorithm, NoteSigner, NoteVerifier, open_note, write_note
from verifier_sdk.witness.rules import Refusal, Refused
from verifier_sdk.witness.store import Cosigning, WitnessStore
from verifier_sdk.witness.wire import AddCheckpoint, parse_request

MAX_TEXT_BYTES: Final = 4096
"""Of a checkpoint without its signatures. Heads are kept, and extensions could be any size."""


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A checkpoint that was cosigned.

    Attributes:
        checkpoint: Which.
        at: POSIX time in seconds of the cosignature.
        line: The cosignature, as a line of a note.
    """

    checkpoint: Checkpoint
    at: int
    line: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered.

    Attributes:
        result: A cosignature, or why there is none.
        origin: Of the log; None where it is none that is followed.
        evidence: Two heads of one size, where this request brought them to light.
    """

    result: Cosigned | Refused
    origin: str | None = None
    evidence: bytes | None = None


class Witness:
    """Cosigns the heads of the logs that it follows. Safe to use from several threads."""

    def __init__(
        self,
        signer: NoteSigner,
        logs: Mapping[str, Sequence[NoteVerifier]],
        store: WitnessStore,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Follow some logs.

        Args:
            signer: Of cosignatures.
            logs: The keys of each log, by its origin.
            store: What was cosigned before; opened for this key and these logs.
            clock: POSIX time in seconds.

        Raises:
            ConfigurationError: The signer signs no cosignatures, or a log has no key, or signs
                with the witness's own.
        """
        require_own_key(signer, logs)
        self._signer = signer
        self._logs = {origin: tuple(keys) for origin, keys in logs.items()}
        self._store = store
        self._clock = clock

    @property
    def verifier(self) -> NoteVerifier:
        """The key that checks this witness's cosignatures."""
        return self._signer.verifier

    @property
    def store(self) -> WitnessStore:
        """What it remembers."""
        return self._store

    @property
    def origins(self) -> tuple[str, ...]:
        """The logs that it follows."""
        return tuple(self._logs)

    def add_checkpoint(self, body: bytes) -> Answer:
        """Answer one request. What is cosigned is on disk before it is signed.

        Args:
            body: Of `POST /add-checkpoint`.

        Raises:
            TryLaterError: The database or the key's HSM does not answer, or the clock is wrong.
        """
        try:
            request = parse_request(body)
            checkpoint = read_unverified(request.note)
        except (StatementError, LimitError) as error:
            return Answer(Refused(Refusal.MALFORMED, str(error)))
        if len(checkpoint.text().encode()) > MAX_TEXT_BYTES:
            msg = f"a checkpoint's text has at most {MAX_TEXT_BYTES} bytes here"
            return Answer(Refused(Refusal.MALFORMED, msg))
        keys = self._logs.get(checkpoint.origin)
        if keys is None:
            return Answer(Refused(Refusal.UNKNOWN_LOG, "this witness does not follow this log"))
        try:
            note = open_note(request.note, keys)
        except SignatureError as error:
            return Answer(Refused(Refusal.UNSIGNED, str(error)), checkpoint.origin)
        # Without what others wrote beside it, which is no business of this witness.
        return self._advance(request, checkpoint, write_note(note.text, note.verified))

    def _advance(self, request: AddCheckpoint, checkpoint: Checkpoint, note: bytes) -> Answer:
        decision, evidence = self._store.advance(
            checkpoint,
            note,
            old_size=request.old_size,
            proof=request.proof,
            now=int(self._clock()),
        )
        if isinstance(decision, Cosigning):
            line = cosign(checkpoint, self._signer, decision.at).line()
            return Answer(Cosigned(checkpoint, decision.at, line), checkpoint.origin, evidence)
        return Answer(decision, checkpoint.origin, evidence)


def require_own_key(signer: NoteSigner, logs: Mapping[str, Sequence[NoteVerifier]]) -> None:
    """Check that a witness's key is for cosignatures, and none of the logs that it follows.

    Raises:
        ConfigurationError: It is not, or a log has no key.
    """
    if signer.key.algorithm is not NoteAlgorithm.COSIGNATURE:
        msg = f"{signer.verifier.vkey} is no key for cosignatures (0x04)"
        raise ConfigurationError(msg)
    for origin, keys in logs.items():
        if not keys:
            msg = f"the log {origin!r} has no key; wanted its verifier key"
            raise ConfigurationError(msg)
        if any(key.public.spki == signer.verifier.public.spki for key in keys):
            msg = (
                f"the log {origin!r} signs with this witness's own key: nobody is their own witness"
            )
            raise ConfigurationError(msg)


def parse_logs(logs: Mapping[str, Sequence[str]]) -> dict[str, tuple[NoteVerifier, ...]]:
    """Return the keys of logs out of their verifier keys.

    Raises:
        InvalidInputError: One is malformed, or is a witness's.
    """
    found = {}
    for origin, vkeys in logs.items():
        keys = tuple(NoteVerifier.from_vkey(vkey) for vkey in vkeys)
        for key in keys:
            if key.key.algorithm is not NoteAlgorithm.ED25519:
                msg = f"{key.vkey} is the key of a witness; wanted the log's (0x01)"
                raise InvalidInputError(msg)
        found[origin] = keys
    return found
