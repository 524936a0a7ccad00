"""Sentences of other questions that lie nearest to this session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, zip_longest
from typing import Final

import numpy as np
import numpy.typing as npt

from verifier_sdk.lab.attack import Ids, Material, NotApplicableError, filler
from verifier_sdk.lab.attacks.text import encode, needed, separators
from verifier_sdk.lab.library import sentences

OWN_SENTENCES: Final = 12
"""Of the reasoning, spread over it, whose neighbours are looked up."""

_LOOKED_UP_AT_FIRST: Final = 768
_ALL: Final = 1 << 62


@filler("retrieved_near_answer", family="retrieved")
def retrieved_near_answer(material: Material, rng: np.random.Generator) -> Iterator[Ids]:
    """Sentences of other questions, those nearest to the visible answer first."""
    answer = needed(material.trace.answer, "answer")
    return _retrieved(material, rng, "answer", lambda: [answer])


@filler("retrieved_near_trace", family="retrieved")
def retrieved_near_trace(material: Material, rng: np.random.Generator) -> Iterator[Ids]:
    """Sentences of other questions nearest to sentences of the reasoning, to each in turn."""

    def some() -> Sequence[str]:
        found = sentences(material.trace.reasoning)
        at = np.linspace(0, len(found) - 1, min(OWN_SENTENCES, len(found)))
        return [found[index] for index in at.astype(int).tolist()]

    return _retrieved(material, rng, "reasoning", some)


def _retrieved(
    material: Material, rng: np.random.Generator, name: str, near: Callable[[], Sequence[str]]
) -> Iterator[Ids]:
    """Yield sentences nearest to some texts, each once before any comes twice."""
    library, trace = material.library, material.trace

    def embed() -> npt.NDArray[np.float32]:
        return library.embed(near())

    def find(count: int) -> list[str]:
        vectors = library.kept(trace, f"vectors of {name}", embed)
        return _in_turn(library.nearest_to_each(trace, vectors, -(-count // len(vectors))))

    first = library.kept(trace, f"nearest to {name}", lambda: find(_LOOKED_UP_AT_FIRST))
    if not first:
        msg = "no sentences of any other question: give more traces"
        raise NotApplicableError(msg)
    return _encoded(material, rng, first, lambda: find(_ALL))


def _encoded(
    material: Material,
    rng: np.random.Generator,
    first: Sequence[str],
    every: Callable[[], Sequence[str]],
) -> Iterator[Ids]:
    """Yield sentences with what separates the trace's own ones."""
    between = separators(material)
    lead = between[0]
    for text in _endless(first, every):
        # Line ends are encoded with what they end, spaces with what follows, as in real text.
        separator = between[int(rng.integers(len(between)))]
        line_ends = separator[: separator.rfind("\n") + 1]
        yield encode(material.tokenizer, lead + text + line_ends)
        lead = separator.removeprefix(line_ends)


def _endless(first: Sequence[str], every: Callable[[], Sequence[str]]) -> Iterator[str]:
    """Yield each sentence once before any comes twice."""
    yield from first
    # All of them, in their order, cost more to look up than most attacks need.
    rest = every()
    used = set(first)
    yield from (text for text in rest if text not in used)
    while True:
        yield from rest


def _in_turn(lists: Sequence[Sequence[str]]) -> list[str]:
    """Take one of each list in turn, none twice."""
    return [
        text for text in dict.fromkeys(chain.from_iterable(zip_longest(*lists))) if text is not None
    ]
