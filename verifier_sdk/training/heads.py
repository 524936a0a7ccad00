"""Train the matching heads on pairs from honest sessions, and those for copies and subjects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from coin_protocol.embedding import unit
from coin_protocol.errors import InvalidInputError
from verifier_sdk.lab import Trace
from verifier_sdk.lab.audit import LabSession
from verifier_sdk.semantic.heads import PAIR_HEADS, Heads, pair_inputs
from verifier_sdk.semantic.mlp import Floats
from verifier_sdk.training.copies import copy_examples
from verifier_sdk.training.fit import Recipe, fit
from verifier_sdk.training.workshop import Plan, Progress, Workshop

_HARD = 8
"""Negatives are drawn from so many nearest of other questions, half the time."""

_MOST_SUBJECTS = 16
"""Those with most questions, if there are more domains."""

_TOKENS = (4, 8, 12, 24)
"""Opened tokens of a block that are matched with it."""

PAIRS = Recipe(hidden=(48,), gamma=2.0, steps=2500)
SUBJECTS = Recipe(hidden=(32,), gamma=0.0, steps=1500, noise=0.6)
COPIES = Recipe(hidden=(48,), gamma=0.0, steps=4000, decay=3e-2)


def train_heads(
    workshop: Workshop,
    made: Sequence[tuple[Plan, LabSession]],
    traces: Sequence[Trace],
    *,
    seed: int,
    steps: float = 1.0,
    progress: Progress,
) -> Heads:
    """Train all heads on opened sessions whose embeddings are in the cache.

    Args:
        workshop: That made them.
        made: Honest sessions, of two questions at least.
        traces: Of which copies are made.
        seed: Of pairs, initial weights and order.
        steps: Share of the full training.
        progress: Told what is embedded.

    Raises:
        InvalidInputError: Sessions are too few, or no question has an answer.
    """
    return Heads(
        {
            name: fit(*_pairs(workshop, made, name, seed), recipe=PAIRS.scaled(steps), seed=seed)
            for name in PAIR_HEADS
        },
        fit(
            *copy_examples(workshop, traces, seed=seed, progress=progress),
            recipe=COPIES.scaled(steps),
            seed=seed,
        ),
        fit(*_prompts(workshop, traces), recipe=SUBJECTS.scaled(steps), seed=seed),
    )


def _prompts(workshop: Workshop, traces: Sequence[Trace]) -> tuple[Floats, Floats, Floats]:
    """Return the prompts of questions, which domain each is of, and weights of 1."""
    asked = {trace.qid: trace for trace in reversed(traces)}
    seen = [(workshop.visible(trace).prompt, trace.domain) for _, trace in sorted(asked.items())]
    known = [(prompt, domain) for prompt, domain in seen if prompt is not None]
    if not known:
        msg = "no prompts to tell subjects by: give traces with questions"
        raise InvalidInputError(msg)
    counts = Counter(domain for _, domain in known)
    subjects = sorted(domain for domain, _ in counts.most_common(_MOST_SUBJECTS))
    labels = np.array([[domain == one for one in subjects] for _, domain in known], np.float32)
    rows = np.stack([prompt.embedding for prompt, _ in known]).astype(np.float32)
    return rows, labels, np.ones_like(labels)


def _pairs(
    workshop: Workshop, made: Sequence[tuple[Plan, LabSession]], name: str, seed: int
) -> tuple[Floats, Floats, Floats]:
    """Return inputs of one pair head, labels (n, 1) and weights (n, 1)."""
    rng = np.random.default_rng([seed, *name.encode()])
    sources, blocks, owner = _matched(workshop, made, name, rng)
    if len(np.unique(owner)) < 2:
        msg = f"head {name} needs honest sessions of two questions at least: give more traces"
        raise InvalidInputError(msg)
    first, second, label = [], [], []
    for at in range(len(blocks)):
        mates = np.flatnonzero(owner == owner[at])
        own = at
        if name == "block_to_block":
            apart = mates[mates != at]
            if not len(apart):
                continue
            own = int(rng.choice(apart))
        others = np.flatnonzero(owner != owner[at])
        drawn = rng.choice(others, min(len(others), 512), replace=False)
        hard = drawn[np.argsort(-(blocks[drawn] @ sources[at]))[:_HARD]]
        for other in (int(rng.choice(others)), int(rng.choice(hard))):
            first += [at, at]
            second += [own, other]
            label += [1.0, 0.0]
        if name == "tokens_to_block":
            first.append(at)
            second.append(int(rng.choice(mates)))
            label.append(float(second[-1] == at))
    if not first:
        msg = f"head {name} needs sessions of two blocks at least: give longer traces"
        raise InvalidInputError(msg)
    labels = np.array(label, np.float32)[:, None]
    return pair_inputs(sources[first], blocks[second]), labels, np.ones_like(labels)


def _matched(
    workshop: Workshop,
    made: Sequence[tuple[Plan, LabSession]],
    name: str,
    rng: np.random.Generator,
) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Return what each honest block is matched with, the blocks, and their questions' numbers."""
    left: list[npt.NDArray[np.floating]] = []
    blocks: list[Floats] = []
    owners = []
    numbers: dict[str, int] = {}
    for plan, session in made:
        visible = workshop.visible(plan.trace)
        texts = {"block_to_answer": visible.answer, "block_to_prompt": visible.prompt}
        text = texts.get(name)
        if text is None and name in texts:
            continue
        number = numbers.setdefault(plan.trace.qid, len(numbers))
        for index in opened_blocks(session):
            block = unit(session.block_windows(index).mean(0, keepdims=True))[0]
            block = block.astype(np.float32)
            blocks.append(block)
            owners.append(number)
            if name == "tokens_to_block":
                left.append(_token_mean(session, index, rng))
            else:
                left.append(block if text is None else text.embedding)
    return np.array(left, np.float32), np.array(blocks, np.float32), np.array(owners, np.int64)


def opened_blocks(session: LabSession) -> list[int]:
    """Return the blocks that were opened with their embedding, ascending."""
    return sorted({block.index for drawn in session.drawn for block in drawn.blocks})


def _token_mean(session: LabSession, index: int, rng: np.random.Generator) -> Floats:
    ids = session.block_ids(index)
    runs = max(1, int(rng.choice(_TOKENS)) // 4)
    starts = rng.integers(0, max(1, len(ids) // 4), runs) * 4
    drawn = np.concatenate([ids[start : start + 4] for start in starts.tolist()])
    mean = session.space.rows(drawn).mean(0, keepdims=True)
    result: Floats = unit(mean)[0].astype(np.float32)
    return result
