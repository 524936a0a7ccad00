"""The exposure ledger of a commitment, from the challenges that it has answered.

Nothing else is written down of what was opened: a challenge and its link of the chain draw the
same again, so that ledger and answers cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence

from coin_protocol import draw, envelope, statements
from coin_protocol.exposure import ExposureLedger
from coin_protocol.v1 import opening_pb2


def enter(
    ledger: ExposureLedger,
    step: opening_pb2.AnsweredChallenge,
    token_counts: Sequence[int],
    *,
    run_tokens: int,
) -> None:
    """Enter what an answered challenge opened.

    Args:
        ledger: Changed.
        step: The challenge and its link of the chain.
        token_counts: Tokens of each block of the commitment.
        run_tokens: Of the profile.
    """
    raw = step.challenge.payload
    if step.challenge.payload_type == envelope.WHOLE_CHALLENGE:
        whole = statements.read_whole_challenge(raw)
        ledger.add_whole(draw.drawn_whole_by(whole, step.flip, len(token_counts)))
        return
    drawn = draw.drawn_by(
        statements.read_challenge(raw), step.flip, token_counts, run_tokens=run_tokens
    )
    last = len(token_counts) - 1
    ledger.add(drawn, edge=(last, token_counts[last] - 1))
