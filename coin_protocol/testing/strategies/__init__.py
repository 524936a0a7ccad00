"""Hypothesis strategies for every message and value of the protocol. Extra: `testing`.

    from hypothesis import given, strategies as st
    from coin_protocol.testing import strategies as coin

    @given(coin.decided(audit=coin.audits(rounds=st.just(2))))
    def test_my_verifier_believes_what_is_true(found):
        my_verify(found.bundle, keys=found.audit.world.trust)

What is drawn is valid: it passes this project's own readers and checks. Options take strategies,
and narrow what is drawn. What is drawn is small, and shrinks to the smallest that there is.
Signatures are by keys that never change, and are the same for the same bytes.

`register` has `hypothesis.strategies.from_type` know the public classes. Where the package is
installed Hypothesis calls it by itself; it imports nothing but this package.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coin_protocol.testing.strategies.auditing import (
        Decided,
        audits,
        bundles,
        cases,
        decided,
    )
    from coin_protocol.testing.strategies.certifying import DrawnRoot, domains, roots
    from coin_protocol.testing.strategies.evidence import Proof, evidences, proofs
    from coin_protocol.testing.strategies.keys import (
        envelopes,
        key_rings,
        key_sets,
        listed_keys,
        rotations,
        signed_key_sets,
        signers,
        trusts,
        verification_keys,
    )
    from coin_protocol.testing.strategies.logs import (
        SignedHead,
        commitment_leaves,
        cosignatures,
        heads,
        log_leaves,
        log_names,
        note_signatures,
        note_signers,
        note_verifiers,
        notes,
        signed_heads,
        verdict_leaves,
        verified_heads,
    )
    from coin_protocol.testing.strategies.opened import (
        block_openings,
        edge_openings,
        openings,
        refusals,
        rounds,
        table_entries,
        token_block_openings,
        token_openings,
        whole_blocks,
        whole_openings,
        whole_rounds,
    )
    from coin_protocol.testing.strategies.registering import register
    from coin_protocol.testing.strategies.rules import (
        caps,
        exposure_caps,
        policies,
        policy_messages,
        profile_messages,
        profiles,
    )
    from coin_protocol.testing.strategies.statements import (
        challenges,
        checkpoints,
        commitments,
        fingerprints,
        manifests,
        usages,
        verdicts,
        whole_challenges,
    )
    from coin_protocol.testing.strategies.traces import (
        builders,
        chunks,
        draws,
        prefixes,
        session_secrets,
        token_ids,
        token_trees,
    )
    from coin_protocol.testing.strategies.usage import usage_blocks, usage_reports, vendors
    from coin_protocol.testing.strategies.values import (
        awkward_sizes,
        client_nonces,
        digests,
        names,
        session_ids,
        sizes,
        times,
        timestamps,
    )
    from coin_protocol.testing.strategies.world import (
        DrawnWorld,
        deliveries,
        openers,
        receipts,
        replies,
        seen_checkpoints,
        worlds,
    )

_HOME = {
    "auditing": "Decided audits bundles cases decided",
    "certifying": "DrawnRoot domains roots",
    "evidence": "Proof evidences proofs",
    "keys": (
        "envelopes key_rings key_sets listed_keys rotations signed_key_sets signers trusts "
        "verification_keys"
    ),
    "logs": (
        "SignedHead commitment_leaves cosignatures heads log_leaves log_names note_signatures "
        "note_signers note_verifiers notes signed_heads verdict_leaves verified_heads"
    ),
    "opened": (
        "block_openings edge_openings openings refusals rounds table_entries "
        "token_block_openings token_openings whole_blocks whole_openings whole_rounds"
    ),
    "registering": "register",
    "rules": "caps exposure_caps policies policy_messages profile_messages profiles",
    "statements": (
        "challenges checkpoints commitments fingerprints manifests usages verdicts whole_challenges"
    ),
    "traces": "builders chunks draws prefixes session_secrets token_ids token_trees",
    "usage": "usage_blocks usage_reports vendors",
    "values": "awkward_sizes client_nonces digests names session_ids sizes times timestamps",
    "world": "DrawnWorld deliveries openers receipts replies seen_checkpoints worlds",
}
_MODULES = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = [
    "Decided",
    "DrawnRoot",
    "DrawnWorld",
    "Proof",
    "SignedHead",
    "audits",
    "awkward_sizes",
    "block_openings",
    "builders",
    "bundles",
    "caps",
    "cases",
    "challenges",
    "checkpoints",
    "chunks",
    "client_nonces",
    "commitment_leaves",
    "commitments",
    "cosignatures",
    "decided",
    "deliveries",
    "digests",
    "domains",
    "draws",
    "edge_openings",
    "envelopes",
    "evidences",
    "exposure_caps",
    "fingerprints",
    "heads",
    "key_rings",
    "key_sets",
    "listed_keys",
    "log_leaves",
    "log_names",
    "manifests",
    "names",
    "note_signatures",
    "note_signers",
    "note_verifiers",
    "notes",
    "openers",
    "openings",
    "policies",
    "policy_messages",
    "prefixes",
    "profile_messages",
    "profiles",
    "proofs",
    "receipts",
    "refusals",
    "register",
    "replies",
    "roots",
    "rotations",
    "rounds",
    "seen_checkpoints",
    "session_ids",
    "session_secrets",
    "signed_heads",
    "signed_key_sets",
    "signers",
    "sizes",
    "table_entries",
    "times",
    "timestamps",
    "token_block_openings",
    "token_ids",
    "token_openings",
    "token_trees",
    "trusts",
    "usage_blocks",
    "usage_reports",
    "usages",
    "vendors",
    "verdict_leaves",
    "verdicts",
    "verification_keys",
    "verified_heads",
    "whole_blocks",
    "whole_challenges",
    "whole_openings",
    "whole_rounds",
    "worlds",
]


def __getattr__(name: str) -> object:
    """Return a public name, importing the module that defines it (PEP 562)."""
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    home = import_module(f"{__name__}.{_MODULES[name]}")
    value = globals()[name] = getattr(home, name)
    return value


# Hypothesis calls `register` as it is imported, which must not be in the middle of a module whose
# classes are registered.
import_module("hypothesis")
