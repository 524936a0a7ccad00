"""How far an audit got: written down as it goes, so that another attempt goes on from there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile

from coin_protocol.checks import Case
from coin_protocol.checks.opened import BLAMELESS, RETENTION_ENDED
from coin_protocol.clock import wall_time
from coin_protocol.errors import InvalidInputError, PeerUnavailableError
from coin_protocol.keys import read_time
from coin_protocol.receipt import BUNDLE_FORMAT
from coin_protocol.statements import read_challenge, read_whole_challenge
from coin_protocol.v1 import envelope_pb2, opening_pb2, receipt_pb2

Challenge = opening_pb2.Challenge | opening_pb2.WholeBlockChallenge

Keep = Callable[[receipt_pb2.Bundle], Awaitable[None]]
"""Writes down how far an audit got: a bundle without verdict."""


class Progress:
    """What earlier attempts opened, and where this one writes down what it opens."""

    def __init__(
        self, kept: receipt_pb2.Bundle | None = None, *, keep: Keep | None, patient: bool
    ) -> None:
        """Go on from `kept`.

        Args:
            kept: What `keep` was last given, if anything.
            keep: None where nothing is written down.
            patient: Whether a provider that cannot be reached ends this attempt and not the
                audit.
        """
        kept = receipt_pb2.Bundle() if kept is None else kept
        self._manifest = kept.manifest if kept.HasField("manifest") else None
        self._answered = [entry for entry in kept.rounds if _answered(entry)]
        self._answered_whole = [entry for entry in kept.whole_rounds if _answered(entry)]
        self._pending = [entry for entry in kept.rounds if not _answered(entry)]
        self._pending_whole = [entry for entry in kept.whole_rounds if not _answered(entry)]
        self._keep = keep
        self._patient = patient

    def restored(self, case: Case) -> Case:
        """Return the case with what was opened before.

        What cannot be used any more is left out, with all that came after it: challenges that a
        verifier signed whose key is not trusted now, or that gave less time than the policy wants.
        """
        case = replace(case, manifest=self._manifest)
        self._pending = [entry for entry in self._pending if _is_ours(case, entry, whole=False)]
        self._pending_whole = [
            entry for entry in self._pending_whole if _is_ours(case, entry, whole=True)
        ]
        rounds = tuple(takewhile(partial(_is_ours, case, whole=False), self._answered))
        whole = tuple(takewhile(partial(_is_ours, case, whole=True), self._answered_whole))
        # Blocks are opened whole after the first round, and before any other.
        if not rounds:
            whole = ()
        elif len(whole) < len(self._answered_whole):
            rounds = rounds[:1]
        return replace(case, rounds=rounds, whole_rounds=whole)

    def unanswered(self, wanted: Challenge, *, seconds: float) -> envelope_pb2.Envelope | None:
        """Return a challenge that was sent without its answer being written down.

        The provider may have answered it: sent again, it is answered alike and exposes nothing
        more. One that leaves the provider less than half of the time that it is due is not: its
        answer could not be told from a late one.

        Args:
            wanted: The challenge that would be sent instead; any nonce and deadline will do.
            seconds: What a challenge gives.
        """
        whole = isinstance(wanted, opening_pb2.WholeBlockChallenge)
        read = read_whole_challenge if whole else read_challenge
        for entry in self._pending_whole if whole else self._pending:
            sent = read(entry.challenge.payload)
            left = read_time(sent.deadline) - read_time(wall_time())
            if _alike(sent, wanted) and left.total_seconds() > seconds / 2:
                return entry.challenge
        return None

    async def sending(self, case: Case, challenge: envelope_pb2.Envelope, *, whole: bool) -> None:
        """Write a challenge down before it leaves."""
        pending = receipt_pb2.Round(challenge=challenge, sent_at=wall_time())
        rounds, whole_rounds = list(case.rounds), list(case.whole_rounds)
        (whole_rounds if whole else rounds).append(pending)
        await self._note(case, rounds, whole_rounds)

    async def answered(self, case: Case) -> None:
        """Write down what came."""
        await self._note(case, case.rounds, case.whole_rounds)

    def require_reached(self, status: str) -> None:
        """End the attempt where nothing came and nobody is to blame, if there will be others.

        Raises:
            PeerUnavailableError: So it is.
        """
        if self._patient and status in BLAMELESS and status != RETENTION_ENDED:
            msg = f"the provider could not be asked ({status}); try again later"
            raise PeerUnavailableError(msg, status=status)

    async def _note(
        self,
        case: Case,
        rounds: Sequence[receipt_pb2.Round],
        whole_rounds: Sequence[receipt_pb2.Round],
    ) -> None:
        if self._keep is not None:
            await self._keep(
                receipt_pb2.Bundle(
                    format=BUNDLE_FORMAT,
                    receipt=case.receipt,
                    manifest=case.manifest,
                    rounds=rounds,
                    whole_rounds=whole_rounds,
                )
            )


def _answered(entry: receipt_pb2.Round) -> bool:
    return entry.HasField("received_at")


def _alike(sent: Challenge, wanted: Challenge) -> bool:
    sent.nonce = wanted.nonce
    sent.deadline.CopyFrom(wanted.deadline)
    return sent == wanted


def _is_ours(case: Case, entry: receipt_pb2.Round, *, whole: bool) -> bool:
    try:
        _ = case.whole_challenge(entry) if whole else case.challenge(entry)
    except InvalidInputError:
        return False
    return True
