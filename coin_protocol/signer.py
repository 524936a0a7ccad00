"""Private keys behind one interface, found by the scheme of a URI.

`file:` reads PEM, `keys:` follows the newest key of a folder that `coin keys` keeps, `pkcs11:` asks
an HSM. A package brings another scheme (a cloud KMS) with an entry point in the group
`coin.signers`, named after the scheme, that takes (uri, name) and returns a `Signer`.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, Self, cast
from urllib.parse import SplitResult, unquote, urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from coin_protocol.errors import ConfigurationError, InvalidInputError
from coin_protocol.keys import ECDSA_P256, ED25519, VerificationKey
from coin_protocol.v1 import keys_pb2

_LOG = logging.getLogger(__name__)
_OPEN_TO_OTHERS: Final = 0o007

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


class Signer(Protocol):
    """Signs bytes with one key. Safe to use from several threads."""

    @property
    def public(self) -> VerificationKey:
        """The public half."""

    def sign(self, data: bytes) -> bytes:
        """Return a signature over `data`."""

    def current(self) -> Signer:
        """Return a signer of the key in use now, which stays with that key.

        A signer of one key returns itself.
        """


SignerFactory = Callable[[str, str], Signer]
"""Takes (uri, name) and returns the signer that the URI names, signing under the name."""


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

    def current(self) -> Self:
        """Return this signer: it has one key."""
        return self

    def to_pem(self, password: bytes | None = None) -> bytes:
        """Return the private key as PKCS#8 PEM, encrypted if a password is given."""
        encryption = (
            serialization.BestAvailableEncryption(password)
            if password
            else serialization.NoEncryption()
        )
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
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

        A file that others can read is used, and warned of in the log.

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
            mode = path.stat().st_mode
        except (OSError, ValueError) as error:
            msg = f"cannot read the key file {path!r}: {getattr(error, 'strerror', error)}"
            raise ConfigurationError(msg) from error
        try:
            key = serialization.load_pem_private_key(pem, key_password())
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            # The library's own text may quote the file, so it is left out.
            msg = (
                f"{path} holds no private key that can be read: wanted PEM (PKCS#8), and "
                "COIN_KEY_PASSWORD set if and only if it is encrypted"
            )
            raise ConfigurationError(msg) from error
        if os.name == "posix" and mode & _OPEN_TO_OTHERS:
            # Not refused: secrets that a cluster mounts are often like that.
            _LOG.warning("every user of this machine can read or write the private key %s", path)
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
    if scheme in _OWN_SCHEMES:
        # Looked at first: no other package may take one of these over.
        return _OWN_SCHEMES[scheme](uri, name)
    for entry in entry_points(group="coin.signers", name=scheme):
        return cast("SignerFactory", entry.load())(uri, name)
    known = sorted({entry.name for entry in entry_points(group="coin.signers")} | {*_OWN_SCHEMES})
    # The rest of the URI may hold a secret.
    msg = f"no signer for {scheme or 'an empty'} scheme; known: {', '.join(known)}"
    raise ConfigurationError(msg)


def _rotating(uri: str, name: str) -> Signer:
    from coin_protocol.rotation import RotatingSigner

    return RotatingSigner.from_uri(uri, name)


def _in_hsm(uri: str, name: str) -> Signer:
    from coin_protocol.hsm import HsmSigner

    return HsmSigner.from_uri(uri, name)


_OWN_SCHEMES: Final[dict[str, SignerFactory]] = {
    "file": FileSigner.from_uri,
    "keys": _rotating,
    "pkcs11": _in_hsm,
}


def _split(uri: str) -> SplitResult:
    try:
        return urlsplit(uri)
    except ValueError:
        # The library's own text may quote a part of the URI, and with it a secret.
        msg = "what should name a key is not a URI; wanted one like file:PATH"
        raise ConfigurationError(msg) from None


def write_private_key(path: Path, signer: KeySigner, password: bytes | None = None) -> None:
    """Write a private key as PKCS#8 PEM, readable by its owner only, whole or not at all.

    Args:
        path: Where.
        signer: Holds it.
        password: To encrypt it with.

    Raises:
        ConfigurationError: The file exists (keys are never overwritten) or cannot be made.
    """
    write_new(path, signer.to_pem(password))


def write_new(path: Path, raw: bytes, *, mode: int = 0o600) -> None:
    """Write a file that is not there yet, whole or not at all.

    Args:
        path: Where.
        raw: What.
        mode: Who may read it; its owner alone by default.

    Raises:
        ConfigurationError: The file exists or cannot be made.
    """
    try:
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            Path(part).chmod(mode)
            # Unlike a rename, this fails where the name is taken.
            os.link(part, path)
        finally:
            Path(part).unlink(missing_ok=True)
        sync_folder(path.parent)
    except FileExistsError as error:
        msg = f"{path} exists; keys are never overwritten, move it away first"
        raise ConfigurationError(msg) from error
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror}"
        raise ConfigurationError(msg) from error


def key_password() -> bytes | None:
    """Return the password of encrypted keys, from `COIN_KEY_PASSWORD`."""
    return os.environ.get("COIN_KEY_PASSWORD", "").encode() or None


def sync_folder(folder: Path) -> None:
    """Have the names in a folder outlast a power cut, where the system can promise that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def public_pem(key: VerificationKey) -> bytes:
    """Return a public key as PEM SubjectPublicKeyInfo."""
    return key.key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
