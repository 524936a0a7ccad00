"""`coin keygen` makes keys and never overwrites one."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coin_protocol import envelope
from coin_protocol.files import read_file
from coin_protocol.keys import VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME, read_key_set_file
from coin_protocol.signer import FileSigner, public_pem
from coin_protocol.statements import read_key_set
from coin_protocol.v1 import keys_pb2
from tests.support.command import Coin

# Keys


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256"])
def test_keys_of_a_provider_are_a_signing_key_a_root_and_a_key_set(
    coin: Coin, tmp_path: Path, algorithm: str
) -> None:
    folder = tmp_path / "new" / "keys"
    before = datetime.now(UTC)
    done = coin("keygen", folder, "--name", "acme", "--algorithm", algorithm, "--days", 30)
    assert done.code == 0
    assert {path.name for path in folder.iterdir()} == {
        *("key.pem", "key.pub.pem", "root.pem", "root.pub.pem", "keyset.binpb")
    }
    signer = FileSigner.from_uri(f"file:{folder / 'key.pem'}", "acme")
    root = VerificationKey.from_pem(ROOT_KEY_NAME, read_file(folder / "root.pub.pem"))
    signed = read_key_set_file(folder / "keyset.binpb")
    ring = read_key_set(envelope.verify_with_key(signed, envelope.KEY_SET, root))
    assert ring.owner == "acme"
    listed = ring.find(signer.public.keyid)
    assert listed is not None
    assert len(ring) == 1
    assert listed.not_before <= datetime.now(UTC)
    assert timedelta(0) <= listed.not_after - before <= timedelta(days=30, seconds=60)
    wanted = {
        "ed25519": keys_pb2.KEY_ALGORITHM_ED25519,
        "ecdsa-p256": keys_pb2.KEY_ALGORITHM_ECDSA_P256_SHA256,
    }[algorithm]
    assert signer.public.algorithm == root.algorithm == wanted
    assert read_file(folder / "key.pub.pem") == public_pem(signer.public)
    assert signer.public.keyid in done.out


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256"])
def test_keys_of_a_verifier_are_one_pair(coin: Coin, tmp_path: Path, algorithm: str) -> None:
    options = ["--role", "verifier", "--algorithm", algorithm, "--json"]
    done = coin("keygen", tmp_path, "--name", "me", *options)
    assert {path.name for path in tmp_path.iterdir()} == {"key.pem", "key.pub.pem"}
    public = VerificationKey.from_pem("me", read_file(tmp_path / "key.pub.pem"))
    assert done.document == {
        "name": "me",
        "keyid": public.keyid,
        "files": [str(tmp_path / "key.pem"), str(tmp_path / "key.pub.pem")],
    }


def test_private_keys_are_readable_by_their_owner_alone(coin: Coin, tmp_path: Path) -> None:
    coin("keygen", tmp_path, "--name", "acme")
    for name in ("key.pem", "root.pem"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("role", ["provider", "verifier"])
def test_keys_are_never_overwritten(coin: Coin, tmp_path: Path, role: str) -> None:
    coin("keygen", tmp_path, "--name", "acme")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = coin("keygen", tmp_path, "--name", "acme", "--role", role)
    assert done.code == 2
    assert "never overwritten" in done.said
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("kept", ["key.pub.pem", "root.pem", "root.pub.pem", "keyset.binpb"])
def test_a_folder_with_any_file_of_older_keys_is_left_as_it_is(
    coin: Coin, tmp_path: Path, kept: str
) -> None:
    coin("keygen", tmp_path, "--name", "acme")
    for path in tmp_path.iterdir():
        if path.name != kept:
            path.unlink()
    before = (tmp_path / kept).read_bytes()
    done = coin("keygen", tmp_path, "--name", "acme")
    assert done.code == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {kept: before}


def test_a_validity_past_the_end_of_time_is_wrong_usage(coin: Coin, tmp_path: Path) -> None:
    done = coin("keygen", tmp_path / "keys", "--name", "acme", "--days", 99_999_999)
    assert done.code == 2
    assert not (tmp_path / "keys" / "key.pem").exists()


@pytest.mark.parametrize("name", ["", "n" * 257])
def test_a_name_out_of_its_limits_makes_no_keys(coin: Coin, tmp_path: Path, name: str) -> None:
    done = coin("keygen", tmp_path / "keys", "--name", name)
    assert done.code == 2
    assert not (tmp_path / "keys" / "key.pem").exists()


def test_a_folder_that_cannot_be_made_is_code_2(coin: Coin, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        assert coin("keygen", folder, "--name", "acme").code == 2
