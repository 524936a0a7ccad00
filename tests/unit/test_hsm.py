"""Keys in an HSM: SoftHSM through its real PKCS#11 module; PINs are never shown."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from coin_protocol import envelope
from coin_protocol.errors import CoinError, ConfigurationError, MissingDependencyError
from coin_protocol.hsm import HsmSigner, HsmUnavailableError, KeyUri, _unwrapped
from coin_protocol.keyset import pinned
from coin_protocol.rotation import RotatingSigner
from coin_protocol.signer import KeySigner, PrivateKey, signer_from_uri
from tests.support.command import Coin
from tests.support.hsm import PIN, TOKEN, Token, make_token, module

MODULE = module()
ED_KEY = ed25519.Ed25519PrivateKey.generate()
EC_KEY = ec.generate_private_key(ec.SECP256R1())
KEYS: dict[str, PrivateKey] = {"ed": ED_KEY, "p256": EC_KEY}
KINDS = pytest.mark.parametrize("label", ["ed", "p256"])


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    """A token with a key of each kind. The module reads its configuration once a process."""
    if MODULE is None:
        missing = "SoftHSM (Debian: softhsm2) is not installed"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    folder = tmp_path_factory.mktemp("hsm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        made = make_token(folder, MODULE)
        for number, (label, key) in enumerate(KEYS.items(), 1):
            made.load(key, label, f"0{number}")
        made.load(ec.generate_private_key(ec.SECP384R1()), "p384", "11")
        made.load(ec.generate_private_key(ec.SECP256R1()), "lonely", "12", public=False)
        for number in (13, 14):
            made.load(ec.generate_private_key(ec.SECP256R1()), "twice", f"{number}")
        yield made


def whole_text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


# Signing


@KINDS
def test_a_key_in_the_hsm_signs_what_its_public_half_verifies(token: Token, label: str) -> None:
    signer = signer_from_uri(token.uri(label), "acme")
    assert signer.public == KeySigner("acme", KEYS[label]).public
    for data in (b"", b"data", bytes(100_000)):
        signer.public.verify(signer.sign(data), data)
    signed = envelope.sign(b"payload", envelope.COMMITMENT, signer)
    envelope.verify(signed, envelope.COMMITMENT, pinned("acme", [signer.public]))
    assert signer.current() is signer
    assert PIN not in repr(signer)


def test_ecdsa_signatures_are_der_over_sha256(token: Token) -> None:
    signer = HsmSigner.from_uri(token.uri("p256"), "acme")
    for number in range(50):
        # Among so many some have a half with its top bit set, and some a short one.
        data = bytes([number])
        EC_KEY.public_key().verify(signer.sign(data), data, ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize(
    "path",
    [
        {"object": "p256", "id": "%02"},
        {"object": "", "id": "%02"},
        {"object": "p256", "type": "private"},
        {"object": "p256", "manufacturer": "SoftHSM%20project", "model": "SoftHSM%20v2"},
    ],
    ids=str,
)
def test_a_key_is_found_by_what_its_uri_says(token: Token, path: dict[str, str]) -> None:
    signer = HsmSigner.from_uri(token.uri(path.pop("object"), **path), "acme")
    assert signer.public.spki == KeySigner("acme", EC_KEY).public.spki


@KINDS
def test_many_threads_sign_at_once(token: Token, label: str) -> None:
    signer = HsmSigner.from_uri(token.uri(label), "acme")

    def sign(number: int) -> None:
        data = f"{number}".encode()
        signer.public.verify(signer.sign(data), data)

    with ThreadPoolExecutor(24) as pool:
        list(pool.map(sign, range(300)))


def test_two_signers_share_a_token(token: Token) -> None:
    one = HsmSigner.from_uri(token.uri("ed"), "acme")
    other = HsmSigner.from_uri(token.uri("p256"), "root")
    one.close()
    for signer in (one, other, one):
        signer.public.verify(signer.sign(b"data"), b"data")


def test_a_lost_session_costs_no_signature(token: Token) -> None:
    signer = HsmSigner.from_uri(token.uri("ed"), "acme")
    assert signer._opened is not None
    signer._opened[0].close()
    signer.public.verify(signer.sign(b"data"), b"data")


def test_an_hsm_that_is_gone_is_said_to_be(token: Token, monkeypatch: pytest.MonkeyPatch) -> None:
    import pkcs11.exceptions

    signer = HsmSigner.from_uri(token.uri("ed"), "acme")

    def gone(*_: object) -> None:
        raise pkcs11.exceptions.DeviceRemoved

    monkeypatch.setattr(signer, "_open", gone)
    signer.close()
    with pytest.raises(HsmUnavailableError, match="DeviceRemoved") as failed:
        signer.sign(b"data")
    assert PIN not in whole_text(failed.value)


# What is refused


@pytest.mark.parametrize(
    ("label", "path", "says"),
    [
        ("nothing", {}, "0 private keys"),
        ("twice", {}, "2 private keys"),
        ("lonely", {}, "0 public keys"),
        ("p384", {}, "neither Ed25519 nor ECDSA P-256"),
        ("ed", {"id": "%02"}, "0 private keys"),
        ("ed", {"token": "another"}, "0 tokens"),
        ("ed", {"serial": "0000"}, "0 tokens"),
    ],
)
def test_a_key_that_is_not_there_or_not_of_ours_is_refused(
    token: Token, label: str, path: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        signer_from_uri(token.uri(label, **path), "acme")


def test_pins_come_from_the_uri_its_file_or_the_environment(
    token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COIN_PKCS11_PIN", raising=False)
    for query in (f"pin-value={PIN}", f"pin-source={token.pin_file}", None):
        HsmSigner.from_uri(token.uri("ed", query), "acme")
    with pytest.raises(ConfigurationError, match="no PIN"):
        HsmSigner.from_uri(token.uri("ed", ""), "acme")
    monkeypatch.setenv("COIN_PKCS11_PIN", PIN)
    HsmSigner.from_uri(token.uri("ed", ""), "acme")
    monkeypatch.setenv("COIN_PKCS11_MODULE", token.module)
    HsmSigner.from_uri(f"pkcs11:token={TOKEN.replace(' ', '%20')};object=ed", "acme")


def test_a_wrong_pin_is_refused_and_not_shown(token: Token) -> None:
    # The login is the process's: asked in one of its own, which is not logged in.
    code = (
        "import sys; from coin_protocol.signer import signer_from_uri\n"
        "try: signer_from_uri(sys.argv[1], 'acme')\n"
        "except Exception as error:\n"
        "    import traceback; traceback.print_exc(); print(repr(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, token.uri("ed", "pin-value=0xdeadbeef")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=dict(os.environ),
    )
    assert "ConfigurationError" in done.stdout
    assert "PinIncorrect" in done.stdout
    assert "deadbeef" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "uri",
    [
        "pkcs11:",
        "pkcs11:token=coin?module-path=/m.so&pin-value=S3CRET",
        "pkcs11:object=k?pin-value=S3CRET",
        "pkcs11:object=k?module-path=&pin-value=S3CRET",
        "pkcs11:object=k;type=public?module-path=/m.so&pin-value=S3CRET",
        "pkcs11:object=k;colour=red?module-path=/m.so&pin-value=S3CRET",
        "pkcs11:object=k;object=l?module-path=/m.so&pin-value=S3CRET",
        "pkcs11:object=k;pin-value=S3CRET?module-path=/m.so",
        "pkcs11:object=k?module-path=/m.so&pin-value=S3CRET&pin-source=/S3CRET",
        "pkcs11:object=k?module-path=/m.so&pin-value=S3CRET&pin-value=S3CRET",
        "pkcs11:object=k?module-path=/m.so&S3CRET",
        "pkcs11:object=k?module-path=/m.so&pin-value=%ff%fe",
        "pkcs11:object=k?module-path=/m.so&pin-source=|S3CRET",
        "pkcs11:object=k?module-path=/m.so&pin-source=relative",
        "pkcs11:object=k?module-path=/missing/module.so&pin-value=S3CRET",
        "pkcs11:object=%ff?module-path=/missing/module.so&pin-value=S3CRET",
        "kms://S3CRET@host/key",
        "kms:key?token=S3CRET",
        "file://[S3CRET/key.pem",
    ],
)
def test_a_uri_that_cannot_be_used_is_refused_without_its_secrets(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pkcs11")
    for name in ("COIN_PKCS11_PIN", "COIN_PKCS11_MODULE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError) as refused:
        signer_from_uri(uri, "acme")
    assert "S3CRET" not in str(refused.value)
    assert "S3CRET" not in repr(refused.value)


def test_a_pin_file_without_a_pin_is_refused(tmp_path: Path) -> None:
    for number, raw in enumerate((b"", b"\n", b"\xff", b"1" * 2000)):
        path = tmp_path / str(number)
        path.write_bytes(raw)
        with pytest.raises(ConfigurationError, match="holds no PIN"):
            KeyUri.parse(f"pkcs11:object=k?module-path=/m.so&pin-source=file:{path}")
    with pytest.raises(ConfigurationError, match="cannot read"):
        KeyUri.parse(f"pkcs11:object=k?module-path=/m.so&pin-source=file:{tmp_path / 'none'}")


def test_a_parsed_uri_shows_no_pin() -> None:
    uri = KeyUri.parse("pkcs11:object=a%20b;id=%01?module-path=/m.so&pin-value=S3%26CRET")
    assert uri.pin == "S3&CRET"
    assert uri.text("object") == "a b"
    assert uri.path["id"] == b"\x01"
    assert "CRET" not in repr(uri)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(MissingDependencyError, match=r"coin-audit\[pkcs11\]"):
        signer_from_uri("pkcs11:object=k?module-path=/m.so&pin-value=1", "acme")


# Folders of keys in an HSM


def test_root_and_signing_keys_can_be_in_the_hsm(coin: Coin, token: Token, tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    root = ("--root-key", token.uri("p256"))
    done = coin("keys", "init", folder, "--name", "acme", *root, "--signing-key", token.uri("ed"))
    assert done.code == 0, done.said
    files = {path.name for path in folder.iterdir()}
    assert not any(name.endswith((".pem",)) and ".pub." not in name for name in files)
    assert all(PIN.encode() not in path.read_bytes() for path in folder.iterdir())
    signer = RotatingSigner(folder, "acme")
    assert signer.public.spki == KeySigner("acme", ED_KEY).public.spki
    assert coin("keys", "rotate", folder, *root).code == 0
    signer.reload()
    assert signer.public.spki != KeySigner("acme", ED_KEY).public.spki
    first = coin("keys", "show", folder, "--json").document["keys"][0]["keyid"]
    assert coin("keys", "revoke", folder, first[:12], *root).code == 0
    again = coin("keys", "rotate", folder, *root, "--signing-key", token.uri("ed"))
    assert again.code == 2
    assert "already" in again.said
    assert PIN not in again.said


def test_the_lib_errors_of_a_missing_module_do_not_leak(tmp_path: Path) -> None:
    pytest.importorskip("pkcs11")
    broken = tmp_path / "module.so"
    broken.write_bytes(b"no library")
    with pytest.raises(CoinError, match=r"cannot be loaded|refused"):
        signer_from_uri(f"pkcs11:object=k?module-path={broken}&pin-value=1", "acme")


@pytest.mark.parametrize("second", [0x00, 63])
def test_a_point_is_read_whether_or_not_the_token_wraps_it(second: int) -> None:
    # 63 is what the length would be, were the first two bytes of a bare point a wrapping.
    bare = bytes((0x04, second)) + bytes(63)
    edwards = bytes((0x04, 30)) + bytes(30)
    for point in (bare, edwards):
        assert _unwrapped(point) == point
        assert _unwrapped(bytes((0x04, len(point))) + point) == point
