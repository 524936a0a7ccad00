"""Profiles and policies: known by the SHA-256 of their exact bytes (protocol, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import TypeVar

from coin_protocol.encoding import digest
from coin_protocol.errors import ConfigurationError, StatementError
from coin_protocol.limits import (
    FLIP_CHAIN_LENGTH,
    HASH_BYTES,
    MAX_BLOCK_SIZE,
    MAX_EMBEDDING_DIMENSION,
    MAX_NAME_BYTES,
    MAX_PROFILE_BYTES,
    MAX_VOCABULARY,
)
from coin_protocol.statements import parse
from coin_protocol.v1 import keys_pb2 as pb_keys
from coin_protocol.v1 import profile_pb2 as pb

M = TypeVar("M", pb.Profile, pb.Policy)

_MILLION = 1_000_000
_DAY = 86_400


@dataclass(frozen=True)
class Profile:
    """What commitments are made of, with the exact bytes that name it."""

    raw: bytes
    message: pb.Profile

    @classmethod
    def from_bytes(cls, raw: bytes) -> Profile:
        """Parse and check a serialized profile.

        Raises:
            ConfigurationError: It does not parse, or a value is out of range.
        """
        message = _parse(pb.Profile, raw)
        _check_profile(message)
        return cls(raw, message)

    @classmethod
    def from_file(cls, path: Path) -> Profile:
        """Read a profile file (`.binpb`)."""
        return cls.from_bytes(_read(path, "profile"))

    @classmethod
    def shipped(cls, name: str) -> Profile:
        """Return a profile that ships: `default` or `demo`.

        Both are tekken and all-MiniLM-L6-v2 with blocks of 256; `demo` lets a fifth of the
        blocks be opened whole.
        """
        return cls.from_bytes(_shipped(f"{name}.profile.binpb"))

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the exact bytes."""
        return digest(self.raw)

    @property
    def block_size(self) -> int:
        """Tokens in a full block."""
        return self.message.block_size

    @property
    def run_tokens(self) -> int:
        """Consecutive tokens that challenges draw together, at least 1."""
        return max(1, self.message.caps.run_tokens)

    @property
    def vocabulary_size(self) -> int:
        """Ids of the LLM tokenizer."""
        return self.message.tokenizer.vocabulary_size


@dataclass(frozen=True)
class Policy:
    """A verifier's own rules, with the exact bytes that name them."""

    raw: bytes
    message: pb.Policy

    @classmethod
    def from_bytes(cls, raw: bytes) -> Policy:
        """Parse and check a serialized policy.

        Raises:
            ConfigurationError: It does not parse, or a value is out of range.
        """
        message = _parse(pb.Policy, raw)
        _check_policy(message)
        return cls(raw, message)

    @classmethod
    def from_file(cls, path: Path) -> Policy:
        """Read a policy file (`.binpb`)."""
        return cls.from_bytes(_read(path, "policy"))

    @classmethod
    def shipped(cls, name: str = "default") -> Policy:
        """Return a policy that ships: `default`, or `rules`, judged by plain cosine rules."""
        return cls.from_bytes(_shipped(f"{name}.policy.binpb"))

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the exact bytes."""
        return digest(self.raw)

    @property
    def clock_skew_seconds(self) -> float:
        """By how much honest clocks of two parties may differ."""
        return self.message.clock_skew.ToTimedelta().total_seconds()

    @property
    def deadline_seconds(self) -> float:
        """How long a provider has to answer a challenge."""
        return self.message.challenge_deadline.ToTimedelta().total_seconds()


def _shipped(name: str) -> bytes:
    return files("coin_protocol").joinpath("profiles", name).read_bytes()


def _read(path: Path, what: str) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as error:
        msg = f"cannot read the {what} file {path}: {error.strerror}"
        raise ConfigurationError(msg) from error
    return raw


def _parse(kind: type[M], raw: bytes) -> M:
    if len(raw) > MAX_PROFILE_BYTES:
        msg = f"{len(raw)} bytes; a profile or policy has at most {MAX_PROFILE_BYTES}"
        raise ConfigurationError(msg)
    try:
        return parse(kind, raw)
    except StatementError as error:
        raise ConfigurationError(str(error)) from error


def _check_profile(message: pb.Profile) -> None:
    tokenizer, embedding, caps = message.tokenizer, message.embedding, message.caps
    _require_name("profile", message.name)
    _require_name("tokenizer", tokenizer.name)
    _require_name("embedding model", embedding.name)
    _require(message.hash == pb.HASH_ALGORITHM_SHA256, "hash must be SHA-256")
    known = pb_keys.KeyAlgorithm.values()[1:]
    _require(
        bool(message.key_algorithms) and all(used in known for used in message.key_algorithms),
        "key_algorithms must name Ed25519, ECDSA P-256 or both",
    )
    _require_range("block_size", message.block_size, 1, MAX_BLOCK_SIZE)
    for what, found in (
        ("tokenizer.sha256", tokenizer.sha256),
        ("tokenizer.token_table_root", tokenizer.token_table_root),
        ("embedding.weights_sha256", embedding.weights_sha256),
        ("embedding.tokenizer_sha256", embedding.tokenizer_sha256),
    ):
        _require(len(found) == HASH_BYTES, f"{what} must have {HASH_BYTES} bytes")
    _require_range("vocabulary_size", tokenizer.vocabulary_size, 1, MAX_VOCABULARY)
    _require_range("embedding.dimension", embedding.dimension, 1, MAX_EMBEDDING_DIMENSION)
    _require_range("window_tokens", embedding.window_tokens, 1, message.block_size)
    _require_range("max_pieces", embedding.max_pieces, 3, 1 << 20)
    _require(embedding.precision == pb.PRECISION_FLOAT64, "precision must be float64")
    _require(
        embedding.quantisation == pb.QUANTISATION_INT8_SYMMETRIC,
        "quantisation must be int8-symmetric",
    )
    if embedding.HasField("projection"):
        _require_range("projection.dimension", embedding.projection.dimension, 1, 1 << 13)
        _require(len(embedding.projection.seed) == HASH_BYTES, "projection.seed must have 32 bytes")
    for what, share in (
        ("tokens_ppm", caps.tokens_ppm),
        ("blocks_ppm", caps.blocks_ppm),
        ("whole_blocks_ppm", caps.whole_blocks_ppm),
    ):
        _require_range(f"caps.{what}", share, 0, _MILLION)
    _require_range("caps.run_tokens", caps.run_tokens, 0, message.block_size)


def _check_policy(message: pb.Policy) -> None:
    _require_name("policy", message.name)
    _require(
        isfinite(message.max_tokens_per_second) and message.max_tokens_per_second > 0,
        "max_tokens_per_second must be positive and finite",
    )
    _require(0 < message.min_recomputed_cosine <= 1, "min_recomputed_cosine must lie in (0, 1]")
    _require_range("clock_skew.seconds", message.clock_skew.seconds, 0, _DAY)
    _require_range("clock_skew.nanos", message.clock_skew.nanos, 0, 999_999_999)
    _require_range("challenge_deadline.seconds", message.challenge_deadline.seconds, 1, _DAY)
    _require_range("challenge_deadline.nanos", message.challenge_deadline.nanos, 0, 999_999_999)
    rounds = message.rounds
    _require_range("rounds.max_rounds", rounds.max_rounds, 1, FLIP_CHAIN_LENGTH)
    _require_range("rounds.blocks_first_round", rounds.blocks_first_round, 1, 1 << 20)
    _require_range("rounds.blocks_per_round", rounds.blocks_per_round, 1, 1 << 20)
    _require_range("rounds.token_blocks_first_round", rounds.token_blocks_first_round, 0, 1 << 20)
    _require_range("rounds.tokens_per_block", rounds.tokens_per_block, 1, MAX_BLOCK_SIZE)
    rules = message.cosine_rules
    for what, threshold in (
        ("tokens_to_block", rules.tokens_to_block),
        ("block_to_answer", rules.block_to_answer),
    ):
        _require(
            -1 <= threshold.value <= 1 and 0 <= threshold.guard <= 1,
            f"{what}: value must lie in [-1, 1] and guard in [0, 1]",
        )
    for found in message.semantic_model_sha256:
        _require(len(found) == HASH_BYTES, "semantic_model_sha256 must be digests of 32 bytes")
    if message.semantic_model_sha256 or message.HasField("learned_rules"):
        _check_learned(message.learned_rules)


def _check_learned(rules: pb.LearnedRules) -> None:
    _require(
        0 < rules.false_alarms <= rules.guard <= 1,
        "learned_rules must have 0 < false_alarms <= guard <= 1",
    )
    _require(
        all(rules.guard <= one <= 1 for one in rules.early_pass),
        "learned_rules.early_pass must lie in [guard, 1]",
    )
    _require_range("learned_rules.least_blocks", rules.least_blocks, 1, 1 << 20)


def _require_name(what: str, name: str) -> None:
    _require(0 < len(name.encode()) <= MAX_NAME_BYTES, f"{what} name must have 1 to 256 bytes")


def _require_range(what: str, found: int, least: int, most: int) -> None:
    _require(least <= found <= most, f"{what} must lie in [{least}, {most}]; found {found}")


def _require(condition: bool, wanted: str) -> None:  # noqa: FBT001 - private, like assert
    if not condition:
        raise ConfigurationError(wanted)
