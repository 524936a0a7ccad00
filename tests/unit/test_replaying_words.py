"""What is the verifier's own word in a verdict: what it remembers, a reference model, its judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from coin_protocol.errors import ConfigurationError
from coin_protocol.profile import Policy
from coin_protocol.replaying import Replayed
from coin_protocol.statements import read_verdict
from coin_protocol.testing.forgeries import put
from coin_protocol.v1 import profile_pb2
from coin_protocol.v1 import receipt_pb2 as pb
from tests.support.audit_cases import (
    Reference,
    match,
    opened,
    plain,
    remembering,
    replayed,
    resigned,
    told,
    where,
)
from tests.support.judges import policy_naming
from tests.support.parties import easy
from tests.support.walks import Auditing, world
from verifier_sdk.replaying import SURPRISE_TOLERANCE, replay
from verifier_sdk.semantic.textual import SURPRISE

# What the verifier remembers


def sentence(block: int, cosine: str) -> str:
    other = bytes(range(32)).hex()
    return f"Block {block} is like block 3 of commitment {other} (cosine {cosine})."


def test_matches_make_the_same_sentences_in_their_order() -> None:
    blocks = opened(told())
    audit = replace(told(), matches=[match(blocks[0]), match(blocks[2], cosine=0.995)])
    verdict = read_verdict(audit.bundle().verdict.payload)
    assert [reason for reason in verdict.reasons if " is like block " in reason] == [
        sentence(blocks[0], "0.9987"),
        sentence(blocks[2], "0.9950"),
    ]
    assert replayed(audit, audit.bundle()).difference is None


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        (lambda matches: matches.reverse(), "matches[1].block_index"),
        (lambda matches: setattr(matches[0], "block_index", 99), "matches[0].block_index"),
        (lambda matches: setattr(matches[1], "block_index", matches[0].block_index),
         "matches[1].block_index"),
        (lambda matches: setattr(matches[0], "cosine", 0.9949), "matches[0].cosine"),
        (lambda matches: setattr(matches[0], "cosine", float("nan")), "matches[0].cosine"),
        (lambda matches: setattr(matches[0], "cosine", 1.01), "matches[0].cosine"),
        (lambda matches: setattr(matches[0], "other_block_index", 4), "reasons[1]"),
        (lambda matches: setattr(matches[0], "cosine", 0.9999), "reasons[1]"),
        (lambda matches: matches.pop(), "reasons[2]"),
    ],
    ids=["swapped", "unknown block", "twice", "far", "no number", "past 1", "other", "nearer",
         "dropped"],
)  # fmt: skip
def test_matches_that_do_not_fit_the_openings_or_the_sentences_are_named(
    edit: Callable[[Any], object], path: str
) -> None:
    audit = remembering(0, 2)
    bundle = audit.bundle()
    matches = list(bundle.matches)
    edit(matches)
    bundle.ClearField("matches")
    bundle.matches.extend(matches)
    assert where(audit, bundle).path == path


@pytest.mark.parametrize("other", ["own", "none"])
def test_a_session_is_not_its_own_copy(other: str) -> None:
    own = read_verdict(told().bundle().verdict.payload).commitment_sha256
    copied = remembering(0, other_commitment_sha256=own if other == "own" else b"")
    assert where(copied, copied.bundle()).path == "matches[0].other_commitment_sha256"


def test_matches_where_nobody_judged_are_named() -> None:
    audit = plain(edit_commitment=put("usage.reasoning_tokens", 500))
    bundle = audit.bundle()
    bundle.matches.append(match(0))
    assert where(audit, bundle).path == "matches[0].block_index"


def test_a_bundle_that_does_not_keep_matches_is_replayed_by_what_its_verdict_tells() -> None:
    audit = remembering(0)
    older = audit.bundle()
    older.ClearField("matches")
    found = replayed(audit, older)
    assert (found.difference, found.matches) == (None, 1)
    # Still only of blocks that were opened.
    verdict = read_verdict(older.verdict.payload)
    at = next(at for at, reason in enumerate(verdict.reasons) if " is like block " in reason)
    verdict.reasons[at] = f"Block 99{verdict.reasons[at].removeprefix('Block 0')}"
    assert where(audit, resigned(older, verdict)).path in ("matches[0].block_index", "reasons[1]")
    verdict.reasons[at] = "Block 123456789012 is like block 1 of nothing."
    assert where(audit, resigned(older, verdict)).path == f"reasons[{at}]"


# Reference models


def surprises(verdict: pb.Verdict) -> list[pb.Score]:
    return [score for score in verdict.scores if score.name == SURPRISE]


def test_without_its_model_a_reference_score_is_taken_as_given_and_that_is_said() -> None:
    audit = replace(told(), reference=Reference())
    found = replayed(audit, audit.bundle(), reference=None)
    assert surprises(found.verdict)
    assert (found.difference, found.reference) == (None, False)
    assert replayed(audit, audit.bundle()).reference


def test_with_its_model_a_reference_score_is_compared_with_a_tolerance() -> None:
    audit = replace(told(), reference=Reference())
    near, far = Reference(0.9 * SURPRISE_TOLERANCE), Reference(1.1 * SURPRISE_TOLERANCE)
    assert replayed(audit, audit.bundle(), reference=near).difference is None
    difference = where(audit, audit.bundle(), reference=far)
    assert difference.path.startswith("scores[")
    assert difference.path.endswith("].value")


def test_a_verifier_that_used_no_reference_model_is_not_held_to_one() -> None:
    audit = told()
    found = replayed(audit, audit.bundle(), reference=Reference())
    assert (found.difference, found.reference) == (None, None)


@pytest.mark.parametrize("block", ["another", "twice"])
def test_a_reference_score_of_no_opened_block_is_found(block: str) -> None:
    audit = replace(told(), reference=Reference())
    bundle = audit.bundle()
    verdict = read_verdict(bundle.verdict.payload)
    (score,) = surprises(verdict)
    verdict.scores.append(score) if block == "twice" else setattr(score, "block_index", 77)
    at = len(verdict.scores) - 1
    assert where(audit, resigned(bundle, verdict), reference=None).path == f"scores[{at}]"


# As the command asks


def by_name(audit: Auditing, judge_name: str) -> Replayed:
    of = audit.world
    return replay(
        audit.bundle(),
        trust=of.trust,
        models=of.models,
        policy=of.policy,
        judge=judge_name,
        reference=None,
    )


def test_a_policy_that_names_no_judge_is_replayed_by_its_rule() -> None:
    assert by_name(plain(), "policy").difference is None
    assert by_name(plain(), "rules").difference is None


def test_a_judge_that_the_policy_names_and_does_not_ship_is_asked_for() -> None:
    policy = policy_naming(bytes(32))
    message = profile_pb2.Policy()
    message.CopyFrom(policy.message)
    easy(message)
    audit = plain(world(Policy.from_bytes(message.SerializeToString())))
    with pytest.raises(ConfigurationError, match="use the file that it names"):
        by_name(audit, "policy")
    # The auditor used the rule, against its policy's word; who is told so can see that.
    assert by_name(audit, "rules").difference is None
