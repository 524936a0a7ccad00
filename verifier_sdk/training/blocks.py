"""Blocks to train on: real ones, and such that are filler of each family, whole or in part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from coin_protocol.tokenizer import text_of
from verifier_sdk.lab.attacks.edits import edited
from verifier_sdk.lab.attacks.text import fitting
from verifier_sdk.training.corpus import Corpus, Ids, Places
from verifier_sdk.training.filler import finer, ngram_chain

BLOCK: Final = 256
"""Tokens of a block, as in the profile that ships."""

JOINT: Final = 1
INJECTED: Final = 2
"""What a place is: the first token after a joint, a token that was never generated."""

_OTHERS: Final = 0.3
"""Share of the real blocks that are of another style."""

_EXTRA: Final = 160
"""Tokens made in excess, so that a block may begin anywhere in them."""

_LONGEST: Final = 128
"""Tokens after which a sentence is cut: code and tables have none that end."""

Marks = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Piece:
    """Filler on its way into a block: ids, uint32 (n,), and what each place is, uint8 (n,)."""

    ids: Ids
    marks: Marks

    def __getitem__(self, part: slice) -> Piece:
        """Return a part of it."""
        return Piece(self.ids[part], self.marks[part])


@dataclass(frozen=True)
class Blocks:
    """A batch of blocks.

    Attributes:
        ids: uint32 (n, 256).
        marks: What each place is, as flags `JOINT` and `INJECTED`, uint8 (n, 256).
        lengths: How many places hold tokens, int64 (n,).
    """

    ids: npt.NDArray[np.uint32]
    marks: Marks
    lengths: npt.NDArray[np.int64]


class BlockMaker:
    """Makes blocks from a corpus.

    Attributes:
        corpus: Real tokens.
        careful: Share of joints with the space that fits.
        others: Real text of another style, which is as real.
    """

    def __init__(
        self, corpus: Corpus, *, careful: float = 0.8, others: Corpus | None = None
    ) -> None:
        """Take the tokens."""
        self.corpus = corpus
        self.careful = careful
        self.others = others
        domains = sorted({trace.domain for trace in corpus.traces})
        self._domain = np.array([domains.index(trace.domain) for trace in corpus.traces])
        self._in_domain = [np.flatnonzero(self._domain == at) for at in range(len(domains))]
        questions = {trace.qid: number for number, trace in enumerate(corpus.traces)}
        self._question = np.array([questions[trace.qid] for trace in corpus.traces])

    def real(self, count: int, rng: np.random.Generator) -> Blocks:
        """Draw real blocks, some of another style."""
        made = [self._honest(trace, rng) for trace in self.corpus.draw_traces(count, rng).tolist()]
        if self.others is not None:
            some = np.flatnonzero(rng.random(count) < _OTHERS).tolist()
            drawn = self.others.draw_traces(len(some), rng).tolist()
            for at, other in zip(some, drawn, strict=True):
                made[at] = _part(self.others, other, rng, BLOCK)
        return self._packed(made, rng)

    def filler(self, family: str, count: int, rng: np.random.Generator) -> Blocks:
        """Make blocks of a family: three in five of filler alone, others only in part."""
        traces = self.corpus.draw_traces(count, rng)
        made = []
        for trace, stream in zip(traces.tolist(), self._streams(family, traces, rng), strict=True):
            start = int(rng.integers(0, max(1, len(stream.ids) - BLOCK)))
            stream = stream[start : start + BLOCK]  # noqa: PLW2901
            how = rng.random()
            if family in _WHOLE or how < 0.6:
                made.append(stream)
            elif how < 0.8 or family not in _PIECES:
                made.append(self._beside(trace, stream, rng))
            else:
                made.append(self._among(trace, stream, _PIECES[family], rng))
        return self._packed(made, rng)

    def _streams(self, family: str, traces: Places, rng: np.random.Generator) -> list[Piece]:
        if family == "ngram":
            ids, jumps = ngram_chain(self.corpus, traces, BLOCK, rng)
            marks = np.where(jumps, INJECTED | JOINT, INJECTED).astype(np.uint8)
            return [Piece(one, mark) for one, mark in zip(ids, marks, strict=True)]
        return [_STREAMS[family](self, trace, rng) for trace in traces.tolist()]

    def _packed(self, pieces: list[Piece], rng: np.random.Generator) -> Blocks:
        ids = np.zeros((len(pieces), BLOCK), np.uint32)
        marks = np.zeros((len(pieces), BLOCK), np.uint8)
        lengths = np.zeros(len(pieces), np.int64)
        for row, piece in enumerate(pieces):
            size = min(len(piece.ids), BLOCK)
            if rng.random() < 0.05:
                # The last block of a session is rarely full.
                size = min(size, int(rng.integers(16, BLOCK)))
            ids[row, :size] = piece.ids[:size]
            marks[row, :size] = piece.marks[:size]
            lengths[row] = size
        return Blocks(ids, marks, lengths)

    def _honest(self, trace: int, rng: np.random.Generator, length: int = BLOCK) -> Piece:
        return _part(self.corpus, trace, rng, length)

    def _beside(self, trace: int, stream: Piece, rng: np.random.Generator) -> Piece:
        """Put filler before or after real text."""
        cut = int(rng.integers(BLOCK // 4, 3 * BLOCK // 4))
        honest = self._honest(trace, rng, BLOCK - cut)
        return _joined([stream[:cut], honest] if rng.random() < 0.5 else [honest, stream[:cut]])

    def _among(self, trace: int, stream: Piece, size: int, rng: np.random.Generator) -> Piece:
        """Put pieces of filler at random places of real text."""
        rate = rng.choice([0.5, 1.0, 2.0, 3.0])
        wanted = int(BLOCK * rate / (1 + rate))
        honest = self._honest(trace, rng, BLOCK - wanted)
        starts = (
            [*range(0, wanted, size)]
            if size
            else [0, *np.flatnonzero(stream.marks[:wanted] & JOINT).tolist()]
        )
        places = np.sort(rng.integers(0, len(honest.ids) + 1, len(starts))).tolist()
        parts, last = [], 0
        for number, (start, place) in enumerate(zip(starts, places, strict=True)):
            end = starts[number + 1] if number + 1 < len(starts) else wanted
            parts += [honest[last:place], stream[start:end]]
            last = place
        return _joined([*parts, honest[last:]])

    def _random(self, trace: int, rng: np.random.Generator) -> Piece:
        del trace
        return _all(rng.integers(0, self.corpus.vocabulary_size, BLOCK).astype(np.uint32))

    def _bag(self, trace: int, rng: np.random.Generator) -> Piece:
        ids = self.corpus.ids[self.corpus.starts[trace] : self.corpus.starts[trace + 1]]
        return _all(rng.choice(ids, BLOCK))

    def _scattered(self, trace: int, rng: np.random.Generator) -> Piece:
        return self._among(trace, self._bag(trace, rng), 1, rng)

    def _split(self, trace: int, rng: np.random.Generator) -> Piece:
        honest = self._honest(trace, rng)
        ids, old = honest.ids, np.zeros(len(honest.ids), np.bool_)
        share = float(rng.choice([0.15, 0.3, 0.6, 1.0, 1.0]))
        for _ in range(int(rng.integers(1, 4))):
            ids, origin = finer(self.corpus, ids, np.full(len(ids), share), rng)
            twice = np.bincount(origin, minlength=len(old)) > 1
            old = old[origin] | twice[origin]
        return Piece(ids, np.where(old, INJECTED, 0).astype(np.uint8))

    def _shuffled(self, trace: int, rng: np.random.Generator) -> Piece:
        _, _, first = self.corpus.sentences
        own = np.arange(first[trace], first[trace + 1])
        return self._sentences(lambda: [[at] for at in rng.permutation(own).tolist()], rng)

    def _retrieved(self, trace: int, rng: np.random.Generator) -> Piece:
        """Sentences of other questions, mostly of the domain; one of each, or a few in a row."""
        _, _, first = self.corpus.sentences
        others = self._in_domain[self._domain[trace]]
        few = int(rng.choice([1, 1, 1, 2, 4]))

        def some() -> list[list[int]]:
            drawn = np.concatenate([rng.choice(others, 28), rng.integers(0, len(first) - 1, 4)])
            drawn = drawn[self._question[drawn] != self._question[trace]]
            if not len(drawn):
                drawn = np.array([trace])
            room = np.maximum(first[drawn + 1] - first[drawn] - few, 0) + 1
            begin = first[drawn] + (rng.random(len(drawn)) * room).astype(np.int64)
            end = np.minimum(begin + few, first[drawn + 1])
            return [list(range(*edges)) for edges in zip(begin.tolist(), end.tolist(), strict=True)]

        return self._sentences(some, rng)

    def _edited(self, trace: int, rng: np.random.Generator) -> Piece:
        tokenizer = self.corpus.tokenizer
        text = text_of(tokenizer, self._honest(trace, rng).ids.tolist()).strip("\ufffd")
        return _all(np.array(tokenizer.encode(edited(text, rng.uniform(0.1, 0.2), rng)), np.uint32))

    def _sentences(self, draw: Callable[[], list[list[int]]], rng: np.random.Generator) -> Piece:
        """Put sentences one after another; `draw` gives numbers of some, again and again."""
        corpus = self.corpus
        begins, ends, _ = corpus.sentences
        careful = rng.random() < self.careful
        parts: list[Ids] = []
        joints: list[int] = []
        size = 0
        while size < BLOCK + _EXTRA:
            for unbroken in draw():
                joints.append(size)
                for at in unbroken:
                    ids = corpus.ids[begins[at] : min(ends[at], begins[at] + _LONGEST)]
                    if parts and careful:
                        ids = ids.copy()
                        ids[:1] = fitting(corpus.tokenizer, parts[-1][-1:], ids[:1])
                    parts.append(ids)
                    size += len(ids)
                if size >= BLOCK + _EXTRA:
                    break
        marks = np.full(size, INJECTED, np.uint8)
        marks[joints] |= JOINT
        return Piece(np.concatenate(parts), marks)


def _part(corpus: Corpus, trace: int, rng: np.random.Generator, length: int) -> Piece:
    """Return so many tokens of a trace, from anywhere in it."""
    begin, end = corpus.starts[trace], corpus.starts[trace + 1]
    at = int(begin + rng.integers(0, max(1, end - begin - length + 1)))
    ids = corpus.ids[at : min(at + length, end)]
    return Piece(ids, np.zeros(len(ids), np.uint8))


def _all(ids: Ids) -> Piece:
    return Piece(ids, np.full(len(ids), INJECTED, np.uint8))


def _joined(pieces: list[Piece]) -> Piece:
    kept = [piece for piece in pieces if len(piece.ids)]
    marks = []
    for number, piece in enumerate(kept):
        own = piece.marks
        if number:
            own = own.copy()
            own[0] |= JOINT
        marks.append(own)
    return Piece(np.concatenate([piece.ids for piece in kept]), np.concatenate(marks))


_STREAMS: Final[dict[str, Callable[[BlockMaker, int, np.random.Generator], Piece]]] = {
    "random": BlockMaker._random,  # noqa: SLF001
    "bag": BlockMaker._bag,  # noqa: SLF001
    "scattered": BlockMaker._scattered,  # noqa: SLF001
    "split": BlockMaker._split,  # noqa: SLF001
    "shuffled": BlockMaker._shuffled,  # noqa: SLF001
    "retrieved": BlockMaker._retrieved,  # noqa: SLF001
    "edited": BlockMaker._edited,  # noqa: SLF001
}

_WHOLE: Final = ("scattered", "split")
"""Made in place."""

_PIECES: Final = {"random": 1, "ngram": 16, "shuffled": 0, "retrieved": 0}
"""Tokens of a piece scattered in real text; 0: sentences."""
