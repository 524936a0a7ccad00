"""What an opener shows of a drawn block, with its embedding and without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol import merkle, opening
from coin_protocol.commitment import CommitmentBuilder, SessionSecret
from coin_protocol.draw import DrawnBlock
from coin_protocol.encoding import token_fingerprint, token_leaf, token_leaf_hashes
from coin_protocol.limits import HASH_BYTES
from coin_protocol.opening import NODE_TOKENS, Opener
from coin_protocol.testing.forgeries import audit
from coin_protocol.testing.small import small_table
from coin_protocol.testing.world import Reply

POSITIONS = (0, 1, 6, 7)
AWKWARD = (1, 2, NODE_TOKENS - 1, NODE_TOKENS, NODE_TOKENS + 1, 3 * NODE_TOKENS, 100, 256)


@pytest.fixture(scope="module")
def reply() -> Reply:
    return audit(tokens=24).reply


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_token_block_shows_the_tokens_that_the_whole_opening_shows(
    reply: Reply, index: int
) -> None:
    drawn = DrawnBlock(index, POSITIONS)
    alone, opened = reply.opener.token_block(drawn), reply.opener.block(drawn)
    assert alone.block_index == opened.block_index == index
    assert list(alone.tokens) == list(opened.tokens)
    assert [token.position for token in alone.tokens] == list(POSITIONS)


def test_a_token_block_shows_nothing_else(reply: Reply) -> None:
    shown = reply.opener.token_block(DrawnBlock(1, POSITIONS))
    assert {field.name for field, _ in shown.ListFields()} == {"block_index", "tokens"}
    raw = shown.SerializeToString()
    opened = reply.opener.block(DrawnBlock(1, ()))
    assert opened.block_salt not in raw
    assert not any(window in raw for window in opened.windows)


def test_each_token_stands_on_its_own_against_the_manifest(reply: Reply) -> None:
    entry = reply.opener.tree.entries[1]
    for token in reply.opener.token_block(DrawnBlock(1, POSITIONS)).tokens:
        fingerprint = token_fingerprint(token.token_id, token.row)
        session = reply.opener.session.session_id
        merkle.verify_inclusion(
            leaf_hash=merkle.leaf_hash(
                token_leaf(session, 1, token.position, token.salt, fingerprint)
            ),
            index=token.position,
            size=entry.token_count,
            proof=list(token.proof),
            root=entry.token_root,
        )


def test_a_block_may_be_opened_without_tokens(reply: Reply) -> None:
    opened = reply.opener.block(DrawnBlock(2, ()))
    assert not opened.tokens
    assert opened.windows


def opener(*, tokens: int, block_size: int) -> Opener:
    table, secret = small_table(), SessionSecret(bytes(16), bytes(32))
    builder = CommitmentBuilder(secret, block_size=block_size, fingerprints=table.fingerprints)
    builder.append([7 * at % len(table) for at in range(tokens)])
    tree = builder.finish()
    return Opener(secret, tree, [[b""]] * tree.block_count, block_size, table)


@given(data=st.data(), tokens=st.integers(1, 300), block_size=st.sampled_from(AWKWARD))
def test_kept_nodes_change_nothing_that_is_opened(
    data: st.DataObject, tokens: int, block_size: int
) -> None:
    hashing = opener(tokens=tokens, block_size=block_size)
    counts = hashing.token_counts
    kept = replace(hashing, nodes=[hashing.kept_nodes(index) for index in range(len(counts))])
    assert {len(nodes) for nodes in kept.nodes} <= {
        HASH_BYTES * -(-count // NODE_TOKENS) for count in counts
    }
    index = data.draw(st.integers(0, len(counts) - 1))
    positions = data.draw(st.sets(st.integers(0, counts[index] - 1), max_size=9))
    drawn = DrawnBlock(index, tuple(sorted(positions)))
    assert kept.token_block(drawn) == hashing.token_block(drawn)


@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param(lambda _: b"", id="none"),
        pytest.param(lambda nodes: nodes[:-HASH_BYTES], id="too few"),
        pytest.param(lambda nodes: nodes[:-1], id="cut"),
        pytest.param(lambda nodes: nodes + nodes[:HASH_BYTES], id="too many"),
        pytest.param(lambda nodes: bytes([nodes[0] ^ 1]) + nodes[1:], id="altered"),
        pytest.param(
            lambda nodes: merkle.node_hash(nodes[:32], nodes[32:64]), id="of another level"
        ),
    ],
)
def test_nodes_that_are_not_the_blocks_are_not_used(spoilt: Callable[[bytes], bytes]) -> None:
    hashing = opener(tokens=100, block_size=64)
    kept = [hashing.kept_nodes(index) for index in range(2)]
    drawn = DrawnBlock(1, (0, 35))
    wanted = hashing.token_block(drawn)
    assert replace(hashing, nodes=[kept[0], spoilt(kept[1])]).token_block(drawn) == wanted
    assert replace(hashing, nodes=kept[:1]).token_block(drawn) == wanted


@pytest.mark.parametrize(
    ("tokens", "neighbours"), [(256, [NODE_TOKENS, NODE_TOKENS]), (201, [NODE_TOKENS, 9])]
)
def test_with_nodes_only_neighbours_are_hashed(
    monkeypatch: pytest.MonkeyPatch, tokens: int, neighbours: list[int]
) -> None:
    hashed: list[int] = []

    def counting(*arguments: Any, **named: Any) -> list[bytes]:
        leaves = token_leaf_hashes(*arguments, **named)
        hashed.append(len(leaves))
        return leaves

    plain = opener(tokens=tokens, block_size=256)
    kept = replace(plain, nodes=[plain.kept_nodes(0)])
    monkeypatch.setattr(opening, "token_leaf_hashes", counting)
    kept.token_block(DrawnBlock(0, (0, 1, 2, 3, 200)))
    assert hashed == neighbours
