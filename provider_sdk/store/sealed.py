"""Rows of the database, and what they hold once it is unsealed."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Row

from coin_protocol.commitment import PackedIds, SessionSecret
from coin_protocol.limits import HASH_BYTES
from coin_protocol.profile import Profile
from provider_sdk.store.sealing import Sealer

_SECRETS = b"secrets"


@dataclass(frozen=True)
class Safe:
    """Seals and unseals what the database holds of sessions under one profile."""

    sealer: Sealer
    profile: Profile

    def secrets(self, secret: SessionSecret, flip_secret: bytes) -> bytes:
        """Seal a session's two secrets, 32 bytes each."""
        plain = secret.secret + flip_secret
        return self.sealer.seal(plain, session_id=secret.session_id, label=_SECRETS)

    def open_secrets(self, session_id: bytes, sealed: bytes) -> tuple[SessionSecret, bytes]:
        """Return a session's secret and its flip secret."""
        plain = self.sealer.unseal(sealed, session_id=session_id, label=_SECRETS)
        return SessionSecret(session_id, plain[:HASH_BYTES]), plain[HASH_BYTES:]

    def block_row(
        self, session_id: bytes, index: int, ids: npt.NDArray[np.uint32]
    ) -> dict[str, Any]:
        """Return the row of a block."""
        packed = PackedIds(array("I", ids.tobytes()), bits=self._bits).to_bytes()
        return {
            "session_id": session_id,
            "block_index": index,
            "token_count": len(ids),
            "ids": self.sealer.seal(packed, session_id=session_id, label=b"ids:%d" % index),
            "windows": None,
        }

    def windows(self, session_id: bytes, index: int, rows: Iterable[bytes]) -> bytes:
        """Seal a block's window embeddings."""
        label = b"windows:%d" % index
        return self.sealer.seal(b"".join(rows), session_id=session_id, label=label)

    def open_windows(self, session_id: bytes, index: int, sealed: bytes) -> bytes:
        """Return a block's window embeddings, one after the other."""
        return self.sealer.unseal(sealed, session_id=session_id, label=b"windows:%d" % index)

    def ids(self, session_id: bytes, rows: Sequence[Row[Any]]) -> StoredIds:
        """Return the ids that rows of blocks hold, in their order, unsealed when asked for."""
        return StoredIds(self, session_id, rows)

    def open_ids(self, session_id: bytes, row: Row[Any]) -> PackedIds:
        """Return the ids of one block."""
        label = b"ids:%d" % row.block_index
        packed = self.sealer.unseal(row.ids, session_id=session_id, label=label)
        return PackedIds.from_bytes(packed, count=row.token_count, bits=self._bits)

    @property
    def _bits(self) -> int:
        return int(self.profile.vocabulary_size - 1).bit_length()


class StoredIds:
    """Token ids as blocks of the database; each block is unsealed when a slice touches it."""

    def __init__(self, safe: Safe, session_id: bytes, rows: Sequence[Row[Any]]) -> None:
        """Hold rows of `block`, in order."""
        self._safe = safe
        self._session_id = session_id
        self._rows = rows
        self._count: int = sum(row.token_count for row in rows)

    def __len__(self) -> int:
        """Return the number of ids."""
        return self._count

    def slice(self, start: int, stop: int) -> npt.NDArray[np.uint32]:
        """Return ids `start` to `stop`, uint32."""
        size = self._safe.profile.block_size
        stop = min(stop, self._count)
        parts = [
            self._safe.open_ids(self._session_id, row).slice(
                max(0, start - row.block_index * size), stop - row.block_index * size
            )
            for row in self._rows[start // size : -(-stop // size)]
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.uint32)
