"""Values read from files, and read again when the files change."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from coin_protocol.errors import CoinError
from coin_protocol.transport.observe import Observer

T = TypeVar("T")
_Stamp = tuple[tuple[int, int, int, int] | None, ...]

_LOG = logging.getLogger(__name__)


class Reloaded(Generic[T]):
    """What `load` makes of some files, kept as it is while they cannot be read.

    The files are looked at (not read) on every use, so that no timer is needed and a rotation
    counts from the next call on. Files that cannot be used are told once for each change.
    """

    def __init__(
        self, what: str, paths: Sequence[Path], load: Callable[[], T], observer: Observer
    ) -> None:
        """Load for the first time; its error is the caller's.

        Args:
            what: Names the value in the log and in metrics.
            paths: Whose change means to load again.
            load: Reads them; raises `CoinError` where they cannot be used.
            observer: Told of every later reload.
        """
        self._what = what
        self._paths = tuple(paths)
        self._load = load
        self._observer = observer
        self._lock = threading.Lock()
        # Looked at before loading: a change in between is then seen the next time.
        self._stamp = self._look()
        self._value = load()

    def get(self) -> T:
        """Return the value that is in use, after a look at the files."""
        self.changed()
        return self._value

    def changed(self) -> T | None:
        """Return a new value if the files have changed for one that can be used."""
        with self._lock:
            stamp = self._look()
            if stamp == self._stamp:
                return None
            self._stamp = stamp
            try:
                self._value = self._load()
            except CoinError as error:
                _LOG.warning("the %s on disk cannot be used, the old stays: %s", self._what, error)
                self._observer.reloaded(self._what, ok=False)
                return None
            _LOG.info("the %s was read again", self._what)
            self._observer.reloaded(self._what, ok=True)
            return self._value

    def _look(self) -> _Stamp:
        return tuple(_stamp_of(path) for path in self._paths)


def _stamp_of(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
