"""Seal what is secret before it goes to disk: AES-256-GCM under a key found by its URI.

`file:` reads a key file. A package brings another scheme (a KMS) with an entry point in the group
`coin.sealers`, named after the scheme, that takes (uri) and returns a `Sealer`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
import stat
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol, cast
from urllib.parse import unquote, urlsplit

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from coin_protocol.errors import ConfigurationError

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_KEY_ID_BYTES: Final = 4
_OPEN_TO_OTHERS: Final = stat.S_IWGRP | stat.S_IRWXO


class Sealer(Protocol):
    """Seals bytes so that only holders of the key can read or change them. Thread-safe."""

    def seal(self, plain: bytes, *, session_id: bytes, label: bytes) -> bytes:
        """Return `plain` sealed; it opens only for the same session and label."""

    def unseal(self, sealed: bytes, *, session_id: bytes, label: bytes) -> bytes:
        """Return what was sealed.

        Raises:
            ConfigurationError: The key is another one, or the bytes were changed.
        """


class KeySealer:
    """AES-256-GCM. The first key seals, all unseal, so that keys can be replaced.

    Each session has a key of its own, HMAC-SHA-256 of its id under the sealing key, so that random
    nonces never meet. Sealed bytes: 4 bytes of the sealing key's id, a random nonce of 12, the
    ciphertext with its tag; the label is authenticated with them.
    """

    def __init__(self, keys: list[bytes]) -> None:
        """Take keys of 32 bytes, the newest first.

        Raises:
            ConfigurationError: There is none, or one is of another length.
        """
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            msg = f"wanted one sealing key of {KEY_BYTES} bytes or more of them"
            raise ConfigurationError(msg)
        self._keys = {_key_id(key): key for key in keys}
        self._newest = _key_id(keys[0])

    def __repr__(self) -> str:
        """Name the newest key by its id."""
        return f"{type(self).__name__}({self._newest.hex()!r}, keys={len(self._keys)})"

    @classmethod
    def generate(cls) -> KeySealer:
        """Make a sealer with a new key that is kept nowhere."""
        return cls([secrets.token_bytes(KEY_BYTES)])

    @classmethod
    def from_uri(cls, uri: str) -> KeySealer:
        """Read `file:PATH`: keys in base64, one a line, the newest first.

        Raises:
            ConfigurationError: The file is missing, readable for others, or holds no keys.
        """
        parts = urlsplit(uri)
        if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
            msg = f"wanted file:PATH; found {uri!r}"
            raise ConfigurationError(msg)
        path = Path(unquote(parts.path))
        try:
            lines = path.read_text(encoding="ascii").split()
            mode = path.stat().st_mode
        except (OSError, ValueError) as error:
            msg = f"cannot read the sealing key {path}: {getattr(error, 'strerror', error)}"
            raise ConfigurationError(msg) from error
        if mode & _OPEN_TO_OTHERS:
            msg = f"{path} is open to others than its owner and group: chmod 600 {path}"
            raise ConfigurationError(msg)
        try:
            keys = [base64.b64decode(line, validate=True) for line in lines]
        except binascii.Error:
            keys = []
        try:
            return cls(keys)
        except ConfigurationError as error:
            msg = f"{path} holds no sealing key: {error}, in base64, one a line"
            raise ConfigurationError(msg) from error

    def seal(self, plain: bytes, *, session_id: bytes, label: bytes) -> bytes:
        """Return `plain` sealed under the newest key."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        cipher = _cipher(self._keys[self._newest], session_id)
        return self._newest + nonce + cipher.encrypt(nonce, plain, label)

    def unseal(self, sealed: bytes, *, session_id: bytes, label: bytes) -> bytes:
        """Return what was sealed under any of the keys."""
        key_id = sealed[:_KEY_ID_BYTES]
        key = self._keys.get(key_id)
        if key is None:
            msg = f"sealed under key {key_id.hex()}, which is not in the sealing key file"
            raise ConfigurationError(msg)
        at = _KEY_ID_BYTES + _NONCE_BYTES
        try:
            return _cipher(key, session_id).decrypt(sealed[_KEY_ID_BYTES:at], sealed[at:], label)
        except (InvalidTag, ValueError) as error:
            msg = "sealed bytes were changed, or belong elsewhere: restore the database"
            raise ConfigurationError(msg) from error


@lru_cache(maxsize=256)
def _cipher(key: bytes, session_id: bytes) -> AESGCM:
    return AESGCM(hmac.digest(key, b"coin.seal.v1" + session_id, "sha256"))


def sealer_from_uri(uri: str) -> Sealer:
    """Return the sealer that `uri` names.

    Raises:
        ConfigurationError: No installed package knows the scheme, or the key cannot be used.
    """
    from importlib.metadata import entry_points

    scheme = urlsplit(uri).scheme
    for entry in entry_points(group="coin.sealers", name=scheme):
        return cast("Sealer", entry.load()(uri))
    known = sorted({entry.name for entry in entry_points(group="coin.sealers")})
    msg = f"no sealer for scheme {scheme!r}; known: {', '.join(known)}"
    raise ConfigurationError(msg)


def write_sealing_key(path: Path) -> None:
    """Write a new sealing key, readable by its owner only.

    Raises:
        ConfigurationError: The file exists (keys are never overwritten) or cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        msg = f"cannot make {path}: {error.strerror}; sealing keys are never overwritten"
        raise ConfigurationError(msg) from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _key_id(key: bytes) -> bytes:
    return sha256(b"coin.sealing-key.v1" + key).digest()[:_KEY_ID_BYTES]
