"""What a mutation is, and the sites of an honest audit at which one can be made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from random import Random
from typing import Any, TypeVar, cast

from google.protobuf.message import Message

from coin_protocol.checks import Case
from coin_protocol.errors import InvalidInputError
from coin_protocol.testing.forgeries import change
from coin_protocol.testing.mutations.lie import Lie
from coin_protocol.testing.mutations.plans import Plan
from coin_protocol.v1 import envelope_pb2, opening_pb2, receipt_pb2

T = TypeVar("T")


class Party(Enum):
    """Who departs from the plan (protocol, section 1)."""

    PROVIDER = "provider"
    CLIENT = "client"
    NETWORK = "network"
    VERIFIER = "verifier"


@dataclass(frozen=True, slots=True)
class Site:
    """A place of an honest audit.

    Attributes:
        step: Of the plan, or -1 for what was there before any challenge.
        path: In the opening of that step, or in the receipt.
        index: Whatever number a mutation needs besides, such as that of a block.
    """

    step: int = -1
    path: str = ""
    index: int = 0


Sites = Callable[[Plan], Sequence[Site]]


@dataclass(frozen=True, slots=True)
class Spot:
    """Where and how one mutation is made: what its `lie` is told."""

    plan: Plan
    site: Site
    random: Random

    def made_up(self, count: int) -> bytes:
        """Return random bytes."""
        return self.random.getrandbits(8 * count).to_bytes(count, "big")

    def flip(self, raw: bytes) -> bytes:
        """Return bytes with one random bit flipped."""
        at, bit = divmod(self.random.randrange(8 * len(raw)), 8)
        return raw[:at] + bytes((raw[at] ^ 1 << bit,)) + raw[at + 1 :]

    def exchange(self, items: Sequence[T]) -> list[T]:
        """Return items of which two that differ have changed places."""
        pairs = [
            (first, second)
            for second in range(len(items))
            for first in range(second)
            if items[first] != items[second]
        ]
        first, second = self.random.choice(pairs)
        found = list(items)
        found[first], found[second] = found[second], found[first]
        return found

    def shown(self, field: str, how: Callable[[Any], Any]) -> Lie:
        """Return a lie of what the answer shows in a field at the site."""
        path = f"{self.site.path}.{field}" if self.site.path else field
        return Lie(step=self.site.step, opening=change(path, how))

    def opening(self, edit: Callable[[Any], object]) -> Lie:
        """Return a lie that edits the whole answer."""
        return Lie(step=self.site.step, opening=edit)

    def edited(self, edit: Callable[[Any], object]) -> Lie:
        """Return a lie that edits the message at the site."""
        return self.opening(lambda opening: edit(standing(self.site.path, opening)))

    def entry(self, edit: Callable[[receipt_pb2.Round], object]) -> Lie:
        """Return a change of the round as the verifier keeps it."""
        return Lie(step=self.site.step, entry=edit)

    def enveloped(self, how: Callable[[envelope_pb2.Envelope], envelope_pb2.Envelope]) -> Lie:
        """Return a change of the envelope at a site of `statements`, after it was signed."""
        if self.site.step >= 0:
            return self.entry(change(self.site.path, how))
        if self.site.path == "manifest":
            return Lie(case=lambda case: _with_manifest(case, how))
        return Lie(receipt=change(self.site.path, how))


def standing(path: str, message: Message) -> object:
    """Return what stands at a path, such as `blocks.0.tokens`, of a message."""
    found: Any = message
    for part in path.split("."):
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    return cast("object", found)


@dataclass(frozen=True, slots=True)
class Departure:
    """One way to depart from any plan that has a site for it.

    Attributes:
        name: Unique.
        about: What is wrong, in one sentence.
        sites: Where in a plan it can be made; none where it cannot.
        lie: Returns what departs from the plan at one of them.
    """

    name: str
    about: str
    sites: Sites
    lie: Callable[[Spot], Lie]

    def applies(self, plan: Plan) -> bool:
        """Whether the plan's audit has a site for this."""
        return bool(self.sites(plan))

    def make(self, plan: Plan, random: Random) -> Case:
        """Return the plan's evidence with this one thing broken.

        Args:
            plan: One to which this applies.
            random: Chooses the site, and whatever else is free. The same choices give the same
                bytes.

        Raises:
            InvalidInputError: It does not apply.
        """
        sites = self.sites(plan)
        if not sites:
            msg = f"{self.name} has no site in this plan; ask `applies` first"
            raise InvalidInputError(msg)
        return plan.play(self.lie(Spot(plan, random.choice(sites), random)))


@dataclass(frozen=True, slots=True)
class Mutation(Departure):
    """A departure that exactly one check must catch, every one before it passing.

    Attributes:
        code: Of the check.
        by: Who departs.
        fault: Of the failure.
        outcome: Of the failure.
    """

    code: str
    by: Party = Party.PROVIDER
    fault: receipt_pb2.Fault.ValueType = receipt_pb2.FAULT_PROVIDER
    outcome: receipt_pb2.Outcome.ValueType = receipt_pb2.OUTCOME_FAIL


@dataclass(frozen=True, slots=True)
class VerifierFault(Departure):
    """What a verifier wrote wrongly itself: nothing follows about the provider.

    Attributes:
        raises: What `run_checks` raises.
    """

    raises: type[InvalidInputError] = InvalidInputError


def altered(
    how: Callable[[Spot, envelope_pb2.Envelope], envelope_pb2.Envelope],
) -> Callable[[Spot], Lie]:
    """Return what changes the envelope at a site of `statements`, after it was signed."""
    return lambda at: at.enveloped(lambda found: how(at, found))


def anywhere(plan: Plan) -> Sequence[Site]:
    """Return the one site of what can be broken in every plan."""
    del plan
    return [Site()]


def where(condition: Callable[[Plan], bool], sites: Sites = anywhere) -> Sites:
    """Return the sites of plans of which a condition holds."""
    return lambda plan: sites(plan) if condition(plan) else []


def has_manifest(plan: Plan) -> bool:
    """Whether the manifest was asked for."""
    return plan.manifest


def checkpoints(plan: Plan) -> list[Site]:
    """Return the checkpoints that the client saw; `index` is their number of blocks."""
    numbers = range(1, plan.full_blocks + 1)
    seen = [number for number in numbers if not plan.misses or number % plan.misses]
    return [Site(path=f"checkpoints.{at}", index=number) for at, number in enumerate(seen)]


def statements(plan: Plan) -> list[Site]:
    """Return every envelope that the provider signed with its key: those of rounds by step."""
    kept = [Site(path="commitment")]
    if plan.ready:
        kept.append(Site(path="fingerprints"))
    kept += [Site(path=f"{seen.path}.checkpoint") for seen in checkpoints(plan)]
    if plan.manifest:
        kept.append(Site(path="manifest"))
    return [*kept, *replies(plan)]


def replies(plan: Plan) -> list[Site]:
    """Return what came of each challenge: `path` is `opening` or `refusal`."""
    return [
        Site(step, "refusal" if step in plan.refusals else "opening")
        for step in range(len(plan.steps))
    ]


def steps(plan: Plan) -> list[Site]:
    """Return every challenge."""
    return [Site(step) for step in range(len(plan.steps))]


def answers(plan: Plan) -> list[Site]:
    """Return the challenges of either kind that are answered with an opening."""
    return [*sampled(plan), *wholes(plan)]


def sampled(plan: Plan) -> list[Site]:
    """Return the challenges of sampled tokens that are answered."""
    return [Site(step) for step in plan.openings]


def wholes(plan: Plan) -> list[Site]:
    """Return the challenges of whole blocks that are answered."""
    return [Site(step) for step in plan.whole_openings]


def first_sampled(plan: Plan) -> list[Site]:
    """Return the first challenge of sampled tokens, if it is answered whatever is committed."""
    step = plan.first(whole=False)
    return [] if step is None else [Site(step)]


def first_whole(plan: Plan) -> list[Site]:
    """Return the first challenge of whole blocks, if it is answered whatever is committed."""
    step = plan.first(whole=True)
    return [] if step is None else [Site(step)]


def refusals(wanted: Callable[[opening_pb2.Refusal], bool]) -> Sites:
    """Return the refusals that are wanted."""
    return lambda plan: [
        Site(step, "refusal") for step, refusal in plan.refusals.items() if wanted(refusal)
    ]


def blocks(
    wanted: Callable[[Plan, opening_pb2.BlockOpening], bool] = lambda _, __: True,
) -> Sites:
    """Return the blocks opened with their embedding that are wanted; `index` is the block's."""
    return lambda plan: [
        Site(step, f"blocks.{at}", block.block_index)
        for step, opening in plan.openings.items()
        for at, block in enumerate(opening.blocks)
        if wanted(plan, block)
    ]


def token_blocks(plan: Plan) -> list[Site]:
    """Return the token blocks; `index` is the block's."""
    return [
        Site(step, f"token_blocks.{at}", block.block_index)
        for step, opening in plan.openings.items()
        for at, block in enumerate(opening.token_blocks)
    ]


def token_lists(
    wanted: Callable[[int, Sequence[opening_pb2.TokenOpening]], bool],
) -> Sites:
    """Return the blocks of either kind whose tokens are wanted, as `blocks`.

    Args:
        wanted: Takes how many tokens the block has and those that were opened.
    """
    return lambda plan: [
        site for site, tokens in _token_lists(plan) if wanted(plan.count(site.index), tokens)
    ]


def tokens(
    wanted: Callable[[Plan, int, opening_pb2.TokenOpening], bool] = lambda _, __, ___: True,
) -> Sites:
    """Return the opened tokens that are wanted, those of the edge too; `index` is the block's.

    Args:
        wanted: Takes the plan, the block's index and the token.
    """
    return lambda plan: [site for site, token in _tokens(plan) if wanted(plan, site.index, token)]


def leaf_lists(wanted: Callable[[int], bool] = lambda _: True) -> Sites:
    """Return what shows the leaf hashes of a block; `index` is the block's.

    Args:
        wanted: Takes how many tokens the block has.
    """
    return lambda plan: [
        site
        for step in plan.openings
        for site in (
            *(site for site in blocks()(plan) if site.step == step),
            Site(step, "edge", plan.blocks - 1),
        )
        if wanted(plan.count(site.index))
    ]


def whole_blocks(
    wanted: Callable[[Plan, opening_pb2.WholeBlock], bool] = lambda _, __: True,
) -> Sites:
    """Return the blocks opened whole that are wanted; `index` is the block's."""
    return lambda plan: [
        Site(step, f"blocks.{at}", block.block_index)
        for step, opening in plan.whole_openings.items()
        for at, block in enumerate(opening.blocks)
        if wanted(plan, block)
    ]


def every(*found: Sites) -> Sites:
    """Return the sites of all of these."""
    return lambda plan: [site for sites in found for site in sites(plan)]


def _token_lists(plan: Plan) -> Iterator[tuple[Site, Sequence[opening_pb2.TokenOpening]]]:
    for step, opening in plan.openings.items():
        for at, block in enumerate(opening.blocks):
            yield Site(step, f"blocks.{at}", block.block_index), block.tokens
        for at, shown in enumerate(opening.token_blocks):
            yield Site(step, f"token_blocks.{at}", shown.block_index), shown.tokens


def _tokens(plan: Plan) -> Iterator[tuple[Site, opening_pb2.TokenOpening]]:
    for site, opened in _token_lists(plan):
        for at, token in enumerate(opened):
            yield Site(site.step, f"{site.path}.tokens.{at}", site.index), token
    for step, opening in plan.openings.items():
        yield Site(step, "edge.last_token", opening.edge.block_index), opening.edge.last_token


def _with_manifest(
    case: Case, how: Callable[[envelope_pb2.Envelope], envelope_pb2.Envelope]
) -> Case:
    return case if case.manifest is None else replace(case, manifest=how(case.manifest))
