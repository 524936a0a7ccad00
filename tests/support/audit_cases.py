"""Audits in memory that end in every way an audit can, and their replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from coin_protocol.profile import Policy
from coin_protocol.receipt import read_bundle
from coin_protocol.replaying import Difference, Replayed
from coin_protocol.statements import read_opening
from coin_protocol.testing.forgeries import both, flipped, put, refused, shown, unanswered
from coin_protocol.testing.small import SmallTokenizer
from coin_protocol.testing.world import VERIFIER, World
from coin_protocol.v1 import receipt_pb2 as pb
from coin_protocol.v1 import statements_pb2
from tests.support.judges import accusing, judge
from tests.support.parties import small_policy, strict
from tests.support.walks import Auditing, world
from verifier_sdk.replaying import replay_bundle
from verifier_sdk.semantic import Judge
from verifier_sdk.verdict import sign_verdict

PASS, FAIL, INCONCLUSIVE = pb.OUTCOME_PASS, pb.OUTCOME_FAIL, pb.OUTCOME_INCONCLUSIVE
LONG = 120
"""Tokens of a reply of 15 blocks: one round is enough for judges that are satisfied."""

NEVER = small_policy(strict)
"""A policy whose rule is never satisfied."""


class Reference:
    """A reference model that is surprised by how long a text is."""

    def __init__(self, more: float = 0.0) -> None:
        self._more = more

    def surprise(self, texts: Sequence[str]) -> list[float]:
        """Return one number a text."""
        return [len(text) / 7 + self._more for text in texts]


@cache
def learned() -> Judge:
    """Return a judge that knows nothing, over the small tokenizer."""
    return replace(judge(), tokenizer=SmallTokenizer())


@cache
def accuser() -> Judge:
    """Return a judge that finds random vocabulary in everything."""
    return replace(accusing(random=50.0), tokenizer=SmallTokenizer())


def plain(of: World | None = None, *, tokens: int = LONG, **edits: Any) -> Auditing:
    return Auditing((of or world()).reply(tokens=tokens, **edits))


def projected() -> Auditing:
    """Return an audit whose vectors a learned judge of the laboratory can read."""
    return plain(world(projection=12, run_tokens=4), tokens=255)


def told(of: World | None = None) -> Auditing:
    """Return an audit of five blocks, of which one is opened whole."""
    return plain(of or world(whole_blocks_ppm=200_000), tokens=40)


def silent(status: str, *, number: int = 1, of: World | None = None) -> Auditing:
    return replace(plain(of), rounds={number: {"edit_round": unanswered(status)}})


def used_up() -> Auditing:
    """Return an audit that meets a provider which others have asked all they may."""
    audit = plain(world(blocks_ppm=600_000, whole_blocks_ppm=0))
    others = audit.world.audit(audit.reply).ask(blocks=9)
    return replace(audit, rounds={1: {"edit_round": refused(audit.world, shown(others))}})


def match(block_index: int, **instead: Any) -> pb.BlockMatch:
    fields: dict[str, Any] = {
        "other_commitment_sha256": bytes(range(32)), "other_block_index": 3, "cosine": 0.99871234,
    }  # fmt: skip
    return pb.BlockMatch(block_index=block_index, **(fields | instead))


def remembering(*places: int, **instead: Any) -> Auditing:
    """Return an audit of a verifier that remembers some of the blocks opened, by their order."""
    blocks = opened(told())
    return replace(told(), matches=[match(blocks[place], **instead) for place in places])


@dataclass(frozen=True)
class Expected:
    """An audit, and what must come of it, so that it is the case that its name says."""

    audit: Callable[[], Auditing]
    outcomes: Sequence[int]
    said: str


AUDITS = {
    "passed": Expected(plain, [PASS], "rule is satisfied"),
    "passed, fingerprints came late": Expected(
        lambda: replace(plain(), late=True), [PASS], "rule is satisfied"
    ),
    "passed without times": Expected(
        lambda: plain(edit_receipt=lambda receipt: receipt.ClearField("checkpoints")),
        [PASS],
        "Not timed",
    ),
    "passed without whole blocks": Expected(
        lambda: plain(world(whole_blocks_ppm=0)), [PASS], "rule is satisfied"
    ),
    "undecided after the last round": Expected(
        lambda: plain(world(NEVER), tokens=255), [INCONCLUSIVE], "not satisfied"
    ),
    "undecided at the caps": Expected(
        lambda: plain(world(NEVER, blocks_ppm=300_000)), [INCONCLUSIVE], "caps of the profile"
    ),
    "refused": Expected(used_up, [INCONCLUSIVE], "The provider refused"),
    "refused after the first round": Expected(
        lambda: replace(
            (audit := plain(world(NEVER, blocks_ppm=500_000))),
            rounds={2: {"edit_round": refused(audit.world, shown(first(audit)))}},
        ),
        [FAIL],
        "OPENING_PRESENT",
    ),
    "unreachable": Expected(lambda: silent("UNAVAILABLE"), [INCONCLUSIVE], "OPENING_PRESENT"),
    "unanswered": Expected(lambda: silent("DEADLINE_EXCEEDED"), [FAIL], "OPENING_PRESENT"),
    "retention ended": Expected(
        lambda: silent("RETENTION_ENDED"), [INCONCLUSIVE], "RETENTION_ENDED"
    ),
    "retention ended after the first round": Expected(
        lambda: silent("RETENTION_ENDED", number=2, of=world(NEVER)),
        [INCONCLUSIVE],
        "RETENTION_ENDED",
    ),
    "no manifest": Expected(
        lambda: replace(plain(), no_manifest="NOT_FOUND"), [FAIL], "OPENING_PRESENT"
    ),
    "manifest out of reach": Expected(
        lambda: replace(plain(), no_manifest="UNAVAILABLE"), [INCONCLUSIVE], "OPENING_PRESENT"
    ),
    "no reasoning": Expected(lambda: plain(tokens=0), [PASS], "zero reasoning tokens"),
    "over-billed": Expected(
        lambda: plain(edit_commitment=put("usage.reasoning_tokens", 500)), [FAIL], "BILL"
    ),
    "bad fingerprints that came late": Expected(
        lambda: replace(plain(edit_fingerprints=put("size", 1)), late=True), [FAIL], "FINGERPRINTS"
    ),
    "bad fingerprints": Expected(
        lambda: plain(edit_fingerprints=put("size", 1)), [FAIL], "FINGERPRINTS"
    ),
    "bad opening in a later round": Expected(
        lambda: replace(
            plain(world(NEVER), tokens=255),
            rounds={2: {"edit_opening": flipped("blocks.0.block_salt")}},
        ),
        [FAIL],
        "INCLUSION_PROOF",
    ),
    "bad whole block": Expected(
        lambda: replace(told(), whole={"edit_opening": put("blocks.0.text", "other")}),
        [FAIL],
        "WHOLE_TEXT",
    ),
    "another profile": Expected(
        lambda: plain(edit_commitment=put("profile_sha256", bytes(32))), [INCONCLUSIVE], "PROFILE"
    ),
    "a part, retokenized": Expected(
        lambda: plain(
            edit_commitment=both(
                put("id_source", statements_pb2.ID_SOURCE_RETOKENIZED),
                put("abort_reason", statements_pb2.ABORT_REASON_CANCELLED),
            )
        ),
        [PASS],
        "RETOKENIZED",
    ),
    "judged": Expected(
        lambda: replace(projected(), judge=learned()), [PASS, FAIL, INCONCLUSIVE], "opened blocks"
    ),
    "accused": Expected(
        lambda: replace(projected(), judge=accuser()), [FAIL], "look like random vocabulary"
    ),
    "remembered": Expected(lambda: remembering(0), [PASS], "is like block 3 of"),
    "read by another model": Expected(
        lambda: replace(told(), reference=Reference()), [PASS], "rule is satisfied"
    ),
}


def first(audit: Auditing) -> Any:
    """Return the first round of an audit, as the world plays it."""
    step = audit.bundle().rounds[0]
    return replace(audit.world.audit(audit.reply), rounds=(step,))


def opened(audit: Auditing) -> list[int]:
    """Return the blocks that an audit opens with their embedding."""
    return [
        block.block_index
        for entry in audit.bundle().rounds
        for block in read_opening(entry.opening.payload).blocks
    ]


def replayed(
    audit: Auditing, bundle: pb.Bundle, *, policy: Policy | None = None, **instead: Any
) -> Replayed:
    """Replay a bundle as its reader does, from its bytes."""
    of = audit.world
    arguments = {"judge": audit.own_judge, "reference": audit.reference} | instead
    return replay_bundle(
        read_bundle(bundle.SerializeToString()),
        trust=of.trust,
        models=of.models,
        policy=policy or of.policy,
        **arguments,
    )


def where(audit: Auditing, bundle: pb.Bundle, **instead: Any) -> Difference:
    found = replayed(audit, bundle, **instead).difference
    assert found is not None
    return found


def resigned(bundle: pb.Bundle, verdict: pb.Verdict) -> pb.Bundle:
    """Return a bundle whose verifier says something else."""
    other = pb.Bundle()
    other.CopyFrom(bundle)
    other.verdict.CopyFrom(sign_verdict(verdict, World("walks").signer(VERIFIER)))
    return other
