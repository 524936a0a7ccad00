"""Train the detectors on measured blocks of honest and inflated sessions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from coin_protocol.errors import InvalidInputError
from verifier_sdk.lab import ATTACKS
from verifier_sdk.lab.attack import family_of
from verifier_sdk.lab.audit import LabSession
from verifier_sdk.semantic.aggregate import KINDS, session_inputs
from verifier_sdk.semantic.detectors import Detectors, evidence_for
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.measure import Measured
from verifier_sdk.semantic.mlp import Floats, Mlp
from verifier_sdk.training.fit import Recipe, fit
from verifier_sdk.training.honest import kinds_of
from verifier_sdk.training.workshop import Plan

LEAST_INJECTED = 0.08
"""A block with a smaller share of filler is nobody's example: neither honest nor filler."""

LOOPS = 4.0
"""How much more an honest session weighs whose reasoning loops: few do, and none may be accused
for it."""

FOLDS = 3
"""Parts that the questions are cut into, each judged by networks trained on the others."""

SESSION = Recipe(hidden=(32,), gamma=0.0, steps=2500, noise=0.2, decay=1e-1)

RECIPE = Recipe(hidden=(64, 32), gamma=0.0, steps=3000, noise=0.15, decay=3e-2)


@dataclass(frozen=True)
class Example:
    """One session for training, measured.

    Attributes:
        plan: What it is.
        family: Of its filler, empty for an honest one.
        measured: Its blocks.
        shares: Injected share of each block of the session, float64 (blocks,).
    """

    plan: Plan
    family: str
    measured: Measured
    shares: npt.NDArray[np.float64]


def example(plan: Plan, session: LabSession, measured: Measured) -> Example:
    """Return a measured session with its labels."""
    family = "" if plan.attack == "none" else family_of(ATTACKS[plan.attack], plan.placement)
    shares = [session.injected_share(index) for index in range(session.total_blocks)]
    return Example(plan, family, measured, np.array(shares))


def rows_of(
    examples: Sequence[Example], kind: str
) -> tuple[Floats, Floats, Floats, npt.NDArray[np.int64]]:
    """Return one kind of block of many sessions.

    Returns:
        Rows (n, columns), labels (n, families), weights (n, families) and the number of the
        session of each row (n,). A question weighs the square root of its
        sessions.
    """
    rows, labels, weights, owners = [], [], [], []
    questions = Counter((one.plan.trace.qid, one.family) for one in examples)
    for number, one in enumerate(examples):
        found = getattr(one.measured, kind)
        shares = one.shares[getattr(one.measured, _INDICES[kind])]
        weight = _weight(one, questions)
        for row, share in zip(found, shares.tolist(), strict=True):
            label = np.zeros(len(FAMILIES), np.float32)
            concerns = np.ones(len(FAMILIES), np.float32)
            if one.family:
                if one.family not in FAMILIES:
                    continue
                at = FAMILIES.index(one.family)
                filler = share >= LEAST_INJECTED
                if not filler and (share > 0 or one.family == "repeated"):
                    # Blocks that were copied look repeated as much as their copies do.
                    continue
                # Its own blocks beside filler are honest, and look less at home than ever.
                label[at] = float(filler)
                concerns[:] = 0.0
                concerns[at] = 1.0
            rows.append(row)
            labels.append(label)
            weights.append(concerns * weight)
            owners.append(number)
    return np.array(rows), np.array(labels), np.array(weights), np.array(owners)


def train_detectors(
    examples: Sequence[Example],
    *,
    seed: int,
    steps: float = 1.0,
    progress: Callable[[int], None] | None = None,
) -> Detectors:
    """Train one network for each kind of block, and one a family for sessions.

    Sessions are trained on what networks say of questions that they were not trained on.

    Args:
        examples: Of honest and inflated sessions.
        seed: Of initial weights and order.
        steps: Share of the full training.
        progress: Told how many steps were made, for sessions not.

    Raises:
        InvalidInputError: There is no block of one kind.
    """
    inputs: list[Floats] = []
    held: list[Example] = []
    fold_of = _folds(examples)
    for fold in sorted(set(fold_of.values())):
        own = [one for one in examples if fold_of[one.plan.trace.qid] != fold]
        draft = Detectors(_networks(own, seed, steps, progress), {})
        for one in examples:
            if fold_of[one.plan.trace.qid] == fold:
                ratios = draft.ratios(one.measured)
                inputs.append(session_inputs(ratios, evidence_for(ratios.values)))
                held.append(one)
    sessions = {
        family: _session_network(inputs, held, at, seed, steps)
        for at, family in enumerate(FAMILIES)
    }
    return Detectors(_networks(examples, seed, steps, progress), sessions)


def _networks(
    examples: Sequence[Example],
    seed: int,
    steps: float,
    progress: Callable[[int], None] | None,
) -> dict[str, Mlp]:
    networks = {}
    for kind in KINDS:
        rows, labels, weights, _ = rows_of(examples, kind)
        if not len(rows):
            msg = f"no blocks of kind {kind!r} to train on: give more traces, or longer ones"
            raise InvalidInputError(msg)
        recipe = RECIPE.scaled(steps)
        networks[kind] = fit(rows, labels, weights, recipe=recipe, seed=seed, progress=progress)
    return networks


def _session_network(
    inputs: Sequence[Floats], examples: Sequence[Example], at: int, seed: int, steps: float
) -> Mlp:
    """Train one family's network over sessions, honest ones against its own."""
    questions = Counter((one.plan.trace.qid, one.family) for one in examples)
    rows, labels, weights = [], [], []
    for row, one in zip(inputs, examples, strict=True):
        if one.family in ("", FAMILIES[at]):
            rows.append(row[at])
            labels.append([float(bool(one.family))])
            weights.append([_weight(one, questions)])
    return fit(
        np.array(rows),
        np.array(labels, np.float32),
        np.array(weights, np.float32),
        recipe=SESSION.scaled(steps),
        seed=seed,
    )


def _weight(one: Example, questions: Mapping[tuple[str, str], int]) -> float:
    """Return what a session weighs: less, the more there are of its question."""
    loops = not one.family and "loops" in kinds_of(one.plan.trace)
    share: float = questions[one.plan.trace.qid, one.family] ** -0.5
    return share * LOOPS if loops else share


def _folds(examples: Sequence[Example]) -> dict[str, int]:
    """Cut the questions into parts of like size, in the order of their hash."""
    qids = {one.plan.trace.qid for one in examples}
    ordered = sorted(qids, key=lambda qid: sha256(b"coin.fold.v1" + qid.encode()).digest())
    return {qid: place % FOLDS for place, qid in enumerate(ordered)}


_INDICES = {"block": "block_indices", "tokens": "token_indices", "whole": "whole_indices"}
