"""Test vectors of the exposure caps and of the ledger (sections 3 and 6).

Caps are worked out with fractions, and the ledger as a list of places, both from the page of
the protocol; draws are those of `draw_vectors`. Nothing is computed by the code under test.
What the short ledgers come to is stated by hand besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Final

from coin_protocol.testing.draw_vectors import Asked, Words, drawn
from coin_protocol.testing.vector_documents import Documents, accepted, by_file, made


@dataclass(frozen=True)
class Caps:
    """The caps of a profile."""

    tokens_ppm: int = 500_000
    blocks_ppm: int = 600_000
    min_tokens: int = 4
    min_blocks: int = 1
    whole_blocks_ppm: int = 0
    run_tokens: int = 0

    def given(self) -> dict[str, object]:
        """Return them as a vector has them."""
        return {
            "tokens_ppm": self.tokens_ppm,
            "blocks_ppm": self.blocks_ppm,
            "min_tokens": self.min_tokens,
            "min_blocks": self.min_blocks,
            "whole_blocks_ppm": self.whole_blocks_ppm,
            "run_tokens": self.run_tokens,
        }

    def of(self, tokens: int, blocks: int) -> tuple[int, int, int]:
        """Return the greatest numbers of tokens, block embeddings and whole blocks."""
        whole = 0
        if self.whole_blocks_ppm:
            whole = min(blocks, max(1, _share(blocks, self.whole_blocks_ppm)))
        return (
            min(tokens, max(self.min_tokens, _share(tokens, self.tokens_ppm))),
            min(blocks, max(self.min_blocks, _share(blocks, self.blocks_ppm))),
            whole,
        )


def _share(count: int, ppm: int) -> int:
    return floor(Fraction(count * ppm, 1_000_000))


DEFAULT: Final = Caps(40_000, 400_000, 16, 1, 0, 4)
"""Of the profile that ships."""


@dataclass(frozen=True)
class Ask:
    """A challenge, with what its draw rests on."""

    name: str
    blocks: int
    token_blocks: int = 0
    tokens_per_block: int = 0
    whole: bool = False

    @property
    def seed(self) -> bytes:
        """Of its draw."""
        return made(f"exposure {self.name}", 32)


@dataclass(frozen=True)
class Challenges:
    """Challenges to one commitment, and by hand which of them are answered."""

    name: str
    about: str
    caps: Caps
    counts: Sequence[int]
    asks: Sequence[Ask]
    answered: Sequence[bool]


def exposure_vectors() -> Documents:
    """Return all vectors."""
    return by_file([*_caps(), *map(_ledger, _SEQUENCES)])


def _caps() -> list[dict[str, object]]:
    cases: tuple[tuple[str, str, Caps, int, int], ...] = (
        ("of-nothing", "Nothing may be opened of nothing.", Caps(), 0, 0),
        ("least-above-all", "Not more than there is.", DEFAULT, 5, 1),
        ("least", "A short reply has sixteen tokens open, and one block.", DEFAULT, 100, 1),
        ("least-to-the-share", "16 of 400 tokens is the share itself.", DEFAULT, 400, 2),
        ("share-just-below", "A share is rounded down.", DEFAULT, 424, 2),
        ("share", "4 % of the tokens, 40 % of the blocks.", DEFAULT, 20_000, 79),
        ("of-three-blocks", "40 % of three blocks is one.", DEFAULT, 600, 3),
        ("of-five-blocks", "40 % of five blocks are two.", DEFAULT, 1_100, 5),
        ("largest", "As many tokens as a session has at most.", DEFAULT, 1 << 24, 65_536),
        ("all", "A profile may have all opened.",
         Caps(1_000_000, 1_000_000, 0, 0, 1_000_000), 99, 7),
        ("none", "A profile may have nothing opened.", Caps(0, 0, 0, 0, 0), 99, 7),
        ("whole-one-at-least", "Agreed to at all means one block.",
         Caps(whole_blocks_ppm=1), 20, 3),
        ("whole-share", "A fifth of eleven blocks are two.",
         Caps(whole_blocks_ppm=200_000), 88, 11),
        ("whole-of-no-blocks", "Of no block, none.", Caps(whole_blocks_ppm=200_000), 0, 0),
    )  # fmt: skip
    return [
        accepted(
            f"caps-{name}",
            about,
            "caps",
            {"caps": caps.given(), "tokens": tokens, "blocks": blocks},
            dict(zip(("tokens", "block_embeddings", "whole_blocks"),
                     caps.of(tokens, blocks), strict=True)),
        )
        for name, about, caps, tokens, blocks in cases
    ]  # fmt: skip


_THREE: Final = (8, 8, 4)

# Of `_THREE` with the caps of `Caps()`: 10 tokens and 1 block embedding may be opened.
_SEQUENCES: Final = (
    Challenges("to-the-cap-on-tokens", "3 blocks of 3 tokens and the last one make 10.",
              Caps(blocks_ppm=1_000_000), _THREE, [Ask("a", 3, 0, 3)], [True]),
    Challenges("past-the-cap-on-tokens", "The last token, in every opening, makes it 10, past 9.",
              Caps(blocks_ppm=1_000_000, tokens_ppm=499_999), _THREE,
              [Ask("a", 3, 0, 3)], [False]),
    Challenges("past-the-cap-on-embeddings", "Two embeddings, and one may be opened.",
              Caps(), _THREE, [Ask("a", 2, 0, 1), Ask("b", 1, 0, 1)], [False, True]),
    Challenges("embedding-a-second-time", "It is refused as if its draw were not open already.",
              Caps(), _THREE, [Ask("a", 1, 0, 1), Ask("b", 1, 0, 1)], [True, False]),
    Challenges("token-blocks-cost-no-embedding", "Tokens alone go on after the embedding.",
              Caps(), _THREE, [Ask("a", 1, 0, 1), Ask("b", 0, 1, 2), Ask("c", 0, 2, 2)],
              [True, True, True]),
    Challenges("tokens-a-second-time", "What is open already counts once, what is asked for twice.",
              Caps(blocks_ppm=1_000_000), (8,),
              [Ask("a", 1, 0, 1), Ask("b", 1, 0, 1), Ask("c", 1, 0, 3), Ask("d", 0, 1, 4)],
              [True, True, False, False]),
    Challenges("embeddings-alone", "No token but the last, and that once.",
              Caps(tokens_ppm=0, min_tokens=1, blocks_ppm=1_000_000), _THREE,
              [Ask("a", 3), Ask("b", 3), Ask("c", 1, 0, 1)], [True, True, False]),
    Challenges("no-token-at-all", "Not even the last one.",
              Caps(tokens_ppm=0, min_tokens=0, blocks_ppm=1_000_000), _THREE,
              [Ask("a", 1)], [False]),
    Challenges("all-may-be-opened", "What cannot pass a cap is never refused.",
              Caps(tokens_ppm=1_000_000, blocks_ppm=1_000_000), _THREE,
              [Ask("a", 3, 0, 8), Ask("b", 9, 9, 9), Ask("c", 1, 1, 1)], [True, True, True]),
    Challenges("of-one-token", "There is nothing but the last token.",
              Caps(), (1,), [Ask("a", 1, 0, 1), Ask("b", 1, 0, 9)], [True, True]),
    Challenges("more-blocks-than-there-are", "Asked for are as many as there are.",
              Caps(blocks_ppm=1_000_000), _THREE,
              [Ask("a", 99, 99, 3), Ask("b", 99, 99, 4)], [True, False]),
    Challenges("whole-runs-count", "Five tokens in runs of four are four.",
              Caps(blocks_ppm=1_000_000, tokens_ppm=250_000, run_tokens=4), _THREE,
              [Ask("a", 1, 0, 5)], [True]),
    Challenges("whole-runs-that-do-not-fit", "Eight tokens in runs of four are eight.",
              Caps(blocks_ppm=1_000_000, tokens_ppm=250_000, run_tokens=4), _THREE,
              [Ask("a", 1, 0, 8)], [False]),
    Challenges("runs-of-zero-are-of-one", "A profile's run of 0 means 1.",
              Caps(blocks_ppm=1_000_000, tokens_ppm=250_000), _THREE,
              [Ask("a", 1, 0, 5), Ask("b", 1, 0, 4)], [False, True]),
    Challenges("whole-not-agreed", "No block may be opened whole.",
              Caps(), _THREE, [Ask("a", 1, whole=True)], [False]),
    Challenges("whole-to-the-cap", "One block whole, and not a second one.",
              Caps(whole_blocks_ppm=400_000), _THREE,
              [Ask("a", 1, whole=True), Ask("b", 1, whole=True)], [True, False]),
    Challenges("whole-more-than-the-cap", "Two at once are refused, one is not.",
              Caps(whole_blocks_ppm=400_000), _THREE,
              [Ask("a", 2, whole=True), Ask("b", 1, whole=True)], [False, True]),
    Challenges("whole-counts-apart", "Blocks opened whole cost no token and no embedding.",
              Caps(whole_blocks_ppm=400_000), _THREE,
              [Ask("a", 1, whole=True), Ask("b", 1, 0, 2), Ask("c", 1, whole=True)],
              [True, True, False]),
    Challenges("whole-all", "All blocks may be opened whole, again and again.",
              Caps(whole_blocks_ppm=1_000_000), _THREE,
              [Ask("a", 3, whole=True), Ask("b", 9, whole=True)], [True, True]),
    Challenges("of-the-policy-that-ships", "Its first round of a long reply, and a second.",
              DEFAULT, [256] * 40,
              [Ask("a", 4, 36, 8), Ask("b", 6, 0, 8), Ask("c", 6, 0, 8), Ask("d", 6, 0, 4)],
              [True, True, False, True]),
)  # fmt: skip


def _ledger(sequence: Challenges) -> dict[str, object]:
    caps, counts = sequence.caps, sequence.counts
    most = caps.of(sum(counts), len(counts))
    run = caps.run_tokens or 1
    edge = len(counts) - 1, counts[-1] - 1
    tokens: list[tuple[int, int]] = []
    embeddings: list[int] = []
    whole: list[int] = []
    steps = []
    for ask, answered in zip(sequence.asks, sequence.answered, strict=True):
        blocks = min(ask.blocks, len(counts))
        if ask.whole:
            could = min(len(whole) + blocks, len(counts)) <= most[2]
        else:
            shown = min(blocks + ask.token_blocks, len(counts))
            length = min(run, ask.tokens_per_block)
            each = ask.tokens_per_block // length * length if length else 0
            more = shown * each + (0 if edge in tokens else 1)
            could = min(len(tokens) + more, sum(counts)) <= most[0]
            could = could and min(len(embeddings) + blocks, len(counts)) <= most[1]
        if could != answered:
            msg = f"{sequence.name}: by hand {ask.name} is {answered}"
            raise ValueError(msg)
        if could and ask.whole:
            whole += Words(ask.seed).sample(ask.blocks, len(counts))
        elif could:
            asked = Asked(counts, ask.blocks, ask.token_blocks, ask.tokens_per_block, run)
            with_embedding, alone = drawn(ask.seed, asked)
            tokens.append(edge)
            embeddings += [block for block, _ in with_embedding]
            tokens += [(block, at) for block, places in with_embedding + alone for at in places]
        tokens, embeddings, whole = (
            list(dict.fromkeys(tokens)), list(dict.fromkeys(embeddings)), list(dict.fromkeys(whole))
        )  # fmt: skip
        steps.append(
            {
                "answered": answered,
                "tokens": len(tokens),
                "block_embeddings": len(embeddings),
                "whole_blocks": len(whole),
            }
        )
    given = {
        "caps": caps.given(),
        "token_counts": list(counts),
        "challenges": [_asked(ask) for ask in sequence.asks],
    }
    named = f"ledger-{sequence.name}"
    return accepted(named, sequence.about, "ledger", given, {"steps": steps})


def _asked(ask: Ask) -> dict[str, object]:
    if ask.whole:
        return {"kind": "whole-challenge", "blocks": ask.blocks, "seed": ask.seed}
    return {
        "kind": "challenge",
        "blocks": ask.blocks,
        "token_blocks": ask.token_blocks,
        "tokens_per_block": ask.tokens_per_block,
        "seed": ask.seed,
    }
