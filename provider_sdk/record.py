"""What a provider keeps of a finished session, and where."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Protocol

from coin_protocol.commitment import PackedIds, SessionSecret, TokenTree
from coin_protocol.encoding import digest
from coin_protocol.errors import UnknownCommitmentError
from coin_protocol.exposure import ExposureLedger
from coin_protocol.statements import read_commitment, read_manifest
from coin_protocol.v1 import envelope_pb2, opening_pb2


@dataclass
class SessionRecord:
    """Secret, ids and window embeddings; all else is derived again when asked for.

    Attributes:
        secret: Session id and secret.
        flip_secret: Start of the hash chain.
        token_ids: Packed.
        commitment: As signed.
        manifest: As signed.
        windows: All blocks' quantised window embeddings in order; empty until made.
        fingerprints: As signed; None until made.
        failure: Why the fingerprints could not be made, if they could not.
        ledger: What was opened.
        answered: Challenges answered so far, by the digest of their statement.
        lock: Held while a challenge is answered.
    """

    secret: SessionSecret
    flip_secret: bytes = field(repr=False)
    token_ids: PackedIds = field(repr=False)
    commitment: envelope_pb2.Envelope = field(repr=False)
    manifest: envelope_pb2.Envelope = field(repr=False)
    windows: bytes = field(default=b"", repr=False)
    fingerprints: envelope_pb2.Envelope | None = field(default=None, repr=False)
    failure: str = ""
    ledger: ExposureLedger = field(default_factory=ExposureLedger, repr=False)
    answered: dict[bytes, opening_pb2.AnsweredChallenge] = field(default_factory=dict, repr=False)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def commitment_sha256(self) -> bytes:
        """What names the commitment."""
        return digest(self.commitment.payload)

    @property
    def tree(self) -> TokenTree:
        """The committed tokens, with the entries that the manifest signs."""
        return TokenTree(
            token_root=read_commitment(self.commitment.payload).token_root,
            token_ids=self.token_ids,
            entries=tuple(read_manifest(self.manifest.payload).blocks),
        )


class SessionStore(Protocol):
    """Keeps finished sessions by the digest of their commitment."""

    def add(self, record: SessionRecord) -> None:
        """Keep a record."""

    def get(self, commitment_sha256: bytes) -> SessionRecord:
        """Return the record of a commitment.

        Raises:
            UnknownCommitmentError: There is none.
        """


class MemoryStore:
    """A `SessionStore` for one process: lost at exit."""

    def __init__(self) -> None:
        """Start empty."""
        self._records: dict[bytes, SessionRecord] = {}

    def add(self, record: SessionRecord) -> None:
        """Keep a record."""
        self._records[record.commitment_sha256] = record

    def get(self, commitment_sha256: bytes) -> SessionRecord:
        """Return the record of a commitment."""
        try:
            return self._records[commitment_sha256]
        except KeyError:
            msg = f"no session with commitment {commitment_sha256.hex()[:64] or '(empty)'}"
            raise UnknownCommitmentError(msg) from None
