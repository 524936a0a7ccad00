"""Two verifiers of one commitment: the second one passes it where it knows the first."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from coin_protocol.checks import Trust, run_checks
from coin_protocol.keys import read_time
from coin_protocol.keyset import pinned
from coin_protocol.receipt import read_receipt
from coin_protocol.signer import KeySigner, public_pem
from coin_protocol.statements import read_commitment
from coin_protocol.v1 import opening_pb2, receipt_pb2
from provider_sdk.provider import Provider
from tests.support.command import Coin
from tests.support.files import AuditFiles, leave_files
from tests.support.parties import (
    OTHER_VERIFIER,
    VERIFIER,
    Parties,
    Reply,
    reasoning_ids,
    run_session,
)


def test_a_verifier_passes_what_another_one_asked_about_if_it_knows_that_one(
    parties: Parties, provider: Provider
) -> None:
    reply = run_session(provider, reasoning_ids(1_000))
    before = reply.case(parties)
    fingerprints = before.receipt.fingerprints
    reply.ask(before, parties.challenge(fingerprints))
    mine = parties.challenge(fingerprints, signer=parties.other, verifier=OTHER_VERIFIER)
    case, signed = reply.ask(before, mine)
    opening = opening_pb2.Opening.FromString(signed.payload)
    assert [shown.flip_index for shown in opening.answered] == [1]
    assert opening.flip_index == 2

    report = run_checks(case)
    assert report.failed is None, report.detail
    alone = Trust([parties.root.public], pinned("verifiers", [parties.other.public]))
    report = run_checks(replace(case, trust=alone))
    assert report.failed is not None
    assert report.failed.code == "FLIP"
    assert (report.outcome, report.fault) == (
        receipt_pb2.OUTCOME_INCONCLUSIVE,
        receipt_pb2.FAULT_UNSPECIFIED,
    )
    assert "not known here" in report.detail


def test_a_bundle_is_read_with_the_keys_of_other_verifiers(
    coin: Coin, audited: tuple[Parties, AuditFiles], tmp_path: Path
) -> None:
    parties, files = audited
    key = tmp_path / "other.pub.pem"
    key.write_bytes(public_pem(parties.other.public))
    verify = ("bundle", "verify", files.bundle, *files.bundle_options, "--checks-only")
    assert coin(*verify).code in {0, 3}
    assert coin(*verify, "--other-verifier", f"another={key}").code == coin(*verify).code


def test_a_verdict_of_another_verifier_is_not_taken_for_that_of_the_pinned_one(
    coin: Coin, audited: tuple[Parties, AuditFiles], tmp_path: Path
) -> None:
    _, files = audited
    pinned_key = tmp_path / "pinned.pub.pem"
    pinned_key.write_bytes(public_pem(KeySigner.generate("another").public))
    others = ("--other-verifier", f"{VERIFIER}={files.verifier}")
    given = (*files.options, "--verifier-key", str(pinned_key), *others)
    done = coin("bundle", "verify", files.bundle, *given, "--checks-only")
    assert done.code == 1
    assert "borne out" not in done.out


@pytest.mark.parametrize("value", ["", "=key.pem", "name", "name=missing.pem"])
def test_another_verifiers_key_that_is_none_is_a_sentence(
    coin: Coin, audited: tuple[Parties, AuditFiles], value: str
) -> None:
    _, files = audited
    done = coin("bundle", "verify", files.bundle, *files.bundle_options, "--other-verifier", value)
    assert done.code == 2
    assert "NAME=PATH" in done.said or "missing.pem" in done.said


# Bills


@pytest.fixture(scope="module")
def audited_after_another(tmp_path_factory: pytest.TempPathFactory) -> tuple[Parties, AuditFiles]:
    """The files of an audit of a reply that another verifier had asked about."""
    parties = Parties()
    folder = tmp_path_factory.mktemp("audited-after-another")

    def ask_first(reply: Reply) -> None:
        case = reply.case(parties)
        fingerprints = case.receipt.fingerprints
        asked = parties.challenge(fingerprints, signer=parties.other, verifier=OTHER_VERIFIER)
        reply.ask(case, asked)

    return parties, leave_files(parties, folder, before=ask_first)


def other_key(parties: Parties, folder: Path) -> str:
    """Write the other verifier's key; return the option's value."""
    key = folder / "other.pub.pem"
    key.write_bytes(public_pem(parties.other.public))
    return f"{OTHER_VERIFIER}={key}"


def tier_of(coin: Coin, files: AuditFiles, folder: Path, *options: str | Path) -> str:
    """Check a bill of the reply that was audited; return the tier of its line."""
    committed = read_commitment(read_receipt(files.receipt.read_bytes()).commitment.payload)
    usage = committed.usage
    bill = folder / "bill.jsonl"
    counts = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": committed.reasoning_tokens + committed.answer_tokens,
        "completion_tokens_details": {"reasoning_tokens": committed.reasoning_tokens},
    }
    at = read_time(committed.started_at).isoformat()
    line = {"time": at, "model": committed.model, "vendor": "openai", "usage": counts}
    bill.write_text(json.dumps(line) + "\n")
    done = coin("bill", "check", bill, "--receipts", files.bundle, *options, "--json")
    (checked,) = done.document["lines"]
    assert (checked["receipt"], checked["verdict"]) == ("verified", "equal"), done.out
    tier: str = checked["tier"]
    return tier


def test_a_bill_is_borne_out_by_an_audit_that_came_after_another_verifiers_question(
    coin: Coin, audited_after_another: tuple[Parties, AuditFiles], tmp_path: Path
) -> None:
    parties, files = audited_after_another
    assert tier_of(coin, files, tmp_path, *files.bundle_options) == "asserted"
    with_other = ("--other-verifier", other_key(parties, tmp_path))
    assert tier_of(coin, files, tmp_path, *files.bundle_options, *with_other) == "timed"


def test_the_other_verifiers_own_audits_raise_nothing_on_a_bill(
    coin: Coin, audited_after_another: tuple[Parties, AuditFiles], tmp_path: Path
) -> None:
    parties, files = audited_after_another
    stranger = tmp_path / "stranger.pub.pem"
    stranger.write_bytes(public_pem(KeySigner.generate("stranger").public))
    others = (f"{VERIFIER}={files.verifier}", other_key(parties, tmp_path))
    named = [option for other in others for option in ("--other-verifier", other)]
    given = [*files.options, "--verifier-key", str(stranger), *named]
    assert tier_of(coin, files, tmp_path, *given) == "asserted"
