"""Turn opened evidence into what detectors read: one row a block. Pure but for the readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from coin_protocol.tokenizer import Tokenizer
from verifier_sdk.semantic import exact
from verifier_sdk.semantic.features import BLOCK_FEATURES, block_features, measured_blocks
from verifier_sdk.semantic.heads import UNKNOWN_SUBJECT, Heads
from verifier_sdk.semantic.judge import OpenedEvidence, OpenedTokens
from verifier_sdk.semantic.mlp import Floats
from verifier_sdk.semantic.reader import (
    BLOCK_FAMILIES,
    FEATURES,
    RUN_FAMILIES,
    RUN_TOKENS,
    Readers,
    text_features,
)

_RUN_STATS: Final = (
    *(f"run_{head}_{how}" for head in RUN_FAMILIES for how in ("sum", "max")),
    "runs", "idf", "in_prompt", "in_answer", "in_session", "session_sum",
    "runs_in_prompt", "runs_in_answer", "rare_runs_in_prompt", "rare_runs_in_answer",
)  # fmt: skip

_TWIN_STATS: Final = ("runs", "rarity", "rarest", "aligned")
"""Of the runs opened in other blocks, those that stand in this one: their share, what they
weigh by rarity in all and at most, and how many blocks have two at the same distance."""

TOKEN_COLUMNS: Final = (*_RUN_STATS, "place", "log_blocks")
BLOCK_COLUMNS: Final = (*BLOCK_FEATURES, *_RUN_STATS)
WHOLE_COLUMNS: Final = (
    *BLOCK_FEATURES,
    *(f"read_{head}" for head in BLOCK_FAMILIES),
    *(f"text_{name}" for name in FEATURES),
    *(f"twin_{name}" for name in _TWIN_STATS),
)
"""Names of the columns that each kind of detector reads."""


_SAMPLED: Final = 0.04
"""Share of the ids of a block that may be other than canonical and say nothing: honest models
sample such ids now and then, one in two hundred and more."""

_FENCE: Final = b"```"

_NO_IDS: Final = np.empty(0, np.uint32)

_MOST_VISIBLE: Final = 16_384
"""Tokens of a visible text that are searched for code."""


@dataclass(frozen=True)
class Measured:
    """Rows for the detectors, and the blocks that they are of.

    Attributes:
        block: float32 (b, len(BLOCK_COLUMNS)), blocks opened with their embedding.
        tokens: float32 (t, len(TOKEN_COLUMNS)), blocks of which tokens alone were opened.
        whole: float32 (w, len(WHOLE_COLUMNS)), blocks opened whole.
        block_indices: int64 (b,).
        token_indices: int64 (t,).
        whole_indices: int64 (w,).
        block_size: Tokens in a full block.
        code: Whether prompt or answer has a fenced block of code.
        subject: That the prompt is most like, of `Heads.subject_of`.
    """

    block: Floats
    tokens: Floats
    whole: Floats
    block_indices: npt.NDArray[np.int64]
    token_indices: npt.NDArray[np.int64]
    whole_indices: npt.NDArray[np.int64]
    block_size: int
    code: bool
    subject: int = UNKNOWN_SUBJECT


def measure(
    evidence: OpenedEvidence, heads: Heads, readers: Readers, tokenizer: Tokenizer
) -> Measured:
    """Measure all that was opened."""
    features = block_features(evidence, heads)
    row_of = {index: row for row, index in enumerate(measured_blocks(evidence))}
    opened = [block.opened for block in evidence.blocks]
    both = {block.index for block in opened}
    alone = [tokens for tokens in evidence.token_blocks if tokens.index not in both]
    prompt = evidence.visible.prompt
    runs = _Runs.of([*opened, *alone])
    said = _run_rows([*opened, *alone], runs, evidence, readers)
    block = np.concatenate(
        [features[[row_of[tokens.index] for tokens in opened]], said[: len(opened)]], axis=1
    )
    places = np.array([tokens.index for tokens in alone], np.int64)
    where = np.stack(
        [
            places / max(evidence.total_blocks - 1, 1),
            np.full(len(alone), exact.log2(max(evidence.total_blocks, 1))),
        ],
        axis=1,
    )
    return Measured(
        block=block.astype(np.float32),
        tokens=np.concatenate([said[len(opened) :], where], axis=1).astype(np.float32),
        whole=np.concatenate(
            [
                _whole_rows(evidence, features, row_of, readers, tokenizer),
                _twin_rows(evidence, [*opened, *alone], runs, readers),
            ],
            axis=1,
        ),
        block_indices=np.array([tokens.index for tokens in opened], np.int64),
        token_indices=places,
        whole_indices=np.array([block.index for block in evidence.whole_blocks], np.int64),
        block_size=evidence.block_size,
        code=_holds_code(evidence, tokenizer),
        subject=heads.subject_of(prompt.embedding if prompt is not None else None),
    )


def _run_rows(
    opened: Sequence[OpenedTokens], found: _Runs, evidence: OpenedEvidence, readers: Readers
) -> Floats:
    """Return what opened tokens say, float32 (blocks, len(_RUN_STATS))."""
    if not opened:
        return np.empty((0, len(_RUN_STATS)), np.float32)
    runs, owner = found.ids, found.owner
    logits = readers.runs.read(np.maximum(runs, 0), runs >= 0)
    sums = exact.group_totals(logits, owner, len(opened)).astype(np.float32)
    tops = np.full_like(sums, -8.0)
    np.maximum.at(tops, owner, logits)
    tops[tops == -8.0] = 0.0
    ids = np.concatenate([tokens.ids for tokens in opened])
    block = np.repeat(np.arange(len(opened)), [len(tokens.ids) for tokens in opened])
    idf = readers.vocabulary.idf(ids)
    # Of nothing at all, numpy counts in integers.
    total = np.bincount(block, idf, minlength=len(opened)).astype(np.float64)
    rows = np.zeros((len(opened), len(_RUN_STATS)), np.float32)
    rows[:, 0 : 2 * len(RUN_FAMILIES) : 2] = sums
    rows[:, 1 : 2 * len(RUN_FAMILIES) : 2] = tops
    at = 2 * len(RUN_FAMILIES)
    rows[:, at] = np.bincount(owner, minlength=len(opened))
    counts = np.bincount(block, minlength=len(opened))
    rows[:, at + 1] = total / np.maximum(counts, 1)
    known = (
        *(
            _standing(ids, _NO_IDS if text is None else text.ids)
            for text in (evidence.visible.prompt, evidence.visible.answer)
        ),
        _in_several(ids, block),
    )
    for column, standing in enumerate(known, at + 2):
        part = np.bincount(block[standing], idf[standing], minlength=len(opened))
        rows[:, column] = np.divide(part, total, out=np.zeros_like(total), where=total > 0)
    rows[:, at + 5] = exact.total(logits) / np.sqrt(len(runs)) if len(runs) else 0.0
    full = runs.min(axis=1) >= 0
    rarity = np.where(full, readers.vocabulary.idf(np.maximum(runs, 0)).sum(axis=1), 0.0)
    count = np.bincount(owner[full], minlength=len(opened))
    weight = np.bincount(owner, rarity, minlength=len(opened))
    hashes = _hashed(runs)
    for column, text in enumerate((evidence.visible.prompt, evidence.visible.answer), at + 6):
        if text is not None:
            copied = full & _among(hashes, np.sort(_hashed(_windows_of(text.ids))))
            hits = np.bincount(owner[copied], minlength=len(opened))
            rare = np.bincount(owner[copied], rarity[copied], minlength=len(opened))
            rows[:, column] = hits / np.maximum(count, 1)
            rows[:, column + 2] = rare / np.maximum(weight, 1e-6)
    return rows


def _windows_of(ids: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """Return every run of a text, int64 (n - 3, 4)."""
    if len(ids) < RUN_TOKENS:
        return np.empty((0, RUN_TOKENS), np.int64)
    return np.lib.stride_tricks.sliding_window_view(ids.astype(np.int64), RUN_TOKENS)


def _hashed(runs: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Return a 64-bit hash of each run; a collision among some thousand is out of reach."""
    found = np.zeros(len(runs), np.uint64)
    for column in runs.T.astype(np.uint64):
        found = (found ^ column) * np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(29)
    return found


def _among(
    hashes: npt.NDArray[np.uint64], ordered: npt.NDArray[np.uint64]
) -> npt.NDArray[np.bool_]:
    """Return which hashes are among others that are sorted."""
    if not len(ordered):
        return np.zeros(len(hashes), np.bool_)
    found: npt.NDArray[np.bool_] = (
        hashes == ordered[np.searchsorted(ordered, hashes).clip(max=len(ordered) - 1)]
    )
    return found


def _twin_rows(
    evidence: OpenedEvidence, opened: Sequence[OpenedTokens], opened_runs: _Runs, readers: Readers
) -> Floats:
    """Return what runs opened elsewhere say about whole blocks, float32 (whole, 4)."""
    rows = np.zeros((len(evidence.whole_blocks), len(_TWIN_STATS)), np.float32)
    runs = opened_runs.ids
    if not len(runs) or not len(rows):
        return rows
    index = np.array([tokens.index for tokens in opened])[opened_runs.owner]
    full = runs.min(axis=1) >= 0
    hashes = _hashed(runs)
    rarity = readers.vocabulary.idf(np.maximum(runs, 0)).sum(axis=1)
    for row, block in enumerate(evidence.whole_blocks):
        elsewhere = full & (index != block.index)
        own = _hashed(_windows_of(block.ids))
        order = np.argsort(own, kind="stable")
        at = np.searchsorted(own[order], hashes).clip(0, max(len(own) - 1, 0))
        found = elsewhere & (own[order][at] == hashes) if len(own) else np.zeros_like(elsewhere)
        if not found.any():
            continue
        shift = order[at[found]] - opened_runs.starts[found]
        pairs = np.stack([index[found], shift], axis=1)
        _, counts = np.unique(pairs, axis=0, return_counts=True)
        rows[row] = (
            found.sum() / max(int(elsewhere.sum()), 1),
            rarity[found].sum(),
            rarity[found].max(),
            np.count_nonzero(counts > 1),
        )
    return rows


@dataclass(frozen=True)
class _Runs:
    """Runs of consecutive positions of opened tokens.

    Attributes:
        ids: int64 (n, 4), padded by -1.
        owner: Whose they are, by place in the list of opened blocks, int64 (n,).
        starts: Positions that they begin at, int64 (n,).
    """

    ids: npt.NDArray[np.int64]
    owner: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, opened: Sequence[OpenedTokens]) -> _Runs:
        counts = [len(tokens.ids) for tokens in opened]
        if not sum(counts):
            nothing = np.empty(0, np.int64)
            return cls(np.empty((0, RUN_TOKENS), np.int64), nothing, nothing)
        positions = np.concatenate([tokens.positions for tokens in opened])
        owner = np.repeat(np.arange(len(opened)), counts)
        begins = np.concatenate([[True], positions[1:] != positions[:-1] + 1])
        begins |= positions % RUN_TOKENS == 0
        begins[1:] |= owner[1:] != owner[:-1]
        first = np.flatnonzero(begins)
        run = np.cumsum(begins) - 1
        ids = np.full((len(first), RUN_TOKENS), -1, np.int64)
        ids[run, np.arange(len(run)) - first[run]] = np.concatenate([one.ids for one in opened])
        return cls(ids, owner[first], positions[first])


def _whole_rows(
    evidence: OpenedEvidence, features: Floats, row_of: dict[int, int], readers: Readers,
    tokenizer: Tokenizer,
) -> Floats:  # fmt: skip
    if not evidence.whole_blocks:
        return np.empty((0, len(WHOLE_COLUMNS) - len(_TWIN_STATS)), np.float32)
    blocks = evidence.whole_blocks
    visible = evidence.visible
    prompt = visible.prompt.ids if visible.prompt else _NO_IDS
    answer = visible.answer.ids if visible.answer else _NO_IDS
    texts = np.array(
        [
            list(
                text_features(
                    block.ids,
                    tokenizer=tokenizer,
                    vocabulary=readers.vocabulary,
                    prompt_ids=prompt,
                    answer_ids=answer,
                    others=[other.ids for other in blocks if other is not block],
                ).values()
            )
            for block in blocks
        ]
    )
    noncanonical = list(FEATURES).index("noncanonical")
    texts[:, noncanonical] = np.maximum(texts[:, noncanonical] - _SAMPLED, 0.0)
    read = readers.blocks.read([block.ids for block in blocks])
    own = features[[row_of[block.index] for block in blocks]]
    rows: Floats = np.concatenate([own, read, texts], axis=1).astype(np.float32)
    return rows


def _holds_code(evidence: OpenedEvidence, tokenizer: Tokenizer) -> bool:
    """Return whether the client asked or was answered in code, by what it saw."""
    for text in (evidence.visible.prompt, evidence.visible.answer):
        if text is not None:
            ids = text.ids[:_MOST_VISIBLE]
            for at in np.flatnonzero(_standing(ids, _fence_ids(tokenizer))).tolist():
                near = ids[at : at + len(_FENCE)].tolist()
                if _FENCE in b"".join(map(tokenizer.token_bytes, near)):
                    return True
    return False


@lru_cache(maxsize=4)
def _fence_ids(tokenizer: Tokenizer) -> npt.NDArray[np.uint32]:
    """Return the ids that a fence can begin with: most texts hold none of them."""
    ids = range(tokenizer.vocabulary_size)
    return np.array([one for one in ids if _FENCE[:1] in tokenizer.token_bytes(one)], np.uint32)


def _standing(ids: npt.NDArray[np.uint32], others: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Return which ids are among others; all of them at most `vocabulary.MAX_ID`."""
    # The table is faster than sorting, and no greater than the greatest id.
    return np.isin(ids, others, kind="table") if len(others) else np.zeros(len(ids), np.bool_)


def _in_several(ids: npt.NDArray[np.uint32], block: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which ids were opened in more than one block."""
    pairs = np.unique(ids.astype(np.int64) << 32 | block) >> 32
    everywhere, counts = np.unique(pairs, return_counts=True)
    return np.isin(ids, everywhere[counts > 1].astype(np.uint32))
