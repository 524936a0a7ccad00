"""Whole audits with one thing broken, of any world: what every verifier must catch, and by what.

The evidence vectors are fixed attacks on one small reply. A `Mutation` is an operator: it breaks
one thing of any honest audit for which it has a site, and names the check that must be the first to
fail, with whom its failure accuses.

    plan = Plan(tokens=33, steps=(Step(blocks=2), Step(whole=True)))
    for mutation in MUTATIONS:
        if mutation.applies(plan):
            case = mutation.make(plan, Random(1))
            assert run_checks(case).failed.code == mutation.code

`strategies` has the same for Hypothesis.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from coin_protocol.checks import CHECKS, Case, run_checks
from coin_protocol.errors import InvalidInputError, VerificationError
from coin_protocol.testing.evidence_vectors import Attack
from coin_protocol.testing.mutations.answers import PRESENCE
from coin_protocol.testing.mutations.drawn import DRAWN
from coin_protocol.testing.mutations.embeddings import EMBEDDINGS, WINDOWS
from coin_protocol.testing.mutations.flips import FLIPS
from coin_protocol.testing.mutations.keys import KEYS, PROFILES
from coin_protocol.testing.mutations.leaves import COUNTS, REPEATED
from coin_protocol.testing.mutations.lie import Lie
from coin_protocol.testing.mutations.mutation import Departure, Mutation, Party, VerifierFault
from coin_protocol.testing.mutations.plans import Plan, Step, evidence
from coin_protocol.testing.mutations.proofs import PROOFS
from coin_protocol.testing.mutations.receipts import RECEIPTS, TIMES
from coin_protocol.testing.mutations.rows import ROWS
from coin_protocol.testing.mutations.salts import SALTS, WHOLE_SALTS
from coin_protocol.testing.mutations.signatures import SIGNATURES
from coin_protocol.testing.mutations.sizes import CHECKPOINTS, FINGERPRINTS, MANIFESTS, SIZES
from coin_protocol.testing.mutations.statements import STATEMENTS
from coin_protocol.testing.mutations.verifiers import VERIFIER_FAULTS
from coin_protocol.testing.mutations.whole import LEAVES, TEXTS
from coin_protocol.testing.small import SmallModels
from coin_protocol.tiers import earned_tiers
from coin_protocol.v1 import receipt_pb2

__all__ = [
    "CODES",
    "MUTATIONS",
    "VERIFIER_FAULTS",
    "Departure",
    "Lie",
    "Mutation",
    "Party",
    "Plan",
    "Step",
    "VerifierFault",
    "as_attack",
    "evidence",
    "mutations_of",
]

CODES: Final = tuple(check.code for check in CHECKS)
"""Of the checks, in their order."""

MUTATIONS: Final[tuple[Mutation, ...]] = (
    *(*SIGNATURES, *STATEMENTS, *KEYS, *PROFILES),
    *RECEIPTS,
    *(*MANIFESTS, *SIZES, *CHECKPOINTS, *FINGERPRINTS),
    *(*FLIPS, *DRAWN, *PRESENCE),
    *(*PROOFS, *SALTS, *COUNTS, *REPEATED, *ROWS, *WINDOWS),
    *(*LEAVES, *WHOLE_SALTS, *TEXTS, *EMBEDDINGS),
    *TIMES,
)
"""Every mutation, in the order of the checks that catch them."""


def mutations_of(code: str) -> tuple[Mutation, ...]:
    """Return the mutations that a check must catch.

    Raises:
        InvalidInputError: There is no such check.
    """
    if code not in CODES:
        msg = f"no check {code!r}; wanted one of {', '.join(CODES)}"
        raise InvalidInputError(msg)
    return tuple(mutation for mutation in MUTATIONS if mutation.code == code)


def as_attack(mutation: Mutation, case: Case) -> Attack:
    """Return a mutated audit in the form that evidence vectors are written from.

    Raises:
        InvalidInputError: The manifest was asked for in vain, which no vector can say.
    """
    if case.no_manifest:
        msg = "a vector cannot say that the manifest was asked for in vain"
        raise InvalidInputError(msg)
    models = SmallModels(case.profile)
    case = replace(case, installed=(models.tokenizer, models.embedder))
    report = run_checks(case)
    try:
        tiers = tuple(earned_tiers(case, report))
    except VerificationError:  # statements that do not parse prove nothing
        tiers = (receipt_pb2.TIER_ASSERTED,)
    return Attack(
        mutation.name,
        mutation.about,
        mutation.code,
        lambda: case,
        tiers,
        mutation.fault,
        mutation.outcome,
    )
