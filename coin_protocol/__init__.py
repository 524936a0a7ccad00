"""The CoIn protocol: commit to hidden reasoning tokens, open a few, check the count.

What both sides and any third party need. Importing it loads no torch, no grpc and no network.

    from coin_protocol import merkle

    tree = merkle.IncrementalTree(merkle.leaf_hash(data) for data in (b"a", b"b", b"c"))
    merkle.verify_inclusion(
        leaf_hash=merkle.leaf_hash(b"b"), index=1, size=3,
        proof=tree.inclusion_proof(1), root=tree.root(),
    )
"""

from coin_protocol import errors, limits, merkle
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
