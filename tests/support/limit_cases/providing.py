"""Limits that a provider keeps by itself."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from coin_protocol.clock import SteadyClock
from coin_protocol.keyset import stamp
from coin_protocol.testing.small import small_profile
from coin_protocol.transport import TokenFile, Unobserved
from coin_protocol.usage import INSIDE, usage_for
from tests.support.limit_cases.case import Kind, LimitCase, RefusedError
from tests.support.marked import a_reader, chunk, rules
from tests.support.parties import MODEL, REQUEST, Parties, run_session

SESSION: Final = "provider_sdk.session"
ANSWERING: Final = "provider_sdk.answering"
READER: Final = "provider_sdk.gateway.dialects.reader"


class StoppedClock(SteadyClock):
    """A clock that stands still."""

    def __init__(self) -> None:
        """Read the time once."""
        super().__init__()
        self._now = super().nanoseconds() // 1000 * 1000

    def nanoseconds(self) -> int:
        """Return it again."""
        return self._now


def _session(
    *,
    model: str = MODEL,
    request: bytes = REQUEST,
    nonce: bytes = bytes(32),
    answer_tokens: int = 1,
) -> object:
    with Parties().provider() as provider:
        session = provider.open_session(model=model, request=request, client_nonce=nonce)
        usage = usage_for(
            prompt_tokens=1, reasoning_tokens=0, answer_tokens=answer_tokens, counting=INSIDE
        )
        return session.finish(answer=b"yes", answer_tokens=answer_tokens, usage=usage)


def _late(seconds: int) -> object:
    parties, clock = Parties(), StoppedClock()
    with parties.provider(clock=clock) as provider:
        reply = run_session(provider)
        _, fingerprints = reply.ready()
        deadline = stamp(clock.utc() - timedelta(seconds=seconds))
        challenge = parties.challenge(fingerprints, deadline=deadline)
        return provider.answer(reply.commitment_sha256, challenge)


def _challenges(count: int) -> object:
    every = {"tokens_ppm": 1_000_000, "blocks_ppm": 1_000_000}
    parties = Parties(profile=small_profile(**every))
    with parties.provider() as provider:
        reply = run_session(provider)
        _, fingerprints = reply.ready()
        for _ in range(count):
            provider.answer(reply.commitment_sha256, parties.challenge(fingerprints))
    return count


def _tokens_of(size: int) -> object:
    with TemporaryDirectory() as folder:
        path = Path(folder, "tokens")
        path.write_text(f"{'n' * size}={sha256(b'token').hexdigest()}\n")
        return TokenFile(path, Unobserved())


def _upstream(count: int) -> object:
    reader = a_reader(rules())
    reader.event(chunk({"content": "a"}, index=count - 1))
    if reader.problem:
        raise RefusedError(reader.problem)
    return reader


PROVIDING: Final = (
    # Lowered, as what a session signs is read again, which keeps the same limits.
    LimitCase(
        "MAX_NAME_BYTES",
        SESSION,
        "model",
        lambda size: _session(model="m" * size),
        "1 to 100 bytes",
        lowered=100,
    ),
    LimitCase(
        "NONCE_MIN_BYTES",
        SESSION,
        "client's nonce",
        lambda size: _session(nonce=bytes(size)),
        "must have 20 to",
        Kind.LEAST,
        lowered=20,
    ),
    LimitCase(
        "NONCE_MAX_BYTES",
        SESSION,
        "client's nonce",
        lambda size: _session(nonce=bytes(size)),
        "to 40 bytes",
        lowered=40,
    ),
    LimitCase(
        "MAX_TEXT_BYTES",
        SESSION,
        "request",
        lambda size: _session(request=bytes(size)),
        "at most 100 are taken",
        lowered=100,
    ),
    LimitCase(
        "MAX_REASONING_TOKENS",
        SESSION,
        "answer_tokens",
        lambda count: _session(answer_tokens=count),
        "answer_tokens must lie in .* 100",
        lowered=100,
    ),
    LimitCase("CLOCK_SKEW_SECONDS", ANSWERING, "late challenge", _late, "deadline .* has passed"),
    LimitCase(
        "FLIP_CHAIN_LENGTH",
        ANSWERING,
        "challenges",
        _challenges,
        "answered all of its 64 challenges",
        behind="flip index must lie in",
    ),
    LimitCase(
        "MAX_NAME_BYTES",
        "coin_protocol.transport.tokens",
        "verifier of a token",
        _tokens_of,
        "name has at most 256",
    ),
    LimitCase("MAX_CHOICES", READER, "choices", _upstream, "0 to 1023"),
)
"""What must be refused by a provider, whatever messages allow."""
