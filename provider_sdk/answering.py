"""Answer challenges: who may ask, what is drawn, what the caps allow (protocol, section 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from coin_protocol import draw, envelope, statements
from coin_protocol.clock import SteadyClock
from coin_protocol.embedding import window_dimension
from coin_protocol.encoding import digest
from coin_protocol.errors import (
    FlipsUsedUpError,
    InvalidInputError,
    SignatureError,
    StatementError,
)
from coin_protocol.exposure import Caps
from coin_protocol.keys import KeyRing, read_time
from coin_protocol.limits import CLOCK_SKEW_SECONDS, FLIP_CHAIN_LENGTH
from coin_protocol.opening import Opener
from coin_protocol.profile import Profile
from coin_protocol.quantise import row_bytes
from coin_protocol.table import TokenTable
from coin_protocol.tokenizer import Tokenizer
from coin_protocol.v1 import envelope_pb2, opening_pb2
from provider_sdk.ledger import enter
from provider_sdk.record import SessionRecord

Challenge = opening_pb2.Challenge | opening_pb2.WholeBlockChallenge
C = TypeVar("C", opening_pb2.Challenge, opening_pb2.WholeBlockChallenge)


class ChallengeError(InvalidInputError):
    """A challenge is malformed, past its deadline, or not from a known verifier."""


class UnknownVerifierError(ChallengeError):
    """A challenge is signed by no verifier that this provider knows."""


@dataclass(frozen=True)
class Answerer:
    """Reads challenges, gives each its link of the chain, and opens what it draws.

    Attributes:
        profile: What commitments are made of.
        table: Its token table.
        tokenizer: Spells blocks opened whole.
        verifiers: Whose challenges are answered.
        clock: Dates openings and judges deadlines.
    """

    profile: Profile
    table: TokenTable
    tokenizer: Tokenizer
    verifiers: KeyRing
    clock: SteadyClock

    def read(
        self, record: SessionRecord, challenge: envelope_pb2.Envelope
    ) -> opening_pb2.Challenge:
        """Return what a challenge asks for.

        Raises:
            ChallengeError: It is malformed, late, names other fingerprints, or is not from a
                known verifier.
        """
        return self._read(record, challenge, envelope.CHALLENGE, statements.read_challenge)

    def read_whole(
        self, record: SessionRecord, challenge: envelope_pb2.Envelope
    ) -> opening_pb2.WholeBlockChallenge:
        """Return what a whole-block challenge asks for; errors as `read`."""
        return self._read(
            record, challenge, envelope.WHOLE_CHALLENGE, statements.read_whole_challenge
        )

    def step(
        self, record: SessionRecord, challenge: envelope_pb2.Envelope, message: Challenge
    ) -> opening_pb2.AnsweredChallenge:
        """Give a challenge its link of the hash chain, and enter it in the ledger.

        The caller holds the record (`SessionStore.exclusive`). One asked again keeps its link.

        Raises:
            ExposureCapError: It could pass a cap.
            FlipsUsedUpError: The hash chain is used up.
        """
        key = digest(challenge.payload)
        known = record.answered.get(key)
        if known is not None:
            return known
        tree = record.tree
        caps = Caps.of(
            self.profile.message.caps, tokens=tree.reasoning_tokens, blocks=tree.block_count
        )
        if isinstance(message, opening_pb2.WholeBlockChallenge):
            record.ledger.require_whole(caps, blocks=message.blocks)
        else:
            record.ledger.require(
                caps,
                blocks=message.blocks,
                token_blocks=message.token_blocks,
                tokens_per_block=message.tokens_per_block,
            )
        index = len(record.answered) + 1
        if index > FLIP_CHAIN_LENGTH:
            msg = f"this commitment has answered all of its {FLIP_CHAIN_LENGTH} challenges"
            raise FlipsUsedUpError(msg)
        step = opening_pb2.AnsweredChallenge(
            challenge=challenge, flip_index=index, flip=draw.flip_for(record.flip_secret, index)
        )
        record.answered[key] = step
        counts = [entry.token_count for entry in tree.entries]
        enter(record.ledger, step, counts, run_tokens=self.profile.run_tokens)
        return step

    @staticmethod
    def before(
        record: SessionRecord, step: opening_pb2.AnsweredChallenge
    ) -> list[opening_pb2.AnsweredChallenge]:
        """Return what was given the links before this one, in order; the caller holds the record.

        An opening shows them: no link was passed over for a draw that suits.
        """
        earlier = (one for one in record.answered.values() if one.flip_index < step.flip_index)
        return sorted(earlier, key=lambda one: one.flip_index)

    def open(
        self,
        record: SessionRecord,
        message: opening_pb2.Challenge,
        step: opening_pb2.AnsweredChallenge,
    ) -> opening_pb2.Opening:
        """Return what a challenge draws."""
        opener = self.opener(record)
        drawn = draw.drawn_by(
            message, step.flip, opener.token_counts, run_tokens=self.profile.run_tokens
        )
        return opening_pb2.Opening(
            challenge_sha256=digest(step.challenge.payload),
            flip_index=step.flip_index,
            flip=step.flip,
            blocks=[opener.block(block) for block in drawn.blocks],
            token_blocks=[opener.token_block(block) for block in drawn.token_blocks],
            edge=opener.edge(),
            provider_time=self.clock.now(),
        )

    def open_whole(
        self,
        record: SessionRecord,
        message: opening_pb2.WholeBlockChallenge,
        step: opening_pb2.AnsweredChallenge,
    ) -> opening_pb2.WholeBlockOpening:
        """Return the blocks that a whole-block challenge draws."""
        opener = self.opener(record)
        drawn = draw.drawn_whole_by(message, step.flip, len(opener.token_counts))
        return opening_pb2.WholeBlockOpening(
            challenge_sha256=digest(step.challenge.payload),
            flip_index=step.flip_index,
            flip=step.flip,
            blocks=[opener.whole(index, self.tokenizer) for index in drawn],
            provider_time=self.clock.now(),
        )

    def opener(self, record: SessionRecord) -> Opener:
        """Return what makes the parts of this session's openings."""
        spec = self.profile.message.embedding
        width = row_bytes(window_dimension(spec))
        windows, at, tree = [], 0, record.tree
        for entry in tree.entries:
            count = -(-entry.token_count // spec.window_tokens)
            windows.append(
                [record.windows[at + i * width : at + (i + 1) * width] for i in range(count)]
            )
            at += count * width
        return Opener(
            session=record.secret,
            tree=tree,
            windows=windows,
            block_size=self.profile.block_size,
            table=self.table,
            nodes=record.nodes,
        )

    def _read(
        self,
        record: SessionRecord,
        challenge: envelope_pb2.Envelope,
        payload_type: str,
        reader: Callable[[bytes], C],
    ) -> C:
        self._authenticate(challenge, payload_type)
        try:
            message = reader(challenge.payload)
        except StatementError as error:
            msg = f"the challenge is malformed: {error}"
            raise ChallengeError(msg) from error
        self._require_fit(record, message)
        return message

    def _authenticate(self, challenge: envelope_pb2.Envelope, payload_type: str) -> None:
        try:
            listed = envelope.verify(challenge, payload_type, self.verifiers)
            listed.require_valid(read_time(self.clock.now()))
        except SignatureError as error:
            msg = f"the challenge is not from a verifier known here: {error}"
            raise UnknownVerifierError(msg) from error

    def _require_fit(self, record: SessionRecord, message: Challenge) -> None:
        fingerprints = record.fingerprints
        if fingerprints is None or message.fingerprints_sha256 != digest(fingerprints.payload):
            msg = "the challenge names other fingerprints than this commitment's"
            raise ChallengeError(msg)
        late = read_time(self.clock.now()) - read_time(message.deadline)
        if late.total_seconds() > CLOCK_SKEW_SECONDS:
            msg = f"the deadline {read_time(message.deadline).isoformat()} has passed"
            raise ChallengeError(msg)
        if len(record.token_ids) == 0:
            msg = "the commitment is to no tokens: there is nothing to open"
            raise ChallengeError(msg)
