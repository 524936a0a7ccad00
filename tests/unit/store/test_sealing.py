"""Sealing: what is on disk opens for its session and label, under its key, and for nobody else."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.errors import ConfigurationError
from provider_sdk.store.sealing import KEY_BYTES, KeySealer, sealer_from_uri, write_sealing_key

SESSION = bytes(range(16))
SEALER = KeySealer.generate()


@given(st.binary(max_size=200), st.binary(min_size=16, max_size=16), st.binary(max_size=20))
def test_what_is_sealed_opens_again(plain: bytes, session_id: bytes, label: bytes) -> None:
    sealed = SEALER.seal(plain, session_id=session_id, label=label)
    assert SEALER.unseal(sealed, session_id=session_id, label=label) == plain
    assert len(plain) < 4 or plain not in sealed
    assert SEALER.seal(plain, session_id=session_id, label=label) != sealed


@given(st.data())
def test_no_changed_byte_and_no_other_place_opens(data: st.DataObject) -> None:
    sealed = SEALER.seal(b"secret", session_id=SESSION, label=b"ids:1")
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = bytearray(sealed)
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ConfigurationError):
        SEALER.unseal(bytes(changed), session_id=SESSION, label=b"ids:1")
    with pytest.raises(ConfigurationError):
        SEALER.unseal(sealed, session_id=SESSION, label=b"ids:2")
    with pytest.raises(ConfigurationError):
        SEALER.unseal(sealed, session_id=bytes(16), label=b"ids:1")
    with pytest.raises(ConfigurationError):
        SEALER.unseal(sealed[: data.draw(st.integers(0, 31))], session_id=SESSION, label=b"ids:1")


def test_keys_can_be_replaced() -> None:
    old, new = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(KEY_BYTES)
    before = KeySealer([old]).seal(b"before", session_id=SESSION, label=b"")
    both = KeySealer([new, old])
    assert both.unseal(before, session_id=SESSION, label=b"") == b"before"
    after = both.seal(b"after", session_id=SESSION, label=b"")
    assert KeySealer([new]).unseal(after, session_id=SESSION, label=b"") == b"after"
    with pytest.raises(ConfigurationError, match="not in the sealing key file"):
        KeySealer([old]).unseal(after, session_id=SESSION, label=b"")


def test_no_key_is_in_a_repr() -> None:
    key = secrets.token_bytes(KEY_BYTES)
    shown = repr(KeySealer([key]))
    assert key.hex() not in shown
    assert repr(key)[2:-1] not in shown


def test_a_key_file_is_made_once_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "sealing.key"
    write_sealing_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(base64.b64decode(path.read_text())) == KEY_BYTES
    with pytest.raises(ConfigurationError, match="never overwritten"):
        write_sealing_key(path)
    sealer = sealer_from_uri(f"file:{path}")
    sealed = sealer.seal(b"x", session_id=SESSION, label=b"")
    assert KeySealer.from_uri(f"file:{path}").unseal(sealed, session_id=SESSION, label=b"") == b"x"


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        ("", 0o600, "no sealing key"),
        ("AAAA", 0o600, "no sealing key"),
        ("not base64!", 0o600, "no sealing key"),
        (base64.b64encode(bytes(32)).decode(), 0o644, "chmod 600"),
        (base64.b64encode(bytes(32)).decode(), 0o660, "chmod 600"),
    ],
)
def test_a_file_that_is_no_key_says_what_to_do(
    tmp_path: Path, content: str, mode: int, why: str
) -> None:
    path = tmp_path / "sealing.key"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=why):
        KeySealer.from_uri(f"file:{path}")


@pytest.mark.parametrize("uri", ["file:/missing/key", "http://x/y", "", "kms:x"])
def test_a_uri_that_leads_nowhere_says_so(uri: str) -> None:
    with pytest.raises(ConfigurationError):
        sealer_from_uri(uri)
