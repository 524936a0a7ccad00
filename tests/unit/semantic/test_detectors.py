"""Evidence of sessions out of ratios of blocks, and the inflated share that explains them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coin_protocol.errors import ConfigurationError
from tests.support.judges import (
    Floats,
    detectors,
    evidence,
    heads,
    numbers,
    readers,
    session_ratios,
)
from tests.support.laboratory import tokenizer, traces
from verifier_sdk.semantic.aggregate import (
    EXTREMES,
    KINDS,
    SESSION_COLUMNS,
    STATISTICS,
    Ratios,
    extremes_of,
    session_inputs,
)
from verifier_sdk.semantic.detectors import (
    SHARES,
    Detectors,
    estimate_share,
    evidence_for,
)
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.measure import (
    BLOCK_COLUMNS,
    TOKEN_COLUMNS,
    WHOLE_COLUMNS,
    Measured,
    measure,
)

ratios_of_sessions = st.integers(0, 40).flatmap(
    lambda blocks: arrays(
        np.float32,
        (blocks, len(FAMILIES)),
        elements=st.floats(-6, 6, width=32),
        fill=st.nothing(),
    )
)


# Evidence


@given(ratios_of_sessions)
def test_evidence_is_never_negative(ratios: Floats) -> None:
    found = evidence_for(ratios)
    assert found.shape == (len(FAMILIES),)
    assert found.dtype == np.float64
    assert (found >= 0).all()


@given(ratios_of_sessions, st.floats(0.0, 3.0, width=32))
def test_stronger_ratios_give_no_less_evidence(ratios: Floats, more: float) -> None:
    assert (evidence_for(ratios + np.float32(more)) >= evidence_for(ratios)).all()


@given(ratios_of_sessions, st.randoms())
def test_the_order_of_blocks_does_not_matter(ratios: Floats, random: object) -> None:
    order = np.random.default_rng(random.getrandbits(32)).permutation(len(ratios))  # type: ignore[attr-defined]
    assert np.allclose(evidence_for(ratios[order]), evidence_for(ratios), atol=1e-9)


def test_without_blocks_there_is_no_evidence_and_any_share() -> None:
    nothing = np.empty((0, len(FAMILIES)), np.float32)
    assert evidence_for(nothing).tolist() == [0.0] * len(FAMILIES)
    found = estimate_share(nothing, 0)
    assert (found.evidence, found.interval) == (0.0, (0.0, 1.0))


def test_one_block_speaks_for_all_or_nothing() -> None:
    for ratio, share, evidence_found in ((3.0, 1.0, 3.0), (-3.0, 0.0, 0.0)):
        found = estimate_share(np.full((1, len(FAMILIES)), ratio, np.float32), 2)
        assert found.share == share
        assert found.evidence == pytest.approx(evidence_found)


def test_the_share_is_that_of_the_family_asked_for() -> None:
    ratios = np.full((30, len(FAMILIES)), -4.0, np.float32)
    ratios[:, 3] = 4.0
    assert estimate_share(ratios, 3).share == 1.0
    assert estimate_share(ratios, 4).share == 0.0


def mixture(share: float, blocks: int, rng: np.random.Generator) -> Floats:
    """Return exact log likelihood ratios of unit normals at 0 and 2, so many of each."""
    filler = rng.random(blocks) < share
    seen = rng.normal(2.0 * filler, 1.0)
    return np.repeat((2.0 * seen - 2.0)[:, None], len(FAMILIES), axis=1).astype(np.float32)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
def test_the_interval_holds_the_true_share_nineteen_times_in_twenty(share: float) -> None:
    rng = np.random.default_rng([3, int(100 * share)])
    found = [estimate_share(mixture(share, 40, rng), 0) for _ in range(300)]
    held = np.mean(
        [low - 1e-9 <= share <= high + 1e-9 for low, high in (f.interval for f in found)]
    )
    assert held > 0.9
    assert np.mean([one.share for one in found]) == pytest.approx(share, abs=0.06)


@given(ratios_of_sessions)
def test_the_estimate_lies_in_its_interval(ratios: Floats) -> None:
    found = estimate_share(ratios, 0)
    low, high = found.interval
    assert 0.0 <= low <= found.share <= high <= 1.0
    assert found.share in SHARES
    assert found.evidence == pytest.approx(float(evidence_for(ratios)[0]))


# Networks


@pytest.fixture(scope="module")
def measured() -> Measured:
    """What is measured of a session with blocks of every kind."""
    return measure(evidence(traces()[0], whole=3), heads(), readers(), tokenizer())


def test_every_block_is_judged_once(measured: Measured) -> None:
    found = detectors().ratios(measured)
    indices = {*measured.block_indices, *measured.token_indices, *measured.whole_indices}
    assert len(measured.whole_indices)
    assert found.values.shape == (len(indices), len(FAMILIES))
    assert len(found) == len(found.kinds) == len(indices)
    assert np.isfinite(found.values).all()
    assert found.block_size == measured.block_size == 256
    assert np.array_equal(found.extremes, extremes_of(measured))
    assert not found.code
    assert detectors().ratios(replace(measured, code=True)).code


def test_ratios_know_what_kind_of_block_they_are_of(measured: Measured) -> None:
    found = detectors().ratios(measured)
    whole = set(measured.whole_indices)
    parts = {
        "block": (measured.block, measured.block_indices),
        "tokens": (measured.tokens, measured.token_indices),
        "whole": (measured.whole, measured.whole_indices),
    }
    assert set(parts) == set(KINDS)
    for kind, (rows, indices) in parts.items():
        own = [kind == "whole" or index not in whole for index in indices]
        expected = detectors().networks[kind](rows[own])
        assert np.allclose(found.of(kind), np.clip(expected, -6, 6), atol=1e-5)
    assert sum(len(found.of(kind)) for kind in KINDS) == len(found)


def test_a_block_opened_whole_is_not_judged_by_its_tokens(measured: Measured) -> None:
    first = measured.block_indices[:1]
    both = replace(measured, whole=measured.whole[:1], whole_indices=first)
    found = detectors().ratios(both)
    assert len(found) == len(measured.block) + len(measured.tokens)
    expected = np.clip(detectors().networks["whole"](both.whole), -6, 6)
    assert np.allclose(found.of("whole"), expected)


def test_no_block_speaks_louder_than_any_may(measured: Measured) -> None:
    found = detectors()
    loud = Detectors(
        {
            kind: replace(
                network,
                layers=(network.layers[0], (100 * network.layers[1][0], network.layers[1][1])),
            )
            for kind, network in found.networks.items()
        },
        found.sessions,
    )
    assert np.abs(loud.ratios(measured).values).max() == 6.0


def test_tensors_make_the_same_detectors_again(measured: Measured) -> None:
    found = detectors()
    again = Detectors.read(found.tensors())
    ratios = found.ratios(measured)
    assert np.array_equal(again.ratios(measured).values, ratios.values)
    assert np.array_equal(again.session_evidence(ratios), found.session_evidence(ratios))


@pytest.mark.parametrize("name", [f"detector.{kind}.mean" for kind in KINDS])
def test_a_missing_detector_is_an_error(name: str) -> None:
    tensors = detectors().tensors()
    del tensors[name]
    with pytest.raises(ConfigurationError, match=name):
        Detectors.read(tensors)


# Sessions


def test_ratios_of_a_kind_keep_their_order() -> None:
    values = numbers(5, len(FAMILIES))
    extremes = numbers(len(EXTREMES))
    found = Ratios(values, np.array([0, 2, 1, 0, 2]), extremes, 256)
    assert len(found) == 5
    for kind, places in (("block", [0, 3]), ("tokens", [2]), ("whole", [1, 4])):
        assert np.array_equal(found.of(kind), values[places])
    blocks = replace(found, kinds=np.zeros(5, np.int64))
    assert blocks.of("whole").shape == (0, len(FAMILIES))


@given(ratios_of_sessions.filter(len), st.randoms(), st.integers(0, 4))
def test_what_a_session_is_judged_by_is_finite_and_in_any_order(
    values: Floats, random: object, whole: int
) -> None:
    ratios = session_ratios(values, whole=min(whole, len(values)))
    found = session_inputs(ratios, evidence_for(values))
    assert found.shape == (len(FAMILIES), len(SESSION_COLUMNS))
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    order = np.random.default_rng(random.getrandbits(32)).permutation(len(values))  # type: ignore[attr-defined]
    turned = replace(ratios, values=values[order], kinds=ratios.kinds[order])
    again = session_inputs(turned, evidence_for(values[order]))
    assert np.allclose(again, found, atol=1e-4)


def statistics(values: list[float], **counts: Any) -> dict[str, float]:
    """Return the statistics of a session whose blocks say this of every family."""
    rows = np.repeat(np.array(values, np.float32)[:, None], len(FAMILIES), axis=1)
    found = session_inputs(session_ratios(rows, **counts), np.zeros(len(FAMILIES)))
    return dict(zip(STATISTICS, found[0].tolist(), strict=False))


def test_statistics_are_of_all_blocks_and_of_those_of_a_kind() -> None:
    found = statistics([1.0, 5.0, 3.0, -6.0, 2.0, 0.0], tokens=1, whole=2, block_size=512)
    assert (found["max"], found["second"], found["min"]) == (5.0, 3.0, -6.0)
    assert found["mean"] == pytest.approx(5 / 6)
    assert found["positive"] == pytest.approx(4 / 6)
    assert [found[f"block_{name}"] for name in ("mean", "max", "second", "min")] == [3, 5, 3, 1]
    assert [found[f"whole_{name}"] for name in ("mean", "max", "second", "min")] == [1, 2, 0, 0]
    assert found["blocks"] == pytest.approx(np.log2(6))
    assert found["whole"] == pytest.approx(np.log2(3))
    assert found["block_size"] == 9.0


def test_a_kind_that_was_not_opened_says_nothing() -> None:
    found = statistics([4.0, 3.0], tokens=2)
    of_kinds = [f"{kind}_{name}" for kind in ("block", "whole") for name in ("mean", "max", "min")]
    assert [found[name] for name in [*of_kinds, "whole"]] == [0.0] * 7
    # Of a single block the greatest is the second too.
    assert statistics([4.0])["block_second"] == statistics([4.0])["second"] == 4.0


COLUMNS = {"block": BLOCK_COLUMNS, "tokens": TOKEN_COLUMNS, "whole": WHOLE_COLUMNS}


def test_extremes_are_those_of_the_column_that_they_name(measured: Measured) -> None:
    found = dict(zip(EXTREMES, extremes_of(measured).tolist(), strict=True))
    assert extremes_of(measured).dtype == np.float32
    for name, value in found.items():
        kind, _, column_and_which = name.partition("_")
        column, _, which = column_and_which.rpartition("_")
        rows = np.sort(getattr(measured, kind)[:, COLUMNS[kind].index(column)])
        wanted = {"most": rows[-1], "second": rows[-2], "least": rows[0], "mean": rows.mean()}
        assert value == pytest.approx(wanted[which], abs=1e-5), name


def test_extremes_tell_how_much_of_a_session_is_a_copy(measured: Measured) -> None:
    told = {name.partition("_")[2].rpartition("_")[0] for name in EXTREMES}
    copies = {name for name in BLOCK_COLUMNS if name.startswith("copies_")}
    assert copies
    assert copies <= told
    assert {"answer_max", "others_block_max", "twin_runs", "text_shared"} <= told
    more = replace(measured, block=measured.block + np.float32(1.0))
    changed = np.flatnonzero(extremes_of(more) != extremes_of(measured))
    assert {EXTREMES[at].partition("_")[0] for at in changed} == {"block"}


@pytest.mark.parametrize("kind", KINDS)
def test_extremes_of_few_blocks(measured: Measured, kind: str) -> None:
    # A copy of it is no new extreme, and any order will do.
    one, turned = (getattr(measured, kind)[rows] for rows in (slice(1), slice(None, None, -1)))

    def of(rows: Floats) -> dict[str, float]:
        changed: dict[str, Any] = {kind: rows}
        found = extremes_of(replace(measured, **changed))
        pairs = zip(EXTREMES, found.tolist(), strict=True)
        return {name: value for name, value in pairs if name.startswith(f"{kind}_")}

    single = of(one)
    names = {name.rpartition("_")[0] for name in single}
    assert len(single) == 4 * len(names)
    for name in names:
        values = {single[f"{name}_{which}"] for which in ("most", "second", "least", "mean")}
        assert len(values) == 1
    assert of(np.concatenate([one, one])) == single
    assert of(turned) == pytest.approx(of(getattr(measured, kind)), abs=1e-5)
    # No block at all is told by zeros, not by a crash.
    assert set(of(one[:0]).values()) == {0.0}


def test_every_family_is_told_the_extremes(measured: Measured) -> None:
    ratios = detectors().ratios(measured)
    found = session_inputs(ratios, evidence_for(ratios.values))
    at = len(STATISTICS) + len(FAMILIES)
    assert SESSION_COLUMNS[at:] == EXTREMES
    assert (found[:, at:] == ratios.extremes).all()
    other = session_inputs(
        replace(ratios, extremes=ratios.extremes + np.float32(1.0)), evidence_for(ratios.values)
    )
    assert np.array_equal(other[:, :at], found[:, :at])
    assert (other[:, at:] != found[:, at:]).all()


@pytest.mark.parametrize("blocks", [0, 1, 2, 65])
def test_a_session_of_any_length_has_evidence(blocks: int) -> None:
    ratios = session_ratios(np.clip(numbers(blocks, len(FAMILIES), scale=3.0), -6, 6))
    found = detectors().session_evidence(ratios)
    assert found.shape == (len(FAMILIES),)
    assert np.isfinite(found).all()
