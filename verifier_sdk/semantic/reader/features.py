"""Evidence that can be counted in one whole block, beside what the session says elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from coin_protocol.tokenizer import Tokenizer, noncanonical_tokens
from verifier_sdk.semantic.reader.deflate import compressed_size
from verifier_sdk.semantic.reader.vocabulary import Rows, Vocabulary, checked_ids

FEATURES: Final[dict[str, str]] = {
    "tokens": "ids in the block",
    "noncanonical": "share of its ids that are not the tokenizer's own encoding of its text",
    "distinct": "share of its ids that are distinct",
    "unseen": "share of its ids that are not among the frequent ids of real reasoning",
    "rarity": "mean rarity of its ids, in bits: -log2 of the share of real traces with the id",
    "compressed": "zlib's output over its input, in bytes",
    "sentence_tokens": "mean number of ids in a sentence or line",
    "repeated_8": "share of its runs of 8 ids that stand in the block before",
    "prompt_5": "share of its runs of 5 ids that stand in the prompt",
    "prompt_8": "share of its runs of 8 ids that stand in the prompt",
    "answer_5": "share of its runs of 5 ids that stand in the answer",
    "answer_8": "share of its runs of 8 ids that stand in the answer",
    "others_3": "share of its runs of 3 ids that stand in the other block with most of them",
    "others_5": "share of its runs of 5 ids that stand in other blocks",
    "others_8": "share of its runs of 8 ids that stand in other blocks",
    "shared_prompt": "share of its rare ids that the prompt has too, weighted by rarity",
    "shared_answer": "share of its rare ids that the answer has too, weighted by rarity",
    "shared_others": "share of its rare ids that other blocks have too, weighted by rarity",
    "shared": "share of its rare ids that any of the three has too, weighted by rarity",
}
"""Names of the features, in their order, with what each one is."""

_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
"""Odd, from the golden ratio (Knuth): spreads ids over 64 bits."""

RARE_BITS: Final = 5.0
"""Rarity from which an id counts as rare: in at most one real trace of 32."""


def text_features(
    ids: npt.ArrayLike,
    *,
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    prompt_ids: npt.ArrayLike,
    answer_ids: npt.ArrayLike,
    others: Sequence[npt.ArrayLike],
) -> dict[str, float]:
    """Return the features of a whole block, by the names of `FEATURES`, in that order.

    A share of nothing is 0: a block of three ids has no run of 5, and one of common words
    no rare id.

    Args:
        ids: Token ids of the block, integers (n,).
        tokenizer: The profile's.
        vocabulary: How rare ids are in real reasoning.
        prompt_ids: Token ids of the prompt, integers (m,).
        answer_ids: Token ids of the visible answer, integers (k,); may be empty.
        others: Token ids of the other blocks opened whole, each as `ids`.

    Raises:
        ValueError: Ids are no flat list of integers from 0 to 2^20 - 1.
        InvalidInputError: An id of the block is outside the tokenizer's vocabulary.
    """
    block, prompt, answer = _flat(ids), _flat(prompt_ids), _flat(answer_ids)
    rest = [_flat(other) for other in others]
    if not len(block):
        return dict.fromkeys(FEATURES, 0.0)
    pieces = [tokenizer.token_bytes(token) for token in block.tolist()]
    raw = b"".join(pieces)
    idf = vocabulary.idf(block)
    unseen = vocabulary.rows_of(block) > len(vocabulary.frequent)
    distinct, first = np.unique(block, return_index=True)
    rare = idf[first] >= RARE_BITS
    rare_ids, weights = distinct[rare], idf[first][rare]

    def shared(*texts: Rows) -> float:
        found = _standing(rare_ids, texts)
        return float(weights[found].sum() / weights.sum()) if len(weights) else 0.0

    values = (
        len(block),
        noncanonical_tokens(tokenizer, block.tolist()) / len(block),
        len(distinct) / len(block),
        unseen.mean(),
        idf.mean(),
        compressed_size(raw) / len(raw) if raw else 0.0,
        len(block) / _sentences(pieces),
        _repeated(block, 8),
        _copied(block, [prompt], 5),
        _copied(block, [prompt], 8),
        _copied(block, [answer], 5),
        _copied(block, [answer], 8),
        max((_copied(block, [other], 3) for other in rest), default=0.0),
        _copied(block, rest, 5),
        _copied(block, rest, 8),
        shared(prompt),
        shared(answer),
        shared(*rest),
        shared(prompt, answer, *rest),
    )
    return {name: float(value) for name, value in zip(FEATURES, values, strict=True)}


def _flat(ids: npt.ArrayLike) -> Rows:
    found = checked_ids(ids)
    if found.ndim != 1:
        msg = f"token ids of a text must be a flat list; found shape {found.shape}"
        raise ValueError(msg)
    return found


def _sentences(pieces: Sequence[bytes]) -> int:
    """Count sentences and lines; a text has one at least."""
    ends = 0
    for piece, following in zip(pieces, [*pieces[1:], b" "], strict=True):
        alone, before_space = _ends(piece)
        ends += alone or (before_space and following[:1].isspace())
    return max(ends, 1)


@lru_cache(maxsize=1 << 17)
def _ends(piece: bytes) -> tuple[bool, bool]:
    """Return whether a piece ends a sentence or line by itself, and before white space."""
    text = piece.decode(errors="ignore").rstrip(" ")
    return text.endswith(("\n", "\u3002", "\uff01", "\uff1f")), text.endswith((".", "!", "?"))


def _shingles(ids: Rows, length: int) -> npt.NDArray[np.uint64]:
    """Return a 64-bit hash of each run of `length` ids, uint64 (n - length + 1,)."""
    return _shingled(ids.tobytes(), length)


@lru_cache(maxsize=256)
def _shingled(raw: bytes, length: int) -> npt.NDArray[np.uint64]:
    # Each block is compared with the others of its session, and all of them with its texts.
    ids = np.frombuffer(raw, np.int64).astype(np.uint64)
    count = max(len(ids) - length + 1, 0)
    mixed = np.zeros(count, np.uint64)
    for offset in range(length):
        # Mixed in one after another, so that order matters; arithmetic is mod 2^64.
        mixed = (mixed ^ ids[offset : offset + count]) * _MIX
        mixed ^= mixed >> np.uint64(29)
    mixed.flags.writeable = False
    return mixed


def _repeated(ids: Rows, length: int) -> float:
    found = np.sort(_shingles(ids, length))
    return float(np.mean(np.append(found[1:] == found[:-1], [False]))) if len(found) else 0.0


def _copied(ids: Rows, texts: Sequence[Rows], length: int) -> float:
    found = np.sort(_shingles(ids, length))
    if not len(found):
        return 0.0
    first = np.concatenate([[True], found[1:] != found[:-1]])
    seen = _standing(found[first], [_shingles(text, length) for text in texts])
    return float(seen[np.cumsum(first) - 1].mean())


def _standing(
    values: npt.NDArray[np.generic], texts: Sequence[npt.NDArray[np.generic]]
) -> npt.NDArray[np.bool_]:
    """Return which of some distinct, ascending values stand in any of the texts."""
    seen = np.zeros(len(values), np.bool_)
    if len(values):
        for text in texts:
            place = np.minimum(np.searchsorted(values, text), len(values) - 1)
            seen[place[values[place] == text]] = True
    return seen
