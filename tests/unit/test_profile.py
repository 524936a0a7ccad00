"""Profiles and policies: named by their exact bytes, refused with the value that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from coin_protocol.errors import ConfigurationError
from coin_protocol.keys import ED25519
from coin_protocol.limits import (
    FLIP_CHAIN_LENGTH,
    MAX_BLOCK_SIZE,
    MAX_EMBEDDING_DIMENSION,
    MAX_VOCABULARY,
)
from coin_protocol.profile import Policy, Profile
from coin_protocol.testing.forgeries import put
from coin_protocol.testing.profiles import (
    default_policy,
    default_profile,
    demo_profile,
    rules_policy,
)
from coin_protocol.testing.small import VOCABULARY, small_profile
from coin_protocol.testing.world import Edit
from coin_protocol.v1 import profile_pb2 as pb

UNKNOWN = b"\xf8\x07\x01"  # field 127, a varint
PROFILE = small_profile(projection=6)


def profile_with(edit: Edit[Any]) -> bytes:
    message = pb.Profile.FromString(PROFILE.raw)
    edit(message)
    return message.SerializeToString()


def policy_with(edit: Edit[Any]) -> bytes:
    message = default_policy()
    edit(message)
    return message.SerializeToString()


def refused(read: Callable[[bytes], object], raw: bytes) -> str:
    """Return what is said of bytes that `read` refuses."""
    with pytest.raises(ConfigurationError) as caught:
        read(raw)
    return str(caught.value)


def test_a_profile_is_known_by_the_digest_of_its_exact_bytes() -> None:
    assert Profile.from_bytes(PROFILE.raw).digest == sha256(PROFILE.raw).digest()
    # The same values, written in another order: another profile.
    name, rest = PROFILE.raw[:7], PROFILE.raw[7:]
    other = Profile.from_bytes(rest + name)
    assert other.message == PROFILE.message
    assert other.digest == sha256(rest + name).digest() != PROFILE.digest


def test_a_policy_is_known_by_the_digest_of_its_exact_bytes() -> None:
    raw = policy_with(lambda _: None)
    assert Policy.from_bytes(raw).digest == sha256(raw).digest()
    other = policy_with(put("name", "another"))
    assert Policy.from_bytes(other).digest != Policy.from_bytes(raw).digest


def test_a_profile_offers_its_block_and_vocabulary_size() -> None:
    assert (PROFILE.block_size, PROFILE.vocabulary_size) == (8, VOCABULARY)


@pytest.mark.parametrize(("said", "run"), [(0, 1), (1, 1), (3, 3), (8, 8)])
def test_a_profile_that_says_no_run_draws_tokens_one_by_one(said: int, run: int) -> None:
    assert Profile.from_bytes(profile_with(put("caps.run_tokens", said))).run_tokens == run


def test_a_policy_offers_its_times_in_seconds() -> None:
    raw = policy_with(put("clock_skew.nanos", 500_000_000))
    policy = Policy.from_bytes(raw)
    assert (policy.clock_skew_seconds, policy.deadline_seconds) == (300.5, 60.0)


@pytest.mark.parametrize(
    ("name", "message"), [("default", default_profile()), ("demo", demo_profile())]
)
def test_a_shipped_profile_is_what_its_source_says(name: str, message: pb.Profile) -> None:
    shipped = Profile.shipped(name)
    assert shipped.message == message
    assert shipped.block_size == 256
    assert shipped.run_tokens == 4
    embedding = shipped.message.embedding
    assert (embedding.window_tokens, embedding.projection.dimension) == (64, 96)


def test_the_seed_of_the_shipped_projection_hides_nothing() -> None:
    seed = sha256(b"coin-default-1 projection").digest()
    for name in ("default", "demo"):
        assert Profile.shipped(name).message.embedding.projection.seed == seed


def test_the_default_profile_opens_no_block_whole_and_the_demo_one_does() -> None:
    assert Profile.shipped("default").message.caps.whole_blocks_ppm == 0
    assert Profile.shipped("demo").message.caps.whole_blocks_ppm > 0
    assert Profile.shipped("default").digest != Profile.shipped("demo").digest


def test_the_default_caps_are_those_of_the_protocol() -> None:
    caps = Profile.shipped("default").message.caps
    assert (caps.tokens_ppm, caps.blocks_ppm) == (40_000, 400_000)
    assert (caps.min_tokens, caps.min_blocks) == (16, 1)


@pytest.mark.parametrize(
    ("name", "message"), [("default", default_policy()), ("rules", rules_policy())]
)
def test_a_shipped_policy_is_what_its_source_says(name: str, message: pb.Policy) -> None:
    assert Policy.shipped(name).message == message
    assert Policy.shipped(name).message.min_recomputed_cosine == 0.9999


def test_the_default_policy_is_the_one_with_the_learned_judge() -> None:
    assert Policy.shipped() == Policy.shipped("default")
    assert len(default_policy().semantic_model_sha256) == 1
    assert default_policy().HasField("learned_rules")
    plain = rules_policy()
    assert not plain.semantic_model_sha256
    assert not plain.HasField("learned_rules")
    # Otherwise they ask and accept the same.
    plain.name, plain.semantic_model_sha256[:] = (
        "coin-default-3",
        default_policy().semantic_model_sha256,
    )
    plain.learned_rules.CopyFrom(default_policy().learned_rules)
    assert plain == default_policy()


def test_a_policy_that_names_a_learned_judge_says_when_it_decides() -> None:
    with pytest.raises(ConfigurationError, match="learned_rules"):
        Policy.from_bytes(policy_with(lambda message: message.ClearField("learned_rules")))
    plain = rules_policy()
    Policy.from_bytes(plain.SerializeToString())
    # Rules that no judge reads are checked all the same.
    plain.learned_rules.SetInParent()
    with pytest.raises(ConfigurationError, match="learned_rules"):
        Policy.from_bytes(plain.SerializeToString())


def test_a_file_gives_the_same_as_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "profile.binpb"
    path.write_bytes(PROFILE.raw)
    assert Profile.from_file(path) == PROFILE
    path.write_bytes(policy_with(lambda _: None))
    assert Policy.from_file(path).message == default_policy()


@pytest.mark.parametrize("kind", [Profile, Policy], ids=["profile", "policy"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, kind: type[Profile | Policy]) -> None:
    for path in (tmp_path / "missing.binpb", tmp_path):
        with pytest.raises(ConfigurationError, match=f"cannot read the {kind.__name__.lower()}"):
            kind.from_file(path)


@pytest.mark.parametrize("raw", [b"\xff", b"garbage", b"{}", b"\x0a\xff"])
@pytest.mark.parametrize("read", [Profile.from_bytes, Policy.from_bytes], ids=["profile", "policy"])
def test_garbage_is_refused(read: Callable[[bytes], object], raw: bytes) -> None:
    with pytest.raises(ConfigurationError):
        read(raw)


def test_unknown_fields_are_refused_at_any_depth() -> None:
    for raw in (
        PROFILE.raw + UNKNOWN,
        profile_with(lambda message: message.embedding.projection.MergeFromString(UNKNOWN)),
        profile_with(lambda message: message.caps.MergeFromString(UNKNOWN)),
    ):
        with pytest.raises(ConfigurationError, match="does not know; update"):
            Profile.from_bytes(raw)
    for raw in (
        policy_with(lambda message: message.MergeFromString(UNKNOWN)),
        policy_with(lambda message: message.rounds.MergeFromString(UNKNOWN)),
    ):
        with pytest.raises(ConfigurationError, match="does not know; update"):
            Policy.from_bytes(raw)


def test_a_file_past_a_megabyte_is_not_parsed() -> None:
    for read in (Profile.from_bytes, Policy.from_bytes):
        assert "at most 1048576" in refused(read, b"\xff" * ((1 << 20) + 1))
        # A whole megabyte is still looked at.
        assert "at most" not in refused(read, b"\xff" * (1 << 20))


# Whole numbers in a profile: field, its name in a message, least, most
RANGES_IN_PROFILES = [
    ("block_size", "block_size", 1, MAX_BLOCK_SIZE),
    ("tokenizer.vocabulary_size", "vocabulary_size", 1, MAX_VOCABULARY),
    ("embedding.dimension", "embedding.dimension", 1, MAX_EMBEDDING_DIMENSION),
    ("embedding.window_tokens", "window_tokens", 1, 8),
    ("embedding.max_pieces", "max_pieces", 3, 1 << 20),
    ("embedding.projection.dimension", "projection.dimension", 1, 1 << 13),
    ("caps.tokens_ppm", "caps.tokens_ppm", 0, 1_000_000),
    ("caps.blocks_ppm", "caps.blocks_ppm", 0, 1_000_000),
    ("caps.whole_blocks_ppm", "caps.whole_blocks_ppm", 0, 1_000_000),
    ("caps.run_tokens", "caps.run_tokens", 0, 8),
]
RANGES_IN_POLICIES = [
    ("clock_skew.seconds", 0, 86_400),
    ("clock_skew.nanos", 0, 999_999_999),
    ("challenge_deadline.seconds", 1, 86_400),
    ("challenge_deadline.nanos", 0, 999_999_999),
    ("rounds.max_rounds", 1, FLIP_CHAIN_LENGTH),
    ("rounds.blocks_first_round", 1, 1 << 20),
    ("rounds.blocks_per_round", 1, 1 << 20),
    ("rounds.token_blocks_first_round", 0, 1 << 20),
    ("rounds.tokens_per_block", 1, MAX_BLOCK_SIZE),
    ("learned_rules.least_blocks", 1, 1 << 20),
]
KEY_ALGORITHMS = "key_algorithms must name Ed25519, ECDSA P-256 or both"
# Other values in a profile: field, wrong value, the message
WRONG_IN_PROFILES = [
    ("name", "", "profile name must have 1 to 256 bytes"),
    ("name", "x" * 257, "profile name must have 1 to 256 bytes"),
    ("tokenizer.name", "", "tokenizer name must have 1 to 256 bytes"),
    ("embedding.name", "\u00e9" * 129, "embedding model name must have 1 to 256 bytes"),
    ("hash", 0, "hash must be SHA-256"),
    ("hash", 2, "hash must be SHA-256"),
    ("key_algorithms", [], KEY_ALGORITHMS),
    ("key_algorithms", [0], KEY_ALGORITHMS),
    ("key_algorithms", [99], KEY_ALGORITHMS),
    ("key_algorithms", [ED25519, 99], KEY_ALGORITHMS),
    ("tokenizer.sha256", b"", "tokenizer.sha256 must have 32 bytes"),
    ("tokenizer.token_table_root", bytes(31), "tokenizer.token_table_root must have 32 bytes"),
    ("embedding.weights_sha256", bytes(33), "embedding.weights_sha256 must have 32 bytes"),
    ("embedding.tokenizer_sha256", bytes(31), "embedding.tokenizer_sha256 must have 32 bytes"),
    ("embedding.precision", 0, "precision must be float64"),
    ("embedding.quantisation", 0, "quantisation must be int8-symmetric"),
    ("embedding.projection.seed", bytes(31), "projection.seed must have 32 bytes"),
]
RIGHT_IN_PROFILES = [
    ("name", "x"),
    ("name", "x" * 256),
    ("key_algorithms", [ED25519]),
    ("block_size", 512),
    ("block_size", 1024),
]
SPEED = "max_tokens_per_second must be positive and finite"
COSINE = "min_recomputed_cosine must lie in (0, 1]"
TOKENS, ANSWER = "cosine_rules.tokens_to_block", "cosine_rules.block_to_answer"
THRESHOLD = "value must lie in [-1, 1] and guard in [0, 1]"
LEARNED = "learned_rules must have 0 < false_alarms <= guard <= 1"
EARLY = "learned_rules.early_pass must lie in [guard, 1]"
WRONG_IN_POLICIES = [
    ("name", "", "policy name must have 1 to 256 bytes"),
    ("max_tokens_per_second", 0.0, SPEED),
    ("max_tokens_per_second", -1.0, SPEED),
    ("max_tokens_per_second", inf, SPEED),
    ("max_tokens_per_second", nan, SPEED),
    ("min_recomputed_cosine", 0.0, COSINE),
    ("min_recomputed_cosine", 1.0001, COSINE),
    ("min_recomputed_cosine", nan, COSINE),
    (f"{TOKENS}.value", 1.1, f"tokens_to_block: {THRESHOLD}"),
    (f"{TOKENS}.value", nan, f"tokens_to_block: {THRESHOLD}"),
    (f"{TOKENS}.guard", -0.1, f"tokens_to_block: {THRESHOLD}"),
    (f"{ANSWER}.value", -1.1, f"block_to_answer: {THRESHOLD}"),
    (f"{ANSWER}.guard", 1.0001, f"block_to_answer: {THRESHOLD}"),
    (f"{ANSWER}.guard", nan, f"block_to_answer: {THRESHOLD}"),
    ("semantic_model_sha256", [bytes(31)], "semantic_model_sha256 must be digests of 32 bytes"),
    ("learned_rules.false_alarms", 0.0, LEARNED),
    ("learned_rules.false_alarms", -0.1, LEARNED),
    ("learned_rules.false_alarms", 0.0801, LEARNED),
    ("learned_rules.false_alarms", nan, LEARNED),
    ("learned_rules.guard", 0.0399, LEARNED),
    ("learned_rules.guard", 1.0001, LEARNED),
    ("learned_rules.guard", nan, LEARNED),
    ("learned_rules.early_pass", [0.5, 0.0799], EARLY),
    ("learned_rules.early_pass", [1.0001], EARLY),
    ("learned_rules.early_pass", [nan], EARLY),
    ("learned_rules.early_pass", [0.5, inf], EARLY),
]
RIGHT_IN_POLICIES = [
    ("max_tokens_per_second", 1.0),
    ("max_tokens_per_second", 0.001),
    ("rounds.whole_blocks", 0),
    ("min_recomputed_cosine", 1.0),
    (f"{TOKENS}.value", -1.0),
    (f"{ANSWER}.value", 1.0),
    (f"{TOKENS}.guard", 0.0),
    (f"{ANSWER}.guard", 1.0),
    ("semantic_model_sha256", [bytes(32), bytes(32)]),
    ("learned_rules.false_alarms", 0.08),
    ("learned_rules.guard", 0.04),
    ("learned_rules.early_pass", []),
    ("learned_rules.early_pass", [0.08, 1.0, 0.08]),
]


@pytest.mark.parametrize(("path", "value", "said"), WRONG_IN_PROFILES)
def test_a_wrong_value_in_a_profile_is_refused_by_name(path: str, value: object, said: str) -> None:
    assert refused(Profile.from_bytes, profile_with(put(path, value))) == said


@pytest.mark.parametrize(("path", "value", "said"), WRONG_IN_POLICIES)
def test_a_wrong_value_in_a_policy_is_refused_by_name(path: str, value: object, said: str) -> None:
    assert refused(Policy.from_bytes, policy_with(put(path, value))) == said


@pytest.mark.parametrize(("path", "value"), RIGHT_IN_PROFILES)
def test_a_value_at_its_limit_stands_in_a_profile(path: str, value: object) -> None:
    Profile.from_bytes(profile_with(put(path, value)))


@pytest.mark.parametrize(("path", "value"), RIGHT_IN_POLICIES)
def test_a_value_at_its_limit_stands_in_a_policy(path: str, value: object) -> None:
    Policy.from_bytes(policy_with(put(path, value)))


@pytest.mark.parametrize(("path", "name", "least", "most"), RANGES_IN_PROFILES)
def test_a_whole_number_in_a_profile_has_its_range_both_ends_included(
    path: str, name: str, least: int, most: int
) -> None:
    def holding(value: int) -> bytes:
        def edit(message: pb.Profile) -> None:
            put("embedding.window_tokens", 1)(message)  # room for the smallest block
            put(path, value)(message)

        return profile_with(edit)

    for value in (least, most):
        Profile.from_bytes(holding(value))
    for value in (least - 1, most + 1):
        if value >= 0:  # the wire has no negative ones here
            said = f"{name} must lie in [{least}, {most}]; found {value}"
            assert refused(Profile.from_bytes, holding(value)) == said


@pytest.mark.parametrize(("path", "least", "most"), RANGES_IN_POLICIES)
def test_a_whole_number_in_a_policy_has_its_range_both_ends_included(
    path: str, least: int, most: int
) -> None:
    signed = path.endswith((".seconds", ".nanos"))
    for value in (least, most):
        Policy.from_bytes(policy_with(put(path, value)))
    for value in (least - 1, most + 1):
        if value >= 0 or signed:
            said = f"{path} must lie in [{least}, {most}]; found {value}"
            assert refused(Policy.from_bytes, policy_with(put(path, value))) == said


def test_a_guard_of_learned_rules_may_be_certainty() -> None:
    def edit(message: pb.Policy) -> None:
        message.learned_rules.guard = 1.0
        message.learned_rules.early_pass[:] = [1.0]

    Policy.from_bytes(policy_with(edit))


@pytest.mark.parametrize("path", ["clock_skew.seconds", "challenge_deadline.seconds"])
def test_a_duration_that_no_clock_can_show_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError):
        Policy.from_bytes(policy_with(put(path, 1 << 62)))
