"""Text that a small language model of the session itself would write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from verifier_sdk.lab.attack import Ids, Material, filler
from verifier_sdk.lab.attacks.text import encode

PHRASE: Final = 16
"""Tokens in one piece."""

MOST_DISCOUNT: Final = 0.6
LEAST_DISCOUNT: Final = 0.1
"""Share of a count that goes to what the shorter context knows; drawn for each filler, from
text that copies long stretches to text that only keeps pairs."""


@filler("ngram_text", family="ngram")
def ngram_text(material: Material, rng: np.random.Generator) -> Iterator[Ids]:
    """Text sampled from a trigram model of the reasoning and the answer, with backoff."""
    answer = encode(material.tokenizer, material.trace.answer)
    return _sample(np.concatenate([material.ids, answer]), rng)


def _sample(ids: Ids, rng: np.random.Generator) -> Iterator[Ids]:
    """Sample with absolute discounting: each seen n-gram gives up some of its first count.

    Drawing one of the places where a context occurs is drawing by count; where the place is
    the first of its n-gram, the discount decides whether the shorter context is asked.
    """
    text = ids.tolist()
    pairs, triples = _places(text, 1), _places(text, 2)
    new_pair, new_triple = _firsts(text, 2), _firsts(text, 3)
    discount = rng.uniform(LEAST_DISCOUNT, MOST_DISCOUNT)
    before, last = -1, text[int(rng.integers(len(text)))]
    while True:
        phrase = []
        draws = rng.random((PHRASE, 5)).tolist()
        for choose, back_off, choose_pair, back_off_pair, choose_any in draws:
            at = -1
            found = triples.get((before, last))
            if found is not None:
                at = found[int(choose * len(found))]
                if back_off < discount and new_triple[at]:
                    at = -1
            if at < 0 and (found := pairs.get((last,))) is not None:
                at = found[int(choose_pair * len(found))]
                if back_off_pair < discount and new_pair[at]:
                    at = -1
            if at < 0:
                at = int(choose_any * len(text))
            before, last = last, text[at]
            phrase.append(last)
        yield np.array(phrase, np.uint32)


def _places(text: list[int], context: int) -> dict[tuple[int, ...], list[int]]:
    """Return where in the text each context's next token stands."""
    found: dict[tuple[int, ...], list[int]] = {}
    runs = zip(*(text[start:] for start in range(context)), strict=False)
    for place, run in enumerate(runs, context):
        if place < len(text):
            found.setdefault(run, []).append(place)
    return found


def _firsts(text: list[int], length: int) -> list[bool]:
    """Return for each place whether the n-gram that ends there ends there first."""
    seen: set[tuple[int, ...]] = set()
    firsts = [True] * len(text)
    runs = zip(*(text[start:] for start in range(length)), strict=False)
    for place, run in enumerate(runs, length - 1):
        firsts[place] = run not in seen
        seen.add(run)
    return firsts
