"""A signer over a key folder that follows rotations without a restart."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from coin_protocol.clock import SteadyClock
from coin_protocol.errors import CoinError, ConfigurationError, InvalidInputError
from coin_protocol.key_folder import KeyFolder
from coin_protocol.keys import KeyRing, ListedKey, VerificationKey
from coin_protocol.keyset import SignedKeySet
from coin_protocol.signer import Signer

LOOK_SECONDS: Final = 1.0
"""How often the key set's file is looked at, at most."""

RETRY_SECONDS: Final = 30.0
"""How soon keys are looked for again that are listed and could not be had: an HSM may have been
away, or a file still on its way."""

_LOG = logging.getLogger(__name__)
_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """One state of the folder: everything in it belongs together.

    Attributes:
        served: The key set.
        ring: Its keys.
        signers: Private halves by key id, of keys whose window has not ended.
        newest_first: The keys that can sign.
        complete: Whether these are all whose window has not ended.
    """

    served: SignedKeySet
    ring: KeyRing
    signers: Mapping[str, Signer]
    newest_first: tuple[ListedKey, ...]
    complete: bool


class RotatingSigner:
    """Signs with the newest key of a folder whose window holds, and knows the key set to serve.

    A changed key set is noticed within a second of the next use. What cannot be read is logged
    and changes nothing: the keys known before go on signing, and it is looked for again every
    `RETRY_SECONDS`. Safe to use from several threads.

    A statement's envelope is made with `envelope.sign`, which holds one key for both the
    signature and its key id. Ask for `served` after signing, not before: it then lists the key.
    """

    def __init__(
        self, folder: Path, name: str, *, clock: Callable[[], datetime] | None = None
    ) -> None:
        """Read the folder.

        Args:
            folder: That `coin keys` keeps.
            name: The provider's, as in its key set.
            clock: Aware time that windows are held against; by default one that never runs
                backwards, as the one that dates statements.

        Raises:
            ConfigurationError: The key set is another's, or no key here is valid now.
            InvalidInputError: The folder holds no key set that can be read.
        """
        self._folder = KeyFolder(folder)
        self._name = name
        self._clock = SteadyClock().utc if clock is None else clock
        self._reading = threading.Lock()
        self._look_at = time.monotonic() + LOOK_SECONDS
        self._stamp = self._file_stamp()
        self._told: set[str] = set()
        self._loaded = self._load({})
        self._retry_at = _retry_at(complete=self._loaded.complete)
        self.current()

    @classmethod
    def from_uri(cls, uri: str, name: str) -> RotatingSigner:
        """Read `keys:FOLDER`.

        Raises:
            ConfigurationError: The URI is another, or as above.
        """
        parts = urlsplit(uri)
        if parts.scheme != "keys" or parts.netloc or not parts.path:
            msg = f"wanted keys:FOLDER; found {uri!r}"
            raise ConfigurationError(msg)
        try:
            return cls(Path(unquote(parts.path)), name)
        except InvalidInputError as error:
            raise ConfigurationError(str(error)) from error

    def __repr__(self) -> str:
        """Name folder and owner only."""
        return f"{type(self).__name__}({str(self._folder.path)!r}, {self._name!r})"

    @property
    def public(self) -> VerificationKey:
        """The public half of the key in use now; may be another one a moment later."""
        return self.current().public

    @property
    def served(self) -> SignedKeySet:
        """The key set to serve now."""
        self._look()
        return self._loaded.served

    def sign(self, data: bytes) -> bytes:
        """Return a signature over `data` by the key in use now.

        Raises:
            ConfigurationError: As `current`.
        """
        return self.current().sign(data)

    def current(self) -> Signer:
        """Return a signer of the newest key whose window holds now, which stays with it.

        Raises:
            ConfigurationError: No window holds.
        """
        self._look()
        loaded, now = self._loaded, self._clock()
        for listed in loaded.newest_first:
            if listed.is_valid(now):
                return loaded.signers[listed.key.keyid]
        msg = (
            f"{self._folder.path} holds no signing key of {self._name!r} that is valid at "
            f"{now.isoformat()}: run `coin keys rotate`, or see `coin keys show`"
        )
        raise ConfigurationError(msg)

    def reload(self) -> None:
        """Read the folder again now, whether or not it changed.

        Raises:
            ConfigurationError: It cannot be used; the keys known before go on signing.
            InvalidInputError: The key set cannot be read; as above.
        """
        with self._reading:
            self._read_again()

    def _look(self) -> None:
        """Read the folder again if its key set changed, or a key is still to be found."""
        if time.monotonic() < self._look_at or not self._reading.acquire(blocking=False):
            return
        self._look_at = time.monotonic() + LOOK_SECONDS
        if self._file_stamp() != self._stamp:
            self._told.clear()
            self._try_again()
        elif time.monotonic() >= self._retry_at:
            # What was away may take long to say so again: nobody who signs waits for it.
            try:
                threading.Thread(target=self._try_again, name="coin-keys", daemon=True).start()
            except RuntimeError:
                # The interpreter is ending.
                self._reading.release()
        else:
            self._reading.release()

    def _try_again(self) -> None:
        """Read the folder again, and give back the lock that the caller has taken."""
        try:
            self._read_again()
        except CoinError as error:
            self._tell(f"the key folder changed and cannot be used: {error}")
        finally:
            self._reading.release()

    def _tell(self, message: str) -> None:
        """Warn once until the key set changes."""
        if message not in self._told:
            self._told.add(message)
            _LOG.warning("%s", message)

    def _read_again(self) -> None:
        # Taken first: a change while the file is read is then seen at the next look.
        self._stamp = self._file_stamp()
        self._retry_at = _retry_at(complete=False)
        fresh = self._load(self._loaded.signers)
        if fresh.ring.sequence < self._loaded.ring.sequence:
            msg = (
                f"the key set went back from sequence {self._loaded.ring.sequence} to "
                f"{fresh.ring.sequence}"
            )
            raise ConfigurationError(msg)
        self._loaded = fresh
        self._retry_at = _retry_at(complete=fresh.complete)

    def _load(self, known: Mapping[str, Signer]) -> _Loaded:
        served, ring = self._folder.read()
        if ring.owner != self._name:
            msg = f"the key set in {self._folder.path} is that of {ring.owner!r}"
            raise ConfigurationError(msg)
        now = self._clock()
        signers: dict[str, Signer] = {}
        usable, complete = [], True
        for listed in ring.keys:
            if listed.end <= now:
                continue
            keyid = listed.key.keyid
            try:
                signers[keyid] = known.get(keyid) or self._folder.signer(listed)
            except CoinError as error:
                complete = False
                self._tell(f"a listed key cannot sign here: {error}")
            else:
                usable.append(listed)
        if not usable:
            msg = (
                f"{self._folder.path} holds no private half of a key that is still valid: run "
                "`coin keys rotate`, or see `coin keys show`"
            )
            raise ConfigurationError(msg)
        # Of two with one date the later in the list is newer.
        order = sorted(enumerate(usable), key=lambda found: (found[1].not_before, found[0]))
        newest_first = tuple(listed for _, listed in reversed(order))
        return _Loaded(served, ring, signers, newest_first, complete)

    def _file_stamp(self) -> _Stamp | None:
        try:
            found = self._folder.key_set_path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


def _retry_at(*, complete: bool) -> float:
    return math.inf if complete else time.monotonic() + RETRY_SECONDS
