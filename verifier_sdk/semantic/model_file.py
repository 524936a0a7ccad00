"""Model files of judges: safetensors with a header that says what they were trained for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from coin_protocol.embedding import window_dimension
from coin_protocol.errors import ConfigurationError, ModelMismatchError
from coin_protocol.files import replace_file
from coin_protocol.profile import Policy, Profile
from coin_protocol.v1 import profile_pb2

FORMAT: Final = "coin.judge.v1"

MAX_MODEL_BYTES: Final = 64 * 1024 * 1024
"""Sixteen times what ships."""

SHIPPED: Final = "judge.safetensors"

_HEADER: Final = "coin"


@dataclass(frozen=True)
class ModelFile:
    """A judge's tensors, with the exact bytes that name them.

    Attributes:
        raw: The file.
        tensors: By name.
        header: What they were trained for: `space_of` a profile, format, and notes.
    """

    raw: bytes
    tensors: Mapping[str, npt.NDArray[Any]]
    header: Mapping[str, str]

    @classmethod
    def from_bytes(cls, raw: bytes) -> ModelFile:
        """Parse a model file.

        Raises:
            ConfigurationError: It is no safetensors file, or of another format.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        if len(raw) > MAX_MODEL_BYTES:
            msg = f"a model file has at most {MAX_MODEL_BYTES} bytes; this one has more"
            raise ConfigurationError(msg)
        try:
            tensors = load(raw)
            size = int.from_bytes(raw[:8], "little")
            found = json.loads(raw[8 : 8 + size]).get("__metadata__", {})
            header = json.loads(found.get(_HEADER, "{}"))
        except (SafetensorError, ValueError, KeyError, RecursionError) as error:
            msg = f"not a safetensors file: {error}"
            raise ConfigurationError(msg) from error
        if not isinstance(header, dict) or not all(isinstance(v, str) for v in header.values()):
            msg = "the model file's header is no object of strings"
            raise ConfigurationError(msg)
        if header.get("format") != FORMAT:
            msg = f"the model file's format is {header.get('format')!r}, wanted {FORMAT!r}"
            raise ConfigurationError(msg)
        if not all(
            np.isfinite(value).all() for value in tensors.values() if value.dtype.kind == "f"
        ):
            msg = "the model file holds numbers that are not finite"
            raise ConfigurationError(msg)
        return cls(raw, tensors, header)

    @classmethod
    def from_file(cls, path: Path) -> ModelFile:
        """Read a model file.

        Raises:
            ConfigurationError: It cannot be read, or is none.
        """
        try:
            with path.open("rb") as file:
                # One byte more than allowed is enough to know.
                raw = file.read(MAX_MODEL_BYTES + 1)
        except OSError as error:
            msg = f"cannot read the model file {path}: {error.strerror}"
            raise ConfigurationError(msg) from error
        return cls.from_bytes(raw)

    @classmethod
    def shipped(cls) -> ModelFile:
        """Return the judge that ships.

        Raises:
            ConfigurationError: It is not there, or altered so that it is none.
        """
        packaged = files("verifier_sdk.semantic").joinpath("models", SHIPPED)
        with as_file(packaged) as path:
            return cls.from_file(path)

    @classmethod
    def write(
        cls, path: Path, tensors: Mapping[str, npt.NDArray[Any]], header: Mapping[str, str]
    ) -> ModelFile:
        """Write a model file; the same tensors and header give the same bytes."""
        from safetensors.numpy import save

        ordered = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
        # One entry: the library does not keep the order of several.
        header = {"format": FORMAT, **header}
        raw = save(ordered, {_HEADER: json.dumps(header, sort_keys=True)})
        replace_file(path, raw)
        return cls.from_bytes(raw)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the exact bytes."""
        return sha256(self.raw).digest()

    @property
    def dimension(self) -> int:
        """Numbers in one window embedding."""
        return int(self.header.get("dimension", "0"))

    @property
    def calibration_questions(self) -> int | None:
        """Questions that p-values of the smallest domain rest on; None where it does not say."""
        found = self.header.get("calibration_questions", "")
        return int(found) if found.isdecimal() else None

    def require_profile(self, profile: Profile) -> None:
        """Check that the judge was trained for a profile's vectors and tokens.

        Raises:
            ConfigurationError: It was not; the message has both values.
        """
        for name, wanted in space_of(profile.message).items():
            found = self.header.get(name)
            if found != wanted:
                msg = (
                    f"the judge was trained for {name} {found}, the profile has {wanted}: use a "
                    "profile that it was trained for, train one (`coin train`), or judge by the "
                    "policy's cosine rules (`--judge rules`)"
                )
                raise ConfigurationError(msg)

    def require_policy(self, policy: Policy) -> None:
        """Check that a policy names this file, and asks in the rounds it was calibrated for.

        Raises:
            ModelMismatchError: It names others; the message has the digests.
            ConfigurationError: Its rounds are others: p-values would mean nothing.
        """
        wanted = list(policy.message.semantic_model_sha256)
        if self.digest not in wanted:
            names = ", ".join(digest.hex() for digest in wanted) or "none"
            msg = (
                f"the model file has SHA-256 {self.digest.hex()}, the policy names {names}: use "
                "the file that it names, or a policy of your own"
            )
            raise ModelMismatchError(msg)
        self.require_rounds(policy.message.rounds)

    def require_rounds(self, plan: profile_pb2.RoundPlan) -> None:
        """Check that the judge was calibrated for a plan of rounds.

        Raises:
            ConfigurationError: It was not; the message has both plans.
        """
        found, asked = self.header.get("rounds"), rounds_of(plan)
        if found != asked:
            msg = (
                f"the judge was calibrated for rounds {found}, the policy has {asked}: use its "
                "rounds, or train a judge for yours (`coin train --policy`)"
            )
            raise ConfigurationError(msg)


def rounds_of(plan: profile_pb2.RoundPlan) -> str:
    """Return what a judge's p-values depend on in a policy's plan of rounds."""
    names = (
        "max_rounds", "blocks_first_round", "blocks_per_round", "tokens_per_block",
        "token_blocks_first_round",
    )  # fmt: skip
    return " ".join(f"{name}={getattr(plan, name)}" for name in names)


def space_of(profile: profile_pb2.Profile) -> dict[str, str]:
    """Return what a judge's numbers depend on in a profile, by name."""
    embedding = profile.embedding
    projection = embedding.projection.seed.hex() if embedding.HasField("projection") else "none"
    return {
        "tokenizer_sha256": profile.tokenizer.sha256.hex(),
        "embedding_weights_sha256": embedding.weights_sha256.hex(),
        "window_tokens": str(embedding.window_tokens),
        "projection_seed": projection,
        "dimension": str(window_dimension(embedding)),
        "run_tokens": str(max(1, profile.caps.run_tokens)),
    }
