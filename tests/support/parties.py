"""Providers, auditors and replies over the small models."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from coin_protocol import envelope
from coin_protocol.checks import Case, Trust
from coin_protocol.encoding import digest
from coin_protocol.keys import KeyRing, ListedKey
from coin_protocol.keyset import ROOT_KEY_NAME, pinned, sign_key_set, stamp
from coin_protocol.profile import Policy, Profile
from coin_protocol.signer import KeySigner
from coin_protocol.testing.profiles import rules_policy
from coin_protocol.testing.small import SmallModels, small_profile
from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import envelope_pb2, opening_pb2, profile_pb2, receipt_pb2, statements_pb2
from provider_sdk.provider import Provider
from provider_sdk.session import Session
from verifier_sdk.auditor import Auditor
from verifier_sdk.recorder import Recorder
from verifier_sdk.rounds import PLAN_BLOCK_SIZE

PROVIDER = "acme"
MODEL = "acme-1"
VERIFIER = "verifier"
OTHER_VERIFIER = "another verifier"
REQUEST = b'{"messages": [{"content": "why is the sky blue?"}]}'
ANSWER = "the sky is blue as the air sends the blue light around"
REASONING = (
    "the air sends the short waves of the light around and the long waves pass, so the sky "
    "that is seen is blue, and in the evening the light has more air to pass and is red"
)
WAIT_SECONDS = 20.0


def small_policy(edit: Callable[[profile_pb2.Policy], object] = lambda _: None) -> Policy:
    """Return the policy of plain rules after `edit`, for the small profile's blocks of 8."""
    message = rules_policy()
    # As many tokens in each of these as there would be in a block of 256.
    message.rounds.tokens_per_block *= PLAN_BLOCK_SIZE // small_profile().block_size
    edit(message)
    return Policy.from_bytes(message.SerializeToString(deterministic=True))


def easy(policy: profile_pb2.Policy) -> None:
    """Edit a policy so that the judge is always satisfied."""
    policy.cosine_rules.tokens_to_block.value = -1.0
    policy.cosine_rules.block_to_answer.value = -1.0


def strict(policy: profile_pb2.Policy) -> None:
    """Edit a policy so that the judge is never satisfied."""
    policy.cosine_rules.tokens_to_block.value = 1.0


@dataclass
class Clock:
    """A client's clock, moved by hand. Nanoseconds since 1970."""

    nanoseconds: int = field(default_factory=time.time_ns)

    def __call__(self) -> int:
        """Return the time."""
        return self.nanoseconds

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.nanoseconds += round(seconds * 1e9)


def let_pass(provider: Provider, seconds: float) -> None:
    """Let time pass on a provider's clock."""
    provider.clock._offset += round(seconds * 1e9)


@dataclass(frozen=True)
class Parties:
    """The keys of a provider and two verifiers, and the rules that they share."""

    profile: Profile = field(default_factory=small_profile)
    policy: Policy = field(default_factory=lambda: small_policy(easy))
    root: KeySigner = field(default_factory=lambda: KeySigner.generate(ROOT_KEY_NAME))
    signer: KeySigner = field(default_factory=lambda: KeySigner.generate(PROVIDER))
    verifier: KeySigner = field(default_factory=lambda: KeySigner.generate(VERIFIER))
    other: KeySigner = field(default_factory=lambda: KeySigner.generate(OTHER_VERIFIER))

    @cached_property
    def key_set(self) -> envelope_pb2.Envelope:
        """The provider's signed key set."""
        now = datetime.now(UTC)
        listed = ListedKey(self.signer.public, now - timedelta(days=1), now + timedelta(days=1))
        return sign_key_set(PROVIDER, [listed], root=self.root, issued_at=now, sequence=1)

    @property
    def verifiers(self) -> KeyRing:
        """The verifiers that the provider knows."""
        return pinned("verifiers", [self.verifier.public, self.other.public])

    @property
    def trust(self) -> Trust:
        """What both verifiers pin."""
        return Trust([self.root.public], self.verifiers)

    @property
    def models(self) -> SmallModels:
        """The small models under the profile."""
        return SmallModels(self.profile)

    def provider(self, kind: type[Provider] = Provider, **instead: Any) -> Provider:
        """Return a provider; close it, or use it as a context manager."""
        arguments: dict[str, Any] = {
            "name": PROVIDER,
            "signer": self.signer,
            "key_set": self.key_set,
            "models": self.models,
            "verifiers": self.verifiers,
        }
        return kind(**(arguments | instead))

    def auditor(self, **instead: Any) -> Auditor:
        """Return an auditor."""
        arguments: dict[str, Any] = {
            "name": VERIFIER,
            "signer": self.verifier,
            "trust": self.trust,
            "models": self.models,
            "policy": self.policy,
        }
        return Auditor(**(arguments | instead))

    def challenge(
        self,
        fingerprints: envelope_pb2.Envelope,
        *,
        signer: KeySigner | None = None,
        payload_type: str = envelope.CHALLENGE,
        **instead: Any,
    ) -> envelope_pb2.Envelope:
        """Return a signed challenge of one block and two tokens, or of what `instead` says."""
        fields: dict[str, Any] = {
            "fingerprints_sha256": digest(fingerprints.payload),
            "verifier": VERIFIER,
            "nonce": np.random.default_rng().bytes(32),
            "round": 1,
            "blocks": 1,
            "tokens_per_block": 2,
            "deadline": stamp(datetime.now(UTC) + timedelta(minutes=1)),
        }
        message = opening_pb2.Challenge(**(fields | instead))
        return self.sign_as_verifier(message, payload_type, signer)

    def whole_challenge(
        self, fingerprints: envelope_pb2.Envelope, **instead: Any
    ) -> envelope_pb2.Envelope:
        """Return a signed challenge to open one block whole, or what `instead` says."""
        fields: dict[str, Any] = {
            "fingerprints_sha256": digest(fingerprints.payload),
            "verifier": VERIFIER,
            "nonce": np.random.default_rng().bytes(32),
            "round": 1,
            "blocks": 1,
            "deadline": stamp(datetime.now(UTC) + timedelta(minutes=1)),
        }
        message = opening_pb2.WholeBlockChallenge(**(fields | instead))
        return self.sign_as_verifier(message, envelope.WHOLE_CHALLENGE)

    def sign_as_verifier(
        self, message: Message, payload_type: str, signer: KeySigner | None = None
    ) -> envelope_pb2.Envelope:
        """Sign as the verifier, or as `signer`."""
        return envelope.sign(message.SerializeToString(), payload_type, signer or self.verifier)


@dataclass(frozen=True)
class Reply:
    """What one reply leaves with the client, and the session that made it."""

    session: Session
    receipt: receipt_pb2.Receipt

    @property
    def commitment(self) -> statements_pb2.Commitment:
        """The commitment."""
        return statements_pb2.Commitment.FromString(self.receipt.commitment.payload)

    @property
    def commitment_sha256(self) -> bytes:
        """What names the commitment."""
        return digest(self.receipt.commitment.payload)

    def ready(self) -> tuple[envelope_pb2.Envelope, envelope_pb2.Envelope]:
        """Wait for the fingerprints; return manifest and fingerprints."""
        provider = self.session.provider
        provider.wait_ready(self.commitment_sha256, WAIT_SECONDS)
        return provider.manifest(self.commitment_sha256)

    def case(self, parties: Parties) -> Case:
        """Return the evidence that needs no challenge."""
        manifest, fingerprints = self.ready()
        receipt = receipt_pb2.Receipt()
        receipt.CopyFrom(self.receipt)
        receipt.fingerprints.CopyFrom(fingerprints)
        models = parties.models
        return Case(
            receipt=receipt,
            trust=parties.trust,
            profile=parties.profile,
            policy=parties.policy,
            manifest=manifest,
            installed=(models.tokenizer, models.embedder),
        )

    def ask(
        self, case: Case, challenge: envelope_pb2.Envelope, *, whole: bool = False
    ) -> tuple[Case, envelope_pb2.Envelope]:
        """Challenge the provider; return the case with the round, and the opening."""
        sent = stamp(datetime.now(UTC))
        provider = self.session.provider
        answer = provider.answer_whole if whole else provider.answer
        opening = answer(self.commitment_sha256, challenge)
        entry = receipt_pb2.Round(
            challenge=challenge, opening=opening, sent_at=sent, received_at=stamp(datetime.now(UTC))
        )
        if whole:
            return replace(case, whole_rounds=(*case.whole_rounds, entry)), opening
        return replace(case, rounds=(*case.rounds, entry)), opening


def reasoning_ids(count: int | None = None) -> list[int]:
    """Return ids of sensible text in the small vocabulary, `count` of them if given."""
    text = REASONING.encode()
    if count is None:
        return list(text)
    return [text[at % len(text)] for at in range(count)]


def run_session(
    provider: Provider,
    token_ids: Sequence[int] | npt.NDArray[np.integer] | None = None,
    *,
    request: bytes = REQUEST,
    answer: str = ANSWER,
    chunk: int = 4,
    seconds_per_token: float = 0.001,
    clock: Clock | None = None,
    **finish: Any,
) -> Reply:
    """Run a reply as provider and client see it, time passing at a steady decode rate."""
    ids = reasoning_ids() if token_ids is None else token_ids
    clock = Clock() if clock is None else clock
    recorder = Recorder(request=request, clock=clock)
    session = provider.open_session(
        model=MODEL, request=request, client_nonce=recorder.client_nonce
    )
    for start in range(0, len(ids), chunk):
        part = ids[start : start + chunk]
        clock.advance(len(part) * seconds_per_token)
        let_pass(provider, len(part) * seconds_per_token)
        for checkpoint in session.append(part):
            recorder.checkpoint(checkpoint)
    for word in re.findall(r"\s*\S+|\s+", answer):
        clock.advance(seconds_per_token)
        let_pass(provider, seconds_per_token)
        recorder.answer_delta(word)
    usage = usage_for(
        prompt_tokens=11, reasoning_tokens=session.token_count, answer_tokens=9, counting=INSIDE
    )
    arguments: dict[str, Any] = {
        "answer": answer.encode(),
        "answer_tokens": 9,
        "usage": usage,
    }
    commitment = session.finish(**(arguments | finish))
    receipt = recorder.finish(commitment=commitment, key_set=provider.key_set, billed=usage)
    return Reply(session, receipt)
