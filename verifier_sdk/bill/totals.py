"""Sums over a bill: what it bills, what of it is borne out, disputed, or nobody's proof."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Final

from verifier_sdk.bill.check import Checked
from verifier_sdk.bill.codes import Code, Verdict
from verifier_sdk.bill.receipts import State

_EXACT: Final = Context(prec=100)
"""Amounts have 15 digits before the point and at most 60 behind it: no sum is rounded."""
_MOST_REASONS: Final = 100


class Money(dict[str, Decimal]):
    """Sums by currency; of two currencies no sum is made."""

    def put(self, currency: str, amount: Decimal) -> None:
        """Add an amount."""
        self[currency] = _EXACT.add(self.get(currency, Decimal()), amount)


@dataclass
class Amount:
    """What some lines bill.

    Attributes:
        lines: How many.
        prompt_tokens: Cached ones among them.
        generated_tokens: Reasoning once.
        reasoning_tokens: Of those, as far as stated.
        money: By currency.
    """

    lines: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    reasoning_tokens: int = 0
    money: Money = field(default_factory=Money)

    def put(self, checked: Checked) -> None:
        """Add a line."""
        self.lines += 1
        line, reported = checked.line, checked.reported
        if reported is not None:
            self.prompt_tokens += reported.prompt_tokens
            self.generated_tokens += reported.generated
            self.reasoning_tokens += reported.reasoning_tokens or 0
        if line is not None and line.cost is not None:
            self.money.put(line.currency, line.cost)


@dataclass
class Found:
    """What findings of one code come to.

    Attributes:
        lines: With such a finding.
        tokens: Billed too many, over them; negative where too few.
        money: Billed too much, as far as the data say.
    """

    lines: int = 0
    tokens: int = 0
    money: Money = field(default_factory=Money)


@dataclass
class Totals:
    """Sums over the lines that were put in.

    Attributes:
        lines: Read, malformed ones among them.
        verdicts: How many lines have which.
        findings: By code. A line may have several, so what they come to is not to be added up.
        billed: All lines that could be read.
        borne_out: Equal to a verified receipt, and nothing speaks against them.
        disputed: Lines with a finding.
        unverifiable: The rest: the provider's word.
        unpriced: Why lines could not be priced, and how many.
    """

    lines: int = 0
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    findings: dict[Code, Found] = field(default_factory=dict)
    billed: Amount = field(default_factory=Amount)
    borne_out: Amount = field(default_factory=Amount)
    disputed: Amount = field(default_factory=Amount)
    unverifiable: Amount = field(default_factory=Amount)
    unpriced: Counter[str] = field(default_factory=Counter)

    def put(self, checked: Checked) -> None:
        """Add a line."""
        self.lines += 1
        self.verdicts[checked.verdict] += 1
        if checked.verdict is Verdict.MALFORMED:
            return
        self.billed.put(checked)
        if checked.findings:
            self.disputed.put(checked)
        elif checked.verdict is Verdict.EQUAL and checked.receipt is State.VERIFIED:
            self.borne_out.put(checked)
        else:
            self.unverifiable.put(checked)
        currency = "" if checked.line is None else checked.line.currency
        for finding in checked.findings:
            found = self.findings.setdefault(finding.code, Found())
            found.lines += 1
            found.tokens += finding.tokens or 0
            if finding.money is not None:
                found.money.put(currency, finding.money)
        if checked.unpriced:
            known = checked.unpriced in self.unpriced or len(self.unpriced) < _MOST_REASONS
            self.unpriced[checked.unpriced if known else "other reasons"] += 1

    @property
    def malformed(self) -> int:
        """Lines that could not be read."""
        return self.verdicts[Verdict.MALFORMED]

    @property
    def checked(self) -> int:
        """Lines of which something could be checked: those with counts."""
        return self.lines - self.malformed - self.verdicts[Verdict.NO_COUNTS]
