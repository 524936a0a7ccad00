"""A verifier that tries everything finds nothing here, and each broken provider out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import pytest
from grpc import aio

from coin_protocol import draw, transport
from coin_protocol.encoding import digest
from coin_protocol.errors import CoinError, InvalidInputError, PeerUnavailableError
from coin_protocol.exposure import ExposureLedger
from coin_protocol.profile import Profile
from coin_protocol.testing.adversaries import FlipReused, MadeUpFlip
from coin_protocol.testing.malicious_verifier import Finding, MaliciousVerifier
from coin_protocol.testing.small import small_profile
from coin_protocol.transport import guard
from coin_protocol.v1 import envelope_pb2, opening_pb2
from coin_protocol.v1.provider_service_pb2_grpc import add_ProviderServiceServicer_to_server
from provider_sdk.answering import Answerer, Challenge
from provider_sdk.provider import Provider
from provider_sdk.record import MemoryStore, SessionRecord
from provider_sdk.service import SERVICE, ProviderServicer, ServiceSettings, make_server
from tests.support.parties import Parties, reasoning_ids, run_session
from tests.support.servers import served

SECONDS = 5.0
TOKENS = 160
QUICK = ServiceSettings(rate=transport.RateLimit(per_second=10_000.0, burst=10_000))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """End calls whose request does not come soon."""
    monkeypatch.setattr(guard, "REQUEST_SECONDS", 0.2)


@asynccontextmanager
async def attacking(
    parties: Parties,
    provider: Provider,
    server: aio.Server | None = None,
    *,
    tokens: int = TOKENS,
    seconds: float = SECONDS,
) -> AsyncIterator[MaliciousVerifier]:
    """Give a verifier that is about to attack a provider with two replies."""
    first, second = (run_session(provider, reasoning_ids(tokens)) for _ in range(2))
    async with (
        served(server or await make_server(provider, QUICK)) as target,
        MaliciousVerifier(
            target,
            tls=None,
            profile=parties.profile,
            receipts=(first.receipt, second.receipt),
            signers=(parties.verifier, parties.other),
            seconds=seconds,
        ) as verifier,
    ):
        yield verifier


def wrong(findings: list[Finding]) -> dict[str, str]:
    """Return what was found of the attempts that did not end as they should."""
    return {finding.attempt: finding.found for finding in findings if not finding.ok}


PROFILES = {
    "usual": small_profile(),
    "runs": small_profile(run_tokens=3),
    "narrow": small_profile(tokens_ppm=120_000, blocks_ppm=100_000, whole_blocks_ppm=0),
    "open": small_profile(tokens_ppm=1_000_000, blocks_ppm=1_000_000, whole_blocks_ppm=1_000_000),
}


@pytest.mark.parametrize("name", PROFILES)
async def test_our_challenge_service_stands_every_attempt(name: str) -> None:
    parties = Parties(profile=PROFILES[name])
    with parties.provider() as provider:
        async with attacking(parties, provider) as verifier:
            findings = await verifier.attempt_all()
    assert wrong(findings) == {}
    assert len({finding.attempt for finding in findings}) == len(findings) > 40


async def test_rate_limits_are_waited_out(parties: Parties, provider: Provider) -> None:
    limited = ServiceSettings(rate=transport.RateLimit(per_second=100.0, burst=20))
    server = await make_server(provider, limited)
    async with attacking(parties, provider, server) as verifier:
        assert wrong(await verifier.attempt_all()) == {}


async def test_a_receipt_of_another_provider_is_an_error(
    parties: Parties, provider: Provider
) -> None:
    with parties.provider() as other:
        server = await make_server(other, QUICK)
        async with attacking(parties, provider, server) as verifier:
            with pytest.raises(PeerUnavailableError, match="NOT_FOUND"):
                await verifier.attempt_all()


async def test_a_reply_without_reasoning_is_an_error(parties: Parties, provider: Provider) -> None:
    async with attacking(parties, provider, tokens=0) as verifier:
        with pytest.raises(InvalidInputError, match="no reasoning"):
            await verifier.attempt_all()


# Broken providers


def give(
    record: SessionRecord, challenge: envelope_pb2.Envelope, index: int
) -> opening_pb2.AnsweredChallenge:
    """Give a challenge a link, whatever the caps say."""
    step = opening_pb2.AnsweredChallenge(
        challenge=challenge, flip_index=index, flip=draw.flip_for(record.flip_secret, index)
    )
    return record.answered.setdefault(digest(challenge.payload), step)


class NoLedger(Provider):
    class answerer_class(Answerer):  # noqa: N801
        def step(
            self, record: SessionRecord, challenge: envelope_pb2.Envelope, message: Challenge
        ) -> opening_pb2.AnsweredChallenge:
            del message
            return give(record, challenge, len(record.answered) % 64 + 1)


class LedgerOfEach(Provider):
    class answerer_class(Answerer):  # noqa: N801
        def step(
            self, record: SessionRecord, challenge: envelope_pb2.Envelope, message: Challenge
        ) -> opening_pb2.AnsweredChallenge:
            ledgers: dict[str, ExposureLedger] = record.__dict__.setdefault("ledgers", {})
            record.ledger = ledgers.setdefault(challenge.signatures[0].keyid, ExposureLedger())
            return super().step(record, challenge, message)


class Racing(Provider):
    class answerer_class(Answerer):  # noqa: N801
        def step(
            self, record: SessionRecord, challenge: envelope_pb2.Envelope, message: Challenge
        ) -> opening_pb2.AnsweredChallenge:
            index = len(record.answered) + 1
            time.sleep(0.01)
            step = super().step(record, challenge, message)
            if step.flip_index >= index:
                step.flip_index, step.flip = index, draw.flip_for(record.flip_secret, index)
            return step


class Unlocked(MemoryStore):
    @contextmanager
    def exclusive(self, record: SessionRecord) -> Iterator[None]:
        del record
        yield


class AnySignature(Provider):
    class answerer_class(Answerer):  # noqa: N801
        def _authenticate(self, challenge: envelope_pb2.Envelope, payload_type: str) -> None:
            """Believe anybody."""


class AnyTimeAndPlace(Provider):
    class answerer_class(Answerer):  # noqa: N801
        def _require_fit(self, record: SessionRecord, message: Challenge) -> None:
            """Take anything."""


class LongRuns(Provider):
    class answerer_class(Answerer):  # noqa: N801
        def open(
            self,
            record: SessionRecord,
            message: opening_pb2.Challenge,
            step: opening_pb2.AnsweredChallenge,
        ) -> opening_pb2.Opening:
            opening, opener = super().open(record, message, step), self.opener(record)
            drawn = draw.drawn_by(message, step.flip, opener.token_counts, run_tokens=4)
            opening.ClearField("token_blocks")
            opening.token_blocks.extend(map(opener.token_block, drawn.token_blocks))
            return opening


class AnewEachTime(Provider):
    class answerer_class(Answerer):  # noqa: N801
        def step(
            self, record: SessionRecord, challenge: envelope_pb2.Envelope, message: Challenge
        ) -> opening_pb2.AnsweredChallenge:
            record.answered[bytes([len(record.answered)])] = opening_pb2.AnsweredChallenge()
            record.answered.pop(digest(challenge.payload), None)
            return super().step(record, challenge, message)


class Backwards(Provider):
    class answerer_class(Answerer):  # noqa: N801
        def step(
            self, record: SessionRecord, challenge: envelope_pb2.Envelope, message: Challenge
        ) -> opening_pb2.AnsweredChallenge:
            step = super().step(record, challenge, message)
            if len(record.answered) > 1:
                step.flip_index = 66 - len(record.answered)
                step.flip = draw.flip_for(record.flip_secret, step.flip_index)
            return step


class Crashing(Provider):
    def answer(
        self, commitment_sha256: bytes, challenge: envelope_pb2.Envelope
    ) -> envelope_pb2.Envelope:
        try:
            return super().answer(commitment_sha256, challenge)
        except CoinError as error:
            raise ValueError from error


@dataclass(frozen=True)
class Broken:
    """A provider with a hole, and attempts that must find it."""

    kind: type[Provider]
    found_by: tuple[str, ...]
    profile: Profile = PROFILES["usual"]
    store: type[MemoryStore] = MemoryStore


BROKEN: Mapping[str, Broken] = {
    "keeps no ledger": Broken(
        NoLedger,
        (
            "every block at once",
            "every token at once",
            "every block whole at once",
            "blocks asked for without end, by two verifiers in turn",
            "whole blocks asked for without end, by two verifiers in turn",
            "embeddings alone asked for without end, by two verifiers in turn",
        ),
    ),
    "keeps a ledger of each verifier": Broken(
        LedgerOfEach, ("blocks asked for without end, by two verifiers in turn",)
    ),
    "does not lock": Broken(Racing, ("32 challenges of two verifiers at once",), store=Unlocked),
    "checks no signature": Broken(
        AnySignature,
        (
            "a challenge unsigned",
            "a challenge signed by a stranger",
            "a challenge signed by a stranger who names a verifier's key",
            "a challenge changed after it was signed",
            "a challenge typed as an opening",
            "a challenge with 17 signatures",
            "a sound challenge after all these",
        ),
    ),
    "checks neither time nor place": Broken(
        AnyTimeAndPlace,
        (
            "a challenge to another commitment's fingerprints",
            "a challenge an hour past its deadline",
            "a challenge with a deadline in the year 1",
        ),
    ),
    "opens longer runs than agreed": Broken(LongRuns, ("half the tokens of 3 blocks",)),
    "reuses flips": Broken(
        FlipReused,
        ("the same nonce with another round", "a nonce aimed at a block"),
    ),
    "makes flips up": Broken(MadeUpFlip, ("a nonce", "a sound challenge after all these")),
    "opens anew each time": Broken(AnewEachTime, ("the same challenge again",)),
    "gives links backwards": Broken(Backwards, ("a nonce aimed at a block",)),
    "crashes": Broken(
        Crashing, ("a challenge unsigned", "a challenge with a short nonce", "every block at once")
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_provider_that_is_broken_is_found_out(name: str) -> None:
    broken = BROKEN[name]
    parties = Parties(profile=broken.profile)
    with parties.provider(broken.kind, store=broken.store()) as provider:
        async with attacking(parties, provider) as verifier:
            findings = wrong(await verifier.attempt_all())
    assert set(broken.found_by) <= findings.keys()


async def test_a_server_without_a_guard_is_found_out(parties: Parties, provider: Provider) -> None:
    server = await transport.make_server(SERVICE)
    add_ProviderServiceServicer_to_server(ProviderServicer(lambda _: provider), server)
    async with attacking(parties, provider, server, seconds=1.0) as verifier:
        findings = wrong(await verifier.attempt_all())
    assert findings == {"a call whose request never comes": "0 of 16 ended"}
