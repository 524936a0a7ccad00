"""The first page: its figures are those of the database, on both kinds."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from sqlalchemy import insert
from starlette.testclient import TestClient

from coin_protocol.database.engine import reading, writing
from coin_protocol.v1 import receipt_pb2 as pb
from tests.support.web_site import (
    NOW,
    WebNode,
    add_audits,
    audit_values,
    decided_values,
    visiting,
)
from verifier_sdk.store import tables
from verifier_sdk.store.tables import STANDING, WORKER
from verifier_sdk.web.queries import overview as figures

HOUR, DAY = 3600, 86_400


def _data(page: str, name: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{name}-data">(.*?)</script>', page)
    assert found is not None
    return json.loads(found[1])


def test_figures_are_those_of_the_rows(node: WebNode) -> None:
    rows = [
        decided_values(number, outcome, submitted_at=NOW - at - number, decided_at=NOW - at)
        for number, (outcome, at) in enumerate(
            [
                (pb.OUTCOME_PASS, 10.0),
                (pb.OUTCOME_PASS, 20.0),
                (pb.OUTCOME_FAIL, 2.0 * HOUR),
                (pb.OUTCOME_INCONCLUSIVE, 30.0 * HOUR),
                (pb.OUTCOME_PASS, 10.0 * DAY),
                (pb.OUTCOME_PASS, 50.0 * DAY),
            ]
        )
    ]
    rows[4]["state"] = tables.PURGED
    rows += [
        audit_values(10, submitted_at=NOW - 90),
        audit_values(11, submitted_at=NOW - 7200),
        audit_values(12, state=tables.SUBMITTED, submitted_at=NOW - 99_999),
        audit_values(13, provider="other", state=tables.RUNNING),
    ]
    add_audits(node.engine, rows)
    with reading(node.engine) as connection:
        counts = figures.counts(connection)
        assert counts[tables.DECIDED, pb.OUTCOME_PASS] == 3
        assert counts[tables.PURGED, pb.OUTCOME_PASS] == 1
        assert counts[tables.QUEUED, None] == 2
        assert figures.waiting(connection, 2).oldest_at == NOW - 7200
        lag = figures.lag(connection, NOW - DAY)
        assert (lag.audits, lag.half, lag.most) == (3, 1.0, 1.0)
        assert figures.lag(connection, NOW).half is None
        verdicts = figures.decided_per_hour(connection, NOW - 40 * DAY)
        assert sum(verdicts.values()) == 5
        assert verdicts[int((NOW - 2 * HOUR) // HOUR), pb.OUTCOME_FAIL] == 1
        submitted = figures.submitted_per_hour(connection, NOW - 3 * HOUR)
        assert sum(submitted.values()) == 6
        (first, second, third) = figures.providers(connection, ["configured only", "lab"])
    assert (first.name, first.audits, first.passed, first.failed, first.inconclusive) == (
        "lab",
        9,
        4,
        1,
        1,
    )
    assert (second.name, second.audits, second.decided) == ("other", 1, 0)
    assert (third.name, third.audits) == ("configured only", 0)


def test_percentiles_are_of_the_newest_verdicts(
    node: WebNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_audits(
        node.engine,
        [
            decided_values(at, submitted_at=NOW - 200 - at, decided_at=NOW - 100 + at / 10)
            for at in range(100)
        ],
    )
    with reading(node.engine) as connection:
        lag = figures.lag(connection, NOW - DAY)
        assert lag.audits == 100
        assert lag.half == pytest.approx(100 + 49 + 4.9)
        assert lag.most == pytest.approx(100 + 94 + 9.4)
        monkeypatch.setattr(figures, "MOST_TIMED", 10)
        assert figures.lag(connection, NOW - DAY).half == pytest.approx(100 + 94 + 9.4)


def test_charts_hold_whole_hours_and_days(empty: WebNode) -> None:
    add_audits(
        empty.engine,
        [
            decided_values(1, submitted_at=NOW - 49 * HOUR, decided_at=NOW - 60),
            decided_values(2, pb.OUTCOME_FAIL, submitted_at=NOW - 120, decided_at=NOW - 31 * DAY),
        ],
    )
    with visiting(empty) as client:
        page = client.get("/").text
    hours = _data(page, "per-hour")
    assert len(hours["x"]) == 48
    assert hours["x"][-1] == NOW // HOUR * HOUR
    assert {step - before for before, step in zip(hours["x"], hours["x"][1:], strict=False)} == {
        HOUR
    }
    assert [sum(one["values"]) for one in hours["series"]] == [1, 1]
    days = _data(page, "per-day")
    assert len(days["x"]) == 30
    assert all(at % DAY == 0 for at in days["x"])
    assert [one["label"] for one in days["series"]] == ["PASS", "INCONCLUSIVE", "FAIL"]
    assert [sum(one["values"]) for one in days["series"]] == [1, 0, 0]


def test_the_page_of_a_new_node_says_what_is_missing(empty: WebNode) -> None:
    empty.providers = ()
    with visiting(empty) as client:
        page = client.get("/").text
    assert "none waits" in page
    assert "nothing is audited" in page
    assert "set up for no provider" in page


def test_workers_without_a_sign_of_life_do_not_count(node: WebNode) -> None:
    with writing(node.engine) as connection:
        connection.execute(
            insert(WORKER),
            [
                {"worker_id": name, "started_at": 0.0, "beat_at": NOW - ago}
                for name, ago in (("a", 1.0), ("b", 59.0), ("c", 61.0))
            ],
        )
    with reading(node.engine) as connection:
        assert figures.workers(connection, NOW) == (2, 3)


@pytest.mark.parametrize(
    "state",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"alpha": 0.01, "log_capitals": [], "highest": 0}',
        '{"alpha": 2, "log_capitals": [0.0], "highest": 0}',
        '{"alpha": 0.01, "log_capitals": ["x"], "highest": 0}',
        '{"alpha": 0.01, "log_capitals": [NaN], "highest": 0}',
        '{"alpha": 0.01, "log_capitals": [0.0], "highest": Infinity}',
    ],
)
def test_a_standing_that_cannot_be_read_is_no_error(empty: WebNode, state: str) -> None:
    with writing(empty.engine) as connection:
        connection.execute(
            insert(STANDING).values(
                provider="lab", judge="j", state=state, sessions=3, updated_at=NOW
            )
        )
    with visiting(empty) as client:
        assert client.get("/").status_code == 200
        assert client.get("/providers/lab").status_code == 200


def test_hostile_names_are_harmless_in_the_table(reader: TestClient) -> None:
    page = reader.get("/").text
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "\u202e" not in page
    assert "49" not in re.findall(r"\{\{[^<]*", page)
    assert "{{ 7 * 7 }}{% raw %}" in page
