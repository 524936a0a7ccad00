"""Real tokens to train readers on, and the tables that filler is made from at speed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from coin_protocol.tokenizer import Tokenizer
from verifier_sdk.lab.trace import Trace

Ids = npt.NDArray[np.uint32]
Places = npt.NDArray[np.int64]

_ENDS_ALONE: Final = (b"\n", *(mark.encode() for mark in ("\u3002", "\uff01", "\uff1f")))
"""A line feed, and full stop, exclamation and question mark in full width."""

_SPLITS: Final = 6
_SMALLEST_DOMAIN: Final = 0.06
"""Least share of a domain in what is drawn, however few questions it has."""


class Corpus:
    """All tokens of some traces in one array, with what is needed to draw from them.

    Traces are drawn by domain, then by question, then evenly, so that a question that many
    models answered weighs no more than one that a single model did. A domain's share is
    that of its questions, and 6 % at least.

    Attributes:
        ids: Of all traces, one after the other, uint32 (n,).
        starts: Where each trace starts, and n at the end, int64 (traces + 1,).
        owner: The trace of each place, int64 (n,).
        boundary: Whether a sentence or line starts at a place, bool (n,).
    """

    def __init__(self, traces: Sequence[Trace], ids: Sequence[Ids], tokenizer: Tokenizer) -> None:
        """Lay the traces out.

        Args:
            traces: Real ones.
            ids: Canonical ids of the reasoning of each, uint32 (n,).
            tokenizer: That made them.

        Raises:
            ValueError: No trace has 8 tokens.
        """
        kept = [at for at, one in enumerate(ids) if len(one) >= 8]
        if not kept:
            msg = "no trace with 8 tokens or more to train on"
            raise ValueError(msg)
        self.traces = [traces[at] for at in kept]
        self.ids = np.concatenate([ids[at] for at in kept]).astype(np.uint32)
        self.starts = np.cumsum([0, *(len(ids[at]) for at in kept)])
        self.owner = np.repeat(np.arange(len(kept)), np.diff(self.starts))
        self.tokenizer = tokenizer
        self.vocabulary_size = tokenizer.vocabulary_size
        self.weights = _weights(self.traces)
        self._cumulative = np.cumsum(self.weights)
        self._bytes = [tokenizer.token_bytes(token) for token in range(self.vocabulary_size)]
        self.boundary = self._boundaries()

    def draw_traces(self, count: int, rng: np.random.Generator) -> Places:
        """Draw traces, int64 (count,)."""
        drawn = np.searchsorted(self._cumulative, rng.random(count) * self._cumulative[-1])
        traces: Places = np.minimum(drawn, len(self.traces) - 1)
        return traces

    def draw_places(self, traces: Places, length: int, rng: np.random.Generator) -> Places:
        """Draw in each trace a place that `length` tokens follow, or its start, int64."""
        room = np.maximum(np.diff(self.starts)[traces] - length, 0) + 1
        places: Places = self.starts[traces] + (rng.random(len(traces)) * room).astype(np.int64)
        return places

    def after(self, places: Places, context: int, rng: np.random.Generator) -> Places:
        """Return places that follow another occurrence of the last `context` tokens, 0 to 2.

        One step of an n-gram model of each place's own trace: the token at the place
        returned follows those that end at the place given. Past the end of a trace, and
        without context, it is anywhere.
        """
        owner = self.owner[places]
        if not context:
            return self.draw_places(owner, 1, rng)
        order, first, size = self._contexts[context]
        drawn = (rng.random(len(places)) * size[places]).astype(np.int64)
        chosen: Places = order[first[places] + drawn] + 1
        over = chosen >= self.starts[owner + 1]
        chosen[over] = self.draw_places(owner[over], 1, rng)
        return chosen

    def first_of(self, places: Places, length: int) -> npt.NDArray[np.bool_]:
        """Return whether the `length` tokens (1 to 3) that end at places end there first."""
        order, first, _ = self._contexts[length]
        found: npt.NDArray[np.bool_] = order[first[places]] == places
        return found

    @cached_property
    def _contexts(self) -> dict[int, tuple[Places, Places, Places]]:
        """By context length: places in order of what ends there, each one's first and size."""
        found = {}
        key = self.owner.copy()
        for context in (1, 2, 3):
            back = np.maximum(np.arange(len(self.ids)) - (context - 1), 0)
            key = key * (1 << 20) + self.ids[back]
            order = np.argsort(key, kind="stable")
            ordered = key[order]
            new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
            group = np.cumsum(new) - 1
            key[order] = group
            begin = np.flatnonzero(new)
            size = np.diff(np.append(begin, len(key)))
            found[context] = (order, begin[key], size[key])
        return found

    @cached_property
    def sentences(self) -> tuple[Places, Places, Places]:
        """Starts and ends of all sentences, and the first one's number of each trace."""
        begins = np.flatnonzero(self.boundary)
        first = np.searchsorted(begins, self.starts)
        return begins, np.append(begins[1:], len(self.ids)), first

    @cached_property
    def cuts(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """For each id, up to 6 ways to spell it in two, uint32 (vocabulary, 6, 2); how many."""
        known = {piece: token for token, piece in reversed(list(enumerate(self._bytes)))}
        table = np.zeros((self.vocabulary_size, _SPLITS, 2), np.uint32)
        count = np.zeros(self.vocabulary_size, np.int64)
        for token in np.unique(self.ids).tolist():
            piece = self._bytes[token]
            pairs = [
                (known[piece[:at]], known[piece[at:]])
                for at in range(1, len(piece))
                if piece[:at] in known and piece[at:] in known
            ]
            step = max(1, len(pairs) // _SPLITS)
            pairs = pairs[::step][:_SPLITS]
            count[token] = len(pairs)
            if pairs:
                table[token, : len(pairs)] = pairs
        return table, count

    def starts_after(self, before: Ids, ids: Ids) -> npt.NDArray[np.bool_]:
        """Return whether a sentence or line starts with ids that follow others, bool (n,)."""
        ends, alone, space = self._sentence_ends
        found: npt.NDArray[np.bool_] = alone[before] | (ends[before] & space[ids])
        return found

    @cached_property
    def _sentence_ends(self) -> tuple[npt.NDArray[np.bool_], ...]:
        """Whether an id ends a sentence before a space, or alone; whether it has the space."""
        ends = np.array([piece.endswith((b".", b"!", b"?")) for piece in self._bytes])
        alone = np.array([piece.endswith(_ENDS_ALONE) for piece in self._bytes])
        space = np.array([piece[:1].isspace() for piece in self._bytes])
        return ends, alone, space

    def _boundaries(self) -> npt.NDArray[np.bool_]:
        found = np.concatenate([[True], self.starts_after(self.ids[:-1], self.ids[1:])])
        found[self.starts[:-1]] = True
        return found


def _weights(traces: Sequence[Trace]) -> npt.NDArray[np.float64]:
    questions: dict[tuple[str, str], int] = {}
    for trace in traces:
        key = (trace.domain, trace.qid)
        questions[key] = questions.get(key, 0) + 1
    domains: dict[str, int] = {}
    for domain, _ in questions:
        domains[domain] = domains.get(domain, 0) + 1
    share = {name: max(n / len(questions), _SMALLEST_DOMAIN) for name, n in domains.items()}
    return np.array(
        [
            share[trace.domain] / domains[trace.domain] / questions[trace.domain, trace.qid]
            for trace in traces
        ]
    )
