"""The page of a provider, whatever it is called."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from coin_protocol.database.engine import reading
from coin_protocol.v1 import receipt_pb2 as pb
from tests.support.web_site import (
    HOSTILE,
    NOW,
    WebNode,
    add_audits,
    decided_values,
    visiting,
)
from verifier_sdk.web import links
from verifier_sdk.web.queries import provider as figures


def _data(page: str, name: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{name}-data">(.*?)</script>', page)
    assert found is not None
    return json.loads(found[1])


@pytest.mark.parametrize("name", [name for name in HOSTILE if "%00" not in name])
def test_any_name_has_a_page(reader: TestClient, name: str) -> None:
    # The test client decodes a quoted percent sign twice; a real server is asked in tests/e2e.
    response = reader.get(links.provider(name))
    assert response.status_code == 200
    assert "<script>alert" not in response.text
    assert "<img" not in response.text
    assert "\u202e" not in response.text
    assert re.search(r"<h1><bdi class=\"name\"", response.text)
    assert re.search(r'role="status">\s*1 audit\.', response.text)
    assert name not in str(response.headers)
    again = re.search(r'id="sort-tokens" href="([^"]+)"', response.text)
    assert again is not None
    sorted_page = reader.get(again[1].replace("&amp;", "&"))
    assert sorted_page.status_code == 200
    assert re.search(r'role="status">\s*1 audit\.', sorted_page.text)


def test_names_that_nobody_has_are_not_found(reader: TestClient) -> None:
    for path in ("/providers/", "/providers/nobody", "/providers/" + "x" * 300, "/providers/LAB"):
        assert reader.get(path).status_code == 404


def test_a_configured_provider_without_audits_has_a_page(empty: WebNode) -> None:
    empty.providers = ("new", "..", "a/b")
    with visiting(empty) as client:
        for name in empty.providers:
            page = client.get(links.provider(name))
            assert page.status_code == 200
            assert "Nothing to draw yet." in page.text
            assert "No verdict yet." in page.text
            assert "set up to audit this provider" in page.text


def test_figures_are_those_of_the_rows(node: WebNode) -> None:
    shares = [(0.0, 0.2, 100), (0.5, 1.0, 300), (None, None, 5000)]
    add_audits(
        node.engine,
        [
            decided_values(
                number,
                outcome,
                tier=tier,
                failed_check=check,
                reasoning_tokens=tokens,
                share_low=low,
                share_high=high,
                decided_at=NOW + number,
                log_evidence=evidence,
                p_value=p,
            )
            for number, ((low, high, tokens), outcome, tier, check, evidence, p) in enumerate(
                zip(
                    shares,
                    (pb.OUTCOME_PASS, pb.OUTCOME_FAIL, pb.OUTCOME_FAIL),
                    (pb.TIER_TIMED, pb.TIER_TIMED, pb.TIER_OPENED),
                    (None, None, "BILL"),
                    (2.302585092994046, -2.302585092994046, None),
                    (0.05, 1.0, 0.01),
                    strict=True,
                )
            )
        ]
        + [decided_values(9, provider="other", share_low=0.9, share_high=1.0)],
    )
    with reading(node.engine) as connection:
        pooled = figures.pooled_share(connection, "lab")
        assert pooled is not None
        assert pooled.audits == 2
        assert pooled.low == pytest.approx(0.5 * 300 / 400)
        assert pooled.high == pytest.approx((0.2 * 100 + 300) / 400)
        assert figures.pooled_share(connection, "nobody") is None
        path = figures.evidence_path(connection, "lab")
        assert [at for at, _ in path] == [NOW, NOW + 1]
        assert [value for _, value in path] == pytest.approx([1.0, -1.0])
        bars = figures.p_values(connection, "lab")
        assert bars == [1, *[0] * (figures.BINS - 2), 1]
        assert figures.tiers(connection, "lab") == {pb.TIER_TIMED: 2, pb.TIER_OPENED: 1}
        assert figures.failed_checks(connection, "lab") == {"BILL": 1}
        assert figures.outcomes(connection, "lab") == {pb.OUTCOME_PASS: 1, pb.OUTCOME_FAIL: 2}
        assert [row.share_high for row in figures.shares(connection, "lab")] == [0.2, 1.0]


def test_the_evidence_is_drawn_with_the_line_that_it_must_reach(reader: TestClient) -> None:
    page = reader.get("/providers/lab").text
    chart = _data(page, "evidence")
    assert chart["lines"][-1]["at"] == pytest.approx(2.0)
    assert chart["lines"][-1]["label"] == "FAIL at 100 to 1"
    assert len(chart["x"]) == len(chart["series"][0]["values"]) == 120
    assert "has not reached the line" in page
    assert "has reached the line" in reader.get("/providers/other%20lab").text
    histogram = _data(page, "p-values")
    assert sum(histogram["series"][0]["values"]) == 120
    assert histogram["lines"][0]["at"] == pytest.approx(6.0)
    shares = _data(page, "shares")
    assert [one["kind"] for one in shares["series"]] == ["range"] * 3


def test_evidence_against_a_provider_is_on_its_page(reader: TestClient) -> None:
    page = reader.get("/providers/other%20lab").text
    found = re.search(r'href="(/log/evidence/[0-9a-f]{64}\.binpb)"', page)
    assert found is not None
    assert "signed two commitments to one session" in page
    assert reader.get(found[1]).content == b"evidence 0"
    assert "was not found to sign two statements" in reader.get("/providers/lab").text
