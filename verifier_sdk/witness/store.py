"""What a witness remembers, in SQLite or PostgreSQL: on disk before anything is signed.

Every decision is taken in the transaction that records it, behind a lock on its log's row. So
neither a crash nor any number of processes beside each other leads to two roots for one size.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.dialects import postgresql, sqlite

from coin_protocol.checkpoint import Checkpoint
from coin_protocol.database.engine import reading, shown, writing
from coin_protocol.database.migrate import upgrade
from coin_protocol.errors import ConfigurationError, TryLaterError
from coin_protocol.evidence import EVIDENCE_FORMAT
from coin_protocol.merkle import EMPTY_ROOT
from coin_protocol.v1 import evidence_pb2
from verifier_sdk.witness import rules
from verifier_sdk.witness.rules import Head, Refused
from verifier_sdk.witness.tables import EVIDENCE, HEAD, KEY, MIGRATIONS, SEEN

SEEN_HEADS: Final = 1024
"""Heads of a log that are kept to compare others with: the largest."""

MAX_EVIDENCE: Final = 64
"""Files kept of one log: one is enough to convict it, and a log that is caught may make more."""

MAX_LISTED: Final = 1000
"""Files that are named at once."""


class ClockError(TryLaterError):
    """This machine's clock is behind cosignatures of its own: nothing is signed until it is not."""


@dataclass(frozen=True, slots=True)
class Cosigning:
    """What may be cosigned now, as it is on disk.

    Attributes:
        at: POSIX time in seconds to sign with.
    """

    at: int


class Outcome(NamedTuple):
    """What became of a request, and the evidence that it brought to light, if any."""

    decision: Cosigning | Refused
    evidence: bytes | None


class EvidenceEntry(NamedTuple):
    """A file of evidence that is kept."""

    sha256: bytes
    origin: str
    size: int
    found_at: int


class WitnessStore:
    """The heads of some logs. Safe to use from several threads, and from several processes."""

    def __init__(self, engine: Engine, vkey: str, origins: Iterable[str]) -> None:
        """Open the tables of the witness that `vkey` names.

        Raises:
            ConfigurationError: The database was not made for this key.
            StoreUnavailableError: The database does not answer.
        """
        upgrade(engine, MIGRATIONS)
        self._engine = engine
        # SQLite's own way to wait for a writer is to look again and again.
        self._turn = threading.Lock()
        with writing(engine) as connection:
            if connection.execute(select(KEY).where(KEY.c.vkey == vkey)).first() is None:
                msg = (
                    f"{shown(engine)} knows nothing of {vkey}: is this its database? A key with "
                    "an empty or older memory could cosign what it must not. For a key that has "
                    "never cosigned: coin witness init"
                )
                raise ConfigurationError(msg)
            for origin in origins:
                # There from the start, so that a first request has a row to lock.
                row = {"origin": origin, "size": 0, "root": EMPTY_ROOT, "note": b""}
                connection.execute(
                    _insert(connection)(HEAD)
                    .values(**row, cosigned_at=0)
                    .on_conflict_do_nothing(index_elements=["origin"])
                )

    @staticmethod
    def initialise(engine: Engine, vkey: str) -> None:
        """Make the database of a key that has never cosigned anything.

        Raises:
            ConfigurationError: The database is that of a witness already.
            StoreUnavailableError: The database does not answer.
        """
        upgrade(engine, MIGRATIONS)
        with writing(engine) as connection:
            found = connection.execute(select(KEY.c.vkey)).scalars().first()
            if found is not None:
                msg = f"{shown(engine)} is the database of {found}; a witness has one of its own"
                raise ConfigurationError(msg)
            connection.execute(KEY.insert().values(vkey=vkey))

    def advance(
        self,
        checkpoint: Checkpoint,
        note: bytes,
        *,
        old_size: int,
        proof: tuple[bytes, ...],
        now: int,
    ) -> Outcome:
        """Record a head, if the rules allow it. It is on disk when this returns.

        Args:
            checkpoint: Its log signed it; the log is one of this store's.
            note: The checkpoint with its log's signatures.
            old_size: Where the proof starts.
            proof: Hashes of 32 bytes.
            now: POSIX time in seconds.

        Raises:
            ClockError: `now` is far before the last cosignature.
            StoreUnavailableError: The database does not answer.
        """
        with self._turn, writing(self._engine) as connection:
            row = connection.execute(
                select(HEAD).where(HEAD.c.origin == checkpoint.origin).with_for_update()
            ).one()
            head = Head(row.size, row.root, row.cosigned_at)
            evidence = _compare(connection, head, row.note, checkpoint, note)
            if evidence is not None and not _convict(connection, checkpoint, evidence, now):
                evidence = None
            refused = rules.judge(head, old_size=old_size, proof=proof, checkpoint=checkpoint)
            if refused is not None:
                return Outcome(refused, evidence)
            at = rules.cosigning_time(head, now)
            if at is None:
                msg = (
                    f"the clock says {now}, and the last cosignature is of {head.cosigned_at}: "
                    "set the clock right"
                )
                raise ClockError(msg)
            connection.execute(
                HEAD.update()
                .where(HEAD.c.origin == checkpoint.origin)
                .values(size=checkpoint.size, root=checkpoint.root, note=note, cosigned_at=at)
            )
            return Outcome(Cosigning(at), evidence)

    def require_answer(self) -> None:
        """Ask the database for as little as there is, for whoever wants to know whether it answers.

        Raises:
            StoreUnavailableError: It does not.
        """
        with reading(self._engine) as connection:
            connection.execute(select(HEAD.c.origin).limit(1)).first()

    def heads(self) -> dict[str, Head]:
        """Return the latest head of each log.

        Raises:
            StoreUnavailableError: The database does not answer.
        """
        with reading(self._engine) as connection:
            return {
                row.origin: Head(row.size, row.root, row.cosigned_at)
                for row in connection.execute(select(HEAD))
            }

    def evidence(self) -> list[EvidenceEntry]:
        """Return what is kept, newest first, and no more than the newest thousand.

        Raises:
            StoreUnavailableError: The database does not answer.
        """
        columns = (EVIDENCE.c.sha256, EVIDENCE.c.origin, EVIDENCE.c.size, EVIDENCE.c.found_at)
        newest = EVIDENCE.c.found_at.desc(), EVIDENCE.c.sha256
        ordered = select(*columns).order_by(*newest).limit(MAX_LISTED)
        with reading(self._engine) as connection:
            return [EvidenceEntry(*row) for row in connection.execute(ordered)]

    def evidence_counts(self) -> dict[str, int]:
        """Return how many files are kept, by the origin of their log.

        Raises:
            StoreUnavailableError: The database does not answer.
        """
        counted = select(EVIDENCE.c.origin, func.count()).group_by(EVIDENCE.c.origin)
        with reading(self._engine) as connection:
            return {row.origin: row[1] for row in connection.execute(counted)}

    def evidence_file(self, digest: bytes) -> bytes | None:
        """Return the file with this SHA-256; None where there is none.

        Raises:
            StoreUnavailableError: The database does not answer.
        """
        with reading(self._engine) as connection:
            found: bytes | None = connection.execute(
                select(EVIDENCE.c.evidence).where(EVIDENCE.c.sha256 == digest)
            ).scalar()
        return found


def head_evidence(first: bytes, second: bytes) -> bytes:
    """Return the file that shows two heads of one size; each a note that the log signed."""
    heads = evidence_pb2.HeadEquivocation(first=first, second=second)
    message = evidence_pb2.Evidence(format=EVIDENCE_FORMAT, heads=heads)
    return message.SerializeToString(deterministic=True)


def _compare(
    connection: Connection, head: Head, head_note: bytes, checkpoint: Checkpoint, note: bytes
) -> bytes | None:
    """Keep a head that its log signed; return evidence if it signed another of this size."""
    origin, size = checkpoint.origin, checkpoint.size
    seen = connection.execute(
        select(SEEN.c.root, SEEN.c.note).where(SEEN.c.origin == origin, SEEN.c.size == size)
    ).first()
    if seen is not None:
        root, first = seen
    elif head.size == size and head_note:
        # Fallen out of those that are kept, as its log signed many larger ones.
        root, first = head.root, head_note
    else:
        connection.execute(
            SEEN.insert().values(origin=origin, size=size, root=checkpoint.root, note=note)
        )
        _forget(connection, origin)
        return None
    return None if root == checkpoint.root else head_evidence(first, note)


def _forget(connection: Connection, origin: str) -> None:
    """Keep the largest heads of a log: strangers can show its old ones again, but no new ones."""
    least = (
        select(SEEN.c.size)
        .where(SEEN.c.origin == origin)
        .order_by(SEEN.c.size.desc())
        .offset(SEEN_HEADS - 1)
        .limit(1)
    )
    smallest = connection.execute(least).scalar()
    if smallest is not None:
        connection.execute(SEEN.delete().where(SEEN.c.origin == origin, SEEN.c.size < smallest))


def _convict(connection: Connection, checkpoint: Checkpoint, evidence: bytes, now: int) -> bool:
    """Keep evidence, if it is new and there is room for more of this log."""
    digest = sha256(evidence).digest()
    of_log = select(func.count()).where(EVIDENCE.c.origin == checkpoint.origin)
    known = select(EVIDENCE.c.sha256).where(EVIDENCE.c.sha256 == digest)
    if connection.execute(known).first() is not None:
        return False
    if connection.execute(of_log).scalar_one() >= MAX_EVIDENCE:
        return False
    connection.execute(
        EVIDENCE.insert().values(
            sha256=digest,
            origin=checkpoint.origin,
            size=checkpoint.size,
            found_at=now,
            evidence=evidence,
        )
    )
    return True


def _insert(connection: Connection) -> type[postgresql.Insert | sqlite.Insert]:
    return postgresql.Insert if connection.dialect.name == "postgresql" else sqlite.Insert
