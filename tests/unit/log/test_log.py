"""What a log shows: heads, entries, proofs, tiles, and cosignatures that witnesses gave."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable

import pytest
from sqlalchemy import delete, event

from coin_protocol.checkpoint import MAX_SIZE, Checkpoint, cosign, verify_checkpoint
from coin_protocol.database.engine import writing
from coin_protocol.errors import InvalidInputError, SignatureError
from coin_protocol.merkle import leaf_hash, node_hash, verify_consistency, verify_inclusion
from coin_protocol.note import NoteAlgorithm, NoteSigner, add_signatures, write_note
from coin_protocol.signer import KeySigner
from tests.support.log_entries import House, leaves
from tests.support.parties import WAIT_SECONDS
from verifier_sdk.log import (
    Log,
    LogDamagedError,
    NotLoggedYetError,
    NotSignedError,
    UnknownEntryError,
)
from verifier_sdk.log.tables import ENTRY, SUBTREE

WITNESSES = [
    NoteSigner(KeySigner.generate(f"witness.example/{number}"), NoteAlgorithm.COSIGNATURE)
    for number in range(3)
]
KEYS = [witness.verifier for witness in WITNESSES]


def test_an_entry_is_proven_by_its_hash_or_its_index(house: House) -> None:
    house.append(300)
    house.append(10)
    log, data = house.log, leaves(0, 310)
    for number in (0, 7, 255, 256, 299, 309):
        found = log.inclusion(leaf_hash(data[number]))
        assert found == log.inclusion(number)
        assert (found.index, found.size, found.head) == (number, 310, log.head())
        assert found.head is not None
        signed = verify_checkpoint(found.head.note, house.signer.verifier).checkpoint
        verify_inclusion(
            leaf_hash=leaf_hash(data[number]),
            index=found.index,
            size=signed.size,
            proof=found.proof,
            root=signed.root,
        )
    old = log.inclusion(7, 300)
    assert (old.size, old.head) == (300, None)
    assert old.proof == house.tree.inclusion_proof(7, 300)
    verify_consistency(
        old_size=300,
        new_size=310,
        old_root=house.tree.root(300),
        new_root=log.head().root,
        proof=log.consistency(300, 310),
    )


def test_from_nothing_and_to_itself_consistency_needs_no_hash(house: House) -> None:
    house.append(3)
    assert house.log.consistency(0, 3) == []
    assert house.log.consistency(3, 3) == []


@pytest.mark.parametrize(
    ("ask", "error", "said"),
    [
        (lambda log: log.inclusion(bytes(31)), InvalidInputError, "32 bytes; found 31"),
        (lambda log: log.inclusion(bytes(32)), UnknownEntryError, "no entry with leaf hash 0000"),
        (lambda log: log.inclusion(-1), InvalidInputError, "index lies in"),
        (lambda log: log.inclusion(MAX_SIZE + 1), InvalidInputError, "index lies in"),
        (lambda log: log.inclusion(MAX_SIZE), UnknownEntryError, "no entry of index"),
        (lambda log: log.inclusion(5), UnknownEntryError, "no entry of index 5 yet"),
        (lambda log: log.inclusion(4, 3), InvalidInputError, "has none of index 4"),
        (lambda log: log.inclusion(0, 4), NotSignedError, "no head of size 4"),
        (lambda log: log.inclusion(0, 6), NotSignedError, "no head of size 6"),
        (lambda log: log.inclusion(0, -1), InvalidInputError, "size of a tree"),
        (lambda log: log.inclusion(0, MAX_SIZE + 1), InvalidInputError, "size of a tree"),
        (lambda log: log.inclusion(0, 6, unsigned=True), InvalidInputError, "has 5 entries"),
        (lambda log: log.consistency(2, 5), NotSignedError, "no head of size 2"),
        (lambda log: log.consistency(3, 4), NotSignedError, "no head of size 4"),
        (lambda log: log.consistency(5, 3), InvalidInputError, "old size <= new size"),
        (lambda log: log.consistency(-1, 3), InvalidInputError, "old size <= new size"),
        (lambda log: log.consistency(3, MAX_SIZE + 1), InvalidInputError, "old size <= new"),
        (lambda log: log.entries(-1, 3), InvalidInputError, "a start from 0"),
        (lambda log: log.entries(0, 0), InvalidInputError, "a count from 1"),
        (lambda log: log.entries(MAX_SIZE + 1, 3), InvalidInputError, "a start from 0"),
        (lambda log: log.tile(0, 0), UnknownEntryError, "no tile 0 of level 0 and width 256"),
        (lambda log: log.tile(0, 0, 6), UnknownEntryError, "no tile 0"),
        (lambda log: log.tile(1, 0, 1), UnknownEntryError, "no tile 0 of level 1"),
        (lambda log: log.tile(8, 0, 1), UnknownEntryError, "no tile 0 of level 8"),
        (lambda log: log.tile(0, MAX_SIZE + 1, 1), UnknownEntryError, "no tile"),
        (lambda log: log.entry_bundle(1, 1), UnknownEntryError, "no tile 1 of level 0"),
    ],
)
def test_what_cannot_be_had_is_said(
    lite: House, ask: Callable[[Log], object], error: type[Exception], said: str
) -> None:
    lite.append(3)
    lite.append(2)
    with pytest.raises(error, match=said):
        ask(lite.log)


def test_an_entry_that_waits_is_told_from_one_that_is_unknown(lite: House) -> None:
    (hashed,) = lite.say(leaves(0, 1))
    with pytest.raises(NotLoggedYetError, match="waits for its place"):
        lite.log.inclusion(hashed)
    with pytest.raises(NotLoggedYetError, match="no head yet"):
        lite.log.inclusion(0)
    with pytest.raises(NotLoggedYetError, match="no head yet"):
        lite.log.entries(0, 1)
    sequencer = lite.sequencer()
    sequencer.run_once()
    lite.say(leaves(1, 2))
    sequencer._sequence()
    with pytest.raises(NotLoggedYetError, match="entry 1 waits for a head"):
        lite.log.inclusion(1)
    assert len(lite.log.entries(0, 10)) == 1


def test_entries_come_in_order_and_within_the_limit(house: House) -> None:
    house.append(1100)
    data = leaves(0, 1100)
    assert house.log.entries(0, 5000) == data[:1024]
    assert house.log.entries(1000, 200) == data[1000:]
    assert house.log.entries(1100, 5) == []
    assert house.log.entries(MAX_SIZE, 5) == []


def test_tiles_are_those_of_tiled_logs(house: House) -> None:
    house.append(600)
    data = leaves(0, 600)
    hashes = [leaf_hash(each) for each in data]
    log = house.log
    for index in (0, 1):
        assert log.tile(0, index) == b"".join(hashes[256 * index : 256 * (index + 1)])
    assert log.tile(0, 2, 88) == b"".join(hashes[512:])
    assert log.tile(0, 2, 5) == b"".join(hashes[512:517])
    assert log.tile(0, 0, 255) == b"".join(hashes[:255])
    above = log.tile(1, 0, 2)
    assert house.tree.root(512) == node_hash(above[:32], above[32:])
    bundle = b"".join(struct.pack(">H", len(each)) + each for each in data[512:520])
    assert log.entry_bundle(2, 8) == bundle


def cosigned(house: House, *witnesses: NoteSigner, at: int = 1_800_000_000) -> bytes:
    """Return the newest head, whatever others say of it, with cosignatures."""
    head = Log(house.engine).head()
    return add_signatures(head.note, [cosign(head.checkpoint, each, at) for each in witnesses])


def test_cosignatures_stay_with_their_head(house: House) -> None:
    house.append(3)
    found = house.log.cosign(cosigned(house, WITNESSES[0]), KEYS)
    assert found == house.log.head()
    house.log.cosign(cosigned(house, WITNESSES[1]), KEYS)
    house.log.cosign(cosigned(house, WITNESSES[1], at=1_800_000_007), KEYS)
    checked = verify_checkpoint(house.log.head().note, house.signer.verifier, KEYS, 2)
    assert [(each.name, each.at) for each in checked.cosignatures] == [
        ("witness.example/0", 1_800_000_000),
        ("witness.example/1", 1_800_000_007),
    ]
    house.append(2)
    assert not verify_checkpoint(house.log.head().note, house.signer.verifier, KEYS).cosignatures


def test_with_a_quorum_the_newest_head_is_the_newest_with_that_many(house: House) -> None:
    log = Log(house.engine, quorum=2)
    house.append(3)
    with pytest.raises(NotLoggedYetError, match="no head that 2 witnesses cosigned yet"):
        log.head()
    log.cosign(cosigned(house, WITNESSES[0]), KEYS)
    # The same one twice is still one.
    log.cosign(cosigned(house, WITNESSES[0], at=1_800_000_001), KEYS)
    with pytest.raises(NotLoggedYetError):
        log.head()
    log.cosign(cosigned(house, *WITNESSES[1:]), KEYS)
    assert log.head().size == 3
    house.append(2)
    assert log.head().size == 3
    assert log.inclusion(2).size == 3
    assert len(log.entries(0, 10)) == 3
    with pytest.raises(NotLoggedYetError, match="entry 4 waits"):
        log.inclusion(4)
    log.cosign(cosigned(house, *WITNESSES[:2]), KEYS)
    assert log.inclusion(4).size == 5


def test_only_cosignatures_of_known_witnesses_count(lite: House) -> None:
    lite.append(3)
    with pytest.raises(SignatureError, match="none of the 2 signatures is by a known key"):
        lite.log.cosign(cosigned(lite, WITNESSES[0]), KEYS[1:])
    checkpoint = lite.log.head().checkpoint
    forged = cosign(Checkpoint(checkpoint.origin, 3, bytes(32)), WITNESSES[0], 1_800_000_000)
    with pytest.raises(SignatureError):
        lite.log.cosign(add_signatures(lite.log.head().note, [forged]), KEYS)
    # Nor do those of heads that are not this log's.
    for size in (3, 4):
        other = Checkpoint(checkpoint.origin, size, bytes(32))
        note = write_note(other.text(), [cosign(other, WITNESSES[0], 1_800_000_000)])
        with pytest.raises(NotSignedError):
            lite.log.cosign(note, KEYS)
    assert not verify_checkpoint(lite.log.head().note, lite.signer.verifier, KEYS).cosignatures


def test_proofs_made_while_others_append_all_verify(house: House) -> None:
    house.append(1)
    stop = threading.Event()

    def append() -> None:
        sequencer = house.sequencer()
        for start in range(1, 2000, 90):
            house.tree.extend(house.say(leaves(start, start + 90)))
            sequencer.run_once()
        stop.set()

    thread = threading.Thread(target=append)
    thread.start()
    log, proofs = house.log, 0
    last = log.head()
    while not stop.is_set() or proofs < 10:
        index = (7919 * proofs) % last.size
        found = log.inclusion(index)
        assert found.head is not None
        verify_inclusion(
            leaf_hash=leaf_hash(leaves(index, index + 1)[0]),
            index=index,
            size=found.size,
            proof=found.proof,
            root=found.head.root,
        )
        verify_consistency(
            old_size=last.size,
            new_size=found.size,
            old_root=last.root,
            new_root=found.head.root,
            proof=log.consistency(last.size, found.size),
        )
        last, proofs = found.head, proofs + 1
    thread.join(WAIT_SECONDS)
    assert last.size > 1


def test_a_proof_reads_few_rows_and_a_second_one_fewer(lite: House) -> None:
    lite.append(2000)
    queries: list[str] = []
    event.listen(
        lite.engine,
        "after_cursor_execute",
        lambda _c, _cursor, statement, *_: queries.append(statement),
    )
    log = lite.log
    log.inclusion(3, 2000)
    tiles = sum("leaf_hash" in query or "log_subtree" in query for query in queries)
    assert tiles == 3  # its own, the partial one at the edge, and the one above both
    queries.clear()
    log.inclusion(4, 2000)
    assert not any("leaf_hash" in query or "log_subtree" in query for query in queries)


def test_few_tiles_are_kept(lite: House) -> None:
    lite.append(2000)
    log = Log(lite.engine, cached_tiles=2)
    for index in range(0, 2000, 100):
        assert log.inclusion(index).proof == lite.tree.inclusion_proof(index)
        assert len(log._cache) <= 2


def test_a_tile_that_grows_stays_one_and_serves_smaller_trees(lite: House) -> None:
    log, sizes = Log(lite.engine), range(60, 601, 60)
    for size in sizes:
        lite.append(60)
        for index in (0, size // 2, size - 1):
            assert log.inclusion(index).proof == lite.tree.inclusion_proof(index)
    assert len(log._cache) == 4  # of leaves: two that are full, and one that grows; one above
    queries: list[str] = []
    event.listen(
        lite.engine,
        "after_cursor_execute",
        lambda _c, _cursor, statement, *_: queries.append(statement),
    )
    for size in sizes:
        for index in (0, size // 2, size - 1):
            assert log.inclusion(index, size).proof == lite.tree.inclusion_proof(index, size)
    assert not any("leaf_hash" in query or "log_subtree" in query for query in queries)


@pytest.mark.parametrize("table", [ENTRY, SUBTREE], ids=["entries", "subtrees"])
def test_missing_rows_are_an_error_and_not_a_wrong_proof(lite: House, table: object) -> None:
    lite.append(600)
    with writing(lite.engine) as connection:
        if table is ENTRY:
            connection.execute(delete(ENTRY).where(ENTRY.c.leaf_index == 5))
        else:
            connection.execute(delete(SUBTREE))
    with pytest.raises(LogDamagedError, match="not whole"):
        lite.log.inclusion(1)
    if table is ENTRY:
        with pytest.raises(LogDamagedError, match="not whole"):
            lite.log.entries(0, 10)
