"""The rules that a provider is held to, written down from docs/protocol.md once more.

Slow and plain: what the machines of streams and of exposure expect. Nothing of it is the product's
own code, so that a mistake there cannot hide here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256, shake_256
from typing import Final, NamedTuple, Protocol, TypeVar

from coin_protocol.testing import reference
from coin_protocol.testing.small import small_table
from coin_protocol.v1 import opening_pb2, profile_pb2

Answer = opening_pb2.Opening | opening_pb2.WholeBlockOpening | opening_pb2.Refusal
Challenge = opening_pb2.Challenge | opening_pb2.WholeBlockChallenge

A_contra = TypeVar("A_contra", contravariant=True)
S_co = TypeVar("S_co", covariant=True)

FLIPS: Final = 64
"""Links of a hash chain."""

_MILLION: Final = 1_000_000


class RuleBrokenError(AssertionError):
    """The system under test did what the protocol does not allow."""


class Makes(Protocol[A_contra, S_co]):
    """What makes a system of what it is given: its class, or a function."""

    def __call__(self, given: A_contra, /) -> S_co:
        """Return a new system."""


def require(holds: object, message: str) -> None:
    """Check what must hold of a system.

    Raises:
        RuleBrokenError: It does not.
    """
    if not holds:
        raise RuleBrokenError(message)


# Section 4: what is committed.


def tag(name: str) -> bytes:
    """Return `T(name)`."""
    raw = name.encode("ascii")
    return bytes([len(raw)]) + raw


def token_root(
    session_id: bytes, session_secret: bytes, index: int, token_ids: Sequence[int]
) -> bytes:
    """Return the root over the token leaves of a block, over the small table."""
    salts = shake_256(tag("coin.salt.v1") + session_secret + struct.pack(">I", index)).digest(
        32 + 16 * len(token_ids)
    )
    leaves = []
    for position, token_id in enumerate(token_ids):
        salt = salts[32 + 16 * position : 48 + 16 * position]
        row = small_table().row(token_id)
        fingerprint = sha256(tag("coin.fp.v1") + struct.pack(">I", token_id) + row).digest()
        place = session_id + struct.pack(">II", index, position)
        leaves.append(_leaf_hash(tag("coin.token.v1") + place + salt + fingerprint))
    return reference.root(leaves)


def tree_root(session_id: bytes, blocks: Sequence[tuple[int, bytes]]) -> bytes:
    """Return the token root of blocks, given by the tokens and the token root of each."""
    leaves, first = [], 0
    for index, (count, root) in enumerate(blocks):
        numbers = struct.pack(">IQI", index, first, count)
        leaves.append(_leaf_hash(tag("coin.block.v1") + session_id + numbers + root))
        first += count
    return reference.root(leaves)


def _leaf_hash(data: bytes) -> bytes:
    return sha256(b"\x00" + data).digest()


# Sections 3 and 6: what may be opened, and what is drawn.


def flip_after(flip: bytes, steps: int) -> bytes:
    """Return `H^steps(flip)`."""
    for _ in range(steps):
        flip = sha256(tag("coin.flip.v1") + flip).digest()
    return flip


class Caps(NamedTuple):
    """The most that may ever be opened of a commitment, and all that there is."""

    tokens: int
    embeddings: int
    whole: int
    all_tokens: int
    all_blocks: int


def caps_of(agreed: profile_pb2.ExposureCaps, counts: Sequence[int]) -> Caps:
    """Return the caps of a commitment with so many tokens in each block."""
    tokens, blocks = sum(counts), len(counts)

    def share(of: int, ppm: int, least: int) -> int:
        return min(of, max(least, of * ppm // _MILLION))

    agreed_to_whole = 1 if agreed.whole_blocks_ppm else 0
    return Caps(
        share(tokens, agreed.tokens_ppm, agreed.min_tokens),
        share(blocks, agreed.blocks_ppm, agreed.min_blocks),
        share(blocks, agreed.whole_blocks_ppm, agreed_to_whole),
        tokens,
        blocks,
    )


@dataclass(frozen=True)
class Opened:
    """What an answer opens: positions by block, block by block in the order drawn.

    Attributes:
        blocks: With their embedding.
        token_blocks: Of which tokens alone are opened.
        whole: Opened whole.
        edge: Place of the last token; None where it is not shown.
    """

    blocks: tuple[tuple[int, tuple[int, ...]], ...] = ()
    token_blocks: tuple[tuple[int, tuple[int, ...]], ...] = ()
    whole: tuple[int, ...] = ()
    edge: tuple[int, int] | None = None

    @classmethod
    def shown(cls, answer: opening_pb2.Opening | opening_pb2.WholeBlockOpening) -> Opened:
        """Return what an answer shows."""
        if isinstance(answer, opening_pb2.WholeBlockOpening):
            return cls(whole=tuple(block.block_index for block in answer.blocks))
        edge = answer.edge
        return cls(
            blocks=tuple(_positions(answer.blocks)),
            token_blocks=tuple(_positions(answer.token_blocks)),
            edge=(edge.block_index, edge.last_token.position) if answer.HasField("edge") else None,
        )

    @property
    def tokens(self) -> set[tuple[int, int]]:
        """Places of the tokens that count: all but those of blocks opened whole."""
        blocks = (*self.blocks, *self.token_blocks)
        places = {(index, position) for index, positions in blocks for position in positions}
        return places if self.edge is None else places | {self.edge}


def _positions(
    blocks: Iterable[opening_pb2.BlockOpening | opening_pb2.TokenBlockOpening],
) -> Iterator[tuple[int, tuple[int, ...]]]:
    for block in blocks:
        yield block.block_index, tuple(token.position for token in block.tokens)


def drawn_by(challenge: Challenge, flip: bytes, counts: Sequence[int], run_tokens: int) -> Opened:
    """Return what a challenge draws with a flip."""
    whole = isinstance(challenge, opening_pb2.WholeBlockChallenge)
    head = tag("coin.whole.v1" if whole else "coin.challenge.v1") + challenge.fingerprints_sha256
    seed = sha256(head + challenge.nonce + flip + struct.pack(">I", challenge.round)).digest()
    words = _words(seed)
    if isinstance(challenge, opening_pb2.WholeBlockChallenge):
        return Opened(whole=tuple(_sample(words, len(counts), challenge.blocks)))
    run = min(max(run_tokens, 1), challenge.tokens_per_block)
    drawn = []
    for index in _sample(words, len(counts), challenge.blocks + challenge.token_blocks):
        positions: list[int] = []
        if run:
            count, cells = counts[index], challenge.tokens_per_block // run
            for cell in sorted(_sample(words, -(-count // run), cells)):
                positions += range(cell * run, min(cell * run + run, count))
        drawn.append((index, tuple(positions)))
    return Opened(
        blocks=tuple(drawn[: challenge.blocks]),
        token_blocks=tuple(drawn[challenge.blocks :]),
        edge=(len(counts) - 1, counts[-1] - 1),
    )


def _words(seed: bytes) -> Iterator[int]:
    size = 1024
    at = 0
    while True:
        stream = shake_256(seed).digest(size)
        for start in range(at, size, 8):
            yield int.from_bytes(stream[start : start + 8], "big")
        at, size = size, 2 * size


def _below(words: Iterator[int], bound: int) -> int:
    ceiling = 2**64 // bound * bound
    return next(word for word in words if word < ceiling) % bound


def _sample(words: Iterator[int], population: int, count: int) -> list[int]:
    entries = list(range(population))
    count = min(count, population)
    for at in range(count):
        other = at + _below(words, population - at)
        entries[at], entries[other] = entries[other], entries[at]
    return entries[:count]


@dataclass
class Ledger:
    """What was opened of a commitment, and what may still be.

    Attributes:
        caps: Of the commitment.
        run_tokens: Of the profile.
        tokens: Places of tokens opened.
        embeddings: Blocks whose embedding was opened.
        whole: Blocks opened whole.
    """

    caps: Caps
    run_tokens: int
    tokens: set[tuple[int, int]] = field(default_factory=set)
    embeddings: set[int] = field(default_factory=set)
    whole: set[int] = field(default_factory=set)

    def add(self, opened: Opened) -> None:
        """Enter what an answer opened."""
        self.tokens |= opened.tokens
        self.embeddings |= {index for index, _ in opened.blocks}
        self.whole |= {*opened.whole}

    def could_pass(self, challenge: Challenge) -> bool:
        """Whether a challenge could pass a cap, if nothing that it draws were open already."""
        caps = self.caps
        blocks = min(challenge.blocks, caps.all_blocks)
        if isinstance(challenge, opening_pb2.WholeBlockChallenge):
            return _past(len(self.whole) + blocks, caps.whole, caps.all_blocks)
        per_block, run = challenge.tokens_per_block, max(self.run_tokens, 1)
        most = per_block if per_block < run else per_block // run * run
        drawn = min(challenge.blocks + challenge.token_blocks, caps.all_blocks)
        edge = 0 if self.tokens else 1
        tokens = len(self.tokens) + edge + drawn * most
        return _past(tokens, caps.tokens, caps.all_tokens) or _past(
            len(self.embeddings) + blocks, caps.embeddings, caps.all_blocks
        )

    def require_kept(self) -> None:
        """Check that no cap is passed."""
        for what, count, cap in (
            ("tokens", len(self.tokens), self.caps.tokens),
            ("block embeddings", len(self.embeddings), self.caps.embeddings),
            ("whole blocks", len(self.whole), self.caps.whole),
        ):
            require(count <= cap, f"{count} {what} are open, the cap is {cap}")


def _past(could: int, cap: int, everything: int) -> bool:
    # Where all may be opened no challenge can open more.
    return cap < everything and could > cap


def undated(answer: Answer) -> bytes:
    """Return all that an answer says but its date: what must be the same again."""
    copy = type(answer).FromString(answer.SerializeToString())
    copy.ClearField("provider_time")
    return copy.SerializeToString(deterministic=True)


def draws_something(challenge: Challenge) -> bool:
    """Whether a challenge is well formed in what it asks for."""
    if isinstance(challenge, opening_pb2.WholeBlockChallenge):
        return challenge.blocks > 0
    if challenge.token_blocks:
        return challenge.tokens_per_block > 0
    return challenge.blocks > 0
