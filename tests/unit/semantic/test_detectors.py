"""Evidence of sessions out of ratios of blocks, and the inflated share that explains them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coin_protocol.errors import ConfigurationError
from tests.support.judges import Floats, detectors, evidence, heads, numbers, readers
from tests.support.laboratory import tokenizer, traces
from verifier_sdk.semantic.aggregate import SESSION_COLUMNS, session_inputs
from verifier_sdk.semantic.detectors import (
    KINDS,
    SHARES,
    Detectors,
    estimate_share,
    evidence_for,
)
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.measure import Measured, measure

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
    assert found.shape == (len(indices), len(FAMILIES))
    assert np.isfinite(found).all()


def test_a_block_opened_whole_is_not_judged_by_its_tokens(measured: Measured) -> None:
    first = measured.block_indices[:1]
    both = replace(measured, whole=measured.whole[:1], whole_indices=first)
    found = detectors().ratios(both)
    assert len(found) == len(measured.block) + len(measured.tokens)
    assert np.allclose(found[0], np.clip(detectors().networks["whole"](both.whole)[0], -6, 6))


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
    assert np.abs(loud.ratios(measured)).max() == 6.0


def test_tensors_make_the_same_detectors_again(measured: Measured) -> None:
    found = detectors()
    again = Detectors.read(found.tensors())
    ratios = found.ratios(measured)
    assert np.array_equal(again.ratios(measured), ratios)
    assert np.array_equal(
        again.session_evidence(ratios, whole=1), found.session_evidence(ratios, whole=1)
    )


@pytest.mark.parametrize("name", [f"detector.{kind}.mean" for kind in KINDS])
def test_a_missing_detector_is_an_error(name: str) -> None:
    tensors = detectors().tensors()
    del tensors[name]
    with pytest.raises(ConfigurationError, match=name):
        Detectors.read(tensors)


# Sessions


@given(ratios_of_sessions.filter(len), st.randoms(), st.integers(0, 4))
def test_what_a_session_is_judged_by_is_finite_and_in_any_order(
    ratios: Floats, random: object, whole: int
) -> None:
    found = session_inputs(ratios, evidence_for(ratios), whole=whole)
    assert found.shape == (len(FAMILIES), len(SESSION_COLUMNS))
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    order = np.random.default_rng(random.getrandbits(32)).permutation(len(ratios))  # type: ignore[attr-defined]
    again = session_inputs(ratios[order], evidence_for(ratios[order]), whole=whole)
    assert np.allclose(again, found, atol=1e-4)


@pytest.mark.parametrize("blocks", [0, 1, 2, 65])
def test_a_session_of_any_length_has_evidence(blocks: int) -> None:
    ratios = np.clip(numbers(blocks, len(FAMILIES), scale=3.0), -6, 6)
    found = detectors().session_evidence(ratios, whole=0)
    assert found.shape == (len(FAMILIES),)
    assert np.isfinite(found).all()
