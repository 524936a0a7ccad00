"""The profiles and the policy that ship: what `coin_protocol/profiles/` is made from."""

from __future__ import annotations

from hashlib import sha256

from google.protobuf.duration_pb2 import Duration

from coin_protocol.keys import ECDSA_P256, ED25519
from coin_protocol.v1 import profile_pb2 as pb

TABLE_ROOT = "bbea1e4a3312b34a3d761bc8c8eca84ada7c63bbe78f413cb1673d2f66a0d535"


def default_profile() -> pb.Profile:
    """Return the default profile: tekken, all-MiniLM-L6-v2, blocks of 256 in four windows.

    Windows are projected to 96 dimensions, and tokens are drawn four in a row.
    """
    return pb.Profile(
        name="coin-default-2",
        hash=pb.HASH_ALGORITHM_SHA256,
        key_algorithms=[ED25519, ECDSA_P256],
        block_size=256,
        tokenizer=pb.TokenizerSpec(
            name="tekken-240911",
            sha256=bytes.fromhex(TEKKEN_SHA256),
            vocabulary_size=131_072,
            token_table_root=bytes.fromhex(TABLE_ROOT),
        ),
        embedding=pb.EmbeddingSpec(
            name="all-MiniLM-L6-v2",
            dimension=384,
            weights_sha256=bytes.fromhex(MINILM_SHA256),
            tokenizer_sha256=bytes.fromhex(MINILM_TOKENIZER_SHA256),
            precision=pb.PRECISION_FLOAT64,
            quantisation=pb.QUANTISATION_INT8_SYMMETRIC,
            max_pieces=256,
            window_tokens=64,
            # A seed that hides nothing: the SHA-256 of the ASCII text that names its use.
            projection=pb.Projection(
                seed=sha256(b"coin-default-1 projection").digest(), dimension=96
            ),
        ),
        caps=pb.ExposureCaps(
            tokens_ppm=40_000, blocks_ppm=400_000, min_tokens=16, min_blocks=1, run_tokens=4
        ),
    )


def demo_profile() -> pb.Profile:
    """Return the default profile with a fifth of the blocks open to be shown whole."""
    profile = default_profile()
    profile.name = "coin-demo-2"
    profile.caps.whole_blocks_ppm = 200_000
    return profile


def default_policy() -> pb.Policy:
    """Return the default policy: judged by the learned judge that ships."""
    policy = rules_policy()
    policy.name = "coin-default-3"
    policy.semantic_model_sha256.append(bytes.fromhex(JUDGE_SHA256))
    policy.learned_rules.CopyFrom(
        pb.LearnedRules(false_alarms=0.04, guard=0.08, early_pass=[0.5, 0.35], least_blocks=3)
    )
    return policy


def rules_policy() -> pb.Policy:
    """Return the default policy but for the judge: plain cosine rules, which never accuse."""
    return pb.Policy(
        name="coin-rules-1",
        max_tokens_per_second=5_000.0,
        clock_skew=Duration(seconds=300),
        challenge_deadline=Duration(seconds=60),
        rounds=pb.RoundPlan(
            max_rounds=3,
            blocks_first_round=4,
            blocks_per_round=6,
            tokens_per_block=8,
            whole_blocks=4,
            token_blocks_first_round=64,
        ),
        cosine_rules=pb.CosineRules(
            tokens_to_block=pb.Threshold(value=0.02, guard=0.01),
            block_to_answer=pb.Threshold(value=0.0, guard=0.01),
        ),
        min_recomputed_cosine=0.9999,
    )


JUDGE_SHA256 = "09ee4ab1984c959fa800a234d5ed15b8af15b2045f65166e5644773ac56aad9f"
"""Of `verifier_sdk/semantic/models/judge.safetensors`."""

TEKKEN_SHA256 = "1948e2d48b0e7377f1bb5f1210f1ae5f984934e75713fc07e2452729b8365316"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
