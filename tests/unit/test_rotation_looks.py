"""When a signer looks at its key folder again, and that nobody waits for it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coin_protocol import rotation
from coin_protocol.key_folder import KeyFolder
from coin_protocol.key_keeper import KeyKeeper
from coin_protocol.keys import KeyRing
from coin_protocol.keyset import SignedKeySet
from coin_protocol.rotation import RotatingSigner
from tests.support.rotations import KEY, rotated, until


@pytest.fixture
def folder(tmp_path: Path) -> KeyKeeper:
    made = KeyKeeper(tmp_path / "keys")
    made.init("acme", KEY, None)
    return made


class Ticks:
    """The seconds of a machine, moved by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    made = Ticks()
    monkeypatch.setattr(rotation, "time", made)
    return made


def test_a_look_falls_due_a_second_after_the_last(folder: KeyKeeper, ticks: Ticks) -> None:
    signer = RotatingSigner(folder.path, "acme")
    known = signer.public.keyid
    for _ in range(3):
        new = rotated(folder)
        ticks.at += 0.75
        assert signer.public.keyid == known
        ticks.at += 0.25
        assert signer.public.keyid == new
        known = new


def test_keys_that_are_missing_are_looked_for_every_thirty_seconds(
    folder: KeyKeeper, ticks: Ticks
) -> None:
    signer = RotatingSigner(folder.path, "acme")
    first, new = signer.public.keyid, rotated(folder)
    private = folder.path / f"key-{new[:16]}.pem"
    elsewhere = private.rename(folder.path.parent / "elsewhere.pem")
    ticks.at += 1
    assert signer.public.keyid == first
    elsewhere.rename(private)
    ticks.at += 29
    for _ in range(20):
        assert signer.public.keyid == first
        time.sleep(0.005)
    ticks.at += 1
    until(lambda: signer.public.keyid == new)


class SlowFolder:
    """Holds up whoever reads a key folder, as an HSM that is away does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.readers: list[threading.Thread] = []
        self.entered, self.go_on = threading.Event(), threading.Event()
        read = KeyFolder.read

        def slowly(folder: KeyFolder) -> tuple[SignedKeySet, KeyRing]:
            self.readers.append(threading.current_thread())
            self.entered.set()
            assert self.go_on.wait(30)
            return read(folder)

        monkeypatch.setattr(KeyFolder, "read", slowly)


def test_nobody_who_signs_waits_for_another_to_read(
    folder: KeyKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "LOOK_SECONDS", 0.0)
    signer = RotatingSigner(folder.path, "acme")
    first, new = signer.public.keyid, rotated(folder)
    slow = SlowFolder(monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        try:
            reading = pool.submit(lambda: signer.public.keyid)
            assert slow.entered.wait(10)
            assert pool.submit(lambda: signer.public.keyid).result(10) == first
        finally:
            slow.go_on.set()
        assert reading.result(10) == new


def test_a_folder_that_has_all_its_keys_is_not_read_again_unchanged(
    folder: KeyKeeper, ticks: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = RotatingSigner(folder.path, "acme")
    slow = SlowFolder(monkeypatch)
    slow.go_on.set()
    for _ in range(3):
        ticks.at += 3600
        _ = signer.public
    for thread in threading.enumerate():
        if thread.name == "coin-keys":
            thread.join(10)
    assert slow.readers == []


def test_what_looks_for_missing_keys_holds_up_neither_signing_nor_the_end(
    folder: KeyKeeper, ticks: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = RotatingSigner(folder.path, "acme")
    first, new = signer.public.keyid, rotated(folder)
    (folder.path / f"key-{new[:16]}.pem").unlink()
    ticks.at += 1
    assert signer.public.keyid == first
    slow = SlowFolder(monkeypatch)
    ticks.at += 30
    try:
        assert signer.public.keyid == first
        assert slow.entered.wait(10)
    finally:
        slow.go_on.set()
    (reader,) = slow.readers
    # A process that ends does not wait for a daemon.
    assert (reader.name, reader.daemon) == ("coin-keys", True)
    reader.join(10)
