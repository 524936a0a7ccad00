"""Auditors that challenge commitments, several at once, and hold every signed answer."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from benchmarks._faults.children import Child
from benchmarks._faults.clients import Load
from benchmarks._faults.house import VERIFIER, House
from coin_protocol import envelope
from coin_protocol.clock import wall_time
from coin_protocol.encoding import digest
from coin_protocol.errors import PeerUnavailableError
from coin_protocol.keys import read_time
from coin_protocol.keyset import stamp
from coin_protocol.v1 import envelope_pb2, opening_pb2, receipt_pb2
from verifier_sdk.client import ProviderClient, seconds_given

_TRY_SECONDS: Final = 3.0
_ANSWER_SECONDS: Final = 25.0
"""Tries of one challenge: its deadline, and half of the policy's, lie behind this."""
_AT_ONCE: Final = 4
_BURSTS: Final = 2
_LOST: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"})
"""What a call ends with whose server is killed. All else says something of the server."""

Challenge = opening_pb2.Challenge | opening_pb2.WholeBlockChallenge


@dataclass
class Held:
    """What auditors hold of one commitment.

    Attributes:
        fingerprints: As signed.
        rounds: Challenges and what came of them.
        whole_rounds: The same for whole-block challenges.
    """

    fingerprints: envelope_pb2.Envelope
    rounds: list[receipt_pb2.Round] = field(default_factory=list)
    whole_rounds: list[receipt_pb2.Round] = field(default_factory=list)

    @property
    def openings(self) -> int:
        """Signed openings among them."""
        return sum(entry.HasField("opening") for entry in (*self.rounds, *self.whole_rounds))

    @property
    def refusals(self) -> int:
        """Signed refusals among them."""
        return sum(entry.HasField("refusal") for entry in (*self.rounds, *self.whole_rounds))


class Auditors:
    """Challenge what clients were given, over whichever challenge services are up."""

    def __init__(self, house: House, services: Sequence[Child], load: Load, seed: int) -> None:
        """Prepare; nothing is sent before `auditor`.

        Args:
            house: Signs challenges.
            services: To be asked.
            load: Whose replies are audited.
            seed: Of everything that is left to chance here.
        """
        self.held: dict[bytes, Held] = {}
        self.strange: Counter[str] = Counter()
        self.unanswered = 0
        self._house = house
        self._services = services
        self._load = load
        self._chance = random.Random(f"audits {seed}")  # noqa: S311 - no secret

    async def auditor(self, stop: asyncio.Event) -> None:
        """Audit one commitment after the other until `stop`."""
        while not stop.is_set():
            try:
                reply = await asyncio.wait_for(self._load.whole.get(), 0.5)
            except TimeoutError:
                continue
            for choice in reply.delivery.choices if reply.delivery is not None else ():
                if choice.HasField("commitment"):
                    await self._audit(digest(choice.commitment.payload), stop)

    async def _audit(self, key: bytes, stop: asyncio.Event) -> None:
        fingerprints = await self._fingerprints(key, stop)
        if fingerprints is None:
            return
        held = self.held.setdefault(key, Held(fingerprints))
        for _ in range(_BURSTS):
            made = [self.challenge(fingerprints) for _ in range(_AT_ONCE)]
            # The same one again at the same time: it must be the same opening.
            await asyncio.gather(*(self.ask(key, held, each) for each in [*made, made[0]]))

    async def _fingerprints(self, key: bytes, stop: asyncio.Event) -> envelope_pb2.Envelope | None:
        while not stop.is_set():
            service = await self._chance.choice(self._services).ready()
            async with ProviderClient(service.target, tls=None, timeout=_TRY_SECONDS) as client:
                try:
                    return (await client.manifest(key))[1]
                except PeerUnavailableError as error:
                    self._note(error.status, "manifest")
        return None

    def challenge(self, fingerprints: envelope_pb2.Envelope) -> envelope_pb2.Envelope:
        """Return a signed challenge of some kind and size."""
        chance = self._chance
        if chance.random() < 0.25:
            return self.signed(fingerprints, whole=True, blocks=1)
        return self.signed(
            fingerprints,
            blocks=chance.randint(1, 3),
            token_blocks=chance.randint(0, 3),
            tokens_per_block=chance.randint(1, 4),
        )

    def signed(
        self,
        fingerprints: envelope_pb2.Envelope,
        *,
        whole: bool = False,
        blocks: int = 0,
        token_blocks: int = 0,
        tokens_per_block: int = 0,
    ) -> envelope_pb2.Envelope:
        """Return a signed challenge."""
        deadline = read_time(wall_time()) + timedelta(seconds=self._house.policy.deadline_seconds)
        message: Challenge
        if whole:
            message = opening_pb2.WholeBlockChallenge(blocks=blocks)
        else:
            message = opening_pb2.Challenge(
                blocks=blocks, token_blocks=token_blocks, tokens_per_block=tokens_per_block
            )
        message.fingerprints_sha256 = digest(fingerprints.payload)
        message.verifier = VERIFIER
        message.nonce = secrets.token_bytes(32)
        message.round = 1
        message.deadline.CopyFrom(stamp(deadline))
        kind = envelope.WHOLE_CHALLENGE if whole else envelope.CHALLENGE
        return envelope.sign(message.SerializeToString(), kind, self._house.verifier)

    async def ask(
        self, key: bytes, held: Held, challenge: envelope_pb2.Envelope
    ) -> receipt_pb2.Round | None:
        """Send a challenge until it is answered, to any service; hold the answer and return it."""
        whole = challenge.payload_type == envelope.WHOLE_CHALLENGE
        end = asyncio.get_running_loop().time() + _ANSWER_SECONDS
        while asyncio.get_running_loop().time() < end:
            service = await self._chance.choice(self._services).ready()
            sent = receipt_pb2.Round(challenge=challenge, sent_at=wall_time())
            if seconds_given(sent, whole=whole) <= self._house.policy.deadline_seconds / 2 + 1:
                break  # on a machine that stood still: an answer could not be told from a late one
            async with ProviderClient(service.target, tls=None, timeout=_TRY_SECONDS) as client:
                entry = await client.challenge(key, challenge, whole=whole)
            if not entry.HasField("no_answer"):
                (held.whole_rounds if whole else held.rounds).append(entry)
                return entry
            self._note(entry.no_answer, "challenge")
        self.unanswered += 1
        return None

    def _note(self, status: str, what: str) -> None:
        if status not in _LOST:
            self.strange[f"{what}: {status}"] += 1
