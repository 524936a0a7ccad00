"""Whether an entry is in the log: the proof is recomputed before it is shown."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row

from coin_protocol.errors import CoinError, InvalidInputError, TryLaterError
from coin_protocol.log_leaf import CommitmentLeaf, VerdictLeaf
from coin_protocol.merkle import verify_inclusion
from verifier_sdk.web.log_reader import Inclusion, LogReader

INCLUDED: Final = "included"
WAITING: Final = "waiting"
BROKEN: Final = "broken"
NO_LOG: Final = "no log"

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogProof:
    """What came of looking for an entry.

    Attributes:
        state: `included`, `waiting` (no head covers it yet), `broken` (the log cannot prove
            what it holds) or `no log`.
        inclusion: Where it stands, if it is there.
    """

    state: str
    inclusion: Inclusion | None = None


def leaves_of(row: Row[Any]) -> Iterator[tuple[str, bytes]]:
    """Yield what the log says of an audit, `commitment` and `verdict`, and the leaf's data.

    Args:
        row: With the audit's provider, session and digests.
    """
    try:
        leaf = CommitmentLeaf(row.provider, bytes(row.session_id), bytes(row.commitment_sha256))
        yield "commitment", leaf.to_bytes()
        if row.verdict_sha256 is not None:
            verdict = VerdictLeaf(bytes(row.commitment_sha256), bytes(row.verdict_sha256))
            yield "verdict", verdict.to_bytes()
    except InvalidInputError:
        # A row that no release of ours writes has no entry.
        return


def prove(log: LogReader | None, leaf_hash: bytes) -> LogProof:
    """Return whether the newest head covers a leaf, its proof recomputed."""
    if log is None:
        return LogProof(NO_LOG)
    try:
        found = log.inclusion(leaf_hash)
        if found is None:
            return LogProof(WAITING)
        verify_inclusion(
            leaf_hash=leaf_hash,
            index=found.index,
            size=found.size,
            proof=list(found.proof),
            root=found.root,
        )
    except TryLaterError:
        return LogProof(WAITING)
    except CoinError as error:
        # Rows are missing, or the proof leads to another root.
        _LOG.error("the log cannot prove an entry: %s", error)
        return LogProof(BROKEN)
    return LogProof(INCLUDED, found)
