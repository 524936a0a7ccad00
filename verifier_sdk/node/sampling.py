"""Which receipts are audited, and in which order. Pure rules.

Two ways lead to an audit. A share of each provider's commitments is drawn at random, by a secret
of the node's: nobody can tell beforehand which, and these alone are weighed over sessions. And a
receipt that shows by itself that something is odd is audited in any case.
"""

from __future__ import annotations

import hmac
import math
from typing import Final

from coin_protocol.errors import VerificationError
from coin_protocol.usage import is_as_signed, verify_usage
from coin_protocol.v1 import receipt_pb2, statements_pb2

ASKED_PRIORITY: Final = 1000
"""Of audits that somebody asked for: they wait for an answer."""

ALWAYS: Final = 40
"""A receipt of this risk or more is audited, whatever the share."""

_BILL: Final = 40
_UNTIMED: Final = 10
_RETOKENIZED: Final = 10
_PART: Final = 5
_SIZE: Final = 4
_RECORD: Final = 20


def drawn(secret: bytes, commitment_sha256: bytes, share: float) -> bool:
    """Say whether a commitment is among the share that is audited.

    The draw is of the commitment and not of the receipt: handing in a receipt again with another
    time on it draws nothing new.

    Args:
        secret: Of the node.
        commitment_sha256: 32 bytes.
        share: From 0 to 1.
    """
    number = int.from_bytes(hmac.digest(secret, commitment_sha256, "sha256")[:8], "big")
    return number < share * 2.0**64


def risk(
    receipt: receipt_pb2.Receipt,
    commitment: statements_pb2.Commitment,
    *,
    block_size: int,
    failed_share: float,
) -> int:
    """Return how odd a receipt looks, 0 to some 110 points, by what can be seen at once.

    Args:
        receipt: As submitted.
        commitment: Its statement.
        block_size: Of the profile: so many tokens give a checkpoint.
        failed_share: Of the provider's latest audits.
    """
    points = 0
    if _bill_disagrees(receipt, commitment):
        points += _BILL
    if commitment.reasoning_tokens >= block_size and not receipt.checkpoints:
        points += _UNTIMED
    if commitment.id_source == statements_pb2.ID_SOURCE_RETOKENIZED:
        points += _RETOKENIZED
    if commitment.abort_reason:
        points += _PART
    # Each tenfold reply costs a client ten times as much where it is a lie.
    points += round(_SIZE * math.log10(1 + commitment.reasoning_tokens))
    points += round(_RECORD * min(1.0, failed_share))
    return points


def _bill_disagrees(receipt: receipt_pb2.Receipt, commitment: statements_pb2.Commitment) -> bool:
    if receipt.HasField("billed") and not is_as_signed(receipt.billed, commitment.usage):
        return True
    try:
        verify_usage(
            commitment.usage,
            reasoning_tokens=commitment.reasoning_tokens,
            answer_tokens=commitment.answer_tokens,
        )
    except VerificationError:
        return True
    return False
