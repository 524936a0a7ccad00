"""The list of audits: every order, every filter, page after page, on both databases."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from coin_protocol.database.engine import reading
from coin_protocol.errors import InvalidInputError
from coin_protocol.v1 import receipt_pb2 as pb
from tests.support.web_site import (
    HOSTILE,
    NOW,
    WebNode,
    add_audits,
    audit_values,
    decided_values,
    visiting,
)
from verifier_sdk.store import tables
from verifier_sdk.web.formats import NOTHING
from verifier_sdk.web.queries import audits as listing
from verifier_sdk.web.queries.audits import SORTS, Order, Place, Wanted

ALL = Wanted()


def _rows() -> list[dict[str, Any]]:
    """Return rows with many equal values, and some without."""
    rows = []
    for number in range(37):
        given = {
            "provider": ("b", "a", "ä", "B")[number % 4],
            "model": ("m", "n")[number % 2],
            "reasoning_tokens": number // 5,
        }
        if number % 3:
            outcome = pb.Outcome.ValueType(1 + number % 3)
            decided = NOW + (number % 7) / 3
            tier = pb.Tier.ValueType(1 + number % 4)
            rows.append(decided_values(number, outcome, decided_at=decided, tier=tier, **given))
        else:
            rows.append(audit_values(number, **given))
    return rows


def _walk(node: WebNode, order: Order, wanted: Wanted = ALL) -> list[list[int]]:
    """Return the numbers on each page, from the first to the last."""
    pages, place = [], None
    with reading(node.engine) as connection:
        while True:
            page = listing.page(connection, wanted, order, place, size=5)
            pages.append([row.number for row in page.rows])
            if page.following is None:
                return pages
            text = page.following.to_text()
            place = Place.from_text(text, order, back=False)


def _walk_back(node: WebNode, order: Order) -> list[list[int]]:
    """Return the same from the last page on, each found by the one after it."""
    with reading(node.engine) as connection:
        place, last = None, None
        while True:
            page = listing.page(connection, ALL, order, place, size=5)
            if page.following is None:
                break
            place = last = page.following
        pages = [[row.number for row in page.rows]]
        assert last is not None
        while page.previous is not None:
            place = Place.from_text(page.previous.to_text(), order, back=True)
            page = listing.page(connection, ALL, order, place, size=5)
            pages.append([row.number for row in page.rows])
    return pages[::-1]


@pytest.mark.parametrize("descending", [True, False])
def test_pages_in_every_order_hold_every_audit_once(node: WebNode, descending: bool) -> None:  # noqa: FBT001
    rows = _rows()
    add_audits(node.engine, rows)
    for by in SORTS:
        order = Order(by, descending=descending)
        pages = _walk(node, order)
        found = [number for page in pages for number in page]
        assert sorted(found) == list(range(1, 38)), by
        assert all(len(page) == 5 for page in pages[:-1])
        column = SORTS[by][0].name
        values = [rows[number - 1].get(column, number) for number in found]
        without = [value is None for value in values]
        assert without == sorted(without), f"{by}: rows without a value come last"
        given = [value for value in values if value is not None]
        if by not in {"provider", "model"}:  # databases sort words by rules of their own
            assert given == sorted(given, reverse=descending), by
        assert [number for page in _walk_back(node, order) for number in page] == found


def test_a_link_to_a_page_shows_the_same_while_audits_come_in(node: WebNode) -> None:
    add_audits(node.engine, _rows())
    order = Order()
    with reading(node.engine) as connection:
        first = listing.page(connection, ALL, order, None, size=5)
        assert first.following is not None
        second = listing.page(connection, ALL, order, first.following, size=5)
    add_audits(node.engine, [audit_values(number) for number in range(100, 110)])
    with reading(node.engine) as connection:
        again = listing.page(connection, ALL, order, first.following, size=5)
    assert [row.number for row in again.rows] == [row.number for row in second.rows]


def test_filters_hold_together_and_apart(node: WebNode) -> None:
    rows = _rows()
    rows[1]["failed_check"] = "BILL"
    add_audits(node.engine, rows)

    def found(**wanted: Any) -> set[int]:
        return {number for page in _walk(node, Order(), Wanted(**wanted)) for number in page}

    def rows_with(**values: Any) -> set[int]:
        return {
            number
            for number, row in enumerate(rows, 1)
            if all(row[name] == value for name, value in values.items())
        }

    assert found(provider="ä") == rows_with(provider="ä") != set()
    assert found(state=tables.QUEUED) == rows_with(state=tables.QUEUED) != set()
    assert found(outcome=2) == rows_with(outcome=2) != set()
    assert found(tier=3) == rows_with(tier=3) != set()
    assert found(fault=pb.FAULT_PROVIDER) == rows_with(fault=pb.FAULT_PROVIDER) != set()
    assert found(fault=pb.FAULT_UNATTRIBUTED) == set()
    assert found(check="BILL") == {2}
    both = found(provider="a", outcome=pb.OUTCOME_PASS)
    assert both == rows_with(provider="a", outcome=pb.OUTCOME_PASS)
    assert found(since=rows[30]["submitted_at"]) == set(range(31, 38))
    assert found(until=rows[30]["submitted_at"]) == set(range(1, 31))
    assert found(provider="A") == set()
    with reading(node.engine) as connection:
        assert listing.count(connection, Wanted(tier=3)) == len(rows_with(tier=3))
        assert listing.provider_names(connection)[0] in {"a", "B"}


def test_ids_are_found_by_their_first_digits(node: WebNode) -> None:
    ids = [
        bytes([first]) + bytes([second]) * 31 for first in (0, 0x1F, 0xFF) for second in (0, 255)
    ]
    rows = [audit_values(number, audit_id=audit_id) for number, audit_id in enumerate(ids)]
    rows[0]["commitment_sha256"] = b"\xab" * 32
    for row in rows[1:]:
        row["commitment_sha256"] = b"\x77" * 32
    add_audits(node.engine, rows)

    def found(begins: str) -> set[int]:
        return {number for page in _walk(node, Order(), Wanted(begins=begins)) for number in page}

    assert found("0") == {1, 2}
    assert found("1f") == {3, 4}
    assert found("1f0") == {3}
    assert found("f") == found("ff") == {5, 6}
    assert found("fff") == found("f" * 64) == {6}
    assert found("0" * 64) == {1}
    assert found("abab") == {1}
    assert found("2") == set()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "W10",
        "bnVsbA",
        "WzEsMl0x",
        "e30",
        "WyIxIiwxXQ",
        "W251bGwsMV0",
        "WzEsdHJ1ZV0",
        "ä" * 9,
    ],
)
def test_places_that_no_page_gave_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="no place in this list"):
        Place.from_text(text, Order(), back=False)
    huge = Place(10**30, 10**30).to_text()
    with pytest.raises(InvalidInputError):
        Place.from_text(huge, Order("tokens"), back=False)
    with pytest.raises(InvalidInputError):
        Place.from_text(Place(float("inf"), 1).to_text(), Order("decided"), back=False)
    with pytest.raises(InvalidInputError):
        Place.from_text(Place("a\0", 1).to_text(), Order("model"), back=False)


def test_the_page_links_its_rows_its_orders_and_its_neighbours(reader: TestClient) -> None:
    page = reader.get("/audits?outcome=pass&sort=tokens&dir=asc").text
    assert re.search(r"<p class=\"count\" role=\"status\">\s*[0-9]+ audits", page)
    assert 'aria-sort="ascending"' in page
    assert 'href="/audits?outcome=pass&amp;sort=tokens&amp;dir=desc"' in page
    assert 'href="/audits?outcome=pass&amp;sort=model&amp;dir=asc"' in page
    assert '<option value="pass" selected>PASS</option>' in page
    assert '<input type="hidden" form="filters" name="sort" value="tokens">' in page
    tokens = [
        int(one.replace(",", "")) for one in re.findall(r'<td class="number">([0-9,]+)</td>', page)
    ]
    assert tokens == sorted(tokens)
    assert len(tokens) == 50
    after = re.search(r'rel="next" href="([^"]+)"', page)
    assert after is not None
    second = reader.get(after[1].replace("&amp;", "&")).text
    assert 'rel="prev"' in second
    more = [
        int(one.replace(",", ""))
        for one in re.findall(r'<td class="number">([0-9,]+)</td>', second)
    ]
    assert more[0] >= tokens[-1]
    assert not re.search(r"<tr>.*PASS.*FAIL", second)


def test_the_list_says_whose_fault_a_failure_is(empty: WebNode) -> None:
    fail, nobody = pb.OUTCOME_FAIL, pb.FAULT_UNATTRIBUTED
    add_audits(
        empty.engine,
        [
            decided_values(1, fail, failed_check="BILL"),
            decided_values(2, fail, failed_check="ANSWER", fault=nobody),
            decided_values(3, fail, failed_check="ANSWER", fault=nobody),
            decided_values(4),
            audit_values(5),
        ],
    )

    def faults(page: str) -> list[str]:
        rows = re.findall(r"<tr>\s*<th scope=\"row\">.*?</tr>", page, re.DOTALL)
        cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows]
        return [cell[1] for cell in cells]

    with visiting(empty) as client:
        page = client.get("/audits").text
        assert '<option value="unattributed">unattributed</option>' in page
        assert faults(page) == [NOTHING, NOTHING, "unattributed", "unattributed", "provider"]
        only = client.get("/audits?outcome=fail&fault=provider").text
        assert faults(only) == ["provider"]
        assert '<option value="provider" selected>provider</option>' in only
        own = client.get("/providers/lab").text
        assert "1 at its own fault</a>; of the others nothing signed tells who is wrong" in own
        assert 'href="/audits?provider=lab&amp;fault=provider"' in own
        assert "FAIL counts every failure." in client.get("/").text


def test_hostile_names_are_shown_as_they_are_and_filter_as_they_are(reader: TestClient) -> None:
    page = reader.get("/audits").text
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "\u202e" not in re.sub(r'value="[^"]*"', "", page)
    for name in HOSTILE:
        found = reader.get("/audits", params={"provider": name})
        assert found.status_code == 200
        assert re.search(r'role="status">\s*1 audit\.', found.text), name
        assert " selected>" in found.text


def test_days_are_whole_days_of_utc(empty: WebNode) -> None:
    midnight = 1_790_035_200.0  # 2026-09-22
    times = [midnight - 1, midnight, midnight + 86_399, midnight + 86_400]
    add_audits(
        empty.engine,
        [audit_values(number, submitted_at=at) for number, at in enumerate(times)],
    )
    with visiting(empty) as client:
        page = client.get("/audits?from=2026-09-22&to=2026-09-22").text
        assert "2 audits." in page
        assert ">2026-09-22 00:00 UTC<" in page
        assert ">2026-09-22 23:59 UTC<" in page


@pytest.mark.parametrize(
    "query",
    [
        "sort=number",
        "dir=down",
        "state=none",
        "outcome=7",
        "fault=client",
        "tier=x",
        "check=NOTHING",
        "id=xyz",
        "id=" + "0" * 65,
        "from=yesterday",
        "to=2026-13-01",
        "after=x",
        "after=W10&before=W10",
        "provider=" + "x" * 257,
    ],
)
def test_what_no_link_of_ours_asks_for_is_refused_in_words(reader: TestClient, query: str) -> None:
    response = reader.get(f"/audits?{query}")
    assert response.status_code == 400
    assert "<h1>Bad Request</h1>" in response.text


def test_an_empty_list_says_so(empty: WebNode) -> None:
    with visiting(empty) as client:
        page = client.get("/audits").text
        assert "No audit is like that." in page
        assert "0 audits." in page


def test_many_audits_are_counted_so_far(empty: WebNode, monkeypatch: pytest.MonkeyPatch) -> None:
    add_audits(empty.engine, [audit_values(number) for number in range(12)])
    monkeypatch.setattr(listing, "COUNTED", 10)
    with reading(empty.engine) as connection:
        assert listing.count(connection, ALL) == 11
