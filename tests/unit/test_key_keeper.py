"""The folder of keys: what each command leaves, and what a crash in the middle leaves."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from coin_protocol import envelope, key_keeper
from coin_protocol.errors import ConfigurationError, InvalidInputError
from coin_protocol.key_keeper import (
    BACKDATED,
    MIN_OVERLAP,
    KeyKeeper,
    NewKey,
    Root,
    find_key,
    make_verifier_key,
)
from coin_protocol.keys import ECDSA_P256, ED25519, KeyRing, VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME
from coin_protocol.limits import CLOCK_SKEW_SECONDS, MAX_KEYS
from coin_protocol.rotation import RotatingSigner
from coin_protocol.signer import KeySigner, write_private_key
from coin_protocol.statements import read_key_set
from tests.support.chains import DAY, Certified

HOUR = timedelta(hours=1)
KEY = NewKey(30 * DAY)


@pytest.fixture
def folder(tmp_path: Path) -> KeyKeeper:
    """A provider's folder with its first key."""
    made = KeyKeeper(tmp_path / "keys")
    made.init("acme", KEY, None)
    return made


def ring_of(folder: KeyKeeper) -> KeyRing:
    return folder.read()[1]


def names(folder: KeyKeeper) -> set[str]:
    return {path.name for path in folder.path.iterdir()}


def tell(patch: pytest.MonkeyPatch, *times: datetime) -> None:
    """Have the keeper's clock tell these times, the last one ever after."""
    left = list(times)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            assert tz is UTC
            return left.pop(0) if len(left) > 1 else left[0]

    patch.setattr(key_keeper, "datetime", Clock)


def require_good(folder: KeyKeeper) -> None:
    """Check that the folder signs what its own key set, and root, bear out."""
    signer = RotatingSigner(folder.path, "acme")
    signed = envelope.sign(b"payload", envelope.COMMITMENT, signer)
    root = VerificationKey.from_pem(ROOT_KEY_NAME, folder.root_public_path.read_bytes())
    payload = envelope.verify_with_key(signer.served.signed, envelope.KEY_SET, root)
    listed = envelope.verify(signed, envelope.COMMITMENT, read_key_set(payload))
    listed.require_valid(datetime.now(UTC))


# Rotation


def test_a_rotation_adds_a_key_and_lets_the_old_one_run_out(folder: KeyKeeper) -> None:
    (old,) = ring_of(folder).keys
    added = folder.rotate(KEY, HOUR, folder.root(None))
    before, after = ring_of(folder).keys
    now = datetime.now(UTC)
    assert before.key.keyid == old.key.keyid
    assert after == added
    assert before.not_before == old.not_before
    assert now < before.not_after <= now + HOUR
    assert after.not_before <= now - BACKDATED
    assert after.is_valid(now)
    assert ring_of(folder).sequence == 2
    require_good(folder)


def test_a_window_that_ends_sooner_is_not_drawn_out(tmp_path: Path) -> None:
    folder = KeyKeeper(tmp_path)
    folder.init("acme", NewKey(HOUR), None)
    (old,) = ring_of(folder).keys
    folder.rotate(KEY, 24 * HOUR, folder.root(None))
    assert ring_of(folder).keys[0] == old


def test_old_keys_stay_listed_for_old_receipts(folder: KeyKeeper) -> None:
    ids = {ring_of(folder).keys[0].key.keyid}
    for number in range(5):
        ids.add(folder.rotate(KEY, HOUR, folder.root(None)).key.keyid)
        ring = ring_of(folder)
        assert {listed.key.keyid for listed in ring.keys} == ids
        assert ring.sequence == number + 2
        assert ring.continues(KeyRing("acme", ring.keys[:-1], sequence=ring.sequence - 1))
    require_good(folder)


@pytest.mark.parametrize("algorithm", [ED25519, ECDSA_P256])
def test_the_new_key_is_of_the_algorithm_asked_for(folder: KeyKeeper, algorithm: int) -> None:
    key = NewKey(30 * DAY, algorithm)  # type: ignore[arg-type]
    assert folder.rotate(key, HOUR, folder.root(None)).key.algorithm == algorithm


def test_what_was_signed_by_a_clock_ahead_stays_good_through_the_shortest_overlap(
    folder: KeyKeeper,
) -> None:
    (before,) = folder.read()[1].keys
    dated = datetime.now(UTC) + timedelta(seconds=CLOCK_SKEW_SECONDS)
    folder.rotate(KEY, MIN_OVERLAP, folder.root(None))
    after = folder.read()[1].find(before.key.keyid)
    assert after is not None
    after.require_valid(dated)


@pytest.mark.parametrize("overlap", [timedelta(), -HOUR, MIN_OVERLAP / 2, timedelta(days=40_000)])
def test_an_overlap_in_which_signatures_could_be_lost_is_refused(
    folder: KeyKeeper, overlap: timedelta
) -> None:
    with pytest.raises(InvalidInputError, match="overlap"):
        folder.rotate(KEY, overlap, folder.root(None))
    assert ring_of(folder).sequence == 1


@pytest.mark.parametrize("valid_for", [timedelta(), -DAY, timedelta(days=40_000)])
def test_a_key_without_a_window_is_not_made(valid_for: timedelta) -> None:
    with pytest.raises(InvalidInputError, match="valid for up to"):
        NewKey(valid_for)


def test_a_full_key_set_takes_no_further_key(
    folder: KeyKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coin_protocol.keys.MAX_KEYS", 1)
    assert MAX_KEYS > 1
    with pytest.raises(InvalidInputError, match="2 keys, at most 1"):
        folder.rotate(KEY, HOUR, folder.root(None))
    require_good(folder)


def test_a_key_set_is_never_dated_before_the_last(
    folder: KeyKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ring_of(folder).issued_at
    with monkeypatch.context() as patch:
        tell(patch, datetime.now(UTC) - HOUR)
        folder.rotate(KEY, HOUR, folder.root(None))
    assert ring_of(folder).issued_at == first
    require_good(folder)


# The root


def test_a_root_that_is_kept_elsewhere_is_asked_for(folder: KeyKeeper, tmp_path: Path) -> None:
    away = tmp_path / "usb.pem"
    folder.root_path.rename(away)
    with pytest.raises(ConfigurationError, match="--root-key"):
        folder.root(None)
    folder.rotate(KEY, HOUR, folder.root(f"file:{away}"))
    assert len(ring_of(folder)) == 2
    assert not folder.root_path.exists()
    require_good(folder)


def test_another_root_than_the_pinned_one_signs_nothing(folder: KeyKeeper, tmp_path: Path) -> None:
    write_private_key(tmp_path / "other.pem", KeySigner.generate(ROOT_KEY_NAME))
    with pytest.raises(ConfigurationError, match="which is pinned"):
        folder.root(f"file:{tmp_path / 'other.pem'}")


def test_a_key_set_that_the_root_beside_it_did_not_sign_is_refused(
    folder: KeyKeeper, tmp_path: Path
) -> None:
    other = KeyKeeper(tmp_path / "other")
    other.init("acme", KEY, None)
    folder.key_set_path.write_bytes(other.key_set_path.read_bytes())
    with pytest.raises(InvalidInputError, match="did not sign its key set"):
        folder.read()


def test_a_certified_root_leaves_no_key_to_pin(tmp_path: Path) -> None:
    root = Certified()
    folder = KeyKeeper(tmp_path / "keys")
    chain = root.authority.chain(root.authority.leaf(root.key))
    folder.init("acme", KEY, Root(root.signer, chain))
    assert names(folder) == {"key.pem", "key.pub.pem", "keyset.binpb"}
    assert folder.read()[0].root_chain == chain
    private, _, _ = root.write(tmp_path)
    folder.rotate(KEY, HOUR, folder.root(f"file:{private}"))
    assert folder.read()[0].root_chain == chain
    assert len(ring_of(folder)) == 2


def test_a_renewed_certificate_signs_the_same_keys_again(tmp_path: Path) -> None:
    old, folder = Certified(), KeyKeeper(tmp_path / "keys")
    ended = datetime.now(UTC) - HOUR
    leaf = old.authority.leaf(old.key, begins=ended - 90 * DAY, ends=ended)
    with pytest.raises(ConfigurationError, match="--root-chain"):
        folder.init("acme", KEY, Root(old.signer, old.authority.chain(leaf)))
    assert not names(folder)
    chain = old.authority.chain(old.authority.leaf(old.key))
    folder.init("acme", KEY, Root(old.signer, chain))
    new = Certified(old.authority)
    private, _, _ = new.write(tmp_path)
    renewed = old.authority.chain(old.authority.leaf(new.key))
    with pytest.raises(ConfigurationError, match="first certificate of the chain"):
        folder.root(f"file:{private}")
    folder.sign_again(folder.root(f"file:{private}", renewed))
    served, ring = folder.read()
    assert served.root_chain == renewed
    assert ring.sequence == 2
    assert len(ring) == 1


# Revocation


def test_a_revoked_key_counts_no_more(folder: KeyKeeper) -> None:
    folder.rotate(KEY, HOUR, folder.root(None))
    old = ring_of(folder).keys[0]
    revoked = folder.revoke(old.key.keyid[:8], None, folder.root(None))
    assert revoked.revoked_at is not None
    assert ring_of(folder).keys[0] == revoked
    assert not revoked.is_valid(datetime.now(UTC))
    assert revoked.is_valid(revoked.revoked_at - timedelta(seconds=1))
    assert ring_of(folder).sequence == 3
    require_good(folder)


def test_what_was_signed_in_the_second_of_a_revocation_counts_until_the_call_and_no_longer(
    folder: KeyKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.rotate(KEY, HOUR, folder.root(None))
    called = datetime.now(UTC).replace(microsecond=700_001) + timedelta(seconds=1)
    tell(monkeypatch, called)
    folder.revoke(ring_of(folder).keys[0].key.keyid, None, folder.root(None))
    old = ring_of(folder).keys[0]
    assert old.is_valid(called - timedelta(microseconds=1))
    assert not old.is_valid(called)


def test_a_revocation_that_waits_is_dated_when_it_was_asked_for(
    folder: KeyKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.rotate(KEY, HOUR, folder.root(None))
    called = datetime.now(UTC)
    tell(monkeypatch, called, called + timedelta(seconds=20))
    folder.revoke(ring_of(folder).keys[0].key.keyid, None, folder.root(None))
    assert ring_of(folder).keys[0].revoked_at == called


def test_a_clock_that_is_behind_the_key_set_does_not_say_when_a_key_is_revoked(
    folder: KeyKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.rotate(KEY, HOUR, folder.root(None))
    before = ring_of(folder)
    keyid = before.keys[0].key.keyid
    tell(monkeypatch, datetime.now(UTC) - timedelta(minutes=2))
    with pytest.raises(ConfigurationError, match="say from when with --at"):
        folder.revoke(keyid, None, folder.root(None))
    assert ring_of(folder).keys == before.keys
    assert before.issued_at is not None
    at = before.issued_at + timedelta(seconds=1)
    assert folder.revoke(keyid, at, folder.root(None)).end == at


def test_a_key_can_be_revoked_from_an_earlier_day(folder: KeyKeeper) -> None:
    folder.rotate(KEY, HOUR, folder.root(None))
    old = ring_of(folder).keys[0]
    at = old.not_before + timedelta(seconds=10)
    assert folder.revoke(old.key.keyid, at, folder.root(None)).end == at
    with pytest.raises(InvalidInputError, match="cannot be revoked at"):
        # Once revoked, it cannot be made to count for longer.
        folder.revoke(old.key.keyid, at + timedelta(seconds=1), folder.root(None))
    earlier = at - timedelta(seconds=5)
    assert folder.revoke(old.key.keyid, earlier, folder.root(None)).end == earlier


@pytest.mark.parametrize("days", [-2, 31])
def test_a_revocation_outside_the_window_is_refused(folder: KeyKeeper, days: int) -> None:
    folder.rotate(NewKey(60 * DAY), HOUR, folder.root(None))
    keyid = ring_of(folder).keys[0].key.keyid
    with pytest.raises(InvalidInputError, match="cannot be revoked at"):
        folder.revoke(keyid, datetime.now(UTC) + timedelta(days=days), folder.root(None))


def test_a_revocation_dated_ahead_leaves_a_key_for_then(folder: KeyKeeper) -> None:
    (only,) = ring_of(folder).keys
    ahead = datetime.now(UTC) + DAY
    with pytest.raises(ConfigurationError, match="coin keys rotate"):
        folder.revoke(only.key.keyid, ahead, folder.root(None))
    folder.rotate(KEY, 2 * DAY, folder.root(None))
    assert folder.revoke(only.key.keyid, ahead, folder.root(None)).end == ahead


def test_the_last_key_that_could_sign_is_not_revoked(folder: KeyKeeper) -> None:
    (only,) = ring_of(folder).keys
    with pytest.raises(ConfigurationError, match="coin keys rotate"):
        folder.revoke(only.key.keyid, None, folder.root(None))
    assert ring_of(folder).keys == (only,)


def test_a_key_is_named_by_eight_digits_of_its_id_or_more(folder: KeyKeeper) -> None:
    ring = ring_of(folder)
    (only,) = ring.keys
    for digits in (8, 16, 64):
        assert find_key(ring, only.key.keyid[:digits].upper()) == only
    for wrong in ("", only.key.keyid[:7], "0" * 64, only.key.keyid + "0"):
        with pytest.raises(InvalidInputError, match="8 digits"):
            find_key(ring, wrong)


# Crashes


class PowerCutError(BaseException):
    """The machine stops here."""


STEPS = ("mkstemp", "fsync", "link", "replace")


def cut_power_at(step: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stop at the given one of all calls that change the disk; return those that were made."""
    made: list[str] = []

    def counted(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object, **options: object) -> object:
            if len(made) == step:
                raise PowerCutError
            made.append(name)
            return call(*arguments, **options)

        return run

    monkeypatch.setattr("tempfile.mkstemp", counted("mkstemp", __import__("tempfile").mkstemp))
    monkeypatch.setattr(os, "fsync", counted("fsync", os.fsync))
    monkeypatch.setattr(os, "link", counted("link", os.link))
    monkeypatch.setattr(Path, "replace", counted("replace", Path.replace))
    return made


@pytest.mark.parametrize("command", ["rotate", "revoke"])
def test_a_crash_at_any_point_leaves_a_folder_that_signs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    finished = False
    step = 0
    while not finished:
        folder = KeyKeeper(tmp_path / f"{command}-{step}")
        folder.init("acme", KEY, None)
        folder.rotate(KEY, HOUR, folder.root(None))
        keyid = ring_of(folder).keys[0].key.keyid
        with monkeypatch.context() as patch, suppress(PowerCutError):
            made = cut_power_at(step, patch)
            if command == "rotate":
                folder.rotate(KEY, HOUR, folder.root(None))
            else:
                folder.revoke(keyid, None, folder.root(None))
            finished = True
        require_good(folder)
        # And the command can be run again.
        if command == "rotate":
            folder.rotate(KEY, HOUR, folder.root(None))
        elif ring_of(folder).keys[0].revoked_at is None:
            folder.revoke(keyid, None, folder.root(None))
        require_good(folder)
        step += 1
    assert set(made) == (set(STEPS) if command == "rotate" else {"mkstemp", "fsync", "replace"})
    assert step > 4


def test_a_rotation_to_a_key_kept_elsewhere_can_be_run_again_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = False
    step = 0
    while not finished:
        folder = KeyKeeper(tmp_path / str(step))
        folder.init("acme", KEY, None)
        outside = tmp_path / f"outside-{step}.pem"
        write_private_key(outside, KeySigner.generate("acme"))
        new = NewKey(30 * DAY, uri=f"file:{outside}")
        with monkeypatch.context() as patch, suppress(PowerCutError):
            cut_power_at(step, patch)
            folder.rotate(new, HOUR, folder.root(None))
            finished = True
        if len(ring_of(folder)) == 1:
            folder.rotate(new, HOUR, folder.root(None))
        assert len(ring_of(folder)) == 2
        require_good(folder)
        step += 1
    assert step > 4


def test_no_crash_leaves_a_private_key_that_others_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(30):
        folder = KeyKeeper(tmp_path / str(step))
        with monkeypatch.context() as patch, suppress(PowerCutError):
            cut_power_at(step, patch)
            folder.init("acme", KEY, None)
        for path in folder.path.glob("*"):
            if b"PRIVATE" in path.read_bytes():
                assert path.stat().st_mode & 0o077 == 0


# Two at a time, and folders that are none


def test_two_commands_do_not_change_a_folder_at_once(
    folder: KeyKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_keeper, "_LOCK_SECONDS", 0.0)
    root = folder.root(None)
    with folder._locked(), pytest.raises(ConfigurationError, match="another command"):
        folder.rotate(KEY, HOUR, root)
    folder.rotate(KEY, HOUR, root)


def test_of_two_that_make_keys_in_one_folder_one_is_refused(tmp_path: Path) -> None:
    folder = KeyKeeper(tmp_path / "keys")
    certified = Certified()
    chain = certified.authority.chain(certified.authority.leaf(certified.key))
    root = Root(certified.signer, chain)

    def init(number: int) -> str | None:
        outside = tmp_path / f"outside-{number}.pem"
        key = KeySigner.generate("acme")
        write_private_key(outside, key)
        try:
            folder.init("acme", NewKey(30 * DAY, uri=f"file:{outside}"), root)
        except ConfigurationError:
            return None
        return key.public.keyid

    with ThreadPoolExecutor(8) as pool:
        made = [keyid for keyid in pool.map(init, range(8)) if keyid is not None]
    assert [listed.key.keyid for listed in ring_of(folder).keys] == made


def test_a_new_key_is_encrypted_as_those_in_use_are(
    folder: KeyKeeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, password in (
        (folder.path / "key.pem", b"correct horse"),
        (folder.root_path, b"correct horse"),
        (tmp_path / "root.pem", b"another"),
    ):
        plain = folder.root_path if path.parent == tmp_path else path
        key = load_pem_private_key(
            plain.read_bytes(), b"correct horse" if path.parent == tmp_path else None
        )
        path.unlink(missing_ok=True)
        write_private_key(path, KeySigner("acme", key), password)
    monkeypatch.setenv("COIN_KEY_PASSWORD", "another")
    with pytest.raises(ConfigurationError, match=r"/key\.pem .* COIN_KEY_PASSWORD"):
        # The root's own password is none that the service could read the new key with.
        folder.rotate(KEY, HOUR, folder.root(f"file:{tmp_path / 'root.pem'}"))
    monkeypatch.setenv("COIN_KEY_PASSWORD", "correct horse")
    added = folder.rotate(KEY, HOUR, folder.root(None))
    require_good(folder)
    private = folder.path / f"key-{added.key.keyid[:16]}.pem"
    assert b"ENCRYPTED" in private.read_bytes()
    assert private.stat().st_mode & 0o777 == 0o600


def test_the_password_of_a_root_alone_encrypts_no_new_key(
    folder: KeyKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = load_pem_private_key(folder.root_path.read_bytes(), None)
    folder.root_path.unlink()
    write_private_key(folder.root_path, KeySigner(ROOT_KEY_NAME, root), b"correct horse")
    with monkeypatch.context() as patch:
        patch.setenv("COIN_KEY_PASSWORD", "correct horse")
        added = folder.rotate(KEY, HOUR, folder.root(None))
    # What serves has no password.
    assert RotatingSigner(folder.path, "acme").public.keyid == added.key.keyid


def test_a_folder_without_a_key_set_is_refused_and_left_alone(tmp_path: Path) -> None:
    root = Root(KeySigner.generate(ROOT_KEY_NAME))
    for folder in (KeyKeeper(tmp_path), KeyKeeper(tmp_path / "missing")):
        for change in (
            partial(folder.rotate, KEY, HOUR, root),
            partial(folder.revoke, "0" * 64, None, root),
            partial(folder.sign_again, root),
        ):
            with pytest.raises(InvalidInputError, match="cannot read"):
                change()
    assert not list(tmp_path.iterdir())


def test_a_private_half_that_is_missing_or_anothers_is_not_used(folder: KeyKeeper) -> None:
    added = folder.rotate(KEY, HOUR, folder.root(None))
    path = folder.path / f"key-{added.key.keyid[:16]}.pem"
    path.unlink()
    with pytest.raises(ConfigurationError, match="no private half"):
        folder.signer(added)
    write_private_key(path, KeySigner.generate("acme"))
    with pytest.raises(ConfigurationError, match="another key"):
        folder.signer(added)


def test_a_key_that_is_listed_already_is_not_added_again(folder: KeyKeeper, tmp_path: Path) -> None:
    key = KeySigner.generate("acme")
    write_private_key(tmp_path / "outside.pem", key)
    outside = NewKey(30 * DAY, uri=f"file:{tmp_path / 'outside.pem'}")
    added = folder.rotate(outside, HOUR, folder.root(None))
    assert added.key.keyid == key.public.keyid
    assert folder.signer(added).public.keyid == key.public.keyid
    with pytest.raises(ConfigurationError, match="already"):
        folder.rotate(outside, HOUR, folder.root(None))


def test_a_pin_is_never_written_to_the_folder(folder: KeyKeeper) -> None:
    uri = "pkcs11:object=k?module-path=/m.so&pin-value=54321"
    with pytest.raises(ConfigurationError, match="pin-source") as refused:
        folder.rotate(NewKey(30 * DAY, uri=uri), HOUR, folder.root(None))
    assert "54321" not in str(refused.value)
    assert len(ring_of(folder)) == 1


def test_a_verifier_has_one_pair(tmp_path: Path) -> None:
    signer, files = make_verifier_key(tmp_path / "keys", "me", KEY)
    assert [path.name for path in files] == ["key.pem", "key.pub.pem"]
    public = VerificationKey.from_pem("me", files[1].read_bytes())
    assert public.keyid == signer.public.keyid
    with pytest.raises(ConfigurationError, match="never overwritten"):
        make_verifier_key(tmp_path / "keys", "me", KEY)
