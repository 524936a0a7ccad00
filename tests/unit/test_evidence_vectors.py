"""Every evidence vector on disk comes to what it states, and is what its generator makes."""

from __future__ import annotations

import json
from base64 import b64decode
from importlib.resources import files
from typing import Any

import pytest

from coin_protocol.checks import CHECKS, Case, Report, Trust, run_checks
from coin_protocol.errors import VerificationError
from coin_protocol.keys import VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME, pinned_verifiers
from coin_protocol.profile import Policy, Profile
from coin_protocol.testing.evidence_vectors import FOLDER, evidence_vectors
from coin_protocol.testing.more_evidence_vectors import more_evidence_vectors
from coin_protocol.testing.salt_vectors import salt_vectors
from coin_protocol.testing.small import SmallEmbedder, SmallTokenizer
from coin_protocol.tiers import earned_tiers
from coin_protocol.v1 import envelope_pb2, receipt_pb2

PACKAGE = files("coin_protocol")
ON_DISK = sorted(f"{FOLDER}/{path.name}" for path in PACKAGE.joinpath(*FOLDER.split("/")).iterdir())


def read(path: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(PACKAGE.joinpath(*path.split("/")).read_bytes())
    return document


def case_of(vector: dict[str, Any]) -> Case:
    roots = [
        VerificationKey.from_pem(ROOT_KEY_NAME, pem.encode()) for pem in vector["provider_roots"]
    ]
    verifiers = pinned_verifiers({name: pem.encode() for name, pem in vector["verifiers"].items()})
    manifest = vector["manifest"]
    return Case(
        receipt=receipt_pb2.Receipt.FromString(b64decode(vector["receipt"])),
        trust=Trust(roots, verifiers),
        profile=Profile.from_bytes(b64decode(vector["profile"])),
        policy=Policy.from_bytes(b64decode(vector["policy"])),
        manifest=None
        if manifest is None
        else envelope_pb2.Envelope.FromString(b64decode(manifest)),
        rounds=[receipt_pb2.Round.FromString(b64decode(raw)) for raw in vector["rounds"]],
        whole_rounds=[
            receipt_pb2.Round.FromString(b64decode(raw)) for raw in vector["whole_rounds"]
        ],
        installed=(SmallTokenizer(), SmallEmbedder()),
    )


def tiers_of(case: Case, report: Report) -> list[str]:
    try:
        return [receipt_pb2.Tier.Name(tier) for tier in earned_tiers(case, report)]
    except VerificationError:  # statements that do not parse prove nothing
        return ["TIER_ASSERTED"]


@pytest.mark.parametrize("path", ON_DISK)
def test_a_vector_comes_to_what_it_states(path: str) -> None:
    vector = read(path)
    case = case_of(vector)
    report = run_checks(case)
    found = {
        "failed": report.failed.code if report.failed else None,
        "outcome": receipt_pb2.Outcome.Name(report.outcome),
        "fault": receipt_pb2.Fault.Name(report.fault),
        "tiers": tiers_of(case, report),
    }
    assert found == vector["expect"], report.detail


def test_every_check_has_a_vector_that_trips_it() -> None:
    tripped = {read(path)["expect"]["failed"] for path in ON_DISK}
    assert tripped == {check.code for check in CHECKS} | {None}


def test_vectors_are_named_by_their_file_and_say_what_they_are() -> None:
    for path in ON_DISK:
        vector = read(path)
        assert path == f"{FOLDER}/{vector['name']}.json"
        assert vector["about"].endswith(".")


def test_the_generator_makes_the_files_on_disk_byte_for_byte() -> None:
    made = evidence_vectors() | more_evidence_vectors() | salt_vectors()
    assert sorted(made) == ON_DISK
    for path in ON_DISK:
        assert PACKAGE.joinpath(*path.split("/")).read_bytes() == made[path], path
