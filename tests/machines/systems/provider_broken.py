"""Providers and keys that are broken, each in one way that a machine must find out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select

from coin_protocol import envelope
from coin_protocol.commitment import CommitmentBuilder, Prefix
from coin_protocol.database.engine import writing
from coin_protocol.errors import ExposureCapError
from coin_protocol.exposure import ExposureLedger
from coin_protocol.keys import ListedKey
from coin_protocol.signer import KeySigner
from coin_protocol.testing.machines.provider_system import DiedError
from coin_protocol.testing.machines.rules import Challenge, draws_something
from coin_protocol.v1 import envelope_pb2, opening_pb2, statements_pb2
from provider_sdk.provider import Provider
from provider_sdk.record import SessionRecord
from provider_sdk.session import Session
from provider_sdk.store import SqlStore
from provider_sdk.store.tables import BLOCK, OPEN, SESSION
from tests.machines.systems.provider_keys import RulesKeys
from tests.machines.systems.provider_rules import LONG, Kept, RulesProvider, Stream
from tests.machines.systems.provider_sdk import Life, MemoryProvider, SqliteProvider

# Answers


class ForgetsLedger(RulesProvider):
    """Keeps what it answered in memory alone."""

    def restart(self) -> None:
        super().restart()
        for kept in self.disk.values():
            kept.answered.clear()


class ReusesFlip(RulesProvider):
    """Gives two challenges one flip."""

    def flip_index(self, kept: Kept) -> int:
        return max(1, len(kept.answered))


class PassesFlipsOver(RulesProvider):
    """Leaves a flip out before each that it gives, as one that tries them would."""

    def flip_index(self, kept: Kept) -> int:
        return 2 * len(kept.answered) + 2


class HidesOthers(RulesProvider):
    """Shows nobody what was answered before."""

    def _opened(
        self, kept: Kept, challenge: Challenge, step: opening_pb2.AnsweredChallenge
    ) -> envelope_pb2.Envelope:
        apart = replace(kept, answered=[])
        return super()._opened(apart, challenge, step)


class CountsKindsApart(RulesProvider):
    """Has a chain of flips for each kind of challenge, and they are one chain."""

    def flip_index(self, kept: Kept) -> int:
        return 1 + sum(step.challenge.payload_type == envelope.CHALLENGE for step in kept.answered)


class AnswersAnew(RulesProvider):
    """Takes a challenge that comes again for another one."""

    def _given(
        self, kept: Kept, signed: envelope_pb2.Envelope, challenge: Challenge
    ) -> opening_pb2.AnsweredChallenge | None:
        other: Any = type(challenge)()
        other.CopyFrom(challenge)
        other.nonce = bytes(len(challenge.nonce))
        for step in kept.answered:
            if step.challenge.payload == signed.payload:
                step.challenge.payload = other.SerializeToString()
        return super()._given(kept, signed, challenge)


class LedgerOfEachVerifier(RulesProvider):
    """Lets each verifier open as much as all together may."""

    def __init__(self, terms: Any) -> None:
        super().__init__(terms)
        self.apart: dict[tuple[bytes, str], ExposureLedger] = {}

    def ledger(self, kept: Kept, challenge: Challenge) -> ExposureLedger:
        key = kept.secret.session_id, challenge.verifier
        return self.apart.setdefault(key, ExposureLedger())


class CountsNoWholeBlocks(RulesProvider):
    """Does not enter what it opened whole."""

    def entered(
        self, kept: Kept, ledger: ExposureLedger, step: opening_pb2.AnsweredChallenge
    ) -> None:
        if step.challenge.payload_type == envelope.CHALLENGE:
            super().entered(kept, ledger, step)


class RefusesUnkindDraws(RulesProvider):
    """Refuses what would open the first block, and says that a cap was in the way."""

    def _opened(
        self, kept: Kept, challenge: Challenge, step: opening_pb2.AnsweredChallenge
    ) -> envelope_pb2.Envelope:
        answer = super()._opened(kept, challenge, step)
        if answer.payload_type == envelope.OPENING:
            opening = opening_pb2.Opening.FromString(answer.payload)
            if any(block.block_index == 0 for block in opening.blocks):
                reason = opening_pb2.REFUSAL_REASON_EXPOSURE_CAP
                kept.answered.remove(step)
                return self._refused(kept, step.challenge, reason)
        return answer


class OpensMore(RulesProvider):
    """Opens the first token of a block beside those that were drawn."""

    def _opened(
        self, kept: Kept, challenge: Challenge, step: opening_pb2.AnsweredChallenge
    ) -> envelope_pb2.Envelope:
        answer = super()._opened(kept, challenge, step)
        if answer.payload_type != envelope.OPENING:
            return answer
        opening = opening_pb2.Opening.FromString(answer.payload)
        for block in opening.blocks:
            if not any(token.position == 0 for token in block.tokens):
                opening.blocks[0].tokens.append(opening.edge.last_token)
                break
        return self._sign(opening, envelope.OPENING)


class AnswersStrangers(RulesProvider):
    """Looks at no signature."""

    def _read(self, kept: Kept, signed: envelope_pb2.Envelope) -> Challenge | None:
        found = super()._read(kept, signed)
        if found is None and signed.payload_type == envelope.CHALLENGE:
            challenge = opening_pb2.Challenge.FromString(signed.payload)
            known = kept.fingerprints is not None and draws_something(challenge)
            return challenge if known and self._opener(kept).token_counts else None
        return found


class RefusesAll(RulesProvider):
    """Says of everything that it could pass a cap."""

    def ledger(self, kept: Kept, challenge: Challenge) -> ExposureLedger:
        del kept, challenge
        raise ExposureCapError


# Streams


class _BlockOfEachChunk(CommitmentBuilder):
    def append(self, token_ids: Any) -> list[Prefix]:
        ids = [*token_ids]
        made = super().append(ids)
        if len(ids) % 2:
            self._ids.reverse()
        return made


class OrderOfChunks(RulesProvider):
    """Turns round what it has after each chunk of an odd number of ids."""

    def builder(self, secret: Any) -> CommitmentBuilder:
        return _BlockOfEachChunk(
            secret,
            block_size=self.profile.block_size,
            fingerprints=self.models.table.fingerprints,
        )


class TakesHalfAChunk(RulesProvider):
    """Takes the ids that come before one that is none."""

    def _take(self, name: str, stream: Stream, token_ids: Sequence[int]) -> None:
        for token_id in token_ids:
            super()._take(name, stream, [token_id])


class LosesCheckpoint(RulesProvider):
    """Writes the last block down after its checkpoint has left, and sometimes not at all."""

    def recover(self, kept: Kept) -> None:
        kept.blocks = kept.blocks[:-1]
        super().recover(kept)


class MakesUpTokens(RulesProvider):
    """Closes what a crash cut off with a token that it never sampled."""

    def recover(self, kept: Kept) -> None:
        kept.blocks.append([0])
        super().recover(kept)


class SkipsCheckpoints(RulesProvider):
    """Hands over every other checkpoint."""

    def _take(self, name: str, stream: Stream, token_ids: Sequence[int]) -> None:
        super()._take(name, stream, token_ids)
        stream.due = stream.due[::2]


# Keys


class SignsWithEndedKey(RulesKeys):
    """Signs with its newest key, whether or not that counts."""

    def signing(self) -> KeySigner | None:
        return self._signers[self._listed[-1].key.keyid]


class SignsWithFirstKey(RulesKeys):
    """Never takes up a new key."""

    def signing(self) -> KeySigner | None:
        return self._signers[self._listed[0].key.keyid]


class CountsFromOne(RulesKeys):
    """Forgets its sequence number with each restart."""

    def restart(self) -> None:
        self._sequence = 0
        self._issue()


class DropsEndedKeys(RulesKeys):
    """Lists the keys alone that count."""

    def _issue(self) -> None:
        self._listed = [key for key in self._listed if key.end > self._clock()]
        super()._issue()


class ServesOldSet(RulesKeys):
    """Signs with a new key before it serves the key set that lists it."""

    def rotate(
        self, valid_for: timedelta, overlap: timedelta, *, dies_after: int | None = None
    ) -> bool | None:
        before = self._set
        done = super().rotate(valid_for, overlap, dies_after=dies_after)
        self._set = before
        return done and None


class LeavesNoOverlap(RulesKeys):
    """Ends the keys in use when a new one comes."""

    def rotate(
        self, valid_for: timedelta, overlap: timedelta, *, dies_after: int | None = None
    ) -> bool | None:
        return super().rotate(valid_for, overlap / 1000, dies_after=dies_after)


class TakesRevocationsBack(RulesKeys):
    """Lists a revoked key as good again, after the next change."""

    def revoke(self, keyid: str, at: datetime) -> bool:
        done = super().revoke(keyid, at)
        self._listed = [_unrevoked(listed) for listed in self._listed]
        return done


def _unrevoked(listed: ListedKey) -> ListedKey:
    return replace(listed, revoked_at=None)


# Whole providers


class MemoryForgetsAnswers(MemoryProvider):
    """The SDK's provider over a store that forgets its ledgers."""

    def restart(self) -> None:
        for record in self.store._records.values():
            record.answered.clear()
            record.ledger = ExposureLedger()
        super().restart()


class MemorySignsWithFirstKey(MemoryProvider):
    """The SDK's provider with a signer that never takes up a new key."""

    def prepare(self) -> None:
        super().prepare()
        self.keys = SignsWithFirstKey(self.clock, valid_for=LONG)


class _LosesBlocks(Life):
    def recover(self) -> None:
        assert isinstance(self.store, SqlStore)
        with writing(self.store.engine) as connection:
            last = dict(
                connection.execute(
                    select(BLOCK.c.session_id, func.max(BLOCK.c.block_index))
                    .join(SESSION, SESSION.c.session_id == BLOCK.c.session_id)
                    .where(SESSION.c.state == OPEN)
                    .group_by(BLOCK.c.session_id)
                ).all()
            )
            for session_id, index in last.items():
                connection.execute(
                    delete(BLOCK).where(
                        BLOCK.c.session_id == session_id, BLOCK.c.block_index == index
                    )
                )
        super().recover()


class LosesBlocks(SqliteProvider):
    """Loses the last block of each reply under way when it dies."""

    life_class = _LosesBlocks


class _SaysWhole(Provider):
    class session_class(Session):  # noqa: N801 - as in the class that it stands in for
        def close(self, **arguments: Any) -> SessionRecord:
            arguments["abort_reason"] = statements_pb2.ABORT_REASON_UNSPECIFIED
            return super().close(**arguments)


class _LifeThatSaysWhole(Life):
    provider_class = _SaysWhole


class SaysWhole(SqliteProvider):
    """Commits to what a crash cut off as to a whole reply."""

    life_class = _LifeThatSaysWhole


class HandsOverEarly(RulesProvider):
    """Hands over checkpoints whose blocks are not on disk yet."""

    def append(
        self, name: str, token_ids: Sequence[int], *, wait: bool
    ) -> Sequence[envelope_pb2.Envelope]:
        try:
            return super().append(name, token_ids, wait=wait)
        except DiedError:
            return self.streams[name].due

    def _take(self, name: str, stream: Stream, token_ids: Sequence[int]) -> None:
        prefixes = stream.builder.append(token_ids)
        stream.due += [self.checkpoint(name, prefix) for prefix in prefixes]
        for prefix in prefixes:
            self.write(name, stream, prefix)


class CommitsAgain(RulesProvider):
    """Commits to every reply once more when it starts."""

    def restart(self) -> None:
        for name, kept in self.disk.items():
            if kept.commitment is not None and name not in self.streams:
                statement = statements_pb2.Commitment.FromString(kept.commitment.payload)
                statement.ended_at.CopyFrom(self.clock.steady.now())
                kept.commitment = self._sign(statement, envelope.COMMITMENT)
        super().restart()
