"""A log that has forgotten what it signed says so, and signs nothing more."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select, update

from coin_protocol.checkpoint import Checkpoint, sign_checkpoint, verify_checkpoint
from coin_protocol.database.engine import open_engine, reading, writing
from coin_protocol.merkle import leaf_hash
from coin_protocol.note import NoteSigner
from coin_protocol.signer import KeySigner
from tests.support.log_entries import ORIGIN, House, leaves
from verifier_sdk.log import LogDamagedError, LogForkError, NotLoggedYetError
from verifier_sdk.log.tables import ENTRY, HEAD, SUBTREE


def heads(house: House) -> int:
    with reading(house.engine) as connection:
        return connection.execute(select(func.count()).select_from(HEAD)).scalar_one()


def lose(house: House, size: int) -> None:
    """Make of the database what it was at an earlier head."""
    with writing(house.engine) as connection:
        connection.execute(delete(HEAD).where(HEAD.c.size > size))
        connection.execute(delete(ENTRY).where(ENTRY.c.leaf_index >= size))
        connection.execute(
            delete(SUBTREE).where(SUBTREE.c.level == 1, SUBTREE.c.subtree_index >= size // 256)
        )


def test_a_database_restored_from_a_backup_is_found_out(house: House) -> None:
    house.append(300)
    house.append(5)
    lose(house, 300)
    house.say(leaves(1000, 1010))
    before = heads(house)
    with pytest.raises(
        LogForkError, match=r"head file holds a head of 305 entries .* has 300: .* lost entries"
    ):
        house.sequencer().run_once()
    assert heads(house) == before
    # Nor is anything given a place, so that what is restored later fits on.
    with reading(house.engine) as connection:
        assert connection.execute(select(func.max(ENTRY.c.leaf_index))).scalar_one() == 299


def test_it_is_found_out_even_where_as_much_came_since(house: House) -> None:
    house.append(5)
    house.append(5)
    forgetful = house.sequencer(head_file=None)
    lose(house, 5)
    house.say(leaves(1000, 1010))
    forgetful.run_once()  # nothing that it can see is wrong: that is what the file is for
    assert house.log.head().size == 15
    with pytest.raises(LogForkError, match=r"signed .* as root of 10 entries, as the head file"):
        house.sequencer().run_once()


def test_a_copied_file_is_found_out(tmp_path: Path) -> None:
    from tests.unit.log.conftest import log_tables
    from verifier_sdk.store.metadata import METADATA

    path, copy = tmp_path / "log.db", tmp_path / "copy.db"
    engine = open_engine(f"sqlite:///{path}")
    METADATA.create_all(engine, [METADATA.tables[name] for name in log_tables()])
    house = House(engine, tmp_path)
    house.append(3)
    engine.dispose()
    shutil.copy(path, copy)
    house.append(3)
    engine.dispose()
    shutil.copy(copy, path)
    house.say(leaves(50, 60))
    with pytest.raises(LogForkError, match="head of 6 entries"):
        house.sequencer().run_once()
    engine.dispose()


def test_lost_entries_under_a_kept_head_are_found_out(house: House) -> None:
    house.append(10)
    with writing(house.engine) as connection:
        connection.execute(delete(ENTRY).where(ENTRY.c.leaf_index >= 8))
    with pytest.raises(LogForkError, match="the database holds a head of 10 entries"):
        house.sequencer(head_file=None).run_once()


def test_an_entry_that_was_changed_is_found_out(house: House) -> None:
    house.append(10)
    with writing(house.engine) as connection:
        connection.execute(
            update(ENTRY).where(ENTRY.c.leaf_index == 4).values(leaf_hash=leaf_hash(b"other"))
        )
    house.say(leaves(50, 60))
    before = heads(house)
    with pytest.raises(LogForkError, match="root of 10 entries, as the database shows"):
        house.sequencer(head_file=None).run_once()
    assert heads(house) == before


def test_a_root_that_was_changed_with_it_is_found_out(lite: House) -> None:
    # Who can write to the database can make it fit; what was signed it cannot.
    lite.append(10)
    other = NoteSigner(KeySigner.generate(ORIGIN))
    with writing(lite.engine) as connection:
        note = sign_checkpoint(Checkpoint(ORIGIN, 10, bytes(32)), [other])
        connection.execute(update(HEAD).values(root=bytes(32), note=note))
    with pytest.raises(LogForkError, match=r"none of 'example\.org/coin-log' under a key"):
        lite.sequencer(head_file=None).run_once()


def test_another_log_is_none_of_this_databases(lite: House) -> None:
    lite.append(1)
    other = NoteSigner(KeySigner.generate("example.org/another"))
    sequencer = House(lite.engine, lite.folder, other).sequencer(
        origin="example.org/another", head_file=None
    )
    with pytest.raises(LogForkError, match=r"none of 'example\.org/another'"):
        sequencer.run_once()


def test_a_new_key_goes_on_where_it_is_told_of_the_old_one(lite: House) -> None:
    lite.append(3)
    later = House(lite.engine, lite.folder, tree=lite.tree)
    later.tree.extend(later.say(leaves(3, 5)))
    with pytest.raises(LogForkError, match="under a key"):
        later.sequencer().run_once()
    later.sequencer(older_keys=[lite.signer.verifier]).run_once()
    note = later.log.head().note
    assert verify_checkpoint(note, later.signer.verifier).checkpoint.size == 5
    assert later.log.consistency(3, 5) == later.tree.consistency_proof(3, 5)


def test_a_head_file_of_something_else_stops_the_log(lite: House) -> None:
    lite.append(3)
    (lite.folder / "head").write_bytes(b"what is this?\n")
    lite.say(leaves(3, 5))
    with pytest.raises(LogForkError, match="holds no head of this log"):
        lite.sequencer().run_once()


def test_the_file_has_seen_every_head_that_left(
    lite: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verifier_sdk.log import sequencer

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sequencer, "add_head", dies)
        with pytest.raises(KeyboardInterrupt):
            lite.append(3)
    kept = verify_checkpoint((lite.folder / "head").read_bytes(), lite.signer.verifier)
    assert kept.checkpoint.size == 3
    with pytest.raises(NotLoggedYetError):
        lite.log.head()
    # What it has seen and nobody else has stands in nobody's way.
    lite.append(2)
    assert lite.log.head().root == lite.tree.root()


def test_whoever_knows_better_can_stop_it(lite: House) -> None:
    lite.append(3)
    sequencer = lite.sequencer()
    sequencer.refuse("a witness holds a head of 7 entries")
    lite.say(leaves(3, 5))
    stop = threading.Event()
    with pytest.raises(LogForkError, match="a witness holds a head of 7 entries"):
        sequencer.run(stop, head_interval=0.0)
    assert lite.log.head().size == 3


def test_a_tree_with_holes_stops_it_too(lite: House) -> None:
    lite.append(300)
    with writing(lite.engine) as connection:
        connection.execute(delete(SUBTREE))
    lite.say(leaves(300, 305))
    with pytest.raises(LogDamagedError, match="not whole"):
        lite.sequencer().run(threading.Event(), head_interval=0.0)
    assert lite.log.head().size == 300


def test_a_head_that_somebody_else_kept_is_held_against_the_tree(house: House) -> None:
    house.append(300)
    house.append(10)
    log, tree = house.log, house.tree
    log.require_prefix(Checkpoint(ORIGIN, 0, tree.root(0)))
    for size in (300, 305, 310):  # a restored database may have signed other sizes before
        log.require_prefix(Checkpoint(ORIGIN, size, tree.root(size)))
    with pytest.raises(LogForkError, match="a head of 311 entries is out there, and this log has"):
        log.require_prefix(Checkpoint(ORIGIN, 311, bytes(32)))
    with pytest.raises(LogForkError, match="a head of 300 entries with root 0000"):
        log.require_prefix(Checkpoint(ORIGIN, 300, bytes(32)))
