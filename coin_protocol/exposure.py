"""How much of one commitment may ever be opened, and how much was. Pure rules (section 3).

A challenge is refused by what it *could* open, never by what it would: the answer to
whether it is refused must not depend on the draw, or a provider could refuse unkind draws.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from coin_protocol.draw import Drawn, most_tokens
from coin_protocol.errors import ExposureCapError
from coin_protocol.v1 import profile_pb2, receipt_pb2

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Caps:
    """Greatest numbers of tokens, block embeddings and whole blocks of one commitment.

    Attributes:
        tokens: In blocks opened with their embedding, in token blocks and at the right edge.
        block_embeddings: Blocks whose window embeddings are opened.
        whole_blocks: Blocks opened whole, counted apart.
        total_tokens: Of the commitment.
        total_blocks: Of the commitment.
        run_tokens: Consecutive tokens that are drawn together.
    """

    tokens: int
    block_embeddings: int
    whole_blocks: int
    total_tokens: int
    total_blocks: int
    run_tokens: int = 1

    @classmethod
    def of(cls, caps: profile_pb2.ExposureCaps, *, tokens: int, blocks: int) -> Caps:
        """Return the caps of a commitment of `tokens` in `blocks`, shares rounded down."""
        whole = blocks * caps.whole_blocks_ppm // _MILLION
        return cls(
            tokens=min(tokens, max(caps.min_tokens, tokens * caps.tokens_ppm // _MILLION)),
            block_embeddings=min(
                blocks, max(caps.min_blocks, blocks * caps.blocks_ppm // _MILLION)
            ),
            # Agreed to at all means one block at least: a share of a short reply is none.
            whole_blocks=min(blocks, max(1, whole)) if caps.whole_blocks_ppm else 0,
            total_tokens=tokens,
            total_blocks=blocks,
            run_tokens=max(1, caps.run_tokens),
        )


@dataclass(slots=True)
class ExposureLedger:
    """What was opened of one commitment, over all challenges of all verifiers."""

    tokens: set[tuple[int, int]] = field(default_factory=set)
    block_embeddings: set[int] = field(default_factory=set)
    whole_blocks: set[int] = field(default_factory=set)

    @property
    def edge_cost(self) -> int:
        """Tokens that showing the right edge adds: one, until the first opening showed it."""
        return 0 if self.tokens else 1

    def require(self, caps: Caps, *, blocks: int, token_blocks: int, tokens_per_block: int) -> None:
        """Check that a challenge cannot pass a cap, however its draw falls.

        Raises:
            ExposureCapError: It could.
        """
        blocks = min(blocks, caps.total_blocks)
        drawn = min(blocks + token_blocks, caps.total_blocks)
        tokens = drawn * most_tokens(tokens_per_block, caps.run_tokens) + self.edge_cost
        embeddings = len(self.block_embeddings) + blocks
        _require("tokens", min(len(self.tokens) + tokens, caps.total_tokens), caps.tokens)
        _require("block embeddings", min(embeddings, caps.total_blocks), caps.block_embeddings)

    def require_whole(self, caps: Caps, *, blocks: int) -> None:
        """Check that a whole-block challenge cannot pass its cap.

        Raises:
            ExposureCapError: It could.
        """
        count = len(self.whole_blocks) + min(blocks, caps.total_blocks)
        _require("whole blocks", min(count, caps.total_blocks), caps.whole_blocks)

    def add(self, drawn: Drawn, *, edge: tuple[int, int]) -> None:
        """Enter an answered challenge; `edge` is the place of the last token."""
        self.tokens.add(edge)
        self.block_embeddings.update(block.index for block in drawn.blocks)
        for block in (*drawn.blocks, *drawn.token_blocks):
            self.tokens.update((block.index, position) for position in block.positions)

    def add_whole(self, drawn: Iterable[int]) -> None:
        """Enter an answered whole-block challenge."""
        self.whole_blocks.update(drawn)

    def exposure(self) -> receipt_pb2.Exposure:
        """Return the counts, for a verdict."""
        return receipt_pb2.Exposure(
            tokens=len(self.tokens),
            block_embeddings=len(self.block_embeddings),
            whole_blocks=len(self.whole_blocks),
        )


def affordable(
    ledger: ExposureLedger, caps: Caps, *, blocks: int, token_blocks: int, tokens_per_block: int
) -> tuple[int, int, int]:
    """Return the most up to those asked for that caps still allow, (0, 0, 0) for nothing.

    Embeddings are cut to their own cap. What the cap on tokens lacks is then taken from the
    tokens in each block down to one run, next from the token blocks, last from the run itself:
    embeddings stay worth opening when no token may be opened any more.

    Returns:
        Blocks with embedding, token blocks, tokens per block: what a challenge may ask for.
    """
    blocks = min(blocks, caps.total_blocks)
    if caps.block_embeddings < caps.total_blocks:
        blocks = max(0, min(blocks, caps.block_embeddings - len(ledger.block_embeddings)))
    token_blocks = min(token_blocks, caps.total_blocks - blocks)
    if caps.tokens < caps.total_tokens:
        left = caps.tokens - len(ledger.tokens) - ledger.edge_cost
        if left < 0:
            return 0, 0, 0
        token_blocks, tokens_per_block = _within(
            left, caps.run_tokens, blocks, token_blocks, tokens_per_block
        )
    if tokens_per_block == 0:
        token_blocks = 0
    return (blocks, token_blocks, tokens_per_block) if blocks or token_blocks else (0, 0, 0)


def _within(
    left: int, run_tokens: int, blocks: int, token_blocks: int, tokens_per_block: int
) -> tuple[int, int]:
    """Return (token blocks, tokens per block) that open at most `left` tokens."""
    run = min(run_tokens, tokens_per_block)
    drawn = blocks + token_blocks
    if drawn * most_tokens(tokens_per_block, run_tokens) <= left:
        return token_blocks, tokens_per_block
    each = left // drawn
    if each >= run:
        return token_blocks, each - each % run
    runs = left // run
    if runs > blocks:
        return runs - blocks, run
    return (0, min(run, left // blocks)) if blocks else (1, left)


def _require(what: str, count: int, cap: int) -> None:
    if count > cap:
        msg = f"the challenge could bring the exposed {what} to {count}, past the cap of {cap}"
        raise ExposureCapError(msg)
