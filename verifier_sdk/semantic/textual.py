"""What the text of blocks opened whole says (protocol, section 9). Graded, never proof."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from coin_protocol.checks import Case
from coin_protocol.tokenizer import noncanonical_tokens
from coin_protocol.v1 import receipt_pb2

if TYPE_CHECKING:
    # Readers load torch, which most of what is done here can do without.
    from verifier_sdk.semantic.reader.reference import ReferenceModel

NONCANONICAL = "noncanonical_tokens"
SURPRISE = "reference_surprise"


def textual_scores(case: Case, reference: ReferenceModel | None = None) -> list[receipt_pb2.Score]:
    """Return, for each block opened whole, the share of ids that are not canonical.

    Splitting text into more tokens than its tokenizer would raises the count (arXiv
    2505.21627); honest models sample such ids now and then.

    Args:
        case: Evidence whose checks have passed, with the profile's models at hand.
        reference: A language model whose surprise at each block is added, in nats a token.

    Raises:
        MissingDependencyError: The models are not installed.
        ConfigurationError: There is no such reference model.
    """
    tokenizer, _ = case.models
    blocks = [block for whole in case.whole_openings for block in whole.opening.blocks]
    scores = [
        receipt_pb2.Score(
            name=NONCANONICAL,
            block_index=block.block_index,
            value=noncanonical_tokens(tokenizer, block.token_ids) / len(block.token_ids),
        )
        for block in blocks
    ]
    if reference is not None:
        surprises = reference.surprise([block.text for block in blocks])
        scores += [
            receipt_pb2.Score(name=SURPRISE, block_index=block.block_index, value=value)
            for block, value in zip(blocks, surprises, strict=True)
            if isfinite(value)
        ]
    return scores
