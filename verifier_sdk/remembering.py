"""What an audit opened, as the memory across sessions takes it."""

from __future__ import annotations

import numpy as np

from coin_protocol.checks import Case
from coin_protocol.embedding import block_embedding, window_dimension
from coin_protocol.memory import OpenedBlocks


def opened_blocks(case: Case) -> OpenedBlocks:
    """Return the blocks that a case's openings show with their embedding; its checks passed."""
    dimension = window_dimension(case.profile.message.embedding)
    vectors = {
        block.block_index: block_embedding(block.windows, dimension)
        for answered in case.openings
        for block in answered.opening.blocks
    }
    return OpenedBlocks(
        provider=case.commitment.provider,
        profile_sha256=case.profile.digest,
        commitment_sha256=case.commitment_sha256,
        indices=list(vectors),
        vectors=np.array(list(vectors.values())).reshape(-1, dimension),
    )
