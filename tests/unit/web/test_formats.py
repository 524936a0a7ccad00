"""How values look: exact, in one form, and with nothing hidden in them."""

from __future__ import annotations

import json
import math
import re

import pytest
from markupsafe import Markup

from tests.support.web_site import HOSTILE
from verifier_sdk.web import formats, links
from verifier_sdk.web.charts import MOST_DRAWN, Chart, Series, thinned
from verifier_sdk.web.pages import data_block

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain", "plain"),
        ("übermäßig 模型", "übermäßig 模型"),
        ("a\u202eb", "a⟨202E⟩b"),
        ("a\u200bb\ufeff", "a⟨200B⟩b⟨FEFF⟩"),
        ("\x1b[31m\r\n\t", "⟨001B⟩[31m⟨000D⟩⟨000A⟩⟨0009⟩"),
        ("\ud800", "⟨D800⟩"),
        ("\U000e0041", "⟨E0041⟩"),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(text: str, wanted: str) -> None:
    assert formats.plain(text) == wanted
    assert formats.plain(text).isprintable()


@pytest.mark.parametrize("text", HOSTILE)
def test_names_are_isolated_escaped_and_cut(text: str) -> None:
    shown = str(formats.name(text))
    assert shown.startswith('<bdi class="name"')
    assert shown.endswith("</bdi>")
    assert "<script" not in shown
    assert "<img" not in shown
    assert len(re.sub(r'title="[^"]*"', "", shown)) <= 6 * 97
    assert str(formats.name(" ")) == '<bdi class="name"><i>(empty)</i></bdi>'


def test_text_is_made_plain_wherever_it_is_written_and_markup_is_left() -> None:
    assert formats.seen("a\nb") == "a⟨000A⟩b"
    assert formats.seen(Markup("<b>\n</b>")) == "<b>\n</b>"
    assert formats.seen(7) == 7
    assert formats.raw('a"b\n') == "a&#34;b\n"


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        (0.0, "0 ms"),
        (0.0316, "32 ms"),
        (0.9999, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (3599.6, "1 h 0 min"),
        (3661, "1 h 1 min"),
        (86_399.9, "1 d 0 h"),
        (2_000 * 86_400, "2,000 d 0 h"),
        (-5, f"{MINUS}5.0 s"),
        (math.nan, formats.NOTHING),
        (None, formats.NOTHING),
    ],
)
def test_durations_have_two_units(seconds: float | None, wanted: str) -> None:
    assert formats.duration(seconds).replace("\u202f", " ") == wanted


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (0, "0"),
        (0.04, "0.04"),
        (0.312345, "0.312"),
        (12.5, "12.5"),
        (1234.6, "1,235"),
        (1000, "1,000"),
        (0.00001234, "1.23e-05"),
        (-1.5, f"{MINUS}1.5"),
        (1e300, "1.00e+300"),
        (math.inf, formats.NOTHING),
    ],
)
def test_figures_have_three_digits(value: float, wanted: str) -> None:
    assert formats.figure(value) == wanted


def test_times_are_utc_for_machines_and_for_readers_without_scripts() -> None:
    assert formats.moment(1_767_268_800.1234, "millisecond") == (
        '<time datetime="2026-01-01T12:00:00.123Z" data-form="millisecond">'
        "2026-01-01 12:00:00.123 UTC</time>"
    )
    assert ">2026-01-01 12:00 UTC<" in formats.moment(1_767_268_800, "minute")
    assert ">2026-01-01 12:00:00 UTC<" in formats.moment(1_767_268_800)
    for wrong in (None, math.nan, math.inf, 1e18, -1e18):
        assert formats.moment(wrong) == formats.NOTHING


@pytest.mark.parametrize("name", HOSTILE)
def test_addresses_hold_names_as_one_quoted_part(name: str) -> None:
    target = links.provider(name)
    assert target.isascii()
    assert target.isprintable()
    assert not set(target) & set("<>\"' \\{}")
    assert target.count("/") == 2


def test_data_in_a_page_cannot_end_its_block() -> None:
    value = {"label": "</script><!--<script>&\u2028" + "".join(HOSTILE)}
    text = data_block(value)
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="Out of range"):
        data_block(math.nan)


def test_a_thinned_line_keeps_its_ends_and_its_extremes() -> None:
    points = [(float(at), math.sin(at / 50)) for at in range(20_000)]
    points[7321] = (7321.0, 9.0)
    points[11] = (11.0, -9.0)
    kept = thinned(points)
    assert len(kept) <= MOST_DRAWN + 4
    assert kept == sorted(kept)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert {(7321.0, 9.0), (11.0, -9.0)} <= set(kept)
    assert thinned(points[:100]) == points[:100]


def test_a_chart_gives_its_table_what_it_draws() -> None:
    chart = Chart(
        name="c",
        title="",
        summary="",
        x=[1.0, 2.0],
        axis="number",
        x_label="x",
        y_label="y",
        series=[
            Series("a", "accent", "line", [1.0, math.nan]),
            Series("b", "fail", "range", [0.0, None], [0.5, None]),
        ],
    )
    assert chart.columns == ["a", "b, from", "b, to"]
    assert chart.drawn["series"][0]["values"] == [1.0, None]
    assert chart.drawn["series"][1]["high"] == [0.5, None]
    assert chart.rows[0] == (1.0, [1.0, 0.0, 0.5])
