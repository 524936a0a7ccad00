"""Make, rotate and revoke the keys of a folder, and sign its key set again under the root.

Files appear whole or not at all, and a private key before the key set that names it, so that a
crash at any point leaves a folder that signs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from coin_protocol import root_certificate
from coin_protocol.errors import ConfigurationError, InvalidInputError, VerificationError
from coin_protocol.files import read_file, replace_file
from coin_protocol.key_folder import KeyFolder, file_uri, key_stem, short_id
from coin_protocol.keys import ED25519, KeyRing, ListedKey, VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME, SignedKeySet, sign_key_set
from coin_protocol.limits import CLOCK_SKEW_SECONDS
from coin_protocol.signer import (
    KeySigner,
    Signer,
    key_password,
    public_pem,
    signer_from_uri,
    sync_folder,
    write_new,
    write_private_key,
)
from coin_protocol.v1 import keys_pb2

BACKDATED: Final = timedelta(seconds=CLOCK_SKEW_SECONDS)
"""By how much a new key's window begins early: what is signed now may be dated a moment ago, or
by a clock that lags."""

MIN_OVERLAP: Final = timedelta(minutes=1) + BACKDATED
"""Every process that signs has noticed a rotation by then, and what it signed by a clock that is
ahead of the one that rotates is not dated past the old key's end."""

MAX_WINDOW: Final = timedelta(days=36_500)
"""Longer than any key should live; keeps dates below the year 9999."""

_LOCK_SECONDS: Final = 30.0
_PUBLIC: Final = 0o644
_PRIVATE: Final = 0o600


@dataclass(frozen=True, slots=True)
class Root:
    """What signs a key set: a signer, and its certificates where verifiers pin no key."""

    signer: Signer
    chain: tuple[bytes, ...] = ()

    def require_current(self, now: datetime) -> None:
        """Check that the certificate, if there is one, is valid now.

        Raises:
            ConfigurationError: It is not.
        """
        if not self.chain:
            return
        first, last = root_certificate.window(self.chain)
        if not first <= now <= last:
            msg = (
                f"the root's certificate is valid from {first.isoformat()} to "
                f"{last.isoformat()}; get a new one and name it with --root-chain"
            )
            raise ConfigurationError(msg)


@dataclass(frozen=True, slots=True)
class NewKey:
    """Which signing key to add.

    Attributes:
        valid_for: Length of its window.
        algorithm: Of a key that is made here.
        uri: Names a key that exists already, in an HSM; None to make one.
    """

    valid_for: timedelta
    algorithm: keys_pb2.KeyAlgorithm.ValueType = ED25519
    uri: str | None = None

    def __post_init__(self) -> None:
        """Check the window.

        Raises:
            InvalidInputError: It is empty or too long.
        """
        if not timedelta() < self.valid_for <= MAX_WINDOW:
            msg = f"a key can be valid for up to {MAX_WINDOW.days} days; found {self.valid_for}"
            raise InvalidInputError(msg)

    def listed(self, public: VerificationKey, now: datetime) -> ListedKey:
        """Return the key with its window, which begins about now."""
        return ListedKey(public, now - BACKDATED, now + self.valid_for)


class KeyKeeper(KeyFolder):
    """A key folder that can be changed. Several processes may use one folder at a time."""

    def root(self, uri: str | None, chain: tuple[bytes, ...] = ()) -> Root:
        """Return the root to sign with.

        Args:
            uri: Of a signer; None for `root.pem` in this folder.
            chain: Certificates of the root's key, if new ones came.

        Raises:
            ConfigurationError: The key cannot be used, is not the one that verifiers pinned,
                or not that of the certificates.
        """
        if uri is None:
            if not self.root_path.exists():
                msg = f"{self.root_path} is not there; say where the root key is with --root-key"
                raise ConfigurationError(msg)
            uri = file_uri(self.root_path)
        signer = signer_from_uri(uri, ROOT_KEY_NAME)
        if not chain and self.key_set_path.exists():
            chain = self.read()[0].root_chain
        if chain:
            require_certificate(chain, signer)
        elif self.root_public_path.exists():
            pinned = VerificationKey.from_pem(ROOT_KEY_NAME, read_file(self.root_public_path))
            if pinned.keyid != signer.public.keyid:
                msg = f"the root key is not the one of {self.root_public_path}, which is pinned"
                raise ConfigurationError(msg)
        return Root(signer, chain)

    def init(self, owner: str, key: NewKey, root: Root | None) -> list[Path]:
        """Make the first signing key, the root key if none is given, and the key set.

        Returns:
            The files.

        Raises:
            ConfigurationError: A file of keys is there already, or cannot be written.
            InvalidInputError: The owner's name is out of its limits.
        """
        with _written(self.path):
            self._make_free()
            now = _now()
            signer = _new_signer(owner, key)
            made = None
            if root is None:
                made = KeySigner.generate(ROOT_KEY_NAME, key.algorithm)
                root = Root(made)
            root.require_current(now)
            files = self._write_key(signer, key.uri, first=True)
            if made is not None:
                write_private_key(self.root_path, made)
                files.append(self.root_path)
            if not root.chain:
                write_new(self.root_public_path, public_pem(root.signer.public), mode=_PUBLIC)
                files.append(self.root_public_path)
            self._issue(owner, [key.listed(signer.public, now)], root, now, 1)
            return [*files, self.key_set_path]

    def rotate(self, key: NewKey, overlap: timedelta, root: Root) -> ListedKey:
        """Add a signing key; those in use stay valid for `overlap`.

        Raises:
            ConfigurationError: The folder or the key cannot be used.
            InvalidInputError: The overlap is too short, or the key set full.
        """
        if not MIN_OVERLAP <= overlap <= MAX_WINDOW:
            msg = f"an overlap of {overlap}; it takes {MIN_OVERLAP} at least"
            raise InvalidInputError(msg)
        with self._locked():
            _, ring = self.read()
            now = _now(ring)
            root.require_current(now)
            signer = _new_signer(ring.owner, key)
            if ring.find(signer.public.keyid) is not None:
                msg = f"key {short_id(signer.public)} is in the key set already"
                raise ConfigurationError(msg)
            added = key.listed(signer.public, now)
            kept = [
                replace(old, not_after=min(old.not_after, now + overlap))
                if old.is_valid(now)
                else old
                for old in ring.keys
            ]
            self._write_key(signer, key.uri, first=False, password=self._password(ring, now))
            self._issue(ring.owner, [*kept, added], root, now, ring.sequence + 1)
            return added

    def revoke(self, keyid: str, at: datetime | None, root: Root) -> ListedKey:
        """Date the revocation of a key. Signatures from then on do not count.

        Args:
            keyid: Its beginning is enough.
            at: None for the moment of this call, to the microsecond and by this machine's clock.
                Rounded down it would take back what was signed just before; rounded up, or
                dated when the folder is free or the last key set was issued, it would leave
                whoever stole the key that long.
            root: Signs the key set.

        Raises:
            ConfigurationError: No other key would be left to sign with, or by this machine's
                clock the last key set is yet to be issued, and no date is given.
            InvalidInputError: There is no such key, it is revoked from earlier on, or the
                date is not within its window.
        """
        called = datetime.now(UTC)
        with self._locked():
            _, ring = self.read()
            now = _now(ring)
            root.require_current(now)
            found = find_key(ring, keyid)
            if at is None:
                _require_past(ring)
                at = called
            if not found.not_before <= at < found.end:
                msg = (
                    f"key {short_id(found.key)} counts from "
                    f"{found.not_before.isoformat()} to {found.end.isoformat()}; it cannot be "
                    f"revoked at {at.isoformat()}"
                )
                raise InvalidInputError(msg)
            revoked = replace(found, revoked_at=at)
            keys = [revoked if listed is found else listed for listed in ring.keys]
            # Dated ahead, it must leave a key for then.
            if not any(listed.is_valid(max(now, at)) for listed in keys):
                msg = "no other key could sign from then on: run `coin keys rotate` first"
                raise ConfigurationError(msg)
            self._issue(ring.owner, keys, root, now, ring.sequence + 1)
            return revoked

    def sign_again(self, root: Root) -> None:
        """Sign the same keys again, under new certificates of the root.

        Raises:
            ConfigurationError: The folder cannot be used.
        """
        with self._locked():
            _, ring = self.read()
            now = _now(ring)
            root.require_current(now)
            self._issue(ring.owner, ring.keys, root, now, ring.sequence + 1)

    def _issue(
        self, owner: str, keys: Sequence[ListedKey], root: Root, now: datetime, sequence: int
    ) -> None:
        signed = sign_key_set(owner, keys, root=root.signer, issued_at=now, sequence=sequence)
        raw = SignedKeySet(signed, root.chain).to_bytes()
        if sequence == 1:
            # Of two commands that make keys here at once, one alone can make the key set.
            write_new(self.key_set_path, raw, mode=_PUBLIC)
            return
        try:
            replace_file(self.key_set_path, raw)
            # Public, and for whoever serves it as a file.
            self.key_set_path.chmod(_PUBLIC)
            sync_folder(self.path)
        except (OSError, InvalidInputError) as error:
            msg = f"cannot write {self.key_set_path}: {error}"
            raise ConfigurationError(msg) from error

    def _password(self, ring: KeyRing, now: datetime) -> bytes | None:
        """Return what a new key is encrypted with: the password of those in use, if they have one.

        What reads one of them then reads the new one, too. The root may be encrypted or not.
        """
        for listed in ring.keys:
            for path in self._private_paths(listed.key) if listed.is_valid(now) else ():
                if path.suffix == ".pem" and b"ENCRYPTED" in read_file(path):
                    # The password at hand may be the root's alone: does it open this one?
                    signer_from_uri(file_uri(path), ring.owner)
                    return key_password()
        return None

    def _write_key(
        self, signer: Signer, uri: str | None, *, first: bool, password: bytes | None = None
    ) -> list[Path]:
        """Write the private half, or where it is, then the public half."""
        stem = "key" if first and uri is None else key_stem(signer.public)
        if isinstance(signer, KeySigner) and uri is None:
            private = self.path / f"{stem}.pem"
            write_private_key(private, signer, password)
        else:
            private = self.path / f"{stem}.uri"
            _write_once(private, f"{uri}\n".encode(), mode=_PRIVATE)
        public = self.path / f"{stem}.pub.pem"
        _write_once(public, public_pem(signer.public), mode=_PUBLIC)
        return [private, public]

    def _make_free(self) -> None:
        """Make the folder, or see that it holds no keys."""
        self.path.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.path.iterdir()):
            if path.name.startswith(("key", "root")):
                msg = f"{path} exists; keys are never overwritten, move them away first"
                raise ConfigurationError(msg)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep two commands from changing the folder at once."""
        if not self.key_set_path.exists():
            msg = f"cannot read {self.key_set_path}: make it with `coin keys init`"
            raise InvalidInputError(msg)
        with _written(self.path):
            try:
                lock = FileLock(self.path / ".lock", timeout=_LOCK_SECONDS).acquire()
            except Timeout as error:
                msg = f"another command is changing {self.path}; try again when it is done"
                raise ConfigurationError(msg) from error
            with lock:
                yield


def _write_once(path: Path, raw: bytes, *, mode: int) -> None:
    """Write a file, or find it as a command that was cut off has left it."""
    if not path.exists() or read_file(path) != raw:
        write_new(path, raw, mode=mode)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        msg = f"cannot write keys to {path}: {error.strerror}"
        raise ConfigurationError(msg) from error


def make_verifier_key(path: Path, name: str, key: NewKey) -> tuple[Signer, list[Path]]:
    """Write one key and its public half, which providers pin; return it and the files.

    Raises:
        ConfigurationError: A file exists already or cannot be written.
        InvalidInputError: The name is out of its limits.
    """
    folder = KeyKeeper(path)
    with _written(path):
        folder._make_free()  # noqa: SLF001 - one module
        signer = _new_signer(name, key)
        return signer, folder._write_key(signer, key.uri, first=True)  # noqa: SLF001 - one module


def find_key(ring: KeyRing, keyid: str) -> ListedKey:
    """Return the key whose id begins with `keyid`.

    Raises:
        InvalidInputError: There is none, or more than one.
    """
    found = [listed for listed in ring.keys if listed.key.keyid.startswith(keyid.lower())]
    if len(found) != 1 or len(keyid) < 8:
        msg = (
            f"{len(found)} keys of the key set have an id that begins with {keyid[:64]!r}; "
            "wanted 8 digits or more of exactly one"
        )
        raise InvalidInputError(msg)
    return found[0]


def require_certificate(chain: Sequence[bytes], signer: Signer) -> None:
    """Check that a chain's leaf is for the signer's key.

    Raises:
        ConfigurationError: It is not.
    """
    try:
        certified = root_certificate.certified_key(chain, ROOT_KEY_NAME)
    except VerificationError as error:
        raise ConfigurationError(str(error)) from error
    if certified.keyid != signer.public.keyid:
        msg = (
            "the root key is not that of the first certificate of the chain; name the "
            "certificate's own key with --root-key"
        )
        raise ConfigurationError(msg)


def _new_signer(name: str, key: NewKey) -> Signer:
    if key.uri is None:
        return KeySigner.generate(name, key.algorithm)
    if "pin-value=" in key.uri:
        msg = "the URI of a signing key is written down; name the PIN's file (pin-source=file:…)"
        raise ConfigurationError(msg)
    return signer_from_uri(key.uri, name).current()


def _require_past(ring: KeyRing) -> None:
    """Check that this machine's clock is past the last issue: else nobody can say what is now.

    Raises:
        ConfigurationError: It is not.
    """
    now = datetime.now(UTC)
    if ring.issued_at is not None and now < ring.issued_at:
        msg = (
            f"by this machine's clock it is {now.isoformat()}, and the key set was issued at "
            f"{ring.issued_at.isoformat()}: set the clock, or say from when with --at"
        )
        raise ConfigurationError(msg)


def _now(ring: KeyRing | None = None) -> datetime:
    """Return the time, to the second, and never before the last issue."""
    now = datetime.now(UTC).replace(microsecond=0)
    return now if ring is None or ring.issued_at is None else max(now, ring.issued_at)
