"""What a case makes of its evidence: whose it is, what was derived when, how rounds count."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from coin_protocol import envelope
from coin_protocol.checks import Case, Trust, rooted_keys, run_checks
from coin_protocol.checks.case import Answered
from coin_protocol.checks.memo import Memo
from coin_protocol.errors import InvalidInputError, SignatureError
from coin_protocol.keyset import SignedKeySet, pinned, stamp
from coin_protocol.root_certificate import RootDomain
from coin_protocol.testing.forgeries import audit, change, put, refused
from coin_protocol.testing.world import START, Edit, World
from coin_protocol.v1 import envelope_pb2, receipt_pb2
from tests.support.chains import DOMAIN, Authority

SENT = START + timedelta(hours=1)
HALF = timedelta(seconds=30)
"""Of the policy's deadline, for a challenge that took long to be sent."""


# Whose keys


@pytest.mark.parametrize(
    ("domains", "says"),
    [
        ((), "no pinned root key signed the provider's key set"),
        (
            (DOMAIN, "other.example"),
            "the key set comes without a certificate for 'acme.example', 'other.example'",
        ),
    ],
)
def test_keys_of_no_root_are_refused_because_the_last_pinned_one_did_not_sign(
    domains: tuple[str, ...], says: str
) -> None:
    authority = Authority().root
    roots = [World(seed).signer("root").public for seed in ("one", "another")]
    trust = Trust(roots, pinned("verifiers", ()), [RootDomain(d, (authority,)) for d in domains])
    with pytest.raises(SignatureError) as error:
        rooted_keys(SignedKeySet(World().key_set()), trust)
    assert str(error.value).startswith(says)
    assert isinstance(error.value.__cause__, SignatureError)


# What was derived, and of what


def test_checks_that_ask_of_one_statement_have_it_read_for_its_signer_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[envelope_pb2.Envelope] = []
    verified = Case.verified

    def noting(case: Case, signed: envelope_pb2.Envelope, *rest: Any) -> Any:
        asked.append(signed)
        return verified(case, signed, *rest)

    monkeypatch.setattr(Case, "verified", noting)
    case = audit().case()
    for _ in range(3):
        case.signing_key(case.receipt.commitment, envelope.COMMITMENT)
        case.signing_key(case.receipt.fingerprints, envelope.FINGERPRINTS)
    assert asked == [case.receipt.commitment, case.receipt.fingerprints]


def test_a_manifest_of_no_bytes_is_one_that_nobody_signed() -> None:
    without = replace(audit().case(), manifest=None)
    assert run_checks(without).failed is None
    report = run_checks(replace(without, manifest=envelope_pb2.Envelope()))
    assert report.failed is not None
    assert report.failed.code == "SIGNATURE"
    assert report.fault == receipt_pb2.FAULT_UNATTRIBUTED


def test_the_tree_of_blocks_is_that_of_the_manifest_at_hand() -> None:
    case = audit().case()
    other = replace(case, manifest=audit(tokens=24).case().manifest)
    before = replace(case, manifest=None)
    roots = [one.block_tree.root() for one in (before, case, other)]
    assert len(set(roots)) == 3
    assert case.block_tree.root() == case.commitment.token_root
    assert roots == [replace(one, memo=Memo()).block_tree.root() for one in (before, case, other)]


def test_an_answer_is_looked_at_again_where_it_is_held_against_something_else() -> None:
    case = audit().ask().case()
    (answered,) = case.openings
    looked: list[Case] = []

    def look(at: Case, _: Answered) -> None:
        looked.append(at)

    def of_receipt(edit: Edit[receipt_pb2.Receipt]) -> Case:
        receipt = receipt_pb2.Receipt()
        receipt.CopyFrom(case.receipt)
        edit(receipt)
        return replace(case, receipt=receipt)

    assert case.manifest is not None
    others = [
        case,
        replace(case, profile=replace(case.profile, raw=case.profile.raw + b"\n\0")),
        of_receipt(put("commitment.payload", b"another")),
        of_receipt(put("fingerprints.payload", b"another")),
        replace(case, manifest=envelope_pb2.Envelope(payload=b"another")),
        replace(case, manifest=envelope_pb2.Envelope()),
        replace(case, manifest=None),
    ]
    same = [of_receipt(put("answer", b"another")), replace(case, whole_rounds=case.rounds)]
    for _ in range(2):
        for one in (*others, *same):
            one.check_once(look, [answered])
    assert [id(one) for one in looked] == [id(one) for one in others]
    case.check_once(look, [answered], "a model")
    assert looked[len(others) :] == [case]


# Rounds


def test_a_finding_names_its_round_among_all_that_were_asked() -> None:
    first = audit().ask()
    between = first.ask(edit_round=refused(first.world))
    twice = change("blocks", lambda blocks: [*blocks, blocks[0]])
    case = between.ask(edit_opening=twice).case()
    assert [answered.number for answered in case.openings] == [1, 3]
    report = run_checks(case)
    assert report.failed is not None
    assert report.failed.code == "DRAW"
    assert report.detail.startswith("round 3 opens blocks ")


@pytest.mark.parametrize("kind", ["blocks", "whole blocks"])
@pytest.mark.parametrize(
    ("gave", "says"),
    [
        (HALF, None),
        (HALF - timedelta(milliseconds=1), r"gave 29\.999 s, far less than the policy's deadline"),
    ],
)
def test_a_challenge_must_leave_the_provider_half_of_the_policys_time(
    kind: str, gave: timedelta, says: str | None
) -> None:
    edit = put("deadline", stamp(SENT + gave))
    ask = audit().ask if kind == "blocks" else audit().ask_whole
    case = ask(edit_challenge=edit).case()
    assert case.policy.deadline_seconds == 2 * HALF.total_seconds()
    if says is None:
        assert run_checks(case).failed is None
        return
    with pytest.raises(InvalidInputError, match=says):
        run_checks(case)
