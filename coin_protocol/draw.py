"""What a challenge opens: the joint coin flip and the draw (protocol, section 6). Pure.

Neither side alone picks: the provider fixed a hash chain before it saw the nonce, and the
verifier picks the nonce before it sees the next link of the chain.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256, shake_256

from coin_protocol.encoding import CHALLENGE_TAG, FLIP_TAG, WHOLE_TAG
from coin_protocol.errors import VerificationError
from coin_protocol.limits import FLIP_CHAIN_LENGTH, HASH_BYTES
from coin_protocol.v1 import opening_pb2


def flip_link(secret: bytes, steps: int) -> bytes:
    """Return `H^steps(secret)` with `H(x) = SHA-256(T("coin.flip.v1") || x)`, 32 bytes."""
    link = secret
    for _ in range(steps):
        link = sha256(FLIP_TAG + link).digest()
    return link


def flip_anchor(secret: bytes) -> bytes:
    """Return the anchor that the commitment carries: the end of the chain, 32 bytes."""
    return flip_link(secret, FLIP_CHAIN_LENGTH)


def flip_for(secret: bytes, index: int) -> bytes:
    """Return the flip of the `index`-th challenge ever answered, counting from 1."""
    if not 1 <= index <= FLIP_CHAIN_LENGTH:
        msg = f"flip index must lie in [1, {FLIP_CHAIN_LENGTH}]; found {index}"
        raise ValueError(msg)
    return flip_link(secret, FLIP_CHAIN_LENGTH - index)


def verify_flip(*, flip: bytes, index: int, anchor: bytes) -> None:
    """Check that `flip` is link `index` of the chain that ends in `anchor`.

    Raises:
        VerificationError: It is not, or index or length are out of range.
    """
    if not 1 <= index <= FLIP_CHAIN_LENGTH or len(flip) != HASH_BYTES:
        msg = f"flip {index} with {len(flip)} bytes; wanted 1 to {FLIP_CHAIN_LENGTH} with 32"
        raise VerificationError(msg)
    if flip_link(flip, index) != anchor:
        msg = f"flip {index} does not lead to the anchor that the commitment carries"
        raise VerificationError(msg)


def seed(*, fingerprints_sha256: bytes, nonce: bytes, flip: bytes, round_number: int) -> bytes:
    """Return the 32-byte seed of a challenge's draw."""
    return _seed(CHALLENGE_TAG, fingerprints_sha256, nonce, flip, round_number)


def whole_seed(
    *, fingerprints_sha256: bytes, nonce: bytes, flip: bytes, round_number: int
) -> bytes:
    """Return the 32-byte seed of a whole-block challenge's draw."""
    return _seed(WHOLE_TAG, fingerprints_sha256, nonce, flip, round_number)


def _seed(domain: bytes, statement: bytes, nonce: bytes, flip: bytes, number: int) -> bytes:
    return sha256(domain + statement + nonce + flip + struct.pack(">I", number)).digest()


@dataclass(frozen=True, slots=True)
class DrawnBlock:
    """A drawn block and the positions drawn in it, both from 0, positions ascending."""

    index: int
    positions: tuple[int, ...]


def draw(
    seed: bytes, token_counts: Sequence[int], *, blocks: int, tokens_per_block: int
) -> tuple[DrawnBlock, ...]:
    """Draw blocks uniformly without replacement, then positions in each likewise.

    Asking for more than there is draws all there is. Blocks come in the order drawn.

    Args:
        seed: 32 bytes of `seed`.
        token_counts: Tokens of each block of the commitment.
        blocks: How many blocks.
        tokens_per_block: How many positions in each.
    """
    stream = _Stream(seed)
    drawn = _sample(stream, len(token_counts), blocks)
    return tuple(
        DrawnBlock(block, tuple(sorted(_sample(stream, token_counts[block], tokens_per_block))))
        for block in drawn
    )


def draw_whole(seed: bytes, block_count: int, *, blocks: int) -> tuple[int, ...]:
    """Draw the indices of blocks to open whole, uniformly without replacement."""
    return tuple(_sample(_Stream(seed), block_count, blocks))


def drawn_by(
    challenge: opening_pb2.Challenge, flip: bytes, token_counts: Sequence[int]
) -> tuple[DrawnBlock, ...]:
    """Return what a challenge draws with the flip that it was given."""
    start = seed(
        fingerprints_sha256=challenge.fingerprints_sha256,
        nonce=challenge.nonce,
        flip=flip,
        round_number=challenge.round,
    )
    blocks, tokens = challenge.blocks, challenge.tokens_per_block
    return draw(start, token_counts, blocks=blocks, tokens_per_block=tokens)


def drawn_whole_by(
    challenge: opening_pb2.WholeBlockChallenge, flip: bytes, block_count: int
) -> tuple[int, ...]:
    """Return the blocks that a whole-block challenge draws with the flip it was given."""
    start = whole_seed(
        fingerprints_sha256=challenge.fingerprints_sha256,
        nonce=challenge.nonce,
        flip=flip,
        round_number=challenge.round,
    )
    return draw_whole(start, block_count, blocks=challenge.blocks)


class _Stream:
    """SHAKE-256 of a seed, read as uniform integers."""

    def __init__(self, seed: bytes) -> None:
        self._shake = shake_256(seed)
        self._bytes = b""
        self._at = 0

    def below(self, bound: int) -> int:
        """Return a uniform integer in [0, bound), by rejection of 64-bit words."""
        ceiling = (1 << 64) - (1 << 64) % bound
        while True:
            if self._at + 8 > len(self._bytes):
                # hashlib gives a prefix of the stream at each call, so take twice as much.
                self._bytes = self._shake.digest(max(256, 2 * len(self._bytes)))
            word = int.from_bytes(self._bytes[self._at : self._at + 8], "big")
            self._at += 8
            if word < ceiling:
                return word % bound


def _sample(stream: _Stream, population: int, count: int) -> list[int]:
    """Return `min(count, population)` distinct integers: Fisher-Yates on a sparse array."""
    moved: dict[int, int] = {}
    sample = []
    for at in range(min(count, population)):
        pick = at + stream.below(population - at)
        sample.append(moved.get(pick, pick))
        moved[pick] = moved.get(at, at)
    return sample
