"""A whole bill: every line read, checked and beside its receipts, in one pass or two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Final

from coin_protocol.errors import InvalidInputError
from coin_protocol.profile import Policy
from coin_protocol.vendors import CONVENTIONS, Reported
from verifier_sdk.bill.book import ReceiptBook
from verifier_sdk.bill.codes import Code, Finding, Verdict
from verifier_sdk.bill.committed import Committed
from verifier_sdk.bill.fields import UnreadableError
from verifier_sdk.bill.formats import AUTO, Shape, find_shape
from verifier_sdk.bill.line import Kind, Line
from verifier_sdk.bill.matching import NO_MATCH, How, Match, Matcher
from verifier_sdk.bill.prices import PriceList
from verifier_sdk.bill.pricing import Priced, check_price, output_money
from verifier_sdk.bill.reading import Reading, read
from verifier_sdk.bill.receipts import State
from verifier_sdk.bill.reconcile import Reconciled, reconcile
from verifier_sdk.bill.requests import Requests
from verifier_sdk.bill.rules import Pace, check_alone
from verifier_sdk.bill.source import Row, Source, Told, Unreadable

_ORDER: Final = tuple(Verdict)
_PRICED_AS_OUTPUT: Final = frozenset(
    {
        Code.REASONING_COUNTED_TWICE,
        Code.GENERATED_REASONING_TWICE,
        Code.GENERATED_MORE,
        Code.GENERATED_SLIGHTLY_MORE,
        Code.GENERATED_LESS,
        Code.GENERATED_SLIGHTLY_LESS,
        Code.GENERATED_WITHOUT_REASONING,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What is said of one line.

    Attributes:
        number: Of the line, or of the record in a JSON document.
        verdict: One word.
        findings: Why, and what else was found; the weightiest first.
        notes: What is worth knowing and no finding.
        line: As billed; None where it could not be read.
        reason: Why it could not be.
        reported: Its counts; None where it has none.
        how: It was matched with receipts.
        receipt: State of these; None without any.
        tier: Evidence that the counts rest on.
        committed: What the receipts commit to.
        expected: What the tokens cost by the price list.
        unpriced: Why that cannot be said; empty where it can, or no price list was given.
    """

    number: int
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    line: Line | None = None
    reason: str = ""
    reported: Reported | None = None
    how: How = How.NONE
    receipt: State | None = None
    tier: str = "asserted"
    committed: Committed | None = None
    expected: Decimal | None = None
    unpriced: str = ""


class BillCheck:
    """Checks a bill. Iterate to have its lines, one by one, each time from the beginning.

        >>> for checked in BillCheck(Path("usage.csv")):
        ...     print(checked.number, checked.verdict)

    Attributes:
        source: The file.
        shape: Its form; None where no row of it can be read.
        pace: How fast a reply can have been decoded.
    """

    def __init__(
        self,
        bill: Path,
        *,
        form: str = AUTO,
        vendor: str | None = None,
        book: ReceiptBook | None = None,
        requests: Requests | None = None,
        prices: PriceList | None = None,
        policy: Policy | None = None,
        max_rate: float | None = None,
    ) -> None:
        """Look at a bill, and find its form.

        Args:
            bill: File.
            form: One of `FORMATS`, or `AUTO`.
            vendor: Whose convention the counts follow; by default as the form or the line says.
            book: Receipts.
            requests: What was kept of the requests.
            prices: What tokens should cost.
            policy: Gives the greatest plausible rate and clock skew; by default the shipped one.
            max_rate: In tokens a second; by default the policy's.

        Raises:
            InvalidInputError: The bill cannot be read, or its form is not certain; or no
                convention is called `vendor`, or the form has its own.
            LimitError: The bill is too large.
        """
        rules = Policy.shipped() if policy is None else policy
        self.source = Source(bill)
        self.shape: Shape | None = find_shape(bill, self.source.rows(), form)
        self._vendor = self._checked_vendor(vendor)
        # Who names the form of half the industry means its vendor.
        self._assumed = form if form in CONVENTIONS else None
        self._book = ReceiptBook() if book is None else book
        self._requests, self._prices = requests, prices
        self._skew = timedelta(seconds=rules.clock_skew_seconds)
        if max_rate is None:
            rate, said_by = rules.message.max_tokens_per_second, f"policy {rules.message.name}"
        else:
            rate, said_by = max_rate, "as given"
        self.pace = Pace(rate, said_by)

    @property
    def passes(self) -> int:
        """How often the file is read."""
        return 2 if len(self._book) else 1

    def __iter__(self) -> Iterator[Checked]:
        """Yield what is said of each line."""
        return self.lines()

    def lines(self, told: Told = lambda _: None) -> Iterator[Checked]:
        """Yield what is said of each line.

        Args:
            told: Is told how many bytes were read, over all passes.

        Raises:
            InvalidInputError: The file turns out to be no text.
            LimitError: A line, or their number, passes its limit.
        """
        size = self.source.size
        self._matcher = self._noted(told) if len(self._book) else None
        before = size if self._matcher is not None else 0
        seen = _Seen()
        for row in self.source.rows(lambda position: told(before + position)):
            checked = self._check(row, seen)
            if checked is not None:
                yield checked

    @property
    def unused_receipts(self) -> int:
        """How many receipts are of no line; known once lines were asked for."""
        return 0 if self._matcher is None else self._matcher.unused

    _matcher: Matcher | None = None

    def _checked_vendor(self, vendor: str | None) -> str | None:
        if vendor is None:
            return None
        if vendor not in CONVENTIONS:
            msg = f"no usage convention is called {vendor!r}; use one of {', '.join(CONVENTIONS)}"
            raise InvalidInputError(msg)
        if self.shape is not None and self.shape.own_names:
            msg = f"{self.shape.name} has its own counts; leave --vendor out"
            raise InvalidInputError(msg)
        return vendor

    def _noted(self, told: Told) -> Matcher:
        matcher = Matcher(self._book, self._skew)
        for row in self.source.rows(told):
            try:
                line = self._line(row)
                if line is not None:
                    matcher.note(line, read(line))
            except UnreadableError:
                continue
        matcher.noted()
        return matcher

    def _line(self, row: Row) -> Line | None:
        """Make a line of a row; None where the row bills nothing.

        Raises:
            UnreadableError: It is none.
        """
        if isinstance(row, Unreadable):
            raise UnreadableError(row.reason)
        if self.shape is None:
            msg = "its form is not known"
            raise UnreadableError(msg)
        missing = self.shape.needs - row.values.keys()
        if missing:
            msg = f"it lacks {', '.join(sorted(missing))}, which {self.shape.name} has"
            raise UnreadableError(msg)
        line = self.shape.read(row)
        if line is None:
            return None
        if self._requests is not None:
            line = self._requests.complete(line)
        vendor = self._vendor or line.vendor or self._assumed
        return line if vendor == line.vendor else replace(line, vendor=vendor)

    def _check(self, row: Row, seen: _Seen) -> Checked | None:
        try:
            line = self._line(row)
            if line is None:
                return None
            reading = read(line)
        except UnreadableError as error:
            return Checked(number=row.number, verdict=Verdict.MALFORMED, reason=str(error))
        match = NO_MATCH
        if self._matcher is not None and reading.reported is not None:
            match = self._matcher.match(line, reading.reported)
        line = _as_received(line, match)
        found = reconcile(line, reading, match)
        priced = self._priced(line, reading, found)
        findings = [*found.findings, *priced.findings]
        if found.reported is not None:
            findings += check_alone(line, found.reported, self.pace)
            findings += seen.check(line, found.reported)
        findings = [self._with_money(finding, line) for finding in _distinct(findings)]
        return Checked(
            number=line.number,
            verdict=_verdict(line, found, findings),
            findings=tuple(sorted(findings, key=lambda each: _ORDER.index(each.verdict))),
            notes=found.notes,
            line=line,
            reported=found.reported,
            how=match.how,
            receipt=found.state,
            tier=found.tier,
            committed=found.committed,
            expected=priced.expected,
            unpriced=priced.unpriced,
        )

    def _priced(self, line: Line, reading: Reading, found: Reconciled) -> Priced:
        if self._prices is None or found.reported is None:
            return Priced()
        priced = check_price(line, found.reported, self._prices)
        if not reading.undecided or found.committed is not None:
            return priced
        # The money may tell what no total does: that this vendor meant reasoning to be beside.
        return replace(priced, findings=tuple(map(_undecided, priced.findings)))

    def _with_money(self, finding: Finding, line: Line) -> Finding:
        """Return a finding with what its tokens cost, where the price list says so."""
        if finding.money is not None or finding.tokens is None or self._prices is None:
            return finding
        price = self._prices.price(line.model, line.service_tier)
        known = price is not None and line.currency in {"", self._prices.currency}
        if price is None or not known or finding.code not in _PRICED_AS_OUTPUT:
            return finding
        return replace(finding, money=output_money(price, finding.tokens))


class _Seen:
    """The ids of lines so far, as digests; remembers where each stood first."""

    def __init__(self) -> None:
        self._first: dict[bytes, int] = {}

    def check(self, line: Line, reported: Reported) -> Iterator[Finding]:
        """Yield that a reply was billed before."""
        if line.kind is not Kind.REQUEST or not line.ids:
            return
        if not line.charged(reported.generated):
            return
        named = blake2b(line.ids[0].encode("utf-8", "surrogatepass"), digest_size=16).digest()
        first = self._first.setdefault(named, line.number)
        if first != line.number:
            sentence = f"the reply is billed on line {first}, too"
            yield Finding(
                code=Code.REPLY_BILLED_TWICE,
                sentence=sentence,
                tokens=reported.generated,
                money=line.cost,
            )


def _as_received(line: Line, match: Match) -> Line:
    """Return a line with what its receipts tell of request and reply."""
    own = [facts for facts in match.receipts if facts.counts] if match.how is How.ID else []
    if not own or not match.complete:
        return line
    first = own[0]
    terms = line.terms if line.terms.max_tokens is not None else first.terms
    took = [facts.seconds for facts in own if facts.seconds is not None]
    empty = all(facts.answer_empty for facts in own)
    return replace(
        line,
        terms=terms,
        answer_empty=empty if line.answer_empty is None else line.answer_empty,
        seconds=max(took) if took else line.seconds,
    )


def _verdict(line: Line, found: Reconciled, findings: Sequence[Finding]) -> Verdict:
    said = [finding.verdict for finding in findings]
    if said:
        return min(said, key=_ORDER.index)
    if found.equal:
        return Verdict.EQUAL
    if line.kind is Kind.MONEY or line.usage is None:
        return Verdict.NO_COUNTS
    return Verdict.MISSING_RECEIPT


def _distinct(findings: Sequence[Finding]) -> list[Finding]:
    """Return one finding a code; that a reply is billed twice says where its receipt went, too."""
    found = {finding.code: finding for finding in reversed(findings)}
    if Code.REPLY_BILLED_TWICE in found:
        found.pop(Code.RECEIPT_REUSED, None)
    return list(found.values())[::-1]


def _undecided(finding: Finding) -> Finding:
    if finding.code is not Code.REASONING_PRICED_TWICE:
        return finding
    sentence = (
        f"{finding.sentence}: either reasoning is beside the completion here, or it is priced "
        f"twice; no total tells"
    )
    return replace(finding, code=Code.AMBIGUOUS, sentence=sentence)
