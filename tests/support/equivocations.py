"""Commitments and heads that exclude each other, and some that only look like it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from coin_protocol import envelope
from coin_protocol.checkpoint import Checkpoint, sign_checkpoint
from coin_protocol.keyset import SignedKeySet
from coin_protocol.note import NoteSigner
from coin_protocol.signer import KeySigner, Signer
from coin_protocol.statements import read_commitment
from coin_protocol.v1 import envelope_pb2, statements_pb2
from tests.support.parties import Parties, run_session

ORIGIN = "example.org/coin-log"
Edit = Callable[[statements_pb2.Commitment], object]


def nothing(_: statements_pb2.Commitment) -> None:
    """Edit nothing."""


@dataclass
class TwoFaced:
    """A provider that signs whatever it is told to."""

    parties: Parties
    honest: envelope_pb2.Envelope

    @property
    def key_set(self) -> SignedKeySet:
        """Its key set."""
        return SignedKeySet(self.parties.key_set)

    def signed(self, edit: Edit = nothing, signer: Signer | None = None) -> envelope_pb2.Envelope:
        """Return the honest commitment after an edit, signed again."""
        statement = read_commitment(self.honest.payload)
        edit(statement)
        payload = statement.SerializeToString()
        return envelope.sign(payload, envelope.COMMITMENT, signer or self.parties.signer)


@contextmanager
def two_faced(parties: Parties | None = None) -> Iterator[TwoFaced]:
    """Give a provider that has committed to a session."""
    parties = parties or Parties()
    with parties.provider() as provider:
        yield TwoFaced(parties, run_session(provider).receipt.commitment)


def bill_more(statement: statements_pb2.Commitment) -> None:
    """Bill eight tokens more."""
    statement.reasoning_tokens += 8
    statement.usage.reasoning_tokens += 8
    statement.usage.completion_tokens += 8


def crash(statement: statements_pb2.Commitment, blocks: int = 1) -> None:
    """Make it what recovery signs for full blocks of 8 tokens."""
    tokens = 8 * blocks
    statement.abort_reason = statements_pb2.ABORT_REASON_CRASHED
    statement.block_count, statement.reasoning_tokens = blocks, tokens
    statement.token_root = bytes([blocks]) * 32
    statement.answer_tokens = 0
    statement.answer_sha256 = bytes(32)
    statement.usage.prompt_tokens = 0
    statement.usage.completion_tokens = statement.usage.reasoning_tokens = tokens
    statement.ended_at.seconds += 60


@dataclass
class ForkedLog:
    """A log that signs whatever it is told to."""

    signer: NoteSigner = field(default_factory=lambda: NoteSigner(KeySigner.generate(ORIGIN)))

    def head(self, size: int = 5, root: bytes = bytes(32), origin: str = ORIGIN) -> bytes:
        """Return a signed head."""
        return sign_checkpoint(Checkpoint(origin, size, root), [self.signer])
