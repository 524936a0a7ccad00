"""What is said of a bill, for people and for machines. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from coin_protocol.usage import INSIDE
from coin_protocol.vendors import Reported
from verifier_sdk.bill.check import BillCheck, Checked
from verifier_sdk.bill.codes import VERDICT_OF, Finding, Verdict
from verifier_sdk.bill.committed import Committed
from verifier_sdk.bill.line import Line
from verifier_sdk.bill.totals import Amount, Money, Totals

SCHEMA: Final = "coin.bill-check.v1"


def line_document(checked: Checked) -> dict[str, object]:
    """Return what is said of a line, as docs/bill.md describes it."""
    line = checked.line
    period = None if line is None else line.period
    return {
        "line": checked.number,
        "verdict": checked.verdict,
        "tier": checked.tier,
        "receipt": checked.receipt,
        "matched_by": checked.how,
        "id": None if line is None or not line.ids else line.ids[0],
        "model": None if line is None else line.model,
        "kind": None if line is None else line.kind,
        "period": None if period is None else [period.start.isoformat(), period.end.isoformat()],
        "billed": None if line is None else _billed(line, checked.reported),
        "committed": None if checked.committed is None else _committed(checked.committed),
        "expected_cost": _plain(checked.expected),
        "unpriced": checked.unpriced or None,
        "findings": [_finding(finding) for finding in checked.findings],
        "notes": list(checked.notes),
        "reason": checked.reason or None,
    }


def totals_document(totals: Totals) -> dict[str, object]:
    """Return the sums, as docs/bill.md describes them."""
    return {
        "lines": totals.lines,
        "verdicts": {verdict: totals.verdicts[verdict] for verdict in Verdict},
        "billed": _amount(totals.billed),
        "borne_out": _amount(totals.borne_out),
        "disputed": _amount(totals.disputed),
        "unverifiable": _amount(totals.unverifiable),
        "findings": {
            code: {
                "verdict": VERDICT_OF[code][0],
                "weight": VERDICT_OF[code][1],
                "lines": found.lines,
                "tokens": found.tokens,
                "money": _money(found.money),
            }
            for code, found in totals.findings.items()
        },
        "unpriced": dict(totals.unpriced),
    }


def head_document(check: BillCheck) -> dict[str, object]:
    """Return what was checked, and what was assumed."""
    return {
        "schema": SCHEMA,
        "bill": {
            "path": str(check.source.path),
            "bytes": check.source.size,
            "form": None if check.shape is None else check.shape.name,
            "numbered_by": check.source.unit,
            "has_more": check.source.more,
        },
        "assumptions": {
            "max_tokens_per_second": check.pace.tokens_per_second,
            "max_tokens_per_second_from": check.pace.source,
        },
    }


def sentence(totals: Totals, *, receipts: int, rooted: bool) -> str:
    """Return in plain words what came out.

    Args:
        totals: Over all lines.
        receipts: That were given.
        rooted: Whether it was said whose signatures to believe.
    """
    if not totals.lines:
        return "The bill has no line: nothing was decided."
    lines = _number(totals.lines, "line")
    if not totals.checked and totals.billed.lines:
        return (
            f"{lines}, and those that could be read state money alone, "
            f"{money_text(totals.billed.money) or 'none'}: nothing was decided. Take the export "
            f"that has counts."
        )
    if not totals.checked:
        return f"None of {lines} could be read: nothing was decided."
    billed = _number(totals.billed.lines, "line")
    said = [f"{billed} bill{'s' if totals.billed.lines == 1 else ''} {_what(totals.billed)}."]
    if totals.disputed.lines:
        said.append(
            f"{_number(totals.disputed.lines, 'line')} with {_what(totals.disputed)} "
            f"raise{'s' if totals.disputed.lines == 1 else ''} findings: ask the provider about "
            f"them."
        )
    else:
        said.append("Nothing that could be checked disagrees.")
    if totals.borne_out.lines:
        said.append(f"Receipts bear out {_what(totals.borne_out)}.")
    if totals.unverifiable.lines:
        said.append(f"{_what(totals.unverifiable)} {_nobody(receipts, rooted=rooted)}")
    if totals.malformed:
        said.append(f"{_number(totals.malformed, 'line')} could not be read.")
    return " ".join(said)


def why(checked: Checked) -> str:
    """Return the reasons of a verdict for people."""
    said = [f"{finding.code}: {finding.sentence}" for finding in checked.findings]
    return "; ".join([*said, *checked.notes]) or checked.reason or checked.unpriced


def money_text(money: Mapping[str, Decimal]) -> str:
    """Return sums for people; nothing where there are none."""
    return " + ".join(f"{short(amount)} {currency}" for currency, amount in sorted(money.items()))


def short(amount: Decimal) -> str:
    """Return an amount without the noise of binary fractions, to a millionth."""
    text = f"{amount:,.6f}".rstrip("0")
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction:0<2}"


def _nobody(receipts: int, *, rooted: bool) -> str:
    if not receipts:
        return "rest on the provider's word: no receipts were given."
    if not rooted:
        return "rest on the provider's word: whose signatures to believe was not said (--root)."
    return "rest on the provider's word: no receipt that verifies bears them out."


def _what(amount: Amount) -> str:
    tokens = _number(amount.generated_tokens, "generated token")
    money = money_text(amount.money)
    return f"{tokens} and {money}" if money else tokens


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _billed(line: Line, reported: Reported | None) -> dict[str, object]:
    counts: dict[str, object] = {}
    if reported is not None:
        counts = {
            "prompt_tokens": reported.prompt_tokens,
            "cached_prompt_tokens": reported.cached_prompt_tokens,
            "completion_tokens": reported.completion_tokens,
            "reasoning_tokens": reported.reasoning_tokens,
            "generated_tokens": reported.generated,
            "reasoning_counted": "inside" if reported.counting == INSIDE else "beside",
            "vendor": reported.vendor,
        }
    return {
        **counts,
        "requests": line.requests,
        "cost": _plain(line.cost),
        "currency": line.currency or None,
    }


def _committed(committed: Committed) -> dict[str, object]:
    return {
        "receipts": committed.receipts,
        "prompt_tokens": committed.prompt_tokens,
        "cached_prompt_tokens": committed.cached_prompt_tokens,
        "reasoning_tokens": committed.reasoning_tokens,
        "answer_tokens": committed.answer_tokens,
        "generated_tokens": committed.generated,
    }


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "code": finding.code,
        "verdict": finding.verdict,
        "weight": finding.weight,
        "sentence": finding.sentence,
        "tokens": finding.tokens,
        "money": _plain(finding.money),
    }


def _amount(amount: Amount) -> dict[str, object]:
    return {
        "lines": amount.lines,
        "prompt_tokens": amount.prompt_tokens,
        "generated_tokens": amount.generated_tokens,
        "reasoning_tokens": amount.reasoning_tokens,
        "money": _money(amount.money),
    }


def _money(money: Money) -> dict[str, str | None]:
    return {currency: _plain(amount) for currency, amount in sorted(money.items())}


def _plain(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"
