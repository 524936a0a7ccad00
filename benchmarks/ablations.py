"""What each kind of evidence adds: detectors trained and calibrated without it.

python -m benchmarks.ablations [TIER …]

Needs `../shared/data` beside the repository and the token table, and an hour or so. Detectors
are trained on the questions for detectors; shares of inflated sessions failed at 4 % false
alarms are of the calibration questions, whose inflated sessions nothing was fitted to. The test
split plays no part. Blocks of 256 tokens, reasoning of four blocks or more, rates of 1 and more
at `committed`, 0.5 and more at `opened`. The mean of several trainings with other seeds, and how
far those lie apart.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks._common import real_table, report, skip
from coin_protocol.cli.common import quiet_models
from coin_protocol.models import Models
from coin_protocol.profile import Policy, Profile
from verifier_sdk.lab import ATTACKS, Trace, read_traces, split
from verifier_sdk.lab.attack import family_of
from verifier_sdk.semantic.calibration import TIERS
from verifier_sdk.semantic.measure import BLOCK_COLUMNS, TOKEN_COLUMNS, WHOLE_COLUMNS, Measured
from verifier_sdk.training.calibrate import calibrate, statistic_of
from verifier_sdk.training.detectors import Example, train_detectors
from verifier_sdk.training.pipeline import (
    Size,
    audit_sessions,
    example_sessions,
    judge_audits,
    make_heads,
    make_readers,
    measure_audits,
    measure_examples,
)
from verifier_sdk.training.tables import BLOCK_SIZE, LEAST_BLOCKS, RATES
from verifier_sdk.training.workshop import Plan, Workshop, kept_folder

DATA: Final = Path(__file__).parents[2] / "shared" / "data"
SEED: Final = 1
SEEDS: Final = (1, 2, 3)
"""Of detectors; what they are trained on is the same."""

FALSE_ALARMS: Final = 0.04
STEPS: Final = 0.25
"""Share of the full training of detectors: all are compared at the same."""

GROUPS: Final[dict[str, Callable[[str], bool]]] = {
    "nothing": lambda _: False,
    "matching_heads": lambda name: "_head" in name,
    "answer_and_prompt": lambda name: name.startswith(("answer_", "prompt_")),
    "other_blocks": lambda name: name.startswith("others_"),
    "coherence_within": lambda name: name.startswith(("within_", "adjacent_", "concentration")),
    "copies": lambda name: name.startswith(("copies_", "twin_")),
    "tokens_to_block": lambda name: name.startswith("tokens_"),
    "run_reader": lambda name: name.startswith("run_") or name == "session_sum",
    "rarity_of_tokens": lambda name: (
        name in ("idf", "in_prompt", "in_answer", "in_session")
        or name.startswith(("runs_in", "rare_runs"))
    ),
    "block_reader": lambda name: name.startswith("read_"),
    "text_of_whole_blocks": lambda name: name.startswith("text_"),
}
"""By name, which columns are left out."""


def main() -> None:
    """Measure each group in turn, at each tier."""
    quiet_models()
    profile = Profile.shipped("default")
    if real_table(profile) is None:
        skip("ablations", "the token table is not built: coin table build")
        return
    if not any(DATA.glob("*.jsonl.gz")):
        skip("ablations", "no traces in ../shared/data beside the repository")
        return
    traces = read_traces(sorted(DATA.glob("*.jsonl.gz")))
    cache = kept_folder()
    workshop = Workshop.opened(Models(profile), traces, Policy.shipped().message.rounds, cache)
    parts, size = split(traces), Size()
    readers = make_readers(workshop.library, parts["train"], size=size, kept=cache, progress=_quiet)
    heads = make_heads(workshop, parts["train"], size=size, seed=SEED, progress=_quiet)
    sessions = example_sessions(workshop, parts["detectors"], size, SEED, _quiet)
    examples = measure_examples(workshop, sessions, heads, readers, _quiet)
    for tier in sys.argv[1:] or TIERS:
        made = audit_sessions(workshop, parts["calibration"], tier, size, SEED, _quiet)
        audits = measure_audits(workshop, made, heads, readers, _quiet)
        able = {
            plan.trace
            for plan, _ in audits
            if len(workshop.library.ids(plan.trace)) > (LEAST_BLOCKS - 1) * BLOCK_SIZE
        }
        # At `committed` no block is opened whole.
        read = {*BLOCK_COLUMNS, *TOKEN_COLUMNS, *(WHOLE_COLUMNS if tier == "opened" else ())}
        for name, dropped in GROUPS.items():
            if name != "nothing" and not any(map(dropped, read)):
                continue
            found = [
                detection(examples, audits, tier, able, dropped, heads.subjects.outputs, seed)
                for seed in SEEDS
            ]
            for family, failed in found[0].items():
                label = f"ablations.{tier}.without_{name}.{family}"
                shares = [float(np.mean(one[family])) for one in found]
                report(label, float(np.mean(shares)), unit="share failed", better="higher")
                report(f"{label}.apart", max(shares) - min(shares), unit="share", better="lower")
                report(f"{label}.sessions", len(failed), unit="count", better="higher")


def detection(
    examples: Sequence[Example],
    audits: Sequence[tuple[Plan, list[Measured]]],
    tier: str,
    able: AbstractSet[Trace],
    dropped: Callable[[str], bool],
    subjects: int,
    seed: int,
) -> dict[str, list[bool]]:
    """Return whether each of a family's sessions is failed without some columns.

    Args:
        examples: To train on.
        audits: To calibrate on, and to measure.
        tier: Of the audits.
        able: Traces that are long enough to count.
        dropped: Whether a column, by name, is left out.
        subjects: That sessions are told apart by.
        seed: Of the detectors.
    """
    detectors = train_detectors(
        [replace(one, measured=without(one.measured, dropped)) for one in examples],
        seed=seed,
        steps=STEPS,
    )
    blind = [(plan, [without(one, dropped) for one in stages]) for plan, stages in audits]
    audited = judge_audits(blind, detectors)
    fitted = calibrate(audited, subjects=subjects)
    failed: dict[str, list[bool]] = {}
    for (plan, _), one in zip(blind, audited, strict=True):
        alike = plan.trace in able and plan.block_size == BLOCK_SIZE
        if one.inflated and alike and plan.rate in RATES[tier]:
            family = family_of(ATTACKS[plan.attack], plan.placement)
            p_value = fitted.p_value(
                statistic_of(fitted, one), one.block_size, code=one.code, subject=one.subject
            )
            failed.setdefault(family, []).append(p_value <= FALSE_ALARMS)
    return failed


def without(measured: Measured, dropped: Callable[[str], bool]) -> Measured:
    """Return what was measured with some columns at zero."""
    parts = {}
    for kind, columns in (
        ("block", BLOCK_COLUMNS), ("tokens", TOKEN_COLUMNS), ("whole", WHOLE_COLUMNS),
    ):  # fmt: skip
        rows = getattr(measured, kind).copy()
        rows[:, [dropped(name) for name in columns]] = 0.0
        parts[kind] = rows
    return replace(measured, **parts)


def _quiet(_what: str, _done: int, _total: int) -> None:
    pass


if __name__ == "__main__":
    main()
