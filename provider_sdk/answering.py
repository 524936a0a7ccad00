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
from provider_sdk.record import SessionRecord

M = TypeVar("M")


class ChallengeError(InvalidInputError):
    """A challenge is malformed, past its deadline, or not from a known verifier."""


class UnknownVerifierError(ChallengeError):
    """A challenge is signed by no verifier that this provider knows."""


@dataclass(frozen=True)
class Answerer:
    """Opens what challenges draw. The caller holds the record's lock.

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

    def open(self, record: SessionRecord, challenge: envelope_pb2.Envelope) -> opening_pb2.Opening:
        """Open what a challenge draws, and enter it in the ledger.

        Raises:
            ChallengeError: The challenge is malformed, late, or not from a known verifier.
            ExposureCapError: It could pass a cap.
            FlipsUsedUpError: The hash chain is used up.
        """
        self._authenticate(challenge, envelope.CHALLENGE)
        message = _read(statements.read_challenge, challenge.payload)
        self._require_fit(record, message)
        opener = self.opener(record)
        step = self._step(
            record,
            challenge,
            lambda caps: record.ledger.require(
                caps,
                blocks=message.blocks,
                token_blocks=message.token_blocks,
                tokens_per_block=message.tokens_per_block,
            ),
        )
        drawn = draw.drawn_by(
            message, step.flip, opener.token_counts, run_tokens=self.profile.run_tokens
        )
        last = len(opener.token_counts) - 1
        record.ledger.add(drawn, edge=(last, opener.token_counts[last] - 1))
        return opening_pb2.Opening(
            challenge_sha256=digest(challenge.payload),
            flip_index=step.flip_index,
            flip=step.flip,
            blocks=[opener.block(block) for block in drawn.blocks],
            token_blocks=[opener.token_block(block) for block in drawn.token_blocks],
            edge=opener.edge(),
            provider_time=self.clock.now(),
        )

    def open_whole(
        self, record: SessionRecord, challenge: envelope_pb2.Envelope
    ) -> opening_pb2.WholeBlockOpening:
        """Open the blocks that a whole-block challenge draws; errors as `open`."""
        self._authenticate(challenge, envelope.WHOLE_CHALLENGE)
        message = _read(statements.read_whole_challenge, challenge.payload)
        self._require_fit(record, message)
        opener = self.opener(record)
        step = self._step(
            record,
            challenge,
            lambda caps: record.ledger.require_whole(caps, blocks=message.blocks),
        )
        drawn = draw.drawn_whole_by(message, step.flip, len(opener.token_counts))
        record.ledger.add_whole(drawn)
        return opening_pb2.WholeBlockOpening(
            challenge_sha256=digest(challenge.payload),
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
        )

    def _authenticate(self, challenge: envelope_pb2.Envelope, payload_type: str) -> None:
        try:
            listed = envelope.verify(challenge, payload_type, self.verifiers)
            listed.require_valid(read_time(self.clock.now()))
        except SignatureError as error:
            msg = f"the challenge is not from a verifier known here: {error}"
            raise UnknownVerifierError(msg) from error

    def _require_fit(
        self,
        record: SessionRecord,
        message: opening_pb2.Challenge | opening_pb2.WholeBlockChallenge,
    ) -> None:
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

    def _step(
        self,
        record: SessionRecord,
        challenge: envelope_pb2.Envelope,
        require_within: Callable[[Caps], None],
    ) -> opening_pb2.AnsweredChallenge:
        """Give a challenge its link of the hash chain; one asked again keeps its own."""
        key = digest(challenge.payload)
        known = record.answered.get(key)
        if known is not None:
            return known
        tree = record.tree
        caps = self.profile.message.caps
        require_within(Caps.of(caps, tokens=tree.reasoning_tokens, blocks=tree.block_count))
        index = len(record.answered) + 1
        if index > FLIP_CHAIN_LENGTH:
            msg = f"this commitment has answered all of its {FLIP_CHAIN_LENGTH} challenges"
            raise FlipsUsedUpError(msg)
        step = opening_pb2.AnsweredChallenge(
            challenge=challenge, flip_index=index, flip=draw.flip_for(record.flip_secret, index)
        )
        record.answered[key] = step
        return step


def _read(reader: Callable[[bytes], M], payload: bytes) -> M:
    try:
        return reader(payload)
    except StatementError as error:
        msg = f"the challenge is malformed: {error}"
        raise ChallengeError(msg) from error
