"""The test vectors that ship, as cases for programs.

What a program is given is the vector's own document without its `expect`. What it must answer is an
object:

* for `evidence`, whose operation is `check_audit`: `failed`, `outcome`, `fault` and `tiers`;
* for `merkle`: `holds`, true or false;
* for all others: `value`; or, where an error is expected, any text as `error`. The schemas beside
  the vectors say what each operation is given and gives.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

from coin_protocol.checks import CHECKS
from coin_protocol.conformance.case import Case, Kind
from coin_protocol.testing.vector_documents import OK

MADE_BY_PROVIDERS: Final = frozenset({"commitments", "draws", "encoding", "exposure", "quantise"})
"""Folders of what a provider has to work out; a verifier works out all of them."""

_EVIDENCE: Final = "evidence"
_EXPECT: Final = "expect"


class VectorCases:
    """Every vector on disk, read where it lies, and named by folder and name."""

    def __init__(self, root: Traversable | None = None) -> None:
        """Read the folders in `root`, by default the vectors that ship."""
        shipped = files("coin_protocol").joinpath("testing", "vectors")
        self._root: Traversable = shipped if root is None else root

    def cases(self) -> Iterator[Case]:
        """Give each vector, for every kind of program that it is for."""
        folders = [entry for entry in self._root.iterdir() if entry.is_dir()]
        # Evidence rests on all else.
        for folder in sorted(folders, key=lambda found: (found.name == _EVIDENCE, found.name)):
            for entry in sorted(folder.iterdir(), key=lambda found: found.name):
                document = json.loads(entry.read_bytes()) if _is_json(entry.name) else {}
                # A folder of schemas lies beside them.
                if _EXPECT in document:
                    yield from _cases(folder.name, document)


def _cases(folder: str, document: dict[str, Any]) -> Iterator[Case]:
    expect = document.pop(_EXPECT)
    operation, advice = document.get("operation", ""), ""
    if not isinstance(expect, dict):  # trees
        expect = {"holds": expect == OK}
        advice = "Compare with RFC 9162, sections 2.1.3.2 and 2.1.4.2, step by step."
    elif folder == _EVIDENCE:
        operation, advice = "check_audit", _advice(expect["failed"])
    kinds = [Kind.VERIFIER_PROGRAM]
    if folder in MADE_BY_PROVIDERS:
        kinds.append(Kind.PROVIDER_PROGRAM)
    for kind in kinds:
        name = f"{folder}/{document['name']}"
        yield Case(name, document["about"], kind, operation, document, expect, advice)


def _is_json(name: str) -> bool:
    return name.endswith(".json")


def _advice(failed: str | None) -> str:
    if failed is None:
        return "Nothing is wrong with this evidence: look at the check that your program names."
    claim = next((check.claim for check in CHECKS if check.code == failed), "")
    return f"The first check to fail is {failed} (protocol, section 7): {claim}"
