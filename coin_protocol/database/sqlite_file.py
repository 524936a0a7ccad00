"""The file of a SQLite database: made for its owner alone, and looked for without being made."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from typing import Final

from coin_protocol.errors import ConfigurationError

_PRIVATE: Final = 0o600
_BESIDE: Final = ("-wal", "-shm", "-journal")
_MAKING: Final = threading.Lock()


def make_folder_of(path: Path) -> None:
    """Make the folder of a database for its owner alone, where it is not there.

    Raises:
        ConfigurationError: It cannot be made.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot make {path.parent} for the database: {error.strerror}"
        raise ConfigurationError(msg) from error


def require_place(path: Path) -> None:
    """Check that this user may write a database, or make it; change nothing.

    Raises:
        ConfigurationError: It may not.
    """
    try:
        above = path.absolute().parents
        folder = path.parent if path.parent.exists() else next(f for f in above if f.exists())
        is_folder = folder.is_dir()
    except OSError as error:
        msg = f"cannot look for the database {path}: {error.strerror}"
        raise ConfigurationError(msg) from error
    if not is_folder:
        msg = f"cannot make {path.parent} for the database: {folder} is no folder"
        raise ConfigurationError(msg)
    if not os.access(folder, os.W_OK | os.X_OK):
        msg = f"cannot write to {folder}, where the database is to lie"
        raise ConfigurationError(msg)
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        msg = f"cannot write to the database {path}: give it to the user that runs this"
        raise ConfigurationError(msg)


def make_private(path: str) -> None:
    """Make an empty file for its owner alone, where none is: to SQLite it is an empty database.

    What SQLite makes beside a database gets the mode of its file. One that is there keeps its own.

    Raises:
        sqlite3.OperationalError: It cannot be made.
    """
    # As SQLite does: of a link that leads nowhere it makes what that names.
    real = os.path.realpath(path)
    # Closing a file drops all locks that this process has on it, so nobody else here may have
    # come to it before.
    with _MAKING:
        try:
            os.close(os.open(real, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE))
        except FileExistsError:
            return
        except OSError as error:
            msg = f"unable to make the database file: {error.strerror}"
            raise sqlite3.OperationalError(msg) from error


def files_of(path: Path) -> list[Path]:
    """Return those files of a database that are there: its own, and what SQLite keeps beside it."""
    beside = (path.with_name(path.name + ending) for ending in _BESIDE)
    return [file for file in (path, *beside) if file.exists()]
