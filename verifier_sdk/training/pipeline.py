"""From traces to a judge: readers, heads, detectors, calibration, one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from coin_protocol.errors import ConfigurationError, InvalidInputError
from coin_protocol.files import replace_file
from verifier_sdk.lab import Trace, split
from verifier_sdk.lab.audit import WHOLE_BLOCKS
from verifier_sdk.semantic.baseline import COLUMNS as BASELINE_COLUMNS
from verifier_sdk.semantic.baseline import DeepSetsJudge
from verifier_sdk.semantic.calibration import TIERS, Calibration
from verifier_sdk.semantic.detectors import KINDS, Detectors
from verifier_sdk.semantic.heads import Heads
from verifier_sdk.semantic.measure import measure
from verifier_sdk.semantic.reader import Readers
from verifier_sdk.semantic.reader.readers import FORMAT as READERS_FORMAT
from verifier_sdk.training.calibrate import Audited, calibrate, smallest_domain, worst_null
from verifier_sdk.training.deepsets import RECIPE as SETS
from verifier_sdk.training.deepsets import fit_deep_sets
from verifier_sdk.training.detectors import FOLDS, RECIPE, Example, example, train_detectors
from verifier_sdk.training.heads import train_heads
from verifier_sdk.training.plans import chosen, honest_plans, training_plans
from verifier_sdk.training.readers import BLOCK_STEPS, RUN_STEPS, train_readers
from verifier_sdk.training.workshop import Progress, Workshop

HEAD_BLOCKS: Final = 2
DETECTOR_BLOCKS: Final = 3
CALIBRATION_BLOCKS: Final = 1
"""Blocks that a trace must fill to be used for each of them."""

WHOLE: Final = (WHOLE_BLOCKS, 1, 2)
"""Blocks opened whole, in turn: profiles agree to few of a short reply."""

READERS_SEED: Final = 1
"""Readers have a seed of their own, so that judges of several seeds share them."""

_LEAST_QUESTIONS: Final = 2


@dataclass(frozen=True)
class Size:
    """How much is trained on.

    Attributes:
        head_traces: Of one question, to train heads.
        detector_traces: Of one question, to train detectors.
        calibration_traces: Of one question, to calibrate.
        draws: How often each honest session is drawn anew to calibrate.
        steps: Share of the full training of every network.
        inflated: One calibration trace in so many is inflated, for probabilities.
    """

    head_traces: int = 1
    detector_traces: int = 2
    calibration_traces: int = 4
    draws: int = 3
    steps: float = 1.0
    inflated: int = 4

    @classmethod
    def small(cls) -> Size:
        """Return what shows that everything works, and trains nothing well."""
        return cls(detector_traces=1, calibration_traces=1, draws=1, steps=0.05)


@dataclass
class Trained:
    """A judge, and the baseline to compare it with.

    Attributes:
        readers: Of runs and whole blocks.
        heads: Matching heads.
        detectors: One a family.
        calibrations: By tier.
        baseline: The paper's verifier.
        questions: That the calibration of the smallest domain rests on.
    """

    readers: Readers
    heads: Heads
    detectors: Detectors
    calibrations: Mapping[str, Calibration]
    baseline: DeepSetsJudge
    questions: int

    def tensors(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return all tensors, for a file: the readers' as float16, all others as float32."""
        found: dict[str, np.ndarray[Any, Any]] = {}
        for part in (self.readers, self.heads, self.detectors, self.baseline):
            found.update(part.tensors())
        for tier, calibration in self.calibrations.items():
            found.update(calibration.tensors(tier))
        return found


def train(
    workshop: Workshop, traces: Sequence[Trace], *, size: Size, seed: int, progress: Progress,
    kept: Path | None = None,
) -> Trained:  # fmt: skip
    """Train a judge on traces.

    Args:
        workshop: Models, and a library of the same traces.
        traces: Of many questions: every part of the split needs some in each domain.
        size: How much.
        seed: Of everything that is drawn.
        progress: Told what is being done.
        kept: Folder for what an interrupted run need not do again.

    Raises:
        InvalidInputError: A part of the split has too few questions with traces long enough.
    """
    parts = split(traces)
    # Before anything is trained: what is missing is known at once.
    for part, per_question, least_blocks in (
        ("train", size.head_traces, HEAD_BLOCKS),
        ("detectors", size.detector_traces, DETECTOR_BLOCKS),
        ("calibration", size.calibration_traces, CALIBRATION_BLOCKS),
    ):
        _chosen(workshop, parts[part], per_question, seed, least_blocks=least_blocks)
    readers = make_readers(workshop, parts["train"], size=size, kept=kept, progress=progress)
    heads = make_heads(workshop, parts["train"], size=size, seed=seed, progress=progress)
    examples = make_examples(
        workshop, parts["detectors"], heads, readers, size=size, seed=seed, progress=progress
    )
    steps = RECIPE.scaled(size.steps).steps * len(KINDS) * (FOLDS + 1)
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        progress("training detectors", done, steps)

    detectors = train_detectors(examples, seed=seed, steps=size.steps, progress=step)
    calibrations = {}
    for tier in TIERS:
        audited = make_audits(
            workshop, parts["calibration"], heads, readers, detectors, tier,
            size=size, seed=seed, progress=progress,
        )  # fmt: skip
        calibrations[tier] = calibrate(audited)
        if tier == TIERS[0]:
            baseline = make_baseline(heads, examples, audited, size=size, seed=seed)
            questions = smallest_domain(audited)
    return Trained(readers, heads, detectors, calibrations, baseline, questions)


def make_readers(
    workshop: Workshop, traces: Sequence[Trace], *, size: Size, kept: Path | None,
    progress: Progress,
) -> Readers:  # fmt: skip
    """Train the readers, or take those that an interrupted run with the same traces made."""
    steps = (max(1, round(RUN_STEPS * size.steps)), max(1, round(BLOCK_STEPS * size.steps)))
    tokenizer = workshop.models.tokenizer.sha256.hex()
    label = json.dumps([READERS_FORMAT, tokenizer, READERS_SEED, steps, torch.get_num_threads()])
    key = sha256(label.encode())
    for trace in traces:
        key.update(sha256(f"{trace.id}\n{trace.reasoning}".encode()).digest())
    path = None if kept is None else kept / f"readers-{key.hexdigest()[:32]}.safetensors"
    if path is not None and path.exists():
        # One that cannot be read is made again.
        with suppress(SafetensorError, ConfigurationError):
            return Readers.from_tensors(load_file(path))
    tensors = train_readers(
        traces,
        workshop.models.tokenizer,
        workshop.library,
        seed=READERS_SEED,
        run_steps=steps[0],
        block_steps=steps[1],
        progress=lambda what, done, total: progress(f"training the reader of {what}", done, total),
    )
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, save(tensors))
    # As the file will hold them: what is trained on them is to see the same numbers.
    return Readers.from_tensors(tensors)


def make_baseline(
    heads: Heads,
    examples: Sequence[Example],
    audited: Sequence[Audited],
    *,
    size: Size,
    seed: int,
) -> DeepSetsJudge:
    """Train the paper's verifier on the same sessions, and calibrate it on the same audits."""
    sets = [
        (one.measured.block[:, BASELINE_COLUMNS], bool(one.family))
        for one in examples
        if len(one.measured.block) and not len(one.measured.whole)
    ]
    recipe = replace(SETS, steps=max(1, round(SETS.steps * size.steps)))
    networks = fit_deep_sets(
        [rows for rows, _ in sets], [label for _, label in sets], seed=seed, recipe=recipe
    )
    honest = [one for one in audited if not one.inflated and len(one.scores)]
    values = networks.logits([one.scores for one in honest])
    return DeepSetsJudge(
        heads, networks, worst_null(list(zip(values.tolist(), honest, strict=True)))
    )


def make_heads(
    workshop: Workshop, traces: Sequence[Trace], *, size: Size, seed: int, progress: Progress
) -> Heads:
    """Train the matching heads."""
    picked = _chosen(workshop, traces, size.head_traces, seed, least_blocks=HEAD_BLOCKS)
    plans = list(training_plans(picked, seed=seed, honest=1))
    made = workshop.sessions(plans, rounds=1, what="sessions for heads", progress=progress)
    workshop.prepare(made, "embedding for heads", progress)
    return train_heads(workshop, made, seed=seed, steps=size.steps)


def make_examples(
    workshop: Workshop, traces: Sequence[Trace], heads: Heads, readers: Readers, *,
    size: Size, seed: int, progress: Progress,
) -> list[Example]:  # fmt: skip
    """Measure sessions for the detectors, each at both tiers."""
    picked = _chosen(workshop, traces, size.detector_traces, seed, least_blocks=DETECTOR_BLOCKS)
    plans = list(training_plans(picked, seed=seed))
    made = workshop.sessions(
        plans, rounds=2, whole=WHOLE, what="sessions for detectors", progress=progress
    )
    workshop.prepare(made, "embedding for detectors", progress)
    examples = []
    for number, (plan, session) in enumerate(made, 1):
        evidence = session.evidence(workshop.visible(plan.trace))
        for seen in (replace(evidence, whole_blocks=()), evidence):
            measured = measure(seen, heads, readers, workshop.models.tokenizer)
            examples.append(example(plan, session, measured))
        progress("measuring", number, len(made))
    return examples


def make_audits(  # noqa: PLR0913 - each part of a judge
    workshop: Workshop, traces: Sequence[Trace], heads: Heads, readers: Readers,
    detectors: Detectors, tier: str, *, size: Size, seed: int, progress: Progress,
) -> list[Audited]:  # fmt: skip
    """Audit sessions of the calibration questions to the end, at one tier."""
    picked = _chosen(
        workshop, traces, size.calibration_traces, seed, least_blocks=CALIBRATION_BLOCKS
    )
    plans = list(honest_plans(picked, draws=size.draws, seed=seed))
    plans += [
        plan for plan in training_plans(picked[:: size.inflated], seed=seed, honest=0)
        if plan.rate >= 0.5
    ]  # fmt: skip
    whole = WHOLE if tier == "opened" else (0,)
    staged = workshop.audits(plans, whole=whole, what=f"audits ({tier})", progress=progress)
    audited = []
    for plan, stages in staged:
        rounds = []
        for seen in stages:
            measured = measure(seen, heads, readers, workshop.models.tokenizer)
            ratios = detectors.ratios(measured)
            evidence = detectors.session_evidence(ratios, whole=len(measured.whole))
            rounds.append((evidence, len(ratios)))
            scores = measured.block[:, BASELINE_COLUMNS]
        inflated = plan.attack != "none"
        audited.append(Audited(plan.trace.domain, plan.trace.qid, inflated, rounds, scores))
    return audited


def _chosen(
    workshop: Workshop, traces: Sequence[Trace], per_question: int, seed: int, *, least_blocks: int
) -> list[Trace]:
    least = least_blocks * workshop.models.profile.block_size
    lengths = [len(workshop.library.ids(trace)) for trace in traces]
    picked = chosen(traces, lengths, least=least, per_question=per_question, seed=seed)
    questions = len({trace.qid for trace in picked})
    if questions < _LEAST_QUESTIONS:
        msg = (
            f"{questions} questions with {least} reasoning tokens or more in a part of the split; "
            f"{_LEAST_QUESTIONS} are needed in each: give traces of more questions"
        )
        raise InvalidInputError(msg)
    return picked
