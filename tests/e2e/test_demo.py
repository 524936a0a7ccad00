"""`coin demo`: one honest reply passes, nine lies are caught, each by its own check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coin_protocol.demo.scenarios import SCENARIOS
from coin_protocol.exposure import Caps
from coin_protocol.models import Models
from coin_protocol.offline import verify_bundle
from coin_protocol.profile import Policy, Profile
from coin_protocol.receipt import read_bundle, read_receipt
from coin_protocol.statements import read_commitment, read_verdict
from coin_protocol.testing.adversaries import ADVERSARIES
from coin_protocol.v1 import receipt_pb2
from tests.support.command import Done, run_coin
from tests.support.demo import trust_of
from verifier_sdk.replaying import replay_bundle

pytestmark = [pytest.mark.models, pytest.mark.timeout(600)]

KEYS = {
    "scenario",
    "verdict",
    "expected",
    "failed_checks",
    "tier",
    "tokens_exposed",
    "block_embeddings_exposed",
    "seconds",
    "undecided_before",
}
CAUGHT_BY = {
    "honest": [],
    "count over-reported in the bill": ["BILL"],
    "signed size larger than the tree": ["SIZES"],
    "leaves repeated": ["LEAF_REPEATED"],
    "token rows that no model produced": ["TOKEN_ROW"],
    "block embedding copied from the answer's": ["WHOLE_EMBEDDING"],
    "answer altered by the client": ["ANSWER_DIGEST"],
    "another session's commitment replayed": ["CLIENT_NONCE"],
    "opening refused": ["OPENING_PRESENT"],
    "tokens committed after the answer": ["ARRIVAL_TIME"],
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def demo(kept: Path) -> Done:
    """The whole demo, once."""
    return run_coin("demo", "--json", "--keep", kept)


@pytest.fixture(scope="module")
def played(demo: Done) -> dict[str, dict[str, Any]]:
    """The objects that were printed, by their scenario."""
    documents = [json.loads(line) for line in demo.out.splitlines()]
    return {document["scenario"]: document for document in documents}


@pytest.fixture(scope="module")
def bundles(demo: Done, kept: Path) -> list[receipt_pb2.Bundle]:
    """The bundles that were kept."""
    assert demo.code == 0
    return [read_bundle(path.read_bytes()) for path in sorted(kept.glob("*.bundle.json"))]


def test_it_ends_well_and_says_nothing_of_tracebacks(demo: Done) -> None:
    assert demo.code == 0, demo.err
    assert "Traceback" not in demo.err
    assert "rror" not in demo.err


def test_each_scenario_is_one_object_with_the_same_keys(
    demo: Done, played: dict[str, dict[str, Any]]
) -> None:
    assert len(demo.out.splitlines()) == len(played) == 10
    assert all(set(document) == KEYS for document in played.values())


def test_one_reply_is_honest_and_nine_are_lies(played: dict[str, dict[str, Any]]) -> None:
    assert list(played) == [scenario.title for scenario in SCENARIOS]
    assert set(played) == set(CAUGHT_BY)
    assert len(ADVERSARIES) == 8


@pytest.mark.parametrize("title", CAUGHT_BY)
def test_the_verdict_is_the_expected_one_by_the_right_check(
    played: dict[str, dict[str, Any]], title: str
) -> None:
    document = played[title]
    assert document["failed_checks"] == CAUGHT_BY[title]
    assert document["verdict"] == document["expected"] == ("FAIL" if CAUGHT_BY[title] else "PASS")


def test_the_honest_reply_earns_the_strongest_tier_that_is_built(
    played: dict[str, dict[str, Any]],
) -> None:
    assert played["honest"]["tier"] == "opened"
    assert played["honest"]["tokens_exposed"] > 0
    assert played["honest"]["block_embeddings_exposed"] > 0


def test_exposure_stays_within_the_caps(bundles: list[receipt_pb2.Bundle]) -> None:
    caps = Profile.shipped("demo").message.caps
    for bundle in bundles:
        commitment = read_commitment(bundle.receipt.commitment.payload)
        exposure = read_verdict(bundle.verdict.payload).exposure
        most = Caps.of(caps, tokens=commitment.reasoning_tokens, blocks=commitment.block_count)
        assert exposure.tokens <= most.tokens
        assert exposure.block_embeddings <= most.block_embeddings
        assert exposure.whole_blocks <= most.whole_blocks


def test_what_is_printed_is_what_the_bundles_say(
    bundles: list[receipt_pb2.Bundle], played: dict[str, dict[str, Any]]
) -> None:
    verdicts = [read_verdict(bundle.verdict.payload) for bundle in bundles]
    assert sorted(
        (verdict.exposure.tokens, verdict.exposure.block_embeddings) for verdict in verdicts
    ) == sorted(
        (document["tokens_exposed"], document["block_embeddings_exposed"])
        for document in played.values()
    )


def test_each_bundle_is_borne_out_by_its_evidence(
    bundles: list[receipt_pb2.Bundle], kept: Path
) -> None:
    assert len(bundles) == 10
    for bundle in bundles:
        found = verify_bundle(
            bundle,
            trust=trust_of(kept),
            profile=Profile.shipped("demo"),
            policy=Policy.shipped(),
        )
        assert set(found.unchecked) <= {"WHOLE_EMBEDDING", "WHOLE_TEXT"}


def test_each_bundle_is_decided_again_to_the_same_bits_by_another_process(
    bundles: list[receipt_pb2.Bundle], kept: Path
) -> None:
    models = Models(Profile.shipped("demo"))
    judged = []
    for bundle in bundles:
        found = replay_bundle(bundle, trust=trust_of(kept), models=models, policy=Policy.shipped())
        assert found.difference is None
        judged.append(found.judge)
    assert True in judged


def test_each_receipt_is_kept_beside_its_bundle(demo: Done, kept: Path) -> None:
    assert demo.code == 0
    receipts = sorted(kept.glob("*.receipt.json"))
    assert len(receipts) == 10
    for path in receipts:
        bundle = read_bundle(path.with_name(path.name.replace("receipt", "bundle")).read_bytes())
        assert bundle.receipt.commitment == read_receipt(path.read_bytes()).commitment


def test_a_folder_that_holds_keys_already_is_wrong_usage(demo: Done, kept: Path) -> None:
    assert demo.code == 0
    again = run_coin("demo", "--json", "--keep", kept)
    assert again.code == 2
    assert "never overwritten" in again.said
    assert "Traceback" not in again.err
