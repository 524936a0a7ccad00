"""How one party departs from a plan: edits, each made before what it edits is signed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from coin_protocol import draw
from coin_protocol.checks import Case
from coin_protocol.opening import Opener
from coin_protocol.testing.world import Edit, World
from coin_protocol.v1 import opening_pb2, receipt_pb2, statements_pb2


def keep(message: object) -> None:
    """Edit nothing."""


def _the_same(world: World) -> World:
    return world


def _as_kept(honest: Opener) -> Opener:
    return honest


def _as_gathered(case: Case) -> Case:
    return case


@dataclass(frozen=True, slots=True)
class Lie:
    """Where one party departs from a plan; without arguments nobody does.

    Attributes:
        world: Takes the plan's world and returns that in which the provider lives.
        checkpoint: Edits every checkpoint before it is signed.
        commitment: Edits the commitment before it is signed, the bill with it.
        fingerprints: Edits the fingerprints statement before it is signed.
        manifest: Edits the manifest before it is signed.
        receipt: Edits what the client keeps: signed statements in it are altered, not signed anew.
        opener: May replace what the provider keeps, before it commits to it.
        step: Number of the challenge, from 0, that the edits below are of.
        silent: Whether the provider does not answer it, so that it gives it no link of its chain.
        challenge: Edits the challenge before the verifier signs it.
        opening: Edits what answers it before the provider signs that.
        refusal: Edits the refusal, where it is refused, before the provider signs that.
        entry: Edits the round as the verifier keeps it.
        openings: Edits every opening of sampled tokens before it is signed.
        suits: What must hold of the draws of challenges of this kind. The verifier's nonce of
            challenge `step` is one with which it does; the audit ends before another one where it
            does not.
        ends: Number of challenges that are sent, at most.
        case: Changes what the verifier has in hand.
    """

    world: Callable[[World], World] = _the_same
    checkpoint: Edit[statements_pb2.Checkpoint] = keep
    commitment: Edit[statements_pb2.Commitment] = keep
    fingerprints: Edit[statements_pb2.Fingerprints] = keep
    manifest: Edit[statements_pb2.Manifest] = keep
    receipt: Edit[receipt_pb2.Receipt] = keep
    opener: Callable[[Opener], Opener] = _as_kept
    step: int = -1
    silent: bool = False
    challenge: Edit[Any] = keep
    opening: Edit[Any] = keep
    refusal: Edit[opening_pb2.Refusal] = keep
    entry: Edit[receipt_pb2.Round] = keep
    openings: Edit[opening_pb2.Opening] = keep
    suits: Callable[[draw.Drawn], bool] | None = None
    ends: int | None = None
    case: Callable[[Case], Case] = _as_gathered

    @property
    def of_the_reply(self) -> tuple[object, ...]:
        """All that departs before anything is asked."""
        kept = self.world, self.checkpoint, self.commitment, self.fingerprints
        return (*kept, self.manifest, self.receipt, self.opener)


HONEST: Final = Lie()
"""Nobody departs from the plan."""
