"""What the text of blocks opened whole says (protocol, section 8). Graded, never proof."""

from __future__ import annotations

from coin_protocol.checks import Case
from coin_protocol.tokenizer import noncanonical_tokens
from coin_protocol.v1 import receipt_pb2

NONCANONICAL = "noncanonical_tokens"


def textual_scores(case: Case) -> list[receipt_pb2.Score]:
    """Return, for each block opened whole, the share of ids that are not canonical.

    Splitting text into more tokens than its tokenizer would raises the count (arXiv
    2505.21627); honest models sample such ids now and then.

    Args:
        case: Evidence whose checks have passed, with the profile's models at hand.

    Raises:
        MissingDependencyError: The models are not installed.
    """
    tokenizer, _ = case.models
    return [
        receipt_pb2.Score(
            name=NONCANONICAL,
            block_index=block.block_index,
            value=noncanonical_tokens(tokenizer, block.token_ids) / len(block.token_ids),
        )
        for whole in case.whole_openings
        for block in whole.opening.blocks
    ]
