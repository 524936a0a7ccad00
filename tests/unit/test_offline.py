"""A bundle is checked again from pinned keys alone: what its verifier may not say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from coin_protocol.checks import Case, run_checks
from coin_protocol.errors import CoinError, InvalidInputError, SignatureError, VerificationError
from coin_protocol.keyset import pinned, stamp
from coin_protocol.offline import Rechecked, verify_bundle
from coin_protocol.profile import Policy
from coin_protocol.receipt import BUNDLE_FORMAT, read_bundle, to_json
from coin_protocol.testing.evidence_vectors import ATTACKS, Attack
from coin_protocol.testing.forgeries import audit, both, change, flipped, put, unanswered, without
from coin_protocol.testing.more_evidence_vectors import MORE_ATTACKS
from coin_protocol.testing.profiles import rules_policy
from coin_protocol.testing.salt_vectors import SALT_ATTACKS
from coin_protocol.testing.small import small_profile
from coin_protocol.testing.world import START, VERIFIER, Edit, World
from coin_protocol.v1 import receipt_pb2 as pb
from verifier_sdk.semantic import Judgement
from verifier_sdk.verdict import make_verdict, sign_verdict

WORLD = World()
PASSED = pb.CHECK_STATUS_PASSED
FAILED = pb.CHECK_STATUS_FAILED
SKIPPED = pb.CHECK_STATUS_SKIPPED
SATISFIED = Judgement(pb.OUTCOME_PASS, "satisfied", [pb.Score(name="cosine", value=0.9)])
SAMPLED = audit().ask().case()
WHOLE = audit().ask().ask_whole().case()
FORGED_ANSWER = audit(edit_receipt=put("answer", b"forged")).case()
OVER_BILLED = audit(edit_commitment=put("usage.reasoning_tokens", 30)).case()
COPIED = next(a for a in ATTACKS if a.name == "embedding-copied-from-answer").make()


def verdict_on(case: Case, judgement: Judgement | None = SATISFIED) -> pb.Verdict:
    report = run_checks(case)
    judgement = None if report.failed or not case.rounds else judgement
    return make_verdict(case, report, verifier=VERIFIER, judgement=judgement, notes=[])


def bundle_of(case: Case, verdict: pb.Verdict, signer: str = VERIFIER) -> pb.Bundle:
    return pb.Bundle(
        format=BUNDLE_FORMAT,
        receipt=case.receipt,
        manifest=case.manifest,
        rounds=case.rounds,
        whole_rounds=case.whole_rounds,
        verdict=sign_verdict(verdict, WORLD.signer(signer)),
    )


def recheck(case: Case, bundle: pb.Bundle, *, models: bool = True) -> Rechecked:
    return verify_bundle(
        bundle,
        trust=case.trust,
        profile=case.profile,
        policy=case.policy,
        installed=case.installed if models else None,
    )


def recheck_with(
    case: Case, *lies: Edit[Any], models: bool = True, judgement: Judgement | None = SATISFIED
) -> Rechecked:
    """Check a bundle again whose verdict says what the SDK would say, but for the lies."""
    verdict = verdict_on(case, judgement)
    for lie in lies:
        lie(verdict)
    return recheck(case, bundle_of(case, verdict), models=models)


def check_said(code: str, status: pb.CheckStatus.ValueType) -> Edit[pb.Verdict]:
    """Return an edit of what a verdict says of one check."""

    def edit(verdict: pb.Verdict) -> None:
        for result in verdict.checks:
            if result.code == code:
                result.status = status

    return edit


def tiers_said(*tiers: pb.Tier.ValueType) -> Edit[pb.Verdict]:
    return both(put("tiers", list(tiers)), put("tier", tiers[-1]))


# Every attack on which a verifier has something to say.
@pytest.mark.parametrize(
    "attack", [*ATTACKS, *MORE_ATTACKS, *SALT_ATTACKS], ids=lambda attack: attack.name
)
def test_what_an_honest_verifier_says_of_any_evidence_is_borne_out(attack: Attack) -> None:
    case = attack.make()
    bundle = bundle_of(case, verdict_on(case))
    found = recheck(case, read_bundle(to_json(bundle).encode()))
    assert found.verdict == pb.Verdict.FromString(bundle.verdict.payload)
    assert found.unchecked == ()
    assert (found.report.failed.code if found.report.failed else None) == attack.failed


@pytest.mark.parametrize(
    "attack", [*ATTACKS, *MORE_ATTACKS, *SALT_ATTACKS], ids=lambda attack: attack.name
)
def test_it_is_borne_out_to_a_reader_without_models_too(attack: Attack) -> None:
    case = attack.make()
    found = recheck(case, bundle_of(case, verdict_on(case)), models=False)
    assert set(found.unchecked) <= {"WHOLE_TEXT", "WHOLE_EMBEDDING"}
    assert not found.unchecked or case.whole_rounds


def test_a_check_that_fails_after_the_unchecked_ones_is_found_without_models() -> None:
    early = put("checkpoints.0.seen_at", stamp(START))
    case = audit(edit_receipt=early).ask().ask_whole().case()
    found = recheck(case, bundle_of(case, verdict_on(case)), models=False)
    assert found.report.failed is not None
    assert found.report.failed.code == "ARRIVAL_TIME"
    assert found.unchecked == ("WHOLE_TEXT", "WHOLE_EMBEDDING")


@pytest.mark.parametrize("outcome", [pb.OUTCOME_PASS, pb.OUTCOME_INCONCLUSIVE, pb.OUTCOME_FAIL])
def test_the_graded_part_is_the_verifiers_own_judgement(outcome: pb.Outcome.ValueType) -> None:
    judgement = replace(SATISFIED, outcome=outcome)
    assert recheck_with(SAMPLED, judgement=judgement).verdict.outcome == outcome


def test_without_models_what_was_embedded_is_reported_as_unchecked() -> None:
    found = recheck_with(WHOLE, models=False)
    assert found.unchecked == ("WHOLE_TEXT", "WHOLE_EMBEDDING")
    assert found.report.failed is None


def test_without_models_a_failed_whole_check_is_reported_as_unchecked() -> None:
    found = recheck_with(COPIED, models=False)
    assert found.verdict.outcome == pb.OUTCOME_FAIL
    assert found.unchecked == ("WHOLE_TEXT", "WHOLE_EMBEDDING")


def test_without_models_nothing_is_unchecked_where_no_block_was_opened_whole() -> None:
    assert recheck_with(SAMPLED, models=False).unchecked == ()


LIES: dict[str, tuple[Case, Sequence[Edit[Any]]]] = {
    "PASS although a check fails": (
        FORGED_ANSWER,
        [check_said("ANSWER_DIGEST", PASSED), put("outcome", pb.OUTCOME_PASS), put("fault", 0)],
    ),
    "PASS although it reports that a check fails": (
        FORGED_ANSWER,
        [put("outcome", pb.OUTCOME_PASS)],
    ),
    "INCONCLUSIVE although a check fails": (OVER_BILLED, [put("outcome", pb.OUTCOME_INCONCLUSIVE)]),
    "a failed check is left out": (OVER_BILLED, [put("checks", [])]),
    "a failed check is called skipped": (OVER_BILLED, [check_said("BILL", SKIPPED)]),
    "FAIL without a failed check and without scores": (
        SAMPLED,
        [put("outcome", pb.OUTCOME_FAIL), put("scores", [])],
    ),
    "a check fails that passes": (
        SAMPLED,
        [check_said("BILL", FAILED), put("outcome", pb.OUTCOME_FAIL)],
    ),
    "another check fails than the one that does": (
        OVER_BILLED,
        [check_said("BILL", PASSED), check_said("SIZES", FAILED)],
    ),
    "two checks fail": (OVER_BILLED, [check_said("SIZES", FAILED)]),
    "a whole check fails that passes": (
        WHOLE,
        [check_said("WHOLE_EMBEDDING", FAILED), put("outcome", pb.OUTCOME_FAIL)],
    ),
    "a whole check passes that fails": (
        COPIED,
        [check_said("WHOLE_EMBEDDING", PASSED), put("outcome", pb.OUTCOME_PASS)],
    ),
    "FAIL where nobody can be blamed": (
        audit().ask(edit_round=unanswered("UNAVAILABLE")).case(),
        [put("outcome", pb.OUTCOME_FAIL)],
    ),
    "a better tier than earned": (
        SAMPLED,
        [
            tiers_said(
                pb.TIER_ASSERTED, pb.TIER_COMMITTED, pb.TIER_TIMED, pb.TIER_OPENED, pb.TIER_ATTESTED
            )
        ],
    ),
    "a tier for times that were not seen": (
        audit(edit_receipt=without("checkpoints")).ask().case(),
        [tiers_said(pb.TIER_ASSERTED, pb.TIER_COMMITTED, pb.TIER_TIMED)],
    ),
    "a tier for nothing opened": (
        audit().case(),
        [tiers_said(pb.TIER_ASSERTED, pb.TIER_COMMITTED)],
    ),
    "a check passed that had no evidence": (SAMPLED, [check_said("WHOLE_LEAVES", PASSED)]),
    "a check passed that nobody knows": (SAMPLED, [change("checks", lambda _: [unheard_of()])]),
    "the strongest tier is another than the last of those earned": (
        SAMPLED,
        [put("tier", pb.TIER_ATTESTED)],
    ),
    "the provider is blamed where nobody can tell": (
        FORGED_ANSWER,
        [put("fault", pb.FAULT_PROVIDER)],
    ),
    "the provider is not blamed though it signed the lie": (OVER_BILLED, [put("fault", 0)]),
    "a block was opened whole though none was": (
        SAMPLED,
        [
            check_said("WHOLE_TEXT", PASSED),
            check_said("WHOLE_EMBEDDING", PASSED),
            tiers_said(pb.TIER_ASSERTED, pb.TIER_COMMITTED, pb.TIER_TIMED, pb.TIER_OPENED),
        ],
    ),
    "a whole check failed though no block was opened whole": (
        SAMPLED,
        [
            check_said("WHOLE_EMBEDDING", FAILED),
            put("outcome", pb.OUTCOME_FAIL),
            put("fault", pb.FAULT_PROVIDER),
        ],
    ),
    "a tier earned although a check fails": (
        OVER_BILLED,
        [tiers_said(pb.TIER_ASSERTED, pb.TIER_ATTESTED)],
    ),
    "PASS though nothing was opened": (
        audit().case(),
        [put("outcome", pb.OUTCOME_PASS), put("scores", [])],
    ),
    "checks passed that come after the failed one": (
        OVER_BILLED,
        [check_said("TOKEN_ROW", PASSED)],
    ),
    "another source of the ids": (SAMPLED, [put("id_source", 2)]),
    "less was exposed": (SAMPLED, [put("exposure.tokens", 0)]),
    "another verifier's name": (SAMPLED, [put("verifier", "somebody else")]),
    "a fault though nothing failed": (SAMPLED, [put("fault", pb.FAULT_PROVIDER)]),
    "the checks in another order": (SAMPLED, [change("checks", lambda found: found[::-1])]),
    "one check more": (SAMPLED, [change("checks", lambda found: [*found, found[0]])]),
    "another commitment": (SAMPLED, [flipped("commitment_sha256")]),
}


WITHOUT_MODELS: dict[str, tuple[Case, Sequence[Edit[Any]]]] = {
    "a tier that is not built": (
        WHOLE,
        [
            tiers_said(
                pb.TIER_ASSERTED, pb.TIER_COMMITTED, pb.TIER_TIMED, pb.TIER_OPENED, pb.TIER_ATTESTED
            )
        ],
    ),
    "a whole check passed though no block was opened whole": (
        SAMPLED,
        [check_said("WHOLE_TEXT", PASSED), check_said("WHOLE_EMBEDDING", PASSED)],
    ),
    "a whole check failed though no block was opened whole": (
        SAMPLED,
        [
            check_said("WHOLE_EMBEDDING", FAILED),
            put("outcome", pb.OUTCOME_FAIL),
            put("fault", pb.FAULT_PROVIDER),
        ],
    ),
    "a whole check failed and the outcome is PASS": (
        COPIED,
        [put("outcome", pb.OUTCOME_PASS), put("fault", 0)],
    ),
    "a tier that the failed whole check does not earn": (
        COPIED,
        [tiers_said(pb.TIER_ASSERTED, pb.TIER_COMMITTED, pb.TIER_OPENED)],
    ),
    "the leaves of a whole block are called unchecked": (
        WHOLE,
        [check_said("WHOLE_LEAVES", SKIPPED)],
    ),
}


def unheard_of() -> pb.CheckResult:
    return pb.CheckResult(code="HONESTY", status=PASSED)


@pytest.mark.parametrize(("case", "lies"), LIES.values(), ids=LIES.keys())
def test_a_verifier_that_lies_is_contradicted(case: Case, lies: Sequence[Edit[Any]]) -> None:
    recheck_with(case)  # the same verdict without the lie is borne out
    with pytest.raises(VerificationError):
        recheck_with(case, *lies)


@pytest.mark.parametrize(("case", "lies"), WITHOUT_MODELS.values(), ids=WITHOUT_MODELS.keys())
def test_a_reader_without_models_contradicts_what_needs_none(
    case: Case, lies: Sequence[Edit[Any]]
) -> None:
    recheck_with(case, models=False)
    with pytest.raises(VerificationError):
        recheck_with(case, *lies, models=False)


def test_a_verdict_on_another_receipt_is_contradicted() -> None:
    other = audit(tokens=9).ask().case()
    with pytest.raises(VerificationError, match="commitment"):
        recheck(other, bundle_of(other, verdict_on(SAMPLED)))


def test_a_verdict_of_an_unknown_verifier_is_not_believed() -> None:
    bundle = bundle_of(SAMPLED, verdict_on(SAMPLED), signer="stranger")
    with pytest.raises(SignatureError):
        recheck(SAMPLED, bundle)
    trusting = replace(SAMPLED, trust=replace(SAMPLED.trust, verifiers=pinned("v", [])))
    with pytest.raises(SignatureError):
        recheck(trusting, bundle_of(SAMPLED, verdict_on(SAMPLED)))


def test_an_altered_verdict_is_not_believed() -> None:
    bundle = bundle_of(SAMPLED, verdict_on(SAMPLED))
    flipped("verdict.payload")(bundle)
    with pytest.raises(SignatureError):
        recheck(SAMPLED, bundle)


def test_a_verdict_that_is_no_statement_is_refused() -> None:
    with pytest.raises(VerificationError, match="outcome"):
        recheck_with(SAMPLED, put("outcome", 0))


def test_a_verdict_under_another_profile_or_policy_cannot_be_checked_with_this_one() -> None:
    bundle = bundle_of(SAMPLED, verdict_on(SAMPLED))
    with pytest.raises(InvalidInputError, match="under profile"):
        recheck(replace(SAMPLED, profile=small_profile(whole_blocks_ppm=0)), bundle)
    message = rules_policy()
    message.name = "another"
    policy = Policy.from_bytes(message.SerializeToString())
    with pytest.raises(InvalidInputError, match="under policy"):
        recheck(replace(SAMPLED, policy=policy), bundle)


def test_evidence_that_was_altered_after_the_verdict_is_noticed() -> None:
    bundle = bundle_of(SAMPLED, verdict_on(SAMPLED))
    for path in ("manifest.payload", "rounds.0.opening.payload", "receipt.fingerprints.payload"):
        copy = pb.Bundle()
        copy.CopyFrom(bundle)
        flipped(path)(copy)
        with pytest.raises(CoinError):
            recheck(SAMPLED, copy)


def test_evidence_that_was_left_out_after_the_verdict_is_noticed() -> None:
    bundle = bundle_of(WHOLE, verdict_on(WHOLE))
    for field in ("rounds", "whole_rounds"):
        copy = pb.Bundle()
        copy.CopyFrom(bundle)
        copy.ClearField(field)
        with pytest.raises(VerificationError):
            recheck(WHOLE, copy)


def test_a_challenge_that_is_not_the_verifiers_makes_the_bundle_invalid() -> None:
    bundle = bundle_of(SAMPLED, verdict_on(SAMPLED))
    flipped("rounds.0.challenge.payload")(bundle)
    with pytest.raises(InvalidInputError, match="known verifier"):
        recheck(SAMPLED, bundle)


def test_a_verifier_that_leaves_out_the_manifest_proves_nothing() -> None:
    verdict = verdict_on(SAMPLED)
    lies: Sequence[Callable[[Any], object]] = (
        put("outcome", pb.OUTCOME_FAIL),
        put("fault", pb.FAULT_PROVIDER),
        check_said("DRAW", FAILED),
    )
    for lie in lies:
        lie(verdict)
    bundle = bundle_of(SAMPLED, verdict)
    bundle.ClearField("manifest")
    with pytest.raises(CoinError):
        recheck(SAMPLED, bundle)


def test_a_judge_accuses_nobody_where_nothing_was_opened() -> None:
    case = audit().case()
    with pytest.raises(VerificationError):
        recheck_with(
            case,
            put("outcome", pb.OUTCOME_FAIL),
            put("fault", pb.FAULT_PROVIDER),
            put("scores", [pb.Score(name="cosine", value=0.1)]),
        )
