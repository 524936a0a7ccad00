"""Test vectors of the joint coin flip and of the draw, step by step (section 6).

The draw is written down here a second time, as the protocol's page reads: a plain list is
shuffled where `coin_protocol.draw` keeps a sparse one, and the stream is cut into words at
once. Nothing is computed by the code under test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256, shake_256
from typing import Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol.testing.encoding_vectors import tag, u32
from coin_protocol.testing.vector_documents import (
    Documents,
    accepted,
    by_file,
    flip,
    in_base64,
    made,
    refused,
)
from coin_protocol.v1 import opening_pb2

CHAIN: Final = 64
_ERROR: Final = "VerificationError"
_ANCHORED: Final = made("flip secret", 32)


def flip_link(secret: bytes, steps: int) -> bytes:
    """Return `H^steps(secret)`."""
    for _ in range(steps):
        secret = sha256(tag("coin.flip.v1") + secret).digest()
    return secret


def seed_of(kind: str, statement: bytes, nonce: bytes, flipped: bytes, number: int) -> bytes:
    """Return the seed of a draw, of tag `coin.<kind>.v1`."""
    return sha256(tag(f"coin.{kind}.v1") + statement + nonce + flipped + u32(number)).digest()


@dataclass
class Words:
    """SHAKE-256 of a seed, as 64-bit words."""

    seed: bytes
    read: int = 0
    raw: bytes = field(default=b"", repr=False)

    def below(self, bound: int) -> int:
        """Return the next integer below `bound`."""
        greatest_multiple = 2**64 // bound * bound
        while True:
            self.read += 1
            if 8 * self.read > len(self.raw):
                self.raw = shake_256(self.seed).digest(8 * self.read + 4096)
            word = int.from_bytes(self.raw[8 * self.read - 8 : 8 * self.read], "big")
            if word < greatest_multiple:
                return word % bound

    def sample(self, count: int, population: int) -> list[int]:
        """Return the first entries of a Fisher-Yates shuffle."""
        entries = list(range(population))
        count = min(count, population)
        for at in range(count):
            other = at + self.below(population - at)
            entries[at], entries[other] = entries[other], entries[at]
        return entries[:count]


@dataclass(frozen=True)
class Asked:
    """What a challenge asks for, under a profile's length of runs."""

    counts: Sequence[int]
    blocks: int
    token_blocks: int
    tokens_per_block: int
    run_tokens: int = 1


Place = tuple[int, list[int]]


def drawn(seed: bytes, asked: Asked) -> tuple[list[Place], list[Place]]:
    """Return (block, positions) of blocks with embedding, and of token blocks."""
    words = Words(seed)
    found: list[Place] = []
    for block in words.sample(asked.blocks + asked.token_blocks, len(asked.counts)):
        positions: list[int] = []
        run = min(asked.run_tokens, asked.tokens_per_block)
        if run:
            cells = -(-asked.counts[block] // run)
            for cell in words.sample(asked.tokens_per_block // run, cells):
                end = min((cell + 1) * run, asked.counts[block])
                positions += range(cell * run, end)
        found.append((block, sorted(positions)))
    return found[: asked.blocks], found[asked.blocks :]


def draw_vectors() -> Documents:
    """Return all vectors."""
    return by_file(
        [
            *_chains(),
            *_flips(),
            *_wrong_flips(),
            *_seeds(),
            *_words(),
            *_draws(),
            *_whole_draws(),
            *_by_challenge(),
        ]
    )


def _chains() -> list[dict[str, object]]:
    return [
        accepted(
            f"flip-chain-of-{name}",
            "The first challenge is given the link next to the anchor, the last the secret itself.",
            "flip_chain",
            {"secret": secret},
            {
                "anchor": flip_link(secret, CHAIN),
                "flips": [flip_link(secret, CHAIN - index) for index in range(1, CHAIN + 1)],
            },
            never={
                "in the other order": {
                    "anchor": flip_link(secret, CHAIN),
                    "flips": [flip_link(secret, index) for index in range(CHAIN)],
                }
            },
        )
        for name, secret in (("zeros", bytes(32)), ("a-secret", _ANCHORED))
    ]


def _flips() -> list[dict[str, object]]:
    return [
        accepted(
            f"flip-{index}",
            f"Flip {index} of 64 leads to the anchor in as many steps.",
            "verify_flip",
            _flip(index),
        )
        for index in (1, 2, 32, 63, 64)
    ]


def _flip(index: int) -> dict[str, object]:
    found = flip_link(_ANCHORED, CHAIN - index)
    return {"flip": found, "index": index, "anchor": flip_link(_ANCHORED, CHAIN)}


def _wrong_flips() -> list[dict[str, object]]:
    second = flip_link(_ANCHORED, CHAIN - 2)
    anchor = flip_link(_ANCHORED, CHAIN)
    cases: tuple[tuple[str, str, dict[str, object]], ...] = (
        ("made-up", "The provider picks it after it saw the challenge.", {"flip": made("f", 32)}),
        ("bit-flipped", "One bit is another.", {"flip": flip(second)}),
        ("of-the-next-index", "It leads to the anchor, in other steps.", {"index": 3}),
        ("of-the-index-before", "It leads to the anchor, in other steps.", {"index": 1}),
        ("is-the-anchor", "The anchor is no link.", {"flip": anchor, "index": 1}),
        ("is-the-anchor-in-no-steps", "Indices begin with 1.", {"flip": anchor, "index": 0}),
        (
            "past-the-chain",
            "There is no link 65, even where it leads to the anchor.",
            {"flip": _ANCHORED, "index": 65, "anchor": flip_link(_ANCHORED, 65)},
        ),
        ("index-negative", "Indices begin with 1.", {"index": -1}),
        ("short", "A link has 32 bytes.", {"flip": second[:-1]}),
        ("long", "A link has 32 bytes.", {"flip": second + b"\0"}),
        ("empty", "A link has 32 bytes.", {"flip": b""}),
        (
            "not-of-32-bytes-but-hashed-to-the-anchor",
            "A link has 32 bytes, even where others lead to the anchor.",
            {"flip": b"short", "index": 1, "anchor": flip_link(b"short", 1)},
        ),
        ("of-another-anchor", "The commitment carries another one.", {"anchor": flip(anchor)}),
        (
            "hashed-without-tag",
            "Links are hashed behind their tag.",
            {"flip": second, "index": 1, "anchor": sha256(second).digest()},
        ),
    )
    return [
        refused(f"flip-{name}", about, "verify_flip", _flip(2) | change, _ERROR)
        for name, about, change in cases
    ]


def _seeds() -> list[dict[str, object]]:
    statement, nonce, flipped = made("fingerprints", 32), made("nonce", 32), made("flip", 32)
    found = []
    for kind, number in (("challenge", 1), ("challenge", 64), ("whole", 1), ("whole", 7)):
        other = "whole" if kind == "challenge" else "challenge"
        found.append(
            accepted(
                f"seed-of-{kind}-{number}",
                f"Of round {number}, under the tag coin.{kind}.v1.",
                "seed",
                {
                    "kind": kind,
                    "fingerprints_sha256": statement,
                    "nonce": nonce,
                    "flip": flipped,
                    "round": number,
                },
                {"seed": seed_of(kind, statement, nonce, flipped, number)},
                never={
                    "under the other tag": {
                        "seed": seed_of(other, statement, nonce, flipped, number)
                    },
                    "flip before nonce": {"seed": seed_of(kind, statement, flipped, nonce, number)},
                },
            )
        )
    return found


def _words() -> list[dict[str, object]]:
    half = (1 << 63) + 1
    cases: tuple[tuple[str, str, list[int]], ...] = (
        ("of-one", "Below 1 there is 0 alone, and it takes a word.", [1, 1, 256, 1, 256]),
        ("small", "Small bounds, of which hardly any word is skipped.", [2, 3, 7, 10, 255, 1000]),
        ("past-2-32", "Bounds that need all of a word.", [1 << 32, (1 << 32) + 1, (1 << 53) + 1]),
        ("often-skipped", "Past half of 2^64 nearly every second word is skipped.", [half] * 12),
        ("greatest", "The greatest bounds.", [(1 << 64) - 1, 1 << 63, (1 << 64) - 59]),
        ("many", "Past 32 words, where a stream may be read in pieces.", [5, half, 9] * 30),
        ("very-many", "Past 136 bytes and 256 words.", [97] * 300),
    )
    found = []
    for name, about, bounds in cases:
        seed = made(f"words {name}", 32)
        words, plain = Words(seed), shake_256(seed).digest(8 * len(bounds))
        values = [words.below(bound) for bound in bounds]
        cut = [plain[at : at + 8] for at in range(0, len(plain), 8)]
        wrong = {
            "words in little endian": [
                int.from_bytes(word, "little") % bound
                for word, bound in zip(cut, bounds, strict=True)
            ]
        }
        unskipped = [
            int.from_bytes(word, "big") % bound for word, bound in zip(cut, bounds, strict=True)
        ]
        if unskipped != values:
            wrong["no word skipped"] = unskipped
        found.append(
            accepted(
                f"below-{name}",
                about,
                "below",
                {"seed": seed, "bounds": [str(bound) for bound in bounds]},
                {"values": [str(value) for value in values]},
                never={
                    key: {"values": [str(value) for value in listed]}
                    for key, listed in wrong.items()
                },
            )
        )
    return found


_FULL: Final = [8] * 7 + [1]

_ASKED: Final[tuple[tuple[str, str, Asked], ...]] = (
    ("the-only-token", "One block of one token.", Asked([1], 1, 0, 1)),
    ("one-of-three", "One block, two tokens.", Asked([8, 8, 4], 1, 0, 2)),
    ("two-of-three", "Two blocks, three tokens.", Asked([8, 8, 4], 2, 0, 3)),
    ("all-of-three", "As many blocks as there are.", Asked([8, 8, 4], 3, 0, 8)),
    ("more-than-there-are", "More blocks and tokens than there are.", Asked([8, 8, 4], 9, 9, 9)),
    ("token-blocks", "Blocks of which tokens alone are opened.", Asked([8, 8, 4], 1, 2, 2)),
    ("token-blocks-alone", "No block with embedding.", Asked([8, 8, 4], 0, 2, 2)),
    ("more-token-blocks", "Those with embedding come first.", Asked([8, 8, 4], 2, 7, 1)),
    ("more-blocks-and-token-blocks", "None is left for tokens alone.", Asked([8, 4], 5, 5, 1)),
    ("embeddings-alone", "No position is drawn.", Asked([8, 8, 4], 2, 0, 0)),
    ("of-eight", "Eight blocks, the last of one token.", Asked(_FULL, 4, 0, 3)),
    ("of-seven", "Seven blocks.", Asked([8] * 6 + [5], 3, 2, 4)),
    ("of-nine", "Nine blocks.", Asked([8] * 9, 4, 5, 7)),
    ("of-thirty-three", "33 blocks.", Asked([8] * 32 + [3], 4, 20, 2)),
    ("runs-of-two", "Runs of two.", Asked([8, 8, 4], 2, 1, 4, 2)),
    ("runs-of-three", "Runs of three do not fill blocks of eight.", Asked([8, 8, 4], 3, 0, 6, 3)),
    ("runs-of-three-and-a-rest", "Five tokens hold one run of three.", Asked([8, 8], 1, 1, 5, 3)),
    ("run-cut", "Fewer tokens are asked for than a run has.", Asked([8, 8, 4], 1, 1, 2, 4)),
    ("run-longer-than-a-block", "A run past the block's end.", Asked([8, 3], 2, 0, 8, 8)),
    ("run-of-the-block", "One cell, which is the block.", Asked([4, 4, 4], 1, 2, 4, 4)),
    ("runs-all", "Every cell of every block.", Asked([8, 8, 5], 3, 0, 12, 4)),
    ("runs-and-no-tokens", "Embeddings alone, whatever the run.", Asked([8, 8, 4], 2, 0, 0, 4)),
    ("last-block-short", "A last block of one token has one cell.", Asked([8, 1], 2, 0, 8, 4)),
    ("default", "As in the policy that ships.", Asked([256] * 5 + [131], 4, 2, 8, 4)),
    ("default-of-one", "A short reply under that policy.", Asked([100], 1, 0, 8, 4)),
    ("default-of-many", "A long reply.", Asked([256] * 70 + [17], 4, 64, 8, 4)),
    ("blocks-of-4096", "The largest blocks.", Asked([4096, 4096, 1], 3, 0, 16, 4)),
    ("blocks-of-one", "Blocks of one token.", Asked([1] * 5, 2, 2, 3, 2)),
    ("none", "There is nothing to draw.", Asked([], 3, 3, 3)),
)  # fmt: skip


def _shown(places: Sequence[Place]) -> list[dict[str, object]]:
    return [{"index": block, "positions": positions} for block, positions in places]


def _value(seed: bytes, asked: Asked) -> dict[str, object]:
    blocks, token_blocks = drawn(seed, asked)
    return {"blocks": _shown(blocks), "token_blocks": _shown(token_blocks)}


def _draws() -> list[dict[str, object]]:
    found = []
    for name, about, asked in _ASKED:
        seed = made(f"draw {name}", 32)
        found.append(
            accepted(
                f"draw-{name}",
                about,
                "draw",
                {
                    "seed": seed,
                    "token_counts": list(asked.counts),
                    "blocks": asked.blocks,
                    "token_blocks": asked.token_blocks,
                    "tokens_per_block": asked.tokens_per_block,
                    "run_tokens": asked.run_tokens,
                },
                _value(seed, asked),
            )
        )
    return found


def _whole_draws() -> list[dict[str, object]]:
    found = []
    for count, blocks in (
        (0, 3), (1, 1), (1, 2), (2, 1), (3, 2), (7, 7), (8, 3), (9, 20), (31, 4), (33, 33),
        (1000, 10), (1 << 20, 12),
    ):  # fmt: skip
        seed = made(f"whole {count}", 32)
        found.append(
            accepted(
                f"draw-whole-{blocks}-of-{count}",
                f"{blocks} blocks of {count}, to be opened whole.",
                "draw_whole",
                {"seed": seed, "block_count": count, "blocks": blocks},
                {"blocks": Words(seed).sample(blocks, count)},
            )
        )
    return found


def _by_challenge() -> list[dict[str, object]]:
    """Return draws by whole challenges: seed and draw together."""
    statement, flipped = made("fingerprints", 32), made("flip", 32)
    found = []
    for name, asked, number in (
        ("one-block", Asked([8, 8, 4], 1, 0, 2), 1),
        ("token-blocks-in-runs", Asked(_FULL, 2, 3, 5, 2), 2),
        ("the-last-round", Asked([8, 8, 4], 3, 0, 0), 64),
    ):
        nonce = made(f"nonce {name}", 32)
        message = opening_pb2.Challenge(
            fingerprints_sha256=statement,
            verifier="verifier",
            nonce=nonce,
            round=number,
            blocks=asked.blocks,
            token_blocks=asked.token_blocks,
            tokens_per_block=asked.tokens_per_block,
            deadline=Timestamp(seconds=1_767_268_800),
        )
        found.append(
            accepted(
                f"drawn-by-challenge-{name}",
                "Seed and draw, from a challenge's payload and the flip that it was given.",
                "drawn_by",
                {
                    "challenge": _payload(message),
                    "flip": flipped,
                    "token_counts": list(asked.counts),
                    "run_tokens": asked.run_tokens,
                },
                _value(seed_of("challenge", statement, nonce, flipped, number), asked),
            )
        )
    for count, blocks in ((3, 1), (33, 5)):
        nonce = made(f"nonce {count}", 32)
        whole = opening_pb2.WholeBlockChallenge(
            fingerprints_sha256=statement,
            verifier="verifier",
            nonce=nonce,
            round=1,
            blocks=blocks,
            deadline=Timestamp(seconds=1_767_268_800),
        )
        seed = seed_of("whole", statement, nonce, flipped, 1)
        found.append(
            accepted(
                f"drawn-by-whole-challenge-{blocks}-of-{count}",
                "Seed and draw, from a whole-block challenge's payload and its flip.",
                "drawn_whole_by",
                {"challenge": _payload(whole), "flip": flipped, "block_count": count},
                {"blocks": Words(seed).sample(blocks, count)},
            )
        )
    return found


def _payload(message: Message) -> str:
    return in_base64(message.SerializeToString(deterministic=True))
