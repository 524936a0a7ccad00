"""Caps of the profile (protocol, section 3), which providers keep and verifiers know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from coin_protocol.profile import Profile
from coin_protocol.testing.small import small_profile
from coin_protocol.v1 import profile_pb2
from coin_protocol.v1.envelope_pb2 import Envelope
from tests.support.parties import Parties, reasoning_ids, run_session

TOKENS: Final = 40
"""In five blocks."""

ALL: Final = 1_000_000
"""Parts of a million."""

_BUT: Final = {
    "tokens_ppm": ALL,
    "blocks_ppm": ALL,
    "whole_blocks_ppm": ALL,
    "min_tokens": 0,
    "min_blocks": 0,
    "run_tokens": 1,
}
"""Caps that keep nothing back."""

Ask = Callable[[Parties, Envelope, int], Envelope]


def _tokens(parties: Parties, fingerprints: Envelope, count: int) -> Envelope:
    # The last token of all is shown with the first challenge, and counts.
    return parties.challenge(fingerprints, blocks=0, token_blocks=1, tokens_per_block=count - 1)


def _blocks(parties: Parties, fingerprints: Envelope, count: int) -> Envelope:
    return parties.challenge(fingerprints, blocks=count, tokens_per_block=0)


def _whole(parties: Parties, fingerprints: Envelope, count: int) -> Envelope:
    return parties.whole_challenge(fingerprints, blocks=count)


@dataclass(frozen=True, slots=True)
class CapCase:
    """A cap, and what may be opened under it.

    Attributes:
        cap: Name of the field of `ExposureCaps`.
        what: What it bounds.
        agreed: Caps under which `most` may be opened, and no more.
        most: How many.
        ask: Makes a challenge for so many, in a session of `TOKENS` tokens.
        whole: Whether it asks for blocks opened whole.
    """

    cap: str
    what: str
    agreed: dict[str, int]
    most: int
    ask: Ask
    whole: bool = False

    def opened(self, count: int, *, capped: bool) -> Envelope:
        """Ask a provider for so many; under wide caps where not `capped`.

        Raises:
            RefusedChallengeError: The provider refused.
        """
        parties = Parties(profile=_profile({**_BUT, **(self.agreed if capped else {})}))
        with parties.provider() as provider:
            reply = run_session(provider, reasoning_ids(TOKENS))
            _, fingerprints = reply.ready()
            challenge = self.ask(parties, fingerprints, count)
            answer = provider.answer_whole if self.whole else provider.answer
            return answer(reply.commitment_sha256, challenge)


def _profile(caps: dict[str, int]) -> Profile:
    message = profile_pb2.Profile()
    message.CopyFrom(small_profile().message)
    message.caps.CopyFrom(profile_pb2.ExposureCaps(**caps))
    return Profile.from_bytes(message.SerializeToString(deterministic=True))


CAPS: Final = (
    CapCase("tokens_ppm", "share of the tokens", {"tokens_ppm": 200_000}, 8, _tokens),
    CapCase(
        "min_tokens",
        "tokens, where the share is less",
        {"tokens_ppm": 0, "min_tokens": 5},
        5,
        _tokens,
    ),
    CapCase("blocks_ppm", "share of the blocks' embeddings", {"blocks_ppm": 400_000}, 2, _blocks),
    CapCase(
        "min_blocks",
        "embeddings, where the share is less",
        {"blocks_ppm": 0, "min_blocks": 1},
        1,
        _blocks,
    ),
    CapCase(
        "whole_blocks_ppm",
        "share of the blocks that may be opened whole; one at least where any",
        {"whole_blocks_ppm": 400_000},
        2,
        _whole,
        whole=True,
    ),
)
"""All but `run_tokens`, which says how much is drawn together and not how much is opened."""
