"""Private keys behind one interface, found by the scheme of a URI.

`file:` reads PEM. A package brings another scheme (a KMS, an HSM) with an entry point in the
group `coin.signers`, named after the scheme, that takes (uri, name) and returns a `Signer`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import SplitResult, unquote, urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from coin_protocol.errors import ConfigurationError, InvalidInputError
from coin_protocol.keys import ECDSA_P256, ED25519, VerificationKey
from coin_protocol.v1 import keys_pb2

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


class Signer(Protocol):
    """Signs bytes with one key. Safe to use from several threads."""

    @property
    def public(self) -> VerificationKey:
        """The public half."""

    def sign(self, data: bytes) -> bytes:
        """Return a signature over `data`."""


class KeySigner:
    """A signer that holds its private key in memory and never shows it."""

    def __init__(self, name: str, key: object) -> None:
        """Sign under `name` with a private key of `cryptography`.

        Raises:
            InvalidInputError: It is no Ed25519 or P-256 key.
        """
        if not isinstance(key, (ed25519.Ed25519PrivateKey, ec.EllipticCurvePrivateKey)):
            msg = f"key {name!r} is {type(key).__name__}; wanted Ed25519 or ECDSA P-256"
            raise InvalidInputError(msg)
        self._key: PrivateKey = key
        self._public = VerificationKey.from_key(name, key.public_key())

    def __repr__(self) -> str:
        """Name the public half only."""
        return f"{type(self).__name__}({self._public.name!r}, keyid={self._public.keyid!r})"

    @property
    def public(self) -> VerificationKey:
        """The public half."""
        return self._public

    def sign(self, data: bytes) -> bytes:
        """Return a signature over `data`."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(data)
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))

    def to_pem(self) -> bytes:
        """Return the private key as unencrypted PKCS#8 PEM, for `write_private_key`."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @classmethod
    def generate(cls, name: str, algorithm: keys_pb2.KeyAlgorithm.ValueType = ED25519) -> KeySigner:
        """Make a new key."""
        if algorithm == ED25519:
            return cls(name, ed25519.Ed25519PrivateKey.generate())
        if algorithm == ECDSA_P256:
            return cls(name, ec.generate_private_key(ec.SECP256R1()))
        msg = f"unknown key algorithm {algorithm}; wanted Ed25519 or ECDSA P-256"
        raise InvalidInputError(msg)


class FileSigner(KeySigner):
    """A signer whose key is a PEM file (PKCS#8, or SEC 1 for P-256)."""

    @classmethod
    def from_uri(cls, uri: str, name: str) -> FileSigner:
        """Read `file:PATH`; the password of an encrypted key is in `COIN_KEY_PASSWORD`.

        Raises:
            ConfigurationError: The file is missing, unreadable, encrypted with another
                password, or no private key of a known kind.
        """
        parts = _split(uri)
        if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
            msg = f"wanted file:PATH; found {uri!r}"
            raise ConfigurationError(msg)
        path = Path(unquote(parts.path))
        try:
            pem = path.read_bytes()
        except (OSError, ValueError) as error:
            msg = f"cannot read the key file {path!r}: {getattr(error, 'strerror', error)}"
            raise ConfigurationError(msg) from error
        password = os.environ.get("COIN_KEY_PASSWORD")
        try:
            key = serialization.load_pem_private_key(pem, password.encode() if password else None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            # The library's own text may quote the file, so it is left out.
            msg = (
                f"{path} holds no private key that can be read: wanted PEM (PKCS#8), and "
                "COIN_KEY_PASSWORD set if and only if it is encrypted"
            )
            raise ConfigurationError(msg) from error
        try:
            return cls(name, key)
        except InvalidInputError as error:
            raise ConfigurationError(str(error)) from error


def signer_from_uri(uri: str, name: str) -> Signer:
    """Return the signer that `uri` names, signing under `name`.

    Raises:
        ConfigurationError: No installed package knows the scheme, or the key cannot be used.
    """
    from importlib.metadata import entry_points  # a tenth of this package's import time

    scheme = _split(uri).scheme
    for entry in entry_points(group="coin.signers", name=scheme):
        return cast("Signer", entry.load()(uri, name))
    known = sorted({entry.name for entry in entry_points(group="coin.signers")})
    msg = f"no signer for {scheme or 'an empty'} scheme in {uri!r}; known: {', '.join(known)}"
    raise ConfigurationError(msg)


def _split(uri: str) -> SplitResult:
    try:
        return urlsplit(uri)
    except ValueError as error:
        msg = f"not a URI: {uri!r}; wanted one like file:PATH"
        raise ConfigurationError(msg) from error


def write_private_key(path: Path, signer: KeySigner) -> None:
    """Write a private key as PKCS#8 PEM, readable by its owner only.

    Raises:
        ConfigurationError: The file exists (keys are never overwritten) or cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        msg = f"{path} exists; keys are never overwritten, move it away first"
        raise ConfigurationError(msg) from error
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror}"
        raise ConfigurationError(msg) from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(signer.to_pem())


def public_pem(key: VerificationKey) -> bytes:
    """Return a public key as PEM SubjectPublicKeyInfo."""
    return key.key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
