"""Keys that change: by the rules alone, in memory, and in a folder as `coin keys` keeps it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final
from unittest import mock

from cryptography.hazmat.primitives.asymmetric import ed25519

from coin_protocol import envelope, key_keeper
from coin_protocol.errors import ConfigurationError, InvalidInputError
from coin_protocol.key_keeper import BACKDATED, KeyKeeper, NewKey
from coin_protocol.keys import ListedKey, VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME, SignedKeySet, sign_key_set
from coin_protocol.rotation import RotatingSigner
from coin_protocol.signer import KeySigner, Signer
from coin_protocol.testing.machines.rotation import Clock
from coin_protocol.v1 import envelope_pb2
from tests.machines.systems import folder as new_folder

OWNER: Final = "provider"
FIRST_KEY: Final = timedelta(days=30)
_STEPS: Final = frozenset({"open", "os.link", "os.rename", "os.remove", "os.chmod"})


def made_up_key(name: str, number: int) -> KeySigner:
    """Return the same key for the same number."""
    raw = sha256(f"{name} {number}".encode()).digest()
    return KeySigner(name, ed25519.Ed25519PrivateKey.from_private_bytes(raw))


class RulesKeys:
    """A `KeySystem` in memory, of what the protocol says and nothing else.

    Use it as the signer and the key set of a provider too.
    """

    def __init__(self, clock: Clock, *, valid_for: timedelta = FIRST_KEY) -> None:
        self._clock = clock
        self._root = made_up_key(ROOT_KEY_NAME, 0)
        self._signers: dict[str, KeySigner] = {}
        self._listed: list[ListedKey] = []
        self._issued_at = clock()
        self._sequence = 0
        self._set = SignedKeySet(envelope_pb2.Envelope())
        self._add(valid_for)
        self._issue()

    @property
    def root(self) -> VerificationKey:
        return self._root.public

    def rotate(
        self, valid_for: timedelta, overlap: timedelta, *, dies_after: int | None = None
    ) -> bool | None:
        del dies_after
        now = self._now()
        self._listed = [
            replace(old, not_after=min(old.not_after, now + overlap)) if old.is_valid(now) else old
            for old in self._listed
        ]
        self._add(valid_for)
        self._issue()
        return True

    def revoke(self, keyid: str, at: datetime) -> bool:
        changed = [
            replace(old, revoked_at=at) if old.key.keyid == keyid and old.is_valid(at) else old
            for old in self._listed
        ]
        left = any(key.is_valid(max(self._now(), at)) for key in changed)
        if changed == self._listed or not left:
            return False
        self._listed = changed
        self._issue()
        return True

    def sign(self, payload: bytes) -> envelope_pb2.Envelope | None:
        signer = self.signing()
        return None if signer is None else envelope.sign(payload, envelope.COMMITMENT, signer)

    def served(self) -> envelope_pb2.Envelope:
        return self._set.signed

    def restart(self) -> None:
        """Do nothing: all of it is on disk."""

    def close(self) -> None:
        """Do nothing."""

    def signing(self) -> KeySigner | None:
        """Return the newest key that counts now."""
        now = self._clock()
        valid = [listed for listed in self._listed if listed.is_valid(now)]
        return self._signers[valid[-1].key.keyid] if valid else None

    def _now(self) -> datetime:
        return max(self._clock(), self._issued_at)

    def _add(self, valid_for: timedelta) -> None:
        signer, now = made_up_key(OWNER, len(self._listed)), self._now()
        self._signers[signer.public.keyid] = signer
        self._listed.append(ListedKey(signer.public, now - BACKDATED, now + valid_for))

    def _issue(self) -> None:
        self._issued_at = self._now()
        self._sequence += 1
        signed = sign_key_set(
            OWNER,
            self._listed,
            root=self._root,
            issued_at=self._issued_at,
            sequence=self._sequence,
        )
        self._set = SignedKeySet(signed)


class FollowingSigner:
    """The signer, and the key set, of `RulesKeys`."""

    def __init__(self, keys: RulesKeys) -> None:
        self._keys = keys

    @property
    def public(self) -> VerificationKey:
        return self.current().public

    @property
    def served(self) -> SignedKeySet:
        return SignedKeySet(self._keys.served())

    def sign(self, data: bytes) -> bytes:
        return self.current().sign(data)

    def current(self) -> Signer:
        signer = self._keys.signing()
        if signer is None:
            raise ConfigurationError
        return signer


class FolderKeys:
    """A `KeySystem` over a folder: `coin keys` changes it, a `RotatingSigner` follows."""

    def __init__(
        self, clock: Clock, folder: Path | None = None, *, valid_for: timedelta = FIRST_KEY
    ) -> None:
        self._clock = clock
        self._stack = ExitStack()
        if folder is None:
            folder = Path(self._stack.enter_context(new_folder()))

        class ByClock(datetime):
            @classmethod
            def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
                del tz
                return clock()

        self._stack.enter_context(mock.patch.object(key_keeper, "datetime", ByClock))
        self.folder = KeyKeeper(folder / "keys")
        if not self.folder.key_set_path.exists():
            self.folder.init(OWNER, NewKey(valid_for), None)
        self._signer: RotatingSigner | None = None
        self.restart()

    @property
    def root(self) -> VerificationKey:
        return VerificationKey.from_pem(ROOT_KEY_NAME, self.folder.root_public_path.read_bytes())

    @property
    def signer(self) -> RotatingSigner:
        """What follows the folder; it has a key that counts."""
        if self._signer is None:
            self.restart()
        assert self._signer is not None
        return self._signer

    def rotate(
        self, valid_for: timedelta, overlap: timedelta, *, dies_after: int | None = None
    ) -> bool | None:
        def change() -> None:
            self.folder.rotate(NewKey(valid_for), overlap, self.folder.root(None))

        return self._changed(change, dies_after)

    def revoke(self, keyid: str, at: datetime) -> bool:
        def change() -> None:
            self.folder.revoke(keyid, at, self.folder.root(None))

        return bool(self._changed(change, None))

    def sign(self, payload: bytes) -> envelope_pb2.Envelope | None:
        try:
            if self._signer is None:
                self._signer = RotatingSigner(self.folder.path, OWNER, clock=self._clock)
            return envelope.sign(payload, envelope.COMMITMENT, self._signer)
        except ConfigurationError:
            return None

    def served(self) -> envelope_pb2.Envelope:
        signer = self._signer
        return self.folder.read()[0].signed if signer is None else signer.served.signed

    def restart(self) -> None:
        try:
            self._signer = RotatingSigner(self.folder.path, OWNER, clock=self._clock)
        except ConfigurationError:
            self._signer = None  # no window holds

    def close(self) -> None:
        self._stack.close()

    def _changed(self, change: Callable[[], None], dies_after: int | None) -> bool | None:
        try:
            done = _lived(change, dies_after)
        except (ConfigurationError, InvalidInputError):
            return False
        if self._signer is not None:
            with suppress(ConfigurationError):  # it goes on with what it has
                self._signer.reload()
        return True if done else None


def _lived(change: Callable[[], None], steps: int | None) -> bool:
    """Do something, in a process that is killed after so many steps; say whether it was done."""
    if steps is None:
        change()
        return True
    child = os.fork()
    if not child:
        left = steps

        def step(event: str, arguments: object) -> None:
            nonlocal left
            del arguments
            if event in _STEPS:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(step)
        try:
            change()
        finally:
            os._exit(0)  # nothing of this process is to be tidied up by its copy
    _, status = os.waitpid(child, 0)
    return os.WIFEXITED(status)
