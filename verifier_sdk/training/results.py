"""What one evaluated session came to: the rows that reports are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from coin_protocol.errors import InvalidInputError
from verifier_sdk.semantic.calibration import TIERS

HONEST: Final = "none"
"""Name of the attack of sessions that were not attacked."""

OUTCOMES: Final = ("FAIL", "INCONCLUSIVE", "PASS")

BLOCK_RANGES: Final = ("1-3", "4-7", "8-15", "16-31", "32+")
"""Ranges of a session's number of blocks."""

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionResult:
    """One session, audited to the end.

    Attributes:
        attack: Name, or `none` for an honest session.
        family: Of the attack as it is placed; nothing is read from it in honest sessions.
        rate: Injected tokens for each original one; 0 for an honest session.
        placement: Of the filler; empty for an honest session.
        block_size: Tokens in a full block.
        tier: `committed` or `opened`.
        domain: Of the trace.
        model: That reasoned.
        blocks: Committed, filler included.
        original_blocks: That the reasoning alone would fill.
        outcome: `PASS`, `FAIL` or `INCONCLUSIVE`.
        p_value: Conformal, in (0, 1]: small where the session looks inflated.
        probability: Calibrated probability of inflation.
        share: True share of injected tokens.
        estimate: Of the inflated share.
        interval: For the inflated share.
        tokens_exposed: Tokens opened, but for those of whole blocks.
        block_embeddings_exposed: Blocks opened with their embedding.
        whole_blocks: Blocks opened whole.
        rounds: Rounds of challenges.
        kinds: What is special about an honest session, such as `loops`.
        overcharge: Injected tokens for each original one, which the provider keeps if it is
            not failed.
    """

    attack: str
    family: str
    rate: float
    placement: str
    block_size: int
    tier: str
    domain: str
    model: str
    blocks: int
    original_blocks: int
    outcome: str
    p_value: float
    probability: float
    share: float
    estimate: float
    interval: tuple[float, float]
    tokens_exposed: int
    block_embeddings_exposed: int
    whole_blocks: int
    rounds: int
    kinds: tuple[str, ...] = ()
    overcharge: float = 0.0

    def __post_init__(self) -> None:
        """Check what sums and tables rest on.

        Raises:
            InvalidInputError: A field is out of its range, or contradicts another.
        """
        shares = (self.probability, self.share, self.estimate, *self.interval)
        counts = (self.tokens_exposed, self.block_embeddings_exposed, self.whole_blocks)
        for good, wanted, found in (
            (self.tier in TIERS, f"a tier of {', '.join(TIERS)}", self.tier),
            (self.outcome in OUTCOMES, f"an outcome of {', '.join(OUTCOMES)}", self.outcome),
            (self.honest == (self.rate == 0), "rate 0 for honest sessions alone", self.rate),
            (0 <= self.rate < math.inf, "a rate from 0", self.rate),
            (self.block_size >= 1, "1 token in a block or more", self.block_size),
            (self.blocks >= 1 <= self.original_blocks, "1 block or more", self.blocks),
            (0 < self.p_value <= 1, "a p-value in (0, 1]", self.p_value),
            (all(0 <= one <= 1 for one in shares), "shares in [0, 1]", shares),
            (min(counts) >= 0 <= self.rounds, "counts from 0", (*counts, self.rounds)),
            (0 <= self.overcharge < math.inf, "an overcharge from 0", self.overcharge),
        ):
            if not good:
                msg = f"a session's result wants {wanted}; found {found!r} ({self.attack})"
                raise InvalidInputError(msg)

    @property
    def honest(self) -> bool:
        """Whether nothing was injected."""
        return self.attack == HONEST

    @property
    def detected(self) -> bool:
        """Whether the audit failed it; an inconclusive session was not detected."""
        return self.outcome == "FAIL"


def block_range(blocks: int) -> str:
    """Return which of `BLOCK_RANGES` a number of blocks, 1 or more, lies in."""
    return BLOCK_RANGES[min(max(blocks.bit_length() - 2, 0), len(BLOCK_RANGES) - 1)]


def grouped(
    results: Iterable[SessionResult], key: Callable[[SessionResult], Key]
) -> dict[Key, list[SessionResult]]:
    """Group sessions by a key, each group in the order given."""
    groups: dict[Key, list[SessionResult]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups
