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


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a challenge draws, in the order drawn; no block stands in both.

    Attributes:
        blocks: Opened with their embedding and the tokens drawn.
        token_blocks: Of these the tokens drawn are opened, and nothing else.
    """

    blocks: tuple[DrawnBlock, ...] = ()
    token_blocks: tuple[DrawnBlock, ...] = ()


def draw(
    seed: bytes,
    token_counts: Sequence[int],
    *,
    blocks: int,
    tokens_per_block: int,
    token_blocks: int = 0,
    run_tokens: int = 1,
) -> Drawn:
    """Draw blocks uniformly without replacement, then aligned runs of positions in each likewise.

    Asking for more blocks than there are draws all there are, those with embedding first.

    Args:
        seed: 32 bytes of `seed`.
        token_counts: Tokens of each block of the commitment.
        blocks: How many blocks to open with their embedding.
        tokens_per_block: Greatest number of positions in each block.
        token_blocks: How many further blocks to open tokens of alone.
        run_tokens: Consecutive positions that are drawn together, as the profile says.
    """
    stream = _Stream(seed)
    blocks = min(blocks, len(token_counts))
    drawn = [
        DrawnBlock(index, _runs(stream, token_counts[index], tokens_per_block, run_tokens))
        for index in _sample(stream, len(token_counts), blocks + token_blocks)
    ]
    return Drawn(blocks=tuple(drawn[:blocks]), token_blocks=tuple(drawn[blocks:]))


def most_tokens(tokens_per_block: int, run_tokens: int) -> int:
    """Return the most positions that are drawn in one block: whole runs, or one that is cut."""
    run = min(run_tokens, tokens_per_block)
    return tokens_per_block - tokens_per_block % run if run else 0


def draw_whole(seed: bytes, block_count: int, *, blocks: int) -> tuple[int, ...]:
    """Draw the indices of blocks to open whole, uniformly without replacement."""
    return tuple(_sample(_Stream(seed), block_count, blocks))


def drawn_by(
    challenge: opening_pb2.Challenge,
    flip: bytes,
    token_counts: Sequence[int],
    *,
    run_tokens: int,
) -> Drawn:
    """Return what a challenge draws with the flip that it was given.

    `run_tokens` is the profile's: a verifier cannot choose it in order to read more.
    """
    start = seed(
        fingerprints_sha256=challenge.fingerprints_sha256,
        nonce=challenge.nonce,
        flip=flip,
        round_number=challenge.round,
    )
    return draw(
        start,
        token_counts,
        blocks=challenge.blocks,
        tokens_per_block=challenge.tokens_per_block,
        token_blocks=challenge.token_blocks,
        run_tokens=run_tokens,
    )


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


def _runs(stream: _Stream, tokens: int, tokens_per_block: int, run_tokens: int) -> tuple[int, ...]:
    """Return positions of aligned runs, ascending; a run longer than is asked for is cut."""
    run = min(run_tokens, tokens_per_block)
    if run == 0:
        return ()
    cells = sorted(_sample(stream, -(-tokens // run), tokens_per_block // run))
    return tuple(
        position
        for cell in cells
        for position in range(cell * run, cell * run + run)
        if position < tokens
    )
