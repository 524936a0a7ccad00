"""Curves of a report: ROC, calibration, and how many sessions the sequential judge needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from verifier_sdk.semantic.calibration import TIERS
from verifier_sdk.semantic.families import UNSEEN
from verifier_sdk.semantic.sequential import SequentialJudge
from verifier_sdk.training.fit import area_under_curve
from verifier_sdk.training.results import HONEST, SessionResult, grouped
from verifier_sdk.training.tables import BLOCK_SIZE, RATES, Item, comparable

Numbers = npt.NDArray[np.float64]

PRIOR: Final = 0.5
"""Share of inflated sessions that probabilities are calibrated for."""

BINS: Final = 10
"""Of probabilities, all of one width."""

ALPHA: Final = 0.01
"""Of the sequential judge."""

MOST_SESSIONS: Final = 500
"""No more sessions of a provider are drawn."""

INFLATED_SHARES: Final = (1.0, 0.2)
"""Providers that inflate every session, and one session in five."""

_PATHS: Final = 200
_LEAST_POOL: Final = 20
_MOST_POINTS: Final = 100


def roc(results: Sequence[SessionResult]) -> list[Item]:
    """Return ROC points of each family at each tier, by p-value, rates pooled.

    Sessions are those of the targets, and honest ones of the same length and block size.
    Each point is (share of honest sessions, share of inflated ones) at a p-value or below;
    `judged` is the point of the sessions that were failed.
    """
    chosen = [one for one in results if comparable(one)]
    honest = grouped((one for one in chosen if one.honest), lambda one: one.tier)
    inflated = grouped(
        (one for one in chosen if not one.honest and one.rate in RATES[one.tier]),
        lambda one: (one.family, one.tier),
    )
    return [
        {
            "family": family,
            "tier": tier,
            "honest_sessions": len(honest[tier]),
            "sessions": len(found),
            "judged": [_failed(honest[tier]), _failed(found)],
            **_curve(_p_values(honest[tier]), _p_values(found)),
        }
        for (family, tier), found in sorted(inflated.items())
        if tier in honest
    ]


def calibration(results: Sequence[SessionResult]) -> list[Item]:
    """Return how often sessions were inflated for which a probability was given.

    Honest and inflated sessions are weighted so that `PRIOR` of them are inflated, at each
    tier; once for the families that detectors are trained for, once for all. `error` is the
    mean distance of bins from the diagonal, `brier` the mean squared error.
    """
    found = []
    for tier in TIERS:
        for which in ("trained", "all"):
            chosen = [
                one
                for one in results
                if one.tier == tier and (one.honest or which == "all" or one.family not in UNSEEN)
            ]
            inflated = np.array([not one.honest for one in chosen], np.bool_)
            if inflated.all() or not inflated.any():
                continue
            probability = np.array([one.probability for one in chosen])
            found.append({"tier": tier, "families": which, **_reliability(probability, inflated)})
    return found


def sessions_needed(results: Iterable[SessionResult], calibration_sessions: int) -> Item:
    """Return how many sessions the sequential judge needs to fail a provider.

    Sessions of a provider are drawn again and again from the results at block size 256, of any
    length: p-values of one family at one rate for the sessions that it inflates, honest ones
    for the rest. Quantiles are None where they lie past 500 sessions. The honest provider
    stands among them as family `none`.

    Args:
        results: With conformal p-values.
        calibration_sessions: Independent honest sessions that p-values were computed from: of
            several draws of one question count one, of several calibration sets the smallest.

    Raises:
        InvalidInputError: The number of sessions is out of its range.
    """
    judge = SequentialJudge(ALPHA, calibration_sessions)
    groups = grouped(
        (one for one in results if one.block_size == BLOCK_SIZE),
        lambda one: (one.tier, HONEST if one.honest else one.family, one.rate),
    )
    pools = {key: _p_values(found) for key, found in groups.items()}
    providers = []
    for (tier, family, rate), pool in sorted(pools.items()):
        honest = pools.get((tier, HONEST, 0.0), np.empty(0))
        if min(len(pool), len(honest)) < _LEAST_POOL:
            continue
        for share in INFLATED_SHARES if family != HONEST else (0.0,):
            rng = np.random.default_rng([*f"{tier}/{family}/{rate}/{share}".encode()])
            shape = (_PATHS, MOST_SESSIONS)
            inflates = rng.random(shape) < share
            p_values = np.where(inflates, rng.choice(pool, shape), rng.choice(honest, shape))
            failed = judge.paths(p_values) >= judge.log_threshold
            first = np.where(failed.any(axis=1), failed.argmax(axis=1) + 1.0, np.inf)
            providers.append(
                {
                    "tier": tier,
                    "family": family,
                    "rate": rate,
                    "inflated_share": share,
                    "pool": len(pool),
                    "median": _quantile(first, 0.5),
                    "p90": _quantile(first, 0.9),
                    "failed": float(np.isfinite(first).mean()),
                }
            )
    return {
        "alpha": judge.alpha,
        "doubt": judge.doubt,
        "calibration_sessions": calibration_sessions,
        "most_sessions": MOST_SESSIONS,
        "providers": providers,
    }


def _reliability(probability: Numbers, inflated: npt.NDArray[np.bool_]) -> Item:
    weight = np.where(inflated, PRIOR / inflated.sum(), (1 - PRIOR) / (~inflated).sum())
    place = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    bins: list[Item] = []
    error = 0.0
    for number in range(BINS):
        inside = place == number
        total = float(weight[inside].sum())
        mean = share = None
        if total > 0:
            mean = float((weight * probability)[inside].sum()) / total
            share = float(weight[inside & inflated].sum()) / total
            error += total * abs(mean - share)
        bins.append(
            {
                "low": number / BINS,
                "high": (number + 1) / BINS,
                "honest": int((inside & ~inflated).sum()),
                "inflated": int((inside & inflated).sum()),
                "weight": total,
                "probability": mean,
                "share": share,
            }
        )
    return {
        "sessions": len(probability),
        "prior": PRIOR,
        "error": error,
        "brier": float((weight * (probability - inflated) ** 2).sum()),
        "bins": bins,
    }


def _curve(honest: Numbers, inflated: Numbers) -> Item:
    levels = np.unique(np.concatenate([honest, inflated]))
    # All of the smallest, where audits are judged, and some of the others.
    few = np.linspace(0, len(levels) - 1, _MOST_POINTS).round().astype(int)
    levels = levels[np.union1d(np.arange(min(len(levels), _MOST_POINTS)), few)]
    points = np.stack([_below(honest, levels), _below(inflated, levels)], axis=1)
    return {"area": area_under_curve(-honest, -inflated), "points": points.round(6).tolist()}


def _failed(found: Sequence[SessionResult]) -> float:
    return sum(one.detected for one in found) / len(found)


def _p_values(found: Iterable[SessionResult]) -> Numbers:
    return np.array([one.p_value for one in found])


def _below(p_values: Numbers, levels: Numbers) -> Numbers:
    return np.searchsorted(np.sort(p_values), levels, "right") / len(p_values)


def _quantile(first: Numbers, share: float) -> int | None:
    value = float(np.quantile(first, share, method="higher"))
    return int(value) if np.isfinite(value) else None
