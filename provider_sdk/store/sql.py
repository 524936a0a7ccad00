"""A `SessionStore` over SQLite or PostgreSQL that survives any crash of its processes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, Row, insert, or_, select

from coin_protocol.database.engine import open_engine, reading, writing
from coin_protocol.database.migrate import upgrade
from coin_protocol.draw import flip_for
from coin_protocol.encoding import digest
from coin_protocol.errors import (
    ConfigurationError,
    PurgedCommitmentError,
    StoreUnavailableError,
)
from coin_protocol.exposure import ExposureLedger
from coin_protocol.profile import Profile
from coin_protocol.statements import read_commitment, read_manifest
from coin_protocol.v1 import delivery_pb2, envelope_pb2, opening_pb2, statements_pb2
from provider_sdk.ledger import enter
from provider_sdk.record import (
    MAX_RESPONSE_ID,
    Delivered,
    KeptReply,
    OpenedSession,
    ReplyRef,
    SessionRecord,
    delivered_choice,
    unknown,
)
from provider_sdk.store.leases import Leases
from provider_sdk.store.observe import StoreObserver, Unobserved
from provider_sdk.store.sealed import Safe
from provider_sdk.store.sealing import Sealer
from provider_sdk.store.tables import ANSWERED, BLOCK, COMMITTED, MIGRATIONS, OPEN, PURGED, SESSION
from provider_sdk.store.writer import Operation, Writer

LEASE_SECONDS: Final = 15.0
"""A process whose sign of life stands still for so long is taken for dead."""
_BEATS_IN_A_LEASE: Final = 5
DEADLINE_SECONDS: Final = 2.0
"""A disk that takes longer is not well; the reply goes out and its receipt is missing."""


class SqlStore:
    """Sessions in a database, secrets sealed. Several processes can share one."""

    in_memory = False

    def __init__(
        self,
        url: str,
        *,
        profile: Profile,
        sealer: Sealer,
        deadline: float = DEADLINE_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
        observer: StoreObserver | None = None,
    ) -> None:
        """Open the database, and bring its tables up to date.

        Args:
            url: `sqlite:///PATH` or `postgresql://…`.
            profile: What commitments are made of.
            sealer: Seals what is secret.
            deadline: Seconds that a finished reply waits for its commitment to be on disk.
            lease_seconds: A process whose sign of life stands still for so long is taken for dead.
            observer: Told what happens.

        Raises:
            ConfigurationError: The URL cannot be used, or a newer release made the tables.
            StoreUnavailableError: The database does not answer.
        """
        self.engine: Engine = open_engine(url)
        upgrade(self.engine, MIGRATIONS)
        self.profile = profile
        self.deadline = deadline
        self.safe = Safe(sealer, profile)
        self._observer = Unobserved() if observer is None else observer
        self.process_id = secrets.token_hex(16)
        self.lease_seconds = lease_seconds
        self.leases = Leases(self.process_id, lease_seconds)
        self.writer = Writer(
            self.engine,
            process_id=self.process_id,
            beat_seconds=lease_seconds / _BEATS_IN_A_LEASE,
            beaten=self.leases.given,
            observer=self._observer,
        )

    def open(self, opened: OpenedSession) -> Future[None]:
        """Note that a session begins."""
        ref = opened.reply
        row = {
            "session_id": opened.secret.session_id,
            "state": OPEN,
            "process_id": self.process_id,
            "response_id": None if ref is None else _text(ref.response_id),
            "choice": None if ref is None else ref.choice,
            "caller": None if ref is None else ref.caller,
            "nonce_from_client": None if ref is None else ref.nonce_from_client,
            "opened_at": time.time(),
            "statement": opened.statement.SerializeToString(),
            "secrets": self.safe.secrets(opened.secret, opened.flip_secret),
        }
        written = self.writer.submit(Operation(opened.secret.session_id, opens=row))
        self._observer.opened()
        return written

    def add_block(self, session_id: bytes, index: int, ids: npt.NDArray[np.uint32]) -> Future[None]:
        """Keep the ids of a full block."""
        row = self.safe.block_row(session_id, index, ids)
        written = self.writer.submit(Operation(session_id, block=row))
        self._observer.block()
        return written

    def finish(
        self, record: SessionRecord, rest: npt.NDArray[np.uint32], delivered: Delivered
    ) -> Future[None]:
        """Keep what ends a session."""
        session_id = record.secret.session_id
        statement = read_commitment(record.commitment.payload)
        block = None
        if len(rest):
            block = self.safe.block_row(session_id, statement.block_count - 1, rest)
        kept = delivery_pb2.Delivery(
            choices=[delivery_pb2.DeliveredChoice(notes=delivered.notes)],
            reported=delivered.reported,
        )
        changes = {
            "state": COMMITTED,
            "process_id": None,
            # Whichever is later: what it promises counts from its own end.
            "committed_at": max(time.time(), statement.ended_at.ToMicroseconds() / 1e6),
            "commitment_sha256": record.commitment_sha256,
            "commitment": record.commitment.SerializeToString(),
            "manifest": record.manifest.SerializeToString(),
            "block_count": statement.block_count,
            "reasoning_tokens": statement.reasoning_tokens,
            "delivery": kept.SerializeToString(),
        }
        written = self.writer.submit(Operation(session_id, block=block, ends=changes))
        self._observer.ended(statement)
        return written

    def give_up(self, session_id: bytes) -> None:
        """Leave a session to whoever recovers those of dead processes."""
        with suppress(StoreUnavailableError):  # closed: this process is about to be one of them
            self.writer.submit(Operation(session_id, gives_up=True))

    def get(self, commitment_sha256: bytes) -> SessionRecord:
        """Return the record of a commitment.

        Raises:
            UnknownCommitmentError: There is none.
            PurgedCommitmentError: Its secrets were deleted when its retention ended.
            ConfigurationError: It cannot be unsealed, or was made under another profile.
            StoreUnavailableError: The database does not answer.
        """
        with reading(self.engine) as connection:
            row = connection.execute(
                select(SESSION).where(SESSION.c.commitment_sha256 == commitment_sha256)
            ).one_or_none()
            if row is None:
                raise unknown(commitment_sha256)
            if row.state == PURGED:
                raise _purged(commitment_sha256)
            blocks = block_rows(connection, row.session_id)
        return self.record(row, blocks)

    def record(self, row: Row[Any], blocks: Sequence[Row[Any]]) -> SessionRecord:
        """Return the record of a committed session from its rows, blocks in order.

        Raises:
            ConfigurationError: It cannot be unsealed, or was made under another profile.
        """
        self._require_profile(statements_pb2.Commitment.FromString(row.statement).profile_sha256)
        secret, flip_secret = self.safe.open_secrets(row.session_id, row.secrets)
        made = row.fingerprints is not None
        return SessionRecord(
            secret=secret,
            flip_secret=flip_secret,
            token_ids=self.safe.ids(row.session_id, blocks),
            commitment=envelope_pb2.Envelope.FromString(row.commitment),
            manifest=envelope_pb2.Envelope.FromString(row.manifest),
            windows=b"".join(
                self.safe.open_windows(row.session_id, block.block_index, block.windows)
                for block in (blocks if made else ())
            ),
            nodes=[block.nodes or b"" for block in blocks],
            fingerprints=envelope_pb2.Envelope.FromString(row.fingerprints) if made else None,
            failure=row.failure or "",
        )

    def opened(self, row: Row[Any]) -> OpenedSession:
        """Return how the session of a row began.

        Raises:
            ConfigurationError: It cannot be unsealed, or was opened under another profile.
        """
        statement = statements_pb2.Commitment.FromString(row.statement)
        self._require_profile(statement.profile_sha256)
        secret, flip_secret = self.safe.open_secrets(row.session_id, row.secrets)
        return OpenedSession(secret, flip_secret, statement)

    @contextmanager
    def exclusive(self, record: SessionRecord) -> Iterator[None]:
        """Hold a record for one challenge at a time, over all processes."""
        session_id = record.secret.session_id
        with writing(self.engine) as connection:
            state = connection.execute(
                select(SESSION.c.state).where(SESSION.c.session_id == session_id).with_for_update()
            ).scalar_one()
            if state == PURGED:
                raise _purged(record.commitment_sha256)
            self._load_answered(connection, record)
            before = set(record.answered)
            yield
            rows = [
                {
                    "session_id": session_id,
                    "flip_index": step.flip_index,
                    "challenge_sha256": key,
                    "challenge": step.challenge.SerializeToString(),
                    "answered_at": time.time(),
                }
                for key, step in record.answered.items()
                if key not in before
            ]
            if rows:
                connection.execute(insert(ANSWERED), rows)

    def replies(self, response_id: str, caller: bytes) -> list[KeptReply]:
        """Return the choices of a reply, to the caller that made it, in order."""
        with reading(self.engine) as connection:
            rows = connection.execute(
                select(SESSION)
                .where(
                    SESSION.c.response_id == _text(response_id),
                    SESSION.c.caller == caller,
                    or_(SESSION.c.state != PURGED, SESSION.c.commitment.is_not(None)),
                )
                .order_by(SESSION.c.choice)
            ).all()
        return [_kept(row) for row in rows]

    def close(self) -> None:
        """Write what waits and let go of the database."""
        self.writer.close()
        self.engine.dispose()

    def _require_profile(self, made_under: bytes) -> None:
        """Check that blocks, draws and caps are those of this store's profile."""
        if made_under != self.profile.digest:
            msg = (
                f"made under profile {made_under.hex()[:16]}, and this process runs "
                f"{self.profile.digest.hex()[:16]}: answer for it with the profile that it had"
            )
            raise ConfigurationError(msg)

    def _load_answered(self, connection: Connection, record: SessionRecord) -> None:
        session_id = record.secret.session_id
        rows = connection.execute(
            select(ANSWERED)
            .where(ANSWERED.c.session_id == session_id)
            .order_by(ANSWERED.c.flip_index)
        )
        entries = read_manifest(record.manifest.payload).blocks
        counts = [entry.token_count for entry in entries]
        record.answered.clear()
        record.ledger = ExposureLedger()
        for row in rows:
            step = opening_pb2.AnsweredChallenge(
                challenge=envelope_pb2.Envelope.FromString(row.challenge),
                flip_index=row.flip_index,
                flip=flip_for(record.flip_secret, row.flip_index),
            )
            record.answered[digest(step.challenge.payload)] = step
            enter(record.ledger, step, counts, run_tokens=self.profile.run_tokens)


def block_rows(connection: Connection, session_id: bytes) -> Sequence[Row[Any]]:
    """Return a session's rows of `block`, in order."""
    return connection.execute(
        select(BLOCK).where(BLOCK.c.session_id == session_id).order_by(BLOCK.c.block_index)
    ).all()


def _text(name: str) -> str:
    """Spell out what PostgreSQL or UTF-8 cannot hold: names come from outside."""
    return name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")[:MAX_RESPONSE_ID]


def _kept(row: Row[Any]) -> KeptReply:
    ref = ReplyRef(row.response_id, row.choice, row.caller, row.nonce_from_client)
    statement = statements_pb2.Commitment.FromString(row.statement)
    if row.commitment is None:
        return KeptReply(ref, statement.client_nonce, None, None)
    kept = delivery_pb2.Delivery.FromString(row.delivery)
    commitment = envelope_pb2.Envelope.FromString(row.commitment)
    choice = delivered_choice(ref, commitment, kept.choices[0].notes)
    reported = kept.reported if kept.HasField("reported") else None
    return KeptReply(ref, statement.client_nonce, choice, reported)


def _purged(commitment_sha256: bytes) -> PurgedCommitmentError:
    msg = (
        f"the secrets of commitment {commitment_sha256.hex()} were deleted when its retention "
        "ended: it can be audited no more"
    )
    return PurgedCommitmentError(msg)
