"""The keys, files and trust of a provider under attack, and what its upstream says."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from coin_protocol.checks import Trust
from coin_protocol.cli.keys import Role, make_keys
from coin_protocol.files import read_file
from coin_protocol.keys import VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME, pinned_verifiers
from coin_protocol.profile import Policy, Profile
from coin_protocol.signer import Signer
from coin_protocol.testing.profiles import rules_policy
from coin_protocol.testing.small import SmallModels, small_profile
from provider_sdk.store import write_sealing_key
from tests.support.upstreams import Script, Style, Upstream

PROVIDER: Final = "acme"
VERIFIER: Final = "verifier"
LEASE_SECONDS: Final = 5.0
"""The least that the settings allow, so that recovery is quick."""

_CHUNK_TOKENS: Final = 4
_CHUNK_SECONDS: Final = 0.05
_REASONING_TOKENS: Final = 40, 200
"""At four tokens in 50 ms: 0.5 to 2.5 seconds of reasoning, 5 to 25 blocks of the profile."""
_ANSWER_TOKENS: Final = 4, 24


@dataclass(frozen=True)
class House:
    """What every process and every check shares.

    Attributes:
        folder: With all files in it.
        config: The provider's settings.
        url: Of the database.
        models: The small models under the profile.
        policy: The verifier's rules.
        trust: What the verifier pins.
        verifier: Signs challenges.
    """

    folder: Path
    config: Path
    url: str
    models: SmallModels
    policy: Policy
    trust: Trust
    verifier: Signer = field(repr=False)

    @property
    def profile(self) -> Profile:
        """The profile of the small models."""
        return self.models.profile


def build(folder: Path, *, url: str, upstream: str) -> House:
    """Make keys and files in an empty folder.

    Args:
        folder: Where.
        url: Of an empty database.
        upstream: URL of what answers.
    """
    provider, verifier = folder / "provider", folder / "verifier"
    make_keys(provider, PROVIDER, Role.PROVIDER)
    signer, _ = make_keys(verifier, VERIFIER, Role.VERIFIER)
    write_sealing_key(provider / "sealing.key")
    profile = small_profile()
    (folder / "profile").write_bytes(profile.raw)
    public = verifier / "key.pub.pem"
    settings = {
        "name": PROVIDER,
        "keys": str(provider),
        "profile": str(folder / "profile"),
        "database": url,
        "lease_seconds": LEASE_SECONDS,
        "calls_per_second": 10_000,
        "calls_burst": 100_000,
        "listen": "127.0.0.1:0",
        "log_format": "json",
    }
    tables: dict[str, dict[str, Any]] = {
        "verifiers": {VERIFIER: str(public)},
        "gateway": {"upstream": upstream, "port": 0},
    }
    config = folder / "coin.toml"
    config.write_text(_toml(settings) + "".join(f"[{k}]\n{_toml(v)}" for k, v in tables.items()))
    root = VerificationKey.from_pem(ROOT_KEY_NAME, read_file(provider / "root.pub.pem"))
    return House(
        folder=folder,
        config=config,
        url=url,
        models=SmallModels(profile),
        policy=Policy.from_bytes(rules_policy().SerializeToString(deterministic=True)),
        trust=Trust([root], pinned_verifiers({VERIFIER: read_file(public)})),
        verifier=signer,
    )


def script(question: int, choice: int) -> Script:
    """Return what the model says to a question: the same each time, so that anyone can tell."""
    chance = random.Random(f"{question} {choice}")  # noqa: S311 - no secret
    reasoning, answer = (
        "".join(chance.choices("etaoin shrdlu", k=chance.randint(*tokens)))
        for tokens in (_REASONING_TOKENS, _ANSWER_TOKENS)
    )
    return Script(reasoning=reasoning, answer=answer)


def question_of(body: dict[str, Any]) -> int:
    """Return the number of the question that a request asks."""
    return int(body["messages"][0]["content"].split()[-1])


def upstream() -> Upstream:
    """Return a serving stack that streams at the pace of a model."""

    def scripts(body: dict[str, Any]) -> Sequence[Script]:
        question = question_of(body)
        return [script(question, choice) for choice in range(body.get("n", 1))]

    return Upstream(scripts, Style(chunk=_CHUNK_TOKENS, pause=_CHUNK_SECONDS))


def _toml(values: dict[str, Any]) -> str:
    # JSON's strings and numbers are TOML's.
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
