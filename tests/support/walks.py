"""Whole audits in memory, milliseconds each: an honest auditor's steps, and those of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from coin_protocol.checks import Case
from coin_protocol.keyset import stamp
from coin_protocol.profile import Policy
from coin_protocol.receipt import BUNDLE_FORMAT
from coin_protocol.testing.small import small_profile
from coin_protocol.testing.world import START, VERIFIER, Audit, Reply, World
from coin_protocol.v1 import receipt_pb2
from tests.support.parties import easy, small_policy
from verifier_sdk.deciding import (
    AskManifest,
    AskRound,
    AskWhole,
    Course,
    Decided,
    Step,
    conclude,
)
from verifier_sdk.semantic import CosineJudge, Judge, textual_scores
from verifier_sdk.verdict import sign_verdict

Steer = Callable[[Step, Case], Step]
"""What an auditor does in place of a step."""

DECIDED_AT = stamp(START)


def straight(step: Step, _case: Case) -> Step:
    """Do as the policy says."""
    return step


def world(policy: Policy | None = None, *, seed: str = "walks", **profile: Any) -> World:
    """Return a world of small models, by default under a policy that every judge can satisfy."""
    caps = {"tokens_ppm": 1_000_000, "blocks_ppm": 1_000_000} | profile
    return World(seed, small_profile(**caps), policy or small_policy(easy))


@dataclass(frozen=True)
class Auditing:
    """How an audit goes.

    Attributes:
        reply: What is audited.
        judge: Of the auditor; by default the policy's cosine rule.
        rounds: What is special about rounds, by number: arguments of `Audit.ask`.
        whole: The same of the challenge to open blocks whole.
        no_manifest: Why the manifest did not come, where it does not.
        matches: What the auditor remembers.
        reference: A reference model.
        steer: What else the auditor does.
        late: Whether the fingerprints come with the manifest.
    """

    reply: Reply
    judge: Judge | None = None
    rounds: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    whole: Mapping[str, Any] = field(default_factory=dict)
    no_manifest: str = ""
    matches: Sequence[receipt_pb2.BlockMatch] = ()
    reference: Any = None
    steer: Steer = straight
    late: bool = False

    @property
    def world(self) -> World:
        """Where all this happens."""
        return self.reply.world

    @property
    def own_judge(self) -> Judge:
        """The judge that is asked."""
        return self.judge or CosineJudge(self.world.policy.message.cosine_rules)

    def bundle(self) -> receipt_pb2.Bundle:
        """Audit to the end."""
        audit = self.world.audit(self.reply)
        course = Course(models=self.world.models, judge=self.own_judge)
        case = self._case(audit, asked=False)
        while True:
            step = self.steer(course.next(case), case)
            if isinstance(step, Decided):
                return self._concluded(case, step)
            audit = self._done(audit, step)
            case = self._case(audit, asked=True)

    def _done(self, audit: Audit, step: Step) -> Audit:
        if isinstance(step, AskRound):
            asked = {
                "blocks": step.blocks,
                "token_blocks": step.token_blocks,
                "tokens_per_block": step.tokens_per_block,
            }
            return audit.ask(**(asked | dict(self.rounds.get(step.number, {}))))
        if isinstance(step, AskWhole):
            return audit.ask_whole(**({"blocks": step.blocks} | dict(self.whole)))
        assert isinstance(step, AskManifest)
        return audit

    def _case(self, audit: Audit, *, asked: bool) -> Case:
        case = audit.case()
        if self.late and not asked:
            receipt = receipt_pb2.Receipt()
            receipt.CopyFrom(case.receipt)
            receipt.ClearField("fingerprints")
            case = replace(case, receipt=receipt)
        came = asked and not self.no_manifest
        return replace(
            case,
            manifest=case.manifest if came else None,
            no_manifest=self.no_manifest if asked else "",
        )

    def _concluded(self, case: Case, decided: Decided) -> receipt_pb2.Bundle:
        judged = decided.judgement is not None
        matches = self.matches if judged else ()
        verdict = conclude(
            case,
            decided,
            verifier=VERIFIER,
            texts=textual_scores(case, self.reference) if judged else (),
            matches=matches,
            decided_at=DECIDED_AT,
        )
        return receipt_pb2.Bundle(
            format=BUNDLE_FORMAT,
            receipt=case.receipt,
            manifest=case.manifest,
            rounds=case.rounds,
            whole_rounds=case.whole_rounds,
            no_manifest=case.no_manifest or None,
            verdict=sign_verdict(verdict, self.world.signer(VERIFIER)),
            matches=matches,
        )
