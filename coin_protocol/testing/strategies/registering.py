"""Have `hypothesis.strategies.from_type` know the public classes, and import none of them.

`register` is what the entry point in the group `hypothesis` calls whenever Hypothesis is
imported. A class whose module is there already is registered at once, any other when its module
is imported: whoever asks for a class's strategy has imported that class.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

_PACKAGE: Final = __name__.rpartition(".")[0]

TYPES: Final[dict[str, dict[str, str]]] = {
    "coin_protocol.checkpoint": {
        "Checkpoint": "heads",
        "Cosignature": "cosignatures",
        "VerifiedCheckpoint": "verified_heads",
    },
    "coin_protocol.checks.case": {"Case": "cases"},
    "coin_protocol.checks.trust": {"Trust": "trusts"},
    "coin_protocol.commitment": {
        "CommitmentBuilder": "builders",
        "Prefix": "prefixes",
        "SessionSecret": "session_secrets",
        "TokenTree": "token_trees",
    },
    "coin_protocol.draw": {"Drawn": "draws"},
    "coin_protocol.exposure": {"Caps": "caps"},
    "coin_protocol.keys": {
        "KeyRing": "key_rings",
        "ListedKey": "listed_keys",
        "VerificationKey": "verification_keys",
    },
    "coin_protocol.keyset": {"SignedKeySet": "signed_key_sets"},
    "coin_protocol.log_leaf": {
        "CommitmentLeaf": "commitment_leaves",
        "VerdictLeaf": "verdict_leaves",
    },
    "coin_protocol.note": {"Note": "notes"},
    "coin_protocol.note_key": {
        "NoteSignature": "note_signatures",
        "NoteSigner": "note_signers",
        "NoteVerifier": "note_verifiers",
    },
    "coin_protocol.opening": {"Opener": "openers"},
    "coin_protocol.profile": {"Policy": "policies", "Profile": "profiles"},
    "coin_protocol.root_certificate": {"RootDomain": "domains"},
    "coin_protocol.signer": {"KeySigner": "signers"},
    "coin_protocol.testing.strategies.auditing": {"Decided": "decided"},
    "coin_protocol.testing.strategies.certifying": {"DrawnRoot": "roots"},
    "coin_protocol.testing.strategies.evidence": {"Proof": "proofs"},
    "coin_protocol.testing.strategies.logs": {"SignedHead": "signed_heads"},
    "coin_protocol.testing.strategies.world": {"DrawnWorld": "worlds"},
    "coin_protocol.testing.world": {"Audit": "audits", "Reply": "replies", "World": "worlds"},
    "coin_protocol.v1.delivery_pb2": {"Delivery": "deliveries"},
    "coin_protocol.v1.envelope_pb2": {"Envelope": "envelopes"},
    "coin_protocol.v1.evidence_pb2": {"Evidence": "evidences"},
    "coin_protocol.v1.keys_pb2": {"KeySet": "key_sets"},
    "coin_protocol.v1.opening_pb2": {
        "BlockOpening": "block_openings",
        "Challenge": "challenges",
        "EdgeOpening": "edge_openings",
        "Opening": "openings",
        "Refusal": "refusals",
        "TableEntry": "table_entries",
        "TokenBlockOpening": "token_block_openings",
        "TokenOpening": "token_openings",
        "WholeBlock": "whole_blocks",
        "WholeBlockChallenge": "whole_challenges",
        "WholeBlockOpening": "whole_openings",
    },
    "coin_protocol.v1.profile_pb2": {
        "ExposureCaps": "exposure_caps",
        "Policy": "policy_messages",
        "Profile": "profile_messages",
    },
    "coin_protocol.v1.receipt_pb2": {
        "Bundle": "bundles",
        "Receipt": "receipts",
        "Round": "rounds",
        "SeenCheckpoint": "seen_checkpoints",
        "Verdict": "verdicts",
    },
    "coin_protocol.v1.statements_pb2": {
        "Checkpoint": "checkpoints",
        "Commitment": "commitments",
        "Fingerprints": "fingerprints",
        "Manifest": "manifests",
        "Usage": "usages",
    },
    "coin_protocol.vendors.reported": {"Reported": "usage_reports"},
}
"""Names of strategies, by module and class."""

_done: Final[set[str]] = set()


def register() -> None:
    """Register a strategy for each public class, now or once its module is imported.

    Does nothing more when it is called again: what somebody registered in its place stays.
    """
    for name in TYPES.keys() & sys.modules.keys():
        _register(sys.modules[name])
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _register(module: ModuleType) -> None:
    if module.__name__ in _done:
        return
    _done.add(module.__name__)
    for name, strategy in TYPES[module.__name__].items():
        st.register_type_strategy(getattr(module, name), _resolver(strategy))


def _resolver(name: str) -> Callable[[type[Any]], SearchStrategy[Any]]:
    def resolve(kind: type[Any]) -> SearchStrategy[Any]:
        del kind
        found: SearchStrategy[Any] = getattr(importlib.import_module(_PACKAGE), name)()
        return found

    return resolve


class _Finder(MetaPathFinder):
    """Finds the modules of the table as they are found anyway, and notes that they come."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in TYPES or fullname in _done:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Loads a module as its own loader does, and then registers its classes."""

    def __init__(self, own: Loader) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever its own loader has
        return getattr(self._own, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._own
        if module.__spec__ is not None:
            module.__spec__.loader = self._own
        self._own.exec_module(module)
        _register(module)
