"""The evidence of one audit, with everything derived from it that checks need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TypeVar

from coin_protocol import draw, envelope, statements
from coin_protocol.checks.memo import Memo
from coin_protocol.checks.trust import Trust, rooted_keys
from coin_protocol.commitment import block_leaf_hashes
from coin_protocol.embedding import TextEmbedder
from coin_protocol.encoding import digest
from coin_protocol.errors import (
    InvalidInputError,
    MissingDependencyError,
    SignatureError,
    StatementError,
)
from coin_protocol.exposure import Caps, ExposureLedger
from coin_protocol.keys import KeyRing, ListedKey, read_time
from coin_protocol.keyset import SignedKeySet
from coin_protocol.merkle import IncrementalTree
from coin_protocol.profile import Policy, Profile
from coin_protocol.tokenizer import Tokenizer
from coin_protocol.v1 import envelope_pb2, opening_pb2, receipt_pb2, statements_pb2

C = TypeVar("C", opening_pb2.Challenge, opening_pb2.WholeBlockChallenge)
A = TypeVar("A", bound="Answered | AnsweredWhole")


@dataclass(frozen=True)
class Case:
    """What a verifier has in hand. Every check reads this and nothing else.

    Attributes:
        receipt: As the client gave it.
        trust: Pinned keys.
        profile: What the verifier can check commitments of.
        policy: The verifier's own rules.
        manifest: Signed by the provider; None until it was asked for.
        no_manifest: Status under which it was asked for and did not come.
        rounds: Challenges so far and what came of them.
        whole_rounds: The same for whole-block challenges.
        installed: The profile's tokenizer and embedding model, where they are installed.
        memo: What was worked out before. Cases made of this one by `replace` share it.
    """

    receipt: receipt_pb2.Receipt
    trust: Trust
    profile: Profile
    policy: Policy
    manifest: envelope_pb2.Envelope | None = None
    no_manifest: str = ""
    rounds: Sequence[receipt_pb2.Round] = field(default=())
    whole_rounds: Sequence[receipt_pb2.Round] = field(default=())
    installed: tuple[Tokenizer, TextEmbedder] | None = None
    memo: Memo = field(default_factory=Memo, repr=False, compare=False)

    @cached_property
    def keys(self) -> KeyRing:
        """The provider's keys, from the receipt's key set.

        Raises:
            SignatureError: Neither a pinned root nor a certificate of the domain signed it.
            StatementError: It is malformed.
        """
        served, trust = self.served, self.trust
        raw = served.signed.SerializeToString(), served.root_chain
        # The trust is kept with its keys, so that no other one comes to have its id.
        _, ring = self.memo.once(
            ("keys", id(trust), *raw), lambda: (trust, rooted_keys(served, trust))
        )
        return ring

    def signing_key(self, signed: envelope_pb2.Envelope, payload_type: str) -> ListedKey:
        """Return the provider's key that signed a statement.

        Raises:
            SignatureError: None did.
        """
        # Three checks ask of each statement; of a large opening even its bytes are not free.
        known = self._signers.get(id(signed))
        if known is None or known[1] != payload_type:
            key = self.verified(signed, payload_type, self.keys)
            known = self._signers[id(signed)] = signed, payload_type, key
        return known[2]

    @cached_property
    def _signers(self) -> dict[int, tuple[envelope_pb2.Envelope, str, ListedKey]]:
        """What was asked of this case. Each statement is kept, so that no other has its id."""
        return {}

    def verified(
        self, signed: envelope_pb2.Envelope, payload_type: str, ring: KeyRing
    ) -> ListedKey:
        """Return the key of `ring` that signed a statement; none is verified twice.

        Raises:
            SignatureError: None did.
        """
        return self.memo.once(
            ("signed", ring, payload_type, signed.SerializeToString()),
            lambda: envelope.verify(signed, payload_type, ring),
        )

    @property
    def served(self) -> SignedKeySet:
        """The receipt's key set with its root's certificates."""
        return SignedKeySet(self.receipt.key_set, tuple(self.receipt.root_chain))

    @property
    def models(self) -> tuple[Tokenizer, TextEmbedder]:
        """The profile's models.

        Raises:
            MissingDependencyError: They are not installed.
        """
        if self.installed is None:
            msg = "blocks opened whole need the profile's models: install coin-audit[embedding]"
            raise MissingDependencyError(msg)
        return self.installed

    @cached_property
    def commitment(self) -> statements_pb2.Commitment:
        """The commitment, parsed."""
        return self.memo.read(statements.read_commitment, self.receipt.commitment.payload)

    @cached_property
    def commitment_sha256(self) -> bytes:
        """What names the commitment."""
        return digest(self.receipt.commitment.payload)

    @cached_property
    def fingerprints(self) -> statements_pb2.Fingerprints:
        """The fingerprints statement, parsed; an empty message until it was made."""
        if not self.receipt.HasField("fingerprints"):
            return statements_pb2.Fingerprints()
        return self.memo.read(statements.read_fingerprints, self.receipt.fingerprints.payload)

    @cached_property
    def fingerprints_sha256(self) -> bytes:
        """What challenges name."""
        return digest(self.receipt.fingerprints.payload)

    @cached_property
    def checkpoints(self) -> list[statements_pb2.Checkpoint]:
        """The checkpoints that the client saw, parsed, in the order seen."""
        return [
            self.memo.read(statements.read_checkpoint, seen.checkpoint.payload)
            for seen in self.receipt.checkpoints
        ]

    @cached_property
    def manifest_statement(self) -> statements_pb2.Manifest:
        """The manifest, parsed; an empty message until it was asked for."""
        if self.manifest is None:
            return statements_pb2.Manifest()
        return self.memo.read(statements.read_manifest, self.manifest.payload)

    @property
    def blocks(self) -> Sequence[statements_pb2.BlockEntry]:
        """The manifest's entries; none until it was asked for."""
        return self.manifest_statement.blocks

    @property
    def token_counts(self) -> list[int]:
        """Tokens of each block."""
        return [entry.token_count for entry in self.blocks]

    @cached_property
    def block_tree(self) -> IncrementalTree:
        """The token tree's block leaves, from the manifest."""
        session_id = self.commitment.session_id
        raw = None if self.manifest is None else self.manifest.payload
        return self.memo.once(
            ("tree", session_id, raw),
            lambda: IncrementalTree(block_leaf_hashes(session_id, self.blocks)),
        )

    @cached_property
    def openings(self) -> list[Answered]:
        """The rounds that were answered with an opening."""
        return [
            Answered(
                number,
                entry,
                self.challenge(entry),
                self.token_counts,
                self.profile.run_tokens,
                self.memo,
            )
            for number, entry in enumerate(self.rounds, 1)
            if entry.HasField("opening")
        ]

    @cached_property
    def whole_openings(self) -> list[AnsweredWhole]:
        """The whole-block rounds that were answered with an opening."""
        return [
            AnsweredWhole(entry, self.whole_challenge(entry), len(self.blocks), self.memo)
            for entry in self.whole_rounds
            if entry.HasField("opening")
        ]

    @cached_property
    def caps(self) -> Caps:
        """How much of this commitment may ever be opened."""
        return Caps.of(
            self.profile.message.caps,
            tokens=self.commitment.reasoning_tokens,
            blocks=self.commitment.block_count,
        )

    def check_once(
        self, check: Callable[[Case, A], None], opened: Iterable[A], *also: object
    ) -> None:
        """Check each answer by itself, and none twice: later rounds change nothing of it.

        Args:
            check: Looks at the answer, profile, commitment, manifest and fingerprints alone.
            opened: The answers.
            also: What else it looks at.
        """
        for answered in opened:
            # The same bytes are something else as an answer of the other kind.
            seen = check, type(answered), *self._committed, answered.payload, *also
            self.memo.once(seen, partial(check, self, answered))

    def check_kept_once(self, check: Callable[[Case], None]) -> None:
        """Check what needs no challenge, and not again with each answer.

        Args:
            check: Looks at trust, profile, policy, receipt and manifest alone.
        """

        def checked() -> Trust:
            check(self)
            # Kept with what it led to, so that no other one comes to have its id.
            return self.trust

        self.memo.once((check, *self._kept), checked)

    @cached_property
    def _kept(self) -> tuple[object, ...]:
        """All of the case but what challenges brought."""
        # An empty manifest is not no manifest: nobody signed it.
        manifest = None if self.manifest is None else self.manifest.SerializeToString()
        receipt = self.receipt.SerializeToString()
        return id(self.trust), self.profile.raw, self.policy.raw, receipt, manifest

    @cached_property
    def _committed(self) -> tuple[bytes | None, ...]:
        """What every answer is held against."""
        manifest = None if self.manifest is None else self.manifest.payload
        receipt = self.receipt
        return self.profile.raw, receipt.commitment.payload, receipt.fingerprints.payload, manifest

    @cached_property
    def refusals(self) -> list[tuple[receipt_pb2.Round, opening_pb2.Refusal]]:
        """The rounds of either kind that were refused, with the refusal parsed."""
        return [
            (entry, self.memo.read(statements.read_refusal, entry.refusal.payload))
            for entry in (*self.rounds, *self.whole_rounds)
            if entry.HasField("refusal")
        ]

    @property
    def edge(self) -> tuple[int, int]:
        """The place of the last token, where there is one."""
        return len(self.blocks) - 1, self.blocks[-1].token_count - 1

    @property
    def ledger(self) -> ExposureLedger:
        """What the rounds exposed."""
        ledger = ExposureLedger()
        for answered in self.openings:
            ledger.add(answered.drawn, edge=self.edge)
        for whole in self.whole_openings:
            ledger.add_whole(whole.drawn)
        return ledger

    def drawn_by(self, challenge: opening_pb2.Challenge, flip: bytes) -> draw.Drawn:
        """Return what a challenge of this commitment draws with the flip it was given."""
        return draw.drawn_by(challenge, flip, self.token_counts, run_tokens=self.profile.run_tokens)

    def read_opening(self, entry: receipt_pb2.Round) -> opening_pb2.Opening:
        """Return what a round opened."""
        return self.memo.read(statements.read_opening, entry.opening.payload)

    def read_whole_opening(self, entry: receipt_pb2.Round) -> opening_pb2.WholeBlockOpening:
        """Return the blocks that a round opened whole."""
        return self.memo.read(statements.read_whole_opening, entry.opening.payload)

    def challenge(self, entry: receipt_pb2.Round) -> opening_pb2.Challenge:
        """Return a round's challenge.

        Raises:
            InvalidInputError: It is not a known verifier's, or of another commitment: no
                evidence about the provider.
        """
        return self._verifiers_own(entry, envelope.CHALLENGE, statements.read_challenge)

    def whole_challenge(self, entry: receipt_pb2.Round) -> opening_pb2.WholeBlockChallenge:
        """Return a whole-block round's challenge; errors as `challenge`."""
        read = statements.read_whole_challenge
        return self._verifiers_own(entry, envelope.WHOLE_CHALLENGE, read)

    def _verifiers_own(
        self, entry: receipt_pb2.Round, payload_type: str, read: Callable[[bytes], C]
    ) -> C:
        try:
            self.verified(entry.challenge, payload_type, self.trust.verifiers)
            message = self.memo.read(read, entry.challenge.payload)
        except (SignatureError, StatementError) as error:
            msg = f"a challenge is not a known verifier's, or malformed: {error}"
            raise InvalidInputError(msg) from error
        if message.fingerprints_sha256 != self.fingerprints_sha256:
            msg = "a challenge names other fingerprints than the receipt's"
            raise InvalidInputError(msg)
        given = (read_time(message.deadline) - read_time(entry.sent_at)).total_seconds()
        if given < self.policy.deadline_seconds / 2:
            # The deadline is set a moment before the challenge is sent, hence the half.
            msg = f"a challenge gave {given:.3f} s, far less than the policy's deadline"
            raise InvalidInputError(msg)
        if not self.blocks:
            msg = "a challenge of a commitment without blocks, or without its manifest"
            raise InvalidInputError(msg)
        return message


@dataclass(frozen=True)
class Answered:
    """A challenge and its opening.

    A case keeps it, and it keeps no case: else what was opened would wait for the cycle collector.

    Attributes:
        number: Of the round, from 1.
        entry: As the bundle keeps it.
        challenge: Parsed.
        token_counts: Tokens of each block of the commitment.
        run_tokens: Consecutive tokens that are drawn together.
        memo: Of the case.
    """

    number: int
    entry: receipt_pb2.Round
    challenge: opening_pb2.Challenge
    token_counts: Sequence[int]
    run_tokens: int
    memo: Memo = field(repr=False, compare=False)

    @cached_property
    def payload(self) -> bytes:
        """The opening as it was signed."""
        return self.entry.opening.payload

    @cached_property
    def opening(self) -> opening_pb2.Opening:
        """The opening, parsed."""
        return self.memo.read(statements.read_opening, self.payload)

    @property
    def answers(self) -> bool:
        """Whether the opening is of this challenge."""
        return self.opening.challenge_sha256 == digest(self.entry.challenge.payload)

    @cached_property
    def drawn(self) -> draw.Drawn:
        """What nonce and flip draw."""
        return draw.drawn_by(
            self.challenge, self.opening.flip, self.token_counts, run_tokens=self.run_tokens
        )


@dataclass(frozen=True)
class AnsweredWhole:
    """A whole-block challenge and its opening; attributes as of `Answered`.

    Attributes:
        block_count: Blocks of the commitment.
    """

    entry: receipt_pb2.Round
    challenge: opening_pb2.WholeBlockChallenge
    block_count: int
    memo: Memo = field(repr=False, compare=False)

    @cached_property
    def payload(self) -> bytes:
        """The opening as it was signed."""
        return self.entry.opening.payload

    @cached_property
    def opening(self) -> opening_pb2.WholeBlockOpening:
        """The opening, parsed."""
        return self.memo.read(statements.read_whole_opening, self.payload)

    @property
    def answers(self) -> bool:
        """Whether the opening is of this challenge."""
        return self.opening.challenge_sha256 == digest(self.entry.challenge.payload)

    @cached_property
    def drawn(self) -> tuple[int, ...]:
        """The blocks that nonce and flip draw."""
        return draw.drawn_whole_by(self.challenge, self.opening.flip, self.block_count)
