"""The page of one audit, and its bundle as a file."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from coin_protocol.checks import CHECKS
from coin_protocol.database.engine import writing
from coin_protocol.offline import verify_bundle
from coin_protocol.profile import Policy
from coin_protocol.receipt import read_bundle
from coin_protocol.testing.small import small_profile
from coin_protocol.testing.world import World
from coin_protocol.v1 import receipt_pb2 as pb
from tests.support.web_site import (
    HOSTILE,
    NOW,
    WebNode,
    add_audits,
    add_bundle,
    audit_values,
    bundle_of,
    decided_values,
    visiting,
)
from verifier_sdk.store import tables
from verifier_sdk.store.tables import FILE
from verifier_sdk.web.views import audit as view


def _path(node: WebNode, what: str) -> str:
    return f"/audits/{node.bundles[what].hex()}"


def _data(page: str, name: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{name}-data">(.*?)</script>', page)
    assert found is not None
    return json.loads(found[1])


def test_a_passed_audit_tells_its_verdict_and_what_it_rests_on(
    filled: WebNode, reader: TestClient
) -> None:
    page = reader.get(_path(filled, "pass")).text
    for said in (
        "Nothing speaks against the bill, as far as this tier goes.",
        "look like honest reasoning does",
        "No tier below reexecuted answers a provider",
        'The policy <bdi class="name">coin-default-3</bdi> says FAIL at 0.04 or less',
        "PASS above 0.08",
        "19 blocks: 2 opened whole, 5 with embedding",
        "finer tokenization",
        "Every statement of the provider is signed",
        "its proof leads to that head's root",
        "0.9981",
    ):
        assert said in page, said
    for check in CHECKS:
        assert f"<code>{check.code}</code>" in page
    assert page.count('class="status status-passed"') >= len(CHECKS)
    assert len(re.findall(r'<i class="cell-whole"', page)) == 2
    assert len(re.findall(r'<i class="cell-embedding"', page)) == 5
    assert len(re.findall(r'<i class="cell-[a-z]+"', page)) == 19


def test_a_failed_audit_tells_which_check_and_what_to_do(
    filled: WebNode, reader: TestClient
) -> None:
    page = reader.get(_path(filled, "fail")).text
    assert "Found: <bdi>the bill counts 664 reasoning tokens, the commitment 600</bdi>" in page
    assert "Dispute the bill: it does not count what was committed." in page
    assert "Something that the provider signed is false" in page
    assert "No challenge was sent." in page
    assert page.count("status-skipped") > 10


def test_the_timeline_holds_both_clocks_and_the_marks(filled: WebNode, reader: TestClient) -> None:
    chart = _data(reader.get(_path(filled, "pass")).text, "timeline")
    assert [mark["label"] for mark in chart["marks"]] == ["request sent", "answer begins"]
    dated, seen = chart["series"]
    assert seen["label"] == "As the client saw them"
    assert [value for value in seen["values"] if value is not None] == list(range(32, 577, 32))
    assert [value for value in dated["values"] if value is not None] == list(range(32, 577, 32))
    assert chart["x"] == sorted(set(chart["x"]))


def test_the_conversation_is_on_no_page(filled: WebNode, reader: TestClient) -> None:
    page = reader.get(_path(filled, "pass")).text
    bundle = read_bundle(reader.get(_path(filled, "pass") + "/bundle.binpb").content)
    assert bundle.receipt.answer == b"the answer"
    assert "the answer<" not in page
    assert "messages" not in page
    assert "10 bytes, SHA-256" in page
    opened = [entry for entry in bundle.whole_rounds if entry.HasField("opening")]
    assert opened, "there is reasoning that could have been shown"


def test_a_bundle_is_a_file_that_verifies_and_is_never_shown(
    filled: WebNode, reader: TestClient
) -> None:
    audit_id = filled.bundles["pass"].hex()
    raw = reader.get(f"/audits/{audit_id}/bundle.binpb")
    as_json = reader.get(f"/audits/{audit_id}/bundle.json")
    for response, kind, ending in (
        (raw, "application/octet-stream", "binpb"),
        (as_json, "application/json", "json"),
    ):
        assert response.status_code == 200
        assert response.headers["content-type"] == kind
        assert response.headers["content-disposition"] == (
            f'attachment; filename="coin-audit-{audit_id[:16]}.{ending}"'
        )
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
    bundle = read_bundle(raw.content)
    assert read_bundle(as_json.content) == bundle
    policy = Policy.shipped("default")
    profile = small_profile(block_size=32, window_tokens=16, whole_blocks_ppm=200_000)
    world = World(seed="page", profile=profile, policy=policy)
    models = world.models
    verify_bundle(
        bundle,
        trust=world.trust,
        profile=profile,
        policy=policy,
        installed=(models.tokenizer, models.embedder),
    )


def test_large_bundles_are_handed_out_and_not_taken_apart(
    filled: WebNode, reader: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "MAX_SHOWN_BYTES", 100)
    monkeypatch.setattr(view, "MAX_JSON_BYTES", 100)
    page = reader.get(_path(filled, "pass")).text
    assert "is not taken apart here" in page
    assert "bundle.json" not in page
    assert "bundle.binpb" in page
    assert reader.get(_path(filled, "pass") + "/bundle.json").status_code == 413
    assert reader.get(_path(filled, "pass") + "/bundle.binpb").status_code == 200


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (tables.SUBMITTED, "not drawn for an audit"),
        (tables.QUEUED, "Waits for a worker."),
        (tables.RUNNING, "A worker is at it."),
        (tables.ERROR, "Given up by this node."),
    ],
)
def test_an_audit_without_verdict_says_how_it_stands(empty: WebNode, state: str, said: str) -> None:
    row = audit_values(1, state=state, failure=f"{HOSTILE[0]}\nsaid so", due_at=NOW, attempts=2)
    add_audits(empty.engine, [row])
    with visiting(empty) as client:
        page = client.get(f"/audits/{row['audit_id'].hex()}").text
        assert said in page
        assert "2 attempts so far" in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;⟨000A⟩said so" in page
        assert "bundle.binpb" not in page
        assert client.get(f"/audits/{row['audit_id'].hex()}/bundle.binpb").status_code == 404


def test_a_purged_audit_keeps_its_figures(empty: WebNode) -> None:
    row = decided_values(1, state=tables.PURGED, share_low=0.0, share_high=0.25)
    add_audits(empty.engine, [row])
    with visiting(empty) as client:
        page = client.get(f"/audits/{row['audit_id'].hex()}").text
    assert "Past its retention" in page
    assert "0.0\u202f% to 25.0\u202f%" in page
    assert "This node keeps no log." in page


def test_a_bundle_that_cannot_be_read_is_told_and_still_handed_out(empty: WebNode) -> None:
    audit_id = add_bundle(empty, "odd", bundle_of(forged=True))
    with writing(empty.engine) as connection:
        connection.execute(update(FILE).values(bundle=b"\xff<script>"))
    with visiting(empty) as client:
        page = client.get(f"/audits/{audit_id.hex()}")
        assert page.status_code == 200
        assert "cannot be read" in page.text
        assert client.get(f"/audits/{audit_id.hex()}/bundle.binpb").content == b"\xff<script>"
        assert client.get(f"/audits/{audit_id.hex()}/bundle.json").status_code == 404


def test_hostile_words_are_harmless_wherever_a_verdict_repeats_them(empty: WebNode) -> None:
    bundle = bundle_of(reason="; ".join(HOSTILE), notes=HOSTILE, forged=False)
    bundle.rounds[0].ClearField("opening")
    bundle.rounds[0].no_answer = HOSTILE[0]
    bundle.no_manifest = HOSTILE[1]
    audit_id = add_bundle(empty, "hostile", bundle, submitted_by=HOSTILE[2], failure=HOSTILE[3])
    with visiting(empty) as client:
        page = client.get(f"/audits/{audit_id.hex()}").text
    assert "No answer: &lt;script&gt;" in page
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page


def test_a_policy_that_is_not_known_has_no_limits(empty: WebNode) -> None:
    bundle = bundle_of()
    verdict = pb.Verdict.FromString(bundle.verdict.payload)
    verdict.policy_sha256 = bytes(32)
    bundle.verdict.payload = verdict.SerializeToString()
    audit_id = add_bundle(empty, "odd", bundle)
    with visiting(empty) as client:
        page = client.get(f"/audits/{audit_id.hex()}").text
    assert "a policy that this node does not know" in page
    assert 'class="scale"' not in page


def test_matches_lead_to_the_other_audit(empty: WebNode) -> None:
    bundle = bundle_of()
    other = decided_values(5, commitment_sha256=bytes(32))
    add_audits(empty.engine, [other])
    audit_id = add_bundle(empty, "pass", bundle)
    with visiting(empty) as client:
        page = client.get(f"/audits/{audit_id.hex()}").text
    assert f'<a href="/audits/{other["audit_id"].hex()}">' in page


def test_ids_are_lower_case_hex_and_nothing_else(filled: WebNode, reader: TestClient) -> None:
    audit_id = filled.bundles["pass"].hex()
    for wrong in (audit_id.upper(), audit_id[:-1], audit_id + "0", "g" * 64, "٣" * 64):
        assert reader.get(f"/audits/{wrong}").status_code == 404
