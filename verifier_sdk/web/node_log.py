"""The log of the node itself, as its pages read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Engine, func, select

from coin_protocol.checkpoint import Checkpoint
from coin_protocol.database.engine import reading
from coin_protocol.errors import CoinError
from coin_protocol.note import split_note
from coin_protocol.note_key import NoteSignature, NoteVerifier, cosignature_time
from verifier_sdk.log.errors import NotLoggedYetError, UnknownEntryError
from verifier_sdk.log.log import Log
from verifier_sdk.log.tables import HEAD
from verifier_sdk.web.log_reader import Head, Inclusion, WitnessMark

_POINTS: Final = 120
"""Of the plot of its growth."""


class NodeLog:
    """Reads the log in the node's database, and who cosigned its heads."""

    def __init__(self, log: Log, engine: Engine, witnesses: Sequence[NoteVerifier]) -> None:
        """Read a log.

        Args:
            log: Of this node.
            engine: Of the same database.
            witnesses: Keys of those that the node asks.
        """
        self._log = log
        self._engine = engine
        self._witnesses = tuple(witnesses)

    def head(self) -> Head | None:
        """Return the newest head that its quorum cosigned, None before the first."""
        try:
            found = self._log.head()
        except NotLoggedYetError:
            return None
        checkpoint: Checkpoint = found.checkpoint
        text, signatures = split_note(found.note)
        return Head(
            note=found.note,
            origin=checkpoint.origin,
            size=checkpoint.size,
            root=checkpoint.root,
            signed_at=found.signed_at,
            witnesses=[_mark(witness, text, signatures) for witness in self._witnesses],
            quorum=self._log.quorum,
        )

    def inclusion(self, leaf_hash: bytes) -> Inclusion | None:
        """Return the proof that the newest head's tree has a leaf, None where it has not."""
        try:
            found = self._log.inclusion(leaf_hash)
        except (NotLoggedYetError, UnknownEntryError):
            return None
        if found.head is None:
            return None
        return Inclusion(found.index, found.size, found.head.root, found.proof)

    def growth(self) -> Sequence[tuple[float, int]]:
        """Return when some heads of its whole life were signed, and their sizes, oldest first."""
        with reading(self._engine) as connection:
            most = connection.execute(select(func.max(HEAD.c.size))).scalar() or 0
            found: dict[int, float] = {}
            for at in range(_POINTS + 1):
                query = select(HEAD.c.size, HEAD.c.signed_at).order_by(HEAD.c.size).limit(1)
                row = connection.execute(query.where(HEAD.c.size >= most * at // _POINTS)).first()
                if row is not None:
                    found[row.size] = row.signed_at
        return [(found[size], size) for size in sorted(found)]


def _mark(witness: NoteVerifier, text: str, signatures: Sequence[NoteSignature]) -> WitnessMark:
    """Return when a witness cosigned; a signature that does not hold is none."""
    times = []
    for signature in signatures:
        if witness.made(signature):
            try:
                witness.verify(text, signature)
            except CoinError:
                continue
            times.append(float(cosignature_time(signature)))
    return WitnessMark(witness.key.name, max(times, default=None))
