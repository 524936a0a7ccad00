"""An auditor does what the policy says, round by round, or a replay says where it did not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from coin_protocol.checks import Case, run_checks
from coin_protocol.errors import InvalidInputError, SignatureError
from coin_protocol.profile import Policy
from coin_protocol.replaying import Difference
from coin_protocol.statements import read_verdict
from coin_protocol.testing.forgeries import flipped, put
from coin_protocol.testing.world import VERIFIER
from coin_protocol.v1 import profile_pb2
from coin_protocol.v1 import receipt_pb2 as pb
from tests.support.audit_cases import (
    FAIL,
    NEVER,
    accuser,
    learned,
    plain,
    projected,
    replayed,
    resigned,
    where,
)
from tests.support.walks import Auditing, world
from verifier_sdk.deciding import AskRound, AskWhole, Decided, Step, as_planned
from verifier_sdk.semantic import CosineJudge, Judgement, OpenedEvidence
from verifier_sdk.semantic.visible import visible_of

# Verifiers that did not audit as they say


def steered(how: Callable[[Step, Case], Step], audit: Auditing) -> Auditing:
    return replace(audit, steer=how)


def go_on_once(step: Step, case: Case) -> Step:
    """Ask for another round where the judge had decided."""
    further = AskRound(2, 2, 0, 2, "")
    return further if isinstance(step, Decided) and len(case.rounds) == 1 else step


def stop_early(step: Step, case: Case) -> Step:
    """Stop where the policy says to open more."""
    return decided(case) if isinstance(step, AskRound) and step.number == 2 else step


def ask_more(step: Step, _case: Case) -> Step:
    return replace(step, blocks=step.blocks + 1) if isinstance(step, AskRound) else step


def leave_whole_out(step: Step, case: Case) -> Step:
    return decided(case) if isinstance(step, AskWhole) else step


def decided(case: Case) -> Decided:
    """Decide by the evidence at hand."""
    spec = case.profile.message.embedding
    evidence = OpenedEvidence.of(case, visible_of(case.receipt, spec, *case.models))
    rule = CosineJudge(case.policy.message.cosine_rules)
    return Decided(run_checks(case), rule.judge(evidence))


class Severe:
    """A judge that accuses everybody."""

    def judge(self, _evidence: OpenedEvidence) -> Judgement:
        """Accuse."""
        return Judgement(FAIL, "so it is")


@pytest.mark.parametrize(
    ("audit", "path", "said"),
    [
        (lambda: steered(go_on_once, plain()), "rounds[1]", "decided before: the cosine rule"),
        (lambda: steered(stop_early, plain(world(NEVER))), "rounds[1]", "round 2 asked for"),
        (lambda: steered(ask_more, plain()), "rounds[0].challenge.blocks", "4"),
        (lambda: steered(leave_whole_out, plain()), "whole_rounds[0]", "asked for, to be opened"),
    ],
    ids=["went on after PASS", "stopped while undecided", "asked for more", "left out"],
)
def test_an_auditor_that_leaves_the_policys_course_is_found(
    audit: Callable[[], Auditing], path: str, said: str
) -> None:
    found = audit()
    difference = where(found, found.bundle())
    assert difference.path == path
    assert said in difference.replayed


# Policies that change while an audit is under way


def kept_of(audit: Auditing) -> Case:
    """Return what an audit had written down before its verdict."""
    bundle = audit.bundle()
    whole_rounds = tuple(bundle.whole_rounds)
    case = audit.world.audit(audit.reply).case()
    return replace(case, rounds=tuple(bundle.rounds), whole_rounds=whole_rounds)


def test_what_was_opened_stands_while_the_policy_asks_for_the_same() -> None:
    for audit in (plain(), plain(world(NEVER), tokens=255), plain(world(NEVER, blocks_ppm=0))):
        case = kept_of(audit)
        found = as_planned(case)
        assert (found.rounds, found.whole_rounds) == (case.rounds, case.whole_rounds)


def _less(policy: profile_pb2.Policy) -> None:
    policy.rounds.blocks_first_round -= 1


def _less_later(policy: profile_pb2.Policy) -> None:
    policy.rounds.blocks_per_round -= 1


def _none_whole(policy: profile_pb2.Policy) -> None:
    policy.rounds.whole_blocks = 0


def _more_whole(policy: profile_pb2.Policy) -> None:
    policy.rounds.whole_blocks += 1


@pytest.mark.parametrize(
    ("edit", "left"),
    [(_less, (0, 0)), (_less_later, (1, 1)), (_none_whole, (1, 0)), (_more_whole, (1, 0))],
)
def test_what_another_policy_asked_for_is_left_out_with_all_that_came_after_it(
    edit: Callable[[profile_pb2.Policy], None], left: tuple[int, int]
) -> None:
    case = kept_of(plain(world(NEVER), tokens=255))
    assert (len(case.rounds), len(case.whole_rounds)) == (3, 1)
    message = profile_pb2.Policy()
    message.CopyFrom(case.policy.message)
    edit(message)
    policy = Policy.from_bytes(message.SerializeToString(deterministic=True))
    found = as_planned(replace(case, policy=policy))
    assert (len(found.rounds), len(found.whole_rounds)) == left


def test_what_no_check_passes_is_left_to_the_checks() -> None:
    case = kept_of(plain(world(NEVER), tokens=255))
    broken = pb.Round()
    broken.CopyFrom(case.rounds[0])
    broken.opening.payload = b"?"
    case = replace(case, rounds=(broken, *case.rounds[1:]))
    assert as_planned(case).rounds == case.rounds


# Bundles that somebody altered


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        (lambda bundle: bundle.rounds.pop(), "rounds[2]"),
        (lambda bundle: bundle.rounds.pop(0), "rounds[0].challenge.round"),
        (lambda bundle: bundle.whole_rounds.pop(), "whole_rounds[0]"),
        (lambda bundle: bundle.whole_rounds.append(bundle.whole_rounds[0]), "whole_rounds[1]"),
        (lambda bundle: bundle.rounds.append(bundle.rounds[2]), "rounds[3]"),
        (lambda bundle: bundle.ClearField("manifest"), "manifest"),
        (lambda bundle: setattr(bundle, "no_manifest", "UNAVAILABLE"), "no_manifest"),
    ],
    ids=["last round", "first round", "whole", "whole twice", "round twice", "manifest", "both"],
)
def test_evidence_that_was_dropped_or_added_after_the_verdict_is_found(
    edit: Callable[[pb.Bundle], object], path: str
) -> None:
    audit = plain(world(NEVER), tokens=255)
    bundle = audit.bundle()
    assert (len(bundle.rounds), len(bundle.whole_rounds)) == (3, 1)
    edit(bundle)
    assert where(audit, bundle).path == path


def test_a_round_of_another_verifier_is_found() -> None:
    edit = {"edit_challenge": put("verifier", "another")}
    audit = replace(plain(), rounds={1: edit})
    assert where(audit, audit.bundle()) == Difference(
        "rounds[0].challenge.verifier", "another", VERIFIER
    )


def test_a_verifier_that_judged_by_another_policy_is_found() -> None:
    honest, lax = plain(world(NEVER)), plain()
    bundle = lax.bundle()
    verdict = read_verdict(bundle.verdict.payload)
    verdict.policy_sha256 = NEVER.digest
    found = where(honest, resigned(bundle, verdict))
    # The rule that it names would have left it undecided.
    assert found.path == "rounds[1]"
    assert "round 2 asked for: the cosine rule is not satisfied" in found.replayed


def test_a_verifier_that_judged_by_another_judge_is_found() -> None:
    assert where(plain(), plain().bundle(), judge=Severe()).path == "outcome"
    audit = replace(projected(), judge=accuser())
    assert where(audit, audit.bundle(), judge=learned()).path in ("rounds[1]", "outcome")


def test_a_bundle_under_another_policy_or_of_an_unknown_verifier_is_not_replayed() -> None:
    audit = plain()
    with pytest.raises(InvalidInputError, match="under policy"):
        replayed(audit, audit.bundle(), policy=NEVER)
    bundle = audit.bundle()
    flipped("verdict.payload")(bundle)
    with pytest.raises(SignatureError):
        replayed(audit, bundle)


def test_a_round_that_the_verifier_did_not_sign_makes_the_bundle_invalid() -> None:
    audit = plain()
    bundle = audit.bundle()
    flipped("rounds.0.challenge.payload")(bundle)
    with pytest.raises(InvalidInputError, match="known verifier"):
        replayed(audit, bundle)
