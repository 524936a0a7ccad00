"""Keys in an HSM, by PKCS#11 and URIs as of RFC 7512. The private half never leaves it.

    pkcs11:token=coin;object=signing?module-path=/usr/lib/…/libsofthsm2.so&pin-source=file:/…

The PIN comes from the file that `pin-source` names, from `pin-value`, or from
`COIN_PKCS11_PIN`; the module from `module-path` or `COIN_PKCS11_MODULE`. Neither PIN nor URI is
ever shown.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self
from urllib.parse import unquote_to_bytes

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

from coin_protocol.errors import (
    ConfigurationError,
    InvalidInputError,
    MissingDependencyError,
    TryLaterError,
)
from coin_protocol.files import read_file
from coin_protocol.keys import ED25519, VerificationKey

if TYPE_CHECKING:
    from pkcs11 import KeyType, Mechanism, Session, Token

MAX_PIN_BYTES: Final = 1024
"""A PIN's file; PINs have some tens of characters."""

_PATH: Final = frozenset({"token", "serial", "manufacturer", "model", "object", "id", "type"})
_QUERY: Final = frozenset({"module-path", "pin-source", "pin-value"})
_POINT_BYTES: Final = frozenset({32, 65})
"""Of a public key of Ed25519, and of P-256 uncompressed."""

_P256_OID: Final = bytes.fromhex("06082a8648ce3d030107")


class _PrivateKey(Protocol):
    """What is used of the library's keys, which it puts together at run time."""

    key_type: KeyType
    id: bytes
    label: str

    def sign(self, data: bytes, *, mechanism: Mechanism) -> bytes: ...


class HsmUnavailableError(TryLaterError):
    """The HSM did not sign; it may be gone for a moment."""


@dataclass(frozen=True)
class KeyUri:
    """A `pkcs11:` URI, parsed. Its representation shows no PIN.

    Attributes:
        path: Which token and object, by RFC 7512's names.
        module: The vendor's library.
        pin: For the token's user.
    """

    path: Mapping[str, bytes]
    module: str
    pin: str = field(repr=False)

    @classmethod
    def parse(cls, uri: str) -> KeyUri:
        """Parse a URI and fetch its PIN.

        Raises:
            ConfigurationError: It is malformed, has an attribute that is not known here, names
                no module or object, or the PIN's file cannot be read.
        """
        scheme, separator, rest = uri.partition(":")
        if scheme != "pkcs11" or not separator:
            msg = "wanted pkcs11:token=…;object=…"
            raise ConfigurationError(msg)
        before, _, after = rest.partition("?")
        path = _attributes(before, ";", _PATH)
        query = _attributes(after, "&", _QUERY)
        if path.setdefault("type", b"private") != b"private":
            msg = "a pkcs11: URI of a signer names a private key (type=private)"
            raise ConfigurationError(msg)
        if not path.keys() & {"object", "id"}:
            msg = "a pkcs11: URI must name the key by object= (its label), id= or both"
            raise ConfigurationError(msg)
        module = _text(query, "module-path") or os.environ.get("COIN_PKCS11_MODULE", "")
        if not module:
            msg = "no PKCS#11 module: add ?module-path=/path/to/library.so to the pkcs11: URI"
            raise ConfigurationError(msg)
        return cls(path, module, _pin(query))

    def text(self, name: str) -> str | None:
        """Return a path attribute as text, or None where the URI does not give it."""
        return _text(self.path, name)


_CALLS: Final = threading.RLock()
"""Held for every call of a module: `python-pkcs11` tells modules to expect one thread alone."""


class HsmSigner:
    """Signs with one key of an HSM. Safe to use from several threads; they take turns.

    Where the session fails, the signature is tried once more on a fresh one, so that an HSM may
    restart.
    """

    def __init__(self, uri: KeyUri, name: str) -> None:
        """Find the key and its public half.

        Raises:
            MissingDependencyError: `python-pkcs11` is not installed.
            ConfigurationError: Module, token or key cannot be used.
        """
        self._uri = uri
        self._opened: tuple[Session, _PrivateKey] | None = None
        with _explained(ConfigurationError), _CALLS:
            session, private = self._open()
            self._public = _public_half(name, session, private)

    @classmethod
    def from_uri(cls, uri: str, name: str) -> Self:
        """Find the key that a `pkcs11:` URI names; errors as above, or of the URI."""
        return cls(KeyUri.parse(uri), name)

    def __repr__(self) -> str:
        """Name the public half only."""
        return f"{type(self).__name__}({self._public.name!r}, keyid={self._public.keyid!r})"

    @property
    def public(self) -> VerificationKey:
        """The public half."""
        return self._public

    def current(self) -> Self:
        """Return this signer: it has one key."""
        return self

    def sign(self, data: bytes) -> bytes:
        """Return a signature over `data`: ECDSA in DER.

        Raises:
            HsmUnavailableError: The HSM failed twice.
        """
        _require_pkcs11()
        from pkcs11.exceptions import PKCS11Error

        with _CALLS:
            try:
                return self._sign_once(data)
            except PKCS11Error:
                self.close()
            with _explained(HsmUnavailableError):
                return self._sign_once(data)

    def close(self) -> None:
        """Close the session. The next signature opens another."""
        from pkcs11.exceptions import PKCS11Error

        with _CALLS:
            opened, self._opened = self._opened, None
            if opened is not None:
                with suppress(PKCS11Error):
                    opened[0].close()

    def _sign_once(self, data: bytes) -> bytes:
        from pkcs11 import Mechanism

        _, private = self._open()
        if self._public.algorithm == ED25519:
            return bytes(private.sign(data, mechanism=Mechanism.EDDSA))
        # Hashed here: few tokens know ECDSA with SHA-256 as one mechanism.
        raw = bytes(private.sign(hashlib.sha256(data).digest(), mechanism=Mechanism.ECDSA))
        half = len(raw) // 2
        return utils.encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))

    def _open(self) -> tuple[Session, _PrivateKey]:
        from pkcs11 import Attribute, ObjectClass
        from pkcs11.exceptions import UserAlreadyLoggedIn

        if self._opened is not None:
            return self._opened
        token = _token(self._uri)
        try:
            session = token.open(user_pin=self._uri.pin)
        except UserAlreadyLoggedIn:
            # The login is the process's, and another session has it.
            session = token.open()
        wanted: dict[Attribute, object] = {Attribute.CLASS: ObjectClass.PRIVATE_KEY}
        label, key_id = self._uri.text("object"), self._uri.path.get("id")
        if label is not None:
            wanted[Attribute.LABEL] = label
        if key_id is not None:
            wanted[Attribute.ID] = key_id
        found: list[Any] = list(session.get_objects(wanted))
        if len(found) != 1:
            session.close()
            msg = f"the token has {len(found)} private keys of this label or id; wanted one"
            raise ConfigurationError(msg)
        self._opened = session, found[0]
        return self._opened


def _token(uri: KeyUri) -> Token:
    import pkcs11

    wanted = {name: uri.text(name) for name in ("serial", "manufacturer", "model")}
    found = [
        token
        for token in pkcs11.lib(uri.module).get_tokens(token_label=uri.text("token"))
        if wanted["serial"] in {None, token.serial.decode(errors="replace").strip()}
        and wanted["manufacturer"] in {None, token.manufacturer_id.strip()}
        and wanted["model"] in {None, token.model.strip()}
    ]
    if len(found) != 1:
        msg = f"the PKCS#11 module has {len(found)} tokens like the URI's; wanted one"
        raise ConfigurationError(msg)
    return found[0]


def _public_half(name: str, session: Session, private: _PrivateKey) -> VerificationKey:
    from pkcs11 import Attribute, KeyType, ObjectClass

    wanted = {
        Attribute.CLASS: ObjectClass.PUBLIC_KEY,
        Attribute.KEY_TYPE: private.key_type,
        Attribute.ID: private.id,
    }
    objects: list[Any] = list(session.get_objects(wanted))
    found = [public for public in objects if private.id or public.label == private.label]
    if len(found) != 1:
        msg = f"the token has {len(found)} public keys with the private key's id; wanted one"
        raise ConfigurationError(msg)
    point = _unwrapped(bytes(found[0][Attribute.EC_POINT]))
    key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey
    try:
        if private.key_type == KeyType.EC_EDWARDS:
            key = ed25519.Ed25519PublicKey.from_public_bytes(point)
        elif private.key_type == KeyType.EC and bytes(found[0][Attribute.EC_PARAMS]) == _P256_OID:
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        else:
            msg = "it is of another kind"
            raise ValueError(msg)  # noqa: TRY301 - one way to say it
        return VerificationKey.from_key(name, key)
    except InvalidInputError as error:
        raise ConfigurationError(str(error)) from error
    except ValueError as error:
        msg = f"key {name!r} in the HSM is neither Ed25519 nor ECDSA P-256"
        raise ConfigurationError(msg) from error


def _unwrapped(point: bytes) -> bytes:
    """Return an EC_POINT without the DER OCTET STRING that most tokens put around it."""
    # By its length: a bare point of P-256 begins with 0x04 too, and may go on like one that is not.
    wrapped = len(point) - 2 in _POINT_BYTES and point[0] == 0x04 and point[1] == len(point) - 2
    return point[2:] if wrapped else point


def _attributes(text: str, separator: str, known: frozenset[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for part in text.split(separator) if text else ():
        name, equals, value = part.partition("=")
        if name not in known or not equals or name in found:
            # Neither the value nor a name that is not one: either may be a secret.
            msg = (
                "a pkcs11: URI with an attribute that is malformed, repeated or not known here; "
                f"known: {', '.join(sorted(known))}"
            )
            raise ConfigurationError(msg)
        found[name] = unquote_to_bytes(value)
    return found


def _text(attributes: Mapping[str, bytes], name: str) -> str | None:
    value = attributes.get(name)
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        msg = f"the attribute {name} of a pkcs11: URI is not UTF-8"
        raise ConfigurationError(msg) from None


def _pin(query: Mapping[str, bytes]) -> str:
    value, source = _text(query, "pin-value"), _text(query, "pin-source")
    if value is not None and source is not None:
        msg = "a pkcs11: URI names a PIN twice; wanted pin-source alone"
        raise ConfigurationError(msg)
    if source is not None:
        path = Path(source.removeprefix("file://").removeprefix("file:"))
        if source.startswith("|") or not path.is_absolute():
            msg = "pin-source must be the absolute path of a file (file:/…); no command is run"
            raise ConfigurationError(msg)
        try:
            value = read_file(path)[: MAX_PIN_BYTES + 1].decode().rstrip("\r\n")
        except UnicodeDecodeError:
            value = ""
        except InvalidInputError as error:
            raise ConfigurationError(str(error)) from error
        if not 0 < len(value) <= MAX_PIN_BYTES:
            msg = f"{path} holds no PIN: wanted one line of up to {MAX_PIN_BYTES} characters"
            raise ConfigurationError(msg)
    found = os.environ.get("COIN_PKCS11_PIN") if value is None else value
    if not found:
        msg = "no PIN: add pin-source=file:/… to the pkcs11: URI, or set COIN_PKCS11_PIN"
        raise ConfigurationError(msg)
    return found


@contextmanager
def _explained(kind: type[ConfigurationError | HsmUnavailableError]) -> Iterator[None]:
    """Turn errors of the library into one of ours, by their name alone."""
    _require_pkcs11()
    from pkcs11.exceptions import PKCS11Error

    try:
        yield
    except PKCS11Error as error:
        msg = f"the HSM refused ({type(error).__name__}); see that token, PIN and key are right"
        raise kind(msg) from None
    except (OSError, RuntimeError) as error:
        msg = f"the PKCS#11 module cannot be loaded ({type(error).__name__})"
        raise kind(msg) from None


def _require_pkcs11() -> None:
    try:
        import pkcs11  # noqa: F401 - only whether it is there
    except ModuleNotFoundError as error:
        msg = "keys in an HSM need python-pkcs11: install coin-audit[pkcs11]"
        raise MissingDependencyError(msg) from error
