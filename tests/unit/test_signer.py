"""Private keys: found by URI, never shown, never overwritten."""

from __future__ import annotations

import os
import stat
import traceback
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from coin_protocol.errors import CoinError, ConfigurationError, InvalidInputError
from coin_protocol.keys import ECDSA_P256, ED25519
from coin_protocol.signer import (
    FileSigner,
    KeySigner,
    public_pem,
    signer_from_uri,
    write_private_key,
)
from coin_protocol.testing.world import World

PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
SEC1 = serialization.PrivateFormat.TraditionalOpenSSL
PLAIN = serialization.NoEncryption()
PASSWORD = "correct horse"  # noqa: S105 - of a key made for this test
SECRET = World().random("key key", 32)
ED_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(SECRET)
EC_KEY = ec.derive_private_key(7, ec.SECP256R1())
KEYS = pytest.mark.parametrize("key", [ED_KEY, EC_KEY], ids=["ed25519", "p-256"])
PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


@pytest.fixture(autouse=True)
def _no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COIN_KEY_PASSWORD", raising=False)


def pem_of(key: PrivateKey, encryption: serialization.KeySerializationEncryption = PLAIN) -> bytes:
    return key.private_bytes(PEM, PKCS8, encryption)


def whole_text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


@KEYS
def test_a_key_file_signs_like_the_key_in_it(tmp_path: Path, key: PrivateKey) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem_of(key))
    signer = signer_from_uri(f"file:{path}", "key")
    assert isinstance(signer, FileSigner)
    assert signer.public.keyid == KeySigner("key", key).public.keyid
    signer.public.verify(signer.sign(b"data"), b"data")


def test_a_p256_key_is_also_read_from_sec1(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(EC_KEY.private_bytes(PEM, SEC1, PLAIN))
    assert FileSigner.from_uri(f"file:{path}", "key").public.algorithm == ECDSA_P256


@pytest.mark.parametrize("folder", ["plain", "with space", "100%", "caf\u00e9", "a%20b", "a#b?c"])
@pytest.mark.parametrize("start", ["file:", "file://", "file://localhost"])
def test_escapes_in_a_file_uri_are_undone_once(tmp_path: Path, folder: str, start: str) -> None:
    path = tmp_path / folder / "key.pem"
    path.parent.mkdir()
    path.write_bytes(pem_of(ED_KEY))
    signer = signer_from_uri(start + quote(str(path)), "key")
    assert signer.public.keyid == KeySigner("key", ED_KEY).public.keyid


def test_spaces_need_no_escape(tmp_path: Path) -> None:
    path = tmp_path / "my key.pem"
    path.write_bytes(pem_of(ED_KEY))
    assert FileSigner.from_uri(f"file:{path}", "key").public.algorithm == ED25519


def test_a_relative_path_is_taken_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key.pem").write_bytes(pem_of(ED_KEY))
    monkeypatch.chdir(tmp_path)
    assert FileSigner.from_uri("file:key.pem", "key").public.name == "key"


@KEYS
def test_an_encrypted_key_opens_with_its_password_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: PrivateKey
) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem_of(key, serialization.BestAvailableEncryption(PASSWORD.encode())))
    uri = f"file:{path}"
    for wrong in (None, "", "wrong horse"):
        if wrong is not None:
            monkeypatch.setenv("COIN_KEY_PASSWORD", wrong)
        with pytest.raises(ConfigurationError, match="COIN_KEY_PASSWORD"):
            FileSigner.from_uri(uri, "key")
    monkeypatch.setenv("COIN_KEY_PASSWORD", PASSWORD)
    assert FileSigner.from_uri(uri, "key").public.keyid == KeySigner("key", key).public.keyid


def test_a_password_for_a_key_that_is_not_encrypted_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem_of(ED_KEY))
    monkeypatch.setenv("COIN_KEY_PASSWORD", PASSWORD)
    with pytest.raises(ConfigurationError, match="if and only if it is encrypted"):
        FileSigner.from_uri(f"file:{path}", "key")


@pytest.mark.parametrize(("mode", "told"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_private_key_that_everyone_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, *, told: bool
) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem_of(ED_KEY))
    path.chmod(mode)
    FileSigner.from_uri(f"file:{path}", "key")
    assert (
        f"every user of this machine can read or write the private key {path}" in caplog.text
    ) == told


UNUSABLE: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "garbage": lambda: b"garbage \xff",
    "a public key": lambda: public_pem(KeySigner("key", ED_KEY).public),
    "torn": lambda: pem_of(ED_KEY)[:60],
    "DER": lambda: ED_KEY.private_bytes(serialization.Encoding.DER, PKCS8, PLAIN),
    "RSA": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        PEM, PKCS8, PLAIN
    ),
    "P-384": lambda: ec.derive_private_key(7, ec.SECP384R1()).private_bytes(PEM, PKCS8, PLAIN),
    "Ed448": lambda: ed448.Ed448PrivateKey.generate().private_bytes(PEM, PKCS8, PLAIN),
}


@pytest.mark.parametrize("make", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_file_without_a_usable_private_key_is_refused(
    tmp_path: Path, make: Callable[[], bytes]
) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(make())
    with pytest.raises(CoinError):
        signer_from_uri(f"file:{path}", "key")


def test_a_missing_file_and_a_folder_are_refused_with_their_path(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.pem", tmp_path):
        with pytest.raises(ConfigurationError, match="cannot read the key file") as caught:
            signer_from_uri(f"file:{path}", "key")
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("uri", ["", "key.pem", "kms://project/key", "FILES:key.pem", "env:KEY"])
def test_an_unknown_scheme_is_refused_with_those_that_are_known(uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"known: .*file"):
        signer_from_uri(uri, "key")


@pytest.mark.parametrize("uri", ["file://host/key.pem", "https:key.pem", "key.pem"])
def test_a_file_signer_takes_files_of_this_machine_only(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="wanted file:PATH"):
        FileSigner.from_uri(uri, "key")


@pytest.mark.parametrize("uri", ["file://[key.pem", "file:key%00.pem"])
def test_a_malformed_uri_is_an_error_of_this_project(uri: str) -> None:
    with pytest.raises(ConfigurationError):
        signer_from_uri(uri, "key")


def test_no_error_quotes_what_a_key_file_holds(tmp_path: Path) -> None:
    secret = b64encode(SECRET)
    for raw in (
        b"-----BEGIN PRIVATE KEY-----\n" + secret + b"\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN EC PRIVATE KEY-----\n" + secret,
        secret,
    ):
        path = tmp_path / "key.pem"
        path.write_bytes(raw)
        with pytest.raises(ConfigurationError) as caught:
            FileSigner.from_uri(f"file:{path}", "key")
        found = whole_text(caught.value)
        assert secret.decode() not in found
        assert secret.decode()[:12] not in found


def test_no_error_quotes_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem_of(ED_KEY, serialization.BestAvailableEncryption(b"another")))
    monkeypatch.setenv("COIN_KEY_PASSWORD", PASSWORD)
    with pytest.raises(ConfigurationError) as caught:
        FileSigner.from_uri(f"file:{path}", "key")
    assert PASSWORD not in whole_text(caught.value)


@KEYS
def test_a_signer_shows_its_public_half_only(key: PrivateKey) -> None:
    signer = KeySigner("key", key)
    raw = key.private_bytes(serialization.Encoding.DER, PKCS8, PLAIN)
    number = SECRET if key is ED_KEY else (7).to_bytes(32, "big")
    for text in (repr(signer), str(signer), f"{signer}"):
        assert signer.public.keyid in text
        for hidden in (raw.hex(), number.hex(), repr(number), b64encode(number).decode()):
            assert hidden not in text


def test_ed25519_signatures_are_those_of_the_library() -> None:
    signer = KeySigner("key", ED_KEY)
    assert signer.sign(b"data") == ED_KEY.sign(b"data") == signer.sign(b"data")


def test_ecdsa_signatures_are_over_sha256() -> None:
    signature = KeySigner("key", EC_KEY).sign(b"data")
    EC_KEY.public_key().verify(signature, b"data", ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("algorithm", [ED25519, ECDSA_P256])
def test_generated_keys_are_of_the_algorithm_asked_for_and_new(algorithm: int) -> None:
    first = KeySigner.generate("key", algorithm)  # type: ignore[arg-type]
    second = KeySigner.generate("key", algorithm)  # type: ignore[arg-type]
    assert first.public.algorithm == algorithm
    assert first.public.keyid != second.public.keyid


def test_keys_of_other_algorithms_are_neither_generated_nor_taken() -> None:
    with pytest.raises(InvalidInputError, match="unknown key algorithm"):
        KeySigner.generate("key", 99)  # type: ignore[arg-type]
    for key in (
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
        ec.derive_private_key(7, ec.SECP384R1()),
        ED_KEY.public_key(),
        b"raw bytes",
    ):
        with pytest.raises(InvalidInputError, match="wanted Ed25519 or ECDSA P-256"):
            KeySigner("key", key)


@KEYS
def test_a_written_key_is_its_owners_alone_and_reads_back(tmp_path: Path, key: PrivateKey) -> None:
    path = tmp_path / "key.pem"
    before = os.umask(0)
    try:
        write_private_key(path, KeySigner("key", key))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == pem_of(key)
    found = FileSigner.from_uri(f"file:{path}", "key")
    assert found.public.keyid == KeySigner("key", key).public.keyid


def test_a_private_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(b"precious")
    with pytest.raises(ConfigurationError, match="never overwritten"):
        write_private_key(path, KeySigner("key", ED_KEY))
    assert path.read_bytes() == b"precious"


def test_a_private_key_does_not_follow_a_link(tmp_path: Path) -> None:
    link = tmp_path / "key.pem"
    link.symlink_to(tmp_path / "elsewhere.pem")
    with pytest.raises(ConfigurationError):
        write_private_key(link, KeySigner("key", ED_KEY))
    assert not (tmp_path / "elsewhere.pem").exists()


def test_a_private_key_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot write"):
        write_private_key(tmp_path / "missing" / "key.pem", KeySigner("key", ED_KEY))
