"""Read files within limits, and write them so that no reader ever sees half of one."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

from coin_protocol.errors import InvalidInputError, LimitError
from coin_protocol.limits import MAX_FILE_BYTES


def cache_folder() -> Path:
    """Return the folder for what can be made again: the user's, or `COIN_CACHE_DIR`."""
    moved = os.environ.get("COIN_CACHE_DIR")
    return Path(moved) if moved else user_cache_path("coin")


def data_folder() -> Path:
    """Return the folder for what cannot be made again: the user's, or `COIN_DATA_DIR`."""
    moved = os.environ.get("COIN_DATA_DIR")
    return Path(moved) if moved else user_data_path("coin")


def read_file(path: Path) -> bytes:
    """Read a file.

    Raises:
        InvalidInputError: It cannot be read.
        LimitError: It is larger than any file of the protocol may be.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            msg = f"{path} has {size} bytes; at most {MAX_FILE_BYTES} are read"
            raise LimitError(msg)
        return path.read_bytes()
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise InvalidInputError(msg) from error


def open_to_others(status: os.stat_result) -> bool:
    """Return whether a file's mode opens it to others than the user that runs this.

    Where another user owns it, a group that this user is in may read it: a cluster mounts secrets
    like that, and root hands them to a service so. Who else is in the group, that user decides.
    """
    if os.name != "posix":
        return False
    mode = status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    if status.st_uid != os.geteuid() and status.st_gid in {os.getegid(), *os.getgroups()}:
        mode &= ~stat.S_IRGRP
    return mode != 0


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, if it is not there.

    Raises:
        InvalidInputError: It cannot be made, or a file is there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot make the folder {path}: {error.strerror}"
        raise InvalidInputError(msg) from error


def replace_file(path: Path, raw: bytes | memoryview) -> None:
    """Write a file as a whole or not at all; only its owner can read it.

    Raises:
        InvalidInputError: It cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            # A device or pipe, such as /dev/stdout, is written to and never replaced.
            path.write_bytes(raw)
            return
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror}"
        raise InvalidInputError(msg) from error
