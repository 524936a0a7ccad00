"""Two verifiers of one commitment: the second one passes it where it knows the first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coin_protocol.checks import Trust, run_checks
from coin_protocol.keyset import pinned
from coin_protocol.signer import public_pem
from coin_protocol.v1 import opening_pb2, receipt_pb2
from provider_sdk.provider import Provider
from tests.support.command import Coin
from tests.support.files import AuditFiles
from tests.support.parties import OTHER_VERIFIER, Parties, reasoning_ids, run_session


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


@pytest.mark.parametrize("value", ["", "=key.pem", "name", "name=missing.pem"])
def test_another_verifiers_key_that_is_none_is_a_sentence(
    coin: Coin, audited: tuple[Parties, AuditFiles], value: str
) -> None:
    _, files = audited
    done = coin("bundle", "verify", files.bundle, *files.bundle_options, "--other-verifier", value)
    assert done.code == 2
    assert "NAME=PATH" in done.said or "missing.pem" in done.said
