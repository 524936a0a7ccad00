"""A signer that follows rotations: the newest valid key signs, and no signature is lost."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coin_protocol import envelope, rotation
from coin_protocol.errors import ConfigurationError, InvalidInputError
from coin_protocol.key_keeper import MIN_OVERLAP, KeyKeeper, NewKey
from coin_protocol.keys import ECDSA_P256, ED25519, VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME, KeySetSource, SignedKeySet
from coin_protocol.rotation import RotatingSigner
from coin_protocol.signer import Signer, signer_from_uri
from coin_protocol.statements import read_key_set
from coin_protocol.v1 import envelope_pb2
from tests.support.chains import DAY
from tests.support.rotations import HOUR, KEY, Clock, list_keys, rotated, until


@pytest.fixture
def folder(tmp_path: Path) -> KeyKeeper:
    made = KeyKeeper(tmp_path / "keys")
    made.init("acme", KEY, None)
    return made


@pytest.fixture(autouse=True)
def _look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the file at each use, so that no test has to wait for a second."""
    monkeypatch.setattr(rotation, "LOOK_SECONDS", 0.0)


def test_a_rotation_is_noticed_without_a_restart(folder: KeyKeeper) -> None:
    signer = RotatingSigner(folder.path, "acme")
    first = signer.public.keyid
    for _ in range(3):
        new = rotated(folder)
        assert signer.public.keyid == new
        assert signer.served == folder.read()[0]
        assert first != new


def test_the_file_is_looked_at_once_a_second_at_most(
    folder: KeyKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "LOOK_SECONDS", 3600.0)
    signer = RotatingSigner(folder.path, "acme")
    first, new = signer.public.keyid, rotated(folder)
    assert signer.public.keyid == first
    signer.reload()
    assert signer.public.keyid == new


def test_a_signer_held_stays_with_its_key(folder: KeyKeeper) -> None:
    signer = RotatingSigner(folder.path, "acme")
    held = signer.current()
    rotated(folder)
    assert held.public.keyid != signer.public.keyid
    held.public.verify(held.sign(b"data"), b"data")
    assert held.current() is held


def test_an_envelope_is_of_one_key_though_a_rotation_falls_in_between(folder: KeyKeeper) -> None:
    class Unlucky(RotatingSigner):
        """Rotates after each look at its key."""

        def current(self) -> Signer:
            found = super().current()
            rotated(folder)
            return found

    signer = Unlucky(folder.path, "acme")
    for _ in range(3):
        signed = envelope.sign(b"payload", envelope.COMMITMENT, signer)
        envelope.verify(signed, envelope.COMMITMENT, folder.read()[1])


def test_the_newest_key_whose_window_holds_signs(folder: KeyKeeper) -> None:
    clock = Clock()
    first = folder.read()[1].keys[0].key.keyid
    second = rotated(folder, NewKey(2 * HOUR))
    third = rotated(folder, NewKey(HOUR / 2))
    signer = RotatingSigner(folder.path, "acme", clock=clock)
    assert signer.public.keyid == third
    clock.now += HOUR * 0.6
    assert signer.public.keyid == second
    clock.now += HOUR
    with pytest.raises(ConfigurationError, match="coin keys rotate"):
        _ = signer.public
    clock.now -= HOUR
    assert signer.public.keyid == second
    assert first != second


def test_the_newest_key_is_the_one_whose_window_began_last(folder: KeyKeeper) -> None:
    rotated(folder)
    first, newer = folder.read()[1].keys
    older = replace(first, not_before=newer.not_before - HOUR)
    same = replace(newer, not_before=older.not_before)
    for sequence, (keys, signing) in enumerate(
        [
            ((older, newer), newer),
            ((newer, older), newer),
            # Of two with one date the later in the list is newer.
            ((older, same), same),
            ((same, older), older),
        ],
        start=3,
    ):
        list_keys(folder, keys, sequence)
        signer = RotatingSigner(folder.path, "acme")
        assert signer.public.keyid == signing.key.keyid


def test_keys_that_ended_are_passed_over(
    folder: KeyKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    new = rotated(folder)
    ended = folder.read()[1].keys[0]
    (folder.path / "key.pem").unlink()
    clock = Clock()
    clock.now = ended.end
    signer = RotatingSigner(folder.path, "acme", clock=clock)
    assert signer.public.keyid == new
    # It is not even looked for.
    assert caplog.messages == []


def test_a_clock_behind_the_rotation_still_finds_a_key(folder: KeyKeeper) -> None:
    """The process dates its statements by a clock that the wall clock has left behind."""
    clock = Clock()
    signer = RotatingSigner(folder.path, "acme", clock=clock)
    first, new = signer.public.keyid, rotated(folder)
    clock.now -= timedelta(seconds=200)
    assert signer.public.keyid == new
    clock.now -= timedelta(seconds=90)
    assert signer.public.keyid == new
    ring = folder.read()[1]
    for listed in ring.keys:
        # Both windows hold as far back as clocks may differ.
        listed.require_valid(clock.now)
    assert first != new


def test_a_revoked_key_signs_no_more(folder: KeyKeeper) -> None:
    signer = RotatingSigner(folder.path, "acme")
    first, new = signer.public.keyid, rotated(folder)
    rotated_to = signer.public.keyid
    folder.revoke(new, None, folder.root(None))
    assert rotated_to == new
    assert signer.public.keyid == first


def test_without_the_new_private_half_the_old_key_goes_on(
    folder: KeyKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    signer = RotatingSigner(folder.path, "acme")
    first, new = signer.public.keyid, rotated(folder)
    (folder.path / f"key-{new[:16]}.pem").unlink()
    with caplog.at_level(logging.WARNING):
        assert signer.public.keyid == first
    assert caplog.messages == [
        f"a listed key cannot sign here: {folder.path} holds no private half of key {new[:16]}…"
    ]


def test_a_private_half_that_comes_late_is_found_without_another_change(
    folder: KeyKeeper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rotation, "RETRY_SECONDS", 0.0)
    signer = RotatingSigner(folder.path, "acme")
    first, new = signer.public.keyid, rotated(folder)
    private = folder.path / f"key-{new[:16]}.pem"
    elsewhere = private.rename(folder.path.parent / "elsewhere.pem")
    for _ in range(20):
        assert signer.public.keyid == first
    elsewhere.rename(private)
    until(lambda: signer.public.keyid == new)
    assert caplog.text.count("no private half") == 1


def test_a_key_set_that_could_not_be_read_for_a_moment_is_taken_up(
    folder: KeyKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "RETRY_SECONDS", 0.0)
    signer = RotatingSigner(folder.path, "acme")
    first, new = signer.public.keyid, rotated(folder)
    pinned = folder.root_public_path.read_bytes()
    # Not the key set itself changes, but what it is held against.
    folder.root_public_path.write_bytes(b"garbage")
    assert signer.public.keyid == first
    folder.root_public_path.write_bytes(pinned)
    until(lambda: signer.public.keyid == new)


def test_a_key_set_that_cannot_be_used_changes_nothing(
    folder: KeyKeeper, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    signer = RotatingSigner(folder.path, "acme")
    served = signer.served
    other = KeyKeeper(tmp_path / "other")
    other.init("another", KEY, None)
    rotated(folder)
    newer = folder.key_set_path.read_bytes()
    assert signer.served != served
    served = signer.served
    for raw in (b"garbage", b"", other.key_set_path.read_bytes(), None):
        if raw is None:
            folder.key_set_path.unlink()
        else:
            folder.key_set_path.write_bytes(raw)
        caplog.clear()
        for _ in range(3):
            assert signer.served == served
            signer.public.verify(signer.sign(b"data"), b"data")
        assert caplog.text.count("cannot be used") == 1
        with pytest.raises((ConfigurationError, InvalidInputError)):
            signer.reload()
    folder.key_set_path.write_bytes(newer)
    signer.reload()
    assert signer.served == served


def test_a_key_set_never_goes_back(folder: KeyKeeper) -> None:
    signer = RotatingSigner(folder.path, "acme")
    older = folder.key_set_path.read_bytes()
    new = rotated(folder)
    assert signer.public.keyid == new
    folder.key_set_path.write_bytes(older)
    assert signer.public.keyid == new
    with pytest.raises(ConfigurationError, match="went back from sequence 2 to 1"):
        signer.reload()


def test_a_folder_is_found_by_its_uri(tmp_path: Path) -> None:
    path = tmp_path / "keys of mine"
    KeyKeeper(path).init("acme", KEY, None)
    signer = signer_from_uri(f"keys:{quote(str(path))}", "acme")
    assert isinstance(signer, RotatingSigner)
    assert repr(signer) == f"RotatingSigner({str(path)!r}, 'acme')"
    for uri, said in (
        ("keys:", "wanted keys:FOLDER; found 'keys:'"),
        (f"keys://host{path}", "wanted keys:FOLDER; found 'keys://host"),
        (f"keys:{tmp_path / 'missing'}", r"missing.keyset\.binpb"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            signer_from_uri(uri, "acme")
    with pytest.raises(ConfigurationError, match="that of 'acme'"):
        signer_from_uri(f"keys:{quote(str(path))}", "another")


def test_a_folder_in_which_nothing_can_sign_is_refused(folder: KeyKeeper) -> None:
    (folder.path / "key.pem").unlink()
    with pytest.raises(ConfigurationError, match="no private half of a key"):
        RotatingSigner(folder.path, "acme")
    clock = Clock()
    clock.now += 31 * DAY
    with pytest.raises(ConfigurationError, match="no private half of a key"):
        RotatingSigner(folder.path, "acme", clock=clock)


def test_a_key_set_that_never_changes_is_a_source_too(folder: KeyKeeper) -> None:
    fixed, following = folder.read()[0], RotatingSigner(folder.path, "acme")
    sources: list[KeySetSource] = [fixed, following]
    rotated(folder)
    assert [source.served for source in sources] == [fixed, folder.read()[0]]


# Under load

THREADS = 4


@settings(max_examples=8, deadline=None)
@given(
    kinds=st.lists(st.sampled_from([ED25519, ECDSA_P256]), min_size=2, max_size=6),
    revoked=st.booleans(),
)
def test_no_signature_is_lost_while_keys_rotate(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[int], *, revoked: bool
) -> None:
    """Each envelope verifies under the key set served after it was made, at its own date."""
    folder = KeyKeeper(tmp_path_factory.mktemp("load") / "keys")
    folder.init("acme", KEY, None)
    root = folder.root(None)
    signer = RotatingSigner(folder.path, "acme")
    done = threading.Event()
    started = threading.Barrier(THREADS + 1)

    def load(number: int) -> list[tuple[datetime, envelope_pb2.Envelope, SignedKeySet]]:
        made: list[tuple[datetime, envelope_pb2.Envelope, SignedKeySet]] = []
        started.wait()
        while not done.is_set() or len(made) < 5:
            dated = datetime.now(UTC)
            payload = f"{number}:{len(made)}".encode()
            signed = envelope.sign(payload, envelope.COMMITMENT, signer)
            made.append((dated, signed, signer.served))
        return made

    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(load, number) for number in range(THREADS)]
        started.wait()
        try:
            for kind in kinds:
                key = NewKey(30 * DAY, kind)  # type: ignore[arg-type]
                folder.rotate(key, MIN_OVERLAP, root)
            if revoked:
                # Noticed before the key is revoked, as the documents say.
                _ = signer.public
                oldest = folder.read()[1].keys[0].key.keyid
                folder.revoke(oldest, datetime.now(UTC) + MIN_OVERLAP / 2, root)
        finally:
            done.set()
        made = [entry for future in futures for entry in future.result()]

    pinned = VerificationKey.from_pem(ROOT_KEY_NAME, folder.root_public_path.read_bytes())
    last = folder.read()[0]
    assert len(made) >= THREADS * 5
    for dated, signed, served in made:
        for key_set in (served, last):
            payload = envelope.verify_with_key(key_set.signed, envelope.KEY_SET, pinned)
            listed = envelope.verify(signed, envelope.COMMITMENT, read_key_set(payload))
            listed.require_valid(dated)
    # What is signed after all rotations is signed by the newest key.
    newest = folder.read()[1].keys[-1].key.keyid
    after = envelope.sign(b"after", envelope.COMMITMENT, signer)
    assert after.signatures[0].keyid == newest
