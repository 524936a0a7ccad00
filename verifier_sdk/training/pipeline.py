"""From traces to a judge: readers, heads, detectors, calibration, one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from coin_protocol.errors import ConfigurationError, InvalidInputError
from coin_protocol.files import replace_file
from coin_protocol.tokenizer import Tokenizer
from verifier_sdk.lab import Library, Trace, split
from verifier_sdk.lab.audit import WHOLE_BLOCKS
from verifier_sdk.semantic.aggregate import KINDS
from verifier_sdk.semantic.baseline import COLUMNS as BASELINE_COLUMNS
from verifier_sdk.semantic.baseline import DeepSetsJudge
from verifier_sdk.semantic.calibration import TIERS, Calibration
from verifier_sdk.semantic.detectors import Detectors
from verifier_sdk.semantic.heads import Heads
from verifier_sdk.semantic.learned import ANSWER_LIMIT, answer_reading
from verifier_sdk.semantic.measure import Measured, measure
from verifier_sdk.semantic.reader import Readers
from verifier_sdk.semantic.reader.block_reader import MOST
from verifier_sdk.semantic.reader.readers import FORMAT as READERS_FORMAT
from verifier_sdk.training.calibrate import Audited, calibrate, smallest_domain, worst_null
from verifier_sdk.training.deepsets import RECIPE as SETS
from verifier_sdk.training.deepsets import fit_deep_sets
from verifier_sdk.training.detectors import FOLDS, RECIPE, Example, example, train_detectors
from verifier_sdk.training.fit import numpy_on_one_thread, one_thread
from verifier_sdk.training.heads import train_heads
from verifier_sdk.training.plans import chosen, honest_plans, training_plans
from verifier_sdk.training.readers import BLOCK_STEPS, RUN_STEPS, train_readers
from verifier_sdk.training.workshop import Made, Plan, Progress, Workshop

HEAD_BLOCKS: Final = 2
DETECTOR_BLOCKS: Final = 3
CALIBRATION_BLOCKS: Final = 1
"""Blocks that a trace must fill to be used for each of them."""

DETECTOR_RATES: Final = (0.25, 0.5, 1.0, 2.0)
"""Of inflation, to train detectors: without the highest there is less to embed."""

WHOLE: Final = (WHOLE_BLOCKS, 1, 2)
"""Blocks opened whole, in turn: profiles agree to few of a short reply."""

READERS_SEED: Final = 1
"""Readers have a seed of their own, so that judges of several seeds share them."""

_READERS_RECIPE: Final = 2
"""To be raised whenever the readers or their training change: kept ones are then made again."""

_KNOWN_ANSWERS: Final = 0.85

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
    draws: int = 4
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
        answer_limit: Above which an answer's style is unknown to the reader of blocks.
    """

    readers: Readers
    heads: Heads
    detectors: Detectors
    calibrations: Mapping[str, Calibration]
    baseline: DeepSetsJudge
    questions: int
    answer_limit: float

    def tensors(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return all tensors, for a file: the readers' as float16, all others as float32."""
        found: dict[str, np.ndarray[Any, Any]] = {}
        for part in (self.readers, self.heads, self.detectors, self.baseline):
            found.update(part.tensors())
        for tier, calibration in self.calibrations.items():
            found.update(calibration.tensors(tier))
        found[ANSWER_LIMIT] = np.array([self.answer_limit], np.float32)
        return found


@numpy_on_one_thread()
def train(
    workshop: Workshop, traces: Sequence[Trace], *, size: Size, seed: int, progress: Progress,
    kept: Path | None = None, beside: AbstractContextManager[None] | None = None,
) -> Trained:  # fmt: skip
    """Train a judge on traces.

    Args:
        workshop: Models, and a library of the same traces.
        traces: Of many questions: every part of the split needs some in each domain.
        size: How much.
        seed: Of everything that is drawn.
        progress: Told what is being done.
        kept: Folder for what an interrupted run need not do again.
        beside: Entered while sessions are made and embedded, and left before the readers are
            needed, for somebody else to train them into `kept`.

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
    with beside or nullcontext():
        heads = make_heads(workshop, parts["train"], size=size, seed=seed, progress=progress)
        made = example_sessions(workshop, parts["detectors"], size, seed, progress)
        audits = {
            tier: audit_sessions(workshop, parts["calibration"], tier, size, seed, progress)
            for tier in TIERS
        }
    readers = make_readers(
        workshop.library, parts["train"], size=size, kept=kept, progress=progress
    )
    examples = measure_examples(workshop, made, heads, readers, progress)
    steps = RECIPE.scaled(size.steps).steps * len(KINDS) * (FOLDS + 1)
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        progress("training detectors", done, steps)

    detectors = train_detectors(examples, seed=seed, steps=size.steps, progress=step)
    calibrations = {}
    for tier in TIERS:
        measured = measure_audits(workshop, audits[tier], heads, readers, progress)
        audited = judge_audits(measured, detectors)
        calibrations[tier] = calibrate(audited, subjects=heads.subjects.outputs)
        if tier == TIERS[0]:
            baseline = make_baseline(heads, examples, audited, size=size, seed=seed)
            questions = smallest_domain(audited)
    limit = make_answer_limit(readers, parts["calibration"], workshop.models.tokenizer)
    return Trained(readers, heads, detectors, calibrations, baseline, questions, limit)


def make_readers(
    library: Library, traces: Sequence[Trace], *, size: Size, kept: Path | None,
    progress: Progress,
) -> Readers:  # fmt: skip
    """Train the readers, or take those that an interrupted run with the same traces made."""
    steps = (max(1, round(RUN_STEPS * size.steps)), max(1, round(BLOCK_STEPS * size.steps)))
    tokenizer = library.tokenizer.sha256.hex()
    label = json.dumps([READERS_FORMAT, _READERS_RECIPE, tokenizer, READERS_SEED, steps])
    key = sha256(label.encode())
    for trace in traces:
        key.update(sha256(f"{trace.id}\n{trace.reasoning}\n{trace.answer}".encode()).digest())
    path = None if kept is None else kept / f"readers-{key.hexdigest()[:32]}.safetensors"
    if path is not None and path.exists():
        # One that cannot be read is made again.
        with suppress(SafetensorError, ConfigurationError):
            return Readers.from_tensors(load_file(path))
    tensors = train_readers(
        traces,
        library.tokenizer,
        library,
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


@one_thread()
def make_answer_limit(readers: Readers, traces: Sequence[Trace], tokenizer: Tokenizer) -> float:
    """Return what 17 in 20 answers read below; of each question the trace that comes first."""
    answers = {trace.qid: trace.answer for trace in reversed(traces)}
    found = [
        reading
        for qid in sorted(answers)
        for ids in [np.array(tokenizer.encode(answers[qid]), np.uint32)]
        if (reading := answer_reading(readers, ids)) is not None
    ]
    return float(np.quantile(found, _KNOWN_ANSWERS)) if found else float(MOST)


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
    plans = list(honest_plans(picked, draws=1, terse=0))
    made = workshop.sessions(plans, rounds=1, what="sessions for heads", progress=progress)
    workshop.prepare(made, "embedding for heads", progress)
    return train_heads(workshop, made, picked, seed=seed, steps=size.steps, progress=progress)


def example_sessions(
    workshop: Workshop, traces: Sequence[Trace], size: Size, seed: int, progress: Progress
) -> list[Made]:
    """Make and embed sessions for the detectors."""
    picked = _chosen(workshop, traces, size.detector_traces, seed, least_blocks=DETECTOR_BLOCKS)
    plans = list(training_plans(picked, seed=seed, rates=DETECTOR_RATES))
    made = workshop.sessions(
        plans, rounds=2, whole=WHOLE, what="sessions for detectors", progress=progress
    )
    workshop.prepare(made, "embedding for detectors", progress)
    return made


@one_thread()
def measure_examples(
    workshop: Workshop, made: Sequence[Made], heads: Heads, readers: Readers, progress: Progress
) -> list[Example]:
    """Measure sessions for the detectors, each at both tiers."""
    examples = []
    for number, (plan, session) in enumerate(made, 1):
        evidence = session.evidence(workshop.visible(plan.trace))
        for seen in (replace(evidence, whole_blocks=()), evidence):
            measured = measure(seen, heads, readers, workshop.models.tokenizer)
            examples.append(example(plan, session, measured))
        progress("measuring", number, len(made))
    return examples


def audit_sessions(
    workshop: Workshop, traces: Sequence[Trace], tier: str, size: Size, seed: int,
    progress: Progress,
) -> list[Made]:  # fmt: skip
    """Make and embed audits of the calibration questions, to the last round, at one tier."""
    picked = _chosen(
        workshop, traces, size.calibration_traces, seed, least_blocks=CALIBRATION_BLOCKS
    )
    plans = list(honest_plans(picked, draws=size.draws))
    plans += [
        plan
        for plan in training_plans(picked[:: size.inflated], seed=seed, honest=0, terse=0)
        if plan.rate >= 0.5
    ]
    made = workshop.sessions(
        plans, rounds=workshop.rounds.max_rounds, whole=WHOLE if tier == "opened" else (0,),
        what=f"audits ({tier})", progress=progress,
    )  # fmt: skip
    workshop.prepare(made, f"embedding for audits ({tier})", progress)
    return made


@one_thread()
def measure_audits(
    workshop: Workshop, made: Sequence[Made], heads: Heads, readers: Readers, progress: Progress
) -> list[tuple[Plan, list[Measured]]]:
    """Measure audits after each of their rounds."""
    found = []
    for number, (plan, session) in enumerate(made, 1):
        stages = workshop.stages(plan, session)
        tokenizer = workshop.models.tokenizer
        found.append((plan, [measure(seen, heads, readers, tokenizer) for seen in stages]))
        progress("measuring audits", number, len(made))
    return found


def judge_audits(
    found: Sequence[tuple[Plan, list[Measured]]], detectors: Detectors
) -> list[Audited]:
    """Return what the detectors make of measured audits."""
    audited = []
    for plan, stages in found:
        ratios = [detectors.ratios(measured) for measured in stages]
        audited.append(
            Audited(
                domain=plan.trace.domain,
                qid=plan.trace.qid,
                block_size=plan.block_size,
                code=stages[-1].code,
                subject=stages[-1].subject,
                inflated=plan.attack != "none",
                rounds=[(detectors.session_evidence(one), len(one)) for one in ratios],
                scores=stages[-1].block[:, BASELINE_COLUMNS],
            )
        )
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
