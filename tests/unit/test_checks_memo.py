"""What a case remembers of evidence makes no difference to what its checks find."""

from __future__ import annotations

import gc
import random
import weakref
from dataclasses import replace
from typing import Any

import pytest

from coin_protocol import envelope, merkle
from coin_protocol.checks import Case, Report, opened, run_checks
from coin_protocol.checks import whole as whole_checks
from coin_protocol.checks.case import Answered, AnsweredWhole
from coin_protocol.checks.memo import Memo
from coin_protocol.errors import InvalidInputError, SignatureError
from coin_protocol.profile import Policy
from coin_protocol.testing.evidence_vectors import ATTACKS
from coin_protocol.testing.small import SmallModels
from coin_protocol.testing.world import World
from coin_protocol.v1 import envelope_pb2, profile_pb2, receipt_pb2
from tests.support.parties import Parties


def found(case: Case) -> Report | str:
    """Return what the checks find, or why they find nothing."""
    try:
        return run_checks(case)
    except InvalidInputError as error:
        return str(error)


@pytest.mark.parametrize("seed", range(3))
def test_what_other_cases_found_out_changes_no_report(seed: int) -> None:
    # All are of one world: the same keys, and mostly the same bytes.
    order = random.Random(seed).sample(ATTACKS, len(ATTACKS))  # noqa: S311 - no secret
    memo = Memo()
    for attack in order:
        for _ in range(2):
            remembering = found(replace(attack.make(), memo=memo))
            assert remembering == found(attack.make()), attack.name


def honest(world: World) -> Case:
    return world.audit(world.reply(tokens=40)).ask(blocks=2).ask_whole().case()


def test_a_case_that_grows_is_checked_like_one_that_is_whole_at_once() -> None:
    whole = honest(World())
    grown = replace(whole, manifest=None, rounds=(), whole_rounds=(), memo=Memo())
    for part in (
        {},
        {"manifest": whole.manifest},
        {"rounds": whole.rounds},
        {"whole_rounds": whole.whole_rounds},
    ):
        grown = replace(grown, **part)
        fresh = replace(grown, memo=Memo())
        assert found(grown) == found(fresh)
    report = run_checks(grown)
    assert report.failed is None
    assert report == run_checks(whole)


def test_each_signature_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[bytes] = []
    verify = envelope.verify

    def counting(signed: envelope_pb2.Envelope, *rest: object) -> object:
        verified.append(signed.SerializeToString())
        return verify(signed, *rest)  # type: ignore[arg-type]

    whole = honest(World())
    monkeypatch.setattr("coin_protocol.envelope.verify", counting)
    for part in ({"manifest": None, "rounds": (), "whole_rounds": ()}, {}):
        assert run_checks(replace(whole, **part)).failed is None  # type: ignore[arg-type]
    assert len(verified) == len(set(verified)) > 5


def test_each_answer_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def noting(module: Any, name: str) -> None:
        work = getattr(module, name)

        def noted(*arguments: Any, **named: Any) -> Any:
            looked.append(name)
            return work(*arguments, **named)

        monkeypatch.setattr(module, name, noted)

    noting(merkle, "verify_inclusion")
    noting(opened, "dequantise")
    noting(whole_checks, "text_of")
    noting(whole_checks, "quantised_windows")
    whole = honest(World())
    grown = replace(whole, whole_rounds=())
    assert run_checks(grown).failed is None
    assert {"verify_inclusion", "dequantise"} == set(looked)
    looked.clear()
    grown = replace(grown, whole_rounds=whole.whole_rounds)
    assert run_checks(grown).failed is None
    assert {"text_of", "quantised_windows"} <= set(looked)
    looked.clear()
    assert run_checks(replace(grown)).failed is None
    assert not looked
    # Other models may find otherwise.
    other = SmallModels(whole.profile)
    assert run_checks(replace(grown, installed=(other.tokenizer, other.embedder))).failed is None
    assert {"text_of", "quantised_windows"} == set(looked)


def test_what_needs_no_challenge_is_looked_at_once_for_all_that_it_follows_from() -> None:
    case = honest(World())
    looked: list[Case] = []

    def look(at: Case) -> None:
        looked.append(at)

    later = replace(case, rounds=(), whole_rounds=())
    for one in (case, later, replace(case)):
        one.check_kept_once(look)
    assert looked == [case]

    receipt = receipt_pb2.Receipt()
    receipt.CopyFrom(case.receipt)
    receipt.checkpoints[0].seen_at.seconds += 1
    manifest = envelope_pb2.Envelope()
    assert case.manifest is not None
    manifest.CopyFrom(case.manifest)
    manifest.signatures[0].sig = bytes(64)
    message = profile_pb2.Policy()
    message.CopyFrom(case.policy.message)
    message.max_tokens_per_second /= 2
    profile = replace(case.profile, raw=case.profile.raw + b"\n\0")
    others = [
        replace(case, receipt=receipt),
        replace(case, manifest=manifest),
        replace(case, manifest=None),
        replace(case, policy=Policy.from_bytes(message.SerializeToString())),
        replace(case, profile=profile),
        replace(case, trust=replace(case.trust)),
    ]
    for _ in range(2):
        for one in others:
            one.check_kept_once(look)
    assert [id(one) for one in looked[1:]] == [id(one) for one in others]


def test_the_same_bytes_are_looked_at_as_an_answer_of_either_kind() -> None:
    case = honest(World())
    seen: list[object] = []

    def look(_: Case, answered: Answered | AnsweredWhole) -> None:
        seen.append(answered)

    sampled = case.openings[0]
    other = replace(case.whole_openings[0], entry=sampled.entry)
    for answered in (sampled, other, sampled, other):
        case.check_once(look, [answered])
    assert seen == [sampled, other]


def test_keys_of_one_trust_are_not_those_of_another() -> None:
    case = honest(World())
    assert run_checks(case).failed is None
    for trust in (Parties().trust, World("another").trust, Parties().trust):
        report = run_checks(replace(case, trust=trust))
        assert report.failed is not None
        assert report.failed.code == "SIGNATURE"
    assert run_checks(case).failed is None


def test_a_signature_that_was_wrong_stays_wrong() -> None:
    case = honest(World())
    receipt = receipt_pb2.Receipt()
    receipt.CopyFrom(case.receipt)
    receipt.commitment.signatures[0].sig = bytes(64)
    forged = replace(case, receipt=receipt)
    for _ in range(2):
        with pytest.raises(SignatureError):
            forged.signing_key(receipt.commitment, receipt.commitment.payload_type)
        assert run_checks(case).failed is None
        failed = run_checks(forged).failed
        assert failed is not None
        assert failed.code == "SIGNATURE"


def test_an_envelope_counts_under_its_own_type_only() -> None:
    case = honest(World())
    signed = case.receipt.commitment
    assert case.signing_key(signed, signed.payload_type)
    with pytest.raises(SignatureError, match="payload type"):
        case.signing_key(signed, "application/vnd.coin.opening.v1+protobuf")


def test_work_that_fails_is_done_again() -> None:
    memo = Memo()
    done: list[int] = []

    def work() -> int:
        done.append(len(done))
        if len(done) < 3:
            raise ZeroDivisionError
        return done[-1]

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            memo.once(("work",), work)
    assert [memo.once(("work",), work) for _ in range(3)] == [2, 2, 2]
    assert memo.once(("other",), lambda: 7) == 7


def test_what_was_opened_is_let_go_with_its_case() -> None:
    case = honest(World())
    gone = weakref.ref(case)
    gc.collect()
    gc.disable()
    try:
        assert run_checks(case).failed is None
        case = replace(case, rounds=())
        assert gone() is None
        assert run_checks(case).failed is None
        gone = weakref.ref(case)
        del case
        assert gone() is None
    finally:
        gc.enable()
