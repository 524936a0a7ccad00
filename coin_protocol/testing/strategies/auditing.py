"""Audits of replies, the evidence of them, and the bundles that verifiers make of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from coin_protocol import draw as drawing
from coin_protocol import envelope
from coin_protocol.checks import Case, run_checks
from coin_protocol.errors import ExposureCapError, InvalidInputError
from coin_protocol.exposure import Caps, ExposureLedger
from coin_protocol.keyset import stamp
from coin_protocol.receipt import BUNDLE_FORMAT
from coin_protocol.testing.forgeries import refused
from coin_protocol.testing.strategies.statements import judged
from coin_protocol.testing.strategies.traces import MOST_TOKENS
from coin_protocol.testing.strategies.values import Ints, digests, timestamps
from coin_protocol.testing.strategies.world import replies
from coin_protocol.testing.world import START, VERIFIER, Audit, Reply
from coin_protocol.v1 import opening_pb2, receipt_pb2
from coin_protocol.verdict import deterministic_verdict

_ASKED_AT: Final = START + timedelta(hours=1)
"""When each challenge is sent."""

_DECIDED: Final = timestamps(least=_ASKED_AT)
_MATCHES: Final = st.lists(
    st.builds(
        receipt_pb2.BlockMatch,
        block_index=st.integers(0, MOST_TOKENS),
        other_commitment_sha256=digests(),
        other_block_index=st.integers(0, MOST_TOKENS),
        cosine=st.sampled_from((1.0, 0.995, 0.9975)),
    ),
    max_size=2,
)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A challenge to come: what it asks for."""

    blocks: int
    token_blocks: int
    tokens_per_block: int


@st.composite
def _sampled(
    draw: st.DrawFn, size: int, blocks: Ints, token_blocks: Ints, tokens_per_block: Ints
) -> _Asked:
    with_embedding = draw(st.integers(0, 4) if blocks is None else blocks)
    usual = st.integers(0 if with_embedding else 1, 4)
    of_tokens = draw(usual if token_blocks is None else token_blocks)
    if not with_embedding and not of_tokens:
        msg = "blocks and token_blocks are both 0: such a challenge draws nothing; give either"
        raise InvalidInputError(msg)
    each = st.integers(1 if of_tokens else 0, 2 * size)
    return _Asked(
        with_embedding, of_tokens, draw(each if tokens_per_block is None else tokens_per_block)
    )


class _Rounds:
    """An audit that grows, with what it exposed so far."""

    def __init__(self, audit: Audit, *, refusals: bool) -> None:
        self.audit = audit
        self._refusals = refusals
        self._ledger = ExposureLedger()
        world, counts = audit.world, audit.reply.opener.token_counts
        self._counts = counts
        self._run = world.profile.run_tokens
        self._caps = Caps.of(world.profile.message.caps, tokens=sum(counts), blocks=len(counts))

    def ask(self, asked: _Asked) -> None:
        """Ask for a sample: it is opened, or refused where a cap is in the way."""
        try:
            self._ledger.require(
                self._caps,
                blocks=asked.blocks,
                token_blocks=asked.token_blocks,
                tokens_per_block=asked.tokens_per_block,
            )
            refuse = False
        except ExposureCapError:
            refuse = self._refusals
        self.audit = self.audit.ask(
            blocks=asked.blocks,
            token_blocks=asked.token_blocks,
            tokens_per_block=asked.tokens_per_block,
            edit_challenge=self._in_time,
            edit_round=self._refused if refuse else _as_it_is,
        )
        entry = self.audit.rounds[-1]
        if not refuse:
            opening = opening_pb2.Opening.FromString(entry.opening.payload)
            challenge = opening_pb2.Challenge.FromString(entry.challenge.payload)
            drawn = drawing.drawn_by(challenge, opening.flip, self._counts, run_tokens=self._run)
            self._ledger.add(drawn, edge=(len(self._counts) - 1, self._counts[-1] - 1))

    def ask_whole(self, blocks: int) -> None:
        """Ask for whole blocks, as `ask`."""
        try:
            self._ledger.require_whole(self._caps, blocks=blocks)
            refuse = False
        except ExposureCapError:
            refuse = self._refusals
        self.audit = self.audit.ask_whole(
            blocks=blocks,
            edit_challenge=self._in_time,
            edit_round=self._refused if refuse else _as_it_is,
        )
        entry = self.audit.whole_rounds[-1]
        if not refuse:
            opening = opening_pb2.WholeBlockOpening.FromString(entry.opening.payload)
            self._ledger.add_whole(block.block_index for block in opening.blocks)

    def _in_time(self, challenge: opening_pb2.Challenge | opening_pb2.WholeBlockChallenge) -> None:
        given = timedelta(seconds=self.audit.world.policy.deadline_seconds)
        challenge.deadline.CopyFrom(stamp(_ASKED_AT + given))

    def _refused(self, entry: receipt_pb2.Round) -> None:
        refused(self.audit.world, self.audit.answered())(entry)


def _as_it_is(entry: receipt_pb2.Round) -> None:
    """Edit nothing."""


def audits(
    *,
    reply: SearchStrategy[Reply] | None = None,
    rounds: Ints = None,
    blocks: Ints = None,
    token_blocks: Ints = None,
    tokens_per_block: Ints = None,
    whole_rounds: Ints = None,
    whole: Ints = None,
    refusals: bool = True,
) -> SearchStrategy[Audit]:
    """Return a strategy of audits: a first round, whole blocks, further rounds.

    A reply without reasoning leaves nothing to ask for, and has no rounds.

    Args:
        reply: What is audited.
        rounds: How many; two at most by default.
        blocks: Asked for with their embedding, in each round.
        token_blocks: Asked for tokens alone; one at least where `blocks` is 0.
        tokens_per_block: Asked for; one at least where there are token blocks.
        whole_rounds: How many; one at most by default.
        whole: Blocks asked for whole, in each such round; one at least.
        refusals: Whether the provider refuses what its caps do not allow, as it may. Else it
            opens that too, and no check minds.
    """
    return _audits(
        replies() if reply is None else reply,
        st.integers(0, 2) if rounds is None else rounds,
        lambda size: _sampled(size, blocks, token_blocks, tokens_per_block),
        st.integers(0, 1) if whole_rounds is None else whole_rounds,
        st.integers(1, 3) if whole is None else whole,
        refusals=refusals,
    )


@st.composite
def _audits(
    draw: st.DrawFn,
    reply: SearchStrategy[Reply],
    rounds: SearchStrategy[int],
    samples: Callable[[int], SearchStrategy[_Asked]],
    whole_rounds: SearchStrategy[int],
    whole: SearchStrategy[int],
    *,
    refusals: bool,
) -> Audit:
    found = draw(reply)
    growing = _Rounds(found.world.audit(found), refusals=refusals)
    if not found.opener.token_counts:
        return growing.audit
    count = draw(rounds)
    sample = samples(found.world.profile.block_size)
    asked = draw(st.lists(sample, min_size=count, max_size=count))
    count = draw(whole_rounds)
    asked_whole = draw(st.lists(whole, min_size=count, max_size=count))
    for one in asked[:1]:
        growing.ask(one)
    for blocks in asked_whole:
        growing.ask_whole(blocks)
    for one in asked[1:]:
        growing.ask(one)
    return growing.audit


@st.composite
def cases(draw: st.DrawFn, *, audit: SearchStrategy[Audit] | None = None) -> Case:
    """Draw the evidence of audits, with or without the models at hand.

    Args:
        draw: Of Hypothesis.
        audit: Whose it is.
    """
    case = draw(audits() if audit is None else audit).case()
    if draw(st.booleans()):
        case = replace(case, installed=None)
    if not case.rounds and not case.whole_rounds and draw(st.booleans()):
        case = replace(case, manifest=None)
    return case


@dataclass(frozen=True, repr=False)
class Decided:
    """An audit, and the bundle that its verifier made of it."""

    audit: Audit
    bundle: receipt_pb2.Bundle

    def __repr__(self) -> str:
        """Say how much there is: all of it would fill pages."""
        rounds = f"{len(self.audit.rounds)} rounds, {len(self.audit.whole_rounds)} whole"
        return f"Decided({self.audit.world!r}, {rounds}, {self.bundle.ByteSize()} bytes)"


@st.composite
def decided(draw: st.DrawFn, *, audit: SearchStrategy[Audit] | None = None) -> Decided:
    """Draw audits with their bundles, under any verdict that the evidence bears out.

    Args:
        draw: Of Hypothesis.
        audit: That is decided.
    """
    found = draw(audits() if audit is None else audit)
    case = found.case()
    verdict = deterministic_verdict(case, run_checks(case))
    opened = sorted(case.ledger.block_embeddings)
    outcomes = [verdict.outcome]
    if verdict.outcome == receipt_pb2.OUTCOME_PASS:
        outcomes.append(receipt_pb2.OUTCOME_INCONCLUSIVE)
        if opened:
            outcomes.append(receipt_pb2.OUTCOME_FAIL)
    verdict.outcome = outcomes[draw(st.integers(0, 2)) % len(outcomes)]
    accuses = verdict.outcome == receipt_pb2.OUTCOME_FAIL
    if accuses:
        verdict.fault = receipt_pb2.FAULT_PROVIDER
    verdict.verifier = VERIFIER
    verdict.decided_at.CopyFrom(draw(_DECIDED))
    draw(judged(verdict, scored=accuses))
    matches = draw(_MATCHES)
    for match in matches:
        match.block_index = opened[match.block_index % len(opened)] if opened else 0
    bundle = receipt_pb2.Bundle(
        format=BUNDLE_FORMAT,
        receipt=case.receipt,
        manifest=case.manifest,
        rounds=case.rounds,
        whole_rounds=case.whole_rounds,
        verdict=found.world.sign(verdict, envelope.VERDICT, VERIFIER),
        matches=matches if opened else (),
    )
    return Decided(found, bundle)


def bundles(*, audit: SearchStrategy[Audit] | None = None) -> SearchStrategy[receipt_pb2.Bundle]:
    """Return a strategy of bundles; `decided` also says whom to believe of them.

    Args:
        audit: That is decided.
    """
    return decided(audit=audit).map(lambda found: found.bundle)
