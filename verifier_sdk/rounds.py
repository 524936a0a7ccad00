"""What a round of an audit may ask for: the policy's plan, within the profile's caps."""

from __future__ import annotations

from typing import Final

from coin_protocol.exposure import Caps, ExposureLedger, affordable
from coin_protocol.v1 import profile_pb2

PLAN_BLOCK_SIZE: Final = 256
"""Tokens of the block that a plan's `tokens_per_block` is of."""


def affordable_round(
    ledger: ExposureLedger,
    caps: Caps,
    plan: profile_pb2.RoundPlan,
    *,
    number: int,
    block_size: int,
) -> tuple[int, int, int]:
    """Return the most that round `number`, from 1, may ask for, (0, 0, 0) for nothing.

    Blocks of another size than 256 open as large a share of their tokens, one run at least.

    Returns:
        Blocks with embedding, token blocks, tokens per block.
    """
    first = number == 1
    share = plan.tokens_per_block * block_size // PLAN_BLOCK_SIZE
    tokens = max(share, min(plan.tokens_per_block, caps.run_tokens))
    return affordable(
        ledger,
        caps,
        blocks=plan.blocks_first_round if first else plan.blocks_per_round,
        token_blocks=plan.token_blocks_first_round if first else 0,
        tokens_per_block=min(block_size, tokens),
    )
