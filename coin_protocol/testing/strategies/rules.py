"""What is agreed before a reply: profiles, policies, exposure caps."""

from __future__ import annotations

from typing import Final

from google.protobuf.duration_pb2 import Duration
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from coin_protocol.exposure import Caps
from coin_protocol.keys import ECDSA_P256, ED25519
from coin_protocol.limits import (
    FLIP_CHAIN_LENGTH,
    MAX_BLOCK_SIZE,
    MAX_EMBEDDING_DIMENSION,
    MAX_VOCABULARY,
)
from coin_protocol.profile import Policy, Profile
from coin_protocol.testing.small import DIMENSION, small_profile
from coin_protocol.testing.strategies.traces import BLOCK_SIZES
from coin_protocol.testing.strategies.values import Ints, digests, names
from coin_protocol.v1 import keys_pb2
from coin_protocol.v1 import profile_pb2 as pb

_MILLION: Final = 1_000_000
_DAY: Final = 86_400
_SHARES: Final = st.sampled_from((_MILLION, 500_000, 40_000, 0)) | st.integers(0, _MILLION)
"""The simplest share is all: nothing is refused then."""

_ALGORITHMS: Final = st.sampled_from(
    ((ED25519,), (ED25519, ECDSA_P256), (ECDSA_P256, ED25519), (ECDSA_P256,))
)
_UNIT: Final = st.floats(0, 1)
_SIGNED_UNIT: Final = st.floats(-1, 1)
_RATES: Final = st.floats(1e-300, 1e300)
"""Tokens a second."""


@st.composite
def exposure_caps(
    draw: st.DrawFn, *, shares: Ints = None, run_tokens: Ints = None
) -> pb.ExposureCaps:
    """Draw exposure caps.

    Args:
        draw: Of Hypothesis.
        shares: Parts per million of tokens, of blocks and of whole blocks, each by itself.
        run_tokens: At most the block's size.
    """
    shares = _SHARES if shares is None else shares
    return pb.ExposureCaps(
        tokens_ppm=draw(shares),
        blocks_ppm=draw(shares),
        whole_blocks_ppm=draw(shares),
        min_tokens=draw(st.integers(0, 16)),
        min_blocks=draw(st.integers(0, 4)),
        run_tokens=draw(st.integers(0, 1) if run_tokens is None else run_tokens),
    )


@st.composite
def caps(draw: st.DrawFn) -> Caps:
    """Draw the caps of some commitment."""
    tokens, size = draw(st.integers(0, 1 << 24)), draw(st.integers(1, MAX_BLOCK_SIZE))
    agreed = draw(exposure_caps(run_tokens=st.integers(0, size)))
    return Caps.of(agreed, tokens=tokens, blocks=-(-tokens // size))


@st.composite
def profiles(
    draw: st.DrawFn,
    *,
    block_size: Ints = None,
    shares: Ints = None,
    run_tokens: Ints = None,
    algorithms: SearchStrategy[tuple[keys_pb2.KeyAlgorithm.ValueType, ...]] | None = None,
) -> Profile:
    """Draw profiles that the models of `coin_protocol.testing.small` serve.

    Args:
        draw: Of Hypothesis.
        block_size: Of at most 16 tokens by default.
        shares: As of `exposure_caps`.
        run_tokens: At most the block's size.
        algorithms: Of the provider's keys.
    """
    size = draw(BLOCK_SIZES if block_size is None else block_size)
    message = pb.Profile()
    message.CopyFrom(
        small_profile(
            block_size=size,
            window_tokens=draw(st.integers(1, size)),
            projection=draw(st.sampled_from((0, 6, 1, DIMENSION))),
        ).message
    )
    runs = st.integers(0, size) if run_tokens is None else run_tokens
    message.caps.CopyFrom(draw(exposure_caps(shares=shares, run_tokens=runs)))
    used = draw(_ALGORITHMS if algorithms is None else algorithms)
    message.key_algorithms[:] = used
    return Profile.from_bytes(message.SerializeToString(deterministic=True))


@st.composite
def profile_messages(draw: st.DrawFn) -> pb.Profile:
    """Draw well-formed profiles of models that nobody has."""
    size = draw(st.integers(1, MAX_BLOCK_SIZE))
    projection = st.builds(pb.Projection, seed=digests(), dimension=st.integers(1, 1 << 13))
    return pb.Profile(
        name=draw(names()),
        hash=pb.HASH_ALGORITHM_SHA256,
        key_algorithms=draw(_ALGORITHMS),
        block_size=size,
        tokenizer=pb.TokenizerSpec(
            name=draw(names()),
            sha256=draw(digests()),
            vocabulary_size=draw(st.integers(1, MAX_VOCABULARY)),
            token_table_root=draw(digests()),
        ),
        embedding=pb.EmbeddingSpec(
            name=draw(names()),
            dimension=draw(st.integers(1, MAX_EMBEDDING_DIMENSION)),
            weights_sha256=draw(digests()),
            tokenizer_sha256=draw(digests()),
            precision=pb.PRECISION_FLOAT64,
            quantisation=pb.QUANTISATION_INT8_SYMMETRIC,
            max_pieces=draw(st.integers(3, 1 << 20)),
            window_tokens=draw(st.integers(1, size)),
            projection=draw(st.none() | projection),
        ),
        caps=draw(exposure_caps(run_tokens=st.integers(0, size))),
    )


@st.composite
def _durations(draw: st.DrawFn, least: int) -> Duration:
    return Duration(seconds=draw(st.integers(least, _DAY)), nanos=draw(st.integers(0, 999_999_999)))


@st.composite
def _learned_rules(draw: st.DrawFn) -> pb.LearnedRules:
    guard = draw(st.floats(1e-6, 1))
    return pb.LearnedRules(
        false_alarms=draw(st.floats(1e-9, guard)),
        guard=guard,
        early_pass=draw(st.lists(st.floats(guard, 1), max_size=4)),
        least_blocks=draw(st.integers(1, 1 << 20)),
    )


@st.composite
def policy_messages(
    draw: st.DrawFn,
    *,
    rate: SearchStrategy[float] | None = None,
    cosine: SearchStrategy[float] | None = None,
) -> pb.Policy:
    """Draw well-formed policies.

    Args:
        draw: Of Hypothesis.
        rate: Greatest plausible tokens a second.
        cosine: Least cosine between an embedding and the one computed again.
    """
    threshold = st.builds(pb.Threshold, value=_SIGNED_UNIT, guard=_UNIT)
    judges = draw(st.lists(digests(), max_size=2))
    rules = _learned_rules()
    count = st.integers(1, 1 << 20)
    return pb.Policy(
        name=draw(names()),
        max_tokens_per_second=draw(_RATES if rate is None else rate),
        clock_skew=draw(_durations(0)),
        challenge_deadline=draw(_durations(1)),
        rounds=pb.RoundPlan(
            max_rounds=draw(st.integers(1, FLIP_CHAIN_LENGTH)),
            blocks_first_round=draw(count),
            blocks_per_round=draw(count),
            tokens_per_block=draw(st.integers(1, MAX_BLOCK_SIZE)),
            whole_blocks=draw(st.integers(0, 1 << 20)),
            token_blocks_first_round=draw(st.integers(0, 1 << 20)),
        ),
        cosine_rules=pb.CosineRules(
            tokens_to_block=draw(threshold), block_to_answer=draw(threshold)
        ),
        min_recomputed_cosine=draw(st.floats(1e-9, 1) if cosine is None else cosine),
        semantic_model_sha256=judges,
        learned_rules=draw(rules if judges else st.none() | rules),
    )


def policies(
    *, rate: SearchStrategy[float] | None = None, cosine: SearchStrategy[float] | None = None
) -> SearchStrategy[Policy]:
    """Return a strategy of policies; options as of `policy_messages`."""
    return policy_messages(rate=rate, cosine=cosine).map(
        lambda message: Policy.from_bytes(message.SerializeToString(deterministic=True))
    )
