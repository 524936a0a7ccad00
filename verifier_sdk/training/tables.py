"""Counts and shares of a report: detection, false alarms, targets, exposure, overcharge."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from verifier_sdk.semantic.calibration import TIERS
from verifier_sdk.training.results import (
    BLOCK_RANGES,
    SessionResult,
    block_range,
    grouped,
)

Item = dict[str, Any]

BLOCK_SIZE: Final = 256
"""Of the profile that ships: targets are set for it."""

LEAST_BLOCKS: Final = 4
"""Targets are set for replies whose reasoning alone fills so many blocks."""

LEAST_SESSIONS: Final = 30
"""A domain or a model with fewer honest sessions has no false-alarm rate of its own."""

MOST_FALSE_ALARMS: Final = 0.05
MOST_FALSE_ALARMS_IN_A_DOMAIN: Final = 0.10

ORDINARY: Final = "ordinary"
"""Honest sessions about which nothing is special."""

RATES: Final = {"committed": (1.0, 2.0, 3.0), "opened": (0.5, 1.0, 2.0, 3.0)}
"""Rates that are pooled where a tier's detection is one number."""

WANTED: Final[dict[str, dict[str, float | None]]] = {
    "committed": {
        "random": 0.995,
        "bag": 0.947,
        "retrieved": 0.90,
        "repeated": 0.947,
        "echoed": 0.97,
        "scattered": 0.80,
        "ngram": None,
        "shuffled": None,
        "other_model": None,
        "adaptive": None,
    },
    "opened": {
        "random": 0.995,
        "bag": 0.99,
        "retrieved": 0.947,
        "repeated": 0.97,
        "echoed": 0.99,
        "scattered": 0.97,
        "ngram": 0.85,
        "shuffled": 0.60,
        "other_model": None,
        "adaptive": None,
    },
}
"""Share of each family to be detected at each tier; None: as measured."""

WANTED_AT_ONE_RATE: Final = (("random", "committed", 0.25, 0.97),)
"""Family, tier, rate, share."""

_Z: Final = 1.959963984540054
"""Of a 95 % interval."""


def wilson(found: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval for a share (Wilson, 1927); (0, 1) where nothing was counted."""
    if of == 0:
        return (0.0, 1.0)
    share, weight = found / of, _Z**2 / of
    middle = (share + weight / 2) / (1 + weight)
    half = _Z * math.sqrt(share * (1 - share) / of + weight / (4 * of)) / (1 + weight)
    # At the ends the interval touches them exactly; rounding may not pass or miss them.
    return (
        0.0 if found == 0 else max(0.0, middle - half),
        1.0 if found == of else min(1.0, middle + half),
    )


def rows(results: Iterable[SessionResult]) -> list[Item]:
    """Return counts by attack, rate, placement, block size, tier, domain, model and blocks.

    Each session is in exactly one row.
    """
    groups = grouped(
        results,
        lambda one: (
            one.attack,
            one.family,
            one.rate,
            one.placement,
            one.block_size,
            one.tier,
            one.domain,
            one.model,
            BLOCK_RANGES.index(block_range(one.blocks)),
        ),
    )
    return [
        {
            "attack": key[0],
            "family": key[1],
            "rate": key[2],
            "placement": key[3],
            "block_size": key[4],
            "tier": key[5],
            "domain": key[6],
            "model": key[7],
            "blocks": BLOCK_RANGES[key[8]],
            **_counts(found),
            "tokens_exposed": sum(one.tokens_exposed for one in found),
            "block_embeddings_exposed": sum(one.block_embeddings_exposed for one in found),
            "whole_blocks": sum(one.whole_blocks for one in found),
            "rounds": sum(one.rounds for one in found),
        }
        for key, found in sorted(groups.items())
    ]


def comparable(result: SessionResult) -> bool:
    """Tell whether targets speak of a session: block size 256, four original blocks or more."""
    return result.block_size == BLOCK_SIZE and result.original_blocks >= LEAST_BLOCKS


def targets(results: Sequence[SessionResult]) -> list[Item]:
    """Return what was wanted and found of each family at each tier, rates pooled.

    `met` is None where nothing was wanted, or no session measured.
    """
    inflated = [one for one in results if not one.honest and comparable(one)]
    by_cell = grouped(inflated, lambda one: (one.family, one.tier))
    others = sorted({family for family, _ in by_cell} - set(WANTED["opened"]))
    found = []
    for tier in TIERS:
        for family in (*WANTED[tier], *others):
            sessions = by_cell.get((family, tier), [])
            wanted = WANTED[tier].get(family)
            found.append(_target(family, tier, RATES[tier], wanted, sessions))
            found += [
                _target(family, tier, (rate,), share, sessions)
                for name, where, rate, share in WANTED_AT_ONE_RATE
                if (name, where) == (family, tier)
            ]
    return found


def false_alarms(results: Sequence[SessionResult]) -> Item:
    """Return the share of honest sessions that were failed, at each tier.

    All honest sessions count, whatever their length, block size or kind. Domains, models and
    block sizes with fewer than 30 of them are left out.
    """
    honest = [one for one in results if one.honest]
    overall = grouped(honest, lambda one: one.tier)
    by_domain = grouped(honest, lambda one: (one.tier, one.domain))
    by_model = grouped(honest, lambda one: (one.tier, one.model))
    by_size = grouped(honest, lambda one: (one.tier, one.block_size))
    return {
        "overall": [
            {"tier": tier, **_alarms(overall[tier], MOST_FALSE_ALARMS)}
            for tier in TIERS
            if tier in overall
        ],
        "by_domain": [
            {"tier": tier, "domain": name, **_alarms(found, MOST_FALSE_ALARMS_IN_A_DOMAIN)}
            for (tier, name), found in sorted(by_domain.items())
            if len(found) >= LEAST_SESSIONS
        ],
        "by_model": [
            {"tier": tier, "model": name, **_alarms(found, None)}
            for (tier, name), found in sorted(by_model.items())
            if len(found) >= LEAST_SESSIONS
        ],
        "by_block_size": [
            {"tier": tier, "block_size": size, **_alarms(found, None)}
            for (tier, size), found in sorted(by_size.items())
            if len(found) >= LEAST_SESSIONS
        ],
    }


def honest_kinds(results: Iterable[SessionResult]) -> list[Item]:
    """Return false alarms of each kind of honest session; one of several kinds counts in each."""
    groups: dict[tuple[str, str], list[SessionResult]] = {}
    for one in results:
        if one.honest:
            for kind in dict.fromkeys(one.kinds or (ORDINARY,)):
                groups.setdefault((kind, one.tier), []).append(one)
    return [
        {"kind": kind, "tier": tier, **_alarms(found, None)}
        for (kind, tier), found in sorted(groups.items())
    ]


def detection(results: Iterable[SessionResult]) -> list[Item]:
    """Return detection by attack, placement, tier and rate, of the sessions of the targets."""
    groups = grouped(
        (one for one in results if not one.honest and comparable(one)),
        lambda one: (one.family, one.attack, one.placement, one.tier, one.rate),
    )
    names = ("family", "attack", "placement", "tier", "rate")
    return [
        {**dict(zip(names, key, strict=True)), **_detected(found)}
        for key, found in sorted(groups.items())
    ]


def detection_by_block_size(results: Iterable[SessionResult]) -> list[Item]:
    """Return detection by family, tier and block size: replies of any length, rates pooled."""
    groups = grouped(
        (one for one in results if not one.honest and one.rate in RATES[one.tier]),
        lambda one: (one.family, one.tier, one.block_size),
    )
    return [
        {"family": family, "tier": tier, "block_size": size, **_detected(found)}
        for (family, tier, size), found in sorted(groups.items())
    ]


def detection_by_length(results: Iterable[SessionResult]) -> list[Item]:
    """Return detection by family, tier and original blocks, at block size 256, rates pooled."""
    groups = grouped(
        (
            one
            for one in results
            if not one.honest and one.block_size == BLOCK_SIZE and one.rate in RATES[one.tier]
        ),
        lambda one: (one.family, one.tier, BLOCK_RANGES.index(block_range(one.original_blocks))),
    )
    return [
        {"family": family, "tier": tier, "original_blocks": BLOCK_RANGES[at], **_detected(found)}
        for (family, tier, at), found in sorted(groups.items())
    ]


def exposure(results: Iterable[SessionResult]) -> list[Item]:
    """Return what audits opened on average, by tier and blocks, at block size 256.

    A session's tokens are taken to fill its last block: shares of tokens are a little low.
    """
    groups = grouped(
        (one for one in results if one.block_size == BLOCK_SIZE),
        lambda one: (one.tier, not one.honest, BLOCK_RANGES.index(block_range(one.blocks))),
    )
    return [
        {
            "tier": tier,
            "of": "inflated" if inflated else "honest",
            "blocks": BLOCK_RANGES[at],
            "sessions": len(found),
            "tokens": _mean([one.tokens_exposed for one in found]),
            "token_share": _mean(
                [one.tokens_exposed / (one.blocks * one.block_size) for one in found]
            ),
            "block_embeddings": _mean([one.block_embeddings_exposed for one in found]),
            "embedding_share": _mean([one.block_embeddings_exposed / one.blocks for one in found]),
            "whole_blocks": _mean([one.whole_blocks for one in found]),
            "whole_share": _mean([one.whole_blocks / one.blocks for one in found]),
            "rounds": _mean([one.rounds for one in found]),
        }
        for (tier, inflated, at), found in sorted(groups.items())
    ]


def overcharge(results: Iterable[SessionResult]) -> list[Item]:
    """Return what a provider keeps of its overcharge, by attack, tier and rate, at block size 256.

    `kept` is the mean over sessions of the overcharge, counted 0 where the session was failed.
    """
    groups = grouped(
        (one for one in results if not one.honest and one.block_size == BLOCK_SIZE),
        lambda one: (one.attack, one.tier, one.rate),
    )
    return [
        {
            "attack": attack,
            "tier": tier,
            "rate": rate,
            "sessions": len(found),
            "billed": _mean([one.overcharge for one in found]),
            "kept": _mean([0.0 if one.detected else one.overcharge for one in found]),
        }
        for (attack, tier, rate), found in sorted(groups.items())
    ]


def inflated_shares(results: Iterable[SessionResult]) -> list[Item]:
    """Return how well the inflated share was estimated in sessions that were failed.

    By tier and family: sessions, the share of them whose interval held the true share, the
    interval's mean width, and the mean distance of the estimate from the true share.
    """
    groups = grouped(
        (one for one in results if not one.honest and one.detected),
        lambda one: (one.tier, one.family),
    )
    found = []
    for (tier, family), sessions in sorted(groups.items()):
        held = [one.interval[0] <= one.share <= one.interval[1] for one in sessions]
        found.append(
            {
                "tier": tier,
                "family": family,
                "sessions": len(sessions),
                "held": sum(held) / len(held),
                "width": _mean([one.interval[1] - one.interval[0] for one in sessions]),
                "error": _mean([abs(one.estimate - one.share) for one in sessions]),
            }
        )
    return found


def _target(
    family: str,
    tier: str,
    rates: tuple[float, ...],
    wanted: float | None,
    sessions: Iterable[SessionResult],
) -> Item:
    chosen = [one for one in sessions if one.rate in rates]
    item = _detected(chosen)
    met = None if wanted is None or not chosen else item["found"] >= wanted
    return {
        "family": family,
        "tier": tier,
        "rates": list(rates),
        "wanted": wanted,
        "met": met,
        **item,
    }


def _detected(found: Sequence[SessionResult]) -> Item:
    detected = sum(one.detected for one in found)
    return {
        "sessions": len(found),
        "detected": detected,
        "inconclusive": sum(one.outcome == "INCONCLUSIVE" for one in found),
        "found": detected / len(found) if found else None,
        "ci": list(wilson(detected, len(found))),
    }


def _alarms(found: Sequence[SessionResult], wanted: float | None) -> Item:
    counts = _counts(found)
    share = counts["fail"] / counts["sessions"]
    return {
        **counts,
        "rate": share,
        "ci": list(wilson(counts["fail"], counts["sessions"])),
        "wanted": wanted,
        "met": None if wanted is None else share <= wanted,
    }


def _counts(found: Sequence[SessionResult]) -> dict[str, int]:
    return {
        "sessions": len(found),
        "fail": sum(one.outcome == "FAIL" for one in found),
        "inconclusive": sum(one.outcome == "INCONCLUSIVE" for one in found),
        "pass": sum(one.outcome == "PASS" for one in found),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
