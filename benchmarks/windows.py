"""What windows of a block detect, by their length and projection, for what they expose.

python -m benchmarks.windows [TRACES]

Needs `../shared/data` beside the repository and the token table. Area under the curve per
block, of detectors that see embeddings alone, trained on half of the questions and measured on
the others, one detector a family. Numbers a block: what an opened block's embedding exposes.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks._common import real_table, report, skip
from coin_protocol.cli.common import quiet_models
from coin_protocol.embedding import window_dimension
from coin_protocol.models import Models
from coin_protocol.profile import Policy, Profile
from verifier_sdk.lab import ATTACKS, Trace, read_traces, split
from verifier_sdk.lab.attack import family_of
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.features import block_features, measured_blocks
from verifier_sdk.semantic.mlp import Floats
from verifier_sdk.training.fit import Recipe, area_under_curve, fit
from verifier_sdk.training.heads import train_heads
from verifier_sdk.training.plans import chosen, training_plans
from verifier_sdk.training.workshop import Workshop, kept_folder

DATA: Final = Path(__file__).parents[2] / "shared" / "data"
TRACES: Final = 160
LAYOUTS: Final = ((256, 0), (128, 0), (64, 96), (32, 48))
"""Window length in tokens, and dimensions of the projection, 0 for none."""

_SEED: Final = 11
_RECIPE: Final = Recipe(hidden=(48,), gamma=0.0, steps=1500, noise=0.2)
_FILLER: Final = 0.25


def main() -> None:
    """Measure each layout in turn."""
    quiet_models()
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else TRACES
    if real_table(Profile.shipped("default")) is None:
        skip("windows", "the token table is not built: coin table build")
        return
    if not any(DATA.glob("*.jsonl.gz")):
        skip("windows", "no traces in ../shared/data beside the repository")
        return
    traces = read_traces(sorted(DATA.glob("*.jsonl.gz")))
    for window, dimension in LAYOUTS:
        measure(traces, window, dimension, wanted)


def measure(traces: list[Trace], window: int, dimension: int, wanted: int) -> None:
    """Print the areas under the curve of one layout."""
    models = Models(profile_of(window, dimension))
    workshop = Workshop.opened(models, traces, Policy.shipped().message.rounds, kept_folder())
    pool = split(traces)["train"]
    lengths = [len(workshop.library.ids(trace)) for trace in pool]
    picked = chosen(pool, lengths, least=1024, per_question=1, seed=_SEED)
    picked = [picked[at] for at in np.random.default_rng(_SEED).permutation(len(picked))[:wanted]]
    plans = [
        replace(plan, block_size=256)
        for plan in training_plans(picked, seed=_SEED, honest=1, terse=0)
    ]
    made = workshop.sessions(plans, rounds=1, what="", progress=_quiet)
    workshop.prepare(made, "", _quiet)
    questions = sorted({trace.qid for trace in picked})
    known = set(questions[::2])
    heads = train_heads(
        workshop,
        [(plan, session) for plan, session in made if plan.trace.qid in known and not plan.rate],
        [trace for trace in picked if trace.qid in known],
        seed=_SEED,
        progress=_quiet,
    )
    rows: list[Floats] = []
    families: list[str] = []
    training: list[bool] = []
    for plan, session in made:
        evidence = session.evidence(workshop.visible(plan.trace))
        family = ""
        if plan.attack != "none":
            family = family_of(ATTACKS[plan.attack], plan.placement)
        for row, index in zip(
            block_features(evidence, heads), measured_blocks(evidence), strict=True
        ):
            if not family or session.injected_share(index) >= _FILLER:
                rows.append(row)
                families.append(family)
                training.append(plan.trace.qid in known)
    found, family_of_row, seen = np.array(rows), np.array(families), np.array(training)
    numbers = 256 // window * window_dimension(models.profile.message.embedding)
    name = f"windows.{256 // window}x{window}" + (f".projected_{dimension}" if dimension else "")
    report(f"{name}.numbers_a_block", numbers, unit="count", better="lower")
    for family in FAMILIES:
        own = (family_of_row == family) | (family_of_row == "")
        label = (family_of_row[own & seen] == family).astype(np.float32)[:, None]
        network = fit(found[own & seen], label, np.ones_like(label), recipe=_RECIPE, seed=_SEED)
        logits = network(found[~seen])[:, 0]
        area = area_under_curve(
            logits[family_of_row[~seen] == ""], logits[family_of_row[~seen] == family]
        )
        report(f"{name}.{family}", area, unit="area under the curve", better="higher")


def profile_of(window: int, dimension: int) -> Profile:
    """Return the default profile with other windows."""
    message = Profile.shipped("default").message
    message.name = "coin-benchmark"
    message.embedding.window_tokens = window
    message.embedding.ClearField("projection")
    if dimension:
        message.embedding.projection.dimension = dimension
        message.embedding.projection.seed = sha256(b"coin benchmark projection").digest()
    return Profile.from_bytes(message.SerializeToString())


def _quiet(_what: str, _done: int, _total: int) -> None:
    pass


if __name__ == "__main__":
    main()
