"""Entries get their places once, in order, and heads only grow, whoever sequences."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from coin_protocol.checkpoint import verify_checkpoint
from coin_protocol.database.engine import open_engine, reading
from coin_protocol.errors import ConfigurationError
from coin_protocol.merkle import EMPTY_ROOT
from coin_protocol.note import NoteAlgorithm, NoteSigner
from coin_protocol.signer import KeySigner
from tests.support.log_entries import ORIGIN, House, leaves
from tests.support.parties import WAIT_SECONDS
from verifier_sdk.log import NotLoggedYetError, Pass, Sequencer, check_log, sequencer
from verifier_sdk.log.tables import HEAD


def test_the_first_head_is_of_the_empty_tree(house: House) -> None:
    with pytest.raises(NotLoggedYetError, match="no head yet"):
        house.log.head()
    done = house.sequencer().run_once()
    assert (done.sequenced, done.more) == (0, False)
    head = house.log.head()
    assert done.head == head
    assert (head.size, head.root) == (0, EMPTY_ROOT)


def test_a_head_is_signed_over_all_that_waited_and_only_then(house: House) -> None:
    for count in (1, 300, 1):
        done = house.append(count)
        assert done.sequenced == count
        head = house.log.head()
        assert done.head == head
        found = verify_checkpoint(head.note, house.signer.verifier).checkpoint
        assert (found.origin, found.size, found.root) == (ORIGIN, len(house.tree), head.root)
        assert head.root == house.tree.root()
        assert house.sequencer().run_once().head is None
    with reading(house.engine) as connection:
        assert list(connection.execute(select(HEAD.c.size)).scalars()) == [1, 301, 302]


def test_a_restart_goes_on_where_it_was(url: str, house: House) -> None:
    house.append(700)
    later = House(open_engine(url), house.folder, house.signer, house.tree)
    later.append(70)
    assert later.log.head().root == house.tree.root()
    proof = later.log.consistency(700, 770)
    assert proof == house.tree.consistency_proof(700, 770)
    later.engine.dispose()


def test_several_at_once_give_each_entry_one_place(url: str, house: House) -> None:
    data = leaves(0, 600)
    stop = threading.Event()

    def say(part: list[bytes]) -> None:
        for at in range(0, len(part), 20):
            house.say(part[at : at + 20])

    def sequence(engine_url: str) -> int:
        own = House(open_engine(engine_url), house.folder, house.signer)
        sequencer, sequenced = own.sequencer(), 0
        while True:
            last = stop.is_set()
            sequenced += sequencer.run_once().sequenced
            if last:
                own.engine.dispose()
                return sequenced

    with ThreadPoolExecutor(5) as pool:
        counts = [pool.submit(sequence, url) for _ in range(2)]
        for each in [pool.submit(say, data[at::3]) for at in range(3)]:
            each.result(WAIT_SECONDS)
        stop.set()
        assert sum(count.result(WAIT_SECONDS) for count in counts) == len(data)
    assert sorted(house.log.entries(0, 1024)) == sorted(data)
    # Each thread's own entries are in its order.
    entries = house.log.entries(0, 1024)
    for at in range(3):
        places = [entries.index(each) for each in data[at::3]]
        assert places == sorted(places)
    assert check_log(house.engine, [house.signer.verifier], ORIGIN).entries == len(data)


def test_a_long_outbox_is_taken_in_parts(lite: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer, "MOST_AT_ONCE", 10)
    done = lite.append(95)
    assert (done.sequenced, done.more) == (95, False)
    assert lite.log.head().root == lite.tree.root()
    # No longer than until the next head is due; the rest has its turn right after.
    monkeypatch.setattr(sequencer, "HEAD_INTERVAL_SECONDS", 0.0)
    done = lite.append(15)
    assert (done.sequenced, done.more) == (10, True)
    assert done.head is not None
    assert (done.head.size, done.head.root) == (105, lite.tree.root(105))


def run_beside(house: House, work: threading.Thread, **options: float) -> list[Pass]:
    """Run a sequencer until the work is done and logged; return its passes."""
    passes: list[Pass] = []
    stop, logged = threading.Event(), threading.Event()

    def passed(done: Pass) -> None:
        passes.append(done)
        if not work.is_alive() and done.head is not None and done.head.size == len(house.tree):
            logged.set()

    own = house.sequencer()
    thread = threading.Thread(target=lambda: own.run(stop, passed=passed, **options), daemon=True)
    thread.start()
    work.start()
    work.join(WAIT_SECONDS)
    if house.log.head().size < len(house.tree):
        assert logged.wait(WAIT_SECONDS)
    stop.set()
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()
    return passes


def test_it_runs_until_told_to_stop_and_keeps_the_interval(lite: House) -> None:
    lite.sequencer().run_once()

    def work() -> None:
        for _ in range(12):
            lite.tree.extend(lite.say(leaves(len(lite.tree), len(lite.tree) + 5)))
            time.sleep(0.03)

    interval = 0.15
    passes = run_beside(lite, threading.Thread(target=work), head_interval=interval)
    heads = [done.head for done in passes if done.head is not None]
    assert sum(done.sequenced for done in passes) == 60
    assert heads[-1].root == lite.tree.root()
    assert len(heads) >= 2
    # From start to start: a slow pass may be followed by a quick one.
    began = [head.signed_at - done.seconds for head, done in zip(heads, passes, strict=True)]
    assert all(later - before > interval / 2 for before, later in itertools.pairwise(began))


def test_a_database_that_is_away_is_waited_for(
    lite: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sequencer, "_PAUSE_AFTER_ERROR", 0.01)
    lite.sequencer().run_once()
    honest, failures = Sequencer.run_once, iter([OSError("secret"), OSError("secret")])

    def failing(self: Sequencer) -> Pass:
        for error in failures:
            raise error
        return honest(self)

    monkeypatch.setattr(Sequencer, "run_once", failing)

    def work() -> None:
        lite.tree.extend(lite.say(leaves(0, 5)))

    passes = run_beside(lite, threading.Thread(target=work), head_interval=0.01)
    assert [done.sequenced for done in passes] == [5]
    assert caplog.text.count("the log waits: OSError") == 2


@pytest.mark.parametrize(
    "signer",
    [
        NoteSigner(KeySigner.generate("example.org/another")),
        NoteSigner(KeySigner.generate(ORIGIN), NoteAlgorithm.COSIGNATURE),
    ],
    ids=["another name", "a witness's"],
)
def test_a_key_that_signs_no_heads_of_this_log_is_refused(lite: House, signer: NoteSigner) -> None:
    with pytest.raises(ConfigurationError, match=r"signs no heads of 'example\.org/coin-log'"):
        Sequencer(lite.engine, signer, origin=ORIGIN, head_file=None)
