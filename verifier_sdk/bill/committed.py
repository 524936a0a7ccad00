"""What receipts come to together. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from verifier_sdk.bill.receipts import Facts, State

_TIERS: Final = ("asserted", "committed", "timed", "opened", "reexecuted", "attested")


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """Sums of what receipts commit to, in tokens, and how far they can be believed.

    Attributes:
        receipts: How many.
        requests: Of how many; the choices of one share its nonce.
        prompt_tokens: As signed.
        prompts_known: Whether they are of every request; where its upstream gave no usage, a
            provider signs 0.
        cached_prompt_tokens: As signed.
        reasoning_tokens: As committed.
        answer_tokens: As committed.
        state: The worst; None without any.
        tier: The weakest.
        audit_failed: The first that failed its audit; None where none did.
    """

    receipts: int
    requests: int
    prompt_tokens: int
    prompts_known: bool
    cached_prompt_tokens: int
    reasoning_tokens: int
    answer_tokens: int
    state: State | None
    tier: str
    audit_failed: Facts | None

    @classmethod
    def of(cls, receipts: Sequence[Facts]) -> Committed:
        """Return what receipts come to, all of which count."""
        verified = all(facts.state is State.VERIFIED for facts in receipts)
        state = State.VERIFIED if verified else State.UNVERIFIED
        requests = {facts.client_nonce for facts in receipts}
        # Of the choices of one request one has its prompt.
        with_prompt = {facts.client_nonce for facts in receipts if facts.prompt_tokens}
        return cls(
            receipts=len(receipts),
            requests=len(requests),
            prompt_tokens=sum(facts.prompt_tokens for facts in receipts),
            prompts_known=requests == with_prompt,
            cached_prompt_tokens=sum(facts.cached_prompt_tokens for facts in receipts),
            reasoning_tokens=sum(facts.reasoning_tokens for facts in receipts),
            answer_tokens=sum(facts.answer_tokens for facts in receipts),
            state=state if receipts else None,
            tier=_TIERS[min((_TIERS.index(facts.tier) for facts in receipts), default=0)],
            audit_failed=next((facts for facts in receipts if facts.audit_failed), None),
        )

    @property
    def generated(self) -> int:
        """All tokens that were generated."""
        return self.reasoning_tokens + self.answer_tokens
