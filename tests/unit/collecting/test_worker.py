"""The thread that writes: in order, past failures, to the end of the process, after a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from verifier_sdk.collecting.worker import Worker

WAIT = 20.0


def test_work_is_done_in_order_on_one_other_thread() -> None:
    done: list[tuple[int, int]] = []
    worker = Worker("test")
    worker.start()
    for number in range(50):
        worker.put(partial(lambda each: done.append((each, threading.get_ident())), number))
    assert worker.flush(WAIT)
    assert [number for number, _ in done] == list(range(50))
    assert len({thread for _, thread in done} - {threading.get_ident()}) == 1
    assert worker.waiting() == 0


def test_work_that_fails_stops_nothing_and_its_text_stays_here(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        msg = "secret text"
        raise ZeroDivisionError(msg)

    done: list[int] = []
    worker = Worker("test")
    worker.start()
    worker.put(fail)
    worker.put(lambda: done.append(1))
    assert worker.flush(WAIT)
    assert done == [1]
    assert "ZeroDivisionError" in caplog.text
    assert "secret text" not in caplog.text


def test_a_flush_gives_up_in_time() -> None:
    worker, held = Worker("test"), threading.Event()
    worker.start()
    worker.put(held.wait)
    assert not worker.flush(0.01)
    held.set()
    assert worker.flush(WAIT)


def test_what_never_began_has_nothing_to_flush() -> None:
    assert Worker("test").flush(0.0)


def test_a_child_process_has_a_thread_of_its_own(tmp_path: Path) -> None:
    worker = Worker("test")
    worker.start()
    assert worker.flush(WAIT)
    child = os.fork()
    if child == 0:
        worker.start()
        worker.put(lambda: (tmp_path / "done").write_text("by the child"))
        os._exit(0 if worker.flush(WAIT) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (tmp_path / "done").read_text() == "by the child"


def test_the_end_of_the_process_waits_for_what_is_still_to_be_written(tmp_path: Path) -> None:
    code = (
        "import time\n"
        "from pathlib import Path\n"
        "from verifier_sdk.collecting.worker import Worker\n"
        "worker = Worker('test')\n"
        "worker.start()\n"
        "worker.put(lambda: time.sleep(0.3))\n"
        f"worker.put(lambda: Path({str(tmp_path / 'done')!r}).write_text('written'))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert (tmp_path / "done").read_text() == "written"
