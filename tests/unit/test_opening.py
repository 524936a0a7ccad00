"""What an opener shows of a drawn block, with its embedding and without."""

from __future__ import annotations

import pytest

from coin_protocol import merkle
from coin_protocol.draw import DrawnBlock
from coin_protocol.encoding import token_fingerprint, token_leaf
from coin_protocol.testing.forgeries import audit
from coin_protocol.testing.world import Reply

POSITIONS = (0, 1, 6, 7)


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
