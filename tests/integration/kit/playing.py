"""Play a liar, or the honest provider, over a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from coin_protocol.keyset import sign_key_set
from coin_protocol.profile import Profile
from coin_protocol.testing.adversaries import Adversary, Found
from coin_protocol.testing.small import small_profile
from coin_protocol.testing.world import Edit
from coin_protocol.v1 import envelope_pb2, profile_pb2
from provider_sdk.replay.server import make_replay_server
from tests.support.parties import PROVIDER, Parties, easy, small_policy
from tests.support.replays import HONEST, LONG, SHORT, TOKENS_PER_SECOND
from tests.support.servers import served


def hurried(policy: profile_pb2.Policy) -> None:
    """Give providers two seconds."""
    easy(policy)
    policy.challenge_deadline.FromSeconds(2)


def paced(policy: profile_pb2.Policy) -> None:
    """Tell decoding at a hundred tokens a second from hashing."""
    easy(policy)
    policy.max_tokens_per_second = 200


@dataclass(frozen=True)
class Plan:
    """How a lie is played and audited.

    Attributes:
        policy: Edits the verifier's rules.
        profile: What is committed.
        rate: Tokens a second.
    """

    policy: Edit[profile_pb2.Policy] = easy
    profile: Profile = field(default_factory=small_profile)
    rate: float = TOKENS_PER_SECOND


PLANS = {
    "usual": Plan(),
    "hurried": Plan(hurried),
    "paced": Plan(paced, rate=100),
    # Caps that leave room for embeddings alone: no draw falls on a forged leaf.
    "tight": Plan(profile=small_profile(tokens_ppm=0)),
}


def plan_of(liar: Adversary) -> str:
    """Return the name of the plan by which a lie comes out."""
    if liar.found == Found.UNTIMED or liar.caught_by == "ARRIVAL_TIME":
        return "paced"
    return "hurried" if "late" in liar.name.split("-") else "usual"


@dataclass(frozen=True)
class Played(Parties):
    """Parties whose provider's key is listed as a lie wants it."""

    liar: Adversary = HONEST

    @cached_property
    def key_set(self) -> envelope_pb2.Envelope:
        """The provider's signed key set."""
        now = datetime.now(UTC)
        listed = self.liar.lists(self.signer.public, now)
        return sign_key_set(PROVIDER, [listed], root=self.root, issued_at=now, sequence=1)


@asynccontextmanager
async def playing(
    liar: Adversary = HONEST, plan: str = "usual"
) -> AsyncIterator[tuple[Played, str]]:
    """Serve a liar's replays, and its answers to challenges; give the parties and HOST:PORT."""
    chosen = PLANS[plan]
    parties = Played(profile=chosen.profile, policy=small_policy(chosen.policy), liar=liar)
    with parties.provider(liar.provider) as provider:
        replay = liar.replay(provider, [LONG, SHORT], tokens_per_second=chosen.rate)
        server = await make_replay_server({liar.name: replay})
        async with served(server) as target:
            yield parties, target
