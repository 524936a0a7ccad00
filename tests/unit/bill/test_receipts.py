"""Receipts out of files: which count, which do not, and that none vouches for two replies."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol.checks import Trust
from coin_protocol.errors import InvalidInputError, LimitError
from coin_protocol.profile import Profile
from coin_protocol.receipt import to_json, write_file
from coin_protocol.v1 import receipt_pb2
from tests.unit.bill.making import NOON, POLICY, PROFILE, Provider, book, examiner, wrapped
from verifier_sdk.bill import Examiner, ReceiptBook, State
from verifier_sdk.bill import book as book_module
from verifier_sdk.bill import receipts as receipts_module


def read(*paths: Path, trust: Trust | None = None) -> ReceiptBook:
    return ReceiptBook.read(paths, examiner(trust))


# Whether they count


def test_a_sound_receipt_is_verified_under_its_root(acme: Provider) -> None:
    facts = examiner(acme.trust).receipt(acme.receipt(), "here", "chatcmpl-1")
    assert (facts.state, facts.reason, facts.tier) == (State.VERIFIED, "", "asserted")
    assert (facts.reasoning_tokens, facts.answer_tokens, facts.generated) == (300, 50, 350)
    assert (facts.prompt_tokens, facts.model) == (20, "acme-large")
    assert (facts.origin, facts.response_id) == ("here", "chatcmpl-1")
    assert facts.served.start == NOON
    assert facts.served.end - facts.served.start == timedelta(seconds=5)
    assert facts.seconds == 5.0


def test_without_a_root_nothing_is_proven(acme: Provider) -> None:
    facts = examiner().receipt(acme.receipt())
    assert facts.state is State.UNVERIFIED
    assert facts.counts


def test_under_another_root_it_is_worth_nothing(acme: Provider) -> None:
    facts = examiner(Provider().trust).receipt(acme.receipt())
    assert facts.state is State.INVALID
    assert facts.reason.startswith("SIGNATURE: no pinned root key")
    assert not facts.counts


def other_answer(receipt: receipt_pb2.Receipt) -> None:
    receipt.answer = b"Green."


def other_request(receipt: receipt_pb2.Receipt) -> None:
    receipt.request = b"{}"


def other_nonce(receipt: receipt_pb2.Receipt) -> None:
    receipt.client_nonce = bytes(32)


@pytest.mark.parametrize(
    ("edit", "check"),
    [
        (other_answer, "ANSWER_DIGEST"),
        (other_request, "REQUEST_DIGEST"),
        (other_nonce, "CLIENT_NONCE"),
    ],
)
@pytest.mark.parametrize("rooted", [True, False])
def test_a_receipt_that_contradicts_itself_is_invalid_with_a_root_or_without(
    acme: Provider, edit: Callable[[receipt_pb2.Receipt], None], check: str, *, rooted: bool
) -> None:
    receipt = acme.receipt()
    edit(receipt)
    facts = examiner(acme.trust if rooted else None).receipt(receipt)
    assert facts.state is State.INVALID
    assert facts.reason.startswith(f"{check}: ")


@pytest.mark.parametrize("rooted", [True, False])
def test_what_came_with_the_reply_is_no_bill_here(acme: Provider, *, rooted: bool) -> None:
    """A gateway may pass on its upstream's own count: the line is held against what is signed."""
    receipt = acme.receipt()
    receipt.billed.completion_tokens += 40
    facts = examiner(acme.trust if rooted else None).receipt(receipt)
    assert facts.state is (State.VERIFIED if rooted else State.UNVERIFIED)
    assert receipt.billed.completion_tokens == 390


def test_a_provider_that_signs_a_false_bill_is_caught(acme: Provider) -> None:
    receipt = acme.receipt(edit=lambda c: setattr(c.usage, "reasoning_tokens", 301))
    facts = examiner(acme.trust).receipt(receipt)
    assert facts.state is State.INVALID
    assert facts.reason == "BILL: the bill counts 301 reasoning tokens, the commitment 300"


def test_a_receipt_under_an_unknown_profile_is_undecided(acme: Provider) -> None:
    shipped = Profile.shipped("default")
    facts = Examiner(acme.trust, {shipped.digest: shipped}, POLICY).receipt(acme.receipt())
    assert facts.state is State.UNDECIDED
    assert facts.reason.startswith("PROFILE: ")


def test_what_holds_no_commitment_is_none(acme: Provider) -> None:
    receipt = acme.receipt()
    receipt.commitment.payload = b"\x01"
    with pytest.raises(InvalidInputError, match="it holds no commitment"):
        examiner().receipt(receipt)


@pytest.mark.parametrize("year", [1, 1969, 2200, 9999])
def test_a_reply_of_another_age_is_none(acme: Provider, year: int) -> None:
    """Sums with such a time would leave what a date can be."""
    stamp = Timestamp()
    stamp.FromDatetime(NOON.replace(year=year))
    receipt = acme.receipt(edit=lambda c: c.ended_at.CopyFrom(stamp))
    with pytest.raises(InvalidInputError, match="dated"):
        examiner().receipt(receipt)


def test_a_reply_that_took_no_time_was_not_measured(acme: Provider) -> None:
    assert examiner().receipt(acme.receipt(seconds=0)).seconds is None


def test_the_request_tells_what_it_allowed(acme: Provider) -> None:
    body = {"max_completion_tokens": 400, "n": 2, "thinking": {"budget_tokens": 100}}
    terms = examiner().receipt(acme.receipt(request=body)).terms
    assert (terms.max_tokens, terms.choices, terms.reasoning_budget) == (400, 2, 100)


def test_an_answer_that_is_empty_is_known(acme: Provider) -> None:
    assert examiner().receipt(acme.receipt(text=b"")).answer_empty
    assert not examiner().receipt(acme.receipt()).answer_empty


# Audits


def test_an_audit_that_stopped_at_what_the_client_was_told_takes_nothing_away(
    acme: Provider,
) -> None:
    facts = examiner(acme.trust).receipt(acme.receipt())
    verdict = receipt_pb2.Verdict(
        outcome=receipt_pb2.OUTCOME_FAIL,
        fault=receipt_pb2.FAULT_UNATTRIBUTED,
        checks=[receipt_pb2.CheckResult(code="BILL", status=receipt_pb2.CHECK_STATUS_FAILED)],
    )
    assert receipts_module.audited(facts, verdict, opened=False) == facts
    verdict.fault = receipt_pb2.FAULT_PROVIDER
    found = receipts_module.audited(facts, verdict, opened=False)
    assert (found.state, found.reason) == (State.INVALID, "BILL: its audit failed")


# Files


@pytest.mark.parametrize("name", ["r.json", "r.binpb", "r.receipt"])
def test_a_receipt_in_a_file(acme: Provider, tmp_path: Path, name: str) -> None:
    write_file(tmp_path / name, acme.receipt())
    (facts,) = read(tmp_path / name)
    assert (facts.response_id, facts.origin) == ("", str(tmp_path / name))


def test_receipts_in_lines_beside_the_replys_id_or_bare(acme: Provider, tmp_path: Path) -> None:
    one, other = acme.receipt(seed="one"), acme.receipt(seed="other")
    path = tmp_path / "receipts.jsonl"
    bare = json.dumps(json.loads(to_json(other)))
    path.write_text(json.dumps(wrapped(one, "chatcmpl-1")) + "\n\n" + bare + "\n")
    found = list(read(path))
    assert [facts.response_id for facts in found] == ["chatcmpl-1", ""]
    assert [facts.origin for facts in found] == [f"{path}:1", f"{path}:3"]


def test_one_receipt_in_a_json_file_beside_its_id(acme: Provider, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(wrapped(acme.receipt(), "chatcmpl-1"), indent=2))
    assert [facts.response_id for facts in read(tmp_path)] == ["chatcmpl-1"]


def test_a_folder_is_read_with_those_below_it(acme: Provider, tmp_path: Path) -> None:
    (tmp_path / "october" / "first").mkdir(parents=True)
    for number, folder in enumerate((".", "october", "october/first")):
        write_file(tmp_path / folder / "r.json", acme.receipt(seed=str(number)))
    (tmp_path / "notes.txt").write_text("not a receipt")
    assert len(read(tmp_path)) == 3
    assert read(tmp_path).problem_count == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "it is no JSON"),
        ("[1]", "not a receipt"),
        ("{}", "found receipt format ''"),
        ('{"format": "coin.receipt.v9"}', "found receipt format 'coin.receipt.v9'"),
        ('{"format": "coin.delivery.v1"}', "a gateway's delivery"),
        ('{"response_id": 7, "receipt": {}}', "`response_id` is no text"),
        ('{"response_id": "a", "receipt": {"format": "coin.receipt.v1"}}', "has no key_set"),
        ('{"format": "coin.receipt.v1", "unknown": 1}', "not a receipt"),
        ('{"a": ' + "[" * 60_000, "it is no JSON"),
        ("\x00\x01", "not a receipt"),
    ],
)
def test_what_is_no_receipt_is_named_and_the_rest_is_read(
    acme: Provider, tmp_path: Path, text: str, reason: str
) -> None:
    path = tmp_path / "receipts.jsonl"
    path.write_text(text + "\n" + json.dumps(wrapped(acme.receipt(), "chatcmpl-1")) + "\n")
    found = read(path)
    assert len(found) == 1
    (problem,) = found.problems
    assert problem.origin == f"{path}:1"
    assert reason in problem.reason


def test_a_folder_that_is_empty_is_none_and_one_that_is_not_there_an_error(tmp_path: Path) -> None:
    assert len(read(tmp_path)) == 0
    with pytest.raises(InvalidInputError, match="no such file or folder"):
        read(tmp_path / "none")


def test_only_the_first_problems_are_named(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("{}\n" * 150)
    found = read(tmp_path)
    assert (found.problem_count, len(found.problems)) == (150, 100)


# One receipt, one reply


def test_the_same_receipt_kept_twice_counts_once(acme: Provider) -> None:
    facts = examiner(acme.trust).receipt(acme.receipt(), "here", "chatcmpl-1")
    found = book(facts, replace(facts, origin="there"))
    assert len(found) == 1
    assert found.reused == {}
    assert found.problem_count == 0


def test_an_id_that_was_noted_only_once_is_kept(acme: Provider) -> None:
    bare = examiner(acme.trust).receipt(acme.receipt())
    noted = replace(bare, response_id="chatcmpl-1")
    for order in ((bare, noted), (noted, bare)):
        found = book(*order)
        assert list(found.by_id) == ["chatcmpl-1"]
        assert len(found) == 1


def test_one_receipt_for_two_replies_vouches_for_the_first(acme: Provider) -> None:
    facts = examiner(acme.trust).receipt(acme.receipt(), "here", "chatcmpl-1")
    found = book(facts, replace(facts, response_id="chatcmpl-2"))
    assert list(found.by_id) == ["chatcmpl-1"]
    assert found.reused["chatcmpl-2"].response_id == "chatcmpl-1"


def test_two_commitments_of_one_session_are_both_worth_nothing(acme: Provider) -> None:
    look = examiner(acme.trust).receipt
    one = look(acme.receipt(reasoning=300), "one")
    other = look(acme.receipt(reasoning=900), "other")
    assert one.session_id == other.session_id
    found = book(one, other)
    assert found.states == {State.INVALID: 2}
    assert {problem.origin for problem in found.problems} == {"one", "other"}
    assert "two commitments for one session" in found.problems[0].reason


def test_a_forged_receipt_takes_nothing_from_the_real_one(acme: Provider) -> None:
    real = examiner(acme.trust).receipt(acme.receipt(), "real")
    forged = examiner(acme.trust).receipt(Provider().receipt(reasoning=900), "forged")
    assert forged.session_id == real.session_id
    for order in ((real, forged), (forged, real)):
        found = book(*order)
        assert found.states == {State.VERIFIED: 1, State.INVALID: 1}
        assert [problem.origin for problem in found.problems] == ["forged"]


def test_too_many_receipts_are_refused(acme: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "MAX_RECEIPTS", 1)
    look = examiner().receipt
    with pytest.raises(LimitError, match="more than 1 receipts"):
        book(look(acme.receipt(seed="a")), look(acme.receipt(seed="b")))


def test_no_text_of_a_conversation_is_kept(acme: Provider) -> None:
    body: dict[str, Any] = {"messages": [{"content": "the secret question"}]}
    facts = examiner().receipt(acme.receipt(request=body, text=b"the secret answer"))
    assert "secret" not in repr(facts)
    assert PROFILE.digest


def test_a_note_of_a_reply_that_came_without_a_receipt_is_neither(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    noted = json.dumps({"response_id": "r1", "usage": {"prompt_tokens": 1}})
    path.write_text(f"{noted}\n{noted}\n")
    found = read(path)
    assert (len(found), found.problem_count) == (0, 0)
