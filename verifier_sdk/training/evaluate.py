"""Audit many honest and inflated sessions with a judge, and note what came of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from coin_protocol.v1 import receipt_pb2
from verifier_sdk.lab import ATTACKS, PLACEMENTS, RATES, NotApplicableError, Trace
from verifier_sdk.lab.attack import family_of
from verifier_sdk.lab.audit import WHOLE_BLOCKS, LabSession
from verifier_sdk.semantic.calibration import TIERS
from verifier_sdk.semantic.judge import OpenedEvidence
from verifier_sdk.semantic.learned import LearnedJudge
from verifier_sdk.training.honest import kinds_of
from verifier_sdk.training.results import SessionResult
from verifier_sdk.training.workshop import MAX_TOKENS, Plan, Progress, Workshop

_TRACES_AT_ONCE: Final = 24
"""Traces whose sessions are held in memory together."""

_OTHER_SIZES: Final = 0.25

_COSTLY: Final = ((0.5, "interleaved", 256), (1.0, "interleaved", 256))
"""Rates, placements and block sizes that costly attacks are played at."""

_PLAYED: Final = 256
"""Block size that lengths are counted in."""

_COSTLY_BLOCKS: Final = range(4, 9)
"""Blocks of the traces that play them: two seconds of work for each block of filler."""

_NONCANONICAL: Final = 0.005
"""Extra ids of honest sessions that sample other than canonical ids now and then."""


Observer = Callable[[SessionResult, OpenedEvidence], None]


@dataclass(frozen=True)
class Scope:
    """What is evaluated.

    Attributes:
        rates: Of inflation.
        placements: Of filler.
        block_sizes: Tokens in a full block.
        tiers: `committed`, `opened`.
        attacks: By name.
        sampled: Share of (attack, rate, placement) cells that each trace plays at the first
            block size; of the others it plays a quarter as many.
        draws: Honest sessions of each trace and block size.
        seed: Of which cells a trace plays.
        costly: Traces of four to eight blocks that play costly attacks.
    """

    rates: tuple[float, ...] = RATES
    placements: tuple[str, ...] = PLACEMENTS
    block_sizes: tuple[int, ...] = (256, 512, 1024)
    tiers: tuple[str, ...] = TIERS
    attacks: tuple[str, ...] = ()
    sampled: float = 1.0
    draws: int = 1
    seed: int = 1
    costly: int = 12


def evaluate(
    workshop: Workshop, judge: LearnedJudge, traces: Sequence[Trace], scope: Scope,
    progress: Progress, *, observe: Observer | None = None,
) -> Iterator[SessionResult]:  # fmt: skip
    """Audit sessions as a verifier would, round by round, and yield what came of each.

    Args:
        workshop: Models and library.
        judge: Decides after each round.
        traces: Of questions that the judge has not seen.
        scope: Which sessions.
        progress: Told how many traces are done.
        observe: Shown each result with all that was opened for it.
    """
    lengths = {trace: -(-len(workshop.library.ids(trace)) // _PLAYED) for trace in traces}
    able = [trace for trace in traces if lengths[trace] in _COSTLY_BLOCKS]
    playing = set(
        able[:: max(1, len(able) // scope.costly)][: scope.costly] if scope.costly else ()
    )
    for start in range(0, len(traces), _TRACES_AT_ONCE):
        progress("evaluating", start, len(traces))
        plans = [
            plan
            for trace in traces[start : start + _TRACES_AT_ONCE]
            for plan in plans_of(trace, scope, costly=trace in playing)
        ]
        for tier in scope.tiers:
            yield from _audit_all(workshop, judge, plans, tier, observe)
    progress("evaluating", len(traces), len(traces))


def plans_of(trace: Trace, scope: Scope, *, costly: bool = False) -> Iterator[Plan]:
    """Yield the sessions of one trace, and those of costly attacks if wanted."""
    rng = np.random.default_rng([scope.seed, 6, *trace.id.encode()])
    for size in scope.block_sizes:
        for draw in range(scope.draws):
            yield Plan(trace, block_size=size, draw=draw)
        for name in scope.attacks or sorted(ATTACKS):
            for placement in ATTACKS[name].placements:
                if placement not in scope.placements:
                    continue
                for rate in scope.rates:
                    # Drawn whether used or not, so that a share is a subset of all.
                    share = scope.sampled * (1.0 if size == scope.block_sizes[0] else _OTHER_SIZES)
                    wanted = rng.random() < share
                    if ATTACKS[name].costly:
                        wanted = (rate, placement, size) in _COSTLY and costly
                    if wanted:
                        yield Plan(trace, name, rate, placement, size)
    if scope.draws:
        yield Plan(trace, "finer_tokenization", _NONCANONICAL, "scattered")


@dataclass
class _Running:
    plan: Plan
    session: LabSession
    done: bool = False
    found: SessionResult | None = None
    evidence: OpenedEvidence | None = None


def _audit_all(
    workshop: Workshop, judge: LearnedJudge, plans: Sequence[Plan], tier: str,
    observe: Observer | None,
) -> Iterator[SessionResult]:  # fmt: skip
    whole = WHOLE_BLOCKS if tier == "opened" else 0
    running = []
    for plan in plans:
        try:
            running.append(_Running(plan, workshop.session(plan, whole=whole)))
        except NotApplicableError:
            continue
    for _ in range(workshop.rounds.max_rounds):
        waiting = [one for one in running if not one.done and one.session.open_round()]
        workshop.prepare([(one.plan, one.session) for one in waiting], "embedding", _quiet)
        for one in waiting:
            one.found, one.evidence = _result(workshop, judge, one, tier)
            one.done = one.found.outcome != "INCONCLUSIVE"
    for one in running:
        if one.found is not None and one.evidence is not None:
            if observe is not None:
                observe(one.found, one.evidence)
            yield one.found


def _result(
    workshop: Workshop, judge: LearnedJudge, one: _Running, tier: str
) -> tuple[SessionResult, OpenedEvidence]:
    plan, session = one.plan, one.session
    evidence = session.evidence(workshop.visible(plan.trace))
    found = judge.assess(evidence)
    outcome, _ = judge.decide(found, evidence)
    if session.forgery_opened():
        # The check WHOLE_EMBEDDING fails: vectors of another text are proof.
        outcome = receipt_pb2.OUTCOME_FAIL
        found = replace(found, p_value=1e-6, probability=1.0)
    noncanonical = plan.attack == "finer_tokenization" and plan.rate == _NONCANONICAL
    honest = plan.attack == "none" or noncanonical
    kinds = ("noncanonical_ids",) if noncanonical else kinds_of(plan.trace) if honest else ()
    own = min(len(workshop.library.ids(plan.trace)), MAX_TOKENS)
    exposure = session.ledger.exposure()
    result = SessionResult(
        attack="none" if honest else plan.attack,
        family="" if honest else family_of(ATTACKS[plan.attack], plan.placement),
        rate=0.0 if honest else plan.rate,
        placement="" if honest else plan.placement,
        block_size=plan.block_size,
        tier=tier,
        domain=plan.trace.domain,
        model=plan.trace.model,
        blocks=session.total_blocks,
        original_blocks=-(-own // plan.block_size),
        outcome=receipt_pb2.Outcome.Name(outcome).removeprefix("OUTCOME_"),
        p_value=found.p_value,
        probability=found.probability,
        share=0.0 if honest else session.reply.share,
        estimate=found.estimate.share,
        interval=found.estimate.interval,
        tokens_exposed=exposure.tokens,
        block_embeddings_exposed=exposure.block_embeddings,
        whole_blocks=exposure.whole_blocks,
        rounds=evidence.rounds,
        kinds=kinds,
        overcharge=0.0 if honest else plan.rate,
    )
    return result, evidence


def _quiet(_what: str, _done: int, _total: int) -> None:
    pass
