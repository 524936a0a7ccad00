"""Write every generated file of this package: `python -m coin_protocol.testing.generate`.

With `--check` nothing is written: the command names each file that differs from what its
generator makes, is missing, or is there although no generator makes it, and exits with 1.

A folder with one generated file in it is generated as a whole: other files in it are stray,
and are removed when the files are written, but for the few in `KEPT`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from google.protobuf.message import Message

from coin_protocol.testing.all_vectors import FOLDER, KEPT, KINDS, index
from coin_protocol.testing.evidence_vectors import evidence_vectors
from coin_protocol.testing.merkle_vectors import merkle_vectors
from coin_protocol.testing.more_evidence_vectors import more_evidence_vectors
from coin_protocol.testing.profiles import (
    default_policy,
    default_profile,
    demo_profile,
    rules_policy,
)
from coin_protocol.testing.salt_vectors import salt_vectors

PACKAGE: Final = Path(__file__).resolve().parents[1]
"""The folder `coin_protocol`."""

Files = dict[str, bytes]
"""Contents by path, relative to `coin_protocol`, with `/` between its parts."""


def json_files(folder: str, documents: Mapping[str, object]) -> Files:
    """Return documents, by file name, as JSON files in `folder`."""
    return {
        f"{folder}/{name}": (json.dumps(document, indent=2) + "\n").encode()
        for name, document in documents.items()
    }


def merkle_files() -> Files:
    """Return the test vectors of `coin_protocol.merkle`."""
    return json_files(f"{FOLDER}/merkle", merkle_vectors())


def kind_files() -> Files:
    """Return the test vectors of every other kind but whole audits."""
    files: Files = {}
    for folder, documents in KINDS.items():
        files |= json_files(f"{FOLDER}/{folder}", documents())
    return files


def index_file() -> Files:
    """Return the index of all vectors."""
    files: Files = {}
    for generator in VECTORS:
        files |= made_by(generator)
    return index(files)


def profile_files() -> Files:
    """Return the profiles and the policy that ship."""
    return {
        "profiles/default.profile.binpb": _serialized(default_profile()),
        "profiles/demo.profile.binpb": _serialized(demo_profile()),
        "profiles/default.policy.binpb": _serialized(default_policy()),
        "profiles/rules.policy.binpb": _serialized(rules_policy()),
    }


Generator = Callable[[], Files]

VECTORS: Final[tuple[Generator, ...]] = (
    merkle_files,
    kind_files,
    evidence_vectors,
    more_evidence_vectors,
    salt_vectors,
)
"""Those of `GENERATORS` that make vectors."""

GENERATORS: Final[tuple[Generator, ...]] = (profile_files, *VECTORS, index_file)
"""Each returns its files; no two the same path. A new kind of generated file is one line here."""


@cache
def made_by(generator: Generator) -> Files:
    """Return the files of a generator, which are always the same. Leave them as they are."""
    return generator()


def generated() -> Files:
    """Return every generated file.

    Raises:
        ValueError: Two generators make the same file.
    """
    files: Files = {}
    for generator in GENERATORS:
        made = made_by(generator)
        twice = sorted(files.keys() & made.keys())
        if twice:
            msg = f"two generators make {twice[0]}; let one of them name it otherwise"
            raise ValueError(msg)
        files |= made
    return files


def differences(files: Files, root: Path) -> dict[str, str]:
    """Return what is wrong below `root`: path -> `differs`, `missing` or `stray`."""
    found = {}
    for name, wanted in files.items():
        path = root / name
        if not path.is_file():
            found[name] = "missing"
        elif path.read_bytes() != wanted:
            found[name] = "differs"
    for folder in {(root / name).parent for name in files}:
        for path in folder.iterdir() if folder.is_dir() else ():
            name = path.relative_to(root).as_posix()
            if path.is_file() and name not in files and name not in KEPT:
                found[name] = "stray"
    return dict(sorted(found.items()))


def write(files: Files, root: Path) -> None:
    """Bring what is below `root` in line with `files`."""
    for name, what in differences(files, root).items():
        path = root / name
        if what == "stray":
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[name])


def main(arguments: Sequence[str] | None = None, root: Path = PACKAGE) -> int:
    """Write or check the generated files below `root`; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m coin_protocol.testing.generate", description="Write all generated files."
    )
    parser.add_argument("--check", action="store_true", help="write nothing, name what differs")
    check: bool = parser.parse_args(arguments).check
    files = generated()
    found = differences(files, root)
    for name, what in found.items():
        sys.stdout.write(f"{what}: {name}\n")
    if check:
        if found:
            sys.stdout.write("run: python -m coin_protocol.testing.generate\n")
        return 1 if found else 0
    write(files, root)
    return 0


def _serialized(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


if __name__ == "__main__":
    sys.exit(main())
