"""The coin flip and the draw: known answers from section 6, and that no side is favoured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from hashlib import sha256, shake_256
from itertools import combinations, permutations

import pytest

from coin_protocol import draw
from coin_protocol.errors import VerificationError
from coin_protocol.v1 import opening_pb2

SECRET = bytes(range(32))
STATEMENT, NONCE, FLIP = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32
SEEDS = [sha256(b"seed %d" % number).digest() for number in range(4000)]
"""Fixed, so that no run of these tests differs from another."""


def chi_square(counts: Iterable[int], cells: int, total: int) -> float:
    """Return the statistic of `total` falls over `cells` cells that should be equal."""
    expected = total / cells
    found = list(counts)
    empty = cells - len(found)
    return sum((count - expected) ** 2 / expected for count in found) + empty * expected


def test_a_link_hashes_the_one_before_behind_the_tag() -> None:
    once = sha256(b"\x0ccoin.flip.v1" + SECRET).digest()
    assert draw.flip_link(SECRET, 0) == SECRET
    assert draw.flip_link(SECRET, 1) == once
    assert draw.flip_link(SECRET, 2) == sha256(b"\x0ccoin.flip.v1" + once).digest()


def test_the_anchor_is_the_64th_link_and_challenges_walk_back_from_it() -> None:
    assert draw.flip_anchor(SECRET) == draw.flip_link(SECRET, 64)
    assert draw.flip_for(SECRET, 1) == draw.flip_link(SECRET, 63)
    assert draw.flip_for(SECRET, 64) == SECRET
    for index in range(2, 65):
        assert draw.flip_link(draw.flip_for(SECRET, index), 1) == draw.flip_for(SECRET, index - 1)


@pytest.mark.parametrize("index", [-1, 0, 65])
def test_there_are_64_flips(index: int) -> None:
    with pytest.raises(ValueError, match=rf"\[1, 64\]; found {index}"):
        draw.flip_for(SECRET, index)


@pytest.mark.parametrize("index", [1, 2, 33, 64])
def test_a_flip_verifies_at_its_own_index_only(index: int) -> None:
    anchor, flip = draw.flip_anchor(SECRET), draw.flip_for(SECRET, index)
    draw.verify_flip(flip=flip, index=index, anchor=anchor)
    for other in {1, 2, 33, 64} - {index}:
        with pytest.raises(VerificationError, match="does not lead to the anchor"):
            draw.verify_flip(flip=flip, index=other, anchor=anchor)


@pytest.mark.parametrize("index", [-1, 0, 65, 1 << 64])
def test_a_flip_outside_the_chain_is_refused(index: int) -> None:
    with pytest.raises(VerificationError, match=f"flip {index} with 32 bytes; wanted 1 to 64"):
        draw.verify_flip(flip=SECRET, index=index, anchor=draw.flip_anchor(SECRET))


@pytest.mark.parametrize("flip", [b"", SECRET[:31], SECRET + b"\0"], ids=len)
def test_a_flip_of_another_length_is_refused(flip: bytes) -> None:
    with pytest.raises(VerificationError, match=f"with {len(flip)} bytes"):
        draw.verify_flip(flip=flip, index=1, anchor=draw.flip_link(flip, 1))


def test_the_anchor_itself_is_no_flip() -> None:
    anchor = draw.flip_anchor(SECRET)
    with pytest.raises(VerificationError):
        draw.verify_flip(flip=anchor, index=1, anchor=anchor)


@pytest.mark.parametrize(
    ("number", "as_bytes"),
    [(258, b"\x00\x00\x01\x02"), (2**32 - 1, b"\xff" * 4)],
    ids=["several-bytes", "greatest-of-the-wire"],
)
def test_the_seed_hashes_statement_nonce_flip_and_round_behind_the_tag(
    number: int, as_bytes: bytes
) -> None:
    hashed = STATEMENT + NONCE + FLIP + as_bytes
    found = draw.seed(fingerprints_sha256=STATEMENT, nonce=NONCE, flip=FLIP, round_number=number)
    assert found == sha256(b"\x11coin.challenge.v1" + hashed).digest()
    found = draw.whole_seed(
        fingerprints_sha256=STATEMENT, nonce=NONCE, flip=FLIP, round_number=number
    )
    assert found == sha256(b"\x0dcoin.whole.v1" + hashed).digest()


def test_a_challenge_draws_by_its_own_fields_and_the_flip() -> None:
    challenge = opening_pb2.Challenge(
        fingerprints_sha256=STATEMENT, nonce=NONCE, round=2, blocks=3, tokens_per_block=4
    )
    start = draw.seed(fingerprints_sha256=STATEMENT, nonce=NONCE, flip=FLIP, round_number=2)
    counts = [9, 9, 9, 9, 9, 2]
    wanted = draw.draw(start, counts, blocks=3, tokens_per_block=4)
    assert draw.drawn_by(challenge, FLIP, counts, run_tokens=1) == wanted
    assert draw.drawn_by(challenge, NONCE, counts, run_tokens=1) != wanted
    wanted = draw.draw(start, counts, blocks=3, tokens_per_block=4, token_blocks=2, run_tokens=2)
    challenge.token_blocks = 2
    assert draw.drawn_by(challenge, FLIP, counts, run_tokens=2) == wanted


def test_a_whole_block_challenge_draws_by_its_own_fields_and_the_flip() -> None:
    challenge = opening_pb2.WholeBlockChallenge(
        fingerprints_sha256=STATEMENT, nonce=NONCE, round=2, blocks=3
    )
    start = draw.whole_seed(fingerprints_sha256=STATEMENT, nonce=NONCE, flip=FLIP, round_number=2)
    wanted = draw.draw_whole(start, 40, blocks=3)
    assert draw.drawn_whole_by(challenge, FLIP, 40) == wanted
    assert draw.drawn_whole_by(challenge, NONCE, 40) != wanted


def test_asking_for_more_than_there_is_draws_all_there_is() -> None:
    counts = [3, 1, 2]
    drawn = draw.draw(SEEDS[0], counts, blocks=100, tokens_per_block=100)
    there = {0: (0, 1, 2), 1: (0,), 2: (0, 1)}
    assert {block.index: block.positions for block in drawn.blocks} == there
    drawn = draw.draw(SEEDS[0], counts, blocks=2, tokens_per_block=100, token_blocks=100)
    assert len(drawn.blocks) == 2
    both = (*drawn.blocks, *drawn.token_blocks)
    assert {block.index: block.positions for block in both} == there
    assert sorted(draw.draw_whole(SEEDS[0], 5, blocks=100)) == [0, 1, 2, 3, 4]


def test_asking_for_nothing_or_of_nothing_draws_nothing() -> None:
    nothing = draw.Drawn()
    assert draw.draw(SEEDS[0], [], blocks=2, tokens_per_block=2, token_blocks=2) == nothing
    assert draw.draw(SEEDS[0], [4, 4], blocks=0, tokens_per_block=2) == nothing
    drawn = draw.draw(SEEDS[0], [4], blocks=1, tokens_per_block=0, run_tokens=3)
    assert drawn == draw.Drawn(blocks=(draw.DrawnBlock(0, ()),))
    assert draw.draw_whole(SEEDS[0], 0, blocks=3) == ()


def test_words_past_the_last_whole_multiple_are_thrown_away() -> None:
    # Of 64-bit words a quarter lies past 3 * 2^62: taken modulo, the first third would come
    # twice as often as each of the others.
    bound = 3 << 62
    thirds = Counter(
        draw.draw(seed, [bound], blocks=1, tokens_per_block=1).blocks[0].positions[0] >> 62
        for seed in SEEDS
    )
    assert chi_square(thirds.values(), 3, len(SEEDS)) < 30  # 2 degrees: p < 1e-6


def test_the_draw_reads_the_stream_as_the_protocol_says() -> None:
    # The word of one block is taken even though it can only be that block.
    seed, bound = SEEDS[3], 3 << 62
    raw = shake_256(seed).digest(800)
    words = [int.from_bytes(raw[at : at + 8], "big") for at in range(8, 800, 8)]
    first = next(word for word in words if word < bound)
    drawn = draw.draw(seed, [bound], blocks=1, tokens_per_block=1)
    assert drawn.blocks[0].positions == (first,)


class OfWords:
    """In place of SHAKE-256: a stream of chosen 64-bit words, then of zeros."""

    def __init__(self, *words: int) -> None:
        self.stream = b"".join(word.to_bytes(8, "big") for word in words)

    def digest(self, length: int) -> bytes:
        return self.stream[:length].ljust(length, b"\0")


def test_the_first_word_thrown_away_is_the_last_whole_multiple_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Taken, it would be 0 once more often than any other. No known seed comes to such a word.
    bound = 3 << 62

    def drawn(*words: int) -> tuple[int, ...]:
        # The first word is of the block, which can only be that one.
        monkeypatch.setattr(draw, "shake_256", lambda _: OfWords(0, *words))
        return draw.draw(b"", [bound], blocks=1, tokens_per_block=1).blocks[0].positions

    assert drawn(bound - 1, 7) == (bound - 1,)
    assert drawn(bound, 7) == (7,)


def test_every_ordered_choice_of_blocks_is_as_likely() -> None:
    falls = Counter(
        tuple(block.index for block in (*drawn.blocks, *drawn.token_blocks))
        for drawn in (
            draw.draw(seed, [1] * 5, blocks=1, tokens_per_block=1, token_blocks=2) for seed in SEEDS
        )
    )
    choices = list(permutations(range(5), 3))
    assert set(falls) <= set(choices)
    # 59 degrees of freedom: p < 1e-6.
    assert chi_square(falls.values(), len(choices), len(SEEDS)) < 123


def test_every_choice_of_positions_is_as_likely_in_the_last_block_drawn_too() -> None:
    falls = Counter(
        draw.draw(seed, [6, 6], blocks=2, tokens_per_block=2).blocks[1].positions for seed in SEEDS
    )
    assert chi_square(falls.values(), 15, len(SEEDS)) < 59  # 14 degrees: p < 1e-6


def test_every_choice_of_runs_is_as_likely_in_a_token_block_too() -> None:
    falls = Counter(
        draw.draw(seed, [11, 11], blocks=1, tokens_per_block=4, token_blocks=1, run_tokens=2)
        .token_blocks[0]
        .positions
        for seed in SEEDS
    )
    runs = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10,)]
    assert set(falls) <= {one + other for one, other in combinations(runs, 2)}
    assert chi_square(falls.values(), 15, len(SEEDS)) < 59  # 14 degrees: p < 1e-6


def test_blocks_and_their_positions_are_independent() -> None:
    falls = Counter(
        (block.index, *block.positions)
        for seed in SEEDS
        for block in draw.draw(seed, [4, 4, 4], blocks=1, tokens_per_block=1).blocks
    )
    assert chi_square(falls.values(), 12, len(SEEDS)) < 52  # 11 degrees: p < 1e-6


@pytest.mark.parametrize(
    ("tokens_per_block", "run_tokens", "most"),
    [(0, 4, 0), (1, 4, 1), (3, 4, 3), (4, 4, 4), (7, 4, 4), (8, 4, 8), (7, 1, 7), (0, 1, 0)],
)
def test_tokens_come_in_whole_runs_and_a_run_is_cut_only_where_less_is_asked_for(
    tokens_per_block: int, run_tokens: int, most: int
) -> None:
    assert draw.most_tokens(tokens_per_block, run_tokens) == most
    drawn = draw.draw(
        SEEDS[0], [64], blocks=1, tokens_per_block=tokens_per_block, run_tokens=run_tokens
    )
    assert len(drawn.blocks[0].positions) == most


def test_every_choice_of_whole_blocks_is_as_likely() -> None:
    falls = Counter(draw.draw_whole(seed, 5, blocks=2) for seed in SEEDS)
    assert chi_square(falls.values(), 20, len(SEEDS)) < 66  # 19 degrees: p < 1e-6
