"""What judging one opened session costs, embeddings in hand, on one core.

python -m benchmarks.judge_speed

A session of 40 blocks with the shipped policy: 16 blocks opened with their embedding, tokens of
the others; and the same with four blocks opened whole, for which the answer is read too. Before
anybody is accused of other real text, the answer is read at either tier: `accused`. Embeddings are
random: the rest of the time does not depend on them. Tokens are those of a sample trace: where an
answer does not read like text, blocks are not read whole.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits

from benchmarks._common import least_seconds, report, skip
from coin_protocol.cli.common import quiet_models
from coin_protocol.embedding import Vectors, unit
from coin_protocol.errors import ConfigurationError
from coin_protocol.models import Models
from coin_protocol.profile import Policy, Profile
from provider_sdk.replay import shipped_traces
from verifier_sdk.semantic import (
    OpenedBlock,
    OpenedEvidence,
    OpenedTokens,
    Visible,
    VisibleText,
    WholeBlock,
)
from verifier_sdk.semantic.learned import LearnedJudge, _reading_of
from verifier_sdk.semantic.model_file import ModelFile

Ids = npt.NDArray[np.uint32]

_BLOCKS: Final = 40
_OPENED: Final = 16
_WHOLE: Final = 4
_TRACE: Final = "logic-01"
"""Sample trace whose answer is of a style that the judge knows."""

_LIMIT: Final = 5.0


def main() -> None:
    """Time the judge on both kinds of evidence."""
    quiet_models()
    # Whatever multiplies matrices: the clock is this thread's.
    torch.set_num_threads(1)
    with threadpool_limits(1):
        _measure()


def _measure() -> None:
    profile = Profile.shipped("default")
    try:
        tokenizer = Models(profile).tokenizer
    except ConfigurationError as error:
        skip("judge_speed", f"{error}")
        return
    judge = LearnedJudge.load(
        ModelFile.shipped(), profile, tokenizer, Policy.shipped().message.learned_rules
    )
    trace = next(trace for trace in shipped_traces() if trace.id == _TRACE)
    text, prompt, answer = (
        np.array(tokenizer.encode(part), np.uint32)
        for part in (trace.reasoning, trace.question, trace.answer)
    )
    for name, whole in (("committed", 0), ("opened", _WHOLE)):
        seen = evidence(text, (prompt, answer), judge.heads.dimension, whole)
        found = judge.assess(seen)
        if found.tier != name:
            msg = f"wanted evidence of the tier {name}; the judge took it for {found.tier}"
            raise RuntimeError(msg)
        assess, accuse = least_seconds(
            partial(_afresh, judge.assess, seen), partial(_afresh, judge.judge, seen)
        )
        report(f"judge_speed.{name}", 1e3 * assess, unit="ms", better="lower", limit=_LIMIT)
        report(f"judge_speed.{name}.accused", 1e3 * accuse, unit="ms", better="lower", limit=_LIMIT)


def _afresh(judged: Callable[[OpenedEvidence], object], seen: OpenedEvidence) -> None:
    """Judge as in the first round, when the answer was not read yet."""
    _reading_of.cache_clear()
    judged(seen)


def evidence(text: Ids, shown: tuple[Ids, Ids], dimension: int, whole: int) -> OpenedEvidence:
    """Return evidence of the usual size, with random embeddings.

    Args:
        text: Of the reasoning.
        shown: Of prompt and answer.
        dimension: Of embeddings.
        whole: How many blocks are opened whole.
    """
    rng = np.random.default_rng(3)

    def vectors(count: int) -> Vectors:
        return unit(rng.normal(size=(count, dimension)))

    def ids(count: int) -> Ids:
        start = int(rng.integers(0, len(text) - count))
        return text[start : start + count]

    def tokens(index: int) -> OpenedTokens:
        at = np.concatenate([np.arange(4) + 4 * cell for cell in (index % 32, 40)])
        return OpenedTokens(index, at.astype(np.int64), ids(8))

    prompt, answer = (VisibleText(found, vectors(-(-len(found) // 64))) for found in shown)
    return OpenedEvidence(
        [OpenedBlock(at, vectors(4), tokens(at), vectors(8)) for at in range(_OPENED)],
        Visible(prompt, answer),
        total_blocks=_BLOCKS,
        block_size=256,
        token_blocks=[tokens(at) for at in range(_OPENED, _BLOCKS)],
        whole_blocks=[WholeBlock(at, ids(256), vectors(4)) for at in range(0, 4 * whole, 4)],
    )


if __name__ == "__main__":
    main()
