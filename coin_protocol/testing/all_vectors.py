"""All kinds of vectors, each in its folder, and the index that names them with their version."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from coin_protocol.testing.bundle_vectors import bundle_vectors
from coin_protocol.testing.commitment_vectors import commitment_vectors
from coin_protocol.testing.draw_vectors import draw_vectors
from coin_protocol.testing.encoding_vectors import encoding_vectors
from coin_protocol.testing.envelope_vectors import envelope_vectors
from coin_protocol.testing.equivocation_vectors import equivocation_vectors
from coin_protocol.testing.exposure_vectors import exposure_vectors
from coin_protocol.testing.key_vectors import key_vectors
from coin_protocol.testing.log_vectors import log_vectors
from coin_protocol.testing.quantise_vectors import quantise_vectors
from coin_protocol.testing.receipt_vectors import receipt_vectors
from coin_protocol.testing.statement_vectors import statement_vectors
from coin_protocol.testing.usage_vectors import usage_vectors
from coin_protocol.testing.vector_documents import Documents

FOLDER: Final = "testing/vectors"
"""Below `coin_protocol/`."""

KINDS: Final[Mapping[str, Callable[[], Documents]]] = {
    "encoding": encoding_vectors,
    "commitments": commitment_vectors,
    "quantise": quantise_vectors,
    "draws": draw_vectors,
    "usage": usage_vectors,
    "exposure": exposure_vectors,
    "keys": key_vectors,
    "envelopes": envelope_vectors,
    "statements": statement_vectors,
    "receipts": receipt_vectors,
    "bundles": bundle_vectors,
    "log": log_vectors,
    "equivocation": equivocation_vectors,
}
"""What makes the documents of each folder, but for `merkle` and `evidence`, which are older."""

KEPT: Final = frozenset({f"{FOLDER}/VERSION", f"{FOLDER}/CHANGELOG.md"})
"""Written by hand, in a folder with a generated file."""


def version() -> str:
    """Return the version of the vectors, which is kept by hand beside them."""
    return Path(__file__).with_name("vectors").joinpath("VERSION").read_text("ascii").strip()


def index(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the index of vectors: version, and of each folder its schema, count and digest.

    A folder's digest is the SHA-256 of what `sha256sum *.json` prints in it: of each file the
    digest in hex, two spaces, its name and a newline, sorted by name.

    Args:
        files: All vectors, by path below `coin_protocol/`.
    """
    folders: dict[str, dict[str, bytes]] = {}
    for path, raw in files.items():
        folder, name = path.removeprefix(f"{FOLDER}/").split("/")
        folders.setdefault(folder, {})[name] = raw
    document = {
        "version": version(),
        "kinds": {
            folder: {
                "schema": f"schema/{folder}.schema.json",
                "vectors": len(found),
                "sha256": _digest(found),
            }
            for folder, found in sorted(folders.items())
        },
    }
    return {f"{FOLDER}/index.json": (json.dumps(document, indent=2) + "\n").encode()}


def _digest(found: Mapping[str, bytes]) -> str:
    lines = (f"{sha256(raw).hexdigest()}  {name}\n" for name, raw in sorted(found.items()))
    return sha256("".join(lines).encode()).hexdigest()
