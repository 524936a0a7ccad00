"""The folder of a provider's keys, as what signs reads it.

keyset.binpb            the signed key set, as GetKeySet serves it
key.pem, key.pub.pem    the first signing key
key-<key id>.pem, …     later ones, by the first 16 digits of their id
key-<key id>.uri        in place of the .pem: where a key is that cannot be read out (an HSM)
root.pem, root.pub.pem  the root key; root.pem may be kept elsewhere
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import quote

from coin_protocol import envelope, root_certificate
from coin_protocol.errors import (
    ConfigurationError,
    InvalidInputError,
    SignatureError,
    VerificationError,
)
from coin_protocol.files import read_file
from coin_protocol.keys import KeyRing, ListedKey, VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME, SignedKeySet, read_signed_key_set
from coin_protocol.signer import Signer, signer_from_uri
from coin_protocol.statements import read_key_set

_ID_DIGITS: Final = 16


class KeyFolder:
    """The keys of one provider. Several processes may use one folder at a time."""

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is read yet."""
        self.path = path

    @property
    def key_set_path(self) -> Path:
        """The signed key set."""
        return self.path / "keyset.binpb"

    @property
    def root_path(self) -> Path:
        """The root's private key, where it is kept here."""
        return self.path / "root.pem"

    @property
    def root_public_path(self) -> Path:
        """What verifiers pin; there is none where the root is a certificate."""
        return self.path / "root.pub.pem"

    def read(self) -> tuple[SignedKeySet, KeyRing]:
        """Return the key set, and its keys.

        Raises:
            InvalidInputError: There is none, it is malformed, or the root beside it did not
                sign it.
        """
        served = read_signed_key_set(self.key_set_path)
        root = self._public_root(served)
        if root is not None:
            try:
                envelope.verify_with_key(served.signed, envelope.KEY_SET, root)
            except SignatureError as error:
                msg = f"the root of {self.path} did not sign its key set: {error}"
                raise InvalidInputError(msg) from error
        return served, read_key_set(served.signed.payload)

    def signer(self, listed: ListedKey) -> Signer:
        """Return the private half of a listed key.

        Raises:
            ConfigurationError: It is not here, or cannot be used.
        """
        key = listed.key
        why = f"{self.path} holds no private half of key {short_id(key)}"
        for path in self._private_paths(key):
            if path.suffix == ".uri":
                uri = read_file(path).decode(errors="replace").strip()
            else:
                uri = file_uri(path)
            found = signer_from_uri(uri, key.name)
            if found.public.keyid == key.keyid:
                return found
            if path.name != "key.pem":
                why = f"{path} is another key than {short_id(key)}"
        raise ConfigurationError(why)

    def _private_paths(self, key: VerificationKey) -> list[Path]:
        names = (f"{key_stem(key)}.pem", f"{key_stem(key)}.uri", "key.pem")
        return [path for path in map(self.path.joinpath, names) if path.exists()]

    def _public_root(self, served: SignedKeySet) -> VerificationKey | None:
        if served.root_chain:
            try:
                return root_certificate.certified_key(served.root_chain, ROOT_KEY_NAME)
            except VerificationError as error:
                msg = f"{self.key_set_path}: {error}"
                raise InvalidInputError(msg) from error
        if self.root_public_path.exists():
            return VerificationKey.from_pem(ROOT_KEY_NAME, read_file(self.root_public_path))
        return None


def file_uri(path: Path) -> str:
    """Return the URI of a key file."""
    return f"file:{quote(str(path))}"


def short_id(key: VerificationKey) -> str:
    """Return the first digits of a key's id."""
    return f"{key.keyid[:_ID_DIGITS]}…"


def key_stem(key: VerificationKey) -> str:
    """Return the name of a key's files, without what follows the dot."""
    return f"key-{key.keyid[:_ID_DIGITS]}"
