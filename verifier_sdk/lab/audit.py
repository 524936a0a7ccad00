"""A simulated audit: the protocol's own draw and caps, on a reply that is at hand.

Nothing is hashed or signed here: deterministic checks pass by construction. What is drawn,
and what the caps allow, is decided by the same functions as in a real audit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from coin_protocol.draw import Drawn, draw, draw_whole
from coin_protocol.exposure import Caps, ExposureLedger
from coin_protocol.tokenizer import Tokenizer, text_of
from coin_protocol.v1 import profile_pb2
from verifier_sdk.lab.attack import Attacked, Ids
from verifier_sdk.rounds import affordable_round
from verifier_sdk.semantic.judge import (
    OpenedBlock,
    OpenedEvidence,
    OpenedTokens,
    Visible,
    WholeBlock,
)

WHOLE_BLOCKS: Final = 4
"""Blocks opened whole at the tier `opened`."""


@dataclass(frozen=True)
class Space:
    """How text becomes vectors in one profile.

    Attributes:
        profile: Block size, windows, caps.
        tokenizer: Its tokenizer.
        windows: Unit vectors of window texts in the committed space, float64 (n, d).
        rows: Unit vectors of token ids in that space, float64 (n, d).
    """

    profile: profile_pb2.Profile
    tokenizer: Tokenizer
    windows: Callable[[Sequence[str]], npt.NDArray[np.float64]]
    rows: Callable[[Ids], npt.NDArray[np.float64]]

    def block_texts(self, ids: Ids) -> list[str]:
        """Return the texts of a block's windows."""
        step = self.profile.embedding.window_tokens
        return [
            text_of(self.tokenizer, ids[start : start + step].tolist())
            for start in range(0, len(ids), step)
        ]


@dataclass
class LabSession:
    """One committed reply in the laboratory, honest or not, and what was opened of it.

    Attributes:
        reply: What was committed to.
        space: The profile.
        plan: Of the policy.
        seed: Of the draws.
        whole: Blocks to open whole in round 1.
    """

    reply: Attacked
    space: Space
    plan: profile_pb2.RoundPlan
    seed: bytes
    whole: int = 0
    ledger: ExposureLedger = field(default_factory=ExposureLedger)
    drawn: list[Drawn] = field(default_factory=list)
    drawn_whole: tuple[int, ...] = ()

    @property
    def block_size(self) -> int:
        """Tokens in a full block."""
        return self.space.profile.block_size

    @property
    def total_blocks(self) -> int:
        """Blocks of the commitment."""
        return -(-len(self.reply.ids) // self.block_size)

    @property
    def caps(self) -> Caps:
        """What may be opened, by the profile; whole blocks as this session agrees to."""
        return Caps.of(
            self.space.profile.caps, tokens=len(self.reply.ids), blocks=self.total_blocks
        )

    def open_round(self) -> bool:
        """Draw the next round. False when no round is left or the caps allow no more."""
        number = len(self.drawn) + 1
        if number > self.plan.max_rounds:
            return False
        blocks, token_blocks, tokens = self._affordable(number)
        if not blocks and not token_blocks:
            return False
        size = self.block_size
        counts = [
            min(size, len(self.reply.ids) - start) for start in range(0, len(self.reply.ids), size)
        ]
        found = draw(
            self.seed + bytes([number]),
            counts,
            blocks=blocks,
            tokens_per_block=tokens,
            token_blocks=token_blocks,
            run_tokens=self.caps.run_tokens,
        )
        self.ledger.add(found, edge=(len(counts) - 1, counts[-1] - 1))
        self.drawn.append(found)
        if number == 1 and self.whole:
            self.drawn_whole = draw_whole(self.seed + b"w", len(counts), blocks=self.whole)
            self.ledger.add_whole(self.drawn_whole)
        return True

    def more(self, *, after: int) -> bool:
        """Return whether another round can follow so many."""
        if after < len(self.drawn):
            return True
        return after < self.plan.max_rounds and any(self._affordable(after + 1))

    def texts(self) -> list[str]:
        """Return the texts of all windows opened so far, for embedding many at once."""
        indices = {block.index for drawn in self.drawn for block in drawn.blocks}
        return [
            text
            for index in sorted(indices | set(self.drawn_whole))
            for text in self.space.block_texts(self._embedded(index))
        ]

    def injected_share(self, index: int) -> float:
        """Return the injected share of a block."""
        size = self.block_size
        return float(self.reply.injected[index * size : (index + 1) * size].mean())

    def forgery_opened(self) -> bool:
        """Return whether a block was opened whole whose embedding is of another text."""
        return any(
            not np.array_equal(self.block_ids(index), self._embedded(index))
            for index in self.drawn_whole
        )

    def evidence(self, visible: Visible, *, rounds: int | None = None) -> OpenedEvidence:
        """Return what the first rounds opened, as a judge sees it; all of them by default."""
        seen = self.drawn[:rounds]
        blocks: dict[int, tuple[int, ...]] = {}
        alone: dict[int, tuple[int, ...]] = {}
        for drawn in seen:
            blocks.update((block.index, block.positions) for block in drawn.blocks)
            alone.update((block.index, block.positions) for block in drawn.token_blocks)
        return OpenedEvidence(
            blocks=[self._block(index, blocks[index]) for index in sorted(blocks)],
            visible=visible,
            total_blocks=self.total_blocks,
            block_size=self.block_size,
            token_blocks=[self._tokens(index, alone[index]) for index in sorted(alone)],
            whole_blocks=[
                WholeBlock(
                    index,
                    self.block_ids(index),
                    self.space.windows(self.space.block_texts(self.block_ids(index))),
                )
                for index in sorted(self.drawn_whole)
            ],
            rounds=len(seen),
            last=not self.more(after=len(seen)),
        )

    def _affordable(self, number: int) -> tuple[int, int, int]:
        return affordable_round(
            self.ledger, self.caps, self.plan, number=number, block_size=self.block_size
        )

    def block_windows(self, index: int) -> npt.NDArray[np.float64]:
        """Return the committed window embeddings of a block, float64 (windows, d)."""
        return self.space.windows(self.space.block_texts(self._embedded(index)))

    def block_ids(self, index: int) -> Ids:
        """Return the ids of a block, uint32 (n,)."""
        return self.reply.ids[index * self.block_size : (index + 1) * self.block_size]

    def _embedded(self, index: int) -> Ids:
        return self.reply.embedded[index * self.block_size : (index + 1) * self.block_size]

    def _tokens(self, index: int, positions: tuple[int, ...]) -> OpenedTokens:
        at = np.array(positions, np.int64)
        return OpenedTokens(index, at, self.block_ids(index)[at])

    def _block(self, index: int, positions: tuple[int, ...]) -> OpenedBlock:
        opened = self._tokens(index, positions)
        return OpenedBlock(
            index=index,
            windows=self.block_windows(index),
            opened=opened,
            tokens=self.space.rows(opened.ids),
        )
