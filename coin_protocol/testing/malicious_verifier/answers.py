"""What a provider's answers show, all of them together, and what is wrong with it. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from coin_protocol import draw, envelope, statements
from coin_protocol.checks.opened import shown_blocks
from coin_protocol.encoding import digest
from coin_protocol.errors import CoinError, ExposureCapError
from coin_protocol.exposure import Caps, ExposureLedger
from coin_protocol.keys import KeyRing
from coin_protocol.limits import FLIP_CHAIN_LENGTH
from coin_protocol.profile import Profile
from coin_protocol.v1 import envelope_pb2, opening_pb2

TURNED_AWAY: Final = frozenset(
    {
        "INVALID_ARGUMENT",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "NOT_FOUND",
        "FAILED_PRECONDITION",
        "RESOURCE_EXHAUSTED",
    }
)
"""Statuses by which a provider says that it will not answer."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one attempt.

    Attributes:
        attempt: What was tried.
        wanted: What a correct provider must do.
        found: What came.
        ok: Whether that is right.
    """

    attempt: str
    wanted: str
    found: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """Name of a call's status, and what came with it."""

    status: str
    opening: envelope_pb2.Envelope | None = None
    refusal: envelope_pb2.Envelope | None = None

    @property
    def turned_away(self) -> bool:
        """Whether the provider said that it will not answer."""
        return self.opening is None and self.status in TURNED_AWAY


@dataclass
class Target:
    """A commitment under attack, and all that was shown of it.

    Attributes:
        sha256: What names the commitment.
        fingerprints_sha256: What its challenges name.
        anchor: Of its hash chain.
        counts: Tokens of each block.
        profile: What it is made of.
        keys: Of the provider.
        used: Challenge (digest) and bytes of each flip given, by its index.
        shown: What was opened, by all challenges.
    """

    sha256: bytes
    fingerprints_sha256: bytes
    anchor: bytes
    counts: list[int]
    profile: Profile
    keys: KeyRing
    used: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    shown: ExposureLedger = field(default_factory=ExposureLedger)

    @property
    def caps(self) -> Caps:
        """How much may ever be opened."""
        caps = self.profile.message.caps
        return Caps.of(caps, tokens=sum(self.counts), blocks=len(self.counts))

    def drawn(self, challenge: opening_pb2.Challenge, flip: bytes) -> draw.Drawn:
        """Return what a challenge draws with a flip."""
        return draw.drawn_by(challenge, flip, self.counts, run_tokens=self.profile.run_tokens)

    def faults(self, challenge: envelope_pb2.Envelope, answer: Answer) -> list[str]:
        """Return what is wrong with what came of a challenge, and note what was shown."""
        whole = challenge.payload_type == envelope.WHOLE_CHALLENGE
        try:
            if answer.refusal is not None:
                return list(self._of_refusal(challenge, answer.refusal))
            if answer.opening is None:
                return [] if answer.turned_away else [f"the status was {answer.status}"]
            look = self._of_whole if whole else self._of_opening
            return list(look(challenge, answer.opening))
        except CoinError as error:
            return [str(error)]

    def _of_opening(
        self, challenge: envelope_pb2.Envelope, signed: envelope_pb2.Envelope
    ) -> Iterator[str]:
        envelope.verify(signed, envelope.OPENING, self.keys)
        opening = statements.read_opening(signed.payload)
        edge = opening.edge
        blocks = {block.block_index for block in opening.blocks}
        tokens = {
            (block.block_index, token.position)
            for block in shown_blocks(opening)
            for token in block.tokens
        }
        self.shown.tokens |= {*tokens, (edge.block_index, edge.last_token.position)}
        self.shown.block_embeddings |= blocks
        yield from self._of_flip(challenge, opening)
        drawn = self.drawn(statements.read_challenge(challenge.payload), opening.flip)
        wanted = {
            (block.index, position)
            for block in (*drawn.blocks, *drawn.token_blocks)
            for position in block.positions
        }
        if tokens != wanted or blocks != {block.index for block in drawn.blocks}:
            yield "something else was opened than nonce, flip and the profile's runs draw"
        yield from self._past_caps()

    def _of_whole(
        self, challenge: envelope_pb2.Envelope, signed: envelope_pb2.Envelope
    ) -> Iterator[str]:
        envelope.verify(signed, envelope.WHOLE_OPENING, self.keys)
        opening = statements.read_whole_opening(signed.payload)
        blocks = {block.block_index for block in opening.blocks}
        self.shown.whole_blocks |= blocks
        yield from self._of_flip(challenge, opening)
        message = statements.read_whole_challenge(challenge.payload)
        if blocks != set(draw.drawn_whole_by(message, opening.flip, len(self.counts))):
            yield "other blocks were opened whole than nonce and flip draw"
        yield from self._past_caps()

    def _of_flip(
        self,
        challenge: envelope_pb2.Envelope,
        opening: opening_pb2.Opening | opening_pb2.WholeBlockOpening,
    ) -> Iterator[str]:
        named = digest(challenge.payload)
        if opening.challenge_sha256 != named:
            yield "the answer is to another challenge"
        yield from self._note(opening.flip_index, named, opening.flip)
        if sum(known == named for known, _ in self.used.values()) > 1:
            yield "one challenge was given two flips"

    def _note(self, index: int, challenge: bytes, flip: bytes) -> Iterator[str]:
        """Note which challenge a flip served."""
        draw.verify_flip(flip=flip, index=index, anchor=self.anchor)
        if self.used.setdefault(index, (challenge, flip))[0] != challenge:
            yield f"flip {index} served two challenges"

    def _past_caps(self) -> Iterator[str]:
        shown, caps = self.shown, self.caps
        for what, found, most in (
            ("tokens", len(shown.tokens), caps.tokens),
            ("block embeddings", len(shown.block_embeddings), caps.block_embeddings),
            ("whole blocks", len(shown.whole_blocks), caps.whole_blocks),
        ):
            if found > most:
                yield f"{found} {what} were opened, past the cap of {most}"

    def _of_refusal(
        self, challenge: envelope_pb2.Envelope, signed: envelope_pb2.Envelope
    ) -> Iterator[str]:
        """Yield why a refusal does not prove itself."""
        envelope.verify(signed, envelope.REFUSAL, self.keys)
        refusal = statements.read_refusal(signed.payload)
        if refusal.challenge_sha256 != digest(challenge.payload):
            yield "the refusal is of another challenge"
        indices = [entry.flip_index for entry in refusal.answered]
        if len(set(indices)) < len(indices):
            yield "the refusal shows a flip twice"
        ledger = ExposureLedger()
        for entry in refusal.answered:
            yield from self._note(entry.flip_index, digest(entry.challenge.payload), entry.flip)
            self._enter(ledger, entry)
        if refusal.reason == opening_pb2.REFUSAL_REASON_FLIPS_USED_UP:
            if len(indices) < FLIP_CHAIN_LENGTH:
                yield f"refused after {len(indices)} challenges, and the chain has more flips"
        elif not self._is_capped(ledger, challenge):
            yield "refused, and no cap was in the way"

    def _enter(self, ledger: ExposureLedger, entry: opening_pb2.AnsweredChallenge) -> None:
        raw, last = entry.challenge.payload, len(self.counts) - 1
        if entry.challenge.payload_type == envelope.WHOLE_CHALLENGE:
            whole = statements.read_whole_challenge(raw)
            ledger.add_whole(draw.drawn_whole_by(whole, entry.flip, len(self.counts)))
        else:
            drawn = self.drawn(statements.read_challenge(raw), entry.flip)
            ledger.add(drawn, edge=(last, self.counts[last] - 1))

    def _is_capped(self, ledger: ExposureLedger, challenge: envelope_pb2.Envelope) -> bool:
        try:
            if challenge.payload_type == envelope.WHOLE_CHALLENGE:
                whole = statements.read_whole_challenge(challenge.payload)
                ledger.require_whole(self.caps, blocks=whole.blocks)
            else:
                message = statements.read_challenge(challenge.payload)
                ledger.require(
                    self.caps,
                    blocks=message.blocks,
                    token_blocks=message.token_blocks,
                    tokens_per_block=message.tokens_per_block,
                )
        except ExposureCapError:
            return True
        return False
