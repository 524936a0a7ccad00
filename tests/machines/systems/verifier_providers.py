"""A provider that is honest to some clients and lies to others, under one name and one key."""

from __future__ import annotations

from contextlib import ExitStack

from coin_protocol.testing.adversaries import ALL_ADVERSARIES, Found, Threat
from coin_protocol.testing.machines.verifier_system import Reader
from coin_protocol.testing.small import small_profile
from coin_protocol.v1 import profile_pb2
from provider_sdk.provider import Provider
from tests.support.parties import (
    WAIT_SECONDS,
    Parties,
    easy,
    reasoning_ids,
    run_session,
    small_policy,
)
from verifier_sdk.replaying import replay

TOKENS = 60
"""Of a reply: eight blocks, so that of some of them tokens alone are opened."""
SECONDS_PER_TOKEN = 0.02
TOO_FAST = "tokens-faster-than-decoded"
"""The lie of who commits as fast as it can hash."""
LUCKY = {
    *("kinder-blocks", "kinder-tokens", "kindest-link"),
    *("answers-late", "late-dated-back", "manifest-withheld"),
}
"""Liars whom the draw may happen to suit, or who have nothing but time on their side."""
KINDS = {"": Provider, TOO_FAST: Provider} | {
    liar.name: liar.provider
    for liar in ALL_ADVERSARIES
    if liar.found is Found.CHECK
    and liar.provider is not Provider
    and liar.threat not in {Threat.UNLISTED, Threat.KEYS}
    and liar.name not in LUCKY
}
LIES = tuple(name for name in KINDS if name)


def unhurried(policy: profile_pb2.Policy) -> None:
    """Edit a policy so that every honest reply satisfies it, by clocks that are moved by hand."""
    easy(policy)
    policy.max_tokens_per_second = 1.1 / SECONDS_PER_TOKEN


def new_parties() -> Parties:
    """Return the keys of a provider and a verifier, under caps that no audit meets."""
    profile = small_profile(tokens_ppm=1_000_000, blocks_ppm=1_000_000, whole_blocks_ppm=1_000_000)
    return Parties(profile, small_policy(unhurried))


def reader_of(parties: Parties) -> Reader:
    """Return what bundles of a verifier are read by."""
    return Reader(parties.trust, parties.models, parties.policy, replay)


class Providers:
    """One provider to whoever asks it; inside, one for each lie."""

    def __init__(self, parties: Parties) -> None:
        self._parties = parties
        self._stack = ExitStack()
        self._kinds: dict[str, Provider] = {}
        self._honest = self._of("")
        self._holders: dict[bytes, Provider] = {}

    def reply(self, lie: str) -> bytes:
        """Reply to a client; return its receipt, once all is ready to be audited."""
        provider = self._of(lie)
        pace = 0.0 if lie == TOO_FAST else SECONDS_PER_TOKEN
        reply = run_session(provider, reasoning_ids(TOKENS), seconds_per_token=pace)
        self._holders[reply.commitment_sha256] = provider
        provider.wait_ready(reply.commitment_sha256, WAIT_SECONDS)
        reply.receipt.billed.CopyFrom(reply.commitment.usage)
        return reply.receipt.SerializeToString(deterministic=True)

    def _of(self, lie: str) -> Provider:
        if lie not in self._kinds:
            provider = self._parties.provider(KINDS[lie])
            self._kinds[lie] = self._stack.enter_context(provider)
        return self._kinds[lie]

    def holder(self, commitment_sha256: bytes) -> Provider:
        """Return which of them committed to this."""
        return self._holders.get(commitment_sha256, self._honest)

    def close(self) -> None:
        """End all of them."""
        self._stack.close()
