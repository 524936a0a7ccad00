"""Reports: every session is counted once, and what was missed is said."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.errors import InvalidInputError, MissingDependencyError
from tests.support.results import evaluated, honest, inflated
from verifier_sdk.training.markdown import as_markdown
from verifier_sdk.training.report import FORMAT, as_json, build_report, write_report
from verifier_sdk.training.results import BLOCK_RANGES, SessionResult, block_range
from verifier_sdk.training.tables import (
    WANTED,
    detection,
    detection_by_block_size,
    detection_by_length,
    exposure,
    false_alarms,
    honest_kinds,
    inflated_shares,
    overcharge,
    rows,
    targets,
    wilson,
)

ROW_KEYS = {
    "attack", "rate", "placement", "block_size", "tier", "domain", "model", "blocks", "sessions",
    "fail", "inconclusive", "pass", "tokens_exposed", "block_embeddings_exposed",
}  # fmt: skip

RESULTS = list(evaluated(24, seed=1, sampled=0.2))
REPORT = build_report(RESULTS, {"seed": 1, "ablations": [{"without": "readers", "bag": 0.5}]},
                      calibration_sessions=500)  # fmt: skip


def target(found: list[dict[str, Any]], family: str, tier: str, *rates: float) -> dict[str, Any]:
    [item] = [
        one
        for one in found
        if (one["family"], one["tier"]) == (family, tier)
        and one["rates"] == list(rates or ((1, 2, 3) if tier == "committed" else (0.5, 1, 2, 3)))
    ]
    return item


# Sessions


@pytest.mark.parametrize(
    "changes",
    [
        {"tier": "closed"},
        {"outcome": "pass"},
        {"rate": 1.0},
        {"p_value": 0.0},
        {"p_value": float("nan")},
        {"probability": 1.5},
        {"interval": (-0.1, 0.5)},
        {"blocks": 0},
        {"tokens_exposed": -1},
        {"overcharge": float("inf")},
    ],
)
def test_results_that_contradict_themselves_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="result wants"):
        honest(**changes)


def test_inflated_sessions_want_a_rate() -> None:
    with pytest.raises(InvalidInputError, match="rate 0 for honest sessions alone"):
        inflated(rate=0.0)


@pytest.mark.parametrize(
    ("blocks", "wanted"),
    [(1, "1-3"), (3, "1-3"), (4, "4-7"), (7, "4-7"), (8, "8-15"), (15, "8-15"), (16, "16-31"),
     (31, "16-31"), (32, "32+"), (4_000, "32+")],
)  # fmt: skip
def test_block_ranges(blocks: int, wanted: str) -> None:
    assert block_range(blocks) == wanted


# Rows


def test_every_session_is_in_exactly_one_row() -> None:
    found = rows(RESULTS)
    assert all(set(row) >= ROW_KEYS for row in found)
    assert sum(row["sessions"] for row in found) == len(RESULTS)
    assert all(row["fail"] + row["inconclusive"] + row["pass"] == row["sessions"] for row in found)
    names = ("attack", "rate", "placement", "block_size", "tier", "domain", "model", "blocks")
    cells = Counter(tuple(row[name] for name in names) for row in found)
    assert max(cells.values()) == 1
    for key in ("tokens_exposed", "block_embeddings_exposed", "whole_blocks", "rounds"):
        assert sum(row[key] for row in found) == sum(getattr(one, key) for one in RESULTS)


def test_rows_count_outcomes_and_add_exposure_up() -> None:
    found = rows(
        [
            inflated(outcome="FAIL", tokens_exposed=10),
            inflated(outcome="INCONCLUSIVE", tokens_exposed=20, blocks=15),
            inflated(outcome="PASS", blocks=8),
            inflated(blocks=16),
        ]
    )
    assert [(row["blocks"], row["sessions"]) for row in found] == [("8-15", 3), ("16-31", 1)]
    assert (found[0]["fail"], found[0]["inconclusive"], found[0]["pass"]) == (1, 1, 1)
    assert found[0]["tokens_exposed"] == 70


# Intervals


@pytest.mark.parametrize(
    ("found", "of", "low", "high"),
    [
        # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_are_those_in_print(found: int, of: int, low: float, high: float) -> None:
    assert wilson(found, of) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 500), st.integers(0, 500))
def test_wilson_intervals_hold_the_share_and_mirror(found: int, more: int) -> None:
    of = found + more
    low, high = wilson(found, of)
    assert 0.0 <= low <= high <= 1.0
    assert (1 - high, 1 - low) == pytest.approx(wilson(more, of))
    if of:
        assert low <= found / of <= high


# Targets


def test_targets_pool_rates_and_leave_short_replies_and_other_sizes_out() -> None:
    counted = [inflated(rate=rate) for rate in (1.0, 2.0, 3.0)]
    left_out = [
        inflated(rate=0.5, outcome="PASS"),
        inflated(original_blocks=3, outcome="PASS"),
        inflated(block_size=512, outcome="PASS"),
        inflated(family="scattered", placement="scattered", outcome="PASS"),
        inflated(tier="opened", outcome="PASS"),
        honest(outcome="FAIL"),
    ]
    item = target(targets([*counted, *left_out]), "bag", "committed")
    assert (item["sessions"], item["detected"], item["found"]) == (3, 3, 1.0)
    assert item["met"] is True
    assert item["ci"] == pytest.approx(list(wilson(3, 3)))


def test_the_opened_tier_pools_from_a_half() -> None:
    found = targets([inflated(tier="opened", rate=rate) for rate in (0.25, 0.5, 1.0, 2.0, 3.0)])
    assert target(found, "bag", "opened")["sessions"] == 4


def test_inconclusive_sessions_are_not_detected() -> None:
    sessions = [inflated()] * 9 + [inflated(outcome="INCONCLUSIVE")]
    item = target(targets(sessions), "bag", "committed")
    assert (item["found"], item["inconclusive"], item["met"]) == (0.9, 1, False)


def test_random_filler_has_a_target_of_its_own_at_a_quarter() -> None:
    quarter = inflated(attack="random_vocabulary", family="random", rate=0.25)
    found = targets([quarter, inflated(family="random", attack="random_vocabulary")])
    assert target(found, "random", "committed", 0.25)["sessions"] == 1
    assert target(found, "random", "committed", 0.25)["wanted"] == 0.97
    assert target(found, "random", "committed")["sessions"] == 1


def test_families_without_a_target_are_as_measured() -> None:
    found = targets([inflated(attack="session_replayed", family="replayed")])
    item = target(found, "replayed", "committed")
    assert (item["wanted"], item["met"], item["found"]) == (None, None, 1.0)
    unmeasured = target(found, "bag", "committed")
    assert (unmeasured["met"], unmeasured["found"], unmeasured["sessions"]) == (None, None, 0)


def test_each_target_stands_in_the_table() -> None:
    found = targets(RESULTS)
    for tier, families in WANTED.items():
        for family, wanted in families.items():
            assert target(found, family, tier)["wanted"] == wanted


# False alarms


def test_false_alarms_are_failed_honest_sessions() -> None:
    sessions = [honest()] * 17 + [honest(outcome="INCONCLUSIVE")] * 2 + [honest(outcome="FAIL")]
    [item] = false_alarms([*sessions, inflated()])["overall"]
    assert (item["sessions"], item["fail"], item["inconclusive"]) == (20, 1, 2)
    assert (item["rate"], item["wanted"], item["met"]) == (0.05, 0.05, True)


def test_domains_and_models_need_thirty_sessions() -> None:
    sessions = [
        *[honest()] * 30,
        *[honest(domain="code", model="large", outcome="FAIL")] * 29,
        *[honest(domain="code", tier="opened", outcome="FAIL")] * 30,
    ]
    found = false_alarms(sessions)
    assert [(one["tier"], one["domain"], one["met"]) for one in found["by_domain"]] == [
        ("committed", "math", True),
        ("opened", "code", False),
    ]
    assert {one["model"] for one in found["by_model"]} == {"small"}


def test_a_session_of_two_kinds_counts_in_both() -> None:
    found = honest_kinds(
        [honest(kinds=("loops", "code"), outcome="FAIL"), honest(), inflated(kinds=("loops",))]
    )
    assert {(one["kind"], one["sessions"], one["fail"]) for one in found} == {
        ("loops", 1, 1),
        ("code", 1, 1),
        ("ordinary", 1, 0),
    }


# Other tables


def test_detection_is_counted_by_attack_placement_and_rate() -> None:
    found = detection([inflated(), inflated(outcome="PASS"), inflated(rate=2.0), honest()])
    assert [(one["rate"], one["sessions"], one["detected"]) for one in found] == [
        (1.0, 2, 1),
        (2.0, 1, 1),
    ]


def test_detection_by_length_goes_by_the_original_blocks() -> None:
    [item] = detection_by_length([inflated(original_blocks=3, blocks=12)])
    assert item["original_blocks"] == "1-3"
    sizes = detection_by_block_size([inflated(original_blocks=3), inflated(block_size=1024)])
    assert [one["block_size"] for one in sizes] == [256, 1024]


def test_exposure_is_a_mean_of_shares() -> None:
    [short, long] = exposure(
        [honest(blocks=2, tokens_exposed=32), honest(blocks=4), honest(blocks=5)]
    )
    assert (short["blocks"], short["sessions"], short["tokens"]) == ("1-3", 1, 32.0)
    assert short["token_share"] == pytest.approx(32 / 512)
    assert long["embedding_share"] == pytest.approx((3 / 4 + 3 / 5) / 2)


def test_what_is_failed_is_not_kept() -> None:
    [item] = overcharge(
        [
            inflated(rate=2.0, overcharge=2.0),
            inflated(rate=2.0, overcharge=2.0, outcome="INCONCLUSIVE"),
            inflated(rate=2.0, overcharge=2.0, outcome="PASS"),
            inflated(rate=2.0, overcharge=2.0),
        ]
    )
    assert (item["billed"], item["kept"]) == (2.0, 1.0)


def test_inflated_shares_are_held_against_the_true_ones() -> None:
    [item] = inflated_shares(
        [
            inflated(share=0.5, estimate=0.4, interval=(0.3, 0.6)),
            # At the very end of an interval it is held.
            inflated(share=0.5, estimate=0.5, interval=(0.5, 0.5)),
            inflated(share=0.75, estimate=0.2, interval=(0.1, 0.4), rate=3.0),
            inflated(share=0.5, estimate=0.9, interval=(0.8, 1.0), block_size=1024),
        ]
    )
    assert (item["tier"], item["family"], item["sessions"]) == ("committed", "bag", 4)
    assert item["held"] == 0.5
    assert item["width"] == pytest.approx((0.3 + 0.0 + 0.3 + 0.2) / 4)
    assert item["error"] == pytest.approx((0.1 + 0.0 + 0.55 + 0.4) / 4)


def test_inflated_shares_are_of_failed_sessions_by_tier_and_family() -> None:
    found = inflated_shares(
        [
            inflated(tier="opened"),
            inflated(attack="random_vocabulary", family="random"),
            inflated(),
            inflated(outcome="PASS"),
            inflated(outcome="INCONCLUSIVE"),
            honest(outcome="FAIL"),
        ]
    )
    assert [(one["tier"], one["family"], one["sessions"]) for one in found] == [
        ("committed", "bag", 1),
        ("committed", "random", 1),
        ("opened", "bag", 1),
    ]
    assert inflated_shares([honest(), inflated(outcome="PASS")]) == []


# The whole


def test_a_report_is_json_and_survives_it() -> None:
    assert json.loads(as_json(REPORT)) == REPORT
    assert REPORT["format"] == FORMAT
    assert set(REPORT) >= {
        "rows", "honest_kinds", "targets", "false_alarms", "roc", "calibration",
        "sessions_needed", "exposure", "overcharge", "inflated_shares", "extra",
    }  # fmt: skip
    assert REPORT["extra"]["seed"] == 1
    assert {row["blocks"] for row in REPORT["rows"]} <= set(BLOCK_RANGES)


def test_results_in_another_order_give_the_same_report() -> None:
    again = build_report(RESULTS[::-1], REPORT["extra"], calibration_sessions=500)
    assert again["targets"] == REPORT["targets"]
    assert again["rows"] == REPORT["rows"]


def test_markdown_says_first_what_passes_and_then_what_was_missed() -> None:
    sessions = [
        *[inflated(outcome="PASS")] * 40,
        *[inflated(attack="random_vocabulary", family="random")] * 40,
        *[inflated(attack="other_model_same_question", family="other_model", outcome="PASS")] * 4,
        *[honest()] * 30,
        *[honest(outcome="FAIL")] * 10,
    ]
    text = as_markdown(build_report(sessions, {"judge sha256": "ab" * 32}), [])
    opening = text.split("##")[0]
    assert "Another model's reasoning passes every semantic test" in opening
    assert "0.0 % of 4 such sessions were failed at tier committed" in opening
    assert "* bag at tier committed, rate 1, 2, 3: 0.0 % of 40 sessions, wanted 94.7 %" in text
    assert "| bag | committed | 1, 2, 3 | 94.7 % | 0.0 % | 0.0 to 8.8 | 40 | **no** |" in text
    assert "| random | committed | 1, 2, 3 | 99.5 % | 100.0 % |" in text
    assert "| retrieved | committed | 1, 2, 3 | 90.0 % |  |  | 0 | not measured |" in text
    assert "* all domains at tier committed: 25.0 % of 40 sessions, wanted at most 5.0 %" in text
    assert "the number of calibration sessions was not given" in text
    assert "ab" * 32 in text


def test_markdown_tells_how_well_inflated_shares_were_estimated() -> None:
    sessions = [
        *[inflated(share=0.5, estimate=0.45, interval=(0.25, 0.75))] * 1_000,
        *[inflated(share=0.5, estimate=0.85, interval=(0.75, 1.0))] * 1_000,
    ]
    section = as_markdown(build_report(sessions, {}), []).partition("## Inflated shares\n")[2]
    section = section.partition("\n## ")[0]
    assert "meant to hold 95 %" in section
    assert "| family | tier | held | mean width | mean error | sessions |" in section
    assert "| bag | committed | 50.0 % | 0.38 | 0.20 | 2,000 |" in section


def test_markdown_never_rounds_up_to_all() -> None:
    sessions = [inflated()] * 3_000 + [inflated(outcome="PASS")]
    assert "| 99.9 % |" in as_markdown(build_report(sessions, {}), [])


def test_markdown_tables_have_as_many_cells_in_each_row() -> None:
    width = None
    for line in as_markdown(REPORT, ["roc.png"]).splitlines():
        if not line.startswith("|"):
            width = None
            continue
        width = width or line.count("|")
        assert line.count("|") == width, line


@pytest.mark.parametrize("extra", [{"score": float("nan")}, {"path": Path("a")}])
def test_what_json_cannot_hold_is_refused(extra: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="JSON"):
        as_json(build_report([honest()], extra))


def test_no_results_are_no_report() -> None:
    with pytest.raises(InvalidInputError, match="no results"):
        build_report([], {})


# Files


def test_a_report_is_written_with_its_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = tmp_path / "new" / "report"
    report = write_report(RESULTS, folder, REPORT["extra"], calibration_sessions=500)
    assert json.loads((folder / "report.json").read_text()) == report == REPORT
    text = (folder / "report.md").read_text()
    plots = sorted(folder.glob("*.png"))
    assert [plot.stem for plot in plots] == [
        "calibration", "detection", "exposure", "false_alarms", "roc", "sessions_needed",
    ]  # fmt: skip
    for plot in plots:
        raw = plot.read_bytes()
        assert raw.startswith(b"\x89PNG\r\n\x1a\n")
        assert int.from_bytes(raw[16:20], "big") >= 1_200
        assert len(raw) > 10_000
        assert f"({plot.name})" in text
    assert len(list(folder.iterdir())) == 8


@pytest.mark.parametrize("results", [[honest()], [inflated()], [honest(), inflated()]])
def test_few_results_make_fewer_plots(tmp_path: Path, results: list[SessionResult]) -> None:
    pytest.importorskip("matplotlib")
    write_report(results, tmp_path, {})
    text = (tmp_path / "report.md").read_text()
    assert all(f"({plot.name})" in text for plot in tmp_path.glob("*.png"))
    assert text.count("![") == len(list(tmp_path.glob("*.png")))


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("mine")
    for folder in (tmp_path / "report", tmp_path / "report" / "inner"):
        with pytest.raises(InvalidInputError):
            write_report([honest()], folder, {})
    assert (tmp_path / "report").read_text() == "mine"


def test_without_matplotlib_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"install coin-audit\[training\]"):
        write_report([honest()], tmp_path / "report", {})
    assert not (tmp_path / "report").exists()
