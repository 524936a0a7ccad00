"""What an attacker can look up: other traces, their sentences, and the embedding model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import numpy.typing as npt

from coin_protocol.tokenizer import Tokenizer
from verifier_sdk.lab.trace import Trace

if TYPE_CHECKING:
    from verifier_sdk.lab.attack import Material

T = TypeVar("T")
Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Unit vectors of texts, (n, d)."""

Suspicion = Callable[["Material", Sequence[npt.NDArray[np.uint32]]], npt.NDArray[np.float64]]
"""How suspicious a judge finds each of some blocks in a session, (n,)."""

# Full stop, exclamation and question mark, in Latin and in full width; and ends of lines.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n\s*|(?<=[\u3002\uff01\uff1f])")
_LONGEST_SENTENCE = 400
_SENTENCES_PER_TRACE = 24


@dataclass(frozen=True)
class Library:
    """Other traces that filler is taken from.

    Attributes:
        traces: All of them; those of the attacked question are told apart by `qid`.
        tokenizer: The profile's.
        embed: The verifier's own embedding model, which an attacker has too.
        seed: Which sentences of long traces are kept.
        suspicion: The verifier's own judge, for attackers that have it.
    """

    traces: Sequence[Trace]
    tokenizer: Tokenizer
    embed: Embed
    seed: int = 0
    suspicion: Suspicion | None = None
    _ids: dict[Trace, npt.NDArray[np.uint32]] = field(default_factory=dict, repr=False)
    _kept: dict[tuple[Trace, str], object] = field(default_factory=dict, repr=False)

    def ids(self, trace: Trace) -> npt.NDArray[np.uint32]:
        """Return a trace's reasoning as canonical ids, uint32 (n,)."""
        if trace not in self._ids:
            self._ids[trace] = np.array(self.tokenizer.encode(trace.reasoning), np.uint32)
        return self._ids[trace]

    def same_question(self, trace: Trace) -> list[Trace]:
        """Return what other models reasoned on the same question."""
        others = self._by_question.get(trace.qid, [])
        return [other for other in others if other.model != trace.model]

    def other_questions(self, trace: Trace) -> list[Trace]:
        """Return traces of other questions, in order."""
        return [other for other in self.traces if other.qid != trace.qid]

    def nearest_sentences(
        self, trace: Trace, vector: npt.NDArray[np.float32], count: int
    ) -> list[str]:
        """Return the sentences of other questions that are nearest to a vector, best first."""
        return self.nearest_to_each(trace, vector[None], count)[0]

    def nearest_to_each(
        self, trace: Trace, vectors: npt.NDArray[np.float32], count: int
    ) -> list[list[str]]:
        """Return the sentences of other questions nearest to each vector of (n, d), best first.

        Of fewer sentences than asked for, all are returned. A longer list begins with the
        shorter one.
        """
        texts, qids, known = self._sentences
        others = np.flatnonzero(qids != self._question_number.get(trace.qid, -1))
        count = min(count, len(others))
        if count <= 0:
            return [[] for _ in vectors]
        found = []
        for scores in vectors.astype(np.float32) @ known.T:
            own = scores[others]
            # Sorting only what can be in the list is many times faster than sorting all.
            least = np.partition(own, len(own) - count)[len(own) - count]
            able = np.flatnonzero(own >= least)
            best = able[np.argsort(-own[able], kind="stable")][:count]
            found.append([texts[at] for at in others[best].tolist()])
        return found

    def kept(self, trace: Trace, name: str, make: Callable[[], T]) -> T:
        """Return what an attack looked up once for a trace, for every seed, rate and placement.

        `make` is called at the first use of this trace and name.
        """
        if (trace, name) not in self._kept:
            self._kept[trace, name] = make()
        return cast("T", self._kept[trace, name])

    @cached_property
    def _by_question(self) -> dict[str, list[Trace]]:
        found: dict[str, list[Trace]] = {}
        for trace in self.traces:
            found.setdefault(trace.qid, []).append(trace)
        return found

    @cached_property
    def _question_number(self) -> dict[str, int]:
        return {qid: number for number, qid in enumerate(self._by_question)}

    @cached_property
    def _sentences(
        self,
    ) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Some sentences of every question, with the question's number and their vectors."""
        rng = np.random.default_rng([self.seed, 2])
        texts: list[str] = []
        owners: list[int] = []
        for qid, traces in self._by_question.items():
            trace = traces[int(rng.integers(len(traces)))]
            found = sentences(trace.reasoning)
            if len(found) > _SENTENCES_PER_TRACE:
                at = np.sort(rng.choice(len(found), _SENTENCES_PER_TRACE, replace=False))
                found = [found[index] for index in at.tolist()]
            texts += found
            owners += [self._question_number[qid]] * len(found)
        if not texts:
            return texts, np.empty(0, np.int64), np.empty((0, 0), np.float32)
        return texts, np.array(owners), self.embed(texts).astype(np.float32)


def sentences(text: str) -> list[str]:
    """Cut text into sentences and lines, none longer than 400 characters, none empty."""
    found = []
    for part in _SENTENCE_END.split(text):
        for start in range(0, len(part), _LONGEST_SENTENCE):
            piece = part[start : start + _LONGEST_SENTENCE].strip()
            if piece:
                found.append(piece)
    return found
