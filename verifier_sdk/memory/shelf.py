"""The folder that holds a database's segments on this machine, for all its processes.

The manifest names the segments that count. Whoever holds the lock writes; others read at any
time, since files are only ever added, and replaced or removed as a whole.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout
from sqlalchemy import Engine

from coin_protocol.database.engine import shown
from coin_protocol.errors import InvalidInputError, StoreUnavailableError, VerificationError
from coin_protocol.files import cache_folder, make_folder, replace_file
from verifier_sdk.memory.header import Header, Listed, Manifest
from verifier_sdk.memory.segment import Segment, open_segment, read_header

_LOG = logging.getLogger(__name__)

_MANIFEST: Final = "manifest.json"
_LOCK: Final = "lock"

_PATIENCE: Final = 0.5
"""Seconds after which a wait for the lock looks whether it is still wanted."""

Stamp = tuple[int, int, int]


def shelf_folder(engine: Engine, folder: Path | None = None) -> Path:
    """Return where the segments of a database lie, by default in the user's cache folder."""
    url = shown(engine)
    if engine.dialect.name == "sqlite":
        url = str(Path(str(engine.url.database)).absolute())
    return (folder or cache_folder() / "memory") / sha256(url.encode()).hexdigest()[:32]


class Shelf:
    """Segments on disk. Threads must not share one without a lock of their own."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which is made with the first segment."""
        self._folder = folder
        self._opened: dict[Listed, Segment] = {}

    @contextmanager
    def locked(self, *, wait: bool, going_on: Callable[[], None]) -> Iterator[bool]:
        """Hold the lock that whoever writes must hold; gives whether it is held.

        Args:
            wait: Until it is free; else whoever finds it taken goes on without it.
            going_on: Called now and then; what it raises ends the wait.

        Raises:
            InvalidInputError: The folder cannot be written to.
        """
        make_folder(self._folder)
        with self._ours():
            # What is remembered is nobody else's business.
            self._folder.chmod(0o700)
        # Each call has a lock of its own, so that threads wait for each other too.
        lock = FileLock(self._folder / _LOCK)
        while not self._acquire(lock, _PATIENCE if wait else 0.0):
            going_on()
            if not wait:
                yield False
                return
        try:
            yield True
        finally:
            lock.release()

    def _acquire(self, lock: FileLock, timeout: float) -> bool:
        try:
            with self._ours():
                lock.acquire(timeout=timeout)
        except Timeout:
            return False
        return True

    @contextmanager
    def _ours(self) -> Iterator[None]:
        try:
            yield
        except Timeout:
            raise
        except OSError as error:
            msg = f"cannot write to {self._folder}: {error.strerror}"
            raise InvalidInputError(msg) from error

    def stamp(self) -> Stamp | None:
        """Return what changes with the manifest."""
        try:
            found = (self._folder / _MANIFEST).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def read(self) -> Manifest:
        """Return the manifest; an empty one where there is none, or what there is is damaged.

        Raises:
            StoreUnavailableError: It cannot be read now, by want of open files for one.
        """
        try:
            return Manifest.from_json((self._folder / _MANIFEST).read_bytes())
        except FileNotFoundError:
            return Manifest()
        except OSError as error:
            msg = f"cannot read {self._folder / _MANIFEST}: {error.strerror}"
            raise StoreUnavailableError(msg) from error
        except VerificationError as error:
            _LOG.warning("the memory's segments are made again: %s", error)
            return Manifest()

    def write(self, manifest: Manifest) -> None:
        """Replace the manifest.

        Raises:
            InvalidInputError: It cannot be written.
        """
        replace_file(self._folder / _MANIFEST, manifest.to_json())

    def header(self, listed: Listed) -> Header:
        """Return a segment's header.

        Raises:
            VerificationError: It is missing or is not what was written.
        """
        opened = self._opened.get(listed)
        if opened is not None:
            return opened.header
        return read_header(self._folder / listed.name, listed.header_sha256)

    def open(self, listed: Listed) -> Segment:
        """Return a segment, checked when it is first opened.

        Raises:
            VerificationError: It is missing or is not what was written.
        """
        if listed not in self._opened:
            self._opened[listed] = open_segment(self._folder / listed.name, listed.header_sha256)
        return self._opened[listed]

    def let_go(self, manifest: Manifest) -> None:
        """Forget opened segments that the manifest does not name."""
        for listed in self._opened.keys() - set(manifest.segments):
            del self._opened[listed]

    def new_folder(self, first: int, last: int) -> Path:
        """Return the path of a new segment of a range of ids, by a name that none has had."""
        return self._folder / f"{first}-{last}-{secrets.token_hex(8)}"

    def sweep(self, manifest: Manifest) -> None:
        """Delete what the manifest does not name; the lock must be held.

        Processes that have it mapped keep it until they look at the manifest again.

        Raises:
            InvalidInputError: It cannot be deleted.
        """
        keep = {one.name for one in manifest.segments} | {_MANIFEST, _LOCK}
        with self._ours():
            for path in self._folder.iterdir():
                if path.name in keep:
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
