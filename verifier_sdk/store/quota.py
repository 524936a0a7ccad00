"""What one client may hand in, so that none of them fills the disk of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from verifier_sdk.store.clock import DAY_SECONDS, database_time
from verifier_sdk.store.storable import storable
from verifier_sdk.store.tables import AUDIT, HANDED_IN


@dataclass(frozen=True, kw_only=True)
class Quota:
    """What is kept of one client's receipts; what is refused was never acknowledged.

    Attributes:
        receipts_per_day: In a day (UTC).
        bytes_per_day: The same in bytes.
        receipts_per_commitment: Different ones of one commitment, over all days. Of each client,
            or one could keep another's receipt out.
    """

    receipts_per_day: int
    bytes_per_day: int
    receipts_per_commitment: int


DEFAULT_QUOTA: Final = Quota(
    receipts_per_day=500_000, bytes_per_day=20_000_000_000, receipts_per_commitment=8
)
"""Where nothing else is said."""


class Counted(Protocol):
    """What of a receipt is counted."""

    @property
    def submitted_by(self) -> str:
        """Who handed it in."""

    @property
    def commitment_sha256(self) -> bytes:
        """What it is of."""

    @property
    def receipt(self) -> bytes:
        """Exact bytes."""


@dataclass(frozen=True)
class Refused:
    """Why a receipt was not kept.

    Attributes:
        why: For people.
        seconds: After which it may be; None for never.
    """

    why: str
    seconds: float | None


@dataclass
class _Used:
    receipts: int
    bytes: int


class Books:
    """The counts of the clients of one transaction, which others wait for until it ends."""

    def __init__(self, connection: Connection, quota: Quota, batch: Sequence[Counted]) -> None:
        """Open the books of all clients of a batch.

        Args:
            connection: In a transaction that writes.
            quota: Of each client.
            batch: What may be kept.
        """
        now = database_time(connection)
        self._connection = connection
        self._quota = quota
        self._day: Final = int(now // DAY_SECONDS)
        self._left = (self._day + 1) * DAY_SECONDS - now
        self._used = self._open({_client(one) for one in batch})
        self._kept = self._count({one.commitment_sha256 for one in batch})

    def take(self, one: Counted) -> Refused | None:
        """Count a receipt, or say why it is not kept."""
        client, quota = _client(one), self._quota
        used, size = self._used[client], len(one.receipt)
        of_commitment = client, one.commitment_sha256
        if self._kept[of_commitment] >= quota.receipts_per_commitment:
            why = (
                f"{self._kept[of_commitment]} other receipts of this commitment were kept of you, "
                "the most there may be; have one of them audited"
            )
            return Refused(why, None)
        most = None
        if used.receipts >= quota.receipts_per_day:
            most = f"{quota.receipts_per_day} receipts"
        elif used.bytes + size > quota.bytes_per_day:
            most = f"{quota.bytes_per_day} bytes of receipts"
        if most is not None:
            why = f"the most that is kept of a client in a day (UTC) is {most}"
            return Refused(f"{why}; come again in {self._left:.0f} s", self._left)
        used.receipts += 1
        used.bytes += size
        self._kept[of_commitment] += 1
        return None

    def close(self) -> None:
        """Write the counts down."""
        for client, used in self._used.items():
            self._connection.execute(
                update(HANDED_IN)
                .where(HANDED_IN.c.client == client, HANDED_IN.c.day == self._day)
                .values(receipts=used.receipts, bytes=used.bytes)
            )

    def _open(self, clients: Iterable[str]) -> dict[str, _Used]:
        dialect: Any = postgresql if self._connection.dialect.name == "postgresql" else sqlite
        # In one order, or two transactions could wait for each other.
        rows = [
            {"client": client, "day": self._day, "receipts": 0, "bytes": 0}
            for client in sorted(clients)
        ]
        # An update that changes nothing locks the row, and so returns what others committed.
        statement = dialect.insert(HANDED_IN).values(rows)
        locked = statement.on_conflict_do_update(
            index_elements=["client", "day"], set_={"receipts": HANDED_IN.c.receipts}
        ).returning(HANDED_IN.c.client, HANDED_IN.c.receipts, HANDED_IN.c.bytes)
        found = self._connection.execute(locked).all()
        return {row.client: _Used(row.receipts, row.bytes) for row in found}

    def _count(self, commitments: Iterable[bytes]) -> Counter[tuple[str, bytes]]:
        rows = self._connection.execute(
            select(AUDIT.c.submitted_by, AUDIT.c.commitment_sha256, func.count().label("receipts"))
            .where(AUDIT.c.commitment_sha256.in_(commitments))
            .group_by(AUDIT.c.submitted_by, AUDIT.c.commitment_sha256)
        )
        return Counter({(row.submitted_by, row.commitment_sha256): row.receipts for row in rows})


def _client(one: Counted) -> str:
    return storable(one.submitted_by)
