"""Replays of small traces over real sockets, honest and lying."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from coin_protocol import transport
from coin_protocol.testing.adversaries import Adversary
from coin_protocol.v1 import profile_pb2, receipt_pb2
from provider_sdk.replay import Trace
from provider_sdk.replay.server import make_replay_server
from tests.support.parties import ANSWER, PROVIDER, REASONING, WAIT_SECONDS, Parties, easy
from tests.support.servers import served
from verifier_sdk.replay_client import ask_replay

TOKENS_PER_SECOND = 2_000.0
HONEST = Adversary("honest", "honest", "")
LONG = Trace("sky-01", "physics", "why is the sky blue?", " ".join([REASONING] * 4), ANSWER)
SHORT = Trace("sky-02", "physics", "why is the evening red?", REASONING, ANSWER)


def brisk(policy: profile_pb2.Policy) -> None:
    """Edit a policy so that decoding a small trace takes long enough to be told from hashing."""
    easy(policy)
    policy.max_tokens_per_second = 2 * TOKENS_PER_SECOND


def slow(policy: profile_pb2.Policy) -> None:
    """Edit a policy so that a small trace takes seconds to decode."""
    easy(policy)
    policy.max_tokens_per_second = TOKENS_PER_SECOND / 10


@asynccontextmanager
async def replaying(parties: Parties, liar: Adversary = HONEST) -> AsyncIterator[str]:
    """Serve a liar's replays, and its answers to challenges, on one port."""
    with liar.provider(
        name=PROVIDER,
        signer=parties.signer,
        key_set=parties.key_set,
        models=parties.models,
        verifiers=parties.verifiers,
    ) as provider:
        replay = liar.replay(provider, [LONG, SHORT], tokens_per_second=TOKENS_PER_SECOND)
        server = await make_replay_server({liar.name: replay})
        async with served(server) as target:
            yield target


async def ask(
    target: str, model: str = HONEST.name, question: str = LONG.question
) -> receipt_pb2.Receipt:
    """Ask a replay; return the receipt."""
    async with transport.open_channel(target, None) as channel:
        return await ask_replay(channel, model=model, question=question, seconds=WAIT_SECONDS)
