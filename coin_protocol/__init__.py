"""The CoIn protocol: commit to hidden reasoning tokens, open a few, check the count.

What both sides and any third party need. Importing it loads no torch, no grpc and no network.

    from coin_protocol import merkle

    tree = merkle.IncrementalTree(merkle.leaf_hash(data) for data in (b"a", b"b", b"c"))
    merkle.verify_inclusion(
        leaf_hash=merkle.leaf_hash(b"b"), index=1, size=3,
        proof=tree.inclusion_proof(1), root=tree.root(),
    )
"""

from importlib import import_module
from typing import TYPE_CHECKING

from coin_protocol import errors, limits, merkle

if TYPE_CHECKING:
    from coin_protocol.checks import CHECKS, Case, Trust, run_checks
    from coin_protocol.commitment import CommitmentBuilder, SessionSecret
    from coin_protocol.keys import KeyRing, VerificationKey
    from coin_protocol.offline import verify_bundle
    from coin_protocol.profile import Policy, Profile
    from coin_protocol.receipt import read_bundle, read_receipt
    from coin_protocol.signer import Signer, signer_from_uri

__all__ = [
    "CHECKS",
    "Case",
    "CommitmentBuilder",
    "KeyRing",
    "Policy",
    "Profile",
    "SessionSecret",
    "Signer",
    "Trust",
    "VerificationKey",
    "errors",
    "limits",
    "merkle",
    "read_bundle",
    "read_receipt",
    "run_checks",
    "signer_from_uri",
    "verify_bundle",
]

# Loaded when first used: protobuf and cryptography take longer to import than most callers run.
_HOME = {
    "CHECKS": "coin_protocol.checks",
    "Case": "coin_protocol.checks",
    "CommitmentBuilder": "coin_protocol.commitment",
    "KeyRing": "coin_protocol.keys",
    "Policy": "coin_protocol.profile",
    "Profile": "coin_protocol.profile",
    "SessionSecret": "coin_protocol.commitment",
    "Signer": "coin_protocol.signer",
    "Trust": "coin_protocol.checks",
    "VerificationKey": "coin_protocol.keys",
    "read_bundle": "coin_protocol.receipt",
    "read_receipt": "coin_protocol.receipt",
    "run_checks": "coin_protocol.checks",
    "signer_from_uri": "coin_protocol.signer",
    "verify_bundle": "coin_protocol.offline",
}


def __getattr__(name: str) -> object:
    """Return a public name, importing the module that defines it (PEP 562)."""
    if name not in _HOME:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value
