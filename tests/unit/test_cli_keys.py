"""`coin keys` makes keys and never overwrites one, rotates, revokes and shows them."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coin_protocol import envelope
from coin_protocol.checks import rooted_keys
from coin_protocol.cli.common import load_trust
from coin_protocol.files import read_file
from coin_protocol.keys import ECDSA_P256, VerificationKey
from coin_protocol.keyset import (
    ROOT_KEY_NAME,
    pinned,
    read_key_set_file,
    read_signed_key_set,
)
from coin_protocol.receipt import RECEIPT_FORMAT, to_json
from coin_protocol.signer import FileSigner, KeySigner, public_pem
from coin_protocol.statements import read_key_set
from coin_protocol.v1 import envelope_pb2, keys_pb2, receipt_pb2
from tests.support.chains import DOMAIN, Certified
from tests.support.command import Coin

EMPTY_RECEIPT = receipt_pb2.Receipt(
    format=RECEIPT_FORMAT, key_set=envelope_pb2.Envelope(), commitment=envelope_pb2.Envelope()
)
EMPTY_RECEIPT.sent_at.GetCurrentTime()

# Keys


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256"])
def test_keys_of_a_provider_are_a_signing_key_a_root_and_a_key_set(
    coin: Coin, tmp_path: Path, algorithm: str
) -> None:
    folder = tmp_path / "new" / "keys"
    before = datetime.now(UTC)
    done = coin("keys", "init", folder, "--name", "acme", "--algorithm", algorithm, "--days", 30)
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
    done = coin("keys", "init", tmp_path, "--name", "me", *options)
    assert {path.name for path in tmp_path.iterdir()} == {"key.pem", "key.pub.pem"}
    public = VerificationKey.from_pem("me", read_file(tmp_path / "key.pub.pem"))
    assert done.document == {
        "name": "me",
        "keyid": public.keyid,
        "files": [str(tmp_path / "key.pem"), str(tmp_path / "key.pub.pem")],
    }


def test_private_keys_are_readable_by_their_owner_alone(coin: Coin, tmp_path: Path) -> None:
    coin("keys", "init", tmp_path, "--name", "acme")
    for name in ("key.pem", "root.pem"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    for name in ("key.pub.pem", "root.pub.pem", "keyset.binpb"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o644


@pytest.mark.parametrize("role", ["provider", "verifier"])
def test_keys_are_never_overwritten(coin: Coin, tmp_path: Path, role: str) -> None:
    coin("keys", "init", tmp_path, "--name", "acme")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = coin("keys", "init", tmp_path, "--name", "acme", "--role", role)
    assert done.code == 2
    assert "never overwritten" in done.said
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("kept", ["key.pub.pem", "root.pem", "root.pub.pem", "keyset.binpb"])
def test_a_folder_with_any_file_of_older_keys_is_left_as_it_is(
    coin: Coin, tmp_path: Path, kept: str
) -> None:
    coin("keys", "init", tmp_path, "--name", "acme")
    for path in tmp_path.iterdir():
        if path.name != kept:
            path.unlink()
    before = (tmp_path / kept).read_bytes()
    done = coin("keys", "init", tmp_path, "--name", "acme")
    assert done.code == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {kept: before}


def test_a_validity_past_the_end_of_time_is_wrong_usage(coin: Coin, tmp_path: Path) -> None:
    done = coin("keys", "init", tmp_path / "keys", "--name", "acme", "--days", 99_999_999)
    assert done.code == 2
    assert not (tmp_path / "keys" / "key.pem").exists()


@pytest.mark.parametrize("name", ["", "n" * 257])
def test_a_name_out_of_its_limits_makes_no_keys(coin: Coin, tmp_path: Path, name: str) -> None:
    done = coin("keys", "init", tmp_path / "keys", "--name", name)
    assert done.code == 2
    assert not (tmp_path / "keys" / "key.pem").exists()


def test_a_folder_that_cannot_be_made_is_code_2(coin: Coin, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        assert coin("keys", "init", folder, "--name", "acme").code == 2


# Rotation and revocation


@pytest.fixture
def folder(coin: Coin, tmp_path: Path) -> Path:
    made = tmp_path / "keys"
    assert coin("keys", "init", made, "--name", "acme").code == 0
    return made


def test_show_lists_keys_windows_and_days_left(coin: Coin, folder: Path) -> None:
    document = coin("keys", "show", folder, "--json").document
    (key,) = document.pop("keys")
    assert document.pop("issued_at")
    assert document == {"owner": "acme", "sequence": 1, "root_certificate": None}
    assert len(key["keyid"]) == 64
    assert (key["name"], key["algorithm"], key["state"]) == ("acme", "ed25519", "valid")
    assert 364.9 < key["days_left"] <= 365
    assert key["revoked_at"] is None
    shown = coin("keys", "show", folder)
    assert shown.code == 0
    assert key["keyid"][:16] in shown.out
    assert "valid" in shown.out


@pytest.mark.parametrize("overlap", ["360s", "7m", "24h", "7d"])
def test_rotate_adds_a_key_and_keeps_the_old_one_for_the_overlap(
    coin: Coin, folder: Path, overlap: str
) -> None:
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    lasts = timedelta(**{units[overlap[-1]]: int(overlap[:-1])})
    done = coin("keys", "rotate", folder, "--overlap", overlap, "--days", 30, "--json")
    assert done.code == 0
    old, new = done.document["keys"]
    left = datetime.fromisoformat(old["not_after"]) - datetime.now(UTC)
    assert lasts - timedelta(seconds=60) < left <= lasts
    assert 29.9 < new["days_left"] <= 30
    assert (old["state"], new["state"]) == ("valid", "valid")
    assert done.document["sequence"] == 2
    assert stat.S_IMODE((folder / f"key-{new['keyid'][:16]}.pem").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "overlap", ["", "24", "h", "1w", "-1h", "0s", "30s", "359s", "1.5h", "999999999d", "٣h"]
)
def test_an_overlap_that_is_none_is_wrong_usage(coin: Coin, folder: Path, overlap: str) -> None:
    done = coin("keys", "rotate", folder, "--overlap", overlap)
    assert done.code == 2
    assert "overlap" in done.said
    assert coin("keys", "show", folder, "--json").document["sequence"] == 1


def test_the_algorithm_stays_unless_another_is_asked_for(coin: Coin, tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    coin("keys", "init", folder, "--name", "acme", "--algorithm", "ecdsa-p256")
    assert coin("keys", "rotate", folder).code == 0
    done = coin("keys", "rotate", folder, "--algorithm", "ed25519", "--json")
    algorithms = [key["algorithm"] for key in done.document["keys"]]
    assert algorithms == ["ecdsa-p256", "ecdsa-p256", "ed25519"]


def test_revoke_dates_the_revocation(coin: Coin, folder: Path) -> None:
    (old,) = coin("keys", "show", folder, "--json").document["keys"]
    early = coin("keys", "revoke", folder, old["keyid"])
    assert early.code == 2
    assert "coin keys rotate" in early.said
    coin("keys", "rotate", folder)
    done = coin("keys", "revoke", folder, old["keyid"][:8], "--json")
    assert done.code == 0
    revoked, new = done.document["keys"]
    assert revoked["state"] == "revoked"
    assert revoked["days_left"] == 0
    assert abs(datetime.fromisoformat(revoked["revoked_at"]) - datetime.now(UTC)) < (
        timedelta(seconds=60)
    )
    assert new["state"] == "valid"
    assert "revoked" in coin("keys", "show", folder).out


def test_a_revocation_can_be_dated_by_hand(coin: Coin, folder: Path) -> None:
    coin("keys", "rotate", folder)
    keyid = coin("keys", "show", folder, "--json").document["keys"][0]["keyid"]
    at = (datetime.now(UTC) + timedelta(hours=2)).replace(microsecond=0)
    text = at.strftime("%Y-%m-%dT%H:%M:%S")
    done = coin("keys", "revoke", folder, keyid, "--at", text, "--json")
    assert done.code == 0
    assert datetime.fromisoformat(done.document["keys"][0]["revoked_at"]) == at
    for wrong in ("2001-01-01", "2999-01-01T00:00:00+0000", "yesterday"):
        assert coin("keys", "revoke", folder, keyid, "--at", wrong).code == 2


@pytest.mark.parametrize("keyid", ["", "0" * 64, "xyz"])
def test_a_key_that_is_not_listed_is_wrong_usage(coin: Coin, folder: Path, keyid: str) -> None:
    coin("keys", "rotate", folder)
    assert coin("keys", "revoke", folder, keyid).code == 2


def test_a_root_kept_elsewhere_is_named(coin: Coin, folder: Path, tmp_path: Path) -> None:
    away = tmp_path / "away.pem"
    (folder / "root.pem").rename(away)
    (old,) = coin("keys", "show", folder, "--json").document["keys"]
    for command in (["rotate"], ["sign"]):
        done = coin("keys", *command, folder)
        assert done.code == 2
        assert "--root-key" in done.said
        assert coin("keys", *command, folder, "--root-key", f"file:{away}").code == 0
    assert coin("keys", "revoke", folder, old["keyid"]).code == 2
    assert coin("keys", "revoke", folder, old["keyid"], "--root-key", f"file:{away}").code == 0
    assert coin("keys", "show", folder, "--json").document["sequence"] == 4


def test_a_root_can_be_given_from_the_start(coin: Coin, tmp_path: Path) -> None:
    coin("keys", "init", tmp_path / "first", "--name", "acme")
    root = f"file:{tmp_path / 'first' / 'root.pem'}"
    done = coin("keys", "init", tmp_path / "second", "--name", "acme", "--root-key", root)
    assert done.code == 0
    assert not (tmp_path / "second" / "root.pem").exists()
    assert read_file(tmp_path / "second" / "root.pub.pem") == (
        read_file(tmp_path / "first" / "root.pub.pem")
    )


def test_a_verifier_has_no_root(coin: Coin, tmp_path: Path) -> None:
    for option in ("--root-key", "--signing-key"):
        done = coin(
            "keys", "init", tmp_path, "--name", "me", "--role", "verifier", option, "file:k"
        )
        assert done.code == 2
    assert not list(tmp_path.iterdir())


# Certificates of the domain


def test_a_root_certificate_is_shown_renewed_and_believed_by_its_domain(
    coin: Coin, tmp_path: Path
) -> None:
    root = Certified()
    private, chain, authority = root.write(tmp_path)
    folder = tmp_path / "keys"
    given = ("--root-key", f"file:{private}", "--root-chain", chain)
    assert coin("keys", "init", folder, "--name", "acme", *given).code == 0
    document = coin("keys", "show", folder, "--json").document
    assert document["root_certificate"]["not_after"]
    assert "root certificate valid to" in coin("keys", "show", folder).out
    # Renewed, under a new key.
    new = Certified(root.authority)
    other = tmp_path / "new"
    other.mkdir()
    private, chain, _ = new.write(other)
    refused = coin("keys", "sign", folder, "--root-key", f"file:{private}")
    assert refused.code == 2
    assert "first certificate of the chain" in refused.said
    done = coin("keys", "sign", folder, "--root-key", f"file:{private}", "--root-chain", chain)
    assert done.code == 0
    served = read_signed_key_set(folder / "keyset.binpb")
    trust = load_trust(None, [DOMAIN], authority, pinned("verifiers", ()))
    assert rooted_keys(served, trust).sequence == 2
    assert load_trust([], [DOMAIN], None, pinned("verifiers", ())).provider_domains[0].authorities


def test_a_chain_without_its_key_or_of_another_key_makes_no_keys(
    coin: Coin, tmp_path: Path
) -> None:
    _, chain, _ = Certified().write(tmp_path)
    (tmp_path / "other.pem").write_bytes(KeySigner.generate("root", ECDSA_P256).to_pem())
    for options in ([], ["--root-key", f"file:{tmp_path / 'other.pem'}"]):
        given = ("--root-chain", chain, *options)
        assert coin("keys", "init", tmp_path / "keys", "--name", "acme", *given).code == 2
    (tmp_path / "garbage").write_bytes(b"garbage")
    given = ("--root-chain", tmp_path / "garbage", "--root-key", f"file:{tmp_path / 'other.pem'}")
    assert coin("keys", "init", tmp_path / "keys", "--name", "acme", *given).code == 2
    assert not (tmp_path / "keys").exists()


def test_whom_to_believe_must_be_said(coin: Coin, tmp_path: Path) -> None:
    _, _, authority = Certified().write(tmp_path)
    (tmp_path / "receipt.json").write_text(to_json(EMPTY_RECEIPT))
    for options, says in (
        ([], "--root FILE or --root-domain DOMAIN"),
        (["--ca", authority, "--root", authority], "--ca goes with --root-domain"),
        (["--root-domain", "not a domain", "--ca", authority], "no domain"),
        (["--root-domain", DOMAIN, "--ca", tmp_path / "receipt.json"], "no certificates"),
    ):
        done = coin("receipt", "verify", tmp_path / "receipt.json", *options)
        assert done.code == 2
        assert says in done.said
