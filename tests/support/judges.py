"""Small judges with random weights, and evidence out of simulated audits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from coin_protocol.embedding import embed_texts, project, unit
from coin_protocol.profile import Policy, Profile
from coin_protocol.quantise import dequantise
from coin_protocol.testing.profiles import default_policy, rules_policy
from coin_protocol.testing.small import DIMENSION, SmallEmbedder
from coin_protocol.v1 import profile_pb2
from tests.support.laboratory import profile, table, tokenizer, traces
from verifier_sdk.lab import Trace
from verifier_sdk.lab.attack import Attacked, Ids
from verifier_sdk.lab.audit import LabSession, Space
from verifier_sdk.semantic.aggregate import EXTREMES, KINDS, SESSION_COLUMNS, Ratios
from verifier_sdk.semantic.calibration import (
    GROUPS,
    LEAST_QUESTIONS,
    SIZES,
    TIERS,
    Calibration,
    Null,
)
from verifier_sdk.semantic.copies import COPY_INPUTS
from verifier_sdk.semantic.detectors import Detectors
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.heads import PAIR_HEADS, UNKNOWN_SUBJECT, Heads
from verifier_sdk.semantic.judge import OpenedEvidence, Visible, VisibleText
from verifier_sdk.semantic.learned import ANSWER_LIMIT, LearnedJudge
from verifier_sdk.semantic.measure import BLOCK_COLUMNS, TOKEN_COLUMNS, WHOLE_COLUMNS
from verifier_sdk.semantic.mlp import Mlp
from verifier_sdk.semantic.model_file import ModelFile, rounds_of, space_of
from verifier_sdk.semantic.reader import (
    BlockNet,
    BlockReader,
    Readers,
    RunNet,
    RunReader,
    Vocabulary,
)

Floats = npt.NDArray[np.float32]

SPACE = 12
"""Numbers in a committed vector of the laboratory's profile."""

SUBJECTS = 3
"""That prompts are told apart by."""

WIDTHS = dict(zip(KINDS, (len(BLOCK_COLUMNS), len(TOKEN_COLUMNS), len(WHOLE_COLUMNS)), strict=True))


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> Floats:
    """Return normal random numbers."""
    rng = np.random.default_rng([seed, *shape])
    return (scale * rng.normal(size=shape)).astype(np.float32)


def units(*shape: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """Return random unit vectors, float64."""
    return unit(numbers(*shape, seed=seed).astype(np.float64))


def mlp(inputs: int, outputs: int, *, hidden: int = 6, seed: int = 0) -> Mlp:
    """Return a random network."""
    first = numbers(inputs, hidden, seed=seed, scale=inputs**-0.5)
    second = numbers(hidden, outputs, seed=seed + 1)
    return Mlp(
        numbers(inputs, seed=seed + 2, scale=0.1),
        np.abs(numbers(inputs, seed=seed + 3)) + np.float32(0.5),
        ((first, numbers(hidden, seed=seed)), (second, numbers(outputs, seed=seed))),
    )


def heads(dimension: int = SPACE, *, seed: int = 0) -> Heads:
    """Return random matching heads."""
    return Heads(
        {name: mlp(1 + 2 * dimension, 1, seed=seed + at) for at, name in enumerate(PAIR_HEADS)},
        mlp(COPY_INPUTS, 1, seed=seed + 10),
        mlp(dimension, SUBJECTS, seed=seed + 11),
    )


@cache
def readers() -> Readers:
    """Return random readers, as small as they go."""
    ids = [np.array(tokenizer().encode(one.reasoning), np.uint32) for one in traces()]
    vocabulary = Vocabulary.counted(ids, size=400, bits=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        runs = RunNet(vocabulary.rows, width=4, hidden=8)
        blocks = BlockNet(vocabulary.rows, embedding=4, width=8)
        torch.nn.init.normal_(blocks.pool)
    found = Readers(vocabulary, RunReader(vocabulary, runs), BlockReader(vocabulary, blocks))
    # Rounded, as a file holds them.
    return Readers.from_tensors(found.tensors())


def detectors(*, seed: int = 0) -> Detectors:
    """Return random detectors."""
    return Detectors(
        {kind: mlp(width, len(FAMILIES), seed=seed) for kind, width in WIDTHS.items()},
        {
            family: mlp(len(SESSION_COLUMNS), 1, seed=seed + at)
            for at, family in enumerate(FAMILIES)
        },
    )


def calibration(*, seed: int = 0, sessions: int = 200) -> Calibration:
    """Return a calibration on random honest sessions."""
    rng = np.random.default_rng(seed)

    def null(scale: float) -> Null:
        return Null.of(scale * rng.gamma(2.0, size=sessions), np.ones(sessions))

    return Calibration(
        tuple(
            tuple(tuple(null(3.0) for _ in FAMILIES) for _ in range(GROUPS)) for _ in range(SIZES)
        ),
        np.full(len(FAMILIES), 1 / len(FAMILIES), np.float32),
        tuple(null(2.0) for _ in range(SIZES)),
        null(1.0).scaled(0.5),
        null(1.5),
        np.array([[0.0, 4.0, 8.0], [-3.0, 0.0, 5.0]], np.float32),
        np.full(1 + SUBJECTS, LEAST_QUESTIONS, np.float32),
        tuple(null(1.0 + 0.1 * number) for number in range(SUBJECTS)),
    )


def session_ratios(
    values: Floats,
    *,
    whole: int = 0,
    tokens: int = 0,
    block_size: int = 256,
    code: bool = False,
    subject: int = UNKNOWN_SUBJECT,
) -> Ratios:
    """Return ratios of blocks, the last so many opened whole, those before by tokens alone."""
    counts = (len(values) - tokens - whole, tokens, whole)
    kinds = np.repeat(np.arange(len(KINDS)), counts)
    return Ratios(values, kinds, numbers(len(EXTREMES)), block_size, code, subject)


def learned_rules() -> profile_pb2.LearnedRules:
    """Return the default policy's rules for a learned judge."""
    return default_policy().learned_rules


def judge(dimension: int = SPACE) -> LearnedJudge:
    """Return a judge that knows nothing."""
    return LearnedJudge(
        heads(dimension), readers(), detectors(), {tier: calibration() for tier in TIERS},
        tokenizer(), learned_rules(), answer_limit=12.0,
    )  # fmt: skip


def accusing(**evidence: float) -> LearnedJudge:
    """Return a judge that finds so much evidence for these families, and none for others.

    It compares with honest sessions as a whole, that have 25 at most.
    """
    sessions = {}
    for family in FAMILIES:
        inputs = len(SESSION_COLUMNS)
        logit = np.array([evidence.get(family, -50.0)], np.float32)
        nothing = np.zeros((inputs, 1), np.float32)
        sessions[family] = Mlp(
            np.zeros(inputs, np.float32), np.ones(inputs, np.float32), ((nothing, logit),)
        )
    nobody = Null(np.zeros(1, np.float32), np.full(1, 1e-9, np.float32))
    combined = (Null.of(np.linspace(0.0, 3.0, 200), np.ones(200)),) * SIZES
    among = replace(calibration(), combined=combined, subjects=(), domains=nobody, code=nobody)
    return replace(
        judge(),
        detectors=replace(detectors(), sessions=sessions),
        calibrations=dict.fromkeys(TIERS, among),
    )


def tensors_of(found: LearnedJudge) -> dict[str, npt.NDArray[np.generic]]:
    """Return all tensors of a judge."""
    tensors: dict[str, npt.NDArray[np.generic]] = dict(found.readers.tensors())
    tensors.update(found.heads.tensors())
    tensors.update(found.detectors.tensors())
    for tier, one in found.calibrations.items():
        tensors.update(one.tensors(tier))
    tensors[ANSWER_LIMIT] = np.array([found.answer_limit], np.float32)
    return tensors


def write_model(path: Path, of: Profile | None = None) -> ModelFile:
    """Write a model file of the judge that knows nothing, for a profile and `rounds`."""
    header = space_of((of or profile()).message) | {"rounds": rounds_of(rounds())}
    return ModelFile.write(path, tensors_of(judge(int(header["dimension"]))), header)


def policy_naming(*digests: bytes) -> Policy:
    """Return the default policy, naming judges with these digests."""
    message = default_policy()
    del message.semantic_model_sha256[:]
    message.semantic_model_sha256.extend(digests)
    return Policy.from_bytes(message.SerializeToString(deterministic=True))


# Simulated audits


def space(of: Profile | None = None) -> Space:
    """Return the laboratory's space under a profile."""
    message = (of or profile()).message
    spec = message.embedding

    def windows(texts: Sequence[str]) -> npt.NDArray[np.float64]:
        return project(spec, embed_texts(SmallEmbedder(), texts))

    def rows(ids: Ids) -> npt.NDArray[np.float64]:
        raw = [table().row(token) for token in ids.tolist()]
        return unit(project(spec, dequantise(raw, DIMENSION)))

    return Space(message, tokenizer(), windows, rows)


def rounds() -> profile_pb2.RoundPlan:
    """Return the default policy's plan."""
    return rules_policy().rounds


def session(
    ids: Ids,
    *,
    of: Profile | None = None,
    plan: profile_pb2.RoundPlan | None = None,
    whole: int = 0,
    seed: bytes = b"seed",
) -> LabSession:
    """Return the session of an honest reply; nothing is opened yet."""
    reply = Attacked(ids, np.zeros(len(ids), np.bool_))
    return LabSession(reply, space(of), plan or rounds(), sha256(seed).digest(), whole=whole)


def visible(trace: Trace, summary: str = "") -> Visible:
    """Return what the client saw of a trace."""

    def text(shown: str) -> VisibleText | None:
        spec = profile().message.embedding
        return VisibleText.of(shown, spec, tokenizer(), SmallEmbedder())

    return Visible(text(trace.question), text(trace.answer), text(summary))


def evidence(trace: Trace, *, whole: int = 0, opened: int = 2, summary: str = "") -> OpenedEvidence:
    """Return what some rounds open of an honest trace."""
    ids = np.array(tokenizer().encode(trace.reasoning), np.uint32)
    made = session(ids, whole=whole, seed=trace.id.encode())
    while len(made.drawn) < opened and made.open_round():
        pass
    return made.evidence(visible(trace, summary))
