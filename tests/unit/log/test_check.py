"""Hashing a log again finds whatever was changed in its database."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, delete, insert, update

from coin_protocol.checkpoint import Checkpoint, sign_checkpoint
from coin_protocol.database.engine import writing
from coin_protocol.merkle import leaf_hash
from coin_protocol.note import NoteSigner
from coin_protocol.signer import KeySigner
from tests.support.log_entries import ORIGIN, House, commitment, leaves
from verifier_sdk.log import Checked, LogDamagedError, check_log
from verifier_sdk.log.tables import ENTRY, HEAD, SUBTREE

OTHER = commitment(10**6).to_bytes()


def test_a_whole_log_is_whole(house: House) -> None:
    keys = [house.signer.verifier]
    assert check_log(house.engine, keys, ORIGIN) == Checked(0, 0)
    house.sequencer().run_once()
    for count in (255, 1, 300):
        house.append(count)
    house.say(leaves(5000, 5010))
    assert check_log(house.engine, keys, ORIGIN) == Checked(556, 4)
    sequencer = house.sequencer()
    sequencer._sequence()
    assert check_log(house.engine, keys, ORIGIN) == Checked(566, 4)


def _change_data(connection: Connection) -> None:
    connection.execute(update(ENTRY).where(ENTRY.c.leaf_index == 4).values(data=OTHER))


def _change_entry(connection: Connection) -> None:
    changed = {"data": OTHER, "leaf_hash": leaf_hash(OTHER)}
    connection.execute(update(ENTRY).where(ENTRY.c.leaf_index == 4).values(**changed))


def _change_edge(connection: Connection) -> None:
    changed = {"data": OTHER, "leaf_hash": leaf_hash(OTHER)}
    connection.execute(update(ENTRY).where(ENTRY.c.leaf_index == 290).values(**changed))


def _drop_entry(connection: Connection) -> None:
    connection.execute(delete(ENTRY).where(ENTRY.c.leaf_index == 4))


def _drop_end(connection: Connection) -> None:
    connection.execute(delete(ENTRY).where(ENTRY.c.leaf_index > 290))


def _drop_subtree(connection: Connection) -> None:
    connection.execute(delete(SUBTREE))


def _change_subtree(connection: Connection) -> None:
    connection.execute(update(SUBTREE).values(root=bytes(32)))


def _add_subtree(connection: Connection) -> None:
    connection.execute(insert(SUBTREE).values(level=1, subtree_index=1, root=bytes(32)))


def _change_root(connection: Connection) -> None:
    connection.execute(update(HEAD).where(HEAD.c.size == 300).values(root=bytes(32)))


def _change_note(connection: Connection) -> None:
    signer = NoteSigner(KeySigner.generate(ORIGIN))
    note = sign_checkpoint(Checkpoint(ORIGIN, 300, bytes(32)), [signer])
    connection.execute(update(HEAD).where(HEAD.c.size == 300).values(note=note))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_change_data, "entry 4 hashes to"),
        (_change_entry, "subtree 0 of level 1 has root"),
        (_change_edge, "the head of 300 entries is signed with root"),
        (_drop_entry, "entry 4 is missing; the next one is 5"),
        (_drop_end, "a head of 300 entries was signed, and the tree has 291"),
        (_drop_subtree, "subtree 0 of level 1 .* kept is missing"),
        (_change_subtree, "subtree 0 of level 1 .* kept is 0000"),
        (_add_subtree, "2 subtrees of level 1 are kept for 300 entries"),
        (_change_root, "the head of 300 entries is signed with root"),
        (_change_note, "the head of 300 entries is none of this log"),
    ],
)
def test_what_was_changed_is_named(
    lite: House, change: Callable[[Connection], None], said: str
) -> None:
    lite.append(300)
    with writing(lite.engine) as connection:
        change(connection)
    with pytest.raises(LogDamagedError, match=said):
        check_log(lite.engine, [lite.signer.verifier], ORIGIN)
