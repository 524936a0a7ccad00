"""Hypothesis strategies: plans of honest audits, and audits with one thing broken.

    @given(mutated())
    def test_my_verifier_catches_what_is_broken(sample: tuple[Mutation, Case]) -> None:
        mutation, case = sample
        assert my_verifier(case).failed == mutation.code

Needs `hypothesis` (extra `testing`).
"""

from __future__ import annotations

from typing import Final

from hypothesis import assume
from hypothesis import strategies as st

from coin_protocol.checks import Case
from coin_protocol.testing.mutations import MUTATIONS, Mutation, Plan, Step, mutations_of
from coin_protocol.usage import BESIDE, INSIDE
from coin_protocol.v1 import statements_pb2

_MOST_TOKENS: Final = 72
_MOST_BLOCKS: Final = 17
_BLOCK_SIZES: Final = (8, 4, 16, 7, 3, 12, 2, 1)
_ENDS: Final = (
    statements_pb2.ABORT_REASON_UNSPECIFIED,
    statements_pb2.ABORT_REASON_UPSTREAM_ERROR,
    statements_pb2.ABORT_REASON_CANCELLED,
    statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED,
)
_SHARES: Final = (1_000_000, 800_000, 600_000, 300_000, 0)
_SOURCES: Final = (statements_pb2.ID_SOURCE_SAMPLED, statements_pb2.ID_SOURCE_RETOKENIZED)


def sizes(block_size: int) -> st.SearchStrategy[int]:
    """Return numbers of tokens, often such at which a tree or its last block changes shape."""
    most = min(_MOST_TOKENS, _MOST_BLOCKS * block_size)
    powers = [1 << bits for bits in range(8)]
    turns = {0, 1, block_size, *powers, *(power * block_size for power in powers)}
    edges = sorted({turn + by for turn in turns for by in (-1, 0, 1) if 0 <= turn + by <= most})
    return st.integers(most // 3, most) | st.sampled_from(edges)


def steps() -> st.SearchStrategy[Step]:
    """Return challenges of either kind: small ones, and ones for all there is."""
    few, tokens = st.integers(1, 3), st.sampled_from([2, 3, 4, 6, 1])
    return st.one_of(
        st.builds(Step, blocks=few, token_blocks=st.integers(0, 3), tokens_per_block=tokens),
        st.builds(Step, blocks=st.just(0), token_blocks=few, tokens_per_block=tokens),
        st.builds(Step, blocks=few, tokens_per_block=st.just(0)),
        st.builds(
            Step,
            blocks=st.integers(1, 20),
            token_blocks=st.integers(0, 20),
            tokens_per_block=st.integers(1, 20),
        ),
        st.builds(Step, blocks=st.integers(1, 4), whole=st.just(value=True)),
        st.builds(Step, blocks=st.just(1), whole=st.just(value=True)),
    )


def _usually() -> st.SearchStrategy[bool]:
    return st.integers(0, 9).map(lambda number: number < 9)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Return plans of honest audits: any size, any profile of the small models, any questions."""
    block_size = draw(st.sampled_from(_BLOCK_SIZES))
    tokens = draw(sizes(block_size))
    ready = draw(_usually())
    manifest = draw(_usually())
    asked = draw(st.sampled_from([2, 3, 4, 1, 0])) if tokens and ready and manifest else 0
    return Plan(
        seed=draw(st.sampled_from(["world", "another world", "a third world"])),
        tokens=tokens,
        block_size=block_size,
        window_tokens=draw(st.integers(1, block_size)),
        run_tokens=min(block_size, draw(st.sampled_from([0, 2, 3, 4]))),
        projection=draw(st.sampled_from([0, 6])),
        tokens_ppm=draw(st.sampled_from(_SHARES)),
        blocks_ppm=draw(st.sampled_from(_SHARES)),
        whole_blocks_ppm=draw(st.sampled_from(_SHARES)),
        counting=draw(st.sampled_from([INSIDE, BESIDE])),
        id_source=draw(st.sampled_from(_SOURCES)),
        abort_reason=draw(st.sampled_from(_ENDS)),
        summary=draw(st.booleans()),
        told=draw(_usually()),
        misses=draw(st.sampled_from([0, 0, 0, 2, 3, 1])),
        ready=ready,
        manifest=manifest,
        installed=draw(_usually()),
        steps=tuple(draw(steps()) for _ in range(asked)),
    )


@st.composite
def mutated(draw: st.DrawFn, code: str | None = None) -> tuple[Mutation, Case]:
    """Return audits with one thing broken, and what is: the check `code` must catch it.

    Args:
        draw: Hypothesis gives it.
        code: Of the check; of any where it is None.
    """
    plan = draw(plans())
    wanted = MUTATIONS if code is None else mutations_of(code)
    fitting = [mutation for mutation in wanted if mutation.applies(plan)]
    assume(fitting)
    mutation = draw(st.sampled_from(fitting))
    return mutation, mutation.make(plan, draw(st.randoms(use_true_random=False)))
