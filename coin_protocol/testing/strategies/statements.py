"""Statements by themselves: each is well formed, adds up, and belongs to no others.

Those that belong together come from `world`; what challenges open comes from `opened`.
"""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from coin_protocol.checks import CHECKS
from coin_protocol.keyset import stamp
from coin_protocol.limits import (
    CHALLENGE_NONCE_BYTES,
    MAX_BLOCKS,
    MAX_REASONING_TOKENS,
    MAX_ROUNDS,
)
from coin_protocol.merkle import EMPTY_ROOT
from coin_protocol.testing.strategies.values import (
    COUNTS,
    EARLIEST,
    LATEST,
    Ints,
    client_nonces,
    digests,
    names,
    session_ids,
    sizes,
    times,
    timestamps,
)
from coin_protocol.usage import BESIDE, INSIDE, usage_for
from coin_protocol.v1 import opening_pb2, receipt_pb2
from coin_protocol.v1 import statements_pb2 as pb

BLOCK_SIZE: Final = 256
"""Of the profile that ships."""

Countings = SearchStrategy[pb.ReasoningCounting.ValueType] | None
IdSources = SearchStrategy[pb.IdSource.ValueType] | None
AbortReasons = SearchStrategy[pb.AbortReason.ValueType] | None

ID_SOURCES: Final = st.sampled_from((pb.ID_SOURCE_SAMPLED, pb.ID_SOURCE_RETOKENIZED))
COUNTINGS: Final = st.sampled_from((INSIDE, BESIDE))
_SOME: Final = st.integers(0, 4) | st.integers(0, MAX_BLOCKS)


@st.composite
def usages(
    draw: st.DrawFn,
    *,
    reasoning_tokens: Ints = None,
    answer_tokens: Ints = None,
    prompt_tokens: Ints = None,
    counting: Countings = None,
) -> pb.Usage:
    """Draw usage blocks that add up.

    Args:
        draw: Of Hypothesis.
        reasoning_tokens: Billed.
        answer_tokens: Every other generated token.
        prompt_tokens: Cached ones included.
        counting: Whether completion tokens contain reasoning.
    """
    prompt = draw(COUNTS if prompt_tokens is None else prompt_tokens)
    return usage_for(
        prompt_tokens=prompt,
        cached_prompt_tokens=draw(st.integers(0, prompt)),
        reasoning_tokens=draw(COUNTS if reasoning_tokens is None else reasoning_tokens),
        answer_tokens=draw(COUNTS if answer_tokens is None else answer_tokens),
        counting=draw(COUNTINGS if counting is None else counting),
    )


def abort_reasons(
    *, reasoning_tokens: int, block_size: int
) -> SearchStrategy[pb.AbortReason.ValueType]:
    """Return a strategy of why a reply ended; the simplest is that it is whole.

    Args:
        reasoning_tokens: Committed. A process that died leaves full blocks alone.
        block_size: Of the profile.
    """
    reasons = list(pb.AbortReason.values())
    if reasoning_tokens % block_size:
        reasons.remove(pb.ABORT_REASON_CRASHED)
    return st.sampled_from(reasons)


@st.composite
def commitments(
    draw: st.DrawFn,
    *,
    reasoning_tokens: Ints = None,
    block_size: int = BLOCK_SIZE,
    provider: SearchStrategy[str] | None = None,
    id_source: IdSources = None,
    counting: Countings = None,
    abort_reason: AbortReasons = None,
    latest: datetime = LATEST,
) -> pb.Commitment:
    """Draw commitments of any size, with a bill that is right.

    Args:
        draw: Of Hypothesis.
        reasoning_tokens: Committed and billed; awkward sizes up to 2^24 by default.
        block_size: Of the profile.
        provider: Its name.
        id_source: Whether ids are as sampled.
        counting: Whether completion tokens contain reasoning.
        abort_reason: Why it ended. Give only full blocks where that is a crash.
        latest: When it may have ended.
    """
    most = min(MAX_REASONING_TOKENS, MAX_BLOCKS * block_size)
    tokens = draw(sizes(block_size, most) if reasoning_tokens is None else reasoning_tokens)
    reasons = abort_reasons(reasoning_tokens=tokens, block_size=block_size)
    reason = draw(reasons if abort_reason is None else abort_reason)
    crashed = reason == pb.ABORT_REASON_CRASHED
    billed = st.integers(0, 0 if crashed else MAX_REASONING_TOKENS)
    answer_tokens = draw(billed)
    started_at = draw(times(most=latest))
    ended_at = draw(times(least=started_at, most=latest))
    return pb.Commitment(
        profile_sha256=draw(digests()),
        provider=draw(names() if provider is None else provider),
        model=draw(names()),
        session_id=draw(session_ids()),
        client_nonce=draw(client_nonces()),
        request_sha256=draw(digests()),
        answer_sha256=sha256(b"").digest() if crashed else draw(digests()),
        summary_sha256=draw(st.none() | digests()),
        token_root=draw(digests()) if tokens else EMPTY_ROOT,
        block_count=-(-tokens // block_size),
        reasoning_tokens=tokens,
        answer_tokens=answer_tokens,
        id_source=draw(ID_SOURCES if id_source is None else id_source),
        usage=draw(
            usages(
                reasoning_tokens=st.just(tokens),
                answer_tokens=st.just(answer_tokens),
                prompt_tokens=billed,
                counting=counting,
            )
        ),
        flip_anchor=draw(digests()),
        started_at=stamp(started_at),
        ended_at=stamp(ended_at),
        abort_reason=reason,
        answers_until=draw(st.none() | timestamps(least=ended_at)),
    )


@st.composite
def checkpoints(
    draw: st.DrawFn, *, block_count: Ints = None, block_size: int = BLOCK_SIZE
) -> pb.Checkpoint:
    """Draw checkpoints.

    Args:
        draw: Of Hypothesis.
        block_count: Full blocks so far, one at least.
        block_size: Of the profile.
    """
    most = min(MAX_BLOCKS, MAX_REASONING_TOKENS // block_size)
    blocks = draw(sizes(1, most, least=1) if block_count is None else block_count)
    return pb.Checkpoint(
        session_id=draw(session_ids()),
        profile_sha256=draw(digests()),
        client_nonce=draw(client_nonces()),
        block_count=blocks,
        token_count=blocks * block_size,
        token_root=draw(digests()),
        provider_time=draw(timestamps()),
    )


@st.composite
def fingerprints(draw: st.DrawFn, *, size: Ints = None) -> pb.Fingerprints:
    """Draw fingerprints statements.

    Args:
        draw: Of Hypothesis.
        size: Blocks of the commitment.
    """
    blocks = draw(sizes(1, MAX_BLOCKS) if size is None else size)
    return pb.Fingerprints(
        commitment_sha256=draw(digests()),
        fingerprint_root=draw(digests()) if blocks else EMPTY_ROOT,
        size=blocks,
        provider_time=draw(timestamps()),
    )


@st.composite
def manifests(
    draw: st.DrawFn, *, reasoning_tokens: Ints = None, block_size: int = 8
) -> pb.Manifest:
    """Draw manifests, each block's root another one.

    Args:
        draw: Of Hypothesis.
        reasoning_tokens: In all blocks; awkward sizes up to 33 blocks by default.
        block_size: Of the profile.
    """
    tokens = draw(
        sizes(block_size, 33 * block_size) if reasoning_tokens is None else reasoning_tokens
    )
    full, rest = divmod(tokens, block_size)
    seed = draw(digests())
    return pb.Manifest(
        commitment_sha256=draw(digests()),
        blocks=[
            pb.BlockEntry(token_count=count, token_root=sha256(b"%d " % index + seed).digest())
            for index, count in enumerate([block_size] * full + [rest] * (rest > 0))
        ],
        provider_time=draw(timestamps()),
    )


@st.composite
def challenges(
    draw: st.DrawFn,
    *,
    verifier: SearchStrategy[str] | None = None,
    blocks: Ints = None,
    token_blocks: Ints = None,
    tokens_per_block: Ints = None,
) -> opening_pb2.Challenge:
    """Draw challenges; they draw something.

    Args:
        draw: Of Hypothesis.
        verifier: Its name.
        blocks: Opened with their embedding.
        token_blocks: Opened for tokens alone; one at least by default, where `blocks` is 0.
        tokens_per_block: In each; one at least where there are token blocks.
    """
    with_embedding = draw(_SOME if blocks is None else blocks)
    least = st.integers(0 if with_embedding else 1, MAX_BLOCKS)
    of_tokens = draw(least if token_blocks is None else token_blocks)
    each = st.integers(1 if of_tokens else 0, MAX_REASONING_TOKENS)
    return opening_pb2.Challenge(
        fingerprints_sha256=draw(digests()),
        verifier=draw(names() if verifier is None else verifier),
        nonce=draw(st.binary(min_size=CHALLENGE_NONCE_BYTES, max_size=CHALLENGE_NONCE_BYTES)),
        round=draw(st.integers(1, MAX_ROUNDS)),
        blocks=with_embedding,
        token_blocks=of_tokens,
        tokens_per_block=draw(each if tokens_per_block is None else tokens_per_block),
        deadline=draw(timestamps()),
    )


@st.composite
def whole_challenges(
    draw: st.DrawFn, *, verifier: SearchStrategy[str] | None = None, blocks: Ints = None
) -> opening_pb2.WholeBlockChallenge:
    """Draw whole-block challenges.

    Args:
        draw: Of Hypothesis.
        verifier: Its name.
        blocks: To be opened whole, one at least.
    """
    return opening_pb2.WholeBlockChallenge(
        fingerprints_sha256=draw(digests()),
        verifier=draw(names() if verifier is None else verifier),
        nonce=draw(st.binary(min_size=CHALLENGE_NONCE_BYTES, max_size=CHALLENGE_NONCE_BYTES)),
        round=draw(st.integers(1, MAX_ROUNDS)),
        blocks=draw(st.integers(1, MAX_BLOCKS) if blocks is None else blocks),
        deadline=draw(timestamps()),
    )


TIERS: Final = (
    receipt_pb2.TIER_ASSERTED,
    receipt_pb2.TIER_COMMITTED,
    receipt_pb2.TIER_TIMED,
    receipt_pb2.TIER_OPENED,
)
"""Those that are built."""

_SCORES: Final = st.builds(
    receipt_pb2.Score,
    name=st.text(max_size=16),
    block_index=st.integers(0, 40),
    value=st.floats(-1, 1),
)


@st.composite
def judged(draw: st.DrawFn, verdict: receipt_pb2.Verdict, *, scored: bool) -> receipt_pb2.Verdict:
    """Draw what a judge and people add to a verdict; the evidence does not give it.

    Args:
        draw: Of Hypothesis.
        verdict: Is added to.
        scored: Whether there is one score at least.
    """
    verdict.scores.extend(draw(st.lists(_SCORES, min_size=int(scored), max_size=3)))
    verdict.reasons.extend(draw(st.lists(st.text(max_size=24), max_size=2)))
    if draw(st.booleans()):
        verdict.inflation_probability = draw(st.floats(0, 1))
        low = draw(st.floats(0, 1))
        verdict.inflated_share.CopyFrom(
            receipt_pb2.ShareInterval(low=low, high=draw(st.floats(low, 1)))
        )
    return verdict


@st.composite
def verdicts(
    draw: st.DrawFn,
    *,
    verifier: SearchStrategy[str] | None = None,
    outcome: SearchStrategy[receipt_pb2.Outcome.ValueType] | None = None,
) -> receipt_pb2.Verdict:
    """Draw verdicts of any outcome, consistent in themselves.

    Those that an audit bears out come in `decided`.

    Args:
        draw: Of Hypothesis.
        verifier: Its name.
        outcome: What it says.
    """
    said = draw(st.sampled_from(receipt_pb2.Outcome.values()[1:]) if outcome is None else outcome)
    failed = said == receipt_pb2.OUTCOME_FAIL
    # Where no check failed a judge accuses, which takes what was opened.
    at = draw(st.integers(0, len(CHECKS) - 1)) if failed and draw(st.booleans()) else None
    tiers = TIERS[: draw(st.integers(1 if said != receipt_pb2.OUTCOME_PASS else 2, len(TIERS)))]
    tokens, blocks = draw(st.integers(0, 100)), draw(st.integers(0, 40))
    verdict = receipt_pb2.Verdict(
        commitment_sha256=draw(digests()),
        profile_sha256=draw(digests()),
        policy_sha256=draw(digests()),
        verifier=draw(names() if verifier is None else verifier),
        outcome=said,
        tier=tiers[-1],
        tiers=tiers,
        fault=receipt_pb2.FAULT_UNSPECIFIED if not failed else receipt_pb2.FAULT_PROVIDER,
        checks=[
            receipt_pb2.CheckResult(
                code=check.code,
                status=(
                    receipt_pb2.CHECK_STATUS_PASSED
                    if at is None or place < at
                    else receipt_pb2.CHECK_STATUS_FAILED
                    if place == at
                    else receipt_pb2.CHECK_STATUS_SKIPPED
                ),
            )
            for place, check in enumerate(CHECKS)
        ],
        exposure=receipt_pb2.Exposure(
            tokens=tokens, block_embeddings=blocks, whole_blocks=draw(st.integers(0, blocks))
        ),
        id_source=draw(ID_SOURCES),
        decided_at=draw(timestamps(EARLIEST, LATEST)),
        abort_reason=draw(st.sampled_from(pb.AbortReason.values())),
    )
    return draw(judged(verdict, scored=failed and at is None))
