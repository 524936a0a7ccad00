"""What is wrong with an installation, and what to do: each thing looked at once.

Packages bring examinations of their own through the entry points `coin.doctors`: a function that
takes the file of its settings and yields findings. None of them changes anything.
"""

from __future__ import annotations

import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from coin_protocol.errors import CoinError, MissingDependencyError
from coin_protocol.files import cache_folder, data_folder, open_to_others
from coin_protocol.models import Models
from coin_protocol.profile import Profile
from coin_protocol.table import table_path

Examination = Callable[[Path], Iterable["Finding"]]
"""Looks at a component by the file of its settings."""

_INSTALL: Final = "pip install 'coin-audit[embedding]'"
"""What to do where a process is to embed and cannot."""

_PACKAGE: Final = "coin-audit"
_LEAST_FREE_BYTES: Final = 1 << 30
_PYTHON: Final = (3, 11)
_BROKEN: Final = {"litellm": ("1.82.7", "1.82.8")}
"""Releases that were compromised."""


class State(StrEnum):
    """How grave a finding is."""

    GOOD = "good"
    NOTE = "note"
    """Works, and may not be what is wanted."""
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: It, in a few words.
        state: How it is.
        found: What was found.
        advice: What to do; empty where nothing is to be done.
    """

    what: str
    state: State
    found: str
    advice: str = ""


def good(what: str, found: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(what, State.GOOD, found)


def note(what: str, found: str, advice: str) -> Finding:
    """Return a finding that may matter."""
    return Finding(what, State.NOTE, found, advice)


def wrong(what: str, found: str, advice: str) -> Finding:
    """Return a finding that has to be mended."""
    return Finding(what, State.WRONG, found, advice)


def tried(what: str, look: Callable[[], str], advice: str) -> Finding:
    """Return what a look found, or the error that it raised, with what to do about it."""
    try:
        return good(what, look())
    except CoinError as error:
        return wrong(what, str(error), advice)


def examine_installation() -> Iterator[Finding]:
    """Look at Python, packages, folders, models and the token table."""
    yield _python()
    yield from _packages()
    for name, folder in (("cache folder", cache_folder()), ("data folder", data_folder())):
        yield _folder(name, folder)
    yield from _models()


def embedding(setting: str, count: int, elsewhere: str) -> Finding:
    """Say whether a process that embeds as its settings say can do so; the model is not looked at.

    Args:
        setting: Its name; 0 leaves embedding to others.
        count: Its value.
        elsewhere: The command that embeds then.
    """
    if not count:
        return good("embedding", f"left to {elsewhere} ({setting} is 0)")
    if _can_embed():
        return good("embedding", f"done here ({setting} is {count})")
    return wrong(
        "embedding",
        f"sentence-transformers is not installed, and {setting} is {count}",
        f"{_INSTALL}; or {setting} = 0, and {elsewhere} elsewhere",
    )


def readable_secret(what: str, path: Path) -> Finding:
    """Look at a file that only its owner should read."""
    try:
        status = path.stat()
        with path.open("rb"):
            pass
    except OSError as error:
        return wrong(what, f"{path}: {error.strerror}", "give the file to the user that runs this")
    if open_to_others(status):
        mode = f"mode {stat.S_IMODE(status.st_mode):o}"
        return wrong(what, f"{path} can be read by others ({mode})", "chmod 600 it")
    return good(what, str(path))


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _PYTHON:
        return wrong("Python", found, "install Python 3.11 or later")
    return good("Python", found)


def _packages() -> Iterator[Finding]:
    """Look at what this package needs, and at its extras of which something is there."""
    try:
        own = distribution(_PACKAGE)
    except PackageNotFoundError:
        yield wrong("package", "coin-audit is run from a folder", "pip install coin-audit")
        return
    yield good("package", f"coin-audit {own.version}")
    try:
        from packaging.requirements import Requirement
    except ImportError:
        yield note("requirements", "not looked at: packaging is missing", "pip install packaging")
        return
    missing: dict[str, list[str]] = {}
    for line in own.requires or ():
        requirement = Requirement(line)
        extra = _extra_of(str(requirement.marker or ""))
        if requirement.name == _PACKAGE or (
            requirement.marker and not requirement.marker.evaluate({"extra": extra})
        ):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            missing.setdefault(extra, []).append(requirement.name)
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wanted = f"{requirement.name} {requirement.specifier}"
            yield wrong("requirement", f"{requirement.name} {found}", f"pip install '{wanted}'")
        if found in _BROKEN.get(requirement.name, ()):
            yield wrong(
                "requirement",
                f"{requirement.name} {found}, a compromised release",
                "remove it, and change every secret that this machine held",
            )
    for extra, names in sorted(missing.items()):
        what = f"extra {extra}" if extra else "requirements"
        found = f"not installed: {', '.join(sorted(set(names)))}"
        if extra:
            advice = f"where you want it: pip install '{_PACKAGE}[{extra}]'"
            yield Finding(what, State.NOTE, found, advice)
        else:
            yield wrong(what, found, f"pip install {_PACKAGE}")


def _extra_of(marker: str) -> str:
    _, separator, rest = marker.partition("extra ==")
    return rest.strip().split()[0].strip("\"'") if separator else ""


def _folder(what: str, folder: Path) -> Finding:
    try:
        # One that is not there yet is made when it is needed: here nothing is changed.
        there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
        free = shutil.disk_usage(there).free
    except OSError as error:
        variable = "COIN_CACHE_DIR" if what.startswith("cache") else "COIN_DATA_DIR"
        return wrong(what, f"{folder}: {error.strerror}", f"make it writable, or set {variable}")
    if free < _LEAST_FREE_BYTES:
        return wrong(what, f"{folder} has {free >> 20} MiB free", "make room: 1 GiB at least")
    return good(what, f"{folder}, {free >> 30} GiB free")


def _can_embed() -> bool:
    return find_spec("sentence_transformers") is not None


def _models() -> Iterator[Finding]:
    profile = Profile.shipped("default")
    models = Models(profile)
    looks: dict[str, Callable[[], str]] = {
        "tokenizer": lambda: f"{models.tokenizer.vocabulary_size} ids, digest as named",
    }
    if _can_embed():
        looks["embedding model"] = lambda: (
            f"{models.embedder.dimension} dimensions, digests as named"
        )
    else:
        # Not looked for: a hub would be asked for what could not be run here.
        yield note(
            "embedding model",
            "sentence-transformers is not installed",
            "where fingerprints or token tables are made (coin provider worker, coin table build) "
            f"or replies audited: {_INSTALL}",
        )
    for what, look in looks.items():
        try:
            yield good(what, look())
        except MissingDependencyError as error:
            yield note(what, str(error), f"to audit, or to sign: {_INSTALL}")
        except CoinError as error:
            yield wrong(what, str(error), _INSTALL)
    path = table_path(profile.message)
    if path.exists():
        yield good("token table", str(path))
    else:
        yield note("token table", f"not built ({path})", "to sign replies: coin table build")
